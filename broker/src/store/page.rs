//! Reading queued messages back: first from the index, then from the journal's files.

use parlor_core::store::bytes::{DecodeError, Reader};
use parlor_core::store::{Load, MessageRef, Page, PageEntry, QueueIndex, QueueState, Recipient};
use redb::{AccessGuard, Database, ReadOnlyTable, ReadableDatabase};

use super::StoreError;
use super::journal::{Journal, Segment};
use super::schema::{BODIES, Body, CHUNKS, QUEUES, QueueRow, chunk_entries};
use super::tail::{SessionTail, Slot, Tail};
use super::window::{FAR_BYTES, NEAR_BYTES, NEAR_GAP, Window};

/// Answers `load`.
pub(super) fn load(db: &Database, tail: &Tail, journal: &Journal, load: &Load) -> Result<Page, StoreError> {
    let mut filling = Filling::new(load);
    let session = tail.session(load.session.0);
    let until = load.until.0;
    let folded = session.map_or(until, |session| session.folded.min(until));
    if load.from.0 < folded {
        from_index(db, session, load.session.0, load.from.0, folded, &mut filling)?;
    }
    if let Some(session) = session
        && !filling.is_full()
    {
        from_journal(journal, session, load.from.0, until, &mut filling)?;
    }
    Ok(filling.page)
}

/// The page being made.
struct Filling {
    page: Page,
    cost: usize,
    max_entries: u32,
    max_cost: usize,
    stopped: bool,
}

impl Filling {
    fn new(load: &Load) -> Self {
        let page = Page { session: load.session, from: load.from, next: load.until, bytes: vec![], entries: 0 };
        Self { page, cost: 0, max_entries: load.max_entries, max_cost: load.max_bytes as usize, stopped: false }
    }

    fn is_full(&self) -> bool {
        self.stopped
    }

    /// Takes account of the entry at `index`; false: no more goes in, and the page ends before it.
    fn admit(&mut self, index: u64, cost: usize) -> bool {
        if self.page.entries >= self.max_entries || self.cost >= self.max_cost {
            self.page.next = QueueIndex(index);
            self.stopped = true;
            return false;
        }
        self.page.entries += 1;
        self.cost += cost;
        true
    }

    /// Adds an entry of which only PUBREL is owed.
    fn received(&mut self, index: u64) -> bool {
        let admitted = self.admit(index, 0);
        if admitted {
            let message = MessageRef { topic: "", properties: &[], payload: &[], expires_at_ms: 0 };
            let index = QueueIndex(index);
            PageEntry { index, qos: 2, retain: false, received: true, subscription_ids: &[], message }
                .encode(&mut self.page.bytes);
        }
        admitted
    }
}

fn from_index(
    db: &Database,
    session: Option<&SessionTail>,
    no: u64,
    from: u64,
    until: u64,
    filling: &mut Filling,
) -> Result<(), StoreError> {
    let txn = db.begin_read()?;
    let Some(row) = txn.open_table(QUEUES)?.get(no)?.map(|row| QueueRow::decode(row.value())).transpose()? else {
        return Ok(());
    };
    let from = row.acked.skip(from.max(row.head));
    let until = until.min(row.tail);
    let is_acked = |index| row.is_acked(index) || session.is_some_and(|session| session.is_acked(index));
    let is_received = |index| row.received.contains(index) || session.is_some_and(|s| s.is_received(index));
    // Received entries have no row; they are few, at most one a packet identifier.
    let mut received: Vec<u64> = row.received.indexes().collect();
    if let Some(session) = session {
        received.extend(session.answers.received.indexes().chain(session.folding.received.indexes()));
    }
    received.sort_unstable();
    received.dedup();
    received.retain(|&index| (from..until).contains(&index) && !is_acked(index));
    let mut received = received.into_iter().peekable();

    let chunks = txn.open_table(CHUNKS)?;
    let mut bodies = None;
    let first = chunks.range((no, 0)..=(no, from))?.next_back().transpose()?.map_or(from, |(key, _)| key.value().1);
    for chunk in chunks.range((no, first)..(no, until))? {
        let (_, value) = chunk?;
        for entry in chunk_entries(value.value()) {
            let (entry, bytes) = entry?;
            let index = entry.index;
            if index < from || is_acked(index) || is_received(index) {
                continue;
            }
            if index >= until {
                break;
            }
            while let Some(before) = received.next_if(|&before| before < index) {
                if !filling.received(before) {
                    return Ok(());
                }
            }
            if !filling.admit(index, usize::try_from(entry.cost()).unwrap_or(usize::MAX)) {
                return Ok(());
            }
            match entry.body {
                Body::Inline(_) => filling.page.bytes.extend_from_slice(bytes),
                Body::Shared { number, .. } => {
                    if bodies.is_none() {
                        bodies = Some(SharedBodies { rows: txn.open_table(BODIES)?, row: None });
                    }
                    let Some(bodies) = &mut bodies else { continue };
                    let message = bodies.message(number)?;
                    PageEntry {
                        index: QueueIndex(index),
                        qos: entry.qos,
                        retain: entry.retain,
                        received: false,
                        subscription_ids: entry.subscription_ids,
                        message,
                    }
                    .encode(&mut filling.page.bytes);
                }
            }
        }
    }
    for index in received {
        if !filling.received(index) {
            break;
        }
    }
    Ok(())
}

/// Reads shared messages; remembers the row and place of the last, as the next is usually behind it.
struct SharedBodies {
    rows: ReadOnlyTable<u64, &'static [u8]>,
    row: Option<BodyRow>,
}

struct BodyRow {
    bytes: AccessGuard<'static, &'static [u8]>,
    /// Number of the message at `at`.
    next: u64,
    at: usize,
}

impl SharedBodies {
    fn message(&mut self, number: u64) -> Result<MessageRef<'_>, StoreError> {
        const MISSING: StoreError =
            StoreError::Inconsistent { what: "a queue entry refers to a message that is not there" };
        let is_ahead = self.row.as_ref().is_some_and(|row| row.next <= number && row.at < row.bytes.value().len());
        if !is_ahead || !self.skip_to(number)? {
            let (key, bytes) = self.rows.range(..=number)?.next_back().transpose()?.ok_or(MISSING)?;
            self.row = Some(BodyRow { bytes, next: key.value(), at: 0 });
            if !self.skip_to(number)? {
                return Err(MISSING);
            }
        }
        let row = self.row.as_mut().ok_or(MISSING)?;
        let mut r = Reader::new(row.bytes.value().get(row.at..).ok_or(DecodeError::Truncated)?);
        let message = MessageRef::read(&mut r)?;
        row.next += 1;
        row.at += r.used();
        Ok(message)
    }

    /// Moves on to `number`; false when the row ends before it.
    fn skip_to(&mut self, number: u64) -> Result<bool, StoreError> {
        let Some(row) = &mut self.row else { return Ok(false) };
        let bytes = row.bytes.value();
        let mut r = Reader::new(bytes.get(row.at..).ok_or(DecodeError::Truncated)?);
        while row.next < number && row.at + r.used() < bytes.len() {
            MessageRef::read(&mut r)?;
            row.next += 1;
        }
        row.at += r.used();
        Ok(row.next == number && row.at < bytes.len())
    }
}

fn from_journal(
    journal: &Journal,
    session: &SessionTail,
    from: u64,
    until: u64,
    filling: &mut Filling,
) -> Result<(), StoreError> {
    let skip = usize::try_from(from.saturating_sub(session.base)).unwrap_or(usize::MAX);
    let mut reader = SlotReader::default();
    let mut slots = (session.base..until).zip(session.slots.iter()).skip(skip).peekable();
    while let Some((index, &slot)) = slots.next() {
        match slot.state() {
            QueueState::Acked => continue,
            QueueState::Received => {
                if !filling.received(index) {
                    return Ok(());
                }
                continue;
            }
            QueueState::Queued => {}
        }
        if filling.page.entries >= filling.max_entries || filling.cost >= filling.max_cost {
            filling.admit(index, 0);
            return Ok(());
        }
        let Some(segment) = journal.segment(slot.generation) else {
            return Err(StoreError::Inconsistent { what: "a queue entry refers to a journal segment that is gone" });
        };
        let (to, message) = reader.read(segment, slot, slots.peek().map(|next| *next.1))?;
        filling.admit(index, message.cost());
        PageEntry {
            index: QueueIndex(index),
            qos: to.qos,
            retain: to.retain,
            received: false,
            subscription_ids: to.subscription_ids,
            message,
        }
        .encode(&mut filling.page.bytes);
    }
    Ok(())
}

/// Reads entries out of segments.
#[derive(Debug, Default)]
pub(super) struct SlotReader {
    messages: Window,
    /// Only used when a message and its recipient do not fit in one window.
    recipients: Window,
}

impl SlotReader {
    /// The entry at `slot` of `segment`; `next`, if known, says what is read after it.
    pub(super) fn read(
        &mut self,
        segment: &Segment,
        slot: Slot,
        next: Option<Slot>,
    ) -> Result<(Recipient<'_>, MessageRef<'_>), StoreError> {
        let near = next.is_some_and(|next| {
            next.generation == slot.generation && next.fact().saturating_sub(slot.fact()) < NEAR_GAP
        });
        self.bring_message(segment, slot, if near { NEAR_BYTES } else { FAR_BYTES })?;
        let is_together = recipient(&self.messages, slot).is_ok();
        if !is_together {
            self.recipients.bring(segment, slot.recipient, FAR_BYTES, |r| Recipient::read(r).map(drop))?;
        }
        let to = recipient(if is_together { &self.messages } else { &self.recipients }, slot)?;
        Ok((to, message(&self.messages, slot)?))
    }

    /// The message at `slot` alone.
    pub(super) fn message(&mut self, segment: &Segment, slot: Slot) -> Result<MessageRef<'_>, StoreError> {
        self.bring_message(segment, slot, FAR_BYTES)?;
        Ok(message(&self.messages, slot)?)
    }

    fn bring_message(&mut self, segment: &Segment, slot: Slot, ahead: usize) -> Result<(), StoreError> {
        self.messages.bring(segment, slot.fact(), ahead, |r| read_message(r).map(drop))
    }
}

fn read_message<'a>(r: &mut Reader<'a>) -> Result<MessageRef<'a>, DecodeError> {
    // The fact's tag, which was looked at when the slot was noted.
    r.byte()?;
    MessageRef::read(r)
}

fn message(window: &Window, slot: Slot) -> Result<MessageRef<'_>, DecodeError> {
    read_message(&mut window.reader(slot.generation, slot.fact())?)
}

fn recipient(window: &Window, slot: Slot) -> Result<Recipient<'_>, DecodeError> {
    Recipient::read(&mut window.reader(slot.generation, slot.recipient)?)
}
