//! Anti-flood: a token bucket for each account and each conversation.

/// Thousandths of a message that may be sent now, and when that was computed.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Bucket {
    tokens: u64,
    at_ms: u64,
}

impl Bucket {
    /// Takes one message out; false: too fast. `rate` is messages a second (0: no limit), `burst` messages at once.
    pub(crate) fn take(&mut self, now_ms: u64, rate: u64, burst: u64) -> bool {
        if rate == 0 {
            return true;
        }
        let most = burst.max(1) * 1000;
        if self.at_ms == 0 {
            self.tokens = most;
        } else {
            self.tokens = self.tokens.saturating_add((now_ms - self.at_ms.min(now_ms)).saturating_mul(rate)).min(most);
        }
        self.at_ms = now_ms.max(1);
        let has_one = self.tokens >= 1000;
        if has_one {
            self.tokens -= 1000;
        }
        has_one
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_then_the_rate_holds() {
        let mut bucket = Bucket::default();
        assert_eq!((0..20).filter(|_| bucket.take(5, 10, 4)).count(), 4);
        assert_eq!((0..1000).filter(|ms| bucket.take(5 + ms, 10, 4)).count(), 9);
        assert!(bucket.take(0, 0, 0));
    }
}
