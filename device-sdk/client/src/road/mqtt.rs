//! MQTT 5 in bytes, by Parlor's own codec: for the road over QUIC.

use super::driver::{Codec, Out};
use super::{Delivery, Down, End, Login, PACKET_BYTES_MAX, RECEIVE_MAX, Up, ended, refused};
use crate::error::ConnectError;
use crate::model::event::Answer;
use crate::model::up::{Effort, Publish as Wanted};
use crate::options::{Filter, Quality};
use parlor_protocol::mqtt::{
    Ack, Connect, Disconnect, Packet, PacketId, Properties, Property, Publish, QoS, ReasonCode, Sender, SubAck,
    Subscribe, SubscribeFilters, SubscriptionOptions, Unsubscribe, UnsubscribeFilters, Version, decode,
};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// What is known of one connection.
pub(super) struct MqttCodec {
    login: Arc<Login>,
    filters: Vec<Filter>,
    next_id: u16,
    /// Tokens by packet identifier.
    unanswered: BTreeMap<u16, u64>,
    /// Subscriptions that wait for their SUBACK; the first one is that of the beginning.
    subscribing: BTreeMap<u16, Vec<Filter>>,
    first: Option<u16>,
    /// Longest packet the broker takes, bytes.
    packet_max: usize,
    keep_alive_s: Option<u16>,
}

impl MqttCodec {
    pub fn new(login: Arc<Login>, filters: Vec<Filter>) -> Self {
        let (unanswered, subscribing) = (BTreeMap::new(), BTreeMap::new());
        let (packet_max, keep_alive_s) = (usize::MAX, None);
        Self { login, filters, next_id: 0, unanswered, subscribing, first: None, packet_max, keep_alive_s }
    }

    /// A packet identifier that is not in use.
    fn id(&mut self) -> Option<PacketId> {
        for _ in 0..u16::MAX {
            self.next_id = self.next_id.checked_add(1).unwrap_or(1);
            if !self.unanswered.contains_key(&self.next_id) && !self.subscribing.contains_key(&self.next_id) {
                return PacketId::new(self.next_id);
            }
        }
        None
    }

    fn subscribe(&mut self, filters: Vec<Filter>, out: &mut Out) {
        let Some(packet_id) = self.id() else { return };
        let options = |filter: &Filter| {
            SubscriptionOptions::at_most(match filter.quality {
                Quality::AtMostOnce => QoS::AtMostOnce,
                Quality::AtLeastOnce => QoS::AtLeastOnce,
            })
        };
        let list: Vec<(&str, SubscriptionOptions)> =
            filters.iter().map(|filter| (filter.filter.as_str(), options(filter))).collect();
        let filters_wanted = SubscribeFilters::from_slice(&list);
        put(&Packet::Subscribe(Subscribe { packet_id, properties: Properties::EMPTY, filters: filters_wanted }), out);
        self.first.get_or_insert(packet_id.value());
        self.subscribing.insert(packet_id.value(), filters);
    }

    fn publish(&mut self, wanted: &Wanted, out: &mut Out) {
        let (qos, packet_id) = match wanted.effort {
            Effort::Once => (QoS::AtMostOnce, None),
            Effort::UntilAnswered => {
                let Some(id) = self.id() else { return };
                (QoS::AtLeastOnce, Some(id))
            }
        };
        let (topic, payload, retain) = (wanted.topic.as_str(), wanted.payload.as_slice(), wanted.retain);
        let properties = Properties::EMPTY;
        let publish = Publish { dup: false, qos, retain, topic, packet_id, properties, payload };
        if publish.encoded_len(Version::V5) > self.packet_max {
            // A broker ends the connection for it [MQTT5-3.2.2-15].
            let (code, text) = ("too_large".to_owned(), format!("the broker takes {} bytes", self.packet_max));
            if packet_id.is_some() {
                out.downs.push(Down::Answered { token: wanted.token, answer: Answer::Refused { code, text } });
            }
            return;
        }
        if let Some(id) = packet_id {
            self.unanswered.insert(id.value(), wanted.token);
        }
        put(&Packet::Publish(publish), out);
    }

    fn packet(&mut self, packet: &Packet<'_>, downs: &mut VecDeque<Down>) -> Result<(), End> {
        match packet {
            Packet::ConnAck(ack) if ack.reason.is_error() => {
                return Err(refused(&self.login, ack.reason, ack.properties.reason_string()));
            }
            Packet::ConnAck(ack) => {
                let properties = ack.properties;
                self.packet_max = properties.maximum_packet_size().map_or(usize::MAX, |max| max as usize);
                self.keep_alive_s = properties.server_keep_alive_secs();
                if let Some(window) = properties.receive_maximum() {
                    downs.push_back(Down::Window(window));
                }
                if self.filters.is_empty() {
                    downs.push_back(Down::Connected);
                }
            }
            Packet::SubAck(ack) => self.subscribed(ack, downs)?,
            Packet::PubAck(ack) => {
                if let Some(token) = self.unanswered.remove(&ack.packet_id.value()) {
                    downs.push_back(Down::Answered { token, answer: answer(ack) });
                }
            }
            Packet::Publish(publish) => {
                if publish.qos == QoS::ExactlyOnce {
                    return Err(End::Lost("the broker sent with QoS 2 what was not asked for so".to_owned()));
                }
                downs.push_back(Down::Message(Delivery {
                    topic: publish.topic.to_owned(),
                    payload: publish.payload.to_vec(),
                    is_retained: publish.retain,
                    number: publish.packet_id.map(|id| u64::from(id.value())),
                }));
            }
            Packet::Disconnect(disconnect) => {
                return Err(ended(&self.login, disconnect.reason, disconnect.properties.reason_string()));
            }
            _ => {}
        }
        Ok(())
    }

    fn subscribed(&mut self, ack: &SubAck<'_>, downs: &mut VecDeque<Down>) -> Result<(), End> {
        let id = ack.packet_id.value();
        let filters = self.subscribing.remove(&id).unwrap_or_default();
        let own = self.login.options.listen.filters();
        for (code, filter) in ack.reasons.iter().zip(filters) {
            if *code < 0x80 {
                continue;
            }
            let why = format!("code {code:#04x}");
            if own.contains(&filter) {
                return Err(End::Fatal(ConnectError::Subscription { filter: filter.filter, why }));
            }
            downs.push_back(Down::NotSubscribed { filter: filter.filter, why });
        }
        if self.first == Some(id) && !self.filters.is_empty() {
            self.first = Some(0);
            downs.push_back(Down::Connected);
        }
        Ok(())
    }
}

impl Codec for MqttCodec {
    fn hello(&mut self, out: &mut Out) {
        self.unanswered.clear();
        self.subscribing.clear();
        (self.next_id, self.first, self.packet_max, self.keep_alive_s) = (0, None, usize::MAX, None);
        let login = Arc::clone(&self.login);
        let options = &login.options;
        let mut properties = Vec::new();
        let level = options.level.to_string();
        for property in [
            Property::ReceiveMaximum(RECEIVE_MAX),
            Property::MaximumPacketSize(PACKET_BYTES_MAX),
            Property::UserProperty("im-level", &level),
            Property::UserProperty("im-platform", &options.platform),
            Property::UserProperty("im-app", &options.app),
        ] {
            property.encode(&mut properties);
        }
        let connect = Connect {
            version: Version::V5,
            // Its session ends with the connection, so there is none to clear; and to clear one may not be asked for in a first flight.
            clean_start: false,
            keep_alive_secs: u16::try_from(options.keep_alive.as_secs()).unwrap_or(u16::MAX),
            properties: Properties::from_validated(&properties),
            client_id: &login.terminal,
            will: None,
            username: Some(&login.user),
            password: Some(login.password.as_bytes()),
        };
        put(&Packet::Connect(connect), out);
        if !self.filters.is_empty() {
            self.subscribe(self.filters.clone(), out);
        }
    }

    fn up(&mut self, up: Up, out: &mut Out) {
        match up {
            Up::Publish(wanted) => self.publish(&wanted, out),
            Up::Acknowledge(number) => {
                if let Some(packet_id) = u16::try_from(number).ok().and_then(PacketId::new) {
                    let (reason, properties) = (ReasonCode::SUCCESS, Properties::EMPTY);
                    put(&Packet::PubAck(Ack { packet_id, reason, properties }), out);
                }
            }
            Up::Subscribe(filter) => self.subscribe(vec![filter], out),
            Up::Unsubscribe(filter) => {
                let Some(packet_id) = self.id() else { return };
                let (filters, properties) = ([filter.as_str()], Properties::EMPTY);
                let filters = UnsubscribeFilters::from_slice(&filters);
                put(&Packet::Unsubscribe(Unsubscribe { packet_id, properties, filters }), out);
            }
            Up::Close => {
                let (reason, properties) = (ReasonCode::SUCCESS, Properties::EMPTY);
                put(&Packet::Disconnect(Disconnect { reason, properties }), out);
            }
            Up::Rebind => {}
        }
    }

    fn feed(&mut self, bytes: &mut Vec<u8>, _: &mut Out, downs: &mut VecDeque<Down>) -> Result<(), End> {
        let mut at = 0;
        let result = loop {
            let rest = bytes.get(at..).unwrap_or_default();
            let malformed = |error| End::Lost(format!("the broker sent what is no MQTT: {error}"));
            let (packet, len) = match decode(rest, Version::V5, PACKET_BYTES_MAX) {
                Ok(Some(read)) => read,
                Ok(None) => break Ok(()),
                Err(error) => break Err(malformed(error)),
            };
            if let Err(error) = packet.check_sender(Sender::Server) {
                break Err(malformed(error));
            }
            at += len;
            if let Err(end) = self.packet(&packet, downs) {
                break Err(end);
            }
        };
        bytes.drain(..at);
        result
    }

    fn datagram(&mut self, _: &[u8], _: &mut VecDeque<Down>) {}

    fn keep_alive(&self) -> Option<Duration> {
        self.keep_alive_s.filter(|secs| *secs != 0).map(|secs| Duration::from_secs(u64::from(secs)))
    }

    fn ping(&mut self, out: &mut Out) {
        put(&Packet::PingReq, out);
    }
}

fn put(packet: &Packet<'_>, out: &mut Out) {
    packet.encode(Version::V5, &mut out.bytes);
}

fn answer(ack: &Ack<'_>) -> Answer {
    if ack.reason.is_error() {
        return Answer::refused(ack.properties.reason_string(), ack.reason.name());
    }
    let mut answer = (None, false);
    for property in ack.properties.iter() {
        match property {
            Property::UserProperty("im-seq", seq) => answer.0 = seq.parse().ok(),
            Property::UserProperty("im-dup", dup) => answer.1 = dup != "0" && dup != "false",
            _ => {}
        }
    }
    Answer::Accepted { seq: answer.0, dup: answer.1 }
}
