//! What the application's handle and the runner share: outbox, inbox, commands, and how the connection is. Nothing here
//! waits or looks at a clock; whoever waits leaves a waker.

#[cfg(feature = "commands")]
mod commands;
mod inbox;
mod outbox;
#[cfg(feature = "pairing")]
mod pairing;
#[cfg(feature = "persist")]
mod persist;
#[cfg(not(feature = "persist"))]
#[path = "forgets.rs"]
mod persist;
mod receipts;
#[cfg(feature = "sleep")]
mod sleep;
#[cfg(all(test, feature = "full"))]
mod tests;

#[cfg(feature = "commands")]
pub use commands::{Answer, Reject, Taken};
#[cfg(feature = "messages")]
pub use inbox::Received;
pub(crate) use inbox::Room;
#[cfg(feature = "topics")]
pub use inbox::read_topic;
#[cfg(feature = "topics")]
pub(crate) use outbox::Part;
#[cfg(feature = "pairing")]
pub(crate) use pairing::Paired;
#[cfg(feature = "persist")]
pub use persist::Job;
pub use receipts::SentId;
#[cfg(feature = "sleep")]
pub(crate) use sleep::Sleep;

use crate::config::{Config, Login};
use crate::error::LinkError;
use crate::rows::Rows;
#[cfg(feature = "commands")]
use commands::Ring;
use core::task::Waker;
use embassy_sync::waitqueue::MultiWakerRegistration;
use persist::Flashed;

/// Tasks of the application that may wait at the same time without waking each other now and then.
const APP_WAKERS: usize = 4;

/// Packets that the broker may have sent without an acknowledgement; also how many acknowledgements can wait.
pub(crate) const RECEIVE_MAX: u16 = 8;

/// The buffers of outbox and inbox, however long they are.
pub trait Memory {
    /// Outbox and inbox.
    fn rooms(&mut self) -> (&mut [u8], &mut [u8]);
}

/// Buffers in arrays.
#[derive(Debug)]
pub struct Arrays<const OUTBOX: usize, const INBOX: usize> {
    outbox: [u8; OUTBOX],
    inbox: [u8; INBOX],
}

impl<const OUTBOX: usize, const INBOX: usize> Arrays<OUTBOX, INBOX> {
    /// Empty.
    pub const fn new() -> Self {
        Self { outbox: [0; OUTBOX], inbox: [0; INBOX] }
    }
}

impl<const OUTBOX: usize, const INBOX: usize> Default for Arrays<OUTBOX, INBOX> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const OUTBOX: usize, const INBOX: usize> Memory for Arrays<OUTBOX, INBOX> {
    fn rooms(&mut self) -> (&mut [u8], &mut [u8]) {
        (&mut self.outbox, &mut self.inbox)
    }
}

/// How the connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Status {
    /// What is in flash is being read.
    Starting,
    /// Not connected, and why.
    Offline(LinkError),
    /// Connecting, or logging in.
    Connecting,
    /// Connected and logged in.
    Online,
    /// Asleep, until `Device::wake`.
    Asleep,
}

/// Like an `Option`, of which `None` is made of zeros.
#[repr(u8)]
#[allow(clippy::large_enum_variant, reason = "there is one of them, and it is given at start")]
enum Settings {
    None,
    #[cfg_attr(not(feature = "commands"), allow(dead_code, reason = "only commands have a deadline"))]
    Given(Config, fn() -> u64),
}

/// See the module.
pub struct Shared<M: ?Sized = dyn Memory + Send> {
    /// None until [`Self::start_with`]. Everything here begins as zeros, so that no image of it lies in the board's flash.
    settings: Settings,
    pub(crate) status: Status,
    #[cfg(feature = "sleep")]
    pub(crate) sleep: Sleep,
    #[cfg(feature = "pairing")]
    pub(crate) pairing: pairing::Pairing,
    pub(crate) flash: Flashed,
    /// Number of this start; with `next_seq` it makes ids that no reboot repeats.
    boot: u32,
    next_seq: u32,
    /// Number of the connection: what came on another one cannot be acknowledged any more.
    conn: u32,
    pub(crate) outbox: Rows,
    pub(crate) inbox: Rows,
    #[cfg(feature = "messages")]
    last_pos: u64,
    #[cfg(feature = "commands")]
    pub(crate) ring: Ring,
    /// A connection should be tried at once.
    pub(crate) hurry: bool,
    app: MultiWakerRegistration<APP_WAKERS>,
    runner: Option<Waker>,
    memory: M,
}

impl<M: ?Sized> core::fmt::Debug for Shared<M> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Shared").field("status", &self.status).field("boot", &self.boot).finish_non_exhaustive()
    }
}

impl<M> Shared<M> {
    /// Nothing was said or heard yet.
    pub const fn new(memory: M) -> Self {
        Self {
            settings: Settings::None,
            status: Status::Starting,
            #[cfg(feature = "sleep")]
            sleep: Sleep::Awake,
            #[cfg(feature = "pairing")]
            pairing: pairing::Pairing::new(),
            flash: Flashed::new(),
            boot: 0,
            next_seq: 0,
            conn: 0,
            outbox: Rows::new(),
            inbox: Rows::new(),
            #[cfg(feature = "messages")]
            last_pos: 0,
            #[cfg(feature = "commands")]
            ring: Ring::new(),
            hurry: false,
            app: MultiWakerRegistration::new(),
            runner: None,
            memory,
        }
    }
}

impl<M: ?Sized> Shared<M> {
    /// Takes the settings; before anything else.
    pub fn start_with(&mut self, config: Config, clock: fn() -> u64) {
        // Not for the compiler to see: it would put settings that never change into the image of RAM that lies in the board's flash,
        // and all the buffers beside them.
        self.settings = Settings::Given(*core::hint::black_box(&config), clock);
        #[cfg(feature = "pairing")]
        if let Login::Pair { code, .. } = config.login {
            self.pairing.set_code(code);
        }
    }
}

impl<M: ?Sized> Shared<M> {
    pub(crate) fn config(&self) -> &Config {
        const UNSET: &Config = &Config::new("");
        match &self.settings {
            Settings::Given(config, _) => config,
            Settings::None => UNSET,
        }
    }

    /// The device's clock.
    #[cfg(feature = "commands")]
    pub(crate) fn now(&self) -> u64 {
        match self.settings {
            Settings::Given(_, clock) => clock(),
            Settings::None => 0,
        }
    }
}

impl Shared {
    /// How the connection is.
    pub fn status(&self) -> Status {
        self.status
    }

    pub(crate) fn set_status(&mut self, status: Status) {
        if self.status != status {
            self.status = status;
            self.wake_app();
        }
    }

    /// Whom to wake when something may have changed for the application.
    pub(crate) fn wait_app(&mut self, waker: &Waker) {
        self.app.register(waker);
    }

    /// Whom to wake when the runner may have something to do; it is woken until it says another.
    pub(crate) fn wait_runner(&mut self, waker: &Waker) {
        if !self.runner.as_ref().is_some_and(|known| known.will_wake(waker)) {
            self.runner = Some(waker.clone());
        }
    }

    pub(crate) fn wake_app(&mut self) {
        self.app.wake();
    }

    #[inline(never)]
    pub(crate) fn wake_runner(&mut self) {
        if let Some(waker) = &self.runner {
            waker.wake_by_ref();
        }
    }

    /// Something has changed for both.
    pub(crate) fn wake_both(&mut self) {
        self.wake_app();
        self.wake_runner();
    }

    /// Number of the connection.
    #[cfg(feature = "update")]
    pub(crate) fn conn(&self) -> u32 {
        self.conn
    }

    pub(crate) fn hurry_up(&mut self) {
        self.hurry = true;
        self.wake_runner();
    }

    /// With what the device logs in, and whether that is a pairing code; `None`: it has nothing yet.
    pub fn login(&self) -> Option<(&str, &[u8], bool)> {
        #[cfg(feature = "pairing")]
        if let Some(login) = self.pairing.login() {
            return Some(login);
        }
        match self.config().login {
            Login::Account { name, secret } => Some((name, secret, false)),
            Login::Anonymous => Some(("", &[], false)),
            #[cfg(feature = "pairing")]
            Login::Stored | Login::Pair { .. } => None,
        }
    }

    #[cfg_attr(not(feature = "sleep"), allow(clippy::unused_self, reason = "it never is"))]
    pub(crate) fn is_asleep(&self) -> bool {
        #[cfg(feature = "sleep")]
        return matches!(self.sleep, Sleep::Asleep { .. });
        #[cfg(not(feature = "sleep"))]
        false
    }

    /// Begins numbers at random, for there is nothing to count on; far from the end, so that counting on does not come round.
    fn number(&mut self, fresh: u64) {
        self.boot = ((fresh >> 33) as u32).max(1);
        self.next_seq = ((fresh & 0x7FFF_FFFE) as u32) | 1;
    }

    /// What is queued before would have no number.
    #[cfg(any(feature = "topics", feature = "messages", feature = "state", feature = "persist"))]
    pub(crate) fn is_started(&self) -> bool {
        self.status != Status::Starting
    }

    // ---- The connection ----------------------------------------------------------------------------------------

    /// The device is in; `resumed`: the broker still has what it knew of the session.
    pub(crate) fn connected(&mut self, resumed: bool) {
        self.conn = self.conn.wrapping_add(1);
        if !resumed {
            #[cfg(feature = "messages")]
            {
                self.last_pos = 0;
            }
            self.forget_packet_ids();
        }
        self.set_status(Status::Online);
    }

    /// The connection has ended: what was not acknowledged is sent again, on either side.
    pub(crate) fn disconnected(&mut self, why: LinkError) {
        self.rows_unsent();
        self.drop_untaken();
        // Whoever was in a hurry while there was a connection had one.
        self.hurry &= self.status != Status::Online;
        self.set_status(if self.is_asleep() { Status::Asleep } else { Status::Offline(why) });
        self.wake_app();
    }
}
