//! Requests and their answers: docs/protocol.md, section 2, and what each of them does not take.

use super::common::*;
use parlor_tests::im::{House, json};
use serde_json::{Value, json};

fn house() -> Option<House> {
    let house = House::start(&["alice", "bob", "carol"])?;
    house.befriend("alice", "bob");
    Some(house)
}

/// Asks, and waits for the answer.
fn ask(c: &mut Client, request: &str, payload: &str) -> Value {
    assert_eq!(c.say(1, &format!("im/v1/me/{request}"), payload), 0, "{request} {payload}");
    let first = request.split('/').next().expect("a request");
    let answer = json(&c.on(&format!("im/v1/me/{first}/res")));
    assert_eq!(answer["re"].as_str(), Some(&*format!("me/{request}")));
    answer
}

fn seqs(page: &Value) -> Vec<u64> {
    page["messages"].as_array().expect("a list").iter().map(|m| m["seq"].as_u64().expect("a seq")).collect()
}

/// Pages of a conversation, backwards and forwards, by seq and by time (R10, R48).
#[test]
fn history_is_pulled_in_pages() {
    let Some(house) = house() else { return };
    let mut alice = house.client(V5, "alice", "phone");
    for n in 1..=25 {
        assert_eq!(alice.say(1, "im/v1/to/bob/msg", format!("text {n}")), 0);
    }
    for version in BOTH {
        let mut bob = house.client(version, "bob", &unique("b"));
        bob.subscribe("im/v1/me/history/res", 1);
        let page = ask(&mut bob, "history", r#"{"with":"alice","max":10,"id":"q"}"#);
        assert_eq!((seqs(&page), &page["more"], &page["id"]), ((16..=25).rev().collect(), &json!(true), &json!("q")));
        assert_eq!(page["messages"][0]["text"], "text 25");
        let page = ask(&mut bob, "history", &format!(r#"{{"with":"alice","before":{},"max":10}}"#, page["next"]));
        assert_eq!(seqs(&page), (6..=15).rev().collect::<Vec<_>>());
        let page = ask(&mut bob, "history", &format!(r#"{{"with":"alice","before":{},"max":10}}"#, page["next"]));
        assert_eq!((seqs(&page), &page["more"]), ((1..=5).rev().collect(), &json!(false)));
        let page = ask(&mut bob, "history", r#"{"with":"alice","after":0,"max":24}"#);
        assert_eq!((seqs(&page), &page["more"]), ((1..=24).collect(), &json!(true)));
        let page = ask(&mut bob, "history", &format!(r#"{{"with":"alice","after":{}}}"#, page["next"]));
        assert_eq!((seqs(&page), &page["more"]), (vec![25], &json!(false)));
        for (range, wanted) in [
            (r#""after":25"#, vec![]),
            (r#""after":18446744073709551615"#, vec![]),
            (r#""before":18446744073709551615,"max":1"#, vec![25]),
            (r#""since":18446744073709551615,"until":18446744073709551615"#, vec![]),
            (r#""before":1"#, vec![]),
            (r#""before":0"#, vec![]),
            (r#""after":3,"max":0"#, vec![4]),
            (r#""since":9999999999999"#, vec![]),
            (r#""until":1"#, vec![]),
            (r#""since":1,"until":9999999999999,"max":2"#, vec![25, 24]),
        ] {
            assert_eq!(seqs(&ask(&mut bob, "history", &format!(r#"{{"with":"alice",{range}}}"#))), wanted, "{range}");
        }
        // Somebody one has said nothing to; and one's own view is one's own.
        assert!(seqs(&ask(&mut bob, "history", r#"{"with":"carol"}"#)).is_empty());
    }
    let mut bob = house.client(V5, "bob", "clearing");
    bob.subscribe_all(&[("im/v1/me/history/res", 1), ("im/v1/me/conv/res", 1)], &[]);
    assert_eq!(ask(&mut bob, "conv/alice", r#"{"op":"clear"}"#)["unread"], 0);
    assert_eq!(alice.say(1, "im/v1/to/bob/msg", "after that"), 0);
    assert_eq!(seqs(&ask(&mut bob, "history", r#"{"with":"alice"}"#)), [26]);
    alice.subscribe("im/v1/me/history/res", 1);
    assert_eq!(seqs(&ask(&mut alice, "history", r#"{"with":"bob","max":500}"#)).len(), 26, "R51");
}

/// Entries of the mailbox, from any place, in pages that join without a hole (R7, A3).
#[test]
fn the_mailbox_is_pulled_in_pages() {
    let Some(house) = house() else { return };
    let mut alice = house.client(V5, "alice", "phone");
    for n in 1..=25 {
        assert_eq!(alice.say(1, "im/v1/to/bob/msg", format!("text {n}")), 0);
    }
    assert_eq!(alice.say(1, "im/v1/to/bob/recall", r#"{"seq":25}"#), 0);
    for version in BOTH {
        let mut bob = house.client(version, "bob", &unique("b"));
        bob.subscribe("im/v1/me/sync/res", 1);
        for max in [1, 7, 1_000] {
            let (mut after, mut topics, mut positions) = (0, vec![], vec![]);
            loop {
                let page = ask(&mut bob, "sync", &format!(r#"{{"after":{after},"max":{max}}}"#));
                let entries = page["entries"].as_array().expect("a list");
                assert!(entries.len() <= max);
                for entry in entries {
                    topics.push(entry["topic"].as_str().expect("a topic").to_owned());
                    positions.push(entry["payload"]["pos"].as_u64().expect("a position"));
                }
                let pos = page["pos"].as_u64().expect("a position");
                assert!(pos > after || page["more"] == false, "it goes on: {page}");
                after = pos;
                if page["more"] == false {
                    assert_eq!(page["pos"], page["head"]);
                    break;
                }
            }
            assert!(positions.is_sorted_by(|a, b| a < b), "{positions:?}");
            let count = |topic: &str| topics.iter().filter(|t| *t == topic).count();
            // What was recalled is not there; that it was, is.
            let counted = (count("im/v1/me/in/alice/msg"), count("im/v1/me/in/alice/recall"));
            assert_eq!(counted, (24, 1), "{topics:?}");
        }
        for after in [1_000_000, u64::MAX] {
            let page = ask(&mut bob, "sync", &format!(r#"{{"after":{after},"max":{after}}}"#));
            assert_eq!((&page["entries"], &page["more"]), (&json!([]), &json!(false)));
        }
    }
}

/// What each request does not take, and what it says then (section 10).
#[test]
fn malformed_requests_are_refused() {
    let Some(house) = house() else { return };
    let mut alice = house.client(V5, "alice", "phone");
    assert_eq!(alice.subscribe_code("im/v1/me/#", 1), 1);
    assert_eq!(alice.say(1, "im/v1/to/bob/msg", "one"), 0);
    let topics = [
        "to/bob/receipt",
        "to/bob/recall",
        "to/bob/edit",
        "to/bob/desired",
        "to/bob/typing",
        "me/hello",
        "me/sync",
        "me/history",
        "me/ack",
        "me/status",
        "me/reported",
        "me/describe",
        "me/cmdres/c1",
        "me/convs",
        "me/conv/bob",
        "me/contact/bob",
        "me/group/g-home",
        "me/profile",
        "me/pair",
        "me/recount",
    ];
    let cases = topics.into_iter().flat_map(|topic| ["{", "[1]", "7", "nonsense", "{\"a\":}"].map(|p| (topic, p)));
    let fields = [
        ("to/bob/receipt", r#"{"read":"1"}"#),
        ("to/bob/receipt", r#"{"read":99}"#),
        ("to/bob/recall", "{}"),
        ("to/bob/recall", r#"{"seq":-1}"#),
        ("to/bob/edit", r#"{"text":"x"}"#),
        ("to/bob/edit", r#"{"seq":1}"#),
        ("me/sync", r#"{"after":"x"}"#),
        ("me/sync", r#"{"max":1.5}"#),
        ("me/history", "{}"),
        ("me/history", r#"{"with":7}"#),
        ("me/history", r#"{"with":"bob","before":5,"after":1}"#),
        ("me/history", r#"{"with":"bob","max":-1}"#),
        ("me/conv/bob", r#"{"op":"explode"}"#),
        ("me/conv/bob", "{}"),
        ("me/contact/bob", r#"{"op":"explode"}"#),
        ("me/contact/bob", "{}"),
        ("me/contact/alice", r#"{"op":"request"}"#),
        ("me/group/g-home", r#"{"op":"create","members":"bob"}"#),
        ("me/group/g-home", r#"{"op":"create","name":""}"#),
        ("me/group/bob", r#"{"op":"create"}"#),
        ("me/hello", r#"{"level":-1}"#),
        ("me/hello", r#"{"level":4294967296}"#),
        ("me/profile", r#"{"name":7}"#),
    ];
    let mut wrong = vec![];
    for (topic, payload) in cases.chain(fields) {
        let answer = alice.publish_for(1, &format!("im/v1/{topic}"), payload);
        // Who is no device, or not in a group, may be told that first.
        let told = ["bad_request: ", "not_found: ", "forbidden: "].iter().any(|code| answer.reason().starts_with(code));
        if answer.code < 0x80 || !told {
            wrong.push(format!("{topic} {payload}: {:#04x} {}", answer.code, answer.reason()));
            continue;
        }
        let err = json(&alice.on("im/v1/me/err"));
        assert_eq!(err["re"], topic);
        assert_eq!(err["text"].as_str(), answer.reason().split_once(": ").map(|(_, text)| text));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // All of this has changed nothing.
    assert_eq!(ask(&mut alice, "recount", "{}")["agree"], true);
}

/// An id of any plain kind is repeated, in answers and in refusals.
#[test]
fn an_answer_repeats_the_id() {
    let Some(house) = house() else { return };
    for version in BOTH {
        let mut alice = house.client(version, "alice", &unique("a"));
        assert_eq!(alice.subscribe_all(&[("im/v1/me/err", 1), ("im/v1/me/convs/res", 1)], &[]), [1, 1]);
        for id in [json!("q1"), json!(7), json!("\u{fc}\"")] {
            let payload = json!({ "id": id }).to_string();
            assert_eq!(ask(&mut alice, "convs", &payload)["id"], id);
            let _ = alice.say(1, "im/v1/me/history", payload);
            assert_eq!(json(&alice.on("im/v1/me/err"))["id"], id);
        }
        assert!(ask(&mut alice, "convs", "").get("id").is_none(), "an empty payload is an empty object");
    }
}
