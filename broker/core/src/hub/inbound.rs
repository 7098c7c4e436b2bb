//! Packets of a client that is in: PUBLISH and the acknowledgements of both directions.

use super::deliver::{Incoming, Outcome};
use super::messaging::is_messaging;
use super::{AckKind, After, Hub, Now, Timer};
use crate::im::{MAIL_IDS, PAIRING_ACCOUNT};
use crate::link::{LinkId, pause};
use crate::message::Message;
use crate::session::{Slot, packet_id_of};
use crate::store::{Fact, MessageRef, QueueIndex};
use parlor_protocol::mqtt::{Ack, Packet, PacketId, Properties, Property, Publish, QoS, ReasonCode, Version};
use parlor_protocol::topic;
use std::rc::Rc;

/// Least time between two searches for retained messages that have expired, milliseconds.
const RETAINED_CLEAR_MS: u64 = 10_000;

impl Hub {
    pub(super) fn on_publish(&mut self, now: Now, slot: u32, p: &Publish<'_>) {
        let qos = p.qos as u8;
        self.counters.received[usize::from(qos)] += 1;
        let key = self.links[slot as usize].session;
        if !p.properties.is_empty() && p.properties.subscription_identifier().is_some() {
            // [MQTT5-3.3.4-6]
            return self.refuse(
                now,
                slot,
                ReasonCode::PROTOCOL_ERROR,
                "subscription_id_from_client",
                "only a server sends subscription identifiers in PUBLISH",
            );
        }
        // Before anything else may answer: an alias that comes with a retry, or with a refused message, holds as well
        // [MQTT5-3.3.2-12].
        let alias;
        let name = if let Some(number) = if p.properties.is_empty() { None } else { p.properties.topic_alias() } {
            let Some(known) = self.resolve_alias(self.main_of(slot), number, p.topic) else {
                return self.refuse(
                    now,
                    slot,
                    ReasonCode::TOPIC_ALIAS_INVALID,
                    "topic_alias_invalid",
                    "this topic alias is not in use or above the Topic Alias Maximum",
                );
            };
            alias = known;
            &*alias
        } else {
            p.topic
        };
        if name.is_empty() {
            // Neither topic nor alias [MQTT5-3.3.2-1].
            return self.refuse(
                now,
                slot,
                ReasonCode::PROTOCOL_ERROR,
                "topic_missing",
                "PUBLISH needs a topic name or a topic alias",
            );
        }
        // A retry of a QoS 2 message is answered and not delivered again [MQTT5-4.3.3-10] [MQTT3-4.3.3-2].
        if let Some(id) = p.packet_id
            && p.qos == QoS::ExactlyOnce
            && self.sessions[key as usize].inbound.binary_search(&id.value()).is_ok()
        {
            self.acknowledge(now, slot, AckKind::PubRec, id, ReasonCode::SUCCESS, false);
            return;
        }
        let main = self.main_of(slot);
        let l = &mut self.links[main as usize];
        if qos > 0 {
            if l.version == Version::V5 && l.unanswered >= l.announced_receive_max {
                // [MQTT5-3.3.4-7]
                return self.refuse(
                    now,
                    slot,
                    ReasonCode::RECEIVE_MAXIMUM_EXCEEDED,
                    "receive_max",
                    "more unanswered QoS 1 and 2 messages than Receive Maximum",
                );
            }
            l.unanswered = l.unanswered.saturating_add(1);
        }
        if self.limits.publish_rate_max != 0 && !self.within_rate(now, main) {
            let l = &self.links[slot as usize];
            if l.version == Version::V5 && qos > 0 {
                return self.reject(now, slot, p, ReasonCode::QUOTA_EXCEEDED, "publish_rate_max");
            }
            self.throttle(now, slot, main);
        }
        self.accept(now, slot, key, p, name);
    }

    fn accept(&mut self, now: Now, slot: u32, key: u32, p: &Publish<'_>, name: &str) {
        if is_messaging(name) {
            return self.publish_im(now, slot, key, p, name);
        }
        let qos = p.qos as u8;
        if name.len() as u64 > self.limits.topic_bytes_max {
            return self.reject(now, slot, p, ReasonCode::TOPIC_NAME_INVALID, "topic_bytes_max");
        }
        if topic::level_count(name) as u64 > self.limits.topic_levels_max {
            return self.reject(now, slot, p, ReasonCode::TOPIC_NAME_INVALID, "topic_levels_max");
        }
        let s = &self.sessions[key as usize];
        let is_pairing = self.links[slot as usize].im_account == Some(PAIRING_ACCOUNT);
        if is_pairing || !self.access.may_publish(s.who.profile, &s.who.account, &s.client_id, name) {
            return self.reject(now, slot, p, ReasonCode::NOT_AUTHORIZED, "not_authorized");
        }
        let publisher = Rc::clone(&s.who.account);
        let durable_session = s.durable.as_ref().map(|d| d.no);
        let mut kept = core::mem::take(&mut self.scratch);
        let (properties, expiry_secs) = forwardable(p.properties, &mut kept);
        let expires_at_ms = expiry_secs.map_or(0, |secs| (now.wall_ms + u64::from(secs) * 1000).max(1));
        let message = MessageRef { topic: name, properties, payload: p.payload, expires_at_ms };
        let refusal = if p.retain { self.retained_refusal(now, &message) } else { None };
        if let Some((reason, limit)) = refusal {
            self.scratch = kept;
            return self.reject(now, slot, p, reason, limit);
        }
        if self.low_space && (p.retain || qos > 0) && self.would_store(slot, name, p, durable_session.is_some()) {
            self.scratch = kept;
            return self.reject(now, slot, p, ReasonCode::QUOTA_EXCEEDED, "low_space");
        }
        let m = Incoming { message, qos, retain: p.retain, from: key, publisher: &publisher };
        let outcome = self.spread(now, Some(slot), &m);
        self.scratch = kept;
        self.conclude(now, slot, key, p, outcome);
    }

    /// PUBACK for QoS 1 and PUBREC for QoS 2, when the message is ours [MQTT5-3.3.4-1] [MQTT5-4.3.2-4] [MQTT5-4.3.3-8]
    /// [MQTT5-4.3.3-13] [MQTT3-3.3.4-1] [MQTT3-4.3.2-2].
    ///
    /// Answers an accepted PUBLISH, at once or when it is on disk.
    fn conclude(&mut self, now: Now, slot: u32, key: u32, p: &Publish<'_>, outcome: Outcome) {
        let Some(packet_id) = p.packet_id else {
            if outcome.durable {
                self.slow_down_for_disk(slot);
            }
            return;
        };
        let reason = match outcome {
            // A message that was retained is kept all the same, so it was not refused.
            Outcome { accepted: 0, full: 1.., .. } if !p.retain => ReasonCode::QUOTA_EXCEEDED,
            Outcome { accepted: 0, full: 0, .. } => ReasonCode::NO_MATCHING_SUBSCRIBERS,
            _ => ReasonCode::SUCCESS,
        };
        let mut durable = outcome.durable;
        let kind = if p.qos == QoS::AtLeastOnce { AckKind::PubAck } else { AckKind::PubRec };
        // A QoS 1 identifier, and one refused in PUBREC, is free at once [MQTT5-4.3.2-5] [MQTT5-4.3.3-9].
        if kind == AckKind::PubRec && !reason.is_error() {
            let s = &mut self.sessions[key as usize];
            s.inbound_add(packet_id);
            if let Some(d) = &s.durable {
                self.batch.push(&Fact::InboundAdd { no: d.no, packet_id: packet_id.value() });
                durable = true;
            }
        }
        self.acknowledge(now, slot, kind, packet_id, reason, durable);
        if durable {
            self.slow_down_for_disk(slot);
        }
    }

    /// Under the identifier of the packet it answers [MQTT5-2.2.1-5] [MQTT3-2.3.1-6] and in the order of those
    /// [MQTT3-4.6.0-2] [MQTT3-4.6.0-3].
    ///
    /// Sends an acknowledgement: after the disk if it must wait, and never before one that already waits.
    pub(super) fn acknowledge(
        &mut self,
        now: Now,
        slot: u32,
        kind: AckKind,
        packet_id: PacketId,
        reason: ReasonCode,
        durable: bool,
    ) {
        let l = &self.links[slot as usize];
        if durable || l.deferred > 0 {
            self.defer(slot);
            let link = self.id_of(slot);
            self.after_commit(now, After::Ack { link, kind, packet_id, reason });
        } else {
            self.answer(slot, kind, packet_id, reason);
        }
    }

    /// Stops reading a link whose facts come faster than the disk takes them.
    pub(super) fn slow_down_for_disk(&mut self, slot: u32) {
        if self.backlog() > self.limits.commit_bytes_max {
            self.counters.limits.add("commit_bytes_max");
            if self.links[slot as usize].paused & pause::DISK == 0 {
                let link = self.id_of(slot);
                self.pause(slot, pause::DISK);
                self.disk_waiters.push(link);
            }
        }
    }

    /// Refuses one PUBLISH and keeps the connection: with a reason code where there is one to give.
    fn reject(&mut self, now: Now, slot: u32, p: &Publish<'_>, reason: ReasonCode, label: &'static str) {
        if label == "low_space" && p.packet_id.is_some() && self.links[slot as usize].version == Version::V311 {
            // A positive answer would be a promise that is not kept; its client has the message and comes again
            // [MQTT3-4.8.0-2].
            return self.refuse(now, slot, reason, label, refusal_text(label));
        }
        self.counters.refused.add(label);
        if self.limits.value(label).is_some() {
            self.counters.limits.add(label);
        }
        let client = self.name_of(slot);
        self.notices.push(now.ms, label, || {
            format!("PUBLISH of client {client:?} to {:?} refused: {reason:?} ({label})", shorten(p.topic))
        });
        let Some(packet_id) = p.packet_id else { return };
        let kind = if p.qos == QoS::AtLeastOnce { AckKind::PubAck } else { AckKind::PubRec };
        let l = &self.links[slot as usize];
        if l.version == Version::V311 {
            // 3.1.1 knows no refusal: a positive answer, or the connection's end, are the only choices [MQTT3-3.3.5-2].
            if kind == AckKind::PubRec {
                self.sessions[l.session as usize].inbound_add(packet_id);
            }
            return self.acknowledge(now, slot, kind, packet_id, ReasonCode::SUCCESS, false);
        }
        if l.deferred > 0 {
            return self.acknowledge(now, slot, kind, packet_id, reason, false);
        }
        let text = refusal_text(label);
        let properties = self.reason_property(slot, text);
        let ack = Ack { packet_id, reason, properties: Properties::from_validated(&properties) };
        self.send(slot, &if kind == AckKind::PubAck { Packet::PubAck(ack) } else { Packet::PubRec(ack) });
        self.answered_finally(slot);
    }

    /// Whether a message may not be retained, and why.
    pub(super) fn retained_refusal(&mut self, now: Now, m: &MessageRef<'_>) -> Option<(ReasonCode, &'static str)> {
        let refusal = self.retained_edge(m)?;
        // Nobody may have asked for what has expired; it must not take the place of what has not.
        if now.ms < self.retained_cleared_ms {
            return Some(refusal);
        }
        self.retained_cleared_ms = now.ms + RETAINED_CLEAR_MS;
        let is_over = |at: u64| at != 0 && at <= now.wall_ms;
        let over: Vec<Rc<Message>> =
            self.retained.all().filter(|r| is_over(r.message.expires_at_ms)).map(|r| Rc::clone(&r.message)).collect();
        for message in over {
            self.retained.clear(message.topic());
            self.batch.push(&Fact::RetainClear { topic: message.topic() });
            self.counters.dropped.add("expired");
        }
        self.retained_edge(m)
    }

    fn retained_edge(&self, m: &MessageRef<'_>) -> Option<(ReasonCode, &'static str)> {
        if m.payload.is_empty() {
            return None;
        }
        let counted = self.retained.get(m.topic).filter(|r| !r.volatile);
        let old = counted.map_or((0, 0), |r| (1, r.message.cost() as u64));
        if self.retained.messages() + 1 - old.0 > self.limits.retained_messages_max {
            return Some((ReasonCode::QUOTA_EXCEEDED, "retained_messages_max"));
        }
        let bytes = self.retained.bytes() + m.cost() as u64 - old.1;
        (bytes > self.limits.retained_bytes_max).then_some((ReasonCode::QUOTA_EXCEEDED, "retained_bytes_max"))
    }

    /// Whether accepting this message would need the disk.
    fn would_store(&mut self, slot: u32, name: &str, p: &Publish<'_>, persistent: bool) -> bool {
        let route = self.find_route(Some(slot), name);
        let queued =
            || route.recipients.iter().any(|r| self.sessions[r.session.0 as usize].durable.is_some() && r.qos > 0);
        p.retain || (p.qos == QoS::ExactlyOnce && persistent) || !route.groups.is_empty() || queued()
    }

    fn resolve_alias(&mut self, slot: u32, number: u16, topic: &str) -> Option<Rc<str>> {
        // [MQTT5-3.2.2-17] [MQTT5-3.2.2-18] [MQTT5-3.3.2-8] [MQTT5-3.3.2-9] [MQTT5-3.3.2-12]
        let l = &mut self.links[slot as usize];
        if number == 0 || number > l.announced_alias_max {
            return None;
        }
        let aliases = &mut l.extra().aliases_in;
        let at = usize::from(number) - 1;
        if topic.is_empty() {
            return aliases.get(at)?.clone();
        }
        if aliases.len() <= at {
            aliases.resize(at + 1, None);
        }
        let name: Rc<str> = match &aliases[at] {
            Some(known) if **known == *topic => Rc::clone(known),
            _ => topic.into(),
        };
        // A name that will be refused for its length is not worth its memory.
        aliases[at] = (name.len() as u64 <= self.limits.topic_bytes_max).then(|| Rc::clone(&name));
        Some(name)
    }

    /// Takes one message from the client's allowance (a token bucket, in thousandths of a message).
    fn within_rate(&mut self, now: Now, slot: u32) -> bool {
        let signed = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        let (rate, burst) = (self.limits.publish_rate_max, signed(self.limits.publish_burst_max * 1000));
        let extra = self.links[slot as usize].extra();
        if extra.tokens_at_ms == 0 {
            extra.tokens = burst;
        } else {
            let earned = signed((now.ms - extra.tokens_at_ms).saturating_mul(rate));
            extra.tokens = extra.tokens.saturating_add(earned).min(burst);
        }
        extra.tokens_at_ms = now.ms.max(1);
        if extra.tokens < 1000 {
            return false;
        }
        extra.tokens -= 1000;
        true
    }

    /// Lets a message through on credit, and stops reading the stream it came on until that is paid back.
    fn throttle(&mut self, now: Now, slot: u32, main: u32) {
        self.counters.limits.add("publish_rate_max");
        self.pause(slot, pause::RATE);
        let extra = self.links[main as usize].extra();
        extra.tokens -= 1000;
        let owed = u64::try_from(1000 - extra.tokens).unwrap_or(0);
        let wait_ms = owed.div_ceil(self.limits.publish_rate_max.max(1));
        let link = self.id_of(slot);
        self.arm(now.ms + wait_ms, Timer::Rate(link));
    }

    /// PUBACK ends a QoS 1 delivery, with an error as well [MQTT5-4.3.2-3] [MQTT5-4.4.0-2] [MQTT5-4.8.2-6] [MQTT3-4.3.2-1].
    pub(super) fn on_puback(&mut self, now: Now, slot: u32, ack: &Ack<'_>) {
        if ack.packet_id.value() >= MAIL_IDS {
            return self.puback_im(now, slot, ack.packet_id);
        }
        let key = self.links[slot as usize].session;
        let Some(flow) = self.flow_of(key) else { return self.unknown_id() };
        let Some(index) = flow.index_of(ack.packet_id) else { return self.unknown_id() };
        let state = flow.slot(index);
        let native = self.links[slot as usize].native;
        match state {
            Slot::PubAck(cost) => self.done(now, key, index, cost),
            // A native link has one acknowledgement for all.
            Slot::PubRec(cost) if native => self.done(now, key, index, cost),
            _ if native => self.unknown_id(),
            Slot::Done => self.unknown_id(),
            _ => self.refuse(
                now,
                slot,
                ReasonCode::PROTOCOL_ERROR,
                "wrong_ack",
                "PUBACK answers QoS 1, this message is QoS 2",
            ),
        }
    }

    pub(super) fn on_pubrec(&mut self, now: Now, slot: u32, ack: &Ack<'_>) {
        let key = self.links[slot as usize].session;
        let found = self.flow_of(key).and_then(|f| f.index_of(ack.packet_id).map(|index| (index, f.slot(index))));
        match found {
            // Refused: done, and no other session gets it instead [MQTT5-4.4.0-2] [MQTT5-4.8.2-6].
            Some((index, Slot::PubRec(cost))) if ack.reason.is_error() => self.done(now, key, index, cost),
            // [MQTT5-4.3.3-4] [MQTT3-4.3.3-1]
            Some((index, Slot::PubRec(cost))) => self.received(now, slot, key, index, cost),
            // PUBREC again: PUBREL again [MQTT5-4.3.3-5].
            Some((index, Slot::PubComp)) => self.send_pubrel(slot, index),
            Some((_, Slot::Storing)) => {}
            Some((_, Slot::PubAck(_))) => {
                self.refuse(
                    now,
                    slot,
                    ReasonCode::PROTOCOL_ERROR,
                    "wrong_ack",
                    "PUBREC answers QoS 2, this message is QoS 1",
                );
            }
            Some((_, Slot::Done)) | None => {
                self.unknown_id();
                if !ack.reason.is_error() {
                    let reason = ReasonCode::PACKET_IDENTIFIER_NOT_FOUND;
                    let packet_id = ack.packet_id;
                    self.send(slot, &Packet::PubRel(Ack { packet_id, reason, properties: Properties::EMPTY }));
                }
            }
        }
    }

    fn received(&mut self, now: Now, slot: u32, key: u32, index: u64, cost: u32) {
        let s = &mut self.sessions[key as usize];
        let Some(flow) = &mut s.flow else { return };
        let Some(d) = &mut s.durable else {
            flow.set(index, Slot::PubComp);
            return self.send_pubrel(slot, index);
        };
        flow.set(index, Slot::Storing);
        d.forget(cost);
        self.batch.push(&Fact::Received { no: d.no, index: QueueIndex(index) });
        let generation = s.generation;
        let link = self.id_of(slot);
        self.after_commit(now, After::PubRel { session: key, generation, index, link });
    }

    /// The next delivery was received on an earlier connection, and PUBREL is all there is left to say. To a native link,
    /// which has no such step, nothing is.
    pub(super) fn go_on_with_pubrel(&mut self, key: u32, link: u32, index: u64) {
        let s = &mut self.sessions[key as usize];
        let flow = s.flow.get_or_insert_default();
        if !self.links[link as usize].native {
            flow.push(Slot::PubComp);
            return self.send_pubrel(link, index);
        }
        flow.push(Slot::Done);
        if let Some(d) = &s.durable {
            self.batch.push(&Fact::Acked { no: d.no, index: QueueIndex(index) });
        }
    }

    /// PUBREL, on resumption in place of the PUBLISH [MQTT5-4.3.3-6] [MQTT5-4.4.0-1], in the order of PUBREC
    /// [MQTT3-4.6.0-4].
    pub(super) fn send_pubrel(&mut self, link: u32, index: u64) {
        let ack = Ack { packet_id: packet_id_of(index), reason: ReasonCode::SUCCESS, properties: Properties::EMPTY };
        self.send(link, &Packet::PubRel(ack));
    }

    /// PUBREC of this delivery, which came on `from`, is on disk.
    pub(super) fn release_pubrel(&mut self, now: Now, key: u32, index: u64, from: LinkId) {
        let is_there = self.is_current(from) && self.is_open(from.slot);
        let s = &mut self.sessions[key as usize];
        let link = if is_there && self.links[from.slot as usize].session == key { from.slot } else { s.link };
        if let Some(flow) = &mut s.flow
            && flow.slot(index) == Slot::Storing
        {
            flow.set(index, Slot::PubComp);
            if !self.is_open(link) {
                return;
            }
            return if self.links[link as usize].native {
                self.done(now, key, index, 0);
            } else {
                self.send_pubrel(link, index);
            };
        }
        if let Some(d) = &mut s.durable {
            d.set_prior(index, Slot::PubComp);
        }
    }

    /// Only PUBCOMP ends what PUBREL began [MQTT5-4.3.3-5] [MQTT3-4.3.3-1].
    pub(super) fn on_pubcomp(&mut self, now: Now, slot: u32, ack: &Ack<'_>) {
        let key = self.links[slot as usize].session;
        let found = self.flow_of(key).and_then(|f| f.index_of(ack.packet_id).map(|index| (index, f.slot(index))));
        match found {
            Some((index, Slot::PubComp)) => self.done(now, key, index, 0),
            _ => self.unknown_id(),
        }
    }

    /// A delivery is finished: its credit is free and the queue moves on.
    pub(super) fn done(&mut self, now: Now, key: u32, index: u64, cost: u32) {
        let s = &mut self.sessions[key as usize];
        let Some(flow) = &mut s.flow else { return };
        let was = flow.slot(index);
        flow.set(index, Slot::Done);
        if let Some(d) = &mut s.durable {
            if was != Slot::PubComp {
                d.forget(cost);
            }
            self.batch.push(&Fact::Acked { no: d.no, index: QueueIndex(index) });
        }
        let is_idle = |f: &crate::session::Flow| f.waiting.is_empty() && f.wishes.is_empty() && f.roads.is_none();
        let idle = s.durable.is_none() && s.flow.as_deref().is_some_and(is_idle);
        if !idle {
            self.pump(now, key);
        }
    }

    fn unknown_id(&mut self) {
        self.counters.refused.add("unknown_packet_id");
    }

    pub(super) fn on_pubrel(&mut self, now: Now, slot: u32, ack: &Ack<'_>) {
        let l = &self.links[slot as usize];
        let (key, version) = (l.session, l.version);
        let s = &mut self.sessions[key as usize];
        // PUBCOMP, and the identifier means a new message from now on [MQTT5-4.3.3-11] [MQTT5-4.3.3-12] [MQTT3-4.3.3-2].
        if s.inbound_remove(ack.packet_id) {
            let durable = s.durable.as_ref().map(|d| d.no);
            if let Some(no) = durable {
                self.batch.push(&Fact::InboundRemove { no, packet_id: ack.packet_id.value() });
            }
            self.acknowledge(now, slot, AckKind::PubComp, ack.packet_id, ReasonCode::SUCCESS, durable.is_some());
        } else {
            let known = version == Version::V311;
            let reason = if known { ReasonCode::SUCCESS } else { ReasonCode::PACKET_IDENTIFIER_NOT_FOUND };
            // It answers no PUBLISH that is still counted.
            let main = self.main_of(slot);
            let l = &mut self.links[main as usize];
            l.unanswered = l.unanswered.saturating_add(1);
            self.acknowledge(now, slot, AckKind::PubComp, ack.packet_id, reason, false);
        }
    }
}

/// Untouched and in their order [MQTT5-3.3.2-4] [MQTT5-3.3.2-15] [MQTT5-3.3.2-16] [MQTT5-3.3.2-18] [MQTT5-3.3.2-20].
///
/// The properties that go on to subscribers, and the Message Expiry Interval, which is counted down instead.
fn forwardable<'a>(properties: Properties<'a>, kept: &'a mut Vec<u8>) -> (&'a [u8], Option<u32>) {
    if properties.is_empty() {
        return (&[], None);
    }
    let expiry = properties.message_expiry_secs();
    if expiry.is_none() && properties.topic_alias().is_none() {
        return (properties.as_bytes(), None);
    }
    kept.clear();
    for property in properties.iter() {
        if !matches!(property, Property::MessageExpiryInterval(_) | Property::TopicAlias(_)) {
            property.encode(kept);
        }
    }
    (kept, expiry)
}

fn refusal_text(label: &str) -> &'static str {
    match label {
        "topic_bytes_max" => "the topic name is longer than this server allows",
        "topic_levels_max" => "the topic name has more levels than this server allows",
        "not_authorized" => "this account may not publish to this topic",
        "retained_messages_max" | "retained_bytes_max" => "the server keeps no more retained messages",
        "low_space" => "the server's disk is nearly full",
        "publish_rate_max" => "more messages a second than this server allows; try again later",
        _ => "",
    }
}

/// At most 64 characters of something a client sent, for a log line.
pub(super) fn shorten(text: &str) -> &str {
    match text.char_indices().nth(64) {
        Some((at, _)) => &text[..at],
        None => text,
    }
}
