//! Chapters 3.1 and 3.2: CONNECT and CONNACK.

use super::common::*;
use std::collections::HashSet;

const MALFORMED: &[u8] = &[0x81];
const MALFORMED_OR_PROTOCOL: &[u8] = &[0x81, 0x82];

/// CONNACK comes first, with Session Present 0 after a clean start [MQTT5-3.1.4-4] [MQTT5-3.1.4-5] [MQTT5-3.2.0-1]
/// [MQTT5-3.2.2-1] [MQTT5-3.2.2-2] [MQTT3-3.1.4-3] [MQTT3-3.1.4-4] [MQTT3-3.2.0-1] [MQTT3-3.2.2-1].
#[test]
fn clean_start_is_accepted_without_a_session() {
    for version in BOTH {
        let mut c = client(version);
        assert!(!c.connack.present);
        c.quiet();
    }
}

/// The first packet has to be CONNECT, and no DISCONNECT is sent before CONNACK [MQTT5-3.1.0-1] [MQTT5-3.14.0-1]
/// [MQTT3-3.1.0-1].
#[test]
fn anything_before_connect_ends_the_connection() {
    let packets: [&[u8]; 14] = [
        &[0x20, 2, 0, 0],
        &[0x20, 3, 0, 0, 0],
        &[0x30, 4, 0, 1, b'a', 0],
        &[0x32, 6, 0, 1, b'a', 0, 1, 0],
        &[0x40, 2, 0, 1],
        &[0x50, 2, 0, 1],
        &[0x62, 2, 0, 1],
        &[0x70, 2, 0, 1],
        &[0x82, 7, 0, 1, 0, 0, 1, b'a', 0],
        &[0xA2, 6, 0, 1, 0, 0, 1, b'a'],
        &[0xC0, 0],
        &[0xE0, 0],
        &[0xF0, 0],
        b"GET / HTTP/1.1\r\n\r\n",
    ];
    for packet in packets {
        let mut c = Client::open(broker(), V5);
        c.name = format!("first packet {packet:02x?}");
        c.send(packet);
        match c.closed().as_slice() {
            [] => {}
            [Packet::ConnAck(ConnAck { code: 0x80.., .. })] => {}
            other => panic!("{}: the end expected, got {other:?}", c.name),
        }
    }
}

/// A second CONNECT is a protocol error [MQTT5-3.1.0-2] [MQTT5-3.2.0-2] [MQTT3-3.1.0-2].
#[test]
fn second_connect_ends_the_connection() {
    for version in BOTH {
        let connect = Connect::new(version, &unique("c"));
        let mut c = connect.to(broker());
        c.send(&connect.bytes());
        c.thrown_out(&[0x82]);
    }
}

/// A protocol level the server does not know: 0x84, or 0x01 for the levels before 5 [MQTT5-3.1.2-2] [MQTT3-3.1.2-2].
#[test]
fn unknown_protocol_level_is_told_the_reason() {
    for level in [6, 7, 0x7F, 0xFF] {
        assert_eq!(Connect::v5(&unique("c")).protocol("MQTT", level).refused(broker()), 0x84, "level {level}");
    }
    for level in [0, 1, 2, 3] {
        assert_eq!(Connect::v311(&unique("c")).protocol("MQTT", level).refused(broker()), 0x01, "level {level}");
    }
    assert_eq!(Connect::v311(&unique("c")).protocol("MQIsdp", 3).refused(broker()), 0x01);
}

/// Another protocol name is not let in [MQTT5-3.1.2-1] [MQTT3-3.1.2-1].
#[test]
fn unknown_protocol_name_is_not_let_in() {
    for version in BOTH {
        for name in ["", "MQT", "mqtt", "MQTTX", "HTTP", "MQIsdp"] {
            let level = if version == V5 { 5 } else { 4 };
            let mut c = Connect::new(version, &unique("c")).protocol(name, level).send_to(broker());
            // Which form a refusal has for a protocol that is not MQTT is up to the server.
            match c.rest().as_slice() {
                [] | [0x20, 2, 0, 1] | [0x20, 3, 0, 0x81 | 0x84, 0] => {}
                other => panic!("{version:?} {name:?}: refusal and the end expected, got {other:02x?}"),
            }
        }
    }
}

/// The reserved connect flag has to be 0 [MQTT5-3.1.2-3] [MQTT3-3.1.2-3].
#[test]
fn reserved_connect_flag_is_malformed() {
    for version in BOTH {
        not_let_in(Connect::new(version, &unique("c")).flip_flags(0x01).send_to(broker()), MALFORMED_OR_PROTOCOL);
    }
}

/// The reserved bits of the fixed header of CONNECT [MQTT5-2.1.3-1] [MQTT3-2.2.2-2].
#[test]
fn reserved_fixed_header_bits_of_connect_are_malformed() {
    for version in BOTH {
        for bit in [1, 2, 4, 8] {
            let mut bytes = Connect::new(version, &unique("c")).bytes();
            bytes[0] |= bit;
            let mut c = Client::open(broker(), version);
            c.name = format!("{version:?} bit {bit}");
            c.send(&bytes);
            match c.closed().as_slice() {
                [] => {}
                [Packet::ConnAck(ConnAck { code: 0x81 | 0x82, .. })] if version == V5 => {}
                other => panic!("{}: the end expected, got {other:?}", c.name),
            }
        }
    }
}

/// Will QoS and Will Retain are 0 without Will Flag; Will QoS is never 3 [MQTT5-3.1.2-11] [MQTT5-3.1.2-12]
/// [MQTT5-3.1.2-13] [MQTT3-3.1.2-11] [MQTT3-3.1.2-13] [MQTT3-3.1.2-14] [MQTT3-3.1.2-15].
#[test]
fn will_flags_that_contradict_are_malformed() {
    for version in BOTH {
        for bits in [0x08, 0x10, 0x18, 0x20] {
            not_let_in(Connect::new(version, &unique("c")).flip_flags(bits).send_to(broker()), MALFORMED_OR_PROTOCOL);
        }
        let will = Publish::new(&unique("will/"), "x").qos(3, 0);
        not_let_in(Connect::new(version, &unique("c")).will(will).send_to(broker()), MALFORMED_OR_PROTOCOL);
    }
}

/// Flags and payload agree: a field that is flagged is there, one that is not flagged is not [MQTT5-3.1.2-9]
/// [MQTT5-3.1.2-16] [MQTT5-3.1.2-17] [MQTT5-3.1.2-18] [MQTT5-3.1.2-19] [MQTT3-3.1.2-9] [MQTT3-3.1.2-18]
/// [MQTT3-3.1.2-19] [MQTT3-3.1.2-20] [MQTT3-3.1.2-21].
#[test]
fn flags_and_payload_have_to_agree() {
    for version in BOTH {
        let plain = Connect::new(version, &unique("c"));
        let full = plain.clone().username("name").password("secret").will(Publish::new("will", "x"));
        for (what, connect) in [
            ("user name missing", plain.clone().flip_flags(0x80)),
            ("password missing", plain.clone().username("name").flip_flags(0x40)),
            ("will missing", plain.clone().flip_flags(0x04)),
            ("user name and password not flagged", full.clone().flip_flags(0xC0)),
            ("password not flagged", full.clone().flip_flags(0x40)),
            ("bytes behind the end", plain.clone().trailing(&[0])),
            ("a field behind the end", full.trailing(&field("more"))),
        ] {
            let mut c = connect.send_to(broker());
            c.name = what.into();
            not_let_in(c, MALFORMED_OR_PROTOCOL);
        }
    }
}

/// A password needs a user name in 3.1.1 and does not in MQTT 5 [MQTT3-3.1.2-22].
#[test]
fn password_without_user_name() {
    not_let_in(Connect::v311(&unique("c")).password("secret").send_to(broker()), &[]);
    let c = Connect::v5(&unique("c")).password("secret").ask(broker());
    assert!([0x00, 0x86, 0x87].contains(&c.connack.code), "{:?}", c.connack);
}

/// A CONNECT that ends early, at any byte, is malformed: its fields are all there, in their order [MQTT5-3.1.3-1]
/// [MQTT5-3.1.3-3] [MQTT5-3.1.4-1] [MQTT5-4.13.1-1] [MQTT3-3.1.3-1] [MQTT3-3.1.3-3] [MQTT3-3.1.4-1] [MQTT3-4.8.0-1].
#[test]
fn connect_cut_anywhere_is_malformed() {
    for version in BOTH {
        let will = Publish::new("will", "x").with(prop::will_delay(1_u32));
        let connect =
            Connect::new(version, "cut").username("n").password("p").will(will).with(prop::receive_max(9_u16));
        let bytes = connect.bytes();
        assert!(bytes[1] < 0x80, "one byte of length");
        for end in 2..bytes.len() {
            let mut c = Client::open(broker(), version);
            c.name = format!("{version:?}: the first {end} of {} bytes", bytes.len());
            c.send(&frame(0x10, &bytes[2..end]));
            match c.closed().as_slice() {
                [] => {}
                [Packet::ConnAck(ConnAck { code: 0x80.., .. })] if version == V5 => {}
                other => panic!("{}: the end expected, got {other:?}", c.name),
            }
        }
    }
}

/// Without a client identifier the server assigns one that nobody has, and tells it [MQTT5-3.1.3-6] [MQTT5-3.1.3-7]
/// [MQTT5-3.2.2-16]. With Clean Start 0 that session can be resumed under it.
#[test]
fn empty_client_identifier_gets_a_unique_one() {
    let mut seen = HashSet::new();
    let mut kept = Vec::new();
    for _ in 0..5 {
        let c = Connect::v5("").to(broker());
        let id = c.connack.props.text(prop::ASSIGNED_CLIENT_ID).expect("[MQTT5-3.2.2-16]").to_owned();
        assert!(!id.is_empty() && seen.insert(id));
        kept.push(c);
    }
    let c = Connect::v5("").persistent().to(broker());
    assert!(!c.connack.present);
    let id = c.connack.props.text(prop::ASSIGNED_CLIENT_ID).expect("[MQTT5-3.2.2-16]").to_owned();
    c.disconnect();
    let c = Connect::v5(&id).persistent().to(broker());
    assert!(c.connack.present, "the session of the assigned identifier is resumed");
    assert!(!c.connack.props.has(prop::ASSIGNED_CLIENT_ID), "nothing is assigned to who has an identifier");
    c.disconnect_with(0, &[prop::session_expiry(0_u32)]);
}

/// 3.1.1: without a client identifier only with Clean Session; 0x02 otherwise, without Session Present, and the end
/// [MQTT3-3.1.3-6] [MQTT3-3.1.3-7] [MQTT3-3.1.3-8] [MQTT3-3.2.2-4] [MQTT3-3.2.2-5].
#[test]
fn empty_client_identifier_of_3_1_1() {
    let mut first = Connect::v311("").to(broker());
    let mut second = Connect::v311("").to(broker());
    first.quiet();
    second.quiet();
    assert_eq!(Connect::v311("").resume().refused(broker()), 0x02);
}

/// All identifiers of 1 to 23 letters and digits are allowed [MQTT5-3.1.3-5] [MQTT3-3.1.3-5]; longer ones and other
/// characters are allowed by this broker.
#[test]
fn client_identifiers_are_accepted() {
    for version in BOTH {
        let long = "x".repeat(1_000);
        for id in ["a", "0123456789abcdefghijklm", "nopqrstuvwxyzABCDEFGHIJ", "KLMNOPQRSTUVWXYZ", "ü/+# $日本", &long]
        {
            let mut c = Connect::new(version, id).to(broker());
            c.quiet();
            c.disconnect();
        }
    }
}

/// Strings of CONNECT have to be well-formed UTF-8 without U+0000 [MQTT5-1.5.4-1] [MQTT5-1.5.4-2] [MQTT5-3.1.3-4]
/// [MQTT5-3.1.3-11] [MQTT5-3.1.3-12] [MQTT3-1.5.3-1] [MQTT3-1.5.3-2] [MQTT3-3.1.3-4] [MQTT3-3.1.3-10] [MQTT3-3.1.3-11].
#[test]
fn strings_of_connect_have_to_be_utf_8() {
    let bad: [&[u8]; 6] =
        [&[0xFF], &[0xC0, 0x80], &[0xED, 0xA0, 0x80], &[0xF4, 0x90, 0x80, 0x80], &[b'a', 0, b'b'], &[0xE2, 0x82]];
    for version in BOTH {
        for bytes in bad {
            let plain = Connect::new(version, &unique("c"));
            not_let_in(plain.clone().client_id(bytes).send_to(broker()), &[0x81, 0x85]);
            not_let_in(plain.clone().username(bytes).send_to(broker()), MALFORMED);
            let good = plain.will(Publish::new("will/WILL", "x")).bytes();
            let at = good.windows(4).position(|w| w == b"WILL").expect("the will topic is there");
            let mut spoiled = good;
            spoiled[at..at + 4].copy_from_slice(&[bytes, b"____"].concat()[..4]);
            let mut c = Client::open(broker(), version);
            c.name = format!("{version:?} will topic with {bytes:02x?}");
            c.send(&spoiled);
            if !matches!(bytes, [0xE2, 0x82]) || version == V311 {
                not_let_in(c, &[0x81, 0x90]);
            } else {
                not_let_in(c, MALFORMED);
            }
        }
    }
}

/// A will topic is a topic name: not empty, without wildcards [MQTT5-4.7.0-1] [MQTT5-4.7.3-1] [MQTT3-4.7.1-1].
#[test]
fn will_topic_has_to_be_a_topic_name() {
    for version in BOTH {
        for topic in ["", "a/#", "a/+/b"] {
            let connect = Connect::new(version, &unique("c")).will(Publish::new(topic, "x"));
            let mut c = connect.send_to(broker());
            match c.closed().as_slice() {
                [] if version == V311 || lenient() => {}
                [Packet::ConnAck(ConnAck { code: 0x81 | 0x82 | 0x90, .. })] if version == V5 => {}
                other => panic!("{version:?} will topic {topic:?}: the end expected, got {other:?}"),
            }
        }
    }
}

/// Properties of CONNECT: known ones, allowed there, once each, with legal values (3.1.2.11, 2.2.2.2).
#[test]
fn properties_of_connect_are_checked() {
    let twice: Vec<Vec<Prop>> = [
        prop::session_expiry(1_u32),
        prop::receive_max(1_u16),
        prop::max_packet_size(1_000_u32),
        prop::topic_alias_max(1_u16),
        prop::request_response_info(1),
        prop::request_problem_info(1),
        prop::auth_method("m"),
    ]
    .into_iter()
    .map(|p| vec![p.clone(), p])
    .collect();
    let bad_values = [
        prop::receive_max(0_u16),
        prop::max_packet_size(0_u32),
        prop::request_response_info(2),
        prop::request_problem_info(2),
        prop::auth_data("data without a method"),
    ];
    let not_there = [
        prop::payload_format(0),
        prop::message_expiry(1_u32),
        prop::content_type("t"),
        prop::response_topic("t"),
        prop::correlation("c"),
        prop::subscription_id(1_u32),
        prop::assigned_client_id("c"),
        prop::server_keep_alive(1_u16),
        prop::will_delay(1_u32),
        prop::response_info("i"),
        prop::server_reference("s"),
        prop::reason_string("r"),
        prop::topic_alias(1_u16),
        prop::max_qos(1),
        prop::retain_available(1),
        prop::wildcard_available(1),
        prop::subscription_id_available(1),
        prop::shared_available(1),
        Prop { id: 0x00, value: Value::Byte(0) },
        Prop { id: 0x04, value: Value::Byte(0) },
        Prop { id: 0x7F, value: Value::Byte(0) },
        Prop { id: 0xFF, value: Value::Byte(0) },
    ];
    let lists = bad_values.into_iter().chain(not_there).map(|p| vec![p]).chain(twice);
    for list in lists {
        let connect = list.iter().fold(Connect::v5(&unique("c")), |c, p| c.with(p.clone()));
        let mut c = connect.send_to(broker());
        c.name = format!("{list:?}");
        not_let_in(c, MALFORMED_OR_PROTOCOL);
    }
    let mut c = Connect::v5(&unique("c")).with(prop::user("a", "1")).with(prop::user("a", "1")).to(broker());
    c.quiet();
}

/// Properties of the will (3.1.3.2).
#[test]
fn properties_of_the_will_are_checked() {
    let good = [
        prop::will_delay(1_u32),
        prop::payload_format(1),
        prop::message_expiry(1_u32),
        prop::content_type("t"),
        prop::response_topic("t"),
        prop::correlation("c"),
    ];
    for p in &good {
        let will = Publish::new("will/twice", "x").with(p.clone()).with(p.clone());
        let mut c = Connect::v5(&unique("c")).will(will).send_to(broker());
        c.name = format!("{p:?} twice");
        not_let_in(c, MALFORMED_OR_PROTOCOL);
    }
    for p in
        [prop::topic_alias(1_u16), prop::subscription_id(1_u32), prop::session_expiry(1_u32), prop::payload_format(2)]
    {
        let mut c = Connect::v5(&unique("c")).will(Publish::new("will/bad", "x").with(p.clone())).send_to(broker());
        c.name = format!("will with {p:?}");
        not_let_in(c, MALFORMED_OR_PROTOCOL);
    }
    let all = good.into_iter().fold(Publish::new(&unique("will/"), "x"), Publish::with);
    Connect::v5(&unique("c")).will(all.with(prop::user("a", "1"))).to(broker()).disconnect();
}

/// A property length beyond the packet, or in the middle of a property (2.2.2.1).
#[test]
fn property_length_of_connect_has_to_fit() {
    let id = unique("c");
    for length in [1, 4, 6, 40, 0x7F] {
        let mut body = field("MQTT");
        body.extend([5, 2, 0, 60, length, prop::SESSION_EXPIRY, 0, 0, 0, 0]);
        body.extend(field(&id));
        let mut c = Client::open(broker(), V5);
        c.name = format!("property length {length}");
        c.send(&frame(0x10, body));
        not_let_in(c, MALFORMED_OR_PROTOCOL);
    }
}

/// Properties in CONNACK that limit a client appear only where they do limit, and never with a forbidden value
/// (3.2.2.3); nothing that was not asked for is told [MQTT5-3.1.2-28] [MQTT5-4.12.0-6].
#[test]
fn connack_tells_only_what_limits() {
    let c = client(V5);
    let props = &c.connack.props;
    for id in [prop::MAX_QOS, prop::RETAIN_AVAILABLE, prop::WILDCARD_AVAILABLE] {
        assert!(!props.has(id), "{id:#04x} in {props:?}");
    }
    for id in [prop::SUBSCRIPTION_ID_AVAILABLE, prop::SHARED_AVAILABLE] {
        assert!(!props.has(id), "{id:#04x} in {props:?}");
    }
    assert_ne!(props.number(prop::RECEIVE_MAX), Some(0));
    assert_ne!(props.number(prop::MAX_PACKET_SIZE), Some(0));
    for id in
        [prop::RESPONSE_INFO, prop::AUTH_METHOD, prop::AUTH_DATA, prop::ASSIGNED_CLIENT_ID, prop::SERVER_REFERENCE]
    {
        assert!(!props.has(id), "{id:#04x} in {props:?}");
    }
    let asked = Connect::v5(&unique("c")).with(prop::request_response_info(0)).to(broker());
    assert!(!asked.connack.props.has(prop::RESPONSE_INFO), "[MQTT5-3.1.2-28]");
}

/// Request Response Information 1: the server may answer with a string, and one that can be used as part of a topic.
#[test]
fn response_information_is_part_of_a_topic() {
    let mut c = Connect::v5(&unique("c")).with(prop::request_response_info(1)).to(broker());
    if let Some(info) = c.connack.props.text(prop::RESPONSE_INFO).map(str::to_owned) {
        let topic = format!("{info}/{}", unique("r"));
        c.subscribe(&topic, 0);
        c.say(0, &topic, "answer");
        assert_eq!(c.message().text(), "answer");
    }
}

/// Clients may send packets behind CONNECT without waiting for CONNACK (3.1.4).
#[test]
fn packets_behind_connect_are_processed_after_it() {
    for version in BOTH {
        let topic = unique("t/");
        let mut c = Client::open(broker(), version);
        let mut bytes = Connect::new(version, &unique("c")).bytes();
        bytes.extend(c.subscribe_bytes(7, &[(&topic, 1)], &[]));
        bytes.extend(Publish::new(&topic, "early").qos(1, 8).bytes(version));
        bytes.extend([0xC0, 0]);
        c.send(&bytes);
        assert!(matches!(c.recv(), Packet::ConnAck(ConnAck { code: 0, .. })), "[MQTT5-3.2.0-1]");
        assert_eq!(c.await_suback(7), [1]);
        assert_eq!(c.await_ack(PubAck, 8) & 0x80, 0);
        let got = c.find("PUBLISH", |p| if let Packet::Publish(p) = p { Some(p.clone()) } else { None });
        assert_eq!(got.text(), "early");
    }
}

/// What follows a refused CONNECT is not processed [MQTT5-3.1.4-6] [MQTT3-3.1.4-5].
#[test]
fn packets_behind_a_refused_connect_are_ignored() {
    let topic = unique("t/");
    let mut sub = client(V5);
    sub.subscribe(&topic, 0);
    let mut c = Client::open(broker(), V311);
    let mut bytes = Connect::v311("").resume().bytes();
    bytes.extend(Publish::new(&topic, "should be ignored").bytes(V311));
    c.send(&bytes);
    assert!(matches!(c.closed().as_slice(), [Packet::ConnAck(ConnAck { code: 2, .. })]));
    sub.quiet();
}

/// Packet 0 is reserved, and so is AUTH in 3.1.1 [MQTT3-4.8.0-1] [MQTT5-4.13.1-1].
#[test]
fn packet_types_a_client_never_sends() {
    for version in BOTH {
        let mut types: Vec<Vec<u8>> = vec![
            vec![0x00, 0],
            Vec::from([0x20, 3, 0, 0, 0]),
            Vec::from([0x90, 4, 0, 1, 0, 0]),
            Vec::from([0xB0, 4, 0, 1, 0, 0]),
            vec![0xD0, 0],
        ];
        if version == V311 {
            types.push(vec![0xF0, 0]);
        }
        for bytes in types {
            let mut c = client(version);
            c.name = format!("{version:?} {bytes:02x?}");
            c.send(&bytes);
            c.thrown_out(&[0x81, 0x82]);
        }
    }
}
