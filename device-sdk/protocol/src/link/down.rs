//! Frames from server to client.

use super::schema::{count, frames};
use super::{Announcement, Code, CommandState, Frame, LinkError, Message, PresenceState, check};

frames! {
    /// A frame from server to client. Where `packet_id` is not 0, the client says with `Ack` that it has it; `dup`: it may
    /// have been sent before. `address` is a direct conversation's peer, or a group, channel or room. `pos` is the place in
    /// the account's mailbox; 0: it has none. Times are milliseconds since 1970. JSON is UTF-8 text of one JSON value.
    pub enum Down {
        /// The client is in.
        Welcome = 261_126 {
            /// The server's [`LEVEL`](super::LEVEL).
            level: u32,
            /// The server's [`SCHEMA`](super::SCHEMA).
            schema: u64,
            /// The account it is logged in as.
            account: &'a str,
            /// Its client identifier.
            terminal: &'a str,
            /// Subscriptions and what waited are still there.
            session_present: bool,
            /// Seconds; to be used instead of what `Hello` said.
            keep_alive_s: u16,
            /// Seconds that the session outlives the link.
            expiry_s: u32,
            /// Longest frame the server takes: bytes behind the length.
            frame_max: u16,
            /// Frames with a packet identifier that may be unanswered at once.
            receive_max: u16,
            /// The server's time.
            server_ms: u64,
        }
        /// Answer to `Ping`.
        Pong = 261_126 {}
        /// The server ends the link, or refuses `Hello`.
        Close = 261_126 {
            /// Reason code of MQTT 5: DISCONNECT (section 3.14.2.1) or CONNACK (section 3.2.2.2).
            code: u8,
            /// For a person.
            text: &'a str,
        }
        /// Done, and on disk where that matters.
        Accepted = 261_126 {
            /// What the client chose.
            packet_id: u16,
            /// The message's number in its conversation; 0: it is no message.
            seq: u64,
            /// The same id was done before.
            dup: bool,
        }
        /// Not done.
        Refused = 261_126 {
            /// What the client chose.
            packet_id: u16,
            /// Why.
            code: Code,
            /// What happened and what to do, for a person.
            text: &'a str,
        }
        /// A message from somebody else; in pages of history, anybody's.
        Deliver = 261_126 {
            /// 0: no acknowledgement is wanted.
            packet_id: u16,
            /// May have been sent before.
            dup: bool,
            /// Of the conversation.
            address: &'a str,
            /// The message.
            #[serde(borrow)]
            message: Message<'a>,
        }
        /// What this account has said, on whichever terminal.
        Sent = 261_126 {
            /// 0: no acknowledgement is wanted.
            packet_id: u16,
            /// May have been sent before.
            dup: bool,
            /// To whom.
            to: &'a str,
            /// The message; with [`super::flags::REPEATED`] only its `seq` and `id`.
            #[serde(borrow)]
            message: Message<'a>,
        }
        /// Marks have moved.
        Receipt = 261_126 {
            /// 0: no acknowledgement is wanted.
            packet_id: u16,
            /// May have been sent before.
            dup: bool,
            /// Of the conversation.
            address: &'a str,
            /// Place in the mailbox.
            pos: u64,
            /// Of a direct conversation the peer's latest mark, of a group the message meant; 0: the marks are the own.
            seq: u64,
            /// Arrived up to here; of a group: how many have it.
            recv: u64,
            /// Read up to here; of a group: how many have read it.
            read: u64,
            /// The peer; empty: it is a group, or the marks are the own.
            by: &'a str,
            /// Of a group: how many there are beside the sender.
            of: Option<u32>,
            /// The own marks, moved by another terminal: so many messages are unread now.
            own_unread: Option<u32>,
        }
        /// A message is to be removed.
        Recall = 261_126 {
            /// 0: no acknowledgement is wanted.
            packet_id: u16,
            /// May have been sent before.
            dup: bool,
            /// Of the conversation.
            address: &'a str,
            /// Place in the mailbox.
            pos: u64,
            /// Which message.
            seq: u64,
            /// Who took it back.
            by: &'a str,
            /// When; 0: not said.
            ts: u64,
            /// Of a channel.
            announcement: Option<Announcement>,
        }
        /// A message has another content.
        Edit = 261_126 {
            /// 0: no acknowledgement is wanted.
            packet_id: u16,
            /// May have been sent before.
            dup: bool,
            /// Of the conversation.
            address: &'a str,
            /// Who changed it.
            by: &'a str,
            /// As it is now.
            #[serde(borrow)]
            message: Message<'a>,
        }
        /// A contact has changed.
        Contact = 261_126 {
            /// 0: no acknowledgement is wanted.
            packet_id: u16,
            /// May have been sent before.
            dup: bool,
            /// The contact.
            address: &'a str,
            /// Place in the mailbox.
            pos: u64,
            /// `request`, `accept`, `refuse` or `remove`.
            op: &'a str,
            /// What a request says.
            text: &'a str,
            /// When.
            ts: u64,
            /// Another terminal of the own account did it.
            own: bool,
        }
        /// Somebody types, or no longer does. May be a datagram.
        Typing = 261_126 {
            /// The sender, or the group.
            address: &'a str,
            /// Who.
            from: &'a str,
            /// Begins, or ends.
            on: bool,
        }
        /// As it was sent. May be a datagram.
        Stream = 261_126 {
            /// The sender, or the group.
            address: &'a str,
            /// Name of the stream.
            name: &'a str,
            /// Anything.
            #[serde(serialize_with = "super::bytes")]
            payload: &'a [u8],
        }
        /// A message or command did not get there.
        Bounce = 261_126 {
            /// 0: no acknowledgement is wanted.
            packet_id: u16,
            /// May have been sent before.
            dup: bool,
            /// To whom it was addressed.
            address: &'a str,
            /// Place in the mailbox.
            pos: u64,
            /// The message's number; 0: it never got one.
            seq: u64,
            /// What was published, below `im/v1/`; empty: it was accepted and expired.
            re: &'a str,
            /// Its client id; empty: none.
            id: &'a str,
            /// Why.
            code: Code,
            /// For a person.
            text: &'a str,
        }
        /// Places of the mailbox that are gone.
        Gap = 261_126 {
            /// 0: no acknowledgement is wanted.
            packet_id: u16,
            /// May have been sent before.
            dup: bool,
            /// The first.
            from: u64,
            /// The last.
            to: u64,
            /// `retention` or `overflow`.
            why: &'a str,
        }
        /// The badge; for those who pull: pull now.
        Head = 261_126 {
            /// 0: no acknowledgement is wanted.
            packet_id: u16,
            /// May have been sent before.
            dup: bool,
            /// The last place of the mailbox.
            pos: u64,
            /// The first that is kept.
            floor: u64,
            /// Unread messages.
            unread: u64,
            /// JSON object: unread messages by address, the 64 latest conversations.
            by: &'a str,
        }
        /// A conversation's line has changed.
        Conversation = 261_126 {
            /// 0: no acknowledgement is wanted.
            packet_id: u16,
            /// May have been sent before.
            dup: bool,
            /// Its address.
            address: &'a str,
            /// JSON object, docs/protocol.md section 3; empty: it is gone.
            json: &'a str,
        }
        /// A device is to do something.
        Command = 261_126 {
            /// 0: no acknowledgement is wanted.
            packet_id: u16,
            /// May have been sent before.
            dup: bool,
            /// For `CommandState`.
            id: &'a str,
            /// Name of the command.
            name: &'a str,
            /// Who wants it.
            from: &'a str,
            /// JSON.
            args: &'a str,
            /// Milliseconds until it is no longer wanted.
            left_ms: u64,
            /// Is never begun twice.
            once: bool,
        }
        /// A command of one's own has got further.
        CommandResult = 261_126 {
            /// 0: no acknowledgement is wanted.
            packet_id: u16,
            /// May have been sent before.
            dup: bool,
            /// The command's id.
            id: &'a str,
            /// Place in the mailbox.
            pos: u64,
            /// The device.
            device: &'a str,
            /// Name of the command.
            name: &'a str,
            /// How far.
            state: CommandState,
            /// JSON; empty: none.
            result: &'a str,
            /// For a person; empty: none.
            text: &'a str,
            /// When.
            ts: u64,
        }
        /// Who is there.
        Presence = 261_126 {
            /// 0: no acknowledgement is wanted.
            packet_id: u16,
            /// May have been sent before.
            dup: bool,
            /// Of whom.
            address: &'a str,
            /// What is shown; `Hidden`: it may no longer be seen, and nothing else is said.
            state: PresenceState,
            /// Since when.
            since: u64,
            /// When it last came, went or said something of itself.
            seen: u64,
            /// Its connections.
            terminals: u32,
            /// Asleep until then; 0: not asleep.
            until: u64,
            /// Number of the server's start.
            epoch: u64,
        }
        /// A device's state.
        State = 261_126 {
            /// 0: no acknowledgement is wanted.
            packet_id: u16,
            /// May have been sent before.
            dup: bool,
            /// Which device.
            device: &'a str,
            /// Rises with each change; 0: it may no longer be seen, and nothing else is said.
            version: u64,
            /// JSON object.
            reported: &'a str,
            /// JSON object.
            desired: &'a str,
            /// Who caused the change; empty: nobody that is left.
            by: &'a str,
            /// When.
            ts: u64,
        }
        /// For a device: what is desired and not reported.
        Delta = 261_126 {
            /// 0: no acknowledgement is wanted.
            packet_id: u16,
            /// May have been sent before.
            dup: bool,
            /// Of its state.
            version: u64,
            /// JSON object.
            desired: &'a str,
        }
        /// Something this terminal said was refused.
        Error = 261_126 {
            /// 0: no acknowledgement is wanted.
            packet_id: u16,
            /// May have been sent before.
            dup: bool,
            /// What, below `im/v1/`; or the name of the frame.
            re: &'a str,
            /// The request's id; empty: none.
            id: &'a str,
            /// Why.
            code: Code,
            /// For a person.
            text: &'a str,
        }
        /// Answer to `Sync`: `count` frames follow, with packet identifier 0.
        SyncPage = 261_126 {
            /// 0: no acknowledgement is wanted.
            packet_id: u16,
            /// The request's id; empty: none.
            id: &'a str,
            /// Everything up to this place is in this page or was in one before.
            pos: u64,
            /// The last place of the mailbox.
            head: u64,
            /// The first that is kept.
            floor: u64,
            /// There is more behind `pos`.
            more: bool,
            /// Frames that follow.
            count: u16,
        }
        /// Answer to `History`: `count` frames `Deliver` (or `Omitted`) follow, with packet identifier 0.
        HistoryPage = 261_126 {
            /// 0: no acknowledgement is wanted.
            packet_id: u16,
            /// The request's id; empty: none.
            id: &'a str,
            /// Address.
            with: &'a str,
            /// There is more.
            more: bool,
            /// Where to go on: as `before`, or as `after` if that was asked; 0: nowhere.
            next: u64,
            /// Frames that follow.
            count: u16,
        }
        /// Answer to any other request.
        Answer = 261_126 {
            /// 0: no acknowledgement is wanted.
            packet_id: u16,
            /// May have been sent before.
            dup: bool,
            /// The answer's topic below `im/v1/`, like `me/contacts/res`.
            topic: &'a str,
            /// What was asked, below `im/v1/`.
            re: &'a str,
            /// The request's id; empty: none, or no text.
            id: &'a str,
            /// JSON, with `re` and `id` in it.
            json: &'a str,
        }
        /// A message to a topic that was subscribed to; also anything below `im/v1/` that no other frame tells. May be a
        /// datagram if `packet_id` is 0.
        Publish = 261_126 {
            /// 0: QoS 0, else QoS 1.
            packet_id: u16,
            /// May have been sent before.
            dup: bool,
            /// RETAIN.
            retain: bool,
            /// Topic name.
            topic: &'a str,
            /// MQTT 5 properties without their length (section 3.3.2.3); mostly none.
            #[serde(serialize_with = "super::bytes")]
            properties: &'a [u8],
            /// Anything.
            #[serde(serialize_with = "super::bytes")]
            payload: &'a [u8],
        }
        /// Answer to `Subscribe`.
        Subscribed = 261_126 {
            /// What the client chose.
            packet_id: u16,
            /// Reason code of SUBACK (section 3.9.3).
            code: u8,
        }
        /// The server does not know this variant of the client's; nothing was done.
        Unknown = 261_126 {
            /// Its discriminant.
            tag: u32,
        }
        /// Answer to `Unsubscribe`.
        Unsubscribed = 261_126 {
            /// What the client chose.
            packet_id: u16,
            /// Reason code of UNSUBACK (section 3.11.3).
            code: u8,
        }
        /// A device is to stop what a `Command` has begun.
        CommandCanceled = 261_126 {
            /// 0: no acknowledgement is wanted.
            packet_id: u16,
            /// May have been sent before.
            dup: bool,
            /// The command's id.
            id: &'a str,
        }
        /// In a page: an entry that is longer than the client's `frame_max`.
        Omitted = 261_126 {
            /// Of the conversation; empty: it is no message.
            address: &'a str,
            /// The message's number; 0: it is no message.
            seq: u64,
            /// Place in the mailbox; 0: it has none.
            pos: u64,
            /// How long the frame would have been: bytes behind the length.
            bytes: u64,
        }
    }
}

impl<'a> Frame<'a> for Down<'a> {
    const COUNT: u32 = count(Self::NAMES);

    fn check(&self) -> Result<(), LinkError> {
        match *self {
            Self::Accepted { packet_id, .. }
            | Self::Refused { packet_id, .. }
            | Self::Subscribed { packet_id, .. }
            | Self::Unsubscribed { packet_id, .. } => check::packet_id(packet_id),
            Self::Publish { topic, properties, .. } => {
                check::topic(topic)?;
                check::properties(properties)
            }
            _ => Ok(()),
        }
    }
}
