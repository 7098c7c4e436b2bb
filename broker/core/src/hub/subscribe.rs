//! SUBSCRIBE and UNSUBSCRIBE, and the retained messages a new subscription brings.

use super::messaging::is_messaging;
use super::{After, Hub, Now, Timer, inbound::shorten};
use crate::im::PAIRING_ACCOUNT;
use crate::router::{Options, Retained};
use crate::session::{Flow, Ready, RetainedWish, Subscription};
use crate::store::Fact;
use parlor_protocol::mqtt::{
    Packet, Properties, ReasonCode, SubAck, Subscribe, SubscriptionOptions, UnsubAck, Unsubscribe, Version,
};
use parlor_protocol::topic;
use std::rc::Rc;

/// Retained messages that one look at the tree brings for one subscription.
const RETAINED_STEP: usize = 256;
/// No further ones are queued on disk while as many messages wait there.
const RETAINED_QUEUED: u64 = 1_024;

/// By filter.
pub(super) type Wishes = std::collections::BTreeMap<Box<str>, RetainedWish>;

impl Hub {
    /// Filter by filter, with one SUBACK for all that has its identifier and their codes in order [MQTT5-2.2.1-6]
    /// [MQTT5-3.8.4-1] [MQTT5-3.8.4-2] [MQTT5-3.8.4-5] [MQTT5-3.8.4-6] [MQTT5-3.8.4-7] [MQTT5-3.9.3-1] [MQTT3-2.3.1-7]
    /// [MQTT3-3.8.4-1] [MQTT3-3.8.4-2] [MQTT3-3.8.4-4] [MQTT3-3.8.4-5] [MQTT3-3.9.3-1].
    pub(super) fn on_subscribe(&mut self, now: Now, slot: u32, p: &Subscribe<'_>) {
        let id = p.properties.subscription_identifier().unwrap_or(0);
        let mut reasons = vec![];
        let mut wishes = Wishes::new();
        let is_shared = |filter: &str| matches!(topic::parse_shared(filter), Ok(Some(_)));
        // Asked first, so that a packet that is an error changes nothing [MQTT5-3.8.3-4].
        if p.filters.iter().any(|(filter, options)| options.no_local && is_shared(filter)) {
            return self.refuse(
                now,
                slot,
                ReasonCode::PROTOCOL_ERROR,
                "no_local_shared",
                "No Local is not allowed on a shared subscription",
            );
        }
        for (filter, options) in p.filters.iter() {
            let shared = is_shared(filter);
            match self.subscribe_one(now, slot, filter, options, id) {
                Ok((new, qos)) => {
                    reasons.push(qos);
                    let bits = Options(options.to_bits());
                    // [MQTT5-3.3.1-9] [MQTT5-3.3.1-10] [MQTT5-3.3.1-11] [MQTT5-3.8.4-4]; none for shared ones (4.8.2).
                    let wanted = match bits.retain_handling() {
                        0 => true,
                        1 => new,
                        _ => false,
                    };
                    if wanted && !shared && !is_messaging(filter) {
                        wishes.insert(filter.into(), RetainedWish { options: bits, id, after: None });
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
        let after = After::SubAck { link, bytes, retained: wishes };
        self.answer_session(now, slot, after);
        self.settle_im(now);
    }

    /// Replies at once, unless the session is persistent, or has become a terminal, which nobody may forget any more: then
    /// what was promised must be on disk first.
    fn answer_session(&mut self, now: Now, slot: u32, after: After) {
        let l = &self.links[slot as usize];
        let is_durable = self.sessions[l.session as usize].durable.is_some() || l.deferred > 0;
        let waits = self.im.has_claimed_terminal() || is_durable;
        self.defer(slot);
        if waits {
            self.after_commit(now, after);
            self.slow_down_for_disk(slot);
        } else {
            self.run_after(now, after);
        }
    }

    fn encoded(&self, slot: u32, packet: &Packet<'_>) -> Box<[u8]> {
        let mut bytes = vec![];
        packet.encode(self.links[slot as usize].version, &mut bytes);
        bytes.into()
    }

    /// The QoS granted, and true if the subscription is new, false if it replaces one.
    pub(super) fn subscribe_one(
        &mut self,
        now: Now,
        slot: u32,
        filter: &str,
        options: SubscriptionOptions,
        id: u32,
    ) -> Result<(bool, u8), (ReasonCode, &'static str)> {
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
        let is_im = is_messaging(plain);
        if is_im && plain.len() != filter.len() {
            return Err((ReasonCode::SHARED_SUBSCRIPTIONS_NOT_SUPPORTED, "im_shared"));
        }
        let s = &self.sessions[key as usize];
        let is_pairing = self.links[slot as usize].im_account == Some(PAIRING_ACCOUNT);
        let denied = || is_pairing || !self.access.may_subscribe(s.who.profile, &s.who.account, &s.client_id, plain);
        if !is_im && denied() {
            return Err((ReasonCode::NOT_AUTHORIZED, "not_authorized"));
        }
        let place = s.place_of(filter);
        if place.is_err() {
            if s.subscriptions.len() as u64 >= self.limits.subscriptions_per_session_max {
                return Err((ReasonCode::QUOTA_EXCEEDED, "subscriptions_per_session_max"));
            }
            if self.router.count() >= self.limits.subscriptions_max {
                return Err((ReasonCode::QUOTA_EXCEEDED, "subscriptions_max"));
            }
        }
        let bits = options.to_bits();
        let mut qos = options.qos as u8;
        if is_im {
            qos = self.subscribe_im(now, slot, filter, options, id)?;
        } else {
            self.router.subscribe(Self::session_key(key), filter, Options(bits), id);
        }
        let s = &mut self.sessions[key as usize];
        if let Some(d) = &s.durable {
            self.batch.push(&Fact::Subscribe { no: d.no, filter, options: bits, id });
        }
        let entry = Subscription { filter: filter.into(), options: bits, id };
        match place {
            Ok(at) => s.subscriptions[at] = entry,
            Err(at) => s.subscriptions.insert(at, entry),
        }
        self.lay_road(slot, key, filter);
        Ok((place.is_err(), qos))
    }

    /// Filters are compared as they are, and one UNSUBACK answers all [MQTT5-2.2.1-6] [MQTT5-3.10.4-1] [MQTT5-3.10.4-4]
    /// [MQTT5-3.10.4-5] [MQTT5-3.10.4-6] [MQTT5-3.11.3-1] [MQTT3-2.3.1-7] [MQTT3-3.10.4-1] [MQTT3-3.10.4-4]
    /// [MQTT3-3.10.4-5] [MQTT3-3.10.4-6].
    pub(super) fn on_unsubscribe(&mut self, now: Now, slot: u32, p: &Unsubscribe<'_>) {
        let key = self.links[slot as usize].session;
        let mut reasons = vec![];
        for filter in p.filters.iter() {
            let existed = self.unsubscribe_one(key, filter);
            // [MQTT5-3.11.3-2]
            reasons.push(if existed { ReasonCode::SUCCESS.0 } else { ReasonCode::NO_SUBSCRIPTION_EXISTED.0 });
        }
        let packet = UnsubAck { packet_id: p.packet_id, properties: Properties::EMPTY, reasons: &reasons };
        let bytes = self.encoded(slot, &Packet::UnsubAck(packet));
        let link = self.id_of(slot);
        self.answer_session(now, slot, After::Bytes { link, bytes });
    }

    /// Whether there was such a subscription. Nothing new is queued from now on, what is queued is sent [MQTT5-3.10.4-2]
    /// [MQTT5-3.10.4-3] [MQTT3-3.10.4-2] [MQTT3-3.10.4-3].
    pub(super) fn unsubscribe_one(&mut self, key: u32, filter: &str) -> bool {
        let s = &mut self.sessions[key as usize];
        let Ok(at) = s.place_of(filter) else { return false };
        s.subscriptions.remove(at);
        if let Some(flow) = &mut s.flow {
            flow.wishes.remove(filter);
        }
        if let Some(d) = &s.durable {
            self.batch.push(&Fact::Unsubscribe { no: d.no, filter });
        }
        self.remove_road(key, filter);
        if is_messaging(filter) {
            self.unsubscribe_im(key, filter);
        } else {
            self.router.unsubscribe(Self::session_key(key), filter);
        }
        true
    }

    /// Sends the retained messages that match new subscriptions, with the retain flag set [MQTT5-3.3.1-9]
    /// [MQTT3-3.3.1-6] [MQTT3-3.3.1-8].
    pub(super) fn send_retained(&mut self, now: Now, slot: u32, mut wishes: Wishes) {
        let key = self.links[slot as usize].session;
        let Some(s) = self.sessions.get_mut(key as usize) else { return };
        if wishes.is_empty() {
            return;
        }
        s.flow.get_or_insert_default().wishes.append(&mut wishes);
        self.pump(now, key);
    }

    /// Takes the next retained messages for a session that has sent those before; false if there is nothing to do now.
    /// When `budget`, which bounds the nodes of the tree that are looked at, is used up, others have their turn first.
    pub(super) fn pump_wishes(&mut self, now: Now, key: u32, budget: &mut usize) -> bool {
        let s = &mut self.sessions[key as usize];
        let Some(flow) = &mut s.flow else { return false };
        if flow.wishes.is_empty() || (flow.roads.is_none() && !flow.waiting.is_empty()) {
            return false;
        }
        if s.durable.as_ref().is_some_and(|d| d.queued >= RETAINED_QUEUED.min(self.limits.queue_messages_max)) {
            return false;
        }
        if *budget == 0 {
            if !core::mem::replace(&mut flow.wishes_armed, true) {
                let timer = Timer::Wishes { session: key, generation: s.generation };
                self.arm(now.ms, timer);
            }
            return false;
        }
        let Some((filter, mut wish)) = first_wish(flow) else { return false };
        let mut found: Vec<Retained> = vec![];
        wish.after = self.retained.visit_after(&filter, wish.after.as_deref(), budget, |r| {
            found.push(r.clone());
            found.len() < RETAINED_STEP
        });
        let mut ids = vec![];
        if wish.id != 0 {
            crate::router::put_subscription_id(&mut ids, wish.id);
        }
        for retained in found {
            self.take_retained(now, key, &filter, &retained, wish.options, &ids);
        }
        if wish.after.is_some()
            && let Some(flow) = &mut self.sessions[key as usize].flow
        {
            flow.wishes.insert(filter, wish);
        }
        true
    }

    /// Takes one retained message to a session's queue.
    fn take_retained(&mut self, now: Now, key: u32, filter: &str, retained: &Retained, options: Options, ids: &[u8]) {
        let topic = retained.message.topic();
        let expires_at_ms = retained.message.expires_at_ms;
        if expires_at_ms != 0 && expires_at_ms <= now.wall_ms {
            if self.retained.clear(topic) {
                self.batch.push(&Fact::RetainClear { topic });
                self.counters.dropped.add("expired");
            }
            return;
        }
        if !self.may_deliver(key, topic) {
            return;
        }
        let qos = retained.qos.min(options.qos());
        let s = &mut self.sessions[key as usize];
        if qos > 0 && s.durable.is_some() {
            return self.enqueue_retained(now, key, retained, qos, ids);
        }
        let flow = s.flow.get_or_insert_default();
        let message = Rc::clone(&retained.message);
        let road = flow.roads.as_ref().and_then(|roads| roads.of_filter(filter, qos));
        flow.wait(road, Ready { index: 0, message, qos, retain: true, subscription_ids: ids.into() });
    }
}

/// Takes the first wish for whose stream nothing waits.
fn first_wish(flow: &mut Flow) -> Option<(Box<str>, RetainedWish)> {
    let Some(roads) = &flow.roads else { return flow.wishes.pop_first() };
    let is_next = |filter: &str| [0, 1].into_iter().all(|qos| !flow.has_waiting(roads.of_filter(filter, qos)));
    let filter = flow.wishes.keys().find(|filter| is_next(filter))?.clone();
    flow.wishes.remove_entry(&filter)
}
