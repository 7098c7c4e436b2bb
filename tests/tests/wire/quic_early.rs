//! The first flight of a returning client (0-RTT, RFC 9001 s4.6, s9.2): what is taken from it, and what somebody gets who
//! sends it again.

use super::common::*;
use super::quic::control;
use parlor_tests::cut::Way;
use parlor_tests::im::{House, PASSWORD, json};
use parlor_tests::quic::{Dialer, Early, Raw, Road};
use parlor_tests::site::Site;
use parlor_tests::udp_proxy::{Faults, UdpProxy};
use std::time::Duration;

/// As long as a broker may need to answer what it was sent again.
const SILENCE: Duration = Duration::from_secs(1);

/// A broker, somebody to write to, and something to command; a line between them and alice that keeps a record.
struct Scene {
    site: Site,
    proxy: UdpProxy,
    dialer: Dialer,
    bob: Client,
    lamp: Client,
}

impl Scene {
    fn new() -> Option<Self> {
        let site = Site::quic(&["alice", "bob"], &[])?;
        site.house.add("lamp", "device");
        for other in ["bob", "lamp"] {
            site.house.befriend("alice", other);
        }
        let mut bob = site.house.client(V5, "bob", "bob");
        bob.subscribe("im/v1/me/in/+/msg", 1);
        bob.subscribe("plain/#", 1);
        let mut lamp = site.house.client(V5, "lamp", "lamp");
        lamp.subscribe("im/v1/me/cmd/#", 1);
        let proxy = UdpProxy::open(site.quic_addr(), Faults::none());
        let dialer = Dialer::mqtt(&site.ca);
        let mut scene = Self { site, proxy, dialer, bob, lamp };
        scene.learn();
        Some(scene)
    }

    /// A connection that leaves tickets.
    fn learn(&mut self) {
        let mut client = control(&self.dialer.dial(self.proxy.addr()), V5, "alice-phone");
        client.quiet();
        client.disconnect();
    }

    /// A connection whose first flight carries these packets on control, and those on a data stream.
    fn first_flight(&self, packets: &[Vec<u8>], data: &[Vec<u8>]) -> (Road, Early, Raw, Raw) {
        let (road, early) = self.dialer.dial_early(self.proxy.addr()).expect("a ticket is there");
        let (mut stream, mut other) = (road.raw(), road.raw());
        assert!(stream.send(&packets.concat()) && (data.is_empty() || other.send(&data.concat())));
        (road, early, stream, other)
    }

    fn bob_has(&mut self, text: &str) {
        assert_eq!(json(&self.bob.on("im/v1/me/in/alice/msg"))["text"], text);
    }

    /// Nothing more has come to anybody.
    fn nothing_more(&mut self) {
        self.bob.quiet();
        self.lamp.quiet();
    }
}

fn connect() -> Vec<u8> {
    Connect::v5("alice-phone").username("alice").password(PASSWORD).resume().bytes()
}

/// It would end what the session has gathered since it was recorded.
#[test]
fn to_clear_a_session_waits_for_the_handshake() {
    let Some(mut scene) = Scene::new() else { return };
    scene.proxy.stop(&[Way::Down]);
    let clean = Connect::v5("alice-phone").username("alice").password(PASSWORD).bytes();
    let (_road, _early, _stream, _other) = scene.first_flight(&[clean, message(1, "later")], &[]);
    scene.nothing_more();
    scene.proxy.stop(&[]);
    scene.bob_has("later");
}

fn message(id: u16, text: &str) -> Vec<u8> {
    let message = Publish::new("im/v1/to/bob/msg", text).qos(1, id).with(prop::user("im-id", &format!("m{id}")));
    message.bytes(V5)
}

fn command(id: u16) -> Vec<u8> {
    let args = format!(r#"{{"args":{{"on":true}},"id":"c{id}","deadline_ms":60000}}"#);
    Publish::new("im/v1/to/lamp/cmd/set", args).qos(1, id).bytes(V5)
}

fn plain(id: u16) -> Vec<u8> {
    Publish::new("plain/t", "x").qos(1, id).bytes(V5)
}

/// Reads packets from a stream until so many have come.
fn packets(stream: &mut Raw, count: usize) -> Vec<Packet> {
    let (mut bytes, mut found) = (vec![], vec![]);
    while found.len() < count {
        while let Some(length) = frame_length(&bytes).filter(|length| *length <= bytes.len()) {
            found.push(parse_packet(V5, &bytes[..length]).expect("a good packet"));
            bytes.drain(..length);
        }
        if found.len() < count {
            bytes.extend(stream.next(PATIENCE).expect("more packets"));
        }
    }
    found
}

/// A message is taken before the handshake is over; a command, an ordinary publication and whatever follows them on that
/// stream wait for its end, and are not lost.
#[test]
fn a_message_is_taken_early_and_a_command_is_not() {
    let Some(mut scene) = Scene::new() else { return };
    // The broker's answers do not arrive, so the handshake cannot be completed.
    scene.proxy.stop(&[Way::Down]);
    let (_road, early, mut stream, mut other) =
        scene.first_flight(&[connect(), message(1, "early"), command(2), message(3, "behind it")], &[plain(4)]);
    scene.bob_has("early");
    scene.nothing_more();
    scene.proxy.stop(&[]);
    assert!(early.accepted(), "the broker says that it took it");
    let found = packets(&mut stream, 4);
    assert!(matches!(found[0], Packet::ConnAck(ConnAck { code: 0, .. })), "{found:?}");
    let acknowledged: Vec<(u16, u8)> = found[1..]
        .iter()
        .map(|packet| match packet {
            Packet::Ack { kind: PubAck, id, code, .. } => (*id, *code),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(acknowledged, [(1, 0), (2, 0), (3, 0)]);
    assert!(matches!(packets(&mut other, 1)[0], Packet::Ack { kind: PubAck, id: 4, code: 0, .. }));
    assert!(scene.lamp.message().topic.starts_with("im/v1/me/cmd/c2/"));
    scene.bob_has("behind it");
    assert_eq!(scene.bob.on("plain/t").text(), "x");
    scene.nothing_more();
}

/// Somebody who has listened sends the first flight again, while the connection lives and when it is over, from another
/// address: no second message, no second command, nothing at all.
#[test]
fn a_first_flight_that_is_sent_again_does_nothing() {
    let Some(mut scene) = Scene::new() else { return };
    let (road, early, mut stream, _other) =
        scene.first_flight(&[connect(), message(1, "once"), command(2), plain(3)], &[]);
    assert!(early.accepted());
    assert_eq!(packets(&mut stream, 4).len(), 4);
    scene.bob_has("once");
    assert_eq!(scene.bob.on("plain/t").text(), "x");
    let _ = scene.lamp.message();
    let taken_down = scene.proxy.taken_down();
    assert!(taken_down.len() >= 2, "the first flight and what completes the handshake");
    scene.proxy.replay(&taken_down, SILENCE);
    scene.nothing_more();
    assert!(stream.send(&[0xC0, 0]), "the connection itself goes on");
    assert!(matches!(packets(&mut stream, 1)[0], Packet::PingResp));

    stream.send(&[0xE0, 0]);
    let _ = road.closed();
    // As soon as the broker has forgotten the connection the flight begins another one.
    let mut answered = false;
    for _ in 0..5 {
        let answers = scene.proxy.replay(&taken_down, SILENCE);
        scene.nothing_more();
        answered |= answers.iter().any(|answer| answer[0] & 0x80 != 0);
        if answered {
            break;
        }
    }
    assert!(answered, "the broker saw a first flight, began a handshake, and took nothing from it");
    let session = scene.site.operator().ask("GET", "/sessions/alice-phone", "");
    assert_eq!(session.status, 404, "nobody came in with it: {}", session.text());
}

/// The tests above can see a second message: without an id, sent twice, it is two.
#[test]
fn a_second_message_would_be_seen() {
    let Some(mut scene) = Scene::new() else { return };
    let mut alice = control(&scene.dialer.dial(scene.proxy.addr()), V5, "alice-phone");
    for _ in 0..2 {
        assert_eq!(alice.say(1, "im/v1/to/bob/msg", "once"), 0);
    }
    scene.bob_has("once");
    scene.bob_has("once");
    scene.nothing_more();
}

/// A ticket is good for one first flight: the next connection with it is a full handshake, and works.
#[test]
fn after_a_restart_no_ticket_is_good_and_nothing_is_lost() {
    let Some(mut site) = Site::quic_on_its_port(&["alice", "bob"], &[]) else { return };
    site.house.befriend("alice", "bob");
    let proxy = UdpProxy::open(site.quic_addr(), Faults::none());
    let dialer = Dialer::mqtt(&site.ca);
    let mut client = control(&dialer.dial(proxy.addr()), V5, "alice-phone");
    client.quiet();
    client.disconnect();
    site.house.broker.kill();
    site.house.broker.start_again();
    // Nothing is heard of the broker before all is said.
    proxy.stop(&[Way::Down]);
    let (road, early) = dialer.dial_early(proxy.addr()).expect("a ticket is there");
    let mut stream = road.raw();
    assert!(stream.send(&[connect(), message(1, "early")].concat()));
    proxy.stop(&[]);
    assert!(!early.accepted(), "the broker does not know the ticket");
    // The client's QUIC says that its early data was not taken; its MQTT says it again.
    let mut alice = control(&road, V5, "alice-phone");
    let house: &House = &site.house;
    let mut bob = house.client(V5, "bob", "bob");
    bob.subscribe("im/v1/me/in/+/msg", 1);
    let again = Publish::new("im/v1/to/bob/msg", "early").with(prop::user("im-id", "m1"));
    assert_eq!(alice.answer_to(&again.qos(1, 0)).code, 0);
    assert_eq!(json(&bob.on("im/v1/me/in/alice/msg"))["text"], "early");
    bob.quiet();
}

/// Where certificates are asked for nothing is taken before the handshake is over: who it is, is not known before.
#[test]
fn with_certificates_nothing_is_early() {
    let Some(site) = Site::by_certificate(&["alice", "bob"], &[]) else { return };
    site.house.befriend("alice", "bob");
    let mut bob = site.house.client(V5, "bob", "bob");
    bob.subscribe("im/v1/me/in/+/msg", 1);
    let proxy = UdpProxy::open(site.quic_addr(), Faults::none());
    let dialer = Dialer::mqtt(&site.ca);
    let mut client = control(&dialer.dial(proxy.addr()), V5, "alice-phone");
    client.quiet();
    client.disconnect();
    proxy.stop(&[Way::Down]);
    let Some((road, early)) = dialer.dial_early(proxy.addr()) else { return };
    let mut stream = road.raw();
    assert!(stream.send(&[connect(), message(1, "late")].concat()));
    let mut again = site.house.client(V5, "bob", "bob-again");
    again.quiet();
    bob.quiet();
    proxy.stop(&[]);
    if early.accepted() {
        assert_eq!(packets(&mut stream, 2).len(), 2);
        assert_eq!(json(&bob.on("im/v1/me/in/alice/msg"))["text"], "late");
    }
}
