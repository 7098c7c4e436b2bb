//! docs/openapi.json against the routes, the manual against both, and the document against itself.

use super::schema::problems;
use super::*;
use crate::admin::router::{Access, ROUTES};
use serde_json::json;
use std::collections::BTreeSet;

#[test]
fn every_route_is_documented_and_every_documented_route_exists() {
    let document: Value = serde_json::from_str(OPENAPI).unwrap();
    let mut documented = BTreeSet::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            documented.insert((method.to_uppercase(), path.clone()));
            let route = ROUTES.iter().find(|(m, p, _)| m.eq_ignore_ascii_case(method) && p == path);
            let (.., route) = route.unwrap_or_else(|| panic!("{method} {path} is documented and does not exist"));
            let names = |place: &str| -> BTreeSet<String> {
                let parameters = operation["parameters"].as_array().into_iter().flatten();
                parameters.filter(|p| p["in"] == place).map(|p| p["name"].as_str().unwrap().to_owned()).collect()
            };
            let keys: BTreeSet<String> = route.query_keys().iter().map(|key| (*key).to_owned()).collect();
            assert_eq!(names("query"), keys, "{method} {path}");
            let in_path = path.split('/').filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'));
            assert_eq!(names("path"), in_path.map(str::to_owned).collect(), "{method} {path}");
            let security = match route.access() {
                Access::Open => json!([]),
                Access::Service => json!([{ "token": [] }, { "connectToken": [] }]),
                Access::Operator => Value::Null,
            };
            assert_eq!(operation["security"], security, "{method} {path}");
            assert!(!operation["summary"].as_str().unwrap_or_default().is_empty(), "{method} {path} says what it does");
        }
    }
    let routed: BTreeSet<_> =
        ROUTES.iter().map(|(method, path, _)| ((*method).to_owned(), (*path).to_owned())).collect();
    assert_eq!(routed, documented);
}

#[test]
fn every_metric_is_explained() {
    let manual = include_str!("../../../../docs/operations.md");
    let sources = [include_str!("../../server/metrics.rs"), include_str!("../process.rs")];
    let names = |source: &'static str| {
        source.split('"').filter(|text| {
            let words = text.starts_with("parlor_") || text.starts_with("process_");
            words && text.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
        })
    };
    let names: BTreeSet<&str> = sources.into_iter().flat_map(names).collect();
    assert!(names.len() > 20, "{names:?}");
    for name in names {
        let shown = [format!("`{name}`"), format!("`{name}{{")].iter().any(|shown| manual.contains(shown));
        assert!(shown, "{name} is not in docs/operations.md");
    }
}

#[test]
fn every_route_is_in_the_manual() {
    let manual = include_str!("../../../../docs/operations.md");
    for (_, path, _) in ROUTES {
        assert!(manual.contains(path), "{path} is not in docs/operations.md");
    }
}

#[test]
fn references_of_the_document_lead_somewhere() {
    fn walk(value: &Value, document: &Value) {
        match value {
            Value::Object(map) => {
                if let Some(target) = map.get("$ref").and_then(Value::as_str) {
                    assert!(document.pointer(target.trim_start_matches('#')).is_some(), "{target}");
                }
                map.values().for_each(|value| walk(value, document));
            }
            Value::Array(list) => list.iter().for_each(|value| walk(value, document)),
            _ => {}
        }
    }
    let document: Value = serde_json::from_str(OPENAPI).unwrap();
    walk(&document, &document);
}

/// Calls `found` with every media type that has a schema, and where it is.
fn media_types(document: &Value, mut found: impl FnMut(String, &str, &Value)) {
    let mut look = |place: String, body: &Value| {
        for (kind, media) in body["content"].as_object().into_iter().flatten() {
            found(format!("{place} {kind}"), kind, media);
        }
    };
    for (name, response) in document["components"]["responses"].as_object().unwrap() {
        look(format!("components {name}"), response);
    }
    for (path, operations) in document["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            look(format!("{method} {path} request"), &operation["requestBody"]);
            for (status, response) in operation["responses"].as_object().unwrap() {
                look(format!("{method} {path} {status}"), response);
            }
        }
    }
}

#[test]
fn every_body_has_an_example_that_is_one() {
    let document: Value = serde_json::from_str(OPENAPI).unwrap();
    let mut count = 0;
    media_types(&document, |place, kind, media| {
        if !kind.ends_with("json") {
            return;
        }
        let example = media.get("example").unwrap_or_else(|| panic!("{place} has no example"));
        let found = problems(example, &media["schema"], &document);
        assert!(found.is_empty(), "{place}: {found:#?}");
        count += 1;
    });
    assert!(count > 30, "{count}");
}

/// Whatever has a body may be too large, and whatever needs a token may lack it.
#[test]
fn every_refusal_is_documented_where_it_can_happen() {
    let document: Value = serde_json::from_str(OPENAPI).unwrap();
    for (method, path, route) in ROUTES {
        let responses = &document["paths"][path][method.to_lowercase()]["responses"];
        let has = |status: &str| responses[status]["$ref"] == "#/components/responses/Problem";
        if route.access() != Access::Open {
            assert!(has("401") && has("503"), "{method} {path}: {responses}");
        }
        let body = &document["paths"][path][method.to_lowercase()]["requestBody"];
        if body["content"]["application/json"].is_object() {
            assert!(has("400") && has("413"), "{method} {path}: {responses}");
        }
        if !route.query_keys().is_empty() && !path.starts_with("/api/v1/channels") {
            assert!(has("400"), "{method} {path}: {responses}");
        }
        if path.contains('{') {
            assert!(has("404"), "{method} {path}: {responses}");
        }
    }
}

#[test]
fn the_examples_are_looked_at() {
    let document = json!({ "components": { "schemas": { "Name": { "type": "string", "maxLength": 3 } } } });
    let check = |schema: Value, value: Value, expect: &[&str]| {
        assert_eq!(problems(&value, &schema, &document), expect, "{schema} {value}");
    };
    let object = json!({
        "type": "object",
        "required": ["a"],
        "properties": { "a": { "$ref": "#/components/schemas/Name" }, "b": { "type": "array", "items": { "enum": [1, 2] } } }
    });
    check(object.clone(), json!({ "a": "abc", "b": [1, 2] }), &[]);
    check(object.clone(), json!({ "b": [3] }), &["$.a is missing", "$.b[0] is none of [1,2]"]);
    check(object.clone(), json!({ "a": "abcd", "c": 1 }), &["$.a is longer than 3", "$.c is not documented"]);
    check(object, json!([]), &["$ is no object"]);
    check(json!({ "type": "integer", "minimum": 1, "maximum": 2 }), json!(3), &["$ is above 2"]);
    check(json!({ "type": "integer" }), json!(1.5), &["$ is no integer"]);
    let either = json!({ "oneOf": [{ "type": "string" }, { "type": "boolean" }] });
    check(either.clone(), json!(true), &[]);
    check(either, json!(1), &["$ fits 0 of its forms"]);
}
