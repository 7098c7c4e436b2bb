//! Frames where they may not be, streams of their own, datagrams, and builds of other levels.

use super::tests::*;
use super::tests_native::*;
use crate::limits::Limits;
use crate::link::StreamKind;
use parlor_protocol::link::{Body, Code, CommandState, Down, LEVEL, LinkError, PresenceState, SCHEMA, Up, wants};

#[test]
fn levels_may_differ_and_schemas_of_one_level_may_not() {
    let mut house = House::new(|_| ());
    let with = |new_level, new_schema| {
        let Up::Hello { account, secret, terminal, receive_max, .. } = hello("alice", "", 0) else { panic!() };
        Up::Hello {
            level: new_level,
            schema: new_schema,
            account,
            secret,
            terminal,
            keep_alive_s: 0,
            expiry_s: 0,
            receive_max,
            frame_max: 0,
            clean: true,
            wants: 0,
            core_level: 0,
            platform: "",
            app: "",
        }
    };
    for (level, schema) in [(LEVEL, SCHEMA), (LEVEL + 1, 5), (LEVEL - 1, 5), (0, 0)] {
        let link = house.greet(&with(level, schema));
        let heard = house.frames(link);
        let Down::Welcome { level, schema, terminal, .. } = heard[0] else { panic!("{heard:?}") };
        assert_eq!((level, schema), (LEVEL, SCHEMA));
        assert!(terminal.starts_with("auto-"));
    }
    let link = house.open_native();
    house.tell(link, &with(LEVEL, SCHEMA + 1));
    assert!(house.asked.is_empty(), "nobody is asked about it");
    let heard = house.frames(link);
    assert!(matches!(heard[..], [Down::Close { code: 0x84, text }] if text.starts_with("schema: ")), "{heard:?}");
    assert_eq!(house.hub.counters().refused.count("frame_schema"), 1);
}

#[test]
fn a_hello_that_is_refused_hears_why() {
    let mut house = House::new(|l| l.client_id_bytes_max = 8);
    let link = house.open_native();
    house.tell(link, &hello("alice", "much too long", 0));
    let text = "the client identifier is too long";
    assert_eq!(house.frames(link), [Down::Close { code: 0x85, text }]);
    // Before Hello nothing is said to.
    let link = house.open_native();
    house.tell(link, &Up::Ping {});
    assert_eq!(house.frames(link), []);
    assert_eq!(house.hub.counters().refused.count("first_packet_not_connect"), 1);
    let link = house.open_native();
    house.hub.unknown_frame(house.now, link, 200, 4);
    assert_eq!(house.hub.counters().refused.count("first_packet_not_connect"), 2);
    // Nor is there a second one.
    let link = house.native("alice", "phone", 0);
    house.tell(link, &hello("alice", "phone", 0));
    assert!(matches!(house.frames(link)[..], [Down::Close { code: 0x82, .. }]));
}

#[test]
fn malformed_frames_end_a_connection_and_unknown_ones_do_not() {
    let mut house = House::new(|_| ());
    let link = house.native("alice", "phone", 0);
    house.hub.unknown_frame(house.now, link, 200, 4);
    house.tell(link, &Up::Ping {});
    assert_eq!(house.frames(link), [Down::Unknown { tag: 200 }, Down::Pong {}]);
    let text = LinkError::TrailingBytes.to_string();
    house.hub.malformed_frame(house.now, link, &LinkError::TrailingBytes);
    assert!(matches!(house.frames(link)[..], [Down::Close { code: 0x81, text: told }] if told == text));
    let link = house.open_native();
    house.hub.malformed_frame(house.now, link, &LinkError::BadVersion(2));
    assert!(matches!(house.frames(link)[..], [Down::Close { code: 0x84, .. }]));
    let count = |label| house.hub.counters().refused.count(label);
    assert_eq!((count("frame_unknown"), count("frame_trailing_bytes"), count("frame_version")), (1, 1, 1));
}

#[test]
fn a_terminal_that_pulls_does_so_on_a_stream_of_its_own() {
    let mut house = House::new(|_| ());
    house.friends();
    let phone = house.native("alice", "phone", wants::HEAD);
    let bob = house.native("bob", "desk", 0);
    for n in 1..=3 {
        house.tell(bob, &send(n, "alice", "", "x"));
    }
    let heads = house.frames(phone);
    let pos = heads.iter().find_map(|f| match *f {
        Down::Head { pos, unread, by, .. } if unread > 0 => Some((pos, by)),
        _ => None,
    });
    assert!(matches!(pos, Some((_, "{\"bob\":1}" | "{\"bob\":3}"))), "{heads:?}");
    let bulk = house.hub.open_stream(house.now, phone, StreamKind::Bulk).unwrap();
    house.tell(bulk, &Up::Sync { packet_id: 0, id: "s1", after: Some(0), max: 2 });
    let page = house.frames_once(bulk);
    let names: Vec<_> = page.iter().map(Down::name).collect();
    assert_eq!(names, ["Accepted", "SyncPage", "Contact", "Deliver"], "{page:?}");
    let Down::SyncPage { id: "s1", pos, more: true, count: 2, .. } = page[1] else { panic!("{page:?}") };
    assert_eq!(house.frames(phone), [], "and nothing of it on the first stream");
    assert!(!house.hub.is_open(bulk.slot), "its end follows");
    house.gone(bulk);
    // History in the same way, and a refusal too.
    for (with, names) in
        [("bob", &["Accepted", "HistoryPage", "Deliver", "Deliver", "Deliver"][..]), ("eve", &["Refused"])]
    {
        let bulk = house.hub.open_stream(house.now, phone, StreamKind::Bulk).unwrap();
        let (before, after, since, until) = (None, Some(0), None, None);
        house.tell(bulk, &Up::History { packet_id: 7, id: "h", with, before, after, since, until, max: 0 });
        let page = house.frames_once(bulk);
        assert_eq!(page.iter().map(Down::name).collect::<Vec<_>>(), names, "{page:?}");
        assert!(!house.hub.is_open(bulk.slot));
        house.gone(bulk);
    }
    house.frames(phone);
    // On the first stream the same works.
    house.tell(phone, &Up::Sync { packet_id: 8, id: "s2", after: Some(pos), max: 0 });
    house.tell(phone, &Up::Synced { packet_id: 9, pos });
    let names = house.names(phone);
    for name in ["SyncPage", "Deliver", "Accepted"] {
        assert!(names.contains(&name), "{names:?}");
    }
}

/// The client may end its half with the request; the answer, which waits for the store, comes all the same.
#[test]
fn a_request_is_answered_though_the_client_says_no_more() {
    let mut house = House::new(|_| ());
    house.friends();
    let phone = house.native("alice", "phone", 0);
    let bob = house.native("bob", "desk", 0);
    house.tell(bob, &send(1, "alice", "", "x"));
    let (before, after, since, until) = (None, Some(0), None, None);
    for (with, names) in [("bob", &["Accepted", "HistoryPage", "Deliver"][..]), ("eve", &["Refused"])] {
        let request = Up::History { packet_id: 0, id: "h", with, before, after, since, until, max: 0 };
        let bulk = house.hub.open_stream(house.now, phone, StreamKind::Bulk).unwrap();
        house.hub.frame(house.now, bulk, &request, 9);
        house.hub.hear_no_more(house.now, bulk);
        house.settle();
        let heard = house.frames_once(bulk);
        assert_eq!(heard.iter().map(Down::name).collect::<Vec<_>>(), names, "{heard:?}");
        assert!(!house.hub.is_open(bulk.slot), "its end follows");
        house.gone(bulk);
    }
    // Without a request there is nothing to wait for.
    let bulk = house.hub.open_stream(house.now, phone, StreamKind::Bulk).unwrap();
    house.hub.hear_no_more(house.now, bulk);
    assert!(!house.hub.is_open(bulk.slot));
}

#[test]
fn only_requests_with_an_answer_have_a_stream_of_their_own_and_each_one() {
    let mut house = House::new(|_| ());
    let phone = house.native("alice", "phone", 0);
    for frame in
        [Up::Ping {}, send(1, "bob", "", "x"), Up::Request { packet_id: 1, path: "me/profile", payload: b"{}" }]
    {
        let bulk = house.hub.open_stream(house.now, phone, StreamKind::Bulk).unwrap();
        house.tell(bulk, &frame);
        let heard = house.frames_once(bulk);
        assert!(matches!(heard[..], [Down::Error { code: Code::NotHere, .. }]), "{heard:?}");
        assert!(!house.hub.is_open(bulk.slot));
        house.gone(bulk);
    }
    let bulk = house.hub.open_stream(house.now, phone, StreamKind::Bulk).unwrap();
    house.hub.frame(house.now, bulk, &Up::Request { packet_id: 0, path: "me/convs", payload: b"{}" }, 9);
    house.settle();
    let heard = house.frames_once(bulk);
    assert!(
        matches!(
            heard[..],
            [Down::Accepted { packet_id: 1, .. }, Down::Answer { topic: "me/convs/res", re: "me/convs", .. }]
        ),
        "{heard:?}"
    );
    assert_eq!(house.hub.counters().refused.count("frame_not_here"), 3);
    house.tell(phone, &Up::Ping {});
    assert_eq!(house.frames(phone), [Down::Pong {}]);
}

#[test]
fn datagrams_carry_what_may_be_lost_and_nothing_else() {
    let mut house = House::new(|_| ());
    house.friends();
    let alice = house.native("alice", "phone", wants::PUSH | wants::DATAGRAMS);
    let bob = house.native("bob", "desk", wants::PUSH);
    assert!(house.hub.wants_datagrams(alice) && !house.hub.wants_datagrams(bob));
    house.tell(alice, &Up::Subscribe { packet_id: 1, filter: "before/+", options: 0 });
    let out = house.hub.open_datagrams(house.now, alice, 100).unwrap();
    house.tell(alice, &Up::Subscribe { packet_id: 2, filter: "after/+", options: 0 });
    house.tell(alice, &Up::Subscribe { packet_id: 3, filter: "sure/+", options: 1 });
    house.frames(alice);
    let up = house.hub.open_datagrams(house.now, bob, 1_200).unwrap();
    house.tell(up, &Up::Typing { to: "alice", on: true });
    house.tell(up, &Up::Stream { to: "alice", name: "position", payload: b"1,2" });
    for topic in ["before/x", "after/x", "sure/x"] {
        house.tell(up, &Up::Telemetry { topic, payload: b"21.5" });
    }
    let names: Vec<_> = house.frames_once(out).iter().map(Down::name).collect();
    assert_eq!(names, ["Typing", "Stream", "Publish", "Publish"]);
    assert!(matches!(house.frames(alice)[..], [Down::Publish { topic: "sure/x", packet_id: 0, .. }]));
    // What is too long for one goes on the first stream, and what must not be lost as well.
    house.tell(up, &Up::Stream { to: "alice", name: "position", payload: &[0; 200] });
    house.tell(bob, &send(1, "alice", "", "x"));
    assert_eq!(house.frames_once(out), []);
    assert_eq!(house.names(alice), ["Stream", "Deliver"]);
    // Nothing else is taken from a datagram, and a broken one harms nobody.
    house.frames(bob);
    house.tell(up, &send(2, "alice", "", "x"));
    house.tell(up, &Up::Ack { packet_id: 40_000 });
    house.tell(up, &Up::Telemetry { topic: "im/v1/to/alice/msg", payload: b"x" });
    house.hub.malformed_frame(house.now, up, &LinkError::Truncated);
    house.settle();
    let codes: Vec<_> = house
        .frames(bob)
        .iter()
        .map(|f| match *f {
            Down::Error { code, re, .. } => (re, code),
            other => panic!("{other:?}"),
        })
        .collect();
    let expect =
        [("Send", Code::NotHere), ("Ack", Code::NotHere), ("Telemetry", Code::BadTopic), ("", Code::BadRequest)];
    assert_eq!(codes, expect);
    assert_eq!(house.frames(alice), []);
    assert_eq!(house.hub.counters().refused.count("frame_not_here"), 2);
}

#[test]
fn a_frame_with_wrong_fields_is_refused_and_no_more() {
    let mut house = House::new(|_| ());
    house.friends();
    let alice = house.native("alice", "phone", 0);
    house.tell(alice, &Up::Reported { packet_id: 5, patch: "{} {}" });
    house.tell(alice, &Up::Reported { packet_id: 0, patch: "{} {}" });
    let unknown = Up::CommandState { packet_id: 6, id: "c1", state: CommandState::Unknown(77), result: "", text: "" };
    house.tell(alice, &unknown);
    house.tell(alice, &Up::Status { packet_id: 7, state: PresenceState::Hidden, for_s: 0 });
    let body = Body::Json("1,\"id\":\"x\"");
    house.tell(
        alice,
        &Up::Send {
            packet_id: 8,
            to: "bob",
            id: "",
            kind: "",
            ttl_s: 0,
            re: None,
            quiet: false,
            level: 0,
            fallback: "",
            body,
        },
    );
    house.tell(alice, &Up::Ping {});
    let heard = house.frames(alice);
    let refused: Vec<_> = heard
        .iter()
        .filter_map(|f| match *f {
            Down::Refused { packet_id, code, .. } => Some((packet_id, code)),
            _ => None,
        })
        .collect();
    assert_eq!(refused, [5, 6, 7, 8].map(|id| (id, Code::BadRequest)), "{heard:?}");
    assert!(heard.iter().any(|f| matches!(f, Down::Error { re: "Reported", code: Code::BadRequest, .. })));
    assert_eq!(heard.last(), Some(&Down::Pong {}));
    assert_eq!(house.unanswered(alice), 0);
}

#[test]
fn a_native_client_that_reads_nothing_is_not_read() {
    let mut house = House::new(|l: &mut Limits| l.output_bytes_max = 16_384);
    let link = house.native("alice", "phone", 0);
    for _ in 0..10_000 {
        if !house.hub.may_read(link) {
            break;
        }
        house.hub.unknown_frame(house.now, link, 200, 4);
    }
    assert!(!house.hub.may_read(link));
    assert!(house.hub.output(link).len() < 17_000);
}
