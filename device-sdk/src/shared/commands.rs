//! Commands: which the device has, how they go, and what it said of the last ones. A command that must never be begun
//! twice is in flash before the application sees it.

use super::inbox::kind;
use super::outbox::Part;
use super::persist::Flashed;
use super::{RECEIVE_MAX, Shared};
#[cfg(feature = "persist")]
use crate::bytes::Put;
use crate::bytes::{Take, text};
use crate::error::SendError;
use crate::json::{ToJson, Value, Writer};
use crate::rows::{Head, Rows};
use crate::wire::State;
use heapless::{String, Vec};

/// Commands that are remembered.
pub(crate) const RING: usize = 4;
const _: () = assert!(RING < RECEIVE_MAX as usize, "a command that waits for a place keeps its packet identifier");

/// Bytes of a result that are remembered; a longer one is not repeated.
const RESULT_BYTES: usize = 64;

/// Why a command is not carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reject {
    /// The device has no such command.
    Unknown,
    /// An argument is missing, or is not what it should be; its name.
    Argument(&'static str),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Free,
    /// Is being written to flash, before it begins.
    Recording,
    #[cfg(feature = "persist")]
    Recorded,
    /// The application is at it.
    Running,
    Answered,
}

#[derive(Clone, Debug)]
struct Entry {
    id: String<36>,
    stage: Stage,
    once: bool,
    canceled: bool,
    /// Flash does not say what is here.
    dirty: bool,
    /// The broker knows the outcome.
    known: bool,
    /// The outcome has to be said (again).
    say: bool,
    /// Of one that is answered.
    outcome: Option<State>,
    age: u16,
    /// JSON.
    result: Vec<u8, RESULT_BYTES>,
    /// For people.
    text: Option<&'static str>,
}

impl Entry {
    const FREE: Self = Self {
        id: String::new(),
        stage: Stage::Free,
        once: false,
        canceled: false,
        dirty: false,
        known: false,
        say: false,
        outcome: None,
        age: 0,
        result: Vec::new(),
        text: None,
    };

    fn answer(&mut self, outcome: State, text: &'static str) {
        self.stage = Stage::Answered;
        self.outcome = Some(outcome);
        self.text = Some(text);
        self.known = false;
        self.say = true;
        self.dirty = self.once;
    }
}

/// The last commands.
#[derive(Debug)]
pub(crate) struct Ring {
    entries: [Entry; RING],
    age: u16,
}

impl Ring {
    pub(super) const fn new() -> Self {
        Self { entries: [Entry::FREE; RING], age: 0 }
    }

    fn find(&mut self, id: &str) -> Option<&mut Entry> {
        self.entries.iter_mut().find(|entry| entry.stage != Stage::Free && entry.id == id)
    }

    /// A place for one more: a free one, or that of the oldest whose outcome the broker has.
    fn enter(&mut self, id: &str, once: bool) -> Option<&mut Entry> {
        let now = self.age;
        let free = |entry: &&mut Entry| {
            entry.stage == Stage::Free || (entry.stage == Stage::Answered && entry.known && !entry.dirty && !entry.say)
        };
        let age = |entry: &&mut Entry| if entry.stage == Stage::Free { u16::MAX } else { now.wrapping_sub(entry.age) };
        let entry = self.entries.iter_mut().filter(free).max_by_key(age)?;
        self.age = self.age.wrapping_add(1);
        let id = String::try_from(id).ok()?;
        *entry = Entry { id, once, age: now, stage: Stage::Running, ..Entry::FREE };
        Some(entry)
    }

    /// The broker has the outcome.
    pub(super) fn told(&mut self, id: &str, flash: &Flashed) {
        if let Some(entry) = self.find(id)
            && entry.stage == Stage::Answered
        {
            entry.known = true;
            entry.dirty = entry.once && flash.keeps();
        }
    }

    /// The first that flash does not have as it is.
    #[cfg(feature = "persist")]
    pub(super) fn dirty(&self) -> Option<u8> {
        let at = self.entries.iter().position(|entry| entry.dirty)?;
        u8::try_from(at).ok()
    }

    /// As bytes for flash.
    #[cfg(feature = "persist")]
    pub(super) fn save(&self, at: u8, out: &mut [u8]) -> Option<usize> {
        let entry = self.entries.get(usize::from(at))?;
        let mut put = Put::new(out);
        let answered = entry.stage == Stage::Answered;
        put.bytes(&[u8::from(answered), u8::from(entry.known), entry.outcome.map_or(0, |outcome| outcome as u8)]);
        put.short(entry.id.as_bytes());
        put.bytes(&entry.result);
        put.done()
    }

    /// Flash has it, or not.
    #[cfg(feature = "persist")]
    pub(super) fn saved(&mut self, at: u8, ok: bool) {
        let Some(entry) = self.entries.get_mut(usize::from(at)) else { return };
        if entry.dirty {
            // That was what stood here before; what stands here now is yet to be written.
            return;
        }
        match (entry.stage, ok) {
            (Stage::Recording, true) => entry.stage = Stage::Recorded,
            (Stage::Recording, false) => {
                entry.answer(State::Rejected, "the device could not record the command");
                entry.dirty = false;
            }
            _ => {}
        }
    }

    /// It is written once more.
    #[cfg(feature = "persist")]
    pub(super) fn redo(&mut self, at: u8) {
        if let Some(entry) = self.entries.get_mut(usize::from(at)) {
            entry.dirty = true;
        }
    }

    #[cfg(feature = "persist")]
    pub(super) fn clean(&mut self, at: u8) {
        if let Some(entry) = self.entries.get_mut(usize::from(at)) {
            entry.dirty = false;
        }
    }

    /// From flash, at start: what had begun has an unknown outcome, what was answered and not heard is said again.
    #[cfg(feature = "persist")]
    pub(super) fn load(&mut self, at: u8, bytes: &[u8]) {
        let age = self.age;
        let Some(entry) = self.entries.get_mut(usize::from(at)) else { return };
        let mut take = Take(bytes);
        let (answered, known, outcome) = (take.u8() == 1, take.u8() == 1, take.u8());
        let Ok(id) = String::try_from(take.short()) else { return };
        if id.is_empty() {
            return;
        }
        *entry = Entry { id, once: true, age, ..Entry::FREE };
        if answered {
            entry.answer(State::from_byte(outcome), "");
            entry.result = Vec::from_slice(take.rest()).unwrap_or_default();
        } else {
            entry.answer(State::UnknownOutcome, "the device restarted");
        }
        entry.dirty = false;
        entry.known = answered && known;
        entry.say = !entry.known;
        self.age = self.age.wrapping_add(1);
    }
}

/// A command that the application has taken.
#[derive(Clone, Debug)]
pub struct Taken {
    /// Of the command.
    pub id: String<36>,
    /// Who wants it.
    pub from: String<32>,
    /// On the device's clock, milliseconds; none: it does not end.
    pub deadline: Option<u64>,
    /// Is never begun twice.
    pub once: bool,
}

/// What is said of a command.
#[derive(Clone, Copy)]
pub struct Answer<'a> {
    /// How it goes.
    pub state: State,
    /// For people; may be empty.
    pub text: &'a str,
    /// Of an outcome.
    pub result: Option<&'a dyn ToJson>,
}

impl core::fmt::Debug for Answer<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Answer").field("state", &self.state).field("text", &self.text).finish_non_exhaustive()
    }
}

impl Shared {
    /// Takes the next command that `accept` accepts; those before it are answered here. `None`: there is none yet.
    pub fn take_command(
        &mut self,
        now: u64,
        update: bool,
        accept: &mut dyn FnMut(&str, Value<'_>) -> Result<(), Reject>,
    ) -> Option<Taken> {
        let kind = if update { kind::UPDATE } else { kind::COMMAND };
        loop {
            let (at, head) = self.waiting(kind)?;
            let (_, buffer) = self.memory.rooms();
            let mut take = Take(Rows::data(buffer, at, head));
            let (id, name, from) = (take.short(), take.short(), take.short());
            let args = text(take.rest());
            let once = head.flags & 1 != 0;
            let deadline = deadline(now, head);
            if deadline.is_some_and(|deadline| deadline <= now) {
                // The broker says so itself, and begins the next.
                self.take_row(at, head);
                continue;
            }
            let recorded = match self.ring.find(id) {
                Some(entry) if entry.stage == Stage::Answered => {
                    entry.say = true;
                    self.take_row(at, head);
                    continue;
                }
                Some(entry) if entry.stage == Stage::Running => {
                    self.take_row(at, head);
                    continue;
                }
                Some(entry) if entry.stage == Stage::Recording => return None,
                Some(_) => true,
                None => false,
            };
            let args = Value::parse(if args.is_empty() { "{}" } else { args }).unwrap_or(Value::NULL);
            let taken = Taken {
                id: String::try_from(id).unwrap_or_default(),
                from: String::try_from(from).unwrap_or_default(),
                deadline,
                once,
            };
            if !recorded {
                let rejected = match accept(name, args) {
                    Ok(()) if once && !self.flash.keeps() => Some("this device cannot record a command"),
                    Ok(()) => None,
                    Err(Reject::Unknown) => Some("this device has no such command"),
                    Err(Reject::Argument(name)) => Some(name),
                };
                let Some(entry) = self.ring.enter(&taken.id, once && rejected.is_none()) else {
                    #[cfg(feature = "persist")]
                    self.give_up_orphans();
                    return None;
                };
                if let Some(why) = rejected {
                    entry.answer(State::Rejected, why);
                    self.take_row(at, head);
                    continue;
                }
                if once {
                    entry.stage = Stage::Recording;
                    entry.dirty = true;
                    self.wake_runner();
                    return None;
                }
            } else if accept(name, args).is_err() {
                // It was accepted before it was recorded; another caller would have to take it.
                return None;
            }
            if let Some(entry) = self.ring.find(&taken.id) {
                entry.stage = Stage::Running;
            }
            #[cfg(feature = "update")]
            if update {
                self.hold_offer();
            }
            self.take_row(at, head);
            return Some(taken);
        }
    }

    /// There is no place for one more: commands that were recorded and did not begin, because they were canceled, their time
    /// was over, or the connection ended and they never came again, never will, and that is said.
    #[cfg(feature = "persist")]
    fn give_up_orphans(&mut self) {
        for at in 0..RING {
            let Some(entry) = self.ring.entries.get(at).filter(|entry| entry.stage == Stage::Recorded) else {
                continue;
            };
            let (_, buffer) = self.memory.rooms();
            let is_command = |head: &Head| matches!(head.kind, kind::COMMAND | kind::UPDATE);
            let row = self.inbox.find(buffer, &|head, data| is_command(head) && *Take(data).short() == *entry.id);
            if row.is_none()
                && let Some(entry) = self.ring.entries.get_mut(at)
            {
                entry.answer(State::Rejected, "the command did not begin");
                self.wake_runner();
            }
        }
    }

    /// Says how a command goes.
    pub fn answer(&mut self, id: &str, answer: Answer<'_>) -> Result<(), SendError> {
        let Some(entry) = self.ring.find(id) else { return Ok(()) };
        if entry.stage != Stage::Running {
            return Ok(());
        }
        let result = answer.result.map_or(Part::Bytes(&[]), Part::Json);
        self.push_result(id, answer.state, answer.text, result)?;
        if answer.state == State::Running {
            return Ok(());
        }
        let keeps = self.flash.keeps();
        if let Some(entry) = self.ring.find(id) {
            entry.answer(answer.state, "");
            entry.say = false;
            entry.dirty = entry.once && keeps;
            let mut room = [0; RESULT_BYTES];
            let mut json = Writer::new(&mut room);
            if let Some(result) = answer.result {
                result.to_json(&mut json);
            }
            entry.result = json.finish().and_then(|json| Vec::from_slice(json.as_bytes()).ok()).unwrap_or_default();
        }
        self.wake_both();
        Ok(())
    }

    /// Says how a command goes, also one of an earlier start of the device.
    #[cfg(feature = "update")]
    pub(crate) fn say_result(&mut self, id: &str, answer: Answer<'_>) -> Result<(), SendError> {
        if self.ring.find(id).is_some() {
            return self.answer(id, answer);
        }
        let result = answer.result.map_or(Part::Bytes(&[]), Part::Json);
        self.push_result(id, answer.state, answer.text, result).map(drop)
    }

    /// The application has dropped a command without an answer.
    pub(crate) fn abandon(&mut self, id: &str) {
        if let Some(entry) = self.ring.find(id)
            && entry.stage == Stage::Running
        {
            entry.answer(State::Failed, "the device gave no answer");
            self.wake_runner();
        }
    }

    /// Queues the outcomes that still have to be said; those for which there is no room wait.
    pub(crate) fn say_outcomes(&mut self) {
        for at in 0..RING {
            let Some(entry) = self.ring.entries.get(at) else { return };
            if !entry.say {
                continue;
            }
            let Entry { id, outcome, text, result, .. } = entry.clone();
            let outcome = outcome.unwrap_or(State::Failed);
            if self.push_result(&id, outcome, text.unwrap_or(""), Part::Bytes(&result)).is_ok()
                && let Some(entry) = self.ring.entries.get_mut(at)
            {
                entry.say = false;
            }
        }
    }

    /// Whether the application is at this command.
    #[cfg(feature = "update")]
    pub(super) fn is_running(&mut self, id: &str) -> bool {
        self.ring.find(id).is_some_and(|entry| entry.stage == Stage::Running)
    }

    /// Whether the requester has taken a command back.
    pub(crate) fn is_canceled(&mut self, id: &str) -> bool {
        self.ring.find(id).is_some_and(|entry| entry.canceled)
    }

    /// The requester has taken a command back.
    pub(super) fn cancel(&mut self, id: &str) {
        self.take_rows(&|head, data| matches!(head.kind, kind::COMMAND | kind::UPDATE) && Take(data).short() == id, 0);
        if let Some(entry) = self.ring.find(id) {
            entry.canceled = true;
            self.wake_app();
        }
    }
}

/// When a command ends, on the device's clock; see where the row is made.
fn deadline(now: u64, head: Head) -> Option<u64> {
    if head.b == 0 {
        return None;
    }
    #[allow(clippy::cast_possible_wrap, reason = "the sign says whether it is over")]
    let left = head.b.wrapping_sub((now & 0xFFFF_FFFF) as u32) as i32;
    Some(now.saturating_add_signed(left.into()))
}
