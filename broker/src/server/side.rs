//! The side thread: TLS handshakes, the operator's HTTP, the watch over certificates.

use super::{Door, DoorSocket, RunError};
use crate::admin::Admin;
use crate::config::{ClientCertificate, Config, Listener, Tls};
use crate::link::{
    Carrier, ClientAuth, MQTT_ALPN, NATIVE_ALPN, NewConnection, ReloadEvent, ReloadableTls, TlsAcceptEvent,
    TlsAcceptOptions, TlsFiles, WsOptions, serve_tls,
};
use parlor_core::Tally;
use std::net::TcpListener;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};

/// How often certificate files are looked at.
pub(super) const TLS_WATCH: Duration = Duration::from_secs(2);

/// What the side thread is given.
pub(super) struct Work<'a> {
    pub(super) config: &'a Config,
    pub(super) doors: &'a [Door],
    pub(super) admin: Admin,
    pub(super) links: mpsc::Sender<NewConnection>,
}

/// The running side thread; dropping it ends it.
pub(super) struct Side {
    ways: Vec<TlsWay>,
    refused: Arc<Mutex<Tally>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// A TLS listener on its way to the side thread.
struct TlsDoor {
    listener: TcpListener,
    tls: ReloadableTls,
    options: watch::Receiver<TlsAcceptOptions>,
}

/// What of a TLS listener can change while it is open.
struct TlsWay {
    /// Number of the listener in the configuration.
    number: usize,
    tls: ReloadableTls,
    options: watch::Sender<TlsAcceptOptions>,
}

impl Side {
    pub(super) fn start(work: Work<'_>) -> Result<Self, RunError> {
        let refused = Arc::new(Mutex::new(Tally::default()));
        let mut ways: Vec<TlsWay> = vec![];
        let mut doors = vec![];
        for door in work.doors {
            let listener = &work.config.listeners[door.number];
            let (DoorSocket::Tcp(socket), Some(files)) = (&door.socket, &listener.tls) else { continue };
            // A name may stand for several addresses: one listener, several sockets.
            let at = match ways.iter().position(|way| way.number == door.number) {
                Some(at) => at,
                None => {
                    let url = listener.url.clone();
                    let tls = ReloadableTls::load(tls_files(files, listener))
                        .map_err(|error| RunError::Tls { url, error })?;
                    let options = accept_options(work.config, listener, door.number, &refused);
                    ways.push(TlsWay { number: door.number, tls, options: watch::Sender::new(options) });
                    ways.len() - 1
                }
            };
            let socket = socket.try_clone().map_err(RunError::Runtime)?;
            doors.push(TlsDoor { listener: socket, tls: ways[at].tls.clone(), options: ways[at].options.subscribe() });
        }
        let (stop, stopped) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(2)
            .build()
            .map_err(RunError::Runtime)?;
        let watched: Vec<ReloadableTls> = ways.iter().map(|way| way.tls.clone()).collect();
        let mut admin = work.admin;
        {
            // Before anybody is told that the broker is up.
            let _context = runtime.enter();
            admin.hear_signals();
        }
        let links = work.links;
        let body = move || {
            runtime.block_on(async move {
                for door in doors {
                    let links = links.clone();
                    tokio::spawn(async move {
                        if let Err(error) = serve_tls(door.listener, door.tls, door.options, links).await {
                            tracing::error!(%error, "a TLS listener could not be watched and is closed");
                        }
                    });
                }
                for tls in watched {
                    tokio::spawn(async move { tls.watch(TLS_WATCH, |event| report_reload(&event)).await });
                }
                tokio::spawn(async move {
                    if let Err(error) = admin.serve().await {
                        tracing::error!("the operator's side has ended: {error}");
                    }
                });
                let _ = stopped.await;
            });
            // A backup that a client reads slowly must not hold up the end.
            runtime.shutdown_background();
        };
        let thread = std::thread::Builder::new().name("side".to_owned()).spawn(body).map_err(RunError::Runtime)?;
        Ok(Self { ways, refused, stop: Some(stop), thread: Some(thread) })
    }

    /// Follows the configuration from now on, and reads every certificate again.
    pub(super) fn reload(&self, config: &Config) {
        for way in &self.ways {
            let Some(listener) = config.listeners.get(way.number) else { continue };
            if let Some(files) = &listener.tls {
                way.tls.set_files(tls_files(files, listener));
            }
            way.options.send_modify(|options| {
                options.websocket = ws_options(config, listener);
                options.connect_timeout = connect_timeout(config);
                options.handshakes_max = handshakes_max(config);
            });
            way.tls.ask_reload();
        }
    }

    /// What did not become a link, by reason.
    pub(super) fn refused(&self) -> Tally {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

pub(super) fn tls_files(tls: &Tls, listener: &Listener) -> TlsFiles {
    let transport = listener.url.transport;
    let protocols: &[&str] = if transport.is_websocket() {
        &["http/1.1"]
    } else if transport.is_quic() {
        &[MQTT_ALPN, NATIVE_ALPN]
    } else if transport.is_native() {
        &[NATIVE_ALPN]
    } else {
        &[MQTT_ALPN]
    };
    TlsFiles {
        certificate: tls.certificate.clone(),
        key: tls.key.clone(),
        client_ca: tls.client_ca.clone(),
        client_auth: match tls.client_certificate {
            ClientCertificate::None => ClientAuth::None,
            ClientCertificate::Optional => ClientAuth::Optional,
            ClientCertificate::Required => ClientAuth::Required,
        },
        client_crl: None,
        alpn: protocols.iter().map(ToString::to_string).collect(),
        carrier: if transport.is_quic() { Carrier::Quic } else { Carrier::Tcp },
        fragment_bytes: tls.fragment_bytes,
    }
}

/// The WebSocket side of a listener, if it has one.
pub(super) fn ws_options(config: &Config, listener: &Listener) -> Option<Arc<WsOptions>> {
    listener.url.transport.is_websocket().then(|| {
        Arc::new(WsOptions {
            path: listener.url.path.clone().unwrap_or_else(|| config.websocket.path.clone()),
            origins: listener.origins.clone(),
            // One message may hold several packets.
            message_bytes_max: config.limits.packet_bytes_max.saturating_mul(4),
        })
    })
}

pub(super) fn connect_timeout(config: &Config) -> Duration {
    Duration::from_secs(config.limits.connect_timeout_secs)
}

pub(super) fn handshakes_max(config: &Config) -> usize {
    usize::try_from(config.limits.handshakes_max).unwrap_or(usize::MAX)
}

fn accept_options(
    config: &Config,
    listener: &Listener,
    number: usize,
    refused: &Arc<Mutex<Tally>>,
) -> TlsAcceptOptions {
    let refused = Arc::clone(refused);
    let log = Mutex::new(crate::log::RateLimited::new(Duration::from_secs(10)));
    TlsAcceptOptions {
        listener: number,
        websocket: ws_options(config, listener),
        connect_timeout: connect_timeout(config),
        handshakes_max: handshakes_max(config),
        report: Arc::new(move |event: TlsAcceptEvent| {
            let label = event.label();
            refused.lock().unwrap_or_else(PoisonError::into_inner).add(label);
            let admitted = log.lock().unwrap_or_else(PoisonError::into_inner).admit(std::time::Instant::now(), label);
            let Some(suppressed) = admitted else { return };
            match event {
                TlsAcceptEvent::Refused { peer, error } => {
                    tracing::warn!(label, suppressed, "TLS connection from {peer} refused: {error}");
                }
                TlsAcceptEvent::AcceptFailed { error, .. } => {
                    tracing::error!(
                        label,
                        suppressed,
                        "accept failed: {error}; raise the limit of open files (LimitNOFILE)"
                    );
                }
                TlsAcceptEvent::Late { peer } | TlsAcceptEvent::Gone { peer } | TlsAcceptEvent::Displaced { peer } => {
                    tracing::debug!(label, suppressed, "TLS handshake with {peer} was not completed");
                }
            }
        }),
    }
}

pub(super) fn report_reload(event: &ReloadEvent) {
    match event {
        ReloadEvent::Reloaded { certificate } => {
            tracing::info!("{} was read again; new connections use it", certificate.display());
        }
        ReloadEvent::Kept { certificate, error } => {
            tracing::error!("{} was not read again, the old one stays in use: {error}", certificate.display());
        }
    }
}
