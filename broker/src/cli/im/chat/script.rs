//! Chat for programs: commands in as lines, events out as lines of JSON.

use super::act::act;
use super::slash::{Wish, parse};
use crate::cli::Exit;
use crate::cli::im::options::Options;
use crate::cli::im::place::Purpose;
use crate::cli::im::session::{Session, SessionError, Step};
use crate::cli::im::{no_broker, now_ms, until_told_to_end};
use parlor_client::Listen;
use parlor_client::model::up::{Draft, Instruction, is_address};
use parlor_client::model::{Messenger, OutboxFull};
use serde::Deserialize;
use serde_json::{Value, json};
use std::io::{self, BufRead, Read, Write};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Longest line read, bytes.
const LINE_BYTES_MAX: u64 = 256 * 1024;
/// Lines read ahead.
const LINES_MAX: usize = 16;
/// After the last line was answered: how long its consequences are waited for.
const GRACE: Duration = Duration::from_secs(1);
/// How long an answer to the last line is waited for.
const PATIENCE: Duration = Duration::from_secs(15);

/// A line of JSON.
#[derive(Debug, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Request {
    Send(Send),
    Cmd(Cmd),
    Cancel {
        device: String,
        id: String,
    },
    Read {
        with: String,
        seq: u64,
    },
    Typing {
        with: String,
    },
    Edit {
        with: String,
        seq: Option<u64>,
        text: String,
    },
    Recall {
        with: String,
        seq: Option<u64>,
    },
    Older {
        with: String,
    },
    Publish {
        topic: String,
        #[serde(default)]
        payload: Value,
    },
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Send {
    to: String,
    text: Option<String>,
    body: Option<Value>,
    kind: Option<String>,
    id: Option<String>,
    ttl_s: Option<u64>,
    re: Option<u64>,
    #[serde(default)]
    quiet: bool,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Cmd {
    device: String,
    name: String,
    #[serde(default)]
    args: Value,
    id: Option<String>,
    deadline_ms: Option<u64>,
    #[serde(default)]
    persist: bool,
    #[serde(default)]
    once: bool,
}

/// A line cannot be carried out.
#[derive(Debug, thiserror::Error)]
enum LineError {
    #[error("{0}; see `parlor chat --help`")]
    Json(serde_json::Error),
    #[error(transparent)]
    Slash(#[from] super::slash::SlashError),
    #[error(transparent)]
    Act(#[from] super::act::ActError),
    #[error(transparent)]
    Full(#[from] OutboxFull),
    #[error("`{0}` is no address; write ADDRESS TEXT, /COMMAND, or a JSON object")]
    Address(String),
}

/// Talks to a program.
pub(super) async fn run(open: Option<&str>, options: &Options) -> Result<Exit, SessionError> {
    let mut session = Session::start(options, Purpose::Chat, Listen::All).await?;
    let mut lines = read_lines();
    let told = until_told_to_end();
    tokio::pin!(told);
    // When everything said must have been answered; `None` while there is more to say.
    let mut end: Option<Instant> = None;
    let mut is_settling = false;
    let exit = loop {
        let is_over = async {
            match end {
                Some(end) => tokio::time::sleep_until(end).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            step = session.step() => match step {
                Step::NoBroker { why, .. } => break no_broker(options, &why),
                Step::Ended(error) => return Err(error.into()),
                // Whoever read this may have had enough.
                Step::Told(told) => if !say(&told.to_json()) {
                    break Exit::Done;
                },
            },
            // What waits for the broker is bounded, so lines are read only while there is room.
            line = lines.recv(), if end.is_none() && session.client.with(|messenger| messenger.is_connected()) => match line {
                Some(line) => {
                    if let Err(error) = session.client.with(|messenger| obey(messenger, &line, open)) {
                        say(&json!({"event": "error", "text": error.to_string(), "line": line.trim()}));
                    }
                }
                None => end = Some(Instant::now() + PATIENCE),
            },
            () = is_over => break Exit::Done,
            () = &mut told => break Exit::Done,
        }
        if end.is_some() && !is_settling && session.client.with(|messenger| messenger.waiting()) == 0 {
            is_settling = true;
            end = Some(Instant::now() + GRACE);
        }
    };
    session.close().await;
    Ok(exit)
}

/// Prints an object; `false`: nobody reads any more.
fn say(object: &Value) -> bool {
    let mut out = io::stdout().lock();
    writeln!(out, "{object}").and_then(|()| out.flush()).is_ok()
}

/// A thread that waits for lines: standard input cannot be waited for otherwise.
fn read_lines() -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel(LINES_MAX);
    std::thread::spawn(move || {
        let mut input = io::stdin().lock();
        loop {
            let mut line = Vec::new();
            match input.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line) {
                Ok(1..) => {}
                Ok(0) | Err(_) => return,
            }
            if sender.blocking_send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                return;
            }
        }
    });
    receiver
}

/// Carries a line out.
fn obey(messenger: &mut Messenger, line: &str, open: Option<&str>) -> Result<(), LineError> {
    let line = line.trim_end_matches(['\n', '\r']);
    let now = now_ms();
    if line.trim_start().starts_with('{') {
        return request(messenger, serde_json::from_str(line).map_err(LineError::Json)?, now);
    }
    let wish = match (open, line.starts_with('/')) {
        (None, false) if !line.trim().is_empty() => {
            let (to, text) = line.trim_start().split_once(char::is_whitespace).unwrap_or((line.trim(), ""));
            if !is_address(to) || text.trim().is_empty() {
                return Err(LineError::Address(to.to_owned()));
            }
            Wish::Say { to: to.to_owned(), text: text.trim().to_owned() }
        }
        _ => parse(line, open)?,
    };
    Ok(act(messenger, wish, now)?)
}

fn request(messenger: &mut Messenger, request: Request, now: u64) -> Result<(), LineError> {
    match request {
        Request::Send(Send { to, text, body, kind, id, ttl_s, re, quiet }) => {
            check(&to)?;
            messenger.send(&to, &Draft { text, body, kind, id, ttl_s, re, quiet }, now)?;
        }
        Request::Cmd(Cmd { device, name, args, id, deadline_ms, persist, once }) => {
            check(&device)?;
            messenger.command(&device, &Instruction { name, args, id, deadline_ms, persist, once }, now)?;
        }
        Request::Cancel { device, id } => messenger.cancel(check(&device)?, &id)?,
        Request::Read { with, seq } => messenger.read(check(&with)?, seq),
        Request::Typing { with } => messenger.type_to(check(&with)?, now),
        Request::Older { with } => messenger.pull_older(check(&with)?),
        Request::Edit { with, seq, text } => act(messenger, Wish::Edit { with, seq, text }, now)?,
        Request::Recall { with, seq } => act(messenger, Wish::Recall { with, seq }, now)?,
        Request::Publish { topic, payload } => {
            let below = topic.strip_prefix("im/v1/").unwrap_or(&topic);
            messenger.ask(below, payload)?;
        }
    }
    Ok(())
}

fn check(address: &str) -> Result<&str, LineError> {
    if is_address(address) { Ok(address) } else { Err(LineError::Address(address.to_owned())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn published(line: &str, open: Option<&str>) -> Vec<(String, Value)> {
        let mut alice = Messenger::new("alice", 7);
        alice.handle_connected();
        obey(&mut alice, line, open).unwrap();
        std::iter::from_fn(|| alice.poll_publish())
            .map(|p| (p.topic, serde_json::from_slice(&p.payload).unwrap_or(Value::Null)))
            .collect()
    }

    #[test]
    fn lines_become_publishes() {
        let check = |line: &str, open: Option<&str>, topic: &str, payload: Value| {
            assert_eq!(published(line, open), [(format!("im/v1/{topic}"), payload)], "{line}");
        };
        let said = json!({"id": "7-0", "text": "on now"});
        check("lamp on now\n", None, "to/lamp/msg", said.clone());
        check("on now\r\n", Some("lamp"), "to/lamp/msg", said);
        check("/request bob", None, "me/contact/bob", json!({"op": "request", "id": "7-0"}));
        let line = r#"{"send":{"to":"lamp","text":"hi","id":"a","quiet":true}}"#;
        check(line, None, "to/lamp/msg", json!({"id": "a", "text": "hi", "notify": false}));
        let line = r#"{"cmd":{"device":"lamp","name":"set","args":{"on":true},"deadline_ms":5}}"#;
        check(line, None, "to/lamp/cmd/set", json!({"id": "7-0", "args": {"on": true}, "deadline_ms": 5}));
        check(r#"{"cancel":{"device":"lamp","id":"c1"}}"#, None, "to/lamp/cmdcancel/c1", Value::Null);
        check(r#"{"read":{"with":"bob","seq":7}}"#, None, "to/bob/receipt", json!({"read": 7}));
        check(r#"{"typing":{"with":"bob"}}"#, None, "to/bob/typing", json!({"typing": true}));
        check(r#"{"edit":{"with":"bob","seq":7,"text":"x"}}"#, None, "to/bob/edit", json!({"seq": 7, "text": "x"}));
        check(r#"{"recall":{"with":"bob","seq":7}}"#, None, "to/bob/recall", json!({"seq": 7}));
        let line = r#"{"publish":{"topic":"im/v1/me/convs","payload":{"id":"x"}}}"#;
        check(line, None, "me/convs", json!({"id": "x"}));
        assert!(published("\n", None).is_empty());
    }

    #[test]
    fn wrong_lines_are_explained() {
        let check = |line: &str, word: &str| {
            let error = obey(&mut Messenger::new("alice", 7), line, None).unwrap_err().to_string();
            assert!(error.contains(word), "{line}: {error}");
        };
        check("Lamp on", "`Lamp` is no address");
        check("lamp", "ADDRESS TEXT");
        check("{\"sned\":{}}", "unknown variant `sned`");
        check("{\"send\":{\"to\":\"a/b\",\"text\":\"x\"}}", "no address");
        check("{\"send\":{\"text\":\"x\"}}", "missing field `to`");
        check("/recall", "whom?");
        check("{\"recall\":{\"with\":\"bob\"}}", "no message of yours");
    }
}
