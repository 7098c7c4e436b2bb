//! Words of one byte: refusals, states of commands, presence. A number that a build does not know is kept as it is, so
//! that a newer peer may say a newer word.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

macro_rules! words {
    (
        $(#[$doc:meta])*
        pub enum $name:ident { $( $(#[$word_doc:meta])* $word:ident = $value:literal $text:literal, )* }
    ) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name {
            $( $(#[$word_doc])* $word, )*
            /// A word of a newer build.
            Unknown(u8),
        }

        impl $name {
            /// Every word that this build knows.
            pub const ALL: &'static [Self] = &[$(Self::$word),*];

            /// The byte on the wire.
            pub const fn value(self) -> u8 {
                match self { $( Self::$word => $value, )* Self::Unknown(value) => value }
            }

            /// From the byte on the wire.
            pub const fn of(value: u8) -> Self {
                match value { $( $value => Self::$word, )* value => Self::Unknown(value) }
            }

            /// The word as it stands in JSON; empty when it is unknown.
            pub const fn text(self) -> &'static str {
                match self { $( Self::$word => $text, )* Self::Unknown(_) => "" }
            }

            /// From the word as it stands in JSON.
            pub fn parse(text: &str) -> Option<Self> {
                match text { $( $text => Some(Self::$word), )* _ => None }
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.serialize_u8(self.value())
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                u8::deserialize(from).map(Self::of)
            }
        }
    };
}

words! {
    /// Why something was refused (docs/protocol.md, section 10).
    pub enum Code {
        /// The payload cannot be read, or a field is wrong; the text says which.
        BadRequest = 1 "bad_request",
        /// There is no such topic below `im/`.
        BadTopic = 2 "bad_topic",
        /// Instant messaging needs an account.
        NoAccount = 3 "no_account",
        /// There is no such account, group, message, command or code.
        NotFound = 4 "not_found",
        /// No contact, no common household.
        NoConsent = 5 "no_consent",
        /// The other side has blocked you.
        Blocked = 6 "blocked",
        /// Your role does not allow it.
        Forbidden = 7 "forbidden",
        /// This id was used for another content.
        IdReused = 8 "id_reused",
        /// The time for it is over.
        TooLate = 9 "too_late",
        /// The topic for the answer is not one of the own answers.
        ResponseTopic = 10 "response_topic",
        /// The name is taken.
        Exists = 11 "exists",
        /// Longer than the receiver takes.
        TooLarge = 12 "too_large",
        /// Too fast, or too many; the text says which limit.
        Quota = 13 "quota",
        /// Nobody got it before its time was over.
        Expired = 14 "expired",
        /// The disk is nearly full.
        LowSpace = 15 "low_space",
        /// A topic outside `im/` may not be used like that (MQTT reason 0x87).
        NotAllowed = 16 "not_allowed",
        /// The server could not do it, and says no more (the other MQTT reasons); the text says what.
        Failed = 17 "failed",
        /// A frame in a place where it may not be: a datagram, a further stream, before Hello.
        NotHere = 18 "not_here",
    }
}

words! {
    /// How a command goes.
    pub enum CommandState {
        /// Waits for the device.
        Queued = 1 "queued",
        /// Sent to the device.
        Sent = 2 "sent",
        /// The device has it.
        Delivered = 3 "delivered",
        /// The device is at it.
        Running = 4 "running",
        /// Outcome: it was done.
        Done = 5 "done",
        /// Outcome: it was not.
        Failed = 6 "failed",
        /// Outcome: the device would not.
        Rejected = 7 "rejected",
        /// Outcome: its deadline passed before it was delivered.
        Expired = 8 "expired",
        /// Outcome: its deadline passed after it was delivered.
        Timeout = 9 "timeout",
        /// Outcome: it was taken back.
        Canceled = 10 "canceled",
        /// Outcome: the device restarted while it was at it.
        UnknownOutcome = 11 "unknown_outcome",
    }
}

words! {
    /// What presence shows.
    pub enum PresenceState {
        /// There.
        Online = 1 "online",
        /// There, and says it is away.
        Away = 2 "away",
        /// Not there, and said for how long.
        Asleep = 3 "asleep",
        /// Not there.
        Offline = 4 "offline",
        /// It may no longer be seen.
        Hidden = 5 "hidden",
    }
}
