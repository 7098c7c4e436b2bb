//! Packets as bytes: properties, what a client says, and a strict reading of what a server says.

/// Version of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// 3.1.1, protocol level 4.
    V311,
    /// 5.0, protocol level 5.
    V5,
}

pub use Version::{V5, V311};

/// Both versions, for tests that hold for either.
pub const BOTH: [Version; 2] = [V311, V5];

/// Value of a property.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// One byte.
    Byte(u8),
    /// Two byte integer.
    Two(u16),
    /// Four byte integer.
    Four(u32),
    /// Variable byte integer.
    Var(u32),
    /// UTF-8 string.
    Text(String),
    /// Binary data.
    Bytes(Vec<u8>),
    /// UTF-8 string pair.
    Pair(String, String),
}

/// A property.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prop {
    /// Identifier, see [`prop`].
    pub id: u8,
    /// Value; its form is not checked against the identifier, so that wrong ones can be sent.
    pub value: Value,
}

/// Identifiers and makers of the properties, MQTT 5 table 2-4.
pub mod prop {
    use super::{Prop, Value};

    macro_rules! properties {
        ($($id:ident $make:ident $code:literal $shape:ident $type:ty;)+) => {
            $(
                #[doc = concat!("Identifier of `", stringify!($make), "`.")]
                pub const $id: u8 = $code;
                #[doc = concat!("Property `", stringify!($make), "`.")]
                pub fn $make(value: impl Into<$type>) -> Prop {
                    Prop { id: $code, value: Value::$shape(value.into()) }
                }
            )+
            /// An empty value of the form that property has; `None` for an unknown identifier.
            pub fn shape(id: u8) -> Option<Value> {
                match id {
                    $($code => Some(Value::$shape(<$type>::default())),)+
                    USER => Some(Value::Pair(String::new(), String::new())),
                    _ => None,
                }
            }
        };
    }

    properties! {
        PAYLOAD_FORMAT payload_format 0x01 Byte u8;
        MESSAGE_EXPIRY message_expiry 0x02 Four u32;
        CONTENT_TYPE content_type 0x03 Text String;
        RESPONSE_TOPIC response_topic 0x08 Text String;
        CORRELATION correlation 0x09 Bytes Vec<u8>;
        SUBSCRIPTION_ID subscription_id 0x0B Var u32;
        SESSION_EXPIRY session_expiry 0x11 Four u32;
        ASSIGNED_CLIENT_ID assigned_client_id 0x12 Text String;
        SERVER_KEEP_ALIVE server_keep_alive 0x13 Two u16;
        AUTH_METHOD auth_method 0x15 Text String;
        AUTH_DATA auth_data 0x16 Bytes Vec<u8>;
        REQUEST_PROBLEM_INFO request_problem_info 0x17 Byte u8;
        WILL_DELAY will_delay 0x18 Four u32;
        REQUEST_RESPONSE_INFO request_response_info 0x19 Byte u8;
        RESPONSE_INFO response_info 0x1A Text String;
        SERVER_REFERENCE server_reference 0x1C Text String;
        REASON_STRING reason_string 0x1F Text String;
        RECEIVE_MAX receive_max 0x21 Two u16;
        TOPIC_ALIAS_MAX topic_alias_max 0x22 Two u16;
        TOPIC_ALIAS topic_alias 0x23 Two u16;
        MAX_QOS max_qos 0x24 Byte u8;
        RETAIN_AVAILABLE retain_available 0x25 Byte u8;
        MAX_PACKET_SIZE max_packet_size 0x27 Four u32;
        WILDCARD_AVAILABLE wildcard_available 0x28 Byte u8;
        SUBSCRIPTION_ID_AVAILABLE subscription_id_available 0x29 Byte u8;
        SHARED_AVAILABLE shared_available 0x2A Byte u8;
    }

    /// Identifier of a user property.
    pub const USER: u8 = 0x26;

    /// A user property.
    pub fn user(name: &str, value: &str) -> Prop {
        Prop { id: USER, value: Value::Pair(name.into(), value.into()) }
    }
}

/// The properties of a packet, in the order of the wire.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Props(pub Vec<Prop>);

impl Props {
    /// Whether there is one with this identifier.
    pub fn has(&self, id: u8) -> bool {
        self.0.iter().any(|p| p.id == id)
    }

    /// The numbers under this identifier, in order.
    pub fn numbers(&self, id: u8) -> Vec<u32> {
        let number = |p: &Prop| match p.value {
            Value::Byte(v) => v.into(),
            Value::Two(v) => v.into(),
            Value::Four(v) | Value::Var(v) => v,
            _ => panic!("property {id:#04x} is not a number: {p:?}"),
        };
        self.0.iter().filter(|p| p.id == id).map(number).collect()
    }

    /// The number under this identifier.
    pub fn number(&self, id: u8) -> Option<u32> {
        self.numbers(id).first().copied()
    }

    /// The string under this identifier.
    pub fn text(&self, id: u8) -> Option<&str> {
        self.0.iter().find(|p| p.id == id).map(|p| match &p.value {
            Value::Text(text) => text.as_str(),
            other => panic!("property {id:#04x} is not a string: {other:?}"),
        })
    }

    /// The binary data under this identifier.
    pub fn bytes(&self, id: u8) -> Option<&[u8]> {
        self.0.iter().find(|p| p.id == id).map(|p| match &p.value {
            Value::Bytes(bytes) => bytes.as_slice(),
            other => panic!("property {id:#04x} is not binary data: {other:?}"),
        })
    }

    /// The user properties, in order.
    pub fn users(&self) -> Vec<(&str, &str)> {
        self.0
            .iter()
            .filter_map(|p| match &p.value {
                Value::Pair(name, value) => Some((name.as_str(), value.as_str())),
                _ => None,
            })
            .collect()
    }
}

/// A number as variable byte integer.
pub fn varint(mut value: u32) -> Vec<u8> {
    let mut out = Vec::new();
    loop {
        let low = u8::try_from(value & 0x7F).expect("seven bits");
        value >>= 7;
        if value == 0 {
            out.push(low);
            return out;
        }
        out.push(low | 0x80);
    }
}

/// Bytes with a two byte length in front: the form of strings and binary data.
pub fn field(bytes: impl AsRef<[u8]>) -> Vec<u8> {
    let bytes = bytes.as_ref();
    let length = u16::try_from(bytes.len()).expect("a field has at most 65,535 bytes");
    [&length.to_be_bytes(), bytes].concat()
}

/// A whole packet: first byte, remaining length, body.
pub fn frame(first: u8, body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let length = u32::try_from(body.len()).expect("a packet fits into 32 bits");
    [&[first], varint(length).as_slice(), body].concat()
}

/// Properties with their length in front.
pub fn props(list: &[Prop]) -> Vec<u8> {
    let mut body = Vec::new();
    for Prop { id, value } in list {
        body.push(*id);
        match value {
            Value::Byte(v) => body.push(*v),
            Value::Two(v) => body.extend(v.to_be_bytes()),
            Value::Four(v) => body.extend(v.to_be_bytes()),
            Value::Var(v) => body.extend(varint(*v)),
            Value::Text(v) => body.extend(field(v)),
            Value::Bytes(v) => body.extend(field(v)),
            Value::Pair(name, v) => body.extend([field(name), field(v)].concat()),
        }
    }
    let length = u32::try_from(body.len()).expect("properties fit into 32 bits");
    [varint(length), body].concat()
}

/// Properties in MQTT 5, nothing in 3.1.1.
pub fn props_for(version: Version, list: &[Prop]) -> Vec<u8> {
    match version {
        V5 => props(list),
        V311 => Vec::new(),
    }
}

/// A PUBLISH, to send or received.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Publish {
    /// Sent before.
    pub dup: bool,
    /// 0, 1, 2 (3 to offend).
    pub qos: u8,
    /// RETAIN flag.
    pub retain: bool,
    /// Topic name.
    pub topic: String,
    /// Packet identifier; 0 with QoS 0.
    pub id: u16,
    /// Properties (MQTT 5).
    pub props: Props,
    /// Payload.
    pub payload: Vec<u8>,
}

impl Publish {
    /// A QoS 0 message.
    pub fn new(topic: &str, payload: impl AsRef<[u8]>) -> Self {
        Self { topic: topic.into(), payload: payload.as_ref().into(), ..Self::default() }
    }

    /// At this quality of service, under this packet identifier.
    pub fn qos(mut self, qos: u8, id: u16) -> Self {
        (self.qos, self.id) = (qos, id);
        self
    }

    /// With the RETAIN flag.
    pub fn retain(mut self) -> Self {
        self.retain = true;
        self
    }

    /// With the DUP flag.
    pub fn dup(mut self) -> Self {
        self.dup = true;
        self
    }

    /// With a property.
    pub fn with(mut self, property: Prop) -> Self {
        self.props.0.push(property);
        self
    }

    /// The bytes.
    pub fn bytes(&self, version: Version) -> Vec<u8> {
        let first = 0x30 | u8::from(self.dup) << 3 | self.qos << 1 | u8::from(self.retain);
        let mut body = field(&self.topic);
        if self.qos > 0 {
            body.extend(self.id.to_be_bytes());
        }
        body.extend(props_for(version, &self.props.0));
        body.extend(&self.payload);
        frame(first, body)
    }

    /// The payload as text.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.payload).expect("the test published text")
    }
}

/// PUBACK and its relatives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AckKind {
    /// PUBACK.
    PubAck = 0x40,
    /// PUBREC.
    PubRec = 0x50,
    /// PUBREL; its fixed header flags are 2.
    PubRel = 0x62,
    /// PUBCOMP.
    PubComp = 0x70,
}

pub use AckKind::{PubAck, PubComp, PubRec, PubRel};

/// What a server may send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packet {
    /// CONNACK.
    ConnAck(ConnAck),
    /// PUBLISH.
    Publish(Publish),
    /// PUBACK, PUBREC, PUBREL, PUBCOMP.
    Ack {
        /// Which of the four.
        kind: AckKind,
        /// Packet identifier.
        id: u16,
        /// Reason code; 0 where the packet has none.
        code: u8,
        /// Properties.
        props: Props,
    },
    /// SUBACK.
    SubAck {
        /// Packet identifier.
        id: u16,
        /// One code a filter.
        codes: Vec<u8>,
        /// Properties.
        props: Props,
    },
    /// UNSUBACK.
    UnsubAck {
        /// Packet identifier.
        id: u16,
        /// One code a filter; none in 3.1.1.
        codes: Vec<u8>,
        /// Properties.
        props: Props,
    },
    /// PINGRESP.
    PingResp,
    /// DISCONNECT.
    Disconnect {
        /// Reason code.
        code: u8,
        /// Properties.
        props: Props,
    },
    /// AUTH.
    Auth {
        /// Reason code.
        code: u8,
        /// Properties.
        props: Props,
    },
}

/// A CONNACK.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ConnAck {
    /// Session Present.
    pub present: bool,
    /// Reason code, or return code in 3.1.1.
    pub code: u8,
    /// Properties.
    pub props: Props,
}

/// A step by step reader of one packet body.
pub(super) struct Body<'a>(pub(super) &'a [u8]);

impl<'a> Body<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], String> {
        let (head, rest) = self.0.split_at_checked(count).ok_or_else(|| format!("{count} bytes missing"))?;
        self.0 = rest;
        Ok(head)
    }

    fn byte(&mut self) -> Result<u8, String> {
        Ok(self.take(1)?[0])
    }

    fn two(&mut self) -> Result<u16, String> {
        let b = self.take(2)?;
        Ok(u16::from_be_bytes([b[0], b[1]]))
    }

    fn id(&mut self) -> Result<u16, String> {
        match self.two()? {
            0 => Err("packet identifier 0".into()),
            id => Ok(id),
        }
    }

    fn four(&mut self) -> Result<u32, String> {
        let b = self.take(4)?;
        Ok(u32::from_be_bytes([b[0], b[1], b[2], b[3]]))
    }

    pub(super) fn var(&mut self) -> Result<u32, String> {
        let mut value = 0;
        for shift in [0, 7, 14, 21] {
            let byte = self.byte()?;
            value |= u32::from(byte & 0x7F) << shift;
            if byte & 0x80 == 0 {
                if byte == 0 && shift > 0 {
                    return Err("variable byte integer is longer than needed [MQTT5-1.5.5-1]".into());
                }
                return Ok(value);
            }
        }
        Err("variable byte integer of more than four bytes".into())
    }

    fn bytes(&mut self) -> Result<Vec<u8>, String> {
        let length = self.two()?;
        Ok(self.take(length.into())?.to_vec())
    }

    fn text(&mut self) -> Result<String, String> {
        let text = String::from_utf8(self.bytes()?).map_err(|e| format!("{e} [MQTT5-1.5.4-1]"))?;
        if text.contains('\0') { Err("U+0000 in a string [MQTT5-1.5.4-2]".into()) } else { Ok(text) }
    }

    /// The properties of a packet of this type, each checked to be one that a server may put there.
    fn props(&mut self, packet: u8) -> Result<Props, String> {
        let length = self.var()?;
        let mut body = Body(self.take(length as usize)?);
        let mut list: Vec<Prop> = Vec::new();
        while !body.0.is_empty() {
            let id = body.byte()?;
            let value = match prop::shape(id).ok_or_else(|| format!("unknown property {id:#04x}"))? {
                Value::Byte(_) => Value::Byte(body.byte()?),
                Value::Two(_) => Value::Two(body.two()?),
                Value::Four(_) => Value::Four(body.four()?),
                Value::Var(_) => Value::Var(body.var()?),
                Value::Text(_) => Value::Text(body.text()?),
                Value::Bytes(_) => Value::Bytes(body.bytes()?),
                Value::Pair(..) => Value::Pair(body.text()?, body.text()?),
            };
            if !server_may_send(packet, id) {
                return Err(format!("property {id:#04x} does not belong into a packet of type {packet}"));
            }
            let repeats = id == prop::USER || id == prop::SUBSCRIPTION_ID;
            if !repeats && list.iter().any(|p| p.id == id) {
                return Err(format!("property {id:#04x} twice"));
            }
            list.push(Prop { id, value });
        }
        Ok(Props(list))
    }
}

/// Whether property `id` may stand in a packet of type `packet` that a server sends (MQTT 5 table 2-4).
fn server_may_send(packet: u8, id: u8) -> bool {
    match id {
        prop::USER => true,
        prop::REASON_STRING => packet != 3,
        prop::PAYLOAD_FORMAT
        | prop::MESSAGE_EXPIRY
        | prop::CONTENT_TYPE
        | prop::RESPONSE_TOPIC
        | prop::CORRELATION
        | prop::SUBSCRIPTION_ID
        | prop::TOPIC_ALIAS => packet == 3,
        prop::AUTH_METHOD | prop::AUTH_DATA => packet == 2 || packet == 15,
        prop::SERVER_REFERENCE => packet == 2 || packet == 14,
        prop::REQUEST_PROBLEM_INFO | prop::WILL_DELAY | prop::REQUEST_RESPONSE_INFO => false,
        _ => packet == 2,
    }
}

/// Whether `code` is one the table of that packet lists for a server [MQTT5-3.2.2-8] [MQTT5-3.4.2-1] [MQTT5-3.5.2-1]
/// [MQTT5-3.6.2-1] [MQTT5-3.7.2-1] [MQTT5-3.9.3-2] [MQTT5-3.11.3-2] [MQTT5-3.14.2-1] [MQTT5-3.15.2-1].
fn code_is_listed(packet: u8, code: u8) -> bool {
    let listed: &[u8] = match packet {
        2 => &[
            0x00, 0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8A, 0x8C, 0x90, 0x95, 0x97, 0x99, 0x9A,
            0x9B, 0x9C, 0x9D, 0x9F,
        ],
        4 | 5 => &[0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99],
        6 | 7 => &[0x00, 0x92],
        9 => &[0x00, 0x01, 0x02, 0x80, 0x83, 0x87, 0x8F, 0x91, 0x97, 0x9E, 0xA1, 0xA2],
        11 => &[0x00, 0x11, 0x80, 0x83, 0x87, 0x8F, 0x91],
        14 => &[
            0x00, 0x80, 0x81, 0x82, 0x83, 0x87, 0x89, 0x8B, 0x8C, 0x8D, 0x8E, 0x8F, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97,
            0x98, 0x99, 0x9A, 0x9B, 0x9C, 0x9D, 0x9E, 0x9F, 0xA0, 0xA1, 0xA2,
        ],
        15 => &[0x00, 0x18],
        _ => return true,
    };
    listed.contains(&code)
}

/// Decodes one packet from a server: form, flags, identifiers, properties [MQTT5-2.1.3-1] [MQTT5-2.2.1-2]
/// [MQTT5-2.2.1-4] [MQTT5-2.2.2-1] [MQTT3-2.2.2-1] [MQTT3-2.3.1-4] [MQTT3-2.3.1-5].
pub(super) fn decode(version: Version, first: u8, body: &[u8]) -> Result<Packet, String> {
    let (kind, flags) = (first >> 4, first & 0x0F);
    let mut body = Body(body);
    if kind != 3 && flags != if kind == 6 { 2 } else { 0 } {
        return Err(format!("fixed header flags {flags:#06b} [MQTT5-2.1.3-1]"));
    }
    let v5 = version == V5;
    let check = |code| if code_is_listed(kind, code) { Ok(code) } else { Err(format!("reason code {code:#04x}")) };
    let packet = match kind {
        2 => {
            let present = match body.byte()? {
                0 => false,
                1 => true,
                other => return Err(format!("CONNACK flags {other:#04x} [MQTT5-3.2.2-1]")),
            };
            let code = body.byte()?;
            if !v5 && code > 5 {
                return Err(format!("return code {code}"));
            }
            let code = if v5 { check(code)? } else { code };
            if code != 0 && present {
                return Err("Session Present with a refusal [MQTT5-3.2.2-6]".into());
            }
            let props = if v5 { body.props(kind)? } else { Props::default() };
            Packet::ConnAck(ConnAck { present, code, props })
        }
        3 => {
            let (dup, qos, retain) = (flags & 8 != 0, flags >> 1 & 3, flags & 1 != 0);
            if qos == 3 || (dup && qos == 0) {
                return Err(format!("PUBLISH flags {flags:#06b}"));
            }
            let topic = body.text()?;
            let id = if qos > 0 { body.id()? } else { 0 };
            let props = if v5 { body.props(kind)? } else { Props::default() };
            if topic.contains(['+', '#']) || (topic.is_empty() && !props.has(prop::TOPIC_ALIAS)) {
                return Err(format!("topic name {topic:?}"));
            }
            let payload = body.take(body.0.len())?.to_vec();
            Packet::Publish(Publish { dup, qos, retain, topic, id, props, payload })
        }
        4..=7 => {
            let kind_of_ack = [PubAck, PubRec, PubRel, PubComp][usize::from(kind - 4)];
            let id = body.id()?;
            let code = if v5 && !body.0.is_empty() { check(body.byte()?)? } else { 0 };
            let props = if v5 && !body.0.is_empty() { body.props(kind)? } else { Props::default() };
            Packet::Ack { kind: kind_of_ack, id, code, props }
        }
        9 | 11 => {
            let id = body.id()?;
            let props = if v5 { body.props(kind)? } else { Props::default() };
            let codes = body.take(body.0.len())?.to_vec();
            if kind == 9 {
                if let Some(code) =
                    codes.iter().find(|c| if v5 { check(**c).is_err() } else { ![0, 1, 2, 0x80].contains(*c) })
                {
                    return Err(format!("SUBACK code {code:#04x}"));
                }
                Packet::SubAck { id, codes, props }
            } else {
                if let Some(code) = codes.iter().find(|c| check(**c).is_err()) {
                    return Err(format!("UNSUBACK code {code:#04x}"));
                }
                if !v5 && !codes.is_empty() {
                    return Err("UNSUBACK of 3.1.1 with a payload".into());
                }
                Packet::UnsubAck { id, codes, props }
            }
        }
        13 => Packet::PingResp,
        14 | 15 if v5 => {
            let code = if body.0.is_empty() { 0 } else { check(body.byte()?)? };
            let props = if body.0.is_empty() { Props::default() } else { body.props(kind)? };
            if kind == 14 { Packet::Disconnect { code, props } } else { Packet::Auth { code, props } }
        }
        _ => return Err(format!("a server does not send packets of type {kind} in this version")),
    };
    if body.0.is_empty() { Ok(packet) } else { Err(format!("{} bytes behind the end of {packet:?}", body.0.len())) }
}

/// Bytes of the packet that these begin with, once its length is there.
pub fn frame_length(bytes: &[u8]) -> Option<usize> {
    let rest = bytes.get(1..)?;
    rest.iter().take(4).position(|b| b & 0x80 == 0)?;
    let mut head = Body(rest);
    let length = head.var().ok()? as usize;
    Some(1 + (rest.len() - head.0.len()) + length)
}

/// Decodes these bytes, which are one packet from a server.
///
/// # Errors
///
/// What is wrong with it.
pub fn parse_packet(version: Version, bytes: &[u8]) -> Result<Packet, String> {
    let (first, rest) = bytes.split_first().ok_or("no bytes")?;
    let mut body = Body(rest);
    body.var()?;
    decode(version, *first, body.0)
}
