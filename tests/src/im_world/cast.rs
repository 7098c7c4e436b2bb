//! Who is in the world, and what they are to each other.

use super::model::{Model, View, conv_of};
use super::terminal::{Mode, Terminal, Who};
use super::{Event, World};
use crate::world::Rng;
use parlor_protocol::mqtt::Version;

/// Owner of every group.
pub(super) const OWNER: &str = "alice";
/// A household with everybody in it, devices too.
pub(super) const HOME: &str = "g-home";
/// A group whose members come and go.
pub(super) const CLUB: &str = "g-club";
const PEOPLE: [&str; 5] = ["alice", "bob", "carol", "dave", "erin"];
/// A device that everybody may write to.
pub(super) const LAMP: &str = "lamp";
/// It has no contacts.
pub(super) const STRANGER: &str = "mallory";

/// The model before anything has happened, and the terminals.
pub(super) fn cast(rng: &mut Rng, people: usize) -> (Model, Vec<Terminal>) {
    let people = &PEOPLE[..people.clamp(2, PEOPLE.len())];
    let mut terminals = vec![];
    for (at, person) in people.iter().enumerate() {
        for number in 0..rng.between(1, 3) {
            // The first of each is one that misses nothing.
            let mode = match rng.below(10) {
                _ if number == 0 && at < 2 => Mode::Push(1),
                0..6 => Mode::Push(1),
                6 => Mode::Push(0),
                _ => Mode::Pull,
            };
            terminals.push(Terminal::new(who(rng, &format!("{person}-{number}"), person, mode)));
        }
    }
    terminals.push(Terminal::new(who(rng, "lamp-board", LAMP, Mode::Device)));
    terminals.push(Terminal::new(Who { version: Version::V5, ..who(rng, "ear", STRANGER, Mode::Stranger) }));
    for account in people.iter().copied().chain([LAMP, STRANGER]) {
        let auditor = who(rng, &format!("auditor-{account}"), account, Mode::Auditor);
        let is_heard = Who { version: Version::V5, resumes: false, receive_max: 100, keep_alive_secs: 0, ..auditor };
        terminals.push(Terminal::new(is_heard));
    }
    let mut model = Model {
        people: people.iter().map(|name| (*name).to_owned()).collect(),
        devices: vec![LAMP.to_owned()],
        views: vec![View::default(); terminals.len()],
        ..Model::default()
    };
    for (at, one) in people.iter().enumerate() {
        for other in people[at + 1..].iter().copied().chain([LAMP]) {
            model.found(&conv_of(one, other), &[one, other]);
        }
    }
    let everybody: Vec<&str> = people.iter().copied().chain([LAMP]).collect();
    model.found(HOME, &everybody);
    model.found(CLUB, people);
    (model, terminals)
}

fn who(rng: &mut Rng, name: &str, account: &str, mode: Mode) -> Who {
    Who {
        name: name.to_owned(),
        account: account.to_owned(),
        version: if rng.chance(60) { Version::V5 } else { Version::V311 },
        resumes: rng.chance(50),
        receive_max: u16::try_from(rng.between(1, 12)).expect("small"),
        keep_alive_secs: u16::try_from(rng.between(3, 8)).expect("small"),
        wholesale: mode == Mode::Push(1) && rng.chance(20),
        has_ids: rng.chance(80),
        mode,
    }
}

impl World<'_> {
    /// Accounts, contacts and groups, before anything goes wrong.
    pub(super) fn furnish(&mut self) {
        let people = self.model.people.clone();
        let mut token = 0;
        let mut kinds: Vec<(&str, &str)> = people.iter().map(|name| (name.as_str(), "person")).collect();
        kinds.extend([(LAMP, "device"), (STRANGER, "person")]);
        for (name, kind) in kinds {
            token += 1;
            self.with_broker(|b, now| b.hub.describe_account(now, name, kind, None, token));
        }
        let mut acts = vec![];
        for (at, one) in people.iter().enumerate() {
            for other in people[at + 1..].iter().map(String::as_str).chain([LAMP]) {
                acts.push((one.clone(), format!("me/contact/{other}"), r#"{"op":"request"}"#.to_owned()));
                acts.push((other.to_owned(), format!("me/contact/{one}"), r#"{"op":"accept"}"#.to_owned()));
            }
        }
        let others: Vec<String> = people.iter().filter(|name| *name != OWNER).cloned().collect();
        let mut home = others.clone();
        home.push(LAMP.to_owned());
        let create = |household: bool, members: &[String]| {
            serde_json::json!({ "op": "create", "household": household, "members": members }).to_string()
        };
        acts.push((OWNER.to_owned(), format!("me/group/{HOME}"), create(true, &home)));
        acts.push((OWNER.to_owned(), format!("me/group/{CLUB}"), create(false, &others)));
        for (account, path, payload) in acts {
            token += 1;
            self.with_broker(|b, now| b.hub.act(now, &account, &path, payload.as_bytes(), token));
            self.settle();
        }
        self.after(0, Event::Disk);
        self.pass(self.now_ms + 2_000, |w| {
            w.broker.as_ref().is_some_and(|b| !b.hub.is_committing() && !b.desk.is_busy())
        });
    }
}
