//! A grid of cells, drawn anew each time and sent as the difference to what the terminal shows.

use std::io::Write;
use unicode_width::UnicodeWidthChar;

/// How a cell looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Style {
    #[default]
    Plain,
    Bold,
    Dim,
    Inverse,
    /// Other people.
    Other,
    /// Oneself.
    Own,
    /// What is there and good.
    Good,
    /// What went wrong.
    Bad,
    /// What wants to be seen.
    Alert,
}

/// Whether colours may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Colours {
    Yes,
    /// `NO_COLOR` is set, or the terminal has none.
    No,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Cell {
    /// A letter and the marks on it; empty: the second half of a wide letter.
    text: String,
    style: Style,
}

/// Marks on one letter, more are left out.
const MARKS_BYTES_MAX: usize = 32;

/// What should be on the terminal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Screen {
    width: usize,
    height: usize,
    cells: Vec<Cell>,
    /// Where the cursor is: column and row.
    pub cursor: (usize, usize),
}

impl Screen {
    /// An empty one.
    pub fn new(width: usize, height: usize) -> Self {
        let blank = Cell { text: " ".to_owned(), style: Style::Plain };
        Self { width, height, cells: vec![blank; width * height], cursor: (0, 0) }
    }

    pub fn width(&self) -> usize {
        self.width
    }

    pub fn height(&self) -> usize {
        self.height
    }

    /// Writes from a column on, as far as `limit` columns go; the column after the last letter.
    pub fn put(&mut self, row: usize, column: usize, limit: usize, text: &str, style: Style) -> usize {
        if row >= self.height {
            return column;
        }
        let end = (column + limit).min(self.width);
        let mut at = column;
        for letter in text.chars() {
            let wide = columns(letter);
            if wide == 0 {
                // A mark belongs to the letter before it.
                if let Some(cell) = at.checked_sub(1).filter(|at| *at >= column).and_then(|at| self.letter_at(row, at))
                    && cell.text.len() < MARKS_BYTES_MAX
                    && !letter.is_control()
                {
                    cell.text.push(letter);
                }
                continue;
            }
            if at + wide > end {
                break;
            }
            for (offset, text) in [letter.to_string(), String::new()].into_iter().take(wide).enumerate() {
                if let Some(cell) = self.cells.get_mut(row * self.width + at + offset) {
                    *cell = Cell { text, style };
                }
            }
            at += wide;
        }
        at
    }

    /// Fills a row with a style.
    pub fn fill(&mut self, row: usize, style: Style) {
        let blank = " ".repeat(self.width);
        self.put(row, 0, self.width, &blank, style);
    }

    /// The cell of the letter that covers a column.
    fn letter_at(&mut self, row: usize, column: usize) -> Option<&mut Cell> {
        let at = row * self.width + column;
        let at = if self.cells.get(at)?.text.is_empty() { at.checked_sub(1)? } else { at };
        self.cells.get_mut(at)
    }

    /// The bytes that turn `shown` into this; without `shown`, everything is drawn.
    pub fn difference(&self, shown: Option<&Self>, colours: Colours) -> Vec<u8> {
        let shown = shown.filter(|shown| (shown.width, shown.height) == (self.width, self.height));
        let mut out = Vec::new();
        // Nothing is shown half done.
        out.extend_from_slice(b"\x1b[?25l");
        if shown.is_none() {
            out.extend_from_slice(b"\x1b[0m\x1b[2J");
        }
        let mut style = None;
        for row in 0..self.height {
            let range = row * self.width..(row + 1) * self.width;
            let new = self.cells.get(range.clone()).unwrap_or_default();
            let old = shown.and_then(|shown| shown.cells.get(range));
            let mut at = None;
            for (column, cell) in new.iter().enumerate() {
                let is_same = old.is_some_and(|old| old.get(column) == Some(cell));
                // A wide letter over two narrow ones: the half that is equal by chance is drawn with the other.
                if is_same || cell.text.is_empty() {
                    continue;
                }
                if at != Some(column) {
                    let _ = write!(out, "\x1b[{};{}H", row + 1, column + 1);
                }
                if style != Some(cell.style) {
                    out.extend_from_slice(cell.style.code(colours).as_bytes());
                    style = Some(cell.style);
                }
                out.extend_from_slice(cell.text.as_bytes());
                let is_wide = new.get(column + 1).is_some_and(|next| next.text.is_empty());
                at = Some(column + if is_wide { 2 } else { 1 });
            }
        }
        let (column, row) = self.cursor;
        let _ = write!(out, "\x1b[0m\x1b[{};{}H\x1b[?25h", row + 1, column + 1);
        out
    }

    /// Its rows as text, for tests.
    #[cfg(test)]
    pub fn rows(&self) -> Vec<String> {
        self.cells.chunks(self.width).map(|row| row.iter().map(|cell| cell.text.as_str()).collect()).collect()
    }
}

impl Style {
    fn code(self, colours: Colours) -> &'static str {
        match (self, colours) {
            (Self::Plain, _) => "\x1b[0m",
            (Self::Bold, _) => "\x1b[0;1m",
            (Self::Dim, _) => "\x1b[0;2m",
            (Self::Inverse, _) => "\x1b[0;7m",
            (Self::Other, Colours::Yes) => "\x1b[0;36m",
            (Self::Own, Colours::Yes) => "\x1b[0;32m",
            (Self::Good, Colours::Yes) => "\x1b[0;32m",
            (Self::Bad, Colours::Yes) => "\x1b[0;31m",
            (Self::Alert, Colours::Yes) => "\x1b[0;1;33m",
            (Self::Other | Self::Bad | Self::Alert, Colours::No) => "\x1b[0;1m",
            (Self::Own | Self::Good, Colours::No) => "\x1b[0m",
        }
    }
}

/// How many columns a letter takes.
pub(super) fn columns(letter: char) -> usize {
    letter.width().unwrap_or(0).min(2)
}

/// How many columns a text takes.
pub(super) fn width(text: &str) -> usize {
    text.chars().map(columns).sum()
}

/// Breaks a text into lines of at most so many columns, between words where that can be; never none.
pub(super) fn wrap(text: &str, limit: usize) -> Vec<String> {
    let limit = limit.max(2);
    let mut lines = Vec::new();
    for paragraph in text.split('\n') {
        let mut line = String::new();
        let mut used = 0;
        for word in paragraph.split_inclusive(' ') {
            let needs = width(word.trim_end());
            if used > 0 && used + needs > limit {
                lines.push(std::mem::take(&mut line).trim_end().to_owned());
                used = 0;
            }
            for letter in word.chars() {
                let wide = columns(letter);
                if used + wide > limit {
                    if letter == ' ' {
                        continue;
                    }
                    lines.push(std::mem::take(&mut line));
                    used = 0;
                }
                line.push(letter);
                used += wide;
            }
        }
        lines.push(line.trim_end().to_owned());
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_changed_is_sent() {
        let mut old = Screen::new(10, 2);
        old.put(0, 0, 10, "hello", Style::Plain);
        let mut new = old.clone();
        new.put(0, 4, 10, "p!", Style::Bold);
        new.cursor = (3, 1);
        let bytes = String::from_utf8(new.difference(Some(&old), Colours::Yes)).unwrap();
        assert_eq!(bytes, "\u{1b}[?25l\u{1b}[1;5H\u{1b}[0;1mp!\u{1b}[0m\u{1b}[2;4H\u{1b}[?25h");
        let all = String::from_utf8(new.difference(None, Colours::Yes)).unwrap();
        assert!(all.contains("hell") && all.contains("\u{1b}[2J"), "{all:?}");
    }

    #[test]
    fn without_colours_there_are_none() {
        let mut screen = Screen::new(30, 1);
        for (at, style) in [Style::Other, Style::Own, Style::Good, Style::Bad, Style::Alert].into_iter().enumerate() {
            screen.put(0, at, 1, "x", style);
        }
        let bytes = String::from_utf8(screen.difference(None, Colours::No)).unwrap();
        assert!(!bytes.contains(";3"), "{bytes:?}");
    }

    #[test]
    fn wide_letters_take_two_columns_and_marks_none() {
        let mut screen = Screen::new(6, 1);
        assert_eq!(screen.put(0, 0, 5, "日本語", Style::Plain), 4, "the third does not fit");
        assert_eq!(screen.rows(), ["日本  "]);
        assert_eq!(screen.put(0, 0, 6, "e\u{301}x\u{7}", Style::Plain), 2);
        assert!(screen.rows()[0].starts_with("e\u{301}x"));
        assert_eq!(width("日e\u{301}"), 3);
    }

    #[test]
    fn nothing_is_written_outside() {
        let mut screen = Screen::new(4, 1);
        assert_eq!(screen.put(0, 2, 99, "abcdef", Style::Plain), 4);
        assert_eq!(screen.put(7, 0, 99, "abcdef", Style::Plain), 0);
        assert_eq!(screen.rows(), ["  ab"]);
    }

    #[test]
    fn lines_break_between_words() {
        let check = |text: &str, limit, expect: &[&str]| assert_eq!(wrap(text, limit), expect, "{text}");
        check("one two three", 7, &["one two", "three"]);
        check("one\n\ntwo", 7, &["one", "", "two"]);
        check("abcdefghij", 4, &["abcd", "efgh", "ij"]);
        check("a abcdefghij", 4, &["a", "abcd", "efgh", "ij"]);
        check("日本語", 4, &["日本", "語"]);
        check("", 4, &[""]);
    }
}
