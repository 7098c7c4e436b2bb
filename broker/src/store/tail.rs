//! The index of what is in the journal and not yet folded: where each queued entry's bytes are, and which folded
//! entries were answered since.

// Offsets and lengths within a segment are at most `MAX_OFFSET`, 29 bits, so no cast of one cuts anything off.
#![allow(clippy::cast_possible_truncation)]

use std::collections::{HashMap, VecDeque};

use parlor_core::store::bytes::DecodeError;
use parlor_core::store::{Fact, FactIter, QueueState};

use super::ranges::Ranges;
use super::rows::RowTail;

/// The highest offset a slot can hold; a segment never grows beyond it.
pub(super) const MAX_OFFSET: u32 = (1 << 29) - 1;

const STATE_SHIFT: u32 = 30;
const SHARED: u32 = 1 << 29;

/// Where one queue entry is: 12 bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Slot {
    /// Which segment.
    pub(super) generation: u32,
    /// Two bits of state, one bit "has several recipients", 29 bits of the fact's offset in the segment.
    fact: u32,
    /// Offset of the recipient in the segment.
    pub(super) recipient: u32,
}

impl Slot {
    fn new(generation: u32, fact: u32, recipient: u32, shared: bool) -> Self {
        Self { generation, fact: fact | if shared { SHARED } else { 0 }, recipient }
    }

    pub(super) fn fact(self) -> u32 {
        self.fact & MAX_OFFSET
    }

    pub(super) fn shared(self) -> bool {
        self.fact & SHARED != 0
    }

    pub(super) fn state(self) -> QueueState {
        match self.fact >> STATE_SHIFT {
            0 => QueueState::Queued,
            1 => QueueState::Received,
            _ => QueueState::Acked,
        }
    }

    fn set(&mut self, state: QueueState) {
        // Acknowledged is the end: nothing leads out of it.
        if state > self.state() {
            self.fact = self.fact & !(3 << STATE_SHIFT) | (state as u32) << STATE_SHIFT;
        }
    }
}

/// Answers to entries that are in the index already.
#[derive(Debug, Clone, Default)]
pub(super) struct Answers {
    pub(super) acked: Ranges,
    pub(super) received: Ranges,
}

impl Answers {
    fn note(&mut self, index: u64, state: QueueState) {
        let set = if state == QueueState::Acked { &mut self.acked } else { &mut self.received };
        set.insert(index, index + 1);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.acked.is_empty() && self.received.is_empty()
    }
}

/// What one session has outside the index.
#[derive(Debug)]
pub(super) struct SessionTail {
    /// Entries below are in the index or done; `u64::MAX`: all of them.
    pub(super) folded: u64,
    /// Queue index of `slots[0]`; those between `folded` and it are done.
    pub(super) base: u64,
    pub(super) slots: VecDeque<Slot>,
    /// Answers since the last fold began.
    pub(super) answers: Answers,
    /// Answers that the fold under way writes.
    pub(super) folding: Answers,
}

impl SessionTail {
    fn new() -> Self {
        Self {
            folded: u64::MAX,
            base: 0,
            slots: VecDeque::new(),
            answers: Answers::default(),
            folding: Answers::default(),
        }
    }

    fn is_idle(&self) -> bool {
        self.slots.is_empty() && self.answers.is_empty() && self.folding.is_empty()
    }

    fn push(&mut self, index: u64, slot: Slot) {
        if self.folded == u64::MAX {
            self.folded = index;
            self.base = index;
        }
        if self.slots.is_empty() {
            self.base = index;
        }
        // Indexes are dense, so nothing is ever missing; if something were, it would count as done.
        while self.base + (self.slots.len() as u64) < index {
            let mut hole = slot;
            hole.set(QueueState::Acked);
            self.slots.push_back(hole);
        }
        if self.base + self.slots.len() as u64 == index {
            self.slots.push_back(slot);
        }
    }

    fn answer(&mut self, index: u64, state: QueueState, folding: Option<u32>) {
        if index < self.folded {
            self.answers.note(index, state);
            return;
        }
        let Some(at) = index.checked_sub(self.base).and_then(|at| usize::try_from(at).ok()) else { return };
        if let Some(slot) = self.slots.get_mut(at) {
            slot.set(state);
            // The fold under way took the slot as it was before, so the next one must hear of it.
            if Some(slot.generation) == folding {
                self.answers.note(index, state);
            }
        }
        self.drop_done();
    }

    fn drop_done(&mut self) {
        while self.slots.front().is_some_and(|slot| slot.state() == QueueState::Acked) {
            self.slots.pop_front();
            self.base += 1;
        }
        // A long queue that drained must not keep its memory.
        if self.slots.capacity() > 64 && self.slots.len() * 4 < self.slots.capacity() {
            self.slots.shrink_to(self.slots.len() * 2);
        }
    }

    /// True when an index below `folded` is known to be done since it was folded.
    pub(super) fn is_acked(&self, index: u64) -> bool {
        self.answers.acked.contains(index) || self.folding.acked.contains(index)
    }

    pub(super) fn is_received(&self, index: u64) -> bool {
        self.answers.received.contains(index) || self.folding.received.contains(index)
    }
}

/// What a fold is to write of one session's entries.
#[derive(Debug)]
pub(super) struct FoldSlots {
    pub(super) session: u64,
    pub(super) base: u64,
    pub(super) slots: Vec<Slot>,
}

/// All sessions that have something outside the index.
#[derive(Debug, Default)]
pub(super) struct Tail {
    sessions: HashMap<u64, SessionTail>,
    entries: usize,
    /// The segment being folded.
    folding: Option<u32>,
    /// Rows that are only in the journal.
    pub(super) rows: RowTail,
}

impl Tail {
    pub(super) fn session(&self, no: u64) -> Option<&SessionTail> {
        self.sessions.get(&no)
    }

    /// How many slots are held.
    pub(super) fn entries(&self) -> usize {
        self.entries
    }

    /// Notes the facts in `body`, which begins at `offset` of the segment; returns how many they are.
    pub(super) fn apply(&mut self, body: &[u8], generation: u32, offset: u32) -> Result<u64, DecodeError> {
        let mut facts = FactIter::new(body);
        let mut at = offset;
        let mut count = 0;
        while let Some(fact) = facts.next() {
            let fact = fact?;
            let end = offset + (body.len() - facts.rest().len()) as u32;
            count += 1;
            match fact {
                Fact::Enqueue { recipients, .. } => {
                    // The list of recipients is the last field of the fact.
                    let list = end - recipients.bytes.len() as u32;
                    let mut iter = recipients.iter();
                    let mut recipient_at = list;
                    while let Some(to) = iter.next() {
                        let slot = Slot::new(generation, at, recipient_at, recipients.count > 1);
                        recipient_at = list + iter.used() as u32;
                        let session = self.sessions.entry(to.session.0).or_insert_with(SessionTail::new);
                        let before = session.slots.len();
                        session.push(to.index.0, slot);
                        self.entries += session.slots.len() - before;
                    }
                }
                Fact::Acked { no, index } => self.answer(no.0, index.0, QueueState::Acked),
                Fact::Received { no, index } => self.answer(no.0, index.0, QueueState::Received),
                Fact::SessionEnd { no } => {
                    if let Some(session) = self.sessions.remove(&no.0) {
                        self.entries -= session.slots.len();
                    }
                }
                fact => self.rows.apply(generation, at, &fact),
            }
            at = end;
        }
        Ok(count)
    }

    fn answer(&mut self, no: u64, index: u64, state: QueueState) {
        let session = self.sessions.entry(no).or_insert_with(SessionTail::new);
        let before = session.slots.len();
        session.answer(index, state, self.folding);
        self.entries -= before - session.slots.len();
    }

    /// Hands the fold of `generation` the slots that are in it, and every answer known by now.
    pub(super) fn begin_fold(&mut self, generation: u32) -> (Vec<FoldSlots>, HashMap<u64, Answers>) {
        self.folding = Some(generation);
        let mut all = vec![];
        let mut answers = HashMap::new();
        for (&no, session) in &mut self.sessions {
            debug_assert!(session.folding.is_empty(), "one fold at a time");
            session.folding = std::mem::take(&mut session.answers);
            if !session.folding.is_empty() {
                answers.insert(no, session.folding.clone());
            }
            let slots: Vec<Slot> =
                session.slots.iter().take_while(|slot| slot.generation == generation).copied().collect();
            if !slots.is_empty() {
                all.push(FoldSlots { session: no, base: session.base, slots });
            }
        }
        all.sort_unstable_by_key(|slots| slots.session);
        (all, answers)
    }

    /// Forgets what the fold of `generation` wrote.
    pub(super) fn finish_fold(&mut self, generation: u32) {
        self.folding = None;
        self.rows.finish_fold(generation);
        let entries = &mut self.entries;
        self.sessions.retain(|_, session| {
            session.folding = Answers::default();
            while session.slots.front().is_some_and(|slot| slot.generation == generation) {
                session.slots.pop_front();
                session.base += 1;
                *entries -= 1;
            }
            // What is done already was popped without a trace, so the next slot is where the journal begins.
            let before = session.slots.len();
            session.drop_done();
            *entries -= before - session.slots.len();
            session.folded = if session.slots.is_empty() { u64::MAX } else { session.base };
            !session.is_idle()
        });
        if self.sessions.capacity() > 64 && self.sessions.len() * 4 < self.sessions.capacity() {
            self.sessions.shrink_to(self.sessions.len() * 2);
        }
    }
}
