//! Pairing over HTTP: a one-time code makes a device's account; who guesses codes is slowed down.

use super::schema::conforms;
use super::tools::*;
use super::transport::Way;
use serde_json::json;
use std::net::{Ipv4Addr, SocketAddr};

const PASSWORD: &str = "a-good-password";

fn house(args: &[&str]) -> (Broker, Operator) {
    let broker = Broker::start(&[&["--set", NO_ANONYMOUS], args].concat());
    let operator = Operator::of(&broker);
    let alice = json!({ "name": "alice", "password": PASSWORD, "kind": "person" }).to_string();
    assert_eq!(operator.ask("POST", "/accounts", &alice).status, 201);
    (broker, operator)
}

fn pair(at: SocketAddr, code: &str, name: &str) -> Answer {
    http(at, "POST", "/api/v1/pair", &[], json!({ "code": code, "name": name }).to_string().as_bytes())
}

/// The same, from this address of the loopback network.
fn pair_from(from: u8, broker: &Broker, code: &str, name: &str) -> Answer {
    let way = Way::plain().from(Ipv4Addr::new(127, 0, 0, from)).to(broker.http());
    pair((&way).into(), code, name)
}

fn alice(broker: &Broker) -> Client {
    let mut alice = Connect::v5("alice-1").persistent().username("alice").password(PASSWORD).to(broker);
    alice.subscribe("im/v1/me/#", 1);
    alice
}

/// The answer to what `alice` publishes to `im/v1/{path}`.
fn asks(alice: &mut Client, path: &str, payload: &Json, answered_at: &str) -> Json {
    assert_eq!(alice.say(1, &format!("im/v1/{path}"), payload.to_string()), 0);
    loop {
        let message = alice.message();
        if message.topic == answered_at {
            return serde_json::from_str(message.text()).expect("JSON");
        }
    }
}

fn code(alice: &mut Client) -> String {
    let answer = asks(alice, "me/pair", &json!({ "household": "g-home" }), "im/v1/me/pair/res");
    answer["code"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
}

fn make_home(alice: &mut Client) {
    let new = json!({ "op": "create", "name": "Home", "household": true });
    asks(alice, "me/group/g-home", &new, "im/v1/me/group/res");
}

/// A code makes one account, which can log in at once and outlives a kill; the code is used up then, and nothing of it is logged.
#[test]
fn a_code_makes_an_account() {
    let (mut broker, _) = house(&["--log-level", "trace"]);
    let mut alice = alice(&broker);
    make_home(&mut alice);
    let code = code(&mut alice);
    let answer = pair(broker.http(), &code, "lamp2");
    assert_eq!(answer.status, 201, "{}", answer.text());
    let paired = answer.json();
    conforms(&paired, "Paired");
    assert_eq!(
        (&paired["account"], &paired["owner"], &paired["household"]),
        (&"lamp2".into(), &"alice".into(), &"g-home".into())
    );
    let password = paired["password"].as_str().expect("a password").to_owned();
    assert!(password.len() >= 22, "128 bits at least");
    let connect = Connect::v5("lamp2-1").persistent().username("lamp2").password(&password);
    assert_eq!(pair(broker.http(), &code, "lamp3").status, 403, "a code is used for one name");
    connect.to(&broker).quiet();
    assert_eq!(pair(broker.http(), &code, "lamp2").status, 404, "a code that has served is none");
    // The last thing that is logged of it: the connection that came in with the password has ended.
    broker.await_log("connection ended");
    let log = broker.log();
    assert!(log.contains("a device was paired") && !log.contains(&password) && !log.contains(&code), "{log}");
    broker.kill();
    broker.start_again();
    assert!(connect.to(&broker).connack.present, "answered means on disk");
    let row = Operator::of(&broker).see("/accounts/lamp2");
    assert_eq!(row["messaging"]["kind"], "device", "{row}");
}

/// What a code is refused for, and that it can be used afterwards.
#[test]
fn names_are_checked() {
    let (broker, _) = house(&[]);
    let mut alice = alice(&broker);
    make_home(&mut alice);
    let code = code(&mut alice);
    for (name, status) in [("alice", 409), ("g-lamp", 400), ("me", 400), ("pair", 400), ("No Name", 400), ("", 400)] {
        let answer = pair(broker.http(), &code, name);
        assert_eq!(answer.status, status, "{name}: {}", answer.text());
    }
    assert_eq!(pair(broker.http(), &code, "lamp2").status, 201);
    assert_eq!(http(broker.http(), "POST", "/api/v1/pair", &[], b"{}").status, 400);
}

/// Wrong codes make the address they come from wait; others pair meanwhile.
#[test]
fn guessing_is_slowed_down() {
    let slow = ["--set", "auth.slow_down.free_failures=3", "--set", "auth.slow_down.first_delay_ms=60000"];
    let (broker, _) = house(&slow);
    let mut alice = alice(&broker);
    make_home(&mut alice);
    let code = code(&mut alice);
    let guess = |n: u8| pair_from(9, &broker, &format!("AAAA-AAA{n}"), "x").status;
    let statuses: Vec<u16> = (2..10).map(guess).collect();
    let free = statuses.iter().take_while(|status| **status == 404).count();
    assert!((3..=4).contains(&free) && statuses[free..].iter().all(|status| *status == 429), "{statuses:?}");
    let answer = pair_from(9, &broker, &code, "lamp2");
    assert_eq!(answer.status, 429, "the right one is not looked at either");
    let wait: u64 = answer.header("retry-after").and_then(|secs| secs.parse().ok()).expect("seconds");
    assert!((1..=60).contains(&wait), "{wait}");
    assert_eq!(answer.json()["code"], "quota");
    assert_eq!(pair_from(8, &broker, &code, "lamp2").status, 201);
    let metrics = Operator::of(&broker).metrics();
    let slowed = metrics.count("parlor_auth_total{result=\"pairing_slowed_down\"}");
    assert_eq!(slowed, 8 - free as u64 + 1, "{}", metrics.0);
    assert_eq!(metrics.count("parlor_im_refused_total{code=\"not_found\"}"), free as u64);
}
