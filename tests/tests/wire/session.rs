//! Sessions: clean start, expiry, resumption, take-over (3.1.2.4, 3.1.2.11.2, 3.1.4, 3.14.2.2.2, 4.1).

use super::common::*;

/// Session Present tells whether there was state [MQTT5-3.1.2-5] [MQTT5-3.1.2-6] [MQTT5-3.2.2-3] [MQTT3-3.1.2-4]
/// [MQTT3-3.2.2-2] [MQTT3-3.2.2-3].
#[test]
fn session_present_is_told() {
    for version in BOTH {
        let id = unique("s");
        let persistent = Connect::new(version, &id).persistent();
        for present in [false, true, true] {
            let c = persistent.to(broker());
            assert_eq!(c.connack.present, present, "{version:?}");
            c.disconnect();
        }
        persistent.to(broker()).cut();
        let c = persistent.to(broker());
        assert!(c.connack.present, "{version:?}: a cut connection leaves the session too");
        drop(c);
        forget(&id);
    }
}

/// A clean start discards the session and its subscriptions and messages [MQTT5-3.1.2-4] [MQTT5-3.1.4-4] [MQTT5-3.2.2-2]
/// [MQTT3-3.1.2-6] [MQTT3-3.1.4-3] [MQTT3-3.2.2-1].
#[test]
fn clean_start_discards_the_session() {
    for version in BOTH {
        let (id, topic) = (unique("s"), unique("t/"));
        absent_subscriber(version, &id, &topic, 1);
        let mut publisher = client(version);
        publisher.say(1, &topic, "queued");
        let mut c = Connect::new(version, &id).to(broker());
        assert!(!c.connack.present);
        publisher.say(1, &topic, "after");
        nothing_reaches(&mut publisher, &mut c);
        c.disconnect();
        let mut c = Connect::new(version, &id).persistent().to(broker());
        assert!(!c.connack.present, "{version:?}: the clean session ended with its connection");
        publisher.say(1, &topic, "later");
        nothing_reaches(&mut publisher, &mut c);
        drop(c);
        forget(&id);
    }
}

/// Subscriptions and QoS 1 and 2 messages of a session survive its connection, in order [MQTT5-3.1.2-23]
/// [MQTT5-4.1.0-1] [MQTT5-4.5.0-1] [MQTT3-3.1.2-5] [MQTT3-4.1.0-1] [MQTT3-4.5.0-1].
#[test]
fn messages_wait_for_an_absent_client() {
    for version in BOTH {
        let (id, topic) = (unique("s"), unique("t/"));
        absent_subscriber(version, &id, &format!("{topic}/+"), 2);
        let mut publisher = client(version);
        for n in 0..50 {
            publisher.say(1 + n % 2, &format!("{topic}/{}", n % 2), n.to_string());
        }
        let mut c = Connect::new(version, &id).persistent().to(broker());
        assert!(c.connack.present);
        let mut got: [Vec<u8>; 2] = Default::default();
        for _ in 0..50 {
            let message = c.message();
            let n: u8 = message.text().parse().expect("a number");
            assert_eq!(message.qos, 1 + n % 2);
            assert!(!message.retain);
            got[usize::from(n % 2)].push(n);
        }
        for (parity, got) in got.iter().enumerate() {
            let want: Vec<u8> = (0..50).filter(|n| usize::from(n % 2) == parity).collect();
            assert_eq!(*got, want, "[MQTT5-4.6.0-6]");
        }
        c.quiet();
        publisher.say(1, &format!("{topic}/x"), "live");
        assert_eq!(c.message().text(), "live");
        drop(c);
        forget(&id);
    }
}

/// Clean Start begins a new session, and the interval says how long that one is kept [MQTT5-3.1.2-4] [MQTT5-3.1.2-6].
#[test]
fn clean_start_begins_a_session_that_is_kept() {
    let (id, topic) = (unique("s"), unique("t/"));
    let connect = Connect::v5(&id).with(prop::session_expiry(3_600_u32));
    let mut c = connect.to(broker());
    c.subscribe(&topic, 1);
    c.disconnect();
    client(V5).say(1, &topic, "queued");
    let mut c = Connect::v5(&id).persistent().to(broker());
    assert!(c.connack.present);
    assert_eq!(c.message().text(), "queued");
    c.disconnect();
    let mut c = connect.to(broker());
    assert!(!c.connack.present);
    client(V5).say(1, &topic, "no subscription");
    c.quiet();
    drop(c);
    forget(&id);
}

/// Without a Session Expiry Interval, or with 0, the session ends with the connection [MQTT5-4.1.0-2].
#[test]
fn session_without_expiry_ends_with_the_connection() {
    for connect in
        [Connect::v5(&unique("s")).resume(), Connect::v5(&unique("s")).resume().with(prop::session_expiry(0_u32))]
    {
        let mut c = connect.to(broker());
        c.subscribe(&unique("t/"), 1);
        c.cut();
        assert!(!connect.to(broker()).connack.present);
        let c = connect.to(broker());
        assert!(!c.connack.present, "taken over, and still not kept");
    }
}

/// The session is discarded when its interval has passed, and its will is published then at the latest
/// [MQTT5-4.1.0-2] [MQTT5-3.1.2-8].
#[test]
fn session_ends_when_its_interval_has_passed() {
    let (id, topic) = (unique("s"), unique("t/"));
    let mut witness = client(V5);
    witness.subscribe(&topic, 0);
    let will = Publish::new(&topic, "session ended").with(prop::will_delay(1_000_u32));
    let c = Connect::v5(&id).resume().with(prop::session_expiry(1_u32)).will(will).to(broker());
    c.cut();
    witness.quiet();
    assert_eq!(witness.message().text(), "session ended");
    assert!(!session_is_there(&id));
    forget(&id);
}

/// DISCONNECT may change the interval: to 0, and to a longer one (3.14.2.2.2).
#[test]
fn disconnect_changes_the_interval() {
    let (ends, stays) = (unique("s"), unique("s"));
    let c = Connect::v5(&ends).persistent().to(broker());
    c.disconnect_with(0, &[prop::session_expiry(0_u32)]);
    assert!(!session_is_there(&ends));
    let c = Connect::v5(&stays).resume().with(prop::session_expiry(1_u32)).to(broker());
    c.disconnect_with(0, &[prop::session_expiry(3_600_u32)]);
    let_pass(2_200);
    assert!(session_is_there(&stays));
    forget(&ends);
    forget(&stays);
}

/// An interval of 0 cannot be raised in DISCONNECT: protocol error (3.14.2.2.2).
#[test]
fn disconnect_does_not_raise_an_interval_of_zero() {
    for connect in [Connect::v5(&unique("s")), Connect::v5(&unique("s")).with(prop::session_expiry(0_u32))] {
        let mut c = connect.to(broker());
        let mut body = vec![0];
        body.extend(props(&[prop::session_expiry(10_u32)]));
        c.send(&frame(0xE0, body));
        c.thrown_out(&[0x82]);
        assert!(!connect.resume().to(broker()).connack.present);
    }
}

/// A later CONNECT counts: a session resumed with an interval of 0 ends with that connection.
#[test]
fn interval_of_the_last_connect_counts() {
    let id = unique("s");
    Connect::v5(&id).persistent().to(broker()).disconnect();
    let c = Connect::v5(&id).resume().to(broker());
    assert!(c.connack.present);
    c.disconnect();
    assert!(!session_is_there(&id));
    forget(&id);
}

/// A second connection with the same identifier takes over; the first is told 0x8E [MQTT5-3.1.4-3] [MQTT3-3.1.4-2].
#[test]
fn second_connection_takes_over() {
    for old in BOTH {
        for new in BOTH {
            let (id, topic) = (unique("s"), unique("t/"));
            let mut first = Connect::new(old, &id).persistent().to(broker());
            first.subscribe(&topic, 1);
            let mut second = Connect::new(new, &id).persistent().to(broker());
            first.thrown_out(&[0x8E]);
            assert!(second.connack.present, "{old:?} {new:?}");
            client(V5).say(1, &topic, "to the second");
            assert_eq!(second.message().text(), "to the second");
            let mut third = Connect::new(new, &id).to(broker());
            assert!(!third.connack.present);
            second.thrown_out(&[0x8E]);
            third.quiet();
        }
    }
}

/// A storm of connections with one identifier leaves the last one alive and nobody else.
#[test]
fn last_of_many_connections_stays() {
    let id = unique("s");
    let all: Vec<Client> = (0..40).map(|_| Connect::v5(&id).persistent().send_to(broker())).collect();
    let mut alive = 0;
    for mut c in all {
        match c.try_recv(PATIENCE) {
            Ok(Packet::ConnAck(ConnAck { code: 0, .. })) => {}
            // Taken over before it was answered.
            Err(Lost::Closed) => continue,
            other => panic!("{other:?}"),
        }
        c.send(&[0xC0, 0]);
        match c.try_recv(PATIENCE) {
            Ok(Packet::PingResp) => match c.try_recv(std::time::Duration::from_millis(20)) {
                Err(Lost::Late) => alive += 1,
                other => {
                    assert!(
                        matches!(other, Err(Lost::Closed) | Ok(Packet::Disconnect { code: 0x8E, .. })),
                        "{other:?}"
                    );
                }
            },
            Ok(Packet::Disconnect { code: 0x8E, .. }) | Err(Lost::Closed) => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(alive, 1);
    forget(&id);
}

/// A session belongs to its client identifier, whatever version it speaks [MQTT5-3.1.3-2] [MQTT3-3.1.3-2].
#[test]
fn session_passes_between_versions() {
    let (id, topic) = (unique("s"), unique("t/"));
    absent_subscriber(V311, &id, &topic, 1);
    client(V5).deliver(&Publish::new(&topic, "one").qos(1, 0).with(prop::content_type("text")));
    let mut c = Connect::v5(&id).persistent().to(broker());
    assert!(c.connack.present);
    let got = c.message();
    assert_eq!((got.text(), got.props.text(prop::CONTENT_TYPE)), ("one", Some("text")));
    c.disconnect();
    client(V5).deliver(&Publish::new(&topic, "two").qos(1, 0).with(prop::content_type("text")));
    let mut c = Connect::v311(&id).persistent().to(broker());
    assert!(c.connack.present);
    assert_eq!(c.message().text(), "two");
    drop(c);
    forget(&id);
}

/// Retained messages are no part of a session [MQTT3-3.1.2-7].
#[test]
fn retained_messages_outlive_the_session() {
    let topic = unique("t/");
    let mut c = client(V311);
    c.deliver(&Publish::new(&topic, "kept").qos(1, 0).retain());
    c.disconnect();
    let mut c = client(V311);
    c.subscribe(&topic, 0);
    assert_eq!(c.message().text(), "kept");
    c.deliver(&Publish::new(&topic, "").qos(1, 0).retain());
}

/// Unsubscribing while messages wait: what is queued may still come, nothing new does [MQTT5-3.10.4-2]
/// [MQTT3-3.10.4-2].
#[test]
fn absent_session_keeps_no_subscription_it_has_left() {
    for version in BOTH {
        let (id, topic) = (unique("s"), unique("t/"));
        let mut c = Connect::new(version, &id).persistent().to(broker());
        c.subscribe(&topic, 1);
        c.unsubscribe(&[&topic]);
        c.disconnect();
        let mut publisher = client(version);
        publisher.say(1, &topic, "not for it");
        let mut c = Connect::new(version, &id).persistent().to(broker());
        assert!(c.connack.present);
        c.quiet();
        drop(c);
        forget(&id);
    }
}
