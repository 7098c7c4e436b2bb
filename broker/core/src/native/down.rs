//! Packets for a native client as frames. The JSON below `im/v1/` becomes typed fields; what has no frame of its own goes
//! as `Answer` or `Publish` with the JSON as it is, so nothing is lost.

use super::{BULK, FIRST_LEVEL, json};
use base64ct::{Base64, Encoding};
use parlor_protocol::link::{
    Announcement, Body, Code, CommandState, Down, EncodeError, Message, PresenceState, encode, flags, frame_size,
};
use parlor_protocol::mqtt::{Ack, Packet, PacketId, Properties, Property, Publish, ReasonCode};

/// For whom frames are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct To {
    /// The client's level.
    pub(crate) level: u32,
    /// Longest frame it takes, bytes behind the length.
    pub(crate) frame_max: u16,
}

/// A frame is longer than the client takes, and nothing was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooLong;

impl To {
    /// Whether the client knows frames of this level.
    pub(super) fn knows(self, level: u32) -> bool {
        level <= self.level.max(FIRST_LEVEL)
    }

    /// Appends a frame.
    pub(crate) fn put(self, frame: &Down<'_>, out: &mut Vec<u8>) -> Result<(), TooLong> {
        if !self.knows(frame.level()) {
            // Whoever makes it asks first; a client that cannot know it is not harmed by its absence.
            return Ok(());
        }
        let start = out.len();
        match encode(frame, out) {
            Ok(len) if len - 2 <= usize::from(self.frame_max) => Ok(()),
            Ok(_) => {
                out.truncate(start);
                Err(TooLong)
            }
            Err(EncodeError::TooLong { .. } | EncodeError::BufferTooSmall { .. }) => Err(TooLong),
        }
    }
}

/// Appends the frames that say what `packet` says; none for packets that a native client has no use for.
pub(crate) fn packet(packet: &Packet<'_>, to: To, out: &mut Vec<u8>) -> Result<(), TooLong> {
    let frame = match packet {
        Packet::Publish(p) => return publish(p, to, out),
        Packet::PubAck(ack) | Packet::PubRec(ack) | Packet::PubComp(ack) => answer(ack),
        Packet::SubAck(ack) => Down::Subscribed { packet_id: ack.packet_id.value(), code: first(ack.reasons) },
        Packet::UnsubAck(ack) => Down::Unsubscribed { packet_id: ack.packet_id.value(), code: first(ack.reasons) },
        Packet::PingResp => Down::Pong {},
        Packet::ConnAck(ack) if ack.reason.is_error() => close(ack.reason, ack.properties),
        Packet::Disconnect(d) => close(d.reason, d.properties),
        // Those that only a client sends, Welcome (which says more), and steps of QoS 2 and of AUTH, which a native link
        // has not.
        _ => return Ok(()),
    };
    to.put(&frame, out)
}

fn first(reasons: &[u8]) -> u8 {
    reasons.first().copied().unwrap_or(ReasonCode::UNSPECIFIED_ERROR.0)
}

fn close(reason: ReasonCode, properties: Properties<'_>) -> Down<'_> {
    Down::Close { code: reason.0, text: properties.reason_string().unwrap_or(reason.name()) }
}

/// PUBACK: done, with the message's number; or refused, with a reason string `code: text`.
fn answer<'a>(ack: &Ack<'a>) -> Down<'a> {
    let packet_id = ack.packet_id.value();
    if !ack.reason.is_error() {
        let user = |wanted| {
            ack.properties.iter().find_map(|property| match property {
                Property::UserProperty(name, value) if name == wanted => Some(value),
                _ => None,
            })
        };
        let seq = user("im-seq").and_then(|seq| seq.parse().ok()).unwrap_or(0);
        return Down::Accepted { packet_id, seq, dup: user("im-dup").is_some() };
    }
    let said = ack.properties.reason_string().unwrap_or(ack.reason.name());
    let named = said.split_once(": ").and_then(|(code, text)| Some((Code::parse(code)?, text)));
    let (code, text) = named.unwrap_or_else(|| (code_of(ack.reason), said));
    Down::Refused { packet_id, code, text }
}

/// The code of a refusal that names none.
fn code_of(reason: ReasonCode) -> Code {
    match reason {
        ReasonCode::NOT_AUTHORIZED => Code::NotAllowed,
        ReasonCode::QUOTA_EXCEEDED => Code::Quota,
        ReasonCode::TOPIC_NAME_INVALID => Code::BadTopic,
        ReasonCode::PAYLOAD_FORMAT_INVALID => Code::BadRequest,
        _ => Code::Failed,
    }
}

/// One thing that is told below `im/v1/`, or to an ordinary topic.
#[derive(Clone, Copy)]
struct Told<'a> {
    packet_id: u16,
    dup: bool,
    retain: bool,
    topic: &'a str,
    properties: &'a [u8],
    payload: &'a [u8],
}

/// Appends the frames of a PUBLISH.
pub(crate) fn publish(p: &Publish<'_>, to: To, out: &mut Vec<u8>) -> Result<(), TooLong> {
    let told = Told {
        packet_id: p.packet_id.map_or(0, PacketId::value),
        dup: p.dup,
        retain: p.retain,
        topic: p.topic,
        properties: p.properties.as_bytes(),
        payload: p.payload,
    };
    // What belongs to a request beyond its id has no place in frames.
    if p.topic.starts_with("im/") && p.properties.correlation_data().is_none() {
        return told.put(to, out);
    }
    told.put_plain(to, out)
}

/// A frame was written, or why not.
type Put = Option<Result<(), TooLong>>;

impl<'a> Told<'a> {
    fn put(&self, to: To, out: &mut Vec<u8>) -> Result<(), TooLong> {
        self.put_typed(to, out).unwrap_or_else(|| self.put_plain(to, out))
    }

    /// As it is.
    fn put_plain(&self, to: To, out: &mut Vec<u8>) -> Result<(), TooLong> {
        let Self { packet_id, dup, retain, topic, properties, payload } = *self;
        to.put(&Down::Publish { packet_id, dup, retain, topic, properties, payload }, out)
    }

    /// `None`: there is no frame for it.
    fn put_typed(&self, to: To, out: &mut Vec<u8>) -> Put {
        let path = self.topic.strip_prefix("im/v1/")?;
        let mut levels = path.split('/');
        let place: [&str; 5] = core::array::from_fn(|_| levels.next().unwrap_or_default());
        if levels.next().is_some() {
            return None;
        }
        let Self { packet_id, dup, payload, .. } = *self;
        if let ["me", "in", address, "stream", name] = place {
            // It has no packet identifier, whatever was subscribed with.
            return (packet_id == 0).then(|| to.put(&Down::Stream { address, name, payload }, out));
        }
        let text = core::str::from_utf8(payload).ok()?;
        let mut put = |frame: Down<'_>| to.knows(frame.level()).then(|| to.put(&frame, out));
        match place {
            ["me", "in", address, word, ""] if !word.is_empty() => self.put_in(address, word, text, to, out),
            ["me", "sent", "", "", ""] => {
                let said: json::Message<'_> = serde_json::from_str(text).ok()?;
                if !said.by.is_empty() {
                    return None;
                }
                said.with(|message| put(Down::Sent { packet_id, dup, to: &said.to, message }))
            }
            ["me", "head", "", "", ""] => {
                let json::Head { pos, floor, unread, by } = serde_json::from_str(text).ok()?;
                put(Down::Head { packet_id, dup, pos, floor, unread, by: by.get() })
            }
            ["me", "err", "", "", ""] => {
                let said: json::Refusal<'_> = serde_json::from_str(text).ok()?;
                if (said.pos, said.seq) != (0, 0) {
                    return None;
                }
                let code = Code::parse(&said.code)?;
                put(Down::Error { packet_id, dup, re: &said.re, id: &said.id, code, text: &said.text })
            }
            ["me", "cmd", id, "$cancel", ""] if text == "{}" => put(Down::CommandCanceled { packet_id, dup, id }),
            ["me", "cmd", id, name, ""] if !name.is_empty() => {
                let json::Command { args, from, left_ms, once } = serde_json::from_str(text).ok()?;
                put(Down::Command { packet_id, dup, id, name, from: &from, args: args.get(), left_ms, once })
            }
            ["me", "delta", "", "", ""] => {
                let json::Delta { version, desired } = serde_json::from_str(text).ok()?;
                put(Down::Delta { packet_id, dup, version, desired: desired.get() })
            }
            ["me", "res", id, "", ""] if !id.is_empty() => {
                self.put_result(text, to, out).or_else(|| self.put_answer(path, text, to, out))
            }
            // An account may be called `res`: what is no answer is the line of a conversation.
            ["me", "conv", address, "", ""] if address != "res" || !is_answer(text) => {
                put(Down::Conversation { packet_id, dup, address, json: text })
            }
            ["me", _, "res", "", ""] | ["me", "paired", "", "", ""] => self.put_answer(path, text, to, out),
            ["presence", address, "", "", ""] => self.put_presence(address, text, to, out),
            ["state", device, "", "", ""] if text.is_empty() => {
                put(Down::State { packet_id, dup, device, version: 0, reported: "", desired: "", by: "", ts: 0 })
            }
            ["state", device, "", "", ""] => {
                let json::State { version, reported, desired, by, ts } = serde_json::from_str(text).ok()?;
                let (reported, desired, by) = (reported.get(), desired.get(), by.as_deref().unwrap_or_default());
                put(Down::State { packet_id, dup, device, version, reported, desired, by, ts })
            }
            _ => None,
        }
    }

    /// Below `me/in/{address}/`.
    fn put_in(&self, address: &'a str, word: &str, text: &'a str, to: To, out: &mut Vec<u8>) -> Put {
        let Self { packet_id, dup, .. } = *self;
        let mut put = |frame: Down<'_>| to.knows(frame.level()).then(|| to.put(&frame, out));
        match word {
            "msg" => {
                let said: json::Message<'_> = serde_json::from_str(text).ok()?;
                if !said.to.is_empty() || !said.by.is_empty() {
                    return None;
                }
                said.with(|message| put(Down::Deliver { packet_id, dup, address, message }))
            }
            "edit" => {
                let said: json::Message<'_> = serde_json::from_str(text).ok()?;
                if !said.to.is_empty() {
                    return None;
                }
                said.with(|message| put(Down::Edit { packet_id, dup, address, by: &said.by, message }))
            }
            "receipt" => {
                let json::Receipt { pos, seq, recv, read, by, of, own, unread } = serde_json::from_str(text).ok()?;
                if own != unread.is_some() {
                    return None;
                }
                let by = &*by;
                put(Down::Receipt { packet_id, dup, address, pos, seq, recv, read, by, of, own_unread: unread })
            }
            "recall" => {
                let said: json::Recall<'_> = serde_json::from_str(text).ok()?;
                if said.prev != 0 {
                    return None;
                }
                let announcement =
                    said.entry.map(|entry| Announcement { entry, change: said.change, version: said.version });
                let json::Recall { pos, seq, by, ts, .. } = &said;
                put(Down::Recall { packet_id, dup, address, pos: *pos, seq: *seq, by, ts: *ts, announcement })
            }
            "contact" => {
                let json::Contact { pos, op, text, ts, own } = serde_json::from_str(text).ok()?;
                put(Down::Contact { packet_id, dup, address, pos, op: &op, text: &text, ts, own })
            }
            "typing" => {
                let json::Typing { from, typing } = serde_json::from_str(text).ok()?;
                if packet_id != 0 {
                    return None;
                }
                put(Down::Typing { address, from: &from, on: typing })
            }
            "bounce" => {
                let said: json::Refusal<'_> = serde_json::from_str(text).ok()?;
                let code = Code::parse(&said.code)?;
                let json::Refusal { pos, seq, re, id, text, .. } = &said;
                put(Down::Bounce { packet_id, dup, address, pos: *pos, seq: *seq, re, id, code, text })
            }
            "gap" => {
                let json::Gap { from, to, why } = serde_json::from_str(text).ok()?;
                put(Down::Gap { packet_id, dup, from, to, why: &why })
            }
            _ => None,
        }
    }

    fn put_result(&self, text: &str, to: To, out: &mut Vec<u8>) -> Put {
        let Self { packet_id, dup, .. } = *self;
        let json::CommandResult { re, id, pos, device, name, state, result, text, ts } =
            serde_json::from_str(text).ok()?;
        let of_it = || re.strip_prefix("to/")?.strip_prefix(&*device)?.strip_prefix("/cmd/")?.strip_prefix(&*name);
        if !re.is_empty() && of_it() != Some("") {
            return None;
        }
        let result = result.map_or("", |result| result.get());
        let frame = Down::CommandResult {
            packet_id,
            dup,
            id: &id,
            pos,
            device: &device,
            name: &name,
            state: CommandState::parse(&state)?,
            result,
            text: &text,
            ts,
        };
        to.knows(frame.level()).then(|| to.put(&frame, out))
    }

    fn put_presence(&self, address: &str, text: &str, to: To, out: &mut Vec<u8>) -> Put {
        let Self { packet_id, dup, .. } = *self;
        let mut frame = Down::Presence {
            packet_id,
            dup,
            address,
            state: PresenceState::Hidden,
            since: 0,
            seen: 0,
            terminals: 0,
            until: 0,
            epoch: 0,
        };
        if !text.is_empty() {
            let json::Presence { state, since, seen, terminals, until, epoch } = serde_json::from_str(text).ok()?;
            let state = PresenceState::parse(&state)?;
            frame = Down::Presence { packet_id, dup, address, state, since, seen, terminals, until, epoch };
        }
        to.knows(frame.level()).then(|| to.put(&frame, out))
    }

    fn put_answer(&self, path: &str, text: &str, to: To, out: &mut Vec<u8>) -> Put {
        let Self { packet_id, dup, .. } = *self;
        let json::Answer { re, id } = serde_json::from_str(text).ok()?;
        let page = match &*re {
            "me/sync" => self.put_sync(text, to, out),
            "me/history" => self.put_history(text, to, out),
            _ => None,
        };
        if page.is_some() {
            return page;
        }
        let id = id.and_then(|id| serde_json::from_str::<json::Text<'_>>(id.get()).ok()).unwrap_or_default();
        let asked_there;
        let topic = if self.topic.starts_with(BULK) {
            let request = re.strip_prefix("me/").unwrap_or(&re).split('/').next().unwrap_or_default();
            asked_there = format!("me/{request}/res");
            &asked_there
        } else {
            path
        };
        let frame = Down::Answer { packet_id, dup, topic, re: &re, id: &id, json: text };
        if !to.knows(frame.level()) {
            return None;
        }
        // Whoever asks must not wait for an answer that cannot come.
        let written = to.put(&frame, out).or_else(|TooLong| {
            let most = to.frame_max;
            let text = format!("the answer has {} bytes, a frame for you at most {most}: ask for less", text.len());
            let (re, id, code) = (&*re, &*id, Code::TooLarge);
            to.put(&Down::Error { packet_id, dup, re, id, code, text: &text }, out)
        });
        Some(written)
    }

    fn put_sync(&self, text: &str, to: To, out: &mut Vec<u8>) -> Put {
        let page: json::SyncPage<'_> = serde_json::from_str(text).ok()?;
        let json::SyncPage { id, pos, head, floor, more, entries, .. } = &page;
        let count = u16::try_from(entries.len()).ok()?;
        let (packet_id, pos, head, floor, more) = (self.packet_id, *pos, *head, *floor, *more);
        let frame = Down::SyncPage { packet_id, id, pos, head, floor, more, count };
        if !to.knows(frame.level()) {
            return None;
        }
        if to.put(&frame, out).is_err() {
            return Some(Err(TooLong));
        }
        for entry in entries {
            put_entry(&entry.topic, entry.payload.get(), to, out);
        }
        Some(Ok(()))
    }

    fn put_history(&self, text: &str, to: To, out: &mut Vec<u8>) -> Put {
        let page: json::HistoryPage<'_> = serde_json::from_str(text).ok()?;
        let json::HistoryPage { id, with, more, next, messages, .. } = &page;
        let count = u16::try_from(messages.len()).ok()?;
        let frame = Down::HistoryPage { packet_id: self.packet_id, id, with, more: *more, next: *next, count };
        if !to.knows(frame.level()) {
            return None;
        }
        if to.put(&frame, out).is_err() {
            return Some(Err(TooLong));
        }
        let topic = format!("im/v1/me/in/{}/msg", &**with);
        for message in messages {
            put_entry(&topic, message.get(), to, out);
        }
        Some(Ok(()))
    }
}

fn is_answer(text: &str) -> bool {
    serde_json::from_str::<json::Answer<'_>>(text).is_ok_and(|answer| !answer.re.is_empty())
}

/// One entry of a page: exactly one frame.
fn put_entry(topic: &str, payload: &str, to: To, out: &mut Vec<u8>) {
    let told = Told { packet_id: 0, dup: false, retain: false, topic, properties: &[], payload: payload.as_bytes() };
    if told.put(to, out).is_ok() {
        return;
    }
    let address = topic.strip_prefix("im/v1/me/in/").and_then(|rest| rest.split('/').next()).unwrap_or_default();
    let said = serde_json::from_str::<json::Message<'_>>(payload).ok();
    let (seq, pos) = said.map_or((0, 0), |said| (said.seq, said.pos));
    let plain =
        Down::Publish { packet_id: 0, dup: false, retain: false, topic, properties: &[], payload: payload.as_bytes() };
    let omitted = Down::Omitted { address, seq, pos, bytes: frame_size(&plain) as u64 };
    // It is far shorter than the page's own frame, which was written.
    let written = to.put(&omitted, out);
    debug_assert!(written.is_ok(), "a client that takes a page takes this");
}

impl json::Message<'_> {
    /// The message as frames have it; `None` if they have no place for what it says.
    fn with(&self, then: impl FnOnce(Message<'_>) -> Put) -> Put {
        let bytes;
        let body = match (&self.text, self.body, &self.data) {
            (Some(text), None, None) => Body::Text(text),
            (None, Some(body), None) => Body::Json(body.get()),
            (Some(text), Some(body), None) => Body::Both { text, json: body.get() },
            (None, None, Some(data)) => {
                bytes = Base64::decode_vec(data).ok()?;
                Body::Bytes(&bytes)
            }
            (None, None, None) => Body::Text(""),
            _ => return None,
        };
        let mut bits = 0;
        for (is_set, bit) in [
            (self.notify == Some(false), flags::QUIET),
            (self.fallback, flags::FALLBACK),
            (self.backfill, flags::BACKFILL),
            (self.gone, flags::GONE),
            (self.dup, flags::REPEATED),
        ] {
            bits |= if is_set { bit } else { 0 };
        }
        then(Message {
            seq: self.seq,
            pos: self.pos,
            prev: self.prev,
            from: &self.from,
            ts: self.ts,
            id: self.id.as_deref().unwrap_or_default(),
            kind: &self.kind,
            re: self.re,
            level: self.level,
            edited: self.edited,
            left_ms: self.left_ms,
            flags: bits,
            body,
            announcement: self.entry.map(|entry| Announcement { entry, change: self.change, version: self.version }),
        })
    }
}
