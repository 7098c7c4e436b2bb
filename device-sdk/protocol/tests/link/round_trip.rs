//! Every legal frame survives the way to the wire and back.

use crate::generate::{Rng, any_down, any_up, down, up};
use crate::{encoded, whole};
use parlor_protocol::link::{Decoded, Down, Frame, SIZE_MAX, Up, decode_frame};

#[test]
fn random_frames_come_back_as_they_left() {
    for seed in 0..200 {
        for tag in 0..Up::COUNT {
            let frame = up(&mut Rng(seed), tag);
            let bytes = encoded(&frame);
            assert_eq!(whole::<Up>(&bytes), Ok(Decoded::Frame(frame)), "seed {seed}");
            assert_eq!(u32::from(bytes[3]), tag, "the place in the enum is the discriminant");
            assert_eq!(Up::NAMES[tag as usize], frame.name());
        }
        for tag in 0..Down::COUNT {
            let frame = down(&mut Rng(seed), tag);
            let bytes = encoded(&frame);
            assert_eq!(whole::<Down>(&bytes), Ok(Decoded::Frame(frame)), "seed {seed}");
            assert_eq!(u32::from(bytes[3]), tag);
            assert_eq!(Down::NAMES[tag as usize], frame.name());
        }
    }
}

#[test]
fn a_stream_comes_apart_at_the_same_places_however_it_arrives() {
    let mut rng = Rng(77);
    let mut stream = vec![];
    let mut sent = vec![];
    for _ in 0..400 {
        let frame = any_up(&mut rng);
        stream.extend(encoded(&frame));
        sent.push(frame);
    }
    let mut waiting = vec![];
    let mut found = 0;
    let mut rest = &stream[..];
    while !rest.is_empty() {
        let (piece, later) = rest.split_at(1 + rng.below(rest.len().min(90)));
        rest = later;
        waiting.extend_from_slice(piece);
        while let Some((frame, used)) = decode_frame::<Up>(&waiting, SIZE_MAX).unwrap() {
            assert_eq!(frame, Decoded::Frame(sent[found]));
            found += 1;
            waiting.drain(..used);
        }
    }
    assert_eq!((found, waiting.len()), (sent.len(), 0));
}

#[test]
fn strings_and_payloads_are_borrowed() {
    let bytes = encoded(&any_down(&mut Rng(1)));
    drop(bytes);
    let bytes = encoded(&Up::Telemetry { topic: "home/temp", payload: b"21.5" });
    let Ok(Decoded::Frame(Up::Telemetry { topic, payload })) = whole(&bytes) else { panic!() };
    let inside = |at: *const u8| bytes.as_ptr_range().contains(&at);
    assert!(inside(topic.as_ptr()) && inside(payload.as_ptr()));
}
