//! One code, one name, ten minutes; and what guessing costs.

use super::{PAIRING_ACCOUNT, TOPIC};
use crate::im::contact::testing::World;
use crate::im::model::{AccountKind, Relation, Role};
use crate::im::{Code, Reply, row};
use crate::limits::Limits;
use crate::store::Fact;
use serde_json::Value;

const MINUTE_MS: u64 = 60_000;

/// Alice has a household with a member and a guest.
fn world() -> World {
    world_with(Limits::default())
}

fn world_with(limits: Limits) -> World {
    let mut w = World::with(limits);
    w.people(["alice", "bob", "carol", "eve"]);
    for other in ["bob", "carol"] {
        w.befriend("alice", other);
    }
    w.ok("alice", "me/group/g-home", r#"{"op":"create","household":true,"members":["bob"]}"#);
    w.ok("alice", "me/group/g-home", r#"{"op":"add","who":"carol","role":"guest"}"#);
    w
}

impl World {
    #[track_caller]
    fn code(&mut self, name: &str) -> String {
        let got = self.ok(name, "me/pair", r#"{"household":"g-home"}"#);
        assert_eq!(got["until"], self.now.wall_ms + 10 * MINUTE_MS);
        got["code"].as_str().unwrap().to_owned()
    }

    /// A device that is in with a code says its name.
    fn say(&mut self, session: u32, code: &str, payload: &str) -> Result<(), Code> {
        let mut origin = self.origin("", "board");
        (origin.session, origin.id) = (Some((session, 1)), Some(code));
        self.request(&origin, "me/paired", payload).map(|_| ()).map_err(|refusal| refusal.code)
    }

    fn act(&mut self, payload: &str) -> Result<(), Code> {
        let origin = self.origin("", "$operator");
        assert_eq!(origin.account, PAIRING_ACCOUNT);
        self.request(&origin, "me/paired", payload).map(|_| ()).map_err(|refusal| refusal.code)
    }

    /// The driver makes credentials for the last that asked.
    fn make(&mut self, password: &str) {
        let request = self.pairs.pop().unwrap();
        self.im.paired(self.now, request.exchange, password.as_bytes(), password);
        self.settle();
    }

    fn accounts(&self) -> Vec<(String, Vec<u8>)> {
        self.store.snapshot().accounts
    }
}

fn reply(w: &mut World) -> Result<Value, &'static str> {
    match w.replies.pop().unwrap() {
        Reply::Done(text) => Ok(serde_json::from_str(&text).unwrap()),
        Reply::Refused { code, .. } => Err(code),
    }
}

#[test]
fn a_device_comes_in_with_a_code_and_leaves_with_an_account() {
    let mut w = world();
    let code = w.code("bob");
    assert_eq!((code.len(), &code[4..5]), (9, "-"));
    assert!(w.im.pairing_login(w.now, &code).is_ok());
    assert!(w.im.pairing_login(w.now, &code.to_lowercase().replace('-', " ")).is_ok());
    let board = w.connect("pair", "board", &[TOPIC]);
    w.say(board, &code, r#"{"name":"lamp2","id":"x"}"#).unwrap();
    assert_eq!(w.pairs[0].name, "lamp2");
    assert!(w.im.account_no("lamp2").is_none());
    w.make("secret");
    let (bob, lamp) = (w.no("bob"), w.no("lamp2"));
    assert_eq!(w.accounts(), [("lamp2".to_owned(), b"secret".to_vec())]);
    assert_eq!(w.im.dir.accounts[lamp.at()].kind, AccountKind::Device);
    for (a, b) in [(bob, lamp), (lamp, bob)] {
        assert_eq!(w.im.contact(a, b).relation, Relation::Friends);
    }
    assert_eq!(w.im.role_beside(lamp, bob), Some(Role::Member));
    assert!(w.im.may_command(w.no("alice"), lamp).is_ok());
    assert_eq!(w.im.may_command(w.no("carol"), lamp).unwrap_err().code, Code::Forbidden);
    let mail = w.mail("bob");
    assert_eq!(mail[mail.len() - 2..], ["accept lamp2", r#"g-home 4 bob: {"op":"add","role":"member","who":"lamp2"}"#]);

    // The hub sends the answer when all that is on disk; its PUBACK ends the code.
    let got = w.drain(board);
    assert_eq!(got.len(), 1);
    let expect = serde_json::json!({
        "account": "lamp2", "password": "secret", "owner": "bob", "household": "g-home", "id": "x",
    });
    assert_eq!(got[0], (TOPIC.to_owned(), expect));
    w.settle();
    assert!(w.rows(row::PAIRING, 0).is_empty() && w.im.pairings.codes.is_empty());
    assert_eq!(w.im.pairing_login(w.now, &code).unwrap_err().code, Code::NotFound);
    assert_eq!(w.say(board, &code, r#"{"name":"lamp3"}"#), Err(Code::NotFound));
    w.restart();
    assert!(w.im.may_command(w.no("bob"), w.no("lamp2")).is_ok());
}

#[test]
fn everything_of_a_device_is_in_one_batch() {
    let mut w = world();
    let code = w.code("alice");
    w.act(&format!(r#"{{"code":"{code}","name":"lamp2"}}"#)).unwrap();
    let request = w.pairs.pop().unwrap();
    w.im.paired(w.now, request.exchange, b"record", "secret");
    // The answer waits for the batch in which all this is.
    assert!(w.replies.is_empty());
    w.im.flush(w.now);
    let facts: Vec<_> = w.im.facts.iter().map(Result::unwrap).collect();
    let has = |table| facts.iter().any(|f| matches!(f, Fact::Put { table: t, .. } if *t == table));
    assert!(facts.iter().any(|f| matches!(f, Fact::Account { name: "lamp2", record: b"record" })));
    for table in [row::ACCOUNT, row::CONTACT, row::MEMBER, row::PAIRING, row::BODY, row::MAIL] {
        assert!(has(table), "{table:?}");
    }
}

#[test]
fn a_code_whose_answer_was_lost_gives_new_credentials_for_the_same_account() {
    let mut w = world();
    let code = w.code("alice");
    let board = w.connect("pair", "board", &[TOPIC]);
    w.say(board, &code, r#"{"name":"lamp2"}"#).unwrap();
    w.make("first");
    let lamp = w.no("lamp2");
    // The connection dies before the answer was acknowledged, and the broker too.
    w.im.detach(w.now, board);
    w.restart();
    let members = w.im.dir.convs[w.im.dir.accounts[lamp.at()].households[0].at()].members.len();
    let board = w.connect("pair", "board", &[TOPIC]);
    assert_eq!(w.say(board, &code, r#"{"name":"other"}"#), Err(Code::Forbidden));
    assert_eq!(w.drain(board)[0].1["code"], "forbidden");
    w.say(board, &code, "{}").unwrap();
    w.make("second");
    assert_eq!(w.no("lamp2"), lamp);
    assert_eq!(w.accounts(), [("lamp2".to_owned(), b"second".to_vec())]);
    assert_eq!(w.im.dir.convs[w.im.dir.accounts[lamp.at()].households[0].at()].members.len(), members);
    assert_eq!(w.drain(board)[0].1["password"], "second");
    assert_eq!(w.im.pairing_login(w.now, &code).unwrap_err().code, Code::NotFound);
}

#[test]
fn a_device_that_comes_in_with_its_credentials_ends_its_code() {
    let mut w = world();
    let code = w.code("alice");
    w.act(&format!(r#"{{"code":"{code}","name":"lamp2"}}"#)).unwrap();
    w.make("secret");
    assert_eq!(reply(&mut w).unwrap()["password"], "secret");
    assert!(w.im.pairing_login(w.now, &code).is_ok());
    w.ok("lamp2", "me/hello", "{}");
    assert_eq!(w.im.pairing_login(w.now, &code).unwrap_err().code, Code::NotFound);
}

#[test]
fn a_code_is_over_after_ten_minutes() {
    let mut w = world();
    let code = w.code("alice");
    w.pass(10 * MINUTE_MS - 1);
    assert!(w.im.pairing_login(w.now, &code).is_ok());
    w.act(&format!(r#"{{"code":"{code}","name":"lamp2"}}"#)).unwrap();
    w.restart();
    assert!(w.im.pairing_login(w.now, &code).is_ok());
    w.act(&format!(r#"{{"code":"{code}","name":"lamp2"}}"#)).unwrap();
    w.pass(1);
    // Whoever waits for credentials is told.
    assert_eq!(reply(&mut w), Err("not_found"));
    assert!(w.im.pairings.codes.is_empty());
    assert_eq!(w.im.pairing_login(w.now, &code).unwrap_err().code, Code::NotFound);
    // Credentials that come too late are for nobody.
    w.make("late");
    assert!(w.accounts().is_empty() && w.im.account_no("lamp2").is_none());
}

#[test]
fn many_wrong_codes_shut_the_door_for_a_minute() {
    let mut w = world();
    let code = w.code("alice");
    let wrong = |w: &mut World| w.im.pairing_login(w.now, "2222-2222").unwrap_err().code;
    for _ in 0..19 {
        assert_eq!(wrong(&mut w), Code::NotFound);
    }
    // A minute later they are forgotten.
    w.pass(MINUTE_MS);
    for _ in 0..19 {
        assert_eq!(wrong(&mut w), Code::NotFound);
    }
    assert!(w.im.pairing_login(w.now, &code).is_ok());
    assert_eq!(w.act(r#"{"code":"no","name":"lamp2"}"#), Err(Code::NotFound));
    assert_eq!(w.im.pairing_login(w.now, &code).unwrap_err().code, Code::Quota);
    assert_eq!(w.act(&format!(r#"{{"code":"{code}","name":"lamp2"}}"#)), Err(Code::Quota));
    assert_eq!(w.im.counters.refused.count("pairing_wrong"), 39);
    assert_eq!(w.im.counters.refused.count("pairing_shut"), 2);
    w.pass(MINUTE_MS);
    assert!(w.im.pairing_login(w.now, &code).is_ok());
}

#[test]
fn a_name_that_is_taken_or_wanted_is_refused_and_the_code_stays_good() {
    let mut w = world();
    let (one, two) = (w.code("alice"), w.code("bob"));
    for (name, code) in [
        ("bob", Code::Exists),
        ("g-home", Code::BadRequest),
        ("pair", Code::BadRequest),
        ("Lamp", Code::BadRequest),
        ("", Code::BadRequest),
    ] {
        assert_eq!(w.act(&format!(r#"{{"code":"{one}","name":"{name}"}}"#)), Err(code), "{name}");
    }
    w.act(&format!(r#"{{"code":"{one}","name":"lamp2"}}"#)).unwrap();
    // Somebody else wants the name that is being made.
    assert_eq!(w.act(&format!(r#"{{"code":"{two}","name":"lamp2"}}"#)), Err(Code::Exists));
    // Somebody takes it meanwhile.
    w.people(["lamp2"]);
    w.make("secret");
    assert_eq!(reply(&mut w), Err("exists"));
    assert!(w.accounts().is_empty());
    w.act(&format!(r#"{{"code":"{one}","name":"lamp3"}}"#)).unwrap();
    w.make("secret");
    assert_eq!(reply(&mut w).unwrap()["account"], "lamp3");
}

#[test]
fn a_code_for_one_name_makes_that_one() {
    let mut w = world();
    w.refused("alice", "me/pair", r#"{"household":"g-home","name":"bob"}"#, Code::Exists);
    let got = w.ok("alice", "me/pair", r#"{"household":"g-home","name":"lamp2"}"#);
    w.refused("alice", "me/pair", r#"{"household":"g-home","name":"lamp2"}"#, Code::Exists);
    let code = got["code"].as_str().unwrap();
    assert_eq!(w.act(&format!(r#"{{"code":"{code}","name":"lamp3"}}"#)), Err(Code::Forbidden));
    w.act(&format!(r#"{{"code":"{code}"}}"#)).unwrap();
    w.make("secret");
    assert_eq!(reply(&mut w).unwrap()["account"], "lamp2");
}

#[test]
fn only_people_who_belong_to_a_household_get_codes_and_few_at_a_time() {
    let mut w = world();
    w.im.make_account(w.now, "lamp", AccountKind::Device);
    w.befriend("alice", "lamp");
    w.ok("alice", "me/group/g-home", r#"{"op":"add","who":"lamp"}"#);
    w.ok("alice", "me/group/g-chat", r#"{"op":"create"}"#);
    w.refused("lamp", "me/pair", r#"{"household":"g-home"}"#, Code::Forbidden);
    w.refused("carol", "me/pair", r#"{"household":"g-home"}"#, Code::Forbidden);
    w.refused("eve", "me/pair", r#"{"household":"g-home"}"#, Code::NotFound);
    w.refused("alice", "me/pair", r#"{"household":"g-chat"}"#, Code::NotFound);
    w.refused("alice", "me/pair", "{}", Code::BadRequest);
    w.refused("alice", "me/paired", r#"{"name":"x"}"#, Code::Forbidden);
    let codes = [(); 5].map(|()| w.code("alice"));
    w.refused("alice", "me/pair", r#"{"household":"g-home"}"#, Code::Quota);
    w.code("bob");
    w.pass(10 * MINUTE_MS);
    w.code("alice");
    assert_eq!(codes.iter().filter(|code| w.im.pairing_login(w.now, code).is_ok()).count(), 0);
}

#[test]
fn who_made_the_code_must_still_belong_there() {
    let mut w = world();
    let code = w.code("bob");
    w.ok("alice", "me/group/g-home", r#"{"op":"role","who":"bob","role":"guest"}"#);
    assert_eq!(w.act(&format!(r#"{{"code":"{code}","name":"lamp2"}}"#)), Err(Code::Forbidden));
    w.ok("alice", "me/group/g-home", r#"{"op":"role","who":"bob","role":"member"}"#);
    w.act(&format!(r#"{{"code":"{code}","name":"lamp2"}}"#)).unwrap();
    w.ok("alice", "me/group/g-home", r#"{"op":"remove","who":"bob"}"#);
    w.make("secret");
    assert_eq!(reply(&mut w), Err("not_found"));
    assert!(w.im.account_no("lamp2").is_none());
    w.im.remove_account(w.now, "bob");
    assert_eq!(w.im.pairing_login(w.now, &code).unwrap_err().code, Code::NotFound);
}

#[test]
fn one_code_does_not_make_passwords_without_end() {
    let mut w = world();
    let code = w.code("alice");
    for _ in 0..super::USES_MAX {
        w.act(&format!(r#"{{"code":"{code}","name":"lamp2"}}"#)).unwrap();
    }
    assert_eq!(w.act(&format!(r#"{{"code":"{code}","name":"lamp2"}}"#)), Err(Code::Quota));
    // Only the last is answered.
    let first = w.pairs.remove(0);
    w.im.paired(w.now, first.exchange, b"old", "old");
    assert!(w.im.account_no("lamp2").is_none());
    w.make("new");
    assert_eq!(w.accounts(), [("lamp2".to_owned(), b"new".to_vec())]);
}

#[test]
fn a_code_is_kept_as_hashes_only() {
    let mut w = world();
    let code = w.code("alice").replace('-', "");
    let snapshot = w.store.snapshot();
    let row = snapshot.rows.iter().find(|found| found.table == row::PAIRING).unwrap();
    assert!(!row.value.windows(code.len()).any(|part| part == code.as_bytes()));
    let kept = w.im.pairings.codes.values().next().unwrap();
    let word = super::word_of(code.as_bytes().try_into().unwrap());
    assert_eq!(super::hashes(kept.salt, word), (row.a, kept.check));
    assert_ne!(super::hashes(kept.salt + 1, word).0, row.a);
    assert_ne!(row.a, kept.check);
}

#[test]
fn codes_have_no_look_alikes_and_differ() {
    assert_eq!(&super::letters(0), b"22222222");
    assert_eq!(&super::letters((1 << 40) - 1), b"ZZZZZZZZ");
    let mut w = world();
    let mut codes: Vec<String> = (0..5).map(|_| w.code("alice")).collect();
    assert!(codes.iter().all(|code| !code.contains(['0', '1', 'I', 'O'])));
    codes.sort_unstable();
    codes.dedup();
    assert_eq!(codes.len(), 5);
}
