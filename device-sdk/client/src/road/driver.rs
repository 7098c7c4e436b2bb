//! Carries a codec's bytes over whatever can be read and written, until one side has had enough.

use super::{Down, End, Up};
use crate::model::up::Publish;
use quinn::{Connection, Endpoint, ZeroRttAccepted};
use std::collections::VecDeque;
use std::future::pending;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::pin::pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep_until};

/// Publishes without an answer at a time.
pub(super) const WINDOW: usize = 64;
/// Bytes that wait for the socket; at the edge nothing more is taken from the engine.
const OUT_BYTES_MAX: usize = 256 * 1024;
/// Bytes read at a time.
const READ_BYTES: usize = 16 * 1024;
/// What waits for the engine beside its channel; at the edge nothing more is read.
const DOWNS_MAX: usize = 64;
/// How long a ping may go unanswered before another local address is tried.
const HEAL: Duration = Duration::from_secs(3);
/// How long the other side may take to see that one has left.
const FAREWELL: Duration = Duration::from_secs(1);

/// What a codec wants to be sent.
#[derive(Debug, Default)]
pub(super) struct Out {
    /// On the stream, in order.
    pub bytes: Vec<u8>,
    /// Beside it, where the road has datagrams.
    pub datagrams: Vec<Vec<u8>>,
    /// For the engine: what can be answered without the broker.
    pub downs: Vec<Down>,
}

/// One way to write what goes up and to read what comes down. A codec does nothing by itself and knows no time.
pub(super) trait Codec: Send {
    /// Forgets a connection and greets on another one.
    fn hello(&mut self, out: &mut Out);

    /// Writes one thing.
    fn up(&mut self, up: Up, out: &mut Out);

    /// Reads what is complete at the front of `bytes` and takes it away.
    fn feed(&mut self, bytes: &mut Vec<u8>, out: &mut Out, downs: &mut VecDeque<Down>) -> Result<(), End>;

    /// Reads a datagram; one that cannot be read is as good as lost.
    fn datagram(&mut self, bytes: &[u8], downs: &mut VecDeque<Down>);

    /// The keep alive that the other side demands, once it has said so.
    fn keep_alive(&self) -> Option<Duration>;

    /// Asks whether the other side is there.
    fn ping(&mut self, out: &mut Out);
}

/// The QUIC connection a stream belongs to.
#[derive(Clone)]
pub(super) struct Side {
    pub endpoint: Endpoint,
    pub connection: Connection,
}

/// While the handshake is not complete: resolves to whether what was sent so far was accepted.
pub(super) type Early = Option<ZeroRttAccepted>;

/// Why a drive is over.
pub(super) enum Over {
    /// The engine has left, or was told to.
    Left,
    Ended(End),
    /// What was sent early was not accepted: it has to be sent again, on another stream of the same connection.
    Again(Vec<Publish>),
}

/// The engine's side.
pub(super) struct Engine {
    pub ups: mpsc::Receiver<Up>,
    pub down: mpsc::Sender<Down>,
    pub keep_alive: Duration,
}

/// What waits to be written.
#[derive(Default)]
struct Outbound {
    bytes: Mutex<(Vec<u8>, bool)>,
    ready: Notify,
}

impl Outbound {
    fn lock(&self) -> MutexGuard<'_, (Vec<u8>, bool)> {
        // Nothing is left half done under this lock.
        self.bytes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, out: &mut Out) {
        self.lock().0.append(&mut out.bytes);
        self.ready.notify_one();
    }

    fn finish(&self) {
        self.lock().1 = true;
        self.ready.notify_one();
    }

    /// Writes until something fails; after the last byte the stream is finished.
    async fn write(&self, mut writer: impl AsyncWrite + Unpin) -> std::io::Error {
        loop {
            let (bytes, is_last) = std::mem::take(&mut *self.lock());
            self.lock().1 = is_last;
            let written = async {
                if bytes.is_empty() && is_last {
                    writer.shutdown().await?;
                    pending::<()>().await;
                }
                writer.write_all(&bytes).await?;
                writer.flush().await
            };
            if let Err(error) = written.await {
                return error;
            }
            if self.lock().0.is_empty() && !self.lock().1 {
                self.ready.notified().await;
            }
        }
    }
}

/// When what is due.
struct Clock {
    keep_alive: Duration,
    sent: Instant,
    heard: Instant,
    pinged: Instant,
    healed: bool,
}

/// What is due.
enum Due {
    Ping,
    Heal,
    Dead,
}

impl Clock {
    fn new(keep_alive: Duration) -> Self {
        let now = Instant::now();
        Self { keep_alive, sent: now, heard: now, pinged: now, healed: false }
    }

    fn next(&self, can_heal: bool) -> (Instant, Due) {
        let dead = (self.heard + self.keep_alive * 3 / 2, Due::Dead);
        let ping = (self.sent.min(self.heard).max(self.pinged) + self.keep_alive * 3 / 4, Due::Ping);
        let heal = (self.pinged + HEAL, Due::Heal);
        let mut next = if ping.0 < dead.0 { ping } else { dead };
        if can_heal && !self.healed && self.pinged > self.heard && heal.0 < next.0 {
            next = heal;
        }
        next
    }
}

/// Drives a codec that has not greeted yet. `again` goes out right behind the greeting.
pub(super) async fn drive(
    codec: &mut dyn Codec,
    mut reader: impl AsyncRead + Unpin,
    writer: impl AsyncWrite + Unpin,
    (side, early): (Option<&Side>, &mut Early),
    again: Vec<Publish>,
    engine: &mut Engine,
) -> Over {
    let (mut out, mut downs, mut inbox) = (Out::default(), VecDeque::new(), Vec::new());
    let mut chunk = vec![0; READ_BYTES];
    let mut sent_early = Vec::new();
    let outbound = Outbound::default();
    let mut write = pin!(outbound.write(writer));
    let mut clock = Clock::new(engine.keep_alive);
    codec.hello(&mut out);
    for publish in again {
        codec.up(Up::Publish(publish), &mut out);
    }
    if early.is_some() {
        downs.push_back(Down::Early);
    }
    let mut leaves: Option<Instant> = None;
    loop {
        if !out.bytes.is_empty() {
            outbound.put(&mut out);
            clock.sent = Instant::now();
        }
        for datagram in out.datagrams.drain(..) {
            if let Some(side) = side {
                // A datagram that finds no way is as good as lost.
                let _ = side.connection.send_datagram(datagram.into());
            }
        }
        downs.extend(out.downs.drain(..));
        let can_take = leaves.is_none() && outbound.lock().0.len() < OUT_BYTES_MAX;
        let (due, what) = clock.next(side.is_some());
        let failed = tokio::select! {
            error = &mut write => Some(error.to_string()),
            up = engine.ups.recv(), if can_take => {
                match up {
                    None => return Over::Left,
                    Some(Up::Rebind) => rebind(side),
                    Some(Up::Close) => {
                        codec.up(Up::Close, &mut out);
                        outbound.put(&mut out);
                        outbound.finish();
                        leaves = Some(Instant::now() + FAREWELL);
                    }
                    Some(up) => {
                        if let (Up::Publish(publish), true) = (&up, early.is_some()) {
                            sent_early.push(publish.clone());
                        }
                        codec.up(up, &mut out);
                    }
                }
                None
            }
            read = reader.read(&mut chunk), if downs.len() < DOWNS_MAX => match read {
                Ok(0) => Some("the broker ended the connection".to_owned()),
                Ok(read) => {
                    clock.heard = Instant::now();
                    clock.healed = false;
                    inbox.extend_from_slice(chunk.get(..read).unwrap_or_default());
                    let fed = codec.feed(&mut inbox, &mut out, &mut downs);
                    clock.keep_alive = codec.keep_alive().unwrap_or(clock.keep_alive);
                    if let Err(end) = fed {
                        // What came before the end is told before it.
                        for down in downs.drain(..) {
                            let _ = engine.down.send(down).await;
                        }
                        return if leaves.is_some() { Over::Left } else { Over::Ended(end) };
                    }
                    None
                }
                Err(error) => Some(error.to_string()),
            },
            permit = engine.down.reserve(), if !downs.is_empty() => {
                match (permit, downs.pop_front()) {
                    (Ok(permit), Some(down)) => permit.send(down),
                    _ if leaves.is_none() => return Over::Left,
                    _ => {}
                }
                None
            }
            datagram = next_datagram(side), if downs.len() < DOWNS_MAX => {
                codec.datagram(&datagram, &mut downs);
                None
            }
            accepted = handshake(early) => {
                *early = None;
                if !accepted {
                    return Over::Again(sent_early);
                }
                sent_early.clear();
                None
            }
            () = sleep_until(due) => {
                match what {
                    Due::Ping => {
                        clock.pinged = Instant::now();
                        codec.ping(&mut out);
                    }
                    Due::Heal => {
                        clock.healed = true;
                        rebind(side);
                    }
                    Due::Dead => return Over::Ended(End::Lost("the broker does not answer any more".to_owned())),
                }
                None
            }
            () = at(leaves) => return Over::Left,
        };
        let Some(why) = failed else { continue };
        if leaves.is_some() {
            return Over::Left;
        }
        // Streams of an early beginning that was not accepted fail before that is known.
        if early.is_some() && !handshake(early).await {
            *early = None;
            return Over::Again(sent_early);
        }
        return Over::Ended(End::Lost(match side.and_then(|side| side.connection.close_reason()) {
            Some(reason) => reason.to_string(),
            None => why,
        }));
    }
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => pending().await,
    }
}

async fn next_datagram(side: Option<&Side>) -> Vec<u8> {
    match side {
        Some(side) => match side.connection.read_datagram().await {
            Ok(bytes) => bytes.to_vec(),
            // The stream says why.
            Err(_) => pending().await,
        },
        None => pending().await,
    }
}

/// Waits for the handshake of a connection that began early.
async fn handshake(early: &mut Early) -> bool {
    match early {
        Some(accepted) => accepted.await,
        None => pending().await,
    }
}

/// A socket for a connection to `remote`.
pub(super) fn socket_for(remote: SocketAddr) -> std::io::Result<UdpSocket> {
    let any: SocketAddr = match remote {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    UdpSocket::bind(any)
}

/// Goes on from another local port; the broker sees the connection migrate.
fn rebind(side: Option<&Side>) {
    let Some(side) = side else { return };
    // Without another socket the old one has to do.
    if let Ok(socket) = socket_for(side.connection.remote_address()) {
        let _ = side.endpoint.rebind(socket);
    }
}
