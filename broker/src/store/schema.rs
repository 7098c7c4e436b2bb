//! The index: redb tables, their keys, and the byte forms of their values. `docs/storage.md` describes them.

use std::sync::Arc;

use parlor_core::store::bytes::{DecodeError, Reader, put_bytes, put_int};
use parlor_core::store::{MessageRef, QueueIndex, QueueState};
use redb::{Builder, Database, ReadableDatabase, TableDefinition, WriteTransaction};

use super::disk::{Disk, IndexFile};
use super::ranges::Ranges;
use super::{OpenError, StoreError};

/// File name of the index.
pub(super) const INDEX: &str = "index.redb";
/// Where an index is built before it gets its name.
pub(super) const INDEX_NEW: &str = "index.new";
/// The format this version writes.
pub(super) const FORMAT: u64 = 2;
/// The format before it, which had no rows; opening adds their tables.
pub(super) const FORMAT_WITHOUT_ROWS: u64 = 1;

/// Numbers that describe the store, by name.
pub(super) const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
/// Session number -> its `Fact::Session` bytes.
pub(super) const SESSIONS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("sessions");
/// (session number, filter) -> (options, subscription identifier).
pub(super) const SUBSCRIPTIONS: TableDefinition<'_, (u64, &str), (u8, u32)> = TableDefinition::new("subscriptions");
/// Session number -> [`QueueRow`].
pub(super) const QUEUES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("queues");
/// (session number, first queue index) -> [`ChunkEntry`] after [`ChunkEntry`], ascending.
pub(super) const CHUNKS: TableDefinition<'_, (u64, u64), &[u8]> = TableDefinition::new("chunks");
/// First body number -> messages of consecutive body numbers.
pub(super) const BODIES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("bodies");
/// First body number -> how many queue entries still refer into that row of [`BODIES`].
pub(super) const BODY_REFS: TableDefinition<'_, u64, u64> = TableDefinition::new("body_refs");
/// Topic -> its `Fact::Retain` bytes.
pub(super) const RETAINED: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("retained");
/// Client identifier -> its `Fact::Will` bytes.
pub(super) const WILLS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("wills");
/// Account name -> record.
pub(super) const ACCOUNTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("accounts");
/// (table, run) -> what is known of the run.
pub(super) const ROW_RUNS: TableDefinition<'_, (u8, u64), &[u8]> = TableDefinition::new("row_runs");
/// (table, run, a, b) of the first row it may hold -> chunk of rows.
pub(super) const ROW_CHUNKS: TableDefinition<'_, (u8, u64, u64, u64), &[u8]> = TableDefinition::new("row_chunks");
/// (table, run, a) of the first -> floors.
pub(super) const ROW_FLOORS: TableDefinition<'_, (u8, u64, u64), &[u8]> = TableDefinition::new("row_floors");
/// (table, run, a, b) of the first key -> block of the run's filter.
pub(super) const ROW_FILTERS: TableDefinition<'_, (u8, u64, u64, u64), &[u8]> = TableDefinition::new("row_filters");

/// Keys of [`META`].
pub(super) mod meta {
    pub(in crate::store) const FORMAT: &str = "format";
    pub(in crate::store) const SALT: &str = "salt";
    pub(in crate::store) const BOOT: &str = "boot";
    pub(in crate::store) const NEXT_SESSION: &str = "next_session";
    pub(in crate::store) const NEXT_BODY: &str = "next_body";
    pub(in crate::store) const FOLDED_GENERATION: &str = "folded_generation";
    pub(in crate::store) const FOLDED_RECORD: &str = "folded_record";
    pub(in crate::store) const NEXT_RUN: &str = "next_run";
    pub(in crate::store) const ROW_CLOCK: &str = "row_clock";
}

/// A chunk is closed before it grows beyond this; with its key it then fits the 16 KiB page redb gives it.
pub(super) const CHUNK_BYTES: usize = 16_000;

fn builder(cache_bytes: usize) -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(cache_bytes);
    builder
}

/// Opens the index that is there.
pub(super) fn open_index(disk: &dyn Disk, cache_bytes: usize) -> Result<Database, OpenError> {
    let file = disk.open(INDEX).map_err(|source| StoreError::Io { action: "open", file: INDEX.to_owned(), source })?;
    let db = builder(cache_bytes).create_with_backend(IndexFile(file)).map_err(StoreError::from)?;
    match number(&db, meta::FORMAT)? {
        FORMAT => {}
        FORMAT_WITHOUT_ROWS => add_rows(&db)?,
        found => return Err(OpenError::OtherFormat { found, known: FORMAT }),
    }
    Ok(db)
}

/// Makes an index of [`FORMAT_WITHOUT_ROWS`] one of [`FORMAT`]. No table that was there changes, and no fact that an
/// older journal holds reads differently, so the journal may be folded afterwards.
fn add_rows(db: &Database) -> Result<(), StoreError> {
    let mut txn = db.begin_write()?;
    txn.set_quick_repair(true);
    open_row_tables(&txn)?;
    txn.open_table(META)?.insert(meta::FORMAT, FORMAT)?;
    txn.commit()?;
    Ok(())
}

fn open_row_tables(txn: &WriteTransaction) -> Result<(), StoreError> {
    txn.open_table(ROW_RUNS)?;
    txn.open_table(ROW_CHUNKS)?;
    txn.open_table(ROW_FLOORS)?;
    txn.open_table(ROW_FILTERS)?;
    Ok(())
}

/// Makes an empty index under [`INDEX_NEW`]; [`name_index`] puts it in place.
pub(super) fn create_index(disk: &dyn Disk, cache_bytes: usize, salt: u64) -> Result<Database, StoreError> {
    let file =
        disk.open(INDEX_NEW).map_err(|source| StoreError::Io { action: "make", file: INDEX_NEW.to_owned(), source })?;
    let db = builder(cache_bytes).create_with_backend(IndexFile(Arc::clone(&file)))?;
    let mut txn = db.begin_write()?;
    txn.set_quick_repair(true);
    {
        let mut table = txn.open_table(META)?;
        table.insert(meta::FORMAT, FORMAT)?;
        table.insert(meta::SALT, salt)?;
        for key in [meta::BOOT, meta::NEXT_SESSION, meta::NEXT_BODY, meta::FOLDED_GENERATION, meta::FOLDED_RECORD] {
            table.insert(key, 0)?;
        }
        txn.open_table(SESSIONS)?;
        txn.open_table(SUBSCRIPTIONS)?;
        txn.open_table(QUEUES)?;
        txn.open_table(CHUNKS)?;
        txn.open_table(BODIES)?;
        txn.open_table(BODY_REFS)?;
        txn.open_table(RETAINED)?;
        txn.open_table(WILLS)?;
        txn.open_table(ACCOUNTS)?;
        open_row_tables(&txn)?;
    }
    txn.commit()?;
    Ok(db)
}

/// Gives the index made by [`create_index`] its name.
pub(super) fn name_index(disk: &dyn Disk) -> Result<(), StoreError> {
    let failed = |action: &'static str| move |source| StoreError::Io { action, file: INDEX.to_owned(), source };
    disk.rename(INDEX_NEW, INDEX).map_err(failed("name"))?;
    disk.sync_dir().map_err(failed("sync the directory of"))
}

/// A number of [`META`].
pub(super) fn number(db: &Database, key: &str) -> Result<u64, StoreError> {
    let table = db.begin_read()?.open_table(META)?;
    Ok(table.get(key)?.map_or(0, |value| value.value()))
}

/// Where a session's queue stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct QueueRow {
    /// The first index not acknowledged.
    pub(super) head: u64,
    /// One past the last index given.
    pub(super) tail: u64,
    /// Entries neither acknowledged nor received.
    pub(super) queued: u64,
    /// Their bytes.
    pub(super) queued_bytes: u64,
    /// Acknowledged, at or above `head`.
    pub(super) acked: Ranges,
    /// Received and not acknowledged.
    pub(super) received: Ranges,
    /// Packet identifiers of `QoS` 2 messages received and not released, ascending.
    pub(super) inbound: Vec<u16>,
}

impl QueueRow {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        put_int(out, self.head);
        put_int(out, self.tail - self.head);
        put_int(out, self.queued);
        put_int(out, self.queued_bytes);
        self.acked.encode(self.head, out);
        self.received.encode(self.head, out);
        put_int(out, self.inbound.len() as u64);
        for id in &self.inbound {
            out.extend_from_slice(&id.to_le_bytes());
        }
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new(bytes);
        let head = r.int()?;
        let tail = head.checked_add(r.int()?).ok_or(DecodeError::IntegerTooLong)?;
        let (queued, queued_bytes) = (r.int()?, r.int()?);
        let (acked, received) = (Ranges::read(head, &mut r)?, Ranges::read(head, &mut r)?);
        let mut inbound = vec![];
        for _ in 0..r.int()? {
            inbound.push(u16::from_le_bytes([r.byte()?, r.byte()?]));
        }
        Ok(Self { head, tail, queued, queued_bytes, acked, received, inbound })
    }

    /// True for an index of the index file that is done.
    pub(super) fn is_acked(&self, index: u64) -> bool {
        index < self.head || self.acked.contains(index)
    }

    /// Indexes at or above the head that are not merely queued, ascending.
    pub(super) fn exceptions(&self) -> Vec<(QueueIndex, QueueState)> {
        let mut all: Vec<_> = self.acked.indexes().map(|index| (QueueIndex(index), QueueState::Acked)).collect();
        all.extend(self.received.indexes().map(|index| (QueueIndex(index), QueueState::Received)));
        all.sort_unstable();
        all
    }
}

const SHARED: u8 = 1 << 4;

/// One queue entry in a chunk. With the message in place it has the very form of a page entry, so that it is copied.
#[derive(Debug, Clone, Copy)]
pub(super) struct ChunkEntry<'a> {
    pub(super) index: u64,
    pub(super) qos: u8,
    pub(super) retain: bool,
    pub(super) subscription_ids: &'a [u8],
    pub(super) body: Body<'a>,
}

/// An entry's message.
#[derive(Debug, Clone, Copy)]
pub(super) enum Body<'a> {
    /// Here.
    Inline(MessageRef<'a>),
    /// In [`BODIES`].
    Shared {
        /// Body number.
        number: u64,
        /// Bytes of topic, properties and payload.
        cost: u64,
    },
}

impl<'a> ChunkEntry<'a> {
    pub(super) fn cost(&self) -> u64 {
        match self.body {
            Body::Inline(message) => message.cost() as u64,
            Body::Shared { cost, .. } => cost,
        }
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let shared = if matches!(self.body, Body::Shared { .. }) { SHARED } else { 0 };
        put_int(out, self.index);
        out.push(self.qos | u8::from(self.retain) << 2 | shared);
        put_bytes(out, self.subscription_ids);
        match self.body {
            Body::Inline(message) => message.encode(out),
            Body::Shared { number, cost } => {
                put_int(out, number);
                put_int(out, cost);
            }
        }
    }

    pub(super) fn read(r: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let (index, flags, subscription_ids) = (r.int()?, r.byte()?, r.bytes()?);
        let body = if flags & SHARED == 0 {
            Body::Inline(MessageRef::read(r)?)
        } else {
            Body::Shared { number: r.int()?, cost: r.int()? }
        };
        Ok(Self { index, qos: flags & 3, retain: flags & 4 != 0, subscription_ids, body })
    }
}

/// Iterates over a chunk: each entry, with its bytes.
pub(super) fn chunk_entries(bytes: &[u8]) -> impl Iterator<Item = Result<(ChunkEntry<'_>, &[u8]), DecodeError>> {
    let mut reader = Reader::new(bytes);
    std::iter::from_fn(move || {
        let start = reader.used();
        (start < bytes.len()).then(|| ChunkEntry::read(&mut reader).map(|entry| (entry, &bytes[start..reader.used()])))
    })
}
