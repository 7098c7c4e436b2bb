//! How connections and sessions end, and what becomes of wills.

use super::deliver::Incoming;
use super::{Effect, Hub, Now, Timer};
use crate::link::{LinkId, Phase, pause};
use crate::message::Message;
use crate::session::{Durable, NO_LINK, Session, Slot, Who, WillState};
use crate::store::{Batch, Fact, QueueIndex, QueueState, SessionRecord, WillRecord};
use parlor_protocol::mqtt::{Disconnect, ReasonCode, Version};
use std::collections::VecDeque;
use std::rc::Rc;

/// Whether the end of a connection publishes its will.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WithWill {
    Yes,
    No,
}

impl Hub {
    /// The client says goodbye.
    pub(super) fn on_disconnect(&mut self, now: Now, slot: u32, d: &Disconnect<'_>) {
        let key = self.links[slot as usize].session;
        let Some(s) = self.sessions.get_mut(key as usize) else {
            return self.abort(now, slot, "disconnect_before_connack");
        };
        if let Some(expiry_secs) = d.properties.session_expiry_interval_secs() {
            if s.expiry_secs == 0 && expiry_secs != 0 {
                // Section 3.14.2.2.2.
                return self.refuse(
                    now,
                    slot,
                    ReasonCode::PROTOCOL_ERROR,
                    "expiry_revived",
                    "a session that was to end with its connection cannot be kept",
                );
            }
            let cap = u32::try_from(self.limits.session_expiry_max_secs).unwrap_or(u32::MAX);
            s.expiry_secs = expiry_secs.min(cap);
        }
        // [MQTT5-3.1.2-10] [MQTT5-3.14.4-3] [MQTT3-3.1.2-10] [MQTT3-3.14.4-3]: only 0x04 (or an error) keeps the will.
        let with_will = if d.reason == ReasonCode::SUCCESS { WithWill::No } else { WithWill::Yes };
        self.end(now, slot, with_will);
        self.hang_up(slot);
    }

    /// A newer connection of the same client takes this one's place.
    pub(super) fn take_over(&mut self, now: Now, slot: u32) {
        self.counters.refused.add("taken_over");
        self.dismiss(slot, ReasonCode::SESSION_TAKEN_OVER, "a newer connection uses this client identifier");
        self.end(now, slot, WithWill::Yes);
    }

    /// Parts a session from its connection; the session goes on if it has an expiry interval. Safe to call twice.
    pub(super) fn end(&mut self, now: Now, slot: u32, with_will: WithWill) {
        self.answered(slot);
        self.end_streams(slot);
        let l = &mut self.links[slot as usize];
        l.paused = 0;
        let key = core::mem::replace(&mut l.session, u32::MAX);
        if let Some(extra) = &mut l.extra {
            let exchange = core::mem::take(&mut extra.exchange);
            if exchange != 0 {
                self.effects.push_back(Effect::Forget(exchange));
            }
        }
        if key == u32::MAX {
            return;
        }
        self.online -= 1;
        self.depart_im(now, slot, key);
        let s = &mut self.sessions[key as usize];
        s.link = NO_LINK;
        if with_will == WithWill::No && s.will.take().is_some() {
            self.batch.push(&Fact::WillClear { client_id: &s.client_id });
        }
        // [MQTT5-4.1.0-2] [MQTT3-3.1.2-6]
        if s.expiry_secs == 0 {
            return self.end_session(now, key, WithWill::Yes);
        }
        self.detach_queue(key);
        let s = &mut self.sessions[key as usize];
        let (generation, expiry_secs) = (s.generation, s.expiry_secs);
        if let Some(d) = &mut s.durable {
            d.disconnected_at_ms = now.wall_ms;
        }
        self.store_session(key);
        self.schedule_expiry(now, key, u64::from(expiry_secs) * 1000);
        let Some(delay_secs) = self.sessions[key as usize].will.as_ref().map(|w| w.delay_secs) else { return };
        // [MQTT5-3.1.2-8] [MQTT3-3.1.2-8]
        if delay_secs == 0 {
            self.publish_will(now, key);
        } else {
            let delay_ms = u64::from(delay_secs) * 1000;
            if let Some(will) = &mut self.sessions[key as usize].will {
                will.timer_ms = now.ms + delay_ms;
            }
            self.arm(now.ms + delay_ms, Timer::Will { session: key, generation });
            let s = &self.sessions[key as usize];
            if let Some(will) = &s.will {
                Self::push_will(&mut self.batch, s, will, now.wall_ms + delay_ms);
            }
        }
    }

    fn schedule_expiry(&mut self, now: Now, key: u32, left_ms: u64) {
        let s = &mut self.sessions[key as usize];
        let Some(d) = &mut s.durable else { return };
        if s.expiry_secs != u32::MAX {
            d.expiry_timer_ms = (now.ms + left_ms).max(1);
            let (at_ms, timer) = (d.expiry_timer_ms, Timer::SessionExpiry { session: key, generation: s.generation });
            self.arm(at_ms, timer);
        }
    }

    /// Keeps what this connection knew of its deliveries for the next one, and nothing else in memory.
    fn detach_queue(&mut self, key: u32) {
        let s = &mut self.sessions[key as usize];
        let Some(d) = &mut s.durable else { return };
        d.ready = VecDeque::new();
        d.ready_bytes = 0;
        d.page = None;
        let Some(flow) = &mut s.flow else { return };
        let known = flow.slots.len();
        // States beyond what this connection came to are still true.
        let rest: Vec<Slot> = (flow.next()..).map_while(|index| d.prior_state(index)).collect();
        d.prior_base = flow.head;
        d.prior = flow.slots.drain(..).chain(rest).collect();
        debug_assert!(d.prior.len() >= known);
        flow.in_flight = 0;
        flow.wishes.clear();
        flow.waiting = VecDeque::new();
        flow.waiting_bytes = 0;
    }

    /// Retained messages stay [MQTT3-3.1.2-7].
    ///
    /// The session is over: subscriptions, queue and identifiers go; its will is published if it still waits
    /// [MQTT5-3.1.2-8].
    pub(super) fn end_session(&mut self, now: Now, key: u32, with_will: WithWill) {
        if self.sessions[key as usize].will.is_some() {
            if with_will == WithWill::Yes {
                self.publish_will(now, key);
            } else {
                let s = &mut self.sessions[key as usize];
                s.will = None;
                self.batch.push(&Fact::WillClear { client_id: &s.client_id });
            }
        }
        let s = &self.sessions[key as usize];
        let hash = core::hash::BuildHasher::hash_one(&self.hasher, &*s.client_id);
        if let Ok(entry) = self.by_client_id.find_entry(hash, |k| *k == key) {
            entry.remove();
        }
        if let Some(count) = self.terminals.get_mut(&s.who.account) {
            *count -= 1;
            if *count == 0 {
                let account = Rc::clone(&s.who.account);
                self.terminals.remove(&account);
                self.who.remove(&account);
            }
        }
        let gone = self.sessions.remove(key as usize);
        for subscription in &gone.subscriptions {
            self.router.unsubscribe(Self::session_key(key), &subscription.filter);
        }
        if let Some(d) = &gone.durable {
            self.by_session_no.remove(&d.no.0);
            self.persistent -= 1;
            self.batch.push(&Fact::SessionEnd { no: d.no });
        }
    }

    /// The deadline that counts has come; by the clock that nobody sets, so that a session does not stay for ever when
    /// the time of day is put back.
    pub(super) fn session_expired(&mut self, now: Now, key: u32) {
        // A session does not end before its connection [MQTT5-4.1.0-1] [MQTT3-4.1.0-2].
        if !self.sessions[key as usize].is_online() {
            self.end_session(now, key, WithWill::Yes);
        }
    }

    pub(super) fn will_due(&mut self, now: Now, key: u32) {
        if !self.sessions[key as usize].is_online() {
            self.publish_will(now, key);
        }
    }

    /// Publishes a session's will and forgets it [MQTT5-3.1.2-10] [MQTT3-3.1.2-10].
    fn publish_will(&mut self, now: Now, key: u32) {
        let s = &mut self.sessions[key as usize];
        let Some(will) = s.will.take() else { return };
        let (who, client_id) = (Rc::clone(&s.who), s.client_id.clone());
        self.batch.push(&Fact::WillClear { client_id: &client_id });
        self.send_will(now, &will, &who, &client_id);
    }

    fn send_will(&mut self, now: Now, will: &WillState, who: &Who, client_id: &str) {
        let mut message = will.message.view();
        // The right was there at CONNECT; whose groups are not known again has kept it.
        if who.known && !self.access.may_publish(who.profile, &who.account, client_id, message.topic) {
            self.counters.refused.add("will_not_authorized");
            return;
        }
        if will.expiry_ms != 0 {
            // Whole seconds: what stands for an interval of 0 is over at once.
            message.expires_at_ms = now.wall_ms + will.expiry_ms / 1000 * 1000;
        }
        self.counters.wills += 1;
        let refusal = if will.retain { self.retained_refusal(now, &message) } else { None };
        if let Some((reason, limit)) = refusal {
            self.counters.limits.add(limit);
            self.notices.push(now.ms, limit, || {
                format!("the will of client {client_id:?} is sent and not retained: {reason:?} ({limit})")
            });
        }
        // [MQTT5-3.1.2-14] [MQTT5-3.1.2-15] [MQTT3-3.1.2-16] [MQTT3-3.1.2-17]
        let retain = will.retain && refusal.is_none();
        let from = u32::MAX;
        self.spread(now, None, &Incoming { message, qos: will.qos, retain, from, publisher: &who.account });
    }

    /// Writes the session's own row, if it is persistent.
    pub(super) fn store_session(&mut self, key: u32) {
        let s = &self.sessions[key as usize];
        if let Some(d) = &s.durable {
            self.batch.push(&Fact::Session {
                no: d.no,
                client_id: &s.client_id,
                account: &s.who.account,
                version: s.version as u8,
                expiry_secs: s.expiry_secs,
                disconnected_at_ms: d.disconnected_at_ms,
                sent: QueueIndex(d.sent),
            });
        }
    }

    /// Writes the will of a session whose connection lives, or clears what was written before.
    pub(super) fn store_will(&mut self, key: u32, had_will: bool) {
        let s = &self.sessions[key as usize];
        match &s.will {
            Some(will) => Self::push_will(&mut self.batch, s, will, 0),
            None if had_will => self.batch.push(&Fact::WillClear { client_id: &s.client_id }),
            None => {}
        }
    }

    pub(super) fn push_will(batch: &mut Batch, s: &Session, will: &WillState, due_at_ms: u64) {
        let mut message = will.message.view();
        message.expires_at_ms = will.expiry_ms;
        batch.push(&Fact::Will {
            client_id: &s.client_id,
            account: &s.who.account,
            qos: will.qos,
            retain: will.retain,
            delay_secs: will.delay_secs,
            due_at_ms,
            session: s.durable.as_ref().map(|d| d.no),
            message,
        });
    }

    // ---- Time --------------------------------------------------------------------------------------------------

    pub(super) fn connect_timeout(&mut self, now: Now, link: LinkId) {
        if self.is_current(link) {
            let phase = self.links[link.slot as usize].phase;
            if matches!(phase, Phase::Connecting | Phase::Authenticating) {
                self.counters.limits.add("connect_timeout_secs");
                self.abort(now, link.slot, "connect_timeout");
            }
        }
    }

    pub(super) fn keep_alive_timeout(&mut self, now: Now, link: LinkId) {
        if !self.is_current(link) {
            return;
        }
        let is_stream_unread = self.is_stream_unread(link.slot);
        let l = &mut self.links[link.slot as usize];
        if l.phase != Phase::Open {
            return;
        }
        if is_stream_unread || l.paused & !pause::OUTPUT != 0 {
            // It is we who do not read.
            l.last_packet_ms = now.ms;
        }
        let due = l.last_packet_ms + u64::from(l.keep_alive_ms);
        if now.ms >= due {
            self.refuse(
                now,
                link.slot,
                ReasonCode::KEEP_ALIVE_TIMEOUT,
                "keep_alive_timeout",
                "nothing was heard for one and a half keep alives",
            );
        } else {
            self.arm(due, Timer::KeepAlive(link));
        }
    }

    pub(super) fn token_expired(&mut self, now: Now, link: LinkId) {
        if !self.is_current(link) {
            return;
        }
        let expires = self.links[link.slot as usize].extra.as_ref().and_then(|e| e.expires_at_ms);
        // Re-authentication may have moved the end.
        match expires {
            Some(at) if at <= now.wall_ms + 1 => {
                self.refuse(
                    now,
                    link.slot,
                    ReasonCode::MAXIMUM_CONNECT_TIME,
                    "token_expired",
                    "the credentials have expired; connect with new ones",
                );
            }
            Some(_) => self.arm_token(now, link),
            None => {}
        }
    }

    /// Sets the deadline at which a link's right to be connected ends, if it does.
    pub(super) fn arm_token(&mut self, now: Now, link: LinkId) {
        if let Some(extra) = &mut self.links[link.slot as usize].extra
            && let Some(at) = extra.expires_at_ms
        {
            extra.token_timer_ms = now.ms + at.saturating_sub(now.wall_ms);
            let at_ms = extra.token_timer_ms;
            self.arm(at_ms, Timer::Token(link));
        }
    }

    // ---- Start and stop ----------------------------------------------------------------------------------------

    pub(super) fn restore_session(&mut self, now: Now, record: SessionRecord) {
        let who = self.who_was(&record.account);
        let key = self.begin_session(&record.client_id, &who);
        self.by_session_no.insert(record.no.0, key);
        self.persistent += 1;
        let version = if record.version == Version::V5 as u8 { Version::V5 } else { Version::V311 };
        let died_connected = record.disconnected_at_ms == 0;
        let disconnected_at_ms = if died_connected { now.wall_ms } else { record.disconnected_at_ms };
        let mut prior = VecDeque::new();
        for (index, state) in &record.exceptions {
            let at = usize::try_from(index.0 - record.head.0).unwrap_or(usize::MAX);
            if at < 65_535 {
                prior.resize(prior.len().max(at + 1), Slot::PubAck(0));
                prior[at] = match state {
                    QueueState::Acked => Slot::Done,
                    QueueState::Received => Slot::PubComp,
                    QueueState::Queued => Slot::PubAck(0),
                };
            }
        }
        let flow = crate::session::Flow { head: record.head.0, ..Default::default() };
        let s = &mut self.sessions[key as usize];
        s.version = version;
        s.expiry_secs = record.expiry_secs;
        s.inbound = record.inbound;
        s.flow = Some(Box::new(flow));
        s.durable = Some(Box::new(Durable {
            no: record.no,
            tail: record.tail.0,
            committed: record.tail.0,
            // What may have been sent before the broker died is marked as a retry; it may be one.
            sent: if died_connected { record.tail.0 } else { record.sent.0 },
            uncertain_until: if died_connected { record.tail.0 } else { 0 },
            queued: record.queued,
            queued_bytes: record.queued_bytes,
            ready: VecDeque::new(),
            ready_bytes: 0,
            page: None,
            loading: false,
            disconnected_at_ms,
            expiry_timer_ms: 0,
            prior,
            prior_base: record.head.0,
        }));
        for (filter, options, id) in record.subscriptions {
            self.router.subscribe(Self::session_key(key), &filter, crate::router::Options(options), id);
            let s = &mut self.sessions[key as usize];
            let entry = crate::session::Subscription { filter: filter.into(), options, id };
            match s.place_of(&entry.filter) {
                Ok(at) => s.subscriptions[at] = entry,
                Err(at) => s.subscriptions.insert(at, entry),
            }
        }
        if died_connected {
            self.store_session(key);
        }
        let expiry_ms = u64::from(record.expiry_secs) * 1000;
        self.schedule_expiry(now, key, (disconnected_at_ms + expiry_ms).saturating_sub(now.wall_ms));
    }

    /// A will found at start: its client and the broker may have died together.
    pub(super) fn restore_will(&mut self, now: Now, record: &WillRecord) {
        let m = &record.message;
        let due_at_ms =
            if record.due_at_ms == 0 { now.wall_ms + u64::from(record.delay_secs) * 1000 } else { record.due_at_ms };
        let will = WillState {
            message: Rc::new(Message::new(&m.topic, &m.properties, &m.payload, 0)),
            qos: record.qos,
            retain: record.retain,
            delay_secs: record.delay_secs,
            expiry_ms: m.expires_at_ms,
            timer_ms: (now.ms + due_at_ms.saturating_sub(now.wall_ms)).max(1),
        };
        let key = self.find_session(&record.client_id).filter(|_| record.session.is_some());
        match key {
            Some(key) if due_at_ms > now.wall_ms => {
                let s: &mut Session = &mut self.sessions[key as usize];
                Self::push_will(&mut self.batch, s, &will, due_at_ms);
                let (generation, at_ms) = (s.generation, will.timer_ms);
                s.will = Some(Box::new(will));
                self.arm(at_ms, Timer::Will { session: key, generation });
            }
            _ => {
                let who = self.who_was(&record.account);
                self.batch.push(&Fact::WillClear { client_id: &record.client_id });
                self.send_will(now, &will, &who, &record.client_id);
                self.forget_unused(&who.account);
            }
        }
    }

    /// The broker stops in an orderly way: clients are told 0x8B, wills are not published, sessions stay.
    pub fn stop(&mut self, now: Now) {
        self.stopping = true;
        // Streams end with their connections.
        let slots: Vec<usize> = self.links.iter().filter(|(_, l)| l.stream.is_none()).map(|(slot, _)| slot).collect();
        for slot in slots {
            let slot = super::narrow(slot);
            self.dismiss(slot, ReasonCode::SERVER_SHUTTING_DOWN, "the server is shutting down");
            self.end(now, slot, WithWill::No);
        }
    }
}
