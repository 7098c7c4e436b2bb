//! SUBSCRIBE and UNSUBSCRIBE, and the retained messages a new subscription brings.

use super::{After, Hub, Now, inbound::shorten};
use crate::router::{Options, Retained};
use crate::session::{Ready, Subscription};
use crate::store::Fact;
use parlor_protocol::mqtt::{
    Packet, Properties, ReasonCode, SubAck, Subscribe, SubscriptionOptions, UnsubAck, Unsubscribe, Version,
};
use parlor_protocol::topic;
use std::rc::Rc;

/// A subscription whose retained messages are to be sent.
pub(super) struct RetainedWish {
    filter: Box<str>,
    options: Options,
    id: u32,
}

impl Hub {
    /// Filter by filter, with one SUBACK for all that has its identifier and their codes in order [MQTT5-2.2.1-6]
    /// [MQTT5-3.8.4-1] [MQTT5-3.8.4-2] [MQTT5-3.8.4-5] [MQTT5-3.8.4-6] [MQTT5-3.8.4-7] [MQTT5-3.9.3-1] [MQTT3-2.3.1-7]
    /// [MQTT3-3.8.4-1] [MQTT3-3.8.4-2] [MQTT3-3.8.4-4] [MQTT3-3.8.4-5] [MQTT3-3.9.3-1].
    pub(super) fn on_subscribe(&mut self, now: Now, slot: u32, p: &Subscribe<'_>) {
        let id = p.properties.subscription_identifier().unwrap_or(0);
        let mut reasons = vec![];
        let mut wishes = vec![];
        for (filter, options) in p.filters.iter() {
            let shared = matches!(topic::parse_shared(filter), Ok(Some(_)));
            if shared && options.no_local {
                // [MQTT5-3.8.3-4]
                return self.refuse(
                    now,
                    slot,
                    ReasonCode::PROTOCOL_ERROR,
                    "no_local_shared",
                    "No Local is not allowed on a shared subscription",
                );
            }
            match self.subscribe_one(now, slot, filter, options, id) {
                Ok(new) => {
                    reasons.push(options.qos as u8);
                    let bits = Options(options.to_bits());
                    // [MQTT5-3.3.1-9] [MQTT5-3.3.1-10] [MQTT5-3.3.1-11] [MQTT5-3.8.4-4]; none for shared ones (4.8.2).
                    let wanted = match bits.retain_handling() {
                        0 => true,
                        1 => new,
                        _ => false,
                    };
                    if wanted && !shared {
                        wishes.push(RetainedWish { filter: filter.into(), options: bits, id });
                    }
                }
                Err((reason, label)) => {
                    self.counters.refused.add(label);
                    if self.limits.value(label).is_some() {
                        self.counters.limits.add(label);
                    }
                    let client = self.name_of(slot);
                    self.notices.push(now.ms, label, || {
                        format!("SUBSCRIBE of client {client:?} to {:?} refused: {reason:?} ({label})", shorten(filter))
                    });
                    // [MQTT3-3.9.3-2]: 3.1.1 knows one failure code.
                    let v5 = self.links[slot as usize].version == Version::V5;
                    reasons.push(if v5 { reason.0 } else { 0x80 });
                }
            }
        }
        let packet = SubAck { packet_id: p.packet_id, properties: Properties::EMPTY, reasons: &reasons };
        let bytes = self.encoded(slot, &Packet::SubAck(packet));
        let link = self.id_of(slot);
        let after = After::SubAck { link, bytes, retained: wishes.into() };
        self.answer_session(now, slot, after);
    }

    /// Replies at once, unless the session is persistent: then what was promised must be on disk first.
    fn answer_session(&mut self, now: Now, slot: u32, after: After) {
        let l = &self.links[slot as usize];
        if self.sessions[l.session as usize].durable.is_some() || l.deferred > 0 {
            self.after_commit(now, after);
        } else {
            self.run_after(now, after);
        }
    }

    fn encoded(&self, slot: u32, packet: &Packet<'_>) -> Box<[u8]> {
        let mut bytes = vec![];
        packet.encode(self.links[slot as usize].version, &mut bytes);
        bytes.into()
    }

    /// True if the subscription is new, false if it replaces one.
    fn subscribe_one(
        &mut self,
        _now: Now,
        slot: u32,
        filter: &str,
        options: SubscriptionOptions,
        id: u32,
    ) -> Result<bool, (ReasonCode, &'static str)> {
        let key = self.links[slot as usize].session;
        let invalid = ReasonCode::TOPIC_FILTER_INVALID;
        let plain = match topic::parse_shared(filter) {
            Ok(Some((_, plain))) => plain,
            Ok(None) => filter,
            Err(_) => return Err((invalid, "topic_filter_invalid")),
        };
        topic::check_filter(plain).map_err(|_| (invalid, "topic_filter_invalid"))?;
        if filter.len() as u64 > self.limits.topic_bytes_max {
            return Err((invalid, "topic_bytes_max"));
        }
        if topic::level_count(filter) as u64 > self.limits.topic_levels_max {
            return Err((invalid, "topic_levels_max"));
        }
        let s = &self.sessions[key as usize];
        if !self.access.may_subscribe(s.who.profile, &s.who.account, &s.client_id, plain) {
            return Err((ReasonCode::NOT_AUTHORIZED, "not_authorized"));
        }
        let old = s.subscriptions.iter().position(|sub| *sub.filter == *filter);
        if old.is_none() {
            if s.subscriptions.len() as u64 >= self.limits.subscriptions_per_session_max {
                return Err((ReasonCode::QUOTA_EXCEEDED, "subscriptions_per_session_max"));
            }
            if self.router.count() >= self.limits.subscriptions_max {
                return Err((ReasonCode::QUOTA_EXCEEDED, "subscriptions_max"));
            }
        }
        let bits = options.to_bits();
        self.router.subscribe(Self::session_key(key), filter, Options(bits), id);
        let s = &mut self.sessions[key as usize];
        if let Some(d) = &s.durable {
            self.batch.push(&Fact::Subscribe { no: d.no, filter, options: bits, id });
        }
        match old.and_then(|at| s.subscriptions.get_mut(at)) {
            Some(sub) => (sub.options, sub.id) = (bits, id),
            None => s.subscriptions.push(Subscription { filter: filter.into(), options: bits, id }),
        }
        Ok(old.is_none())
    }

    /// Filters are compared as they are, and one UNSUBACK answers all [MQTT5-2.2.1-6] [MQTT5-3.10.4-1] [MQTT5-3.10.4-4]
    /// [MQTT5-3.10.4-5] [MQTT5-3.10.4-6] [MQTT5-3.11.3-1] [MQTT3-2.3.1-7] [MQTT3-3.10.4-1] [MQTT3-3.10.4-4]
    /// [MQTT3-3.10.4-5] [MQTT3-3.10.4-6].
    pub(super) fn on_unsubscribe(&mut self, now: Now, slot: u32, p: &Unsubscribe<'_>) {
        let key = self.links[slot as usize].session;
        let mut reasons = vec![];
        for filter in p.filters.iter() {
            let s = &mut self.sessions[key as usize];
            let at = s.subscriptions.iter().position(|sub| *sub.filter == *filter);
            reasons.push(if let Some(at) = at {
                s.subscriptions.swap_remove(at);
                if let Some(d) = &s.durable {
                    self.batch.push(&Fact::Unsubscribe { no: d.no, filter });
                }
                // Nothing new is queued from now on, what is queued is sent [MQTT5-3.10.4-2] [MQTT5-3.10.4-3] [MQTT3-3.10.4-2]
                // [MQTT3-3.10.4-3].
                self.router.unsubscribe(Self::session_key(key), filter);
                ReasonCode::SUCCESS.0
            } else {
                ReasonCode::NO_SUBSCRIPTION_EXISTED.0 // [MQTT5-3.11.3-2]
            });
        }
        let packet = UnsubAck { packet_id: p.packet_id, properties: Properties::EMPTY, reasons: &reasons };
        let bytes = self.encoded(slot, &Packet::UnsubAck(packet));
        let link = self.id_of(slot);
        self.answer_session(now, slot, After::Bytes { link, bytes });
    }

    /// Sends the retained messages that match new subscriptions, with the retain flag set [MQTT5-3.3.1-9]
    /// [MQTT3-3.3.1-6] [MQTT3-3.3.1-8].
    pub(super) fn send_retained(&mut self, now: Now, slot: u32, wishes: &[RetainedWish]) {
        let key = self.links[slot as usize].session;
        if key == u32::MAX || wishes.is_empty() {
            return;
        }
        for wish in wishes {
            let mut found: Vec<Retained> = vec![];
            let mut expired: Vec<Box<str>> = vec![];
            self.retained.visit(&wish.filter, |r| {
                let at = r.message.expires_at_ms;
                if at != 0 && at <= now.wall_ms {
                    expired.push(r.message.topic().into());
                } else {
                    found.push(r.clone());
                }
            });
            for topic in expired {
                self.retained.clear(&topic);
                self.batch.push(&Fact::RetainClear { topic: &topic });
                self.counters.dropped.add("expired");
            }
            let mut ids = vec![];
            if wish.id != 0 {
                crate::router::put_subscription_id(&mut ids, wish.id);
            }
            for retained in found {
                if !self.may_deliver(key, retained.message.topic()) {
                    continue;
                }
                let qos = retained.qos.min(wish.options.qos());
                if qos > 0 && self.sessions[key as usize].durable.is_some() {
                    self.enqueue_retained(now, key, &retained, qos, &ids);
                    continue;
                }
                // These wait in memory whatever their number: each is a pointer to a message that is kept anyway.
                let flow = self.sessions[key as usize].flow.get_or_insert_default();
                let message = Rc::clone(&retained.message);
                flow.waiting.push_back(Ready {
                    index: 0,
                    message,
                    qos,
                    retain: true,
                    subscription_ids: ids.as_slice().into(),
                });
            }
        }
        self.pump(now, key);
    }
}
