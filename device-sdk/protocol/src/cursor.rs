//! The only room that slices bytes: a checked reader, and the [`Sink`] that packets are written into.

use crate::mqtt::DecodeError;
use crate::topic::{self, TopicError};

/// Takes bytes one slice after another; a packet is encoded into a sink.
///
/// The caller reserves space first ([`crate::mqtt::Packet::encoded_len`]), so a sink never refuses.
pub trait Sink {
    /// Appends all of `bytes`.
    fn put(&mut self, bytes: &[u8]);
    /// Appends one byte.
    #[inline]
    fn put_u8(&mut self, byte: u8) {
        self.put(&[byte]);
    }
    /// Appends a big-endian `u16`.
    #[inline]
    fn put_u16(&mut self, value: u16) {
        self.put(&value.to_be_bytes());
    }
    /// Appends a big-endian `u32`.
    #[inline]
    fn put_u32(&mut self, value: u32) {
        self.put(&value.to_be_bytes());
    }
    /// Appends a Variable Byte Integer (section 1.5.5); `value` is at most 268,435,455.
    #[inline]
    fn put_varint(&mut self, mut value: u32) {
        while value >= 0x80 {
            self.put_u8((value & 0x7F) as u8 | 0x80);
            value >>= 7;
        }
        self.put_u8((value & 0x7F) as u8);
    }
    /// Appends Binary Data or a UTF-8 string: a `u16` length and the bytes. At most 65,535 bytes are written.
    #[inline]
    fn put_prefixed(&mut self, bytes: &[u8]) {
        let len = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
        debug_assert_eq!(usize::from(len), bytes.len(), "strings of MQTT are at most 65,535 bytes");
        self.put_u16(len);
        self.put(&bytes[..usize::from(len)]);
    }
}

#[cfg(feature = "alloc")]
impl Sink for alloc::vec::Vec<u8> {
    #[inline]
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
    #[inline]
    fn put_u8(&mut self, byte: u8) {
        self.push(byte);
    }
}

/// Counts what would be written.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Counter(pub(crate) usize);

impl Sink for Counter {
    #[inline]
    fn put(&mut self, bytes: &[u8]) {
        self.0 += bytes.len();
    }
}

/// Writes into a slice; what does not fit is counted and left out.
pub(crate) struct SliceSink<'a> {
    pub(crate) bytes: &'a mut [u8],
    pub(crate) at: usize,
}

impl Sink for SliceSink<'_> {
    fn put(&mut self, bytes: &[u8]) {
        if let Some(place) = self.bytes.get_mut(self.at..self.at + bytes.len()) {
            place.copy_from_slice(bytes);
        }
        self.at += bytes.len();
    }
}

/// Bytes of a Variable Byte Integer.
#[inline]
pub(crate) const fn varint_len(value: usize) -> usize {
    match value {
        0..=0x7F => 1,
        0x80..=0x3FFF => 2,
        0x4000..=0x1F_FFFF => 3,
        _ => 4,
    }
}

/// Reads from the front of a slice; every read is checked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    #[inline]
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    #[inline]
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.bytes
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    #[inline]
    pub(crate) fn take(&mut self, len: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self.bytes.split_at_checked(len).ok_or(DecodeError::Truncated)?;
        self.bytes = rest;
        Ok(taken)
    }

    #[inline]
    pub(crate) fn u8(&mut self) -> Result<u8, DecodeError> {
        let (&byte, rest) = self.bytes.split_first().ok_or(DecodeError::Truncated)?;
        self.bytes = rest;
        Ok(byte)
    }

    /// A byte that is 0 or 1.
    #[inline]
    pub(crate) fn flag(&mut self) -> Result<bool, DecodeError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(DecodeError::PropertyOutOfRange),
        }
    }

    #[inline]
    pub(crate) fn u16(&mut self) -> Result<u16, DecodeError> {
        let (bytes, rest) = self.bytes.split_first_chunk::<2>().ok_or(DecodeError::Truncated)?;
        self.bytes = rest;
        Ok(u16::from_be_bytes(*bytes))
    }

    #[inline]
    pub(crate) fn u32(&mut self) -> Result<u32, DecodeError> {
        let (bytes, rest) = self.bytes.split_first_chunk::<4>().ok_or(DecodeError::Truncated)?;
        self.bytes = rest;
        Ok(u32::from_be_bytes(*bytes))
    }

    /// A Variable Byte Integer in its shortest form [MQTT5-1.5.5-1].
    #[inline]
    pub(crate) fn varint(&mut self) -> Result<u32, DecodeError> {
        match *self.bytes {
            [byte @ 0..=0x7F, ref rest @ ..] => {
                self.bytes = rest;
                Ok(u32::from(byte))
            }
            _ => self.long_varint(),
        }
    }

    fn long_varint(&mut self) -> Result<u32, DecodeError> {
        let mut value = 0u32;
        for i in 0..4 {
            let byte = self.u8()?;
            value |= u32::from(byte & 0x7F) << (7 * i);
            if byte & 0x80 == 0 {
                if i > 0 && byte == 0 {
                    return Err(DecodeError::OverlongInteger);
                }
                return Ok(value);
            }
        }
        Err(DecodeError::OverlongInteger)
    }

    #[inline]
    pub(crate) fn binary(&mut self) -> Result<&'a [u8], DecodeError> {
        let len = self.u16()?;
        self.take(usize::from(len))
    }

    /// A UTF-8 Encoded String: well formed, without U+0000 [MQTT5-1.5.4-1] [MQTT5-1.5.4-2] [MQTT3-1.5.3-1]
    /// [MQTT3-1.5.3-2], with U+FEFF where it stands [MQTT5-1.5.4-3] [MQTT3-1.5.3-3].
    #[inline]
    pub(crate) fn string(&mut self) -> Result<&'a str, DecodeError> {
        let text = core::str::from_utf8(self.binary()?).map_err(|_| DecodeError::NotUtf8)?;
        if text.as_bytes().contains(&0) {
            return Err(DecodeError::NulInString);
        }
        Ok(text)
    }

    /// A string that is a topic name, or empty: also without wildcards [MQTT5-3.3.2-2] [MQTT3-3.3.2-2].
    #[inline]
    pub(crate) fn topic_name(&mut self) -> Result<&'a str, DecodeError> {
        let text = core::str::from_utf8(self.binary()?).map_err(|_| DecodeError::NotUtf8)?;
        match topic::check_characters(text) {
            Ok(()) => Ok(text),
            Err(TopicError::Nul) => Err(DecodeError::NulInString),
            Err(error) => Err(DecodeError::BadTopic(error)),
        }
    }
}
