//! One conversation: its messages in order, what is missing of it, and who has read how far.

use super::limits::{GROUP_MARKS_MAX, MESSAGES_MAX, PULLS_MAX};
use super::wire::{Last, Message, Receipt, Refusal, Summary};
use std::collections::{BTreeMap, VecDeque};

#[cfg(test)]
mod tests;

/// A message that the broker has not taken yet, or has refused.
#[derive(Debug, Clone, PartialEq)]
pub struct Unsent {
    /// Its client id.
    pub id: String,
    /// What it says; without seq, and with the time at which it was written.
    pub message: Message,
    /// Why it will not be sent.
    pub refused: Option<Refusal>,
}

/// How far a message of one's own has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tick {
    /// On the broker's disk.
    Accepted,
    /// On a terminal of the peer; in a group: on one of everybody.
    Delivered,
    /// Read; in a group: by everybody.
    Read,
}

/// What a new message was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arrival {
    /// Here already.
    Known,
    /// New, and nothing is missing before it.
    Next,
    /// New, but something before it is missing: pull what comes after this seq.
    Missing { after: u64 },
}

/// What is being pulled to fill a gap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Pull {
    after: u64,
    /// The least seq that fills it.
    until: u64,
    pages: u32,
}

/// One conversation.
#[derive(Debug, Clone, Default)]
pub struct Conversation {
    /// `direct`, `group`, `channel`, `room`; empty while unknown.
    pub kind: String,
    /// Its name for people; empty: its address.
    pub name: String,
    /// Whether it makes no sound.
    pub muted: bool,
    /// Unread messages.
    pub unread: u64,
    /// Own mark: read up to here.
    pub read: u64,
    /// Who types at the moment, and until when that is shown.
    pub typing: BTreeMap<String, u64>,
    /// Messages by seq.
    messages: BTreeMap<u64, Message>,
    /// Not yet taken by the broker, oldest first.
    unsent: VecDeque<Unsent>,
    /// Everything up to here that is for this account has been seen; `None` before the first message.
    have: Option<u64>,
    pull: Option<Pull>,
    /// A page of older messages was asked for.
    pub(super) asked_older: bool,
    /// There is nothing older.
    at_start: bool,
    peer_recv: u64,
    peer_read: u64,
    /// Groups: counts by seq.
    counts: BTreeMap<u64, Receipt>,
    last: Option<Last>,
    seq: u64,
    /// The broker's count of unread messages includes everything up to here.
    counted: u64,
}

impl Conversation {
    /// Messages, oldest first.
    pub fn messages(&self) -> impl DoubleEndedIterator<Item = &Message> {
        self.messages.values()
    }

    /// One message.
    pub fn message(&self, seq: u64) -> Option<&Message> {
        self.messages.get(&seq)
    }

    /// What the broker has not taken yet, or has refused; oldest first.
    pub fn unsent(&self) -> impl DoubleEndedIterator<Item = &Unsent> {
        self.unsent.iter()
    }

    /// Its last seq, as far as known.
    pub fn last_seq(&self) -> u64 {
        self.seq.max(self.messages.last_key_value().map_or(0, |(seq, _)| *seq))
    }

    /// When something was said last; 0: never.
    pub fn last_ts(&self) -> u64 {
        let said = self.messages.last_key_value().map_or(0, |(_, message)| message.ts);
        let unsent = self.unsent.back().map_or(0, |unsent| unsent.message.ts);
        said.max(unsent).max(self.last.as_ref().map_or(0, |last| last.ts))
    }

    /// Whether its first message is here, or nothing older can be had.
    pub fn is_at_start(&self) -> bool {
        self.at_start || self.messages.contains_key(&1)
    }

    /// How far an own message has come.
    pub fn tick(&self, seq: u64) -> Tick {
        // Marks are cumulative, so what is said of a later message is true of this one.
        let count = |value: fn(&Receipt) -> u64| {
            self.counts.range(seq..).any(|(_, counts)| counts.of.is_some_and(|of| of > 0 && value(counts) >= of))
        };
        if seq <= self.peer_read || count(|counts| counts.read) {
            Tick::Read
        } else if seq <= self.peer_recv || count(|counts| counts.recv) {
            Tick::Delivered
        } else {
            Tick::Accepted
        }
    }

    /// Groups: how many have an own message, and how many have read it, of how many.
    pub fn counts(&self, seq: u64) -> Option<(u64, u64, u64)> {
        let later = || self.counts.range(seq..).map(|(_, counts)| counts);
        let of = later().filter_map(|counts| counts.of).next_back()?;
        Some((later().map(|c| c.recv).max()?, later().map(|c| c.read).max()?, of))
    }

    /// The newest message of somebody else that is here: what a read receipt names.
    pub fn newest_seq_of_others(&self, me: &str) -> Option<u64> {
        self.messages.values().rev().find(|message| message.from != me).map(|message| message.seq)
    }

    /// Takes a message in.
    pub(super) fn add(&mut self, message: Message, me: &str, volatile: bool) -> Arrival {
        if volatile {
            return self.add_volatile(message, me);
        }
        let seq = message.seq;
        if self.have.is_some_and(|have| seq <= have) {
            return Arrival::Known;
        }
        let (prev, known) = (message.prev, self.messages.contains_key(&seq));
        self.typing.remove(&message.from);
        if !known && !message.backfill && seq > self.read.max(self.counted) && message.counts(me) {
            self.unread += 1;
        }
        self.put(message);
        let Some(have) = self.have else {
            // The first message says where this terminal begins; what is older is pulled when one scrolls there.
            self.have = Some(seq);
            self.advance();
            return if known { Arrival::Known } else { Arrival::Next };
        };
        // Own messages come without `prev`: seq is dense, so the one before it is what must be here.
        if prev.unwrap_or(seq.saturating_sub(1)) <= have {
            self.have = Some(seq);
            self.advance();
            return if known { Arrival::Known } else { Arrival::Next };
        }
        let until = prev.unwrap_or(seq.saturating_sub(1));
        match &mut self.pull {
            Some(pull) => {
                pull.until = pull.until.max(until);
                if known { Arrival::Known } else { Arrival::Next }
            }
            None => {
                self.pull = Some(Pull { after: have, until, pages: 0 });
                Arrival::Missing { after: have }
            }
        }
    }

    /// A room's numbers begin anew with the room, and nothing can be pulled.
    fn add_volatile(&mut self, message: Message, me: &str) -> Arrival {
        if self.messages.get(&message.seq).is_some_and(|known| known.ts == message.ts && known.from == message.from) {
            return Arrival::Known;
        }
        if self.have.is_some_and(|have| message.seq <= have) {
            self.messages.clear();
        }
        if message.counts(me) {
            self.unread += 1;
        }
        self.have = Some(message.seq);
        self.typing.remove(&message.from);
        self.put(message);
        Arrival::Next
    }

    /// Whether a message that was pulled is not here yet, and is worth telling.
    pub(super) fn lacks(&self, message: &Message) -> bool {
        let is_missing = self.have.is_none_or(|have| message.seq > have);
        is_missing && !message.gone && !self.messages.contains_key(&message.seq)
    }

    /// Takes what was pulled; the seq after which the next page must be asked for, where one is missing.
    pub(super) fn add_pulled(&mut self, messages: Vec<Message>, more: bool) -> Option<u64> {
        let newest = messages.iter().map(|message| message.seq).max();
        for message in messages {
            self.put(message);
        }
        if self.have.is_none() {
            self.have = newest;
        }
        if let Some(mut pull) = self.pull.take() {
            pull.pages += 1;
            let reached = newest.unwrap_or(pull.until).max(pull.after);
            if more && reached < pull.until && pull.pages < PULLS_MAX {
                pull.after = reached;
                self.pull = Some(pull);
                self.have = self.have.max(Some(reached));
                return Some(reached);
            }
            // What the broker did not give is expired or cleared: it will never come.
            self.have = self.have.max(Some(pull.until));
        }
        self.advance();
        None
    }

    /// Takes a page of older messages.
    pub(super) fn add_older(&mut self, messages: Vec<Message>, more: bool) {
        self.asked_older = false;
        self.at_start = !more;
        let newest = messages.iter().map(|message| message.seq).max();
        for message in messages {
            self.put(message);
        }
        if self.have.is_none() {
            self.have = newest;
            self.advance();
        }
    }

    /// The connection is gone: answers to what was asked do not come. Returns the seq to pull after, later.
    pub(super) fn interrupt(&mut self) {
        self.asked_older = false;
        self.typing.clear();
        if let Some(pull) = &mut self.pull {
            pull.pages = 0;
        }
    }

    /// The gap that is still open: pull after this seq.
    pub(super) fn gap(&self) -> Option<u64> {
        self.pull.map(|pull| pull.after)
    }

    /// Whether something before the newest message is missing at the moment.
    #[cfg(test)]
    pub fn is_incomplete(&self) -> bool {
        self.pull.is_some()
    }

    /// The oldest seq that is here.
    pub(super) fn oldest_seq(&self) -> Option<u64> {
        self.messages.first_key_value().map(|(seq, _)| *seq)
    }

    /// Puts a message in its place. A message with more to say replaces one with less, never the other way round.
    fn put(&mut self, message: Message) {
        if let Some(id) = &message.id {
            // What comes back with its seq waits no longer.
            self.unsent.retain(|unsent| unsent.id != *id);
        }
        let is_older = |known: &Message| known.gone || known.edited_ts > message.edited_ts;
        let newer = !self.messages.get(&message.seq).is_some_and(is_older);
        if newer {
            self.messages.insert(message.seq, message);
        }
        while self.messages.len() > MESSAGES_MAX {
            self.messages.pop_first();
            self.at_start = false;
        }
    }

    /// Goes on through what has come out of order.
    fn advance(&mut self) {
        let Some(mut have) = self.have else { return };
        for (seq, message) in self.messages.range(have + 1..) {
            if message.prev.unwrap_or(seq.saturating_sub(1)) > have {
                break;
            }
            have = *seq;
        }
        self.have = Some(have);
    }

    /// An own message has been taken by the broker. It moves nothing: others may have come before it.
    pub(super) fn accept(&mut self, id: &str, seq: u64) {
        let Some(at) = self.unsent.iter().position(|unsent| unsent.id == id) else { return };
        let Some(unsent) = self.unsent.remove(at) else { return };
        self.messages.entry(seq).or_insert(Message { seq, ..unsent.message });
    }

    /// An own message is written.
    pub(super) fn write(&mut self, unsent: Unsent) {
        self.unsent.push_back(unsent);
        while self.unsent.len() > super::limits::OUTBOX_MAX {
            self.unsent.pop_front();
        }
    }

    /// An own message was never published.
    pub(super) fn forget(&mut self, id: &str) {
        self.unsent.retain(|unsent| unsent.id != id);
    }

    /// An own message was refused.
    pub(super) fn refuse(&mut self, refusal: &Refusal) -> bool {
        let mine = |unsent: &&mut Unsent| refusal.id.as_deref() == Some(unsent.id.as_str());
        let Some(unsent) = self.unsent.iter_mut().find(mine) else { return false };
        unsent.refused = Some(refusal.clone());
        true
    }

    /// A message was wiped.
    pub(super) fn recall(&mut self, seq: u64, me: &str) {
        let Some(message) = self.messages.get_mut(&seq) else { return };
        if seq > self.read && message.counts(me) {
            self.unread = self.unread.saturating_sub(1);
        }
        let (from, ts, prev, pos) = (std::mem::take(&mut message.from), message.ts, message.prev, message.pos);
        *message = Message { seq, pos, prev, from, ts, gone: true, ..Message::default() };
    }

    /// A message was replaced; `false`: by something older than what is here.
    pub(super) fn edit(&mut self, edit: &Message) -> bool {
        let Some(message) = self.messages.get_mut(&edit.seq) else { return true };
        let edited_ts = Some(edit.edited_ts.unwrap_or(edit.ts));
        if message.gone || message.edited_ts > edited_ts {
            return false;
        }
        message.text.clone_from(&edit.text);
        message.body.clone_from(&edit.body);
        message.data.clone_from(&edit.data);
        message.fallback = edit.fallback;
        message.edited_ts = edited_ts;
        true
    }

    /// Marks move forward only; `false`: nothing moved.
    pub(super) fn receipt(&mut self, receipt: &Receipt, me: &str) -> bool {
        if receipt.own {
            return self.mark_read(receipt.read, me);
        }
        if receipt.of.is_some() {
            let counts = self.counts.entry(receipt.seq).or_default();
            let before = counts.clone();
            counts.recv = counts.recv.max(receipt.recv);
            counts.read = counts.read.max(receipt.read);
            counts.of = receipt.of;
            let moved = *counts != before;
            while self.counts.len() > GROUP_MARKS_MAX {
                self.counts.pop_first();
            }
            return moved;
        }
        let before = (self.peer_recv, self.peer_read);
        self.peer_read = self.peer_read.max(receipt.read);
        // What was read was delivered.
        self.peer_recv = self.peer_recv.max(receipt.recv).max(self.peer_read);
        before != (self.peer_recv, self.peer_read)
    }

    /// Moves the own mark; `false`: it was there already.
    pub(super) fn mark_read(&mut self, seq: u64, me: &str) -> bool {
        if seq <= self.read {
            return false;
        }
        self.read = seq;
        let left = self.messages.range(seq + 1..).filter(|(_, message)| message.counts(me)).count();
        self.unread = self.unread.min(left as u64);
        true
    }

    /// What the broker says about it.
    pub(super) fn summarise(&mut self, summary: &Summary) {
        self.kind.clone_from(&summary.kind);
        self.name.clone_from(&summary.name);
        self.muted = summary.muted;
        self.seq = self.seq.max(summary.seq);
        // An own mark that is still under way is further than what the broker knows.
        if summary.read >= self.read {
            self.read = summary.read;
            self.unread = summary.unread;
            self.counted = summary.seq;
        }
        if summary.last.as_ref().map_or(0, |last| last.seq) >= self.last.as_ref().map_or(0, |last| last.seq) {
            self.last.clone_from(&summary.last);
        }
    }

    /// Forgets its messages, as the account wished; the seq up to which they are known stays.
    pub(super) fn clear(&mut self) {
        self.have = self.have.max(Some(self.last_seq()));
        self.messages.clear();
        self.counts.clear();
        self.pull = None;
        self.at_start = true;
        self.unread = 0;
    }
}
