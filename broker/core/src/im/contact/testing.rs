//! A small world for the tests of contacts, groups, pairing and profiles: rooms, a store, and a clock.

use crate::hub::Now;
use crate::im::model::{AccountKind, AccountNo, MailEntry, MailKind};
use crate::im::{Asker, Code, Greeting, Im, ImSettings, Origin, Out, PairRequest, Refusal, Reply, Verdict, body, row};
use crate::limits::Limits;
use crate::store::{Direction, MemoryStore, Query, RowRecord, Table, What};
use serde_json::Value;

pub(in crate::im) const DAY_MS: u64 = 24 * 3_600_000;

/// Rooms over a store that commits at once.
pub(in crate::im) struct World {
    pub(in crate::im) im: Im,
    pub(in crate::im) store: MemoryStore,
    pub(in crate::im) now: Now,
    /// Credentials that were asked for and not made yet.
    pub(in crate::im) pairs: Vec<PairRequest>,
    /// What `act` was answered later.
    pub(in crate::im) replies: Vec<Reply>,
    pub(in crate::im) kicked: Vec<u32>,
    next_session: u32,
}

impl World {
    pub(in crate::im) fn new() -> Self {
        Self::with(Limits::default())
    }

    pub(in crate::im) fn with(limits: Limits) -> Self {
        let mut store = MemoryStore::new();
        let now = Now { ms: 5_000, wall_ms: 20_000 * DAY_MS };
        let im = Im::new(ImSettings::default(), limits, &store.open(), 7, now);
        Self { im, store, now, pairs: vec![], replies: vec![], kicked: vec![], next_session: 1 }
    }

    /// The broker goes down and comes up again with what is in the store.
    pub(in crate::im) fn restart(&mut self) {
        self.settle();
        let limits = self.im.limits.clone();
        self.im = Im::new(ImSettings::default(), limits, &self.store.open(), 8, self.now);
        self.settle();
    }

    pub(in crate::im) fn pass(&mut self, ms: u64) {
        self.now = Now { ms: self.now.ms + ms, wall_ms: self.now.wall_ms + ms };
        self.im.tick(self.now);
        self.settle();
    }

    pub(in crate::im) fn people<const N: usize>(&mut self, names: [&str; N]) -> [AccountNo; N] {
        names.map(|name| self.im.make_account(self.now, name, AccountKind::Person))
    }

    pub(in crate::im) fn no(&self, name: &str) -> AccountNo {
        self.im.account_no(name).unwrap()
    }

    /// Asks something as an account, from a terminal without a session; JSON of the answer.
    pub(in crate::im) fn ask(&mut self, name: &str, path: &str, payload: &str) -> Result<Value, Code> {
        let origin = self.origin(name, "phone");
        self.request(&origin, path, payload).map_err(|refusal| refusal.code)
    }

    #[track_caller]
    pub(in crate::im) fn ok(&mut self, name: &str, path: &str, payload: &str) -> Value {
        match self.ask(name, path, payload) {
            Ok(value) => value,
            Err(code) => panic!("{name} {path} {payload}: {code:?}"),
        }
    }

    #[track_caller]
    pub(in crate::im) fn refused(&mut self, name: &str, path: &str, payload: &str, code: Code) {
        assert_eq!(self.ask(name, path, payload), Err(code), "{name} {path} {payload}");
    }

    pub(in crate::im) fn origin<'a>(&self, name: &str, client_id: &'a str) -> Origin<'a> {
        Origin {
            account: self.im.account_no(name).unwrap_or(AccountNo(u32::MAX)),
            session: None,
            client_id,
            token: 1,
            response_topic: None,
            correlation: None,
            id: None,
            expiry_ms: 0,
            operator: false,
        }
    }

    pub(in crate::im) fn request(&mut self, origin: &Origin<'_>, path: &str, payload: &str) -> Result<Value, Refusal> {
        let verdict = self.im.request(self.now, origin, path, payload.as_bytes());
        self.settle();
        match verdict? {
            Verdict::Done(done) => Ok(done.reply.unwrap_or(Value::Null)),
            Verdict::Later | Verdict::Parked(_) => Ok(Value::Null),
        }
    }

    #[track_caller]
    pub(in crate::im) fn befriend(&mut self, a: &str, b: &str) {
        self.ok(a, &format!("me/contact/{b}"), r#"{"op":"request"}"#);
        self.ok(b, &format!("me/contact/{a}"), r#"{"op":"accept"}"#);
    }

    /// Writes what is to be written and does what is to be done, until nothing is left.
    pub(in crate::im) fn settle(&mut self) {
        loop {
            let marks = self.im.flush(self.now);
            let facts = core::mem::take(&mut self.im.facts);
            self.store.apply(&facts).unwrap();
            self.im.committed(self.now, &marks);
            let Some(out) = self.im.out.pop_front() else {
                if self.im.is_dirty() {
                    continue;
                }
                return;
            };
            match out {
                Out::Query(query) => {
                    let answer = self.store.answer(&query);
                    self.im.answered(self.now, &answer);
                }
                Out::Tell { asker, reply } => self.told(&asker, reply),
                Out::Replied { reply, .. } => self.replies.push(reply),
                Out::Pair(request) => self.pairs.push(*request),
                Out::Kick { session } => {
                    self.kicked.push(session);
                    self.im.detach(self.now, session);
                }
                _ => {}
            }
        }
    }

    /// As the hub does it: an answer goes to the session, or to whoever acted.
    fn told(&mut self, asker: &Asker, reply: Value) {
        match asker.session {
            Some(session) if asker.account == crate::im::PAIRING_ACCOUNT => self.im.tell_paired(session, asker, reply),
            _ => self.im.answer(asker, reply),
        }
    }

    /// A session with subscriptions, of the account or, with `pair`, of a device that has none yet.
    pub(in crate::im) fn connect(&mut self, name: &str, client_id: &str, filters: &[&str]) -> u32 {
        let account = if name == "pair" { crate::im::PAIRING_ACCOUNT } else { self.no(name) };
        let session = self.next_session;
        self.next_session += 1;
        let at = self.im.attach((session, 1), account, client_id, true, false, None);
        for filter in filters {
            assert!(self.im.subscribe(self.now, at, filter, 1, 0, Greeting::Nothing));
        }
        self.settle();
        session
    }

    /// Everything a session is sent now, acknowledged: topic and payload.
    pub(in crate::im) fn drain(&mut self, session: u32) -> Vec<(String, Value)> {
        let mut got = vec![];
        loop {
            self.settle();
            let Some(sending) = self.im.next(self.now, session, 10) else {
                if self.im.out.is_empty() {
                    return got;
                }
                continue;
            };
            let wire = self.im.wire();
            let payload = serde_json::from_slice(&wire.payload)
                .unwrap_or_else(|_| String::from_utf8_lossy(&wire.payload).into_owned().into());
            got.push((wire.topic.clone(), payload));
            if let Some(id) = sending.packet_id {
                assert!(self.im.puback(self.now, session, id));
            }
        }
    }

    /// The mailbox of an account, from the store: one line an entry.
    pub(in crate::im) fn mail(&self, name: &str) -> Vec<String> {
        self.mail_of(self.no(name))
    }

    pub(in crate::im) fn mail_of(&self, account: AccountNo) -> Vec<String> {
        let entries = self.rows(row::MAIL, account.0.into());
        entries.iter().map(|found| self.line(account, &MailEntry::decode(&found.value).unwrap())).collect()
    }

    fn line(&self, account: AccountNo, entry: &MailEntry) -> String {
        let conv = crate::im::model::ConvNo(entry.conv);
        match entry.kind {
            MailKind::Contact => {
                let (_, by) = super::contact_event(entry.seq);
                let own = if by == super::By::Itself { "own " } else { "" };
                let op = crate::im::model::ContactOp::text(entry.extra);
                format!("{own}{op} {}", self.im.name_of(AccountNo(entry.conv)))
            }
            MailKind::Message => {
                let rows = self.rows(row::BODY, entry.conv.into());
                let found = rows.iter().find(|found| found.b == entry.seq).unwrap();
                let body = body::Body::decode(&found.value).unwrap();
                let text = core::str::from_utf8(body.fragment).unwrap();
                let text = text.strip_prefix(",\"kind\":\"member\",\"body\":").unwrap_or(text);
                let address = self.im.address_for(conv, account);
                format!("{address} {} {}: {text}", entry.seq, self.im.name_of(body.from))
            }
            other => format!("{other:?}"),
        }
    }

    /// Rows of the store with this first half of the key.
    pub(in crate::im) fn rows(&self, table: Table, a: u64) -> Vec<RowRecord> {
        let what = What::Range {
            a,
            from: 0,
            until: u64::MAX,
            direction: Direction::Up,
            max_rows: u32::MAX,
            max_bytes: u32::MAX,
        };
        let answer = self.store.answer(&Query { token: 0, table, what });
        answer.iter().map(|r| RowRecord { table, a: r.a, b: r.b, value: r.value.to_vec() }).collect()
    }
}
