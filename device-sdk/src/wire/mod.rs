//! The two languages in which the same things are said: MQTT, and Parlor's native link. A wire is without memory of its
//! own: it turns what the session wants to say into bytes, and bytes into what the session has to know.

#[cfg(feature = "mqtt")]
pub mod mqtt;
#[cfg(feature = "native")]
pub mod native;

use crate::error::{LinkError, Refusal};
use crate::json::{Text, Value};
use parlor_protocol::mqtt::QoS;

/// A language. Bytes go to the front of `out`; `None`: they do not fit.
pub trait Wire {
    /// The first packet.
    fn hello(&self, hello: &Hello<'_>, out: &mut [u8]) -> Option<usize>;
    /// What has arrived, and how many bytes of `bytes` it took; `None`: it is not all there yet.
    fn decode<'a>(&self, bytes: &'a [u8]) -> Result<Option<(Incoming<'a>, usize)>, LinkError>;
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
    fn describe(&self, pid: u16, len: usize, out: &mut [u8]) -> Option<usize>;
    /// The device sleeps for so many seconds.
    fn asleep(&self, pid: u16, for_s: u32, out: &mut [u8]) -> Option<usize>;
    /// What is asked after logging in with a pairing code.
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
    Listen(crate::config::Listen),
    /// The answer to pairing.
    Paired,
    /// An ordinary topic.
    Topic(&'a str, QoS),
}

/// Something that was queued.
#[derive(Clone, Copy, Debug)]
pub enum Item<'a> {
    /// A message.
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
    Reported {
        /// JSON.
        patch: &'a str,
    },
    /// How a command goes.
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
}

/// How a command goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
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
    Message(Message<'a>),
    /// A command.
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
    Cancel {
        /// Of the command.
        id: &'a str,
    },
    /// What is desired and not reported.
    Delta {
        /// JSON object.
        desired: &'a str,
    },
    /// A message of this terminal was accepted (where an acknowledgement does not say so).
    Sent {
        /// Its client id.
        id: &'a str,
        /// Its number.
        seq: u64,
    },
    /// Something of this terminal was refused (where an acknowledgement does not say so).
    Refused {
        /// Its client id.
        id: &'a str,
        /// Why.
        why: Refusal,
    },
    /// Answer to pairing.
    Paired {
        /// Name of the account.
        account: Text<'a>,
        /// Its password.
        password: Text<'a>,
        /// Who paired it.
        owner: Text<'a>,
        /// Its household.
        household: Text<'a>,
    },
    /// A part of a blob.
    Blob(&'a [u8]),
    /// To an ordinary topic.
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

/// The answer to pairing, as JSON.
fn paired(value: Value<'_>) -> Option<What<'_>> {
    let text = |name| value.get(name).and_then(Value::text).unwrap_or(Text::plain(""));
    Some(What::Paired {
        account: value.get("account")?.text()?,
        password: value.get("password")?.text()?,
        owner: text("owner"),
        household: text("household"),
    })
}

/// Why the broker ends a connection or does not let the device in: a reason code of CONNACK or DISCONNECT (MQTT 5,
/// section 2.4), and its text. MQTT has one code for much of it; Parlor's text tells more.
fn closed(code: u8, text: &str) -> LinkError {
    use parlor_protocol::mqtt::ReasonCode;
    match ReasonCode(code) {
        ReasonCode::SUCCESS => LinkError::Closed,
        ReasonCode::BAD_USER_NAME_OR_PASSWORD => LinkError::CredentialsRefused,
        ReasonCode::NOT_AUTHORIZED if says(text, "disabled") => LinkError::Disabled,
        ReasonCode::NOT_AUTHORIZED if says(text, "expired") => LinkError::CredentialsExpired,
        ReasonCode::NOT_AUTHORIZED if says(text, "revoked") => LinkError::CredentialsRevoked,
        ReasonCode::NOT_AUTHORIZED | ReasonCode::BANNED | ReasonCode::BAD_AUTHENTICATION_METHOD => {
            LinkError::NotAuthorized
        }
        ReasonCode::SERVER_UNAVAILABLE
        | ReasonCode::SERVER_BUSY
        | ReasonCode::QUOTA_EXCEEDED
        | ReasonCode::CONNECTION_RATE_EXCEEDED => LinkError::Busy,
        ReasonCode::UNSUPPORTED_PROTOCOL_VERSION => LinkError::Version,
        ReasonCode::SERVER_SHUTTING_DOWN => LinkError::ShuttingDown,
        ReasonCode::SESSION_TAKEN_OVER => LinkError::TakenOver,
        ReasonCode::ADMINISTRATIVE_ACTION => LinkError::Kicked,
        ReasonCode::KEEP_ALIVE_TIMEOUT => LinkError::Timeout,
        _ => LinkError::Protocol,
    }
}

/// Whether a word is in a text; without the search of `core`, which is made for long ones.
fn says(text: &str, word: &str) -> bool {
    text.as_bytes().windows(word.len()).any(|window| window == word.as_bytes())
}
