//! Rooms, typing and streams as sessions hear them.

use crate::im::announce::world::{Client, EVERYTHING, World, befriend, told};
use crate::im::model::{Conv, ConvKind, Group, Member, Role};
use crate::im::{Address, Code, Refusal, Verdict};
use serde_json::{Value, json};

const JOIN: &str = r#"{"op":"join"}"#;
const LEAVE: &str = r#"{"op":"leave"}"#;
const INFO: &str = r#"{"op":"info"}"#;

fn code(verdict: Result<Verdict, Refusal>) -> Result<(), Code> {
    verdict.map(drop).map_err(|refusal| refusal.code)
}

/// Alice and bob in `r-live`, carol beside it; all have heard everything.
fn world() -> (World, [Client; 3]) {
    let mut w = World::new();
    let clients = ["alice", "bob", "carol"].map(|name| w.connect(name, "phone", &[EVERYTHING]));
    for client in &clients[..2] {
        told(w.ask(client, "me/group/r-live", JOIN));
    }
    for client in &clients {
        w.take(client);
    }
    w.commit();
    (w, clients)
}

#[test]
fn a_message_reaches_who_is_in_and_no_row_is_written() {
    let (mut w, [alice, bob, carol]) = world();
    let done = told(w.ask(&alice, "to/r-live/msg", r#"{"text":"hi","id":"a1"}"#));
    assert_eq!((done.seq, done.durable), (1, false));
    let expect = json!({
        "seq": 1, "pos": 0, "prev": 0, "from": "alice", "ts": w.now.wall_ms, "id": "a1", "text": "hi",
    });
    for client in [&alice, &bob] {
        // QoS 0 to a subscription at QoS 1.
        assert_eq!(w.take(client), [("me/in/r-live/msg".to_owned(), expect.clone(), 0)]);
    }
    assert_eq!(w.take(&carol), []);
    assert_eq!(code(w.ask(&carol, "to/r-live/msg", "hi")), Err(Code::Forbidden));
    assert_eq!(code(w.ask(&carol, "me/group/r-live", INFO)), Err(Code::Forbidden));
    let info = told(w.ask(&bob, "me/group/r-live", INFO)).reply.unwrap();
    assert_eq!(info, json!({ "room": "r-live", "seq": 1, "members": 2, "names": ["alice", "bob"] }));
    told(w.ask(&bob, "me/group/r-live", LEAVE));
    told(w.ask(&bob, "me/group/r-live", LEAVE));
    told(w.ask(&alice, "to/r-live/msg", "still here?"));
    assert_eq!(w.take(&bob), []);
    assert_eq!(w.commit(), 0);
}

#[test]
fn the_bytes_of_a_message_are_there_once() {
    let (mut w, [alice, bob, _]) = world();
    told(w.ask(&alice, "to/r-live/msg", "hi"));
    let note_of = |client: &Client| {
        let at = w.im.place_of(client.session).unwrap();
        std::rc::Rc::clone(&w.im.online[at as usize].notes[0].payload)
    };
    assert!(std::rc::Rc::ptr_eq(&note_of(&alice), &note_of(&bob)));
}

#[test]
fn a_room_ends_with_its_last_session_and_begins_anew() {
    let (mut w, [alice, bob, _]) = world();
    assert_eq!(told(w.ask(&alice, "to/r-live/msg", "one")).seq, 1);
    w.disconnect(&alice);
    assert_eq!(told(w.ask(&bob, "to/r-live/msg", "two")).seq, 2);
    w.disconnect(&bob);
    assert!(w.im.rooms.by_name.is_empty() && w.im.rooms.of.is_empty());
    let alice = w.connect("alice", "phone", &[EVERYTHING]);
    assert_eq!(code(w.ask(&alice, "to/r-live/msg", "three")), Err(Code::NotFound));
    let reply = told(w.ask(&alice, "me/group/r-live", JOIN)).reply.unwrap();
    assert_eq!(reply, json!({ "room": "r-live", "seq": 0, "members": 1 }));
    assert_eq!(told(w.ask(&alice, "to/r-live/msg", "three")).seq, 1);
}

#[test]
fn a_client_that_only_publishes_joins_for_those_of_its_account_that_listen() {
    let (mut w, [alice, ..]) = world();
    let publisher = w.connect("dora", "pub", &[]);
    assert_eq!(code(w.ask(&publisher, "me/group/r-live", JOIN)), Err(Code::BadRequest));
    let listener = w.connect("dora", "sub", &["im/v1/me/in/#"]);
    told(w.ask(&publisher, "me/group/r-live", JOIN));
    w.disconnect(&publisher);
    told(w.ask(&alice, "to/r-live/msg", "hi"));
    assert_eq!(w.take(&listener).len(), 1);
    // Nor is a session in that hears something else.
    let errors = w.connect("erin", "pub", &["im/v1/me/err"]);
    w.connect("erin", "sub", &["im/v1/me/in/#"]);
    told(w.ask(&errors, "me/group/r-live", JOIN));
    let at = w.im.place_of(errors.session).unwrap();
    assert!(!w.im.rooms.of.contains_key(&at));
    // A terminal that listens joins for itself alone.
    let tablet = w.connect("carol", "tablet", &[EVERYTHING]);
    told(w.ask(&tablet, "me/group/r-live", JOIN));
    let phone = w.im.dir.accounts[tablet.account.at()].online[0];
    assert!(!w.im.rooms.of.contains_key(&phone));
}

#[test]
fn an_old_client_gets_the_fallback() {
    let (mut w, [alice, bob, _]) = world();
    let no = w.im.dir.accounts[bob.account.at()].terminals[0].no;
    w.im.dir.accounts[bob.account.at()].terminal_mut(no).unwrap().level = 261_001;
    told(w.ask(&alice, "to/r-live/msg", r#"{"body":{"n":1},"level":261001,"fallback":"update"}"#));
    let payload = |w: &mut World, client: &Client| w.take(client).remove(0).1;
    assert_eq!(payload(&mut w, &bob)["body"], json!({ "n": 1 }));
    let old = payload(&mut w, &alice);
    assert_eq!((&old["text"], &old["fallback"]), (&"update".into(), &true.into()));
}

#[test]
fn rooms_are_bounded() {
    let (mut w, [alice, bob, carol]) = world();
    w.im.limits.im_room_members_max = 2;
    assert_eq!(code(w.ask(&carol, "me/group/r-live", JOIN)), Err(Code::Quota));
    assert_eq!(code(w.ask(&alice, "me/group/r-live", JOIN)), Ok(()));
    w.im.limits.im_rooms_max = 2;
    assert_eq!(code(w.ask(&carol, "me/group/r-a", JOIN)), Ok(()));
    assert_eq!(code(w.ask(&carol, "me/group/r-b", JOIN)), Err(Code::Quota));
    w.im.limits.im_rooms_per_session_max = 1;
    assert_eq!(code(w.ask(&bob, "me/group/r-a", JOIN)), Err(Code::Quota));
    for payload in ["", r#"{"op":"burn"}"#, "join"] {
        assert_eq!(code(w.ask(&bob, "me/group/r-a", payload)), Err(Code::BadRequest), "{payload}");
    }
    let long = "x".repeat(65_537);
    assert_eq!(code(w.ask(&alice, "to/r-live/msg", &long)), Err(Code::TooLarge));
}

#[test]
fn who_speaks_too_fast_is_refused_and_a_slow_reader_loses_messages_alone() {
    let (mut w, [alice, bob, _]) = world();
    let spoken = (0..100).filter(|_| w.ask(&alice, "to/r-live/msg", "x").is_ok()).count();
    assert_eq!(spoken, 30);
    w.pass(1_000);
    assert_eq!((0..100).filter(|_| w.ask(&alice, "to/r-live/msg", "x").is_ok()).count(), 10);
    assert_eq!(w.take(&alice).len(), 40);
    w.im.limits.im_room_rate_max = 0;
    let text = "x".repeat(60_000);
    for _ in 0..100 {
        told(w.ask(&alice, "to/r-live/msg", &text));
        w.take(&alice);
    }
    assert!(w.take(&bob).len() < 140);
    assert!(w.im.counters.dropped.count("slow_reader") > 0);
}

// ---- Typing and streams --------------------------------------------------------------------------------------

fn group(w: &mut World, address: &str, names: &[&str]) {
    let mut members: Vec<Member> = names.iter().map(|name| Member::new(w.account(name), Role::Member, 0)).collect();
    members.sort_unstable_by_key(|m| m.account);
    let group =
        Group { address: address.into(), name: String::new(), household: false, large: false, dissolved: false };
    let no = w.im.make_conv(Conv::new(ConvKind::Group(group), members));
    w.im.dir.by_name.insert(address.into(), Address::Conv(no));
}

#[test]
fn typing_is_shown_to_the_peer_that_is_online() {
    let (mut w, [alice, bob, carol]) = world();
    befriend(&mut w, "alice", "bob");
    group(&mut w, "g-home", &["alice", "bob", "carol"]);
    w.commit();
    let shown = |typing: bool| json!({ "from": "alice", "typing": typing });
    for (payload, typing) in [("", true), (r#"{"typing":false}"#, false)] {
        told(w.ask(&alice, "to/bob/typing", payload));
        assert_eq!(w.take(&bob), [("me/in/alice/typing".to_owned(), shown(typing), 0)]);
    }
    told(w.ask(&alice, "to/g-home/typing", ""));
    for client in [&bob, &carol] {
        assert_eq!(w.take(client), [("me/in/g-home/typing".to_owned(), shown(true), 0)]);
    }
    assert_eq!((w.take(&alice), w.commit()), (vec![], 0));
    assert_eq!(code(w.ask(&alice, "to/nobody/typing", "")), Err(Code::NotFound));
    assert_eq!(code(w.ask(&alice, "to/r-live/typing", "")), Err(Code::Forbidden));
    assert_eq!(code(w.ask(&alice, "to/bob/typing", "yes")), Err(Code::BadRequest));
    w.pass(10_000);
    let taken = (0..20).filter(|_| w.ask(&alice, "to/bob/typing", "").is_ok()).count();
    assert_eq!(taken, 10);
    assert_eq!(code(w.ask(&alice, "to/bob/typing", "")), Err(Code::Quota));
}

#[test]
fn only_those_who_may_write_are_heard() {
    let (mut w, [alice, bob, carol]) = world();
    befriend(&mut w, "alice", "bob");
    group(&mut w, "g-two", &["alice", "bob"]);
    let names: Vec<String> = (0..65).map(|n| format!("user{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).chain(["carol"]).collect();
    group(&mut w, "g-many", &names);
    for what in ["typing", "stream/gps"] {
        for (client, to, expect) in [
            (&alice, "bob", Ok(())),
            (&bob, "g-two", Ok(())),
            (&carol, "bob", Err(Code::NoConsent)),
            (&carol, "g-two", Err(Code::Forbidden)),
            (&carol, "g-many", Err(Code::Forbidden)),
        ] {
            assert_eq!(code(w.ask(client, &format!("to/{to}/{what}"), "")), expect, "{to} {what}");
        }
    }
}

#[test]
fn of_a_stream_only_the_latest_waits() {
    let (mut w, [alice, bob, carol]) = world();
    befriend(&mut w, "alice", "bob");
    group(&mut w, "g-home", &["alice", "bob", "carol"]);
    w.commit();
    for n in 0..50 {
        told(w.ask(&alice, "to/bob/stream/gps", &n.to_string()));
        told(w.ask(&alice, "to/g-home/stream/gps", &n.to_string()));
    }
    told(w.ask(&alice, "to/bob/stream/temp", r#"{"c":21}"#));
    let one = |topic: &str, payload: Value| (topic.to_owned(), payload, 0);
    let direct = one("me/in/alice/stream/gps", 49.into());
    let group = one("me/in/g-home/stream/gps", 49.into());
    assert_eq!(w.take(&bob), [direct, group.clone(), one("me/in/alice/stream/temp", json!({ "c": 21 }))]);
    assert_eq!(w.take(&carol), [group]);
    let at = w.im.place_of(bob.session).unwrap();
    assert_eq!((w.im.online[at as usize].notes_bytes, w.commit()), (0, 0));
    // Another value after that is told.
    told(w.ask(&alice, "to/bob/stream/gps", "50"));
    assert_eq!(w.take(&bob).len(), 1);
    assert_eq!(code(w.ask(&alice, "to/bob/stream/a b", "")), Err(Code::BadTopic));
    let long = "x".repeat(65_537);
    assert_eq!(code(w.ask(&alice, "to/bob/stream/gps", &long)), Err(Code::TooLarge));
}

#[test]
fn many_streams_do_not_fill_a_slow_reader() {
    let (mut w, [alice, bob, _]) = world();
    befriend(&mut w, "alice", "bob");
    w.im.limits.im_stream_rate_max = 0;
    for n in 0..1_000 {
        told(w.ask(&alice, &format!("to/bob/stream/s{n}"), "x"));
    }
    assert_eq!(w.take(&bob).len(), 256);
    assert_eq!(w.im.counters.dropped.count("slow_reader"), 744);
}
