//! docs/protocol.md is executed: every example of it runs against a broker, in the order of the document, and every topic
//! of its tables and every code of its errors has an example. How an example is read stands in the document itself.

use super::common::*;
use parlor_tests::im::{Answer, House, Names, PASSWORD, fits, json, named};
use parlor_tests::operator::Operator;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

/// The accounts of the examples, besides the service `town`.
const ACCOUNTS: [&str; 4] = ["alice", "bob", "carol", "lamp"];

/// How long something may take that an example says comes.
const LATE: Duration = Duration::from_secs(4);

/// How long nothing has to come for "nothing comes": as many exchanges with the broker.
const FENCES: usize = 3;

/// A fenced block of the document.
struct Block {
    /// Settings of a broker of its own; none: the one of the document.
    settings: Vec<String>,
    /// Number and text of each line.
    lines: Vec<(usize, String)>,
}

fn document() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a repository").join("docs/protocol.md");
    std::fs::read_to_string(path).expect("docs/protocol.md can be read")
}

fn blocks(text: &str) -> Vec<Block> {
    let mut found: Vec<Block> = vec![];
    let mut is_open = false;
    for (number, line) in (1..).zip(text.lines()) {
        if let Some(rest) = line.strip_prefix("```") {
            is_open = !is_open && (rest == "im" || rest.starts_with("im "));
            if is_open {
                let settings = rest.split_whitespace().skip(1).map(str::to_owned).collect();
                found.push(Block { settings, lines: vec![] });
            }
        } else if is_open && !line.trim().is_empty() && !line.starts_with('#') {
            found.last_mut().expect("it is open").lines.push((number, line.to_owned()));
        }
    }
    found
}

/// One terminal on the stage.
struct Actor {
    client: Client,
    /// What has come and no line of an example was about.
    inbox: Vec<Publish>,
    last: Option<Answer>,
}

impl Actor {
    fn new(client: Client) -> Self {
        Self { client, inbox: vec![], last: None }
    }

    fn take(&mut self, packet: Packet) {
        match packet {
            Packet::Publish(publish) => {
                self.client.finish(&publish);
                self.inbox.push(publish);
            }
            other => panic!("{}: {other:?}", self.client.name),
        }
    }

    /// Takes what the broker has now.
    fn settle(&mut self) {
        for _ in 0..FENCES {
            for packet in self.client.fence() {
                self.take(packet);
            }
        }
    }
}

/// A broker, and who is connected to it.
struct Stage {
    house: House,
    actors: BTreeMap<String, Actor>,
    names: Names,
    /// Reason code of PUBACK for each code of section 10.
    reasons: BTreeMap<String, u8>,
}

impl Stage {
    fn new(settings: &[String], reasons: &BTreeMap<String, u8>) -> Option<Self> {
        let extra: Vec<&str> = settings.iter().flat_map(|setting| ["--set", setting]).collect();
        let house = House::with(&ACCOUNTS, &extra)?;
        house.add("town", "service");
        Some(Self { house, actors: BTreeMap::new(), names: Names::new(), reasons: reasons.clone() })
    }

    /// The connection of `alice`, or of another terminal of hers, `alice.tablet`: made when it is first spoken of, and
    /// subscribed to everything.
    fn actor(&mut self, name: &str) -> &mut Actor {
        if !self.actors.contains_key(name) {
            let mut client = self.connect(name, &[]);
            assert_eq!(client.subscribe_code("im/v1/#", 1), 1, "{name}");
            self.actors.insert(name.to_owned(), Actor::new(client));
        }
        self.actors.get_mut(name).expect("it is there")
    }

    fn connect(&self, name: &str, properties: &[(&str, &str)]) -> Client {
        let account = name.split('.').next().unwrap_or(name);
        let mut connect = match account {
            "anonymous" => Connect::v5(name),
            _ => Connect::v5(name).username(account).password(PASSWORD),
        };
        for (key, value) in properties {
            connect = connect.with(prop::user(key, value));
        }
        connect.to(&self.house.broker)
    }

    /// `puts in $name for ACCOUNT: CONTENT`: the operator puts in a blob, whose id has that name from then on.
    fn operates(&mut self, what: &str) -> Result<(), String> {
        let (words, content) = what.split_once(": ").ok_or("what is put in?")?;
        let ["puts", "in", name, "for", reader] = words.split(' ').collect::<Vec<_>>()[..] else {
            return Err("no operator does that".to_owned());
        };
        let path = format!("/blobs?name=image.bin&version=2&for={reader}");
        let answer = Operator::of(&self.house.broker).ask("POST", &path, content);
        let id = answer.json()["id"].as_str().map(str::to_owned).ok_or_else(|| answer.text().to_owned())?;
        self.names.insert(name.trim_start_matches('$').to_owned(), id);
        Ok(())
    }

    fn run(&mut self, number: usize, line: &str) -> Result<(), String> {
        let at = line.find(['>', '<', '!', '=', '-', ':']).unwrap_or_else(|| panic!("line {number}: {line}"));
        let (name, rest) = line.split_at(at);
        let (mark, rest) = rest.split_at(1);
        let rest = named(rest.trim_start(), &self.names);
        let (topic, payload) = rest.split_once(' ').unwrap_or((&rest, ""));
        let outcome = match mark {
            ">" => self.says(name, topic, payload),
            "<" => self.hears(name, topic, payload),
            "!" => self.is_refused(name, topic),
            "=" => self.is_answered(name, &rest),
            "-" => self.hears_nothing(name, topic),
            ":" if name == "operator" => self.operates(&rest),
            _ => self.does(name, &rest),
        };
        outcome.map_err(|why| format!("docs/protocol.md, line {number}: {line}\n{why}\n"))
    }

    fn says(&mut self, name: &str, topic: &str, payload: &str) -> Result<(), String> {
        let (payload, times) = match payload.strip_suffix(" times)").and_then(|rest| rest.rsplit_once(" (")) {
            Some((payload, times)) => (payload, times.parse().expect("a number of times")),
            None => (payload, 1),
        };
        let (payload, response_topic) = match payload.strip_suffix(')').and_then(|p| p.rsplit_once("(response topic "))
        {
            Some((payload, topic)) => (payload.trim_end(), Some(topic)),
            None => (payload, None),
        };
        let mut publish = Publish::new(topic, payload).qos(1, 0);
        publish.props.0.extend(response_topic.map(prop::response_topic));
        self.check_last(name)?;
        for _ in 0..times {
            let actor = self.actor(name);
            actor.last = Some(actor.client.answer_to(&publish));
        }
        Ok(())
    }

    /// What was said last and no example calls refused must have been accepted.
    fn check_last(&mut self, name: &str) -> Result<(), String> {
        match self.actors.get_mut(name).and_then(|actor| actor.last.take()) {
            Some(answer) if answer.code >= 0x80 => Err(format!("before: {name} was refused: {answer:?}")),
            _ => Ok(()),
        }
    }

    fn hears(&mut self, name: &str, topic: &str, pattern: &str) -> Result<(), String> {
        let mut names = self.names.clone();
        let actor = self.actor(name);
        let deadline = Instant::now() + LATE;
        let mut seen = 0;
        loop {
            while seen < actor.inbox.len() {
                let p = &actor.inbox[seen];
                if p.topic == topic && is_heard(&p.payload, pattern, &mut names) {
                    actor.inbox.remove(seen);
                    self.names = names;
                    return Ok(());
                }
                seen += 1;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            match actor.client.try_recv(left.max(Duration::from_millis(1))) {
                Ok(packet) => actor.take(packet),
                Err(lost) => {
                    let near = actor.inbox.iter().filter(|p| p.topic == topic).map(|p| {
                        let why = fits(&p.payload, pattern, &mut names.clone()).err().unwrap_or_default();
                        format!("  {why}")
                    });
                    let near: Vec<String> = near.collect();
                    let topics: Vec<&str> = actor.inbox.iter().map(|p| p.topic.as_str()).collect();
                    return Err(format!("{lost:?}; nearest:\n{}\ntopics: {topics:?}", near.join("\n")));
                }
            }
        }
    }

    fn is_refused(&mut self, name: &str, code: &str) -> Result<(), String> {
        let wanted = self.reasons.get(code).copied().ok_or(format!("section 10 has no {code} with a reason code"))?;
        let answer = self.actor(name).last.take().ok_or("nothing was said before")?;
        if answer.code != wanted || !answer.reason().starts_with(&format!("{code}: ")) {
            return Err(format!("{wanted:#04x} expected: {answer:?}"));
        }
        Ok(())
    }

    fn is_answered(&mut self, name: &str, words: &str) -> Result<(), String> {
        let answer = self.actor(name).last.take().ok_or("nothing was said before")?;
        let users: Vec<String> = answer.props.users().iter().map(|(key, value)| format!("{key}={value}")).collect();
        if answer.code != 0 || users.join(" ") != words {
            return Err(format!("{answer:?}"));
        }
        Ok(())
    }

    fn hears_nothing(&mut self, name: &str, topic: &str) -> Result<(), String> {
        let actor = self.actor(name);
        actor.settle();
        match actor.inbox.iter().find(|p| p.topic == topic) {
            Some(p) => Err(format!("{}", String::from_utf8_lossy(&p.payload))),
            None => Ok(()),
        }
    }

    fn does(&mut self, name: &str, what: &str) -> Result<(), String> {
        self.check_last(name)?;
        let words: Vec<&str> = what.split_whitespace().collect();
        match words.as_slice() {
            ["leaves"] => self.actors.remove(name).ok_or("it is not there")?.client.disconnect(),
            ["dies"] => self.actors.remove(name).ok_or("it is not there")?.client.cut(),
            ["is", "there"] | ["returns"] => {
                let _ = self.actor(name);
            }
            ["returns", "with", said @ ..] => {
                let properties: Vec<(&str, &str)> = said.iter().filter_map(|word| word.split_once('=')).collect();
                let mut client = self.connect(name, &properties);
                assert_eq!(client.subscribe_code("im/v1/#", 1), 1, "{name}");
                self.actors.insert(name.to_owned(), Actor::new(client));
            }
            ["connects"] => {
                let client = self.connect(name, &[]);
                self.actors.insert(name.to_owned(), Actor::new(client));
            }
            ["subscribes", filter] | ["subscribes", filter, "at", "QoS", "1"] => {
                let code = self.actors.get_mut(name).ok_or("it is not there")?.client.subscribe_code(filter, 1);
                if code != 1 {
                    return Err(format!("SUBACK {code:#04x}"));
                }
            }
            ["pairs" | "enters", "with", secret] => {
                self.actors.remove(name);
                let (user, filter) = if words[0] == "pairs" { ("pair", "im/v1/me/paired") } else { (name, "im/v1/#") };
                let mut client = Connect::v5(name).username(user).password(secret).ask(&self.house.broker);
                if client.connack.code != 0 {
                    return Err(format!("{:?}", client.connack));
                }
                assert_eq!(client.subscribe_code(filter, 1), 1, "{name}");
                self.actors.insert(name.to_owned(), Actor::new(client));
            }
            _ => return Err("nobody does that".to_owned()),
        }
        Ok(())
    }

    /// At the end of a block nothing may be left that was refused.
    fn check_all(&mut self) -> Result<(), String> {
        let names: Vec<String> = self.actors.keys().cloned().collect();
        names.iter().try_for_each(|name| self.check_last(name))
    }
}

/// Whether a payload is what an example says: `bytes OFFSET of SIZE: CONTENT`, or a pattern.
fn is_heard(payload: &[u8], pattern: &str, names: &mut Names) -> bool {
    let Some((place, content)) = pattern.strip_prefix("bytes ").and_then(|rest| rest.split_once(": ")) else {
        return fits(payload, pattern, names).is_ok();
    };
    let numbers = place.split(" of ").map(|number| number.parse::<u64>().expect("offset and size").to_be_bytes());
    let head: Vec<u8> = numbers.flatten().collect();
    payload == [&head, content.as_bytes()].concat()
}

/// Every code of section 10 with its reason code.
fn reasons(text: &str) -> (Vec<String>, BTreeMap<String, u8>) {
    let section = text.split("\n## ").find(|section| section.starts_with("10. ")).expect("section 10");
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    let (mut codes, mut reasons) = (vec![], BTreeMap::new());
    for row in rows {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let code = cells[0].trim_matches('`').to_owned();
        if let Some(hex) = cells[1].strip_prefix("0x") {
            reasons.insert(code.clone(), u8::from_str_radix(hex, 16).expect("a reason code"));
        }
        codes.push(code);
    }
    (codes, reasons)
}

/// Topics of the table of a section, as filters: `{name}` is any level.
fn topics(text: &str, section: &str) -> Vec<String> {
    let section = text.split("\n## ").find(|s| s.starts_with(section)).unwrap_or_else(|| panic!("section {section}"));
    let mut found = vec![];
    for row in section.lines().filter(|line| line.starts_with("| `im/")) {
        let cell = row.trim_matches('|').split(" | ").next().unwrap_or_default();
        let mut first = "";
        for topic in cell.split('`').skip(1).step_by(2) {
            let whole = match topic.strip_prefix('…') {
                // The place that the row's first topic has.
                Some(rest) => format!("{}{rest}", first.rsplit_once('/').map_or("", |(place, _)| place)),
                None => topic.to_owned(),
            };
            if first.is_empty() {
                first = topic;
            }
            let levels = whole.split('/').map(|level| if level.starts_with('{') { "+" } else { level });
            found.push(levels.collect::<Vec<_>>().join("/"));
        }
    }
    found
}

fn matches(filter: &str, topic: &str) -> bool {
    let (filter, topic): (Vec<&str>, Vec<&str>) = (filter.split('/').collect(), topic.split('/').collect());
    filter.len() == topic.len() && filter.iter().zip(&topic).all(|(f, t)| *f == "+" || f == t)
}

#[test]
fn every_example_of_the_document_runs() {
    let text = document();
    let (_, reasons) = reasons(&text);
    let Some(mut main) = Stage::new(&[], &reasons) else { return };
    let mut wrong = vec![];
    for block in blocks(&text) {
        let mut own = None;
        if !block.settings.is_empty() {
            own = Stage::new(&block.settings, &reasons);
            if block.settings.iter().all(|setting| !setting.starts_with("store.low_space")) {
                main_contacts(own.as_ref().expect("no external broker").house());
            }
        }
        let stage = own.as_mut().unwrap_or(&mut main);
        // What follows a difference in the same block builds on it.
        wrong.extend(block.lines.iter().find_map(|(number, line)| stage.run(*number, line).err()));
        let last = block.lines.last().map_or(0, |(number, _)| *number);
        wrong.extend(
            stage.check_all().err().map(|why| format!("docs/protocol.md, the block up to line {last}: {why}\n")),
        );
    }
    assert!(wrong.is_empty(), "{} differences:\n{}", wrong.len(), wrong.join("\n"));
}

/// In a broker of a block's own, alice and bob are contacts already.
fn main_contacts(house: &House) {
    house.befriend("alice", "bob");
}

impl Stage {
    fn house(&self) -> &House {
        &self.house
    }
}

#[test]
fn every_topic_and_every_code_has_an_example() {
    let text = document();
    let lines: Vec<String> = blocks(&text).into_iter().flat_map(|b| b.lines).map(|(_, line)| line).collect();
    let said = |mark: char| {
        let topics = lines.iter().filter_map(|line| {
            let (name, rest) = line.split_once(mark)?;
            let is_name = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '.');
            is_name.then(|| rest.trim_start().split(' ').next().unwrap_or_default().to_owned())
        });
        topics.collect::<Vec<_>>()
    };
    let mut missing = vec![];
    for (section, mark) in [("2. ", '>'), ("3. ", '<')] {
        let (topics, said) = (topics(&text, section), said(mark));
        assert!(topics.len() > 15, "section {section}: the table was read");
        missing.extend(topics.into_iter().filter(|filter| !said.iter().any(|topic| matches(filter, topic))));
    }
    let (codes, _) = reasons(&text);
    assert!(codes.len() > 10, "section 10: the table was read");
    let all = lines.join("\n");
    missing.extend(
        codes
            .into_iter()
            .filter(|code| !all.contains(&format!("! {code}")) && !all.contains(&format!("\"code\":\"{code}\""))),
    );
    assert_eq!(missing, Vec::<String>::new(), "these have no example in docs/protocol.md");
}

/// The two checks above are worth what this finds.
#[test]
fn a_wrong_example_is_seen() {
    let Some(mut stage) = Stage::new(&[], &BTreeMap::from([("bad_request".to_owned(), 0x99)])) else { return };
    main_contacts(stage.house());
    assert!(stage.says("alice", "im/v1/to/bob/msg", "hi").is_ok());
    assert!(stage.is_answered("alice", "im-seq=2").is_err());
    assert!(stage.says("alice", "im/v1/to/bob/msg", "hi").is_ok());
    assert!(stage.is_refused("alice", "bad_request").is_err());
    assert!(stage.says("alice", "im/v1/to/bob/msg", "{").is_ok());
    assert!(stage.says("alice", "im/v1/to/bob/msg", "hi").is_err(), "the one before was refused");
    assert!(stage.hears("bob", "im/v1/me/in/alice/msg", r#"{"seq":1,"text":"$text",…}"#).is_ok());
    assert_eq!(named("$text", &stage.names), "hi");
    assert!(stage.hears_nothing("bob", "im/v1/me/in/alice/msg").is_err(), "the second is there");
    assert_eq!(json(&stage.actors["bob"].inbox[stage.actors["bob"].inbox.len() - 1])["seq"], 2);
}
