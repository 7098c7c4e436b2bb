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
    peer_closed: bool,
    said_goodbye: bool,
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
            .field("peer_closed", &self.peer_closed)
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
        Ok(Self { connection, held: Vec::new(), peer_closed: false, said_goodbye: false })
    }

    /// Feeds bytes of the socket; see [`super::Layer::receive`].
    pub fn receive(&mut self, input: &[u8], plain: &mut Vec<u8>, wire: &mut Vec<u8>) -> Result<Received, TlsError> {
        self.held.extend_from_slice(input);
        self.run(plain, wire, Then::Nothing)?;
        let limit = if self.is_ready() { RECORD_BYTES_MAX } else { HANDSHAKE_BYTES_MAX };
        if self.held.len() > limit && !self.peer_closed {
            self.held = Vec::new();
            return Err(TlsError::TooLong { limit });
        }
        Ok(if self.peer_closed { Received::PeerClosed } else { Received::Open })
    }

    /// Encrypts `plain` and appends it to `wire`.
    pub fn send(&mut self, plain: &[u8], wire: &mut Vec<u8>) -> Result<(), TlsError> {
        if plain.is_empty() {
            return Ok(());
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
                    self.peer_closed = true;
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
            self.held = Vec::new();
        } else if used == self.held.len() {
            self.held = Vec::new();
        } else if used > 0 {
            self.held = self.held[used..].to_vec();
        }
        outcome
    }

    /// Appends the alert that explains a failure.
    fn take_alert(&mut self, wire: &mut Vec<u8>) {
        while let Ok(ConnectionState::EncodeTlsData(mut data)) = self.connection.process_tls_records(&mut []).state {
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
