//! Every bound: below it all is well, at its edge the peer is told the reason code that `limits.rs` names.

use super::common::*;
use std::time::Instant;

/// A broker with these limits.
fn limited(limits: &[&str]) -> Option<Broker> {
    let settings: Vec<String> = limits.iter().map(|limit| format!("limits.{limit}")).collect();
    let args: Vec<&str> = settings.iter().flat_map(|setting| ["--set", setting.as_str()]).collect();
    Broker::own(&args)
}

/// `packet_bytes_max`: announced, and 0x95 beyond.
#[test]
fn packet_bytes_max() {
    let Some(own) = limited(&["packet_bytes_max=512"]) else { return };
    let mut c = Connect::v5("c").to(&own);
    assert_eq!(c.connack.props.number(prop::MAX_PACKET_SIZE), Some(512));
    c.say(1, "t", vec![0; 500]);
    c.publish(&Publish::new("t", vec![0; 512]));
    c.thrown_out(&[0x95]);
    let mut c = Connect::v311("c").to(&own);
    c.publish(&Publish::new("t", vec![0; 512]));
    c.thrown_out(&[]);
    // Before CONNECT is complete its version is not known, so the refusal may be silent.
    let mut c = Connect::v5("c").username("u".repeat(600)).send_to(&own);
    let got = c.closed();
    assert!(matches!(got.as_slice(), [] | [Packet::ConnAck(ConnAck { code: 0x95, .. })]), "{got:?}");
}

/// `receive_max`: announced, and 0x93 beyond.
#[test]
fn receive_max() {
    let Some(own) = limited(&["receive_max=3"]) else { return };
    let mut c = Connect::v5("c").to(&own);
    assert_eq!(c.connack.props.number(prop::RECEIVE_MAX), Some(3));
    for id in 1..=3 {
        c.publish(&Publish::new("t", "x").qos(2, id));
        assert!(c.await_ack(PubRec, id) < 0x80);
    }
    c.ack(PubRel, 2);
    assert_eq!(c.await_ack(PubComp, 2), 0);
    c.publish(&Publish::new("t", "x").qos(2, 4));
    assert!(c.await_ack(PubRec, 4) < 0x80);
    c.publish(&Publish::new("t", "x").qos(2, 1).dup());
    assert!(c.await_ack(PubRec, 1) < 0x80, "a repetition is not one more");
    c.publish(&Publish::new("t", "x").qos(2, 5));
    c.thrown_out(&[0x93]);
}

/// `in_flight_max`: no more unanswered messages than that, whatever the client allows; 3.1.1 too.
#[test]
fn in_flight_max() {
    let Some(own) = limited(&["in_flight_max=2"]) else { return };
    for version in BOTH {
        let mut sub = Connect::new(version, "sub").to(&own);
        sub.subscribe("t", 1);
        let mut publisher = Connect::v5("p").to(&own);
        for n in 0..5 {
            publisher.say(1, "t", n.to_string());
        }
        let first = [sub.publish_packet(), sub.publish_packet()];
        sub.quiet();
        for publish in &first {
            sub.finish(publish);
        }
        assert_eq!(sub.texts(3), ["2", "3", "4"]);
    }
}

/// `topic_alias_max`: announced, 0x94 beyond; 0 announces none.
#[test]
fn topic_alias_max() {
    let Some(own) = limited(&["topic_alias_max=2"]) else { return };
    let mut c = Connect::v5("c").to(&own);
    assert_eq!(c.connack.props.number(prop::TOPIC_ALIAS_MAX), Some(2));
    c.deliver(&Publish::new("t", "x").qos(1, 0).with(prop::topic_alias(2_u16)));
    c.publish(&Publish::new("t", "x").with(prop::topic_alias(3_u16)));
    c.thrown_out(&[0x94]);
    let Some(own) = limited(&["topic_alias_max=0"]) else { return };
    let mut c = Connect::v5("c").to(&own);
    assert!(matches!(c.connack.props.number(prop::TOPIC_ALIAS_MAX), None | Some(0)));
    c.publish(&Publish::new("t", "x").with(prop::topic_alias(1_u16)));
    c.thrown_out(&[0x94]);
}

/// `topic_alias_out_max`: no more aliases towards a client than that.
#[test]
fn topic_alias_out_max() {
    let Some(own) = limited(&["topic_alias_out_max=1"]) else { return };
    let mut sub = Connect::v5("sub").with(prop::topic_alias_max(10_u16)).to(&own);
    sub.subscribe("t/#", 0);
    let mut publisher = Connect::v5("p").to(&own);
    for n in 0..20 {
        publisher.say(0, &format!("t/{}", n % 4), "x");
        assert!(sub.message().props.number(prop::TOPIC_ALIAS).unwrap_or(1) == 1);
    }
}

/// `session_expiry_max_secs`: longer wishes are shortened and the client is told (3.2.2.3.2).
#[test]
fn session_expiry_max() {
    let Some(own) = limited(&["session_expiry_max_secs=10"]) else { return };
    for (wish, told) in [(5_u32, None), (10, None), (11, Some(10)), (u32::MAX, Some(10))] {
        let c = Connect::v5("c").with(prop::session_expiry(wish)).to(&own);
        let got = c.connack.props.number(prop::SESSION_EXPIRY);
        assert!(got == told || (told.is_none() && got == Some(wish)), "{wish}: {got:?}");
    }
}

/// `sessions_max`: 0x97, or 0x03 in 3.1.1; sessions that are there already may come back.
#[test]
fn sessions_max() {
    let Some(own) = limited(&["sessions_max=2"]) else { return };
    Connect::v5("a").persistent().to(&own).disconnect();
    Connect::v311("b").persistent().to(&own).disconnect();
    assert_eq!(Connect::v5("c").persistent().refused(&own), 0x97);
    assert_eq!(Connect::v311("c").persistent().refused(&own), 0x03);
    Connect::v5("c").to(&own).quiet();
    assert!(Connect::v5("a").persistent().to(&own).connack.present);
    Connect::v5("b").to(&own).disconnect();
    Connect::v5("c").persistent().to(&own).disconnect();
}

/// `terminals_per_account_max`: 0x97, or 0x03 in 3.1.1.
#[test]
fn terminals_per_account_max() {
    let Some(own) = limited(&["terminals_per_account_max=2"]) else { return };
    let a = Connect::v5("a").to(&own);
    let mut b = Connect::v5("b").to(&own);
    assert_eq!(Connect::v5("c").refused(&own), 0x97);
    assert_eq!(Connect::v311("c").refused(&own), 0x03);
    a.disconnect();
    Connect::v5("c").to(&own).quiet();
    b.quiet();
}

/// `connections_max`: one more is told 0x89, or 0x03 in 3.1.1.
#[test]
fn connections_max() {
    let Some(own) = limited(&["connections_max=2"]) else { return };
    let a = Connect::v5("a").to(&own);
    let mut b = Connect::v311("b").to(&own);
    for version in BOTH {
        let mut c = Connect::new(version, "c").send_to(&own);
        c.version = version;
        let got = c.closed();
        let want = if version == V5 { 0x89 } else { 0x03 };
        assert!(matches!(got.as_slice(), [Packet::ConnAck(ConnAck { code, .. })] if *code == want), "{got:?}");
    }
    a.disconnect();
    Connect::v5("c").to(&own).quiet();
    b.quiet();
}

/// `queue_messages_max`: what is beyond is dropped for that session; the publisher hears 0x97 if nobody got it.
#[test]
fn queue_messages_max() {
    let Some(own) = limited(&["queue_messages_max=3"]) else { return };
    for version in BOTH {
        let mut c = Connect::new(version, "away").persistent().to(&own);
        c.subscribe("t", 1);
        c.disconnect();
        let mut publisher = Connect::v5("p").to(&own);
        let codes: Vec<u8> = (0..5).map(|n| publisher.say(1, "t", n.to_string())).collect();
        assert_eq!(codes, [0, 0, 0, 0x97, 0x97]);
        let mut other = Connect::v5("o").to(&own);
        other.subscribe("t", 1);
        assert_eq!(publisher.say(1, "t", "somebody got it"), 0);
        other.disconnect();
        let mut c = Connect::new(version, "away").persistent().to(&own);
        assert_eq!(c.texts(3), ["0", "1", "2"]);
        c.quiet();
        assert_eq!(publisher.say(1, "t", "room again"), 0);
        assert_eq!(c.message().text(), "room again");
        drop(c);
        Connect::v5("away").to(&own).disconnect();
    }
}

/// `queue_bytes_max`: the same by size.
#[test]
fn queue_bytes_max() {
    let Some(own) = limited(&["queue_bytes_max=4096"]) else { return };
    let mut c = Connect::v5("away").persistent().to(&own);
    c.subscribe("t", 1);
    c.disconnect();
    let mut publisher = Connect::v5("p").to(&own);
    let codes: Vec<u8> = (0..5).map(|_| publisher.say(1, "t", vec![0; 1_200])).collect();
    assert_eq!(codes, [0, 0, 0, 0x97, 0x97]);
    let mut c = Connect::v5("away").persistent().to(&own);
    for _ in 0..3 {
        c.message();
    }
    c.quiet();
}

/// `memory_queue_messages_max` and `memory_queue_bytes_max`: the same for a connected session that is not kept.
#[test]
fn memory_queue_max() {
    for (limit, size) in [("memory_queue_messages_max=3", 1), ("memory_queue_bytes_max=4096", 1_200)] {
        let Some(own) = limited(&[limit]) else { return };
        let mut sub = Connect::v5("sub").with(prop::receive_max(1_u16)).to(&own);
        sub.subscribe("t", 1);
        let mut publisher = Connect::v5("p").to(&own);
        let codes: Vec<u8> = (0..8).map(|_| publisher.say(1, "t", vec![0; size])).collect();
        let taken = codes.iter().position(|code| *code != 0).unwrap_or(codes.len());
        assert!((3..=4).contains(&taken), "{limit}: {codes:02x?}");
        assert!(codes[taken..].iter().all(|code| *code == 0x97), "{limit}: {codes:02x?}");
        for _ in 0..taken {
            sub.message();
        }
        sub.quiet();
        assert_eq!(publisher.say(1, "t", "room again"), 0);
        sub.message();
    }
}

/// `retained_messages_max` and `retained_bytes_max`: setting one more is refused with 0x97; replacing is not.
#[test]
fn retained_max() {
    for (limit, size) in [("retained_messages_max=2", 1), ("retained_bytes_max=2600", 1_200)] {
        let Some(own) = limited(&[limit]) else { return };
        let mut c = Connect::v5("c").to(&own);
        let mut keep = |topic: &str, size: usize| c.deliver(&Publish::new(topic, vec![1; size]).qos(1, 0).retain());
        assert!(keep("a", size) < 0x80);
        assert!(keep("b", size) < 0x80);
        assert_eq!(keep("c", size), 0x97, "{limit}");
        assert!(keep("a", size) < 0x80, "{limit}: replacing");
        assert!(keep("c", 0) < 0x80, "{limit}: removing what is not there");
        assert!(keep("b", 0) < 0x80, "{limit}: removing");
        assert!(keep("c", size) < 0x80, "{limit}: room again");
        let mut sub = Connect::v311("sub").to(&own);
        sub.subscribe("#", 0);
        let mut topics: Vec<String> = (0..2).map(|_| sub.message().topic).collect();
        topics.sort();
        assert_eq!(topics, ["a", "c"]);
        sub.quiet();
    }
}

/// `subscriptions_per_session_max`: 0x97, or 0x80 in 3.1.1; replacing is no new subscription.
#[test]
fn subscriptions_per_session_max() {
    let Some(own) = limited(&["subscriptions_per_session_max=2"]) else { return };
    for version in BOTH {
        let mut c = Connect::new(version, "c").to(&own);
        let refused = if version == V5 { 0x97 } else { 0x80 };
        assert_eq!(c.subscribe_all(&[("a", 1), ("b", 1), ("c", 1)], &[]), [1, 1, refused]);
        assert_eq!(c.subscribe_code("a", 2), 2);
        c.unsubscribe(&["b"]);
        assert_eq!(c.subscribe_code("c", 0), 0);
        assert_eq!(c.subscribe_code("$share/g/d", 0), refused);
    }
}

/// `subscriptions_max`: the same over all sessions.
#[test]
fn subscriptions_max() {
    let Some(own) = limited(&["subscriptions_max=2"]) else { return };
    let mut a = Connect::v5("a").to(&own);
    let mut b = Connect::v311("b").to(&own);
    assert_eq!(a.subscribe_code("t", 0), 0);
    assert_eq!(b.subscribe_code("t", 0), 0);
    assert_eq!(a.subscribe_code("u", 0), 0x97);
    assert_eq!(b.subscribe_code("u", 0), 0x80);
    a.disconnect();
    assert_eq!(b.subscribe_code("u", 0), 0);
}

/// `topic_bytes_max` and `topic_levels_max`: 0x90 for names, 0x8F for filters (0x80 in 3.1.1).
#[test]
fn topic_max() {
    for (limit, good, bad) in
        [("topic_bytes_max=10", "0123456789", "0123456789a"), ("topic_levels_max=3", "a/b/c", "a/b/c/d")]
    {
        let Some(own) = limited(&[limit]) else { return };
        let mut c = Connect::v5("c").to(&own);
        assert!(c.say(1, good, "x") < 0x80);
        assert_eq!(c.say(1, bad, "x"), 0x90, "{limit}");
        assert_eq!(c.say(2, bad, "x"), 0x90, "{limit}");
        assert_eq!(c.subscribe_all(&[(good, 0), (bad, 0)], &[]), [0, 0x8F], "{limit}");
        let mut c = Connect::v311("d").to(&own);
        assert_eq!(c.subscribe_all(&[(good, 0), (bad, 0)], &[]), [0, 0x80], "{limit}");
        c.publish(&Publish::new(bad, "x").qos(1, 9));
        // 3.1.1 has no code for it: acknowledged and dropped, or closed [MQTT3-3.3.5-2].
        assert!(matches!(c.try_recv(PATIENCE), Ok(Packet::Ack { kind: PubAck, .. }) | Err(Lost::Closed)));
    }
}

/// `client_id_bytes_max`: 0x85, or 0x02 in 3.1.1 [MQTT5-3.1.3-8] [MQTT3-3.1.3-9].
#[test]
fn client_id_bytes_max() {
    let Some(own) = limited(&["client_id_bytes_max=23"]) else { return };
    for version in BOTH {
        Connect::new(version, &"x".repeat(23)).to(&own).disconnect();
        let code = Connect::new(version, &"x".repeat(24)).refused(&own);
        assert_eq!(code, if version == V5 { 0x85 } else { 0x02 });
    }
}

/// `will_delay_max_secs`: 0x83.
#[test]
fn will_delay_max() {
    let Some(own) = limited(&["will_delay_max_secs=5"]) else { return };
    let will = |secs: u32| Publish::new("will", "x").with(prop::will_delay(secs));
    Connect::v5("c").will(will(5)).to(&own).disconnect();
    assert_eq!(Connect::v5("c").will(will(6)).refused(&own), 0x83);
}

/// `keep_alive_max_secs`: who asks for more, or for none, is told a Server Keep Alive [MQTT5-3.2.2-21], and 3.1.1 is
/// held to it.
#[test]
fn keep_alive_max() {
    let Some(own) = limited(&["keep_alive_max_secs=1"]) else { return };
    for (wish, told) in [(0, Some(1)), (60, Some(1)), (1, None)] {
        let c = Connect::v5("c").keep_alive(wish).to(&own);
        let got = c.connack.props.number(prop::SERVER_KEEP_ALIVE);
        assert!(got == told || (told.is_none() && got == Some(1)), "{wish}: {got:?}");
    }
    let mut new = Connect::v5("c").keep_alive(0).to(&own);
    let mut old = Connect::v311("d").keep_alive(0).to(&own);
    new.thrown_out(&[0x8D]);
    old.thrown_out(&[]);
}

/// `publish_rate_max` and `publish_burst_max`: 0x97 for QoS 1 and 2 of MQTT 5, the others wait for their time.
#[test]
fn publish_rate_max() {
    let Some(own) = limited(&["publish_rate_max=10", "publish_burst_max=5"]) else { return };
    let mut c = Connect::v5("c").to(&own);
    let codes: Vec<u8> = (0..10).map(|_| c.say(1, "t", "x")).collect();
    assert!(codes[..5].iter().all(|code| *code < 0x80), "{codes:02x?}");
    assert!(codes.contains(&0x97), "{codes:02x?}");
    let mut sub = Connect::v311("sub").to(&own);
    sub.subscribe("u", 0);
    let mut old = Connect::v311("d").to(&own);
    let start = Instant::now();
    for n in 0..15 {
        old.publish(&Publish::new("u", n.to_string()));
    }
    let want: Vec<String> = (0..15).map(|n| n.to_string()).collect();
    assert_eq!(sub.texts(15), want, "none is lost");
    let took = start.elapsed().as_millis();
    assert!((700..3_000).contains(&took), "10 beyond the burst at 10 a second took {took} ms");
}

/// `commit_bytes_max`: publishers wait for the disk, and nothing is lost.
#[test]
fn commit_bytes_max() {
    let Some(own) = limited(&["commit_bytes_max=65536"]) else { return };
    let mut c = Connect::v5("away").persistent().to(&own);
    c.subscribe("t", 1);
    c.disconnect();
    let mut publisher = Connect::v5("p").to(&own);
    let most = u16::try_from(publisher.connack.props.number(prop::RECEIVE_MAX).unwrap_or(65_535)).expect("two bytes");
    let count = most.min(500);
    let mut bytes = Vec::new();
    for id in 1..=count {
        bytes.extend(Publish::new("t", [id.to_be_bytes().as_slice(), &[0; 4_000]].concat()).qos(1, id).bytes(V5));
    }
    let mut feeder = publisher.stream().try_clone().expect("a second handle");
    // What is not read waits here, so the acknowledgements are taken meanwhile.
    let feeding = std::thread::spawn(move || std::io::Write::write_all(&mut feeder, &bytes));
    for id in 1..=count {
        assert_eq!(publisher.await_ack(PubAck, id), 0);
    }
    feeding.join().expect("no panic").expect("all is read in the end");
    let mut c = Connect::v5("away").persistent().to(&own);
    for id in 1..=count {
        assert_eq!(c.message().payload[..2], id.to_be_bytes());
    }
    c.quiet();
}

/// `output_bytes_max`: QoS 0 beyond it is dropped for who does not read, and only for them.
#[test]
fn output_bytes_max() {
    let Some(own) = limited(&["output_bytes_max=65536"]) else { return };
    let mut slow = Connect::v5("slow").to(&own);
    let mut quick = Connect::v5("quick").to(&own);
    slow.subscribe("t", 0);
    quick.subscribe("t", 0);
    let mut publisher = Connect::v5("p").to(&own);
    let payload = vec![0; 16_384];
    for _ in 0..1_000 {
        publisher.publish(&Publish::new("t", &payload));
        quick.message();
    }
    let got = slow.fence().len();
    assert!(got < 1_000, "all {got} came: nothing was bounded");
    assert!(got > 0);
}
