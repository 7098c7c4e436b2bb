//! What is said and shown of accounts, and that nothing is left of one that is gone.

use crate::im::contact::testing::World;
use crate::im::model::{AccountKind, Address, Channel, Conv, ConvKind, Role};
use crate::im::{AccountNo, Code, row};
use crate::store::{Kind, Table};
use serde_json::{Value, json};

fn names(world: &World, address: &str) -> Vec<(String, Role)> {
    let Address::Conv(conv) = world.im.dir.by_name[address] else { panic!("{address}") };
    let members = &world.im.dir.convs[conv.at()].members;
    members.iter().map(|m| (world.im.name_of(m.account).to_string(), m.role)).collect()
}

#[test]
fn hello_is_of_the_terminal_and_answers_where_it_stands() {
    let mut w = World::new();
    w.people(["alice", "bob"]);
    w.befriend("alice", "bob");
    w.ok("bob", "to/alice/msg", "hi");
    // Not a terminal yet: what it says is kept for the day it becomes one.
    let session = w.connect("alice", "phone", &["im/v1/me/+/res"]);
    let mut origin = w.origin("alice", "phone");
    origin.session = Some((session, 1));
    let got = w.request(&origin, "me/hello", r#"{"level":261001,"platform":"ios"}"#).unwrap();
    let expect = json!({
        "account": "alice", "kind": "person", "terminal": "phone", "pos": 2, "acked": null, "floor": 1, "unread": 1,
        "level": 261_001, "epoch": 1, "now": w.now.wall_ms,
    });
    assert_eq!(got, expect);
    let at = w.im.place_of(session).unwrap();
    assert!(w.im.subscribe(w.now, at, "im/v1/me/in/#", 1, 0, crate::im::Greeting::Nothing));
    w.request(&origin, "me/hello", r#"{"app":"chat 2"}"#).unwrap();
    w.restart();
    let list = w.ok("alice", "me/terminals", "");
    let terminal = &list["terminals"][0];
    assert_eq!((&terminal["terminal"], &terminal["online"]), (&"phone".into(), &false.into()));
    let said = (&terminal["level"], &terminal["platform"], &terminal["app"]);
    assert_eq!(said, (&261_001.into(), &"ios".into(), &"chat 2".into()));
    assert_eq!(w.ok("alice", "me/hello", "")["level"], 261_001);
    for wrong in [r#"{"level":"new"}"#, r#"{"level":4294967296}"#, r#"{"platform":"a\nb"}"#, r#"{"app":1}"#] {
        w.refused("alice", "me/hello", wrong, Code::BadRequest);
    }
}

#[test]
fn a_profile_is_shown_to_whoever_knows_the_name() {
    let mut w = World::new();
    w.people(["alice", "bob"]);
    w.ok("alice", "me/profile", r#"{"name":" Alice A. ","data":{"colour":"red"}}"#);
    w.restart();
    let got = w.ok("bob", "me/whois/alice", "");
    assert_eq!((&got["addr"], &got["kind"], &got["name"]), (&"alice".into(), &"person".into(), &"Alice A.".into()));
    assert_eq!((&got["data"], &got["contact"]["state"]), (&json!({ "colour": "red" }), &"none".into()));
    w.ok("alice", "me/profile", r#"{"data":null}"#);
    assert_eq!(w.ok("alice", "me/whois/alice", ""), json!({ "addr": "alice", "kind": "person", "name": "Alice A." }));
    w.ok("alice", "me/profile", r#"{"name":""}"#);
    assert_eq!(w.ok("alice", "me/whois/alice", ""), json!({ "addr": "alice", "kind": "person" }));
    w.refused("alice", "me/profile", &json!({ "name": "x".repeat(65) }).to_string(), Code::BadRequest);
    w.refused("alice", "me/profile", &json!({ "data": "x".repeat(2_047) }).to_string(), Code::TooLarge);
    w.ok("alice", "me/profile", &json!({ "data": "x".repeat(2_046) }).to_string());
    w.refused("alice", "me/whois/nobody", "", Code::NotFound);
    // Of a pair of which one has blocked the other neither sees more than the name.
    w.ok("alice", "me/contact/bob", r#"{"op":"block"}"#);
    assert_eq!(w.ok("bob", "me/whois/alice", "").get("data"), None);
    assert_eq!(w.ok("alice", "me/whois/bob", "")["contact"]["blocked"], true);
}

#[test]
fn groups_are_shown_to_members_and_channels_to_all() {
    let mut w = World::new();
    w.people(["alice", "bob"]);
    w.ok("alice", "me/group/g-home", r#"{"op":"create","name":"Home"}"#);
    assert_eq!(w.ok("alice", "me/whois/g-home", "")["members"], 1);
    w.refused("bob", "me/whois/g-home", "", Code::NotFound);
    w.refused("bob", "me/whois/r-live", "", Code::NotFound);
    let channel = Channel { address: "ch-fw".into(), name: "Firmware".into(), to_all: false, editors: vec![] };
    let conv = w.im.make_conv(Conv::new(ConvKind::Channel(channel), vec![]));
    w.im.dir.by_name.insert("ch-fw".into(), Address::Conv(conv));
    assert_eq!(w.ok("bob", "me/whois/ch-fw", "")["follows"], false);
}

#[test]
fn a_terminal_that_is_kicked_is_forgotten_with_its_place() {
    let mut w = World::new();
    w.people(["alice", "bob"]);
    w.befriend("alice", "bob");
    let phone = w.connect("alice", "phone", &["im/v1/me/in/#"]);
    let tab = w.connect("alice", "tab", &["im/v1/me/in/#"]);
    w.ok("bob", "to/alice/msg", "hi");
    assert_eq!(w.drain(tab).len(), 1);
    let list = w.ok("alice", "me/terminals", "");
    assert_eq!(list["terminals"].as_array().unwrap().len(), 2);
    w.ok("alice", "me/terminals", r#"{"kick":"tab"}"#);
    assert_eq!(w.kicked, [tab]);
    assert_eq!(w.rows(row::TERMINAL, w.no("alice").0.into()).len(), 1);
    assert_eq!(w.drain(phone).len(), 1);
    // One that is away.
    w.im.detach(w.now, phone);
    w.ok("alice", "me/terminals", r#"{"kick":"phone"}"#);
    w.refused("alice", "me/terminals", r#"{"kick":"phone"}"#, Code::NotFound);
    w.restart();
    assert_eq!(w.ok("alice", "me/terminals", "")["terminals"], json!([]));
}

#[test]
fn the_operator_says_what_an_account_is() {
    let mut w = World::new();
    let now = w.now;
    assert_eq!(w.im.describe_account(now, "weather", "service", Some("Weather")), Ok(()));
    assert_eq!(w.im.describe_account(now, "weather", "robot", None).unwrap_err().code, Code::BadRequest);
    assert_eq!(w.im.describe_account(now, "g-x", "person", None).unwrap_err().code, Code::BadRequest);
    assert_eq!(w.im.describe_account(now, "x", "person", Some("a\u{7}")).unwrap_err().code, Code::BadRequest);
    assert!(w.im.account_no("x").is_none());
    w.restart();
    let account = &w.im.dir.accounts[w.no("weather").at()];
    assert_eq!((account.kind, account.display.as_str()), (AccountKind::Service, "Weather"));
    w.im.describe_account(now, "weather", "device", None).unwrap();
    let account = &w.im.dir.accounts[w.no("weather").at()];
    assert_eq!((account.kind, account.display.as_str()), (AccountKind::Device, "Weather"));
}

/// Alice with everything that an account can have.
fn busy() -> World {
    let mut w = World::new();
    w.people(["alice", "bob", "carol", "eve"]);
    for other in ["bob", "carol"] {
        w.befriend("alice", other);
    }
    w.ok("eve", "me/contact/alice", r#"{"op":"request","text":"please"}"#);
    w.ok("bob", "me/contact/alice", r#"{"op":"mute"}"#);
    w.ok("alice", "me/profile", r#"{"name":"Alice","data":{"a":1}}"#);
    let session = w.connect("alice", "phone", &["im/v1/me/in/#"]);
    w.drain(session);
    w.ok("alice", "me/group/g-home", r#"{"op":"create","household":true,"members":["carol","bob"]}"#);
    w.ok("alice", "me/group/g-only", r#"{"op":"create"}"#);
    w.ok("alice", "me/pair", r#"{"household":"g-home"}"#);
    w.ok("bob", "to/alice/msg", r#"{"text":"secret of bob","id":"b1"}"#);
    w.ok("alice", "to/bob/msg", r#"{"text":"last words","id":"a1"}"#);
    let alice = w.no("alice");
    let channel = Channel { address: "ch-fw".into(), name: "F".into(), to_all: false, editors: vec![alice] };
    let conv = w.im.make_conv(Conv::new(ConvKind::Channel(channel), vec![]));
    w.im.dir.by_name.insert("ch-fw".into(), Address::Conv(conv));
    w.ok("alice", "me/contact/ch-fw", r#"{"op":"follow"}"#);
    w
}

/// Rows of an account, but for the one that says that its number is used.
fn rows_left(w: &World, account: AccountNo) -> Vec<(Table, u64)> {
    let mut left = vec![];
    for table in (0..=255).map(Table) {
        let is_of_conv = matches!(
            table,
            row::ACCOUNT
                | row::CONV
                | row::HEAD
                | row::MEMBER
                | row::BODY
                | row::EXPIRY
                | row::ANNOUNCEMENT
                | row::PAIRING
        );
        if table.kind() == Kind::Resident && is_of_conv || table == row::BODY {
            continue;
        }
        let a = if table == row::PLACE { u64::from(account.0) * 16 } else { account.0.into() };
        left.extend(w.rows(table, a).iter().map(|found| (table, found.b)));
    }
    left
}

#[test]
fn removal_of_an_account_leaves_nothing_to_a_new_one_with_its_name() {
    let mut w = busy();
    let gone = w.no("alice");
    assert!(!rows_left(&w, gone).is_empty());
    w.im.remove_account(w.now, "alice");
    w.settle();
    assert_eq!(w.kicked.len(), 1);
    assert_eq!(rows_left(&w, gone), []);
    for _ in 0..2 {
        let kept = w.store.snapshot().rows;
        assert!(!kept.iter().any(|found| found.table == row::CONTACT && found.b == u64::from(gone.0)));
        assert!(!kept.iter().any(|found| found.table == row::MEMBER && found.b == u64::from(gone.0)));
        assert!(!kept.iter().any(|found| found.table == row::PAIRING));
        w.restart();
    }
    assert!(w.im.account_no("alice").is_none());
    w.refused("bob", "to/alice/msg", "hello?", Code::NotFound);
    w.refused("bob", "me/whois/alice", "", Code::NotFound);
    assert_eq!(w.mail("bob").last().unwrap(), "remove alice");
    assert_eq!(w.mail("eve"), ["remove alice"]);

    w.people(["alice"]);
    assert_ne!(w.no("alice"), gone);
    assert_eq!(w.ok("alice", "me/whois/alice", ""), json!({ "addr": "alice", "kind": "person" }));
    assert_eq!(w.ok("alice", "me/contacts", ""), json!({ "contacts": [] }));
    assert_eq!(w.ok("alice", "me/household", ""), json!({ "households": [] }));
    assert_eq!(w.ok("alice", "me/terminals", ""), json!({ "terminals": [] }));
    assert_eq!(w.mail("alice"), Vec::<String>::new());
    w.refused("alice", "me/group/g-home", r#"{"op":"info"}"#, Code::NotFound);
    assert_eq!(w.ok("bob", "me/whois/alice", "")["contact"]["state"], "none");
    assert_eq!(w.ok("bob", "me/whois/alice", "")["contact"]["muted"], false);
    w.refused("bob", "to/alice/msg", "hello?", Code::NoConsent);
    assert!(!w.im.may_see(w.no("alice"), w.no("bob")));
    // The same client id again is a new message, to a new conversation.
    w.befriend("alice", "bob");
    w.ok("alice", "to/bob/msg", r#"{"text":"another","id":"a1"}"#);
    let key = |no: AccountNo| (no.min(w.no("bob")), no.max(w.no("bob")));
    assert_ne!(w.im.dir.direct[&key(w.no("alice"))], w.im.dir.direct[&key(gone)]);
    assert_eq!(
        w.mail("alice").last().unwrap(),
        r#"alice 1 alice: ,"text":"another""#.replace("alice 1", "bob 1").as_str()
    );
}

#[test]
fn what_was_accepted_before_a_removal_still_arrives() {
    let mut w = busy();
    w.im.remove_account(w.now, "alice");
    w.settle();
    assert_eq!(w.im.dir.accounts[w.no("bob").at()].unread, 0);
    assert!(w.mail("bob").iter().any(|line| line.ends_with(r#"alice: ,"text":"last words""#)));
}

#[test]
fn a_household_passes_to_the_longest_member_and_an_empty_group_ends() {
    let mut w = busy();
    w.im.make_account(w.now, "lamp", AccountKind::Device);
    w.befriend("alice", "lamp");
    w.ok("alice", "me/group/g-home", r#"{"op":"add","who":"lamp"}"#);
    w.ok("alice", "me/group/g-home", r#"{"op":"role","who":"carol","role":"guest"}"#);
    w.im.remove_account(w.now, "alice");
    w.settle();
    // Carol came first, as a guest; the lamp is no person.
    let expect = [("bob", Role::Owner), ("carol", Role::Guest), ("lamp", Role::Member)];
    let expect = expect.map(|(name, role)| (name.to_owned(), role));
    assert_eq!(names(&w, "g-home"), expect);
    let of_group: Vec<String> = w.mail("bob").into_iter().filter(|line| line.starts_with("g-home")).collect();
    assert_eq!(
        of_group[of_group.len() - 2..],
        [
            r#"g-home 6 alice: {"op":"role","role":"owner","who":"bob"}"#,
            r#"g-home 7 alice: {"op":"remove","who":"alice"}"#,
        ]
    );
    assert!(names(&w, "g-only").is_empty());
    w.im.remove_account(w.now, "bob");
    w.settle();
    assert_eq!(names(&w, "g-home")[0], ("carol".to_owned(), Role::Owner));
    w.im.remove_account(w.now, "carol");
    w.settle();
    assert_eq!(names(&w, "g-home"), [("lamp".to_owned(), Role::Owner)]);
    w.restart();
    assert_eq!(names(&w, "g-home"), [("lamp".to_owned(), Role::Owner)]);
    assert_eq!(w.ok("lamp", "me/household", "")["households"][0]["members"].as_array().map(Vec::len), Some(1));
    let conv = w.im.dir.by_name["ch-fw"];
    let Address::Conv(conv) = conv else { panic!() };
    assert!(matches!(&w.im.dir.convs[conv.at()].kind, ConvKind::Channel(channel) if channel.editors.is_empty()));
}

#[test]
fn a_new_display_name_is_told_to_those_who_list_conversations() {
    let mut w = World::new();
    w.people(["alice", "bob"]);
    w.befriend("alice", "bob");
    w.ok("bob", "to/alice/msg", "hi");
    let session = w.connect("bob", "phone", &["im/v1/me/conv/+"]);
    w.drain(session);
    w.ok("alice", "me/profile", r#"{"name":"Alice"}"#);
    let got = w.drain(session);
    let line: &Value = &got.iter().find(|(topic, _)| topic == "im/v1/me/conv/alice").unwrap().1;
    assert_eq!(line["name"], "Alice");
}
