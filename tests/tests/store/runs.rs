//! Rows over many runs and merges: what is answered, what is given up with time, and what leaves the disk.

use std::sync::Arc;

use parlor::store::{Engine, Options};
use parlor_core::store::memory::MemoryStore;
use parlor_core::store::{Batch, Direction, Fact, Query, Retention, Snapshot, Table, What};
use parlor_tests::disk::{Seed, SimDisk};

use crate::contract::small;
use crate::rows::{queries, same_answer};
use crate::traffic::{Traffic, same_snapshot};

const BODIES: Table = Table(128);
const KEYS: Table = Table(192);

/// So small that a fold takes several slices, and merges of three levels come within a few hundred batches.
fn tiny(seed: u64) -> Options {
    Options {
        segment_bytes: 16 << 10,
        segment_step_bytes: 8 << 10,
        merge_runs: 2 + seed as usize % 3,
        row_slice_bytes: 3000,
        // No filter, those of a few runs, those of all.
        filter_bytes: [0, 600, 1 << 20][seed as usize % 3],
        retention: vec![],
        ..small()
    }
}

fn open(disk: &SimDisk, options: &Options) -> (Engine, Snapshot) {
    Engine::open(Arc::new(disk.clone()), options).unwrap()
}

/// Does everything that waits in the background.
fn settle(engine: &mut Engine) {
    engine.freeze().unwrap();
    while let Some(job) = engine.start_job() {
        engine.finish_job(job.run()).unwrap();
    }
}

fn backup(engine: &mut Engine) -> Vec<u8> {
    let mut bytes = vec![];
    engine.backup(&mut bytes, &mut |_| {}).unwrap();
    bytes
}

#[test]
fn answers_are_the_references_over_hundreds_of_runs_and_merges() {
    let only = std::env::var("SEED").ok().and_then(|text| text.parse().ok());
    for seed in only.map_or(1..=6, |seed| seed..=seed) {
        let (disk, options) = (SimDisk::new(), tiny(seed));
        let (mut engine, _) = open(&disk, &options);
        let (mut model, mut traffic) = (MemoryStore::new(), Traffic::new(seed));
        (traffic.only_rows, traffic.rows) = (true, 60);
        let (mut folds, mut merges, mut merged, mut most) = (0, 0, 0, 0);
        for step in 0..300 {
            let batch = traffic.batch(0);
            model.apply(&batch).unwrap();
            engine.commit(&[batch]).unwrap();
            // What a job writes is seen when it is taken note of, whatever was committed and asked before.
            let check = |engine: &mut Engine, seed_of_queries: &mut Seed| {
                for query in queries(seed_of_queries) {
                    let result = same_answer(&query, &model, &engine.query(&query).unwrap());
                    result.unwrap_or_else(|text| panic!("seed {seed}, batch {step}: {text}"));
                }
            };
            if traffic.seed.one_in(4) {
                check(&mut engine, &mut traffic.seed);
            }
            let mut jobs = traffic.seed.below(12);
            // Commits wait in the broker while so many segments do.
            while jobs > 0 || engine.backlog() > 3 {
                jobs = jobs.saturating_sub(1);
                let Some(job) = engine.start_job() else { break };
                let done = job.run();
                if traffic.seed.one_in(12) {
                    check(&mut engine, &mut traffic.seed);
                }
                engine.finish_job(done).unwrap();
                most = most.max(engine.row_runs());
            }
            if traffic.seed.one_in(60) {
                let totals = engine.totals();
                (folds, merges, merged) = (folds + totals.folds, merges + totals.merges, merged + totals.merged_bytes);
                drop(engine);
                let (opened, found) = open(&disk, &options);
                engine = opened;
                same_snapshot(&model.snapshot(), &found)
                    .unwrap_or_else(|text| panic!("seed {seed}, opened after batch {step}: {text}"));
                check(&mut engine, &mut traffic.seed);
            }
        }
        let totals = engine.totals();
        (folds, merges, merged) = (folds + totals.folds, merges + totals.merges, merged + totals.merged_bytes);
        assert!(folds > 30 && merges > 40, "seed {seed}: {folds} folds and {merges} merges are too few");
        assert!(merged > 1 << 20, "seed {seed}: {merged} bytes merged");
        // Seven tables, each with a few runs of a few levels.
        assert!(most < 150, "seed {seed}: {most} runs at a time");
        settle(&mut engine);
        engine.close().unwrap();
        same_snapshot(&model.snapshot(), &open(&disk, &options).1).unwrap();
    }
}

#[test]
fn what_is_deleted_or_trimmed_leaves_the_disk_with_merging() {
    let disk = SimDisk::new();
    let options = Options { merge_runs: 2, ..tiny(0) };
    let (mut engine, _) = open(&disk, &options);
    for round in 0..20 {
        let mut batch = Batch::default();
        for b in 0..40 {
            batch.push(&Fact::Put { table: BODIES, a: round % 3, b: round * 40 + b, value: &[7; 100] });
            batch.push(&Fact::Put { table: KEYS, a: round, b, value: &[8; 16] });
            batch.push(&Fact::Put { table: Table(1), a: round, b, value: &[9; 16] });
        }
        engine.commit(&[batch]).unwrap();
        settle(&mut engine);
    }
    assert!(backup(&mut engine).len() > 80_000);
    let mut batch = Batch::default();
    for round in 0..20 {
        batch.push(&Fact::Trim { table: BODIES, a: round % 3, below: 800 });
        for b in 0..40 {
            batch.push(&Fact::Del { table: KEYS, a: round, b });
            batch.push(&Fact::Del { table: Table(1), a: round, b });
        }
    }
    engine.commit(&[batch]).unwrap();
    settle(&mut engine);
    // Small folds, until what was deleted meets the oldest run.
    for number in 0..64 {
        let mut batch = Batch::default();
        for table in [BODIES, KEYS, Table(1)] {
            batch.push(&Fact::Put { table, a: 1000, b: number, value: &[1] });
        }
        engine.commit(&[batch]).unwrap();
        settle(&mut engine);
    }
    let left = backup(&mut engine).len();
    assert!(left < 8_000, "{left} bytes are left of what was deleted");
}

/// A value that is found in a backup by its bytes.
fn secret(number: u64) -> Vec<u8> {
    format!("the secret of {number:08} is not to stay").into_bytes()
}

fn holds(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

#[test]
fn a_body_that_is_written_again_is_gone_from_the_disk_with_its_fold() {
    for seed in 0..6 {
        let (disk, options) = (SimDisk::new(), tiny(seed));
        let (mut engine, _) = open(&disk, &options);
        let (mut seed, mut next) = (Seed(seed), [0u64; 9]);
        let mut there: Vec<(u64, u64, u64)> = vec![];
        let mut wiped = 0;
        for number in 0..900u64 {
            let mut batch = Batch::default();
            let a = seed.below(9);
            batch.push(&Fact::Put { table: BODIES, a, b: next[a as usize], value: &secret(number) });
            there.push((a, next[a as usize], number));
            next[a as usize] += 1;
            let mut gone = None;
            if seed.one_in(30) {
                let (a, b, secret) = there.swap_remove(seed.below(there.len() as u64) as usize);
                batch.push(&Fact::Put { table: BODIES, a, b, value: b"recalled" });
                gone = Some((a, b, secret));
            }
            engine.commit(&[batch]).unwrap();
            // Half of the time a merge is under way, and often what was remembered of the rows is lost.
            for _ in 0..seed.below(3) {
                let Some(job) = engine.start_job() else { break };
                engine.finish_job(job.run()).unwrap();
            }
            if seed.one_in(100) {
                drop(engine);
                engine = open(&disk, &options).0;
            }
            if let Some((a, b, number)) = gone {
                let bytes = backup(&mut engine);
                assert!(!holds(&bytes, &secret(number)), "row ({a}, {b}) is readable still");
                wiped += 1;
            }
        }
        assert!(wiped > 15, "{wiped} rows were wiped");
        let bytes = backup(&mut engine);
        assert!(there.iter().all(|&(.., number)| holds(&bytes, &secret(number))), "and no other row");
    }
}

#[test]
fn rows_are_kept_for_as_long_as_was_said_and_not_for_ever() {
    const KEEP_MS: u64 = 80_000;
    for seed in 1..=3 {
        let disk = SimDisk::new();
        let retention = vec![Retention { table: KEYS, keep_ms: KEEP_MS }];
        let options = Options { retention, ..tiny(seed) };
        let (mut engine, _) = open(&disk, &options);
        let mut seed = Seed(seed);
        let (mut clock, mut rows, mut oldest) = (0, vec![], 0);
        for step in 0..600u64 {
            let mut batch = Batch::default();
            if step > 0 {
                clock += seed.below(3000);
                batch.push(&Fact::Clock { wall_ms: 1 << 40 | clock });
            }
            for _ in 0..20 {
                let key = (seed.below(50), seed.draw());
                batch.push(&Fact::Put { table: KEYS, a: key.0, b: key.1, value: &[5; 16] });
                rows.push((clock, key));
            }
            // Some other rows, which stay.
            batch.push(&Fact::Put { table: BODIES, a: 1, b: step, value: &[3; 50] });
            engine.commit(&[batch]).unwrap();
            if seed.one_in(3) {
                while let Some(job) = engine.start_job() {
                    engine.finish_job(job.run()).unwrap();
                }
            }
            if !seed.one_in(4) {
                continue;
            }
            let young: Vec<(u64, u64)> =
                rows.iter().filter(|(at, _)| at + KEEP_MS >= clock).map(|(_, key)| *key).collect();
            let count = young.len() as u32;
            let found = engine.query(&Query { token: 0, table: KEYS, what: What::Rows(young) }).unwrap();
            assert_eq!(found.rows, count, "step {step}: rows are there until they are too old");
            if seed.one_in(20) {
                settle(&mut engine);
                drop(engine);
                let (opened, snapshot) = open(&disk, &options);
                engine = opened;
                let known: std::collections::BTreeSet<_> = snapshot.keys.iter().map(|&(_, a, b)| (a, b)).collect();
                let first = rows.iter().find(|(_, key)| known.contains(key)).map_or(clock, |(at, _)| *at);
                assert!(first >= oldest, "what was given up does not come back");
                oldest = first;
                // A run holds the rows of at most an eighth of the time, and the last fold is not long ago.
                assert!(clock - first < KEEP_MS * 3 / 2, "step {step}: a row of {first} is there at {clock}");
            }
        }
        assert!(clock > KEEP_MS * 5);
        let what = What::Range {
            a: 1,
            from: 0,
            until: u64::MAX,
            direction: Direction::Up,
            max_rows: u32::MAX,
            max_bytes: u32::MAX,
        };
        assert_eq!(engine.query(&Query { token: 0, table: BODIES, what }).unwrap().rows, 600);
        settle(&mut engine);
        // Two hundred rows a keep time and a half, of 30 bytes, and what stays.
        let bytes = backup(&mut engine).len();
        assert!(bytes < 150_000, "{bytes} bytes are left");
    }
}
