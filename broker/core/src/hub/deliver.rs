//! Deliveries: who gets a message, through which queue, and when the next one may go.

use super::Now;
use super::send::{Form, Sent};
use super::{After, Effect, Hub, narrow};
use crate::link::CachedRoute;
use crate::message::Message;
use crate::router::{NoLocal, Recipient, Retained, Route, SessionKey};
use crate::session::{Flow, PageCursor, Ready, Slot, packet_id_of};
use crate::store::{
    Fact, Load, MessageRef, Page, PageEntry, QueueIndex, Recipient as StoredRecipient, Recipients, encode_recipient,
};
use std::rc::Rc;

/// Bytes of messages a persistent session that is online may keep in memory between queue and socket.
const READY_BYTES: usize = 256 * 1024;
/// How much one load asks for.
const LOAD_ENTRIES: u32 = 256;
const LOAD_BYTES: u32 = 256 * 1024;
/// Nodes of the tree of retained messages that are looked at for one session before others have their turn.
const RETAINED_NODES: usize = 4_096;
/// Routes one publisher keeps at hand.
const CACHED_ROUTES: usize = 4;
/// The largest of those.
const CACHED_ROUTE_BYTES: usize = 4 * 1024;

/// A message on its way through the hub.
pub(super) struct Incoming<'a> {
    pub(super) message: MessageRef<'a>,
    pub(super) qos: u8,
    pub(super) retain: bool,
    /// The publishing session, or `u32::MAX`.
    pub(super) from: u32,
    pub(super) publisher: &'a Rc<str>,
}

/// What became of a message.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Outcome {
    /// Something of it must be on disk before it is acknowledged.
    pub(super) durable: bool,
    /// How many sessions got it or have it queued.
    pub(super) accepted: u32,
    /// How many sessions could not take it.
    pub(super) full: u32,
}

/// One message on its way to several sessions.
struct Spread {
    shared: bool,
    stored: u32,
    copy: Option<Rc<Message>>,
    outcome: Outcome,
}

impl Hub {
    /// The route of a topic, from the publisher's own memory, everybody's, or the router.
    pub(super) fn find_route(&mut self, slot: Option<u32>, topic: &str) -> Rc<Route> {
        let generation = self.router.generation();
        if let Some(slot) = slot
            && let Some(extra) = &self.links[slot as usize].extra
            && let Some(known) = extra.routes.iter().find(|r| *r.topic == *topic)
            && known.generation == generation
        {
            return Rc::clone(&known.route);
        }
        let route = match self.routes.get(topic) {
            Some((g, route)) if *g == generation => Rc::clone(route),
            _ => {
                let route = Rc::new(self.readable_route(topic));
                let cost = route_cost(topic, &route);
                if self.routes.len() >= super::ROUTES || self.routes_bytes + cost > super::ROUTES_BYTES {
                    self.routes.clear();
                    self.routes_bytes = 0;
                }
                self.routes_bytes += cost;
                if let Some((_, old)) = self.routes.insert(topic.into(), (generation, Rc::clone(&route))) {
                    self.routes_bytes -= route_cost(topic, &old);
                }
                route
            }
        };
        // A long list of recipients makes the search for it cheap beside its use, and an idle link must not keep it.
        if let Some(slot) = slot
            && route_cost(topic, &route) <= CACHED_ROUTE_BYTES
        {
            let routes = &mut self.links[slot as usize].extra().routes;
            routes.retain(|r| r.generation == generation);
            if routes.len() >= CACHED_ROUTES {
                routes.remove(0);
            }
            routes.push(CachedRoute { generation, topic: topic.into(), route: Rc::clone(&route) });
        }
        route
    }

    /// A route without the sessions that may not read the topic.
    fn readable_route(&self, topic: &str) -> Route {
        let mut route = self.router.route(topic);
        if route.recipients.iter().any(|r| !self.may_deliver(r.session.0, topic)) {
            route.recipients = route.recipients.into_iter().filter(|r| self.may_deliver(r.session.0, topic)).collect();
        }
        route
    }

    /// Whether the rules let this session see the topic: asked of every live, retained, queued and replayed message.
    /// What is queued for a client whose groups are not known yet is asked about again when it is sent.
    pub(super) fn may_deliver(&self, key: u32, topic: &str) -> bool {
        let s = &self.sessions[key as usize];
        !s.who.known || self.access.may_read(s.who.profile, &s.who.account, &s.client_id, topic)
    }

    /// Takes a message to everybody who gets it, and keeps it if it is to be retained.
    pub(super) fn spread(&mut self, now: Now, slot: Option<u32>, m: &Incoming<'_>) -> Outcome {
        let route = self.find_route(slot, m.message.topic);
        let count = route.recipients.len() + route.groups.len();
        let mut spread = Spread { shared: count > 1, stored: 0, copy: None, outcome: Outcome::default() };
        if spread.shared {
            self.frames.clear();
        }
        self.recipients.clear();
        for recipient in &route.recipients {
            if recipient.session.0 == m.from {
                match recipient.no_local {
                    NoLocal::None => {}
                    NoLocal::All => continue, // [MQTT5-3.8.3-3]
                    NoLocal::Some => {
                        if let Some(own) = self.router.own_delivery(m.message.topic, recipient.session) {
                            self.deliver(now, m, &own, &mut spread);
                        }
                        continue;
                    }
                }
            }
            self.deliver(now, m, recipient, &mut spread);
        }
        for &group in &route.groups {
            self.deliver_shared(now, m, group, &mut spread);
        }
        if spread.stored > 0 {
            let bytes = core::mem::take(&mut self.recipients);
            let recipients = Recipients { count: spread.stored, bytes: &bytes };
            self.batch.push(&Fact::Enqueue { message: m.message, recipients });
            self.recipients = bytes;
            spread.outcome.durable = true;
        }
        // What is not to be retained leaves the retained message alone [MQTT5-3.3.1-8] [MQTT3-3.3.1-12].
        if m.retain {
            self.retain(m);
            spread.outcome.durable = true;
        }
        spread.outcome
    }

    /// Sets or clears the retained message of a topic [MQTT5-3.3.1-5] [MQTT5-3.3.1-6] [MQTT3-3.3.1-5].
    fn retain(&mut self, m: &Incoming<'_>) {
        let topic = m.message.topic;
        // [MQTT5-3.3.1-7] [MQTT3-3.3.1-10] [MQTT3-3.3.1-11]
        if m.message.payload.is_empty() {
            if self.retained.clear(topic) {
                self.batch.push(&Fact::RetainClear { topic });
            }
            return;
        }
        let message = Rc::new(Message::new(topic, m.message.properties, m.message.payload, m.message.expires_at_ms));
        self.batch.push(&Fact::Retain { qos: m.qos, publisher: m.publisher, message: m.message });
        // Whatever its QoS, the one before is gone [MQTT3-3.3.1-7].
        self.retained.set(Retained { message, qos: m.qos, publisher: Rc::clone(m.publisher), volatile: false });
    }

    /// Picks the member of a shared group that gets the message. It is that member's from then on: it waits for it to
    /// come back and goes to nobody else [MQTT5-4.8.2-4] [MQTT5-4.8.2-5].
    fn deliver_shared(&mut self, now: Now, m: &Incoming<'_>, group: crate::router::GroupKey, spread: &mut Spread) {
        let (sessions, links, access, limits) = (&self.sessions, &self.links, &self.access, &self.limits);
        let member = self.router.groups().pick(group, |member| {
            let s = sessions.get(member.session.0 as usize)?;
            if s.who.known && !access.may_read(s.who.profile, &s.who.account, &s.client_id, m.message.topic) {
                return None;
            }
            let qos = m.qos.min(member.options.qos());
            let queue = s.durable.as_ref().filter(|_| qos > 0);
            if queue.is_some_and(|d| d.is_full(limits, m.message.cost())) {
                return Some(3);
            }
            if let Some(l) = links.get(s.link as usize)
                && l.phase == crate::link::Phase::Open
            {
                let flow = s.flow.as_ref();
                let idle = flow.is_none_or(|f| f.waiting.is_empty() && f.has_credit(l.queue_credit()));
                return Some(u8::from(!idle));
            }
            (qos > 0 && s.durable.is_some()).then_some(2)
        });
        let Some(member) = member else { return };
        let mut ids = vec![];
        if member.id != 0 {
            crate::router::put_subscription_id(&mut ids, member.id);
        }
        let recipient = Recipient {
            session: member.session,
            // [MQTT5-4.8.2-3]
            qos: member.options.qos(),
            retain_as_published: member.options.retain_as_published(),
            no_local: NoLocal::None,
            subscription_ids: ids.into(),
        };
        self.deliver(now, m, &recipient, spread);
    }

    /// Takes a message to one session: to its socket now, to its queue on disk, or to its queue in memory.
    fn deliver(&mut self, now: Now, m: &Incoming<'_>, recipient: &Recipient, spread: &mut Spread) {
        let key = recipient.session.0;
        let qos = m.qos.min(recipient.qos); // [MQTT5-3.8.4-8] [MQTT3-3.8.4-6]
        let retain = m.retain && recipient.retain_as_published; // [MQTT5-3.3.1-12] [MQTT5-3.3.1-13] [MQTT3-3.3.1-9]
        let output_max = self.output_max();
        let Some(s) = self.sessions.get_mut(key as usize) else { return };
        let link = s.link;
        let open = self.links.get(link as usize).is_some_and(|l| l.phase == crate::link::Phase::Open);
        if qos > 0 && s.durable.is_some() {
            let place = StoredRecipient {
                session: crate::store::SessionNo(0),
                index: QueueIndex(0),
                qos,
                retain,
                subscription_ids: &recipient.subscription_ids,
            };
            self.enqueue(now, key, open, m, &place, spread);
            return;
        }
        if !open {
            return;
        }
        let l = &self.links[link as usize];
        let flow = s.flow.as_deref();
        let road = flow.and_then(|f| f.road(m.message.topic, qos));
        let waits = flow.is_some_and(|f| f.has_waiting(road));
        let (outlet, unsent) = match road {
            None => (link, l.unsent()),
            Some(stream) => (stream, self.links[stream as usize].unsent()),
        };
        // An empty output takes any one packet.
        let room = unsent == 0 || unsent + m.message.cost() + 64 <= output_max;
        // [MQTT5-3.3.4-9] [MQTT5-4.9.0-2]
        let credit = qos == 0 || s.flow.as_ref().map_or(l.queue_credit() > 0, |f| f.has_credit(l.queue_credit()));
        if waits || !credit || !room {
            if qos == 0 && !waits {
                self.counters.dropped.add("slow_reader");
                self.counters.limits.add("output_bytes_max");
                let client = &self.sessions[key as usize].client_id;
                self.notices.push(now.ms, "slow_reader", || {
                    format!("client {client:?} does not read fast enough: QoS 0 messages for it are dropped (limits.output_bytes_max)")
                });
                return;
            }
            self.wait_in_memory(now, key, road, m, qos, retain, recipient, spread);
            return;
        }
        // Sent for the first time: DUP is 0, whatever the publisher's was [MQTT5-3.3.1-3] [MQTT5-4.3.1-1] [MQTT5-4.3.2-2]
        // [MQTT5-4.3.3-2] [MQTT3-3.3.1-3] [MQTT3-4.3.1-1] [MQTT3-4.3.2-1].
        let packet_id = (qos > 0).then(|| packet_id_of(s.flow.get_or_insert_default().next()));
        let form = Form { qos, retain, dup: false, packet_id, subscription_ids: &recipient.subscription_ids };
        match self.send_message(outlet, &m.message, form, now.wall_ms, spread.shared) {
            Sent::Yes => {
                if qos > 0
                    && let Some(flow) = &mut self.sessions[key as usize].flow
                {
                    flow.push(if qos == 1 { Slot::PubAck(0) } else { Slot::PubRec(0) });
                }
                spread.outcome.accepted += 1;
            }
            Sent::TooLarge => self.drop_too_large(now, key),
        }
    }

    /// As if it had been sent [MQTT5-3.1.2-25].
    fn drop_too_large(&mut self, now: Now, key: u32) {
        self.counters.dropped.add("packet_too_large");
        let client = &self.sessions[key as usize].client_id;
        self.notices.push(now.ms, "packet_too_large", || {
            format!("a message exceeds the Maximum Packet Size of client {client:?} and is not sent to it")
        });
    }

    fn drop_queue_full(&mut self, now: Now, key: u32, limit: &'static str, spread: &mut Spread) {
        spread.outcome.full += 1;
        self.counters.dropped.add("queue_full");
        self.counters.limits.add(limit);
        let client = &self.sessions[key as usize].client_id;
        self.notices.push(now.ms, "queue_full", || {
            format!("the queue of client {client:?} is full (limits.{limit}): further messages for it are dropped until it reads")
        });
    }

    #[allow(clippy::too_many_arguments)]
    fn wait_in_memory(
        &mut self,
        now: Now,
        key: u32,
        road: Option<u32>,
        m: &Incoming<'_>,
        qos: u8,
        retain: bool,
        recipient: &Recipient,
        spread: &mut Spread,
    ) {
        let (count, bytes) = (self.limits.memory_queue_messages_max, self.limits.memory_queue_bytes_max);
        let flow = self.sessions[key as usize].flow.get_or_insert_default();
        if flow.waiting_count() as u64 >= count {
            return self.drop_queue_full(now, key, "memory_queue_messages_max", spread);
        }
        if (flow.waiting_bytes + m.message.cost()) as u64 > bytes {
            return self.drop_queue_full(now, key, "memory_queue_bytes_max", spread);
        }
        let message = Rc::clone(spread.copy.get_or_insert_with(|| copy_of(&m.message)));
        let subscription_ids = recipient.subscription_ids.clone();
        flow.wait(road, Ready { index: 0, message, qos, retain, subscription_ids });
        spread.outcome.accepted += 1;
    }

    fn enqueue(
        &mut self,
        now: Now,
        key: u32,
        open: bool,
        m: &Incoming<'_>,
        place: &StoredRecipient<'_>,
        spread: &mut Spread,
    ) {
        let cost = m.message.cost();
        let s = &mut self.sessions[key as usize];
        let Some(d) = &mut s.durable else { return };
        if d.queued >= self.limits.queue_messages_max {
            return self.drop_queue_full(now, key, "queue_messages_max", spread);
        }
        if d.queued_bytes + cost as u64 > self.limits.queue_bytes_max {
            return self.drop_queue_full(now, key, "queue_bytes_max", spread);
        }
        // [MQTT5-4.5.0-1] [MQTT3-3.1.2-5] [MQTT3-4.5.0-1]
        let index = d.tail;
        d.tail += 1;
        d.queued += 1;
        d.queued_bytes += cost as u64;
        if open && !d.loading && d.ready_bytes + ready_cost(cost) <= READY_BYTES {
            let flow_next = s.flow.as_ref().map_or(0, |f| f.next());
            let end = d.ready.back().map(|r| r.index + 1).or(d.page.as_ref().map(|p| p.next)).unwrap_or(flow_next);
            if end == index {
                d.ready_bytes += ready_cost(cost);
                let message = Rc::clone(spread.copy.get_or_insert_with(|| copy_of(&m.message)));
                let subscription_ids = place.subscription_ids.into();
                d.ready.push_back(Ready { index, message, qos: place.qos, retain: place.retain, subscription_ids });
            }
        }
        encode_recipient(&mut self.recipients, &StoredRecipient { session: d.no, index: QueueIndex(index), ..*place });
        if s.link != crate::session::NO_LINK {
            // The caller puts the fact into the batch that this waits for.
            self.after.push(After::Release { session: key, generation: s.generation, until: index + 1 });
        }
        spread.stored += 1;
        spread.outcome.accepted += 1;
    }

    /// Enqueues one retained message for one persistent session.
    pub(super) fn enqueue_retained(&mut self, now: Now, key: u32, retained: &Retained, qos: u8, ids: &[u8]) {
        let publisher = Rc::clone(&retained.publisher);
        let message = retained.message.view();
        let m = Incoming { message, qos, retain: true, from: u32::MAX, publisher: &publisher };
        let copy = Some(Rc::clone(&retained.message));
        let mut spread = Spread { shared: false, stored: 0, copy, outcome: Outcome::default() };
        let place = StoredRecipient {
            session: crate::store::SessionNo(0),
            index: QueueIndex(0),
            qos,
            retain: true,
            subscription_ids: ids,
        };
        self.recipients.clear();
        let open = self.is_open(self.sessions[key as usize].link);
        self.enqueue(now, key, open, &m, &place, &mut spread);
        if spread.stored > 0 {
            self.batch.push(&Fact::Enqueue { message, recipients: Recipients { count: 1, bytes: &self.recipients } });
        }
    }

    /// Each in the order it came in [MQTT5-4.6.0-5] [MQTT5-4.6.0-6] [MQTT3-4.6.0-5] [MQTT3-4.6.0-6], which is the order of
    /// those that are sent again as well [MQTT3-4.6.0-1].
    ///
    /// Sends what may be sent now: first what waits in memory, then the queue on disk in its order.
    pub(super) fn pump(&mut self, now: Now, key: u32) {
        self.pump_im(now, key);
        self.pump_queues(now, key);
    }

    /// As [`Hub::pump`], without the messaging rooms.
    pub(super) fn pump_queues(&mut self, now: Now, key: u32) {
        let Some(s) = self.sessions.get(key as usize) else { return };
        let link = s.link;
        if (s.flow.is_none() && s.durable.is_none()) || !self.is_open(link) {
            return;
        }
        let mut budget = RETAINED_NODES;
        if s.flow.as_ref().is_some_and(|f| f.roads.is_some()) {
            return self.pump_roads(now, key, link, budget);
        }
        let low = self.output_low();
        while self.links[link as usize].unsent() < low {
            if !self.pump_waiting(now, key, link)
                && !self.pump_queue(now, key, link)
                && !self.pump_wishes(now, key, &mut budget)
            {
                break;
            }
        }
    }

    /// Sends the first message that waits in memory; false if there is none or it may not go yet.
    pub(super) fn pump_waiting(&mut self, now: Now, key: u32, link: u32) -> bool {
        let receive_max = self.links[link as usize].queue_credit();
        let Some(flow) = &mut self.sessions[key as usize].flow else { return false };
        let Some(first) = flow.waiting.front() else { return false };
        if first.qos > 0 && !flow.has_credit(receive_max) {
            return false;
        }
        let Some(ready) = flow.waiting.pop_front() else { return false };
        if flow.waiting.is_empty() {
            flow.waiting = std::collections::VecDeque::new();
        }
        self.send_waiting(now, key, link, &ready);
        true
    }

    /// Sends a message that waited in memory.
    pub(super) fn send_waiting(&mut self, now: Now, key: u32, outlet: u32, ready: &Ready) {
        let Some(flow) = self.flow_of(key) else { return };
        flow.waiting_bytes = flow.waiting_bytes.saturating_sub(ready.message.cost());
        let packet_id = (ready.qos > 0).then(|| packet_id_of(flow.next()));
        let message = ready.message.view();
        if !self.is_deliverable(now, key, &message) {
            return;
        }
        let form = Form {
            qos: ready.qos,
            retain: ready.retain,
            dup: false,
            packet_id,
            subscription_ids: &ready.subscription_ids,
        };
        match self.send_message(outlet, &message, form, now.wall_ms, false) {
            Sent::Yes if ready.qos > 0 => {
                if let Some(flow) = &mut self.sessions[key as usize].flow {
                    flow.push(if ready.qos == 1 { Slot::PubAck(0) } else { Slot::PubRec(0) });
                }
            }
            Sent::Yes => {}
            Sent::TooLarge => self.drop_too_large(now, key),
        }
    }

    /// Neither expired [MQTT5-3.3.2-5] nor hidden from the client by the rules of today.
    fn is_deliverable(&mut self, now: Now, key: u32, message: &MessageRef<'_>) -> bool {
        if message.expires_at_ms != 0 && message.expires_at_ms <= now.wall_ms {
            self.counters.dropped.add("expired");
            return false;
        }
        if !self.may_deliver(key, message.topic) {
            self.counters.dropped.add("not_authorized");
            return false;
        }
        true
    }

    /// Moves the queue on disk one step; false if there is nothing to do now.
    pub(super) fn pump_queue(&mut self, now: Now, key: u32, link: u32) -> bool {
        let (receive_max, low) = (self.links[link as usize].queue_credit(), self.output_low());
        let s = &mut self.sessions[key as usize];
        let Some(d) = &mut s.durable else { return false };
        let flow = s.flow.get_or_insert_default();
        let next = flow.next();
        if next >= d.committed || !flow.has_room() {
            return false;
        }
        if !d.prior.is_empty() && next >= d.prior_base + d.prior.len() as u64 {
            d.prior = std::collections::VecDeque::new();
        }
        // What an earlier connection already knew of this delivery.
        if let Some(known) = d.prior_state(next) {
            match known {
                Slot::Done => {
                    flow.push(Slot::Done);
                    return true;
                }
                Slot::Storing => {
                    flow.push(Slot::Storing);
                    return true;
                }
                Slot::PubComp => {
                    self.go_on_with_pubrel(key, link, next);
                    return true;
                }
                Slot::PubAck(_) | Slot::PubRec(_) => {}
            }
        }
        // From here on it is a PUBLISH, and only that waits for the Receive Maximum [MQTT5-3.3.4-10].
        if !flow.has_credit(receive_max) {
            return false;
        }
        if let Some(page) = &mut d.page {
            if next >= page.next {
                d.page = None;
                return true;
            }
            let page = d.page.take().expect("it is there: matched above");
            return self.pump_page(now, key, link, next, page);
        }
        if d.ready.front().is_some_and(|r| r.index < next) {
            let stale = d.ready.pop_front();
            d.ready_bytes -= stale.map_or(0, |r| ready_cost(r.message.cost()));
            return true;
        }
        if flow.roads.is_some()
            && let Some(first) = d.ready.front().filter(|r| r.index == next)
        {
            let outlet = flow.road(first.message.topic(), first.qos).unwrap_or(link);
            if self.links[outlet as usize].unsent() >= low {
                return false;
            }
        }
        if d.ready.front().is_some_and(|r| r.index == next)
            && let Some(ready) = d.ready.pop_front()
        {
            d.ready_bytes -= ready_cost(ready.message.cost());
            let message = ready.message.view();
            self.send_queued(now, key, link, next, &message, ready.qos, ready.retain, &ready.subscription_ids);
            return true;
        }
        if !d.loading {
            d.loading = true;
            let until = d.ready.front().map_or(d.committed, |r| r.index.min(d.committed));
            self.effects.push_back(Effect::Load(Load {
                session: d.no,
                from: QueueIndex(next),
                until: QueueIndex(until),
                max_entries: LOAD_ENTRIES,
                max_bytes: LOAD_BYTES,
            }));
        }
        false
    }

    fn pump_page(&mut self, now: Now, key: u32, link: u32, next: u64, mut page: PageCursor) -> bool {
        let bytes = core::mem::take(&mut page.bytes);
        let decoded = if page.at < bytes.len() { PageEntry::decode(&bytes[page.at..]).ok() } else { None };
        let mut moved = true;
        match decoded {
            Some((entry, _))
                if entry.index.0 == next
                    && !entry.received
                    && !self.is_road_free(key, link, entry.message.topic, entry.qos) =>
            {
                moved = false;
            }
            Some((entry, used)) if entry.index.0 <= next => {
                page.at += used;
                if entry.index.0 == next {
                    if entry.received {
                        self.go_on_with_pubrel(key, link, next);
                    } else {
                        let m = entry.message;
                        self.send_queued(now, key, link, next, &m, entry.qos, entry.retain, entry.subscription_ids);
                    }
                }
            }
            // The page says nothing of `next`: it was acknowledged before.
            _ => self.sessions[key as usize].flow.get_or_insert_default().push(Slot::Done),
        }
        page.bytes = bytes;
        if let Some(d) = &mut self.sessions[key as usize].durable {
            d.page = Some(page);
        }
        moved
    }

    #[allow(clippy::too_many_arguments)]
    fn send_queued(
        &mut self,
        now: Now,
        key: u32,
        link: u32,
        index: u64,
        message: &MessageRef<'_>,
        qos: u8,
        retain: bool,
        ids: &[u8],
    ) {
        let cost = narrow(message.cost());
        let known = self.sessions[key as usize].durable.as_ref().map_or((0, 0), |d| (d.sent, d.uncertain_until));
        let dup = index < known.0; // [MQTT5-3.3.1-1] [MQTT3-3.3.1-1]
        let begun = dup && index >= known.1;
        let form = Form { qos, retain, dup, packet_id: Some(packet_id_of(index)), subscription_ids: ids };
        // A delivery that was begun must be finished, expired or not [MQTT5-4.3.3-7] [MQTT5-4.4.0-1] [MQTT3-4.4.0-1],
        // if its client may still see it.
        let finish = begun && self.may_deliver(key, message.topic);
        let slot = if finish || self.is_deliverable(now, key, message) {
            let outlet = self.outlet_for(key, link, message.topic, qos);
            match self.send_message(outlet, message, form, now.wall_ms, false) {
                Sent::Yes if qos == 1 => Slot::PubAck(cost),
                Sent::Yes => Slot::PubRec(cost),
                Sent::TooLarge => {
                    self.drop_too_large(now, key);
                    Slot::Done
                }
            }
        } else {
            Slot::Done
        };
        let s = &mut self.sessions[key as usize];
        s.flow.get_or_insert_default().push(slot);
        if let Some(d) = &mut s.durable {
            d.sent = d.sent.max(index + 1);
            if slot == Slot::Done {
                d.forget(cost);
                self.batch.push(&Fact::Acked { no: d.no, index: QueueIndex(index) });
            }
        }
    }

    /// A page arrived from the store.
    pub(super) fn take_page(&mut self, now: Now, key: u32, page: Page) {
        let s = &mut self.sessions[key as usize];
        let Some(d) = &mut s.durable else { return };
        d.loading = false;
        let next = s.flow.as_ref().map_or(0, |f| f.next());
        // An answer to a question of an earlier connection, or one that says nothing, is not used.
        if s.link == crate::session::NO_LINK || page.next.0 <= next || page.from.0 > next {
            if s.link != crate::session::NO_LINK && page.next.0 > page.from.0 {
                self.pump(now, key);
            }
            return;
        }
        d.page = Some(PageCursor { bytes: page.bytes, at: 0, next: page.next.0 });
        self.pump(now, key);
    }

    /// The deliveries under way to a session.
    pub(super) fn flow_of(&mut self, key: u32) -> Option<&mut Flow> {
        self.sessions.get_mut(key as usize)?.flow.as_deref_mut()
    }

    pub(super) fn session_key(key: u32) -> SessionKey {
        SessionKey(key)
    }
}

/// About how many bytes a route keeps in memory.
fn route_cost(topic: &str, route: &Route) -> usize {
    let recipients = route.recipients.len() * size_of::<Recipient>();
    topic.len() + recipients + size_of_val(&*route.groups) + 128
}

/// What a message in memory takes, small ones included.
fn ready_cost(cost: usize) -> usize {
    cost + size_of::<Ready>() + 64
}

fn copy_of(m: &MessageRef<'_>) -> Rc<Message> {
    Rc::new(Message::new(m.topic, m.properties, m.payload, m.expires_at_ms))
}
