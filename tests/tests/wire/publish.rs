//! PUBLISH and its acknowledgements (3.3 to 3.7, 4.3, 4.4, 4.6, 4.9).

use super::common::*;

/// A persistent subscriber that is there, its identifier, and its topic.
fn subscriber(version: Version, qos: u8) -> (Client, String, String) {
    let (id, topic) = (unique("s"), unique("t/"));
    let mut c = Connect::new(version, &id).persistent().to(broker());
    c.subscribe(&topic, qos);
    (c, id, topic)
}

/// Messages arrive at the lesser of the QoS published and granted, from and to either version [MQTT5-3.8.4-8]
/// [MQTT5-3.3.2-3] [MQTT5-3.3.4-1] [MQTT5-4.3.1-1] [MQTT5-4.3.2-2] [MQTT5-4.3.3-2] [MQTT3-3.3.2-3] [MQTT3-3.3.4-1]
/// [MQTT3-3.8.4-6] [MQTT3-4.3.1-1] [MQTT3-4.3.2-1] [MQTT3-4.3.3-1].
#[test]
fn messages_arrive_at_the_lesser_qos() {
    for (from, to) in [(V311, V311), (V311, V5), (V5, V311), (V5, V5)] {
        let mut publisher = client(from);
        for granted in 0..=2 {
            let topic = unique("t/");
            let mut sub = client(to);
            sub.subscribe(&topic, granted);
            for qos in 0..=2 {
                publisher.say(qos, &topic, "x");
                let got = sub.message();
                assert_eq!((got.qos, got.retain, got.dup, got.text()), (qos.min(granted), false, false, "x"));
                assert_eq!(got.topic, topic, "[MQTT5-3.3.2-3]");
            }
            nothing_reaches(&mut publisher, &mut sub);
        }
    }
}

/// PUBACK and PUBREC say success, with 0x10 where nobody listens (3.4.2.1, 3.5.2.1).
#[test]
fn publishing_to_nobody_succeeds() {
    for version in BOTH {
        let mut c = client(version);
        for qos in 1..=2 {
            let code = c.say(qos, &unique("nobody/"), "x");
            assert!(code == 0 || (version == V5 && code == 0x10), "{code:#04x}");
        }
    }
}

/// QoS 1: after PUBACK the identifier is free, a PUBLISH with it is a new message even with DUP [MQTT5-4.3.2-4]
/// [MQTT5-4.3.2-5] [MQTT3-4.3.2-2].
#[test]
fn qos_1_identifier_is_free_after_puback() {
    for version in BOTH {
        let (mut sub, id, topic) = subscriber(version, 1);
        let mut publisher = client(version);
        let publish = Publish::new(&topic, "x").qos(1, 77);
        publisher.deliver(&publish);
        publisher.deliver(&publish.dup());
        assert_eq!(sub.texts(2), ["x", "x"]);
        sub.quiet();
        drop(sub);
        forget(&id);
    }
}

/// DUP of an incoming PUBLISH does not show in the outgoing one [MQTT5-3.3.1-3] [MQTT3-3.3.1-3].
#[test]
fn dup_is_not_passed_on() {
    for version in BOTH {
        let mut sub = client(version);
        let topic = unique("t/");
        sub.subscribe(&topic, 2);
        let mut publisher = client(version);
        for qos in 1..=2 {
            publisher.deliver(&Publish::new(&topic, "x").qos(qos, 5).dup());
            assert!(!sub.message().dup);
        }
    }
}

/// QoS 2: the same identifier again before PUBREL is the same message: PUBREC again, one delivery [MQTT5-4.3.3-8]
/// [MQTT5-4.3.3-10] [MQTT5-4.3.3-11] [MQTT3-4.3.3-2].
#[test]
fn qos_2_is_delivered_once() {
    for version in BOTH {
        let (mut sub, id, topic) = subscriber(version, 2);
        let mut publisher = client(version);
        let publish = Publish::new(&topic, "once").qos(2, 9);
        publisher.publish(&publish);
        assert_eq!(publisher.await_ack(PubRec, 9), 0);
        for _ in 0..3 {
            publisher.publish(&publish.clone().dup());
            assert!([0, 0x10].contains(&publisher.await_ack(PubRec, 9)), "[MQTT5-4.3.3-10]");
        }
        publisher.ack(PubRel, 9);
        assert_eq!(publisher.await_ack(PubComp, 9), 0);
        assert_eq!(sub.message().text(), "once");
        nothing_reaches(&mut publisher, &mut sub);
        // After PUBCOMP the identifier is free [MQTT5-4.3.3-12].
        publisher.deliver(&publish);
        assert_eq!(sub.message().text(), "once");
        nothing_reaches(&mut publisher, &mut sub);
        drop(sub);
        forget(&id);
    }
}

/// QoS 2 exactly once across reconnections of the publisher, lost at every step [MQTT5-4.3.3-10] [MQTT5-4.4.0-1]
/// [MQTT3-4.4.0-1].
#[test]
fn qos_2_is_delivered_once_across_connections() {
    for version in BOTH {
        let (mut sub, id, topic) = subscriber(version, 2);
        let publisher_id = unique("p");
        let connect = Connect::new(version, &publisher_id).persistent();
        let publish = Publish::new(&topic, "once").qos(2, 4);
        let mut publisher = connect.to(broker());
        publisher.publish(&publish);
        assert_eq!(publisher.await_ack(PubRec, 4), 0);
        publisher.cut();
        // PUBREC was lost: PUBLISH again.
        let mut publisher = connect.to(broker());
        assert!(publisher.connack.present);
        publisher.publish(&publish.clone().dup());
        assert!([0, 0x10].contains(&publisher.await_ack(PubRec, 4)));
        publisher.ack(PubRel, 4);
        assert_eq!(publisher.await_ack(PubComp, 4), 0);
        publisher.cut();
        // PUBCOMP was lost: PUBREL again. It is answered, whether the identifier is still known or not.
        let mut publisher = connect.to(broker());
        publisher.ack(PubRel, 4);
        let code = publisher.await_ack(PubComp, 4);
        assert!(code == 0 || (version == V5 && code == 0x92), "{code:#04x}");
        assert_eq!(sub.message().text(), "once");
        nothing_reaches(&mut publisher, &mut sub);
        drop((sub, publisher));
        forget(&id);
        forget(&publisher_id);
    }
}

/// A take-over in the middle of a QoS 2 flow keeps it exactly once too.
#[test]
fn qos_2_is_delivered_once_across_a_take_over() {
    let (mut sub, id, topic) = subscriber(V5, 2);
    let publisher_id = unique("p");
    let connect = Connect::v5(&publisher_id).persistent();
    let mut first = connect.to(broker());
    let publish = Publish::new(&topic, "once").qos(2, 4);
    first.publish(&publish);
    assert_eq!(first.await_ack(PubRec, 4), 0);
    let mut second = connect.to(broker());
    second.publish(&publish.dup());
    assert!([0, 0x10].contains(&second.await_ack(PubRec, 4)));
    second.ack(PubRel, 4);
    assert_eq!(second.await_ack(PubComp, 4), 0);
    assert_eq!(sub.message().text(), "once");
    nothing_reaches(&mut second, &mut sub);
    drop((sub, second));
    forget(&id);
    forget(&publisher_id);
}

/// A QoS 2 message refused in PUBREC is over: its identifier is free for another [MQTT5-4.3.3-9] [MQTT5-3.5.2-1].
#[test]
fn refused_qos_2_identifier_is_free() {
    let topic = unique("t/");
    let mut sub = client(V5);
    sub.subscribe(&topic, 2);
    let mut c = client(V5);
    let code = c.deliver(&Publish::new("$SYS/refused", "forged").qos(2, 6));
    assert!(code >= 0x80 || lenient(), "{code:#04x}");
    assert_eq!(c.deliver(&Publish::new(&topic, "welcome").qos(2, 6)), 0);
    assert_eq!(sub.message().text(), "welcome");
    nothing_reaches(&mut c, &mut sub);
}

/// Identifiers of client and server are counted apart: both may use the same at once (2.2.1) [MQTT5-2.2.1-5]
/// [MQTT3-2.3.1-6].
#[test]
fn both_sides_may_use_the_same_identifier() {
    for version in BOTH {
        let topic = unique("t/");
        let mut c = client(version);
        c.subscribe(&topic, 2);
        client(version).say(2, &topic, "down");
        let down = c.publish_packet();
        c.publish(&Publish::new(&topic, "up").qos(2, down.id));
        assert_eq!(c.await_ack(PubRec, down.id), 0);
        c.ack(PubRel, down.id);
        assert_eq!(c.await_ack(PubComp, down.id), 0);
        let up = c.publish_packet();
        assert_eq!(up.text(), "up");
        c.finish(&down);
        c.finish(&up);
        c.quiet();
    }
}

/// More messages than there are identifiers, each acknowledged: identifiers come round and are never used twice at
/// once [MQTT5-2.2.1-4] [MQTT5-4.3.2-1] [MQTT5-4.3.2-2] [MQTT5-4.3.3-1] [MQTT3-2.3.1-2] [MQTT3-2.3.1-4].
#[test]
fn identifiers_come_round() {
    let topic = unique("t/");
    let mut sub = client(V5);
    sub.subscribe(&topic, 1);
    let mut publisher = client(V311);
    let mut seen = vec![false; 65_536];
    let mut waiting: Vec<u16> = Vec::new();
    let total = 66_000_u32;
    let mut sent = 0_u32;
    let mut got = 0_u32;
    while got < total {
        let mut bytes = Vec::new();
        for id in 1..=500 {
            bytes.extend(Publish::new(&topic, sent.to_be_bytes()).qos(1, id).bytes(V311));
            sent += 1;
        }
        publisher.send(&bytes);
        for _ in 0..500 {
            let publish = sub.publish_packet();
            assert_eq!(publish.payload, got.to_be_bytes());
            let id = usize::from(publish.id);
            assert!(!seen[id], "identifier {id} is in use");
            seen[id] = true;
            waiting.push(publish.id);
            got += 1;
        }
        for n in 1..=500 {
            publisher.await_ack(PubAck, n);
        }
        // Most are acknowledged, a few stay open for a while.
        let keep = 7;
        let mut acks = Vec::new();
        for id in waiting.drain(..waiting.len() - keep) {
            seen[usize::from(id)] = false;
            acks.extend(frame(0x40, id.to_be_bytes()));
        }
        sub.send(&acks);
    }
}

/// PUBREL for an identifier that is not known: PUBCOMP, in MQTT 5 with 0x92 (3.7.2.1) [MQTT5-4.3.3-11].
#[test]
fn unknown_pubrel_is_answered() {
    for version in BOTH {
        let mut c = client(version);
        c.ack(PubRel, 4_711);
        let code = c.await_ack(PubComp, 4_711);
        assert_eq!(code, if version == V5 { 0x92 } else { 0 });
        c.quiet();
    }
}

/// PUBREC for an identifier that is not known: PUBREL with 0x92 (3.6.2.1, 4.3.3).
#[test]
fn unknown_pubrec_is_answered() {
    let mut c = client(V5);
    c.ack(PubRec, 4_711);
    assert_eq!(c.await_ack(PubRel, 4_711), 0x92);
    c.quiet();
}

/// PUBACK and PUBCOMP for identifiers that are not known disturb nothing.
#[test]
fn unknown_puback_and_pubcomp_are_ignored() {
    for version in BOTH {
        let mut c = client(version);
        c.ack(PubAck, 4_711);
        c.ack(PubComp, 4_712);
        c.quiet();
    }
}

/// Messages that were not acknowledged come again when the session is resumed, and only then: the same identifiers,
/// DUP set, the same order [MQTT5-4.4.0-1] [MQTT5-3.3.1-1] [MQTT5-4.3.2-3] [MQTT5-4.6.0-1] [MQTT3-4.4.0-1]
/// [MQTT3-3.3.1-1] [MQTT3-4.6.0-1].
#[test]
fn unacknowledged_messages_come_again_in_order() {
    for version in BOTH {
        let (mut sub, id, topic) = subscriber(version, 2);
        let mut publisher = client(version);
        for n in 0..10_u8 {
            publisher.say(1 + n % 2, &topic, n.to_string());
        }
        let first: Vec<Publish> = (0..10).map(|_| sub.publish_packet()).collect();
        assert!(first.iter().all(|p| !p.dup));
        sub.quiet();
        sub.cut();
        let mut sub = Connect::new(version, &id).persistent().to(broker());
        assert!(sub.connack.present);
        for want in &first {
            let got = sub.publish_packet();
            assert!(got.dup, "[MQTT5-3.3.1-1]");
            assert_eq!((got.id, got.qos, got.text()), (want.id, want.qos, want.text()));
        }
        for publish in &first {
            sub.finish(publish);
        }
        sub.quiet();
        sub.cut();
        let mut sub = Connect::new(version, &id).persistent().to(broker());
        sub.quiet();
        drop(sub);
        forget(&id);
    }
}

/// Only what was left unacknowledged comes again [MQTT5-4.4.0-1] [MQTT3-4.4.0-1].
#[test]
fn acknowledged_messages_do_not_come_again() {
    for version in BOTH {
        let (mut sub, id, topic) = subscriber(version, 1);
        let mut publisher = client(version);
        for n in 0..6 {
            publisher.say(1, &topic, n.to_string());
        }
        let first: Vec<Publish> = (0..6).map(|_| sub.publish_packet()).collect();
        for n in [1, 4] {
            sub.ack(PubAck, first[n].id);
        }
        let _ = sub.fence();
        sub.cut();
        let mut sub = Connect::new(version, &id).persistent().to(broker());
        for n in [0, 2, 3, 5] {
            let got = sub.message();
            assert_eq!((got.text(), got.id, got.dup), (first[n].text(), first[n].id, true));
        }
        sub.quiet();
        drop(sub);
        forget(&id);
    }
}

/// QoS 2 towards the client: once PUBREC is there PUBREL is sent, and after a reconnection PUBREL only, not PUBLISH
/// [MQTT5-4.3.3-4] [MQTT5-4.3.3-5] [MQTT5-4.3.3-6] [MQTT5-4.4.0-1] [MQTT3-4.3.3-1] [MQTT3-4.4.0-1].
#[test]
fn pubrel_comes_again_instead_of_publish() {
    for version in BOTH {
        let (mut sub, id, topic) = subscriber(version, 2);
        let mut publisher = client(version);
        publisher.say(2, &topic, "once");
        let got = sub.publish_packet();
        sub.ack(PubRec, got.id);
        assert_eq!(sub.await_ack(PubRel, got.id), 0);
        sub.cut();
        for _ in 0..2 {
            let mut sub = Connect::new(version, &id).persistent().to(broker());
            let before = sub.fence();
            assert!(matches!(before.as_slice(), [Packet::Ack { kind: PubRel, id, .. }] if *id == got.id), "{before:?}");
            sub.cut();
        }
        let mut sub = Connect::new(version, &id).persistent().to(broker());
        assert_eq!(sub.await_ack(PubRel, got.id), 0);
        sub.ack(PubComp, got.id);
        sub.quiet();
        sub.cut();
        let mut sub = Connect::new(version, &id).persistent().to(broker());
        sub.quiet();
        publisher.say(2, &topic, "next");
        assert_eq!(sub.message().text(), "next");
        drop(sub);
        forget(&id);
    }
}

/// A PUBREC that comes twice gets its PUBREL twice; PUBREL is not forgotten before PUBCOMP.
#[test]
fn repeated_pubrec_is_answered() {
    let (mut sub, id, topic) = subscriber(V5, 2);
    client(V5).say(2, &topic, "x");
    let got = sub.publish_packet();
    for _ in 0..2 {
        sub.ack(PubRec, got.id);
        assert_eq!(sub.await_ack(PubRel, got.id), 0);
    }
    sub.ack(PubComp, got.id);
    sub.quiet();
    drop(sub);
    forget(&id);
}

/// PUBACK or PUBREC with an error ends the message: it does not come again [MQTT5-4.4.0-2].
#[test]
fn refused_messages_do_not_come_again() {
    let (mut sub, id, topic) = subscriber(V5, 2);
    let mut publisher = client(V5);
    for (qos, kind) in [(1, PubAck), (2, PubRec)] {
        publisher.say(qos, &topic, "unwanted");
        let got = sub.publish_packet();
        sub.ack_code(kind, got.id, 0x83);
        sub.quiet();
    }
    sub.cut();
    let mut sub = Connect::v5(&id).persistent().to(broker());
    sub.quiet();
    publisher.say(2, &topic, "next");
    assert_eq!(sub.message().text(), "next");
    drop(sub);
    forget(&id);
}

/// The server never has more unanswered QoS 1 and 2 messages with a client than its Receive Maximum; QoS 0 and all
/// other packets flow on [MQTT5-3.3.4-9] [MQTT5-3.3.4-10] [MQTT5-4.9.0-1] [MQTT5-4.9.0-2] [MQTT5-4.9.0-3].
#[test]
fn receive_maximum_of_the_client_is_kept() {
    let topic = unique("t/");
    let mut sub = Connect::v5(&unique("s")).with(prop::receive_max(2_u16)).to(broker());
    sub.subscribe(&topic, 2);
    let mut publisher = client(V5);
    for n in 0..6_u8 {
        publisher.say(1 + n % 2, &topic, n.to_string());
    }
    let (first, second) = (sub.publish_packet(), sub.publish_packet());
    assert_eq!((first.text(), second.text()), ("0", "1"));
    sub.quiet();
    // Whether QoS 0 waits meanwhile is up to the server; other packets do not.
    let other = unique("t/");
    sub.subscribe(&other, 0);
    publisher.say(0, &other, "QoS 0");
    let _ = publisher.fence();
    let mut quick = sub.fence().len();
    assert_eq!(sub.unsubscribe(&["something/else"]), [0x11]);
    // PUBREC is no answer that frees a place; PUBCOMP is.
    sub.ack(PubRec, second.id);
    assert_eq!(sub.await_ack(PubRel, second.id), 0);
    sub.quiet();
    sub.ack(PubComp, second.id);
    let third = sub.publish_packet();
    assert_eq!(third.text(), "2");
    sub.quiet();
    sub.ack(PubAck, first.id);
    let fourth = sub.publish_packet();
    assert_eq!((fourth.text(), fourth.qos), ("3", 2));
    sub.quiet();
    // PUBREC with an error frees a place at once.
    sub.ack_code(PubRec, fourth.id, 0x80);
    assert_eq!(sub.publish_packet().text(), "4");
    sub.quiet();
    sub.ack(PubAck, third.id);
    let last = sub.publish_packet();
    assert_eq!((last.text(), last.qos), ("5", 2));
    quick += sub.fence().len();
    assert_eq!(quick, 1, "QoS 0 came, then or later");
}

/// The same after resumption with another Receive Maximum: what is resent counts too.
#[test]
fn receive_maximum_is_kept_when_messages_come_again() {
    let (mut sub, id, topic) = subscriber(V5, 1);
    let mut publisher = client(V5);
    for n in 0..5 {
        publisher.say(1, &topic, n.to_string());
    }
    for _ in 0..5 {
        let _ = sub.publish_packet();
    }
    sub.cut();
    let mut sub = Connect::v5(&id).persistent().with(prop::receive_max(1_u16)).to(broker());
    for n in 0..5 {
        let got = sub.publish_packet();
        assert_eq!((got.text(), got.dup), (n.to_string().as_str(), true));
        sub.quiet();
        sub.ack(PubAck, got.id);
    }
    sub.quiet();
    drop(sub);
    forget(&id);
}

/// A client that exceeds the Receive Maximum of the server is disconnected with 0x93 (3.3.4, 4.9).
#[test]
fn exceeding_the_receive_maximum_of_the_server() {
    let mut c = client(V5);
    let announced = c.connack.props.number(prop::RECEIVE_MAX).unwrap_or(65_535);
    let mut bytes = Vec::new();
    let topic = unique("t/");
    for id in 1..=announced.min(65_534) + 1 {
        bytes.extend(Publish::new(&topic, "x").qos(2, u16::try_from(id).expect("at most 65,535")).bytes(V5));
    }
    if announced == 65_535 {
        return;
    }
    c.send(&bytes);
    let got = c.closed();
    let acknowledged = got.iter().filter(|p| matches!(p, Packet::Ack { kind: PubRec, .. })).count();
    assert!(acknowledged <= announced as usize, "{acknowledged} PUBREC");
    assert!(matches!(got.last(), Some(Packet::Disconnect { code: 0x93, .. })), "{:?}", got.last());
}

/// Messages of one publisher on one topic arrive in the order they were published, at every QoS [MQTT5-4.6.0-5]
/// [MQTT5-4.6.0-6] [MQTT3-4.6.0-5] [MQTT3-4.6.0-6].
#[test]
fn order_of_a_topic_is_kept() {
    for version in BOTH {
        for qos in 0..=2 {
            let topic = unique("t/");
            let mut sub = client(version);
            sub.subscribe(&topic, qos);
            let mut publisher = client(version);
            let mut bytes = Vec::new();
            for n in 1..=200_u16 {
                let id = if qos > 0 { n } else { 0 };
                bytes.extend(Publish::new(&topic, n.to_string()).qos(qos, id).bytes(version));
            }
            publisher.send(&bytes);
            if qos == 2 {
                for n in 1..=200 {
                    assert_eq!(publisher.await_ack(PubRec, n), 0);
                    publisher.ack(PubRel, n);
                }
            }
            let want: Vec<String> = (1..=200).map(|n| n.to_string()).collect();
            assert_eq!(sub.texts(200), want, "{version:?} QoS {qos}");
        }
    }
}

/// Acknowledgements come in the order of the messages [MQTT5-4.6.0-2] [MQTT5-4.6.0-3] [MQTT5-4.6.0-4] [MQTT3-4.6.0-2]
/// [MQTT3-4.6.0-3] [MQTT3-4.6.0-4].
#[test]
fn acknowledgements_come_in_order() {
    for version in BOTH {
        // The topics differ in who listens: nobody, a transient and a persistent session.
        let topics = [unique("t/"), unique("t/"), unique("t/")];
        let mut transient = client(version);
        transient.subscribe(&topics[1], 2);
        let id = unique("s");
        absent_subscriber(version, &id, &topics[2], 2);
        for (qos, kind) in [(1, PubAck), (2, PubRec)] {
            let mut c = client(version);
            let mut bytes = Vec::new();
            for n in 1..=30_u16 {
                bytes.extend(Publish::new(&topics[usize::from(n) % 3], "x").qos(qos, n).bytes(version));
            }
            c.send(&bytes);
            for n in 1..=30 {
                let got = c.recv();
                assert!(matches!(got, Packet::Ack { kind: k, id, .. } if k == kind && id == n), "{n}: {got:?}");
            }
        }
        forget(&id);
    }
}

/// Message Expiry Interval: what arrives is the rest of it, and what has expired does not arrive [MQTT5-3.3.2-5]
/// [MQTT5-3.3.2-6].
#[test]
fn message_expiry_counts_down_while_waiting() {
    let (sub, id, topic) = subscriber(V5, 1);
    sub.disconnect();
    let mut publisher = client(V5);
    let retained = unique("t/");
    for (text, secs) in [("short", 1_u32), ("long", 100)] {
        publisher.deliver(&Publish::new(&topic, text).qos(1, 0).with(prop::message_expiry(secs)));
        let kept = format!("{retained}/{text}");
        publisher.deliver(&Publish::new(&kept, text).qos(1, 0).retain().with(prop::message_expiry(secs)));
    }
    let_pass(2_100);
    let mut sub = Connect::v5(&id).persistent().to(broker());
    let got = sub.message();
    assert_eq!(got.text(), "long");
    let left = got.props.number(prop::MESSAGE_EXPIRY);
    assert!(matches!(left, Some(85..=98)), "{left:?}");
    sub.quiet();
    sub.subscribe(&format!("{retained}/+"), 0);
    let got = sub.message();
    assert_eq!((got.text(), got.retain), ("long", true));
    let left = got.props.number(prop::MESSAGE_EXPIRY);
    assert!(matches!(left, Some(85..=98)), "{left:?}");
    sub.quiet();
    publisher.deliver(&Publish::new(&format!("{retained}/long"), "").qos(1, 0).retain());
    drop(sub);
    forget(&id);
}

/// A message that waits for a place in the Receive Maximum expires too; one that is in flight does not
/// [MQTT5-3.3.2-5] [MQTT5-4.3.3-7] [MQTT5-4.3.3-13].
#[test]
fn message_expiry_ends_with_the_first_sending() {
    let id = unique("s");
    let topic = unique("t/");
    let connect = Connect::v5(&id).persistent().with(prop::receive_max(1_u16));
    let mut sub = connect.to(broker());
    sub.subscribe(&topic, 2);
    let mut publisher = client(V5);
    for text in ["sent", "waits"] {
        publisher.deliver(&Publish::new(&topic, text).qos(2, 0).with(prop::message_expiry(1_u32)));
    }
    publisher.say(2, &topic, "forever");
    let sent = sub.publish_packet();
    assert_eq!(sent.text(), "sent");
    let_pass(2_100);
    sub.ack(PubRec, sent.id);
    assert_eq!(sub.await_ack(PubRel, sent.id), 0, "[MQTT5-4.3.3-7]");
    sub.ack(PubComp, sent.id);
    assert_eq!(sub.message().text(), "forever");
    sub.quiet();
    drop(sub);
    forget(&id);
}

/// Both QoS bits, a packet identifier of 0, DUP with QoS 0 [MQTT5-3.3.1-4] [MQTT5-2.2.1-3] [MQTT5-3.3.1-2]
/// [MQTT3-3.3.1-4] [MQTT3-2.3.1-1] [MQTT3-3.3.1-2].
#[test]
fn malformed_publish_flags_and_identifiers() {
    for version in BOTH {
        let topic = unique("t/");
        let cases = [
            Publish::new(&topic, "x").qos(3, 1),
            Publish::new(&topic, "x").qos(3, 1).dup(),
            Publish::new(&topic, "x").qos(1, 0),
            Publish::new(&topic, "x").qos(2, 0),
            Publish::new(&topic, "x").dup(),
        ];
        for publish in cases {
            let mut c = client(version);
            c.name = format!("{publish:?}");
            c.publish(&publish);
            c.thrown_out(&[0x81, 0x82]);
        }
    }
}

/// A topic name has no wildcards, no U+0000, is well-formed and not empty [MQTT5-3.3.2-1] [MQTT5-3.3.2-2]
/// [MQTT5-4.7.0-1] [MQTT5-4.7.3-1] [MQTT5-4.7.3-2] [MQTT3-3.3.2-1] [MQTT3-3.3.2-2] [MQTT3-4.7.3-1] [MQTT3-4.7.3-2].
#[test]
fn topic_names_are_checked() {
    for version in BOTH {
        let topics: [&[u8]; 10] =
            [b"", b"#", b"+", b"a/#", b"a/+/b", b"a+", b"a#b", b"a\0b", &[0xFF, 0xFE], &[b'a', 0xED, 0xBF, 0xBF]];
        for topic in topics {
            for qos in 0..=2_u8 {
                let mut c = client(version);
                c.name = format!("{version:?} topic {topic:02x?} QoS {qos}");
                let mut body = field(topic);
                if qos > 0 {
                    body.extend([0, 1]);
                }
                body.extend(props_for(version, &[]));
                c.send(&frame(0x30 | qos << 1, body));
                c.thrown_out(&[0x81, 0x82, 0x90]);
            }
        }
    }
}

/// Topic names are taken byte by byte: U+FEFF, spaces, case, empty levels, dots stay as they are [MQTT5-1.5.4-3]
/// [MQTT5-4.7.3-4] [MQTT3-1.5.3-3] [MQTT3-4.7.3-4] (4.7.3).
#[test]
fn topic_names_are_not_normalized() {
    for version in BOTH {
        let stem = unique("t/");
        let names = ["\u{FEFF}a", "a", "A", " a", "a/", "a//", "//", "a/../b", "é", "e\u{301}", "$inner", "日本/語"];
        let mut sub = client(version);
        sub.subscribe(&format!("{stem}/#"), 0);
        let mut publisher = client(version);
        for name in names {
            publisher.say(0, &format!("{stem}/{name}"), name);
            let got = sub.message();
            assert_eq!(got.topic, format!("{stem}/{name}"));
        }
        let mut exact = client(version);
        exact.subscribe(&format!("{stem}/é"), 0);
        exact.subscribe(&format!("{stem}/a/"), 0);
        for name in names {
            publisher.say(0, &format!("{stem}/{name}"), name);
        }
        let _ = publisher.fence();
        assert_eq!(exact.texts(2), ["a/", "é"]);
        exact.quiet();
    }
}

/// The longest topic name, and an empty and a large payload pass [MQTT5-4.7.3-3] [MQTT3-4.7.3-3].
#[test]
fn sizes_at_the_edge_pass() {
    for version in BOTH {
        let stem = unique("t");
        let long = format!("{stem}/{}", "x".repeat(65_535 - stem.len() - 1));
        let mut sub = client(version);
        sub.subscribe(&format!("{stem}/#"), 1);
        let mut publisher = client(version);
        publisher.say(1, &long, "long topic");
        assert_eq!(sub.message().topic, long);
        let short = format!("{stem}/s");
        for qos in 0..=1 {
            publisher.say(qos, &short, "");
            assert_eq!(sub.message().payload, b"");
            for size in [1, 127, 128, 16_383, 16_384, 65_536, 300_000] {
                let payload: Vec<u8> = (0..size).map(|n| u8::try_from(n % 251).expect("below 251")).collect();
                publisher.say(qos, &short, &payload);
                assert!(sub.message().payload == payload, "{size} bytes");
            }
        }
    }
}

/// A PUBLISH from a client has no Subscription Identifier, and only properties of a PUBLISH, once each
/// [MQTT5-3.3.4-6] (3.3.2.3).
#[test]
fn properties_of_publish_are_checked() {
    let topic = unique("t/");
    let mut lists: Vec<Vec<Prop>> = Vec::new();
    for p in [
        prop::payload_format(0),
        prop::message_expiry(1_u32),
        prop::content_type("t"),
        prop::response_topic("t"),
        prop::correlation("c"),
        prop::topic_alias(1_u16),
    ] {
        lists.push(vec![p.clone(), p]);
    }
    for p in [
        prop::subscription_id(1_u32),
        prop::session_expiry(1_u32),
        prop::assigned_client_id("c"),
        prop::server_keep_alive(1_u16),
        prop::auth_method("m"),
        prop::auth_data("d"),
        prop::request_problem_info(1),
        prop::will_delay(1_u32),
        prop::request_response_info(1),
        prop::response_info("i"),
        prop::server_reference("s"),
        prop::reason_string("r"),
        prop::receive_max(1_u16),
        prop::topic_alias_max(1_u16),
        prop::max_qos(1),
        prop::retain_available(1),
        prop::max_packet_size(100_u32),
        prop::wildcard_available(1),
        prop::subscription_id_available(1),
        prop::shared_available(1),
        prop::payload_format(2),
        Prop { id: 0x7E, value: Value::Byte(1) },
    ] {
        lists.push(vec![p]);
    }
    for list in lists {
        let mut c = client(V5);
        c.name = format!("{list:?}");
        c.publish(&list.iter().fold(Publish::new(&topic, "x"), |publish, p| publish.with(p.clone())));
        c.thrown_out(&[0x81, 0x82]);
    }
}

/// A Response Topic is a topic name: well-formed, without wildcards [MQTT5-3.3.2-13] [MQTT5-3.3.2-14]; the strings of
/// Content Type and User Property are well-formed too [MQTT5-3.3.2-19] [MQTT5-1.5.7-1].
#[test]
fn strings_of_publish_properties_are_checked() {
    let topic = unique("t/");
    for response in ["a/#", "a/+"] {
        let mut c = client(V5);
        c.publish(&Publish::new(&topic, "x").with(prop::response_topic(response)));
        c.thrown_out(&[0x81, 0x82, 0x90]);
    }
    let bad: [&[u8]; 3] = [&[0xFF], &[b'a', 0], &[0xED, 0xA0, 0x80]];
    for bytes in bad {
        let text = field(bytes);
        let name = field("n");
        for property in [
            [&[prop::CONTENT_TYPE], text.as_slice()].concat(),
            [&[prop::RESPONSE_TOPIC], text.as_slice()].concat(),
            [&[prop::USER], text.as_slice(), name.as_slice()].concat(),
            [&[prop::USER], name.as_slice(), text.as_slice()].concat(),
        ] {
            let mut body = field(&topic);
            body.extend(field(property)[1..].iter());
            let mut c = client(V5);
            c.name = format!("{body:02x?}");
            c.send(&frame(0x30, body));
            c.thrown_out(&[0x81, 0x82, 0x90]);
        }
    }
}

/// Payload Format Indicator 1 and a payload that is no UTF-8: 0x99, or passed on as it is (3.3.2.3.2).
#[test]
fn payload_format_that_does_not_hold() {
    let topic = unique("t/");
    let mut sub = client(V5);
    sub.subscribe(&topic, 1);
    let mut c = client(V5);
    let code = c.deliver(&Publish::new(&topic, [0xFF, 0x00]).qos(1, 0).with(prop::payload_format(1)));
    if code == 0 {
        assert_eq!(sub.message().payload, [0xFF, 0x00]);
    } else {
        assert_eq!(code, 0x99);
        sub.quiet();
    }
}
