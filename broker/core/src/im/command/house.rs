//! The rooms with a store, a clock, two persons and a lamp, for the tests of commands and states.

use super::super::model::{AccountKind, AccountNo, MailEntry, MailKind};
use super::super::terminal::Greeting;
use super::super::{Code, Done, Im, ImSettings, Origin, Out, Refusal, Verdict, row};
use super::record::State;
use crate::hub::Now;
use crate::limits::Limits;
use crate::store::{Direction, MemoryStore, Query, What};
use parlor_protocol::mqtt::{Properties, Property};
use serde_json::Value;

/// One packet that a session was sent.
#[derive(Debug, Clone)]
pub(in super::super) struct Got {
    pub(in super::super) topic: String,
    pub(in super::super) payload: Value,
    pub(in super::super) id: Option<u16>,
    pub(in super::super) response_topic: Option<String>,
    pub(in super::super) correlation: Option<Vec<u8>>,
}

/// The rooms with a store, a clock, two persons and a lamp.
pub(in super::super) struct House {
    pub(in super::super) im: Im,
    pub(in super::super) now: Now,
    pub(in super::super) settings: ImSettings,
    pub(in super::super) limits: Limits,
    /// What was published outside `im/`.
    pub(in super::super) plain: Vec<(String, String)>,
    pub(in super::super) store: MemoryStore,
    pub(in super::super) sessions: u32,
}

impl House {
    pub(in super::super) fn new() -> Self {
        Self::with(ImSettings::default(), Limits::default())
    }

    pub(in super::super) fn with(settings: ImSettings, limits: Limits) -> Self {
        let mut store = MemoryStore::new();
        let now = Now { ms: 5_000, wall_ms: 1_790_000_000_000 };
        let mut im = Im::new(settings.clone(), limits.clone(), &store.open(), 7, now);
        for (name, kind) in
            [("alice", AccountKind::Person), ("bob", AccountKind::Person), ("lamp", AccountKind::Device)]
        {
            im.make_account(now, name, kind);
        }
        let mut house = Self { im, now, settings, limits, plain: vec![], store, sessions: 0 };
        house.commit();
        for (one, other) in [("alice", "lamp"), ("bob", "lamp"), ("alice", "bob")] {
            house.say(one, &format!("me/contact/{other}"), r#"{"op":"request"}"#).unwrap();
            house.say(other, &format!("me/contact/{one}"), r#"{"op":"accept"}"#).unwrap();
        }
        house
    }

    /// The program is killed and started again; what was not committed is lost, and so is every connection.
    pub(in super::super) fn restart(&mut self, away_ms: u64) {
        self.now = Now { ms: 100, wall_ms: self.now.wall_ms + away_ms };
        self.im = Im::new(self.settings.clone(), self.limits.clone(), &self.store.open(), 8, self.now);
        self.settle();
    }

    /// Everything written so far is on disk.
    pub(in super::super) fn commit(&mut self) {
        loop {
            let marks = self.im.flush(self.now);
            let batch = core::mem::take(&mut self.im.facts);
            self.store.apply(&batch).unwrap();
            self.im.committed(self.now, &marks);
            let mut is_quiet = marks.is_empty() && batch.is_empty();
            while let Some(out) = self.im.out.pop_front() {
                is_quiet = false;
                match out {
                    Out::Tell { asker, reply } => self.im.answer(&asker, reply),
                    Out::Query(query) => self.im.answered(self.now, &self.store.answer(&query)),
                    Out::Plain { topic, payload } => self.plain.push((topic, String::from_utf8(payload).unwrap())),
                    other => panic!("{other:?}"),
                }
            }
            if is_quiet {
                return;
            }
        }
    }

    /// Commits, and lets the rooms go on from there.
    pub(in super::super) fn settle(&mut self) {
        self.commit();
        self.pass(2);
    }

    /// Time passes.
    pub(in super::super) fn pass(&mut self, ms: u64) {
        let until = self.now.ms + ms;
        loop {
            let next = self.im.deadline().map_or(until, |at| at.clamp(self.now.ms, until));
            self.now.wall_ms += next - self.now.ms;
            self.now.ms = next;
            self.im.tick(self.now);
            self.commit();
            if self.now.ms >= until && self.im.deadline().is_none_or(|at| at > until) {
                return;
            }
        }
    }

    pub(in super::super) fn connect(&mut self, account: &str, client_id: &str, filters: &[&str]) -> u32 {
        self.connect_with(account, client_id, filters, 1)
    }

    pub(in super::super) fn connect_with(&mut self, account: &str, client_id: &str, filters: &[&str], qos: u8) -> u32 {
        self.sessions += 1;
        let session = self.sessions;
        let no = self.im.account_no(account).unwrap();
        let at = self.im.attach((session, 1), no, client_id, true, false, None);
        for filter in filters {
            assert!(self.im.subscribe(self.now, at, filter, qos, 0, Greeting::Retained));
        }
        self.settle();
        session
    }

    pub(in super::super) fn leave(&mut self, session: u32) {
        self.im.detach(self.now, session);
        self.settle();
    }

    pub(in super::super) fn request(
        &mut self,
        who: (&str, Option<u32>),
        path: &str,
        payload: &str,
        to: Option<(&str, &[u8])>,
    ) -> Result<Done, Refusal> {
        let account = self.im.account_no(who.0).unwrap();
        let client_id = who.1.map_or("web", |_| "phone");
        let origin = Origin {
            account,
            session: who.1.map(|session| (session, 1)),
            client_id,
            token: 1,
            response_topic: to.map(|(topic, _)| topic),
            correlation: to.map(|(_, data)| data),
            id: None,
            expiry_ms: 0,
            operator: false,
        };
        match self.im.request(self.now, &origin, path, payload.as_bytes())? {
            Verdict::Done(done) => Ok(done),
            Verdict::Later => Ok(Done::default()),
            Verdict::Parked(token) => panic!("it waits for {token}"),
        }
    }

    /// What an account publishes; `phone` is its terminal.
    pub(in super::super) fn say(&mut self, account: &str, path: &str, payload: &str) -> Result<Done, Refusal> {
        let done = self.request((account, None), path, payload, None);
        self.settle();
        done
    }

    /// Every packet there is for a session now.
    pub(in super::super) fn take(&mut self, session: u32) -> Vec<Got> {
        let mut all = vec![];
        while let Some(sending) = self.im.next(self.now, session, 1_000) {
            let wire = self.im.wire();
            let properties = Properties::from_validated(&wire.properties);
            let text = String::from_utf8(wire.payload.clone()).unwrap();
            all.push(Got {
                topic: wire.topic.strip_prefix("im/v1/").unwrap().to_owned(),
                payload: serde_json::from_str(&text).unwrap_or(Value::String(text)),
                id: sending.packet_id,
                response_topic: properties.response_topic().map(str::to_owned),
                correlation: properties.iter().find_map(|p| match p {
                    Property::CorrelationData(data) => Some(data.to_vec()),
                    _ => None,
                }),
            });
        }
        all
    }

    pub(in super::super) fn ack(&mut self, session: u32, got: &Got) {
        assert!(self.im.puback(self.now, session, got.id.unwrap()));
        self.settle();
    }

    /// Takes everything of a session and acknowledges it: topics, and state or arguments.
    pub(in super::super) fn drain(&mut self, session: u32) -> Vec<String> {
        let all = self.take(session);
        for got in &all {
            if got.id.is_some() {
                self.ack(session, got);
            }
        }
        all.iter().map(Got::line).collect()
    }

    /// The states that alice's mailbox tells of a command, in order, as the store has it.
    pub(in super::super) fn told(&mut self, id: &str) -> Vec<String> {
        let alice = self.im.account_no("alice").unwrap();
        let direction = Direction::Up;
        let (max_rows, max_bytes) = (u32::MAX, u32::MAX);
        let what = What::Range { a: alice.0.into(), from: 0, until: u64::MAX, direction, max_rows, max_bytes };
        let answer = self.store.answer(&Query { token: 0, table: row::MAIL, what });
        let mut states = vec![];
        for found in &answer {
            let entry = MailEntry::decode(found.value).unwrap();
            if entry.kind != MailKind::Command {
                continue;
            }
            let (topic, payload) =
                self.im.render_command(alice, AccountNo(entry.conv), entry.seq, entry.extra, found.b).unwrap();
            if *topic == format!("im/v1/me/res/{id}") {
                let payload: Value = serde_json::from_slice(&payload).unwrap();
                states.push(payload["state"].as_str().unwrap().to_owned());
            }
        }
        states
    }

    /// What a session is told of commands.
    pub(in super::super) fn results(&mut self, session: u32) -> Vec<Got> {
        let mut all = self.take(session);
        all.retain(|got| got.topic.starts_with("me/res/"));
        all
    }

    pub(in super::super) fn lamp(&mut self) -> u32 {
        self.connect("lamp", "board", &["im/v1/me/cmd/#"])
    }

    pub(in super::super) fn state(&self, id: &str) -> State {
        let mut all = self.im.commands.devices.values().flat_map(|queue| queue.commands.values());
        all.rfind(|command| *command.id == *id).unwrap().state
    }
}

impl Got {
    /// Topic, and what matters of the payload.
    pub(in super::super) fn line(&self) -> String {
        let what = if self.payload["state"].is_null() { &self.payload["args"] } else { &self.payload["state"] };
        format!("{} {what}", self.topic)
    }
}

#[track_caller]
pub(in super::super) fn refused(got: Result<Done, Refusal>, code: Code) {
    assert_eq!(got.unwrap_err().code, code);
}
