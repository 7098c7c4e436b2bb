//! Every row of docs/protocol.md has its frame, in both directions, and nothing a client of MQTT learns is missing.

use super::down::{To, TooLong};
use super::up::{Scratch, Wrong};
use super::{FIRST_LEVEL, down, up};
use parlor_protocol::link::{
    Body, Code, CommandState, Decoded, Down, LEVEL, Message, PresenceState, SIZE_MAX, Secret, Up, decode_frame, flags,
};
use parlor_protocol::mqtt::{
    Ack, ConnAck, Disconnect, Packet, PacketId, Properties, Property, Publish, QoS, ReasonCode, SubAck, UnsubAck,
    Version, decode,
};
use serde_json::Value;
use std::collections::BTreeSet;

/// The random frames of the protocol's own tests.
#[path = "../../../../device-sdk/protocol/tests/link/generate.rs"]
#[allow(dead_code, reason = "those for the other direction are not used here")]
mod generate;

const DOCUMENT: &str = include_str!("../../../../docs/protocol.md");
const TO: To = To { level: LEVEL, frame_max: SIZE_MAX };

/// The topics in the first column of a section's table, as they are written.
fn rows(section: &str) -> BTreeSet<&'static str> {
    let (_, rest) = DOCUMENT.split_once(section).unwrap();
    let section = rest.split("\n## ").next().unwrap();
    let cells = section.lines().filter(|line| line.starts_with("| `im/")).map(|line| line.split('|').nth(1).unwrap());
    cells.map(|cell| cell.trim().split('`').nth(1).unwrap()).collect()
}

/// What a frame says as PUBLISH: topic, payload, QoS.
fn said(frame: &Up<'_>) -> (String, String, u8) {
    up::packet(frame, None, &mut Scratch::default(), |packet| {
        let Packet::Publish(p) = packet else { panic!("{packet:?}") };
        (p.topic.to_owned(), String::from_utf8(p.payload.to_vec()).unwrap(), p.qos as u8)
    })
    .unwrap()
}

/// The frames that a PUBLISH becomes.
fn told(topic: &str, payload: &str) -> Vec<Down<'static>> {
    told_to(TO, topic, payload.as_bytes(), 0, &[]).unwrap()
}

fn told_to(
    to: To,
    topic: &str,
    payload: &[u8],
    packet_id: u16,
    properties: &[u8],
) -> Result<Vec<Down<'static>>, TooLong> {
    let packet_id = PacketId::new(packet_id);
    let qos = if packet_id.is_some() { QoS::AtLeastOnce } else { QoS::AtMostOnce };
    let properties = Properties::from_validated(properties);
    let publish = Publish { dup: false, qos, retain: false, topic, packet_id, properties, payload };
    frames(to, &Packet::Publish(publish))
}

fn frames(to: To, packet: &Packet<'_>) -> Result<Vec<Down<'static>>, TooLong> {
    let mut out = vec![];
    down::packet(packet, to, &mut out)?;
    let (mut rest, mut all): (&'static [u8], _) = (out.leak(), vec![]);
    while let Some((Decoded::Frame(frame), used)) = decode_frame(rest, to.frame_max).unwrap() {
        all.push(frame);
        rest = &rest[used..];
    }
    assert!(rest.is_empty());
    Ok(all)
}

fn only(topic: &str, payload: &str) -> Down<'static> {
    let all = told(topic, payload);
    assert_eq!(all.len(), 1, "{all:?}");
    all[0]
}

#[test]
fn everything_a_client_publishes_has_a_frame() {
    let text = Body::Text("hi");
    let send = Up::Send {
        packet_id: 1,
        to: "{addr}",
        id: "a1",
        kind: "",
        ttl_s: 0,
        re: None,
        quiet: false,
        level: 0,
        fallback: "",
        body: text,
    };
    let edit = Up::Edit { packet_id: 1, to: "{addr}", seq: 2, kind: "", re: None, level: 0, fallback: "", body: text };
    let command = Up::Command {
        packet_id: 1,
        to: "{device}",
        name: "{name}",
        id: "c1",
        args: "{\"on\":true}",
        deadline_ms: 10_000,
        persist: true,
        once: true,
    };
    let history = Up::History {
        packet_id: 0,
        id: "h1",
        with: "bob",
        before: Some(9),
        after: None,
        since: Some(1),
        until: Some(2),
        max: 5,
    };
    let request = |path| Up::Request { packet_id: 1, path, payload: b"{}" };
    let done = CommandState::Done;
    let cases = [
        (send, r#"{"text":"hi","id":"a1"}"#),
        (Up::Receipt { packet_id: 1, to: "{addr}", recv: 0, read: 3 }, r#"{"read":3}"#),
        (Up::Recall { packet_id: 1, to: "{addr}", seq: 3 }, r#"{"seq":3}"#),
        (edit, r#"{"text":"hi","seq":2}"#),
        (Up::Typing { to: "{addr}", on: false }, r#"{"typing":false}"#),
        (Up::Stream { to: "{addr}", name: "{name}", payload: b"x" }, "x"),
        (command, r#"{"args":{"on":true},"id":"c1","deadline_ms":10000,"persist":true,"once":true}"#),
        (Up::CancelCommand { packet_id: 1, to: "{device}", id: "{id}" }, ""),
        (Up::Desired { packet_id: 1, to: "{device}", patch: "{\"on\":null}" }, r#"{"on":null}"#),
        (Up::Sync { packet_id: 0, id: "s1", after: Some(0), max: 7 }, r#"{"id":"s1","after":0,"max":7}"#),
        (history, r#"{"id":"h1","with":"bob","before":9,"since":1,"until":2,"max":5}"#),
        (Up::Synced { packet_id: 1, pos: 7 }, r#"{"pos":7}"#),
        (Up::Status { packet_id: 1, state: PresenceState::Asleep, for_s: 60 }, r#"{"state":"asleep","for_s":60}"#),
        (Up::Reported { packet_id: 1, patch: "{}" }, "{}"),
        (Up::Describe { packet_id: 1, json: "" }, ""),
        (
            Up::CommandState { packet_id: 1, id: "{id}", state: done, result: "[1]", text: "so" },
            r#"{"state":"done","result":[1],"text":"so"}"#,
        ),
        (request("me/convs"), "{}"),
        (request("me/conv/{addr}"), "{}"),
        (request("me/contacts"), "{}"),
        (request("me/contact/{addr}"), "{}"),
        (request("me/group/{g}"), "{}"),
        (request("me/household"), "{}"),
        (request("me/whois/{addr}"), "{}"),
        (request("me/profile"), "{}"),
        (request("me/terminals"), "{}"),
        (request("me/pair"), "{}"),
        (request("me/recount"), "{}"),
        (request("me/blob/{id}"), "{}"),
        (request("admin/ch/{ch}/{op}"), "{}"),
        // Hello says it; or later:
        (request("me/hello"), "{}"),
    ];
    let mut topics = BTreeSet::new();
    for (frame, payload) in &cases {
        let (topic, got, qos) = said(frame);
        assert_eq!(got, *payload, "{frame:?}");
        assert_eq!(u16::from(qos), up::packet_id(frame).min(1), "{frame:?}");
        topics.insert(topic);
    }
    assert_eq!(topics.iter().map(String::as_str).collect::<BTreeSet<_>>(), rows("\n## 2. Up"));
}

#[test]
fn a_message_has_every_field_of_the_envelope() {
    let full = Up::Send {
        packet_id: 1,
        to: "bob",
        id: "a1",
        kind: "poll",
        ttl_s: 900,
        re: Some(0),
        quiet: true,
        level: 261_001,
        fallback: "a \"poll\"",
        body: Body::Both { text: "t\n", json: "{\"q\": 1}" },
    };
    let expect = r#"{"text":"t\n","body":{"q": 1},"kind":"poll","re":0,"notify":false,"id":"a1","ttl_s":900,"level":261001,"fallback":"a \"poll\""}"#;
    assert_eq!(said(&full), ("im/v1/to/bob/msg".to_owned(), expect.to_owned(), 1));
    // The fields that section 4 names are these, and `data`.
    let (_, rest) = DOCUMENT.split_once("\n## 4. Messages").unwrap();
    let table = rest.split("Delivered to").next().unwrap();
    let keys = table.lines().filter(|line| line.starts_with("| `")).flat_map(|line| {
        let cell = line.split('|').nth(1).unwrap();
        cell.split('`').skip(1).step_by(2).collect::<Vec<_>>()
    });
    let value: Value = serde_json::from_str(expect).unwrap();
    for key in keys {
        assert!(value.get(key).is_some() || key == "data", "{key}");
    }
    let bytes = Up::Edit {
        packet_id: 1,
        to: "bob",
        seq: 1,
        kind: "",
        re: None,
        level: 0,
        fallback: "",
        body: Body::Bytes(b"\xFF\xFE"),
    };
    assert_eq!(said(&bytes).1, r#"{"body":null,"data":"//4=","seq":1}"#);
}

#[test]
fn what_is_no_json_does_not_become_a_part_of_some() {
    let check = |frame: &Up<'_>, wrong| {
        let got = up::packet(frame, None, &mut Scratch::default(), |packet| format!("{packet:?}"));
        assert_eq!(got, Err(wrong));
    };
    let command = |args| Up::Command {
        packet_id: 1,
        to: "lamp",
        name: "set",
        id: "",
        args,
        deadline_ms: 0,
        persist: false,
        once: false,
    };
    for bad in ["1,\"once\":true", "{} {}", "{", "tru", "\u{0}"] {
        check(&command(bad), Wrong::NotJson("args"));
        check(&Up::Reported { packet_id: 1, patch: bad }, Wrong::NotJson("patch"));
    }
    assert_eq!(said(&command("")).1, r#"{"args":{}}"#);
    let state = |state| Up::CommandState { packet_id: 1, id: "c1", state, result: "", text: "" };
    check(&state(CommandState::Unknown(99)), Wrong::NoSuchState);
    // Neither telemetry nor a retained message reaches the messaging rooms.
    check(&Up::Telemetry { topic: "im/v1/to/lamp/cmd/set", payload: b"{}" }, Wrong::Messaging);
    let topic = "im/v1/to/lamp/cmd/set";
    check(&Up::Publish { packet_id: 1, retain: false, topic, properties: b"", payload: b"{}" }, Wrong::Messaging);
}

#[test]
fn hello_is_a_connect() {
    let hello = Up::Hello {
        level: LEVEL,
        schema: 0,
        account: "alice",
        secret: Secret(b"s"),
        terminal: "phone",
        keep_alive_s: 30,
        expiry_s: 600,
        receive_max: 9,
        frame_max: 0,
        clean: true,
        wants: 0,
        core_level: 261_001,
        platform: "ios",
        app: "2.1",
    };
    up::packet(&hello, None, &mut Scratch::default(), |packet| {
        let Packet::Connect(c) = packet else { panic!("{packet:?}") };
        assert_eq!((c.version, c.clean_start, c.keep_alive_secs, c.client_id), (Version::V5, true, 30, "phone"));
        assert_eq!((c.username, c.password), (Some("alice"), Some(&b"s"[..])));
        let expect = [
            Property::SessionExpiryInterval(600),
            Property::ReceiveMaximum(9),
            Property::MaximumPacketSize(65_535),
            Property::UserProperty("im-level", "261001"),
            Property::UserProperty("im-platform", "ios"),
            Property::UserProperty("im-app", "2.1"),
        ];
        assert!(c.properties.iter().eq(expect));
    })
    .unwrap();
    for (will, code) in [(false, 0), (true, 4)] {
        let bye = Up::Bye { will };
        let reason = up::packet(&bye, None, &mut Scratch::default(), |packet| match packet {
            Packet::Disconnect(d) => d.reason.0,
            other => panic!("{other:?}"),
        });
        assert_eq!(reason, Ok(code));
    }
}

/// A topic and a payload of each row of section 3, and the frame's name.
const TOLD: [(&str, &str, &str, &str); 22] = [
    (
        "im/v1/me/in/{addr}/msg",
        "im/v1/me/in/alice/msg",
        r#"{"seq":12,"pos":40,"prev":11,"from":"alice","ts":5,"id":"a1","text":"hi"}"#,
        "Deliver",
    ),
    (
        "im/v1/me/in/{addr}/receipt",
        "im/v1/me/in/bob/receipt",
        r#"{"pos":4,"seq":2,"recv":2,"read":1,"by":"bob"}"#,
        "Receipt",
    ),
    ("im/v1/me/in/{addr}/recall", "im/v1/me/in/bob/recall", r#"{"pos":4,"seq":2,"by":"bob"}"#, "Recall"),
    (
        "im/v1/me/in/{addr}/edit",
        "im/v1/me/in/bob/edit",
        r#"{"pos":4,"seq":2,"by":"bob","from":"bob","ts":5,"text":"x","edited":6}"#,
        "Edit",
    ),
    (
        "im/v1/me/in/{addr}/contact",
        "im/v1/me/in/bob/contact",
        r#"{"pos":4,"op":"request","text":"me","ts":5,"self":true}"#,
        "Contact",
    ),
    ("im/v1/me/in/{addr}/typing", "im/v1/me/in/bob/typing", r#"{"from":"bob","typing":true}"#, "Typing"),
    ("", "im/v1/me/in/bob/stream/position", "52.52,13.40", "Stream"),
    (
        "im/v1/me/in/{addr}/bounce",
        "im/v1/me/in/bob/bounce",
        r#"{"re":"to/bob/msg","id":"a9","code":"not_found","text":"no bob"}"#,
        "Bounce",
    ),
    ("im/v1/me/in/{me}/gap", "im/v1/me/in/alice/gap", r#"{"from":1,"to":9,"why":"overflow"}"#, "Gap"),
    ("im/v1/me/sent", "im/v1/me/sent", r#"{"pos":0,"to":"bob","seq":1,"id":"a1","dup":true}"#, "Sent"),
    ("im/v1/me/head", "im/v1/me/head", r#"{"pos":4,"floor":1,"unread":2,"by":{"bob":2}}"#, "Head"),
    ("im/v1/me/conv/{addr}", "im/v1/me/conv/bob", r#"{"addr":"bob","seq":4}"#, "Conversation"),
    ("im/v1/me/err", "im/v1/me/err", r#"{"re":"to/bob/msg","id":"a1","code":"blocked","text":"by bob"}"#, "Error"),
    (
        "im/v1/me/cmd/{id}/{name}",
        "im/v1/me/cmd/c1/set",
        r#"{"args":{"on": true},"from":"alice","left_ms":9800,"once":true}"#,
        "Command",
    ),
    ("im/v1/me/delta", "im/v1/me/delta", r#"{"version":2,"desired":{"on":true}}"#, "Delta"),
    (
        "im/v1/me/res/{id}",
        "im/v1/me/res/c1",
        r#"{"id":"c1","pos":4,"device":"lamp","name":"set","state":"done","result":{"on":true},"text":"so","ts":5}"#,
        "CommandResult",
    ),
    ("im/v1/me/{request}/res", "im/v1/me/contacts/res", r#"{"re":"me/contacts","id":"k","contacts":[]}"#, "Answer"),
    (
        "im/v1/presence/{addr}",
        "im/v1/presence/bob",
        r#"{"state":"asleep","since":1,"seen":2,"terminals":0,"until":9,"epoch":3}"#,
        "Presence",
    ),
    // It says nothing that `Presence` does not.
    ("im/v1/presence/{addr}/avail", "im/v1/presence/bob/avail", "online", "Publish"),
    (
        "im/v1/state/{device}",
        "im/v1/state/lamp",
        r#"{"version":2,"reported":{"on":true},"desired":{},"by":"lamp","ts":5}"#,
        "State",
    ),
    ("", "im/v1/me/cmd/c1/$cancel", "{}", "CommandCanceled"),
    ("", "im/v1/me/paired", r#"{"re":"me/paired","account":"lamp2","password":"p"}"#, "Answer"),
];

#[test]
fn everything_a_client_hears_has_a_frame() {
    for (_, topic, payload, name) in TOLD {
        assert_eq!(only(topic, payload).name(), name, "{topic}");
    }
    let topics: BTreeSet<&str> = TOLD.iter().map(|row| row.0).filter(|row| !row.is_empty()).collect();
    assert_eq!(topics, rows("\n## 3. Down"));
}

/// Every number and word of the JSON is somewhere in the frame.
#[test]
fn nothing_of_the_json_is_lost() {
    fn leaves(value: &Value, all: &mut Vec<String>) {
        match value {
            Value::Object(map) => map.values().for_each(|value| leaves(value, all)),
            Value::Array(list) => list.iter().for_each(|value| leaves(value, all)),
            Value::String(text) => all.push(text.clone()),
            Value::Number(number) => all.push(number.to_string()),
            Value::Bool(_) | Value::Null => {}
        }
    }
    for (_, topic, payload, _) in TOLD {
        let shown = format!("{:?}", only(topic, payload)).to_lowercase();
        let Ok(value) = serde_json::from_str::<Value>(payload) else { continue };
        let mut all = vec![];
        leaves(&value, &mut all);
        for leaf in all {
            assert!(shown.contains(&leaf.replace('_', "")) || shown.contains(&leaf), "{leaf} of {payload} in {shown}");
        }
    }
}

#[test]
fn a_message_keeps_all_it_says() {
    let full = r#"{"seq":1,"pos":0,"prev":0,"entry":1,"change":9,"from":"ch-town","ts":5,"text":"a\"b","body":[1],"kind":"note","re":3,"notify":false,"version":2,"left_ms":7,"edited":8,"backfill":true}"#;
    let Down::Deliver { address: "ch-town", message, .. } = only("im/v1/me/in/ch-town/msg", full) else { panic!() };
    assert_eq!(message.body, Body::Both { text: "a\"b", json: "[1]" });
    assert_eq!((message.kind, message.re, message.left_ms, message.edited), ("note", Some(3), Some(7), 8));
    assert_eq!(message.flags, flags::QUIET | flags::BACKFILL);
    let place = message.announcement.unwrap();
    assert_eq!((place.entry, place.change, place.version), (1, 9, 2));

    let said = |rest: &str| {
        let payload = format!(r#"{{"seq":1,"pos":2,"prev":0,"from":"b","ts":5{rest}}}"#);
        let Down::Deliver { message, .. } = only("im/v1/me/in/b/msg", &payload) else { panic!("{payload}") };
        message
    };
    assert_eq!(said(r#","body":null"#).body, Body::Json("null"));
    assert_eq!(said(r#","data":"//4=""#).body, Body::Bytes(b"\xFF\xFE"));
    assert_eq!(said(r#","gone":true"#).flags, flags::GONE);
    let Message { flags, level, body, .. } = said(r#","text":"old","fallback":true,"level":261001"#);
    assert_eq!((flags, level, body), (flags::FALLBACK, 261_001, Body::Text("old")));
    let Down::Sent { to: "bob", message, .. } = only(TOLD[9].1, TOLD[9].2) else { panic!() };
    assert_eq!((message.seq, message.id, message.flags), (1, "a1", flags::REPEATED));
}

#[test]
fn marks_of_a_peer_a_group_and_oneself() {
    let told = |payload| match only("im/v1/me/in/g-x/receipt", payload) {
        Down::Receipt { seq, recv, read, by, of, own_unread, .. } => (seq, recv, read, by, of, own_unread),
        other => panic!("{other:?}"),
    };
    assert_eq!(told(r#"{"pos":1,"seq":2,"recv":2,"read":1,"by":"bob"}"#), (2, 2, 1, "bob", None, None));
    assert_eq!(told(r#"{"pos":1,"seq":3,"recv":1,"read":0,"of":2}"#), (3, 1, 0, "", Some(2), None));
    assert_eq!(told(r#"{"pos":1,"self":true,"read":3,"unread":0}"#), (0, 0, 3, "", None, Some(0)));
}

#[test]
fn what_may_no_longer_be_seen_is_cleared() {
    assert!(matches!(
        only("im/v1/presence/bob", ""),
        Down::Presence { address: "bob", state: PresenceState::Hidden, .. }
    ));
    assert!(matches!(only("im/v1/state/lamp", ""), Down::State { device: "lamp", version: 0, .. }));
    assert!(matches!(only("im/v1/me/conv/bob", ""), Down::Conversation { address: "bob", json: "", .. }));
}

#[test]
fn what_no_frame_tells_goes_as_it_is() {
    for (topic, payload) in [
        // A field, a word, or a form that no frame has a place for.
        ("im/v1/me/in/bob/msg", r#"{"seq":1,"pos":2,"prev":0,"from":"b","ts":5,"text":"x","colour":"red"}"#),
        ("im/v1/me/in/bob/msg", r#"{"seq":1,"text":"x","data":"//4="}"#),
        ("im/v1/me/in/bob/bounce", r#"{"code":"unheard_of","text":"x"}"#),
        ("im/v1/me/err", r#"{"re":"x","id":7,"code":"quota","text":"x"}"#),
        ("im/v1/me/in/bob/receipt", r#"{"pos":1,"self":true,"read":3}"#),
        ("im/v1/presence/bob", r#"{"state":"dreaming","since":1,"seen":2,"terminals":0,"epoch":3}"#),
        ("im/v1/me/head", "not JSON"),
        ("im/v1/me/in/bob/wave", "{}"),
        ("im/v1/me/in/bob/msg/more/levels", "{}"),
        ("im/v2/me/head", "{}"),
    ] {
        let Down::Publish { topic: to, payload: got, .. } = only(topic, payload) else { panic!("{topic} {payload}") };
        assert_eq!((to, got), (topic, payload.as_bytes()));
    }
    let id = told_to(TO, "im/v1/me/head", b"\xFF", 9, &[]).unwrap();
    assert!(matches!(id[0], Down::Publish { packet_id: 9, payload: b"\xFF", .. }));
    // Correlation Data have no other place.
    let mut properties = vec![];
    Property::CorrelationData(b"k").encode(&mut properties);
    let payload = br#"{"re":"me/convs"}"#;
    let answer = told_to(TO, "im/v1/me/res/x", payload, 0, &properties).unwrap();
    assert!(matches!(answer[0], Down::Publish { properties: got, .. } if got == properties));
    // Bytes of a blob are no answer in JSON, also where all of them could be text.
    let range = [&[0; 16][..], b"{}"].concat();
    let answer = told_to(TO, "im/v1/me/blob/res", &range, 4, &[]).unwrap();
    assert!(matches!(answer[0], Down::Publish { topic: "im/v1/me/blob/res", payload, .. } if payload == range));
    // Ordinary messages keep all.
    let ordinary = told_to(TO, "home/x", b"on", 3, b"\x01\x01").unwrap();
    assert!(matches!(ordinary[0], Down::Publish { packet_id: 3, topic: "home/x", properties: b"\x01\x01", .. }));
}

#[test]
fn pages_are_followed_by_their_entries() {
    let page = r#"{"pos":5,"head":9,"floor":1,"more":true,"entries":[{"topic":"im/v1/me/in/alice/msg","payload":{"seq":4,"pos":4,"prev":3,"from":"alice","ts":5,"text":"x"}},{"topic":"im/v1/me/in/new","payload":{"what":1}}],"re":"me/sync","id":"s1"}"#;
    let all = told("im/v1/me/sync/res", page);
    assert_eq!(all.iter().map(Down::name).collect::<Vec<_>>(), ["SyncPage", "Deliver", "Publish"]);
    assert!(matches!(all[0], Down::SyncPage { id: "s1", pos: 5, head: 9, floor: 1, more: true, count: 2, .. }));
    let page = r#"{"with":"g-home","more":true,"next":3,"messages":[{"seq":3,"pos":0,"prev":2,"from":"me","ts":5,"text":"x"},{"seq":4,"pos":0,"prev":3,"from":"b","ts":5,"gone":true}],"re":"me/history"}"#;
    let all = told("im/v1/me/bulk-7-9/res", page);
    assert_eq!(all.iter().map(Down::name).collect::<Vec<_>>(), ["HistoryPage", "Deliver", "Deliver"]);
    assert!(matches!(all[0], Down::HistoryPage { id: "", with: "g-home", more: true, next: 3, count: 2, .. }));
    let line = only("im/v1/me/conv/res", r#"{"addr":"res","seq":1}"#);
    assert!(matches!(line, Down::Conversation { address: "res", .. }));
    let answer = only("im/v1/me/conv/res", r#"{"addr":"bob","re":"me/conv/bob"}"#);
    assert!(matches!(answer, Down::Answer { topic: "me/conv/res", re: "me/conv/bob", .. }));
    // The topic of an answer is the one it has elsewhere, also on a stream of its own.
    let answer = only("im/v1/me/bulk-7-9/res", r#"{"re":"me/whois/bob","id":"w"}"#);
    assert!(matches!(answer, Down::Answer { topic: "me/whois/res", re: "me/whois/bob", id: "w", .. }), "{answer:?}");
}

#[test]
fn frames_are_no_longer_than_the_client_takes() {
    let to = To { level: LEVEL, frame_max: 100 };
    let long = "x".repeat(200);
    let message = format!(r#"{{"seq":4,"pos":6,"prev":3,"from":"alice","ts":5,"text":"{long}"}}"#);
    assert_eq!(told_to(to, "im/v1/me/in/alice/msg", message.as_bytes(), 7, &[]), Err(TooLong));
    assert_eq!(told_to(to, "home/x", long.as_bytes(), 7, &[]), Err(TooLong));
    // In a page it says where it would have been.
    let page = format!(r#"{{"with":"alice","more":false,"messages":[{message},{message}],"re":"me/history"}}"#);
    let all = told_to(to, "im/v1/me/history/res", page.as_bytes(), 0, &[]).unwrap();
    assert_eq!(all.iter().map(Down::name).collect::<Vec<_>>(), ["HistoryPage", "Omitted", "Omitted"]);
    assert!(matches!(all[1], Down::Omitted { address: "alice", seq: 4, pos: 6, bytes: 200.. }));
    // Whoever waits for an answer hears that there is none.
    let answer = format!(r#"{{"re":"me/convs","id":"k","convs":["{long}"]}}"#);
    let all = told_to(to, "im/v1/me/convs/res", answer.as_bytes(), 0, &[]).unwrap_or_default();
    assert!(matches!(all[0], Down::Error { re: "me/convs", id: "k", code: Code::TooLarge, .. }), "{all:?}");
}

#[test]
fn answers_are_typed() {
    let ack = |reason, text: &str| {
        let mut properties = vec![];
        if !text.is_empty() {
            Property::ReasonString(text).encode(&mut properties);
        }
        let packet_id = PacketId::new(7).unwrap();
        let ack = Ack { packet_id, reason, properties: Properties::from_validated(&properties) };
        match frames(TO, &Packet::PubAck(ack)).unwrap()[..] {
            [Down::Refused { packet_id: 7, code, text }] => (code, text),
            ref other => panic!("{other:?}"),
        }
    };
    // Every code of section 10.
    let (_, rest) = DOCUMENT.split_once("\n## 10. Errors").unwrap();
    let codes: Vec<&str> = rest
        .split("\n```")
        .next()
        .unwrap()
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
        .collect();
    assert!(codes.len() >= 15);
    for code in codes {
        let text = format!("{code}: why: so");
        let expect = Code::parse(code).unwrap_or_else(|| panic!("{code}"));
        assert_eq!(ack(ReasonCode::NOT_AUTHORIZED, &text), (expect, "why: so"));
    }
    assert_eq!(ack(ReasonCode::NOT_AUTHORIZED, ""), (Code::NotAllowed, "Not authorized"));
    assert_eq!(ack(ReasonCode::QUOTA_EXCEEDED, "no: such code"), (Code::Quota, "no: such code"));
    assert_eq!(ack(ReasonCode::PACKET_IDENTIFIER_IN_USE, "").0, Code::Failed);

    let mut properties = vec![];
    Property::UserProperty("im-seq", "12").encode(&mut properties);
    Property::UserProperty("im-dup", "1").encode(&mut properties);
    let packet_id = PacketId::new(7).unwrap();
    let properties = Properties::from_validated(&properties);
    let done = Ack { packet_id, reason: ReasonCode::SUCCESS, properties };
    assert_eq!(frames(TO, &Packet::PubAck(done)), Ok(vec![Down::Accepted { packet_id: 7, seq: 12, dup: true }]));
    let nobody = Ack { reason: ReasonCode::NO_MATCHING_SUBSCRIBERS, properties: Properties::EMPTY, ..done };
    assert_eq!(frames(TO, &Packet::PubAck(nobody)), Ok(vec![Down::Accepted { packet_id: 7, seq: 0, dup: false }]));
    let properties = Properties::EMPTY;
    let suback = Packet::SubAck(SubAck { packet_id, properties, reasons: &[1] });
    assert_eq!(frames(TO, &suback), Ok(vec![Down::Subscribed { packet_id: 7, code: 1 }]));
    let unsuback = Packet::UnsubAck(UnsubAck { packet_id, properties, reasons: &[0x11] });
    assert_eq!(frames(TO, &unsuback), Ok(vec![Down::Unsubscribed { packet_id: 7, code: 0x11 }]));
    assert_eq!(frames(TO, &Packet::PingResp), Ok(vec![Down::Pong {}]));
    let refused = ConnAck { session_present: false, reason: ReasonCode::BAD_USER_NAME_OR_PASSWORD, properties };
    let text = "Bad User Name or Password";
    assert_eq!(frames(TO, &Packet::ConnAck(refused)), Ok(vec![Down::Close { code: 0x86, text }]));
    let taken = Disconnect { reason: ReasonCode::SESSION_TAKEN_OVER, properties };
    let text = "Session taken over";
    assert_eq!(frames(TO, &Packet::Disconnect(taken)), Ok(vec![Down::Close { code: 0x8E, text }]));
    // QoS 2 has no frames.
    assert_eq!(frames(TO, &Packet::PubRel(done)), Ok(vec![]));
}

#[test]
fn a_client_is_sent_no_frame_that_is_newer_than_it() {
    for levels in [Down::LEVELS, Up::LEVELS] {
        assert!(levels.iter().all(|level| (FIRST_LEVEL..=LEVEL).contains(level)));
    }
    for (level, client) in [(FIRST_LEVEL, 0), (FIRST_LEVEL, LEVEL), (LEVEL + 1, LEVEL + 1)] {
        assert!(To { level: client, frame_max: SIZE_MAX }.knows(level));
    }
    assert!(!To { level: LEVEL, frame_max: SIZE_MAX }.knows(LEVEL + 1));
    assert!(!To { level: 0, frame_max: SIZE_MAX }.knows(FIRST_LEVEL + 1));
}

#[test]
fn every_frame_becomes_a_legal_packet_or_is_refused() {
    let mut rng = generate::Rng(0xF4A3);
    let mut scratch = Scratch::default();
    let (mut packets, mut refused) = (0, 0);
    for round in 0..20_000 {
        let frame = generate::any_up(&mut rng);
        let answer_to = (round % 3 == 0).then_some("im/v1/me/bulk-1-2/res");
        let done = up::packet(&frame, answer_to, &mut scratch, |packet| {
            let mut bytes = vec![];
            packet.encode(Version::V5, &mut bytes);
            let read = decode(&bytes, Version::V5, u32::MAX).unwrap_or_else(|error| panic!("{error}: {frame:?}"));
            assert_eq!(read, Some((*packet, bytes.len())), "{frame:?}");
            if let Packet::Publish(p) = packet {
                // What has its JSON from the fields of the frame is JSON.
                let is_json = p.topic.ends_with("/msg") || p.topic.contains("/cmd/") || p.topic == "im/v1/me/history";
                assert!(!is_json || serde_json::from_slice::<Value>(p.payload).is_ok(), "{frame:?}");
            }
        });
        *(if done.is_ok() { &mut packets } else { &mut refused }) += 1;
    }
    assert!(packets > 10_000 && refused > 1_000, "{packets} {refused}");
}

#[test]
fn whatever_the_json_is_frames_come_of_it() {
    let mut typed = 0;
    for (_, topic, payload, _) in TOLD {
        let all = (0..payload.len()).flat_map(|at| {
            let mut flipped = payload.as_bytes().to_vec();
            flipped[at] ^= 1;
            let mut without = payload.as_bytes().to_vec();
            without.remove(at);
            [flipped, without, payload.as_bytes()[..at].to_vec()]
        });
        for payload in all {
            let frames = told_to(TO, topic, &payload, 0, &[]).unwrap();
            assert_eq!(frames.len(), 1);
            typed += usize::from(frames[0].name() != "Publish");
        }
    }
    assert!(typed > 300, "{typed}");
}
