//! The messaging rooms with a clock, clients, and rows that survive a restart, for tests.

use crate::hub::{Hello, Now};
use crate::im::model::{AccountNo, Contact, Relation};
use crate::im::{Done, Greeting, Im, ImSettings, Origin, Refusal, Verdict};
use crate::limits::Limits;
use crate::store::{Batch, Fact, RowRecord, Snapshot, Table};
use serde_json::Value;
use std::collections::BTreeMap;

/// Milliseconds since 1970 when a test begins.
pub(super) const START_MS: u64 = 1_790_000_000_000;
pub(in crate::im) const EVERYTHING: &str = "im/v1/#";

/// The messaging rooms with a clock, clients, and rows that survive a restart.
pub(in crate::im) struct World {
    pub(in crate::im) im: Im,
    pub(in crate::im) now: Now,
    rows: BTreeMap<(Table, u64, u64), Vec<u8>>,
    boot: u64,
    sessions: u32,
}

/// One connection.
#[derive(Debug, Clone)]
pub(in crate::im) struct Client {
    pub(in crate::im) session: u32,
    pub(in crate::im) account: AccountNo,
    name: String,
}

pub(in crate::im) fn told(verdict: Result<Verdict, Refusal>) -> Done {
    match verdict {
        Ok(Verdict::Done(done)) => done,
        other => panic!("{other:?}"),
    }
}

/// Makes two accounts contacts.
pub(in crate::im) fn befriend(w: &mut World, a: &str, b: &str) {
    let (a, b) = (w.account(a), w.account(b));
    let friend = Contact { relation: Relation::Friends, ..Contact::default() };
    w.im.dir.accounts[a.at()].contacts.insert(b, friend);
    w.im.dir.accounts[b.at()].contacts.insert(a, friend);
    w.im.rights += 1;
}

impl World {
    pub(in crate::im) fn new() -> Self {
        let now = Now { ms: 1_000, wall_ms: START_MS };
        let im =
            Im::new(ImSettings::default(), Limits::default(), &Snapshot { boot: 1, ..Snapshot::default() }, 7, now);
        Self { im, now, rows: BTreeMap::new(), boot: 1, sessions: 0 }
    }

    pub(in crate::im) fn account(&mut self, name: &str) -> AccountNo {
        self.im.account_or_new(self.now, name).unwrap()
    }

    /// Connects and subscribes.
    pub(in crate::im) fn connect(&mut self, account: &str, client_id: &str, filters: &[&str]) -> Client {
        self.connect_as(account, client_id, filters, None)
    }

    pub(super) fn connect_as(
        &mut self,
        account: &str,
        client_id: &str,
        filters: &[&str],
        hello: Option<&Hello>,
    ) -> Client {
        let account = self.account(account);
        self.sessions += 1;
        let session = self.sessions;
        self.im.connected(self.now, account);
        if !filters.is_empty() {
            let at = self.im.attach((session, 1), account, client_id, true, false, hello);
            for filter in filters {
                assert!(self.im.subscribe(self.now, at, filter, 1, 0, Greeting::Retained));
            }
        }
        Client { session, account, name: client_id.to_owned() }
    }

    pub(in crate::im) fn disconnect(&mut self, client: &Client) {
        self.im.detach(self.now, client.session);
        self.im.disconnected(self.now, client.account);
    }

    pub(in crate::im) fn ask(&mut self, client: &Client, path: &str, payload: &str) -> Result<Verdict, Refusal> {
        let session = Some((client.session, 1));
        self.request(client.account, session, &client.name, false, path, payload)
    }

    /// With the operator's authority, and no session.
    pub(in crate::im) fn act(&mut self, path: &str, payload: &Value) -> Value {
        let admin = self.account("admin");
        let done = told(self.request(admin, None, "$operator", true, path, &payload.to_string()));
        done.reply.unwrap()
    }

    pub(super) fn request(
        &mut self,
        account: AccountNo,
        session: Option<(u32, u32)>,
        client_id: &str,
        operator: bool,
        path: &str,
        payload: &str,
    ) -> Result<Verdict, Refusal> {
        let origin = Origin {
            account,
            session,
            client_id,
            token: 1,
            response_topic: None,
            correlation: None,
            id: None,
            expiry_ms: 0,
            operator,
        };
        self.im.request(self.now, &origin, path, payload.as_bytes())
    }

    /// What is sent to a client now: topic below `im/v1/`, payload and QoS; acknowledged at once.
    pub(in crate::im) fn take(&mut self, client: &Client) -> Vec<(String, Value, u8)> {
        self.sent(client, true)
    }

    pub(super) fn sent(&mut self, client: &Client, acknowledges: bool) -> Vec<(String, Value, u8)> {
        let mut all = vec![];
        let mut unanswered = vec![];
        while let Some(sending) = self.im.next(self.now, client.session, 1_000) {
            assert!(all.len() < 10_000, "the same thing is sent again and again");
            let wire = self.im.wire();
            let payload = String::from_utf8(wire.payload.clone()).unwrap();
            let payload = serde_json::from_str(&payload).unwrap_or(Value::String(payload));
            all.push((wire.topic.strip_prefix("im/v1/").unwrap().to_owned(), payload, sending.qos));
            unanswered.extend(sending.packet_id);
        }
        for id in if acknowledges { unanswered } else { vec![] } {
            assert!(self.im.puback(self.now, client.session, id));
        }
        all
    }

    /// Lets time pass, doing what is due as it comes.
    pub(in crate::im) fn pass(&mut self, ms: u64) {
        let until = self.now.ms + ms;
        while let Some(at) = self.im.deadline().filter(|at| *at <= until) {
            let step = at.saturating_sub(self.now.ms);
            self.now.ms += step;
            self.now.wall_ms += step;
            self.im.tick(self.now);
        }
        self.now.wall_ms += until - self.now.ms;
        self.now.ms = until;
    }

    /// How many rows were written since the last time; they are on disk from now on.
    pub(in crate::im) fn commit(&mut self) -> usize {
        let marks = self.im.flush(self.now);
        let batch: Batch = core::mem::take(&mut self.im.facts);
        let mut rows = 0;
        for fact in &batch {
            match fact.unwrap() {
                Fact::Put { table, a, b, value } => drop(self.rows.insert((table, a, b), value.to_vec())),
                Fact::Del { table, a, b } => drop(self.rows.remove(&(table, a, b))),
                _ => continue,
            }
            rows += 1;
        }
        self.im.committed(self.now, &marks);
        rows
    }

    /// Everybody is disconnected, and the program starts again with what was on disk.
    pub(in crate::im) fn restart(&mut self) {
        self.boot += 1;
        let record =
            |(&(table, a, b), value): (&(Table, u64, u64), &Vec<u8>)| RowRecord { table, a, b, value: value.clone() };
        let rows = self.rows.iter().map(record).collect();
        let snapshot = Snapshot { boot: self.boot, rows, ..Snapshot::default() };
        self.now.ms = 1_000;
        self.im = Im::new(ImSettings::default(), self.im.limits.clone(), &snapshot, 7, self.now);
        assert_eq!(self.im.counters.dropped.count("unreadable_row"), 0);
    }
}
