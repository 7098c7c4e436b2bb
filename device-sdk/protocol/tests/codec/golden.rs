//! Packets byte by byte: the examples of both specifications, and one of each type in each version.

use crate::{encoded, framed, whole};
use parlor_protocol::mqtt::{
    Ack, Auth, ConnAck, Connect, Disconnect, Packet, PacketId, Properties, Property, Publish, QoS, ReasonCode,
    RetainHandling, SubAck, Subscribe, SubscribeFilters, SubscriptionOptions, UnsubAck, Unsubscribe,
    UnsubscribeFilters, Version, Version::V5, Version::V311, Will,
};

const TEN: u16 = 10;

fn ten() -> PacketId {
    PacketId::new(TEN).unwrap()
}

/// `bytes` are how `packet` is written, and mean nothing else.
fn check(version: Version, packet: &Packet<'_>, bytes: &[u8]) {
    assert_eq!(whole(bytes, version), Ok(*packet), "{bytes:02X?}");
    assert_eq!(encoded(packet, version), bytes, "{packet:?}");
}

/// `bytes` mean `packet`, which is written shorter.
fn check_long_form(version: Version, packet: &Packet<'_>, bytes: &[u8]) {
    assert_eq!(whole(bytes, version), Ok(*packet), "{bytes:02X?}");
    let short = encoded(packet, version);
    assert!(short.len() < bytes.len());
    assert_eq!(whole(&short, version), Ok(*packet));
}

#[test]
fn connect() {
    // The example of section 3.1.2 of both versions: user name, password, will with QoS 1, clean start, keep alive of ten seconds.
    let will =
        Will { qos: QoS::AtLeastOnce, retain: false, properties: Properties::EMPTY, topic: "w", payload: b"bye" };
    let packet = Connect {
        version: V311,
        clean_start: true,
        keep_alive_secs: 10,
        properties: Properties::EMPTY,
        client_id: "id",
        will: Some(will),
        username: Some("u"),
        password: Some(b"p"),
    };
    let head = b"\x00\x04MQTT\x04\xCE\x00\x0A";
    let payload = b"\x00\x02id\x00\x01w\x00\x03bye\x00\x01u\x00\x01p";
    check(V311, &Packet::Connect(packet), &framed(0x10, &[&head[..], payload].concat()));

    // That of 5.0 has a Session Expiry Interval of ten seconds; the Will gets properties too (section 3.1.3.2).
    let head = b"\x00\x04MQTT\x05\xCE\x00\x0A\x05\x11\x00\x00\x00\x0A";
    let payload = b"\x00\x02id\x07\x18\x00\x00\x00\x05\x01\x01\x00\x01w\x00\x03bye\x00\x01u\x00\x01p";
    let will = Will { properties: Properties::from_validated(b"\x18\0\0\0\x05\x01\x01"), ..will };
    let properties = Properties::from_validated(b"\x11\0\0\0\x0A");
    let five = Connect { version: V5, properties, will: Some(will), ..packet };
    check(V5, &Packet::Connect(five), &framed(0x10, &[&head[..], payload].concat()));
    assert_eq!(five.properties.session_expiry_interval_secs(), Some(10));
    assert_eq!(will.properties.will_delay_interval_secs(), Some(5));
    assert_eq!(will.properties.payload_format_indicator(), Some(true));

    // CONNECT brings its version, whatever the connection had before.
    let bare = b"\x10\x0C\x00\x04MQTT\x04\x02\x00\x00\x00\x00";
    assert_eq!(whole(bare, V5), whole(bare, V311));
    let Ok(Packet::Connect(bare)) = whole(bare, V5) else { panic!() };
    assert_eq!((bare.version, bare.client_id, bare.keep_alive_secs, bare.will), (V311, "", 0, None));

    // A password without a user name is new in 5.0 (section 3.1.2.9).
    let packet = b"\x10\x10\x00\x04MQTT\x05\x40\x00\x00\x00\x00\x00\x00\x01p";
    let Ok(Packet::Connect(connect)) = whole(packet, V311) else { panic!() };
    assert_eq!((connect.username, connect.password, connect.clean_start), (None, Some(&b"p"[..]), false));

    // All flags of a will [MQTT5-3.1.2-12] [MQTT3-3.1.2-14].
    for (flags, qos, retain) in [
        (0x04, QoS::AtMostOnce, false),
        (0x0C, QoS::AtLeastOnce, false),
        (0x14, QoS::ExactlyOnce, false),
        (0x34, QoS::ExactlyOnce, true),
        (0x24, QoS::AtMostOnce, true),
    ] {
        let head = [b"\x00\x04MQTT\x04", &[flags][..], b"\x00\x00\x00\x00\x00\x01w\x00\x00"].concat();
        let bytes = framed(0x10, &head);
        let Ok(Packet::Connect(connect)) = whole(&bytes, V311) else { panic!() };
        let will = connect.will.unwrap();
        assert_eq!((will.qos, will.retain, will.payload), (qos, retain, &b""[..]));
        assert_eq!(encoded(&Packet::Connect(connect), V311), bytes);
    }
}

#[test]
fn connack() {
    let mut packet = ConnAck { session_present: true, reason: ReasonCode::SUCCESS, properties: Properties::EMPTY };
    check(V311, &Packet::ConnAck(packet), b"\x20\x02\x01\x00");
    check(V5, &Packet::ConnAck(packet), b"\x20\x03\x01\x00\x00");
    packet.session_present = false;
    // Return codes (table 3.1 of 3.1.1).
    for (code, reason) in [
        (0, ReasonCode::SUCCESS),
        (1, ReasonCode::UNSUPPORTED_PROTOCOL_VERSION),
        (2, ReasonCode::CLIENT_IDENTIFIER_NOT_VALID),
        (3, ReasonCode::SERVER_UNAVAILABLE),
        (4, ReasonCode::BAD_USER_NAME_OR_PASSWORD),
        (5, ReasonCode::NOT_AUTHORIZED),
    ] {
        packet.reason = reason;
        check(V311, &Packet::ConnAck(packet), &[0x20, 0x02, 0x00, code]);
    }
    packet.reason = ReasonCode::SUCCESS;
    packet.properties = Properties::from_validated(b"\x21\x00\x14\x24\x01\x12\x00\x02id");
    check(V5, &Packet::ConnAck(packet), b"\x20\x0D\x00\x00\x0A\x21\x00\x14\x24\x01\x12\x00\x02id");
    assert_eq!(packet.properties.receive_maximum(), Some(20));
    assert_eq!(packet.properties.assigned_client_identifier(), Some("id"));
    // A refusal never says that a session is present [MQTT5-3.2.2-6] [MQTT3-3.2.2-4].
    let refusal = ConnAck { session_present: true, reason: ReasonCode::NOT_AUTHORIZED, properties: Properties::EMPTY };
    assert_eq!(encoded(&Packet::ConnAck(refusal), V311), b"\x20\x02\x00\x05");
    assert_eq!(encoded(&Packet::ConnAck(refusal), V5), b"\x20\x03\x00\x87\x00");
}

#[test]
fn publish() {
    // The example of section 3.3.2: topic a/b, packet identifier 10.
    let packet = Publish {
        dup: false,
        qos: QoS::AtLeastOnce,
        retain: false,
        topic: "a/b",
        packet_id: Some(ten()),
        properties: Properties::EMPTY,
        payload: b"",
    };
    check(V311, &Packet::Publish(packet), b"\x32\x07\x00\x03a/b\x00\x0A");
    check(V5, &Packet::Publish(packet), b"\x32\x08\x00\x03a/b\x00\x0A\x00");
    let most = Publish { qos: QoS::ExactlyOnce, dup: true, retain: true, payload: b"hi", ..packet };
    check(V311, &Packet::Publish(most), b"\x3D\x09\x00\x03a/b\x00\x0Ahi");
    // QoS 0 has no packet identifier [MQTT5-2.2.1-2] [MQTT3-2.3.1-5].
    let least = Publish { qos: QoS::AtMostOnce, retain: true, packet_id: None, payload: b"\0\xFF", ..packet };
    check(V311, &Packet::Publish(least), b"\x31\x07\x00\x03a/b\x00\xFF");
    check(V5, &Packet::Publish(least), b"\x31\x08\x00\x03a/b\x00\x00\xFF");
    // An alias stands for the topic (section 3.3.2.3.4).
    let alias = Publish { topic: "", properties: Properties::from_validated(b"\x23\x00\x07"), ..packet };
    check(V5, &Packet::Publish(alias), b"\x32\x08\x00\x00\x00\x0A\x03\x23\x00\x07");
    assert_eq!(alias.properties.topic_alias(), Some(7));
    // Several Subscription Identifiers, User Properties in order (sections 3.3.2.3.7 and 3.3.2.3.8).
    let list = b"\x26\x00\x01a\x00\x01b\x0B\x80\x01\x26\x00\x01a\x00\x01c\x0B\x02";
    let many = Publish { properties: Properties::from_validated(list), ..packet };
    check(V5, &Packet::Publish(many), &framed(0x32, &[b"\x00\x03a/b\x00\x0A\x13", &list[..]].concat()));
    let expect = [
        Property::UserProperty("a", "b"),
        Property::SubscriptionIdentifier(128),
        Property::UserProperty("a", "c"),
        Property::SubscriptionIdentifier(2),
    ];
    assert!(many.properties.iter().eq(expect));
}

#[test]
fn strings() {
    // Figure 1-2 of 5.0 (1.1 of 3.1.1): "A" and U+2A6D4.
    let packet = Publish {
        dup: false,
        qos: QoS::AtMostOnce,
        retain: false,
        topic: "A\u{2A6D4}",
        packet_id: None,
        properties: Properties::EMPTY,
        payload: b"",
    };
    check(V311, &Packet::Publish(packet), b"\x30\x07\x00\x05A\xF0\xAA\x9B\x94");
    // U+FEFF is kept wherever it stands [MQTT5-1.5.4-3] [MQTT3-1.5.3-3].
    let packet = Publish { topic: "\u{FEFF}a\u{FEFF}", ..packet };
    check(V5, &Packet::Publish(packet), b"\x30\x0A\x00\x07\xEF\xBB\xBFa\xEF\xBB\xBF\x00");
}

fn acknowledgement(first: u8, ack: Ack<'_>) -> Packet<'_> {
    match first {
        0x40 => Packet::PubAck(ack),
        0x50 => Packet::PubRec(ack),
        0x62 => Packet::PubRel(ack),
        _ => Packet::PubComp(ack),
    }
}

#[test]
fn acknowledgements() {
    for (first, code) in [(0x40, 0x97), (0x50, 0x10), (0x62, 0x92), (0x70, 0x92)] {
        let make = |ack| acknowledgement(first, ack);
        let ack = Ack { packet_id: ten(), reason: ReasonCode::SUCCESS, properties: Properties::EMPTY };
        check(V311, &make(ack), &[first, 0x02, 0x00, 0x0A]);
        check(V5, &make(ack), &[first, 0x02, 0x00, 0x0A]);
        // Reason and Property Length may be left out, the latter on its own too (sections 3.4.2.1 and 3.4.2.2.1).
        check_long_form(V5, &make(ack), &[first, 0x03, 0x00, 0x0A, 0x00]);
        check_long_form(V5, &make(ack), &[first, 0x04, 0x00, 0x0A, 0x00, 0x00]);
        let failed = Ack { reason: ReasonCode(code), ..ack };
        check(V5, &make(failed), &[first, 0x03, 0x00, 0x0A, code]);
        check_long_form(V5, &make(failed), &[first, 0x04, 0x00, 0x0A, code, 0x00]);
        // 3.1.1 has no place for either.
        assert_eq!(encoded(&make(failed), V311), [first, 0x02, 0x00, 0x0A]);
        let told = Ack { properties: Properties::from_validated(b"\x1F\x00\x02no"), ..failed };
        check(V5, &make(told), &[&[first, 0x09, 0x00, 0x0A, code, 0x05], &b"\x1F\x00\x02no"[..]].concat());
        let why = Ack { properties: told.properties, ..ack };
        check(V5, &make(why), &[&[first, 0x09, 0x00, 0x0A, 0x00, 0x05], &b"\x1F\x00\x02no"[..]].concat());
    }
}

#[test]
fn subscribe() {
    // The example of section 3.8: a/b with QoS 1, c/d with QoS 2, packet identifier 10.
    let filters = [
        ("a/b", SubscriptionOptions::at_most(QoS::AtLeastOnce)),
        ("c/d", SubscriptionOptions::at_most(QoS::ExactlyOnce)),
    ];
    let filters = SubscribeFilters::from_slice(&filters);
    let packet = Packet::Subscribe(Subscribe { packet_id: ten(), properties: Properties::EMPTY, filters });
    check(V311, &packet, b"\x82\x0E\x00\x0A\x00\x03a/b\x01\x00\x03c/d\x02");
    check(V5, &packet, b"\x82\x0F\x00\x0A\x00\x00\x03a/b\x01\x00\x03c/d\x02");

    // Every legal option byte of 5.0 (section 3.8.3.1).
    let mut legal = 0;
    for bits in 0..=0xFF {
        let Ok(options) = SubscriptionOptions::from_bits(bits, V5) else { continue };
        legal += 1;
        assert_eq!(options.to_bits(), bits);
        assert_eq!((options.qos as u8, options.no_local), (bits & 3, bits & 4 != 0));
        assert_eq!((options.retain_as_published, options.retain_handling as u8), (bits & 8 != 0, bits >> 4));
    }
    assert_eq!(legal, 3 * 2 * 2 * 3);
    // 3.1.1 takes the QoS from it and nothing else.
    let options = SubscriptionOptions {
        qos: QoS::AtLeastOnce,
        no_local: true,
        retain_as_published: true,
        retain_handling: RetainHandling::DoNotSend,
    };
    let filters = [("a", options)];
    let filters = SubscribeFilters::from_slice(&filters);
    let packet = Packet::Subscribe(Subscribe { packet_id: ten(), properties: Properties::EMPTY, filters });
    assert_eq!(encoded(&packet, V311), b"\x82\x06\x00\x0A\x00\x01a\x01");
    check(V5, &packet, b"\x82\x07\x00\x0A\x00\x00\x01a\x2D");
}

#[test]
fn suback() {
    // The example of section 3.9.3 of 3.1.1: QoS 0, QoS 2, failure.
    let packet = SubAck { packet_id: ten(), properties: Properties::EMPTY, reasons: &[0x00, 0x02, 0x80] };
    check(V311, &Packet::SubAck(packet), b"\x90\x05\x00\x0A\x00\x02\x80");
    check(V5, &Packet::SubAck(packet), b"\x90\x06\x00\x0A\x00\x00\x02\x80");
    // Every code of section 3.9.3; 3.1.1 knows one failure [MQTT3-3.9.3-2].
    let reasons = [0x00, 0x01, 0x02, 0x80, 0x83, 0x87, 0x8F, 0x91, 0x97, 0x9E, 0xA1, 0xA2];
    let packet = Packet::SubAck(SubAck { reasons: &reasons, ..packet });
    check(V5, &packet, &framed(0x90, &[&[0x00, 0x0A, 0x00], &reasons[..]].concat()));
    let failed = [0x80; 9];
    assert_eq!(encoded(&packet, V311), framed(0x90, &[&[0x00, 0x0A, 0x00, 0x01, 0x02], &failed[..]].concat()));
}

#[test]
fn unsubscribe() {
    // The example of section 3.10: a/b and c/d.
    let filters = UnsubscribeFilters::from_slice(&["a/b", "c/d"]);
    let packet = Packet::Unsubscribe(Unsubscribe { packet_id: ten(), properties: Properties::EMPTY, filters });
    check(V311, &packet, b"\xA2\x0C\x00\x0A\x00\x03a/b\x00\x03c/d");
    check(V5, &packet, b"\xA2\x0D\x00\x0A\x00\x00\x03a/b\x00\x03c/d");
}

#[test]
fn unsuback() {
    let none = Packet::UnsubAck(UnsubAck { packet_id: ten(), properties: Properties::EMPTY, reasons: &[] });
    check(V311, &none, b"\xB0\x02\x00\x0A");
    // Every code of section 3.11.3.
    let reasons = [0x00, 0x11, 0x80, 0x83, 0x87, 0x8F, 0x91];
    let packet = Packet::UnsubAck(UnsubAck { packet_id: ten(), properties: Properties::EMPTY, reasons: &reasons });
    check(V5, &packet, b"\xB0\x0A\x00\x0A\x00\x00\x11\x80\x83\x87\x8F\x91");
    assert_eq!(encoded(&packet, V311), b"\xB0\x02\x00\x0A");
}

#[test]
fn pings() {
    for version in crate::BOTH {
        check(version, &Packet::PingReq, b"\xC0\x00");
        check(version, &Packet::PingResp, b"\xD0\x00");
    }
}

#[test]
fn disconnect() {
    let normal = Disconnect { reason: ReasonCode::SUCCESS, properties: Properties::EMPTY };
    check(V311, &Packet::Disconnect(normal), b"\xE0\x00");
    check(V5, &Packet::Disconnect(normal), b"\xE0\x00");
    // Sections 3.14.2.1 and 3.14.2.2.1: either may be left out.
    check_long_form(V5, &Packet::Disconnect(normal), b"\xE0\x01\x00");
    check_long_form(V5, &Packet::Disconnect(normal), b"\xE0\x02\x00\x00");
    let will = Disconnect { reason: ReasonCode::DISCONNECT_WITH_WILL, ..normal };
    check(V5, &Packet::Disconnect(will), b"\xE0\x01\x04");
    assert_eq!(encoded(&Packet::Disconnect(will), V311), b"\xE0\x00");
    // The example of section 3.14.2 has a Session Expiry Interval.
    let kept = Disconnect { properties: Properties::from_validated(b"\x11\x00\x00\x00\x00"), ..normal };
    check(V5, &Packet::Disconnect(kept), b"\xE0\x07\x00\x05\x11\x00\x00\x00\x00");
}

#[test]
fn auth() {
    // Section 3.15.2.1: success without properties has no bytes.
    let done = Auth { reason: ReasonCode::SUCCESS, properties: Properties::EMPTY };
    check(V5, &Packet::Auth(done), b"\xF0\x00");
    check_long_form(V5, &Packet::Auth(done), b"\xF0\x02\x00\x00");
    let step = Auth {
        reason: ReasonCode::CONTINUE_AUTHENTICATION,
        properties: Properties::from_validated(b"\x15\x00\x01m\x16\x00\x02\x00\xFF"),
    };
    check(V5, &Packet::Auth(step), b"\xF0\x0B\x18\x09\x15\x00\x01m\x16\x00\x02\x00\xFF");
    assert_eq!(step.properties.authentication_data(), Some(&b"\x00\xFF"[..]));
    // Nothing but the Property Length ends an AUTH that has a reason [MQTT5-2.2.2-1].
    let odd = Auth { reason: ReasonCode::RE_AUTHENTICATE, properties: Properties::EMPTY };
    assert_eq!(encoded(&Packet::Auth(odd), V5), b"\xF0\x02\x19\x00");
}
