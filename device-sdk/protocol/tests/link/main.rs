//! The native link's frames: against fixed bytes, against themselves, against damage, and against builds of other levels.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod check;
mod compat;
mod document;
mod generate;
mod golden;
mod mutate;
mod round_trip;
mod samples;
mod schema;

use parlor_protocol::link::{
    Decoded, EncodeError, Frame, LinkError, SIZE_MAX, datagram_len, datagram_to_slice, decode_datagram, decode_frame,
    encode, encode_datagram, encode_to_slice, frame_size,
};

/// Encodes in all four ways, which have to agree with each other and with the announced length.
fn encoded<'a, F: Frame<'a> + core::fmt::Debug>(frame: &F) -> Vec<u8> {
    let mut bytes = vec![0xEE];
    let len = encode(frame, &mut bytes).unwrap();
    assert_eq!(bytes.remove(0), 0xEE, "nothing before the frame is touched");
    assert_eq!((len, bytes.len()), (bytes.len(), frame_size(frame) + 2), "{frame:?}");

    let mut slice = vec![0xEE; len + 1];
    assert_eq!(encode_to_slice(frame, &mut slice), Ok(len));
    assert_eq!(slice.pop(), Some(0xEE), "nothing behind the frame is touched");
    assert_eq!(slice, bytes);
    let short = &mut slice[..len - 1];
    assert_eq!(encode_to_slice(frame, short), Err(EncodeError::BufferTooSmall { needed: len }));

    let mut datagram = vec![];
    assert_eq!(encode_datagram(frame, &mut datagram), Ok(len - 2));
    assert_eq!(datagram, bytes[2..], "a datagram is the frame without its length");
    assert_eq!(datagram_len(frame), len - 2);
    let mut slice = vec![0; len - 2];
    assert_eq!(datagram_to_slice(frame, &mut slice), Ok(len - 2));
    assert_eq!(slice, datagram);
    bytes
}

/// The frame that is all of `bytes`, read as a part of a stream and as a datagram.
fn whole<'a, F: Frame<'a> + PartialEq + core::fmt::Debug>(bytes: &'a [u8]) -> Result<Decoded<F>, LinkError> {
    let alone = decode_datagram(&bytes[2..]);
    let (frame, used) = match decode_frame(bytes, SIZE_MAX) {
        Ok(found) => found.expect("a whole frame"),
        Err(error) => {
            assert_eq!(alone, Err(error));
            return Err(error);
        }
    };
    assert_eq!(used, bytes.len());
    assert_eq!(alone.as_ref(), Ok(&frame));
    Ok(frame)
}

/// A frame of these bytes: with its length before it.
fn framed(rest: &[u8]) -> Vec<u8> {
    [&u16::try_from(rest.len()).unwrap().to_be_bytes()[..], rest].concat()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
