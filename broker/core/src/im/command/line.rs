//! The line of a device: what goes out, what ends, who is told, what is forgotten.

use super::super::model::{AccountNo, MailEntry, MailKind};
use super::super::online::{Class, Note, Online, Tag};
use super::super::{Asker, Im, ImTimer, row};
use super::record::{Command, State};
use crate::hub::Now;
use std::rc::Rc;

/// A command with an outcome is remembered so long, as mailbox entries about it are of use.
pub(super) const KEEP_MS: u64 = 7 * 24 * 3_600_000;
/// A device whose session takes nothing more is tried again after this time.
const RETRY_MS: u64 = 1_000;

impl Im {
    /// A command goes into a state: row, mailbox entry, counters.
    pub(super) fn enter_command(&mut self, now: Now, device: AccountNo, no: u64, state: State) {
        let Some(queue) = self.commands.devices.get_mut(&device) else { return };
        let Some(command) = queue.commands.get_mut(&no) else { return };
        debug_assert!(!command.state.is_outcome(), "an outcome is final");
        command.enter(state, now.wall_ms);
        (command.told_ms, command.is_untold) = (now.ms, false);
        if state.is_outcome() {
            queue.open.remove(&no);
            self.counters.outcomes.add(state.text());
        }
        let (value, requester) = (command.encode(), command.requester);
        self.withdraw_progress(device, no);
        self.put(row::COMMAND, device.0.into(), no, &value);
        if self.dir.accounts[requester.at()].removed {
            return;
        }
        let entry = MailEntry { kind: MailKind::Command, conv: device.0, seq: no, extra: state as u32 };
        let pos = self.mail(now, requester, entry);
        if let Some(command) = self.commands.get_mut(device, no) {
            command.pos = pos;
        }
        self.tell_requester(device, no, pos);
        if state.is_outcome() {
            self.tell_outcome(device, no);
        }
    }

    /// Tells those sessions of the requester that want it and are not sent the mailbox.
    fn tell_requester(&mut self, device: AccountNo, no: u64, pos: u64) {
        let Some((topic, _)) = self.command_now(device, no, pos) else { return };
        let Some(command) = self.commands.get(device, no) else { return };
        let sessions: Vec<(u32, u32)> = self.listeners_of(command, &topic, |o| !o.is_pushed());
        for session in sessions {
            self.tell_command(device, no, session, pos);
        }
    }

    /// The sessions of the requester that want this topic of a command and are such ones.
    pub(super) fn listeners_of(
        &self,
        command: &Command,
        topic: &str,
        is_one: impl Fn(&Online) -> bool,
    ) -> Vec<(u32, u32)> {
        // A session that waits for the outcome at this very topic gets nothing else there.
        let waits = |session| {
            command.asker.as_ref().is_some_and(|asker| asker.session == Some(session) && *asker.topic == *topic)
        };
        let wants = |place: &u32| {
            let o = self.online.get(*place as usize)?;
            let session = (o.session, o.generation);
            let is_told = is_one(o) && o.wants_topic(Class::Res, topic).is_some() && !waits(session);
            is_told.then_some(session)
        };
        self.dir.accounts[command.requester.at()].online.iter().filter_map(wants).collect()
    }

    /// Tells a session how a command is, once that is on disk.
    pub(super) fn tell_command(&mut self, device: AccountNo, no: u64, session: (u32, u32), pos: u64) {
        let Some((topic, payload)) = self.command_now(device, no, pos) else { return };
        let Some(command) = self.commands.get(device, no) else { return };
        let asker = Asker {
            account: command.requester,
            session: Some(session),
            token: 0,
            topic,
            correlation: None,
            re: format!("to/{}/cmd/{}", self.name_of(device), command.name),
            id: None,
        };
        self.after_commit_tell(asker, serde_json::from_slice(&payload).unwrap_or_default());
    }

    /// Tells the outcome to the session that asked with a Response Topic, once it is on disk.
    pub(super) fn tell_outcome(&mut self, device: AccountNo, no: u64) {
        let Some((_, payload)) = self.command_now(device, no, 0) else { return };
        if let Some(asker) = self.commands.get_mut(device, no).and_then(|command| command.asker.take()) {
            self.after_commit_tell(asker, serde_json::from_slice(&payload).unwrap_or_default());
        }
    }

    /// Does what has become possible or due: ends, sends, tells, forgets, and sets the next timer.
    pub(super) fn go_on(&mut self, now: Now, device: AccountNo) {
        self.end_overdue_commands(now, device);
        let window = self.limits.im_command_window;
        while let Some(no) = self.commands.devices.get(&device).and_then(|queue| queue.next_to_send(window)) {
            if !self.send_command(now, device, no) {
                break;
            }
        }
        self.forget_commands(now, device);
        self.set_command_timer(now, device);
    }

    fn end_overdue_commands(&mut self, now: Now, device: AccountNo) {
        let Some(queue) = self.commands.devices.get(&device) else { return };
        let is_over = |command: &Command| command.deadline_ms <= now.wall_ms;
        let over: Vec<(u64, State)> =
            queue.waiting().filter(|(_, command)| is_over(command)).map(|(no, command)| (no, command.state)).collect();
        for (no, state) in over {
            self.withdraw_command(device, no);
            let had_it = matches!(state, State::Delivered | State::Running);
            self.enter_command(now, device, no, if had_it { State::Timeout } else { State::Expired });
        }
    }

    /// Ends a command at the requester's wish; a device that was sent it is told.
    pub(super) fn cancel_command(&mut self, now: Now, device: AccountNo, no: u64) {
        let Some(command) = self.commands.get(device, no) else { return };
        let (was_sent, session) = (command.was_sent(), command.sent_to);
        let topic: Rc<str> = format!("im/v1/me/cmd/{}/$cancel", command.device_id).into();
        let was_seen = was_sent && !self.withdraw_command(device, no);
        self.enter_command(now, device, no, State::Canceled);
        if was_seen
            && let Some(online) =
                session.and_then(|session| self.live_session(session)).or_else(|| self.command_session(device, &topic))
        {
            self.note(online, Note::new(Class::Cmd, &topic, b"{}"));
        }
    }

    /// Sends a command; false: not now.
    fn send_command(&mut self, now: Now, device: AccountNo, no: u64) -> bool {
        let Some(command) = self.commands.get(device, no) else { return false };
        // Nor before the outcomes of earlier ones are: after a power cut the device would have two, the later one first.
        let is_settled = self.is_command_on_disk(command)
            && self.commands.devices.get(&device).is_none_or(|queue| {
                queue.commands.values().filter(|c| c.state.is_outcome()).all(|c| self.is_command_on_disk(c))
            });
        if !is_settled {
            self.waiting_devices.push(device);
            return false;
        }
        let topic: Rc<str> = format!("im/v1/me/cmd/{}/{}", command.device_id, command.name).into();
        let Some(online) = self.command_session(device, &topic) else { return false };
        let payload = command.render_order(self.name_of(command.requester), now.wall_ms);
        let answer = format!("im/v1/me/cmdres/{}", command.device_id);
        let mut order = Note::new(Class::Cmd, &topic, &payload);
        order.response_topic = Some(answer.into());
        order.tag = Tag::Command { device, no };
        if !self.note(online, order) {
            self.arm(now.ms + RETRY_MS, ImTimer::Command(device));
            return false;
        }
        let sent_to = self.online.get(online as usize).map(|o| (o.session, o.generation));
        if let Some(command) = self.commands.get_mut(device, no) {
            command.sent_to = sent_to;
        }
        self.enter_command(now, device, no, State::Sent);
        true
    }

    /// Whether the latest state of a command is on disk.
    pub(super) fn is_command_on_disk(&self, command: &Command) -> bool {
        let requester = &self.dir.accounts[command.requester.at()];
        requester.removed || command.pos < requester.mailbox.committed
    }

    /// The latest session of the device that wants this topic, as a place in `Im::online`.
    fn command_session(&self, device: AccountNo, topic: &str) -> Option<u32> {
        let wants = |place: &u32| {
            self.online.get(*place as usize).is_some_and(|o| o.is_live && o.wants_topic(Class::Cmd, topic).is_some())
        };
        self.dir.accounts[device.at()].online.iter().rev().copied().find(wants)
    }

    /// The place in `Im::online` of a session that is connected still.
    pub(in crate::im) fn live_session(&self, session: (u32, u32)) -> Option<u32> {
        let place = *self.by_session.get(&session.0)?;
        self.online.get(place as usize).filter(|o| o.is_live && o.generation == session.1).map(|_| place)
    }

    /// Takes a command back that waits to be written to the device's connection; false: it is too late for that.
    fn withdraw_command(&mut self, device: AccountNo, no: u64) -> bool {
        let session = self.commands.get(device, no).and_then(|command| command.sent_to);
        let Some(place) = session.and_then(|session| self.live_session(session)) else { return false };
        self.withdraw_note(place, Tag::Command { device, no })
    }

    /// Takes back what waits to be written to a connection; false: nothing does.
    pub(super) fn withdraw_note(&mut self, place: u32, tag: Tag) -> bool {
        let Some(o) = self.online.get_mut(place as usize) else { return false };
        let Some(at) = o.notes.iter().position(|note| note.tag == tag) else { return false };
        if let Some(note) = o.notes.remove(at) {
            o.notes_bytes = o.notes_bytes.saturating_sub(note.payload.len() + note.topic.len() + 64);
        }
        true
    }

    /// Forgets outcomes that are old, or more than are kept for a device.
    fn forget_commands(&mut self, now: Now, device: AccountNo) {
        let most = self.limits.im_commands_kept_max;
        while let Some(queue) = self.commands.devices.get(&device)
            && let Some((no, command)) = queue.first_finished()
            && ((queue.commands.len() - queue.open.len()) as u64 > most
                || command.since(command.state).saturating_add(KEEP_MS) <= now.wall_ms)
        {
            self.commands.remove(device, no);
            self.del(row::COMMAND, device.0.into(), no);
        }
    }

    pub(super) fn set_command_timer(&mut self, now: Now, device: AccountNo) {
        let Some(queue) = self.commands.devices.get_mut(&device) else { return };
        let deadline = queue.waiting().map(|(_, command)| command.deadline_ms).min();
        let forget = queue.first_finished().map(|(_, command)| command.since(command.state).saturating_add(KEEP_MS));
        let Some(wall_ms) = deadline.into_iter().chain(forget).min() else { return };
        let at_ms = now.ms.saturating_add(wall_ms.saturating_sub(now.wall_ms));
        if queue.armed.last().is_none_or(|earliest| at_ms < *earliest) {
            queue.armed.push(at_ms);
            self.arm(at_ms, ImTimer::Command(device));
        }
    }
}
