//! What the application's handle and the runner share: outbox, inbox, commands, and how the connection is. Nothing here
//! waits or looks at a clock; whoever waits leaves a waker.

mod commands;
mod inbox;
mod outbox;
mod persist;
mod receipts;
#[cfg(test)]
mod tests;

pub use commands::{Answer, Reject, Taken};
pub use inbox::Received;
pub(crate) use inbox::Room;
pub(crate) use outbox::Part;
pub use persist::Job;
pub use receipts::SentId;

use crate::config::{Config, Login};
use crate::error::LinkError;
use crate::rows::Rows;
use commands::Ring;
use core::task::Waker;
use embassy_sync::waitqueue::MultiWakerRegistration;
use heapless::{Deque, String};
use persist::Flashed;

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

/// What the application wants of sleep.
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

/// Like an `Option`, of which `None` is made of zeros.
#[repr(u8)]
#[allow(clippy::large_enum_variant, reason = "there is one of them, and it is given at start")]
enum Settings {
    None,
    Given(Config, fn() -> u64),
}

/// Account and what belongs to it, as pairing gave it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Paired {
    pub(crate) account: String<32>,
    pub(crate) password: String<64>,
    pub(crate) owner: String<32>,
    pub(crate) household: String<34>,
}

/// See the module.
pub struct Shared<M: ?Sized = dyn Memory + Send> {
    /// None until [`Self::start_with`]. Everything here begins as zeros, so that no image of it lies in the board's flash.
    settings: Settings,
    pub(crate) status: Status,
    pub(crate) sleep: Sleep,
    pub(crate) paired: Option<Paired>,
    pub(crate) code: String<16>,
    pub(crate) flash: Flashed,
    /// Number of this start; with `next_seq` it makes ids that no reboot repeats.
    boot: u32,
    next_seq: u32,
    /// Number of the connection: what came on another one cannot be acknowledged any more.
    conn: u32,
    pub(crate) outbox: Rows,
    pub(crate) inbox: Rows,
    pub(crate) acks: Deque<u16, 16>,
    last_pos: u64,
    pub(crate) ring: Ring,
    /// Counts what the runner may have to look at.
    turn: u32,
    /// Counts what makes a pause pointless.
    hurry: u32,
    app: MultiWakerRegistration<8>,
    runner: MultiWakerRegistration<2>,
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
            sleep: Sleep::Awake,
            paired: None,
            code: String::new(),
            flash: Flashed::new(),
            boot: 0,
            next_seq: 0,
            conn: 0,
            outbox: Rows::new(),
            inbox: Rows::new(),
            acks: Deque::new(),
            last_pos: 0,
            ring: Ring::new(),
            turn: 0,
            hurry: 0,
            app: MultiWakerRegistration::new(),
            runner: MultiWakerRegistration::new(),
            memory,
        }
    }
}

impl<M: ?Sized> Shared<M> {
    /// Takes the settings; before anything else.
    pub fn start_with(&mut self, config: Config, clock: fn() -> u64) {
        self.settings = Settings::Given(config, clock);
        if let Login::Pair { code, .. } = config.login {
            self.code = String::try_from(code).unwrap_or_default();
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

    pub(crate) fn wait_runner(&mut self, waker: &Waker) {
        self.runner.register(waker);
    }

    pub(crate) fn wake_app(&mut self) {
        self.app.wake();
    }

    pub(crate) fn wake_runner(&mut self) {
        self.turn = self.turn.wrapping_add(1);
        self.runner.wake();
    }

    /// Changes when the runner may have something to do.
    pub fn turn(&self) -> u32 {
        self.turn
    }

    /// Number of the connection.
    #[cfg(feature = "update")]
    pub(crate) fn conn(&self) -> u32 {
        self.conn
    }

    /// Changes when a connection should be tried at once.
    pub(crate) fn hurry(&self) -> u32 {
        self.hurry
    }

    pub(crate) fn hurry_up(&mut self) {
        self.hurry = self.hurry.wrapping_add(1);
        self.wake_runner();
    }

    /// With what the device logs in; `None`: it has nothing yet.
    pub fn login(&self) -> Option<(&str, &[u8], bool)> {
        if let Some(paired) = &self.paired {
            return Some((&paired.account, paired.password.as_bytes(), false));
        }
        if !self.code.is_empty() {
            return Some(("pair", self.code.as_bytes(), true));
        }
        match self.config().login {
            Login::Account { name, secret } => Some((name, secret, false)),
            Login::Anonymous => Some(("", &[], false)),
            Login::Stored | Login::Pair { .. } => None,
        }
    }

    /// The name that the device asks for when it is paired.
    pub(crate) fn wanted_name(&self) -> &'static str {
        match self.config().login {
            Login::Pair { name, .. } => name,
            _ => self.config().terminal,
        }
    }

    /// Pairs with this code at the next opportunity.
    pub(crate) fn pair(&mut self, code: &str) {
        self.code = String::try_from(code.trim_ascii()).unwrap_or_default();
        self.paired = None;
        self.hurry_up();
    }

    // ---- The connection ----------------------------------------------------------------------------------------

    /// The device is in; `resumed`: the broker still has what it knew of the session.
    pub(crate) fn connected(&mut self, resumed: bool) {
        self.conn = self.conn.wrapping_add(1);
        self.acks.clear();
        if !resumed {
            self.last_pos = 0;
            self.forget_packet_ids();
        }
        self.set_status(Status::Online);
    }

    /// The connection has ended: what was not acknowledged is sent again, on either side.
    pub(crate) fn disconnected(&mut self, why: LinkError) {
        self.acks.clear();
        self.rows_unsent();
        self.drop_untaken();
        if matches!(self.sleep, Sleep::Asleep { .. }) {
            self.set_status(Status::Asleep);
        } else {
            self.set_status(Status::Offline(why));
        }
        self.wake_app();
    }

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
