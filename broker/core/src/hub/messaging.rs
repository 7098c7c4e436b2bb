//! The hub's side of instant messaging: packets below `im/` go to the messaging rooms, and what those say goes out.

use super::deliver::Incoming;
use super::{AckKind, After, Effect, Hub, Now};
use crate::im::{AccountNo, shorten};
use crate::im::{Code, Done, Greeting, ImCounters, Origin, Out, PAIRING_ACCOUNT, Refusal, Verdict};
use crate::link::{LinkId, StreamKind};
use crate::message::Message;
use crate::session::NO_LINK;
use crate::store::{Answer, Fact};
use parlor_protocol::mqtt::{
    Ack, Packet, PacketId, Properties, Property, Publish, QoS, ReasonCode, SubscriptionOptions, Version,
};
use serde_json::Value;
use std::net::IpAddr;
use std::rc::Rc;

/// First levels of every topic of the messaging rooms.
const PREFIX: &str = "im/v1/";
/// User name of a device that has a pairing code and no account yet.
pub(super) const PAIR: &str = "pair";
/// The one topic, below [`PREFIX`], for such a device.
pub(super) const PAIRED: &str = "me/paired";
/// Where a client says, below [`PREFIX`], what it is.
const HELLO: &str = "me/hello";
/// Longest id that a refusal repeats.
const ID_BYTES: usize = 64;
/// Wrong codes from one address before it must wait, and how long; addresses remembered.
const GUESSES: u32 = 5;
const GUESS_WAIT_MS: u64 = 60_000;
const GUESSERS: usize = 4_096;

/// Who waits for a request that waits for the store.
#[derive(Debug)]
pub(super) enum Waiting {
    Packet {
        link: LinkId,
        kind: AckKind,
        packet_id: PacketId,
        path: Box<str>,
        id: Option<Value>,
    },
    /// QoS 0: nobody is answered.
    Nobody {
        link: LinkId,
        path: Box<str>,
        id: Option<Value>,
    },
    Act {
        token: u64,
    },
}

/// What a client said of itself in CONNECT.
#[derive(Debug, Default, Clone)]
pub(crate) struct Hello {
    pub(crate) level: u32,
    pub(crate) platform: Box<str>,
    pub(crate) app: Box<str>,
}

impl Hello {
    /// Reads the user properties `im-level`, `im-platform` and `im-app`; `None`: there are none.
    pub(super) fn read(properties: Properties<'_>) -> Option<Box<Self>> {
        let mut hello: Option<Box<Self>> = None;
        if properties.is_empty() {
            return None;
        }
        for property in properties.iter() {
            let Property::UserProperty(name, value) = property else { continue };
            match name {
                "im-level" => hello.get_or_insert_default().level = value.parse().unwrap_or(0),
                "im-platform" => hello.get_or_insert_default().platform = shorten(value).into(),
                "im-app" => hello.get_or_insert_default().app = shorten(value).into(),
                _ => {}
            }
        }
        hello
    }
}

/// Whether a topic or filter belongs to the messaging rooms.
pub(super) fn is_messaging(topic: &str) -> bool {
    topic.starts_with("im/")
}

impl Hub {
    /// The account of a link in the messaging rooms.
    fn im_account(&self, slot: u32) -> Option<AccountNo> {
        self.links[slot as usize].im_account
    }

    /// A PUBLISH below `im/`.
    pub(super) fn publish_im(&mut self, now: Now, slot: u32, key: u32, p: &Publish<'_>, name: &str) {
        let path = name.strip_prefix(PREFIX).unwrap_or_default();
        let Some(account) = self.im_account(slot) else {
            let text =
                "instant messaging needs an account, and this client has none: log in with user name and password";
            return self.refuse_im(now, slot, key, p, path, &Refusal::new(Code::NoAccount, text));
        };
        let is_pairing = account == PAIRING_ACCOUNT;
        if is_pairing && path != PAIRED {
            let text = "a device that is being paired may only publish to im/v1/me/paired";
            return self.refuse_im(now, slot, key, p, path, &Refusal::new(Code::Forbidden, text));
        }
        let needs_disk = path.starts_with("to/") && !path.ends_with("/receipt") && !path.ends_with("/typing");
        if self.low_space && needs_disk {
            if p.packet_id.is_some() && self.links[slot as usize].version == Version::V311 {
                // A positive answer would be a promise that is not kept [MQTT3-4.8.0-2].
                let text = "the server's disk is nearly full";
                return self.refuse(now, slot, ReasonCode::QUOTA_EXCEEDED, "low_space", text);
            }
            let text = "the server's disk is nearly full; try again later";
            return self.refuse_im(now, slot, key, p, path, &Refusal::new(Code::LowSpace, text));
        }
        if path == HELLO {
            // It may come before the first subscription.
            self.attach_im(self.main_of(slot), key, account, false);
        }
        let s = &self.sessions[key as usize];
        let (client_id, generation) =
            (self.im.client_id_of(key).unwrap_or_else(|| (&*s.client_id).into()), s.generation);
        let mut origin = Origin {
            account,
            session: Some((key, generation)),
            client_id: &client_id,
            token: 0,
            response_topic: None,
            correlation: None,
            id: None,
            expiry_ms: 0,
            // The operator's people may announce; in conversations they are like everybody.
            operator: self.links[slot as usize].im_admin && path.starts_with("admin/"),
        };
        if !p.properties.is_empty() {
            origin.response_topic = p.properties.response_topic();
            origin.correlation = p.properties.correlation_data();
            origin.expiry_ms = p.properties.message_expiry_secs().map_or(0, |secs| u64::from(secs) * 1000);
            origin.id = p.properties.iter().find_map(|property| match property {
                Property::UserProperty("im-id", id) => Some(id),
                _ => None,
            });
        }
        let main = self.main_of(slot);
        let code = self.links[main as usize].extra.as_ref().and_then(|e| e.pairing_code.clone());
        if is_pairing {
            origin.id = code.as_deref();
        }
        // What is answered on a stream of its own has a topic that the hub made.
        let is_own = self.links[slot as usize].native && self.links[slot as usize].stream == Some(StreamKind::Bulk);
        if origin.response_topic.is_some_and(|topic| !is_own && !topic.starts_with("im/v1/me/res/")) {
            let text = "the Response Topic of a request must lie below im/v1/me/res/";
            let refusal = Refusal::new(Code::ResponseTopic, text);
            return self.refuse_im(now, slot, key, p, path, &refusal);
        }
        if name.len() == path.len() {
            let text = "topics below im/ begin with im/v1/";
            return self.refuse_im(now, slot, key, p, name, &Refusal::new(Code::BadTopic, text));
        }
        match self.im.request(now, &origin, path, p.payload) {
            Ok(Verdict::Done(done)) => {
                self.take_im_facts(now);
                self.conclude_im(now, slot, key, p, &done);
                if let Some(reply) = done.reply {
                    let asker = Box::new(crate::im::Im::asker(&origin, path, None).with_id(p.payload));
                    self.after_commit(now, After::ImTold { asker, reply });
                }
            }
            Ok(Verdict::Later) => {
                self.take_im_facts(now);
                self.conclude_im(now, slot, key, p, &Done::default());
            }
            Ok(Verdict::Parked(token)) => {
                let link = self.id_of(slot);
                let (path, id) = (path.into(), said_id(p));
                let waiting = match p.packet_id {
                    Some(packet_id) => Waiting::Packet { link, kind: kind_of(p.qos), packet_id, path, id },
                    None => Waiting::Nobody { link, path, id },
                };
                self.im_waiting.insert(token, waiting);
                // What the client says next must not overtake this.
                self.pause(slot, crate::link::pause::LOOKUP);
            }
            Err(refusal) => self.refuse_im(now, slot, key, p, path, &refusal),
        }
        self.settle_im(now);
    }

    /// Answers an accepted PUBLISH, at once or when it is on disk.
    fn conclude_im(&mut self, now: Now, slot: u32, key: u32, p: &Publish<'_>, done: &Done) {
        let Some(packet_id) = p.packet_id else {
            if done.durable {
                self.slow_down_for_disk(slot);
            }
            return;
        };
        self.acknowledge_im(now, slot, key, kind_of(p.qos), packet_id, done);
    }

    fn acknowledge_im(&mut self, now: Now, slot: u32, key: u32, kind: AckKind, packet_id: PacketId, done: &Done) {
        let mut durable = done.durable;
        if kind == AckKind::PubRec {
            let s = &mut self.sessions[key as usize];
            s.inbound_add(packet_id);
            if let Some(d) = &s.durable {
                self.batch.push(&Fact::InboundAdd { no: d.no, packet_id: packet_id.value() });
                durable = true;
            }
        }
        let l = &self.links[slot as usize];
        if durable || l.deferred > 0 {
            self.defer(slot);
            let link = self.id_of(slot);
            self.after_commit(now, After::ImAck { link, kind, packet_id, seq: done.seq, dup: done.dup });
        } else {
            self.answer_im(slot, kind, packet_id, done.seq, done.dup);
        }
        if durable {
            self.slow_down_for_disk(slot);
        }
    }

    /// PUBACK or PUBREC, with the message's seq for those who can read it.
    pub(super) fn answer_im(&mut self, slot: u32, kind: AckKind, packet_id: PacketId, seq: u64, dup: bool) {
        let l = &self.links[slot as usize];
        if l.version == Version::V311 || seq == 0 || l.no_problem_information {
            return self.answer(slot, kind, packet_id, ReasonCode::SUCCESS);
        }
        let mut properties = vec![];
        Property::UserProperty("im-seq", &seq.to_string()).encode(&mut properties);
        if dup {
            Property::UserProperty("im-dup", "1").encode(&mut properties);
        }
        self.answer_with(slot, kind, packet_id, ReasonCode::SUCCESS, &properties);
    }

    fn answer_with(&mut self, slot: u32, kind: AckKind, packet_id: PacketId, reason: ReasonCode, properties: &[u8]) {
        let ack = Ack { packet_id, reason, properties: Properties::from_validated(properties) };
        let packet = if kind == AckKind::PubRec { Packet::PubRec(ack) } else { Packet::PubAck(ack) };
        self.send(slot, &packet);
        if kind != AckKind::PubRec || reason.is_error() {
            self.answered_finally(slot);
        }
    }

    fn refuse_im(&mut self, now: Now, slot: u32, key: u32, p: &Publish<'_>, path: &str, refusal: &Refusal) {
        self.note_refusal(now, slot, path, said_id(p), refusal);
        if let Some(packet_id) = p.packet_id {
            self.refuse_packet(now, slot, key, kind_of(p.qos), packet_id, refusal);
        }
        self.settle_im(now);
    }

    /// Counts a refusal, logs it, and tells the client where it can hear of it.
    pub(super) fn note_refusal(&mut self, now: Now, slot: u32, path: &str, id: Option<Value>, refusal: &Refusal) {
        let label = refusal.code.text();
        self.counters.refused.add(label);
        let client = self.name_of(slot);
        let text = &refusal.text;
        self.notices.push(now.ms, label, || {
            format!("PUBLISH of client {client:?} to im/v1/{} refused: {label}: {text}", shorten(path))
        });
        let l = &self.links[slot as usize];
        let (Some(account), key) = (l.im_account, l.session) else { return };
        let Some(s) = self.sessions.get(key as usize) else { return };
        let (client_id, generation) = (s.client_id.clone(), s.generation);
        let origin = Origin {
            account,
            session: Some((key, generation)),
            client_id: &client_id,
            token: 0,
            response_topic: None,
            correlation: None,
            id: None,
            expiry_ms: 0,
            operator: false,
        };
        self.im.tell_refusal(&origin, path, id, refusal);
    }

    pub(super) fn refuse_packet(
        &mut self,
        now: Now,
        slot: u32,
        key: u32,
        kind: AckKind,
        packet_id: PacketId,
        refusal: &Refusal,
    ) {
        let l = &self.links[slot as usize];
        if l.version == Version::V311 {
            // 3.1.1 knows no refusal [MQTT3-3.3.5-2]; the client hears of it under im/v1/me/err.
            if kind == AckKind::PubRec {
                self.sessions[key as usize].inbound_add(packet_id);
            }
            return self.acknowledge(now, slot, kind, packet_id, ReasonCode::SUCCESS, false);
        }
        let text = format!("{}: {}", refusal.code.text(), refusal.text);
        if l.deferred > 0 {
            self.defer(slot);
            let (link, reason) = (self.id_of(slot), refusal.code.reason());
            return self.after_commit(now, After::ImRefused { link, kind, packet_id, reason, text: text.into() });
        }
        self.answer_refusal(slot, kind, packet_id, refusal.code.reason(), &text);
    }

    pub(super) fn answer_refusal(
        &mut self,
        slot: u32,
        kind: AckKind,
        packet_id: PacketId,
        reason: ReasonCode,
        text: &str,
    ) {
        let properties = self.reason_property(slot, text);
        self.answer_with(slot, kind, packet_id, reason, &properties);
    }

    /// A message that waited for the store has been dealt with.
    fn concluded(&mut self, now: Now, token: u64, verdict: Result<Verdict, Refusal>) {
        let Some(waiting) = self.im_waiting.remove(&token) else { return };
        let (link, packet, path, id) = match waiting {
            Waiting::Act { token } => return self.acted(now, token, verdict),
            Waiting::Packet { link, kind, packet_id, path, id } => (link, Some((kind, packet_id)), path, id),
            Waiting::Nobody { link, path, id } => (link, None, path, id),
        };
        if !self.is_current(link) {
            return;
        }
        let Some(slot) = self.outlet_of(link.slot) else { return };
        let key = self.links[slot as usize].session;
        match (verdict, packet) {
            (Ok(Verdict::Done(done)), Some((kind, packet_id))) => {
                self.acknowledge_im(now, slot, key, kind, packet_id, &done);
            }
            (Ok(_), _) => {}
            (Err(refusal), packet) => {
                self.note_refusal(now, slot, &path, id, &refusal);
                if let Some((kind, packet_id)) = packet {
                    self.refuse_packet(now, slot, key, kind, packet_id, &refusal);
                }
            }
        }
        self.resume(now, link.slot, crate::link::pause::LOOKUP);
        self.retire(link.slot);
    }

    // ---- Sessions --------------------------------------------------------------------------------------------

    /// CONNACK was sent: the account is there, and its session takes part if it has subscribed to anything below `im/`.
    pub(super) fn arrive_im(&mut self, now: Now, slot: u32, key: u32) {
        let s = &self.sessions[key as usize];
        let who = Rc::clone(&s.who);
        if self.links[slot as usize].im_account == Some(PAIRING_ACCOUNT) || *who.account == *super::connect::ANONYMOUS {
            return;
        }
        let Some(account) = self.im.account_or_new(now, &who.account) else { return };
        let l = &mut self.links[slot as usize];
        l.im_account = Some(account);
        l.im_admin = who.groups.iter().any(|group| group == "admins");
        self.im.connected(now, account);
        self.im.pairing_ended(account);
        let filters: Vec<(Box<str>, u8, u32)> = self.sessions[key as usize]
            .subscriptions
            .iter()
            .filter(|s| is_messaging(&s.filter))
            .map(|s| (s.filter.clone(), s.options & 3, s.id))
            .collect();
        if !filters.is_empty() {
            let at = self.attach_im(slot, key, account, true);
            for (filter, qos, id) in filters {
                self.im.subscribe(now, at, &filter, qos, id, Greeting::Retained);
            }
        }
        self.settle_im(now);
    }

    fn attach_im(&mut self, slot: u32, key: u32, account: AccountNo, is_resumed: bool) -> u32 {
        let s = &self.sessions[key as usize];
        let v5 = self.links[slot as usize].version == Version::V5;
        let hello = self.links[slot as usize].extra.as_ref().and_then(|e| e.hello.clone());
        self.im.attach((key, s.generation), account, &s.client_id, v5, is_resumed, hello.as_deref())
    }

    /// The connection is gone.
    pub(super) fn depart_im(&mut self, now: Now, slot: u32, key: u32) {
        let Some(account) = self.links[slot as usize].im_account.take() else { return };
        self.im.detach(now, key);
        if account != PAIRING_ACCOUNT {
            self.im.disconnected(now, account);
        }
        self.links[slot as usize].im_in_flight = 0;
        self.settle_im(now);
    }

    /// A subscription below `im/`: it is not the router's. The QoS granted.
    pub(super) fn subscribe_im(
        &mut self,
        now: Now,
        slot: u32,
        filter: &str,
        options: SubscriptionOptions,
        id: u32,
    ) -> Result<u8, (ReasonCode, &'static str)> {
        let key = self.links[slot as usize].session;
        let Some(account) = self.im_account(slot) else { return Err((ReasonCode::NOT_AUTHORIZED, "no_account")) };
        if !crate::im::may_be_subscribed(filter) {
            return Err((ReasonCode::TOPIC_FILTER_INVALID, "bad_topic"));
        }
        if account == PAIRING_ACCOUNT && filter.strip_prefix(PREFIX) != Some(PAIRED) {
            return Err((ReasonCode::NOT_AUTHORIZED, "not_authorized"));
        }
        let is_new = self.sessions[key as usize].place_of(filter).is_err();
        let at = self.attach_im(self.main_of(slot), key, account, false);
        let greeting = match options.to_bits() >> 4 & 3 {
            0 => Greeting::Retained,
            1 if is_new => Greeting::Retained,
            _ => Greeting::Nothing,
        };
        let qos = (options.qos as u8).min(1);
        if !self.im.subscribe(now, at, filter, qos, id, greeting) {
            return Err((ReasonCode::QUOTA_EXCEEDED, "terminals"));
        }
        Ok(qos)
    }

    pub(super) fn unsubscribe_im(&mut self, key: u32, filter: &str) {
        if let Some(at) = self.im.place_of(key) {
            self.im.unsubscribe(at, filter);
        }
    }

    /// PUBACK of a packet identifier that is not the queue's.
    pub(super) fn puback_im(&mut self, now: Now, slot: u32, packet_id: PacketId) {
        let key = self.links[slot as usize].session;
        if !self.im.puback(now, key, packet_id.value()) {
            self.counters.refused.add("unknown_packet_id");
            return;
        }
        let main = self.main_of(slot);
        self.links[main as usize].im_in_flight = narrow16(self.im.in_flight(key));
        self.settle_im(now);
        // Its credit may be what the queue waits for.
        self.pump_queues(now, key);
    }

    /// Sends a session what the messaging rooms have for it, as far as its socket and its Receive Maximum allow.
    pub(super) fn pump_im(&mut self, now: Now, key: u32) {
        let Some(s) = self.sessions.get(key as usize) else { return };
        let slot = s.link;
        if slot == NO_LINK || !self.is_open(slot) || !self.im.takes_part(key) {
            return;
        }
        let low = self.output_low();
        loop {
            let l = &self.links[slot as usize];
            if l.unsent() >= low || self.is_messaging_road_full(key) {
                // `wrote` goes on from here.
                break;
            }
            let used = self.sessions[key as usize].flow.as_ref().map_or(0, |f| usize::from(f.in_flight));
            let credit = usize::from(l.receive_max).saturating_sub(used + usize::from(l.im_in_flight));
            let Some(sending) = self.im.next(now, key, credit) else { break };
            self.send_im(now, key, slot, sending);
            self.links[slot as usize].im_in_flight = narrow16(self.im.in_flight(key));
        }
    }

    fn send_im(&mut self, now: Now, key: u32, main: u32, sending: crate::im::Sending) {
        let slot = self.outlet_for(key, main, &self.im.wire().topic, sending.qos);
        if self.links[slot as usize].native {
            return self.send_im_native(now, key, slot, sending);
        }
        let l = &self.links[slot as usize];
        let (version, packet_max) = (l.version, l.packet_max as usize);
        let wire = self.im.wire();
        let mut publish = wire.publish(sending);
        let mut len = publish.encoded_len(version);
        let over = len.saturating_sub(packet_max);
        if over > 0 && publish.payload.len().saturating_sub(over) >= sending.least {
            publish.payload = publish.payload.get(..publish.payload.len() - over).unwrap_or_default();
            len = publish.encoded_len(version);
        }
        if len > packet_max {
            // [MQTT5-3.1.2-24]: it counts as sent and done.
            self.counters.dropped.add("packet_too_large");
            if let Some(id) = sending.packet_id {
                self.im.give_up(now, key, id);
            }
            return;
        }
        if l.stream == Some(StreamKind::Datagrams) && l.unsent() != 0 && l.unsent() + len > self.output_max() {
            self.counters.dropped.add("slow_reader");
            self.counters.limits.add("output_bytes_max");
            return;
        }
        let mut bytes = core::mem::take(&mut self.scratch);
        bytes.clear();
        publish.encode(version, &mut bytes);
        self.output_of(slot, len).extend_from_slice(&bytes);
        self.scratch = bytes;
        self.counters.sent[usize::from(sending.qos)] += 1;
    }

    // ---- Between the rooms and the hub -----------------------------------------------------------------------

    /// Takes the rows that were written into the batch.
    pub(super) fn take_im_facts(&mut self, now: Now) {
        self.im_now = now;
        let facts = &mut self.im.facts;
        if facts.facts != 0 {
            self.batch.bytes.append(&mut facts.bytes);
            self.batch.facts += core::mem::take(&mut facts.facts);
        }
    }

    /// Does what the rooms want done, and sends what they have.
    pub(super) fn settle_im(&mut self, now: Now) {
        self.take_im_facts(now);
        while let Some(out) = self.im.out.pop_front() {
            self.do_im(now, out);
            self.take_im_facts(now);
        }
        while let Some(key) = self.im.poll_ready() {
            self.pump_im(now, key);
        }
        if self.im_places_ms.is_none() && self.im.has_places() {
            self.im_places_ms = Some(now.ms + super::PLACES_MS);
        }
        // Sending may ask for more to be read.
        while let Some(out) = self.im.out.pop_front() {
            self.do_im(now, out);
        }
        self.take_im_facts(now);
    }

    fn do_im(&mut self, now: Now, out: Out) {
        match out {
            Out::Query(query) => self.effects.push_back(Effect::Query(query)),
            Out::Concluded { token, verdict } => {
                self.take_im_facts(now);
                self.concluded(now, token, verdict);
            }
            Out::Replied { token, reply } => self.after_commit(now, After::Replied { token, reply }),
            Out::Kick { session } => self.kick_session(now, session),
            Out::Plain { topic, payload } => self.publish_own(now, &topic, &payload),
            Out::Pair(request) => self.effects.push_back(Effect::Pair(request)),
            Out::AccountMade { name, record } => self.after_commit(now, After::AccountMade { name, record }),
            Out::Tell { asker, reply } => {
                self.take_im_facts(now);
                self.after_commit(now, After::ImTold { asker, reply });
            }
            Out::Notice { label, text } => self.notices.push(now.ms, label, || text),
        }
    }

    fn kick_session(&mut self, now: Now, key: u32) {
        let Some(client_id) = self.sessions.get(key as usize).map(|s| s.client_id.clone()) else { return };
        self.kick_now(now, &client_id, true);
    }

    /// Publishes a retained message of the broker's own; an empty payload clears it.
    fn publish_own(&mut self, now: Now, topic: &str, payload: &[u8]) {
        let publisher: Rc<str> = "parlor".into();
        let message = Message::new(topic, &[], payload, 0);
        let m = Incoming { message: message.view(), qos: 1, retain: true, from: u32::MAX, publisher: &publisher };
        if self.retained_refusal(now, &m.message).is_none() {
            self.spread(now, None, &m);
        }
    }

    /// The store has answered a question of the messaging rooms.
    pub(super) fn query_answered(&mut self, now: Now, answer: &Answer) {
        self.im.answered(now, answer);
        self.settle_im(now);
    }

    /// Tells a session, or whoever acted, how a request went, now that it is on disk.
    pub(super) fn told_im(&mut self, now: Now, asker: &crate::im::Asker, reply: Value) {
        self.im.answer(asker, reply);
        self.settle_im(now);
    }

    // ---- The operator ----------------------------------------------------------------------------------------

    /// Says what kind of account this is (`person`, `device` or `service`) and its display name;
    /// [`Effect::Stored`] with this token follows.
    pub fn describe_account(&mut self, now: Now, name: &str, kind: &str, display_name: Option<&str>, token: u64) {
        if self.im.describe_account(now, name, kind, display_name).is_err() {
            self.notices.push(now.ms, "bad_request", || format!("account {name}: {kind} is no kind of account"));
        }
        self.settle_im(now);
        self.after_commit(now, After::Stored(token));
    }

    /// Credentials for a device that is being paired have been made ([`Effect::Pair`]).
    pub fn paired(&mut self, now: Now, exchange: u64, record: &[u8], password: &str) {
        self.im.paired(now, exchange, record, password);
        self.settle_im(now);
    }

    /// What the messaging rooms counted since start.
    pub fn im_counters(&self) -> &ImCounters {
        &self.im.counters
    }

    /// Gauges of the messaging rooms.
    pub fn im_totals(&self) -> crate::im::ImTotals {
        self.im.totals()
    }

    // ---- Pairing ---------------------------------------------------------------------------------------------

    /// Whether a pairing code lets its bearer in, and if not, why. Guesses from one address are slowed down.
    pub(super) fn pairing_code_fits(&mut self, now: Now, from: IpAddr, code: &str) -> Result<(), &'static str> {
        let guesses = self.guesses.get(&from).copied().unwrap_or((0, 0));
        if guesses.0 >= GUESSES && now.ms < guesses.1 {
            return Err("pairing_slowed_down");
        }
        if self.im.pairing_login(now, code).is_ok() {
            self.guesses.remove(&from);
            return Ok(());
        }
        if self.guesses.len() >= GUESSERS {
            self.guesses.clear();
        }
        let count = if now.ms < guesses.1 { guesses.0 + 1 } else { 1 };
        self.guesses.insert(from, (count, now.ms + GUESS_WAIT_MS));
        Err("pairing_code")
    }

    pub(super) fn end_account_im(&mut self, now: Now, name: &str) {
        self.im.remove_account(now, name);
        self.settle_im(now);
    }
}

fn kind_of(qos: QoS) -> AckKind {
    if qos == QoS::ExactlyOnce { AckKind::PubRec } else { AckKind::PubAck }
}

/// The id of a request, so that whoever is refused knows what: user property `im-id`, or `id` in the payload.
fn said_id(p: &Publish<'_>) -> Option<Value> {
    let of_property = p.properties.iter().find_map(|property| match property {
        Property::UserProperty("im-id", id) => Some(id.into()),
        _ => None,
    });
    let of_payload = || crate::im::object(p.payload).ok()?.remove("id");
    let fits = |id: &Value| id.as_str().is_none_or(|id| id.len() <= ID_BYTES) && !id.is_object() && !id.is_array();
    of_property.or_else(of_payload).filter(fits)
}

fn narrow16(n: usize) -> u16 {
    u16::try_from(n).unwrap_or(u16::MAX)
}
