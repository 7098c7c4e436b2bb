//! What is remembered of the highest rows written, so that a new row is known as new without asking any run.

/// Entries; 24 bytes each, taken when the first row of a paged table is folded.
const ENTRIES: usize = 1 << 15;

/// For many an (table, a): the highest `b` in any run. One place for each hash: what came last stays.
#[derive(Debug, Default)]
pub(in crate::store) struct Recent {
    entries: Vec<Entry>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Entry {
    a: u64,
    highest: u64,
    /// 0: nothing is known. No resident table is noted.
    table: u8,
}

fn place(table: u8, a: u64) -> usize {
    let hash = (a ^ u64::from(table) << 56).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    // The upper half fits every `usize`.
    usize::try_from(hash >> 32).unwrap_or(0) % ENTRIES
}

impl Recent {
    /// The highest `b` of this `a` in any run; `None` when it is not known.
    pub(super) fn highest(&self, table: u8, a: u64) -> Option<u64> {
        let entry = self.entries.get(place(table, a))?;
        (entry.table == table && entry.a == a).then_some(entry.highest)
    }

    /// `b` is written, and if nothing is known of this `a`, nothing higher is in any run.
    pub(super) fn note(&mut self, table: u8, a: u64, b: u64) {
        if self.entries.is_empty() {
            self.entries.resize(ENTRIES, Entry::default());
        }
        let highest = self.highest(table, a).map_or(b, |highest| highest.max(b));
        self.entries[place(table, a)] = Entry { a, highest, table };
    }
}
