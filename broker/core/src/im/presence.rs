//! Presence: who is there, from the connections alone.

use super::model::AccountNo;
use super::{Im, Origin, Refusal, Verdict};
use crate::hub::Now;

/// What is known of an account's presence.
#[derive(Debug, Default)]
pub(crate) struct PresenceState {
    /// Connections of the account, whatever they do.
    pub(crate) connected: u32,
}

impl Im {
    /// A connection of the account was accepted (whatever it does).
    pub(crate) fn connected(&mut self, _now: Now, account: AccountNo) {
        self.dir.accounts[account.at()].presence.connected += 1;
    }

    /// A connection of the account is gone.
    pub(crate) fn disconnected(&mut self, _now: Now, account: AccountNo) {
        let presence = &mut self.dir.accounts[account.at()].presence;
        presence.connected = presence.connected.saturating_sub(1);
    }

    pub(super) fn on_status(&mut self, _now: Now, _origin: &Origin<'_>, _payload: &[u8]) -> Result<Verdict, Refusal> {
        Err(Refusal::bad("presence is not there yet"))
    }

    pub(super) fn presence_due(&mut self, _now: Now, _account: AccountNo) {}

    /// Payload of `im/v1/presence/{addr}`.
    pub(super) fn render_presence(&self, _of: AccountNo) -> Vec<u8> {
        b"{}".to_vec()
    }

    /// Whether it is `online` for Home Assistant: online, away or asleep within its time.
    pub(super) fn is_available(&self, of: AccountNo) -> bool {
        self.dir.accounts[of.at()].presence.connected > 0
    }
}
