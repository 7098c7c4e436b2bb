//! Merging: when a level of a table has enough runs, they become one of the next level, a slice at a time.
//!
//! A slice moves the rows up to some key: in one transaction they are written to the new run and their chunks leave
//! the old ones. So a merge needs little room, may stop anywhere, and goes on after a power cut from where it was.

use std::collections::BTreeMap;
use std::sync::Arc;

use parlor_core::store::Retention;
use redb::{Database, ReadableTable};

use super::RowKey;
use super::floor;
use super::run::{Manifest, Run, RunTables, RunWriter, State, chunk_from};
use super::scan::Merge;
use crate::store::StoreError;
use crate::store::schema::{META, meta};

/// When runs are merged, and how much of them at a time.
#[derive(Debug, Clone)]
pub(in crate::store) struct MergeHabits {
    /// A level with so many runs is merged.
    pub(in crate::store) runs: usize,
    /// A slice ends when it has read this many bytes.
    pub(in crate::store) slice_bytes: u64,
    /// Runs are merged only as far as their ages stay close enough to be given up together.
    pub(in crate::store) retention: Vec<Retention>,
}

/// Of how long rows are kept, the part by which the ages within one run may differ.
const AGES: u64 = 8;

/// The next thing to do with a table.
#[derive(Debug, PartialEq, Eq)]
enum Work {
    /// Remove the chunks of a run that was dropped.
    Remove { table: u8, run: u64 },
    /// Begin to merge these runs, oldest first.
    Begin { table: u8, inputs: Vec<u64> },
    /// Merge another slice into this run.
    Slice { table: u8, into: u64 },
}

/// The work that comes first: removals, then the lowest level, whose runs grow in number fastest.
fn next_work(manifest: &Manifest, habits: &MergeHabits) -> Option<Work> {
    let mut best: Option<(u8, Work)> = None;
    for (&table, runs) in &manifest.tables {
        if let Some(run) = runs.iter().find(|run| !run.counts()) {
            return Some(Work::Remove { table, run: run.number });
        }
        let keep = habits.retention.iter().find(|retention| retention.table.0 == table).map(|r| r.keep_ms);
        let found = runs
            .iter()
            .find(|run| matches!(run.state, State::Merging { .. }))
            .map(|run| (run.level - 1, Work::Slice { table, into: run.number }));
        let begun =
            level_to_merge(runs, habits.runs, keep).map(|(level, inputs)| (level, Work::Begin { table, inputs }));
        for (level, work) in [found, begun].into_iter().flatten() {
            if best.as_ref().is_none_or(|(other, _)| level < *other) {
                best = Some((level, work));
            }
        }
    }
    best.map(|(_, work)| work)
}

/// The lowest level that has enough runs, and which of them go together.
fn level_to_merge(runs: &[Run], enough: usize, keep_ms: Option<u64>) -> Option<(u8, Vec<u64>)> {
    let free = |run: &&Run| run.state == State::Whole && !run.is_input;
    let mut levels: BTreeMap<u8, Vec<&Run>> = BTreeMap::new();
    for run in runs.iter().filter(free) {
        levels.entry(run.level).or_default().push(run);
    }
    let (level, mut runs) = levels.into_iter().find(|(_, runs)| runs.len() >= enough)?;
    if let (Some(keep_ms), Some(&oldest)) = (keep_ms, runs.first()) {
        runs.retain(|run| run.clock.1.saturating_sub(oldest.clock.0) <= keep_ms / AGES);
        if runs.is_empty() {
            runs.push(oldest);
        }
    }
    Some((level, runs.into_iter().map(|run| run.number).collect()))
}

/// True when there is something to do.
pub(super) fn is_due(manifest: &Manifest, habits: &MergeHabits) -> bool {
    next_work(manifest, habits).is_some()
}

/// True when folds make runs faster than they are merged.
pub(super) fn is_behind(manifest: &Manifest, habits: &MergeHabits) -> bool {
    manifest.tables.values().any(|runs| runs.iter().filter(|run| run.level == 0).count() > habits.runs * 3)
}

/// One slice of merging; may run on another thread than the engine's.
#[derive(Debug)]
pub(in crate::store) struct MergeJob {
    pub(in crate::store) db: Arc<Database>,
    pub(in crate::store) habits: MergeHabits,
}

/// What a [`MergeJob`] did.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::store) struct MergeDone {
    /// Bytes of chunks read, or removed with a run that was given up.
    pub(in crate::store) bytes: u64,
    /// Merges that came to their end.
    pub(in crate::store) merges: u64,
}

impl MergeJob {
    /// Does a slice of work, durably.
    pub(in crate::store) fn run(self) -> Result<MergeDone, StoreError> {
        let mut done = MergeDone::default();
        let mut txn = self.db.begin_write()?;
        txn.set_quick_repair(true);
        {
            let mut numbers = txn.open_table(META)?;
            let mut next_run = numbers.get(meta::NEXT_RUN)?.map_or(0, |value| value.value());
            let mut tables = RunTables::open(&txn)?;
            let mut manifest = Manifest::read(&tables.runs)?;
            while done.bytes < self.habits.slice_bytes
                && let Some(work) = next_work(&manifest, &self.habits)
            {
                let budget = self.habits.slice_bytes - done.bytes;
                match work {
                    Work::Remove { table, run } => {
                        done.bytes += remove(&mut tables, &mut manifest, table, run, budget)?;
                    }
                    Work::Begin { table, inputs } => begin(&mut tables, &mut manifest, table, inputs, &mut next_run)?,
                    Work::Slice { table, into } => {
                        let (bytes, is_done) = slice(&mut tables, &mut manifest, table, into, budget)?;
                        done.bytes += bytes;
                        done.merges += u64::from(is_done);
                    }
                }
            }
            numbers.insert(meta::NEXT_RUN, next_run)?;
        }
        txn.commit()?;
        Ok(done)
    }
}

/// Removes chunks of a dropped run, and the rest of it with the last of them.
fn remove(
    tables: &mut RunTables<'_>,
    manifest: &mut Manifest,
    table: u8,
    run: u64,
    budget: u64,
) -> Result<u64, StoreError> {
    let (mut bytes, mut gone) = (0, vec![]);
    for row in tables.chunks.range((table, run, 0, 0)..=(table, run, u64::MAX, u64::MAX))? {
        let (key, value) = row?;
        if bytes >= budget {
            break;
        }
        bytes += value.value().len() as u64;
        gone.push(key.value());
    }
    if bytes < budget {
        tables.forget(table, run)?;
        manifest.remove(table, run);
    }
    for key in gone {
        tables.chunks.remove(key)?;
    }
    Ok(bytes)
}

/// Puts the run that is to hold what `inputs` hold into the list.
fn begin(
    tables: &mut RunTables<'_>,
    manifest: &mut Manifest,
    table: u8,
    inputs: Vec<u64>,
    next_run: &mut u64,
) -> Result<(), StoreError> {
    let runs: Vec<&Run> = inputs.iter().filter_map(|&input| manifest.run(table, input)).collect();
    let (Some(&oldest), Some(&newest)) = (runs.first(), runs.last()) else { return Ok(()) };
    let level = newest.level.saturating_add(1);
    let run = if runs.len() == 1 {
        // Nothing goes with it: it moves up as it is.
        Run { level, ..newest.clone() }
    } else {
        let clock = (oldest.clock.0, newest.clock.1);
        *next_run += 1;
        Run::new(*next_run - 1, level, newest.age, clock, State::Merging { inputs, upto: None })
    };
    tables.describe(table, &run)?;
    manifest.put(table, run);
    Ok(())
}

/// Merges the next rows into the run `into`; says how many bytes were read, and whether it is whole now.
fn slice(
    tables: &mut RunTables<'_>,
    manifest: &mut Manifest,
    table: u8,
    into: u64,
    budget: u64,
) -> Result<(u64, bool), StoreError> {
    const WRONG: StoreError = StoreError::Inconsistent { what: "a run is merged that is not there" };
    let mut run = manifest.run(table, into).cloned().ok_or(WRONG)?;
    let State::Merging { inputs, upto } = run.state.clone() else { return Err(WRONG) };
    let sources: Vec<&Run> = inputs.iter().filter_map(|&input| manifest.run(table, input)).collect();
    // Deleted rows and floors hide rows of older runs, and are of no use when there are none.
    let is_oldest = manifest.of(table).next().map(|run| run.number) == sources.first().map(|run| run.number);

    let mut writer = RunWriter::new(table, into);
    let mut merge = Merge::open(&tables.chunks, &tables.floors, table, sources.iter().rev().copied(), upto)?;
    // At least one row, so that every slice comes further.
    let last = loop {
        let Some(found) = merge.next(&tables.chunks, &tables.floors)? else { break None };
        let value = merge.value(&found);
        if value.is_some() || !is_oldest {
            writer.push(tables, found.key, value)?;
        }
        if merge.consumed.bytes >= budget {
            break Some(found.key);
        }
    };
    merge.settle(&tables.chunks)?;
    writer.finish(tables)?;
    for key in &merge.consumed.chunks {
        tables.chunks.remove(key)?;
    }

    // A floor may move once no row of its `a` is left behind, which it would hide.
    let from = upto.map_or(0, |upto| upto.a);
    let to = match last {
        None => Some(u64::MAX),
        Some(last) => last.a.checked_sub(1),
    };
    if let Some(to) = to.filter(|&to| to >= from && !is_oldest) {
        let mut floors: BTreeMap<u64, u64> = BTreeMap::new();
        for source in sources.iter().filter(|source| source.floors > 0) {
            floor::read(&tables.floors, table, source.number, (from, to), &mut |a, below| {
                let floor = floors.entry(a).or_default();
                *floor = below.max(*floor);
            })?;
        }
        run.floors += floors.len() as u64;
        floor::write(&mut tables.floors, table, into, &floors)?;
    }

    run.rows += writer.rows;
    run.bytes += writer.bytes;
    let bytes = merge.consumed.bytes;
    match last {
        Some(last) => run.state = State::Merging { inputs, upto: Some(last) },
        None => {
            run.state = State::Whole;
            for input in inputs {
                debug_assert!(
                    chunk_from(&tables.chunks, table, input, RowKey::default())?.is_none(),
                    "a chunk of a merged run is left"
                );
                tables.forget(table, input)?;
                manifest.remove(table, input);
            }
        }
    }
    let is_whole = run.state == State::Whole;
    if is_whole && run.rows == 0 && run.floors == 0 {
        tables.forget(table, into)?;
        manifest.remove(table, into);
    } else {
        tables.describe(table, &run)?;
        manifest.put(table, run);
    }
    Ok((bytes, is_whole))
}
