//! Answers: rows of the journal's tail and of the runs, the newest of each key, as the question orders them.

use std::ops::Range;

use super::chunk::{Chunk, Entry, Place};
use super::filter::{KeyBits, RunFilter};
use super::run::{FoundChunk, Run, chunk_before, chunk_from, chunk_of};
use super::tail::{RowTail, TailRow, TailRows};
use super::{RowKey, View, floor};
use crate::store::StoreError;
use crate::store::journal::Journal;
use crate::store::window::{FAR_BYTES, NEAR_BYTES, NEAR_GAP, Window};
use parlor_core::store::bytes::{DecodeError, Reader};
use parlor_core::store::{Answer, Direction, Kind, Query, RowRef, What};

/// Keys that share a filter's bits are this many; a longer range is not worth asking filters about.
const FILTER_STEP: u64 = 32;
const FILTER_STEPS: u64 = 8;

/// Answers `query`. Resident tables are never asked for, and have no rows here.
pub(in crate::store) fn answer(
    view: &View,
    tail: &RowTail,
    journal: &Journal,
    query: &Query,
) -> Result<Answer, StoreError> {
    let answer = Answer { token: query.token, bytes: vec![], rows: 0, is_partial: false };
    let table = query.table.0;
    if query.table.kind() == Kind::Resident {
        return Ok(answer);
    }
    let values = TailValues { journal, window: Window::default(), last: 0 };
    match &query.what {
        What::Range { a, from, until, direction, max_rows, max_bytes } => {
            let Some(high) = until.checked_sub(1).filter(|high| high >= from) else { return Ok(answer) };
            let mut filling = Filling { answer, bytes: 0, max_rows: *max_rows, max_bytes: *max_bytes as usize };
            let wanted = Wanted { table, a: *a, low: *from, high, direction: *direction };
            range(view, tail, values, wanted, &mut filling)?;
            Ok(filling.answer)
        }
        What::Rows(keys) => {
            let mut keys: Vec<RowKey> = keys.iter().map(|&(a, b)| RowKey { a, b }).collect();
            keys.sort_unstable();
            keys.dedup();
            rows(view, tail, values, table, &keys, answer)
        }
    }
}

/// A range of rows of one `a`; both ends are in it.
#[derive(Debug, Clone, Copy)]
struct Wanted {
    table: u8,
    a: u64,
    low: u64,
    high: u64,
    direction: Direction,
}

impl Wanted {
    /// True when a row at `x` is given before one at `y`.
    fn is_before(self, x: u64, y: u64) -> bool {
        match self.direction {
            Direction::Up => x < y,
            Direction::Down => x > y,
        }
    }
}

/// The answer being made.
struct Filling {
    answer: Answer,
    bytes: usize,
    max_rows: u32,
    max_bytes: usize,
}

impl Filling {
    /// True when no more rows go in; there is at least one more.
    fn is_full(&mut self) -> bool {
        let is_full = self.answer.rows >= self.max_rows || self.bytes >= self.max_bytes;
        self.answer.is_partial |= is_full;
        is_full
    }

    fn push(&mut self, row: RowRef<'_>) {
        self.bytes += row.value.len();
        push(&mut self.answer, row);
    }
}

fn push(answer: &mut Answer, row: RowRef<'_>) {
    answer.rows += 1;
    row.encode(&mut answer.bytes);
}

/// Reads values out of the journal's files.
struct TailValues<'j> {
    journal: &'j Journal,
    window: Window,
    /// Offset of the fact read last.
    last: u32,
}

impl TailValues<'_> {
    fn read(&mut self, row: &TailRow) -> Result<&[u8], StoreError> {
        let Some(segment) = self.journal.segment(row.generation) else {
            return Err(StoreError::Inconsistent { what: "a row refers to a journal segment that is gone" });
        };
        let is_near = row.fact.abs_diff(self.last) < NEAR_GAP;
        self.last = row.fact;
        self.window
            .bring(segment, row.fact, if is_near { NEAR_BYTES } else { FAR_BYTES }, |r| read_value(r).map(drop))?;
        Ok(read_value(&mut self.window.reader(row.generation, row.fact)?)?)
    }
}

/// Reads a `Put` without looking at its tag, which was looked at when the row was noted.
fn read_value<'a>(r: &mut Reader<'a>) -> Result<&'a [u8], DecodeError> {
    let (_tag, _table) = (r.byte()?, r.byte()?);
    let (_a, _b) = (r.int()?, r.int()?);
    r.bytes()
}

/// What the range needs of one run, in the order wanted.
struct RunRows<'v> {
    view: &'v View,
    run: u64,
    wanted: Wanted,
    chunk: Option<FoundChunk<'v>>,
    /// Upwards: the place in the chunk.
    place: Place,
    /// Downwards: the group, and those of its rows that were not given yet, ascending.
    group: usize,
    entries: Vec<Entry>,
    head: Option<Entry>,
}

impl<'v> RunRows<'v> {
    fn open(view: &'v View, run: u64, wanted: Wanted) -> Result<Self, StoreError> {
        let mut rows =
            Self { view, run, wanted, chunk: None, place: Place::default(), group: 0, entries: vec![], head: None };
        let Wanted { table, a, low, high, direction } = wanted;
        match direction {
            Direction::Up => {
                let from = RowKey { a, b: low };
                rows.chunk = chunk_of(&view.chunks, table, run, from)?;
                match &rows.chunk {
                    Some((_, bytes)) => rows.place = Chunk::read(bytes.value())?.seek(from)?,
                    None => rows.chunk = chunk_from(&view.chunks, table, run, from)?,
                }
            }
            Direction::Down => {
                let to = RowKey { a, b: high };
                rows.chunk = chunk_of(&view.chunks, table, run, to)?;
                if let Some((_, bytes)) = &rows.chunk {
                    let chunk = Chunk::read(bytes.value())?;
                    rows.group = chunk.group_of(to);
                    chunk.read_group(rows.group, &mut rows.entries)?;
                    rows.entries.retain(|entry| entry.key <= to);
                }
            }
        }
        rows.advance()?;
        Ok(rows)
    }

    /// Brings the next row to the head.
    fn advance(&mut self) -> Result<(), StoreError> {
        let Wanted { a, low, high, .. } = self.wanted;
        self.head = match self.wanted.direction {
            Direction::Up => self.next_up()?.filter(|entry| entry.key <= RowKey { a, b: high }),
            Direction::Down => self.next_down()?.filter(|entry| entry.key >= RowKey { a, b: low }),
        };
        Ok(())
    }

    fn next_up(&mut self) -> Result<Option<Entry>, StoreError> {
        let Wanted { table, .. } = self.wanted;
        while let Some((first, bytes)) = &self.chunk {
            if let Some(entry) = Chunk::read(bytes.value())?.next(&mut self.place)? {
                return Ok(Some(entry));
            }
            self.chunk = match first.next() {
                Some(next) => chunk_from(&self.view.chunks, table, self.run, next)?,
                None => None,
            };
            self.place = Place::default();
        }
        Ok(None)
    }

    fn next_down(&mut self) -> Result<Option<Entry>, StoreError> {
        let Wanted { table, .. } = self.wanted;
        loop {
            if let Some(entry) = self.entries.pop() {
                return Ok(Some(entry));
            }
            let Some((first, bytes)) = &self.chunk else { return Ok(None) };
            if let Some(group) = self.group.checked_sub(1) {
                self.group = group;
                Chunk::read(bytes.value())?.read_group(group, &mut self.entries)?;
                continue;
            }
            self.chunk = chunk_before(&self.view.chunks, table, self.run, *first)?;
            if let Some((_, bytes)) = &self.chunk {
                // The last group is read in the next round.
                self.group = Chunk::read(bytes.value())?.groups();
            }
        }
    }

    fn value(&self, value: &Range<usize>) -> &[u8] {
        self.chunk.as_ref().and_then(|(_, bytes)| bytes.value().get(value.clone())).unwrap_or_default()
    }
}

/// The lowest `b` that counts in a run of which the rows up to `moved` are in another; `None`: no row of this `a` does.
fn lowest(run: &Run, a: u64, low: u64) -> Option<u64> {
    match run.moved {
        Some(moved) if moved.a > a => None,
        Some(moved) if moved.a == a => moved.b.checked_add(1).map(|next| next.max(low)),
        _ => Some(low),
    }
}

impl View {
    /// False: the run has no row in the range.
    fn may_hold(&self, run: &Run, wanted: Wanted) -> bool {
        let Wanted { table, a, low, high, .. } = wanted;
        let (first, last) = (low / FILTER_STEP, high / FILTER_STEP);
        let Some(filter) = self.filters.run(table, run.number).filter(|_| last - first < FILTER_STEPS) else {
            return true;
        };
        // Asked with the highest key of each step: whichever block of the filter holds one of its rows holds that too.
        (first..=last).any(|step| {
            let key = RowKey { a, b: (step * FILTER_STEP + (FILTER_STEP - 1)).min(high) };
            filter.may_hold(key, &KeyBits::of(key))
        })
    }
}

fn range(
    view: &View,
    tail: &RowTail,
    mut values: TailValues<'_>,
    wanted: Wanted,
    filling: &mut Filling,
) -> Result<(), StoreError> {
    let Wanted { table, a, low, high, direction } = wanted;
    let TailRows { rows: mut in_tail, mut floor } = tail.find(table, a, low, high);
    if direction == Direction::Up {
        // The next is taken from the end.
        in_tail.reverse();
    }
    let mut runs = vec![];
    for run in view.manifest.of(table).rev() {
        if floor > high {
            break;
        }
        if let Some(low) = lowest(run, a, low.max(floor)).filter(|&low| low <= high) {
            let wanted = Wanted { low, ..wanted };
            if view.may_hold(run, wanted) {
                let rows = RunRows::open(view, run.number, wanted)?;
                if rows.head.is_some() {
                    runs.push(rows);
                }
            }
        }
        if run.floors > 0 {
            floor = floor.max(floor::find(&view.floors, table, run.number, a)?);
        }
    }
    loop {
        // The source with the row that comes first, the newest of those that have it, and where the others begin.
        let mut best: Option<(Option<usize>, u64)> = in_tail.last().map(|row| (None, row.b));
        for (at, run) in runs.iter().enumerate() {
            if let Some(head) = &run.head
                && best.is_none_or(|(_, b)| wanted.is_before(head.key.b, b))
            {
                best = Some((Some(at), head.key.b));
            }
        }
        let Some((source, b)) = best else { return Ok(()) };
        let mut limit = in_tail.last().filter(|_| source.is_some()).map(|row| row.b);
        for (at, run) in runs.iter_mut().enumerate() {
            if Some(at) == source {
                continue;
            }
            if run.head.as_ref().is_some_and(|head| head.key.b == b) {
                run.advance()?;
            }
            if let Some(head) = &run.head
                && limit.is_none_or(|limit| wanted.is_before(head.key.b, limit))
            {
                limit = Some(head.key.b);
            }
        }
        let is_first = |b: u64| limit.is_none_or(|limit| wanted.is_before(b, limit));
        match source {
            None => {
                while let Some(row) = in_tail.last().filter(|row| is_first(row.b)) {
                    if !row.is_gone {
                        if filling.is_full() {
                            return Ok(());
                        }
                        filling.push(RowRef { a, b: row.b, value: values.read(row)? });
                    }
                    in_tail.pop();
                }
            }
            Some(at) => {
                let Some(run) = runs.get_mut(at) else { return Ok(()) };
                while let Some(head) = run.head.as_ref().filter(|head| is_first(head.key.b)) {
                    if let Some(value) = &head.value {
                        if filling.is_full() {
                            return Ok(());
                        }
                        filling.push(RowRef { a, b: head.key.b, value: run.value(value) });
                    }
                    run.advance()?;
                }
            }
        }
    }
}

/// Finds single rows in one run; remembers the chunk of the last, as the next is often in it.
struct Finder<'v> {
    view: &'v View,
    run: &'v Run,
    filter: Option<&'v RunFilter>,
    chunk: Option<FoundChunk<'v>>,
    /// The `a` whose floor is known, and that floor.
    floor: Option<(u64, u64)>,
}

impl Finder<'_> {
    /// The place of a row: `None` when this run says nothing of it.
    fn find(&mut self, table: u8, key: RowKey, bits: &KeyBits) -> Result<Option<Entry>, StoreError> {
        if self.run.moved.is_some_and(|moved| key <= moved)
            || self.filter.is_some_and(|filter| !filter.may_hold(key, bits))
        {
            return Ok(None);
        }
        if let Some((first, bytes)) = &self.chunk
            && *first <= key
        {
            let chunk = Chunk::read(bytes.value())?;
            // Behind its last row the chunk says nothing of what the next one holds.
            if let Some(entry) = chunk.next(&mut chunk.seek(key)?)? {
                return Ok(Some(entry).filter(|entry| entry.key == key));
            }
        }
        self.chunk = chunk_of(&self.view.chunks, table, self.run.number, key)?;
        let Some((_, bytes)) = &self.chunk else { return Ok(None) };
        let chunk = Chunk::read(bytes.value())?;
        Ok(chunk.next(&mut chunk.seek(key)?)?.filter(|entry| entry.key == key))
    }

    fn value(&self, value: &Range<usize>) -> &[u8] {
        self.chunk.as_ref().and_then(|(_, bytes)| bytes.value().get(value.clone())).unwrap_or_default()
    }

    /// The floor this run puts under older ones.
    fn floor(&mut self, table: u8, a: u64) -> Result<u64, StoreError> {
        if self.run.floors == 0 {
            return Ok(0);
        }
        match self.floor {
            Some((known, floor)) if known == a => Ok(floor),
            _ => {
                let floor = floor::find(&self.view.floors, table, self.run.number, a)?;
                self.floor = Some((a, floor));
                Ok(floor)
            }
        }
    }
}

fn rows(
    view: &View,
    tail: &RowTail,
    mut values: TailValues<'_>,
    table: u8,
    keys: &[RowKey],
    mut answer: Answer,
) -> Result<Answer, StoreError> {
    let mut runs: Vec<Finder<'_>> = vec![];
    for run in view.manifest.of(table).rev() {
        let filter = view.filters.run(table, run.number);
        runs.push(Finder { view, run, filter, chunk: None, floor: None });
    }
    for keys in keys.chunk_by(|x, y| x.a == y.a) {
        let (Some(first), Some(last)) = (keys.first(), keys.last()) else { continue };
        let in_tail = tail.find(table, first.a, first.b, last.b);
        for &key in keys {
            let RowKey { a, b } = key;
            if let Ok(at) = in_tail.rows.binary_search_by_key(&b, |row| row.b) {
                let row = &in_tail.rows[at];
                if !row.is_gone {
                    push(&mut answer, RowRef { a, b, value: values.read(row)? });
                }
                continue;
            }
            let bits = KeyBits::of(key);
            let mut floor = in_tail.floor;
            for run in &mut runs {
                if b < floor {
                    break;
                }
                if let Some(entry) = run.find(table, key, &bits)? {
                    if let Some(value) = &entry.value {
                        push(&mut answer, RowRef { a, b, value: run.value(value) });
                    }
                    break;
                }
                floor = floor.max(run.floor(table, a)?);
            }
        }
    }
    Ok(answer)
}
