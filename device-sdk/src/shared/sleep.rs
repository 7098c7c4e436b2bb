//! What the application wants of sleep.

use super::{Shared, Status};

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sleep {
    Awake,
    /// It wants to sleep for so many seconds, as soon as everything was said.
    Wanted {
        for_s: u32,
    },
    /// It sleeps; whether the broker was told.
    Asleep {
        told: bool,
    },
}

impl Shared {
    /// The device wants to sleep for so many seconds, as soon as everything was said.
    pub fn go_to_sleep(&mut self, for_s: u32) {
        self.sleep = Sleep::Wanted { for_s };
        self.wake_runner();
    }

    pub(crate) fn fell_asleep(&mut self, told: bool) {
        self.sleep = Sleep::Asleep { told };
        self.wake_app();
    }

    /// The device sleeps no longer.
    pub fn wake_up(&mut self) {
        self.sleep = Sleep::Awake;
        if self.status == Status::Asleep {
            self.set_status(Status::Connecting);
        }
        self.hurry_up();
    }
}
