//! Why bytes are not a packet.

use super::{ReasonCode, Version};
use crate::topic::TopicError;

/// Why bytes are not a packet; the text is for the operator and, as reason string, for the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// The packet ends in the middle of a field.
    Truncated,
    /// The packet goes on after its last field.
    TrailingBytes,
    /// A Variable Byte Integer has more than four bytes, or more than it needs.
    OverlongInteger,
    /// The packet is larger than the receiver allows.
    TooLarge {
        /// What its fixed header claims, bytes.
        size: u32,
        /// What is allowed, bytes.
        max: u32,
    },
    /// Packet type 0, or AUTH in 3.1.1.
    UnknownPacketType(u8),
    /// Reserved flags of the fixed header are not as required [MQTT5-2.1.3-1] [MQTT3-2.2.2-2].
    ReservedFlags,
    /// QoS 3 [MQTT5-3.3.1-4] [MQTT3-3.3.1-4].
    BadQoS,
    /// DUP is set on a QoS 0 PUBLISH [MQTT5-3.3.1-2] [MQTT3-3.3.1-2].
    DupWithoutQoS,
    /// A packet identifier is 0 [MQTT5-2.2.1-3] [MQTT3-2.3.1-1].
    ZeroPacketId,
    /// A string is not well-formed UTF-8.
    NotUtf8,
    /// A string contains U+0000.
    NulInString,
    /// The protocol name is not `MQTT`.
    BadProtocolName,
    /// The protocol level is not 4 or 5.
    UnsupportedVersion(u8),
    /// Reserved bits of the CONNECT flags, will flags that contradict each other, or a password without a user name in 3.1.1.
    BadConnectFlags,
    /// A topic name is not legal.
    BadTopic(TopicError),
    /// A PUBLISH names neither a topic nor a topic alias.
    TopicMissing,
    /// A topic filter without a character [MQTT5-4.7.3-1] [MQTT3-4.7.3-1].
    BadFilter,
    /// SUBSCRIBE or UNSUBSCRIBE without a filter [MQTT5-3.8.3-2] [MQTT5-3.10.3-2] [MQTT3-3.8.3-3] [MQTT3-3.10.3-2].
    NoFilters,
    /// Reserved bits of subscription options [MQTT5-3.8.3-5] [MQTT3-3.8.3-4].
    BadSubscriptionOptions,
    /// Subscription options ask for QoS 3 or Retain Handling 3 (section 3.8.3.1) [MQTT3-3.8.3-4].
    SubscriptionOptionOutOfRange,
    /// A property identifier the specification does not know.
    UnknownProperty(u8),
    /// A property that this packet may not carry (section 2.2.2.2).
    PropertyNotAllowed(u8),
    /// A property that may stand only once.
    DuplicateProperty(u8),
    /// A property's value is out of its range.
    PropertyOutOfRange,
    /// A property without which another one, or the packet, makes no sense: the Authentication Method (0x15).
    PropertyMissing(u8),
    /// A reason code that this packet may not carry.
    BadReasonCode(u8),
    /// SUBACK, or UNSUBACK of 5.0, without a reason code.
    NoReasonCodes,
    /// CONNACK says that it refuses and that a session is present [MQTT5-3.2.2-6] [MQTT3-3.2.2-4].
    SessionPresentOnRefusal,
    /// A packet type that only the other side sends (section 2.1.2); see [`super::Packet::check_sender`].
    PacketOfOtherSide(u8),
    /// A property that only the other side may put into this packet; see [`super::Packet::check_sender`].
    PropertyOfOtherSide(u8),
    /// A reason code that only the other side may put into this packet; see [`super::Packet::check_sender`].
    ReasonCodeOfOtherSide(u8),
}

impl DecodeError {
    /// What the peer is told (section 4.13).
    pub const fn reason(&self) -> ReasonCode {
        match self {
            Self::TooLarge { .. } => ReasonCode::PACKET_TOO_LARGE,
            Self::UnsupportedVersion(_) => ReasonCode::UNSUPPORTED_PROTOCOL_VERSION,
            Self::BadTopic(_) => ReasonCode::TOPIC_NAME_INVALID,
            Self::NoFilters
            | Self::TopicMissing
            | Self::SubscriptionOptionOutOfRange
            | Self::DuplicateProperty(_)
            | Self::PropertyOutOfRange
            | Self::PropertyMissing(_)
            | Self::BadReasonCode(_)
            | Self::SessionPresentOnRefusal
            | Self::PacketOfOtherSide(_)
            | Self::PropertyOfOtherSide(_)
            | Self::ReasonCodeOfOtherSide(_) => ReasonCode::PROTOCOL_ERROR,
            _ => ReasonCode::MALFORMED_PACKET,
        }
    }

    /// A short label for counters.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Truncated => "truncated",
            Self::TrailingBytes => "trailing_bytes",
            Self::OverlongInteger => "overlong_integer",
            Self::TooLarge { .. } => "packet_bytes_max",
            Self::UnknownPacketType(_) => "unknown_packet_type",
            Self::ReservedFlags => "reserved_flags",
            Self::BadQoS => "bad_qos",
            Self::DupWithoutQoS => "dup_without_qos",
            Self::ZeroPacketId => "zero_packet_id",
            Self::NotUtf8 => "not_utf8",
            Self::NulInString => "nul_in_string",
            Self::BadProtocolName => "bad_protocol_name",
            Self::UnsupportedVersion(_) => "unsupported_version",
            Self::BadConnectFlags => "bad_connect_flags",
            Self::BadTopic(_) => "bad_topic",
            Self::TopicMissing => "topic_missing",
            Self::BadFilter => "empty_filter",
            Self::NoFilters => "no_filters",
            Self::BadSubscriptionOptions => "bad_subscription_options",
            Self::SubscriptionOptionOutOfRange => "subscription_option_out_of_range",
            Self::UnknownProperty(_) => "unknown_property",
            Self::PropertyNotAllowed(_) => "property_not_allowed",
            Self::DuplicateProperty(_) => "duplicate_property",
            Self::PropertyOutOfRange => "property_out_of_range",
            Self::PropertyMissing(_) => "property_missing",
            Self::BadReasonCode(_) => "bad_reason_code",
            Self::NoReasonCodes => "no_reason_codes",
            Self::SessionPresentOnRefusal => "session_present_on_refusal",
            Self::PacketOfOtherSide(_) => "packet_of_other_side",
            Self::PropertyOfOtherSide(_) => "property_of_other_side",
            Self::ReasonCodeOfOtherSide(_) => "reason_code_of_other_side",
        }
    }

    /// The version in which a CONNACK can still say what was wrong with the CONNECT; `None`: just close.
    ///
    /// The top bit of the level marks a bridge of some brokers; below it is the level that the bridge reads answers in.
    pub const fn connack_version(&self) -> Option<Version> {
        match self {
            Self::UnsupportedVersion(level) if *level & 0x7F >= Version::V5 as u8 => Some(Version::V5),
            Self::UnsupportedVersion(_) => Some(Version::V311),
            _ => None,
        }
    }
}

impl core::fmt::Display for DecodeError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Truncated => f.write_str("the packet ends in the middle of a field"),
            Self::TrailingBytes => f.write_str("the packet goes on after its last field"),
            Self::OverlongInteger => f.write_str("a variable byte integer is longer than it may be"),
            Self::TooLarge { size, max } => write!(f, "a packet of {size} bytes, at most {max} are allowed"),
            Self::UnknownPacketType(kind) => write!(f, "packet type {kind} is not known in this version"),
            Self::ReservedFlags => f.write_str("reserved flags of the fixed header are not as required"),
            Self::BadQoS => f.write_str("QoS must be 0, 1 or 2"),
            Self::DupWithoutQoS => f.write_str("DUP must be 0 when QoS is 0"),
            Self::ZeroPacketId => f.write_str("a packet identifier must not be 0"),
            Self::NotUtf8 => f.write_str("a string is not well-formed UTF-8"),
            Self::NulInString => f.write_str("a string contains U+0000"),
            Self::BadProtocolName => f.write_str("the protocol name is not MQTT"),
            Self::UnsupportedVersion(level) => {
                write!(f, "protocol level {level} is not supported; use 4 (MQTT 3.1.1) or 5 (MQTT 5.0)")
            }
            Self::BadConnectFlags => f.write_str("the connect flags contradict each other or set a reserved bit"),
            Self::BadTopic(error) => write!(f, "{error}"),
            Self::TopicMissing => f.write_str("PUBLISH needs a topic name or a topic alias"),
            Self::BadFilter => f.write_str("a topic filter needs at least one character"),
            Self::NoFilters => f.write_str("at least one topic filter is needed"),
            Self::BadSubscriptionOptions => f.write_str("subscription options set a reserved bit"),
            Self::SubscriptionOptionOutOfRange => {
                f.write_str("subscription options ask for a QoS or a Retain Handling above 2")
            }
            Self::UnknownProperty(id) => write!(f, "property 0x{id:02X} is not known"),
            Self::PropertyNotAllowed(id) => write!(f, "property 0x{id:02X} is not allowed in this packet"),
            Self::DuplicateProperty(id) => write!(f, "property 0x{id:02X} stands more than once"),
            Self::PropertyOutOfRange => f.write_str("a property's value is out of its range"),
            Self::PropertyMissing(id) => write!(f, "property 0x{id:02X} is missing"),
            Self::BadReasonCode(code) => write!(f, "reason code 0x{code:02X} is not allowed in this packet"),
            Self::NoReasonCodes => f.write_str("at least one reason code is needed"),
            Self::SessionPresentOnRefusal => f.write_str("a refused connection cannot have a session present"),
            Self::PacketOfOtherSide(kind) => write!(f, "packet type {kind} is only sent the other way"),
            Self::PropertyOfOtherSide(id) => write!(f, "property 0x{id:02X} of this packet is only sent the other way"),
            Self::ReasonCodeOfOtherSide(code) => {
                write!(f, "reason code 0x{code:02X} of this packet is only sent the other way")
            }
        }
    }
}

impl core::error::Error for DecodeError {}
