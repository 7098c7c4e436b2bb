//! The memory of a device, which the application owns.

use crate::client::Device;
use crate::config::Config;
use crate::flash::Flash;
use crate::runner::{Road, Runner};
use crate::session::Session;
use crate::shared::{Arrays, Shared};
use crate::transport::{Clock, Connector};
use crate::wire::Wire;
use core::cell::RefCell;
use core::marker::PhantomData;
use critical_section::CriticalSection;
use embassy_sync::blocking_mutex::CriticalSectionMutex;

/// The memory of a device, in bytes: `RX` the longest packet it can receive, `TX` the longest it can send, `OUTBOX` what
/// waits to be sent, `INBOX` what waits to be taken by the application. Beside them there are 0.2 KB, with all features 1 KB.
///
/// A static place for it is `static_cell::ConstStaticCell`.
#[derive(Debug)]
pub struct Resources<const RX: usize = 768, const TX: usize = 512, const OUTBOX: usize = 768, const INBOX: usize = 768>
{
    rx: [u8; RX],
    tx: [u8; TX],
    shared: CriticalSectionMutex<RefCell<Shared<Arrays<OUTBOX, INBOX>>>>,
}

impl<const RX: usize, const TX: usize, const OUTBOX: usize, const INBOX: usize> Resources<RX, TX, OUTBOX, INBOX> {
    /// Empty.
    pub const fn new() -> Self {
        Self { rx: [0; RX], tx: [0; TX], shared: CriticalSectionMutex::new(RefCell::new(Shared::new(Arrays::new()))) }
    }
}

impl<const RX: usize, const TX: usize, const OUTBOX: usize, const INBOX: usize> Default
    for Resources<RX, TX, OUTBOX, INBOX>
{
    fn default() -> Self {
        Self::new()
    }
}

/// The shared state behind its lock, whatever the size of its buffers.
pub(crate) trait Locked: Sync {
    fn cell<'c>(&'c self, alone: CriticalSection<'c>) -> &'c RefCell<Shared>;
}

impl<const OUTBOX: usize, const INBOX: usize> Locked for CriticalSectionMutex<RefCell<Shared<Arrays<OUTBOX, INBOX>>>> {
    fn cell<'c>(&'c self, alone: CriticalSection<'c>) -> &'c RefCell<Shared> {
        self.borrow(alone)
    }
}

/// Lets `f` have the shared state.
pub(crate) fn with<R>(locked: &dyn Locked, f: impl FnOnce(&mut Shared) -> R) -> R {
    critical_section::with(|alone| f(&mut locked.cell(alone).borrow_mut()))
}

/// What a device runs on.
#[derive(Debug)]
pub struct Parts<C, F, K> {
    /// Makes connections.
    pub connector: C,
    /// Keeps what must survive a reboot; [`crate::flash::NoFlash`] keeps nothing.
    pub flash: F,
    /// The time.
    pub clock: K,
    /// A random number, another one at each start and for each board.
    pub seed: u64,
}

/// A device: the handle for the application, and the runner.
pub fn new<'a, const RX: usize, const TX: usize, const OUTBOX: usize, const INBOX: usize, W, C, F, K>(
    resources: &'a mut Resources<RX, TX, OUTBOX, INBOX>,
    config: Config,
    wire: W,
    parts: Parts<C, F, K>,
) -> (Device<'a>, Runner<'a, W, C, F, K>)
where
    W: Wire,
    C: Connector,
    F: Flash,
    K: Clock,
{
    let Resources { rx, tx, shared } = resources;
    shared.get_mut().get_mut().start_with(config, K::now_ms);
    let shared: &'a dyn Locked = shared;
    let session = Session::new(wire, RX, parts.seed);
    let runner = Runner {
        shared,
        rx,
        tx,
        road: RefCell::new(Road::new(session)),
        connector: parts.connector,
        flash: parts.flash,
        seed: parts.seed,
        clock: PhantomData,
    };
    (Device::new(shared), runner)
}
