//! The codec against the bytes of both specifications, against itself, and against damaged packets.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod directions;
mod errors;
mod generate;
mod golden;
mod lengths;
mod mutate;
mod properties;
mod round_trip;

use parlor_protocol::Sink;
use parlor_protocol::mqtt::{DecodeError, Packet, Version, decode, encode_to_slice};

/// Larger than every packet here.
const MAX: u32 = 1 << 28;

const BOTH: [Version; 2] = [Version::V311, Version::V5];

/// Collects what is encoded, with or without the crate's feature `alloc`.
#[derive(Default)]
struct Bytes(Vec<u8>);

impl Sink for Bytes {
    fn put(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }
}

/// Encodes in both ways, which have to agree with each other and with the announced length.
fn encoded(packet: &Packet<'_>, version: Version) -> Vec<u8> {
    let mut bytes = Bytes::default();
    packet.encode(version, &mut bytes);
    let Bytes(bytes) = bytes;
    assert_eq!(bytes.len(), packet.encoded_len(version), "{packet:?}");
    let mut slice = vec![0xEE; bytes.len() + 1];
    assert_eq!(encode_to_slice(packet, version, &mut slice), Ok(bytes.len()));
    assert_eq!(slice.pop(), Some(0xEE), "nothing behind the packet is touched");
    assert_eq!(slice, bytes);
    if let Some(short) = bytes.len().checked_sub(1) {
        let needed = encode_to_slice(packet, version, &mut slice[..short]).unwrap_err().needed;
        assert_eq!(needed, bytes.len());
    }
    bytes
}

/// The packet that is all of `bytes`.
fn whole(bytes: &[u8], version: Version) -> Result<Packet<'_>, DecodeError> {
    let (packet, size) = decode(bytes, version, MAX)?.expect("a whole packet");
    assert_eq!(size, bytes.len());
    Ok(packet)
}

/// A packet of this first byte around `body`, which has at most 127 bytes.
fn framed(first: u8, body: &[u8]) -> Vec<u8> {
    let len = u8::try_from(body.len()).unwrap();
    assert!(len < 0x80);
    [&[first, len], body].concat()
}
