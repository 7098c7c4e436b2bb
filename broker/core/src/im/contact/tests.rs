//! Consent, blocks, and the table of who may do what.

use super::testing::{DAY_MS, World};
use crate::im::Code;
use crate::im::model::{AccountKind, Address, Channel, Contact, Conv, ConvKind, ConvNo, Relation};
use crate::limits::Limits;

const REQUEST: &str = r#"{"op":"request"}"#;
const ACCEPT: &str = r#"{"op":"accept"}"#;
const REFUSE: &str = r#"{"op":"refuse"}"#;
const REMOVE: &str = r#"{"op":"remove"}"#;
const BLOCK: &str = r#"{"op":"block"}"#;
const UNBLOCK: &str = r#"{"op":"unblock"}"#;

/// A household with an owner, a member, a guest and a lamp; a friend of the owner's; a stranger; a service.
fn neighbourhood() -> World {
    let mut w = World::new();
    w.people(["alice", "bob", "carol", "dave", "eve"]);
    w.im.make_account(w.now, "lamp", AccountKind::Device);
    w.im.make_account(w.now, "lock", AccountKind::Device);
    w.im.make_account(w.now, "weather", AccountKind::Service);
    for other in ["bob", "carol", "dave", "lamp"] {
        w.befriend("alice", other);
    }
    w.ok("alice", "me/group/g-home", r#"{"op":"create","household":true,"members":["bob","lamp"]}"#);
    w.ok("alice", "me/group/g-home", r#"{"op":"add","who":"carol","role":"guest"}"#);
    w.ok("alice", "me/group/g-chat", r#"{"op":"create","members":["dave","lamp"]}"#);
    w
}

impl World {
    #[track_caller]
    fn check(&self, from: &str, to: &str, write: Result<(), Code>, command: Result<(), Code>, sees: bool) {
        let (a, b) = (self.no(from), self.no(to));
        assert_eq!(self.im.may_write(a, b).map_err(|r| r.code), write, "{from} writes to {to}");
        assert_eq!(self.im.may_command(a, b).map_err(|r| r.code), command, "{from} commands {to}");
        assert_eq!(self.im.may_see(a, b), sees, "{from} sees {to}");
        assert_eq!(self.im.visible_to(a).contains(&b), sees, "{from} is shown {to}");
    }

    fn relations(&self, a: &str, b: &str) -> (Relation, Relation) {
        let (a, b) = (self.no(a), self.no(b));
        (self.im.contact(a, b).relation, self.im.contact(b, a).relation)
    }
}

#[test]
fn who_may_write_command_and_see() {
    let mut w = neighbourhood();
    let (no, forbidden) = (Err(Code::NoConsent), Err(Code::Forbidden));
    for _ in 0..2 {
        w.check("alice", "bob", Ok(()), Ok(()), true);
        w.check("alice", "lamp", Ok(()), Ok(()), true);
        // A member of the household, no contact of the lamp.
        w.check("bob", "lamp", Ok(()), Ok(()), true);
        w.check("lamp", "bob", Ok(()), Ok(()), true);
        // A guest writes, and never commands.
        w.check("carol", "lamp", Ok(()), forbidden, true);
        w.check("lamp", "carol", Ok(()), Ok(()), true);
        // Two people in one household see each other, and need each other's consent to write.
        w.check("bob", "carol", no, no, true);
        // In a group that is no household nobody gets a right.
        w.check("dave", "lamp", no, no, false);
        w.check("eve", "alice", no, no, false);
        w.check("eve", "lamp", no, no, false);
        // A service writes to everybody and everybody to it, but it neither commands nor sees.
        w.check("weather", "eve", Ok(()), no, false);
        w.check("eve", "weather", Ok(()), no, false);
        w.check("weather", "lamp", Ok(()), no, false);
        let alice = w.no("alice");
        assert_eq!(w.im.may_write(alice, alice).unwrap_err().code, Code::BadRequest);
        assert!(w.im.may_see(alice, alice));
        // And the same after a start.
        w.restart();
    }
    let shown = w.im.visible_to(w.no("bob"));
    assert_eq!(shown, ["alice", "bob", "carol", "lamp"].map(|name| w.no(name)));
}

#[test]
fn a_higher_role_in_another_household_counts_and_a_guest_who_is_a_contact_does_not_command() {
    let mut w = neighbourhood();
    w.befriend("carol", "lamp");
    w.check("carol", "lamp", Ok(()), Err(Code::Forbidden), true);
    w.ok("alice", "me/group/g-shed", r#"{"op":"create","household":true,"members":["carol","lamp"]}"#);
    w.check("carol", "lamp", Ok(()), Ok(()), true);
    w.ok("alice", "me/group/g-shed", r#"{"op":"remove","who":"carol"}"#);
    w.check("carol", "lamp", Ok(()), Err(Code::Forbidden), true);
    w.ok("alice", "me/group/g-home", r#"{"op":"remove","who":"carol"}"#);
    // No household, no guest: what is left is the contact.
    w.check("carol", "lamp", Ok(()), Ok(()), true);
}

#[test]
fn a_request_is_answered_by_the_other_side() {
    let mut w = World::new();
    w.people(["alice", "bob"]);
    let list = w.ok("alice", "me/contact/bob", r#"{"op":"request","text":"it is me"}"#);
    assert_eq!((list["state"].as_str(), list["text"].as_str()), (Some("asked"), Some("it is me")));
    assert_eq!(w.relations("alice", "bob"), (Relation::Asked, Relation::Asking));
    assert_eq!(w.im.contact_text(w.no("bob"), w.no("alice")), "it is me");
    // Asked again: nothing is sent twice.
    w.ok("alice", "me/contact/bob", REQUEST);
    assert_eq!(w.mail("bob"), ["request alice"]);
    w.refused("alice", "me/contact/bob", ACCEPT, Code::NotFound);
    w.refused("alice", "me/contact/bob", REFUSE, Code::NotFound);
    w.restart();
    let list = w.ok("bob", "me/contacts", "");
    assert_eq!(list["contacts"][0]["state"], "asking");
    assert_eq!(list["contacts"][0]["text"], "it is me");
    w.ok("bob", "me/contact/alice", ACCEPT);
    w.ok("bob", "me/contact/alice", ACCEPT);
    assert_eq!(w.relations("alice", "bob"), (Relation::Friends, Relation::Friends));
    assert_eq!(w.mail("alice"), ["accept bob"]);
    assert_eq!(w.im.contact_text(w.no("bob"), w.no("alice")), "");
    w.ok("alice", "me/contact/bob", REMOVE);
    assert_eq!(w.relations("alice", "bob"), (Relation::None, Relation::None));
    assert_eq!(w.mail("bob"), ["request alice", "remove alice"]);
    w.refused("alice", "me/contact/bob", REMOVE, Code::NotFound);
    w.restart();
    assert_eq!(w.ok("bob", "me/contacts", "")["contacts"], serde_json::json!([]));
}

#[test]
fn both_asking_is_agreement_and_a_request_can_be_refused_or_withdrawn() {
    let mut w = World::new();
    w.people(["alice", "bob"]);
    w.ok("alice", "me/contact/bob", REQUEST);
    w.ok("bob", "me/contact/alice", REQUEST);
    assert_eq!(w.relations("alice", "bob"), (Relation::Friends, Relation::Friends));
    assert_eq!((w.mail("alice"), w.mail("bob")), (vec!["accept bob".to_owned()], vec!["request alice".to_owned()]));
    w.ok("bob", "me/contact/alice", REMOVE);

    w.ok("bob", "me/contact/alice", REQUEST);
    w.ok("alice", "me/contact/bob", REFUSE);
    assert_eq!(w.relations("alice", "bob"), (Relation::None, Relation::None));
    assert_eq!(w.mail("bob").last().unwrap(), "refuse alice");
    w.ok("bob", "me/contact/alice", REQUEST);
    w.ok("bob", "me/contact/alice", REMOVE);
    assert_eq!(w.mail("alice").last().unwrap(), "remove bob");
    w.refused("alice", "me/contact/bob", ACCEPT, Code::NotFound);
}

#[test]
fn other_terminals_of_the_same_account_learn_what_one_has_done() {
    let mut w = World::new();
    w.people(["alice", "bob"]);
    w.connect("alice", "phone", &["im/v1/me/in/#"]);
    let tab = w.connect("alice", "tab", &["im/v1/me/in/#", "im/v1/me/+/res"]);
    w.ok("alice", "me/contact/bob", REQUEST);
    assert_eq!(w.mail("alice"), ["own request bob"]);
    w.ok("alice", "me/contact/bob", BLOCK);
    assert_eq!(w.mail("alice"), ["own request bob", "own remove bob"]);
    let got = w.drain(tab);
    let told = got.iter().find(|(topic, _)| topic == "im/v1/me/contact/res").unwrap();
    assert_eq!((&told.1["addr"], &told.1["blocked"]), (&"bob".into(), &true.into()));
}

#[test]
fn a_block_ends_everything_both_ways_and_lifting_it_brings_the_contact_back() {
    let mut w = neighbourhood();
    let (blocked, own) = (Err(Code::Blocked), Err(Code::NoConsent));
    w.ok("alice", "me/contact/bob", BLOCK);
    w.ok("alice", "me/contact/bob", BLOCK);
    let before = w.mail("alice");
    for _ in 0..2 {
        w.check("bob", "alice", blocked, blocked, false);
        w.check("alice", "bob", own, own, false);
        w.refused("bob", "me/contact/alice", REQUEST, Code::Blocked);
        w.restart();
    }
    // A contact who is blocked takes itself off the list: the blocker hears nothing of it.
    w.ok("bob", "me/contact/alice", REMOVE);
    assert_eq!(w.mail("alice"), before);
    w.ok("alice", "me/contact/bob", UNBLOCK);
    w.ok("alice", "me/contact/bob", UNBLOCK);
    w.check("bob", "alice", Err(Code::NoConsent), Err(Code::NoConsent), true);

    w.ok("alice", "me/contact/dave", BLOCK);
    w.check("dave", "alice", blocked, blocked, false);
    w.ok("alice", "me/contact/dave", UNBLOCK);
    w.check("dave", "alice", Ok(()), Ok(()), true);

    // Also in a household, and a service, and a stranger.
    w.ok("lamp", "me/contact/bob", BLOCK);
    w.check("bob", "lamp", blocked, blocked, false);
    w.ok("eve", "me/contact/weather", BLOCK);
    w.check("weather", "eve", blocked, blocked, false);
    w.refused("eve", "me/contact/weather", REQUEST, Code::NoConsent);
    w.ok("eve", "me/contact/weather", UNBLOCK);
    assert_eq!(w.im.contact(w.no("eve"), w.no("weather")), Contact::default());
}

#[test]
fn a_block_ends_a_request_that_waits() {
    let mut w = World::new();
    w.people(["alice", "bob"]);
    w.ok("bob", "me/contact/alice", REQUEST);
    w.ok("alice", "me/contact/bob", BLOCK);
    assert_eq!(w.relations("alice", "bob"), (Relation::None, Relation::None));
    assert_eq!(w.mail("bob"), ["refuse alice"]);
    w.refused("bob", "me/contact/alice", REQUEST, Code::Blocked);
    assert_eq!(w.mail("alice"), ["request bob"]);
}

#[test]
fn rights_rise_with_every_change_of_consent() {
    let mut w = World::new();
    w.people(["alice", "bob"]);
    for (name, path, payload, rises) in [
        ("alice", "me/contact/bob", REQUEST, false),
        ("bob", "me/contact/alice", ACCEPT, true),
        ("bob", "me/contact/alice", BLOCK, true),
        ("bob", "me/contact/alice", BLOCK, false),
        ("bob", "me/contact/alice", UNBLOCK, true),
        ("alice", "me/contact/bob", r#"{"op":"mute"}"#, false),
        ("alice", "me/contact/bob", REMOVE, true),
        ("alice", "me/group/g-a", r#"{"op":"create","household":true}"#, true),
        ("alice", "me/group/g-a", r#"{"op":"rename","name":"A"}"#, false),
        ("alice", "me/group/g-a", r#"{"op":"dissolve"}"#, true),
    ] {
        let before = w.im.rights;
        w.ok(name, path, payload);
        assert_eq!(w.im.rights > before, rises, "{path} {payload}");
    }
}

#[test]
fn what_waits_too_long_or_is_too_much_ends() {
    let limits = Limits { im_requests_waiting_max: 2, im_contacts_per_account_max: 3, ..Limits::default() };
    let mut w = World::with(limits);
    w.people(["alice", "a", "b", "c", "d"]);
    for name in ["a", "b"] {
        w.ok("alice", &format!("me/contact/{name}"), REQUEST);
    }
    w.refused("alice", "me/contact/c", REQUEST, Code::Quota);
    w.ok("c", "me/contact/d", REQUEST);
    w.ok("a", "me/contact/d", REQUEST);
    w.refused("b", "me/contact/d", REQUEST, Code::Quota);
    w.ok("alice", "me/contact/d", BLOCK);
    w.refused("alice", "me/contact/c", BLOCK, Code::Quota);
    w.refused("alice", "me/contact/b", &format!(r#"{{"op":"request","text":"{}"}}"#, "x".repeat(201)), Code::TooLarge);

    w.pass(30 * DAY_MS - 1);
    w.im.contacts_daily(w.now);
    w.settle();
    assert_eq!(w.relations("alice", "a"), (Relation::Asked, Relation::Asking));
    w.pass(1);
    w.im.contacts_daily(w.now);
    w.settle();
    assert_eq!(w.relations("alice", "a"), (Relation::None, Relation::None));
    assert_eq!(w.mail("a"), ["request alice", "remove alice", "remove d"]);
    assert_eq!(w.mail("alice"), ["remove a", "remove b"]);
    w.ok("alice", "me/contact/c", REQUEST);
}

#[test]
fn mute_is_of_the_contact_and_of_the_conversation() {
    let mut w = World::new();
    w.people(["alice", "bob"]);
    w.befriend("alice", "bob");
    w.ok("bob", "to/alice/msg", "hi");
    w.ok("alice", "me/contact/bob", r#"{"op":"mute"}"#);
    w.restart();
    let (alice, bob) = (w.no("alice"), w.no("bob"));
    let conv = w.im.dir.direct[&(alice.min(bob), alice.max(bob))];
    assert!(w.im.contact(alice, bob).muted && w.im.dir.convs[conv.at()].member(alice).unwrap().muted);
    assert!(!w.im.contact(bob, alice).muted && !w.im.dir.convs[conv.at()].member(bob).unwrap().muted);
    w.ok("alice", "me/contact/bob", r#"{"op":"unmute"}"#);
    assert!(!w.im.contact(alice, bob).muted && !w.im.dir.convs[conv.at()].member(alice).unwrap().muted);
}

#[test]
fn a_channel_is_followed_by_one_side() {
    let mut w = World::new();
    w.people(["alice"]);
    let alice = w.no("alice");
    let channel = Channel { address: "ch-fw".into(), name: "Firmware".into(), to_all: false, editors: vec![] };
    let conv = w.im.make_conv(Conv::new(ConvKind::Channel(channel), vec![]));
    w.im.dir.by_name.insert("ch-fw".into(), Address::Conv(conv));
    w.refused("alice", "me/contact/ch-none", r#"{"op":"follow"}"#, Code::NotFound);
    w.refused("alice", "me/contact/ch-fw", REQUEST, Code::BadRequest);
    assert!(!w.im.follows(alice, conv));
    w.ok("alice", "me/contact/ch-fw", r#"{"op":"follow"}"#);
    w.restart();
    assert!(w.im.follows(alice, conv) && !w.im.follows(alice, ConvNo(9)));
    let list = w.ok("alice", "me/contacts", "");
    assert_eq!((&list["contacts"][0]["addr"], &list["contacts"][0]["state"]), (&"ch-fw".into(), &"follows".into()));
    w.ok("alice", "me/contact/ch-fw", r#"{"op":"unfollow"}"#);
    w.restart();
    assert!(!w.im.follows(alice, conv));
}

#[test]
fn sessions_are_told_of_whom_they_see_now() {
    let mut w = World::new();
    w.people(["alice", "bob"]);
    let phone = w.connect("alice", "phone", &["im/v1/presence/+", "im/v1/state/+"]);
    w.drain(phone);
    w.befriend("alice", "bob");
    let seen = |got: Vec<(String, serde_json::Value)>| got.iter().any(|(topic, _)| topic == "im/v1/presence/bob");
    assert!(seen(w.drain(phone)));
    w.ok("bob", "me/contact/alice", BLOCK);
    // The rooms that render it look whether it may be seen.
    let online = w.im.by_session[&phone] as usize;
    assert!(w.im.online[online].presence_dirty.contains(&w.no("bob")));
    assert!(!w.im.may_see(w.no("alice"), w.no("bob")));
}

#[test]
fn what_is_no_contact_is_refused() {
    let mut w = World::new();
    w.people(["alice", "bob"]);
    w.refused("alice", "me/contact/nobody", REQUEST, Code::NotFound);
    w.refused("alice", "me/contact/alice", REQUEST, Code::BadRequest);
    w.refused("alice", "me/contact/bob", "{}", Code::BadRequest);
    w.refused("alice", "me/contact/bob", r#"{"op":"marry"}"#, Code::BadRequest);
    w.refused("alice", "me/contact/bob", r#"{"op":"follow"}"#, Code::BadRequest);
    w.refused("pair", "me/contacts", "", Code::NoAccount);
}

#[test]
fn asking_again_and_again_ends_for_an_hour() {
    let mut w = World::with(Limits { im_requests_per_hour_max: 3, ..Limits::default() });
    w.people(["alice", "bob", "eve"]);
    for _ in 0..3 {
        w.ok("eve", "me/contact/bob", REQUEST);
        w.ok("eve", "me/contact/bob", REMOVE);
    }
    w.refused("eve", "me/contact/bob", REQUEST, Code::Quota);
    w.ok("alice", "me/contact/eve", REQUEST);
    // An answer is no request.
    w.ok("eve", "me/contact/alice", REQUEST);
    assert_eq!(w.mail("bob").len(), 6);
    w.pass(DAY_MS / 24);
    w.ok("eve", "me/contact/bob", REQUEST);
}

#[test]
fn changes_come_no_faster_than_messages() {
    let mut w = World::with(Limits { im_account_burst_max: 4, im_account_rate_max: 1, ..Limits::default() });
    w.people(["alice", "bob"]);
    for (path, payload) in [
        ("me/contact/bob", REQUEST),
        ("me/group/g-home", r#"{"op":"create","household":true}"#),
        ("me/profile", "{}"),
        ("me/pair", r#"{"household":"g-home"}"#),
    ] {
        w.ok("alice", path, payload);
    }
    for path in ["me/contact/bob", "me/group/g-home", "me/profile", "me/pair"] {
        w.refused("alice", path, r#"{"op":"remove"}"#, Code::Quota);
    }
    w.ok("alice", "me/group/g-home", r#"{"op":"info"}"#);
    w.pass(1_000);
    w.ok("alice", "me/contact/bob", REMOVE);
}
