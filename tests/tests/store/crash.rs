//! Power cuts: at every call on the disk, whatever the disk keeps of what was not synced.

use std::io;
use std::sync::Arc;

use parlor::store::disk::{Disk, DiskFile};
use parlor::store::{Engine, Job, OpenError, Options};
use parlor_core::store::memory::MemoryStore;
use parlor_core::store::{Batch, Fact, QueueIndex, SessionNo, Snapshot};
use parlor_tests::disk::{KEEPS, Keep, Seed, SimDisk};

use crate::contract::small;
use crate::rows::{queries, same_answer};
use crate::traffic::{Traffic, loads, same_page, same_snapshot};

/// What the broker was told, and what it was doing when the power went.
struct Acknowledged {
    model: MemoryStore,
    /// The batches of the commit that was not answered.
    in_doubt: Vec<Batch>,
    /// Folds and slices of merging that were finished, those at a start not counted.
    folds: u32,
    slices: u32,
}

/// What is done until the power goes.
#[derive(Clone, Copy)]
struct Workload {
    seed: u64,
    steps: u32,
    /// Nothing but rows, in segments and slices so small that most of the work is folding and merging them.
    only_rows: bool,
}

impl Workload {
    fn of(seed: u64, steps: u32) -> Self {
        Self { seed, steps, only_rows: false }
    }

    fn of_rows(seed: u64, steps: u32) -> Self {
        Self { seed, steps, only_rows: true }
    }

    fn options(self) -> Options {
        if self.only_rows {
            Options { segment_bytes: 24 << 10, row_slice_bytes: 4000, merge_runs: 2, ..small() }
        } else {
            small()
        }
    }

    fn traffic(self) -> Traffic {
        let mut traffic = Traffic::new(self.seed);
        traffic.message_bytes = 1500;
        if self.only_rows {
            (traffic.only_rows, traffic.rows) = (true, 40);
        }
        traffic
    }
}

/// A disk between the store and the simulated one; stands for a store that does something wrong.
type Between = dyn Fn(&SimDisk) -> Arc<dyn Disk>;

fn honest(disk: &SimDisk) -> Arc<dyn Disk> {
    Arc::new(disk.clone())
}

/// Says "synced" at once: what a store that acknowledges before the sync looks like to its disk.
#[derive(Debug)]
struct Hasty(SimDisk);

#[derive(Debug)]
struct HastyFile(Arc<dyn DiskFile>);

impl Disk for Hasty {
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let file = self.0.open(name)?;
        Ok(if name.starts_with("journal") { Arc::new(HastyFile(file)) } else { file })
    }
    fn list(&self) -> io::Result<Vec<String>> {
        self.0.list()
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.0.remove(name)
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.0.rename(from, to)
    }
    fn sync_dir(&self) -> io::Result<()> {
        self.0.sync_dir()
    }
    fn free_bytes(&self) -> io::Result<u64> {
        self.0.free_bytes()
    }
}

impl DiskFile for HastyFile {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read_at(offset, out)
    }
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write_at(offset, data)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }
    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }
}

/// Runs the workload on `disk` until it ends or the power goes. Commits, folds and merges in three steps with commits
/// between them, restarts with and without an orderly end.
fn run(disk: &SimDisk, between: &Between, load: Workload) -> Acknowledged {
    let mut known = Acknowledged { model: MemoryStore::new(), in_doubt: vec![], folds: 0, slices: 0 };
    let (mut traffic, options) = (load.traffic(), load.options());
    let Ok((mut engine, _)) = Engine::open(between(disk), &options) else { return known };
    let mut job: Option<Job> = None;
    for _ in 0..load.steps {
        let batches: Vec<Batch> = (0..=traffic.seed.below(3)).map(|_| traffic.batch(12)).collect();
        if engine.commit(&batches).is_err() {
            known.in_doubt = batches;
            return known;
        }
        for batch in &batches {
            known.model.apply(batch).unwrap();
        }
        match traffic.seed.below(8) {
            0..=2 if job.is_none() => job = engine.start_job(),
            3 | 4 => {
                let mut jobs = if load.only_rows { 6 } else { 1 };
                while let Some(next) = job.take() {
                    let done = if next.is_fold() { &mut known.folds } else { &mut known.slices };
                    *done += 1;
                    if engine.finish_job(next.run()).is_err() {
                        return known;
                    }
                    jobs -= 1;
                    if jobs > 0 {
                        job = engine.start_job();
                    }
                }
            }
            5 if job.is_none() && traffic.seed.one_in(2) && engine.freeze().is_err() => return known,
            6 if traffic.seed.one_in(3) => {
                let done = job.take().map_or(Ok(()), |job| engine.finish_job(job.run()));
                if traffic.seed.one_in(2) {
                    if done.is_err() || engine.close().is_err() {
                        return known;
                    }
                } else {
                    drop(engine);
                }
                match Engine::open(between(disk), &options) {
                    Ok((opened, _)) => engine = opened,
                    Err(_) => return known,
                }
            }
            _ => {}
        }
    }
    known
}

/// The store on `disk` holds what was acknowledged, with or without what was in doubt, and nothing between.
fn verify(disk: &SimDisk, known: &Acknowledged, load: Workload, seed: u64) -> Result<(), String> {
    let (mut engine, found) =
        Engine::open(Arc::new(disk.clone()), &load.options()).map_err(|error| format!("does not open: {error}"))?;
    let mut with_doubt = known.model.clone();
    for batch in &known.in_doubt {
        with_doubt.apply(batch).map_err(|error| error.to_string())?;
    }
    let mut result = Ok(());
    for model in [&known.model, &with_doubt] {
        result = same_store(&mut engine, model, &found, seed);
        if result.is_ok() {
            break;
        }
    }
    result?;
    // And it goes on from there.
    let mut traffic = Traffic::new(seed);
    traffic.only_rows = true;
    engine.commit(&[session(1 << 40), traffic.batch(0)]).map_err(|error| error.to_string())?;
    while let Some(job) = engine.start_job() {
        engine.finish_job(job.run()).map_err(|error| error.to_string())?;
    }
    engine.fold_all().map_err(|error| error.to_string())
}

fn same_store(engine: &mut Engine, model: &MemoryStore, found: &Snapshot, seed: u64) -> Result<(), String> {
    same_snapshot(&model.snapshot(), found)?;
    for load in loads(model, &mut Seed(seed)) {
        let page = engine.load(&load).map_err(|error| error.to_string())?;
        same_page(&load, &model.page(&load), &page)?;
    }
    for query in queries(&mut Seed(seed)) {
        let answer = engine.query(&query).map_err(|error| error.to_string())?;
        same_answer(&query, model, &answer)?;
    }
    Ok(())
}

/// Cuts the power at call `from`, `from + step`, … of the workload.
fn cut_everywhere(load: Workload, from: u64, step: usize) {
    let (whole, seed) = (SimDisk::new(), load.seed);
    let known = run(&whole, &honest, load);
    let (calls, folds, slices) = (whole.calls(), known.folds, known.slices);
    assert!(calls > 150 && folds > 1, "the workload of seed {seed} makes only {calls} calls and {folds} folds");
    assert!(!load.only_rows || slices > 10, "the workload of seed {seed} merges only {slices} slices");
    for cut in (from..calls).step_by(step) {
        let disk = SimDisk::new();
        disk.cut_at(cut);
        let known = run(&disk, &honest, load);
        for keep in [KEEPS[cut as usize % KEEPS.len()], KEEPS[(cut as usize + 3) % KEEPS.len()]] {
            let after = disk.after_power_cut(keep, cut);
            verify(&after, &known, load, cut)
                .unwrap_or_else(|text| panic!("seed {seed}, cut at call {cut} of {calls}, {keep:?}: {text}"));
        }
    }
}

// Two tests, so that they share the work of one workload between two processors.
#[test]
fn a_power_cut_at_any_even_call_loses_nothing_acknowledged() {
    cut_everywhere(Workload::of(2, 45), 0, 2);
}

#[test]
fn a_power_cut_at_any_odd_call_loses_nothing_acknowledged() {
    cut_everywhere(Workload::of(2, 45), 1, 2);
}

#[test]
fn power_cuts_in_other_workloads_lose_nothing_acknowledged() {
    for seed in 10..16 {
        cut_everywhere(Workload::of(seed, 45), seed, 31);
    }
}

#[test]
fn a_power_cut_while_rows_are_folded_and_merged_loses_nothing_acknowledged() {
    for seed in 20..24 {
        // Each seed at other calls; in all, most kinds of calls of folds and merges.
        cut_everywhere(Workload::of_rows(seed, 50), seed, 61);
    }
}

#[test]
fn the_power_may_go_again_while_the_store_recovers() {
    for (load, step) in [(Workload::of(3, 40), 17), (Workload::of_rows(3, 40), 37)] {
        cut_again_and_again(load, step);
    }
}

fn cut_again_and_again(load: Workload, step: u64) {
    let whole = SimDisk::new();
    run(&whole, &honest, load);
    let mut cut = 5;
    while cut < whole.calls() {
        let disk = SimDisk::new();
        disk.cut_at(cut);
        let known = run(&disk, &honest, load);
        let after = disk.after_power_cut(KEEPS[cut as usize % KEEPS.len()], cut);
        // Cut during the start as often as the start has calls, one after the other on what the last one left.
        let mut now = after;
        for again in 0..200 {
            now.cut_at(again * 3);
            let opened = Engine::open(Arc::new(now.clone()), &load.options()).is_ok();
            now = now.after_power_cut(KEEPS[again as usize % KEEPS.len()], again);
            if opened {
                break;
            }
        }
        verify(&now, &known, load, cut).unwrap_or_else(|text| panic!("cut at call {cut}, and again: {text}"));
        cut += step;
    }
}

#[test]
fn the_check_catches_a_store_that_acknowledges_before_the_sync() {
    let load = Workload::of(1, 45);
    let hasty = |disk: &SimDisk| -> Arc<dyn Disk> { Arc::new(Hasty(disk.clone())) };
    let whole = SimDisk::new();
    run(&whole, &hasty, load);
    let caught = (0..whole.calls()).step_by(7).any(|cut| {
        let disk = SimDisk::new();
        disk.cut_at(cut);
        let known = run(&disk, &hasty, load);
        verify(&disk.after_power_cut(Keep::Nothing, cut), &known, load, cut).is_err()
    });
    assert!(caught, "losing acknowledged commits went unnoticed");
}

/// A store with `count` commits of one session each, not folded, and the directory it left.
fn journal_of(count: u64) -> SimDisk {
    let disk = SimDisk::new();
    let (mut engine, _) = Engine::open(Arc::new(disk.clone()), &Options { segment_bytes: 1 << 20, ..small() }).unwrap();
    for no in 0..count {
        engine.commit(&[session(no)]).unwrap();
    }
    drop(engine);
    disk
}

fn session(no: u64) -> Batch {
    let mut batch = Batch::default();
    batch.push(&Fact::Session {
        no: SessionNo(no),
        client_id: &format!("c{no}"),
        account: "home",
        version: 5,
        expiry_secs: 1,
        disconnected_at_ms: 0,
        sent: QueueIndex(0),
    });
    batch
}

fn open_sessions(disk: &SimDisk, options: &Options) -> Result<usize, OpenError> {
    Engine::open(Arc::new(disk.clone()), options).map(|(_, snapshot)| snapshot.sessions.len())
}

#[test]
fn damage_in_the_middle_of_the_journal_is_refused_and_can_be_salvaged() {
    // Block 0 is the segment's header, block n the n-th record.
    for (record, byte) in [(1, 20), (3, 50), (4, 0), (5, 39)] {
        let disk = journal_of(6);
        disk.damage("journal-0", record * 4096, |bytes| bytes[byte] ^= 0x40);
        match open_sessions(&disk, &small()) {
            Err(OpenError::JournalDamaged { file, offset, valid_at }) => {
                assert_eq!((file.as_str(), offset, valid_at), ("journal-0", record * 4096, (record + 1) * 4096));
            }
            other => panic!("record {record}: {other:?}"),
        }
        let text = open_sessions(&disk, &small()).unwrap_err().to_string();
        assert!(text.contains("restore a backup") && text.contains("salvage"), "{text}");
        let salvaged = open_sessions(&disk, &Options { salvage: true, ..small() }).unwrap();
        assert_eq!(salvaged as u64, record - 1, "what was before the damage is kept");
        assert_eq!(open_sessions(&disk, &small()).unwrap() as u64, record - 1, "and the store is whole again");
    }
}

#[test]
fn a_damaged_segment_header_is_refused_when_records_follow() {
    let disk = journal_of(3);
    disk.damage("journal-0", 0, |bytes| bytes[9] ^= 1);
    assert!(matches!(open_sessions(&disk, &small()), Err(OpenError::JournalDamaged { offset: 0, .. })));
    let empty = journal_of(0);
    empty.damage("journal-0", 0, |bytes| bytes[9] ^= 1);
    assert_eq!(open_sessions(&empty, &small()).unwrap(), 0);
}

#[test]
fn the_last_record_may_be_torn_anywhere() {
    for byte in [0, 25, 39, 45] {
        let disk = journal_of(6);
        disk.damage("journal-0", 6 * 4096, |bytes| bytes[byte] ^= 0x40);
        assert_eq!(open_sessions(&disk, &small()).unwrap(), 5);
        assert_eq!(open_sessions(&disk, &small()).unwrap(), 5);
    }
}

#[test]
fn files_of_another_store_and_missing_files_are_refused() {
    let (a, b) = (journal_of(2), SimDisk::new());
    drop(Engine::open(Arc::new(b.clone()), &Options { salt: Some(99), ..small() }).unwrap());
    let foreign = a.read("journal-0");
    b.open("journal-7").unwrap().write_at(0, &foreign).unwrap();
    assert!(matches!(open_sessions(&b, &small()), Err(OpenError::ForeignJournal { .. })));
    a.remove("index.redb").unwrap();
    assert!(matches!(open_sessions(&a, &small()), Err(OpenError::IndexMissing { .. })));
}

#[test]
fn after_a_failed_sync_the_engine_takes_nothing_more() {
    let disk = SimDisk::new();
    let (mut engine, _) = Engine::open(Arc::new(disk.clone()), &small()).unwrap();
    engine.commit(&[session(0)]).unwrap();
    // The write succeeds, its sync fails.
    disk.cut_at(disk.calls() + 1);
    let first = engine.commit(&[session(1)]).unwrap_err().to_string();
    assert!(first.contains("sync journal-0"), "{first}");
    disk.cut_at(u64::MAX);
    let second = engine.commit(&[session(2)]).unwrap_err().to_string();
    assert!(second.contains("stopped"), "{second}");
    drop(engine);
    let left = open_sessions(&disk.after_power_cut(Keep::Nothing, 0), &small()).unwrap();
    assert_eq!(left, 1);
}
