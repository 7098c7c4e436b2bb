//! Frames as the topics and payloads of docs/protocol.md that say the same.

use super::word;
use parlor_protocol::link::{Announcement, Body, Down as Frame, Message, PresenceState, flags};
use serde_json::{Map, Value, json};

/// An object that leaves out what is not said.
#[derive(Default)]
struct Object(Map<String, Value>);

impl Object {
    fn put(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.0.insert(key.to_owned(), value.into());
        self
    }

    fn some<T: Into<Value>>(self, key: &str, value: Option<T>) -> Self {
        match value {
            Some(value) => self.put(key, value),
            None => self,
        }
    }

    fn text(self, key: &str, text: &str) -> Self {
        if text.is_empty() { self } else { self.put(key, text) }
    }

    fn number(self, key: &str, number: u64) -> Self {
        if number == 0 { self } else { self.put(key, number) }
    }

    fn json(self, key: &str, text: &str) -> Self {
        if text.is_empty() { self } else { self.put(key, parsed(text)) }
    }

    fn flag(self, key: &str, is: bool) -> Self {
        if is { self.put(key, true) } else { self }
    }

    fn bytes(self) -> Vec<u8> {
        Value::Object(self.0).to_string().into_bytes()
    }
}

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or(Value::Null)
}

/// The packet identifier, topic, payload of a frame, and whether it is a value that is kept. `None`: it comes on no topic.
pub(super) fn topic(frame: &Frame<'_>, me: &str) -> Option<(u16, String, Vec<u8>, bool)> {
    let object = Object::default();
    let (packet_id, below, payload) = match *frame {
        Frame::Deliver { packet_id, address, ref message, .. } => {
            // What is said to be the first one has nothing missing before it.
            let all = self::message(message).put("prev", message.prev);
            (packet_id, format!("me/in/{address}/msg"), all.bytes())
        }
        Frame::Sent { packet_id, to, ref message, .. } if message.flags & flags::REPEATED != 0 => {
            let all = object.put("pos", 0).put("to", to).put("seq", message.seq).text("id", message.id);
            (packet_id, "me/sent".to_owned(), all.put("dup", true).bytes())
        }
        Frame::Sent { packet_id, to, ref message, .. } => {
            (packet_id, "me/sent".to_owned(), self::message(message).put("to", to).bytes())
        }
        Frame::Receipt { packet_id, address, pos, seq, recv, read, by, of, own_unread, .. } => {
            let all = object.put("pos", pos);
            let all = match own_unread {
                Some(unread) => all.put("self", true).put("read", read).put("unread", unread),
                None => all.put("seq", seq).put("recv", recv).put("read", read).text("by", by).some("of", of),
            };
            (packet_id, format!("me/in/{address}/receipt"), all.bytes())
        }
        Frame::Recall { packet_id, address, pos, seq, by, ts, announcement, .. } => {
            let all = object.put("pos", pos).put("seq", seq).text("by", by).number("ts", ts);
            (packet_id, format!("me/in/{address}/recall"), announced(all, announcement).bytes())
        }
        Frame::Edit { packet_id, address, by, ref message, .. } => {
            (packet_id, format!("me/in/{address}/edit"), self::message(message).text("by", by).bytes())
        }
        Frame::Contact { packet_id, address, pos, op, text, ts, own, .. } => {
            let all = object.put("pos", pos).put("op", op).text("text", text).put("ts", ts).flag("self", own);
            (packet_id, format!("me/in/{address}/contact"), all.bytes())
        }
        Frame::Typing { address, from, on } => {
            (0, format!("me/in/{address}/typing"), object.put("from", from).put("typing", on).bytes())
        }
        Frame::Stream { address, name, payload } => (0, format!("me/in/{address}/stream/{name}"), payload.to_vec()),
        Frame::Bounce { packet_id, address, pos, seq, re, id, code, text, .. } => {
            let all = object.put("pos", pos).number("seq", seq).text("re", re).text("id", id);
            (packet_id, format!("me/in/{address}/bounce"), all.put("code", word(code)).put("text", text).bytes())
        }
        Frame::Gap { packet_id, from, to, why, .. } => {
            let all = object.put("from", from).put("to", to).put("why", why);
            (packet_id, format!("me/in/{me}/gap"), all.bytes())
        }
        Frame::Head { packet_id, pos, floor, unread, by, .. } => {
            let all = object.put("pos", pos).put("floor", floor).put("unread", unread).json("by", by);
            (packet_id, "me/head".to_owned(), all.bytes())
        }
        Frame::Conversation { packet_id, address, json, .. } => {
            (packet_id, format!("me/conv/{address}"), json.as_bytes().to_vec())
        }
        Frame::Command { packet_id, id, name, from, args, left_ms, once, .. } => {
            let all = object.json("args", args).put("from", from).put("left_ms", left_ms).put("once", once);
            (packet_id, format!("me/cmd/{id}/{name}"), all.bytes())
        }
        Frame::CommandCanceled { packet_id, id, .. } => (packet_id, format!("me/cmd/{id}/$cancel"), object.bytes()),
        Frame::CommandResult { packet_id, id, pos, device, name, state, result, text, ts, .. } => {
            let all = object.put("pos", pos).put("id", id).put("device", device).put("name", name);
            let all = all.put("state", state.text()).json("result", result).text("text", text);
            (packet_id, format!("me/res/{id}"), all.put("ts", ts).bytes())
        }
        Frame::Presence { packet_id, address, state, since, seen, terminals, until, epoch, .. } => {
            let all = object.put("state", state.text()).put("since", since).put("seen", seen);
            let all = all.put("terminals", terminals).number("until", until).put("epoch", epoch);
            let payload = if state == PresenceState::Hidden { Vec::new() } else { all.bytes() };
            (packet_id, format!("presence/{address}"), payload)
        }
        Frame::State { packet_id, device, version, reported, desired, by, ts, .. } => {
            let all = object.put("version", version).json("reported", reported).json("desired", desired);
            let payload = if version == 0 { Vec::new() } else { all.text("by", by).put("ts", ts).bytes() };
            (packet_id, format!("state/{device}"), payload)
        }
        Frame::Delta { packet_id, version, desired, .. } => {
            (packet_id, "me/delta".to_owned(), object.put("version", version).json("desired", desired).bytes())
        }
        Frame::Error { packet_id, re, id, code, text, .. } => {
            let all = object.put("re", re).text("id", id).put("code", word(code)).put("text", text);
            (packet_id, "me/err".to_owned(), all.bytes())
        }
        Frame::Answer { packet_id, topic, json, .. } => (packet_id, topic.to_owned(), json.as_bytes().to_vec()),
        Frame::Publish { packet_id, retain, topic, payload, .. } => {
            return Some((packet_id, topic.to_owned(), payload.to_vec(), retain));
        }
        _ => return None,
    };
    Some((packet_id, format!("im/v1/{below}"), payload, false))
}

fn announced(object: Object, announcement: Option<Announcement>) -> Object {
    let Some(Announcement { entry, change, version }) = announcement else { return object };
    object.put("entry", entry).put("change", change).number("version", version)
}

/// A message, without `prev` where it is not said.
fn message(message: &Message<'_>) -> Object {
    let has = |flag: u8| message.flags & flag != 0;
    let all = Object::default().put("seq", message.seq).put("pos", message.pos).number("prev", message.prev);
    let all = all.text("from", message.from).number("ts", message.ts).text("id", message.id);
    let all = all.text("kind", message.kind).some("re", message.re).number("level", u64::from(message.level));
    let all = all.number("edited", message.edited).some("left_ms", message.left_ms);
    let all = all.some("notify", has(flags::QUIET).then_some(false)).flag("fallback", has(flags::FALLBACK));
    let all = all.flag("backfill", has(flags::BACKFILL)).flag("gone", has(flags::GONE));
    let all = announced(all, message.announcement);
    match message.body {
        Body::Text("") if has(flags::GONE) => all,
        Body::Text(text) => all.put("text", text),
        Body::Json(json) => all.put("body", parsed(json)),
        Body::Both { text, json } => all.put("text", text).put("body", parsed(json)),
        Body::Bytes(bytes) => all.put("data", base64(bytes)),
    }
}

/// RFC 4648 s4, with padding.
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let at = |index: usize| u32::from(three.get(index).copied().unwrap_or_default());
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        for (number, shift) in [18, 12, 6, 0].into_iter().enumerate() {
            let letter = LETTERS.get((bits >> shift & 63) as usize).copied().unwrap_or(b'=');
            text.push(if number <= three.len() { letter.into() } else { '=' });
        }
    }
    text
}

/// A page that comes as a frame with its entries behind it.
pub(super) struct Page {
    packet_id: u16,
    topic: &'static str,
    head: Map<String, Value>,
    key: &'static str,
    entries: Vec<Value>,
    left: u16,
}

impl Page {
    /// The page that a frame begins.
    pub fn begin(frame: &Frame<'_>) -> Option<Self> {
        match *frame {
            Frame::SyncPage { packet_id, id, pos, head, floor, more, count } => {
                let all = Object::default().put("re", "me/sync").text("id", id).put("pos", pos).put("head", head);
                let head = all.put("floor", floor).put("more", more).0;
                let (topic, key) = ("im/v1/me/sync/res", "entries");
                Some(Self { packet_id, topic, head, key, entries: Vec::new(), left: count })
            }
            Frame::HistoryPage { packet_id, id, with, more, next, count } => {
                let all = Object::default().put("re", "me/history").text("id", id).put("with", with);
                let head = all.put("more", more).number("next", next).0;
                let (topic, key) = ("im/v1/me/history/res", "messages");
                Some(Self { packet_id, topic, head, key, entries: Vec::new(), left: count })
            }
            _ => None,
        }
    }

    /// The next frame behind it.
    pub fn add(&mut self, frame: &Frame<'_>, me: &str) {
        self.left = self.left.saturating_sub(1);
        let entry = match (frame, self.key) {
            (Frame::Deliver { message, .. }, "messages") => Value::Object(self::message(message).0),
            (Frame::Omitted { seq, .. }, "messages") => json!({"seq": seq, "gone": true}),
            (frame, "entries") => match topic(frame, me) {
                Some((_, topic, payload, _)) => {
                    let payload =
                        serde_json::from_slice(&payload).unwrap_or_else(|_| json!(String::from_utf8_lossy(&payload)));
                    json!({"topic": topic, "payload": payload})
                }
                None => return,
            },
            _ => return,
        };
        self.entries.push(entry);
    }

    /// Whether all of its entries are there.
    pub fn is_complete(&self) -> bool {
        self.left == 0
    }

    /// Its packet identifier, topic and payload.
    pub fn finish(mut self) -> (u16, String, Vec<u8>) {
        self.head.insert(self.key.to_owned(), Value::Array(self.entries));
        (self.packet_id, self.topic.to_owned(), Value::Object(self.head).to_string().into_bytes())
    }
}
