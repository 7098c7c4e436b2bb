//! Further streams of one connection: MQTT over QUIC has them, and the native link's answers and datagrams.
//!
//! A stream is a link of its own as far as bytes go (its output, its pauses, its end) and acts for the session of its
//! connection, which its first stream stands for. It lives no longer than that. Answers go where the packet came; when
//! that stream is gone by then, they go to the connection. Deliveries go where the road of their topic leads
//! ([`crate::roads`]).

use super::{Hub, Now, narrow};
use crate::link::{LinkId, Phase, StreamKind, pause};
use crate::session::Ready;
use parlor_protocol::mqtt::{Packet, ReasonCode};
use parlor_protocol::topic;

impl Hub {
    // ---- Events in -------------------------------------------------------------------------------------------

    /// A further stream of a connection. `None`: CONNACK was not sent yet, the connection has ended, or it has
    /// `quic_streams_max` streams already; refuse the stream.
    pub fn open_stream(&mut self, now: Now, parent: LinkId, kind: StreamKind) -> Option<LinkId> {
        if !self.is_connected(parent) {
            return None;
        }
        let main = parent.slot;
        let streams = self.streams_of(main);
        // Those that are gone and only wait for the disk are not the client's fault, and bounded by what it may publish.
        let live = streams.iter().filter(|s| self.links[**s as usize].phase != Phase::Gone).count() as u64;
        let most = self.limits.quic_streams_max;
        if live >= most || streams.len() as u64 >= most.saturating_mul(2) {
            self.counters.limits.add("quic_streams_max");
            let client = self.name_of(main);
            self.notices.push(now.ms, "quic_streams_max", || {
                format!("client {client:?} opens more than {most} streams: further ones are refused (limits.quic_streams_max)")
            });
            return None;
        }
        self.generation = self.generation.wrapping_add(1);
        let link = self.links[main as usize].new_stream(self.generation, main, kind);
        let slot = narrow(self.links.insert(link));
        self.streams += 1;
        self.links[main as usize].extra().streams.push(slot);
        Some(LinkId { slot, generation: self.generation })
    }

    /// A stream has said all it has to say. Its subscriptions are delivered on the connection's first stream from now on;
    /// it gets the answers that wait for the disk, then [`super::Effect::Close`] follows.
    pub fn finish(&mut self, now: Now, stream: LinkId) {
        if !self.is_current(stream) || self.links[stream.slot as usize].stream.is_none() || !self.is_open(stream.slot) {
            return;
        }
        self.set_phase(stream.slot, Phase::Ending);
        self.retire(stream.slot);
        self.end_roads(now, stream.slot);
    }

    /// The client will say nothing more on this stream. As [`Hub::finish`], but a request that came on it is answered first.
    pub fn hear_no_more(&mut self, now: Now, stream: LinkId) {
        let awaits_answer = self.is_current(stream) && {
            let l = &self.links[stream.slot as usize];
            l.stream == Some(StreamKind::Bulk) && l.extra.as_ref().is_some_and(|extra| extra.has_request)
        };
        if !awaits_answer {
            self.finish(now, stream);
        }
    }

    /// Deliveries whose topic matches `filter` take this stream from now on, until it ends. True if they do; false: the
    /// stream is not open, this is no filter, or the session has as many roads as it may have subscriptions.
    ///
    /// It subscribes to nothing. SUBSCRIBE on another stream and UNSUBSCRIBE of the same filter end it.
    pub fn set_road(&mut self, stream: LinkId, filter: &str) -> bool {
        let Some(kind) = self.links.get(stream.slot as usize).and_then(|l| l.stream) else { return false };
        if !self.is_current(stream) || !self.is_open(stream.slot) || topic::check_filter(filter).is_err() {
            return false;
        }
        let key = self.links[stream.slot as usize].session;
        let most = self.limits.subscriptions_per_session_max;
        let Some(s) = self.sessions.get_mut(key as usize) else { return false };
        let roads = s.flow.get_or_insert_default().roads.get_or_insert_default();
        let fits = roads.has(filter) || (roads.len() as u64) < most;
        if fits {
            roads.set(filter, stream.slot, kind == StreamKind::Datagrams);
        }
        fits
    }

    /// Whether CONNACK was sent on this connection, which is no further stream of another, and nothing has ended it.
    pub fn is_connected(&self, link: LinkId) -> bool {
        self.is_current(link) && self.is_open(link.slot) && self.links[link.slot as usize].stream.is_none()
    }

    /// Why a connection was ended by the hub, for transports that can say it beside MQTT.
    pub fn farewell(&self, link: LinkId) -> Option<(ReasonCode, &str)> {
        let extra = self.links.get(link.slot as usize).filter(|l| l.generation == link.generation)?.extra.as_ref()?;
        extra.farewell.as_ref().map(|(reason, text)| (*reason, &**text))
    }

    /// Whether the driver translates for this link ([`crate::Peer::native`]).
    pub fn is_native(&self, link: LinkId) -> bool {
        self.is_current(link) && self.links[link.slot as usize].native
    }

    // ---- Shared by the rooms ---------------------------------------------------------------------------------

    /// The connection of a stream; a connection's own place.
    #[inline]
    pub(super) fn main_of(&self, slot: u32) -> u32 {
        let l = &self.links[slot as usize];
        match (l.stream, &l.extra) {
            (Some(_), Some(extra)) => extra.parent,
            _ => slot,
        }
    }

    pub(super) fn streams_of(&self, main: u32) -> &[u32] {
        self.links[main as usize].extra.as_ref().map_or(&[], |extra| &extra.streams)
    }

    /// Connections, without their further streams.
    pub(super) fn connections(&self) -> u64 {
        self.links.len().saturating_sub(self.streams) as u64
    }

    /// A packet came on a stream: its client is heard. False: it is one that only the first stream may carry, and the
    /// connection has ended of it.
    pub(super) fn heard_on_stream(&mut self, now: Now, slot: u32, packet: &Packet<'_>) -> bool {
        let main = self.main_of(slot);
        self.links[main as usize].last_packet_ms = now.ms;
        let fits = !matches!(packet, Packet::Connect(_) | Packet::Disconnect(_) | Packet::Auth(_));
        if !fits && self.is_open(slot) {
            let text = "CONNECT, DISCONNECT and AUTH belong on the first stream of the connection";
            self.refuse(now, main, ReasonCode::PROTOCOL_ERROR, "control_packet_on_stream", text);
        }
        fits
    }

    /// Where an answer to something that came on this link goes.
    pub(super) fn outlet_of(&self, slot: u32) -> Option<u32> {
        let outlet = match self.links[slot as usize].phase {
            Phase::Ending => return Some(slot),
            Phase::Gone => self.main_of(slot),
            _ => slot,
        };
        self.is_open(outlet).then_some(outlet)
    }

    /// Goes on with the end of a stream when nothing of it waits any more.
    pub(super) fn retire(&mut self, slot: u32) {
        let l = &self.links[slot as usize];
        if l.deferred > 0 || l.paused & pause::LOOKUP != 0 {
            return;
        }
        match l.phase {
            Phase::Ending => self.hang_up(slot),
            Phase::Gone => self.forget_stream(slot),
            _ => {}
        }
    }

    /// A stream is gone, its connection is not (or was before).
    pub(super) fn stream_closed(&mut self, now: Now, slot: u32) {
        let phase = self.links[slot as usize].phase;
        match phase {
            Phase::Gone => {}
            Phase::Open | Phase::Ending => {
                self.set_phase(slot, Phase::Gone);
                let l = &mut self.links[slot as usize];
                l.out_sent = 0;
                let out = core::mem::take(&mut l.out);
                self.recycle(out);
                self.end_roads(now, slot);
                self.retire(slot);
            }
            _ => self.forget_stream(slot),
        }
    }

    fn forget_stream(&mut self, slot: u32) {
        let main = self.main_of(slot);
        let gone = self.links.remove(slot as usize);
        self.streams -= 1;
        self.recycle(gone.out);
        if main != slot {
            self.links[main as usize].extra().streams.retain(|s| *s != slot);
        }
    }

    /// The connection ends, and all its streams with it: they write what they have, and act for nobody.
    pub(super) fn end_streams(&mut self, main: u32) {
        let l = &mut self.links[main as usize];
        let Some(extra) = l.extra.as_mut().filter(|extra| !extra.streams.is_empty()) else { return };
        let (key, streams) = (l.session, core::mem::take(&mut extra.streams));
        if let Some(flow) = self.flow_of(key) {
            flow.roads = None;
        }
        for slot in streams {
            let l = &mut self.links[slot as usize];
            l.session = u32::MAX;
            l.im_account = None;
            l.paused = 0;
            l.extra().parent = slot;
            if l.phase == Phase::Gone {
                self.forget_stream(slot);
            } else {
                self.hang_up(slot);
            }
        }
    }

    /// Whether one of a connection's streams is not read though its client may have said something there.
    pub(super) fn is_stream_unread(&self, main: u32) -> bool {
        self.streams_of(main).iter().any(|s| self.links[*s as usize].paused & !pause::OUTPUT != 0)
    }

    // ---- Roads -----------------------------------------------------------------------------------------------

    /// A subscription was made on this link: deliveries for it go there.
    pub(super) fn lay_road(&mut self, slot: u32, key: u32, filter: &str) {
        let stream = self.links[slot as usize].stream;
        if stream.is_some() && self.is_open(slot) {
            let roads = self.sessions[key as usize].flow.get_or_insert_default().roads.get_or_insert_default();
            return roads.set(filter, slot, stream == Some(StreamKind::Datagrams));
        }
        self.remove_road(key, filter);
    }

    pub(super) fn remove_road(&mut self, key: u32, filter: &str) {
        let Some(flow) = self.flow_of(key) else { return };
        let Some(roads) = &mut flow.roads else { return };
        roads.remove(filter);
        if roads.is_empty() {
            flow.roads = None;
        }
    }

    /// A stream ends: what waits for it goes to the connection's first stream.
    fn end_roads(&mut self, now: Now, slot: u32) {
        let key = self.links[slot as usize].session;
        let Some(flow) = self.flow_of(key) else { return };
        let Some(roads) = &mut flow.roads else { return };
        let mut left = roads.end(slot);
        flow.waiting.append(&mut left);
        if roads.is_empty() {
            flow.roads = None;
        }
        // It may be what the others waited for.
        self.pump(now, key);
    }

    /// Where a delivery of a session goes whose connection is in the place `link`.
    pub(super) fn outlet_for(&self, key: u32, link: u32, topic: &str, qos: u8) -> u32 {
        let flow = self.sessions[key as usize].flow.as_ref();
        flow.and_then(|f| f.road(topic, qos)).unwrap_or(link)
    }

    /// Whether the stream of a session's next queued delivery takes more. Only asked where there are roads: elsewhere the
    /// one output there is was looked at before.
    pub(super) fn is_road_free(&self, key: u32, link: u32, topic: &str, qos: u8) -> bool {
        let has_roads = self.sessions[key as usize].flow.as_ref().is_some_and(|f| f.roads.is_some());
        !has_roads || self.links[self.outlet_for(key, link, topic, qos) as usize].unsent() < self.output_low()
    }

    /// Whether messaging must wait for a stream: what it has for a session comes in one order, and may not be dropped.
    pub(super) fn is_messaging_road_full(&self, key: u32) -> bool {
        let roads = self.sessions[key as usize].flow.as_ref().and_then(|f| f.roads.as_deref());
        let max = self.output_max();
        roads.is_some_and(|roads| roads.messaging().any(|stream| self.links[stream as usize].unsent() >= max))
    }

    /// As [`Hub::pump_queues`], for a session with roads: a stream that is full does not hold up what waits in memory
    /// for another one. The queue on disk has one order and waits for the stream of its first message.
    pub(super) fn pump_roads(&mut self, now: Now, key: u32, link: u32, mut budget: usize) {
        while self.pump_lanes(now, key, link)
            || self.pump_queue(now, key, link)
            || self.pump_wishes(now, key, &mut budget)
        {}
    }

    fn pump_lanes(&mut self, now: Now, key: u32, link: u32) -> bool {
        let Some(flow) = self.flow_of(key) else { return false };
        let Some(roads) = &flow.roads else { return self.pump_lane(now, key, link, None) };
        for lane in roads.in_turn() {
            if self.pump_lane(now, key, link, lane) {
                if let Some(roads) = self.flow_of(key).and_then(|f| f.roads.as_deref_mut()) {
                    roads.had_turn(lane);
                }
                return true;
            }
        }
        false
    }

    /// Sends the first message that waits for this stream, if it may go now.
    fn pump_lane(&mut self, now: Now, key: u32, link: u32, lane: Option<u32>) -> bool {
        if self.links[lane.unwrap_or(link) as usize].unsent() >= self.output_low() {
            return false;
        }
        let Some(stream) = lane else { return self.pump_waiting(now, key, link) };
        let receive_max = self.links[link as usize].queue_credit();
        let Some(flow) = self.flow_of(key) else { return false };
        let has_credit = flow.has_credit(receive_max);
        let Some(roads) = &mut flow.roads else { return false };
        let may_go = |ready: &Ready| ready.qos == 0 || has_credit;
        if !roads.first(stream).is_some_and(may_go) {
            return false;
        }
        let Some(ready) = roads.take_first(stream) else { return false };
        if roads.is_empty() {
            flow.roads = None;
        }
        self.send_waiting(now, key, stream, &ready);
        true
    }
}
