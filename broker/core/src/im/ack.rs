//! What acknowledgements mean: places move, and others learn what was delivered.

use super::Im;
use super::deliver::{MAIL_IDS, MAIL_ROUND, NOTE_IDS, RECENT};
use super::model::AccountNo;
use super::online::{Flight, Tag};
use crate::hub::Now;

impl Im {
    // ---- Acknowledgements ------------------------------------------------------------------------------------

    /// PUBACK of an identifier that is ours. False: nothing of that identifier is under way.
    pub(crate) fn puback(&mut self, now: Now, session: u32, packet_id: u16) -> bool {
        let Some(&at) = self.by_session.get(&session) else { return false };
        let o = &mut self.online[at as usize];
        if packet_id >= NOTE_IDS {
            let Some(place) = o.notes_sent.iter().position(|(id, _)| *id == packet_id) else { return false };
            let (_, tag) = o.notes_sent.remove(place);
            o.under_way -= 1;
            self.noted(now, at, tag);
            self.wake(at);
            return true;
        }
        let first = o.first_open();
        let offset = (u64::from(packet_id - MAIL_IDS) + MAIL_ROUND - first % MAIL_ROUND) % MAIL_ROUND;
        let place = usize::try_from(offset).ok().and_then(|offset| o.flight.get_mut(offset));
        let Some(flight) = place else { return false };
        let Flight::Sent(message) = *flight else { return false };
        *flight = Flight::Done;
        o.under_way -= 1;
        let account = o.account;
        if let Some((conv, seq)) = message {
            self.mark_recv(account, conv, seq);
        }
        self.advance(at);
        self.wake(at);
        true
    }

    fn noted(&mut self, now: Now, at: u32, tag: Tag) {
        let account = self.online[at as usize].account;
        match tag {
            Tag::None | Tag::Head | Tag::Progress { .. } | Tag::Range => {}
            Tag::Command { device, no } => self.command_delivered(now, device, no),
            Tag::Message { conv, seq } => {
                self.mark_recv(account, conv, seq);
                if self.dir.convs[conv.at()].is_large() {
                    self.log_done(at, conv, seq);
                }
            }
            Tag::Announcement { channel, change } => self.announcement_done(now, at, channel, change),
            Tag::Gap { until } => self.gap_heard(at, until),
            Tag::Paired => self.pairing_heard(now, at),
        }
    }

    /// Moves the terminal's place behind all that is done.
    pub(super) fn advance(&mut self, at: u32) {
        let o = &mut self.online[at as usize];
        while o.flight.front() == Some(&Flight::Done) {
            o.flight.pop_front();
        }
        let first = o.gap.map_or(o.first_open(), |(from, _)| from.min(o.first_open()));
        let (acked, account, Some(no)) = (first - 1, o.account, o.terminal) else { return };
        self.move_place(account, no, acked);
    }

    pub(super) fn move_place(&mut self, account: AccountNo, no: u8, acked: u64) {
        let Some(t) = self.dir.accounts[account.at()].terminal_mut(no) else { return };
        if acked > t.acked {
            t.acked = acked;
            self.touch_terminal(account, no);
        }
    }

    /// Forgets entries that every session has got, keeping a few for those that are behind.
    pub(super) fn trim_recent(&mut self, account: AccountNo) {
        let Some(a) = self.dir.accounts.get(account.at()) else { return };
        let waiting = a.online.iter().map(|at| &self.online[*at as usize]);
        let lowest = waiting.filter(|o| o.terminal.is_some() && o.is_pushed()).map(|o| o.next).min();
        let mailbox = &mut self.dir.accounts[account.at()].mailbox;
        let keep_from = lowest.unwrap_or(mailbox.committed).max(mailbox.next.saturating_sub(RECENT as u64));
        let keep_from = keep_from.min(mailbox.committed);
        while mailbox.recent_from() < keep_from && mailbox.recent.pop_front().is_some() {}
        if mailbox.recent.is_empty() && mailbox.recent.capacity() > 32 {
            mailbox.recent = std::collections::VecDeque::new();
        }
    }
}
