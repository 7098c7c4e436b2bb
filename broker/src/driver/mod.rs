//! The only loop: it owns sockets and clock, and takes bytes to the hub and back.
//!
//! Everything here runs on one thread. A link's task reads into one buffer that all links share, decodes packets in
//! place and calls the hub directly. Whatever the hub wants written or done is dealt with by the *heart*, a task that is
//! woken once for any number of reads: it performs effects, hands the batch to the store, and writes each link once.

mod heart;
mod link;
mod quic;
mod socket;

pub(crate) use heart::{Heart, Signal};

use crate::auth::Authenticator;
use crate::link::{Layer, NewLink, QuicConnection};
pub(crate) use link::Arrival;
use link::Conn;
use parlor_core::store::Store;
use parlor_core::{Hub, LinkId, Now, Peer, Reply, Tally};
use socket::Socket;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Bytes one read takes at most.
const READ_BYTES: usize = 64 * 1024;
/// How long a closing link may take to read its last bytes, and we to discard what it still sends.
const LINGER_MS: u64 = 1_000;

/// What is spoken on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wire {
    /// MQTT packets.
    Mqtt,
    /// Frames of the native link.
    Native,
}

impl Wire {
    /// By whether it is the native link.
    pub(crate) fn of(native: bool) -> Self {
        if native { Self::Native } else { Self::Mqtt }
    }
}

/// What the driver does for the rest of the program when something of note happens.
pub(crate) trait Outside {
    /// The operator's change with this number is on disk.
    fn stored(&mut self, token: u64);
    /// What messaging was asked to do with this number is done, or refused.
    fn replied(&mut self, token: u64, reply: Reply);
    /// A paired device has become an account; its record is on disk.
    fn account_made(&mut self, name: &str, record: &[u8]);
    /// The disk is nearly full, or has room again.
    fn low_space(&mut self, low: bool);
    /// The store has failed; nothing more can be promised.
    fn failed(&mut self, why: &str);
}

/// The driver's state; shared by the tasks of its thread.
pub(crate) struct Driver {
    pub(crate) hub: RefCell<Hub>,
    pub(crate) store: RefCell<Box<dyn Store>>,
    pub(crate) outside: RefCell<Box<dyn Outside>>,
    pub(crate) authenticator: Arc<Authenticator>,
    conns: RefCell<Vec<Option<Rc<Conn>>>>,
    buffer: RefCell<Box<[u8]>>,
    plain: RefCell<Vec<u8>>,
    /// Links with bytes the socket had no room for before and has now, or that wait for their end.
    retry: RefCell<VecDeque<LinkId>>,
    /// QUIC connections on which something was written in this turn, and room for their packets.
    unsent: RefCell<Vec<QuicConnection>>,
    packets: RefCell<Vec<u8>>,
    pub(crate) signal: Arc<Signal>,
    start: Instant,
    packet_bytes_max: Cell<u32>,
    outstanding: Cell<u64>,
    store_failed: Cell<bool>,
    /// Tasks of connections that still run, lingering ones included.
    tasks: Cell<usize>,
    layers: RefCell<Tally>,
}

impl Driver {
    pub(crate) fn new(
        hub: Hub,
        store: Box<dyn Store>,
        outside: Box<dyn Outside>,
        authenticator: Arc<Authenticator>,
        signal: Arc<Signal>,
        clock: Instant,
        packet_bytes_max: u32,
    ) -> Rc<Self> {
        Rc::new(Self {
            hub: RefCell::new(hub),
            store: RefCell::new(store),
            outside: RefCell::new(outside),
            authenticator,
            conns: RefCell::default(),
            buffer: RefCell::new(vec![0; READ_BYTES].into()),
            plain: RefCell::default(),
            retry: RefCell::default(),
            unsent: RefCell::default(),
            packets: RefCell::default(),
            signal,
            start: clock,
            packet_bytes_max: Cell::new(packet_bytes_max),
            outstanding: Cell::new(0),
            store_failed: Cell::new(false),
            tasks: Cell::new(0),
            layers: RefCell::default(),
        })
    }

    /// The time since `start` and since 1970.
    pub(crate) fn now(&self) -> Now {
        now(self.start)
    }

    pub(crate) fn set_packet_bytes_max(&self, bytes: u32) {
        self.packet_bytes_max.set(bytes);
    }

    /// Makes the heart beat in this turn.
    pub(crate) fn wake(&self) {
        self.signal.wake();
    }

    /// Takes a connection in: its task runs until it is closed.
    pub(crate) fn admit(self: &Rc<Self>, new: NewLink, wire: Wire, certificate: Option<String>, allow_anonymous: bool) {
        let listener = u32::try_from(new.listener).unwrap_or(u32::MAX);
        let stream = match tokio::net::TcpStream::from_std(new.stream) {
            Ok(stream) => stream,
            Err(error) => return tracing::warn!(%error, "a connection could not be registered and was closed"),
        };
        self.admit_stream(stream, new.peer, listener, new.layer, new.early, wire, certificate, allow_anonymous);
    }

    /// Takes a connection in that was accepted on this thread.
    #[allow(clippy::too_many_arguments)]
    pub(crate) fn admit_stream(
        self: &Rc<Self>,
        stream: tokio::net::TcpStream,
        peer: std::net::SocketAddr,
        listener: u32,
        layer: Layer,
        early: Vec<u8>,
        wire: Wire,
        certificate: Option<String>,
        allow_anonymous: bool,
    ) {
        // Without this, small packets wait for the acknowledgement of earlier ones.
        let _ = stream.set_nodelay(true);
        // A host that vanished under a client without keep alive is noticed in the end.
        let _ = socket2::SockRef::from(&stream).set_keepalive(true);
        let now = self.now();
        let arrival = Arrival { peer, listener, since_ms: now.wall_ms };
        let peer =
            Peer { address: peer.ip().to_canonical(), allow_anonymous, certificate, native: wire == Wire::Native };
        let Some(link) = self.hub.borrow_mut().open(now, &peer) else { return };
        self.run(Rc::new(Conn::new(link, Socket::Tcp(stream), layer, early, wire, arrival)));
    }

    /// Lets the task of a connection run until it is closed.
    fn run(self: &Rc<Self>, conn: Rc<Conn>) {
        let slot = conn.link.slot as usize;
        let mut conns = self.conns.borrow_mut();
        if conns.len() <= slot {
            conns.resize_with(slot + 1, || None);
        }
        conns[slot] = Some(Rc::clone(&conn));
        drop(conns);
        self.wake();
        tokio::task::spawn_local(link::Task::new(Rc::clone(self), conn));
    }

    fn conn(&self, link: LinkId) -> Option<Rc<Conn>> {
        let conns = self.conns.borrow();
        conns.get(link.slot as usize)?.as_ref().filter(|c| c.link == link).map(Rc::clone)
    }

    /// Forgets a connection; its task ends at its next turn.
    fn forget(&self, link: LinkId) {
        if let Some(place) = self.conns.borrow_mut().get_mut(link.slot as usize)
            && place.as_ref().is_some_and(|c| c.link == link)
            && let Some(conn) = place.take()
        {
            tracing::debug!(peer = %conn.arrival.peer, "connection ended");
        }
        self.hub.borrow_mut().closed(self.now(), link);
        self.wake();
    }

    /// How many connections are not quite gone.
    pub(crate) fn tasks(&self) -> usize {
        self.tasks.get()
    }

    /// Where and when a connection came in.
    pub(crate) fn arrival(&self, link: LinkId) -> Option<Arrival> {
        let conn = self.conn(link)?;
        // A QUIC client may have moved since.
        let peer = conn.socket.borrow().connection().map(QuicConnection::remote_address);
        Some(Arrival { peer: peer.unwrap_or(conn.arrival.peer), ..conn.arrival })
    }

    /// Connections by listener.
    pub(crate) fn connections_of(&self, listener: usize) -> usize {
        self.conns.borrow().iter().flatten().filter(|c| c.arrival.listener as usize == listener).count()
    }

    /// Cuts every connection that is left, so that the tasks end and let go of the driver.
    pub(crate) fn end(&self) {
        for conn in self.conns.borrow_mut().drain(..).flatten() {
            conn.cut();
        }
    }

    fn layer_refused(&self, label: &'static str) {
        self.layers.borrow_mut().add(label);
    }

    /// Connections ended by their TLS or WebSocket layer, by reason.
    pub(crate) fn layers(&self) -> Tally {
        self.layers.borrow().clone()
    }
}

/// The time on both clocks.
pub(crate) fn now(start: Instant) -> Now {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let millis = |d: std::time::Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
    Now { ms: millis(start.elapsed()), wall_ms: millis(wall) }
}
