//! What a typed line means: something to say, or a command that begins with a slash.

use crate::cli::im::words::{ArgumentsError, arguments};
use parlor_client::model::up::{Instruction, is_address, is_client_id, is_level};
use serde_json::{Value, json};

/// What a line asks for.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Wish {
    /// Say something to somebody.
    Say { to: String, text: String },
    /// Show a conversation.
    Open(String),
    /// Command a device.
    Command { device: String, order: Instruction },
    /// Cancel a command.
    Cancel { device: String, id: String },
    /// Replace an own message; without a number, the last one.
    Edit { with: String, seq: Option<u64>, text: String },
    /// Wipe an own message; without a number, the last one.
    Recall { with: String, seq: Option<u64> },
    /// Publish below `im/v1/`.
    Ask { below: String, payload: Value },
    /// Show what can be typed.
    Help,
    /// Leave.
    Quit,
    /// Nothing.
    Nothing,
}

/// A line that means nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum SlashError {
    #[error("there is no /{0}; /help shows what there is")]
    Unknown(String),
    #[error("write: {0}")]
    Usage(&'static str),
    #[error("`{0}` is no address: 1 to 32 of a-z, 0-9, '.', '_' and '-'")]
    Address(String),
    #[error("whom? open a conversation first (Tab, or /open NAME)")]
    Nobody,
    #[error(transparent)]
    Arguments(#[from] ArgumentsError),
}

/// What can be typed, and what it does.
pub(super) const COMMANDS: &[(&str, &str)] = &[
    ("/open NAME", "show or begin a conversation: bob, g-home, lamp"),
    ("/cmd NAME [ARGS]", "command this device: /cmd set {\"target\":21} or /cmd set on=true; /cmd @lamp set on=true"),
    ("/cancel ID", "cancel a command that has no outcome yet"),
    ("/desired ARGS", "what this device should be like, also when it sleeps"),
    ("/edit [#SEQ] TEXT", "replace your last message, or that one"),
    ("/recall [#SEQ]", "wipe your last message, or that one"),
    ("/request NAME [TEXT]", "ask somebody to be your contact"),
    ("/accept NAME", "agree; also /refuse, /remove, /block, /unblock, /mute, /unmute, /follow, /unfollow NAME"),
    ("/contacts", "list contacts"),
    ("/whois NAME", "who is that?"),
    ("/group create g-NAME TITLE [with NAME…]", "make a group; /group household g-NAME TITLE … makes a household"),
    ("/group add NAME [ROLE]", "in a group: also remove NAME, role NAME ROLE, rename TITLE, info, leave, dissolve"),
    ("/join r-NAME", "enter a room; /leave leaves it"),
    ("/pair g-NAME [DEVICE]", "a one-time code for a new device of that household"),
    ("/members", "members of your households"),
    ("/terminals [kick ID]", "your terminals; end one"),
    ("/status online|away", "what others see"),
    ("/name TEXT", "your name for people"),
    ("/clear", "forget this conversation's messages, for you only"),
    ("/quit", "leave; also Ctrl-C"),
];

/// Reads a line typed while the conversation `open` is shown.
pub(super) fn parse(line: &str, open: Option<&str>) -> Result<Wish, SlashError> {
    let line = line.trim_end();
    let Some(rest) = line.strip_prefix('/').filter(|rest| !rest.starts_with('/')) else {
        // Two slashes: a text that begins with one.
        let text = line.strip_prefix('/').unwrap_or(line);
        if text.trim().is_empty() {
            return Ok(Wish::Nothing);
        }
        return Ok(Wish::Say { to: open.ok_or(SlashError::Nobody)?.to_owned(), text: text.to_owned() });
    };
    let (word, rest) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let rest = rest.trim();
    let words: Vec<&str> = rest.split_whitespace().collect();
    let here = || open.map(str::to_owned).ok_or(SlashError::Nobody);
    Ok(match (word, &words[..]) {
        ("help" | "h" | "?", _) => Wish::Help,
        ("quit" | "q" | "exit", _) => Wish::Quit,
        ("open" | "o", [name]) => Wish::Open(address(name)?),
        ("open" | "o", _) => return Err(SlashError::Usage("/open NAME")),
        ("msg" | "m", [to, _, ..]) => Wish::Say { to: address(to)?, text: after(rest, 1).to_owned() },
        ("cmd", words) => command(words, open)?,
        ("cancel", [id]) if is_client_id(id) => Wish::Cancel { device: here()?, id: (*id).to_owned() },
        ("cancel", _) => return Err(SlashError::Usage("/cancel ID, in the device's conversation")),
        ("desired", words) if !words.is_empty() => ask(&format!("to/{}/desired", here()?), arguments(words)?),
        ("edit", [first, _, ..]) if number(first).is_some() => {
            Wish::Edit { with: here()?, seq: number(first), text: after(rest, 1).to_owned() }
        }
        ("edit", [_, ..]) => Wish::Edit { with: here()?, seq: None, text: rest.to_owned() },
        ("recall", []) => Wish::Recall { with: here()?, seq: None },
        ("recall", [first]) if number(first).is_some() => Wish::Recall { with: here()?, seq: number(first) },
        ("request", [name, ..]) => {
            let mut payload = json!({"op": "request"});
            if words.len() > 1 {
                payload["text"] = json!(after(rest, 1));
            }
            ask(&format!("me/contact/{}", address(name)?), payload)
        }
        ("accept" | "refuse" | "remove" | "block" | "unblock" | "mute" | "unmute" | "follow" | "unfollow", [name]) => {
            ask(&format!("me/contact/{}", address(name)?), json!({ "op": word }))
        }
        ("contacts", _) => ask("me/contacts", json!({})),
        ("whois", [name]) => ask(&format!("me/whois/{}", address(name)?), json!({})),
        ("group", words) => group(words, rest, open)?,
        ("join", [room]) => ask(&format!("me/group/{}", address(room)?), json!({"op": "join"})),
        ("leave", []) => ask(&format!("me/group/{}", here()?), json!({"op": "leave"})),
        ("pair", [household]) => ask("me/pair", json!({"household": address(household)?})),
        ("pair", [household, name]) => {
            ask("me/pair", json!({"household": address(household)?, "name": address(name)?}))
        }
        ("members", _) => ask("me/household", json!({})),
        ("terminals", []) => ask("me/terminals", json!({})),
        ("terminals", ["kick", id]) => ask("me/terminals", json!({ "kick": id })),
        ("status", [state @ ("online" | "away")]) => ask("me/status", json!({ "state": state })),
        ("name", [_, ..]) => ask("me/profile", json!({ "name": rest })),
        ("clear", []) => ask(&format!("me/conv/{}", here()?), json!({"op": "clear"})),
        (word, _) => {
            let usage = COMMANDS.iter().map(|(usage, _)| *usage);
            let mut usage = usage.filter(|usage| usage.trim_start_matches('/').split(' ').next() == Some(word));
            return Err(usage.next().map_or_else(|| SlashError::Unknown(word.to_owned()), SlashError::Usage));
        }
    })
}

/// `/cmd set on=true` in the device's conversation, `/cmd @lamp set on=true` anywhere.
fn command(words: &[&str], open: Option<&str>) -> Result<Wish, SlashError> {
    const USAGE: SlashError = SlashError::Usage("/cmd NAME [ARGS], or /cmd @DEVICE NAME [ARGS]");
    let (device, words) = match words {
        [first, rest @ ..] if first.starts_with('@') => (address(first.trim_start_matches('@'))?, rest),
        words => (open.ok_or(SlashError::Nobody)?.to_owned(), words),
    };
    let [name, args @ ..] = words else { return Err(USAGE) };
    if !is_level(name) {
        return Err(USAGE);
    }
    let order = Instruction { name: (*name).to_owned(), args: arguments(args)?, ..Instruction::default() };
    Ok(Wish::Command { device, order })
}

fn group(words: &[&str], rest: &str, open: Option<&str>) -> Result<Wish, SlashError> {
    const CREATE: SlashError = SlashError::Usage("/group create g-NAME TITLE [with NAME…]");
    if let [how @ ("create" | "household"), name, title @ ..] = words {
        let mut title: Vec<&str> = title.to_vec();
        let members = match title.iter().position(|word| *word == "with") {
            Some(at) => title.split_off(at).into_iter().skip(1).map(address).collect::<Result<Vec<_>, _>>()?,
            None => Vec::new(),
        };
        if !name.starts_with("g-") || title.is_empty() {
            return Err(CREATE);
        }
        let payload = json!({
            "op": "create", "name": title.join(" "), "household": *how == "household", "members": members,
        });
        return Ok(ask(&format!("me/group/{}", address(name)?), payload));
    }
    let group = open.filter(|open| open.starts_with("g-"));
    let group =
        group.ok_or(SlashError::Usage("/group …, in the group's conversation; or /group create g-NAME TITLE"))?;
    let payload = match words {
        ["add", who] => json!({"op": "add", "who": address(who)?, "role": "member"}),
        [op @ ("add" | "role"), who, role @ ("owner" | "member" | "guest")] => {
            json!({"op": op, "who": address(who)?, "role": role})
        }
        ["remove", who] => json!({"op": "remove", "who": address(who)?}),
        ["rename", _, ..] => json!({"op": "rename", "name": after(rest, 1)}),
        [op @ ("info" | "leave" | "dissolve")] => json!({ "op": op }),
        _ => {
            return Err(SlashError::Usage(
                "/group add NAME [owner|member|guest], remove NAME, role NAME ROLE, rename TITLE, info, leave or dissolve",
            ));
        }
    };
    Ok(ask(&format!("me/group/{group}"), payload))
}

fn ask(below: &str, payload: Value) -> Wish {
    Wish::Ask { below: below.to_owned(), payload }
}

fn address(word: impl AsRef<str>) -> Result<String, SlashError> {
    let word = word.as_ref();
    if is_address(word) { Ok(word.to_owned()) } else { Err(SlashError::Address(word.to_owned())) }
}

/// `#12`.
fn number(word: &str) -> Option<u64> {
    word.strip_prefix('#')?.parse().ok()
}

/// The text behind so many words, as it was typed.
fn after(text: &str, words: usize) -> &str {
    let mut rest = text.trim_start();
    for _ in 0..words {
        rest = rest.split_once(char::is_whitespace).map_or("", |(_, rest)| rest.trim_start());
    }
    rest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asks(line: &str, open: &str, below: &str, payload: Value) {
        assert_eq!(parse(line, Some(open)).unwrap(), ask(below, payload), "{line}");
    }

    #[test]
    fn what_has_no_slash_is_said() {
        let say = |to: &str, text: &str| Wish::Say { to: to.into(), text: text.into() };
        assert_eq!(parse("hi  there ", Some("bob")).unwrap(), say("bob", "hi  there"));
        assert_eq!(parse("//etc is a directory", Some("bob")).unwrap(), say("bob", "/etc is a directory"));
        assert_eq!(parse("/msg lamp on  now", None).unwrap(), say("lamp", "on  now"));
        assert_eq!(parse("   ", Some("bob")).unwrap(), Wish::Nothing);
        assert!(matches!(parse("hi", None), Err(SlashError::Nobody)));
    }

    #[test]
    fn devices_are_commanded_here_or_anywhere() {
        let check = |line: &str, device: &str, name: &str, args: Value| {
            let order = Instruction { name: name.into(), args, ..Instruction::default() };
            assert_eq!(parse(line, Some("thermo1")).unwrap(), Wish::Command { device: device.into(), order }, "{line}");
        };
        check("/cmd set {\"target\":21}", "thermo1", "set", json!({"target": 21}));
        check("/cmd set { \"target\": 21 }", "thermo1", "set", json!({"target": 21}));
        check("/cmd @lamp set on=true", "lamp", "set", json!({"on": true}));
        check("/cmd status", "thermo1", "status", json!({}));
        for bad in ["/cmd", "/cmd @lamp", "/cmd set on", "/cmd a/b"] {
            assert!(parse(bad, Some("lamp")).is_err(), "{bad}");
        }
        asks("/desired {\"target\":18}", "thermo1", "to/thermo1/desired", json!({"target": 18}));
        assert_eq!(parse("/cancel c1", Some("lamp")).unwrap(), Wish::Cancel { device: "lamp".into(), id: "c1".into() });
    }

    #[test]
    fn messages_are_edited_and_recalled() {
        let edit = |seq, text: &str| Wish::Edit { with: "bob".into(), seq, text: text.into() };
        assert_eq!(parse("/edit #12 new  text", Some("bob")).unwrap(), edit(Some(12), "new  text"));
        assert_eq!(parse("/edit 12 monkeys", Some("bob")).unwrap(), edit(None, "12 monkeys"));
        assert_eq!(parse("/recall", Some("bob")).unwrap(), Wish::Recall { with: "bob".into(), seq: None });
        assert_eq!(parse("/recall #3", Some("bob")).unwrap(), Wish::Recall { with: "bob".into(), seq: Some(3) });
        assert!(parse("/recall 3", Some("bob")).is_err() && parse("/edit", Some("bob")).is_err());
    }

    #[test]
    fn contacts_groups_and_the_rest_are_asked() {
        asks("/request bob it is me", "x", "me/contact/bob", json!({"op": "request", "text": "it is me"}));
        asks("/request bob", "x", "me/contact/bob", json!({"op": "request"}));
        asks("/accept bob", "x", "me/contact/bob", json!({"op": "accept"}));
        asks("/block bob", "x", "me/contact/bob", json!({"op": "block"}));
        asks("/pair g-home", "x", "me/pair", json!({"household": "g-home"}));
        asks("/pair g-home lamp2", "x", "me/pair", json!({"household": "g-home", "name": "lamp2"}));
        asks("/whois bob", "x", "me/whois/bob", json!({}));
        asks(
            "/group create g-band The Band with bob carol",
            "x",
            "me/group/g-band",
            json!({"op": "create", "name": "The Band", "household": false, "members": ["bob", "carol"]}),
        );
        asks(
            "/group household g-hut Hut",
            "x",
            "me/group/g-hut",
            json!({"op": "create", "name": "Hut", "household": true, "members": []}),
        );
        asks("/group add bob guest", "g-hut", "me/group/g-hut", json!({"op": "add", "who": "bob", "role": "guest"}));
        asks("/group rename Our  Hut", "g-hut", "me/group/g-hut", json!({"op": "rename", "name": "Our  Hut"}));
        asks("/group info", "g-hut", "me/group/g-hut", json!({"op": "info"}));
        asks("/join r-live", "x", "me/group/r-live", json!({"op": "join"}));
        asks("/leave", "r-live", "me/group/r-live", json!({"op": "leave"}));
        asks("/status away", "x", "me/status", json!({"state": "away"}));
        asks("/terminals kick old-phone", "x", "me/terminals", json!({"kick": "old-phone"}));
        asks("/clear", "bob", "me/conv/bob", json!({"op": "clear"}));
    }

    #[test]
    fn what_is_wrong_is_explained() {
        let check = |line: &str, word: &str| {
            let error = parse(line, Some("bob")).unwrap_err().to_string();
            assert!(error.contains(word), "{line}: {error}");
        };
        check("/dance", "no /dance");
        check("/request", "write: /request NAME");
        check("/request Bob!", "no address");
        check("/group add carol", "in the group's conversation");
        check("/group create home Home", "g-NAME");
        check("/status asleep", "/status online|away");
        check("/desired", "/desired ARGS");
    }

    #[test]
    fn every_command_of_the_help_is_known() {
        for (usage, _) in COMMANDS {
            let word = usage.trim_start_matches('/').split(' ').next().unwrap_or_default();
            let error = parse(&format!("/{word}"), Some("bob")).err().map(|error| error.to_string());
            assert!(!error.is_some_and(|error| error.contains("there is no")), "/{word}");
        }
    }
}
