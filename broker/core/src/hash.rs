//! Hash tables that a seed makes replayable.

use foldhash::fast::FixedState;
use hashbrown::HashMap;

/// A hash map whose order depends on its seed and its keys alone.
pub(crate) type Map<K, V> = HashMap<K, V, FixedState>;

/// An empty map.
pub(crate) fn map<K, V>(seed: u64) -> Map<K, V> {
    HashMap::with_hasher(FixedState::with_seed(seed))
}

/// Numbers that nobody can guess who knows all those before: counted, and hashed with keys that are never shown
/// (SipHash-2-4; Aumasson, Bernstein).
#[derive(Debug)]
pub(crate) struct Secret {
    key: (u64, u64),
    count: u64,
}

impl Secret {
    /// `domain` keeps the numbers of two users of the same seed apart.
    pub(crate) fn new(seed: u64, domain: u64) -> Self {
        Self { key: (sip((seed, domain), 1), sip((seed, domain), 2)), count: 0 }
    }

    /// The next one.
    pub(crate) fn draw(&mut self) -> u64 {
        self.count += 1;
        sip(self.key, self.count)
    }
}

/// The hash of `word` as a message of eight bytes, under a key of 128 bits.
pub(crate) fn sip(key: (u64, u64), word: u64) -> u64 {
    let mut v = [
        key.0 ^ 0x736f_6d65_7073_6575,
        key.1 ^ 0x646f_7261_6e64_6f6d,
        key.0 ^ 0x6c79_6765_6e65_7261,
        key.1 ^ 0x7465_6462_7974_6573,
    ];
    // The second block is the message's length.
    for block in [word, 8 << 56] {
        v[3] ^= block;
        rounds(&mut v, 2);
        v[0] ^= block;
    }
    v[2] ^= 0xFF;
    rounds(&mut v, 4);
    v[0] ^ v[1] ^ v[2] ^ v[3]
}

fn rounds(v: &mut [u64; 4], count: u32) {
    for _ in 0..count {
        v[0] = v[0].wrapping_add(v[1]);
        v[1] = v[1].rotate_left(13) ^ v[0];
        v[0] = v[0].rotate_left(32);
        v[2] = v[2].wrapping_add(v[3]);
        v[3] = v[3].rotate_left(16) ^ v[2];
        v[0] = v[0].wrapping_add(v[3]);
        v[3] = v[3].rotate_left(21) ^ v[0];
        v[2] = v[2].wrapping_add(v[1]);
        v[1] = v[1].rotate_left(17) ^ v[2];
        v[2] = v[2].rotate_left(32);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_vector() {
        let key = (0x0706_0504_0302_0100, 0x0F0E_0D0C_0B0A_0908);
        assert_eq!(sip(key, 0x0706_0504_0302_0100), 0x93F5_F579_9A93_2462);
    }

    #[test]
    #[allow(deprecated)]
    fn as_another_implementation_has_it() {
        use core::hash::{Hasher, SipHasher};
        for n in 0..1_000u64 {
            let (a, b) = (n.wrapping_mul(0x9E37_79B9_7F4A_7C15), n.wrapping_mul(0xA24B_AED4_963E_E407));
            let mut other = SipHasher::new_with_keys(a, b);
            other.write(&n.to_le_bytes());
            assert_eq!(sip((a, b), n), other.finish());
        }
    }
}
