//! Will messages (3.1.2.5, 3.1.3.2, 3.14.4).

use super::common::*;
use std::time::{Duration, Instant};

/// A subscriber to a new topic, and that topic.
fn witness(version: Version) -> (Client, String) {
    let topic = unique("will/");
    let mut c = client(version);
    c.subscribe(&topic, 2);
    (c, topic)
}

/// The will is published when the connection ends without DISCONNECT, at its QoS [MQTT5-3.1.2-7] [MQTT5-3.1.2-8]
/// [MQTT5-3.1.2-14] [MQTT3-3.1.2-8] [MQTT3-3.1.2-16].
#[test]
fn will_is_published_when_the_connection_breaks() {
    for version in BOTH {
        for qos in 0..=2 {
            let (mut sub, topic) = witness(version);
            let will = Publish::new(&topic, "gone").qos(qos, 0);
            Connect::new(version, &unique("c")).will(will).to(broker()).cut();
            let got = sub.message();
            assert_eq!((got.text(), got.qos, got.retain), ("gone", qos, false));
            let mut late = client(version);
            late.subscribe(&topic, 0);
            late.quiet();
        }
    }
}

/// A normal DISCONNECT removes the will [MQTT5-3.1.2-10] [MQTT5-3.14.4-3] [MQTT3-3.1.2-10] [MQTT3-3.14.4-3].
#[test]
fn normal_disconnect_removes_the_will() {
    for version in BOTH {
        let (mut sub, topic) = witness(version);
        let connect = Connect::new(version, &unique("c")).will(Publish::new(&topic, "gone").qos(1, 0));
        connect.to(broker()).disconnect();
        sub.quiet();
        if version == V5 {
            connect.to(broker()).disconnect_with(0, &[]);
            sub.quiet();
        }
        connect.clone().to(broker()).cut();
        assert_eq!(sub.message().text(), "gone", "the same will without DISCONNECT");
        sub.quiet();
    }
}

/// DISCONNECT with 0x04, or with an error, publishes the will (3.14.2.1).
#[test]
fn disconnect_with_another_reason_publishes_the_will() {
    for code in [0x04, 0x80, 0x81, 0x82, 0x83, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99] {
        let (mut sub, topic) = witness(V5);
        let c = Connect::v5(&unique("c")).will(Publish::new(&topic, "gone").qos(1, 0)).to(broker());
        c.disconnect_with(code, &[]);
        assert_eq!(sub.message().text(), "gone", "{code:#04x}");
    }
}

/// A will with Will Retain becomes the retained message [MQTT5-3.1.2-15] [MQTT3-3.1.2-17].
#[test]
fn retained_will_is_retained() {
    for version in BOTH {
        let (mut sub, topic) = witness(version);
        let will = Publish::new(&topic, "gone").qos(1, 0).retain();
        Connect::new(version, &unique("c")).will(will).to(broker()).cut();
        let got = sub.message();
        assert_eq!((got.text(), got.retain), ("gone", false), "[MQTT5-3.3.1-12]");
        let mut late = client(version);
        late.subscribe(&topic, 1);
        let got = late.message();
        assert_eq!((got.text(), got.retain), ("gone", true));
        late.deliver(&Publish::new(&topic, "").qos(1, 0).retain());
    }
}

/// A retained will without a payload removes the retained message [MQTT5-3.1.2-15] [MQTT5-3.3.1-6].
#[test]
fn empty_retained_will_removes() {
    for version in BOTH {
        let (mut sub, topic) = witness(version);
        client(version).deliver(&Publish::new(&topic, "kept").qos(1, 0).retain());
        assert_eq!(sub.message().text(), "kept");
        let will = Publish::new(&topic, "").qos(1, 0).retain();
        Connect::new(version, &unique("c")).will(will).to(broker()).cut();
        assert_eq!(sub.message().payload, b"");
        let mut late = client(version);
        late.subscribe(&topic, 0);
        late.quiet();
    }
}

/// Protocol errors, keep alive and take-over end a connection too [MQTT5-3.1.2-8] [MQTT3-3.1.2-8].
#[test]
fn will_is_published_however_the_connection_ends() {
    for version in BOTH {
        let (mut sub, topic) = witness(version);
        let connect = Connect::new(version, &unique("c")).will(Publish::new(&topic, "gone").qos(1, 0));
        let mut c = connect.to(broker());
        c.send(&[0x00, 0]);
        c.closed();
        assert_eq!(sub.message().text(), "gone", "{version:?}: malformed packet");
        let mut c = connect.to(broker());
        c.send(&connect.bytes());
        c.closed();
        assert_eq!(sub.message().text(), "gone", "{version:?}: second CONNECT");
        let mut first = connect.to(broker());
        let second = connect.to(broker());
        first.closed();
        assert_eq!(sub.message().text(), "gone", "{version:?}: take-over");
        second.disconnect();
        sub.quiet();
        let mut c = connect.clone().keep_alive(1).to(broker());
        c.closed();
        assert_eq!(sub.message().text(), "gone", "{version:?}: keep alive");
    }
}

/// Properties of the will are those of its message; the delay is not sent (3.1.3.2) [MQTT5-3.1.3-10].
#[test]
fn will_properties_are_forwarded() {
    let (mut sub, topic) = witness(V5);
    let list = [
        prop::payload_format(1),
        prop::content_type("text/plain"),
        prop::response_topic("answers"),
        prop::correlation([1, 0, 255]),
        prop::user("b", "2"),
        prop::user("a", "1"),
        prop::user("b", "2"),
    ];
    let will =
        list.iter().fold(Publish::new(&topic, "gone").with(prop::message_expiry(100_u32)), |w, p| w.with(p.clone()));
    Connect::v5(&unique("c")).will(will.with(prop::will_delay(0_u32))).to(broker()).cut();
    let got = sub.message();
    assert!(matches!(got.props.number(prop::MESSAGE_EXPIRY), Some(95..=100)));
    for id in [prop::PAYLOAD_FORMAT, prop::CONTENT_TYPE, prop::RESPONSE_TOPIC, prop::CORRELATION] {
        let want = list.iter().find(|p| p.id == id);
        assert_eq!(got.props.0.iter().find(|p| p.id == id), want);
    }
    assert_eq!(got.props.users(), [("b", "2"), ("a", "1"), ("b", "2")], "[MQTT5-3.1.3-10]");
}

/// The will waits for its delay (3.1.3.2.2), and Will Delay 0 does not wait.
#[test]
fn will_waits_for_its_delay() {
    let (mut sub, topic) = witness(V5);
    let id = unique("c");
    let will = Publish::new(&topic, "gone").qos(1, 0).with(prop::will_delay(2_u32));
    let c = Connect::v5(&id).persistent().will(will).to(broker());
    let start = Instant::now();
    c.cut();
    sub.quiet();
    assert_eq!(sub.message().text(), "gone");
    let waited = start.elapsed();
    assert!(waited >= Duration::from_millis(1_900), "published {waited:?} after the end, wanted 2 s");
    sub.quiet();
    assert!(session_is_there(&id), "the session goes on");
    forget(&id);
}

/// A new connection to the session within the delay: the will is not sent [MQTT5-3.1.3-9].
#[test]
fn reconnecting_within_the_delay_keeps_the_will_back() {
    let (mut sub, topic) = witness(V5);
    let id = unique("c");
    let will = Publish::new(&topic, "gone").qos(1, 0).with(prop::will_delay(1_u32));
    Connect::v5(&id).persistent().will(will.clone()).to(broker()).cut();
    let c = Connect::v5(&id).persistent().to(broker());
    assert!(c.connack.present);
    let_pass(1_500);
    sub.quiet();
    drop(c);
    // A take-over is a new connection too.
    let mut first = Connect::v5(&id).persistent().will(will).to(broker());
    let second = Connect::v5(&id).persistent().to(broker());
    first.closed();
    let_pass(1_500);
    sub.quiet();
    second.disconnect();
    forget(&id);
}

/// When the session ends before the delay has passed, the will is published then [MQTT5-3.1.2-8] (3.1.3.2.2).
#[test]
fn end_of_the_session_ends_the_delay() {
    let (mut sub, topic) = witness(V5);
    let will = Publish::new(&topic, "gone").qos(1, 0).with(prop::will_delay(1_000_u32));
    // An interval of 0: the session ends with the connection.
    Connect::v5(&unique("c")).will(will.clone()).to(broker()).cut();
    assert_eq!(sub.message().text(), "gone");
    // DISCONNECT with 0x04 and an interval of 0.
    let c = Connect::v5(&unique("c")).persistent().will(will.clone()).to(broker());
    c.disconnect_with(0x04, &[prop::session_expiry(0_u32)]);
    assert_eq!(sub.message().text(), "gone");
    // A clean start of the same client ends the session it finds.
    let id = unique("c");
    Connect::v5(&id).persistent().will(will).to(broker()).cut();
    sub.quiet();
    let c = Connect::v5(&id).to(broker());
    assert_eq!(sub.message().text(), "gone");
    c.disconnect();
    sub.quiet();
}

/// A will is published once: it is gone from the session afterwards [MQTT5-3.1.2-10] [MQTT3-3.1.2-10].
#[test]
fn will_is_published_once() {
    for version in BOTH {
        let (mut sub, topic) = witness(version);
        let id = unique("c");
        let will = Publish::new(&topic, "gone").qos(1, 0);
        Connect::new(version, &id).persistent().will(will).to(broker()).cut();
        assert_eq!(sub.message().text(), "gone");
        Connect::new(version, &id).persistent().to(broker()).cut();
        let mut other = client(version);
        nothing_reaches(&mut other, &mut sub);
        forget(&id);
    }
}

/// A client that subscribes to its own will finds it queued in its session.
#[test]
fn own_will_is_queued_for_the_session() {
    for version in BOTH {
        let (mut sub, topic) = witness(version);
        let id = unique("c");
        let will = Publish::new(&topic, "it was me").qos(1, 0);
        let mut c = Connect::new(version, &id).persistent().will(will).to(broker());
        c.subscribe(&topic, 1);
        c.cut();
        assert_eq!(sub.message().text(), "it was me");
        let mut c = Connect::new(version, &id).persistent().to(broker());
        assert_eq!(c.message().text(), "it was me");
        drop(c);
        forget(&id);
    }
}

/// A connection without a will publishes none when it breaks [MQTT3-3.1.2-12], and neither does one that had none to
/// begin with on the same client identifier.
#[test]
fn connection_without_a_will_publishes_none() {
    for version in BOTH {
        let (mut sub, topic) = witness(version);
        let id = unique("c");
        Connect::new(version, &id).will(Publish::new(&topic, "gone").qos(1, 0)).to(broker()).disconnect();
        Connect::new(version, &id).to(broker()).cut();
        let mut other = client(version);
        nothing_reaches(&mut other, &mut sub);
    }
}

/// A connection that was refused has no will.
#[test]
fn refused_connection_has_no_will() {
    let (mut sub, topic) = witness(V5);
    let will = Publish::new(&topic, "gone").qos(1, 0);
    Connect::v311("").resume().will(will).refused(broker());
    sub.quiet();
}
