//! Merge patches (RFC 7396), and what is left to do between two states.

use serde_json::{Map, Value};

/// Levels of nesting a state may have, the outermost object included.
pub(super) const DEPTH: usize = 16;

/// Levels of nesting below and including a value; 0: it is no object and no list.
pub(super) fn depth(value: &Value) -> usize {
    match value {
        Value::Object(object) => 1 + object.values().map(depth).max().unwrap_or(0),
        Value::Array(list) => 1 + list.iter().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

/// `target` with a merge patch applied (RFC 7396 s2): null removes, objects are merged, anything else replaces.
pub(super) fn merged(target: &Map<String, Value>, patch: &Map<String, Value>) -> Map<String, Value> {
    let mut target = target.clone();
    merge(&mut target, patch);
    target
}

fn merge(target: &mut Map<String, Value>, patch: &Map<String, Value>) {
    for (key, value) in patch {
        match value {
            Value::Null => {
                target.remove(key);
            }
            Value::Object(patch) => {
                if !matches!(target.get(key), Some(Value::Object(_))) {
                    target.insert(key.clone(), Value::Object(Map::new()));
                }
                if let Some(Value::Object(inner)) = target.get_mut(key) {
                    merge(inner, patch);
                }
            }
            other => {
                target.insert(key.clone(), other.clone());
            }
        }
    }
}

/// The part of `desired` that `reported` does not have; of an object only the keys that differ.
pub(super) fn difference(desired: &Map<String, Value>, reported: &Map<String, Value>) -> Map<String, Value> {
    let mut left = Map::new();
    for (key, wanted) in desired {
        match (wanted, reported.get(key)) {
            (Value::Object(wanted), Some(Value::Object(is))) => {
                let inner = difference(wanted, is);
                if !inner.is_empty() {
                    left.insert(key.clone(), Value::Object(inner));
                }
            }
            (wanted, Some(is)) if is_same(wanted, is) => {}
            (wanted, _) => {
                left.insert(key.clone(), wanted.clone());
            }
        }
    }
    left
}

/// Whether two values mean the same: a device that computes with floats says `21.0` where `21` was asked for.
fn is_same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(x), Value::Number(y)) => x == y || (x.is_f64() != y.is_f64() && x.as_f64() == y.as_f64()),
        (Value::Array(x), Value::Array(y)) => x.len() == y.len() && x.iter().zip(y).all(|(a, b)| is_same(a, b)),
        (Value::Object(x), Value::Object(y)) => {
            x.len() == y.len() && x.iter().all(|(key, a)| y.get(key).is_some_and(|b| is_same(a, b)))
        }
        _ => a == b,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(text: &str) -> Map<String, Value> {
        serde_json::from_str(text).unwrap()
    }

    #[track_caller]
    fn merges(target: &str, patch: &str, expect: &str) {
        assert_eq!(merged(&object(target), &object(patch)), object(expect), "{target} + {patch}");
    }

    /// The test cases of RFC 7396, appendix A, whose target and patch are objects.
    #[test]
    fn a_merge_patch_does_what_the_rfc_shows() {
        merges(r#"{"a":"b"}"#, r#"{"a":"c"}"#, r#"{"a":"c"}"#);
        merges(r#"{"a":"b"}"#, r#"{"b":"c"}"#, r#"{"a":"b","b":"c"}"#);
        merges(r#"{"a":"b"}"#, r#"{"a":null}"#, "{}");
        merges(r#"{"a":"b","b":"c"}"#, r#"{"a":null}"#, r#"{"b":"c"}"#);
        merges(r#"{"a":["b"]}"#, r#"{"a":"c"}"#, r#"{"a":"c"}"#);
        merges(r#"{"a":"c"}"#, r#"{"a":["b"]}"#, r#"{"a":["b"]}"#);
        merges(r#"{"a":{"b":"c"}}"#, r#"{"a":{"b":"d","c":null}}"#, r#"{"a":{"b":"d"}}"#);
        merges(r#"{"a":[{"b":"c"}]}"#, r#"{"a":[1]}"#, r#"{"a":[1]}"#);
        merges(r#"{"e":null}"#, r#"{"a":1}"#, r#"{"e":null,"a":1}"#);
        merges("{}", r#"{"a":{"bb":{"ccc":null}}}"#, r#"{"a":{"bb":{}}}"#);
    }

    #[track_caller]
    fn differs(desired: &str, reported: &str, expect: &str) {
        assert_eq!(difference(&object(desired), &object(reported)), object(expect), "{desired} - {reported}");
    }

    #[test]
    fn what_is_left_to_do_is_what_differs() {
        differs(r#"{"on":true}"#, "{}", r#"{"on":true}"#);
        differs(r#"{"on":true}"#, r#"{"on":true,"temp":3}"#, "{}");
        differs(r#"{"on":true}"#, r#"{"on":1}"#, r#"{"on":true}"#);
        differs(r#"{"target":21}"#, r#"{"target":21.0}"#, "{}");
        differs(r#"{"target":21}"#, r#"{"target":21.5}"#, r#"{"target":21}"#);
        differs(r#"{"rgb":{"r":1,"g":2}}"#, r#"{"rgb":{"r":1,"g":3,"b":4}}"#, r#"{"rgb":{"g":2}}"#);
        differs(r#"{"list":[1,2]}"#, r#"{"list":[1,2.0]}"#, "{}");
        differs(r#"{"list":[1,2]}"#, r#"{"list":[1]}"#, r#"{"list":[1,2]}"#);
        differs(r#"{"o":{}}"#, r#"{"o":5}"#, r#"{"o":{}}"#);
    }

    #[test]
    fn depth_counts_levels() {
        for (text, expect) in [("1", 0), ("{}", 1), ("[]", 1), (r#"{"a":[{"b":1}]}"#, 3)] {
            assert_eq!(depth(&serde_json::from_str(text).unwrap()), expect, "{text}");
        }
    }
}
