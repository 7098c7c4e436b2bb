//! What was promised, and what has happened.

use parlor_device::{Outcome, Why};
use serde_json::Value;
use std::collections::BTreeMap;

/// A promise that was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub promise: &'static str,
    /// How.
    pub text: String,
}

/// How far a message to an ordinary topic is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Published {
    /// The broker has not acknowledged it.
    Open,
    /// It has, and nobody listens.
    Unheard,
    /// It has, and the board has to get it.
    Accepted,
    /// The board has it.
    Taken,
}

#[derive(Debug, Default)]
struct Sent {
    /// It is to be in flash, and flash has it.
    in_flash: bool,
    kept: bool,
    /// The board rebooted before its outcome was known.
    forgotten: bool,
    outcome: Option<Outcome>,
}

#[derive(Debug)]
struct Command {
    once: bool,
    deadline_ms: u64,
    asked_ms: u64,
    told_ms: Option<u64>,
    /// Start of the board, and when.
    acts: Vec<(u32, u64)>,
    answered: bool,
    outcome: Option<String>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Model {
    pub(super) violations: Vec<Violation>,
    pub(super) tally: BTreeMap<&'static str, u64>,
    /// What Alice has written, and its seq once that is acknowledged.
    pub(super) written: BTreeMap<u64, Option<u64>>,
    /// What she has published where the board listens.
    pub(super) published: BTreeMap<u64, Published>,
    taken: Vec<(u32, u64, String)>,
    sent: BTreeMap<String, Sent>,
    heard: Vec<(u64, String)>,
    measured: Vec<String>,
    commands: BTreeMap<u64, Command>,
    /// The command that was given when nothing failed any more.
    pub(super) last: Option<u64>,
    pub(super) state: Value,
}

const OUTCOMES: [&str; 7] = ["done", "failed", "rejected", "expired", "timeout", "canceled", "unknown_outcome"];

/// On its way a command may be held up; the board counts from when it has it.
const SLACK_MS: u64 = 1_500;

impl Model {
    pub(super) fn count(&mut self, what: &'static str) {
        *self.tally.entry(what).or_insert(0) += 1;
    }

    pub(super) fn blame(&mut self, promise: &'static str, text: String) {
        self.violations.push(Violation { promise, text });
    }

    // ---- Sent by the board -------------------------------------------------------------------------------------

    pub(super) fn queued(&mut self, name: &str, in_flash: bool) {
        self.count("queued");
        self.sent.insert(name.to_owned(), Sent { in_flash, ..Sent::default() });
    }

    pub(super) fn kept(&mut self, name: &str) {
        if let Some(sent) = self.sent.get_mut(name) {
            sent.kept = sent.in_flash;
        }
    }

    pub(super) fn became(&mut self, name: &str, outcome: Outcome) {
        self.count(match outcome {
            Outcome::Acked { .. } => "acked",
            Outcome::Lost(Why::Replaced) => "replaced",
            Outcome::Lost(Why::Dropped) => "dropped",
            Outcome::Lost(_) => "lost",
        });
        let Some(sent) = self.sent.get_mut(name) else { return };
        if let Some(before) = sent.outcome.replace(outcome) {
            self.blame("there is one outcome", format!("{name} was {before:?} and is {outcome:?}"));
        }
        if let Outcome::Lost(why) = outcome
            && !matches!(why, Why::Replaced | Why::Dropped | Why::Flash)
        {
            self.blame("nothing is lost without a reason that is there", format!("{name}: {why:?}"));
        }
    }

    /// Whether flash was seen to have it.
    pub(super) fn is_kept(&self, name: &str) -> bool {
        self.sent.get(name).is_some_and(|sent| sent.kept)
    }

    /// The board has rebooted.
    pub(super) fn forgotten(&mut self, name: &str, outcome: Option<Outcome>) {
        if let Some(sent) = self.sent.get_mut(name) {
            sent.forgotten = outcome.is_none();
        }
    }

    pub(super) fn heard(&mut self, seq: u64, text: &str) {
        self.count("heard by alice");
        self.heard.push((seq, text.to_owned()));
    }

    pub(super) fn measured(&mut self, topic: &str, value: &str) {
        self.measured.push(format!("t/{topic} {value}"));
    }

    // ---- Taken by the board ------------------------------------------------------------------------------------

    pub(super) fn taken(&mut self, boot: u32, seq: u64, text: &str) {
        self.count("taken by the board");
        if self.taken.iter().any(|(b, s, _)| (*b, *s) == (boot, seq)) {
            self.blame("no message is taken twice in one start", format!("seq {seq} {text:?}"));
        }
        if let Some((_, last, _)) = self.taken.iter().rfind(|(b, ..)| *b == boot)
            && *last > seq
        {
            let last = *last;
            self.blame("messages come in order", format!("{seq} after {last}"));
        }
        self.taken.push((boot, seq, text.to_owned()));
    }

    /// The broker has acknowledged what Alice has published.
    pub(super) fn topic_accepted(&mut self, n: u64, is_heard: bool) {
        let published = self.published.entry(n).or_insert(Published::Open);
        if *published == Published::Open {
            *published = if is_heard { Published::Accepted } else { Published::Unheard };
        }
    }

    pub(super) fn topic_taken(&mut self, topic: &str, payload: &[u8]) {
        self.count("ordinary messages taken");
        let n: Option<u64> = std::str::from_utf8(payload).ok().and_then(|text| text.parse().ok());
        match n.and_then(|n| self.published.get_mut(&n)) {
            Some(published) if topic == "in/lamp" => *published = Published::Taken,
            _ => self.blame("the board takes what was published", format!("{topic} {payload:?}")),
        }
    }

    pub(super) fn topics_are_taken(&self) -> bool {
        self.published.values().all(|published| *published != Published::Accepted)
    }

    // ---- Commands ----------------------------------------------------------------------------------------------

    pub(super) fn commanded(&mut self, n: u64, once: bool, deadline_ms: u64, now: u64) {
        self.count("commands");
        let command =
            Command { once, deadline_ms, asked_ms: now, told_ms: None, acts: vec![], answered: false, outcome: None };
        self.commands.insert(n, command);
    }

    pub(super) fn told(&mut self, n: u64, now: u64) {
        if let Some(command) = self.commands.get_mut(&n) {
            command.told_ms.get_or_insert(now);
        }
    }

    pub(super) fn acts(&mut self, n: u64, boot: u32, now: u64, once: bool) {
        self.count(if once { "acts on once" } else { "acts" });
        let Some(command) = self.commands.get_mut(&n) else {
            return self.blame("the board acts on what was asked", format!("{n}"));
        };
        let again = command.acts.iter().any(|(b, _)| *b == boot || command.once);
        command.acts.push((boot, now));
        let (acts, due) = (command.acts.clone(), command.told_ms.map(|at| at + command.deadline_ms));
        if again {
            self.blame("a command acts once", format!("{n} (once {once}): {acts:?}"));
        }
        if self.commands.get(&n).is_some_and(|command| command.once != once) {
            self.blame("once is once", format!("{n}"));
        }
        if due.is_some_and(|due| now > due + SLACK_MS) {
            self.blame("nothing acts after its deadline", format!("{n} at {now}, due {due:?}"));
        }
    }

    pub(super) fn answered(&mut self, n: u64) {
        if let Some(command) = self.commands.get_mut(&n) {
            command.answered = true;
        }
    }

    pub(super) fn outcome(&mut self, n: u64, state: &str) {
        if !OUTCOMES.contains(&state) {
            return;
        }
        let Some(command) = self.commands.get_mut(&n) else { return };
        if command.outcome.is_none() {
            *self.tally.entry(OUTCOMES[OUTCOMES.iter().position(|o| *o == state).unwrap_or(0)]).or_insert(0) += 1;
        }
        let before = command.outcome.replace(state.to_owned());
        let (acts, answered) = (command.acts.clone(), command.answered);
        if before.as_deref().is_some_and(|before| before != state) {
            self.blame("a command has one outcome", format!("{n}: {before:?}, then {state}"));
        }
        let is_true = match state {
            "done" => answered && !acts.is_empty(),
            "rejected" => acts.is_empty(),
            "failed" => false,
            _ => true,
        };
        if !is_true {
            self.blame("an outcome is what happened", format!("{n} is {state}; {acts:?}, answered {answered}"));
        }
    }

    pub(super) fn commands_are_over(&self, now: u64) -> bool {
        self.commands
            .values()
            .all(|c| c.outcome.is_some() || c.told_ms.unwrap_or(c.asked_ms) + c.deadline_ms + SLACK_MS < now)
    }

    // ---- The verdict -------------------------------------------------------------------------------------------

    /// `is_planned`: a write to flash was planned to fail, or to be the last before the power goes, whenever that is.
    pub(super) fn judge(&mut self, reported: Option<u64>, never_rebooted: bool, is_planned: bool) {
        let mut broken: Vec<(&'static str, String)> = vec![];
        if let Some(last) = self.last.and_then(|n| self.commands.get(&n))
            && !is_planned
            && last.outcome.as_deref() != Some("done")
        {
            broken.push(("a board that is well does what it is told", format!("{last:?}")));
        }
        for (name, sent) in &self.sent {
            let arrived: Vec<u64> = self.heard.iter().filter(|(_, text)| text == name).map(|(seq, _)| *seq).collect();
            let measured = self.measured.iter().filter(|value| *value == name).count();
            let is_message = name.starts_with('m');
            let count = if is_message { arrived.len() } else { measured };
            if is_message && count > 1 {
                broken.push(("no message is doubled", format!("{name}: {arrived:?}")));
            }
            match sent.outcome {
                Some(Outcome::Acked { seq }) if count == 0 || (is_message && arrived != [seq]) => {
                    broken.push(("what was acked is there", format!("{name}: acked as {seq}, arrived {arrived:?}")));
                }
                // What could not be written to flash may be there all the same, and be sent after a reboot. Of what makes room
                // after a reboot nobody knows whether it was sent before.
                Some(Outcome::Lost(Why::Replaced | Why::Dropped)) if sent.forgotten => {}
                Some(Outcome::Lost(why)) if count > 0 && why != Why::Flash => {
                    broken.push(("what was lost is not there", format!("{name}: {why:?}")));
                }
                None if !sent.forgotten => broken.push(("what was queued has an outcome", name.clone())),
                None if is_message && sent.kept && count == 0 => {
                    broken.push(("what is kept survives a reboot", name.clone()));
                }
                None if never_rebooted => broken.push(("only a reboot forgets", name.clone())),
                _ => {}
            }
        }
        for (n, seq) in &self.written {
            let Some(seq) = seq else {
                broken.push(("alice is answered", format!("p{n}")));
                continue;
            };
            let expect = format!("p{n} \"quoted\" \u{e9}\n");
            if !self.taken.iter().any(|(_, s, text)| s == seq && *text == expect) {
                broken.push(("what alice wrote is taken", format!("p{n}, seq {seq}")));
            }
        }
        for (n, published) in &self.published {
            match published {
                Published::Open => broken.push(("alice is answered", format!("{n}"))),
                Published::Accepted => broken.push(("what was published is taken", format!("{n}"))),
                Published::Unheard | Published::Taken => {}
            }
        }
        for (n, command) in &self.commands {
            match command.outcome.as_deref() {
                None => broken.push(("a command has an outcome", format!("{n}: {command:?}"))),
                Some("unknown_outcome") if !command.once || never_rebooted => {
                    broken.push(("only a reboot makes an outcome unknown", format!("{n}: {command:?}")));
                }
                _ => {}
            }
        }
        if never_rebooted
            && let Some(n) = reported
            && self.state["n"] != n
        {
            broken.push(("the latest state is reported", format!("{n}, and the broker has {}", self.state)));
        }
        for (promise, text) in broken {
            self.blame(promise, text);
        }
    }
}
