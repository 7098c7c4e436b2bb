//! What is kept of each command: its state, its place in the device's queue, and its row.

use super::super::Asker;
use super::super::json::{put_field, put_str, put_text};
use super::super::model::AccountNo;
use super::super::row::{RowWriter, read_u32, reader};
use crate::store::bytes::DecodeError;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// How far a command has come. The numbers are stored, in rows and in mailbox entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum State {
    /// Accepted; the device has not been sent it, or has lost it before it acknowledged it.
    Queued = 0,
    /// Sent, and not acknowledged.
    Sent = 1,
    /// Acknowledged by the device's client.
    Delivered = 2,
    /// The device says that it is at it.
    Running = 3,
    Done = 4,
    Failed = 5,
    Rejected = 6,
    /// The deadline came before the device had it.
    Expired = 7,
    /// The deadline came before the device said how it went.
    Timeout = 8,
    Canceled = 9,
    /// The device restarted after it had begun.
    UnknownOutcome = 10,
}

const STATES: [(State, &str); 11] = [
    (State::Queued, "queued"),
    (State::Sent, "sent"),
    (State::Delivered, "delivered"),
    (State::Running, "running"),
    (State::Done, "done"),
    (State::Failed, "failed"),
    (State::Rejected, "rejected"),
    (State::Expired, "expired"),
    (State::Timeout, "timeout"),
    (State::Canceled, "canceled"),
    (State::UnknownOutcome, "unknown_outcome"),
];

/// Of a queued command and its three further steps, and of every outcome.
const PHASES: usize = 5;

impl State {
    /// The state with this number.
    pub(crate) fn of(number: u32) -> Option<Self> {
        STATES.iter().map(|(state, _)| *state).find(|state| *state as u32 == number)
    }

    /// The state with this name.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        STATES.iter().find(|(_, name)| *name == text).map(|(state, _)| *state)
    }

    pub(crate) fn text(self) -> &'static str {
        STATES.iter().find(|(state, _)| *state == self).map_or("", |(_, name)| name)
    }

    /// Nothing comes after it.
    pub(crate) fn is_outcome(self) -> bool {
        self >= Self::Done
    }

    /// The device has it, or may have it.
    pub(crate) fn is_under_way(self) -> bool {
        matches!(self, Self::Sent | Self::Delivered | Self::Running)
    }

    fn phase(self) -> usize {
        (self as usize).min(PHASES - 1)
    }
}

/// One command.
#[derive(Debug)]
pub(super) struct Command {
    pub(super) requester: AccountNo,
    pub(super) state: State,
    /// What the requester calls it.
    pub(super) id: Rc<str>,
    /// What the device calls it: `id`, unless the device knows another command by that.
    pub(super) device_id: Rc<str>,
    pub(super) name: Rc<str>,
    /// Second half of the key under which the client id is remembered; 0: the client gave none.
    pub(super) key: u64,
    /// Tells two commands with the same client id apart.
    pub(super) content: u64,
    pub(super) once: bool,
    /// Milliseconds since 1970.
    pub(super) deadline_ms: u64,
    /// JSON text; empty once there is an outcome.
    pub(super) args: Rc<str>,
    /// JSON text of the outcome, or how far it is; empty: none.
    pub(super) result: Rc<str>,
    /// What the device says of the outcome, or while it runs.
    pub(super) text: Rc<str>,
    /// When it came into each phase last, milliseconds since 1970; 0: never.
    times: [u64; PHASES],
    /// Position of the latest entry about it in the requester's mailbox; 0: from before the start.
    pub(super) pos: u64,
    /// Session and generation that it was sent to.
    pub(super) sent_to: Option<(u32, u32)>,
    /// When the requester was last told how far it is, by the clock that only moves forward.
    pub(super) told_ms: u64,
    /// The device has said more since then.
    pub(super) is_untold: bool,
    /// The session that asked with a Response Topic: it gets the outcome there, if it is still there itself.
    pub(super) asker: Option<Asker>,
}

impl Command {
    pub(super) fn new(requester: AccountNo, id: Rc<str>, name: Rc<str>) -> Self {
        Self {
            requester,
            state: State::Queued,
            device_id: Rc::clone(&id),
            id,
            name,
            key: 0,
            content: 0,
            once: false,
            deadline_ms: 0,
            args: "".into(),
            result: "".into(),
            text: "".into(),
            times: [0; PHASES],
            pos: 0,
            sent_to: None,
            told_ms: 0,
            is_untold: false,
            asker: None,
        }
    }

    /// Goes into a state.
    pub(super) fn enter(&mut self, state: State, wall_ms: u64) {
        self.state = state;
        if let Some(time) = self.times.get_mut(state.phase()) {
            *time = wall_ms.max(1);
        }
        if state.is_outcome() {
            self.args = "".into();
        }
    }

    /// When it came into this state, milliseconds since 1970; 0: never.
    pub(super) fn since(&self, state: State) -> u64 {
        self.times.get(state.phase()).copied().unwrap_or(0)
    }

    /// It was sent to the device at least once.
    pub(super) fn was_sent(&self) -> bool {
        self.since(State::Sent) != 0
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut w = RowWriter(Vec::with_capacity(96 + self.args.len() + self.result.len() + self.text.len()));
        w.byte(1).byte(self.state as u8).flag(self.once).int(self.requester.0.into());
        w.int(self.key).int(self.content).int(self.deadline_ms);
        let mut before = 0;
        for time in self.times {
            // Most come soon after the one before; 0 stays 0.
            w.int(if time == 0 { 0 } else { time.saturating_sub(before) + 1 });
            before = before.max(time);
        }
        let device_id = if self.device_id == self.id { "" } else { &*self.device_id };
        w.str(&self.id).str(device_id).str(&self.name).str(&self.args).str(&self.result).str(&self.text);
        w.0
    }

    pub(super) fn decode(value: &[u8]) -> Result<Self, DecodeError> {
        let mut r = reader(value)?;
        let state = r.byte()?;
        let state = State::of(state.into()).ok_or(DecodeError::UnknownTag(state))?;
        let once = r.byte()? != 0;
        let mut command = Self::new(AccountNo(read_u32(&mut r)?), "".into(), "".into());
        (command.state, command.once) = (state, once);
        (command.key, command.content, command.deadline_ms) = (r.int()?, r.int()?, r.int()?);
        let mut before = 0u64;
        for time in &mut command.times {
            *time = match r.int()? {
                0 => 0,
                since => before.saturating_add(since - 1),
            };
            before = before.max(*time);
        }
        command.id = r.str()?.into();
        command.device_id = match r.str()? {
            "" => Rc::clone(&command.id),
            other => other.into(),
        };
        command.name = r.str()?.into();
        command.args = r.str()?.into();
        command.result = r.str()?.into();
        command.text = r.str()?.into();
        Ok(command)
    }

    /// What the requester is told of it when it was in `state`; `pos` 0: it is no mailbox entry that tells.
    pub(super) fn render(&self, device: &str, state: State, pos: u64) -> Vec<u8> {
        let mut out = Vec::with_capacity(128 + self.result.len() + self.text.len());
        out.extend_from_slice(b"{\"id\":");
        put_str(&mut out, &self.id);
        if pos != 0 {
            put_field(&mut out, "pos", pos);
        }
        put_text(&mut out, "device", device);
        put_text(&mut out, "name", &self.name);
        put_text(&mut out, "state", state.text());
        if state == self.state {
            if !self.result.is_empty() {
                out.extend_from_slice(b",\"result\":");
                out.extend_from_slice(self.result.as_bytes());
            }
            if !self.text.is_empty() {
                put_text(&mut out, "text", &self.text);
            }
        }
        put_field(&mut out, "ts", self.since(state));
        out.push(b'}');
        out
    }

    /// What the device is sent.
    pub(super) fn render_order(&self, from: &str, wall_ms: u64) -> Vec<u8> {
        let mut out = Vec::with_capacity(64 + self.args.len());
        out.extend_from_slice(b"{\"args\":");
        out.extend_from_slice(self.args.as_bytes());
        put_text(&mut out, "from", from);
        put_field(&mut out, "left_ms", self.deadline_ms.saturating_sub(wall_ms));
        if self.once {
            out.extend_from_slice(b",\"once\":true");
        }
        out.push(b'}');
        out
    }
}

/// The commands of one device.
#[derive(Debug)]
pub(super) struct Queue {
    /// Every one that is remembered, by its number.
    pub(super) commands: BTreeMap<u64, Command>,
    /// Those without an outcome.
    pub(super) open: BTreeSet<u64>,
    /// The number the next one gets; the first is 1.
    pub(super) next: u64,
    /// Timers that are set for the device, by the clock that only moves forward; each is earlier than the one before.
    pub(super) armed: Vec<u64>,
}

impl Default for Queue {
    fn default() -> Self {
        Self { commands: BTreeMap::new(), open: BTreeSet::new(), next: 1, armed: vec![] }
    }
}

impl Queue {
    /// Those without an outcome, in the order they came.
    pub(super) fn waiting(&self) -> impl Iterator<Item = (u64, &Command)> {
        self.open.iter().filter_map(|no| self.commands.get(no).map(|command| (*no, command)))
    }

    /// The next one that may be sent, when at most `window` are under way at the same time.
    pub(super) fn next_to_send(&self, window: u64) -> Option<u64> {
        let under_way = self.waiting().filter(|(_, command)| command.state.is_under_way()).count() as u64;
        if under_way >= window {
            return None;
        }
        self.waiting().find(|(_, command)| command.state == State::Queued).map(|(no, _)| no)
    }

    /// The one the device knows by this id.
    pub(super) fn by_device_id(&self, id: &str) -> Option<u64> {
        self.commands.iter().rev().find(|(_, command)| *command.device_id == *id).map(|(no, _)| *no)
    }

    /// The latest one that this requester knows by this id.
    pub(super) fn by_requester(&self, requester: AccountNo, id: &str) -> Option<u64> {
        let is_it = |command: &Command| command.requester == requester && *command.id == *id;
        self.commands.iter().rev().find(|(_, command)| is_it(command)).map(|(no, _)| *no)
    }

    /// The first one with an outcome, unless it is the last one of all: that one stays, so that no number is given twice.
    pub(super) fn first_finished(&self) -> Option<(u64, &Command)> {
        let last = self.next - 1;
        self.commands.iter().find(|(no, command)| command.state.is_outcome() && **no != last).map(|(no, c)| (*no, c))
    }
}

/// Every command that is remembered.
#[derive(Debug, Default)]
pub(crate) struct Commands {
    pub(super) devices: BTreeMap<AccountNo, Queue>,
    /// By requester and the hash of its terminal and client id: device and number.
    pub(super) by_key: BTreeMap<(AccountNo, u64), (AccountNo, u64)>,
}

impl Commands {
    pub(super) fn get(&self, device: AccountNo, no: u64) -> Option<&Command> {
        self.devices.get(&device)?.commands.get(&no)
    }

    pub(super) fn get_mut(&mut self, device: AccountNo, no: u64) -> Option<&mut Command> {
        self.devices.get_mut(&device)?.commands.get_mut(&no)
    }

    /// Takes in a command, new or found at start.
    pub(super) fn add(&mut self, device: AccountNo, no: u64, command: Command) {
        if command.key != 0 {
            self.by_key.insert((command.requester, command.key), (device, no));
        }
        let queue = self.devices.entry(device).or_default();
        if !command.state.is_outcome() {
            queue.open.insert(no);
        }
        queue.next = queue.next.max(no + 1);
        queue.commands.insert(no, command);
    }

    /// Forgets a command.
    pub(super) fn remove(&mut self, device: AccountNo, no: u64) {
        let Some(queue) = self.devices.get_mut(&device) else { return };
        queue.open.remove(&no);
        if let Some(command) = queue.commands.remove(&no)
            && self.by_key.get(&(command.requester, command.key)) == Some(&(device, no))
        {
            self.by_key.remove(&(command.requester, command.key));
        }
    }
}
