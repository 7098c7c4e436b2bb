//! What accounts say of themselves, and what one may know of another.

use super::{Im, Origin, Refusal, Verdict};
use crate::hub::Now;

impl Im {
    /// `me/hello`: level, platform, app of this terminal.
    pub(super) fn on_hello(&mut self, _now: Now, _origin: &Origin<'_>, _payload: &[u8]) -> Result<Verdict, Refusal> {
        Err(Refusal::bad("profiles are not there yet"))
    }

    pub(super) fn on_whois(
        &mut self,
        _now: Now,
        _origin: &Origin<'_>,
        _name: &str,
        _payload: &[u8],
    ) -> Result<Verdict, Refusal> {
        Err(Refusal::bad("profiles are not there yet"))
    }

    pub(super) fn on_profile(&mut self, _now: Now, _origin: &Origin<'_>, _payload: &[u8]) -> Result<Verdict, Refusal> {
        Err(Refusal::bad("profiles are not there yet"))
    }

    pub(super) fn on_terminals(
        &mut self,
        _now: Now,
        _origin: &Origin<'_>,
        _payload: &[u8],
    ) -> Result<Verdict, Refusal> {
        Err(Refusal::bad("profiles are not there yet"))
    }

    pub(crate) fn describe_account(
        &mut self,
        _now: Now,
        _name: &str,
        _kind: &str,
        _display: Option<&str>,
    ) -> Result<(), Refusal> {
        Ok(())
    }

    pub(crate) fn remove_account(&mut self, _now: Now, _name: &str) {}
}
