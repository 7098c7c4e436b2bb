//! Auditors: one for each account, who at rest ask for everything there is to ask.

use super::World;
use super::cast::STRANGER;
use super::model::{ImClass, address_of};
use super::terminal::{Mode, Phase};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// What the auditors were told, by account.
#[derive(Debug, Default)]
pub(super) struct Audit {
    /// Lines of the list of conversations, by address.
    pub(super) convs: BTreeMap<String, BTreeMap<String, Value>>,
    /// Unread messages in total.
    pub(super) unread: BTreeMap<String, u64>,
    /// Messages of each conversation, by the address this account uses.
    pub(super) logs: BTreeMap<String, BTreeMap<String, Vec<Value>>>,
}

impl Audit {
    pub(super) fn take(&mut self, account: &str, what: &str, value: &Value) {
        match what {
            "convs" => {
                let lines = value["convs"].as_array().cloned().unwrap_or_default();
                let by = lines.into_iter().map(|line| (line["addr"].as_str().unwrap_or_default().to_owned(), line));
                self.convs.insert(account.to_owned(), by.collect());
                self.unread.insert(account.to_owned(), value["unread"].as_u64().unwrap_or_default());
            }
            "history" => {
                let with = value["with"].as_str().unwrap_or_default().to_owned();
                let lines = value["messages"].as_array().cloned().unwrap_or_default();
                self.logs.entry(account.to_owned()).or_default().entry(with).or_default().extend(lines);
            }
            _ => {}
        }
    }
}

/// Longer than one and a half of the longest keep alive, and the grace.
const ABSENCE_MS: u64 = 12_000 + 5_000 + 2_000;

/// Longer than a place of a terminal waits for the disk.
const SETTLED_MS: u64 = 3_000;

impl World<'_> {
    /// Everything of one account goes, in whatever way, and the others see that; then it comes back.
    pub(super) fn leave_and_return(&mut self) {
        if !self.model.violations().is_empty() {
            return;
        }
        let people = self.model.people.clone();
        let account = people[self.rng.at(people.len())].clone();
        self.gone = Some(account.clone());
        let how = self.rng.below(4);
        for number in 0..self.terminals.len() {
            if self.terminals[number].who.account != account || self.terminals[number].phase == Phase::Away {
                continue;
            }
            match how {
                0 => self.goodbye(number),
                1 => self.cut_by_client(number),
                _ => self.half_open(number),
            }
        }
        self.settle();
        if how == 3 {
            // The broker dies with them.
            self.lose_power();
        }
        self.pass(self.now_ms + ABSENCE_MS, |_| false);
        self.check_presence();
        self.gone = None;
        // What was acknowledged in the last seconds may wait for the disk.
        self.pass(self.now_ms + SETTLED_MS, |_| false);
        self.come_to_rest();
    }

    /// Pulls every list, every log and every count of every account; again, if the power fails meanwhile.
    pub(super) fn look(&mut self) {
        loop {
            let crashes = self.crashes;
            self.look_once();
            if self.crashes == crashes {
                return;
            }
            self.come_to_rest();
        }
    }

    fn look_once(&mut self) {
        let crashes = self.crashes;
        self.audit = Audit::default();
        let auditors: Vec<usize> =
            (0..self.terminals.len()).filter(|at| self.terminals[*at].who.mode == Mode::Auditor).collect();
        for &number in &auditors {
            self.connect(number);
            self.send_out(number);
        }
        let until = self.now_ms + 20_000;
        self.settle();
        self.pass(until, |w| auditors.iter().all(|at| w.terminals[*at].is_subscribed));
        for &number in &auditors {
            let account = self.terminals[number].who.account.clone();
            self.ask(number, "convs", r#"{"max":500}"#.into());
            self.ask(number, "recount", "{}".into());
            let convs: Vec<String> = self.model.convs.keys().cloned().collect();
            for conv in convs {
                if self.model.convs[&conv].members.contains(&account) || account == STRANGER {
                    let with = address_of(&conv, &account);
                    self.ask(number, "history", json!({ "with": with, "after": 0, "max": 500 }).to_string());
                }
            }
        }
        self.settle();
        let until = self.now_ms + 20_000;
        self.pass(until, |w| auditors.iter().all(|at| w.terminals[*at].asked.is_empty()));
        for &number in &auditors {
            let is_answered = self.terminals[number].asked.is_empty() && self.terminals[number].phase == Phase::Open;
            if !is_answered && self.crashes == crashes {
                let text = self.terminals[number].unfinished();
                self.model.blame(ImClass::Stuck, format!("an auditor is not answered: {text}"));
            }
            self.goodbye(number);
        }
        self.settle();
    }
}
