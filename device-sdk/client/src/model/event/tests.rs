//! Events as objects, and reasons.

use super::*;

#[test]
fn reason_strings_are_code_and_text() {
    let check = |reason: Option<&str>, code: &str, text: &str| {
        let expect = Answer::Refused { code: code.into(), text: text.into() };
        assert_eq!(Answer::refused(reason, "not authorized"), expect);
    };
    check(Some("no_consent: ask bob first: /request bob"), "no_consent", "ask bob first: /request bob");
    check(Some("no"), "not authorized", "no");
    check(None, "not authorized", "the broker gave no reason");
}

#[test]
fn events_are_objects() {
    let check = |event: Event, expect: Value| assert_eq!(Told::from(event).to_json(), expect);
    check(
        Event::Received { re: "to/bob/msg".into(), id: "a".into(), seq: Some(4), dup: true },
        json!({"event": "accepted", "re": "to/bob/msg", "id": "a", "seq": 4, "dup": true}),
    );
    check(
        Event::Accepted { re: "to/bob/recall".into(), id: None },
        json!({"event": "accepted", "re": "to/bob/recall", "dup": false}),
    );
    let why = Refusal { code: "quota".into(), text: "too fast".into(), id: Some("a".into()) };
    check(
        Event::Lost { re: "to/bob/msg".into(), id: "a".into(), why },
        json!({"event": "refused", "re": "to/bob/msg", "id": "a", "code": "quota", "text": "too fast"}),
    );
    check(Event::Missed { events: 3 }, json!({"event": "lost", "events": 3}));
    check(
        Event::Published { topic: "home/temp".into(), payload: b"warm".to_vec() },
        json!({"event": "published", "with": "home/temp", "value": "warm"}),
    );
}
