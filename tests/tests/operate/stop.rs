//! Starting and stopping: SIGTERM, SIGINT, what stays over a restart, and what keeps a broker from starting.

use super::tools::*;
use std::time::{Duration, Instant};

/// The shortest of a few measurements, so that a busy machine is not taken for a slow broker.
fn quickest(mut once: impl FnMut() -> Duration) -> Duration {
    (0..3).map(|_| once()).min().unwrap_or_default()
}

/// An idle broker ends on SIGTERM and on SIGINT within a second, with exit code 0.
#[test]
fn an_idle_broker_ends_within_a_second() {
    for signal in ["TERM", "INT"] {
        let took = quickest(|| {
            let mut broker = Broker::start(&[]);
            let asked = Instant::now();
            broker.signal(signal);
            assert_eq!(broker.ended().code(), Some(0), "SIG{signal}");
            asked.elapsed()
        });
        assert!(took < Duration::from_secs(1), "SIG{signal}: {took:?}");
    }
}

/// A stop is told to MQTT 5 clients as 0x8B, fires no will, and loses no session, subscription, queue or retained message
/// [MQTT5-3.1.2-10].
#[test]
fn a_stop_is_announced_and_nothing_is_lost() {
    for signal in ["TERM", "INT"] {
        let mut broker = Broker::start(&[]);
        let mut away = Connect::v5("away").persistent().to(&broker);
        away.subscribe("stop/#", 1);
        away.disconnect();
        let will = || Publish::new("stop/will", "dead").qos(1, 0);
        let mut v5 = Connect::v5("v5").persistent().will(will()).to(&broker);
        let mut v311 = Connect::v311("v311").persistent().will(will()).to(&broker);
        v311.subscribe("stop/second", 2);
        assert_eq!(v5.deliver(&Publish::new("stop/first", "1").qos(1, 0).retain()), 0);
        assert_eq!(v5.say(2, "stop/second", "2"), 0);
        assert_eq!(v311.message().text(), "2");
        broker.signal(signal);
        v5.thrown_out(&[0x8B]);
        v311.thrown_out(&[]);
        drop((v5, v311));
        assert_eq!(broker.ended().code(), Some(0), "SIG{signal}");
        assert!(!broker.data().join("admin.address").exists(), "nobody listens there any more");

        broker.start_again();
        let mut away = Connect::v5("away").persistent().to(&broker);
        assert!(away.connack.present, "the session is back");
        assert_eq!(away.texts(2), ["1", "2"]);
        away.quiet();
        let mut again = Connect::v311("v311").persistent().to(&broker);
        assert!(again.connack.present);
        again.say(1, "stop/second", "3");
        assert_eq!(again.message().text(), "3", "the subscription is back");
        let mut new = Connect::v5("new").to(&broker);
        new.subscribe("stop/first", 1);
        assert_eq!(new.message().text(), "1", "the retained message is back");
        assert_eq!(away.message().text(), "3");
        away.quiet();
    }
}

/// A second SIGTERM does not wait for clients that take their time.
#[test]
fn who_asks_twice_does_not_wait() {
    let mut broker = Broker::start(&["--set", "drain_secs=3600"]);
    // A client that neither reads nor leaves.
    let _stuck = Connect::v5("stuck").to(&broker);
    broker.signal("TERM");
    broker.signal("TERM");
    assert_eq!(broker.ended().code(), Some(0));
}

/// A data directory has one broker: the second says so, ends with 1, and the first does not notice.
#[test]
fn a_directory_in_use_is_refused() {
    let broker = Broker::start(&[]);
    let mut client = Connect::v5("first").to(&broker);
    let listen = ["serve", "--listen", "mqtt://127.0.0.1:0", "--http", "127.0.0.1:0"];
    on(&broker, &listen).ends(1).complains("is in use by another broker").complains("a directory of its own");
    let status = on(&broker, &["status"]).ends(0).out;
    assert!(status.contains("connections    1\n"), "the first one can still be found: {status}");
    assert!(client.say(1, "t", "x") < 0x80);
}

/// A port that is taken is named, with what to do about it; nothing else is left behind.
#[test]
fn a_taken_port_is_named() {
    let broker = Broker::start(&[]);
    let dir = Dir::new();
    let mqtt = broker.addr();
    let data = dir.name("data");
    parlor(&["serve", "--listen", &format!("mqtt://{mqtt}"), "--http", "off", "--data", &data])
        .ends(1)
        .complains(&format!("{mqtt} is taken by another program"))
        .complains("listen on another port");
    let http = broker.http().to_string();
    parlor(&["serve", "--listen", "mqtt://127.0.0.1:0", "--http", &http, "--data", &data])
        .ends(1)
        .complains(&format!("http://{http}"))
        .complains("--http");
}

/// A directory that cannot be written is named.
#[test]
fn an_unusable_directory_is_named() {
    let dir = Dir::new();
    dir.put("file", "not a directory");
    let data = dir.name("file/data");
    parlor(&["serve", "--listen", "mqtt://127.0.0.1:0", "--http", "off", "--data", &data]).ends(1).complains(&data);
}
