//! Reads the frames that a server sends to a device.

#[cfg(any(feature = "topics", feature = "pairing"))]
use super::IM;
use crate::error::Refusal;
#[cfg(feature = "messages")]
use crate::json::Text;
#[cfg(feature = "pairing")]
use crate::json::Value;
#[cfg(feature = "messages")]
use crate::wire::Message;
use crate::wire::{Incoming, Welcome, What, closed};
#[cfg(feature = "messages")]
use parlor_protocol::link::flags;

/// Discriminants of frames from the server.
mod down {
    pub(super) const WELCOME: u32 = 0;
    pub(super) const CLOSE: u32 = 2;
    pub(super) const ACCEPTED: u32 = 3;
    pub(super) const REFUSED: u32 = 4;
    pub(super) const DELIVER: u32 = 5;
    pub(super) const CONTACT: u32 = 10;
    pub(super) const BOUNCE: u32 = 13;
    #[cfg(feature = "commands")]
    pub(super) const COMMAND: u32 = 17;
    #[cfg(feature = "state")]
    pub(super) const DELTA: u32 = 21;
    #[cfg(any(feature = "update", feature = "pairing"))]
    pub(super) const ANSWER: u32 = 25;
    pub(super) const PUBLISH: u32 = 26;
    pub(super) const SUBSCRIBED: u32 = 27;
    pub(super) const COMMAND_CANCELED: u32 = 30;
}

/// Reads fields in the format of postcard. What is not there reads as nothing; that it was not is known at the end.
struct Reader<'a> {
    rest: &'a [u8],
    bad: bool,
}

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> &'a [u8] {
        match self.rest.split_at_checked(len) {
            Some((taken, rest)) => {
                self.rest = rest;
                taken
            }
            None => {
                self.bad = true;
                &[]
            }
        }
    }

    #[inline(never)]
    fn byte(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or(0)
    }

    #[inline(never)]
    fn number(&mut self) -> u64 {
        let mut value = 0;
        let mut shift = 0;
        loop {
            let byte = self.byte();
            value |= u64::from(byte & 0x7F) << shift;
            if byte & 0x80 == 0 {
                return value;
            }
            shift += 7;
            if shift > 63 {
                self.bad = true;
                return 0;
            }
        }
    }

    fn short(&mut self) -> u16 {
        let number = self.number();
        self.bad |= number > 0xFFFF;
        (number & 0xFFFF) as u16
    }

    #[inline(never)]
    fn bytes(&mut self) -> &'a [u8] {
        let len = usize::try_from(self.number()).unwrap_or(usize::MAX);
        self.take(len)
    }

    #[inline(never)]
    fn text(&mut self) -> &'a str {
        let text = core::str::from_utf8(self.bytes());
        self.bad |= text.is_err();
        text.unwrap_or("")
    }

    fn flag(&mut self) -> bool {
        let byte = self.byte();
        self.bad |= byte > 1;
        byte == 1
    }

    /// A number that may be absent: then 0.
    #[cfg(feature = "messages")]
    fn maybe_number(&mut self) -> u64 {
        if self.flag() { self.number() } else { 0 }
    }
}

/// `None`: it is no frame.
pub(super) fn incoming(fields: &[u8]) -> Option<Incoming<'_>> {
    let mut reader = Reader { rest: fields, bad: false };
    let from = &mut reader;
    let tag = u32::try_from(from.number()).unwrap_or(u32::MAX);
    let incoming = match tag {
        down::WELCOME => {
            let (_level, _schema) = (from.number(), from.number());
            let (_account, _terminal) = (from.bytes(), from.bytes());
            let session_present = from.flag();
            let (keep_alive_s, _expiry) = (from.short(), from.number());
            let (frame_max, receive_max) = (from.short(), from.short());
            Incoming::Welcome(Welcome {
                session_present,
                keep_alive_s: Some(keep_alive_s),
                receive_max,
                frame_max: usize::from(frame_max) + 2,
            })
        }
        down::CLOSE => {
            let (code, text) = (from.byte(), from.bytes());
            Incoming::Closed(closed(code, text))
        }
        down::ACCEPTED => Incoming::Done { pid: from.short(), result: Ok(from.number()) },
        down::REFUSED => Incoming::Done { pid: from.short(), result: Err(refusal(from.byte())) },
        down::SUBSCRIBED => Incoming::Subscribed { pid: from.short(), ok: from.byte() < 0x80 },
        // All that may want an acknowledgement has the packet identifier in front.
        down::DELIVER..=down::CONTACT | down::BOUNCE..=down::PUBLISH | down::COMMAND_CANCELED => {
            let pid = from.short();
            Incoming::Delivery { pid, what: what(tag, from) }
        }
        _ => Incoming::Nothing,
    };
    if reader.bad { None } else { Some(incoming) }
}

fn what<'a>(tag: u32, from: &mut Reader<'a>) -> What<'a> {
    let bad = from.bad;
    let dup = from.flag();
    match tag {
        #[cfg(feature = "messages")]
        down::DELIVER => message(from),
        #[cfg(feature = "commands")]
        down::COMMAND => What::Command {
            id: from.text(),
            name: from.text(),
            from: from.text(),
            args: from.text(),
            left_ms: Some(from.number()),
            once: from.flag(),
        },
        #[cfg(feature = "commands")]
        down::COMMAND_CANCELED => What::Cancel { id: from.text() },
        #[cfg(feature = "state")]
        down::DELTA => {
            let _version = from.number();
            What::Delta { desired: from.text() }
        }
        #[cfg(any(feature = "update", feature = "pairing"))]
        down::ANSWER => {
            let (topic, _re, _id) = (from.text(), from.bytes(), from.bytes());
            below_me(topic, from.bytes())
        }
        #[cfg(any(feature = "topics", feature = "pairing"))]
        down::PUBLISH => {
            let (_retain, topic, _properties) = (from.flag(), from.text(), from.bytes());
            let payload = from.bytes();
            match topic.strip_prefix(IM) {
                Some(path) => below_me(path, payload),
                #[cfg(feature = "topics")]
                None => What::Topic { topic, payload, dup },
                #[cfg(not(feature = "topics"))]
                None => What::Other,
            }
        }
        // Whatever it says.
        _ => {
            let _ = dup;
            from.bad = bad;
            What::Other
        }
    }
}

/// What has no frame of its own.
#[cfg(any(feature = "topics", feature = "pairing"))]
fn below_me<'a>(path: &str, payload: &'a [u8]) -> What<'a> {
    let _ = payload;
    match path {
        #[cfg(feature = "update")]
        "me/blob/res" => What::Blob(payload),
        #[cfg(feature = "pairing")]
        "me/paired" => {
            let value = core::str::from_utf8(payload).ok().and_then(Value::parse);
            value.and_then(crate::wire::paired).unwrap_or(What::Other)
        }
        _ => What::Other,
    }
}

#[cfg(feature = "messages")]
fn message<'a>(from: &mut Reader<'a>) -> What<'a> {
    let address = from.text();
    let (seq, pos, _prev) = (from.number(), from.number(), from.number());
    let (sender, _ts, _id, kind) = (from.text(), from.number(), from.bytes(), from.text());
    let (re, _level, _edited, _left) = (from.maybe_number(), from.number(), from.number(), from.maybe_number());
    let flags = from.byte();
    // Text, body, bytes, or text and body.
    let form = from.byte();
    let text = if matches!(form, 0 | 3) { from.text() } else { "" };
    let body = if matches!(form, 1 | 3) { from.text() } else { "" };
    match form {
        0 | 1 | 3 => {}
        2 => drop(from.bytes()),
        _ => from.bad = true,
    }
    if flags & flags::GONE != 0 {
        return What::Other;
    }
    What::Message(Message {
        address,
        from: sender,
        seq,
        pos,
        kind,
        text: Text::plain(text),
        body,
        re,
        backfill: flags & flags::BACKFILL != 0,
    })
}

/// From the byte of `Code`.
fn refusal(code: u8) -> Refusal {
    match code {
        1 => Refusal::BadRequest,
        2 => Refusal::BadTopic,
        3 => Refusal::NoAccount,
        4 => Refusal::NotFound,
        5 => Refusal::NoConsent,
        6 => Refusal::Blocked,
        7 | 16 => Refusal::Forbidden,
        8 => Refusal::IdReused,
        9 => Refusal::TooLate,
        11 => Refusal::Exists,
        12 => Refusal::TooLarge,
        13 => Refusal::Quota,
        15 => Refusal::LowSpace,
        code => Refusal::Other(code),
    }
}
