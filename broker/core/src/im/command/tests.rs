//! Commands from the request to the outcome, through a store that keeps the rows.

use super::super::model::AccountNo;
use super::super::terminal::Greeting;
use super::super::{Code, ImSettings};
use super::house::*;
use super::line::KEEP_MS;
use super::record::{Command, State};
use crate::limits::Limits;
use serde_json::{Value, json};

#[test]
fn a_command_goes_out_when_it_is_on_disk_and_each_change_is_told_once() {
    let mut house = House::new();
    let (lamp, phone) = (house.lamp(), house.connect("alice", "phone", &["im/v1/me/#"]));
    let done = house.request(("alice", Some(phone)), "to/lamp/cmd/set", r#"{"args":{"on":true},"id":"c1"}"#, None);
    assert!(done.unwrap().durable);
    house.im.tick(house.now);
    assert!(house.take(lamp).is_empty(), "the row that says so is not on disk");
    house.settle();
    let order = house.take(lamp).remove(0);
    assert_eq!(order.topic, "me/cmd/c1/set");
    assert_eq!(order.payload["args"], json!({"on": true}));
    assert_eq!(order.payload["from"], "alice");
    assert!((9_990..=10_000).contains(&order.payload["left_ms"].as_u64().unwrap()), "{}", order.payload);
    assert_eq!(order.payload.get("once"), None);
    assert_eq!(order.response_topic.as_deref(), Some("im/v1/me/cmdres/c1"));
    house.ack(lamp, &order);
    house.say("lamp", "me/cmdres/c1", r#"{"state":"running"}"#).unwrap();
    house.say("lamp", "me/cmdres/c1", r#"{"state":"done","result":{"was":false},"text":"ok"}"#).unwrap();
    let told = house.take(phone);
    let told: Vec<&Value> = told.iter().filter(|got| got.topic == "me/res/c1").map(|got| &got.payload).collect();
    let states: Vec<&Value> = told.iter().map(|payload| &payload["state"]).collect();
    assert_eq!(states, ["queued", "sent", "delivered", "running", "done"]);
    assert!(told.windows(2).all(|two| two[0]["pos"].as_u64() < two[1]["pos"].as_u64()));
    assert!(told.windows(2).all(|two| two[0]["ts"].as_u64() <= two[1]["ts"].as_u64()));
    assert!(told[..4].iter().all(|payload| payload.get("result").is_none() && payload.get("text").is_none()));
    assert_eq!((&told[4]["result"], &told[4]["text"]), (&json!({"was": false}), &json!("ok")));
    assert_eq!((&told[0]["device"], &told[0]["name"], &told[0]["id"]), (&json!("lamp"), &json!("set"), &json!("c1")));
    assert_eq!(house.im.counters.outcomes.count("done"), 1);
}

#[test]
fn the_device_says_how_it_ends_and_the_first_word_is_the_last() {
    for (word, state) in [
        ("done", State::Done),
        ("failed", State::Failed),
        ("rejected", State::Rejected),
        ("unknown_outcome", State::UnknownOutcome),
    ] {
        let mut house = House::new();
        let lamp = house.lamp();
        house.say("alice", "to/lamp/cmd/set", r#"{"args":1,"id":"c1"}"#).unwrap();
        house.drain(lamp);
        let report = format!(r#"{{"state":"{word}","result":1}}"#);
        house.say("lamp", "me/cmdres/c1", &report).unwrap();
        assert_eq!(house.state("c1"), state);
        // The device's client sends it again, because it heard no PUBACK.
        house.say("lamp", "me/cmdres/c1", &report).unwrap();
        for late in ["running", "done", "failed"] {
            refused(house.say("lamp", "me/cmdres/c1", late), Code::TooLate);
        }
        refused(house.say("lamp", "me/cmdres/c1", &format!(r#"{{"state":"{word}","result":2}}"#)), Code::TooLate);
        assert_eq!(house.told("c1"), ["queued", "sent", "delivered", word]);
    }
}

#[test]
fn only_the_device_may_say_how_its_command_goes() {
    let mut house = House::new();
    let lamp = house.lamp();
    house.say("alice", "to/lamp/cmd/set", r#"{"args":1,"id":"c1"}"#).unwrap();
    house.say("alice", "to/lamp/cmd/set", r#"{"args":2,"id":"c2"}"#).unwrap();
    house.drain(lamp);
    refused(house.say("bob", "me/cmdres/c1", "done"), Code::NotFound);
    refused(house.say("lamp", "me/cmdres/c9", "done"), Code::NotFound);
    // That one waits behind the first: the device cannot know of it.
    refused(house.say("lamp", "me/cmdres/c2", "done"), Code::NotFound);
    refused(house.say("lamp", "me/cmdres/c1", "expired"), Code::BadRequest);
    refused(house.say("lamp", "me/cmdres/c1", r#"{"result":1}"#), Code::BadRequest);
    let long = format!(r#"{{"state":"running","result":"{}"}}"#, "x".repeat(4_096));
    refused(house.say("lamp", "me/cmdres/c1", &long), Code::TooLarge);
    refused(house.say("lamp", "me/cmdres/c1", r#"{"state":"done","colour":1}"#), Code::BadRequest);
    let long = format!(r#"{{"state":"done","result":"{}"}}"#, "x".repeat(4_096));
    refused(house.say("lamp", "me/cmdres/c1", &long), Code::TooLarge);
    assert_eq!(house.state("c1"), State::Delivered);
}

#[test]
fn commands_go_out_one_at_a_time_and_in_order() {
    let mut house = House::new();
    let lamp = house.lamp();
    for (who, id) in [("alice", "c1"), ("bob", "c2"), ("alice", "c3")] {
        house.say(who, "to/lamp/cmd/set", &format!(r#"{{"args":1,"id":"{id}"}}"#)).unwrap();
    }
    assert_eq!(house.drain(lamp), ["me/cmd/c1/set 1"]);
    house.say("lamp", "me/cmdres/c1", "running").unwrap();
    assert_eq!(house.drain(lamp), [""; 0]);
    house.say("lamp", "me/cmdres/c1", "failed").unwrap();
    assert_eq!(house.drain(lamp), ["me/cmd/c2/set 1"]);
    // The device is silent: at its deadline the next one has its turn, if it is not too late for that one too.
    house.say("alice", "to/lamp/cmd/set", r#"{"args":1,"id":"c4","deadline_ms":60000}"#).unwrap();
    house.pass(10_000);
    assert_eq!((house.state("c2"), house.state("c3")), (State::Timeout, State::Expired));
    assert_eq!(house.drain(lamp), ["me/cmd/c4/set 1"]);
}

#[test]
fn a_wider_window_lets_more_go_out() {
    let mut limits = Limits::default();
    limits.set("im_command_window", 2).unwrap();
    let mut house = House::with(ImSettings::default(), limits);
    let lamp = house.lamp();
    for id in ["c1", "c2", "c3"] {
        house.say("alice", "to/lamp/cmd/set", &format!(r#"{{"args":1,"id":"{id}"}}"#)).unwrap();
    }
    assert_eq!(house.drain(lamp), ["me/cmd/c1/set 1", "me/cmd/c2/set 1"]);
    house.say("lamp", "me/cmdres/c2", "done").unwrap();
    assert_eq!(house.drain(lamp), ["me/cmd/c3/set 1"]);
}

#[test]
fn a_deadline_before_delivery_is_another_outcome_than_one_after() {
    let mut house = House::new();
    house.say("alice", "to/lamp/cmd/set", r#"{"args":1,"id":"away","deadline_ms":500}"#).unwrap();
    house.pass(490);
    assert_eq!(house.state("away"), State::Queued);
    house.pass(20);
    assert_eq!(house.state("away"), State::Expired);
    assert_eq!(house.told("away"), ["queued", "expired"]);
    let lamp = house.lamp();
    assert!(house.take(lamp).is_empty());

    house.say("alice", "to/lamp/cmd/set", r#"{"args":1,"id":"silent","deadline_ms":500}"#).unwrap();
    let order = house.take(lamp).remove(0);
    house.pass(510);
    assert_eq!(house.told("silent"), ["queued", "sent", "expired"]);
    house.ack(lamp, &order);
    assert_eq!(house.state("silent"), State::Expired);
    refused(house.say("lamp", "me/cmdres/silent", "done"), Code::TooLate);

    house.say("alice", "to/lamp/cmd/set", r#"{"args":1,"id":"slow","deadline_ms":500}"#).unwrap();
    house.drain(lamp);
    house.say("lamp", "me/cmdres/slow", "running").unwrap();
    house.pass(510);
    assert_eq!(house.told("slow"), ["queued", "sent", "delivered", "running", "timeout"]);
    refused(house.say("lamp", "me/cmdres/slow", "done"), Code::TooLate);
    assert_eq!(house.told("slow").len(), 5);
}

#[test]
fn a_short_deadline_behind_a_long_one_comes_first() {
    let mut house = House::new();
    house.say("alice", "to/lamp/cmd/set", r#"{"args":1,"id":"long","persist":true}"#).unwrap();
    house.say("alice", "to/lamp/cmd/set", r#"{"args":1,"id":"short","deadline_ms":500}"#).unwrap();
    house.pass(510);
    assert_eq!((house.state("long"), house.state("short")), (State::Queued, State::Expired));
}

#[test]
fn what_expires_before_it_is_written_is_not_written() {
    let mut house = House::new();
    let lamp = house.lamp();
    house.say("alice", "to/lamp/cmd/set", r#"{"args":1,"id":"c1","deadline_ms":500}"#).unwrap();
    house.pass(600);
    assert_eq!(house.told("c1"), ["queued", "sent", "expired"]);
    assert_eq!(house.drain(lamp), [""; 0]);
    let at = house.im.place_of(lamp).unwrap();
    assert_eq!(house.im.online[at as usize].notes_bytes, 0);
}

#[test]
fn a_device_that_goes_before_it_acknowledged_is_sent_it_again() {
    let mut house = House::new();
    let lamp = house.lamp();
    house.say("alice", "to/lamp/cmd/set", r#"{"args":1,"id":"c1"}"#).unwrap();
    assert_eq!(house.take(lamp).len(), 1);
    house.leave(lamp);
    assert_eq!(house.state("c1"), State::Queued);
    house.pass(3_000);
    let lamp = house.lamp();
    let order = house.take(lamp).remove(0);
    assert_eq!(order.topic, "me/cmd/c1/set");
    assert!(order.payload["left_ms"].as_u64().unwrap() < 7_000, "{}", order.payload);
    house.ack(lamp, &order);
    house.leave(lamp);
    let lamp = house.lamp();
    assert_eq!(house.drain(lamp), [""; 0], "what was acknowledged is not sent again");
    assert_eq!(house.told("c1"), ["queued", "sent", "queued", "sent", "delivered"]);
    house.say("lamp", "me/cmdres/c1", "done").unwrap();
    assert_eq!(house.state("c1"), State::Done);
}

#[test]
fn a_result_may_come_before_the_acknowledgement_and_from_a_later_connection() {
    let mut house = House::new();
    let lamp = house.lamp();
    house.say("alice", "to/lamp/cmd/set", r#"{"args":1,"id":"c1"}"#).unwrap();
    let order = house.take(lamp).remove(0);
    house.say("lamp", "me/cmdres/c1", "done").unwrap();
    house.ack(lamp, &order);
    assert_eq!(house.told("c1"), ["queued", "sent", "done"]);

    house.say("alice", "to/lamp/cmd/set", r#"{"args":2,"id":"c2"}"#).unwrap();
    let order = house.take(lamp).remove(0);
    house.say("lamp", "me/cmdres/c2", "running").unwrap();
    house.ack(lamp, &order);
    assert_eq!(house.told("c2"), ["queued", "sent", "running"]);
    house.say("lamp", "me/cmdres/c2", "done").unwrap();

    house.say("alice", "to/lamp/cmd/set", r#"{"args":3,"id":"c3"}"#).unwrap();
    assert_eq!(house.take(lamp).len(), 1);
    house.leave(lamp);
    // It did what it was told, and says so before it subscribes again.
    house.say("lamp", "me/cmdres/c3", "done").unwrap();
    let lamp = house.lamp();
    assert_eq!(house.drain(lamp), [""; 0]);
    assert_eq!(house.told("c3"), ["queued", "sent", "queued", "done"]);
}

#[test]
fn at_qos_0_nothing_is_called_delivered_and_what_was_lost_is_sent_again() {
    let mut house = House::new();
    let lamp = house.connect_with("lamp", "board", &["im/v1/me/cmd/#"], 0);
    house.say("alice", "to/lamp/cmd/set", r#"{"args":1,"id":"c1"}"#).unwrap();
    assert_eq!(house.drain(lamp), ["me/cmd/c1/set 1"]);
    assert_eq!(house.state("c1"), State::Sent);
    let other = house.connect_with("lamp", "second", &["im/v1/me/cmd/#"], 0);
    assert_eq!(house.drain(other), [""; 0], "the first one has it");
    house.leave(lamp);
    house.leave(other);
    let lamp = house.connect_with("lamp", "board", &["im/v1/me/cmd/#"], 0);
    assert_eq!(house.drain(lamp), ["me/cmd/c1/set 1"]);
    house.say("lamp", "me/cmdres/c1", "done").unwrap();
    assert_eq!(house.told("c1"), ["queued", "sent", "queued", "sent", "done"]);
}

#[test]
fn a_command_that_is_too_large_for_the_client_does_not_hold_up_the_others() {
    let mut house = House::new();
    let lamp = house.lamp();
    house.say("alice", "to/lamp/cmd/set", r#"{"args":1,"id":"c1","persist":true}"#).unwrap();
    house.say("alice", "to/lamp/cmd/set", r#"{"args":2,"id":"c2"}"#).unwrap();
    assert_eq!(house.take(lamp).len(), 1);
    let device = house.im.account_no("lamp").unwrap();
    house.im.command_too_large(house.now, device, 1);
    house.settle();
    assert_eq!(house.told("c1"), ["queued", "sent", "failed"]);
    assert_eq!(house.drain(lamp), ["me/cmd/c2/set 2"]);
    // What was delivered was not too large.
    house.im.command_too_large(house.now, device, 2);
    assert_eq!(house.state("c2"), State::Delivered);
}

#[test]
fn timers_do_not_pile_up() {
    let mut house = House::new();
    let lamp = house.lamp();
    for no in 0..100 {
        house.say("alice", "to/lamp/cmd/set", &format!(r#"{{"args":1,"id":"c{no}"}}"#)).unwrap();
        house.drain(lamp);
        house.say("lamp", &format!("me/cmdres/c{no}"), "done").unwrap();
        house.pass(11_000);
    }
    assert!(house.im.timers.len() < 10, "{}", house.im.timers.len());
}

#[test]
fn the_latest_session_that_wants_commands_gets_them() {
    let mut house = House::new();
    let old = house.lamp();
    let new = house.connect("lamp", "second", &["im/v1/me/cmd/#"]);
    let other = house.connect("lamp", "third", &["im/v1/me/delta", "im/v1/me/cmd/+/reset"]);
    house.say("alice", "to/lamp/cmd/set", r#"{"args":1,"id":"c1"}"#).unwrap();
    assert_eq!((house.take(old).len(), house.take(new).len(), house.take(other).len()), (0, 1, 0));
    house.leave(new);
    assert_eq!(house.drain(old), ["me/cmd/c1/set 1"]);
}

#[test]
fn a_restart_loses_nothing_and_begins_nothing_twice() {
    let mut house = House::new();
    let lamp = house.lamp();
    let long = r#""persist":true"#;
    house.say("alice", "to/lamp/cmd/feed", &format!(r#"{{"args":1,"id":"begun","once":true,{long}}}"#)).unwrap();
    house.say("alice", "to/lamp/cmd/feed", &format!(r#"{{"args":2,"id":"next","once":true,{long}}}"#)).unwrap();
    let order = house.take(lamp).remove(0);
    assert_eq!(order.payload["once"], true);
    house.ack(lamp, &order);
    house.say("lamp", "me/cmdres/begun", "running").unwrap();
    house.restart(60_000);
    assert_eq!((house.state("begun"), house.state("next")), (State::Running, State::Queued));
    let lamp = house.lamp();
    assert_eq!(house.drain(lamp), [""; 0], "it waits for the device's word");
    house.say("lamp", "me/cmdres/begun", "unknown_outcome").unwrap();
    assert_eq!(house.state("begun"), State::UnknownOutcome);
    // The second was sent and not acknowledged when the broker went down.
    assert_eq!(house.take(lamp).remove(0).line(), "me/cmd/next/feed 2");
    assert_eq!(house.state("next"), State::Sent);
    house.restart(60_000);
    assert_eq!(house.state("next"), State::Queued);
    let lamp = house.lamp();
    assert_eq!(house.drain(lamp), ["me/cmd/next/feed 2"]);
    house.say("lamp", "me/cmdres/next", r#"{"state":"done","result":[1]}"#).unwrap();
    house.restart(0);
    assert_eq!((house.state("begun"), house.state("next")), (State::UnknownOutcome, State::Done));
    house.say("lamp", "me/cmdres/next", r#"{"state":"done","result":[1]}"#).unwrap();
    refused(house.say("lamp", "me/cmdres/next", "failed"), Code::TooLate);
}

#[test]
fn deadlines_survive_a_restart() {
    let mut house = House::new();
    let lamp = house.lamp();
    house.say("alice", "to/lamp/cmd/set", r#"{"args":1,"id":"begun","deadline_ms":20000}"#).unwrap();
    house.say("alice", "to/lamp/cmd/set", r#"{"args":1,"id":"waits","deadline_ms":20000}"#).unwrap();
    house.say("alice", "to/lamp/cmd/set", r#"{"args":1,"id":"later","persist":true}"#).unwrap();
    house.drain(lamp);
    house.restart(15_000);
    assert_eq!((house.state("begun"), house.state("waits")), (State::Delivered, State::Queued));
    house.pass(5_000);
    assert_eq!((house.state("begun"), house.state("waits")), (State::Timeout, State::Expired));
    house.restart(6 * 24 * 3_600_000);
    assert_eq!(house.state("later"), State::Queued);
    house.restart(24 * 3_600_000);
    assert_eq!(house.state("later"), State::Expired);
}

#[test]
fn the_same_id_makes_no_second_command() {
    let mut house = House::new();
    let (lamp, phone) = (house.lamp(), house.connect("alice", "phone", &["im/v1/me/#"]));
    let set = r#"{"args":{"on":true},"id":"c1"}"#;
    let first = house.request(("alice", Some(phone)), "to/lamp/cmd/set", set, None).unwrap();
    assert!(!first.dup);
    house.settle();
    house.drain(lamp);
    house.drain(phone);
    let again = house.request(("alice", Some(phone)), "to/lamp/cmd/set", set, None).unwrap();
    assert_eq!((again.dup, again.reply.unwrap()["state"].clone()), (true, json!("delivered")));
    house.settle();
    assert_eq!(house.drain(lamp), [""; 0]);
    let told: Vec<String> = house.drain(phone).into_iter().filter(|line| line.starts_with("me/res/")).collect();
    assert_eq!(told, ["me/res/c1 \"delivered\""], "as it is now, and no entry");
    for other in [r#"{"args":{"on":false},"id":"c1"}"#, r#"{"args":{"on":true},"id":"c1","once":true}"#] {
        let got = house.request(("alice", Some(phone)), "to/lamp/cmd/set", other, None);
        refused(got, Code::IdReused);
    }
    refused(house.request(("alice", Some(phone)), "to/lamp/cmd/get", set, None), Code::IdReused);
    house.say("lamp", "me/cmdres/c1", r#"{"state":"done","result":7}"#).unwrap();
    house.restart(3_600_000);
    let phone = house.connect("alice", "phone", &["im/v1/me/#"]);
    let again = house.request(("alice", Some(phone)), "to/lamp/cmd/set", set, None).unwrap();
    let reply = again.reply.unwrap();
    assert_eq!((again.dup, &reply["state"], &reply["result"]), (true, &json!("done"), &json!(7)));
    assert_eq!(house.im.counters.commands, 0);
}

#[test]
fn two_terminals_may_choose_the_same_id_and_the_device_sees_two() {
    let mut house = House::new();
    let lamp = house.lamp();
    for who in ["alice", "bob"] {
        house.say(who, "to/lamp/cmd/set", &format!(r#"{{"args":"{who}","id":"c1"}}"#)).unwrap();
    }
    assert_eq!(house.drain(lamp), ["me/cmd/c1/set \"alice\""]);
    house.say("lamp", "me/cmdres/c1", "done").unwrap();
    let order = house.take(lamp).remove(0);
    assert_eq!(order.payload["args"], "bob");
    let id = order.topic.split('/').nth(2).unwrap().to_owned();
    assert_ne!(id, "c1");
    house.say("lamp", &format!("me/cmdres/{id}"), "failed").unwrap();
    let bob = house.im.account_no("bob").unwrap();
    let device = house.im.account_no("lamp").unwrap();
    let (topic, _) = house.im.render_command(bob, device, 2, State::Failed as u32, 9).unwrap();
    assert_eq!(&*topic, "im/v1/me/res/c1", "bob calls it what he called it");
    assert!(house.im.render_command(bob, device, 1, State::Done as u32, 9).is_none(), "alice's is hers");
    house.restart(0);
    house.say("lamp", &format!("me/cmdres/{id}"), "failed").unwrap();
}

#[test]
fn without_an_id_the_broker_chooses_one_and_says_so() {
    let mut house = House::new();
    let lamp = house.lamp();
    let reply = house.say("alice", "to/lamp/cmd/set", "").unwrap().reply.unwrap();
    let id = reply["id"].as_str().unwrap();
    assert_eq!((id.len(), &reply["state"]), (16, &json!("queued")));
    assert_eq!(house.drain(lamp), [format!("me/cmd/{id}/set {{}}")]);
    let other = house.say("alice", "to/lamp/cmd/set", "").unwrap();
    assert!(!other.dup);
    assert_ne!(other.reply.unwrap()["id"], reply["id"]);
}

#[test]
fn who_asked_may_take_it_back() {
    let mut house = House::new();
    house.say("alice", "to/lamp/cmd/set", r#"{"args":1,"id":"early"}"#).unwrap();
    refused(house.say("bob", "to/lamp/cmdcancel/early", ""), Code::NotFound);
    house.say("alice", "to/lamp/cmdcancel/early", "").unwrap();
    house.say("alice", "to/lamp/cmdcancel/early", "").unwrap();
    assert_eq!(house.told("early"), ["queued", "canceled"]);
    let lamp = house.lamp();
    assert_eq!(house.drain(lamp), [""; 0]);

    house.say("alice", "to/lamp/cmd/set", r#"{"args":1,"id":"begun"}"#).unwrap();
    house.say("alice", "to/lamp/cmd/set", r#"{"args":2,"id":"next"}"#).unwrap();
    house.drain(lamp);
    house.say("lamp", "me/cmdres/begun", "running").unwrap();
    house.say("alice", "to/lamp/cmdcancel/begun", "").unwrap();
    let got = house.take(lamp);
    assert_eq!((&*got[0].topic, &got[0].payload), ("me/cmd/begun/$cancel", &json!({})));
    assert_eq!(got[1].line(), "me/cmd/next/set 2");
    refused(house.say("lamp", "me/cmdres/begun", "done"), Code::TooLate);
    house.say("lamp", "me/cmdres/next", "done").unwrap();
    refused(house.say("alice", "to/lamp/cmdcancel/next", ""), Code::TooLate);
    refused(house.say("alice", "to/nobody/cmdcancel/next", ""), Code::NotFound);

    // It was not written to the connection yet: the device need not know of it at all.
    house.say("alice", "to/lamp/cmd/set", r#"{"args":3,"id":"quick"}"#).unwrap();
    house.say("alice", "to/lamp/cmdcancel/quick", "").unwrap();
    assert_eq!(house.told("quick"), ["queued", "sent", "canceled"]);
    assert!(house.take(lamp).iter().all(|got| !got.topic.contains("quick")));
}

#[test]
fn a_response_topic_gets_the_outcome_and_nothing_else() {
    let mut house = House::new();
    let lamp = house.lamp();
    let tool = house.connect("alice", "tool", &["im/v1/me/res/a"]);
    let to = Some(("im/v1/me/res/a", &b"k1"[..]));
    let done = house.request(("alice", Some(tool)), "to/lamp/cmd/set", r#"{"target":21}"#, to).unwrap();
    assert!(done.reply.is_none(), "an answer there would be taken for the outcome");
    house.settle();
    let order = house.take(lamp).remove(0);
    assert!(house.take(tool).is_empty());
    let id = order.topic.split('/').nth(2).unwrap().to_owned();
    house.say("lamp", &format!("me/cmdres/{id}"), "running").unwrap();
    assert!(house.take(tool).is_empty());
    house.say("lamp", &format!("me/cmdres/{id}"), r#"{"state":"done","result":21}"#).unwrap();
    let got = house.take(tool);
    assert_eq!(got.len(), 1);
    assert_eq!((&*got[0].topic, got[0].correlation.as_deref()), ("me/res/a", Some(&b"k1"[..])));
    assert_eq!((&got[0].payload["state"], &got[0].payload["result"]), (&json!("done"), &json!(21)));
    // The same id as the topic: still the outcome alone.
    house.request(("alice", Some(tool)), "to/lamp/cmd/set", r#"{"args":1,"id":"a"}"#, to).unwrap();
    house.settle();
    house.drain(lamp);
    house.say("lamp", "me/cmdres/a", "failed").unwrap();
    let got: Vec<String> = house.take(tool).iter().map(Got::line).collect();
    assert_eq!(got.first().map(String::as_str), Some("me/res/a \"failed\""));
    // Asked again, it is told again.
    house.request(("alice", Some(tool)), "to/lamp/cmd/set", r#"{"args":1,"id":"a"}"#, to).unwrap();
    house.settle();
    assert_eq!(house.drain(tool), ["me/res/a \"failed\""]);
}

#[test]
fn an_outcome_does_not_reach_a_session_that_took_the_place_of_the_one_that_asked() {
    let mut house = House::new();
    let lamp = house.lamp();
    let tool = house.connect("alice", "tool", &["im/v1/me/res/a"]);
    let to = Some(("im/v1/me/res/a", &b"k1"[..]));
    house.request(("alice", Some(tool)), "to/lamp/cmd/set", r#"{"args":1,"id":"c1"}"#, to).unwrap();
    house.settle();
    house.leave(tool);
    let alice = house.im.account_no("alice").unwrap();
    let at = house.im.attach((tool, 2), alice, "tool", true, false, None);
    house.im.subscribe(house.now, at, "im/v1/me/res/a", 1, 0, Greeting::Retained);
    house.drain(lamp);
    house.say("lamp", "me/cmdres/c1", "done").unwrap();
    assert!(house.take(tool).is_empty());
}

#[test]
fn a_session_that_is_not_sent_the_mailbox_hears_of_its_commands_all_the_same() {
    let mut house = House::new();
    let lamp = house.lamp();
    let tool = house.connect("alice", "tool", &["im/v1/me/res/+"]);
    house.say("alice", "to/lamp/cmd/set", r#"{"args":1,"id":"c1"}"#).unwrap();
    house.drain(lamp);
    house.say("lamp", "me/cmdres/c1", "done").unwrap();
    let states = house.drain(tool);
    assert_eq!(states, ["queued", "sent", "delivered", "done"].map(|state| format!("me/res/c1 \"{state}\"")));
}

#[test]
fn what_is_wrong_with_a_command_is_told() {
    let mut house = House::new();
    let cmd = "to/lamp/cmd/set";
    refused(house.say("alice", "to/nobody/cmd/set", "1"), Code::NotFound);
    refused(house.say("alice", "to/bob/cmd/set", "1"), Code::Forbidden);
    refused(house.say("alice", "to/lamp/cmd/$cancel", "1"), Code::BadRequest);
    refused(house.say("alice", cmd, "{broken"), Code::BadRequest);
    refused(house.say("alice", cmd, r#"{"args":1,"colour":2}"#), Code::BadRequest);
    refused(house.say("alice", cmd, r#"{"args":1,"id":"a b"}"#), Code::BadRequest);
    refused(house.say("alice", cmd, r#"{"args":1,"deadline_ms":0}"#), Code::BadRequest);
    refused(house.say("alice", cmd, r#"{"args":1,"deadline_ms":3600001}"#), Code::BadRequest);
    refused(house.say("alice", cmd, r#"{"args":1,"persist":true,"deadline_ms":604800001}"#), Code::BadRequest);
    refused(house.say("alice", cmd, &"x".repeat(4_095)), Code::TooLarge);
    for topic in ["im/v1/me/res/", "im/v1/me/res", "im/v1/to/bob/msg", "im/v1/me/res/a/b", "home/x"] {
        let got = house.request(("alice", Some(1)), cmd, "1", Some((topic, b"")));
        refused(got, Code::ResponseTopic);
    }
    assert!(house.im.commands.devices.is_empty());
    house.say("alice", cmd, r#"{"args":1,"persist":true,"deadline_ms":604800000}"#).unwrap();
    house.say("alice", cmd, &"x".repeat(4_094)).unwrap();
    // Whoever listens to commands takes them, whatever kind of account it is.
    house.connect("bob", "script", &["im/v1/me/cmd/+/+"]);
    house.say("alice", "to/bob/cmd/set", "1").unwrap();
    house.say("alice", "me/contact/bob", r#"{"op":"remove"}"#).unwrap();
    refused(house.say("alice", "to/bob/cmd/set", "1"), Code::NoConsent);
    refused(house.say("alice", "to/bob/desired", "{}"), Code::NoConsent);
}

#[test]
fn so_many_wait_for_a_device_and_no_more() {
    let mut limits = Limits::default();
    limits.set("im_commands_per_device_max", 3).unwrap();
    let mut house = House::with(ImSettings::default(), limits);
    for id in ["c1", "c2", "c3"] {
        house.say("alice", "to/lamp/cmd/set", &format!(r#"{{"args":1,"id":"{id}"}}"#)).unwrap();
    }
    refused(house.say("alice", "to/lamp/cmd/set", r#"{"args":1,"id":"c4"}"#), Code::Quota);
    // What is known is no further one.
    assert!(house.say("alice", "to/lamp/cmd/set", r#"{"args":1,"id":"c3"}"#).unwrap().dup);
    house.say("alice", "to/lamp/cmdcancel/c2", "").unwrap();
    house.say("alice", "to/lamp/cmd/set", r#"{"args":1,"id":"c4"}"#).unwrap();
}

#[test]
fn outcomes_are_forgotten_and_numbers_are_never_given_twice() {
    let mut limits = Limits::default();
    limits.set("im_commands_kept_max", 2).unwrap();
    let mut house = House::with(ImSettings::default(), limits);
    let (alice, device) = (house.im.account_no("alice").unwrap(), house.im.account_no("lamp").unwrap());
    let kept = |house: &House| house.im.commands.devices[&device].commands.keys().copied().collect::<Vec<_>>();
    for no in 1..=5 {
        house.say("alice", "to/lamp/cmd/set", &format!(r#"{{"args":1,"id":"c{no}"}}"#)).unwrap();
        house.say("alice", &format!("to/lamp/cmdcancel/c{no}"), "").unwrap();
    }
    assert_eq!(kept(&house), [4, 5]);
    assert!(house.im.render_command(alice, device, 3, State::Canceled as u32, 1).is_none());
    // Forgotten, but not new.
    let again = house.say("alice", "to/lamp/cmd/set", r#"{"args":1,"id":"c1"}"#).unwrap();
    assert_eq!((again.dup, again.reply.unwrap()["forgotten"].clone()), (true, json!(true)));
    house.pass(KEEP_MS + 5);
    assert_eq!(kept(&house), [5], "the last one keeps the number");
    house.restart(0);
    assert_eq!(kept(&house), [5]);
    house.say("alice", "to/lamp/cmd/set", r#"{"args":1,"id":"new"}"#).unwrap();
    assert_eq!(kept(&house), [6]);
}

#[test]
fn an_account_that_is_removed_takes_its_commands_along() {
    let mut house = House::new();
    let lamp = house.lamp();
    house.say("alice", "to/lamp/cmd/set", r#"{"args":1,"id":"c1"}"#).unwrap();
    house.say("bob", "to/lamp/cmd/set", r#"{"args":2,"id":"c2"}"#).unwrap();
    house.drain(lamp);
    let (alice, device) = (house.im.account_no("alice").unwrap(), house.im.account_no("lamp").unwrap());
    house.im.command_account_removed(house.now, alice);
    house.settle();
    assert_eq!((house.state("c1"), house.state("c2")), (State::Canceled, State::Sent));
    assert_eq!(house.drain(lamp), ["me/cmd/c1/$cancel null", "me/cmd/c2/set 2"]);
    house.im.command_account_removed(house.now, device);
    assert_eq!(house.state("c2"), State::Canceled);
}

#[test]
fn whose_command_a_device_carries_out_is_known_while_it_does() {
    let mut house = House::new();
    let lamp = house.lamp();
    let (bob, device) = (house.im.account_no("bob"), house.im.account_no("lamp").unwrap());
    house.say("bob", "to/lamp/cmd/set", r#"{"args":1,"id":"c1"}"#).unwrap();
    house.drain(lamp);
    assert_eq!(house.im.command_of(device), bob);
    house.say("lamp", "me/cmdres/c1", "done").unwrap();
    assert_eq!(house.im.command_of(device), None);
}

#[test]
fn a_row_reads_back() {
    let mut command = Command::new(AccountNo(300), "c1".into(), "set".into());
    command.device_id = "other".into();
    (command.key, command.content, command.once) = (u64::MAX, 1 << 60, true);
    (command.deadline_ms, command.args) = (1_790_000_010_000, r#"{"on":true}"#.into());
    for (state, ms) in [(State::Queued, 1_790_000_000_000), (State::Running, 1_790_000_000_005)] {
        command.enter(state, ms);
    }
    let back = Command::decode(&command.encode()).unwrap();
    assert_eq!(back.encode(), command.encode());
    assert_eq!(
        (back.since(State::Queued), back.since(State::Sent), back.since(State::Running)),
        (1_790_000_000_000, 0, 1_790_000_000_005)
    );
    assert_eq!((&*back.device_id, back.state, &*back.args), ("other", State::Running, r#"{"on":true}"#));
    command.enter(State::Done, 1_790_000_000_006);
    command.device_id = "c1".into();
    command.result = "[1]".into();
    let back = Command::decode(&command.encode()).unwrap();
    assert_eq!((&*back.device_id, &*back.args, &*back.result), ("c1", "", "[1]"));
    for no in 0..12 {
        assert_eq!(State::of(no).map(|state| state as u32), (no < 11).then_some(no));
    }
}

#[test]
fn the_next_command_waits_until_the_outcome_before_it_is_on_disk() {
    let mut house = House::new();
    let lamp = house.lamp();
    house.connect("alice", "phone", &["im/v1/me/#"]);
    house.say("alice", "to/lamp/cmd/set", r#"{"args":1,"id":"c1"}"#).unwrap();
    house.say("alice", "to/lamp/cmd/set", r#"{"args":2,"id":"c2"}"#).unwrap();
    let first = house.take(lamp).remove(0);
    assert_eq!(first.topic, "me/cmd/c1/set");
    house.ack(lamp, &first);
    house.settle();
    house.request(("lamp", Some(lamp)), "me/cmdres/c1", r#"{"state":"done"}"#, None).unwrap();
    assert!(house.take(lamp).is_empty(), "a power cut now would bring c1 back while the device has c2");
    house.settle();
    assert_eq!(house.take(lamp).remove(0).topic, "me/cmd/c2/set");
}
