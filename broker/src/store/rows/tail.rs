//! Where rows are that are only in the journal: for each segment and table, a list per `a`, newest first, in one array.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher, RandomState};

use parlor_core::store::{Fact, Kind};

/// The end of a list.
const NONE: u32 = u32::MAX;
const KIND_SHIFT: u32 = 30;

/// What a slot notes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    Put,
    Del,
    Trim,
}

/// One fact about rows of one `a`: 16 bytes.
#[derive(Debug, Clone, Copy)]
struct Slot {
    /// Second half of the key; of a `Trim`, the lowest that stays.
    b: u64,
    /// Two bits of what it is, 29 bits of the fact's offset in the segment.
    fact: u32,
    /// The fact before it about this `a`.
    before: u32,
}

impl Slot {
    fn change(self) -> Change {
        match self.fact >> KIND_SHIFT {
            0 => Change::Put,
            1 => Change::Del,
            _ => Change::Trim,
        }
    }
}

/// Hashes the numbers of conversations and accounts, which are spread well or counted up. The seed keeps a client that
/// can choose such numbers from making them collide.
#[derive(Debug, Clone, Copy)]
struct Seed(u64);

impl Seed {
    fn draw() -> Self {
        Self(RandomState::new().build_hasher().finish() | 1)
    }
}

struct Mixer {
    seed: u64,
    state: u64,
}

impl BuildHasher for Seed {
    type Hasher = Mixer;

    fn build_hasher(&self) -> Mixer {
        Mixer { seed: self.0, state: self.0 }
    }
}

impl Hasher for Mixer {
    fn finish(&self) -> u64 {
        self.state
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(byte.into());
        }
    }

    fn write_u64(&mut self, number: u64) {
        let product = u128::from(number ^ self.state) * u128::from(self.seed ^ 0x9E37_79B9_7F4A_7C15);
        // Both halves of the product, folded together.
        #[allow(clippy::cast_possible_truncation)]
        let folded = (product as u64) ^ ((product >> 64) as u64);
        self.state = folded;
    }
}

/// What one segment holds of one table.
#[derive(Debug)]
struct TableTail {
    table: u8,
    /// `a` -> the newest fact about it.
    heads: HashMap<u64, u32, Seed>,
    slots: Vec<Slot>,
}

/// What one segment holds.
#[derive(Debug)]
struct Layer {
    generation: u32,
    tables: Vec<TableTail>,
}

/// What all segments hold that are not folded, oldest first.
#[derive(Debug)]
pub(in crate::store) struct RowTail {
    layers: Vec<Layer>,
    seed: Seed,
}

impl Default for RowTail {
    fn default() -> Self {
        Self { layers: vec![], seed: Seed::draw() }
    }
}

/// Where a row is.
#[derive(Debug, Clone, Copy)]
pub(super) struct TailRow {
    pub(super) b: u64,
    pub(super) generation: u32,
    /// Offset of its fact in the segment.
    pub(super) fact: u32,
    /// It was deleted.
    pub(super) is_gone: bool,
}

/// What the tail knows of one `a`.
#[derive(Debug, Default)]
pub(super) struct TailRows {
    /// Ascending by `b`, one each.
    pub(super) rows: Vec<TailRow>,
    /// Rows below it that are in the index are gone.
    pub(super) floor: u64,
}

impl RowTail {
    /// Notes a fact at `offset` of segment `generation`.
    pub(in crate::store) fn apply(&mut self, generation: u32, offset: u32, fact: &Fact<'_>) {
        let (table, a, b, change) = match *fact {
            Fact::Put { table, a, b, .. } => (table, a, b, Change::Put),
            Fact::Del { table, a, b } => (table, a, b, Change::Del),
            Fact::Trim { table, a, below } => (table, a, below, Change::Trim),
            _ => return,
        };
        if table.kind() == Kind::Resident {
            // Nobody asks for it before the next start.
            return;
        }
        if self.layers.last().is_none_or(|layer| layer.generation != generation) {
            self.layers.push(Layer { generation, tables: vec![] });
        }
        let Some((layer, older)) = self.layers.split_last_mut() else { return };
        let at = layer.tables.iter().position(|other| other.table == table.0).unwrap_or_else(|| {
            // About as much as the segment before.
            let before = older.last().and_then(|layer| layer.tables.iter().find(|other| other.table == table.0));
            let (heads, slots) = before.map_or((0, 0), |other| (other.heads.len(), other.slots.len()));
            let heads = HashMap::with_capacity_and_hasher(heads, self.seed);
            layer.tables.push(TableTail { table: table.0, heads, slots: Vec::with_capacity(slots) });
            layer.tables.len() - 1
        });
        let tail = &mut layer.tables[at];
        // A segment holds fewer facts than it has bytes, and those fit 29 bits.
        let number = u32::try_from(tail.slots.len()).unwrap_or(NONE);
        let before = tail.heads.insert(a, number).unwrap_or(NONE);
        tail.slots.push(Slot { b, fact: offset | (change as u32) << KIND_SHIFT, before });
    }

    /// How many slots are held.
    pub(in crate::store) fn slots(&self) -> usize {
        self.layers.iter().flat_map(|layer| &layer.tables).map(|table| table.slots.len()).sum()
    }

    /// Forgets what the fold of `generation` wrote.
    pub(in crate::store) fn finish_fold(&mut self, generation: u32) {
        self.layers.retain(|layer| layer.generation != generation);
    }

    /// The rows of `table` with this `a` and `from <= b <= to`.
    pub(super) fn find(&self, table: u8, a: u64, from: u64, to: u64) -> TailRows {
        let mut found = TailRows::default();
        // Newest first, so a floor is met before what it hides.
        for layer in self.layers.iter().rev() {
            let Some(tail) = layer.tables.iter().find(|other| other.table == table) else { continue };
            let mut next = tail.heads.get(&a).copied().unwrap_or(NONE);
            while let Some(&slot) = usize::try_from(next).ok().and_then(|next| tail.slots.get(next)) {
                next = slot.before;
                let change = slot.change();
                if change == Change::Trim {
                    found.floor = found.floor.max(slot.b);
                } else if slot.b >= found.floor && (from..=to).contains(&slot.b) {
                    let fact = slot.fact & !(3 << KIND_SHIFT);
                    let is_gone = change == Change::Del;
                    found.rows.push(TailRow { b: slot.b, generation: layer.generation, fact, is_gone });
                }
            }
        }
        // A dense table gives them the other way round, which a stable sort sees.
        found.rows.sort_by_key(|row| row.b);
        found.rows.dedup_by_key(|row| row.b);
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use parlor_core::store::Table;

    #[test]
    fn the_newest_fact_about_a_row_counts() {
        let table = Table(128);
        let mut tail = RowTail::default();
        let put = |b| Fact::Put { table, a: 7, b, value: b"x" };
        tail.apply(1, 10, &put(1));
        tail.apply(1, 20, &put(2));
        tail.apply(1, 30, &Fact::Put { table: Table(1), a: 7, b: 1, value: b"resident" });
        tail.apply(1, 40, &Fact::Del { table, a: 7, b: 1 });
        tail.apply(2, 10, &Fact::Trim { table, a: 7, below: 2 });
        tail.apply(2, 20, &put(0));
        tail.apply(2, 30, &put(3));
        tail.apply(2, 40, &put(3));
        let rows = |tail: &RowTail, from, to| {
            let found = tail.find(128, 7, from, to);
            let rows: Vec<_> = found.rows.iter().map(|r| (r.b, r.generation, r.fact, r.is_gone)).collect();
            (rows, found.floor)
        };
        // The deleted row lies below the floor, and what was put after the floor does not.
        assert_eq!(rows(&tail, 0, u64::MAX), (vec![(0, 2, 20, false), (2, 1, 20, false), (3, 2, 40, false)], 2));
        assert_eq!(rows(&tail, 1, 2), (vec![(2, 1, 20, false)], 2));
        assert_eq!(tail.slots(), 7);
        tail.finish_fold(2);
        assert_eq!(rows(&tail, 0, 9), (vec![(1, 1, 40, true), (2, 1, 20, false)], 0));
        assert!(tail.find(129, 7, 0, 9).rows.is_empty());
    }
}
