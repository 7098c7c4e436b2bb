//! Why bytes are not a frame, and why a frame cannot be written.

use crate::mqtt::DecodeError;
use crate::topic::TopicError;

/// Why bytes are not a frame; the text is for the operator and, in `Close`, for the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkError {
    /// A length of 0: there is not even a version byte.
    Empty,
    /// The frame is longer than the receiver takes.
    TooLong {
        /// What its length says, bytes.
        size: u16,
        /// What is allowed, bytes.
        max: u16,
    },
    /// The version byte is not [`VERSION`](super::VERSION).
    BadVersion(u8),
    /// The frame ends in the middle of a field.
    Truncated,
    /// The frame goes on after its last field.
    TrailingBytes,
    /// A number is larger than its field, or written longer than it needs.
    OverlongInteger,
    /// A string is not well-formed UTF-8.
    NotUtf8,
    /// A yes-or-no, or whether a field is there, is neither 0 nor 1.
    BadFlag,
    /// A choice inside a frame is none that there is.
    BadChoice,
    /// A packet identifier is 0 where one is needed.
    ZeroPacketId,
    /// `receive_max` of Hello is 0.
    ZeroReceiveMax,
    /// A field that names something is empty, or has `/`, `+`, `#` or U+0000 in it.
    BadName(&'static str),
    /// A string that MQTT carries has U+0000 in it.
    NulInString(&'static str),
    /// A topic name or filter is not legal.
    BadTopic(TopicError),
    /// Subscription options set a reserved bit or ask for QoS 2.
    BadOptions(u8),
    /// The properties of a Publish are not what MQTT 5 allows there.
    BadProperties(DecodeError),
    /// A Topic Alias, which frames have no use for.
    TopicAlias,
}

impl LinkError {
    /// A short label for counters.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Empty => "frame_empty",
            Self::TooLong { .. } => "frame_max",
            Self::BadVersion(_) => "frame_version",
            Self::Truncated => "frame_truncated",
            Self::TrailingBytes => "frame_trailing_bytes",
            Self::OverlongInteger => "frame_overlong_integer",
            Self::NotUtf8 => "frame_not_utf8",
            Self::BadFlag => "frame_bad_flag",
            Self::BadChoice => "frame_bad_choice",
            Self::ZeroPacketId => "frame_zero_packet_id",
            Self::ZeroReceiveMax => "frame_zero_receive_max",
            Self::BadName(_) => "frame_bad_name",
            Self::NulInString(_) => "frame_nul_in_string",
            Self::BadTopic(_) => "frame_bad_topic",
            Self::BadOptions(_) => "frame_bad_options",
            Self::BadProperties(_) => "frame_bad_properties",
            Self::TopicAlias => "frame_topic_alias",
        }
    }
}

impl From<postcard::Error> for LinkError {
    fn from(error: postcard::Error) -> Self {
        match error {
            postcard::Error::DeserializeUnexpectedEnd => Self::Truncated,
            postcard::Error::DeserializeBadVarint => Self::OverlongInteger,
            postcard::Error::DeserializeBadUtf8 => Self::NotUtf8,
            postcard::Error::DeserializeBadBool | postcard::Error::DeserializeBadOption => Self::BadFlag,
            _ => Self::BadChoice,
        }
    }
}

impl core::fmt::Display for LinkError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Empty => f.write_str("a frame has at least a version byte and a discriminant"),
            Self::TooLong { size, max } => write!(f, "a frame of {size} bytes, at most {max} are allowed"),
            Self::BadVersion(version) => {
                write!(f, "frame version {version} is not supported; use {}", super::VERSION)
            }
            Self::Truncated => f.write_str("the frame ends in the middle of a field"),
            Self::TrailingBytes => f.write_str("the frame goes on after its last field"),
            Self::OverlongInteger => f.write_str("a number is larger than its field, or written longer than it needs"),
            Self::NotUtf8 => f.write_str("a string is not well-formed UTF-8"),
            Self::BadFlag => f.write_str("a flag must be 0 or 1"),
            Self::BadChoice => f.write_str("a choice inside the frame is not known"),
            Self::ZeroPacketId => f.write_str("the packet identifier of this frame must not be 0"),
            Self::ZeroReceiveMax => f.write_str("receive_max must not be 0"),
            Self::BadName(field) => write!(f, "\"{field}\" must have a character, and none of / + # U+0000"),
            Self::NulInString(field) => write!(f, "\"{field}\" contains U+0000"),
            Self::BadTopic(error) => write!(f, "{error}"),
            Self::BadOptions(bits) => {
                write!(f, "subscription options 0x{bits:02X} set a reserved bit or ask for QoS 2")
            }
            Self::BadProperties(error) => write!(f, "{error}"),
            Self::TopicAlias => f.write_str("a frame cannot have a topic alias"),
        }
    }
}

impl core::error::Error for LinkError {}

/// Why a frame cannot be written; what was written before it is untouched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EncodeError {
    /// It has more than 65,535 bytes behind its length.
    TooLong {
        /// Bytes that it would have there.
        size: usize,
    },
    /// The buffer is too small.
    BufferTooSmall {
        /// Bytes that are needed.
        needed: usize,
    },
}

impl core::fmt::Display for EncodeError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::TooLong { size } => {
                write!(f, "the frame has {size} bytes, at most {} can be written", super::SIZE_MAX)
            }
            Self::BufferTooSmall { needed } => write!(f, "the frame needs a buffer of {needed} bytes"),
        }
    }
}

impl core::error::Error for EncodeError {}
