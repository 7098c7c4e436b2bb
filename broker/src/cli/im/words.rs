//! Events in words, one line each; and arguments of commands out of words.

use super::clock::Zone;
use parlor_client::model::wire::{Message, Refusal, Report};
use parlor_client::{Event, Told};
use serde_json::{Map, Value};

/// Control characters have no business on somebody's terminal: each becomes a space or a mark.
pub(super) fn clean(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\n' | '\t' => ' ',
            // Also the marks that turn the direction of writing.
            c if c.is_control() || ('\u{202A}'..='\u{202E}').contains(&c) || ('\u{2066}'..='\u{2069}').contains(&c) => {
                '\u{FFFD}'
            }
            c => c,
        })
        .collect()
}

/// What happened, for a person; `None`: nothing a person would want to read.
pub(super) fn line(told: &Told, zone: &Zone, now: u64) -> Option<String> {
    let time = zone.time(now);
    let text = match &told.event {
        Event::Connected => "connected".to_owned(),
        Event::Disconnected { why, .. } => format!("disconnected: {why}"),
        Event::Lost { re, why: refusal, .. } | Event::Refused { re, refusal } => refused(re, refusal),
        Event::Unreadable { text } => text.clone(),
        Event::Missed { events } => format!("{events} events came faster than they could be shown and are left out"),
        _ => return heard(told, zone, &time).map(|text| clean(&text)),
    };
    Some(clean(&format!("{time} {text}")))
}

/// A refusal in words.
pub(super) fn refused(re: &str, refusal: &Refusal) -> String {
    format!("refused ({}): {} [{re}]", refusal.code, refusal.text)
}

fn heard(told: &Told, zone: &Zone, now: &str) -> Option<String> {
    Some(match &told.event {
        Event::Message { with, message } => said(zone, with, message),
        Event::Sent { with, message, .. } => {
            format!("{} -> {with} #{}: {}", zone.time(message.ts), message.seq, message.shown())
        }
        Event::Receipt { with, receipt } => match (receipt.own, receipt.of) {
            (true, _) => format!("{now} {with}: read up to #{} on another terminal", receipt.read),
            (false, Some(of)) => {
                format!("{now} {with}: #{} is with {} of {of}, read by {}", receipt.seq, receipt.recv, receipt.read)
            }
            (false, None) => format!("{now} {with}: has up to #{}, has read up to #{}", receipt.recv, receipt.read),
        },
        Event::Recall { with, seq, by } => format!("{now} {with}: {by} recalled #{seq}"),
        Event::Edit { with, message } => format!("{now} {with}: #{} now reads: {}", message.seq, message.shown()),
        Event::Contact { with, op, own: true, .. } => format!("{now} {with}: contact {op}, on another terminal"),
        Event::Contact { with, op, text, .. } => {
            let text = text.as_ref().map(|text| format!(": {text}")).unwrap_or_default();
            match op.as_str() {
                "request" => format!("{now} {with} asks to be your contact{text}"),
                "accept" => format!("{now} {with} is your contact now"),
                op => format!("{now} {with}: contact {op}{text}"),
            }
        }
        Event::Typing { with, from, typing: true } if with == from => format!("{now} {from} is typing"),
        Event::Typing { with, from, typing: true } => format!("{now} {from} is typing to {with}"),
        Event::Typing { .. } => return None,
        Event::Stream { with, name, payload } => format!("{now} {with} {name} = {}", String::from_utf8_lossy(payload)),
        Event::Bounce { with, refusal, .. } => {
            format!("{now} {with}: did not get there ({}): {}", refusal.code, refusal.text)
        }
        Event::Gap { from, to, why } => format!("{now} mailbox entries {from} to {to} are gone: {why}"),
        Event::CommandResult { id, report } => {
            format!("{now} {} {} {}: {}", report.device, report.name, id, progress(report))
        }
        Event::Presence { presence, .. } if presence.state.is_empty() => return None,
        Event::Presence { with, presence } => {
            let until = presence.until.map(|until| format!(" until {}", zone.time(until))).unwrap_or_default();
            format!("{now} {with} is {}{until}", presence.state)
        }
        Event::State { device, state } => {
            let by = state.by.as_ref().map(|by| format!(" (by {by})")).unwrap_or_default();
            format!("{now} {device} = {}{by}", Value::Object(state.reported.clone()))
        }
        Event::Command { name, order, .. } => format!("{now} {} commands {name} {}", order.from, order.args),
        Event::Delta { desired, .. } => format!("{now} desired: {}", Value::Object(desired.clone())),
        Event::Answer { re, .. } => format!("{now} {re}: {}", told.body),
        _ => return None,
    })
}

fn said(zone: &Zone, with: &str, message: &Message) -> String {
    let who = if with == message.from { with.to_owned() } else { format!("{with}/{}", message.from) };
    format!("{} {who} #{}: {}", zone.time(message.ts), message.seq, message.shown())
}

/// Where a command is, in words.
pub(super) fn progress(report: &Report) -> String {
    let mut text = report.state.clone();
    let percent = report.result.as_ref().and_then(|result| result["progress"].as_u64());
    match (percent, &report.result) {
        (Some(percent), _) if report.state == "running" => text.push_str(&format!(" {percent} %")),
        (_, Some(result)) => text.push_str(&format!(" {result}")),
        (_, None) => {}
    }
    if let Some(said) = &report.text {
        text.push_str(&format!(" ({said})"));
    }
    text
}

/// Arguments of a command: one JSON value, or `key=value` words.
pub(super) fn arguments(words: &[&str]) -> Result<Value, ArgumentsError> {
    let Some(first) = words.first() else { return Ok(Value::Object(Map::new())) };
    if first.starts_with(['{', '[', '"']) || (words.len() == 1 && !first.contains('=')) {
        let text = words.join(" ");
        return serde_json::from_str(&text).map_err(|error| ArgumentsError::Json { text, error });
    }
    let mut all = Map::new();
    for word in words {
        let (key, value) = word.split_once('=').ok_or_else(|| ArgumentsError::NoValue((*word).to_owned()))?;
        if key.is_empty() {
            return Err(ArgumentsError::NoValue((*word).to_owned()));
        }
        all.insert(key.to_owned(), scalar(value));
    }
    Ok(Value::Object(all))
}

/// `21` is a number, `true` and `on=` are what they look like, everything else a text.
fn scalar(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned()))
}

/// Arguments cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum ArgumentsError {
    #[error(
        "`{text}` is no JSON: {error}; write it as one argument in quotes: '{{\"on\":true}}', or as words: on=true"
    )]
    Json { text: String, error: serde_json::Error },
    #[error("`{0}` is not KEY=VALUE; write for example on=true level=40, or '{{\"on\":true,\"level\":40}}'")]
    NoValue(String),
}

#[cfg(test)]
mod tests {
    use super::*;
    use parlor_client::model::wire;
    use serde_json::json;

    #[test]
    fn events_become_lines() {
        let check = |topic: &str, payload: &str, expect: Option<&str>| {
            let heard = wire::read(&format!("im/v1/{topic}"), payload.as_bytes()).unwrap();
            assert_eq!(line(&heard, &Zone::default(), 3_723_000).as_deref(), expect);
        };
        let text = r#"{"seq":12,"from":"bob","ts":60000,"text":"hi\u001b[2J\nall"}"#;
        check("me/in/bob/msg", text, Some("00:01:00 bob #12: hi\u{FFFD}[2J all"));
        check("me/in/g-home/msg", r#"{"seq":1,"from":"bob","text":"x"}"#, Some("00:00:00 g-home/bob #1: x"));
        check("me/sent", r#"{"to":"bob","seq":2,"text":"x"}"#, Some("00:00:00 -> bob #2: x"));
        check("me/in/bob/receipt", r#"{"recv":3,"read":2}"#, Some("01:02:03 bob: has up to #3, has read up to #2"));
        check(
            "me/in/g-home/receipt",
            r#"{"seq":4,"recv":3,"read":1,"of":5}"#,
            Some("01:02:03 g-home: #4 is with 3 of 5, read by 1"),
        );
        check("me/in/bob/contact", r#"{"op":"request","text":"me"}"#, Some("01:02:03 bob asks to be your contact: me"));
        check("me/in/bob/typing", r#"{"from":"bob","typing":true}"#, Some("01:02:03 bob is typing"));
        check("me/in/bob/typing", r#"{"from":"bob","typing":false}"#, None);
        check("presence/lamp", r#"{"state":"asleep","until":7200000}"#, Some("01:02:03 lamp is asleep until 02:00:00"));
        check(
            "state/lamp",
            r#"{"version":1,"reported":{"on":true},"by":"alice"}"#,
            Some("01:02:03 lamp = {\"on\":true} (by alice)"),
        );
        check(
            "me/res/c1",
            r#"{"device":"lamp","name":"set","state":"done","result":1,"text":"on"}"#,
            Some("01:02:03 lamp set c1: done 1 (on)"),
        );
        check("me/head", r#"{"unread":1}"#, None);
        check(
            "me/in/me/gap",
            r#"{"from":1,"to":2,"why":"retention"}"#,
            Some("01:02:03 mailbox entries 1 to 2 are gone: retention"),
        );
    }

    #[test]
    fn arguments_are_json_or_words() {
        let check = |text: &str, expect: Value| {
            let words: Vec<&str> = text.split(' ').filter(|word| !word.is_empty()).collect();
            assert_eq!(arguments(&words).unwrap(), expect, "{text}");
        };
        check("", json!({}));
        check("{\"target\":21}", json!({"target": 21}));
        check("{\"target\": 21}", json!({"target": 21}));
        check(
            "target=21.5 mode=eco on=true name=\"7\"",
            json!({"target": 21.5, "mode": "eco", "on": true, "name": "7"}),
        );
        check("[1]", json!([1]));
        check("7", json!(7));
        check("a=b=c", json!({"a": "b=c"}));
        for (words, hint) in [(["on", "off"], "KEY=VALUE"), (["{", "x"], "no JSON"), (["=1", "b=2"], "KEY=VALUE")] {
            assert!(arguments(&words).unwrap_err().to_string().contains(hint), "{words:?}");
        }
        assert!(arguments(&["on"]).unwrap_err().to_string().contains("on=true"));
    }
}
