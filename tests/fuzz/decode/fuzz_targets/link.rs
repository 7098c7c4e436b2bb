//! Any bytes, read as frames of both directions, from a stream and as a datagram: no panic, nothing read beyond the end,
//! and what is understood has exactly this form.
#![no_main]

use core::fmt::Debug;
use libfuzzer_sys::fuzz_target;
use parlor_protocol::link::{
    Decoded, Down, Frame, SIZE_MAX, Up, decode_datagram, decode_frame, encode, encode_to_slice, frame_len,
};

fuzz_target!(|bytes: &[u8]| {
    read::<Up>(bytes);
    read::<Down>(bytes);
});

fn read<'a, F: Frame<'a> + PartialEq + Debug>(bytes: &'a [u8]) {
    let mut rest = bytes;
    while let Ok(Some((frame, used))) = decode_frame::<F>(rest, SIZE_MAX) {
        assert_eq!(frame_len(rest, SIZE_MAX), Ok(Some(used)));
        assert_eq!(decode_datagram::<F>(&rest[2..used]).as_ref(), Ok(&frame));
        match &frame {
            Decoded::Frame(frame) => check(frame, &rest[..used]),
            Decoded::Unknown { tag, size } => assert!(*tag >= F::COUNT && size + 2 == used),
        }
        for cut in [0, 1, 2, used / 2, used - 1] {
            assert_eq!(decode_frame::<F>(&rest[..cut.min(used - 1)], SIZE_MAX), Ok(None));
        }
        rest = &rest[used..];
    }
    if let Ok(Decoded::Frame(frame)) = decode_datagram::<F>(bytes) {
        let size = u16::try_from(bytes.len()).unwrap_or_default();
        if size != 0 {
            check(&frame, &[&size.to_be_bytes()[..], bytes].concat());
        }
    }
}

fn check<'a, F: Frame<'a>>(frame: &F, bytes: &[u8]) {
    let mut out = Vec::new();
    assert_eq!(encode(frame, &mut out), Ok(bytes.len()));
    assert_eq!(out, bytes);
    let mut slice = vec![0; out.len()];
    assert_eq!(encode_to_slice(frame, &mut slice), Ok(out.len()));
    assert_eq!(slice, out);
}
