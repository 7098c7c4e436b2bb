//! What has arrived and was not yet taken by the application. It is acknowledged when it is taken, in the order in which
//! it came [MQTT5-4.6.0-2] [MQTT3-4.6.0-2].

use super::Shared;
use super::outbox::{Part, write_parts};
#[cfg(feature = "messages")]
use crate::bytes::Put;
#[cfg(any(feature = "messages", feature = "topics"))]
use crate::bytes::Take;
#[cfg(any(feature = "messages", feature = "state"))]
use crate::bytes::text;
#[cfg(all(feature = "messages", feature = "mqtt311"))]
use crate::error::{Outcome, Why};
#[cfg(any(feature = "messages", feature = "state"))]
use crate::json::Value;
#[cfg(any(feature = "messages", feature = "topics", feature = "state"))]
use crate::rows::Rows;
use crate::rows::{At, Head};
#[cfg(feature = "messages")]
use crate::wire::Message;
use crate::wire::What;

pub(super) mod kind {
    pub(crate) const OTHER: u8 = 0;
    #[cfg(feature = "messages")]
    pub(crate) const MESSAGE: u8 = 1;
    #[cfg(feature = "commands")]
    pub(crate) const COMMAND: u8 = 2;
    #[cfg(feature = "state")]
    pub(crate) const DELTA: u8 = 3;
    pub(crate) const TOPIC: u8 = 4;
    #[cfg(feature = "update")]
    pub(crate) const BLOB: u8 = 5;
    #[cfg(feature = "commands")]
    pub(crate) const UPDATE: u8 = 6;
}

/// Row states: still to be taken, or taken and waiting for its turn to be acknowledged.
pub(super) const WAITS: u8 = 0;
pub(super) const TAKEN: u8 = 1;

/// The name of the command that offers an update.
#[cfg(feature = "commands")]
pub(super) const UPDATE_COMMAND: &str = "update";

/// Whether there was room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Room {
    Kept,
    /// Reading has to stop until the application takes something.
    Full,
}

/// A message that was taken, in the caller's buffer.
#[cfg(feature = "messages")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received<'a> {
    /// Of the conversation: the peer's name, or a group's. Answers go there.
    pub address: &'a str,
    /// Who said it.
    pub from: &'a str,
    /// Number in the conversation.
    pub seq: u64,
    /// A short word; empty: `text` or `json`.
    pub kind: &'a str,
    /// Text; may be empty if there is a body.
    pub text: &'a str,
    /// JSON.
    pub body: Option<Value<'a>>,
    /// Seq that it answers; 0: none.
    pub re: u64,
    /// The buffer was too small: text or body are missing.
    pub cut: bool,
}

#[cfg(feature = "messages")]
impl<'a> Received<'a> {
    /// From a row of `len` bytes that was copied to `buffer`, as far as there was room.
    pub fn read(buffer: &'a [u8], len: usize) -> Self {
        let mut take = Take(buffer.get(..len).unwrap_or(buffer));
        take.u64();
        let (seq, re) = (take.u64(), take.u64());
        let (address, from, kind) = (take.short(), take.short(), take.short());
        let said = usize::from(take.u16());
        let cut = len > buffer.len();
        let said = if take.0.len() < said { take.rest() } else { take.bytes(said) };
        let body = if cut { None } else { Value::checked(text(take.rest())) };
        Self { address, from, seq, kind, text: whole(said), body, re, cut }
    }
}

/// Topic and payload, from a row of `len` bytes that was copied to `buffer`, as far as there was room.
#[cfg(feature = "topics")]
pub fn read_topic(buffer: &[u8], len: usize) -> (&str, &[u8]) {
    let mut take = Take(buffer.get(..len).unwrap_or(buffer));
    (take.short(), take.rest())
}

/// The text that bytes are, without a character that was cut at the end.
#[cfg(feature = "messages")]
fn whole(bytes: &[u8]) -> &str {
    match core::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => text(bytes.get(..error.valid_up_to()).unwrap_or(&[])),
    }
}

impl Shared {
    /// Puts what has arrived where the application finds it.
    pub(crate) fn deliver(&mut self, now: u64, pid: u16, what: &What<'_>) -> Room {
        let _ = now;
        match *what {
            #[cfg(feature = "messages")]
            What::Message(ref message) => self.deliver_message(pid, message),
            #[cfg(feature = "commands")]
            What::Command { id, name, from, args, left_ms, once } => {
                let kind =
                    if name == UPDATE_COMMAND && self.config().describe.update { kind::UPDATE } else { kind::COMMAND };
                // The broker sends again what it heard no acknowledgement of, after a cut or a reset. Nobody would take it, and what
                // waits keeps everything behind it, the image itself, from being acknowledged.
                #[cfg(feature = "update")]
                if kind == kind::UPDATE && (self.is_running(id) || crate::update::is_recorded(self, id)) {
                    return self.note(kind::UPDATE, pid);
                }
                // A deadline is at most a week away, so the low half of the clock tells before from after. It is odd, for 0 is none,
                // and never later than what was granted.
                let low = |left| ((now.saturating_add(left) & 0xFFFF_FFFF) as u32).wrapping_sub(1) | 1;
                let deadline = left_ms.map_or(0, low);
                let parts = [
                    Part::Short(id.as_bytes()),
                    Part::Short(name.as_bytes()),
                    Part::Short(from.as_bytes()),
                    Part::Bytes(args.as_bytes()),
                ];
                self.keep(Head { kind, pid, flags: u8::from(once), b: deadline, ..Head::default() }, &parts)
            }
            #[cfg(feature = "commands")]
            What::Cancel { id } => {
                let room = self.note(kind::OTHER, pid);
                if room == Room::Kept {
                    self.cancel(id);
                }
                room
            }
            #[cfg(feature = "state")]
            What::Delta { desired } => {
                let room = self.keep_as(kind::DELTA, pid, &[Part::Bytes(desired.as_bytes())]);
                if room == Room::Kept {
                    // The latest says everything.
                    self.take_rows(&|head, _| head.kind == kind::DELTA, 1);
                }
                room
            }
            #[cfg(feature = "topics")]
            What::Topic { topic, payload, dup } => {
                if dup && self.adopt(pid) {
                    return Room::Kept;
                }
                self.keep_as(kind::TOPIC, pid, &[Part::Short(topic.as_bytes()), Part::Bytes(payload)])
            }
            #[cfg(feature = "update")]
            What::Blob(bytes) => self.keep_as(kind::BLOB, pid, &[Part::Bytes(bytes)]),
            #[cfg(all(feature = "messages", feature = "mqtt311"))]
            What::Sent { id, seq } => self.news_in_time(pid, id, Outcome::Acked { seq }),
            #[cfg(all(feature = "messages", feature = "mqtt311"))]
            What::Refused { id, why } => self.news_in_time(pid, id, Outcome::Lost(Why::Refused(why))),
            _ => self.note(kind::OTHER, pid),
        }
    }

    #[cfg(all(feature = "messages", feature = "mqtt311"))]
    fn news_in_time(&mut self, pid: u16, id: &str, outcome: Outcome) -> Room {
        let room = self.note(kind::OTHER, pid);
        if room == Room::Kept {
            self.news(id, outcome);
        }
        room
    }

    #[cfg(feature = "messages")]
    fn deliver_message(&mut self, pid: u16, message: &Message<'_>) -> Room {
        let Message { address, from, seq, pos, kind: word, text, body, re, backfill } = *message;
        let old = pos != 0 && pos <= self.last_pos;
        if old || (backfill && !self.config().listen.backfill()) {
            return self.note(kind::OTHER, pid);
        }
        let mut numbers = [0; 24];
        let mut put = Put::new(&mut numbers);
        for number in [pos, seq, re] {
            put.u64(number);
        }
        let parts = [
            Part::Bytes(&numbers),
            Part::Short(address.as_bytes()),
            Part::Short(from.as_bytes()),
            Part::Short(word.as_bytes()),
            #[cfg(feature = "mqtt")]
            Part::Text(text),
            // It has no escapes.
            #[cfg(not(feature = "mqtt"))]
            Part::Long(text.as_plain().unwrap_or("").as_bytes()),
            Part::Bytes(body.as_bytes()),
        ];
        self.keep_as(kind::MESSAGE, pid, &parts)
    }

    /// Something that is only acknowledged, when everything before it is, and what its kind waits for has come.
    fn note(&mut self, kind: u8, pid: u16) -> Room {
        if pid == 0 {
            return Room::Kept;
        }
        self.keep(Head { kind, pid, state: TAKEN, ..Head::default() }, &[])
    }

    #[cfg(any(feature = "messages", feature = "state", feature = "topics"))]
    fn keep_as(&mut self, kind: u8, pid: u16, parts: &[Part<'_>]) -> Room {
        self.keep(Head { kind, pid, ..Head::default() }, parts)
    }

    #[inline(never)]
    fn keep(&mut self, mut head: Head, parts: &[Part<'_>]) -> Room {
        head.a = self.conn;
        let (_, buffer) = self.memory.rooms();
        let fill = |room: &mut [u8]| write_parts(parts, room);
        let mut kept = self.inbox.push(buffer, head, &fill);
        if !kept && self.inbox.used() == 0 && head.pid != 0 {
            // It will never fit: it is taken as unreadable, so that what is behind it comes.
            head.state = TAKEN;
            kept = self.inbox.push(buffer, head, &|_| 0);
        }
        if kept {
            self.wake_both();
        }
        // What wants no acknowledgement may be lost.
        if kept || head.pid == 0 { Room::Kept } else { Room::Full }
    }

    /// A topic's message that is still here, and now came on another connection.
    #[cfg(feature = "topics")]
    fn adopt(&mut self, pid: u16) -> bool {
        let conn = self.conn;
        let (_, buffer) = self.memory.rooms();
        let row = self.inbox.find(buffer, &|head, _| head.kind == kind::TOPIC && head.pid == pid && head.a != conn);
        if let Some((at, head)) = row {
            Rows::set(buffer, at, Head { a: conn, ..head });
        }
        row.is_some()
    }

    // ---- Taking ------------------------------------------------------------------------------------------------

    /// The first row of a kind that waits.
    pub(super) fn waiting(&mut self, kind: u8) -> Option<(At, Head)> {
        let (_, buffer) = self.memory.rooms();
        self.inbox.find(buffer, &|head, _| head.kind == kind && head.state == WAITS)
    }

    /// The row was taken: it is acknowledged when all before it are.
    pub(super) fn take_row(&mut self, at: At, head: Head) {
        let (_, buffer) = self.memory.rooms();
        self.inbox.shorten(buffer, at, Head { state: TAKEN, ..head }, 0);
        self.wake_runner();
    }

    /// Takes all rows of a kind but the last `but`.
    #[cfg(any(feature = "commands", feature = "state"))]
    pub(super) fn take_rows(&mut self, which: &dyn Fn(&Head, &[u8]) -> bool, but: usize) {
        let waits = |head: &Head, data: &[u8]| head.state == WAITS && which(head, data);
        let (_, buffer) = self.memory.rooms();
        let count = self.inbox.count(buffer, &waits);
        for _ in but..count {
            let (_, buffer) = self.memory.rooms();
            if let Some((at, head)) = self.inbox.find(buffer, &waits) {
                self.take_row(at, head);
            }
        }
    }

    /// The identifier that is to be acknowledged next.
    pub(crate) fn next_ack(&mut self) -> Option<u16> {
        #[cfg(feature = "update")]
        let held = self.flash.update_offered;
        let (_, buffer) = self.memory.rooms();
        loop {
            let (at, head) = self.inbox.first(buffer)?;
            if head.state != TAKEN {
                return None;
            }
            #[cfg(feature = "update")]
            if held && head.kind == kind::UPDATE {
                return None;
            }
            // On an older connection the broker sends it again.
            if head.pid != 0 && head.a == self.conn {
                return Some(head.pid);
            }
            self.inbox.remove(buffer, at, head);
        }
    }

    /// It was acknowledged.
    pub(crate) fn acked(&mut self) {
        let (_, buffer) = self.memory.rooms();
        if let Some((at, head)) = self.inbox.first(buffer) {
            self.inbox.remove(buffer, at, head);
        }
        // Perhaps there is room now for what has arrived.
        self.wake_runner();
    }

    /// The connection has ended: what belongs to messaging and waits here is sent again by the broker, from where the
    /// last acknowledgement left off. What was taken stays taken.
    pub(super) fn drop_untaken(&mut self) {
        let (_, buffer) = self.memory.rooms();
        while let Some((at, head)) = self.inbox.find(buffer, &|head, _| head.kind != kind::TOPIC || head.state == TAKEN)
        {
            self.inbox.remove(buffer, at, head);
        }
    }

    /// Takes the next row of a kind: copies it to `out`, as far as there is room; its length.
    #[cfg(any(feature = "messages", feature = "topics"))]
    fn copy_row(&mut self, kind: u8, out: &mut [u8]) -> Option<usize> {
        let (at, head) = self.waiting(kind)?;
        let (_, buffer) = self.memory.rooms();
        let data = Rows::data(buffer, at, head);
        let len = data.len();
        let copied = len.min(out.len());
        if let (Some(from), Some(to)) = (data.get(..copied), out.get_mut(..copied)) {
            to.copy_from_slice(from);
        }
        #[cfg(feature = "messages")]
        if kind == kind::MESSAGE {
            self.last_pos = self.last_pos.max(Take(data).u64());
        }
        self.take_row(at, head);
        Some(len)
    }

    /// Takes the next message: copies the row to `out`, for [`Received::read`]; the length of the row.
    #[cfg(feature = "messages")]
    pub fn copy_message(&mut self, out: &mut [u8]) -> Option<usize> {
        self.copy_row(kind::MESSAGE, out)
    }

    /// Takes the next message of an ordinary topic: copies the row to `out`, for [`read_topic`].
    #[cfg(feature = "topics")]
    pub fn copy_topic(&mut self, out: &mut [u8]) -> Option<usize> {
        self.copy_row(kind::TOPIC, out)
    }

    /// Lets `read` have what is desired, and takes it.
    #[cfg(feature = "state")]
    pub fn take_desired<R>(&mut self, read: impl FnOnce(Value<'_>) -> R) -> Option<R> {
        let (at, head) = self.waiting(kind::DELTA)?;
        let (_, buffer) = self.memory.rooms();
        let value = Value::parse(text(Rows::data(buffer, at, head))).unwrap_or(Value::NULL);
        let result = read(value);
        self.take_row(at, head);
        Some(result)
    }

    /// Takes a part of a blob; how much of it had room.
    #[cfg(feature = "update")]
    pub(crate) fn take_blob(&mut self, out: &mut [u8]) -> Option<usize> {
        let len = self.copy_row(kind::BLOB, out)?;
        Some(len.min(out.len()))
    }

    /// Drops parts of blobs that nobody asked for any more.
    #[cfg(feature = "update")]
    pub(crate) fn drop_blobs(&mut self) {
        self.take_rows(&|head, _| head.kind == kind::BLOB, 0);
    }
}
