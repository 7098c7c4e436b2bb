//! TLS configuration from files, replaced while the broker runs.

use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::server::{
    NoServerSessionStorage, ServerConfig, ServerSessionMemoryCache, VerifierBuilderError, WebPkiClientVerifier,
};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{InconsistentKeys, RootCertStore};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, SystemTime};
use tokio::sync::Notify;

/// Largest file of certificates or keys, bytes. A larger one is refused unread.
const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Bytes before the content of a TLS record (RFC 8446 s5.1).
const RECORD_HEADER: usize = 5;
/// Sessions of QUIC clients that may come back with 0-RTT. The oldest are forgotten; their clients do a whole handshake.
const QUIC_SESSIONS: usize = 4_096;

/// Whether a client shows a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ClientAuth {
    /// It is not asked for one.
    #[default]
    None,
    /// It is asked for one; one that the client CA does not vouch for ends the handshake.
    Optional,
    /// Without one the handshake ends.
    Required,
}

/// The files that make up the TLS side of a listener, all PEM.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TlsFiles {
    /// The server's certificate, followed by its chain.
    pub certificate: PathBuf,
    /// The private key of the first certificate: PKCS#8, PKCS#1 or SEC1, not encrypted.
    pub key: PathBuf,
    /// Whether clients show certificates.
    pub client_auth: ClientAuth,
    /// The CAs that vouch for clients; needed unless `client_auth` is [`ClientAuth::None`].
    pub client_ca: Option<PathBuf>,
    /// Certificates of clients that were withdrawn before their time, as revocation lists of those CAs.
    pub client_crl: Option<PathBuf>,
    /// Application protocols (ALPN) to agree on, e.g. `mqtt` or, under WebSocket, `http/1.1`. A client that names none is
    /// let in; one that names only others is refused, as RFC 7301 s3.2 asks.
    pub alpn: Vec<String>,
    /// What the TLS is for.
    pub carrier: Carrier,
    /// Most bytes of text in a record over TCP, 512 to 16,384: what the read buffers of small clients hold.
    pub fragment_bytes: u32,
}

/// What carries TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Carrier {
    /// TCP: TLS 1.2 and 1.3, sessions in tickets that clients keep, no early data.
    #[default]
    Tcp,
    /// QUIC: TLS 1.3 only (RFC 9001 s4.2). A ticket names a session that is kept here and is good once, so the first flight
    /// of a reconnection (0-RTT) cannot be replayed: its ticket is gone (RFC 8446 s8.1).
    Quic,
}

/// TLS could not be set up from its files. Every text names the file and says what to do.
#[derive(Debug, thiserror::Error)]
pub enum TlsConfigError {
    /// A file cannot be read.
    #[error("cannot read {}: {source}; check the path and that the broker's user may read it", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file is larger than 4 MiB.
    #[error("{} is larger than {FILE_BYTES_MAX} bytes; give a PEM file with only what this setting needs", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// A file's PEM is damaged.
    #[error("{} is damaged: {what}; write the file again from its source", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// No certificate in the certificate file or the client CA file.
    #[error("no certificate in {}; it must be PEM with a line BEGIN CERTIFICATE (for DER use `openssl x509 -inform der`)", path.display())]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// No private key in the key file.
    #[error("no private key in {}; it must be PEM with a line BEGIN PRIVATE KEY, BEGIN RSA PRIVATE KEY or BEGIN EC PRIVATE KEY", path.display())]
    NoKey {
        /// The file.
        path: PathBuf,
    },
    /// The private key needs a passphrase.
    #[error("the private key in {} is encrypted; decrypt it with `openssl pkey -in KEY -out PLAIN` and protect the file by its permissions", path.display())]
    EncryptedKey {
        /// The file.
        path: PathBuf,
    },
    /// The private key is of an unknown kind.
    #[error("the private key in {} cannot be used: {what}; use ECDSA P-256 or P-384, Ed25519, or RSA of 2048 to 8192 bits", path.display())]
    UnusableKey {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// The private key belongs to another certificate.
    #[error("the private key in {} does not belong to the first certificate in {}; give the pair that was made together, the server's certificate first", key.display(), certificate.display())]
    WrongKey {
        /// The key file.
        key: PathBuf,
        /// The certificate file.
        certificate: PathBuf,
    },
    /// A certificate cannot be used.
    #[error("a certificate in {} cannot be used: {what}; it must be an X.509 version 3 certificate", path.display())]
    UnusableCertificate {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// Client certificates are asked for, but nobody vouches for them.
    #[error("client certificates are asked for, but no client CA is given; set the client CA file, or ask for none")]
    NoClientCa,
    /// A client CA or a revocation list is given, but clients are asked for no certificate.
    #[error("{} is given, but clients are asked for no certificate; set client certificates to optional or required", path.display())]
    ClientCaUnused {
        /// The file.
        path: PathBuf,
    },
    /// The revocation list cannot be used.
    #[error("the revocation list {} cannot be used: {what}; it must be PEM with a line BEGIN X509 CRL, signed by a client CA", path.display())]
    UnusableCrl {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// The system gave no random numbers, or a library refused for a reason of its own.
    #[error("TLS cannot be set up: {what}; this is not about the files, report it with the version of the broker")]
    Internal {
        /// What the library said.
        what: String,
    },
}

impl TlsFiles {
    /// Reads and checks all files.
    pub fn load(&self) -> Result<Arc<ServerConfig>, TlsConfigError> {
        let provider = Arc::new(ring::default_provider());
        let internal = |error: rustls::Error| TlsConfigError::Internal { what: error.to_string() };
        let certified = self.certified_key(&provider)?;
        let versions: &[_] = match self.carrier {
            Carrier::Tcp => &[&rustls::version::TLS13, &rustls::version::TLS12],
            Carrier::Quic => &[&rustls::version::TLS13],
        };
        let builder =
            ServerConfig::builder_with_provider(provider.clone()).with_protocol_versions(versions).map_err(internal)?;
        let builder = match self.client_auth {
            ClientAuth::None => {
                if let Some(path) = self.client_ca.as_ref().or(self.client_crl.as_ref()) {
                    return Err(TlsConfigError::ClientCaUnused { path: path.clone() });
                }
                builder.with_no_client_auth()
            }
            ClientAuth::Optional | ClientAuth::Required => {
                builder.with_client_cert_verifier(self.client_verifier(&provider)?)
            }
        };
        let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
        config.alpn_protocols = self.alpn.iter().map(|name| name.clone().into_bytes()).collect();
        // Sessions are resumed from tickets the client keeps, so they cost no memory here. The key of the tickets is
        // made anew with every load: a ticket says who the client was found to be, and what is loaded now may judge
        // that differently.
        match self.carrier {
            Carrier::Tcp => {
                config.ticketer = ring::Ticketer::new().map_err(internal)?;
                config.session_storage = Arc::new(NoServerSessionStorage {});
                // The library counts the header in.
                config.max_fragment_size = usize::try_from(self.fragment_bytes).ok().map(|text| text + RECORD_HEADER);
            }
            Carrier::Quic => {
                config.session_storage = ServerSessionMemoryCache::new(QUIC_SESSIONS);
                // QUIC knows no other value but 0 (RFC 9001 s4.6.1); flow control bounds what may come.
                config.max_early_data_size = u32::MAX;
            }
        }
        config.send_tls13_tickets = 1;
        Ok(Arc::new(config))
    }

    fn certified_key(&self, provider: &CryptoProvider) -> Result<CertifiedKey, TlsConfigError> {
        let chain = certificates(&self.certificate)?;
        let text = read(&self.key)?;
        let encrypted = [&b"BEGIN ENCRYPTED PRIVATE KEY"[..], b"Proc-Type: 4,ENCRYPTED"];
        if encrypted.iter().any(|mark| text.windows(mark.len()).any(|window| window == *mark)) {
            return Err(TlsConfigError::EncryptedKey { path: self.key.clone() });
        }
        let key = match PrivateKeyDer::from_pem_slice(&text) {
            Ok(key) => key,
            Err(pem::Error::NoItemsFound) => return Err(TlsConfigError::NoKey { path: self.key.clone() }),
            Err(error) => return Err(damaged(&self.key, &error)),
        };
        let key = provider
            .key_provider
            .load_private_key(key)
            .map_err(|error| TlsConfigError::UnusableKey { path: self.key.clone(), what: error.to_string() })?;
        let certified = CertifiedKey::new(chain, key);
        match certified.keys_match() {
            Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(certified),
            Err(rustls::Error::InconsistentKeys(_)) => {
                Err(TlsConfigError::WrongKey { key: self.key.clone(), certificate: self.certificate.clone() })
            }
            Err(error) => {
                Err(TlsConfigError::UnusableCertificate { path: self.certificate.clone(), what: error.to_string() })
            }
        }
    }

    fn client_verifier(
        &self,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Arc<dyn rustls::server::danger::ClientCertVerifier>, TlsConfigError> {
        let path = self.client_ca.as_ref().ok_or(TlsConfigError::NoClientCa)?;
        let mut roots = RootCertStore::empty();
        for certificate in certificates(path)? {
            roots
                .add(certificate)
                .map_err(|error| TlsConfigError::UnusableCertificate { path: path.clone(), what: error.to_string() })?;
        }
        let mut builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
        if let Some(path) = &self.client_crl {
            let text = read(path)?;
            let lists = CertificateRevocationListDer::pem_slice_iter(&text)
                .collect::<Result<Vec<_>, _>>()
                .map_err(|error| damaged(path, &error))?;
            if lists.is_empty() {
                return Err(TlsConfigError::UnusableCrl { path: path.clone(), what: "there is none in it".to_owned() });
            }
            // A CA without a list here revokes nobody; that is what giving lists for some of the CAs means.
            builder = builder.with_crls(lists).only_check_end_entity_revocation().allow_unknown_revocation_status();
        }
        if self.client_auth == ClientAuth::Optional {
            builder = builder.allow_unauthenticated();
        }
        builder.build().map_err(|error| match (&self.client_crl, error) {
            (Some(path), VerifierBuilderError::InvalidCrl(error)) => {
                TlsConfigError::UnusableCrl { path: path.clone(), what: format!("{error:?}") }
            }
            (_, error) => TlsConfigError::Internal { what: error.to_string() },
        })
    }

    /// What tells one state of the files from another, without reading them.
    fn fingerprint(&self) -> Vec<FileMark> {
        [Some(&self.certificate), Some(&self.key), self.client_ca.as_ref(), self.client_crl.as_ref()]
            .into_iter()
            .flatten()
            .map(|path| FileMark::of(path))
            .collect()
    }
}

/// When a file was changed, how long it is, and which file it is (a symbolic link is followed, so that a switched link
/// counts as a change).
#[derive(Debug, Clone, PartialEq, Eq)]
struct FileMark {
    modified: Option<SystemTime>,
    length: u64,
    inode: u64,
}

impl FileMark {
    fn of(path: &Path) -> Self {
        let Ok(metadata) = std::fs::metadata(path) else {
            return Self { modified: None, length: 0, inode: 0 };
        };
        #[cfg(unix)]
        let inode = std::os::unix::fs::MetadataExt::ino(&metadata);
        #[cfg(not(unix))]
        let inode = 0;
        Self { modified: metadata.modified().ok(), length: metadata.len(), inode }
    }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsConfigError> {
    let unreadable = |source| TlsConfigError::Unreadable { path: path.to_owned(), source };
    let file = File::open(path).map_err(unreadable)?;
    let mut text = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut text).map_err(unreadable)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(TlsConfigError::TooLarge { path: path.to_owned() });
    }
    Ok(text)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsConfigError> {
    let text = read(path)?;
    let all = CertificateDer::pem_slice_iter(&text).collect::<Result<Vec<_>, _>>().map_err(|e| damaged(path, &e))?;
    if all.is_empty() { Err(TlsConfigError::NoCertificate { path: path.to_owned() }) } else { Ok(all) }
}

fn damaged(path: &Path, error: &pem::Error) -> TlsConfigError {
    TlsConfigError::Damaged { path: path.to_owned(), what: error.to_string() }
}

/// The TLS configuration of a listener, which new handshakes take as it is now; connections keep the one they began with.
#[derive(Debug, Clone)]
pub struct ReloadableTls(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    files: RwLock<TlsFiles>,
    current: RwLock<Arc<ServerConfig>>,
    /// The files as they were when they were last loaded, or last failed to load.
    seen: Mutex<Vec<FileMark>>,
    asked: Notify,
}

/// What came of looking at the files again.
#[derive(Debug)]
pub enum ReloadEvent {
    /// New handshakes use what is in the files now.
    Reloaded {
        /// The certificate file, to say which listener.
        certificate: PathBuf,
    },
    /// The files cannot be used; new handshakes go on with what was loaded before.
    Kept {
        /// The certificate file, to say which listener.
        certificate: PathBuf,
        /// Why, and what to do.
        error: TlsConfigError,
    },
}

impl ReloadableTls {
    /// Loads the files.
    pub fn load(files: TlsFiles) -> Result<Self, TlsConfigError> {
        // The mark is taken first: a change during the load is then seen as one.
        let seen = files.fingerprint();
        let config = files.load()?;
        let shared = Shared {
            files: RwLock::new(files),
            current: RwLock::new(config),
            seen: Mutex::new(seen),
            asked: Notify::new(),
        };
        Ok(Self(Arc::new(shared)))
    }

    /// What a handshake that begins now uses.
    pub fn current(&self) -> Arc<ServerConfig> {
        // The lock is only held to clone or to put an `Arc`, so what it guards is whole even if a holder panicked.
        self.0.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The files.
    pub fn files(&self) -> TlsFiles {
        self.0.files.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Names other files; they are used once they have been loaded.
    pub fn set_files(&self, files: TlsFiles) {
        *self.0.files.write().unwrap_or_else(PoisonError::into_inner) = files;
    }

    /// Loads the files again; on an error what was loaded before stays in use.
    pub fn reload(&self) -> Result<(), TlsConfigError> {
        let files = self.files();
        *self.0.seen.lock().unwrap_or_else(PoisonError::into_inner) = files.fingerprint();
        let config = files.load()?;
        *self.0.current.write().unwrap_or_else(PoisonError::into_inner) = config;
        Ok(())
    }

    /// Makes [`Self::watch`] load the files again now, changed or not (for SIGHUP).
    pub fn ask_reload(&self) {
        self.0.asked.notify_one();
    }

    /// Looks at the files every `period` and loads them again when one has changed, or when [`Self::ask_reload`] was
    /// called. Never returns; a failure is reported once for each change. For the side thread: it reads files.
    pub async fn watch(&self, period: Duration, report: impl Fn(ReloadEvent)) {
        loop {
            let asked = tokio::time::timeout(period, self.0.asked.notified()).await.is_ok();
            if !asked && *self.0.seen.lock().unwrap_or_else(PoisonError::into_inner) == self.files().fingerprint() {
                continue;
            }
            let certificate = self.files().certificate;
            report(match self.reload() {
                Ok(()) => ReloadEvent::Reloaded { certificate },
                Err(error) => ReloadEvent::Kept { certificate, error },
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{Ca, Dir, Issued, Socket, client, client_config, names, server_files};
    use super::super::layer::Layer;
    use super::super::tls::TlsLayer;
    use super::*;
    use rustls::version::{TLS12, TLS13};
    use rustls::{ClientConnection, Stream};
    use std::io::Write;
    use tokio::sync::mpsc;

    fn socket(config: Arc<ServerConfig>) -> Socket {
        Socket::new(Layer::Tls(Box::new(TlsLayer::new(config).unwrap())), usize::MAX)
    }

    /// Whether text gets through; the server's verdict is in the socket.
    fn says(client: &mut ClientConnection, socket: &mut Socket) -> bool {
        socket.plain.clear();
        let written = Stream::new(client, socket).write_all(b"hello");
        written.is_ok() && socket.plain == b"hello"
    }

    #[test]
    fn each_wrong_file_is_named_with_advice() {
        let (dir, ca) = (Dir::new(), Ca::new("ca"));
        let good = server_files(&dir, &ca);
        let other = ca.issue("localhost");
        let check = |files: TlsFiles, path: &Path, advice: &str| {
            let text = files.load().unwrap_err().to_string();
            assert!(names(&text, path) && text.contains(advice), "{text}");
        };
        let absent = dir.path("absent.pem");
        check(TlsFiles { certificate: absent.clone(), ..good.clone() }, &absent, "check the path");
        check(TlsFiles { key: absent.clone(), ..good.clone() }, &absent, "check the path");
        let empty = dir.put("empty.pem", "");
        check(TlsFiles { certificate: empty.clone(), ..good.clone() }, &empty, "BEGIN CERTIFICATE");
        check(TlsFiles { certificate: good.key.clone(), ..good.clone() }, &good.key, "BEGIN CERTIFICATE");
        check(TlsFiles { key: good.certificate.clone(), ..good.clone() }, &good.certificate, "BEGIN PRIVATE KEY");
        let key = dir.put("other.key", &other.key);
        check(TlsFiles { key: key.clone(), ..good.clone() }, &key, "does not belong");
        check(TlsFiles { key, ..good.clone() }, &good.certificate, "does not belong");
        for mark in [
            "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMAA=\n-----END ENCRYPTED PRIVATE KEY-----\n",
            "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nMAA=\n-----END RSA PRIVATE KEY-----\n",
        ] {
            let key = dir.put("encrypted.key", mark);
            check(TlsFiles { key: key.clone(), ..good.clone() }, &key, "openssl pkey");
        }
        let key = dir.put("odd.key", "-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----\n");
        check(TlsFiles { key: key.clone(), ..good.clone() }, &key, "use ECDSA");
        let cut = dir.put("cut.pem", &other.certificate[..other.certificate.len() - 30]);
        check(TlsFiles { certificate: cut.clone(), ..good.clone() }, &cut, "damaged");
        let odd = dir.put("odd.pem", "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n");
        check(TlsFiles { certificate: odd.clone(), ..good.clone() }, &odd, "X.509");
        let large = dir.path("large.pem");
        File::create(&large).unwrap().set_len(FILE_BYTES_MAX + 1).unwrap();
        check(TlsFiles { certificate: large.clone(), ..good.clone() }, &large, "larger than");

        let asked = TlsFiles { client_auth: ClientAuth::Required, ..good.clone() };
        assert!(matches!(asked.load(), Err(TlsConfigError::NoClientCa)));
        let with_ca = TlsFiles { client_ca: Some(dir.put("ca.pem", &ca.certificate)), ..asked.clone() };
        with_ca.load().unwrap();
        check(TlsFiles { client_ca: Some(empty.clone()), ..asked.clone() }, &empty, "BEGIN CERTIFICATE");
        check(TlsFiles { client_ca: Some(odd.clone()), ..asked.clone() }, &odd, "X.509");
        check(TlsFiles { client_crl: Some(empty.clone()), ..with_ca.clone() }, &empty, "BEGIN X509 CRL");
        let crl = dir.put("odd.crl", "-----BEGIN X509 CRL-----\nMAA=\n-----END X509 CRL-----\n");
        check(TlsFiles { client_crl: Some(crl.clone()), ..with_ca.clone() }, &crl, "BEGIN X509 CRL");
        let unused = TlsFiles { client_auth: ClientAuth::None, ..with_ca };
        check(unused.clone(), &unused.client_ca.clone().unwrap(), "optional or required");
    }

    #[test]
    fn clients_show_certificates_as_the_listener_asks() {
        let (dir, ca, stranger_ca) = (Dir::new(), Ca::new("ca"), Ca::new("stranger"));
        let (lamp, revoked, stranger) = (ca.issue("lamp"), ca.issue("thief"), stranger_ca.issue("lamp"));
        let base = TlsFiles {
            client_ca: Some(dir.put("ca.pem", &ca.certificate)),
            client_crl: Some(dir.put("ca.crl", &ca.revoke(revoked.serial))),
            ..server_files(&dir, &ca)
        };
        let check = |client_auth: ClientAuth, own: Option<&Issued>, expect: Result<bool, &str>| {
            let files = match client_auth {
                ClientAuth::None => TlsFiles { client_ca: None, client_crl: None, client_auth, ..base.clone() },
                ClientAuth::Optional | ClientAuth::Required => TlsFiles { client_auth, ..base.clone() },
            };
            for version in [&TLS12, &TLS13] {
                let mut socket = socket(files.load().unwrap());
                let mut client = client(client_config(&ca, own, &[version]));
                let through = says(&mut client, &mut socket);
                let shown = socket.layer.tls().unwrap().peer_certificate().map(<[u8]>::to_vec);
                match expect {
                    Ok(with_certificate) => {
                        assert!(through, "{client_auth:?}: {:?}", socket.outcome);
                        let der = own
                            .filter(|_| with_certificate)
                            .map(|own| CertificateDer::from_pem_slice(own.certificate.as_bytes()).unwrap().to_vec());
                        assert_eq!(shown, der, "{client_auth:?}");
                    }
                    Err(label) => {
                        assert!(socket.plain.is_empty());
                        assert_eq!(socket.outcome.unwrap_err().label(), label, "{client_auth:?}");
                    }
                }
            }
        };
        check(ClientAuth::None, None, Ok(false));
        check(ClientAuth::None, Some(&lamp), Ok(false));
        check(ClientAuth::Optional, None, Ok(false));
        check(ClientAuth::Optional, Some(&lamp), Ok(true));
        check(ClientAuth::Optional, Some(&revoked), Err("tls_bad_certificate"));
        check(ClientAuth::Required, None, Err("tls_no_certificate"));
        check(ClientAuth::Required, Some(&lamp), Ok(true));
        check(ClientAuth::Required, Some(&revoked), Err("tls_bad_certificate"));
        check(ClientAuth::Required, Some(&stranger), Err("tls_bad_certificate"));
    }

    #[test]
    fn records_are_as_short_as_a_small_client_needs_them() {
        let (dir, ca) = (Dir::new(), Ca::new("ca"));
        for fragment_bytes in [512, 1_024, 16_384] {
            let config = TlsFiles { fragment_bytes, ..server_files(&dir, &ca) }.load().unwrap();
            let mut server = rustls::ServerConnection::new(config).unwrap();
            let mut client = client(client_config(&ca, None, &[&TLS13]));
            let mut longest = 0;
            for round in 0..6 {
                let mut said = Vec::new();
                while client.wants_write() {
                    client.write_tls(&mut said).unwrap();
                }
                server.read_tls(&mut said.as_slice()).unwrap();
                server.process_new_packets().unwrap();
                if round == 4 {
                    server.writer().write_all(&vec![7; 20_000]).unwrap();
                }
                let mut heard = Vec::new();
                while server.wants_write() {
                    server.write_tls(&mut heard).unwrap();
                }
                let mut rest = heard.as_slice();
                while let [_, _, _, high, low, after @ ..] = rest {
                    let length = u16::from_be_bytes([*high, *low]);
                    longest = longest.max(u32::from(length));
                    rest = &after[usize::from(length)..];
                }
                client.read_tls(&mut heard.as_slice()).unwrap();
                client.process_new_packets().unwrap();
            }
            // The text's kind and the tag (RFC 8446 s5.2).
            assert_eq!(longest, fragment_bytes + 17);
        }
    }

    #[test]
    fn a_reload_is_for_new_handshakes_and_old_connections_stay() {
        let (dir, old_ca, new_ca) = (Dir::new(), Ca::new("old"), Ca::new("new"));
        let tls = ReloadableTls::load(server_files(&dir, &old_ca)).unwrap();
        let mut old_socket = socket(tls.current());
        let mut old_client = client(client_config(&old_ca, None, &[&TLS13]));
        assert!(says(&mut old_client, &mut old_socket));

        server_files(&dir, &new_ca);
        tls.reload().unwrap();
        assert!(says(&mut old_client, &mut old_socket), "the old connection works on");
        assert!(says(&mut client(client_config(&new_ca, None, &[&TLS13])), &mut socket(tls.current())));
        assert!(!says(&mut client(client_config(&old_ca, None, &[&TLS13])), &mut socket(tls.current())));

        dir.put("server.key", "no key at all");
        assert!(matches!(tls.reload(), Err(TlsConfigError::NoKey { .. })));
        assert!(says(&mut client(client_config(&new_ca, None, &[&TLS13])), &mut socket(tls.current())));
    }

    #[test]
    fn a_change_of_a_file_and_a_wish_are_noticed() {
        let (dir, ca) = (Dir::new(), Ca::new("ca"));
        let tls = ReloadableTls::load(server_files(&dir, &ca)).unwrap();
        let (report, mut reported) = mpsc::channel(8);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let next = |reported: &mut mpsc::Receiver<ReloadEvent>| {
            let wait = async { tokio::time::timeout(Duration::from_secs(10), reported.recv()).await };
            runtime.block_on(wait).unwrap().unwrap()
        };
        let watched = tls.clone();
        let task = runtime.spawn(async move {
            watched.watch(Duration::from_millis(5), |event| report.try_send(event).unwrap()).await;
        });
        let before = tls.current();
        tls.ask_reload();
        assert!(matches!(next(&mut reported), ReloadEvent::Reloaded { .. }));
        assert!(!Arc::ptr_eq(&before, &tls.current()));

        let before = tls.current();
        let key = std::fs::read_to_string(dir.path("server.key")).unwrap();
        dir.put("server.key", "broken");
        assert!(matches!(next(&mut reported), ReloadEvent::Kept { error: TlsConfigError::NoKey { .. }, .. }));
        assert!(Arc::ptr_eq(&before, &tls.current()), "the old one stays");
        std::fs::remove_file(dir.path("server.key")).unwrap();
        assert!(matches!(next(&mut reported), ReloadEvent::Kept { error: TlsConfigError::Unreadable { .. }, .. }));
        dir.put("moved.key", &key);
        std::fs::rename(dir.path("moved.key"), dir.path("server.key")).unwrap();
        assert!(matches!(next(&mut reported), ReloadEvent::Reloaded { .. }));
        assert!(!Arc::ptr_eq(&before, &tls.current()));
        task.abort();
    }
}
