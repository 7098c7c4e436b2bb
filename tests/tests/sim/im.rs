//! Instant messaging in whole worlds, each from one seed.
//!
//! `SEED=n` repeats one world; `PARLOR_IM_SEEDS=n` runs so many; `PARLOR_IM_STEPS=1` loses power at every write and sync.

use parlor_tests::disk::KEEPS;
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

/// One small world, with the power failing at writes and syncs of its disk in turn: at forty of them, or at all.
#[test]
fn no_write_or_sync_is_a_bad_moment_for_a_message() {
    let seed = 5;
    let small = ImPlan {
        people: 2,
        rounds: 1,
        chaos_ms: 800,
        crashes_ms: vec![],
        restarts_ms: vec![],
        freeze_at: None,
        ..ImPlan::random(seed)
    };
    let whole = run(&small, &mut OnDisk::new(seed, None));
    whole.expect_clean("the world without a power cut", seed);
    let stride = if std::env::var_os("PARLOR_IM_STEPS").is_some() { 1 } else { whole.disk_steps.div_ceil(40) };
    // `STEP=n` repeats one moment.
    let only: Option<u64> = std::env::var("STEP").ok().map(|step| step.parse().expect("STEP is a number"));
    let steps = (0..whole.disk_steps).step_by(usize::try_from(stride).expect("small"));
    for step in only.into_iter().chain(steps.filter(|_| only.is_none())) {
        let keep = KEEPS[usize::try_from(step).expect("small") % KEEPS.len()];
        let report = run(&ImPlan { freeze_at: Some(step), ..small.clone() }, &mut OnDisk::new(seed, Some(keep)));
        report.expect_clean(&format!("power lost at STEP={step}, of the unsynced stays {keep:?}"), seed);
    }
    eprintln!("{} writes and syncs, every {stride}", whole.disk_steps);
}
