//! Retained messages (3.3.1.3, 3.8.3.1).

use super::common::*;

const NEVER: u8 = 0x20;
const WHEN_NEW: u8 = 0x10;
const AS_PUBLISHED: u8 = 0x08;

fn keep(c: &mut Client, qos: u8, topic: &str, payload: &str) {
    c.deliver(&Publish::new(topic, payload).qos(qos, 0).retain());
}

/// What a new subscriber gets for `filter` at once, as (text, RETAIN, QoS).
fn retained(version: Version, filter: &str, options: u8) -> Vec<(String, bool, u8)> {
    let mut c = client(version);
    c.subscribe(filter, options);
    let mut got = Vec::new();
    for packet in c.fence() {
        let Packet::Publish(publish) = packet else { panic!("{packet:?}") };
        got.push((publish.text().to_owned(), publish.retain, publish.qos));
    }
    got
}

/// Set, replaced by the next, removed by an empty one; flagged RETAIN when it answers a subscription
/// [MQTT5-3.3.1-5] [MQTT5-3.3.1-6] [MQTT5-3.3.1-7] [MQTT5-3.3.1-9] [MQTT3-3.3.1-5] [MQTT3-3.3.1-6] [MQTT3-3.3.1-7]
/// [MQTT3-3.3.1-8] [MQTT3-3.3.1-10] [MQTT3-3.3.1-11].
#[test]
fn retained_message_is_set_replaced_and_removed() {
    for version in BOTH {
        let topic = unique("t/");
        let mut publisher = client(version);
        let mut live = client(version);
        live.subscribe(&topic, 1);
        for qos in 0..=2 {
            for text in ["one", "two"] {
                keep(&mut publisher, qos, &topic, text);
                let got = live.message();
                assert_eq!((got.text(), got.retain), (text, false), "[MQTT5-3.3.1-12] [MQTT3-3.3.1-9]");
                assert_eq!(retained(version, &topic, 2), [(text.to_owned(), true, qos)]);
            }
            keep(&mut publisher, qos, &topic, "");
            let got = live.message();
            assert_eq!((got.text(), got.retain), ("", false), "the empty one is forwarded as any other");
            assert_eq!(retained(version, &topic, 2), []);
        }
    }
}

/// A message without RETAIN leaves the retained one alone [MQTT5-3.3.1-8] [MQTT3-3.3.1-12].
#[test]
fn other_messages_leave_the_retained_one_alone() {
    for version in BOTH {
        let topic = unique("t/");
        let mut publisher = client(version);
        publisher.say(1, &topic, "not kept");
        assert_eq!(retained(version, &topic, 0), []);
        keep(&mut publisher, 1, &topic, "kept");
        publisher.say(1, &topic, "not kept");
        publisher.say(1, &topic, "");
        assert_eq!(retained(version, &topic, 0), [("kept".to_owned(), true, 0)]);
        keep(&mut publisher, 1, &topic, "");
    }
}

/// Wildcards find all retained messages that match, each once, at the lesser QoS [MQTT5-3.3.1-9] [MQTT5-3.8.4-8]
/// [MQTT3-3.3.1-6].
#[test]
fn wildcards_find_retained_messages() {
    for version in BOTH {
        let stem = unique("t/");
        let names = ["a", "a/b", "a/b/c", "x", "", "/"];
        let mut publisher = client(version);
        for name in names {
            keep(&mut publisher, 2, &format!("{stem}/{name}"), &format!("<{name}>"));
        }
        for (filter, want) in [
            ("#", vec!["", "/", "a", "a/b", "a/b/c", "x"]),
            ("+", vec!["", "a", "x"]),
            ("a/#", vec!["a", "a/b", "a/b/c"]),
            ("+/+", vec!["/", "a/b"]),
            ("a/+/c", vec!["a/b/c"]),
            ("a/b", vec!["a/b"]),
            ("+/+/+/+", vec![]),
        ] {
            let mut got: Vec<String> = retained(version, &format!("{stem}/{filter}"), 1)
                .into_iter()
                .map(|(text, retain, qos)| {
                    assert!(retain && qos == 1);
                    text.trim_matches(['<', '>']).to_owned()
                })
                .collect();
            got.sort();
            assert_eq!(got, want, "{filter}");
        }
        for name in names {
            keep(&mut publisher, 0, &format!("{stem}/{name}"), "");
        }
        let _ = publisher.fence();
        assert_eq!(retained(version, &format!("{stem}/#"), 1), []);
    }
}

/// Subscribing again brings the retained message again [MQTT5-3.8.4-4] [MQTT5-3.3.1-9] [MQTT3-3.8.4-3].
#[test]
fn subscribing_again_brings_it_again() {
    for version in BOTH {
        let topic = unique("t/");
        let mut c = client(version);
        keep(&mut c, 1, &topic, "kept");
        for _ in 0..3 {
            c.subscribe(&topic, 1);
            let got = c.message();
            assert_eq!((got.text(), got.retain), ("kept", true));
        }
        c.quiet();
        keep(&mut c, 1, &topic, "");
    }
}

/// Retain Handling 1: only when the subscription is new; 2: never [MQTT5-3.3.1-10] [MQTT5-3.3.1-11].
#[test]
fn retain_handling() {
    let (id, topic) = (unique("s"), unique("t/"));
    let mut publisher = client(V5);
    keep(&mut publisher, 1, &topic, "kept");
    let mut c = Connect::v5(&id).persistent().to(broker());
    c.subscribe(&topic, 1 | WHEN_NEW);
    assert_eq!(c.message().text(), "kept");
    c.subscribe(&topic, WHEN_NEW);
    c.quiet();
    c.subscribe(&topic, 1 | NEVER);
    c.quiet();
    c.subscribe(&topic, 1);
    assert_eq!(c.message().text(), "kept");
    c.unsubscribe(&[&topic]);
    c.subscribe(&topic, 1 | WHEN_NEW);
    assert_eq!(c.message().text(), "kept", "new again after UNSUBSCRIBE");
    c.disconnect();
    let mut c = Connect::v5(&id).persistent().to(broker());
    c.subscribe(&topic, 1 | WHEN_NEW);
    c.quiet();
    assert_eq!(retained(V5, &topic, 1 | NEVER), []);
    publisher.say(1, &topic, "live");
    assert_eq!(c.message().text(), "live");
    keep(&mut publisher, 1, &topic, "");
    drop(c);
    forget(&id);
}

/// Retain As Published decides on the RETAIN flag of live messages [MQTT5-3.3.1-12] [MQTT5-3.3.1-13].
#[test]
fn retain_as_published() {
    let topic = unique("t/");
    let (mut plain, mut as_published) = (client(V5), client(V5));
    plain.subscribe(&topic, 1);
    as_published.subscribe(&topic, 1 | AS_PUBLISHED);
    let mut publisher = client(V5);
    for retain in [true, false] {
        let mut publish = Publish::new(&topic, "x").qos(1, 0);
        publish.retain = retain;
        publisher.deliver(&publish);
        assert!(!plain.message().retain);
        assert_eq!(as_published.message().retain, retain);
    }
    assert!(retained(V5, &topic, 1)[0].1, "an answer to a subscription is flagged in any case");
    keep(&mut publisher, 1, &topic, "");
    assert!(as_published.message().retain);
}

/// Queued for a session with Retain As Published, the flag is as published too [MQTT5-3.3.1-13].
#[test]
fn retain_as_published_of_queued_messages() {
    for (options, want) in [(1, false), (1 | AS_PUBLISHED, true)] {
        let (id, topic) = (unique("s"), unique("t/"));
        absent_subscriber(V5, &id, &topic, options);
        let mut publisher = client(V5);
        keep(&mut publisher, 1, &topic, "kept");
        let mut c = Connect::v5(&id).persistent().to(broker());
        assert_eq!(c.message().retain, want);
        keep(&mut publisher, 1, &topic, "");
        drop(c);
        forget(&id);
    }
}

/// Shared subscriptions get no retained messages when they are made (4.8.2).
#[test]
fn shared_subscriptions_get_no_retained_messages() {
    let topic = unique("t/");
    let mut c = client(V5);
    keep(&mut c, 1, &topic, "kept");
    c.subscribe(&format!("$share/g/{topic}"), 1);
    c.quiet();
    c.say(1, &topic, "live");
    assert_eq!(c.message().text(), "live");
    keep(&mut c, 1, &topic, "");
}

/// A retained message that answers a subscription carries its identifier (3.8.2.1.2).
#[test]
fn retained_message_carries_the_subscription_identifier() {
    let topic = unique("t/");
    let mut c = client(V5);
    keep(&mut c, 1, &topic, "kept");
    for id in [1_u32, 127, 128, 268_435_455] {
        assert_eq!(c.subscribe_all(&[(&topic, 1)], &[prop::subscription_id(id)]), [1]);
        let got = c.message();
        assert_eq!((got.text(), got.retain, got.props.numbers(prop::SUBSCRIPTION_ID)), ("kept", true, vec![id]));
    }
    keep(&mut c, 1, &topic, "");
}

/// More retained messages than the client's Receive Maximum come one after the other [MQTT5-3.3.4-9].
#[test]
fn retained_messages_keep_the_receive_maximum() {
    for persistent in [false, true] {
        let (stem, id) = (unique("t/"), unique("s"));
        let mut publisher = client(V5);
        for n in 0..20 {
            keep(&mut publisher, 1 + n % 2, &format!("{stem}/{n}"), &n.to_string());
        }
        let connect = Connect::v5(&id).with(prop::receive_max(3_u16));
        let connect = if persistent { connect.persistent() } else { connect };
        let mut c = connect.to(broker());
        c.subscribe(&format!("{stem}/#"), 2);
        let mut got: Vec<u32> = Vec::new();
        let first: Vec<Publish> = (0..3).map(|_| c.publish_packet()).collect();
        c.quiet();
        for publish in first {
            c.finish(&publish);
            got.push(publish.text().parse().expect("a number"));
        }
        while got.len() < 20 {
            let publish = c.message();
            assert!(publish.retain);
            got.push(publish.text().parse().expect("a number"));
        }
        got.sort_unstable();
        assert_eq!(got, (0..20).collect::<Vec<u32>>());
        c.quiet();
        for n in 0..20 {
            keep(&mut publisher, 0, &format!("{stem}/{n}"), "");
        }
        drop(c);
        forget(&id);
    }
}

/// Retained messages sent and not acknowledged belong to the session: they come again [MQTT5-4.4.0-1] [MQTT3-4.4.0-1].
#[test]
fn unacknowledged_retained_messages_come_again() {
    for version in BOTH {
        let (topic, id) = (unique("t/"), unique("s"));
        let mut publisher = client(version);
        keep(&mut publisher, 1, &topic, "kept");
        let connect = Connect::new(version, &id).persistent();
        let mut c = connect.to(broker());
        c.subscribe(&topic, 1);
        let first = c.publish_packet();
        c.cut();
        let mut c = connect.to(broker());
        let again = c.message();
        assert_eq!((again.id, again.text(), again.dup, again.retain), (first.id, "kept", true, true));
        c.quiet();
        keep(&mut publisher, 1, &topic, "");
        drop(c);
        forget(&id);
    }
}

/// Overlapping subscriptions in one SUBSCRIBE bring the retained message for each of them [MQTT5-3.8.4-5].
#[test]
fn each_subscription_brings_its_retained_messages() {
    for version in BOTH {
        let stem = unique("t/");
        let topic = format!("{stem}/a");
        let mut c = client(version);
        keep(&mut c, 1, &topic, "kept");
        assert_eq!(c.subscribe_all(&[(&topic, 1), (&format!("{stem}/+"), 0)], &[]), [1, 0]);
        let mut qos: Vec<u8> = (0..2).map(|_| c.message().qos).collect();
        qos.sort_unstable();
        assert_eq!(qos, [0, 1]);
        c.quiet();
        keep(&mut c, 1, &topic, "");
    }
}
