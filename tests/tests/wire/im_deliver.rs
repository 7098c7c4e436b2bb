//! Deliveries: push and pull, places, packet identifiers and credit (docs/protocol.md, section 3).

use super::common::*;
use parlor_tests::im::{House, json};
use serde_json::{Value, json};

fn friends(extra: &[&str]) -> Option<House> {
    let house = House::with(&["alice", "bob"], extra)?;
    house.befriend("alice", "bob");
    Some(house)
}

const TO_BOB: &str = "im/v1/to/bob/msg";

fn say(c: &mut Client, texts: impl IntoIterator<Item = u32>) {
    for n in texts {
        assert_eq!(c.say(1, TO_BOB, format!("text {n}")), 0);
    }
}

/// The next messages, acknowledged: their seq.
fn seqs(c: &mut Client, count: usize) -> Vec<u64> {
    (0..count).map(|_| json(&c.message())["seq"].as_u64().expect("a seq")).collect()
}

/// What was not acknowledged comes again under the same packet identifiers with DUP, in its order; what was, does not
/// [MQTT5-4.4.0-1] [MQTT3-4.4.0-1] [MQTT5-3.3.1-1] [MQTT3-3.3.1-1].
#[test]
fn a_resumed_session_gets_the_same_identifiers() {
    let ears = ["bob", "ben", "bill", "bert"];
    let Some(mut house) = House::start(&[&["alice"], &ears[..]].concat()) else { return };
    let cases = BOTH.into_iter().flat_map(|version| [(version, false), (version, true)]);
    for (ear, (version, kill)) in ears.into_iter().zip(cases) {
        house.befriend("alice", ear);
        let mut bob = house.lasting(version, ear, ear);
        bob.subscribe("im/v1/me/in/+/msg", 1);
        let mut alice = house.client(V5, "alice", "phone");
        for n in 0..5 {
            assert_eq!(alice.say(1, &format!("im/v1/to/{ear}/msg"), format!("text {n}")), 0);
        }
        let sent: Vec<Publish> = (0..5).map(|_| bob.publish_packet()).collect();
        assert!(sent.iter().all(|p| !p.dup));
        // The first and the third of five.
        bob.ack(PubAck, sent[0].id);
        bob.ack(PubAck, sent[2].id);
        bob.quiet();
        if kill {
            // What was acknowledged before is on disk when this is answered.
            assert_eq!(bob.say(1, "im/v1/to/alice/receipt", r#"{"recv":1}"#), 0);
            house.broker.kill();
            house.broker.start_again();
        } else {
            bob.cut();
        }
        let mut bob = house.lasting(version, ear, ear);
        assert!(bob.connack.present);
        // From the first that is open on: a place is one number, so what was acknowledged behind it comes again.
        for before in &sent[1..] {
            let now = bob.publish_packet();
            assert_eq!((now.id, &now.topic, &now.payload), (before.id, &before.topic, &before.payload));
            assert!(now.dup, "{version:?}, kill -9 {kill}: {}", now.text());
            bob.finish(&now);
        }
        bob.quiet();
        bob.disconnect();
        house.lasting(version, ear, ear).quiet();
    }
}

/// The place belongs to the terminal: Clean Start, another version and another keep alive lose nothing and repeat
/// nothing that was acknowledged (section 3, Push).
#[test]
fn clean_start_loses_nothing() {
    let Some(house) = friends(&[]) else { return };
    let mut alice = house.client(V5, "alice", "phone");
    let mut bob = house.client(V5, "bob", "ear");
    bob.subscribe("im/v1/me/in/+/msg", 1);
    bob.disconnect();
    let mut next = 1;
    for version in [V311, V5, V311] {
        say(&mut alice, 0..3);
        let mut bob = house.client(version, "bob", "ear");
        assert!(!bob.connack.present);
        bob.quiet();
        bob.subscribe("im/v1/me/in/+/msg", 1);
        let first = bob.publish_packet();
        assert_eq!((json(&first)["seq"].as_u64(), first.dup), (Some(next), false));
        bob.finish(&first);
        let second = bob.publish_packet();
        assert_eq!(json(&second)["seq"].as_u64(), Some(next + 1));
        let third = bob.publish_packet();
        bob.finish(&third);
        bob.cut();
        // The second was not acknowledged, so it and what is behind it comes again.
        let mut bob = house.client(version, "bob", "ear");
        bob.subscribe("im/v1/me/in/+/msg", 1);
        assert_eq!(seqs(&mut bob, 2), [next + 1, next + 2]);
        bob.quiet();
        bob.disconnect();
        next += 3;
    }
}

/// At QoS 0 the place moves when the message is sent, and nobody is told that it was delivered (section 3, G5).
#[test]
fn at_qos_0_nothing_is_delivered() {
    let Some(house) = friends(&[]) else { return };
    for version in BOTH {
        let mut alice = house.client(version, "alice", &unique("phone"));
        alice.subscribe("im/v1/me/in/+/receipt", 1);
        let id = unique("ear");
        let mut bob = house.lasting(version, "bob", &id);
        bob.subscribe("im/v1/me/in/+/msg", 0);
        let _ = bob.fence();
        say(&mut alice, 1..=3);
        for _ in 0..3 {
            let message = loop {
                let message = bob.publish_packet();
                if json(&message).get("backfill").is_none() {
                    break message;
                }
            };
            assert_eq!((message.qos, message.dup), (0, false));
        }
        bob.cut();
        say(&mut alice, 4..=4);
        let mut bob = house.lasting(version, "bob", &id);
        let only = bob.message();
        assert_eq!((json(&only)["text"].as_str(), only.qos), (Some("text 4"), 0));
        bob.quiet();
        alice.quiet();
    }
}

/// No more is under way than Receive Maximum allows, with ordinary messages and messages of conversations together,
/// and both go on as acknowledgements come [MQTT5-3.3.4-9] [MQTT5-4.9.0-1] [MQTT5-4.9.0-2].
#[test]
fn receive_maximum_is_shared_with_ordinary_messages() {
    let Some(house) = House::start(&["alice", "bob", "ben", "bill"]) else { return };
    for (ear, most) in [("bob", 1_u16), ("ben", 2), ("bill", 5)] {
        house.befriend("alice", ear);
        let mut bob = house.connect(V5, ear, ear).with(prop::receive_max(most)).to(&house.broker);
        bob.subscribe("plain/#", 1);
        bob.subscribe("im/v1/me/in/+/msg", 1);
        let mut alice = house.client(V5, "alice", "phone");
        for n in 0..10 {
            assert_eq!(alice.say(1, "plain/t", format!("plain {n}")), 0);
            assert_eq!(alice.say(1, &format!("im/v1/to/{ear}/msg"), format!("text {n}")), 0);
        }
        let (mut open, mut plain, mut said) = (vec![], vec![], vec![]);
        while plain.len() + said.len() < 20 {
            while let Some(p) = next_before_fence(&mut bob) {
                open.push(p);
                assert!(open.len() <= usize::from(most), "{} under way", open.len());
            }
            assert!(!open.is_empty(), "stuck after {plain:?} {said:?}");
            let first: Publish = open.remove(0);
            bob.finish(&first);
            match first.topic.as_str() {
                "plain/t" => plain.push(first.text().to_owned()),
                _ => said.push(json(&first)["text"].as_str().expect("a text").to_owned()),
            }
        }
        let expected = |word: &str| (0..10).map(|n| format!("{word} {n}")).collect::<Vec<_>>();
        assert_eq!((plain, said), (expected("plain"), expected("text")));
        bob.quiet();
    }
}

/// Acknowledges whatever comes until nothing does.
fn drain(c: &mut Client) {
    let mut silent = 0;
    while silent < 3 {
        match next_before_fence(c) {
            Some(p) => {
                c.finish(&p);
                silent = 0;
            }
            None => silent += 1,
        }
    }
}

/// The next PUBLISH, or nothing when the server has none now.
fn next_before_fence(c: &mut Client) -> Option<Publish> {
    c.send(&[0xC0, 0]);
    let first = match c.recv() {
        Packet::Publish(p) => p,
        Packet::PingResp => return None,
        other => panic!("{other:?}"),
    };
    // The rest stays for later, in order.
    c.find("PINGRESP", |p| matches!(p, Packet::PingResp).then_some(()));
    Some(first)
}

/// What is larger than Maximum Packet Size is left out, counts as done, and stops nothing behind it [MQTT5-3.1.2-24].
#[test]
fn maximum_packet_size_is_kept() {
    let Some(house) = friends(&[]) else { return };
    let mut bob = house.connect(V5, "bob", "ear").with(prop::max_packet_size(400_u32)).to(&house.broker);
    bob.subscribe("im/v1/me/in/+/msg", 1);
    let mut alice = house.client(V5, "alice", "phone");
    for text in ["small", &"long".repeat(200), "also small", &"longer".repeat(500), "last"] {
        assert_eq!(alice.say(1, TO_BOB, text), 0);
    }
    assert_eq!(seqs(&mut bob, 3), [1, 3, 5]);
    bob.disconnect();
    // It counts as done: it is pulled from the conversation, whose numbers tell that it is missing.
    let mut bob = house.client(V5, "bob", "ear");
    bob.subscribe_all(&[("im/v1/me/in/+/msg", 1), ("im/v1/me/history/res", 1)], &[]);
    bob.quiet();
    assert_eq!(bob.say(1, "im/v1/me/history", r#"{"with":"alice","after":1,"max":1}"#), 0);
    let page = json(&bob.on("im/v1/me/history/res"));
    assert_eq!(page["messages"][0]["seq"], 2);
}

/// Subscription Identifiers: those of every subscription that matches, and one copy [MQTT5-3.3.4-3] [MQTT5-3.3.4-5].
#[test]
fn subscription_identifiers_are_named() {
    let Some(house) = friends(&[]) else { return };
    let mut bob = house.client(V5, "bob", "ear");
    for (id, filter) in [(7_u32, "im/v1/me/in/#"), (8, "im/v1/me/in/alice/msg"), (300, "im/v1/me/in/carol/msg")] {
        assert_eq!(bob.subscribe_all(&[(filter, 1)], &[prop::subscription_id(id)]), [1]);
    }
    let mut alice = house.client(V5, "alice", "phone");
    say(&mut alice, 1..=1);
    let message = bob.message();
    let mut ids = message.props.numbers(prop::SUBSCRIPTION_ID);
    ids.sort_unstable();
    assert_eq!(ids, [7, 8]);
    bob.quiet();
    assert_eq!(bob.unsubscribe(&["im/v1/me/in/#"]), [0]);
    say(&mut alice, 2..=2);
    assert_eq!(bob.message().props.numbers(prop::SUBSCRIPTION_ID), [8]);
    assert_eq!(bob.unsubscribe(&["im/v1/me/in/alice/msg", "im/v1/me/in/bob/msg"]), [0, 0x11]);
    say(&mut alice, 3..=3);
    bob.quiet();
}

/// Notify, then pull: one small head at a time, and nothing is lost when heads are (section 3, R79, A5).
#[test]
fn a_terminal_that_pulls_gets_one_head_at_a_time() {
    let Some(house) = friends(&[]) else { return };
    for version in BOTH {
        let mut alice = house.client(version, "alice", &unique("phone"));
        let id = unique("puller");
        let mut bob = house.lasting(version, "bob", &id);
        assert_eq!(bob.subscribe_all(&[("im/v1/me/head", 1), ("im/v1/me/sync/res", 1)], &[]), [1, 1]);
        let first = bob.publish_packet();
        assert_eq!((first.topic.as_str(), first.retain, first.qos), ("im/v1/me/head", true, 1));
        let at = json(&first)["pos"].as_u64().expect("a position");
        say(&mut alice, 0..20);
        // It has not answered the first one, so there is no other.
        bob.quiet();
        bob.finish(&first);
        let second = bob.publish_packet();
        let head = json(&second);
        assert_eq!(head["unread"].as_u64().zip(head["by"]["alice"].as_u64()).map(|(a, b)| a == b), Some(true));
        let until = head["pos"].as_u64().expect("a position");
        assert_eq!(until, at + 20);
        bob.quiet();
        // It dies without an answer, and pulls all the same.
        bob.cut();
        say(&mut alice, 20..25);
        let mut bob = house.client(version, "bob", &id);
        assert_eq!(bob.subscribe_all(&[("im/v1/me/head", 1), ("im/v1/me/sync/res", 1)], &[]), [1, 1]);
        assert_eq!(json(&bob.on("im/v1/me/head"))["pos"].as_u64(), Some(at + 25));
        let mut after = at;
        let mut texts = vec![];
        loop {
            assert_eq!(bob.say(1, "im/v1/me/sync", format!(r#"{{"after":{after},"max":10}}"#)), 0);
            let page = json(&bob.on("im/v1/me/sync/res"));
            let entries = page["entries"].as_array().expect("a list");
            texts.extend(entries.iter().map(|e| e["payload"]["text"].as_str().expect("a text").to_owned()));
            after = page["pos"].as_u64().expect("a position");
            if page["more"] == false {
                break;
            }
        }
        assert_eq!(texts, (0..25).map(|n| format!("text {n}")).collect::<Vec<_>>());
        // It is delivered when it says so.
        alice.subscribe("im/v1/me/in/+/receipt", 1);
        drain(&mut alice);
        assert_eq!(bob.say(1, "im/v1/me/ack", format!(r#"{{"pos":{after}}}"#)), 0);
        let receipt = json(&alice.on("im/v1/me/in/bob/receipt"));
        assert_eq!(receipt["recv"], receipt["seq"]);
        // Without a place it says, it goes on from there.
        assert_eq!(bob.say(1, "im/v1/me/sync", "{}"), 0);
        assert_eq!(json(&bob.on("im/v1/me/sync/res"))["entries"], json!([]));
        for (payload, word) in [("{}", "pos"), (r#"{"pos":100000}"#, "beyond"), (r#"{"pos":"1"}"#, "pos")] {
            let refused = bob.publish_for(1, "im/v1/me/ack", payload);
            assert_eq!(refused.code, if version == V5 { 0x99 } else { 0 }, "{payload}");
            assert!(version == V311 || refused.reason().contains(word), "{}", refused.reason());
        }
    }
}

/// A new terminal is sent the last twenty messages of a conversation, marked, and then everything new (section 3).
#[test]
fn a_new_terminal_is_given_the_last_twenty() {
    let Some(house) = friends(&[]) else { return };
    let mut alice = house.client(V5, "alice", "phone");
    say(&mut alice, 1..=30);
    for version in BOTH {
        let mut bob = house.client(version, "bob", &unique("new"));
        bob.subscribe("im/v1/me/in/+/msg", 1);
        for seq in 11..=30 {
            let message = bob.message();
            let m = json(&message);
            let wanted = (Some(seq), Some(0), Some(true), Some(seq - 1));
            assert_eq!((m["seq"].as_u64(), m["pos"].as_u64(), m["backfill"].as_bool(), m["prev"].as_u64()), wanted);
            assert!(!message.retain && !message.dup && message.qos == 1);
        }
        bob.quiet();
        let id = bob.name.clone();
        bob.disconnect();
        // Only the first time.
        let mut bob = house.client(version, "bob", &id);
        bob.subscribe("im/v1/me/in/+/msg", 1);
        bob.quiet();
    }
    let mut bob = house.client(V5, "bob", "both");
    bob.subscribe("im/v1/me/in/+/msg", 1);
    say(&mut alice, 31..=31);
    assert_eq!(seqs(&mut bob, 21), (11..=31).collect::<Vec<_>>());
    // The account's own messages come as what it has sent.
    let mut own = house.client(V5, "alice", "new");
    own.subscribe("im/v1/me/sent", 1);
    for seq in 12..=31 {
        let m = json(&own.message());
        assert_eq!(
            (m["seq"].as_u64(), m["to"].as_str(), m["backfill"].as_bool()),
            (Some(seq), Some("bob"), Some(true))
        );
    }
    own.quiet();
}

/// Sixteen terminals; the next takes the place of the one that has been offline for longest, whose messages it had not
/// got are not lost to the account (section 3).
#[test]
fn an_account_has_sixteen_terminals() {
    let Some(house) = friends(&[]) else { return };
    let ear = |n: u32| format!("ear-{n:02}");
    let open = |n: u32| {
        let mut c = house.client(V5, "bob", &ear(n));
        c.subscribe("im/v1/me/in/+/msg", 1);
        c
    };
    let mut online: Vec<Client> = (1..16).map(open).collect();
    open(0).disconnect();
    let mut alice = house.client(V5, "alice", "phone");
    say(&mut alice, 1..=1);
    // The seventeenth takes the place of the one that is gone.
    let mut late = open(16);
    assert_eq!(json(&late.message())["backfill"], true);
    let mut refused = house.client(V5, "bob", "one-too-many");
    assert_eq!(refused.subscribe_code("im/v1/me/in/+/msg", 1), 0x97, "all are online");
    for c in &mut online {
        assert_eq!(seqs(c, 1), [1]);
    }
    online.remove(0).disconnect();
    assert_eq!(refused.subscribe_code("im/v1/me/in/+/msg", 1), 1);
    assert_eq!(json(&refused.message())["backfill"], true);
}

/// What is retained comes with the subscription, as Retain Handling asks (3.8.3.1), and never from other accounts.
#[test]
fn the_badge_is_retained() {
    let Some(house) = friends(&[]) else { return };
    let mut alice = house.client(V5, "alice", "phone");
    say(&mut alice, 1..=3);
    for version in BOTH {
        let mut bob = house.client(version, "bob", &unique("eye"));
        bob.subscribe("im/v1/me/head", 1);
        let head = bob.message();
        assert!(head.retain);
        let head = json(&head);
        assert_eq!((&head["unread"], &head["by"]), (&json!(3), &json!({ "alice": 3 })));
        assert!(head["floor"].is_u64() && head["pos"].is_u64());
    }
    let mut bob = house.client(V5, "bob", &unique("eye"));
    for (handling, times) in [(2, 0), (0, 1), (0, 1), (1, 0), (2, 0)] {
        bob.subscribe("im/v1/me/head", 1 | handling << 4);
        let got = (0..3).filter(|_| next_before_fence(&mut bob).inspect(|p| bob.finish(p)).is_some()).count();
        assert_eq!(got, times, "Retain Handling {handling}");
    }
}

/// The badge counts what others have said and this account has not read, after each change (G8, R49).
#[test]
fn the_badge_is_what_a_recount_says() {
    let Some(house) = friends(&[]) else { return };
    let mut alice = house.client(V5, "alice", "phone");
    let mut bob = house.client(V5, "bob", "eye");
    let topics = [("im/v1/me/head", 1), ("im/v1/me/recount/res", 1), ("im/v1/me/conv/+", 1)];
    assert_eq!(bob.subscribe_all(&topics, &[]), [1, 1, 1]);
    let check = |bob: &mut Client, unread: u64| {
        loop {
            if json(&bob.on("im/v1/me/head"))["unread"].as_u64() == Some(unread) {
                break;
            }
        }
        assert_eq!(bob.say(1, "im/v1/me/recount", r#"{"id":"r"}"#), 0);
        let counted = json(&bob.on("im/v1/me/recount/res"));
        let wanted = [json!(true), json!(unread), json!(unread), json!("r")];
        assert_eq!(
            [&counted["agree"], &counted["unread"], &counted["sum"], &counted["id"]],
            [&wanted[0], &wanted[1], &wanted[2], &wanted[3]]
        );
    };
    check(&mut bob, 0);
    say(&mut alice, 1..=5);
    check(&mut bob, 5);
    assert_eq!(alice.say(1, TO_BOB, r#"{"text":"quiet","notify":false}"#), 0);
    assert_eq!(bob.say(1, "im/v1/to/alice/msg", "one's own does not count"), 0);
    assert_eq!(bob.say(1, "im/v1/to/alice/receipt", r#"{"read":2}"#), 0);
    check(&mut bob, 3);
    assert_eq!(alice.say(1, "im/v1/to/bob/recall", r#"{"seq":4}"#), 0);
    check(&mut bob, 2);
    assert_eq!(alice.say(1, TO_BOB, r#"{"text":"short","ttl_s":1}"#), 0);
    check(&mut bob, 3);
    // Its second is over.
    check(&mut bob, 2);
    assert_eq!(bob.say(1, "im/v1/to/alice/receipt", r#"{"read":8}"#), 0);
    check(&mut bob, 0);
    let line = loop {
        let line = json(&bob.on("im/v1/me/conv/alice"));
        if line["unread"] == 0 && line["seq"] == 8 {
            break line;
        }
    };
    assert_eq!((&line["addr"], &line["read"], &line["muted"]), (&json!("alice"), &json!(8), &json!(false)));
}

/// A recount agrees also while messages come that are not on disk yet (G8).
#[test]
fn a_recount_agrees_while_messages_come() {
    let Some(house) = friends(&[]) else { return };
    let mut alice = house.client(V5, "alice", "phone");
    let mut bob = house.client(V5, "bob", "eye");
    bob.subscribe("im/v1/me/recount/res", 1);
    for round in 0..20 {
        for n in 1..=20 {
            alice.publish(&Publish::new(TO_BOB, "one of many").qos(1, round * 20 + n));
        }
        assert_eq!(bob.say(1, "im/v1/me/recount", "{}"), 0);
        let counted = json(&bob.on("im/v1/me/recount/res"));
        assert_eq!(counted["agree"], true, "{counted}");
        for n in 1..=20 {
            assert_eq!(alice.await_ack(PubAck, round * 20 + n), 0);
        }
    }
}

/// After kill -9 the places, the numbers and the marks are what they were (G1, G3, G8).
#[test]
fn places_and_marks_survive_kill_9() {
    let Some(mut house) = friends(&[]) else { return };
    let topics = [("im/v1/me/head", 1), ("im/v1/me/in/+/msg", 1), ("im/v1/me/convs/res", 1)];
    let mut bob = house.client(V5, "bob", "ear");
    assert_eq!(bob.subscribe_all(&topics, &[]), [1, 1, 1]);
    let mut alice = house.client(V5, "alice", "phone");
    let (mut said, mut got) = (0, 0);
    for round in 0..3 {
        say(&mut alice, 0..5);
        said += 5;
        for _ in 0..3 {
            got += 1;
            assert_eq!(json(&bob.on("im/v1/me/in/alice/msg"))["seq"], got, "round {round}");
        }
        assert_eq!(bob.say(1, "im/v1/to/alice/receipt", format!(r#"{{"read":{got}}}"#)), 0);
        house.broker.kill();
        house.broker.start_again();
        alice = house.client(V5, "alice", "phone");
        bob = house.client(V5, "bob", "ear");
        assert_eq!(bob.subscribe_all(&topics, &[]), [1, 1, 1]);
        let head = json(&bob.on("im/v1/me/head"));
        assert_eq!(head["unread"].as_u64(), Some(said - got), "round {round}: {head}");
        assert_eq!(bob.say(1, "im/v1/me/convs", "{}"), 0);
        let convs = json(&bob.on("im/v1/me/convs/res"));
        let conv: &Value = &convs["convs"][0];
        assert_eq!((conv["seq"].as_u64(), conv["read"].as_u64()), (Some(said), Some(got)), "round {round}");
    }
    while got < said {
        got += 1;
        assert_eq!(json(&bob.on("im/v1/me/in/alice/msg"))["seq"], got);
    }
}

/// A receipt that a later one has overtaken is passed over, and nothing of it is left in what comes next.
#[test]
fn receipts_that_were_overtaken_are_passed_over() {
    let Some(house) = friends(&[]) else { return };
    for version in BOTH {
        let id = unique("phone");
        let mut alice = house.lasting(version, "alice", &id);
        alice.subscribe("im/v1/me/in/+/receipt", 1);
        alice.disconnect();
        let mut writer = house.client(V5, "alice", "writer");
        let mut bob = house.client(V5, "bob", "ear");
        bob.subscribe("im/v1/me/in/+/msg", 1);
        let mut last = 0;
        for n in 0..5 {
            say(&mut writer, n..=n);
            last = seqs(&mut bob, 1)[0];
            assert_eq!(bob.say(1, "im/v1/to/alice/receipt", format!(r#"{{"read":{last}}}"#)), 0);
        }
        let mut alice = house.lasting(version, "alice", &id);
        let receipt = json(&alice.message());
        let marks = [&receipt["seq"], &receipt["recv"], &receipt["read"]].map(Value::as_u64);
        assert_eq!(marks, [Some(last); 3], "{receipt}");
        alice.quiet();
    }
}

/// Marks of somebody who is far behind are counted from the log, and agree with a recount whatever is marked (G8).
#[test]
fn marks_far_behind_are_counted_from_the_log() {
    let limits = ["--set", "limits.im_account_rate_max=0", "--set", "limits.im_conversation_rate_max=0"];
    let Some(house) = friends(&limits) else { return };
    let mut alice = house.client(V5, "alice", "phone");
    let mut bob = house.client(V5, "bob", "eye");
    assert_eq!(bob.subscribe_all(&[("im/v1/me/recount/res", 1), ("im/v1/me/conv/res", 1)], &[]), [1, 1]);
    for round in 0..24 {
        for n in 1..=50 {
            let payload = if n % 10 == 0 { r#"{"text":"quiet","notify":false}"# } else { "loud" };
            alice.publish(&Publish::new(TO_BOB, payload).qos(1, round * 50 + n));
        }
        for n in 1..=50 {
            assert_eq!(alice.await_ack(PubAck, round * 50 + n), 0);
        }
    }
    // 1,200 messages, of which every tenth does not count; the senders of the last 512 are in memory.
    for read in [1, 2, 9, 100, 500, 600, 601, 687, 688, 700, 1_199, 1_200] {
        assert_eq!(bob.say(1, "im/v1/to/alice/receipt", format!(r#"{{"read":{read}}}"#)), 0);
        assert_eq!(bob.say(1, "im/v1/me/recount", "{}"), 0);
        let counted = json(&bob.on("im/v1/me/recount/res"));
        let unread = (read + 1..=1_200).filter(|seq| seq % 10 != 0).count();
        assert_eq!((&counted["agree"], &counted["unread"]), (&json!(true), &json!(unread)), "read {read}: {counted}");
    }
}

/// Whoever subscribes in several steps loses nothing of what came while it was away.
#[test]
fn several_subscriptions_one_after_the_other_lose_nothing() {
    let Some(house) = friends(&[]) else { return };
    for version in BOTH {
        for first in ["im/v1/me/sent", "im/v1/me/head", "im/v1/me/in/+/receipt", "im/v1/me/in/carol/msg"] {
            let id = unique("ear");
            let mut bob = house.client(version, "bob", &id);
            bob.subscribe("im/v1/me/in/+/msg", 0);
            drain(&mut bob);
            bob.disconnect();
            let mut alice = house.client(V5, "alice", "phone");
            say(&mut alice, 1..=3);
            let mut bob = house.client(version, "bob", &id);
            bob.subscribe(first, 1);
            drain(&mut bob);
            bob.subscribe("im/v1/me/in/+/msg", 1);
            let texts: Vec<String> = (0..3)
                .map(|_| json(&bob.on("im/v1/me/in/alice/msg"))["text"].as_str().expect("a text").to_owned())
                .collect();
            assert_eq!(texts, ["text 1", "text 2", "text 3"], "after {first}");
        }
    }
}
