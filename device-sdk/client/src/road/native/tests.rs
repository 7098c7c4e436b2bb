//! What goes up as frames says what the topics said, and back.

use super::*;
use crate::options::Options;
use crate::target::Target;
use parlor_protocol::link::{Body, CommandState, Message as LinkMessage, PresenceState, flags};
use serde_json::{Value, json};

fn login(listen: crate::options::Listen) -> Arc<Login> {
    let (target, _) = Target::parse("parlor://home.lan").unwrap();
    let options = Options { listen, ..Options::default() };
    let (user, password, terminal) = ("alice".to_owned(), "secret".to_owned(), "t1".to_owned());
    Arc::new(Login { target, user, password, terminal, options })
}

fn codec(has_datagrams: bool) -> NativeCodec {
    let login = login(crate::options::Listen::All);
    let filters = login.options.listen.filters();
    let mut codec = NativeCodec::new(login, filters, has_datagrams);
    codec.hello(&mut Out::default());
    codec
}

fn publish(topic: &str, payload: &str, effort: Effort) -> Wanted {
    let (topic, payload) = (topic.to_owned(), payload.as_bytes().to_vec());
    Wanted { token: 77, topic, payload, effort, retain: false, is_idempotent: false }
}

/// The frame a publish becomes, as text.
#[track_caller]
fn check_up(topic: &str, payload: &str, expect: &UpFrame<'_>) {
    let mut out = Out::default();
    codec(false).up(Up::Publish(publish(topic, payload, Effort::UntilAnswered)), &mut out);
    let decoded = decode_frame::<UpFrame<'_>>(&out.bytes, SIZE_MAX).unwrap().unwrap().0;
    assert_eq!(decoded, Decoded::Frame(*expect), "{topic}");
}

/// What a frame from the broker becomes.
fn heard(frames: &[Frame<'_>]) -> Vec<Down> {
    let mut codec = codec(true);
    let (mut bytes, mut downs) = (Vec::new(), VecDeque::new());
    for frame in frames {
        link::encode(frame, &mut bytes).unwrap();
    }
    assert!(codec.feed(&mut bytes, &mut Out::default(), &mut downs).is_ok());
    assert!(bytes.is_empty());
    downs.into()
}

#[track_caller]
fn check_down(frame: Frame<'_>, topic: &str, payload: &Value) {
    let downs = heard(&[frame]);
    let [Down::Message(delivery)] = &downs[..] else { panic!("{downs:?}") };
    assert_eq!((delivery.topic.as_str(), delivery.number), (topic, Some(5)));
    assert_eq!(serde_json::from_slice::<Value>(&delivery.payload).unwrap(), *payload);
}

#[test]
fn messages_and_commands_have_frames_of_their_own() {
    check_up(
        "im/v1/to/bob/msg",
        r#"{"id":"a1","text":"hi","re":3,"notify":false,"ttl_s":60}"#,
        &UpFrame::Send {
            packet_id: 1,
            to: "bob",
            id: "a1",
            kind: "",
            ttl_s: 60,
            re: Some(3),
            quiet: true,
            level: 0,
            fallback: "",
            body: Body::Text("hi"),
        },
    );
    check_up(
        "im/v1/to/lamp/cmd/set",
        r#"{"id":"c1","args":{"on":true},"once":true}"#,
        &UpFrame::Command {
            packet_id: 1,
            to: "lamp",
            name: "set",
            id: "c1",
            args: r#"{"on":true}"#,
            deadline_ms: 0,
            persist: false,
            once: true,
        },
    );
    let receipt = UpFrame::Receipt { packet_id: 1, to: "bob", recv: 0, read: 7 };
    check_up("im/v1/to/bob/receipt", r#"{"read":7}"#, &receipt);
    let state = CommandState::Done;
    let done = UpFrame::CommandState { packet_id: 1, id: "c1", state, result: r#"{"on":true}"#, text: "" };
    check_up("im/v1/me/cmdres/c1", r#"{"state":"done","result":{"on":true}}"#, &done);
    check_up(
        "im/v1/me/history",
        r#"{"with":"bob","after":4,"max":50,"id":"pull-1"}"#,
        &UpFrame::History {
            packet_id: 1,
            id: "pull-1",
            with: "bob",
            before: None,
            after: Some(4),
            since: None,
            until: None,
            max: 50,
        },
    );
    let topic = UpFrame::Publish { packet_id: 1, retain: false, topic: "home/lamp", properties: &[], payload: b"on" };
    check_up("home/lamp", "on", &topic);
}

#[test]
fn what_a_frame_cannot_say_goes_as_a_request() {
    for (path, payload) in [
        ("me/contact/bob", r#"{"op":"request"}"#),
        ("to/bob/msg", r#"{"id":"a","text":"x","colour":"red"}"#),
        ("to/bob/msg", r#"{"id":"a","text":1}"#),
        ("to/bob/msg", r#"{"id":"a","text":"x","ttl_s":0}"#),
        ("to/lamp/cmd/set", r#"{"id":"c","args":1,"deadline_ms":99999999999}"#),
        ("me/cmdres/c1", r#"{"state":"bored"}"#),
    ] {
        let frame = UpFrame::Request { packet_id: 1, path, payload: payload.as_bytes() };
        check_up(&format!("im/v1/{path}"), payload, &frame);
    }
}

#[test]
fn what_may_be_lost_goes_as_a_datagram_where_there_are_any() {
    let small = publish("im/v1/to/bob/stream/pos", "1,2", Effort::Once);
    let large = publish("im/v1/to/bob/stream/pos", &"x".repeat(DATAGRAM_BYTES_MAX), Effort::Once);
    let telemetry = publish("home/temp", "21", Effort::Once);
    let mut out = Out::default();
    let mut quic = codec(true);
    for wanted in [&small, &large, &telemetry] {
        quic.up(Up::Publish(wanted.clone()), &mut out);
    }
    assert_eq!(out.datagrams.len(), 2);
    let frame = decode_datagram::<UpFrame<'_>>(&out.datagrams[0]).unwrap();
    assert_eq!(frame, Decoded::Frame(UpFrame::Stream { to: "bob", name: "pos", payload: b"1,2" }));
    assert!(out.bytes.len() > DATAGRAM_BYTES_MAX, "the long one goes on the stream");
    let mut out = Out::default();
    codec(false).up(Up::Publish(small), &mut out);
    assert!(out.datagrams.is_empty() && !out.bytes.is_empty());
}

#[test]
fn what_does_not_fit_is_refused_here() {
    let mut codec = codec(false);
    codec.frame_max = 100;
    let mut out = Out::default();
    let payload = json!({"id": "a", "text": "x".repeat(200)}).to_string();
    codec.up(Up::Publish(publish("im/v1/to/bob/msg", &payload, Effort::UntilAnswered)), &mut out);
    let [Down::Answered { token: 77, answer: Answer::Refused { code, .. } }] = &out.downs[..] else {
        panic!("{:?}", out.downs)
    };
    assert_eq!(code, "too_large");
    assert!(out.bytes.is_empty());
}

#[test]
fn what_comes_down_reads_as_it_does_over_mqtt() {
    let message = LinkMessage {
        seq: 12,
        pos: 40,
        prev: 0,
        from: "bob",
        ts: 9,
        id: "a1",
        kind: "",
        re: None,
        level: 0,
        edited: 0,
        left_ms: Some(5),
        flags: flags::QUIET,
        body: Body::Both { text: "hi", json: "[1]" },
        announcement: None,
    };
    let expect = json!({"seq": 12, "pos": 40, "prev": 0, "from": "bob", "ts": 9, "id": "a1", "left_ms": 5,
        "notify": false, "text": "hi", "body": [1]});
    let deliver = Frame::Deliver { packet_id: 5, dup: false, address: "bob", message };
    check_down(deliver, "im/v1/me/in/bob/msg", &expect);
    let mut expect = expect;
    expect["to"] = json!("bob");
    expect.as_object_mut().unwrap().remove("prev");
    check_down(Frame::Sent { packet_id: 5, dup: false, to: "bob", message }, "im/v1/me/sent", &expect);
    let repeated = LinkMessage { flags: flags::REPEATED, ..message };
    let expect = json!({"pos": 0, "to": "bob", "seq": 12, "id": "a1", "dup": true});
    check_down(Frame::Sent { packet_id: 5, dup: false, to: "bob", message: repeated }, "im/v1/me/sent", &expect);
    let own = Frame::Receipt {
        packet_id: 5,
        dup: false,
        address: "bob",
        pos: 4,
        seq: 0,
        recv: 0,
        read: 7,
        by: "",
        of: None,
        own_unread: Some(2),
    };
    check_down(own, "im/v1/me/in/bob/receipt", &json!({"pos": 4, "self": true, "read": 7, "unread": 2}));
    let command = Frame::Command {
        packet_id: 5,
        dup: false,
        id: "c1",
        name: "set",
        from: "bob",
        args: "{\"on\":true}",
        left_ms: 9_800,
        once: true,
    };
    let expect = json!({"args": {"on": true}, "from": "bob", "left_ms": 9_800, "once": true});
    check_down(command, "im/v1/me/cmd/c1/set", &expect);
    let error = Frame::Error { packet_id: 5, dup: false, re: "to/bob/msg", id: "a1", code: Code::Blocked, text: "no" };
    let expect = json!({"re": "to/bob/msg", "id": "a1", "code": "blocked", "text": "no"});
    check_down(error, "im/v1/me/err", &expect);
    let bytes = LinkMessage { body: Body::Bytes(&[0xFF, 0x00, 0xFE, 0x01]), left_ms: None, flags: 0, ..message };
    let downs = heard(&[Frame::Deliver { packet_id: 5, dup: false, address: "bob", message: bytes }]);
    let [Down::Message(delivery)] = &downs[..] else { panic!("{downs:?}") };
    let body: Value = serde_json::from_slice(&delivery.payload).unwrap();
    assert_eq!(body["data"], "/wD+AQ==");
}

#[test]
fn a_page_comes_with_its_entries() {
    let message = |seq, prev| LinkMessage {
        seq,
        pos: 0,
        prev,
        from: "bob",
        ts: 1,
        id: "",
        kind: "",
        re: None,
        level: 0,
        edited: 0,
        left_ms: None,
        flags: 0,
        body: Body::Text("t"),
        announcement: None,
    };
    let deliver = |seq, prev| Frame::Deliver { packet_id: 0, dup: false, address: "bob", message: message(seq, prev) };
    let page = Frame::HistoryPage { packet_id: 8, id: "pull-3", with: "bob", more: true, next: 6, count: 2 };
    let downs = heard(&[page, deliver(5, 0), deliver(6, 5), deliver(7, 6)]);
    let [Down::Message(page), Down::Message(after)] = &downs[..] else { panic!("{downs:?}") };
    assert_eq!((page.topic.as_str(), page.number), ("im/v1/me/history/res", Some(8)));
    let body: Value = serde_json::from_slice(&page.payload).unwrap();
    assert_eq!((&body["id"], &body["more"], &body["next"]), (&json!("pull-3"), &json!(true), &json!(6)));
    let seqs: Vec<_> = body["messages"].as_array().unwrap().iter().map(|m| m["seq"].as_u64().unwrap()).collect();
    assert_eq!(seqs, [5, 6]);
    assert!(body["messages"][0].get("prev").is_none(), "in a page, nothing is said of what stands before it");
    assert_eq!(after.topic, "im/v1/me/in/bob/msg");
    let empty = Frame::SyncPage { packet_id: 0, id: "s", pos: 9, head: 9, floor: 1, more: false, count: 0 };
    let downs = heard(&[empty]);
    let [Down::Message(page)] = &downs[..] else { panic!("{downs:?}") };
    assert_eq!((page.topic.as_str(), page.number), ("im/v1/me/sync/res", None));
}

fn welcome(level: u32) -> Frame<'static> {
    Frame::Welcome {
        level,
        schema: SCHEMA,
        account: "alice",
        terminal: "t1",
        session_present: false,
        keep_alive_s: 30,
        expiry_s: 0,
        frame_max: 1_000,
        receive_max: 10,
        server_ms: 1,
    }
}

#[test]
fn the_connection_stands_when_its_subscriptions_do() {
    assert!(
        matches!(heard(&[welcome(LEVEL)])[..], [Down::Window(10), Down::Connected]),
        "Hello asks for what everybody wants"
    );
    let filters = vec![Filter::at_least_once("im/v1/me/in/#"), Filter::at_least_once("home/#")];
    let login = login(crate::options::Listen::Only(filters.clone()));
    let mut codec = NativeCodec::new(login, filters, false);
    let (mut out, mut downs, mut bytes) = (Out::default(), VecDeque::new(), Vec::new());
    codec.hello(&mut out);
    let hello = decode_frame::<UpFrame<'_>>(&out.bytes, SIZE_MAX).unwrap().unwrap().0;
    assert!(matches!(hello, Decoded::Frame(UpFrame::Hello { wants: wants::PUSH, .. })), "{hello:?}");
    out.bytes.clear();
    link::encode(&welcome(LEVEL), &mut bytes).unwrap();
    codec.feed(&mut bytes, &mut out, &mut downs).unwrap();
    assert!(matches!(downs.make_contiguous(), [Down::Window(10)]));
    downs.clear();
    let subscribe = decode_frame::<UpFrame<'_>>(&out.bytes, SIZE_MAX).unwrap().unwrap().0;
    let Decoded::Frame(UpFrame::Subscribe { packet_id, filter: "home/#", options: 1 }) = subscribe else {
        panic!("{subscribe:?}")
    };
    link::encode(&Frame::Subscribed { packet_id, code: 1 }, &mut bytes).unwrap();
    codec.feed(&mut bytes, &mut out, &mut downs).unwrap();
    assert!(matches!(downs.make_contiguous(), [Down::Connected]));
    link::encode(&Frame::Close { code: 0x8E, text: "" }, &mut bytes).unwrap();
    let end = codec.feed(&mut bytes, &mut out, &mut downs).unwrap_err();
    assert!(matches!(end, End::Fatal(ConnectError::TakenOver(_))), "{end:?}");
}

#[test]
fn a_refused_hello_is_explained() {
    let check = |code: u8, text: &str, is: fn(&ConnectError) -> bool| {
        let mut bytes = Vec::new();
        link::encode(&Frame::Close { code, text }, &mut bytes).unwrap();
        let end = codec(false).feed(&mut bytes, &mut Out::default(), &mut VecDeque::new()).unwrap_err();
        assert!(matches!(&end, End::Fatal(error) if is(error)), "{end:?}");
    };
    check(0x86, "", |error| matches!(error, ConnectError::Credentials(_)));
    check(0x84, "schema", |error| matches!(error, ConnectError::Version { why, .. } if why == "schema"));
    check(0x87, "", |error| matches!(error, ConnectError::Refused { .. }));
}

#[test]
fn a_later_broker_may_say_more_and_nonsense_ends_the_connection() {
    let mut bytes = vec![0, 3, 1, 0xFF, 0x01];
    let mut downs = VecDeque::new();
    codec(true).feed(&mut bytes, &mut Out::default(), &mut downs).unwrap();
    assert!(downs.is_empty() && bytes.is_empty());
    for mut nonsense in [vec![0, 0], vec![0, 2, 9, 1], vec![0, 2, 1, 2]] {
        assert!(codec(true).feed(&mut nonsense, &mut Out::default(), &mut downs).is_err());
    }
    codec(true).datagram(&[9, 9, 9], &mut downs);
    assert!(downs.is_empty());
}

#[test]
fn the_first_value_on_a_connection_is_the_one_that_is_kept() {
    let presence = |state| Frame::Presence {
        packet_id: 5,
        dup: false,
        address: "bob",
        state,
        since: 1,
        seen: 1,
        terminals: 1,
        until: 0,
        epoch: 1,
    };
    let downs = heard(&[presence(PresenceState::Online), presence(PresenceState::Hidden)]);
    let [Down::Message(first), Down::Message(second)] = &downs[..] else { panic!("{downs:?}") };
    assert!(first.is_retained && !second.is_retained);
    assert!(second.payload.is_empty(), "what may no longer be seen is taken back");
}
