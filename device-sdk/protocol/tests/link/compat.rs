//! Builds of different levels understand each other: what one does not know it skips, and what both know they read alike.

use crate::generate::{Rng, down, up};
use crate::{encoded, framed, whole};
use parlor_protocol::link::{
    Code, CommandState, Decoded, Down, Frame, LinkError, PresenceState, SIZE_MAX, Up, decode_frame,
};

/// The client's frames as a build would know them that is older than everything behind `Bye`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
enum Older<'a> {
    Hello {
        level: u32,
        schema: u64,
        account: &'a str,
        secret: &'a [u8],
        terminal: &'a str,
        keep_alive_s: u16,
        expiry_s: u32,
        receive_max: u16,
        frame_max: u16,
        clean: bool,
        wants: u16,
        core_level: u32,
        platform: &'a str,
        app: &'a str,
    },
    Ping {},
    Bye {
        will: bool,
    },
}

impl<'a> Frame<'a> for Older<'a> {
    const COUNT: u32 = 3;

    fn check(&self) -> Result<(), LinkError> {
        Ok(())
    }
}

#[test]
fn an_older_build_skips_what_it_does_not_know() {
    let mut stream = vec![];
    for tag in 0..Up::COUNT {
        stream.extend(encoded(&up(&mut Rng(u64::from(tag)), tag)));
    }
    let mut rest = &stream[..];
    for expect in 0..Up::COUNT {
        let (frame, used) = decode_frame::<Older>(rest, SIZE_MAX).unwrap().unwrap();
        match frame {
            Decoded::Frame(_) => assert!(expect < Older::COUNT),
            Decoded::Unknown { tag, size } => assert_eq!((tag, size), (expect, used - 2)),
        }
        rest = &rest[used..];
    }
    assert!(rest.is_empty());
}

#[test]
fn an_older_builds_bytes_mean_the_same_in_a_newer_one() {
    let older = [
        Older::Ping {},
        Older::Bye { will: false },
        Older::Hello {
            level: 250_101,
            schema: 5,
            account: "alice",
            secret: b"s",
            terminal: "t",
            keep_alive_s: 1,
            expiry_s: 2,
            receive_max: 3,
            frame_max: 4,
            clean: true,
            wants: 0xFFFF,
            core_level: 6,
            platform: "p",
            app: "a",
        },
    ];
    for frame in older {
        let bytes = encoded(&frame);
        let Ok(Decoded::Frame(newer)) = whole::<Up>(&bytes) else { panic!("{frame:?}") };
        assert_eq!(encoded(&newer), bytes);
        assert_eq!(whole(&bytes), Ok(Decoded::Frame(frame)));
    }
}

#[test]
fn whatever_stands_in_an_unknown_variant_is_skipped() {
    for tag in [Up::COUNT, 127, 128, 16_384, u32::MAX] {
        let mut rest = vec![1];
        let mut value = tag;
        while value > 0x7F {
            rest.push(value.to_le_bytes()[0] | 0x80);
            value >>= 7;
        }
        rest.push(value.to_le_bytes()[0]);
        rest.extend_from_slice(b"\xFF\xFF what a newer build knows");
        let bytes = framed(&rest);
        assert_eq!(whole::<Up>(&bytes), Ok(Decoded::Unknown { tag, size: rest.len() }));
        if tag >= Down::COUNT {
            assert_eq!(whole::<Down>(&bytes), Ok(Decoded::Unknown { tag, size: rest.len() }));
        }
    }
}

#[test]
fn a_newer_word_is_kept_as_its_number() {
    let refused = Down::Refused { packet_id: 1, code: Code::Unknown(200), text: "" };
    assert_eq!(whole(&encoded(&refused)), Ok(Decoded::Frame(refused)));
    for value in 0..=255 {
        assert_eq!(Code::of(value).value(), value);
        assert_eq!(CommandState::of(value).value(), value);
        assert_eq!(PresenceState::of(value).value(), value);
    }
    for code in Code::ALL {
        assert_eq!(Code::parse(code.text()), Some(*code));
    }
    for state in CommandState::ALL {
        assert_eq!(CommandState::parse(state.text()), Some(*state));
    }
    for state in PresenceState::ALL {
        assert_eq!(PresenceState::parse(state.text()), Some(*state));
    }
    assert_eq!((Code::parse(""), Code::Unknown(0).text()), (None, ""));
}

#[test]
fn the_two_directions_are_not_mixed_up_in_silence() {
    // Not every frame of one direction is refused by the other, but none of them means the same.
    for tag in 0..Down::COUNT {
        let frame = down(&mut Rng(3), tag);
        if let Ok(Decoded::Frame(up)) = whole::<Up>(&encoded(&frame)) {
            assert_ne!(format!("{up:?}"), format!("{frame:?}"));
        }
    }
}
