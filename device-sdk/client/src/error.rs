//! What can go wrong, and what to do about it.

use crate::model::OutboxFull;
use crate::target::Target;
use std::path::PathBuf;

/// Why there is no connection, and why trying again would not help.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// Not the address of a broker.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// Nobody said who is connecting.
    #[error("who are you? name the account in the URL, as mqtt://NAME:PASSWORD@HOST, or in Options::user")]
    NoUser,
    /// The first connection could not be made.
    #[error("no broker answers at {target}: {why}")]
    Unreachable {
        /// Where it should be.
        target: Target,
        /// What was seen instead.
        why: String,
    },
    /// User name or password are wrong.
    #[error("the broker at {0} refuses the user name or password")]
    Credentials(Target),
    /// Something else about this client is wrong.
    #[error("the broker at {target} refuses this client: {why}")]
    Refused {
        /// The broker.
        target: Target,
        /// Its reason.
        why: String,
    },
    /// The same terminal has connected again.
    #[error("another program took over the terminal `{0}`; give each its own with Options::terminal (--terminal)")]
    TakenOver(String),
    /// Somebody who may do so ended the connection.
    #[error("the operator, or another terminal of this account, ended this connection")]
    Kicked,
    /// A subscription is refused.
    #[error(
        "the broker refuses the subscription to `{filter}`: {why}; does the account exist, and is this broker new enough?"
    )]
    Subscription {
        /// What was asked for.
        filter: String,
        /// The broker's reason.
        why: String,
    },
    /// Certificates or keys cannot be used.
    #[error("cannot use the certificates or keys in {}: {why}", .path.display())]
    Certificates {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// There is nobody to trust.
    #[error("the system names no certificate authorities to trust; name some with Options::ca (--ca)")]
    NoAuthorities,
    /// `Options::pin` is no digest.
    #[error("`{0}` is no SHA-256 of a certificate: 64 hexadecimal digits, with or without colons")]
    Pin(String),
    /// The other side is not who it should be, or speaks another TLS.
    #[error("no encrypted connection to {target}: {why}")]
    Tls {
        /// The broker.
        target: Target,
        /// What is wrong.
        why: String,
    },
    /// The two speak different versions of the native link.
    #[error(
        "the broker at {target} speaks another version of the native link: {why}; update one of the two, or use mqtt+quic://"
    )]
    Version {
        /// The broker.
        target: Target,
        /// What differs.
        why: String,
    },
    /// The outbox cannot be opened or written.
    #[error(transparent)]
    Outbox(#[from] OutboxError),
    /// There is no tokio runtime with timers and sockets.
    #[error("a client needs a tokio runtime: call this within one")]
    NoRuntime,
}

/// A URL does not name a broker.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{url}` is not the address of a broker: {why}; write SCHEME://HOST[:PORT] with one of mqtt, mqtts, ws, wss, \
     mqtt+quic, parlor, parlor+tcp, parlor+tls, for example mqtt://127.0.0.1 or parlor://home.lan"
)]
pub struct TargetError {
    /// What was written, without a password.
    pub url: String,
    /// What is wrong with it.
    pub why: &'static str,
}

/// The outbox on disk cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OutboxError {
    /// The file cannot be opened, read or written.
    #[error("cannot use the outbox {}: {why}; is the disk full, or is it no outbox?", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// Somebody else has it open.
    #[error("the outbox {} is in use by another client; give each one a file of its own", .path.display())]
    Busy {
        /// The file.
        path: PathBuf,
    },
    /// It belongs to somebody else: ids are single for one terminal of one account only.
    #[error("the outbox {} belongs to {owner}; give each account and broker a file of its own", .path.display())]
    Owner {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        owner: String,
    },
    /// A later version wrote it.
    #[error("the outbox {} has format {found}, this program knows {known}: update it", .path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u64,
        /// The one known here.
        known: u64,
    },
    /// It was asked for by a client that has ended.
    #[error("the outbox is closed")]
    Closed,
}

/// Something was not sent. It will not be sent later either.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// Too much waits.
    #[error(transparent)]
    Full(#[from] OutboxFull),
    /// No row could be written.
    #[error(transparent)]
    Outbox(#[from] OutboxError),
    /// That is nobody.
    #[error("`{0}` is no address: 1 to 32 of a-z, 0-9, '.', '_' and '-'")]
    Address(String),
    /// That is no client id.
    #[error("`{0}` is no client id: 1 to 36 of A-Z, a-z, 0-9, '_' and '-'")]
    Id(String),
    /// That is no name of a command or a stream.
    #[error("`{0}` is no name: 1 to 36 of A-Z, a-z, 0-9, '_' and '-'")]
    Name(String),
    /// That is no topic for ordinary publish and subscribe.
    #[error("`{0}` is no topic for this: not empty, no wildcards in what is published, and nothing below im/")]
    Topic(String),
    /// The client has ended.
    #[error("the client is closed")]
    Closed,
}

/// A question has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AskError {
    /// It could not even be asked.
    #[error(transparent)]
    Send(#[from] SendError),
    /// The broker refused it.
    #[error("{code}: {text}")]
    Refused {
        /// The code of docs/protocol.md section 10.
        code: String,
        /// What happened and what to do.
        text: String,
    },
    /// Nothing came in time.
    #[error("no answer within {} seconds", .0.as_secs())]
    Silent(std::time::Duration),
    /// Something else came than the protocol says.
    #[error("the answer cannot be read: {0}; is the broker of another version?")]
    Unreadable(String),
}
