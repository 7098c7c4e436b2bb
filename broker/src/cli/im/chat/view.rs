//! What is on the screen: the list of conversations, the open one, a line of news and the line one types.

use super::editor::Editor;
use super::lines::{Line, conversation, help};
use super::screen::{Screen, Style, columns, width};
use crate::cli::im::clock::Zone;
use crate::cli::im::words::clean;
use parlor_client::model::Messenger;
use serde_json::{Map, Value};
use std::collections::VecDeque;

/// What the person looks at and types, as far as it is not in the messenger.
pub(super) struct Ui {
    /// The conversation that is shown.
    pub open: Option<String>,
    pub editor: Editor,
    /// Lines between the bottom of the conversation and the bottom of the screen.
    pub scroll: usize,
    pub shows_help: bool,
    /// The connection in a few words.
    pub connection: String,
    /// The last thing that went wrong or was answered, for the line of news.
    pub news: String,
    pub notes: VecDeque<Note>,
    pub zone: Zone,
    pub glyphs: Glyphs,
}

/// Something this program says within a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Note {
    pub with: String,
    pub ts: u64,
    pub text: String,
    pub style: Style,
}

/// Notes kept.
const NOTES_MAX: usize = 200;
/// Columns of the list of conversations, and how wide a screen must be to have one.
const LIST: usize = 22;
const LIST_FROM: usize = 60;
/// The least screen anything is drawn on.
const LEAST: (usize, usize) = (20, 6);

/// The signs used, which not every terminal can show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Glyphs {
    pub online: &'static str,
    pub away: &'static str,
    pub asleep: &'static str,
    pub offline: &'static str,
    pub group: &'static str,
    pub tick: &'static str,
    pub cross: &'static str,
    pub wait: &'static str,
    pub arrow: &'static str,
    pub bar: &'static str,
    pub dash: &'static str,
}

/// For terminals that show UTF-8.
pub(super) const UNICODE: Glyphs = Glyphs {
    online: "●",
    away: "◐",
    asleep: "z",
    offline: "○",
    group: "#",
    tick: "✓",
    cross: "✗",
    wait: "…",
    arrow: "→",
    bar: "│",
    dash: "─",
};

/// For all others.
pub(super) const ASCII: Glyphs = Glyphs {
    online: "*",
    away: "~",
    asleep: "z",
    offline: "o",
    group: "#",
    tick: "v",
    cross: "x",
    wait: "...",
    arrow: "->",
    bar: "|",
    dash: "-",
};

/// What was found while drawing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Drawn {
    /// The oldest that is known is on the screen: older ones are wanted.
    pub is_at_top: bool,
    /// So is the newest.
    pub is_at_bottom: bool,
}

impl Ui {
    pub fn new(open: Option<String>, zone: Zone, glyphs: Glyphs) -> Self {
        Self {
            open,
            editor: Editor::default(),
            scroll: 0,
            shows_help: false,
            connection: "connecting".to_owned(),
            news: String::new(),
            notes: VecDeque::new(),
            zone,
            glyphs,
        }
    }

    /// Says something within a conversation.
    pub fn note(&mut self, with: &str, ts: u64, text: &str, style: Style) {
        self.notes.push_back(Note { with: with.to_owned(), ts, text: text.to_owned(), style });
        if self.notes.len() > NOTES_MAX {
            self.notes.pop_front();
        }
    }

    /// Shows a conversation.
    pub fn show(&mut self, with: &str) {
        self.open = Some(with.to_owned());
        self.scroll = 0;
        self.shows_help = false;
    }
}

/// Everybody who can be written to, in the order of the list: conversations, the latest first, then who is only known.
pub(super) fn names(messenger: &Messenger) -> Vec<String> {
    let mut names: Vec<String> = messenger.conversations().iter().map(|(with, _)| (*with).to_owned()).collect();
    let others = messenger.contacts().map(|(name, _)| name).chain(messenger.known());
    let mut others: Vec<&str> = others.filter(|name| *name != messenger.me()).collect();
    others.sort_unstable();
    others.dedup();
    let new: Vec<String> = others.iter().map(|n| (*n).to_owned()).filter(|name| !names.contains(name)).collect();
    names.extend(new);
    names
}

/// Draws everything.
pub(super) fn draw(screen: &mut Screen, messenger: &Messenger, ui: &mut Ui, now: u64) -> Drawn {
    let (wide, high) = (screen.width(), screen.height());
    if wide < LEAST.0 || high < LEAST.1 {
        screen.put(0, 0, wide, "too small", Style::Plain);
        return Drawn { is_at_top: false, is_at_bottom: false };
    }
    header(screen, messenger, ui);
    let left = if wide >= LIST_FROM { LIST } else { 0 };
    if left > 0 {
        list(screen, messenger, ui, left);
        for row in 1..high - 2 {
            screen.put(row, left, 1, ui.glyphs.bar, Style::Dim);
        }
    }
    let column = if left > 0 { left + 2 } else { 0 };
    let drawn = body(screen, messenger, ui, column, now);
    let news = news(messenger, ui, now);
    screen.put(high - 2, 0, wide, &clean(&news), Style::Dim);
    input(screen, ui);
    drawn
}

fn header(screen: &mut Screen, messenger: &Messenger, ui: &Ui) {
    let wide = screen.width();
    screen.fill(0, Style::Inverse);
    let unread = match messenger.unread() {
        0 => String::new(),
        unread => format!(", {unread} unread"),
    };
    let end = screen.put(0, 1, wide, &format!("{}{unread}", messenger.me()), Style::Inverse);
    let room = wide.saturating_sub(end + 3);
    let text = clean(&ui.connection);
    let at = wide.saturating_sub(width(&text).min(room) + 1);
    screen.put(0, at, room, &text, Style::Inverse);
}

fn list(screen: &mut Screen, messenger: &Messenger, ui: &Ui, columns: usize) {
    let rows = screen.height() - 3;
    let names = names(messenger);
    let open = ui.open.as_ref().and_then(|open| names.iter().position(|name| name == open));
    // The open one is always in sight.
    let first = open.map_or(0, |at| (at + 1).saturating_sub(rows));
    for (row, name) in names.iter().skip(first).take(rows).enumerate() {
        let is_open = ui.open.as_ref() == Some(name);
        let conversation = messenger.conversation(name);
        let unread = conversation.map_or(0, |c| c.unread);
        let (sign, style) = sign(messenger, name, ui.glyphs);
        screen.put(row + 1, 0, 1, sign, style);
        let title = conversation.map(|c| c.name.as_str()).filter(|title| !title.is_empty()).unwrap_or(name);
        let count = match unread {
            0 => String::new(),
            1..=99 => format!(" {unread}"),
            _ => " 99+".to_owned(),
        };
        let style = match (is_open, unread) {
            (true, _) => Style::Inverse,
            (false, 0) => Style::Plain,
            (false, _) => Style::Bold,
        };
        let room = columns - 3 - count.len();
        let title = clean(title);
        let padding = " ".repeat(room.saturating_sub(width(&title)));
        let end = screen.put(row + 1, 2, room, &format!("{title}{padding}"), style);
        screen.put(row + 1, end, count.len(), &count, if is_open { style } else { Style::Alert });
    }
}

/// Whether somebody can be reached, as a sign.
fn sign(messenger: &Messenger, name: &str, glyphs: Glyphs) -> (&'static str, Style) {
    if messenger.contacts().any(|(contact, state)| contact == name && state == "asking") {
        return ("?", Style::Alert);
    }
    match messenger.presence(name).map(|presence| presence.state.as_str()) {
        Some("online") => (glyphs.online, Style::Good),
        Some("away") => (glyphs.away, Style::Plain),
        Some("asleep") => (glyphs.asleep, Style::Dim),
        Some("offline") => (glyphs.offline, Style::Dim),
        _ if name.starts_with("g-") || name.starts_with("r-") || name.starts_with("ch-") => (glyphs.group, Style::Dim),
        _ => (" ", Style::Plain),
    }
}

fn body(screen: &mut Screen, messenger: &Messenger, ui: &mut Ui, column: usize, now: u64) -> Drawn {
    let columns = screen.width() - column;
    let state = ui.open.as_deref().filter(|_| !ui.shows_help).and_then(|open| state(messenger, open));
    let top = if state.is_some() { 3 } else { 2 };
    let rows = screen.height() - 2 - top;
    let (title, lines, is_all) = match (&ui.open, ui.shows_help) {
        (_, true) => ("Help; Esc closes it".to_owned(), help(columns), true),
        (Some(open), false) => {
            let wanted = rows + ui.scroll;
            let (lines, is_all) = conversation(messenger, ui, open, columns, wanted);
            (title(messenger, ui, open, now), lines, is_all)
        }
        (None, false) => ("Tab opens a conversation, /help shows what can be typed".to_owned(), Vec::new(), true),
    };
    screen.put(1, column, columns, &clean(&title), Style::Bold);
    screen.put(2, column, columns, &clean(&state.unwrap_or_default()), Style::Dim);
    ui.scroll = ui.scroll.min(lines.len().saturating_sub(rows));
    let first = lines.len().saturating_sub(rows + ui.scroll);
    for (row, line) in lines.iter().skip(first).take(rows).enumerate() {
        put(screen, row + top, column, columns, line);
    }
    let is_conversation = ui.open.is_some() && !ui.shows_help;
    Drawn { is_at_top: is_conversation && is_all && first == 0, is_at_bottom: is_conversation && ui.scroll == 0 }
}

fn put(screen: &mut Screen, row: usize, column: usize, columns: usize, line: &Line) {
    let mut at = column;
    for (text, style) in &line.0 {
        at = screen.put(row, at, (column + columns).saturating_sub(at), text, *style);
    }
}

/// Who it is, and whether they can be reached.
fn title(messenger: &Messenger, ui: &Ui, open: &str, now: u64) -> String {
    let mut title = open.to_owned();
    if let Some(conversation) = messenger.conversation(open) {
        if !conversation.name.is_empty() && conversation.name != open {
            title = format!("{} ({open})", conversation.name);
        }
        if conversation.muted {
            title.push_str(", muted");
        }
    }
    if let Some(presence) = messenger.presence(open).filter(|presence| !presence.state.is_empty()) {
        title.push_str(&format!(", {}", presence.state));
        let when = |ts: u64| if now.saturating_sub(ts) < 86_400_000 { ui.zone.minute(ts) } else { ui.zone.day(ts) };
        match (presence.state.as_str(), presence.until, presence.seen) {
            ("asleep", Some(until), _) => title.push_str(&format!(" until {}", when(until))),
            ("offline", _, Some(seen)) if seen > 0 => title.push_str(&format!(", seen {}", when(seen))),
            _ => {}
        }
    }
    title
}

/// What a device is like, and what it should be like.
fn state(messenger: &Messenger, open: &str) -> Option<String> {
    let device = messenger.device(open)?;
    let pairs = |map: &Map<String, Value>, is: &dyn Fn(&String, &Value) -> bool| -> Vec<String> {
        map.iter().filter(|(key, value)| is(key, value)).map(|(key, value)| format!("{key} {value}")).collect()
    };
    let mut text = pairs(&device.reported, &|_, _| true).join("  ");
    let waits = pairs(&device.desired, &|key, value| device.reported.get(key) != Some(value));
    if !waits.is_empty() {
        text.push_str(&format!("  (wanted: {})", waits.join(", ")));
    }
    Some(text)
}

fn news(messenger: &Messenger, ui: &Ui, now: u64) -> String {
    if let Some(conversation) = ui.open.as_deref().and_then(|open| messenger.conversation(open)) {
        let typists: Vec<&str> =
            conversation.typing.iter().filter(|(_, until)| **until > now).map(|(who, _)| who.as_str()).collect();
        if !typists.is_empty() {
            return format!(
                "{} {} typing{}",
                typists.join(", "),
                if typists.len() == 1 { "is" } else { "are" },
                ui.glyphs.wait
            );
        }
    }
    if ui.scroll > 0 {
        return format!("{} lines below; Esc goes to the end", ui.scroll);
    }
    if !ui.news.is_empty() {
        return ui.news.clone();
    }
    "Enter sends  Tab next  Ctrl-N/P choose  PgUp/PgDn scroll  /help  Ctrl-C leaves".to_owned()
}

fn input(screen: &mut Screen, ui: &Ui) {
    let (wide, row) = (screen.width(), screen.height() - 1);
    let prompt = "> ";
    let end = screen.put(row, 0, wide, prompt, Style::Bold);
    // The letters before the cursor that fit, the last ones first; the cursor needs a column.
    let room = wide - end - 1;
    let mut used = 0;
    let fits = |letter: &char| {
        used += columns(*letter);
        used <= room
    };
    let before: Vec<char> = ui.editor.before_cursor().collect::<Vec<_>>().into_iter().rev().take_while(fits).collect();
    let before: String = before.into_iter().rev().collect();
    let cursor = screen.put(row, end, wide - end, &clean(&before), Style::Plain);
    let after: String = ui.editor.after_cursor().take(wide).collect();
    screen.put(row, cursor, wide - cursor, &clean(&after), Style::Plain);
    screen.cursor = (cursor.min(wide - 1), row);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::im::chat::editor::Edit;
    use serde_json::json;

    fn house() -> Messenger {
        let mut alice = Messenger::new("alice", 1);
        alice.handle_connected();
        let mut hear = |below: &str, payload: Value| {
            alice.handle_publish(&format!("im/v1/{below}"), payload.to_string().as_bytes(), 90_000_000);
        };
        hear("me/conv/g-home", json!({"addr": "g-home", "kind": "group", "name": "Home", "seq": 1, "last": {"ts": 5}}));
        hear("presence/bob", json!({"state": "online", "since": 1}));
        hear("presence/lamp", json!({"state": "asleep", "until": 90_060_000}));
        hear("state/lamp", json!({"version": 1, "reported": {"on": true}, "desired": {"on": false}}));
        hear(
            "me/in/bob/msg",
            json!({"seq": 1, "prev": 0, "from": "bob", "ts": 89_000_000, "text": "Is the heating on? It is cold in here, and the cat has gone to bed."}),
        );
        hear("me/sent", json!({"to": "bob", "seq": 2, "ts": 89_060_000, "text": "yes"}));
        hear("me/in/bob/receipt", json!({"recv": 2, "read": 0}));
        hear("me/head", json!({"unread": 1}));
        alice
    }

    fn drawn(open: Option<&str>, size: (usize, usize)) -> (Vec<String>, Drawn) {
        let mut ui = Ui::new(open.map(str::to_owned), Zone::default(), UNICODE);
        ui.connection = "connected".into();
        "hello".chars().for_each(|letter| ui.editor.handle(Edit::Insert(letter)));
        let mut screen = Screen::new(size.0, size.1);
        let drawn = draw(&mut screen, &house(), &mut ui, 90_000_000);
        (screen.rows().iter().map(|row| row.trim_end().to_owned()).collect(), drawn)
    }

    #[test]
    fn a_small_terminal_shows_all_that_matters() {
        let (rows, drawn) = drawn(Some("bob"), (80, 24));
        assert_eq!(rows.len(), 24);
        assert!(rows[0].contains("alice, 1 unread") && rows[0].ends_with("connected"), "{}", rows[0]);
        assert!(rows[1].starts_with("● bob") && rows[1].contains("│ bob, online"), "{}", rows[1]);
        assert!(rows[2].starts_with("# Home"), "{}", rows[2]);
        assert!(rows[3].starts_with("z lamp"), "{}", rows[3]);
        let all = rows.join("\n");
        assert!(
            all.contains("bob: Is the heating on? It is cold in here, and") && all.contains("alice: yes ✓✓"),
            "{all}"
        );
        assert_eq!(rows[23], "> hello");
        assert!(drawn.is_at_bottom && drawn.is_at_top);
    }

    #[test]
    fn a_device_says_what_it_is_like() {
        let (rows, _) = drawn(Some("lamp"), (80, 24));
        assert!(rows[1].ends_with("lamp, asleep until 01:01"), "{}", rows[1]);
        assert!(rows[2].ends_with("on true  (wanted: on false)"), "{}", rows[2]);
    }

    #[test]
    fn narrow_and_tiny_screens_break_nothing() {
        for size in [(40, 10), (20, 6), (19, 5), (1, 1), (300, 100)] {
            let (rows, _) = drawn(Some("bob"), size);
            assert_eq!(rows.len(), size.1);
        }
        let (rows, _) = drawn(None, (80, 24));
        assert!(rows[1].contains("Tab opens a conversation"));
    }

    #[test]
    fn a_long_line_is_seen_around_the_cursor() {
        let mut ui = Ui::new(None, Zone::default(), ASCII);
        "0123456789".repeat(9).chars().for_each(|letter| ui.editor.handle(Edit::Insert(letter)));
        let mut screen = Screen::new(40, 6);
        draw(&mut screen, &house(), &mut ui, 0);
        assert!(
            screen.rows()[5].starts_with("> 34567890") && screen.rows()[5].ends_with("6789 "),
            "{:?}",
            screen.rows()[5]
        );
        assert_eq!(screen.cursor, (39, 5));
    }
}
