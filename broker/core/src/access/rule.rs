//! Rules, and how they are read from the configuration.

use super::pattern::Pattern;
use core::fmt;

/// Longest account name, bytes.
pub const ACCOUNT_NAME_BYTES_MAX: usize = 32;
/// Longest group name, bytes.
pub const GROUP_NAME_BYTES_MAX: usize = 64;
/// Account of clients without credentials, where the configuration lets them in.
pub const ANONYMOUS: &str = "anonymous";

/// Whether `text` is spelled as an account name: `[a-z0-9][a-z0-9._-]{0,31}`.
pub fn is_account_name(text: &str) -> bool {
    let is_plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    text.len() <= ACCOUNT_NAME_BYTES_MAX
        && text.bytes().next().is_some_and(is_plain)
        && text.bytes().all(|b| is_plain(b) || matches!(b, b'.' | b'_' | b'-'))
}

/// Whether `text` is spelled as a group name: 1 to 64 bytes without white space, control characters or commas.
pub fn is_group_name(text: &str) -> bool {
    (1..=GROUP_NAME_BYTES_MAX).contains(&text.len())
        && !text.chars().any(|c| c.is_whitespace() || c.is_control() || c == ',')
}

/// One rule. The first rule that matches decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Whom it is about.
    pub who: Who,
    /// What it is about.
    pub action: Action,
    /// What it decides.
    pub effect: Effect,
    /// Topics it is about.
    pub pattern: Pattern,
}

/// Whom a rule is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Who {
    /// The account of this name.
    Account(String),
    /// Accounts in the group of this name.
    Group(String),
    /// Every account, `anonymous` included.
    Everybody,
    /// Clients without credentials.
    Anonymous,
}

/// What a rule is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// PUBLISH, wills included.
    Publish,
    /// SUBSCRIBE, and each delivery.
    Subscribe,
    /// Both.
    All,
}

/// What a rule decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// It may.
    Allow,
    /// It may not.
    Deny,
}

/// A rule could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RuleError {
    /// `who` is none of the four forms.
    UnknownWho,
    /// The name after `account:` is no account name.
    AccountName,
    /// The name after `group:` is no group name.
    GroupName,
    /// `action` is none of the three.
    UnknownAction,
    /// `effect` is neither of the two.
    UnknownEffect,
    /// The pattern is empty.
    EmptyPattern,
    /// The pattern is longer than a topic filter can be.
    PatternTooLong,
    /// The pattern contains U+0000.
    NulInPattern,
    /// The pattern begins with `$share/`.
    SharedPattern,
    /// `+` is not a level of its own, or `#` not the last one.
    WildcardPlace,
    /// `%` is followed by something other than `a`, `t` or `%`.
    UnknownSubstitution,
}

impl fmt::Display for RuleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::UnknownWho => {
                "nobody is called that: write \"everybody\", \"anonymous\", \"account:NAME\" or \"group:NAME\""
            }
            Self::AccountName => {
                "not an account name: write 1 to 32 of a-z, 0-9, '.', '_' and '-', beginning with a letter or digit"
            }
            Self::GroupName => {
                "not a group name: write 1 to 64 bytes without white space, control characters or commas"
            }
            Self::UnknownAction => "unknown action: write \"publish\", \"subscribe\" or \"all\"",
            Self::UnknownEffect => "unknown effect: write \"allow\" or \"deny\"",
            Self::EmptyPattern => "the topic pattern is empty: write \"#\" for every topic",
            Self::PatternTooLong => "the topic pattern is longer than 65535 bytes, which no topic is: shorten it",
            Self::NulInPattern => "the topic pattern contains U+0000, which no topic does: remove it",
            Self::SharedPattern => {
                "rules see the filter of a shared subscription without \"$share/GROUP/\": write the pattern without it"
            }
            Self::WildcardPlace => "'+' must be a whole level and '#' the whole last level: write \"a/+/b\" or \"a/#\"",
            Self::UnknownSubstitution => {
                "'%' must be followed by 'a' (account) or 't' (client identifier): write \"%%\" for a percent sign"
            }
        })
    }
}

impl core::error::Error for RuleError {}

impl Rule {
    /// Reads a rule from the texts of the configuration: `who` is `everybody`, `anonymous`, `account:NAME` or
    /// `group:NAME`; `action` is `publish`, `subscribe` or `all`; `effect` is `allow` or `deny`.
    pub fn parse(who: &str, action: &str, effect: &str, pattern: &str) -> Result<Self, RuleError> {
        Ok(Self {
            who: Who::parse(who)?,
            action: match action {
                "publish" => Action::Publish,
                "subscribe" => Action::Subscribe,
                "all" => Action::All,
                _ => return Err(RuleError::UnknownAction),
            },
            effect: match effect {
                "allow" => Effect::Allow,
                "deny" => Effect::Deny,
                _ => return Err(RuleError::UnknownEffect),
            },
            pattern: Pattern::parse(pattern)?,
        })
    }
}

impl Who {
    fn parse(text: &str) -> Result<Self, RuleError> {
        if let Some(name) = text.strip_prefix("account:") {
            return match name {
                ANONYMOUS => Ok(Self::Anonymous),
                _ if is_account_name(name) => Ok(Self::Account(name.to_owned())),
                _ => Err(RuleError::AccountName),
            };
        }
        if let Some(name) = text.strip_prefix("group:") {
            return if is_group_name(name) { Ok(Self::Group(name.to_owned())) } else { Err(RuleError::GroupName) };
        }
        match text {
            "everybody" => Ok(Self::Everybody),
            "anonymous" => Ok(Self::Anonymous),
            _ => Err(RuleError::UnknownWho),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_read_and_mistakes_named() {
        let rule = Rule::parse("group:staff", "subscribe", "deny", "a/+/%a-%t/#").unwrap();
        assert_eq!((rule.who, rule.action, rule.effect), (Who::Group("staff".into()), Action::Subscribe, Effect::Deny));
        assert_eq!(rule.pattern.to_string(), "a/+/%a-%t/#");
        assert_eq!(Rule::parse("account:anonymous", "all", "allow", "#").unwrap().who, Who::Anonymous);
        let check = |who, action, effect, pattern, error| {
            assert_eq!(Rule::parse(who, action, effect, pattern), Err(error), "{who} {action} {effect} {pattern}");
        };
        check("alice", "all", "allow", "#", RuleError::UnknownWho);
        check("account:Alice", "all", "allow", "#", RuleError::AccountName);
        check("account:", "all", "allow", "#", RuleError::AccountName);
        check("group:a b", "all", "allow", "#", RuleError::GroupName);
        check("everybody", "read", "allow", "#", RuleError::UnknownAction);
        check("everybody", "all", "yes", "#", RuleError::UnknownEffect);
        check("everybody", "all", "allow", "", RuleError::EmptyPattern);
        check("everybody", "all", "allow", "a\0", RuleError::NulInPattern);
        check("everybody", "all", "allow", "$share/g/a", RuleError::SharedPattern);
        for pattern in ["a#", "a/#/b", "##", "#/", "a+", "+a/b", "a/+%t"] {
            check("everybody", "all", "allow", pattern, RuleError::WildcardPlace);
        }
        for pattern in ["%", "a/%x", "%A/b", "a%"] {
            check("everybody", "all", "allow", pattern, RuleError::UnknownSubstitution);
        }
        let long = "a".repeat(65_536);
        check("everybody", "all", "allow", &long, RuleError::PatternTooLong);
    }
}
