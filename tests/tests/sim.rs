//! The simulator: whole worlds in virtual time, each from one seed.
//!
//! `SEED=n` repeats one world; `PARLOR_SIM_SEEDS=n` runs so many (default 150 over the reference store).

#[path = "sim/answers.rs"]
mod answers;
#[path = "sim/device.rs"]
mod device;
#[path = "sim/im.rs"]
mod im;
#[path = "sim/im_controls.rs"]
mod im_controls;
#[path = "sim/im_small.rs"]
mod im_small;
#[path = "sim/storm.rs"]
mod storm;

use parlor_core::limits::Limits;
use parlor_tests::checkers::Class;
use parlor_tests::disk::KEEPS;
use parlor_tests::faulty::Fault;
use parlor_tests::world::{InMemory, OnDisk, Plan, run};
use std::sync::atomic::{AtomicU64, Ordering};

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
    for seed in seeds(40) {
        let report = run(&Plan::random(seed), &mut OnDisk::new(seed, None));
        report.expect_clean("promises over the store on disk", seed);
        if std::env::var_os("SEED").is_some() {
            eprintln!("{report:?}");
        }
    }
}

#[test]
fn equal_seeds_give_equal_traces() {
    for seed in [3, 14, 15] {
        let plan = Plan::random(seed);
        let [one, two] = [(); 2].map(|()| run(&plan, &mut OnDisk::new(seed, None)));
        assert_eq!(one, two, "seed {seed}");
        let other = run(&Plan::random(seed + 1), &mut OnDisk::new(seed + 1, None));
        assert_ne!(one.trace, other.trace, "seeds {seed} and {}", seed + 1);
    }
}

/// Worlds in which every client keeps its subscriptions and there is much to lose.
fn harsh(seed: u64, fault: Option<Fault>) -> Plan {
    let mut plan = Plan { limits: Limits::default(), fault, ..Plan::random(seed) };
    plan.crashes_ms = vec![plan.chaos_ms / 3, plan.chaos_ms * 2 / 3, plan.chaos_ms - 100];
    plan
}

/// Runs worlds with a broken promise until a violation of one of the `expected` classes is seen.
fn caught(fault: Fault, expected: &[Class], within: u64) {
    for seed in 0..within {
        let report = run(&harsh(seed, Some(fault)), &mut InMemory::default());
        if let Some(found) = report.violations.iter().find(|v| expected.contains(&v.class)) {
            eprintln!("{} is caught with seed {seed}: {:?}: {}", fault.name(), found.class, found.text);
            return;
        }
    }
    panic!("{} was not caught within {within} seeds: the checkers are blind to it", fault.name());
}

#[test]
fn a_broker_that_acknowledges_before_the_commit_is_caught() {
    caught(Fault::AckEarly, &[Class::Lost], 20);
}

#[test]
fn a_broker_that_forgets_qos_2_identifiers_is_caught() {
    caught(Fault::ForgetInbound, &[Class::Duplicated], 20);
}

#[test]
fn a_broker_that_forgets_acknowledgements_is_caught() {
    caught(Fault::ForgetAcked, &[Class::Duplicated], 20);
}

#[test]
fn a_broker_that_forgets_subscriptions_is_caught() {
    caught(Fault::ForgetSubscriptions, &[Class::Lost, Class::Session], 20);
}

#[test]
fn a_broker_that_forgets_retained_messages_is_caught() {
    caught(Fault::ForgetRetained, &[Class::Retained], 20);
}

#[test]
fn a_broker_that_forgets_wills_is_caught() {
    caught(Fault::ForgetWills, &[Class::Will], 20);
}

#[test]
fn the_same_worlds_with_an_honest_store_are_clean() {
    for seed in 0..20 {
        let report = run(&harsh(seed, None), &mut InMemory::default());
        report.expect_clean("the worlds of the controls, with an honest store", seed);
    }
}

/// One small world, with the power failing at each write and sync of its disk in turn.
///
/// Two of the six ways to lose the unsynced are tried at each moment, in turn; `PARLOR_SIM_WAYS=6` tries all.
#[test]
fn no_write_or_sync_is_a_bad_moment_to_lose_power() {
    let small = |seed: u64| Plan {
        clients: 3,
        chaos_ms: 900,
        crashes_ms: vec![],
        restarts_ms: vec![],
        freeze_at: None,
        limits: Limits::default(),
        ..Plan::random(seed)
    };
    // The first seed whose world has something to lose and is small enough to be lived through some hundred times.
    let mut worlds = (1..100).map(|seed| (seed, run(&small(seed), &mut OnDisk::new(seed, None))));
    let (seed, whole) =
        worlds.find(|(_, w)| w.messages > 35 && w.deliveries > 45 && w.disk_steps < 340).expect("one of a hundred is");
    whole.expect_clean("the world without a power cut", seed);
    let plan = small(seed);
    // `STEP=n` repeats one moment.
    if let Ok(step) = std::env::var("STEP") {
        let freeze_at = Some(step.parse().expect("STEP is a number"));
        for keep in KEEPS {
            eprintln!("--- of the unsynced stays {keep:?}");
            let report = run(&Plan { freeze_at, ..plan.clone() }, &mut OnDisk::new(seed, Some(keep)));
            report.expect_clean("one moment", seed);
        }
        return;
    }
    let ways = std::env::var("PARLOR_SIM_WAYS").map_or(2, |n| n.parse().expect("PARLOR_SIM_WAYS is a number"));
    let next = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let work = || {
            loop {
                let step = next.fetch_add(1, Ordering::Relaxed);
                if step >= whole.disk_steps {
                    return;
                }
                let turn = usize::try_from(step).expect("small");
                for way in 0..ways {
                    let keep = KEEPS[(turn + way * KEEPS.len() / ways) % KEEPS.len()];
                    let report =
                        run(&Plan { freeze_at: Some(step), ..plan.clone() }, &mut OnDisk::new(seed, Some(keep)));
                    report.expect_clean(
                        &format!("power lost at write or sync {step} (STEP={step}), of the unsynced stays {keep:?}"),
                        seed,
                    );
                    assert!(report.crashes > 0, "the power was lost at {step}");
                }
            }
        };
        let hands = [scope.spawn(work), scope.spawn(work)];
        for hand in hands {
            if let Err(panic) = hand.join() {
                std::panic::resume_unwind(panic);
            }
        }
    });
    eprintln!("{} moments, {ways} ways each", whole.disk_steps);
}
