//! The net effect of one segment on rows, written as one run a table.

use std::collections::BTreeMap;

use super::RowKey;
use super::chunk::{Chunk, ChunkWriter, Place};
use super::filter::{FilterScan, Filters, KeyBits};
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

    /// Puts everything in the order in which it is written.
    pub(in crate::store) fn sort(mut self) -> RowFold {
        let tables = (0..=u8::MAX).zip(std::mem::take(&mut self.tables));
        let mut tables: Vec<(u8, TableChanges)> =
            tables.filter(|(_, changes)| !changes.rows.is_empty() || !changes.trims.is_empty()).collect();
        for (_, changes) in &mut tables {
            sort(&mut changes.rows);
            changes.trims.sort_unstable();
        }
        RowFold { changes: self, tables, manifest: None, table: 0, row: 0, trim: 0, writing: None, runs: vec![] }
    }
}

/// Rows being written, as many in one transaction as the index takes without writing any page twice.
///
/// Until the last transaction the runs are marked as dropped, so that they do not count, and after a power cut are
/// removed: the segment is then folded again.
pub(in crate::store) struct RowFold {
    changes: RowChanges,
    tables: Vec<(u8, TableChanges)>,
    /// The runs there were before.
    manifest: Option<Manifest>,
    /// The table being written, and its first row and trim that were not looked at.
    table: usize,
    row: usize,
    trim: usize,
    writing: Option<(Run, RunWriter)>,
    /// Runs written.
    runs: Vec<(u8, Run)>,
}

/// What the last transaction of a fold needs to know.
pub(in crate::store) struct FoldHabits<'a> {
    pub(in crate::store) retention: &'a [Retention],
    pub(in crate::store) filters: &'a Filters,
    pub(in crate::store) recent: &'a mut Recent,
}

/// Numbers of the index that a fold of rows moves on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) struct RowNumbers {
    pub(in crate::store) next_run: u64,
    /// The highest clock told.
    pub(in crate::store) clock: u64,
}

impl RowFold {
    /// Writes rows until about `slice_bytes` are written; true when all are, and only [`Self::finish`] is left.
    pub(in crate::store) fn step(
        &mut self,
        to: &mut RunTables<'_>,
        numbers: &mut RowNumbers,
        slice_bytes: u64,
    ) -> Result<bool, StoreError> {
        if self.tables.is_empty() {
            return Ok(true);
        }
        if self.manifest.is_none() {
            self.manifest = Some(Manifest::read(&to.runs)?);
        }
        let mut left = slice_bytes;
        while let Some((table, _)) = self.tables.get(self.table) {
            let table = *table;
            let (mut run, mut writer) = self.writing.take().unwrap_or_else(|| {
                let clock = (if numbers.clock == 0 { self.changes.clock } else { numbers.clock }, self.clock(*numbers));
                let run = Run::new(numbers.next_run, 0, numbers.next_run, clock, State::Dropped);
                numbers.next_run += 1;
                let writer = RunWriter::new(table, run.number);
                (run, writer)
            });
            let before = writer.bytes;
            let is_whole = self.write_rows(to, &mut writer, before + left)?;
            writer.finish(to)?;
            (run.rows, run.bytes) = (writer.rows, writer.bytes);
            left = left.saturating_sub(writer.bytes - before);
            if !is_whole {
                self.writing = Some((run.clone(), writer));
                for (table, run) in self.runs.iter().chain([&(table, run)]) {
                    to.describe(*table, run)?;
                }
                return Ok(false);
            }
            run.floors = self.write_floors(to, table, run.number)?;
            self.runs.push((table, run));
            self.table += 1;
            (self.row, self.trim) = (0, 0);
        }
        Ok(true)
    }

    fn clock(&self, numbers: RowNumbers) -> u64 {
        numbers.clock.max(self.changes.clock)
    }

    /// True when the table had no row before.
    fn is_first(&self, table: u8) -> bool {
        self.manifest.as_ref().is_some_and(|manifest| manifest.of(table).next().is_none())
    }

    /// Writes rows of the current table until the run has `until` bytes; true when all are written.
    fn write_rows(&mut self, to: &mut RunTables<'_>, writer: &mut RunWriter, until: u64) -> Result<bool, StoreError> {
        let Some((table, changes)) = self.tables.get(self.table) else { return Ok(true) };
        let is_first = self.is_first(*table);
        let mut rest = changes.rows.get(self.row..).unwrap_or_default().iter().peekable();
        let mut trims = changes.trims.get(self.trim..).unwrap_or_default();
        while let Some(change) = rest.next() {
            if rest.peek().is_some_and(|next| next.key == change.key) {
                continue;
            }
            while trims.first().is_some_and(|&(a, ..)| a < change.key.a) {
                trims = &trims[1..];
            }
            let mut over = trims.iter().take_while(|&&(a, ..)| a == change.key.a);
            let is_trimmed = over.any(|&(_, below, end)| end > change.end && below > change.key.b);
            let value = self.changes.value(change);
            // With no older run, nothing has to be hidden.
            if !is_trimmed && (value.is_some() || !is_first) {
                writer.push(to, change.key, value)?;
            }
            if writer.bytes >= until {
                (self.row, self.trim) = (changes.rows.len() - rest.len(), changes.trims.len() - trims.len());
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Writes the floors of the current table; returns how many there are.
    fn write_floors(&self, to: &mut RunTables<'_>, table: u8, run: u64) -> Result<u64, StoreError> {
        let trims = self.tables.get(self.table).map_or(&[][..], |(_, changes)| &changes.trims);
        if trims.is_empty() || self.is_first(table) {
            return Ok(0);
        }
        let mut floors: BTreeMap<u64, u64> = BTreeMap::new();
        for &(a, below, _) in trims {
            let floor = floors.entry(a).or_default();
            *floor = below.max(*floor);
        }
        floor::write(&mut to.floors, table, run, &floors)?;
        Ok(floors.len() as u64)
    }

    /// Makes the runs count; returns how many rows they have, and how many bytes.
    pub(in crate::store) fn finish(
        &mut self,
        to: &mut RunTables<'_>,
        numbers: &mut RowNumbers,
        habits: &mut FoldHabits<'_>,
    ) -> Result<(u64, u64), StoreError> {
        let clock = self.clock(*numbers);
        if self.tables.is_empty() && clock == numbers.clock {
            return Ok((0, 0));
        }
        numbers.clock = clock;
        let (mut rows, mut bytes) = (0, 0);
        let mut manifest = match self.manifest.take() {
            Some(manifest) => manifest,
            None => Manifest::read(&to.runs)?,
        };
        for (table, changes) in self.tables.iter().filter(|(table, _)| Table(*table).kind() == Kind::Paged) {
            changes.wipe(to, *table, &manifest, habits.filters, habits.recent)?;
        }
        for (table, run) in std::mem::take(&mut self.runs) {
            if run.rows == 0 && run.floors == 0 {
                to.forget(table, run.number)?;
                continue;
            }
            let run = Run { state: State::Whole, ..run };
            to.describe(table, &run)?;
            rows += run.rows;
            bytes += run.bytes;
            manifest.put(table, run);
        }
        for retention in habits.retention {
            drop_old(to, &manifest, *retention, numbers.clock)?;
        }
        Ok((rows, bytes))
    }
}

impl TableChanges {
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
        let mut filters: Vec<FilterScan<'_>> =
            runs.iter().map(|run| FilterScan::new(filters.run(table, run.number))).collect();
        // For each run the last `a` of which it turned out to hold nothing from some `b` on.
        let mut past: Vec<Option<u64>> = vec![None; runs.len()];
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
                is_last_new = true;
                let bits = KeyBits::of(change.key);
                for ((run, filter), past) in runs.iter().zip(&mut filters).zip(&mut past) {
                    if *past == Some(a) || !filter.may_hold(change.key, &bits) {
                        continue;
                    }
                    match wipe_row(to, table, run, change.key)? {
                        Wiped::Yes => is_last_new = false,
                        Wiped::No => {}
                        Wiped::NothingFrom => *past = Some(a),
                    }
                }
            }
            // The `b`s of one `a` are dense where rows are wiped: if the highest here was not there, nothing higher is.
            if highest.is_some() || is_last_new && last.len != DELETED {
                recent.note(table, a, last.key.b);
            }
        }
        Ok(())
    }
}

/// Sorts by key; of facts about one row the last stays last.
///
/// Rows of one `a` mostly come in order already, so they are sorted by `a` a digit at a time, and then each `a` for
/// itself. A sort by comparison was an eighth of a fold.
fn sort(rows: &mut Vec<Change>) {
    const BITS: u32 = 11;
    const DIGITS: usize = 1 << BITS;
    let Some(first) = rows.first().map(|row| row.key.a) else { return };
    let differing = rows.iter().fold(0, |bits, row| bits | (row.key.a ^ first));
    let mut from = std::mem::take(rows);
    let mut to = from.clone();
    for shift in (0..u64::BITS).step_by(BITS as usize) {
        // The remainder is below `DIGITS`.
        let digit = |row: &Change| usize::try_from((row.key.a >> shift) % DIGITS as u64).unwrap_or(0);
        if (differing >> shift).is_multiple_of(DIGITS as u64) {
            continue;
        }
        let mut places = [0usize; DIGITS];
        for row in &from {
            places[digit(row)] += 1;
        }
        let mut sum = 0;
        for place in &mut places {
            sum += std::mem::replace(place, sum);
        }
        for row in &from {
            let place = &mut places[digit(row)];
            to[*place] = *row;
            *place += 1;
        }
        std::mem::swap(&mut from, &mut to);
    }
    for rows in from.chunk_by_mut(|x, y| x.key.a == y.key.a) {
        if !rows.is_sorted_by_key(|row| row.key.b) {
            rows.sort_by_key(|row| row.key.b);
        }
    }
    *rows = from;
}

/// What [`wipe_row`] found.
enum Wiped {
    /// The row, which is gone now.
    Yes,
    /// Not that row.
    No,
    /// No row of that `a` with this `b` or a higher one.
    NothingFrom,
}

/// Writes the chunk again that holds `key`, without it.
fn wipe_row(to: &mut RunTables<'_>, table: u8, run: &Run, key: RowKey) -> Result<Wiped, StoreError> {
    let number = run.number;
    let Some((first, bytes)) = chunk_of(&to.chunks, table, number, key)? else { return Ok(Wiped::No) };
    let chunk = Chunk::read(bytes.value())?;
    match chunk.next(&mut chunk.seek(key)?)? {
        Some(entry) if entry.key == key => {}
        Some(entry) if entry.key.a == key.a => return Ok(Wiped::No),
        Some(_) => return Ok(Wiped::NothingFrom),
        // The next chunk may begin with a row of this `a`.
        None => return Ok(Wiped::No),
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
    Ok(Wiped::Yes)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_sorted_by_key_and_those_of_one_key_stay_in_their_order() {
        let mut seed = 1u64;
        let mut draw = || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            seed ^ seed >> 29
        };
        for (count, shift, salt) in [(0, 0, 0), (1, 0, 7), (3000, 54, 1 << 40), (3000, 0, 0), (3000, 61, u64::MAX)] {
            let mut rows: Vec<Change> = (0..count)
                .map(|end| Change { key: RowKey { a: draw() >> shift ^ salt, b: draw() >> 60 }, end, len: 0 })
                .collect();
            let mut expected: Vec<(RowKey, u32)> = rows.iter().map(|row| (row.key, row.end)).collect();
            expected.sort_unstable();
            sort(&mut rows);
            assert_eq!(rows.iter().map(|row| (row.key, row.end)).collect::<Vec<_>>(), expected);
        }
    }
}
