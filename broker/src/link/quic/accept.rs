//! Who gets in at a QUIC endpoint, and handshakes beside its loop.

use super::super::accept::{DONE, HEARD, Handshakes, NewConnection};
use super::super::tls_config::ReloadableTls;
use super::connection::{Connection, QuicStream};
use super::endpoint::Loop;
use super::{NATIVE_ALPN, ResetKey, endpoint_config, server_config};
use quinn_proto::{ConnectionError, ServerConfig, VarInt};
use std::future::{Future, poll_fn};
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout, timeout_at};

/// How long the end of a connection may take to reach its peer when the broker ends.
const GOODBYE: Duration = Duration::from_millis(500);

/// A QUIC connection with its first stream, ready for the hub's thread.
#[derive(Debug)]
pub struct NewQuic {
    /// The first stream the client opened: the control stream.
    pub control: QuicStream,
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
    connection: Connection,
    deadline: Instant,
}

impl Early {
    /// Ends when the handshake is complete or has failed: true, or when it has taken too long: false.
    pub async fn complete(self) -> bool {
        timeout_at(self.deadline, poll_fn(|cx| self.connection.poll_complete(cx))).await.is_ok()
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
    let door = Door::new(tls, options, out)?;
    let mut endpoint = Loop::new(socket, endpoint_config(&key), door)?;
    let mut ended = pin!(async move { while end.changed().await.is_ok() {} });
    let failed = poll_fn(|cx| {
        if ended.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Ok(()));
        }
        endpoint.poll(cx).map_ok(|never| match never {})
    })
    .await;
    failed?;
    endpoint.close();
    let told = poll_fn(|cx| {
        if endpoint.is_idle() {
            return Poll::Ready(Ok(()));
        }
        endpoint.poll(cx).map_ok(|never| match never {})
    });
    timeout(GOODBYE, told).await.unwrap_or(Ok(()))
}

/// What is to be done with a first packet.
pub(super) enum Verdict {
    /// Its handshake begins.
    Accept,
    /// Its sender must show first that it receives at its address.
    Retry,
    /// It is told that there is no place.
    Refuse,
}

/// Decides who gets in, and brings those who do to the hub's thread.
pub(super) struct Door {
    handshakes: Handshakes,
    tls: ReloadableTls,
    /// The certificates and the bound that `config` was made of.
    current: Arc<rustls::ServerConfig>,
    streams_max: u64,
    config: Arc<ServerConfig>,
    options: watch::Receiver<QuicOptions>,
    out: mpsc::Sender<NewConnection>,
}

impl Door {
    pub(super) fn new(
        tls: ReloadableTls,
        options: watch::Receiver<QuicOptions>,
        out: mpsc::Sender<NewConnection>,
    ) -> io::Result<Self> {
        let current = tls.current();
        let streams_max = options.borrow().streams_max;
        let config = Arc::new(server_config(current.clone(), streams_max).map_err(io::Error::other)?);
        Ok(Self { handshakes: Handshakes::default(), tls, current, streams_max, config, options, out })
    }

    /// What a handshake that begins now is held to.
    pub(super) fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config)
    }

    /// Follows certificates and options that have changed: what holds from now on, if it is something else.
    pub(super) fn renew(&mut self) -> Option<Arc<ServerConfig>> {
        let (latest, streams_max) = (self.tls.current(), self.options.borrow().streams_max);
        if Arc::ptr_eq(&latest, &self.current) && self.streams_max == streams_max {
            return None;
        }
        (self.current, self.streams_max) = (latest.clone(), streams_max);
        match server_config(latest, streams_max) {
            Ok(new) => {
                self.config = Arc::new(new);
                Some(self.config())
            }
            Err(error) => {
                self.report(QuicEvent::Unusable { error });
                None
            }
        }
    }

    /// Decides about one first packet.
    pub(super) fn judge(&mut self, peer: SocketAddr, is_validated: bool) -> Verdict {
        let (retry_above, handshakes_max) = {
            let options = self.options.borrow();
            (options.retry_above, options.handshakes_max)
        };
        if self.handshakes.len() >= retry_above && !is_validated {
            self.report(QuicEvent::Retried { peer });
            return Verdict::Retry;
        }
        if self.handshakes.len() >= handshakes_max.max(1) {
            match self.handshakes.displace() {
                Some(peer) => self.report(QuicEvent::Displaced { peer }),
                None => {
                    self.report(QuicEvent::Full { peer });
                    return Verdict::Refuse;
                }
            }
        }
        Verdict::Accept
    }

    /// Lets the handshake of `connection` run.
    pub(super) fn begin(&mut self, connection: Connection, peer: SocketAddr) {
        let (options, out) = (self.options.borrow().clone(), self.out.clone());
        self.handshakes.begin(peer, move |since, stage| async move {
            let deadline = since + options.connect_timeout;
            let work = handshake(connection, peer, deadline, &options, &stage, &out);
            let done = timeout_at(deadline, work).await;
            if let Err(event) = done.unwrap_or(Err(QuicEvent::Late { peer })) {
                (options.report)(event);
            }
        });
    }

    /// Its handshake could not even begin.
    pub(super) fn failed(&self, peer: SocketAddr, error: ConnectionError) {
        self.report(QuicEvent::Failed { peer, error });
    }

    /// Forgets the handshakes that have ended, and asks to be woken by the next.
    pub(super) fn collect(&mut self, cx: &mut Context<'_>) {
        self.handshakes.collect(cx);
    }

    fn report(&self, event: QuicEvent) {
        (self.options.borrow().report)(event);
    }
}

/// One connection from its first packet to hand-over.
async fn handshake(
    connection: Connection,
    peer: SocketAddr,
    deadline: Instant,
    options: &QuicOptions,
    stage: &AtomicU8,
    out: &mpsc::Sender<NewConnection>,
) -> Result<(), QuicEvent> {
    let failed = |error| QuicEvent::Failed { peer, error };
    let mut is_complete = false;
    let control = loop {
        let complete = poll_fn(|cx| connection.poll_complete(cx));
        if is_complete || !options.asks_certificate {
            tokio::select! {
                () = complete, if !is_complete => {}
                stream = poll_fn(|cx| connection.poll_accept(cx)) => break stream.map_err(failed)?,
            }
        } else {
            complete.await;
        }
        is_complete = true;
        stage.store(HEARD, Ordering::Relaxed);
        if let Some(error) = connection.close_reason() {
            return Err(failed(error));
        }
    };
    stage.store(DONE, Ordering::Relaxed);
    let Some(protocol) = connection.protocol() else {
        connection.close(VarInt::from_u32(0), b"no application protocol was agreed on: offer mqtt or parlor/1");
        return Err(QuicEvent::WrongProtocol { peer });
    };
    let certificate = connection.certificate();
    let place = out.reserve().await.map_err(|_| failed(ConnectionError::LocallyClosed))?;
    let is_early = !is_complete && control.is_early();
    place.send(NewConnection::Quic(Box::new(NewQuic {
        native: protocol == NATIVE_ALPN.as_bytes(),
        early: is_early.then_some(Early { connection, deadline }),
        control,
        peer,
        listener: options.listener,
        certificate,
    })));
    Ok(())
}
