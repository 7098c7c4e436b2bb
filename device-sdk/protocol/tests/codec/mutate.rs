//! Damaged packets: nothing panics, nothing is read beyond its end, and what is still understood is understood for good.

use crate::generate::{Rng, packet};
use crate::{BOTH, MAX, encoded, whole};
use parlor_protocol::mqtt::{DecodeError, Packet, Properties, PropertyPlace, Sender, Version, decode, frame_len};

/// Looks into everything a packet has, so that what was promised when it was read is held.
fn look(packet: &Packet<'_>) -> usize {
    let lists: [Option<(Properties<'_>, PropertyPlace)>; 2] = match packet {
        Packet::Connect(p) => {
            [Some((p.properties, PropertyPlace::Connect)), p.will.map(|will| (will.properties, PropertyPlace::Will))]
        }
        Packet::ConnAck(p) => [Some((p.properties, PropertyPlace::ConnAck)), None],
        Packet::Publish(p) => [Some((p.properties, PropertyPlace::Publish)), None],
        Packet::PubAck(p) | Packet::PubRec(p) | Packet::PubRel(p) | Packet::PubComp(p) => {
            [Some((p.properties, PropertyPlace::Ack)), None]
        }
        Packet::Subscribe(p) => {
            assert_ne!(p.filters.iter().count(), 0);
            [Some((p.properties, PropertyPlace::Subscribe)), None]
        }
        Packet::Unsubscribe(p) => {
            assert_ne!(p.filters.iter().count(), 0);
            [Some((p.properties, PropertyPlace::Unsubscribe)), None]
        }
        Packet::SubAck(p) => [Some((p.properties, PropertyPlace::Ack)), None],
        Packet::UnsubAck(p) => [Some((p.properties, PropertyPlace::Ack)), None],
        Packet::PingReq | Packet::PingResp => [None, None],
        Packet::Disconnect(p) => [Some((p.properties, PropertyPlace::Disconnect)), None],
        Packet::Auth(p) => [Some((p.properties, PropertyPlace::Auth)), None],
    };
    for (list, place) in lists.into_iter().flatten() {
        assert_eq!(list.iter().map(|property| property.encoded_len()).sum::<usize>(), list.as_bytes().len());
        if !list.is_empty() {
            assert_eq!(Properties::parse(list.as_bytes(), place), Ok(list));
        }
    }
    usize::from(packet.check_sender(Sender::Client).is_ok()) + usize::from(packet.check_sender(Sender::Server).is_ok())
}

/// Reads `bytes` in a version and says whether they were a packet.
fn read(bytes: &[u8], version: Version) -> bool {
    match decode(bytes, version, MAX) {
        Ok(Some((packet, size))) => {
            assert!(size <= bytes.len());
            assert_eq!(frame_len(bytes), Ok(Some(size)));
            look(&packet);
            // CONNECT brings its version; what was understood is written in its shortest form, and means the same.
            let version = if let Packet::Connect(connect) = &packet { connect.version } else { version };
            let again = encoded(&packet, version);
            assert!(again.len() <= size);
            assert_eq!(whole(&again, version), Ok(packet));
            true
        }
        Ok(None) => {
            assert!(frame_len(bytes).unwrap().is_none_or(|len| len > bytes.len()));
            false
        }
        Err(error) => {
            assert!(!error.to_string().is_empty());
            false
        }
    }
}

#[test]
fn damaged_packets_never_panic() {
    let mut understood = [0, 0];
    let mut rng = Rng(0xDA_4A6E);
    for round in 0..30_000 {
        let version = BOTH[round % 2];
        let mut bytes = packet(&mut rng, version, |packet| encoded(packet, version));
        for _ in 0..=rng.below(3) {
            damage(&mut rng, &mut bytes, version);
        }
        for version in BOTH {
            understood[usize::from(read(&bytes, version))] += 1;
        }
    }
    // The damage is neither so light nor so heavy that nothing is tested.
    assert!(understood.iter().all(|count| *count > 6_000), "{understood:?}");
}

fn damage(rng: &mut Rng, bytes: &mut Vec<u8>, version: Version) {
    if bytes.is_empty() {
        return bytes.push(rng.byte());
    }
    let at = rng.below(bytes.len());
    match rng.below(7) {
        // A bit, a byte.
        0 | 1 => bytes[at] ^= 1 << rng.below(8),
        2 => bytes[at] = rng.byte(),
        // Cut, with the Remaining Length as it was or as it has to be.
        3 => bytes.truncate(at),
        4 => {
            bytes.truncate(at.max(2));
            mend(bytes);
        }
        // Something of another packet in between.
        5 => {
            let other = packet(rng, version, |packet| encoded(packet, version));
            let (from, to) = (rng.below(other.len()), rng.below(other.len()));
            bytes.splice(at..at, other[from.min(to)..from.max(to)].iter().copied());
            mend(bytes);
        }
        // Some bytes gone.
        _ => {
            let end = (at + 1 + rng.below(4)).min(bytes.len());
            bytes.drain(at..end);
            mend(bytes);
        }
    }
}

/// Makes the Remaining Length of a short packet what it has to be.
fn mend(bytes: &mut [u8]) {
    if let Ok(len @ 0..=0x7F) = u8::try_from(bytes.len().saturating_sub(2))
        && let Some(place) = bytes.get_mut(1)
    {
        *place = len;
    }
}

#[test]
fn noise_never_panics() {
    let mut rng = Rng(0x0153);
    for _ in 0..60_000 {
        let mut bytes = rng.bytes();
        if rng.coin() {
            mend(&mut bytes);
        }
        for version in BOTH {
            read(&bytes, version);
        }
    }
}

#[test]
fn a_beginning_is_never_refused_for_what_the_whole_is_not() {
    let mut rng = Rng(0x5EED);
    for round in 0..6_000 {
        let version = BOTH[round % 2];
        let mut bytes = packet(&mut rng, version, |packet| encoded(packet, version));
        if round % 3 != 0 {
            damage(&mut rng, &mut bytes, version);
        }
        for version in BOTH {
            for max in [MAX, 40] {
                let all = decode(&bytes, version, max);
                for cut in 0..bytes.len() {
                    match decode(&bytes[..cut], version, max) {
                        Ok(None) => {}
                        Ok(Some((_, size))) => assert!(size <= cut && all.as_ref().is_ok_and(Option::is_some)),
                        Err(error) => assert_eq!(all, Err(error), "{cut} of {bytes:02X?}"),
                    }
                }
            }
        }
    }
}

#[test]
fn a_property_list_is_refused_or_read_to_its_end() {
    let mut rng = Rng(0x1157);
    let mut legal = 0;
    for _ in 0..60_000 {
        let len = rng.below(12);
        let list: Vec<u8> = (0..len).map(|_| if rng.coin() { rng.byte() % 0x2C } else { rng.byte() % 3 }).collect();
        for place in crate::properties::PLACES {
            match Properties::parse(&list, place) {
                Ok(properties) => {
                    legal += 1;
                    let read: usize = properties.iter().map(|property| property.encoded_len()).sum();
                    assert_eq!(read, list.len());
                }
                Err(error) => assert_ne!(error, DecodeError::TrailingBytes),
            }
        }
        // Bytes that nobody checked give nonsense, but come to an end.
        let unchecked = Properties::from_validated(&list);
        assert!(unchecked.iter().count() <= list.len());
        unchecked.shared_subscription_available();
    }
    assert!(legal > 40_000, "{legal}");
}
