//! What the hub counts, and the few lines it wants logged.

use std::collections::VecDeque;

/// Counts by label; the labels are a small fixed set.
#[derive(Debug, Default, Clone)]
pub struct Tally(Vec<(&'static str, u64)>);

impl Tally {
    /// Adds one to `label`.
    pub fn add(&mut self, label: &'static str) {
        self.add_many(label, 1);
    }

    /// Adds `n` to `label`.
    pub fn add_many(&mut self, label: &'static str, n: u64) {
        match self.0.iter_mut().find(|(l, _)| *l == label) {
            Some((_, count)) => *count += n,
            None => self.0.push((label, n)),
        }
    }

    /// Labels and counts, in the order they were first seen.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        self.0.iter().copied()
    }

    /// The count of `label`.
    pub fn count(&self, label: &str) -> u64 {
        self.0.iter().find(|(l, _)| *l == label).map_or(0, |(_, n)| *n)
    }
}

/// Totals since the hub was made.
#[derive(Debug, Default, Clone)]
pub struct Counters {
    /// Connections opened.
    pub connections: u64,
    /// PUBLISH packets received, by QoS.
    pub received: [u64; 3],
    /// PUBLISH packets sent, by QoS of the delivery.
    pub sent: [u64; 3],
    /// Packets of any kind received.
    pub packets_received: u64,
    /// Messages not delivered to a session, by reason.
    pub dropped: Tally,
    /// Packets or connections refused, by reason.
    pub refused: Tally,
    /// Limits reached, by the limit's key.
    pub limits: Tally,
    /// Authentication results.
    pub auth: Tally,
    /// Wills published.
    pub wills: u64,
    /// Bytes received in packets.
    pub bytes_received: u64,
    /// Bytes handed to sockets.
    pub bytes_sent: u64,
}

/// Something the operator should read; the hub sends each label at most once in ten seconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// What kind it is; also the label of the counter.
    pub label: &'static str,
    /// What happened and what to do.
    pub text: String,
    /// How many of the same label were left out since the last one.
    pub suppressed: u64,
}

/// Least time between two notices of one label, milliseconds.
const QUIET_MS: u64 = 10_000;

/// Keeps notices rare.
#[derive(Debug, Default)]
pub(crate) struct Notices {
    seen: Vec<(&'static str, u64, u64)>,
    pub(crate) waiting: VecDeque<Notice>,
}

impl Notices {
    pub(crate) fn push(&mut self, now_ms: u64, label: &'static str, text: impl FnOnce() -> String) {
        let suppressed = match self.seen.iter_mut().find(|(l, ..)| *l == label) {
            Some((_, until, suppressed)) if now_ms < *until => {
                *suppressed += 1;
                return;
            }
            Some((_, until, suppressed)) => {
                *until = now_ms + QUIET_MS;
                core::mem::take(suppressed)
            }
            None => {
                self.seen.push((label, now_ms + QUIET_MS, 0));
                0
            }
        };
        self.waiting.push_back(Notice { label, text: text(), suppressed });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_one_kind_makes_one_line_and_says_how_many_it_hid() {
        let mut notices = Notices::default();
        for ms in 0..10_001 {
            notices.push(ms, "x", || ms.to_string());
        }
        notices.push(5, "y", String::new);
        let got: Vec<_> = notices.waiting.iter().map(|n| (n.label, n.text.as_str(), n.suppressed)).collect();
        assert_eq!(got, [("x", "0", 0), ("x", "10000", 9_999), ("y", "", 0)]);
    }
}
