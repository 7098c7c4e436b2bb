//! The network: bytes that take their time, connections that end anywhere, and peers that are silently gone.

use super::wills::End;
use super::{Event, Phase, World};
use crate::checkers::Class;
use parlor_core::{LinkId, Peer};
use parlor_protocol::mqtt::{Packet, Version, decode};
use std::net::{IpAddr, Ipv4Addr};

/// Bytes a socket holds for a client that does not read them.
const WINDOW: usize = 8 * 1024;
/// How long the broker waits for a client to read its last bytes, milliseconds.
const LINGER_MS: u64 = 1_000;

/// One connection, seen from both ends.
#[derive(Debug)]
#[allow(clippy::struct_excessive_bools, reason = "each is a fact of its own, and all combinations occur")]
pub(super) struct Conn {
    pub(super) client: usize,
    /// The broker's end, while it has one.
    pub(super) hub: Option<LinkId>,
    pub(super) began_ms: u64,
    /// When the client last sent something.
    pub(super) spoke_ms: u64,
    /// The client still uses it.
    used: bool,
    /// Nothing gets through any more, and nobody is told.
    dead: bool,
    /// The client does not read.
    deaf: bool,
    version: Version,
    inbox: Vec<u8>,
    heard: Vec<u8>,
    unread: Vec<u8>,
    closing: bool,
    up_at: u64,
    down_at: u64,
    up_bytes: usize,
    down_bytes: usize,
    /// After a cut, so many of the bytes on their way still arrive.
    up_left: Option<usize>,
    down_left: Option<usize>,
    /// DISCONNECT that takes the will back was sent.
    goodbye: bool,
    /// CONNACK arrived.
    open: bool,
    /// The will of this connection was dealt with.
    pub(super) over: bool,
    pub(super) will: Option<super::client::WillOf>,
}

impl Conn {
    pub(super) fn link(&self) -> LinkId {
        self.hub.unwrap_or(LinkId { slot: u32::MAX, generation: 0 })
    }

    /// Nothing is on its way, and nothing but the beginning of a packet waits to be read.
    pub(super) fn is_quiet(&self) -> bool {
        let partial =
            parlor_protocol::mqtt::frame_len(&self.inbox).ok().flatten().is_none_or(|len| len > self.inbox.len());
        self.dead || (partial && self.up_bytes == 0 && self.down_bytes == 0 && self.unread.is_empty() && !self.closing)
    }

    pub(super) fn state(&self) -> String {
        format!(
            "{} bytes not read by the broker, {} not by the client, {} up, {} down, closing {}, used {}",
            self.inbox.len(),
            self.unread.len(),
            self.up_bytes,
            self.down_bytes,
            self.closing,
            self.used
        )
    }

    /// Whether the will of this connection is promised.
    pub(super) fn will_is_set(&self) -> bool {
        self.open && !self.over
    }

    pub(super) fn said_goodbye(&self) -> bool {
        self.goodbye
    }
}

impl World<'_> {
    // ---- From the client ---------------------------------------------------------------------------------------

    /// Opens a connection and sends CONNECT; an older connection is left as it is.
    pub(super) fn connect(&mut self, number: usize, clean: bool) {
        if let Some(old) = self.uses[number].take() {
            self.conns[old].used = false;
        }
        let conn = self.conns.len();
        // What the client sent on older connections is not overtaken by this CONNECT: otherwise an old CONNECT could take
        // over from a newer one, and no client could tell.
        let sent_before = self.conns.iter().filter(|c| c.client == number).map(|c| c.up_at).max().unwrap_or(0);
        self.wills.attempt(&mut self.ledger, number, conn, self.now_ms);
        self.clients[number].connect(&mut self.ledger, clean, self.now_ms);
        let mut hub = None;
        if self.broker.as_ref().is_some_and(|b| !b.stopping) {
            let peer = Peer {
                address: IpAddr::V4(Ipv4Addr::LOCALHOST),
                allow_anonymous: true,
                certificate: None,
                native: false,
            };
            hub = self.with_broker(|b, now| b.hub.open(now, &peer)).flatten();
        }
        self.conns.push(Conn {
            client: number,
            hub,
            began_ms: self.now_ms,
            spoke_ms: self.now_ms,
            used: true,
            dead: false,
            deaf: false,
            version: Version::V311,
            inbox: vec![],
            heard: vec![],
            unread: vec![],
            closing: false,
            up_at: sent_before,
            down_at: 0,
            up_bytes: 0,
            down_bytes: 0,
            up_left: None,
            down_left: None,
            goodbye: false,
            open: false,
            over: false,
            will: self.clients[number].will,
        });
        self.uses[number] = Some(conn);
        self.note(10, conn, &[]);
        if hub.is_none() {
            let wait = self.rng.between(1, 20);
            self.after(wait, Event::DownEnd(conn));
        }
    }

    /// Gives what a client has written to the network.
    pub(super) fn send_out(&mut self, number: usize) {
        let bytes = std::mem::take(&mut self.clients[number].out);
        let Some(conn) = self.uses[number].filter(|_| !bytes.is_empty()) else { return };
        self.conns[conn].spoke_ms = self.now_ms;
        // A write may arrive in pieces.
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let most = if self.rng.chance(70) { rest.len() } else { 1 + self.rng.at(rest.len()) };
            let (piece, after) = rest.split_at(most);
            rest = after;
            let wait = if self.rng.chance(5) { self.rng.between(20, 200) } else { self.rng.below(6) };
            let c = &mut self.conns[conn];
            c.up_at = c.up_at.max(self.now_ms + wait);
            c.up_bytes += piece.len();
            let wait = c.up_at - self.now_ms;
            self.after(wait, Event::Up(conn, piece.to_vec()));
        }
    }

    pub(super) fn goodbye(&mut self, number: usize, with_will: bool) {
        let Some(conn) = self.uses[number] else { return };
        self.clients[number].disconnect(with_will);
        self.conns[conn].goodbye |= !with_will;
        self.send_out(number);
        self.leave(number);
        let c = &self.conns[conn];
        let wait = c.up_at.max(self.now_ms) - self.now_ms + 1;
        self.after(wait, Event::UpEnd(conn));
    }

    /// The client stops using its connection.
    fn leave(&mut self, number: usize) {
        if let Some(conn) = self.uses[number].take() {
            self.conns[conn].used = false;
        }
        self.clients[number].lost_connection(&mut self.ledger);
    }

    /// The client's program dies, or its system closes the socket: what is on its way may still arrive.
    pub(super) fn cut_by_client(&mut self, number: usize) {
        let Some(conn) = self.uses[number] else { return };
        self.leave(number);
        self.cut_up(conn);
    }

    fn cut_up(&mut self, conn: usize) {
        let left = self.rng.at(self.conns[conn].up_bytes + 1);
        let c = &mut self.conns[conn];
        c.up_left.get_or_insert(left);
        let wait = c.up_at.max(self.now_ms) - self.now_ms + 1;
        self.after(wait, Event::UpEnd(conn));
    }

    fn cut_down(&mut self, conn: usize) {
        let left = self.rng.at(self.conns[conn].down_bytes + 1);
        let c = &mut self.conns[conn];
        c.down_left.get_or_insert(left);
        let wait = c.down_at.max(self.now_ms) - self.now_ms + 1;
        self.after(wait, Event::DownEnd(conn));
    }

    /// A box on the way resets the connection: both ends hear of it.
    pub(super) fn cut_by_network(&mut self, number: usize) {
        let Some(conn) = self.uses[number] else { return };
        self.cut_up(conn);
        self.cut_down(conn);
    }

    /// From now on nothing gets through. The client notices after a while, the broker by its keep alive.
    pub(super) fn half_open(&mut self, number: usize) {
        let Some(conn) = self.uses[number] else { return };
        self.conns[conn].dead = true;
        let wait = self.rng.between(50, 3_000);
        self.after(wait, Event::Notice(conn));
    }

    pub(super) fn notice(&mut self, conn: usize) {
        if self.conns[conn].used {
            self.leave(self.conns[conn].client);
        }
    }

    pub(super) fn stop_reading(&mut self, number: usize) {
        let Some(conn) = self.uses[number].filter(|c| !self.conns[*c].deaf) else { return };
        self.conns[conn].deaf = true;
        let wait = self.rng.between(100, 3_000);
        self.after(wait, Event::ReadOn(conn));
    }

    pub(super) fn read_on(&mut self, conn: usize) {
        self.conns[conn].deaf = false;
        let bytes = std::mem::take(&mut self.conns[conn].unread);
        if !bytes.is_empty() {
            self.conns[conn].down_bytes -= bytes.len();
            self.hear(conn, &bytes);
        }
        self.flush(conn);
    }

    // ---- At the broker -----------------------------------------------------------------------------------------

    pub(super) fn up(&mut self, conn: usize, mut bytes: Vec<u8>) {
        let c = &mut self.conns[conn];
        c.up_bytes -= bytes.len();
        if let Some(left) = &mut c.up_left {
            bytes.truncate(*left);
            *left -= bytes.len();
        }
        if c.dead || c.hub.is_none() || c.closing {
            return;
        }
        c.inbox.extend_from_slice(&bytes);
        self.note(11, conn, &bytes);
        self.feed(conn);
    }

    /// Hands every whole packet to the hub, as long as it takes them.
    fn feed(&mut self, conn: usize) {
        let max = u32::try_from(self.plan.limits.packet_bytes_max).expect("a packet size");
        let (Some(mut b), Some(link)) = (self.broker.take(), self.conns[conn].hub) else { return };
        let now = self.now(&b);
        let c = &mut self.conns[conn];
        let mut at = 0;
        while !c.closing && b.hub.may_read(link) {
            match decode(&c.inbox[at..], c.version, max) {
                Ok(Some((packet, size))) => {
                    if let Packet::Connect(connect) = &packet {
                        c.version = connect.version;
                    }
                    if self.verbose {
                        eprintln!("{:6} [{conn}] {} -> {packet:?}", self.now_ms, self.clients[c.client].character.name);
                    }
                    b.hub.packet(now, link, &packet, size);
                    at += size;
                }
                Ok(None) => break,
                Err(error) => {
                    let text =
                        format!("what {} sent was called malformed: {error}", self.clients[c.client].character.name);
                    self.ledger.blame(Class::Protocol, text);
                    b.hub.malformed(now, link, &error, None);
                    break;
                }
            }
        }
        c.inbox.drain(..at);
        self.broker = Some(b);
    }

    pub(super) fn resume(&mut self, link: LinkId) {
        if let Some(conn) = self.conn_of(link) {
            self.feed(conn);
        }
    }

    fn conn_of(&self, link: LinkId) -> Option<usize> {
        self.conns.iter().rposition(|c| c.hub == Some(link))
    }

    pub(super) fn up_end(&mut self, conn: usize) {
        let c = &self.conns[conn];
        if c.dead || c.hub.is_none() {
            return;
        }
        self.note(12, conn, &[]);
        if self.verbose {
            eprintln!("{:6} [{conn}] end seen by the broker", self.now_ms);
        }
        // Bytes the hub did not want to read yet are lost with the connection, as in the broker's driver.
        self.broker_leaves(conn, End::Lost);
    }

    /// The hub has ended a link: what is left is written, then the socket closes.
    pub(super) fn closing(&mut self, link: LinkId) {
        let Some(conn) = self.conn_of(link) else { return };
        self.conns[conn].closing = true;
        let c = &self.conns[conn];
        let all_read = c.inbox.is_empty() && c.up_bytes == 0 && c.up_left.is_none();
        let stopping = self.broker.as_ref().is_some_and(|b| b.stopping);
        let end = if stopping {
            End::Stopped
        } else if c.goodbye && all_read && self.uses[c.client].is_none() {
            End::Goodbye
        } else {
            End::Lost
        };
        self.end_will(conn, end);
        self.flush(conn);
        if self.conns[conn].hub.is_some() {
            self.after(LINGER_MS, Event::Linger(conn));
        }
    }

    pub(super) fn linger_over(&mut self, conn: usize) {
        if self.conns[conn].hub.is_some() {
            self.broker_leaves(conn, End::Lost);
        }
    }

    fn broker_leaves(&mut self, conn: usize, end: End) {
        self.end_will(conn, end);
        if let Some(link) = self.conns[conn].hub.take() {
            self.with_broker(|b, now| b.hub.closed(now, link));
        }
        let c = &self.conns[conn];
        if c.used && !c.dead {
            let wait = c.down_at.max(self.now_ms) - self.now_ms + 1;
            self.after(wait, Event::DownEnd(conn));
        }
    }

    fn end_will(&mut self, conn: usize, end: End) {
        let c = &mut self.conns[conn];
        if std::mem::replace(&mut c.over, true) {
            return;
        }
        let (client, will, open, goodbye) = (c.client, c.will, c.open, c.goodbye);
        let Some(will) = will.filter(|_| open) else { return };
        let end = if goodbye && end == End::Lost { End::Unknown } else { end };
        let persistent = self.clients[client].character.persistent;
        // While a newer CONNECT is on its way, only its answer tells.
        let attempt = self.uses[client].filter(|_| self.clients[client].phase == Phase::Connecting);
        self.wills.over(&mut self.ledger, client, will, end, persistent, attempt, self.now_ms);
    }

    pub(super) fn flush_link(&mut self, link: LinkId) {
        if let Some(conn) = self.conn_of(link) {
            self.flush(conn);
        }
    }

    /// Writes what the socket takes; partly, at times.
    fn flush(&mut self, conn: usize) {
        loop {
            let Some(link) = self.conns[conn].hub else { return };
            let Some(b) = &self.broker else { return };
            let out = b.hub.output(link);
            if out.is_empty() {
                if self.conns[conn].closing {
                    self.broker_leaves(conn, End::Lost);
                }
                return;
            }
            let room = WINDOW.saturating_sub(self.conns[conn].down_bytes);
            let most = out.len().min(room);
            if most == 0 {
                return;
            }
            let n = if self.rng.chance(80) { most } else { 1 + self.rng.at(most) };
            let bytes = out[..n].to_vec();
            self.note(13, conn, &bytes);
            self.with_broker(|b, now| b.hub.wrote(now, link, n));
            let wait = if self.rng.chance(5) { self.rng.between(20, 200) } else { self.rng.below(6) };
            let c = &mut self.conns[conn];
            c.down_bytes += n;
            c.down_at = c.down_at.max(self.now_ms + wait);
            let wait = c.down_at - self.now_ms;
            self.after(wait, Event::Down(conn, bytes));
        }
    }

    /// The broker is gone, after a power cut or an orderly stop: so are all its connections.
    pub(super) fn cut_everybody(&mut self, crash: bool) {
        for conn in 0..self.conns.len() {
            if self.conns[conn].hub.take().is_none() {
                continue;
            }
            if crash {
                let left = self.rng.at(self.conns[conn].down_bytes + 1);
                let c = &mut self.conns[conn];
                c.down_left.get_or_insert(left);
                if let Some(will) = c.will.filter(|_| c.will_is_set()) {
                    let (client, goodbye) = (c.client, c.said_goodbye());
                    let persistent = self.clients[client].character.persistent;
                    let end = if goodbye { End::Unknown } else { End::PowerCut };
                    let attempt = self.uses[client].filter(|_| self.clients[client].phase == Phase::Connecting);
                    self.wills.over(&mut self.ledger, client, will, end, persistent, attempt, self.now_ms);
                }
                self.conns[conn].over = true;
            }
            let c = &mut self.conns[conn];
            c.inbox.clear();
            if c.used && !c.dead {
                let wait = c.down_at.max(self.now_ms) - self.now_ms + 1;
                self.after(wait, Event::DownEnd(conn));
            }
        }
        if crash {
            self.wills.crashed(&mut self.ledger, self.now_ms);
        }
    }

    // ---- At the client -----------------------------------------------------------------------------------------

    pub(super) fn down(&mut self, conn: usize, mut bytes: Vec<u8>) {
        let c = &mut self.conns[conn];
        if c.deaf && c.used && c.down_left.is_none() {
            // Still in the socket's buffer.
            c.unread.extend_from_slice(&bytes);
            return;
        }
        c.down_bytes -= bytes.len();
        if let Some(left) = &mut c.down_left {
            bytes.truncate(*left);
            *left -= bytes.len();
        }
        let waiting = std::mem::take(&mut c.unread);
        if !waiting.is_empty() {
            c.down_bytes -= waiting.len();
            self.hear(conn, &waiting);
        }
        self.hear(conn, &bytes);
        self.flush(conn);
    }

    fn hear(&mut self, conn: usize, bytes: &[u8]) {
        let c = &mut self.conns[conn];
        if c.dead || !c.used {
            return;
        }
        let number = c.client;
        c.heard.extend_from_slice(bytes);
        let heard = std::mem::take(&mut c.heard);
        let version = self.clients[number].character.version;
        let mut at = 0;
        loop {
            match decode(&heard[at..], version, u32::MAX) {
                Ok(Some((packet, size))) => {
                    at += size;
                    if !self.hear_packet(conn, number, &packet) {
                        self.cut_by_client(number);
                        return;
                    }
                }
                Ok(None) => break,
                Err(error) => {
                    let text = format!("{} got bytes that are no packet: {error}", self.clients[number].character.name);
                    self.ledger.blame(Class::Protocol, text);
                    self.cut_by_client(number);
                    return;
                }
            }
        }
        self.conns[conn].heard = heard[at..].to_vec();
        self.send_out(number);
    }

    fn hear_packet(&mut self, conn: usize, number: usize, packet: &Packet<'_>) -> bool {
        if self.verbose {
            eprintln!("{:6} [{conn}] {} <- {packet:?}", self.now_ms, self.clients[number].character.name);
        }
        if let (Some((probe, found)), Packet::Publish(p)) = (&mut self.probe, packet)
            && *probe == number
            && p.retain
        {
            found.insert(p.topic.to_owned(), p.payload.to_vec());
        }
        let going_on = self.clients[number].hear(&mut self.ledger, packet, self.now_ms);
        if let Packet::ConnAck(c) = packet
            && going_on
        {
            self.conns[conn].open = true;
            self.wills.opened(&mut self.ledger, number, conn, c.session_present, self.now_ms);
        }
        going_on
    }

    pub(super) fn down_end(&mut self, conn: usize) {
        let c = &mut self.conns[conn];
        if !c.used || c.dead {
            return;
        }
        let unread = std::mem::take(&mut c.unread);
        if !unread.is_empty() {
            c.down_bytes -= unread.len();
            self.hear(conn, &unread);
        }
        if self.conns[conn].used {
            self.note(14, conn, &[]);
            self.leave(self.conns[conn].client);
            // Its own side closes too.
            self.cut_up(conn);
        }
    }
}
