//! Sets of queue indexes kept as ranges: acknowledgements mostly come in order, so a set is mostly one range.

use parlor_core::store::bytes::{DecodeError, Reader, put_int};

/// Ascending, disjoint, not touching ranges `start..end`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Ranges(Vec<(u64, u64)>);

impl Ranges {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.0.iter().copied()
    }

    /// Every index, ascending.
    pub(super) fn indexes(&self) -> impl Iterator<Item = u64> + '_ {
        self.0.iter().flat_map(|&(start, end)| start..end)
    }

    pub(super) fn contains(&self, index: u64) -> bool {
        let after = self.0.partition_point(|&(start, _)| start <= index);
        after > 0 && index < self.0[after - 1].1
    }

    pub(super) fn insert(&mut self, start: u64, end: u64) {
        if start >= end {
            return;
        }
        // The ranges that touch the new one are `from..to`.
        let from = self.0.partition_point(|&(_, e)| e < start);
        let to = self.0.partition_point(|&(s, _)| s <= end);
        if from == to {
            self.0.insert(from, (start, end));
            return;
        }
        let merged = (start.min(self.0[from].0), end.max(self.0[to - 1].1));
        self.0[from] = merged;
        self.0.drain(from + 1..to);
    }

    /// Takes `start..end` out.
    pub(super) fn remove(&mut self, start: u64, end: u64) {
        if start >= end {
            return;
        }
        let from = self.0.partition_point(|&(_, e)| e <= start);
        let to = self.0.partition_point(|&(s, _)| s < end);
        if from >= to {
            return;
        }
        let (first, last) = (self.0[from].0, self.0[to - 1].1);
        let left = (first < start).then_some((first, start));
        let right = (last > end).then_some((end, last));
        self.0.splice(from..to, left.into_iter().chain(right));
    }

    /// The end of the range that holds `index`, or `index`.
    pub(super) fn skip(&self, index: u64) -> u64 {
        let after = self.0.partition_point(|&(start, _)| start <= index);
        match after.checked_sub(1).map(|at| self.0[at].1) {
            Some(end) if end > index => end,
            _ => index,
        }
    }

    /// Appends the byte form, relative to `base`, at or below every index: count, then gap and length of each.
    pub(super) fn encode(&self, base: u64, out: &mut Vec<u8>) {
        put_int(out, self.0.len() as u64);
        let mut at = base;
        for &(start, end) in &self.0 {
            put_int(out, start - at);
            put_int(out, end - start);
            at = end;
        }
    }

    pub(super) fn read(base: u64, r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut ranges = Self::default();
        let mut at = base;
        for _ in 0..r.int()? {
            let start = at.checked_add(r.int()?).ok_or(DecodeError::IntegerTooLong)?;
            at = start.checked_add(r.int()?).ok_or(DecodeError::IntegerTooLong)?;
            ranges.insert(start, at);
        }
        Ok(ranges)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_set_of_ranges_is_a_set() {
        let mut seed = 1u64;
        let mut next = |below: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) % below
        };
        let (mut ranges, mut set) = (Ranges::default(), BTreeSet::new());
        for step in 0..20_000 {
            let start = next(60);
            let end = start + next(6);
            if next(2) == 0 {
                ranges.insert(start, end);
                set.extend(start..end);
            } else {
                ranges.remove(start, end);
                set.retain(|i| !(start..end).contains(i));
            }
            assert!(ranges.indexes().eq(set.iter().copied()), "step {step}: {ranges:?}");
            assert!(ranges.0.windows(2).all(|w| w[0].1 < w[1].0), "step {step}: {ranges:?}");
            let index = next(70);
            assert_eq!(ranges.contains(index), set.contains(&index));
            assert_eq!(ranges.skip(index), (index..=200).find(|i| !set.contains(i)).unwrap());
            let base = set.first().copied().unwrap_or(9);
            let mut bytes = vec![];
            ranges.encode(base, &mut bytes);
            assert_eq!(Ranges::read(base, &mut Reader::new(&bytes)), Ok(ranges.clone()));
        }
    }
}
