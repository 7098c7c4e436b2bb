//! Every legal packet survives the way to the wire and back.

use crate::generate::{Rng, packet};
use crate::{BOTH, MAX, encoded, whole};
use parlor_protocol::mqtt::{Packet, decode, frame_len};
use std::collections::BTreeMap;

#[test]
fn random_packets_come_back_as_they_left() {
    let mut kinds = BTreeMap::new();
    for version in BOTH {
        for seed in 0..12_000 {
            packet(&mut Rng(seed), version, |packet| {
                let bytes = encoded(packet, version);
                let back = whole(&bytes, version).unwrap_or_else(|error| panic!("seed {seed}: {error} in {packet:?}"));
                assert_eq!(back, *packet, "seed {seed}");
                assert_eq!(encoded(&back, version), bytes, "seed {seed}");
                *kinds.entry((version, packet.kind())).or_insert(0) += 1;
            });
        }
    }
    assert_eq!(kinds.len(), 14 + 15, "every type in each version");
    assert!(kinds.values().all(|count| *count > 300), "{kinds:?}");
}

#[test]
fn a_stream_comes_apart_at_the_same_places_however_it_arrives() {
    for version in BOTH {
        let mut rng = Rng(77);
        let mut stream = vec![];
        let mut sizes = vec![];
        for _ in 0..300 {
            let bytes = packet(&mut rng, version, |packet| encoded(packet, version));
            sizes.push(bytes.len());
            stream.extend(bytes);
        }
        // Bytes arrive in random pieces; a packet is taken as soon as it is whole, never before.
        let mut waiting = vec![];
        let mut found = vec![];
        let mut rest = &stream[..];
        while !rest.is_empty() {
            let (piece, later) = rest.split_at(1 + rng.below(rest.len().min(90)));
            rest = later;
            waiting.extend_from_slice(piece);
            while let Some((packet, size)) = decode(&waiting, version, MAX).unwrap() {
                assert_eq!(frame_len(&waiting), Ok(Some(size)));
                assert!(matches!(packet, Packet::Connect(_)) == (waiting[0] == 0x10));
                found.push(size);
                waiting.drain(..size);
            }
            assert!(sizes.get(found.len()).is_none_or(|next| waiting.len() < *next));
        }
        assert_eq!(found, sizes);
    }
}
