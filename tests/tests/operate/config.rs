//! The configuration end to end: `check-config`, environment and flags, and a start from flags alone.

use super::tools::*;
use std::net::SocketAddr;

/// A good file is answered OK and a summary of what it does.
#[test]
fn a_good_file_is_ok() {
    let dir = Dir::new();
    let file = dir.put(
        "parlor.toml",
        "data = \"store\"\n[[listener]]\nurl = \"mqtt://127.0.0.1:1883\"\n[limits]\ntopic_alias_max = 10\n",
    );
    let file = file.display().to_string();
    let said = parlor(&["check-config", &file]).ends(0);
    assert!(said.out.starts_with("OK\n") && said.out.contains("topic_alias_max = 10"), "{said:?}");
    assert!(said.out.contains(&dir.name("store")), "relative paths count from the file: {said:?}");
    let said = parlor_in(
        &["check-config", &file, "--set", "limits.receive_max=7"],
        "",
        &[("PARLOR_LIMITS__RECEIVE_MAX", "8"), ("PARLOR_LIMITS__IN_FLIGHT_MAX", "9")],
    );
    let said = said.ends(0);
    assert!(said.out.contains("receive_max = 7") && said.out.contains("in_flight_max = 9"), "{said:?}");
}

/// Every mistake is shown with its line and what to write; the exit code is 2.
#[test]
fn mistakes_are_shown_where_they_are() {
    let dir = Dir::new();
    let check = |text: &str, expect: &[&str]| {
        let file = dir.put("bad.toml", text).display().to_string();
        let mut said = parlor(&["check-config", &file]).ends(2);
        for text in expect {
            said = said.complains(&text.replace("FILE", &file));
        }
        // What cannot be checked cannot be started either, and says the same.
        let data = dir.name("data");
        let started = parlor(&["serve", "--config", &file, "--data", &data]).ends(2);
        assert_eq!(started.err, said.err);
        assert!(!dir.path("data").exists(), "nothing was touched");
    };
    check(
        "[limits]\ntopic_alias_mx = 10\n",
        &["FILE:2:1", "topic_alias_mx", "did you mean `topic_alias_max`?", "1 error"],
    );
    check("[limits]\nreceive_max = 70000\n", &["FILE:2:", "65535"]);
    check("[limits]\nreceive_max = \"many\"\n", &["FILE:2:", "a whole number"]);
    check("[limits\n", &["FILE:1:"]);
    check("[[listener]]\nurl = \"mqts://127.0.0.1\"\n", &["FILE:2:", "mqtts"]);
    check("[[listener]]\nurl = \"mqtts://127.0.0.1\"\n", &["FILE:2:", "tls.certificate"]);
    check("[[rule]]\naccount = \"a\"\nallow = \"write\"\ntopic = \"x\"\n", &["FILE:3:", "publish"]);
    check("[log]\nlevel = \"loud\"\n[limits]\nreceive_max = 0\n", &["FILE:2:", "FILE:4:", "2 errors"]);
    parlor(&["check-config", &dir.name("none.toml")]).ends(2).complains("none.toml");
    parlor(&["serve", "--set", "nonsense"]).ends(2).complains("nonsense");
    parlor(&["serve", "--set", "limits.nonsense=1"]).ends(2).complains("--set limits.nonsense=1");
    parlor(&["serve", "--listen", "http://127.0.0.1:1"]).ends(2).complains("--listen");
    parlor(&["serve", "--nonsense"]).ends(2);
}

/// Flags win over the environment, the environment over the file, the file over the defaults.
#[test]
fn what_counts_when_sources_differ() {
    let dir = Dir::new();
    let file = dir.put("parlor.toml", "[limits]\nreceive_max = 1\ntopic_alias_max = 2\nkeep_alive_max_secs = 3\n");
    let file = file.display().to_string();
    let said = parlor_in(
        &["check-config", &file, "--set", "limits.keep_alive_max_secs=6"],
        "",
        &[("PARLOR_LIMITS__TOPIC_ALIAS_MAX", "4"), ("PARLOR_LIMITS__KEEP_ALIVE_MAX_SECS", "5")],
    );
    assert!(
        said.out.contains("receive_max = 1, topic_alias_max = 4, keep_alive_max_secs = 6"),
        "in the order of the sources: {said:?}"
    );
    let broker = Broker::start(&["--config", &file, "--set", "limits.topic_alias_max=10"]);
    let client = Connect::v5("c").to(&broker);
    assert_eq!(client.connack.props.number(prop::RECEIVE_MAX), Some(1));
    assert_eq!(client.connack.props.number(prop::TOPIC_ALIAS_MAX), Some(10));
    assert_eq!(client.connack.props.number(prop::SERVER_KEEP_ALIVE), Some(3));
}

/// The start from flags alone that the README shows: TCP and WebSocket, everybody, any key by --set.
#[test]
fn flags_alone_are_enough() {
    // The harness itself passes --listen mqtt://…, --data and --allow-anonymous.
    let broker = Broker::start(&[
        "--listen",
        "ws://127.0.0.1:0/mqtt",
        "--set",
        "limits.topic_alias_max=10",
        "--log-level",
        "debug",
    ]);
    assert_ne!(broker.address("ws").port(), 0);
    let mut client = Connect::v5("c").to(&broker);
    assert_eq!(client.connack.props.number(prop::TOPIC_ALIAS_MAX), Some(10));
    assert_eq!(client.say(1, "t", "x"), 0x10, "nobody listens [MQTT5-3.4.2-1]");
    assert!(broker.log().contains("listening on ws://127.0.0.1:"), "{}", broker.log());
}

/// Without --allow-anonymous nobody without an account comes in.
#[test]
fn nobody_comes_in_unless_it_is_said() {
    let broker = Broker::start(&["--set", NO_ANONYMOUS]);
    assert_eq!(Connect::v5("c").refused(&broker), 0x87);
    assert_eq!(Connect::v311("c").refused(&broker), 5);
}

/// IPv6 and IPv4, by address and by name, each where it was asked for.
#[test]
fn both_families_of_addresses() {
    if std::net::TcpListener::bind("[::1]:0").is_err() {
        // A machine without IPv6 has nothing to listen on.
        return;
    }
    let broker = Broker::start(&["--listen", "mqtt://[::1]:0", "--listen", "ws://localhost:0/mqtt"]);
    let log = broker.log();
    let v6 = log.split("listening on mqtt://[::1]:").nth(1).and_then(|rest| rest.split_whitespace().next());
    let v6: SocketAddr = format!("[::1]:{}", v6.expect("it listens on IPv6")).parse().expect("an address");
    let mut six = Connect::v5("six").to(v6);
    let mut four = Connect::v5("four").to(&broker);
    six.subscribe("t", 1);
    assert_eq!(four.say(1, "t", "x"), 0);
    assert_eq!(six.message().text(), "x");
    let seen = Operator::of(&broker).see("/sessions/six");
    assert!(seen["connection"]["peer"].as_str().is_some_and(|peer| peer.starts_with("[::1]:")), "{seen}");
}
