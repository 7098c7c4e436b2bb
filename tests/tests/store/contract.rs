//! What every store does: the same facts give the same pages and the same snapshot.

use std::sync::Arc;

use parlor::store::disk::Disk;
use parlor::store::{Engine, Job, JobDone, Options, StoreError, StoreThreads};
use parlor_core::store::memory::MemoryStore;
use parlor_core::store::{Answer, Batch, BatchNo, Fact, Load, Page, Query, QueueIndex, Snapshot, Store, StoreEvent};
use parlor_tests::disk::{Seed, SimDisk};

use crate::rows::{queries, same_answer};
use crate::traffic::{Traffic, loads, same_page, same_snapshot};

/// Small enough that folds, new segments, recycled ones and merges of several slices happen within a few batches.
pub fn small() -> Options {
    Options {
        segment_bytes: 48 << 10,
        segment_step_bytes: 16 << 10,
        merge_runs: 3,
        row_slice_bytes: 20_000,
        salt: Some(7),
        ..Options::default()
    }
}

/// A store under test: it answers at once, and can be shut and opened again.
trait Subject {
    fn commit(&mut self, batch: &Batch);
    fn page(&mut self, load: &Load) -> Page;
    fn answer(&mut self, query: &Query) -> Answer;
    fn reopen(&mut self, orderly: bool) -> Snapshot;
}

/// The engine on this thread, with folds that take a while: commits and loads go on between their three steps.
struct Inline {
    disk: SimDisk,
    engine: Option<Engine>,
    seed: Seed,
    fold: Fold,
    folds: u64,
}

enum Fold {
    None,
    Begun(Job),
    Written(Result<JobDone, StoreError>),
}

impl Inline {
    fn step_fold(&mut self) {
        let engine = self.engine.as_mut().unwrap();
        self.fold = match std::mem::replace(&mut self.fold, Fold::None) {
            Fold::None => engine.start_job().map_or(Fold::None, Fold::Begun),
            Fold::Begun(job) => Fold::Written(job.run()),
            Fold::Written(done) => {
                engine.finish_job(done).unwrap();
                self.folds += 1;
                Fold::None
            }
        };
    }
}

impl Subject for Inline {
    fn commit(&mut self, batch: &Batch) {
        let engine = self.engine.as_mut().unwrap();
        engine.commit(&[Batch { bytes: batch.bytes.clone(), facts: batch.facts }]).unwrap();
        if self.seed.one_in(6) {
            engine.freeze().unwrap();
        }
        if self.seed.one_in(2) {
            self.step_fold();
        }
    }

    fn page(&mut self, load: &Load) -> Page {
        self.engine.as_mut().unwrap().load(load).unwrap()
    }

    fn answer(&mut self, query: &Query) -> Answer {
        self.engine.as_mut().unwrap().query(query).unwrap()
    }

    fn reopen(&mut self, orderly: bool) -> Snapshot {
        if orderly {
            while !matches!(self.fold, Fold::None) {
                self.step_fold();
            }
            self.engine.take().unwrap().close().unwrap();
        } else {
            self.fold = Fold::None;
            self.engine = None;
        }
        let (engine, snapshot) = Engine::open(Arc::new(self.disk.clone()), &small()).unwrap();
        self.engine = Some(engine);
        snapshot
    }
}

struct Threads {
    disk: Arc<dyn Disk>,
    store: Option<StoreThreads>,
    bell: std::sync::mpsc::Receiver<()>,
    number: u64,
}

impl Threads {
    fn open(disk: &Arc<dyn Disk>) -> (StoreThreads, std::sync::mpsc::Receiver<()>, Snapshot) {
        let (ring, bell) = std::sync::mpsc::channel();
        let wake = Box::new(move || {
            // The last event may come after the test stopped listening.
            let _ = ring.send(());
        });
        let (store, snapshot) = StoreThreads::open(Arc::clone(disk), &small(), wake).unwrap();
        (store, bell, snapshot)
    }

    fn next(&mut self) -> StoreEvent {
        loop {
            if let Some(event) = self.store.as_mut().unwrap().poll() {
                return event;
            }
            self.bell.recv_timeout(std::time::Duration::from_secs(20)).expect("an event within 20 s");
        }
    }
}

impl Subject for Threads {
    fn commit(&mut self, batch: &Batch) {
        self.number += 1;
        let number = BatchNo(self.number);
        self.store.as_mut().unwrap().submit(number, Batch { bytes: batch.bytes.clone(), facts: batch.facts });
        match self.next() {
            StoreEvent::Committed(found) => assert_eq!(found, number),
            other => panic!("{other:?}"),
        }
    }

    fn page(&mut self, load: &Load) -> Page {
        self.store.as_mut().unwrap().load(*load);
        match self.next() {
            StoreEvent::Page(page) => page,
            other => panic!("{other:?}"),
        }
    }

    fn answer(&mut self, query: &Query) -> Answer {
        self.store.as_mut().unwrap().query(query.clone());
        match self.next() {
            StoreEvent::Answer(answer) => answer,
            other => panic!("{other:?}"),
        }
    }

    fn reopen(&mut self, _: bool) -> Snapshot {
        self.store.take().unwrap().close().unwrap();
        let (store, bell, snapshot) = Self::open(&self.disk);
        (self.store, self.bell, self.number) = (Some(store), bell, 0);
        snapshot
    }
}

struct Reference(MemoryStore);

impl Subject for Reference {
    fn commit(&mut self, batch: &Batch) {
        self.0.submit(BatchNo(1), Batch { bytes: batch.bytes.clone(), facts: batch.facts });
        assert!(matches!(self.0.poll(), Some(StoreEvent::Committed(BatchNo(1)))));
    }

    fn page(&mut self, load: &Load) -> Page {
        self.0.load(*load);
        match self.0.poll() {
            Some(StoreEvent::Page(page)) => page,
            other => panic!("{other:?}"),
        }
    }

    fn answer(&mut self, query: &Query) -> Answer {
        self.0.query(query.clone());
        match self.0.poll() {
            Some(StoreEvent::Answer(answer)) => answer,
            other => panic!("{other:?}"),
        }
    }

    fn reopen(&mut self, _: bool) -> Snapshot {
        self.0.open()
    }
}

fn check(subject: &mut dyn Subject, seed: u64, batches: u32) {
    let mut model = MemoryStore::new();
    let mut traffic = Traffic::new(seed);
    // Queues of several chunks, and messages larger than a chunk.
    traffic.burst = (seed % 3) * 200;
    let mut starts = 1;
    model.open();
    for step in 0..batches {
        let batch = traffic.batch(30);
        model.apply(&batch).unwrap();
        subject.commit(&batch);
        for load in loads(&model, &mut traffic.seed) {
            let result = same_page(&load, &model.page(&load), &subject.page(&load));
            result.unwrap_or_else(|text| panic!("seed {seed}, batch {step}: {text}"));
        }
        for query in queries(&mut traffic.seed) {
            let result = same_answer(&query, &model, &subject.answer(&query));
            result.unwrap_or_else(|text| panic!("seed {seed}, batch {step}: {text}"));
        }
        if traffic.seed.one_in(12) {
            let found = subject.reopen(traffic.seed.one_in(2));
            starts += 1;
            assert_eq!(found.boot, starts, "seed {seed}: starts are counted");
            let expected = model.open();
            let result = same_snapshot(&expected, &found);
            result.unwrap_or_else(|text| panic!("seed {seed}, opened after batch {step}: {text}"));
        }
    }
}

/// `SEED=n` runs that seed alone.
fn seeds(count: u64) -> impl Iterator<Item = u64> {
    let only = std::env::var("SEED").ok().and_then(|text| text.parse().ok());
    (1..=count).map(move |seed| only.unwrap_or(seed)).take(if only.is_some() { 1 } else { usize::MAX })
}

#[test]
fn the_engine_answers_like_the_reference() {
    for seed in seeds(24) {
        let disk = SimDisk::new();
        let (engine, snapshot) = Engine::open(Arc::new(disk.clone()), &small()).unwrap();
        assert_eq!(snapshot, Snapshot { boot: 1, ..Snapshot::default() });
        let mut subject = Inline { disk, engine: Some(engine), seed: Seed(seed), fold: Fold::None, folds: 0 };
        check(&mut subject, seed, 120);
        assert!(subject.folds > 3, "seed {seed}: the test is about folds");
    }
}

/// Rows in the index, counted by a backup.
fn rows(engine: &mut Engine) -> u64 {
    engine.backup(&mut std::io::sink(), &mut |_| {}).unwrap().rows
}

#[test]
fn what_is_answered_or_ended_leaves_nothing_behind() {
    for seed in seeds(8) {
        let (mut engine, _) = Engine::open(Arc::new(SimDisk::new()), &small()).unwrap();
        let (mut model, mut traffic) = (MemoryStore::new(), Traffic::new(seed));
        (traffic.burst, traffic.rows) = (200, 0);
        for _ in 0..80 {
            let batch = traffic.batch(30);
            model.apply(&batch).unwrap();
            engine.commit(&[batch]).unwrap();
            engine.fold_full().unwrap();
        }
        let found = model.snapshot();
        let messages: u64 = found.sessions.iter().map(|session| session.queued).sum();
        assert!(messages > 50, "seed {seed}: the test is about queues, and only {messages} messages are queued");
        assert!(rows(&mut engine) > 20);
        // Half of the sessions read their queues to the end, from the back; then all end.
        let mut batch = Batch::default();
        for session in found.sessions.iter().step_by(2) {
            for index in (session.head.0..session.tail.0).rev() {
                batch.push(&Fact::Acked { no: session.no, index: QueueIndex(index) });
            }
        }
        model.apply(&batch).unwrap();
        engine.commit(&[batch]).unwrap();
        engine.fold_all().unwrap();
        for load in loads(&model, &mut traffic.seed) {
            same_page(&load, &model.page(&load), &engine.load(&load).unwrap()).unwrap();
        }
        let mut batch = Batch::default();
        for session in &found.sessions {
            batch.push(&Fact::SessionEnd { no: session.no });
        }
        engine.commit(&[batch]).unwrap();
        assert_eq!(engine.tail_entries(), 0);
        // Three numbers describe the store; the rest belongs to no session.
        let left = 3 + found.retained.len() + found.wills.len() + found.accounts.len();
        assert_eq!(rows(&mut engine), left as u64, "seed {seed}");
    }
}

#[test]
fn the_threads_answer_like_the_reference() {
    for seed in seeds(4) {
        let disk: Arc<dyn Disk> = Arc::new(SimDisk::new());
        let (store, bell, _) = Threads::open(&disk);
        check(&mut Threads { disk, store: Some(store), bell, number: 0 }, seed, 120);
    }
}

#[test]
fn the_reference_answers_like_itself_through_the_seam() {
    let mut store = MemoryStore::new();
    store.open();
    check(&mut Reference(store), 1, 120);
}
