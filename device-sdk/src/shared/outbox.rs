//! What is to be sent: rows in order, each with what is kept of it and where.

use super::Shared;
use super::receipts::{SentId, is_wanted, starts_ago};
use crate::bytes::{Digits, Put, Take, text};
use crate::config::{Keep, Place, Policy};
use crate::error::{Outcome, Refusal, SendError, Why};
use crate::json::{ToJson, Writer};
use crate::rows::{At, HEAD_BYTES, Head, Rows};
use crate::wire::{Item, State};
use heapless::String;

/// No place in flash.
pub(crate) const NO_SLOT: u8 = 0xFF;

/// What a row is.
pub(crate) mod kind {
    pub(crate) const MESSAGE: u8 = 1;
    pub(crate) const TOPIC: u8 = 2;
    pub(crate) const REPORTED: u8 = 3;
    pub(crate) const RESULT: u8 = 4;
    /// In flash: what became of something that was there.
    pub(crate) const OUTCOME: u8 = 5;
}

/// How far a row is.
pub(crate) mod state {
    /// Waits for flash.
    pub(crate) const NEW: u8 = 0;
    pub(crate) const READY: u8 = 1;
    pub(crate) const SENT: u8 = 2;
    /// Acknowledged, and what became of it comes as news of its own (MQTT 3.1.1).
    pub(crate) const HEARD: u8 = 3;
    /// Its outcome waits for whoever holds the receipt: `b` is the number, or why not.
    pub(crate) const ACKED: u8 = 4;
    pub(crate) const LOST: u8 = 5;
}

pub(crate) mod flag {
    /// At QoS 1.
    pub(crate) const ACKED: u8 = 1;
    pub(crate) const RETAIN: u8 = 2;
    pub(crate) const QUIET: u8 = 4;
    pub(crate) const DROP_OLDEST: u8 = 8;
    pub(crate) const LATEST: u8 = 16;
    /// It is of an earlier start, and nobody has asked for it in this one.
    pub(crate) const EARLIER: u8 = 64;
    /// Somebody holds the receipt.
    pub(crate) const WATCHED: u8 = 128;
}

/// What a row is made of.
#[derive(Clone, Copy)]
pub(crate) enum Part<'a> {
    /// Up to 255 bytes.
    Short(&'a [u8]),
    /// Up to 65,535 bytes.
    Long(&'a [u8]),
    U8(u8),
    U32(u32),
    U64(u64),
    /// The last part.
    Rest(&'a [u8]),
    /// The last part, written as JSON; an error where this is longer than a text may be.
    Json(&'a dyn ToJson),
    /// A text whose escapes are resolved, with its length in two bytes.
    Text(crate::json::Text<'a>),
}

pub(crate) fn write_parts(parts: &[Part<'_>], room: &mut [u8]) -> Option<usize> {
    let mut put = Put::new(room);
    for part in parts {
        match *part {
            Part::Short(bytes) => put.short(bytes),
            Part::Long(bytes) => put.long(bytes),
            Part::U8(value) => put.u8(value),
            Part::U32(value) => put.u32(value),
            Part::U64(value) => put.u64(value),
            Part::Rest(bytes) => put.bytes(bytes),
            Part::Json(value) => put.fill(|room| {
                let mut json = Writer::new(room);
                value.to_json(&mut json);
                json.len()
            }),
            Part::Text(text) => put.fill(|room| {
                let (len, room) = room.split_first_chunk_mut::<2>()?;
                let copied = text.copy_to(room)?;
                *len = u16::try_from(copied).ok()?.to_be_bytes();
                Some(copied + 2)
            }),
        }
    }
    put.done()
}

/// Bytes that are free once a row has its outcome.
fn room_behind(head: Head) -> usize {
    usize::from(head.len) + if is_wanted(head) { 0 } else { HEAD_BYTES }
}

/// Bytes that [`write_parts`] writes.
fn parts_len(parts: &[Part<'_>]) -> usize {
    let len = |part: &Part<'_>| match *part {
        Part::Short(bytes) => 1 + bytes.len(),
        Part::Long(bytes) => 2 + bytes.len(),
        Part::U8(_) => 1,
        Part::U32(_) => 4,
        Part::U64(_) => 8,
        Part::Rest(bytes) => bytes.len(),
        Part::Json(value) => Writer::measure(value),
        Part::Text(text) => 2 + text.len_max(),
    };
    parts.iter().map(len).sum()
}

/// The client id of a row: it names the start of the device and a number within it, so that no reboot repeats one.
pub(crate) fn client_id(boot: u32, seq: u32) -> String<20> {
    let mut id = String::new();
    let _ = id.push_str(Digits::hex(boot.into()).as_str());
    let _ = id.push('-');
    let _ = id.push_str(Digits::hex(seq.into()).as_str());
    id
}

impl Shared {
    /// Queues a message; its name for [`Self::outcome`].
    pub fn push_message(&mut self, to: &str, content: &crate::client::Content<'_>) -> Result<SentId, SendError> {
        let flags = flag::ACKED | if content.quiet { flag::QUIET } else { 0 };
        let policy = self.config().policy("im/v1/to/");
        let head = [
            Part::Short(to.as_bytes()),
            Part::Short(content.kind.as_bytes()),
            Part::U64(content.re),
            Part::U32(content.ttl_s),
            Part::Long(content.text.as_bytes()),
        ];
        let [to, kind, re, ttl, text] = head;
        let body = content.body.map_or(Part::Rest(&[]), Part::Json);
        self.push(kind::MESSAGE, flags, policy, &[to, kind, re, ttl, text, body])
    }

    /// Queues something for an ordinary topic.
    pub(crate) fn push_topic(
        &mut self,
        topic: &str,
        payload: Part<'_>,
        acked: bool,
        retain: bool,
    ) -> Result<SentId, SendError> {
        let flags = if acked { flag::ACKED } else { 0 } | if retain { flag::RETAIN } else { 0 };
        self.push(kind::TOPIC, flags, self.config().policy(topic), &[Part::Short(topic.as_bytes()), payload])
    }

    /// Queues something for an ordinary topic at QoS 1.
    pub fn push_publish(&mut self, topic: &str, payload: &[u8]) -> Result<SentId, SendError> {
        self.push_topic(topic, Part::Rest(payload), true, false)
    }

    /// Queues the reported state, in place of one that was not sent yet.
    pub fn push_reported(&mut self, patch: &dyn ToJson) -> Result<SentId, SendError> {
        let place = self.config().policy("im/v1/me/reported").place;
        let policy = Policy { topic: "", keep: Keep::Latest, place };
        self.push(kind::REPORTED, flag::ACKED, policy, &[Part::Short(&[]), Part::Json(patch)])
    }

    pub(crate) fn push_result(
        &mut self,
        id: &str,
        state: State,
        text: &str,
        result: Part<'_>,
    ) -> Result<SentId, SendError> {
        let parts = [Part::Short(id.as_bytes()), Part::U8(state as u8), Part::Long(text.as_bytes()), result];
        self.push(kind::RESULT, flag::ACKED, Policy::DEFAULT, &parts)
    }

    fn push(&mut self, kind: u8, flags: u8, policy: Policy, parts: &[Part<'_>]) -> Result<SentId, SendError> {
        let keep = match policy.keep {
            Keep::All => 0,
            Keep::DropOldest => flag::DROP_OLDEST,
            Keep::Latest => flag::LATEST,
        };
        let mut older = if policy.keep == Keep::Latest { self.unsent_with_key(kind, parts) } else { None };
        let slot = match (policy.place, older) {
            (Place::Ram, _) => NO_SLOT,
            // The newer value is written over the older one.
            (Place::Flash, Some((_, head))) if head.slot != NO_SLOT => head.slot,
            (Place::Flash, _) => self.flash.free_slot()?,
        };
        let seq = self.next_seq;
        let state = if slot == NO_SLOT { state::READY } else { state::NEW };
        let head = Head { kind, flags: flags | keep, state, slot, a: seq, b: self.boot, ..Head::default() };
        loop {
            let (buffer, _) = self.memory.rooms();
            if self.outbox.push(buffer, head, &mut |room| write_parts(parts, room)) {
                break;
            }
            if self.drop_unclaimed() {
                // It may stand elsewhere now.
                older = older.and_then(|_| self.unsent_with_key(kind, parts));
                continue;
            }
            let (buffer, _) = self.memory.rooms();
            // Room is made by the value that is replaced anyway, if that is enough; or by the oldest that may be dropped.
            let free = buffer.len() - self.outbox.used();
            if let Some((at, old)) = older
                && HEAD_BYTES + parts_len(parts) <= free + room_behind(old)
            {
                older = None;
                self.replace(at, old, slot);
            } else if !(policy.keep == Keep::DropOldest && self.drop_oldest()) {
                if slot != NO_SLOT && older.is_none_or(|(_, old)| old.slot != slot) {
                    self.flash.give_back(slot);
                }
                return Err(if self.outbox.used() == 0 { SendError::TooLarge } else { SendError::Full });
            }
        }
        if let Some((at, old)) = older {
            self.replace(at, old, slot);
        }
        self.next_seq = self.next_seq.wrapping_add(1);
        self.wake_runner();
        Ok(SentId { boot: self.boot, seq })
    }

    /// The row of the same kind and key that was not sent and is not being written to flash.
    fn unsent_with_key(&mut self, kind: u8, parts: &[Part<'_>]) -> Option<(At, Head)> {
        let Some(Part::Short(key)) = parts.first() else { return None };
        let busy = self.flash.busy_slot();
        let (buffer, _) = self.memory.rooms();
        self.outbox.find(buffer, &|head, data| {
            head.kind == kind
                && head.state <= state::READY
                && head.pid == 0
                && (head.slot == NO_SLOT || Some(head.slot) != busy)
                && Take(data).short().as_bytes() == *key
        })
    }

    /// Drops the oldest row that may be dropped and was not sent.
    fn drop_oldest(&mut self) -> bool {
        let (buffer, _) = self.memory.rooms();
        let oldest = self.outbox.find(buffer, &|head, _| {
            head.flags & flag::DROP_OLDEST != 0 && head.state <= state::READY && head.pid == 0
        });
        match oldest {
            Some((at, head)) => {
                self.finish(at, head, Outcome::Lost(Why::Dropped));
                true
            }
            None => false,
        }
    }

    /// A newer row takes the place of one, in flash too if it has the same place there.
    fn replace(&mut self, at: At, old: Head, slot: u8) {
        if old.slot != NO_SLOT && old.slot != slot {
            self.flash.give_back(old.slot);
        }
        self.close(at, old, Outcome::Lost(Why::Replaced));
    }

    /// The outcome of a row: it goes, in flash too, and only what its receipt has to know stays.
    pub(crate) fn finish(&mut self, at: At, head: Head, outcome: Outcome) {
        if head.slot != NO_SLOT {
            self.flash.give_back(head.slot);
        }
        self.close(at, head, outcome);
    }

    fn close(&mut self, at: At, head: Head, outcome: Outcome) {
        if head.kind == kind::RESULT {
            self.result_is_known(at, head);
        }
        let ago = starts_ago(self.boot, head);
        let (buffer, _) = self.memory.rooms();
        if is_wanted(head) {
            let (state, b) = match outcome {
                Outcome::Acked { seq } => (state::ACKED, u32::try_from(seq).unwrap_or(u32::MAX)),
                Outcome::Lost(why) => (state::LOST, pack(why)),
            };
            // The place in flash is still named, so that nobody hears "lost" while a reboot could bring it back.
            let head = Head { state, b, pid: ago, ..head };
            self.outbox.shorten(buffer, at, head, 0);
        } else {
            self.outbox.remove(buffer, at, head);
        }
        self.wake_app();
        self.wake_runner();
    }

    /// The broker has heard of the command's outcome.
    fn result_is_known(&mut self, at: At, head: Head) {
        let (buffer, _) = self.memory.rooms();
        let mut take = Take(Rows::data(buffer, at, head));
        let id = String::<36>::try_from(take.short()).unwrap_or_default();
        if take.u8() != State::Running as u8 {
            self.ring.told(&id, &mut self.flash);
        }
    }

    // ---- Receipts ----------------------------------------------------------------------------------------------

    /// Whether a row is where it is to be kept; `None`: it still waits for flash.
    pub fn kept(&mut self, id: SentId) -> Option<Result<(), SendError>> {
        match self.row(id) {
            Some((_, head)) if head.state == state::NEW => None,
            // Flash may still have to forget what it has of it; that is no reason to call it kept meanwhile.
            Some((_, head)) if head.state == state::LOST && head.b == pack(Why::Flash) => Some(Err(SendError::Flash)),
            _ => Some(Ok(())),
        }
    }

    /// Keeps the outcome of a row until it is asked for.
    pub fn watch(&mut self, id: SentId) {
        if let Some((at, head)) = self.row(id) {
            let (buffer, _) = self.memory.rooms();
            Rows::set(buffer, at, Head { flags: head.flags | flag::WATCHED, ..head });
        }
    }

    /// Nobody will ask for the outcome.
    pub fn unwatch(&mut self, id: SentId) {
        if let Some((at, head)) = self.row(id) {
            let (buffer, _) = self.memory.rooms();
            if head.state >= state::ACKED {
                self.outbox.remove(buffer, at, head);
                self.wake_app();
            } else {
                Rows::set(buffer, at, Head { flags: head.flags & !flag::WATCHED, ..head });
            }
        }
    }

    /// Takes a row back that flash does not have yet.
    pub(crate) fn withdraw(&mut self, id: SentId) {
        if let Some((at, head)) = self.row(id)
            && head.state == state::NEW
        {
            self.finish(at, head, Outcome::Lost(Why::Dropped));
        }
    }

    /// What became of a row that is watched; `None`: nothing yet.
    pub fn outcome(&mut self, id: SentId) -> Option<Outcome> {
        match self.row(id) {
            Some((_, head)) if head.state == state::LOST && self.is_in_flash(head.slot) => None,
            Some((_, head)) if head.state == state::ACKED => Some(Outcome::Acked { seq: head.b.into() }),
            Some((_, head)) if head.state == state::LOST => Some(Outcome::Lost(unpack(head.b))),
            Some(_) => None,
            // It was not watched; nobody can ask.
            None => Some(Outcome::Lost(Why::NotAsked)),
        }
    }

    /// Whether a place in flash still has what was there.
    fn is_in_flash(&mut self, slot: u8) -> bool {
        let (buffer, _) = self.memory.rooms();
        slot != NO_SLOT
            && (self.flash.is_clearing(slot)
                || self.outbox.find(buffer, &|head, _| head.slot == slot && head.state == state::NEW).is_some())
    }

    /// Rows that still have to get to the broker.
    pub fn unsent(&mut self) -> usize {
        let (buffer, _) = self.memory.rooms();
        let mut count = 0;
        let mut row = self.outbox.first(buffer);
        while let Some((at, head)) = row {
            count += usize::from(head.state < state::ACKED);
            row = self.outbox.next(buffer, at, head);
        }
        count
    }

    // ---- For the session ---------------------------------------------------------------------------------------

    /// Rows that were sent and not acknowledged.
    pub(crate) fn in_flight(&mut self) -> u16 {
        let (buffer, _) = self.memory.rooms();
        let mut count = 0;
        let mut row = self.outbox.first(buffer);
        while let Some((at, head)) = row {
            count += u16::from(head.state == state::SENT);
            row = self.outbox.next(buffer, at, head);
        }
        count
    }

    /// The next row to send.
    pub(crate) fn next_ready(&mut self) -> Option<(At, Head)> {
        let (buffer, _) = self.memory.rooms();
        self.outbox.find(buffer, &|head, _| head.state == state::READY)
    }

    /// Whether a packet identifier is in use.
    pub(crate) fn pid_in_use(&mut self, pid: u16) -> bool {
        let (buffer, _) = self.memory.rooms();
        self.outbox.find(buffer, &|head, _| head.pid == pid && head.state < state::ACKED).is_some()
    }

    /// Lets `send` have the row's content.
    pub(crate) fn with_item<R>(&mut self, at: At, head: Head, send: impl FnOnce(&Item<'_>) -> R) -> R {
        let (buffer, _) = self.memory.rooms();
        let mut take = Take(Rows::data(buffer, at, head));
        let id;
        let item = match head.kind {
            kind::MESSAGE => {
                id = client_id(head.b, head.a);
                Item::Message {
                    to: take.short(),
                    id: &id,
                    kind: take.short(),
                    re: take.u64(),
                    ttl_s: take.u32(),
                    text: text(take.long()),
                    body: text(take.rest()),
                    quiet: head.flags & flag::QUIET != 0,
                }
            }
            kind::REPORTED => {
                take.short();
                Item::Reported { patch: text(take.rest()) }
            }
            kind::RESULT => Item::Result {
                id: take.short(),
                state: State::from_byte(take.u8()),
                text: text(take.long()),
                result: text(take.rest()),
            },
            _ => Item::Topic {
                topic: take.short(),
                payload: take.rest(),
                acked: head.flags & flag::ACKED != 0,
                retain: head.flags & flag::RETAIN != 0,
            },
        };
        send(&item)
    }

    /// The row was sent with this packet identifier; one that is not acknowledged is done with.
    pub(crate) fn sent(&mut self, at: At, head: Head, pid: u16) {
        if head.flags & flag::ACKED == 0 {
            return self.finish(at, head, Outcome::Lost(Why::NotAsked));
        }
        let (buffer, _) = self.memory.rooms();
        Rows::set(buffer, at, Head { state: state::SENT, pid, ..head });
    }

    /// The answer to a packet identifier. `news_follow`: of a message more will be heard.
    pub(crate) fn answered(&mut self, pid: u16, result: Result<u64, Refusal>, news_follow: bool) {
        let (buffer, _) = self.memory.rooms();
        let row = self.outbox.find(buffer, &|head, _| head.pid == pid && head.state == state::SENT);
        let Some((at, head)) = row else { return };
        match result {
            Ok(_) if news_follow && head.kind == kind::MESSAGE => {
                Rows::set(buffer, at, Head { state: state::HEARD, pid: 0, ..head });
                self.wake_runner();
            }
            Ok(seq) => self.finish(at, head, Outcome::Acked { seq }),
            Err(why) if why.is_passing() => {
                Rows::set(buffer, at, Head { state: state::READY, pid: 0, ..head });
            }
            Err(why) => self.finish(at, head, Outcome::Lost(Why::Refused(why))),
        }
    }

    /// News of a message by its client id.
    pub(crate) fn news(&mut self, id: &str, outcome: Outcome) {
        let (buffer, _) = self.memory.rooms();
        let row = self.outbox.find(buffer, &|head, _| {
            head.kind == kind::MESSAGE
                && matches!(head.state, state::SENT | state::HEARD)
                && client_id(head.b, head.a) == id
        });
        if let Some((at, head)) = row {
            self.finish(at, head, outcome);
        }
    }

    /// The connection has ended: everything that has no outcome is to be sent again.
    pub(super) fn rows_unsent(&mut self) {
        self.each_row(|head| {
            if matches!(head.state, state::SENT | state::HEARD) {
                head.state = state::READY;
            }
        });
    }

    /// The broker does not remember what was sent: no identifier means anything any more.
    pub(super) fn forget_packet_ids(&mut self) {
        self.each_row(|head| {
            if head.state < state::ACKED {
                head.pid = 0;
            }
        });
    }

    fn each_row(&mut self, mut change: impl FnMut(&mut Head)) {
        let (buffer, _) = self.memory.rooms();
        let mut row = self.outbox.first(buffer);
        while let Some((at, mut head)) = row {
            change(&mut head);
            Rows::set(buffer, at, head);
            row = self.outbox.next(buffer, at, head);
        }
    }
}

const REFUSALS: [Refusal; 13] = [
    Refusal::BadRequest,
    Refusal::BadTopic,
    Refusal::NoAccount,
    Refusal::NotFound,
    Refusal::NoConsent,
    Refusal::Blocked,
    Refusal::Forbidden,
    Refusal::IdReused,
    Refusal::TooLate,
    Refusal::Exists,
    Refusal::TooLarge,
    Refusal::Quota,
    Refusal::LowSpace,
];

pub(super) fn pack(why: Why) -> u32 {
    match why {
        Why::Replaced => 1,
        Why::Dropped => 2,
        Why::TooLarge => 3,
        Why::NotAsked => 4,
        Why::Flash => 5,
        Why::Refused(Refusal::Other(code)) => 0x200 + u32::from(code),
        Why::Refused(refusal) => {
            let at = REFUSALS.iter().position(|known| *known == refusal).unwrap_or(0);
            0x100 + u32::try_from(at).unwrap_or(0)
        }
    }
}

fn unpack(packed: u32) -> Why {
    match packed {
        1 => Why::Replaced,
        2 => Why::Dropped,
        3 => Why::TooLarge,
        5 => Why::Flash,
        0x100..0x200 => {
            let at = (packed - 0x100) as usize;
            Why::Refused(REFUSALS.get(at).copied().unwrap_or(Refusal::Other(0)))
        }
        0x200..0x300 => Why::Refused(Refusal::Other((packed & 0xFF) as u8)),
        _ => Why::NotAsked,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_survive_being_packed() {
        for refusal in REFUSALS.into_iter().chain([Refusal::Other(0), Refusal::Other(0x91)]) {
            assert_eq!(unpack(pack(Why::Refused(refusal))), Why::Refused(refusal));
        }
        for why in [Why::Replaced, Why::Dropped, Why::TooLarge, Why::NotAsked, Why::Flash] {
            assert_eq!(unpack(pack(why)), why);
        }
    }

    #[test]
    fn ids_are_short() {
        assert_eq!(client_id(u32::MAX, u32::MAX), "ffffffff-ffffffff");
        assert_eq!(client_id(1, 10), "1-a");
    }
}
