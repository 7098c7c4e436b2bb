//! What clients do: whatever they please, as long as there is disorder, and at rest only what they have begun.

use super::cast::{CLUB, HOME, LAMP, OWNER, STRANGER};
use super::model::{Entry, Sent, address_of, conv_of};
use super::terminal::{Errand, Job, Mode, Phase};
use super::{Event, World};
use parlor_protocol::mqtt::Version;
use serde_json::json;

/// What the script remembers.
#[derive(Debug, Default)]
pub(super) struct Aim {
    next_id: u64,
}

impl World<'_> {
    pub(super) fn act(&mut self, number: usize) {
        let next = if self.calm { 300 } else { self.rng.between(10, 90) };
        self.after(next, Event::Act(number));
        if self.terminals[number].who.mode == Mode::Auditor {
            return;
        }
        match self.terminals[number].phase {
            Phase::Away if self.gone.as_ref() == Some(&self.terminals[number].who.account) => {}
            Phase::Away => {
                if self.calm || self.rng.chance(35) {
                    self.connect(number);
                }
            }
            Phase::Connecting => {
                let began = self.uses[number].map_or(0, |conn| self.conns[conn].began_ms);
                if self.now_ms > began + 5_000 {
                    self.cut_by_client(number);
                }
            }
            Phase::Open if self.calm => {
                if self.terminals[number].who.mode == Mode::Device {
                    self.run_board(number);
                }
                self.terminals[number].lazy = false;
                self.release(number, usize::MAX);
                self.make_up(number);
                self.keep_alive(number);
                self.pull(number);
            }
            Phase::Open => self.improvise(number),
        }
        self.send_out(number);
    }

    fn keep_alive(&mut self, number: usize) {
        let quiet_ms = self.uses[number].map_or(0, |conn| self.now_ms - self.conns[conn].spoke_ms);
        if quiet_ms > 1_200 {
            self.terminals[number].ping();
        }
    }

    /// Acknowledges so many of the deliveries that are held.
    pub(super) fn release(&mut self, number: usize, most: usize) {
        for _ in 0..most {
            let Some(held) = self.terminals[number].release_one() else { break };
            let account = self.terminals[number].who.account.clone();
            if let Some((conv, seq)) = held.message {
                self.model.got(&conv, &account, seq, self.now_ms);
            } else if held.pos == u64::MAX {
                self.model.views[number].head_open = false;
            }
            let command = held.command.and_then(|no| usize::try_from(no).ok());
            if let Some(command) = command.and_then(|no| self.model.commands.get_mut(no)) {
                command.is_delivered = true;
            }
        }
    }

    /// One that pulls and was told of something does so.
    pub(super) fn pull(&mut self, number: usize) {
        let (terminal, view) = (&self.terminals[number], &self.model.views[number]);
        let is_due = terminal.who.mode == Mode::Pull
            && terminal.is_subscribed
            && !terminal.asked.contains(&"sync")
            && view.head.is_some_and(|(pos, _)| pos > view.pulled);
        if is_due {
            let max = self.rng.between(1, 40);
            let view = &mut self.model.views[number];
            view.pull += 1;
            let mut payload = json!({ "max": max, "id": view.pull });
            // Without a place of its own it goes on from the one that it has confirmed.
            if view.pulled != view.confirmed || view.pulled == 0 || max.is_multiple_of(2) {
                payload["after"] = view.pulled.into();
            }
            self.ask(number, "sync", payload.to_string());
        } else if terminal.who.mode == Mode::Pull && view.pulled > view.confirmed && terminal.open_errands() == 0 {
            // The connection went before it could say so, or with it.
            self.confirm(number);
        }
    }

    pub(super) fn confirm(&mut self, number: usize) {
        let pos = self.model.views[number].pulled;
        let account = self.terminals[number].who.account.clone();
        let mut got: Vec<(String, u64)> = vec![];
        for ((whose, at), what) in &self.model.mail {
            if *whose == account && *at <= pos && what.starts_with("msg ") {
                let mut words = what.split(' ').skip(1);
                if let (Some(conv), Some(seq)) = (words.next(), words.next().and_then(|seq| seq.parse().ok())) {
                    got.push((conv.to_owned(), seq));
                }
            }
        }
        for (conv, seq) in got {
            // Only what it has itself: what was over before it came is not delivered.
            if self.model.views[number].texts.contains_key(&(conv.clone(), seq)) {
                self.model.got(&conv, &account, seq, self.now_ms);
            }
        }
        let errand = Errand::new(Job::Ack { pos }, "im/v1/me/ack".into(), json!({ "pos": pos }).to_string());
        self.terminals[number].publish(errand);
        self.send_out(number);
    }

    pub(super) fn ask(&mut self, number: usize, what: &'static str, payload: String) {
        self.model.count(what);
        self.terminals[number].asked.push(what);
        self.terminals[number].publish(Errand::new(Job::Ask(what), format!("im/v1/me/{what}"), payload));
        self.send_out(number);
    }

    fn improvise(&mut self, number: usize) {
        if !self.terminals[number].lazy {
            self.release(number, usize::MAX);
        } else if self.rng.chance(40) {
            let some = self.rng.at(4);
            self.release(number, some);
        }
        self.pull(number);
        if self.terminals[number].who.mode == Mode::Device {
            self.run_board(number);
            if self.terminals[number].phase != Phase::Open {
                return;
            }
        }
        if self.terminals[number].who.mode == Mode::Stranger && self.rng.chance(40) {
            return self.intrude(number);
        }
        match self.rng.below(100) {
            0..34 if self.terminals[number].open_errands() < 20 => self.say(number),
            34..42 => self.read(number),
            42..45 => self.take_back(number),
            45..49 => self.edit(number),
            49..52 => self.say_again(number),
            52..57 => self.look_into(number),
            57 => self.change_group(number),
            58 => self.block(number),
            59..63 => self.command(number),
            63..65 => self.terminals[number].lazy = !self.terminals[number].lazy,
            65..67 => self.goodbye(number),
            67..70 => self.cut_by_client(number),
            70..73 => self.cut_by_network(number),
            73..75 => self.half_open(number),
            // A second connection of the same client takes over.
            75..77 => self.connect(number),
            77..79 => self.stop_reading(number),
            79..82 => self.terminals[number].ping(),
            _ => self.keep_alive(number),
        }
    }

    /// An address that this account writes to.
    fn somebody(&mut self, account: &str) -> String {
        if account == STRANGER {
            let people = self.model.people.clone();
            return [people[self.rng.at(people.len())].clone(), LAMP.into(), HOME.into(), CLUB.into()][self.rng.at(4)]
                .clone();
        }
        if account != LAMP && self.rng.chance(25) {
            return if self.rng.chance(60) { CLUB.into() } else { HOME.into() };
        }
        let mut others: Vec<String> = self.model.people.iter().filter(|name| *name != account).cloned().collect();
        if account != LAMP && self.rng.chance(30) {
            others.push(LAMP.into());
        }
        others[self.rng.at(others.len())].clone()
    }

    fn say(&mut self, number: usize) {
        for _ in 0..self.rng.between(1, 4) {
            self.say_one(number);
        }
    }

    fn say_one(&mut self, number: usize) {
        let who = self.terminals[number].who.clone();
        let to = self.somebody(&who.account);
        let no = self.model.messages.len();
        let v5 = who.version == Version::V5;
        let qos = match self.rng.below(10) {
            0 => 0,
            1..3 => 2,
            _ => 1,
        };
        let id = (who.has_ids || qos == 0).then(|| {
            self.aim.next_id += 1;
            format!("c{}", self.aim.next_id)
        });
        let text = format!("m#{no}");
        let ttl_s = if self.rng.chance(10) { self.rng.between(1, 3) } else { 0 };
        let counts = self.rng.chance(90);
        let (mut property, mut expiry_secs) = (None, None);
        let payload = if v5 && counts && self.rng.chance(50) {
            // Everything that is not text goes as a property.
            property.clone_from(&id);
            expiry_secs = (ttl_s > 0).then(|| u32::try_from(ttl_s).expect("short"));
            text.clone().into_bytes()
        } else {
            let mut object = json!({ "text": text });
            if let Some(id) = &id {
                object["id"] = id.as_str().into();
            }
            if ttl_s > 0 {
                object["ttl_s"] = ttl_s.into();
            }
            if !counts {
                object["notify"] = false.into();
            }
            object.to_string().into_bytes()
        };
        let may_repeat = id.is_none() && !(qos == 2 && who.resumes);
        let is_forbidden = who.mode == Mode::Stranger || self.model.is_blocked(&who.account, &to);
        self.model.count("messages");
        self.model.messages.push(Sent {
            conv: conv_of(&who.account, &to),
            from: who.account,
            terminal: number,
            to: to.clone(),
            id,
            payload: payload.clone(),
            property: property.clone(),
            ttl_ms: ttl_s * 1000,
            counts,
            may_repeat,
            told: false,
            refused: false,
            is_forbidden,
            seqs: std::collections::BTreeSet::new(),
        });
        let mut errand = Errand::new(Job::Send(no), format!("im/v1/to/{to}/msg"), payload);
        (errand.property, errand.expiry_secs, errand.qos) = (property, expiry_secs, qos);
        self.terminals[number].publish(errand);
    }

    /// A message that was answered is sent once more, as an app does that has forgotten the answer; or its id is used
    /// for another.
    fn say_again(&mut self, number: usize) {
        let own = |s: &Sent| s.terminal == number && s.id.is_some() && s.told && s.ttl_ms == 0;
        let known: Vec<usize> = (0..self.model.messages.len()).filter(|no| own(&self.model.messages[*no])).collect();
        if known.is_empty() {
            return;
        }
        let no = known[self.rng.at(known.len())];
        let sent = self.model.messages[no].clone();
        let topic = format!("im/v1/to/{}/msg", sent.to);
        if self.rng.chance(70) {
            self.model.count("repeated");
            let mut errand = Errand::new(Job::Repeat(no), topic, sent.payload);
            errand.property = sent.property;
            self.terminals[number].publish(errand);
        } else {
            self.model.count("reused");
            let other = json!({ "text": "something else", "id": sent.id }).to_string();
            self.terminals[number].publish(Errand::new(Job::Reuse, topic, other));
        }
    }

    /// A conversation this terminal has seen something of, and the seqs it has.
    fn some_conv(&mut self, number: usize) -> Option<(String, Vec<u64>)> {
        let view = &self.model.views[number];
        let convs: Vec<String> = view.last.keys().cloned().collect();
        if convs.is_empty() {
            return None;
        }
        let conv = convs[self.rng.at(convs.len())].clone();
        let range = (conv.clone(), 0)..=(conv.clone(), u64::MAX);
        let seqs = self.model.views[number].texts.range(range).map(|((_, seq), _)| *seq).collect();
        Some((conv, seqs))
    }

    fn read(&mut self, number: usize) {
        let account = self.terminals[number].who.account.clone();
        let Some((conv, seqs)) = self.some_conv(number) else { return };
        if seqs.is_empty() {
            return;
        }
        let seq = if self.rng.chance(60) { seqs[seqs.len() - 1] } else { seqs[self.rng.at(seqs.len())] };
        let marks = self.model.marks(&conv, &account);
        marks.read_asked = marks.read_asked.max(seq);
        self.model.got(&conv, &account, seq, self.now_ms);
        self.model.count("read");
        let topic = format!("im/v1/to/{}/receipt", address_of(&conv, &account));
        let errand = Errand::new(Job::Read { conv, seq }, topic, json!({ "read": seq }).to_string());
        self.terminals[number].publish(errand);
    }

    /// A message of this account that the terminal has.
    fn own_message(&mut self, number: usize) -> Option<(String, u64)> {
        let account = self.terminals[number].who.account.clone();
        let (conv, seqs) = self.some_conv(number)?;
        let is_own = |seq: &u64| self.model.message_at(&conv, *seq).is_some_and(|sent| sent.from == account);
        let own: Vec<u64> = seqs.into_iter().filter(is_own).collect();
        if own.is_empty() {
            return None;
        }
        let seq = own[self.rng.at(own.len())];
        Some((conv, seq))
    }

    fn take_back(&mut self, number: usize) {
        let account = self.terminals[number].who.account.clone();
        let Some((conv, seq)) = self.own_message(number) else { return };
        self.model.count("recall");
        if let Some(line) = self.model.line_mut(&conv, seq) {
            line.recall_asked = true;
        }
        let topic = format!("im/v1/to/{}/recall", address_of(&conv, &account));
        let errand = Errand::new(Job::Recall { conv, seq }, topic, json!({ "seq": seq }).to_string());
        self.terminals[number].publish(errand);
    }

    fn edit(&mut self, number: usize) {
        let account = self.terminals[number].who.account.clone();
        let Some((conv, seq)) = self.own_message(number) else { return };
        let Some(Entry::Message(no)) = self.model.line(&conv, seq).map(|line| line.entry.clone()) else { return };
        self.model.count("edit");
        let Some(line) = self.model.line_mut(&conv, seq) else { return };
        let text = format!("m#{no}e{}", line.edits.len());
        line.edits.push(text.clone());
        let topic = format!("im/v1/to/{}/edit", address_of(&conv, &account));
        let payload = json!({ "seq": seq, "text": text }).to_string();
        self.terminals[number].publish(Errand::new(Job::Edit { conv, seq, text }, topic, payload));
    }

    /// A question about the past or the present.
    fn look_into(&mut self, number: usize) {
        if !self.terminals[number].is_subscribed {
            return;
        }
        let account = self.terminals[number].who.account.clone();
        match self.rng.below(4) {
            0 => self.ask(number, "convs", "{}".into()),
            1 => self.ask(number, "recount", "{}".into()),
            _ => {
                let with = self.somebody(&account);
                let mut payload = json!({ "with": with, "max": self.rng.between(1, 60) });
                let head = self.model.convs.get(&conv_of(&account, &with)).map_or(0, |c| c.log.len() as u64);
                match self.rng.below(3) {
                    0 => payload["after"] = self.rng.below(head + 1).into(),
                    1 => payload["before"] = self.rng.between(1, head + 2).into(),
                    _ => {}
                }
                self.ask(number, "history", payload.to_string());
            }
        }
    }

    /// Somebody comes into the club, or goes.
    fn change_group(&mut self, number: usize) {
        let who = self.terminals[number].who.clone();
        if who.account != OWNER {
            return;
        }
        let others: Vec<String> = self.model.people.iter().filter(|name| *name != OWNER).cloned().collect();
        let one = others[self.rng.at(others.len())].clone();
        let op = if self.rng.chance(50) { "remove" } else { "add" };
        self.model.count("group");
        let payload = json!({ "op": op, "who": one }).to_string();
        self.terminals[number].publish(Errand::new(Job::Group, format!("im/v1/me/group/{CLUB}"), payload));
    }

    /// Somebody wants to hear nothing of another, or to hear of it again.
    fn block(&mut self, number: usize) {
        let account = self.terminals[number].who.account.clone();
        let mut others = self.model.people.clone();
        others.retain(|name| *name != account);
        if others.is_empty() || !self.model.people.contains(&account) {
            return;
        }
        let other = others[self.rng.at(others.len())].clone();
        let is_wanted = self.rng.chance(60);
        self.hear_of(number, &other, is_wanted);
    }

    fn hear_of(&mut self, number: usize, other: &str, is_wanted: bool) {
        self.model.count("block");
        let account = self.terminals[number].who.account.clone();
        self.model.wish(&account, other, is_wanted);
        let payload = json!({ "op": if is_wanted { "block" } else { "unblock" } }).to_string();
        let topic = format!("im/v1/me/contact/{other}");
        self.terminals[number].publish(Errand::new(Job::Hear(other.to_owned()), topic, payload));
    }

    /// At rest everybody hears of everybody again.
    fn make_up(&mut self, number: usize) {
        let account = self.terminals[number].who.account.clone();
        let mut blocks = self.model.blocks.iter().filter(|((one, _), _)| *one == account);
        let blocked = blocks.find(|(_, block)| block.open == 0 && (block.is_wanted || !block.is_sure));
        if let Some(((_, other), _)) = blocked {
            let other = other.clone();
            self.hear_of(number, &other, false);
        }
    }

    /// What must not work.
    fn intrude(&mut self, number: usize) {
        let with = self.somebody(STRANGER);
        self.model.count("intrusions");
        let (topic, payload) = match self.rng.below(7) {
            0 => (format!("im/v1/to/{with}/msg"), "let me in".to_owned()),
            1 => (format!("im/v1/to/{with}/receipt"), r#"{"read":1}"#.to_owned()),
            2 => (format!("im/v1/to/{with}/recall"), r#"{"seq":1}"#.to_owned()),
            3 => (format!("im/v1/to/{with}/edit"), r#"{"seq":1,"text":"mine"}"#.to_owned()),
            4 => (format!("im/v1/to/{LAMP}/cmd/set"), r#"{"on":true}"#.to_owned()),
            5 => (format!("im/v1/{OWNER}/in/{with}/msg"), "as if".to_owned()),
            _ => (format!("im/v1/me/group/{CLUB}"), json!({ "op": "add", "who": STRANGER }).to_string()),
        };
        self.terminals[number].publish(Errand::new(Job::Intrude, topic, payload));
    }
}
