//! Pairing: a person's one-time code makes a device's account, its contact and its place in the household.

use super::{Im, Origin, Refusal, Verdict};
use crate::hub::Now;
use crate::store::bytes::DecodeError;

/// Asks the driver for credentials: a random password of 128 bits at least, and the account record that holds its hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PairRequest {
    /// Names the exchange; `Hub::paired` carries it too.
    pub exchange: u64,
    /// Name of the account that is being made.
    pub name: String,
}

/// Codes that were given out.
#[derive(Debug, Default)]
pub(crate) struct Pairings {}

impl Im {
    /// A person asks for a code.
    pub(super) fn on_pair(&mut self, _now: Now, _origin: &Origin<'_>, _payload: &[u8]) -> Result<Verdict, Refusal> {
        Err(Refusal::bad("pairing is not there yet"))
    }

    /// A device that came in with a code says its name.
    pub(super) fn on_paired(&mut self, _now: Now, _origin: &Origin<'_>, _payload: &[u8]) -> Result<Verdict, Refusal> {
        Err(Refusal::bad("pairing is not there yet"))
    }

    pub(super) fn pairing_due(&mut self, _now: Now) {}

    pub(super) fn restore_pairing(&mut self, _hash: u64, _value: &[u8]) -> Result<(), DecodeError> {
        Ok(())
    }

    /// The device has heard its credentials.
    pub(super) fn pairing_heard(&mut self, _now: Now, _online: u32) {}

    /// Every row was read: deadlines are set.
    pub(super) fn pairings_restored(&mut self, _now: Now) {}

    /// Whether a code is valid.
    pub(crate) fn pairing_login(&mut self, _now: Now, _code: &str) -> Result<(), Refusal> {
        Err(Refusal::not_found("pairing is not there yet"))
    }

    /// Credentials were made.
    pub(crate) fn paired(&mut self, _now: Now, _exchange: u64, _record: &[u8], _password: &str) {}
}

/// Stands for a device that has no account yet.
pub(crate) const PAIRING_ACCOUNT: super::AccountNo = super::AccountNo(u32::MAX);
