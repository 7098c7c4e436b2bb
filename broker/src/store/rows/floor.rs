//! Floors: what `Fact::Trim` leaves in a run. A floor says of one `a` that rows with a lower `b` are gone from every
//! older run; the rows of its own run came after it.

use std::collections::BTreeMap;

use parlor_core::store::bytes::{DecodeError, Reader, put_int};
use redb::ReadableTable;

use crate::store::StoreError;
use crate::store::schema::CHUNK_BYTES;

/// Writes floors of a run into the index.
pub(super) fn write(
    to: &mut redb::Table<'_, (u8, u64, u64), &'static [u8]>,
    table: u8,
    run: u64,
    floors: &BTreeMap<u64, u64>,
) -> Result<(), StoreError> {
    let (mut bytes, mut first, mut last) = (vec![], 0, 0);
    for (&a, &below) in floors {
        if bytes.is_empty() {
            (first, last) = (a, a);
        }
        put_int(&mut bytes, a - last);
        put_int(&mut bytes, below);
        last = a;
        // Two integers take at most 20 bytes.
        if bytes.len() + 20 > CHUNK_BYTES {
            to.insert((table, run, first), bytes.as_slice())?;
            bytes.clear();
        }
    }
    if !bytes.is_empty() {
        to.insert((table, run, first), bytes.as_slice())?;
    }
    Ok(())
}

/// The floors in one value of the index, ascending, and the `a` they begin with.
struct Block<'a> {
    reader: Reader<'a>,
    len: usize,
    last: u64,
}

impl<'a> Block<'a> {
    fn new(first: u64, bytes: &'a [u8]) -> Self {
        Self { reader: Reader::new(bytes), len: bytes.len(), last: first }
    }

    fn next(&mut self) -> Result<Option<(u64, u64)>, DecodeError> {
        if self.reader.used() == self.len {
            return Ok(None);
        }
        self.last = self.last.wrapping_add(self.reader.int()?);
        Ok(Some((self.last, self.reader.int()?)))
    }
}

/// The floor of `a` in a run; 0: none.
pub(super) fn find(
    floors: &impl ReadableTable<(u8, u64, u64), &'static [u8]>,
    table: u8,
    run: u64,
    a: u64,
) -> Result<u64, StoreError> {
    let found = floors.range((table, run, 0)..=(table, run, a))?.next_back().transpose()?;
    let Some((key, value)) = found else { return Ok(0) };
    let mut block = Block::new(key.value().2, value.value());
    while let Some((other, below)) = block.next()? {
        if other >= a {
            return Ok(if other == a { below } else { 0 });
        }
    }
    Ok(0)
}

/// The floors of a run for every `a` in `from..=to`.
pub(super) fn read(
    floors: &impl ReadableTable<(u8, u64, u64), &'static [u8]>,
    table: u8,
    run: u64,
    (from, to): (u64, u64),
    take: &mut dyn FnMut(u64, u64),
) -> Result<(), StoreError> {
    let before = floors.range((table, run, 0)..=(table, run, from))?.next_back().transpose()?;
    let first = before.map_or(from, |(key, _)| key.value().2);
    for row in floors.range((table, run, first)..=(table, run, to))? {
        let (key, value) = row?;
        let mut block = Block::new(key.value().2, value.value());
        while let Some((a, below)) = block.next()? {
            if (from..=to).contains(&a) {
                take(a, below);
            }
        }
    }
    Ok(())
}

/// Finds the floors of ascending `a`s in one run.
#[derive(Debug)]
pub(super) struct FloorScan {
    table: u8,
    run: u64,
    /// Floors of one value of the index, the last first.
    block: Vec<(u64, u64)>,
    /// Where the next value is looked for; `None`: there is none.
    next: Option<u64>,
}

impl FloorScan {
    /// Begins at `a`.
    pub(super) fn open(
        floors: &impl ReadableTable<(u8, u64, u64), &'static [u8]>,
        table: u8,
        run: u64,
        a: u64,
    ) -> Result<Self, StoreError> {
        // A value that begins before `a` may hold it.
        let before = floors.range((table, run, 0)..=(table, run, a))?.next_back().transpose()?;
        Ok(Self { table, run, block: vec![], next: Some(before.map_or(a, |(key, _)| key.value().2)) })
    }

    /// The floor of `a`, which is at least that of the last call; 0: none.
    pub(super) fn find(
        &mut self,
        floors: &impl ReadableTable<(u8, u64, u64), &'static [u8]>,
        a: u64,
    ) -> Result<u64, StoreError> {
        loop {
            while let Some(&(other, below)) = self.block.last() {
                if other >= a {
                    return Ok(if other == a { below } else { 0 });
                }
                self.block.pop();
            }
            let Some(from) = self.next else { return Ok(0) };
            let (table, run) = (self.table, self.run);
            let found = floors.range((table, run, from)..=(table, run, u64::MAX))?.next().transpose()?;
            self.next = None;
            if let Some((key, value)) = found {
                let first = key.value().2;
                let mut block = Block::new(first, value.value());
                while let Some(floor) = block.next()? {
                    self.block.push(floor);
                }
                self.block.reverse();
                self.next = first.checked_add(1);
            }
        }
    }
}
