//! One tree of values from three sources, each value with the place it came from.

use super::problem::{Offence, Origin, Problem};
use std::collections::BTreeMap;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// A value and where it was written.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Node {
    pub origin: Origin,
    pub value: Value,
}

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    /// Text in quotes.
    Text(String),
    /// A whole number.
    Integer(i128),
    /// `true` or `false`.
    Boolean(bool),
    /// A list.
    List(Vec<Node>),
    /// A table.
    Table(Table),
    /// From the environment or the command line, where nothing has quotes: what it is depends on who asks.
    Bare(String),
    /// Something no key takes; the text names it, with an article.
    Foreign(&'static str),
}

impl Value {
    /// What it is, with an article.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) | Self::Bare(_) => "a text",
            Self::Integer(_) => "a whole number",
            Self::Boolean(_) => "true or false",
            Self::List(_) => "a list",
            Self::Table(_) => "a table",
            Self::Foreign(kind) => kind,
        }
    }
}

/// Keys and values; each key with its own place, to point at when it is unknown.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Table {
    entries: BTreeMap<String, (Origin, Node)>,
}

impl Table {
    /// Reads the text of a configuration file. Every syntax error is reported; what could be read is kept.
    pub fn parse(text: &str, problems: &mut Vec<Problem>) -> Self {
        let (table, errors) = DeTable::parse_recoverable(text);
        problems.extend(errors.into_iter().map(|error| Problem {
            origin: Origin::File(error.span().unwrap_or(0..0)),
            offence: Offence::Syntax(error.message().trim().to_owned()),
        }));
        from_table(table.into_inner())
    }

    /// Whether there is a value.
    pub fn has(&self, key: &str) -> bool {
        self.entries.contains_key(key)
    }

    /// Takes a value out.
    pub fn take(&mut self, key: &str) -> Option<Node> {
        self.entries.remove(key).map(|(_, node)| node)
    }

    /// Takes every key that is left, with its place.
    pub fn into_keys(self) -> impl Iterator<Item = (String, Origin)> {
        self.entries.into_iter().map(|(key, (origin, _))| (key, origin))
    }

    /// Puts `node` where `path` leads, making the tables on the way; whatever stood there is replaced.
    pub fn put(&mut self, path: &[&str], node: Node) {
        let [key, rest @ ..] = path else { return };
        if rest.is_empty() {
            self.entries.insert((*key).to_owned(), (node.origin.clone(), node));
            return;
        }
        let (_, inner) = self.entries.entry((*key).to_owned()).or_insert_with(|| {
            (node.origin.clone(), Node { origin: node.origin.clone(), value: Value::Table(Self::default()) })
        });
        if !matches!(inner.value, Value::Table(_)) {
            *inner = Node { origin: node.origin.clone(), value: Value::Table(Self::default()) };
        }
        if let Value::Table(table) = &mut inner.value {
            table.put(rest, node);
        }
    }
}

/// A value given as bare text. `[a, b]` and `{...}` are read as TOML; anything else stays as it is.
pub(super) fn bare(text: &str, origin: &Origin) -> Node {
    let value = if text.starts_with(['[', '{']) {
        match DeValue::parse(text) {
            Ok(value) => relocate(from_value(value), origin).value,
            Err(_) => Value::Bare(text.to_owned()),
        }
    } else {
        Value::Bare(text.to_owned())
    };
    Node { origin: origin.clone(), value }
}

fn from_table(table: DeTable<'_>) -> Table {
    let entries = table
        .into_iter()
        .map(|(key, value)| {
            let origin = Origin::File(key.span());
            (key.into_inner().into_owned(), (origin, from_value(value)))
        })
        .collect();
    Table { entries }
}

fn from_value(value: Spanned<DeValue<'_>>) -> Node {
    let origin = Origin::File(value.span());
    let value = match value.into_inner() {
        DeValue::String(text) => Value::Text(text.into_owned()),
        DeValue::Integer(number) => i128::from_str_radix(number.as_str(), number.radix())
            .map_or(Value::Foreign("a number too large to read"), Value::Integer),
        DeValue::Float(_) => Value::Foreign("a number with a fraction"),
        DeValue::Boolean(value) => Value::Boolean(value),
        DeValue::Datetime(_) => Value::Foreign("a date"),
        DeValue::Array(list) => Value::List(list.into_iter().map(from_value).collect()),
        DeValue::Table(table) => Value::Table(from_table(table)),
    };
    Node { origin, value }
}

/// Gives a whole value one place: spans of a flag's text mean nothing in the file.
fn relocate(node: Node, origin: &Origin) -> Node {
    let value = match node.value {
        Value::List(list) => Value::List(list.into_iter().map(|node| relocate(node, origin)).collect()),
        Value::Table(table) => Value::Table(Table {
            entries: table
                .entries
                .into_iter()
                .map(|(key, (_, node))| (key, (origin.clone(), relocate(node, origin))))
                .collect(),
        }),
        other => other,
    };
    Node { origin: origin.clone(), value }
}
