//! Pauses between attempts to connect: they double, and each is drawn at random, so that a thousand boards that lost
//! their broker at the same moment do not come back at the same moment.

/// A connection that lasted so long was a good one: the next pause is a short one again.
const GOOD_MS: u64 = 30_000;

/// See the module.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    failures: u8,
    seed: u32,
}

impl Backoff {
    /// With a seed of its own for each board and start.
    pub const fn new(seed: u64) -> Self {
        Self { failures: 0, seed: (seed >> 32) as u32 ^ (seed & 0xFFFF_FFFF) as u32 }
    }

    /// The next pause, between half and all of `min << failures`, at most `max`; milliseconds. `lasted`: how long the
    /// connection was there; `hopeless`: nothing will change soon, so the longest pause is made.
    pub fn pause_ms(&mut self, min: u32, max: u32, lasted_ms: u64, hopeless: bool) -> u32 {
        if lasted_ms >= GOOD_MS {
            self.failures = 0;
        }
        let mut whole = min;
        for _ in 0..self.failures {
            whole = whole.saturating_mul(2);
        }
        if hopeless || whole > max {
            whole = max;
        }
        if whole < max {
            self.failures = (self.failures + 1).min(32);
        }
        let half = whole / 2;
        // The upper half of the product: evenly from 0 to `half`.
        half + ((u64::from(self.draw()) * (u64::from(half) + 1)) >> 32) as u32
    }

    /// A number that looks random, whatever the seed (splitmix of 32 bits).
    fn draw(&mut self) -> u32 {
        self.seed = self.seed.wrapping_add(0x9E37_79B9);
        let mut z = self.seed;
        z = (z ^ (z >> 16)).wrapping_mul(0x85EB_CA6B);
        z = (z ^ (z >> 13)).wrapping_mul(0xC2B2_AE35);
        z ^ (z >> 16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_the_longest_and_differ() {
        let mut backoff = Backoff::new(1);
        let pauses: std::vec::Vec<u32> = (0..10).map(|_| backoff.pause_ms(1_000, 60_000, 0, false)).collect();
        for (at, pause) in pauses.iter().enumerate() {
            let whole = (1_000u32 << at).min(60_000);
            assert!((whole / 2..=whole).contains(pause), "{pauses:?}");
        }
        assert_ne!(Backoff::new(2).pause_ms(1_000, 60_000, 0, false), pauses[0]);
    }

    #[test]
    fn a_good_connection_makes_them_short_again() {
        let mut backoff = Backoff::new(1);
        for _ in 0..30 {
            backoff.pause_ms(1_000, 60_000, 0, false);
        }
        assert!(backoff.pause_ms(1_000, 60_000, GOOD_MS, false) <= 1_000);
        assert!(backoff.pause_ms(1_000, 60_000, GOOD_MS, true) >= 30_000);
    }
}
