//! Chunks: rows in ascending order of key, packed into one value of the index.
//!
//! Every sixteenth row begins a group, whose key and place stand in full at the end of the chunk; the others give only
//! what differs from the key before. So a row is found by halving, and a row of a dense table costs its value and two
//! bytes.

use std::ops::Range;

use parlor_core::store::bytes::{DecodeError, Reader, put_int};

use super::RowKey;
use crate::store::schema::CHUNK_BYTES;

/// Rows of a group.
const GROUP: usize = 16;
/// Bytes of a group in the list at the end: both halves of the key, and the place.
const GROUP_BYTES: usize = 18;
/// The row after the one before: same `a`, `b` one higher.
const NEXT: u8 = 0;
/// Any other: what `a` rises by, then what `b` rises by, or `b` itself when `a` is another.
const OTHER: u8 = 1;
/// More than the bytes of a row that are not its value, its share of the list included.
const ROW_OVERHEAD: usize = 32 + GROUP_BYTES;

/// Packs rows.
#[derive(Debug, Default)]
pub(super) struct ChunkWriter {
    bytes: Vec<u8>,
    groups: Vec<u8>,
    first: RowKey,
    last: RowKey,
    rows: usize,
}

impl ChunkWriter {
    /// True when a value of `len` bytes belongs into the next chunk. A chunk takes at least one row of any length.
    pub(super) fn is_full_for(&self, len: usize) -> bool {
        self.rows > 0 && self.bytes.len() + self.groups.len() + len + ROW_OVERHEAD > CHUNK_BYTES
    }

    /// Adds a row, which must come after the last; `None` is a deleted one.
    pub(super) fn push(&mut self, key: RowKey, value: Option<&[u8]>) {
        debug_assert!(self.rows == 0 || self.last < key, "rows come in ascending order");
        if self.rows.is_multiple_of(GROUP) {
            // A chunk of more than one row is shorter than 64 KiB, so places fit.
            let place = u16::try_from(self.bytes.len()).unwrap_or(u16::MAX);
            self.groups.extend_from_slice(&key.a.to_le_bytes());
            self.groups.extend_from_slice(&key.b.to_le_bytes());
            self.groups.extend_from_slice(&place.to_le_bytes());
        } else if key.a == self.last.a && key.b == self.last.b + 1 {
            self.bytes.push(NEXT);
        } else {
            self.bytes.push(OTHER);
            put_int(&mut self.bytes, key.a - self.last.a);
            put_int(&mut self.bytes, if key.a == self.last.a { key.b - self.last.b } else { key.b });
        }
        match value {
            None => put_int(&mut self.bytes, 0),
            Some(value) => {
                put_int(&mut self.bytes, value.len() as u64 + 1);
                self.bytes.extend_from_slice(value);
            }
        }
        if self.rows == 0 {
            self.first = key;
        }
        self.last = key;
        self.rows += 1;
    }
}

impl ChunkWriter {
    /// Key of the first row and the packed rows, if there are any; the next row begins another chunk.
    pub(super) fn finish(&mut self) -> Option<(RowKey, &[u8])> {
        if self.rows == 0 {
            return None;
        }
        let groups = u16::try_from(self.groups.len() / GROUP_BYTES).unwrap_or(u16::MAX);
        self.bytes.append(&mut self.groups);
        self.bytes.extend_from_slice(&groups.to_le_bytes());
        self.rows = 0;
        Some((self.first, &self.bytes))
    }

    /// Forgets the chunk that [`Self::finish`] gave.
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.groups.clear();
        self.rows = 0;
    }
}

/// One row of a chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) key: RowKey,
    /// Where in the chunk its value is; `None`: it was deleted.
    pub(super) value: Option<Range<usize>>,
}

/// A place between two rows of a chunk.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Place {
    /// Where the next row begins.
    at: usize,
    /// How many rows are before it.
    row: usize,
    /// Key of the row before it.
    last: RowKey,
}

/// Reads a chunk.
#[derive(Debug, Clone, Copy)]
pub(super) struct Chunk<'a> {
    bytes: &'a [u8],
    /// Where the list of groups begins, and the rows end.
    end: usize,
    groups: usize,
}

impl<'a> Chunk<'a> {
    pub(super) fn read(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let (rest, groups) = bytes.split_last_chunk::<2>().ok_or(DecodeError::Truncated)?;
        let groups = usize::from(u16::from_le_bytes(*groups));
        let end = rest.len().checked_sub(groups * GROUP_BYTES).ok_or(DecodeError::Truncated)?;
        Ok(Self { bytes, end, groups })
    }

    /// How many groups it has.
    pub(super) fn groups(&self) -> usize {
        self.groups
    }

    /// Key and place of the first row of group `group`.
    fn group(&self, group: usize) -> Option<(RowKey, usize)> {
        let at = self.end + group * GROUP_BYTES;
        let (a, rest) = self.bytes.get(at..at + GROUP_BYTES)?.split_first_chunk::<8>()?;
        let (b, rest) = rest.split_first_chunk::<8>()?;
        let (place, _) = rest.split_first_chunk::<2>()?;
        let key = RowKey { a: u64::from_le_bytes(*a), b: u64::from_le_bytes(*b) };
        Some((key, usize::from(u16::from_le_bytes(*place))))
    }

    /// The last group that begins at or before `key`, or the first.
    pub(super) fn group_of(&self, key: RowKey) -> usize {
        let (mut low, mut high) = (0, self.groups);
        while low < high {
            let middle = usize::midpoint(low, high);
            match self.group(middle) {
                Some((first, _)) if first <= key => low = middle + 1,
                _ => high = middle,
            }
        }
        low.saturating_sub(1)
    }

    /// The place before the first row of a group.
    fn place(&self, group: usize) -> Place {
        let at = self.group(group).map_or(self.end, |(_, at)| at);
        Place { at, row: group * GROUP, last: RowKey::default() }
    }

    /// The place before the first row whose key is `key` or higher.
    pub(super) fn seek(&self, key: RowKey) -> Result<Place, DecodeError> {
        let mut place = self.place(self.group_of(key));
        loop {
            let before = place;
            match self.next(&mut place)? {
                Some(entry) if entry.key < key => {}
                _ => return Ok(before),
            }
        }
    }

    /// The row after `place`, which moves on; `None` at the end.
    pub(super) fn next(&self, place: &mut Place) -> Result<Option<Entry>, DecodeError> {
        if place.at >= self.end {
            return Ok(None);
        }
        let mut r = Reader::new(self.bytes.get(place.at..self.end).ok_or(DecodeError::Truncated)?);
        let key = if place.row.is_multiple_of(GROUP) {
            self.group(place.row / GROUP).ok_or(DecodeError::Truncated)?.0
        } else {
            match r.byte()? {
                NEXT => RowKey { a: place.last.a, b: place.last.b.wrapping_add(1) },
                _ => {
                    let (a, b) = (r.int()?, r.int()?);
                    let base = if a == 0 { place.last.b } else { 0 };
                    RowKey { a: place.last.a.wrapping_add(a), b: base.wrapping_add(b) }
                }
            }
        };
        let len = r.int()?;
        let start = place.at + r.used();
        let value = match len.checked_sub(1) {
            None => None,
            Some(len) => {
                let end = usize::try_from(len).ok().and_then(|len| start.checked_add(len));
                Some(start..end.filter(|&end| end <= self.end).ok_or(DecodeError::Truncated)?)
            }
        };
        place.at = value.as_ref().map_or(start, |value| value.end);
        place.row += 1;
        place.last = key;
        Ok(Some(Entry { key, value }))
    }

    /// The rows of a group, in ascending order, instead of what `out` holds.
    pub(super) fn read_group(&self, group: usize, out: &mut Vec<Entry>) -> Result<(), DecodeError> {
        out.clear();
        let mut place = self.place(group);
        while out.len() < GROUP {
            match self.next(&mut place)? {
                Some(entry) => out.push(entry),
                None => break,
            }
        }
        Ok(())
    }

    /// The bytes of a value.
    pub(super) fn value(&self, value: &Range<usize>) -> &'a [u8] {
        self.bytes.get(value.clone()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn key(a: u64, b: u64) -> RowKey {
        RowKey { a, b }
    }

    #[test]
    fn every_row_is_found_from_every_side_and_every_cut_is_seen() {
        let mut rows: Vec<(RowKey, Option<Vec<u8>>)> = (0..60).map(|b| (key(0, b), Some(vec![7; 3]))).collect();
        rows.extend((0..20).map(|n| (key(5, n * n * 1000), (n % 3 > 0).then(Vec::new))));
        rows.push((key(u64::MAX - 1, u64::MAX), Some(vec![1; 300])));
        rows.push((key(u64::MAX, 0), None));
        rows.push((key(u64::MAX, u64::MAX), Some(b"last".to_vec())));
        let mut writer = ChunkWriter::default();
        for (key, value) in &rows {
            assert!(!writer.is_full_for(value.as_ref().map_or(0, Vec::len)));
            writer.push(*key, value.as_deref());
        }
        assert!(writer.is_full_for(CHUNK_BYTES));
        let (first, bytes) = writer.finish().unwrap();
        let bytes = bytes.to_vec();
        assert_eq!(first, key(0, 0));
        let chunk = Chunk::read(&bytes).unwrap();
        let all = |mut place| {
            let mut found = vec![];
            while let Some(entry) = chunk.next(&mut place).unwrap() {
                found.push((entry.key, entry.value.map(|value| chunk.value(&value).to_vec())));
            }
            found
        };
        assert_eq!(all(Place::default()), rows);
        for (at, (key, _)) in rows.iter().enumerate() {
            assert_eq!(all(chunk.seek(*key).unwrap()), rows[at..]);
        }
        assert_eq!(all(chunk.seek(key(1, 0)).unwrap()), rows[60..]);
        let mut by_group = vec![];
        for group in 0..chunk.groups() {
            let mut entries = vec![];
            chunk.read_group(group, &mut entries).unwrap();
            by_group.extend(entries.into_iter().map(|entry| entry.key));
        }
        assert_eq!(by_group, rows.iter().map(|(key, _)| *key).collect::<Vec<_>>());
        writer.clear();
        assert!(writer.finish().is_none());
        // Damaged bytes may give wrong rows, and never a panic.
        for cut in 0..bytes.len() {
            let Ok(chunk) = Chunk::read(&bytes[..cut]) else { continue };
            let mut place = Place::default();
            for _ in 0..rows.len() {
                if chunk.next(&mut place).is_err() {
                    break;
                }
            }
        }
    }
}
