//! Parlor's native link (docs/protocol.md, section 12): what the same session says in frames that are a third as long.
//!
//! Frames are written and read here by hand, and only those that a device uses: the types of `parlor_protocol::link` know
//! all of them, and cost a board three times as much flash. Tests hold the two against each other.

mod read;

#[cfg(feature = "commands")]
use super::State;
use super::Subscribe;
use super::{Hello, Incoming, Item, Wire};
use crate::bytes::Put;
use crate::error::LinkError;
#[cfg(feature = "pairing")]
use crate::json::Writer;
#[cfg(feature = "im")]
use parlor_protocol::link::wants;
use parlor_protocol::link::{LEVEL, SCHEMA, VERSION};
#[cfg(feature = "topics")]
use parlor_protocol::mqtt::QoS;

/// The native link as a wire.
#[derive(Clone, Copy, Debug, Default)]
pub struct Native;

/// Discriminants of frames to the server.
mod up {
    pub(super) const HELLO: u8 = 0;
    pub(super) const PING: u8 = 1;
    pub(super) const BYE: u8 = 2;
    #[cfg(feature = "messages")]
    pub(super) const SEND: u8 = 3;
    pub(super) const ACK: u8 = 4;
    #[cfg(feature = "commands")]
    pub(super) const COMMAND_STATE: u8 = 13;
    #[cfg(feature = "state")]
    pub(super) const REPORTED: u8 = 14;
    #[cfg(feature = "describe")]
    pub(super) const DESCRIBE: u8 = 16;
    #[cfg(feature = "sleep")]
    pub(super) const STATUS: u8 = 17;
    #[cfg(any(feature = "topics", feature = "pairing"))]
    pub(super) const REQUEST: u8 = 21;
    #[cfg(feature = "topics")]
    pub(super) const SUBSCRIBE: u8 = 22;
    #[cfg(feature = "topics")]
    pub(super) const PUBLISH: u8 = 24;
}

/// `im/v1/`, which paths of requests and answers leave out.
#[cfg(any(feature = "topics", feature = "pairing"))]
const IM: &str = "im/v1/";

/// The state `Asleep` of `Status`.
#[cfg(feature = "sleep")]
const ASLEEP: u8 = 3;

/// A frame: its length, version and discriminant, what `fields` writes, and room for `behind` bytes more.
#[inline(never)]
fn framed(tag: u8, behind: usize, out: &mut [u8], fields: &dyn Fn(&mut Put<'_>)) -> Option<usize> {
    let (length, room) = out.split_first_chunk_mut::<2>()?;
    let mut to = Put::new(room);
    to.bytes(&[VERSION, tag]);
    fields(&mut to);
    let len = to.done()?;
    *length = u16::try_from(len + behind).ok()?.to_be_bytes();
    Some(len + 2)
}

/// Fields are in the format of postcard.
impl Put<'_> {
    fn counted(&mut self, bytes: &[u8]) {
        self.varint(bytes.len() as u64);
        self.bytes(bytes);
    }

    fn text(&mut self, text: &str) {
        self.counted(text.as_bytes());
    }

    fn flag(&mut self, flag: bool) {
        self.u8(u8::from(flag));
    }
}

impl Wire for Native {
    fn hello(&self, hello: &Hello<'_>, out: &mut [u8]) -> Option<usize> {
        #[cfg(feature = "im")]
        let wanted = if hello.listen.messages() { wants::PUSH } else { 0 }
            | if hello.listen.commands() { wants::COMMANDS } else { 0 };
        #[cfg(not(feature = "im"))]
        let wanted = 0u8;
        framed(up::HELLO, 0, out, &|to| {
            to.varint(LEVEL.into());
            to.varint(SCHEMA);
            to.text(hello.account);
            to.counted(hello.secret);
            to.text(hello.terminal);
            to.varint(hello.keep_alive_s.into());
            to.varint(if hello.clean { 0 } else { hello.expiry_s }.into());
            to.varint(hello.receive_max.into());
            // Bytes behind the length.
            to.varint(hello.frame_max.saturating_sub(2).min(0xFFFF) as u64);
            to.flag(hello.clean);
            to.varint(wanted.into());
            to.varint(hello.level.into());
            to.text(hello.platform);
            to.text(hello.app);
        })
    }

    fn whole(&self, bytes: &[u8]) -> Result<usize, LinkError> {
        let Some(length) = bytes.first_chunk::<2>() else { return Ok(0) };
        let len = usize::from(u16::from_be_bytes(*length)) + 2;
        if bytes.len() < len {
            return Ok(0);
        }
        // A frame has a version.
        if len > 2 && bytes.get(2) == Some(&VERSION) { Ok(len) } else { Err(LinkError::Version) }
    }

    fn read<'a>(&self, packet: &'a [u8]) -> Option<Incoming<'a>> {
        read::incoming(packet.get(3..)?)
    }

    fn ack(&self, pid: u16, out: &mut [u8]) -> Option<usize> {
        framed(up::ACK, 0, out, &|to| to.varint(pid.into()))
    }

    fn ping(&self, out: &mut [u8]) -> Option<usize> {
        framed(up::PING, 0, out, &|_| {})
    }

    fn bye(&self, out: &mut [u8]) -> Option<usize> {
        framed(up::BYE, 0, out, &|to| to.flag(false))
    }

    fn subscribe(&self, pid: u16, what: Subscribe<'_>, out: &mut [u8]) -> Option<usize> {
        // The first frame has subscribed to all that is Parlor's.
        match what {
            #[cfg(feature = "topics")]
            Subscribe::Topic(filter, qos) => framed(up::SUBSCRIBE, 0, out, &|to| {
                to.varint(pid.into());
                to.text(filter);
                to.u8(u8::from(qos != QoS::AtMostOnce));
            }),
            #[cfg(feature = "im")]
            _ => {
                let _ = (pid, out);
                Some(0)
            }
        }
    }

    fn item(&self, item: &Item<'_>, pid: u16, _dup: bool, out: &mut [u8]) -> Option<usize> {
        match *item {
            #[cfg(feature = "messages")]
            Item::Message { to: address, id, kind, text, body, re, ttl_s, quiet } => {
                framed(up::SEND, 0, out, &|to| {
                    to.varint(pid.into());
                    to.text(address);
                    to.text(id);
                    to.text(kind);
                    to.varint(ttl_s.into());
                    to.flag(re > 0);
                    if re > 0 {
                        to.varint(re);
                    }
                    to.flag(quiet);
                    to.varint(0);
                    to.text("");
                    // Text, body, or both.
                    to.u8(if body.is_empty() { 0 } else { 1 + 2 * u8::from(!text.is_empty()) });
                    if !text.is_empty() || body.is_empty() {
                        to.text(text);
                    }
                    if !body.is_empty() {
                        to.text(body);
                    }
                })
            }
            #[cfg(feature = "topics")]
            Item::Topic { topic, payload, acked, retain } => match topic.strip_prefix(IM) {
                Some(path) => request(if acked { pid } else { 0 }, path, payload, out),
                None => framed(up::PUBLISH, 0, out, &|to| {
                    to.varint(if acked { pid } else { 0 }.into());
                    to.flag(retain);
                    to.text(topic);
                    to.text("");
                    to.counted(payload);
                }),
            },
            #[cfg(feature = "state")]
            Item::Reported { patch } => framed(up::REPORTED, 0, out, &|to| {
                to.varint(pid.into());
                to.text(patch);
            }),
            #[cfg(feature = "commands")]
            Item::Result { id, state, text, result } => framed(up::COMMAND_STATE, 0, out, &|to| {
                to.varint(pid.into());
                to.text(id);
                to.u8(match state {
                    State::Running => 4,
                    State::Done => 5,
                    State::Failed => 6,
                    State::Rejected => 7,
                    State::UnknownOutcome => 11,
                });
                to.text(result);
                to.text(text);
            }),
            Item::Nothing => None,
        }
    }

    #[cfg(feature = "describe")]
    fn describe(&self, pid: u16, len: usize, out: &mut [u8]) -> Option<usize> {
        framed(up::DESCRIBE, len, out, &|to| {
            to.varint(pid.into());
            to.varint(len as u64);
        })
    }

    #[cfg(feature = "sleep")]
    fn asleep(&self, pid: u16, for_s: u32, out: &mut [u8]) -> Option<usize> {
        framed(up::STATUS, 0, out, &|to| {
            to.varint(pid.into());
            to.u8(ASLEEP);
            to.varint(for_s.into());
        })
    }

    #[cfg(feature = "pairing")]
    fn pair(&self, pid: u16, name: &str, out: &mut [u8]) -> Option<usize> {
        let mut room = [0; 80];
        let mut json = Writer::new(&mut room);
        json.begin_object();
        json.field("name", name);
        json.end_object();
        request(pid, "me/paired", json.finish()?.as_bytes(), out)
    }
}

#[cfg(any(feature = "topics", feature = "pairing"))]
fn request(pid: u16, path: &str, payload: &[u8], out: &mut [u8]) -> Option<usize> {
    framed(up::REQUEST, 0, out, &|to| {
        to.varint(pid.into());
        to.text(path);
        to.counted(payload);
    })
}

#[cfg(test)]
#[cfg(all(feature = "full", feature = "update"))]
mod tests {
    use super::*;
    use crate::config::Listen;
    use crate::error::Refusal;
    use crate::wire::What;
    use parlor_protocol::link::flags;
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
                    _ => Refusal::parse(code.text().as_bytes()),
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
