//! Against OpenSSL, over a real socket.

#![allow(clippy::unwrap_used)]

use embassy_futures::block_on;
use embedded_io_async::{ErrorType, Read, Write};
use parlor_device_tls::{Config, Identity, Pin, TlsBuffers, TlsError, TlsLink, Trust};
use rcgen::{CertificateParams, KeyPair, PublicKeyData};
use std::io::{BufRead, BufReader, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

/// `openssl s_server`.
struct Server {
    child: Child,
    /// What it says, from behind the line with its address.
    said: BufReader<ChildStdout>,
    port: u16,
    pin: Pin,
    folder: PathBuf,
}

impl Server {
    /// One of TLS 1.3 that sends every line back reversed, with these options besides. `None` where there is no openssl and only
    /// quick tests are wanted.
    fn start(name: &str, options: &[&str]) -> Option<Self> {
        Self::with_key(name, &KeyPair::generate().unwrap(), &[&["-tls1_3", "-rev"], options].concat())
    }

    fn with_key(name: &str, key: &KeyPair, options: &[&str]) -> Option<Self> {
        let folder = std::env::temp_dir().join(format!("parlor-tls-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let certificate = CertificateParams::new(vec!["broker.lan".to_owned()]).unwrap().self_signed(key).unwrap();
        let put = |file: &str, kind: &str, der: &[u8]| {
            let path = folder.join(file);
            std::fs::write(&path, pem(kind, der)).unwrap();
            path
        };
        let spawned = Command::new("openssl")
            .args(["s_server", "-accept", "127.0.0.1:0", "-alpn", "mqtt", "-naccept", "1"])
            .arg("-cert")
            .arg(put("cert.pem", "CERTIFICATE", certificate.der()))
            .arg("-key")
            .arg(put("key.pem", "PRIVATE KEY", &key.serialize_der()))
            .args(options)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        let mut child = match spawned {
            Ok(child) => child,
            Err(_) if std::env::var_os("PARLOR_QUICK").is_some() => return None,
            Err(error) => panic!("openssl could not be started: {error}; install it, or set PARLOR_QUICK=1"),
        };
        let mut said = BufReader::new(child.stdout.take().unwrap());
        let accept =
            (&mut said).lines().map_while(Result::ok).find_map(|line| line.strip_prefix("ACCEPT ").map(str::to_owned));
        let port = accept.and_then(|at| at.rsplit(':').next()?.trim().parse().ok()).expect("it says where it listens");
        Some(Self { child, said, port, pin: Pin::of(&key.subject_public_key_info()), folder })
    }

    /// Where its commands go.
    fn commands(&mut self) -> ChildStdin {
        self.child.stdin.take().unwrap()
    }

    /// Reads what it says until a line that ends so. Returns everything.
    fn wait_for(&mut self, end: &str) -> String {
        let mut all = String::new();
        while !all.trim_end().ends_with(end) {
            assert_ne!(self.said.read_line(&mut all).unwrap(), 0, "it left before it said {end}: {all}");
        }
        all
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

fn connect(server: &Server) -> TcpStream {
    let socket = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
    // A peer that says nothing more is a failure and no hang.
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    socket
}

/// Says a line and hears it reversed.
fn talk(server: &Server, config: &Config<'_>, line: &[u8]) -> Result<Vec<u8>, TlsError> {
    talk_in::<1_046, 700>(server, config, line)
}

/// The same in buffers of these sizes.
fn talk_in<const RX: usize, const TX: usize>(
    server: &Server,
    config: &Config<'_>,
    line: &[u8],
) -> Result<Vec<u8>, TlsError> {
    let socket = connect(server);
    let mut buffers: TlsBuffers<RX, TX> = TlsBuffers::new();
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

/// RFC 6066 s4: what was asked for binds both sides, whatever the write buffer could hold.
#[test]
fn the_boards_records_are_as_short_as_it_asked_for() {
    let Some(server) = Server::start("short-both", &[]) else { return };
    let line: Vec<u8> = (0..5_000_u32).map(|at| b'a' + u8::try_from(at % 26).unwrap()).collect();
    assert_eq!(talk_in::<1_046, 2_500>(&server, &server.config(), &line).as_deref(), Ok(&line[..]));
}

/// A certificate and its key, for these names.
fn board(names: usize) -> (Vec<u8>, [u8; 32]) {
    let key = KeyPair::generate().unwrap();
    let names: Vec<String> = (0..names).map(|at| format!("the-lamp-with-number-{at}.example")).collect();
    let certificate = CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
    let pkcs8 = key.serialize_der();
    // PKCS#8 of a P-256 key holds the number behind `04 20`.
    let at = pkcs8.windows(2).position(|pair| pair == [0x04, 0x20]).unwrap() + 2;
    (certificate.der().to_vec(), pkcs8[at..at + 32].try_into().unwrap())
}

#[test]
fn a_certificate_of_the_board_is_shown() {
    // Any is taken, but one has to come.
    let Some(server) = Server::start("mutual", &["-Verify", "1"]) else { return };
    let (certificate, secret) = board(1);
    let identity = Some(Identity { certificate: &certificate, key: &secret });
    assert_eq!(talk(&server, &Config { identity, ..server.config() }, b"it is me").unwrap(), b"it is me");
}

/// RFC 8446 s5.1: a message that is longer than a record may be comes in several.
#[test]
fn a_long_certificate_of_the_board_goes_out_in_pieces() {
    let Some(server) = Server::start("mutual-long", &["-Verify", "1"]) else { return };
    let (certificate, secret) = board(28);
    assert!(certificate.len() > 1_024, "it fits into one record");
    let identity = Some(Identity { certificate: &certificate, key: &secret });
    let config = Config { identity, ..server.config() };
    // Records of 512 bytes are asked for with the one buffer, of 1,024 with the other.
    assert_eq!(talk_in::<1_040, 1_500>(&server, &config, b"it is me").as_deref(), Ok(&b"it is me"[..]));
    let Some(server) = Server::start("mutual-longer", &["-Verify", "1"]) else { return };
    let config = Config { identity, ..server.config() };
    assert_eq!(talk_in::<2_000, 1_500>(&server, &config, b"it is me").as_deref(), Ok(&b"it is me"[..]));
}

/// RFC 8446 s4.4.2.3, s4.4.3: a board that cannot sign as the server wants shows no certificate.
#[test]
fn a_server_that_wants_other_signatures_gets_no_certificate() {
    let (certificate, secret) = board(1);
    let identity = Some(Identity { certificate: &certificate, key: &secret });
    let sigalgs = ["-client_sigalgs", "rsa_pss_rsae_sha256"];
    let Some(server) = Server::start("sigalgs", &[&["-verify", "1"], &sigalgs[..]].concat()) else { return };
    assert_eq!(talk(&server, &Config { identity, ..server.config() }, b"hello").as_deref(), Ok(&b"hello"[..]));
    let Some(server) = Server::start("sigalgs-must", &[&["-Verify", "1"], &sigalgs[..]].concat()) else { return };
    let refused = talk(&server, &Config { identity, ..server.config() }, b"hello");
    assert_eq!(refused, Err(TlsError::RefusedClientCertificate(116)));
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

/// A server that would rather have another curve takes the one that is offered; nothing has to be asked again.
#[test]
fn the_curve_is_agreed_on_whatever_the_server_likes_best() {
    for (name, groups) in [("p384", "P-384:P-256"), ("x25519", "X25519:P-521:P-256")] {
        let Some(server) = Server::start(name, &["-groups", groups]) else { return };
        assert_eq!(talk(&server, &server.config(), b"hello").as_deref(), Ok(&b"hello"[..]), "{groups}");
    }
}

/// RFC 8446 s4.1.4: with a cookie alone the hello has to come again, which this library does not do; it says so.
#[test]
fn a_server_that_wants_the_hello_again_is_told_apart() {
    let key = KeyPair::generate().unwrap();
    let Some(server) = Server::with_key("cookie", &key, &["-tls1_3", "-stateless"]) else { return };
    assert_eq!(talk(&server, &server.config(), b"hello"), Err(TlsError::Unsupported));
}

#[test]
fn a_server_of_other_ciphers_keys_and_versions_is_told_apart() {
    let key = KeyPair::generate().unwrap();
    let other = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
    let cases: [(&str, &KeyPair, &[&str], u8); 3] = [
        ("suites", &key, &["-tls1_3", "-rev", "-ciphersuites", "TLS_CHACHA20_POLY1305_SHA256"], 40),
        ("p384-key", &other, &["-tls1_3", "-rev"], 40),
        ("old", &key, &["-tls1_2", "-rev"], 70),
    ];
    for (name, key, options, alert) in cases {
        let Some(server) = Server::with_key(name, key, options) else { return };
        assert_eq!(talk(&server, &server.config(), b"hello"), Err(TlsError::Alert(alert)), "{name}");
    }
}

#[test]
fn short_and_padded_records_and_tickets() {
    let line: Vec<u8> = (0..9_000_u32).map(|at| b'a' + u8::try_from(at % 26).unwrap()).collect();
    let cases: [(&str, &[&str]); 3] = [
        ("frag", &["-max_send_frag", "512"]),
        ("padding", &["-record_padding", "300"]),
        ("tickets", &["-num_tickets", "20"]),
    ];
    for (name, options) in cases {
        let Some(server) = Server::start(name, options) else { return };
        assert_eq!(talk_in::<1_500, 700>(&server, &server.config(), &line).as_deref(), Ok(&line[..]), "{name}");
    }
}

/// RFC 8446 s4.6.3: whether the server asks for the board's new keys or not.
#[test]
fn keys_change_when_the_server_says_so() {
    let key = KeyPair::generate().unwrap();
    let Some(mut server) = Server::with_key("keys", &key, &["-tls1_3", "-msg", "-num_tickets", "0"]) else { return };
    let mut commands = server.commands();
    let socket = connect(&server);
    let mut buffers: TlsBuffers<1_046, 700> = TlsBuffers::new();
    let (reader, writer) = (Socket(socket.try_clone().unwrap()), Socket(socket.try_clone().unwrap()));
    block_on(async {
        let mut link = TlsLink::open(reader, writer, &server.config(), &mut buffers, entropy).await.unwrap();
        for (turn, command) in ["K", "k", "K", "K"].into_iter().enumerate() {
            commands.write_all(format!("{command}\n").as_bytes()).unwrap();
            // Its new keys come when it has obeyed, so that the line after is no part of the command.
            socket.peek(&mut [0]).unwrap();
            let line = format!("line {turn}\n");
            commands.write_all(line.as_bytes()).unwrap();
            let mut heard = [0; 64];
            let length = link.read(&mut heard).await.unwrap();
            assert_eq!(&heard[..length], line.as_bytes(), "after {command}");
            link.write(format!("answer {turn}\n").as_bytes()).await.unwrap();
            link.flush().await.unwrap();
            let said = server.wait_for(&format!("answer {turn}"));
            let answered = said.lines().filter(|line| line.starts_with("<<<") && line.contains("KeyUpdate")).count();
            assert_eq!(answered, usize::from(command == "K"), "after {command}: {said}");
        }
        link.close().await.unwrap();
    });
}
