//! The description: what the device can do, in pieces as long as the buffer.

use super::Session;
use crate::config::Config;
use crate::shared::Shared;
use crate::wire::Wire;

/// How far the description is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Wanted,
    /// The next byte to send: of which piece, and where in it.
    Sending {
        piece: u8,
        at: u16,
    },
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
        let is_said = matches!(self, Self::Sending { .. });
        if is_said {
            *self = Self::Done;
        }
        is_said
    }

    /// Writes what has room of what is left; `None`: nothing is.
    pub(super) fn more(&mut self, config: &Config, out: &mut [u8]) -> Option<usize> {
        let Self::Sending { piece, at } = self else { return None };
        let pieces = config.describe.pieces();
        let mut used = 0;
        while let Some(text) = pieces.get(usize::from(*piece)) {
            let rest = text.as_bytes().get(usize::from(*at)..).unwrap_or(&[]);
            let room = out.get_mut(used..).unwrap_or(&mut []);
            let len = rest.len().min(room.len());
            if let (Some(to), Some(from)) = (room.get_mut(..len), rest.get(..len)) {
                to.copy_from_slice(from);
            }
            used += len;
            if len < rest.len() {
                *at += u16::try_from(len).unwrap_or(u16::MAX);
                return Some(used);
            }
            *piece += 1;
            *at = 0;
        }
        if used == 0 { None } else { Some(used) }
    }
}

impl<W: Wire> Session<W> {
    /// Begins the description, if it is to be sent.
    pub(super) fn describe(&mut self, shared: &mut Shared, out: &mut [u8]) -> Option<usize> {
        let config = shared.config();
        if self.describe != Stage::Wanted || !config.listen.im() || config.describe.is_empty() {
            return None;
        }
        let len = config.describe.pieces().iter().map(|piece| piece.len()).sum();
        let pid = self.pid(shared);
        let Some(head) = self.wire.describe(pid, len, out) else { return Some(0) };
        if head + len > self.welcome.frame_max {
            self.describe = Stage::Done;
            return None;
        }
        self.own = pid;
        self.describe = Stage::Sending { piece: 0, at: 0 };
        Some(head)
    }
}
