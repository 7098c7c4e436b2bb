//! The session and the shared state, one step at a time, over MQTT 5.

use super::*;
use crate::client::Content;
use crate::config::{Config, Keep, Listen, Login, Place, Policy};
use crate::error::SendError;
use crate::json::Value;
use crate::shared::{Answer, Arrays, Received, Reject, Taken};
use crate::wire::State;
use crate::wire::mqtt::Mqtt;
use parlor_protocol::mqtt::{self as packet, Packet, Properties, Publish, QoS, Version, encode_to_slice};
use std::boxed::Box;
use std::string::{String as Text, ToString};
use std::vec::Vec;

const POLICIES: &[Policy] = &[
    Policy { topic: "latest/#", keep: Keep::Latest, place: Place::Ram },
    Policy { topic: "ring", keep: Keep::DropOldest, place: Place::Ram },
];

struct Board {
    shared: Box<Shared>,
    session: Session<Mqtt>,
    now: u64,
    pid: u16,
}

impl Board {
    fn offline() -> Self {
        let mut shared: Box<Shared> = Box::new(Shared::new(Arrays::<300, 300>::new()));
        let config = Config {
            login: Login::Account { name: "lamp", secret: b"x" },
            listen: Listen::MESSAGES,
            policies: POLICIES,
            ..Config::new("lamp-1")
        };
        shared.start_with(config, || 0);
        shared.start(7 << 33, false);
        shared.started();
        Self { shared, session: Session::new(Mqtt::V5, 512, 1), now: 1_000, pid: 0 }
    }

    fn online() -> Self {
        let mut board = Self::offline();
        board.connect(false);
        board
    }

    fn connect(&mut self, session_present: bool) {
        self.session.handle_connected(&mut self.shared, self.now);
        self.said();
        self.hear(&[0x20, 3, u8::from(session_present), 0, 0]);
        self.said();
        if !session_present {
            // Its subscriptions.
            self.hear(&[0x90, 7, 0, 1, 0, 1, 1, 1, 1]);
        }
    }

    fn cut(&mut self) {
        self.session.handle_disconnected(&mut self.shared, self.now, LinkError::Closed);
    }

    fn hear(&mut self, bytes: &[u8]) -> usize {
        self.session.handle_bytes(&mut self.shared, self.now, bytes).unwrap()
    }

    /// The bytes of a PUBLISH at QoS 1.
    fn publish(&mut self, topic: &str, payload: &str) -> Vec<u8> {
        self.pid += 1;
        let publish = Packet::Publish(Publish {
            dup: false,
            qos: QoS::AtLeastOnce,
            retain: false,
            topic,
            packet_id: packet::PacketId::new(self.pid),
            properties: Properties::EMPTY,
            payload: payload.as_bytes(),
        });
        let mut out = [0; 512];
        let len = encode_to_slice(&publish, Version::V5, &mut out).unwrap();
        out[..len].to_vec()
    }

    /// What the device says now: topics and payloads, and acknowledgements.
    fn said(&mut self) -> Vec<Text> {
        let mut all = Vec::new();
        let mut out = [0; 512];
        loop {
            let len = self.session.poll_transmit(&mut self.shared, self.now, &mut out);
            if len == 0 {
                return all;
            }
            let mut rest = &out[..len];
            while let Some((packet, len)) = packet::decode(rest, Version::V5, u32::MAX).unwrap() {
                rest = &rest[len..];
                all.push(match packet {
                    Packet::Publish(p) => std::format!("{} {}", p.topic, std::str::from_utf8(p.payload).unwrap()),
                    Packet::PubAck(p) => std::format!("ack {}", p.packet_id.value()),
                    other => std::format!("{}", other.kind()),
                });
            }
        }
    }

    fn message(&mut self) -> Option<Text> {
        let mut room = [0; 200];
        let len = self.shared.copy_message(&mut room)?;
        Some(Received::read(&room, len).text.to_string())
    }

    fn command(&mut self) -> Option<Taken> {
        self.shared.take_command(self.now, false, &mut |name, args| match name {
            "set" => crate::json::argument::<bool>(args, "on").map(drop),
            _ => Err(Reject::Unknown),
        })
    }
}

fn said(seq: u64) -> Text {
    std::format!("{{\"seq\":{seq},\"pos\":{seq},\"from\":\"alice\",\"text\":\"m{seq}\"}}")
}

#[test]
fn the_latest_value_is_kept_and_the_older_is_lost() {
    let mut board = Board::offline();
    let first = board.shared.push_publish("latest/a", b"1").unwrap();
    board.shared.watch(first);
    let other = board.shared.push_publish("latest/b", b"2").unwrap();
    board.shared.watch(other);
    let second = board.shared.push_publish("latest/a", b"3").unwrap();
    board.shared.watch(second);
    assert_eq!(board.shared.outcome(first), Some(Outcome::Lost(Why::Replaced)));
    assert_eq!((board.shared.outcome(other), board.shared.outcome(second)), (None, None));
    board.connect(false);
    assert_eq!((board.shared.in_flight(), board.shared.unsent()), (2, 2));
}

#[test]
fn a_full_outbox_refuses_or_drops_the_oldest() {
    let mut board = Board::offline();
    let mut kept = Vec::new();
    loop {
        match board.shared.push_publish("ring", &[b'x'; 40]) {
            Ok(seq) => {
                board.shared.watch(seq);
                kept.push(seq);
            }
            Err(error) => panic!("{error:?}"),
        }
        if board.shared.outcome(kept[0]).is_some() {
            break;
        }
    }
    assert_eq!(board.shared.outcome(kept[0]), Some(Outcome::Lost(Why::Dropped)));
    assert_eq!(board.shared.outcome(kept[1]), None);
    let free = |shared: &mut Shared| shared.push_publish("all", &[b'x'; 200]);
    assert_eq!(free(&mut board.shared), Err(SendError::Full));
    let mut empty = Board::offline();
    assert_eq!(empty.shared.push_publish("all", &[b'x'; 400]), Err(SendError::TooLarge));
}

#[test]
fn an_outcome_stays_until_nobody_holds_the_receipt() {
    let mut board = Board::online();
    let seq = board.shared.push_message("bob", &Content::text("hi")).unwrap();
    board.shared.watch(seq);
    let said = board.said();
    assert_eq!(said.len(), 1);
    assert!(said[0].starts_with("im/v1/to/bob/msg {\"text\":\"hi\",\"id\":\""), "{said:?}");
    board.hear(&[0x40, 2, 0, 2]);
    assert_eq!(board.shared.outcome(seq), Some(Outcome::Acked { seq: 0 }));
    assert_eq!(board.shared.unsent(), 0);
    board.shared.unwatch(seq);
    assert_eq!(board.shared.outbox.used(), 0);
}

#[test]
fn what_is_too_fast_is_sent_again_later() {
    let mut board = Board::online();
    let seq = board.shared.push_message("bob", &Content::text("hi")).unwrap();
    board.shared.watch(seq);
    board.said();
    board.hear(&[0x40, 4, 0, 2, 0x97, 0]);
    assert_eq!(board.shared.outcome(seq), None);
    assert!(board.said().is_empty(), "it waits");
    board.now += HOLD_MS;
    board.session.handle_timeout(&mut board.shared, board.now).unwrap();
    assert_eq!(board.said().len(), 1);
}

#[test]
fn acknowledgements_come_when_something_is_taken_and_in_order() {
    let mut board = Board::online();
    let command = board.publish("im/v1/me/cmd/c1/set", "{\"args\":{\"on\":true},\"from\":\"alice\"}");
    let message = board.publish("im/v1/me/in/alice/msg", &said(1));
    let bytes = [command, message].concat();
    assert_eq!(board.hear(&bytes), bytes.len());
    assert!(board.said().is_empty());
    assert_eq!(board.message().as_deref(), Some("m1"));
    assert!(board.said().is_empty(), "the command came before it");
    assert_eq!(board.command().unwrap().id, "c1");
    assert_eq!(board.said(), ["ack 1", "ack 2"]);
    // Again, after a cut: it is known, and acknowledged once more.
    board.cut();
    board.connect(true);
    let again = board.publish("im/v1/me/in/alice/msg", &said(1));
    board.hear(&again);
    assert_eq!((board.message(), board.said()), (None, std::vec!["ack 3".to_string()]));
}

#[test]
fn a_full_inbox_stops_reading_until_something_is_taken() {
    let mut board = Board::online();
    let bytes: Vec<u8> = (1..=6).flat_map(|seq| board.publish("im/v1/me/in/alice/msg", &said(seq))).collect();
    let used = board.hear(&bytes);
    assert!(used < bytes.len() && board.session.is_stalled());
    // Nobody is given up for what the application does not do.
    board.now += 3_600_000;
    assert_eq!(board.session.handle_timeout(&mut board.shared, board.now), Ok(()));
    let mut rest = &bytes[used..];
    let mut heard = Vec::new();
    while heard.len() < 6 {
        heard.push(board.message().unwrap());
        rest = &rest[board.hear(rest)..];
    }
    assert_eq!(heard, ["m1", "m2", "m3", "m4", "m5", "m6"]);
    assert!(rest.is_empty() && !board.session.is_stalled());
}

/// What the application does not take may hide the answer to a ping: then nothing is waited for, and nothing spins.
#[test]
fn a_board_that_reads_no_more_waits_for_no_answer() {
    let mut board = Board::online();
    let bytes: Vec<u8> = (1..=6).flat_map(|seq| board.publish("im/v1/me/in/alice/msg", &said(seq))).collect();
    let used = board.hear(&bytes);
    assert!(board.session.is_stalled());
    board.now = board.session.poll_timeout(&board.shared).expect("it will ping");
    assert_eq!(board.session.handle_timeout(&mut board.shared, board.now), Ok(()));
    assert_eq!(board.said(), ["12"], "PINGREQ");
    assert_eq!(board.session.poll_timeout(&board.shared), None);
    // Once it reads again, what has waited counts as heard, and a silent broker is found as ever.
    board.now += 60_000;
    while board.message().is_some() {}
    board.hear(&bytes[used..]);
    while board.message().is_some() {}
    board.said();
    assert!(!board.session.is_stalled());
    let next = board.session.poll_timeout(&board.shared).expect("it will ping again");
    assert!(next > board.now);
    board.now = next;
    board.session.handle_timeout(&mut board.shared, board.now).unwrap();
    assert_eq!(board.said(), ["12"]);
    board.now = board.session.poll_timeout(&board.shared).expect("an answer is waited for");
    assert_eq!(board.session.handle_timeout(&mut board.shared, board.now), Err(LinkError::Timeout));
}

#[test]
fn what_can_never_fit_is_too_large_also_in_a_full_outbox() {
    let mut board = Board::offline();
    board.shared.push_publish("a", b"1").unwrap();
    assert_eq!(board.shared.push_publish("all", &[b'x'; 400]), Err(SendError::TooLarge));
    assert_eq!(
        board.shared.push_publish(&"t".repeat(256), b""),
        Err(SendError::TooLarge),
        "a topic's length is one byte"
    );
    assert_eq!(board.shared.unsent(), 1);
}

/// The account is written once more when it has changed while it was being written.
#[test]
fn what_changes_while_it_is_written_is_written_again() {
    let mut board = Board::offline();
    board.shared.start(7 << 33, true);
    board.shared.unpair();
    let job = board.shared.poll_flash().expect("it is to be written");
    board.shared.unpair();
    board.shared.flash_done(job, true);
    assert!(!board.shared.paired_is_kept());
    assert_eq!(board.shared.poll_flash(), Some(job));
    board.shared.flash_done(job, true);
    assert!(board.shared.paired_is_kept() && board.shared.poll_flash().is_none());
}

#[test]
fn a_command_is_not_begun_after_its_deadline() {
    let mut board = Board::online();
    let late = board.publish("im/v1/me/cmd/c1/set", "{\"args\":{\"on\":true},\"left_ms\":500}");
    let other = board.publish("im/v1/me/cmd/c2/set", "{\"args\":{\"on\":true},\"left_ms\":5000}");
    board.hear(&[late, other].concat());
    board.now += 501;
    let taken = board.command().unwrap();
    assert_eq!(taken.id, "c2");
    let left = taken.deadline.unwrap() - board.now;
    assert!((4_490..=4_499).contains(&left), "{left}: no more than what was granted is left");
}

#[test]
fn a_command_that_comes_again_is_answered_and_not_begun_again() {
    let mut board = Board::online();
    let set = "{\"args\":{\"on\":true},\"from\":\"alice\"}";
    let command = board.publish("im/v1/me/cmd/c1/set", set);
    board.hear(&command);
    let taken = board.command().unwrap();
    let result = Value::parse("{\"on\":true}").unwrap();
    board.shared.answer(&taken.id, Answer { state: State::Done, text: "", result: Some(&result) }).unwrap();
    let done = "im/v1/me/cmdres/c1 {\"state\":\"done\",\"result\":{\"on\":true}}";
    assert_eq!(board.said(), ["ack 1", done]);
    board.hear(&[0x40, 2, 0, 2]);
    let again = board.publish("im/v1/me/cmd/c1/set", set);
    board.hear(&again);
    assert!(board.command().is_none());
    assert_eq!(board.said(), ["ack 2", done]);
    let unknown = board.publish("im/v1/me/cmd/c3/sing", "{}");
    let once = board.publish("im/v1/me/cmd/c4/set", "{\"args\":{\"on\":true},\"once\":true}");
    board.hear(&[unknown, once].concat());
    assert!(board.command().is_none());
    let said = board.said().join(", ");
    assert!(said.contains("c3 {\"state\":\"rejected\",\"text\":\"this device has no such command\"}"), "{said}");
    assert!(said.contains("c4 {\"state\":\"rejected\",\"text\":\"this device cannot record a command\"}"), "{said}");
}

#[test]
fn a_command_that_is_taken_back_is_not_begun() {
    let mut board = Board::online();
    let command = board.publish("im/v1/me/cmd/c1/set", "{\"args\":{\"on\":true}}");
    let cancel = board.publish("im/v1/me/cmd/c1/$cancel", "{}");
    board.hear(&[command, cancel].concat());
    assert!(board.command().is_none());
    assert_eq!(board.said(), ["ack 1", "ack 2"]);
}

#[test]
fn it_says_that_it_sleeps_when_everything_was_said() {
    let mut board = Board::online();
    board.shared.push_message("bob", &Content::text("good night")).unwrap();
    board.shared.go_to_sleep(60);
    board.session.handle_timeout(&mut board.shared, board.now).unwrap();
    assert_eq!(board.said().len(), 1, "the message first");
    board.hear(&[0x40, 2, 0, 2]);
    assert_eq!(board.said(), ["im/v1/me/status {\"state\":\"asleep\",\"for_s\":60}"]);
    board.hear(&[0x40, 2, 0, 3]);
    assert_eq!(board.said(), ["14"], "DISCONNECT");
    assert_eq!(board.session.is_over(), Some(LinkError::Closed));
    board.cut();
    assert_eq!((board.shared.status(), board.shared.sleep), (Status::Asleep, Sleep::Asleep { told: true }));
}

#[test]
fn sleep_without_a_broker_is_not_told() {
    let mut board = Board::offline();
    board.shared.go_to_sleep(60);
    board.session.handle_timeout(&mut board.shared, board.now).unwrap();
    let until = board.session.poll_timeout(&board.shared).unwrap();
    assert_eq!(until, board.now + DRAIN_MS);
    board.now = until;
    board.session.handle_timeout(&mut board.shared, board.now).unwrap();
    assert_eq!(board.shared.sleep, Sleep::Asleep { told: false });
}
