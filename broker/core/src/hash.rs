//! Hash tables that a seed makes replayable.

use foldhash::fast::FixedState;
use hashbrown::HashMap;

/// A hash map whose order depends on its seed and its keys alone.
pub(crate) type Map<K, V> = HashMap<K, V, FixedState>;

/// An empty map.
pub(crate) fn map<K, V>(seed: u64) -> Map<K, V> {
    HashMap::with_hasher(FixedState::with_seed(seed))
}
