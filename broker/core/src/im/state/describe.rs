//! What a device says it can do: checked when it says so, so that nobody has to check it again.

use super::super::name::is_client_id;
use super::super::refusal::Refusal;
use super::super::shorten;
use serde_json::{Map, Value};

/// Entries of one map of a description.
const ENTRIES: usize = 64;
/// Characters of a name, a model, a unit or one value of an enum.
const CHARACTERS: usize = 64;

/// Checks a description (docs/protocol.md, section 7). The texts say where the mistake is.
pub(super) fn check(description: &Map<String, Value>) -> Result<(), Refusal> {
    for (key, value) in description {
        match key.as_str() {
            "name" | "model" => short_text(key, value)?,
            "state" => fields("state", value)?,
            "commands" => {
                for (name, command) in entries("commands", value)? {
                    check_command(&format!("commands.{name}"), command)?;
                }
            }
            _ => {
                let key = shorten(key);
                return Err(Refusal::bad(format!("\"{key}\": a description has name, model, commands and state")));
            }
        }
    }
    Ok(())
}

fn check_command(at: &str, command: &Value) -> Result<(), Refusal> {
    for (key, value) in as_object(at, command)? {
        match key.as_str() {
            "args" => fields(&format!("{at}.args"), value)?,
            _ => return Err(Refusal::bad(format!("{at}.{}: a command has args", shorten(key)))),
        }
    }
    Ok(())
}

/// A map of names to types.
fn fields(at: &str, value: &Value) -> Result<(), Refusal> {
    for (name, field) in entries(at, value)? {
        check_field(&format!("{at}.{name}"), field)?;
    }
    Ok(())
}

fn check_field(at: &str, field: &Value) -> Result<(), Refusal> {
    let field = as_object(at, field)?;
    let kind = match field.get("type") {
        Some(Value::String(kind)) => kind.as_str(),
        _ => return Err(Refusal::bad(format!("{at}.type is missing: bool, int, float, text or enum"))),
    };
    let allowed: &[&str] = match kind {
        "bool" => &["type"],
        "int" | "float" => &["type", "min", "max", "unit"],
        "text" => &["type", "max"],
        "enum" => &["type", "of"],
        _ => return Err(Refusal::bad(format!("{at}.type \"{}\": bool, int, float, text or enum", shorten(kind)))),
    };
    for (key, value) in field {
        if !allowed.contains(&key.as_str()) {
            let allowed = allowed.join(", ");
            return Err(Refusal::bad(format!("{at}.{}: a field of type {kind} has {allowed}", shorten(key))));
        }
        match (kind, key.as_str()) {
            (_, "unit") => short_text(&format!("{at}.unit"), value)?,
            ("float", "min" | "max") if value.is_number() => {}
            ("int", "min" | "max") if value.is_i64() => {}
            ("text", "max") if value.as_u64().is_some_and(|max| max > 0) => {}
            (_, "min" | "max") => return Err(Refusal::bad(format!("{at}.{key} is no number that fits type {kind}"))),
            (_, "of") => check_values(&format!("{at}.of"), value)?,
            _ => {}
        }
    }
    if let (Some(min), Some(max)) = (number(field, "min"), number(field, "max"))
        && min >= max
    {
        return Err(Refusal::bad(format!("{at}.min is not below {at}.max")));
    }
    if kind == "enum" && !field.contains_key("of") {
        return Err(Refusal::bad(format!("{at}.of is missing: the list of its values")));
    }
    Ok(())
}

fn check_values(at: &str, value: &Value) -> Result<(), Refusal> {
    let wrong = || Refusal::bad(format!("{at} is no list of 1 to {ENTRIES} different texts"));
    let list = value.as_array().filter(|list| (1..=ENTRIES).contains(&list.len())).ok_or_else(wrong)?;
    for (index, value) in list.iter().enumerate() {
        short_text(at, value)?;
        if list.iter().take(index).any(|earlier| earlier == value) {
            return Err(wrong());
        }
    }
    Ok(())
}

/// A map whose keys are names.
fn entries<'a>(at: &str, value: &'a Value) -> Result<&'a Map<String, Value>, Refusal> {
    let object = as_object(at, value)?;
    if object.len() > ENTRIES {
        return Err(Refusal::bad(format!("{at} has {} entries, the most is {ENTRIES}", object.len())));
    }
    match object.keys().find(|name| !is_client_id(name)) {
        Some(name) => {
            let name = shorten(name);
            Err(Refusal::bad(format!("{at}: \"{name}\" is no name: 1 to 36 of A-Z a-z 0-9 _ -")))
        }
        None => Ok(object),
    }
}

fn as_object<'a>(at: &str, value: &'a Value) -> Result<&'a Map<String, Value>, Refusal> {
    value.as_object().ok_or_else(|| Refusal::bad(format!("{at} is not a JSON object")))
}

fn short_text(at: &str, value: &Value) -> Result<(), Refusal> {
    let is_short = |text: &str| (1..=CHARACTERS).contains(&text.chars().count()) && !text.chars().any(char::is_control);
    if value.as_str().is_some_and(is_short) {
        return Ok(());
    }
    Err(Refusal::bad(format!("{at} is no text of 1 to {CHARACTERS} characters")))
}

/// A bound of a field, if it has one.
pub(super) fn number(field: &Map<String, Value>, key: &str) -> Option<f64> {
    field.get(key).and_then(Value::as_f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refuses(text: &str, expect: &str) {
        let refusal = check(&serde_json::from_str(text).unwrap()).unwrap_err();
        assert!(refusal.text.starts_with(expect), "{}", refusal.text);
    }

    #[test]
    fn the_description_of_the_documentation_is_one() {
        let text = r#"{"name":"Lamp","model":"L1","commands":{"set":{"args":{"on":{"type":"bool"},
            "level":{"type":"int","min":0,"max":100,"unit":"%"}}},"restart":{}},
            "state":{"on":{"type":"bool"},"temp":{"type":"float","unit":"°C"},"mode":{"type":"enum","of":["a","b"]},
            "label":{"type":"text","max":20}}}"#;
        assert_eq!(check(&serde_json::from_str(text).unwrap()), Ok(()));
        assert_eq!(check(&Map::new()), Ok(()));
    }

    #[test]
    fn a_mistake_is_told_with_its_place() {
        refuses(r#"{"colour":1}"#, "\"colour\": a description has name");
        refuses(r#"{"name":""}"#, "name is no text");
        refuses(r#"{"state":[]}"#, "state is not a JSON object");
        refuses(r#"{"state":{"a b":{"type":"bool"}}}"#, "state: \"a b\" is no name");
        refuses(r#"{"state":{"on":{}}}"#, "state.on.type is missing");
        refuses(r#"{"state":{"on":{"type":"boolean"}}}"#, "state.on.type \"boolean\"");
        refuses(r#"{"state":{"on":{"type":"bool","min":1}}}"#, "state.on.min: a field of type bool has type");
        refuses(r#"{"state":{"n":{"type":"int","min":1.5}}}"#, "state.n.min is no number that fits type int");
        refuses(r#"{"state":{"n":{"type":"int","min":5,"max":5}}}"#, "state.n.min is not below");
        refuses(r#"{"state":{"m":{"type":"enum"}}}"#, "state.m.of is missing");
        refuses(r#"{"state":{"m":{"type":"enum","of":["a","a"]}}}"#, "state.m.of is no list");
        refuses(r#"{"commands":{"set":{"arg":{}}}}"#, "commands.set.arg: a command has args");
        refuses(r#"{"commands":{"set":{"args":{"on":1}}}}"#, "commands.set.args.on is not a JSON object");
    }
}
