//! Commands to devices, and their outcomes.
//!
//! The commands of a device stand in one line and go out in order, as many at a time as `im_command_window` says. A
//! command has exactly one outcome, the first that came: the device's word, the deadline, or the requester's change of
//! mind. Nothing is sent, and nobody is told an outcome, before the row that says so is on disk.

#[cfg(test)]
pub(super) mod house;
mod line;
mod parse;
mod progress;
mod record;
#[cfg(test)]
mod tests;

pub(crate) use record::Commands;

use super::dedup::{Found, Known};
use super::model::{AccountKind, AccountNo};
use super::online::Class;
use super::{Asker, Code, Done, Im, Origin, Refusal, Verdict, dedup, name, row, shorten};
use crate::hub::Now;
use crate::store::bytes::DecodeError;
use parse::{Draft, Report, check_response_topic};
use record::{Command, State};
use std::rc::Rc;

impl Im {
    // ---- Requests --------------------------------------------------------------------------------------------

    pub(super) fn on_command(
        &mut self,
        now: Now,
        origin: &Origin<'_>,
        to: &str,
        name: &str,
        payload: &[u8],
    ) -> Result<Verdict, Refusal> {
        let device = self.commanded_device(origin, to)?;
        if !name::is_client_id(name) {
            return Err(Refusal::bad("the name of a command is 1 to 36 of A-Z a-z 0-9 _ -"));
        }
        check_response_topic(origin)?;
        let asker = origin.session.and(origin.response_topic);
        let asker = asker.map(|_| Self::asker(origin, &format!("to/{to}/cmd/{name}"), None));
        let draft = Draft::parse(origin, payload, &self.limits)?;
        let content = draft.content_hash(to, name);
        let key = draft.id.as_deref().map(|id| dedup::key(origin.account, origin.client_id, 1, id));
        if let Some(key) = key {
            if let Some(done) = self.known_command(origin, key, content, asker.as_ref())? {
                self.go_on(now, device);
                return Ok(Verdict::Done(done));
            }
            let is_new = self.certainly_new == Some(key) || self.commands.by_key.contains_key(&key);
            if !is_new && self.dedup.find(key) == Found::Perhaps {
                return Ok(self.ask_first(origin, format!("to/{to}/cmd/{name}"), payload, key));
            }
        }
        let (rate, burst) = (self.limits.im_account_rate_max, self.limits.im_account_burst_max);
        if !origin.operator && !self.dir.accounts[origin.account.at()].flood.take(now.ms, rate, burst) {
            let text = "this account sends faster than it may (limits.im_account_rate_max)";
            return Err(Refusal::new(Code::Quota, text));
        }
        let waiting = self.commands.devices.get(&device).map_or(0, |queue| queue.open.len() as u64);
        if waiting >= self.limits.im_commands_per_device_max {
            let text =
                format!("{waiting} commands wait for {to} (im_commands_per_device_max): wait for their outcomes");
            return Err(Refusal::new(Code::Quota, text));
        }
        let id = draft.id.unwrap_or_else(|| format!("{:016x}", self.draw()));
        let mut command = Command::new(origin.account, id.into(), name.into());
        if let Some(queue) = self.commands.devices.get(&device)
            && queue.by_device_id(&command.id).is_some()
        {
            // Two requesters chose the same id; to the device they must not be one command.
            command.device_id = format!("{:016x}", self.draw()).into();
        }
        command.args = draft.args.into();
        command.once = draft.once;
        command.deadline_ms = now.wall_ms.saturating_add(draft.deadline_ms);
        command.asker = asker;
        command.content = content;
        let no = self.commands.devices.get(&device).map_or(1, |queue| queue.next);
        if let Some((account, hash)) = key {
            command.key = hash;
            let known = Known { conv: device.0, seq: no, content };
            self.dedup.add((account, hash), known, now.wall_ms);
            self.put(row::DEDUP, account.0.into(), hash, &known.encode());
        }
        self.commands.add(device, no, command);
        self.counters.commands += 1;
        self.enter_command(now, device, no, State::Queued);
        self.go_on(now, device);
        let reply = self.command_answer(origin, device, no);
        Ok(Verdict::Done(Done { durable: true, reply, ..Done::default() }))
    }

    pub(super) fn on_command_cancel(
        &mut self,
        now: Now,
        origin: &Origin<'_>,
        to: &str,
        id: &str,
    ) -> Result<Verdict, Refusal> {
        let unknown = || Refusal::not_found(format!("{} has no command {} of yours", shorten(to), shorten(id)));
        let device = self.account_no(to).ok_or_else(unknown)?;
        let queue = self.commands.devices.get(&device).ok_or_else(unknown)?;
        let no = queue.by_requester(origin.account, id).ok_or_else(unknown)?;
        match self.commands.get(device, no).map(|command| command.state) {
            None => return Err(unknown()),
            Some(State::Canceled) => {}
            Some(state) if state.is_outcome() => {
                return Err(Refusal::new(Code::TooLate, format!("the outcome is there already: {}", state.text())));
            }
            Some(_) => {
                self.cancel_command(now, device, no);
                self.go_on(now, device);
            }
        }
        let reply = self.command_answer(origin, device, no);
        Ok(Verdict::Done(Done { durable: true, reply, ..Done::default() }))
    }

    /// `me/res/{id}`: a command of one's own as it is now.
    pub(super) fn on_command_query(&self, origin: &Origin<'_>, id: &str) -> Result<Verdict, Refusal> {
        let found = self.commands.devices.iter().find_map(|(device, queue)| {
            let no = queue.by_requester(origin.account, id)?;
            let (_, payload) = self.command_now(*device, no, 0)?;
            serde_json::from_slice(&payload).ok()
        });
        let unknown = || Refusal::not_found(format!("there is no command {} of yours", shorten(id)));
        Ok(Verdict::Done(Done::told(found.ok_or_else(unknown)?)))
    }

    pub(super) fn on_command_result(
        &mut self,
        now: Now,
        origin: &Origin<'_>,
        id: &str,
        payload: &[u8],
    ) -> Result<Verdict, Refusal> {
        let device = origin.account;
        let report = Report::parse(payload, &self.limits)?;
        let unknown = || Refusal::not_found(format!("no command {} was sent to this device", shorten(id)));
        let queue = self.commands.devices.get_mut(&device).ok_or_else(unknown)?;
        let no = queue.by_device_id(id).ok_or_else(unknown)?;
        let command = queue.commands.get_mut(&no).filter(|command| command.was_sent()).ok_or_else(unknown)?;
        let is_same = *command.text == *report.text && *command.result == *report.result;
        if command.state.is_outcome() {
            if command.state != report.state || !is_same {
                let text = format!("the outcome is there already: {}", command.state.text());
                return Err(Refusal::new(Code::TooLate, text));
            }
        } else {
            let is_progress = command.state == State::Running && report.state == State::Running;
            command.text = report.text.into();
            command.result = report.result.into();
            if !is_progress {
                self.enter_command(now, device, no, report.state);
                self.go_on(now, device);
            } else if !is_same {
                self.command_progresses(now, device, no);
            }
        }
        let reply =
            origin.session.is_none().then(|| serde_json::json!({ "command": id, "state": report.state.text() }));
        Ok(Verdict::Done(Done { durable: true, reply, ..Done::default() }))
    }

    /// The device that an address means, if whoever asks may command it.
    pub(super) fn commanded_device(&self, origin: &Origin<'_>, to: &str) -> Result<AccountNo, Refusal> {
        let Some(device) = self.account_no(to) else {
            return Err(Refusal::not_found(format!("there is no device {}", shorten(to))));
        };
        if !origin.operator {
            self.may_command(origin.account, device)?;
        }
        if !self.takes_commands(device) {
            let text = format!("{to} is no device, and no session of it has subscribed to im/v1/me/cmd/#");
            return Err(Refusal::new(Code::Forbidden, text));
        }
        Ok(device)
    }

    /// Whether an account is a device, or acts as one.
    fn takes_commands(&self, account: AccountNo) -> bool {
        let a = &self.dir.accounts[account.at()];
        let is_subscribed = |place: &u32| self.online.get(*place as usize).is_some_and(|o| o.wants(Class::Cmd));
        a.kind == AccountKind::Device || self.description(account).is_some() || a.online.iter().any(is_subscribed)
    }

    /// What there is to say of a command whose client id was used before; `None`: it was not.
    fn known_command(
        &mut self,
        origin: &Origin<'_>,
        key: dedup::Key,
        content: u64,
        asker: Option<&Asker>,
    ) -> Result<Option<Done>, Refusal> {
        let reused = || Refusal::new(Code::IdReused, "this id was used for another command: a new one needs a new id");
        let Some(&(device, no)) = self.commands.by_key.get(&key) else {
            return match self.dedup.find(key) {
                Found::Used(known) if known.content == content => {
                    self.counters.duplicates += 1;
                    let reply = Some(serde_json::json!({ "forgotten": true }));
                    Ok(Some(Done { durable: true, dup: true, reply, ..Done::default() }))
                }
                Found::Used(_) => Err(reused()),
                // Whoever asks looks further.
                Found::New | Found::Perhaps => Ok(None),
            };
        };
        let Some(command) = self.commands.get_mut(device, no) else { return Ok(None) };
        if command.content != content {
            return Err(reused());
        }
        self.counters.duplicates += 1;
        if asker.is_some() {
            // The session that asks now is the one that waits.
            command.asker = asker.cloned();
        }
        if command.state.is_outcome() {
            self.tell_outcome(device, no);
        }
        if asker.is_none()
            && let Some(session) = origin.session
        {
            self.tell_command(device, no, session, 0);
        }
        let reply = self.command_answer(origin, device, no);
        Ok(Some(Done { durable: true, dup: true, reply, ..Done::default() }))
    }

    /// A command as it is, as an answer to whoever asked; `None`: the answer is the outcome, at its Response Topic.
    fn command_answer(&self, origin: &Origin<'_>, device: AccountNo, no: u64) -> Option<serde_json::Value> {
        if origin.session.is_some() && origin.response_topic.is_some() {
            return None;
        }
        let (_, payload) = self.command_now(device, no, 0)?;
        serde_json::from_slice(&payload).ok()
    }

    /// A command of this requester as it is now; `None`: there is none, or it is forgotten.
    pub(super) fn look_command(&self, requester: AccountNo, device: AccountNo, id: &str) -> Option<serde_json::Value> {
        let no = self.commands.devices.get(&device)?.by_requester(requester, id)?;
        let (_, payload) = self.command_now(device, no, 0)?;
        serde_json::from_slice(&payload).ok()
    }

    /// Topic and payload of a command as it is now.
    fn command_now(&self, device: AccountNo, no: u64, pos: u64) -> Option<(Rc<str>, Vec<u8>)> {
        let command = self.commands.get(device, no)?;
        self.render_command(command.requester, device, no, command.state as u32, pos)
    }

    // ---- What other rooms tell -------------------------------------------------------------------------------

    /// A deadline of this device's commands may have come.
    pub(super) fn command_due(&mut self, now: Now, device: AccountNo) {
        if let Some(queue) = self.commands.devices.get_mut(&device) {
            while queue.armed.pop_if(|at_ms| *at_ms <= now.ms).is_some() {}
            self.go_on(now, device);
        }
    }

    /// A session of the device wants commands (again): what waits may go.
    pub(super) fn command_device_ready(&mut self, now: Now, device: AccountNo) {
        let Some(queue) = self.commands.devices.get(&device) else { return };
        // Nobody says of a command at QoS 0 that its session went away with it.
        let is_lost = |command: &Command| {
            command.state == State::Sent && command.sent_to.is_none_or(|session| self.live_session(session).is_none())
        };
        let lost: Vec<u64> = queue.waiting().filter(|(_, command)| is_lost(command)).map(|(no, _)| no).collect();
        for no in lost {
            self.enter_command(now, device, no, State::Queued);
        }
        self.go_on(now, device);
    }

    /// The device's client has acknowledged this command.
    pub(super) fn command_delivered(&mut self, now: Now, device: AccountNo, no: u64) {
        // A result may have come before the acknowledgement, and then it says more.
        if self.commands.get(device, no).is_some_and(|command| command.state == State::Sent) {
            self.enter_command(now, device, no, State::Delivered);
        }
    }

    /// A session went away with this command sent and not acknowledged.
    pub(super) fn command_unsent(&mut self, now: Now, device: AccountNo, no: u64) {
        if self.commands.get(device, no).is_some_and(|command| command.state == State::Sent) {
            self.enter_command(now, device, no, State::Queued);
            self.go_on(now, device);
        }
    }

    /// The device's client takes no packet as large as this command.
    pub(super) fn command_too_large(&mut self, now: Now, device: AccountNo, no: u64) {
        let Some(command) = self.commands.get_mut(device, no) else { return };
        if command.state == State::Sent {
            command.text = "larger than the Maximum Packet Size of the device".into();
            self.enter_command(now, device, no, State::Failed);
            self.go_on(now, device);
        }
    }

    /// An account was removed: its commands, and those for it, end.
    pub(super) fn command_account_removed(&mut self, now: Now, account: AccountNo) {
        let mut ends = vec![];
        for (&device, queue) in &self.commands.devices {
            let is_its = |command: &Command| device == account || command.requester == account;
            ends.extend(queue.waiting().filter(|(_, command)| is_its(command)).map(|(no, _)| (device, no)));
        }
        for (device, no) in ends {
            self.cancel_command(now, device, no);
            self.go_on(now, device);
        }
    }

    /// Whose command the device is carrying out.
    pub(super) fn command_of(&self, device: AccountNo) -> Option<AccountNo> {
        let queue = self.commands.devices.get(&device)?;
        queue.waiting().find(|(_, command)| command.state.is_under_way()).map(|(_, command)| command.requester)
    }

    /// Topic and payload of a mailbox entry about a command (`state` is the entry's `extra`); `None`: it is forgotten.
    pub(super) fn render_command(
        &self,
        requester: AccountNo,
        device: AccountNo,
        no: u64,
        state: u32,
        pos: u64,
    ) -> Option<(Rc<str>, Vec<u8>)> {
        let command = self.commands.get(device, no).filter(|command| command.requester == requester)?;
        let payload = command.render(self.name_of(device), State::of(state)?, pos);
        Some((format!("im/v1/me/res/{}", command.id).into(), payload))
    }

    pub(super) fn restore_command(&mut self, device: AccountNo, no: u64, value: &[u8]) -> Result<(), DecodeError> {
        let mut command = Command::decode(value)?;
        let accounts = self.dir.accounts.len();
        if device.at() >= accounts || command.requester.at() >= accounts {
            return Err(DecodeError::Truncated);
        }
        if command.state == State::Sent {
            // Whether the device got it nobody knows: it is sent again, and the device knows it by its id.
            command.state = State::Queued;
        }
        self.commands.add(device, no, command);
        Ok(())
    }

    /// Every row was read: deadlines are set.
    pub(super) fn commands_restored(&mut self, now: Now) {
        let devices: Vec<AccountNo> = self.commands.devices.keys().copied().collect();
        for device in devices {
            self.set_command_timer(now, device);
        }
    }
}
