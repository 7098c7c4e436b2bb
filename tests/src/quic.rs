//! A QUIC client for tests: every stream, datagram, path and close code within reach, behind blocking calls.
//!
//! quinn carries the bytes; MQTT on a stream is spoken by [`crate::raw::Client`], which shares nothing with the codec under
//! test: a stream is given out as an address of the loopback interface, and the first connection to it goes through.

use crate::ca::{Ca, Issued, der};
use crate::raw::PATIENCE;
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ConnectionError, RecvStream, SendStream, TransportConfig, VarInt, ZeroRttAccepted};
use rustls::RootCertStore;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;

/// The protocol name of MQTT over QUIC.
pub const MQTT: &[u8] = b"mqtt";
/// The protocol name of the native link.
pub const NATIVE: &[u8] = b"parlor/1";

/// Where the sockets of this module live.
fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
    })
}

/// Waits for something, within [`PATIENCE`].
#[track_caller]
fn wait<T>(what: &str, future: impl Future<Output = T>) -> T {
    within(PATIENCE, future).unwrap_or_else(|| panic!("{what} did not come within {PATIENCE:?}"))
}

/// Waits for something; nothing when it takes longer.
fn within<T>(patience: Duration, future: impl Future<Output = T>) -> Option<T> {
    runtime().block_on(async { tokio::time::timeout(patience, future).await.ok() })
}

/// Makes connections from one socket, and remembers what the broker gave it for the next one.
pub struct Dialer {
    endpoint: quinn::Endpoint,
    config: quinn::ClientConfig,
}

/// How a [`Dialer`] is made.
pub struct Dial<'a> {
    /// The authority to trust.
    pub ca: &'a Ca,
    /// A certificate of its own.
    pub own: Option<&'a Issued>,
    /// Protocol names it offers.
    pub alpn: &'a [&'a [u8]],
    /// QUIC's idle timeout: when a silent connection counts as dead.
    pub idle: Duration,
}

impl<'a> Dial<'a> {
    /// Offers one protocol, and has no certificate.
    pub fn new(ca: &'a Ca, alpn: &'a [&'a [u8]]) -> Self {
        Self { ca, own: None, alpn, idle: Duration::from_secs(30) }
    }

    /// With a certificate.
    #[must_use]
    pub fn own(self, own: &'a Issued) -> Self {
        Self { own: Some(own), ..self }
    }

    /// With another idle timeout.
    #[must_use]
    pub fn idle(self, idle: Duration) -> Self {
        Self { idle, ..self }
    }

    /// The dialer.
    pub fn ready(&self) -> Dialer {
        let mut roots = RootCertStore::empty();
        roots.add(der(&self.ca.certificate)).expect("a certificate");
        let builder = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("TLS 1.3 is there")
            .with_root_certificates(roots);
        let mut tls = match self.own {
            None => builder.with_no_client_auth(),
            Some(own) => {
                let key = PrivateKeyDer::from_pem_slice(own.key.as_bytes()).expect("a key");
                builder.with_client_auth_cert(vec![der(&own.certificate)], key).expect("a certificate with its key")
            }
        };
        tls.alpn_protocols = self.alpn.iter().map(|name| name.to_vec()).collect();
        tls.enable_early_data = true;
        let quic = QuicClientConfig::try_from(tls).expect("TLS 1.3 has the cipher that QUIC begins with");
        let mut config = quinn::ClientConfig::new(Arc::new(quic));
        let mut transport = TransportConfig::default();
        transport.max_idle_timeout(Some(self.idle.try_into().expect("a short time")));
        config.transport_config(Arc::new(transport));
        let _guard = runtime().enter();
        let endpoint = quinn::Endpoint::client((Ipv4Addr::LOCALHOST, 0).into()).expect("a free port");
        Dialer { endpoint, config }
    }
}

impl Dialer {
    /// A dialer for MQTT that trusts this authority.
    pub fn mqtt(ca: &Ca) -> Self {
        Dial::new(ca, &[MQTT]).ready()
    }

    /// A dialer for the native link.
    pub fn native(ca: &Ca) -> Self {
        Dial::new(ca, &[NATIVE]).ready()
    }

    fn begin(&self, to: SocketAddr) -> quinn::Connecting {
        let _guard = runtime().enter();
        self.endpoint.connect_with(self.config.clone(), to, "localhost").expect("a connection can be begun")
    }

    /// Connects; the handshake is complete.
    ///
    /// # Errors
    ///
    /// Why not.
    #[track_caller]
    pub fn try_dial(&self, to: SocketAddr) -> Result<Road, ConnectionError> {
        wait("the end of the handshake", self.begin(to)).map(Road::new)
    }

    /// Connects, and is let in by QUIC.
    #[track_caller]
    pub fn dial(&self, to: SocketAddr) -> Road {
        self.try_dial(to).unwrap_or_else(|why| panic!("no QUIC connection to {to}: {why}"))
    }

    /// Begins to connect, and looks no further.
    pub fn begin_only(&self, to: SocketAddr) -> Begun {
        Begun(self.begin(to))
    }

    /// Connects with what an earlier connection left, so that the first flight carries data already; nothing if the broker
    /// gave no ticket, or all are used.
    pub fn dial_early(&self, to: SocketAddr) -> Option<(Road, Early)> {
        let connecting = self.begin(to);
        let _guard = runtime().enter();
        let (connection, accepted) = connecting.into_0rtt().ok()?;
        Some((Road::new(connection), Early(accepted)))
    }

    /// Goes on from another port, and from this address of the loopback network.
    pub fn rebind(&self, from: Ipv4Addr) {
        let _guard = runtime().enter();
        let socket = UdpSocket::bind((from, 0)).expect("the loopback network has a free port");
        self.endpoint.rebind(socket).expect("the socket can be used");
    }

    /// The port it uses.
    pub fn port(&self) -> u16 {
        self.endpoint.local_addr().expect("it is bound").port()
    }
}

/// A handshake that is under way as long as this value lives.
pub struct Begun(#[allow(dead_code, reason = "it is kept, not used")] quinn::Connecting);

/// Whether the data of the first flight was taken.
pub struct Early(ZeroRttAccepted);

impl Early {
    /// Waits for the handshake: whether the broker took what came before it.
    pub fn accepted(self) -> bool {
        wait("the end of the handshake", self.0)
    }
}

/// A QUIC connection.
#[derive(Clone)]
pub struct Road {
    connection: quinn::Connection,
}

impl Road {
    fn new(connection: quinn::Connection) -> Self {
        Self { connection }
    }

    /// What quinn has, for tests that need more.
    pub fn quinn(&self) -> &quinn::Connection {
        &self.connection
    }

    /// The protocol that was agreed on.
    pub fn alpn(&self) -> Vec<u8> {
        let data = self.connection.handshake_data().expect("the handshake is over");
        let data = data.downcast::<quinn::crypto::rustls::HandshakeData>().expect("rustls was below");
        data.protocol.expect("a protocol was agreed on")
    }

    /// The certificate the broker showed.
    pub fn server(&self) -> Vec<u8> {
        let seen = self.connection.peer_identity().expect("the handshake is over");
        let seen = seen.downcast::<Vec<rustls::pki_types::CertificateDer<'static>>>().expect("rustls was below");
        seen.first().expect("a server has a certificate").to_vec()
    }

    /// Opens the next bidirectional stream, to be spoken on in MQTT.
    #[track_caller]
    pub fn open(&self) -> Stream {
        Stream::new(self.raw())
    }

    /// Opens the next bidirectional stream.
    #[track_caller]
    pub fn raw(&self) -> Raw {
        self.try_raw(PATIENCE).expect("the broker allows a stream more")
    }

    /// Opens a stream if the broker allows it within this time.
    pub fn try_raw(&self, patience: Duration) -> Option<Raw> {
        let (send, recv) = within(patience, self.connection.open_bi())?.ok()?;
        Some(Raw { send, recv })
    }

    /// Opens a unidirectional stream if the broker allows it within this time.
    pub fn try_uni(&self, patience: Duration) -> Option<SendStream> {
        within(patience, self.connection.open_uni())?.ok()
    }

    /// Sends a datagram; whether it could be.
    pub fn datagram(&self, bytes: &[u8]) -> bool {
        let _guard = runtime().enter();
        self.connection.send_datagram(bytes.to_vec().into()).is_ok()
    }

    /// The next datagram.
    #[track_caller]
    pub fn read_datagram(&self) -> Vec<u8> {
        wait("a datagram", self.connection.read_datagram()).expect("the connection lives").to_vec()
    }

    /// A datagram, if one comes within this time.
    pub fn try_datagram(&self, patience: Duration) -> Option<Vec<u8>> {
        Some(within(patience, self.connection.read_datagram())?.ok()?.to_vec())
    }

    /// Waits until the connection is over: why.
    #[track_caller]
    pub fn closed(&self) -> ConnectionError {
        wait("the end of the connection", self.connection.closed())
    }

    /// Waits until the broker has closed it: the application's code and reason.
    #[track_caller]
    pub fn dismissed(&self) -> (u64, String) {
        match self.closed() {
            ConnectionError::ApplicationClosed(close) => {
                (close.error_code.into_inner(), String::from_utf8_lossy(&close.reason).into_owned())
            }
            other => panic!("the broker should have closed with a code, but {other}"),
        }
    }

    /// Why it is over, if it is.
    pub fn close_reason(&self) -> Option<ConnectionError> {
        self.connection.close_reason()
    }

    /// Closes it with a code and a reason.
    pub fn close(&self, code: u32, reason: &str) {
        self.connection.close(VarInt::from_u32(code), reason.as_bytes());
    }

    /// Takes new keys.
    pub fn update_keys(&self) {
        self.connection.force_key_update();
    }
}

/// A bidirectional stream, as bytes.
pub struct Raw {
    send: SendStream,
    recv: RecvStream,
}

impl Raw {
    /// Number of the stream among those the client opened.
    pub fn index(&self) -> u64 {
        self.send.id().index()
    }

    /// Sends bytes; false when the stream or the connection is over.
    #[track_caller]
    pub fn send(&mut self, bytes: &[u8]) -> bool {
        wait("room on a stream", self.send.write_all(bytes)).is_ok()
    }

    /// Sends as much as the broker has room for within this time: how much that was.
    pub fn send_some(&mut self, bytes: &[u8], patience: Duration) -> usize {
        within(patience, self.send.write(bytes)).and_then(Result::ok).unwrap_or(0)
    }

    /// Says that no more comes.
    pub fn finish(&mut self) {
        // A stream that is over is what is wanted.
        let _ = self.send.finish();
    }

    /// Gives the stream up.
    pub fn reset(&mut self, code: u32) {
        let _ = self.send.reset(VarInt::from_u32(code));
    }

    /// Says that nothing is read any more.
    pub fn stop(&mut self, code: u32) {
        let _ = self.recv.stop(VarInt::from_u32(code));
    }

    /// Exactly so many bytes; nothing when the stream ends before.
    #[track_caller]
    pub fn exactly(&mut self, count: usize) -> Option<Vec<u8>> {
        let mut bytes = vec![0; count];
        wait("bytes of a stream", self.recv.read_exact(&mut bytes)).ok().map(|()| bytes)
    }

    /// What comes next within this time; empty at the end of the stream, nothing when nothing comes or it was given up.
    pub fn next(&mut self, patience: Duration) -> Option<Vec<u8>> {
        let mut bytes = vec![0; 64 * 1024];
        let count = within(patience, self.recv.read(&mut bytes))?.ok()?.unwrap_or(0);
        bytes.truncate(count);
        Some(bytes)
    }

    /// Everything until the stream ends or the connection does.
    #[track_caller]
    pub fn rest(&mut self) -> Vec<u8> {
        let mut all = vec![];
        wait("the end of a stream", async {
            let mut bytes = vec![0; 64 * 1024];
            while let Ok(Some(count)) = self.recv.read(&mut bytes).await {
                all.extend_from_slice(&bytes[..count]);
            }
        });
        all
    }
}

/// A stream that the raw MQTT client goes through: the first connection to its address.
pub struct Stream {
    at: SocketAddr,
}

impl From<&Stream> for SocketAddr {
    fn from(stream: &Stream) -> Self {
        stream.at
    }
}

impl Stream {
    fn new(raw: Raw) -> Self {
        let listener = wait("a port", TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).expect("a free port");
        let at = listener.local_addr().expect("it is bound");
        runtime().spawn(async move {
            if let Ok((local, _)) = listener.accept().await {
                carry(local, raw).await;
            }
        });
        Self { at }
    }
}

/// Joins a local connection and a stream until both directions have ended.
async fn carry(local: TcpStream, Raw { mut send, mut recv }: Raw) {
    // Each piece goes at once, whatever the other side does with it.
    let _ = local.set_nodelay(true);
    let (mut from, mut to) = local.into_split();
    let up = async {
        let mut bytes = vec![0; 64 * 1024];
        while let Ok(count @ 1..) = from.read(&mut bytes).await {
            if send.write_all(&bytes[..count]).await.is_err() {
                return;
            }
        }
        let _ = send.finish();
    };
    let down = async {
        let mut bytes = vec![0; 64 * 1024];
        while let Ok(Some(count)) = recv.read(&mut bytes).await {
            if to.write_all(&bytes[..count]).await.is_err() {
                break;
            }
        }
        let _ = to.shutdown().await;
    };
    tokio::join!(up, down);
}
