//! Channels as terminals see them, over connections, restarts and time.

use super::world::{Client, EVERYTHING, START_MS, World, told};
use crate::hub::Hello;
use crate::im::model::AccountKind;
use crate::im::{Code, Refusal, Verdict};
use serde_json::{Value, json};

impl World {
    /// What a client gets of channels: last level of the topic, entry, text.
    fn news(&mut self, client: &Client) -> Vec<(String, u64, String)> {
        news_of(self.take(client))
    }
}

fn news_of(sent: Vec<(String, Value, u8)>) -> Vec<(String, u64, String)> {
    let of_channel = |(topic, payload, _): (String, Value, u8)| {
        let word = topic.strip_prefix("me/in/ch-fw/")?.to_owned();
        let text = payload["text"].as_str().unwrap_or_default().to_owned();
        Some((word, payload["entry"].as_u64().unwrap(), text))
    };
    sent.into_iter().filter_map(of_channel).collect()
}

/// A channel to everybody.
fn world() -> World {
    let mut w = World::new();
    w.act("admin/ch/ch-fw/create", &json!({ "name": "Firmware", "audience": "all" }));
    w
}

fn news(expect: &[(&str, u64, &str)]) -> Vec<(String, u64, String)> {
    expect.iter().map(|(word, entry, text)| ((*word).to_owned(), *entry, (*text).to_owned())).collect()
}

#[test]
fn to_publish_is_one_row_however_many_read() {
    let mut w = world();
    let clients: Vec<Client> = (0..10_000).map(|n| w.connect(&format!("user{n}"), "phone", &[EVERYTHING])).collect();
    for client in &clients {
        w.take(client);
    }
    w.commit();
    let reply = w.act("admin/ch/ch-fw/publish", &json!({ "text": "one", "notify": true }));
    assert_eq!((&reply["entry"], &reply["state"]), (&1.into(), &"live".into()));
    assert_eq!(w.commit(), 1);
    w.pass(5_000);
    assert_eq!(w.commit(), 0);
    for client in &clients {
        assert_eq!(w.news(client), news(&[("msg", 1, "one")]));
    }
    // Each terminal's own place, as it acknowledges.
    assert_eq!(w.commit(), 10_000);
    let list = w.act("admin/ch/ch-fw/list", &json!({}));
    assert_eq!((&list["entries"][0]["sent"], &list["entries"][0]["preview"]), (&10_000.into(), &"one".into()));
    for op in ["modify", "stop", "recall"] {
        let fields = if op == "modify" { json!({ "entry": 1, "text": "two" }) } else { json!({ "entry": 1 }) };
        w.act(&format!("admin/ch/ch-fw/{op}"), &fields);
        assert_eq!(w.commit(), 1, "{op}");
    }
}

#[test]
fn an_entry_is_seen_once_over_connections_and_restarts() {
    let mut w = world();
    w.act("admin/ch/ch-fw/publish", &json!({ "text": "one" }));
    for round in 0..2 {
        let phone = w.connect("alice", "phone", &[EVERYTHING]);
        assert_eq!(w.news(&phone), if round == 0 { news(&[("msg", 1, "one")]) } else { vec![] });
        w.disconnect(&phone);
    }
    w.commit();
    w.restart();
    let phone = w.connect("alice", "phone", &[EVERYTHING]);
    assert_eq!(w.news(&phone), []);
    // Another terminal of the account, and an account that is made now.
    let tablet = w.connect("alice", "tablet", &[EVERYTHING]);
    let other = w.connect("bob", "phone", &[EVERYTHING]);
    assert_eq!(w.news(&tablet), news(&[("msg", 1, "one")]));
    assert_eq!(w.news(&other), news(&[("msg", 1, "one")]));
    // What was not acknowledged is sent again on the next connection, and not on the same one.
    w.act("admin/ch/ch-fw/publish", &json!({ "text": "two" }));
    w.disconnect(&phone);
    let phone = w.connect("alice", "phone", &[EVERYTHING]);
    assert_eq!(news_of(w.sent(&phone, false)), news(&[("msg", 2, "two")]));
    let at = w.im.place_of(phone.session).unwrap();
    w.im.announcements_for(w.now, at);
    assert_eq!(w.news(&phone), []);
    w.disconnect(&phone);
    let phone = w.connect("alice", "phone", &[EVERYTHING]);
    assert_eq!(w.news(&phone), news(&[("msg", 2, "two")]));
}

#[test]
fn a_changed_text_is_seen_once_more() {
    let mut w = world();
    w.act("admin/ch/ch-fw/publish", &json!({ "text": "one" }));
    let phone = w.connect("alice", "phone", &[EVERYTHING]);
    assert_eq!(w.news(&phone), news(&[("msg", 1, "one")]));
    w.disconnect(&phone);
    w.act("admin/ch/ch-fw/modify", &json!({ "entry": 1, "text": "uno" }));
    w.act("admin/ch/ch-fw/modify", &json!({ "entry": 1, "notify": true }));
    w.commit();
    w.restart();
    for expect in [news(&[("edit", 1, "uno")]), vec![]] {
        let phone = w.connect("alice", "phone", &[EVERYTHING]);
        assert_eq!(w.news(&phone), expect);
        w.disconnect(&phone);
    }
    let late = w.connect("bob", "phone", &[EVERYTHING]);
    assert_eq!(w.news(&late), news(&[("msg", 1, "uno")]));
    w.act("admin/ch/ch-fw/stop", &json!({ "entry": 1 }));
    let later = w.connect("carol", "phone", &[EVERYTHING]);
    assert_eq!(w.news(&later), []);
    w.pass(10_000);
    assert_eq!(w.news(&late), []);
}

#[test]
fn who_is_on_the_white_list_sees_it_early_and_once() {
    let mut w = world();
    for name in ["tester", "later", "alice"] {
        w.account(name);
    }
    w.act("admin/ch/ch-fw/whitelist", &json!({ "accounts": ["tester"] }));
    w.act("admin/ch/ch-fw/pre", &json!({ "text": "beta" }));
    let tester = w.connect("tester", "phone", &[EVERYTHING]);
    let later = w.connect("later", "phone", &[EVERYTHING]);
    let alice = w.connect("alice", "phone", &[EVERYTHING]);
    assert_eq!(w.news(&tester), news(&[("msg", 1, "beta")]));
    assert_eq!((w.news(&later), w.news(&alice)), (vec![], vec![]));
    // The list is changed while everything runs, also after the terminal has gone past the entry.
    w.act("admin/ch/ch-fw/publish", &json!({ "text": "other", "notify": true }));
    w.pass(5_000);
    assert_eq!(w.news(&later), news(&[("msg", 2, "other")]));
    w.act("admin/ch/ch-fw/whitelist", &json!({ "accounts": ["tester", "later"] }));
    assert_eq!(w.news(&later), news(&[("msg", 1, "beta")]));
    assert_eq!(w.news(&tester), news(&[("msg", 2, "other")]));
    w.commit();
    w.restart();
    w.act("admin/ch/ch-fw/publish", &json!({ "entry": 1 }));
    w.commit();
    w.restart();
    let all = ["tester", "later", "alice"].map(|name| w.connect(name, "phone", &[EVERYTHING]));
    assert_eq!(w.news(&all[0]), []);
    // Also when it is on no list any more.
    w.act("admin/ch/ch-fw/whitelist", &json!({ "accounts": [] }));
    assert_eq!(w.news(&all[1]), []);
    assert_eq!(w.news(&all[2]), news(&[("msg", 2, "other"), ("msg", 1, "beta")]));
    w.act("admin/ch/ch-fw/modify", &json!({ "entry": 1, "text": "final", "notify": true }));
    w.pass(5_000);
    for client in &all {
        assert_eq!(w.news(client), news(&[("edit", 1, "final")]));
    }
}

#[test]
fn a_recall_reaches_those_who_have_it_and_nobody_else() {
    let mut w = world();
    w.act("admin/ch/ch-fw/publish", &json!({ "text": "bad" }));
    let has = w.connect("has", "phone", &[EVERYTHING]);
    assert_eq!(w.news(&has).len(), 1);
    let away = w.connect("away", "phone", &[EVERYTHING]);
    assert_eq!(w.news(&away).len(), 1);
    w.disconnect(&away);
    // The acknowledgement of this one is lost.
    let unsure = w.connect("unsure", "phone", &[EVERYTHING]);
    assert_eq!(w.sent(&unsure, false).iter().filter(|(topic, ..)| topic == "me/in/ch-fw/msg").count(), 1);
    w.disconnect(&unsure);
    w.act("admin/ch/ch-fw/recall", &json!({ "entry": 1 }));
    w.pass(5_000);
    assert_eq!(w.news(&has), news(&[("recall", 1, "")]));
    for name in ["away", "unsure"] {
        let client = w.connect(name, "phone", &[EVERYTHING]);
        assert_eq!(w.news(&client), news(&[("recall", 1, "")]), "{name}");
        w.disconnect(&client);
        let client = w.connect(name, "phone", &[EVERYTHING]);
        assert_eq!(w.news(&client), [], "{name}");
    }
    let never = w.connect("never", "phone", &[EVERYTHING]);
    assert_eq!(w.news(&never), []);
    let list = w.act("admin/ch/ch-fw/list", &json!({ "entry": 1 }));
    assert_eq!((&list["entries"][0]["state"], &list["entries"][0]["message"]), (&"recalled".into(), &json!({})));
}

#[test]
fn validity_begins_and_ends_in_its_time_also_while_the_broker_is_down() {
    let mut w = world();
    let (from, until) = (START_MS + 60_000, START_MS + 120_000);
    let fields = json!({ "text": "sale", "from": from, "until": until, "notify": true });
    let reply = w.act("admin/ch/ch-fw/publish", &fields);
    assert_eq!(reply["waits"], true);
    w.act("admin/ch/ch-fw/publish", &json!({ "text": "now" }));
    let early = w.connect("early", "phone", &[EVERYTHING]);
    assert_eq!(w.news(&early), news(&[("msg", 2, "now")]));
    w.commit();
    w.pass(59_999);
    assert_eq!((w.news(&early), w.commit()), (vec![], 0));
    w.pass(1);
    // One row for all, and those who are online are told.
    assert_eq!(w.commit(), 1);
    w.pass(5_000);
    assert_eq!(w.news(&early), news(&[("msg", 1, "sale")]));
    let inside = w.connect("inside", "phone", &[EVERYTHING]);
    assert_eq!(w.news(&inside), news(&[("msg", 2, "now"), ("msg", 1, "sale")]));
    w.now.wall_ms = until;
    let outside = w.connect("outside", "phone", &[EVERYTHING]);
    assert_eq!(w.news(&outside), news(&[("msg", 2, "now")]));
    // The time comes while nobody is there to see it.
    let next = w.now.wall_ms + 1_000;
    w.act("admin/ch/ch-fw/publish", &json!({ "text": "later", "from": next }));
    w.commit();
    w.now.wall_ms = next + 500;
    w.restart();
    w.pass(1);
    let early = w.connect("early", "phone", &[EVERYTHING]);
    assert_eq!(w.news(&early), news(&[("msg", 3, "later")]));
}

#[test]
fn level_and_platform_are_those_of_the_terminal() {
    let mut w = world();
    let fields = json!({ "text": "new", "level": { "min": 261_001 }, "platforms": ["ios"] });
    w.act("admin/ch/ch-fw/publish", &fields);
    for (name, level, platform, sees) in [
        ("fits", 261_001, "ios", true),
        ("old", 260_901, "ios", false),
        ("other", 261_001, "web", false),
        ("stock", 0, "", false),
    ] {
        let hello = Hello { level, platform: platform.into(), app: "".into() };
        let client = w.connect_as(name, "phone", &[EVERYTHING], Some(&hello));
        assert_eq!(!w.news(&client).is_empty(), sees, "{name}");
    }
}

#[test]
fn with_notify_those_who_are_online_are_told_over_time_and_without_they_are_not() {
    let mut w = world();
    let clients: Vec<Client> = (0..500).map(|n| w.connect(&format!("user{n}"), "phone", &[EVERYTHING])).collect();
    for client in &clients {
        w.take(client);
    }
    while w.im.poll_ready().is_some() {}
    w.act("admin/ch/ch-fw/publish", &json!({ "text": "quiet" }));
    w.pass(10_000);
    assert_eq!(w.im.poll_ready(), None);
    w.act("admin/ch/ch-fw/publish", &json!({ "text": "loud", "notify": true }));
    let mut told = vec![];
    for _ in 0..10 {
        w.pass(500);
        let ready: Vec<u32> = core::iter::from_fn(|| w.im.poll_ready()).collect();
        told.push(ready.len());
    }
    assert_eq!(told.iter().sum::<usize>(), 500, "{told:?}");
    assert!(told.iter().all(|n| (20..=80).contains(n)), "{told:?}");
    assert_eq!(w.news(&clients[0]), news(&[("msg", 1, "quiet"), ("msg", 2, "loud")]));
    // Published again and again, nobody waits longer for the first one.
    for n in 0..8 {
        w.act("admin/ch/ch-fw/publish", &json!({ "text": "again", "notify": true, "id": format!("a{n}") }));
        w.pass(if n == 7 { 5_100 } else { 1_000 });
        assert!(w.im.announcements.logs.values().all(|log| log.telling.len() <= 500));
        if n == 4 {
            assert_eq!(core::iter::from_fn(|| w.im.poll_ready()).count(), 500);
        }
    }
    assert_eq!(w.im.announcements.logs.values().map(|log| log.telling.len()).sum::<usize>(), 0);
}

#[test]
fn a_channel_for_followers_is_for_those_who_follow_it() {
    let mut w = World::new();
    w.act("admin/ch/ch-fw/create", &json!({ "audience": "followers" }));
    w.act("admin/ch/ch-fw/publish", &json!({ "text": "one" }));
    let alice = w.connect("alice", "phone", &[EVERYTHING]);
    let bob = w.connect("bob", "phone", &[EVERYTHING]);
    assert_eq!((w.news(&alice), w.news(&bob)), (vec![], vec![]));
    told(w.ask(&alice, "me/contact/ch-fw", r#"{"op":"follow"}"#));
    assert_eq!((w.news(&alice), w.news(&bob)), (news(&[("msg", 1, "one")]), vec![]));
    told(w.ask(&alice, "me/contact/ch-fw", r#"{"op":"unfollow"}"#));
    w.act("admin/ch/ch-fw/publish", &json!({ "text": "two", "notify": true }));
    w.act("admin/ch/ch-fw/recall", &json!({ "entry": 1 }));
    w.pass(5_100);
    // It follows no longer, and still has what is recalled.
    assert_eq!((w.news(&alice), w.news(&bob)), (news(&[("recall", 1, "")]), vec![]));
    w.disconnect(&alice);
    w.commit();
    w.restart();
    let alice = w.connect("alice", "phone", &[EVERYTHING]);
    told(w.ask(&alice, "me/contact/ch-fw", r#"{"op":"follow"}"#));
    assert_eq!(w.news(&alice), news(&[]));
    w.act("admin/ch/ch-fw/publish", &json!({ "text": "three", "notify": true }));
    w.pass(5_100);
    assert_eq!(w.news(&alice), news(&[("msg", 3, "three")]));
}

#[test]
fn a_terminal_that_pulls_is_told_and_pulls() {
    let mut w = world();
    let puller = w.connect("alice", "board", &["im/v1/me/head"]);
    w.take(&puller);
    w.act("admin/ch/ch-fw/publish", &json!({ "text": "one", "notify": true }));
    w.pass(5_000);
    let heads: Vec<String> = w.take(&puller).into_iter().map(|(topic, ..)| topic).collect();
    assert_eq!(heads, ["me/head"]);
    let at = w.im.place_of(puller.session).unwrap();
    let pull = |w: &mut World| {
        let channel = *w.im.announcements.logs.keys().next().unwrap();
        w.im.announcements_for(w.now, at);
        let next = w.im.next_announcement(w.now, at, channel)?;
        w.im.announcement_done(w.now, at, channel, next.2);
        Some(next.0)
    };
    assert_eq!(pull(&mut w).as_deref(), Some("im/v1/me/in/ch-fw/msg"));
    assert_eq!(pull(&mut w), None);
    let list = w.act("admin/ch/ch-fw/list", &json!({}));
    assert_eq!(list["entries"][0]["sent"], 1);
}

#[test]
fn who_listens_to_messages_only_misses_no_message_behind_a_recall() {
    let mut w = world();
    let phone = w.connect("alice", "phone", &["im/v1/me/in/+/msg"]);
    for text in ["one", "two"] {
        w.act("admin/ch/ch-fw/publish", &json!({ "text": text, "notify": true }));
        w.pass(5_000);
    }
    assert_eq!(w.news(&phone), news(&[("msg", 1, "one"), ("msg", 2, "two")]));
    w.act("admin/ch/ch-fw/recall", &json!({ "entry": 1 }));
    w.act("admin/ch/ch-fw/publish", &json!({ "text": "three", "notify": true }));
    w.pass(5_000);
    assert_eq!(w.news(&phone), news(&[("msg", 3, "three")]));
}

#[test]
fn only_some_may_write_and_requests_are_checked() {
    let mut w = world();
    for name in ["alice", "eve"] {
        w.account(name);
    }
    let shop = w.connect("shop", "backend", &[]);
    w.im.dir.accounts[shop.account.at()].kind = AccountKind::Service;
    let (alice, eve) = (w.connect("alice", "phone", &[]), w.connect("eve", "phone", &[]));
    let code = |verdict: Result<Verdict, Refusal>| verdict.map(drop).map_err(|refusal| refusal.code);
    let create = r#"{"editors":["alice"]}"#;
    assert_eq!(code(w.ask(&eve, "admin/ch/ch-new/create", create)), Err(Code::Forbidden));
    assert_eq!(code(w.ask(&shop, "admin/ch/ch-new/create", create)), Ok(()));
    assert!(told(w.ask(&shop, "admin/ch/ch-new/create", create)).dup);
    assert_eq!(code(w.ask(&shop, "admin/ch/ch-new/create", r#"{"name":"x"}"#)), Err(Code::Exists));
    for (client, path, payload, expect) in [
        (&eve, "ch-new/publish", "hi", Err(Code::Forbidden)),
        (&eve, "ch-new/list", "", Err(Code::Forbidden)),
        (&alice, "ch-new/publish", "plain text", Ok(())),
        (&shop, "ch-new/publish", r#"{"body":{"n":1}}"#, Ok(())),
        (&alice, "ch-none/publish", "hi", Err(Code::NotFound)),
        (&alice, "g-new/publish", "hi", Err(Code::BadRequest)),
        (&alice, "ch-new/burn", "hi", Err(Code::BadTopic)),
        (&alice, "ch-new/publish", "{}", Err(Code::BadRequest)),
        (&alice, "ch-new/publish", r#"{"n":1}"#, Err(Code::BadRequest)),
        (&alice, "ch-new/publish", r#"{"text":"x","level":5}"#, Err(Code::BadRequest)),
        (&alice, "ch-new/publish", r#"{"text":"x","level":{"min":9,"max":8}}"#, Err(Code::BadRequest)),
        (&alice, "ch-new/publish", r#"{"text":"x","platforms":"ios"}"#, Err(Code::BadRequest)),
        (&alice, "ch-new/publish", r#"{"text":"x","until":1}"#, Err(Code::BadRequest)),
        (&alice, "ch-new/publish", r#"{"entry":99}"#, Err(Code::NotFound)),
        (&alice, "ch-new/modify", r#"{"text":"x"}"#, Err(Code::BadRequest)),
        (&alice, "ch-new/stop", r#"{"entry":1,"text":"x"}"#, Err(Code::BadRequest)),
        (&alice, "ch-new/draft", r#"{"entry":1,"text":"x"}"#, Err(Code::TooLate)),
        (&alice, "ch-new/publish", r#"{"entry":1,"text":"x"}"#, Err(Code::TooLate)),
        (&alice, "ch-new/publish", r#"{"entry":1}"#, Ok(())),
        (&alice, "ch-new/recall", r#"{"entry":1}"#, Ok(())),
        (&alice, "ch-new/recall", r#"{"entry":1}"#, Ok(())),
        (&alice, "ch-new/modify", r#"{"entry":1,"text":"x"}"#, Err(Code::TooLate)),
        (&alice, "ch-new/whitelist", r#"{"accounts":["nobody"]}"#, Err(Code::NotFound)),
        (&alice, "ch-new/whitelist", r#"{"entry":1,"accounts":["eve"]}"#, Err(Code::TooLate)),
    ] {
        assert_eq!(code(w.ask(client, &format!("admin/ch/{path}"), payload)), expect, "{path} {payload}");
    }
    let long = "x".repeat(65_537);
    assert_eq!(code(w.ask(&alice, "admin/ch/ch-new/publish", &long)), Err(Code::TooLarge));
}

#[test]
fn a_request_said_again_makes_no_second_entry() {
    let mut w = world();
    let publish = json!({ "text": "one", "id": "p1" });
    let first = w.act("admin/ch/ch-fw/publish", &publish);
    w.commit();
    w.restart();
    assert_eq!(w.act("admin/ch/ch-fw/publish", &publish)["entry"], first["entry"]);
    assert_eq!(w.commit(), 0);
    let admin = w.account("admin");
    let other = w.request(admin, None, "$operator", true, "admin/ch/ch-fw/publish", r#"{"text":"two","id":"p1"}"#);
    assert_eq!(other.unwrap_err().code, Code::IdReused);
}

#[test]
fn a_full_channel_gives_up_what_is_over_and_never_what_is_live() {
    let mut w = world();
    w.im.limits.im_channel_entries_max = 3;
    for text in ["one", "two", "three"] {
        w.act("admin/ch/ch-fw/publish", &json!({ "text": text }));
    }
    let admin = w.account("admin");
    let full = w.request(admin, None, "$operator", true, "admin/ch/ch-fw/publish", "four");
    assert_eq!(full.unwrap_err().code, Code::Quota);
    w.act("admin/ch/ch-fw/recall", &json!({ "entry": 1 }));
    w.act("admin/ch/ch-fw/stop", &json!({ "entry": 2 }));
    assert_eq!(w.act("admin/ch/ch-fw/publish", &json!({ "text": "four" }))["entry"], 4);
    w.commit();
    w.restart();
    let list = w.act("admin/ch/ch-fw/list", &json!({}));
    let kept: Vec<u64> = list["entries"].as_array().unwrap().iter().map(|e| e["entry"].as_u64().unwrap()).collect();
    assert_eq!(kept, [4, 3, 1]);
    w.im.limits.im_channel_bytes_max = 1_024;
    let long = "x".repeat(1_024);
    let full = w.request(
        admin,
        None,
        "$operator",
        true,
        "admin/ch/ch-fw/modify",
        &format!(r#"{{"entry":3,"text":"{long}"}}"#),
    );
    assert_eq!(full.unwrap_err().code, Code::Quota);
    assert_eq!(w.im.announcements.bytes, (r#","text":"four""#.len() + r#","text":"three""#.len()) as u64);
}
