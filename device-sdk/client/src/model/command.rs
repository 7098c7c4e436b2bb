//! Commands this account has given, and how they go.

use super::limits::COMMANDS_MAX;
use super::wire::Report;
use serde_json::Value;
use std::collections::BTreeMap;

/// How far a command is. Later ones are greater; an outcome is final.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum CommandState {
    /// Not yet with the broker.
    Waiting,
    /// With the broker.
    Queued,
    /// Sent to the device.
    Sent,
    /// The device has it.
    Delivered,
    /// The device is at it.
    Running,
    /// It is done.
    Done,
    /// The device tried and failed.
    Failed,
    /// The device will not.
    Rejected,
    /// The deadline came before the device had it.
    Expired,
    /// The deadline came before there was an outcome.
    Timeout,
    /// Somebody cancelled it.
    Canceled,
    /// The device restarted in the midst of it.
    UnknownOutcome,
    /// The broker did not take it.
    Refused,
}

impl CommandState {
    /// Reads its word in the protocol.
    pub fn read(word: &str) -> Option<Self> {
        Some(match word {
            "queued" => Self::Queued,
            "sent" => Self::Sent,
            "delivered" => Self::Delivered,
            "running" => Self::Running,
            "done" => Self::Done,
            "failed" => Self::Failed,
            "rejected" => Self::Rejected,
            "expired" => Self::Expired,
            "timeout" => Self::Timeout,
            "canceled" => Self::Canceled,
            "unknown_outcome" => Self::UnknownOutcome,
            _ => return None,
        })
    }

    /// Its word in the protocol.
    pub fn word(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Queued => "queued",
            Self::Sent => "sent",
            Self::Delivered => "delivered",
            Self::Running => "running",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Rejected => "rejected",
            Self::Expired => "expired",
            Self::Timeout => "timeout",
            Self::Canceled => "canceled",
            Self::UnknownOutcome => "unknown_outcome",
            Self::Refused => "refused",
        }
    }

    /// Whether nothing comes after it.
    pub fn is_outcome(self) -> bool {
        self >= Self::Done
    }
}

/// One command.
#[derive(Debug, Clone, PartialEq)]
pub struct Command {
    /// Who carries it out.
    pub device: String,
    /// Its name.
    pub name: String,
    /// Its arguments, where they are known here.
    pub args: Option<Value>,
    /// Every state it was seen in, oldest first.
    pub states: Vec<CommandState>,
    /// What the device answered.
    pub result: Option<Value>,
    /// What the device or the broker says about it.
    pub text: Option<String>,
    /// When it changed last, milliseconds since 1970.
    pub ts: u64,
    number: u64,
}

impl Command {
    /// Where it is.
    pub fn state(&self) -> CommandState {
        self.states.last().copied().unwrap_or(CommandState::Waiting)
    }
}

/// All of them.
#[derive(Debug, Clone, Default)]
pub struct Commands {
    by_id: BTreeMap<String, Command>,
    next: u64,
}

impl Commands {
    /// One of them.
    #[cfg(test)]
    pub fn find(&self, id: &str) -> Option<&Command> {
        self.by_id.get(id)
    }

    /// Those for a device, oldest first.
    pub fn of(&self, device: &str) -> Vec<(&str, &Command)> {
        let mut all: Vec<(&str, &Command)> =
            self.by_id.iter().filter(|(_, command)| command.device == device).map(|(id, c)| (id.as_str(), c)).collect();
        all.sort_by_key(|(_, command)| command.number);
        all
    }

    /// One is given here.
    pub(super) fn give(&mut self, id: &str, device: &str, name: &str, args: Value, ts: u64) {
        let command = self.entry(id, device, name);
        command.args = Some(args);
        command.ts = ts;
    }

    /// One goes on; `false`: that was known, or comes after the outcome.
    pub(super) fn report(&mut self, id: &str, report: &Report) -> bool {
        let Some(state) = CommandState::read(&report.state) else { return false };
        let command = self.entry(id, &report.device, &report.name);
        let before = command.state();
        // A result may overtake the device's acknowledgement; what comes after the outcome changes nothing.
        let is_news = (&command.text, &command.result) != (&report.text, &report.result);
        let progress = before == CommandState::Running && state == CommandState::Running && is_news;
        if before.is_outcome() || (state <= before && !progress) {
            return false;
        }
        if state != before {
            command.states.push(state);
        }
        // How far it was is no part of its outcome.
        if report.result.is_some() || state.is_outcome() {
            command.result.clone_from(&report.result);
        }
        if report.text.is_some() || state.is_outcome() {
            command.text.clone_from(&report.text);
        }
        command.ts = command.ts.max(report.ts);
        true
    }

    /// The broker did not take one.
    pub(super) fn refuse(&mut self, id: &str, text: &str) {
        let Some(command) = self.by_id.get_mut(id) else { return };
        if !command.state().is_outcome() {
            command.states.push(CommandState::Refused);
            command.text = Some(text.to_owned());
        }
    }

    fn entry(&mut self, id: &str, device: &str, name: &str) -> &mut Command {
        if !self.by_id.contains_key(id) && self.by_id.len() >= COMMANDS_MAX {
            let oldest = self.by_id.iter().min_by_key(|(_, command)| command.number).map(|(id, _)| id.clone());
            if let Some(oldest) = oldest {
                self.by_id.remove(&oldest);
            }
        }
        let number = self.next;
        self.next += 1;
        self.by_id.entry(id.to_owned()).or_insert_with(|| Command {
            device: device.to_owned(),
            name: name.to_owned(),
            args: None,
            states: Vec::new(),
            result: None,
            text: None,
            ts: 0,
            number,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn report(state: &str) -> Report {
        Report { device: "lamp".into(), name: "set".into(), state: state.into(), ..Report::default() }
    }

    #[test]
    fn states_go_forward_and_the_first_outcome_wins() {
        let mut commands = Commands::default();
        commands.give("c1", "lamp", "set", Value::Null, 1);
        for (state, moved) in [
            ("queued", true),
            ("delivered", true),
            ("sent", false),
            ("nonsense", false),
            ("running", true),
            ("done", true),
            ("timeout", false),
            ("running", false),
        ] {
            assert_eq!(commands.report("c1", &report(state)), moved, "{state}");
        }
        let words: Vec<&str> = commands.find("c1").unwrap().states.iter().map(|state| state.word()).collect();
        assert_eq!(words, ["queued", "delivered", "running", "done"]);
    }

    #[test]
    fn a_running_command_may_say_more() {
        let mut commands = Commands::default();
        let running = |text: &str| Report { text: Some(text.into()), ..report("running") };
        assert!(commands.report("c1", &running("10 %")));
        assert!(commands.report("c1", &running("20 %")));
        assert!(!commands.report("c1", &running("20 %")));
        assert_eq!(commands.find("c1").unwrap().states.len(), 1);
        let progress = |percent: u64| Report { result: Some(json!({ "progress": percent })), ..running("20 %") };
        assert!(commands.report("c1", &progress(30)));
        assert!(commands.report("c1", &progress(40)));
        assert!(!commands.report("c1", &progress(40)));
        assert!(commands.report("c1", &report("done")));
        let command = commands.find("c1").unwrap();
        assert_eq!((&command.result, &command.text), (&None, &None), "how far it was is no outcome");
    }

    #[test]
    fn words_are_read_as_they_are_written() {
        for word in
            "queued sent delivered running done failed rejected expired timeout canceled unknown_outcome".split(' ')
        {
            assert_eq!(CommandState::read(word).map(CommandState::word), Some(word));
        }
        assert!(!CommandState::Running.is_outcome() && CommandState::Done.is_outcome());
    }

    #[test]
    fn the_oldest_are_forgotten() {
        let mut commands = Commands::default();
        for number in 0..COMMANDS_MAX + 3 {
            commands.give(&format!("{number:03}"), "lamp", "set", Value::Null, 0);
        }
        assert_eq!(commands.of("lamp").len(), COMMANDS_MAX);
        assert!(commands.find("002").is_none() && commands.find("003").is_some());
    }
}
