//! Filters: which keys a run certainly does not hold, so that it need not be asked.
//!
//! A filter is a list of blocks, each for a stretch of the run's keys. A block is a Bloom filter whose bits for one key
//! lie in 64 bytes. Keys with the same `a` whose `b` differ only in their lowest five bits share their bits: of a dense
//! table one key in 32 costs memory.

use std::collections::HashMap;
use std::sync::Arc;

use super::RowKey;

/// Keys of a block; with [`BITS`] each it fits one page of the index.
const BLOCK_KEYS: usize = 6_300;
/// Bits a key: with [`PROBES`] of them set, a run is asked in vain four times in ten thousand. A question in vain
/// costs a page of the index, and a new row is one for every run.
const BITS: usize = 20;
const PROBES: u32 = 7;
const LINE_BYTES: usize = 64;
/// Keys that share their bits.
const SHARED_BITS: u32 = 5;

/// The number under which a key is known to filters. It is part of the stored form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct KeyHash(u64);

impl KeyHash {
    pub(super) fn of(key: RowKey) -> Self {
        let mut x = key.a ^ (key.b >> SHARED_BITS).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        x = (x ^ (x >> 32)).wrapping_mul(0xD6E8_FEB8_6659_FD93);
        x = (x ^ (x >> 32)).wrapping_mul(0xD6E8_FEB8_6659_FD93);
        Self(x ^ (x >> 32))
    }
}

/// The bits of a key: where its line begins, and the bits in it.
fn bits(KeyHash(hash): KeyHash, lines: usize) -> (usize, impl Iterator<Item = (usize, u8)>) {
    // The upper half, scaled to the count of lines, of which a block has a few hundred.
    let line = usize::try_from(((hash >> 32) * lines as u64) >> 32).unwrap_or(0);
    let rest = hash.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let bits = (0..PROBES).map(move |probe| {
        let bit = (rest >> (probe * 9)) & 511;
        ((bit >> 3) as usize, 1 << (bit & 7))
    });
    (line * LINE_BYTES, bits)
}

fn may_hold(block: &[u8], hash: KeyHash) -> bool {
    let (start, mut bits) = bits(hash, block.len() / LINE_BYTES);
    let Some(line) = block.get(start..start + LINE_BYTES) else { return true };
    bits.all(|(byte, bit)| line[byte] & bit != 0)
}

/// Makes the blocks of one run from its keys in ascending order.
#[derive(Debug, Default)]
pub(super) struct FilterWriter {
    first: RowKey,
    last: Option<KeyHash>,
    hashes: Vec<KeyHash>,
}

impl FilterWriter {
    pub(super) fn push(&mut self, key: RowKey) {
        let hash = KeyHash::of(key);
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

    /// False: the run holds no row of this key, which has this hash.
    pub(super) fn may_hold(&self, key: RowKey, hash: KeyHash) -> bool {
        let after = self.blocks.partition_point(|(first, _)| *first <= key);
        match after.checked_sub(1).and_then(|at| self.blocks.get(at)) {
            Some((_, block)) => may_hold(block, hash),
            None => self.blocks.is_empty(),
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.blocks.iter().map(|(_, block)| block.len()).sum()
    }
}

/// Asks the filter of one run about ascending keys.
pub(super) struct FilterScan<'f> {
    /// `None`: nothing is known.
    filter: Option<&'f RunFilter>,
    /// The block that the last key belongs to.
    at: usize,
}

impl<'f> FilterScan<'f> {
    pub(super) fn new(filter: Option<&'f RunFilter>) -> Self {
        Self { filter, at: 0 }
    }

    /// False: the run holds no row of this key, which has this hash.
    pub(super) fn may_hold(&mut self, key: RowKey, hash: KeyHash) -> bool {
        let Some(filter) = self.filter else { return true };
        while filter.blocks.get(self.at + 1).is_some_and(|(first, _)| *first <= key) {
            self.at += 1;
        }
        match filter.blocks.get(self.at) {
            Some((first, block)) => *first <= key && may_hold(block, hash),
            None => true,
        }
    }
}

/// The filters of all runs that have one in memory.
#[derive(Debug, Clone, Default)]
pub(in crate::store) struct Filters {
    pub(super) runs: HashMap<(u8, u64), RunFilter>,
}

impl Filters {
    /// The filter of a run.
    pub(super) fn run(&self, table: u8, run: u64) -> Option<&RunFilter> {
        self.runs.get(&(table, run))
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
        let may_hold = |key| filter.may_hold(key, KeyHash::of(key));
        assert!((1000..41_000).all(|n| may_hold(key(n))));
        assert!(!may_hold(key(0)), "before the first");
        let mut scan = FilterScan::new(Some(&filter));
        assert!(!scan.may_hold(key(0), KeyHash::of(key(0))));
        assert!((1000..41_000).all(|n| scan.may_hold(key(n), KeyHash::of(key(n)))));
        assert!(RunFilter::default().may_hold(key(0), KeyHash::of(key(0))), "no blocks say nothing");
        let wrong = (1000..41_000).filter(|&n| may_hold(RowKey { b: 1 << 20, ..key(n) })).count();
        assert!(wrong < 60, "{wrong} of 40,000");
    }
}
