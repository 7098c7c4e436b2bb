//! Native clients and clients of MQTT in one house.

mod blob;

use super::Effect;
use super::tests::*;
use crate::auth::AuthAnswer;
use crate::link::{LinkId, Peer};
use crate::native::down;
use parlor_protocol::link::{
    Body, Code, CommandState, Decoded, Down, LEVEL, Message, PresenceState, SCHEMA, SIZE_MAX, Secret, Up, decode_frame,
    flags, wants,
};
use parlor_protocol::mqtt::{Packet, Properties, Property, Publish, Version, decode};

const PUSHED: u16 = wants::PUSH | wants::SENT;

pub(super) fn hello<'a>(account: &'a str, terminal: &'a str, wants: u16) -> Up<'a> {
    Up::Hello {
        level: LEVEL,
        schema: SCHEMA,
        account,
        secret: Secret(b""),
        terminal,
        keep_alive_s: 0,
        expiry_s: 1_000,
        receive_max: 100,
        frame_max: 0,
        clean: false,
        wants,
        core_level: 0,
        platform: "",
        app: "",
    }
}

impl House {
    pub(super) fn open_native(&mut self) -> LinkId {
        let peer = Peer { address: [127, 0, 0, 1].into(), allow_anonymous: true, certificate: None, native: true };
        self.hub.open(self.now, &peer).unwrap()
    }

    pub(super) fn tell(&mut self, link: LinkId, frame: &Up<'_>) {
        self.hub.frame(self.now, link, frame, 20);
        self.settle();
    }

    /// Lets in whoever has said Hello or CONNECT with a user name.
    pub(super) fn admit(&mut self) {
        let (link, request) = self.asked.pop().unwrap();
        let account = request.username.unwrap();
        let answer = AuthAnswer::Accept { account, groups: vec![], expires_at_ms: None, data: None };
        self.hub.authenticated(self.now, link, request.exchange, answer);
        self.settle();
    }

    pub(super) fn greet(&mut self, frame: &Up<'_>) -> LinkId {
        let link = self.open_native();
        self.tell(link, frame);
        self.admit();
        link
    }

    /// A native terminal that is in.
    pub(super) fn native(&mut self, account: &str, terminal: &str, wants: u16) -> LinkId {
        let link = self.greet(&hello(account, terminal, wants));
        assert!(matches!(self.frames(link)[0], Down::Welcome { .. }));
        link
    }

    /// What the broker says to a native link now.
    pub(super) fn frames_once(&mut self, link: LinkId) -> Vec<Down<'static>> {
        let bytes: &'static [u8] = self.hub.output(link).to_vec().leak();
        self.hub.wrote(self.now, link, bytes.len());
        self.settle();
        let (mut rest, mut all) = (bytes, vec![]);
        while let Some((frame, used)) = decode_frame(rest, SIZE_MAX).unwrap() {
            let Decoded::Frame(frame) = frame else { panic!("{frame:?}") };
            all.push(frame);
            rest = &rest[used..];
        }
        assert!(rest.is_empty());
        all
    }

    /// Everything, as often as there is more, acknowledged.
    pub(super) fn frames(&mut self, link: LinkId) -> Vec<Down<'static>> {
        let mut all = vec![];
        loop {
            let more = self.frames_once(link);
            if more.is_empty() {
                return all;
            }
            for frame in &more {
                let id = packet_id(frame);
                if id != 0 {
                    self.tell(link, &Up::Ack { packet_id: id });
                }
            }
            all.extend(more);
        }
    }

    pub(super) fn names(&mut self, link: LinkId) -> Vec<&'static str> {
        self.frames(link).iter().map(Down::name).collect()
    }

    /// What a client of MQTT is sent, acknowledged: topic below `im/v1/`, and payload.
    pub(super) fn told(&mut self, link: LinkId) -> Vec<(String, serde_json::Value)> {
        let mut all = vec![];
        loop {
            let bytes = self.hub.output(link).to_vec();
            self.hub.wrote(self.now, link, bytes.len());
            let mut at = 0;
            while let Some((packet, size)) = decode(&bytes[at..], Version::V5, u32::MAX).unwrap() {
                if let Packet::Publish(p) = packet {
                    // Whatever an account is told has a frame of its own.
                    let mut bytes = vec![];
                    down::publish(&p, down::To { level: LEVEL, frame_max: SIZE_MAX }, &mut bytes).unwrap();
                    let Ok(Some((Decoded::Frame(frame), _))) = decode_frame::<Down>(&bytes, SIZE_MAX) else { panic!() };
                    assert!(frame.name() != "Publish" || p.topic.ends_with("/avail"), "{p:?}");
                    let payload = serde_json::from_slice(p.payload).unwrap_or_default();
                    all.push((p.topic.strip_prefix("im/v1/").unwrap_or(p.topic).to_owned(), payload));
                    if let Some(id) = p.packet_id {
                        self.say(link, &Packet::PubAck(ack(id.value())));
                    }
                }
                at += size;
            }
            self.settle();
            if bytes.is_empty() {
                return all;
            }
        }
    }

    /// Alice and Bob may write to each other.
    pub(super) fn friends(&mut self) {
        for name in ["alice", "bob"] {
            self.hub.describe_account(self.now, name, "person", None, 1);
        }
        self.settle();
        for (from, to, op) in [("alice", "bob", "request"), ("bob", "alice", "accept")] {
            let link = join_as(self, &format!("first-{from}"), from, &[]);
            let payload = format!(r#"{{"op":"{op}"}}"#);
            self.say(link, &Packet::Publish(publish(&format!("im/v1/me/contact/{to}"), 1, 1, payload.as_bytes())));
            self.told(link);
            self.gone(link);
        }
    }
}

/// Under which a frame is to be acknowledged.
pub(super) fn packet_id(frame: &Down<'_>) -> u16 {
    match *frame {
        Down::Deliver { packet_id, .. }
        | Down::Sent { packet_id, .. }
        | Down::Receipt { packet_id, .. }
        | Down::Recall { packet_id, .. }
        | Down::Edit { packet_id, .. }
        | Down::Contact { packet_id, .. }
        | Down::Bounce { packet_id, .. }
        | Down::Gap { packet_id, .. }
        | Down::Head { packet_id, .. }
        | Down::Conversation { packet_id, .. }
        | Down::Command { packet_id, .. }
        | Down::CommandResult { packet_id, .. }
        | Down::Presence { packet_id, .. }
        | Down::State { packet_id, .. }
        | Down::Delta { packet_id, .. }
        | Down::Error { packet_id, .. }
        | Down::Answer { packet_id, .. }
        | Down::CommandCanceled { packet_id, .. }
        | Down::Publish { packet_id, .. } => packet_id,
        _ => 0,
    }
}

pub(super) fn send<'a>(packet_id: u16, to: &'a str, id: &'a str, text: &'a str) -> Up<'a> {
    let body = Body::Text(text);
    Up::Send { packet_id, to, id, kind: "", ttl_s: 0, re: None, quiet: false, level: 0, fallback: "", body }
}

fn deliveries(frames: &[Down<'static>]) -> Vec<(u64, u64, u64, &'static str, &'static str, Body<'static>)> {
    let one = |frame: &Down<'static>| match *frame {
        Down::Deliver { message: Message { seq, pos, prev, from, id, body, .. }, .. } => {
            Some((seq, pos, prev, from, id, body))
        }
        _ => None,
    };
    frames.iter().filter_map(one).collect()
}

#[test]
fn a_native_terminal_and_one_of_mqtt_see_the_same_conversation() {
    let mut house = House::new(|_| ());
    house.friends();
    let phone = house.native("alice", "phone", PUSHED);
    let tablet = join_as(&mut house, "tablet", "alice", &[]);
    subscribe(&mut house, tablet, "im/v1/#", 1);
    let bob = house.native("bob", "desk", PUSHED);
    house.told(tablet);
    // Bob says something, natively, and twice.
    house.tell(bob, &send(1, "alice", "b1", "hi \"you\""));
    house.tell(bob, &send(2, "alice", "b1", "hi \"you\""));
    house.tell(bob, &send(3, "alice", "b1", "something else"));
    let heard = house.frames(bob);
    assert!(heard.contains(&Down::Accepted { packet_id: 1, seq: 1, dup: false }), "{heard:?}");
    assert!(heard.contains(&Down::Accepted { packet_id: 2, seq: 1, dup: true }));
    assert!(heard.iter().any(|f| matches!(f, Down::Refused { packet_id: 3, code: Code::IdReused, .. })));
    assert!(heard.iter().any(|f| matches!(f, Down::Error { re: "to/alice/msg", id: "b1", code: Code::IdReused, .. })));
    let is_repeated = |f: &Down<'_>| matches!(f, Down::Sent { message, .. } if message.flags & flags::REPEATED != 0);
    assert!(heard.iter().any(is_repeated));
    // Alice answers from MQTT; her phone sees both.
    house.say(tablet, &Packet::Publish(publish("im/v1/to/bob/msg", 1, 5, br#"{"text":"yes?","id":"t1"}"#)));
    let on_phone = house.frames(phone);
    let got = deliveries(&on_phone);
    assert_eq!(got.len(), 1, "{on_phone:?}");
    let (seq, pos, prev, from, id, body) = got[0];
    assert_eq!((seq, prev, from, id, body), (1, 0, "bob", "b1", Body::Text("hi \"you\"")));
    let sent = on_phone.iter().find_map(|f| match *f {
        Down::Sent { to, message, .. } => Some((to, message.seq, message.from, message.body)),
        _ => None,
    });
    assert_eq!(sent, Some(("bob", 2, "alice", Body::Text("yes?"))));
    // The tablet was told the same, field by field.
    let on_tablet = house.told(tablet);
    let (_, message) = on_tablet.iter().find(|(topic, _)| topic == "me/in/bob/msg").unwrap();
    assert_eq!((message["seq"].as_u64(), message["pos"].as_u64()), (Some(seq), Some(pos)));
    assert_eq!((message["id"].as_str(), message["text"].as_str()), (Some("b1"), Some("hi \"you\"")));
    // And Bob hears the answer and the marks.
    let heard = house.frames(bob);
    assert!(matches!(deliveries(&heard)[..], [(2, _, 1, "alice", "t1", Body::Text("yes?"))]), "{heard:?}");
    house.tell(phone, &Up::Receipt { packet_id: 9, to: "bob", recv: 0, read: 1 });
    let names = house.names(phone);
    assert!(names.contains(&"Accepted"), "{names:?}");
    let marks = house.frames(bob);
    assert!(
        marks
            .iter()
            .any(|f| matches!(f, Down::Receipt { address: "alice", read: 1, by: "alice", own_unread: None, .. })),
        "{marks:?}"
    );
    let own = house.told(tablet);
    assert!(own.iter().any(|(topic, payload)| topic == "me/in/bob/receipt" && payload["self"] == true), "{own:?}");
}

#[test]
fn a_terminal_that_changes_its_way_in_keeps_its_place() {
    let mut house = House::new(|_| ());
    house.friends();
    let phone = join_as(&mut house, "phone", "alice", &[]);
    subscribe(&mut house, phone, "im/v1/me/in/#", 1);
    house.told(phone);
    let bob = house.native("bob", "desk", 0);
    let mut n = 0;
    let mut say = |house: &mut House| {
        n += 1;
        house.tell(bob, &send(n, "alice", "", "x"));
        house.frames(bob);
    };
    say(&mut house);
    assert_eq!(house.told(phone).len(), 1);
    say(&mut house);
    // The second one was sent and not acknowledged: it comes again on the native link, and the MQTT link is told why it ends.
    let link = house.greet(&hello("alice", "phone", wants::PUSH));
    assert!(house.hear(phone).contains(&"Disconnect 142".to_owned()));
    house.gone(phone);
    say(&mut house);
    let heard = house.frames(link);
    assert!(matches!(heard[0], Down::Welcome { session_present: true, account: "alice", terminal: "phone", .. }));
    let seqs = |frames: &[Down<'static>]| deliveries(frames).iter().map(|d| d.0).collect::<Vec<_>>();
    assert_eq!(seqs(&heard), [2, 3]);
    assert!(matches!(heard[1], Down::Deliver { dup: true, .. }), "{heard:?}");
    // Back again: nothing comes twice, nothing is missing.
    say(&mut house);
    assert_eq!(seqs(&house.frames_once(link)), [4]);
    let phone = join_as(&mut house, "phone", "alice", &[]);
    assert!(matches!(house.frames_once(link)[..], [Down::Close { code: 0x8E, .. }]));
    house.gone(link);
    say(&mut house);
    let told = house.told(phone);
    let seqs: Vec<_> = told.iter().filter(|(t, _)| t == "me/in/bob/msg").map(|(_, p)| p["seq"].as_u64()).collect();
    assert_eq!(seqs, [Some(4), Some(5)]);
}

#[test]
fn a_hello_wants_what_it_wants_and_no_more() {
    let mut house = House::new(|_| ());
    let filters = |house: &House, id: &str| {
        let key = house.hub.find_session(id).unwrap();
        let of = |s: &crate::session::Subscription| format!("{} {}", s.filter, s.options & 3);
        house.hub.sessions[key as usize].subscriptions.iter().map(of).collect::<Vec<_>>()
    };
    let link = house.native("alice", "phone", wants::ALL);
    assert_eq!(
        filters(&house, "phone"),
        [
            "im/v1/me/+/res 0",
            "im/v1/me/cmd/# 1",
            "im/v1/me/conv/# 0",
            "im/v1/me/delta 1",
            "im/v1/me/err 0",
            "im/v1/me/head 1",
            "im/v1/me/in/# 1",
            "im/v1/me/res/# 1",
            "im/v1/me/sent 1",
            "im/v1/presence/+ 0",
            "im/v1/state/# 0"
        ]
    );
    house.tell(link, &Up::Subscribe { packet_id: 1, filter: "home/#", options: 0 });
    house.tell(link, &Up::Subscribe { packet_id: 2, filter: "im/v1/admin/#", options: 0 });
    house.tell(link, &Up::Unsubscribe { packet_id: 3, filter: "none" });
    let heard = house.frames(link);
    for frame in [
        Down::Subscribed { packet_id: 1, code: 0 },
        Down::Subscribed { packet_id: 2, code: 0x8F },
        Down::Unsubscribed { packet_id: 3, code: 0x11 },
    ] {
        assert!(heard.contains(&frame), "{heard:?}");
    }
    house.gone(link);
    house.native("alice", "phone", wants::HEAD);
    let left = ["home/# 0", "im/v1/me/+/res 0", "im/v1/me/conv/# 0", "im/v1/me/err 0", "im/v1/me/head 1"];
    assert_eq!(filters(&house, "phone"), left);
    // Who has no account has no messaging, and is told so when it tries.
    let link = house.open_native();
    house.tell(link, &hello("", "nobody", wants::ALL));
    house.tell(link, &send(1, "bob", "", "x"));
    let heard = house.frames(link);
    assert!(matches!(heard[0], Down::Welcome { account: "anonymous", .. }), "{heard:?}");
    assert!(matches!(heard[1], Down::Refused { packet_id: 1, code: Code::NoAccount, .. }), "{heard:?}");
    assert!(filters(&house, "nobody").is_empty());
}

#[test]
fn bytes_stay_bytes_and_long_messages_are_left_out() {
    let mut house = House::new(|_| ());
    house.friends();
    let Up::Hello { level, schema, account, secret, terminal, receive_max, wants, .. } =
        hello("alice", "watch", PUSHED)
    else {
        panic!()
    };
    let small = Up::Hello {
        level,
        schema,
        account,
        secret,
        terminal,
        keep_alive_s: 30,
        expiry_s: 1_000,
        receive_max,
        frame_max: 300,
        clean: false,
        wants,
        core_level: 261_001,
        platform: "watch",
        app: "1",
    };
    let alice = house.greet(&small);
    let heard = house.frames(alice);
    assert!(matches!(heard[0], Down::Welcome { keep_alive_s: 30, expiry_s: 1_000, .. }), "{heard:?}");
    let bob = house.native("bob", "desk", 0);
    let long = "x".repeat(1_000);
    house.tell(bob, &send(1, "alice", "", "before"));
    house.tell(bob, &send(2, "alice", "", &long));
    let body = Body::Bytes(b"text or not");
    let (kind, fallback) = ("photo", "");
    house.tell(
        bob,
        &Up::Send {
            packet_id: 3,
            to: "alice",
            id: "p1",
            kind,
            ttl_s: 60,
            re: Some(1),
            quiet: true,
            level: 0,
            fallback,
            body,
        },
    );
    let heard = house.frames(alice);
    let got = deliveries(&heard);
    assert_eq!(got.iter().map(|d| d.0).collect::<Vec<_>>(), [1, 3], "{heard:?}");
    assert_eq!((got[1].2, got[1].5), (2, Body::Bytes(b"text or not")), "`prev` says what is missing");
    let Some(Down::Deliver { message, .. }) = heard.iter().rev().find(|f| f.name() == "Deliver") else { panic!() };
    assert_eq!((message.kind, message.re, message.flags), ("photo", Some(1), flags::QUIET));
    assert!(message.left_ms.is_some());
    assert_eq!(house.hub.counters().dropped.count("packet_too_large"), 1);
}

#[test]
fn a_device_is_commanded_natively() {
    let mut house = House::new(|_| ());
    house.friends();
    house.hub.describe_account(house.now, "bob", "device", None, 1);
    house.settle();
    let alice = house.native("alice", "phone", wants::RESULTS | wants::PRESENCE | wants::STATE);
    let lamp = house.native("bob", "lamp", wants::COMMANDS);
    house.frames(alice);
    let command = Up::Command {
        packet_id: 1,
        to: "bob",
        name: "set",
        id: "c1",
        args: "{\"on\": true}",
        deadline_ms: 60_000,
        persist: false,
        once: true,
    };
    house.tell(alice, &command);
    let heard = house.frames(lamp);
    let got = heard.iter().find_map(|f| match *f {
        Down::Command { id, name, from, args, once, .. } => Some((id, name, from, args, once)),
        _ => None,
    });
    assert_eq!(got, Some(("c1", "set", "alice", "{\"on\": true}", true)), "{heard:?}");
    house.tell(lamp, &Up::CommandState { packet_id: 2, id: "c1", state: CommandState::Done, result: "[1]", text: "" });
    house.tell(lamp, &Up::Reported { packet_id: 3, patch: "{\"on\":true}" });
    let heard = house.frames(alice);
    let is_done = |f: &Down<'_>| {
        matches!(f, Down::CommandResult { id: "c1", device: "bob", state: CommandState::Done, result: "[1]", .. })
    };
    assert!(heard.iter().any(is_done), "{heard:?}");
    assert!(
        heard.iter().any(|f| matches!(f, Down::State { device: "bob", reported: "{\"on\":true}", .. })),
        "{heard:?}"
    );
    house.tell(alice, &Up::CancelCommand { packet_id: 4, to: "bob", id: "c1" });
    let heard = house.frames(alice);
    assert!(heard.iter().any(|f| matches!(f, Down::Refused { packet_id: 4, code: Code::TooLate, .. })), "{heard:?}");
    house.tell(alice, &Up::Desired { packet_id: 5, to: "bob", patch: "{\"on\":false}" });
    assert!(house.names(lamp).contains(&"Delta"));
    house.tell(lamp, &Up::Status { packet_id: 6, state: PresenceState::Asleep, for_s: 600 });
    house.tell(lamp, &Up::Bye { will: false });
    house.gone(lamp);
    house.pass(10_000);
    let heard = house.frames(alice);
    let asleep =
        |f: &Down<'_>| matches!(f, Down::Presence { address: "bob", state: PresenceState::Asleep, until: 1.., .. });
    assert!(heard.iter().any(asleep), "{heard:?}");
}

#[test]
fn ordinary_messages_of_every_qos_reach_a_native_link() {
    let mut house = House::new(|_| ());
    // A session of MQTT with QoS 2, in the middle of a delivery.
    let link = join_as(&mut house, "phone", "alice", &[]);
    subscribe(&mut house, link, "t", 2);
    let other = house.join("other", 0);
    house.say(other, &Packet::Publish(publish("t", 2, 1, b"1")));
    house.say(other, &Packet::PubRel(ack(1)));
    let heard = house.read(link);
    assert!(heard.contains(&"t 1".to_owned()), "{heard:?}");
    house.say(link, &Packet::PubRec(ack(1)));
    house.gone(link);
    // It goes on natively: what was received is done, the rest comes and is acknowledged once.
    let native = house.native("alice", "phone", 0);
    for (n, qos) in [(2, 2), (3, 1), (4, 0)] {
        let packet_id = if qos == 0 { 0 } else { n };
        house.say(other, &Packet::Publish(publish("t", qos, packet_id, b"x")));
    }
    let heard = house.frames_once(native);
    let ids: Vec<_> = heard.iter().map(packet_id).collect();
    assert_eq!(ids.len(), 3, "{heard:?}");
    assert_eq!(ids.iter().filter(|id| **id == 0).count(), 1);
    for id in ids.into_iter().filter(|id| *id != 0) {
        house.tell(native, &Up::Ack { packet_id: id });
    }
    house.gone(native);
    let native = house.native("alice", "phone", 0);
    assert_eq!(house.frames(native), [], "nothing of it is left");
    let key = house.hub.find_session("phone").unwrap();
    assert_eq!(house.hub.sessions[key as usize].durable.as_ref().map(|d| d.queued), Some(0));
    house.tell(
        native,
        &Up::Publish { packet_id: 9, retain: true, topic: "u", properties: b"\x01\x01", payload: b"kept" },
    );
    assert_eq!(house.frames(native), [Down::Accepted { packet_id: 9, seq: 0, dup: false }]);
    house.tell(native, &Up::Subscribe { packet_id: 10, filter: "u", options: 1 });
    let heard = house.frames(native);
    assert!(
        heard.iter().any(|f| matches!(
            f,
            Down::Publish { topic: "u", retain: true, payload: b"kept", properties: b"\x01\x01", .. }
        )),
        "{heard:?}"
    );
}

#[test]
fn a_device_is_paired_natively() {
    let mut house = House::new(|_| ());
    let alice = house.native("alice", "phone", 0);
    let group = br#"{"op":"create","name":"Home","household":true}"#;
    house.tell(alice, &Up::Request { packet_id: 1, path: "me/group/g-home", payload: group });
    house.tell(alice, &Up::Request { packet_id: 2, path: "me/pair", payload: br#"{"household":"g-home","id":"p"}"# });
    let heard = house.frames(alice);
    let json = heard.iter().find_map(|f| match *f {
        Down::Answer { topic: "me/pair/res", re: "me/pair", id: "p", json, .. } => Some(json),
        _ => None,
    });
    let answer: serde_json::Value = serde_json::from_str(json.unwrap_or_else(|| panic!("{heard:?}"))).unwrap();
    let code = answer["code"].as_str().unwrap();

    let device = |secret| {
        let Up::Hello { level, schema, terminal, receive_max, .. } = hello("", "new", 0) else { panic!() };
        Up::Hello {
            level,
            schema,
            account: "pair",
            secret,
            terminal,
            keep_alive_s: 0,
            expiry_s: 0,
            receive_max,
            frame_max: 0,
            clean: true,
            wants: wants::ALL,
            core_level: 0,
            platform: "",
            app: "",
        }
    };
    let link = house.open_native();
    house.tell(link, &device(Secret(b"0000-0000")));
    assert!(matches!(house.frames(link)[..], [Down::Close { code: 0x86, .. }]));

    // The one subscription of such a device is made for it, and it can do nothing else.
    let link = house.open_native();
    house.tell(link, &device(Secret(code.as_bytes())));
    house.tell(link, &send(1, "alice", "", "let me in"));
    let heard = house.frames(link);
    assert!(matches!(heard[0], Down::Welcome { account: "pair", .. }), "{heard:?}");
    assert!(matches!(heard[1], Down::Refused { packet_id: 1, code: Code::Forbidden, .. }), "{heard:?}");
    house.hub.frame(
        house.now,
        link,
        &Up::Request { packet_id: 2, path: "me/paired", payload: br#"{"name":"lamp2"}"# },
        9,
    );
    let request = core::iter::from_fn(|| house.hub.poll_effect()).find_map(|effect| match effect {
        Effect::Pair(request) => Some(request),
        _ => None,
    });
    house.hub.paired(house.now, request.unwrap().exchange, b"record", "secret");
    house.settle();
    let heard = house.frames(link);
    let is_paired = |f: &Down<'_>| {
        let Down::Answer { topic: "me/paired", packet_id: 1.., json, .. } = *f else { return false };
        json.contains(r#""account":"lamp2""#) && json.contains(r#""password":"secret""#)
    };
    assert!(heard.iter().any(is_paired), "{heard:?}");
}

/// A client that lost its connection before the answer came tries again by another way in.
#[test]
fn the_same_message_by_another_way_in_is_one() {
    let mut house = House::new(|_| ());
    house.friends();
    let mut property = vec![];
    Property::UserProperty("im-id", "raw").encode(&mut property);
    let properties = Properties::from_validated(&property);
    let link = join_as(&mut house, "desk", "bob", &[]);
    for (packet_id, payload) in
        [(1, &br#"{"text":"a \"b\"","id":"a1"}"#[..]), (2, br#"{"id":"a2","body":{"t": 1},"kind":"k","re":1}"#)]
    {
        house.say(link, &Packet::Publish(publish("im/v1/to/alice/msg", 1, packet_id, payload)));
    }
    let raw = Publish { properties, ..publish("im/v1/to/alice/msg", 1, 3, b"\xFF\xFE") };
    house.say(link, &Packet::Publish(raw));
    house.told(link);
    house.gone(link);
    let link = house.native("bob", "desk", 0);
    let with = |packet_id, id, kind, re, body| Up::Send {
        packet_id,
        to: "alice",
        id,
        kind,
        ttl_s: 0,
        re,
        quiet: false,
        level: 0,
        fallback: "",
        body,
    };
    house.tell(link, &with(1, "a1", "", None, Body::Text("a \"b\"")));
    house.tell(link, &with(2, "a2", "k", Some(1), Body::Json("{\"t\": 1}")));
    house.tell(link, &with(3, "raw", "", None, Body::Bytes(b"\xFF\xFE")));
    let heard = house.frames(link);
    for (packet_id, seq) in [(1, 1), (2, 2), (3, 3)] {
        assert!(heard.contains(&Down::Accepted { packet_id, seq, dup: true }), "{heard:?}");
    }
}
