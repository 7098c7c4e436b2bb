//! Boards in whole worlds, each from one seed, on either wire.
//!
//! `SEED=n` repeats one world; `PARLOR_DEVICE_SEEDS=n` runs so many, `PARLOR_DEVICE_FROM=m` from there on; `PARLOR_SIM_TRACE=1`
//! shows every packet.

use parlor_tests::device_world::{Fault, Plan, run};
use std::collections::BTreeMap;

/// A plan from a seed: of MQTT, or of the native link.
type Draw = fn(u64) -> Plan;

const BOTH: [Draw; 2] = [Plan::random, Plan::native];

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

fn seeds(default: u64) -> std::ops::Range<u64> {
    if let Some(seed) = number("SEED") {
        return seed..seed + 1;
    }
    let from = number("PARLOR_DEVICE_FROM").unwrap_or(0);
    from..from + number("PARLOR_DEVICE_SEEDS").unwrap_or(default)
}

fn promises_are_kept(draw: Draw) {
    let mut tally: BTreeMap<&str, u64> = BTreeMap::new();
    for seed in seeds(400) {
        let plan = draw(seed);
        let report = run(&plan);
        report.expect_clean(&format!("a board in disorder, speaking {:?}", plan.wire), seed);
        for (what, count) in report.tally {
            *tally.entry(what).or_insert(0) += count;
        }
    }
    eprintln!("{tally:?}");
}

#[test]
fn boards_keep_their_promises() {
    promises_are_kept(Plan::random);
}

#[test]
fn boards_keep_their_promises_on_the_native_link() {
    promises_are_kept(Plan::native);
}

#[test]
fn equal_seeds_give_equal_lives() {
    for seed in [3, 5] {
        for draw in BOTH {
            let [one, two] = [(); 2].map(|()| run(&draw(seed)));
            assert_eq!(one, two, "seed {seed}");
            assert_ne!(one.trace, run(&draw(seed + 1)).trace, "seeds {seed} and {}", seed + 1);
        }
        assert_ne!(run(&Plan::random(seed)).trace, run(&Plan::native(seed)).trace, "the wires of seed {seed}");
    }
}

/// Every write to flash of a short life, one after the other, fails; and then, the power goes during it.
fn every_write_fails_once(draw: Draw) {
    let plan = |seed| Plan {
        chaos_ms: 4_000,
        reboots: 0,
        cuts: 10,
        flash_fails: 0,
        crashes_ms: vec![],
        in_flash: true,
        ..draw(seed)
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

#[test]
fn flash_may_fail_and_power_may_go_at_every_write() {
    every_write_fails_once(Plan::random);
}

#[test]
fn flash_may_fail_and_power_may_go_at_every_write_on_the_native_link() {
    every_write_fails_once(Plan::native);
}

/// Runs boards that break a promise, until a promise of the SDK that depends on it is seen to be broken, on each wire.
fn caught(fault: Fault, promises: &[&str], within: u64) {
    for draw in BOTH {
        let mut others = vec![];
        let found = (0..within).find_map(|seed| {
            let plan = Plan { fault: Some(fault), reboots: 40, cuts: 40, flash_fails: 0, in_flash: true, ..draw(seed) };
            let report = run(&plan);
            let found = report.violations.iter().find(|v| promises.contains(&v.promise)).cloned();
            others.extend(report.violations);
            Some((seed, plan.wire, found?))
        });
        let Some((seed, wire, found)) = found else {
            panic!("{fault:?} was not caught within {within} seeds; {others:?}");
        };
        eprintln!("{fault:?} is caught on {wire:?} with seed {seed}: {}: {}", found.promise, found.text);
    }
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
fn flash_that_forgets_outcomes_is_caught() {
    caught(Fault::ForgetsOutcomes, &["a receipt outlives a reboot"], 20);
}

#[test]
fn a_board_that_loses_messages_is_caught() {
    caught(Fault::LosesMessages, &["what was published is taken"], 20);
}

#[test]
fn flash_that_forgets_starts_is_caught() {
    caught(Fault::ForgetsStarts, &["nothing is lost without a reason that is there", "what was acked is there"], 20);
}
