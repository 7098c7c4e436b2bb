//! MQTT over QUIC: what is said on which stream.

use super::common::*;
use super::quic::control;
use parlor_tests::quic::{Dialer, Raw, Road};
use parlor_tests::site::Site;
use parlor_tests::udp_proxy::{Faults, UdpProxy};
use std::time::Duration;

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
    std::thread::sleep(Duration::from_secs(1));
    let used = site.house.broker.cpu_seconds() - before;
    assert!(used < 0.2, "{used} s of CPU in a second in which nothing happened");
}

/// What is lost on one stream holds up no other (RFC 9000 s2.2), but what comes after it on its own.
///
/// The line loses all long datagrams to the client, so a long message does not arrive however often it is sent again, and short
/// ones do, unless they travel in one datagram with it: so they are tried more than once, each on a stream of its own.
#[test]
fn loss_on_one_stream_holds_up_no_other() {
    const TRIES: u32 = 8;
    let Some(site) = Site::quic(&["alice", "bob"], &[]) else { return };
    let line = UdpProxy::open(site.quic_addr(), Faults::none());
    let road = Dialer::mqtt(&site.ca).dial(line.addr());
    let mut control = control(&road, V5, "c");
    let mut hurt = data(&road, &control);
    hurt.subscribe("hurt", 1);
    let mut whole: Vec<Client> = (0..TRIES).map(|_| data(&road, &control)).collect();
    for (number, stream) in whole.iter_mut().enumerate() {
        stream.subscribe(&format!("whole/{number}"), 1);
    }
    let mut other = site.house.client(V5, "bob", "other");
    line.set(Faults::narrow(500));
    assert_eq!(other.say(1, "hurt", vec![b'.'; 1_000]), 0);
    assert_eq!(other.say(1, "hurt", "behind it"), 0);
    let mut heard = 0;
    for (number, stream) in whole.iter_mut().enumerate() {
        assert_eq!(other.say(1, &format!("whole/{number}"), "short"), 0);
        if let Ok(Packet::Publish(publish)) = stream.try_recv(Duration::from_millis(500)) {
            assert_eq!(publish.text(), "short");
            stream.finish(&publish);
            heard += 1;
        }
    }
    assert!(heard > 0 && line.passed().lost > 0, "{heard} heard, {:?}", line.passed());
    assert!(hurt.try_recv(Duration::from_millis(1)).is_err(), "it cannot have arrived, nor what is behind it");
    line.set(Faults::none());
    assert_eq!(hurt.message().payload.len(), 1_000);
    assert_eq!(hurt.message().text(), "behind it");
    control.quiet();
}

/// SUBSCRIBE to one filter, with packet identifier 1, and its SUBACK in MQTT 5.
fn subscribe_on(stream: &mut Raw, filter: &str) {
    let body = [&[0, 1, 0], field(filter).as_slice(), &[1]].concat();
    assert!(stream.send(&frame(0x82, body)));
    assert_eq!(stream.exactly(6), Some(vec![0x90, 4, 0, 1, 0, 1]));
}

/// A stream that is given up in the middle of a packet, or that nobody reads any more, takes nothing along but itself: its
/// subscriptions go to control, what was sent there and not acknowledged is not lost.
#[test]
fn a_stream_that_is_given_up_takes_nothing_along() {
    let Some((site, road)) = start() else { return };
    let mut control = control(&road, V5, "c");
    let mut other = site.house.client(V5, "bob", "other");
    for how in ["reset", "stop"] {
        let mut stream = road.raw();
        subscribe_on(&mut stream, how);
        assert!(stream.send(&[0x30, 100, 0, 1, b'x']), "the beginning of a PUBLISH");
        if how == "reset" {
            stream.reset(9);
        } else {
            stream.stop(9);
        }
        // Until the broker has seen it, what is said may go there; then it comes on control.
        let text = format!("after {how}");
        let mut heard = false;
        for _ in 0..100 {
            assert!([0, 0x10].contains(&other.say(1, how, &text)));
            let got = control.fence();
            heard = got.iter().any(|p| matches!(p, Packet::Publish(p) if p.topic == how && p.text() == text));
            for packet in &got {
                if let Packet::Publish(publish) = packet {
                    control.ack(PubAck, publish.id);
                }
            }
            if heard {
                break;
            }
        }
        assert!(heard, "{how}: it comes on control");
        assert!(road.close_reason().is_none(), "{how}");
    }
    other.quiet();
}

/// A client that reads nothing on control any more is gone.
#[test]
fn control_that_nobody_reads_ends_the_connection() {
    let Some((site, road)) = start() else { return };
    let mut watcher = site.house.client(V5, "bob", "watcher");
    watcher.subscribe("will", 1);
    let connect = site.house.connect(V5, "alice", "deaf").will(Publish::new("will", "gone"));
    let mut stream = road.raw();
    assert!(stream.send(&connect.bytes()));
    assert_eq!(stream.exactly(1), Some(vec![0x20]), "CONNACK");
    stream.stop(1);
    // The broker finds out when it has something to say.
    stream.send(&[0xC0, 0].repeat(50));
    let _ = road.closed();
    assert_eq!(watcher.message().text(), "gone");
}

/// Packet identifiers are the session's, whichever stream they come on: one that is in use is refused [MQTT5-2.2.1-3], and
/// PUBREL goes where it likes.
#[test]
fn packet_identifiers_are_those_of_the_session() {
    let Some((_site, road)) = start() else { return };
    let mut control = control(&road, V5, "c");
    let mut one = data(&road, &control);
    control.subscribe("t", 2);
    one.publish(&Publish::new("t", "once").qos(2, 7));
    assert!([0, 0x10].contains(&one.await_ack(PubRec, 7)));
    control.ack(PubRel, 7);
    assert_eq!(control.await_ack(PubComp, 7), 0, "answered where it was asked");
    assert_eq!(control.message().text(), "once");
    // Twice under the same identifier is the same message.
    one.publish(&Publish::new("t", "again").qos(2, 8));
    assert!([0, 0x10].contains(&one.await_ack(PubRec, 8)));
    control.publish(&Publish::new("t", "again").qos(2, 8).dup());
    assert!([0, 0x10, 0x91].contains(&control.await_ack(PubRec, 8)));
    one.ack(PubRel, 8);
    assert_eq!(one.await_ack(PubComp, 8), 0);
    assert_eq!(control.message().text(), "again");
    control.quiet();
    one.quiet();
}

/// Whatever comes on whichever stream says that the client is there [MQTT5-3.1.2-22].
#[test]
fn keep_alive_counts_on_every_stream() {
    let Some((site, road)) = start() else { return };
    let connect = site.house.connect(V5, "alice", "c").keep_alive(1);
    let mut control = connect.to(&road.open());
    let mut one = data(&road, &control);
    for _ in 0..8 {
        let_pass(500);
        one.quiet();
    }
    control.quiet();
    // And silence on all of them says that it is not.
    control.thrown_out(&[0x8D]);
    assert_eq!(road.dismissed().0, 0x8D);
}
