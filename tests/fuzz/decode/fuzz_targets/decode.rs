//! Any bytes, read as both versions: no panic, nothing read beyond the end, and what is understood is written again in a
//! form that means the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use parlor_protocol::mqtt::{Packet, Sender, Version, decode, encode_to_slice, frame_len};

const MAX: u32 = 1 << 20;

fuzz_target!(|bytes: &[u8]| {
    for version in [Version::V311, Version::V5] {
        // A stream, as a connection would bring it: packet after packet until one is incomplete or refused.
        let mut rest = bytes;
        while let Ok(Some((packet, size))) = decode(rest, version, MAX) {
            assert_eq!(frame_len(rest), Ok(Some(size)));
            let written_as = if let Packet::Connect(connect) = &packet { connect.version } else { version };
            check(&packet, size, written_as);
            for cut in [0, 1, 2, size / 2, size - 1] {
                assert_eq!(decode(&rest[..cut.min(size - 1)], version, MAX), Ok(None));
            }
            rest = &rest[size..];
        }
    }
});

fn check(packet: &Packet<'_>, size: usize, version: Version) {
    let _ = (packet.check_sender(Sender::Client), packet.check_sender(Sender::Server));
    let mut out = Vec::new();
    packet.encode(version, &mut out);
    assert_eq!(out.len(), packet.encoded_len(version));
    assert!(out.len() <= size, "what is written is never longer than what was read");
    assert_eq!(decode(&out, version, MAX), Ok(Some((*packet, out.len()))));
    let mut slice = vec![0; out.len()];
    assert_eq!(encode_to_slice(packet, version, &mut slice), Ok(out.len()));
    assert_eq!(slice, out);
}
