//! Messaging over raw MQTT: a broker with accounts, their connections, and patterns of what they are sent.

use crate::raw::{Client, Connect, Packet, Props, PubAck, PubRec, Publish, Version, prop};
use crate::server::{Broker, NO_ANONYMOUS};
use serde_json::Value;
use std::collections::BTreeMap;

/// The password of every account here.
pub const PASSWORD: &str = "sesame-sesame";

/// A broker in which accounts write to each other.
pub struct House {
    /// The process.
    pub broker: Broker,
}

impl House {
    /// A broker of the test's own with these accounts; `None` when the tests speak to an external one.
    pub fn start(accounts: &[&str]) -> Option<Self> {
        Self::with(accounts, &[])
    }

    /// The same with more arguments.
    pub fn with(accounts: &[&str], extra: &[&str]) -> Option<Self> {
        let broker = Broker::own(&[&["--set", NO_ANONYMOUS], extra].concat())?;
        for name in accounts {
            broker.add_account(name, PASSWORD);
        }
        Some(Self { broker })
    }

    /// One account more, of this kind: `person`, `device` or `service`.
    pub fn add(&self, name: &str, kind: &str) {
        let data = self.broker.data().display().to_string();
        let args = ["account", "add", name, "--kind", kind, "--password-stdin", "--data", &data];
        Broker::command(&args, PASSWORD);
    }

    /// A clean connection of this account, in the making.
    pub fn connect(&self, version: Version, account: &str, client_id: &str) -> Connect {
        Connect::new(version, client_id).username(account).password(PASSWORD)
    }

    /// A clean connection of this account.
    pub fn client(&self, version: Version, account: &str, client_id: &str) -> Client {
        self.connect(version, account, client_id).to(&self.broker)
    }

    /// A connection whose session outlives it.
    pub fn lasting(&self, version: Version, account: &str, client_id: &str) -> Client {
        self.connect(version, account, client_id).persistent().to(&self.broker)
    }

    /// The two may write to each other from now on.
    pub fn befriend(&self, one: &str, other: &str) {
        let mut asks = self.client(Version::V5, one, &format!("{one}-asks"));
        let mut agrees = self.client(Version::V5, other, &format!("{other}-agrees"));
        let request = asks.publish_for(1, &format!("im/v1/me/contact/{other}"), r#"{"op":"request"}"#);
        assert_eq!(request.code, 0, "{one} asks {other}: {request:?}");
        let accept = agrees.publish_for(1, &format!("im/v1/me/contact/{one}"), r#"{"op":"accept"}"#);
        assert_eq!(accept.code, 0, "{other} agrees to {one}: {accept:?}");
        asks.disconnect();
        agrees.disconnect();
    }
}

/// What a PUBLISH was answered with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Reason code of PUBACK or PUBREC; 0 for QoS 0.
    pub code: u8,
    /// Properties of that packet.
    pub props: Props,
}

impl Answer {
    /// The user property of this name.
    pub fn user(&self, name: &str) -> Option<&str> {
        self.props.users().into_iter().find(|(key, _)| *key == name).map(|(_, value)| value)
    }

    /// Seq of the message that was accepted.
    pub fn seq(&self) -> Option<u64> {
        self.user("im-seq").map(|seq| seq.parse().expect("im-seq is a number"))
    }

    /// Reason String, or nothing.
    pub fn reason(&self) -> &str {
        self.props.text(prop::REASON_STRING).unwrap_or_default()
    }
}

impl Client {
    /// Publishes and goes through the flow of the QoS: the answer with its properties. What came meanwhile stays.
    pub fn publish_for(&mut self, qos: u8, topic: &str, payload: impl AsRef<[u8]>) -> Answer {
        self.answer_to(&Publish::new(topic, payload).qos(qos, 0))
    }

    /// The same for a PUBLISH with properties.
    pub fn answer_to(&mut self, publish: &Publish) -> Answer {
        let mut publish = publish.clone();
        if publish.qos == 0 {
            self.publish(&publish);
            return Answer { code: 0, props: Props::default() };
        }
        if publish.id == 0 {
            publish.id = self.new_id();
        }
        self.publish(&publish);
        let kind = if publish.qos == 1 { PubAck } else { PubRec };
        let answer = self.find(&format!("{kind:?} {}", publish.id), |packet| match packet {
            Packet::Ack { kind: k, id, code, props } if *k == kind && *id == publish.id => {
                Some(Answer { code: *code, props: props.clone() })
            }
            _ => None,
        });
        if publish.qos == 2 && answer.code < 0x80 {
            self.ack(crate::raw::PubRel, publish.id);
            assert_eq!(self.await_ack(crate::raw::PubComp, publish.id), 0);
        }
        answer
    }

    /// The next PUBLISH with this topic, acknowledged; others stay for later.
    pub fn on(&mut self, topic: &str) -> Publish {
        let found = self.find(&format!("a PUBLISH to {topic}"), |packet| match packet {
            Packet::Publish(publish) if publish.topic == topic => Some(publish.clone()),
            _ => None,
        });
        self.finish(&found);
        found
    }

    /// The next packet is a PUBLISH with this topic and a payload of this form; it is acknowledged.
    pub fn expect(&mut self, topic: &str, pattern: &str) -> Publish {
        let publish = self.publish_packet();
        self.finish(&publish);
        assert_eq!(publish.topic, topic, "{}: {}", self.name, String::from_utf8_lossy(&publish.payload));
        assert!(is_like(&publish.payload, pattern), "{}: {} is not {pattern}", self.name, publish.text());
        publish
    }
}

/// The payload as JSON.
pub fn json(publish: &Publish) -> Value {
    serde_json::from_slice(&publish.payload).unwrap_or_else(|e| panic!("{}: {e}", publish.topic))
}

/// Whether bytes are the pattern letter by letter, `*` standing for any letters.
pub fn is_like(bytes: &[u8], pattern: &str) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let (mut rest, mut parts) = (text, pattern.split('*').peekable());
    let Some(mut later) = rest.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return later.ends_with(part);
        }
        let Some(at) = later.find(part) else { return false };
        rest = &later[at + part.len()..];
        later = rest;
    }
    later.is_empty()
}

/// Values that patterns have given a name.
pub type Names = BTreeMap<String, String>;

/// Whether a payload fits a pattern of JSON: objects in any order, `*` for any value or any part of a string, and `…` in
/// an object or a list for whatever else is there. `$name` takes down a value that has no name yet. A pattern that is no
/// object and no list is compared letter by letter.
///
/// # Errors
///
/// What the difference is.
pub fn fits(payload: &[u8], pattern: &str, names: &mut Names) -> Result<(), String> {
    let pattern = named(pattern, names);
    let Some(wanted) = read_pattern(&pattern) else {
        let text = String::from_utf8_lossy(payload);
        return if is_like(payload, &pattern) { Ok(()) } else { Err(format!("{text:?} is not {pattern:?}")) };
    };
    let got: Value = serde_json::from_slice(payload)
        .map_err(|e| format!("{:?} is no JSON: {e}", String::from_utf8_lossy(payload)))?;
    let mut new = Names::new();
    compare("", &got, &wanted, &mut new).map_err(|why| format!("{why} in {got}"))?;
    names.append(&mut new);
    Ok(())
}

/// `text` with every `$name` that is known replaced by its value.
pub fn named(text: &str, names: &Names) -> String {
    let mut text = text.to_owned();
    for (name, value) in names.iter().rev() {
        text = text.replace(&format!("${name}"), value);
    }
    text
}

/// Reads a pattern as JSON: a bare `*` becomes `"*"`, a bare `$name` a string, and `…` a key (in an object) or element (in
/// a list) of that name.
fn read_pattern(pattern: &str) -> Option<Value> {
    if !pattern.starts_with(['{', '[']) {
        return None;
    }
    let (mut text, mut in_string, mut escaped, mut in_name) = (String::new(), false, false, false);
    let mut open = vec![];
    for c in pattern.chars() {
        if in_string {
            in_string = c != '"' || escaped;
            escaped = c == '\\' && !escaped;
            text.push(c);
            continue;
        }
        if in_name && !c.is_ascii_alphanumeric() {
            in_name = false;
            text.push('"');
        }
        match c {
            '*' => text.push_str("\"*\""),
            '$' => {
                in_name = true;
                text.push_str("\"$");
            }
            '…' if open.last() == Some(&'{') => text.push_str("\"…\":0"),
            '…' => text.push_str("\"…\""),
            _ => text.push(c),
        }
        match c {
            '"' => in_string = true,
            '{' | '[' => open.push(c),
            '}' | ']' => drop(open.pop()),
            _ => {}
        }
    }
    Some(serde_json::from_str(&text).unwrap_or_else(|e| panic!("{pattern} is no pattern: {e}")))
}

fn compare(path: &str, got: &Value, wanted: &Value, names: &mut Names) -> Result<(), String> {
    match (got, wanted) {
        (Value::Object(got), Value::Object(wanted)) => {
            let is_open = wanted.contains_key("…");
            if let Some(extra) = got.keys().find(|key| !is_open && !wanted.contains_key(*key)) {
                return Err(format!("{path}/{extra} is not expected"));
            }
            wanted.iter().filter(|(key, _)| *key != "…").try_for_each(|(key, value)| {
                let got = got.get(key).ok_or_else(|| format!("{path}/{key} is missing"))?;
                compare(&format!("{path}/{key}"), got, value, names)
            })
        }
        (Value::Array(got), Value::Array(wanted)) => {
            let is_open = wanted.last().is_some_and(|last| last == "…");
            let wanted = if is_open { &wanted[..wanted.len() - 1] } else { &wanted[..] };
            if got.len() < wanted.len() || (got.len() > wanted.len() && !is_open) {
                return Err(format!("{path} has {} elements, not {}", got.len(), wanted.len()));
            }
            let mut pairs = got.iter().zip(wanted).enumerate();
            pairs.try_for_each(|(at, (g, w))| compare(&format!("{path}[{at}]"), g, w, names))
        }
        (_, Value::String(pattern)) if pattern == "*" => Ok(()),
        (_, Value::String(pattern)) if pattern.starts_with('$') => {
            let value = got.as_str().map_or_else(|| got.to_string(), str::to_owned);
            names.insert(pattern[1..].to_owned(), value);
            Ok(())
        }
        (Value::String(text), Value::String(pattern)) if is_like(text.as_bytes(), pattern) => Ok(()),
        _ if got == wanted => Ok(()),
        _ => Err(format!("{path} is {got}, not {wanted}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_fit_what_they_should_and_nothing_else() {
        assert!(is_like(b"abcabc", "a*c") && is_like(b"abc", "abc") && is_like(b"a1b2c", "a*b*c"));
        assert!(!is_like(b"abd", "a*c") && !is_like(b"abcd", "abc") && !is_like(b"ab", "a*b*c"));
        let ok = |got: &str, pattern: &str| fits(got.as_bytes(), pattern, &mut Names::new()).is_ok();
        assert!(ok(r#"{"b":2,"a":1}"#, r#"{"a":1,"b":*}"#));
        assert!(ok(r#"{"b":2,"a":1}"#, r#"{"a":1,…}"#));
        assert!(!ok(r#"{"b":2,"a":1}"#, r#"{"a":1}"#));
        assert!(!ok(r#"{"a":2}"#, r#"{"a":1,…}"#) && !ok("{}", r#"{"a":*,…}"#));
        assert!(ok(r#"{"l":[{"x":"one two"},3]}"#, r#"{"l":[{"x":"one*"},…]}"#));
        assert!(!ok(r#"{"l":[1,2]}"#, r#"{"l":[1]}"#) && !ok(r#"{"l":[]}"#, r#"{"l":[1,…]}"#));
        assert!(ok("online", "online") && !ok("offline", "online"));
        let mut names = Names::new();
        assert!(fits(br#"{"code":"7K","n":5}"#, r#"{"code":"$code","n":$n}"#, &mut names).is_ok());
        assert_eq!(named("$code and $n", &names), "7K and 5");
        assert!(fits(b"{\"n\":6}", r#"{"n":$n}"#, &mut names).is_err(), "it has a value now");
    }
}
