//! Random legal packets from a seed.

use crate::Bytes;
use crate::properties::TABLE;
use parlor_protocol::mqtt::{
    Ack, Auth, ConnAck, Connect, Disconnect, Packet, PacketId, Properties, Property, PropertyPlace, Publish, QoS,
    ReasonCode, RetainHandling, SubAck, Subscribe, SubscribeFilters, SubscriptionOptions, UnsubAck, Unsubscribe,
    UnsubscribeFilters, Version, Will,
};

/// splitmix64.
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).unwrap()
    }

    pub fn byte(&mut self) -> u8 {
        self.next().to_be_bytes()[0]
    }

    pub fn coin(&mut self) -> bool {
        self.next() & 1 == 1
    }

    pub fn pick<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.below(items.len())]
    }

    fn u16(&mut self) -> u16 {
        let edges = [0, 1, 0xFF, 0x100, 0xFFFF];
        if self.coin() { self.pick(&edges) } else { u16::from_be_bytes([self.byte(), self.byte()]) }
    }

    fn u32(&mut self) -> u32 {
        let edges = [0, 1, 0xFFFF, 0x1_0000, u32::MAX];
        if self.coin() { self.pick(&edges) } else { u32::from_be_bytes([self.byte(), 1, self.byte(), self.byte()]) }
    }

    /// Mostly short; sometimes around the edges of a length of one byte.
    fn len(&mut self) -> usize {
        match self.below(8) {
            0 => 0,
            1 => 100 + self.below(60),
            2 => self.below(600),
            _ => self.below(24),
        }
    }

    /// Any bytes.
    pub fn bytes(&mut self) -> Vec<u8> {
        (0..self.len()).map(|_| self.byte()).collect()
    }

    /// Any characters but U+0000.
    fn text(&mut self) -> String {
        let rare =
            ['é', '\u{FEFF}', '\u{7FF}', '\u{800}', '\u{FFFF}', '\u{2A6D4}', '\u{10FFFF}', '\u{1}', '+', '#', '/'];
        let len = self.len();
        (0..len)
            .map(|_| if self.below(8) == 0 { self.pick(&rare) } else { char::from(b'a' + self.byte() % 26) })
            .collect()
    }

    /// A topic name.
    fn topic(&mut self) -> String {
        let topic = self.text().replace(['+', '#'], "/");
        if topic.is_empty() { "/".into() } else { topic }
    }

    fn filter(&mut self) -> String {
        let filter = self.text();
        if filter.is_empty() { "#".into() } else { filter }
    }

    fn qos(&mut self) -> QoS {
        self.pick(&[QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce])
    }

    fn packet_id(&mut self) -> PacketId {
        PacketId::new(self.u16().max(1)).unwrap()
    }

    fn reasons(&mut self, codes: &[u8]) -> Vec<u8> {
        (0..=self.below(12)).map(|_| self.pick(codes)).collect()
    }
}

/// A legal property list for `place`; none in 3.1.1.
fn properties(rng: &mut Rng, version: Version, place: PropertyPlace) -> Vec<u8> {
    let mut list = Bytes::default();
    if version == Version::V311 || rng.below(3) == 0 {
        return list.0;
    }
    let mut ids: Vec<u8> = TABLE.iter().filter(|row| row.2.contains(&place)).map(|row| row.0.id()).collect();
    ids.retain(|_| rng.coin());
    // Some repeat.
    if place == PropertyPlace::Publish {
        ids.extend((0..rng.below(3)).map(|_| 0x0B));
    }
    ids.extend((0..rng.below(3)).map(|_| 0x26));
    // Data need a method, and AUTH has one.
    if (place == PropertyPlace::Auth || ids.contains(&0x16)) && !ids.contains(&0x15) {
        ids.push(0x15);
    }
    for i in (1..ids.len()).rev() {
        ids.swap(i, rng.below(i + 1));
    }
    for id in ids {
        let flag = rng.coin();
        let (two, four) = (rng.u16(), rng.u32());
        let (text, other, topic, bytes) = (rng.text(), rng.text(), rng.topic(), rng.bytes());
        let property = match id {
            0x01 => Property::PayloadFormatIndicator(flag),
            0x02 => Property::MessageExpiryInterval(four),
            0x03 => Property::ContentType(&text),
            0x08 => Property::ResponseTopic(&topic),
            0x09 => Property::CorrelationData(&bytes),
            0x0B => Property::SubscriptionIdentifier((four >> rng.below(24)).clamp(1, 268_435_455)),
            0x11 => Property::SessionExpiryInterval(four),
            0x12 => Property::AssignedClientIdentifier(&text),
            0x13 => Property::ServerKeepAlive(two),
            0x15 => Property::AuthenticationMethod(&text),
            0x16 => Property::AuthenticationData(&bytes),
            0x17 => Property::RequestProblemInformation(flag),
            0x18 => Property::WillDelayInterval(four),
            0x19 => Property::RequestResponseInformation(flag),
            0x1A => Property::ResponseInformation(&text),
            0x1C => Property::ServerReference(&text),
            0x1F => Property::ReasonString(&text),
            0x21 => Property::ReceiveMaximum(two.max(1)),
            0x22 => Property::TopicAliasMaximum(two),
            0x23 => Property::TopicAlias(two.max(1)),
            0x24 => Property::MaximumQoS(flag),
            0x25 => Property::RetainAvailable(flag),
            0x26 => Property::UserProperty(&text, &other),
            0x27 => Property::MaximumPacketSize(four.max(1)),
            0x28 => Property::WildcardSubscriptionAvailable(flag),
            0x29 => Property::SubscriptionIdentifierAvailable(flag),
            0x2A => Property::SharedSubscriptionAvailable(flag),
            id => panic!("0x{id:02X} is not in the table"),
        };
        let before = list.0.len();
        property.encode(&mut list);
        assert_eq!(list.0.len() - before, property.encoded_len());
    }
    list.0
}

/// A legal packet of any type of `version`.
pub fn packet<R>(rng: &mut Rng, version: Version, then: impl FnOnce(&Packet<'_>) -> R) -> R {
    let kinds = if version == Version::V5 { 15 } else { 14 };
    let kind = if rng.below(4) == 0 { 3 } else { 1 + rng.below(kinds) };
    packet_of(kind, rng, version, then)
}

fn packet_of<R>(kind: usize, rng: &mut Rng, version: Version, then: impl FnOnce(&Packet<'_>) -> R) -> R {
    let place = match kind {
        1 => PropertyPlace::Connect,
        2 => PropertyPlace::ConnAck,
        3 => PropertyPlace::Publish,
        8 => PropertyPlace::Subscribe,
        10 => PropertyPlace::Unsubscribe,
        14 => PropertyPlace::Disconnect,
        15 => PropertyPlace::Auth,
        _ => PropertyPlace::Ack,
    };
    let list = properties(rng, version, place);
    let properties = Properties::parse(&list, place).unwrap();
    let packet_id = rng.packet_id();
    match kind {
        1 => connect(rng, version, properties, then),
        2 => {
            let codes: &[u8] = if version == Version::V5 {
                &[0x00, 0x80, 0x81, 0x82, 0x83, 0x84, 0x8A, 0x8C, 0x90, 0x95, 0x97, 0x99, 0x9A, 0x9D, 0x9F]
            } else {
                &[0x00, 0x84, 0x85, 0x88, 0x86, 0x87]
            };
            let reason = ReasonCode(rng.pick(codes));
            let session_present = reason == ReasonCode::SUCCESS && rng.coin();
            then(&Packet::ConnAck(ConnAck { session_present, reason, properties }))
        }
        3 => {
            let qos = rng.qos();
            let packet_id = (qos != QoS::AtMostOnce).then_some(packet_id);
            let dup = qos != QoS::AtMostOnce && rng.coin();
            let alone = properties.topic_alias().is_some() && rng.coin();
            let topic = if alone { String::new() } else { rng.topic() };
            let payload = rng.bytes();
            let retain = rng.coin();
            then(&Packet::Publish(Publish {
                dup,
                qos,
                retain,
                topic: &topic,
                packet_id,
                properties,
                payload: &payload,
            }))
        }
        4..=7 => {
            let codes: &[u8] = match (version, kind) {
                (Version::V311, _) => &[0x00],
                (_, 4 | 5) => &[0x00, 0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99],
                _ => &[0x00, 0x92],
            };
            let ack = Ack { packet_id, reason: ReasonCode(rng.pick(codes)), properties };
            then(&match kind {
                4 => Packet::PubAck(ack),
                5 => Packet::PubRec(ack),
                6 => Packet::PubRel(ack),
                _ => Packet::PubComp(ack),
            })
        }
        8 => {
            let texts: Vec<String> = (0..=rng.below(6)).map(|_| rng.filter()).collect();
            let filters: Vec<_> = texts.iter().map(|text| (&**text, options(rng, version))).collect();
            let filters = SubscribeFilters::from_slice(&filters);
            then(&Packet::Subscribe(Subscribe { packet_id, properties, filters }))
        }
        9 => {
            let reasons = match version {
                Version::V311 => rng.reasons(&[0x00, 0x01, 0x02, 0x80]),
                Version::V5 => rng.reasons(&[0, 1, 2, 0x80, 0x83, 0x87, 0x8F, 0x91, 0x97, 0x9E, 0xA1, 0xA2]),
            };
            then(&Packet::SubAck(SubAck { packet_id, properties, reasons: &reasons }))
        }
        10 => {
            let texts: Vec<String> = (0..=rng.below(6)).map(|_| rng.filter()).collect();
            let filters: Vec<&str> = texts.iter().map(String::as_str).collect();
            let filters = UnsubscribeFilters::from_slice(&filters);
            then(&Packet::Unsubscribe(Unsubscribe { packet_id, properties, filters }))
        }
        11 => {
            let reasons = match version {
                Version::V311 => vec![],
                Version::V5 => rng.reasons(&[0x00, 0x11, 0x80, 0x83, 0x87, 0x8F, 0x91]),
            };
            then(&Packet::UnsubAck(UnsubAck { packet_id, properties, reasons: &reasons }))
        }
        12 => then(&Packet::PingReq),
        13 => then(&Packet::PingResp),
        14 => {
            let codes: &[u8] =
                if version == Version::V5 { &[0x00, 0x04, 0x81, 0x8B, 0x8E, 0x98, 0xA2] } else { &[0x00] };
            then(&Packet::Disconnect(Disconnect { reason: ReasonCode(rng.pick(codes)), properties }))
        }
        _ => {
            let codes: &[u8] = if properties.is_empty() { &[0x00] } else { &[0x00, 0x18, 0x19] };
            then(&Packet::Auth(Auth { reason: ReasonCode(rng.pick(codes)), properties }))
        }
    }
}

fn connect<R>(rng: &mut Rng, version: Version, properties: Properties<'_>, then: impl FnOnce(&Packet<'_>) -> R) -> R {
    let (client_id, topic, username) = (rng.text(), rng.topic(), rng.text());
    let (payload, password) = (rng.bytes(), rng.bytes());
    let list = self::properties(rng, version, PropertyPlace::Will);
    let will = Will {
        qos: rng.qos(),
        retain: rng.coin(),
        properties: Properties::parse(&list, PropertyPlace::Will).unwrap(),
        topic: &topic,
        payload: &payload,
    };
    let username = rng.coin().then_some(&*username);
    // [MQTT3-3.1.2-22]
    let password = ((version == Version::V5 || username.is_some()) && rng.coin()).then_some(&*password);
    then(&Packet::Connect(Connect {
        version,
        clean_start: rng.coin(),
        keep_alive_secs: rng.u16(),
        properties,
        client_id: &client_id,
        will: rng.coin().then_some(will),
        username,
        password,
    }))
}

fn options(rng: &mut Rng, version: Version) -> SubscriptionOptions {
    let least = SubscriptionOptions::at_most(rng.qos());
    match version {
        Version::V311 => least,
        Version::V5 => SubscriptionOptions {
            no_local: rng.coin(),
            retain_as_published: rng.coin(),
            retain_handling: rng.pick(&[
                RetainHandling::SendAtSubscribe,
                RetainHandling::SendIfNew,
                RetainHandling::DoNotSend,
            ]),
            ..least
        },
    }
}
