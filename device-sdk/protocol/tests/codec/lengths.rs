//! Lengths at the edges of the Variable Byte Integer (table 1-1) and of strings.

use crate::{BOTH, MAX, encoded, whole};
use parlor_protocol::Sink;
use parlor_protocol::mqtt::{DecodeError, Packet, Properties, Property, Publish, QoS, Version, decode, frame_len};

/// Table 1-1 of 5.0, table 2.4 of 3.1.1: the smallest and the largest value of each size.
const SIZES: [(u32, &[u8]); 8] = [
    (0, &[0x00]),
    (127, &[0x7F]),
    (128, &[0x80, 0x01]),
    (16_383, &[0xFF, 0x7F]),
    (16_384, &[0x80, 0x80, 0x01]),
    (2_097_151, &[0xFF, 0xFF, 0x7F]),
    (2_097_152, &[0x80, 0x80, 0x80, 0x01]),
    (268_435_455, &[0xFF, 0xFF, 0xFF, 0x7F]),
];

fn publish<'a>(topic: &'a str, payload: &'a [u8]) -> Publish<'a> {
    let properties = Properties::EMPTY;
    Publish { dup: false, qos: QoS::AtMostOnce, retain: false, topic, packet_id: None, properties, payload }
}

/// Keeps the start and counts the rest.
#[derive(Default)]
struct Start {
    head: Vec<u8>,
    len: usize,
}

impl Sink for Start {
    fn put(&mut self, bytes: &[u8]) {
        self.len += bytes.len();
        let missing = 8_usize.saturating_sub(self.head.len());
        self.head.extend(bytes.iter().take(missing));
    }
}

#[test]
fn remaining_length_has_the_fewest_bytes_at_every_edge() {
    // [MQTT5-1.5.5-1]
    for version in BOTH {
        for (remaining, bytes) in SIZES.into_iter().skip(1) {
            let overhead = if version == Version::V5 { 4 } else { 3 };
            let payload = vec![0; remaining as usize - overhead];
            let packet = publish("t", &payload);
            let mut start = Start::default();
            packet.encode(version, &mut start);
            assert_eq!(start.len, 1 + bytes.len() + remaining as usize);
            assert_eq!(start.len, packet.encoded_len(version));
            assert_eq!(start.head[1..=bytes.len()], *bytes);
            assert_eq!(frame_len(&start.head), Ok(Some(start.len)));
            // Decoding reads no payload, but its bytes have to be there; the largest is left to the fixed header.
            if remaining < 1 << 22 {
                let bytes = encoded(&Packet::Publish(packet), version);
                assert_eq!(whole(&bytes, version), Ok(Packet::Publish(packet)));
                assert_eq!(decode(&bytes[..bytes.len() - 1], version, MAX), Ok(None));
            }
        }
    }
}

#[test]
fn every_shorter_form_of_the_remaining_length_is_waited_for_and_every_longer_one_refused() {
    for (value, bytes) in SIZES {
        let mut header = vec![0x30];
        for byte in bytes {
            assert_eq!(frame_len(&header), Ok(None));
            header.push(*byte);
        }
        assert_eq!(frame_len(&header), Ok(Some(1 + bytes.len() + value as usize)));
        // The same value with one byte more than it needs [MQTT5-1.5.5-1].
        if let Some(last) = header.last_mut() {
            *last |= 0x80;
        }
        header.push(0);
        assert_eq!(frame_len(&header), Err(DecodeError::OverlongInteger), "{value}");
        for version in BOTH {
            assert_eq!(decode(&header, version, MAX), Err(DecodeError::OverlongInteger), "{value}");
        }
    }
    assert_eq!(frame_len(&[0x30, 0x80, 0x80, 0x80, 0x80]), Err(DecodeError::OverlongInteger));
}

#[test]
fn property_length_takes_every_edge() {
    for (len, bytes) in SIZES.into_iter().filter(|(len, _)| (127..1 << 22).contains(len)) {
        // User Properties of 1 + 2 + name + 2 + value bytes fill the list to the byte.
        let mut list = crate::Bytes::default();
        let text = "x".repeat(60_000);
        while list.0.len() < len as usize {
            let left = len as usize - list.0.len();
            let value = if left > 60_100 { 60_000 } else { left - 5 };
            Property::UserProperty("", &text[..value]).encode(&mut list);
        }
        assert_eq!(list.0.len(), len as usize);
        let packet = Packet::Publish(Publish { properties: Properties::from_validated(&list.0), ..publish("t", b"p") });
        let written = encoded(&packet, Version::V5);
        let at = written.len() - 1 - list.0.len() - bytes.len();
        assert_eq!(written[at..at + bytes.len()], *bytes);
        assert_eq!(whole(&written, Version::V5), Ok(packet));
    }
}

#[test]
fn a_subscription_identifier_takes_every_edge() {
    // 1 to 268,435,455 (section 3.8.2.1.2)
    for (value, bytes) in SIZES {
        let body =
            [&[0x00, 0x01, 1 + u8::try_from(bytes.len()).unwrap(), 0x0B], bytes, &[0x00, 0x01, b'a', 0x00]].concat();
        let packet = crate::framed(0x82, &body);
        match (whole(&packet, Version::V5), value) {
            (result, 0) => assert_eq!(result, Err(DecodeError::PropertyOutOfRange)),
            (Ok(Packet::Subscribe(subscribe)), _) => {
                assert_eq!(subscribe.properties.subscription_identifier(), Some(value));
                assert_eq!(encoded(&Packet::Subscribe(subscribe), Version::V5), packet);
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn the_longest_string_is_65535_bytes() {
    // [MQTT5-4.7.3-3] [MQTT3-4.7.3-3]
    let topic = "é".repeat(32_767) + "x";
    assert_eq!(topic.len(), 65_535);
    for version in BOTH {
        let packet = Packet::Publish(publish(&topic, b""));
        let bytes = encoded(&packet, version);
        assert_eq!(bytes[4..6], [0xFF, 0xFF]);
        assert_eq!(whole(&bytes, version), Ok(packet));
    }
}

#[test]
fn a_claimed_256_mb_packet_is_refused_from_its_fixed_header() {
    // [MQTT5-3.2.2-15]: nothing is waited for, so nothing has to be kept.
    for version in BOTH {
        for first in [0x10, 0x30, 0x32, 0x3B, 0x82, 0xA2, 0xE0] {
            let header = [first, 0xFF, 0xFF, 0xFF, 0x7F];
            for cut in 0..header.len() {
                assert_eq!(decode(&header[..cut], version, 1 << 20), Ok(None));
            }
            let refused = DecodeError::TooLarge { size: 268_435_460, max: 1 << 20 };
            assert_eq!(decode(&header, version, 1 << 20), Err(refused));
            assert_eq!(
                decode(&header, version, 268_435_459),
                Err(DecodeError::TooLarge { size: 268_435_460, max: 268_435_459 })
            );
            assert_eq!(decode(&header, version, 268_435_460), Ok(None));
        }
    }
}

#[test]
fn the_maximum_packet_size_counts_the_whole_packet() {
    // Section 3.1.2.11.4: the total number of bytes, fixed header included.
    let bytes = [0x30, 0x04, 0x00, 0x01, b't', 0x00];
    assert!(decode(&bytes, Version::V5, 6).unwrap().is_some());
    assert_eq!(decode(&bytes, Version::V5, 5), Err(DecodeError::TooLarge { size: 6, max: 5 }));
}
