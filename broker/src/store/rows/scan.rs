//! Reading whole runs in the order of their keys, several as one: for merges, and for the start.

use std::ops::Range;

use redb::ReadableTable;

use super::RowKey;
use super::chunk::{Chunk, Entry, Place};
use super::floor::FloorScan;
use super::run::{Run, chunk_from, chunk_of};
use crate::store::StoreError;

/// Stands for the key of a scan that came to its end.
const END: u128 = u128::MAX;

/// What was read to its end.
#[derive(Debug, Default)]
pub(super) struct Consumed {
    /// Keys of chunks.
    pub(super) chunks: Vec<(u8, u64, u64, u64)>,
    /// Their bytes.
    pub(super) bytes: u64,
}

/// A place in one run, with the chunk it is in. The chunk is a copy, so that the table may be written meanwhile.
struct Scan {
    table: u8,
    run: u64,
    chunk: Vec<u8>,
    /// Key of the chunk, until it was read to its end.
    first: Option<RowKey>,
    /// Where the next chunk is looked for; `None`: there is none.
    next: Option<RowKey>,
    place: Place,
    /// The row before the place, which is the next to be given.
    head: Option<Entry>,
}

impl Scan {
    /// Begins after `after`.
    fn open(
        chunks: &impl ReadableTable<(u8, u64, u64, u64), &'static [u8]>,
        table: u8,
        run: u64,
        after: Option<RowKey>,
    ) -> Result<Self, StoreError> {
        let from = match after {
            Some(after) => after.next(),
            None => Some(RowKey::default()),
        };
        let place = Place::default();
        let mut scan = Self { table, run, chunk: vec![], first: None, next: from, place, head: None };
        if let Some(from) = from {
            // The chunk that holds the first row may begin before it.
            if let Some((first, bytes)) = chunk_of(chunks, table, run, from)? {
                scan.take(first, bytes.value());
                scan.place = Chunk::read(&scan.chunk)?.seek(from)?;
            }
        }
        Ok(scan)
    }

    fn take(&mut self, first: RowKey, bytes: &[u8]) {
        self.chunk.clear();
        self.chunk.extend_from_slice(bytes);
        (self.first, self.next, self.place) = (Some(first), first.next(), Place::default());
    }

    /// Key of the head.
    fn key(&self) -> u128 {
        self.head.as_ref().map_or(END, |head| head.key.wide())
    }

    /// Brings the next row to the head; notes a chunk that was read to its end.
    fn advance(
        &mut self,
        chunks: &impl ReadableTable<(u8, u64, u64, u64), &'static [u8]>,
        consumed: &mut Consumed,
    ) -> Result<(), StoreError> {
        let (table, run) = (self.table, self.run);
        loop {
            if let Some(first) = self.first {
                self.head = Chunk::read(&self.chunk)?.next(&mut self.place)?;
                if self.head.is_some() {
                    return Ok(());
                }
                self.first = None;
                consumed.chunks.push((table, run, first.a, first.b));
                consumed.bytes += self.chunk.len() as u64;
            }
            let Some(next) = self.next.take() else { return Ok(()) };
            if let Some((first, bytes)) = chunk_from(chunks, table, run, next)? {
                self.take(first, bytes.value());
            }
        }
    }
}

/// A row of a merge.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) key: RowKey,
    scan: usize,
    value: Option<Range<usize>>,
}

/// Several runs of one table read as one: of rows with one key the newest is given, and none that lies below a floor
/// of a newer run.
pub(super) struct Merge {
    /// Newest first.
    scans: Vec<Scan>,
    /// Keys of their heads, close together because they are looked at for almost every row.
    heads: Vec<u128>,
    /// Their floors, where a run has any.
    floors: Vec<Option<FloorScan>>,
    /// For each run, the lowest `b` of the current `a` that newer ones leave.
    hidden: Vec<u64>,
    /// The `a` that `hidden` is about.
    a: Option<u64>,
    /// The scan that gave the last row, and has yet to move on.
    current: Option<usize>,
    /// As long as the current scan is before this key, no other is before it.
    limit: u128,
    pub(super) consumed: Consumed,
}

impl Merge {
    /// Reads `runs`, newest first, behind `after`.
    pub(super) fn open<'r>(
        chunks: &impl ReadableTable<(u8, u64, u64, u64), &'static [u8]>,
        floors: &impl ReadableTable<(u8, u64, u64), &'static [u8]>,
        table: u8,
        runs: impl Iterator<Item = &'r Run>,
        after: Option<RowKey>,
    ) -> Result<Self, StoreError> {
        let mut merge = Self {
            scans: vec![],
            floors: vec![],
            hidden: vec![],
            a: None,
            current: None,
            heads: vec![],
            limit: END,
            consumed: Consumed::default(),
        };
        for run in runs {
            // A run that is being merged counts from where the merge has not come to.
            let mut scan = Scan::open(chunks, table, run.number, after.max(run.moved))?;
            scan.advance(chunks, &mut merge.consumed)?;
            merge.heads.push(scan.key());
            merge.scans.push(scan);
            let from = after.map_or(0, |after| after.a);
            let scan = FloorScan::open(floors, table, run.number, from);
            merge.floors.push(if run.floors > 0 { Some(scan?) } else { None });
        }
        merge.hidden = vec![0; merge.scans.len()];
        Ok(merge)
    }

    /// The next row.
    pub(super) fn next(
        &mut self,
        chunks: &impl ReadableTable<(u8, u64, u64, u64), &'static [u8]>,
        floors: &impl ReadableTable<(u8, u64, u64), &'static [u8]>,
    ) -> Result<Option<Found>, StoreError> {
        loop {
            let Some(at) = self.choose(chunks)? else { return Ok(None) };
            let Some(Entry { key, value }) = self.scans[at].head.take() else { return Ok(None) };
            self.current = Some(at);
            if self.a != Some(key.a) {
                self.a = Some(key.a);
                let mut below = 0;
                for (floor, hidden) in self.floors.iter_mut().zip(&mut self.hidden) {
                    *hidden = below;
                    if let Some(floor) = floor {
                        below = below.max(floor.find(floors, key.a)?);
                    }
                }
            }
            if key.b >= self.hidden[at] {
                return Ok(Some(Found { key, scan: at, value }));
            }
        }
    }

    /// The scan whose head comes next; scans with an older row of that key are moved on.
    fn choose(
        &mut self,
        chunks: &impl ReadableTable<(u8, u64, u64, u64), &'static [u8]>,
    ) -> Result<Option<usize>, StoreError> {
        if let Some(at) = self.current.take() {
            self.advance(chunks, at)?;
            if self.heads[at] < self.limit {
                return Ok(Some(at));
            }
        }
        // The newest of those with the lowest key, and the lowest key of the others.
        let (mut first, mut lowest, mut limit) = (0, END, END);
        for (at, &head) in self.heads.iter().enumerate() {
            if head < lowest {
                (first, lowest, limit) = (at, head, lowest);
            } else if head < limit {
                limit = head;
            }
        }
        if lowest == END {
            // The highest of all keys looks like the end.
            let Some(found) = self.scans.iter().position(|scan| scan.head.is_some()) else { return Ok(None) };
            first = found;
        }
        if limit == lowest {
            for at in first + 1..self.scans.len() {
                if self.heads[at] == lowest {
                    self.advance(chunks, at)?;
                }
            }
            let others = self.heads.iter().enumerate().filter(|(at, _)| *at != first);
            limit = others.map(|(_, &head)| head).min().unwrap_or(END);
        }
        self.limit = limit;
        Ok(Some(first))
    }

    fn advance(
        &mut self,
        chunks: &impl ReadableTable<(u8, u64, u64, u64), &'static [u8]>,
        at: usize,
    ) -> Result<(), StoreError> {
        let Some(scan) = self.scans.get_mut(at) else { return Ok(()) };
        scan.advance(chunks, &mut self.consumed)?;
        self.heads[at] = scan.key();
        Ok(())
    }

    /// The value of the row that [`Self::next`] gave last; `None`: it was deleted.
    pub(super) fn value(&self, found: &Found) -> Option<&[u8]> {
        let value = found.value.as_ref()?;
        self.scans.get(found.scan)?.chunk.get(value.clone())
    }
}
