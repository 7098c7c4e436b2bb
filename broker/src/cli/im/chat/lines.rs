//! A conversation as lines of a screen.

use super::screen::{Style, width, wrap};
use super::slash::COMMANDS;
use super::view::{Glyphs, Note, Ui};
use crate::cli::im::words::clean;
use parlor_client::model::Messenger;
use parlor_client::model::command::{Command, CommandState};
use parlor_client::model::conversation::{Conversation, Tick, Unsent};
use parlor_client::model::wire::Message;

/// A line: texts, each with its style.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Line(pub Vec<(String, Style)>);

/// What can be seen in a conversation.
enum Entry<'a> {
    Message(&'a Message),
    Unsent(&'a Unsent),
    Command(&'a str, &'a Command),
    Note(&'a Note),
}

/// Columns of the time and the space behind it.
const TIME: usize = 6;

impl Entry<'_> {
    fn ts(&self) -> u64 {
        match self {
            Self::Message(message) => message.ts,
            // What is not sent yet stands at the end.
            Self::Unsent(_) => u64::MAX,
            Self::Command(_, command) => command.ts,
            Self::Note(note) => note.ts,
        }
    }
}

/// The last lines of a conversation, at least `wanted` where there are so many; and whether these are all.
pub(super) fn conversation(
    messenger: &Messenger,
    ui: &Ui,
    open: &str,
    columns: usize,
    wanted: usize,
) -> (Vec<Line>, bool) {
    let Some(conversation) = messenger.conversation(open) else {
        return (vec![], true);
    };
    let mut entries: Vec<Entry> = conversation.messages().map(Entry::Message).collect();
    entries.extend(messenger.commands().of(open).into_iter().map(|(id, command)| Entry::Command(id, command)));
    entries.extend(ui.notes.iter().filter(|note| note.with == open).map(Entry::Note));
    entries.extend(conversation.unsent().map(Entry::Unsent));
    entries.sort_by_key(Entry::ts);
    // Each gives a line at least.
    let first = entries.len().saturating_sub(wanted);
    let mut lines = Vec::new();
    let mut day = first.checked_sub(1).and_then(|at| entries.get(at)).map(|entry| ui.zone.day(entry.ts()));
    if first == 0 && !conversation.is_at_start() {
        day = entries.first().map(|entry| ui.zone.day(entry.ts()));
        lines.push(Line(vec![(format!("{0}{0} older messages are asked for {0}{0}", ui.glyphs.dash), Style::Dim)]));
    }
    for entry in entries.iter().skip(first) {
        let today = ui.zone.day(entry.ts());
        if entry.ts() != u64::MAX && day.as_ref() != Some(&today) {
            lines.push(Line(vec![(format!("{0}{0} {today} {0}{0}", ui.glyphs.dash), Style::Dim)]));
            day = Some(today);
        }
        write(&mut lines, messenger, conversation, ui, entry, columns);
    }
    (lines, first == 0)
}

fn write(
    lines: &mut Vec<Line>,
    messenger: &Messenger,
    conversation: &Conversation,
    ui: &Ui,
    entry: &Entry,
    columns: usize,
) {
    let glyphs = ui.glyphs;
    match entry {
        Entry::Message(message) => {
            let is_own = message.from == messenger.me();
            let (name, after) = if message.kind.as_deref() == Some("member") {
                (format!("{} ", message.from), String::new())
            } else {
                let seen = if is_own { ticks(conversation, message.seq, glyphs) } else { String::new() };
                let edited = if message.edited_ts.is_some() { " (edited)" } else { "" };
                (format!("{}: ", message.from), format!("{edited}{seen}"))
            };
            let answers = message.re.and_then(|re| conversation.message(re)).map(|answered| quote(answered, is_own));
            let text = format!("{}{}", answers.unwrap_or_default(), message.shown());
            let style = if is_own { Style::Own } else { Style::Other };
            let is_plain = message.kind.as_deref() != Some("member") && !message.gone;
            let body = if is_plain { Style::Plain } else { Style::Dim };
            block(lines, &ui.zone.minute(message.ts), (&name, style), (&text, body), &after, columns);
        }
        Entry::Unsent(unsent) => {
            let after = match &unsent.refused {
                Some(refusal) => format!(" {} {}: {}", glyphs.cross, refusal.code, refusal.text),
                None => format!(" {}", glyphs.wait),
            };
            let style = if unsent.refused.is_some() { Style::Bad } else { Style::Dim };
            let time = ui.zone.minute(unsent.message.ts);
            let name = format!("{}: ", unsent.message.from);
            let text = unsent.message.shown();
            block(lines, &time, (&name, Style::Own), (&format!("{text}{after}"), style), "", columns);
        }
        Entry::Command(id, command) => {
            let (text, style) = progress(id, command, glyphs);
            let time = ui.zone.minute(command.ts);
            block(lines, &time, (&format!("{} ", command.name), Style::Bold), (&text, style), "", columns);
        }
        Entry::Note(note) => {
            block(lines, &ui.zone.minute(note.ts), ("", Style::Plain), (&note.text, note.style), "", columns);
        }
    }
}

/// One entry: its time, a name, a text that is wrapped, and something small behind it.
fn block(
    lines: &mut Vec<Line>,
    time: &str,
    (name, name_style): (&str, Style),
    (text, style): (&str, Style),
    after: &str,
    columns: usize,
) {
    let room = columns.saturating_sub(TIME);
    let whole: String = format!("{name}{text}").split('\n').map(clean).collect::<Vec<_>>().join("\n");
    let mut wrapped = wrap(&whole, room).into_iter();
    let first = wrapped.next().unwrap_or_default();
    let name = clean(name);
    let (head, rest) = match first.strip_prefix(name.as_str()) {
        Some(rest) => (name.clone(), rest.to_owned()),
        None => (String::new(), first),
    };
    lines.push(Line(vec![(format!("{time} "), Style::Dim), (head, name_style), (rest, style)]));
    lines.extend(wrapped.map(|text| Line(vec![(" ".repeat(TIME), Style::Plain), (text, style)])));
    if after.is_empty() {
        return;
    }
    let Some(last) = lines.last_mut() else { return };
    let used: usize = last.0.iter().map(|(text, _)| width(text)).sum();
    if used + width(after) <= columns {
        last.0.push((after.to_owned(), Style::Dim));
    } else {
        lines.push(Line(vec![(format!("{}{}", " ".repeat(TIME), after.trim_start()), Style::Dim)]));
    }
}

/// How far an own message has come.
fn ticks(conversation: &Conversation, seq: u64, glyphs: Glyphs) -> String {
    let tick = glyphs.tick;
    if let Some((recv, read, of)) = conversation.counts(seq)
        && conversation.tick(seq) != Tick::Read
    {
        return format!(" {tick} {recv}/{of}, read {read}");
    }
    match conversation.tick(seq) {
        Tick::Accepted => format!(" {tick}"),
        Tick::Delivered => format!(" {tick}{tick}"),
        Tick::Read => format!(" {tick}{tick} read"),
    }
}

/// The beginning of what a message answers, where that is not the one right before it.
fn quote(answered: &Message, is_own: bool) -> String {
    // A device answers each message at once; only people answer out of order.
    if !is_own {
        return String::new();
    }
    let text: String = clean(&answered.shown()).chars().take(20).collect();
    format!("[{}: {text}] ", answered.from)
}

/// `{"on":true}: queued → sent → done {"on":true}`.
fn progress(id: &str, command: &Command, glyphs: Glyphs) -> (String, Style) {
    let args = command.args.as_ref().map(|args| format!("{args} ")).unwrap_or_default();
    let states: Vec<&str> = match command.states.as_slice() {
        [] => vec![CommandState::Waiting.word()],
        states => states.iter().map(|state| state.word()).collect(),
    };
    let mut text = format!("{args}{}", states.join(&format!(" {} ", glyphs.arrow)));
    if let Some(result) = &command.result {
        text.push_str(&format!(" {result}"));
    }
    if let Some(said) = &command.text {
        text.push_str(&format!(" ({said})"));
    }
    let state = command.state();
    if !state.is_outcome() {
        text.push_str(&format!("  /cancel {id}"));
    }
    let style = match state {
        CommandState::Done => Style::Good,
        state if state.is_outcome() => Style::Bad,
        _ => Style::Plain,
    };
    (text, style)
}

/// What can be typed.
pub(super) fn help(columns: usize) -> Vec<Line> {
    let mut lines = Vec::new();
    for (usage, explained) in COMMANDS {
        lines.push(Line(vec![((*usage).to_owned(), Style::Bold)]));
        for text in wrap(explained, columns.saturating_sub(4)) {
            lines.push(Line(vec![(format!("    {text}"), Style::Plain)]));
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::im::chat::view::ASCII;
    use crate::cli::im::clock::Zone;
    use parlor_client::model::up::{Draft, Instruction};
    use serde_json::{Value, json};

    fn text(line: &Line) -> String {
        line.0.iter().map(|(text, _)| text.as_str()).collect()
    }

    fn lines(messenger: &Messenger, ui: &Ui, open: &str, wanted: usize) -> (Vec<String>, bool) {
        let (lines, is_all) = conversation(messenger, ui, open, 40, wanted);
        (lines.iter().map(text).collect(), is_all)
    }

    fn hear(messenger: &mut Messenger, below: &str, payload: &Value) {
        messenger.handle_publish(&format!("im/v1/{below}"), payload.to_string().as_bytes(), 0);
    }

    #[test]
    fn messages_commands_and_notes_stand_in_the_order_of_time() {
        let mut alice = Messenger::new("alice", 1);
        alice.handle_connected();
        hear(
            &mut alice,
            "me/in/lamp/msg",
            &json!({"seq": 1, "prev": 0, "from": "lamp", "ts": 60_000, "text": "I am off"}),
        );
        hear(
            &mut alice,
            "me/sent",
            &json!({"to": "lamp", "seq": 2, "ts": 86_400_000, "text": "a text that is too long for one line of it"}),
        );
        hear(
            &mut alice,
            "me/in/lamp/edit",
            &json!({"seq": 2, "ts": 86_400_001, "text": "a text that was too long for one line"}),
        );
        let order = Instruction {
            name: "set".into(),
            args: json!({"on": true}),
            id: Some("c1".into()),
            ..Instruction::default()
        };
        alice.command("lamp", &order, 86_500_000).unwrap();
        for state in ["queued", "running"] {
            let report = json!({"id": "c1", "device": "lamp", "name": "set", "state": state, "ts": 86_500_000});
            hear(&mut alice, "me/res/c1", &report);
        }
        alice.send("lamp", &Draft::text("on"), 86_600_000).unwrap();
        let mut ui = Ui::new(None, Zone::default(), ASCII);
        ui.note("lamp", 70_000, "noted", Style::Plain);
        ui.note("bob", 70_000, "not here", Style::Plain);
        let (all, is_all) = lines(&alice, &ui, "lamp", 99);
        let expect = [
            "-- 1970-01-01 --",
            "00:01 lamp: I am off",
            "00:01 noted",
            "-- 1970-01-02 --",
            "00:00 alice: a text that was too long",
            "      for one line (edited) v",
            "00:01 set {\"on\":true} queued -> running",
            "      /cancel c1",
            "00:03 alice: on ...",
        ];
        assert_eq!(all, expect);
        assert!(is_all);
        let (some, is_all) = lines(&alice, &ui, "lamp", 1);
        assert_eq!((some.len(), is_all), (1, false));
    }

    #[test]
    fn what_is_not_there_yet_is_asked_for() {
        let mut alice = Messenger::new("alice", 1);
        hear(&mut alice, "me/in/bob/msg", &json!({"seq": 9, "prev": 8, "from": "bob", "ts": 0, "text": "x\u{7}y"}));
        let ui = Ui::new(None, Zone::default(), ASCII);
        let (all, _) = lines(&alice, &ui, "bob", 9);
        assert_eq!(all, ["-- older messages are asked for --", "00:00 bob: x\u{FFFD}y"]);
        assert_eq!(lines(&alice, &ui, "nobody", 9), (vec![], true));
    }

    #[test]
    fn a_group_shows_counts() {
        let mut alice = Messenger::new("alice", 1);
        hear(&mut alice, "me/sent", &json!({"to": "g-home", "seq": 1, "ts": 0, "text": "hi"}));
        let ui = Ui::new(None, Zone::default(), ASCII);
        hear(&mut alice, "me/in/g-home/receipt", &json!({"seq": 1, "recv": 2, "read": 1, "of": 3}));
        assert_eq!(lines(&alice, &ui, "g-home", 9).0[1], "00:00 alice: hi v 2/3, read 1");
        hear(&mut alice, "me/in/g-home/receipt", &json!({"seq": 1, "recv": 3, "read": 3, "of": 3}));
        assert_eq!(lines(&alice, &ui, "g-home", 9).0[1], "00:00 alice: hi vv read");
    }
}
