//! Records (RFC 8446 s5): sealed and opened in place.

use crate::cursor::Writer;
use crate::error::{Offence, TlsError};
use crate::keys::{self, Hash};
use aes_gcm::aead::{AeadInPlace, KeyInit};
use aes_gcm::{Aes128Gcm, Nonce, Tag};

/// Bytes before a record's content.
pub(crate) const HEADER: usize = 5;
/// Bytes of the tag behind it.
pub(crate) const TAG: usize = 16;
/// What a sealed record adds to its text: header, kind, tag.
pub(crate) const OVERHEAD: usize = HEADER + 1 + TAG;
/// Longest text in a record (RFC 8446 s5.1).
pub(crate) const TEXT_MAX: usize = 1 << 14;
/// Records sealed with one key (RFC 8446 s5.5 allows 2^24.5).
const SEALED_MAX: u64 = 1 << 24;

pub(crate) const CHANGE_CIPHER_SPEC: u8 = 20;
pub(crate) const ALERT: u8 = 21;
pub(crate) const HANDSHAKE: u8 = 22;
pub(crate) const APPLICATION: u8 = 23;

/// The keys of one direction.
pub(crate) struct Keys {
    secret: Hash,
    key: [u8; 16],
    iv: [u8; 12],
    sequence: u64,
}

impl Keys {
    pub(crate) fn new(secret: Hash) -> Self {
        let (mut key, mut iv) = ([0; 16], [0; 12]);
        keys::expand(&secret, b"key", b"", &mut key);
        keys::expand(&secret, b"iv", b"", &mut iv);
        Self { secret, key, iv, sequence: 0 }
    }

    pub(crate) fn next(&self) -> Self {
        Self::new(keys::next(&self.secret))
    }

    pub(crate) fn secret(&self) -> &Hash {
        &self.secret
    }

    /// So many records were sealed that the next ones need another key.
    pub(crate) fn worn_out(&self) -> bool {
        self.sequence >= SEALED_MAX
    }

    fn cipher(&mut self) -> (Aes128Gcm, Nonce<aes_gcm::aes::cipher::consts::U12>) {
        let mut nonce = self.iv;
        for (byte, count) in nonce.iter_mut().rev().zip(self.sequence.to_le_bytes()) {
            *byte ^= count;
        }
        // Billions of years at the speed of a board.
        self.sequence = self.sequence.wrapping_add(1);
        (Aes128Gcm::new(&self.key.into()), nonce.into())
    }

    /// Opens the record in `header` and `content`: its kind, and how much of `content` is its text.
    pub(crate) fn open(&mut self, header: [u8; HEADER], content: &mut [u8]) -> Result<(u8, usize), TlsError> {
        let length = content.len().checked_sub(TAG).ok_or(TlsError::BadServer(Offence::EmptyRecord))?;
        let (text, tag) = content.split_at_mut(length);
        let (cipher, nonce) = self.cipher();
        cipher.decrypt_in_place_detached(&nonce, &header, text, Tag::from_slice(tag)).map_err(|_| TlsError::Forged)?;
        // The kind is the last byte that is not padding.
        let kind = text.iter().rposition(|byte| *byte != 0).ok_or(TlsError::BadServer(Offence::EmptyRecord))?;
        Ok((text.get(kind).copied().unwrap_or_default(), kind))
    }

    /// Makes a record of what lies at `HEADER..HEADER + length` of the buffer. Returns the record's length.
    pub(crate) fn seal(&mut self, kind: u8, buffer: &mut [u8], length: usize) -> Result<usize, TlsError> {
        let all = length + OVERHEAD;
        let (header, rest) = buffer
            .get_mut(..all)
            .and_then(|record| record.split_at_mut_checked(HEADER))
            .ok_or(TlsError::BuffersTooSmall)?;
        write_header(header, APPLICATION, rest.len());
        let (text, tag) = rest.split_at_mut(length + 1);
        if let Some(last) = text.last_mut() {
            *last = kind;
        }
        let (cipher, nonce) = self.cipher();
        let made = cipher.encrypt_in_place_detached(&nonce, header, text).map_err(|_| TlsError::BuffersTooSmall)?;
        tag.copy_from_slice(&made);
        Ok(all)
    }
}

/// Writes the header of a record in the open.
pub(crate) fn write_header(header: &mut [u8], kind: u8, length: usize) {
    let mut writer = Writer::new(header);
    writer.put(&[kind, 3, 3]);
    // No buffer is filled beyond what a record may hold.
    writer.put_u16(u16::try_from(length).unwrap_or(u16::MAX));
}
