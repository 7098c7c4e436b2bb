//! The QUIC endpoint: who is let in, and what a hostile or silent peer costs (RFC 9000, RFC 9001).

use super::common::*;
use parlor_tests::ca::Ca;
use parlor_tests::cut::Way;
use parlor_tests::im::PASSWORD;
use parlor_tests::operator::{Metrics, Operator};
use parlor_tests::quic::{Dial, Dialer, MQTT, NATIVE, Road};
use parlor_tests::site::Site;
use parlor_tests::udp_proxy::{Faults, UdpProxy};
use quinn::ConnectionError;
use std::time::{Duration, Instant};

/// How long a good client may need while others flood: in a debug build on a busy machine; alone it is milliseconds.
const SOON: Duration = Duration::from_secs(3);
/// Short enough to find out that nothing happens, and to go on.
const MOMENT: Duration = Duration::from_millis(200);

pub fn refused(metrics: &Metrics, reason: &str) -> u64 {
    metrics.count(&format!("parlor_packets_refused_total{{reason=\"{reason}\"}}"))
}

/// A connection that was let in as `alice`, on its control stream.
pub fn control(road: &Road, version: Version, id: &str) -> Client {
    Connect::new(version, id).username("alice").password(PASSWORD).to(&road.open())
}

/// A good client does all it can do: how long it took.
fn round(site: &Site) -> Duration {
    let begun = Instant::now();
    let road = Dialer::mqtt(&site.ca).dial(site.quic_addr());
    let mut client = control(&road, V5, &unique("good"));
    client.subscribe("good", 1);
    assert_eq!(client.say(1, "good", "x"), 0);
    assert_eq!(client.message().text(), "x");
    client.disconnect();
    begun.elapsed()
}

fn resident_bytes(broker: &Broker) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{}/statm", broker.pid())).expect("Linux tells");
    let pages: u64 = text.split(' ').nth(1).and_then(|pages| pages.parse().ok()).expect("a number");
    pages * 4096
}

/// RFC 9001 s8.1: without an application protocol in common there is no connection; each is counted.
#[test]
fn a_protocol_must_be_agreed_on() {
    let Some(site) = Site::quic(&["alice"], &[]) else { return };
    let none: &[&[u8]] = &[];
    for alpn in [&[b"h3".as_slice(), b"mqtt2"], none] {
        let dialer = Dial::new(&site.ca, alpn).ready();
        let outcome = dialer.try_dial(site.quic_addr()).map(|road| road.closed());
        match outcome {
            Err(ConnectionError::ConnectionClosed(close)) => {
                // Alert no_application_protocol.
                assert_eq!(u64::from(close.error_code), 0x178, "{alpn:?}: {close}");
            }
            other => panic!("{alpn:?}: {other:?}"),
        }
    }
    for (alpn, agreed) in [([MQTT, NATIVE], MQTT), ([b"h3", NATIVE], NATIVE)] {
        let road = Dial::new(&site.ca, &alpn).ready().dial(site.quic_addr());
        assert_eq!(road.alpn(), agreed, "the server's order decides between two that it knows");
    }
    site.operator().until("both are counted", |operator| {
        let metrics = operator.metrics();
        let counted = ["quic_tls", "quic_wrong_protocol"].iter().map(|reason| refused(&metrics, reason)).sum::<u64>();
        (counted == 2).then_some(())
    });
}

/// Certificates of clients are accounts here too, without a password; a stranger's, a forged one and none are refused.
#[test]
fn a_client_certificate_is_an_account() {
    let required = ["--set", "tls.client_certificate=required"];
    let Some(site) = Site::by_certificate(&["lamp"], &required) else { return };
    let at = site.quic_addr();
    let lamp = site.clients.issue("lamp");
    let dialer = Dial::new(&site.ca, &[MQTT]).own(&lamp).ready();
    let road = dialer.dial(at);
    let mut client = Connect::v5("lamp-1").to(&road.open());
    client.subscribe("t", 1);
    assert_eq!(client.say(1, "t", "by certificate"), 0);
    assert_eq!(client.message().text(), "by certificate");
    let seen = site.operator().see("/sessions/lamp-1");
    assert_eq!(seen["account"], "lamp");
    assert!(seen["connection"]["listener"].as_str().is_some_and(|name| name.starts_with("mqtt+quic://")), "{seen}");
    assert_eq!(Connect::v5("x").username("other").refused(&dialer.dial(at).open()), 0x86, "another name beside it");

    let stranger = site.clients.issue("stranger");
    let code = Connect::v5("z").refused(&Dial::new(&site.ca, &[MQTT]).own(&stranger).ready().dial(at).open());
    assert!([0x86, 0x87].contains(&code), "no such account: {code:#04x}");
    let forged = Ca::new("clients").issue("lamp");
    let before = site.operator().metrics();
    for own in [None, Some(&forged)] {
        let dial = Dial::new(&site.ca, &[MQTT]);
        let dialer = own.map_or_else(|| Dial::new(&site.ca, &[MQTT]).ready(), |own| dial.own(own).ready());
        // A client's part of the handshake is over before the server has seen the certificate.
        let why = dialer.try_dial(at).map_or_else(|why| why, |road| road.closed());
        assert!(
            matches!(&why, ConnectionError::ConnectionClosed(c) if (0x100..0x200).contains(&u64::from(c.error_code))),
            "{why}"
        );
    }
    site.operator().until("both are counted", |operator| {
        (refused(&operator.metrics(), "quic_tls") - refused(&before, "quic_tls") == 2).then_some(())
    });
    client.quiet();
}

/// Changed certificate files are used for whoever comes, and nobody who is there is dropped.
#[test]
fn certificates_change_without_dropping_anyone() {
    let Some(site) = Site::quic(&["alice"], &[]) else { return };
    let dialer = Dialer::mqtt(&site.ca);
    let old = dialer.dial(site.quic_addr());
    let mut client = control(&old, V5, "old");
    let mark = site.house.broker.log().len();
    let renewed = site.renew();
    site.house.broker.signal("HUP");
    site.house.broker.await_log_after(mark, "was read again");
    // Not with what the old connection left: a resumed session shows no certificate again.
    let new = Dialer::mqtt(&site.ca).dial(site.quic_addr());
    assert_eq!(new.server(), parlor_tests::ca::der(&renewed.certificate).to_vec());
    assert_ne!(new.server(), old.server());
    control(&new, V5, "new").quiet();
    client.quiet();
}

/// Whoever was let in by an authority that counts no longer is not let in again, whatever he was given to come back with; who
/// is there stays.
#[test]
fn a_ticket_does_not_outlive_its_authority() {
    let Some(site) = Site::by_certificate(&["lamp"], &["--set", "tls.client_certificate=required"]) else { return };
    let at = site.quic_addr();
    let lamp = site.clients.issue("lamp");
    let dialer = Dial::new(&site.ca, &[MQTT]).own(&lamp).ready();
    let first = dialer.dial(at);
    let mut there = Connect::v5("lamp-1").to(&first.open());
    there.quiet();
    // With a ticket the account is still known by the certificate of before.
    Connect::v5("lamp-2").to(&dialer.dial(at).open()).quiet();
    assert_eq!(site.operator().see("/sessions/lamp-1")["account"], "lamp");
    site.dir.put("clients.pem", &Ca::new("others").certificate);
    let mark = site.house.broker.log().len();
    site.house.broker.signal("HUP");
    site.house.broker.await_log_after(mark, "was read again");
    for _ in 0..2 {
        let why = dialer.try_dial(at).map_or_else(|why| why, |road| road.closed());
        assert!(matches!(&why, ConnectionError::ConnectionClosed(_)), "{why}");
    }
    there.quiet();
}

/// Peers that begin a handshake and never go on, and peers that have finished it and say nothing, delay nobody, and lose
/// their places in time.
#[test]
fn silent_peers_stall_nobody() {
    let Some(site) = Site::quic(&["alice"], &["--set", "limits.connect_timeout_secs=2"]) else { return };
    let at = site.quic_addr();
    let wall = UdpProxy::open(at, Faults::none());
    wall.stop(&[Way::Down]);
    // Each from a socket of its own: the broker hears a hello and never an answer.
    let silent: Vec<_> = (0..40)
        .map(|_| {
            let dialer = Dialer::mqtt(&site.ca);
            let begun = dialer.begin_only(wall.addr());
            (dialer, begun)
        })
        .collect();
    let dialer = Dialer::mqtt(&site.ca);
    let mute: Vec<Road> = (0..40).map(|_| dialer.dial(at)).collect();
    let mut half: Vec<_> = (0..20).map(|_| dialer.dial(at)).map(|road| (road.raw(), road)).collect();
    for (stream, _) in &mut half {
        assert!(stream.send(&[0x10, 0x20, 0x00]), "the beginning of a CONNECT");
    }
    let took = round(&site);
    assert!(took < SOON, "{took:?}");
    for road in mute.iter().chain(half.iter().map(|(_, road)| road)) {
        let why = road.closed();
        assert!(!matches!(why, ConnectionError::TimedOut), "the broker has said so: {why}");
    }
    let metrics = site.operator().metrics();
    assert!(refused(&metrics, "quic_late") >= 40, "{}", metrics.0);
    drop(silent);
    assert!(round(&site) < SOON);
}

/// RFC 9000 s4.6: a client has so many streams beside control and no more until one has ended; none that are
/// unidirectional, none that the broker would have to open.
#[test]
fn a_flood_of_streams_is_held_at_the_limit() {
    let Some(site) = Site::quic(&["alice"], &["--set", "limits.quic_streams_max=8"]) else { return };
    let road = Dialer::mqtt(&site.ca).dial(site.quic_addr());
    let mut client = control(&road, V5, "flood");
    let mut streams: Vec<_> = (0..8).map(|_| road.raw()).collect();
    assert!(road.try_raw(MOMENT).is_none(), "a ninth");
    assert!(road.try_uni(MOMENT).is_none(), "nothing is said on a unidirectional stream");
    for stream in &mut streams {
        assert!(stream.send(&[0xC0, 0]));
        assert_eq!(stream.exactly(2), Some(vec![0xD0, 0]), "PINGRESP on the stream of the PINGREQ");
    }
    // quinn tells of new places when an eighth of all is free.
    for mut ended in streams.drain(..3) {
        ended.finish();
        assert!(ended.rest().is_empty());
    }
    let mut again = road.raw();
    assert!(again.send(&[0xC0, 0]));
    assert_eq!(again.exactly(2), Some(vec![0xD0, 0]));
    // Streams that are opened and given up at once, as fast as it goes.
    drop(again);
    for _ in 0..2_000 {
        let Some(mut stream) = road.try_raw(PATIENCE) else { panic!("places of ended streams are free again") };
        stream.send(&[0xC0]);
        stream.reset(7);
    }
    client.quiet();
    assert!(round(&site) < SOON);
}

/// What is written on streams before CONNECT is bounded by flow control and costs the broker no more than that; a CONNECT
/// afterwards is answered.
#[test]
fn what_waits_for_connack_is_bounded() {
    let Some(site) = Site::quic(&["alice"], &[]) else { return };
    let road = Dialer::mqtt(&site.ca).dial(site.quic_addr());
    let stream = road.open();
    let before = resident_bytes(&site.house.broker);
    let mut held: Vec<_> = (0..16).map(|_| road.raw()).collect();
    let publish = Publish::new("before/connack", vec![b'.'; 60_000]).bytes(V5);
    let (mut sent, mut blocked) = (0, 0);
    for raw in &mut held {
        let bytes = publish.repeat(40);
        let mut at = 0;
        while at < bytes.len() {
            let count = raw.send_some(&bytes[at..], MOMENT);
            if count == 0 {
                blocked += 1;
                break;
            }
            at += count;
        }
        sent += at;
    }
    assert!(blocked > 0, "{sent} bytes were taken");
    // quinn's client holds some of it itself.
    let grown = resident_bytes(&site.house.broker).saturating_sub(before);
    assert!(grown < 8 * 1024 * 1024, "{grown} bytes for one client that has not said who it is");
    let mut client = Connect::v5("late").username("alice").password(PASSWORD).to(&stream);
    client.quiet();
}

/// A packet longer than the limit is refused with its reason on whatever stream it comes, and is counted.
#[test]
fn oversized_packets_end_the_connection() {
    let Some(site) = Site::quic(&["alice"], &["--set", "limits.packet_bytes_max=4096"]) else { return };
    let dialer = Dialer::mqtt(&site.ca);
    for on_control in [true, false] {
        let road = dialer.dial(site.quic_addr());
        let mut client = control(&road, V5, "large");
        let mut data = road.raw();
        // Only its head: that much is said to follow.
        let head = [&[0x30], varint(100_000).as_slice()].concat();
        if on_control {
            client.send(&head);
        } else {
            assert!(data.send(&head));
        }
        client.thrown_out(&[0x95]);
        let (code, reason) = road.dismissed();
        assert_eq!(code, 0x95, "the same number closes QUIC");
        assert!(!reason.is_empty(), "and a text for people");
    }
    let metrics = site.operator().metrics();
    let counted = metrics.count("parlor_limit_reached_total{limit=\"packet_bytes_max\"}");
    assert_eq!(counted, 2, "{}", metrics.0);
}

/// Datagrams nobody asked for are thrown away; the connection they came on and every other go on, and what they cost does
/// not grow with their number.
#[test]
fn a_flood_of_datagrams_costs_nobody_else() {
    let Some(site) = Site::quic(&["alice"], &[]) else { return };
    let roads: Vec<Road> = (0..4).map(|_| Dialer::mqtt(&site.ca).dial(site.quic_addr())).collect();
    let mut clients: Vec<Client> = roads.iter().map(|road| control(road, V5, &unique("flood"))).collect();
    round(&site);
    let before = resident_bytes(&site.house.broker);
    let mut sent = 0;
    for _ in 0..5 {
        for _ in 0..6_000 {
            for road in &roads {
                sent += 1_000 * u64::from(road.datagram(&[0xFF; 1_000]));
            }
        }
        let took = round(&site);
        assert!(took < SOON, "{took:?}");
        for client in &mut clients {
            client.quiet();
        }
    }
    let grown = resident_bytes(&site.house.broker).saturating_sub(before);
    assert!(sent > 100_000_000 && grown < 32 * 1024 * 1024, "{grown} bytes after {sent}");
    assert!(refused(&site.operator().metrics(), "quic_datagram_unasked") > 1_000);
}

/// RFC 9000 s8.1.2: with many handshakes under way a client shows first that it receives at its address. Good clients do
/// so without knowing.
#[test]
fn under_load_addresses_are_checked_first() {
    for (above, silent) in [(0, 0), (4, 12)] {
        let Some(site) = Site::quic(&["alice"], &["--set", &format!("limits.quic_retry_above={above}")]) else {
            return;
        };
        let wall = UdpProxy::open(site.quic_addr(), Faults::none());
        wall.stop(&[Way::Down]);
        let begun: Vec<_> = (0..silent)
            .map(|_| {
                let dialer = Dialer::mqtt(&site.ca);
                let begun = dialer.begin_only(wall.addr());
                (dialer, begun)
            })
            .collect();
        if silent > 0 {
            site.operator().until("the silent ones are asked", |operator| {
                (refused(&operator.metrics(), "quic_retry") > 0).then_some(())
            });
        }
        let before = refused(&site.operator().metrics(), "quic_retry");
        assert!(round(&site) < SOON);
        let after = refused(&site.operator().metrics(), "quic_retry");
        assert!(after > before, "above {above} everybody is asked: {before}, {after}");
        drop(begun);
    }
}

/// Without load nobody is asked, which the counter of the test above would show.
#[test]
fn without_load_nobody_waits_for_a_retry() {
    let Some(site) = Site::quic(&["alice"], &[]) else { return };
    round(&site);
    assert_eq!(refused(&site.operator().metrics(), "quic_retry"), 0);
}

/// RFC 9000 s8.1: somebody whose address is not known to be his gets three times as much as came from there; quinn lets
/// the last datagram be a whole one.
#[test]
fn no_more_than_three_times_is_answered() {
    let Some(site) = Site::quic(&["alice"], &[]) else { return };
    let wall = UdpProxy::open(site.quic_addr(), Faults::none());
    wall.stop(&[Way::Up]);
    let dialer = Dialer::mqtt(&site.ca);
    let begun = dialer.begin_only(wall.addr());
    let deadline = Instant::now() + PATIENCE;
    while wall.taken_down().is_empty() {
        assert!(Instant::now() < deadline, "a first packet");
    }
    let first = &wall.taken_down()[..1];
    drop(begun);
    assert!(first[0].len() >= 1_200, "RFC 9000 s14.1");
    let answers = wall.replay(first, Duration::from_secs(2));
    let bytes: usize = answers.iter().map(Vec::len).sum();
    let shape: Vec<(usize, u8)> = answers.iter().map(|answer| (answer.len(), answer[0])).collect();
    assert!(bytes > 0 && bytes <= 3 * first[0].len() + 1_200, "{bytes} for {}: {shape:02x?}", first[0].len());
    // Less than what a first packet must have is no first packet.
    assert_eq!(wall.replay(&[first[0][..1_199].to_vec()], MOMENT), [[0_u8; 0]; 0]);
}

/// What the operator sees of QUIC: its connections under its listener.
#[test]
fn the_operator_sees_quic_connections() {
    let Some(site) = Site::quic(&["alice"], &[]) else { return };
    let road = Dialer::mqtt(&site.ca).dial(site.quic_addr());
    let client = control(&road, V311, "seen");
    let operator: Operator = site.operator();
    let seen = operator.see("/sessions/seen");
    assert!(seen["connection"]["listener"].as_str().is_some_and(|name| name.starts_with("mqtt+quic://")), "{seen}");
    client.disconnect();
    operator.until("it is gone", |operator| (operator.metrics().count("parlor_connections") == 0).then_some(()));
}
