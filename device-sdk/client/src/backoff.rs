//! The pauses between attempts.

use std::time::Duration;

/// How long to wait between two attempts: longer each time, and never the same for everybody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// About so long after a connection that was a good one.
    pub first: Duration,
    /// About so long after the first attempt that failed; each further one doubles it.
    pub base: Duration,
    /// Never much longer than this.
    pub most: Duration,
}

/// A connection that held this long was a good one.
pub(crate) const GOOD: Duration = Duration::from_secs(5);

impl Default for Backoff {
    fn default() -> Self {
        let millis = Duration::from_millis;
        Self { first: millis(250), base: millis(1_000), most: millis(60_000) }
    }
}

impl Backoff {
    /// The pause after so many attempts in a row that failed, or ended soon; `random` decides within a quarter less and more.
    pub fn pause(&self, failures: u32, random: u64) -> Duration {
        let base = match failures {
            0 => self.first,
            failures => self.base.saturating_mul(1_u32.checked_shl(failures - 1).unwrap_or(u32::MAX)).min(self.most),
        };
        let millis = u64::try_from(base.as_millis()).unwrap_or(u64::MAX / 4);
        Duration::from_millis(millis - millis / 4 + random % (millis / 2 + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_an_end_and_differ() {
        let backoff = Backoff::default();
        for (failures, least, most) in [
            (0, 188, 313),
            (1, 750, 1_250),
            (2, 1_500, 2_500),
            (3, 3_000, 5_000),
            (6, 24_000, 40_000),
            (7, 45_000, 75_000),
            (33, 45_000, 75_000),
            (u32::MAX, 45_000, 75_000),
        ] {
            let pauses = [0, 1, 77_777, u64::MAX].map(|random| backoff.pause(failures, random).as_millis());
            assert!(pauses.iter().all(|pause| (least..=most).contains(pause)), "{failures}: {pauses:?}");
            assert!(pauses.iter().any(|pause| *pause != pauses[0]), "{failures}: the same for everybody");
        }
    }

    #[test]
    fn no_pause_at_all_is_possible() {
        let zero = Duration::ZERO;
        let backoff = Backoff { first: zero, base: zero, most: zero };
        assert_eq!(backoff.pause(9, u64::MAX), zero);
    }
}
