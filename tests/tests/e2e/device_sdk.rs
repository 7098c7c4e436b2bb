//! The device SDK over real sockets against the broker, and against mosquitto.

use parlor_device::flash::NoFlash;
use parlor_device::{Choice, Commands, Config, Content, Describe, Listen, Login, Mqtt, Outcome, Refusal, State, Why};
use parlor_tests::device::{Road, run};
use parlor_tests::im::{House, Names, PASSWORD, fits};
use parlor_tests::raw::{Client, Version};
use serde_json::json;

#[derive(Clone, Copy, Debug, PartialEq, Choice)]
enum Mode {
    Warm,
    Cold,
}

#[derive(Debug, PartialEq, Commands)]
enum Lamp {
    Set {
        on: bool,
        #[parlor(min = 0, max = 100, unit = "%")]
        level: Option<u8>,
    },
    SetMode {
        mode: Mode,
    },
    Blink,
}

#[derive(Debug, PartialEq, State)]
struct LampState {
    on: bool,
    #[parlor(min = 0, max = 100, unit = "%")]
    level: u8,
    mode: Mode,
    #[parlor(read_only, unit = "°C")]
    temp: f32,
}

const DESCRIBE: Describe =
    Describe { name: "Lamp", model: "L1", commands: Lamp::DESCRIPTION, state: LampState::DESCRIPTION, update: false };

fn config(account: &'static str) -> Config {
    Config {
        login: Login::Account { name: account, secret: PASSWORD.as_bytes() },
        describe: DESCRIBE,
        listen: Listen::MESSAGES,
        app: "lamp 1.0",
        platform: "host",
        pause_min_ms: 20,
        pause_max_ms: 200,
        ..Config::new("lamp-1")
    }
}

/// A broker with Alice and her lamp.
fn house() -> Option<House> {
    let house = House::start(&["alice"])?;
    house.add("lamp", "device");
    house.befriend("alice", "lamp");
    Some(house)
}

/// The next message to Alice under this topic that fits.
fn hears(alice: &mut Client, topic: &str, pattern: &str) {
    let mut all = vec![];
    for _ in 0..20 {
        let got = alice.on(topic);
        match fits(&got.payload, pattern, &mut Names::new()) {
            Ok(()) => return,
            Err(why) => all.push(why),
        }
    }
    panic!("{topic}: {all:#?}");
}

fn talks(wire: Mqtt) {
    let Some(house) = house() else { return };
    let road = house.broker.addr();
    let mut alice = house.lasting(Version::V5, "alice", "phone");
    alice.subscribe("im/v1/#", 1);
    let device = std::thread::spawn(move || {
        run(config("lamp"), wire, &Road::to(road), NoFlash, |device| async move {
            device.online().await;
            let hello = device.send("alice", "hello \"Alice\"").await.expect("there is room");
            assert_eq!(hello.acked().await, Outcome::Acked { seq: 1 });
            let nobody = device.send("nobody", "hello").await.expect("there is room");
            assert_eq!(nobody.acked().await, Outcome::Lost(Why::Refused(Refusal::NotFound)));
            let mut buffer = [0; 200];
            let heard = device.next_message(&mut buffer).await;
            assert_eq!((heard.address, heard.from, heard.seq, heard.text), ("alice", "alice", 2, "is it \"warm\"?\n"));
            let answer = Content { re: heard.seq, ..Content::text("yes") };
            let answer = device.send_content("alice", &answer).await.expect("there is room");
            assert_eq!(answer.acked().await, Outcome::Acked { seq: 3 });
            assert!(device.sleep(600).await, "the broker was told");
        });
    });
    hears(&mut alice, "im/v1/me/in/lamp/msg", r#"{"seq":1,"text":"hello \"Alice\"",…}"#);
    alice.publish_for(1, "im/v1/to/lamp/msg", r#"{"text":"is it \"warm\"?\n"}"#);
    hears(&mut alice, "im/v1/me/in/lamp/msg", r#"{"seq":3,"re":2,"text":"yes",…}"#);
    hears(&mut alice, "im/v1/presence/lamp", r#"{"state":"asleep","until":*,"terminals":0,…}"#);
    device.join().expect("the device is content");
}

#[test]
fn a_device_talks_over_mqtt_5() {
    talks(Mqtt::V5);
}

#[test]
fn a_device_talks_over_mqtt_3() {
    talks(Mqtt::V311);
}

#[test]
fn a_device_is_commanded() {
    let Some(house) = house() else { return };
    let road = house.broker.addr();
    let mut alice = house.lasting(Version::V5, "alice", "phone");
    alice.subscribe("im/v1/#", 1);
    let device = std::thread::spawn(move || {
        run(config("lamp"), Mqtt::V5, &Road::to(road), NoFlash, |device| async move {
            let mut state = LampState { on: false, level: 0, mode: Mode::Cold, temp: 21.5 };
            device.report(&state).await.expect("there is room");
            loop {
                let command = device.next_command::<Lamp>().await;
                assert_eq!(command.from(), "alice");
                match command.what {
                    Lamp::Set { on, level } => {
                        assert!(command.left_ms().is_some_and(|left| (1..=60_000).contains(&left)));
                        command.running("at it").await;
                        state.on = on;
                        state.level = level.unwrap_or(state.level);
                        command.done(&state).await;
                        device.report(&state).await.expect("there is room");
                    }
                    Lamp::SetMode { mode: Mode::Cold } => drop(command),
                    Lamp::SetMode { mode: Mode::Warm } => command.failed("it is broken").await,
                    Lamp::Blink => {
                        command.rejected("not at night").await;
                        break;
                    }
                }
            }
            assert!(device.next_desired(&mut state).await);
            assert_eq!(state, LampState { on: true, level: 70, mode: Mode::Warm, temp: 21.5 });
            device.report(&state).await.expect("there is room");
            assert!(device.sleep(1).await);
        });
    });
    hears(&mut alice, "im/v1/state/lamp", r#"{"reported":{"on":false,"level":0,"mode":"cold","temp":21.5},…}"#);
    let mut say = |id: &str, name: &str, args: serde_json::Value| {
        let command = json!({ "args": args, "id": id, "deadline_ms": 60_000 }).to_string();
        assert_eq!(alice.publish_for(1, &format!("im/v1/to/lamp/cmd/{name}"), command).code, 0);
    };
    say("c1", "set", json!({ "on": true, "level": 40 }));
    say("c2", "set", json!({ "level": 40 }));
    say("c3", "set", json!({ "on": true, "level": 101 }));
    say("c4", "sing", json!({}));
    say("c5", "set_mode", json!({ "mode": "warm" }));
    say("c6", "set_mode", json!({ "mode": "cold" }));
    say("c7", "blink", json!({}));
    let mut result = |id: &str, pattern: &str| hears(&mut alice, &format!("im/v1/me/res/{id}"), pattern);
    result("c1", r#"{"state":"running",…}"#);
    result("c1", r#"{"state":"done","result":{"on":true,"level":40,"mode":"cold","temp":21.5},…}"#);
    result("c2", r#"{"state":"rejected","text":"on",…}"#);
    result("c3", r#"{"state":"rejected","text":"level",…}"#);
    result("c4", r#"{"state":"rejected","text":"this device has no such command",…}"#);
    result("c5", r#"{"state":"failed","text":"it is broken",…}"#);
    result("c6", r#"{"state":"failed","text":"the device gave no answer",…}"#);
    result("c7", r#"{"state":"rejected","text":"not at night",…}"#);
    let desired = json!({ "level": 70, "mode": "warm", "temp": 30, "sound": 1 }).to_string();
    assert_eq!(alice.publish_for(1, "im/v1/to/lamp/desired", desired).code, 0);
    hears(&mut alice, "im/v1/state/lamp", r#"{"reported":{"on":true,"level":70,"mode":"warm","temp":21.5},…}"#);
    device.join().expect("the device is content");
}
