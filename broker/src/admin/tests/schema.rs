//! As much of JSON Schema as docs/openapi.json uses, and a little stricter: what is not documented may not be there.

use super::OPENAPI;
use parlor_core::access::is_account_name;
use serde_json::Value;

/// Checks that `value` is what the schema of this name describes.
#[track_caller]
pub(super) fn conforms(value: &Value, schema: &str) {
    let document: Value = serde_json::from_str(OPENAPI).expect("the document is JSON");
    let schema = &document["components"]["schemas"][schema];
    assert!(schema.is_object(), "there is no such schema");
    let found = problems(value, schema, &document);
    assert!(found.is_empty(), "{found:#?} in {value}");
}

/// Everything that is wrong with `value`, each with its place.
pub(super) fn problems(value: &Value, schema: &Value, document: &Value) -> Vec<String> {
    let mut found = Vec::new();
    Look { document, found: &mut found }.at("$", value, schema);
    found.sort();
    found
}

struct Look<'a> {
    document: &'a Value,
    found: &'a mut Vec<String>,
}

impl Look<'_> {
    fn wrong(&mut self, place: &str, what: impl std::fmt::Display) {
        self.found.push(format!("{place} {what}"));
    }

    fn at(&mut self, place: &str, value: &Value, schema: &Value) {
        for (key, said) in schema.as_object().expect("a schema is an object") {
            match key.as_str() {
                "$ref" => {
                    let target = said.as_str().expect("a text").trim_start_matches('#');
                    let target = self.document.pointer(target).unwrap_or_else(|| panic!("{said} leads nowhere"));
                    self.at(place, value, target);
                }
                "type" => self.kind(place, value, said.as_str().expect("a text")),
                "enum" if !said.as_array().expect("a list").contains(value) => {
                    self.wrong(place, format!("is none of {said}"));
                }
                "oneOf" => {
                    let forms = said.as_array().expect("a list");
                    let fitting = forms.iter().filter(|form| problems(value, form, self.document).is_empty()).count();
                    if fitting != 1 {
                        self.wrong(place, format!("fits {fitting} of its forms"));
                    }
                }
                "properties" => self.properties(place, value, schema),
                "required" => {
                    for key in said.as_array().expect("a list").iter().filter_map(Value::as_str) {
                        if value.is_object() && value.get(key).is_none() {
                            self.wrong(&format!("{place}.{key}"), "is missing");
                        }
                    }
                }
                "items" => {
                    for (at, item) in value.as_array().into_iter().flatten().enumerate() {
                        self.at(&format!("{place}[{at}]"), item, said);
                    }
                }
                "minimum" if value.as_i64() < said.as_i64() => self.wrong(place, format!("is below {said}")),
                "maximum" if value.as_i64() > said.as_i64() => self.wrong(place, format!("is above {said}")),
                "minLength" | "minItems" if length(value) < said.as_u64() => {
                    self.wrong(place, format!("is shorter than {said}"));
                }
                "maxLength" | "maxItems" if length(value) > said.as_u64() => {
                    self.wrong(place, format!("is longer than {said}"));
                }
                "pattern" => {
                    assert_eq!(said, "^[a-z0-9][a-z0-9._-]{0,31}$", "a pattern nobody checks");
                    if !value.as_str().is_some_and(is_account_name) {
                        self.wrong(place, "is no account name");
                    }
                }
                "enum" | "minimum" | "maximum" | "minLength" | "minItems" | "maxLength" | "maxItems" => {}
                "description" | "default" | "additionalProperties" => {}
                other => panic!("{other} is a word of JSON Schema that nobody checks"),
            }
        }
    }

    fn kind(&mut self, place: &str, value: &Value, kind: &str) {
        let fits = match kind {
            "object" => value.is_object(),
            "array" => value.is_array(),
            "string" => value.is_string(),
            "boolean" => value.is_boolean(),
            "null" => value.is_null(),
            "integer" => value.is_u64() || value.is_i64(),
            other => panic!("{other} is a type nobody checks"),
        };
        if !fits {
            self.wrong(place, format!("is no {kind}"));
        }
    }

    fn properties(&mut self, place: &str, value: &Value, schema: &Value) {
        for (key, inner) in value.as_object().into_iter().flatten() {
            match schema["properties"].get(key) {
                Some(schema) => self.at(&format!("{place}.{key}"), inner, schema),
                None if schema["additionalProperties"] == true => {}
                None => self.wrong(&format!("{place}.{key}"), "is not documented"),
            }
        }
    }
}

fn length(value: &Value) -> Option<u64> {
    value.as_str().map(|text| text.chars().count() as u64).or(value.as_array().map(|list| list.len() as u64))
}
