//! Folding: the net effect of one full journal segment, written into the index in one transaction.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use parlor_core::store::bytes::DecodeError;
use parlor_core::store::{Fact, FactIter, QueueState, Retention};
use redb::{Database, ReadableTable, Table, WriteTransaction};

use super::StoreError;
use super::journal::{Records, Segment};
use super::page::SlotReader;
use super::ranges::Ranges;
use super::rows::{Filters, FoldHabits, Recent, RowChanges, RowFold, RowNumbers, RunTables};
use super::schema::{
    ACCOUNTS, BODIES, BODY_REFS, Body, CHUNK_BYTES, CHUNKS, ChunkEntry, META, QUEUES, QueueRow, RETAINED, SESSIONS,
    SUBSCRIPTIONS, WILLS, chunk_entries, meta,
};
use super::tail::{Answers, FoldSlots, Slot};

/// Everything one fold needs; may run on another thread than the engine's.
#[derive(Debug)]
pub(super) struct FoldJob {
    pub(super) db: Arc<Database>,
    pub(super) salt: u64,
    pub(super) segment: Segment,
    /// Entries in the segment, except those that are done at the front; ascending by session.
    pub(super) slots: Vec<FoldSlots>,
    /// Answers to entries that are in the index already, up to now.
    pub(super) answers: HashMap<u64, Answers>,
    pub(super) retention: Vec<Retention>,
    /// Bytes of rows written in one transaction.
    pub(super) slice_bytes: u64,
    /// What is known of the keys of runs.
    pub(super) filters: Arc<Filters>,
    pub(super) recent: Recent,
}

/// A fold that is durable in the index.
#[derive(Debug)]
pub(super) struct FoldDone {
    pub(super) generation: u32,
    /// Queue entries written.
    pub(super) entries: u64,
    /// Rows written.
    pub(super) rows: u64,
    /// Their bytes.
    pub(super) row_bytes: u64,
    pub(super) recent: Recent,
}

/// What the segment's facts say of one session, besides its queue entries.
#[derive(Debug, Default)]
struct NetSession {
    /// Bytes of the last `Fact::Session`.
    record: Option<Vec<u8>>,
    ended: bool,
    subscriptions: BTreeMap<String, Option<(u8, u32)>>,
    inbound: Vec<(u16, bool)>,
    /// One past the last index given in the segment.
    tail: u64,
}

/// Rows to write or remove, by key.
type Rows = BTreeMap<String, Option<Vec<u8>>>;

/// The net effect of a segment's facts, besides queue entries. Values are the facts' bytes.
#[derive(Debug, Default)]
struct Net {
    sessions: HashMap<u64, NetSession>,
    retained: Rows,
    wills: Rows,
    accounts: Rows,
    rows: RowChanges,
    next_session: u64,
}

impl Net {
    fn session(&mut self, no: u64) -> &mut NetSession {
        self.sessions.entry(no).or_default()
    }

    fn add(&mut self, body: &[u8]) -> Result<(), DecodeError> {
        let mut facts = FactIter::new(body);
        let mut rest = body;
        while let Some(fact) = facts.next() {
            let fact = fact?;
            let bytes = &rest[..rest.len() - facts.rest().len()];
            rest = facts.rest();
            match fact {
                Fact::Session { no, .. } => {
                    self.next_session = self.next_session.max(no.0 + 1);
                    self.session(no.0).record = Some(bytes.to_vec());
                }
                Fact::SessionEnd { no } => self.session(no.0).ended = true,
                Fact::Subscribe { no, filter, options, id } => {
                    self.session(no.0).subscriptions.insert(filter.to_owned(), Some((options, id)));
                }
                Fact::Unsubscribe { no, filter } => {
                    self.session(no.0).subscriptions.insert(filter.to_owned(), None);
                }
                Fact::Enqueue { recipients, .. } => {
                    for to in &recipients {
                        let session = self.session(to.session.0);
                        session.tail = session.tail.max(to.index.0 + 1);
                    }
                }
                // Known from the tail.
                Fact::Acked { .. } | Fact::Received { .. } => {}
                Fact::InboundAdd { no, packet_id } => self.session(no.0).inbound.push((packet_id, true)),
                Fact::InboundRemove { no, packet_id } => self.session(no.0).inbound.push((packet_id, false)),
                Fact::Retain { message, .. } => {
                    self.retained.insert(message.topic.to_owned(), Some(bytes.to_vec()));
                }
                Fact::RetainClear { topic } => {
                    self.retained.insert(topic.to_owned(), None);
                }
                Fact::Will { client_id, .. } => {
                    self.wills.insert(client_id.to_owned(), Some(bytes.to_vec()));
                }
                Fact::WillClear { client_id } => {
                    self.wills.insert(client_id.to_owned(), None);
                }
                Fact::Account { name, record } => {
                    self.accounts.insert(name.to_owned(), Some(record.to_vec()));
                }
                Fact::AccountRemove { name } => {
                    self.accounts.insert(name.to_owned(), None);
                }
                fact @ (Fact::Put { .. } | Fact::Del { .. } | Fact::Trim { .. } | Fact::Clock { .. }) => {
                    self.rows.add(&fact);
                }
            }
        }
        Ok(())
    }
}

impl FoldJob {
    /// Writes the segment's net effect. After an error nothing of it is in the index, and the store must stop.
    pub(super) fn run(mut self) -> Result<FoldDone, StoreError> {
        let mut net = Net::default();
        let mut end = 0;
        let mut records = Records::new(&self.segment, self.salt, self.segment.used);
        while let Some(record) = records.next()? {
            net.add(record.body)?;
            end = record.sequence;
        }
        if end != self.segment.last {
            return Err(StoreError::Changed { file: self.segment.name, found: end, expected: self.segment.last });
        }
        // Sessions whose older entries were answered, and those with entries, have to be looked at as well.
        for no in self.answers.keys().copied().chain(self.slots.iter().map(|slots| slots.session)) {
            net.session(no);
        }

        let mut rows = std::mem::take(&mut net.rows).sort();
        let (txn, (rows, row_bytes)) = loop {
            let mut txn = self.db.begin_write()?;
            txn.set_quick_repair(true);
            if let Some(written) = self.write_rows(&txn, &mut rows)? {
                break (txn, written);
            }
            txn.commit()?;
        };
        let entries = self.write(&txn, &net)?;
        txn.commit()?;
        Ok(FoldDone { generation: self.segment.generation, entries, rows, row_bytes, recent: self.recent })
    }

    /// Writes the next slice of rows; `Some` says that it was the last, how many rows there were, and their bytes.
    fn write_rows(&mut self, txn: &WriteTransaction, rows: &mut RowFold) -> Result<Option<(u64, u64)>, StoreError> {
        let mut table = txn.open_table(META)?;
        let number = |key| Ok::<u64, StoreError>(table.get(key)?.map_or(0, |value| value.value()));
        let before = RowNumbers { next_run: number(meta::NEXT_RUN)?, clock: number(meta::ROW_CLOCK)? };
        let mut numbers = before;
        let mut tables = RunTables::open(txn)?;
        let mut written = None;
        if rows.step(&mut tables, &mut numbers, self.slice_bytes)? {
            let mut habits =
                FoldHabits { retention: &self.retention, filters: &self.filters, recent: &mut self.recent };
            written = Some(rows.finish(&mut tables, &mut numbers, &mut habits)?);
        }
        if numbers != before {
            table.insert(meta::NEXT_RUN, numbers.next_run)?;
            table.insert(meta::ROW_CLOCK, numbers.clock)?;
        }
        Ok(written)
    }

    fn write(&self, txn: &WriteTransaction, net: &Net) -> Result<u64, StoreError> {
        let mut numbers = txn.open_table(META)?;
        let next_body = numbers.get(meta::NEXT_BODY)?.map_or(0, |value| value.value());
        let next_session = numbers.get(meta::NEXT_SESSION)?.map_or(0, |value| value.value());
        let mut queues = Queues {
            segment: &self.segment,
            reader: SlotReader::default(),
            sessions: txn.open_table(SESSIONS)?,
            subscriptions: txn.open_table(SUBSCRIPTIONS)?,
            rows: txn.open_table(QUEUES)?,
            chunks: txn.open_table(CHUNKS)?,
            shared: HashMap::new(),
            released: vec![],
            chunk: vec![],
            entries: 0,
        };
        let mut bodies = Bodies { rows: txn.open_table(BODIES)?, refs: txn.open_table(BODY_REFS)? };
        let next_body = bodies.add(&self.segment, &self.slots, next_body, &mut queues.shared)?;

        let none = Answers::default();
        let mut sessions: Vec<(u64, &NetSession)> = net.sessions.iter().map(|(&no, session)| (no, session)).collect();
        sessions.sort_unstable_by_key(|&(no, _)| no);
        for (no, session) in sessions {
            let slots = self.slots.binary_search_by_key(&no, |slots| slots.session).ok().map(|at| &self.slots[at]);
            queues.fold(no, session, slots, self.answers.get(&no).unwrap_or(&none))?;
        }
        bodies.release(std::mem::take(&mut queues.released))?;

        upsert(&mut txn.open_table(RETAINED)?, &net.retained)?;
        upsert(&mut txn.open_table(WILLS)?, &net.wills)?;
        upsert(&mut txn.open_table(ACCOUNTS)?, &net.accounts)?;
        numbers.insert(meta::NEXT_BODY, next_body)?;
        numbers.insert(meta::NEXT_SESSION, next_session.max(net.next_session))?;
        numbers.insert(meta::FOLDED_GENERATION, u64::from(self.segment.generation))?;
        numbers.insert(meta::FOLDED_RECORD, self.segment.last)?;
        Ok(queues.entries)
    }
}

fn upsert(table: &mut Table<'_, &'static str, &'static [u8]>, changes: &Rows) -> Result<(), StoreError> {
    for (key, change) in changes {
        match change {
            Some(value) => drop(table.insert(key.as_str(), value.as_slice())?),
            None => drop(table.remove(key.as_str())?),
        }
    }
    Ok(())
}

/// The tables of sessions and their queues.
struct Queues<'t, 'a> {
    segment: &'a Segment,
    reader: SlotReader,
    sessions: Table<'t, u64, &'static [u8]>,
    subscriptions: Table<'t, (u64, &'static str), (u8, u32)>,
    rows: Table<'t, u64, &'static [u8]>,
    chunks: Table<'t, (u64, u64), &'static [u8]>,
    /// Offset of a fact with several recipients left -> number of its body.
    shared: HashMap<u32, u64>,
    /// Body numbers to which one reference less is left.
    released: Vec<u64>,
    chunk: Vec<u8>,
    entries: u64,
}

impl Queues<'_, '_> {
    fn fold(
        &mut self,
        no: u64,
        net: &NetSession,
        slots: Option<&FoldSlots>,
        answers: &Answers,
    ) -> Result<(), StoreError> {
        if net.ended {
            return self.end(no, slots);
        }
        if let Some(record) = &net.record {
            self.sessions.insert(no, record.as_slice())?;
        } else if self.sessions.get(no)?.is_none() {
            // Facts about a session that is gone.
            self.forget(slots);
            return Ok(());
        }
        for (filter, change) in &net.subscriptions {
            let filter = filter.as_str();
            match change {
                Some(value) => drop(self.subscriptions.insert((no, filter), *value)?),
                None => drop(self.subscriptions.remove((no, filter))?),
            }
        }
        let before = self.rows.get(no)?.map(|row| QueueRow::decode(row.value())).transpose()?;
        let mut row = before.clone().unwrap_or_default();
        self.answer(no, &mut row, answers)?;
        self.enqueue(no, &mut row, net.tail, slots)?;
        row.head = row.acked.skip(row.head);
        row.acked.remove(0, row.head);
        for &(id, is_there) in &net.inbound {
            match (row.inbound.binary_search(&id), is_there) {
                (Err(at), true) => row.inbound.insert(at, id),
                (Ok(at), false) => drop(row.inbound.remove(at)),
                _ => {}
            }
        }
        if before.as_ref() != Some(&row) {
            let mut bytes = vec![];
            row.encode(&mut bytes);
            self.rows.insert(no, bytes.as_slice())?;
        }
        Ok(())
    }

    /// Takes what was answered out of the chunks.
    fn answer(&mut self, no: u64, row: &mut QueueRow, answers: &Answers) -> Result<(), StoreError> {
        // Entries that stop being queued, whichever way: only they count, and have a body.
        let mut done = Ranges::default();
        for (start, end) in answers.acked.iter().chain(answers.received.iter()) {
            done.insert(start.max(row.head), end.min(row.tail));
        }
        for (start, end) in row.acked.iter().chain(row.received.iter()) {
            done.remove(start, end);
        }
        self.take_out(no, row, &done)?;
        for (start, end) in answers.received.iter() {
            row.received.insert(start.max(row.head), end.min(row.tail));
        }
        for (start, end) in answers.acked.iter() {
            row.acked.insert(start.max(row.head), end.min(row.tail));
        }
        for (start, end) in row.acked.iter() {
            row.received.remove(start, end);
        }
        Ok(())
    }

    /// Counts the entries in `done`, all queued until now, as no longer queued; removes chunks in which none is left.
    fn take_out(&mut self, no: u64, row: &mut QueueRow, done: &Ranges) -> Result<(), StoreError> {
        // Chunks with a key below are looked at already, each once and for all of `done`.
        let mut from = 0;
        for (start, end) in done.iter() {
            // The chunk that holds `start` may begin before it.
            let before = self.chunks.range((no, 0)..=(no, start))?.next_back().transpose()?;
            from = before.map_or(start, |(key, _)| key.value().1).max(from);
            loop {
                let found = self.chunks.range((no, from)..(no, end))?.next().transpose()?;
                let Some((key, value)) = found.map(|(key, value)| (key.value(), value)) else { break };
                let mut left = false;
                for entry in chunk_entries(value.value()) {
                    let (entry, _) = entry?;
                    if done.contains(entry.index) {
                        row.queued = row.queued.saturating_sub(1);
                        row.queued_bytes = row.queued_bytes.saturating_sub(entry.cost());
                        if let Body::Shared { number, .. } = entry.body {
                            self.released.push(number);
                        }
                    } else if !row.is_acked(entry.index) && !row.received.contains(entry.index) {
                        left = true;
                    }
                }
                drop(value);
                if !left {
                    self.chunks.remove(key)?;
                }
                from = key.1 + 1;
            }
        }
        Ok(())
    }

    /// Appends the entries of the segment that are not done; all others up to `tail` count as acknowledged.
    fn enqueue(&mut self, no: u64, row: &mut QueueRow, tail: u64, slots: Option<&FoldSlots>) -> Result<(), StoreError> {
        row.acked.insert(row.tail, tail);
        row.tail = row.tail.max(tail);
        let Some(slots) = slots else { return Ok(()) };
        // A run of entries that are not done.
        let mut run = (slots.base, slots.base);
        let mut first = 0;
        let mut rest = slots.slots.iter().skip(1);
        for (index, &slot) in (slots.base..).zip(&slots.slots) {
            let next = rest.next().copied();
            if slot.state() == QueueState::Acked {
                row.acked.remove(run.0, run.1);
                run = (index + 1, index + 1);
                continue;
            }
            run.1 = index + 1;
            if slot.state() == QueueState::Received {
                row.received.insert(index, index + 1);
                continue;
            }
            let shared = self.shared_body(slot);
            let (to, message) = self.reader.read(self.segment, slot, next)?;
            let cost = message.cost() as u64;
            let body = match shared {
                Some(number) => Body::Shared { number, cost },
                None => Body::Inline(message),
            };
            let entry =
                ChunkEntry { index, qos: to.qos, retain: to.retain, subscription_ids: to.subscription_ids, body };
            row.queued += 1;
            row.queued_bytes += cost;
            self.entries += 1;
            let len = self.chunk.len();
            entry.encode(&mut self.chunk);
            if len == 0 {
                first = index;
            } else if self.chunk.len() > CHUNK_BYTES {
                self.chunks.insert((no, first), &self.chunk[..len])?;
                self.chunk.drain(..len);
                first = index;
            }
        }
        row.acked.remove(run.0, run.1);
        if !self.chunk.is_empty() {
            self.chunks.insert((no, first), self.chunk.as_slice())?;
            self.chunk.clear();
        }
        Ok(())
    }

    fn shared_body(&self, slot: Slot) -> Option<u64> {
        if slot.shared() { self.shared.get(&slot.fact()).copied() } else { None }
    }

    /// Removes everything of a session that ended.
    fn end(&mut self, no: u64, slots: Option<&FoldSlots>) -> Result<(), StoreError> {
        self.sessions.remove(no)?;
        self.rows_of_queue(no)?;
        let mut filters = vec![];
        for row in self.subscriptions.range((no, "")..)? {
            let (key, _) = row?;
            let (session, filter) = key.value();
            if session != no {
                break;
            }
            filters.push(filter.to_owned());
        }
        for filter in filters {
            self.subscriptions.remove((no, filter.as_str()))?;
        }
        self.forget(slots);
        Ok(())
    }

    fn rows_of_queue(&mut self, no: u64) -> Result<(), StoreError> {
        let Some(row) = self.rows.remove(no)?.map(|row| QueueRow::decode(row.value())).transpose()? else {
            return Ok(());
        };
        loop {
            let found = self.chunks.range((no, 0)..=(no, u64::MAX))?.next().transpose()?;
            let Some((key, value)) = found.map(|(key, value)| (key.value(), value)) else { return Ok(()) };
            for entry in chunk_entries(value.value()) {
                let (entry, _) = entry?;
                if let Body::Shared { number, .. } = entry.body
                    && !row.is_acked(entry.index)
                    && !row.received.contains(entry.index)
                {
                    self.released.push(number);
                }
            }
            drop(value);
            self.chunks.remove(key)?;
        }
    }

    /// Gives up the references that were counted for entries which are not written after all.
    fn forget(&mut self, slots: Option<&FoldSlots>) {
        let slots = slots.map_or(&[][..], |slots| &slots.slots);
        let numbers = slots.iter().filter(|slot| slot.state() == QueueState::Queued);
        let numbers: Vec<u64> = numbers.filter_map(|&slot| self.shared_body(slot)).collect();
        self.released.extend(numbers);
    }
}

/// The tables of messages that several queues refer to.
struct Bodies<'t> {
    rows: Table<'t, u64, &'static [u8]>,
    refs: Table<'t, u64, u64>,
}

impl Bodies<'_> {
    /// Stores the messages of the segment that more than one entry still wants, numbered from `next`; notes the
    /// number of each in `shared`. Returns the next free number.
    fn add(
        &mut self,
        segment: &Segment,
        slots: &[FoldSlots],
        mut next: u64,
        shared: &mut HashMap<u32, u64>,
    ) -> Result<u64, StoreError> {
        let mut wanted: HashMap<u32, (Slot, u64)> = HashMap::new();
        for &slot in slots.iter().flat_map(|slots| &slots.slots) {
            if slot.shared() && slot.state() == QueueState::Queued {
                wanted.entry(slot.fact()).or_insert((slot, 0)).1 += 1;
            }
        }
        let mut wanted: Vec<(Slot, u64)> = wanted.into_values().filter(|&(_, refs)| refs > 1).collect();
        wanted.sort_unstable_by_key(|&(slot, _)| slot.fact());
        let mut reader = SlotReader::default();
        let (mut row, mut first, mut row_refs) = (vec![], next, 0);
        for (slot, refs) in wanted {
            let len = row.len();
            reader.message(segment, slot)?.encode(&mut row);
            if len > 0 && row.len() > CHUNK_BYTES {
                self.rows.insert(first, &row[..len])?;
                self.refs.insert(first, row_refs)?;
                row.drain(..len);
                (first, row_refs) = (next, 0);
            }
            row_refs += refs;
            shared.insert(slot.fact(), next);
            next += 1;
        }
        if !row.is_empty() {
            self.rows.insert(first, row.as_slice())?;
            self.refs.insert(first, row_refs)?;
        }
        Ok(next)
    }

    /// Takes one reference back for each number given, and removes rows to which none is left.
    fn release(&mut self, mut numbers: Vec<u64>) -> Result<(), StoreError> {
        numbers.sort_unstable();
        let mut rest = numbers.as_slice();
        while let Some(&number) = rest.first() {
            let found = self.refs.range(..=number)?.next_back().transpose()?;
            let Some((first, refs)) = found.map(|(key, value)| (key.value(), value.value())) else {
                return Err(StoreError::Inconsistent { what: "a queue entry refers to a message that is not there" });
            };
            let next = self.refs.range(number + 1..)?.next().transpose()?.map_or(u64::MAX, |(key, _)| key.value());
            let count = rest.partition_point(|&number| number < next);
            rest = &rest[count..];
            match refs.checked_sub(count as u64) {
                None => return Err(StoreError::Inconsistent { what: "a message has fewer references than entries" }),
                Some(0) => {
                    self.refs.remove(first)?;
                    self.rows.remove(first)?;
                }
                Some(left) => drop(self.refs.insert(first, left)?),
            }
        }
        Ok(())
    }
}
