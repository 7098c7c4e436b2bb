//! Against OpenSSL, over a real socket.

#![allow(clippy::unwrap_used)]

use embassy_futures::block_on;
use embedded_io_async::{ErrorType, Read, Write};
use parlor_device_tls::{Config, Identity, Pin, TlsBuffers, TlsError, TlsLink, Trust};
use rcgen::{CertificateParams, KeyPair, PublicKeyData};
use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// `openssl s_server`, which sends every line back reversed.
struct Server {
    child: Child,
    port: u16,
    pin: Pin,
    folder: PathBuf,
}

impl Server {
    /// With these options besides. `None` where there is no openssl and only quick tests are wanted.
    fn start(name: &str, options: &[&str]) -> Option<Self> {
        let folder = std::env::temp_dir().join(format!("parlor-tls-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec!["broker.lan".to_owned()]).unwrap().self_signed(&key).unwrap();
        let put = |file: &str, kind: &str, der: &[u8]| {
            let path = folder.join(file);
            std::fs::write(&path, pem(kind, der)).unwrap();
            path
        };
        let spawned = Command::new("openssl")
            .args(["s_server", "-accept", "127.0.0.1:0", "-tls1_3", "-rev", "-alpn", "mqtt", "-naccept", "1"])
            .arg("-cert")
            .arg(put("cert.pem", "CERTIFICATE", certificate.der()))
            .arg("-key")
            .arg(put("key.pem", "PRIVATE KEY", &key.serialize_der()))
            .args(options)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        let mut child = match spawned {
            Ok(child) => child,
            Err(_) if std::env::var_os("PARLOR_QUICK").is_some() => return None,
            Err(error) => panic!("openssl could not be started: {error}; install it, or set PARLOR_QUICK=1"),
        };
        let said = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let accept = said.into_iter().find_map(|line| line.strip_prefix("ACCEPT ").map(str::to_owned));
        let port = accept.and_then(|at| at.rsplit(':').next()?.trim().parse().ok()).expect("it says where it listens");
        Some(Self { child, port, pin: Pin::of(&key.subject_public_key_info()), folder })
    }

    fn config(&self) -> Config<'static> {
        let trust = Trust::Pins { current: self.pin, next: None };
        Config { trust, server_name: Some("broker.lan"), protocol: Some(b"mqtt"), identity: None }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// PEM of DER.
fn pem(kind: &str, der: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = format!("-----BEGIN {kind}-----\n");
    for (at, three) in der.chunks(3).enumerate() {
        let bits = three.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - three.len()));
        for digit in 0..4 {
            let place = (bits >> (18 - 6 * digit) & 63) as usize;
            text.push(if digit > three.len() { '=' } else { char::from(DIGITS[place]) });
        }
        if at % 16 == 15 {
            text.push('\n');
        }
    }
    text + &format!("\n-----END {kind}-----\n")
}

struct Socket(TcpStream);

impl ErrorType for Socket {
    type Error = std::io::Error;
}

impl Read for Socket {
    async fn read(&mut self, out: &mut [u8]) -> Result<usize, std::io::Error> {
        std::io::Read::read(&mut self.0, out)
    }
}

impl Write for Socket {
    async fn write(&mut self, bytes: &[u8]) -> Result<usize, std::io::Error> {
        std::io::Write::write(&mut self.0, bytes)
    }

    async fn flush(&mut self) -> Result<(), std::io::Error> {
        Ok(())
    }
}

fn entropy(bytes: &mut [u8]) {
    use std::io::Read as _;
    std::fs::File::open("/dev/urandom").unwrap().read_exact(bytes).unwrap();
}

/// Says a line and hears it reversed.
fn talk(server: &Server, config: &Config<'_>, line: &[u8]) -> Result<Vec<u8>, TlsError> {
    let socket = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
    let mut buffers: TlsBuffers<1_046, 700> = TlsBuffers::new();
    let (reader, writer) = (Socket(socket.try_clone().unwrap()), Socket(socket));
    block_on(async {
        let mut link = TlsLink::open(reader, writer, config, &mut buffers, entropy).await?;
        let all = [line, b"\n"].concat();
        let mut rest = &all[..];
        while !rest.is_empty() {
            rest = &rest[link.write(rest).await?..];
        }
        link.flush().await?;
        let mut heard = Vec::new();
        while heard.last() != Some(&b'\n') {
            let mut out = [0; 256];
            let length = link.read(&mut out).await?;
            assert_ne!(length, 0, "it left");
            heard.extend(&out[..length]);
        }
        heard.pop();
        heard.reverse();
        Ok(heard)
    })
}

#[test]
fn a_line_goes_there_and_back() {
    let Some(server) = Server::start("line", &[]) else { return };
    assert_eq!(talk(&server, &server.config(), b"hello").unwrap(), b"hello");
}

/// RFC 6066 s4: OpenSSL keeps its records as short as they were asked to be, so that a small buffer holds them.
#[test]
fn records_are_as_short_as_they_were_asked_to_be() {
    let Some(server) = Server::start("short", &[]) else { return };
    let line: Vec<u8> = (0..9_000_u32).map(|at| b'a' + u8::try_from(at % 26).unwrap()).collect();
    assert_eq!(talk(&server, &server.config(), &line).unwrap(), line);
}

#[test]
fn another_key_is_refused() {
    let Some(server) = Server::start("pin", &[]) else { return };
    let trust = Trust::Pins { current: Pin([7; 32]), next: None };
    assert_eq!(talk(&server, &Config { trust, ..server.config() }, b"hello"), Err(TlsError::WrongPin));
}

#[test]
fn a_certificate_of_the_board_is_shown() {
    // Any is taken, but one has to come.
    let Some(server) = Server::start("mutual", &["-Verify", "1"]) else { return };
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["lamp".to_owned()]).unwrap().self_signed(&key).unwrap();
    let pkcs8 = key.serialize_der();
    // PKCS#8 of a P-256 key holds the number behind `04 20`.
    let at = pkcs8.windows(2).position(|pair| pair == [0x04, 0x20]).unwrap() + 2;
    let secret: [u8; 32] = pkcs8[at..at + 32].try_into().unwrap();
    let identity = Some(Identity { certificate: certificate.der(), key: &secret });
    assert_eq!(talk(&server, &Config { identity, ..server.config() }, b"it is me").unwrap(), b"it is me");
}

#[test]
fn a_server_that_wants_a_certificate_says_so() {
    let Some(server) = Server::start("wanted", &["-Verify", "1", "-verify_return_error"]) else { return };
    assert_eq!(talk(&server, &server.config(), b"hello"), Err(TlsError::RefusedClientCertificate(116)));
}

#[test]
fn a_server_of_other_curves_is_told_apart() {
    let Some(server) = Server::start("curves", &["-groups", "X25519"]) else { return };
    let refused = talk(&server, &server.config(), b"hello").unwrap_err();
    assert!(matches!(refused, TlsError::Alert(40) | TlsError::Unsupported), "{refused:?}");
}
