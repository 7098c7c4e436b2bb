//! Boards in whole worlds, each from one seed.
//!
//! `SEED=n` repeats one world; `PARLOR_DEVICE_SEEDS=n` runs so many; `PARLOR_SIM_TRACE=1` shows every packet.

use parlor_tests::device_world::{Fault, Plan, run};
use std::collections::BTreeMap;

fn seeds(default: u64) -> std::ops::Range<u64> {
    if let Ok(seed) = std::env::var("SEED") {
        let seed = seed.parse().expect("SEED is a number");
        return seed..seed + 1;
    }
    let count =
        std::env::var("PARLOR_DEVICE_SEEDS").map_or(default, |n| n.parse().expect("PARLOR_DEVICE_SEEDS is a number"));
    0..count
}

#[test]
fn boards_keep_their_promises() {
    let mut tally: BTreeMap<&str, u64> = BTreeMap::new();
    for seed in seeds(150) {
        let report = run(&Plan::random(seed));
        report.expect_clean("a board in disorder", seed);
        for (what, count) in report.tally {
            *tally.entry(what).or_insert(0) += count;
        }
    }
    eprintln!("{tally:?}");
}
