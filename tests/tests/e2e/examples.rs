//! The client library's examples, against the demo's household, as their first lines say.

use crate::demo::{Demo, PASSWORD};
use parlor_tests::lines::Lines;
use parlor_tests::server::Broker;
use std::process::Command;

/// The program of an example.
fn example(name: &str) -> Command {
    Command::new(Broker::binary().with_file_name("examples").join(name))
}

fn url(demo: &Demo, account: &str) -> String {
    format!("mqtt://{account}:{PASSWORD}@{}", demo.mqtt)
}

#[test]
fn hello_is_answered() {
    let demo = Demo::start();
    let ws = demo.ws.replacen("ws://", &format!("ws://alice:{PASSWORD}@"), 1);
    for url in [url(&demo, "alice"), ws] {
        let mut command = example("hello");
        command.arg(url);
        let mut hello = Lines::start(command, "hello");
        let id = hello.until("id", |line| line.strip_prefix("sent as ").map(str::to_owned));
        hello.until("receipt", |line| line.starts_with(&format!("{id} is on the broker's disk")).then_some(()));
        hello.until("answer", |line| line.starts_with("lamp: ").then_some(()));
        hello.finish();
    }
}

/// Its lines outlive the broker's absence, and an own end.
#[test]
fn the_gateway_loses_nothing() {
    let mut demo = Demo::start();
    let outbox = demo.file("outbox");
    let gateway = || {
        let mut command = example("gateway");
        command.args(["alice", &url(&demo, "bob"), &outbox]);
        command
    };
    let (first, second) = (gateway(), gateway());
    demo.kill();
    let mut cut_short = Lines::start(first, "gateway");
    cut_short.say("the door is open");
    cut_short.say("the door is closed");
    cut_short.no_more();
    cut_short.until("second try", |line| line.contains("the next try comes in").then_some(()));
    cut_short.until("third try", |line| line.contains("the next try comes in").then_some(()));
    drop(cut_short);
    demo.start_again();
    let mut gateway = Lines::start(second, "gateway");
    gateway.say("the door is open again");
    gateway.no_more();
    for _ in 0..3 {
        gateway.until("receipt", |line| line.contains(": received, number ").then_some(()));
    }
    assert_eq!(gateway.finish(), ["0 left for the next run"]);
}

#[test]
fn the_device_does_as_it_is_told() {
    let demo = Demo::start();
    let mut command = example("device");
    command.args([&url(&demo, "lamp"), "1"]);
    let mut device = Lines::start(command, "device");
    device.until("greeting", |line| (line == "here I am").then_some(()));
    let told = Command::new(Broker::binary())
        .args(["cmd", "--demo", "alice", "--url", &format!("mqtt://{}", demo.mqtt), "lamp", "set", "on=true"])
        .output()
        .expect("parlor starts");
    let said = String::from_utf8_lossy(&told.stdout).into_owned();
    assert!(told.status.success() && said.contains("done {\"on\":true}"), "{said}");
    device.until("light", |line| (line == "alice makes it light").then_some(()));
    assert_eq!(device.finish(), [""; 0]);
}
