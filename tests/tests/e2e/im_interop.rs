//! Stock clients of every kind in one group, and in front of one device.

use crate::peer::{Door, Got, PEERS, Peer, Running, all_here, finish};
use parlor_tests::im::{House, PASSWORD, json};
use parlor_tests::raw::{Client, V5};
use serde_json::Value;
use std::collections::BTreeMap;
use std::process::Command;

/// The account of each of [`PEERS`].
const MEMBERS: [&str; 6] = ["mosquitto4", "mosquitto5", "paho4", "paho5", "js4", "js5"];
const GROUP: &str = "im/v1/to/g-all/msg";
/// The one that is away while the others talk.
const AWAY: usize = 2;

fn door(house: &House, user: &'static str) -> Door {
    let ws = format!("ws://{}/mqtt", house.broker.address("ws"));
    Door { mqtt: house.broker.addr().to_string(), ws, user, password: PASSWORD }
}

/// A group of all members and alice, its owner.
fn gather() -> Option<House> {
    let house = House::with(&[&["alice"], &MEMBERS[..]].concat(), &["--listen", "ws://127.0.0.1:0/mqtt"])?;
    for member in MEMBERS {
        house.befriend("alice", member);
    }
    let mut alice = house.client(V5, "alice", "alice");
    let members = serde_json::json!({ "op": "create", "members": MEMBERS });
    assert_eq!(alice.say(1, "im/v1/me/group/g-all", members.to_string()), 0);
    Some(house)
}

fn listen(house: &House, number: usize) -> Running {
    let peer: Peer = PEERS[number];
    peer.subscribe(&door(house, MEMBERS[number]), &format!("ear-{}", MEMBERS[number]), false, "im/v1/me/#", 1)
}

/// What a client was sent of the group, by seq; the same seq is the same message, however often it comes.
fn take(log: &mut BTreeMap<u64, String>, got: &[Got], who: &str) {
    for got in got {
        let Ok(message) = serde_json::from_str::<Value>(&got.payload) else { continue };
        let is_here =
            got.topic == "im/v1/me/in/g-all/msg" || (got.topic == "im/v1/me/sent" && message["to"] == "g-all");
        let (Some(seq), Some(text)) = (message["seq"].as_u64(), message["text"].as_str()) else { continue };
        if is_here && message.get("dup").is_none() {
            let before = log.insert(seq, text.to_owned());
            assert!(before.is_none_or(|before| before == text), "{who}: two messages have the number {seq}");
        }
    }
}

/// Every client says something at every QoS; each waits for its acknowledgements.
fn everybody_speaks(house: &House, word: &str, count: u32) {
    std::thread::scope(|scope| {
        for (number, peer) in PEERS.into_iter().enumerate() {
            scope.spawn(move || {
                let door = door(house, MEMBERS[number]);
                for qos in 0..3 {
                    let prefix = format!("{word} of {}", MEMBERS[number]);
                    peer.publish(&door, &format!("mouth-{}", MEMBERS[number]), GROUP, qos, &prefix, count);
                }
            });
        }
    });
}

/// The log itself, as history has it.
fn history(alice: &mut Client) -> BTreeMap<u64, String> {
    alice.subscribe("im/v1/me/history/res", 1);
    assert_eq!(alice.say(1, "im/v1/me/history", r#"{"with":"g-all","after":0,"max":500}"#), 0);
    let page = json(&alice.on("im/v1/me/history/res"));
    let messages = page["messages"].as_array().expect("a list");
    let seqs: Vec<u64> = messages.iter().filter_map(|m| m["seq"].as_u64()).collect();
    assert_eq!(seqs, (1..=seqs.len() as u64).collect::<Vec<_>>(), "no holes");
    messages.iter().filter_map(|m| Some((m["seq"].as_u64()?, m["text"].as_str()?.to_owned()))).collect()
}

/// mosquitto, paho-mqtt and MQTT.js over WebSocket, in both versions of the protocol, end with the identical list of seq
/// and text: over a kill -9 of the broker, and one of them was away (A2, R16, G3).
#[test]
fn every_stock_client_has_the_same_group() {
    if !all_here() {
        return;
    }
    let Some(mut house) = gather() else { return };
    let mut logs: Vec<BTreeMap<u64, String>> = vec![BTreeMap::new(); MEMBERS.len()];
    listen(&house, AWAY).kill();
    let ears: Vec<(usize, Running)> =
        (0..MEMBERS.len()).filter(|n| *n != AWAY).map(|n| (n, listen(&house, n))).collect();
    everybody_speaks(&house, "morning", 2);
    // Everything was acknowledged; some of it is on its way to somebody.
    house.broker.kill();
    for (number, ear) in ears {
        take(&mut logs[number], &ear.end(), MEMBERS[number]);
    }
    house.broker.start_again();
    let ears: Vec<(usize, Running)> =
        (0..MEMBERS.len()).filter(|n| *n != AWAY).map(|n| (n, listen(&house, n))).collect();
    everybody_speaks(&house, "evening", 2);
    let mut ears = ears;
    ears.push((AWAY, listen(&house, AWAY)));
    let mut alice = house.client(V5, "alice", "alice");
    assert_eq!(alice.say(1, GROUP, "good night"), 0);
    for (number, ear) in &mut ears {
        let is_last = |got: &Got| got.topic == "im/v1/me/in/g-all/msg" && got.payload.contains("good night");
        take(&mut logs[*number], &ear.until_one("the last message", is_last), MEMBERS[*number]);
    }
    let mut log = history(&mut alice);
    let last = log.pop_last().expect("it was said");
    assert_eq!(last.1, "good night");
    // Messages at QoS 0 may be lost with their connection; the others were acknowledged.
    let promised = log.values().filter(|text| text.contains(" 1 ") || text.contains(" 2 ")).count();
    assert_eq!(promised, 2 * 2 * 2 * MEMBERS.len());
    for (number, heard) in logs.iter().enumerate() {
        assert_eq!(heard, &log, "{}", MEMBERS[number]);
    }
}

/// A command with `mosquitto_rr`: the outcome comes back to whoever asked (section 6).
#[test]
fn mosquitto_rr_commands_a_device() {
    if !all_here() {
        return;
    }
    let Some(house) = House::start(&["alice", "thermostat"]) else { return };
    house.befriend("alice", "thermostat");
    let mut device = house.client(V5, "thermostat", "thermostat");
    device.subscribe("im/v1/me/cmd/#", 1);
    let (host, port) = (house.broker.addr().ip().to_string(), house.broker.addr().port().to_string());
    let mut command = Command::new("mosquitto_rr");
    command
        .args(["-V", "5", "-h", &host, "-p", &port, "-u", "alice", "-P", PASSWORD, "-i", "rr", "-q", "1", "-W", "20"]);
    command.args(["-t", "im/v1/to/thermostat/cmd/set", "-e", "im/v1/me/res/mine", "-m", r#"{"target":21}"#]);
    let asks = std::thread::spawn(move || finish(&mut command, "mosquitto_rr"));
    let asked = device.message();
    let id = asked.topic.strip_prefix("im/v1/me/cmd/").and_then(|rest| rest.strip_suffix("/set")).expect("a command");
    let order = json(&asked);
    assert_eq!((&order["args"]["target"], order["from"].as_str()), (&Value::from(21), Some("alice")));
    assert_eq!(device.say(1, &format!("im/v1/me/cmdres/{id}"), r#"{"state":"done","result":{"was":19.5}}"#), 0);
    let heard = asks.join().expect("mosquitto_rr ends");
    let outcome: Value = serde_json::from_str(heard.trim()).unwrap_or_else(|e| panic!("{heard}: {e}"));
    assert_eq!((outcome["state"].as_str(), &outcome["result"]), (Some("done"), &serde_json::json!({ "was": 19.5 })));
}
