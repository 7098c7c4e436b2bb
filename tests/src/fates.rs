//! Judges what became of messages: each send has one end, and what was received is in the log, once.

use crate::im::json;
use crate::raw::Client;
use std::collections::BTreeMap;

/// How a send ended, as its client told it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The broker has it.
    Received,
    /// It was given up.
    Lost,
}

/// A message of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its number.
    pub seq: u64,
    /// Its client id; empty: none.
    pub id: String,
    /// Its text.
    pub text: String,
}

/// A conversation as the broker has it, read page by page.
pub fn log(client: &mut Client, with: &str) -> Vec<Entry> {
    client.subscribe("im/v1/me/history/res", 1);
    let (mut log, mut after) = (vec![], 0);
    loop {
        let request = serde_json::json!({ "with": with, "after": after, "max": 500 });
        assert_eq!(client.say(1, "im/v1/me/history", request.to_string()), 0);
        let page = json(&client.on("im/v1/me/history/res"));
        let messages = page["messages"].as_array().expect("a list");
        log.extend(messages.iter().map(|message| Entry {
            seq: message["seq"].as_u64().expect("a number"),
            id: message["id"].as_str().unwrap_or_default().to_owned(),
            text: message["text"].as_str().unwrap_or_default().to_owned(),
        }));
        match page["next"].as_u64() {
            Some(next) if page["more"] == true => after = next,
            _ => return log,
        }
    }
}

/// Everything that is wrong: `sent` are the ids that were given out, `ends` what was told of them, `log` what there is.
pub fn judge(sent: &[String], ends: &[(String, End)], log: &[Entry]) -> Vec<String> {
    let mut problems = vec![];
    let mut told: BTreeMap<&str, Vec<End>> = sent.iter().map(|id| (id.as_str(), vec![])).collect();
    for (id, end) in ends {
        match told.get_mut(id.as_str()) {
            Some(ends) => ends.push(*end),
            None => problems.push(format!("{id} has an end and was never sent")),
        }
    }
    let mut logged: BTreeMap<&str, u32> = BTreeMap::new();
    for (at, entry) in log.iter().enumerate() {
        if entry.seq != at as u64 + 1 {
            problems.push(format!("the log has {} where {} belongs", entry.seq, at + 1));
        }
        if !entry.id.is_empty() {
            *logged.entry(&entry.id).or_default() += 1;
        }
    }
    for (id, ends) in &told {
        let count = logged.get(id).copied().unwrap_or_default();
        match ends.as_slice() {
            [End::Received] if count != 1 => {
                problems.push(format!("{id} was received and is {count} times in the log"));
            }
            [End::Lost] if count > 1 => problems.push(format!("{id} is {count} times in the log")),
            [_] => {}
            other => problems.push(format!("{id} has {} ends: {other:?}", other.len())),
        }
    }
    problems
}

/// Whether a receiver has the log: every message once, in order.
pub fn same(heard: &[(u64, String)], log: &[Entry]) -> Result<(), String> {
    let wanted: Vec<(u64, String)> = log.iter().map(|entry| (entry.seq, entry.text.clone())).collect();
    match heard.iter().zip(&wanted).position(|(heard, wanted)| heard != wanted) {
        Some(at) => Err(format!("{:?} was heard where {:?} belongs", heard[at], wanted[at])),
        None if heard.len() != wanted.len() => Err(format!("{} were heard of {}", heard.len(), wanted.len())),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(ids: &[&str]) -> Vec<Entry> {
        let entry =
            |(at, id): (usize, &&str)| Entry { seq: at as u64 + 1, id: (*id).to_owned(), text: format!("t{id}") };
        ids.iter().enumerate().map(entry).collect()
    }

    fn check(ends: &[(&str, End)], log: &[&str], expect: &[&str]) {
        let sent = ["a".to_owned(), "b".to_owned()];
        let ends: Vec<(String, End)> = ends.iter().map(|(id, end)| ((*id).to_owned(), *end)).collect();
        assert_eq!(judge(&sent, &ends, &entries(log)), expect);
    }

    #[test]
    fn lost_and_doubled_messages_are_seen() {
        let (received, lost) = (End::Received, End::Lost);
        check(&[("a", received), ("b", lost)], &["a"], &[]);
        check(&[("a", received), ("b", lost)], &["a", "b"], &[]);
        check(&[("a", received), ("b", received)], &["a"], &["b was received and is 0 times in the log"]);
        check(&[("a", received), ("b", lost)], &["a", "a"], &["a was received and is 2 times in the log"]);
        check(&[("a", received), ("b", lost)], &["a", "b", "b"], &["b is 2 times in the log"]);
        check(&[("a", received)], &["a"], &["b has 0 ends: []"]);
        check(&[("a", received), ("b", lost), ("b", received)], &["a", "b"], &["b has 2 ends: [Lost, Received]"]);
        check(&[("a", lost), ("b", lost), ("c", lost)], &[], &["c has an end and was never sent"]);
        let mut holey = entries(&["a", "b"]);
        holey[1].seq = 3;
        let ends = [("a".to_owned(), received), ("b".to_owned(), received)];
        assert_eq!(judge(&["a".to_owned(), "b".to_owned()], &ends, &holey), ["the log has 3 where 2 belongs"]);
    }

    #[test]
    fn a_receiver_that_misses_doubles_or_mixes_is_seen() {
        let log = entries(&["a", "b"]);
        let heard =
            |list: &[(u64, &str)]| list.iter().map(|(seq, text)| (*seq, (*text).to_owned())).collect::<Vec<_>>();
        assert_eq!(same(&heard(&[(1, "ta"), (2, "tb")]), &log), Ok(()));
        assert!(same(&heard(&[(1, "ta")]), &log).is_err());
        assert!(same(&heard(&[(1, "ta"), (1, "ta"), (2, "tb")]), &log).is_err());
        assert!(same(&heard(&[(2, "tb"), (1, "ta")]), &log).is_err());
        assert!(same(&heard(&[(1, "ta"), (2, "tb"), (2, "tb")]), &log).is_err());
    }
}
