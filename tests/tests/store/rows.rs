//! Random rows as messaging rooms could write them, and questions about them.

use std::collections::BTreeMap;

use parlor_core::store::memory::MemoryStore;
use parlor_core::store::{Answer, Batch, Direction, Fact, Query, Table, What};
use parlor_tests::disk::Seed;

/// Small state, overwritten often; never asked for.
const RESIDENT: [Table; 2] = [Table(1), Table(127)];
/// Dense and ascending, as message bodies and mailbox entries are.
const BODIES: Table = Table(128);
const BOXES: Table = Table(129);
/// Anything anywhere, which no room does, but the seam allows.
const WILD: Table = Table(191);
/// Scattered keys, as of duplicates.
const KEYS: [Table; 2] = [Table(192), Table(255)];

const CONVERSATIONS: u64 = 7;
const ACCOUNTS: u64 = 5;
/// So few that rows are often written again and deleted.
const HASHES: u64 = 60;

/// Makes facts about rows.
#[derive(Debug, Clone)]
pub struct RowTraffic {
    /// The next `b` of each (table, a) of a dense table.
    next: BTreeMap<(Table, u64), u64>,
    wall_ms: u64,
    /// Values are up to so many bytes, once in a while sixty times as many.
    value_bytes: u64,
}

/// Spreads small numbers over all of `u64`, so that keys of every length occur.
fn spread(number: u64) -> u64 {
    if number == 2 { u64::MAX } else { Seed(number).draw() >> (number % 8 * 8) }
}

impl RowTraffic {
    pub fn new(value_bytes: u64) -> Self {
        Self { next: BTreeMap::new(), wall_ms: 0, value_bytes }
    }

    /// Adds one fact to `batch`.
    pub fn fact(&mut self, seed: &mut Seed, batch: &mut Batch) {
        match seed.below(100) {
            0..=24 => self.append(seed, batch, BODIES, CONVERSATIONS),
            25..=44 => self.append(seed, batch, BOXES, ACCOUNTS),
            45..=59 => {
                let (a, b) = (seed.below(ACCOUNTS), spread(seed.below(HASHES)));
                let table = KEYS[seed.below(2) as usize];
                self.put(seed, batch, table, a, b);
            }
            60..=69 => {
                let table = RESIDENT[seed.below(2) as usize];
                let (a, b) = (seed.below(4), spread(seed.below(5)));
                self.put(seed, batch, table, a, b);
            }
            70..=75 => {
                let (a, b) = (spread(seed.below(3)), seed.below(40));
                self.put(seed, batch, WILD, a, b);
            }
            // A body that is wiped, or written again.
            76..=79 => {
                let a = spread(seed.below(CONVERSATIONS));
                let next = self.next.get(&(BODIES, a)).copied().unwrap_or(0);
                if next > 0 {
                    let b = seed.below(next);
                    self.put(seed, batch, BODIES, a, b);
                }
            }
            80..=91 => {
                let (table, a, b) = match seed.below(4) {
                    0 => (RESIDENT[seed.below(2) as usize], seed.below(4), spread(seed.below(5))),
                    1 => (WILD, spread(seed.below(3)), seed.below(40)),
                    2 => (BODIES, spread(seed.below(CONVERSATIONS)), seed.below(50)),
                    _ => (KEYS[seed.below(2) as usize], seed.below(ACCOUNTS), spread(seed.below(HASHES))),
                };
                batch.push(&Fact::Del { table, a, b });
            }
            92..=96 => {
                let (table, a, most) = match seed.below(6) {
                    0 => (WILD, spread(seed.below(3)), 40),
                    1 => (KEYS[0], seed.below(ACCOUNTS), u64::MAX),
                    2 | 3 => {
                        let a = spread(seed.below(CONVERSATIONS));
                        (BODIES, a, self.next.get(&(BODIES, a)).copied().unwrap_or(0))
                    }
                    _ => {
                        let a = spread(seed.below(ACCOUNTS));
                        (BOXES, a, self.next.get(&(BOXES, a)).copied().unwrap_or(0))
                    }
                };
                let below = seed.below(most.saturating_add(1).max(1));
                batch.push(&Fact::Trim { table, a, below });
            }
            _ => {
                self.wall_ms += seed.below(100_000);
                batch.push(&Fact::Clock { wall_ms: self.wall_ms });
            }
        }
    }

    fn append(&mut self, seed: &mut Seed, batch: &mut Batch, table: Table, count: u64) {
        let a = spread(seed.below(count));
        for _ in 0..=seed.below(4) {
            let next = self.next.entry((table, a)).or_default();
            let b = *next;
            *next += 1;
            self.put(seed, batch, table, a, b);
        }
    }

    fn put(&mut self, seed: &mut Seed, batch: &mut Batch, table: Table, a: u64, b: u64) {
        let mut len = seed.below(self.value_bytes.max(1));
        if seed.one_in(60) {
            len *= 60;
        }
        let value: Vec<u8> = (0..len).map(|_| seed.draw() as u8).collect();
        batch.push(&Fact::Put { table, a, b, value: &value });
    }
}

/// Questions about everything there could be, with limits drawn from `seed`.
pub fn queries(seed: &mut Seed) -> Vec<Query> {
    let mut all = vec![];
    for (table, firsts, most) in [(BODIES, CONVERSATIONS, 300), (BOXES, ACCOUNTS, 300), (WILD, 3, 40)] {
        for number in 0..firsts {
            let a = spread(number);
            let (from, until) = match seed.below(4) {
                0 => (0, u64::MAX),
                1 => (0, seed.below(most)),
                2 => (seed.below(most), u64::MAX),
                _ => (seed.below(most), seed.below(most)),
            };
            all.push(range(seed, table, a, from, until));
        }
        let keys = (0..seed.below(60)).map(|_| (spread(seed.below(firsts + 1)), seed.below(most))).collect();
        all.push(Query { token: seed.draw(), table, what: What::Rows(keys) });
    }
    for table in KEYS {
        let keys = (0..seed.below(40)).map(|_| (seed.below(ACCOUNTS + 1), spread(seed.below(HASHES)))).collect();
        all.push(Query { token: seed.draw(), table, what: What::Rows(keys) });
        let a = seed.below(ACCOUNTS);
        all.push(range(seed, table, a, 0, u64::MAX));
    }
    all
}

fn range(seed: &mut Seed, table: Table, a: u64, from: u64, until: u64) -> Query {
    let direction = if seed.one_in(2) { Direction::Up } else { Direction::Down };
    let max_rows = if seed.one_in(2) { 10_000 } else { seed.below(9) as u32 };
    let max_bytes = if seed.one_in(2) { u32::MAX } else { seed.below(900) as u32 };
    Query { token: seed.draw(), table, what: What::Range { a, from, until, direction, max_rows, max_bytes } }
}

/// Compares answers; `Err` says what differs.
pub fn same_answer(query: &Query, model: &MemoryStore, found: &Answer) -> Result<(), String> {
    let expected = model.answer(query);
    if expected != *found {
        let rows = |answer: &Answer| answer.iter().map(|row| (row.a, row.b, row.value.len())).collect::<Vec<_>>();
        return Err(format!(
            "{query:?}\nexpected partial {} {:?}\n   found partial {} {:?}",
            expected.is_partial,
            rows(&expected),
            found.is_partial,
            rows(found)
        ));
    }
    Ok(())
}
