//! Volatile rooms, typing, and streams: for whoever is there now, never stored.

use super::{Im, Origin, Refusal, Verdict};
use crate::hub::Now;

/// Rooms in which somebody is.
#[derive(Debug, Default)]
pub(crate) struct Rooms {}

impl Im {
    /// `join`, `leave` and `info` of a room.
    pub(super) fn on_room(
        &mut self,
        _now: Now,
        _origin: &Origin<'_>,
        _room: &str,
        _payload: &[u8],
    ) -> Result<Verdict, Refusal> {
        Err(Refusal::bad("rooms are not there yet"))
    }

    /// A message to a room.
    pub(super) fn send_to_room(
        &mut self,
        _now: Now,
        _origin: &Origin<'_>,
        _room: &str,
        _payload: &[u8],
    ) -> Result<Verdict, Refusal> {
        Err(Refusal::bad("rooms are not there yet"))
    }

    pub(super) fn on_typing(
        &mut self,
        _now: Now,
        _origin: &Origin<'_>,
        _to: &str,
        _payload: &[u8],
    ) -> Result<Verdict, Refusal> {
        Err(Refusal::bad("typing is not there yet"))
    }

    pub(super) fn on_stream(
        &mut self,
        _now: Now,
        _origin: &Origin<'_>,
        _to: &str,
        _name: &str,
        _payload: &[u8],
    ) -> Result<Verdict, Refusal> {
        Err(Refusal::bad("streams are not there yet"))
    }

    /// A session is gone: it is in no room any more.
    pub(super) fn leave_rooms(&mut self, _now: Now, _online: u32) {}
}
