//! A raw MQTT client: bytes over a blocking socket, with a codec of its own.
//!
//! It shares nothing with the codec under test, so that a mistake there cannot hide itself. What the server sends is
//! decoded strictly (flags, lengths, properties allowed in that packet, no property twice, nothing behind the end), so
//! every test also checks the form of every packet it receives. Waiting is bounded by [`PATIENCE`] and ends with the
//! event, never with a sleep; silence is shown by a fence (PINGREQ, PINGRESP), because the server answers in order.

#![allow(clippy::doc_markdown, reason = "QoS and its like are the specification's words")]
#![allow(clippy::return_self_not_must_use, reason = "builders of a test")]

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// The longest a test waits for anything it expects.
pub const PATIENCE: Duration = Duration::from_secs(8);

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
struct Body<'a>(&'a [u8]);

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

    fn var(&mut self) -> Result<u32, String> {
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
fn decode(version: Version, first: u8, body: &[u8]) -> Result<Packet, String> {
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

/// A CONNECT in the making. Every part can be made wrong.
#[derive(Debug, Clone)]
pub struct Connect {
    version: Version,
    name: Vec<u8>,
    level: u8,
    flags: u8,
    flip: u8,
    keep_alive_secs: u16,
    props: Vec<Prop>,
    client_id: Vec<u8>,
    will: Option<Publish>,
    username: Option<Vec<u8>>,
    password: Option<Vec<u8>>,
    trailing: Vec<u8>,
}

impl Connect {
    /// A client with a clean start and a keep alive of a minute.
    pub fn new(version: Version, client_id: &str) -> Self {
        Self {
            version,
            name: b"MQTT".into(),
            level: if version == V5 { 5 } else { 4 },
            flags: 0x02,
            flip: 0,
            keep_alive_secs: 60,
            props: Vec::new(),
            client_id: client_id.into(),
            will: None,
            username: None,
            password: None,
            trailing: Vec::new(),
        }
    }

    /// The version it is in.
    pub fn version(&self) -> Version {
        self.version
    }

    /// An MQTT 5 client.
    pub fn v5(client_id: &str) -> Self {
        Self::new(V5, client_id)
    }

    /// A 3.1.1 client.
    pub fn v311(client_id: &str) -> Self {
        Self::new(V311, client_id)
    }

    /// Without Clean Start (Clean Session), and nothing else.
    pub fn resume(mut self) -> Self {
        self.flags &= !0x02;
        self
    }

    /// A session that outlives the connection, resumed if there: no Clean Start, and an hour of expiry in MQTT 5.
    pub fn persistent(self) -> Self {
        let version = self.version;
        let resumed = self.resume();
        if version == V5 { resumed.with(prop::session_expiry(3_600_u32)) } else { resumed }
    }

    /// With a property.
    pub fn with(mut self, property: Prop) -> Self {
        self.props.push(property);
        self
    }

    /// With this keep alive.
    pub fn keep_alive(mut self, secs: u16) -> Self {
        self.keep_alive_secs = secs;
        self
    }

    /// With this will; its QoS and RETAIN are the message's.
    pub fn will(mut self, message: Publish) -> Self {
        self.will = Some(message);
        self
    }

    /// With a user name.
    pub fn username(mut self, name: impl AsRef<[u8]>) -> Self {
        self.username = Some(name.as_ref().into());
        self
    }

    /// With a password.
    pub fn password(mut self, password: impl AsRef<[u8]>) -> Self {
        self.password = Some(password.as_ref().into());
        self
    }

    /// With these bytes as client identifier.
    pub fn client_id(mut self, bytes: impl AsRef<[u8]>) -> Self {
        self.client_id = bytes.as_ref().into();
        self
    }

    /// With another protocol name and level.
    pub fn protocol(mut self, name: &str, level: u8) -> Self {
        (self.name, self.level) = (name.into(), level);
        self
    }

    /// With these bits of the connect flags inverted, whatever the payload holds.
    pub fn flip_flags(mut self, bits: u8) -> Self {
        self.flip = bits;
        self
    }

    /// With bytes behind the end of the payload, inside the packet.
    pub fn trailing(mut self, bytes: &[u8]) -> Self {
        self.trailing = bytes.into();
        self
    }

    /// The bytes.
    pub fn bytes(&self) -> Vec<u8> {
        let mut flags = self.flags;
        let mut payload = field(&self.client_id);
        if let Some(will) = &self.will {
            flags |= 0x04 | will.qos << 3 | u8::from(will.retain) << 5;
            payload.extend(props_for(self.version, &will.props.0));
            payload.extend(field(&will.topic));
            payload.extend(field(&will.payload));
        }
        if let Some(name) = &self.username {
            flags |= 0x80;
            payload.extend(field(name));
        }
        if let Some(password) = &self.password {
            flags |= 0x40;
            payload.extend(field(password));
        }
        let mut body = field(&self.name);
        body.extend([self.level, flags ^ self.flip]);
        body.extend(self.keep_alive_secs.to_be_bytes());
        body.extend(props_for(self.version, &self.props));
        body.extend(payload);
        body.extend(&self.trailing);
        frame(0x10, body)
    }

    /// Opens a connection and sends the CONNECT.
    pub fn send_to(&self, at: impl Into<SocketAddr>) -> Client {
        let mut client = Client::open(at, self.version);
        client.name = String::from_utf8_lossy(&self.client_id).into_owned();
        client.send(&self.bytes());
        client
    }

    /// Connects; whatever the answer is, it is in `connack`.
    pub fn ask(&self, at: impl Into<SocketAddr>) -> Client {
        let mut client = self.send_to(at);
        match client.recv() {
            Packet::ConnAck(connack) => client.connack = connack,
            other => panic!("{}: CONNACK expected, got {other:?} [MQTT5-3.2.0-1]", client.name),
        }
        client
    }

    /// Connects and is let in.
    pub fn to(&self, at: impl Into<SocketAddr>) -> Client {
        let client = self.ask(at);
        assert_eq!(client.connack.code, 0, "{} was refused: {:?}", client.name, client.connack);
        client
    }

    /// Connects and is refused: the code of the CONNACK, after which the server has closed.
    pub fn refused(&self, at: impl Into<SocketAddr>) -> u8 {
        let mut client = self.ask(at);
        assert_ne!(client.connack.code, 0, "{} was let in", client.name);
        assert_eq!(client.closed(), [], "after a refusal [MQTT5-3.2.2-7]");
        client.connack.code
    }
}

/// Whether a foreign broker is spoken to, which may close without a word where the specification leaves it the choice;
/// `MQTT_TEST_STRICT` asks it for all that Parlor does.
pub fn lenient() -> bool {
    std::env::var_os("MQTT_TEST_ADDR").is_some() && std::env::var_os("MQTT_TEST_STRICT").is_none()
}

/// Why no packet came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lost {
    /// The server has closed the connection.
    Closed,
    /// Nothing came in time.
    Late,
}

/// One connection.
pub struct Client {
    /// Version that received packets are decoded in.
    pub version: Version,
    /// The CONNACK, once there was one.
    pub connack: ConnAck,
    /// For messages of failed tests.
    pub name: String,
    stream: TcpStream,
    input: Vec<u8>,
    stash: VecDeque<Packet>,
    last_id: u16,
}

impl Client {
    /// Opens a connection and sends nothing.
    pub fn open(at: impl Into<SocketAddr>, version: Version) -> Self {
        let stream = TcpStream::connect_timeout(&at.into(), PATIENCE).expect("the broker accepts connections");
        stream.set_nodelay(true).expect("TCP_NODELAY");
        stream.set_write_timeout(Some(PATIENCE)).expect("write timeout");
        Self {
            version,
            connack: ConnAck::default(),
            name: String::from("(no name yet)"),
            stream,
            input: Vec::new(),
            stash: VecDeque::new(),
            last_id: 0,
        }
    }

    /// The socket, for tests that need more control over it.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Sends bytes. A server that closes meanwhile is no error here; the next receive tells.
    pub fn send(&mut self, bytes: &[u8]) {
        match self.stream.write_all(bytes) {
            Ok(()) => {}
            Err(e) if matches!(e.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => {}
            Err(e) => panic!("{}: could not send: {e}", self.name),
        }
    }

    /// A packet identifier not used by this helper's own flows before.
    pub fn new_id(&mut self) -> u16 {
        self.last_id += 1;
        self.last_id
    }

    /// The next packet from the socket, or why there is none until `deadline`.
    fn read_packet(&mut self, deadline: Instant) -> Result<Packet, Lost> {
        loop {
            if let Some((packet, used)) = self.parse() {
                self.input.drain(..used);
                return Ok(packet);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Lost::Late);
            }
            self.stream.set_read_timeout(Some(left)).expect("read timeout");
            let mut chunk = [0; 16_384];
            match self.stream.read(&mut chunk) {
                Ok(0) => {
                    assert!(self.input.is_empty(), "{}: closed within a packet: {:?}", self.name, self.input);
                    return Err(Lost::Closed);
                }
                Ok(count) => self.input.extend(&chunk[..count]),
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted) => {}
                Err(_) => return Err(Lost::Closed),
            }
        }
    }

    fn parse(&self) -> Option<(Packet, usize)> {
        let (first, rest) = self.input.split_first()?;
        let end = rest.iter().take(4).position(|b| b & 0x80 == 0);
        assert!(end.is_some() || rest.len() < 4, "{}: remaining length: {rest:02x?}", self.name);
        let mut head = Body(rest);
        let length = end.map(|_| head.var().expect("the server sends minimal lengths"))? as usize;
        let body = head.0.get(..length)?;
        let used = 1 + (rest.len() - head.0.len()) + length;
        match decode(self.version, *first, body) {
            Ok(packet) => Some((packet, used)),
            Err(why) => panic!("{}: the server sent a bad packet, {first:#04x} {body:02x?}: {why}", self.name),
        }
    }

    /// The next packet, or why there is none within `patience`.
    pub fn try_recv(&mut self, patience: Duration) -> Result<Packet, Lost> {
        match self.stash.pop_front() {
            Some(packet) => Ok(packet),
            None => self.read_packet(Instant::now() + patience),
        }
    }

    /// The next packet.
    pub fn recv(&mut self) -> Packet {
        match self.try_recv(PATIENCE) {
            Ok(packet) => packet,
            Err(lost) => panic!("{}: a packet expected, got {lost:?}", self.name),
        }
    }

    /// The next packet that `pick` picks; others stay, in order, for later.
    pub fn find<T>(&mut self, what: &str, mut pick: impl FnMut(&Packet) -> Option<T>) -> T {
        for at in 0..self.stash.len() {
            if let Some(found) = pick(&self.stash[at]) {
                self.stash.remove(at);
                return found;
            }
        }
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.read_packet(deadline) {
                Ok(packet) => match pick(&packet) {
                    Some(found) => return found,
                    None => self.stash.push_back(packet),
                },
                Err(lost) => panic!("{}: {what} expected, got {lost:?} after {:?}", self.name, self.stash),
            }
        }
    }

    /// The next packet is a PUBLISH; it is not acknowledged.
    pub fn publish_packet(&mut self) -> Publish {
        match self.recv() {
            Packet::Publish(publish) => publish,
            other => panic!("{}: PUBLISH expected, got {other:?}", self.name),
        }
    }

    /// The next packet is a PUBLISH; it is acknowledged to the end of its flow.
    pub fn message(&mut self) -> Publish {
        let publish = self.publish_packet();
        self.finish(&publish);
        publish
    }

    /// Acknowledges a received message to the end of its flow.
    pub fn finish(&mut self, publish: &Publish) {
        match publish.qos {
            1 => self.ack(PubAck, publish.id),
            2 => {
                self.ack(PubRec, publish.id);
                assert_eq!(self.await_ack(PubRel, publish.id), 0);
                self.ack(PubComp, publish.id);
            }
            _ => {}
        }
    }

    /// The next messages, acknowledged, as texts.
    pub fn texts(&mut self, count: usize) -> Vec<String> {
        (0..count).map(|_| self.message().text().to_owned()).collect()
    }

    /// Sends an acknowledgement in its short form: success.
    pub fn ack(&mut self, kind: AckKind, id: u16) {
        self.send(&frame(kind as u8, id.to_be_bytes()));
    }

    /// Sends an acknowledgement with a reason code.
    pub fn ack_code(&mut self, kind: AckKind, id: u16, code: u8) {
        let [high, low] = id.to_be_bytes();
        self.send(&frame(kind as u8, [high, low, code]));
    }

    /// Waits for an acknowledgement of that kind and identifier: its reason code.
    pub fn await_ack(&mut self, kind: AckKind, id: u16) -> u8 {
        self.find(&format!("{kind:?} {id}"), |packet| match packet {
            Packet::Ack { kind: k, id: i, code, .. } if *k == kind && *i == id => Some(*code),
            _ => None,
        })
    }

    /// Sends a PUBLISH as it is.
    pub fn publish(&mut self, publish: &Publish) {
        let bytes = publish.bytes(self.version);
        self.send(&bytes);
    }

    /// Publishes and goes through the whole flow of the QoS: the reason code of PUBACK, or of PUBREC.
    pub fn deliver(&mut self, publish: &Publish) -> u8 {
        let mut publish = publish.clone();
        if publish.qos > 0 && publish.id == 0 {
            publish.id = self.new_id();
        }
        self.publish(&publish);
        match publish.qos {
            0 => 0,
            1 => self.await_ack(PubAck, publish.id),
            _ => {
                let code = self.await_ack(PubRec, publish.id);
                if code < 0x80 {
                    self.ack(PubRel, publish.id);
                    assert_eq!(self.await_ack(PubComp, publish.id), 0);
                }
                code
            }
        }
    }

    /// Publishes at a QoS to the end of the flow.
    pub fn say(&mut self, qos: u8, topic: &str, payload: impl AsRef<[u8]>) -> u8 {
        self.deliver(&Publish::new(topic, payload).qos(qos, 0))
    }

    /// Bytes of a SUBSCRIBE.
    pub fn subscribe_bytes(&self, id: u16, filters: &[(&str, u8)], list: &[Prop]) -> Vec<u8> {
        let mut body = id.to_be_bytes().to_vec();
        body.extend(props_for(self.version, list));
        for (filter, options) in filters {
            body.extend(field(filter));
            body.push(*options);
        }
        frame(0x82, body)
    }

    /// Subscribes: the codes of the SUBACK.
    pub fn subscribe_all(&mut self, filters: &[(&str, u8)], list: &[Prop]) -> Vec<u8> {
        let id = self.new_id();
        let bytes = self.subscribe_bytes(id, filters, list);
        self.send(&bytes);
        self.await_suback(id)
    }

    /// Waits for the SUBACK with this identifier: its codes.
    pub fn await_suback(&mut self, id: u16) -> Vec<u8> {
        self.find("SUBACK", |packet| match packet {
            Packet::SubAck { id: i, codes, .. } if *i == id => Some(codes.clone()),
            _ => None,
        })
    }

    /// Subscribes to one filter; the code must be the QoS asked for.
    pub fn subscribe(&mut self, filter: &str, options: u8) {
        assert_eq!(self.subscribe_all(&[(filter, options)], &[]), [options & 3], "{}: {filter}", self.name);
    }

    /// Subscribes to one filter: the code.
    pub fn subscribe_code(&mut self, filter: &str, options: u8) -> u8 {
        let codes = self.subscribe_all(&[(filter, options)], &[]);
        assert_eq!(codes.len(), 1, "[MQTT5-3.8.4-6]");
        codes[0]
    }

    /// Unsubscribes: the codes of the UNSUBACK (none in 3.1.1).
    pub fn unsubscribe(&mut self, filters: &[&str]) -> Vec<u8> {
        let id = self.new_id();
        let mut body = id.to_be_bytes().to_vec();
        body.extend(props_for(self.version, &[]));
        for filter in filters {
            body.extend(field(filter));
        }
        self.send(&frame(0xA2, body));
        self.find("UNSUBACK", |packet| match packet {
            Packet::UnsubAck { id: i, codes, .. } if *i == id => Some(codes.clone()),
            _ => None,
        })
    }

    /// Sends PINGREQ and gives what came before the PINGRESP: all that the server had for this client until then.
    pub fn fence(&mut self) -> Vec<Packet> {
        self.send(&[0xC0, 0]);
        let mut before = Vec::new();
        loop {
            match self.recv() {
                Packet::PingResp => return before,
                packet => before.push(packet),
            }
        }
    }

    /// The server has nothing for this client.
    pub fn quiet(&mut self) {
        let before = self.fence();
        assert!(before.is_empty(), "{}: nothing expected, got {before:?}", self.name);
    }

    /// What comes until the server closes.
    pub fn closed(&mut self) -> Vec<Packet> {
        let mut before: Vec<Packet> = self.stash.drain(..).collect();
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.read_packet(deadline) {
                Ok(packet) => before.push(packet),
                Err(Lost::Closed) => return before,
                Err(Lost::Late) => panic!("{}: the server should have closed; it sent {before:?}", self.name),
            }
        }
    }

    /// What comes until the server closes, as bytes: for conversations whose version is in doubt.
    pub fn rest(&mut self) -> Vec<u8> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "{}: the server should have closed; it sent {:02x?}", self.name, self.input);
            self.stream.set_read_timeout(Some(left)).expect("read timeout");
            let mut chunk = [0; 16_384];
            match self.stream.read(&mut chunk) {
                Ok(count) if count > 0 => self.input.extend(&chunk[..count]),
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted) => {}
                _ => return std::mem::take(&mut self.input),
            }
        }
    }

    /// The server closes: in MQTT 5 after a DISCONNECT with one of these reason codes, in 3.1.1 without a word.
    /// Returns the properties of the DISCONNECT.
    pub fn thrown_out(&mut self, codes: &[u8]) -> Props {
        let before = self.closed();
        match (self.version, before.as_slice()) {
            (V311, []) => Props::default(),
            (V5, [Packet::Disconnect { code, props }]) if codes.contains(code) => props.clone(),
            (V5, []) if lenient() => Props::default(),
            _ => panic!("{}: DISCONNECT {codes:02x?} and the end expected, got {before:?} and the end", self.name),
        }
    }

    /// Sends DISCONNECT (normal) and waits until the server has closed, so that it knows.
    pub fn disconnect(mut self) {
        self.send(&[0xE0, 0]);
        let after = self.closed();
        assert!(!after.iter().any(|p| matches!(p, Packet::Disconnect { .. })), "{}: {after:?}", self.name);
    }

    /// Sends DISCONNECT with a reason code and properties and waits until the server has closed.
    pub fn disconnect_with(mut self, code: u8, list: &[Prop]) {
        let mut body = vec![code];
        body.extend(props(list));
        self.send(&frame(0xE0, body));
        let after = self.closed();
        assert!(!after.iter().any(|p| matches!(p, Packet::Disconnect { .. })), "{}: {after:?}", self.name);
    }

    /// Ends the connection without a DISCONNECT and waits until the server has closed its side, so that it knows.
    pub fn cut(mut self) {
        let _ = self.stream.shutdown(Shutdown::Write);
        let deadline = Instant::now() + PATIENCE;
        while self.read_packet(deadline).is_ok() {}
    }
}
