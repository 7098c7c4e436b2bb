//! Members, roles, the last owner, the switch to a log, and what somebody who left still sees.

use crate::im::Code;
use crate::im::contact::testing::World;
use crate::im::model::{AccountKind, Address, ConvKind, ConvNo, Role};
use crate::im::{object, row};
use crate::limits::Limits;
use serde_json::{Value, json};

fn world() -> World {
    world_with(Limits::default())
}

/// Alice and five contacts of hers, who know nobody else, and a stranger.
fn world_with(limits: Limits) -> World {
    let mut w = World::with(limits);
    w.people(["alice", "bob", "carol", "dave", "frank", "grace", "eve"]);
    for other in ["bob", "carol", "dave", "frank", "grace"] {
        w.befriend("alice", other);
    }
    w
}

impl World {
    fn conv(&self, address: &str) -> ConvNo {
        match self.im.dir.by_name[address] {
            Address::Conv(no) => no,
            Address::Account(_) => panic!("{address} is an account"),
        }
    }

    fn roles(&self, address: &str) -> Vec<(String, Role)> {
        let members = &self.im.dir.convs[self.conv(address).at()].members;
        members.iter().map(|m| (self.im.name_of(m.account).to_string(), m.role)).collect()
    }

    /// Every count and list that has to agree with the members of the groups.
    #[track_caller]
    fn check_lists(&self) {
        for (at, account) in self.im.dir.accounts.iter().enumerate() {
            let no = crate::im::AccountNo(u32::try_from(at).unwrap());
            let mut convs = account.convs.clone();
            convs.sort_unstable();
            let all = || {
                let convs = (0..).map(ConvNo).zip(&self.im.dir.convs);
                convs.filter(|(_, conv)| conv.member(no).is_some())
            };
            assert_eq!(convs, all().map(|(no, _)| no).collect::<Vec<_>>(), "{}", account.name);
            let unread: u64 = all().map(|(_, conv)| u64::from(conv.member(no).unwrap().unread)).sum();
            assert_eq!(account.unread, unread, "{}", account.name);
            let mut households = account.households.clone();
            households.sort_unstable();
            let all = all().filter(|(_, conv)| matches!(&conv.kind, ConvKind::Group(group) if group.household));
            assert_eq!(households, all.map(|(no, _)| no).collect::<Vec<_>>(), "{}", account.name);
        }
    }
}

fn member_of(value: &Value, name: &str) -> Value {
    value["members"].as_array().unwrap().iter().find(|m| m["addr"] == name).cloned().unwrap_or_default()
}

#[test]
fn everybody_sees_changes_in_the_same_place() {
    let mut w = world();
    let made = w.ok("alice", "me/group/g-home", r#"{"op":"create","name":"Home","members":["bob","bob","alice"]}"#);
    assert_eq!((&made["name"], &made["role"], &made["household"]), (&"Home".into(), &"owner".into(), &false.into()));
    w.ok("bob", "to/g-home/msg", "hello");
    let added = w.ok("alice", "me/group/g-home", r#"{"op":"add","who":"carol","role":"guest"}"#);
    assert_eq!(added, json!({ "group": "g-home", "op": "add", "seq": 4 }));
    w.ok("alice", "me/group/g-home", r#"{"op":"role","who":"carol","role":"member"}"#);
    w.ok("alice", "me/group/g-home", r#"{"op":"rename","name":"Our home"}"#);
    w.ok("alice", "me/group/g-home", r#"{"op":"remove","who":"bob"}"#);
    w.ok("carol", "me/group/g-home", r#"{"op":"leave"}"#);
    let title = r#"g-home 1 alice: {"household":false,"name":"Home","op":"create"}"#;
    let bob = r#"g-home 2 alice: {"op":"add","role":"member","who":"bob"}"#;
    let hello = r#"g-home 3 bob: ,"text":"hello""#;
    let carol = r#"g-home 4 alice: {"op":"add","role":"guest","who":"carol"}"#;
    let role = r#"g-home 5 alice: {"op":"role","role":"member","who":"carol"}"#;
    let name = r#"g-home 6 alice: {"name":"Our home","op":"rename"}"#;
    let out = r#"g-home 7 alice: {"op":"remove","who":"bob"}"#;
    let left = r#"g-home 8 carol: {"op":"leave","who":"carol"}"#;
    let of_group = |name: &str| -> Vec<String> { w.mail(name).into_iter().filter(|l| l.contains("g-home")).collect() };
    assert_eq!(of_group("alice"), [title, bob, hello, carol, role, name, out, left]);
    // Who is added begins with that; who goes ends with that.
    assert_eq!(of_group("bob"), [bob, hello, carol, role, name, out]);
    assert_eq!(of_group("carol"), [carol, role, name, out, left]);
    w.check_lists();
    w.restart();
    w.check_lists();
    assert_eq!(w.roles("g-home"), [("alice".to_owned(), Role::Owner)]);
}

#[test]
fn who_was_taken_out_sees_nothing_after_and_nothing_of_before_when_back() {
    let mut w = world();
    w.ok("alice", "me/group/g-home", r#"{"op":"create","members":["bob"]}"#);
    w.ok("alice", "to/g-home/msg", "one");
    let bob = w.no("bob");
    assert_eq!(w.im.dir.accounts[bob.at()].unread, 1);
    w.ok("alice", "me/group/g-home", r#"{"op":"remove","who":"bob"}"#);
    assert_eq!(w.im.dir.accounts[bob.at()].unread, 0);
    let before = w.mail("bob");
    w.ok("alice", "to/g-home/msg", "two");
    assert_eq!(w.mail("bob"), before);
    for (path, payload) in [
        ("me/group/g-home", r#"{"op":"info"}"#),
        ("me/group/g-home", r#"{"op":"leave"}"#),
        ("me/history", r#"{"with":"g-home"}"#),
        ("me/whois/g-home", ""),
    ] {
        w.refused("bob", path, payload, Code::NotFound);
    }
    w.refused("bob", "to/g-home/msg", "three", Code::Forbidden);
    // A terminal that comes now gets what was said before it went, and the end.
    let phone = w.connect("bob", "phone", &["im/v1/me/in/#"]);
    assert_eq!(w.drain(phone), []);
    w.ok("alice", "me/group/g-home", r#"{"op":"add","who":"bob"}"#);
    let got = w.drain(phone);
    assert_eq!(got.iter().map(|(_, p)| p["seq"].as_u64().unwrap()).collect::<Vec<_>>(), [6]);
    let tab = w.connect("bob", "tab", &["im/v1/me/in/#"]);
    let got = w.drain(tab);
    let seqs: Vec<u64> =
        got.iter().filter(|(_, p)| p["backfill"] == true).map(|(_, p)| p["seq"].as_u64().unwrap()).collect();
    assert_eq!(seqs, [6]);
    w.check_lists();
}

#[test]
fn only_an_owner_changes_a_group_and_outsiders_do_not_learn_of_it() {
    let mut w = world();
    w.ok("alice", "me/group/g-home", r#"{"op":"create","members":["bob"]}"#);
    for payload in [
        r#"{"op":"add","who":"carol"}"#,
        r#"{"op":"remove","who":"alice"}"#,
        r#"{"op":"role","who":"bob","role":"owner"}"#,
        r#"{"op":"rename","name":"Mine"}"#,
        r#"{"op":"dissolve"}"#,
    ] {
        w.refused("bob", "me/group/g-home", payload, Code::Forbidden);
        w.refused("eve", "me/group/g-home", payload, Code::NotFound);
        w.refused("eve", "me/group/g-none", payload, Code::NotFound);
    }
    w.refused("alice", "me/group/g-home", r#"{"op":"add","who":"eve"}"#, Code::NoConsent);
    w.refused("alice", "me/group/g-home", r#"{"op":"add","who":"nobody"}"#, Code::NotFound);
    w.refused("alice", "me/group/g-home", r#"{"op":"add"}"#, Code::BadRequest);
    w.refused("alice", "me/group/g-home", r#"{"op":"add","who":"bob","role":"guest"}"#, Code::Exists);
    w.refused("alice", "me/group/g-home", r#"{"op":"remove","who":"carol"}"#, Code::NotFound);
    w.refused("alice", "me/group/g-home", r#"{"op":"role","who":"bob","role":"king"}"#, Code::BadRequest);
    w.refused("alice", "me/group/home", r#"{"op":"info"}"#, Code::BadRequest);
    w.refused("eve", "me/group/g-home", r#"{"op":"create"}"#, Code::Exists);
    w.refused("eve", "me/group/g-eve", r#"{"op":"create","members":["alice"]}"#, Code::NoConsent);
    assert!(!w.im.dir.by_name.contains_key("g-eve"));
    w.ok("carol", "me/contact/alice", r#"{"op":"block"}"#);
    w.refused("alice", "me/group/g-home", r#"{"op":"add","who":"carol"}"#, Code::Blocked);
    w.check_lists();
}

#[test]
fn the_operator_needs_nobodys_consent() {
    let mut w = world();
    let mut origin = w.origin("eve", "cli");
    origin.operator = true;
    w.request(&origin, "me/group/g-all", r#"{"op":"create","household":true,"members":["alice"]}"#).unwrap();
    let origin = crate::im::Origin { account: w.no("bob"), ..w.origin("eve", "cli") };
    let origin = crate::im::Origin { operator: true, ..origin };
    w.request(&origin, "me/group/g-all", r#"{"op":"add","who":"carol","role":"guest"}"#).unwrap();
    assert_eq!(w.roles("g-all").len(), 3);
    w.check_lists();
}

#[test]
fn the_same_request_again_changes_nothing_more() {
    let mut w = world();
    w.ok("alice", "me/group/g-home", r#"{"op":"create","name":"Home","members":["bob"]}"#);
    let before = w.mail("alice");
    for payload in [
        r#"{"op":"create","name":"Home","members":["bob"]}"#,
        r#"{"op":"add","who":"bob"}"#,
        r#"{"op":"role","who":"bob","role":"member"}"#,
        r#"{"op":"rename","name":"Home"}"#,
    ] {
        w.ok("alice", "me/group/g-home", payload);
    }
    assert_eq!(w.mail("alice"), before);
    w.refused("alice", "me/group/g-home", r#"{"op":"create","name":"Other"}"#, Code::Exists);
}

#[test]
fn a_group_keeps_an_owner() {
    let mut w = world();
    w.ok("alice", "me/group/g-home", r#"{"op":"create","members":["bob"]}"#);
    for payload in
        [r#"{"op":"leave"}"#, r#"{"op":"remove","who":"alice"}"#, r#"{"op":"role","who":"alice","role":"member"}"#]
    {
        w.refused("alice", "me/group/g-home", payload, Code::Forbidden);
    }
    w.ok("alice", "me/group/g-home", r#"{"op":"role","who":"bob","role":"owner"}"#);
    w.ok("alice", "me/group/g-home", r#"{"op":"role","who":"alice","role":"guest"}"#);
    w.refused("alice", "me/group/g-home", r#"{"op":"rename","name":"x"}"#, Code::Forbidden);
    w.refused("bob", "me/group/g-home", r#"{"op":"leave"}"#, Code::Forbidden);
    w.ok("alice", "me/group/g-home", r#"{"op":"leave"}"#);
    assert_eq!(w.roles("g-home"), [("bob".to_owned(), Role::Owner)]);
    w.ok("bob", "me/group/g-home", r#"{"op":"dissolve"}"#);
    assert_eq!(w.roles("g-home"), []);
    w.refused("bob", "me/group/g-home", r#"{"op":"info"}"#, Code::NotFound);
    w.refused("bob", "me/group/g-home", r#"{"op":"create"}"#, Code::Exists);
    assert_eq!(w.mail("bob").last().unwrap(), r#"g-home 6 bob: {"op":"dissolve"}"#);
    w.check_lists();
    w.restart();
    w.check_lists();
}

#[test]
fn a_role_decides_about_commands_at_once() {
    let mut w = world();
    w.im.make_account(w.now, "lamp", AccountKind::Device);
    w.befriend("alice", "lamp");
    w.ok("alice", "me/group/g-home", r#"{"op":"create","household":true,"members":["bob","lamp"]}"#);
    let (bob, lamp) = (w.no("bob"), w.no("lamp"));
    assert!(w.im.may_command(bob, lamp).is_ok());
    w.ok("alice", "me/group/g-home", r#"{"op":"role","who":"bob","role":"guest"}"#);
    assert_eq!(w.im.may_command(bob, lamp).unwrap_err().code, Code::Forbidden);
    w.restart();
    assert_eq!(w.im.may_command(bob, lamp).unwrap_err().code, Code::Forbidden);
    w.ok("alice", "me/group/g-home", r#"{"op":"remove","who":"bob"}"#);
    assert_eq!(w.im.may_command(bob, lamp).unwrap_err().code, Code::NoConsent);
    assert!(!w.im.may_see(bob, lamp));
}

#[test]
fn nobody_gives_itself_a_right_to_command_through_a_household_of_its_own() {
    let mut w = world();
    w.im.make_account(w.now, "lock", AccountKind::Device);
    w.befriend("alice", "lock");
    w.ok("alice", "me/group/g-home", r#"{"op":"create","household":true,"members":["bob","lock"]}"#);
    w.ok("alice", "me/group/g-home", r#"{"op":"add","who":"carol","role":"guest"}"#);
    for (name, household, expect) in [
        ("carol", true, Err(Code::Forbidden)),
        ("carol", false, Err(Code::Forbidden)),
        ("bob", true, Err(Code::Forbidden)),
        ("bob", false, Ok(())),
        ("eve", false, Err(Code::NoConsent)),
    ] {
        let payload = format!(r#"{{"op":"create","household":{household},"members":["lock"]}}"#);
        let got = w.ask(name, &format!("me/group/g-{name}-{household}"), &payload).map(|_| ());
        assert_eq!(got, expect, "{name} {household}");
    }
    // An owner may, without being a contact.
    w.ok("alice", "me/group/g-home", r#"{"op":"role","who":"bob","role":"owner"}"#);
    w.ok("bob", "me/group/g-bobs", r#"{"op":"create","household":true,"members":["lock"]}"#);
}

#[test]
fn rooms_are_bounded() {
    let limits = Limits { im_group_members_max: 3, im_groups_per_account_max: 2, ..Limits::default() };
    let mut w = world_with(limits);
    w.refused("alice", "me/group/g-a", r#"{"op":"create","members":["bob","carol","dave"]}"#, Code::Quota);
    w.ok("alice", "me/group/g-a", r#"{"op":"create","members":["bob","carol"]}"#);
    w.refused("alice", "me/group/g-a", r#"{"op":"add","who":"dave"}"#, Code::Quota);
    w.ok("bob", "me/group/g-b", r#"{"op":"create"}"#);
    w.refused("bob", "me/group/g-c", r#"{"op":"create"}"#, Code::Quota);
    w.ok("alice", "me/group/g-d", r#"{"op":"create"}"#);
    w.refused("alice", "me/group/g-d", r#"{"op":"add","who":"bob"}"#, Code::Quota);
    for name in ["", "x\ny", "", &"x".repeat(65)] {
        let payload = json!({ "op": "rename", "name": name }).to_string();
        w.refused("alice", "me/group/g-d", &payload, Code::BadRequest);
    }
    w.refused("alice", "me/group/g-", r#"{"op":"info"}"#, Code::NotFound);
    w.refused("alice", "me/group/ch-a", r#"{"op":"create"}"#, Code::BadRequest);
    w.refused("alice", "me/group/alice", r#"{"op":"create"}"#, Code::BadRequest);
}

/// Seq of everything a session is sent of a group, in the order it is sent.
fn seqs(got: &[(String, Value)]) -> Vec<u64> {
    let of_group = got.iter().filter(|(topic, p)| topic.contains("/g-big/") || p["to"] == "g-big");
    of_group.map(|(_, p)| p["seq"].as_u64().unwrap()).collect()
}

#[test]
fn beyond_its_size_a_group_is_followed_and_nothing_is_lost_or_sent_twice_on_the_way() {
    let limits = Limits { im_group_copied_max: 3, ..Limits::default() };
    let mut w = world_with(limits);
    w.ok("alice", "me/group/g-big", r#"{"op":"create","members":["bob","carol"]}"#);
    let bob = w.connect("bob", "phone", &["im/v1/me/in/#"]);
    let tab = w.connect("bob", "tab", &["im/v1/me/in/#"]);
    w.drain(bob);
    w.drain(tab);
    // What is under way when the switch comes arrives by the mailbox.
    w.ok("alice", "to/g-big/msg", "copied");
    let conv = w.conv("g-big");
    assert!(!w.im.dir.convs[conv.at()].is_large());
    let head = w.im.dir.convs[conv.at()].head;
    w.ok("alice", "me/group/g-big", r#"{"op":"add","who":"dave"}"#);
    assert!(w.im.dir.convs[conv.at()].is_large());
    for terminal in &w.im.dir.accounts[w.no("bob").at()].terminals {
        assert_eq!(terminal.places[&conv], head);
    }
    w.ok("alice", "to/g-big/msg", "followed");
    assert_eq!(seqs(&w.drain(bob)), [4, 5, 6]);
    w.restart();
    assert!(w.im.dir.convs[conv.at()].is_large());
    let (bob, tab) = (w.connect("bob", "phone", &["im/v1/me/in/#"]), w.connect("bob", "tab", &["im/v1/me/in/#"]));
    assert!(seqs(&w.drain(bob)).is_empty());
    assert_eq!(seqs(&w.drain(tab)), [4, 5, 6]);
    assert_eq!(w.mail("bob").iter().filter(|line| line.contains("g-big")).count(), 3);

    // Whoever goes is told so, and hears nothing after.
    w.ok("alice", "me/group/g-big", r#"{"op":"remove","who":"bob"}"#);
    w.ok("alice", "to/g-big/msg", "among us");
    assert_eq!(seqs(&w.drain(bob)), [7]);
    assert_eq!(seqs(&w.drain(tab)), [7]);
    let places = w.rows(row::PLACE, u64::from(w.no("bob").0) * 16);
    assert!(places.is_empty(), "{places:?}");
    // It stays large, and whoever comes back begins where it comes.
    w.ok("alice", "me/group/g-big", r#"{"op":"add","who":"bob"}"#);
    assert_eq!(seqs(&w.drain(bob)), [9]);
    assert_eq!(seqs(&w.drain(tab)), [9]);
    w.ok("alice", "me/group/g-big", r#"{"op":"dissolve"}"#);
    assert_eq!(seqs(&w.drain(bob)), [10]);
    w.check_lists();
}

#[test]
fn a_household_is_listed_with_roles_and_presence() {
    let mut w = world();
    w.im.make_account(w.now, "lamp", AccountKind::Device);
    w.befriend("alice", "lamp");
    w.ok("alice", "me/group/g-home", r#"{"op":"create","name":"Home","household":true,"members":["bob","lamp"]}"#);
    w.ok("alice", "me/group/g-chat", r#"{"op":"create","members":["bob"]}"#);
    w.ok("bob", "me/contact/lamp", r#"{"op":"block"}"#);
    w.im.connected(w.now, w.no("alice"));
    let list = w.ok("bob", "me/household", "");
    let households = list["households"].as_array().unwrap();
    assert_eq!(households.len(), 1);
    let home = &households[0];
    assert_eq!((&home["addr"], &home["name"], &home["role"]), (&"g-home".into(), &"Home".into(), &"member".into()));
    assert_eq!(member_of(home, "alice")["presence"], "online");
    assert_eq!(member_of(home, "lamp"), json!({ "addr": "lamp", "kind": "device", "role": "member" }));
    let info = w.ok("bob", "me/group/g-chat", r#"{"op":"info"}"#);
    assert_eq!(member_of(&info, "alice"), json!({ "addr": "alice", "kind": "person", "role": "owner" }));
    assert!(object(info.to_string().as_bytes()).is_ok());
}
