//! The only room that slices bytes: a checked reader and the [`Sink`] that packets are written into.

/// Takes bytes one slice after another; a packet is encoded into a sink.
///
/// The caller reserves space first ([`crate::mqtt::Packet::encoded_len`]), so a sink never refuses.
pub trait Sink {
    /// Appends all of `bytes`.
    fn put(&mut self, bytes: &[u8]);
    /// Appends one byte.
    fn put_u8(&mut self, byte: u8) {
        self.put(&[byte]);
    }
    /// Appends a big-endian `u16`.
    fn put_u16(&mut self, value: u16) {
        self.put(&value.to_be_bytes());
    }
    /// Appends a big-endian `u32`.
    fn put_u32(&mut self, value: u32) {
        self.put(&value.to_be_bytes());
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
