//! MQTT over QUIC with a client of another house: aioquic, which shares no line with the broker's side.

use crate::demo::{Demo, PASSWORD as PASSWORD_OF_DEMO};
use crate::peer::{aioquic, aioquic_here, finish};
use parlor_tests::im::{PASSWORD, json};
use parlor_tests::lines::Lines;
use parlor_tests::raw::{BOTH, Client, V5, V311, Version};
use parlor_tests::server::Broker;
use parlor_tests::site::Site;
use std::collections::BTreeMap;
use std::process::Command;

/// The client as a process.
struct Aio {
    name: String,
    running: Lines,
    /// Lines nobody has asked for yet.
    held: Vec<String>,
}

impl Aio {
    /// Starts one that does what it is told, with these options; its client identifier is the account's name.
    fn drive(site: &Site, version: Version, account: &str, options: &[&str]) -> Self {
        let account = ["--user", account, "--password", PASSWORD, "--id", account];
        let mut aio = Self::start(site, version, &[&account, options].concat(), &["drive"]);
        aio.expect(&["connected mqtt"]);
        aio
    }

    fn start(site: &Site, version: Version, options: &[&str], role: &[&str]) -> Self {
        let mut command = aioquic();
        command.args(["--ca", &site.dir.name("ca.pem"), "--version", if version == V5 { "5" } else { "4" }]);
        command.args(options).arg(site.quic_addr().to_string()).args(role);
        let name = format!("{version:?} {options:?}");
        Self { running: Lines::start(command, &name), name, held: vec![] }
    }

    fn say(&mut self, line: &str) {
        self.running.say(line);
    }

    fn connect(&mut self) {
        self.say("connect");
        self.expect(&["connack 0 0 0"]);
    }

    /// Waits until each of these lines has come, in whatever order; others stay for later.
    #[track_caller]
    fn expect(&mut self, wanted: &[&str]) {
        for wanted in wanted {
            let found = self.find(|line| line == *wanted);
            assert_eq!(&found, wanted);
        }
    }

    /// The first line that `is` right; others stay for later.
    #[track_caller]
    fn find(&mut self, is: impl Fn(&str) -> bool) -> String {
        if let Some(at) = self.held.iter().position(|line| is(line)) {
            return self.held.remove(at);
        }
        let held = &mut self.held;
        self.running.until("line that was waited for", |line| {
            let line = line.to_owned();
            if is(&line) {
                return Some(line);
            }
            held.push(line);
            None
        })
    }

    /// Nothing that was said so far has been answered.
    #[track_caller]
    fn is_unanswered(&mut self) {
        self.held.extend(self.running.come());
        let answer = self.held.iter().find(|line| line.contains("ack "));
        assert_eq!(answer, None, "{}", self.name);
    }

    /// What has come until the broker answers a ping on control, on which it answers in order, and on that data stream.
    fn until_pong(&mut self, streams: &[u64]) -> Vec<String> {
        for stream in streams {
            self.say(&format!("ping {stream}"));
        }
        for stream in streams {
            self.expect(&[&format!("pong {stream}")]);
        }
        std::mem::take(&mut self.held)
    }
}

fn site() -> Option<Site> {
    if !aioquic_here() {
        return None;
    }
    Site::quic(&["alice", "lamp", "bob"], &[])
}

/// A client that listens over TCP.
fn ear(site: &Site, filter: &str) -> Client {
    let mut ear = site.house.client(V5, "bob", "ear");
    ear.subscribe(filter, 1);
    ear
}

#[test]
fn everything_on_one_stream() {
    let Some(site) = site() else { return };
    for version in BOTH {
        let mut ear = ear(&site, "one/#");
        let mut aio = Aio::drive(&site, version, "alice", &[]);
        aio.connect();
        aio.say("sub 0 one/+ 2");
        aio.expect(&["suback 0 1 2"]);
        for (qos, answer) in [(0, ""), (1, "puback 0 3 "), (2, "pubcomp 0 4 ")] {
            aio.say(&format!("pub 0 {qos} one/t at {qos}"));
            aio.expect(&[&format!("got 0 {qos} 0 0 one/t at {qos}")]);
            if qos > 0 {
                aio.find(|line| line.starts_with(answer));
            }
            assert_eq!(ear.message().text(), format!("at {qos}"));
        }
        assert_eq!(ear.say(2, "one/back", "from TCP"), 0);
        aio.expect(&["got 0 2 0 0 one/back from TCP"]);
        assert_eq!(ear.message().text(), "from TCP");
        aio.say("unsub 0 one/+");
        aio.expect(&["unsuback 0 5"]);
        assert_eq!(ear.say(1, "one/back", "for nobody"), 0);
        assert_eq!(aio.until_pong(&[0]), [""; 0]);
        aio.say("disconnect");
        aio.find(|line| line.starts_with("closed 0"));
    }
}

/// Subscriptions on two streams, publications on four: each answer comes on the stream of its request, each delivery on the
/// stream that subscribed, in order, each once.
#[test]
fn streams_keep_to_themselves() {
    let Some(site) = site() else { return };
    for version in BOTH {
        let mut ear = ear(&site, "many/#");
        let mut aio = Aio::drive(&site, version, "alice", &[]);
        aio.connect();
        aio.say("sub 1 many/left/# 1");
        aio.say("sub 2 many/right/# 2");
        aio.expect(&["suback 1 1 1", "suback 2 2 2"]);
        let (each, writers) = (60_u64, [0_u64, 1, 3, 4]);
        let mut requests: BTreeMap<u64, (u64, &str)> = BTreeMap::new();
        for number in 0..each {
            for writer in writers {
                let (side, qos) = if (number + writer) % 2 == 0 { ("left", 1) } else { ("right", 2) };
                let id = 3 + requests.len() as u64;
                requests.insert(id, (writer, if qos == 1 { "puback" } else { "pubcomp" }));
                aio.say(&format!("pub {writer} {qos} many/{side}/{writer} {number}"));
            }
        }
        let mut got: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        for _ in 0..2 * each * writers.len() as u64 {
            let line = aio.find(|_| true);
            let words: Vec<&str> = line.split(' ').collect();
            match words[..] {
                ["got", stream, _, _, "0", topic, payload] => {
                    let wanted = if topic.starts_with("many/left/") { "1" } else { "2" };
                    assert_eq!(stream, wanted, "{version:?}: {line}");
                    got.entry(topic.to_owned()).or_default().push(payload.parse().expect("a number"));
                }
                [kind, stream, id, code] => {
                    let id: u64 = id.parse().expect("a number");
                    let request = requests.remove(&id).unwrap_or_else(|| panic!("{version:?}: twice: {line}"));
                    assert_eq!((stream.to_owned(), kind, code), (request.0.to_string(), request.1, "0"), "{line}");
                }
                _ => panic!("{version:?}: {line}"),
            }
        }
        assert!(requests.is_empty(), "{requests:?}");
        assert_eq!(aio.until_pong(&[0, 1, 2, 3, 4]), [""; 0], "each once");
        for writer in writers {
            for side in ["left", "right"] {
                let wanted: Vec<u64> = (0..each).filter(|n| ((n + writer) % 2 == 0) == (side == "left")).collect();
                assert_eq!(got[&format!("many/{side}/{writer}")], wanted, "{version:?}: in order");
            }
        }
        assert_eq!(ear.texts(usize::try_from(each).expect("few") * writers.len()).len(), 240);
        // A stream that ends gives its subscriptions to control.
        aio.say("fin 1");
        aio.expect(&["end 1"]);
        assert_eq!(ear.say(1, "many/left/9", "after the end"), 0);
        aio.expect(&["got 0 1 0 0 many/left/9 after the end"]);
        assert_eq!(ear.say(1, "many/right/9", "as before"), 0);
        aio.expect(&["got 2 1 0 0 many/right/9 as before"]);
        aio.say("disconnect");
        aio.find(|line| line.starts_with("closed 0"));
    }
}

/// The end of control is the end: the will is published, and the account is seen to be gone; the end of a data stream is
/// not.
#[test]
fn the_end_of_control_ends_the_connection() {
    let Some(site) = site() else { return };
    site.house.befriend("bob", "lamp");
    for (version, ending) in [(V311, "fin 0"), (V5, "fin 0"), (V5, "reset 0")] {
        let mut watcher = site.house.client(V5, "bob", "watcher");
        watcher.subscribe("wills/#", 1);
        watcher.subscribe("im/v1/presence/lamp", 1);
        let mut aio = Aio::drive(&site, version, "lamp", &["--will", "wills/lamp", "gone"]);
        aio.connect();
        let state = |watcher: &mut Client, wanted: &str| {
            while json(&watcher.on("im/v1/presence/lamp"))["state"] != wanted {}
        };
        state(&mut watcher, "online");
        aio.say("sub 1 any 1");
        aio.expect(&["suback 1 1 1"]);
        aio.say("fin 1");
        aio.expect(&["end 1"]);
        assert_eq!(aio.until_pong(&[0]), [""; 0]);
        aio.say(ending);
        aio.find(|line| line.starts_with("closed "));
        assert_eq!(watcher.on("wills/lamp").text(), "gone", "{version:?}: {ending}");
        state(&mut watcher, "offline");
        watcher.disconnect();
    }
}

/// What a client writes on data streams before it has said who it is waits, and is handled in order afterwards.
#[test]
fn data_before_connack_is_held() {
    let Some(site) = site() else { return };
    for version in BOTH {
        let mut ear = ear(&site, "early/#");
        let mut aio = Aio::drive(&site, version, "alice", &[]);
        aio.say("sub 1 early/# 1");
        for number in 0..20 {
            aio.say(&format!("pub 2 1 early/t {number}"));
        }
        // It has arrived: a later packet of the same connection was answered by the broker's QUIC layer.
        aio.say("keys");
        ear.quiet();
        aio.is_unanswered();
        // What streams say has no order between them: CONNACK may be read after what was written behind it.
        aio.connect();
        aio.expect(&["suback 1 1 1"]);
        for number in 0..20 {
            aio.expect(&[&format!("puback 2 {} 0", number + 2)]);
        }
        let texts: Vec<String> = (0..20).map(|number| number.to_string()).collect();
        assert_eq!(ear.texts(20), texts, "{version:?}");
        aio.say("disconnect");
        aio.find(|line| line.starts_with("closed 0"));
        ear.quiet();
    }
}

/// A certificate is the account, without a password.
#[test]
fn a_certificate_is_the_account() {
    if !aioquic_here() {
        return;
    }
    let Some(site) = Site::by_certificate(&["lamp"], &[]) else { return };
    let lamp = site.clients.issue("lamp");
    site.dir.put("lamp.pem", &lamp.certificate);
    site.dir.put("lamp.key", &lamp.key);
    let stranger = site.clients.issue("stranger");
    site.dir.put("stranger.pem", &stranger.certificate);
    site.dir.put("stranger.key", &stranger.key);
    let with = |name: &str| {
        let (cert, key) = (site.dir.name(&format!("{name}.pem")), site.dir.name(&format!("{name}.key")));
        let options = ["--cert", &cert, "--key", &key, "--id", "by-certificate"];
        let mut aio = Aio::start(&site, V5, &options, &["drive"]);
        aio.expect(&["connected mqtt"]);
        aio.say("connect");
        aio
    };
    let mut aio = with("lamp");
    aio.expect(&["connack 0 0 0"]);
    assert_eq!(site.operator().see("/sessions/by-certificate")["account"], "lamp");
    drop(aio);
    let refused = with("stranger").find(|line| line.starts_with("connack"));
    assert!(["connack 0 134 0", "connack 0 135 0"].contains(&refused.as_str()), "{refused}");
    let mut nobody = Aio::start(&site, V5, &["--id", "nobody"], &["drive"]);
    nobody.expect(&["connected mqtt"]);
    nobody.say("connect");
    assert_eq!(nobody.find(|line| line.starts_with("connack")), "connack 0 135 0");
}

/// Who offers TLS 1.2 is not let in.
#[test]
fn tls_is_1_3() {
    let Some(site) = site() else { return };
    let mut old = Aio::start(&site, V5, &["--tls", "1.2"], &["drive"]);
    let closed = old.find(|line| line.starts_with("closed ") || line.starts_with("connected "));
    // Alert protocol_version (RFC 9001 s4.8, RFC 8446 s6).
    assert!(closed.starts_with(&format!("closed {}", 0x100 + 70)), "{closed}");
}

/// The port changes in the middle, more than once: nothing is lost, nothing comes twice, and nobody sees it.
#[test]
fn a_client_moves_in_the_middle_of_a_conversation() {
    let Some(site) = site() else { return };
    site.house.befriend("alice", "bob");
    let mut bob = site.house.client(V5, "bob", "bob");
    bob.subscribe("im/v1/presence/alice", 1);
    bob.subscribe("im/v1/me/in/#", 1);
    let mut aio = Aio::drive(&site, V5, "alice", &[]);
    aio.connect();
    aio.say("sub 1 im/v1/me/in/# 1");
    aio.expect(&["suback 1 1 1"]);
    while json(&bob.on("im/v1/presence/alice"))["state"] != "online" {}
    let (before, mut ids) = (site.operator().see("/sessions/alice"), 1..);
    ids.next();
    for round in 0..4 {
        for number in 0..5 {
            let id = ids.next().expect("endless");
            if number == 2 {
                aio.say("rebind");
            }
            aio.say(&format!("pub 2 1 im/v1/to/bob/msg up {round} {number}"));
            assert_eq!(bob.say(1, "im/v1/to/alice/msg", format!("down {round} {number}")), 0);
            aio.expect(&[&format!("puback 2 {id} 0")]);
        }
    }
    for (n, text) in (0..4).flat_map(|round| (0..5).map(move |n| format!("up {round} {n}"))).enumerate() {
        let message = json(&bob.on("im/v1/me/in/alice/msg"));
        assert_eq!(message["text"], text.as_str(), "message {n}");
    }
    let down: Vec<String> = (0..20)
        .map(|_| {
            let line = aio.find(|line| line.starts_with("got 1 1 0 0 im/v1/me/in/bob/msg"));
            let (_, payload) = line.split_once("/msg ").expect("a payload");
            let message: serde_json::Value = serde_json::from_str(payload).expect("JSON");
            message["text"].as_str().expect("text").to_owned()
        })
        .collect();
    let wanted: Vec<String> = (0..4).flat_map(|round| (0..5).map(move |n| format!("down {round} {n}"))).collect();
    assert_eq!(down, wanted);
    let rest = aio.until_pong(&[0, 1, 2]);
    assert!(!rest.iter().any(|line| line.contains("/msg ")), "each once: {rest:?}");
    let after = site.operator().see("/sessions/alice");
    let since = |session: &serde_json::Value| session["connection"]["since_ms"].clone();
    assert_eq!(since(&before), since(&after), "the same connection: {after}");
    let seen = bob.fence();
    let flapped = seen.iter().any(|p| format!("{p:?}").contains("im/v1/presence/alice"));
    assert!(!flapped, "presence did not move: {seen:?}");
}

/// The conversation of the README: a line to somebody, and what that one says.
#[test]
fn it_chats() {
    let Some(site) = site() else { return };
    site.house.befriend("alice", "bob");
    let mut bob = site.house.client(V5, "bob", "bob");
    bob.subscribe("im/v1/me/in/#", 1);
    let options = ["--user", "alice", "--password", PASSWORD, "--id", "alice-aioquic", "--for", "20"];
    let mut alice = Aio::start(&site, V5, &options, &["chat", "bob"]);
    alice.say("is the heating on?");
    assert_eq!(json(&bob.on("im/v1/me/in/alice/msg"))["text"], "is the heating on?");
    alice.expect(&["to bob: is the heating on?"]);
    assert_eq!(bob.say(1, "im/v1/to/alice/msg", "since six"), 0);
    alice.expect(&["bob: since six"]);
    drop(alice);
    let once = [&options[..6], &["--for", "1"]].concat();
    let mut short = Aio::start(&site, V311, &once, &["chat", "bob", "good night"]);
    short.expect(&["to bob: good night"]);
    assert_eq!(json(&bob.on("im/v1/me/in/alice/msg"))["text"], "good night");
    short.running.finish();
}

/// What the README shows of QUIC: the demo's lamp, from Parlor's command line over both roads and from aioquic.
#[test]
fn the_demo_talks_over_quic() {
    if !aioquic_here() {
        return;
    }
    let demo = Demo::with_quic();
    let (quic, ca) = (demo.quic.clone().expect("it listens"), demo.file("demo-ca.pem"));
    let port = quic.rsplit_once(':').expect("HOST:PORT").1;
    for scheme in ["mqtt+quic", "parlor"] {
        let url = format!("{scheme}://localhost:{port}");
        for line in ["send --demo alice --wait=read lamp on", "cmd --demo alice lamp set on=false"] {
            let mut command = Command::new(Broker::binary());
            command.args(line.split(' ')).args(["--url", &url, "--ca", &ca]).env("HOME", demo.file("home"));
            for name in ["XDG_STATE_HOME", "XDG_CONFIG_HOME", "PARLOR_PASSWORD"] {
                command.env_remove(name);
            }
            let said = finish(&mut command, line);
            let ending = if line.starts_with("send") { "read" } else { "done" };
            assert!(said.lines().last().is_some_and(|last| last.starts_with(ending)), "{scheme}: {line}: {said}");
        }
    }
    let mut command = aioquic();
    command.args(["--ca", &ca, "--user", "alice", "--password", PASSWORD_OF_DEMO, "--for", "3"]);
    let said = finish(command.arg(format!("localhost:{port}")).args(["chat", "lamp", "on"]), "aioquic");
    assert!(said.contains("to lamp: on\n") && said.contains("lamp: I am on, at"), "{said}");
}
