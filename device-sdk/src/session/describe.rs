//! The description: what the device can do, in pieces as long as the buffer.

use super::Session;
use crate::config::Config;
use crate::shared::Shared;
use crate::wire::Wire;

/// How far the description is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Wanted,
    /// Bytes that were sent.
    Sending(u16),
    Done,
}

impl Stage {
    /// There is a new connection.
    pub(super) fn begin(&mut self) {
        if *self != Self::Done {
            *self = Self::Wanted;
        }
    }

    /// Whether the answer is the one to the description.
    pub(super) fn is_said(&mut self) -> bool {
        let is_said = matches!(self, Self::Sending(_));
        if is_said {
            *self = Self::Done;
        }
        is_said
    }

    /// Writes what has room of what is left; `None`: nothing is.
    pub(super) fn more(&mut self, config: &Config, out: &mut [u8]) -> Option<usize> {
        let Self::Sending(at) = self else { return None };
        let (from, room) = (usize::from(*at), out.len());
        let mut passed = 0usize;
        config.describe.write(&mut |piece| {
            for byte in piece.bytes() {
                if let Some(place) = out.get_mut(passed.wrapping_sub(from)) {
                    *place = byte;
                }
                passed += 1;
            }
        });
        let len = (passed - from).min(room);
        *at += u16::try_from(len).unwrap_or(u16::MAX);
        if len == 0 { None } else { Some(len) }
    }
}

impl<W: Wire> Session<W> {
    /// Begins the description, if it is to be sent.
    pub(super) fn describe(&mut self, shared: &mut Shared, out: &mut [u8]) -> Option<usize> {
        let config = shared.config();
        if self.describe != Stage::Wanted || !config.listen.im() || config.describe.is_empty() {
            return None;
        }
        let mut len = 0;
        config.describe.write(&mut |piece| len += piece.len());
        let pid = self.pid(shared);
        let Some(head) = self.wire.describe(pid, len, out) else { return Some(0) };
        if head + len > self.welcome.frame_max || len > usize::from(u16::MAX) {
            self.describe = Stage::Done;
            return None;
        }
        self.own = pid;
        self.describe = Stage::Sending(0);
        Some(head)
    }
}
