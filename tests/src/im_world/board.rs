//! Commands: who asks, and a board that carries them out, reboots in between, and never does twice what is said once.

use super::World;
use super::cast::LAMP;
use super::model::{ImClass, SLACK_MS};
use super::terminal::{Errand, Job, Mode};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// Every outcome there is.
const OUTCOMES: [&str; 7] = ["done", "failed", "rejected", "expired", "timeout", "canceled", "unknown_outcome"];

/// A command as its requester knows it, and what the board did for it.
#[derive(Debug, Clone, Default)]
pub struct Command {
    /// Account that asked.
    pub from: String,
    /// Client id.
    pub id: String,
    pub(crate) once: bool,
    pub(crate) deadline_ms: u64,
    /// When it was first asked for, and when that was acknowledged; virtual milliseconds.
    pub(crate) asked_ms: u64,
    /// See `asked_ms`.
    pub told_ms: Option<u64>,
    /// Its outcome, as the first who heard of it did.
    pub outcome: Option<String>,
    /// It was asked to be canceled.
    pub(crate) is_canceled: bool,
    /// Names under which the board got it.
    pub(crate) names: BTreeSet<String>,
    /// The board has acknowledged it, or said something of it.
    pub(crate) is_delivered: bool,
    /// What the board said of it.
    pub(crate) said: BTreeSet<&'static str>,
    /// How often it was carried out.
    pub runs: u32,
}

/// The board: what is in its flash, and what it does now.
#[derive(Debug, Default)]
pub(super) struct Board {
    /// Begun, by the name the broker gave it.
    begun: BTreeSet<String>,
    /// Said to be over: the state.
    over: BTreeMap<String, &'static str>,
    /// Carried out now: name, number, until when.
    busy: Option<(String, usize, u64)>,
    /// How often the power had failed when that was begun.
    crashes: u32,
}

impl Board {
    pub(super) fn is_idle(&self) -> bool {
        self.busy.is_none()
    }
}

impl World<'_> {
    /// No deadline of a command is to come.
    pub(super) fn commands_are_over(&self) -> bool {
        let is_over =
            |c: &Command| c.outcome.is_some() || c.told_ms.is_none_or(|at| at + c.deadline_ms + SLACK_MS < self.now_ms);
        self.model.commands.iter().all(is_over)
    }

    // ---- Whoever asks ------------------------------------------------------------------------------------------

    pub(super) fn command(&mut self, number: usize) {
        let who = self.terminals[number].who.clone();
        if !matches!(who.mode, Mode::Push(1) | Mode::Pull) {
            return;
        }
        let open = |c: &(usize, &Command)| c.1.from == who.account && c.1.outcome.is_none();
        let open: Vec<usize> = self.model.commands.iter().enumerate().filter(open).map(|(no, _)| no).collect();
        if !open.is_empty() && self.rng.chance(25) {
            let no = open[self.rng.at(open.len())];
            self.model.count("canceled");
            self.model.commands[no].is_canceled = true;
            let topic = format!("im/v1/to/{LAMP}/cmdcancel/{}", self.model.commands[no].id);
            return self.terminals[number].publish(Errand::new(Job::Cancel, topic, ""));
        }
        let no = self.model.commands.len();
        let once = self.rng.chance(40);
        let persist = self.rng.chance(20);
        let deadline_ms = if persist { self.rng.between(4_000, 12_000) } else { self.rng.between(500, 5_000) };
        let id = format!("k{no}");
        let payload = json!({
            "args": { "n": no }, "id": id, "deadline_ms": deadline_ms, "persist": persist, "once": once,
        });
        self.model.count("commands");
        self.model.commands.push(Command {
            from: who.account,
            id,
            once,
            deadline_ms,
            asked_ms: self.now_ms,
            ..Command::default()
        });
        let errand = Errand::new(Job::Command(no), format!("im/v1/to/{LAMP}/cmd/set"), payload.to_string());
        self.terminals[number].publish(errand);
    }

    /// A change of a command reaches one who asked.
    pub(super) fn command_changed(&mut self, number: usize, value: &Value) {
        let who = self.terminals[number].who.clone();
        let (id, state) = (value["id"].as_str().unwrap_or_default(), value["state"].as_str().unwrap_or_default());
        let Some(no) = self.model.commands.iter().position(|c| c.id == id && c.from == who.account) else {
            return self
                .model
                .blame(ImClass::Leak, format!("{} heard of a command that is not its own: {value}", who.name));
        };
        let command = &mut self.model.commands[no];
        let before = command.outcome.clone();
        let is_outcome = OUTCOMES.contains(&state);
        if is_outcome {
            command.outcome.get_or_insert_with(|| state.to_owned());
        }
        let (said, is_delivered, is_canceled) = (command.said.clone(), command.is_delivered, command.is_canceled);
        if let Some(before) = before
            && is_outcome
            && before != state
        {
            self.model.blame(ImClass::Command, format!("{}: command {id} is {state}, and was {before}", who.name));
        }
        let is_true = match state {
            "delivered" => is_delivered,
            "running" | "done" | "failed" | "rejected" | "unknown_outcome" => said.contains(state),
            "canceled" => is_canceled,
            _ => true,
        };
        if !is_true {
            self.model.blame(ImClass::Command, format!("{} heard {value}; the board said {said:?}", who.name));
        }
        let view = &mut self.model.views[number];
        let pos = value["pos"].as_u64().unwrap_or_default();
        if pos > 0 && is_outcome {
            view.outcomes.insert(id.to_owned(), pos);
        } else if view.outcomes.get(id).is_some_and(|end| pos > *end) {
            self.model.blame(ImClass::Command, format!("{} heard {value} after its outcome", who.name));
        }
    }

    // ---- The board ---------------------------------------------------------------------------------------------

    /// A command comes. Its acknowledgement means that it is delivered.
    pub(super) fn commanded(&mut self, number: usize, name: &str, value: &Value) {
        let Some(no) = value["args"]["n"].as_u64().and_then(|no| usize::try_from(no).ok()) else { return };
        let now_ms = self.now_ms;
        let Some(command) = self.model.commands.get_mut(no) else { return };
        command.names.insert(name.to_owned());
        let (names, from, once) = (command.names.clone(), command.from.clone(), command.once);
        let last_ms = command.told_ms.map(|at| at + command.deadline_ms);
        if names.len() > 1 {
            self.model.blame(ImClass::Duplicate, format!("command {no} came to the board as {names:?}"));
        }
        if value["from"] != from.as_str() || value["once"].as_bool().unwrap_or_default() != once {
            self.model.blame(ImClass::Command, format!("command {no} of {from} came as {value}"));
        }
        if last_ms.is_some_and(|at| at + SLACK_MS < now_ms) || value["left_ms"] == 0 {
            self.model.blame(ImClass::LateDelivery, format!("command {no} came at {now_ms}: {value}; due {last_ms:?}"));
        }
        let is_another = self.board.busy.as_ref().is_some_and(|(other, ..)| other != name);
        if let Some(state) = self.board.over.get(name).copied() {
            self.answer_command(number, name, no, state);
        } else if self.board.begun.contains(name) && once && !self.is_busy_with(name) {
            // It was begun before a reboot: whether it was carried out nobody knows.
            self.board.over.insert(name.to_owned(), "unknown_outcome");
            self.answer_command(number, name, no, "unknown_outcome");
        } else if is_another {
            // The other one's deadline must be over, or near; or an outcome that made room for it was lost with the power.
            let other = self.board.busy.as_ref().map_or(0, |(_, other, _)| *other);
            let c = &self.model.commands[other];
            let is_lost = self.board.crashes != self.crashes;
            if !is_lost && !c.is_canceled && now_ms < c.asked_ms + c.deadline_ms {
                let text = format!("command {no} came while the board carries out {other}: {c:?}");
                self.model.blame(ImClass::Command, text);
            }
            self.answer_command(number, name, no, "rejected");
            self.board.over.insert(name.to_owned(), "rejected");
        } else if !self.is_busy_with(name) {
            self.board.begun.insert(name.to_owned());
            self.model.commands[no].runs += 1;
            let runs = self.model.commands[no].runs;
            if once && runs > 1 {
                self.model.blame(ImClass::Duplicate, format!("command {no} was carried out {runs} times"));
            }
            self.board.crashes = self.crashes;
            self.board.busy = Some((name.to_owned(), no, now_ms + self.rng.below(400)));
            if self.rng.chance(40) {
                self.answer_command(number, name, no, "running");
            }
        }
    }

    fn is_busy_with(&self, name: &str) -> bool {
        self.board.busy.as_ref().is_some_and(|(busy, ..)| busy == name)
    }

    fn answer_command(&mut self, number: usize, name: &str, no: usize, state: &'static str) {
        let command = &mut self.model.commands[no];
        command.said.insert(state);
        command.is_delivered = true;
        let mut payload = json!({ "state": state });
        if state == "done" {
            payload["result"] = json!({ "n": no });
        }
        let topic = format!("im/v1/me/cmdres/{name}");
        self.terminals[number].publish(Errand::new(Job::Report, topic, payload.to_string()));
    }

    /// The board does what it does between packets.
    pub(super) fn run_board(&mut self, number: usize) {
        if !self.calm && self.rng.chance(2) && self.board.busy.take().is_some() {
            self.model.count("reboots");
            return self.cut_by_client(number);
        }
        if let Some((name, no, _)) = self.board.busy.take_if(|(_, _, until)| *until <= self.now_ms) {
            let state = if self.rng.chance(80) { "done" } else { "failed" };
            self.board.over.insert(name.clone(), state);
            self.answer_command(number, &name, no, state);
        }
    }
}
