//! One terminal as a state machine: packets in, bytes out, and its own memory of what is unfinished.
//!
//! Its memory survives its connections, as that of an app with a disk of its own would: what it has begun to say it
//! says again until it is answered.

use parlor_protocol::mqtt::{
    Ack, Connect, Disconnect, Packet, PacketId, Properties, Property, Publish, QoS, ReasonCode, RetainHandling,
    Subscribe, SubscribeFilters, SubscriptionOptions, Version,
};
use std::collections::{BTreeSet, VecDeque};

/// How a terminal gets what there is for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// It is sent its mailbox at this QoS.
    Push(u8),
    /// It is told that there is something, and pulls.
    Pull,
    /// It takes messages and commands.
    Device,
    /// It has no contacts and tries everything.
    Stranger,
    /// It asks, at rest.
    Auditor,
}

/// What a terminal is like for all of its life.
#[derive(Debug, Clone)]
pub(crate) struct Who {
    /// Client identifier.
    pub(crate) name: String,
    pub(crate) account: String,
    pub(crate) version: Version,
    /// Its MQTT session outlives its connections.
    pub(crate) resumes: bool,
    /// Receive Maximum it announces (MQTT 5).
    pub(crate) receive_max: u16,
    pub(crate) keep_alive_secs: u16,
    pub(crate) mode: Mode,
    /// It subscribes to everything below `im/v1/` at once.
    pub(crate) wholesale: bool,
    /// Its messages have client ids.
    pub(crate) has_ids: bool,
}

/// What a publication is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Job {
    /// The message of this number.
    Send(usize),
    /// The same message again, though it was answered.
    Repeat(usize),
    /// A used client id with another content.
    Reuse,
    Read {
        conv: String,
        seq: u64,
    },
    Recall {
        conv: String,
        seq: u64,
    },
    Edit {
        conv: String,
        seq: u64,
        text: String,
    },
    /// Everything up to here was got.
    Ack {
        pos: u64,
    },
    /// A pull; what is asked is in the topic.
    Ask(&'static str),
    /// The command of this number.
    Command(usize),
    /// It is to be canceled.
    Cancel,
    /// What a device says of a command.
    Report,
    /// A change of a group.
    Group,
    /// This account is to be heard no more, or again.
    Hear(String),
    /// Something that must not work.
    Intrude,
}

impl Job {
    /// Whether it is said again on the next connection.
    fn is_kept(&self) -> bool {
        !matches!(self, Self::Ask(_) | Self::Ack { .. } | Self::Intrude)
    }
}

/// A publication that is not finished.
#[derive(Debug, Clone)]
pub(crate) struct Errand {
    pub(crate) job: Job,
    pub(crate) topic: String,
    pub(crate) payload: Vec<u8>,
    /// Client id as user property.
    pub(crate) property: Option<String>,
    pub(crate) expiry_secs: Option<u32>,
    pub(crate) qos: u8,
    packet_id: Option<PacketId>,
    is_released: bool,
    /// How often it was sent.
    tries: u32,
}

impl Errand {
    pub(crate) fn new(job: Job, topic: String, payload: impl Into<Vec<u8>>) -> Self {
        Self {
            job,
            topic,
            payload: payload.into(),
            property: None,
            expiry_secs: None,
            qos: 1,
            packet_id: None,
            is_released: false,
            tries: 0,
        }
    }
}

/// Where its connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Away,
    Connecting,
    Open,
}

/// What a packet means for the world.
#[derive(Debug)]
pub(crate) enum Said {
    Nothing,
    /// The connection is over.
    Over,
    /// A rule was broken.
    Wrong(String),
    /// The subscriptions hold.
    Subscribed,
    /// A publication was answered: reason code, seq, whether it was a repetition.
    Answered {
        job: Job,
        reason: u8,
        seq: Option<u64>,
        dup: bool,
        tries: u32,
    },
    Got {
        topic: String,
        payload: Vec<u8>,
        packet_id: Option<PacketId>,
    },
}

/// A delivery that is not acknowledged: what its acknowledgement will mean.
#[derive(Debug, Clone)]
pub(crate) struct Held {
    packet_id: PacketId,
    pub(crate) message: Option<(String, u64)>,
    pub(crate) command: Option<u64>,
    pub(crate) pos: u64,
}

/// The terminal.
#[derive(Debug)]
pub(crate) struct Terminal {
    pub(crate) who: Who,
    pub(crate) phase: Phase,
    pub(crate) out: Vec<u8>,
    /// It answers later.
    pub(crate) lazy: bool,
    pub(crate) held: VecDeque<Held>,
    /// Its subscriptions were confirmed in this session.
    pub(crate) is_subscribed: bool,
    /// Questions that wait for their answer, by the first levels of its topic.
    pub(crate) asked: Vec<&'static str>,
    outgoing: VecDeque<Errand>,
    subscribing: Option<PacketId>,
    unanswered: BTreeSet<u16>,
    server_receive_max: usize,
    next_packet_id: u16,
}

/// Publications that wait for their answer at the same time.
const OPEN_AT_ONCE: usize = 8;

impl Terminal {
    pub(crate) fn new(who: Who) -> Self {
        Self {
            who,
            phase: Phase::Away,
            out: vec![],
            lazy: false,
            held: VecDeque::new(),
            is_subscribed: false,
            asked: vec![],
            outgoing: VecDeque::new(),
            subscribing: None,
            unanswered: BTreeSet::new(),
            server_receive_max: OPEN_AT_ONCE,
            next_packet_id: 0,
        }
    }

    fn is_v5(&self) -> bool {
        self.who.version == Version::V5
    }

    /// Whether nothing of its own is unfinished.
    pub(crate) fn is_done(&self) -> bool {
        self.outgoing.is_empty() && self.held.is_empty() && self.is_subscribed && self.asked.is_empty()
    }

    pub(crate) fn open_errands(&self) -> usize {
        self.outgoing.len()
    }

    /// What is unfinished, for a message.
    pub(crate) fn unfinished(&self) -> String {
        let jobs: Vec<&Job> = self.outgoing.iter().map(|e| &e.job).collect();
        format!("{}: {:?}, {jobs:?}, {} held, asked {:?}", self.who.name, self.phase, self.held.len(), self.asked)
    }

    /// What it subscribes to, and at which QoS.
    fn filters(&self) -> Vec<(&'static str, u8)> {
        let rest = [("im/v1/me/err", 1), ("im/v1/me/+/res", 1)];
        let mut list = match self.who.mode {
            Mode::Push(qos) if self.who.wholesale => return vec![("im/v1/#", qos)],
            Mode::Push(qos) => vec![
                ("im/v1/me/in/#", qos),
                ("im/v1/me/sent", qos),
                ("im/v1/me/res/+", qos),
                ("im/v1/me/head", 1),
                ("im/v1/me/conv/+", 0),
                ("im/v1/presence/#", 1),
            ],
            Mode::Pull => vec![("im/v1/me/head", 1), ("im/v1/presence/+", 1)],
            Mode::Device => vec![("im/v1/me/in/#", 1), ("im/v1/me/cmd/#", 1), ("im/v1/me/sent", 1)],
            Mode::Stranger => {
                return vec![
                    ("#", 1),
                    ("+/v1/#", 1),
                    ("im/#", 1),
                    ("im/v1/#", 1),
                    ("im/v1/me/in/alice/msg", 1),
                    ("im/v1/alice/#", 1),
                    ("im/+/+/in/#", 1),
                    ("im/v1/presence/#", 1),
                    ("im/v1/state/lamp", 1),
                    ("$share/x/im/v1/me/in/#", 1),
                ];
            }
            Mode::Auditor => vec![],
        };
        list.extend(rest);
        list
    }

    fn send(&mut self, packet: &Packet<'_>) {
        packet.encode(self.who.version, &mut self.out);
    }

    fn packet_id(&mut self) -> PacketId {
        loop {
            self.next_packet_id = self.next_packet_id.wrapping_add(1);
            if let Some(id) = PacketId::new(self.next_packet_id)
                && self.subscribing != Some(id)
                && !self.outgoing.iter().any(|e| e.packet_id == Some(id))
            {
                return id;
            }
        }
    }

    // ---- What it does ------------------------------------------------------------------------------------------

    pub(crate) fn connect(&mut self) {
        self.lost_connection();
        self.phase = Phase::Connecting;
        let mut properties = vec![];
        if self.is_v5() {
            if self.who.resumes {
                Property::SessionExpiryInterval(u32::MAX).encode(&mut properties);
            }
            Property::ReceiveMaximum(self.who.receive_max).encode(&mut properties);
        }
        let (name, account) = (self.who.name.clone(), self.who.account.clone());
        self.send(&Packet::Connect(Connect {
            version: self.who.version,
            clean_start: !self.who.resumes,
            keep_alive_secs: self.who.keep_alive_secs,
            properties: Properties::from_validated(&properties),
            client_id: &name,
            will: None,
            username: Some(&account),
            password: Some(b"secret"),
        }));
    }

    /// Its connection is over, whoever ended it.
    pub(crate) fn lost_connection(&mut self) {
        self.phase = Phase::Away;
        self.out.clear();
        self.held.clear();
        self.unanswered.clear();
        self.asked.clear();
        self.subscribing = None;
        self.lazy = false;
        self.outgoing.retain(|e| e.job.is_kept());
    }

    /// Says something, now or when it is connected and there is room.
    pub(crate) fn publish(&mut self, errand: Errand) {
        self.outgoing.push_back(errand);
        self.send_errands();
    }

    fn send_errands(&mut self) {
        if self.phase != Phase::Open {
            return;
        }
        let mut open = self.outgoing.iter().filter(|e| e.packet_id.is_some()).count();
        for at in 0..self.outgoing.len() {
            if open >= self.server_receive_max.min(OPEN_AT_ONCE) {
                break;
            }
            if self.outgoing[at].packet_id.is_some() {
                continue;
            }
            if self.outgoing[at].qos > 0 {
                self.outgoing[at].packet_id = Some(self.packet_id());
                open += 1;
            }
            self.outgoing[at].tries += 1;
            let errand = self.outgoing[at].clone();
            self.send_errand(&errand, false);
        }
        self.outgoing.retain(|e| e.qos > 0 || e.packet_id.is_some());
    }

    fn send_errand(&mut self, errand: &Errand, dup: bool) {
        let mut properties = vec![];
        if self.is_v5() {
            if let Some(secs) = errand.expiry_secs {
                Property::MessageExpiryInterval(secs).encode(&mut properties);
            }
            if let Some(id) = &errand.property {
                Property::UserProperty("im-id", id).encode(&mut properties);
            }
        }
        let packet = Publish {
            dup,
            qos: QoS::from_bits(errand.qos).expect("0, 1 or 2"),
            retain: false,
            topic: &errand.topic,
            packet_id: errand.packet_id,
            properties: Properties::from_validated(&properties),
            payload: &errand.payload,
        };
        self.send(&Packet::Publish(packet));
    }

    fn subscribe(&mut self) {
        let packet_id = self.packet_id();
        self.subscribing = Some(packet_id);
        let list = self.filters().into_iter().map(|(filter, qos)| {
            let options = SubscriptionOptions {
                qos: QoS::from_bits(qos).expect("0, 1 or 2"),
                no_local: false,
                retain_as_published: false,
                retain_handling: RetainHandling::SendAtSubscribe,
            };
            (filter, options)
        });
        let list: Vec<_> = list.collect();
        let filters = SubscribeFilters::from_slice(&list);
        self.send(&Packet::Subscribe(Subscribe { packet_id, properties: Properties::EMPTY, filters }));
    }

    pub(crate) fn ping(&mut self) {
        self.send(&Packet::PingReq);
    }

    pub(crate) fn disconnect(&mut self) {
        let reason = ReasonCode::SUCCESS;
        self.send(&Packet::Disconnect(Disconnect { reason, properties: Properties::EMPTY }));
    }

    /// Acknowledges the oldest delivery it holds; what that means.
    pub(crate) fn release_one(&mut self) -> Option<Held> {
        let held = self.held.pop_front()?;
        self.unanswered.remove(&held.packet_id.value());
        self.send(&Packet::PubAck(ok(held.packet_id)));
        Some(held)
    }

    /// Keeps a delivery until it is acknowledged.
    pub(crate) fn hold(&mut self, packet_id: PacketId, message: Option<(String, u64)>, command: Option<u64>, pos: u64) {
        self.held.push_back(Held { packet_id, message, command, pos });
    }

    // ---- What it hears -----------------------------------------------------------------------------------------

    pub(crate) fn hear(&mut self, packet: &Packet<'_>) -> Said {
        match (self.phase, packet) {
            (Phase::Connecting, Packet::ConnAck(c)) if c.reason == ReasonCode::SUCCESS => {
                self.server_receive_max = c.properties.receive_maximum().map_or(OPEN_AT_ONCE, usize::from);
                self.opened(c.session_present)
            }
            (Phase::Connecting, Packet::ConnAck(_)) => Said::Over,
            (Phase::Open, Packet::Publish(p)) => self.on_publish(p),
            (Phase::Open, Packet::PubAck(a)) => self.on_ack(a, 1),
            (Phase::Open, Packet::PubRec(a)) => self.on_ack(a, 2),
            (Phase::Open, Packet::PubComp(a)) => {
                self.outgoing.retain(|e| e.packet_id != Some(a.packet_id) || !e.is_released);
                self.send_errands();
                Said::Nothing
            }
            (Phase::Open, Packet::SubAck(s)) if self.subscribing == Some(s.packet_id) => {
                self.subscribing = None;
                let refused = s.reasons.iter().any(|code| *code >= 0x80);
                if refused && self.who.mode != Mode::Stranger {
                    return Said::Wrong(format!("{}'s subscriptions were answered {:?}", self.who.name, s.reasons));
                }
                self.is_subscribed = true;
                Said::Subscribed
            }
            (Phase::Open, Packet::PingResp) => Said::Nothing,
            (Phase::Open, Packet::Disconnect(d)) => {
                let expected =
                    [ReasonCode::SESSION_TAKEN_OVER, ReasonCode::SERVER_SHUTTING_DOWN, ReasonCode::KEEP_ALIVE_TIMEOUT];
                if expected.contains(&d.reason) {
                    return Said::Over;
                }
                let why = d.properties.reason_string().unwrap_or("no reason given");
                Said::Wrong(format!("{} was thrown out: {:?}, {why}", self.who.name, d.reason))
            }
            (phase, packet) => Said::Wrong(format!("{} ({phase:?}) got an unexpected {packet:?}", self.who.name)),
        }
    }

    fn opened(&mut self, present: bool) -> Said {
        self.phase = Phase::Open;
        if !present {
            self.is_subscribed = false;
            // A new session knows none of the old identifiers; what PUBREC has accepted is done.
            self.outgoing.retain(|e| !e.is_released);
            self.outgoing.iter_mut().for_each(|e| e.packet_id = None);
        }
        for at in 0..self.outgoing.len() {
            let errand = self.outgoing[at].clone();
            match errand.packet_id {
                Some(packet_id) if errand.is_released => self.send(&Packet::PubRel(ok(packet_id))),
                Some(_) => {
                    self.outgoing[at].tries += 1;
                    self.send_errand(&errand, true);
                }
                None => {}
            }
        }
        if !self.is_subscribed {
            self.subscribe();
        }
        self.send_errands();
        if !self.who.resumes && present {
            return Said::Wrong(format!("{} asked for a new session and got an old one", self.who.name));
        }
        Said::Nothing
    }

    fn on_publish(&mut self, p: &Publish<'_>) -> Said {
        let name = &self.who.name;
        if let Some(id) = p.packet_id {
            if !self.unanswered.insert(id.value()) {
                return Said::Wrong(format!("{name} got identifier {} again before it had answered", id.value()));
            }
            if self.is_v5() && self.unanswered.len() > self.who.receive_max.into() {
                return Said::Wrong(format!("{name} got more than its Receive Maximum of {}", self.who.receive_max));
            }
        }
        Said::Got { topic: p.topic.to_owned(), payload: p.payload.to_vec(), packet_id: p.packet_id }
    }

    fn on_ack(&mut self, a: &Ack<'_>, qos: u8) -> Said {
        let Some(at) = self.outgoing.iter().position(|e| e.packet_id == Some(a.packet_id)) else {
            return Said::Wrong(format!("{} got an answer to {}, never sent", self.who.name, a.packet_id.value()));
        };
        let errand = self.outgoing[at].clone();
        if errand.qos != qos || errand.is_released {
            return Said::Wrong(format!("{}: {:?} was answered as QoS {qos}", self.who.name, errand.job));
        }
        if qos == 1 || a.reason.is_error() {
            self.outgoing.remove(at);
        } else {
            self.outgoing[at].is_released = true;
            self.send(&Packet::PubRel(ok(a.packet_id)));
        }
        self.send_errands();
        let property = |name: &str| {
            a.properties.iter().find_map(|property| match property {
                Property::UserProperty(key, value) if key == name => Some(value.to_owned()),
                _ => None,
            })
        };
        Said::Answered {
            job: errand.job,
            reason: a.reason.0,
            seq: property("im-seq").and_then(|seq| seq.parse().ok()),
            dup: property("im-dup").is_some(),
            tries: errand.tries,
        }
    }
}

fn ok<'a>(packet_id: PacketId) -> Ack<'a> {
    Ack { packet_id, reason: ReasonCode::SUCCESS, properties: Properties::EMPTY }
}
