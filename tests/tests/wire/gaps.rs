//! Statements that no other chapter shows on its own.

use super::common::*;
use parlor_tests::server::NO_ANONYMOUS;

/// The fields of CONNECT are read in their order: client identifier, will topic, will message, user name, password; in
/// another order the same words are no credentials [MQTT5-3.1.3-1] [MQTT5-3.1.3-3] [MQTT3-3.1.3-1] [MQTT3-3.1.3-3].
#[test]
fn fields_of_connect_have_their_order() {
    let Some(own) = Broker::own(&["--set", NO_ANONYMOUS]) else { return };
    own.add_account("alice", "wonderland");
    for version in BOTH {
        let guest = || Connect::new(version, &unique("c")).username("alice").password("wonderland");
        let mut witness = guest().to(&own);
        witness.subscribe("will/of/alice", 1);
        let id = unique("first");
        guest().client_id(&id).will(Publish::new("will/of/alice", "message")).to(&own).cut();
        let got = witness.message();
        assert_eq!((got.topic.as_str(), got.text()), ("will/of/alice", "message"));
        // The identifier stands first: under it the session is found.
        guest().client_id(&id).persistent().to(&own).disconnect();
        assert!(guest().client_id(&id).persistent().to(&own).connack.present);
        let swapped = Connect::new(version, &id).username("wonderland").password("alice");
        assert!([0x86, 0x87, 4, 5].contains(&swapped.refused(&own)));
    }
}

/// Without Will Flag nothing is published, however the connection ends [MQTT3-3.1.2-12].
#[test]
fn no_will_is_published_where_none_was_left() {
    for version in BOTH {
        let mut witness = client(version);
        let topic = unique("t/");
        witness.subscribe(&format!("{topic}/#"), 1);
        let id = unique("c");
        // A will of an earlier connection is gone with it.
        let will = Publish::new(&format!("{topic}/will"), "gone").qos(1, 0);
        Connect::new(version, &id).will(will).to(broker()).disconnect();
        Connect::new(version, &id).to(broker()).cut();
        witness.quiet();
    }
}

/// Messages a client has not answered have different identifiers that are not 0, come first without DUP, and stay
/// unanswered until PUBACK or PUBREC: on resumption they come again with DUP, under the same identifiers and in the same
/// order [MQTT5-4.3.2-1] [MQTT5-4.3.2-2] [MQTT5-4.3.2-3] [MQTT5-4.3.3-1] [MQTT5-4.3.3-2] [MQTT5-4.3.3-3]
/// [MQTT3-4.3.2-1] [MQTT3-4.3.3-1].
#[test]
fn unanswered_messages_keep_their_identifiers() {
    for (version, qos) in [(V311, 1), (V311, 2), (V5, 1), (V5, 2)] {
        let (id, topic) = (unique("s"), unique("t/"));
        let mut sub = Connect::new(version, &id).persistent().to(broker());
        sub.subscribe(&topic, qos);
        let mut publisher = client(version);
        for n in 0..5 {
            publisher.say(qos, &topic, n.to_string());
        }
        let first: Vec<Publish> = (0..5).map(|_| sub.publish_packet()).collect();
        for (n, got) in first.iter().enumerate() {
            assert_eq!((got.text(), got.qos, got.dup), (n.to_string().as_str(), qos, false));
            assert!(got.id != 0 && first[..n].iter().all(|earlier| earlier.id != got.id), "{first:?}");
        }
        sub.cut();
        let mut sub = Connect::new(version, &id).persistent().to(broker());
        for want in &first {
            let got = sub.publish_packet();
            assert_eq!((got.id, got.text(), got.dup), (want.id, want.text(), true));
        }
        for got in &first {
            sub.finish(got);
        }
        sub.quiet();
        drop(sub);
        forget(&id);
    }
}

/// A session does not end before its connection, however short its Session Expiry Interval [MQTT5-4.1.0-1]
/// [MQTT3-4.1.0-2].
#[test]
fn session_lasts_as_long_as_its_connection() {
    let topic = unique("t/");
    let mut short = Connect::v5(&unique("c")).with(prop::session_expiry(1_u32)).to(broker());
    let mut transient = client(V311);
    short.subscribe(&topic, 1);
    transient.subscribe(&topic, 1);
    let_pass(2_200);
    client(V5).say(1, &topic, "still there");
    assert_eq!(short.message().text(), "still there");
    assert_eq!(transient.message().text(), "still there");
}

/// A reason string never makes PUBREC too large: it is left out [MQTT5-3.5.2-2].
#[test]
fn reason_string_of_pubrec_fits() {
    for most in [20_u32, 40, 70, 100] {
        let connect = Connect::v5(&unique("c")).with(prop::max_packet_size(most));
        let mut c = connect.send_to(broker());
        // A broker whose CONNACK does not fit closes instead.
        if c.try_recv(PATIENCE).is_err() {
            continue;
        }
        c.send(&Publish::new("$SYS/refused", "x").qos(2, 7).bytes(V5));
        let mut head = [0; 2];
        std::io::Read::read_exact(&mut c.stream(), &mut head).expect("an answer");
        assert_eq!(head[0], 0x50);
        assert!(u32::from(head[1]) + 2 <= most, "{head:02x?} of {most}");
    }
}

/// A Topic Alias that comes with a repeated PUBLISH is accepted like any other: after a reconnect the repetition is where
/// a client sets its aliases anew [MQTT5-3.3.2-12].
#[test]
fn alias_of_a_repeated_publish_is_learnt() {
    let (id, topic) = (unique("p"), unique("t/"));
    let mut sub = client(V5);
    sub.subscribe(&topic, 2);
    let once = Publish::new(&topic, "once").qos(2, 5);
    let mut c = Connect::v5(&id).persistent().to(broker());
    c.publish(&once);
    assert!(c.await_ack(PubRec, 5) < 0x80);
    c.cut();
    let mut c = Connect::v5(&id).persistent().to(broker());
    c.publish(&once.clone().dup().with(prop::topic_alias(1_u16)));
    assert!(c.await_ack(PubRec, 5) < 0x80);
    c.ack(PubRel, 5);
    assert_eq!(c.await_ack(PubComp, 5), 0);
    c.deliver(&Publish::new("", "by alias").with(prop::topic_alias(1_u16)).qos(1, 6));
    assert_eq!(sub.texts(2), ["once", "by alias"]);
    sub.quiet();
    c.disconnect();
    forget(&id);
}

/// PUBREL does not wait for the Receive Maximum: on resumption with a smaller one all of them come again at once
/// [MQTT5-3.3.4-10] [MQTT5-4.9.0-3] [MQTT5-4.4.0-1].
#[test]
fn pubrels_come_again_whatever_the_receive_maximum() {
    let (id, topic) = (unique("s"), unique("t/"));
    let mut sub = Connect::v5(&id).persistent().to(broker());
    sub.subscribe(&topic, 2);
    let mut publisher = client(V5);
    let mut waiting = vec![];
    for n in 0..4 {
        publisher.say(2, &topic, n.to_string());
        let got = sub.publish_packet();
        sub.ack(PubRec, got.id);
        assert_eq!(sub.await_ack(PubRel, got.id), 0);
        waiting.push(got.id);
    }
    sub.cut();
    let mut sub = Connect::v5(&id).persistent().with(prop::receive_max(1_u16)).to(broker());
    for id in &waiting {
        assert_eq!(sub.await_ack(PubRel, *id), 0);
    }
    for id in waiting {
        sub.ack(PubComp, id);
    }
    sub.quiet();
    drop(sub);
    forget(&id);
}

/// A malformed packet of 3.1.1 in CONNECT is answered by nothing but the end: none of the return codes fits
/// [MQTT3-3.2.2-6] [MQTT3-3.1.4-1].
#[test]
fn malformed_connect_of_3_1_1_is_not_answered() {
    for connect in [Connect::v311(&unique("c")).flip_flags(1), Connect::v311(&unique("c")).trailing(&[0])] {
        let mut c = connect.send_to(broker());
        assert_eq!(c.closed(), []);
    }
}

/// Whatever a connection is ended for, it is closed after the CONNACK or DISCONNECT that says so [MQTT5-4.13.2-1]
/// [MQTT5-3.2.2-6] [MQTT5-3.2.2-7] [MQTT5-3.1.4-1] [MQTT5-3.1.4-2].
#[test]
fn refusals_close_the_connection() {
    let mut malformed = Connect::v5(&unique("c")).flip_flags(1).send_to(broker());
    match malformed.closed().as_slice() {
        [Packet::ConnAck(ConnAck { present: false, code: 0x81, .. })] => {}
        [] if lenient() => {}
        other => panic!("CONNACK 0x81 and the end expected, got {other:?}"),
    }
    let unknown = Connect::v5(&unique("c")).with(prop::auth_method("nobody-knows-it"));
    assert!([0x87, 0x8C].contains(&unknown.refused(broker())));
    for bad in [vec![0x30, 0], vec![0xC1, 0], vec![0x82, 2, 0, 1], vec![0xF0, 2, 0x19, 0]] {
        let mut c = client(V5);
        c.send(&bad);
        c.thrown_out(&[0x81, 0x82, 0x8C]);
    }
}

/// With the disk nearly full nothing is acknowledged that could not be kept: 0x97 in MQTT 5; in 3.1.1, where every answer
/// is a positive one, the end of the connection [MQTT3-4.8.0-2]. What needs no disk goes on.
#[test]
fn full_disk_acknowledges_nothing() {
    let Some(own) = Broker::own(&["--set", "store.low_space_bytes=1099511627776"]) else { return };
    // A persistent session is refused then; on a disk with more than a tebibyte to spare it is not, and all is well.
    if Connect::v5("probe").persistent().ask(&own).connack.code == 0 {
        return;
    }
    let kept = |qos: u8| Publish::new("t/kept", "x").qos(qos, 1).retain();
    let mut witness = Connect::v311("witness").to(&own);
    witness.subscribe("t/#", 1);
    for qos in 1..=2 {
        let mut old = Connect::v311("old").to(&own);
        old.publish(&kept(qos));
        old.thrown_out(&[]);
        assert_eq!(Connect::v5("new").to(&own).deliver(&kept(qos)), 0x97);
    }
    witness.quiet();
    for version in BOTH {
        assert_eq!(Connect::new(version, "live").to(&own).say(1, "t/live", "x"), 0);
        assert_eq!(witness.message().text(), "x");
    }
}

/// A SUBSCRIBE that is an error changes nothing, not even by the filters that stand before the error [MQTT5-3.8.3-4].
#[test]
fn erroneous_subscribe_changes_nothing() {
    let (id, topic) = (unique("s"), unique("t/"));
    let mut c = Connect::v5(&id).persistent().to(broker());
    c.send(&c.subscribe_bytes(1, &[(&topic, 1), ("$share/group/x", 1 | 4)], &[]));
    c.thrown_out(&[0x82]);
    let mut c = Connect::v5(&id).persistent().to(broker());
    assert!(c.connack.present);
    nothing_reaches(&mut said(&topic), &mut c);
    c.disconnect();
    forget(&id);
}

/// A publisher that has published to `topic` and been answered.
fn said(topic: &str) -> Client {
    let mut publisher = client(V5);
    publisher.say(1, topic, "x");
    publisher
}

/// A SUBACK that is larger than the client allows cannot be sent, and the client is told so rather than left to wait
/// [MQTT5-3.1.2-24] [MQTT5-4.13.2-1].
#[test]
fn suback_that_does_not_fit_ends_the_connection() {
    let mut c = Connect::v5(&unique("c")).with(prop::max_packet_size(40_u32)).to(broker());
    let filters: Vec<String> = (0..50).map(|n| format!("t/{n}")).collect();
    let filters: Vec<(&str, u8)> = filters.iter().map(|filter| (filter.as_str(), 0)).collect();
    c.send(&c.subscribe_bytes(1, &filters, &[]));
    c.thrown_out(&[0x95]);
}

/// A will with Message Expiry Interval 0 is for those who are there, and for nobody who comes later [MQTT5-3.3.2-5].
#[test]
fn will_that_expires_at_once_waits_for_nobody() {
    let (id, topic) = (unique("s"), unique("t/"));
    let mut away = Connect::v5(&id).persistent().to(broker());
    away.subscribe(&topic, 1);
    away.disconnect();
    let mut there = client(V5);
    there.subscribe(&topic, 1);
    let will = Publish::new(&topic, "gone").qos(1, 0).with(prop::message_expiry(0_u32));
    Connect::v5(&unique("c")).will(will).to(broker()).cut();
    let got = there.message();
    assert_eq!((got.text(), got.props.number(prop::MESSAGE_EXPIRY)), ("gone", Some(0)));
    let mut away = Connect::v5(&id).persistent().to(broker());
    assert!(away.connack.present);
    away.quiet();
    away.disconnect();
    forget(&id);
}
