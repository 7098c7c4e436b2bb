//! Parlor's native link (docs/protocol.md, section 12): what the same session says in frames that are a third as long.
//!
//! Frames are written and read here by hand, and only those that a device uses: the types of `parlor_protocol::link` know
//! all of them, and cost a board three times as much flash. Tests hold the two against each other.

use super::{Hello, Incoming, Item, Message, State, Subscribe, Welcome, What, Wire, closed};
use crate::bytes::Put;
use crate::error::{LinkError, Refusal};
use crate::json::{Text, Value, Writer};
use parlor_protocol::link::{LEVEL, SCHEMA, VERSION, flags, wants};
use parlor_protocol::mqtt::QoS;

/// The native link as a wire.
#[derive(Clone, Copy, Debug, Default)]
pub struct Native;

/// Discriminants of frames to the server.
mod up {
    pub(super) const HELLO: u8 = 0;
    pub(super) const PING: u8 = 1;
    pub(super) const BYE: u8 = 2;
    pub(super) const SEND: u8 = 3;
    pub(super) const ACK: u8 = 4;
    pub(super) const COMMAND_STATE: u8 = 13;
    pub(super) const REPORTED: u8 = 14;
    pub(super) const DESCRIBE: u8 = 16;
    pub(super) const STATUS: u8 = 17;
    pub(super) const REQUEST: u8 = 21;
    pub(super) const SUBSCRIBE: u8 = 22;
    pub(super) const PUBLISH: u8 = 24;
}

/// Discriminants of frames from the server.
mod down {
    pub(super) const WELCOME: u32 = 0;
    pub(super) const CLOSE: u32 = 2;
    pub(super) const ACCEPTED: u32 = 3;
    pub(super) const REFUSED: u32 = 4;
    pub(super) const DELIVER: u32 = 5;
    pub(super) const CONTACT: u32 = 10;
    pub(super) const BOUNCE: u32 = 13;
    pub(super) const COMMAND: u32 = 17;
    pub(super) const DELTA: u32 = 21;
    pub(super) const ANSWER: u32 = 25;
    pub(super) const PUBLISH: u32 = 26;
    pub(super) const SUBSCRIBED: u32 = 27;
    pub(super) const COMMAND_CANCELED: u32 = 30;
}

/// `im/v1/`, which paths of requests and answers leave out.
const IM: &str = "im/v1/";

/// The state `Asleep` of `Status`.
const ASLEEP: u8 = 3;

/// A frame: its length, version and discriminant, what `fields` writes, and room for `behind` bytes more.
fn framed(tag: u8, behind: usize, out: &mut [u8], fields: &mut dyn FnMut(&mut Fields<'_>)) -> Option<usize> {
    let (length, room) = out.split_first_chunk_mut::<2>()?;
    let mut to = Fields(Put::new(room));
    to.0.bytes(&[VERSION, tag]);
    fields(&mut to);
    let len = to.0.done()?;
    *length = u16::try_from(len + behind).ok()?.to_be_bytes();
    Some(len + 2)
}

/// Writes fields in the format of postcard.
struct Fields<'a>(Put<'a>);

impl Fields<'_> {
    fn number(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.u8((value & 0x7F) as u8 | 0x80);
            value >>= 7;
        }
        self.0.u8((value & 0x7F) as u8);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.bytes(bytes);
    }

    fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    fn flag(&mut self, flag: bool) {
        self.0.u8(u8::from(flag));
    }
}

impl Wire for Native {
    fn hello(&self, hello: &Hello<'_>, out: &mut [u8]) -> Option<usize> {
        let mut wanted = 0;
        if hello.listen.messages() {
            wanted |= wants::PUSH;
        }
        if hello.listen.commands() {
            wanted |= wants::COMMANDS;
        }
        framed(up::HELLO, 0, out, &mut |to| {
            to.number(LEVEL.into());
            to.number(SCHEMA);
            to.text(hello.account);
            to.bytes(hello.secret);
            to.text(hello.terminal);
            to.number(hello.keep_alive_s.into());
            to.number(if hello.clean { 0 } else { hello.expiry_s }.into());
            to.number(hello.receive_max.into());
            // Bytes behind the length.
            to.number(hello.frame_max.saturating_sub(2).min(0xFFFF) as u64);
            to.flag(hello.clean);
            to.number(wanted.into());
            to.number(hello.level.into());
            to.text(hello.platform);
            to.text(hello.app);
        })
    }

    fn decode<'a>(&self, bytes: &'a [u8]) -> Result<Option<(Incoming<'a>, usize)>, LinkError> {
        let Some((length, rest)) = bytes.split_first_chunk::<2>() else { return Ok(None) };
        let len = usize::from(u16::from_be_bytes(*length));
        let Some(frame) = rest.get(..len) else { return Ok(None) };
        match frame.split_first() {
            Some((&VERSION, fields)) => {
                let incoming = incoming(&mut Reader(fields)).ok_or(LinkError::Protocol)?;
                Ok(Some((incoming, len + 2)))
            }
            _ => Err(LinkError::Version),
        }
    }

    fn ack(&self, pid: u16, out: &mut [u8]) -> Option<usize> {
        framed(up::ACK, 0, out, &mut |to| to.number(pid.into()))
    }

    fn ping(&self, out: &mut [u8]) -> Option<usize> {
        framed(up::PING, 0, out, &mut |_| {})
    }

    fn bye(&self, out: &mut [u8]) -> Option<usize> {
        framed(up::BYE, 0, out, &mut |to| to.flag(false))
    }

    fn subscribe(&self, pid: u16, what: Subscribe<'_>, out: &mut [u8]) -> Option<usize> {
        // The first frame has subscribed to all that is Parlor's.
        let Subscribe::Topic(filter, qos) = what else { return Some(0) };
        framed(up::SUBSCRIBE, 0, out, &mut |to| {
            to.number(pid.into());
            to.text(filter);
            to.0.u8(u8::from(qos != QoS::AtMostOnce));
        })
    }

    fn item(&self, item: &Item<'_>, pid: u16, _dup: bool, out: &mut [u8]) -> Option<usize> {
        match *item {
            Item::Message { to: address, id, kind, text, body, re, ttl_s, quiet } => {
                framed(up::SEND, 0, out, &mut |to| {
                    to.number(pid.into());
                    to.text(address);
                    to.text(id);
                    to.text(kind);
                    to.number(ttl_s.into());
                    to.flag(re > 0);
                    if re > 0 {
                        to.number(re);
                    }
                    to.flag(quiet);
                    to.number(0);
                    to.text("");
                    match (text.is_empty(), body.is_empty()) {
                        (_, true) => {
                            to.0.u8(0);
                            to.text(text);
                        }
                        (true, false) => {
                            to.0.u8(1);
                            to.text(body);
                        }
                        (false, false) => {
                            to.0.u8(3);
                            to.text(text);
                            to.text(body);
                        }
                    }
                })
            }
            Item::Topic { topic, payload, acked, retain } => match topic.strip_prefix(IM) {
                Some(path) => request(if acked { pid } else { 0 }, path, payload, out),
                None => framed(up::PUBLISH, 0, out, &mut |to| {
                    to.number(if acked { pid } else { 0 }.into());
                    to.flag(retain);
                    to.text(topic);
                    to.text("");
                    to.bytes(payload);
                }),
            },
            Item::Reported { patch } => framed(up::REPORTED, 0, out, &mut |to| {
                to.number(pid.into());
                to.text(patch);
            }),
            Item::Result { id, state, text, result } => framed(up::COMMAND_STATE, 0, out, &mut |to| {
                to.number(pid.into());
                to.text(id);
                to.0.u8(match state {
                    State::Running => 4,
                    State::Done => 5,
                    State::Failed => 6,
                    State::Rejected => 7,
                    State::UnknownOutcome => 11,
                });
                to.text(result);
                to.text(text);
            }),
        }
    }

    fn describe(&self, pid: u16, len: usize, out: &mut [u8]) -> Option<usize> {
        framed(up::DESCRIBE, len, out, &mut |to| {
            to.number(pid.into());
            to.number(len as u64);
        })
    }

    fn asleep(&self, pid: u16, for_s: u32, out: &mut [u8]) -> Option<usize> {
        framed(up::STATUS, 0, out, &mut |to| {
            to.number(pid.into());
            to.0.u8(ASLEEP);
            to.number(for_s.into());
        })
    }

    fn pair(&self, pid: u16, name: &str, out: &mut [u8]) -> Option<usize> {
        let mut room = [0; 80];
        let mut json = Writer::new(&mut room);
        json.begin_object();
        json.field("name", name);
        json.end_object();
        request(pid, "me/paired", json.finish()?.as_bytes(), out)
    }
}

fn request(pid: u16, path: &str, payload: &[u8], out: &mut [u8]) -> Option<usize> {
    framed(up::REQUEST, 0, out, &mut |to| {
        to.number(pid.into());
        to.text(path);
        to.bytes(payload);
    })
}

/// Reads fields in the format of postcard.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (&byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(byte)
    }

    fn number(&mut self) -> Option<u64> {
        let mut value = 0;
        let mut shift = 0;
        loop {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7F).checked_shl(shift)?;
            if byte & 0x80 == 0 {
                return Some(value);
            }
            shift += 7;
            if shift > 63 {
                return None;
            }
        }
    }

    fn short(&mut self) -> Option<u16> {
        self.number()?.try_into().ok()
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let len = usize::try_from(self.number()?).ok()?;
        let (bytes, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(bytes)
    }

    fn text(&mut self) -> Option<&'a str> {
        core::str::from_utf8(self.bytes()?).ok()
    }

    fn flag(&mut self) -> Option<bool> {
        match self.byte()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    /// A number that may be absent: then 0.
    fn maybe_number(&mut self) -> Option<u64> {
        if self.flag()? { self.number() } else { Some(0) }
    }
}

/// `None`: it is no frame.
fn incoming<'a>(from: &mut Reader<'a>) -> Option<Incoming<'a>> {
    let tag = u32::try_from(from.number()?).ok()?;
    Some(match tag {
        down::WELCOME => {
            let (_level, _schema, _account, _terminal) = (from.number()?, from.number()?, from.text()?, from.text()?);
            let session_present = from.flag()?;
            let (keep_alive_s, _expiry) = (from.short()?, from.number()?);
            let (frame_max, receive_max) = (from.short()?, from.short()?);
            Incoming::Welcome(Welcome {
                session_present,
                keep_alive_s: Some(keep_alive_s),
                receive_max,
                frame_max: usize::from(frame_max) + 2,
            })
        }
        down::CLOSE => {
            let (code, text) = (from.byte()?, from.text()?);
            Incoming::Closed(closed(code, text))
        }
        down::ACCEPTED => Incoming::Done { pid: from.short()?, result: Ok(from.number()?) },
        down::REFUSED => Incoming::Done { pid: from.short()?, result: Err(refusal(from.byte()?)) },
        down::SUBSCRIBED => Incoming::Subscribed { pid: from.short()?, ok: from.byte()? < 0x80 },
        // All that may want an acknowledgement has the packet identifier in front.
        down::DELIVER..=down::CONTACT | down::BOUNCE..=down::PUBLISH | down::COMMAND_CANCELED => {
            let pid = from.short()?;
            Incoming::Delivery { pid, what: what(tag, from)? }
        }
        _ => Incoming::Nothing,
    })
}

fn what<'a>(tag: u32, from: &mut Reader<'a>) -> Option<What<'a>> {
    Some(match tag {
        down::DELIVER => {
            let (_dup, address) = (from.flag()?, from.text()?);
            message(address, from)?
        }
        down::COMMAND => {
            let _dup = from.flag()?;
            What::Command {
                id: from.text()?,
                name: from.text()?,
                from: from.text()?,
                args: from.text()?,
                left_ms: Some(from.number()?),
                once: from.flag()?,
            }
        }
        down::COMMAND_CANCELED => {
            let _dup = from.flag()?;
            What::Cancel { id: from.text()? }
        }
        down::DELTA => {
            let (_dup, _version) = (from.flag()?, from.number()?);
            What::Delta { desired: from.text()? }
        }
        down::ANSWER => {
            let (_dup, topic, _re, _id) = (from.flag()?, from.text()?, from.text()?, from.text()?);
            below_me(topic, from.text()?.as_bytes())
        }
        down::PUBLISH => {
            let (dup, _retain, topic) = (from.flag()?, from.flag()?, from.text()?);
            let (_properties, payload) = (from.bytes()?, from.bytes()?);
            match topic.strip_prefix(IM) {
                Some(path) => below_me(path, payload),
                None => What::Topic { topic, payload, dup },
            }
        }
        _ => What::Other,
    })
}

/// What has no frame of its own.
fn below_me<'a>(path: &str, payload: &'a [u8]) -> What<'a> {
    match path {
        "me/blob/res" => What::Blob(payload),
        "me/paired" => {
            let value = core::str::from_utf8(payload).ok().and_then(Value::parse);
            value.and_then(super::paired).unwrap_or(What::Other)
        }
        _ => What::Other,
    }
}

fn message<'a>(address: &'a str, from: &mut Reader<'a>) -> Option<What<'a>> {
    let (seq, pos, _prev) = (from.number()?, from.number()?, from.number()?);
    let (sender, _ts, _id, kind) = (from.text()?, from.number()?, from.text()?, from.text()?);
    let (re, _level, _edited, _left) = (from.maybe_number()?, from.number()?, from.number()?, from.maybe_number()?);
    let flags = from.byte()?;
    let (text, body) = match from.byte()? {
        0 => (from.text()?, ""),
        1 => ("", from.text()?),
        2 => {
            from.bytes()?;
            ("", "")
        }
        3 => (from.text()?, from.text()?),
        _ => return None,
    };
    if flags & flags::GONE != 0 {
        return Some(What::Other);
    }
    Some(What::Message(Message {
        address,
        from: sender,
        seq,
        pos,
        kind,
        text: Text::plain(text),
        body,
        re,
        backfill: flags & flags::BACKFILL != 0,
    }))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Listen;
    use parlor_protocol::link::{self, Body, Code, CommandState, Decoded, Down, PresenceState, Secret, Up};

    fn up(bytes: &[u8]) -> Up<'_> {
        match link::decode_frame::<Up<'_>>(bytes, u16::MAX) {
            Ok(Some((Decoded::Frame(frame), len))) if len == bytes.len() => frame,
            other => panic!("{other:?}"),
        }
    }

    /// What the device writes is what the types of the protocol read; and in a buffer that is too short it is not written.
    fn check(expect: &Up<'_>, write: &dyn Fn(&mut [u8]) -> Option<usize>) {
        let mut out = [0; 400];
        let len = write(&mut out).unwrap();
        assert_eq!(up(&out[..len]), *expect);
        for short in 0..len {
            assert_eq!(write(&mut out[..short]), None);
        }
    }

    #[test]
    fn frames_are_those_of_the_protocol() {
        let wire = Native;
        let hello = Hello {
            terminal: "lamp-1",
            account: "lamp",
            secret: b"secret",
            keep_alive_s: 30,
            expiry_s: 60,
            frame_max: 514,
            receive_max: 4,
            clean: false,
            listen: Listen::MESSAGES,
            level: 261_001,
            platform: "qemu",
            app: "lamp 1",
        };
        let expect = Up::Hello {
            level: LEVEL,
            schema: SCHEMA,
            account: "lamp",
            secret: Secret(b"secret"),
            terminal: "lamp-1",
            keep_alive_s: 30,
            expiry_s: 60,
            receive_max: 4,
            frame_max: 512,
            clean: false,
            wants: wants::PUSH | wants::COMMANDS,
            core_level: 261_001,
            platform: "qemu",
            app: "lamp 1",
        };
        check(&expect, &|out| wire.hello(&hello, out));
        check(&Up::Ping {}, &|out| wire.ping(out));
        check(&Up::Bye { will: false }, &|out| wire.bye(out));
        check(&Up::Ack { packet_id: 300 }, &|out| wire.ack(300, out));
        check(&Up::Status { packet_id: 3, state: PresenceState::Asleep, for_s: 600 }, &|out| wire.asleep(3, 600, out));
        check(&Up::Request { packet_id: 3, path: "me/paired", payload: b"{\"name\":\"l\"}" }, &|out| {
            wire.pair(3, "l", out)
        });
        check(&Up::Subscribe { packet_id: 4, filter: "a/#", options: 1 }, &|out| {
            wire.subscribe(4, Subscribe::Topic("a/#", QoS::AtLeastOnce), out)
        });
        let send =
            |text, body, re| Item::Message { to: "bob", id: "1-2", kind: "k", text, body, re, ttl_s: 9, quiet: true };
        let sent = |body, re| Up::Send {
            packet_id: 7,
            to: "bob",
            id: "1-2",
            kind: "k",
            ttl_s: 9,
            re,
            quiet: true,
            level: 0,
            fallback: "",
            body,
        };
        check(&sent(Body::Text("hi"), None), &|out| wire.item(&send("hi", "", 0), 7, true, out));
        check(&sent(Body::Json("1"), Some(3)), &|out| wire.item(&send("", "1", 3), 7, true, out));
        check(&sent(Body::Both { text: "hi", json: "1" }, None), &|out| wire.item(&send("hi", "1", 0), 7, true, out));
        let topic = |topic, acked| Item::Topic { topic, payload: b"21", acked, retain: true };
        let publish =
            |packet_id| Up::Publish { packet_id, retain: true, topic: "a/b", properties: b"", payload: b"21" };
        check(&publish(7), &|out| wire.item(&topic("a/b", true), 7, false, out));
        check(&publish(0), &|out| wire.item(&topic("a/b", false), 7, false, out));
        check(&Up::Request { packet_id: 0, path: "me/blob/x", payload: b"21" }, &|out| {
            wire.item(&topic("im/v1/me/blob/x", false), 7, false, out)
        });
        check(&Up::Reported { packet_id: 7, patch: "{}" }, &|out| {
            wire.item(&Item::Reported { patch: "{}" }, 7, false, out)
        });
        for (state, expect) in [
            (State::Running, CommandState::Running),
            (State::Done, CommandState::Done),
            (State::Failed, CommandState::Failed),
            (State::Rejected, CommandState::Rejected),
            (State::UnknownOutcome, CommandState::UnknownOutcome),
        ] {
            let item = Item::Result { id: "c1", state, text: "t", result: "1" };
            check(&Up::CommandState { packet_id: 7, id: "c1", state: expect, result: "1", text: "t" }, &|out| {
                wire.item(&item, 7, false, out)
            });
        }
        let mut out = [0; 200];
        let len = wire.describe(9, 100, &mut out).unwrap();
        out[len..len + 100].fill(b'x');
        let Up::Describe { packet_id: 9, json } = up(&out[..len + 100]) else { panic!() };
        assert_eq!(json.len(), 100);
    }

    /// What the protocol's types write is what the device reads.
    fn heard(frame: &Down<'_>, check: impl FnOnce(Incoming<'_>)) {
        let mut out = [0; 400];
        let len = link::encode_to_slice(frame, &mut out).unwrap();
        let (incoming, used) = Native.decode(&out[..len]).unwrap().unwrap();
        assert_eq!(used, len);
        check(incoming);
        for short in 0..len {
            assert!(Native.decode(&out[..short]).unwrap().is_none());
        }
        // Cut inside, it is no frame, or one that says less; it is never more than there is.
        for cut in 4..len {
            let mut bytes = out[..cut].to_vec();
            bytes[..2].copy_from_slice(&u16::try_from(cut - 2).unwrap().to_be_bytes());
            let _ = Native.decode(&bytes);
        }
    }

    #[test]
    fn frames_of_the_protocol_are_understood() {
        let welcome = Down::Welcome {
            level: LEVEL,
            schema: SCHEMA,
            account: "lamp",
            terminal: "lamp-1",
            session_present: true,
            keep_alive_s: 40,
            expiry_s: 60,
            frame_max: 4096,
            receive_max: 20,
            server_ms: 1_790_000_000_000,
        };
        heard(&welcome, |incoming| {
            let Incoming::Welcome(welcome) = incoming else { panic!("{incoming:?}") };
            assert!(welcome.session_present);
            assert_eq!((welcome.keep_alive_s, welcome.frame_max, welcome.receive_max), (Some(40), 4098, 20));
        });
        heard(&Down::Pong {}, |incoming| assert!(matches!(incoming, Incoming::Nothing)));
        heard(&Down::Close { code: 0x87, text: "the account is disabled" }, |incoming| {
            assert!(matches!(incoming, Incoming::Closed(LinkError::Disabled)));
        });
        heard(&Down::Accepted { packet_id: 7, seq: 300, dup: true }, |incoming| {
            assert!(matches!(incoming, Incoming::Done { pid: 7, result: Ok(300) }));
        });
        heard(&Down::Subscribed { packet_id: 7, code: 1 }, |incoming| {
            assert!(matches!(incoming, Incoming::Subscribed { pid: 7, ok: true }));
        });
        for code in Code::ALL {
            heard(&Down::Refused { packet_id: 7, code: *code, text: "t" }, |incoming| {
                let Incoming::Done { pid: 7, result: Err(refusal) } = incoming else { panic!("{incoming:?}") };
                let expect = match code {
                    Code::NotAllowed => Some(Refusal::Forbidden),
                    _ => Refusal::parse(code.text()),
                };
                assert_eq!(refusal, expect.unwrap_or(Refusal::Other(code.value())), "{code:?}");
            });
        }
        let message = link::Message {
            seq: 12,
            pos: 40,
            prev: 11,
            from: "alice",
            ts: 1_790_000_000_000,
            id: "a",
            kind: "",
            re: Some(3),
            level: 0,
            edited: 0,
            left_ms: None,
            flags: flags::BACKFILL,
            body: Body::Both { text: "hi", json: "1" },
            announcement: None,
        };
        heard(&Down::Deliver { packet_id: 9, dup: false, address: "g-home", message }, |incoming| {
            let Incoming::Delivery { pid: 9, what: What::Message(message) } = incoming else { panic!("{incoming:?}") };
            assert_eq!((message.address, message.from, message.seq, message.pos), ("g-home", "alice", 12, 40));
            assert_eq!(
                (message.text.as_plain(), message.body, message.re, message.backfill),
                (Some("hi"), "1", 3, true)
            );
        });
        let command = Down::Command {
            packet_id: 9,
            dup: true,
            id: "c1",
            name: "set",
            from: "alice",
            args: "{}",
            left_ms: 70_000,
            once: true,
        };
        heard(&command, |incoming| {
            let Incoming::Delivery { pid: 9, what } = incoming else { panic!("{incoming:?}") };
            assert!(matches!(
                what,
                What::Command { id: "c1", name: "set", from: "alice", args: "{}", left_ms: Some(70_000), once: true }
            ));
        });
        heard(&Down::Delta { packet_id: 9, dup: false, version: 3, desired: "{\"on\":1}" }, |incoming| {
            assert!(matches!(incoming, Incoming::Delivery { pid: 9, what: What::Delta { desired: "{\"on\":1}" } }));
        });
        heard(&Down::CommandCanceled { packet_id: 9, dup: false, id: "c1" }, |incoming| {
            assert!(matches!(incoming, Incoming::Delivery { pid: 9, what: What::Cancel { id: "c1" } }));
        });
        let publish =
            |topic, payload| Down::Publish { packet_id: 9, dup: true, retain: false, topic, properties: b"", payload };
        heard(&publish("a/b", b"21"), |incoming| {
            let Incoming::Delivery { pid: 9, what } = incoming else { panic!("{incoming:?}") };
            assert!(matches!(what, What::Topic { topic: "a/b", payload: b"21", dup: true }));
        });
        heard(&publish("im/v1/me/blob/res", b"21"), |incoming| {
            assert!(matches!(incoming, Incoming::Delivery { pid: 9, what: What::Blob(b"21") }));
        });
        heard(&publish("im/v1/me/paired", br#"{"account":"l","password":"p","owner":"a"}"#), |incoming| {
            assert!(matches!(incoming, Incoming::Delivery { pid: 9, what: What::Paired { .. } }));
        });
        let gap = Down::Gap { packet_id: 9, dup: false, from: 1, to: 2, why: "overflow" };
        heard(&gap, |incoming| assert!(matches!(incoming, Incoming::Delivery { pid: 9, what: What::Other })));
        let typing = Down::Typing { address: "a", from: "a", on: true };
        heard(&typing, |incoming| assert!(matches!(incoming, Incoming::Nothing)));
        // Of a newer build.
        assert!(matches!(Native.decode(&[0, 3, VERSION, 120, 0]), Ok(Some((Incoming::Nothing, 5)))));
        assert!(matches!(Native.decode(&[0, 2, VERSION + 1, 0]), Err(LinkError::Version)));
        assert!(matches!(Native.decode(&[0, 0]), Err(LinkError::Version)));
    }
}
