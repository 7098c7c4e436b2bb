//! Alice: writes to the lamp, commands it, and takes down all she hears. Her connection is good; what the broker has not
//! acknowledged when it dies, she says again.

use super::model::Published;
use super::net::{Who, show};
use super::{Event, World};
use parlor_protocol::mqtt::{
    Ack, Connect, Packet, PacketId, Properties, Property, Publish, QoS, ReasonCode, Subscribe, SubscribeFilters,
    SubscriptionOptions, Version, decode,
};
use serde_json::{Value, json};
use std::collections::BTreeMap;

#[derive(Debug, Default)]
pub(super) struct Person {
    pub(super) conn: Option<usize>,
    heard: Vec<u8>,
    is_in: bool,
    /// What the broker has not acknowledged, by packet identifier.
    open: BTreeMap<u16, (String, String)>,
    next_pid: u16,
    last_seq: u64,
    said: u64,
}

impl Person {
    pub(super) fn state(&self) -> String {
        format!("alice has {} things that are not acknowledged", self.open.len())
    }

    pub(super) fn is_content(&self) -> bool {
        self.is_in && self.open.is_empty()
    }
}

fn pid(value: u16) -> PacketId {
    PacketId::new(value).expect("not 0")
}

impl World {
    fn alice_sends(&mut self, packet: &Packet<'_>) {
        let Some(conn) = self.alice.conn else { return };
        let mut bytes = vec![];
        packet.encode(Version::V5, &mut bytes);
        self.send(conn, &bytes);
    }

    pub(super) fn alice_connects(&mut self) {
        self.alice.conn = self.open(Who::Alice);
        self.alice.heard.clear();
        self.alice.is_in = false;
        let mut properties = vec![];
        Property::SessionExpiryInterval(u32::MAX).encode(&mut properties);
        self.alice_sends(&Packet::Connect(Connect {
            version: Version::V5,
            clean_start: false,
            keep_alive_secs: 0,
            properties: Properties::from_validated(&properties),
            client_id: "phone",
            will: None,
            username: Some("alice"),
            password: None,
        }));
    }

    fn alice_publishes(&mut self, number: u16) {
        let Some((topic, payload)) = self.alice.open.get(&number).cloned() else { return };
        self.alice_sends(&Packet::Publish(Publish {
            dup: false,
            qos: QoS::AtLeastOnce,
            retain: false,
            topic: &topic,
            packet_id: Some(pid(number)),
            properties: Properties::EMPTY,
            payload: payload.as_bytes(),
        }));
    }

    fn alice_says(&mut self, topic: String, payload: String) {
        self.alice.next_pid = self.alice.next_pid % 60_000 + 1;
        let number = self.alice.next_pid;
        self.alice.open.insert(number, (topic, payload));
        if self.alice.is_in {
            self.alice_publishes(number);
        }
    }

    pub(super) fn alice_acts(&mut self) {
        if self.calm {
            return;
        }
        let wait = self.rng.between(50, 600);
        self.after(wait, Event::Alice);
        self.alice.said += 1;
        let n = self.alice.said;
        match self.rng.below(11) {
            0..4 => {
                self.model.written.insert(n, None);
                let text = format!("p{n} \"quoted\" \u{e9}\n");
                self.alice_says("im/v1/to/lamp/msg".into(), json!({ "text": text, "id": format!("p{n}") }).to_string());
            }
            4..9 => {
                let once = self.rng.chance(60);
                let persist = self.rng.chance(50);
                let deadline_ms = if persist { self.rng.between(2_000, 30_000) } else { self.rng.between(40, 4_000) };
                self.model.commanded(n, once, deadline_ms, self.now_ms);
                let payload = json!({
                    "args": { "n": n }, "id": format!("k{n}"), "deadline_ms": deadline_ms, "persist": persist, "once": once,
                });
                let name = if self.rng.chance(95) { "act" } else { "sing" };
                self.alice_says(format!("im/v1/to/lamp/cmd/{name}"), payload.to_string());
                if self.rng.chance(15) {
                    self.alice_says(format!("im/v1/to/lamp/cmdcancel/k{n}"), String::new());
                }
            }
            9 => {
                self.model.published.insert(n, Published::Open);
                self.alice_says("in/lamp".into(), n.to_string());
            }
            _ => self.alice_says("im/v1/to/lamp/desired".into(), json!({ "level": n }).to_string()),
        }
    }

    /// Now that nothing fails any more, a command that the board has all the time for.
    pub(super) fn alice_asks_once_more(&mut self) {
        const DEADLINE_MS: u64 = 200_000;
        self.alice.said += 1;
        let n = self.alice.said;
        self.model.commanded(n, true, DEADLINE_MS, self.now_ms);
        self.model.last = Some(n);
        let payload = json!({
            "args": { "n": n }, "id": format!("k{n}"), "deadline_ms": DEADLINE_MS, "persist": true, "once": true,
        });
        self.alice_says("im/v1/to/lamp/cmd/act".into(), payload.to_string());
    }

    pub(super) fn alice_hears(&mut self, conn: usize, bytes: &[u8]) {
        if self.alice.conn != Some(conn) {
            return;
        }
        let mut heard = std::mem::take(&mut self.alice.heard);
        heard.extend_from_slice(bytes);
        let mut at = 0;
        while let Some((packet, size)) = decode(&heard[at..], Version::V5, u32::MAX).expect("the broker speaks MQTT") {
            at += size;
            if self.verbose {
                eprintln!("{:6} Alice <- {}", self.now_ms, show(&packet));
            }
            match packet {
                Packet::ConnAck(ack) => {
                    assert_eq!(ack.reason, ReasonCode::SUCCESS, "alice comes in");
                    let options = SubscriptionOptions::at_most(QoS::AtLeastOnce);
                    let filters = [("im/v1/#", options), ("t/#", options)];
                    self.alice_sends(&Packet::Subscribe(Subscribe {
                        packet_id: pid(65_000),
                        properties: Properties::EMPTY,
                        filters: SubscribeFilters::from_slice(&filters),
                    }));
                }
                Packet::SubAck(_) => {
                    self.alice.is_in = true;
                    let open: Vec<u16> = self.alice.open.keys().copied().collect();
                    for number in open {
                        self.alice_publishes(number);
                    }
                }
                Packet::PubAck(ack) => self.alice_is_answered(&ack),
                Packet::Publish(publish) => {
                    if let Some(id) = publish.packet_id {
                        let ack = Ack { packet_id: id, reason: ReasonCode::SUCCESS, properties: Properties::EMPTY };
                        self.alice_sends(&Packet::PubAck(ack));
                    }
                    let (topic, payload) = (publish.topic.to_owned(), publish.payload.to_vec());
                    self.alice_learns(&topic, &payload);
                }
                _ => {}
            }
        }
        heard.drain(..at);
        self.alice.heard = heard;
    }

    fn alice_is_answered(&mut self, ack: &Ack<'_>) {
        let Some((topic, payload)) = self.alice.open.remove(&ack.packet_id.value()) else { return };
        let value: Value = serde_json::from_str(&payload).unwrap_or_default();
        let number =
            |field: &str, prefix: &str| -> Option<u64> { value[field].as_str()?.strip_prefix(prefix)?.parse().ok() };
        if ack.reason.is_error() {
            if !topic.contains("/cmdcancel/") {
                self.model.blame("alice is not refused", format!("{topic} {payload}: {ack:?}"));
            }
        } else if topic == "in/lamp" {
            let n = value.as_u64().expect("a number");
            // Nobody listened: the board has not subscribed yet.
            let is_heard = ack.reason != ReasonCode::NO_MATCHING_SUBSCRIBERS;
            self.model.topic_accepted(n, is_heard);
        } else if let Some(n) = number("id", "p") {
            let seq = ack.properties.iter().find_map(|p| match p {
                Property::UserProperty("im-seq", seq) => seq.parse().ok(),
                _ => None,
            });
            self.model.written.insert(n, seq);
        } else if let Some(n) = number("id", "k") {
            self.model.told(n, self.now_ms);
        }
    }

    fn alice_learns(&mut self, topic: &str, payload: &[u8]) {
        let value: Value = serde_json::from_slice(payload).unwrap_or_default();
        if let Some(n) = topic.strip_prefix("t/") {
            return self.model.measured(n, &String::from_utf8_lossy(payload));
        }
        if topic == "im/v1/state/lamp" {
            self.model.state = value["reported"].clone();
            return;
        }
        if let Some(id) = topic.strip_prefix("im/v1/me/res/k") {
            let n = id.parse().expect("a number of hers");
            return self.model.outcome(n, value["state"].as_str().unwrap_or_default());
        }
        let seq = value["seq"].as_u64().unwrap_or(0);
        // What a broker that has lost power had sent before may come again.
        if topic == "im/v1/me/in/lamp/msg" && seq > self.alice.last_seq {
            self.alice.last_seq = seq;
            self.model.heard(seq, value["text"].as_str().unwrap_or_default());
        }
    }
}
