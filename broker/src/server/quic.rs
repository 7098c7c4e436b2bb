//! The QUIC thread: endpoints, handshakes, timers, and the packets that come in for all QUIC connections. What their streams
//! carry is read and written by the hub's thread.

use super::side::{TLS_WATCH, connect_timeout, handshakes_max, report_reload, tls_files};
use super::{Door, DoorSocket, RunError};
use crate::config::{ClientCertificate, Config, Listener};
use crate::link::{NewConnection, QuicEvent, QuicOptions, ReloadableTls, ResetKey, serve_quic};
use parlor_core::Tally;
use ring::rand::{SecureRandom, SystemRandom};
use std::fs::File;
use std::io::{Read, Write};
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};

/// File in the data directory with the key of stateless resets.
const KEY_FILE: &str = "quic-reset.key";

/// The key of stateless resets could not be had.
#[derive(Debug, thiserror::Error)]
pub enum ResetKeyError {
    /// Its file cannot be read or written.
    #[error("{}: {error}; the broker's user must be able to read and write it, or remove it and start again", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
    /// Its file holds something else.
    #[error("{} is not {} bytes long; remove it and start again: clients of before then learn of this start later", path.display(), ResetKey::BYTES)]
    Length {
        /// The file.
        path: PathBuf,
    },
    /// The system gave no random numbers.
    #[error("the system gives no random numbers, and QUIC cannot be secured without")]
    Random,
}

/// The running QUIC thread; dropping it ends it, after its peers have been told.
pub(super) struct Quic {
    ways: Vec<Way>,
    refused: Arc<Mutex<Tally>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// What of a QUIC listener can change while it is open.
struct Way {
    /// Number of the listener in the configuration.
    number: usize,
    tls: ReloadableTls,
    options: watch::Sender<QuicOptions>,
}

impl Quic {
    /// Opens the QUIC listeners among `doors`; `None`: there are none, and no thread.
    pub(super) fn start(
        config: &Config,
        doors: &[Door],
        links: &mpsc::Sender<NewConnection>,
    ) -> Result<Option<Self>, RunError> {
        let refused = Arc::new(Mutex::new(Tally::default()));
        let mut ways: Vec<Way> = vec![];
        let mut sockets: Vec<(UdpSocket, ReloadableTls, watch::Receiver<QuicOptions>)> = vec![];
        for door in doors {
            let listener = &config.listeners[door.number];
            let (DoorSocket::Udp(socket), Some(files)) = (&door.socket, &listener.tls) else { continue };
            let at = match ways.iter().position(|way| way.number == door.number) {
                Some(at) => at,
                None => {
                    let url = listener.url.clone();
                    let tls = ReloadableTls::load(tls_files(files, listener))
                        .map_err(|error| RunError::Tls { url, error })?;
                    let options = watch::Sender::new(options(config, listener, door.number, &refused));
                    ways.push(Way { number: door.number, tls, options });
                    ways.len() - 1
                }
            };
            let socket = socket.try_clone().map_err(RunError::Runtime)?;
            sockets.push((socket, ways[at].tls.clone(), ways[at].options.subscribe()));
        }
        if sockets.is_empty() {
            return Ok(None);
        }
        let key = reset_key(&config.data)?;
        let (stop, stopped) = oneshot::channel::<()>();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(RunError::Runtime)?;
        let watched: Vec<ReloadableTls> = ways.iter().map(|way| way.tls.clone()).collect();
        let links = links.clone();
        let body = move || {
            runtime.block_on(async move {
                let mut endpoints = tokio::task::JoinSet::new();
                let (end, _) = watch::channel(());
                for (socket, tls, options) in sockets {
                    let served = serve_quic(socket, key.clone(), tls, options, links.clone(), end.subscribe());
                    endpoints.spawn(async move {
                        if let Err(error) = served.await {
                            tracing::error!(%error, "a QUIC listener cannot use its socket and is closed");
                        }
                    });
                }
                for tls in watched {
                    tokio::spawn(async move { tls.watch(TLS_WATCH, |event| report_reload(&event)).await });
                }
                let _ = stopped.await;
                drop(end);
                while endpoints.join_next().await.is_some() {}
            });
        };
        let thread = std::thread::Builder::new().name("quic".to_owned()).spawn(body).map_err(RunError::Runtime)?;
        Ok(Some(Self { ways, refused, stop: Some(stop), thread: Some(thread) }))
    }

    /// Follows the configuration from now on, and reads every certificate again.
    pub(super) fn reload(&self, config: &Config) {
        for way in &self.ways {
            let Some(listener) = config.listeners.get(way.number) else { continue };
            if let Some(files) = &listener.tls {
                way.tls.set_files(tls_files(files, listener));
            }
            way.options.send_modify(|options| follow(options, config, listener));
            way.tls.ask_reload();
        }
    }

    /// What did not become a link, by reason.
    pub(super) fn refused(&self) -> Tally {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Quic {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn follow(options: &mut QuicOptions, config: &Config, listener: &Listener) {
    options.connect_timeout = connect_timeout(config);
    options.handshakes_max = handshakes_max(config);
    options.retry_above = usize::try_from(config.limits.quic_retry_above).unwrap_or(usize::MAX);
    options.streams_max = config.limits.quic_streams_max;
    options.asks_certificate =
        listener.tls.as_ref().is_some_and(|tls| tls.client_certificate != ClientCertificate::None);
}

fn options(config: &Config, listener: &Listener, number: usize, refused: &Arc<Mutex<Tally>>) -> QuicOptions {
    let refused = Arc::clone(refused);
    let log = Mutex::new(crate::log::RateLimited::new(Duration::from_secs(10)));
    let report = move |event: QuicEvent| {
        let label = event.label();
        refused.lock().unwrap_or_else(PoisonError::into_inner).add(label);
        let admitted = log.lock().unwrap_or_else(PoisonError::into_inner).admit(std::time::Instant::now(), label);
        if let Some(suppressed) = admitted {
            say(&event, label, suppressed);
        }
    };
    let mut options = QuicOptions {
        listener: number,
        connect_timeout: Duration::ZERO,
        handshakes_max: 0,
        retry_above: 0,
        streams_max: 0,
        asks_certificate: false,
        report: Arc::new(report),
    };
    follow(&mut options, config, listener);
    options
}

fn say(event: &QuicEvent, label: &'static str, suppressed: u64) {
    match event {
        QuicEvent::Failed { peer, error } => {
            tracing::warn!(
                label,
                suppressed,
                "QUIC connection from {peer} ended before it began: {error}; look at the client's certificate, trusted CA and ALPN (mqtt or parlor/1)"
            );
        }
        QuicEvent::WrongProtocol { peer } => {
            tracing::warn!(
                label,
                suppressed,
                "QUIC connection from {peer} names no ALPN that is spoken here (mqtt, parlor/1)"
            );
        }
        QuicEvent::Full { peer } => {
            tracing::warn!(
                label,
                suppressed,
                "QUIC connection from {peer} refused: too many handshakes; raise limits.handshakes_max if these are real clients"
            );
        }
        QuicEvent::Retried { peer } => {
            tracing::info!(
                label,
                suppressed,
                "many handshakes: {peer} and others show first that they receive at their addresses"
            );
        }
        QuicEvent::Late { peer } | QuicEvent::Displaced { peer } => {
            tracing::debug!(label, suppressed, "QUIC handshake with {peer} was not completed");
        }
        QuicEvent::Unusable { error } => {
            tracing::error!(
                label,
                suppressed,
                "a certificate cannot be used for QUIC, the old one stays in use: {error}"
            );
        }
    }
}

/// Reads the key of stateless resets, or makes one that only the broker's user can read.
fn reset_key(data: &Path) -> Result<ResetKey, ResetKeyError> {
    let path = data.join(KEY_FILE);
    let failed = |error| ResetKeyError::File { path: path.clone(), error };
    let mut bytes = [0; ResetKey::BYTES];
    match File::open(&path) {
        Ok(mut file) => {
            let length = file.metadata().map_err(failed)?.len();
            if length != ResetKey::BYTES as u64 {
                return Err(ResetKeyError::Length { path });
            }
            file.read_exact(&mut bytes).map_err(failed)?;
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            SystemRandom::new().fill(&mut bytes).map_err(|_| ResetKeyError::Random)?;
            let mut options = File::options();
            options.write(true).create_new(true);
            #[cfg(unix)]
            std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
            let mut file = options.open(&path).map_err(failed)?;
            file.write_all(&bytes).and_then(|()| file.sync_all()).map_err(failed)?;
        }
        Err(error) => return Err(failed(error)),
    }
    Ok(ResetKey::new(&bytes))
}
