//! The net effect of one segment on rows, written as one run a table.

use std::collections::BTreeMap;

use super::RowKey;
use super::chunk::{Chunk, ChunkWriter, Place};
use super::filter::Filters;
use super::floor;
use super::recent::Recent;
use super::run::{Manifest, Run, RunTables, RunWriter, State, chunk_of};
use crate::store::StoreError;
use parlor_core::store::{Fact, Kind, Retention, Table};

/// The `len` of a row that was deleted.
const DELETED: u32 = u32::MAX;

/// One fact about a row: 24 bytes, so that keys are sorted and values stay where they are.
#[derive(Debug, Clone, Copy)]
struct Change {
    key: RowKey,
    /// Where its value ends among the values. Rises from fact to fact.
    end: u32,
    len: u32,
}

/// What a segment's facts say of one table, in their order.
#[derive(Debug, Default)]
struct TableChanges {
    rows: Vec<Change>,
    /// `a`, the lowest `b` that stays, and where the values ended.
    trims: Vec<(u64, u64, u32)>,
}

/// What a segment's facts say of rows.
#[derive(Debug, Default)]
pub(in crate::store) struct RowChanges {
    /// By number.
    tables: Vec<TableChanges>,
    values: Vec<u8>,
    /// The highest clock told, or 0.
    clock: u64,
}

/// What a fold of rows needs to know besides the segment.
pub(in crate::store) struct FoldHabits<'a> {
    pub(in crate::store) retention: &'a [Retention],
    pub(in crate::store) filters: &'a Filters,
    pub(in crate::store) recent: &'a mut Recent,
}

impl RowChanges {
    /// Takes account of `fact`, if it is about rows.
    pub(in crate::store) fn add(&mut self, fact: &Fact<'_>) {
        match *fact {
            Fact::Put { table, a, b, value } => {
                self.values.extend_from_slice(value);
                // No value that fits a segment has this length.
                let len = u32::try_from(value.len()).unwrap_or(DELETED);
                self.push(table, RowKey { a, b }, len);
            }
            Fact::Del { table, a, b } => self.push(table, RowKey { a, b }, DELETED),
            Fact::Trim { table, a, below } => {
                let end = self.mark();
                self.table(table).trims.push((a, below, end));
            }
            Fact::Clock { wall_ms } => self.clock = self.clock.max(wall_ms),
            _ => {}
        }
    }

    fn push(&mut self, table: Table, key: RowKey, len: u32) {
        let end = if len == 0 || len == DELETED { self.mark() } else { self.end() };
        self.table(table).rows.push(Change { key, end, len });
    }

    /// Where the values end now: at most at the end of a segment, so it fits.
    fn end(&self) -> u32 {
        u32::try_from(self.values.len()).unwrap_or(u32::MAX)
    }

    /// The same, after a byte that tells this fact from the one before.
    fn mark(&mut self) -> u32 {
        self.values.push(0);
        self.end()
    }

    fn table(&mut self, table: Table) -> &mut TableChanges {
        let at = usize::from(table.0);
        if self.tables.len() <= at {
            self.tables.resize_with(at + 1, TableChanges::default);
        }
        &mut self.tables[at]
    }

    fn value(&self, change: &Change) -> Option<&[u8]> {
        if change.len == DELETED {
            return None;
        }
        // `mark` put a byte after an empty value.
        let (end, len) = (change.end as usize, change.len as usize);
        if len == 0 { Some(&[]) } else { self.values.get(end.checked_sub(len)?..end) }
    }

    /// Writes the net effect; runs get numbers from `next_run` on. `clock` is the highest clock told so far. Returns
    /// the count of rows written.
    pub(in crate::store) fn write(
        &mut self,
        to: &mut RunTables<'_>,
        next_run: &mut u64,
        clock: &mut u64,
        habits: &mut FoldHabits<'_>,
    ) -> Result<u64, StoreError> {
        let before = *clock;
        *clock = before.max(self.clock);
        if self.tables.is_empty() && before == *clock {
            return Ok(0);
        }
        let mut manifest = Manifest::read(&to.runs)?;
        let mut written = 0;
        for (table, mut changes) in (0..=u8::MAX).zip(std::mem::take(&mut self.tables)) {
            if changes.rows.is_empty() && changes.trims.is_empty() {
                continue;
            }
            changes.sort();
            if Table(table).kind() == Kind::Paged {
                changes.wipe(to, table, &manifest, habits.filters, habits.recent)?;
            }
            let clock = (if before == 0 { *clock } else { before }, *clock);
            let mut run = Run::new(*next_run, 0, *next_run, clock, State::Whole);
            self.write_table(to, table, &changes, &mut run, manifest.of(table).next().is_none())?;
            if run.rows > 0 || run.floors > 0 {
                to.describe(table, &run)?;
                written += run.rows;
                manifest.put(table, run);
                *next_run += 1;
            }
        }
        for retention in habits.retention {
            drop_old(to, &manifest, *retention, *clock)?;
        }
        Ok(written)
    }

    fn write_table(
        &self,
        to: &mut RunTables<'_>,
        table: u8,
        changes: &TableChanges,
        run: &mut Run,
        is_first: bool,
    ) -> Result<(), StoreError> {
        let mut writer = RunWriter::new(table, run.number);
        let mut trims = changes.trims.as_slice();
        for (at, change) in changes.rows.iter().enumerate() {
            if changes.rows.get(at + 1).is_some_and(|next| next.key == change.key) {
                continue;
            }
            while trims.first().is_some_and(|&(a, ..)| a < change.key.a) {
                trims = &trims[1..];
            }
            let mut over = trims.iter().take_while(|&&(a, ..)| a == change.key.a);
            let is_trimmed = over.any(|&(_, below, end)| end > change.end && below > change.key.b);
            let value = self.value(change);
            // With no older run, nothing has to be hidden.
            if !is_trimmed && (value.is_some() || !is_first) {
                writer.push(to, change.key, value)?;
            }
        }
        writer.finish(to)?;
        (run.rows, run.bytes) = (writer.rows, writer.bytes);
        if !is_first && !changes.trims.is_empty() {
            let mut floors: BTreeMap<u64, u64> = BTreeMap::new();
            for &(a, below, _) in &changes.trims {
                let floor = floors.entry(a).or_default();
                *floor = below.max(*floor);
            }
            run.floors = floors.len() as u64;
            floor::write(&mut to.floors, table, run.number, &floors)?;
        }
        Ok(())
    }
}

impl TableChanges {
    fn sort(&mut self) {
        self.rows.sort_unstable_by_key(|change| (change.key, change.end));
        self.trims.sort_unstable();
    }

    /// Removes from older runs the rows that are written again: a message that was recalled must not stay readable on
    /// the disk until a merge comes by.
    ///
    /// Such rows are rare among those that are written for the first time, and most of these are known by a `b` higher
    /// than any before. Where that is not known, the runs are asked.
    fn wipe(
        &self,
        to: &mut RunTables<'_>,
        table: u8,
        manifest: &Manifest,
        filters: &Filters,
        recent: &mut Recent,
    ) -> Result<(), StoreError> {
        let runs: Vec<&Run> = manifest.of(table).filter(|run| run.rows > 0).collect();
        if runs.is_empty() {
            // Nothing was written before, so whatever is written now is the highest.
            for changes in self.rows.chunk_by(|x, y| x.key.a == y.key.a) {
                if let Some(last) = changes.last() {
                    recent.note(table, last.key.a, last.key.b);
                }
            }
            return Ok(());
        }
        for changes in self.rows.chunk_by(|x, y| x.key.a == y.key.a) {
            let (Some(first), Some(last)) = (changes.first(), changes.last()) else { continue };
            let a = last.key.a;
            let highest = recent.highest(table, a);
            if highest.is_some_and(|highest| first.key.b > highest) {
                recent.note(table, a, last.key.b);
                continue;
            }
            let mut is_last_new = true;
            for (at, change) in changes.iter().enumerate() {
                let is_replaced = changes.get(at + 1).is_some_and(|next| next.key == change.key);
                let is_new = highest.is_some_and(|highest| change.key.b > highest);
                if is_replaced || is_new || change.len == DELETED {
                    continue;
                }
                let mut was_there = false;
                for run in &runs {
                    if filters.may_hold(table, run.number, change.key) {
                        was_there |= wipe_row(to, table, run, change.key)?;
                    }
                }
                is_last_new = !was_there;
            }
            // The `b`s of one `a` are dense where rows are wiped: what is above them all was not there, and nothing
            // above it.
            if highest.is_some() || is_last_new && last.len != DELETED {
                recent.note(table, a, last.key.b);
            }
        }
        Ok(())
    }
}

/// Writes the chunk again that holds `key`, without it; false when none does.
fn wipe_row(to: &mut RunTables<'_>, table: u8, run: &Run, key: RowKey) -> Result<bool, StoreError> {
    let number = run.number;
    let Some((first, bytes)) = chunk_of(&to.chunks, table, number, key)? else { return Ok(false) };
    let chunk = Chunk::read(bytes.value())?;
    if chunk.next(&mut chunk.seek(key)?)?.is_none_or(|entry| entry.key != key) {
        return Ok(false);
    }
    let (mut place, mut rest) = (Place::default(), ChunkWriter::default());
    while let Some(entry) = chunk.next(&mut place)? {
        if entry.key != key {
            rest.push(entry.key, entry.value.as_ref().map(|value| chunk.value(value)));
        }
    }
    drop(bytes);
    let at = (table, number, first.a, first.b);
    match rest.finish() {
        Some((_, bytes)) => drop(to.chunks.insert(at, bytes)?),
        None => drop(to.chunks.remove(at)?),
    }
    Ok(true)
}

/// Gives up the oldest runs whose newest row is too old.
fn drop_old(to: &mut RunTables<'_>, manifest: &Manifest, retention: Retention, clock: u64) -> Result<(), StoreError> {
    let table = retention.table.0;
    for run in manifest.of(table) {
        let is_old = clock.saturating_sub(run.clock.1) > retention.keep_ms;
        if !is_old || run.is_input || run.state != State::Whole {
            break;
        }
        to.describe(table, &Run { state: State::Dropped, ..run.clone() })?;
    }
    Ok(())
}
