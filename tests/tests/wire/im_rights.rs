//! Who may take part, and what nobody sees: docs/protocol.md, sections 2 and 3; G12.

use super::common::*;
use parlor_tests::im::{House, json};

fn house() -> Option<House> {
    let house = House::start(&["alice", "bob", "eve"])?;
    house.befriend("alice", "bob");
    Some(house)
}

/// A client without an account takes no part, whatever it tries (`no_account`).
#[test]
fn an_anonymous_client_takes_no_part() {
    let Some(own) = Broker::own(&[]) else { return };
    for version in BOTH {
        let mut c = Connect::new(version, &unique("c")).to(&own);
        for filter in ["im/v1/me/in/#", "im/v1/#", "im/v1/presence/+", "im/v1/me/err"] {
            assert_eq!(c.subscribe_code(filter, 1), if version == V5 { 0x87 } else { 0x80 }, "{filter}");
        }
        for topic in ["im/v1/to/bob/msg", "im/v1/me/sync", "im/v1/nonsense", "im/x"] {
            for qos in [1, 2] {
                let answer = c.publish_for(qos, topic, "x");
                assert_eq!(answer.code, if version == V5 { 0x87 } else { 0 }, "{topic}");
                assert!(version == V311 || answer.reason().starts_with("no_account: "), "{}", answer.reason());
            }
        }
        c.quiet();
    }
}

/// Wildcards of ordinary subscriptions do not reach into `im/`, also not to what is retained there (section 3).
#[test]
fn ordinary_wildcards_do_not_reach_messaging() {
    let Some(house) = house() else { return };
    for version in BOTH {
        let mut bob = house.client(version, "bob", &unique("b"));
        for filter in ["#", "+/#", "+/v1/#", "+/v1/me/in/+/msg", "+/+/+/+/+/+", "+", "+/v1/me/head", "$share/g/#"] {
            if version == V5 || !filter.starts_with('$') {
                bob.subscribe(filter, 1);
            }
        }
        let mut alice = house.client(version, "alice", &unique("a"));
        assert_eq!(alice.say(1, "im/v1/to/bob/msg", "private"), 0);
        assert_eq!(alice.say(1, "ordinary", "public"), 0);
        let first = bob.message();
        assert_eq!(first.topic, "ordinary", "{}", first.text());
        let rest: Vec<Publish> = bob
            .fence()
            .into_iter()
            .map(|p| match p {
                Packet::Publish(p) => p,
                other => panic!("{other:?}"),
            })
            .collect();
        assert!(rest.iter().all(|p| p.topic == "ordinary"), "{rest:?}");
    }
}

/// Shared subscriptions below `im/` are refused with 0x9E (section 3).
#[test]
fn shared_subscriptions_are_refused() {
    let Some(house) = house() else { return };
    let mut bob = house.client(V5, "bob", "b");
    for filter in ["$share/g/im/v1/me/in/#", "$share/g/im/#", "$share/g/im/v1/presence/+"] {
        assert_eq!(bob.subscribe_code(filter, 1), 0x9E, "{filter}");
    }
    let mut old = house.client(V311, "bob", "o");
    assert_eq!(old.subscribe_code("$share/g/im/v1/me/in/#", 1), 0x80);
}

/// What may be subscribed to below `im/`, granted at QoS 1 at most, and what may not (section 3).
#[test]
fn filters_below_im() {
    let Some(house) = house() else { return };
    for version in BOTH {
        let mut bob = house.client(version, "bob", &unique("b"));
        for (filter, asked, granted) in [
            ("im/v1/me/in/#", 0, 0),
            ("im/v1/me/in/#", 1, 1),
            ("im/v1/me/in/#", 2, 1),
            ("im/v1/me/in/+/msg", 2, 1),
            ("im/v1/me/in/alice/msg", 1, 1),
            ("im/v1/me/#", 1, 1),
            ("im/v1/me/+/res", 1, 1),
            ("im/v1/#", 1, 1),
            ("im/v1/+/#", 1, 1),
            ("im/v1/presence/#", 1, 1),
            ("im/v1/presence/+/avail", 1, 1),
            ("im/v1/state/+", 1, 1),
        ] {
            assert_eq!(bob.subscribe_code(filter, asked), granted, "{filter} at QoS {asked}");
        }
        for filter in
            ["im/v1/to/#", "im/v1/to/bob/msg", "im/v1/admin/#", "im/v2/#", "im/v1", "im/bob", "im/v1/mee/in/#"]
        {
            let code = bob.subscribe_code(filter, 1);
            assert_eq!(code, if version == V5 { 0x8F } else { 0x80 }, "{filter}");
        }
    }
}

/// Nothing of two who write to each other reaches a third one, in any spelling, live, pulled or retained (G12).
#[test]
fn other_peoples_topics() {
    let Some(house) = house() else { return };
    for (seq, version) in (1..).zip(BOTH) {
        let mut eve = house.client(version, "eve", &unique("e"));
        for filter in [
            "im/v1/#",
            "im/v1/me/#",
            "im/v1/+/in/#",
            "im/v1/me/in/bob/msg",
            "im/v1/me/in/alice/#",
            "im/v1/me/head",
            "im/v1/me/conv/#",
            "im/v1/presence/#",
            "im/v1/presence/alice",
            "im/v1/presence/alice/avail",
            "im/v1/state/#",
            "im/v1/me/res/#",
            "im/v1/me/+/res",
            "im/#",
            "#",
            "+/v1/me/in/bob/msg",
        ] {
            // Whether it is granted is another test's matter.
            let _ = eve.subscribe_code(filter, 1);
        }
        // Her own badge, and nothing else.
        let head = eve.on("im/v1/me/head");
        assert_eq!(json(&head)["unread"], 0);
        for _ in 0..4 {
            for packet in eve.fence() {
                let Packet::Publish(p) = packet else { panic!("{packet:?}") };
                eve.finish(&p);
                let own = p.topic == "im/v1/me/head" || p.topic.starts_with("im/v1/presence/eve");
                assert!(own, "{}: {}", p.topic, p.text());
            }
        }
        let mut alice = house.client(version, "alice", &unique("a"));
        let mut bob = house.client(version, "bob", &unique("b"));
        bob.subscribe("im/v1/me/#", 1);
        alice.subscribe("im/v1/me/#", 1);
        assert_eq!(alice.say(1, "im/v1/to/bob/msg", "secret"), 0);
        assert_eq!(bob.say(1, "im/v1/to/alice/receipt", format!(r#"{{"read":{seq}}}"#)), 0);
        assert_eq!(alice.say(1, "im/v1/to/bob/edit", format!(r#"{{"seq":{seq},"text":"secrets"}}"#)), 0);
        assert_eq!(alice.say(1, "im/v1/to/bob/recall", format!(r#"{{"seq":{seq}}}"#)), 0);
        for (request, answer) in [
            ("im/v1/me/history", r#"{"with":"alice"}"#),
            ("im/v1/me/history", r#"{"with":"bob"}"#),
            ("im/v1/me/sync", r#"{"after":0}"#),
            ("im/v1/me/convs", "{}"),
            ("im/v1/me/recount", "{}"),
        ] {
            let _ = eve.say(1, request, answer);
        }
        for (topic, payload) in [
            ("im/v1/to/alice/receipt", r#"{"read":1}"#),
            ("im/v1/to/alice/recall", r#"{"seq":1}"#),
            ("im/v1/to/alice/edit", r#"{"seq":1,"text":"x"}"#),
            ("im/v1/me/conv/alice", r#"{"op":"clear"}"#),
        ] {
            let answer = eve.publish_for(1, topic, payload);
            assert_eq!(answer.code, if version == V5 { 0x87 } else { 0 }, "{topic}: {answer:?}");
        }
        for _ in 0..4 {
            for packet in eve.fence() {
                let Packet::Publish(p) = packet else { panic!("{packet:?}") };
                eve.finish(&p);
                assert!(!p.text().contains("secret"), "{}: {}", p.topic, p.text());
                assert!(!p.topic.starts_with("im/v1/me/in/") || p.topic.ends_with("/bounce"), "{}", p.topic);
            }
        }
        // Everything bob was sent came under his own topics.
        let got = bob.on("im/v1/me/in/alice/msg");
        assert_eq!(json(&got)["from"], "alice");
    }
}

/// A topic in which `me` is another's name is no topic of anybody's.
#[test]
fn me_is_the_account_that_has_logged_in() {
    let Some(house) = house() else { return };
    let mut eve = house.client(V5, "eve", "e");
    for topic in
        ["im/v1/alice/sync", "im/v1/alice/in/bob/msg", "im/v1/me/in/alice/msg", "im/v1/me/sent", "im/v1/me/err"]
    {
        for retain in [false, true] {
            let mut publish = Publish::new(topic, "forged").qos(1, 0);
            publish.retain = retain;
            assert_eq!(eve.answer_to(&publish).code, 0x90, "{topic}");
        }
    }
    let mut alice = house.client(V5, "alice", "a");
    alice.subscribe("im/v1/me/in/#", 1);
    alice.quiet();
}

/// A will below `im/` would look like the broker's own word to whoever has subscribed to `#`: CONNECT is refused.
#[test]
fn a_will_does_not_lie_below_im() {
    let Some(house) = house() else { return };
    for topic in ["im/v1/me/in/bob/msg", "im/v1/presence/alice", "im/v1/to/bob/msg", "im/x"] {
        for (version, code) in [(V5, 0x87), (V311, 5)] {
            let will = Publish::new(topic, "from the grave").qos(1, 0).retain();
            assert_eq!(house.connect(version, "eve", "mortal").will(will).refused(&house.broker), code, "{topic}");
        }
    }
}

/// A client identifier is one account's: another cannot take over its place.
#[test]
fn a_terminal_belongs_to_its_account() {
    let Some(house) = house() else { return };
    let mut bob = house.lasting(V5, "bob", "his");
    bob.subscribe("im/v1/me/in/#", 1);
    assert_eq!(house.connect(V5, "eve", "his").persistent().refused(&house.broker), 0x85);
    bob.disconnect();
    assert_eq!(house.connect(V5, "eve", "his").persistent().refused(&house.broker), 0x85);
}

/// A Response Topic that is not the asker's own place for answers is refused (section 10, `response_topic`).
#[test]
fn a_response_topic_is_the_askers_own() {
    let Some(house) = house() else { return };
    let mut eve = house.client(V5, "eve", "e");
    eve.subscribe("im/v1/me/err", 1);
    let mut bob = house.client(V5, "bob", "b");
    bob.subscribe("#", 1);
    for topic in ["ordinary", "im/v1/me/in/bob/msg", "im/v1/me/res", "im/v1/to/bob/msg", "im/v1/me/resx/a"] {
        let ask = Publish::new("im/v1/me/convs", "{}").with(prop::response_topic(topic)).qos(1, 0);
        let answer = eve.answer_to(&ask);
        assert_eq!((answer.code, answer.reason().starts_with("response_topic: ")), (0x87, true), "{topic}");
        assert_eq!(json(&eve.on("im/v1/me/err"))["code"], "response_topic");
    }
    eve.subscribe("im/v1/me/res/+", 1);
    let ask = Publish::new("im/v1/me/convs", r#"{"id":"q1"}"#)
        .with(prop::response_topic("im/v1/me/res/mine"))
        .with(prop::correlation(b"\x00\x01".to_vec()));
    assert_eq!(eve.answer_to(&ask.qos(1, 0)).code, 0);
    let answer = eve.on("im/v1/me/res/mine");
    assert_eq!(answer.props.bytes(prop::CORRELATION), Some(&b"\x00\x01"[..]));
    assert_eq!((json(&answer)["re"].as_str(), json(&answer)["id"].as_str()), (Some("me/convs"), Some("q1")));
    bob.quiet();
}
