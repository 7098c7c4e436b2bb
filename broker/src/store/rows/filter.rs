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
/// Bits a key: with [`PROBES`] of them set, a run is asked in vain three times in ten thousand. A question in vain
/// costs a page of the index, and a new row is one for every run.
const BITS: usize = 20;
const PROBES: u32 = 7;
/// Keys that share their bits.
const SHARED_BITS: u32 = 5;

/// The bits that are set for one key lie in one line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Line([u64; 8]);

const LINE_BYTES: usize = 64;

/// What a key is known by to every filter: the choice of a line, and the bits in it. It is part of the stored form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct KeyBits {
    line: u32,
    mask: Line,
}

impl KeyBits {
    pub(super) fn of(key: RowKey) -> Self {
        let mut x = key.a ^ (key.b >> SHARED_BITS).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        x = (x ^ (x >> 32)).wrapping_mul(0xD6E8_FEB8_6659_FD93);
        x = (x ^ (x >> 32)).wrapping_mul(0xD6E8_FEB8_6659_FD93);
        x ^= x >> 32;
        let rest = x.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let mut mask = Line::default();
        for probe in 0..PROBES {
            let bit = (rest >> (probe * 9)) & 511;
            mask.0[(bit >> 6) as usize] |= 1 << (bit & 63);
        }
        // The upper half of 64 bits.
        #[allow(clippy::cast_possible_truncation)]
        let line = (x >> 32) as u32;
        Self { line, mask }
    }

    /// Which line of so many.
    fn line(&self, lines: usize) -> usize {
        // The product is below `lines` times 2^32.
        usize::try_from((u64::from(self.line) * lines as u64) >> 32).unwrap_or(0)
    }

    /// False when the key is not in the block. All bits are looked at together: to stop at the first that is missing
    /// would be a branch that nobody can predict.
    fn is_in(&self, block: &[Line]) -> bool {
        let Some(line) = block.get(self.line(block.len())) else { return true };
        let missing = self.mask.0.iter().zip(&line.0).fold(0, |missing, (mask, line)| missing | (mask & !line));
        missing == 0
    }
}

/// Makes the blocks of one run from its keys in ascending order.
#[derive(Debug, Default)]
pub(super) struct FilterWriter {
    first: RowKey,
    last: Option<RowKey>,
    keys: Vec<KeyBits>,
}

impl FilterWriter {
    pub(super) fn push(&mut self, key: RowKey) {
        let shared = RowKey { b: key.b >> SHARED_BITS, ..key };
        if self.last != Some(shared) {
            if self.keys.is_empty() {
                self.first = key;
            }
            self.keys.push(KeyBits::of(key));
            self.last = Some(shared);
        }
    }

    /// True when [`Self::finish`] is due.
    pub(super) fn is_full(&self) -> bool {
        self.keys.len() >= BLOCK_KEYS
    }

    /// The first key and the block for it and all that came since the last call.
    pub(super) fn finish(&mut self) -> Option<(RowKey, Vec<u8>)> {
        if self.keys.is_empty() {
            return None;
        }
        let mut block = vec![Line::default(); (self.keys.len() * BITS).div_ceil(LINE_BYTES * 8)];
        for key in self.keys.drain(..) {
            let at = key.line(block.len());
            for (line, mask) in block[at].0.iter_mut().zip(key.mask.0) {
                *line |= mask;
            }
        }
        Some((self.first, block.iter().flat_map(|line| line.0).flat_map(u64::to_le_bytes).collect()))
    }
}

/// The blocks of one run, by ascending first key.
#[derive(Debug, Clone, Default)]
pub(super) struct RunFilter {
    blocks: Vec<(RowKey, Arc<[Line]>)>,
    /// The run is whole, so no block will follow.
    pub(super) is_whole: bool,
}

impl RunFilter {
    /// First key of the last block.
    pub(super) fn last(&self) -> Option<RowKey> {
        self.blocks.last().map(|(first, _)| *first)
    }

    pub(super) fn push(&mut self, first: RowKey, block: &[u8]) {
        let (words, _) = block.as_chunks::<8>();
        let lines = words.chunks_exact(8).map(|words| {
            let mut line = Line::default();
            for (to, word) in line.0.iter_mut().zip(words) {
                *to = u64::from_le_bytes(*word);
            }
            line
        });
        self.blocks.push((first, lines.collect()));
    }

    /// False: the run holds no row of this key, which has these bits.
    pub(super) fn may_hold(&self, key: RowKey, bits: &KeyBits) -> bool {
        let after = self.blocks.partition_point(|(first, _)| *first <= key);
        match after.checked_sub(1).and_then(|at| self.blocks.get(at)) {
            Some((_, block)) => bits.is_in(block),
            None => self.blocks.is_empty(),
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.blocks.iter().map(|(_, block)| block.len() * LINE_BYTES).sum()
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

    /// False: the run holds no row of this key, which has these bits.
    pub(super) fn may_hold(&mut self, key: RowKey, bits: &KeyBits) -> bool {
        let Some(filter) = self.filter else { return true };
        while filter.blocks.get(self.at + 1).is_some_and(|(first, _)| *first <= key) {
            self.at += 1;
        }
        match filter.blocks.get(self.at) {
            Some((first, block)) => *first <= key && bits.is_in(block),
            None => true,
        }
    }
}

/// The filters of all runs that have one in memory.
#[derive(Debug, Clone, Default)]
pub(in crate::store) struct Filters {
    pub(super) runs: HashMap<(u8, u64), Arc<RunFilter>>,
}

impl Filters {
    /// The filter of a run.
    pub(super) fn run(&self, table: u8, run: u64) -> Option<&RunFilter> {
        self.runs.get(&(table, run)).map(Arc::as_ref)
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
        let may_hold = |key| filter.may_hold(key, &KeyBits::of(key));
        assert!((1000..41_000).all(|n| may_hold(key(n))));
        assert!(!may_hold(key(0)), "before the first");
        let mut scan = FilterScan::new(Some(&filter));
        assert!(!scan.may_hold(key(0), &KeyBits::of(key(0))));
        assert!((1000..41_000).all(|n| scan.may_hold(key(n), &KeyBits::of(key(n)))));
        assert!(RunFilter::default().may_hold(key(0), &KeyBits::of(key(0))), "no blocks say nothing");
        let wrong = (1000..41_000).filter(|&n| may_hold(RowKey { b: 1 << 20, ..key(n) })).count();
        assert!(wrong < 60, "{wrong} of 40,000");
    }
}
