//! Topic patterns of rules: filters in which `%a` and `%t` stand for who asks.

use super::rule::{Effect, RuleError};
use core::fmt;

/// Longest pattern, bytes: that of a topic filter `[MQTT5-4.7.3-3]`.
const PATTERN_BYTES_MAX: usize = 65_535;

/// A topic filter in which `%a` stands for the account, `%t` for the client identifier and `%%` for a percent sign.
///
/// Both may be a whole level or part of one (`site/%a/log-%t`). A name that is empty or contains `+`, `#`, `/` or
/// NUL is never put in: an *allow* rule then does not match, and a *deny* rule denies everything from that level on,
/// so that no choice of a name gets around either.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    text: Box<str>,
    levels: Box<[Level]>,
    /// The last level is `#` (it is not in `levels`).
    rest: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Level {
    /// `+`.
    Any,
    /// Text without substitution.
    Exact(Box<str>),
    /// Text with at least one substitution.
    Built(Box<[Piece]>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(Box<str>),
    Account,
    Terminal,
}

/// Who asks.
#[derive(Clone, Copy)]
pub(super) struct Names<'a> {
    pub(super) account: &'a str,
    pub(super) terminal: &'a str,
}

/// How a level of a pattern and one of a topic compare.
enum Fit {
    Yes,
    No,
    /// The pattern asks for a name that must not be put in.
    Unusable,
}

impl Pattern {
    /// Reads a pattern.
    pub fn parse(text: &str) -> Result<Self, RuleError> {
        if text.is_empty() {
            return Err(RuleError::EmptyPattern);
        }
        if text.len() > PATTERN_BYTES_MAX {
            return Err(RuleError::PatternTooLong);
        }
        if text.contains('\0') {
            return Err(RuleError::NulInPattern);
        }
        if text.starts_with("$share/") {
            return Err(RuleError::SharedPattern);
        }
        let (front, rest) = match text.strip_suffix('#') {
            Some("") => (None, true),
            // `[MQTT5-4.7.1-1]`: the multi-level wildcard is a level of its own and the last one.
            Some(front) => (Some(front.strip_suffix('/').ok_or(RuleError::WildcardPlace)?), true),
            None => (Some(text), false),
        };
        let levels = match front {
            None => Box::default(),
            Some(front) => front.split('/').map(Level::parse).collect::<Result<_, _>>()?,
        };
        Ok(Self { text: text.into(), levels, rest })
    }

    /// True for `#` and for its equal `+/#`: every topic that does not begin with `$`.
    pub(super) fn is_everything(&self) -> bool {
        self.rest && matches!(&*self.levels, [] | [Level::Any])
    }

    /// True when only topics beginning with `$` can match.
    pub(super) fn is_about_dollar(&self) -> bool {
        matches!(self.levels.first(), Some(Level::Exact(text)) if text.starts_with('$'))
    }

    /// Whether the topic name matches for `names`.
    ///
    /// Wildcards at the first level do not match topics beginning with `$` `[MQTT5-4.7.2-1]`.
    pub(super) fn matches(&self, topic: &str, names: Names<'_>, effect: Effect) -> bool {
        let mut given = topic.split('/');
        for (index, level) in self.levels.iter().enumerate() {
            let Some(text) = given.next() else { return false };
            match level.fit(text, index == 0, names, effect) {
                Fit::Yes => {}
                Fit::No => return false,
                Fit::Unusable => return effect == Effect::Deny,
            }
        }
        self.end(topic, given.next().is_none())
    }

    /// Whether every topic that matches the valid topic filter `filter` matches this pattern for `names`.
    pub(super) fn covers(&self, filter: &str, names: Names<'_>, effect: Effect) -> bool {
        let mut given = filter.split('/');
        for (index, level) in self.levels.iter().enumerate() {
            let Some(text) = given.next() else { return false };
            if text == "#" {
                // A topic has one level at least, so only here can levels of the pattern stand against none.
                return index == 0 && self.is_everything();
            }
            // A `+` of the filter is fitted by `+` alone: no text of a pattern and no name put in contains one.
            match level.fit(text, index == 0, names, effect) {
                Fit::Yes => {}
                Fit::No => return false,
                Fit::Unusable => return effect == Effect::Deny,
            }
        }
        self.end(filter, given.next().is_none())
    }

    /// What is left to decide after all levels of the pattern have fitted.
    fn end(&self, given: &str, is_used_up: bool) -> bool {
        if self.levels.is_empty() {
            return !given.starts_with('$');
        }
        self.rest || is_used_up
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Level {
    fn parse(text: &str) -> Result<Self, RuleError> {
        if text == "+" {
            return Ok(Self::Any);
        }
        if text.contains(['+', '#']) {
            return Err(RuleError::WildcardPlace);
        }
        let mut pieces = Vec::new();
        let mut plain = String::new();
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            if c != '%' {
                plain.push(c);
                continue;
            }
            let piece = match chars.next() {
                Some('%') => {
                    plain.push('%');
                    continue;
                }
                Some('a') => Piece::Account,
                Some('t') => Piece::Terminal,
                _ => return Err(RuleError::UnknownSubstitution),
            };
            if !plain.is_empty() {
                pieces.push(Piece::Text(core::mem::take(&mut plain).into()));
            }
            pieces.push(piece);
        }
        if pieces.is_empty() {
            return Ok(Self::Exact(plain.into()));
        }
        if !plain.is_empty() {
            pieces.push(Piece::Text(plain.into()));
        }
        Ok(Self::Built(pieces.into()))
    }

    fn fit(&self, text: &str, is_first: bool, names: Names<'_>, effect: Effect) -> Fit {
        let is_same = match self {
            Self::Any => !(is_first && text.starts_with('$')),
            Self::Exact(exact) => **exact == *text,
            Self::Built(pieces) => {
                let mut left = text;
                for (index, piece) in pieces.iter().enumerate() {
                    let next = match piece {
                        Piece::Text(plain) => plain,
                        Piece::Account => names.account,
                        Piece::Terminal => names.terminal,
                    };
                    if !matches!(piece, Piece::Text(_)) {
                        // A client called `$SYS` must not get at the broker's own topics through a rule `%t/#`.
                        let is_dollar = is_first && index == 0 && effect == Effect::Allow && next.starts_with('$');
                        if is_dollar || !is_usable(next) {
                            return Fit::Unusable;
                        }
                    }
                    let Some(after) = left.strip_prefix(next) else { return Fit::No };
                    left = after;
                }
                left.is_empty()
            }
        };
        if is_same { Fit::Yes } else { Fit::No }
    }
}

/// Whether a name may stand in a pattern without changing what the pattern means.
fn is_usable(name: &str) -> bool {
    !name.is_empty() && !name.bytes().any(|b| matches!(b, b'+' | b'#' | b'/' | 0))
}
