//! Which client ids were used: the latest ones exactly, all others by a filter that may say "perhaps".

use super::cache::Cache;
use super::model::AccountNo;
use crate::store::bytes::{DecodeError, Reader, put_int};
use std::collections::VecDeque;

/// Client ids kept exactly, in memory (twice as many at most); older ones are asked of the store when the filter says "perhaps".
const RECENT: usize = 32_768;
/// Keys of the first part of the filter; each further part takes twice as many, up to the last.
const FIRST_KEYS: usize = 1 << 16;
const MOST_KEYS: usize = 1 << 21;
/// A part that is not full takes no more keys after this time, so that it can be dropped in one piece.
const PART_MS: u64 = 24 * 3_600_000;
/// Parts are kept this much longer than rows, at least.
const KEEP_MS: u64 = 9 * PART_MS;
/// Bits for each key, and 64-bit words a block.
const BITS: usize = 16;
const WORDS: usize = 8;

/// A hash that stays the same over restarts, versions and machines, as it is stored. Nobody gains anything by making
/// two of his own ids meet.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Hash(u64);

impl Hash {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed ^ 0x9E37_79B9_7F4A_7C15)
    }

    pub(crate) fn int(&mut self, value: u64) {
        self.0 = mix((self.0.rotate_left(29) ^ value).wrapping_mul(0xA24B_AED4_963E_E407));
    }

    /// Length first, so that two strings never run together.
    pub(crate) fn write(&mut self, bytes: &[u8]) {
        self.int(bytes.len() as u64);
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.int(u64::from_le_bytes(word));
        }
    }

    pub(crate) fn finish(self) -> u64 {
        mix(self.0)
    }
}

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// What became of a client id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Known {
    /// Conversation, or account of the device whose command it was.
    pub(crate) conv: u32,
    /// Seq, or number of the command.
    pub(crate) seq: u64,
    pub(crate) content: u64,
}

impl Known {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = vec![];
        put_int(&mut out, self.conv.into());
        put_int(&mut out, self.seq);
        out.extend_from_slice(&self.content.to_le_bytes());
        out
    }

    pub(crate) fn decode(value: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new(value);
        let conv = u32::try_from(r.int()?).map_err(|_| DecodeError::IntegerTooLong)?;
        let seq = r.int()?;
        let mut content = [0; 8];
        for byte in &mut content {
            *byte = r.byte()?;
        }
        Ok(Self { conv, seq, content: u64::from_le_bytes(content) })
    }
}

/// What is known of a client id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    /// Certainly never used, or so long ago that it is forgotten.
    New,
    Used(Known),
    /// The store must be asked.
    Perhaps,
}

/// Names a client id: account, and a hash of terminal and id.
pub(crate) type Key = (AccountNo, u64);

/// The key of a client id.
pub(crate) fn key(account: AccountNo, client_id: &str, kind: u64, id: &str) -> Key {
    let mut hash = Hash::new(kind);
    hash.write(client_id.as_bytes());
    hash.write(id.as_bytes());
    (account, hash.finish())
}

/// All client ids that are remembered.
#[derive(Debug)]
pub(crate) struct Dedup {
    recent: Cache<Key, Known>,
    parts: VecDeque<Part>,
}

/// A Bloom filter of blocks, each of one cache line.
#[derive(Debug)]
struct Part {
    blocks: Vec<[u64; WORDS]>,
    keys: usize,
    room: usize,
    since_ms: u64,
    last_ms: u64,
}

impl Part {
    fn new(room: usize, now_ms: u64) -> Self {
        let blocks = (room * BITS / (WORDS * 64)).next_power_of_two();
        Self { blocks: vec![[0; WORDS]; blocks], keys: 0, room, since_ms: now_ms, last_ms: now_ms }
    }

    fn place(&self, hash: u64) -> usize {
        usize::try_from(hash >> 32).unwrap_or(0) & (self.blocks.len() - 1)
    }

    fn bits(hash: u64) -> impl Iterator<Item = (usize, u64)> {
        let mut rest = mix(hash);
        (0..6).map(move |_| {
            let bit = rest & 511;
            rest >>= 9;
            (usize::try_from(bit >> 6).unwrap_or(0), 1 << (bit & 63))
        })
    }

    fn add(&mut self, hash: u64) {
        let at = self.place(hash);
        for (word, bit) in Self::bits(hash) {
            self.blocks[at][word] |= bit;
        }
        self.keys += 1;
    }

    fn may_have(&self, hash: u64) -> bool {
        let block = &self.blocks[self.place(hash)];
        Self::bits(hash).all(|(word, bit)| block[word] & bit != 0)
    }
}

fn filter_hash(key: Key) -> u64 {
    let mut hash = Hash(key.1);
    hash.int(key.0.0.into());
    hash.finish()
}

impl Dedup {
    pub(crate) fn new(seed: u64) -> Self {
        Self { recent: Cache::new(RECENT, seed), parts: VecDeque::new() }
    }

    /// A key that the store has.
    pub(crate) fn restore(&mut self, key: Key, wall_ms: u64) {
        self.filter(key, wall_ms);
    }

    pub(crate) fn find(&self, key: Key) -> Found {
        if let Some(known) = self.recent.get(&key) {
            return Found::Used(*known);
        }
        let hash = filter_hash(key);
        if self.parts.iter().any(|part| part.may_have(hash)) { Found::Perhaps } else { Found::New }
    }

    pub(crate) fn add(&mut self, key: Key, known: Known, wall_ms: u64) {
        self.filter(key, wall_ms);
        self.remember(key, known);
    }

    /// What the store said of a key.
    pub(crate) fn remember(&mut self, key: Key, known: Known) {
        self.recent.insert(key, known, 1);
    }

    fn filter(&mut self, key: Key, wall_ms: u64) {
        let is_open = |p: &Part| p.keys < p.room && wall_ms < p.since_ms + PART_MS;
        if !self.parts.back().is_some_and(is_open) {
            while self.parts.front().is_some_and(|p| p.last_ms + KEEP_MS < wall_ms) {
                self.parts.pop_front();
            }
            let room = self.parts.back().map_or(FIRST_KEYS, |p| (p.keys * 2).clamp(FIRST_KEYS, MOST_KEYS));
            self.parts.push_back(Part::new(room, wall_ms));
        }
        if let Some(part) = self.parts.back_mut() {
            part.add(filter_hash(key));
            part.last_ms = part.last_ms.max(wall_ms);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_once_used_is_never_called_new_and_few_others_are_doubted() {
        let mut dedup = Dedup::new(1);
        let name = |n: u64| key(AccountNo(u32::try_from(n % 7).unwrap()), "phone", 0, &n.to_string());
        for n in 0..300_000 {
            dedup.add(name(n), Known { conv: 1, seq: n, content: n }, n);
        }
        assert!(dedup.recent.cost() <= 2 * RECENT);
        assert!((0..300_000).all(|n| dedup.find(name(n)) != Found::New));
        assert_eq!(dedup.find(name(299_999)), Found::Used(Known { conv: 1, seq: 299_999, content: 299_999 }));
        let doubted = (300_000..400_000).filter(|&n| dedup.find(name(n)) != Found::New).count();
        assert!(doubted < 1_000, "{doubted} of 100,000");
    }

    #[test]
    fn what_is_known_reads_back_and_the_hash_is_for_ever() {
        let known = Known { conv: 300, seq: 1 << 40, content: u64::MAX - 5 };
        assert_eq!(Known::decode(&known.encode()), Ok(known));
        // A stored form: this value must never change.
        let mut hash = Hash::new(0);
        hash.write(b"phone");
        assert_eq!(hash.finish(), 0x3466_C36E_6FCC_C187);
    }
}
