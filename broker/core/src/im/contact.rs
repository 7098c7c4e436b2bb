//! Contacts: both sides agree, either side may end it.

use super::model::AccountNo;
use super::{Im, Origin, Refusal, Verdict};
use crate::hub::Now;

impl Im {
    pub(super) fn on_contacts(&mut self, _now: Now, _origin: &Origin<'_>, _payload: &[u8]) -> Result<Verdict, Refusal> {
        Err(Refusal::bad("contacts are not there yet"))
    }

    pub(super) fn on_contact(
        &mut self,
        _now: Now,
        _origin: &Origin<'_>,
        _with: &str,
        _payload: &[u8],
    ) -> Result<Verdict, Refusal> {
        Err(Refusal::bad("contacts are not there yet"))
    }

    /// Whether `from` may write to `to` now, and if not, why.
    pub(crate) fn may_write(&self, _from: AccountNo, _to: AccountNo) -> Result<(), Refusal> {
        Ok(())
    }

    /// Whether `from` may command the device: as `may_write`, and no guest of the household it is in.
    pub(crate) fn may_command(&self, _from: AccountNo, _device: AccountNo) -> Result<(), Refusal> {
        Ok(())
    }

    /// Whether `viewer` may see presence and state of `of`: itself, its contacts, and members of a common household.
    pub(crate) fn may_see(&self, _viewer: AccountNo, _of: AccountNo) -> bool {
        true
    }

    /// Everybody whose presence and state `viewer` may see, itself included.
    pub(crate) fn visible_to(&self, viewer: AccountNo) -> Vec<AccountNo> {
        vec![viewer]
    }

    /// What was said with a request.
    pub(super) fn contact_text(&self, _account: AccountNo, _other: AccountNo) -> &str {
        ""
    }

    /// `other` is the number of an account, or 2^32 plus that of a channel that is followed.
    pub(super) fn restore_contact(
        &mut self,
        _account: AccountNo,
        _other: u64,
        _value: &[u8],
    ) -> Result<(), crate::store::DecodeError> {
        Ok(())
    }
}
