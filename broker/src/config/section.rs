//! Reads one table of the configuration key by key, and collects what is wrong with it.

use super::JwtAlgorithm;
use super::problem::{Offence, Origin, Problem};
use super::tree::{Node, Table, Value};
use crate::auth::JwtKey;
use std::path::PathBuf;

/// What the readers share.
pub(super) struct Room {
    pub(super) problems: Vec<Problem>,
    pub(super) files: Vec<FileUse>,
    pub(super) base: PathBuf,
}

/// A file the configuration names.
pub(super) struct FileUse {
    pub(super) origin: Origin,
    pub(super) key: String,
    pub(super) path: PathBuf,
    pub(super) content: Content,
}

/// Whether a file is fit for everybody's eyes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Content {
    Public,
    Secret,
    /// Keys for tokens: a secret for `HS256`, public for the others.
    TokenKey(JwtAlgorithm),
}

impl Room {
    pub(super) fn problem(&mut self, origin: &Origin, offence: Offence) {
        self.problems.push(Problem { origin: origin.clone(), offence });
    }

    pub(super) fn check_files(&mut self) {
        for file in std::mem::take(&mut self.files) {
            let FileUse { origin, key, path, content } = file;
            let found = match std::fs::File::open(&path).and_then(|opened| opened.metadata()) {
                Ok(found) => found,
                Err(error) => {
                    let error = error.to_string();
                    self.problem(&origin, Offence::FileUnreadable { key, path, error });
                    continue;
                }
            };
            if let Content::TokenKey(algorithm) = content
                && let Ok(contents) = std::fs::read(&path)
                && let Err(error) = JwtKey::read_file(algorithm, &contents)
            {
                self.problem(&origin, Offence::BadKeyFile { path: path.clone(), error });
            }
            let mode = permission_bits(&found);
            let is_secret = matches!(content, Content::Secret | Content::TokenKey(JwtAlgorithm::Hs256));
            if is_secret && mode & 0o007 != 0 {
                self.problem(&origin, Offence::WorldReadable { key, path, mode });
            }
        }
    }
}

#[cfg(unix)]
fn permission_bits(metadata: &std::fs::Metadata) -> u32 {
    std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o777
}

#[cfg(not(unix))]
fn permission_bits(_: &std::fs::Metadata) -> u32 {
    0
}

/// Reads one table: knows its name, and which keys were asked for.
pub(super) struct Section {
    /// Full name with a trailing dot, empty at the top.
    pub(super) prefix: String,
    /// For a reader: `[limits]`, `the file's top level`.
    pub(super) title: String,
    pub(super) origin: Origin,
    pub(super) table: Table,
    pub(super) known: Vec<&'static str>,
}

impl Section {
    pub(super) fn top(table: Table) -> Self {
        let title = "the top level of the configuration".to_owned();
        Self { prefix: String::new(), title, origin: Origin::Default, table, known: Vec::new() }
    }

    pub(super) fn name(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    pub(super) fn take(&mut self, key: &'static str) -> Option<Node> {
        self.known.push(key);
        self.table.take(key)
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.table.has(key)
    }

    pub(super) fn wrong(&self, room: &mut Room, key: &str, node: &Node, wanted: &'static str) {
        room.problem(&node.origin, Offence::WrongType { key: self.name(key), wanted, found: node.value.kind() });
    }

    pub(super) fn section(&mut self, room: &mut Room, key: &'static str) -> Option<Self> {
        let node = self.take(key)?;
        let title = format!("[{}]", self.name(key));
        self.enter(room, key, title, node)
    }

    pub(super) fn enter(&self, room: &mut Room, key: &str, title: String, node: Node) -> Option<Self> {
        let Value::Table(table) = node.value else {
            self.wrong(room, key, &node, "a table");
            return None;
        };
        let prefix = format!("{}.", self.name(key));
        Some(Self { prefix, title, origin: node.origin, table, known: Vec::new() })
    }

    pub(super) fn sections(&mut self, room: &mut Room, key: &'static str) -> Option<Vec<Self>> {
        let node = self.take(key)?;
        let title = format!("[[{}]]", self.name(key));
        let Value::List(list) = node.value else {
            self.wrong(room, key, &node, "a list of tables");
            return None;
        };
        Some(list.into_iter().filter_map(|node| self.enter(room, key, title.clone(), node)).collect())
    }

    /// A text that is not empty.
    pub(super) fn text(&mut self, room: &mut Room, key: &'static str) -> Option<(Origin, String)> {
        let node = self.take(key)?;
        self.as_text(room, key, node)
    }

    pub(super) fn as_text(&self, room: &mut Room, key: &str, node: Node) -> Option<(Origin, String)> {
        match node.value {
            Value::Text(text) | Value::Bare(text) if text.is_empty() => {
                room.problem(&node.origin, Offence::Empty(self.name(key)));
                None
            }
            Value::Text(text) | Value::Bare(text) => Some((node.origin, text)),
            _ => {
                self.wrong(room, key, &node, "a text");
                None
            }
        }
    }

    pub(super) fn texts(&mut self, room: &mut Room, key: &'static str) -> Option<Vec<String>> {
        let node = self.take(key)?;
        match node.value {
            Value::List(list) => {
                Some(list.into_iter().filter_map(|node| Some(self.as_text(room, key, node)?.1)).collect())
            }
            Value::Bare(text) => {
                Some(text.split(',').map(|part| part.trim().to_owned()).filter(|p| !p.is_empty()).collect())
            }
            _ => {
                self.wrong(room, key, &node, "a list");
                None
            }
        }
    }

    pub(super) fn boolean(&mut self, room: &mut Room, key: &'static str) -> Option<bool> {
        let node = self.take(key)?;
        match &node.value {
            Value::Boolean(value) => Some(*value),
            Value::Bare(text) if matches!(text.as_str(), "true" | "1" | "yes" | "on") => Some(true),
            Value::Bare(text) if matches!(text.as_str(), "false" | "0" | "no" | "off") => Some(false),
            _ => {
                self.wrong(room, key, &node, "true or false");
                None
            }
        }
    }

    /// A whole number within `range`, or `range.default`.
    pub(super) fn number(&mut self, room: &mut Room, key: &'static str, range: Range) -> u64 {
        let Some(node) = self.take(key) else { return range.default };
        let number = match &node.value {
            Value::Integer(number) => Some(*number),
            Value::Bare(text) => text.replace('_', "").parse().ok(),
            _ => None,
        };
        let Some(number) = number else {
            self.wrong(room, key, &node, "a whole number");
            return range.default;
        };
        match u64::try_from(number) {
            Ok(number) if (range.least..=range.most).contains(&number) => number,
            _ => {
                let Range { least, most, default } = range;
                let key = self.name(key);
                room.problem(
                    &node.origin,
                    Offence::OutOfRange { key, value: number.to_string(), least, most, default },
                );
                range.default
            }
        }
    }

    pub(super) fn small(&mut self, room: &mut Room, key: &'static str, least: u32, most: u32, default: u32) -> u32 {
        let range = Range { least: least.into(), most: most.into(), default: default.into() };
        u32::try_from(self.number(room, key, range)).unwrap_or(default)
    }

    pub(super) fn choice<T: Copy>(
        &mut self,
        room: &mut Room,
        key: &'static str,
        choices: &[(&'static str, T)],
    ) -> Option<T> {
        let (origin, value) = self.text(room, key)?;
        self.pick(room, key, &origin, value, choices)
    }

    pub(super) fn pick<T: Copy>(
        &self,
        room: &mut Room,
        key: &str,
        origin: &Origin,
        value: String,
        choices: &[(&'static str, T)],
    ) -> Option<T> {
        let found = choices.iter().find(|(word, _)| word.eq_ignore_ascii_case(&value));
        if found.is_none() {
            let choices = choices.iter().map(|(word, _)| *word).collect();
            room.problem(origin, Offence::BadChoice { key: self.name(key), value, choices });
        }
        found.map(|(_, choice)| *choice)
    }

    /// A path; relative ones in the file count from the file's directory.
    pub(super) fn path(&mut self, room: &mut Room, key: &'static str) -> Option<(Origin, PathBuf)> {
        let (origin, text) = self.text(room, key)?;
        let path = match origin {
            Origin::File(_) => room.base.join(text),
            _ => PathBuf::from(text),
        };
        Some((origin, path))
    }

    pub(super) fn file(&mut self, room: &mut Room, key: &'static str, content: Content) -> Option<PathBuf> {
        let (origin, path) = self.path(room, key)?;
        room.files.push(FileUse { origin, key: self.name(key), path: path.clone(), content });
        Some(path)
    }

    /// Reports every key nobody asked for.
    pub(super) fn finish(self, room: &mut Room) {
        let Self { title, table, known, .. } = self;
        for (key, origin) in table.into_keys() {
            let near = nearest(&key, &known);
            room.problem(&origin, Offence::UnknownKey { key, table: title.clone(), near, known: known.clone() });
        }
    }
}

/// Legal values of a number.
#[derive(Clone, Copy)]
pub(super) struct Range {
    pub(super) least: u64,
    pub(super) most: u64,
    pub(super) default: u64,
}

impl Section {
    /// Whether something in this table was reported already, so that "missing" would be a second name for it.
    pub(super) fn table_has_problem(&self, room: &Room) -> bool {
        let key = self.name("url");
        room.problems.iter().any(|p| match &p.offence {
            Offence::Empty(name) | Offence::WrongType { key: name, .. } => *name == key,
            _ => false,
        })
    }
}

/// The known key most like `key`, if one is like it at all.
fn nearest(key: &str, known: &[&'static str]) -> Option<&'static str> {
    let plain = |text: &str| text.to_ascii_lowercase().replace('-', "_");
    let key = plain(key);
    known
        .iter()
        .map(|candidate| (distance(&key, candidate), *candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len().max(key.len()) / 4)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Fewest letters to insert, take out or replace (two swapped ones count once) to make `a` into `b`.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(64).collect(), b.chars().take(64).collect());
    let mut rows = vec![vec![0_usize; b.len() + 1]; a.len() + 1];
    for (i, row) in rows.iter_mut().enumerate() {
        row[0] = i;
    }
    rows[0] = (0..=b.len()).collect();
    for i in 1..=a.len() {
        for j in 1..=b.len() {
            let cost = usize::from(a[i - 1] != b[j - 1]);
            let mut best = (rows[i - 1][j] + 1).min(rows[i][j - 1] + 1).min(rows[i - 1][j - 1] + cost);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = best;
        }
    }
    rows[a.len()][b.len()]
}
