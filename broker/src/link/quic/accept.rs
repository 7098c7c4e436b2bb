//! The accept loop of a QUIC endpoint, and handshakes beside it.

use super::super::accept::{DONE, HEARD, Handshakes, NewConnection};
use super::super::tls_config::ReloadableTls;
use super::socket::NATIVE_ALPN;
use super::{ResetKey, endpoint_config, server_config};
use quinn::crypto::rustls::HandshakeData;
use quinn::{
    Connection, ConnectionError, Endpoint, Incoming, RecvStream, SendStream, ServerConfig, TokioRuntime, VarInt,
    ZeroRttAccepted,
};
use rustls::pki_types::CertificateDer;
use std::future::poll_fn;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::Poll;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout, timeout_at};

/// How long the end of a connection may take to reach its peer when the broker ends.
const GOODBYE: Duration = Duration::from_millis(500);

/// A QUIC connection with its first stream, ready for the hub's thread.
#[derive(Debug)]
pub struct NewQuic {
    /// The connection.
    pub connection: Connection,
    /// Our half of the first stream the client opened: the control stream.
    pub send: SendStream,
    /// Its half.
    pub recv: RecvStream,
    /// Set if the first flight of a returning client (0-RTT) brought the stream.
    pub early: Option<Early>,
    /// Whether frames of the native link are spoken, and not MQTT.
    pub native: bool,
    /// Where it came from.
    pub peer: SocketAddr,
    /// Number of the listener it came in by, as the caller of the listener counts them.
    pub listener: usize,
    /// The client certificate (DER) that TLS has verified.
    pub certificate: Option<Vec<u8>>,
}

/// A handshake that is not complete yet.
pub struct Early {
    complete: ZeroRttAccepted,
    deadline: Instant,
}

impl Early {
    /// Ends when the handshake is complete or has failed: true, or when it has taken too long: false.
    pub async fn complete(self) -> bool {
        timeout_at(self.deadline, self.complete).await.is_ok()
    }
}

impl std::fmt::Debug for Early {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Early")
    }
}

/// How a QUIC listener treats connections.
#[derive(Clone)]
pub struct QuicOptions {
    /// Number of the listener, for [`NewQuic::listener`].
    pub listener: usize,
    /// From a client's first packet to its control stream.
    pub connect_timeout: Duration,
    /// Handshakes at the same time. At the edge the oldest peer that stays silent loses its place; if nobody is silent the new
    /// one is refused.
    pub handshakes_max: usize,
    /// Handshakes at the same time above which a client must show first that it receives at its address (Retry).
    pub retry_above: usize,
    /// Streams one client may have open beside the control stream.
    pub streams_max: u64,
    /// Whether clients may show certificates: then nothing is taken from them before the handshake is complete.
    pub asks_certificate: bool,
    /// Told of everything that did not become a link. Called on the endpoint's thread; must not block.
    pub report: Arc<dyn Fn(QuicEvent) + Send + Sync>,
}

/// Something at a QUIC listener that did not become a link.
#[derive(Debug)]
pub enum QuicEvent {
    /// The handshake failed, or the connection ended before its first stream.
    Failed {
        /// Who.
        peer: SocketAddr,
        /// Why.
        error: ConnectionError,
    },
    /// The client named an application protocol that is not spoken here.
    WrongProtocol {
        /// Who.
        peer: SocketAddr,
    },
    /// It was not done in time.
    Late {
        /// Who.
        peer: SocketAddr,
    },
    /// All places for handshakes were taken, and this one had waited longest for its peer.
    Displaced {
        /// Who.
        peer: SocketAddr,
    },
    /// All places for handshakes were taken by peers that were not silent.
    Full {
        /// Who.
        peer: SocketAddr,
    },
    /// The client was asked to show that it receives at its address.
    Retried {
        /// Who.
        peer: SocketAddr,
    },
    /// The certificates that were loaded cannot be used for QUIC; those before stay in use.
    Unusable {
        /// Why.
        error: rustls::Error,
    },
}

impl QuicEvent {
    /// The label of the counter for this event.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Failed { error: ConnectionError::TimedOut | ConnectionError::Reset, .. } => "quic_gone",
            Self::Failed { error: ConnectionError::ApplicationClosed(_), .. } => "quic_closed",
            // Alerts of TLS (RFC 9001 s4.8).
            Self::Failed { error: ConnectionError::TransportError(e), .. }
                if (0x100..0x200).contains(&u64::from(e.code)) =>
            {
                "quic_tls"
            }
            Self::Failed { error: ConnectionError::ConnectionClosed(e), .. }
                if (0x100..0x200).contains(&u64::from(e.error_code)) =>
            {
                "quic_tls_alert"
            }
            Self::Failed { .. } => "quic_failed",
            Self::WrongProtocol { .. } => "quic_wrong_protocol",
            Self::Late { .. } => "quic_late",
            Self::Displaced { .. } => "quic_displaced",
            Self::Full { .. } => "quic_handshakes_max",
            Self::Retried { .. } => "quic_retry",
            Self::Unusable { .. } => "quic_unusable",
        }
    }
}

/// Accepts connections of one endpoint, lets their handshakes run beside each other, and hands them over. Returns when the
/// sender of `end` is gone and the peers have been told, or an error if the socket cannot be used.
pub async fn serve_quic(
    socket: UdpSocket,
    key: ResetKey,
    tls: ReloadableTls,
    options: watch::Receiver<QuicOptions>,
    out: mpsc::Sender<NewConnection>,
    mut end: watch::Receiver<()>,
) -> io::Result<()> {
    let mut current = tls.current();
    let first = options.borrow().clone();
    let config = server_config(current.clone(), first.streams_max).map_err(io::Error::other)?;
    let mut config = Arc::new(config);
    let mut streams_max = first.streams_max;
    let endpoint = Endpoint::new(endpoint_config(&key), Some((*config).clone()), socket, Arc::new(TokioRuntime))?;
    let mut handshakes = Handshakes::default();
    let mut ended = pin!(async move { while end.changed().await.is_ok() {} });
    loop {
        let incoming = {
            let mut accept = pin!(endpoint.accept());
            poll_fn(|context| {
                handshakes.collect(context);
                if ended.as_mut().poll(context).is_ready() {
                    return Poll::Ready(None);
                }
                accept.as_mut().poll(context)
            })
            .await
        };
        let Some(incoming) = incoming else { break };
        let now = options.borrow().clone();
        let latest = tls.current();
        if !Arc::ptr_eq(&latest, &current) || streams_max != now.streams_max {
            match server_config(latest.clone(), now.streams_max) {
                Ok(new) => {
                    config = Arc::new(new);
                    endpoint.set_server_config(Some((*config).clone()));
                }
                Err(error) => (now.report)(QuicEvent::Unusable { error }),
            }
            (current, streams_max) = (latest, now.streams_max);
        }
        admit(incoming, &mut handshakes, &config, now, &out);
    }
    endpoint.close(VarInt::from_u32(0), b"the server is shutting down");
    let _ = timeout(GOODBYE, endpoint.wait_idle()).await;
    Ok(())
}

/// Decides about one first packet.
fn admit(
    incoming: Incoming,
    handshakes: &mut Handshakes,
    config: &Arc<ServerConfig>,
    options: QuicOptions,
    out: &mpsc::Sender<NewConnection>,
) {
    let peer = incoming.remote_address();
    if handshakes.len() >= options.retry_above && !incoming.remote_address_validated() {
        // RFC 9000 s8.1.2
        (options.report)(QuicEvent::Retried { peer });
        if let Err(error) = incoming.retry() {
            error.into_incoming().refuse();
        }
        return;
    }
    if handshakes.len() >= options.handshakes_max.max(1) {
        match handshakes.displace() {
            Some(peer) => (options.report)(QuicEvent::Displaced { peer }),
            None => {
                (options.report)(QuicEvent::Full { peer });
                return incoming.refuse();
            }
        }
    }
    let (config, out) = (Arc::clone(config), out.clone());
    handshakes.begin(peer, move |since, stage| async move {
        let deadline = since + options.connect_timeout;
        let work = handshake(incoming, peer, config, deadline, &options, &stage, &out);
        let done = timeout_at(deadline, work).await;
        if let Err(event) = done.unwrap_or(Err(QuicEvent::Late { peer })) {
            (options.report)(event);
        }
    });
}

/// One connection from its first packet to hand-over.
async fn handshake(
    incoming: Incoming,
    peer: SocketAddr,
    config: Arc<ServerConfig>,
    deadline: Instant,
    options: &QuicOptions,
    stage: &AtomicU8,
    out: &mpsc::Sender<NewConnection>,
) -> Result<(), QuicEvent> {
    let failed = |error| QuicEvent::Failed { peer, error };
    let connecting = incoming.accept_with(config).map_err(failed)?;
    // A server can always go on before the handshake is complete.
    let Ok((connection, mut complete)) = connecting.into_0rtt() else {
        return Err(failed(ConnectionError::LocallyClosed));
    };
    let mut is_complete = false;
    let (send, recv) = loop {
        if is_complete || !options.asks_certificate {
            tokio::select! {
                _ = &mut complete, if !is_complete => {}
                stream = connection.accept_bi() => break stream.map_err(failed)?,
            }
        } else {
            let _ = (&mut complete).await;
        }
        is_complete = true;
        stage.store(HEARD, Ordering::Relaxed);
        if let Some(error) = connection.close_reason() {
            return Err(failed(error));
        }
    };
    stage.store(DONE, Ordering::Relaxed);
    let protocol = connection
        .handshake_data()
        .and_then(|data| data.downcast::<HandshakeData>().ok())
        .and_then(|data| data.protocol);
    let Some(protocol) = protocol else {
        connection.close(VarInt::from_u32(0), b"no application protocol was agreed on: offer mqtt or parlor/1");
        return Err(QuicEvent::WrongProtocol { peer });
    };
    let certificate = connection
        .peer_identity()
        .and_then(|identity| identity.downcast::<Vec<CertificateDer<'static>>>().ok())
        .and_then(|chain| chain.first().map(|first| first.as_ref().to_vec()));
    let place = out.reserve().await.map_err(|_| failed(ConnectionError::LocallyClosed))?;
    place.send(NewConnection::Quic(Box::new(NewQuic {
        native: protocol == NATIVE_ALPN.as_bytes(),
        early: (!is_complete && recv.is_0rtt()).then_some(Early { complete, deadline }),
        connection,
        send,
        recv,
        peer,
        listener: options.listener,
        certificate,
    })));
    Ok(())
}
