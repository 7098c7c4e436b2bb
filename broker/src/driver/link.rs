//! One connection's task: reads when it may, decodes in place, writes when the socket has room again.

use super::socket::Socket;
use super::{Driver, LINGER_MS, Wire};
use crate::link::{Layer, Received};
use parlor_core::native::{is_idempotent, is_idempotent_frame};
use parlor_core::{Hub, LinkId, Now};
use parlor_protocol::link::{self, Decoded, Up};
use parlor_protocol::mqtt::{Packet, Sender, Version, connect_version, decode, frame_len};
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;
use tokio::io::ReadBuf;

/// Bytes of a layer that may wait for a full socket before its peer is not read any more. Above what one step of
/// writing makes, so that a slow reader's acknowledgements still come in.
const WIRE_BYTES: usize = 256 * 1024;

/// What the tasks of the thread know of one connection. An idle one owns no buffer.
pub(super) struct Conn {
    pub(super) link: LinkId,
    pub(super) socket: RefCell<Socket>,
    layer: RefCell<Layer>,
    /// What is spoken.
    pub(super) wire: Wire,
    /// MQTT bytes that are not a whole packet yet, or that may not be handed in yet.
    partial: RefCell<Vec<u8>>,
    /// Bytes of the layer for the socket (not used without a layer).
    sealed: RefCell<Vec<u8>>,
    version: Cell<Version>,
    /// Largest packet the client was told it may send; a reload changes that for later clients.
    announced_max: Cell<Option<u32>>,
    /// The socket had no room; the task waits for it.
    blocked: Cell<bool>,
    /// What came next may only be handed in when the handshake is complete.
    held: Cell<bool>,
    /// The peer has said all it has to say on this stream.
    ended: Cell<bool>,
    /// The hub has ended it: what is left is written, then the socket is closed.
    closing: Cell<bool>,
    /// Everything was written and our side is shut; what the peer still sends is discarded.
    lingering: Cell<bool>,
    gone: Cell<bool>,
    /// Further streams of the QUIC connection are looked for.
    pub(super) has_streams: Cell<bool>,
    waker: RefCell<Option<Waker>>,
    /// Set if a returning QUIC client's first flight (0-RTT) brought it here.
    pub(super) early: Option<Rc<Early>>,
    pub(super) arrival: Arrival,
}

/// What the connection of a first flight waits for.
#[derive(Default)]
pub(super) struct Early {
    complete: Cell<bool>,
    waiting: RefCell<Vec<Weak<Conn>>>,
    told: tokio::sync::Notify,
}

impl Early {
    /// Whether it is complete.
    pub(super) fn is_complete(&self) -> bool {
        self.complete.get()
    }

    /// Ends when it is.
    pub(super) async fn wait(&self) {
        if !self.complete.get() {
            self.told.notified().await;
        }
    }

    /// The handshake is complete: the client is who it was, here and now, and everything may be taken from it.
    pub(super) fn complete(&self) {
        self.complete.set(true);
        self.told.notify_one();
        for conn in self.waiting.take() {
            if let Some(conn) = conn.upgrade() {
                conn.held.set(false);
                conn.wake();
            }
        }
    }
}

/// Where and when a connection came in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arrival {
    pub(crate) peer: SocketAddr,
    /// Number of the listener in the configuration.
    pub(crate) listener: u32,
    /// Milliseconds since 1970.
    pub(crate) since_ms: u64,
}

impl Conn {
    pub(super) fn new(
        link: LinkId,
        socket: Socket,
        layer: Layer,
        first: Vec<u8>,
        wire: Wire,
        arrival: Arrival,
    ) -> Self {
        Self {
            link,
            arrival,
            socket: RefCell::new(socket),
            layer: RefCell::new(layer),
            wire,
            early: None,
            partial: RefCell::new(first),
            sealed: RefCell::default(),
            version: Cell::new(Version::V311),
            announced_max: Cell::new(None),
            blocked: Cell::new(false),
            held: Cell::new(false),
            ended: Cell::new(false),
            closing: Cell::new(false),
            lingering: Cell::new(false),
            gone: Cell::new(false),
            has_streams: Cell::new(false),
            waker: RefCell::default(),
        }
    }

    /// One read. A read that does not fill the buffer is known to have emptied the socket, so the next one waits without
    /// asking the system.
    fn poll_read(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<std::io::Result<usize>> {
        let mut buffer = ReadBuf::new(buffer);
        ready!(self.socket.borrow_mut().poll_read(cx, &mut buffer))?;
        Poll::Ready(Ok(buffer.filled().len()))
    }

    /// Takes over what was agreed on the control stream.
    pub(super) fn follow(&self, control: &Self) {
        self.version.set(control.version.get());
        self.announced_max.set(control.announced_max.get());
    }

    /// Writes what there is room for now.
    fn try_write(&self, bytes: &[u8]) -> std::io::Result<usize> {
        let waker = self.waker.borrow();
        self.socket.borrow_mut().try_write(waker.as_ref().unwrap_or(Waker::noop()), bytes)
    }

    /// Whether the client may be acted for in full: not while all that is known of it could have been recorded and sent
    /// again by somebody else.
    fn is_early(self: &Rc<Self>) -> bool {
        let Some(early) = &self.early else { return false };
        if early.complete.get() {
            return false;
        }
        early.waiting.borrow_mut().push(Rc::downgrade(self));
        true
    }

    pub(super) fn wake(&self) {
        if let Some(waker) = self.waker.borrow().as_ref() {
            waker.wake_by_ref();
        }
    }

    /// Ends the task at its next turn.
    pub(super) fn cut(&self) {
        self.gone.set(true);
        self.socket.borrow().close(None);
        self.wake();
    }

    pub(super) fn close(&self) {
        self.closing.set(true);
        self.wake();
    }
}

/// Whether decoding goes on.
enum Fed {
    All,
    /// The hub wants no more for now, or the link is ending.
    Stopped,
}

impl Driver {
    /// Hands in every whole packet of `bytes`; says how many bytes that took.
    fn feed(&self, hub: &mut Hub, now: Now, conn: &Rc<Conn>, bytes: &[u8]) -> (usize, Fed) {
        let mut at = 0;
        conn.held.set(false);
        loop {
            if conn.closing.get() || !hub.may_read(conn.link) {
                return (at, Fed::Stopped);
            }
            // [MQTT5-3.2.2-15]
            let max = conn.announced_max.get().unwrap_or(self.packet_bytes_max.get());
            let decoded = decode(&bytes[at..], conn.version.get(), max);
            // Some packets, properties and reason codes are the server's alone.
            let decoded = decoded.and_then(|found| match &found {
                Some((packet, _)) => packet.check_sender(Sender::Client).map(|()| found),
                None => Ok(found),
            });
            match decoded {
                Ok(Some((packet, size))) => {
                    if conn.early.is_some() && !is_idempotent(&packet) && conn.is_early() {
                        conn.held.set(true);
                        return (at, Fed::Stopped);
                    }
                    if let Packet::Connect(connect) = &packet {
                        conn.version.set(connect.version);
                        conn.announced_max.set(Some(self.packet_bytes_max.get()));
                        tracing::debug!(peer = %conn.arrival.peer, client_id = connect.client_id, "CONNECT");
                    }
                    tracing::trace!(peer = %conn.arrival.peer, packet_type = bytes[at] >> 4, size, "packet");
                    hub.packet(now, conn.link, &packet, size);
                    at += size;
                }
                Ok(None) => return (at, Fed::All),
                Err(error) => {
                    hub.malformed(now, conn.link, &error, connect_version(&bytes[at..]));
                    conn.closing.set(true);
                    return (bytes.len(), Fed::Stopped);
                }
            }
        }
    }

    /// The same for frames of the native link.
    fn feed_frames(&self, hub: &mut Hub, now: Now, conn: &Rc<Conn>, bytes: &[u8]) -> (usize, Fed) {
        let mut at = 0;
        conn.held.set(false);
        loop {
            if conn.closing.get() || !hub.may_read(conn.link) {
                return (at, Fed::Stopped);
            }
            match link::decode_frame::<Up<'_>>(&bytes[at..], self.frame_max()) {
                Ok(Some((Decoded::Frame(frame), size))) => {
                    if conn.early.is_some() && !is_idempotent_frame(&frame) && conn.is_early() {
                        conn.held.set(true);
                        return (at, Fed::Stopped);
                    }
                    if let Up::Hello { terminal, .. } = &frame {
                        tracing::debug!(peer = %conn.arrival.peer, terminal, "Hello");
                    }
                    tracing::trace!(peer = %conn.arrival.peer, size, "frame");
                    hub.frame(now, conn.link, &frame, size);
                    at += size;
                }
                Ok(Some((Decoded::Unknown { tag, .. }, size))) => {
                    hub.unknown_frame(now, conn.link, tag, size);
                    at += size;
                }
                Ok(None) => return (at, Fed::All),
                Err(error) => {
                    hub.malformed_frame(now, conn.link, &error);
                    conn.closing.set(true);
                    return (bytes.len(), Fed::Stopped);
                }
            }
        }
    }

    /// Longest frame of the native link that is taken, bytes behind its length.
    pub(super) fn frame_max(&self) -> u16 {
        u16::try_from(self.packet_bytes_max.get()).unwrap_or(link::SIZE_MAX)
    }

    /// How many bytes the message lacks whose beginning this is.
    fn lacks(&self, conn: &Conn, partial: &[u8]) -> usize {
        let whole = match conn.wire {
            Wire::Mqtt => frame_len(partial).ok().flatten(),
            Wire::Native => link::frame_len(partial, self.frame_max()).ok().flatten(),
        };
        whole.map_or(1, |size| size.saturating_sub(partial.len()).max(1))
    }

    fn feed_either(&self, hub: &mut Hub, now: Now, conn: &Rc<Conn>, bytes: &[u8]) -> (usize, Fed) {
        match conn.wire {
            Wire::Mqtt => self.feed(hub, now, conn, bytes),
            Wire::Native => self.feed_frames(hub, now, conn, bytes),
        }
    }

    /// Hands in bytes of packets or frames, after those that were left over before.
    fn take_bytes(&self, conn: &Rc<Conn>, bytes: &[u8]) {
        let now = self.now();
        let mut hub = self.hub.borrow_mut();
        let mut partial = conn.partial.borrow_mut();
        let mut rest = bytes;
        // The packet that was begun is completed with as few bytes as it lacks; the others are read where they are.
        while !partial.is_empty() {
            let (used, fed) = self.feed_either(&mut hub, now, conn, &partial);
            if used == partial.len() {
                *partial = Vec::new();
            } else {
                partial.drain(..used);
            }
            if matches!(fed, Fed::Stopped) {
                if !conn.closing.get() {
                    partial.extend_from_slice(rest);
                }
                rest = &[];
            }
            if rest.is_empty() || partial.is_empty() {
                break;
            }
            let (more, left) = rest.split_at(self.lacks(conn, &partial).min(rest.len()));
            partial.extend_from_slice(more);
            rest = left;
        }
        if !rest.is_empty() {
            let (used, _) = self.feed_either(&mut hub, now, conn, rest);
            if used < rest.len() && !conn.closing.get() {
                partial.extend_from_slice(&rest[used..]);
            }
        }
        drop(hub);
        self.wake();
    }

    /// The layer is done: its last words are written, then the socket goes.
    fn leave(&self, conn: &Conn) {
        conn.close();
        self.retry.borrow_mut().push_back(conn.link);
        self.wake();
    }

    /// Bytes from the socket, through the layer if there is one.
    fn take_input(&self, conn: &Rc<Conn>, input: &[u8]) {
        let mut layer = conn.layer.borrow_mut();
        if layer.is_plain() {
            drop(layer);
            self.take_bytes(conn, input);
            return;
        }
        let mut plain = std::mem::take(&mut *self.plain.borrow_mut());
        plain.clear();
        let received = layer.receive(input, &mut plain, &mut conn.sealed.borrow_mut());
        drop(layer);
        if !plain.is_empty() {
            self.take_bytes(conn, &plain);
        }
        *self.plain.borrow_mut() = plain;
        if !conn.sealed.borrow().is_empty() {
            self.retry.borrow_mut().push_back(conn.link);
            self.wake();
        }
        match received {
            Ok(Received::Open) => {}
            Ok(Received::PeerClosed) => self.leave(conn),
            Err(error) => {
                self.layer_refused(error.label());
                tracing::debug!(%error, "connection ended by its TLS or WebSocket layer");
                self.leave(conn);
            }
        }
    }

    /// Writes what a link has to say until the socket has no more room.
    pub(super) fn flush(self: &Rc<Self>, link: LinkId) {
        let Some(conn) = self.conn(link) else { return };
        if conn.blocked.get() || conn.lingering.get() {
            return;
        }
        let done = if conn.layer.borrow().is_plain() { self.flush_plain(&conn) } else { self.flush_layer(&conn) };
        if let Some(connection) = conn.socket.borrow().carrier()
            && connection.mark()
        {
            self.unsent.borrow_mut().push(connection.clone());
        }
        match done {
            Ok(true) if conn.closing.get() => self.linger(&conn),
            Ok(true) => self.look_for_streams(&conn),
            Ok(false) => {
                conn.blocked.set(true);
                if conn.socket.borrow().is_waited_for() {
                    conn.wake();
                }
            }
            Err(()) => self.drop_conn(&conn),
        }
    }

    /// True when everything is written, false when the socket is full.
    fn flush_plain(&self, conn: &Conn) -> Result<bool, ()> {
        let mut hub = self.hub.borrow_mut();
        loop {
            let out = hub.output(conn.link);
            if out.is_empty() {
                return Ok(true);
            }
            let len = out.len();
            match conn.try_write(out) {
                Ok(n) => {
                    hub.wrote(self.now(), conn.link, n);
                    if n < len {
                        return Ok(false);
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(_) => return Err(()),
            }
        }
    }

    fn flush_layer(&self, conn: &Conn) -> Result<bool, ()> {
        let mut wire = conn.sealed.borrow_mut();
        loop {
            if wire.is_empty() {
                let mut hub = self.hub.borrow_mut();
                let out = hub.output(conn.link);
                if out.is_empty() {
                    *wire = Vec::new();
                    return Ok(true);
                }
                // A bounded step, so that a full output does not become a second full buffer.
                let len = out.len().min(64 * 1024);
                if conn.layer.borrow_mut().send(&out[..len], &mut wire).is_err() {
                    // The layer has ended before us: there is nobody to tell the rest.
                    return if conn.closing.get() { Ok(true) } else { Err(()) };
                }
                hub.wrote(self.now(), conn.link, len);
            }
            match conn.try_write(&wire) {
                Ok(n) if n == wire.len() => wire.clear(),
                Ok(n) => {
                    wire.drain(..n);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(_) => return Err(()),
            }
        }
    }

    /// All is said: shuts our side, and lets the peer read it before the socket goes.
    fn linger(&self, conn: &Rc<Conn>) {
        {
            let mut wire = vec![];
            conn.layer.borrow_mut().close(&mut wire);
            if !wire.is_empty() {
                let _ = conn.try_write(&wire);
            }
        }
        let farewell = self.hub.borrow().farewell(conn.link).map(|(reason, text)| (reason, text.into()));
        conn.socket.borrow_mut().finish(farewell);
        conn.lingering.set(true);
        self.forget(conn.link);
        conn.wake();
    }

    fn drop_conn(&self, conn: &Rc<Conn>) {
        conn.gone.set(true);
        conn.closing.set(true);
        let farewell = self.hub.borrow().farewell(conn.link).map(|(reason, text)| (reason, text.into()));
        conn.socket.borrow().close(farewell.as_ref());
        self.forget(conn.link);
        conn.wake();
    }
}

/// The task of one connection.
pub(super) struct Task {
    driver: Rc<Driver>,
    conn: Rc<Conn>,
    linger: Option<Pin<Box<tokio::time::Sleep>>>,
}

impl Task {
    pub(super) fn new(driver: Rc<Driver>, conn: Rc<Conn>) -> Self {
        driver.tasks.set(driver.tasks.get() + 1);
        Self { driver, conn, linger: None }
    }

    /// What is left to say is being written; a peer that does not read it is not waited for.
    fn poll_closing(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let sleep = self.linger.get_or_insert_with(|| Box::pin(tokio::time::sleep(Duration::from_millis(LINGER_MS))));
        ready!(sleep.as_mut().poll(cx));
        self.driver.drop_conn(&self.conn);
        Poll::Ready(())
    }

    /// After the end: discards what still comes, so that the peer reads our last words and not a reset.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let sleep = self.linger.get_or_insert_with(|| Box::pin(tokio::time::sleep(Duration::from_millis(LINGER_MS))));
        if sleep.as_mut().poll(cx).is_ready() {
            self.conn.socket.borrow().close(None);
            return Poll::Ready(());
        }
        if self.conn.socket.borrow().carrier().is_some() {
            ready!(self.conn.socket.borrow().poll_taken(cx));
            self.conn.socket.borrow().close(None);
            return Poll::Ready(());
        }
        let mut buffer = self.driver.buffer.borrow_mut();
        loop {
            match ready!(self.conn.poll_read(cx, &mut buffer)) {
                Ok(0) | Err(_) => return Poll::Ready(()),
                Ok(_) => {}
            }
        }
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.driver.tasks.set(self.driver.tasks.get() - 1);
    }
}

impl Future for Task {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let conn = Rc::clone(&self.conn);
        if conn.gone.get() {
            return Poll::Ready(());
        }
        if conn.lingering.get() {
            return self.poll_linger(cx);
        }
        let driver = Rc::clone(&self.driver);
        if !conn.waker.borrow().as_ref().is_some_and(|w| w.will_wake(cx.waker())) {
            *conn.waker.borrow_mut() = Some(cx.waker().clone());
        }
        if conn.blocked.get() && conn.socket.borrow().poll_write_ready(cx).is_ready() {
            conn.blocked.set(false);
            driver.retry.borrow_mut().push_back(conn.link);
            driver.wake();
        }
        // What was left over when the hub wanted no more.
        if !conn.held.get() && !conn.partial.borrow().is_empty() && driver.hub.borrow().may_read(conn.link) {
            driver.take_bytes(&conn, &[]);
        }
        if conn.closing.get() {
            return self.poll_closing(cx);
        }
        if conn.held.get() || conn.ended.get() || !driver.hub.borrow().may_read(conn.link) {
            return Poll::Pending;
        }
        if conn.blocked.get() && conn.sealed.borrow().len() > WIRE_BYTES {
            // It asks its layer for more than it reads (pings of WebSocket): what it says waits until it has read.
            return Poll::Pending;
        }
        let mut buffer = driver.buffer.borrow_mut();
        loop {
            match ready!(conn.poll_read(cx, &mut buffer)) {
                Ok(n) if n > 0 => {
                    driver.take_input(&conn, &buffer[..n]);
                    if conn.closing.get() || conn.held.get() || !driver.hub.borrow().may_read(conn.link) {
                        return Poll::Pending;
                    }
                    if n == buffer.len() {
                        // There may be more: take the next turn after the others had theirs.
                        cx.waker().wake_by_ref();
                        return Poll::Pending;
                    }
                }
                Ok(_) if conn.socket.borrow().is_further_stream() => {
                    drop(buffer);
                    conn.ended.set(true);
                    driver.hub.borrow_mut().hear_no_more(driver.now(), conn.link);
                    driver.wake();
                    return Poll::Pending;
                }
                _ => {
                    drop(buffer);
                    driver.drop_conn(&conn);
                    return Poll::Ready(());
                }
            }
        }
    }
}
