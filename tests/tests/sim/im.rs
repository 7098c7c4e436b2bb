//! Instant messaging in whole worlds, each from one seed.
//!
//! `SEED=n` repeats one world; `PARLOR_IM_SEEDS=n` runs so many.

use parlor_tests::im_world::{ImPlan, run};
use parlor_tests::world::{InMemory, OnDisk};

fn seeds(default: u64) -> std::ops::Range<u64> {
    if let Ok(seed) = std::env::var("SEED") {
        let seed = seed.parse().expect("SEED is a number");
        return seed..seed + 1;
    }
    let count = std::env::var("PARLOR_IM_SEEDS").map_or(default, |n| n.parse().expect("PARLOR_IM_SEEDS is a number"));
    0..count
}

#[test]
fn messages_hold_over_the_reference_store() {
    for seed in seeds(40) {
        let report = run(&ImPlan::random(seed), &mut InMemory::default());
        report.expect_clean("messaging over the reference store", seed);
        if std::env::var_os("SEED").is_some() {
            eprintln!("{report:?}");
        }
    }
}

#[test]
fn messages_hold_over_a_disk_that_loses_power() {
    for seed in seeds(20) {
        let report = run(&ImPlan::random(seed), &mut OnDisk::new(seed, None));
        report.expect_clean("messaging over the store on disk", seed);
        if std::env::var_os("SEED").is_some() {
            eprintln!("{report:?}");
        }
    }
}

#[test]
fn equal_seeds_give_equal_conversations() {
    for seed in [2, 71] {
        let plan = ImPlan::random(seed);
        let [one, two] = [(); 2].map(|()| run(&plan, &mut OnDisk::new(seed, None)));
        assert_eq!(one, two, "seed {seed}");
        let other = run(&ImPlan::random(seed + 1), &mut OnDisk::new(seed + 1, None));
        assert_ne!(one.trace, other.trace, "seeds {seed} and {}", seed + 1);
    }
}

/// What the seeds come to: a kind of act that none does would be tested by nobody.
#[test]
fn the_seeds_come_to_everything() {
    let mut tally = std::collections::BTreeMap::new();
    for seed in 0..25 {
        for (what, count) in run(&ImPlan::random(seed), &mut InMemory::default()).tally {
            *tally.entry(what).or_insert(0) += count;
        }
    }
    eprintln!("{tally:?}");
    let expected = [
        "messages",
        "repeated",
        "reused",
        "read",
        "recall",
        "edit",
        "gap",
        "group",
        "block",
        "intrusions",
        "commands",
        "canceled",
        "reboots",
        "sync",
        "history",
        "convs",
        "recount",
    ];
    let missing: Vec<&str> = expected.into_iter().filter(|what| !tally.contains_key(what)).collect();
    assert!(missing.is_empty(), "no seed came to {missing:?}: {tally:?}");
}
