//! What can be wrong with a configuration, where, and what to write instead.

use super::url::UrlError;
use crate::auth::KeyFileError;
use parlor_core::access::RuleError;
use std::fmt;
use std::ops::Range;
use std::path::PathBuf;

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nothing was written.
    Default,
    /// These bytes of the configuration file.
    File(Range<usize>),
    /// The environment variable of this name.
    Environment(String),
    /// The command line, as typed.
    Flag(String),
}

/// One offence and its place.
#[derive(Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where the offending text was written.
    pub origin: Origin,
    /// What is wrong.
    pub offence: Offence,
}

/// Whether the broker can start in spite of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// It cannot.
    Error,
    /// It can, and somebody should look at it.
    Warning,
}

/// What is wrong.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Offence {
    /// The configuration file cannot be read.
    #[error("cannot read the configuration file {}: {error}", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: String,
    },
    /// The file is not TOML.
    #[error("this is not TOML: {0}")]
    Syntax(String),
    /// Nothing in the broker is called that.
    #[error("there is no key `{key}` in {table}")]
    UnknownKey {
        /// As written.
        key: String,
        /// The table it was found in, for a reader.
        table: String,
        /// The known key that looks most like it.
        near: Option<&'static str>,
        /// Every key of the table.
        known: Vec<&'static str>,
    },
    /// An environment variable that looks like ours and sets nothing.
    #[error("the environment variable {0} sets nothing")]
    UnknownVariable(String),
    /// A `--set` without `=` or without a key.
    #[error("`--set {0}` is not of the form key=value")]
    BadSetting(String),
    /// A value of another type was expected.
    #[error("`{key}` must be {wanted}, and this is {found}")]
    WrongType {
        /// Full name of the key.
        key: String,
        /// What is expected, with an article.
        wanted: &'static str,
        /// What was written, with an article.
        found: &'static str,
    },
    /// A number outside its range.
    #[error("`{key}` is {value}, which is outside {least} to {most}")]
    OutOfRange {
        /// Full name of the key.
        key: String,
        /// As written.
        value: String,
        /// Least legal value.
        least: u64,
        /// Greatest legal value.
        most: u64,
        /// Value when nothing is configured.
        default: u64,
    },
    /// A word that is not one of those known.
    #[error("`{key}` cannot be \"{value}\"")]
    BadChoice {
        /// Full name of the key.
        key: String,
        /// As written.
        value: String,
        /// The known words.
        choices: Vec<&'static str>,
    },
    /// An empty text where something must stand.
    #[error("`{0}` is empty")]
    Empty(String),
    /// A listener address that cannot be read.
    #[error("`{url}` is not the address of a listener: {error}")]
    BadListener {
        /// As written.
        url: String,
        /// What is wrong with it.
        error: UrlError,
    },
    /// A TLS listener without certificate or key.
    #[error("the listener {url} speaks TLS and has no `{key}`")]
    NeedsTls {
        /// The listener.
        url: String,
        /// `tls.certificate` or `tls.key`.
        key: &'static str,
    },
    /// Client certificates are asked for and nobody said which authority signs them.
    #[error("client certificates cannot be checked without `tls.client_ca`")]
    NeedsClientCa,
    /// A key that must be there.
    #[error("{table} has no `{key}`")]
    Missing {
        /// The table, for a reader.
        table: String,
        /// The missing key.
        key: &'static str,
        /// A line that would do.
        example: &'static str,
    },
    /// Keys that exclude each other, or of which one is needed.
    #[error("{table} needs exactly one of {keys}")]
    OneOf {
        /// The table, for a reader.
        table: String,
        /// The keys, for a reader.
        keys: &'static str,
        /// A line that would do.
        example: &'static str,
    },
    /// Two listeners on the same address.
    #[error("{address} is used twice: by {first} and by {second}")]
    SameAddress {
        /// Host and port.
        address: String,
        /// Who has it.
        first: String,
        /// Who wants it too.
        second: String,
    },
    /// Two listeners of one name.
    #[error("two listeners are called \"{0}\"")]
    SameName(String),
    /// The operator's listener would be open to the network.
    #[error("the operator's HTTP listener {0} can be reached from the network")]
    HttpNotLoopback(String),
    /// Not a socket address.
    #[error("`{key}` = \"{value}\" is not an address")]
    BadAddress {
        /// Full name of the key.
        key: String,
        /// As written.
        value: String,
    },
    /// A part of a rule that cannot be; the error says what to write.
    #[error("`{value}` in a rule: {error}")]
    BadRule {
        /// As written.
        value: String,
        /// What is wrong with it.
        error: RuleError,
    },
    /// What topics cannot begin with.
    #[error("\"{0}\" cannot be what topics begin with")]
    BadPrefix(String),
    /// A path of the WebSocket listener that is not one.
    #[error("the WebSocket path \"{0}\" does not start with /")]
    BadPath(String),
    /// A file named in the configuration cannot be opened.
    #[error("`{key}`: cannot open {}: {error}", .path.display())]
    FileUnreadable {
        /// Full name of the key.
        key: String,
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: String,
    },
    /// A key file for tokens that holds something else; the error says what to do.
    #[error("{}: {error}", .path.display())]
    BadKeyFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        error: KeyFileError,
    },
    /// A file with a secret that everybody may read.
    #[error("`{key}`: every user of this machine can read {} (mode {mode:04o})", .path.display())]
    WorldReadable {
        /// Full name of the key.
        key: String,
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Anonymous clients on an address others can reach.
    #[error("the listener {0} lets anybody on the network in without a password")]
    OpenToAll(String),
}

impl Offence {
    /// Whether the broker can start in spite of it.
    pub fn severity(&self) -> Severity {
        match self {
            Self::UnknownVariable(_) | Self::WorldReadable { .. } | Self::OpenToAll(_) => Severity::Warning,
            _ => Severity::Error,
        }
    }

    /// What to write instead, or what to do.
    pub fn advice(&self) -> String {
        match self {
            Self::Unreadable { .. } => "check the path, or start from docs/parlor.example.toml".into(),
            Self::Syntax(_) => "a text stands in quotes, a table in [brackets], a list in [a, b]; see docs/parlor.example.toml".into(),
            Self::UnknownKey { near: Some(near), .. } => format!("did you mean `{near}`?"),
            Self::UnknownKey { known, .. } => format!("write one of: {}", known.join(", ")),
            Self::UnknownVariable(_) => {
                "write PARLOR_SECTION__KEY=value, for example PARLOR_LIMITS__CONNECTIONS_MAX=1000, or ignore this".into()
            }
            Self::BadSetting(_) => "write for example --set limits.topic_alias_max=10".into(),
            Self::WrongType { wanted, .. } => match *wanted {
                "a text" => "put it in \"quotes\"".into(),
                "true or false" => "write true or false, without quotes".into(),
                "a whole number" => "write a whole number without quotes or unit, for example 10".into(),
                "a list" => "write a list, for example [\"a\", \"b\"]".into(),
                _ => format!("write {wanted}"),
            },
            Self::OutOfRange { least, most, default, .. } => {
                format!("write a number from {least} to {most}; without the key it is {default}")
            }
            Self::BadChoice { choices, .. } => format!("write one of: {}", choices.join(", ")),
            Self::Empty(_) => "write a value, or take the key out".into(),
            Self::BadListener { error, .. } => error.advice().into(),
            Self::NeedsTls { key, .. } => format!("write {key} = \"/path/to/file.pem\" in the file, or --set {key}=/path/to/file.pem"),
            Self::NeedsClientCa => "write tls.client_ca = \"/path/to/ca.pem\", or client_certificate = \"none\"".into(),
            Self::Missing { example, .. } | Self::OneOf { example, .. } => format!("write for example {example}"),
            Self::SameAddress { first, second, .. } if first.starts_with("mqtt+quic") || second.starts_with("mqtt+quic") => {
                "keep one of them: a QUIC listener takes MQTT and native links alike; or give one another port".into()
            }
            Self::SameAddress { .. } => "give one of them another port".into(),
            Self::SameName(_) => "give one of them another name, or none".into(),
            Self::HttpNotLoopback(_) => {
                "write 127.0.0.1 and reach it through a tunnel or a proxy; or, if it is meant, allow_remote = true in [http]".into()
            }
            Self::BadAddress { .. } => "write an IP address and a port, for example \"127.0.0.1:9883\" or \"[::1]:9883\"".into(),
            Self::BadRule { error: RuleError::AccountName | RuleError::GroupName, .. } => {
                "`parlor account list` shows the accounts and their groups".into()
            }
            Self::BadRule { .. } => {
                "+ stands for one whole level, # for the rest; %a is the account, %t the client identifier".into()
            }
            Self::BadPrefix(_) => {
                "write levels with slashes between, without + and #, not below im and not beginning with $: \"homeassistant\"".into()
            }
            Self::BadPath(path) => format!("write \"/{path}\""),
            Self::FileUnreadable { .. } => {
                "check the path (a relative one in a file counts from that file) and that the broker's user may read it".into()
            }
            Self::BadKeyFile { .. } => {
                "for EdDSA and RS256 the file holds PEM public keys, for HS256 a secret of at least 32 bytes".into()
            }
            Self::WorldReadable { path, .. } => format!("run: chmod o-rwx {}", path.display()),
            Self::OpenToAll(_) => {
                "set allow_anonymous = false and make accounts with `parlor account add`, or keep it if that is meant".into()
            }
        }
    }
}

/// The problems of one configuration, and the text they point into.
#[derive(Debug, PartialEq, Eq)]
pub struct Report {
    /// The file's path as the operator wrote it; empty without a file.
    pub file: String,
    /// The file's text.
    pub text: String,
    /// In the order of the file, then environment and flags.
    pub problems: Vec<Problem>,
}

impl Report {
    /// How many of them keep the broker from starting.
    pub fn errors(&self) -> usize {
        self.problems.iter().filter(|p| p.offence.severity() == Severity::Error).count()
    }

    pub(super) fn sort(&mut self) {
        self.problems.sort_by_key(|p| match &p.origin {
            Origin::File(span) => (0, span.start),
            Origin::Default => (1, 0),
            Origin::Environment(_) => (2, 0),
            Origin::Flag(_) => (3, 0),
        });
        self.problems.dedup();
    }

    fn write_problem(&self, f: &mut fmt::Formatter<'_>, problem: &Problem) -> fmt::Result {
        let word = match problem.offence.severity() {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        match &problem.origin {
            Origin::File(span) => {
                let place = Place::of(&self.text, span);
                writeln!(f, "{word}: {}:{}:{}: {}", self.file, place.line, place.column, problem.offence)?;
                let number = place.line.to_string();
                let margin = " ".repeat(number.len());
                writeln!(f, " {margin} |")?;
                writeln!(f, " {number} | {}", place.text)?;
                writeln!(f, " {margin} | {}{}", place.indent, "^".repeat(place.width))?;
                writeln!(f, " {margin} = {}", problem.offence.advice())
            }
            Origin::Environment(name) => {
                writeln!(f, "{word}: environment variable {name}: {}", problem.offence)?;
                writeln!(f, "   = {}", problem.offence.advice())
            }
            Origin::Flag(flag) => {
                writeln!(f, "{word}: {flag}: {}", problem.offence)?;
                writeln!(f, "   = {}", problem.offence.advice())
            }
            Origin::Default => {
                writeln!(f, "{word}: {}", problem.offence)?;
                writeln!(f, "   = {}", problem.offence.advice())
            }
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for problem in &self.problems {
            self.write_problem(f, problem)?;
        }
        Ok(())
    }
}

impl std::error::Error for Report {}

/// A span of the file as people count: lines and columns from 1.
struct Place<'a> {
    line: usize,
    column: usize,
    text: &'a str,
    indent: String,
    width: usize,
}

impl<'a> Place<'a> {
    fn of(text: &'a str, span: &Range<usize>) -> Self {
        let mut start = span.start.min(text.len());
        while !text.is_char_boundary(start) {
            start -= 1;
        }
        let before = &text[..start];
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let line_end = text[start..].find('\n').map_or(text.len(), |at| start + at);
        let line = text[line_start..line_end].trim_end_matches('\r');
        // The marks stand below what they mark only if tabs are repeated as tabs.
        let indent = before[line_start..].chars().map(|c| if c == '\t' { '\t' } else { ' ' }).collect::<String>();
        let end = span.end.clamp(start, line_end);
        let width = text.get(start..end).map_or(1, |marked| marked.chars().count()).max(1);
        Self {
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
            text: line,
            indent,
            width,
        }
    }
}
