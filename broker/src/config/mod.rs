//! The configuration: what an operator can write, from four sources, and what is wrong with it.
//!
//! Sources in the order of their weight: defaults, the TOML file, environment variables
//! (`PARLOR_LIMITS__TOPIC_ALIAS_MAX=10`; two underscores step into a table), flags (`--set limits.topic_alias_max=10`).
//! [`Sources::load`] reads them all and reports every problem it finds, each with its place.

mod im;
mod problem;
mod read;
mod section;
mod tree;
mod url;

pub use problem::{Offence, Origin, Problem, Report, Severity};
pub use url::{Host, ListenerUrl, Transport, UrlError};

use crate::auth::PasswordParams;
use parlor_core::access::Rule;
use parlor_core::limits::{LIMITS, Limits};
use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::{Path, PathBuf};

/// Everything that can be configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Directory of the store and of the operator's token.
    pub data: PathBuf,
    /// Where clients connect.
    pub listeners: Vec<Listener>,
    /// Who is let in.
    pub auth: Auth,
    /// Who may do what, in the order written.
    pub rules: Vec<Rule>,
    /// Every bound.
    pub limits: Limits,
    /// The log.
    pub log: Log,
    /// The operator's HTTP listener.
    pub http: Http,
    /// Seconds between two rounds of `$SYS` messages; 0 sends none.
    pub sys_interval_secs: u32,
    /// The store.
    pub store: Store,
    /// Seconds clients are given to leave after SIGTERM before the rest is cut off.
    pub drain_secs: u32,
    /// What holds for every WebSocket listener.
    pub websocket: WebSocket,
    /// Messaging.
    pub im: Im,
}

/// One listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// Its name in logs and metrics; the address when none is configured.
    pub name: String,
    /// Where it listens and what it speaks. `path` is always filled in for WebSocket.
    pub url: ListenerUrl,
    /// Whether clients without credentials get in, as the account `anonymous`.
    pub allow_anonymous: bool,
    /// Certificates; `Some` exactly when the transport speaks TLS. `[tls]` with what the listener sets for itself.
    pub tls: Option<Tls>,
    /// Web pages that may connect, as values of `Origin`; empty: all. Only for WebSocket.
    pub origins: Vec<String>,
}

/// Certificates of a listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// PEM file: the server's certificate, then the intermediate ones.
    pub certificate: PathBuf,
    /// PEM file: its private key.
    pub key: PathBuf,
    /// PEM file: authorities whose client certificates are accepted.
    pub client_ca: Option<PathBuf>,
    /// Whether clients show a certificate.
    pub client_certificate: ClientCertificate,
    /// Most bytes of text in a TLS record to a client. Not for QUIC, which has no records.
    pub fragment_bytes: u32,
}

/// Whether TLS clients show a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientCertificate {
    /// They are not asked.
    None,
    /// They are asked; those without one go on to user name and password.
    Optional,
    /// Those without one do not get in.
    Required,
}

/// Who is let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Auth {
    /// Whether clients without credentials get in where the listener does not say otherwise.
    pub allow_anonymous: bool,
    /// Tokens as passwords.
    pub jwt: Option<Jwt>,
    /// What wrong passwords cost.
    pub slow_down: SlowDown,
    /// What hashing a new password costs, the server and whoever guesses.
    pub passwords: PasswordParams,
    /// Which part of a client certificate names the account.
    pub certificate_account: CertificateAccount,
}

/// JSON Web Tokens given as the MQTT password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Jwt {
    /// PEM file of a public key (`EdDSA`, `RS256`), or a file whose bytes are the secret (`HS256`).
    pub key_file: PathBuf,
    /// The one algorithm accepted.
    pub algorithm: JwtAlgorithm,
    /// What `iss` must be.
    pub issuer: Option<String>,
    /// What `aud` must hold.
    pub audience: Option<String>,
    /// Claim that names the account.
    pub account_claim: String,
    /// Claim with the groups, a list of texts.
    pub groups_claim: String,
    /// Seconds by which clocks may differ.
    pub leeway_secs: u32,
}

/// Algorithm of a token's signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JwtAlgorithm {
    /// Ed25519.
    EdDsa,
    /// RSA PKCS#1 v1.5 with SHA-256.
    Rs256,
    /// HMAC with SHA-256.
    Hs256,
}

/// What wrong passwords cost, per address and per account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlowDown {
    /// Wrong passwords in a row that cost nothing.
    pub free_failures: u32,
    /// Delay after the first one beyond, milliseconds; it doubles with each further one.
    pub first_delay_ms: u32,
    /// Longest delay, seconds.
    pub max_delay_secs: u32,
    /// Seconds without a wrong password after which all is forgotten.
    pub forget_secs: u32,
}

/// Which part of a client certificate names the account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CertificateAccount {
    /// The subject's common name.
    CommonName,
    /// Of the subject alternative names `URI:parlor:ACCOUNT`, or without that the DNS name.
    SubjectAltName,
}

/// The log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// What is worth a line.
    pub level: LogLevel,
    /// How a line looks.
    pub format: LogFormat,
}

/// What is worth a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// Nothing.
    Off,
    /// What the operator must act on.
    Error,
    /// What the operator should look at.
    Warn,
    /// Starts, stops, reloads.
    Info,
    /// Each connection and each refusal.
    Debug,
    /// Each packet.
    Trace,
}

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Time, level, message, `key=value`.
    Text,
    /// One JSON object a line.
    Json,
}

/// The operator's HTTP listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Http {
    /// Whether there is one.
    pub enabled: bool,
    /// Where. Port 0 lets the system choose.
    pub listen: SocketAddr,
    /// Whether the system may choose another port when that of `listen` is taken: nobody asked for this one.
    pub any_port: bool,
    /// Names other than loopback ones under which it may be asked for (the `Host` header).
    pub hosts: Vec<String>,
    /// Connections at the same time; one more is closed.
    pub connections_max: u32,
}

/// The store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Store {
    /// Bytes of one journal file.
    pub segment_bytes: u64,
    /// Bytes of index kept in memory.
    pub cache_bytes: u64,
    /// With less room than this on the disk nothing durable is taken on.
    pub low_space_bytes: u64,
    /// Opens a damaged journal all the same: what follows the damage is given up.
    pub salvage: bool,
}

/// What holds for every WebSocket listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebSocket {
    /// Path of listeners whose address names none.
    pub path: String,
    /// Web pages that may connect, as values of `Origin`; empty: all.
    pub origins: Vec<String>,
}

/// Messaging (docs/protocol.md).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Im {
    /// Whether there is any.
    pub enabled: bool,
    /// Topic prefix under which devices describe themselves to Home Assistant, where that is wanted.
    pub home_assistant: Option<String>,
}

/// Where the operator's HTTP listener is when nothing is configured.
pub const HTTP_LISTEN: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 9883));

/// Where the store is when nothing is configured: below the working directory.
pub const DATA: &str = "parlor-data";

/// One value from the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// As typed, for messages: `--set limits.topic_alias_max=10`, `--data /srv/parlor`.
    pub flag: String,
    /// The key's path: `limits.topic_alias_max`.
    pub path: String,
    /// The value, without quotes.
    pub value: String,
}

/// Where the configuration comes from. Kept to read it again on reload.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sources {
    /// The TOML file.
    pub file: Option<PathBuf>,
    /// Environment variables whose names begin with `PARLOR_`.
    pub environment: Vec<(String, String)>,
    /// `--listen`, each once; they replace the listeners of the file and of the environment.
    pub listen: Vec<String>,
    /// Every other flag. Later ones win.
    pub settings: Vec<Setting>,
    /// `--set` that is not of the form key=value.
    pub malformed: Vec<String>,
}

/// A configuration that can be used, and what to look at nevertheless.
#[derive(Debug, PartialEq, Eq)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// Only warnings.
    pub warnings: Report,
}

impl Sources {
    /// Reads file, environment and flags. `Err` holds every problem, not only the first.
    pub fn load(&self) -> Result<Loaded, Report> {
        let text = match &self.file {
            None => String::new(),
            Some(path) => match std::fs::read_to_string(path) {
                Ok(text) => text,
                Err(error) => {
                    let offence = Offence::Unreadable { path: path.clone(), error: error.to_string() };
                    let problems = vec![Problem { origin: Origin::Default, offence }];
                    return Err(Report { file: path.display().to_string(), text: String::new(), problems });
                }
            },
        };
        read::load(self, text)
    }

    /// Adds a flag that stands for one key.
    pub fn set(&mut self, flag: &str, path: &str, value: &str) {
        let flag = format!("{flag} {value}");
        self.settings.push(Setting { flag, path: path.to_owned(), value: value.to_owned() });
    }

    /// Adds a `--set key.path=value`.
    pub fn set_pair(&mut self, pair: &str) {
        match pair.split_once('=') {
            Some((path, value)) if path.split('.').all(|part| !part.trim().is_empty()) => {
                let path = path.split('.').map(str::trim).collect::<Vec<_>>().join(".");
                self.settings.push(Setting { flag: format!("--set {pair}"), path, value: value.trim().to_owned() });
            }
            _ => self.malformed.push(pair.to_owned()),
        }
    }

    /// Takes the variables that begin with `PARLOR_` from `environment`.
    pub fn environment(
        environment: impl Iterator<Item = (std::ffi::OsString, std::ffi::OsString)>,
    ) -> Vec<(String, String)> {
        let mut found: Vec<(String, String)> = environment
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .filter(|(name, _)| name.starts_with("PARLOR_"))
            .collect();
        found.sort();
        found
    }

    /// Directory from which relative paths in the file count.
    fn base(&self) -> &Path {
        self.file.as_deref().and_then(Path::parent).unwrap_or(Path::new(""))
    }
}

impl Default for Config {
    /// What an empty file and no flags give: one listener on loopback, nobody gets in without an account.
    fn default() -> Self {
        read::defaults()
    }
}

impl Config {
    /// The sections in which `self` differs from `running` and that take effect only at the next start.
    pub fn needs_restart(&self, running: &Self) -> Vec<&'static str> {
        let places = |config: &Self| {
            config.listeners.iter().map(|l| (l.name.clone(), l.url.clone(), l.tls.is_some())).collect::<Vec<_>>()
        };
        let mut sections = Vec::new();
        if self.data != running.data {
            sections.push("data");
        }
        if places(self) != places(running) {
            sections.push("listener");
        }
        if (Http { any_port: running.http.any_port, ..self.http.clone() }) != running.http {
            sections.push("http");
        }
        if self.store != running.store {
            sections.push("store");
        }
        if self.im != running.im {
            sections.push("im");
        }
        if self.log.format != running.log.format {
            sections.push("log.format");
        }
        sections
    }

    /// A few lines that say what this configuration does.
    pub fn summary(&self) -> String {
        let mut out = String::new();
        let _ = writeln!(out, "data       {}", self.data.display());
        for listener in &self.listeners {
            let mut notes = Vec::new();
            if listener.allow_anonymous {
                notes.push("anonymous clients allowed");
            }
            match listener.tls.as_ref().map(|tls| tls.client_certificate) {
                Some(ClientCertificate::Optional) => notes.push("client certificate optional"),
                Some(ClientCertificate::Required) => notes.push("client certificate required"),
                _ => {}
            }
            let notes = if notes.is_empty() { String::new() } else { format!("  ({})", notes.join(", ")) };
            let name = if listener.name == listener.url.to_string() { "" } else { &listener.name };
            let _ = writeln!(out, "listener   {} {name}{notes}", listener.url);
        }
        if self.http.enabled {
            let _ = writeln!(out, "http       http://{}", self.http.listen);
        } else {
            let _ = writeln!(out, "http       off");
        }
        if let Some(jwt) = &self.auth.jwt {
            let _ = writeln!(out, "tokens     {:?}, key {}", jwt.algorithm, jwt.key_file.display());
        }
        let _ = writeln!(out, "rules      {}", self.rules.len());
        let changed: Vec<String> = LIMITS
            .iter()
            .filter_map(|info| {
                let value = self.limits.value(info.name).filter(|value| *value != info.default)?;
                Some(format!("{} = {value}", info.name))
            })
            .collect();
        let changed = if changed.is_empty() { "as shipped".to_owned() } else { changed.join(", ") };
        let _ = writeln!(out, "limits     {changed}");
        out
    }
}

#[cfg(test)]
mod tests;
