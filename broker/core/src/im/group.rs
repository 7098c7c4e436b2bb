//! Groups and households: members, roles, and changes that everybody sees in the same place of the conversation.

use super::{Im, Origin, Refusal, Verdict};
use crate::hub::Now;

impl Im {
    pub(super) fn on_group(
        &mut self,
        _now: Now,
        _origin: &Origin<'_>,
        _group: &str,
        _payload: &[u8],
    ) -> Result<Verdict, Refusal> {
        Err(Refusal::bad("groups are not there yet"))
    }

    pub(super) fn on_household(
        &mut self,
        _now: Now,
        _origin: &Origin<'_>,
        _payload: &[u8],
    ) -> Result<Verdict, Refusal> {
        Err(Refusal::bad("groups are not there yet"))
    }
}
