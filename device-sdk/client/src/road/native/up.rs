//! A publish as the frame that says the same.

use crate::model::up::{Effort, Publish};
use parlor_protocol::link::{Body, CommandState, PresenceState, Up};
use serde_json::{Map, Value};

/// Makes the frame of a publish and hands it to `then`; `id` is its packet identifier, 0 where no answer is wanted.
pub(super) fn with_frame<R>(publish: &Publish, id: u16, then: impl FnOnce(&Up<'_>) -> R) -> R {
    let (topic, payload) = (publish.topic.as_str(), publish.payload.as_slice());
    let Some(path) = topic.strip_prefix("im/v1/") else {
        return if publish.effort == Effort::Once && !publish.retain {
            then(&Up::Telemetry { topic, payload })
        } else {
            then(&Up::Publish { packet_id: id, retain: publish.retain, topic, properties: &[], payload })
        };
    };
    let object = serde_json::from_slice(payload).ok();
    let levels: Vec<&str> = path.split('/').collect();
    let parts = Parts::new(&levels, object.as_ref(), payload);
    match parts.frame(&levels, payload, id) {
        Some(frame) => then(&frame),
        // A request says everything else, and what has more to say than its frame.
        None => then(&Up::Request { packet_id: id, path, payload }),
    }
}

/// What a frame borrows that is not in the payload as it stands.
struct Parts<'a> {
    object: Option<&'a Map<String, Value>>,
    /// `body`, `args` or `result` as JSON.
    json: String,
    text: &'a str,
}

impl<'a> Parts<'a> {
    fn new(levels: &[&str], object: Option<&'a Map<String, Value>>, payload: &'a [u8]) -> Self {
        let key = match levels {
            ["to", _, "cmd", _] => "args",
            ["me", "cmdres", _] => "result",
            _ => "body",
        };
        let json = object.and_then(|object| object.get(key)).map(Value::to_string).unwrap_or_default();
        Self { object, json, text: std::str::from_utf8(payload).unwrap_or_default() }
    }

    /// Whether there are no other keys.
    fn only(&self, keys: &[&str]) -> Option<()> {
        self.object?.keys().all(|key| keys.contains(&key.as_str())).then_some(())
    }

    /// A text, or nothing; `None`: it is something else.
    fn str(&self, key: &str) -> Option<&'a str> {
        match self.object?.get(key) {
            None => Some(""),
            Some(Value::String(text)) => Some(text),
            Some(_) => None,
        }
    }

    #[allow(clippy::option_option, reason = "the outer one: this frame can say it")]
    fn number(&self, key: &str) -> Option<Option<u64>> {
        match self.object?.get(key) {
            None => Some(None),
            Some(value) => value.as_u64().map(Some),
        }
    }

    /// A number that is 0 where there is none; a 0 that is said has a meaning of its own.
    fn small<T: TryFrom<u64> + Default>(&self, key: &str) -> Option<T> {
        match self.number(key)? {
            None => Some(T::default()),
            Some(0) => None,
            Some(value) => T::try_from(value).ok(),
        }
    }

    fn flag(&self, key: &str) -> Option<bool> {
        match self.object?.get(key) {
            None => Some(false),
            Some(value) => value.as_bool(),
        }
    }

    fn body(&'a self) -> Option<Body<'a>> {
        let object = self.object?;
        Some(match (object.get("text"), object.contains_key("body")) {
            (Some(Value::String(text)), false) => Body::Text(text),
            (None, true) => Body::Json(&self.json),
            (Some(Value::String(text)), true) => Body::Both { text, json: &self.json },
            _ => return None,
        })
    }

    fn frame(&'a self, levels: &[&'a str], payload: &'a [u8], packet_id: u16) -> Option<Up<'a>> {
        Some(match *levels {
            ["to", to, "msg"] if packet_id != 0 => {
                self.only(&["id", "text", "body", "kind", "ttl_s", "re", "notify", "level", "fallback"])?;
                Up::Send {
                    packet_id,
                    to,
                    id: self.str("id")?,
                    kind: self.str("kind")?,
                    ttl_s: self.small("ttl_s")?,
                    re: self.number("re")?,
                    quiet: self.quiet()?,
                    level: self.small("level")?,
                    fallback: self.str("fallback")?,
                    body: self.body()?,
                }
            }
            ["to", to, "edit"] if packet_id != 0 => {
                self.only(&["seq", "text", "body", "kind", "re", "level", "fallback"])?;
                Up::Edit {
                    packet_id,
                    to,
                    seq: self.number("seq")??,
                    kind: self.str("kind")?,
                    re: self.number("re")?,
                    level: self.small("level")?,
                    fallback: self.str("fallback")?,
                    body: self.body()?,
                }
            }
            ["to", to, "receipt"] => {
                self.only(&["recv", "read"])?;
                Up::Receipt { packet_id, to, recv: self.small("recv")?, read: self.small("read")? }
            }
            ["to", to, "recall"] if packet_id != 0 => {
                self.only(&["seq"])?;
                Up::Recall { packet_id, to, seq: self.number("seq")?? }
            }
            ["to", to, "typing"] if payload.is_empty() => Up::Typing { to, on: true },
            ["to", to, "typing"] => {
                self.only(&["typing"])?;
                Up::Typing { to, on: self.object?.get("typing")?.as_bool()? }
            }
            ["to", to, "stream", name] => Up::Stream { to, name, payload },
            ["to", to, "cmd", name] if packet_id != 0 => {
                self.only(&["args", "id", "deadline_ms", "persist", "once"])?;
                self.object?.get("args")?;
                Up::Command {
                    packet_id,
                    to,
                    name,
                    id: self.str("id")?,
                    args: &self.json,
                    deadline_ms: self.small("deadline_ms")?,
                    persist: self.flag("persist")?,
                    once: self.flag("once")?,
                }
            }
            ["to", to, "cmdcancel", id] if packet_id != 0 => Up::CancelCommand { packet_id, to, id },
            ["to", to, "desired"] => {
                self.object?;
                Up::Desired { packet_id, to, patch: self.text }
            }
            ["me", "cmdres", id] if packet_id != 0 => {
                self.only(&["state", "result", "text"])?;
                let state = CommandState::parse(self.str("state")?)?;
                Up::CommandState { packet_id, id, state, result: &self.json, text: self.str("text")? }
            }
            ["me", "reported"] => {
                self.object?;
                Up::Reported { packet_id, patch: self.text }
            }
            ["me", "describe"] => {
                self.object?;
                Up::Describe { packet_id, json: self.text }
            }
            ["me", "status"] => {
                self.only(&["state", "for_s", "id"])?;
                let state = PresenceState::parse(self.str("state")?)?;
                Up::Status { packet_id, state, for_s: self.small("for_s")? }
            }
            ["me", "sync"] => {
                self.only(&["after", "max", "id"])?;
                Up::Sync { packet_id, id: self.str("id")?, after: self.number("after")?, max: self.small("max")? }
            }
            ["me", "history"] => {
                self.only(&["with", "before", "after", "since", "until", "max", "id"])?;
                Up::History {
                    packet_id,
                    id: self.str("id")?,
                    with: self.str("with").filter(|with| !with.is_empty())?,
                    before: self.number("before")?,
                    after: self.number("after")?,
                    since: self.number("since")?,
                    until: self.number("until")?,
                    max: self.small("max")?,
                }
            }
            ["me", "ack"] => {
                self.only(&["pos", "id"])?;
                Up::Synced { packet_id, pos: self.number("pos")?? }
            }
            _ => return None,
        })
    }

    fn quiet(&self) -> Option<bool> {
        match self.object?.get("notify") {
            None => Some(false),
            Some(value) => value.as_bool().map(|notify| !notify),
        }
    }
}
