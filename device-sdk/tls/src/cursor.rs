//! The only places that take bytes apart or put them together.

use crate::error::{Offence, TlsError};

const MALFORMED: TlsError = TlsError::BadServer(Offence::Malformed);

/// Reads from the front.
#[derive(Clone, Copy)]
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn take(&mut self, bytes: usize) -> Result<&'a [u8], TlsError> {
        let (front, rest) = self.0.split_at_checked(bytes).ok_or(MALFORMED)?;
        self.0 = rest;
        Ok(front)
    }

    /// An unsigned number of up to four bytes, the first the highest.
    pub(crate) fn number(&mut self, bytes: usize) -> Result<usize, TlsError> {
        Ok(self.take(bytes)?.iter().fold(0, |number, byte| number << 8 | usize::from(*byte)))
    }

    /// A vector: its length in `bytes` bytes, and itself.
    pub(crate) fn vector(&mut self, bytes: usize) -> Result<Self, TlsError> {
        let length = self.number(bytes)?;
        self.take(length).map(Self)
    }

    /// Nothing may be left.
    pub(crate) fn end(self) -> Result<(), TlsError> {
        if self.0.is_empty() { Ok(()) } else { Err(MALFORMED) }
    }
}

/// Writes into a buffer, and notices at the end whether it was large enough.
pub(crate) struct Writer<'a> {
    buffer: &'a mut [u8],
    length: usize,
}

/// Where a length belongs that is known later.
pub(crate) struct Hole {
    place: usize,
    bytes: usize,
}

impl<'a> Writer<'a> {
    pub(crate) fn new(buffer: &'a mut [u8]) -> Self {
        Self { buffer, length: 0 }
    }

    pub(crate) fn put(&mut self, bytes: &[u8]) {
        if let Some(room) = self.buffer.get_mut(self.length..self.length + bytes.len()) {
            room.copy_from_slice(bytes);
        }
        self.length += bytes.len();
    }

    pub(crate) fn put_u8(&mut self, number: u8) {
        self.put(&[number]);
    }

    pub(crate) fn put_u16(&mut self, number: u16) {
        self.put(&number.to_be_bytes());
    }

    pub(crate) fn open(&mut self, bytes: usize) -> Hole {
        let place = self.length;
        for _ in 0..bytes {
            self.put_u8(0);
        }
        Hole { place, bytes }
    }

    pub(crate) fn close(&mut self, hole: &Hole) {
        let length = self.length - hole.place - hole.bytes;
        if let Some(room) = self.buffer.get_mut(hole.place..hole.place + hole.bytes) {
            let mut left = length;
            for byte in room.iter_mut().rev() {
                *byte = left.to_be_bytes().last().copied().unwrap_or_default();
                left >>= 8;
            }
        }
    }

    /// How much was written, if it fitted.
    pub(crate) fn finish(self) -> Result<usize, TlsError> {
        if self.length <= self.buffer.len() { Ok(self.length) } else { Err(TlsError::BuffersTooSmall) }
    }
}
