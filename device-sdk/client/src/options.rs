//! How a client connects, and what it wants to hear.

use crate::backoff::Backoff;
use crate::model::limits::{LEVEL, OUTBOX_MAX};
use crate::target::Secret;
use std::path::PathBuf;
use std::time::Duration;

/// Everything about a client that the URL does not say. `Options::default()` is right for a person's terminal.
#[derive(Debug, Clone)]
pub struct Options {
    /// The account, where the URL names none.
    pub user: Option<String>,
    /// Its password or token, where the URL names none.
    pub password: Option<Secret>,
    /// Names this installation of the account (the MQTT client identifier). The broker remembers for each what it has been
    /// sent, and which ids it has used. Without one, a name that is kept in the outbox file, or a new one each time.
    pub terminal: Option<String>,
    /// Certificates (PEM) of the authorities to trust, instead of the system's.
    pub ca: Option<PathBuf>,
    /// SHA-256 of the broker's certificate in hexadecimal digits: this one and no other is trusted, whatever it says.
    pub pin: Option<String>,
    /// A certificate of one's own to show.
    pub identity: Option<Identity>,
    /// Where it is kept what the broker has not answered yet.
    pub outbox: OutboxKind,
    /// How much of that there may be; one more is refused.
    pub outbox_max: usize,
    /// Silence after which each side asks whether the other is there. At least one second.
    pub keep_alive: Duration,
    /// The pauses between attempts to connect.
    pub backoff: Backoff,
    /// How long one attempt may take.
    pub attempt: Duration,
    /// How long [`crate::Client::close`] waits for answers.
    pub farewell: Duration,
    /// What this client understands, yyMMdd (docs/protocol.md section 4, `level`).
    pub level: u32,
    /// What it runs on, in a word.
    pub platform: String,
    /// Which program it is.
    pub app: String,
    /// What it wants to hear.
    pub listen: Listen,
}

/// A certificate and its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The chain (PEM), the own certificate first.
    pub certificates: PathBuf,
    /// The private key (PEM).
    pub key: PathBuf,
}

/// Where what is not answered yet is kept.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum OutboxKind {
    /// In memory: it ends with the process.
    #[default]
    Memory,
    /// In a file, which is made when it is not there. Whatever [`crate::Handle::send`] has given an id is on disk, and its end
    /// is told, if not by this process then by the next.
    File(PathBuf),
}

/// What a client wants to hear.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Listen {
    /// Everything about this account: its messages, presence of its contacts, states of devices.
    #[default]
    All,
    /// What a device needs: messages, commands, what is desired of it.
    Device,
    /// These filters (docs/protocol.md section 3) and no other.
    Only(Vec<Filter>),
}

/// A topic filter, and how surely it is delivered.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Filter {
    /// May hold `+` and `#`.
    pub filter: String,
    /// How surely.
    pub quality: Quality,
}

/// How surely something is delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Quality {
    /// Once or never (`QoS` 0).
    AtMostOnce,
    /// Until it is acknowledged (`QoS` 1).
    AtLeastOnce,
}

impl Filter {
    /// Delivered until it is acknowledged.
    pub fn at_least_once(filter: impl Into<String>) -> Self {
        Self { filter: filter.into(), quality: Quality::AtLeastOnce }
    }

    /// Whether a broker could take it: others end the connection.
    pub fn is_legal(&self) -> bool {
        parlor_protocol::topic::check_filter(&self.filter).is_ok()
    }

    /// Delivered once or never. Of messages so delivered nobody is told that they arrived.
    pub fn at_most_once(filter: impl Into<String>) -> Self {
        Self { filter: filter.into(), quality: Quality::AtMostOnce }
    }
}

impl Listen {
    /// The filters it stands for.
    pub fn filters(&self) -> Vec<Filter> {
        let all = |filters: &[&str]| filters.iter().map(|filter| Filter::at_least_once(*filter)).collect();
        match self {
            Self::All => all(&["im/v1/me/#", "im/v1/presence/+", "im/v1/state/+"]),
            Self::Device => all(&["im/v1/me/in/#", "im/v1/me/cmd/#", "im/v1/me/delta", "im/v1/me/err"]),
            Self::Only(filters) => filters.clone(),
        }
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            user: None,
            password: None,
            terminal: None,
            ca: None,
            pin: None,
            identity: None,
            outbox: OutboxKind::default(),
            outbox_max: OUTBOX_MAX,
            keep_alive: Duration::from_secs(30),
            backoff: Backoff::default(),
            attempt: Duration::from_secs(5),
            farewell: Duration::from_secs(5),
            level: u32::try_from(LEVEL).unwrap_or_default(),
            platform: "rust".to_owned(),
            app: concat!("parlor-client/", env!("CARGO_PKG_VERSION")).to_owned(),
            listen: Listen::default(),
        }
    }
}
