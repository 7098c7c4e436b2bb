//! What lies below `im/v1/`: topics and payloads that come down, as types. `docs/protocol.md` sections 3 to 8.

use super::event::{Event, Told};
use serde::Deserialize;
use serde_json::{Map, Value};

#[cfg(test)]
mod tests;

/// A message as it is delivered.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
pub struct Message {
    /// Its number in the conversation.
    pub seq: u64,
    /// Its number in the mailbox; 0: it has none.
    pub pos: u64,
    /// The seq before it that this account got; where it is not said, nothing is missed before it.
    pub prev: Option<u64>,
    /// The sender.
    pub from: String,
    /// When the broker took it, milliseconds since 1970.
    pub ts: u64,
    /// The sender's id for it.
    pub id: Option<String>,
    /// Text.
    pub text: Option<String>,
    /// What kind it is; `text` or `json` when absent.
    pub kind: Option<String>,
    /// JSON.
    pub body: Option<Value>,
    /// Bytes that are no text, as base64.
    pub data: Option<String>,
    /// The seq it answers.
    pub re: Option<u64>,
    /// `false`: quiet, does not count as unread.
    pub notify: Option<bool>,
    /// Milliseconds until nobody may have it any more.
    pub left_ms: Option<u64>,
    /// The text is what those get who do not understand the kind.
    pub fallback: bool,
    /// It was said before this terminal was first seen.
    pub backfill: bool,
    /// It was recalled, or its time was over, before this was asked for; it is empty.
    pub gone: bool,
    /// When an edit replaced it.
    #[serde(rename = "edited")]
    pub edited_ts: Option<u64>,
}

/// Marks as they come.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
pub struct Receipt {
    /// Groups: of which message.
    pub seq: u64,
    /// Delivered up to here; groups: to how many.
    pub recv: u64,
    /// Read up to here; groups: by how many.
    pub read: u64,
    /// Groups: how many there are.
    pub of: Option<u64>,
    /// It is the own mark, set by another terminal.
    #[serde(rename = "self")]
    pub own: bool,
}

/// Why something did not happen.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct Refusal {
    /// The code of section 10.
    pub code: String,
    /// What happened and what to do.
    pub text: String,
    /// The client id of what was refused.
    pub id: Option<String>,
}

/// A conversation in few words.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
pub struct Summary {
    /// Its address.
    pub addr: String,
    /// `direct`, `group`, `channel`, `room`.
    pub kind: String,
    /// Its name for people.
    pub name: String,
    /// Its last seq.
    pub seq: u64,
    /// Unread messages.
    pub unread: u64,
    /// The own mark.
    pub read: u64,
    /// Whether it makes no sound.
    pub muted: bool,
    /// Its last message in short.
    pub last: Option<Last>,
}

/// The last message of a conversation in short.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
pub struct Last {
    /// Its number.
    pub seq: u64,
    /// Who said it.
    pub from: String,
    /// How it begins.
    pub text: String,
    /// When.
    pub ts: u64,
}

/// How a command goes.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
pub struct Report {
    /// Who carries it out.
    pub device: String,
    /// Its name.
    pub name: String,
    /// `queued` … `done`.
    pub state: String,
    /// What the device answered.
    pub result: Option<Value>,
    /// What the device or the broker says about it.
    pub text: Option<String>,
    /// When.
    pub ts: u64,
}

/// Whether somebody can be reached.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
pub struct Presence {
    /// `online`, `away`, `asleep`, `offline`.
    pub state: String,
    /// Since when.
    pub since: u64,
    /// When seen last.
    pub seen: Option<u64>,
    /// Asleep: until when.
    pub until: Option<u64>,
}

/// What a device says it is like, and what it should be like.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
pub struct DeviceState {
    /// Counts changes.
    pub version: u64,
    /// As it is.
    pub reported: Map<String, Value>,
    /// As it should be.
    pub desired: Map<String, Value>,
    /// Who caused the change.
    pub by: Option<String>,
}

/// A command as the device gets it.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
pub struct Order {
    /// Its arguments.
    pub args: Value,
    /// Who gave it.
    pub from: String,
    /// Milliseconds until it is too late.
    pub left_ms: Option<u64>,
    /// Must never be begun twice.
    pub once: bool,
}

/// It is not what the protocol says comes on that topic.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// Not below `im/v1/`.
    #[error("`{0}` is no topic of messaging")]
    Topic(String),
    /// Not the JSON it should be.
    #[error("what came on `{topic}` cannot be read: {error}; is the broker of another version?")]
    Payload {
        /// Where it came.
        topic: String,
        /// What is wrong.
        error: serde_json::Error,
    },
}

/// Reads what came on a topic.
pub fn read(topic: &str, payload: &[u8]) -> Result<Told, Unreadable> {
    let below = topic.strip_prefix("im/v1/").ok_or_else(|| Unreadable::Topic(topic.to_owned()))?;
    let levels: Vec<&str> = below.split('/').collect();
    if let ["me", "in", with, "stream", name] = levels[..] {
        let what = Event::Stream { with: with.to_owned(), name: name.to_owned(), payload: payload.to_vec() };
        return Ok(Told { body: serde_json::from_slice(payload).unwrap_or(Value::Null), ..what.into() });
    }
    if let ["presence", _, "avail"] = levels[..] {
        return Ok(Event::Other { topic: below.to_owned() }.into());
    }
    if payload.is_empty() {
        return Ok(Event::Gone { topic: below.to_owned() }.into());
    }
    let unreadable = |error| Unreadable::Payload { topic: topic.to_owned(), error };
    let body = Value::Object(serde_json::from_slice(payload).map_err(unreadable)?);
    let what = what(below, &levels, &body).map_err(unreadable)?;
    Ok(Told { body, ..what.into() })
}

fn what(below: &str, levels: &[&str], body: &Value) -> Result<Event, serde_json::Error> {
    let text = |key: &str| body[key].as_str().map(str::to_owned);
    let number = |key: &str| body[key].as_u64().unwrap_or_default();
    Ok(match *levels {
        ["me", "in", with, kind] => incoming(with, kind, below, body)?,
        ["me", "sent"] => Event::Sent {
            with: text("to").unwrap_or_default(),
            message: Message::read(body)?,
            dup: body["dup"].as_bool().unwrap_or_default(),
        },
        ["me", "head"] => Event::Head { unread: number("unread") },
        ["me", "err"] => Event::Refused { re: text("re").unwrap_or_default(), refusal: Refusal::deserialize(body)? },
        ["me", "cmd", id, name] => {
            Event::Command { id: id.to_owned(), name: name.to_owned(), order: Order::deserialize(body)? }
        }
        ["me", "delta"] => Event::Delta {
            version: number("version"),
            desired: body["desired"].as_object().cloned().unwrap_or_default(),
        },
        // An account may be called `res`: only an answer says what it answers.
        ["me", .., "res"] if body.get("re").is_some() => {
            // Said with and without the `me/` that all of them have.
            let re = text("re").unwrap_or_default();
            Event::Answer { re: re.strip_prefix("me/").unwrap_or(&re).to_owned(), id: text("id") }
        }
        ["me", "res", id] => Event::CommandResult { id: id.to_owned(), report: Report::deserialize(body)? },
        ["me", "conv", with] => Event::Conversation { with: with.to_owned(), summary: Summary::deserialize(body)? },
        ["presence", with] => Event::Presence { with: with.to_owned(), presence: Presence::deserialize(body)? },
        ["state", device] => Event::State { device: device.to_owned(), state: DeviceState::deserialize(body)? },
        _ => Event::Other { topic: below.to_owned() },
    })
}

/// What comes below `me/in/`.
fn incoming(with: &str, kind: &str, below: &str, body: &Value) -> Result<Event, serde_json::Error> {
    let text = |key: &str| body[key].as_str().map(str::to_owned);
    let number = |key: &str| body[key].as_u64();
    let with = with.to_owned();
    Ok(match kind {
        "msg" => Event::Message { with, message: Message::read(body)? },
        "receipt" => Event::Receipt { with, receipt: Receipt::deserialize(body)? },
        "recall" => Event::Recall {
            seq: number("seq").unwrap_or_default(),
            by: text("by").unwrap_or_else(|| with.clone()),
            with,
        },
        "edit" => Event::Edit { with, message: Message::read(body)? },
        "contact" => Event::Contact {
            with,
            op: text("op").unwrap_or_default(),
            text: text("text"),
            own: body["self"].as_bool().unwrap_or_default(),
        },
        "typing" => Event::Typing {
            from: text("from").unwrap_or_else(|| with.clone()),
            with,
            typing: body["typing"].as_bool().unwrap_or(true),
        },
        "bounce" => Event::Bounce { with, refusal: Refusal::deserialize(body)?, seq: number("seq") },
        "gap" => Event::Gap {
            from: number("from").unwrap_or_default(),
            to: number("to").unwrap_or_default(),
            why: text("why").unwrap_or_default(),
        },
        _ => Event::Other { topic: below.to_owned() },
    })
}

impl Message {
    /// Reads one; a message has a number.
    pub fn read(body: &Value) -> Result<Self, serde_json::Error> {
        let message = Self::deserialize(body)?;
        if message.seq == 0 { Err(serde::de::Error::custom("it has no seq")) } else { Ok(message) }
    }

    /// What a person reads: the text, or the body or data in a form that can be shown.
    pub fn shown(&self) -> String {
        if self.gone {
            return "(recalled or expired)".to_owned();
        }
        match (&self.text, &self.body, &self.data) {
            (_, Some(body), _) if self.kind.as_deref() == Some("member") => membership(body),
            (Some(text), ..) if self.fallback => format!("{text} (shortened: this client is older than the message)"),
            (Some(text), ..) => text.clone(),
            (None, Some(body), _) => body.to_string(),
            (None, None, Some(data)) => format!("({} bytes of data)", data.len() / 4 * 3),
            (None, None, None) => String::new(),
        }
    }

    /// Whether it counts as unread for `me`.
    pub fn counts(&self, me: &str) -> bool {
        self.from != me && self.notify != Some(false) && !self.gone
    }
}

/// A change of a group's membership in words.
fn membership(body: &Value) -> String {
    let word = |key: &str| body[key].as_str().unwrap_or_default();
    match word("op") {
        "create" => "made this group".to_owned(),
        "add" => format!("added {} as {}", word("who"), word("role")),
        "remove" => format!("removed {}", word("who")),
        "role" => format!("made {} {}", word("who"), word("role")),
        "leave" => "left".to_owned(),
        "rename" => format!("called this `{}`", word("name")),
        "dissolve" => "dissolved this group".to_owned(),
        _ => body.to_string(),
    }
}
