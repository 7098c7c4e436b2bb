//! What survives the end of the broker: a clean stop, and kill -9 at any moment after an acknowledgement.

use super::common::*;
use std::time::{Duration, Instant};

/// How the broker ends.
#[derive(Debug, Clone, Copy)]
enum End {
    Stop,
    Kill,
}

const ENDS: [End; 2] = [End::Stop, End::Kill];

fn restart(broker: &mut Broker, end: End) {
    match end {
        End::Stop => {
            let status = broker.stop();
            assert!(status.success(), "SIGTERM: {status}");
        }
        End::Kill => broker.kill(),
    }
    broker.start_again();
}

/// All that the broker has processed until now is on disk: something durable behind it was acknowledged.
fn on_disk(c: &mut Client) {
    assert!(c.deliver(&Publish::new("mark", "x").qos(1, 0).retain()) < 0x80);
}

/// Subscriptions, queued messages in order, and retained messages [MQTT5-3.1.2-23] [MQTT5-4.5.0-1] [MQTT3-3.1.2-5]
/// [MQTT5-3.3.1-5].
#[test]
fn sessions_queues_and_retained_messages_survive() {
    for end in ENDS {
        let Some(mut own) = Broker::own(&[]) else { return };
        for version in BOTH {
            let mut c = Connect::new(version, &format!("s{version:?}")).persistent().to(&own);
            assert_eq!(c.subscribe_all(&[("t/+", 2), ("gone", 1)], &[]), [2, 1]);
            c.unsubscribe(&["gone"]);
            c.disconnect();
        }
        let mut publisher = Connect::v5("p").to(&own);
        for n in 0..40_u8 {
            let message = Publish::new("t/a", n.to_string()).qos(1 + n % 2, 0).with(prop::user("n", &n.to_string()));
            assert_eq!(publisher.deliver(&message), 0);
        }
        for n in 0..10 {
            let topic = format!("kept/{n}");
            publisher.deliver(&Publish::new(&topic, "first").qos(1, 0).retain());
            publisher.deliver(&Publish::new(&topic, n.to_string()).qos(1, 0).retain());
        }
        publisher.deliver(&Publish::new("kept/3", "").qos(1, 0).retain());
        drop(publisher);
        restart(&mut own, end);
        let mut publisher = Connect::v5("p").to(&own);
        assert!(!publisher.connack.present);
        for version in BOTH {
            let mut c = Connect::new(version, &format!("s{version:?}")).persistent().to(&own);
            assert!(c.connack.present, "{end:?} {version:?}");
            for n in 0..40_u8 {
                let got = c.message();
                assert_eq!((got.text(), got.qos), (n.to_string().as_str(), 1 + n % 2), "{end:?}");
                if version == V5 {
                    assert_eq!(got.props.users(), [("n", n.to_string().as_str())]);
                }
            }
            c.disconnect();
        }
        publisher.say(1, "gone", "not for it");
        publisher.say(1, "t/b", "after");
        for version in BOTH {
            let mut c = Connect::new(version, &format!("s{version:?}")).persistent().to(&own);
            assert_eq!(c.message().text(), "after", "{end:?} {version:?}");
            c.quiet();
        }
        let mut c = Connect::v311("r").to(&own);
        c.subscribe("kept/#", 1);
        let mut got: Vec<String> = (0..9).map(|_| c.message().text().to_owned()).collect();
        got.sort();
        assert_eq!(got, ["0", "1", "2", "4", "5", "6", "7", "8", "9"], "{end:?}");
        c.quiet();
    }
}

/// Options and identifiers of subscriptions, and membership of groups.
#[test]
fn subscription_options_survive() {
    for end in ENDS {
        let Some(mut own) = Broker::own(&[]) else { return };
        let mut c = Connect::v5("s").persistent().to(&own);
        assert_eq!(c.subscribe_all(&[("a", 1 | 0x08)], &[prop::subscription_id(77_u32)]), [1]);
        c.subscribe("b", 1 | 0x04);
        c.subscribe("$share/g/c", 1);
        c.disconnect();
        restart(&mut own, end);
        let mut c = Connect::v5("s").persistent().to(&own);
        let mut publisher = Connect::v5("p").to(&own);
        publisher.deliver(&Publish::new("a", "as published").qos(1, 0).retain());
        let got = c.message();
        assert!(got.retain, "Retain As Published");
        assert_eq!(got.props.numbers(prop::SUBSCRIPTION_ID), [77]);
        c.say(1, "b", "mine");
        c.quiet();
        publisher.say(1, "b", "theirs");
        assert_eq!(c.message().text(), "theirs");
        publisher.say(1, "c", "shared");
        assert_eq!(c.message().text(), "shared");
        c.quiet();
    }
}

/// Messages in flight to a client come again under the same identifiers in the same order, PUBREL where PUBREC had
/// come [MQTT5-4.4.0-1] [MQTT5-4.3.3-6] [MQTT3-4.4.0-1].
#[test]
fn messages_in_flight_to_a_client_survive() {
    for end in ENDS {
        for version in BOTH {
            let Some(mut own) = Broker::own(&[]) else { return };
            let connect = Connect::new(version, "s").persistent();
            let mut c = connect.to(&own);
            c.subscribe("t", 2);
            let mut publisher = Connect::v5("p").to(&own);
            for n in 0..8_u8 {
                publisher.say(1 + n % 2, "t", n.to_string());
            }
            let sent: Vec<Publish> = (0..8).map(|_| c.publish_packet()).collect();
            // 0 is done, 1 and 3 are received, 5 is done entirely.
            c.ack(PubAck, sent[0].id);
            c.finish(&sent[5]);
            for n in [1, 3] {
                c.ack(PubRec, sent[n].id);
                assert_eq!(c.await_ack(PubRel, sent[n].id), 0);
            }
            // PINGRESP behind the acknowledgements shows that they are processed; what is answered is on disk.
            let _ = c.fence();
            // This is durable too, so what was processed before is on disk when it is acknowledged.
            publisher.say(1, "t", "later");
            drop(publisher);
            restart(&mut own, end);
            drop(c);
            let mut c = connect.to(&own);
            assert!(c.connack.present);
            let mut again = Vec::new();
            let mut releases = Vec::new();
            for _ in 0..7 {
                match c.recv() {
                    Packet::Publish(publish) => again.push(publish),
                    Packet::Ack { kind: PubRel, id, .. } => releases.push(id),
                    other => panic!("{other:?}"),
                }
            }
            assert_eq!(releases, [sent[1].id, sent[3].id], "{end:?} {version:?}");
            let want: Vec<(u16, &str)> = [2, 4, 6, 7].into_iter().map(|n| (sent[n].id, sent[n].text())).collect();
            let got: Vec<(u16, &str)> = again.iter().map(|p| (p.id, p.text())).collect();
            assert_eq!(got[..4], want, "{end:?} {version:?}");
            assert!(again[..4].iter().all(|p| p.dup), "[MQTT5-3.3.1-1]");
            assert_eq!(got.len(), 5);
            assert_eq!(got[4].1, "later");
            for id in releases {
                c.ack(PubComp, id);
            }
            for publish in &again {
                c.finish(publish);
            }
            c.quiet();
        }
    }
}

/// Identifiers of QoS 2 messages from a client survive: exactly once across the restart [MQTT5-4.3.3-10]
/// [MQTT3-4.3.3-2].
#[test]
fn messages_in_flight_from_a_client_survive() {
    for end in ENDS {
        for version in BOTH {
            let Some(mut own) = Broker::own(&[]) else { return };
            let mut sub = Connect::v5("s").persistent().to(&own);
            sub.subscribe("t", 2);
            sub.disconnect();
            let connect = Connect::new(version, "p").persistent();
            let mut publisher = connect.to(&own);
            for id in 1..=5 {
                publisher.publish(&Publish::new("t", id.to_string()).qos(2, id));
                assert_eq!(publisher.await_ack(PubRec, id), 0);
            }
            publisher.ack(PubRel, 2);
            assert_eq!(publisher.await_ack(PubComp, 2), 0);
            restart(&mut own, end);
            drop(publisher);
            let mut publisher = connect.to(&own);
            assert!(publisher.connack.present);
            for id in [1, 3, 4, 5] {
                publisher.publish(&Publish::new("t", id.to_string()).qos(2, id).dup());
                assert_eq!(publisher.await_ack(PubRec, id), 0);
            }
            for id in [1, 3, 4, 5] {
                publisher.ack(PubRel, id);
                assert_eq!(publisher.await_ack(PubComp, id), 0);
            }
            publisher.publish(&Publish::new("t", "new").qos(2, 2));
            assert_eq!(publisher.await_ack(PubRec, 2), 0);
            publisher.ack(PubRel, 2);
            assert_eq!(publisher.await_ack(PubComp, 2), 0);
            let mut sub = Connect::v5("s").persistent().to(&own);
            assert_eq!(sub.texts(6), ["1", "2", "3", "4", "5", "new"], "{end:?} {version:?}");
            sub.quiet();
        }
    }
}

/// Restarted twice, with new messages in between: packet identifiers in use are not given out again [MQTT5-2.2.1-4].
#[test]
fn identifiers_in_use_stay_in_use() {
    let Some(mut own) = Broker::own(&[]) else { return };
    let connect = Connect::v5("s").persistent();
    let mut c = connect.to(&own);
    c.subscribe("t", 1);
    let mut seen = std::collections::HashMap::new();
    for (round, end) in [End::Kill, End::Stop, End::Kill].into_iter().enumerate() {
        let mut publisher = Connect::v5("p").to(&own);
        for n in 0..3 {
            publisher.say(1, "t", format!("{round}.{n}"));
        }
        for _ in 0..3 {
            let got = c.publish_packet();
            assert!(!got.dup);
            let text = got.text().to_owned();
            assert!(seen.insert(got.id, text).is_none(), "identifier {} again", got.id);
        }
        drop(publisher);
        restart(&mut own, end);
        c = connect.to(&own);
        for _ in 0..seen.len() {
            let got = c.publish_packet();
            assert!(got.dup);
            assert_eq!(seen.get(&got.id).map(String::as_str), Some(got.text()));
        }
    }
}

/// Message expiry counts while the broker is down [MQTT5-3.3.2-5] [MQTT5-3.3.2-6].
#[test]
fn message_expiry_counts_across_a_restart() {
    for end in ENDS {
        let Some(mut own) = Broker::own(&[]) else { return };
        let mut c = Connect::v5("s").persistent().to(&own);
        c.subscribe("t", 1);
        c.disconnect();
        let mut publisher = Connect::v5("p").to(&own);
        for (text, secs) in [("short", 1_u32), ("long", 100)] {
            let message = |topic: &str| Publish::new(topic, text).qos(1, 0).with(prop::message_expiry(secs));
            publisher.deliver(&message("t"));
            publisher.deliver(&message(&format!("kept/{text}")).retain());
        }
        drop(publisher);
        match end {
            End::Stop => drop(own.stop()),
            End::Kill => own.kill(),
        }
        let_pass(2_100);
        own.start_again();
        let mut c = Connect::v5("s").persistent().to(&own);
        let got = c.message();
        assert_eq!(got.text(), "long", "{end:?}");
        let left = got.props.number(prop::MESSAGE_EXPIRY);
        assert!(matches!(left, Some(80..=98)), "{left:?}");
        c.quiet();
        c.subscribe("kept/#", 0);
        let got = c.message();
        assert_eq!(got.text(), "long");
        let left = got.props.number(prop::MESSAGE_EXPIRY);
        assert!(matches!(left, Some(80..=98)), "{left:?}");
        c.quiet();
    }
}

/// Session expiry counts while the broker is down [MQTT5-4.1.0-2].
#[test]
fn session_expiry_counts_across_a_restart() {
    for end in ENDS {
        let Some(mut own) = Broker::own(&[]) else { return };
        let expires = |id: &str, secs: u32| Connect::v5(id).resume().with(prop::session_expiry(secs));
        expires("short", 1).to(&own).disconnect();
        expires("long", 100).to(&own).disconnect();
        match end {
            End::Stop => drop(own.stop()),
            End::Kill => own.kill(),
        }
        let_pass(2_100);
        own.start_again();
        assert!(!expires("short", 1).to(&own).connack.present, "{end:?}");
        assert!(expires("long", 100).to(&own).connack.present, "{end:?}");
    }
}

/// A will that waits for its delay is published after the restart; reconnecting in time keeps it back
/// [MQTT5-3.1.2-8] [MQTT5-3.1.3-9].
#[test]
fn waiting_wills_survive() {
    for end in ENDS {
        let Some(mut own) = Broker::own(&[]) else { return };
        let mut sub = Connect::v5("sub").persistent().to(&own);
        sub.subscribe("will/+", 1);
        sub.disconnect();
        for id in ["a", "b"] {
            let will = Publish::new(&format!("will/{id}"), "gone").qos(1, 0).with(prop::will_delay(2_u32));
            Connect::v5(id).persistent().will(will.with(prop::content_type("text"))).to(&own).cut();
        }
        restart(&mut own, end);
        let mut kept = Connect::v5("b").persistent().to(&own);
        assert!(kept.connack.present);
        let mut sub = Connect::v5("sub").persistent().to(&own);
        let got = sub.message();
        assert_eq!((got.topic.as_str(), got.text(), got.qos), ("will/a", "gone", 1), "{end:?}");
        assert_eq!(got.props.text(prop::CONTENT_TYPE), Some("text"));
        let_pass(1_500);
        sub.quiet();
        kept.quiet();
    }
}

/// kill -9 breaks all connections, so the wills of those that do not come back are published after the restart; a
/// clean stop publishes none.
#[test]
fn wills_of_connected_clients() {
    for end in ENDS {
        let Some(mut own) = Broker::own(&[]) else { return };
        let mut sub = Connect::v5("sub").persistent().to(&own);
        sub.subscribe("will", 1);
        sub.disconnect();
        let will = Publish::new("will", "gone").qos(1, 0).retain();
        let mut c = Connect::v5("c").persistent().will(will).to(&own);
        on_disk(&mut c);
        restart(&mut own, end);
        let mut sub = Connect::v5("sub").persistent().to(&own);
        match end {
            End::Kill => assert_eq!(sub.message().text(), "gone"),
            End::Stop => {
                let mut late = Connect::v5("late").to(&own);
                late.subscribe("will", 1);
                late.quiet();
                sub.quiet();
            }
        }
    }
}

/// SIGTERM: MQTT 5 clients are told 0x8B, all are closed, and the broker ends within a second when idle.
#[test]
fn clean_stop_is_told() {
    let Some(mut own) = Broker::own(&[]) else { return };
    let mut new = Connect::v5("new").persistent().to(&own);
    let mut old = Connect::v311("old").to(&own);
    new.subscribe("t", 1);
    old.subscribe("t", 1);
    let start = Instant::now();
    let status = own.stop();
    let took = start.elapsed();
    assert!(status.success(), "{status}");
    assert!(took < Duration::from_secs(2), "ended after {took:?}");
    new.thrown_out(&[0x8B]);
    old.thrown_out(&[]);
}

/// Sessions that end with their connection do not come back, and neither do their subscriptions.
#[test]
fn transient_sessions_do_not_survive() {
    let Some(mut own) = Broker::own(&[]) else { return };
    let mut c = Connect::v5("c").to(&own);
    c.subscribe("t", 1);
    restart(&mut own, End::Kill);
    assert!(!Connect::v5("c").resume().to(&own).connack.present);
    assert!([0, 0x10].contains(&Connect::v5("p").to(&own).say(1, "t", "x")));
}

/// Many restarts in a row, each adding and taking messages, end with exactly what was published.
#[test]
fn many_restarts_lose_and_double_nothing() {
    let Some(mut own) = Broker::own(&[]) else { return };
    let connect = Connect::v5("s").persistent();
    let mut c = connect.to(&own);
    c.subscribe("t", 2);
    c.disconnect();
    let mut said = Vec::new();
    let mut got = Vec::new();
    for round in 0..6 {
        let mut publisher = Connect::v5("p").to(&own);
        for n in 0..20_u8 {
            let text = format!("{round}.{n}");
            assert_eq!(publisher.say(2, "t", &text), 0);
            said.push(text);
        }
        let mut c = connect.to(&own);
        take(&mut c, 10 + round, &mut got);
        // PUBCOMP is answered by nothing: the acknowledgement of something durable behind it shows that it is on disk.
        let _ = c.fence();
        on_disk(&mut publisher);
        restart(&mut own, if round % 2 == 0 { End::Kill } else { End::Stop });
    }
    let mut c = connect.to(&own);
    let rest = said.len() - got.len();
    take(&mut c, rest, &mut got);
    assert_eq!(got, said);
}

/// Takes `count` messages to the end of their flow. A PUBCOMP that was not yet on disk when the broker ended may bring
/// PUBREL again, never PUBLISH.
fn take(c: &mut Client, count: usize, got: &mut Vec<String>) {
    let end = got.len() + count;
    while got.len() < end {
        match c.recv() {
            Packet::Publish(publish) => {
                c.finish(&publish);
                got.push(publish.text().to_owned());
            }
            Packet::Ack { kind: PubRel, id, .. } => c.ack(PubComp, id),
            other => panic!("{other:?}"),
        }
    }
}
