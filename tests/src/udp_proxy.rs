//! A UDP proxy between QUIC clients and a broker: it loses, delays and cuts by a seed, moves clients to another address,
//! and takes down what a client sent.
//!
//! A *life* is one QUIC connection: it begins with an Initial packet whose destination connection id is new (RFC 9000
//! s7.2), whatever socket it comes from, so a client that comes back from the same socket is a new life.

use crate::cut::Way;
use crate::world::Rng;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long a thread reads before it looks whether it is still needed.
const TURN: Duration = Duration::from_millis(50);
/// Datagrams of a life that are taken down at most.
const TAKEN_DOWN_MAX: usize = 64;
/// Largest datagram.
const DATAGRAM_MAX: usize = 65_535;

/// What happens to datagrams.
#[derive(Debug, Clone)]
pub struct Faults {
    /// Decides all that is by chance.
    pub seed: u64,
    /// Datagrams of a thousand that are lost, either way.
    pub loss_per_mille: u64,
    /// Time on the way, each way.
    pub delay: Duration,
    /// Longer datagrams to clients are lost.
    pub down_bytes_max: usize,
    /// Lives of a hundred that end in the middle: from one datagram on everything of them is lost, either way.
    pub cut_percent: u64,
    /// Behind how many datagrams (both ways together) at the least and at the most.
    pub cut_after: (u64, u64),
}

impl Faults {
    /// None at all.
    pub fn none() -> Self {
        let (delay, down_bytes_max) = (Duration::ZERO, usize::MAX);
        Self { seed: 0, loss_per_mille: 0, delay, down_bytes_max, cut_percent: 0, cut_after: (0, 0) }
    }

    /// Loss only, in either direction.
    pub fn loss(seed: u64, per_mille: u64) -> Self {
        Self { seed, loss_per_mille: per_mille, ..Self::none() }
    }

    /// Delay only, each way.
    pub fn delay(delay: Duration) -> Self {
        Self { delay, ..Self::none() }
    }

    /// Loss only, of all that is longer than this on its way to a client.
    pub fn narrow(down_bytes_max: usize) -> Self {
        Self { down_bytes_max, ..Self::none() }
    }

    /// Cuts only: so many lives of a hundred, after some datagrams.
    pub fn cuts(seed: u64, percent: u64, after: (u64, u64)) -> Self {
        Self { seed, cut_percent: percent, cut_after: after, ..Self::none() }
    }
}

/// What has happened so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Passed {
    /// Connections that were begun.
    pub lives: u64,
    /// Of those, the ones that were cut.
    pub cut: u64,
    /// Datagrams from clients to the broker that went through.
    pub up: u64,
    /// Datagrams to clients that went through.
    pub down: u64,
    /// Datagrams that were lost, those of cut lives included.
    pub lost: u64,
    /// Times that a client was moved.
    pub moves: u64,
}

/// One client, by its own address.
struct Flow {
    back: Arc<UdpSocket>,
    /// Destination connection ids of its Initial packets, and source connection ids of the broker's answers.
    known: Vec<Vec<u8>>,
    /// Datagrams left until everything is lost.
    left: Option<u64>,
    taken_down: Vec<Vec<u8>>,
}

/// A datagram on its way.
struct Due {
    at: Instant,
    order: u64,
    from: Arc<UdpSocket>,
    to: SocketAddr,
    bytes: Vec<u8>,
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

struct State {
    faults: Faults,
    /// Which lives are cut, and where: by their order alone.
    lives: Rng,
    /// Which datagrams are lost.
    losses: Rng,
    flows: BTreeMap<SocketAddr, Flow>,
    queue: BinaryHeap<Reverse<Due>>,
    passed: Passed,
    order: u64,
    stopped: [bool; 2],
    over: bool,
}

struct Shared {
    state: Mutex<State>,
    due: Condvar,
    front: Arc<UdpSocket>,
    to: SocketAddr,
}

/// A running proxy; it ends with this value.
pub struct UdpProxy {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl UdpProxy {
    /// Stands before `to`.
    pub fn open(to: SocketAddr, faults: Faults) -> Self {
        let front = Arc::new(socket(Ipv4Addr::LOCALHOST));
        let state = State {
            lives: Rng::new(faults.seed),
            losses: Rng::new(!faults.seed),
            faults,
            flows: BTreeMap::new(),
            queue: BinaryHeap::new(),
            passed: Passed::default(),
            order: 0,
            stopped: [false; 2],
            over: false,
        };
        let shared = Arc::new(Shared { state: Mutex::new(state), due: Condvar::new(), front, to });
        let (reader, clock) = (Arc::clone(&shared), Arc::clone(&shared));
        let threads = vec![std::thread::spawn(move || reader.read_clients()), std::thread::spawn(move || clock.run())];
        Self { shared, threads }
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.shared.front.local_addr().expect("it is bound")
    }

    /// What has happened so far.
    pub fn passed(&self) -> Passed {
        self.shared.lock().passed
    }

    /// From now on other faults; connections that are there keep their fate.
    pub fn set(&self, faults: Faults) {
        let mut state = self.shared.lock();
        (state.lives, state.losses) = (Rng::new(faults.seed), Rng::new(!faults.seed));
        state.faults = faults;
    }

    /// From now on nothing passes in these directions, and everything in the others.
    pub fn stop(&self, ways: &[Way]) {
        self.shared.lock().stopped = [Way::Up, Way::Down].map(|way| ways.contains(&way));
    }

    /// Every client comes from another port from now on, and from that address of the loopback network; what is sent to
    /// where it was is lost.
    pub fn move_clients(&self, to: Ipv4Addr) {
        let mut state = self.shared.lock();
        let clients: Vec<SocketAddr> = state.flows.keys().copied().collect();
        for client in clients {
            let back = self.shared.new_back(client, to);
            if let Some(flow) = state.flows.get_mut(&client) {
                flow.back = back;
            }
            state.passed.moves += 1;
        }
    }

    /// What clients have sent, in order, each life's first datagrams.
    pub fn taken_down(&self) -> Vec<Vec<u8>> {
        self.shared.lock().flows.values().flat_map(|flow| flow.taken_down.clone()).collect()
    }

    /// Sends datagrams to the broker from an address nobody has used, as somebody who has listened would, and gives what
    /// is answered until `silence` has passed without a datagram.
    pub fn replay(&self, datagrams: &[Vec<u8>], silence: Duration) -> Vec<Vec<u8>> {
        let stranger = socket(Ipv4Addr::LOCALHOST);
        for datagram in datagrams {
            stranger.send_to(datagram, self.shared.to).expect("sent");
        }
        stranger.set_read_timeout(Some(silence)).expect("read timeout");
        let (mut answers, mut buffer) = (vec![], vec![0; DATAGRAM_MAX]);
        while let Ok(count) = stranger.recv(&mut buffer) {
            answers.push(buffer[..count].to_vec());
        }
        answers
    }
}

impl Drop for UdpProxy {
    fn drop(&mut self) {
        self.shared.lock().over = true;
        self.shared.due.notify_all();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no thread panics with the state")
    }

    /// Reads what clients send.
    fn read_clients(self: &Arc<Self>) {
        let mut buffer = vec![0; DATAGRAM_MAX];
        loop {
            let received = self.front.recv_from(&mut buffer);
            let mut state = self.lock();
            if state.over {
                return;
            }
            let Ok((count, client)) = received else { continue };
            let bytes = &buffer[..count];
            let flow = state.flows.entry(client).or_insert_with(|| {
                let back = self.new_back(client, Ipv4Addr::LOCALHOST);
                Flow { back, known: vec![], left: None, taken_down: vec![] }
            });
            if let Some(id) = initial_destination(bytes).filter(|id| !flow.known.iter().any(|known| known == id)) {
                let id = id.to_vec();
                state.begin_life(client, id);
            }
            let Some(flow) = state.flows.get_mut(&client) else { continue };
            if flow.taken_down.len() < TAKEN_DOWN_MAX {
                flow.taken_down.push(bytes.to_vec());
            }
            let back = Arc::clone(&flow.back);
            if state.passes(client, Way::Up, count) {
                state.passed.up += 1;
                self.send(&mut state, back, self.to, bytes);
            }
        }
    }

    /// Reads what the broker sends to one client, as long as the client is there.
    fn read_broker(&self, back: &Arc<UdpSocket>, client: SocketAddr) {
        let mut buffer = vec![0; DATAGRAM_MAX];
        loop {
            let received = back.recv_from(&mut buffer);
            let mut state = self.lock();
            let is_current = |state: &State| state.flows.get(&client).is_some_and(|flow| Arc::ptr_eq(&flow.back, back));
            if state.over || !is_current(&state) {
                return;
            }
            let Ok((count, _)) = received else { continue };
            let bytes = &buffer[..count];
            if let (Some(id), Some(flow)) = (long_source(bytes), state.flows.get_mut(&client))
                && !flow.known.iter().any(|known| known == id)
            {
                flow.known.push(id.to_vec());
            }
            if state.passes(client, Way::Down, count) {
                state.passed.down += 1;
                self.send(&mut state, Arc::clone(&self.front), client, bytes);
            }
        }
    }

    /// A socket in the name of a client, and its reader.
    fn new_back(self: &Arc<Self>, client: SocketAddr, from: Ipv4Addr) -> Arc<UdpSocket> {
        let back = Arc::new(socket(from));
        let (shared, reader) = (Arc::clone(self), Arc::clone(&back));
        // It waits for the state, which whoever makes it holds.
        std::thread::spawn(move || {
            drop(shared.lock());
            shared.read_broker(&reader, client);
        });
        back
    }

    fn send(&self, state: &mut State, from: Arc<UdpSocket>, to: SocketAddr, bytes: &[u8]) {
        if state.faults.delay.is_zero() && state.queue.is_empty() {
            // A socket that cannot take it loses it, as a network does.
            let _ = from.send_to(bytes, to);
            return;
        }
        state.order += 1;
        let (at, order) = (Instant::now() + state.faults.delay, state.order);
        state.queue.push(Reverse(Due { at, order, from, to, bytes: bytes.to_vec() }));
        self.due.notify_all();
    }

    /// Sends what is due.
    fn run(&self) {
        let mut state = self.lock();
        while !state.over {
            let now = Instant::now();
            let next = state.queue.peek().map(|Reverse(due)| due.at);
            match next {
                Some(at) if at <= now => {
                    if let Some(Reverse(due)) = state.queue.pop() {
                        let _ = due.from.send_to(&due.bytes, due.to);
                    }
                }
                Some(at) => state = self.due.wait_timeout(state, at - now).expect("no panic").0,
                None => state = self.due.wait(state).expect("no panic"),
            }
        }
    }
}

impl State {
    fn begin_life(&mut self, client: SocketAddr, id: Vec<u8>) {
        self.passed.lives += 1;
        let is_cut = self.lives.chance(self.faults.cut_percent);
        let (least, most) = self.faults.cut_after;
        let left = is_cut.then(|| self.lives.between(least, most.max(least)));
        if let Some(flow) = self.flows.get_mut(&client) {
            flow.known.push(id);
            flow.left = left;
            flow.taken_down.clear();
        }
    }

    /// Whether a datagram of this client gets through.
    fn passes(&mut self, client: SocketAddr, way: Way, bytes: usize) -> bool {
        let is_stopped = self.stopped[usize::from(way == Way::Down)];
        let is_too_long = way == Way::Down && bytes > self.faults.down_bytes_max;
        let is_lost = is_stopped || is_too_long || self.losses.below(1_000) < self.faults.loss_per_mille;
        let Some(flow) = self.flows.get_mut(&client) else { return false };
        let is_cut = match &mut flow.left {
            Some(0) => true,
            Some(left) => {
                *left -= 1;
                self.passed.cut += u64::from(*left == 0);
                false
            }
            None => false,
        };
        self.passed.lost += u64::from(is_lost || is_cut);
        !is_lost && !is_cut
    }
}

fn socket(from: Ipv4Addr) -> UdpSocket {
    let socket = UdpSocket::bind((from, 0)).expect("the loopback network has a free port");
    socket.set_read_timeout(Some(TURN)).expect("read timeout");
    socket
}

/// Type and rest of a long header of QUIC version 1 (RFC 8999 s5.1, RFC 9000 s17.2). The bit behind the first is not looked
/// at: peers that have agreed on it set it by chance (RFC 9287).
fn long_header(datagram: &[u8]) -> Option<(u8, &[u8])> {
    let (first, rest) = datagram.split_first()?;
    let (version, rest) = rest.split_at_checked(4)?;
    (first & 0x80 != 0 && version == [0, 0, 0, 1]).then_some((first >> 4 & 3, rest))
}

fn connection_id(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first()?;
    rest.split_at_checked((*length).into())
}

/// Destination connection id of a datagram that begins with an Initial packet.
fn initial_destination(datagram: &[u8]) -> Option<&[u8]> {
    let (kind, rest) = long_header(datagram)?;
    if kind == 0 { Some(connection_id(rest)?.0) } else { None }
}

/// Source connection id of a datagram that begins with a long header.
fn long_source(datagram: &[u8]) -> Option<&[u8]> {
    let (_, rest) = long_header(datagram)?;
    Some(connection_id(connection_id(rest)?.1)?.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A datagram that begins a connection, as far as the proxy looks into it.
    fn initial(id: u8) -> Vec<u8> {
        vec![0xC3, 0, 0, 0, 1, 4, id, id, id, id, 0, 9, 9]
    }

    struct Ends {
        broker: UdpSocket,
        client: UdpSocket,
        proxy: UdpProxy,
    }

    impl Ends {
        fn new(faults: Faults) -> Self {
            let broker = socket(Ipv4Addr::LOCALHOST);
            let client = socket(Ipv4Addr::LOCALHOST);
            let proxy = UdpProxy::open(broker.local_addr().unwrap(), faults);
            for end in [&broker, &client] {
                end.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            }
            Self { broker, client, proxy }
        }

        fn up(&self, bytes: &[u8]) {
            self.client.send_to(bytes, self.proxy.addr()).unwrap();
        }

        fn at_broker(&self) -> (Vec<u8>, SocketAddr) {
            let mut buffer = [0; 100];
            let (count, from) = self.broker.recv_from(&mut buffer).unwrap();
            (buffer[..count].to_vec(), from)
        }

        fn at_client(&self) -> Vec<u8> {
            let mut buffer = [0; 100];
            let count = self.client.recv(&mut buffer).unwrap();
            buffer[..count].to_vec()
        }
    }

    #[test]
    fn what_is_sent_arrives_both_ways_and_is_taken_down() {
        let ends = Ends::new(Faults::none());
        ends.up(&initial(1));
        let (got, from) = ends.at_broker();
        assert_eq!(got, initial(1));
        ends.broker.send_to(b"answer", from).unwrap();
        assert_eq!(ends.at_client(), b"answer");
        assert_eq!(ends.proxy.taken_down(), [initial(1)]);
        let passed = Passed { lives: 1, up: 1, down: 1, ..Passed::default() };
        assert_eq!(ends.proxy.passed(), passed);
    }

    #[test]
    fn a_client_that_was_moved_has_another_address_and_is_answered_there() {
        let ends = Ends::new(Faults::none());
        ends.up(&initial(1));
        let (_, before) = ends.at_broker();
        ends.proxy.move_clients(Ipv4Addr::new(127, 0, 0, 2));
        ends.broker.send_to(b"lost", before).unwrap();
        ends.up(b"more");
        let (_, after) = ends.at_broker();
        assert_eq!(after.ip(), Ipv4Addr::new(127, 0, 0, 2));
        ends.broker.send_to(b"found", after).unwrap();
        assert_eq!(ends.at_client(), b"found");
    }

    #[test]
    fn a_life_that_is_cut_stays_so_and_the_next_one_has_its_own_fate() {
        let ends = Ends::new(Faults::cuts(1, 100, (2, 2)));
        ends.up(&initial(1));
        ends.up(b"second");
        assert_eq!((ends.at_broker().0, ends.at_broker().0), (initial(1), b"second".to_vec()));
        ends.up(b"third");
        ends.up(&initial(1));
        ends.proxy.set(Faults::cuts(1, 0, (0, 0)));
        ends.up(&initial(2));
        assert_eq!(ends.at_broker().0, initial(2), "nothing between");
        let Passed { lives, cut, lost, .. } = ends.proxy.passed();
        assert_eq!((lives, cut, lost), (2, 1, 2));
    }

    #[test]
    fn loss_and_delay_are_what_was_asked_for() {
        let ends = Ends::new(Faults { delay: Duration::from_millis(30), ..Faults::loss(7, 500) });
        ends.up(&initial(1));
        for number in 0..100_u8 {
            ends.up(&[number]);
        }
        let begun = Instant::now();
        ends.broker.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        let mut buffer = [0; 100];
        let mut got = vec![];
        let end = loop {
            match ends.broker.recv(&mut buffer) {
                Ok(_) => got.push(buffer[0]),
                Err(error) => break error,
            }
        };
        assert!(
            matches!(end.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut)
                && begun.elapsed() >= Duration::from_millis(30)
        );
        assert!((30..70).contains(&got.len()), "{}", got.len());
        got.retain(|first| *first != 0xC3);
        assert!(got.is_sorted(), "a delay keeps the order");
    }
}
