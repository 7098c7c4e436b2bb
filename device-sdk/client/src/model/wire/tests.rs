//! Topics and payloads, read.

use super::*;
use serde_json::json;

fn heard(topic: &str, payload: &str) -> Told {
    read(&format!("im/v1/{topic}"), payload.as_bytes()).unwrap()
}

#[test]
fn each_topic_has_its_meaning() {
    let check = |topic: &str, payload: &str, expect: Event| assert_eq!(heard(topic, payload).event, expect, "{topic}");
    let message = Message {
        seq: 12,
        pos: 40,
        prev: Some(11),
        from: "alice".into(),
        ts: 1_790_000_000_000,
        id: Some("a1".into()),
        text: Some("hi".into()),
        ..Message::default()
    };
    let text = r#"{"seq":12,"pos":40,"prev":11,"from":"alice","ts":1790000000000,"id":"a1","text":"hi","new":1}"#;
    check("me/in/alice/msg", text, Event::Message { with: "alice".into(), message });
    let receipt = Receipt { recv: 9, read: 7, ..Receipt::default() };
    check(
        "me/in/bob/receipt",
        r#"{"pos":1,"recv":9,"read":7,"by":"bob"}"#,
        Event::Receipt { with: "bob".into(), receipt },
    );
    let receipt = Receipt { seq: 4, recv: 3, read: 1, of: Some(5), own: false };
    let counts = r#"{"seq":4,"recv":3,"read":1,"of":5}"#;
    check("me/in/g-home/receipt", counts, Event::Receipt { with: "g-home".into(), receipt });
    let receipt = Receipt { read: 7, own: true, ..Receipt::default() };
    check("me/in/bob/receipt", r#"{"self":true,"read":7}"#, Event::Receipt { with: "bob".into(), receipt });
    check("me/in/bob/recall", r#"{"seq":3}"#, Event::Recall { with: "bob".into(), seq: 3, by: "bob".into() });
    check(
        "me/in/g-home/typing",
        r#"{"from":"bob","typing":false}"#,
        Event::Typing { with: "g-home".into(), from: "bob".into(), typing: false },
    );
    check(
        "me/in/alice/gap",
        r#"{"from":1,"to":9,"why":"overflow"}"#,
        Event::Gap { from: 1, to: 9, why: "overflow".into() },
    );
    check(
        "me/history/res",
        r#"{"re":"history","id":"h1"}"#,
        Event::Answer { re: "history".into(), id: Some("h1".into()) },
    );
    check("me/contact/res", r#"{"re":"me/contact/bob"}"#, Event::Answer { re: "contact/bob".into(), id: None });
    let report = Report { device: "lamp".into(), name: "set".into(), state: "done".into(), ..Report::default() };
    check(
        "me/res/c1",
        r#"{"id":"c1","device":"lamp","name":"set","state":"done"}"#,
        Event::CommandResult { id: "c1".into(), report },
    );
    let order = Order { args: json!({"on": true}), from: "alice".into(), left_ms: Some(9_800), once: true };
    check(
        "me/cmd/c1/set",
        r#"{"args":{"on":true},"from":"alice","left_ms":9800,"once":true}"#,
        Event::Command { id: "c1".into(), name: "set".into(), order },
    );
    check("presence/bob/avail", "online", Event::Other { topic: "presence/bob/avail".into() });
    check("presence/bob", "", Event::Gone { topic: "presence/bob".into() });
    check("me/later/thing", "{}", Event::Other { topic: "me/later/thing".into() });
}

#[test]
fn an_account_may_be_called_res() {
    assert!(matches!(heard("me/conv/res", r#"{"addr":"res","seq":1}"#).event, Event::Conversation { .. }));
    assert!(matches!(heard("me/conv/res", r#"{"re":"conv/bob"}"#).event, Event::Answer { .. }));
}

#[test]
fn what_cannot_be_read_is_said() {
    assert!(matches!(read("home/lamp", b"{}"), Err(Unreadable::Topic(_))));
    for payload in ["not json", "{\"seq\":\"one\"}", "[1]", "{}"] {
        let error = read("im/v1/me/in/bob/msg", payload.as_bytes()).unwrap_err();
        assert!(error.to_string().contains("im/v1/me/in/bob/msg"), "{error}");
    }
}

#[test]
fn a_person_reads_text_body_or_size() {
    let check = |payload: &str, expect: &str| {
        assert_eq!(serde_json::from_str::<Message>(payload).unwrap().shown(), expect, "{payload}");
    };
    check(r#"{"text":"hi"}"#, "hi");
    check(r#"{"body":{"a":1}}"#, r#"{"a":1}"#);
    check(r#"{"data":"AAAA"}"#, "(3 bytes of data)");
    check(r#"{"text":"a card","fallback":true}"#, "a card (shortened: this client is older than the message)");
    check(r#"{"text":"a secret","gone":true}"#, "(recalled or expired)");
    check(r#"{"kind":"member","body":{"op":"add","who":"bob","role":"member"}}"#, "added bob as member");
    check("{}", "");
}

#[test]
fn everything_is_one_json_object() {
    let check = |topic: &str, payload: &str, expect: Value| assert_eq!(heard(topic, payload).to_json(), expect);
    check(
        "me/in/bob/msg",
        r#"{"seq":1,"from":"bob","with":"x"}"#,
        json!({"event": "message", "with": "bob", "seq": 1, "from": "bob"}),
    );
    check("me/in/lamp/stream/temp", "21.5", json!({"event": "stream", "with": "lamp", "name": "temp", "value": 21.5}));
    check(
        "me/in/lamp/stream/temp",
        "warm",
        json!({"event": "stream", "with": "lamp", "name": "temp", "value": "warm"}),
    );
    check("presence/bob", "", json!({"event": "gone", "with": "presence/bob"}));
    check(
        "me/cmd/c1/set",
        r#"{"args":1,"from":"alice"}"#,
        json!({"event": "order", "with": "alice", "id": "c1", "name": "set", "args": 1, "from": "alice"}),
    );
}
