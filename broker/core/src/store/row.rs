//! Rows: what the messaging rooms keep, as ordered `(table, a, b) -> bytes`, and the questions they ask about them.
//!
//! The store knows nothing of what a row means. The room that writes a row owns its form.

use super::bytes::{DecodeError, Reader, put_bytes, put_int};

/// Names a table of rows. The store treats the tables of one [`Kind`] alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Table(pub u8);

/// How a table is used, which follows from its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Numbers below 128: small, and whole in the hub's memory. Read once, at start; never asked for.
    Resident,
    /// Numbers 128 to 191: large; asked for by [`Query`], never read at start.
    Paged,
    /// Numbers from 192: as `Paged`, and the keys are told at start, so that the hub can answer "certainly not there".
    Keyed,
}

impl Table {
    /// How it is used.
    pub const fn kind(self) -> Kind {
        match self.0 {
            0..128 => Kind::Resident,
            128..192 => Kind::Paged,
            192.. => Kind::Keyed,
        }
    }
}

/// One row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowRef<'a> {
    /// First half of the key.
    pub a: u64,
    /// Second half.
    pub b: u64,
    /// What the room that owns the table wrote.
    pub value: &'a [u8],
}

impl<'a> RowRef<'a> {
    /// Appends the byte form of an [`Answer`].
    pub fn encode(&self, out: &mut Vec<u8>) {
        put_int(out, self.a);
        put_int(out, self.b);
        put_bytes(out, self.value);
    }

    /// Reads one row.
    pub fn read(r: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(Self { a: r.int()?, b: r.int()?, value: r.bytes()? })
    }
}

/// Which way a range is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the lowest `b` up.
    Up,
    /// From the highest `b` down.
    Down,
}

/// Asks for rows of a paged or keyed table. Everything reported as committed before
/// the question was asked is seen by its answer; what was not yet may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// Names the question; the answer carries it.
    pub token: u64,
    /// Of which table.
    pub table: Table,
    /// Which rows.
    pub what: What,
}

/// Which rows a [`Query`] is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// Rows with this `a` and `from <= b < until`.
    Range {
        /// First half of the key.
        a: u64,
        /// The lowest `b` wanted.
        from: u64,
        /// One past the highest `b` wanted.
        until: u64,
        /// Which end first.
        direction: Direction,
        /// At most so many rows.
        max_rows: u32,
        /// Stop after the row with which the values reach this many bytes.
        max_bytes: u32,
    },
    /// The rows with these keys, in any order; those that are not there are left out of the answer. Answered in the
    /// order `(a, b)` ascending.
    Rows(Vec<(u64, u64)>),
}

/// The answer to a [`Query`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Of the question.
    pub token: u64,
    /// [`RowRef`] after [`RowRef`], in the order asked for.
    pub bytes: Vec<u8>,
    /// How many rows `bytes` holds.
    pub rows: u32,
    /// A range ended because of `max_rows` or `max_bytes`: there may be more beyond the last row.
    pub is_partial: bool,
}

impl Answer {
    /// The rows.
    pub fn iter(&self) -> RowsIter<'_> {
        RowsIter { reader: Reader::new(&self.bytes), left: self.rows }
    }
}

impl<'a> IntoIterator for &'a Answer {
    type Item = RowRef<'a>;
    type IntoIter = RowsIter<'a>;

    fn into_iter(self) -> RowsIter<'a> {
        self.iter()
    }
}

/// Iterates over the rows of an [`Answer`]; ends early on bytes that are not a row.
#[derive(Debug)]
pub struct RowsIter<'a> {
    reader: Reader<'a>,
    left: u32,
}

impl<'a> Iterator for RowsIter<'a> {
    type Item = RowRef<'a>;

    fn next(&mut self) -> Option<RowRef<'a>> {
        self.left = self.left.checked_sub(1)?;
        RowRef::read(&mut self.reader).ok()
    }
}

/// One row as found at start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowRecord {
    /// Of which table.
    pub table: Table,
    /// First half of the key.
    pub a: u64,
    /// Second half.
    pub b: u64,
    /// What the room that owns the table wrote.
    pub value: Vec<u8>,
}

/// How long rows of a table are kept, counted from the last [`super::Fact::Clock`] before them. The store may keep
/// them longer, never shorter; a row that is gone this way is simply not there any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Paged or keyed.
    pub table: Table,
    /// Milliseconds.
    pub keep_ms: u64,
}
