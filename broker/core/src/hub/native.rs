//! The native link at the hub's edge: frames come in as packets and packets go out as frames ([`crate::native`]). A native
//! client has the same session as one of MQTT, so what is decided is decided elsewhere.

use super::lifetime::WithWill;
use super::messaging::is_messaging;
use super::send::Sent;
use super::{AckKind, Hub, Now};
use crate::im::{Code, PAIRING_ACCOUNT, Refusal, Sending};
use crate::link::{LinkId, Phase, StreamKind};
use crate::native::{PAIRED, SUBSCRIPTIONS, bulk_topic, down, options, up};
use crate::router::Options;
use crate::session::Subscription;
use parlor_protocol::link::{Code as FrameCode, Down, LEVEL, LinkError, SCHEMA, SIZE_MAX, Up, wants};
use parlor_protocol::mqtt::{Packet, PacketId, ReasonCode, SubscriptionOptions, Version, decode};

/// Requests beside Sync and History that may come on a stream of their own: those that are always answered.
const ANSWERED: [&str; 6] = ["me/convs", "me/contacts", "me/household", "me/terminals", "me/recount", "me/whois/"];

/// What of messaging may go as datagrams.
const DATAGRAM_ROADS: [&str; 2] = ["im/v1/me/in/+/typing", "im/v1/me/in/+/stream/+"];
/// Bytes of a frame `Publish` at most, besides topic, properties and payload.
const PUBLISH_BYTES: usize = 24;

/// Memory that translations use again and again, and streams whose answer has been written.
#[derive(Debug, Default)]
pub(super) struct Memory {
    scratch: up::Scratch,
    out: Vec<u8>,
    answered: Vec<LinkId>,
}

impl Hub {
    // ---- Frames in -------------------------------------------------------------------------------------------

    /// A frame of `size` bytes arrived on a native link: what [`Hub::packet`] is for packets.
    pub fn frame(&mut self, now: Now, link: LinkId, frame: &Up<'_>, size: usize) {
        if !self.is_current(link) {
            return;
        }
        let slot = link.slot;
        if self.links[slot as usize].phase == Phase::Connecting && !self.greet(now, slot, frame) {
            return;
        }
        let answer_to = match self.place_for(link, frame) {
            Ok(answer_to) => answer_to,
            Err(text) => return self.not_here(now, slot, frame, size, text),
        };
        let mut scratch = core::mem::take(&mut self.native.scratch);
        let done = up::packet(frame, answer_to.as_deref(), &mut scratch, |packet| self.packet(now, link, packet, size));
        self.native.scratch = scratch;
        match done {
            Err(wrong) => self.refuse_frame(now, slot, frame, size, wrong),
            Ok(()) => {
                if let Up::Subscribe { filter, options, .. } = frame {
                    self.lay_datagram_road(slot, filter, *options);
                }
            }
        }
        self.finish_answered(now);
    }

    /// Bytes arrived on a native link that are no frame. It ends; a datagram is only counted and told.
    pub fn malformed_frame(&mut self, now: Now, link: LinkId, error: &LinkError) {
        if !self.is_current(link) {
            return;
        }
        let slot = link.slot;
        let (phase, stream) = (self.links[slot as usize].phase, self.links[slot as usize].stream);
        let text = error.to_string();
        if stream == Some(StreamKind::Datagrams) {
            self.counters.refused.add(error.kind());
            return self.tell_error(slot, "", FrameCode::BadRequest, &text);
        }
        let reason = match error {
            LinkError::TooLong { .. } => ReasonCode::PACKET_TOO_LARGE,
            LinkError::BadVersion(_) => ReasonCode::UNSUPPORTED_PROTOCOL_VERSION,
            _ => ReasonCode::MALFORMED_PACKET,
        };
        match phase {
            Phase::Open => self.refuse(now, slot, reason, error.kind(), &text),
            Phase::Connecting | Phase::Authenticating => {
                self.counters.refused.add(error.kind());
                let address = self.links[slot as usize].address;
                self.notices.push(now.ms, error.kind(), || format!("Hello from {address} refused: {text}"));
                self.put_frame(slot, &Down::Close { code: reason.0, text: &text });
                self.hang_up(slot);
                self.end(now, slot, WithWill::Yes);
            }
            Phase::Opening => self.abort(now, slot, error.kind()),
            Phase::Closing | Phase::Ending | Phase::Gone => {}
        }
    }

    /// A frame of `size` bytes arrived whose variant, with this discriminant, is one of a newer build: it is skipped, and
    /// the client told.
    pub fn unknown_frame(&mut self, now: Now, link: LinkId, tag: u32, size: usize) {
        if !self.is_current(link) {
            return;
        }
        let slot = link.slot;
        self.heard(now, slot, size);
        match self.links[slot as usize].phase {
            Phase::Connecting => self.abort(now, slot, "first_packet_not_connect"),
            Phase::Open => {
                self.counters.refused.add("frame_unknown");
                let stream = self.links[slot as usize].stream;
                let outlet = if stream == Some(StreamKind::Datagrams) { self.main_of(slot) } else { slot };
                self.put_frame(outlet, &Down::Unknown { tag });
                self.stop_unless_it_reads(slot);
                if stream == Some(StreamKind::Bulk) {
                    self.finish(now, link);
                }
            }
            _ => {}
        }
    }

    // ---- Datagrams -------------------------------------------------------------------------------------------

    /// Whether the client of this connection asked for datagrams; known once it is connected.
    pub fn wants_datagrams(&self, link: LinkId) -> bool {
        let extra = self.links.get(link.slot as usize).and_then(|l| l.extra.as_ref());
        self.is_connected(link) && self.is_native(link) && extra.is_some_and(|e| e.wants & wants::DATAGRAMS != 0)
    }

    /// Lets typing, streams and QoS 0 messages of a native connection take its datagrams, of at most `bytes_max` bytes.
    /// What is longer stays on the first stream. [`Hub::output`] has them with their lengths, as on a stream: a datagram
    /// is what stands behind each length. `None`: as for [`Hub::open_stream`].
    pub fn open_datagrams(&mut self, now: Now, parent: LinkId, bytes_max: u16) -> Option<LinkId> {
        let stream = self.open_stream(now, parent, StreamKind::Datagrams)?;
        let l = &mut self.links[stream.slot as usize];
        l.packet_max = l.packet_max.min(u32::from(bytes_max));
        let key = l.session;
        if self.wants_datagrams(parent) {
            let mut filters: Vec<Box<str>> = DATAGRAM_ROADS.into_iter().map(Into::into).collect();
            let subscriptions = &self.sessions[key as usize].subscriptions;
            let is_light = |s: &&Subscription| is_light(&s.filter, s.options);
            filters.extend(subscriptions.iter().filter(is_light).map(|s| s.filter.clone()));
            for filter in filters {
                self.set_road(stream, &filter);
            }
        }
        Some(stream)
    }

    /// The longest datagram has changed.
    pub fn set_datagram_max(&mut self, stream: LinkId, bytes_max: u16) {
        if !self.is_current(stream) || self.links[stream.slot as usize].stream != Some(StreamKind::Datagrams) {
            return;
        }
        let main = self.main_of(stream.slot);
        let most = self.links[main as usize].packet_max.min(u32::from(bytes_max));
        self.links[stream.slot as usize].packet_max = most;
    }

    /// An ordinary subscription at QoS 0 was made: its messages take the datagrams, if there are any.
    fn lay_datagram_road(&mut self, slot: u32, filter: &str, options: u8) {
        if !is_light(filter, options) {
            return;
        }
        let main = self.main_of(slot);
        if !self.wants_datagrams(self.id_of(main)) {
            return;
        }
        let is_datagrams = |s: &&u32| self.links[**s as usize].stream == Some(StreamKind::Datagrams);
        if let Some(stream) = self.streams_of(main).iter().find(is_datagrams).copied() {
            self.set_road(self.id_of(stream), filter);
        }
    }

    // ---- What may come where ---------------------------------------------------------------------------------

    /// The first frame. False: the connection has ended of it.
    fn greet(&mut self, now: Now, slot: u32, frame: &Up<'_>) -> bool {
        let Up::Hello { level, schema, wants, .. } = *frame else { return true };
        let extra = self.links[slot as usize].extra();
        (extra.level, extra.wants) = (level, wants);
        if level != LEVEL || schema == SCHEMA {
            return true;
        }
        let text = "schema: your build or this one changed a frame without raising the level";
        self.refuse_connect(now, slot, ReasonCode::UNSUPPORTED_PROTOCOL_VERSION, "frame_schema", text);
        false
    }

    /// Where the answer goes if the frame came on a stream for one request; an error: it may not come here.
    fn place_for(&mut self, link: LinkId, frame: &Up<'_>) -> Result<Option<String>, &'static str> {
        let l = &mut self.links[link.slot as usize];
        match l.stream {
            Some(StreamKind::Datagrams) => match frame {
                Up::Typing { .. } | Up::Stream { .. } | Up::Telemetry { .. } => Ok(None),
                _ => Err("only Typing, Stream and Telemetry may be datagrams"),
            },
            Some(StreamKind::Bulk) if l.phase == Phase::Open => {
                let is_answered = match frame {
                    Up::Sync { .. } | Up::History { .. } => true,
                    Up::Request { path, .. } => ANSWERED.iter().any(|known| path.starts_with(known)),
                    _ => false,
                };
                if !is_answered {
                    return Err("only Sync, History and requests that are answered may have a stream of their own");
                }
                if core::mem::replace(&mut l.extra().has_request, true) {
                    return Err("a stream of its own is for one request");
                }
                let topic = bulk_topic(link.slot, link.generation);
                if !self.set_road(link, &topic) {
                    return Err("there are too many streams for this session (limits.subscriptions_per_session_max)");
                }
                Ok(Some(topic))
            }
            _ => Ok(None),
        }
    }

    fn not_here(&mut self, now: Now, slot: u32, frame: &Up<'_>, size: usize, text: &str) {
        self.heard(now, slot, size);
        self.counters.refused.add("frame_not_here");
        let client = self.name_of(slot);
        let name = frame.name();
        self.notices.push(now.ms, "frame_not_here", || format!("frame {name} of client {client:?} refused: {text}"));
        self.tell_error(slot, name, FrameCode::NotHere, text);
        self.stop_unless_it_reads(slot);
        if self.links[slot as usize].stream == Some(StreamKind::Bulk) {
            self.finish(now, self.id_of(slot));
        }
    }

    /// A frame whose fields are not what they must be for what it says.
    fn refuse_frame(&mut self, now: Now, slot: u32, frame: &Up<'_>, size: usize, wrong: up::Wrong) {
        match self.links[slot as usize].phase {
            Phase::Open => {}
            Phase::Connecting => return self.abort(now, slot, "first_packet_not_connect"),
            _ => return,
        }
        self.heard(now, slot, size);
        let code = if wrong == up::Wrong::Messaging { Code::BadTopic } else { Code::BadRequest };
        let refusal = Refusal::new(code, wrong.text());
        match PacketId::new(up::packet_id(frame)) {
            Some(packet_id) => {
                let (main, key) = (self.main_of(slot), self.links[slot as usize].session);
                let l = &mut self.links[main as usize];
                l.unanswered = l.unanswered.saturating_add(1);
                self.counters.refused.add(refusal.code.text());
                self.refuse_packet(now, slot, key, AckKind::PubAck, packet_id, &refusal);
            }
            None => {
                self.counters.refused.add(refusal.code.text());
                self.tell_error(slot, frame.name(), frame_code(code), &refusal.text);
            }
        }
        self.stop_unless_it_reads(slot);
    }

    /// Something came that is dealt with here.
    fn heard(&mut self, now: Now, slot: u32, size: usize) {
        let main = self.main_of(slot);
        self.links[main as usize].last_packet_ms = now.ms;
        self.counters.packets_received += 1;
        self.counters.bytes_received += size as u64;
    }

    // ---- Frames out ------------------------------------------------------------------------------------------

    /// For whom the frames on this link are made.
    fn to_of(&self, slot: u32) -> down::To {
        let level = self.links[self.main_of(slot) as usize].extra.as_ref().map_or(0, |e| e.level);
        let packet_max = self.links[slot as usize].packet_max;
        down::To { level, frame_max: u16::try_from(packet_max).unwrap_or(SIZE_MAX) }
    }

    /// Writes frames to a link; what is too long for a datagram goes to the connection's first stream.
    fn write_frames(
        &mut self,
        slot: u32,
        make: impl Fn(down::To, &mut Vec<u8>) -> Result<(), down::TooLong>,
    ) -> Option<u32> {
        let mut bytes = core::mem::take(&mut self.native.out);
        bytes.clear();
        let (mut outlet, mut made) = (slot, make(self.to_of(slot), &mut bytes));
        if made.is_err() && self.links[slot as usize].stream == Some(StreamKind::Datagrams) {
            outlet = self.main_of(slot);
            made = make(self.to_of(outlet), &mut bytes);
        }
        if made.is_ok() && !bytes.is_empty() {
            self.output_of(outlet, bytes.len()).extend_from_slice(&bytes);
        }
        // A page must not keep its memory for ever.
        bytes.clear();
        bytes.shrink_to(128 * 1024);
        self.native.out = bytes;
        made.is_ok().then_some(outlet)
    }

    /// A packet for a native link, as frames.
    pub(super) fn send_native(&mut self, slot: u32, packet: &Packet<'_>) -> Sent {
        let written = self.write_frames(slot, |to, out| down::packet(packet, to, out));
        if self.links[slot as usize].stream == Some(StreamKind::Bulk) {
            let ends = match packet {
                Packet::Publish(_) => true,
                Packet::PubAck(ack) => ack.reason.is_error(),
                _ => false,
            };
            if ends {
                let link = self.id_of(slot);
                self.native.answered.push(link);
            }
        }
        if written.is_some() { Sent::Yes } else { Sent::TooLarge }
    }

    /// As [`Hub::send_native`], of packets that were encoded before.
    pub(super) fn send_native_bytes(&mut self, slot: u32, mut bytes: &[u8]) -> Sent {
        while let Ok(Some((packet, used))) = decode(bytes, Version::V5, u32::MAX) {
            if self.send_native(slot, &packet) == Sent::TooLarge {
                self.counters.dropped.add("packet_too_large");
                return Sent::TooLarge;
            }
            bytes = bytes.get(used..).unwrap_or_default();
        }
        Sent::Yes
    }

    /// What the messaging rooms have made for a session goes to this native link.
    pub(super) fn send_im_native(&mut self, now: Now, key: u32, slot: u32, sending: Sending) {
        let l = &self.links[slot as usize];
        let max = self.output_max();
        if l.stream == Some(StreamKind::Datagrams) && l.unsent() + self.im.wire().payload.len() > max {
            self.counters.dropped.add("slow_reader");
            self.counters.limits.add("output_bytes_max");
            return;
        }
        let mut wire = core::mem::take(self.im.wire_mut());
        let around = wire.topic.len() + wire.properties.len() + PUBLISH_BYTES;
        let room = usize::from(self.to_of(slot).frame_max).saturating_sub(around);
        if room >= sending.least {
            wire.payload.truncate(room);
        }
        let sent = self.send_native(slot, &Packet::Publish(wire.publish(sending)));
        *self.im.wire_mut() = wire;
        match (sent, sending.packet_id) {
            (Sent::Yes, _) => self.counters.sent[usize::from(sending.qos)] += 1,
            (Sent::TooLarge, packet_id) => {
                self.counters.dropped.add("packet_too_large");
                if let Some(id) = packet_id {
                    self.im.give_up(now, key, id);
                }
            }
        }
    }

    /// One frame of the hub's own.
    fn put_frame(&mut self, slot: u32, frame: &Down<'_>) -> bool {
        self.write_frames(slot, |to, out| to.put(frame, out)).is_some()
    }

    /// Tells a client of something that has no packet identifier; on a stream of its own there, else on the first.
    fn tell_error(&mut self, slot: u32, re: &str, code: FrameCode, text: &str) {
        let is_bulk = self.links[slot as usize].stream == Some(StreamKind::Bulk);
        let outlet = if is_bulk { slot } else { self.main_of(slot) };
        if self.is_open(outlet) {
            self.put_frame(outlet, &Down::Error { packet_id: 0, dup: false, re, id: "", code, text });
        }
    }

    /// Welcome, of a CONNACK. False: the client cannot be told.
    pub(super) fn send_welcome(&mut self, now: Now, slot: u32, connack: &[u8]) -> bool {
        let Ok(Some((Packet::ConnAck(ack), _))) = decode(connack, Version::V5, u32::MAX) else { return false };
        let l = &self.links[slot as usize];
        let s = &self.sessions[l.session as usize];
        let (account, terminal) = (s.who.account.clone(), s.client_id.clone());
        let frame = Down::Welcome {
            level: LEVEL,
            schema: SCHEMA,
            account: &account,
            terminal: &terminal,
            session_present: ack.session_present,
            keep_alive_s: u16::try_from(l.keep_alive_ms / 1_500).unwrap_or(u16::MAX),
            expiry_s: s.expiry_secs,
            frame_max: u16::try_from(self.limits.packet_bytes_max).unwrap_or(SIZE_MAX),
            receive_max: l.announced_receive_max,
            server_ms: now.wall_ms,
        };
        self.put_frame(slot, &frame)
    }

    /// Makes the subscriptions that the client's Hello wants, and ends those of the same filters that it does not.
    pub(super) fn subscribe_as_wanted(&mut self, now: Now, slot: u32, key: u32) {
        let l = &self.links[slot as usize];
        let Some(account) = l.im_account else { return };
        let wants = l.extra.as_ref().map_or(0, |e| e.wants);
        for (bit, filter, qos) in SUBSCRIPTIONS {
            let is_wanted = if account == PAIRING_ACCOUNT {
                filter == PAIRED
            } else {
                filter != PAIRED && (bit == 0 || wants & bit != 0)
            };
            let s = &self.sessions[key as usize];
            let options: SubscriptionOptions = options(qos);
            let there = s.place_of(filter).ok().and_then(|at| s.subscriptions.get(at)).map(|s| s.options);
            if !is_wanted {
                self.unsubscribe_one(key, filter);
            } else if there != Some(options.to_bits())
                && let Err((_, label)) = self.subscribe_one(now, slot, filter, options, 0)
            {
                self.counters.refused.add(label);
                let client = self.name_of(slot);
                self.notices.push(now.ms, label, || {
                    format!("what the Hello of client {client:?} wants is refused: {filter} ({label})")
                });
                let text = format!("{filter} is not subscribed to: {label}");
                self.tell_error(slot, "Hello", FrameCode::Quota, &text);
            }
        }
        self.settle_im(now);
    }

    /// Streams for one request end when their answer has been written.
    pub(super) fn finish_answered(&mut self, now: Now) {
        while let Some(link) = self.native.answered.pop() {
            self.finish(now, link);
        }
    }
}

/// An ordinary subscription at QoS 0.
fn is_light(filter: &str, options: u8) -> bool {
    Options(options).qos() == 0 && !is_messaging(filter)
}

/// A refusal's code as frames have it.
fn frame_code(code: Code) -> FrameCode {
    FrameCode::parse(code.text()).unwrap_or(FrameCode::Failed)
}
