//! Devices on the host: the SDK over sockets of tokio, with flash that can be taken along to the next start.

use critical_section as _;
use embedded_io_async::{ErrorKind, ErrorType, Read, Write};
use parlor_device::flash::{Flash, FlashError};
use parlor_device::transport::{Clock, Connector, Link};
use parlor_device::{Config, Device, LinkError, Parts, Resources};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::OnceLock;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};

/// Time since the first question.
pub struct HostClock;

fn start() -> Instant {
    static START: OnceLock<Instant> = OnceLock::new();
    *START.get_or_init(Instant::now)
}

impl Clock for HostClock {
    fn now_ms() -> u64 {
        u64::try_from(start().elapsed().as_millis()).expect("tests do not run for ages") + 1
    }

    async fn sleep_until(ms: u64) {
        tokio::time::sleep_until((start() + Duration::from_millis(ms)).into()).await;
    }
}

/// Connects to an address, and can be told to do it no longer.
#[derive(Clone)]
pub struct Road {
    to: Rc<Cell<SocketAddr>>,
    cut: Rc<tokio::sync::Notify>,
}

impl Road {
    /// To this address.
    pub fn to(addr: SocketAddr) -> Self {
        Self { to: Rc::new(Cell::new(addr)), cut: Rc::default() }
    }

    /// Ends the connection that is there, without a word.
    pub fn cut(&self) {
        self.cut.notify_waiters();
    }

    /// From the next connection on, to this address.
    pub fn lead_to(&self, addr: SocketAddr) {
        self.to.set(addr);
    }
}

/// A connection over TCP.
pub struct TcpLink {
    stream: TcpStream,
    cut: Rc<tokio::sync::Notify>,
}

impl Connector for Road {
    type Link<'a> = TcpLink;

    async fn connect(&mut self) -> Result<TcpLink, LinkError> {
        let stream = TcpStream::connect(self.to.get()).await.map_err(|_| LinkError::Unreachable)?;
        stream.set_nodelay(true).map_err(|_| LinkError::Unreachable)?;
        Ok(TcpLink { stream, cut: Rc::clone(&self.cut) })
    }
}

impl Link for TcpLink {
    type Read<'a> = Reading<'a>;
    type Write<'a> = Writing<'a>;

    fn split(&mut self) -> (Reading<'_>, Writing<'_>) {
        let (read, write) = self.stream.split();
        (Reading { read, cut: Rc::clone(&self.cut) }, Writing(write))
    }
}

/// What arrives.
pub struct Reading<'a> {
    read: ReadHalf<'a>,
    cut: Rc<tokio::sync::Notify>,
}

impl ErrorType for Reading<'_> {
    type Error = ErrorKind;
}

impl Read for Reading<'_> {
    async fn read(&mut self, buffer: &mut [u8]) -> Result<usize, ErrorKind> {
        tokio::select! {
            read = self.read.read(buffer) => read.map_err(|_| ErrorKind::Other),
            () = self.cut.notified() => Err(ErrorKind::ConnectionReset),
        }
    }
}

/// What is sent.
pub struct Writing<'a>(WriteHalf<'a>);

impl ErrorType for Writing<'_> {
    type Error = ErrorKind;
}

impl Write for Writing<'_> {
    async fn write(&mut self, bytes: &[u8]) -> Result<usize, ErrorKind> {
        self.0.write(bytes).await.map_err(|_| ErrorKind::Other)
    }

    async fn flush(&mut self) -> Result<(), ErrorKind> {
        Ok(())
    }
}

/// Flash of a board: what is in it survives the device that wrote it.
#[derive(Clone, Default)]
pub struct BoardFlash {
    map: Rc<RefCell<BTreeMap<u8, Vec<u8>>>>,
    loaded: Vec<u8>,
}

impl BoardFlash {
    /// What is kept under a key.
    pub fn value(&self, key: u8) -> Option<Vec<u8>> {
        self.map.borrow().get(&key).cloned()
    }
}

impl Flash for BoardFlash {
    async fn load(&mut self, key: u8) -> Result<Option<&[u8]>, FlashError> {
        let Some(found) = self.map.borrow().get(&key).cloned() else { return Ok(None) };
        self.loaded = found;
        Ok(Some(&self.loaded))
    }

    async fn store(&mut self, key: u8, fill: &dyn Fn(&mut [u8]) -> Option<usize>) -> Result<(), FlashError> {
        // Other tasks may run meanwhile, as they do while a board writes.
        tokio::task::yield_now().await;
        let mut room = [0; 1024];
        let len = fill(&mut room).ok_or(FlashError)?;
        self.map.borrow_mut().insert(key, room[..len].to_vec());
        Ok(())
    }
}

/// How long anything in a test may take.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Runs a device until `app` ends, which is a reboot when another is run with the same flash.
pub fn run<W, F, A>(config: Config, wire: W, road: &Road, flash: F, app: impl FnOnce(Device<'static>) -> A) -> A::Output
where
    W: parlor_device::wire::Wire + 'static,
    F: Flash + 'static,
    A: Future,
{
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime can be built");
    runtime.block_on(async {
        let resources: &'static mut Resources<2048, 1024, 2048, 4096> = Box::leak(Box::default());
        let parts = Parts { connector: road.clone(), flash, clock: HostClock, seed: random() };
        let (device, mut runner) = parlor_device::new(resources, config, wire, parts);
        tokio::select! {
            never = runner.run() => never,
            result = tokio::time::timeout(PATIENCE, app(device)) => {
                result.unwrap_or_else(|_| panic!("not done in time; the device is {:?}", device.status()))
            }
        }
    })
}

fn random() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::collections::hash_map::RandomState::new().build_hasher().finish()
}
