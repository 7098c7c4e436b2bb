//! Rows of different length in one buffer, packed, in order. A row that goes is closed up behind, which for the few
//! kilobytes of a device costs less than any list of free places.

use crate::bytes::{Put, Take};

/// Bytes in front of a row's data.
pub(crate) const HEAD_BYTES: usize = 16;

/// What is said of each row; what the fields mean is up to the room that keeps the rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) struct Head {
    pub(crate) len: u16,
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) state: u8,
    pub(crate) slot: u8,
    pub(crate) pid: u16,
    pub(crate) a: u32,
    pub(crate) b: u32,
}

impl Head {
    fn read(bytes: &[u8]) -> Self {
        let mut take = Take(bytes);
        Self {
            len: take.u16(),
            kind: take.u8(),
            flags: take.u8(),
            state: take.u8(),
            slot: take.u8(),
            pid: take.u16(),
            a: take.u32(),
            b: take.u32(),
        }
    }

    fn write(&self, bytes: &mut [u8]) {
        let mut put = Put::new(bytes);
        put.u16(self.len);
        put.bytes(&[self.kind, self.flags, self.state, self.slot]);
        put.u16(self.pid);
        put.u32(self.a);
        put.u32(self.b);
    }
}

/// Where a row stands. It is good until a row is put in or taken out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct At(usize);

/// The rows of a buffer.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Rows {
    used: usize,
}

impl Rows {
    pub(crate) const fn new() -> Self {
        Self { used: 0 }
    }

    pub(crate) const fn used(self) -> usize {
        self.used
    }

    /// The first row.
    pub(crate) fn first(self, buffer: &[u8]) -> Option<(At, Head)> {
        self.read(buffer, 0)
    }

    /// The row behind one.
    pub(crate) fn next(self, buffer: &[u8], at: At, head: Head) -> Option<(At, Head)> {
        self.read(buffer, at.0 + HEAD_BYTES + usize::from(head.len))
    }

    /// The first row from `from` on for which `wanted` is true.
    pub(crate) fn find(self, buffer: &[u8], wanted: &dyn Fn(&Head, &[u8]) -> bool) -> Option<(At, Head)> {
        let mut row = self.first(buffer);
        while let Some((at, head)) = row {
            if wanted(&head, Self::data(buffer, at, head)) {
                return row;
            }
            row = self.next(buffer, at, head);
        }
        None
    }

    fn read(self, buffer: &[u8], at: usize) -> Option<(At, Head)> {
        let head = Head::read(buffer.get(at..self.used)?.get(..HEAD_BYTES)?);
        Some((At(at), head))
    }

    /// The data of a row.
    pub(crate) fn data(buffer: &[u8], at: At, head: Head) -> &[u8] {
        let from = at.0 + HEAD_BYTES;
        buffer.get(from..from + usize::from(head.len)).unwrap_or(&[])
    }

    /// Writes another head; `len` must be the same.
    pub(crate) fn set(buffer: &mut [u8], at: At, head: Head) {
        if let Some(place) = buffer.get_mut(at.0..at.0 + HEAD_BYTES) {
            head.write(place);
        }
    }

    /// Appends a row, if `fill` fits; it is given the room for the data.
    pub(crate) fn push(
        &mut self,
        buffer: &mut [u8],
        mut head: Head,
        fill: &mut dyn FnMut(&mut [u8]) -> Option<usize>,
    ) -> bool {
        let free = buffer.get_mut(self.used..).unwrap_or(&mut []);
        let Some((place, room)) = free.split_at_mut_checked(HEAD_BYTES) else { return false };
        let Some(len) = fill(room) else { return false };
        let Ok(short) = u16::try_from(len) else { return false };
        head.len = short;
        head.write(place);
        self.used += HEAD_BYTES + len;
        true
    }

    /// Takes a row out.
    pub(crate) fn remove(&mut self, buffer: &mut [u8], at: At, head: Head) {
        self.cut(buffer, at.0, HEAD_BYTES + usize::from(head.len));
    }

    /// Shortens a row to its first bytes.
    pub(crate) fn shorten(&mut self, buffer: &mut [u8], at: At, mut head: Head, len: u16) {
        let less = head.len.saturating_sub(len);
        head.len -= less;
        Self::set(buffer, at, head);
        self.cut(buffer, at.0 + HEAD_BYTES + usize::from(head.len), usize::from(less));
    }

    /// Moves the last row to `at`.
    pub(crate) fn move_last(self, buffer: &mut [u8], at: At, last: Head) {
        let len = HEAD_BYTES + usize::from(last.len);
        if let Some(rows) = buffer.get_mut(at.0..self.used) {
            rows.rotate_right(len.min(rows.len()));
        }
    }

    fn cut(&mut self, buffer: &mut [u8], from: usize, len: usize) {
        let end = from + len;
        if end <= self.used && self.used <= buffer.len() {
            buffer.copy_within(end..self.used, from);
            self.used -= len;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(rows: &mut Rows, buffer: &mut [u8], a: u32, data: &[u8]) -> bool {
        rows.push(buffer, Head { a, ..Head::default() }, &mut |room| {
            room.get_mut(..data.len())?.copy_from_slice(data);
            Some(data.len())
        })
    }

    fn all(rows: Rows, buffer: &[u8]) -> std::vec::Vec<(u32, std::vec::Vec<u8>)> {
        let mut found = std::vec![];
        let mut row = rows.first(buffer);
        while let Some((at, head)) = row {
            found.push((head.a, Rows::data(buffer, at, head).to_vec()));
            row = rows.next(buffer, at, head);
        }
        found
    }

    #[test]
    fn rows_stay_in_order_and_close_up() {
        let mut buffer = [0; 100];
        let mut rows = Rows::new();
        assert!(push(&mut rows, &mut buffer, 1, b"one"));
        assert!(push(&mut rows, &mut buffer, 2, b"two!"));
        assert!(push(&mut rows, &mut buffer, 3, b""));
        let (at, head) = rows.find(&buffer, &|head, _| head.a == 2).unwrap();
        rows.shorten(&mut buffer, at, head, 1);
        assert_eq!(all(rows, &buffer), [(1, b"one".to_vec()), (2, b"t".to_vec()), (3, std::vec![])]);
        let (at, head) = rows.first(&buffer).unwrap();
        rows.remove(&mut buffer, at, head);
        assert_eq!(all(rows, &buffer), [(2, b"t".to_vec()), (3, std::vec![])]);
        assert!(push(&mut rows, &mut buffer, 0, b"zero"));
        let (at, _) = rows.first(&buffer).unwrap();
        rows.move_last(&mut buffer, at, Head { len: 4, ..Head::default() });
        assert_eq!(all(rows, &buffer), [(0, b"zero".to_vec()), (2, b"t".to_vec()), (3, std::vec![])]);
    }

    #[test]
    fn a_row_that_does_not_fit_changes_nothing() {
        let mut buffer = [0; 40];
        let mut rows = Rows::new();
        assert!(push(&mut rows, &mut buffer, 1, b"12345678"));
        assert!(!push(&mut rows, &mut buffer, 2, b"1"));
        assert_eq!(all(rows, &buffer).len(), 1);
    }
}
