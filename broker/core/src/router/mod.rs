//! Who gets a topic: the subscription trie, shared groups, and the retained messages.
//!
//! The router knows sessions by number only. It answers "who matches", never "who may".

mod retained;
mod shared;
mod trie;

pub use retained::{Retained, RetainedTree};
pub use shared::{GroupKey, Member};
pub use trie::Router;

use parlor_protocol::mqtt::Property;

/// A session's place in the hub's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionKey(pub u32);

/// Bits of a stored subscription option byte, as in SUBSCRIBE (MQTT 5 section 3.8.3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options(pub u8);

impl Options {
    /// Maximum QoS, 0..=2.
    pub fn qos(self) -> u8 {
        self.0 & 3
    }
    /// No Local.
    pub fn no_local(self) -> bool {
        self.0 & 4 != 0
    }
    /// Retain As Published.
    pub fn retain_as_published(self) -> bool {
        self.0 & 8 != 0
    }
    /// Retain Handling, 0..=2.
    pub fn retain_handling(self) -> u8 {
        self.0 >> 4 & 3
    }
}

/// How No Local bears on a recipient whose own message this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoLocal {
    /// No matching subscription has it.
    None,
    /// Every matching subscription has it: own messages are not delivered.
    All,
    /// Some have it: the delivery of an own message must be matched again without those.
    Some,
}

/// One session that gets a topic, with all its matching subscriptions merged into one delivery
/// (`[MQTT5-3.3.4-2]`, `[MQTT5-3.3.4-4]`, `[MQTT3-3.3.5-1]`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipient {
    /// Which session.
    pub session: SessionKey,
    /// The highest maximum QoS of the matching subscriptions.
    pub qos: u8,
    /// Whether any of them wants the retain flag as published.
    pub retain_as_published: bool,
    /// How No Local bears on it.
    pub no_local: NoLocal,
    /// Subscription Identifier properties as MQTT 5 bytes; empty when no subscription has one.
    pub subscription_ids: Box<[u8]>,
}

/// Everybody who gets a topic.
#[derive(Debug, Default)]
pub struct Route {
    /// Sessions, ascending, each once.
    pub recipients: Box<[Recipient]>,
    /// Shared groups; one member of each gets the message.
    pub groups: Box<[GroupKey]>,
}

/// Appends a Subscription Identifier property.
pub(crate) fn put_subscription_id(out: &mut Vec<u8>, id: u32) {
    Property::SubscriptionIdentifier(id).encode(out);
}
