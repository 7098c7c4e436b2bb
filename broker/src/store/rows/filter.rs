//! Filters: which keys a run certainly does not hold, so that it need not be asked.
//!
//! A filter is a list of blocks, each for a stretch of the run's keys. A block is a Bloom filter whose bits for one key
//! lie in 64 bytes. Keys with the same `a` whose `b` differ only in their lowest five bits share their bits: of a dense
//! table one key in 32 costs memory.

use std::collections::HashMap;
use std::sync::Arc;

use super::RowKey;

/// Keys of a block; with [`BITS`] each it fits one page of the index.
const BLOCK_KEYS: usize = 12_000;
/// Bits a key: with [`PROBES`] of them set, a run is asked in vain two times in a hundred.
const BITS: usize = 10;
const PROBES: u32 = 6;
const LINE_BYTES: usize = 64;
/// Keys that share their bits.
const SHARED_BITS: u32 = 5;

/// The number under which a key is known to filters. It is part of the stored form.
fn hash(key: RowKey) -> u64 {
    let mut x = key.a ^ (key.b >> SHARED_BITS).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    x = (x ^ (x >> 32)).wrapping_mul(0xD6E8_FEB8_6659_FD93);
    x = (x ^ (x >> 32)).wrapping_mul(0xD6E8_FEB8_6659_FD93);
    x ^ (x >> 32)
}

/// The bits of a key: where its line begins, and the bits in it.
fn bits(hash: u64, lines: usize) -> (usize, impl Iterator<Item = (usize, u8)>) {
    // The upper half, scaled to the count of lines, of which a block has a few hundred.
    let line = usize::try_from(((hash >> 32) * lines as u64) >> 32).unwrap_or(0);
    let rest = hash.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let bits = (0..PROBES).map(move |probe| {
        let bit = (rest >> (probe * 9)) & 511;
        ((bit >> 3) as usize, 1 << (bit & 7))
    });
    (line * LINE_BYTES, bits)
}

fn may_hold(block: &[u8], hash: u64) -> bool {
    let (start, mut bits) = bits(hash, block.len() / LINE_BYTES);
    let Some(line) = block.get(start..start + LINE_BYTES) else { return true };
    bits.all(|(byte, bit)| line[byte] & bit != 0)
}

/// Makes the blocks of one run from its keys in ascending order.
#[derive(Debug, Default)]
pub(super) struct FilterWriter {
    first: RowKey,
    last: Option<u64>,
    hashes: Vec<u64>,
}

impl FilterWriter {
    pub(super) fn push(&mut self, key: RowKey) {
        let hash = hash(key);
        if self.last != Some(hash) {
            if self.hashes.is_empty() {
                self.first = key;
            }
            self.hashes.push(hash);
            self.last = Some(hash);
        }
    }

    /// True when [`Self::finish`] is due.
    pub(super) fn is_full(&self) -> bool {
        self.hashes.len() >= BLOCK_KEYS
    }

    /// The first key and the block for it and all that came since the last call.
    pub(super) fn finish(&mut self) -> Option<(RowKey, Vec<u8>)> {
        if self.hashes.is_empty() {
            return None;
        }
        let lines = (self.hashes.len() * BITS).div_ceil(LINE_BYTES * 8);
        let mut block = vec![0; lines * LINE_BYTES];
        for hash in self.hashes.drain(..) {
            let (start, bits) = bits(hash, lines);
            for (byte, bit) in bits {
                block[start + byte] |= bit;
            }
        }
        // A key of the next block may share its bits with the last of this one, and must be in both.
        self.last = None;
        Some((self.first, block))
    }
}

/// The blocks of one run, by ascending first key.
#[derive(Debug, Clone, Default)]
pub(super) struct RunFilter {
    blocks: Vec<(RowKey, Arc<[u8]>)>,
}

impl RunFilter {
    /// First key of the last block.
    pub(super) fn last(&self) -> Option<RowKey> {
        self.blocks.last().map(|(first, _)| *first)
    }

    pub(super) fn push(&mut self, first: RowKey, block: &[u8]) {
        self.blocks.push((first, Arc::from(block)));
    }

    pub(super) fn bytes(&self) -> usize {
        self.blocks.iter().map(|(_, block)| block.len()).sum()
    }
}

/// The filters of all runs that have one in memory.
#[derive(Debug, Clone, Default)]
pub(in crate::store) struct Filters {
    pub(super) runs: HashMap<(u8, u64), RunFilter>,
}

impl Filters {
    /// False: the run holds no row of this key.
    pub(super) fn may_hold(&self, table: u8, run: u64, key: RowKey) -> bool {
        let Some(filter) = self.runs.get(&(table, run)) else { return true };
        let after = filter.blocks.partition_point(|(first, _)| *first <= key);
        match after.checked_sub(1).and_then(|at| filter.blocks.get(at)) {
            Some((_, block)) => may_hold(block, hash(key)),
            None => filter.blocks.is_empty(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_held_and_few_others_seem_to_be() {
        let key = |n: u64| RowKey { a: n / 3, b: n % 3 * 40 };
        let (mut writer, mut filter) = (FilterWriter::default(), RunFilter::default());
        for n in 1000..41_000 {
            writer.push(key(n));
            if writer.is_full() {
                let (first, block) = writer.finish().expect("it is full");
                assert!(block.len() < crate::store::schema::CHUNK_BYTES);
                filter.push(first, &block);
            }
        }
        let (first, block) = writer.finish().expect("keys are left");
        filter.push(first, &block);
        assert!(writer.finish().is_none());
        let filters = Filters { runs: HashMap::from([((128, 1), filter)]) };
        assert!((1000..41_000).all(|n| filters.may_hold(128, 1, key(n))));
        assert!(!filters.may_hold(128, 1, key(0)), "before the first");
        assert!(filters.may_hold(128, 2, key(0)), "no filter says nothing");
        let wrong = (1000..41_000).filter(|&n| filters.may_hold(128, 1, RowKey { b: 1 << 20, ..key(n) })).count();
        assert!(wrong < 1200, "{wrong} of 40,000");
    }
}
