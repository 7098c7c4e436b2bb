//! Why a link could not be made, or ended.

use core::fmt;
use embedded_io_async::ErrorKind;

/// Why a link could not be made, or ended. Every one of them ends it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsError {
    /// The transport failed.
    Socket(ErrorKind),
    /// The peer closed the transport without saying goodbye.
    Cut,
    /// The server has another key than the pinned ones: another server, or one whose key was replaced.
    WrongPin,
    /// The authority did not sign the server's certificate.
    UnknownAuthority,
    /// The authority signed the certificate for another name, or not for a server.
    WrongName,
    /// The server showed no certificate.
    NoCertificate,
    /// The server showed a certificate and did not prove that the key is its own.
    NoProof,
    /// The server's proof is false.
    WrongProof,
    /// The server's key is not one of P-256, or its certificate is damaged or says something critical that is not understood.
    BadCertificate,
    /// The server cannot do what this library does: TLS 1.3, AES-128-GCM, P-256.
    Unsupported,
    /// The server speaks another application protocol.
    WrongProtocol,
    /// A record is longer than the read buffer, or the server's first flight is. Lower `tls.fragment_bytes` at the broker or
    /// enlarge the buffer.
    TooLarge,
    /// The buffers are smaller than 300 bytes, or the write buffer does not hold the client certificate.
    BuffersTooSmall,
    /// A record was not made with the keys of this link.
    Forged,
    /// The server broke the protocol.
    BadServer(Offence),
    /// The server does not accept the board's certificate, or wants one. The number is the alert's (RFC 8446 s6.2): 45 expired,
    /// 44 revoked, 48 unknown authority, 116 wanted.
    RefusedClientCertificate(u8),
    /// The server ended the link with this alert (RFC 8446 s6.2).
    Alert(u8),
    /// The board's key is no P-256 key, or its entropy gave the same twice.
    BadIdentity,
    /// The link has ended before.
    Closed,
}

/// How a server broke the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offence {
    /// A message is shorter or longer than it says.
    Malformed,
    /// A message holds an answer to something that was not asked.
    Unasked,
    /// A message holds a value that was not offered or that the standard forbids, or the same thing twice.
    Illegal,
    /// A message came out of its turn.
    UnexpectedMessage,
    /// A record of a kind that does not belong here, or not in the open.
    UnexpectedRecord,
    /// A record with nothing in it, or nothing but padding.
    EmptyRecord,
    /// Too many records that carry nothing.
    Flood,
    /// A message runs over a change of keys.
    AcrossKeys,
    /// The end of the handshake does not match what was said in it.
    WrongFinished,
}

impl TlsError {
    /// The alert to tell the server (RFC 8446 s6.2). None when it would not hear it or is to blame for nothing.
    pub(crate) fn alert(self) -> Option<u8> {
        Some(match self {
            Self::Socket(_) | Self::Cut | Self::Closed | Self::Alert(_) | Self::RefusedClientCertificate(_) => {
                return None;
            }
            Self::WrongPin | Self::BadCertificate | Self::WrongName => 42,
            Self::NoCertificate => 50,
            Self::UnknownAuthority => 48,
            Self::NoProof => 10,
            Self::WrongProof => 51,
            Self::Unsupported => 40,
            Self::WrongProtocol => 120,
            Self::TooLarge => 22,
            Self::Forged => 20,
            Self::BuffersTooSmall | Self::BadIdentity => 80,
            Self::BadServer(offence) => match offence {
                Offence::Malformed => 50,
                Offence::Unasked => 110,
                Offence::Illegal => 47,
                Offence::WrongFinished => 51,
                _ => 10,
            },
        })
    }
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Socket(_) => "the connection failed",
            Self::Cut => "the connection was cut",
            Self::WrongPin => "the server has another key than the pinned ones; check the address, or pin its new key",
            Self::UnknownAuthority => {
                "the authority did not sign the server's certificate; check the address, or the authority's key"
            }
            Self::WrongName => "the server's certificate is for another name, or not for a server",
            Self::NoCertificate => "the server showed no certificate",
            Self::NoProof => "the server did not prove that the key is its own",
            Self::WrongProof => "the server's proof of its key is false",
            Self::BadCertificate => "the server's certificate has no P-256 key or is damaged",
            Self::Unsupported => "the server has no TLS 1.3 with AES-128-GCM and P-256",
            Self::WrongProtocol => "the server speaks another protocol at this port",
            Self::TooLarge => {
                "a record does not fit; lower tls.fragment_bytes at the broker or enlarge the read buffer"
            }
            Self::BuffersTooSmall => "the buffers are too small",
            Self::Forged => "a record was not made with the keys of this link",
            Self::BadServer(_) => "the server broke the protocol",
            Self::RefusedClientCertificate(_) => "the server does not accept the board's certificate, or wants one",
            Self::Alert(_) => "the server ended the link",
            Self::BadIdentity => "the board's key is no P-256 key, or its entropy repeats itself",
            Self::Closed => "the link has ended",
        })
    }
}

impl core::error::Error for TlsError {}

impl embedded_io_async::Error for TlsError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Socket(kind) => *kind,
            Self::Cut => ErrorKind::ConnectionReset,
            Self::Closed => ErrorKind::NotConnected,
            Self::TooLarge | Self::BuffersTooSmall => ErrorKind::OutOfMemory,
            Self::RefusedClientCertificate(_) => ErrorKind::PermissionDenied,
            _ => ErrorKind::InvalidData,
        }
    }
}
