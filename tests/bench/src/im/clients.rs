//! Many messaging clients on one thread: each reads what comes, acknowledges it, and tells the load what it was.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use base64ct::{Base64UrlUnpadded, Encoding};
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use super::ImError;
use crate::client::LoadError;
use crate::wire::{self, Packet};

const READ_BUFFER: usize = 4 << 20;
/// Nothing has come for so long: something is lost.
const STALL_SECS: u64 = 10;
/// Connections that are being made at the same time.
const AT_ONCE: usize = 64;

/// What a client was sent.
#[derive(Debug, Clone, Copy)]
pub(super) enum Event<'a> {
    /// PUBACK of a message of its own.
    Acked,
    /// A PUBLISH: topic, and payload.
    Got { topic: &'a [u8], payload: &'a [u8] },
}

struct Client {
    stream: TcpStream,
    out: Vec<u8>,
    held: Vec<u8>,
    queued: bool,
    next_id: u16,
}

/// The clients.
pub(super) struct Clients {
    poll: Poll,
    events: Events,
    buffer: Box<[u8]>,
    all: Vec<Client>,
    dirty: Vec<usize>,
    last: Instant,
}

/// A token that lets an account in, signed with the broker's key.
pub(crate) fn token(key: &[u8], account: &str) -> String {
    let part = |text: &str| Base64UrlUnpadded::encode_string(text.as_bytes());
    let head = part(r#"{"alg":"HS256","typ":"JWT"}"#);
    // The one who announces is one of the operator's people.
    let groups = if account == "boss" { r#","groups":["admins"]"# } else { "" };
    let body = part(&format!(r#"{{"sub":"{account}","exp":4102444800{groups}}}"#));
    let signed = format!("{head}.{body}");
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, key);
    let signature = Base64UrlUnpadded::encode_string(ring::hmac::sign(&key, signed.as_bytes()).as_ref());
    format!("{signed}.{signature}")
}

impl Clients {
    pub(super) fn new() -> Result<Self, ImError> {
        Ok(Self {
            poll: Poll::new()?,
            events: Events::with_capacity(1024),
            buffer: vec![0; READ_BUFFER].into(),
            all: vec![],
            dirty: vec![],
            last: Instant::now(),
        })
    }

    /// Connects accounts `u0`, `u1`, …, each with one terminal and these subscriptions.
    pub(super) fn connect(
        &mut self,
        broker: SocketAddr,
        key: &[u8],
        names: impl Iterator<Item = String>,
        filters: &[&str],
    ) -> Result<(), ImError> {
        let mut waiting = vec![];
        for name in names {
            let mut stream = std::net::TcpStream::connect(broker)?;
            stream.set_nodelay(true)?;
            let mut hello = vec![];
            let mut body = vec![0, 4, b'M', b'Q', b'T', b'T', 4, 0b1100_0010, 2, 88];
            let mut put = |bytes: &[u8]| {
                body.extend_from_slice(&(bytes.len() as u16).to_be_bytes());
                body.extend_from_slice(bytes);
            };
            put(format!("{name}-phone").as_bytes());
            put(name.as_bytes());
            put(token(key, &name).as_bytes());
            wire::frame(&mut hello, wire::CONNECT, &body);
            for filter in filters {
                wire::subscribe(&mut hello, wire::Version::V3, filter, 1);
            }
            stream.write_all(&hello)?;
            waiting.push(stream);
            if waiting.len() >= AT_ONCE {
                self.adopt(&mut waiting, filters.len())?;
            }
        }
        self.adopt(&mut waiting, filters.len())
    }

    /// Waits until each has its CONNACK and SUBACKs; what comes behind them is read later.
    fn adopt(&mut self, waiting: &mut Vec<std::net::TcpStream>, filters: usize) -> Result<(), ImError> {
        for mut stream in waiting.drain(..) {
            stream.set_read_timeout(Some(Duration::from_secs(STALL_SECS)))?;
            let mut bytes = vec![0; 4 + 5 * filters];
            stream.read_exact(&mut bytes)?;
            if bytes[0] != wire::CONNACK || bytes[3] != 0 {
                return Err(LoadError::Refused { first: bytes[0], code: bytes[3] }.into());
            }
            stream.set_nonblocking(true)?;
            let token = Token(self.all.len());
            let mut stream = TcpStream::from_std(stream);
            self.poll.registry().register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
            self.all.push(Client { stream, out: vec![], held: vec![], queued: false, next_id: 1 });
        }
        Ok(())
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// Publishes at QoS 1; the packet identifier.
    pub(super) fn publish(&mut self, from: usize, topic: &str, payload: &[u8]) -> u16 {
        let client = &mut self.all[from];
        let id = client.next_id;
        client.next_id = if id == u16::MAX { 1 } else { id + 1 };
        let mut body = Vec::with_capacity(topic.len() + payload.len() + 4);
        body.extend_from_slice(&(topic.len() as u16).to_be_bytes());
        body.extend_from_slice(topic.as_bytes());
        body.extend_from_slice(&id.to_be_bytes());
        body.extend_from_slice(payload);
        wire::frame(&mut client.out, wire::PUBLISH | 2, &body);
        self.queue(from);
        id
    }

    fn queue(&mut self, number: usize) {
        if !std::mem::replace(&mut self.all[number].queued, true) {
            self.dirty.push(number);
        }
    }

    /// Writes what waits, waits for what comes, and hands it to `take`. False: nothing came for a long time.
    pub(super) fn turn(&mut self, take: &mut dyn FnMut(usize, Event<'_>)) -> Result<bool, ImError> {
        self.flush()?;
        match self.poll.poll(&mut self.events, Some(Duration::from_millis(200))) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
        let ready: Vec<(usize, bool, bool)> =
            self.events.iter().map(|e| (e.token().0, e.is_readable(), e.is_writable())).collect();
        if !ready.is_empty() {
            self.last = Instant::now();
        }
        for (number, readable, writable) in ready {
            if readable {
                self.read(number, take)?;
            }
            if writable && !self.all[number].out.is_empty() {
                self.queue(number);
            }
        }
        self.flush()?;
        Ok(self.last.elapsed() < Duration::from_secs(STALL_SECS))
    }

    fn flush(&mut self) -> Result<(), ImError> {
        for number in std::mem::take(&mut self.dirty) {
            let client = &mut self.all[number];
            client.queued = false;
            while !client.out.is_empty() {
                match client.stream.write(&client.out) {
                    Ok(0) => return Err(LoadError::Closed.into()),
                    Ok(n) => drop(client.out.drain(..n)),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(())
    }

    fn read(&mut self, number: usize, take: &mut dyn FnMut(usize, Event<'_>)) -> Result<(), ImError> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let result = self.read_into(number, &mut buffer, take);
        self.buffer = buffer;
        result
    }

    fn read_into(
        &mut self,
        number: usize,
        buffer: &mut [u8],
        take: &mut dyn FnMut(usize, Event<'_>),
    ) -> Result<(), ImError> {
        loop {
            let held = std::mem::take(&mut self.all[number].held);
            buffer[..held.len()].copy_from_slice(&held);
            let read = self.all[number].stream.read(&mut buffer[held.len()..]);
            let len = match read {
                Ok(0) => return Err(LoadError::Closed.into()),
                Ok(n) => held.len() + n,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.all[number].held = held;
                    return Ok(());
                }
                Err(error) => return Err(error.into()),
            };
            let mut at = 0;
            while let Some(packet) = wire::split(&buffer[at..len]).map_err(LoadError::from)? {
                at += packet.len;
                self.packet(number, &packet, take)?;
            }
            self.all[number].held = buffer[at..len].to_vec();
            if len < buffer.len() {
                // The socket is empty, or will say so at the next event.
                if len - at == 0 || len < buffer.len() / 2 {
                    return Ok(());
                }
            }
        }
    }

    fn packet(
        &mut self,
        number: usize,
        packet: &Packet<'_>,
        take: &mut dyn FnMut(usize, Event<'_>),
    ) -> Result<(), ImError> {
        match packet.first & 0xF0 {
            wire::PUBACK => take(number, Event::Acked),
            wire::PUBLISH => {
                let publish = wire::read_publish(wire::Version::V3, packet).map_err(LoadError::from)?;
                if publish.qos == 1 {
                    wire::acknowledge(&mut self.all[number].out, wire::PUBACK, publish.id);
                    self.queue(number);
                }
                let topic_len = usize::from(u16::from_be_bytes([packet.body[0], packet.body[1]]));
                take(number, Event::Got { topic: &packet.body[2..2 + topic_len], payload: publish.payload });
            }
            _ => {}
        }
        Ok(())
    }
}

/// The number behind `"key":` at or after the start of a payload.
pub(super) fn field(payload: &[u8], key: &[u8]) -> Option<u64> {
    let at = payload.windows(key.len()).position(|window| window == key)? + key.len();
    let digits = payload[at..].iter().take_while(|byte| byte.is_ascii_digit());
    let mut value = 0;
    let mut some = false;
    for digit in digits {
        value = value * 10 + u64::from(digit - b'0');
        some = true;
    }
    some.then_some(value)
}
