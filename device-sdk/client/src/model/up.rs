//! What goes up: topics and payloads a client publishes. `docs/protocol.md` section 2.

use serde_json::{Map, Value, json};

/// Something to publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publish {
    /// Names it in the answer.
    pub token: u64,
    /// The whole topic.
    pub topic: String,
    /// What it says.
    pub payload: Vec<u8>,
    /// How much it matters.
    pub effort: Effort,
    /// The broker keeps it as the topic's value.
    pub retain: bool,
    /// It may arrive twice and does no harm: a message with a client id.
    pub is_idempotent: bool,
}

impl Publish {
    /// Without a token yet, not retained.
    pub(super) fn new(topic: String, payload: Vec<u8>, effort: Effort) -> Self {
        Self { token: 0, topic, payload, effort, retain: false, is_idempotent: false }
    }
}

/// How much a publish matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effort {
    /// `QoS` 1, and again on the next connection until there is an answer.
    UntilAnswered,
    /// `QoS` 0, and only now.
    Once,
}

/// A message to be sent.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Draft {
    /// Text.
    pub text: Option<String>,
    /// JSON.
    pub body: Option<Value>,
    /// What kind it is.
    pub kind: Option<String>,
    /// Client id; made up when absent.
    pub id: Option<String>,
    /// Seconds after which nobody gets it.
    pub ttl_s: Option<u64>,
    /// The seq it answers.
    pub re: Option<u64>,
    /// Does not count as unread.
    pub quiet: bool,
}

impl Draft {
    /// Just a text.
    pub fn text(text: impl Into<String>) -> Self {
        Self { text: Some(text.into()), ..Self::default() }
    }

    /// With a client id of one's own.
    #[must_use]
    pub fn id(self, id: impl Into<String>) -> Self {
        Self { id: Some(id.into()), ..self }
    }

    /// Its payload. Even a bare text goes as JSON, because of the id.
    pub fn payload(&self, id: &str) -> Value {
        let mut all = Map::new();
        all.insert("id".to_owned(), json!(id));
        let mut put = |key: &str, value: Option<Value>| {
            if let Some(value) = value {
                all.insert(key.to_owned(), value);
            }
        };
        put("text", self.text.as_ref().map(|text| json!(text)));
        put("body", self.body.clone());
        put("kind", self.kind.as_ref().map(|kind| json!(kind)));
        put("ttl_s", self.ttl_s.map(|ttl| json!(ttl)));
        put("re", self.re.map(|re| json!(re)));
        put("notify", self.quiet.then_some(json!(false)));
        Value::Object(all)
    }
}

impl From<&str> for Draft {
    fn from(text: &str) -> Self {
        Self::text(text)
    }
}

impl From<String> for Draft {
    fn from(text: String) -> Self {
        Self::text(text)
    }
}

/// A command to be given.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Instruction {
    /// Its name.
    pub name: String,
    /// Its arguments.
    pub args: Value,
    /// Client id; made up when absent.
    pub id: Option<String>,
    /// Milliseconds after which it is too late.
    pub deadline_ms: Option<u64>,
    /// Waits for a device that is offline.
    pub persist: bool,
    /// Must never be begun twice.
    pub once: bool,
}

impl Instruction {
    /// Its payload, always as an envelope, because of the id.
    pub fn payload(&self, id: &str) -> Value {
        let mut all = Map::new();
        all.insert("id".to_owned(), json!(id));
        all.insert("args".to_owned(), self.args.clone());
        if let Some(deadline) = self.deadline_ms {
            all.insert("deadline_ms".to_owned(), json!(deadline));
        }
        if self.persist {
            all.insert("persist".to_owned(), json!(true));
        }
        if self.once {
            all.insert("once".to_owned(), json!(true));
        }
        Value::Object(all)
    }
}

/// Whether this may be part of a topic: an address, a name of a command, an id.
pub fn is_level(word: &str) -> bool {
    !word.is_empty() && word.len() <= 64 && !word.contains(['/', '+', '#', '\0']) && !word.contains(char::is_whitespace)
}

/// Whether this may be an address: of an account, a group, a channel, a room.
pub fn is_address(word: &str) -> bool {
    let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || ['.', '_', '-'].contains(&c);
    word.len() <= 32 && word.starts_with(|c: char| c.is_ascii_alphanumeric()) && word.chars().all(legal)
}

/// Whether this may be the client id of a message or command.
pub fn is_client_id(word: &str) -> bool {
    let legal = |c: char| c.is_ascii_alphanumeric() || ['_', '-'].contains(&c);
    (1..=36).contains(&word.len()) && word.chars().all(legal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_said_is_in_a_payload() {
        assert_eq!(Draft::text("hi").payload("a1"), json!({"id": "a1", "text": "hi"}));
        let draft = Draft {
            body: Some(json!([1])),
            kind: Some("list".into()),
            ttl_s: Some(60),
            re: Some(4),
            quiet: true,
            ..Draft::default()
        };
        let expect = json!({"id": "a", "body": [1], "kind": "list", "ttl_s": 60, "re": 4, "notify": false});
        assert_eq!(draft.payload("a"), expect);
        let order = Instruction { name: "set".into(), args: json!({"on": true}), ..Instruction::default() };
        assert_eq!(order.payload("c"), json!({"id": "c", "args": {"on": true}}));
        let order = Instruction { deadline_ms: Some(5), persist: true, once: true, ..order };
        let expect = json!({"id": "c", "args": {"on": true}, "deadline_ms": 5, "persist": true, "once": true});
        assert_eq!(order.payload("c"), expect);
    }

    #[test]
    fn words_of_topics_are_checked() {
        for good in ["bob", "g-home", "thermo1", "a.b_c-d"] {
            assert!(is_address(good) && is_level(good), "{good}");
        }
        for bad in ["", "Bob", "a/b", "-a", "a b", "#", "é", &"a".repeat(33)] {
            assert!(!is_address(bad), "{bad}");
        }
        assert!(is_client_id("A_z-9") && !is_client_id("") && !is_client_id("a.b") && !is_client_id(&"a".repeat(37)));
        assert!(!is_level("a/b") && !is_level("a b") && !is_level("+"));
    }
}
