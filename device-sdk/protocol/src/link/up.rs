//! Frames from client to server.

use super::schema::{count, frames};
use super::{Body, CommandState, Frame, LinkError, PresenceState, check};

/// What a [`Up::Hello`] asks to be sent, one bit each.
pub mod wants {
    /// The mailbox, at QoS 1: `im/v1/me/in/#`.
    pub const PUSH: u16 = 1;
    /// What the own account has sent: `im/v1/me/sent`.
    pub const SENT: u16 = 2;
    /// The badge and the lines of the conversations: `im/v1/me/head` and `im/v1/me/conv/#`.
    pub const HEAD: u16 = 4;
    /// Who is there: `im/v1/presence/+`.
    pub const PRESENCE: u16 = 8;
    /// Of devices: `im/v1/state/#`.
    pub const STATE: u16 = 16;
    /// For a device: `im/v1/me/cmd/#` and `im/v1/me/delta`.
    pub const COMMANDS: u16 = 32;
    /// How own commands go: `im/v1/me/res/#`.
    pub const RESULTS: u16 = 64;
    /// Typing, streams and QoS 0 messages may come as datagrams, where the link has them and they fit.
    pub const DATAGRAMS: u16 = 128;
    /// All that a build of this level knows; other bits are ignored.
    pub const ALL: u16 = 255;
}

/// A secret that is not shown by `Debug`.
#[derive(Clone, Copy, PartialEq, Eq, serde::Deserialize)]
pub struct Secret<'a>(#[serde(borrow)] pub &'a [u8]);

impl core::fmt::Debug for Secret<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl serde::Serialize for Secret<'_> {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_newtype_struct("Secret", &super::AsBytes(self.0))
    }
}

frames! {
    /// A frame from client to server. `to`, `with` are addresses: the name of an account, group, channel or room.
    /// `packet_id` is the MQTT packet identifier, chosen by the client, free again when it was answered with `Accepted` or
    /// `Refused`; where 0 is allowed it means that no answer is wanted. JSON is UTF-8 text of one JSON value.
    pub enum Up {
        /// The first frame: who is there, and what it wants. Answered with `Welcome`, or `Close`.
        Hello = 261_126 {
            /// The client's [`LEVEL`](super::LEVEL).
            level: u32,
            /// The client's [`SCHEMA`](super::SCHEMA).
            schema: u64,
            /// User name; empty: none.
            account: &'a str,
            /// Password or token; empty: none.
            #[serde(borrow)]
            secret: Secret<'a>,
            /// Client identifier; empty: the server chooses one, see `Welcome`.
            terminal: &'a str,
            /// Seconds after which a silent link is dead (one and a half times as long); 0: never.
            keep_alive_s: u16,
            /// Seconds that the session outlives the link; `0xFFFF_FFFF`: for ever.
            expiry_s: u32,
            /// Frames with a packet identifier that may be unacknowledged at once; 1 at least.
            receive_max: u16,
            /// Longest frame the client takes: bytes behind the length; 0: 65,535.
            frame_max: u16,
            /// Forgets a session that is there.
            clean: bool,
            /// Bits of [`wants`].
            wants: u16,
            /// `im-level`, yyMMdd: which messages this terminal understands; 0: none said.
            core_level: u32,
            /// `ios`, `android`, … ; empty: none said.
            platform: &'a str,
            /// Name and version of the program; empty: none said.
            app: &'a str,
        }
        /// Answered with `Pong`.
        Ping = 261_126 {}
        /// The client goes, in an orderly way.
        Bye = 261_126 {
            /// Its will, if the session has one, is to be published.
            will: bool,
        }
        /// A message to an account, group or room.
        Send = 261_126 {
            /// Never 0.
            packet_id: u16,
            /// Address.
            to: &'a str,
            /// Client id, 1 to 36 of `[A-Za-z0-9_-]`: the same id makes one message. Empty: none.
            id: &'a str,
            /// A short word; empty: `text` or `json`.
            kind: &'a str,
            /// Seconds after which nobody gets it; 0: never.
            ttl_s: u32,
            /// Seq that it answers.
            re: Option<u64>,
            /// Does not count as unread.
            quiet: bool,
            /// Least `im-level` of a terminal that understands it; 0: all do.
            level: u32,
            /// What the others get instead; goes with `level`.
            fallback: &'a str,
            /// What it says.
            #[serde(borrow)]
            body: Body<'a>,
        }
        /// The client has what came with this packet identifier.
        Ack = 261_126 {
            /// Never 0.
            packet_id: u16,
        }
        /// Moves the own marks of a conversation forward.
        Receipt = 261_126 {
            /// 0: no answer is wanted.
            packet_id: u16,
            /// Address.
            to: &'a str,
            /// Everything up to this seq has arrived; 0: not said.
            recv: u64,
            /// Everything up to this seq was read; 0: not said.
            read: u64,
        }
        /// Wipes an own message of the last 2 minutes.
        Recall = 261_126 {
            /// Never 0.
            packet_id: u16,
            /// Address.
            to: &'a str,
            /// Which message.
            seq: u64,
        }
        /// Replaces an own message of the last 24 hours.
        Edit = 261_126 {
            /// Never 0.
            packet_id: u16,
            /// Address.
            to: &'a str,
            /// Which message.
            seq: u64,
            /// As in `Send`.
            kind: &'a str,
            /// As in `Send`.
            re: Option<u64>,
            /// As in `Send`.
            level: u32,
            /// As in `Send`.
            fallback: &'a str,
            /// What it says from now on.
            #[serde(borrow)]
            body: Body<'a>,
        }
        /// Shown to the peers that are online; never stored. May be a datagram.
        Typing = 261_126 {
            /// Address.
            to: &'a str,
            /// Begins, or ends.
            on: bool,
        }
        /// Latest wins, never stored. May be a datagram.
        Stream = 261_126 {
            /// Address.
            to: &'a str,
            /// Name of the stream.
            name: &'a str,
            /// Anything.
            #[serde(serialize_with = "super::bytes")]
            payload: &'a [u8],
        }
        /// A QoS 0 message to an ordinary topic. May be a datagram.
        Telemetry = 261_126 {
            /// Topic name, not below `im/`.
            topic: &'a str,
            /// Anything.
            #[serde(serialize_with = "super::bytes")]
            payload: &'a [u8],
        }
        /// A command to a device.
        Command = 261_126 {
            /// Never 0.
            packet_id: u16,
            /// The device.
            to: &'a str,
            /// Name of the command.
            name: &'a str,
            /// Client id; empty: none.
            id: &'a str,
            /// JSON; empty: `{}`.
            args: &'a str,
            /// Milliseconds until it is no longer wanted; 0: the default.
            deadline_ms: u32,
            /// Waits for a device that is not there.
            persist: bool,
            /// Is never begun twice.
            once: bool,
        }
        /// Takes a command back if it has no outcome yet.
        CancelCommand = 261_126 {
            /// Never 0.
            packet_id: u16,
            /// The device.
            to: &'a str,
            /// The command's id.
            id: &'a str,
        }
        /// A device says how a command goes.
        CommandState = 261_126 {
            /// Never 0.
            packet_id: u16,
            /// The command's id, as the device was told it.
            id: &'a str,
            /// `Running`, `Done`, `Failed`, `Rejected` or `UnknownOutcome`.
            state: CommandState,
            /// JSON, with an outcome only; empty: none.
            result: &'a str,
            /// For a person; empty: none.
            text: &'a str,
        }
        /// A device's merge patch (RFC 7396) of its reported state.
        Reported = 261_126 {
            /// 0: no answer is wanted.
            packet_id: u16,
            /// JSON object.
            patch: &'a str,
        }
        /// Merge patch of a device's desired state.
        Desired = 261_126 {
            /// 0: no answer is wanted.
            packet_id: u16,
            /// The device.
            to: &'a str,
            /// JSON object.
            patch: &'a str,
        }
        /// A device says what it can do.
        Describe = 261_126 {
            /// 0: no answer is wanted.
            packet_id: u16,
            /// JSON, docs/protocol.md section 7; empty: the description is removed.
            json: &'a str,
        }
        /// What presence shows besides the link.
        Status = 261_126 {
            /// 0: no answer is wanted.
            packet_id: u16,
            /// `Online`, `Away` or `Asleep`.
            state: PresenceState,
            /// With `Asleep`: for how many seconds.
            for_s: u32,
        }
        /// Pulls mailbox entries; answered with `SyncPage`. On a stream of its own, too.
        Sync = 261_126 {
            /// 0: no answer but the page is wanted.
            packet_id: u16,
            /// Is repeated in the page; empty: none.
            id: &'a str,
            /// Behind this position; none: behind the terminal's place.
            after: Option<u64>,
            /// Entries at most; 0: the default.
            max: u16,
        }
        /// A terminal that pulls has everything up to a position.
        Synced = 261_126 {
            /// 0: no answer is wanted.
            packet_id: u16,
            /// The position.
            pos: u64,
        }
        /// Pulls messages of a conversation; answered with `HistoryPage`. On a stream of its own, too.
        History = 261_126 {
            /// 0: no answer but the page is wanted.
            packet_id: u16,
            /// Is repeated in the page; empty: none.
            id: &'a str,
            /// Address.
            with: &'a str,
            /// Newest first, below this seq. Not with `after`.
            before: Option<u64>,
            /// Oldest first, above this seq.
            after: Option<u64>,
            /// Not older than this; milliseconds since 1970.
            since: Option<u64>,
            /// Older than this; milliseconds since 1970.
            until: Option<u64>,
            /// Messages at most; 0: the default.
            max: u16,
        }
        /// Any other topic below `im/v1/` (docs/protocol.md section 2); answered with `Answer`.
        Request = 261_126 {
            /// 0: no answer but the one that the request brings is wanted.
            packet_id: u16,
            /// What stands behind `im/v1/`, like `me/contacts`.
            path: &'a str,
            /// As the table says, mostly JSON.
            #[serde(serialize_with = "super::bytes")]
            payload: &'a [u8],
        }
        /// Answered with `Subscribed`.
        Subscribe = 261_126 {
            /// Never 0.
            packet_id: u16,
            /// Topic filter.
            filter: &'a str,
            /// Subscription options of MQTT 5 (section 3.8.3.1); QoS 0 or 1.
            options: u8,
        }
        /// Answered with `Unsubscribed`.
        Unsubscribe = 261_126 {
            /// Never 0.
            packet_id: u16,
            /// Topic filter.
            filter: &'a str,
        }
        /// A message to an ordinary topic.
        Publish = 261_126 {
            /// 0: QoS 0, else QoS 1.
            packet_id: u16,
            /// RETAIN.
            retain: bool,
            /// Topic name.
            topic: &'a str,
            /// MQTT 5 properties without their length (section 3.3.2.3); mostly none. No Topic Alias.
            #[serde(serialize_with = "super::bytes")]
            properties: &'a [u8],
            /// Anything.
            #[serde(serialize_with = "super::bytes")]
            payload: &'a [u8],
        }
    }
}

impl<'a> Frame<'a> for Up<'a> {
    const COUNT: u32 = count(Self::NAMES);

    fn check(&self) -> Result<(), LinkError> {
        match *self {
            Self::Hello { account, terminal, receive_max, platform, app, .. } => {
                for (text, field) in
                    [(account, "account"), (terminal, "terminal"), (platform, "platform"), (app, "app")]
                {
                    check::text(text, field)?;
                }
                if receive_max == 0 { Err(LinkError::ZeroReceiveMax) } else { Ok(()) }
            }
            Self::Ping {} | Self::Bye { .. } => Ok(()),
            Self::Send { packet_id, to, .. }
            | Self::Recall { packet_id, to, .. }
            | Self::Edit { packet_id, to, .. } => {
                check::packet_id(packet_id)?;
                check::name(to, "to")
            }
            Self::Ack { packet_id } => check::packet_id(packet_id),
            Self::Receipt { to, .. } | Self::Typing { to, .. } | Self::Desired { to, .. } => check::name(to, "to"),
            Self::Stream { to, name, .. } => {
                check::name(to, "to")?;
                check::name(name, "name")
            }
            Self::Telemetry { topic, .. } => check::topic(topic),
            Self::Command { packet_id, to, name, .. } => {
                check::packet_id(packet_id)?;
                check::name(to, "to")?;
                check::name(name, "name")
            }
            Self::CancelCommand { packet_id, to, id } => {
                check::packet_id(packet_id)?;
                check::name(to, "to")?;
                check::name(id, "id")
            }
            Self::CommandState { packet_id, id, .. } => {
                check::packet_id(packet_id)?;
                check::name(id, "id")
            }
            Self::Reported { .. }
            | Self::Describe { .. }
            | Self::Status { .. }
            | Self::Sync { .. }
            | Self::Synced { .. }
            | Self::History { .. } => Ok(()),
            Self::Request { path, .. } => check::topic(path),
            Self::Subscribe { packet_id, filter, options } => {
                check::packet_id(packet_id)?;
                check::filter(filter)?;
                check::options(options)
            }
            Self::Unsubscribe { packet_id, filter } => {
                check::packet_id(packet_id)?;
                check::filter(filter)
            }
            Self::Publish { topic, properties, .. } => {
                check::topic(topic)?;
                check::properties(properties)
            }
        }
    }
}
