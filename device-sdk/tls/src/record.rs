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

    /// As if all but one of the records that one key may seal had been sealed.
    #[cfg(test)]
    pub(crate) fn wear_out(&mut self) {
        self.sequence = SEALED_MAX - 1;
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

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 8446 s5.3: the number of the record, its highest byte first, over the end of the fixed part.
    #[test]
    fn no_two_records_have_the_same_nonce() {
        for sequence in [0, 1, 255, 256, 0x0001_0000, 0x0102_0304_0506_0708, u64::MAX] {
            let mut keys = Keys::new([7; 32]);
            keys.sequence = sequence;
            let mut record = [0; 3 + OVERHEAD];
            record[HEADER..HEADER + 3].copy_from_slice(b"abc");
            assert_eq!(keys.seal(APPLICATION, &mut record, 3), Ok(record.len()));
            let mut nonce = keys.iv;
            for (place, byte) in sequence.to_be_bytes().into_iter().enumerate() {
                nonce[4 + place] ^= byte;
            }
            let (header, sealed) = record.split_at_mut(HEADER);
            assert_eq!(header, [23, 3, 3, 0, 20]);
            let (text, tag) = sealed.split_at_mut(4);
            Aes128Gcm::new(&keys.key.into())
                .decrypt_in_place_detached(&nonce.into(), header, text, Tag::from_slice(tag))
                .unwrap();
            assert_eq!(text, b"abc\x17");
            assert_eq!(keys.sequence, sequence.wrapping_add(1));
        }
    }

    #[test]
    fn a_key_is_worn_out_before_it_is_unsafe() {
        let mut keys = Keys::new([7; 32]);
        keys.wear_out();
        assert!(!keys.worn_out());
        keys.seal(APPLICATION, &mut [0; OVERHEAD], 0).unwrap();
        assert!(keys.worn_out());
        assert!(!keys.next().worn_out());
        // RFC 8446 s5.5: 2^24.5 records, of which the square is 2^49.
        const { assert!(SEALED_MAX * SEALED_MAX <= 1 << 49) };
    }
}
