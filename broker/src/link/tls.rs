//! TLS as bytes in, bytes out.

use super::layer::Received;
use rustls::server::{ServerConfig, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, InsufficientSizeError, UnbufferedStatus};
use std::fmt;
use std::sync::Arc;

/// Most bytes of an unfinished handshake message: a hello or a client's certificate chain fits with room to spare.
const HANDSHAKE_BYTES_MAX: usize = 32 * 1024;
/// Most bytes of an unfinished record once the handshake is done: 16 KiB of text, its header, and what ciphers add.
const RECORD_BYTES_MAX: usize = 16 * 1024 + 5 + 2048;
/// Most text in one record.
const FRAGMENT_BYTES: usize = 16 * 1024;
/// What a record adds to its text, bytes, with any cipher suite in use: header, nonce, content type, tag.
const RECORD_OVERHEAD: usize = 5 + 8 + 1 + 16;

/// One server side of TLS 1.2 or 1.3.
///
/// Between calls it holds its keys and, if a record is unfinished, that record's bytes; no buffers.
pub struct TlsLayer {
    connection: UnbufferedServerConnection,
    /// The beginning of a record whose rest has not come.
    held: Vec<u8>,
    end: End,
    said_goodbye: bool,
}

/// Whether the peer's side has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// It has not.
    Open,
    /// By `close_notify`: nothing more is read, but we may still send.
    PeerClosed,
    /// By an offence: the connection is not touched again, because the bytes it refers to are gone.
    Failed,
}

/// TLS with the peer failed; the alert for it is in `wire`.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum TlsError {
    /// The peer broke the protocol, was not to be trusted, or ended the handshake with an alert.
    #[error("TLS failed: {0}; look at the client's certificate, its trusted CA and its TLS versions")]
    Protocol(rustls::Error),
    /// A handshake message or a record is longer than any honest one.
    #[error("TLS message of more than {limit} bytes refused; the peer is not a TLS client, or its chain is too long")]
    TooLong {
        /// The bound, bytes.
        limit: usize,
    },
    /// There was something to send before the handshake was done, or after `close_notify`.
    #[error("cannot send on this TLS connection: its handshake is not done, or it is closed; close the socket")]
    NotReady,
    /// The keys of the connection are used up.
    #[error("the keys of this TLS connection are used up; the client must connect again")]
    Exhausted,
}

impl TlsError {
    /// The label of the counter for this refusal.
    pub fn label(&self) -> &'static str {
        use rustls::Error;
        match self {
            Self::Protocol(Error::NoCertificatesPresented) => "tls_no_certificate",
            Self::Protocol(Error::InvalidCertificate(_)) => "tls_bad_certificate",
            Self::Protocol(Error::AlertReceived(_)) => "tls_alert",
            Self::Protocol(Error::PeerIncompatible(_) | Error::NoApplicationProtocol) => "tls_incompatible",
            Self::Protocol(_) => "tls_protocol",
            Self::TooLong { .. } => "tls_too_long",
            Self::NotReady => "tls_not_ready",
            Self::Exhausted => "tls_exhausted",
        }
    }
}

impl fmt::Debug for TlsLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsLayer")
            .field("ready", &self.is_ready())
            .field("held_bytes", &self.held.len())
            .field("end", &self.end)
            .finish_non_exhaustive()
    }
}

/// What to do once the connection can carry text.
#[derive(Clone, Copy)]
enum Then<'a> {
    Nothing,
    Encrypt(&'a [u8]),
    CloseNotify,
}

impl TlsLayer {
    /// A connection that waits for the client's hello.
    pub fn new(config: Arc<ServerConfig>) -> Result<Self, TlsError> {
        let connection = UnbufferedServerConnection::new(config).map_err(TlsError::Protocol)?;
        Ok(Self { connection, held: Vec::new(), end: End::Open, said_goodbye: false })
    }

    /// Feeds bytes of the socket; see [`super::Layer::receive`].
    pub fn receive(&mut self, input: &[u8], plain: &mut Vec<u8>, wire: &mut Vec<u8>) -> Result<Received, TlsError> {
        if self.end != End::Open {
            return Ok(Received::PeerClosed);
        }
        self.held.extend_from_slice(input);
        self.run(plain, wire, Then::Nothing)?;
        if self.end == End::PeerClosed {
            self.held = Vec::new();
            return Ok(Received::PeerClosed);
        }
        let limit = if self.is_ready() { RECORD_BYTES_MAX } else { HANDSHAKE_BYTES_MAX };
        if self.held.len() > limit {
            self.fail();
            return Err(TlsError::TooLong { limit });
        }
        Ok(Received::Open)
    }

    /// Encrypts `plain` and appends it to `wire`.
    pub fn send(&mut self, plain: &[u8], wire: &mut Vec<u8>) -> Result<(), TlsError> {
        if plain.is_empty() {
            return Ok(());
        }
        if self.said_goodbye {
            return Err(TlsError::NotReady);
        }
        // All whole records were read by `receive`, so this finds no text.
        let done = self.run(&mut Vec::new(), wire, Then::Encrypt(plain))?;
        if done { Ok(()) } else { Err(TlsError::NotReady) }
    }

    /// Appends `close_notify` to `wire`, once, if the handshake is done.
    pub fn close(&mut self, wire: &mut Vec<u8>) {
        if !self.said_goodbye {
            self.said_goodbye = true;
            // Nothing can be done about a goodbye that cannot be said.
            let _ = self.run(&mut Vec::new(), wire, Then::CloseNotify);
        }
    }

    /// Whether the handshake is done.
    pub fn is_ready(&self) -> bool {
        !self.connection.is_handshaking()
    }

    /// The client's own certificate, DER, if it has shown one that the configured CA vouches for.
    pub fn peer_certificate(&self) -> Option<&[u8]> {
        self.connection.peer_certificates().and_then(|chain| chain.first()).map(AsRef::as_ref)
    }

    /// Turns the crank until the connection waits for the peer. Returns whether `then` was done.
    fn run(&mut self, plain: &mut Vec<u8>, wire: &mut Vec<u8>, then: Then<'_>) -> Result<bool, TlsError> {
        if self.end == End::Failed {
            return Ok(false);
        }
        let mut used = 0;
        let outcome = loop {
            let UnbufferedStatus { mut discard, state } = self.connection.process_tls_records(&mut self.held[used..]);
            let outcome = match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => loop {
                    match traffic.next_record() {
                        Some(Ok(record)) => {
                            discard += record.discard;
                            plain.extend_from_slice(record.payload);
                        }
                        Some(Err(error)) => break Some(Err(TlsError::Protocol(error))),
                        None => break None,
                    }
                },
                Ok(ConnectionState::EncodeTlsData(mut data)) => {
                    encode(wire, |out| data.encode(out)).map_or_else(|error| Some(Err(error)), |()| None)
                }
                Ok(ConnectionState::TransmitTlsData(data)) => {
                    data.done();
                    None
                }
                Ok(ConnectionState::PeerClosed) => {
                    self.end = End::PeerClosed;
                    None
                }
                Ok(ConnectionState::WriteTraffic(mut traffic)) => Some(match then {
                    Then::Nothing => Ok(false),
                    Then::Encrypt(text) => encrypt(wire, text.len(), |out| traffic.encrypt(text, out)).map(|()| true),
                    Then::CloseNotify => encrypt(wire, 0, |out| traffic.queue_close_notify(out)).map(|()| true),
                }),
                // The handshake waits for the peer, both sides have closed, or the peer sent 0-RTT text, which is
                // never allowed here because it can be replayed.
                Ok(_) => Some(Ok(false)),
                Err(error) => Some(Err(TlsError::Protocol(error))),
            };
            used += discard;
            if let Some(outcome) = outcome {
                break outcome;
            }
        };
        if outcome.is_err() {
            self.take_alert(wire);
            self.fail();
        } else if used == self.held.len() {
            self.held = Vec::new();
        } else if used > 0 {
            self.held = self.held[used..].to_vec();
        }
        outcome
    }

    fn fail(&mut self) {
        self.end = End::Failed;
        self.held = Vec::new();
    }

    /// Appends the alert that explains a failure. While there is one to write, the library looks at no input; after a
    /// failure it must not look at any.
    fn take_alert(&mut self, wire: &mut Vec<u8>) {
        while self.connection.wants_write() {
            let status = self.connection.process_tls_records(&mut []);
            let Ok(ConnectionState::EncodeTlsData(mut data)) = status.state else { return };
            if encode(wire, |out| data.encode(out)).is_err() {
                return;
            }
        }
    }
}

/// Lets `write` append a handshake message to `wire`: once to learn its size, once to have it.
fn encode(wire: &mut Vec<u8>, write: impl FnMut(&mut [u8]) -> Result<usize, EncodeError>) -> Result<(), TlsError> {
    append(wire, 0, write, |error| match error {
        EncodeError::InsufficientSize(size) => Some(size),
        EncodeError::AlreadyEncoded => None,
    })
}

/// Lets `write` append `text_bytes` of text, encrypted, to `wire`.
fn encrypt(
    wire: &mut Vec<u8>,
    text_bytes: usize,
    write: impl FnMut(&mut [u8]) -> Result<usize, EncryptError>,
) -> Result<(), TlsError> {
    let guess = text_bytes + (text_bytes / FRAGMENT_BYTES + 1) * RECORD_OVERHEAD;
    append(wire, guess, write, |error| match error {
        EncryptError::InsufficientSize(size) => Some(size),
        EncryptError::EncryptExhausted => None,
    })
}

fn append<E>(
    wire: &mut Vec<u8>,
    guess: usize,
    mut write: impl FnMut(&mut [u8]) -> Result<usize, E>,
    wants: impl Fn(E) -> Option<InsufficientSizeError>,
) -> Result<(), TlsError> {
    let start = wire.len();
    let mut room = guess;
    loop {
        wire.resize(start + room, 0);
        match write(&mut wire[start..]) {
            Ok(written) => {
                wire.truncate(start + written);
                return Ok(());
            }
            Err(error) => match wants(error) {
                Some(InsufficientSizeError { required_size }) if required_size > room => room = required_size,
                _ => {
                    wire.truncate(start);
                    return Err(TlsError::Exhausted);
                }
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{Ca, Dir, Noise, Socket, client, client_config, server_files};
    use super::super::layer::{Layer, LayerError};
    use super::super::tls_config::{ClientAuth, TlsFiles};
    use super::*;
    use rustls::version::{TLS12, TLS13};
    use rustls::{ClientConfig, ClientConnection, HandshakeKind, Stream};
    use std::io::{ErrorKind, Read, Write};

    fn socket(files: &TlsFiles, chunk: usize) -> Socket {
        Socket::new(Layer::Tls(Box::new(TlsLayer::new(files.load().unwrap()).unwrap())), chunk)
    }

    fn echo(socket: &mut Socket, client: &mut ClientConnection, text: &[u8]) {
        let mut stream = Stream::new(client, socket);
        stream.write_all(text).unwrap();
        stream.flush().unwrap();
        assert!(socket.layer.is_ready());
        assert_eq!(socket.plain, text);
        let heard = std::mem::take(&mut socket.plain);
        socket.send(&heard).unwrap();
        let mut back = vec![0; text.len()];
        Stream::new(client, socket).read_exact(&mut back).unwrap();
        assert_eq!(back, text);
    }

    #[test]
    fn text_goes_both_ways_in_both_versions_however_it_is_cut() {
        let (dir, ca) = (Dir::new(), Ca::new("ca"));
        let files = server_files(&dir, &ca);
        for version in [&TLS12, &TLS13] {
            for chunk in [1, 7, 4096, usize::MAX] {
                let mut socket = socket(&files, chunk);
                let mut client = client(client_config(&ca, None, &[version]));
                echo(&mut socket, &mut client, b"hello");
                echo(&mut socket, &mut client, &Noise(7).bytes(100_000));
                assert_eq!(socket.layer.tls().unwrap().peer_certificate(), None);
                assert_eq!(client.protocol_version(), Some(version.version));
            }
        }
    }

    #[test]
    fn a_waiting_connection_holds_no_bytes() {
        let (dir, ca) = (Dir::new(), Ca::new("ca"));
        let mut socket = socket(&server_files(&dir, &ca), usize::MAX);
        let mut client = client(client_config(&ca, None, &[&TLS13]));
        echo(&mut socket, &mut client, &Noise(9).bytes(50_000));
        let Layer::Tls(tls) = &socket.layer else { panic!("not TLS") };
        assert_eq!(tls.held.capacity(), 0);
    }

    #[test]
    fn goodbyes_are_heard_and_said_once() {
        let (dir, ca) = (Dir::new(), Ca::new("ca"));
        let files = server_files(&dir, &ca);
        for version in [&TLS12, &TLS13] {
            let mut socket = socket(&files, usize::MAX);
            let mut client = client(client_config(&ca, None, &[version]));
            echo(&mut socket, &mut client, b"hello");
            socket.close();
            let said = socket.unread().len();
            assert!(said > 0);
            socket.close();
            assert_eq!(socket.unread().len(), said);
            assert_eq!(Stream::new(&mut client, &mut socket).read(&mut [0; 8]).unwrap(), 0);
            assert_eq!(socket.send(b"too late"), Err(LayerError::Tls(TlsError::NotReady)));
            client.send_close_notify();
            while client.wants_write() {
                client.write_tls(&mut socket).unwrap();
            }
            assert_eq!(socket.outcome, Ok(Received::PeerClosed));
        }
    }

    #[test]
    fn a_handshake_that_is_not_done_can_neither_send_nor_say_goodbye() {
        let (dir, ca) = (Dir::new(), Ca::new("ca"));
        let mut socket = socket(&server_files(&dir, &ca), usize::MAX);
        assert_eq!(socket.send(b"early"), Err(LayerError::Tls(TlsError::NotReady)));
        socket.close();
        assert!(socket.unread().is_empty());
    }

    #[test]
    fn what_is_not_tls_is_answered_with_an_alert() {
        let (dir, ca) = (Dir::new(), Ca::new("ca"));
        let files = server_files(&dir, &ca);
        for text in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"\x10\x0c\x00\x04MQTT\x05\x02\x00\x00\x00\x00\x00"] {
            let mut socket = socket(&files, usize::MAX);
            socket.write_all(text).unwrap();
            let error = socket.outcome.clone().unwrap_err();
            assert_eq!(error.label(), "tls_protocol", "{error}");
            assert_eq!(socket.unread().first(), Some(&21), "an alert record");
        }
    }

    #[test]
    fn a_hello_that_never_ends_is_cut_off() {
        let (dir, ca) = (Dir::new(), Ca::new("ca"));
        let mut socket = socket(&server_files(&dir, &ca), usize::MAX);
        // A client hello that claims 65,000 bytes, sent in records of 1,000.
        let mut body = vec![1, 0, 0xFD, 0xE8];
        body.resize(1000, 0);
        for _ in 0..60 {
            socket.write_all(&[22, 3, 1, 0x03, 0xE8]).unwrap();
            socket.write_all(&body).unwrap();
            body.fill(0);
        }
        assert_eq!(socket.outcome, Err(LayerError::Tls(TlsError::TooLong { limit: HANDSHAKE_BYTES_MAX })));
    }

    #[test]
    fn a_session_is_resumed_until_the_files_are_loaded_again() {
        let (dir, ca) = (Dir::new(), Ca::new("ca"));
        let files = server_files(&dir, &ca);
        for version in [&TLS12, &TLS13] {
            let mut loaded = files.load().unwrap();
            let ours: Arc<ClientConfig> = client_config(&ca, None, &[version]);
            let mut kinds = Vec::new();
            for round in 0..3 {
                if round == 2 {
                    loaded = files.load().unwrap();
                }
                let layer = Layer::Tls(Box::new(TlsLayer::new(loaded.clone()).unwrap()));
                let mut socket = Socket::new(layer, usize::MAX);
                let mut client = client(ours.clone());
                echo(&mut socket, &mut client, b"hello");
                kinds.push(client.handshake_kind().unwrap());
            }
            assert_eq!(kinds, [HandshakeKind::Full, HandshakeKind::Resumed, HandshakeKind::Full]);
        }
    }

    #[test]
    fn application_protocols_are_agreed_on_only_when_asked_for() {
        let (dir, ca) = (Dir::new(), Ca::new("ca"));
        let files = server_files(&dir, &ca);
        let check = |offer: &[&str], expect: Result<Option<&str>, &str>| {
            let mut config = ClientConfig::clone(&client_config(&ca, None, &[&TLS13]));
            config.alpn_protocols = offer.iter().map(|name| name.as_bytes().to_vec()).collect();
            let mut socket = socket(&files, usize::MAX);
            let mut client = client(Arc::new(config));
            let done = Stream::new(&mut client, &mut socket).write_all(b"hello");
            let chosen = client.alpn_protocol().map(|name| std::str::from_utf8(name).unwrap());
            match expect {
                Ok(expect) => assert_eq!(chosen, expect),
                Err(label) => {
                    assert!(done.is_err());
                    assert_eq!(socket.outcome.unwrap_err().label(), label);
                }
            }
        };
        check(&[], Ok(None));
        check(&["mqtt"], Ok(Some("mqtt")));
        check(&["h2", "mqtt"], Ok(Some("mqtt")));
        check(&["h2"], Err("tls_incompatible"));
    }

    #[test]
    fn noise_never_panics_and_never_grows() {
        let (dir, ca) = (Dir::new(), Ca::new("ca"));
        let files = server_files(&dir, &ca);
        // A real conversation, recorded, to be damaged in one place each round.
        let mut record = Vec::new();
        let mut client = client(client_config(&ca, None, &[&TLS13]));
        client.write_tls(&mut record).unwrap();
        for seed in 0..400 {
            let mut noise = Noise(seed);
            let mut bytes = if seed % 2 == 0 { record.clone() } else { vec![22, 3, 1] };
            let extra = noise.below(3000);
            bytes.extend(noise.bytes(extra));
            for _ in 0..noise.below(4) {
                let at = noise.below(bytes.len());
                bytes[at] = noise.next().to_le_bytes()[0];
            }
            let mut socket = socket(&files, 1 + noise.below(600));
            socket.write_all(&bytes).unwrap();
            let Layer::Tls(tls) = &socket.layer else { panic!("not TLS") };
            assert!(tls.held.len() <= HANDSHAKE_BYTES_MAX, "seed {seed}");
            assert!(socket.unread().len() < 8192, "seed {seed}");
            assert!(socket.plain.is_empty(), "seed {seed}");
        }
    }

    #[test]
    fn damage_during_the_handshake_never_panics_and_never_gives_text() {
        let (dir, ca) = (Dir::new(), Ca::new("ca"));
        let own = ca.issue("lamp");
        let files = TlsFiles {
            client_auth: ClientAuth::Required,
            client_ca: Some(dir.put("ca.pem", &ca.certificate)),
            ..server_files(&dir, &ca)
        };
        let loaded = files.load().unwrap();
        for seed in 0..300 {
            let mut noise = Noise(seed);
            let version = if seed % 2 == 0 { &TLS12 } else { &TLS13 };
            let mut config = ClientConfig::clone(&client_config(&ca, Some(&own), &[version]));
            config.max_fragment_size = Some(64 + noise.below(2000));
            let mut client = client(Arc::new(config));
            let layer = Layer::Tls(Box::new(TlsLayer::new(loaded.clone()).unwrap()));
            let mut socket = Socket::new(layer, 1 + noise.below(700));
            // Every eighth is left whole, to show that the others could have worked.
            let mut damage = usize::from(seed % 8 != 0);
            client.writer().write_all(b"hello").unwrap();
            for _ in 0..8 {
                let mut flight = Vec::new();
                while client.wants_write() {
                    client.write_tls(&mut flight).unwrap();
                }
                if damage > 0 && !flight.is_empty() && noise.below(2) == 0 {
                    damage -= 1;
                    let at = noise.below(flight.len());
                    flight[at] ^= 1 << noise.below(8);
                }
                socket.write_all(&flight).unwrap();
                let _ = client.read_tls(&mut socket);
                if client.process_new_packets().is_err() {
                    break;
                }
            }
            socket.close();
            let Layer::Tls(tls) = &socket.layer else { panic!("not TLS") };
            assert!(tls.held.len() <= HANDSHAKE_BYTES_MAX, "seed {seed}");
            if seed % 8 == 0 {
                assert_eq!(socket.plain, b"hello", "seed {seed}: {:?}", socket.outcome);
            }
            assert!(socket.plain.is_empty() || socket.plain == b"hello", "seed {seed}");
        }
    }

    #[test]
    fn a_damaged_record_ends_the_connection_and_gives_no_text() {
        let (dir, ca) = (Dir::new(), Ca::new("ca"));
        let files = server_files(&dir, &ca);
        for seed in 0..40 {
            let mut noise = Noise(seed);
            let mut socket = socket(&files, usize::MAX);
            let mut client = client(client_config(&ca, None, &[if seed % 2 == 0 { &TLS12 } else { &TLS13 }]));
            echo(&mut socket, &mut client, b"hello");
            client.writer().write_all(&noise.bytes(500)).unwrap();
            let mut record = Vec::new();
            client.write_tls(&mut record).unwrap();
            let at = 5 + noise.below(record.len() - 5);
            record[at] ^= 1 << noise.below(8);
            socket.write_all(&record).unwrap();
            assert!(socket.outcome.is_err(), "seed {seed}");
            assert!(socket.plain.is_empty(), "seed {seed}");
            let heard = Stream::new(&mut client, &mut socket).read(&mut [0; 8]);
            assert_eq!(heard.unwrap_err().kind(), ErrorKind::InvalidData, "the alert, seed {seed}");
        }
    }
}
