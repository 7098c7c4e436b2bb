//! What is to be sent: rows in order, each with what is kept of it and where.

use super::Shared;
#[cfg(feature = "persist")]
use super::receipts::starts_ago;
use super::receipts::{SentId, is_wanted};
#[cfg(any(feature = "messages", feature = "persist"))]
use crate::bytes::nibble;
#[cfg(any(feature = "messages", feature = "commands", feature = "state", feature = "persist"))]
use crate::bytes::text;
use crate::bytes::{Put, Take};
use crate::config::{Keep, Place, Policy};
use crate::error::{Outcome, Refusal, SendError, Why};
use crate::json::{ToJson, Writer};
use crate::rows::{At, HEAD_BYTES, Head, Rows};
use crate::wire::Item;
#[cfg(feature = "commands")]
use crate::wire::State;
#[cfg(feature = "commands")]
use heapless::String;

/// No place in flash.
pub(crate) const NO_SLOT: u8 = 0xFF;

/// What a row is.
pub(crate) mod kind {
    #[cfg(feature = "messages")]
    pub(crate) const MESSAGE: u8 = 1;
    #[cfg(feature = "topics")]
    pub(crate) const TOPIC: u8 = 2;
    #[cfg(feature = "state")]
    pub(crate) const REPORTED: u8 = 3;
    #[cfg(feature = "commands")]
    pub(crate) const RESULT: u8 = 4;
    /// In flash: what became of something that was there.
    #[cfg(feature = "persist")]
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
    #[cfg(feature = "topics")]
    pub(crate) const RETAIN: u8 = 2;
    #[cfg(feature = "messages")]
    pub(crate) const QUIET: u8 = 4;
    pub(crate) const DROP_OLDEST: u8 = 8;
    pub(crate) const LATEST: u8 = 16;
    /// It is of an earlier start, and nobody has asked for it in this one.
    #[cfg(feature = "persist")]
    pub(crate) const EARLIER: u8 = 64;
    /// Somebody holds the receipt.
    pub(crate) const WATCHED: u8 = 128;
    /// Somebody may ask for the outcome.
    #[cfg(feature = "persist")]
    pub(crate) const WANTED: u8 = WATCHED | EARLIER;
    #[cfg(not(feature = "persist"))]
    pub(crate) const WANTED: u8 = WATCHED;
}

/// What a row is made of.
#[derive(Clone, Copy)]
pub(crate) enum Part<'a> {
    /// Up to 255 bytes.
    Short(&'a [u8]),
    /// Up to 65,535 bytes.
    #[cfg(any(feature = "messages", feature = "commands"))]
    Long(&'a [u8]),
    /// Without a length: numbers, or the last part.
    Bytes(&'a [u8]),
    /// The last part, written as JSON.
    Json(&'a dyn ToJson),
    /// A text whose escapes are resolved, with its length in two bytes.
    #[cfg(all(feature = "messages", feature = "mqtt"))]
    Text(crate::json::Text<'a>),
}

/// Writes what has room; how long all of it is.
pub(crate) fn write_parts(parts: &[Part<'_>], room: &mut [u8]) -> usize {
    let mut put = Put::new(room);
    for part in parts {
        match *part {
            Part::Short(bytes) => put.short(bytes),
            #[cfg(any(feature = "messages", feature = "commands"))]
            Part::Long(bytes) => put.long(bytes),
            Part::Bytes(bytes) => put.bytes(bytes),
            Part::Json(value) => put.fill(|room| {
                let mut json = Writer::new(room);
                value.to_json(&mut json);
                Some(json.wanted())
            }),
            #[cfg(all(feature = "messages", feature = "mqtt"))]
            Part::Text(text) => put.fill(|room| {
                let (len, room) = room.split_first_chunk_mut::<2>()?;
                let copied = text.copy_to(room)?;
                *len = u16::try_from(copied).ok()?.to_be_bytes();
                Some(copied + 2)
            }),
        }
    }
    put.at()
}

/// Bytes that are free once a row has its outcome.
fn room_behind(head: Head) -> usize {
    usize::from(head.len) + if is_wanted(head) { 0 } else { HEAD_BYTES }
}

/// The client id of a row: it names the start of the device and a number within it, so that no reboot repeats one.
#[cfg(any(feature = "messages", feature = "persist"))]
pub(crate) struct ClientId {
    bytes: [u8; 18],
    from: u8,
}

#[cfg(any(feature = "messages", feature = "persist"))]
impl ClientId {
    pub(crate) fn of(head: Head) -> Self {
        let mut id = Self { bytes: [0; 18], from: 18 };
        for mut number in [head.a, head.b] {
            loop {
                id.from -= 1;
                if let Some(place) = id.bytes.get_mut(usize::from(id.from)) {
                    *place = nibble(number);
                }
                number >>= 4;
                if number == 0 {
                    break;
                }
            }
            id.from -= 1;
            if let Some(place) = id.bytes.get_mut(usize::from(id.from)) {
                *place = b'-';
            }
        }
        id
    }

    pub(crate) fn as_str(&self) -> &str {
        text(self.bytes.get(usize::from(self.from) + 1..).unwrap_or(&[]))
    }
}

impl Shared {
    /// Queues a message; its name for [`Self::outcome`].
    #[cfg(feature = "messages")]
    pub fn push_message(&mut self, to: &str, content: &crate::client::Content<'_>) -> Result<SentId, SendError> {
        let flags = flag::ACKED | if content.quiet { flag::QUIET } else { 0 };
        let policy = self.config().policy("im/v1/to/");
        let mut numbers = [0; 12];
        let mut put = Put::new(&mut numbers);
        put.u64(content.re);
        put.u32(content.ttl_s);
        let parts = [
            Part::Short(to.as_bytes()),
            Part::Short(content.kind.as_bytes()),
            Part::Bytes(&numbers),
            Part::Long(content.text.as_bytes()),
            content.body.map_or(Part::Bytes(&[]), Part::Json),
        ];
        self.push(kind::MESSAGE, flags, policy, &parts)
    }

    /// Queues something for an ordinary topic.
    #[cfg(feature = "topics")]
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
    #[cfg(feature = "topics")]
    pub fn push_publish(&mut self, topic: &str, payload: &[u8]) -> Result<SentId, SendError> {
        self.push_topic(topic, Part::Bytes(payload), true, false)
    }

    /// Queues the reported state, in place of one that was not sent yet.
    #[cfg(feature = "state")]
    pub fn push_reported(&mut self, patch: &dyn ToJson) -> Result<SentId, SendError> {
        let place = self.config().policy("im/v1/me/reported").place;
        let policy = Policy { topic: "", keep: Keep::Latest, place };
        self.push(kind::REPORTED, flag::ACKED, policy, &[Part::Short(&[]), Part::Json(patch)])
    }

    #[cfg(feature = "commands")]
    pub(crate) fn push_result(
        &mut self,
        id: &str,
        state: State,
        text: &str,
        result: Part<'_>,
    ) -> Result<SentId, SendError> {
        let parts = [Part::Short(id.as_bytes()), Part::Bytes(&[state as u8]), Part::Long(text.as_bytes()), result];
        self.push(kind::RESULT, flag::ACKED, Policy::DEFAULT, &parts)
    }

    #[inline(never)]
    fn push(&mut self, kind: u8, flags: u8, policy: Policy, parts: &[Part<'_>]) -> Result<SentId, SendError> {
        let needed = HEAD_BYTES + write_parts(parts, &mut []);
        let room = self.memory.rooms().0.len();
        if needed > room {
            return Err(SendError::TooLarge);
        }
        let keep = match policy.keep {
            Keep::All => 0,
            Keep::DropOldest => flag::DROP_OLDEST,
            Keep::Latest => flag::LATEST,
        };
        let older = if policy.keep == Keep::Latest { self.unsent_with_key(kind, parts) } else { None };
        let slot = match (policy.place, older) {
            (Place::Ram, _) => NO_SLOT,
            // The newer value is written over the older one.
            (Place::Flash, Some((_, head))) if head.slot != NO_SLOT => head.slot,
            (Place::Flash, _) => self.flash.free_slot()?,
        };
        // Room is made by outcomes that nobody asks for, the value that is replaced anyway, or the oldest that may be dropped.
        let behind = older.map_or(0, |(_, old)| room_behind(old));
        while needed + self.outbox.used() > room + behind {
            #[cfg(feature = "persist")]
            if self.drop_unclaimed() {
                continue;
            }
            if policy.keep != Keep::DropOldest || !self.drop_oldest() {
                if slot != NO_SLOT && older.is_none_or(|(_, old)| old.slot != slot) {
                    self.flash.give_back(slot);
                }
                return Err(SendError::Full);
            }
        }
        // It may stand elsewhere now.
        #[cfg(feature = "persist")]
        let older = older.and_then(|_| self.unsent_with_key(kind, parts));
        if let Some((at, old)) = older {
            // In flash it may have the same place.
            if old.slot != slot {
                self.give_back(old);
            }
            self.close(at, old, Outcome::Lost(Why::Replaced));
        }
        let seq = self.next_seq;
        self.next_seq = seq.wrapping_add(1);
        let state = if slot == NO_SLOT { state::READY } else { state::NEW };
        let head = Head { kind, flags: flags | keep, state, slot, a: seq, b: self.boot, ..Head::default() };
        let (buffer, _) = self.memory.rooms();
        self.outbox.push(buffer, head, &|room| write_parts(parts, room));
        self.wake_runner();
        Ok(SentId { boot: self.boot, seq })
    }

    /// The first row for which `wanted` is true.
    #[inline(never)]
    pub(super) fn find_row(&mut self, wanted: &dyn Fn(&Head, &[u8]) -> bool) -> Option<(At, Head)> {
        let (buffer, _) = self.memory.rooms();
        self.outbox.find(buffer, wanted)
    }

    pub(super) fn set_row(&mut self, at: At, head: Head) {
        let (buffer, _) = self.memory.rooms();
        Rows::set(buffer, at, head);
    }

    /// Rows for which `wanted` is true.
    fn count(&mut self, wanted: fn(&Head) -> bool) -> usize {
        let (buffer, _) = self.memory.rooms();
        self.outbox.count(buffer, &|head, _| wanted(head))
    }

    /// The row of the same kind and key that was not sent and is not being written to flash.
    fn unsent_with_key(&mut self, kind: u8, parts: &[Part<'_>]) -> Option<(At, Head)> {
        let Some(Part::Short(key)) = parts.first() else { return None };
        let busy = self.flash.busy_slot();
        self.find_row(&|head, data| {
            head.kind == kind
                && is_unsent(head)
                && (head.slot == NO_SLOT || Some(head.slot) != busy)
                && Take(data).short_bytes() == *key
        })
    }

    /// Drops the oldest row that may be dropped and was not sent.
    fn drop_oldest(&mut self) -> bool {
        let oldest = self.find_row(&|head, _| head.flags & flag::DROP_OLDEST != 0 && is_unsent(head));
        if let Some((at, head)) = oldest {
            self.finish(at, head, Outcome::Lost(Why::Dropped));
        }
        oldest.is_some()
    }

    fn give_back(&mut self, head: Head) {
        if head.slot != NO_SLOT {
            self.flash.give_back(head.slot);
        }
    }

    /// The outcome of a row: it goes, in flash too, and only what its receipt has to know stays.
    pub(crate) fn finish(&mut self, at: At, head: Head, outcome: Outcome) {
        self.give_back(head);
        self.close(at, head, outcome);
    }

    #[inline(never)]
    fn close(&mut self, at: At, head: Head, outcome: Outcome) {
        #[cfg(feature = "commands")]
        if head.kind == kind::RESULT {
            self.result_is_known(at, head);
        }
        #[cfg(feature = "persist")]
        let pid = starts_ago(self.boot, head);
        #[cfg(not(feature = "persist"))]
        let pid = 0;
        let (buffer, _) = self.memory.rooms();
        if is_wanted(head) {
            let (state, b) = match outcome {
                Outcome::Acked { seq } => (state::ACKED, u32::try_from(seq).unwrap_or(u32::MAX)),
                Outcome::Lost(why) => (state::LOST, pack(why)),
            };
            // The place in flash is still named, so that nobody hears "lost" while a reboot could bring it back.
            let head = Head { state, pid, b, ..head };
            self.outbox.shorten(buffer, at, head, 0);
        } else {
            self.outbox.remove(buffer, at, head);
        }
        self.wake_both();
    }

    /// The broker has heard of the command's outcome.
    #[cfg(feature = "commands")]
    fn result_is_known(&mut self, at: At, head: Head) {
        let (buffer, _) = self.memory.rooms();
        let mut take = Take(Rows::data(buffer, at, head));
        let id = String::<36>::try_from(take.short()).unwrap_or_default();
        if take.u8() != State::Running as u8 {
            self.ring.told(&id, &self.flash);
        }
    }

    // ---- Receipts ----------------------------------------------------------------------------------------------

    /// Whether a row is where it is to be kept; `None`: it still waits for flash.
    #[cfg(feature = "persist")]
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
            self.set_row(at, Head { flags: head.flags | flag::WATCHED, ..head });
        }
    }

    /// Nobody will ask for the outcome.
    pub fn unwatch(&mut self, id: SentId) {
        if let Some((at, head)) = self.row(id) {
            if head.state >= state::ACKED {
                let (buffer, _) = self.memory.rooms();
                self.outbox.remove(buffer, at, head);
                self.wake_app();
            } else {
                self.set_row(at, Head { flags: head.flags & !flag::WATCHED, ..head });
            }
        }
    }

    /// Takes a row back that flash does not have yet.
    #[cfg(feature = "persist")]
    pub(crate) fn withdraw(&mut self, id: SentId) {
        if let Some((at, head)) = self.row(id)
            && head.state == state::NEW
        {
            self.finish(at, head, Outcome::Lost(Why::Dropped));
        }
    }

    /// What became of a row that is watched; `None`: nothing yet.
    pub fn outcome(&mut self, id: SentId) -> Option<Outcome> {
        // It was not watched; nobody can ask.
        let Some((_, head)) = self.row(id) else { return Some(Outcome::Lost(Why::NotAsked)) };
        match head.state {
            state::LOST if self.is_in_flash(head.slot) => None,
            state::ACKED => Some(Outcome::Acked { seq: head.b.into() }),
            state::LOST => Some(Outcome::Lost(unpack(head.b))),
            _ => None,
        }
    }

    /// Whether a place in flash still has what was there.
    fn is_in_flash(&mut self, slot: u8) -> bool {
        slot != NO_SLOT
            && (self.flash.is_clearing(slot)
                || self.find_row(&|head, _| head.slot == slot && head.state == state::NEW).is_some())
    }

    /// Rows that still have to get to the broker.
    pub fn unsent(&mut self) -> usize {
        self.count(|head| head.state < state::ACKED)
    }

    // ---- For the session ---------------------------------------------------------------------------------------

    /// Rows that were sent and not acknowledged.
    pub(crate) fn in_flight(&mut self) -> usize {
        self.count(|head| head.state == state::SENT)
    }

    /// The next row to send.
    pub(crate) fn next_ready(&mut self) -> Option<(At, Head)> {
        self.find_row(&|head, _| head.state == state::READY)
    }

    /// Whether a packet identifier is in use.
    pub(crate) fn pid_in_use(&mut self, pid: u16) -> bool {
        self.find_row(&|head, _| head.pid == pid && head.state < state::ACKED).is_some()
    }

    /// Lets `send` have the row's content.
    pub(crate) fn with_item<R>(&mut self, at: At, head: Head, send: impl FnOnce(&Item<'_>) -> R) -> R {
        let (buffer, _) = self.memory.rooms();
        let mut take = Take(Rows::data(buffer, at, head));
        #[cfg(feature = "messages")]
        let id;
        let item = match head.kind {
            #[cfg(feature = "messages")]
            kind::MESSAGE => {
                id = ClientId::of(head);
                Item::Message {
                    to: take.short(),
                    id: id.as_str(),
                    kind: take.short(),
                    re: take.u64(),
                    ttl_s: take.u32(),
                    text: text(take.long()),
                    body: text(take.rest()),
                    quiet: head.flags & flag::QUIET != 0,
                }
            }
            #[cfg(feature = "state")]
            kind::REPORTED => {
                take.short();
                Item::Reported { patch: text(take.rest()) }
            }
            #[cfg(feature = "commands")]
            kind::RESULT => Item::Result {
                id: take.short(),
                state: State::from_byte(take.u8()),
                text: text(take.long()),
                result: text(take.rest()),
            },
            #[cfg(feature = "topics")]
            kind::TOPIC => Item::Topic {
                topic: take.short(),
                payload: take.rest(),
                acked: head.flags & flag::ACKED != 0,
                retain: head.flags & flag::RETAIN != 0,
            },
            // Of a firmware that could more.
            _ => Item::Nothing,
        };
        send(&item)
    }

    /// The row was sent with this packet identifier; one that is not acknowledged is done with.
    pub(crate) fn sent(&mut self, at: At, head: Head, pid: u16) {
        if head.flags & flag::ACKED == 0 {
            return self.finish(at, head, Outcome::Lost(Why::NotAsked));
        }
        self.set_row(at, Head { state: state::SENT, pid, ..head });
    }

    /// The answer to a packet identifier. `news_follow`: of a message more will be heard.
    pub(crate) fn answered(&mut self, pid: u16, result: Result<u64, Refusal>, news_follow: bool) {
        let row = self.find_row(&|head, _| head.pid == pid && head.state == state::SENT);
        let Some((at, head)) = row else { return };
        let _ = news_follow;
        let outcome = match result {
            #[cfg(all(feature = "messages", feature = "mqtt311"))]
            Ok(_) if news_follow && head.kind == kind::MESSAGE => {
                self.set_row(at, Head { state: state::HEARD, pid: 0, ..head });
                return self.wake_runner();
            }
            Ok(seq) => Outcome::Acked { seq },
            Err(why) if why.is_passing() => {
                return self.set_row(at, Head { state: state::READY, pid: 0, ..head });
            }
            Err(why) => Outcome::Lost(Why::Refused(why)),
        };
        self.finish(at, head, outcome);
    }

    /// News of a message by its client id.
    #[cfg(all(feature = "messages", feature = "mqtt311"))]
    pub(crate) fn news(&mut self, id: &str, outcome: Outcome) {
        let row = self.find_row(&|head, _| {
            head.kind == kind::MESSAGE
                && matches!(head.state, state::SENT | state::HEARD)
                && ClientId::of(*head).as_str() == id
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

    fn each_row(&mut self, change: fn(&mut Head)) {
        let (buffer, _) = self.memory.rooms();
        let mut row = self.outbox.first(buffer);
        while let Some((at, mut head)) = row {
            change(&mut head);
            Rows::set(buffer, at, head);
            row = self.outbox.next(buffer, at, head);
        }
    }
}

/// Whether a row was not sent yet, on any connection.
fn is_unsent(head: &Head) -> bool {
    head.state <= state::READY && head.pid == 0
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
    #[cfg(feature = "messages")]
    fn ids_are_short() {
        let id = |boot, seq| ClientId::of(Head { a: seq, b: boot, ..Head::default() });
        assert_eq!(id(u32::MAX, u32::MAX).as_str(), "ffffffff-ffffffff");
        assert_eq!(id(1, 10).as_str(), "1-a");
        assert_eq!(id(0, 0).as_str(), "0-0");
    }
}
