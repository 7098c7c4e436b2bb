//! The network between the two clients and the broker. The person's connection is never cut; the board's is.

use super::{Broker, Event, Wire, World};
use parlor_core::{LinkId, Now, Peer};
use parlor_protocol::link::{self, Decoded, Up};
use parlor_protocol::mqtt::{Packet, Version, decode};
use std::net::{IpAddr, Ipv4Addr};

/// Who is at the other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Who {
    Alice,
    Board,
}

/// One connection, seen from both ends.
#[derive(Debug)]
pub(super) struct Conn {
    who: Who,
    pub(super) hub: Option<LinkId>,
    /// The client still uses it.
    pub(super) used: bool,
    /// Nothing gets through any more, and nobody is told.
    dead: bool,
    wire: Wire,
    inbox: Vec<u8>,
    closing: bool,
    up_at: u64,
    down_at: u64,
}

impl World {
    pub(super) fn open(&mut self, who: Who) -> Option<usize> {
        // What an MQTT client speaks is known from its first packet.
        let wire = if who == Who::Board && self.plan.wire == Wire::Native { Wire::Native } else { Wire::V5 };
        let native = wire == Wire::Native;
        let peer = Peer { address: IpAddr::V4(Ipv4Addr::LOCALHOST), allow_anonymous: true, certificate: None, native };
        let hub = self.with_broker(|b, now| b.hub.open(now, &peer)).flatten()?;
        self.conns.push(Conn {
            who,
            hub: Some(hub),
            used: true,
            dead: false,
            wire,
            inbox: vec![],
            closing: false,
            up_at: 0,
            down_at: 0,
        });
        Some(self.conns.len() - 1)
    }

    fn wait(&mut self, who: Who) -> u64 {
        match who {
            Who::Alice => 1,
            Who::Board if self.rng.chance(5) => self.rng.between(20, 200),
            Who::Board => self.rng.below(6),
        }
    }

    pub(super) fn send(&mut self, conn: usize, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let most = if self.rng.chance(80) { rest.len() } else { 1 + self.rng.at(rest.len()) };
            let (piece, after) = rest.split_at(most);
            rest = after;
            let wait = self.wait(self.conns[conn].who);
            let c = &mut self.conns[conn];
            c.up_at = c.up_at.max(self.now_ms + wait);
            let wait = c.up_at - self.now_ms;
            self.after(wait, Event::Up(conn, piece.to_vec()));
        }
    }

    pub(super) fn up(&mut self, conn: usize, bytes: &[u8]) {
        let c = &mut self.conns[conn];
        if c.dead || c.hub.is_none() || c.closing {
            return;
        }
        c.inbox.extend_from_slice(bytes);
        self.note(11, bytes);
        self.feed(conn);
    }

    fn feed(&mut self, conn: usize) {
        let Some(link) = self.conns[conn].hub else { return };
        let mut inbox = std::mem::take(&mut self.conns[conn].inbox);
        let c = &mut self.conns[conn];
        let (who, wire) = (c.who, &mut c.wire);
        let trace = self.verbose.then_some((self.now_ms, who));
        let fed = match (&mut self.broker, *wire) {
            (Some(broker), Wire::Native) => {
                let now = broker.now(self.now_ms);
                feed_frames(broker, now, link, &inbox, trace)
            }
            (Some(broker), _) => {
                let now = broker.now(self.now_ms);
                feed_packets(broker, now, link, wire, &inbox, trace)
            }
            (None, _) => Ok(0),
        };
        match fed {
            Ok(used) => drop(inbox.drain(..used)),
            Err(error) => self.model.blame("what is sent is well formed", format!("{who:?} sent {error}")),
        }
        self.conns[conn].inbox = inbox;
    }

    pub(super) fn resume(&mut self, link: LinkId) {
        if let Some(conn) = self.conn_of(link) {
            self.feed(conn);
        }
    }

    fn conn_of(&self, link: LinkId) -> Option<usize> {
        self.conns.iter().rposition(|c| c.hub == Some(link))
    }

    /// The client is gone; what it has sent may still arrive, as far as `arrives` says.
    pub(super) fn leave(&mut self, conn: usize) {
        self.conns[conn].used = false;
        if !self.conns[conn].dead {
            let until = self.conns[conn].up_at.max(self.now_ms) - self.now_ms + 1;
            let wait = if self.calm || self.rng.chance(50) { until } else { self.rng.below(until) };
            self.after(wait, Event::UpEnd(conn));
        }
    }

    pub(super) fn up_end(&mut self, conn: usize) {
        self.note(12, &[]);
        self.broker_leaves(conn);
    }

    fn broker_leaves(&mut self, conn: usize) {
        if let Some(link) = self.conns[conn].hub.take() {
            self.with_broker(|b, now| b.hub.closed(now, link));
        }
        let c = &self.conns[conn];
        if c.used && !c.dead {
            let wait = c.down_at.max(self.now_ms) - self.now_ms + 1;
            self.after(wait, Event::DownEnd(conn));
        }
    }

    pub(super) fn closing(&mut self, link: LinkId) {
        let Some(conn) = self.conn_of(link) else { return };
        self.conns[conn].closing = true;
        self.flush(conn);
    }

    pub(super) fn flush_link(&mut self, link: LinkId) {
        if let Some(conn) = self.conn_of(link) {
            self.flush(conn);
        }
    }

    fn flush(&mut self, conn: usize) {
        let Some(link) = self.conns[conn].hub else { return };
        let Some(b) = &self.broker else { return };
        let mut rest = b.hub.output(link).to_vec();
        let all = rest.len();
        while !rest.is_empty() {
            let most = if self.rng.chance(80) { rest.len() } else { 1 + self.rng.at(rest.len()) };
            let piece: Vec<u8> = rest.drain(..most).collect();
            let wait = self.wait(self.conns[conn].who);
            let c = &mut self.conns[conn];
            c.down_at = c.down_at.max(self.now_ms + wait);
            let wait = c.down_at - self.now_ms;
            self.after(wait, Event::Down(conn, piece));
        }
        if all > 0 {
            self.with_broker(|b, now| b.hub.wrote(now, link, all));
        }
        if self.conns[conn].closing {
            self.broker_leaves(conn);
        }
    }

    pub(super) fn down(&mut self, conn: usize, bytes: &[u8]) {
        let c = &self.conns[conn];
        let who = c.who;
        if c.dead || !c.used {
            return;
        }
        self.note(13, bytes);
        match who {
            Who::Alice => self.alice_hears(conn, bytes),
            Who::Board => self.board_hears(bytes),
        }
    }

    pub(super) fn down_end(&mut self, conn: usize) {
        let c = &mut self.conns[conn];
        if !c.used || c.dead {
            return;
        }
        c.used = false;
        let who = c.who;
        self.note(14, &[]);
        match who {
            Who::Alice if self.alice.conn == Some(conn) => self.alice.conn = None,
            Who::Alice => {}
            Who::Board => self.board_lost(parlor_device::LinkError::Closed),
        }
    }

    /// A box on the way resets the connection: what was on its way is lost, from some moment on.
    pub(super) fn cut(&mut self, conn: usize) {
        self.say(|| "cut".into());
        self.model.count("cuts");
        let up = self.rng.below(20);
        self.after(up, Event::UpEnd(conn));
        let down = self.rng.below(20);
        self.after(down, Event::DownEnd(conn));
    }

    /// From now on nothing gets through, and nobody is told.
    pub(super) fn half_open(&mut self, conn: usize) {
        self.say(|| "nothing gets through".into());
        self.model.count("half-open connections");
        self.conns[conn].dead = true;
    }

    pub(super) fn broker_is_gone(&mut self) {
        for conn in 0..self.conns.len() {
            if self.conns[conn].hub.take().is_some() && self.conns[conn].used && !self.conns[conn].dead {
                let wait = self.rng.below(30);
                self.after(wait, Event::DownEnd(conn));
            }
        }
    }
}

/// For whom and when a line of the trace is.
type Trace = Option<(u64, Who)>;

/// Gives the broker the packets of `bytes`; how many bytes they were. An error: what is no packet.
fn feed_packets(
    broker: &mut Broker,
    now: Now,
    link: LinkId,
    wire: &mut Wire,
    bytes: &[u8],
    trace: Trace,
) -> Result<usize, String> {
    let mut at = 0;
    while broker.hub.may_read(link) {
        let version = if *wire == Wire::V311 { Version::V311 } else { Version::V5 };
        match decode(&bytes[at..], version, 1 << 20) {
            Ok(Some((packet, size))) => {
                if let Packet::Connect(connect) = &packet {
                    *wire = if connect.version == Version::V5 { Wire::V5 } else { Wire::V311 };
                }
                if let Some((now_ms, who)) = trace {
                    eprintln!("{now_ms:6} {who:?} -> {}", show(&packet));
                }
                broker.hub.packet(now, link, &packet, size);
                at += size;
            }
            Ok(None) => break,
            Err(error) => {
                broker.hub.malformed(now, link, &error, None);
                return Err(error.to_string());
            }
        }
    }
    Ok(at)
}

/// The same for the frames of the native link. The board is as old as the broker: it has no frame that the broker does not
/// know.
fn feed_frames(broker: &mut Broker, now: Now, link: LinkId, bytes: &[u8], trace: Trace) -> Result<usize, String> {
    let mut at = 0;
    while broker.hub.may_read(link) {
        match link::decode_frame::<Up<'_>>(&bytes[at..], link::SIZE_MAX) {
            Ok(Some((Decoded::Frame(frame), size))) => {
                if let Some((now_ms, who)) = trace {
                    eprintln!("{now_ms:6} {who:?} -> {frame:?}");
                }
                broker.hub.frame(now, link, &frame, size);
                at += size;
            }
            Ok(Some((Decoded::Unknown { tag, size: _ }, size))) => {
                broker.hub.unknown_frame(now, link, tag, size);
                return Err(format!("a frame of the unknown kind {tag}"));
            }
            Ok(None) => break,
            Err(error) => {
                broker.hub.malformed_frame(now, link, &error);
                return Err(error.to_string());
            }
        }
    }
    Ok(at)
}

pub(super) fn show(packet: &Packet<'_>) -> String {
    match packet {
        Packet::Publish(p) => format!(
            "PUBLISH {} {:?} dup {} {}",
            p.topic,
            p.packet_id.map(parlor_protocol::mqtt::PacketId::value),
            p.dup,
            String::from_utf8_lossy(p.payload)
        ),
        packet => format!("{packet:?}"),
    }
}
