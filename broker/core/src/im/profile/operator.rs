//! What the operator does to accounts: says what one is, and ends one.

use crate::hub::Now;
use crate::im::group::display_name;
use crate::im::model::{AccountKind, AccountNo, ConvKind};
use crate::im::{Im, Refusal, row};
use crate::store::{Fact, Table};

impl Im {
    /// Says what the account of this name is, and how it is called; the account is made if it is not known.
    pub(crate) fn describe_account(
        &mut self,
        now: Now,
        name: &str,
        kind: &str,
        display: Option<&str>,
    ) -> Result<(), Refusal> {
        let kind = AccountKind::parse(kind)
            .ok_or_else(|| Refusal::bad("the kind of an account is person, device or service"))?;
        let display = match display {
            None => None,
            Some("") => Some(String::new()),
            Some(text) => Some(display_name(text)?),
        };
        let no = self
            .account_or_new(now, name)
            .ok_or_else(|| Refusal::bad("this is no name an account can have (docs/protocol.md, section 1)"))?;
        let account = &mut self.dir.accounts[no.at()];
        account.kind = kind;
        if let Some(display) = display {
            account.display = display;
        }
        self.store_account(no);
        self.rights += 1;
        Ok(())
    }

    /// Ends an account: nothing of it reaches another that gets its name. What it has said in groups stays said, and a
    /// message of it that somebody has not got yet still arrives.
    pub(crate) fn remove_account(&mut self, now: Now, name: &str) {
        let Some(gone) = self.account_no(name) else { return };
        self.kick_sessions(gone, |_| true);
        self.leave_groups(now, gone);
        self.leave_direct(gone);
        self.leave_channels(gone);
        self.forget_contacts(now, gone);
        self.forget_pairings(gone);
        let terminals: Vec<u8> = self.dir.accounts[gone.at()].terminals.iter().map(|terminal| terminal.no).collect();
        for no in terminals {
            self.forget_terminal(gone, no);
        }
        self.command_account_removed(now, gone);
        self.state_account_removed(gone);
        self.empty_mailbox(gone);
        self.dir.by_name.remove(name);
        let account = &mut self.dir.accounts[gone.at()];
        account.removed = true;
        account.display.clear();
        account.data.clear();
        account.unread = 0;
        self.store_account(gone);
        self.rights += 1;
    }

    /// Whoever had a direct conversation with it has it no more, and no unread message in it.
    fn leave_direct(&mut self, gone: AccountNo) {
        for conv in core::mem::take(&mut self.dir.accounts[gone.at()].convs) {
            let c = &mut self.dir.convs[conv.at()];
            let Some(peer) = c.peer_of(gone) else { continue };
            self.moved.retain(|(of, _)| *of != conv);
            let unread = c.member_mut(peer).map_or(0, |member| core::mem::take(&mut member.unread));
            let account = &mut self.dir.accounts[peer.at()];
            account.unread = account.unread.saturating_sub(unread.into());
            account.convs.retain(|no| *no != conv);
            self.touch_conv(conv);
            self.badge(peer, conv);
        }
    }

    /// It edits no channel any more.
    fn leave_channels(&mut self, gone: AccountNo) {
        let mut changed = vec![];
        for (no, conv) in (0..).zip(&mut self.dir.convs) {
            if let ConvKind::Channel(channel) = &mut conv.kind
                && channel.editors.contains(&gone)
            {
                channel.editors.retain(|editor| *editor != gone);
                changed.push(crate::im::model::ConvNo(no));
            }
        }
        for conv in changed {
            self.store_conv(conv);
        }
    }

    /// The mailbox keeps its end, so that an entry that is on its way to the disk does no harm, and nothing else.
    fn empty_mailbox(&mut self, gone: AccountNo) {
        let mailbox = &mut self.dir.accounts[gone.at()].mailbox;
        mailbox.recent.clear();
        mailbox.floor = mailbox.next;
        mailbox.dirty = false;
        let days = core::mem::take(&mut mailbox.days);
        self.dirty_mailboxes.retain(|account| *account != gone);
        for (day, _) in days {
            self.del(row::MAIL_DAY, gone.0.into(), day.into());
        }
        self.del(row::MAILBOX, gone.0.into(), 0);
        for table in [row::MAIL, row::DEDUP] {
            self.trim_all(table, gone);
        }
    }

    fn trim_all(&mut self, table: Table, gone: AccountNo) {
        self.facts.push(&Fact::Trim { table, a: gone.0.into(), below: u64::MAX });
    }
}
