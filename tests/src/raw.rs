//! A raw MQTT client: bytes over a blocking socket, with a codec of its own.
//!
//! It shares nothing with the codec under test, so that a mistake there cannot hide itself. What the server sends is
//! decoded strictly (flags, lengths, properties allowed in that packet, no property twice, nothing behind the end), so
//! every test also checks the form of every packet it receives. Waiting is bounded by [`PATIENCE`] and ends with the
//! event, never with a sleep; silence is shown by a fence (PINGREQ, PINGRESP), because the server answers in order.

#![allow(clippy::doc_markdown, reason = "QoS and its like are the specification's words")]
#![allow(clippy::return_self_not_must_use, reason = "builders of a test")]

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// The longest a test waits for anything it expects.
pub const PATIENCE: Duration = Duration::from_secs(8);

mod packet;

pub use packet::*;

/// A CONNECT in the making. Every part can be made wrong.
#[derive(Debug, Clone)]
pub struct Connect {
    version: Version,
    name: Vec<u8>,
    level: u8,
    flags: u8,
    flip: u8,
    keep_alive_secs: u16,
    props: Vec<Prop>,
    client_id: Vec<u8>,
    will: Option<Publish>,
    username: Option<Vec<u8>>,
    password: Option<Vec<u8>>,
    trailing: Vec<u8>,
}

impl Connect {
    /// A client with a clean start and a keep alive of a minute.
    pub fn new(version: Version, client_id: &str) -> Self {
        Self {
            version,
            name: b"MQTT".into(),
            level: if version == V5 { 5 } else { 4 },
            flags: 0x02,
            flip: 0,
            keep_alive_secs: 60,
            props: Vec::new(),
            client_id: client_id.into(),
            will: None,
            username: None,
            password: None,
            trailing: Vec::new(),
        }
    }

    /// The version it is in.
    pub fn version(&self) -> Version {
        self.version
    }

    /// An MQTT 5 client.
    pub fn v5(client_id: &str) -> Self {
        Self::new(V5, client_id)
    }

    /// A 3.1.1 client.
    pub fn v311(client_id: &str) -> Self {
        Self::new(V311, client_id)
    }

    /// Without Clean Start (Clean Session), and nothing else.
    pub fn resume(mut self) -> Self {
        self.flags &= !0x02;
        self
    }

    /// A session that outlives the connection, resumed if there: no Clean Start, and an hour of expiry in MQTT 5.
    pub fn persistent(self) -> Self {
        let version = self.version;
        let resumed = self.resume();
        if version == V5 { resumed.with(prop::session_expiry(3_600_u32)) } else { resumed }
    }

    /// With a property.
    pub fn with(mut self, property: Prop) -> Self {
        self.props.push(property);
        self
    }

    /// With this keep alive.
    pub fn keep_alive(mut self, secs: u16) -> Self {
        self.keep_alive_secs = secs;
        self
    }

    /// With this will; its QoS and RETAIN are the message's.
    pub fn will(mut self, message: Publish) -> Self {
        self.will = Some(message);
        self
    }

    /// With a user name.
    pub fn username(mut self, name: impl AsRef<[u8]>) -> Self {
        self.username = Some(name.as_ref().into());
        self
    }

    /// With a password.
    pub fn password(mut self, password: impl AsRef<[u8]>) -> Self {
        self.password = Some(password.as_ref().into());
        self
    }

    /// With these bytes as client identifier.
    pub fn client_id(mut self, bytes: impl AsRef<[u8]>) -> Self {
        self.client_id = bytes.as_ref().into();
        self
    }

    /// With another protocol name and level.
    pub fn protocol(mut self, name: &str, level: u8) -> Self {
        (self.name, self.level) = (name.into(), level);
        self
    }

    /// With these bits of the connect flags inverted, whatever the payload holds.
    pub fn flip_flags(mut self, bits: u8) -> Self {
        self.flip = bits;
        self
    }

    /// With bytes behind the end of the payload, inside the packet.
    pub fn trailing(mut self, bytes: &[u8]) -> Self {
        self.trailing = bytes.into();
        self
    }

    /// The bytes.
    pub fn bytes(&self) -> Vec<u8> {
        let mut flags = self.flags;
        let mut payload = field(&self.client_id);
        if let Some(will) = &self.will {
            flags |= 0x04 | will.qos << 3 | u8::from(will.retain) << 5;
            payload.extend(props_for(self.version, &will.props.0));
            payload.extend(field(&will.topic));
            payload.extend(field(&will.payload));
        }
        if let Some(name) = &self.username {
            flags |= 0x80;
            payload.extend(field(name));
        }
        if let Some(password) = &self.password {
            flags |= 0x40;
            payload.extend(field(password));
        }
        let mut body = field(&self.name);
        body.extend([self.level, flags ^ self.flip]);
        body.extend(self.keep_alive_secs.to_be_bytes());
        body.extend(props_for(self.version, &self.props));
        body.extend(payload);
        body.extend(&self.trailing);
        frame(0x10, body)
    }

    /// Opens a connection and sends the CONNECT.
    pub fn send_to(&self, at: impl Into<SocketAddr>) -> Client {
        let mut client = Client::open(at, self.version);
        client.name = String::from_utf8_lossy(&self.client_id).into_owned();
        client.send(&self.bytes());
        client
    }

    /// Connects; whatever the answer is, it is in `connack`.
    pub fn ask(&self, at: impl Into<SocketAddr>) -> Client {
        let mut client = self.send_to(at);
        match client.recv() {
            Packet::ConnAck(connack) => client.connack = connack,
            other => panic!("{}: CONNACK expected, got {other:?} [MQTT5-3.2.0-1]", client.name),
        }
        client
    }

    /// Connects and is let in.
    pub fn to(&self, at: impl Into<SocketAddr>) -> Client {
        let client = self.ask(at);
        assert_eq!(client.connack.code, 0, "{} was refused: {:?}", client.name, client.connack);
        client
    }

    /// Connects and is refused: the code of the CONNACK, after which the server has closed.
    pub fn refused(&self, at: impl Into<SocketAddr>) -> u8 {
        let mut client = self.ask(at);
        assert_ne!(client.connack.code, 0, "{} was let in", client.name);
        assert_eq!(client.closed(), [], "after a refusal [MQTT5-3.2.2-7]");
        client.connack.code
    }
}

/// Whether a foreign broker is spoken to, which may close without a word where the specification leaves it the choice;
/// `MQTT_TEST_STRICT` asks it for all that Parlor does.
pub fn lenient() -> bool {
    std::env::var_os("MQTT_TEST_ADDR").is_some() && std::env::var_os("MQTT_TEST_STRICT").is_none()
}

/// Why no packet came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lost {
    /// The server has closed the connection.
    Closed,
    /// Nothing came in time.
    Late,
}

/// One connection.
pub struct Client {
    /// Version that received packets are decoded in.
    pub version: Version,
    /// The CONNACK, once there was one.
    pub connack: ConnAck,
    /// For messages of failed tests.
    pub name: String,
    stream: TcpStream,
    input: Vec<u8>,
    stash: VecDeque<Packet>,
    last_id: u16,
}

impl Client {
    /// Opens a connection and sends nothing.
    pub fn open(at: impl Into<SocketAddr>, version: Version) -> Self {
        let stream = TcpStream::connect_timeout(&at.into(), PATIENCE).expect("the broker accepts connections");
        stream.set_nodelay(true).expect("TCP_NODELAY");
        stream.set_write_timeout(Some(PATIENCE)).expect("write timeout");
        Self {
            version,
            connack: ConnAck::default(),
            name: String::from("(no name yet)"),
            stream,
            input: Vec::new(),
            stash: VecDeque::new(),
            last_id: 0,
        }
    }

    /// The socket, for tests that need more control over it.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Sends bytes. A server that closes meanwhile is no error here; the next receive tells.
    pub fn send(&mut self, bytes: &[u8]) {
        match self.stream.write_all(bytes) {
            Ok(()) => {}
            Err(e) if matches!(e.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => {}
            Err(e) => panic!("{}: could not send: {e}", self.name),
        }
    }

    /// A packet identifier not used by this helper's own flows before.
    pub fn new_id(&mut self) -> u16 {
        self.last_id += 1;
        self.last_id
    }

    /// The next packet from the socket, or why there is none until `deadline`.
    fn read_packet(&mut self, deadline: Instant) -> Result<Packet, Lost> {
        loop {
            if let Some((packet, used)) = self.parse() {
                self.input.drain(..used);
                return Ok(packet);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Lost::Late);
            }
            self.stream.set_read_timeout(Some(left)).expect("read timeout");
            let mut chunk = [0; 16_384];
            match self.stream.read(&mut chunk) {
                Ok(0) => {
                    assert!(self.input.is_empty(), "{}: closed within a packet: {:?}", self.name, self.input);
                    return Err(Lost::Closed);
                }
                Ok(count) => self.input.extend(&chunk[..count]),
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted) => {}
                Err(_) => return Err(Lost::Closed),
            }
        }
    }

    fn parse(&self) -> Option<(Packet, usize)> {
        let (first, rest) = self.input.split_first()?;
        let end = rest.iter().take(4).position(|b| b & 0x80 == 0);
        assert!(end.is_some() || rest.len() < 4, "{}: remaining length: {rest:02x?}", self.name);
        let mut head = Body(rest);
        let length = end.map(|_| head.var().expect("the server sends minimal lengths"))? as usize;
        let body = head.0.get(..length)?;
        let used = 1 + (rest.len() - head.0.len()) + length;
        match decode(self.version, *first, body) {
            Ok(packet) => Some((packet, used)),
            Err(why) => panic!("{}: the server sent a bad packet, {first:#04x} {body:02x?}: {why}", self.name),
        }
    }

    /// The next packet, or why there is none within `patience`.
    pub fn try_recv(&mut self, patience: Duration) -> Result<Packet, Lost> {
        match self.stash.pop_front() {
            Some(packet) => Ok(packet),
            None => self.read_packet(Instant::now() + patience),
        }
    }

    /// The next packet.
    pub fn recv(&mut self) -> Packet {
        match self.try_recv(PATIENCE) {
            Ok(packet) => packet,
            Err(lost) => panic!("{}: a packet expected, got {lost:?}", self.name),
        }
    }

    /// The next packet that `pick` picks; others stay, in order, for later.
    pub fn find<T>(&mut self, what: &str, mut pick: impl FnMut(&Packet) -> Option<T>) -> T {
        for at in 0..self.stash.len() {
            if let Some(found) = pick(&self.stash[at]) {
                self.stash.remove(at);
                return found;
            }
        }
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.read_packet(deadline) {
                Ok(packet) => match pick(&packet) {
                    Some(found) => return found,
                    None => self.stash.push_back(packet),
                },
                Err(lost) => panic!("{}: {what} expected, got {lost:?} after {:?}", self.name, self.stash),
            }
        }
    }

    /// The next packet is a PUBLISH; it is not acknowledged.
    pub fn publish_packet(&mut self) -> Publish {
        match self.recv() {
            Packet::Publish(publish) => publish,
            other => panic!("{}: PUBLISH expected, got {other:?}", self.name),
        }
    }

    /// The next packet is a PUBLISH; it is acknowledged to the end of its flow.
    pub fn message(&mut self) -> Publish {
        let publish = self.publish_packet();
        self.finish(&publish);
        publish
    }

    /// Acknowledges a received message to the end of its flow.
    pub fn finish(&mut self, publish: &Publish) {
        match publish.qos {
            1 => self.ack(PubAck, publish.id),
            2 => {
                self.ack(PubRec, publish.id);
                assert_eq!(self.await_ack(PubRel, publish.id), 0);
                self.ack(PubComp, publish.id);
            }
            _ => {}
        }
    }

    /// The next messages, acknowledged, as texts.
    pub fn texts(&mut self, count: usize) -> Vec<String> {
        (0..count).map(|_| self.message().text().to_owned()).collect()
    }

    /// Sends an acknowledgement in its short form: success.
    pub fn ack(&mut self, kind: AckKind, id: u16) {
        self.send(&frame(kind as u8, id.to_be_bytes()));
    }

    /// Sends an acknowledgement with a reason code.
    pub fn ack_code(&mut self, kind: AckKind, id: u16, code: u8) {
        let [high, low] = id.to_be_bytes();
        self.send(&frame(kind as u8, [high, low, code]));
    }

    /// Waits for an acknowledgement of that kind and identifier: its reason code.
    pub fn await_ack(&mut self, kind: AckKind, id: u16) -> u8 {
        self.find(&format!("{kind:?} {id}"), |packet| match packet {
            Packet::Ack { kind: k, id: i, code, .. } if *k == kind && *i == id => Some(*code),
            _ => None,
        })
    }

    /// Sends a PUBLISH as it is.
    pub fn publish(&mut self, publish: &Publish) {
        let bytes = publish.bytes(self.version);
        self.send(&bytes);
    }

    /// Publishes and goes through the whole flow of the QoS: the reason code of PUBACK, or of PUBREC.
    pub fn deliver(&mut self, publish: &Publish) -> u8 {
        let mut publish = publish.clone();
        if publish.qos > 0 && publish.id == 0 {
            publish.id = self.new_id();
        }
        self.publish(&publish);
        match publish.qos {
            0 => 0,
            1 => self.await_ack(PubAck, publish.id),
            _ => {
                let code = self.await_ack(PubRec, publish.id);
                if code < 0x80 {
                    self.ack(PubRel, publish.id);
                    assert_eq!(self.await_ack(PubComp, publish.id), 0);
                }
                code
            }
        }
    }

    /// Publishes at a QoS to the end of the flow.
    pub fn say(&mut self, qos: u8, topic: &str, payload: impl AsRef<[u8]>) -> u8 {
        self.deliver(&Publish::new(topic, payload).qos(qos, 0))
    }

    /// Bytes of a SUBSCRIBE.
    pub fn subscribe_bytes(&self, id: u16, filters: &[(&str, u8)], list: &[Prop]) -> Vec<u8> {
        let mut body = id.to_be_bytes().to_vec();
        body.extend(props_for(self.version, list));
        for (filter, options) in filters {
            body.extend(field(filter));
            body.push(*options);
        }
        frame(0x82, body)
    }

    /// Subscribes: the codes of the SUBACK.
    pub fn subscribe_all(&mut self, filters: &[(&str, u8)], list: &[Prop]) -> Vec<u8> {
        let id = self.new_id();
        let bytes = self.subscribe_bytes(id, filters, list);
        self.send(&bytes);
        self.await_suback(id)
    }

    /// Waits for the SUBACK with this identifier: its codes.
    pub fn await_suback(&mut self, id: u16) -> Vec<u8> {
        self.find("SUBACK", |packet| match packet {
            Packet::SubAck { id: i, codes, .. } if *i == id => Some(codes.clone()),
            _ => None,
        })
    }

    /// Subscribes to one filter; the code must be the QoS asked for.
    pub fn subscribe(&mut self, filter: &str, options: u8) {
        assert_eq!(self.subscribe_all(&[(filter, options)], &[]), [options & 3], "{}: {filter}", self.name);
    }

    /// Subscribes to one filter: the code.
    pub fn subscribe_code(&mut self, filter: &str, options: u8) -> u8 {
        let codes = self.subscribe_all(&[(filter, options)], &[]);
        assert_eq!(codes.len(), 1, "[MQTT5-3.8.4-6]");
        codes[0]
    }

    /// Unsubscribes: the codes of the UNSUBACK (none in 3.1.1).
    pub fn unsubscribe(&mut self, filters: &[&str]) -> Vec<u8> {
        let id = self.new_id();
        let mut body = id.to_be_bytes().to_vec();
        body.extend(props_for(self.version, &[]));
        for filter in filters {
            body.extend(field(filter));
        }
        self.send(&frame(0xA2, body));
        self.find("UNSUBACK", |packet| match packet {
            Packet::UnsubAck { id: i, codes, .. } if *i == id => Some(codes.clone()),
            _ => None,
        })
    }

    /// Sends PINGREQ and gives what came before the PINGRESP: all that the server had for this client until then.
    pub fn fence(&mut self) -> Vec<Packet> {
        self.send(&[0xC0, 0]);
        let mut before = Vec::new();
        loop {
            match self.recv() {
                Packet::PingResp => return before,
                packet => before.push(packet),
            }
        }
    }

    /// The server has nothing for this client.
    pub fn quiet(&mut self) {
        let before = self.fence();
        assert!(before.is_empty(), "{}: nothing expected, got {before:?}", self.name);
    }

    /// What comes until the server closes.
    pub fn closed(&mut self) -> Vec<Packet> {
        let mut before: Vec<Packet> = self.stash.drain(..).collect();
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.read_packet(deadline) {
                Ok(packet) => before.push(packet),
                Err(Lost::Closed) => return before,
                Err(Lost::Late) => panic!("{}: the server should have closed; it sent {before:?}", self.name),
            }
        }
    }

    /// What comes until the server closes, as bytes: for conversations whose version is in doubt.
    pub fn rest(&mut self) -> Vec<u8> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "{}: the server should have closed; it sent {:02x?}", self.name, self.input);
            self.stream.set_read_timeout(Some(left)).expect("read timeout");
            let mut chunk = [0; 16_384];
            match self.stream.read(&mut chunk) {
                Ok(count) if count > 0 => self.input.extend(&chunk[..count]),
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted) => {}
                _ => return std::mem::take(&mut self.input),
            }
        }
    }

    /// The server closes: in MQTT 5 after a DISCONNECT with one of these reason codes, in 3.1.1 without a word.
    /// Returns the properties of the DISCONNECT.
    pub fn thrown_out(&mut self, codes: &[u8]) -> Props {
        let before = self.closed();
        match (self.version, before.as_slice()) {
            (V311, []) => Props::default(),
            (V5, [Packet::Disconnect { code, props }]) if codes.contains(code) => props.clone(),
            (V5, []) if lenient() => Props::default(),
            _ => panic!("{}: DISCONNECT {codes:02x?} and the end expected, got {before:?} and the end", self.name),
        }
    }

    /// Sends DISCONNECT (normal) and waits until the server has closed, so that it knows.
    pub fn disconnect(mut self) {
        self.send(&[0xE0, 0]);
        let after = self.closed();
        assert!(!after.iter().any(|p| matches!(p, Packet::Disconnect { .. })), "{}: {after:?}", self.name);
    }

    /// Sends DISCONNECT with a reason code and properties and waits until the server has closed.
    pub fn disconnect_with(mut self, code: u8, list: &[Prop]) {
        let mut body = vec![code];
        body.extend(props(list));
        self.send(&frame(0xE0, body));
        let after = self.closed();
        assert!(!after.iter().any(|p| matches!(p, Packet::Disconnect { .. })), "{}: {after:?}", self.name);
    }

    /// Ends the connection without a DISCONNECT and waits until the server has closed its side, so that it knows.
    pub fn cut(mut self) {
        let _ = self.stream.shutdown(Shutdown::Write);
        let deadline = Instant::now() + PATIENCE;
        while self.read_packet(deadline).is_ok() {}
    }
}
