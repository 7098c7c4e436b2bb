//! The line one types: letters, a cursor, and what was typed before.

/// A line being typed.
#[derive(Debug, Default)]
pub(super) struct Editor {
    letters: Vec<char>,
    cursor: usize,
    earlier: Vec<String>,
    /// How far back one looks at the moment; 0: not.
    back: usize,
}

/// A key that means something to a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Edit {
    Insert(char),
    Backspace,
    Delete,
    Left,
    Right,
    Home,
    End,
    /// To the line's beginning.
    KillBefore,
    /// To the line's end.
    KillAfter,
    /// The word before the cursor.
    KillWord,
    Earlier,
    Later,
}

/// Longest line, letters: what fits into a message with room to spare.
const LETTERS_MAX: usize = 16_000;
/// Lines remembered.
const EARLIER_MAX: usize = 100;

impl Editor {
    /// What is typed.
    pub fn text(&self) -> String {
        self.letters.iter().collect()
    }

    /// Whether nothing is.
    pub fn is_empty(&self) -> bool {
        self.letters.is_empty()
    }

    /// The letters before the cursor.
    pub fn before_cursor(&self) -> impl DoubleEndedIterator<Item = char> {
        self.letters.iter().take(self.cursor).copied()
    }

    /// The letters from the cursor on.
    pub fn after_cursor(&self) -> impl Iterator<Item = char> {
        self.letters.iter().skip(self.cursor).copied()
    }

    /// Takes the line, and remembers it.
    pub fn take(&mut self) -> String {
        let text = self.text();
        if !text.trim().is_empty() && self.earlier.last() != Some(&text) {
            self.earlier.push(text.clone());
            if self.earlier.len() > EARLIER_MAX {
                self.earlier.remove(0);
            }
        }
        self.put("");
        self.back = 0;
        text
    }

    /// Replaces the line.
    pub fn put(&mut self, text: &str) {
        self.letters = text.chars().take(LETTERS_MAX).collect();
        self.cursor = self.letters.len();
    }

    /// A key was pressed.
    pub fn handle(&mut self, edit: Edit) {
        match edit {
            Edit::Insert(letter) if self.letters.len() < LETTERS_MAX => {
                self.letters.insert(self.cursor, letter);
                self.cursor += 1;
            }
            Edit::Insert(_) => {}
            Edit::Backspace if self.cursor > 0 => {
                self.cursor -= 1;
                self.letters.remove(self.cursor);
            }
            Edit::Delete if self.cursor < self.letters.len() => {
                self.letters.remove(self.cursor);
            }
            Edit::Backspace | Edit::Delete => {}
            Edit::Left => self.cursor = self.cursor.saturating_sub(1),
            Edit::Right => self.cursor = (self.cursor + 1).min(self.letters.len()),
            Edit::Home => self.cursor = 0,
            Edit::End => self.cursor = self.letters.len(),
            Edit::KillBefore => {
                self.letters.drain(..self.cursor);
                self.cursor = 0;
            }
            Edit::KillAfter => self.letters.truncate(self.cursor),
            Edit::KillWord => {
                let is_gap = |c: &char| c.is_whitespace();
                let before = &self.letters[..self.cursor];
                let word_end = before.iter().rposition(|c| !is_gap(c)).map_or(0, |at| at + 1);
                let word_start = before[..word_end].iter().rposition(is_gap).map_or(0, |at| at + 1);
                self.letters.drain(word_start..self.cursor);
                self.cursor = word_start;
            }
            Edit::Earlier if self.back < self.earlier.len() => {
                self.back += 1;
                self.recall();
            }
            Edit::Later if self.back > 0 => {
                self.back -= 1;
                self.recall();
            }
            Edit::Earlier | Edit::Later => {}
        }
    }

    fn recall(&mut self) {
        let text = match self.back {
            0 => String::new(),
            back => self.earlier.get(self.earlier.len() - back).cloned().unwrap_or_default(),
        };
        self.put(&text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(editor: &mut Editor, text: &str) {
        for letter in text.chars() {
            editor.handle(Edit::Insert(letter));
        }
    }

    #[test]
    fn letters_go_where_the_cursor_is() {
        let check = |edits: &[Edit], expect: &str| {
            let mut editor = Editor::default();
            typed(&mut editor, "one two é");
            for edit in edits {
                editor.handle(*edit);
            }
            assert_eq!(editor.text(), expect, "{edits:?}");
        };
        check(&[], "one two é");
        check(&[Edit::Backspace, Edit::Backspace], "one two");
        check(&[Edit::Home, Edit::Insert('x'), Edit::Right, Edit::Delete], "xoe two é");
        check(&[Edit::Left, Edit::KillBefore], "é");
        check(&[Edit::Home, Edit::Right, Edit::KillAfter], "o");
        check(&[Edit::KillWord, Edit::KillWord], "one ");
        check(&[Edit::KillWord, Edit::KillWord, Edit::KillWord, Edit::KillWord, Edit::Left, Edit::Delete], "");
        check(&[Edit::End, Edit::Right, Edit::Delete, Edit::Insert('!')], "one two é!");
    }

    #[test]
    fn earlier_lines_come_back() {
        let mut editor = Editor::default();
        for line in ["first", "second", "second", " "] {
            typed(&mut editor, line);
            assert_eq!(editor.take(), line);
        }
        let mut check = |edit, expect: &str| {
            editor.handle(edit);
            assert_eq!(editor.text(), expect);
        };
        check(Edit::Earlier, "second");
        check(Edit::Earlier, "first");
        check(Edit::Earlier, "first");
        check(Edit::Later, "second");
        check(Edit::Later, "");
        check(Edit::Later, "");
    }
}
