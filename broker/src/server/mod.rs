//! A broker from a configuration: binds, opens the store, lives, drains, stops, and lives again after a restore.

mod life;
mod metrics;
mod offline;
mod operate;
mod quic;
mod side;

use crate::admin::{Admin, AdminSetup, Command, Readiness};
use crate::cli::{Engine, Offline, Ready, Start};
use crate::config::{Config, Listener, ListenerUrl};
use crate::link::{BindError, NewConnection, TlsConfigError, bind, bind_udp};
use crate::store::disk::DirDisk;
use parlor_core::store::Store;
use std::error::Error;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;
use tokio::runtime::{Builder, LocalOptions, LocalRuntime};
use tokio::sync::mpsc;

/// Finished handshakes that may wait for the hub's thread.
const NEW_LINKS_MAX: usize = 256;

/// The broker could not start, or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A listener's host name has no address.
    #[error("listener {url}: {error}; write an IP address, or a host name this machine can resolve")]
    Resolve {
        /// The listener.
        url: ListenerUrl,
        /// What the system said.
        error: std::io::Error,
    },
    /// A listener's address could not be had.
    #[error("listener {url}: {error}")]
    Bind {
        /// The listener.
        url: ListenerUrl,
        /// Why.
        error: BindError,
    },
    /// The operator's side could not be made.
    #[error(transparent)]
    Admin(#[from] crate::admin::AdminError),
    /// A listener's certificates cannot be used.
    #[error("listener {url}: {error}")]
    Tls {
        /// The listener.
        url: ListenerUrl,
        /// Why.
        error: TlsConfigError,
    },
    /// The key of stateless resets could not be had.
    #[error(transparent)]
    ResetKey(#[from] quic::ResetKeyError),
    /// The runtime could not be made.
    #[error("the runtime could not be started: {0}; the system may be out of file descriptors or threads")]
    Runtime(std::io::Error),
    /// The data directory could not be had.
    #[error(transparent)]
    Directory(#[from] crate::store::disk::DirError),
    /// The store could not be opened.
    #[error(transparent)]
    Store(#[from] crate::store::OpenError),
    /// The stored accounts cannot be read.
    #[error(transparent)]
    Accounts(#[from] crate::auth::LoadError),
    /// No authenticator.
    #[error(transparent)]
    Authenticator(#[from] crate::auth::OpenError),
    /// The key file of tokens cannot be used.
    #[error(transparent)]
    Key(#[from] crate::auth::KeyReadError),
    /// A demo account could not be made.
    #[error(transparent)]
    Seed(#[from] crate::admin::accounts::AccountError),
    /// The disk refused while the broker ran.
    #[error("the broker had to stop: {0}")]
    StoreFailed(String),
}

/// Puts something between the hub and its store.
type Wrap = fn(Box<dyn Store>) -> Box<dyn Store>;

/// The broker behind the command line.
#[derive(Debug, Clone, Copy, Default)]
pub struct Broker {
    wrap: Option<Wrap>,
}

impl Broker {
    /// The broker.
    pub fn new() -> Self {
        Self::default()
    }

    /// A broker with something between hub and store: the proofs use stores that break their promises, and must notice.
    #[doc(hidden)]
    pub fn with_store(wrap: fn(Box<dyn Store>) -> Box<dyn Store>) -> Self {
        Self { wrap: Some(wrap) }
    }
}

impl Engine for Broker {
    fn run(&self, start: Start) -> Result<(), Box<dyn Error>> {
        Ok(Server::new(start, self.wrap)?.run()?)
    }

    fn open(&self, data: &Path) -> Result<Box<dyn Offline>, Box<dyn Error>> {
        Ok(Box::new(offline::OfflineStore::open(&store_dir(data))?))
    }
}

/// The store has a directory of its own in the data directory, so that a restore can put another one in its place.
fn store_dir(data: &Path) -> PathBuf {
    data.join("store")
}

/// A socket that listens, and what it is for.
struct Door {
    socket: DoorSocket,
    address: SocketAddr,
    /// Number of the listener in the configuration.
    number: usize,
}

enum DoorSocket {
    Tcp(TcpListener),
    /// QUIC.
    Udp(UdpSocket),
}

/// What lasts over a restore.
struct Server {
    config: Config,
    wrap: Option<Wrap>,
    /// The store's directory for the first life: taken before anything in the data directory is touched, because a
    /// broker that runs there already has its address and token there.
    disk: Option<DirDisk>,
    doors: Vec<Door>,
    http: Option<SocketAddr>,
    accounts: Vec<crate::cli::SeedAccount>,
    on_ready: Option<Box<dyn FnOnce(&Ready) + Send>>,
    runtime: Option<LocalRuntime>,
    commands: mpsc::Receiver<Command>,
    links: mpsc::Receiver<NewConnection>,
    side: side::Side,
    quic: Option<quic::Quic>,
    readiness: Arc<Readiness>,
    clock: Instant,
    seed: u64,
}

impl Server {
    fn new(start: Start, wrap: Option<Wrap>) -> Result<Self, RunError> {
        let Start { config, sources, accounts, on_ready } = start;
        let disk = DirDisk::open(store_dir(&config.data))?;
        let doors = open_doors(&config.listeners)?;
        let runtime = Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(2)
            .build_local(LocalOptions::default())
            .map_err(RunError::Runtime)?;
        let (command_sender, commands) = mpsc::channel(crate::admin::COMMANDS_MAX);
        let (link_sender, links) = mpsc::channel(NEW_LINKS_MAX);
        let readiness = Arc::new(Readiness::default());
        let admin = Admin::open(AdminSetup {
            config: config.clone(),
            sources,
            commands: command_sender,
            readiness: Arc::clone(&readiness),
        })?;
        let http = admin.address();
        let quic = quic::Quic::start(&config, &doors, &link_sender)?;
        let side = side::Side::start(side::Work { config: &config, doors: &doors, admin, links: link_sender })?;
        Ok(Self {
            config,
            wrap,
            disk: Some(disk),
            doors,
            http,
            accounts,
            on_ready: Some(on_ready),
            runtime: Some(runtime),
            commands,
            links,
            side,
            quic,
            readiness,
            clock: Instant::now(),
            seed: random_seed(),
        })
    }

    fn run(mut self) -> Result<(), RunError> {
        let Some(runtime) = self.runtime.take() else { return Ok(()) };
        loop {
            match runtime.block_on(life::live(&mut self))? {
                life::Ending::Stop => return Ok(()),
                life::Ending::Restore { file, reply } => {
                    let answer = life::restore(&store_dir(&self.config.data), &file);
                    // Whoever asked may be gone; the log has it too.
                    let _ = reply.send(answer);
                    self.seed = random_seed();
                }
            }
        }
    }

    /// Tells whoever started us where we listen; once.
    fn announce(&mut self) {
        for door in &self.doors {
            let url = &self.config.listeners[door.number].url;
            let path = url.path.as_deref().unwrap_or_default();
            tracing::info!("listening on {}://{}{path}", url.transport.scheme(), door.address);
        }
        if let Some(address) = self.http {
            tracing::info!("listening on http://{address}");
        }
        let of = |number| self.doors.iter().filter(|d| d.number == number).map(|d| d.address).collect();
        let ready = Ready { listeners: (0..self.config.listeners.len()).map(of).collect(), http: self.http };
        self.readiness.set_listening();
        crate::admin::systemd::notify(crate::admin::systemd::Notice::Ready);
        if let Some(on_ready) = self.on_ready.take() {
            on_ready(&ready);
        }
    }
}

/// Opens every listening socket of the configuration.
fn open_doors(listeners: &[Listener]) -> Result<Vec<Door>, RunError> {
    let mut doors = vec![];
    for (number, listener) in listeners.iter().enumerate() {
        let url = &listener.url;
        let addresses = url.addresses().map_err(|error| RunError::Resolve { url: url.clone(), error })?;
        for address in addresses {
            let failed = |error| RunError::Bind { url: url.clone(), error };
            let (socket, bound) = if url.transport.is_quic() {
                let socket = bind_udp(address).map_err(failed)?;
                let bound = socket.local_addr();
                (DoorSocket::Udp(socket), bound)
            } else {
                let socket = bind(address).map_err(failed)?;
                let bound = socket.local_addr();
                (DoorSocket::Tcp(socket), bound)
            };
            doors.push(Door { socket, address: bound.unwrap_or(address), number });
        }
    }
    Ok(doors)
}

/// Keys hash tables and makes client identifiers, so nobody outside may know it.
fn random_seed() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    let mut bytes = [0; 8];
    match ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut bytes) {
        Ok(()) => u64::from_le_bytes(bytes),
        // The standard library's tables are keyed at random too.
        Err(_) => std::hash::RandomState::new().build_hasher().finish(),
    }
}
