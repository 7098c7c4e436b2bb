//! Runs: what one fold, or the merge of several, wrote of one table, sorted and never changed; and the list of them.

use std::collections::BTreeMap;
use std::ops::Bound;

use parlor_core::store::bytes::{DecodeError, Reader, put_int};
use parlor_core::store::{Kind, Table};
use redb::{AccessGuard, ReadableTable, WriteTransaction};

use super::RowKey;
use super::chunk::ChunkWriter;
use super::filter::FilterWriter;
use crate::store::StoreError;
use crate::store::schema::{ROW_CHUNKS, ROW_FILTERS, ROW_FLOORS, ROW_RUNS};

/// One run. Of two rows with one key, that of the newer run counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) number: u64,
    /// Folds write runs of level 0; a merge of runs of one level makes one of the next.
    pub(super) level: u8,
    /// Number of the newest fold in it. A merge is newer than what it is made of, and has the same age.
    pub(super) age: u64,
    /// The clock before its oldest row, and the clock before its newest.
    pub(super) clock: (u64, u64),
    /// Rows written, deleted ones included.
    pub(super) rows: u64,
    /// Bytes of its chunks.
    pub(super) bytes: u64,
    /// How many floors it has.
    pub(super) floors: u64,
    pub(super) state: State,
    /// Of a run that is being merged into another: the rows up to this key are there already, and count there.
    pub(super) moved: Option<RowKey>,
    /// It is being merged into another.
    pub(super) is_input: bool,
}

/// What is done with a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum State {
    /// It is there, or being merged into another.
    Whole,
    /// It is being made of these; what they hold up to `upto` is here already, and no longer there.
    Merging {
        /// Their numbers.
        inputs: Vec<u64>,
        /// The last key looked at.
        upto: Option<RowKey>,
    },
    /// It counts no more; its chunks have to be removed.
    Dropped,
}

impl Run {
    /// A run without rows.
    pub(super) fn new(number: u64, level: u8, age: u64, clock: (u64, u64), state: State) -> Self {
        Self { number, level, age, clock, rows: 0, bytes: 0, floors: 0, state, moved: None, is_input: false }
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.push(self.level);
        for number in [self.age, self.clock.0, self.clock.1, self.rows, self.bytes, self.floors] {
            put_int(out, number);
        }
        match &self.state {
            State::Whole => out.push(0),
            State::Dropped => out.push(1),
            State::Merging { inputs, upto } => {
                out.push(if upto.is_some() { 3 } else { 2 });
                put_int(out, inputs.len() as u64);
                for &input in inputs {
                    put_int(out, input);
                }
                if let Some(key) = upto {
                    put_int(out, key.a);
                    put_int(out, key.b);
                }
            }
        }
    }

    fn decode(number: u64, bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new(bytes);
        let level = r.byte()?;
        let (age, first, last) = (r.int()?, r.int()?, r.int()?);
        let (rows, bytes, floors) = (r.int()?, r.int()?, r.int()?);
        let state = match r.byte()? {
            0 => State::Whole,
            1 => State::Dropped,
            tag @ (2 | 3) => {
                let mut inputs = vec![];
                for _ in 0..r.int()? {
                    inputs.push(r.int()?);
                }
                let upto = if tag == 3 { Some(RowKey { a: r.int()?, b: r.int()? }) } else { None };
                State::Merging { inputs, upto }
            }
            tag => return Err(DecodeError::UnknownTag(tag)),
        };
        Ok(Self { rows, bytes, floors, ..Self::new(number, level, age, (first, last), state) })
    }

    /// True when its rows count.
    pub(super) fn counts(&self) -> bool {
        self.state != State::Dropped
    }
}

/// All runs of all tables.
#[derive(Debug, Default)]
pub(super) struct Manifest {
    /// Of each table, oldest first.
    pub(super) tables: BTreeMap<u8, Vec<Run>>,
}

impl Manifest {
    pub(super) fn read(rows: &impl ReadableTable<(u8, u64), &'static [u8]>) -> Result<Self, StoreError> {
        let mut tables: BTreeMap<u8, Vec<Run>> = BTreeMap::new();
        for row in rows.iter()? {
            let (key, value) = row?;
            let (table, number) = key.value();
            tables.entry(table).or_default().push(Run::decode(number, value.value())?);
        }
        let mut manifest = Self { tables };
        for runs in manifest.tables.values_mut() {
            order(runs);
        }
        Ok(manifest)
    }

    /// The runs of a table whose rows count, oldest first.
    pub(super) fn of(&self, table: u8) -> impl DoubleEndedIterator<Item = &Run> {
        self.tables.get(&table).into_iter().flatten().filter(|run| run.counts())
    }

    /// A run by its number.
    pub(super) fn run(&self, table: u8, number: u64) -> Option<&Run> {
        self.tables.get(&table)?.iter().find(|run| run.number == number)
    }

    /// Adds a run, or puts it in the place of the one with its number.
    pub(super) fn put(&mut self, table: u8, run: Run) {
        let runs = self.tables.entry(table).or_default();
        runs.retain(|other| other.number != run.number);
        runs.push(run);
        order(runs);
    }

    /// Takes a run away.
    pub(super) fn remove(&mut self, table: u8, number: u64) {
        if let Some(runs) = self.tables.get_mut(&table) {
            runs.retain(|run| run.number != number);
            order(runs);
        }
    }
}

/// Sorts runs by age, and marks those that are being merged.
fn order(runs: &mut [Run]) {
    runs.sort_unstable_by_key(|run| (run.age, run.number));
    let merging: Vec<(Vec<u64>, Option<RowKey>)> = runs
        .iter()
        .filter_map(|run| match &run.state {
            State::Merging { inputs, upto } => Some((inputs.clone(), *upto)),
            _ => None,
        })
        .collect();
    for run in runs {
        let into = merging.iter().find(|(inputs, _)| inputs.contains(&run.number));
        run.is_input = into.is_some();
        run.moved = into.and_then(|(_, upto)| *upto);
    }
}

/// A chunk of a run: the first key it may hold, and its bytes.
pub(super) type FoundChunk<'a> = (RowKey, AccessGuard<'a, &'static [u8]>);

/// The chunk of a run that holds `key`, if any does; otherwise the last that ends before it.
pub(super) fn chunk_of(
    chunks: &impl ReadableTable<(u8, u64, u64, u64), &'static [u8]>,
    table: u8,
    run: u64,
    key: RowKey,
) -> Result<Option<FoundChunk<'_>>, StoreError> {
    let mut cursor = chunks.upper_bound(Bound::Included((table, run, key.a, key.b)))?;
    Ok(of_run(cursor.prev()?, table, run))
}

/// The last chunk of a run that begins before `key`.
pub(super) fn chunk_before(
    chunks: &impl ReadableTable<(u8, u64, u64, u64), &'static [u8]>,
    table: u8,
    run: u64,
    key: RowKey,
) -> Result<Option<FoundChunk<'_>>, StoreError> {
    let mut cursor = chunks.upper_bound(Bound::Excluded((table, run, key.a, key.b)))?;
    Ok(of_run(cursor.prev()?, table, run))
}

/// The first chunk of a run that begins at `key` or behind it.
pub(super) fn chunk_from(
    chunks: &impl ReadableTable<(u8, u64, u64, u64), &'static [u8]>,
    table: u8,
    run: u64,
    key: RowKey,
) -> Result<Option<FoundChunk<'_>>, StoreError> {
    let mut cursor = chunks.lower_bound(Bound::Included((table, run, key.a, key.b)))?;
    Ok(of_run(cursor.next()?, table, run))
}

fn of_run<'a>(
    found: Option<(AccessGuard<'a, (u8, u64, u64, u64)>, AccessGuard<'a, &'static [u8]>)>,
    table: u8,
    run: u64,
) -> Option<FoundChunk<'a>> {
    let (key, bytes) = found?;
    let (other_table, other_run, a, b) = key.value();
    (other_table == table && other_run == run).then_some((RowKey { a, b }, bytes))
}

/// The tables of the index that hold rows, open for writing.
pub(in crate::store) struct RunTables<'t> {
    pub(super) runs: redb::Table<'t, (u8, u64), &'static [u8]>,
    pub(super) chunks: redb::Table<'t, (u8, u64, u64, u64), &'static [u8]>,
    pub(super) floors: redb::Table<'t, (u8, u64, u64), &'static [u8]>,
    pub(super) filters: redb::Table<'t, (u8, u64, u64, u64), &'static [u8]>,
}

impl<'t> RunTables<'t> {
    pub(in crate::store) fn open(txn: &'t WriteTransaction) -> Result<Self, StoreError> {
        Ok(Self {
            runs: txn.open_table(ROW_RUNS)?,
            chunks: txn.open_table(ROW_CHUNKS)?,
            floors: txn.open_table(ROW_FLOORS)?,
            filters: txn.open_table(ROW_FILTERS)?,
        })
    }

    /// Writes what is known of a run.
    pub(super) fn describe(&mut self, table: u8, run: &Run) -> Result<(), StoreError> {
        let mut bytes = vec![];
        run.encode(&mut bytes);
        self.runs.insert((table, run.number), bytes.as_slice())?;
        Ok(())
    }

    /// Removes what belongs to a run, its chunks excepted.
    pub(super) fn forget(&mut self, table: u8, run: u64) -> Result<(), StoreError> {
        self.floors.retain_in((table, run, 0)..=(table, run, u64::MAX), |_, _| false)?;
        self.filters.retain_in((table, run, 0, 0)..=(table, run, u64::MAX, u64::MAX), |_, _| false)?;
        self.runs.remove((table, run))?;
        Ok(())
    }
}

/// Writes rows, in ascending order, into a run.
pub(super) struct RunWriter {
    table: u8,
    run: u64,
    chunk: ChunkWriter,
    filter: Option<FilterWriter>,
    pub(super) rows: u64,
    pub(super) bytes: u64,
}

impl RunWriter {
    pub(super) fn new(table: u8, run: u64) -> Self {
        // Resident rows are never asked for.
        let filter = (Table(table).kind() != Kind::Resident).then(FilterWriter::default);
        Self { table, run, chunk: ChunkWriter::default(), filter, rows: 0, bytes: 0 }
    }

    /// Adds a row; `None` is a deleted one.
    pub(super) fn push(&mut self, to: &mut RunTables<'_>, key: RowKey, value: Option<&[u8]>) -> Result<(), StoreError> {
        if self.chunk.is_full_for(value.map_or(0, <[u8]>::len)) {
            self.close_chunk(to)?;
        }
        self.chunk.push(key, value);
        self.rows += 1;
        if let Some(filter) = &mut self.filter {
            filter.push(key);
            if filter.is_full() {
                self.close_filter(to)?;
            }
        }
        Ok(())
    }

    /// Writes what was not written yet.
    pub(super) fn finish(&mut self, to: &mut RunTables<'_>) -> Result<(), StoreError> {
        self.close_chunk(to)?;
        self.close_filter(to)
    }

    fn close_chunk(&mut self, to: &mut RunTables<'_>) -> Result<(), StoreError> {
        if let Some((first, bytes)) = self.chunk.finish() {
            self.bytes += bytes.len() as u64;
            to.chunks.insert((self.table, self.run, first.a, first.b), bytes)?;
        }
        self.chunk.clear();
        Ok(())
    }

    fn close_filter(&mut self, to: &mut RunTables<'_>) -> Result<(), StoreError> {
        if let Some((first, block)) = self.filter.as_mut().and_then(FilterWriter::finish) {
            to.filters.insert((self.table, self.run, first.a, first.b), block.as_slice())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn what_is_known_of_a_run_reads_back_and_every_cut_is_seen() {
        let key = RowKey { a: u64::MAX, b: 3 };
        let states = [
            State::Whole,
            State::Dropped,
            State::Merging { inputs: vec![7, 1 << 40], upto: None },
            State::Merging { inputs: vec![], upto: Some(key) },
        ];
        for state in states {
            let run = Run { rows: 5, bytes: 6, floors: 1 << 50, ..Run::new(9, 2, 8, (1, u64::MAX), state) };
            let mut bytes = vec![];
            run.encode(&mut bytes);
            assert_eq!(Run::decode(9, &bytes).unwrap(), run);
            for cut in 0..bytes.len() {
                assert!(Run::decode(9, &bytes[..cut]).is_err(), "cut at {cut}");
            }
        }
    }

    #[test]
    fn a_merge_is_newer_than_what_it_is_made_of_and_older_than_the_next_fold() {
        let mut manifest = Manifest::default();
        let whole = |number, age| Run::new(number, 0, age, (0, 0), State::Whole);
        for number in [1, 2, 4] {
            manifest.put(128, whole(number, number));
        }
        let upto = Some(RowKey { a: 5, b: 6 });
        manifest.put(128, Run::new(3, 1, 2, (0, 0), State::Merging { inputs: vec![1, 2], upto }));
        let numbers: Vec<u64> = manifest.of(128).map(|run| run.number).collect();
        assert_eq!(numbers, [1, 2, 3, 4]);
        let moved: Vec<Option<RowKey>> = manifest.of(128).map(|run| run.moved).collect();
        assert_eq!(moved, [upto, upto, None, None]);
        manifest.put(128, whole(3, 2));
        assert!(manifest.of(128).all(|run| run.moved.is_none() && !run.is_input));
    }
}
