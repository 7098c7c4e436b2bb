//! A broker from a configuration: binds, opens the store, runs, drains, stops.

use crate::auth::Authenticator;
use crate::config::{Config, Listener, ListenerUrl};
use crate::driver::{Driver, Heart, Outside, Signal, now};
use crate::link::{BindError, Layer, NewLink, WsLayer, WsOptions, accept_pause, bind};
use parlor_core::store::Store;
use parlor_core::{Hub, Settings};
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::{Builder, LocalOptions};
use tokio::signal::unix::{SignalKind, signal};

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
    /// The data directory could not be had.
    #[error(transparent)]
    Directory(#[from] crate::store::disk::DirError),
    /// The store could not be opened.
    #[error(transparent)]
    Store(#[from] crate::store::OpenError),
    /// The runtime could not be made.
    #[error("the runtime could not be started: {0}; the system may be out of file descriptors")]
    Runtime(std::io::Error),
}

/// A socket that listens, and what it is for.
struct Door {
    listener: TcpListener,
    address: SocketAddr,
    number: usize,
}

/// Opens every listening socket of the configuration.
fn open_doors(listeners: &[Listener]) -> Result<Vec<Door>, RunError> {
    let mut doors = vec![];
    for (number, listener) in listeners.iter().enumerate() {
        let addresses =
            listener.url.addresses().map_err(|error| RunError::Resolve { url: listener.url.clone(), error })?;
        for address in addresses {
            let bound = bind(address).map_err(|error| RunError::Bind { url: listener.url.clone(), error })?;
            let address = bound.local_addr().unwrap_or(address);
            doors.push(Door { listener: bound, address, number });
        }
    }
    Ok(doors)
}

struct Quiet;

impl Outside for Quiet {
    fn stored(&mut self, _token: u64) {}
    fn failed(&mut self, why: &str) {
        tracing::error!("{why}");
    }
}

/// Runs a broker until SIGTERM or SIGINT.
pub fn run(config: &Config) -> Result<(), RunError> {
    let doors = open_doors(&config.listeners)?;
    let runtime = Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(2)
        .build_local(LocalOptions::default())
        .map_err(RunError::Runtime)?;
    let clock = Instant::now();
    let signal_of_heart = Arc::new(Signal::default());
    let disk = crate::store::disk::DirDisk::open(&config.data)?;
    let options = crate::store::Options {
        segment_bytes: config.store.segment_bytes,
        cache_bytes: usize::try_from(config.store.cache_bytes).unwrap_or(usize::MAX),
        ..Default::default()
    };
    let wake = { let heart = Arc::clone(&signal_of_heart); Box::new(move || heart.wake()) };
    let (store, snapshot) = crate::store::StoreThreads::open(Arc::new(disk), &options, wake)?;
    let store: Box<dyn Store> = Box::new(store);
    let settings = Settings {
        limits: config.limits.clone(),
        access: parlor_core::access::Access::new(vec![]),
        sys_interval_secs: config.sys_interval_secs,
    };
    let hub = Hub::new(settings, snapshot, 7, now(clock));
    let packet_bytes_max = u32::try_from(config.limits.packet_bytes_max).unwrap_or(u32::MAX);
    let driver =
        Driver::new(hub, store, Box::new(Quiet), Arc::new(Authenticator), signal_of_heart, clock, packet_bytes_max);
    runtime.block_on(async {
        tokio::task::spawn_local(Heart::new(Rc::clone(&driver)));
        for door in doors {
            let listener = &config.listeners[door.number];
            tracing::info!("listening on {}://{}", listener.url.transport.scheme(), door.address);
            let websocket = listener.url.transport.is_websocket().then(|| {
                Arc::new(WsOptions {
                    path: listener.url.path.clone().unwrap_or_else(|| config.websocket.path.clone()),
                    origins: listener.origins.clone(),
                    message_bytes_max: config.limits.packet_bytes_max.saturating_mul(4),
                })
            });
            tokio::task::spawn_local(accept(Rc::clone(&driver), door, websocket, listener.allow_anonymous));
        }
        let (mut term, mut int) = match (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) {
            (Ok(term), Ok(int)) => (term, int),
            (Err(error), _) | (_, Err(error)) => return Err(RunError::Runtime(error)),
        };
        std::future::poll_fn(|cx| {
            if term.poll_recv(cx).is_ready() || int.poll_recv(cx).is_ready() {
                std::task::Poll::Ready(())
            } else {
                std::task::Poll::Pending
            }
        })
        .await;
        tracing::info!("stopping");
        driver.hub.borrow_mut().stop(driver.now());
        driver.wake();
        let deadline = Instant::now() + Duration::from_secs(config.drain_secs.into());
        while driver.connections() > 0 && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    })
}

/// Accepts connections that need no handshake beyond their first bytes.
async fn accept(driver: Rc<Driver>, door: Door, websocket: Option<Arc<WsOptions>>, allow_anonymous: bool) {
    let listener = match tokio::net::TcpListener::from_std(door.listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, address = %door.address, "a listener could not be watched"),
    };
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                let layer = match &websocket {
                    None => Layer::Plain,
                    Some(options) => Layer::WebSocket(Box::new(WsLayer::new(Arc::clone(options)))),
                };
                driver.admit_stream(stream, peer, layer, vec![], None, allow_anonymous);
            }
            Err(error) => {
                if let Some(pause) = accept_pause(&error) {
                    tracing::warn!(%error, "accept failed; pausing");
                    tokio::time::sleep(pause).await;
                }
            }
        }
    }
}
