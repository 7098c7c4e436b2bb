//! A messenger without a network.

use super::command::CommandState;
use super::conversation::Tick;
use super::limits::{ATTEMPTS_MAX, EVENTS_MAX, OUTBOX_MAX};
use super::up::{Draft, Instruction};
use super::*;
use serde_json::{Value, json};

fn alice() -> Messenger {
    let mut alice = Messenger::new("alice", 0xABC);
    alice.handle_connected();
    assert_eq!(alice.poll_event(), Some(Event::Connected.into()));
    alice
}

fn hear(messenger: &mut Messenger, below: &str, payload: &Value) {
    messenger.handle_publish(&format!("im/v1/{below}"), payload.to_string().as_bytes(), 1_000);
}

fn published(messenger: &mut Messenger) -> Vec<(String, Value)> {
    std::iter::from_fn(|| messenger.poll_publish())
        .map(|p| (p.topic, serde_json::from_slice(&p.payload).unwrap_or(Value::Null)))
        .collect()
}

fn told(messenger: &mut Messenger) -> Vec<String> {
    std::iter::from_fn(|| messenger.poll_event())
        .map(|told| told.to_json()["event"].as_str().unwrap_or_default().to_owned())
        .collect()
}

fn from_bob(seq: u64, prev: u64) -> Value {
    json!({"seq": seq, "pos": seq, "prev": prev, "from": "bob", "ts": seq, "text": format!("t{seq}")})
}

const DONE: Answer = Answer::Accepted { seq: None, dup: false };

#[test]
fn a_message_goes_out_once_and_comes_back_with_its_number() {
    let mut alice = alice();
    let id = alice.send("bob", &Draft::text("hi"), 5).unwrap();
    assert_eq!(id, "abc-0");
    let publish = alice.poll_publish().unwrap();
    assert_eq!(publish.topic, "im/v1/to/bob/msg");
    assert_eq!(publish.payload, br#"{"id":"abc-0","text":"hi"}"#);
    assert_eq!(alice.poll_publish(), None);
    alice.handle_answer(publish.token, Answer::Accepted { seq: Some(3), dup: false });
    let expect = Event::Received { re: "to/bob/msg".into(), id, seq: Some(3), dup: false };
    assert_eq!((alice.poll_event(), alice.waiting()), (Some(expect.into()), 0));
    let bob = alice.conversation("bob").unwrap();
    assert_eq!((bob.message(3).unwrap().shown().as_str(), bob.unsent().count()), ("hi", 0));
    assert_eq!(bob.tick(3), Tick::Accepted);
    // The same on `me/sent` is no second message.
    hear(&mut alice, "me/sent", &json!({"pos": 1, "to": "bob", "seq": 3, "id": "abc-0", "ts": 7, "text": "hi"}));
    assert_eq!(alice.conversation("bob").unwrap().messages().count(), 1);
}

#[test]
fn what_was_not_answered_goes_out_again_with_the_same_id() {
    let mut alice = alice();
    alice.send("bob", &Draft::text("hi"), 5).unwrap();
    let first = published(&mut alice);
    alice.type_to("bob", 10_000);
    alice.handle_disconnected("cut", Duration::ZERO);
    assert_eq!(alice.poll_publish(), None);
    alice.send("bob", &Draft::text("still here?"), 6).unwrap();
    alice.handle_connected();
    let again = published(&mut alice);
    assert_eq!(again.len(), 2, "typing has passed: {again:?}");
    assert_eq!(again[0], first[0]);
    assert_eq!(again[1].1["text"], "still here?");
}

#[test]
fn what_ends_every_connection_is_given_up() {
    let mut alice = alice();
    alice.send("bob", &Draft::text("poison"), 5).unwrap();
    for _ in 0..ATTEMPTS_MAX {
        assert!(alice.poll_publish().is_some());
        alice.handle_disconnected("cut", Duration::ZERO);
        alice.handle_connected();
    }
    assert_eq!(alice.poll_publish(), None);
    let (token, answer) = alice.poll_given_up(6).unwrap();
    assert_eq!(alice.poll_given_up(6), None);
    alice.handle_answer(token, answer);
    assert_eq!(told(&mut alice).iter().filter(|event| *event == "refused").count(), 1);
    assert_eq!(alice.conversation("bob").unwrap().unsent().next().unwrap().refused.as_ref().unwrap().code, "no_answer");
}

#[test]
fn the_first_end_counts_and_nothing_is_sent_while_it_goes_to_disk() {
    let mut alice = alice();
    alice.keep_rows();
    let id = alice.send("bob", &Draft::text("hi"), 5).unwrap();
    assert_eq!(alice.poll_publish(), None, "there is no row yet");
    let row = alice.poll_row().unwrap();
    assert_eq!((row.id.as_ref(), alice.poll_row()), (Some(&id), None));
    alice.handle_stored(row.token);
    assert!(alice.poll_publish().is_some());
    assert!(alice.begin_end(row.token));
    // The connection breaks before that is on disk.
    alice.handle_disconnected("cut", Duration::ZERO);
    alice.handle_connected();
    assert_eq!(alice.poll_publish(), None);
    assert!(!alice.begin_end(row.token), "a second answer would remove the row under an end nobody was told of");
    alice.handle_answer(row.token, Answer::Accepted { seq: Some(1), dup: false });
    assert!(!alice.begin_end(row.token));
}

#[test]
fn a_gap_is_pulled_and_filled() {
    let mut alice = alice();
    hear(&mut alice, "me/in/bob/msg", &from_bob(4, 3));
    hear(&mut alice, "me/in/bob/msg", &from_bob(7, 6));
    hear(&mut alice, "me/in/bob/msg", &from_bob(8, 7));
    let pulls = published(&mut alice);
    assert_eq!(pulls.len(), 1, "{pulls:?}");
    assert_eq!((pulls[0].0.as_str(), &pulls[0].1["after"]), ("im/v1/me/history", &json!(4)));
    let answer =
        json!({"re": "history", "id": pulls[0].1["id"], "with": "bob", "messages": [from_bob(5, 4), from_bob(6, 5)]});
    hear(&mut alice, "me/history/res", &answer);
    let bob = alice.conversation("bob").unwrap();
    assert!(!bob.is_incomplete());
    assert_eq!(bob.messages().map(|m| m.seq).collect::<Vec<_>>(), [4, 5, 6, 7, 8]);
    hear(&mut alice, "me/in/bob/msg", &from_bob(8, 7));
    assert_eq!(told(&mut alice), ["message", "message", "message", "message", "message"], "what is known is not told");
}

#[test]
fn a_pull_whose_answer_was_lost_is_asked_for_again() {
    let mut alice = alice();
    hear(&mut alice, "me/in/bob/msg", &from_bob(1, 0));
    hear(&mut alice, "me/in/bob/msg", &from_bob(3, 2));
    let publish = alice.poll_publish().unwrap();
    alice.handle_answer(publish.token, DONE);
    alice.handle_disconnected("cut", Duration::ZERO);
    alice.handle_connected();
    let pulls = published(&mut alice);
    assert_eq!((pulls.len(), &pulls[0].1["after"]), (1, &json!(1)));
}

#[test]
fn backfill_begins_a_conversation_without_a_pull() {
    let mut alice = alice();
    for seq in 30..=32 {
        let mut message = from_bob(seq, seq - 1);
        message["pos"] = json!(0);
        message["backfill"] = json!(true);
        hear(&mut alice, "me/in/bob/msg", &message);
    }
    assert!(published(&mut alice).is_empty());
    assert_eq!(alice.conversation("bob").unwrap().unread, 0, "the broker says how much of it is unread");
}

#[test]
fn scrolling_back_pulls_one_page_at_a_time() {
    let mut alice = alice();
    alice.pull_older("bob");
    alice.pull_older("bob");
    let pulls = published(&mut alice);
    assert_eq!(pulls.len(), 1);
    assert!(pulls[0].1.get("before").is_none(), "{pulls:?}");
    let answer = |id: &Value, seqs: &[u64], more: bool| {
        let messages: Vec<Value> = seqs.iter().map(|seq| from_bob(*seq, seq - 1)).collect();
        json!({"re": "history", "id": id, "with": "bob", "messages": messages, "more": more})
    };
    hear(&mut alice, "me/history/res", &answer(&pulls[0].1["id"], &[9, 8], true));
    alice.pull_older("bob");
    let pulls = published(&mut alice);
    assert_eq!(pulls[0].1["before"], 8);
    hear(&mut alice, "me/history/res", &answer(&pulls[0].1["id"], &[7], false));
    alice.pull_older("bob");
    assert!(published(&mut alice).is_empty());
    // The next message follows what the page ended with.
    hear(&mut alice, "me/in/bob/msg", &from_bob(10, 9));
    assert!(published(&mut alice).is_empty());
}

#[test]
fn a_refusal_is_told_once() {
    let mut alice = alice();
    let id = alice.send("bob", &Draft::text("hi"), 5).unwrap();
    let token = alice.poll_publish().unwrap().token;
    alice.handle_answer(token, Answer::refused(Some("no_consent: ask first"), "not authorized"));
    hear(&mut alice, "me/err", &json!({"re": "to/bob/msg", "id": id, "code": "no_consent", "text": "ask first"}));
    assert_eq!(told(&mut alice), ["refused"]);
    hear(&mut alice, "me/in/bob/bounce", &json!({"id": id, "code": "no_consent", "text": "ask first"}));
    assert!(told(&mut alice).is_empty());
    let unsent = alice.conversation("bob").unwrap().unsent().next().unwrap().clone();
    assert_eq!(unsent.refused.unwrap().code, "no_consent");
    // The other way round, and without an id.
    alice.ask("to/bob/recall", json!({"seq": 1})).unwrap();
    let token = alice.poll_publish().unwrap().token;
    hear(&mut alice, "me/err", &json!({"re": "to/bob/recall", "code": "too_late", "text": "over"}));
    alice.handle_answer(token, Answer::refused(Some("too_late: over"), "not authorized"));
    assert_eq!(told(&mut alice), ["refused"]);
}

#[test]
fn what_came_too_late_for_anybody_bounces() {
    let mut alice = alice();
    hear(&mut alice, "me/in/bob/bounce", &json!({"code": "expired", "text": "nobody got it", "id": "a", "seq": 4}));
    assert_eq!(told(&mut alice), ["bounce"]);
}

#[test]
fn read_marks_are_sent_once_and_forward() {
    let mut alice = alice();
    for seq in 1..=3 {
        hear(&mut alice, "me/in/bob/msg", &from_bob(seq, seq - 1));
    }
    alice.read("bob", 2);
    alice.read("bob", 1);
    alice.read("bob", 3);
    let marks = published(&mut alice);
    assert_eq!(marks, [("im/v1/to/bob/receipt".to_owned(), json!({"read": 3}))]);
    assert_eq!(alice.conversation("bob").unwrap().unread, 0);
}

#[test]
fn a_command_is_followed_to_its_outcome() {
    let mut alice = alice();
    let order = Instruction { name: "set".into(), args: json!({"on": true}), ..Instruction::default() };
    let id = alice.command("lamp", &order, 1).unwrap();
    let publish = alice.poll_publish().unwrap();
    assert_eq!(publish.topic, "im/v1/to/lamp/cmd/set");
    assert_eq!(alice.commands().find(&id).unwrap().state(), CommandState::Waiting);
    alice.handle_answer(publish.token, DONE);
    for state in ["queued", "done", "delivered"] {
        let report = json!({"id": id, "device": "lamp", "name": "set", "state": state, "ts": 2});
        hear(&mut alice, &format!("me/res/{id}"), &report);
    }
    assert_eq!(told(&mut alice), ["accepted", "command", "command"]);
    assert_eq!(alice.commands().find(&id).unwrap().state(), CommandState::Done);
    let refused = alice.command("lamp", &order, 1).unwrap();
    let token = alice.poll_publish().unwrap().token;
    alice.handle_answer(token, Answer::refused(Some("forbidden: you are a guest"), "not authorized"));
    let command = alice.commands().find(&refused).unwrap();
    assert_eq!((command.state(), command.text.as_deref()), (CommandState::Refused, Some("forbidden: you are a guest")));
}

#[test]
fn requests_carry_an_id_and_objects_of_their_own_do_not() {
    let mut alice = alice();
    assert!(alice.ask("me/whois/bob", json!({})).unwrap().is_some());
    assert_eq!(alice.ask("me/whois/bob", json!({"id": "mine"})).unwrap().as_deref(), Some("mine"));
    assert_eq!(alice.ask("me/reported", json!({"on": true})).unwrap(), None);
    assert_eq!(alice.ask("to/lamp/desired", json!({"on": true})).unwrap(), None);
    let all = published(&mut alice);
    assert_eq!(all[2].1, json!({"on": true}));
}

#[test]
fn presence_state_and_contacts_are_kept() {
    let mut alice = alice();
    hear(&mut alice, "presence/bob", &json!({"state": "online", "since": 1}));
    hear(&mut alice, "presence/bob", &json!({"state": "online", "since": 1}));
    hear(&mut alice, "state/lamp", &json!({"version": 2, "reported": {"on": true}, "desired": {}}));
    hear(&mut alice, "me/in/carol/contact", &json!({"op": "request", "text": "it is me"}));
    hear(&mut alice, "me/contacts/res", &json!({"re": "contacts", "contacts": [{"addr": "bob", "state": "friends"}]}));
    hear(&mut alice, "me/head", &json!({"pos": 1, "unread": 7}));
    assert_eq!(alice.presence("bob").unwrap().state, "online");
    assert_eq!(alice.device("lamp").unwrap().reported["on"], true);
    assert_eq!(alice.contacts().collect::<Vec<_>>(), [("bob", "friends"), ("carol", "asking")]);
    assert_eq!(alice.unread(), 7);
    assert_eq!(told(&mut alice), ["presence", "state", "contact", "answer", "head"]);
    alice.handle_publish("im/v1/presence/bob", b"", 1);
    assert!(alice.presence("bob").is_none());
}

#[test]
fn the_latest_conversation_comes_first() {
    let mut alice = alice();
    hear(
        &mut alice,
        "me/conv/bob",
        &json!({"addr": "bob", "kind": "direct", "seq": 4, "unread": 2, "last": {"seq": 4, "ts": 40}}),
    );
    hear(
        &mut alice,
        "me/convs/res",
        &json!({"re": "convs", "convs": [{"addr": "g-home", "name": "Home", "last": {"ts": 50}}]}),
    );
    let order =
        |alice: &Messenger| alice.conversations().iter().map(|(with, _)| (*with).to_owned()).collect::<Vec<_>>();
    assert_eq!(order(&alice), ["g-home", "bob"]);
    alice.send("bob", &Draft::text("hi"), 60).unwrap();
    assert_eq!(order(&alice), ["bob", "g-home"]);
    assert_eq!(alice.conversation("g-home").unwrap().name, "Home");
}

#[test]
fn typing_is_told_now_and_then_only() {
    let mut alice = alice();
    alice.type_to("bob", 10_000);
    alice.type_to("bob", 11_000);
    assert_eq!(published(&mut alice).len(), 1);
    alice.type_to("bob", 13_000);
    assert_eq!(published(&mut alice).len(), 1);
    hear(&mut alice, "me/in/bob/typing", &json!({"from": "bob", "typing": true}));
    assert_eq!(alice.conversation("bob").unwrap().typing.get("bob"), Some(&7_000));
    hear(&mut alice, "me/in/bob/msg", &from_bob(1, 0));
    assert!(alice.conversation("bob").unwrap().typing.is_empty());
}

#[test]
fn queues_have_an_end_and_say_so() {
    let mut alice = alice();
    for _ in 0..OUTBOX_MAX {
        alice.ask("me/convs", json!({})).unwrap();
    }
    assert_eq!(alice.send("bob", &Draft::text("hi"), 1), Err(OutboxFull(OUTBOX_MAX)));
    for number in 0..EVENTS_MAX as u64 + 2 {
        hear(&mut alice, "me/head", &json!({"pos": number, "unread": number}));
    }
    assert_eq!(alice.poll_event(), Some(Event::Missed { events: 2 }.into()));
    assert!(matches!(alice.poll_event(), Some(Told { event: Event::Head { .. }, .. })));
}

#[test]
fn what_cannot_be_read_is_told_and_harmless() {
    let mut alice = alice();
    alice.handle_publish("im/v1/me/in/bob/msg", b"{", 1);
    assert_eq!(told(&mut alice), ["unreadable"]);
}
