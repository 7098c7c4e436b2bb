//! The native link on the wire: its streams and datagrams over QUIC, what it does with frames it does not know or should
//! not have been sent, and its first flight.

use super::common::*;
use super::quic::refused;
use parlor_protocol::link::{Body, Code, Down, LEVEL, SCHEMA, Up, encode_datagram, wants};
use parlor_tests::cut::Way;
use parlor_tests::im::{House, json};
use parlor_tests::native::{Native, bytes, hello, read};
use parlor_tests::quic::{Dialer, Road};
use parlor_tests::site::Site;
use parlor_tests::udp_proxy::{Faults, UdpProxy};
use std::time::{Duration, Instant};

/// A broker that listens for frames over TCP and QUIC, with friends and a lamp.
fn start(extra: &[&str]) -> Option<Site> {
    let site = Site::with(&["parlor://127.0.0.1:0", "parlor+tcp://127.0.0.1:0"], &["alice", "bob"], extra)?;
    site.house.add("lamp", "device");
    site.house.befriend("alice", "bob");
    site.house.befriend("alice", "lamp");
    Some(site)
}

fn dial(site: &Site) -> Road {
    Dialer::native(&site.ca).dial(site.at("parlor"))
}

fn send<'a>(packet_id: u16, to: &'a str, id: &'a str, text: &'a str) -> Up<'a> {
    let body = Body::Text(text);
    Up::Send { packet_id, to, id, kind: "", ttl_s: 0, re: None, quiet: false, level: 0, fallback: "", body }
}

fn command(packet_id: u16, id: &str) -> Up<'_> {
    let args = r#"{"on":true}"#;
    Up::Command { packet_id, to: "lamp", name: "set", id, args, deadline_ms: 60_000, persist: false, once: false }
}

fn accepted(native: &mut Native, packet_id: u16) -> (u64, bool) {
    native.until(&format!("an answer to {packet_id}"), |down| match *down {
        Down::Accepted { packet_id: found, seq, dup } if found == packet_id => Some((seq, dup)),
        Down::Refused { packet_id: found, code, text } if found == packet_id => panic!("{code:?}: {text}"),
        _ => None,
    })
}

fn delivered(native: &mut Native, address: &str) -> (u64, String) {
    native.until(&format!("a message of {address}"), |down| match down {
        Down::Deliver { address: found, message, .. } if *found == address => {
            let Body::Text(text) = message.body else { panic!("{message:?}") };
            Some((message.seq, text.to_owned()))
        }
        _ => None,
    })
}

fn bob(house: &House) -> Client {
    let mut bob = house.client(V5, "bob", "bob");
    bob.subscribe("im/v1/me/in/#", 1);
    bob
}

/// A message and its answer, over TCP and over QUIC, with a peer that speaks MQTT: the same session whichever it is.
#[test]
fn frames_and_packets_are_one_conversation() {
    let Some(site) = start(&[]) else { return };
    let mut bob = bob(&site.house);
    let road = dial(&site);
    let stream = road.open();
    for (turn, at) in [site.at("parlor+tcp"), std::net::SocketAddr::from(&stream)].into_iter().enumerate() {
        let mut alice = Native::enter(at, &hello("alice", "alice-board", wants::PUSH));
        let turn = turn as u64;
        alice.say(&send(1, "bob", &format!("m{turn}"), "from frames"));
        assert_eq!(accepted(&mut alice, 1), (2 * turn + 1, false));
        assert_eq!(json(&bob.on("im/v1/me/in/alice/msg"))["text"], "from frames");
        assert_eq!(bob.say(1, "im/v1/to/alice/msg", "from packets"), 0);
        assert_eq!(delivered(&mut alice, "bob"), (2 * turn + 2, "from packets".to_owned()));
        // The same id again is the same message.
        alice.say(&send(2, "bob", &format!("m{turn}"), "from frames"));
        assert_eq!(accepted(&mut alice, 2), (2 * turn + 1, true));
        alice.say(&Up::Bye { will: false });
        let _ = alice.closed();
    }
    let doubled = bob.fence().into_iter().find(|p| matches!(p, Packet::Publish(p) if p.topic.ends_with("/msg")));
    assert_eq!(doubled, None);
}

/// Typing, streams and telemetry go as datagrams, in both directions.
#[test]
fn what_is_not_kept_goes_as_datagrams() {
    let Some(site) = start(&[]) else { return };
    let mut bob = bob(&site.house);
    bob.subscribe("sensors/#", 0);
    let road = dial(&site);
    let mut alice = Native::enter(&road.open(), &hello("alice", "alice-phone", wants::PUSH | wants::DATAGRAMS));
    alice.fence();
    let datagram = |frame: &Up<'_>| {
        let mut bytes = vec![];
        encode_datagram(frame, &mut bytes).expect("it is short");
        assert!(road.datagram(&bytes));
    };
    // A datagram may overtake the stream and may be lost; on the loopback interface it is there sooner or later.
    let until = |bob: &mut Client, frame: &Up<'_>, topic: &str| {
        for _ in 0..50 {
            datagram(frame);
            let found = bob.try_recv(Duration::from_millis(200));
            if let Ok(Packet::Publish(publish)) = found {
                assert_eq!(publish.topic, topic);
                return publish;
            }
        }
        panic!("{topic} did not come");
    };
    let typing = until(&mut bob, &Up::Typing { to: "bob", on: true }, "im/v1/me/in/alice/typing");
    assert_eq!(json(&typing)["typing"], true);
    let _ = bob.fence();
    let stream = Up::Stream { to: "bob", name: "position", payload: b"1,2" };
    assert_eq!(until(&mut bob, &stream, "im/v1/me/in/alice/stream/position").text(), "1,2");
    let _ = bob.fence();
    let telemetry = Up::Telemetry { topic: "sensors/t", payload: b"21.5" };
    assert_eq!(until(&mut bob, &telemetry, "sensors/t").text(), "21.5");
    let _ = bob.fence();
    assert_eq!(bob.say(0, "im/v1/to/alice/stream/volume", "11"), 0);
    let back = road.read_datagram();
    let with_length = [&u16::try_from(back.len()).expect("short").to_be_bytes(), back.as_slice()].concat();
    assert!(
        matches!(read(&with_length), Down::Stream { address: "bob", name: "volume", payload: b"11" }),
        "{:?}",
        read(&with_length)
    );
    // What does not fit comes on the stream.
    let long = "x".repeat(20_000);
    assert_eq!(bob.say(0, "im/v1/to/alice/stream/volume", &long), 0);
    let length = alice.until("the long one", |down| match down {
        Down::Stream { name: "volume", payload, .. } => Some(payload.len()),
        _ => None,
    });
    assert_eq!(length, 20_000);
}

/// A flood of datagrams of all kinds, good and bad, is bounded and counted; everybody else goes on, and so does its sender.
#[test]
fn a_flood_of_datagrams_is_bounded_and_counted() {
    let Some(site) = start(&["--set", "limits.publish_rate_max=1000", "--set", "limits.publish_burst_max=1000"]) else {
        return;
    };
    let mut bob = bob(&site.house);
    let road = dial(&site);
    let mut alice = Native::enter(&road.open(), &hello("alice", "alice-phone", wants::PUSH | wants::DATAGRAMS));
    let mut good = vec![];
    encode_datagram(&Up::Telemetry { topic: "nobody/listens", payload: &[7; 900] }, &mut good).expect("it is short");
    let bad: [&[u8]; 4] = [&[1], &[9, 1, 2], &[1, 0xFF, 0xFF, 0x7F], &[1, 16, 200]];
    for number in 0..20_000 {
        road.datagram(if number % 2 == 0 { &good } else { bad[number / 2 % bad.len()] });
    }
    alice.fence();
    // Its own rate is used up for a moment; others have theirs.
    let deadline = Instant::now() + PATIENCE;
    for packet_id in 1.. {
        alice.say(&send(packet_id, "bob", "after", "after the flood"));
        let is_taken = alice.until("an answer", |down| match *down {
            Down::Accepted { packet_id: found, .. } if found == packet_id => Some(true),
            Down::Refused { packet_id: found, code: Code::Quota, .. } if found == packet_id => Some(false),
            _ => None,
        });
        if is_taken {
            break;
        }
        assert!(Instant::now() < deadline, "it may speak again");
    }
    assert_eq!(json(&bob.on("im/v1/me/in/alice/msg"))["text"], "after the flood");
    assert!(road.close_reason().is_none());
    let metrics = site.operator().metrics();
    let line = |line: &&str| line.starts_with("parlor_packets_refused_total{");
    let counted: f64 =
        metrics.0.lines().filter(line).filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum();
    assert!(counted > 100.0, "{}", metrics.0);
}

/// Bulk has a stream of its own: request, page and its entries there, and then its end; control goes on meanwhile.
#[test]
fn bulk_comes_on_a_stream_of_its_own() {
    let Some(site) = start(&[]) else { return };
    let mut bob = bob(&site.house);
    let road = dial(&site);
    let mut alice = Native::enter(&road.open(), &hello("alice", "alice-phone", 0));
    for number in 0..60 {
        assert_eq!(bob.say(1, "im/v1/to/alice/msg", format!("{number}")), 0);
    }
    let request = Up::History {
        packet_id: 0,
        id: "h1",
        with: "bob",
        before: None,
        after: Some(0),
        since: None,
        until: None,
        max: 500,
    };
    let mut bulk: Vec<Native> = (0..3).map(|_| Native::open(&road.open())).collect();
    for stream in &mut bulk {
        stream.say(&request);
        stream.finish();
    }
    alice.fence();
    for stream in &mut bulk {
        let count = stream.until("the page", |down| match *down {
            Down::HistoryPage { id: "h1", with: "bob", count, more, .. } => {
                assert!(!more);
                Some(count)
            }
            _ => None,
        });
        assert_eq!(count, 60);
        for number in 0..60 {
            assert_eq!(delivered(stream, "bob"), (number + 1, number.to_string()));
        }
        assert_eq!(stream.closed(), None, "it ends by itself");
    }
    assert_eq!(alice.held(), [""; 0], "nothing of it came on control");
    let mut sync = Native::open(&road.open());
    sync.say(&Up::Sync { packet_id: 0, id: "s1", after: Some(0), max: 500 });
    let count = sync.until("the page", |down| match *down {
        Down::SyncPage { id: "s1", count, .. } => Some(count),
        _ => None,
    });
    assert!(count >= 60, "{count}");
    // What does not belong there is refused there, and the connection goes on.
    let mut wrong = Native::open(&road.open());
    wrong.say(&send(1, "bob", "", "on the wrong stream"));
    wrong.until("a refusal", |down| match *down {
        Down::Refused { packet_id: 1, .. } | Down::Error { .. } | Down::Close { .. } => Some(()),
        _ => None,
    });
    alice.fence();
    bob.quiet();
}

/// A frame of a newer build is skipped and named; a malformed, an oversized and a foreign one end the link with a reason, are
/// counted, and harm nobody else.
#[test]
fn frames_that_are_unknown_or_wrong() {
    let Some(site) = start(&["--set", "limits.packet_bytes_max=4096"]) else { return };
    let road = dial(&site);
    let mut alice = Native::enter(&road.open(), &hello("alice", "alice-phone", 0));
    alice.send(&[0, 5, 1, 0xE8, 0x07, 9, 9]);
    let tag = alice.until("Unknown", |down| match *down {
        Down::Unknown { tag } => Some(tag),
        _ => None,
    });
    assert_eq!(tag, 1_000);
    alice.fence();
    let bad: [(&str, &[u8], &[u8]); 5] = [
        ("no length", &[0, 0], &[0x81]),
        ("another version", &[0, 2, 2, 1], &[0x81, 0x84]),
        ("cut off", &[0, 3, 1, 3, 1], &[0x81]),
        ("trailing bytes", &[0, 4, 1, 1, 0, 0], &[0x81]),
        ("too long", &[0xFF, 0xFF, 1, 3], &[0x95]),
    ];
    for (what, bytes, codes) in bad {
        let other = dial(&site);
        let mut native = Native::enter(&other.open(), &hello("bob", "bob-board", 0));
        native.send(bytes);
        let (code, text) = native.closed().unwrap_or_else(|| panic!("{what}: no Close"));
        assert!(codes.contains(&code), "{what}: {code:#x} {text}");
        let mut tcp = Native::enter(site.at("parlor+tcp"), &hello("bob", "bob-board", 0));
        tcp.send(bytes);
        let over_tcp = tcp.closed().unwrap_or_else(|| panic!("{what}: no Close over TCP"));
        assert_eq!(over_tcp, (code, text), "{what}: the same over TCP");
    }
    alice.fence();
    // The same level and another text of the frames: a build that forgot to raise its level.
    let Up::Hello { account, secret, terminal, .. } = hello("bob", "bob-board", 0) else { unreachable!() };
    let twisted = |level, schema| Up::Hello {
        level,
        schema,
        account,
        secret,
        terminal,
        keep_alive_s: 60,
        expiry_s: 0,
        receive_max: 10,
        frame_max: 0,
        clean: true,
        wants: 0,
        core_level: 0,
        platform: "",
        app: "",
    };
    let mut wrong = Native::open(site.at("parlor+tcp"));
    wrong.say(&twisted(LEVEL, SCHEMA ^ 1));
    let (_, text) = wrong.closed().expect("it is told");
    assert!(text.contains("schema"), "{text}");
    for level in [LEVEL - 1, LEVEL + 1] {
        let mut other = Native::enter(site.at("parlor+tcp"), &twisted(level, SCHEMA ^ 1));
        other.fence();
    }
    // Who says something else first is no client.
    let mut rude = Native::open(site.at("parlor+tcp"));
    rude.say(&Up::Ping {});
    let _ = rude.closed();
    let counted = site.operator().metrics();
    assert!(refused(&counted, "frame_unknown") == 1, "{}", counted.0);
}

/// Of a first flight messages are taken, a command is not; sent again by somebody else it does nothing.
#[test]
fn a_first_flight_of_frames() {
    let Some(site) = start(&[]) else { return };
    let mut bob = bob(&site.house);
    let mut lamp = site.house.client(V5, "lamp", "lamp");
    lamp.subscribe("im/v1/me/cmd/#", 1);
    let proxy = UdpProxy::open(site.at("parlor"), Faults::none());
    let dialer = Dialer::native(&site.ca);
    let first = dialer.dial(proxy.addr());
    let mut alice = Native::enter(&first.open(), &hello("alice", "alice-phone", 0));
    alice.fence();
    alice.say(&Up::Bye { will: false });
    let _ = alice.closed();
    let _ = first.closed();

    proxy.stop(&[Way::Down]);
    let (road, early) = dialer.dial_early(proxy.addr()).expect("a ticket is there");
    let mut stream = road.raw();
    let flight =
        [bytes(&hello("alice", "alice-phone", 0)), bytes(&send(1, "bob", "m1", "early")), bytes(&command(2, "c1"))];
    assert!(stream.send(&flight.concat()));
    assert_eq!(json(&bob.on("im/v1/me/in/alice/msg"))["text"], "early");
    lamp.quiet();
    proxy.stop(&[]);
    assert!(early.accepted());
    assert!(lamp.message().topic.starts_with("im/v1/me/cmd/c1/"));

    let taken_down = proxy.taken_down();
    proxy.replay(&taken_down, Duration::from_secs(1));
    road.close(0, "bye");
    let mut answered = false;
    for _ in 0..5 {
        let answers = proxy.replay(&taken_down, Duration::from_secs(1));
        answered |= answers.iter().any(|answer| answer[0] & 0x80 != 0);
        if answered {
            break;
        }
    }
    assert!(answered, "the broker saw a first flight and began a handshake");
    bob.quiet();
    lamp.quiet();
}

/// Rights are those of the account, whichever road: what is refused to packets is refused to frames, with its code.
#[test]
fn refusals_have_their_codes() {
    let Some(site) = start(&[]) else { return };
    let mut alice = Native::enter(site.at("parlor+tcp"), &hello("alice", "alice-board", 0));
    let refusal = |alice: &mut Native, packet_id: u16| {
        alice.until(&format!("an answer to {packet_id}"), |down| match *down {
            Down::Refused { packet_id: found, code, .. } if found == packet_id => Some(code),
            Down::Accepted { packet_id: found, .. } if found == packet_id => panic!("accepted"),
            _ => None,
        })
    };
    alice.say(&send(1, "nobody", "n1", "hello?"));
    assert_eq!(refusal(&mut alice, 1), Code::NotFound);
    alice.say(&send(2, "bob", "one", "first"));
    accepted(&mut alice, 2);
    alice.say(&send(3, "bob", "one", "another"));
    assert_eq!(refusal(&mut alice, 3), Code::IdReused);
    let long = "x".repeat(65_000);
    alice.say(&send(4, "lamp", "two", &long));
    assert_eq!(refusal(&mut alice, 4), Code::TooLarge);
    let mut stranger = Native::open(site.at("parlor+tcp"));
    let mut wrong = hello("alice", "x", 0);
    if let Up::Hello { secret, .. } = &mut wrong {
        secret.0 = b"a wrong password";
    }
    stranger.say(&wrong);
    let (code, _) = stranger.closed().expect("it is told");
    assert!([0x86, 0x87].contains(&code), "{code:#x}");
}
