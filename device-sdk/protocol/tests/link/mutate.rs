//! Damaged frames: nothing panics, nothing is read beyond its end, and what is still understood is understood for good.

use crate::generate::{Rng, any_down, any_up};
use crate::samples::{downs, ups};
use crate::{encoded, whole};
use core::fmt::Debug;
use parlor_protocol::link::{Decoded, Down, Frame, LinkError, SIZE_MAX, Up, decode_frame, frame_len};

/// Reads `bytes` as one direction and says whether they began with a frame.
fn read<'a, F: Frame<'a> + PartialEq + Debug>(bytes: &'a [u8]) -> bool {
    match decode_frame::<F>(bytes, SIZE_MAX) {
        Ok(Some((frame, used))) => {
            assert_eq!(frame_len(bytes, SIZE_MAX), Ok(Some(used)));
            assert!(used <= bytes.len());
            match frame {
                // One meaning has one form.
                Decoded::Frame(frame) => assert_eq!(encoded(&frame), bytes[..used], "{frame:?}"),
                Decoded::Unknown { tag, size } => {
                    assert!(tag >= F::COUNT);
                    assert_eq!(size + 2, used);
                }
            }
            true
        }
        Ok(None) => {
            assert!(frame_len(bytes, SIZE_MAX).unwrap().is_none_or(|len| len > bytes.len()));
            false
        }
        Err(error) => {
            assert!(!error.to_string().is_empty());
            false
        }
    }
}

/// Makes the length what it has to be.
fn mend(bytes: &mut [u8]) {
    let size = u16::try_from(bytes.len().saturating_sub(2)).unwrap();
    if let Some(place) = bytes.get_mut(..2) {
        place.copy_from_slice(&size.to_be_bytes());
    }
}

/// Every bit flipped, every place cut, a byte put in everywhere; with the length as it was and as it has to be.
fn every_damage(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut damaged = vec![];
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut flipped = bytes.to_vec();
            flipped[at] ^= 1 << bit;
            damaged.push(flipped);
        }
        damaged.push(bytes[..at].to_vec());
        for byte in [0x00, 0x01, 0x7F, 0x80, 0xFF] {
            let mut longer = bytes.to_vec();
            longer.insert(at, byte);
            damaged.push(longer);
        }
        let mut shorter = bytes.to_vec();
        shorter.remove(at);
        damaged.push(shorter);
    }
    let mended: Vec<_> = damaged
        .iter()
        .cloned()
        .map(|mut bytes| {
            mend(&mut bytes);
            bytes
        })
        .collect();
    damaged.extend(mended);
    damaged
}

#[test]
fn a_frame_damaged_at_any_byte_never_panics() {
    let mut understood = [0, 0];
    let samples = ups().iter().map(encoded).chain(downs().iter().map(encoded)).collect::<Vec<_>>();
    for bytes in &samples {
        for damaged in every_damage(bytes) {
            understood[usize::from(read::<Up>(&damaged))] += 1;
            understood[usize::from(read::<Down>(&damaged))] += 1;
        }
    }
    // The damage is neither so light nor so heavy that nothing is tested.
    assert!(understood.iter().all(|count| *count > 5_000), "{understood:?}");
}

#[test]
fn a_frame_that_ends_early_is_not_there_or_truncated() {
    for bytes in ups().iter().map(encoded) {
        for cut in 0..bytes.len() {
            assert_eq!(decode_frame::<Up>(&bytes[..cut], SIZE_MAX), Ok(None));
            if cut > 3 {
                let mut short = bytes[..cut].to_vec();
                mend(&mut short);
                assert_eq!(whole::<Up>(&short), Err(LinkError::Truncated), "{cut} of {bytes:02x?}");
            }
        }
    }
}

#[test]
fn many_damages_and_noise_never_panic() {
    let mut rng = Rng(0xDA_4A6E);
    for round in 0..20_000 {
        let mut bytes = if round % 2 == 0 { encoded(&any_up(&mut rng)) } else { encoded(&any_down(&mut rng)) };
        for _ in 0..=rng.below(3) {
            if bytes.is_empty() {
                break;
            }
            let at = rng.below(bytes.len());
            match rng.below(4) {
                0 => bytes[at] ^= 1 << rng.below(8),
                1 => bytes[at] = rng.byte(),
                2 => bytes.truncate(at),
                _ => bytes.insert(at, rng.byte()),
            }
        }
        if rng.coin() {
            mend(&mut bytes);
        }
        read::<Up>(&bytes);
        read::<Down>(&bytes);
    }
    for _ in 0..40_000 {
        let mut bytes = rng.bytes().to_vec();
        if rng.coin() {
            mend(&mut bytes);
        }
        if rng.coin()
            && let Some([version, tag]) = bytes.get_mut(2..4)
        {
            (*version, *tag) = (1, *tag % 34);
        }
        read::<Up>(&bytes);
        read::<Down>(&bytes);
    }
}
