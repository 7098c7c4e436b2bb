//! A bounded map that forgets the oldest half at once, so that nothing is kept of the order.

use crate::hash::{Map, map};
use core::hash::Hash;

/// Keeps at least the latest entries up to `room`, and at most twice that.
#[derive(Debug)]
pub(crate) struct Cache<K, V> {
    new: Map<K, V>,
    old: Map<K, V>,
    cost: usize,
    old_cost: usize,
    room: usize,
    seed: u64,
}

impl<K: Hash + Eq, V> Cache<K, V> {
    /// `room` in whatever the costs are given in.
    pub(crate) fn new(room: usize, seed: u64) -> Self {
        Self { new: map(seed), old: map(seed), cost: 0, old_cost: 0, room, seed }
    }

    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        self.new.get(key).or_else(|| self.old.get(key))
    }

    pub(crate) fn contains_key(&self, key: &K) -> bool {
        self.new.contains_key(key) || self.old.contains_key(key)
    }

    /// Adds or replaces an entry.
    pub(crate) fn insert(&mut self, key: K, value: V, cost: usize) {
        if self.cost + cost > self.room && !self.new.is_empty() {
            let size = self.new.len();
            self.old = core::mem::replace(&mut self.new, map(self.seed));
            self.new.reserve(size);
            self.old_cost = core::mem::take(&mut self.cost);
        }
        self.cost += cost;
        self.new.insert(key, value);
    }

    /// What the entries cost, those that were replaced included until they are forgotten.
    pub(crate) fn cost(&self) -> usize {
        self.cost + self.old_cost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_are_there_and_it_never_grows_beyond_twice_its_room() {
        let mut cache = Cache::new(100, 1);
        for n in 0..10_000_u32 {
            cache.insert(n, n, 1);
            assert!((n.saturating_sub(99)..=n).all(|k| cache.get(&k) == Some(&k)), "{n}");
            assert!(cache.new.len() + cache.old.len() <= 200 && cache.cost() <= 200);
        }
        cache.insert(9_950, 1, 1);
        assert_eq!(cache.get(&9_950), Some(&1), "the latest value of a key is found first");
    }
}
