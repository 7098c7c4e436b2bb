//! Listening sockets, and TLS handshakes away from the thread that routes messages.

use super::layer::{Layer, LayerError, Received};
use super::quic::NewQuic;
use super::tls::TlsLayer;
use super::tls_config::ReloadableTls;
use super::websocket::{WsLayer, WsOptions};
use socket2::{Domain, Protocol, Socket, Type};
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::Poll;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep, timeout, timeout_at};

/// Connections the system keeps until they are accepted: a whole site reconnects at once when its power returns.
const BACKLOG: i32 = 4096;
/// How long accept rests after an error that will not go away by itself at once (no file descriptors, no memory).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// When all places for handshakes are taken, a peer that has sent no whole hello for this long loses its place.
const SILENT_PATIENCE: Duration = Duration::from_millis(500);
/// When all places are taken and all peers have said hello, the oldest handshake loses its place after this long.
const SLOW_PATIENCE: Duration = Duration::from_secs(4);
/// How long to wait for a place before looking at the patience again.
const PLACE_PAUSE: Duration = Duration::from_millis(50);
/// Bytes read at once during a handshake.
const READ_BYTES: usize = 4096;

/// A connection ready for the hub's thread. Its socket does not block.
#[derive(Debug)]
pub struct NewLink {
    /// The socket.
    pub stream: TcpStream,
    /// Where it comes from.
    pub peer: SocketAddr,
    /// Number of the listener it came in by, as the caller of the listener counts them.
    pub listener: usize,
    /// What its bytes go through. TLS has done its handshake; WebSocket may still wait for its upgrade.
    pub layer: Layer,
    /// The client certificate (DER) that TLS has verified.
    pub certificate: Option<Vec<u8>>,
    /// MQTT bytes that came with the end of the handshake, to be handled before any read.
    pub early: Vec<u8>,
    /// When CONNECT must have come.
    pub deadline: std::time::Instant,
}

/// What the hub's thread is handed.
#[derive(Debug)]
pub enum NewConnection {
    /// TLS over TCP.
    Socket(NewLink),
    /// QUIC.
    Quic(Box<NewQuic>),
}

/// A socket to listen on could not be had.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Somebody else listens there.
    #[error("{address} is taken by another program (or another parlor); stop that one, or listen on another port")]
    Taken {
        /// The address.
        address: SocketAddr,
    },
    /// The port is privileged.
    #[error("no right to listen on {address}; take a port from 1024 on, or give the program CAP_NET_BIND_SERVICE")]
    NoRight {
        /// The address.
        address: SocketAddr,
    },
    /// This machine has no such address.
    #[error("{address} is no address of this machine; use 0.0.0.0 or [::] for all, or one that `ip address` shows")]
    NotHere {
        /// The address.
        address: SocketAddr,
    },
    /// The system refused for another reason.
    #[error("cannot listen on {address}: {source}; check that this family of addresses is enabled on this machine")]
    Refused {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
}

/// A listening socket that does not block. Port 0 takes a free one.
///
/// The address can be had again at once after a restart. An IPv6 socket takes IPv6 only, so that `0.0.0.0` and `[::]` can
/// be listed side by side, and peers of IPv4 always look like IPv4.
pub fn bind(address: SocketAddr) -> Result<TcpListener, BindError> {
    listening_socket(address).map_err(|source| BindError::of(address, source))
}

impl BindError {
    /// What it means that the system refused.
    pub(super) fn of(address: SocketAddr, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::AddrInUse => Self::Taken { address },
            io::ErrorKind::PermissionDenied => Self::NoRight { address },
            io::ErrorKind::AddrNotAvailable => Self::NotHere { address },
            _ => Self::Refused { address, source },
        }
    }
}

fn listening_socket(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // Elsewhere than on Unix this option lets two programs listen on one port.
    #[cfg(unix)]
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// How long to leave a listening socket alone after accept failed: not at all if only that one connection was lost.
pub fn accept_pause(error: &io::Error) -> Option<Duration> {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted, WouldBlock};
    match error.kind() {
        ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted | WouldBlock => None,
        _ => Some(ACCEPT_PAUSE),
    }
}

/// How a TLS listener treats connections.
#[derive(Clone)]
pub struct TlsAcceptOptions {
    /// Number of the listener, for [`NewLink::listener`].
    pub listener: usize,
    /// Set if the listener is a secure WebSocket.
    pub websocket: Option<Arc<WsOptions>>,
    /// From accept to CONNECT; the handshake has no longer than this.
    pub connect_timeout: Duration,
    /// Handshakes at the same time. At the edge the oldest peer that stays silent loses its place; if nobody is silent,
    /// accept waits.
    pub handshakes_max: usize,
    /// Told of everything that did not become a link. Called on the side thread; must not block.
    pub report: Arc<dyn Fn(TlsAcceptEvent) + Send + Sync>,
}

/// Something at a TLS listener that did not become a link.
#[derive(Debug)]
pub enum TlsAcceptEvent {
    /// Accept failed; the listener rests for `pause`.
    AcceptFailed {
        /// What the system said.
        error: io::Error,
        /// How long.
        pause: Duration,
    },
    /// The peer broke the rules; it has been told.
    Refused {
        /// Who.
        peer: SocketAddr,
        /// Why.
        error: LayerError,
    },
    /// The peer went away during the handshake.
    Gone {
        /// Who.
        peer: SocketAddr,
    },
    /// The handshake was not done in time.
    Late {
        /// Who.
        peer: SocketAddr,
    },
    /// All places for handshakes were taken, and this one had waited longest for its peer.
    Displaced {
        /// Who.
        peer: SocketAddr,
    },
}

impl TlsAcceptEvent {
    /// The label of the counter for this event.
    pub fn label(&self) -> &'static str {
        match self {
            Self::AcceptFailed { .. } => "accept_failed",
            Self::Refused { error, .. } => error.label(),
            Self::Gone { .. } => "tls_gone",
            Self::Late { .. } => "tls_late",
            Self::Displaced { .. } => "tls_displaced",
        }
    }
}

/// Accepts connections of one TLS listener, does their handshakes, and hands them over. Returns when `out` is closed, or
/// an error if the socket cannot be watched. Dropping it ends all handshakes.
///
/// A peer that is slow or silent holds a place among the handshakes until its deadline, and nothing else. Each handshake
/// follows the options as they are when it begins.
pub async fn serve_tls(
    listener: TcpListener,
    tls: ReloadableTls,
    options: watch::Receiver<TlsAcceptOptions>,
    out: mpsc::Sender<NewConnection>,
) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let mut handshakes = Handshakes::default();
    let mut closed = pin!(out.closed());
    loop {
        let now = options.borrow().clone();
        handshakes.make_room(&now).await;
        let accepted = poll_fn(|context| {
            handshakes.collect(context);
            if closed.as_mut().poll(context).is_ready() {
                return Poll::Ready(None);
            }
            listener.poll_accept(context).map(Some)
        })
        .await;
        match accepted {
            None => return Ok(()),
            Some(Ok((stream, peer))) => {
                let (tls, options, out) = (tls.clone(), options.borrow().clone(), out.clone());
                handshakes.begin(peer, move |since, stage| async move {
                    if let Some(event) = handshake(stream, peer, since, &tls, &options, &stage, &out).await {
                        (options.report)(event);
                    }
                });
            }
            Some(Err(error)) => {
                if let Some(pause) = accept_pause(&error) {
                    (now.report)(TlsAcceptEvent::AcceptFailed { error, pause });
                    sleep(pause).await;
                }
            }
        }
    }
}

/// How far a handshake is.
pub(super) const SILENT: u8 = 0;
pub(super) const HEARD: u8 = 1;
pub(super) const DONE: u8 = 2;

/// The handshakes in progress, oldest first.
#[derive(Default)]
pub(super) struct Handshakes {
    running: BTreeMap<u64, Running>,
    tasks: JoinSet<u64>,
    next: u64,
}

struct Running {
    peer: SocketAddr,
    since: Instant,
    stage: Arc<AtomicU8>,
    task: AbortHandle,
}

impl Handshakes {
    /// Begins one; `work` is given its time of accept, and where it writes down how far it is.
    pub(super) fn begin<F>(&mut self, peer: SocketAddr, work: impl FnOnce(Instant, Arc<AtomicU8>) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let number = self.next;
        self.next += 1;
        let stage = Arc::new(AtomicU8::new(SILENT));
        let since = Instant::now();
        let work = work(since, stage.clone());
        let task = self.tasks.spawn(async move {
            work.await;
            number
        });
        self.running.insert(number, Running { peer, since, stage, task });
    }

    /// Forgets the handshakes that have ended, and asks to be woken by the next.
    pub(super) fn collect(&mut self, context: &mut std::task::Context<'_>) {
        while let Poll::Ready(Some(ended)) = self.tasks.poll_join_next(context) {
            if let Ok(number) = ended {
                self.running.remove(&number);
            }
        }
    }

    /// How many are under way.
    pub(super) fn len(&self) -> usize {
        self.running.len()
    }

    /// Takes its place from the peer that deserves it least, if one has been waited for long enough; says who that was.
    pub(super) fn displace(&mut self) -> Option<SocketAddr> {
        let number = self.least_deserving(Instant::now())?;
        let running = self.running.remove(&number)?;
        running.task.abort();
        Some(running.peer)
    }

    async fn make_room(&mut self, options: &TlsAcceptOptions) {
        while self.running.len() >= options.handshakes_max.max(1) {
            if let Some(peer) = self.displace() {
                (options.report)(TlsAcceptEvent::Displaced { peer });
                return;
            }
            let ended = poll_fn(|context| {
                let before = self.running.len();
                self.collect(context);
                if self.running.len() < before { Poll::Ready(()) } else { Poll::Pending }
            });
            // Whichever comes first, the loop looks again.
            let _ = timeout(PLACE_PAUSE, ended).await;
        }
    }

    fn least_deserving(&self, now: Instant) -> Option<u64> {
        let waiting = |patience: Duration, stage: u8| {
            self.running
                .iter()
                .take_while(|(_, running)| now.duration_since(running.since) >= patience)
                .find(|(_, running)| running.stage.load(Ordering::Relaxed) == stage)
                .map(|(number, _)| *number)
        };
        waiting(SILENT_PATIENCE, SILENT).or_else(|| waiting(SLOW_PATIENCE, HEARD))
    }
}

/// One connection from accept to hand-over. Returns what to report if there was none.
async fn handshake(
    stream: tokio::net::TcpStream,
    peer: SocketAddr,
    since: Instant,
    tls: &ReloadableTls,
    options: &TlsAcceptOptions,
    stage: &AtomicU8,
    out: &mpsc::Sender<NewConnection>,
) -> Option<TlsAcceptEvent> {
    let deadline = since + options.connect_timeout;
    let work = async {
        let mut link = Link::new(stream, tls, options).map_err(|error| TlsAcceptEvent::Refused { peer, error })?;
        let done = link.run(stage).await;
        done.map_err(|error| match error {
            HandshakeError::Gone => TlsAcceptEvent::Gone { peer },
            HandshakeError::Refused(error) => TlsAcceptEvent::Refused { peer, error },
        })?;
        stage.store(DONE, Ordering::Relaxed);
        // The place in the queue comes first, so that a full queue keeps the link under its deadline.
        let place = out.reserve().await.map_err(|_| TlsAcceptEvent::Gone { peer })?;
        let certificate = link.layer.tls().and_then(TlsLayer::peer_certificate).map(<[u8]>::to_vec);
        let stream = link.stream.into_std().map_err(|_| TlsAcceptEvent::Gone { peer })?;
        place.send(NewConnection::Socket(NewLink {
            stream,
            peer,
            listener: options.listener,
            layer: link.layer,
            certificate,
            early: link.early,
            deadline: deadline.into_std(),
        }));
        Ok(())
    };
    timeout_at(deadline, work).await.unwrap_or(Err(TlsAcceptEvent::Late { peer })).err()
}

enum HandshakeError {
    Gone,
    Refused(LayerError),
}

/// A connection during its handshake.
struct Link {
    stream: tokio::net::TcpStream,
    layer: Layer,
    early: Vec<u8>,
    wire: Vec<u8>,
}

impl Link {
    fn new(stream: tokio::net::TcpStream, tls: &ReloadableTls, options: &TlsAcceptOptions) -> Result<Self, LayerError> {
        let tls = Box::new(TlsLayer::new(tls.current())?);
        let layer = match &options.websocket {
            Some(options) => Layer::SecureWebSocket(tls, Box::new(WsLayer::new(options.clone()))),
            None => Layer::Tls(tls),
        };
        Ok(Self { stream, layer, early: Vec::new(), wire: Vec::new() })
    }

    /// Talks until TLS is done and the peer has been sent all it is owed.
    async fn run(&mut self, stage: &AtomicU8) -> Result<(), HandshakeError> {
        // Small records are sent at once; a peer that vanished meanwhile is noticed at the next read.
        let _ = self.stream.set_nodelay(true);
        while !self.layer.tls().is_some_and(TlsLayer::is_ready) {
            self.stream.readable().await.map_err(|_| HandshakeError::Gone)?;
            let outcome = self.read();
            if !self.wire.is_empty() {
                stage.store(HEARD, Ordering::Relaxed);
            }
            // Also after an offence: the answer says which.
            self.flush().await?;
            outcome?;
        }
        Ok(())
    }

    /// Reads once. The buffer lives on the stack of this call, so that a waiting handshake holds none.
    fn read(&mut self) -> Result<(), HandshakeError> {
        let mut buffer = [0; READ_BYTES];
        match self.stream.try_read(&mut buffer) {
            Ok(0) => Err(HandshakeError::Gone),
            Ok(read) => match self.layer.receive(&buffer[..read], &mut self.early, &mut self.wire) {
                Ok(Received::Open) => Ok(()),
                Ok(Received::PeerClosed) => Err(HandshakeError::Gone),
                Err(error) => Err(HandshakeError::Refused(error)),
            },
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(()),
            Err(_) => Err(HandshakeError::Gone),
        }
    }

    async fn flush(&mut self) -> Result<(), HandshakeError> {
        let mut sent = 0;
        while sent < self.wire.len() {
            self.stream.writable().await.map_err(|_| HandshakeError::Gone)?;
            match self.stream.try_write(&self.wire[sent..]) {
                Ok(written) => sent += written,
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                Err(_) => return Err(HandshakeError::Gone),
            }
        }
        self.wire = Vec::new();
        Ok(())
    }
}

#[cfg(test)]
mod tests;
