//! Messages and what is done to them: docs/protocol.md, sections 2, 4 and 10, byte by byte where a client reads bytes.

use super::common::*;
use parlor_tests::im::{House, is_like, json};
use serde_json::json;

/// Whoever speaks and whoever hears, one pair for each version.
fn pair(version: Version) -> (&'static str, &'static str) {
    if version == V5 { ("alice", "bob") } else { ("anna", "ben") }
}

const ALL: [&str; 4] = ["alice", "bob", "anna", "ben"];

fn friends(extra: &[&str]) -> Option<House> {
    let house = House::with(&ALL, extra)?;
    for version in BOTH {
        let (one, other) = pair(version);
        house.befriend(one, other);
    }
    Some(house)
}

fn to(peer: &str) -> String {
    format!("im/v1/to/{peer}/msg")
}

/// Every form of a payload of section 4, as it arrives, and as the sender's other terminal sees it.
#[test]
fn what_is_said_is_what_is_heard() {
    let Some(house) = friends(&[]) else { return };
    let forms: &[(&[u8], &str)] = &[
        (b"hi", r#","text":"hi""#),
        (b"", r#","text":"""#),
        ("gr\u{fc}\u{df} \"dich\"\n".as_bytes(), ",\"text\":\"gr\u{fc}\u{df} \\\"dich\\\"\\n\""),
        (b" {not an object}", r#","text":" {not an object}""#),
        (b"[1,2]", r#","text":"[1,2]""#),
        (br#"{"text":"hi","id":"a1"}"#, r#","id":"a1","text":"hi""#),
        (br#"{"temp":21.5,"on":true}"#, r#","body":{"temp":21.5,"on":true}"#),
        (br#"{"body":[1, 2],"kind":"poll"}"#, r#","body":[1, 2],"kind":"poll""#),
        (br#"{"body":null,"text":"x","re":1,"notify":false}"#, r#","body":null,"text":"x","re":1,"notify":false"#),
        (b"\xff\xfe\x00", r#","data":"//4A""#),
    ];
    for version in BOTH {
        let (speaker, hearer) = pair(version);
        let mut bob = house.client(version, hearer, &format!("ear of {hearer}"));
        bob.subscribe("im/v1/me/in/#", 1);
        let mut tablet = house.client(version, speaker, &format!("tablet of {speaker}"));
        tablet.subscribe("im/v1/me/sent", 1);
        let mut alice = house.client(version, speaker, &format!("phone of {speaker}"));
        for (seq, (payload, fields)) in (1..).zip(forms) {
            let qos = 1 + u8::try_from(seq % 2).expect("one bit");
            let answer = alice.publish_for(qos, &to(hearer), payload);
            assert_eq!((answer.code, answer.seq()), (0, (version == V5).then_some(seq)), "{fields}");
            let (id, rest) = match fields.strip_prefix(r#","id":"a1""#) {
                Some(rest) => (r#","id":"a1""#, rest),
                None => ("", *fields),
            };
            let prev = seq - 1;
            let place = format!(r#"{{"seq":{seq},"pos":*,"prev":{prev}"#);
            let heard = format!(r#"{place},"from":"{speaker}","ts":*{id}{rest}}}"#);
            let message = bob.expect(&format!("im/v1/me/in/{speaker}/msg"), &heard);
            assert_eq!((message.qos, message.retain, message.dup), (1, false, false));
            let own = format!(r#"{place},"to":"{hearer}","from":"{speaker}","ts":*{id}{rest}}}"#);
            tablet.expect("im/v1/me/sent", &own);
            if version == V5 {
                let pos = json(&message)["pos"].to_string();
                let (number, before) = (seq.to_string(), prev.to_string());
                let mut users = vec![("im-seq", &*number), ("im-pos", &*pos), ("im-prev", &*before)];
                users.push(("im-from", speaker));
                if !id.is_empty() {
                    users.push(("im-id", "a1"));
                }
                assert_eq!(message.props.users(), users);
            }
        }
        alice.quiet();
    }
}

/// PUBACK and PUBREC name the seq and, for what was said before, that it was (section 4).
#[test]
fn the_answer_names_the_message() {
    let Some(house) = friends(&[]) else { return };
    let mut alice = house.client(V5, "alice", "phone");
    alice.subscribe_all(&[("im/v1/me/sent", 1), ("im/v1/me/err", 1), ("im/v1/me/in/#", 1)], &[]);
    let say = Publish::new(&to("bob"), "hi").with(prop::user("im-id", "m1"));
    let answer = alice.answer_to(&say.clone().qos(1, 7));
    assert_eq!(answer.props, Props(vec![prop::user("im-seq", "1")]));
    alice.expect(
        "im/v1/me/sent",
        r#"{"seq":1,"pos":*,"prev":0,"to":"bob","from":"alice","ts":*,"id":"m1","text":"hi"}"#,
    );
    for qos in [1, 2, 1] {
        let answer = alice.answer_to(&say.clone().qos(qos, 0));
        assert_eq!(answer.props, Props(vec![prop::user("im-seq", "1"), prop::user("im-dup", "1")]), "QoS {qos}");
        let told = alice.on("im/v1/me/sent");
        assert_eq!(json(&told), json!({ "pos": 0, "to": "bob", "seq": 1, "id": "m1", "dup": true }));
    }
    // The id may also stand in the payload: it is the same message.
    let answer = alice.publish_for(1, &to("bob"), r#"{"text":"hi","id":"m1"}"#);
    assert_eq!((answer.seq(), answer.user("im-dup")), (Some(1), Some("1")));
    let _ = alice.on("im/v1/me/sent");
    // Another content.
    for qos in [1, 2] {
        let answer = alice.answer_to(&Publish::new(&to("bob"), "ho").with(prop::user("im-id", "m1")).qos(qos, 0));
        assert_eq!(answer.code, 0x87);
        assert!(answer.reason().starts_with("id_reused: "), "{}", answer.reason());
        let err = json(&alice.on("im/v1/me/err"));
        assert_eq!((&err["code"], &err["re"], &err["id"]), (&json!("id_reused"), &json!("to/bob/msg"), &json!("m1")));
        let bounce = json(&alice.on("im/v1/me/in/bob/bounce"));
        assert_eq!((&bounce["code"], &bounce["id"]), (&json!("id_reused"), &json!("m1")));
    }
    // Another terminal has ids of its own.
    let mut tablet = house.client(V5, "alice", "tablet");
    assert_eq!(tablet.answer_to(&say.clone().qos(1, 0)).props, Props(vec![prop::user("im-seq", "2")]));
    // Whoever wants no problem information is told nothing beside the code [MQTT5-3.1.2-29].
    let mut terse = house.connect(V5, "alice", "terse").with(prop::request_problem_info(0_u8)).to(&house.broker);
    assert_eq!(terse.answer_to(&say.clone().qos(1, 0)).props, Props::default());
    let reused = terse.answer_to(&Publish::new(&to("bob"), "ho").with(prop::user("im-id", "m1")).qos(1, 0));
    assert_eq!((reused.code, reused.props), (0x87, Props::default()));
}

/// In 3.1.1, `im/v1/me/sent` says what PUBACK cannot.
#[test]
fn a_sender_of_3_1_1_hears_of_its_message() {
    let Some(house) = friends(&[]) else { return };
    let mut anna = house.client(V311, "anna", "anna-phone");
    anna.subscribe("im/v1/me/sent", 1);
    anna.subscribe("im/v1/me/err", 1);
    anna.send(&Publish::new(&to("ben"), r#"{"text":"hi","id":"m1"}"#).qos(1, 9).bytes(V311));
    assert_eq!(anna.await_ack(PubAck, 9), 0);
    let sent = json(&anna.on("im/v1/me/sent"));
    assert_eq!((&sent["seq"], &sent["id"], &sent["to"]), (&json!(1), &json!("m1"), &json!("ben")));
    assert_eq!(anna.say(2, &to("ben"), r#"{"text":"hi","id":"m1"}"#), 0);
    assert_eq!(json(&anna.on("im/v1/me/sent"))["dup"], true);
    assert_eq!(anna.say(1, &to("ben"), r#"{"text":"ho","id":"m1"}"#), 0, "heard, not done");
    let err = json(&anna.on("im/v1/me/err"));
    assert_eq!((&err["code"], &err["id"]), (&json!("id_reused"), &json!("m1")));
}

/// Payloads that no message is made of, with the words that help.
#[test]
fn a_message_that_cannot_be_read_is_refused() {
    let Some(house) = friends(&[]) else { return };
    let mut bob = house.client(V5, "bob", "ear");
    bob.subscribe("im/v1/me/in/#", 1);
    for version in BOTH {
        let (speaker, hearer) = ("alice", "bob");
        let mut alice = house.client(version, speaker, &unique("phone"));
        alice.subscribe_all(&[("im/v1/me/err", 1), ("im/v1/me/in/+/bounce", 1)], &[]);
        for (payload, word) in [
            ("{", "JSON"),
            ("{} tail", "JSON"),
            (r#"{"text":"x","colour":"red"}"#, "colour"),
            (r#"{"text":7}"#, "text"),
            (r#"{"text":"x","id":""}"#, "id"),
            (r#"{"text":"x","id":"a b"}"#, "id"),
            (r#"{"text":"x","id":"1234567890123456789012345678901234567"}"#, "id"),
            (r#"{"text":"x","id":7}"#, "id"),
            (r#"{"text":"x","ttl_s":0}"#, "ttl_s"),
            (r#"{"text":"x","ttl_s":-1}"#, "ttl_s"),
            (r#"{"text":"x","ttl_s":1.5}"#, "ttl_s"),
            (r#"{"text":"x","kind":"two words"}"#, "kind"),
            (r#"{"text":"x","kind":"member"}"#, "kind"),
            (r#"{"text":"x","re":"1"}"#, "re"),
            (r#"{"text":"x","notify":0}"#, "notify"),
            (r#"{"text":"x","level":4294967296,"fallback":"y"}"#, "level"),
            (r#"{"text":"x","level":"new"}"#, "level"),
            (r#"{"text":"x","fallback":"y"}"#, "fallback"),
            (r#"{"text":"x","seq":1}"#, "seq"),
        ] {
            for qos in 0..3 {
                let answer = alice.publish_for(qos, &to(hearer), payload);
                let refused = version == V5 && qos > 0;
                assert_eq!(answer.code, if refused { 0x99 } else { 0 }, "{payload} at QoS {qos}");
                assert!(!refused || answer.reason().starts_with("bad_request: "), "{payload}: {}", answer.reason());
                let err = alice.on("im/v1/me/err");
                assert_eq!((&json(&err)["code"], &json(&err)["re"]), (&json!("bad_request"), &json!("to/bob/msg")));
                assert!(
                    json(&err)["text"].as_str().is_some_and(|text| text.contains(word)),
                    "{payload}: {}",
                    err.text()
                );
                assert_eq!(json(&alice.on("im/v1/me/in/bob/bounce"))["code"], "bad_request");
            }
        }
        assert_eq!(alice.say(1, &to(hearer), "fence"), 0);
        bob.expect("im/v1/me/in/alice/msg", r#"*"text":"fence"}"#);
    }
}

/// Whom a message cannot reach.
#[test]
fn an_address_that_leads_nowhere_is_refused() {
    let Some(house) = friends(&[]) else { return };
    let mut alice = house.client(V5, "alice", "phone");
    alice.subscribe("im/v1/me/err", 1);
    for (topic, code, word) in [
        ("im/v1/to/nobody/msg", 0x87, "not_found"),
        ("im/v1/to/g-none/msg", 0x87, "not_found"),
        ("im/v1/to/ch-none/msg", 0x87, "not_found"),
        ("im/v1/to/Bob/msg", 0x87, "not_found"),
        ("im/v1/to//msg", 0x87, "not_found"),
        ("im/v1/to/me/msg", 0x87, "not_found"),
        ("im/v1/to/alice/msg", 0x99, "bad_request"),
        ("im/v1/to/bob", 0x90, "bad_topic"),
        ("im/v1/to/bob/", 0x90, "bad_topic"),
        ("im/v1/to/bob/msg/", 0x90, "bad_topic"),
        ("im/v1/to/bob/Msg", 0x90, "bad_topic"),
        ("im/v1/to/bob/msg/x", 0x90, "bad_topic"),
        ("im/v1/me/in/bob/msg", 0x90, "bad_topic"),
        ("im/v1/presence/alice", 0x90, "bad_topic"),
        ("im/v1/state/alice", 0x90, "bad_topic"),
        ("im/v1/", 0x90, "bad_topic"),
        ("im/v2/to/bob/msg", 0x90, "bad_topic"),
        ("im/", 0x90, "bad_topic"),
        ("im/v1", 0x90, "bad_topic"),
    ] {
        for qos in [1, 2] {
            let answer = alice.publish_for(qos, topic, "x");
            assert_eq!((answer.code, answer.reason().split(':').next()), (code, Some(word)), "{topic}: {answer:?}");
            let err = json(&alice.on("im/v1/me/err"));
            assert_eq!(err["code"], word, "{topic}");
        }
    }
    // Everything else goes on.
    assert_eq!(alice.publish_for(1, &to("bob"), "x").seq(), Some(1));
}

/// A topic alias stands for a topic below `im/` as for any other, and RETAIN means nothing there (section 2).
#[test]
fn aliases_and_retain_are_taken() {
    let Some(house) = friends(&[]) else { return };
    let mut bob = house.client(V5, "bob", "ear");
    bob.subscribe("im/v1/me/in/#", 1);
    let mut alice = house.client(V5, "alice", "phone");
    alice.publish_for(1, "im/v1/to/bob/msg", "");
    let _ = bob.message();
    let first = Publish::new("im/v1/to/bob/msg", "one").with(prop::topic_alias(1_u16)).retain();
    assert_eq!(alice.answer_to(&first.qos(1, 0)).code, 0);
    assert_eq!(alice.answer_to(&Publish::new("", "two").with(prop::topic_alias(1_u16)).qos(1, 0)).code, 0);
    for text in ["one", "two"] {
        let message = bob.message();
        assert_eq!((json(&message)["text"].as_str(), message.retain), (Some(text), false));
    }
    let mut late = house.client(V5, "bob", "late");
    late.subscribe("im/v1/me/in/alice/msg", 1);
    for _ in 0..3 {
        let message = late.message();
        assert!(!message.retain && json(&message)["backfill"] == true);
    }
    late.quiet();
}

/// The same id after kill -9 is the same message, from the same terminal only (G1, G2, R2).
#[test]
fn an_id_is_remembered_over_kill_9() {
    let Some(mut house) = friends(&[]) else { return };
    let say = |id: &str| Publish::new(&to("bob"), format!("text of {id}")).with(prop::user("im-id", id)).qos(1, 0);
    let mut alice = house.client(V5, "alice", "phone");
    for (seq, id) in (1..).zip(["a", "b", "c"]) {
        assert_eq!(alice.answer_to(&say(id)).seq(), Some(seq));
    }
    for round in 0..2 {
        house.broker.kill();
        house.broker.start_again();
        let mut alice = house.client(V5, "alice", "phone");
        for (seq, id) in (1..).zip(["a", "b", "c"]) {
            let answer = alice.answer_to(&say(id));
            assert_eq!((answer.seq(), answer.user("im-dup")), (Some(seq), Some("1")), "{id} in round {round}");
            let other = alice.publish_for(2, &to("bob"), format!(r#"{{"text":"other","id":"{id}"}}"#));
            assert_eq!(other.code, 0x87, "{id} in round {round}");
        }
        // What is sent at once, all of it waiting for the store, keeps its order and its answers.
        let (first, second) = (say("a"), say(&format!("new-{round}")));
        for (id, publish) in [(101, &first), (102, &second), (103, &second)] {
            alice.publish(&Publish { id, ..publish.clone() });
        }
        let heard: Vec<(u16, u8)> = (0..3)
            .map(|_| match alice.recv() {
                Packet::Ack { kind: PubAck, id, code, .. } => (id, code),
                other => panic!("PUBACK expected: {other:?}"),
            })
            .collect();
        assert_eq!(heard, [(101, 0), (102, 0), (103, 0)]);
        let mut anna = house.client(V311, "anna", "anna-phone");
        assert_eq!(anna.say(1, &to("ben"), r#"{"text":"x","id":"a"}"#), 0);
    }
    let mut bob = house.client(V5, "bob", "late");
    bob.subscribe("im/v1/me/in/+/msg", 1);
    let texts: Vec<String> = (0..5).map(|_| json(&bob.message())["text"].as_str().expect("text").to_owned()).collect();
    assert_eq!(texts, ["text of a", "text of b", "text of c", "text of new-0", "text of new-1"]);
    bob.quiet();
    let mut ben = house.client(V311, "ben", "ben-late");
    ben.subscribe("im/v1/me/in/+/msg", 1);
    assert_eq!(json(&ben.message())["seq"], 1);
    ben.quiet();
}

/// Longer than the receiver takes: 0x97; what just fits goes (section 4).
#[test]
fn a_message_has_a_longest_length() {
    let Some(house) = friends(&["--set", "limits.im_message_bytes_max=1000"]) else { return };
    for version in BOTH {
        let (speaker, hearer) = pair(version);
        let mut alice = house.client(version, speaker, &format!("phone of {speaker}"));
        alice.subscribe("im/v1/me/err", 1);
        let envelope = r#","text":"""#.len();
        assert_eq!(alice.publish_for(1, &to(hearer), "x".repeat(1000 - envelope)).code, 0);
        for qos in [1, 2] {
            let answer = alice.publish_for(qos, &to(hearer), "x".repeat(1001 - envelope));
            assert_eq!(answer.code, if version == V5 { 0x97 } else { 0 });
            assert!(version == V311 || answer.reason().starts_with("too_large: "), "{}", answer.reason());
            assert_eq!(json(&alice.on("im/v1/me/err"))["code"], "too_large");
        }
        let huge = format!(r#"{{"text":"x","level":261201,"fallback":"{}"}}"#, "y".repeat(1000));
        assert_eq!(alice.publish_for(1, &to(hearer), huge).code, if version == V5 { 0x97 } else { 0 });
        assert_eq!(json(&alice.on("im/v1/me/err"))["code"], "too_large");
    }
}

/// Who sends too fast hears which limit it was, and a message that was accepted before is no new one (section 10, R25).
#[test]
fn a_flood_is_refused() {
    for (setting, limit) in [("account", "im_account_rate_max"), ("conversation", "im_conversation_rate_max")] {
        let (rate, burst) = (format!("limits.im_{setting}_rate_max=1"), format!("limits.im_{setting}_burst_max=5"));
        let Some(house) = friends(&["--set", &rate, "--set", &burst]) else { return };
        for version in BOTH {
            let (speaker, hearer) = pair(version);
            let mut alice = house.client(version, speaker, &format!("phone of {speaker}"));
            alice.subscribe("im/v1/me/err", 1);
            let id = |n: u32| format!(r#"{{"text":"x","id":"{n}"}}"#);
            let codes: Vec<u8> = (0..10).map(|n| alice.publish_for(1, &to(hearer), id(n)).code).collect();
            // Agreeing to write to each other may have cost one of the five.
            let (passed, refused) = codes.split_at(5);
            assert_eq!(passed[..4], [0; 4]);
            if version == V5 {
                // One more may have been earned meanwhile.
                assert!(refused.iter().map(|code| u32::from(*code == 0x97)).sum::<u32>() >= 4, "{codes:02x?}");
                let answer = alice.publish_for(1, &to(hearer), id(0));
                assert_eq!((answer.code, answer.user("im-dup")), (0, Some("1")), "a retry is no flood");
            }
            let err = alice.on("im/v1/me/err");
            assert!(is_like(&err.payload, &format!("*\"code\":\"quota\"*{limit}*")), "{}", err.text());
        }
    }
}

/// With the disk nearly full, nothing new is accepted and everything else goes on (section 10).
#[test]
fn with_little_disk_space_messages_are_refused() {
    let Some(house) = House::with(&["alice", "bob"], &["--set", "store.low_space_bytes=1099511627776"]) else { return };
    house.broker.await_log("disk");
    let mut alice = house.client(V5, "alice", "phone");
    alice.subscribe_all(&[("im/v1/me/err", 1), ("im/v1/me/convs/res", 1)], &[]);
    for qos in [1, 2] {
        let answer = alice.publish_for(qos, &to("bob"), "x");
        assert_eq!(answer.code, 0x97);
        assert!(answer.reason().starts_with("low_space: "), "{}", answer.reason());
        assert_eq!(json(&alice.on("im/v1/me/err"))["code"], "low_space");
    }
    assert_eq!(alice.say(1, "im/v1/me/convs", "{}"), 0);
    let _ = alice.on("im/v1/me/convs/res");
    // 3.1.1 has no refusal, and an acknowledgement would be a promise [MQTT3-4.8.0-2].
    let mut anna = house.client(V311, "alice", "tablet");
    anna.publish(&Publish::new(&to("bob"), "x").qos(1, 1));
    anna.thrown_out(&[]);
}

/// A message with a time: what is left of it travels along, nobody gets it later, and its sender learns so (R43, G7).
#[test]
fn a_message_expires() {
    let Some(house) = friends(&[]) else { return };
    for (speaker, hearer, version) in [("alice", "bob", V5), ("anna", "ben", V311)] {
        let mut alice = house.client(version, speaker, &format!("phone of {speaker}"));
        alice.subscribe("im/v1/me/in/#", 1);
        let mut bob = house.client(version, hearer, &format!("ear of {hearer}"));
        bob.subscribe("im/v1/me/in/+/msg", 1);
        assert_eq!(alice.say(1, &to(hearer), r#"{"text":"soon over","ttl_s":600}"#), 0);
        let message = bob.message();
        let left = json(&message)["left_ms"].as_u64().expect("a number");
        assert!((590_000..=600_000).contains(&left), "{left}");
        if version == V5 {
            assert!((590..=600).contains(&message.props.number(prop::MESSAGE_EXPIRY).expect("it expires")));
            let say = Publish::new(&to(hearer), "by property").with(prop::message_expiry(300_u32));
            assert_eq!(alice.answer_to(&say.qos(1, 0)).code, 0);
            assert!(json(&bob.message())["left_ms"].as_u64().is_some_and(|left| left <= 300_000));
        }
        // The receipts of these come first.
        let _ = alice.fence();
        bob.disconnect();
        assert_eq!(alice.say(1, &to(hearer), r#"{"text":"over","ttl_s":1}"#), 0);
        let bounce = alice.on(&format!("im/v1/me/in/{hearer}/bounce"));
        assert_eq!(json(&bounce)["code"], "expired");
        assert_eq!(json(&bounce)["seq"], if version == V5 { 3 } else { 2 });
        assert_eq!(alice.say(1, &to(hearer), "fence"), 0);
        let mut bob = house.client(version, hearer, &format!("ear of {hearer}"));
        bob.subscribe("im/v1/me/in/+/msg", 1);
        let message = json(&bob.message());
        assert_eq!(
            (message["text"].as_str(), message["prev"].as_u64()),
            (Some("fence"), message["seq"].as_u64().map(|s| s - 2))
        );
    }
}

/// Recall wipes, edit replaces, and both reach every terminal (section 2, R65, R66).
#[test]
fn recall_and_edit() {
    let Some(house) = friends(&[]) else { return };
    let mut alice = house.client(V5, "alice", "phone");
    alice.subscribe("im/v1/me/in/#", 1);
    let mut bob = house.client(V311, "bob", "ear");
    bob.subscribe("im/v1/me/in/#", 1);
    for text in ["one", "two", "three"] {
        alice.publish_for(1, &to("bob"), text);
        let _ = bob.message();
    }
    assert_eq!(alice.publish_for(1, "im/v1/to/bob/recall", r#"{"seq":2}"#).code, 0);
    bob.expect("im/v1/me/in/alice/recall", r#"{"pos":*,"seq":2,"by":"alice"*}"#);
    assert_eq!(alice.publish_for(1, "im/v1/to/bob/edit", r#"{"seq":3,"text":"THREE"}"#).code, 0);
    let edit = json(&bob.on("im/v1/me/in/alice/edit"));
    assert_eq!((&edit["seq"], &edit["text"], &edit["by"]), (&json!(3), &json!("THREE"), &json!("alice")));
    // Own terminals learn it too.
    assert_eq!(json(&alice.on("im/v1/me/in/bob/recall"))["seq"], 2);
    assert_eq!(json(&alice.on("im/v1/me/in/bob/edit"))["seq"], 3);
    // Again is no harm; what is gone is not edited; others may not.
    assert_eq!(alice.publish_for(1, "im/v1/to/bob/recall", r#"{"seq":2}"#).code, 0);
    bob.quiet();
    let late = alice.publish_for(1, "im/v1/to/bob/edit", r#"{"seq":2,"text":"x"}"#);
    assert!((late.code, late.reason().starts_with("too_late")) == (0x87, true), "{late:?}");
    let mut bob5 = house.client(V5, "bob", "other");
    for (what, payload) in [("recall", r#"{"seq":1}"#), ("edit", r#"{"seq":1,"text":"x"}"#)] {
        let refused = bob5.publish_for(1, &format!("im/v1/to/alice/{what}"), payload);
        assert!((refused.code, refused.reason().starts_with("forbidden")) == (0x87, true), "{refused:?}");
    }
    for seq in [0, 4, u64::MAX] {
        let refused = alice.publish_for(1, "im/v1/to/bob/recall", format!(r#"{{"seq":{seq}}}"#));
        assert!((refused.code, refused.reason().starts_with("not_found")) == (0x87, true), "{seq}: {refused:?}");
    }
    // A terminal that comes now sees what is left.
    let mut late = house.client(V5, "bob", "late");
    late.subscribe("im/v1/me/in/+/msg", 1);
    let seen: Vec<_> = (0..2).map(|_| json(&late.message())).map(|m| (m["seq"].clone(), m["text"].clone())).collect();
    assert_eq!(seen, [(json!(1), json!("one")), (json!(3), json!("THREE"))]);
    late.quiet();
}

/// PUBACK is the delivered receipt, `receipt` the read one; marks only move forward and all terminals agree (G5, G8).
#[test]
fn receipts_move_forward() {
    let Some(house) = friends(&[]) else { return };
    let mut alice = house.client(V5, "alice", "phone");
    alice.subscribe("im/v1/me/in/+/receipt", 1);
    let (mut ear, mut eye) = (house.client(V311, "bob", "ear"), house.client(V5, "bob", "eye"));
    ear.subscribe("im/v1/me/in/+/msg", 1);
    eye.subscribe_all(&[("im/v1/me/in/+/receipt", 1), ("im/v1/me/head", 1)], &[]);
    assert_eq!(json(&eye.on("im/v1/me/head"))["unread"], 0);
    alice.publish_for(1, &to("bob"), "one");
    alice.publish_for(1, &to("bob"), "two");
    let first = ear.publish_packet();
    let second = ear.publish_packet();
    // Nothing is called delivered before its PUBACK.
    alice.quiet();
    ear.ack(PubAck, first.id);
    alice.expect("im/v1/me/in/bob/receipt", r#"{"pos":*,"seq":1,"recv":1,"read":0,"by":"bob"}"#);
    ear.ack(PubAck, second.id);
    alice.expect("im/v1/me/in/bob/receipt", r#"{"pos":*,"seq":2,"recv":2,"read":0,"by":"bob"}"#);
    assert_eq!(ear.say(1, "im/v1/to/alice/receipt", r#"{"read":1}"#), 0);
    alice.expect("im/v1/me/in/bob/receipt", r#"{"pos":*,"seq":2,"recv":2,"read":1,"by":"bob"}"#);
    let own = json(&eye.on("im/v1/me/in/alice/receipt"));
    assert_eq!((&own["self"], &own["read"]), (&json!(true), &json!(1)));
    // Back is nowhere.
    for payload in [r#"{"read":0}"#, r#"{"read":1}"#, r#"{"recv":1}"#] {
        assert_eq!(ear.say(1, "im/v1/to/alice/receipt", payload), 0);
    }
    alice.quiet();
    for (payload, word) in
        [(r#"{"read":3}"#, "beyond"), ("{}", "receipt"), (r#"{"read":-1}"#, "read"), ("read", "JSON")]
    {
        let refused = eye.publish_for(1, "im/v1/to/alice/receipt", payload);
        assert!(refused.code == 0x99 && refused.reason().contains(word), "{payload}: {refused:?}");
    }
    assert_eq!(ear.say(1, "im/v1/to/alice/receipt", r#"{"read":2}"#), 0);
    alice.expect("im/v1/me/in/bob/receipt", r#"{"pos":*,"seq":2,"recv":2,"read":2,"by":"bob"}"#);
}

/// Typing and streams reach whoever is there at QoS 0, and are kept for nobody (sections 2 and 3).
#[test]
fn typing_and_streams_are_never_stored() {
    let Some(house) = friends(&[]) else { return };
    let mut alice = house.client(V5, "alice", "phone");
    let mut bob = house.client(V311, "bob", "ear");
    bob.subscribe("im/v1/me/in/#", 1);
    for (payload, typing) in [("", true), (r#"{"typing":true}"#, true), (r#"{"typing":false}"#, false)] {
        assert_eq!(alice.publish_for(1, "im/v1/to/bob/typing", payload).code, 0);
        let note = bob.on("im/v1/me/in/alice/typing");
        assert_eq!((note.qos, json(&note)), (0, json!({ "from": "alice", "typing": typing })));
    }
    for payload in [&b"\x00\x01"[..], b"{", b"text"] {
        alice.publish_for(0, "im/v1/to/bob/stream/position", payload);
        let note = bob.on("im/v1/me/in/alice/stream/position");
        assert_eq!((note.qos, &*note.payload), (0, payload));
    }
    bob.disconnect();
    alice.publish_for(1, "im/v1/to/bob/typing", "");
    alice.publish_for(0, "im/v1/to/bob/stream/position", "x");
    assert_eq!(alice.publish_for(1, &to("bob"), "fence").code, 0);
    let mut bob = house.client(V311, "bob", "ear");
    bob.subscribe("im/v1/me/in/#", 1);
    bob.expect("im/v1/me/in/alice/msg", r#"*"text":"fence"}"#);
    bob.quiet();
    for (topic, payload) in [("im/v1/to/bob/typing", "{\"typing\":1}"), ("im/v1/to/bob/typing", "yes")] {
        assert_eq!(alice.publish_for(1, topic, payload).code, 0x99, "{topic} {payload}");
    }
}

/// Who does not know a message's level gets the text that goes with it, also in what it pulls (R26, R27, A10).
#[test]
fn a_level_is_compared_as_a_number() {
    let Some(house) = friends(&[]) else { return };
    let mut old = house.client(V311, "bob", "old");
    old.subscribe("im/v1/me/in/+/msg", 1);
    let mut new = house.connect(V5, "bob", "new").with(prop::user("im-level", "261001")).to(&house.broker);
    new.subscribe("im/v1/me/in/+/msg", 1);
    let mut said = house.client(V311, "bob", "said");
    assert_eq!(said.say(1, "im/v1/me/hello", r#"{"level":261002,"platform":"ios","app":"1.9.0"}"#), 0);
    said.subscribe("im/v1/me/in/+/msg", 1);
    let mut alice = house.client(V5, "alice", "phone");
    let poll = r#"{"body":{"q":1},"kind":"poll","level":261001,"fallback":"a poll"}"#;
    assert_eq!(alice.publish_for(1, &to("bob"), poll).code, 0);
    let shown = json(&old.message());
    assert_eq!((&shown["text"], &shown["fallback"], shown.get("body")), (&json!("a poll"), &json!(true), None));
    for c in [&mut new, &mut said] {
        let shown = json(&c.message());
        assert_eq!((&shown["body"], shown.get("fallback")), (&json!({ "q": 1 }), None), "{}", c.name);
    }
}
