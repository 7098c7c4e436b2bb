//! Each reason for which bytes are no frame.

use crate::samples::hello;
use crate::{encoded, framed, hex, whole};
use parlor_protocol::link::{
    Body, Decoded, Down, EncodeError, LinkError, SIZE_MAX, Up, datagram_to_slice, decode_datagram, decode_frame,
    encode, encode_datagram, encode_to_slice, frame_len, frame_size,
};
use parlor_protocol::mqtt::DecodeError;
use parlor_protocol::topic::TopicError;

#[track_caller]
fn refused(rest: &[u8], error: LinkError) {
    assert_eq!(whole::<Up>(&framed(rest)), Err(error), "{}", hex(rest));
}

/// `frame` is written without complaint, and refused where it arrives.
#[track_caller]
fn illegal(frame: &Up<'_>, error: LinkError) {
    let bytes = encoded(frame);
    assert_eq!(whole::<Up>(&bytes), Err(error), "{frame:?}");
}

#[test]
fn lengths() {
    assert_eq!(decode_frame::<Up>(b"", SIZE_MAX), Ok(None));
    assert_eq!(decode_frame::<Up>(b"\0", SIZE_MAX), Ok(None));
    assert_eq!(decode_frame::<Up>(b"\0\0", SIZE_MAX), Err(LinkError::Empty));
    assert_eq!(decode_datagram::<Up>(b""), Err(LinkError::Empty));
    assert_eq!(decode_frame::<Up>(b"\0\x02\x01", SIZE_MAX), Ok(None));
    assert_eq!(decode_frame::<Up>(b"\0\x02\x01\x01behind", SIZE_MAX), Ok(Some((Decoded::Frame(Up::Ping {}), 4))));
    // What is too long is refused as soon as its length is there.
    assert_eq!(decode_frame::<Up>(b"\x01\x01", 256), Err(LinkError::TooLong { size: 257, max: 256 }));
    assert_eq!(frame_len(b"\x01\x00", 256), Ok(Some(258)));
    assert_eq!(frame_len(b"\xFF\xFF", SIZE_MAX), Ok(Some(65_537)));
}

#[test]
fn reasons() {
    refused(b"\x02\x01", LinkError::BadVersion(2));
    refused(b"\x01", LinkError::Truncated);
    refused(b"\x01\x02", LinkError::Truncated);
    refused(b"\x01\x01\x00", LinkError::TrailingBytes);
    // The discriminant, and a field: written longer than they need, and larger than they may be.
    refused(b"\x01\x81\x00", LinkError::OverlongInteger);
    refused(b"\x01\x04\x87\x00", LinkError::OverlongInteger);
    refused(b"\x01\x04\xFF\xFF\x04", LinkError::OverlongInteger);
    refused(b"\x01\xFF\xFF\xFF\xFF\xFF\x01", LinkError::OverlongInteger);
    // A string that claims to be longer than everything.
    refused(b"\x01\x08\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x01x", LinkError::Truncated);
    refused(b"\x01\x08\x01\xFF\x01", LinkError::NotUtf8);
    refused(b"\x01\x08\x01x\x02", LinkError::BadFlag);
    refused(b"\x01\x12\x00\x00\x02\x00", LinkError::BadFlag);
    // Send with a body of a kind that there is not.
    refused(b"\x01\x03\x01\x01x\x00\x00\x00\x00\x00\x00\x00\x04", LinkError::BadChoice);
    let all = [
        LinkError::Empty,
        LinkError::TooLong { size: 2, max: 1 },
        LinkError::BadVersion(2),
        LinkError::Truncated,
        LinkError::TrailingBytes,
        LinkError::OverlongInteger,
        LinkError::NotUtf8,
        LinkError::BadFlag,
        LinkError::BadChoice,
        LinkError::ZeroPacketId,
        LinkError::ZeroReceiveMax,
        LinkError::BadName("to"),
        LinkError::NulInString("app"),
        LinkError::BadTopic(TopicError::Empty),
        LinkError::BadOptions(3),
        LinkError::BadProperties(DecodeError::Truncated),
        LinkError::TopicAlias,
    ];
    let mut seen = std::collections::BTreeSet::new();
    for error in all {
        assert!(seen.insert(error.kind()) && seen.insert(error.to_string().leak()), "{error}");
    }
}

#[test]
fn fields() {
    illegal(&Up::Ack { packet_id: 0 }, LinkError::ZeroPacketId);
    illegal(&Up::Recall { packet_id: 0, to: "bob", seq: 1 }, LinkError::ZeroPacketId);
    illegal(&Up::Subscribe { packet_id: 0, filter: "a", options: 0 }, LinkError::ZeroPacketId);
    illegal(&Up::Unsubscribe { packet_id: 0, filter: "a" }, LinkError::ZeroPacketId);
    illegal(&Up::CancelCommand { packet_id: 0, to: "lamp", id: "c1" }, LinkError::ZeroPacketId);
    let zero = encoded(&Down::Accepted { packet_id: 0, seq: 1, dup: false });
    assert_eq!(whole::<Down>(&zero), Err(LinkError::ZeroPacketId));
    // No name becomes more than one level of a topic, or a wildcard.
    for to in ["", "a/msg", "+", "#", "a\0"] {
        illegal(&Up::Typing { to, on: true }, LinkError::BadName("to"));
        illegal(&Up::Stream { to: "a", name: to, payload: b"" }, LinkError::BadName("name"));
        illegal(&Up::CancelCommand { packet_id: 1, to: "a", id: to }, LinkError::BadName("id"));
    }
    illegal(&Up::Telemetry { topic: "a/+", payload: b"" }, LinkError::BadTopic(TopicError::WildcardInName));
    illegal(&Up::Request { packet_id: 1, path: "", payload: b"" }, LinkError::BadTopic(TopicError::Empty));
    illegal(&Up::Unsubscribe { packet_id: 1, filter: "" }, LinkError::BadTopic(TopicError::Empty));
    for options in [2, 3, 0x40, 0x31] {
        illegal(&Up::Subscribe { packet_id: 1, filter: "a", options }, LinkError::BadOptions(options));
    }
    let publish = |properties| Up::Publish { packet_id: 0, retain: false, topic: "a", properties, payload: b"" };
    illegal(&publish(b"\x23\x00\x01"), LinkError::TopicAlias);
    illegal(&publish(b"\x01\x02"), LinkError::BadProperties(DecodeError::PropertyOutOfRange));
    illegal(&publish(b"\x11\x00\x00\x00\x01"), LinkError::BadProperties(DecodeError::PropertyNotAllowed(0x11)));
    let hello = hello();
    let Up::Hello { level, schema, secret, .. } = hello else { panic!() };
    let with = |account, receive_max| Up::Hello {
        level,
        schema,
        account,
        secret,
        terminal: "",
        keep_alive_s: 0,
        expiry_s: 0,
        receive_max,
        frame_max: 0,
        clean: true,
        wants: 0,
        core_level: 0,
        platform: "",
        app: "",
    };
    illegal(&with("a\0", 1), LinkError::NulInString("account"));
    illegal(&with("a", 0), LinkError::ZeroReceiveMax);
    assert!(format!("{hello:?}").contains("secret: 2 bytes"), "a secret is not shown");
}

#[test]
fn a_frame_that_is_too_long_is_not_written() {
    let text = "x".repeat(65_600);
    let mut out = b"before".to_vec();
    let mut place = vec![0; 70_000];
    for (len, fits) in [(65_600 - 100, true), (65_600, false)] {
        let frame = Up::Edit {
            packet_id: 1,
            to: "b",
            seq: 1,
            kind: "",
            re: None,
            level: 0,
            fallback: "",
            body: Body::Text(&text[..len]),
        };
        let size = frame_size(&frame);
        assert_eq!(size, len + 14);
        let expect = |more| if fits { Ok(size + more) } else { Err(EncodeError::TooLong { size }) };
        assert_eq!(encode_to_slice(&frame, &mut place), expect(2));
        assert_eq!(datagram_to_slice(&frame, &mut place), expect(0));
        for form in 0..2 {
            out.truncate(6);
            let done = if form == 0 { encode(&frame, &mut out) } else { encode_datagram(&frame, &mut out) };
            assert_eq!((done.is_ok(), out.len() > 6), (fits, fits));
            assert_eq!(&out[..6], b"before");
        }
    }
}
