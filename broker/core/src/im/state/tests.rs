//! State and descriptions, from what a device says to what is told.

use super::super::ImSettings;
use super::super::command::house::House;
use super::super::refusal::Code;
use crate::limits::Limits;
use serde_json::{Value, json};

impl House {
    /// What a session is told of states and deltas.
    fn news(&mut self, session: u32) -> Vec<(String, Value)> {
        let all = self.take(session);
        for got in &all {
            self.ack(session, got);
        }
        all.into_iter().map(|got| (got.topic, got.payload)).collect()
    }

    fn shown(&self) -> Value {
        let lamp = self.im.account_no("lamp").unwrap();
        self.im.render_state(lamp).map_or(Value::Null, |payload| serde_json::from_slice(&payload).unwrap())
    }
}

#[test]
fn what_is_desired_reaches_the_device_and_what_is_reported_everybody() {
    let mut house = House::new();
    let board = house.connect("lamp", "board", &["im/v1/me/delta"]);
    let mirror = house.connect("alice", "mirror", &["im/v1/state/#"]);
    house.im.make_account(house.now, "eve", super::super::model::AccountKind::Person);
    let stranger = house.connect("eve", "mirror", &["im/v1/state/#"]);
    assert!(house.news(board).is_empty() && house.news(mirror).is_empty());
    let reply = house.say("alice", "to/lamp/desired", r#"{"on":true,"level":30}"#).unwrap().reply;
    assert_eq!(reply, Some(json!({"version": 1})));
    let delta = json!({"version": 1, "desired": {"on": true, "level": 30}});
    assert_eq!(house.news(board), [("me/delta".to_owned(), delta)]);
    let wall_ms = house.now.wall_ms;
    house.say("lamp", "me/reported", r#"{"on":true,"temp":20.5}"#).unwrap();
    let (_, delta) = house.news(board).remove(0);
    assert_eq!(delta, json!({"version": 2, "desired": {"level": 30}}));
    let (topic, shown) = house.news(mirror).remove(0);
    assert_eq!(topic, "state/lamp");
    assert_eq!(
        shown,
        json!({
            "version": 2, "reported": {"on": true, "temp": 20.5}, "desired": {"on": true, "level": 30}, "by": "lamp",
            "ts": wall_ms,
        })
    );
    house.say("lamp", "me/reported", r#"{"level":30,"temp":null}"#).unwrap();
    assert!(house.news(board).is_empty(), "there is nothing left to do");
    assert!(house.news(stranger).is_empty());
    assert_eq!(house.shown()["reported"], json!({"on": true, "level": 30}));
}

#[test]
fn what_changes_nothing_is_no_change_and_no_news() {
    let mut house = House::new();
    let board = house.connect("lamp", "board", &["im/v1/me/delta", "im/v1/state/lamp"]);
    house.say("alice", "to/lamp/desired", r#"{"on":true}"#).unwrap();
    assert_eq!(house.news(board).len(), 2);
    house.say("alice", "to/lamp/desired", r#"{"on":true,"gone":null}"#).unwrap();
    house.say("lamp", "me/reported", "{}").unwrap();
    assert!(house.news(board).is_empty());
    assert_eq!(house.shown()["version"], 1);
    // It cannot, and reports other things: it is not told the same again each time.
    house.say("lamp", "me/reported", r#"{"temp":1}"#).unwrap();
    let topics: Vec<String> = house.news(board).into_iter().map(|(topic, _)| topic).collect();
    assert_eq!(topics, ["state/lamp"]);
}

#[test]
fn a_device_that_returns_is_told_what_is_left_to_do() {
    let mut house = House::new();
    house.say("alice", "to/lamp/desired", r#"{"on":true,"mode":"a"}"#).unwrap();
    house.say("alice", "to/lamp/desired", r#"{"on":false,"mode":null}"#).unwrap();
    house.restart(1_000);
    let board = house.connect("lamp", "board", &["im/v1/me/delta"]);
    assert_eq!(house.news(board).remove(0).1, json!({"version": 2, "desired": {"on": false}}));
    let mirror = house.connect("lamp", "mirror", &["im/v1/state/lamp"]);
    assert_eq!(house.news(mirror).remove(0).1["by"], "alice");
}

#[test]
fn who_commanded_is_who_caused_what_is_reported() {
    let mut house = House::new();
    let board = house.connect("lamp", "board", &["im/v1/me/cmd/#"]);
    house.say("bob", "to/lamp/cmd/set", r#"{"args":{"on":true},"id":"c1"}"#).unwrap();
    assert_eq!(house.news(board).len(), 1);
    house.say("lamp", "me/reported", r#"{"on":true}"#).unwrap();
    assert_eq!(house.shown()["by"], "bob");
    house.say("lamp", "me/cmdres/c1", "done").unwrap();
    house.say("lamp", "me/reported", r#"{"on":false}"#).unwrap();
    assert_eq!(house.shown()["by"], "lamp");
}

#[test]
fn what_is_too_much_or_no_state_is_refused() {
    let mut house = House::new();
    let code = |got: Result<super::super::Done, super::super::Refusal>| got.unwrap_err().code;
    assert_eq!(code(house.say("alice", "to/nobody/desired", "{}")), Code::NotFound);
    assert_eq!(code(house.say("alice", "to/bob/desired", "{}")), Code::Forbidden);
    assert_eq!(code(house.say("alice", "to/lamp/desired", "[1]")), Code::BadRequest);
    assert_eq!(code(house.say("lamp", "me/reported", "on")), Code::BadRequest);
    let deep = format!("{}1{}", r#"{"a":"#.repeat(17), "}".repeat(17));
    assert_eq!(code(house.say("lamp", "me/reported", &deep)), Code::BadRequest);
    let deep = format!("{}1{}", r#"{"a":"#.repeat(16), "}".repeat(16));
    house.say("lamp", "me/reported", &deep).unwrap();
    let half = format!(r#"{{"b":"{}"}}"#, "x".repeat(4_090));
    house.say("lamp", "me/reported", &half).unwrap();
    let other = half.replace("\"b\"", "\"c\"");
    assert_eq!(code(house.say("lamp", "me/reported", &other)), Code::TooLarge);
    assert_eq!(house.shown()["reported"].get("c"), None);
    house.say("lamp", "me/reported", r#"{"b":null}"#).unwrap();
    house.say("lamp", "me/reported", &other).unwrap();
}

#[test]
fn a_description_is_kept_and_told_to_home_assistant() {
    let settings = ImSettings { home_assistant: Some("homeassistant".to_owned()), ..ImSettings::default() };
    let mut house = House::with(settings, Limits::default());
    let two = r#"{"name":"Lamp","model":"L1","state":{"on":{"type":"bool"},"temp":{"type":"float","unit":"°C"}}}"#;
    house.say("lamp", "me/describe", two).unwrap();
    let (topic, payload) = house.plain.remove(0);
    assert!(house.plain.is_empty());
    assert_eq!(topic, "homeassistant/device/lamp/config");
    let payload: Value = serde_json::from_str(&payload).unwrap();
    assert_eq!(payload["device"], json!({"identifiers": ["parlor:lamp"], "name": "Lamp", "model": "L1"}));
    assert_eq!(payload["origin"]["name"], "Parlor");
    assert_eq!(payload["availability_topic"], "im/v1/presence/lamp/avail");
    assert_eq!(payload["components"].as_object().unwrap().len(), 2);
    // The same again is no news; less is told twice: first what is gone, then what is left.
    house.say("lamp", "me/describe", two).unwrap();
    assert!(house.plain.is_empty());
    house.say("lamp", "me/describe", r#"{"state":{"on":{"type":"bool"}}}"#).unwrap();
    let told: Vec<Value> = house.plain.drain(..).map(|(_, payload)| serde_json::from_str(&payload).unwrap()).collect();
    assert_eq!(told.len(), 2);
    assert_eq!(told[0]["components"]["sensor_temp"], json!({"platform": "sensor"}));
    assert_eq!(told[1]["components"].as_object().unwrap().keys().collect::<Vec<_>>(), ["binary_sensor_on"]);

    house.restart(0);
    let lamp = house.im.account_no("lamp").unwrap();
    assert_eq!(house.im.description(lamp), Some(&json!({"state": {"on": {"type": "bool"}}})));
    assert_eq!(house.plain.drain(..).map(|(topic, _)| topic).collect::<Vec<_>>(), ["homeassistant/device/lamp/config"]);
    house.settings.home_assistant = Some("ha".to_owned());
    house.restart(0);
    let told: Vec<(String, bool)> = house.plain.drain(..).map(|(topic, payload)| (topic, payload.is_empty())).collect();
    assert_eq!(
        told,
        [("homeassistant/device/lamp/config".to_owned(), true), ("ha/device/lamp/config".to_owned(), false)]
    );
    house.settings.home_assistant = None;
    house.im.reload(house.now, house.settings.clone(), house.limits.clone());
    house.commit();
    assert_eq!(house.plain.drain(..).collect::<Vec<_>>(), [("ha/device/lamp/config".to_owned(), String::new())]);
    house.restart(0);
    assert!(house.plain.is_empty());
}

#[test]
fn a_description_that_is_emptied_and_an_account_that_is_removed_leave_nothing() {
    let settings = ImSettings { home_assistant: Some("homeassistant".to_owned()), ..ImSettings::default() };
    let mut house = House::with(settings, Limits::default());
    let lamp = house.im.account_no("lamp").unwrap();
    let gone = ("homeassistant/device/lamp/config".to_owned(), String::new());
    for way in ["describe", "remove"] {
        house.say("lamp", "me/describe", r#"{"state":{"on":{"type":"bool"}}}"#).unwrap();
        house.say("lamp", "me/reported", &format!(r#"{{"way":"{way}"}}"#)).unwrap();
        house.plain.clear();
        if way == "describe" {
            house.say("lamp", "me/describe", "{}").unwrap();
        } else {
            house.im.state_account_removed(lamp);
            house.commit();
        }
        assert_eq!(house.plain, std::slice::from_ref(&gone));
        assert_eq!(house.im.description(lamp), None);
        house.restart(0);
        assert_eq!(house.im.description(lamp), None);
    }
    assert_eq!(house.im.render_state(lamp), None);
}

#[test]
fn a_wrong_description_changes_nothing() {
    let mut house = House::new();
    house.say("lamp", "me/describe", r#"{"state":{"on":{"type":"bool"}}}"#).unwrap();
    let refusal = house.say("lamp", "me/describe", r#"{"state":{"on":{"type":"yes"}}}"#).unwrap_err();
    assert_eq!(refusal.code, Code::BadRequest);
    assert!(refusal.text.contains("state.on.type"), "{}", refusal.text);
    let lamp = house.im.account_no("lamp").unwrap();
    assert_eq!(house.im.description(lamp).unwrap()["state"]["on"]["type"], "bool");
    // Who describes itself takes commands, also while it is away.
    house.say("bob", "me/describe", r#"{"commands":{"beep":{}}}"#).unwrap();
    house.say("alice", "to/bob/cmd/beep", "").unwrap();
}
