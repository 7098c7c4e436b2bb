//! Rows of different length in one buffer, packed, in order. A row that goes is closed up behind, which for the few
//! kilobytes of a device costs less than any list of free places.

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
    fn read(bytes: [u8; HEAD_BYTES]) -> Self {
        let [l0, l1, kind, flags, state, slot, p0, p1, a0, a1, a2, a3, b0, b1, b2, b3] = bytes;
        Self {
            len: u16::from_le_bytes([l0, l1]),
            kind,
            flags,
            state,
            slot,
            pid: u16::from_le_bytes([p0, p1]),
            a: u32::from_le_bytes([a0, a1, a2, a3]),
            b: u32::from_le_bytes([b0, b1, b2, b3]),
        }
    }

    fn bytes(self) -> [u8; HEAD_BYTES] {
        let Self { len, kind, flags, state, slot, pid, a, b } = self;
        let ([l0, l1], [p0, p1]) = (len.to_le_bytes(), pid.to_le_bytes());
        let ([a0, a1, a2, a3], [b0, b1, b2, b3]) = (a.to_le_bytes(), b.to_le_bytes());
        [l0, l1, kind, flags, state, slot, p0, p1, a0, a1, a2, a3, b0, b1, b2, b3]
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

    /// How many rows there are for which `wanted` is true.
    pub(crate) fn count(self, buffer: &[u8], wanted: &dyn Fn(&Head, &[u8]) -> bool) -> usize {
        let mut count = 0;
        let mut row = self.first(buffer);
        while let Some((at, head)) = row {
            count += usize::from(wanted(&head, Self::data(buffer, at, head)));
            row = self.next(buffer, at, head);
        }
        count
    }

    fn read(self, buffer: &[u8], at: usize) -> Option<(At, Head)> {
        let head = Head::read(*buffer.get(at..self.used)?.first_chunk()?);
        Some((At(at), head))
    }

    /// The data of a row.
    pub(crate) fn data(buffer: &[u8], at: At, head: Head) -> &[u8] {
        let from = at.0 + HEAD_BYTES;
        buffer.get(from..from + usize::from(head.len)).unwrap_or(&[])
    }

    /// Writes another head; `len` must be the same.
    #[inline(never)]
    pub(crate) fn set(buffer: &mut [u8], at: At, head: Head) {
        if let Some(place) = buffer.get_mut(at.0..).and_then(|rest| rest.first_chunk_mut()) {
            *place = head.bytes();
        }
    }

    /// Appends a row, if `fill` fits; it is given the room for the data, and says how much it wrote or would have.
    pub(crate) fn push(&mut self, buffer: &mut [u8], mut head: Head, fill: &dyn Fn(&mut [u8]) -> usize) -> bool {
        let Some(room) = buffer.get_mut(self.used + HEAD_BYTES..) else { return false };
        let len = fill(room);
        let (true, Ok(short)) = (len <= room.len(), u16::try_from(len)) else { return false };
        head.len = short;
        Self::set(buffer, At(self.used), head);
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
    #[cfg(feature = "persist")]
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
        rows.push(buffer, Head { a, ..Head::default() }, &|room| {
            if let Some(room) = room.get_mut(..data.len()) {
                room.copy_from_slice(data);
            }
            data.len()
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
        #[cfg(feature = "persist")]
        {
            let (at, _) = rows.first(&buffer).unwrap();
            rows.move_last(&mut buffer, at, Head { len: 4, ..Head::default() });
            assert_eq!(all(rows, &buffer), [(0, b"zero".to_vec()), (2, b"t".to_vec()), (3, std::vec![])]);
        }
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
