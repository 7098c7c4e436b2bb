//! A device over its life: paired, cut off, rebooted, updated, unwanted; over both wires.

use parlor_device::flash::NoFlash;
use parlor_device::json::Value;
use parlor_device::transport::Clock;
use parlor_device::update::{Ed25519, Firmware, UpdateError};
use parlor_device::{
    Commands, Config, Describe, Device, Keep, LinkError, Listen, Login, Mqtt, Native, Outcome, Place, Policy, QoS,
    Status, Subscription, Why,
};
use parlor_tests::device::{BoardFlash, HostClock, Road, run};
use parlor_tests::device_log::lines_of;
use parlor_tests::im::{House, Names, PASSWORD, fits, json};
use parlor_tests::operator::Operator;
use parlor_tests::raw::{Client, Version};
use ring::signature::{Ed25519KeyPair, KeyPair};
use std::cell::RefCell;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::rc::Rc;

#[derive(Debug, Clone, Copy, PartialEq, Commands)]
enum Lamp {
    Set { on: bool },
}

fn config() -> Config {
    Config {
        login: Login::Account { name: "lamp", secret: PASSWORD.as_bytes() },
        listen: Listen::MESSAGES,
        pause_min_ms: 20,
        pause_max_ms: 200,
        ..Config::new("lamp-1")
    }
}

fn house(extra: &[&str]) -> Option<House> {
    let house = House::with(&["alice"], &[&["--listen", "parlor+tcp://127.0.0.1:0"], extra].concat())?;
    house.add("lamp", "device");
    house.befriend("alice", "lamp");
    Some(house)
}

fn alice(house: &House) -> Client {
    let mut alice = house.lasting(Version::V5, "alice", "phone");
    alice.subscribe("im/v1/#", 1);
    alice
}

/// The next thing Alice hears under this topic that fits.
fn hears(alice: &mut Client, topic: &str, pattern: &str) {
    let mut all = vec![];
    for _ in 0..30 {
        let got = alice.on(topic);
        match fits(&got.payload, pattern, &mut Names::new()) {
            Ok(()) => return,
            Err(why) => all.push(why),
        }
    }
    panic!("{topic}: {all:#?}");
}

async fn pause(ms: u64) {
    HostClock::sleep_until(HostClock::now_ms() + ms).await;
}

/// The whole of it in frames: a command, a message each way, ordinary topics, sleep.
#[test]
fn a_device_lives_on_the_native_link() {
    let Some(house) = house(&[]) else { return };
    let road = house.broker.address("parlor+tcp");
    let mut alice = alice(&house);
    let device = std::thread::spawn(move || {
        const DESCRIBE: Describe = Describe { name: "Lamp", commands: Lamp::DESCRIPTION, ..Describe::NOTHING };
        const TOPICS: &[Subscription] = &[Subscription { filter: "home/+", qos: QoS::AtLeastOnce }];
        let config = Config { describe: DESCRIBE, subscribe: TOPICS, ..config() };
        run(config, Native, &Road::to(road), NoFlash, |device| async move {
            let command = device.next_command::<Lamp>().await;
            assert_eq!(command.what, Lamp::Set { on: true });
            command.done(()).await;
            let mut buffer = [0; 200];
            let heard = device.next_message(&mut buffer).await;
            assert_eq!((heard.from, heard.text, heard.body.map(Value::as_str)), ("alice", "hi", Some("{\"n\":1}")));
            let sent = device.send("alice", "here I am").await.expect("there is room");
            assert_eq!(sent.acked().await, Outcome::Acked { seq: 2 });
            let nobody = device.send("nobody", "hello").await.expect("there is room");
            assert!(matches!(nobody.acked().await, Outcome::Lost(Why::Refused(_))));
            assert_eq!(device.next_publish(&mut buffer).await, ("home/temp", &b"21"[..]));
            let told = device.publish("home/lamp", b"on").await.expect("there is room");
            assert_eq!(told.acked().await, Outcome::Acked { seq: 0 });
            assert!(device.sleep(60).await);
        });
    });
    alice.publish_for(1, "im/v1/to/lamp/cmd/set", r#"{"args":{"on":true},"id":"c1","deadline_ms":60000}"#);
    hears(&mut alice, "im/v1/me/res/c1", r#"{"state":"done","result":{},…}"#);
    alice.publish_for(1, "im/v1/to/lamp/msg", r#"{"text":"hi","body":{"n":1}}"#);
    hears(&mut alice, "im/v1/me/in/lamp/msg", r#"{"text":"here I am",…}"#);
    alice.subscribe("home/lamp", 1);
    alice.publish_for(1, "home/temp", "21");
    assert_eq!(alice.on("home/lamp").payload, b"on");
    hears(&mut alice, "im/v1/presence/lamp", r#"{"state":"asleep",…}"#);
    device.join().expect("the device is content");
}

/// Unplugged: there is no goodbye, its socket stays open, and nothing is heard of it. One and a half keep alives later it is
/// offline (G9).
#[test]
fn a_device_that_is_unplugged_is_missed() {
    let Some(house) = house(&["--set", "limits.im_presence_grace_secs=0"]) else { return };
    let mut alice = alice(&house);
    for native in [false, true] {
        let road = house.broker.address(if native { "parlor+tcp" } else { "mqtt" });
        let (unplug, plugged) = std::sync::mpsc::channel::<()>();
        let device = std::thread::spawn(move || {
            let config = Config { keep_alive_s: 2, ..config() };
            let app = |device: Device<'static>| async move {
                device.online().await;
                // The thread stands still, and the whole board with it.
                let _ = plugged.recv();
            };
            if native {
                run(config, Native, &Road::to(road), NoFlash, app);
            } else {
                run(config, Mqtt::V5, &Road::to(road), NoFlash, app);
            }
        });
        hears(&mut alice, "im/v1/presence/lamp", r#"{"state":"online",…}"#);
        let since = std::time::Instant::now();
        hears(&mut alice, "im/v1/presence/lamp", r#"{"state":"offline",…}"#);
        let missed_after = since.elapsed().as_secs_f64();
        // Three seconds, and what a busy machine needs besides; with less it would not be its silence that was noticed.
        assert!((1.5..8.0).contains(&missed_after), "after {missed_after} s");
        drop(unplug);
        device.join().expect("the device is content");
    }
}

/// In its first life it is paired, and says so.
async fn first(device: Device<'static>, name: &'static str) {
    device.online().await;
    assert_eq!(device.account().as_deref(), Some(name));
    assert_eq!(device.owner().as_deref(), Some("alice"));
    assert_eq!(device.household().as_deref(), Some("g-home"));
    let home = device.household().unwrap_or_default();
    let sent = device.send(&home, "here I am").await.expect("there is room");
    assert!(matches!(sent.acked().await, Outcome::Acked { .. }));
}
/// In its second it comes in with what is in flash, and forgets it.
async fn second(device: Device<'static>, name: &'static str) {
    device.online().await;
    assert_eq!(device.account().as_deref(), Some(name));
    device.unpair().await;
}
/// In its third it has nothing, and is told a code that there is not.
async fn third(device: Device<'static>, _: &'static str) {
    let mut status = device.status();
    while status != Status::Offline(LinkError::NoCredentials) {
        status = device.status_after(status).await;
    }
    device.pair("7KQ4-MZ2P");
    while status != Status::Offline(LinkError::PairingCode) {
        status = device.status_after(status).await;
    }
}

type App = fn(Device<'static>, &'static str) -> std::pin::Pin<Box<dyn Future<Output = ()>>>;

/// One time, with a code; afterwards with what is in flash.
#[test]
fn a_device_is_paired_once() {
    let Some(house) = house(&[]) else { return };
    let mut alice = alice(&house);
    let home = r#"{"op":"create","name":"Home","household":true}"#;
    alice.publish_for(1, "im/v1/me/group/g-home", home);
    for (wire, name) in [(0, "plug"), (1, "fan"), (2, "tap")] {
        alice.publish_for(1, "im/v1/me/pair", r#"{"household":"g-home"}"#);
        let code = json(&alice.on("im/v1/me/pair/res"))["code"].as_str().expect("a code").to_owned();
        let (mqtt, native) = (house.broker.addr(), house.broker.address("parlor+tcp"));
        let device = std::thread::spawn(move || {
            let flash = BoardFlash::default();
            let live = |login, flash, app: fn(Device<'static>, &'static str) -> _| {
                let config = Config { login, terminal: name, ..config() };
                match wire {
                    0 => run(config, Mqtt::V5, &Road::to(mqtt), flash, |device| app(device, name)),
                    1 => run(config, Mqtt::V311, &Road::to(mqtt), flash, |device| app(device, name)),
                    _ => run(config, Native, &Road::to(native), flash, |device| app(device, name)),
                }
            };
            let code: &'static str = code.leak();
            let apps: [(Login, App); 3] = [
                (Login::Pair { code, name }, |device, name| Box::pin(first(device, name))),
                (Login::Stored, |device, name| Box::pin(second(device, name))),
                (Login::Stored, |device, name| Box::pin(third(device, name))),
            ];
            for (login, app) in apps {
                live(login, flash.clone(), app);
            }
        });
        hears(&mut alice, "im/v1/me/in/g-home/msg", &format!(r#"{{"from":"{name}","text":"here I am",…}}"#));
        device.join().expect("the device is content");
    }
}

/// Runs until the device is offline for a reason that has to do with its login.
fn refused(config: Config, road: &Road) -> LinkError {
    run(config, Mqtt::V5, road, NoFlash, |device| async move {
        let mut status = device.status();
        loop {
            if let Status::Offline(why) = status {
                return why;
            }
            status = device.status_after(status).await;
        }
    })
}

#[test]
fn a_device_knows_why_it_is_not_let_in() {
    let Some(house) = house(&[]) else { return };
    let road = Road::to(house.broker.addr());
    let wrong = Config { login: Login::Account { name: "lamp", secret: b"wrong" }, ..config() };
    assert_eq!(refused(wrong, &road), LinkError::CredentialsRefused);
    let nobody = Config { login: Login::Anonymous, ..config() };
    assert_eq!(refused(nobody, &road), LinkError::NotAuthorized);
    let answer = Operator::of(&house.broker).ask("PUT", "/accounts/lamp", r#"{"disabled":true}"#);
    assert!(answer.status < 300, "{}", answer.text());
    assert_eq!(refused(config(), &road), LinkError::Disabled);
    let closed = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port");
    assert_eq!(refused(config(), &Road::to(closed)), LinkError::Unreachable);
}

/// What is queued goes on over cuts, and a device that nobody hears of any more comes back by itself.
#[test]
fn cuts_heal() {
    let Some(house) = house(&[]) else { return };
    let mut alice = alice(&house);
    let addr = house.broker.addr();
    let device = std::thread::spawn(move || {
        let road = Road::to(addr);
        let cutter = road.clone();
        run(config(), Mqtt::V5, &road, NoFlash, |device| async move {
            device.online().await;
            for n in 0..10 {
                let text = format!("n{n}");
                let sent = device.send("alice", &text).await.expect("there is room");
                cutter.cut();
                assert_eq!(sent.acked().await, Outcome::Acked { seq: n + 1 });
                device.online().await;
            }
            let mut buffer = [0; 100];
            assert_eq!(device.next_message(&mut buffer).await.text, "stop");
            assert!(device.sleep(1).await);
        });
    });
    for n in 0..10 {
        hears(&mut alice, "im/v1/me/in/lamp/msg", &format!(r#"{{"seq":{},"text":"n{n}",…}}"#, n + 1));
    }
    alice.publish_for(1, "im/v1/to/lamp/msg", "stop");
    device.join().expect("the device is content");
}

/// What was in flash when the power went is sent after it, once, and who had a receipt for it gets one again.
#[test]
fn what_is_in_flash_is_sent_after_a_reboot() {
    const KEPT: &[Policy] = &[Policy { topic: "im/v1/to/#", keep: Keep::All, place: Place::Flash }];
    let Some(house) = house(&[]) else { return };
    let mut alice = alice(&house);
    let addr = house.broker.addr();
    let closed = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port");
    let device = std::thread::spawn(move || {
        let flash = BoardFlash::default();
        let config = Config { policies: KEPT, ..config() };
        let ids = run(config, Mqtt::V5, &Road::to(closed), flash.clone(), |device| async move {
            let mut ids = vec![];
            for text in ["one", "two"] {
                let sent = device.send("alice", text).await.expect("flash has it");
                assert_eq!(sent.outcome(), None);
                ids.push(sent.id());
            }
            ids
        });
        run(config, Mqtt::V5, &Road::to(addr), flash.clone(), |device| async move {
            let two = device.receipt(ids[1]).await.expect("flash has it");
            assert_eq!(two.acked().await, Outcome::Acked { seq: 2 });
            let one = device.earlier().await.expect("it was left");
            assert_eq!((one.id(), one.acked().await), (ids[0], Outcome::Acked { seq: 1 }));
            assert!(device.earlier().await.is_none(), "there were two");
            assert!(device.receipt(ids[0]).await.is_none(), "there is a receipt already");
            let sent = device.send("alice", "three").await.expect("flash has it");
            assert_eq!(sent.acked().await, Outcome::Acked { seq: 3 });
            assert!(device.sleep(1).await);
        });
        run(config, Mqtt::V5, &Road::to(addr), flash, |device| async move {
            assert_eq!(device.waiting(), 0, "nothing is left in flash");
            let sent = device.send("alice", "four").await.expect("flash has it");
            assert_eq!(sent.acked().await, Outcome::Acked { seq: 4 });
        });
    });
    for (seq, text) in [(1, "one"), (2, "two"), (3, "three"), (4, "four")] {
        hears(&mut alice, "im/v1/me/in/lamp/msg", &format!(r#"{{"seq":{seq},"text":"{text}",…}}"#));
    }
    device.join().expect("the device is content");
}

/// A command that is said once was begun when the power went.
#[test]
fn once_is_never_begun_twice() {
    let Some(house) = house(&[]) else { return };
    let mut alice = alice(&house);
    let addr = house.broker.addr();
    let device = std::thread::spawn(move || {
        let flash = BoardFlash::default();
        run(config(), Mqtt::V5, &Road::to(addr), flash.clone(), |device| async move {
            let command = device.next_command::<Lamp>().await;
            assert_eq!(command.id(), "o1");
            // The power goes: nothing is said any more.
            std::mem::forget(command);
        });
        run(config(), Mqtt::V5, &Road::to(addr), flash, |device| async move {
            let command = device.next_command::<Lamp>().await;
            assert_eq!(command.id(), "o2");
            command.done(()).await;
            assert!(device.sleep(1).await);
        });
    });
    let once = |id| format!(r#"{{"args":{{"on":true}},"id":"{id}","once":true,"persist":true,"deadline_ms":60000}}"#);
    alice.publish_for(1, "im/v1/to/lamp/cmd/set", once("o1"));
    hears(&mut alice, "im/v1/me/res/o1", r#"{"state":"unknown_outcome",…}"#);
    alice.publish_for(1, "im/v1/to/lamp/cmd/set", once("o2"));
    hears(&mut alice, "im/v1/me/res/o2", r#"{"state":"done",…}"#);
    device.join().expect("the device is content");
}

/// A device without flash does not promise what it cannot keep.
#[test]
fn without_flash_once_is_rejected() {
    let Some(house) = house(&[]) else { return };
    let mut alice = alice(&house);
    let addr = house.broker.addr();
    let device = std::thread::spawn(move || {
        run(config(), Mqtt::V5, &Road::to(addr), NoFlash, |device| async move {
            let command = device.next_command::<Lamp>().await;
            assert_eq!(command.id(), "c2");
            command.done(()).await;
            assert!(device.sleep(1).await);
        });
    });
    alice.publish_for(1, "im/v1/to/lamp/cmd/set", r#"{"args":{"on":true},"id":"c1","once":true,"deadline_ms":60000}"#);
    hears(&mut alice, "im/v1/me/res/c1", r#"{"state":"rejected","text":"this device cannot record a command",…}"#);
    alice.publish_for(1, "im/v1/to/lamp/cmd/set", r#"{"args":{"on":true},"id":"c2","deadline_ms":60000}"#);
    hears(&mut alice, "im/v1/me/res/c2", r#"{"state":"done",…}"#);
    device.join().expect("the device is content");
}

/// A second slot in RAM.
#[derive(Clone, Default)]
struct Slot {
    image: Rc<RefCell<Vec<u8>>>,
    /// The power goes after so many bytes.
    dies_at: Option<usize>,
    finished: Rc<RefCell<u32>>,
    confirmed: Rc<RefCell<u32>>,
}

impl Firmware for Slot {
    type Error = ();

    fn capacity(&self) -> u32 {
        200_000
    }

    async fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), ()> {
        let at = usize::try_from(offset).map_err(|_| ())?;
        if self.dies_at.is_some_and(|dies| at >= dies) {
            std::future::pending::<()>().await;
        }
        let mut image = self.image.borrow_mut();
        image.truncate(at);
        assert_eq!(image.len(), at, "nothing is left out");
        image.extend_from_slice(bytes);
        Ok(())
    }

    async fn read(&mut self, offset: u32, out: &mut [u8]) -> Result<(), ()> {
        let at = usize::try_from(offset).map_err(|_| ())?;
        out.copy_from_slice(self.image.borrow().get(at..at + out.len()).ok_or(())?);
        Ok(())
    }

    async fn finish(&mut self, size: u32) -> Result<(), ()> {
        *self.finished.borrow_mut() = size;
        Ok(())
    }

    async fn confirm(&mut self) -> Result<(), ()> {
        *self.confirmed.borrow_mut() += 1;
        Ok(())
    }
}

#[test]
fn a_device_takes_an_update_over_a_reset() {
    let Some(house) = house(&[]) else { return };
    let mut alice = alice(&house);
    let image: Vec<u8> = (0..100_003u32).map(|n| ((n * 7919) >> 5).to_le_bytes()[0]).collect();
    let answer = Operator::of(&house.broker).post("/blobs?name=lamp.bin&version=2&for=lamp", &image);
    let id = answer.json()["id"].as_str().unwrap_or_else(|| panic!("{}", answer.text())).to_owned();
    let maker = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).expect("a seed");
    let digest: Vec<u8> = (0..32).map(|n| u8::from_str_radix(&id[2 * n..2 * n + 2], 16).expect("hex")).collect();
    let signature = <base64ct::Base64 as base64ct::Encoding>::encode_string(maker.sign(&digest).as_ref());
    let public: [u8; 32] = maker.public_key().as_ref().try_into().expect("32 bytes");
    let (addr, expect) = (house.broker.addr(), image.clone());
    let device = std::thread::spawn(move || {
        const UPDATES: Describe = Describe { update: true, name: "Lamp", ..Describe::NOTHING };
        let (flash, slot) = (BoardFlash::default(), Slot::default());
        let config = Config { describe: UPDATES, ..config() };
        let maker = Ed25519(public);
        let live = |slot: Slot| {
            run(config, Mqtt::V5, &Road::to(addr), flash.clone(), move |device| async move {
                let mut slot = slot;
                let mut buffer = [0; 1040];
                loop {
                    let update = device.next_update().await;
                    let dies = slot.dies_at.is_some();
                    let install = update.install(&mut slot, &maker, &mut buffer);
                    tokio::select! {
                        done = install => match done {
                            Ok(()) => return,
                            Err(error) => assert_eq!(error, UpdateError::Signature),
                        },
                        // Long enough for what comes before the power goes.
                        () = pause(if dies { 2_000 } else { 60_000 }) => return,
                    }
                }
            });
        };
        live(Slot { dies_at: Some(50_000), ..slot.clone() });
        assert_eq!(*slot.finished.borrow(), 0);
        let lines = lines_of(|| live(slot.clone()));
        let resumed = lines.iter().position(|line| line == "INFO update to \"2\": 49152 of 100003 bytes");
        let installed = lines.iter().position(|line| line == "INFO update to \"2\" is installed");
        assert!(resumed.is_some() && resumed < installed, "{lines:#?}");
        assert_eq!(*slot.finished.borrow(), 100_003);
        assert!(*slot.image.borrow() == expect, "the image is the one that was offered");
        run(config, Mqtt::V5, &Road::to(addr), flash.clone(), |device| async move {
            device.online().await;
            device.finish_update("2", &mut slot.clone()).await.expect("it can be confirmed");
            assert_eq!(*slot.confirmed.borrow(), 1);
            device.finish_update("2", &mut slot.clone()).await.expect("there is nothing to do");
            assert_eq!(*slot.confirmed.borrow(), 1);
            assert!(device.sleep(1).await);
        });
    });
    let update = |command: &str, signature: &str| {
        let args =
            format!(r#"{{"blob":"{id}","version":"2","size":100003,"sha256":"{id}","signature":"{signature}"}}"#);
        format!(r#"{{"args":{args},"id":"{command}","persist":true}}"#)
    };
    let bad = format!("AAAA{}", &signature[4..]);
    alice.publish_for(1, "im/v1/to/lamp/cmd/update", update("u0", &bad));
    hears(&mut alice, "im/v1/me/res/u0", r#"{"state":"rejected","text":"the signature is not that of the maker",…}"#);
    alice.publish_for(1, "im/v1/to/lamp/cmd/update", update("u1", &signature));
    hears(&mut alice, "im/v1/me/res/u1", r#"{"state":"running",…}"#);
    hears(&mut alice, "im/v1/me/res/u1", r#"{"state":"done","result":{"version":"2"},…}"#);
    device.join().expect("the device is content");
}

/// Any other broker takes and gives ordinary topics.
#[test]
fn a_device_talks_to_mosquitto() {
    let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port").port();
    let installed =
        if std::path::Path::new("/usr/sbin/mosquitto").exists() { "/usr/sbin/mosquitto" } else { "mosquitto" };
    let spawned = std::process::Command::new(installed)
        .args(["-v", "-p", &port.to_string()])
        .stderr(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .spawn();
    let Ok(mut mosquitto) = spawned else {
        eprintln!("mosquitto is not installed");
        return;
    };
    let mut lines = BufReader::new(mosquitto.stderr.take().expect("stderr is piped")).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.contains("running")), "mosquitto starts");
    let reader = std::thread::spawn(move || lines.for_each(drop));
    for wire in [Mqtt::V5, Mqtt::V311] {
        const TOPICS: &[Subscription] = &[Subscription { filter: "home/#", qos: QoS::AtLeastOnce }];
        let config = Config { login: Login::Anonymous, listen: Listen::OTHER_BROKER, subscribe: TOPICS, ..config() };
        let road = Road::to(([127, 0, 0, 1], port).into());
        let cutter = road.clone();
        run(config, wire, &road, NoFlash, |device| async move {
            device.online().await;
            let mut buffer = [0; 100];
            for n in 0..5 {
                let payload = format!("{n}");
                let sent = device.publish("home/lamp", payload.as_bytes()).await.expect("there is room");
                assert_eq!(sent.acked().await, Outcome::Acked { seq: 0 });
                // The session is resumed: what was subscribed still is. At QoS 1 it may come twice.
                loop {
                    let (topic, heard) = device.next_publish(&mut buffer).await;
                    assert_eq!(topic, "home/lamp");
                    if heard == payload.as_bytes() {
                        break;
                    }
                }
                cutter.cut();
                let _ = device.status_after(Status::Online).await;
                device.online().await;
            }
            assert!(device.sleep(1).await);
        });
    }
    mosquitto.kill().expect("it is ours");
    mosquitto.wait().expect("it is ours");
    reader.join().expect("it ends with it");
}
