//! One QUIC connection, shared by the thread that receives packets and the one that reads and writes streams.
//!
//! The state machine is `quinn-proto`'s. Whichever thread has changed it makes the packets that follow from that and sends
//! them, so that an answer costs no second thread its sleep; what concerns the endpoint or a timer goes to the endpoint's
//! thread by its mailbox.

use super::udp::{Road, Udp};
use quinn_proto::crypto::rustls::HandshakeData;
use quinn_proto::{
    Connection as Quic, ConnectionError, ConnectionEvent, Dir, Event, FinishError, ReadError, ReadableError,
    StreamEvent, StreamId, VarInt, WriteError,
};
use rustls::pki_types::CertificateDer;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Instant;
use tokio::io::ReadBuf;

/// Datagrams of one connection that are made before others have their turn.
const DATAGRAMS_A_TURN: usize = 20;

/// A connection as the endpoint knows it.
pub(super) struct Shared {
    state: Mutex<State>,
    /// Its number at the endpoint.
    number: usize,
    road: Arc<Road>,
    /// Somebody has noted that it has packets to send.
    marked: AtomicBool,
}

/// What its lock guards.
pub(super) struct State {
    quic: Quic,
    /// Why it has ended.
    error: Option<ConnectionError>,
    is_connected: bool,
    /// When the endpoint's timers look at it next.
    pub(super) armed: Option<Instant>,
    /// Who waits for a stream, a datagram, and the end of the handshake.
    stream: Option<Waker>,
    datagram: Option<Waker>,
    complete: Option<Waker>,
    streams: Vec<Waiting>,
}

/// Who waits for something at one stream.
struct Waiting {
    id: StreamId,
    /// For bytes.
    bytes: Option<Waker>,
    /// For room to write.
    room: Option<Waker>,
    /// For the peer to have taken everything.
    taken: Option<Waker>,
}

impl Shared {
    pub(super) fn new(quic: Quic, number: usize, road: Arc<Road>) -> Arc<Self> {
        let state = State {
            quic,
            error: None,
            is_connected: false,
            armed: None,
            stream: None,
            datagram: None,
            complete: None,
            streams: Vec::new(),
        };
        Arc::new(Self { state: Mutex::new(state), number, road, marked: AtomicBool::new(false) })
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the endpoint that there is something to do.
    fn post(&self) {
        self.road.mail.post(self.number);
    }

    /// Ends it from this side (RFC 9000 s10.2); the peer is told.
    pub(super) fn close(&self, code: VarInt, reason: &[u8]) {
        let mut woken = vec![];
        let mut state = self.lock();
        if state.quic.is_closed() {
            return;
        }
        state.quic.close(Instant::now(), code, reason.to_vec().into());
        state.end(ConnectionError::LocallyClosed, &mut woken);
        drop(state);
        wake(&mut woken);
        self.post();
    }
}

/// Wakes all, when no lock is held.
pub(super) fn wake(woken: &mut Vec<Waker>) {
    woken.drain(..).for_each(Waker::wake);
}

impl State {
    /// What the endpoint has for it.
    pub(super) fn handle(&mut self, event: ConnectionEvent) {
        self.quic.handle_event(event);
    }

    /// Lets it do what is due at `now`.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        self.armed = None;
        if self.quic.poll_timeout().is_some_and(|due| due <= now) {
            self.quic.handle_timeout(now);
        }
    }

    /// What it has for the endpoint.
    pub(super) fn endpoint_event(&mut self) -> Option<quinn_proto::EndpointEvent> {
        self.quic.poll_endpoint_events()
    }

    /// When it must be looked at, if that is earlier than its timer says.
    pub(super) fn overdue(&mut self) -> Option<Instant> {
        let due = self.quic.poll_timeout()?;
        self.armed.is_none_or(|armed| due < armed).then_some(due)
    }

    /// Makes packets and sends them. True: there may be more.
    pub(super) fn transmit(&mut self, udp: &Udp, now: Instant, packets: &mut Vec<u8>) -> bool {
        let mut made = 0;
        while made < DATAGRAMS_A_TURN {
            if udp.is_full() {
                return true;
            }
            packets.clear();
            let Some(transmit) = self.quic.poll_transmit(now, udp.segments_max(), packets) else { return false };
            made += transmit.segment_size.map_or(1, |size| transmit.size.div_ceil(size));
            let bytes = packets.get(..transmit.size).unwrap_or(packets);
            udp.send(transmit, bytes);
        }
        true
    }

    /// Notes what has happened, and who waits for it.
    pub(super) fn notice(&mut self, woken: &mut Vec<Waker>) {
        while let Some(event) = self.quic.poll() {
            match event {
                Event::Connected => {
                    self.is_connected = true;
                    woken.extend(self.complete.take());
                }
                Event::ConnectionLost { reason } => self.end(reason, woken),
                Event::Stream(StreamEvent::Opened { dir: Dir::Bi }) => woken.extend(self.stream.take()),
                Event::DatagramReceived => woken.extend(self.datagram.take()),
                Event::Stream(StreamEvent::Readable { id }) => woken.extend(self.waiting(id, |w| w.bytes.take())),
                Event::Stream(StreamEvent::Writable { id }) => woken.extend(self.waiting(id, |w| w.room.take())),
                Event::Stream(StreamEvent::Finished { id }) => woken.extend(self.waiting(id, |w| w.taken.take())),
                Event::Stream(StreamEvent::Stopped { id, .. }) => {
                    woken.extend(self.waiting(id, |w| w.taken.take()));
                    woken.extend(self.waiting(id, |w| w.room.take()));
                }
                // We open no streams, and the peer may open none that go one way only; datagrams that do not fit are lost.
                Event::HandshakeDataReady
                | Event::DatagramsUnblocked
                | Event::Stream(StreamEvent::Available { .. } | StreamEvent::Opened { dir: Dir::Uni }) => {}
            }
        }
    }

    /// It is over: everybody who waits hears of it. The first reason stands.
    pub(super) fn end(&mut self, reason: ConnectionError, woken: &mut Vec<Waker>) {
        self.error.get_or_insert(reason);
        woken.extend([self.stream.take(), self.datagram.take(), self.complete.take()].into_iter().flatten());
        for waiting in &mut self.streams {
            woken.extend([waiting.bytes.take(), waiting.room.take(), waiting.taken.take()].into_iter().flatten());
        }
    }

    fn waiting(&mut self, id: StreamId, take: impl FnOnce(&mut Waiting) -> Option<Waker>) -> Option<Waker> {
        self.streams.iter_mut().find(|waiting| waiting.id == id).and_then(take)
    }

    /// Has `waker` called when what `place` stands for comes.
    fn wait(&mut self, id: StreamId, waker: &Waker, place: impl FnOnce(&mut Waiting) -> &mut Option<Waker>) {
        let waiting = match self.streams.iter().position(|waiting| waiting.id == id) {
            Some(at) => self.streams.get_mut(at),
            None => {
                // Most connections have one.
                self.streams.reserve_exact(1);
                self.streams.push(Waiting { id, bytes: None, room: None, taken: None });
                self.streams.last_mut()
            }
        };
        if let Some(waiting) = waiting {
            place(waiting).get_or_insert_with(|| waker.clone()).clone_from(waker);
        }
    }
}

/// A connection as those who use it know it. When the last of them lets go it is closed.
#[derive(Clone)]
pub struct Connection(Arc<Guard>);

struct Guard(Arc<Shared>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.close(VarInt::from_u32(0), b"");
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Connection").field(&self.0.0.number).finish()
    }
}

impl Connection {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self(Arc::new(Guard(shared)))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.0.lock()
    }

    /// Where its peer is now; that may change.
    pub fn remote_address(&self) -> SocketAddr {
        self.lock().quic.remote_address()
    }

    /// Why it has ended, if it has.
    pub fn close_reason(&self) -> Option<ConnectionError> {
        self.lock().error.clone()
    }

    /// Ends it with an application error code and a reason (RFC 9000 s10.2).
    pub fn close(&self, code: VarInt, reason: &[u8]) {
        self.0.0.close(code, reason);
    }

    /// Ready when the handshake is complete, or the connection is over.
    pub fn poll_complete(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.lock();
        if state.is_connected || state.error.is_some() {
            return Poll::Ready(());
        }
        state.complete = Some(cx.waker().clone());
        Poll::Pending
    }

    /// The next stream the peer has opened. One task at a time can wait for it.
    pub fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<Result<QuicStream, ConnectionError>> {
        let mut state = self.lock();
        if let Some(id) = state.quic.streams().accept(Dir::Bi) {
            let is_early = state.quic.is_handshaking();
            return Poll::Ready(Ok(QuicStream { connection: self.clone(), id, is_early, heard_all: false }));
        }
        if let Some(error) = &state.error {
            return Poll::Ready(Err(error.clone()));
        }
        state.stream = Some(cx.waker().clone());
        Poll::Pending
    }

    /// The next datagram. One task at a time can wait for it.
    pub fn poll_datagram(
        &self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<impl Deref<Target = [u8]> + use<>, ConnectionError>> {
        let mut state = self.lock();
        if let Some(datagram) = state.quic.datagrams().recv() {
            return Poll::Ready(Ok(datagram));
        }
        if let Some(error) = &state.error {
            return Poll::Ready(Err(error.clone()));
        }
        state.datagram = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Bytes of the longest datagram that can be sent now; `None`: the peer takes none.
    pub fn datagram_bytes_max(&self) -> Option<usize> {
        self.lock().quic.datagrams().max_size()
    }

    /// Has a datagram sent by the next [`Self::transmit`]. One that does not fit the path is lost, as datagrams may be; when
    /// too many wait, the oldest are.
    pub fn send_datagram(&self, bytes: &[u8]) {
        let _ = self.lock().quic.datagrams().send(bytes.to_vec().into(), true);
    }

    /// The application protocol that was agreed on.
    pub(super) fn protocol(&self) -> Option<Vec<u8>> {
        let data = self.lock().quic.crypto_session().handshake_data()?;
        data.downcast::<HandshakeData>().ok()?.protocol
    }

    /// The client certificate (DER) that TLS has verified.
    pub(super) fn certificate(&self) -> Option<Vec<u8>> {
        let identity = self.lock().quic.crypto_session().peer_identity()?;
        let chain = identity.downcast::<Vec<CertificateDer<'static>>>().ok()?;
        chain.first().map(|first| first.as_ref().to_vec())
    }

    /// Notes that it has packets to send; false if that was noted before.
    pub fn mark(&self) -> bool {
        !self.0.0.marked.swap(true, Ordering::Relaxed)
    }

    /// Sends what was written: by the endpoint's thread if it is awake, else by this one. `packets` is room for them.
    pub fn transmit(&self, packets: &mut Vec<u8>) {
        let shared = &self.0.0;
        shared.marked.store(false, Ordering::Relaxed);
        if shared.road.mail.post_if_awake(shared.number) {
            return;
        }
        let mut state = shared.lock();
        let more = state.transmit(&shared.road.udp, Instant::now(), packets);
        let concerns_endpoint = more || state.overdue().is_some();
        drop(state);
        if concerns_endpoint {
            shared.post();
        }
    }
}

/// A bidirectional stream that the peer has opened, read and written like a socket that does not block.
#[derive(Debug)]
pub struct QuicStream {
    connection: Connection,
    id: StreamId,
    is_early: bool,
    /// The peer's half is at its end.
    heard_all: bool,
}

impl QuicStream {
    /// Its connection.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Whether it came before the handshake was complete.
    pub(super) fn is_early(&self) -> bool {
        self.is_early
    }

    /// Reads what has come. Nothing read: the peer has ended its half.
    pub fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.heard_all {
            return Poll::Ready(Ok(()));
        }
        let mut state = self.connection.lock();
        let before = buffer.filled().len();
        let mut stream = state.quic.recv_stream(self.id);
        let mut chunks = match stream.read(true) {
            Ok(chunks) => chunks,
            Err(ReadableError::ClosedStream | ReadableError::IllegalOrderedRead) => {
                return Poll::Ready(Err(ErrorKind::NotConnected.into()));
            }
        };
        let stopped = loop {
            if buffer.remaining() == 0 {
                break None;
            }
            match chunks.next(buffer.remaining()) {
                Ok(Some(chunk)) => buffer.put_slice(&chunk.bytes),
                Ok(None) => {
                    self.heard_all = true;
                    break None;
                }
                Err(error) => break Some(error),
            }
        };
        // The peer may be waiting to hear that it can send more.
        let must_say = chunks.finalize().should_transmit();
        let read = buffer.filled().len() > before;
        let polled = match (stopped, &state.error) {
            (_, _) if read => Poll::Ready(Ok(())),
            (None, _) => Poll::Ready(Ok(())),
            (Some(ReadError::Reset(_)), _) => {
                self.heard_all = true;
                Poll::Ready(Err(ErrorKind::ConnectionReset.into()))
            }
            (Some(ReadError::Blocked), Some(error)) => Poll::Ready(Err(lost(error))),
            (Some(ReadError::Blocked), None) => {
                state.wait(self.id, cx.waker(), |waiting| &mut waiting.bytes);
                Poll::Pending
            }
        };
        drop(state);
        if must_say {
            self.connection.0.0.post();
        }
        polled
    }

    /// Writes as much as flow control and the bounds of the connection allow, to be sent by [`Connection::transmit`]; `waker`
    /// is called when there is room again.
    pub fn try_write(&mut self, waker: &Waker, bytes: &[u8]) -> io::Result<usize> {
        let mut state = self.connection.lock();
        if let Some(error) = &state.error {
            return Err(lost(error));
        }
        match state.quic.send_stream(self.id).write(bytes) {
            Ok(written) => Ok(written),
            Err(WriteError::Blocked) => {
                state.wait(self.id, waker, |waiting| &mut waiting.room);
                Err(ErrorKind::WouldBlock.into())
            }
            Err(WriteError::Stopped(_)) => Err(ErrorKind::ConnectionReset.into()),
            Err(WriteError::ClosedStream) => Err(ErrorKind::NotConnected.into()),
        }
    }

    /// Says that nothing more will be written.
    pub fn finish(&mut self) {
        // It may have been stopped or ended by the peer: then there is nobody to tell.
        let finished = self.connection.lock().quic.send_stream(self.id).finish();
        if finished.is_ok() {
            self.connection.0.0.post();
        }
    }

    /// Ready when the peer has everything that was written, or never will.
    pub fn poll_taken(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.connection.lock();
        if state.error.is_some() || !matches!(state.quic.send_stream(self.id).stopped(), Ok(None)) {
            return Poll::Ready(());
        }
        state.wait(self.id, cx.waker(), |waiting| &mut waiting.taken);
        Poll::Pending
    }

    /// Takes nothing from it and says nothing on it (RFC 9000 s3.5).
    pub fn refuse(self, code: VarInt) {
        let mut state = self.connection.lock();
        // It may have ended by itself meanwhile.
        let _ = state.quic.send_stream(self.id).reset(code);
        let _ = state.quic.recv_stream(self.id).stop(code);
        drop(state);
        self.connection.0.0.post();
    }
}

impl Drop for QuicStream {
    /// Ends both halves, unless they have ended.
    fn drop(&mut self) {
        let mut state = self.connection.lock();
        state.streams.retain(|waiting| waiting.id != self.id);
        if state.error.is_some() {
            return;
        }
        let mut must_say = match state.quic.send_stream(self.id).finish() {
            Ok(()) => true,
            Err(FinishError::Stopped(code)) => state.quic.send_stream(self.id).reset(code).is_ok(),
            Err(FinishError::ClosedStream) => false,
        };
        if !self.heard_all {
            must_say |= state.quic.recv_stream(self.id).stop(VarInt::from_u32(0)).is_ok();
        }
        drop(state);
        if must_say {
            self.connection.0.0.post();
        }
    }
}

fn lost(error: &ConnectionError) -> io::Error {
    io::Error::new(ErrorKind::NotConnected, error.clone())
}
