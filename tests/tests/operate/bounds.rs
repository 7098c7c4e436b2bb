//! Bounds as the operator sees them: who is at the edge is told, counted exactly and logged rarely, and nobody else waits.

use super::tools::*;
use super::transport::{Ca, Way};
use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// One connection too many is told so; the counter is exact and the log has one line.
#[test]
fn too_many_connections() {
    let broker = Broker::start(&["--set", "limits.connections_max=2"]);
    let _first = Connect::v5("first").to(&broker);
    let mut second = Connect::v5("second").to(&broker);
    for number in 0..10 {
        let name = format!("more-{number}");
        assert_eq!(Connect::v5(&name).refused(&broker), 0x89);
        assert_eq!(Connect::v311(&name).refused(&broker), 3);
    }
    second.quiet();
    let metrics = Operator::of(&broker).metrics();
    assert_eq!(metrics.count("parlor_limit_reached_total{limit=\"connections_max\"}"), 20);
    assert_eq!(metrics.count("parlor_packets_refused_total{reason=\"connections_max\"}"), 20);
    assert_eq!(metrics.count("parlor_connections"), 2);
    assert_eq!(broker.log().matches("connections_max").count(), 2, "one line, with text and label:\n{}", broker.log());
    second.disconnect();
    Connect::v5("third").to(&broker).quiet();
}

/// Every kind of refusal has a counter of its own that is exact, and one line in the log however often it comes.
#[test]
fn floods_make_one_line_each() {
    let broker = Broker::start(&[
        "--set",
        "limits.topic_levels_max=3",
        "--set",
        "limits.subscriptions_per_session_max=1",
        "--set",
        "limits.retained_messages_max=0",
        "--set",
        "limits.client_id_bytes_max=30",
    ]);
    let mut client = Connect::v5("client").to(&broker);
    client.subscribe("one", 0);
    for number in 0..25 {
        assert_eq!(client.say(1, "a/b/c/d", "x"), 0x90);
        assert_eq!(client.subscribe_code(&format!("more/{number}"), 0), 0x97);
        assert_eq!(client.deliver(&Publish::new("r", "x").qos(1, 0).retain()), 0x97);
        assert_eq!(Connect::v5(&"x".repeat(31)).refused(&broker), 0x85);
    }
    let metrics = Operator::of(&broker).metrics();
    for limit in ["topic_levels_max", "subscriptions_per_session_max", "retained_messages_max", "client_id_bytes_max"] {
        let counted = metrics.count(&format!("parlor_limit_reached_total{{limit=\"{limit}\"}}"));
        assert_eq!(counted, 25, "{limit}");
        let lines = broker.log().lines().filter(|line| line.contains(&format!("label={limit}"))).count();
        assert_eq!(lines, 1, "{limit}:\n{}", broker.log());
    }
}

/// A subscriber that does not read loses QoS 0 messages, which are counted; publisher and other subscribers do not wait,
/// and what it reads in the end is in order.
#[test]
fn a_slow_reader_slows_nobody() {
    let broker = Broker::start(&["--set", "limits.output_bytes_max=65536"]);
    let mut slow = Connect::v5("slow").to(&broker);
    slow.subscribe("t", 0);
    let mut quick = Connect::v5("quick").to(&broker);
    quick.subscribe("t", 0);
    let mut publisher = Connect::v5("publisher").to(&broker);
    // More than the buffers of both sockets take.
    let (count, bytes) = (200, 256 * 1024);
    let operator = Operator::of(&broker);
    for number in 0..count {
        let mut payload = vec![b'.'; bytes];
        payload[..4].copy_from_slice(format!("{number:04}").as_bytes());
        publisher.say(0, "t", &payload);
        assert_eq!(quick.message().payload[..4], payload[..4]);
    }
    quick.quiet();
    publisher.quiet();
    let dropped = operator.metrics().count("parlor_messages_dropped_total{reason=\"slow_reader\"}");
    assert!(dropped > 0, "its buffers are bounded");
    let got = slow.fence();
    let numbers: Vec<String> = got
        .iter()
        .map(|packet| match packet {
            Packet::Publish(publish) => String::from_utf8_lossy(&publish.payload[..4]).into_owned(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert!(numbers.is_sorted(), "{numbers:?}");
    assert_eq!(numbers.len() as u64 + dropped, count, "each message was sent or counted");
    assert_eq!(broker.log().matches("label=slow_reader").count(), 1, "{}", broker.log());
}

/// How long a good client needs to connect, publish and receive.
fn round(connect: impl FnOnce() -> Client) -> Duration {
    let begun = Instant::now();
    let mut client = connect();
    client.subscribe("good", 1);
    assert_eq!(client.say(1, "good", "x"), 0);
    assert_eq!(client.message().text(), "x");
    begun.elapsed()
}

/// A thousand connections that never say CONNECT, and a thousand TLS handshakes that never end, delay nobody.
#[test]
fn half_open_connections_delay_nobody() {
    let (dir, ca) = (Dir::new(), Ca::new("servers"));
    let issued = ca.issue("localhost");
    dir.put("server.pem", &issued.certificate);
    dir.put("server.key", &issued.key);
    let broker = Broker::start(&[
        "--listen",
        "mqtts://127.0.0.1:0",
        "--set",
        &format!("tls.certificate={}", dir.name("server.pem")),
        "--set",
        &format!("tls.key={}", dir.name("server.key")),
        "--set",
        "limits.connect_timeout_secs=3600",
    ]);
    let tls = broker.address("mqtts");
    let way = Way::tls(&ca.client(None));
    let mut there = Connect::v5("there").to(&broker);
    let mut held: Vec<TcpStream> = Vec::new();
    for number in 0..1_000 {
        let mut plain = TcpStream::connect(broker.addr()).expect("accepted");
        if number % 2 == 0 {
            plain.write_all(&[0x10, 0x20, 0x00]).expect("the beginning of a CONNECT");
        }
        let mut hello = TcpStream::connect(tls).expect("accepted");
        if number % 2 == 0 {
            hello.write_all(&[0x16, 0x03, 0x01, 0x02, 0x00, 0x01]).expect("the beginning of a hello");
        }
        held.extend([plain, hello]);
    }
    let operator = Operator::of(&broker);
    operator.until("all of them are there", |operator| {
        (operator.metrics().count("parlor_connections") >= 1_001).then_some(())
    });
    let plain = round(|| Connect::v5("good").to(&broker));
    let over_tls = round(|| Connect::v5("good").to(&way.to(tls)));
    // In a debug build on a busy machine; alone it is milliseconds.
    assert!(plain < Duration::from_secs(2) && over_tls < Duration::from_secs(2), "{plain:?} {over_tls:?}");
    there.quiet();
    assert_eq!(http(broker.http(), "GET", "/healthz", &[], b"").status, 200);
    drop(held);
    operator
        .until("all of them are gone", |operator| (operator.metrics().count("parlor_connections") <= 2).then_some(()));
    there.quiet();
}

/// A connection that says nothing is closed in time, and counted.
#[test]
fn silent_connections_are_closed() {
    let broker = Broker::start(&["--set", "limits.connect_timeout_secs=1"]);
    let mut clients: Vec<Client> = (0..5).map(|_| Client::open(&broker, V5)).collect();
    clients[0].send(&[0x10]);
    for client in &mut clients {
        assert_eq!(client.closed(), []);
    }
    let metrics = Operator::of(&broker).metrics();
    assert_eq!(metrics.count("parlor_limit_reached_total{limit=\"connect_timeout_secs\"}"), 5);
}

/// A client that publishes faster than it may hears so (MQTT 5), and others are not held up.
#[test]
fn a_publisher_is_held_to_its_rate() {
    let broker = Broker::start(&["--set", "limits.publish_rate_max=1", "--set", "limits.publish_burst_max=5"]);
    let mut fast = Connect::v5("fast").to(&broker);
    let mut other = Connect::v5("other").to(&broker);
    let codes: Vec<u8> = (0..20).map(|_| fast.say(1, "t", "x")).collect();
    assert!(codes[..5].iter().all(|code| *code == 0x10), "{codes:02x?}");
    let refused = codes.iter().map(|code| u64::from(*code == 0x97)).sum::<u64>();
    assert!(refused >= 10, "{codes:02x?}");
    assert_eq!(other.say(1, "t", "x"), 0x10);
    let metrics = Operator::of(&broker).metrics();
    assert_eq!(metrics.count("parlor_limit_reached_total{limit=\"publish_rate_max\"}"), refused);
}
