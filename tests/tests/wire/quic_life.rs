//! What a QUIC connection survives, and how its end is told: new addresses, new keys, restarts of the broker.

use super::common::*;
use super::quic::control;
use parlor_tests::im::json;
use parlor_tests::quic::{Dial, Dialer, MQTT, Road};
use parlor_tests::site::Site;
use parlor_tests::udp_proxy::{Faults, UdpProxy};
use quinn::ConnectionError;
use serde_json::Value;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

/// A broker that dies forgets its connections, but not how to say so: the client learns it with its next packet and not
/// by its idle timeout (RFC 9000 s10.3).
#[test]
fn a_restart_is_noticed_at_once() {
    let Some(mut site) = Site::quic_on_its_port(&["alice"], &[]) else { return };
    let idle = Duration::from_secs(60);
    let dialer = Dial::new(&site.ca, &[MQTT]).idle(idle).ready();
    let road = dialer.dial(site.quic_addr());
    let mut client = control(&road, V5, "survivor");
    client.quiet();
    site.house.broker.kill();
    site.house.broker.start_again();
    let begun = Instant::now();
    client.send(&[0xC0, 0]);
    let why = road.closed();
    assert!(matches!(why, ConnectionError::Reset), "{why}");
    assert!(begun.elapsed() < PATIENCE && PATIENCE < idle);
    let road = dialer.dial(site.quic_addr());
    control(&road, V5, "survivor").quiet();
}

/// Everybody comes back at once after a crash: all are let in soon, with their sessions, and addresses are checked meanwhile.
#[test]
fn a_storm_of_returns_is_weathered() {
    let count = 120;
    let more = ["--set", "limits.quic_retry_above=4", "--set", "auth.allow_anonymous=true"];
    let Some(mut site) = Site::quic_on_its_port(&[], &more) else { return };
    let dialer = Dialer::mqtt(&site.ca);
    // A password is expensive on purpose; who has a certificate or a token does not pay that, so these are anonymous.
    let connect = |number: usize| Connect::v5(&format!("storm-{number}")).persistent();
    let enter = |site: &Site, number: usize| {
        let road = dialer.dial(site.quic_addr());
        let client = connect(number).to(&road.open());
        (client, road)
    };
    let before: Vec<(Client, Road)> = (0..count).map(|number| enter(&site, number)).collect();
    site.house.broker.kill();
    site.house.broker.start_again();
    let begun = Instant::now();
    for (mut client, road) in before {
        client.send(&[0xC0, 0]);
        let why = road.closed();
        assert!(matches!(why, ConnectionError::Reset), "{why}");
    }
    let site = &site;
    let present: Vec<bool> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|part| {
                let enter = &enter;
                scope.spawn(move || {
                    let part = (part * count / 8)..((part + 1) * count / 8);
                    part.map(|number| enter(site, number).0.connack.present).collect::<Vec<bool>>()
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("all are let in")).collect()
    });
    assert_eq!(present, vec![true; count], "with their sessions");
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
}

/// A packet that belongs to no connection and is no first packet is answered by nothing worth while: no amplification, no
/// loop of resets (RFC 9000 s10.3.3).
#[test]
fn stray_datagrams_get_less_than_they_bring() {
    let Some(site) = Site::quic(&["alice"], &[]) else { return };
    let proxy = UdpProxy::open(site.quic_addr(), Faults::none());
    let stray: Vec<Vec<u8>> = (0..20_u8).map(|n| [&[0x40 | n], vec![n; 60].as_slice()].concat()).collect();
    let answers = proxy.replay(&stray, Duration::from_millis(500));
    assert!(answers.len() <= stray.len());
    assert!(answers.iter().all(|answer| answer.len() < 61), "{answers:?}");
    let long: Vec<Vec<u8>> = vec![vec![0xC0; 1_200], vec![0xFF; 30], vec![0], vec![]];
    proxy.replay(&long, Duration::from_millis(500));
    control(&Dialer::mqtt(&site.ca).dial(site.quic_addr()), V5, "good").quiet();
}

/// RFC 9001 s6: keys change in the middle, from the client's side, as often as it likes.
#[test]
fn keys_are_updated_while_messages_go() {
    let Some(site) = Site::quic(&["alice"], &[]) else { return };
    let road = Dialer::mqtt(&site.ca).dial(site.quic_addr());
    let mut client = control(&road, V5, "keys");
    client.subscribe("t", 1);
    for number in 0..10 {
        road.update_keys();
        for part in 0..5 {
            let text = format!("{number} {part}");
            assert_eq!(client.say(1, "t", &text), 0);
            assert_eq!(client.message().text(), text);
        }
    }
    assert!(road.close_reason().is_none());
}

/// A broker that ends tells each client twice: DISCONNECT with the reason, then the close of QUIC with the same number.
#[test]
fn an_orderly_end_is_told_with_its_reason() {
    let Some(mut site) = Site::quic(&["alice"], &[]) else { return };
    let dialer = Dialer::mqtt(&site.ca);
    let roads: Vec<Road> = (0..3).map(|_| dialer.dial(site.quic_addr())).collect();
    let mut old = control(&roads[0], V311, "v311");
    let mut new = control(&roads[1], V5, "v5");
    let mut data = Client::open(&roads[1].open(), V5);
    data.subscribe("t", 1);
    site.house.broker.signal("TERM");
    new.thrown_out(&[0x8B]);
    old.thrown_out(&[0x8B]);
    assert_eq!(data.closed(), []);
    for road in &roads[..2] {
        assert_eq!(road.dismissed().0, 0x8B, "server shutting down");
    }
    // The third one had not said CONNECT.
    let why = roads[2].closed();
    assert!(!matches!(why, ConnectionError::TimedOut), "{why}");
    assert!(site.house.broker.ended().success());
}

/// A session that is taken over hears so on its old connection, whichever road the new one takes.
#[test]
fn a_session_moves_between_tcp_and_quic() {
    let Some(site) = Site::quic(&["alice"], &[]) else { return };
    let dialer = Dialer::mqtt(&site.ca);
    let connect = site.house.connect(V5, "alice", "phone").persistent();
    let mut tcp = connect.to(&site.house.broker);
    tcp.subscribe("t", 1);
    let road = dialer.dial(site.quic_addr());
    let mut quic = connect.to(&road.open());
    assert!(quic.connack.present);
    tcp.thrown_out(&[0x8E]);
    assert_eq!(quic.say(1, "t", "over QUIC"), 0);
    assert_eq!(quic.message().text(), "over QUIC");
    quic.quiet();
    let mut back = connect.to(&site.house.broker);
    assert!(back.connack.present);
    quic.thrown_out(&[0x8E]);
    assert_eq!(road.dismissed().0, 0x8E);
    assert_eq!(back.say(1, "t", "over TCP"), 0);
    assert_eq!(back.message().text(), "over TCP");
}

/// What each side of a conversation was sent, in order of arrival.
fn texts(client: &mut Client, topic: &str, count: usize) -> Vec<(u64, String)> {
    (0..count)
        .map(|_| {
            let message = json(&client.on(topic));
            (message["seq"].as_u64().expect("seq"), message["text"].as_str().expect("text").to_owned())
        })
        .collect()
}

/// A conversation in which the client moves after every few messages; `moves` moves it.
fn moves_unnoticed(site: &Site, at: std::net::SocketAddr, dialer: &Dialer, moves: impl Fn(u8)) {
    site.house.befriend("alice", "bob");
    let mut bob = site.house.client(V5, "bob", "bob");
    bob.subscribe("im/v1/presence/alice", 1);
    bob.subscribe("im/v1/me/in/#", 1);
    let road = dialer.dial(at);
    let mut alice = control(&road, V5, "alice-phone");
    let mut data = Client::open(&road.open(), V5);
    data.subscribe("im/v1/me/in/#", 1);
    while json(&bob.on("im/v1/presence/alice"))["state"] != "online" {}
    let before = site.operator().see("/sessions/alice-phone");
    let (rounds, each) = (6_u8, 4);
    let mut wanted = vec![];
    for round in 0..rounds {
        for number in 0..each {
            let text = format!("{round} {number}");
            assert_eq!(bob.publish_for(1, "im/v1/to/alice/msg", format!("down {text}")).code, 0);
            if number == 1 {
                moves(round);
            }
            assert_eq!(alice.publish_for(1, "im/v1/to/bob/msg", format!("up {text}")).code, 0);
            wanted.push(text);
        }
    }
    let up = texts(&mut bob, "im/v1/me/in/alice/msg", wanted.len());
    let down = texts(&mut data, "im/v1/me/in/bob/msg", wanted.len());
    for (got, way) in [(&up, "up"), (&down, "down")] {
        let texts: Vec<String> = got.iter().map(|(_, text)| text.clone()).collect();
        let wanted: Vec<String> = wanted.iter().map(|text| format!("{way} {text}")).collect();
        assert_eq!(texts, wanted, "{way}: none lost, none twice, in order");
    }
    for stream in [&mut data, &mut alice, &mut bob] {
        let more = stream.fence();
        let is_bad = |packet: &Packet| match packet {
            Packet::Publish(publish) => publish.topic.ends_with("/msg") || publish.topic.starts_with("im/v1/presence/"),
            _ => false,
        };
        assert!(!more.iter().any(is_bad), "{}: {more:?}", stream.name);
    }
    let after = site.operator().see("/sessions/alice-phone");
    let since = |session: &Value| session["connection"]["since_ms"].as_u64().expect("it is connected");
    assert_eq!(since(&before), since(&after), "one connection, one session");
    assert!(road.close_reason().is_none());
}

/// RFC 9000 s9: the client changes port and address and knows it (from one network into another).
#[test]
fn a_client_that_changes_networks_goes_on() {
    let Some(site) = Site::quic(&["alice", "bob"], &[]) else { return };
    let dialer = Dialer::mqtt(&site.ca);
    let port = dialer.port();
    moves_unnoticed(&site, site.quic_addr(), &dialer, |round| dialer.rebind(Ipv4Addr::new(127, 0, 0, 2 + round)));
    assert_ne!(port, dialer.port());
}

/// RFC 9000 s9.3: the client changes port and address and does not know it (a router gives it another one).
#[test]
fn a_client_that_is_moved_by_its_router_goes_on() {
    let Some(site) = Site::quic(&["alice", "bob"], &[]) else { return };
    let proxy = UdpProxy::open(site.quic_addr(), Faults::none());
    let dialer = Dialer::mqtt(&site.ca);
    moves_unnoticed(&site, proxy.addr(), &dialer, |round| proxy.move_clients(Ipv4Addr::new(127, 0, 0, 2 + round)));
    assert_eq!((proxy.passed().moves, proxy.passed().lives), (6, 1));
}

/// The same with loss in either direction all the time.
#[test]
fn a_client_that_is_moved_over_a_bad_line_goes_on() {
    let Some(site) = Site::quic(&["alice", "bob"], &[]) else { return };
    let proxy = UdpProxy::open(site.quic_addr(), Faults::loss(11, 50));
    let dialer = Dialer::mqtt(&site.ca);
    moves_unnoticed(&site, proxy.addr(), &dialer, |round| proxy.move_clients(Ipv4Addr::new(127, 0, 0, 2 + round)));
    let passed = proxy.passed();
    assert!(passed.lost > 0 && passed.lives == 1, "{passed:?}");
}

/// A client that is cut off without a word is gone when its keep alive is over, and a message to it waits.
#[test]
fn a_client_that_vanishes_is_missed() {
    let Some(site) = Site::quic(&["alice", "bob"], &[]) else { return };
    let proxy = UdpProxy::open(site.quic_addr(), Faults::none());
    let road = Dialer::mqtt(&site.ca).dial(proxy.addr());
    let connect = site.house.connect(V5, "alice", "phone").persistent().keep_alive(1);
    let will = Publish::new("will/alice", "vanished");
    let mut phone = connect.clone().will(will).to(&road.open());
    phone.subscribe("t", 1);
    let mut bob = site.house.client(V5, "bob", "bob");
    bob.subscribe("will/alice", 1);
    proxy.stop(&[parlor_tests::cut::Way::Up, parlor_tests::cut::Way::Down]);
    assert_eq!(bob.message().text(), "vanished", "after one and a half seconds [MQTT5-3.1.2-22]");
    assert_eq!(bob.say(1, "t", "for later"), 0);
    let back = Dialer::mqtt(&site.ca).dial(site.quic_addr());
    let mut phone = connect.to(&back.open());
    assert_eq!(phone.message().text(), "for later");
}
