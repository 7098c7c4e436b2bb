//! What the operator's side asks of the driver.

use super::metrics::Metric;
use super::types::{
    AccountKind, Page, Restored, RetainedQuery, RetainedRow, SessionDetail, SessionSummary, SessionsQuery, Status,
    SubscriptionRow, SubscriptionsQuery,
};
use crate::auth::{IssueError, IssuedToken, Secret, TokenWish};
use crate::config::Config;
use parlor_core::{BlobOrder, Look, Reply};
use std::net::IpAddr;
use std::path::PathBuf;
use tokio::sync::{mpsc, oneshot};

/// Commands that may wait for the driver; the operator's side waits when there are more.
pub const COMMANDS_MAX: usize = 64;

/// One question or order; each is answered through its `reply`, or by dropping it when it cannot be.
#[derive(Debug)]
pub enum Command {
    /// Asks for a sign of life.
    Ping {
        /// Answered at once.
        reply: oneshot::Sender<()>,
    },
    /// Asks for the whole picture.
    Status {
        /// The answer.
        reply: oneshot::Sender<Status>,
    },
    /// Asks for every metric but those of the process and the build, which the operator's side adds itself.
    Metrics {
        /// The answer.
        reply: oneshot::Sender<Vec<Metric>>,
    },
    /// Asks for a page of sessions, by client identifier.
    Sessions {
        /// Which.
        query: SessionsQuery,
        /// The answer.
        reply: oneshot::Sender<Page<SessionSummary>>,
    },
    /// Asks for one session.
    Session {
        /// Client identifier.
        client_id: String,
        /// The answer; `None`: there is none.
        reply: oneshot::Sender<Option<SessionDetail>>,
    },
    /// Ends a connection (0x98 Administrative action), and with [`Kick::Forget`] the session too.
    Kick {
        /// Client identifier.
        client_id: String,
        /// How much ends.
        what: Kick,
        /// Sent when it is durable; `Ok(false)`: there is no such session.
        reply: oneshot::Sender<Result<bool, CommandError>>,
    },
    /// Asks for a page of subscriptions.
    Subscriptions {
        /// Which.
        query: SubscriptionsQuery,
        /// The answer.
        reply: oneshot::Sender<Page<SubscriptionRow>>,
    },
    /// Asks for a page of retained messages, by topic.
    Retained {
        /// Which.
        query: RetainedQuery,
        /// The answer.
        reply: oneshot::Sender<Page<RetainedRow>>,
    },
    /// Clears a retained message.
    RetainedClear {
        /// Topic name.
        topic: String,
        /// Sent when it is durable; `Ok(false)`: there is none.
        reply: oneshot::Sender<Result<bool, CommandError>>,
    },
    /// Asks for every account: name and record, ascending by name.
    Accounts {
        /// The answer.
        reply: oneshot::Sender<Vec<(String, Vec<u8>)>>,
    },
    /// Makes or changes an account.
    AccountPut {
        /// Name.
        name: String,
        /// Record, as the account room encodes it.
        record: Vec<u8>,
        /// What messaging is to know of it; `None`: nothing new.
        described: Option<Described>,
        /// What becomes of its connections; those of a disabled account end in any case.
        connections: Connections,
        /// Sent when all of it is durable.
        reply: oneshot::Sender<Result<(), CommandError>>,
    },
    /// Removes an account and ends its connections (0x98).
    AccountRemove {
        /// Name.
        name: String,
        /// Sent when it is durable; `Ok(false)`: there is no such account.
        reply: oneshot::Sender<Result<bool, CommandError>>,
    },
    /// Does in messaging what a PUBLISH by an account to `im/v1/{path}` would do.
    Act {
        /// Who acts.
        account: String,
        /// Whose rights count.
        rights: Rights,
        /// Topic below `im/v1/`.
        path: String,
        /// Payload.
        payload: Secret<Vec<u8>>,
        /// Sent when it is durable.
        reply: oneshot::Sender<Result<Reply, CommandError>>,
    },
    /// Looks something up in messaging.
    Look {
        /// What.
        what: Look,
        /// The answer.
        reply: oneshot::Sender<Result<Reply, CommandError>>,
    },
    /// Does something about a blob.
    Blob {
        /// What.
        order: BlobOrder,
        /// Sent when it is durable.
        reply: oneshot::Sender<Result<Reply, CommandError>>,
    },
    /// Pairs a device, unless whoever asks has guessed too often.
    Pair {
        /// Where the request comes from.
        peer: IpAddr,
        /// The code it presents.
        code: Secret<String>,
        /// The account it wants to become.
        name: String,
        /// Sent when the account is durable.
        reply: oneshot::Sender<Result<Reply, PairError>>,
    },
    /// Issues a connect token.
    TokenIssue {
        /// What it is to say.
        wish: TokenWish,
        /// The answer.
        reply: oneshot::Sender<Result<IssuedToken, IssueError>>,
    },
    /// Asks whom a connect token lets in.
    TokenCheck {
        /// The token.
        token: Secret<String>,
        /// The answer; `None`: nobody.
        reply: oneshot::Sender<Option<String>>,
    },
    /// Takes over what can be changed while running.
    Reload {
        /// The new configuration, already checked.
        config: Box<Config>,
        /// The answer.
        reply: oneshot::Sender<Result<(), CommandError>>,
    },
    /// Writes a backup of the store as it is now.
    Backup {
        /// Where the pieces go; the sender waits while the operator's client is slow. Closed: nobody wants it any more.
        chunks: mpsc::Sender<BackupChunk>,
    },
    /// Replaces the store with a backup.
    Restore {
        /// The backup, complete, in the data directory; the driver takes it away or removes it.
        file: PathBuf,
        /// The answer.
        reply: oneshot::Sender<Result<Restored, CommandError>>,
    },
    /// Ends the broker.
    Shutdown(Shutdown),
}

/// What messaging is to know of an account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Described {
    /// What kind of account it is.
    pub kind: AccountKind,
    /// Its name for people.
    pub display_name: Option<String>,
}

/// What becomes of an account's connections when it is changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Connections {
    /// They go on.
    Stay,
    /// They end (0x98); whoever has credentials that still count comes back.
    End,
}

/// Whose rights count when an account acts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rights {
    /// The operator's, who needs nobody's consent.
    Operator,
    /// The account's own.
    Own,
}

/// How much a kick ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kick {
    /// The connection.
    Disconnect,
    /// The connection and the session.
    Forget,
}

/// How the broker ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shutdown {
    /// Clients are told (0x8B Server shutting down) and given `drain_secs`.
    Drain,
    /// At once; what was acknowledged is on disk anyway.
    Now,
}

/// Piece of a backup.
#[derive(Debug)]
pub enum BackupChunk {
    /// Some bytes.
    Data(Vec<u8>),
    /// It is complete. A stream that ends without this is cut off and the client hears so.
    End,
    /// It cannot be completed.
    Failed(CommandError),
}

/// Why an order was not carried out.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum CommandError {
    /// The store refused; the text says what to do.
    #[error("the store refused: {0}")]
    Store(String),
    /// The broker is ending.
    #[error("the broker is shutting down; try again when it has started")]
    Draining,
    /// Another of the same kind is under way.
    #[error("{0} is under way; try again when it is done")]
    Busy(&'static str),
    /// What was given cannot be used; the text says why.
    #[error("{0}")]
    Unusable(String),
}

/// A device was not paired before anybody looked at its code.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum PairError {
    /// Too many wrong codes came from there.
    #[error("too many wrong pairing codes: try again in {} s", .0.div_ceil(1_000))]
    SlowedDown(
        /// Milliseconds until the next one is looked at.
        u64,
    ),
    /// The order could not be carried out.
    #[error(transparent)]
    Command(#[from] CommandError),
}

/// Writes a backup into [`Command::Backup`]'s channel, for use on a thread of its own.
///
/// Without [`finish`](Self::finish) the client hears that the backup is cut off.
#[derive(Debug)]
pub struct ChunkWriter {
    chunks: mpsc::Sender<BackupChunk>,
    buffer: Vec<u8>,
}

/// Bytes of a [`BackupChunk::Data`].
const CHUNK_BYTES: usize = 64 * 1024;

impl ChunkWriter {
    /// Writes into `chunks`.
    pub fn new(chunks: mpsc::Sender<BackupChunk>) -> Self {
        Self { chunks, buffer: Vec::new() }
    }

    /// Says that the backup is complete, or why it cannot be completed.
    pub fn finish(mut self, result: Result<(), CommandError>) {
        let last = match result {
            Ok(()) if std::io::Write::flush(&mut self).is_ok() => BackupChunk::End,
            Ok(()) => return,
            Err(error) => BackupChunk::Failed(error),
        };
        // A client that has gone needs no last word.
        let _ = self.chunks.blocking_send(last);
    }
}

impl std::io::Write for ChunkWriter {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let taken = bytes.len().min(CHUNK_BYTES - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..taken]);
        if self.buffer.len() == CHUNK_BYTES {
            self.flush()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let chunk = BackupChunk::Data(std::mem::take(&mut self.buffer));
        self.chunks.blocking_send(chunk).map_err(|_| std::io::ErrorKind::BrokenPipe.into())
    }
}
