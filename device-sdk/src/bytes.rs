//! Writing into, and reading from, slices whose ends are always checked.

/// Longer than anything that is written.
const ENDLESS: usize = 1 << 24;

/// Writes to the front of a slice; from what did not fit on, it only counts.
#[derive(Debug)]
pub(crate) struct Put<'a> {
    out: &'a mut [u8],
    at: usize,
}

#[allow(dead_code, reason = "features decide which of these are used")]
impl<'a> Put<'a> {
    pub(crate) const fn new(out: &'a mut [u8]) -> Self {
        Self { out, at: 0 }
    }

    #[inline(never)]
    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        let from = self.at;
        self.at += bytes.len();
        if let Some(place) = self.out.get_mut(from..self.at) {
            place.copy_from_slice(bytes);
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
            Err(_) => self.at = ENDLESS,
        }
        self.bytes(bytes);
    }

    /// A length of two bytes, and the bytes.
    pub(crate) fn long(&mut self, bytes: &[u8]) {
        match u16::try_from(bytes.len()) {
            Ok(len) => self.u16(len),
            Err(_) => self.at = ENDLESS,
        }
        self.bytes(bytes);
    }

    /// How far it has written, or would have.
    pub(crate) const fn at(&self) -> usize {
        self.at
    }

    /// Lets `fill` write behind what is there; it says how much it wrote or would have, `None` if it did not fit.
    pub(crate) fn fill(&mut self, fill: impl FnOnce(&mut [u8]) -> Option<usize>) {
        let wrote = fill(self.out.get_mut(self.at..).unwrap_or(&mut []));
        self.at += wrote.unwrap_or(ENDLESS);
    }

    /// A Variable Byte Integer of MQTT, which is also how numbers of the native link are written.
    pub(crate) fn varint(&mut self, mut value: u64) {
        while value > 0x7F {
            self.u8(low7(value) | 0x80);
            value >>= 7;
        }
        self.u8(low7(value));
    }

    /// Bytes that were written, if all of them fitted.
    pub(crate) fn done(&self) -> Option<usize> {
        if self.at > self.out.len() { None } else { Some(self.at) }
    }

    /// What was written.
    pub(crate) fn into_written(self) -> Option<&'a [u8]> {
        self.out.get(..self.at)
    }
}

/// Reads from the front of a slice. What is not there reads as empty or zero: it only reads what [`Put`] wrote.
#[derive(Clone, Copy)]
pub(crate) struct Take<'a>(pub(crate) &'a [u8]);

#[allow(dead_code, reason = "features decide which of these are used")]
impl<'a> Take<'a> {
    #[inline(never)]
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

    pub(crate) fn short_bytes(&mut self) -> &'a [u8] {
        let len = self.u8();
        self.bytes(usize::from(len))
    }

    pub(crate) fn short(&mut self) -> &'a str {
        text(self.short_bytes())
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
const fn low7(value: u64) -> u8 {
    (value & 0x7F) as u8
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

#[allow(dead_code, reason = "features decide which of these are used")]
impl Digits {
    pub(crate) fn decimal(mut value: u64) -> Self {
        let mut digits = Self { bytes: [0; 20], from: 20 };
        loop {
            digits.from -= 1;
            if let Some(place) = digits.bytes.get_mut(usize::from(digits.from)) {
                *place = b'0' + (value % 10) as u8;
            }
            value /= 10;
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

/// A hexadecimal digit, below 16.
pub(crate) const fn nibble(value: u32) -> u8 {
    let value = (value & 15) as u8;
    if value < 10 { b'0' + value } else { b'a' - 10 + value }
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
        assert_eq!([nibble(0), nibble(9), nibble(10), nibble(0xBEEF)], *b"09af");
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
