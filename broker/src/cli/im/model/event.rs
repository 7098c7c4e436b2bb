//! What the client tells those who use it.

use super::wire::{Heard, Refusal};
use serde_json::{Map, Value, json};

/// Something worth telling.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// There is a connection.
    Connected,
    /// There is none any more.
    Disconnected {
        /// What ended it.
        why: String,
    },
    /// The broker has what was published.
    Accepted {
        /// Where it was published, below `im/v1/`.
        re: String,
        /// Its client id.
        id: Option<String>,
        /// The number it got.
        seq: Option<u64>,
        /// The broker had it already.
        dup: bool,
    },
    /// The broker refused it.
    Refused {
        /// Where it was published, below `im/v1/`.
        re: String,
        /// Why.
        refusal: Refusal,
    },
    /// Something came that was not known.
    Heard(Box<Heard>),
    /// Something came that cannot be read.
    Unreadable {
        /// Where, and what is wrong with it.
        text: String,
    },
    /// Nobody polled in time.
    Lost {
        /// How many events are gone.
        events: u64,
    },
}

/// How the broker answers a publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It is on disk.
    Accepted {
        /// The number it got, where the broker says so.
        seq: Option<u64>,
        /// The broker had it already.
        dup: bool,
    },
    /// It is not.
    Refused {
        /// The code of section 10.
        code: String,
        /// What happened and what to do.
        text: String,
    },
}

impl Answer {
    /// Reads a Reason String: `code: text`. Without one the reason code has to do.
    pub fn refused(reason: Option<&str>, reason_code: &str) -> Self {
        let (code, text) = match reason.map(|reason| reason.split_once(": ").unwrap_or(("", reason))) {
            Some(("", text)) => (reason_code.to_owned(), text.to_owned()),
            Some((code, text)) => (code.to_owned(), text.to_owned()),
            None => (reason_code.to_owned(), "the broker gave no reason".to_owned()),
        };
        Self::Refused { code, text }
    }
}

impl Event {
    /// One JSON object that says it all.
    pub fn to_json(&self) -> Value {
        match self {
            Self::Connected => json!({"event": "connected"}),
            Self::Disconnected { why } => json!({"event": "disconnected", "why": why}),
            Self::Accepted { re, id, seq, dup } => {
                let mut all = Map::new();
                all.insert("event".to_owned(), json!("accepted"));
                all.insert("re".to_owned(), json!(re));
                if let Some(id) = id {
                    all.insert("id".to_owned(), json!(id));
                }
                if let Some(seq) = seq {
                    all.insert("seq".to_owned(), json!(seq));
                }
                all.insert("dup".to_owned(), json!(dup));
                Value::Object(all)
            }
            Self::Refused { re, refusal } => {
                json!({"event": "refused", "re": re, "id": refusal.id, "code": refusal.code, "text": refusal.text})
            }
            Self::Heard(heard) => heard.to_json(),
            Self::Unreadable { text } => json!({"event": "unreadable", "text": text}),
            Self::Lost { events } => json!({"event": "lost", "events": events}),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reason_strings_are_code_and_text() {
        let check = |reason: Option<&str>, code: &str, text: &str| {
            let expect = Answer::Refused { code: code.into(), text: text.into() };
            assert_eq!(Answer::refused(reason, "not authorized"), expect);
        };
        check(Some("no_consent: ask bob first: /request bob"), "no_consent", "ask bob first: /request bob");
        check(Some("no"), "not authorized", "no");
        check(None, "not authorized", "the broker gave no reason");
    }

    #[test]
    fn events_are_objects() {
        let accepted = |id: Option<&str>, seq| {
            Event::Accepted { re: "to/bob/msg".into(), id: id.map(Into::into), seq, dup: true }.to_json()
        };
        assert_eq!(
            accepted(Some("a"), Some(4)),
            json!({"event": "accepted", "re": "to/bob/msg", "id": "a", "seq": 4, "dup": true})
        );
        assert_eq!(accepted(None, None), json!({"event": "accepted", "re": "to/bob/msg", "dup": true}));
        assert_eq!(Event::Lost { events: 3 }.to_json(), json!({"event": "lost", "events": 3}));
    }
}
