//! The loop of an endpoint: datagrams from its socket to their connections, and the connections' timers.

use super::accept::{Door, Verdict};
use super::connection::{Connection, Shared, wake};
use super::udp::Road;
use super::{CLOSED_DOWN, INCOMING_RUNS};
use quinn_proto::{
    ConnectionError, ConnectionHandle, DatagramEvent, EcnCodepoint, Endpoint, EndpointConfig, Incoming, VarInt,
};
use quinn_udp::RecvMeta;
use std::collections::BTreeSet;
use std::convert::Infallible;
use std::future::Future;
use std::io::{self, ErrorKind, IoSliceMut};
use std::net::UdpSocket;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};
use tokio::io::Interest;
use tokio::time::Sleep;

/// Reads from the socket before connections have their turn.
const READS_A_TURN: usize = 8;
/// How long reading rests after an error that will not go away by itself at once (no memory).
const PAUSE: Duration = Duration::from_millis(100);

/// An endpoint and its connections.
pub(super) struct Loop {
    io: tokio::net::UdpSocket,
    road: Arc<Road>,
    quic: Endpoint,
    door: Door,
    /// By number.
    places: Vec<Option<Place>>,
    open: usize,
    /// When to look at which connection.
    timers: BTreeSet<(Instant, usize)>,
    sleep: Pin<Box<Sleep>>,
    /// Connections with which there is something to do.
    touched: Vec<usize>,
    /// Room for them while they are dealt with.
    numbers: Vec<usize>,
    /// Connections that have packets for a full socket.
    starved: Vec<usize>,
    is_closing: bool,
    /// Reading rests until then.
    paused: Option<Instant>,
    /// Where datagrams are received, and packets and answers made.
    buffer: Vec<u8>,
    packets: Vec<u8>,
    woken: Vec<Waker>,
}

struct Place {
    shared: Arc<Shared>,
    is_touched: bool,
}

impl Loop {
    pub(super) fn new(socket: UdpSocket, config: EndpointConfig, door: Door) -> io::Result<Self> {
        let road = Road::new(socket.try_clone()?)?;
        let quic = Endpoint::new(Arc::new(config), Some(door.config()), !road.udp.may_fragment(), None);
        // One run of datagrams of the longest kind each.
        let run = usize::try_from(quic.config().get_max_udp_payload_size()).unwrap_or(usize::MAX).min(64 * 1024);
        let bytes = run.saturating_mul(road.udp.gro_segments()).min(64 * 1024);
        Ok(Self {
            io: tokio::net::UdpSocket::from_std(socket)?,
            buffer: vec![0; bytes * INCOMING_RUNS],
            road: Arc::new(road),
            quic,
            door,
            places: Vec::new(),
            open: 0,
            timers: BTreeSet::new(),
            sleep: Box::pin(tokio::time::sleep(Duration::ZERO)),
            touched: Vec::new(),
            numbers: Vec::new(),
            starved: Vec::new(),
            is_closing: false,
            paused: None,
            packets: Vec::new(),
            woken: Vec::new(),
        })
    }

    #[cfg(test)]
    pub(super) fn road(&self) -> &Road {
        &self.road
    }

    /// One turn. Never ready, unless the socket cannot be used.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Infallible>> {
        self.door.collect(cx);
        let mut numbers = std::mem::take(&mut self.numbers);
        self.road.mail.take(&mut numbers);
        for number in numbers.drain(..) {
            self.touch(number);
        }
        if self.road.udp.is_full() {
            self.flush(cx)?;
        }
        let now = Instant::now();
        let mut more = self.receive(cx, now)?;
        while let Some(&(due, number)) = self.timers.first()
            && due <= now
        {
            self.timers.pop_first();
            if let Some(Some(place)) = self.places.get(number) {
                place.shared.lock().handle_timeout(now);
                self.touch(number);
            }
        }
        std::mem::swap(&mut self.touched, &mut numbers);
        for number in numbers.drain(..) {
            self.drive(number);
        }
        self.numbers = numbers;
        // Also if it is full only now: else nobody would be told when there is room.
        if self.road.udp.is_full() {
            self.flush(cx)?;
        }
        more |= !self.touched.is_empty();
        let due = [self.timers.first().map(|(due, _)| *due), self.paused].into_iter().flatten().min();
        if let Some(due) = due {
            if self.sleep.deadline().into_std() != due {
                self.sleep.as_mut().reset(due.into());
            }
            more |= self.sleep.as_mut().poll(cx).is_ready();
        }
        if more || !self.road.mail.rest(cx) {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }

    /// Ends all connections with a reason and refuses new ones; [`Self::poll`] brings that to the peers.
    pub(super) fn close(&mut self) {
        self.is_closing = true;
        for place in self.places.iter().flatten() {
            place.shared.close(VarInt::from_u32(0), CLOSED_DOWN);
        }
    }

    /// Whether no peer needs to be told anything any more.
    pub(super) fn is_idle(&self) -> bool {
        self.open == 0
    }

    fn touch(&mut self, number: usize) {
        if let Some(Some(place)) = self.places.get_mut(number)
            && !std::mem::replace(&mut place.is_touched, true)
        {
            self.touched.push(number);
        }
    }

    /// Sends what a full socket left, and lets the connections go on that wait for it.
    fn flush(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        while self.io.poll_send_ready(cx)?.is_ready() {
            match self.io.try_io(Interest::WRITABLE, || self.road.udp.flush()) {
                Ok(()) => {
                    for number in std::mem::take(&mut self.starved) {
                        self.touch(number);
                    }
                    return Ok(());
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reads what has come. True: there may be more.
    fn receive(&mut self, cx: &mut Context<'_>, now: Instant) -> io::Result<bool> {
        if self.paused.is_some_and(|until| now < until) {
            return Ok(false);
        }
        self.paused = None;
        let mut buffer = std::mem::take(&mut self.buffer);
        let done = self.receive_into(cx, now, &mut buffer);
        self.buffer = buffer;
        done
    }

    fn receive_into(&mut self, cx: &mut Context<'_>, now: Instant, buffer: &mut [u8]) -> io::Result<bool> {
        let mut metas = [RecvMeta::default(); INCOMING_RUNS];
        for _ in 0..READS_A_TURN {
            if self.io.poll_recv_ready(cx)?.is_pending() {
                return Ok(false);
            }
            let size = buffer.len() / INCOMING_RUNS;
            let mut runs = buffer.chunks_exact_mut(size).map(IoSliceMut::new);
            let mut runs: [_; INCOMING_RUNS] =
                std::array::from_fn(|_| runs.next().unwrap_or_else(|| IoSliceMut::new(&mut [])));
            let received = self.io.try_io(Interest::READABLE, || self.road.udp.receive(&mut runs, &mut metas));
            match received {
                Ok(count) => {
                    // The other thread sends meanwhile: what is answered here must not seem to come before it was asked.
                    let now = Instant::now();
                    for (meta, run) in metas.iter().zip(&runs).take(count) {
                        let run = run.get(..meta.len).unwrap_or_default();
                        for datagram in run.chunks(meta.stride.max(1)) {
                            self.take(meta, datagram, now);
                        }
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == ErrorKind::OutOfMemory => {
                    self.paused = Some(now + PAUSE);
                    return Ok(false);
                }
                // What the network says about somebody else's datagram; anyone can make it say so.
                Err(error) if is_of_a_peer(error.kind()) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    fn take(&mut self, meta: &RecvMeta, datagram: &[u8], now: Instant) {
        let ecn = meta.ecn.and_then(|ecn| EcnCodepoint::from_bits(ecn as u8));
        self.packets.clear();
        let event = self.quic.handle(now, meta.addr, meta.dst_ip, ecn, datagram.into(), &mut self.packets);
        match event {
            None => {}
            Some(DatagramEvent::ConnectionEvent(handle, event)) => {
                if let Some(Some(place)) = self.places.get(handle.0) {
                    place.shared.lock().handle(event);
                    self.touch(handle.0);
                }
            }
            Some(DatagramEvent::NewConnection(incoming)) => self.admit(incoming, now),
            Some(DatagramEvent::Response(transmit)) => {
                self.road.udp.respond(&transmit, &self.packets);
            }
        }
    }

    /// Decides about a first packet.
    fn admit(&mut self, incoming: Incoming, now: Instant) {
        let peer = incoming.remote_address();
        self.packets.clear();
        let verdict = if self.is_closing {
            Verdict::Refuse
        } else {
            if let Some(config) = self.door.renew() {
                self.quic.set_server_config(Some(config));
            }
            self.door.judge(peer, incoming.remote_address_validated())
        };
        let answer = match verdict {
            Verdict::Accept => match self.quic.accept(incoming, now, &mut self.packets, Some(self.door.config())) {
                Ok((handle, quic)) => {
                    let shared = Shared::new(quic, handle.0, Arc::clone(&self.road));
                    if self.places.len() <= handle.0 {
                        self.places.resize_with(handle.0 + 1, || None);
                    }
                    if let Some(place) = self.places.get_mut(handle.0) {
                        *place = Some(Place { shared: Arc::clone(&shared), is_touched: false });
                        self.open += 1;
                    }
                    self.touch(handle.0);
                    self.door.begin(Connection::new(shared), peer);
                    None
                }
                Err(error) => {
                    self.door.failed(peer, error.cause);
                    error.response
                }
            },
            // RFC 9000 s8.1.2
            Verdict::Retry => match self.quic.retry(incoming, &mut self.packets) {
                Ok(transmit) => Some(transmit),
                Err(error) => {
                    self.packets.clear();
                    Some(self.quic.refuse(error.into_incoming(), &mut self.packets))
                }
            },
            Verdict::Refuse => Some(self.quic.refuse(incoming, &mut self.packets)),
        };
        if let Some(transmit) = answer {
            self.road.udp.respond(&transmit, &self.packets);
        }
    }

    /// Brings everything to where it belongs that one connection has.
    fn drive(&mut self, number: usize) {
        let Some(Some(place)) = self.places.get_mut(number) else { return };
        place.is_touched = false;
        let shared = Arc::clone(&place.shared);
        let mut state = shared.lock();
        let mut is_drained = false;
        while let Some(event) = state.endpoint_event() {
            is_drained |= event.is_drained();
            if let Some(event) = self.quic.handle_event(ConnectionHandle(number), event) {
                state.handle(event);
            }
        }
        state.notice(&mut self.woken);
        if is_drained {
            state.end(ConnectionError::LocallyClosed, &mut self.woken);
            if let Some(armed) = state.armed.take() {
                self.timers.remove(&(armed, number));
            }
            drop(state);
            if let Some(place) = self.places.get_mut(number) {
                *place = None;
                self.open -= 1;
            }
            return wake(&mut self.woken);
        }
        // Not the time when the turn began: the other thread may have sent since, and what is sent next is sent later.
        let more = state.transmit(&self.road.udp, Instant::now(), &mut self.packets);
        if let Some(due) = state.overdue() {
            if let Some(armed) = state.armed.replace(due) {
                self.timers.remove(&(armed, number));
            }
            self.timers.insert((due, number));
        }
        drop(state);
        wake(&mut self.woken);
        if more {
            if self.road.udp.is_full() {
                self.starved.push(number);
            } else {
                self.touch(number);
            }
        }
    }
}

impl Drop for Loop {
    /// Nobody brings packets to these connections any more.
    fn drop(&mut self) {
        for place in self.places.iter().flatten() {
            place.shared.lock().end(ConnectionError::LocallyClosed, &mut self.woken);
        }
        wake(&mut self.woken);
    }
}

fn is_of_a_peer(kind: ErrorKind) -> bool {
    use ErrorKind::{ConnectionRefused, ConnectionReset, HostUnreachable, Interrupted, NetworkUnreachable};
    matches!(kind, ConnectionRefused | ConnectionReset | HostUnreachable | Interrupted | NetworkUnreachable)
}
