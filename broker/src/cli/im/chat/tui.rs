//! Chat for people: keys in, a screen out.

use super::act::act;
use super::editor::Edit;
use super::screen::Style;
use super::slash::{Wish, parse};
use super::terminal::{Terminal, read_keys, speaks_unicode};
use super::view::{ASCII, Drawn, UNICODE, Ui, draw, names};
use crate::cli::Exit;
use crate::cli::im::clock::Zone;
use crate::cli::im::options::Options;
use crate::cli::im::place::Purpose;
use crate::cli::im::session::{Session, SessionError, Step};
use crate::cli::im::{now_ms, until_told_to_end, words};
use crossterm::event::{Event as TerminalEvent, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use parlor_client::Event;
use parlor_client::model::Messenger;
use parlor_client::{ConnectError, Listen, Told};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// The shortest time between two screens.
const FRAME: Duration = Duration::from_millis(30);
/// How often the screen is drawn although nothing happens: typing passes.
const TICK: Duration = Duration::from_secs(1);

/// The id of what is asked for without the person's asking.
const AT_START: &str = "at-start";

/// What a key leads to.
enum Press {
    Stay,
    Redraw,
    Leave,
}

/// Talks to a person.
pub(super) async fn run(open: Option<&str>, options: &Options) -> Result<Exit, SessionError> {
    let mut session = Session::start(options, Purpose::Chat, Listen::All).await?;
    let glyphs = if speaks_unicode() { UNICODE } else { ASCII };
    let mut ui = Ui::new(open.map(str::to_owned), Zone::local(), glyphs);
    if let Some(open) = open {
        session.client.with(|messenger| messenger.open(open));
    }
    ui.connection = format!("connecting to {}", options.target);
    let mut terminal = Terminal::take().map_err(SessionError::Terminal)?;
    let ended = talk(&mut session, &mut ui, &mut terminal, options).await;
    drop(terminal);
    session.close().await;
    match ended? {
        Some(error) => Err(error.into()),
        None => Ok(Exit::Done),
    }
}

/// Until the person leaves, or the broker says that there is no way.
async fn talk(
    session: &mut Session,
    ui: &mut Ui,
    terminal: &mut Terminal,
    options: &Options,
) -> Result<Option<ConnectError>, SessionError> {
    let mut keys = read_keys();
    let told = until_told_to_end();
    tokio::pin!(told);
    let mut next_frame = Instant::now();
    loop {
        tokio::select! {
            biased;
            () = &mut told => return Ok(None),
            key = keys.recv() => match key {
                Some(Ok(key)) => match press(session, ui, &key) {
                    Press::Stay => {}
                    Press::Redraw => terminal.forget(),
                    Press::Leave => return Ok(None),
                },
                // The terminal is gone.
                Some(Err(_)) | None => return Ok(None),
            },
            () = sleep_until(next_frame) => {
                let mut screen = Terminal::screen();
                let drawn = session.client.with(|messenger| draw(&mut screen, messenger, ui, now_ms()));
                terminal.show(screen).map_err(SessionError::Terminal)?;
                if let Some(open) = &ui.open {
                    session.client.with(|messenger| seen(messenger, open, drawn));
                }
                next_frame = Instant::now() + TICK;
                continue;
            },
            step = session.step() => match step {
                Step::Ended(error) => return Ok(Some(error)),
                Step::NoBroker { why, retry_in } => disconnected(ui, &why, retry_in),
                Step::Told(told) => {
                    if told.event == Event::Connected {
                        ui.connection = format!("connected to {}", options.target);
                        // At the edge of the outbox the list comes with the next connection.
                        session.client.with(|messenger| {
                            let _ = messenger.ask("me/convs", json!({ "id": AT_START }));
                            let _ = messenger.ask("me/contacts", json!({ "id": AT_START }));
                        });
                    }
                    tell(ui, &told);
                    decline(session, &told.event);
                }
            },
        }
        next_frame = next_frame.min(Instant::now() + FRAME);
    }
}

fn press(session: &mut Session, ui: &mut Ui, event: &TerminalEvent) -> Press {
    match event {
        TerminalEvent::Key(key) if key.kind != KeyEventKind::Release => press_key(session, ui, *key),
        TerminalEvent::Paste(text) => {
            // Pasted lines are one message; nothing is sent by pasting.
            text.replace("\r\n", "\n").replace('\r', "\n").chars().for_each(|c| ui.editor.handle(Edit::Insert(c)));
            Press::Stay
        }
        TerminalEvent::Resize(..) => Press::Redraw,
        _ => Press::Stay,
    }
}

fn press_key(session: &mut Session, ui: &mut Ui, key: KeyEvent) -> Press {
    let is_control = key.modifiers.contains(KeyModifiers::CONTROL);
    let edit = match (key.code, is_control) {
        (KeyCode::Char('c'), true) => return Press::Leave,
        (KeyCode::Char('d'), true) if ui.editor.is_empty() => return Press::Leave,
        (KeyCode::Char('l'), true) => return Press::Redraw,
        (KeyCode::Char('n'), true) => return choose(session, ui, 1),
        (KeyCode::Char('p'), true) => return choose(session, ui, -1),
        (KeyCode::Tab, _) => return next_unread(session, ui),
        (KeyCode::BackTab, _) => return choose(session, ui, -1),
        (KeyCode::PageUp, _) => return scroll(ui, 10),
        (KeyCode::PageDown, _) => return scroll(ui, -10),
        (KeyCode::Esc, _) => {
            ui.shows_help = false;
            ui.scroll = 0;
            ui.news.clear();
            return Press::Stay;
        }
        (KeyCode::Enter, _) => return enter(session, ui),
        (KeyCode::Char('a'), true) | (KeyCode::Home, _) => Edit::Home,
        (KeyCode::Char('e'), true) | (KeyCode::End, _) => Edit::End,
        (KeyCode::Char('u'), true) => Edit::KillBefore,
        (KeyCode::Char('k'), true) => Edit::KillAfter,
        (KeyCode::Char('w'), true) => Edit::KillWord,
        (KeyCode::Char('d'), true) | (KeyCode::Delete, _) => Edit::Delete,
        (KeyCode::Char('h'), true) | (KeyCode::Backspace, _) => Edit::Backspace,
        (KeyCode::Left, _) => Edit::Left,
        (KeyCode::Right, _) => Edit::Right,
        (KeyCode::Up, _) => Edit::Earlier,
        (KeyCode::Down, _) => Edit::Later,
        (KeyCode::Char(letter), false) => Edit::Insert(letter),
        _ => return Press::Stay,
    };
    ui.editor.handle(edit);
    if let (Edit::Insert(_), Some(open)) = (edit, &ui.open)
        && !ui.editor.text().starts_with('/')
    {
        session.client.typing(open);
    }
    Press::Stay
}

fn scroll(ui: &mut Ui, lines: isize) -> Press {
    ui.scroll = ui.scroll.saturating_add_signed(lines);
    Press::Stay
}

/// The conversation so many further down the list.
fn choose(session: &mut Session, ui: &mut Ui, by: isize) -> Press {
    let names = session.client.with(|messenger| names(messenger));
    let at = ui.open.as_ref().and_then(|open| names.iter().position(|name| name == open));
    let at = match at {
        Some(at) => at.saturating_add_signed(by).min(names.len().saturating_sub(1)),
        None => 0,
    };
    if let Some(name) = names.get(at) {
        session.client.with(|messenger| messenger.open(name));
        ui.show(name);
    }
    Press::Stay
}

/// The next conversation with something unread, or simply the next one.
fn next_unread(session: &mut Session, ui: &mut Ui) -> Press {
    let names = session.client.with(|messenger| names(messenger));
    let from = ui.open.as_ref().and_then(|open| names.iter().position(|name| name == open)).map_or(0, |at| at + 1);
    let is_unread = |name: &&String| {
        let is_unread = |m: &mut Messenger| m.conversation(name).is_some_and(|c| c.unread > 0 && !c.muted);
        session.client.with(is_unread)
    };
    let mut round = names.iter().cycle().skip(from).take(names.len());
    let next = round.find(is_unread).or_else(|| names.iter().cycle().nth(from)).cloned();
    if let Some(name) = next {
        session.client.with(|messenger| messenger.open(&name));
        ui.show(&name);
    }
    Press::Stay
}

fn enter(session: &mut Session, ui: &mut Ui) -> Press {
    let line = ui.editor.take();
    ui.news.clear();
    let wish = match parse(&line, ui.open.as_deref()) {
        Ok(wish) => wish,
        Err(error) => {
            ui.news = error.to_string();
            ui.editor.put(&line);
            return Press::Stay;
        }
    };
    match &wish {
        Wish::Quit => return Press::Leave,
        Wish::Help => {
            ui.shows_help = true;
            ui.scroll = usize::MAX / 2;
        }
        Wish::Open(with) => ui.show(with),
        Wish::Say { to, .. } | Wish::Command { device: to, .. } => {
            ui.show(to);
        }
        _ => {}
    }
    if let Err(error) = session.client.with(|messenger| act(messenger, wish, now_ms())) {
        ui.news = error.to_string();
    }
    Press::Stay
}

/// A command that came to a person is answered at once: whoever gave it would wait for its deadline.
fn decline(session: &mut Session, event: &Event) {
    if let Event::Command { id, .. } = event {
        let answer = json!({"state": "rejected", "text": "this is a person's chat and carries no commands out"});
        let _ = session.client.with(|messenger| messenger.ask(&format!("me/cmdres/{id}"), answer));
    }
}

/// Something happened that the conversations do not show by themselves.
fn tell(ui: &mut Ui, told: &Told) {
    match &told.event {
        Event::Lost { re, why: refusal, .. } | Event::Refused { re, refusal } => {
            // A message or a command shows by itself that it was refused, and typing is nothing one has asked for.
            let shows = ["/msg", "/typing"].iter().any(|end| re.ends_with(end)) || re.contains("/cmd/");
            if !(re.starts_with("to/") && shows) {
                say(ui, &[words::refused(re, refusal)], Style::Bad);
            }
        }
        Event::Unreadable { text } => ui.news.clone_from(text),
        Event::Missed { events } => ui.news = format!("{events} events were too many"),
        Event::Connected => ui.news.clear(),
        Event::Disconnected { why, retry_in } => disconnected(ui, why, *retry_in),
        // What was published to an address shows in its conversation.
        Event::Answer { re, .. } if re == "history" || re.starts_with("to/") => {}
        Event::Answer { re, id } if id.as_deref() != Some(AT_START) => {
            say(ui, &explain(re, &told.body, ui), Style::Plain);
        }
        Event::Contact { with, op, text, own: false } => {
            let text = text.as_ref().map(|text| format!(": {text}")).unwrap_or_default();
            let line = match op.as_str() {
                "request" => format!("{with} asks to be your contact{text}   /accept {with} or /refuse {with}"),
                "accept" => format!("{with} is your contact now"),
                op => format!("{with}: contact {op}{text}"),
            };
            ui.note(with, now_ms(), &line, Style::Alert);
            ui.news = line;
        }
        Event::Bounce { with, refusal, .. } => {
            ui.note(with, now_ms(), &format!("did not get there ({}): {}", refusal.code, refusal.text), Style::Bad);
        }
        Event::Gap { from, to, why } => ui.news = format!("mailbox entries {from} to {to} are gone: {why}"),
        _ => {}
    }
}

fn disconnected(ui: &mut Ui, why: &str, retry_in: Duration) {
    ui.connection = format!("no connection, next try in {:.1} s", retry_in.as_secs_f32());
    why.clone_into(&mut ui.news);
}

/// What is on the screen counts as read, and where it begins older messages are wanted.
fn seen(messenger: &mut Messenger, open: &str, drawn: Drawn) {
    if drawn.is_at_bottom && messenger.is_connected() {
        let seq = messenger.conversation(open).and_then(|c| c.newest_seq_of_others(messenger.me()));
        if let Some(seq) = seq {
            messenger.read(open, seq);
        }
    }
    if drawn.is_at_top {
        messenger.pull_older(open);
    }
}

/// Says something in the open conversation, or in the line of news where there is none.
fn say(ui: &mut Ui, lines: &[String], style: Style) {
    match ui.open.clone() {
        Some(open) => lines.iter().for_each(|line| ui.note(&open, now_ms(), line, style)),
        None => ui.news = lines.join("; "),
    }
}

/// The answer to a request in words.
fn explain(re: &str, body: &Value, ui: &Ui) -> Vec<String> {
    if let (Some(code), Some(until)) = (body["code"].as_str(), body["until"].as_u64()) {
        return vec![
            format!("one-time code {code}, until {}", ui.zone.minute(until)),
            "the device logs in as user `pair` with the code as its password".to_owned(),
        ];
    }
    let Value::Object(keys) = body else { return vec![format!("{re}: {body}")] };
    let mut lines = Vec::new();
    let mut plain = Vec::new();
    for (key, value) in keys.iter().filter(|(key, _)| !["re", "id"].contains(&key.as_str())) {
        match value {
            Value::Array(items) if items.iter().all(Value::is_object) && !items.is_empty() => {
                lines.extend(items.iter().map(|item| format!("  {}", flat(item))));
            }
            value => plain.push(format!("{key} {}", flat(value))),
        }
    }
    let head = if plain.is_empty() && lines.is_empty() {
        format!("{re}: done")
    } else {
        format!("{re}: {}", plain.join(", "))
    };
    lines.insert(0, head);
    lines
}

/// A value without the signs that only programs need.
fn flat(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Object(keys) => {
            keys.iter().map(|(key, value)| format!("{key} {}", flat(value))).collect::<Vec<_>>().join(", ")
        }
        Value::Array(items) => items.iter().map(flat).collect::<Vec<_>>().join(" "),
        value => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_put_into_words() {
        let ui = Ui::new(None, Zone::default(), ASCII);
        let check = |body: Value, expect: &[&str]| assert_eq!(explain("x", &body, &ui), expect);
        check(json!({"re": "x", "id": "1"}), &["x: done"]);
        check(json!({"name": "Bob", "n": 1, "data": {"a": true}}), &["x: data a true, n 1, name Bob"]);
        check(json!({"members": [{"who": "bob", "role": "owner"}]}), &["x: ", "  role owner, who bob"]);
        let code = explain("pair", &json!({"code": "7KQ4-MZ2P", "until": 60_000}), &ui);
        assert!(code[0].contains("7KQ4-MZ2P, until 00:01") && code[1].contains("`pair`"), "{code:?}");
    }
}
