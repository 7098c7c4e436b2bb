//! Properties of MQTT 5.0 packets (section 2.2.2).

use super::DecodeError;
use crate::cursor::{Counter, Reader, Sink};
use crate::topic::TopicError;

/// Where a property list stands; each place allows its own set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum PropertyPlace {
    /// CONNECT.
    Connect = 1 << 0,
    /// CONNACK.
    ConnAck = 1 << 1,
    /// PUBLISH.
    Publish = 1 << 2,
    /// The Will of a CONNECT.
    Will = 1 << 3,
    /// PUBACK, PUBREC, PUBREL, PUBCOMP, SUBACK and UNSUBACK.
    Ack = 1 << 4,
    /// SUBSCRIBE.
    Subscribe = 1 << 5,
    /// UNSUBSCRIBE.
    Unsubscribe = 1 << 6,
    /// DISCONNECT.
    Disconnect = 1 << 7,
    /// AUTH.
    Auth = 1 << 8,
}

/// One property.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Property<'a> {
    /// Payload Format Indicator (0x01).
    PayloadFormatIndicator(bool),
    /// Message Expiry Interval (0x02), seconds.
    MessageExpiryInterval(u32),
    /// Content Type (0x03).
    ContentType(&'a str),
    /// Response Topic (0x08).
    ResponseTopic(&'a str),
    /// Correlation Data (0x09).
    CorrelationData(&'a [u8]),
    /// Subscription Identifier (0x0B).
    SubscriptionIdentifier(u32),
    /// Session Expiry Interval (0x11), seconds.
    SessionExpiryInterval(u32),
    /// Assigned Client Identifier (0x12).
    AssignedClientIdentifier(&'a str),
    /// Server Keep Alive (0x13), seconds.
    ServerKeepAlive(u16),
    /// Authentication Method (0x15).
    AuthenticationMethod(&'a str),
    /// Authentication Data (0x16).
    AuthenticationData(&'a [u8]),
    /// Request Problem Information (0x17).
    RequestProblemInformation(bool),
    /// Will Delay Interval (0x18), seconds.
    WillDelayInterval(u32),
    /// Request Response Information (0x19).
    RequestResponseInformation(bool),
    /// Response Information (0x1A).
    ResponseInformation(&'a str),
    /// Server Reference (0x1C).
    ServerReference(&'a str),
    /// Reason String (0x1F).
    ReasonString(&'a str),
    /// Receive Maximum (0x21).
    ReceiveMaximum(u16),
    /// Topic Alias Maximum (0x22).
    TopicAliasMaximum(u16),
    /// Topic Alias (0x23).
    TopicAlias(u16),
    /// Maximum QoS (0x24).
    MaximumQoS(bool),
    /// Retain Available (0x25).
    RetainAvailable(bool),
    /// User Property (0x26).
    UserProperty(&'a str, &'a str),
    /// Maximum Packet Size (0x27), bytes.
    MaximumPacketSize(u32),
    /// Wildcard Subscription Available (0x28).
    WildcardSubscriptionAvailable(bool),
    /// Subscription Identifier Available (0x29).
    SubscriptionIdentifierAvailable(bool),
    /// Shared Subscription Available (0x2A).
    SharedSubscriptionAvailable(bool),
}

/// How the value of a property is written (table 2-4), and which values it may have.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// One byte, 0 or 1.
    Flag,
    Two,
    TwoNotZero,
    Four,
    FourNotZero,
    VarintNotZero,
    Text,
    /// A text that is a topic name.
    Topic,
    Binary,
    /// Two texts.
    Pair,
}

/// The places that allow a property, as bits of [`PropertyPlace`], and its form; no place for an unknown identifier.
const RULES: [(u16, Form); 0x2B] = {
    let mut rules = [(0, Form::Flag); 0x2B];
    let mut id = 0;
    while id < rules.len() {
        rules[id] = rule(id);
        id += 1;
    }
    rules
};

const fn rule(id: usize) -> (u16, Form) {
    const CONNECT: u16 = PropertyPlace::Connect as u16;
    const CONNACK: u16 = PropertyPlace::ConnAck as u16;
    const PUBLISH: u16 = PropertyPlace::Publish as u16;
    const WILL: u16 = PropertyPlace::Will as u16;
    const ACK: u16 = PropertyPlace::Ack as u16;
    const SUBSCRIBE: u16 = PropertyPlace::Subscribe as u16;
    const UNSUBSCRIBE: u16 = PropertyPlace::Unsubscribe as u16;
    const DISCONNECT: u16 = PropertyPlace::Disconnect as u16;
    const AUTH: u16 = PropertyPlace::Auth as u16;
    match id {
        0x01 => (PUBLISH | WILL, Form::Flag),
        0x02 => (PUBLISH | WILL, Form::Four),
        0x03 => (PUBLISH | WILL, Form::Text),
        0x08 => (PUBLISH | WILL, Form::Topic),
        0x09 => (PUBLISH | WILL, Form::Binary),
        0x0B => (PUBLISH | SUBSCRIBE, Form::VarintNotZero),
        0x11 => (CONNECT | CONNACK | DISCONNECT, Form::Four),
        0x12 => (CONNACK, Form::Text),
        0x13 => (CONNACK, Form::Two),
        0x15 => (CONNECT | CONNACK | AUTH, Form::Text),
        0x16 => (CONNECT | CONNACK | AUTH, Form::Binary),
        0x17 => (CONNECT, Form::Flag),
        0x18 => (WILL, Form::Four),
        0x19 => (CONNECT, Form::Flag),
        0x1A => (CONNACK, Form::Text),
        0x1C => (CONNACK | DISCONNECT, Form::Text),
        0x1F => (CONNACK | ACK | DISCONNECT | AUTH, Form::Text),
        0x21 => (CONNECT | CONNACK, Form::TwoNotZero),
        0x22 => (CONNECT | CONNACK, Form::Two),
        0x23 => (PUBLISH, Form::TwoNotZero),
        0x24 => (CONNACK, Form::Flag),
        0x25 => (CONNACK, Form::Flag),
        0x26 => {
            let all = CONNECT | CONNACK | PUBLISH | WILL | ACK | SUBSCRIBE | UNSUBSCRIBE | DISCONNECT | AUTH;
            (all, Form::Pair)
        }
        0x27 => (CONNECT | CONNACK, Form::FourNotZero),
        0x28 => (CONNACK, Form::Flag),
        0x29 => (CONNACK, Form::Flag),
        0x2A => (CONNACK, Form::Flag),
        _ => (0, Form::Flag),
    }
}

impl Form {
    /// Reads a value and refuses what it may not be.
    #[inline]
    fn check(self, r: &mut Reader<'_>) -> Result<(), DecodeError> {
        let legal = match self {
            Self::Flag => r.flag().map(|_| true)?,
            Self::Two => r.u16().map(|_| true)?,
            Self::TwoNotZero => r.u16()? != 0,
            Self::Four => r.u32().map(|_| true)?,
            Self::FourNotZero => r.u32()? != 0,
            Self::VarintNotZero => r.varint()? != 0,
            // Content Type among them [MQTT5-3.3.2-19].
            Self::Text => r.string().map(|_| true)?,
            // The Response Topic [MQTT5-3.3.2-13].
            Self::Topic => {
                if r.topic_name()?.is_empty() {
                    return Err(DecodeError::BadTopic(TopicError::Empty));
                }
                true
            }
            Self::Binary => r.binary().map(|_| true)?,
            Self::Pair => {
                r.string()?;
                r.string().map(|_| true)? // [MQTT5-1.5.7-1]
            }
        };
        if legal { Ok(()) } else { Err(DecodeError::PropertyOutOfRange) }
    }

    /// Passes over a value that was checked before.
    #[inline]
    fn skip(self, r: &mut Reader<'_>) -> Result<(), DecodeError> {
        match self {
            Self::Flag => r.take(1).map(drop),
            Self::Two | Self::TwoNotZero => r.take(2).map(drop),
            Self::Four | Self::FourNotZero => r.take(4).map(drop),
            Self::VarintNotZero => r.varint().map(drop),
            Self::Text | Self::Topic | Self::Binary => r.binary().map(drop),
            Self::Pair => r.binary().and_then(|_| r.binary()).map(drop),
        }
    }
}

impl<'a> Property<'a> {
    /// Its identifier.
    pub const fn id(&self) -> u8 {
        match self {
            Self::PayloadFormatIndicator(..) => 0x01,
            Self::MessageExpiryInterval(..) => 0x02,
            Self::ContentType(..) => 0x03,
            Self::ResponseTopic(..) => 0x08,
            Self::CorrelationData(..) => 0x09,
            Self::SubscriptionIdentifier(..) => 0x0B,
            Self::SessionExpiryInterval(..) => 0x11,
            Self::AssignedClientIdentifier(..) => 0x12,
            Self::ServerKeepAlive(..) => 0x13,
            Self::AuthenticationMethod(..) => 0x15,
            Self::AuthenticationData(..) => 0x16,
            Self::RequestProblemInformation(..) => 0x17,
            Self::WillDelayInterval(..) => 0x18,
            Self::RequestResponseInformation(..) => 0x19,
            Self::ResponseInformation(..) => 0x1A,
            Self::ServerReference(..) => 0x1C,
            Self::ReasonString(..) => 0x1F,
            Self::ReceiveMaximum(..) => 0x21,
            Self::TopicAliasMaximum(..) => 0x22,
            Self::TopicAlias(..) => 0x23,
            Self::MaximumQoS(..) => 0x24,
            Self::RetainAvailable(..) => 0x25,
            Self::UserProperty(..) => 0x26,
            Self::MaximumPacketSize(..) => 0x27,
            Self::WildcardSubscriptionAvailable(..) => 0x28,
            Self::SubscriptionIdentifierAvailable(..) => 0x29,
            Self::SharedSubscriptionAvailable(..) => 0x2A,
        }
    }

    /// Appends identifier and value.
    pub fn encode(&self, out: &mut impl Sink) {
        out.put_u8(self.id());
        match *self {
            Self::PayloadFormatIndicator(value)
            | Self::RequestProblemInformation(value)
            | Self::RequestResponseInformation(value)
            | Self::MaximumQoS(value)
            | Self::RetainAvailable(value)
            | Self::WildcardSubscriptionAvailable(value)
            | Self::SubscriptionIdentifierAvailable(value)
            | Self::SharedSubscriptionAvailable(value) => out.put_u8(u8::from(value)),
            Self::MessageExpiryInterval(value)
            | Self::SessionExpiryInterval(value)
            | Self::WillDelayInterval(value)
            | Self::MaximumPacketSize(value) => out.put_u32(value),
            Self::ContentType(value)
            | Self::ResponseTopic(value)
            | Self::AssignedClientIdentifier(value)
            | Self::AuthenticationMethod(value)
            | Self::ResponseInformation(value)
            | Self::ServerReference(value)
            | Self::ReasonString(value) => out.put_prefixed(value.as_bytes()),
            Self::CorrelationData(value) | Self::AuthenticationData(value) => out.put_prefixed(value),
            Self::SubscriptionIdentifier(value) => out.put_varint(value),
            Self::ServerKeepAlive(value)
            | Self::ReceiveMaximum(value)
            | Self::TopicAliasMaximum(value)
            | Self::TopicAlias(value) => out.put_u16(value),
            Self::UserProperty(name, value) => {
                out.put_prefixed(name.as_bytes());
                out.put_prefixed(value.as_bytes());
            }
        }
    }

    /// Bytes that [`Property::encode`] writes.
    pub fn encoded_len(&self) -> usize {
        let mut counter = Counter::default();
        self.encode(&mut counter);
        counter.0
    }

    /// Reads one property of a list that was checked before.
    fn read(r: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(match r.u8()? {
            0x01 => Self::PayloadFormatIndicator(r.flag()?),
            0x02 => Self::MessageExpiryInterval(r.u32()?),
            0x03 => Self::ContentType(r.string()?),
            0x08 => Self::ResponseTopic(r.string()?),
            0x09 => Self::CorrelationData(r.binary()?),
            0x0B => Self::SubscriptionIdentifier(r.varint()?),
            0x11 => Self::SessionExpiryInterval(r.u32()?),
            0x12 => Self::AssignedClientIdentifier(r.string()?),
            0x13 => Self::ServerKeepAlive(r.u16()?),
            0x15 => Self::AuthenticationMethod(r.string()?),
            0x16 => Self::AuthenticationData(r.binary()?),
            0x17 => Self::RequestProblemInformation(r.flag()?),
            0x18 => Self::WillDelayInterval(r.u32()?),
            0x19 => Self::RequestResponseInformation(r.flag()?),
            0x1A => Self::ResponseInformation(r.string()?),
            0x1C => Self::ServerReference(r.string()?),
            0x1F => Self::ReasonString(r.string()?),
            0x21 => Self::ReceiveMaximum(r.u16()?),
            0x22 => Self::TopicAliasMaximum(r.u16()?),
            0x23 => Self::TopicAlias(r.u16()?),
            0x24 => Self::MaximumQoS(r.flag()?),
            0x25 => Self::RetainAvailable(r.flag()?),
            0x26 => Self::UserProperty(r.string()?, r.string()?),
            0x27 => Self::MaximumPacketSize(r.u32()?),
            0x28 => Self::WildcardSubscriptionAvailable(r.flag()?),
            0x29 => Self::SubscriptionIdentifierAvailable(r.flag()?),
            0x2A => Self::SharedSubscriptionAvailable(r.flag()?),
            id => return Err(DecodeError::UnknownProperty(id)),
        })
    }
}

/// A property list that was checked when it was read: borrowed bytes without their length prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Properties<'a> {
    raw: &'a [u8],
}

impl<'a> Properties<'a> {
    /// No properties.
    pub const EMPTY: Properties<'static> = Properties { raw: &[] };

    /// Bytes that [`Property::encode`] wrote, or that were checked before.
    #[inline]
    pub const fn from_validated(raw: &'a [u8]) -> Self {
        Self { raw }
    }

    /// Checks bytes without their length prefix: every identifier known and allowed at `place` (section 2.2.2.2), none
    /// twice that may stand once, every value in range, a Response Topic that is a topic name [MQTT5-3.3.2-14], and
    /// Authentication Data only with an Authentication Method (sections 3.1.2.11.10 and 3.2.2.3.18).
    pub fn parse(raw: &'a [u8], place: PropertyPlace) -> Result<Self, DecodeError> {
        Self::parse_seen(raw, place).map(|(properties, _)| properties)
    }

    /// Like [`Properties::parse`]; also says with a bit for each identifier which there are.
    pub(super) fn parse_seen(raw: &'a [u8], place: PropertyPlace) -> Result<(Self, u64), DecodeError> {
        let mut r = Reader::new(raw);
        let mut seen = 0u64;
        while !r.is_empty() {
            // Identifiers are Variable Byte Integers, but all of them have one byte.
            let id = r.u8()?;
            let (allowed, form) = RULES.get(usize::from(id)).copied().unwrap_or((0, Form::Flag));
            if allowed & place as u16 == 0 {
                let unknown = allowed == 0;
                return Err(if unknown {
                    DecodeError::UnknownProperty(id)
                } else {
                    DecodeError::PropertyNotAllowed(id)
                });
            }
            let bit = 1 << id;
            if seen & bit != 0 && form != Form::Pair && !(id == 0x0B && matches!(place, PropertyPlace::Publish)) {
                return Err(DecodeError::DuplicateProperty(id));
            }
            seen |= bit;
            form.check(&mut r)?;
        }
        let names_method = seen & 1 << 0x15 != 0;
        let needs_method = seen & 1 << 0x16 != 0 || (matches!(place, PropertyPlace::Auth) && seen != 0);
        if needs_method && !names_method { Err(DecodeError::PropertyMissing(0x15)) } else { Ok((Self { raw }, seen)) }
    }

    /// True when there are none.
    #[inline]
    pub const fn is_empty(&self) -> bool {
        self.raw.is_empty()
    }

    /// The bytes, without a length prefix.
    #[inline]
    pub const fn as_bytes(&self) -> &'a [u8] {
        self.raw
    }

    /// The properties in their order.
    pub fn iter(&self) -> impl Iterator<Item = Property<'a>> + use<'a> {
        let mut r = Reader::new(self.raw);
        core::iter::from_fn(move || if r.is_empty() { None } else { Property::read(&mut r).ok() })
    }

    /// Stands before the value of the first property with this identifier; what is in front of it is not looked into.
    #[inline]
    fn find(&self, id: u8) -> Option<Reader<'a>> {
        let mut r = Reader::new(self.raw);
        loop {
            let found = r.u8().ok()?;
            if found == id {
                return Some(r);
            }
            RULES.get(usize::from(found))?.1.skip(&mut r).ok()?;
        }
    }
}

/// One accessor for each property: its identifier, how its value is read, its type.
macro_rules! accessors {
    ($($(#[$doc:meta])* $name:ident: $id:literal $read:ident -> $type:ty;)*) => {
        impl<'a> Properties<'a> {
            $($(#[$doc])* #[inline] pub fn $name(&self) -> Option<$type> {
                self.find($id)?.$read().ok()
            })*
        }
    };
}

accessors! {
    /// The Payload Format Indicator, if there is one.
    payload_format_indicator: 0x01 flag -> bool;
    /// The Message Expiry Interval, seconds, if there is one.
    message_expiry_secs: 0x02 u32 -> u32;
    /// The Content Type, if there is one.
    content_type: 0x03 string -> &'a str;
    /// The Response Topic, if there is one.
    response_topic: 0x08 string -> &'a str;
    /// The Correlation Data, if there is one.
    correlation_data: 0x09 binary -> &'a [u8];
    /// The Subscription Identifier, if there is one.
    subscription_identifier: 0x0B varint -> u32;
    /// The Session Expiry Interval, seconds, if there is one.
    session_expiry_interval_secs: 0x11 u32 -> u32;
    /// The Assigned Client Identifier, if there is one.
    assigned_client_identifier: 0x12 string -> &'a str;
    /// The Server Keep Alive, seconds, if there is one.
    server_keep_alive_secs: 0x13 u16 -> u16;
    /// The Authentication Method, if there is one.
    authentication_method: 0x15 string -> &'a str;
    /// The Authentication Data, if there is one.
    authentication_data: 0x16 binary -> &'a [u8];
    /// The Request Problem Information, if there is one.
    request_problem_information: 0x17 flag -> bool;
    /// The Will Delay Interval, seconds, if there is one.
    will_delay_interval_secs: 0x18 u32 -> u32;
    /// The Request Response Information, if there is one.
    request_response_information: 0x19 flag -> bool;
    /// The Response Information, if there is one.
    response_information: 0x1A string -> &'a str;
    /// The Server Reference, if there is one.
    server_reference: 0x1C string -> &'a str;
    /// The Reason String, if there is one.
    reason_string: 0x1F string -> &'a str;
    /// The Receive Maximum, if there is one.
    receive_maximum: 0x21 u16 -> u16;
    /// The Topic Alias Maximum, if there is one.
    topic_alias_maximum: 0x22 u16 -> u16;
    /// The Topic Alias, if there is one.
    topic_alias: 0x23 u16 -> u16;
    /// The Maximum QoS, if there is one.
    maximum_qos: 0x24 flag -> bool;
    /// The Retain Available, if there is one.
    retain_available: 0x25 flag -> bool;
    /// The Maximum Packet Size, bytes, if there is one.
    maximum_packet_size: 0x27 u32 -> u32;
    /// The Wildcard Subscription Available, if there is one.
    wildcard_subscription_available: 0x28 flag -> bool;
    /// The Subscription Identifier Available, if there is one.
    subscription_identifier_available: 0x29 flag -> bool;
    /// The Shared Subscription Available, if there is one.
    shared_subscription_available: 0x2A flag -> bool;
}
