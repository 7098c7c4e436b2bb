//! What is remembered of the highest rows written, so that a new row is known as new without asking any run.

use std::collections::BTreeMap;

/// A table's entries: 512 KiB, taken when its first row is folded.
const ENTRIES: usize = 1 << 15;
/// Entries that share a place.
const WAYS: usize = 4;

/// For many an (table, a): the highest `b` in any run.
#[derive(Debug, Default)]
pub(in crate::store) struct Recent {
    tables: BTreeMap<u8, Vec<Entry>>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    a: u64,
    /// [`UNKNOWN`]: the entry says nothing.
    highest: u64,
}

/// The `highest` of an entry that says nothing.
const UNKNOWN: u64 = u64::MAX;

fn place(a: u64) -> usize {
    // The upper half fits every `usize`.
    let hash = usize::try_from(a.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32).unwrap_or(0);
    hash % (ENTRIES / WAYS) * WAYS
}

impl Recent {
    /// The highest `b` of this `a` in any run; `None` when it is not known.
    pub(super) fn highest(&self, table: u8, a: u64) -> Option<u64> {
        let place = place(a);
        let mut entries = self.tables.get(&table)?.get(place..place + WAYS)?.iter();
        entries.find(|entry| entry.a == a && entry.highest != UNKNOWN).map(|entry| entry.highest)
    }

    /// `b` is written, and if nothing is known of this `a`, nothing higher is in any run.
    pub(super) fn note(&mut self, table: u8, a: u64, b: u64) {
        let place = place(a);
        let entries = self.tables.entry(table).or_insert_with(|| vec![Entry { a: 0, highest: UNKNOWN }; ENTRIES]);
        let Some(entries) = entries.get_mut(place..place + WAYS) else { return };
        let at = entries.iter().position(|entry| entry.a == a && entry.highest != UNKNOWN);
        let highest = at.and_then(|at| entries.get(at)).map_or(b, |entry| entry.highest.max(b));
        // What was noted last comes first, and pushes the oldest out.
        entries[..=at.unwrap_or(WAYS - 1)].rotate_right(1);
        entries[0] = Entry { a, highest };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_is_remembered_and_the_oldest_forgotten() {
        let mut recent = Recent::default();
        assert_eq!(recent.highest(128, 5), None);
        recent.note(128, 5, 10);
        recent.note(128, 5, 8);
        assert_eq!((recent.highest(128, 5), recent.highest(129, 5), recent.highest(128, 6)), (Some(10), None, None));
        let here: Vec<u64> = (0..).filter(|&a| place(a) == place(5) && a != 5).take(WAYS).collect();
        for &a in &here[1..] {
            recent.note(128, a, 1);
        }
        assert_eq!(recent.highest(128, 5), Some(10), "there is room for all of them");
        recent.note(128, 5, 11);
        recent.note(128, here[0], 1);
        assert_eq!((recent.highest(128, here[1]), recent.highest(128, 5)), (None, Some(11)), "the oldest went");
        recent.note(128, 7, u64::MAX);
        assert_eq!(recent.highest(128, 7), None, "which leaves the runs to be asked");
    }
}
