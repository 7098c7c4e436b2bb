//! Commands to devices, and their outcomes.

use super::model::AccountNo;
use super::{Im, Origin, Refusal, Verdict};
use crate::hub::Now;
use crate::store::bytes::DecodeError;
use std::rc::Rc;

/// Every command that is remembered.
#[derive(Debug, Default)]
pub(crate) struct Commands {}

impl Im {
    pub(super) fn on_command(
        &mut self,
        _now: Now,
        _origin: &Origin<'_>,
        _to: &str,
        _name: &str,
        _payload: &[u8],
    ) -> Result<Verdict, Refusal> {
        Err(Refusal::bad("commands are not there yet"))
    }

    pub(super) fn on_command_cancel(
        &mut self,
        _now: Now,
        _origin: &Origin<'_>,
        _to: &str,
        _id: &str,
    ) -> Result<Verdict, Refusal> {
        Err(Refusal::bad("commands are not there yet"))
    }

    pub(super) fn on_command_result(
        &mut self,
        _now: Now,
        _origin: &Origin<'_>,
        _id: &str,
        _payload: &[u8],
    ) -> Result<Verdict, Refusal> {
        Err(Refusal::bad("commands are not there yet"))
    }

    /// A deadline of this device's commands may have come.
    pub(super) fn command_due(&mut self, _now: Now, _device: AccountNo) {}

    /// A session of the device wants commands (again): what waits may go.
    pub(super) fn command_device_ready(&mut self, _now: Now, _device: AccountNo) {}

    /// The device's client has acknowledged this command.
    pub(super) fn command_delivered(&mut self, _now: Now, _device: AccountNo, _no: u64) {}

    /// A session went away with this command sent and not acknowledged.
    pub(super) fn command_unsent(&mut self, _now: Now, _device: AccountNo, _no: u64) {}

    /// Topic and payload of a mailbox entry about a command (`state` is the entry's `extra`); `None`: it is forgotten.
    pub(super) fn render_command(
        &self,
        _requester: AccountNo,
        _device: AccountNo,
        _no: u64,
        _state: u32,
        _pos: u64,
    ) -> Option<(Rc<str>, Vec<u8>)> {
        None
    }

    pub(super) fn restore_command(&mut self, _device: AccountNo, _no: u64, _value: &[u8]) -> Result<(), DecodeError> {
        Ok(())
    }

    /// Every row was read: deadlines are set.
    pub(super) fn commands_restored(&mut self, _now: Now) {}
}
