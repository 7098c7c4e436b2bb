//! Announcement channels: entries that are written once, however many read them.

use super::model::ConvNo;
use super::{Im, Origin, Refusal, Verdict};
use crate::hub::Now;
use crate::store::bytes::DecodeError;

/// Entries of all channels.
#[derive(Debug, Default)]
pub(crate) struct Announcements {}

impl Im {
    pub(super) fn on_channel(
        &mut self,
        _now: Now,
        _origin: &Origin<'_>,
        _channel: &str,
        _op: &str,
        _payload: &[u8],
    ) -> Result<Verdict, Refusal> {
        Err(Refusal::bad("channels are not there yet"))
    }

    /// A validity begins or ends, or more readers are to be told.
    pub(super) fn announcement_due(&mut self, _now: Now, _channel: ConvNo) {}

    /// Channels that have something for this session beyond its terminal's places: put into `logs_dirty`.
    pub(super) fn announcements_for(&mut self, _now: Now, _online: u32) {}

    /// The next change of a channel for a session: topic, payload and number of the change, written to `wire`. `None`: nothing.
    pub(super) fn next_announcement(
        &mut self,
        _now: Now,
        _online: u32,
        _channel: ConvNo,
    ) -> Option<(String, Vec<u8>, u64)> {
        None
    }

    /// The session's client has acknowledged everything of the channel up to this change.
    pub(super) fn announcement_done(&mut self, _now: Now, _online: u32, _channel: ConvNo, _change: u64) {}

    pub(super) fn restore_announcement(
        &mut self,
        _channel: ConvNo,
        _entry: u64,
        _value: &[u8],
    ) -> Result<(), DecodeError> {
        Ok(())
    }

    /// Every row was read: deadlines are set.
    pub(super) fn announcements_restored(&mut self, _now: Now) {}
}
