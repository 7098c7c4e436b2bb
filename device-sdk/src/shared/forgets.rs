//! Without flash: a reboot forgets everything.

use super::{Shared, Status};
use crate::error::SendError;

/// What flash has and is to get: nothing.
#[derive(Debug)]
pub(crate) struct Flashed;

#[allow(clippy::unused_self, reason = "the other of the two has something to look at")]
impl Flashed {
    pub(super) const fn new() -> Self {
        Self
    }

    #[cfg(feature = "commands")]
    pub(crate) const fn keeps(&self) -> bool {
        false
    }

    pub(super) const fn busy_slot(&self) -> Option<u8> {
        None
    }

    pub(super) const fn free_slot(&self) -> Result<u8, SendError> {
        Err(SendError::Flash)
    }

    pub(super) const fn give_back(&self, _: u8) {}

    pub(super) const fn is_clearing(&self, _: u8) -> bool {
        false
    }
}

impl Shared {
    /// Before anything else; `fresh`: a random number.
    pub fn start(&mut self, fresh: u64, _keeps: bool) {
        self.number(fresh);
    }

    /// The device may speak.
    pub fn started(&mut self) {
        self.set_status(Status::Connecting);
        self.wake_both();
    }
}

#[cfg(feature = "sleep")]
impl Shared {
    #[allow(clippy::unused_self, reason = "the other of the two has something to look at")]
    pub(crate) const fn flash_is_idle(&self) -> bool {
        true
    }
}
