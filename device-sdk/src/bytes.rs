//! Writing into, and reading from, slices whose ends are always checked.

/// Writes to the front of a slice; once something did not fit, nothing more is written.
pub(crate) struct Put<'a> {
    out: &'a mut [u8],
    at: usize,
    full: bool,
}

impl<'a> Put<'a> {
    pub(crate) fn new(out: &'a mut [u8]) -> Self {
        Self { out, at: 0, full: false }
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        match self.out.get_mut(self.at..self.at + bytes.len()) {
            Some(place) if !self.full => {
                place.copy_from_slice(bytes);
                self.at += bytes.len();
            }
            _ => self.full = true,
        }
    }

    pub(crate) fn u8(&mut self, byte: u8) {
        self.bytes(&[byte]);
    }

    pub(crate) fn u16(&mut self, value: u16) {
        self.bytes(&value.to_be_bytes());
    }

    pub(crate) fn u32(&mut self, value: u32) {
        self.bytes(&value.to_be_bytes());
    }

    pub(crate) fn u64(&mut self, value: u64) {
        self.bytes(&value.to_be_bytes());
    }

    /// A length of one byte, and the bytes.
    pub(crate) fn short(&mut self, bytes: &[u8]) {
        match u8::try_from(bytes.len()) {
            Ok(len) => self.u8(len),
            Err(_) => self.full = true,
        }
        self.bytes(bytes);
    }

    /// A length of two bytes, and the bytes.
    pub(crate) fn long(&mut self, bytes: &[u8]) {
        match u16::try_from(bytes.len()) {
            Ok(len) => self.u16(len),
            Err(_) => self.full = true,
        }
        self.bytes(bytes);
    }

    /// How far it has written.
    pub(crate) fn at(&self) -> usize {
        self.at
    }

    /// Lets `fill` write behind what is there; it says how much it wrote, `None` if it did not fit.
    pub(crate) fn fill(&mut self, fill: impl FnOnce(&mut [u8]) -> Option<usize>) {
        let wrote = if self.full { None } else { self.out.get_mut(self.at..).and_then(fill) };
        match wrote {
            Some(len) => self.at += len,
            None => self.full = true,
        }
    }

    /// Writes a Variable Byte Integer of MQTT, below 16,384, where two bytes were left free for it at `at`.
    pub(crate) fn varint_at(&mut self, at: usize, value: usize) {
        if self.full || value >= 0x4000 {
            self.full = true;
        } else if value < 0x80 {
            self.out.copy_within(at + 2..self.at, at + 1);
            self.at -= 1;
            self.overwrite(at, &[low7(value)]);
        } else {
            self.overwrite(at, &[low7(value) | 0x80, low7(value >> 7)]);
        }
    }

    fn overwrite(&mut self, at: usize, bytes: &[u8]) {
        if let Some(place) = self.out.get_mut(at..at + bytes.len()) {
            place.copy_from_slice(bytes);
        }
    }

    /// Bytes that were written, if all of them fitted.
    pub(crate) fn done(self) -> Option<usize> {
        if self.full { None } else { Some(self.at) }
    }
}

/// Reads from the front of a slice. What is not there reads as empty or zero: it only reads what [`Put`] wrote.
#[derive(Clone, Copy)]
pub(crate) struct Take<'a>(pub(crate) &'a [u8]);

impl<'a> Take<'a> {
    pub(crate) fn bytes(&mut self, len: usize) -> &'a [u8] {
        match self.0.split_at_checked(len) {
            Some((taken, rest)) => {
                self.0 = rest;
                taken
            }
            None => &[],
        }
    }

    pub(crate) fn u8(&mut self) -> u8 {
        self.bytes(1).first().copied().unwrap_or(0)
    }

    pub(crate) fn u16(&mut self) -> u16 {
        self.bytes(2).first_chunk().map_or(0, |b| u16::from_be_bytes(*b))
    }

    pub(crate) fn u32(&mut self) -> u32 {
        self.bytes(4).first_chunk().map_or(0, |b| u32::from_be_bytes(*b))
    }

    pub(crate) fn u64(&mut self) -> u64 {
        self.bytes(8).first_chunk().map_or(0, |b| u64::from_be_bytes(*b))
    }

    pub(crate) fn short(&mut self) -> &'a str {
        let len = self.u8();
        text(self.bytes(usize::from(len)))
    }

    pub(crate) fn long(&mut self) -> &'a [u8] {
        let len = self.u16();
        self.bytes(usize::from(len))
    }

    pub(crate) fn rest(&mut self) -> &'a [u8] {
        core::mem::take(&mut self.0)
    }
}

/// The lowest seven bits.
pub(crate) fn low7(value: usize) -> u8 {
    u8::try_from(value & 0x7F).unwrap_or(0)
}

/// Bytes that were a text when they were written.
pub(crate) fn text(bytes: &[u8]) -> &str {
    core::str::from_utf8(bytes).unwrap_or("")
}

/// A number as decimal digits, without the machinery of `core::fmt`.
pub(crate) struct Digits {
    bytes: [u8; 20],
    from: u8,
}

impl Digits {
    pub(crate) fn decimal(value: u64) -> Self {
        Self::of(value, 10)
    }

    pub(crate) fn hex(value: u64) -> Self {
        Self::of(value, 16)
    }

    fn of(mut value: u64, base: u64) -> Self {
        let mut digits = Self { bytes: [b'0'; 20], from: 20 };
        loop {
            digits.from -= 1;
            let digit = u8::try_from(value % base).unwrap_or(0);
            if let Some(place) = digits.bytes.get_mut(usize::from(digits.from)) {
                *place = if digit < 10 { b'0' + digit } else { b'a' + digit - 10 };
            }
            value /= base;
            if value == 0 {
                return digits;
            }
        }
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.bytes.get(usize::from(self.from)..).unwrap_or(&[])
    }

    pub(crate) fn as_str(&self) -> &str {
        text(self.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_become_digits() {
        let check = |value, expect: &str| assert_eq!(Digits::decimal(value).as_str(), expect);
        check(0, "0");
        check(1_790_000, "1790000");
        check(u64::MAX, "18446744073709551615");
        assert_eq!(Digits::hex(0xBEEF_0012).as_str(), "beef0012");
    }

    #[test]
    fn what_does_not_fit_is_refused_as_a_whole() {
        let mut room = [0; 4];
        let mut put = Put::new(&mut room);
        put.short(b"abc");
        assert_eq!(put.done(), Some(4));
        let mut put = Put::new(&mut room);
        put.u8(1);
        put.u32(1);
        put.u8(1);
        assert_eq!(put.done(), None);
    }
}
