//! What a message says, and where it stands.

use super::schema::part;

/// Bits of [`Message::flags`].
pub mod flags {
    /// It does not count as unread.
    pub const QUIET: u8 = 1;
    /// The body is the text for terminals that do not understand the message's level.
    pub const FALLBACK: u8 = 2;
    /// It was said before this terminal was there.
    pub const BACKFILL: u8 = 4;
    /// It was recalled or has expired: only its place is left.
    pub const GONE: u8 = 8;
    /// The same client id was sent before; it was `seq` then.
    pub const REPEATED: u8 = 16;
}

/// The content of a message. Never grows: another kind of content would be another frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Body<'a> {
    /// Text.
    Text(&'a str),
    /// Any JSON value.
    Json(&'a str),
    /// Bytes.
    Bytes(#[serde(serialize_with = "super::bytes")] &'a [u8]),
    /// Both text and a JSON value.
    Both {
        /// Text.
        text: &'a str,
        /// Any JSON value.
        json: &'a str,
    },
}

impl Body<'_> {
    /// Its kinds as text, for [`SCHEMA`](super::SCHEMA).
    pub const SHAPE: &'static str = "Body{Text(str)Json(str)Bytes(bytes)Both{text:str,json:str}}";
}

impl Default for Body<'_> {
    fn default() -> Self {
        Self::Text("")
    }
}

part! {
    /// A message as it is told. Times are milliseconds since 1970.
    pub struct Message<'a> {
        /// Number in its conversation.
        pub seq: u64,
        /// Place in the account's mailbox; 0: none.
        pub pos: u64,
        /// The seq before it that this account got in the conversation; 0: none.
        pub prev: u64,
        /// Who said it; empty: not said.
        pub from: &'a str,
        /// When; 0: not said.
        pub ts: u64,
        /// The sender's client id; empty: none.
        pub id: &'a str,
        /// A short word; empty: `text` or `json`.
        pub kind: &'a str,
        /// Seq that it answers.
        pub re: Option<u64>,
        /// With [`flags::FALLBACK`]: the level that is needed; else 0.
        pub level: u32,
        /// When it was edited; 0: never.
        pub edited: u64,
        /// Milliseconds until it expires; none: never.
        pub left_ms: Option<u64>,
        /// Bits of [`flags`].
        pub flags: u8,
        /// What it says.
        #[serde(borrow)]
        pub body: Body<'a>,
        /// Of a channel.
        pub announcement: Option<Announcement>,
    }
}

part! {
    /// Where an announcement stands in its channel.
    pub struct Announcement {
        /// Number of the entry.
        pub entry: u64,
        /// Rises with every change of the channel: what is not above what one has is old.
        pub change: u64,
        /// Number of the text; 0: not said.
        pub version: u64,
    }
}
