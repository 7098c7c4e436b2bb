//! Fields of a request's payload.

use super::Refusal;
use serde_json::Value;

/// At most 64 characters of something a client sent, for a text.
pub(crate) fn shorten(text: &str) -> &str {
    match text.char_indices().nth(64) {
        Some((at, _)) => &text[..at],
        None => text,
    }
}

/// Reads a payload as a JSON object; an empty payload is an empty one.
pub(crate) fn object(payload: &[u8]) -> Result<serde_json::Map<String, Value>, Refusal> {
    if payload.is_empty() {
        return Ok(serde_json::Map::new());
    }
    match serde_json::from_slice(payload) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(Refusal::bad("the payload is not a JSON object")),
        Err(error) => Err(Refusal::bad(format!("the payload is not JSON: {error}"))),
    }
}

/// A field that must be a whole number.
pub(crate) fn number(object: &serde_json::Map<String, Value>, key: &str) -> Result<Option<u64>, Refusal> {
    match object.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => {
            let wrong = || Refusal::bad(format!("\"{key}\" is not a whole number of 0 or more"));
            value.as_u64().map(Some).ok_or_else(wrong)
        }
    }
}

/// A field that must be text.
pub(crate) fn text<'a>(object: &'a serde_json::Map<String, Value>, key: &str) -> Result<Option<&'a str>, Refusal> {
    match object.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => value.as_str().map(Some).ok_or_else(|| Refusal::bad(format!("\"{key}\" is not text"))),
    }
}

/// A field that must be true or false.
pub(crate) fn flag(object: &serde_json::Map<String, Value>, key: &str) -> Result<Option<bool>, Refusal> {
    match object.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => value.as_bool().map(Some).ok_or_else(|| Refusal::bad(format!("\"{key}\" is not true or false"))),
    }
}
