//! What has arrived and was not yet taken by the application. It is acknowledged when it is taken, in the order in which
//! it came [MQTT5-4.6.0-2] [MQTT3-4.6.0-2].

use super::Shared;
use super::outbox::{Part, write_parts};
use crate::bytes::{Take, text};
use crate::error::Outcome;
use crate::error::Why;
use crate::json::Value;
use crate::rows::{At, Head, Rows};
use crate::wire::{Message, What};

pub(super) mod kind {
    pub(crate) const OTHER: u8 = 0;
    pub(crate) const MESSAGE: u8 = 1;
    pub(crate) const COMMAND: u8 = 2;
    pub(crate) const DELTA: u8 = 3;
    pub(crate) const TOPIC: u8 = 4;
    pub(crate) const BLOB: u8 = 5;
    pub(crate) const UPDATE: u8 = 6;
}

/// Row states: still to be taken, or taken and waiting for its turn to be acknowledged.
pub(super) const WAITS: u8 = 0;
pub(super) const TAKEN: u8 = 1;

/// The name of the command that offers an update.
pub(super) const UPDATE_COMMAND: &str = "update";

/// Whether there was room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Room {
    Kept,
    /// Reading has to stop until the application takes something.
    Full,
}

/// A message that was taken, in the caller's buffer.
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
        let body = if cut { None } else { Value::parse(text(take.rest())) };
        Self { address, from, seq, kind, text: whole(said), body, re, cut }
    }

    /// Topic and payload, from a row that was copied in the same way.
    pub fn read_topic(buffer: &'a [u8], len: usize) -> (&'a str, &'a [u8]) {
        let mut take = Take(buffer.get(..len).unwrap_or(buffer));
        (take.short(), take.rest())
    }
}

/// The text that bytes are, without a character that was cut at the end.
fn whole(bytes: &[u8]) -> &str {
    match core::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => text(bytes.get(..error.valid_up_to()).unwrap_or(&[])),
    }
}

impl Shared {
    /// Puts what has arrived where the application finds it.
    pub(crate) fn deliver(&mut self, now: u64, pid: u16, what: &What<'_>) -> Room {
        match *what {
            What::Message(message) => self.deliver_message(pid, &message),
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
                    Part::Rest(args.as_bytes()),
                ];
                self.keep(Head { kind, pid, flags: u8::from(once), b: deadline, ..Head::default() }, &parts)
            }
            What::Cancel { id } => {
                let room = self.note(kind::OTHER, pid);
                if room == Room::Kept {
                    self.cancel(id);
                }
                room
            }
            What::Delta { desired } => {
                let head = Head { kind: kind::DELTA, pid, ..Head::default() };
                let room = self.keep(head, &[Part::Rest(desired.as_bytes())]);
                if room == Room::Kept {
                    // The latest says everything.
                    self.take_rows(&|head, _| head.kind == kind::DELTA, 1);
                }
                room
            }
            What::Topic { topic, payload, dup } => {
                if dup && self.adopt(pid) {
                    return Room::Kept;
                }
                let head = Head { kind: kind::TOPIC, pid, ..Head::default() };
                self.keep(head, &[Part::Short(topic.as_bytes()), Part::Rest(payload)])
            }
            What::Blob(bytes) => self.keep(Head { kind: kind::BLOB, pid, ..Head::default() }, &[Part::Rest(bytes)]),
            What::Sent { id, seq } => {
                let room = self.note(kind::OTHER, pid);
                if room == Room::Kept {
                    self.news(id, Outcome::Acked { seq });
                }
                room
            }
            What::Refused { id, why } => {
                let room = self.note(kind::OTHER, pid);
                if room == Room::Kept {
                    self.news(id, Outcome::Lost(Why::Refused(why)));
                }
                room
            }
            What::Paired { .. } | What::Other => self.note(kind::OTHER, pid),
        }
    }

    fn deliver_message(&mut self, pid: u16, message: &Message<'_>) -> Room {
        let Message { address, from, seq, pos, kind: word, text, body, re, backfill } = *message;
        let old = pos != 0 && pos <= self.last_pos;
        if old || (backfill && !self.config().listen.backfill()) {
            return self.note(kind::OTHER, pid);
        }
        let parts = [
            Part::U64(pos),
            Part::U64(seq),
            Part::U64(re),
            Part::Short(address.as_bytes()),
            Part::Short(from.as_bytes()),
            Part::Short(word.as_bytes()),
            Part::Text(text),
            Part::Rest(body.as_bytes()),
        ];
        self.keep(Head { kind: kind::MESSAGE, pid, ..Head::default() }, &parts)
    }

    /// Something that is only acknowledged, when everything before it is, and what its kind waits for has come.
    fn note(&mut self, kind: u8, pid: u16) -> Room {
        if pid == 0 {
            return Room::Kept;
        }
        let room = self.keep(Head { kind, pid, state: TAKEN, ..Head::default() }, &[]);
        self.acknowledge();
        room
    }

    fn keep(&mut self, head: Head, parts: &[Part<'_>]) -> Room {
        let head = Head { a: self.conn, ..head };
        let (_, buffer) = self.memory.rooms();
        let kept = self.inbox.push(buffer, head, &mut |room| write_parts(parts, room));
        if kept {
            self.wake_app();
        } else if self.inbox.used() == 0 && head.pid != 0 {
            // It will never fit: it is taken as unreadable, so that what is behind it comes.
            return self.note(kind::OTHER, head.pid);
        }
        // What wants no acknowledgement may be lost.
        if kept || head.pid == 0 { Room::Kept } else { Room::Full }
    }

    /// A topic's message that is still here, and now came on another connection.
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
        self.acknowledge();
    }

    /// Takes all rows of a kind but the last `but`.
    pub(super) fn take_rows(&mut self, which: &dyn Fn(&Head, &[u8]) -> bool, but: usize) {
        let waits = |head: &Head, data: &[u8]| head.state == WAITS && which(head, data);
        let (_, buffer) = self.memory.rooms();
        let mut count = 0usize;
        let mut row = self.inbox.first(buffer);
        while let Some((at, head)) = row {
            count += usize::from(waits(&head, Rows::data(buffer, at, head)));
            row = self.inbox.next(buffer, at, head);
        }
        for _ in but..count {
            let (_, buffer) = self.memory.rooms();
            if let Some((at, head)) = self.inbox.find(buffer, &waits) {
                self.take_row(at, head);
            }
        }
    }

    pub(crate) fn acknowledge(&mut self) {
        #[cfg(feature = "update")]
        let held = self.flash.update_offered;
        #[cfg(not(feature = "update"))]
        let held = false;
        let (_, buffer) = self.memory.rooms();
        while let Some((at, head)) = self.inbox.first(buffer) {
            // In MQTT 3.1.1 the broker may send more than there is room for acknowledgements: they wait here.
            if head.state != TAKEN || self.acks.is_full() || held && head.kind == kind::UPDATE {
                break;
            }
            // On an older connection the broker sends it again.
            if head.pid != 0 && head.a == self.conn {
                let _ = self.acks.push_back(head.pid);
            }
            self.inbox.remove(buffer, at, head);
        }
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

    /// Takes the next message: copies the row to `out`, for [`Received::read`]; the length of the row.
    pub fn copy_message(&mut self, out: &mut [u8]) -> Option<usize> {
        let (at, head) = self.waiting(kind::MESSAGE)?;
        let (_, buffer) = self.memory.rooms();
        let data = Rows::data(buffer, at, head);
        self.last_pos = self.last_pos.max(Take(data).u64());
        let len = data.len();
        copy(data, out);
        self.take_row(at, head);
        Some(len)
    }

    /// Takes the next message of an ordinary topic: copies the row to `out`, for [`Received::read_topic`].
    pub fn copy_topic(&mut self, out: &mut [u8]) -> Option<usize> {
        let (at, head) = self.waiting(kind::TOPIC)?;
        let (_, buffer) = self.memory.rooms();
        let data = Rows::data(buffer, at, head);
        let len = data.len();
        copy(data, out);
        self.take_row(at, head);
        Some(len)
    }

    /// Lets `read` have what is desired, and takes it.
    pub fn take_desired<R>(&mut self, read: impl FnOnce(Value<'_>) -> R) -> Option<R> {
        let (at, head) = self.waiting(kind::DELTA)?;
        let (_, buffer) = self.memory.rooms();
        let value = Value::parse(text(Rows::data(buffer, at, head))).unwrap_or(Value::NULL);
        let result = read(value);
        self.take_row(at, head);
        Some(result)
    }

    /// Takes a part of a blob.
    #[cfg(feature = "update")]
    pub(crate) fn take_blob(&mut self, out: &mut [u8]) -> Option<usize> {
        let (at, head) = self.waiting(kind::BLOB)?;
        let (_, buffer) = self.memory.rooms();
        let len = copy(Rows::data(buffer, at, head), out);
        self.take_row(at, head);
        Some(len)
    }

    /// Drops parts of blobs that nobody asked for any more.
    #[cfg(feature = "update")]
    pub(crate) fn drop_blobs(&mut self) {
        self.take_rows(&|head, _| head.kind == kind::BLOB, 0);
    }
}

fn copy(data: &[u8], out: &mut [u8]) -> usize {
    let len = data.len().min(out.len());
    if let (Some(from), Some(to)) = (data.get(..len), out.get_mut(..len)) {
        to.copy_from_slice(from);
    }
    len
}
