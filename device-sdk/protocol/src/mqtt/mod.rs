//! MQTT 3.1.1 and 5.0 control packets, one set of types for both versions.
//!
//! A decoded [`Packet`] borrows from the bytes it was read from. Sources: OASIS MQTT Version 3.1.1
//! (`[MQTT3-…]`) and OASIS MQTT Version 5.0 (`[MQTT5-…]`).

mod decode;
mod encode;
mod error;
mod property;
mod reason;
mod sender;
mod subscribe;

pub use decode::{connect_version, decode, frame_len};
pub use encode::{BufferTooSmall, encode_to_slice};
pub use error::DecodeError;
pub use property::{Properties, Property, PropertyPlace};
pub use reason::ReasonCode;
pub use sender::Sender;
pub use subscribe::{RetainHandling, SubscribeFilters, SubscriptionOptions, UnsubscribeFilters};

use core::num::NonZeroU16;

/// The protocol version of a connection (protocol level 4 or 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Version {
    /// MQTT 3.1.1.
    V311 = 4,
    /// MQTT 5.0.
    V5 = 5,
}

impl Version {
    /// From the protocol level of CONNECT.
    pub const fn from_level(level: u8) -> Option<Self> {
        match level {
            4 => Some(Self::V311),
            5 => Some(Self::V5),
            _ => None,
        }
    }
}

/// Quality of Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum QoS {
    /// QoS 0.
    AtMostOnce = 0,
    /// QoS 1.
    AtLeastOnce = 1,
    /// QoS 2.
    ExactlyOnce = 2,
}

impl QoS {
    /// `None` for 3 and above.
    #[inline]
    pub const fn from_bits(bits: u8) -> Option<Self> {
        match bits {
            0 => Some(Self::AtMostOnce),
            1 => Some(Self::AtLeastOnce),
            2 => Some(Self::ExactlyOnce),
            _ => None,
        }
    }
}

/// A packet identifier: never zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PacketId(NonZeroU16);

impl PacketId {
    /// `None` for 0 [MQTT5-2.2.1-3].
    #[inline]
    pub const fn new(value: u16) -> Option<Self> {
        match NonZeroU16::new(value) {
            Some(value) => Some(Self(value)),
            None => None,
        }
    }

    /// The number on the wire, 1..=65535.
    #[inline]
    pub const fn value(self) -> u16 {
        self.0.get()
    }
}

/// One control packet. See the variants' types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packet<'a> {
    /// CONNECT.
    Connect(Connect<'a>),
    /// CONNACK.
    ConnAck(ConnAck<'a>),
    /// PUBLISH.
    Publish(Publish<'a>),
    /// PUBACK.
    PubAck(Ack<'a>),
    /// PUBREC.
    PubRec(Ack<'a>),
    /// PUBREL.
    PubRel(Ack<'a>),
    /// PUBCOMP.
    PubComp(Ack<'a>),
    /// SUBSCRIBE.
    Subscribe(Subscribe<'a>),
    /// SUBACK.
    SubAck(SubAck<'a>),
    /// UNSUBSCRIBE.
    Unsubscribe(Unsubscribe<'a>),
    /// UNSUBACK.
    UnsubAck(UnsubAck<'a>),
    /// PINGREQ.
    PingReq,
    /// PINGRESP.
    PingResp,
    /// DISCONNECT.
    Disconnect(Disconnect<'a>),
    /// AUTH.
    Auth(Auth<'a>),
}

/// CONNECT
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connect<'a> {
    /// Protocol version.
    pub version: Version,
    /// Clean Session (3.1.1) or Clean Start (5.0).
    pub clean_start: bool,
    /// Keep Alive, seconds; 0: none.
    pub keep_alive_secs: u16,
    /// Properties; always empty in 3.1.1.
    pub properties: Properties<'a>,
    /// Client Identifier; empty: the server invents one.
    pub client_id: &'a str,
    /// Will, if there is one.
    pub will: Option<Will<'a>>,
    /// User Name.
    pub username: Option<&'a str>,
    /// Password.
    pub password: Option<&'a [u8]>,
}

/// The Will of a CONNECT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Will<'a> {
    /// QoS.
    pub qos: QoS,
    /// RETAIN flag.
    pub retain: bool,
    /// Properties; always empty in 3.1.1.
    pub properties: Properties<'a>,
    /// Topic name.
    pub topic: &'a str,
    /// Application message.
    pub payload: &'a [u8],
}

/// CONNACK. For a 3.1.1 peer the reason code is mapped to a return code 0..=5 when encoded, and back when decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnAck<'a> {
    /// Session Present.
    pub session_present: bool,
    /// Reason code.
    pub reason: ReasonCode,
    /// Properties; always empty in 3.1.1.
    pub properties: Properties<'a>,
}

/// PUBLISH
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Publish<'a> {
    /// DUP flag.
    pub dup: bool,
    /// QoS.
    pub qos: QoS,
    /// RETAIN flag.
    pub retain: bool,
    /// Empty only when a Topic Alias property names the topic (5.0).
    pub topic: &'a str,
    /// `Some` exactly when `qos` is 1 or 2.
    pub packet_id: Option<PacketId>,
    /// Properties; always empty in 3.1.1.
    pub properties: Properties<'a>,
    /// Application message.
    pub payload: &'a [u8],
}

/// PUBACK, PUBREC, PUBREL and PUBCOMP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack<'a> {
    /// Packet identifier.
    pub packet_id: PacketId,
    /// Reason code.
    pub reason: ReasonCode,
    /// Properties; always empty in 3.1.1.
    pub properties: Properties<'a>,
}

/// SUBSCRIBE; `filters` is validated when decoded: at least one, each well-formed UTF-8 and options legal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subscribe<'a> {
    /// Packet identifier.
    pub packet_id: PacketId,
    /// Properties; always empty in 3.1.1.
    pub properties: Properties<'a>,
    /// Topic filters.
    pub filters: SubscribeFilters<'a>,
}

/// SUBACK; for 3.1.1 the codes are 0,1,2 or 0x80.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubAck<'a> {
    /// Packet identifier.
    pub packet_id: PacketId,
    /// Properties; always empty in 3.1.1.
    pub properties: Properties<'a>,
    /// One reason code a filter, in order.
    pub reasons: &'a [u8],
}

/// UNSUBSCRIBE
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unsubscribe<'a> {
    /// Packet identifier.
    pub packet_id: PacketId,
    /// Properties; always empty in 3.1.1.
    pub properties: Properties<'a>,
    /// Topic filters.
    pub filters: UnsubscribeFilters<'a>,
}

/// UNSUBACK; 3.1.1 carries no codes (`reasons` is not written).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnsubAck<'a> {
    /// Packet identifier.
    pub packet_id: PacketId,
    /// Properties; always empty in 3.1.1.
    pub properties: Properties<'a>,
    /// One reason code a filter, in order.
    pub reasons: &'a [u8],
}

/// DISCONNECT
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disconnect<'a> {
    /// Reason code.
    pub reason: ReasonCode,
    /// Properties; always empty in 3.1.1.
    pub properties: Properties<'a>,
}

/// AUTH (5.0)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Auth<'a> {
    /// Reason code.
    pub reason: ReasonCode,
    /// Properties; always empty in 3.1.1.
    pub properties: Properties<'a>,
}
