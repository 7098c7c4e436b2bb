//! One message through a connection that is cut after every possible byte: after a retry it is there once
//! (docs/protocol.md, section 1, client id).

use super::common::*;
use parlor_tests::cut::{Cut, Way};
use parlor_tests::im::{House, json};
use parlor_tests::link::{Ended, Link};
use std::net::SocketAddr;

/// How a client makes sure that its message is there once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Care {
    /// QoS 1, a client id, a new session each time.
    Id1,
    /// QoS 2, a client id, a new session each time.
    Id2,
    /// QoS 2, no client id, a session that is resumed.
    Session,
    /// QoS 1 and no client id.
    Nothing,
}

const CARES: [Care; 3] = [Care::Id1, Care::Id2, Care::Session];

/// What a client knows of its one message.
struct Sender<'a> {
    house: &'a House,
    version: Version,
    care: Care,
    client_id: String,
    text: String,
    /// PUBREC has come: only PUBREL is sent again [MQTT5-4.4.0-1].
    received: bool,
    done: bool,
}

impl Sender<'_> {
    /// One connection, from CONNECT to the last acknowledgement, or to its end.
    fn try_once(&mut self, to: SocketAddr) -> Result<(), Ended> {
        let mut connect = self.house.connect(self.version, "alice", &self.client_id);
        if self.care == Care::Session {
            connect = connect.persistent();
        }
        let (mut link, connack) = Link::open(to, &connect, PATIENCE)?;
        let Packet::ConnAck(ConnAck { present, code: 0, .. }) = connack else { panic!("{connack:?}") };
        if !present && self.received {
            // The session is gone: the message is published anew, which only an id makes safe.
            assert_ne!(self.care, Care::Session, "{}: a session with a PUBREC was lost", self.client_id);
            self.received = false;
        }
        let qos = if matches!(self.care, Care::Id1 | Care::Nothing) { 1 } else { 2 };
        if !self.received {
            let payload = match self.care {
                Care::Session | Care::Nothing => self.text.clone(),
                _ => format!(r#"{{"text":"{0}","id":"{0}"}}"#, self.text),
            };
            let mut publish = Publish::new("im/v1/to/bob/msg", payload).qos(qos, 1);
            publish.dup = present;
            link.send(&publish.bytes(self.version))?;
            self.acknowledged(&mut link, if qos == 1 { PubAck } else { PubRec })?;
        }
        if qos == 2 {
            self.received = true;
            link.send(&frame(PubRel as u8, 1_u16.to_be_bytes()))?;
            self.acknowledged(&mut link, PubComp)?;
        }
        self.done = true;
        Ok(())
    }

    fn acknowledged(&self, link: &mut Link, wanted: AckKind) -> Result<(), Ended> {
        match link.packet(PATIENCE)? {
            Some(Packet::Ack { kind, id: 1, code: 0, .. }) if kind == wanted => Ok(()),
            // It was released already, and nobody said so.
            Some(Packet::Ack { kind: PubComp, id: 1, code: 0x92, .. }) if wanted == PubComp => Ok(()),
            other => panic!("{}: {wanted:?} expected, got {other:?}", self.client_id),
        }
    }
}

/// Texts of everything alice has said to bob, in order of seq, which has no holes.
fn log(house: &House) -> Vec<String> {
    let mut bob = house.client(V5, "bob", "reader");
    bob.subscribe("im/v1/me/history/res", 1);
    let (mut texts, mut after) = (vec![], 0);
    loop {
        let ask = format!(r#"{{"with":"alice","after":{after},"max":500}}"#);
        assert_eq!(bob.say(1, "im/v1/me/history", ask), 0);
        let page = json(&bob.on("im/v1/me/history/res"));
        let messages = page["messages"].as_array().expect("a list");
        for message in messages {
            after += 1;
            assert_eq!(message["seq"], after, "no holes: {message}");
            texts.push(message["text"].as_str().expect("a text").to_owned());
        }
        if page["more"] == false {
            return texts;
        }
    }
}

/// Sends one message over a connection for every byte of an exchange, cut there, each with a retry. Gives what was said,
/// and how many exchanges were cut before the client had its answer.
fn say_through_cuts(house: &House, version: Version, care: Care) -> (Vec<String>, usize) {
    let to = house.broker.addr();
    let sender = |name: &str| Sender {
        house,
        version,
        care,
        client_id: name.to_owned(),
        text: name.to_owned(),
        received: false,
        done: false,
    };
    let whole = Cut::open(to, Way::Up, u64::MAX);
    let name = format!("{version:?}-{care:?}-whole");
    sender(&name).try_once(whole.addr()).expect("nothing is cut");
    let (up, down) = whole.ended();
    let (mut said, mut cut_short) = (vec![name], 0);
    for (way, bytes) in [(Way::Up, up), (Way::Down, down)] {
        for after in 0..=bytes {
            let name = format!("{version:?}-{care:?}-{way:?}-{after:03}");
            let mut sender = sender(&name);
            let cut = Cut::open(to, way, after);
            let _ = sender.try_once(cut.addr());
            cut.ended();
            if !sender.done {
                cut_short += 1;
                sender.try_once(to).unwrap_or_else(|_| panic!("{name}: the retry is not cut"));
            }
            said.push(name);
        }
    }
    (said, cut_short)
}

/// A broker in which alice may write to bob as fast as she can.
fn house() -> Option<House> {
    let limits = ["--set", "limits.im_account_rate_max=0", "--set", "limits.im_conversation_rate_max=0"];
    let house = House::with(&["alice", "bob"], &limits)?;
    house.befriend("alice", "bob");
    Some(house)
}

/// For every byte of the exchange, in both directions, in both versions: one message, always (G1, G2).
#[test]
fn a_connection_cut_after_any_byte_makes_one_message() {
    let Some(house) = house() else { return };
    let mut all = vec![];
    for version in BOTH {
        for care in CARES {
            let (mut said, cut_short) = say_through_cuts(&house, version, care);
            // Only a cut behind the last bytes, with the answer on its way, can go unnoticed.
            assert!(cut_short + 20 >= said.len(), "{cut_short} of {} were cut", said.len());
            all.append(&mut said);
        }
    }
    let heard = log(&house);
    let first = heard.iter().zip(&all).find(|(heard, said)| heard != said);
    assert_eq!((first, heard.len()), (None, all.len()), "heard, and said");
}

/// What the test above is worth: a client that takes no care, at QoS 1, makes two of some messages and loses none.
#[test]
fn without_an_id_a_cut_connection_makes_two() {
    let Some(house) = house() else { return };
    let (said, _) = say_through_cuts(&house, V5, Care::Nothing);
    let mut heard = log(&house);
    assert!(heard.len() > said.len(), "{heard:?}");
    heard.dedup();
    assert_eq!(heard, said);
}
