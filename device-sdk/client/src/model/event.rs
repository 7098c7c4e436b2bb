//! What the client tells those who use it.

use super::wire::{DeviceState, Message, Order, Presence, Receipt, Refusal, Report, Summary};
use crate::error::ConnectError;
use serde_json::{Map, Value, json};
use std::time::Duration;

#[cfg(test)]
mod tests;

/// Something worth telling. `with` is the address it is about: the peer, the group, the channel or the room.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// There is a connection, and the subscriptions stand.
    Connected,
    /// There is none; another one is tried by itself.
    Disconnected {
        /// What ended it.
        why: String,
        /// When the next one is tried.
        retry_in: Duration,
    },
    /// There will be no connection any more; this is the last event.
    Ended {
        /// Why trying again would not help.
        error: ConnectError,
    },
    /// The broker has on disk what was sent. Of each [`Event::Received`] and [`Event::Lost`], a send ends in exactly one.
    Received {
        /// Its client id.
        id: String,
        /// Where it was published, below `im/v1/`; of an ordinary topic, the topic.
        re: String,
        /// The number it got, where it is a message.
        seq: Option<u64>,
        /// The broker had it already.
        dup: bool,
    },
    /// What was sent is given up: the broker refused it, or nobody can say any more that it has it.
    Lost {
        /// Its client id.
        id: String,
        /// Where it was published, below `im/v1/`; of an ordinary topic, the topic.
        re: String,
        /// A code of docs/protocol.md section 10, or `no_answer` or `expired` where the broker said nothing.
        why: Refusal,
    },
    /// The broker has a request or a mark. A request that has an answer is told as [`Event::Answer`] besides.
    Accepted {
        /// Where it was published, below `im/v1/`.
        re: String,
        /// Its id, where it has one.
        id: Option<String>,
    },
    /// The broker refused a request.
    Refused {
        /// Where it was published, below `im/v1/`.
        re: String,
        /// Why.
        refusal: Refusal,
    },
    /// A message.
    Message {
        /// The conversation.
        with: String,
        /// What it says.
        message: Message,
    },
    /// What this account sent, from any of its terminals.
    Sent {
        /// The conversation.
        with: String,
        /// What it says; nothing, where the broker had it already.
        message: Message,
        /// The broker had it already.
        dup: bool,
    },
    /// How far own messages have come: marks of the peer, counts of a group, or the own mark of another terminal.
    Receipt {
        /// The conversation.
        with: String,
        /// How far.
        receipt: Receipt,
    },
    /// A message was wiped.
    Recall {
        /// The conversation.
        with: String,
        /// Which one.
        seq: u64,
        /// Who did it.
        by: String,
    },
    /// A message was replaced.
    Edit {
        /// The conversation.
        with: String,
        /// What it says now.
        message: Message,
    },
    /// A step towards being contacts, or away.
    Contact {
        /// The other account.
        with: String,
        /// `request`, `accept`, `refuse`, `remove`.
        op: String,
        /// What was said with it.
        text: Option<String>,
        /// Taken on another terminal of this account.
        own: bool,
    },
    /// Somebody types, or has stopped.
    Typing {
        /// The conversation.
        with: String,
        /// Who.
        from: String,
        /// Whether they do.
        typing: bool,
    },
    /// The latest value of a stream.
    Stream {
        /// Who sent it, or the group.
        with: String,
        /// Its name.
        name: String,
        /// The value.
        payload: Vec<u8>,
    },
    /// A message or a command did not get there after all.
    Bounce {
        /// Where it should have gone.
        with: String,
        /// Why.
        refusal: Refusal,
        /// Its number, where it is a message.
        seq: Option<u64>,
    },
    /// Mailbox positions that are gone.
    Gap {
        /// The first.
        from: u64,
        /// The last.
        to: u64,
        /// `retention`, `overflow`.
        why: String,
    },
    /// The badge.
    Head {
        /// Unread messages everywhere.
        unread: u64,
    },
    /// A conversation changed.
    Conversation {
        /// Its address.
        with: String,
        /// How it is now.
        summary: Summary,
    },
    /// How a command goes that this account gave.
    CommandResult {
        /// Its client id.
        id: String,
        /// How it goes.
        report: Report,
    },
    /// The answer to a request below `me/`; the payload is in [`Told::body`].
    Answer {
        /// What was asked, without `me/`.
        re: String,
        /// The request's id.
        id: Option<String>,
    },
    /// Whether somebody can be reached.
    Presence {
        /// Who.
        with: String,
        /// Whether.
        presence: Presence,
    },
    /// What a device is like.
    State {
        /// Which one.
        device: String,
        /// What it is like.
        state: DeviceState,
    },
    /// Device: something to do.
    Command {
        /// Names it in the answer.
        id: String,
        /// Its name.
        name: String,
        /// What, for whom, and how soon.
        order: Order,
    },
    /// Device: what is desired and not so.
    Delta {
        /// Counts changes.
        version: u64,
        /// What differs from what was reported.
        desired: Map<String, Value>,
    },
    /// Something on an ordinary topic.
    Published {
        /// The topic.
        topic: String,
        /// What it says.
        payload: Vec<u8>,
    },
    /// A retained value was taken back.
    Gone {
        /// Where, below `im/v1/`.
        topic: String,
    },
    /// Known to nobody here: a later broker may say more than this client understands.
    Other {
        /// Where, below `im/v1/`.
        topic: String,
    },
    /// Something came that cannot be read.
    Unreadable {
        /// Where, and what is wrong with it.
        text: String,
    },
    /// Nobody asked for events in time, and some that promise nothing were dropped.
    Missed {
        /// How many.
        events: u64,
    },
}

/// An event, and what else is known of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Told {
    /// What happened.
    pub event: Event,
    /// The payload as it came, for those who pass everything on; null where there is none, or it is not JSON.
    pub body: Value,
    /// It is the value the broker keeps, not news.
    pub is_retained: bool,
}

/// How the broker answers a publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It is on disk.
    Accepted {
        /// The number it got, where the broker says so.
        seq: Option<u64>,
        /// The broker had it already.
        dup: bool,
    },
    /// It is not.
    Refused {
        /// The code of section 10.
        code: String,
        /// What happened and what to do.
        text: String,
    },
}

impl Answer {
    /// Reads a Reason String: `code: text`. Without one the reason code has to do.
    pub fn refused(reason: Option<&str>, reason_code: &str) -> Self {
        let (code, text) = match reason.map(|reason| reason.split_once(": ").unwrap_or(("", reason))) {
            Some(("", text)) => (reason_code.to_owned(), text.to_owned()),
            Some((code, text)) => (code.to_owned(), text.to_owned()),
            None => (reason_code.to_owned(), "the broker gave no reason".to_owned()),
        };
        Self::Refused { code, text }
    }
}

impl From<Event> for Told {
    fn from(event: Event) -> Self {
        Self { event, body: Value::Null, is_retained: false }
    }
}

impl Event {
    /// Its name in JSON, and the address it is about.
    fn name(&self) -> (&'static str, Option<&str>) {
        match self {
            Self::Connected => ("connected", None),
            Self::Disconnected { .. } => ("disconnected", None),
            Self::Ended { .. } => ("ended", None),
            Self::Received { .. } | Self::Accepted { .. } => ("accepted", None),
            Self::Lost { .. } | Self::Refused { .. } => ("refused", None),
            Self::Message { with, .. } => ("message", Some(with)),
            Self::Receipt { with, .. } => ("receipt", Some(with)),
            Self::Recall { with, .. } => ("recall", Some(with)),
            Self::Edit { with, .. } => ("edit", Some(with)),
            Self::Contact { with, .. } => ("contact", Some(with)),
            Self::Typing { with, .. } => ("typing", Some(with)),
            Self::Stream { with, .. } => ("stream", Some(with)),
            Self::Bounce { with, .. } => ("bounce", Some(with)),
            Self::Gap { .. } => ("gap", None),
            Self::Sent { with, .. } => ("sent", Some(with)),
            Self::Head { .. } => ("head", None),
            Self::Conversation { with, .. } => ("conversation", Some(with)),
            Self::CommandResult { report, .. } => ("command", Some(&report.device)),
            Self::Answer { .. } => ("answer", None),
            Self::Presence { with, .. } => ("presence", Some(with)),
            Self::State { device, .. } => ("state", Some(device)),
            Self::Command { order, .. } => ("order", Some(&order.from)),
            Self::Delta { .. } => ("delta", None),
            Self::Published { topic, .. } => ("published", Some(topic)),
            Self::Gone { topic } => ("gone", Some(topic)),
            Self::Other { topic } => ("other", Some(topic)),
            Self::Unreadable { .. } => ("unreadable", None),
            Self::Missed { .. } => ("lost", None),
        }
    }

    /// What it says besides, where that is not in a payload.
    fn own_keys(&self) -> Value {
        match self {
            Self::Disconnected { why, .. } => json!({ "why": why }),
            Self::Ended { error } => json!({"why": error.to_string()}),
            Self::Received { re, id, seq: Some(seq), dup } => json!({"re": re, "id": id, "seq": seq, "dup": dup}),
            Self::Received { re, id, seq: None, dup } => json!({"re": re, "id": id, "dup": dup}),
            Self::Accepted { re, id: Some(id) } => json!({"re": re, "id": id, "dup": false}),
            Self::Accepted { re, id: None } => json!({"re": re, "dup": false}),
            Self::Lost { re, why: refusal, .. } | Self::Refused { re, refusal } => {
                json!({"re": re, "id": refusal.id, "code": refusal.code, "text": refusal.text})
            }
            Self::Stream { name, .. } => json!({ "name": name }),
            Self::CommandResult { id, .. } => json!({ "id": id }),
            Self::Command { id, name, .. } => json!({"id": id, "name": name}),
            Self::Unreadable { text } => json!({ "text": text }),
            Self::Missed { events } => json!({ "events": events }),
            _ => Value::Null,
        }
    }
}

impl Told {
    /// One JSON object that says it all: `event`, `with` where there is an address, and the keys of the payload.
    pub fn to_json(&self) -> Value {
        let (event, with) = self.event.name();
        let mut all = Map::new();
        all.insert("event".to_owned(), json!(event));
        if let Some(with) = with {
            all.insert("with".to_owned(), json!(with));
        }
        if let Value::Object(keys) = self.event.own_keys() {
            all.extend(keys);
        }
        match (&self.body, &self.event) {
            (body, Event::Stream { payload, .. } | Event::Published { payload, .. }) => {
                let value = if body.is_null() { json!(String::from_utf8_lossy(payload)) } else { body.clone() };
                all.insert("value".to_owned(), value);
            }
            (Value::Object(keys), _) => {
                for (key, value) in keys {
                    // A payload never hides what the topic says.
                    all.entry(key.clone()).or_insert_with(|| value.clone());
                }
            }
            (Value::Null, _) => {}
            (value, _) => {
                all.insert("value".to_owned(), value.clone());
            }
        }
        Value::Object(all)
    }
}
