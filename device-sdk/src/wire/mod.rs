//! The two languages in which the same things are said: MQTT, and Parlor's native link. A wire is without memory of its
//! own: it turns what the session wants to say into bytes, and bytes into what the session has to know.

#[cfg(feature = "mqtt")]
pub mod mqtt;
#[cfg(feature = "native")]
pub mod native;

use crate::error::{LinkError, Refusal};
#[cfg(any(feature = "messages", feature = "pairing"))]
use crate::json::Text;
#[cfg(feature = "pairing")]
use crate::json::Value;
use parlor_protocol::mqtt::QoS;

/// A language. Bytes go to the front of `out`; `None`: they do not fit.
pub trait Wire {
    /// The first packet.
    fn hello(&self, hello: &Hello<'_>, out: &mut [u8]) -> Option<usize>;
    /// How long the first packet of `bytes` is; 0: it is not all there yet.
    fn whole(&self, bytes: &[u8]) -> Result<usize, LinkError>;
    /// What a packet says; `None`: it is none that a broker sends to a device.
    fn read<'a>(&self, packet: &'a [u8]) -> Option<Incoming<'a>>;
    /// What has arrived, and how many bytes of `bytes` it took; `None`: it is not all there yet.
    fn decode<'a>(&self, bytes: &'a [u8]) -> Result<Option<(Incoming<'a>, usize)>, LinkError> {
        let len = self.whole(bytes)?;
        match bytes.get(..len) {
            Some(packet) if len > 0 => Ok(Some((self.read(packet).ok_or(LinkError::Protocol)?, len))),
            _ => Ok(None),
        }
    }
    /// The device has what came with this identifier.
    fn ack(&self, pid: u16, out: &mut [u8]) -> Option<usize>;
    /// Is the broker there?
    fn ping(&self, out: &mut [u8]) -> Option<usize>;
    /// The device goes.
    fn bye(&self, out: &mut [u8]) -> Option<usize>;
    /// Subscribes; 0 bytes: there is nothing to do, and no answer comes.
    fn subscribe(&self, pid: u16, what: Subscribe<'_>, out: &mut [u8]) -> Option<usize>;
    /// Something that was queued.
    fn item(&self, item: &Item<'_>, pid: u16, dup: bool, out: &mut [u8]) -> Option<usize>;
    /// What stands in front of the description, whose `len` bytes are sent behind it.
    #[cfg(feature = "describe")]
    fn describe(&self, pid: u16, len: usize, out: &mut [u8]) -> Option<usize>;
    /// The device sleeps for so many seconds.
    #[cfg(feature = "sleep")]
    fn asleep(&self, pid: u16, for_s: u32, out: &mut [u8]) -> Option<usize>;
    /// What is asked after logging in with a pairing code.
    #[cfg(feature = "pairing")]
    fn pair(&self, pid: u16, name: &str, out: &mut [u8]) -> Option<usize>;
    /// Whether a refusal of a message comes only behind its acknowledgement, as news of its own.
    fn news_follow(&self) -> bool {
        false
    }
}

/// What the first packet says.
#[derive(Clone, Copy, Debug)]
pub struct Hello<'a> {
    /// Client identifier.
    pub terminal: &'a str,
    /// User name; empty: none.
    pub account: &'a str,
    /// Password; empty: none.
    pub secret: &'a [u8],
    /// Seconds.
    pub keep_alive_s: u16,
    /// Seconds.
    pub expiry_s: u32,
    /// Longest packet that the device takes.
    pub frame_max: usize,
    /// Packets that the broker may send without an acknowledgement.
    pub receive_max: u16,
    /// Nothing is kept of this connection: it is one for pairing.
    pub clean: bool,
    /// What it listens to; 0 for pairing.
    pub listen: crate::config::Listen,
    /// See `Config`.
    pub level: u32,
    /// See `Config`.
    pub platform: &'a str,
    /// See `Config`.
    pub app: &'a str,
}

/// What to subscribe to.
#[derive(Clone, Copy, Debug)]
pub enum Subscribe<'a> {
    /// What `Listen` says.
    #[cfg(feature = "im")]
    Listen(crate::config::Listen),
    /// The answer to pairing.
    #[cfg(feature = "pairing")]
    Paired,
    /// An ordinary topic.
    Topic(&'a str, QoS),
}

/// Something that was queued.
#[derive(Clone, Copy, Debug)]
pub enum Item<'a> {
    /// A message.
    #[cfg(feature = "messages")]
    Message {
        /// Address.
        to: &'a str,
        /// Client id.
        id: &'a str,
        /// A short word; empty: none.
        kind: &'a str,
        /// Text; empty: there is a body.
        text: &'a str,
        /// JSON; empty: there is a text.
        body: &'a str,
        /// Seq that it answers; 0: none.
        re: u64,
        /// Seconds after which nobody gets it; 0: never.
        ttl_s: u32,
        /// Does not count as unread.
        quiet: bool,
    },
    /// To an ordinary topic; or, at QoS 0, a request below `im/v1/`.
    #[cfg(feature = "topics")]
    Topic {
        /// Topic name.
        topic: &'a str,
        /// Anything.
        payload: &'a [u8],
        /// At QoS 1.
        acked: bool,
        /// RETAIN.
        retain: bool,
    },
    /// Merge patch of the reported state.
    #[cfg(feature = "state")]
    Reported {
        /// JSON.
        patch: &'a str,
    },
    /// How a command goes.
    #[cfg(feature = "commands")]
    Result {
        /// Of the command.
        id: &'a str,
        /// How it goes.
        state: State,
        /// For people; empty: none.
        text: &'a str,
        /// JSON; empty: none.
        result: &'a str,
    },
    /// Something that an earlier firmware has kept, and this one does not know.
    Nothing,
}

/// How a command goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[cfg(feature = "commands")]
pub enum State {
    /// The device is at it.
    Running = 1,
    /// It was done.
    Done = 2,
    /// It was not.
    Failed = 3,
    /// The device would not.
    Rejected = 4,
    /// The device restarted while it was at it.
    UnknownOutcome = 5,
}

#[cfg(feature = "commands")]
impl State {
    pub(crate) const fn from_byte(byte: u8) -> Self {
        match byte {
            1 => Self::Running,
            2 => Self::Done,
            4 => Self::Rejected,
            5 => Self::UnknownOutcome,
            _ => Self::Failed,
        }
    }

    /// The word of docs/protocol.md, section 6.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Rejected => "rejected",
            Self::UnknownOutcome => "unknown_outcome",
        }
    }
}

/// What has arrived.
#[derive(Clone, Copy, Debug)]
pub enum Incoming<'a> {
    /// The device is in.
    Welcome(Welcome),
    /// The broker ends the connection, or lets the device not in.
    Closed(LinkError),
    /// What was sent with this identifier is accepted or refused.
    Done {
        /// Packet identifier.
        pid: u16,
        /// Of a message its number; or why not.
        result: Result<u64, Refusal>,
    },
    /// A subscription was made or refused.
    Subscribed {
        /// Packet identifier.
        pid: u16,
        /// Whether it was made.
        ok: bool,
    },
    /// Something was delivered.
    Delivery {
        /// 0: no acknowledgement is wanted.
        pid: u16,
        /// What.
        what: What<'a>,
    },
    /// Nothing that matters: the answer to a ping.
    Nothing,
}

/// What the broker says about the connection.
#[derive(Clone, Copy, Debug)]
pub struct Welcome {
    /// What was subscribed before still is.
    pub session_present: bool,
    /// Seconds, to be used instead of the device's.
    pub keep_alive_s: Option<u16>,
    /// Packets that may be unacknowledged.
    pub receive_max: u16,
    /// Longest packet that the broker takes.
    pub frame_max: usize,
}

/// What was delivered.
#[derive(Clone, Copy, Debug)]
pub enum What<'a> {
    /// A message.
    #[cfg(feature = "messages")]
    Message(Message<'a>),
    /// A command.
    #[cfg(feature = "commands")]
    Command {
        /// Of the command.
        id: &'a str,
        /// What to do.
        name: &'a str,
        /// Who wants it.
        from: &'a str,
        /// JSON.
        args: &'a str,
        /// Milliseconds that are left; none: it does not end.
        left_ms: Option<u64>,
        /// Never to be begun twice.
        once: bool,
    },
    /// A command is to be stopped.
    #[cfg(feature = "commands")]
    Cancel {
        /// Of the command.
        id: &'a str,
    },
    /// What is desired and not reported.
    #[cfg(feature = "state")]
    Delta {
        /// JSON object.
        desired: &'a str,
    },
    /// A message of this terminal was accepted (where an acknowledgement does not say so).
    #[cfg(all(feature = "messages", feature = "mqtt311"))]
    Sent {
        /// Its client id.
        id: &'a str,
        /// Its number.
        seq: u64,
    },
    /// Something of this terminal was refused (where an acknowledgement does not say so).
    #[cfg(all(feature = "messages", feature = "mqtt311"))]
    Refused {
        /// Its client id.
        id: &'a str,
        /// Why.
        why: Refusal,
    },
    /// Answer to pairing.
    #[cfg(feature = "pairing")]
    Paired(Paired<'a>),
    /// A part of a blob.
    #[cfg(feature = "update")]
    Blob(&'a [u8]),
    /// To an ordinary topic.
    #[cfg(feature = "topics")]
    Topic {
        /// Topic name.
        topic: &'a str,
        /// Anything.
        payload: &'a [u8],
        /// It may have been delivered before.
        dup: bool,
    },
    /// Nothing that the device uses.
    Other,
}

/// A message as it arrives.
#[derive(Clone, Copy, Debug)]
#[cfg(feature = "messages")]
pub struct Message<'a> {
    /// Of the conversation.
    pub address: &'a str,
    /// Who said it.
    pub from: &'a str,
    /// Number in the conversation.
    pub seq: u64,
    /// Place in the mailbox; 0: none.
    pub pos: u64,
    /// A short word; empty: none.
    pub kind: &'a str,
    /// Text; empty: none.
    pub text: Text<'a>,
    /// JSON; empty: none.
    pub body: &'a str,
    /// Seq that it answers; 0: none.
    pub re: u64,
    /// It was said before this terminal was there.
    pub backfill: bool,
}

/// What pairing has given.
#[cfg(feature = "pairing")]
#[derive(Clone, Copy, Debug)]
pub struct Paired<'a> {
    /// Name of the account.
    pub account: Text<'a>,
    /// Its password.
    pub password: Text<'a>,
    /// Who paired it.
    pub owner: Text<'a>,
    /// Its household.
    pub household: Text<'a>,
}

/// The answer to pairing, as JSON.
#[cfg(feature = "pairing")]
fn paired(value: Value<'_>) -> Option<What<'_>> {
    let text = |name| value.get(name).and_then(Value::text);
    let or_empty = |name| text(name).unwrap_or(Text::plain(""));
    Some(What::Paired(Paired {
        account: text("account")?,
        password: text("password")?,
        owner: or_empty("owner"),
        household: or_empty("household"),
    }))
}

/// Why the broker ends a connection or does not let the device in: a reason code of CONNACK or DISCONNECT (MQTT 5,
/// section 2.4), and its text. MQTT has one code for much of it; Parlor's text tells more.
fn closed(code: u8, text: &[u8]) -> LinkError {
    use parlor_protocol::mqtt::ReasonCode as Reason;
    const KNOWN: [(Reason, LinkError); 14] = [
        (Reason::SUCCESS, LinkError::Closed),
        (Reason::BAD_USER_NAME_OR_PASSWORD, LinkError::CredentialsRefused),
        (Reason::NOT_AUTHORIZED, LinkError::NotAuthorized),
        (Reason::BANNED, LinkError::NotAuthorized),
        (Reason::BAD_AUTHENTICATION_METHOD, LinkError::NotAuthorized),
        (Reason::SERVER_UNAVAILABLE, LinkError::Busy),
        (Reason::SERVER_BUSY, LinkError::Busy),
        (Reason::QUOTA_EXCEEDED, LinkError::Busy),
        (Reason::CONNECTION_RATE_EXCEEDED, LinkError::Busy),
        (Reason::UNSUPPORTED_PROTOCOL_VERSION, LinkError::Version),
        (Reason::SERVER_SHUTTING_DOWN, LinkError::ShuttingDown),
        (Reason::SESSION_TAKEN_OVER, LinkError::TakenOver),
        (Reason::ADMINISTRATIVE_ACTION, LinkError::Kicked),
        (Reason::KEEP_ALIVE_TIMEOUT, LinkError::Timeout),
    ];
    const SAID: [(&[u8; 7], LinkError); 3] = [
        (b"disable", LinkError::Disabled),
        (b"expired", LinkError::CredentialsExpired),
        (b"revoked", LinkError::CredentialsRevoked),
    ];
    if code == Reason::NOT_AUTHORIZED.0
        && let Some((_, why)) = SAID.iter().find(|(word, _)| text.windows(7).any(|seven| seven == *word))
    {
        return *why;
    }
    KNOWN.iter().find(|(known, _)| known.0 == code).map_or(LinkError::Protocol, |(_, why)| *why)
}
