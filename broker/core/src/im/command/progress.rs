//! How far a command is: what a device says of one that it runs, while it runs it.
//!
//! It is for whoever watches. No row and no mailbox entry is written of it; of several reports only the latest matters.

use super::super::model::AccountNo;
use super::super::online::{Class, Note, Tag};
use super::super::{Im, ImTimer};
use super::record::State;
use crate::hub::Now;

/// What a device says while it runs a command is passed on this often at most.
pub(super) const PROGRESS_MS: u64 = 1_000;

impl Im {
    /// The device has said something new of a command that it runs: it is passed on now, or when it is time again.
    pub(super) fn command_progresses(&mut self, now: Now, device: AccountNo, no: u64) {
        let Some(command) = self.commands.get_mut(device, no) else { return };
        if core::mem::replace(&mut command.is_untold, true) {
            // A deadline is set.
            return;
        }
        let due_ms = command.told_ms.saturating_add(PROGRESS_MS);
        if due_ms <= now.ms {
            self.progress_due(now, device);
        } else {
            self.arm(due_ms, ImTimer::Progress(device));
        }
    }

    /// Passes on what this device said last, where it is time.
    pub(in crate::im) fn progress_due(&mut self, now: Now, device: AccountNo) {
        let Some(queue) = self.commands.devices.get(&device) else { return };
        // Each of the others has a deadline of its own.
        let is_due = |told_ms: u64| told_ms.saturating_add(PROGRESS_MS) <= now.ms;
        let due: Vec<u64> = queue
            .waiting()
            .filter(|(_, command)| command.is_untold && is_due(command.told_ms))
            .map(|(no, _)| no)
            .collect();
        let mut is_early = false;
        for no in due {
            // That it runs is told first, once that is on disk.
            if !self.commands.get(device, no).is_some_and(|command| self.is_command_on_disk(command)) {
                is_early = true;
                continue;
            }
            if let Some(command) = self.commands.get_mut(device, no) {
                (command.told_ms, command.is_untold) = (now.ms, false);
            }
            self.tell_progress(device, no);
        }
        if is_early {
            self.arm(now.ms + PROGRESS_MS, ImTimer::Progress(device));
        }
    }

    fn tell_progress(&mut self, device: AccountNo, no: u64) {
        self.withdraw_progress(device, no);
        let Some((topic, payload)) = self.command_now(device, no, 0) else { return };
        let Some(command) = self.commands.get(device, no) else { return };
        for session in self.listeners_of(command, &topic, |o| o.is_live) {
            let Some(place) = self.live_session(session) else { continue };
            let mut note = Note::new(Class::Res, &topic, &payload);
            note.tag = Tag::Progress { device, no };
            self.note(place, note);
        }
    }

    /// What waits to be written of how far a command is is not true any more.
    pub(super) fn withdraw_progress(&mut self, device: AccountNo, no: u64) {
        let Some(command) = self.commands.get(device, no) else { return };
        if command.state < State::Running {
            return;
        }
        for at in 0..self.dir.accounts[command.requester.at()].online.len() {
            let Some(command) = self.commands.get(device, no) else { return };
            let place = self.dir.accounts[command.requester.at()].online[at];
            self.withdraw_note(place, Tag::Progress { device, no });
        }
    }
}

#[cfg(test)]
mod tests;
