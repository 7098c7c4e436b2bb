//! Which server is the right one, and who the board is.

use crate::der::{self, Certificate};
use crate::error::TlsError;
use p256::ecdsa::signature::Verifier;
use p256::ecdsa::{Signature, VerifyingKey};
use sha2::{Digest, Sha256};

/// SHA-256 of a key (`SubjectPublicKeyInfo`, DER). Of a server's certificate:
/// `openssl x509 -in cert.pem -pubkey -noout | openssl pkey -pubin -outform der | openssl dgst -sha256`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pin(pub [u8; 32]);

impl Pin {
    /// Reads 64 hexadecimal digits.
    pub fn from_hex(text: &str) -> Option<Self> {
        if text.len() != 64 || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return None;
        }
        let mut pin = [0; 32];
        for (index, byte) in pin.iter_mut().enumerate() {
            *byte = u8::from_str_radix(text.get(2 * index..2 * index + 2)?, 16).ok()?;
        }
        Some(Self(pin))
    }

    /// The pin of a key (`SubjectPublicKeyInfo`, DER).
    pub fn of(key: &[u8]) -> Self {
        Self(Sha256::digest(key).into())
    }
}

/// Which server is the right one.
#[derive(Debug, Clone, Copy)]
pub enum Trust<'a> {
    /// The one with this key, or the one with the next.
    Pins {
        /// The key the server has.
        current: Pin,
        /// The key it will have one day. Ship it early.
        next: Option<Pin>,
    },
    /// One whose certificate this authority signed. Give servers an authority of their own, so that no device's certificate is one
    /// of theirs.
    Authority {
        /// The authority's P-256 key (`SubjectPublicKeyInfo`, DER, 91 bytes).
        key: &'a [u8],
        /// The DNS name or IPv4 address that the certificate must be for.
        name: &'a str,
    },
}

/// Who the board is, to a server that wants to see a certificate.
#[derive(Clone, Copy)]
pub struct Identity<'a> {
    /// Its certificate, DER.
    pub certificate: &'a [u8],
    /// Its P-256 key.
    pub key: &'a [u8; 32],
}

impl core::fmt::Debug for Identity<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Identity")
    }
}

impl Trust<'_> {
    /// The key of the server that showed this certificate, if it is the right one.
    pub(crate) fn check(&self, certificate: &[u8]) -> Result<VerifyingKey, TlsError> {
        let certificate = Certificate::read(certificate)?;
        match self {
            Self::Pins { current, next } => {
                let pin = Pin::of(certificate.key);
                let known = pin == *current || Some(pin) == *next;
                #[cfg(test)]
                let known = known || crate::tests::is_left_out(crate::tests::Check::Pin);
                if !known {
                    return Err(TlsError::WrongPin);
                }
            }
            Self::Authority { key, name } => {
                let authority = point(key).map_err(|_| TlsError::UnknownAuthority)?;
                let signature = certificate.signature.ok_or(TlsError::UnknownAuthority)?;
                verify(&authority, certificate.signed, signature).map_err(|()| TlsError::UnknownAuthority)?;
                if !certificate.may_serve(name)? {
                    return Err(TlsError::WrongName);
                }
            }
        }
        point(certificate.key)
    }
}

fn point(key: &[u8]) -> Result<VerifyingKey, TlsError> {
    let point = der::p256_point(key).ok_or(TlsError::BadCertificate)?;
    VerifyingKey::from_sec1_bytes(point).map_err(|_| TlsError::BadCertificate)
}

/// Whether a signature (DER) is one of `message` by `key`.
pub(crate) fn verify(key: &VerifyingKey, message: &[u8], signature: &[u8]) -> Result<(), ()> {
    #[cfg(test)]
    if crate::tests::is_left_out(crate::tests::Check::Signature) {
        return Ok(());
    }
    let signature = Signature::from_der(signature).map_err(|_| ())?;
    key.verify(message, &signature).map_err(|_| ())
}
