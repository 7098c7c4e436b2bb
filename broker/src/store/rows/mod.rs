//! Rows: what the messaging rooms keep, as `(table, a, b) -> bytes`.
//!
//! A fold writes the rows of a segment as one sorted *run* a table; runs are merged in tiers; a question is answered
//! from the journal's tail and the runs, the newest first. `docs/storage.md` describes the layout.

mod chunk;
mod filter;
mod floor;
mod fold;
mod merge;
mod query;
mod recent;
mod run;
mod scan;
mod tail;

use std::sync::Arc;

use parlor_core::store::{Kind, RowRecord, Snapshot, Table};
use redb::{Database, ReadOnlyTable, ReadableDatabase};

pub(super) use filter::Filters;
pub(super) use fold::{FoldHabits, RowChanges, RowFold, RowNumbers};
pub(super) use merge::{MergeDone, MergeHabits, MergeJob};
pub(super) use query::answer;
pub(super) use recent::Recent;
pub(super) use run::RunTables;
pub(super) use tail::RowTail;

use self::filter::RunFilter;
use self::run::{Manifest, Run, State};
use self::scan::Merge;
use super::StoreError;
use super::schema::{ROW_CHUNKS, ROW_FILTERS, ROW_FLOORS, ROW_RUNS};

/// Key of a row in its table.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
struct RowKey {
    a: u64,
    b: u64,
}

impl RowKey {
    /// Both halves as one number, which compares in fewer steps.
    fn wide(self) -> u128 {
        u128::from(self.a) << 64 | u128::from(self.b)
    }

    /// The key after it; `None` after the last.
    fn next(self) -> Option<Self> {
        match self.b.checked_add(1) {
            Some(b) => Some(Self { b, ..self }),
            None => Some(Self { a: self.a.checked_add(1)?, b: 0 }),
        }
    }
}

/// The runs as they were after the last fold or merge that the engine has taken note of. What folds and merges write
/// meanwhile is not seen, so that it fits what the tail holds.
pub(super) struct View {
    chunks: ReadOnlyTable<(u8, u64, u64, u64), &'static [u8]>,
    floors: ReadOnlyTable<(u8, u64, u64), &'static [u8]>,
    manifest: Manifest,
    filters: Arc<Filters>,
    is_due: bool,
    is_behind: bool,
}

impl std::fmt::Debug for View {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("View").field("manifest", &self.manifest).finish_non_exhaustive()
    }
}

impl View {
    /// The runs as they are now. Filters are taken from `before`, or read as long as all take at most `filter_bytes`.
    pub(super) fn open(
        db: &Database,
        before: Option<&Self>,
        habits: &MergeHabits,
        filter_bytes: usize,
    ) -> Result<Self, StoreError> {
        let txn = db.begin_read()?;
        let manifest = Manifest::read(&txn.open_table(ROW_RUNS)?)?;
        let old = before.map(|view| Arc::clone(&view.filters)).unwrap_or_default();
        let filters = read_filters(&txn.open_table(ROW_FILTERS)?, &manifest, &old, filter_bytes)?;
        Ok(Self {
            chunks: txn.open_table(ROW_CHUNKS)?,
            floors: txn.open_table(ROW_FLOORS)?,
            filters: Arc::new(filters),
            is_due: merge::is_due(&manifest, habits),
            is_behind: merge::is_behind(&manifest, habits),
            manifest,
        })
    }

    /// What is known of the keys of runs.
    pub(super) fn filters(&self) -> Arc<Filters> {
        Arc::clone(&self.filters)
    }

    /// True when a [`MergeJob`] has something to do.
    pub(super) fn is_due(&self) -> bool {
        self.is_due
    }

    /// True when merging should come before the next fold.
    pub(super) fn is_behind(&self) -> bool {
        self.is_behind
    }

    /// How many runs there are.
    pub(super) fn runs(&self) -> usize {
        self.manifest.tables.values().map(Vec::len).sum()
    }

    /// Adds the rows and keys that the broker must know when it starts.
    pub(super) fn read_into(&self, snapshot: &mut Snapshot) -> Result<(), StoreError> {
        for &name in self.manifest.tables.keys() {
            let table = Table(name);
            if table.kind() == Kind::Paged {
                continue;
            }
            let runs = self.manifest.of(name).rev();
            let mut merge = Merge::open(&self.chunks, &self.floors, name, runs, None)?;
            while let Some(found) = merge.next(&self.chunks, &self.floors)? {
                let RowKey { a, b } = found.key;
                if let Some(value) = merge.value(&found) {
                    match table.kind() {
                        Kind::Resident => snapshot.rows.push(RowRecord { table, a, b, value: value.to_vec() }),
                        Kind::Paged | Kind::Keyed => snapshot.keys.push((table, a, b)),
                    }
                }
            }
        }
        Ok(())
    }
}

/// The filters of the runs in `manifest`, newest first, as far as there is room.
fn read_filters(
    stored: &ReadOnlyTable<(u8, u64, u64, u64), &'static [u8]>,
    manifest: &Manifest,
    old: &Filters,
    room: usize,
) -> Result<Filters, StoreError> {
    let mut wanted: Vec<(u8, &Run)> = vec![];
    for &table in manifest.tables.keys().filter(|&&table| Table(table).kind() != Kind::Resident) {
        wanted.extend(manifest.of(table).map(|run| (table, run)));
    }
    wanted.sort_by_key(|(_, run)| std::cmp::Reverse((run.age, run.number)));
    let (mut filters, mut bytes) = (Filters::default(), 0);
    for (table, run) in wanted {
        let known = old.runs.get(&(table, run.number));
        let filter = match known {
            Some(filter) if filter.is_whole => Arc::clone(filter),
            _ => Arc::new(read_filter(stored, table, run, known)?),
        };
        bytes += filter.bytes();
        if bytes > room {
            break;
        }
        filters.runs.insert((table, run.number), filter);
    }
    Ok(filters)
}

/// The filter of a run, of which `known` is the beginning: a run is only added to while it is being merged.
fn read_filter(
    stored: &ReadOnlyTable<(u8, u64, u64, u64), &'static [u8]>,
    table: u8,
    run: &Run,
    known: Option<&Arc<RunFilter>>,
) -> Result<RunFilter, StoreError> {
    let mut filter = known.map_or_else(RunFilter::default, |known| known.as_ref().clone());
    let from = match filter.last() {
        None => Some(RowKey::default()),
        Some(last) => last.next(),
    };
    if let Some(from) = from {
        let end = (table, run.number, u64::MAX, u64::MAX);
        for row in stored.range((table, run.number, from.a, from.b)..=end)? {
            let (key, block) = row?;
            let (_, _, a, b) = key.value();
            filter.push(RowKey { a, b }, block.value());
        }
    }
    filter.is_whole = run.state == State::Whole;
    Ok(filter)
}
