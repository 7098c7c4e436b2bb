//! One life of the broker: from opening the store to closing it.

use super::side::ws_options;
use super::{Door, DoorSocket, RunError, Server, store_dir};
use crate::admin::systemd::{self, Notice};
use crate::admin::{Command, CommandError, Connections, Described, Readiness, Restored, Shutdown};
use crate::auth::{AccountName, AccountRecord, Accounts, Authenticator, certificate_account};
use crate::config::{Config, Listener};
use crate::driver::{Driver, Heart, Outside, Signal, Wire, now};
use crate::link::{Layer, NewConnection, WsLayer, WsOptions, accept_pause};
use crate::store::disk::DirDisk;
use crate::store::{BackupHandle, FiguresHandle, Options, StoreThreads};
use parlor_core::access::Access;
use parlor_core::store::Store;
use parlor_core::{Hub, ImSettings, Reply, Settings};
use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

/// How long the last commits may take when the broker ends.
const LAST_COMMIT: Duration = Duration::from_secs(10);

/// Questions that may wait for messaging.
const ASKED_MAX: usize = 1_024;

/// Why a life ended.
pub(super) enum Ending {
    /// The broker is to end.
    Stop,
    /// The store is to be replaced by a backup; then it lives again.
    Restore { file: PathBuf, reply: oneshot::Sender<Result<Restored, CommandError>> },
}

/// What the commands of the operator work on.
pub(super) struct Life {
    pub(super) driver: Rc<Driver>,
    pub(super) accounts: Arc<Accounts>,
    pub(super) figures: FiguresHandle,
    pub(super) backups: BackupHandle,
    pub(super) orders: Rc<RefCell<Orders>>,
    pub(super) started_ms: u64,
    /// What of each listener without TLS can change while it is open, by its number in the configuration.
    ways: Vec<(usize, Rc<Way>)>,
}

/// What of a listener can change while it is open.
#[derive(Default)]
struct Way {
    websocket: RefCell<Option<Arc<WsOptions>>>,
    allow_anonymous: Cell<bool>,
}

impl Way {
    fn follow(&self, config: &Config, listener: &Listener) {
        *self.websocket.borrow_mut() = ws_options(config, listener);
        self.allow_anonymous.set(listener.allow_anonymous);
    }
}

/// Orders that wait for the disk, and questions that wait for messaging.
#[derive(Default)]
pub(super) struct Orders {
    last: u64,
    waiting: Vec<(u64, Box<dyn FnOnce()>)>,
    asked: Vec<(u64, Box<dyn FnOnce(Reply)>)>,
    pub(super) failed: Option<String>,
    /// Pairing codes over HTTP that were not looked at.
    pub(super) pairings_slowed_down: u64,
}

impl Orders {
    /// Runs `then` when the change with the number this returns is on disk.
    pub(super) fn wait(&mut self, then: impl FnOnce() + 'static) -> u64 {
        self.last += 1;
        self.waiting.push((self.last, Box::new(then)));
        self.last
    }

    /// Runs `then` with what messaging says to the question with the number this returns.
    pub(super) fn ask(&mut self, then: impl FnOnce(Reply) + 'static) -> u64 {
        self.last += 1;
        self.asked.push((self.last, Box::new(then)));
        self.last
    }

    /// Whether so many questions wait that no further one is taken. Whoever gave up waiting for one has not taken it back.
    pub(super) fn is_full(&self) -> bool {
        self.asked.len() >= ASKED_MAX
    }

    /// The change with this number turned out to be none.
    pub(super) fn cancel(&mut self, token: u64) {
        self.waiting.retain(|(t, _)| *t != token);
    }
}

/// The driver's way to tell about stored changes and a failed store.
struct Reports {
    orders: Rc<RefCell<Orders>>,
    accounts: Arc<Accounts>,
    readiness: Arc<Readiness>,
    failed: mpsc::Sender<String>,
}

impl Outside for Reports {
    fn stored(&mut self, token: u64) {
        let found = {
            let mut orders = self.orders.borrow_mut();
            orders.waiting.iter().position(|(t, _)| *t == token).map(|at| orders.waiting.swap_remove(at))
        };
        if let Some((_, then)) = found {
            then();
        }
    }

    fn replied(&mut self, token: u64, reply: Reply) {
        let found = {
            let mut orders = self.orders.borrow_mut();
            orders.asked.iter().position(|(t, _)| *t == token).map(|at| orders.asked.swap_remove(at))
        };
        if let Some((_, then)) = found {
            then(reply);
        }
    }

    fn account_made(&mut self, name: &str, record: &[u8]) {
        match (AccountName::parse(name), AccountRecord::decode(record)) {
            (Ok(parsed), Ok(record)) => {
                tracing::info!(account = name, "a device was paired and has an account");
                self.accounts.insert(parsed, record);
            }
            (Err(error), _) => tracing::error!(account = name, "a paired device cannot be let in: {error}"),
            (_, Err(error)) => tracing::error!(account = name, "a paired device cannot be let in: {error}"),
        }
    }

    fn low_space(&mut self, low: bool) {
        self.readiness.set_store_refuses(low);
    }

    fn failed(&mut self, why: &str) {
        self.readiness.set_store_refuses(true);
        tracing::error!("the store failed, nothing is acknowledged any more: {why}");
        self.orders.borrow_mut().failed = Some(why.to_owned());
        let _ = self.failed.try_send(why.to_owned());
    }
}

/// Rules and bounds of a configuration.
pub(super) fn hub_settings(config: &Config) -> Settings {
    Settings {
        limits: config.limits.clone(),
        access: Access::new(config.rules.clone()),
        sys_interval_secs: config.sys_interval_secs,
        im: ImSettings { enabled: config.im.enabled, home_assistant: config.im.home_assistant.clone() },
    }
}

pub(super) async fn live(server: &mut Server) -> Result<Ending, RunError> {
    let signal_of_heart = Arc::new(Signal::default());
    let disk = match server.disk.take() {
        Some(disk) => disk,
        None => DirDisk::open(store_dir(&server.config.data))?,
    };
    let options = Options {
        segment_bytes: server.config.store.segment_bytes,
        cache_bytes: usize::try_from(server.config.store.cache_bytes).unwrap_or(usize::MAX),
        low_space_bytes: server.config.store.low_space_bytes,
        salvage: server.config.store.salvage,
        ..Options::default()
    };
    let heart = Arc::clone(&signal_of_heart);
    let (store, snapshot) = StoreThreads::open(Arc::new(disk), &options, Box::new(move || heart.wake()))?;
    let recovery = store.recovery();
    tracing::info!(
        boot = snapshot.boot,
        sessions = snapshot.sessions.len(),
        retained = snapshot.retained.len(),
        accounts = snapshot.accounts.len(),
        facts_replayed = recovery.facts,
        "the store is open"
    );
    let accounts = Arc::new(Accounts::load(&snapshot.accounts)?);
    for (name, _) in accounts.list().iter().filter(|(name, _)| name.is_reserved()) {
        tracing::warn!("nobody can log in as {name}, whose name is reserved: make another account and remove this one");
    }
    let authenticator = Arc::new(Authenticator::open(&server.config.auth, &server.config.data, Arc::clone(&accounts))?);
    let (figures, backups) = (store.figures(), store.backups());
    let mut store: Box<dyn Store> = Box::new(store);
    if let Some(wrap) = server.wrap {
        store = wrap(store);
    }
    let hub = Hub::new(hub_settings(&server.config), snapshot, server.seed, now(server.clock));
    server.readiness.set_store_refuses(false);
    let orders = Rc::new(RefCell::new(Orders::default()));
    let (failed, mut failures) = mpsc::channel(1);
    let reports = Box::new(Reports {
        orders: Rc::clone(&orders),
        accounts: Arc::clone(&accounts),
        readiness: Arc::clone(&server.readiness),
        failed,
    });
    let packet_bytes_max = u32::try_from(server.config.limits.packet_bytes_max).unwrap_or(u32::MAX);
    let driver = Driver::new(hub, store, reports, authenticator, signal_of_heart, server.clock, packet_bytes_max);
    let started_ms = driver.now().wall_ms;
    let mut life = Life { driver, accounts, figures, backups, orders, started_ms, ways: vec![] };
    let mut tasks: Vec<JoinHandle<()>> = vec![tokio::task::spawn_local(Heart::new(Rc::clone(&life.driver)))];
    tokio::select! {
        seeded = seed_accounts(server, &life) => seeded?,
        Some(why) = failures.recv() => return Err(RunError::StoreFailed(why)),
    }
    for door in &server.doors {
        if let DoorSocket::Tcp(socket) = &door.socket
            && !server.config.listeners[door.number].url.transport.is_tls()
        {
            tasks.push(open_door(server, &mut life, door, socket)?);
        }
    }
    server.announce();
    let ending = loop {
        tokio::select! {
            Some(new) = server.links.recv() => admit(server, &life, new),
            Some(command) = server.commands.recv() => {
                if let Some(ending) = command_arrived(server, &mut life, command) {
                    break Ok(ending);
                }
            }
            Some(why) = failures.recv() => break Err(RunError::StoreFailed(why)),
        }
    };
    // Until another store is in its place.
    server.readiness.set_store_refuses(true);
    if !matches!(ending, Ok(Ending::Restore { .. })) {
        server.readiness.set_draining();
        systemd::notify(Notice::Stopping);
    }
    drain(server, &life, &mut tasks, ending.is_err()).await;
    ending
}

/// Makes the demo's accounts where they do not exist yet.
async fn seed_accounts(server: &Server, life: &Life) -> Result<(), RunError> {
    let mut last = None;
    for seed in &server.accounts {
        if life.accounts.get(seed.name).is_some() {
            continue;
        }
        let groups: Vec<String> = seed.groups.iter().map(ToString::to_string).collect();
        let record = crate::admin::accounts::make(seed.password, &groups, &server.config.auth.passwords)?;
        let (done, waits) = oneshot::channel();
        let described = Described { kind: seed.kind, display_name: None };
        super::operate::put_account(life, seed.name, &record, Some(&described), Connections::Stay, move || {
            let _ = done.send(());
        });
        last = Some(waits);
    }
    if let Some(waits) = last {
        life.driver.wake();
        let _ = waits.await;
    }
    Ok(())
}

fn command_arrived(server: &mut Server, life: &mut Life, command: Command) -> Option<Ending> {
    match command {
        Command::Shutdown(Shutdown::Drain) => return Some(Ending::Stop),
        Command::Shutdown(Shutdown::Now) => {
            server.config.drain_secs = 0;
            return Some(Ending::Stop);
        }
        Command::Restore { file, reply } => return Some(Ending::Restore { file, reply }),
        Command::Reload { config, reply } => {
            let _ =
                reply.send(reload(server, life, *config).map_err(|error| CommandError::Unusable(error.to_string())));
        }
        command => super::operate::perform(server, life, command),
    }
    life.driver.wake();
    None
}

/// Takes over what can be changed while running, and says what cannot.
fn reload(server: &mut Server, life: &Life, config: Config) -> Result<(), RunError> {
    life.driver.authenticator.reread(&config.auth)?;
    for section in config.needs_restart(&server.config) {
        tracing::warn!("{section} has changed: that takes effect at the next start");
    }
    crate::log::set_level(config.log.level);
    life.driver.set_packet_bytes_max(u32::try_from(config.limits.packet_bytes_max).unwrap_or(u32::MAX));
    // What needs a restart keeps the values that are in use.
    let (data, mut listeners, http, store, im) = (
        server.config.data.clone(),
        std::mem::take(&mut server.config.listeners),
        server.config.http.clone(),
        server.config.store.clone(),
        server.config.im.clone(),
    );
    for old in &mut listeners {
        if let Some(new) = config.listeners.iter().find(|new| new.url == old.url) {
            *old = Listener { name: old.name.clone(), ..new.clone() };
        }
    }
    server.config = Config { data, listeners, http, store, im, ..config };
    life.driver.hub.borrow_mut().reload(life.driver.now(), hub_settings(&server.config));
    for (number, way) in &life.ways {
        way.follow(&server.config, &server.config.listeners[*number]);
    }
    server.side.reload(&server.config);
    if let Some(quic) = &server.quic {
        quic.reload(&server.config);
    }
    tracing::info!("the configuration was taken over");
    Ok(())
}

/// A connection whose handshake is done, or, with QUIC, far enough to begin.
fn admit(server: &Server, life: &Life, new: NewConnection) {
    let account = |certificate: Option<&[u8]>, peer| {
        match certificate.map(|der| certificate_account(der, server.config.auth.certificate_account)) {
            None => None,
            Some(Ok(name)) => Some(name.as_str().to_owned()),
            Some(Err(error)) => {
                tracing::warn!("the client certificate of {peer} names no account: {error}");
                // An empty name is no account: the client is refused as one whose certificate is not known.
                Some(String::new())
            }
        }
    };
    match new {
        NewConnection::Socket(link) => {
            let listener = &server.config.listeners[link.listener];
            let certificate = account(link.certificate.as_deref(), link.peer);
            let wire = Wire::of(listener.url.transport.is_native());
            life.driver.admit(link, wire, certificate, listener.allow_anonymous);
        }
        NewConnection::Quic(new) => {
            let listener = &server.config.listeners[new.listener];
            let certificate = account(new.certificate.as_deref(), new.peer);
            life.driver.admit_quic(*new, certificate, listener.allow_anonymous);
        }
    }
}

fn open_door(
    server: &Server,
    life: &mut Life,
    door: &Door,
    socket: &std::net::TcpListener,
) -> Result<JoinHandle<()>, RunError> {
    let listener = &server.config.listeners[door.number];
    let socket = socket.try_clone().map_err(RunError::Runtime)?;
    let socket = tokio::net::TcpListener::from_std(socket).map_err(RunError::Runtime)?;
    let way = Rc::new(Way::default());
    way.follow(&server.config, listener);
    life.ways.push((door.number, Rc::clone(&way)));
    let number = u32::try_from(door.number).unwrap_or(u32::MAX);
    let wire = Wire::of(listener.url.transport.is_native());
    let task = accept(Rc::clone(&life.driver), socket, number, wire, way);
    Ok(tokio::task::spawn_local(task))
}

/// Accepts connections that need no handshake beyond their first bytes: TCP, ordered and lossless [MQTT5-4.2.0-1]
/// [MQTT3-4.2.0-1].
async fn accept(driver: Rc<Driver>, listener: tokio::net::TcpListener, number: u32, wire: Wire, way: Rc<Way>) {
    let mut log = crate::log::RateLimited::new(Duration::from_secs(10));
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                let layer = match &*way.websocket.borrow() {
                    None => Layer::Plain,
                    Some(options) => Layer::WebSocket(Box::new(WsLayer::new(Arc::clone(options)))),
                };
                driver.admit_stream(stream, peer, number, layer, vec![], wire, None, way.allow_anonymous.get());
            }
            Err(error) => {
                if let Some(pause) = accept_pause(&error) {
                    if let Some(suppressed) = log.admit(Instant::now(), "accept_failed") {
                        tracing::error!(
                            suppressed,
                            "accept failed: {error}; raise the limit of open files (LimitNOFILE)"
                        );
                    }
                    tokio::time::sleep(pause).await;
                }
            }
        }
    }
}

/// Tells clients to leave, waits for them and for the last commit, and ends the tasks of this life.
async fn drain(server: &Server, life: &Life, tasks: &mut Vec<JoinHandle<()>>, store_failed: bool) {
    // The heart, which is the first, goes on until all is written.
    for accept in tasks.drain(1..) {
        accept.abort();
    }
    life.driver.hub.borrow_mut().stop(life.driver.now());
    life.driver.wake();
    let patience = Duration::from_secs(server.config.drain_secs.into());
    wait_until(patience, || life.driver.tasks() == 0).await;
    if !store_failed {
        wait_until(LAST_COMMIT, || !life.driver.hub.borrow().is_committing()).await;
    }
    for task in tasks.drain(..) {
        task.abort();
        let _ = task.await;
    }
    life.driver.end();
    // The store commits what is left and lets go of its directory before anybody opens it again.
    drop(life.driver.store.replace(Box::new(parlor_core::store::MemoryStore::new())));
    tracing::info!("stopped");
}

/// Looks every few milliseconds: this is the end of the program, not its hot path.
async fn wait_until(patience: Duration, done: impl Fn() -> bool) {
    let deadline = Instant::now() + patience;
    while !done() && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Puts a backup in the place of the store. The store is closed.
pub(super) fn restore(directory: &Path, file: &Path) -> Result<Restored, CommandError> {
    let unusable = |error: &dyn std::fmt::Display| CommandError::Unusable(error.to_string());
    let mut input = std::fs::File::open(file).map_err(|error| unusable(&error))?;
    let restored = crate::store::restore(&mut input, directory).map_err(|error| {
        tracing::error!("the backup was not restored: {error}");
        unusable(&error)
    })?;
    let _ = std::fs::remove_file(file);
    let replaced = match &restored.replaced {
        Some(path) => format!("; what was there before is in {}: remove it when all is well", path.display()),
        None => String::new(),
    };
    let text = format!("restored {} rows; the broker starts anew with them{replaced}", restored.progress.rows);
    tracing::info!("{text}");
    Ok(Restored { bytes: restored.progress.bytes, text })
}

/// Reads an account record for the table in memory.
pub(super) fn decode_record(record: &[u8]) -> Result<AccountRecord, CommandError> {
    AccountRecord::decode(record).map_err(|error| CommandError::Unusable(error.to_string()))
}
