//! What a device writes to its log: enough to see how it is, and nothing that opens a door.

use parlor_device::flash::{Flash, FlashError};
use parlor_device::wire::Wire;
use parlor_device::{Config, Keep, LinkError, Listen, Login, Mqtt, Native, Outcome, Place, Policy, SendError, Status};
use parlor_tests::device::{BoardFlash, Road, run};
use parlor_tests::device_log::lines_of;
use parlor_tests::im::{House, json};
use parlor_tests::raw::{Client, Version};

/// What people and devices say to each other here.
const SAID: &str = "the key is under the mat";
/// A token that is not good for anything.
const TOKEN: &str = "eyJhbGciOiJFZERTQSJ9.not-a-token";

const KEPT: &[Policy] = &[Policy { topic: "im/v1/to/#", keep: Keep::All, place: Place::Flash }];

fn config(login: Login) -> Config {
    Config {
        login,
        listen: Listen::MESSAGES,
        pause_min_ms: 20,
        pause_max_ms: 200,
        policies: KEPT,
        ..Config::new("plug-1")
    }
}

/// What of a line must not be in it.
fn leak<'a>(line: &str, secrets: &[&'a str]) -> Option<&'a str> {
    secrets.iter().find(|secret| line.contains(**secret)).copied()
}

fn has(lines: &[String], beginnings: &[&str]) {
    let mut rest = lines.iter();
    for begin in beginnings {
        assert!(rest.any(|line| line.starts_with(begin)), "{begin:?} is missing, in this order: {lines:#?}");
    }
}

fn home(house: &House) -> Client {
    let mut alice = house.lasting(Version::V5, "alice", "phone");
    alice.subscribe("im/v1/#", 1);
    alice.publish_for(1, "im/v1/me/group/g-home", r#"{"op":"create","name":"Home","household":true}"#);
    alice
}

/// It is paired, starts again, hears and says something, and sleeps.
fn life<W: Wire + Copy + Send + 'static>(wire: W, scheme: &str) {
    let Some(house) = House::with(&["alice"], &["--listen", "parlor+tcp://127.0.0.1:0"]) else { return };
    let mut alice = home(&house);
    alice.publish_for(1, "im/v1/me/pair", r#"{"household":"g-home"}"#);
    let code = json(&alice.on("im/v1/me/pair/res"))["code"].as_str().expect("a code").to_owned();
    let code: &'static str = code.leak();
    let at = if scheme == "mqtt" { house.broker.addr() } else { house.broker.address(scheme) };
    let device = std::thread::spawn(move || {
        let flash = BoardFlash::default();
        let lines = lines_of(|| {
            let login = Login::Pair { code, name: "plug" };
            run(config(login), wire, &Road::to(at), flash.clone(), |device| async move {
                let sent = device.send("g-home", SAID).await.expect("there is room");
                assert!(matches!(sent.acked().await, Outcome::Acked { .. }));
            });
            run(config(Login::Stored), wire, &Road::to(at), flash.clone(), |device| async move {
                let mut buffer = [0; 200];
                assert_eq!(device.next_message(&mut buffer).await.text, SAID);
                assert!(device.sleep(60).await);
            });
        });
        (lines, flash.value(1).expect("it is paired"))
    });
    assert_eq!(json(&alice.on("im/v1/me/in/g-home/msg"))["text"], SAID);
    alice.publish_for(1, "im/v1/to/g-home/msg", format!(r#"{{"text":"{SAID}"}}"#));
    let (lines, kept) = device.join().expect("the device is content");
    has(
        &lines,
        &[
            "INFO start ",
            "DEBUG connecting",
            "DEBUG connected, logging in",
            "INFO the account is in flash",
            "INFO online",
            "INFO start ",
            "INFO online",
            "INFO asleep",
        ],
    );
    // The password is what stands behind the name.
    let (name, rest) = kept[1..].split_at(usize::from(kept[0]));
    let password = std::str::from_utf8(&rest[1..=usize::from(rest[0])]).expect("a password is text");
    assert!(name == b"plug" && password.len() >= 16, "{name:?}");
    let secrets = [code, password, SAID];
    assert_eq!(lines.iter().find_map(|line| leak(line, &secrets)), None, "{lines:#?}");
    // It would be found.
    for secret in secrets {
        assert_eq!(leak(&format!("INFO online as plug with {secret}"), &secrets), Some(secret));
    }
}

#[test]
fn a_log_says_how_a_device_is_and_tells_no_secret() {
    life(Mqtt::V5, "mqtt");
    life(Native, "parlor+tcp");
}

/// Flash that takes the number of the start, and nothing more.
struct WornOut;

impl Flash for WornOut {
    async fn load(&mut self, _: u8) -> Result<Option<&[u8]>, FlashError> {
        Ok(None)
    }

    async fn store(&mut self, key: u8, _: &dyn Fn(&mut [u8]) -> Option<usize>) -> Result<(), FlashError> {
        if key == 0 { Ok(()) } else { Err(FlashError) }
    }
}

#[test]
fn a_log_says_what_is_wrong_and_tells_no_secret() {
    let Some(house) = House::with(&["alice"], &[]) else { return };
    let road = Road::to(house.broker.addr());
    let wrong = Login::Account { name: "alice", secret: TOKEN.as_bytes() };
    let lines = lines_of(|| {
        run(config(wrong), Mqtt::V5, &road, WornOut, |device| async move {
            assert_eq!(device.send("alice", SAID).await.map(drop), Err(SendError::Flash));
            let mut status = device.status();
            while status != Status::Offline(LinkError::CredentialsRefused) {
                status = device.status_after(status).await;
            }
            // The line is written behind that.
            while status == Status::Offline(LinkError::CredentialsRefused) {
                device.connect_now();
                status = device.status_after(status).await;
            }
        });
    });
    has(&lines, &["WARN flash does not take what belongs under key "]);
    has(&lines, &["WARN offline: the broker does not accept account and password; the next attempt is in "]);
    assert_eq!(lines.iter().find_map(|line| leak(line, &[TOKEN, SAID])), None, "{lines:#?}");
}
