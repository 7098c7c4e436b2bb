//! Properties of MQTT 5.0 packets (section 2.2.2).

use super::DecodeError;
use crate::cursor::{Counter, Reader, Sink};
use crate::topic;

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

/// The places that allow a property, as bits of [`PropertyPlace`]; 0 for an unknown identifier.
const fn places(id: u8) -> u16 {
    match id {
        0x01 => PropertyPlace::Publish as u16 | PropertyPlace::Will as u16,
        0x02 => PropertyPlace::Publish as u16 | PropertyPlace::Will as u16,
        0x03 => PropertyPlace::Publish as u16 | PropertyPlace::Will as u16,
        0x08 => PropertyPlace::Publish as u16 | PropertyPlace::Will as u16,
        0x09 => PropertyPlace::Publish as u16 | PropertyPlace::Will as u16,
        0x0B => PropertyPlace::Publish as u16 | PropertyPlace::Subscribe as u16,
        0x11 => PropertyPlace::Connect as u16 | PropertyPlace::ConnAck as u16 | PropertyPlace::Disconnect as u16,
        0x12 => PropertyPlace::ConnAck as u16,
        0x13 => PropertyPlace::ConnAck as u16,
        0x15 => PropertyPlace::Connect as u16 | PropertyPlace::ConnAck as u16 | PropertyPlace::Auth as u16,
        0x16 => PropertyPlace::Connect as u16 | PropertyPlace::ConnAck as u16 | PropertyPlace::Auth as u16,
        0x17 => PropertyPlace::Connect as u16,
        0x18 => PropertyPlace::Will as u16,
        0x19 => PropertyPlace::Connect as u16,
        0x1A => PropertyPlace::ConnAck as u16,
        0x1C => PropertyPlace::ConnAck as u16 | PropertyPlace::Disconnect as u16,
        0x1F => {
            PropertyPlace::ConnAck as u16
                | PropertyPlace::Ack as u16
                | PropertyPlace::Disconnect as u16
                | PropertyPlace::Auth as u16
        }
        0x21 => PropertyPlace::Connect as u16 | PropertyPlace::ConnAck as u16,
        0x22 => PropertyPlace::Connect as u16 | PropertyPlace::ConnAck as u16,
        0x23 => PropertyPlace::Publish as u16,
        0x24 => PropertyPlace::ConnAck as u16,
        0x25 => PropertyPlace::ConnAck as u16,
        0x26 => 0x1FF,
        0x27 => PropertyPlace::Connect as u16 | PropertyPlace::ConnAck as u16,
        0x28 => PropertyPlace::ConnAck as u16,
        0x29 => PropertyPlace::ConnAck as u16,
        0x2A => PropertyPlace::ConnAck as u16,
        _ => 0,
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

    fn read(r: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(match r.u8()? {
            0x01 => Self::PayloadFormatIndicator(read_flag(r)?),
            0x02 => Self::MessageExpiryInterval(r.u32()?),
            0x03 => Self::ContentType(r.string()?),
            0x08 => Self::ResponseTopic(r.string()?),
            0x09 => Self::CorrelationData(r.binary()?),
            0x0B => Self::SubscriptionIdentifier(not_zero(r.varint()?)?),
            0x11 => Self::SessionExpiryInterval(r.u32()?),
            0x12 => Self::AssignedClientIdentifier(r.string()?),
            0x13 => Self::ServerKeepAlive(r.u16()?),
            0x15 => Self::AuthenticationMethod(r.string()?),
            0x16 => Self::AuthenticationData(r.binary()?),
            0x17 => Self::RequestProblemInformation(read_flag(r)?),
            0x18 => Self::WillDelayInterval(r.u32()?),
            0x19 => Self::RequestResponseInformation(read_flag(r)?),
            0x1A => Self::ResponseInformation(r.string()?),
            0x1C => Self::ServerReference(r.string()?),
            0x1F => Self::ReasonString(r.string()?),
            0x21 => Self::ReceiveMaximum(not_zero(r.u16()?)?),
            0x22 => Self::TopicAliasMaximum(r.u16()?),
            0x23 => Self::TopicAlias(not_zero(r.u16()?)?),
            0x24 => Self::MaximumQoS(read_flag(r)?),
            0x25 => Self::RetainAvailable(read_flag(r)?),
            0x26 => Self::UserProperty(r.string()?, r.string()?),
            0x27 => Self::MaximumPacketSize(not_zero(r.u32()?)?),
            0x28 => Self::WildcardSubscriptionAvailable(read_flag(r)?),
            0x29 => Self::SubscriptionIdentifierAvailable(read_flag(r)?),
            0x2A => Self::SharedSubscriptionAvailable(read_flag(r)?),
            id => return Err(DecodeError::UnknownProperty(id)),
        })
    }
}

fn read_flag(r: &mut Reader<'_>) -> Result<bool, DecodeError> {
    match r.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(DecodeError::PropertyOutOfRange),
    }
}

fn not_zero<T: Default + PartialEq>(value: T) -> Result<T, DecodeError> {
    if value == T::default() { Err(DecodeError::PropertyOutOfRange) } else { Ok(value) }
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
        let mut r = Reader::new(raw);
        let mut seen = 0u64;
        while let Some(&id) = r.rest().first() {
            let allowed = places(id);
            if allowed == 0 {
                return Err(DecodeError::UnknownProperty(id));
            }
            if allowed & place as u16 == 0 {
                return Err(DecodeError::PropertyNotAllowed(id));
            }
            let may_repeat = id == 0x26 || (id == 0x0B && matches!(place, PropertyPlace::Publish));
            if seen & 1 << id != 0 && !may_repeat {
                return Err(DecodeError::DuplicateProperty(id));
            }
            seen |= 1 << id;
            if let Property::ResponseTopic(response) = Property::read(&mut r)? {
                topic::check_name(response).map_err(DecodeError::BadTopic)?;
            }
        }
        let names_method = seen & 1 << 0x15 != 0;
        let needs_method = seen & 1 << 0x16 != 0 || (matches!(place, PropertyPlace::Auth) && seen != 0);
        if needs_method && !names_method { Err(DecodeError::PropertyMissing(0x15)) } else { Ok(Self { raw }) }
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

    /// The Payload Format Indicator, if there is one.
    pub fn payload_format_indicator(&self) -> Option<bool> {
        self.iter().find_map(|p| if let Property::PayloadFormatIndicator(value) = p { Some(value) } else { None })
    }

    /// The Message Expiry Interval, seconds, if there is one.
    pub fn message_expiry_secs(&self) -> Option<u32> {
        self.iter().find_map(|p| if let Property::MessageExpiryInterval(value) = p { Some(value) } else { None })
    }

    /// The Content Type, if there is one.
    pub fn content_type(&self) -> Option<&'a str> {
        self.iter().find_map(|p| if let Property::ContentType(value) = p { Some(value) } else { None })
    }

    /// The Response Topic, if there is one.
    pub fn response_topic(&self) -> Option<&'a str> {
        self.iter().find_map(|p| if let Property::ResponseTopic(value) = p { Some(value) } else { None })
    }

    /// The Correlation Data, if there is one.
    pub fn correlation_data(&self) -> Option<&'a [u8]> {
        self.iter().find_map(|p| if let Property::CorrelationData(value) = p { Some(value) } else { None })
    }

    /// The Subscription Identifier, if there is one.
    pub fn subscription_identifier(&self) -> Option<u32> {
        self.iter().find_map(|p| if let Property::SubscriptionIdentifier(value) = p { Some(value) } else { None })
    }

    /// The Session Expiry Interval, seconds, if there is one.
    pub fn session_expiry_interval_secs(&self) -> Option<u32> {
        self.iter().find_map(|p| if let Property::SessionExpiryInterval(value) = p { Some(value) } else { None })
    }

    /// The Assigned Client Identifier, if there is one.
    pub fn assigned_client_identifier(&self) -> Option<&'a str> {
        self.iter().find_map(|p| if let Property::AssignedClientIdentifier(value) = p { Some(value) } else { None })
    }

    /// The Server Keep Alive, seconds, if there is one.
    pub fn server_keep_alive_secs(&self) -> Option<u16> {
        self.iter().find_map(|p| if let Property::ServerKeepAlive(value) = p { Some(value) } else { None })
    }

    /// The Authentication Method, if there is one.
    pub fn authentication_method(&self) -> Option<&'a str> {
        self.iter().find_map(|p| if let Property::AuthenticationMethod(value) = p { Some(value) } else { None })
    }

    /// The Authentication Data, if there is one.
    pub fn authentication_data(&self) -> Option<&'a [u8]> {
        self.iter().find_map(|p| if let Property::AuthenticationData(value) = p { Some(value) } else { None })
    }

    /// The Request Problem Information, if there is one.
    pub fn request_problem_information(&self) -> Option<bool> {
        self.iter().find_map(|p| if let Property::RequestProblemInformation(value) = p { Some(value) } else { None })
    }

    /// The Will Delay Interval, seconds, if there is one.
    pub fn will_delay_interval_secs(&self) -> Option<u32> {
        self.iter().find_map(|p| if let Property::WillDelayInterval(value) = p { Some(value) } else { None })
    }

    /// The Request Response Information, if there is one.
    pub fn request_response_information(&self) -> Option<bool> {
        self.iter().find_map(|p| if let Property::RequestResponseInformation(value) = p { Some(value) } else { None })
    }

    /// The Response Information, if there is one.
    pub fn response_information(&self) -> Option<&'a str> {
        self.iter().find_map(|p| if let Property::ResponseInformation(value) = p { Some(value) } else { None })
    }

    /// The Server Reference, if there is one.
    pub fn server_reference(&self) -> Option<&'a str> {
        self.iter().find_map(|p| if let Property::ServerReference(value) = p { Some(value) } else { None })
    }

    /// The Reason String, if there is one.
    pub fn reason_string(&self) -> Option<&'a str> {
        self.iter().find_map(|p| if let Property::ReasonString(value) = p { Some(value) } else { None })
    }

    /// The Receive Maximum, if there is one.
    pub fn receive_maximum(&self) -> Option<u16> {
        self.iter().find_map(|p| if let Property::ReceiveMaximum(value) = p { Some(value) } else { None })
    }

    /// The Topic Alias Maximum, if there is one.
    pub fn topic_alias_maximum(&self) -> Option<u16> {
        self.iter().find_map(|p| if let Property::TopicAliasMaximum(value) = p { Some(value) } else { None })
    }

    /// The Topic Alias, if there is one.
    pub fn topic_alias(&self) -> Option<u16> {
        self.iter().find_map(|p| if let Property::TopicAlias(value) = p { Some(value) } else { None })
    }

    /// The Maximum QoS, if there is one.
    pub fn maximum_qos(&self) -> Option<bool> {
        self.iter().find_map(|p| if let Property::MaximumQoS(value) = p { Some(value) } else { None })
    }

    /// The Retain Available, if there is one.
    pub fn retain_available(&self) -> Option<bool> {
        self.iter().find_map(|p| if let Property::RetainAvailable(value) = p { Some(value) } else { None })
    }

    /// The Maximum Packet Size, bytes, if there is one.
    pub fn maximum_packet_size(&self) -> Option<u32> {
        self.iter().find_map(|p| if let Property::MaximumPacketSize(value) = p { Some(value) } else { None })
    }

    /// The Wildcard Subscription Available, if there is one.
    pub fn wildcard_subscription_available(&self) -> Option<bool> {
        self.iter()
            .find_map(|p| if let Property::WildcardSubscriptionAvailable(value) = p { Some(value) } else { None })
    }

    /// The Subscription Identifier Available, if there is one.
    pub fn subscription_identifier_available(&self) -> Option<bool> {
        self.iter()
            .find_map(|p| if let Property::SubscriptionIdentifierAvailable(value) = p { Some(value) } else { None })
    }

    /// The Shared Subscription Available, if there is one.
    pub fn shared_subscription_available(&self) -> Option<bool> {
        self.iter().find_map(|p| if let Property::SharedSubscriptionAvailable(value) = p { Some(value) } else { None })
    }
}
