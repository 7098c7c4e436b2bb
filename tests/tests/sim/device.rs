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

#[test]
fn equal_seeds_give_equal_lives() {
    for seed in [3, 5] {
        let [one, two] = [(); 2].map(|()| run(&Plan::random(seed)));
        assert_eq!(one, two, "seed {seed}");
        assert_ne!(one.trace, run(&Plan::random(seed + 1)).trace, "seeds {seed} and {}", seed + 1);
    }
}

/// Every write to flash of a short life, one after the other, fails; and then, the power goes during it.
#[test]
fn flash_may_fail_and_power_may_go_at_every_write() {
    let plan = |seed| Plan {
        chaos_ms: 4_000,
        reboots: 0,
        cuts: 10,
        flash_fails: 0,
        crashes_ms: vec![],
        in_flash: true,
        ..Plan::random(seed)
    };
    for seed in 0..2 {
        let writes = run(&plan(seed)).writes;
        assert!(writes > 30, "{writes} writes are too few to show anything");
        for at in 1..=writes {
            let failed = Plan { fails_at: Some(at), ..plan(seed) };
            run(&failed).expect_clean(&format!("write {at} fails"), seed);
            let died = Plan { dies_at: Some(at), ..plan(seed) };
            run(&died).expect_clean(&format!("the power goes during write {at}"), seed);
        }
    }
}

/// Runs boards whose flash breaks a promise, until a promise of the SDK that depends on it is seen to be broken.
fn caught(fault: Fault, promises: &[&str], within: u64) {
    let mut others = vec![];
    for seed in 0..within {
        let plan =
            Plan { fault: Some(fault), reboots: 40, cuts: 40, flash_fails: 0, in_flash: true, ..Plan::random(seed) };
        let report = run(&plan);
        if let Some(found) = report.violations.iter().find(|v| promises.contains(&v.promise)) {
            eprintln!("{fault:?} is caught with seed {seed}: {}: {}", found.promise, found.text);
            return;
        }
        others.extend(report.violations);
    }
    panic!("{fault:?} was not caught within {within} seeds; {others:?}");
}

#[test]
fn flash_that_forgets_commands_is_caught() {
    caught(Fault::ForgetsCommands, &["a command acts once"], 60);
}

#[test]
fn flash_that_forgets_rows_is_caught() {
    caught(Fault::ForgetsRows, &["what is kept survives a reboot"], 20);
}

#[test]
fn flash_that_forgets_starts_is_caught() {
    caught(Fault::ForgetsStarts, &["nothing is lost without a reason that is there", "what was acked is there"], 20);
}
