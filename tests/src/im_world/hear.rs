//! What clients hear, checked against the model at once.

use super::model::{Entry, ImClass, Model, SLACK_MS, address_of, conv_of, number_in};
use super::terminal::{Job, Mode, Said};
use super::{EPOCH_MS, World};
use parlor_protocol::mqtt::{PacketId, Version};
use serde_json::Value;

/// The way by which something came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Via {
    Push,
    Pull,
}

impl World<'_> {
    pub(super) fn said(&mut self, number: usize, said: Said) {
        match said {
            Said::Nothing | Said::Over => {}
            Said::Wrong(text) => self.model.blame(ImClass::Protocol, text),
            Said::Subscribed => {
                let now_ms = self.now_ms;
                self.model.views[number].since_ms.get_or_insert(now_ms);
            }
            Said::Answered { job, reason, seq, dup, tries } => self.answered(number, job, reason, seq, dup, tries),
            Said::Got { topic, payload, packet_id } => self.got(number, &topic, &payload, packet_id),
        }
    }

    fn wall_ms(&self) -> u64 {
        EPOCH_MS + self.now_ms
    }

    // ---- Answers -----------------------------------------------------------------------------------------------

    fn answered(&mut self, number: usize, job: Job, reason: u8, seq: Option<u64>, dup: bool, tries: u32) {
        let who = self.terminals[number].who.clone();
        let v5 = who.version == Version::V5;
        let is_yes = reason < 0x80;
        // 3.1.1 says "heard" of what is refused too; where rights change that is no promise.
        let is_open = |model: &Model, conv: &str| {
            conv.contains('~') && !model.was_blocked(&who.account, &address_of(conv, &who.account))
        };
        let is_sure = |model: &Model, conv: &str| is_yes && (v5 || is_open(model, conv));
        match job {
            Job::Send(no) => {
                let conv = self.model.messages[no].conv.clone();
                let (is_sure, is_open) = (is_sure(&self.model, &conv), is_open(&self.model, &conv));
                let sent = &mut self.model.messages[no];
                sent.told |= is_sure && !sent.is_forbidden;
                sent.refused |= !is_yes && tries == 1;
                if !is_yes && is_open && who.mode != Mode::Stranger {
                    let text = format!("{}'s message {no} was refused: {reason:#x}", who.name);
                    self.model.blame(ImClass::Protocol, text);
                }
                if let Some(seq) = seq {
                    self.model.observe(&conv, seq, &Entry::Message(no), 0, "its sender's PUBACK");
                }
            }
            Job::Repeat(no) => {
                let conv = self.model.messages[no].conv.clone();
                if let Some(seq) = seq {
                    if !dup {
                        let text = format!("{} repeated message {no}, and was told it is new", who.name);
                        self.model.blame(ImClass::Duplicate, text);
                    }
                    self.model.observe(&conv, seq, &Entry::Message(no), 0, "the answer to its repetition");
                } else if !is_yes && is_open(&self.model, &conv) {
                    let text = format!("{} repeated message {no}, and was refused: {reason:#x}", who.name);
                    self.model.blame(ImClass::Duplicate, text);
                }
            }
            Job::Reuse if v5 && is_yes => {
                let text = format!("{} used an id again for another content, and that was accepted", who.name);
                self.model.blame(ImClass::IdReused, text);
            }
            Job::Read { conv, seq } if is_sure(&self.model, &conv) => {
                let marks = self.model.marks(&conv, &who.account);
                marks.read_told = marks.read_told.max(seq);
            }
            Job::Recall { conv, seq } if is_sure(&self.model, &conv) => {
                let now_ms = self.now_ms;
                if let Some(line) = self.model.line_mut(&conv, seq) {
                    line.recalled_ms.get_or_insert(now_ms);
                }
            }
            Job::Ack { pos } if is_yes => {
                let view = &mut self.model.views[number];
                view.confirmed = view.confirmed.max(pos);
            }
            // 3.1.1 hears of it at `me/err`.
            Job::Ask(what) if !is_yes => self.answer_came(number, what),
            Job::Hear(other) => {
                if let Some(block) = self.model.blocks.get_mut(&(who.account.clone(), other)) {
                    block.open -= 1;
                }
            }
            Job::Command(no) if is_yes => {
                let now_ms = self.now_ms;
                self.model.commands[no].told_ms.get_or_insert(now_ms);
            }
            Job::Intrude if is_yes && v5 => {
                self.model.blame(ImClass::Leak, format!("what {} must not do was done", who.name));
            }
            _ => {}
        }
    }

    fn answer_came(&mut self, number: usize, what: &str) {
        let asked = &mut self.terminals[number].asked;
        if let Some(at) = asked.iter().position(|a| *a == what) {
            asked.remove(at);
        }
    }

    // ---- Deliveries --------------------------------------------------------------------------------------------

    fn got(&mut self, number: usize, topic: &str, payload: &[u8], packet_id: Option<PacketId>) {
        self.model.deliveries += 1;
        let who = self.terminals[number].who.clone();
        self.look_for_leaks(number, topic, payload);
        let Some(rest) = topic.strip_prefix("im/v1/") else {
            return self.model.blame(ImClass::Leak, format!("{} got {topic}", who.name));
        };
        let levels: Vec<&str> = rest.split('/').collect();
        let value: Value = serde_json::from_slice(payload).unwrap_or_default();
        let (mut message, mut command, mut pos) = (None, None, 0);
        match levels.as_slice() {
            ["me", "in", ..] | ["me", "sent"] => {
                pos = value["pos"].as_u64().unwrap_or_default();
                message = self.item(number, &levels, &value, Via::Push);
            }
            ["me", "head"] => {
                self.head(number, &value, packet_id.is_some());
                pos = u64::MAX;
            }
            ["me", "err"] => self.refused(number, &value),
            ["me", "res", _] => {
                pos = value["pos"].as_u64().unwrap_or_default();
                if pos > 0 {
                    self.position(number, pos, Via::Push);
                }
                self.command_changed(number, &value);
            }
            ["me", "cmd", name, _] => command = Some((*name).to_owned()),
            ["me", what @ ("sync" | "history" | "convs" | "recount"), "res"] => {
                if *what != "sync" {
                    self.answer_came(number, what);
                }
                self.reply(number, what, &value);
            }
            ["me", _, "res"] | ["me", "conv", _] | ["presence", _, "avail"] | ["state", _] => {}
            ["presence", of] => self.presence(number, of, &value),
            _ => self.model.blame(ImClass::Protocol, format!("{} got {topic}", who.name)),
        }
        if let Some(name) = &command {
            self.commanded(number, name, &value);
        }
        if let Some(packet_id) = packet_id {
            let command = command.and(value["args"]["n"].as_u64());
            self.terminals[number].hold(packet_id, message, command, pos);
            if !self.terminals[number].lazy {
                self.release(number, usize::MAX);
            }
        }
    }

    /// Nobody sees a message of a conversation it never was in, in whatever form.
    fn look_for_leaks(&mut self, number: usize, topic: &str, payload: &[u8]) {
        let account = self.terminals[number].who.account.clone();
        let text = String::from_utf8_lossy(payload);
        for (at, _) in text.match_indices("m#") {
            let Some(sent) = number_in(&text[at..]).and_then(|no| self.model.messages.get(no)) else { continue };
            let is_member = self.model.convs.get(&sent.conv).is_some_and(|c| c.members.contains(&account));
            if !is_member && sent.from != account {
                let text = format!("{account} got {topic} {text}");
                return self.model.blame(ImClass::Leak, text);
            }
        }
        let is_others = account == super::cast::STRANGER
            && (topic.starts_with("im/v1/presence/") || topic.starts_with("im/v1/state/"))
            && !topic.contains(account.as_str());
        if is_others {
            self.model.blame(ImClass::Leak, format!("{account} got {topic} {text}"));
        }
    }

    /// One entry of a mailbox, pushed or pulled. What its acknowledgement means: a message of another.
    fn item(&mut self, number: usize, levels: &[&str], value: &Value, via: Via) -> Option<(String, u64)> {
        let who = self.terminals[number].who.clone();
        let pos = value["pos"].as_u64().unwrap_or_default();
        if pos > 0 {
            self.position(number, pos, via);
        }
        if let ["me", "res", _] = levels {
            self.command_changed(number, value);
            return None;
        }
        let (address, kind) = match levels {
            ["me", "sent"] => (value["to"].as_str().unwrap_or_default(), "sent"),
            ["me", "in", address, kind] => (*address, *kind),
            _ => return None,
        };
        let conv = conv_of(&who.account, address);
        let seq = value["seq"].as_u64().unwrap_or_default();
        let what = if matches!(kind, "msg" | "sent") { "msg" } else { kind };
        if pos > 0 && kind != "gap" {
            let told = format!("{what} {conv} {}", if what == "receipt" { 0 } else { seq });
            let kept = self.model.mail.entry((who.account.clone(), pos)).or_insert_with(|| told.clone()).clone();
            if kept != told {
                let text = format!("position {pos} of {} is \"{kept}\", and \"{told}\" for {}", who.account, who.name);
                self.model.blame(ImClass::InconsistentOffset, text);
            }
        }
        match kind {
            "sent" if value.get("from").is_none() => {
                // The answer to a repetition.
                let id = value["id"].as_str();
                let is_it = |s: &super::model::Sent| s.terminal == number && s.id.as_deref() == id;
                if let Some(no) = self.model.messages.iter().position(is_it) {
                    self.model.observe(&conv, seq, &Entry::Message(no), 0, &who.name);
                }
                None
            }
            "msg" | "sent" => self.message(number, &conv, seq, value, kind == "msg"),
            "receipt" => {
                self.receipt(number, address, &conv, value);
                None
            }
            "recall" => {
                if !self.model.line(&conv, seq).is_some_and(|line| line.recall_asked) {
                    self.model.blame(ImClass::Leak, format!("{} heard that {conv} {seq} is recalled", who.name));
                }
                self.model.views[number].recalls.insert((conv, seq));
                None
            }
            "edit" => {
                let text = value["text"].as_str().unwrap_or_default().to_owned();
                if !self.model.line(&conv, seq).is_some_and(|line| line.edits.contains(&text)) {
                    self.model.blame(ImClass::Leak, format!("{}: {conv} {seq} is edited to {text:?}", who.name));
                }
                let view = &mut self.model.views[number];
                view.edits.insert((conv.clone(), seq));
                if let Some(old) = view.texts.get_mut(&(conv, seq)) {
                    *old = text;
                }
                None
            }
            "bounce" if pos > 0 => {
                if self.model.deadline(&conv, seq).is_some_and(|at| at > self.wall_ms()) {
                    let text = format!("{} heard that {conv} {seq} is over", who.name);
                    self.model.blame(ImClass::NotTold, text);
                }
                self.model.views[number].expired.insert((conv, seq));
                None
            }
            "gap" => {
                self.model.count("gap");
                let view = &mut self.model.views[number];
                view.gap = true;
                view.since_gap.clear();
                None
            }
            _ => None,
        }
    }

    /// A position of the mailbox goes by.
    fn position(&mut self, number: usize, pos: u64, via: Via) {
        let who = &self.terminals[number].who;
        let view = &self.model.views[number];
        let (last, settled) = (view.last_pos, view.settled_pos);
        if pos <= last && via == Via::Push {
            let text = format!("{} got position {pos} after {last} on one connection", who.name);
            self.model.blame(ImClass::NonMonotonicPoll, text);
        } else if pos <= settled && who.mode != Mode::Push(0) {
            let text = format!("{} got position {pos} again, it has acknowledged {settled} for good", who.name);
            self.model.blame(ImClass::NonMonotonicPoll, text);
        }
        let view = &mut self.model.views[number];
        if via == Via::Push {
            view.last_pos = pos;
        }
        view.pos = view.pos.max(pos);
    }

    fn message(
        &mut self,
        number: usize,
        conv: &str,
        seq: u64,
        value: &Value,
        is_others: bool,
    ) -> Option<(String, u64)> {
        let who = self.terminals[number].who.clone();
        let prev = value["prev"].as_u64().unwrap_or_default();
        let text = value["text"].as_str().map_or_else(|| value["body"].to_string(), str::to_owned);
        self.saw(conv, seq, value, &who.name);
        let wall_ms = self.wall_ms();
        if let Some(at) = self.model.deadline(conv, seq).filter(|at| at + SLACK_MS < wall_ms) {
            let text = format!("{} got {conv} {seq} {} ms after its deadline", who.name, wall_ms - at);
            self.model.blame(ImClass::LateDelivery, text);
        }
        let recalled_ms = self.model.line(conv, seq).and_then(|line| line.recalled_ms);
        if recalled_ms.is_some_and(|at| at + SLACK_MS < self.now_ms) {
            self.model.blame(ImClass::LateDelivery, format!("{} got {conv} {seq}, which is recalled", who.name));
        }
        let view = &self.model.views[number];
        let last = view.last.get(conv).copied();
        // The first message of each conversation after a gap follows on what is gone.
        let is_first = view.gap && value["pos"] != 0 && !view.since_gap.contains(conv);
        let follows = |last: &u64| prev > *last && seq > *last && who.mode != Mode::Push(0) && !is_first;
        if let Some(last) = last.filter(follows) {
            // What was said before the terminal came it was sent as far as the connection lasted.
            let since = EPOCH_MS + view.since_ms.unwrap_or(u64::MAX - EPOCH_MS);
            let is_due = |missing: &u64| {
                self.model.line(conv, *missing).is_none_or(|line| line.ts == 0 || line.ts >= since)
                    && !self.model.may_be_gone(conv, *missing, wall_ms)
                    && self.model.may_see(conv, &who.account, *missing)
            };
            let missing: Vec<u64> = (last + 1..=prev).filter(is_due).collect();
            let text = format!("{} got {conv} {seq} (prev {prev}) after {last}: {missing:?} missing", who.name);
            if missing.iter().any(|missing| self.model.line(conv, *missing).is_some_and(|line| line.ts > 0)) {
                self.model.blame(ImClass::PollSkip, text);
            } else if !missing.is_empty() {
                // Nobody has seen it yet, or knows when it was said: it may have been over, or said before the terminal came.
                self.model.suspicions.push((number, conv.to_owned(), missing, text));
            }
        }
        let view = &mut self.model.views[number];
        if is_first {
            view.since_gap.insert(conv.to_owned());
        }
        let last = view.last.entry(conv.to_owned()).or_insert(0);
        *last = (*last).max(seq);
        view.texts.insert((conv.to_owned(), seq), text);
        is_others.then(|| (conv.to_owned(), seq))
    }

    /// What a message or a line of history says is at a place.
    pub(super) fn saw(&mut self, conv: &str, seq: u64, value: &Value, by: &str) {
        let ts = value["ts"].as_u64().unwrap_or_default();
        if value["kind"] == "member" {
            return self.model.observe(conv, seq, &Entry::Change(value["body"].to_string()), ts, by);
        }
        let text = value["text"].as_str().unwrap_or_default();
        let Some(no) = number_in(text) else {
            return self.model.blame(ImClass::InconsistentOffset, format!("{by} saw {conv} {seq}: {value}"));
        };
        self.model.observe(conv, seq, &Entry::Message(no), ts, by);
        if let Some(sent) = self.model.messages.get(no)
            && value["from"].as_str() != Some(sent.from.as_str())
        {
            let text = format!("message {no} is of {}, and {by} saw {value}", sent.from);
            self.model.blame(ImClass::InconsistentOffset, text);
        }
        let is_known = text == format!("m#{no}")
            || self.model.line(conv, seq).is_some_and(|line| line.edits.iter().any(|edit| edit == text));
        if !is_known {
            self.model.blame(ImClass::InconsistentView, format!("{by} saw {conv} {seq} say {text:?}"));
        }
    }

    fn receipt(&mut self, number: usize, address: &str, conv: &str, value: &Value) {
        let who = self.terminals[number].who.clone();
        let (recv, read) = (value["recv"].as_u64().unwrap_or_default(), value["read"].as_u64().unwrap_or_default());
        if value["self"] == true {
            let asked = self.model.marks(conv, &who.account).read_asked;
            // Whoever comes into a group begins behind what was said there.
            if read > asked && conv != super::cast::CLUB {
                let text = format!("{}: {conv} is read to {read}, it said {asked}", who.name);
                self.model.blame(ImClass::ReceiptEarly, text);
            }
            return;
        }
        if !conv.contains('~') {
            let seq = value["seq"].as_u64().unwrap_or_default();
            let marks = self.model.convs.get(conv).map(|c| &c.marks);
            let have = marks.map_or(0, |m| m.values().filter(|m| m.got >= seq).count() as u64);
            let have_read = marks.map_or(0, |m| m.values().filter(|m| m.read_asked >= seq).count() as u64);
            if recv > have || read > have_read {
                let text = format!("{}: {conv} {seq} is received by {recv}, read by {read}; {have} have", who.name);
                self.model.blame(ImClass::ReceiptEarly, text);
            }
            return;
        }
        let marks = self.model.marks(conv, address);
        let (got, asked) = (marks.got, marks.read_asked);
        if read > asked || !self.model.may_have(conv, address, recv) {
            let text = format!("{}: {address} has {conv} to {recv}, read {read}; it said {got}, {asked}", who.name);
            self.model.blame(ImClass::ReceiptEarly, text);
        }
        let before = self.model.views[number].marks.insert(conv.to_owned(), (recv, read)).unwrap_or_default();
        if recv < before.0 || read < before.1 {
            let text = format!("{}: {address}'s marks in {conv} go from {before:?} to {:?}", who.name, (recv, read));
            self.model.blame(ImClass::ReceiptBack, text);
        }
    }

    fn head(&mut self, number: usize, value: &Value, is_acknowledged: bool) {
        let name = self.terminals[number].who.name.clone();
        let (pos, unread) = (value["pos"].as_u64().unwrap_or_default(), value["unread"].as_u64().unwrap_or_default());
        let sum: u64 = value["by"].as_object().map_or(0, |by| by.values().filter_map(Value::as_u64).sum());
        if sum != unread {
            self.model.blame(ImClass::UnreadMismatch, format!("{name} was told {value}: the sum is {sum}"));
        }
        let view = &mut self.model.views[number];
        let before = view.head.replace((pos, unread));
        let was_open = std::mem::replace(&mut view.head_open, is_acknowledged);
        if before.is_some_and(|(before, _)| before > pos) {
            self.model.blame(ImClass::NonMonotonicPoll, format!("{name}'s head went from {before:?} to {pos}"));
        }
        if was_open {
            self.model.blame(ImClass::NotifyTwice, format!("{name} was told {value} before it had answered"));
        }
        self.pull(number);
    }

    fn presence(&mut self, number: usize, of: &str, value: &Value) {
        let (state, epoch) = (value["state"].as_str().unwrap_or_default(), value["epoch"].as_u64().unwrap_or_default());
        let presence = &mut self.model.views[number].presence;
        if value.is_null() {
            // It is seen no more.
            presence.remove(of);
            return;
        }
        let before = presence.insert(of.to_owned(), (state.to_owned(), epoch));
        if before.is_some_and(|(_, before)| before > epoch) {
            let name = self.terminals[number].who.name.clone();
            self.model.blame(
                ImClass::PresenceStale,
                format!("{name} was told of {of}, and of a later start before: {value}"),
            );
        }
    }

    /// Everybody who may sees who is there, and since which start of the broker (G9).
    pub(super) fn check_presence(&mut self) {
        let everybody: Vec<String> = self.model.people.iter().chain(&self.model.devices).cloned().collect();
        let mut wrong = vec![];
        let boot = self.broker.as_ref().map_or(0, |b| b.hub.boot());
        for (terminal, view) in self.terminals.iter().zip(&self.model.views) {
            let sees = matches!(terminal.who.mode, Mode::Push(_) | Mode::Pull);
            if !sees || self.gone.as_ref() == Some(&terminal.who.account) {
                continue;
            }
            for of in &everybody {
                let expected = if self.gone.as_ref() == Some(of) { "offline" } else { "online" };
                let told = view.presence.get(of);
                if told != Some(&(expected.to_owned(), boot)) {
                    wrong.push(format!(
                        "{} was told {told:?} of {of}, which is {expected} since start {boot}",
                        terminal.who.name
                    ));
                }
            }
        }
        for text in wrong {
            self.model.blame(ImClass::PresenceStale, text);
        }
    }

    fn refused(&mut self, number: usize, value: &Value) {
        let re = value["re"].as_str().unwrap_or_default();
        if self.terminals[number].who.version == Version::V5 {
            return;
        }
        // For 3.1.1 this is the only way to know.
        if let Some(what) = re.strip_prefix("me/").and_then(|rest| rest.split('/').next()) {
            self.answer_came(number, what);
        }
        if let Some(id) = value["id"].as_str().filter(|_| re.ends_with("/msg") && value["code"] != "id_reused") {
            let is_it = |s: &&mut super::model::Sent| s.terminal == number && s.id.as_deref() == Some(id);
            if let Some(sent) = self.model.messages.iter_mut().find(is_it).filter(|s| !s.conv.contains('~')) {
                sent.told = false;
            }
        }
    }

    // ---- Answers to questions ----------------------------------------------------------------------------------

    fn reply(&mut self, number: usize, what: &str, value: &Value) {
        let who = self.terminals[number].who.clone();
        if who.mode == Mode::Auditor {
            self.audit.take(&who.account, what, value);
        }
        match what {
            "sync" => self.synced(number, value),
            "history" => self.history(number, value),
            "recount" if value["agree"] != true => {
                self.model.blame(ImClass::UnreadMismatch, format!("{} asked for a recount: {value}", who.name));
            }
            _ => {}
        }
    }

    fn synced(&mut self, number: usize, value: &Value) {
        let name = self.terminals[number].who.name.clone();
        if value["id"] != self.model.views[number].pull {
            // The answer to a pull of an earlier connection of the same session.
            return;
        }
        self.answer_came(number, "sync");
        let mut last = self.model.views[number].pulled;
        for entry in value["entries"].as_array().map_or(&[][..], Vec::as_slice) {
            let topic = entry["topic"].as_str().unwrap_or_default();
            let Some(rest) = topic.strip_prefix("im/v1/") else { continue };
            let levels: Vec<&str> = rest.split('/').collect();
            let payload = &entry["payload"];
            if let Some(pos) = payload["pos"].as_u64().filter(|pos| *pos > 0) {
                if pos <= last {
                    self.model.blame(ImClass::NonMonotonicPoll, format!("{name} pulled {pos} after {last}"));
                }
                last = pos;
            }
            self.item(number, &levels, payload, Via::Pull);
        }
        let view = &mut self.model.views[number];
        view.pulled = view.pulled.max(value["pos"].as_u64().unwrap_or_default());
        self.confirm(number);
        self.pull(number);
    }

    /// A part of a log: without holes, and what everybody else sees there.
    fn history(&mut self, number: usize, value: &Value) {
        let who = self.terminals[number].who.clone();
        let conv = conv_of(&who.account, value["with"].as_str().unwrap_or_default());
        let lines = value["messages"].as_array().map_or(&[][..], Vec::as_slice);
        let seqs: Vec<u64> = lines.iter().filter_map(|line| line["seq"].as_u64()).collect();
        if seqs.windows(2).any(|pair| pair[0].abs_diff(pair[1]) != 1) {
            self.model.blame(ImClass::LostWrite, format!("{}: the log of {conv} has holes: {seqs:?}", who.name));
        }
        let wall_ms = self.wall_ms();
        for (line, seq) in lines.iter().zip(seqs) {
            if line["gone"] != true {
                self.saw(&conv, seq, line, &who.name);
                if self.model.deadline(&conv, seq).is_some_and(|at| at + SLACK_MS < wall_ms) {
                    self.model.blame(ImClass::LateDelivery, format!("{} pulled {conv} {seq}, it is over", who.name));
                }
            } else if self.model.line(&conv, seq).is_some() && !self.model.may_be_gone(&conv, seq, wall_ms) {
                self.model.blame(ImClass::LostWrite, format!("{}: {conv} {seq} is gone for no reason", who.name));
            }
        }
    }
}
