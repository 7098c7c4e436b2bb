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
mod tests {
    use super::super::fixture::{Ca, Dir, client, client_config, server_files};
    use super::super::tls_config::{ClientAuth, TlsFiles};
    use super::*;
    use rustls::version::{TLS12, TLS13};
    use rustls::{ClientConnection, StreamOwned};
    use std::io::{Read, Write};
    use std::sync::mpsc::{Receiver, channel};
    use std::thread::JoinHandle;

    const PATIENCE: Duration = Duration::from_secs(20);

    /// A TLS listener on a thread of its own, as in the broker.
    struct Server {
        address: SocketAddr,
        tls: ReloadableTls,
        links: Option<mpsc::Receiver<NewConnection>>,
        events: Receiver<TlsAcceptEvent>,
        thread: Option<JoinHandle<io::Result<()>>>,
    }

    impl Server {
        fn start(files: TlsFiles, change: impl FnOnce(&mut TlsAcceptOptions)) -> Self {
            let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
            let address = listener.local_addr().unwrap();
            let (tell, events) = channel();
            let tell = std::sync::Mutex::new(tell);
            let mut options = TlsAcceptOptions {
                listener: 3,
                websocket: None,
                connect_timeout: PATIENCE,
                handshakes_max: 1000,
                report: Arc::new(move |event| {
                    // A test that has seen enough does not listen any more.
                    let _ = tell.lock().unwrap().send(event);
                }),
            };
            change(&mut options);
            let tls = ReloadableTls::load(files).unwrap();
            let (out, links) = mpsc::channel(16);
            let theirs = tls.clone();
            let thread = std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(serve_tls(listener, theirs, watch::channel(options).1, out))
            });
            Self { address, tls, links: Some(links), events, thread: Some(thread) }
        }

        fn next(&mut self) -> NewLink {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            let links = self.links.as_mut().unwrap();
            match runtime.block_on(async { timeout(PATIENCE, links.recv()).await }).unwrap().unwrap() {
                NewConnection::Socket(link) => link,
                NewConnection::Quic(_) => panic!("not over TCP"),
            }
        }

        fn event(&self) -> TlsAcceptEvent {
            self.events.recv_timeout(PATIENCE).unwrap()
        }

        fn connect(&self) -> TcpStream {
            let stream = TcpStream::connect(self.address).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream
        }
    }

    impl Drop for Server {
        fn drop(&mut self) {
            // With nobody to hand links to, the listener ends.
            self.links = None;
            let ended = self.thread.take().unwrap().join();
            if !std::thread::panicking() {
                ended.unwrap().unwrap();
            }
        }
    }

    fn shake(
        server: &Server,
        ca: &Ca,
        version: &'static rustls::SupportedProtocolVersion,
    ) -> StreamOwned<ClientConnection, TcpStream> {
        let mut stream = StreamOwned::new(client(client_config(ca, None, &[version])), server.connect());
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock).unwrap();
        }
        stream
    }

    /// Has the link echo what it was sent first, and the client hear it.
    fn echo(link: &mut NewLink, client: &mut StreamOwned<ClientConnection, TcpStream>) {
        link.stream.set_nonblocking(false).unwrap();
        client.write_all(b"hello").unwrap();
        client.flush().unwrap();
        let mut heard = std::mem::take(&mut link.early);
        let mut wire = Vec::new();
        while heard.len() < 5 {
            let mut buffer = [0; 1000];
            let read = link.stream.read(&mut buffer).unwrap();
            assert!(read > 0);
            link.layer.receive(&buffer[..read], &mut heard, &mut wire).unwrap();
        }
        assert_eq!(heard, b"hello");
        link.layer.send(&heard, &mut wire).unwrap();
        link.stream.write_all(&wire).unwrap();
        let mut back = [0; 5];
        client.read_exact(&mut back).unwrap();
        assert_eq!(&back, b"hello");
    }

    #[test]
    fn a_finished_handshake_is_handed_over() {
        let (dir, ca) = (Dir::new(), Ca::new("ca"));
        let mut server = Server::start(server_files(&dir, &ca), |_| {});
        for version in [&TLS12, &TLS13] {
            let mut client = shake(&server, &ca, version);
            let mut link = server.next();
            assert_eq!(link.peer, client.sock.local_addr().unwrap());
            assert_eq!((link.listener, &link.certificate), (3, &None));
            assert!(link.layer.is_ready() && !link.layer.is_plain());
            assert!(link.deadline > std::time::Instant::now());
            // The socket does not block.
            assert_eq!(link.stream.read(&mut [0; 1]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
            echo(&mut link, &mut client);
        }
    }

    #[test]
    fn the_certificate_and_early_bytes_come_with_the_link() {
        let (dir, ca) = (Dir::new(), Ca::new("ca"));
        let files = TlsFiles {
            client_auth: ClientAuth::Optional,
            client_ca: Some(dir.put("ca.pem", &ca.certificate)),
            ..server_files(&dir, &ca)
        };
        let mut server = Server::start(files, |_| {});
        let own = ca.issue("lamp");
        let mut connection = client(client_config(&ca, Some(&own), &[&TLS13]));
        connection.writer().write_all(b"CONNECT").unwrap();
        let mut socket = server.connect();
        while connection.is_handshaking() || connection.wants_write() {
            connection.complete_io(&mut socket).unwrap();
        }
        let mut link = server.next();
        assert!(link.certificate.is_some_and(|der| der.starts_with(&[0x30, 0x82])));
        let mut heard = link.early;
        link.stream.set_nonblocking(false).unwrap();
        while heard.len() < 7 {
            let mut buffer = [0; 1000];
            let read = link.stream.read(&mut buffer).unwrap();
            assert!(read > 0);
            link.layer.receive(&buffer[..read], &mut heard, &mut Vec::new()).unwrap();
        }
        assert_eq!(heard, b"CONNECT");
    }

    #[test]
    fn secure_websocket_is_handed_over_with_its_upgrade_to_come() {
        let (dir, ca) = (Dir::new(), Ca::new("ca"));
        let mut server =
            Server::start(TlsFiles { alpn: vec!["http/1.1".to_owned()], ..server_files(&dir, &ca) }, |options| {
                options.websocket = Some(Arc::default());
            });
        let client = shake(&server, &ca, &TLS13);
        let link = server.next();
        assert!(matches!(link.layer, Layer::SecureWebSocket(..)));
        assert!(link.layer.tls().unwrap().is_ready() && !link.layer.is_ready());
        drop(client);
    }

    #[test]
    fn silent_peers_do_not_stop_others() {
        let (dir, ca) = (Dir::new(), Ca::new("ca"));
        let mut server = Server::start(server_files(&dir, &ca), |_| {});
        let silent: Vec<_> = (0..100)
            .map(|number| {
                let mut stream = server.connect();
                if number % 2 == 0 {
                    stream.write_all(&[22, 3, 1, 2, 0, 1]).unwrap();
                }
                stream
            })
            .collect();
        let mut client = shake(&server, &ca, &TLS13);
        let mut link = server.next();
        echo(&mut link, &mut client);
        assert!(server.events.try_recv().is_err(), "nobody was refused");
        drop(silent);
    }

    #[test]
    fn when_places_are_taken_the_silent_lose_theirs() {
        let (dir, ca) = (Dir::new(), Ca::new("ca"));
        let mut server = Server::start(server_files(&dir, &ca), |options| options.handshakes_max = 4);
        let silent: Vec<_> = (0..4).map(|_| server.connect()).collect();
        let mut client = shake(&server, &ca, &TLS13);
        let mut link = server.next();
        echo(&mut link, &mut client);
        let TlsAcceptEvent::Displaced { peer } = server.event() else { panic!("nobody displaced") };
        assert_eq!(peer, silent[0].local_addr().unwrap(), "the oldest");
        assert_eq!((&silent[0]).read(&mut [0; 1]).unwrap(), 0, "it is closed");
    }

    #[test]
    fn a_handshake_has_a_deadline() {
        let (dir, ca) = (Dir::new(), Ca::new("ca"));
        let server =
            Server::start(server_files(&dir, &ca), |options| options.connect_timeout = Duration::from_millis(50));
        let mut silent = server.connect();
        assert!(matches!(server.event(), TlsAcceptEvent::Late { peer } if peer == silent.local_addr().unwrap()));
        assert_eq!(silent.read(&mut [0; 1]).unwrap(), 0);
    }

    #[test]
    fn a_full_queue_holds_links_no_longer_than_their_deadline() {
        let (dir, ca) = (Dir::new(), Ca::new("ca"));
        let server = Server::start(server_files(&dir, &ca), |options| options.connect_timeout = Duration::from_secs(3));
        // The queue has 16 places, and nobody takes from it.
        let clients: Vec<_> = (0..17).map(|_| shake(&server, &ca, &TLS13)).collect();
        assert!(matches!(server.event(), TlsAcceptEvent::Late { .. }));
        drop(clients);
    }

    #[test]
    fn offenders_and_those_who_leave_are_reported() {
        let (dir, ca) = (Dir::new(), Ca::new("ca"));
        let mut server = Server::start(server_files(&dir, &ca), |_| {});
        let mut http = server.connect();
        http.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        assert!(matches!(server.event(), TlsAcceptEvent::Refused { .. }));
        let mut answer = Vec::new();
        http.read_to_end(&mut answer).unwrap();
        assert_eq!(answer.first(), Some(&21), "an alert record");
        drop(server.connect());
        assert_eq!(server.event().label(), "tls_gone");
        let mut client = shake(&server, &ca, &TLS13);
        let mut link = server.next();
        echo(&mut link, &mut client);
    }

    #[test]
    fn a_reload_leaves_links_alone_and_serves_new_ones() {
        let (dir, old_ca, new_ca) = (Dir::new(), Ca::new("old"), Ca::new("new"));
        let mut server = Server::start(server_files(&dir, &old_ca), |_| {});
        let mut old_client = shake(&server, &old_ca, &TLS13);
        let mut old_link = server.next();
        server_files(&dir, &new_ca);
        server.tls.reload().unwrap();
        let mut new_client = shake(&server, &new_ca, &TLS13);
        let mut new_link = server.next();
        echo(&mut new_link, &mut new_client);
        echo(&mut old_link, &mut old_client);
    }

    #[test]
    fn a_taken_port_is_said_to_be_taken() {
        let first = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = first.local_addr().unwrap();
        let error = bind(address).unwrap_err();
        assert!(matches!(error, BindError::Taken { .. }));
        assert!(error.to_string().contains(&address.to_string()), "{error}");
        // 192.0.2.0/24 belongs to documents, and to no machine.
        assert!(matches!(bind("192.0.2.1:0".parse().unwrap()), Err(BindError::NotHere { .. })));
    }

    #[test]
    fn both_families_listen_on_one_port() {
        // Somebody else may hold the port in the other family; among several that is not so.
        let pair = (0..20).find_map(|_| {
            let six = bind("[::1]:0".parse().unwrap()).ok()?;
            let port = six.local_addr().unwrap().port();
            Some((six, bind(SocketAddr::from(([127, 0, 0, 1], port))).ok()?))
        });
        // A machine without IPv6 has nothing to show here.
        let Some((six, four)) = pair else { return };
        assert!(socket2::SockRef::from(&six).only_v6().unwrap());
        assert_eq!(four.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn accept_rests_only_when_the_machine_is_out_of_something() {
        let check = |kind: io::ErrorKind, rests: bool| {
            assert_eq!(accept_pause(&io::Error::from(kind)).is_some(), rests, "{kind:?}");
        };
        check(io::ErrorKind::ConnectionAborted, false);
        check(io::ErrorKind::Interrupted, false);
        check(io::ErrorKind::OutOfMemory, true);
        // EMFILE: no file descriptors left.
        assert!(accept_pause(&io::Error::from_raw_os_error(24)).is_some());
    }
}
