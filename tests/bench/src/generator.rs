//! The load generator: many connections on one thread, publishers held to a window, receivers that check.
//!
//! A turn waits for ready sockets, reads each of them empty into one buffer, and afterwards writes every link that
//! has something to say once. So the generator batches as much as the window in flight lets it and never waits in
//! order to batch, like a busy client on the other side of a network would.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use crate::client::{self, LoadError};
use crate::publisher::{Publisher, Stream};
use crate::wire::{self, Keep, Malformed, Packet, Version};

/// Bytes of the one buffer all links read into.
const READ_BUFFER: usize = 256 * 1024;
/// Ready sockets taken from the kernel in one turn.
const EVENTS_PER_TURN: usize = 1024;
/// A load without any event for this long has lost messages.
const STALL_SECS: u64 = 5;
/// Connections asked for but not yet answered. More than a listener's backlog (100 at mosquitto) would make the kernel
/// drop some, which then come back after a whole second.
const CONNECTS_AT_ONCE: u64 = 64;

/// What went wrong with messages, all counted since the generator was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Violations {
    /// Never arrived although the broker had taken them.
    pub lost: u64,
    /// Arrived after a later message of the same stream, or a second time.
    pub late: u64,
    /// Belong to no stream this receiver may see, or have no stamp.
    pub foreign: u64,
    /// Acknowledgements in another order than the messages, `[MQTT3-4.6.0-2]`.
    pub acks: u64,
}

/// One stretch of a load.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Phase {
    /// Messages received, or, in a load without receivers, acknowledged.
    pub delivered: u64,
    /// Seconds from the first message to the last.
    pub wall_secs: f64,
}

#[derive(Debug)]
struct Sender {
    link: usize,
    publisher: Publisher,
    queued: bool,
}

#[derive(Debug)]
struct Receiver {
    first_stream: u32,
    /// The sequence number expected next, per stream.
    expected: Vec<u32>,
    credit: Credit,
}

/// Whom the arrival of a message allows to send another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Credit {
    /// The publisher with the number of the stream.
    Publisher,
    /// Nobody: the messages were published earlier.
    Nobody,
}

#[derive(Debug, Clone, Copy)]
enum Role {
    Sender(usize),
    Receiver(usize),
    Idle,
}

#[derive(Debug)]
struct Link {
    stream: TcpStream,
    out: Vec<u8>,
    /// The start of a packet whose rest has not come yet.
    held: Vec<u8>,
    role: Role,
    queued: bool,
}

/// The connections of one load against one broker.
#[derive(Debug)]
pub struct Generator {
    broker: SocketAddr,
    version: Version,
    poll: Poll,
    events: Events,
    buffer: Box<[u8]>,
    links: Vec<Link>,
    senders: Vec<Sender>,
    receivers: Vec<Receiver>,
    dirty_links: Vec<usize>,
    dirty_senders: Vec<usize>,
    unfinished: usize,
    received: u64,
    gaps: u64,
    connected: u64,
    pinged: usize,
    violations: Violations,
}

impl Generator {
    /// A generator for a broker, with no connection yet.
    pub fn new(broker: SocketAddr, version: Version) -> Result<Self, LoadError> {
        Ok(Self {
            broker,
            version,
            poll: Poll::new()?,
            events: Events::with_capacity(EVENTS_PER_TURN),
            buffer: vec![0; READ_BUFFER].into_boxed_slice(),
            links: vec![],
            senders: vec![],
            receivers: vec![],
            dirty_links: vec![],
            dirty_senders: vec![],
            unfinished: 0,
            received: 0,
            gaps: 0,
            connected: 0,
            pinged: 0,
            violations: Violations::default(),
        })
    }

    /// What went wrong so far.
    pub fn violations(&self) -> Violations {
        self.violations
    }

    /// Connects a publisher of `streams`, served in turn; each message goes to `receivers` receivers.
    ///
    /// A message is in flight until it is acknowledged (above quality 0) and at every receiver.
    pub fn add_publisher(
        &mut self,
        client_id: &str,
        qos: u8,
        in_flight: u64,
        receivers: u32,
        streams: Vec<Stream>,
    ) -> Result<(), LoadError> {
        let stream = client::open(self.broker, self.version, client_id, Keep::Nothing)?;
        let link = self.adopt(stream, Role::Sender(self.senders.len()))?;
        let publisher = Publisher::new(qos, in_flight, receivers, streams);
        self.senders.push(Sender { link, publisher, queued: false });
        Ok(())
    }

    /// Connects a receiver of the numbered streams and subscribes it.
    pub fn add_receiver(
        &mut self,
        client_id: &str,
        qos: u8,
        filter: &str,
        streams: std::ops::Range<u32>,
    ) -> Result<(), LoadError> {
        let mut stream = client::open(self.broker, self.version, client_id, Keep::Nothing)?;
        client::subscribe(&mut stream, self.version, filter, qos)?;
        self.watch(stream, streams, Credit::Publisher)
    }

    /// Connects receivers of kept sessions, one stream each from 0 on, [`CONNECTS_AT_ONCE`] of them unanswered at a
    /// time; messages that come meanwhile are received.
    ///
    /// `client_id` names the session of a stream.
    pub fn resume(
        &mut self,
        sessions: u32,
        client_id: impl Fn(u32) -> String,
        start: Instant,
        limit: Duration,
    ) -> Result<(), LoadError> {
        for number in 0..sessions {
            let stream = self.ask(&client_id(number), Keep::Session)?;
            self.watch(stream, number..number + 1, Credit::Nobody)?;
            self.await_connected(u64::from(number + 1).saturating_sub(CONNECTS_AT_ONCE), start, limit)?;
        }
        self.await_connected(u64::from(sessions), start, limit)
    }

    /// Opens `count` connections that do nothing, [`CONNECTS_AT_ONCE`] of them unanswered at a time.
    pub fn open_idle(&mut self, count: u64, limit: Duration) -> Result<Phase, LoadError> {
        let start = Instant::now();
        for number in 0..count {
            let stream = self.ask(&format!("idle-{number}"), Keep::Nothing)?;
            self.adopt(stream, Role::Idle)?;
            self.await_connected((number + 1).saturating_sub(CONNECTS_AT_ONCE), start, limit)?;
        }
        self.await_connected(count, start, limit)?;
        Ok(Phase { delivered: self.connected, wall_secs: start.elapsed().as_secs_f64() })
    }

    /// Connects and sends a CONNECT without waiting for the answer.
    fn ask(&self, client_id: &str, keep: Keep) -> Result<std::net::TcpStream, LoadError> {
        let mut stream = std::net::TcpStream::connect(self.broker)?;
        stream.set_nodelay(true)?;
        let mut hello = vec![];
        wire::connect(&mut hello, self.version, client_id, keep);
        stream.write_all(&hello)?;
        Ok(stream)
    }

    /// Takes turns until so many connections have been answered.
    fn await_connected(&mut self, count: u64, start: Instant, limit: Duration) -> Result<(), LoadError> {
        while self.connected < count {
            if !self.turn(start, limit)? {
                return Err(LoadError::Unanswered);
            }
        }
        Ok(())
    }

    /// Lets every publisher send `each` more messages and waits until all have arrived and are acknowledged.
    ///
    /// Messages still missing when nothing moves any more are counted as lost.
    pub fn publish(&mut self, each: u64, limit: Duration) -> Result<Phase, LoadError> {
        let start = Instant::now();
        let before = (self.received, self.acknowledged());
        self.unfinished = self.senders.len();
        for number in 0..self.senders.len() {
            self.senders[number].publisher.add(each);
            self.queue_sender(number);
        }
        self.write_dirty()?;
        let mut wall_secs = 0.0;
        while self.unfinished > 0 {
            if !self.turn(start, limit)? {
                self.count_stalled();
                break;
            }
            wall_secs = start.elapsed().as_secs_f64();
        }
        let delivered =
            if self.receivers.is_empty() { self.acknowledged() - before.1 } else { self.received - before.0 };
        self.settle_gaps();
        Ok(Phase { delivered, wall_secs })
    }

    /// Waits until `count` messages published earlier have come in, those so far included, and their acknowledgements are done.
    ///
    /// The time is that of the last message.
    pub fn receive(&mut self, count: u64, start: Instant, limit: Duration) -> Result<Phase, LoadError> {
        let mut wall_secs = start.elapsed().as_secs_f64();
        while self.received < count {
            if !self.turn(start, limit)? {
                // What lies between two arrived messages is already in the gaps.
                self.violations.lost += (count - self.received).saturating_sub(self.gaps);
                break;
            }
            wall_secs = start.elapsed().as_secs_f64();
        }
        self.settle_gaps();
        self.ping_all(start, limit)?;
        Ok(Phase { delivered: self.received, wall_secs })
    }

    /// Waits until the broker has handled everything that was sent to it.
    ///
    /// Packets of a connection are handled in order, so the answer to a ping means that the acknowledgements before
    /// it are done; without it a broker that sends everything before it reads would look cheap.
    fn ping_all(&mut self, start: Instant, limit: Duration) -> Result<(), LoadError> {
        self.pinged = 0;
        for number in 0..self.links.len() {
            wire::frame(&mut self.links[number].out, wire::PINGREQ, &[]);
            self.queue_link(number);
        }
        self.write_dirty()?;
        while self.pinged < self.links.len() {
            if !self.turn(start, limit)? {
                return Err(LoadError::Unanswered);
            }
        }
        Ok(())
    }

    fn acknowledged(&self) -> u64 {
        self.senders.iter().map(|sender| sender.publisher.acknowledged()).sum()
    }

    /// Gaps that no late message has filled are losses.
    fn settle_gaps(&mut self) {
        self.violations.lost += std::mem::take(&mut self.gaps);
    }

    fn count_stalled(&mut self) {
        for sender in &self.senders {
            self.violations.lost += sender.publisher.missing_arrivals();
            self.violations.acks += sender.publisher.missing_acknowledgements();
        }
    }

    fn watch(
        &mut self,
        stream: std::net::TcpStream,
        streams: std::ops::Range<u32>,
        credit: Credit,
    ) -> Result<(), LoadError> {
        self.adopt(stream, Role::Receiver(self.receivers.len()))?;
        let expected = vec![0; streams.len()];
        self.receivers.push(Receiver { first_stream: streams.start, expected, credit });
        Ok(())
    }

    fn adopt(&mut self, stream: std::net::TcpStream, role: Role) -> Result<usize, LoadError> {
        stream.set_nonblocking(true)?;
        let number = self.links.len();
        let mut stream = TcpStream::from_std(stream);
        self.poll.registry().register(&mut stream, Token(number), Interest::READABLE | Interest::WRITABLE)?;
        self.links.push(Link { stream, out: vec![], held: vec![], role, queued: false });
        Ok(number)
    }

    /// One turn; false if nothing has happened for so long that nothing will.
    fn turn(&mut self, start: Instant, limit: Duration) -> Result<bool, LoadError> {
        let waited = Instant::now();
        loop {
            match self.poll.poll(&mut self.events, Some(Duration::from_secs(1))) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
            if !self.events.is_empty() {
                break;
            }
            if waited.elapsed().as_secs() >= STALL_SECS {
                return Ok(false);
            }
        }
        if waited.duration_since(start) > limit {
            return Err(LoadError::TooSlow(limit.as_secs()));
        }
        let events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        let mut buffer = std::mem::take(&mut self.buffer);
        let mut result = Ok(());
        for event in &events {
            let Token(number) = event.token();
            if event.is_readable() {
                result = self.read(number, &mut buffer);
                if result.is_err() {
                    break;
                }
            }
            if event.is_writable() && !self.links[number].out.is_empty() {
                self.queue_link(number);
            }
        }
        self.events = events;
        self.buffer = buffer;
        result?;
        self.write_dirty()?;
        Ok(true)
    }

    fn read(&mut self, number: usize, buffer: &mut [u8]) -> Result<(), LoadError> {
        loop {
            let link = &mut self.links[number];
            let held = link.held.len();
            buffer[..held].copy_from_slice(&link.held);
            let filled = match link.stream.read(&mut buffer[held..]) {
                Ok(0) => return Err(LoadError::Closed),
                Ok(read) => held + read,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            };
            let role = link.role;
            let mut used = 0;
            while let Some(packet) = wire::split(&buffer[used..filled])? {
                used += packet.len;
                self.handle(number, role, &packet)?;
            }
            let link = &mut self.links[number];
            link.held.clear();
            link.held.extend_from_slice(&buffer[used..filled]);
            // A short read has emptied the socket; the next byte makes a new event.
            if filled < buffer.len() {
                return Ok(());
            }
        }
    }

    fn handle(&mut self, number: usize, role: Role, packet: &Packet<'_>) -> Result<(), LoadError> {
        match (role, packet.first & 0xf0) {
            (Role::Receiver(receiver), wire::PUBLISH) => self.handle_message(number, receiver, packet),
            (Role::Receiver(_), 0x60) => {
                self.acknowledge(number, wire::PUBCOMP, wire::read_id(packet)?);
                Ok(())
            }
            (Role::Sender(sender), wire::PUBACK | wire::PUBCOMP) => {
                let id = wire::read_id(packet)?;
                if !self.senders[sender].publisher.handle_acknowledged(id) {
                    self.violations.acks += 1;
                }
                self.queue_sender(sender);
                Ok(())
            }
            (Role::Sender(sender), wire::PUBREC) => {
                let id = wire::read_id(packet)?;
                if let Some(&code) = packet.body.get(2).filter(|&&code| code >= 0x80) {
                    return Err(LoadError::Refused { first: packet.first, code });
                }
                if !self.senders[sender].publisher.handle_received(id) {
                    self.violations.acks += 1;
                }
                self.acknowledge(number, wire::PUBREL, id);
                Ok(())
            }
            (_, wire::CONNACK) => match packet.body.get(1) {
                Some(0) => {
                    self.connected += 1;
                    Ok(())
                }
                Some(&code) => Err(LoadError::Refused { first: packet.first, code }),
                None => Err(Malformed.into()),
            },
            (_, wire::PINGRESP) => {
                self.pinged += 1;
                Ok(())
            }
            (_, wire::DISCONNECT) => {
                Err(LoadError::Refused { first: packet.first, code: packet.body.first().copied().unwrap_or_default() })
            }
            _ => Ok(()),
        }
    }

    fn handle_message(&mut self, number: usize, receiver: usize, packet: &Packet<'_>) -> Result<(), LoadError> {
        let publish = wire::read_publish(self.version, packet)?;
        match publish.qos {
            0 => {}
            1 => self.acknowledge(number, wire::PUBACK, publish.id),
            _ => self.acknowledge(number, wire::PUBREC, publish.id),
        }
        let receiver = &mut self.receivers[receiver];
        let place = wire::read_stamp(publish.payload).and_then(|(stream, seq)| {
            let index = stream.checked_sub(receiver.first_stream)? as usize;
            receiver.expected.get_mut(index).map(|expected| (stream, seq, expected))
        });
        let Some((stream, seq, expected)) = place else {
            self.violations.foreign += 1;
            return Ok(());
        };
        if seq < *expected {
            self.violations.late += 1;
            if self.gaps > 0 {
                self.gaps -= 1;
                self.received += 1;
            }
            return Ok(());
        }
        let skipped = *expected..=seq;
        self.gaps += u64::from(seq - *expected);
        *expected = seq + 1;
        self.received += 1;
        let sender = stream as usize;
        if receiver.credit == Credit::Publisher
            && self.senders.get_mut(sender).is_some_and(|sender| sender.publisher.handle_arrival(skipped))
        {
            self.queue_sender(sender);
        }
        Ok(())
    }

    fn acknowledge(&mut self, number: usize, first: u8, id: u16) {
        wire::acknowledge(&mut self.links[number].out, first, id);
        self.queue_link(number);
    }

    fn queue_link(&mut self, number: usize) {
        let link = &mut self.links[number];
        if !link.queued {
            link.queued = true;
            self.dirty_links.push(number);
        }
    }

    fn queue_sender(&mut self, number: usize) {
        let sender = &mut self.senders[number];
        if !sender.queued {
            sender.queued = true;
            self.dirty_senders.push(number);
        }
    }

    fn write_dirty(&mut self) -> Result<(), LoadError> {
        let mut senders = std::mem::take(&mut self.dirty_senders);
        for number in senders.drain(..) {
            let sender = &mut self.senders[number];
            sender.queued = false;
            if sender.publisher.poll_finished() {
                self.unfinished -= 1;
            }
            let link = sender.link;
            if sender.publisher.poll_messages(&mut self.links[link].out) {
                self.queue_link(link);
            }
        }
        self.dirty_senders = senders;
        let mut links = std::mem::take(&mut self.dirty_links);
        for number in links.drain(..) {
            let link = &mut self.links[number];
            link.queued = false;
            link.flush()?;
        }
        self.dirty_links = links;
        Ok(())
    }
}

impl Link {
    fn flush(&mut self) -> io::Result<()> {
        while !self.out.is_empty() {
            match self.stream.write(&self.out) {
                Ok(written) if written == self.out.len() => self.out.clear(),
                Ok(written) => {
                    self.out.drain(..written);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Template;

    const LIMIT: Duration = Duration::from_secs(20);

    /// The bare relay on a thread that lives as long as the tests.
    fn relay() -> SocketAddr {
        let listener = std::net::TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || crate::relay::run(listener));
        address
    }

    fn stream(version: Version, qos: u8, number: u32) -> Vec<Stream> {
        vec![Stream::new(Template::new(version, "t", qos, number, 64))]
    }

    #[test]
    fn every_message_reaches_every_receiver_in_both_versions_at_every_quality() {
        for version in [Version::V3, Version::V5] {
            for qos in 0..3 {
                let mut generator = Generator::new(relay(), version).unwrap();
                for receiver in 0..3 {
                    generator.add_receiver(&format!("r{receiver}"), qos, "t", 0..2).unwrap();
                }
                for publisher in 0..2 {
                    let streams = stream(version, qos, publisher);
                    generator.add_publisher(&format!("p{publisher}"), qos, 5, 3, streams).unwrap();
                }
                for each in [1, 1_000] {
                    let phase = generator.publish(each, LIMIT).unwrap();
                    assert_eq!(phase.delivered, each * 6, "{version:?} {qos}");
                }
                assert_eq!(generator.violations(), Violations::default(), "{version:?} {qos}");
            }
        }
    }

    #[test]
    fn idle_connections_are_counted_when_they_are_answered() {
        let mut generator = Generator::new(relay(), Version::V3).unwrap();
        assert_eq!(generator.open_idle(100, LIMIT).unwrap().delivered, 100);
        generator.ping_all(Instant::now(), LIMIT).unwrap();
    }

    fn check_violations(arrivals: &[(u32, u32)], expect: Violations) {
        let mut generator = Generator::new(relay(), Version::V3).unwrap();
        generator.add_receiver("r", 0, "t", 7..9).unwrap();
        for &(number, seq) in arrivals {
            let mut bytes = vec![];
            Template::new(Version::V3, "t", 0, number, 64).write(&mut bytes, 0, seq);
            let packet = wire::split(&bytes).unwrap().unwrap();
            generator.handle(0, Role::Receiver(0), &packet).unwrap();
        }
        generator.settle_gaps();
        assert_eq!(generator.violations(), expect, "{arrivals:?}");
    }

    #[test]
    fn a_receiver_notices_what_went_wrong() {
        let none = Violations::default();
        check_violations(&[(7, 0), (8, 0), (7, 1), (8, 1)], none);
        check_violations(&[(7, 0), (7, 3)], Violations { lost: 2, ..none });
        check_violations(&[(7, 1), (7, 0)], Violations { late: 1, ..none });
        check_violations(&[(7, 0), (7, 0)], Violations { late: 1, ..none });
        check_violations(&[(6, 0), (9, 0), (7, 0)], Violations { foreign: 2, ..none });
    }

    #[test]
    fn an_acknowledgement_out_of_order_is_noticed() {
        let mut generator = Generator::new(relay(), Version::V3).unwrap();
        generator.add_publisher("p", 1, 4, 0, stream(Version::V3, 1, 0)).unwrap();
        for id in [1, 3, 2, 4] {
            let mut bytes = vec![];
            wire::acknowledge(&mut bytes, wire::PUBACK, id);
            let packet = wire::split(&bytes).unwrap().unwrap();
            generator.handle(0, Role::Sender(0), &packet).unwrap();
        }
        assert_eq!(generator.violations().acks, 2);
    }
}
