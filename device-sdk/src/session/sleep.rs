//! Going to sleep: what is left is sent, then the broker is told.

use super::{DRAIN_MS, Phase, Session};
use crate::error::LinkError;
use crate::shared::{Shared, Sleep};
use crate::wire::Wire;

impl<W: Wire> Session<W> {
    /// Sleeps without a word when saying it takes too long.
    pub(super) fn drain(&mut self, shared: &mut Shared, now: u64) {
        let Sleep::Wanted { .. } = shared.sleep else {
            self.sleep_since = None;
            return;
        };
        let since = *self.sleep_since.get_or_insert(now);
        if now >= since + DRAIN_MS {
            shared.fell_asleep(false);
            if self.phase == Phase::Open {
                self.phase = Phase::Bye;
            }
        }
    }

    /// Says that it sleeps, when nothing else is left to be said.
    pub(super) fn sleep(&mut self, shared: &mut Shared, out: &mut [u8]) -> Option<usize> {
        let Sleep::Wanted { for_s } = shared.sleep else { return None };
        if self.sleep_told || shared.unsent() > 0 || !shared.flash_is_idle() {
            return None;
        }
        if !shared.config().listen.im() {
            self.phase = Phase::Bye;
            shared.fell_asleep(true);
            let len = self.wire.bye(out)?;
            self.phase = Phase::Over(LinkError::Closed);
            return Some(len);
        }
        let pid = self.pid(shared);
        let Some(len) = self.wire.asleep(pid, for_s, out) else { return Some(0) };
        self.own = pid;
        self.sleep_told = true;
        Some(len)
    }
}
