//! Devices that exist only here: what they can do and what they say. They have no sockets and no clock; `run` gives them both.

mod lamp;
pub(in crate::cli) mod run;
mod thermostat;

pub(super) use lamp::Lamp;
pub(super) use thermostat::Thermostat;

use serde_json::{Map, Value, json};

/// A device, seen from the network.
pub(super) trait Device: Send {
    /// What it can do: the payload of `me/describe`.
    fn describe(&self) -> Value;

    /// Everything about its state.
    fn reported(&self) -> Map<String, Value>;

    /// Sets what `wish` names, all of it or nothing.
    fn set(&mut self, wish: &Map<String, Value>) -> Result<(), Unwilling>;

    /// What an answer in words says about its state.
    fn words(&self) -> String;

    /// What somebody wants who writes this, as a wish.
    fn wish(&self, text: &str) -> Option<Map<String, Value>>;

    /// Some seconds have passed; whether its state has changed.
    fn tick(&mut self) -> bool {
        false
    }
}

/// Why a device does not do what it is told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unwilling {
    #[error("it has no `{key}`; it has {has}")]
    Unknown { key: String, has: &'static str },
    #[error("`{key}` must be {must}")]
    Value { key: &'static str, must: &'static str },
    #[error("it has no command `{0}`; it has set, status and sleep")]
    Command(String),
}

/// How a command ends.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Outcome {
    /// It is done; its state may have changed.
    Done(Value),
    /// It is done, and now the device sleeps.
    Asleep { for_s: u64 },
    /// It will not.
    Rejected(Unwilling),
}

/// What it answers in a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reply {
    /// In words; its state may have changed.
    Words(String),
    /// In words, and then it sleeps.
    Asleep { words: String, for_s: u64 },
}

/// How long a device sleeps that was not told how long.
const SLEEP_S: u64 = 30;
/// How long it sleeps at most.
const SLEEP_S_MAX: u64 = 3_600;

/// Carries a command out.
pub(super) fn carry_out(device: &mut dyn Device, name: &str, args: &Value) -> Outcome {
    let empty = Map::new();
    let args = args.as_object().unwrap_or(&empty);
    match name {
        "set" => match device.set(args) {
            Ok(()) => Outcome::Done(Value::Object(device.reported())),
            Err(unwilling) => Outcome::Rejected(unwilling),
        },
        "status" => Outcome::Done(Value::Object(device.reported())),
        "sleep" => {
            let for_s = args.get("for_s").and_then(Value::as_u64).unwrap_or(SLEEP_S).clamp(1, SLEEP_S_MAX);
            Outcome::Asleep { for_s }
        }
        other => Outcome::Rejected(Unwilling::Command(other.to_owned())),
    }
}

/// Answers what somebody wrote.
pub(super) fn reply(device: &mut dyn Device, text: &str) -> Reply {
    let text = text.trim().to_lowercase();
    let mut words = text.split_whitespace();
    match words.next() {
        Some("status" | "?") => return Reply::Words(device.words()),
        Some("sleep") => {
            let for_s = words.next().and_then(|word| word.parse().ok()).unwrap_or(SLEEP_S).clamp(1, SLEEP_S_MAX);
            return Reply::Asleep { words: format!("good night; I am back in {for_s} seconds"), for_s };
        }
        _ => {}
    }
    let Some(wish) = device.wish(&text) else {
        return Reply::Words(format!("I do not understand `{text}`. {}", device.words()));
    };
    Reply::Words(match device.set(&wish) {
        Ok(()) => device.words(),
        Err(unwilling) => format!("no: {unwilling}"),
    })
}

/// The part of a text in a group that is meant for `name`: `lamp on`, `@lamp on`, `lamp: on`.
pub(super) fn addressed<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let text = text.trim_start();
    let rest = text.strip_prefix('@').unwrap_or(text).strip_prefix(name)?;
    let rest = rest.strip_prefix([':', ',']).unwrap_or(rest);
    (rest.is_empty() || rest.starts_with(char::is_whitespace)).then(|| rest.trim())
}

/// Its commands, of which `set` takes `args`.
fn commands(args: &Value) -> Value {
    json!({
        "set": {"args": args},
        "status": {"args": {}},
        "sleep": {"args": {"for_s": {"type": "int", "min": 1, "max": SLEEP_S_MAX, "unit": "s"}}},
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_carried_out_or_refused() {
        let check = |name: &str, args: Value, expect: Outcome| {
            assert_eq!(carry_out(&mut Lamp::default(), name, &args), expect, "{name}");
        };
        check("set", json!({"on": true}), Outcome::Done(json!({"on": true, "level": 100})));
        check("status", Value::Null, Outcome::Done(json!({"on": false, "level": 100})));
        check("sleep", json!({}), Outcome::Asleep { for_s: SLEEP_S });
        check("sleep", json!({"for_s": 5}), Outcome::Asleep { for_s: 5 });
        check("explode", json!({}), Outcome::Rejected(Unwilling::Command("explode".into())));
    }

    #[test]
    fn words_are_answered_in_words() {
        let mut lamp = Lamp::default();
        let mut check = |text: &str, expect: &str| match reply(&mut lamp, text) {
            Reply::Words(words) | Reply::Asleep { words, .. } => assert!(words.contains(expect), "{text}: {words}"),
        };
        check("On", "I am on");
        check(" off ", "I am off");
        check("status", "I am off");
        check("120", "no: `level` must be");
        check("dance", "do not understand `dance`");
        check("sleep 7", "back in 7 seconds");
    }

    #[test]
    fn in_a_group_one_is_called_by_name() {
        let check = |text: &str, expect: Option<&str>| assert_eq!(addressed(text, "lamp"), expect, "{text}");
        check("lamp on", Some("on"));
        check("@lamp: on ", Some("on"));
        check("lamp, off", Some("off"));
        check("lamp", Some(""));
        check("lamps on", None);
        check("who is there?", None);
    }
}
