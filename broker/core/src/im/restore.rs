//! What is known after a start: every row of the resident tables, read once.

use super::model::{Account, AccountNo, Address, Conv, ConvKind, ConvNo, Member, Terminal};
use super::{Im, ImSettings, ImTimer, row};
use crate::hub::Now;
use crate::limits::Limits;
use crate::store::bytes::{DecodeError, Reader};
use crate::store::{RowRecord, Snapshot};
use std::rc::Rc;

impl Im {
    /// The rooms as `snapshot` left them. A row that cannot be read is left out and counted: nothing else of its account
    /// or conversation suffers.
    pub(crate) fn new(settings: ImSettings, limits: Limits, snapshot: &Snapshot, seed: u64, now: Now) -> Self {
        let mut im = Self::empty(settings, limits, snapshot.boot, seed);
        for found in &snapshot.rows {
            if im.restore(found).is_err() {
                im.counters.dropped.add("unreadable_row");
            }
        }
        for &(table, a, b) in &snapshot.keys {
            if table == row::DEDUP
                && let Ok(account) = u32::try_from(a)
            {
                im.dedup.restore((AccountNo(account), b), now.wall_ms);
            }
        }
        im.complete(now);
        for (name, _) in &snapshot.accounts {
            im.account_or_new(now, name);
        }
        im
    }

    fn restore(&mut self, found: &RowRecord) -> Result<(), DecodeError> {
        let (a, b) = (found.a, found.b);
        let account = AccountNo(u32::try_from(a).unwrap_or(u32::MAX));
        let conv = ConvNo(u32::try_from(a).unwrap_or(u32::MAX));
        let other = u32::try_from(b).unwrap_or(u32::MAX);
        let value = found.value.as_slice();
        // Tables come in the order of their numbers: accounts and conversations before what belongs to them.
        match found.table {
            row::ACCOUNT => {
                let account = Account::decode(value)?;
                // Numbers are given without holes, and their rows stay.
                let no = AccountNo(u32::try_from(self.dir.accounts.len()).unwrap_or(u32::MAX));
                if u64::from(no.0) == a {
                    if !account.removed {
                        self.dir.by_name.insert(Rc::clone(&account.name), Address::Account(no));
                    }
                    self.dir.accounts.push(account);
                }
            }
            row::CONV => {
                let conv = Conv::decode(value)?;
                if self.dir.convs.len() as u64 == a {
                    self.dir.convs.push(conv);
                }
            }
            row::CONTACT => self.restore_contact(account, b, value)?,
            row::HEAD => {
                if let Some(c) = self.dir.convs.get_mut(conv.at()) {
                    c.decode_head(value)?;
                }
            }
            row::MEMBER => {
                let mut r = row::reader(value)?;
                let member = Member::read(AccountNo(other), &mut r)?;
                if let Some(c) = self.dir.convs.get_mut(conv.at()) {
                    c.members.push(member);
                }
            }
            row::TERMINAL => {
                let no = u8::try_from(b).unwrap_or(u8::MAX);
                let terminal = Terminal::decode(no, value)?;
                if let Some(a) = self.dir.accounts.get_mut(account.at()) {
                    a.terminals.push(terminal);
                }
            }
            row::MAILBOX => {
                let mut r = row::reader(value)?;
                let (next, kept) = (r.int()?, r.int()?);
                if let Some(a) = self.dir.accounts.get_mut(account.at()) {
                    a.mailbox.next = next;
                    a.mailbox.committed = next;
                    a.mailbox.floor = next.saturating_sub(kept);
                }
            }
            row::MAIL_DAY => {
                let pos = value.try_into().map(u64::from_le_bytes).map_err(|_| DecodeError::Truncated)?;
                if let Some(a) = self.dir.accounts.get_mut(account.at()) {
                    a.mailbox.days.push_back((other, pos));
                }
            }
            row::COMMAND => self.restore_command(account, b, value)?,
            row::STATE => self.restore_state(account, b, value)?,
            row::ANNOUNCEMENT => self.restore_announcement(conv, b, value)?,
            row::EXPIRY => {
                let expiring = super::send::Expiring::decode(value)?;
                self.expiring.insert((conv, b), expiring);
            }
            row::PAIRING => self.restore_pairing(a, value)?,
            row::BLOB => self.restore_blob(a, value)?,
            row::PLACE => {
                let place = row::reader(value)?.int()?;
                let terminals = u64::from(super::terminal::TERMINALS);
                let account = usize::try_from(a / terminals).unwrap_or(usize::MAX);
                let no = u8::try_from(a % terminals).unwrap_or(u8::MAX);
                if let Some(t) = self.dir.accounts.get_mut(account).and_then(|a| a.terminal_mut(no)) {
                    t.places.insert(ConvNo(other), place);
                }
            }
            _ => {
                // A table of a later version; it is kept and not looked at.
                Reader::new(value);
            }
        }
        Ok(())
    }

    /// Puts together what the rows say, and sets the deadlines.
    fn complete(&mut self, now: Now) {
        for at in 0..self.dir.convs.len() {
            let no = ConvNo(u32::try_from(at).unwrap_or(u32::MAX));
            let conv = &mut self.dir.convs[at];
            conv.members.sort_unstable_by_key(|m| m.account);
            let (address, is_household) = match &conv.kind {
                ConvKind::Direct => {
                    let key = (conv.members[0].account, conv.members[1].account);
                    self.dir.direct.insert(key, no);
                    (None, false)
                }
                // The address of one that has ended is nobody else's.
                ConvKind::Group(g) => (Some(Rc::clone(&g.address)), g.household),
                ConvKind::Channel(c) => (Some(Rc::clone(&c.address)), false),
            };
            if let Some(address) = address {
                self.dir.by_name.insert(address, Address::Conv(no));
            }
            let accounts = &self.dir.accounts;
            let is_over = |m: &Member| accounts.get(m.account.at()).is_none_or(|a| a.removed);
            // Nobody is to take an old conversation for one with a new account of that name.
            if self.dir.convs[at].kind == ConvKind::Direct && self.dir.convs[at].members.iter().any(is_over) {
                continue;
            }
            for member in &self.dir.convs[at].members {
                let Some(account) = self.dir.accounts.get_mut(member.account.at()) else { continue };
                account.convs.push(no);
                account.unread += u64::from(member.unread);
                if is_household {
                    account.households.push(no);
                }
            }
        }
        for account in &mut self.dir.accounts {
            // What was sent before the end is not known: all of it may have been, and comes again with DUP.
            for terminal in &mut account.terminals {
                terminal.sent = account.mailbox.committed;
            }
        }
        let expiring: Vec<_> = self.expiring.iter().map(|(key, e)| (*key, e.at_ms)).collect();
        for ((conv, seq), at_ms) in expiring {
            self.arm_wall(now, at_ms, ImTimer::Expiry(conv, seq));
        }
        self.arm(now.ms + 3_600_000, ImTimer::Daily);
        self.commands_restored(now);
        self.announcements_restored(now);
        self.pairings_restored(now);
        self.blobs_restored();
        self.states_restored(now);
    }
}
