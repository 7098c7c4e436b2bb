//! The reference store: everything in ordinary maps, written to be read. It forgets when it is dropped.
//!
//! Facts about a session that does not exist are ignored, here and in every other store.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::{
    Answer, Batch, BatchNo, DecodeError, Direction, Fact, Kind, Load, OwnedMessage, Page, PageEntry, Query, QueueIndex,
    QueueState, RetainedRecord, RowRecord, RowRef, SessionNo, SessionRecord, Snapshot, Store, StoreEvent, Table, What,
    WillRecord,
};

/// A store that keeps its facts in memory and commits at once.
#[derive(Debug, Default, Clone)]
pub struct MemoryStore {
    boot: u64,
    next_session: u64,
    sessions: BTreeMap<SessionNo, Session>,
    retained: BTreeMap<String, RetainedRecord>,
    wills: BTreeMap<String, WillRecord>,
    accounts: BTreeMap<String, Vec<u8>>,
    rows: BTreeMap<(Table, u64, u64), Vec<u8>>,
    events: VecDeque<Event>,
}

#[derive(Debug, Default, Clone)]
struct Session {
    client_id: String,
    account: String,
    version: u8,
    expiry_secs: u32,
    disconnected_at_ms: u64,
    sent: u64,
    subscriptions: BTreeMap<String, (u8, u32)>,
    inbound: BTreeSet<u16>,
    /// One past the last index ever given.
    tail: u64,
    /// Entries not yet acknowledged.
    entries: BTreeMap<u64, Entry>,
}

#[derive(Debug, Clone)]
struct Entry {
    qos: u8,
    retain: bool,
    received: bool,
    subscription_ids: Vec<u8>,
    message: OwnedMessage,
}

#[derive(Debug, Clone)]
enum Event {
    Committed(BatchNo),
    Load(Load),
    Query(Query),
}

impl MemoryStore {
    /// An empty store that was never opened.
    pub fn new() -> Self {
        Self::default()
    }

    /// What a broker that starts now finds; counts as a start.
    pub fn open(&mut self) -> Snapshot {
        self.boot += 1;
        self.events.clear();
        self.snapshot()
    }

    /// What a broker that starts now would find.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            boot: self.boot,
            next_session: self.next_session,
            sessions: self.sessions.iter().map(|(&no, session)| session.record(no)).collect(),
            retained: self.retained.values().cloned().collect(),
            wills: self.wills.values().cloned().collect(),
            accounts: self.accounts.iter().map(|(name, record)| (name.clone(), record.clone())).collect(),
            rows: self
                .rows
                .iter()
                .filter(|((table, ..), _)| table.kind() == Kind::Resident)
                .map(|(&(table, a, b), value)| RowRecord { table, a, b, value: value.clone() })
                .collect(),
            keys: self.rows.keys().copied().filter(|(table, ..)| table.kind() == Kind::Keyed).collect(),
        }
    }

    /// Makes the facts of `batch` true.
    pub fn apply(&mut self, batch: &Batch) -> Result<(), DecodeError> {
        for fact in batch {
            self.apply_fact(&fact?);
        }
        Ok(())
    }

    fn apply_fact(&mut self, fact: &Fact<'_>) {
        match *fact {
            Fact::Session { no, client_id, account, version, expiry_secs, disconnected_at_ms, sent } => {
                self.next_session = self.next_session.max(no.0 + 1);
                let session = self.sessions.entry(no).or_default();
                client_id.clone_into(&mut session.client_id);
                account.clone_into(&mut session.account);
                session.version = version;
                session.expiry_secs = expiry_secs;
                session.disconnected_at_ms = disconnected_at_ms;
                session.sent = sent.0;
            }
            Fact::SessionEnd { no } => {
                self.sessions.remove(&no);
            }
            Fact::Subscribe { no, filter, options, id } => {
                self.change(no, |s| s.subscriptions.insert(filter.to_owned(), (options, id)));
            }
            Fact::Unsubscribe { no, filter } => self.change(no, |s| s.subscriptions.remove(filter)),
            Fact::Enqueue { message, recipients } => {
                for to in &recipients {
                    let entry = Entry {
                        qos: to.qos,
                        retain: to.retain,
                        received: false,
                        subscription_ids: to.subscription_ids.to_vec(),
                        message: message.into(),
                    };
                    self.change(to.session, |s| {
                        s.tail = s.tail.max(to.index.0 + 1);
                        s.entries.insert(to.index.0, entry)
                    });
                }
            }
            Fact::Acked { no, index } => self.change(no, |s| s.entries.remove(&index.0)),
            Fact::Received { no, index } => self.change(no, |s| {
                s.entries.get_mut(&index.0).map(|entry| {
                    *entry = Entry {
                        qos: 2,
                        retain: false,
                        received: true,
                        subscription_ids: vec![],
                        message: OwnedMessage::default(),
                    };
                })
            }),
            Fact::InboundAdd { no, packet_id } => self.change(no, |s| s.inbound.insert(packet_id)),
            Fact::InboundRemove { no, packet_id } => self.change(no, |s| s.inbound.remove(&packet_id)),
            Fact::Retain { qos, publisher, message } => {
                let record = RetainedRecord { qos, publisher: publisher.to_owned(), message: message.into() };
                self.retained.insert(message.topic.to_owned(), record);
            }
            Fact::RetainClear { topic } => {
                self.retained.remove(topic);
            }
            Fact::Will { client_id, account, qos, retain, delay_secs, due_at_ms, session, message } => {
                let record = WillRecord {
                    client_id: client_id.to_owned(),
                    account: account.to_owned(),
                    qos,
                    retain,
                    delay_secs,
                    due_at_ms,
                    session,
                    message: message.into(),
                };
                self.wills.insert(client_id.to_owned(), record);
            }
            Fact::WillClear { client_id } => {
                self.wills.remove(client_id);
            }
            Fact::Account { name, record } => {
                self.accounts.insert(name.to_owned(), record.to_vec());
            }
            Fact::AccountRemove { name } => {
                self.accounts.remove(name);
            }
            Fact::Put { table, a, b, value } => {
                self.rows.insert((table, a, b), value.to_vec());
            }
            Fact::Del { table, a, b } => {
                self.rows.remove(&(table, a, b));
            }
            Fact::Trim { table, a, below } => {
                let gone: Vec<_> = self.rows.range((table, a, 0)..(table, a, below)).map(|(&key, _)| key).collect();
                for key in gone {
                    self.rows.remove(&key);
                }
            }
            // This store keeps everything: it is never told to forget with time.
            Fact::Clock { .. } => {}
        }
    }

    fn change<R>(&mut self, no: SessionNo, change: impl FnOnce(&mut Session) -> R) {
        if let Some(session) = self.sessions.get_mut(&no) {
            change(session);
        }
    }

    /// The answer to `load`, at once.
    pub fn page(&self, load: &Load) -> Page {
        let mut page = Page { session: load.session, from: load.from, next: load.until, bytes: vec![], entries: 0 };
        let Some(session) = self.sessions.get(&load.session) else { return page };
        let mut bytes = 0;
        for (&index, entry) in session.entries.range(load.from.0..load.until.0.max(load.from.0)) {
            if page.entries >= load.max_entries || bytes >= load.max_bytes as usize {
                page.next = QueueIndex(index);
                break;
            }
            let message = entry.message.as_ref();
            bytes += message.cost();
            page.entries += 1;
            PageEntry {
                index: QueueIndex(index),
                qos: entry.qos,
                retain: entry.retain,
                received: entry.received,
                subscription_ids: &entry.subscription_ids,
                message,
            }
            .encode(&mut page.bytes);
        }
        page
    }

    /// The answer to `query`, at once.
    pub fn answer(&self, query: &Query) -> Answer {
        let mut answer = Answer { token: query.token, bytes: vec![], rows: 0, is_partial: false };
        match &query.what {
            What::Range { a, from, until, direction, max_rows, max_bytes } => {
                let range = self.rows.range((query.table, *a, *from)..(query.table, *a, *until.max(from)));
                let rows: Box<dyn Iterator<Item = _>> = match direction {
                    Direction::Up => Box::new(range),
                    Direction::Down => Box::new(range.rev()),
                };
                let mut bytes = 0;
                for (&(_, a, b), value) in rows {
                    if answer.rows >= *max_rows || bytes >= *max_bytes as usize {
                        answer.is_partial = true;
                        break;
                    }
                    bytes += value.len();
                    answer.rows += 1;
                    RowRef { a, b, value }.encode(&mut answer.bytes);
                }
            }
            What::Rows(keys) => {
                let keys: BTreeSet<(u64, u64)> = keys.iter().copied().collect();
                for (a, b) in keys {
                    if let Some(value) = self.rows.get(&(query.table, a, b)) {
                        answer.rows += 1;
                        RowRef { a, b, value }.encode(&mut answer.bytes);
                    }
                }
            }
        }
        answer
    }
}

impl Session {
    fn record(&self, no: SessionNo) -> SessionRecord {
        let head = self.entries.keys().next().copied().unwrap_or(self.tail);
        let state = |index| match self.entries.get(&index) {
            None => QueueState::Acked,
            Some(entry) if entry.received => QueueState::Received,
            Some(_) => QueueState::Queued,
        };
        let waiting = || self.entries.values().filter(|entry| !entry.received);
        SessionRecord {
            no,
            client_id: self.client_id.clone(),
            account: self.account.clone(),
            version: self.version,
            expiry_secs: self.expiry_secs,
            disconnected_at_ms: self.disconnected_at_ms,
            sent: QueueIndex(self.sent),
            subscriptions: self.subscriptions.iter().map(|(f, &(options, id))| (f.clone(), options, id)).collect(),
            inbound: self.inbound.iter().copied().collect(),
            head: QueueIndex(head),
            tail: QueueIndex(self.tail),
            exceptions: (head..self.tail)
                .map(|index| (QueueIndex(index), state(index)))
                .filter(|(_, state)| *state != QueueState::Queued)
                .collect(),
            queued: waiting().count() as u64,
            queued_bytes: waiting().map(|entry| entry.message.as_ref().cost() as u64).sum(),
        }
    }
}

impl Store for MemoryStore {
    fn submit(&mut self, number: BatchNo, batch: Batch) {
        // The hub is the only writer of batches, so bytes it cannot read back are its own mistake.
        let applied = self.apply(&batch);
        debug_assert!(applied.is_ok(), "a batch that does not read back: {applied:?}");
        self.events.push_back(Event::Committed(number));
    }

    fn load(&mut self, load: Load) {
        self.events.push_back(Event::Load(load));
    }

    fn query(&mut self, query: Query) {
        self.events.push_back(Event::Query(query));
    }

    fn poll(&mut self) -> Option<StoreEvent> {
        Some(match self.events.pop_front()? {
            Event::Committed(number) => StoreEvent::Committed(number),
            Event::Load(load) => StoreEvent::Page(self.page(&load)),
            Event::Query(query) => StoreEvent::Answer(self.answer(&query)),
        })
    }
}
