//! Who may write to whom, command what, and see whom (docs/protocol.md, sections 5 to 7).

use crate::im::model::{AccountKind, AccountNo, Relation, Role};
use crate::im::{Code, Im, Refusal};

impl Im {
    /// Whether `from` may write to `to` now, and if not, why.
    pub(crate) fn may_write(&self, from: AccountNo, to: AccountNo) -> Result<(), Refusal> {
        let known = |no: AccountNo| self.dir.accounts.get(no.at()).filter(|account| !account.removed);
        let (Some(a), Some(b)) = (known(from), known(to)) else {
            return Err(Refusal::not_found("there is no such account any more"));
        };
        if from == to {
            return Err(Refusal::bad("an account has no conversation with itself"));
        }
        self.neither_blocks(from, to)?;
        let one_is = |kind| a.kind == kind || b.kind == kind;
        if one_is(AccountKind::Service)
            || self.contact(from, to).relation == Relation::Friends
            || one_is(AccountKind::Device) && self.role_beside(from, to).is_some()
        {
            return Ok(());
        }
        let text = format!("{0} is no contact: ask with im/v1/me/contact/{0} {{\"op\":\"request\"}}", b.name);
        Err(Refusal::new(Code::NoConsent, text))
    }

    /// Whether `from` may command the device: it is a contact, or in a household with it, and in no household as a
    /// guest alone. That anybody may write to a service, and a service to anybody, gives no right to command.
    pub(crate) fn may_command(&self, from: AccountNo, device: AccountNo) -> Result<(), Refusal> {
        self.may_write(from, device)?;
        match self.role_beside(from, device) {
            Some(Role::Guest) => {
                let text = format!("a guest does not command {}: ask an owner for another role", self.name_of(device));
                Err(Refusal::new(Code::Forbidden, text))
            }
            Some(Role::Member | Role::Owner) => Ok(()),
            None if self.contact(from, device).relation == Relation::Friends => Ok(()),
            None => {
                let text = format!("{} is no contact and in no household of yours", self.name_of(device));
                Err(Refusal::new(Code::NoConsent, text))
            }
        }
    }

    /// Whether `viewer` may see presence and state of `of`: itself, its contacts, and members of a common household.
    pub(crate) fn may_see(&self, viewer: AccountNo, of: AccountNo) -> bool {
        let is_there = |no: AccountNo| self.dir.accounts.get(no.at()).is_some_and(|account| !account.removed);
        if !is_there(viewer) || !is_there(of) {
            return false;
        }
        viewer == of
            || self.neither_blocks(viewer, of).is_ok()
                && (self.contact(viewer, of).relation == Relation::Friends || self.role_beside(viewer, of).is_some())
    }

    /// Everybody whose presence and state `viewer` may see, itself included.
    pub(crate) fn visible_to(&self, viewer: AccountNo) -> Vec<AccountNo> {
        let Some(account) = self.dir.accounts.get(viewer.at()) else { return vec![] };
        let mut seen = vec![viewer];
        seen.extend(account.contacts.keys());
        for household in &account.households {
            seen.extend(self.dir.convs[household.at()].members.iter().map(|member| member.account));
        }
        seen.sort_unstable();
        seen.dedup();
        seen.retain(|of| self.may_see(viewer, *of));
        seen
    }

    /// The highest role of `account` in the households in which `other` is too; `None`: they have none in common.
    pub(in crate::im) fn role_beside(&self, account: AccountNo, other: AccountNo) -> Option<Role> {
        let households = self.dir.accounts[account.at()].households.iter().map(|no| &self.dir.convs[no.at()]);
        let common = households.filter(|conv| conv.member(other).is_some());
        common.filter_map(|conv| conv.member(account)).map(|member| member.role).max()
    }

    /// Refuses when one of the two has blocked the other.
    pub(in crate::im) fn neither_blocks(&self, from: AccountNo, to: AccountNo) -> Result<(), Refusal> {
        if self.contact(to, from).blocked {
            return Err(Refusal::new(Code::Blocked, format!("{} has blocked you", self.name_of(to))));
        }
        if self.contact(from, to).blocked {
            let text = format!("you have blocked {}: unblock it first", self.name_of(to));
            return Err(Refusal::new(Code::NoConsent, text));
        }
        Ok(())
    }
}
