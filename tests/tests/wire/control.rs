//! PINGREQ, DISCONNECT, AUTH, keep alive (3.1.2.10, 3.12, 3.14, 3.15, 4.12).

use super::common::*;
use std::time::{Duration, Instant};

/// PINGREQ is answered [MQTT5-3.12.4-1] [MQTT3-3.12.4-1].
#[test]
fn pingreq_is_answered() {
    for version in BOTH {
        let mut c = client(version);
        c.send(&[0xC0, 0].repeat(100));
        for _ in 0..100 {
            assert_eq!(c.recv(), Packet::PingResp);
        }
    }
}

/// PINGREQ with a body, or other flags; acknowledgements with other flags or lengths [MQTT5-2.1.3-1] [MQTT5-3.6.1-1]
/// [MQTT5-3.14.1-1] [MQTT5-3.15.1-1] [MQTT5-2.2.1-3] [MQTT3-2.2.2-2] [MQTT3-3.6.1-1] [MQTT3-3.14.1-1].
#[test]
fn malformed_control_packets() {
    for version in BOTH {
        let mut cases: Vec<Vec<u8>> = vec![vec![0xC0, 1, 0], vec![0xC1, 0], vec![0xCF, 0]];
        for first in [0x40_u8, 0x50, 0x62, 0x70] {
            cases.push(vec![first, 0]);
            cases.push(vec![first, 1, 0]);
            cases.push(vec![first, 2, 0, 0]);
            cases.push(vec![first ^ 1, 2, 0, 1]);
            cases.push(vec![first ^ 2, 2, 0, 1]);
            cases.push(vec![first ^ 8, 2, 0, 1]);
            if version == V311 {
                cases.push(vec![first, 3, 0, 1, 0]);
            } else {
                // A reason code the packet may not carry; a property length that does not fit; trailing bytes.
                cases.push(vec![first, 3, 0, 1, 0x01]);
                cases.push(vec![first, 4, 0, 1, 0, 1]);
                cases.push(vec![first, 5, 0, 1, 0, 0, 0]);
                // Properties that do not belong, or come twice.
                cases.push(vec![first, 6, 0, 1, 0, 2, prop::PAYLOAD_FORMAT, 0]);
                cases.push(vec![first, 12, 0, 1, 0, 8, 0x1F, 0, 1, b'a', 0x1F, 0, 1, b'a']);
            }
        }
        for bytes in cases {
            let mut c = client(version);
            c.name = format!("{version:?} {bytes:02x?}");
            c.send(&bytes);
            c.thrown_out(&[0x81, 0x82]);
        }
    }
}

/// Acknowledgements in their long forms are understood: reason code, reason string, user properties.
#[test]
fn long_acknowledgements_are_understood() {
    let topic = unique("t/");
    let mut sub = client(V5);
    sub.subscribe(&topic, 2);
    let mut publisher = client(V5);
    let long = |kind: u8, id: u16, code: u8| {
        let mut body = id.to_be_bytes().to_vec();
        body.push(code);
        body.extend(props(&[prop::reason_string("all right"), prop::user("a", "1"), prop::user("a", "1")]));
        frame(kind, body)
    };
    publisher.say(1, &topic, "one");
    let got = sub.publish_packet();
    sub.send(&long(0x40, got.id, 0));
    publisher.say(2, &topic, "two");
    let got = sub.publish_packet();
    sub.send(&long(0x50, got.id, 0));
    assert_eq!(sub.await_ack(PubRel, got.id), 0);
    sub.send(&long(0x70, got.id, 0));
    publisher.publish(&Publish::new(&topic, "three").qos(2, 99));
    assert_eq!(publisher.await_ack(PubRec, 99), 0);
    publisher.send(&long(0x62, 99, 0));
    assert_eq!(publisher.await_ack(PubComp, 99), 0);
    assert_eq!(sub.message().text(), "three");
    sub.quiet();
    // A remaining length of 3 has a reason code and no property length.
    publisher.say(1, &topic, "four");
    let got = sub.publish_packet();
    sub.ack_code(PubAck, got.id, 0x80);
    sub.quiet();
}

/// DISCONNECT in all its forms closes the connection, and the server sends nothing more [MQTT5-3.14.4-1]
/// [MQTT5-3.14.4-2] [MQTT3-3.14.4-1].
#[test]
fn disconnect_closes() {
    client(V311).disconnect();
    for bytes in [
        vec![0xE0, 0],
        vec![0xE0, 1, 0],
        vec![0xE0, 2, 0, 0],
        frame(0xE0, [&[0], props(&[prop::reason_string("bye"), prop::user("a", "1")]).as_slice()].concat()),
    ] {
        let mut c = client(V5);
        c.send(&bytes);
        assert_eq!(c.closed(), []);
    }
}

/// Nothing behind DISCONNECT is processed [MQTT5-3.14.4-1] [MQTT3-3.14.4-2].
#[test]
fn packets_behind_disconnect_are_ignored() {
    for version in BOTH {
        let topic = unique("t/");
        let mut sub = client(version);
        sub.subscribe(&topic, 0);
        let mut c = client(version);
        let mut bytes = Publish::new(&topic, "before").bytes(version);
        bytes.extend([0xE0, 0]);
        bytes.extend(Publish::new(&topic, "behind").bytes(version));
        c.send(&bytes);
        assert_eq!(c.closed(), []);
        assert_eq!(sub.message().text(), "before");
        sub.quiet();
    }
}

/// Malformed DISCONNECT: flags, a body in 3.1.1, an unknown reason code, properties that do not belong
/// [MQTT5-3.14.1-1] [MQTT3-3.14.1-1] (3.14.2).
#[test]
fn malformed_disconnect() {
    let mut c = client(V311);
    c.send(&[0xE0, 1, 0]);
    c.thrown_out(&[]);
    for version in BOTH {
        let mut c = client(version);
        c.send(&[0xE1, 0]);
        c.thrown_out(&[0x81]);
    }
    for bytes in [
        vec![0xE0, 1, 0x01],
        vec![0xE0, 2, 0, 5],
        vec![0xE0, 3, 0, 0, 0],
        frame(0xE0, [&[0], props(&[prop::payload_format(1)]).as_slice()].concat()),
        frame(0xE0, [&[0], props(&[prop::reason_string("a"), prop::reason_string("b")]).as_slice()].concat()),
        frame(0xE0, [&[0], props(&[prop::session_expiry(0_u32), prop::session_expiry(0_u32)]).as_slice()].concat()),
    ] {
        let mut c = client(V5);
        c.name = format!("{bytes:02x?}");
        c.send(&bytes);
        c.thrown_out(&[0x81, 0x82]);
    }
}

/// Silence for one and a half times the keep alive ends the connection, not less; 0x8D in MQTT 5 [MQTT5-3.1.2-22]
/// [MQTT5-3.2.2-22] [MQTT3-3.1.2-24].
#[test]
fn silence_beyond_the_keep_alive_ends_the_connection() {
    let waits: Vec<_> = BOTH
        .into_iter()
        .map(|version| {
            std::thread::spawn(move || {
                let mut c = Connect::new(version, &unique("c")).keep_alive(2).to(broker());
                let start = Instant::now();
                c.thrown_out(&[0x8D]);
                let waited = start.elapsed();
                let range = Duration::from_millis(2_900)..Duration::from_secs(6);
                assert!(range.contains(&waited), "{version:?}: closed after {waited:?}, wanted 3 s");
            })
        })
        .collect();
    for wait in waits {
        wait.join().expect("the keep alive is kept");
    }
}

/// Any packet counts as a sign of life, deliveries to the client do not; a keep alive of 0 means none
/// [MQTT5-3.1.2-22] [MQTT3-3.1.2-24].
#[test]
fn signs_of_life_keep_the_connection() {
    let topic = unique("t/");
    let mut pinger = Connect::v5(&unique("c")).keep_alive(1).to(broker());
    let mut publisher = Connect::v311(&unique("c")).keep_alive(1).to(broker());
    let mut listener = Connect::v5(&unique("c")).keep_alive(1).to(broker());
    let mut free = Connect::v5(&unique("c")).keep_alive(0).to(broker());
    listener.subscribe(&topic, 0);
    for _ in 0..5 {
        let_pass(600);
        pinger.quiet();
        publisher.publish(&Publish::new(&topic, "x"));
    }
    publisher.quiet();
    free.quiet();
    let got = listener.closed();
    assert!(matches!(got.last(), Some(Packet::Disconnect { code: 0x8D, .. })), "{:?}", got.last());
}

/// AUTH where CONNECT had no Authentication Method is a protocol error [MQTT5-4.12.0-7] [MQTT5-4.12.1-1].
#[test]
fn auth_without_a_method_is_a_protocol_error() {
    for code in [0x00, 0x18, 0x19] {
        let mut c = client(V5);
        let mut body = vec![code];
        body.extend(props(&[prop::auth_method("SCRAM-SHA-256"), prop::auth_data("x")]));
        c.send(&frame(0xF0, body));
        c.thrown_out(&[0x82]);
    }
    let mut c = client(V5);
    c.send(&[0xF0, 0]);
    c.thrown_out(&[0x81, 0x82]);
}

/// A method the server does not know: 0x8C [MQTT5-4.12.0-1].
#[test]
fn unknown_authentication_method_is_refused() {
    for method in ["", "NO-SUCH-METHOD", "scram-sha-256 "] {
        let connect = Connect::v5(&unique("c")).with(prop::auth_method(method)).with(prop::auth_data("x"));
        assert_eq!(connect.refused(broker()), 0x8C, "{method:?}");
    }
}

/// Malformed AUTH [MQTT5-3.15.1-1] (3.15.2).
#[test]
fn malformed_auth() {
    for bytes in [vec![0xF1, 0], vec![0xF0, 1, 0x99], vec![0xF0, 2, 0x18, 9], vec![0xF8, 2, 0x18, 0]] {
        let mut c = client(V5);
        c.name = format!("{bytes:02x?}");
        c.send(&bytes);
        c.thrown_out(&[0x81, 0x82]);
    }
}

/// A server never sends a Session Expiry Interval in DISCONNECT [MQTT5-3.14.2-2]: the decoder of these tests refuses
/// it; here a DISCONNECT of each kind is provoked for a session that has one.
#[test]
fn server_disconnect_has_no_session_expiry() {
    let id = unique("c");
    for bytes in [vec![0x00, 0], vec![0xF0, 0], Publish::new("#", "").bytes(V5)] {
        let mut c = Connect::v5(&id).persistent().to(broker());
        c.send(&bytes);
        c.thrown_out(&[0x81, 0x82, 0x90]);
    }
    forget(&id);
}
