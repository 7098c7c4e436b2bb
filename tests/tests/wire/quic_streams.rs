//! MQTT over QUIC: what is said on which stream.

use super::common::*;
use super::quic::control;
use parlor_tests::quic::{Dialer, Road};
use parlor_tests::site::Site;

/// A stream more of that connection.
fn data(road: &Road, client: &Client) -> Client {
    let mut data = Client::open(&road.open(), client.version);
    data.name = format!("{} on a data stream", client.name);
    data
}

fn start() -> Option<(Site, Road)> {
    let site = Site::quic(&["alice", "bob"], &[])?;
    let road = Dialer::mqtt(&site.ca).dial(site.quic_addr());
    Some((site, road))
}

/// Each request is answered where it was made, each delivery goes where it was subscribed.
#[test]
fn answers_and_deliveries_stay_on_their_streams() {
    for version in BOTH {
        let Some((_site, road)) = start() else { return };
        let mut control = control(&road, version, "c");
        let (mut one, mut two) = (data(&road, &control), data(&road, &control));
        one.subscribe("a/#", 1);
        two.subscribe("b/#", 2);
        control.subscribe("c/#", 1);
        for qos in 0..3 {
            for topic in ["a/t", "b/t", "c/t"] {
                assert_eq!(two.say(qos, topic, "from two"), 0, "answered on two");
            }
            for (stream, topic) in [(&mut one, "a/t"), (&mut two, "b/t"), (&mut control, "c/t")] {
                assert_eq!(stream.message().topic, topic, "{version:?}");
            }
        }
        for stream in [&mut one, &mut two, &mut control] {
            stream.quiet();
        }
        control.disconnect();
        assert_eq!((one.closed(), two.closed()), (vec![], vec![]), "all streams end with the connection");
    }
}

/// UNSUBSCRIBE works from any stream; the end of a stream leaves its subscriptions to control, and its answers to nobody.
#[test]
fn a_stream_that_ends_leaves_its_subscriptions_to_control() {
    let Some((_site, road)) = start() else { return };
    let mut control = control(&road, V5, "c");
    let (mut one, mut two) = (data(&road, &control), data(&road, &control));
    one.subscribe("a", 1);
    one.subscribe("b", 1);
    assert_eq!(two.unsubscribe(&["a"]), [0]);
    assert_eq!(two.say(1, "a", "nobody"), 0x10);
    assert_eq!(two.say(1, "b", "on one"), 0);
    assert_eq!(one.message().text(), "on one");
    one.cut();
    assert_eq!(two.say(1, "b", "on control"), 0);
    assert_eq!(control.message().text(), "on control");
    // The same filter from another stream: there it is from now on.
    two.subscribe("b", 1);
    assert_eq!(two.say(1, "b", "on two"), 0);
    assert_eq!(two.message().text(), "on two");
    control.quiet();
}

/// A message that was sent on a stream and not acknowledged there is not lost with it: it comes with DUP in the next
/// connection, on control.
#[test]
fn what_a_stream_took_along_comes_again() {
    for version in BOTH {
        let Some((site, road)) = start() else { return };
        let persistent = |road: &Road| site.house.connect(version, "alice", "kept").persistent().to(&road.open());
        let control = persistent(&road);
        let mut one = data(&road, &control);
        one.subscribe("kept", 1);
        let mut other = site.house.client(V5, "bob", "other");
        assert_eq!(other.say(1, "kept", "first"), 0);
        let first = one.publish_packet();
        drop((one, control));
        let _ = road.closed();
        assert_eq!(other.say(1, "kept", "second"), 0);
        let road = Dialer::mqtt(&site.ca).dial(site.quic_addr());
        let mut control = persistent(&road);
        assert!(control.connack.present, "{version:?}");
        let again = control.message();
        assert_eq!((again.text(), again.dup, again.id), ("first", true, first.id), "{version:?}");
        assert_eq!(control.message().text(), "second");
        control.quiet();
    }
}

/// CONNECT, AUTH and DISCONNECT belong on control: elsewhere they end the connection, with the reason on control and in the
/// close of QUIC.
#[test]
fn control_packets_belong_on_control() {
    let Some((site, _)) = start() else { return };
    let dialer = Dialer::mqtt(&site.ca);
    for version in BOTH {
        let auth: &[u8] = &[0xF0, 0];
        let connect = Connect::new(version, "c").bytes();
        for packet in [connect.as_slice(), &[0xE0, 0], auth, &[0x00, 0x00]] {
            let road = dialer.dial(site.quic_addr());
            let mut control = control(&road, version, "c");
            let mut one = data(&road, &control);
            one.send(packet);
            control.thrown_out(&[0x81, 0x82]);
            let (code, _) = road.dismissed();
            assert!([0x81, 0x82].contains(&code), "{version:?} {packet:02x?}: {code:#x}");
        }
    }
}

/// The end of control, however it comes, ends the connection; DISCONNECT is answered with a close without error.
#[test]
fn the_end_of_control_is_the_end() {
    let Some((site, _)) = start() else { return };
    let dialer = Dialer::mqtt(&site.ca);
    let mut watcher = site.house.client(V5, "bob", "watcher");
    watcher.subscribe("will/#", 1);
    let with_will = |name: &str| {
        let road = dialer.dial(site.quic_addr());
        let connect = site.house.connect(V5, "alice", name).will(Publish::new(&format!("will/{name}"), "gone"));
        (connect.to(&road.open()), road)
    };
    let (client, road) = with_will("cut");
    client.cut();
    let _ = road.closed();
    assert_eq!(watcher.message().topic, "will/cut");
    let (client, road) = with_will("closed");
    road.close(3, "the phone is switched off");
    assert_eq!(watcher.message().topic, "will/closed");
    drop(client);
    let (client, road) = with_will("orderly");
    client.disconnect();
    assert_eq!(road.dismissed().0, 0);
    watcher.quiet();
}

/// Receive Maximum is the connection's, not a stream's [MQTT5-3.3.4-9].
#[test]
fn receive_maximum_counts_over_all_streams() {
    let Some((site, road)) = start() else { return };
    let connect = site.house.connect(V5, "alice", "narrow").with(prop::receive_max(3_u16));
    let mut control = connect.to(&road.open());
    let mut one = data(&road, &control);
    control.subscribe("c", 1);
    one.subscribe("d", 1);
    let mut other = site.house.client(V5, "bob", "other");
    for number in 0..4 {
        assert_eq!(other.say(1, "c", format!("c{number}")), 0);
        assert_eq!(other.say(1, "d", format!("d{number}")), 0);
    }
    let is_publish = |packet: &Packet| match packet {
        Packet::Publish(publish) => Some(publish.clone()),
        _ => None,
    };
    let mut sent: Vec<Publish> = one.fence().iter().chain(&control.fence()).filter_map(is_publish).collect();
    assert_eq!(sent.len(), 3, "{sent:?}");
    let mut seen = 0;
    while let Some(publish) = sent.pop() {
        seen += 1;
        let stream = if publish.topic == "c" { &mut control } else { &mut one };
        stream.ack(PubAck, publish.id);
        // The broker has the acknowledgement before it answers the ping behind it; then the other stream is asked.
        let before: Vec<Packet> = stream.fence();
        let other = if publish.topic == "c" { one.fence() } else { control.fence() };
        sent.extend(before.iter().chain(&other).filter_map(is_publish));
        assert!(sent.len() <= 3);
    }
    assert_eq!(seen, 8, "nothing lost, nothing twice");
}

/// Streams do not wait for each other: one whose reader does not read holds up none of the others.
#[test]
fn a_stream_nobody_reads_holds_up_no_other() {
    let Some((site, road)) = start() else { return };
    let mut control = control(&road, V5, "c");
    let mut stuck = road.raw();
    let subscribe = Client::open(&site.house.broker, V5).subscribe_bytes(1, &[("bulk", 0)], &[]);
    assert!(stuck.send(&subscribe));
    let suback = stuck.exactly(6).expect("SUBACK");
    assert_eq!(suback, [0x90, 4, 0, 1, 0, 0]);
    let mut one = data(&road, &control);
    one.subscribe("small", 1);
    let mut other = site.house.client(V5, "bob", "other");
    for number in 0..200 {
        assert_eq!(other.say(0, "bulk", vec![b'.'; 30_000]), 0);
        if number % 20 == 0 {
            assert_eq!(other.say(1, "small", number.to_string()), 0);
            assert_eq!(one.message().text(), number.to_string());
        }
    }
    one.quiet();
    control.quiet();
    // Nor does the broker try again and again: what it cannot write waits until QUIC says that there is room.
    let before = site.house.broker.cpu_seconds();
    std::thread::sleep(std::time::Duration::from_secs(1));
    let used = site.house.broker.cpu_seconds() - before;
    assert!(used < 0.2, "{used} s of CPU in a second in which nothing happened");
}
