//! The simulator: whole worlds in virtual time, each from one seed.
//!
//! `SEED=n` repeats one world; `PARLOR_SIM_SEEDS=n` runs so many (default 150 over the reference store).

use parlor_tests::world::{InMemory, OnDisk, Plan, run};

fn seeds(default: u64) -> std::ops::Range<u64> {
    if let Ok(seed) = std::env::var("SEED") {
        let seed = seed.parse().expect("SEED is a number");
        return seed..seed + 1;
    }
    let count = std::env::var("PARLOR_SIM_SEEDS").map_or(default, |n| n.parse().expect("PARLOR_SIM_SEEDS is a number"));
    0..count
}

#[test]
fn promises_hold_over_the_reference_store() {
    for seed in seeds(150) {
        let report = run(&Plan::random(seed), &mut InMemory::default());
        report.expect_clean("promises over the reference store", seed);
        if std::env::var_os("SEED").is_some() {
            eprintln!("{report:?}");
        }
    }
}

#[test]
fn promises_hold_over_a_disk_that_loses_power() {
    for seed in seeds(60) {
        let report = run(&Plan::random(seed), &mut OnDisk::new(seed, None));
        report.expect_clean("promises over the store on disk", seed);
        if std::env::var_os("SEED").is_some() {
            eprintln!("{report:?}");
        }
    }
}
