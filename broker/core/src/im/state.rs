//! Reported and desired state of devices, their descriptions, and Home Assistant discovery.

use super::model::AccountNo;
use super::{Im, Origin, Refusal, Verdict};
use crate::hub::Now;
use crate::store::bytes::DecodeError;

/// States and descriptions of all devices.
#[derive(Debug, Default)]
pub(crate) struct States {}

impl Im {
    pub(super) fn on_desired(
        &mut self,
        _now: Now,
        _origin: &Origin<'_>,
        _to: &str,
        _payload: &[u8],
    ) -> Result<Verdict, Refusal> {
        Err(Refusal::bad("states are not there yet"))
    }

    pub(super) fn on_reported(&mut self, _now: Now, _origin: &Origin<'_>, _payload: &[u8]) -> Result<Verdict, Refusal> {
        Err(Refusal::bad("states are not there yet"))
    }

    pub(super) fn on_describe(&mut self, _now: Now, _origin: &Origin<'_>, _payload: &[u8]) -> Result<Verdict, Refusal> {
        Err(Refusal::bad("states are not there yet"))
    }

    /// Payload of `im/v1/state/{device}`; `None`: the device has none.
    pub(super) fn render_state(&self, _device: AccountNo) -> Option<Vec<u8>> {
        None
    }

    /// Payload of `im/v1/me/delta`; `None`: reported and desired agree.
    pub(super) fn render_delta(&self, _device: AccountNo) -> Option<Vec<u8>> {
        None
    }

    pub(super) fn restore_state(&mut self, _device: AccountNo, _part: u64, _value: &[u8]) -> Result<(), DecodeError> {
        Ok(())
    }

    /// Every row was read: what depends on settings is said again.
    pub(super) fn states_restored(&mut self, _now: Now) {}
}
