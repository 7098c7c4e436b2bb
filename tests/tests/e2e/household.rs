//! The demo's household through `parlor send`, `cmd`, `watch` and `chat --json`: what people, a lamp and a thermostat do there.

use crate::demo::{Demo, PASSWORD};
use crate::peer::all_here;
use parlor_tests::lines::Lines;
use parlor_tests::server::Broker;
use serde_json::{Value, json};
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// The command line of one user, with a home of its own.
struct User {
    home: PathBuf,
    url: String,
}

/// How a command ended.
struct Ended {
    code: i32,
    out: String,
    err: String,
}

impl User {
    fn new(demo: &Demo) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let home = std::env::temp_dir().join(format!("parlor-user-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&home).expect("the temporary directory can be written");
        Self { home, url: format!("mqtt://{}", demo.mqtt) }
    }

    fn command(&self, line: &str) -> Command {
        let mut command = Command::new(Broker::binary());
        // Words in quotes may hold spaces.
        for (at, part) in line.split('\'').enumerate() {
            if at % 2 == 1 {
                command.arg(part);
            } else {
                command.args(part.split_whitespace());
            }
        }
        command.args(["--url", &self.url]).env("HOME", &self.home).stdin(Stdio::null());
        for name in ["XDG_STATE_HOME", "XDG_CONFIG_HOME", "PARLOR_PASSWORD"] {
            command.env_remove(name);
        }
        command
    }

    fn run(&self, line: &str) -> Ended {
        let Output { status, stdout, stderr } = self.command(line).output().expect("the program starts");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ended { code: status.code().unwrap_or(-1), out: text(&stdout), err: text(&stderr) }
    }

    #[track_caller]
    fn check(&self, line: &str, code: i32) -> Ended {
        let ended = self.run(line);
        assert_eq!(ended.code, code, "parlor {line}\n{}{}", ended.out, ended.err);
        ended
    }

    fn talk(&self, line: &str) -> Talk {
        Talk(Lines::start(self.command(line), line))
    }
}

impl Drop for User {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.home);
    }
}

/// A `--json` program that runs.
struct Talk(Lines);

impl Talk {
    fn say(&mut self, line: &str) {
        self.0.say(line);
    }

    /// The next event that `is` right.
    #[track_caller]
    fn until(&mut self, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        self.0.until(what, |line| Some(event(line)).filter(&is))
    }

    #[track_caller]
    fn event(&mut self, event: &str, with: &str) -> Value {
        self.until(event, |e| e["event"] == event && e["with"] == with)
    }

    #[track_caller]
    fn connected(&mut self) {
        self.until("connection", |e| e["event"] == "connected");
    }

    /// No more lines; it ends by itself.
    #[track_caller]
    fn finish(self) -> Vec<Value> {
        self.0.finish().iter().map(|line| event(line)).collect()
    }
}

fn event(line: &str) -> Value {
    serde_json::from_str(line).expect("a line is a JSON object")
}

#[test]
fn a_message_is_sent_once_and_its_fate_is_known() {
    let demo = Demo::start();
    let user = User::new(&demo);
    let first = user.check("send --demo alice bob --id greeting 'good morning'", 0);
    let again = user.check("send --demo alice bob --id greeting 'good morning' --json", 0);
    let again: Value = serde_json::from_str(&again.out).expect("JSON");
    assert_eq!((&again["dup"], again["seq"].to_string().as_str()), (&json!(true), first.out.trim()));
    let other = user.check("send --demo alice bob --id greeting 'good evening'", 1);
    assert!(other.err.contains("id_reused"), "{}", other.err);
    let read = user.check("send --demo alice lamp on --wait read", 0);
    assert!(read.out.ends_with("read\n"), "the lamp reads what it answers: {}", read.out);
    assert!(user.check("send --demo alice nobody hi", 1).err.contains("not_found"));
    let long = format!("send --demo alice bob '{}'", "x".repeat(66_000));
    assert!(user.check(&long, 1).err.contains("too_large"));
    user.check("send --demo alice bob hi --wait read --timeout 1", 5);
    user.check("send --demo alice Bob hi", 2);
    let mut elsewhere = User::new(&demo);
    elsewhere.url = "mqtt://127.0.0.1:1".into();
    assert!(elsewhere.check("send --demo alice bob hi", 4).err.contains("no broker answers"));
}

#[test]
fn commands_end_as_the_device_says() {
    let demo = Demo::start();
    let user = User::new(&demo);
    let done = user.check("cmd --demo alice lamp set on=true level=40 --id c1", 0);
    let words: Vec<&str> = done.out.lines().filter_map(|line| line.split(' ').next()).collect();
    assert!(words.contains(&"delivered") && words.contains(&"running"), "{}", done.out);
    assert!(done.out.ends_with("done {\"level\":40,\"on\":true}\n"), "{}", done.out);
    let again = user.check("cmd --demo alice lamp set on=true level=40 --id c1", 0);
    assert!(again.out.contains("done"), "{}", again.out);
    assert!(user.check("cmd --demo alice lamp set level=400", 6).out.contains("from 0 to 100"));
    user.check("cmd --demo alice lamp explode", 6);
    let person = user.check("cmd --demo alice bob set on=true --deadline 2", 1);
    assert!(person.err.contains("forbidden"), "{}", person.err);
    user.check("cmd --demo alice lamp set on", 2);
}

#[test]
fn a_sleeping_device_is_waited_for_or_not() {
    let demo = Demo::start();
    let user = User::new(&demo);
    let mut bob = user.talk("watch --demo bob lamp --json");
    bob.connected();
    user.check("cmd --demo alice lamp sleep for_s=6", 0);
    bob.until("lamp asleep", |e| e["event"] == "presence" && e["state"] == "asleep");
    user.check("cmd --demo alice lamp set on=true --deadline 1", 7);
    user.check("cmd --demo alice lamp set level=7 --persist --no-wait --id night", 0);
    user.check("cmd --demo alice lamp set level=8 --persist --no-wait --id never", 0);
    user.check("cmd --demo alice lamp --cancel never", 0);
    let done = user.check("cmd --demo alice lamp set level=7 --persist --deadline 20 --id morning", 0);
    assert!(done.out.contains("queued") && done.out.contains("done"), "{}", done.out);
    bob.until("lamp online", |e| e["event"] == "presence" && e["state"] == "online");
    let state = user.talk("watch --demo bob lamp --json").until("state", |e| e["event"] == "state");
    assert_eq!(state["reported"]["level"], 7);
}

#[test]
fn what_is_desired_is_followed_and_everybody_sees_it() {
    let demo = Demo::start();
    let user = User::new(&demo);
    let mut bob = user.talk("watch --demo bob --json");
    bob.connected();
    let mut alice = user.talk("chat --demo alice --json");
    alice.connected();
    alice.say(r#"{"publish":{"topic":"to/thermo1/desired","payload":{"target":23.5}}}"#);
    let state = bob.until("target", |e| e["event"] == "state" && e["reported"]["target"] == 23.5);
    assert_eq!(state["with"], "thermo1");
    alice.say("thermo1 18");
    let answer = alice.event("message", "thermo1");
    assert!(answer["text"].as_str().is_some_and(|text| text.contains("18 °C wanted")), "{answer}");
    bob.until("target", |e| e["event"] == "state" && e["reported"]["target"] == 18);
}

#[test]
fn a_household_talks() {
    let demo = Demo::start();
    let user = User::new(&demo);
    let mut bob = user.talk("chat --demo bob g-home --json");
    bob.connected();
    let mut alice = user.talk("chat --demo alice --json");
    alice.connected();
    alice.say("g-home dinner is ready");
    let heard = bob.until("the call", |e| e["event"] == "message" && e["text"] == "dinner is ready");
    assert_eq!((&heard["from"], &heard["with"]), (&json!("alice"), &json!("g-home")));
    bob.say(&json!({"read": {"with": "g-home", "seq": heard["seq"]}}).to_string());
    alice.until("counts", |e| e["event"] == "receipt" && e["with"] == "g-home" && e["read"].as_u64() >= Some(1));
    bob.say("lamp: on");
    let answer = alice.until("the lamp's answer", |e| e["event"] == "message" && e["from"] == "lamp");
    assert!(answer["text"].as_str().is_some_and(|text| text.contains("I am on")), "{answer}");
    bob.say(r#"{"send":{"to":"alice","text":"a typo"}}"#);
    let typo = alice.event("message", "bob");
    bob.say(&json!({"edit": {"with": "alice", "seq": typo["seq"], "text": "no typo"}}).to_string());
    assert_eq!(alice.event("edit", "bob")["text"], "no typo");
    bob.say(r#"{"recall":{"with":"alice"}}"#);
    assert_eq!(alice.event("recall", "bob")["seq"], typo["seq"]);
    bob.say(r#"{"typing":{"with":"alice"}}"#);
    alice.event("typing", "bob");
    bob.say("/whois alice");
    bob.until("alice's profile", |e| {
        e["event"] == "answer" && e["re"].as_str().is_some_and(|re| re.ends_with("whois/alice"))
    });
    bob.finish();
}

#[test]
fn a_program_at_its_end_waits_for_the_answers() {
    let demo = Demo::start();
    let user = User::new(&demo);
    let mut alice = user.talk("chat --demo alice --json");
    alice.say("lamp on");
    alice.say(r#"{"cmd":{"device":"lamp","name":"set","args":{"level":5},"id":"c9"}}"#);
    alice.say("{\"sned\":{}}");
    let events = alice.finish();
    let has = |is: &dyn Fn(&Value) -> bool| events.iter().any(is);
    assert!(has(&|e| e["event"] == "accepted" && e["re"] == "to/lamp/msg"), "{events:#?}");
    assert!(has(&|e| e["event"] == "command" && e["id"] == "c9" && e["state"] == "done"), "{events:#?}");
    assert!(has(&|e| e["event"] == "error"), "{events:#?}");
}

#[test]
fn watch_ends_when_it_has_seen_enough() {
    let demo = Demo::start();
    let user = User::new(&demo);
    user.check("watch --demo bob alice --count 1 --for 1", 5);
    let mut bob = user.talk("watch --demo bob alice --count 1 --json");
    bob.connected();
    user.check("send --demo alice bob hi", 0);
    assert_eq!(bob.event("message", "alice")["text"], "hi");
    bob.finish();
    let text = user.check("watch --demo bob --for 1", 0).out;
    assert!(text.contains("lamp is online"), "{text}");
}

#[test]
fn a_broker_that_dies_loses_and_doubles_nothing() {
    let mut demo = Demo::start();
    let user = User::new(&demo);
    let mut bob = user.talk("chat --demo bob --json");
    bob.connected();
    let mut alice = user.talk("chat --demo alice --json");
    alice.connected();
    for number in 0..5 {
        alice.say(&format!("bob before {number}"));
    }
    demo.kill();
    alice.until("loss", |e| e["event"] == "disconnected");
    demo.start_again();
    alice.connected();
    alice.say("bob after");
    let mut texts = vec![];
    loop {
        let text = bob.event("message", "alice")["text"].as_str().unwrap_or_default().to_owned();
        texts.push(text.clone());
        if text == "after" {
            break;
        }
    }
    assert_eq!(texts, ["before 0", "before 1", "before 2", "before 3", "before 4", "after"]);
}

#[test]
fn a_second_start_changes_nothing() {
    let mut demo = Demo::start();
    let user = User::new(&demo);
    let members = |user: &User| {
        let mut alice = user.talk("chat --demo alice --json");
        alice.connected();
        alice.say(r#"{"publish":{"topic":"me/history","payload":{"with":"g-home"}}}"#);
        let history = alice.until("history", |e| e["event"] == "answer" && e["with"] == "g-home");
        history["messages"].as_array().map(Vec::len)
    };
    let before = members(&user);
    demo.stop();
    demo.start_again();
    assert_eq!(members(&user), before);
    user.check("send --demo bob thermo1 status --wait read", 0);
}

#[test]
fn passwords_come_by_environment_file_or_standard_input() {
    let demo = Demo::start();
    let user = User::new(&demo);
    let run = |password: &str| {
        let mut command = user.command("send --user alice bob hi");
        command.env("PARLOR_PASSWORD", password).output().expect("the program starts")
    };
    assert!(run(PASSWORD).status.success());
    let wrong = run("wrong");
    assert_eq!(wrong.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("refuses the user name or password"));
    let nobody = user.check("send --user alice bob hi", 2);
    assert!(nobody.err.contains("PARLOR_PASSWORD"), "{}", nobody.err);
    let mut child =
        user.command("send --user alice --password-stdin bob -").stdin(Stdio::piped()).spawn().expect("starts");
    let mut stdin = child.stdin.take().expect("stdin is piped");
    write!(stdin, "{PASSWORD}\nthe text\nof two lines\n").expect("it reads");
    drop(stdin);
    assert!(child.wait().expect("it ends").success());
}

#[test]
fn stock_clients_command_and_hear() {
    if !all_here() {
        return;
    }
    let demo = Demo::start();
    let (host, port) = demo.mqtt.rsplit_once(':').expect("HOST:PORT");
    let mosquitto = |program: &str, rest: &[&str]| {
        let output = Command::new(program)
            .args(["-h", host, "-p", port, "-V", "5", "-u", "alice", "-P", PASSWORD, "-W", "15"])
            .args(rest)
            .output()
            .expect("mosquitto-clients are installed");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let answer =
        mosquitto("mosquitto_rr", &["-t", "im/v1/to/thermo1/cmd/set", "-e", "im/v1/me/res/a", "-m", "{\"target\":21}"]);
    assert!(answer.contains("\"done\"") && answer.contains("21"), "{answer}");
    let presence = mosquitto("mosquitto_sub", &["-t", "im/v1/presence/lamp", "-C", "1"]);
    assert!(presence.contains("online"), "{presence}");
    let state = mosquitto("mosquitto_sub", &["-t", "im/v1/state/thermo1", "-C", "1"]);
    assert!(state.contains("\"target\":21"), "{state}");
}
