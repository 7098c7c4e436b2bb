//! The store: what was acknowledged survives a power cut.
//!
//! A commit writes one checksummed record into the journal and syncs it. Full journal segments are folded into an
//! index of ordered tables in the background; entries that were acknowledged in between never get there. Opening
//! folds what is left and reads the rest of the broker's memory back. `docs/storage.md` has the layouts, the
//! invariants, what is assumed of the disk, and the measurements.
//!
//! [`Engine`] does the work on the caller's thread, so that a simulator can step it; [`StoreThreads`] is the
//! [`parlor_core::store::Store`] of the running broker.

mod backup;
pub mod disk;
mod engine;
mod fold;
mod job;
mod journal;
mod page;
mod ranges;
mod rows;
mod schema;
mod tail;
mod threads;
mod window;

use std::io;

use parlor_core::store::bytes::DecodeError;
use parlor_core::store::{Retention, Table};

pub use backup::{BackupError, Progress, RestoreError, Restored, restore};
pub use engine::{Engine, Recovery};
pub use job::{Job, JobDone};
pub use threads::{BackupHandle, Figures, FiguresHandle, LATENCY_BOUNDS_US, StoreThreads};

const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// Sizes and habits of a store.
#[derive(Debug, Clone)]
pub struct Options {
    /// A journal segment is folded when it has this many bytes.
    pub segment_bytes: u64,
    /// A new segment grows by this many bytes of zeros at a time; a multiple of 4096.
    pub segment_step_bytes: u64,
    /// Commits wait while this many full segments wait for their fold.
    pub max_frozen_segments: usize,
    /// Memory for pages of the index.
    pub cache_bytes: usize,
    /// With less room than this on the disk, `LowSpace` is reported; a quarter more ends it.
    pub low_space_bytes: u64,
    /// How long rows are kept, for tables whose rows are given up with time.
    pub retention: Vec<Retention>,
    /// Memory for what is known of the keys of runs of rows; without it a run is asked in vain.
    pub filter_bytes: usize,
    /// So many runs of one size are merged into one.
    pub merge_runs: usize,
    /// Rows are folded and merged this many bytes at a time, at most three eighths of `cache_bytes`: what a
    /// transaction changes beyond the half of the cache is written twice.
    pub row_slice_bytes: u64,
    /// Open a damaged journal all the same: what follows the damage is lost.
    pub salvage: bool,
    /// Marks the files of a new store as belonging together; `None` draws one at random.
    pub salt: Option<u64>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            segment_bytes: 8 << 20,
            segment_step_bytes: 1 << 20,
            max_frozen_segments: 3,
            cache_bytes: 4 << 20,
            low_space_bytes: 64 << 20,
            // What tells a message sent twice is kept longer than a client may take to send it again, a week; mailbox
            // entries for a month, message bodies for good.
            retention: vec![
                Retention { table: Table(192), keep_ms: 8 * DAY_MS },
                Retention { table: Table(129), keep_ms: 31 * DAY_MS },
            ],
            filter_bytes: 32 << 20,
            merge_runs: 24,
            row_slice_bytes: 3 << 19,
            salvage: false,
            salt: None,
        }
    }
}

/// Why the store stopped. After any of these nothing more becomes durable until it is opened again.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A call on a file failed.
    #[error(
        "cannot {action} {file}: {source}; check the disk (room, mount, health), then start again: nothing acknowledged is lost"
    )]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        file: String,
        /// What the system said.
        source: io::Error,
    },
    /// The index file failed.
    #[error("the index failed: {0}; check the disk, then start again; if that fails too, restore a backup")]
    Index(Box<redb::Error>),
    /// Stored bytes do not read back.
    #[error("{0}; restore a backup if a newer version did not write it")]
    Decode(#[from] DecodeError),
    /// Rows that contradict each other.
    #[error("the index contradicts itself: {what}; restore a backup, and report this with the log")]
    Inconsistent {
        /// The contradiction.
        what: &'static str,
    },
    /// A segment reads back differently than it was written.
    #[error(
        "{file} ends with record {found} instead of {expected}: the disk changed acknowledged bytes; restore a backup"
    )]
    Changed {
        /// The segment's file.
        file: String,
        /// Its last valid record.
        found: u64,
        /// Its last record.
        expected: u64,
    },
    /// A commit larger than a segment can be.
    #[error("a commit of {bytes} bytes is more than the journal can hold; lower the message size limit")]
    TooLarge {
        /// Its size.
        bytes: u64,
    },
    /// An earlier call failed.
    #[error("the store stopped after an earlier failure: {0}")]
    Stopped(String),
}

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Reading or folding failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Another version wrote it.
    #[error(
        "the store has format {found}, this version reads format {known}; start the version that wrote it, back up there, and see docs/storage.md on moving between versions"
    )]
    OtherFormat {
        /// In the file.
        found: u64,
        /// Known here.
        known: u64,
    },
    /// A journal file of another store lies in the directory.
    #[error("{file} belongs to another store; put the directory back as it was, or restore a backup into a new one")]
    ForeignJournal {
        /// The file.
        file: String,
    },
    /// The index is not there, the journal is.
    #[error("the index {file} is missing, but its journal is there; put the file back, or restore a backup")]
    IndexMissing {
        /// Its name.
        file: &'static str,
    },
    /// Acknowledged bytes changed.
    #[error(
        "{file} is damaged at byte {offset}: an acknowledged record is unreadable, while one at byte {valid_at} is whole; restore a backup, or open with the salvage option, which keeps everything up to the damage and gives up what follows"
    )]
    JournalDamaged {
        /// The segment's file.
        file: String,
        /// Where a record should be.
        offset: u64,
        /// Where a later one is.
        valid_at: u64,
    },
}

macro_rules! from_redb {
    ($($error:ident),*) => {$(
        impl From<redb::$error> for StoreError {
            fn from(error: redb::$error) -> Self {
                Self::Index(Box::new(error.into()))
            }
        }
    )*};
}

from_redb!(DatabaseError, TransactionError, TableError, StorageError, CommitError);
