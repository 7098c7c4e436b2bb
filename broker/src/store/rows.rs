//! Rows: what the messaging rooms keep. Changes that are only in the journal lie in layers, one a segment, over the
//! table of the index; a question is answered from the table up, each layer over what is below it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use parlor_core::store::{Answer, Direction, Fact, Kind, Query, RowRecord, RowRef, Snapshot, Table, What};
use redb::{Database, ReadOnlyTable, ReadableDatabase, ReadableTable};

use super::StoreError;
use super::schema::ROWS;

/// What the facts of one segment do to rows.
#[derive(Debug, Clone, Default)]
pub(super) struct Layer {
    /// Rows below these are gone from everything under the layer: (table, a) -> the lowest `b` that stays.
    floors: BTreeMap<(u8, u64), u64>,
    /// The last value of each row, `None` when it was deleted. They are newer than the floors.
    rows: BTreeMap<(u8, u64, u64), Option<Vec<u8>>>,
}

impl Layer {
    /// Takes account of `fact`, if it is about rows.
    pub(super) fn apply(&mut self, fact: &Fact<'_>) {
        match *fact {
            Fact::Put { table, a, b, value } => drop(self.rows.insert((table.0, a, b), Some(value.to_vec()))),
            Fact::Del { table, a, b } => drop(self.rows.insert((table.0, a, b), None)),
            Fact::Trim { table, a, below } => {
                let gone: Vec<_> = self.rows.range((table.0, a, 0)..(table.0, a, below)).map(|(&key, _)| key).collect();
                for key in gone {
                    self.rows.remove(&key);
                }
                let floor = self.floors.entry((table.0, a)).or_default();
                *floor = below.max(*floor);
            }
            _ => {}
        }
    }

    /// Writes the layer into the table.
    pub(super) fn write(&self, table: &mut redb::Table<'_, (u8, u64, u64), &'static [u8]>) -> Result<(), StoreError> {
        for (&(name, a), &below) in &self.floors {
            table.retain_in((name, a, 0)..(name, a, below), |_, _| false)?;
        }
        for (&key, value) in &self.rows {
            match value {
                Some(value) => drop(table.insert(key, value.as_slice())?),
                None => drop(table.remove(key)?),
            }
        }
        Ok(())
    }
}

/// The layers of the segments that are not folded, oldest first.
#[derive(Debug, Default)]
pub(super) struct RowTail {
    layers: VecDeque<(u32, Layer)>,
}

impl RowTail {
    /// Notes a fact of segment `generation`.
    pub(super) fn apply(&mut self, generation: u32, fact: &Fact<'_>) {
        let (Fact::Put { table, .. } | Fact::Del { table, .. } | Fact::Trim { table, .. }) = *fact else { return };
        if table.kind() == Kind::Resident {
            // Nobody asks for it before the next start.
            return;
        }
        if self.layers.back().is_none_or(|(last, _)| *last != generation) {
            self.layers.push_back((generation, Layer::default()));
        }
        if let Some((_, layer)) = self.layers.back_mut() {
            layer.apply(fact);
        }
    }

    /// Forgets what the fold of `generation` wrote.
    pub(super) fn finish_fold(&mut self, generation: u32) {
        self.layers.retain(|(other, _)| *other != generation);
    }
}

/// Answers `query`. Resident tables are never asked for, and have no rows here.
pub(super) fn answer(db: &Database, tail: &RowTail, query: &Query) -> Result<Answer, StoreError> {
    let mut answer = Answer { token: query.token, bytes: vec![], rows: 0, is_partial: false };
    if query.table.kind() == Kind::Resident {
        return Ok(answer);
    }
    let table = db.begin_read()?.open_table(ROWS)?;
    let name = query.table.0;
    match &query.what {
        What::Range { a, from, until, direction, max_rows, max_bytes } => {
            let rows = range(&table, tail, (name, *a, *from), (name, *a, *until.max(from)))?;
            let rows: Box<dyn Iterator<Item = _>> = match direction {
                Direction::Up => Box::new(rows.iter()),
                Direction::Down => Box::new(rows.iter().rev()),
            };
            let mut bytes = 0;
            for (&(_, a, b), value) in rows {
                if answer.rows >= *max_rows || bytes >= *max_bytes as usize {
                    answer.is_partial = true;
                    break;
                }
                bytes += value.len();
                answer.rows += 1;
                RowRef { a, b, value }.encode(&mut answer.bytes);
            }
        }
        What::Rows(keys) => {
            for (a, b) in keys.iter().copied().collect::<BTreeSet<_>>() {
                if let Some(value) = one(&table, tail, (name, a, b))? {
                    answer.rows += 1;
                    RowRef { a, b, value: &value }.encode(&mut answer.bytes);
                }
            }
        }
    }
    Ok(answer)
}

type Key = (u8, u64, u64);

fn range(
    table: &ReadOnlyTable<Key, &'static [u8]>,
    tail: &RowTail,
    from: Key,
    until: Key,
) -> Result<BTreeMap<Key, Vec<u8>>, StoreError> {
    let mut rows = BTreeMap::new();
    for row in table.range(from..until)? {
        let (key, value) = row?;
        rows.insert(key.value(), value.value().to_vec());
    }
    for (_, layer) in &tail.layers {
        if let Some(&below) = layer.floors.get(&(from.0, from.1)) {
            rows.retain(|&(_, _, b), _| b >= below);
        }
        for (&key, value) in layer.rows.range(from..until) {
            match value {
                Some(value) => drop(rows.insert(key, value.clone())),
                None => drop(rows.remove(&key)),
            }
        }
    }
    Ok(rows)
}

fn one(table: &ReadOnlyTable<Key, &'static [u8]>, tail: &RowTail, key: Key) -> Result<Option<Vec<u8>>, StoreError> {
    for (_, layer) in tail.layers.iter().rev() {
        if let Some(value) = layer.rows.get(&key) {
            return Ok(value.clone());
        }
        if layer.floors.get(&(key.0, key.1)).is_some_and(|&below| key.2 < below) {
            return Ok(None);
        }
    }
    Ok(table.get(key)?.map(|value| value.value().to_vec()))
}

/// Reads the rows and keys that the broker must know when it starts.
pub(super) fn read_snapshot(
    rows: &impl ReadableTable<Key, &'static [u8]>,
    snapshot: &mut Snapshot,
) -> Result<(), StoreError> {
    for row in rows.iter()? {
        let (key, value) = row?;
        let (table, a, b) = key.value();
        let table = Table(table);
        match table.kind() {
            Kind::Resident => snapshot.rows.push(RowRecord { table, a, b, value: value.value().to_vec() }),
            Kind::Paged => {}
            Kind::Keyed => snapshot.keys.push((table, a, b)),
        }
    }
    Ok(())
}
