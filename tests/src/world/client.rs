//! A small correct MQTT client as a state machine: packets in, bytes out, and its own memory of what is unfinished.
//!
//! Its memory survives its connections, as that of a client with a disk of its own would.

use super::Rng;
use crate::checkers::{Class, Delivery, Ledger, MessageId, Publication, SessionId};
use parlor_protocol::mqtt::{
    Ack, Connect, Disconnect, Packet, PacketId, Properties, Property, Publish, QoS, ReasonCode, RetainHandling,
    Subscribe, SubscribeFilters, SubscriptionOptions, Unsubscribe, UnsubscribeFilters, Version, Will,
};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// What a client is like for all of its life.
#[derive(Debug, Clone)]
pub struct Character {
    /// Client identifier.
    pub name: String,
    /// Protocol version.
    pub version: Version,
    /// Whether its session outlives its connections.
    pub persistent: bool,
    /// Receive Maximum it announces (MQTT 5).
    pub receive_max: u16,
    /// Topic Alias Maximum it announces (MQTT 5).
    pub alias_max: u16,
    /// Keep alive, seconds.
    pub keep_alive_secs: u16,
    /// Whether it sets wills, and their delay in seconds.
    pub will_delay_secs: Option<u32>,
    /// User name, if it gives one.
    pub username: Option<String>,
}

/// How far a message of its own is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// PUBLISH was sent: PUBACK or PUBREC is awaited.
    Sent,
    /// PUBREL was sent: PUBCOMP is awaited.
    Released,
}

#[derive(Debug, Clone)]
struct Outgoing {
    id: MessageId,
    packet_id: PacketId,
    step: Step,
}

/// Where its connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// It has none.
    Away,
    /// CONNECT was sent.
    Connecting,
    /// CONNACK came.
    Open,
}

/// The will of one connection.
#[derive(Debug, Clone, Copy)]
pub struct WillOf {
    /// The message.
    pub id: MessageId,
    /// Its delay, milliseconds.
    pub delay_ms: u64,
}

/// The client.
#[derive(Debug)]
#[allow(clippy::struct_excessive_bools, reason = "each is a fact of its own, and all combinations occur")]
pub struct Client {
    /// What it is like.
    pub character: Character,
    /// Which one it is.
    pub number: usize,
    /// Where its connection is.
    pub phase: Phase,
    /// The session it believes to have.
    pub session: Option<SessionId>,
    /// The broker has confirmed that session.
    pub confirmed: bool,
    /// It asked for a new session with its last CONNECT.
    pub clean: bool,
    /// The will of its connection.
    pub will: Option<WillOf>,
    /// Bytes to send.
    pub out: Vec<u8>,
    /// It answers later.
    pub lazy: bool,
    /// It waits for a CONNACK to a CONNECT that asks for a new session: until then nobody knows which one there is.
    wants_clean: bool,
    /// Its session ends with its connection. A clean session of 3.1.1 does, whatever the client does otherwise.
    ephemeral: bool,
    held: Vec<u8>,
    outgoing: VecDeque<Outgoing>,
    inbound: BTreeSet<u16>,
    unanswered: BTreeSet<u16>,
    requests: BTreeMap<u16, (String, Option<u8>)>,
    aliases: BTreeMap<u16, String>,
    server_receive_max: u16,
    next_packet_id: u16,
}

/// QoS 1 and 2 messages a client sends before it waits.
const WINDOW: usize = 20;

impl Client {
    /// A client that was never connected.
    pub fn new(number: usize, character: Character) -> Self {
        let character_is_persistent = character.persistent;
        Self {
            character,
            number,
            phase: Phase::Away,
            session: None,
            confirmed: false,
            clean: false,
            will: None,
            out: vec![],
            lazy: false,
            wants_clean: false,
            ephemeral: !character_is_persistent,
            held: vec![],
            outgoing: VecDeque::new(),
            inbound: BTreeSet::new(),
            unanswered: BTreeSet::new(),
            requests: BTreeMap::new(),
            aliases: BTreeMap::new(),
            server_receive_max: u16::MAX,
            next_packet_id: 0,
        }
    }

    /// Whether nothing of its own is unfinished.
    pub fn is_done(&self) -> bool {
        self.outgoing.is_empty() && self.requests.is_empty() && self.held.is_empty()
    }

    /// Messages of its own that are not answered finally.
    pub fn in_flight(&self) -> usize {
        self.outgoing.len()
    }

    /// What is unfinished, for a message.
    pub fn unfinished(&self) -> String {
        format!(
            "{}: {:?}, {} messages, {} requests, {} answers held",
            self.character.name,
            self.phase,
            self.outgoing.len(),
            self.requests.len(),
            self.held.len()
        )
    }

    fn send(&mut self, packet: &Packet<'_>) {
        packet.encode(self.character.version, &mut self.out);
    }

    /// An answer to a delivery, now or, if it is lazy, later; their order stays.
    fn answer(&mut self, packet: &Packet<'_>) {
        if self.lazy || !self.held.is_empty() {
            packet.encode(self.character.version, &mut self.held);
        } else {
            self.send(packet);
        }
    }

    /// Sends the answers it held back.
    pub fn release_answers(&mut self) {
        self.out.append(&mut self.held);
    }

    /// A packet identifier that is free.
    fn packet_id(&mut self) -> PacketId {
        loop {
            self.next_packet_id = self.next_packet_id.wrapping_add(1);
            if let Some(id) = PacketId::new(self.next_packet_id)
                && !self.requests.contains_key(&id.value())
                && !self.outgoing.iter().any(|o| o.packet_id == id)
            {
                return id;
            }
        }
    }

    // ---- What it does ------------------------------------------------------------------------------------------

    /// Opens a connection. With `clean` it wants a new session.
    pub fn connect(&mut self, ledger: &mut Ledger, clean: bool, now_ms: u64) {
        self.lost_connection(ledger);
        self.out.clear();
        self.phase = Phase::Connecting;
        self.clean = clean || self.wants_clean || !self.character.persistent;
        self.wants_clean = self.clean;
        let v311 = self.character.version == Version::V311;
        self.ephemeral = !self.character.persistent || (self.clean && v311);
        if self.clean || self.session.is_none() {
            self.new_session(ledger);
        }
        let c = self.character.clone();
        let mut properties = vec![];
        let mut will_properties = vec![];
        if c.version == Version::V5 {
            let mut put = |p: Property<'_>| p.encode(&mut properties);
            if c.persistent {
                put(Property::SessionExpiryInterval(u32::MAX));
            }
            put(Property::ReceiveMaximum(c.receive_max));
            if c.alias_max > 0 {
                put(Property::TopicAliasMaximum(c.alias_max));
            }
        }
        let will_topic = format!("w/{}", self.number);
        let mut will_payload = vec![];
        if let Some(delay_secs) = c.will_delay_secs {
            let size = 20;
            let will = Publication { topic: will_topic.clone(), qos: 2, size, ..Publication::default() };
            let id = ledger.publish(1000 + self.number, will, now_ms);
            ledger.decide(id, crate::checkers::Fate::Open);
            will_payload = ledger.message(id).payload().to_vec();
            self.will = Some(WillOf { id, delay_ms: u64::from(delay_secs) * 1000 });
            if c.version == Version::V5 && delay_secs > 0 {
                Property::WillDelayInterval(delay_secs).encode(&mut will_properties);
            }
        }
        let will = c.will_delay_secs.map(|_| Will {
            qos: QoS::ExactlyOnce,
            retain: false,
            properties: Properties::from_validated(&will_properties),
            topic: &will_topic,
            payload: &will_payload,
        });
        self.send(&Packet::Connect(Connect {
            version: c.version,
            clean_start: self.clean,
            keep_alive_secs: c.keep_alive_secs,
            properties: Properties::from_validated(&properties),
            client_id: &c.name,
            will,
            username: c.username.as_deref(),
            password: c.username.as_ref().map(|_| b"secret".as_slice()),
        }));
    }

    fn new_session(&mut self, ledger: &mut Ledger) {
        if let Some(old) = self.session.take() {
            ledger.end(old);
        }
        for o in self.outgoing.drain(..) {
            ledger.abandoned(o.id);
        }
        self.inbound.clear();
        self.session = Some(ledger.begin(&self.character.name, !self.ephemeral));
        self.confirmed = false;
    }

    /// Its connection is over, whoever ended it.
    pub fn lost_connection(&mut self, ledger: &mut Ledger) {
        if self.phase == Phase::Away {
            return;
        }
        self.phase = Phase::Away;
        self.held.clear();
        self.out.clear();
        self.unanswered.clear();
        self.aliases.clear();
        self.lazy = false;
        self.will = None;
        // Whether these were done nobody knows; they are not asked again.
        self.requests.clear();
        if self.ephemeral {
            self.new_session(ledger);
        }
    }

    /// Room for one more QoS 1 or 2 message.
    pub fn may_publish(&self) -> bool {
        self.phase == Phase::Open && self.outgoing.len() < WINDOW.min(self.server_receive_max.into())
    }

    /// Publishes.
    pub fn publish(&mut self, ledger: &mut Ledger, p: Publication, now_ms: u64) {
        let typed = p.typed && self.character.version == Version::V5;
        let expires = p.expires_in_ms.filter(|_| self.character.version == Version::V5);
        let qos = p.qos;
        let id = ledger.publish(self.number, Publication { typed, expires_in_ms: expires, ..p }, now_ms);
        let packet_id = (qos > 0).then(|| self.packet_id());
        self.send_publish(ledger, id, packet_id, false, now_ms);
        match packet_id {
            Some(packet_id) => self.outgoing.push_back(Outgoing { id, packet_id, step: Step::Sent }),
            None => ledger.abandoned(id),
        }
    }

    fn send_publish(&mut self, ledger: &Ledger, id: MessageId, packet_id: Option<PacketId>, dup: bool, now_ms: u64) {
        let m = ledger.message(id);
        let mut properties = vec![];
        if let Some(content_type) = &m.content_type {
            Property::ContentType(content_type).encode(&mut properties);
        }
        if let Some(at) = m.expires_ms {
            let left = at.saturating_sub(now_ms).div_ceil(1000).max(1);
            Property::MessageExpiryInterval(u32::try_from(left).expect("short")).encode(&mut properties);
        }
        let packet = Publish {
            dup,
            qos: QoS::from_bits(m.qos).expect("0, 1 or 2"),
            retain: m.retain,
            topic: &m.topic,
            packet_id,
            properties: Properties::from_validated(&properties),
            payload: m.payload(),
        };
        Packet::Publish(packet).encode(self.character.version, &mut self.out);
    }

    /// Subscribes to a filter that has no request under way.
    pub fn subscribe(&mut self, ledger: &mut Ledger, filter: &str, qos: u8) {
        let Some(session) = self.session else { return };
        if self.requests.values().any(|(f, _)| f == filter) {
            return;
        }
        ledger.subscribing(session, filter, qos);
        let packet_id = self.packet_id();
        self.requests.insert(packet_id.value(), (filter.to_owned(), Some(qos)));
        let options = SubscriptionOptions {
            qos: QoS::from_bits(qos).expect("0, 1 or 2"),
            no_local: false,
            retain_as_published: false,
            retain_handling: RetainHandling::SendAtSubscribe,
        };
        let list = [(filter, options)];
        let filters = SubscribeFilters::from_slice(&list);
        self.send(&Packet::Subscribe(Subscribe { packet_id, properties: Properties::EMPTY, filters }));
    }

    /// Unsubscribes from a filter that has no request under way.
    pub fn unsubscribe(&mut self, ledger: &mut Ledger, filter: &str) {
        let Some(session) = self.session else { return };
        if self.requests.values().any(|(f, _)| f == filter) {
            return;
        }
        ledger.unsubscribing(session, filter);
        let packet_id = self.packet_id();
        self.requests.insert(packet_id.value(), (filter.to_owned(), None));
        let list = [filter];
        let filters = UnsubscribeFilters::from_slice(&list);
        self.send(&Packet::Unsubscribe(Unsubscribe { packet_id, properties: Properties::EMPTY, filters }));
    }

    /// Says that it is still there.
    pub fn ping(&mut self) {
        self.send(&Packet::PingReq);
    }

    /// Says goodbye. The will goes with it, unless `with_will` (MQTT 5).
    pub fn disconnect(&mut self, with_will: bool) {
        let reason = if with_will { ReasonCode::DISCONNECT_WITH_WILL } else { ReasonCode::SUCCESS };
        self.release_answers();
        self.send(&Packet::Disconnect(Disconnect { reason, properties: Properties::EMPTY }));
    }

    // ---- What it hears -----------------------------------------------------------------------------------------

    /// Takes a packet in. False: the connection is over for it.
    pub fn hear(&mut self, ledger: &mut Ledger, packet: &Packet<'_>, now_ms: u64) -> bool {
        let name = self.character.name.clone();
        match (self.phase, packet) {
            (Phase::Connecting, Packet::ConnAck(c)) if c.reason == ReasonCode::SUCCESS => {
                self.opened(ledger, c.session_present, c.properties.receive_maximum(), now_ms);
            }
            (Phase::Connecting, Packet::ConnAck(_)) => return false,
            (Phase::Open, Packet::Publish(p)) => self.on_publish(ledger, p, now_ms),
            (Phase::Open, Packet::PubAck(a)) => self.on_ack(ledger, a, 1),
            (Phase::Open, Packet::PubRec(a)) => self.on_ack(ledger, a, 2),
            (Phase::Open, Packet::PubComp(a)) => self.on_pubcomp(ledger, a),
            (Phase::Open, Packet::PubRel(a)) => {
                self.inbound.remove(&a.packet_id.value());
                self.unanswered.remove(&a.packet_id.value());
                self.answer(&Packet::PubComp(ok(a.packet_id)));
            }
            (Phase::Open, Packet::SubAck(s)) => self.on_answer(ledger, s.packet_id, s.reasons, true, now_ms),
            (Phase::Open, Packet::UnsubAck(s)) => self.on_answer(ledger, s.packet_id, &[], false, now_ms),
            (Phase::Open, Packet::PingResp) => {}
            (Phase::Open, Packet::Disconnect(d)) => {
                let expected =
                    [ReasonCode::SESSION_TAKEN_OVER, ReasonCode::SERVER_SHUTTING_DOWN, ReasonCode::KEEP_ALIVE_TIMEOUT];
                if !expected.contains(&d.reason) {
                    let why = d.properties.reason_string().unwrap_or("no reason given");
                    ledger.blame(Class::Protocol, format!("{name} was thrown out: {:?}, {why}", d.reason));
                }
                return false;
            }
            (phase, packet) => {
                ledger.blame(Class::Protocol, format!("{name} ({phase:?}) got an unexpected {packet:?}"));
                return false;
            }
        }
        true
    }

    fn opened(&mut self, ledger: &mut Ledger, present: bool, receive_max: Option<u16>, now_ms: u64) {
        self.phase = Phase::Open;
        self.wants_clean = false;
        self.server_receive_max = receive_max.unwrap_or(u16::MAX);
        if self.clean && present {
            ledger.blame(Class::Session, format!("{} asked for a new session and got an old one", self.character.name));
        }
        if !self.clean && !present {
            if self.confirmed {
                let text = format!("{} was told at {now_ms} ms that its session is gone", self.character.name);
                ledger.blame(Class::Session, text);
            }
            self.new_session(ledger);
        }
        self.confirmed = true;
        ledger.settled(&self.character.name);
        // What was begun is gone on with under the same identifiers, in the same order [MQTT5-4.4.0-1] [MQTT3-4.4.0-1].
        for o in self.outgoing.clone() {
            match o.step {
                Step::Sent => {
                    ledger.again(o.id);
                    self.send_publish(ledger, o.id, Some(o.packet_id), true, now_ms);
                }
                Step::Released => self.send(&Packet::PubRel(ok(o.packet_id))),
            }
        }
    }

    fn on_publish(&mut self, ledger: &mut Ledger, p: &Publish<'_>, now_ms: u64) {
        let Some(session) = self.session else { return };
        let v5 = self.character.version == Version::V5;
        let mut topic = p.topic.to_owned();
        if let Some(alias) = p.properties.topic_alias() {
            if alias > self.character.alias_max {
                let text = format!(
                    "{} got topic alias {alias}, its maximum is {}",
                    self.character.name, self.character.alias_max
                );
                ledger.blame(Class::Protocol, text); // [MQTT5-3.1.2-26]
            }
            if topic.is_empty() {
                topic = self.aliases.get(&alias).cloned().unwrap_or_default();
            } else {
                self.aliases.insert(alias, topic.clone());
            }
        }
        let mut fresh = true;
        if let Some(id) = p.packet_id {
            let known = !self.unanswered.insert(id.value());
            if known && !p.dup {
                let text = format!(
                    "{} got packet identifier {} again before it had answered",
                    self.character.name,
                    id.value()
                );
                ledger.blame(Class::Protocol, text);
            }
            if v5 && self.unanswered.len() > self.character.receive_max.into() {
                // [MQTT5-3.3.4-9]
                let text = format!(
                    "{} got more than its Receive Maximum of {}",
                    self.character.name, self.character.receive_max
                );
                ledger.blame(Class::Bound, text);
            }
            if p.qos == QoS::ExactlyOnce {
                fresh = self.inbound.insert(id.value());
            }
        }
        if fresh {
            let content_type = v5.then(|| p.properties.content_type());
            let qos = p.qos as u8;
            let d = Delivery { topic: &topic, payload: p.payload, qos, dup: p.dup, retain: p.retain, content_type };
            ledger.delivered(session, &d, now_ms);
        }
        match (p.qos, p.packet_id) {
            (QoS::AtLeastOnce, Some(id)) => {
                self.unanswered.remove(&id.value());
                self.answer(&Packet::PubAck(ok(id)));
            }
            (QoS::ExactlyOnce, Some(id)) => self.answer(&Packet::PubRec(ok(id))),
            _ => {}
        }
    }

    fn on_ack(&mut self, ledger: &mut Ledger, a: &Ack<'_>, qos: u8) {
        let Some(at) = self.outgoing.iter().position(|o| o.packet_id == a.packet_id) else {
            let text = format!(
                "{} got an answer to packet {}, which it has not sent",
                self.character.name,
                a.packet_id.value()
            );
            return ledger.blame(Class::Protocol, text);
        };
        let o = self.outgoing[at].clone();
        if ledger.message(o.id).qos != qos {
            let text = format!("{}: message {:?} was answered as QoS {qos}", self.character.name, o.id);
            return ledger.blame(Class::Protocol, text);
        }
        if a.reason.is_error() {
            ledger.refused(o.id);
            self.outgoing.remove(at);
            return;
        }
        ledger.accepted(o.id, a.reason.0);
        if qos == 1 {
            self.outgoing.remove(at);
        } else {
            // PUBREL goes in the order of PUBREC [MQTT5-4.6.0-4].
            self.outgoing[at].step = Step::Released;
            self.send(&Packet::PubRel(ok(a.packet_id)));
        }
    }

    fn on_pubcomp(&mut self, ledger: &mut Ledger, a: &Ack<'_>) {
        let found = self.outgoing.iter().position(|o| o.packet_id == a.packet_id);
        match found {
            Some(at) if self.outgoing[at].step == Step::Released => {
                self.outgoing.remove(at);
            }
            _ => {
                let text = format!("{} got PUBCOMP {} out of turn", self.character.name, a.packet_id.value());
                ledger.blame(Class::Protocol, text);
            }
        }
    }

    fn on_answer(&mut self, ledger: &mut Ledger, packet_id: PacketId, codes: &[u8], subscribe: bool, now_ms: u64) {
        let Some(session) = self.session else { return };
        match self.requests.remove(&packet_id.value()) {
            Some((filter, Some(qos))) if subscribe && codes == [qos] => ledger.subscribed(session, &filter, now_ms),
            Some((filter, None)) if !subscribe => ledger.unsubscribed(session, &filter, now_ms),
            other => {
                let text =
                    format!("{}: {codes:?} answers packet {}: {other:?}", self.character.name, packet_id.value());
                ledger.blame(Class::Protocol, text);
            }
        }
    }
}

fn ok<'a>(packet_id: PacketId) -> Ack<'a> {
    Ack { packet_id, reason: ReasonCode::SUCCESS, properties: Properties::EMPTY }
}

/// A handful of clients that differ in what matters.
pub fn cast(rng: &mut Rng, count: usize) -> Vec<Client> {
    let observer = Character {
        name: crate::checkers::OBSERVER.into(),
        version: Version::V5,
        persistent: true,
        receive_max: 50,
        alias_max: 0,
        keep_alive_secs: 0,
        will_delay_secs: None,
        username: None,
    };
    let mut clients = vec![Client::new(0, observer)];
    for number in 1..=count {
        let version = if rng.chance(50) { Version::V5 } else { Version::V311 };
        let v5 = version == Version::V5;
        let delay_secs = if v5 && rng.chance(50) { u32::try_from(rng.between(1, 8)).expect("small") } else { 0 };
        let character = Character {
            name: format!("client-{number}"),
            version,
            // The first two always are, so that there is something to lose.
            persistent: number <= 2 || rng.chance(60),
            receive_max: u16::try_from(rng.between(1, 12)).expect("small"),
            alias_max: if rng.chance(50) { 3 } else { 0 },
            keep_alive_secs: u16::try_from(rng.between(4, 10)).expect("small"),
            will_delay_secs: rng.chance(60).then_some(delay_secs),
            username: rng.chance(40).then(|| format!("account-{}", number % 2)),
        };
        clients.push(Client::new(number, character));
    }
    clients
}
