//! Slows down who guesses passwords, per address and per account, in bounded memory.
//!
//! Three counts of recent failures decide how long the next attempt must wait: of the pair of address and account, of
//! the address, and of the account. Each doubles its wait with every failure beyond a free number of them, up to a
//! longest wait; a count is forgotten when nothing was added to it for a while. Attempts during a wait are refused
//! unlooked at and count for nothing.
//!
//! The trade: someone else's failures must not lock out a user who has the right password. So
//! - a pair that has logged in lately (a *trusted* pair) is held back by its own failures only: neither a
//!   misconfigured device behind the same address nor guesses at the account from elsewhere delay it;
//! - a pair that waits for its own failures no longer adds to the counts of its address and its account, so that a
//!   device that tries a wrong password for ever does not keep its neighbours waiting for ever;
//! - the count of the account holds back only addresses that have a failure of their own: a user at a new address gets
//!   in at the first attempt, and who guesses from many addresses gets one guess from each until it is forgotten;
//! - what remains: a neighbour behind the same address who guesses at the *same* account delays it there by at most the
//!   longest wait for each failure.
//!
//! Names nobody has are counted like names somebody has, so that waits reveal nothing.

use crate::config::SlowDown;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;

/// Sets of the table. A set is made when it is first needed; all of them take about 1.3 MB.
const SETS: usize = 4_096;
/// Entries of a set: when all are taken, the least valuable makes room.
const WAYS: usize = 8;

/// How failures turn into waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlowdownRules {
    /// Failures of one account at one address that cost no wait.
    pub pair_free: u32,
    /// Failures of one address (IPv6: one /64) that cost no wait; many clients may share an address.
    pub address_free: u32,
    /// Failures of one account, from wherever, that cost no wait.
    pub account_free: u32,
    /// First wait, milliseconds; each further failure doubles it. 0: nobody waits.
    pub first_wait_ms: u64,
    /// Longest wait, milliseconds.
    pub longest_wait_ms: u64,
    /// A count is forgotten so many milliseconds after its last failure.
    pub forget_ms: u64,
}

impl From<&SlowDown> for SlowdownRules {
    fn from(config: &SlowDown) -> Self {
        let longest_wait_ms = u64::from(config.max_delay_secs) * 1_000;
        Self {
            pair_free: config.free_failures,
            address_free: config.free_failures.saturating_mul(4),
            account_free: config.free_failures.saturating_mul(2),
            first_wait_ms: config.first_delay_ms.into(),
            longest_wait_ms,
            // What is forgotten sooner than it is waited for would end the wait.
            forget_ms: (u64::from(config.forget_secs) * 1_000).max(longest_wait_ms),
        }
    }
}

impl Default for SlowdownRules {
    fn default() -> Self {
        Self {
            pair_free: 5,
            address_free: 20,
            account_free: 10,
            first_wait_ms: 500,
            longest_wait_ms: 60_000,
            forget_ms: 900_000,
        }
    }
}

/// How long a login makes address and account a trusted pair, milliseconds.
const TRUST_MS: u64 = 30 * 24 * 3_600_000;

/// Counts failed logins.
pub(super) struct Slowdown {
    sets: Vec<Option<Box<[Entry; WAYS]>>>,
    /// Keyed at random, so that nobody can choose names that fall into one set.
    hasher: RandomState,
}

#[derive(Clone, Copy, Default)]
struct Entry {
    /// 0: free.
    key: u64,
    last_ms: u64,
    trusted_until_ms: u64,
    failures: u32,
}

impl Entry {
    fn failures(&self, rules: &SlowdownRules, now_ms: u64) -> u32 {
        if now_ms.saturating_sub(self.last_ms) >= rules.forget_ms { 0 } else { self.failures }
    }

    fn wait_ms(&self, rules: &SlowdownRules, free: u32, now_ms: u64) -> u64 {
        let Some(beyond) = self.failures(rules, now_ms).checked_sub(free.saturating_add(1)) else { return 0 };
        let doubled = rules.first_wait_ms.saturating_mul(1_u64.checked_shl(beyond).unwrap_or(u64::MAX));
        doubled.min(rules.longest_wait_ms).saturating_sub(now_ms.saturating_sub(self.last_ms))
    }
}

/// The three counts of an attempt.
struct Keys {
    pair: u64,
    address: u64,
    account: u64,
}

impl Slowdown {
    pub(super) fn new() -> Self {
        Self { sets: std::iter::repeat_with(|| None).take(SETS).collect(), hasher: RandomState::new() }
    }

    /// Milliseconds until `account` may be tried from `peer` again; 0: now.
    pub(super) fn wait_ms(&mut self, rules: &SlowdownRules, peer: IpAddr, account: &str, now_ms: u64) -> u64 {
        let keys = self.keys(peer, account);
        let pair = self.find(keys.pair, now_ms);
        let own = pair.wait_ms(rules, rules.pair_free, now_ms);
        if pair.trusted_until_ms > now_ms {
            return own;
        }
        let address = self.find(keys.address, now_ms);
        let mut wait = own.max(address.wait_ms(rules, rules.address_free, now_ms));
        if address.failures(rules, now_ms) > 0 {
            wait = wait.max(self.find(keys.account, now_ms).wait_ms(rules, rules.account_free, now_ms));
        }
        wait
    }

    /// Notes that a wrong password or proof for `account` came from `peer`.
    pub(super) fn failed(&mut self, rules: &SlowdownRules, peer: IpAddr, account: &str, now_ms: u64) {
        let keys = self.keys(peer, account);
        let has_waited = self.find(keys.pair, now_ms).failures(rules, now_ms) > rules.pair_free;
        for key in [Some(keys.pair), (!has_waited).then_some(keys.address), (!has_waited).then_some(keys.account)] {
            let Some(key) = key else { continue };
            let entry = self.entry(key, rules, now_ms);
            entry.failures = entry.failures(rules, now_ms).saturating_add(1);
            entry.last_ms = now_ms;
        }
    }

    /// Notes that `account` logged in from `peer`. The count of the address stays: else an account of one's own would
    /// buy free guesses at others.
    pub(super) fn succeeded(&mut self, rules: &SlowdownRules, peer: IpAddr, account: &str, now_ms: u64) {
        let keys = self.keys(peer, account);
        let entry = self.entry(keys.pair, rules, now_ms);
        entry.failures = 0;
        entry.last_ms = now_ms;
        entry.trusted_until_ms = now_ms.saturating_add(TRUST_MS);
    }

    fn keys(&self, peer: IpAddr, account: &str) -> Keys {
        let address = match peer.to_canonical() {
            IpAddr::V4(v4) => u128::from(v4.to_bits()),
            // One customer has a /64 at least: counting single addresses would count nothing.
            IpAddr::V6(v6) => v6.to_bits() >> 64 | 1 << 127,
        };
        let key = |parts: (u8, u128, &str)| self.hasher.hash_one(parts).max(1);
        Keys { pair: key((0, address, account)), address: key((1, address, "")), account: key((2, 0, account)) }
    }

    fn set_of(key: u64) -> usize {
        usize::try_from(key % SETS as u64).unwrap_or(0)
    }

    /// A copy of the entry, or an empty one.
    fn find(&mut self, key: u64, now_ms: u64) -> Entry {
        let set = self.sets[Self::set_of(key)].as_mut();
        let Some(entry) = set.and_then(|set| set.iter_mut().find(|e| e.key == key)) else { return Entry::default() };
        // After a step back of the clock, a wait begins now at the latest.
        entry.last_ms = entry.last_ms.min(now_ms);
        *entry
    }

    fn entry(&mut self, key: u64, rules: &SlowdownRules, now_ms: u64) -> &mut Entry {
        let set = self.sets[Self::set_of(key)].get_or_insert_with(Default::default);
        let way = set.iter().position(|e| e.key == key).unwrap_or_else(|| {
            let value = |e: &Entry| (e.key != 0, e.trusted_until_ms > now_ms, e.failures(rules, now_ms), e.last_ms);
            let least = (0..WAYS).min_by_key(|&way| value(&set[way])).unwrap_or(0);
            set[least] = Entry { key, last_ms: now_ms, ..Entry::default() };
            least
        });
        set[way].last_ms = set[way].last_ms.min(now_ms);
        &mut set[way]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: SlowdownRules = SlowdownRules {
        pair_free: 2,
        address_free: 5,
        account_free: 4,
        first_wait_ms: 1_000,
        longest_wait_ms: 60_000,
        forget_ms: 900_000,
    };
    const T: u64 = 1_700_000_000_000;

    fn ip(n: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, n])
    }

    #[test]
    fn waits_double_to_the_longest_and_failures_are_forgotten() {
        let mut s = Slowdown::new();
        let mut now = T;
        for expect in [0, 0, 0, 1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000] {
            let wait = s.wait_ms(&RULES, ip(1), "alice", now);
            assert_eq!(wait, expect);
            now += wait;
            assert_eq!(s.wait_ms(&RULES, ip(1), "alice", now), 0);
            s.failed(&RULES, ip(1), "alice", now);
        }
        assert_eq!(s.wait_ms(&RULES, ip(1), "alice", now + 59_999), 1);
        now += 900_000;
        for _ in 0..3 {
            assert_eq!(s.wait_ms(&RULES, ip(1), "alice", now), 0, "all was forgotten");
            s.failed(&RULES, ip(1), "alice", now);
        }
        assert_eq!(s.wait_ms(&RULES, ip(1), "alice", now), 1_000);
    }

    #[test]
    fn an_address_that_tries_many_accounts_waits_for_each() {
        let mut s = Slowdown::new();
        for n in 0..6 {
            assert_eq!(s.wait_ms(&RULES, ip(1), &format!("a{n}"), T), 0);
            s.failed(&RULES, ip(1), &format!("a{n}"), T);
        }
        assert_eq!(s.wait_ms(&RULES, ip(1), "fresh", T), 1_000);
        assert_eq!(s.wait_ms(&RULES, ip(2), "fresh", T), 0, "another address does not");
        s.succeeded(&RULES, ip(1), "own", T);
        assert_eq!(s.wait_ms(&RULES, ip(1), "fresh", T), 1_000, "a login of one's own buys nothing");
        assert_eq!(s.wait_ms(&RULES, ip(1), "own", T), 0, "who logged in before is not held back by neighbours");
    }

    #[test]
    fn a_device_that_fails_for_ever_does_not_keep_its_neighbours_waiting() {
        let mut s = Slowdown::new();
        for minute in 0..60 {
            s.failed(&RULES, ip(1), "broken", T + minute * 60_000);
        }
        let now = T + 60 * 60_000;
        assert_eq!(s.wait_ms(&RULES, ip(1), "broken", now - 60_000), 60_000);
        assert_eq!(s.wait_ms(&RULES, ip(1), "new", now), 0);
        assert_eq!(s.wait_ms(&RULES, ip(2), "broken", now), 0);
    }

    #[test]
    fn an_account_guessed_at_from_everywhere_stays_open_to_its_user() {
        let mut s = Slowdown::new();
        s.succeeded(&RULES, ip(200), "alice", T);
        for n in 0..100 {
            s.failed(&RULES, ip(n), "alice", T);
        }
        assert_eq!(s.wait_ms(&RULES, ip(1), "alice", T), 60_000, "an address with a failure waits");
        assert_eq!(s.wait_ms(&RULES, ip(150), "alice", T), 0, "one without may try once");
        s.failed(&RULES, ip(150), "alice", T);
        assert_eq!(s.wait_ms(&RULES, ip(150), "alice", T), 60_000);
        assert_eq!(s.wait_ms(&RULES, ip(200), "alice", T), 0, "the user's own address is trusted");
        assert_eq!(s.wait_ms(&RULES, ip(1), "bob", T), 0);
        for _ in 0..3 {
            s.failed(&RULES, ip(200), "alice", T);
        }
        assert_eq!(s.wait_ms(&RULES, ip(200), "alice", T), 1_000, "but not trusted to guess");
        s.succeeded(&RULES, ip(200), "alice", T + 1_000);
        assert_eq!(s.wait_ms(&RULES, ip(200), "alice", T + 1_000), 0);
    }

    #[test]
    fn an_ipv6_network_counts_as_one_and_mapped_addresses_as_ipv4() {
        let mut s = Slowdown::new();
        let v6 = |net: u16, host: u16| IpAddr::from([0x2001, 0xdb8, 0, net, 0, 0, 0, host]);
        for host in 0..6 {
            s.failed(&RULES, v6(1, host), &format!("a{host}"), T);
        }
        assert!(s.wait_ms(&RULES, v6(1, 999), "x", T) > 0);
        assert_eq!(s.wait_ms(&RULES, v6(2, 999), "x", T), 0);
        for n in 0..6 {
            s.failed(&RULES, "::ffff:10.0.0.9".parse().unwrap(), &format!("a{n}"), T);
        }
        assert!(s.wait_ms(&RULES, ip(9), "x", T) > 0);
        assert_eq!(s.wait_ms(&RULES, "::1".parse().unwrap(), "x", T), 0);
    }

    #[test]
    fn the_table_is_bounded_and_keeps_who_fails_most() {
        let mut s = Slowdown::new();
        for _ in 0..10 {
            s.failed(&RULES, ip(1), "alice", T);
        }
        for n in 0..100_000_u32 {
            s.failed(&RULES, IpAddr::from((n + (11 << 24)).to_be_bytes()), &format!("n{n}"), T + 1);
        }
        let taken = s.sets.iter().flatten().flat_map(|set| set.iter()).filter(|e| e.key != 0).count();
        assert!(taken <= SETS * WAYS && taken > SETS * WAYS / 2, "{taken}");
        assert!(s.wait_ms(&RULES, ip(1), "alice", T + 1) > 0);
    }

    #[test]
    fn a_clock_that_steps_back_does_not_lengthen_a_wait() {
        let mut s = Slowdown::new();
        for _ in 0..3 {
            s.failed(&RULES, ip(1), "alice", T);
        }
        let earlier = T - 86_400_000;
        assert_eq!(s.wait_ms(&RULES, ip(1), "alice", earlier), 1_000);
        assert_eq!(s.wait_ms(&RULES, ip(1), "alice", earlier + 1_000), 0);
    }
}
