//! Rows that change, the batches they go with, and what a batch makes true once it is on disk.

use super::model::{self, AccountNo, ConvNo};
use super::online::Class;
use super::{Im, Out, Pending, row};
use crate::hub::Now;
use crate::store::{Fact, Query, Table, What};

/// What a batch makes true once it is on disk.
#[derive(Debug, Default)]
pub(crate) struct Marks {
    /// Ends of mailboxes.
    mailboxes: Vec<(AccountNo, u64)>,
    badges: Vec<(AccountNo, ConvNo)>,
    marked: Vec<(ConvNo, AccountNo, (u64, u64))>,
    states: Vec<AccountNo>,
    deltas: Vec<AccountNo>,
}

impl Marks {
    pub(crate) fn is_empty(&self) -> bool {
        self.mailboxes.is_empty()
            && self.badges.is_empty()
            && self.marked.is_empty()
            && self.states.is_empty()
            && self.deltas.is_empty()
    }
}

impl Pending {
    /// Whose pull it is, if it is one.
    pub(super) fn is_pull_of(&self) -> Option<AccountNo> {
        match self {
            Self::Query(asked) => Some(asked.account()),
            Self::Recount(recount) => Some(recount.account()),
            Self::Blob(wanted) => Some(wanted.account()),
            _ => None,
        }
    }
}

impl Im {
    // ---- Writing rows ----------------------------------------------------------------------------------------

    /// Writes a row.
    pub(crate) fn put(&mut self, table: Table, a: u64, b: u64, value: &[u8]) {
        self.facts.push(&Fact::Put { table, a, b, value });
    }

    /// Removes a row.
    pub(crate) fn del(&mut self, table: Table, a: u64, b: u64) {
        self.facts.push(&Fact::Del { table, a, b });
    }

    /// Asks the store.
    pub(crate) fn ask(&mut self, table: Table, what: What, pending: Pending) -> u64 {
        let token = self.next_token;
        self.next_token += 1;
        if let Some(account) = pending.is_pull_of() {
            *self.pulls.entry(account).or_insert(0) += 1;
        }
        self.pending.insert(token, pending);
        self.out.push_back(Out::Query(Query { token, table, what }));
        token
    }

    pub(crate) fn store_account(&mut self, no: AccountNo) {
        let value = self.dir.accounts[no.at()].encode();
        self.put(row::ACCOUNT, no.0.into(), 0, &value);
    }

    pub(crate) fn store_conv(&mut self, no: ConvNo) {
        let value = self.dir.convs[no.at()].encode();
        self.put(row::CONV, no.0.into(), 0, &value);
    }

    /// The head row (and with it the marks of a direct conversation) is written with the next batch.
    pub(crate) fn touch_conv(&mut self, no: ConvNo) {
        let conv = &mut self.dir.convs[no.at()];
        if !conv.dirty {
            conv.dirty = true;
            self.dirty_convs.push(no);
        }
    }

    /// A member's marks are written with the next batch.
    pub(crate) fn touch_member(&mut self, no: ConvNo, account: AccountNo) {
        if self.dir.convs[no.at()].kind == model::ConvKind::Direct {
            return self.touch_conv(no);
        }
        if let Some(member) = self.dir.convs[no.at()].member_mut(account)
            && !core::mem::replace(&mut member.dirty, true)
        {
            self.dirty_members.push((no, account));
        }
    }

    /// A terminal's row is written with the next batch.
    pub(crate) fn touch_terminal(&mut self, account: AccountNo, no: u8) {
        if let Some(terminal) = self.dir.accounts[account.at()].terminal_mut(no)
            && !core::mem::replace(&mut terminal.dirty, true)
        {
            self.dirty_terminals.push((account, no));
        }
    }

    /// Whether places of terminals wait that nobody waits for: they go with the next batch, or after a while.
    pub(crate) fn has_places(&self) -> bool {
        !self.dirty_terminals.is_empty()
    }

    /// Places of terminals wait no longer.
    pub(crate) fn want_places(&mut self) {
        self.places_are_due = true;
    }

    /// Whether rows wait for a batch.
    pub(crate) fn is_dirty(&self) -> bool {
        !(self.dirty_convs.is_empty()
            && self.dirty_members.is_empty()
            && (self.dirty_terminals.is_empty() || !self.places_are_due)
            && self.dirty_mailboxes.is_empty()
            && self.moved.is_empty()
            && self.badged.is_empty()
            && self.told_states.is_empty()
            && self.told_deltas.is_empty()
            && self.facts.is_empty())
    }

    /// Writes all that changed; the hub calls this when it makes a batch. What is given back goes to
    /// [`Im::committed`] once that batch is on disk.
    pub(crate) fn flush(&mut self, now: Now) -> Marks {
        if self.is_dirty() && now.wall_ms >= self.clock_ms + 60_000 {
            self.clock_ms = now.wall_ms;
            self.facts.push(&Fact::Clock { wall_ms: now.wall_ms });
        }
        self.tell_marks(now);
        for no in core::mem::take(&mut self.dirty_convs) {
            let conv = &mut self.dir.convs[no.at()];
            conv.dirty = false;
            let value = conv.encode_head();
            self.put(row::HEAD, no.0.into(), 0, &value);
        }
        for (no, account) in core::mem::take(&mut self.dirty_members) {
            let Some(member) = self.dir.convs[no.at()].member_mut(account) else { continue };
            member.dirty = false;
            let mut w = row::RowWriter::new(1);
            member.write(&mut w);
            self.put(row::MEMBER, no.0.into(), account.0.into(), &w.0);
        }
        self.places_are_due = false;
        for (account, no) in core::mem::take(&mut self.dirty_terminals) {
            let Some(terminal) = self.dir.accounts[account.at()].terminal_mut(no) else { continue };
            terminal.dirty = false;
            let value = terminal.encode();
            self.put(row::TERMINAL, account.0.into(), no.into(), &value);
        }
        for account in core::mem::take(&mut self.dirty_mailboxes) {
            let mailbox = &mut self.dir.accounts[account.at()].mailbox;
            mailbox.dirty = false;
            let mut w = row::RowWriter::new(1);
            w.int(mailbox.next).int(mailbox.next - mailbox.floor);
            self.put(row::MAILBOX, account.0.into(), 0, &w.0);
        }
        let touched = core::mem::take(&mut self.touched);
        let mailboxes = touched.into_iter().map(|account| {
            let mailbox = &mut self.dir.accounts[account.at()].mailbox;
            mailbox.touched = false;
            (account, mailbox.next)
        });
        let mailboxes = mailboxes.collect();
        Marks {
            mailboxes,
            badges: core::mem::take(&mut self.badged),
            marked: core::mem::take(&mut self.marked),
            states: core::mem::take(&mut self.told_states),
            deltas: core::mem::take(&mut self.told_deltas),
        }
    }

    /// What [`Im::flush`] wrote is on disk.
    pub(crate) fn committed(&mut self, now: Now, marks: &Marks) {
        self.keep_marks(&marks.marked);
        for &(account, until) in &marks.mailboxes {
            let a = &mut self.dir.accounts[account.at()];
            a.mailbox.committed = a.mailbox.committed.max(until);
            for at in 0..self.dir.accounts[account.at()].online.len() {
                let online = self.dir.accounts[account.at()].online[at];
                let o = &mut self.online[online as usize];
                o.head_dirty |= o.wants(Class::Head);
                self.wake(online);
            }
            self.trim_recent(account);
        }
        for &(account, conv) in &marks.badges {
            for at in 0..self.dir.accounts[account.at()].online.len() {
                let online = self.dir.accounts[account.at()].online[at];
                let o = &mut self.online[online as usize];
                o.head_dirty |= o.wants(Class::Head);
                if o.wants(Class::Conv) {
                    o.convs_dirty.insert(conv);
                }
                self.wake(online);
            }
        }
        for &device in &marks.states {
            self.state_changed(device);
        }
        for &device in &marks.deltas {
            self.delta_changed(device);
        }
        for device in core::mem::take(&mut self.waiting_devices) {
            self.command_due(now, device);
        }
    }
}
