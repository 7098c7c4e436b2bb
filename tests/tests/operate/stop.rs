//! Starting and stopping: SIGTERM, SIGINT, what stays over a restart, and what keeps a broker from starting.

use super::tools::*;
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command, Stdio};
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
        // Its PUBCOMP has arrived as well.
        v311.quiet();
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

/// After a kill nobody is looked for where nobody is: the command line goes to the store itself.
#[test]
fn a_killed_broker_is_not_asked() {
    let mut broker = Broker::start(&[]);
    broker.add_account("alice", "alices-password");
    broker.kill();
    assert!(broker.data().join("admin.address").exists(), "it had no time to tidy up");
    on(&broker, &["status"]).ends(4).complains("no broker runs on");
    assert_eq!(on(&broker, &["account", "list"]).ends(0).out, "alice\n");
    broker.start_again();
    assert!(on(&broker, &["status"]).ends(0).out.contains("accounts       1\n"));
}

/// Without its HTTP listener a broker serves its clients, and the command line says why it cannot reach it.
#[test]
fn a_broker_without_http_cannot_be_asked() {
    let mut broker = Broker::start(&["--http", "off"]);
    let mut client = Connect::v5("c").to(&broker);
    client.subscribe("t", 1);
    assert_eq!(client.say(1, "t", "x"), 0);
    assert_eq!(client.message().text(), "x");
    on(&broker, &["account", "list"]).ends(1).complains("its HTTP listener is off");
    on(&broker, &["status"]).ends(4);
    broker.signal("TERM");
    client.thrown_out(&[0x8B]);
    assert_eq!(broker.ended().code(), Some(0));
}

/// A process that ends with the test.
struct Started(Child);

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// systemd is told when it is ready, when it reads its configuration again, and when it ends (sd_notify(3)).
#[test]
fn systemd_is_told() {
    let dir = Dir::new();
    let socket = UnixDatagram::bind(dir.path("notify")).expect("a socket");
    socket.set_read_timeout(Some(PATIENCE)).expect("read timeout");
    let mut command = Command::new(Broker::binary());
    command
        .args(["serve", "--listen", "mqtt://127.0.0.1:0", "--http", "127.0.0.1:0", "--data", &dir.name("data")])
        .env("NOTIFY_SOCKET", dir.path("notify"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut broker = Started(command.spawn().expect("it starts"));
    let told = |text: &str| {
        let mut bytes = [0; 1_024];
        loop {
            let count = socket.recv(&mut bytes).unwrap_or_else(|error| panic!("{text} expected: {error}"));
            if String::from_utf8_lossy(&bytes[..count]).lines().any(|line| line == text) {
                return;
            }
        }
    };
    let signal = |name: &str, broker: &Started| {
        let mut command = Command::new("sh");
        command.args(["-c", "kill -s \"$0\" \"$1\"", name, &broker.0.id().to_string()]);
        run(command, "").ends(0);
    };
    told("READY=1");
    signal("HUP", &broker);
    told("RELOADING=1");
    told("READY=1");
    signal("TERM", &broker);
    told("STOPPING=1");
    assert_eq!(broker.0.wait().expect("it ends").code(), Some(0));
}
