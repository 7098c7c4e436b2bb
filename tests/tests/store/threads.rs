//! The store's threads: order, failure, room on the disk, an orderly end, power cuts.

use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use parlor::store::disk::{DirDisk, DirError, Disk, DiskFile};
use parlor::store::{Engine, Options, StoreThreads};
use parlor_core::store::memory::MemoryStore;
use parlor_core::store::{Batch, BatchNo, Snapshot, Store, StoreEvent};
use parlor_tests::disk::{KEEPS, SimDisk};

use crate::backup::Dir;
use crate::contract::small;
use crate::rows::{queries, same_answer};
use crate::traffic::{Traffic, loads, same_page, same_snapshot};

/// A store with its bell.
pub struct Running {
    pub store: StoreThreads,
    bell: Receiver<()>,
}

impl Running {
    pub fn open(disk: Arc<dyn Disk>, options: &Options) -> (Self, Snapshot) {
        let (ring, bell) = channel();
        let wake = Box::new(move || {
            // The last event may come after the test stopped listening.
            let _ = ring.send(());
        });
        let (store, snapshot) = StoreThreads::open(disk, options, wake).unwrap();
        (Self { store, bell }, snapshot)
    }

    /// The next event; `None` when none comes within 20 s, or ever.
    pub fn next(&mut self) -> Option<StoreEvent> {
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            if let Some(event) = self.store.poll() {
                return Some(event);
            }
            match self.bell.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(()) => {}
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return self.store.poll(),
            }
        }
    }

    /// Waits until `number` is committed.
    pub fn committed(&mut self, number: u64) {
        loop {
            match self.next() {
                Some(StoreEvent::Committed(BatchNo(found))) if found >= number => return,
                Some(StoreEvent::Committed(_)) => {}
                other => panic!("waiting for batch {number}: {other:?}"),
            }
        }
    }
}

fn copy(batch: &Batch) -> Batch {
    Batch { bytes: batch.bytes.clone(), facts: batch.facts }
}

#[test]
fn batches_that_wait_are_committed_together_in_order_and_survive_an_orderly_end() {
    let disk = SimDisk::new();
    let (mut running, _) = Running::open(Arc::new(disk.clone()), &small());
    let (mut traffic, mut model) = (Traffic::new(1), MemoryStore::new());
    for number in 1..=2000 {
        let batch = traffic.batch(6);
        model.apply(&batch).unwrap();
        running.store.submit(BatchNo(number), batch);
    }
    running.store.close().unwrap();
    let figures = running.store.figures().read();
    assert_eq!(figures.batches, 2000);
    assert!(figures.commits < 2000, "at least once two batches waited together: {figures:?}");
    assert_eq!(figures.commit_latency.iter().sum::<u64>(), figures.commits);
    assert_eq!((figures.waiting_batches, figures.frozen_segments), (0, 0));
    let mut last = 0;
    while let Some(event) = running.store.poll() {
        let StoreEvent::Committed(BatchNo(number)) = event else { panic!("{event:?}") };
        assert!(number > last, "{number} after {last}");
        last = number;
    }
    assert_eq!(last, 2000);
    drop(running);
    let (engine, found) = Engine::open(Arc::new(disk), &small()).unwrap();
    same_snapshot(&model.snapshot(), &found).unwrap();
    assert_eq!(engine.recovery().facts, 0, "an orderly end leaves nothing in the journal");
}

#[test]
fn pages_are_right_while_segments_are_folded() {
    let (mut running, _) = Running::open(Arc::new(SimDisk::new()), &small());
    let (mut traffic, mut model) = (Traffic::new(2), MemoryStore::new());
    for number in 1..=300 {
        let batch = traffic.batch(12);
        model.apply(&batch).unwrap();
        running.store.submit(BatchNo(number), copy(&batch));
        running.committed(number);
        for load in loads(&model, &mut traffic.seed) {
            running.store.load(load);
            match running.next() {
                Some(StoreEvent::Page(page)) => same_page(&load, &model.page(&load), &page).unwrap(),
                other => panic!("{other:?}"),
            }
        }
        for query in queries(&mut traffic.seed) {
            running.store.query(query.clone());
            match running.next() {
                Some(StoreEvent::Answer(answer)) => same_answer(&query, &model, &answer).unwrap(),
                other => panic!("{other:?}"),
            }
        }
    }
    assert!(running.store.figures().read().folds > 0, "the test is about folds");
}

#[test]
fn little_room_is_reported_and_so_is_its_end() {
    let disk = SimDisk::new();
    disk.leave_room(1000);
    let (mut running, _) = Running::open(Arc::new(disk.clone()), &small());
    assert!(matches!(running.next(), Some(StoreEvent::LowSpace(true))));
    disk.leave_room(1 << 30);
    assert!(matches!(running.next(), Some(StoreEvent::LowSpace(false))));
}

#[test]
fn a_disk_that_fails_stops_the_store() {
    let disk = SimDisk::new();
    let (mut running, _) = Running::open(Arc::new(disk.clone()), &small());
    let mut traffic = Traffic::new(3);
    running.store.submit(BatchNo(1), traffic.batch(3));
    running.committed(1);
    disk.cut_at(disk.calls());
    running.store.submit(BatchNo(2), traffic.batch(3));
    match running.next() {
        Some(StoreEvent::Failed(text)) => {
            assert!(text.contains("journal-0") && text.contains("check the disk"), "{text}");
        }
        other => panic!("{other:?}"),
    }
    disk.cut_at(u64::MAX);
    running.store.submit(BatchNo(3), traffic.batch(3));
    assert!(running.store.close().is_err());
    assert!(running.store.poll().is_none(), "nothing is committed after a failure");
}

#[test]
fn a_power_cut_under_the_threads_loses_nothing_acknowledged() {
    for round in 0..40 {
        let disk = SimDisk::new();
        let (mut running, _) = Running::open(Arc::new(disk.clone()), &small());
        disk.cut_at(disk.calls() + 3 + round * 7);
        let mut traffic = Traffic::new(100 + round);
        traffic.message_bytes = 2000;
        let (mut batches, mut acknowledged, mut failed) = (vec![], 0, false);
        for number in 1..=400 {
            let batch = traffic.batch(8);
            batches.push(copy(&batch));
            running.store.submit(BatchNo(number), batch);
            // Up to three batches are under way at a time.
            while !failed && acknowledged + 3 < number {
                match running.next() {
                    Some(StoreEvent::Committed(BatchNo(number))) => acknowledged = number,
                    Some(StoreEvent::Failed(_)) => failed = true,
                    other => panic!("{other:?}"),
                }
            }
            if failed {
                break;
            }
        }
        assert!(running.store.close().is_err() && failed, "round {round}: the power was cut");
        let after = disk.after_power_cut(KEEPS[round as usize % KEEPS.len()], round);
        let (_, found) = Engine::open(Arc::new(after), &small()).unwrap();
        // Everything acknowledged, and of what was under way a prefix.
        let mut model = MemoryStore::new();
        let mut fits = false;
        for (done, batch) in batches.iter().enumerate() {
            fits |= done as u64 >= acknowledged && same_snapshot(&model.snapshot(), &found).is_ok();
            model.apply(batch).unwrap();
        }
        fits |= same_snapshot(&model.snapshot(), &found).is_ok();
        assert!(fits, "round {round}: {acknowledged} of {} batches were acknowledged", batches.len());
    }
}

#[test]
fn two_brokers_never_share_a_data_directory() {
    let dir = Dir::new("shared");
    let first = DirDisk::open(dir.path()).unwrap();
    let error = DirDisk::open(dir.path()).unwrap_err();
    assert!(matches!(error, DirError::InUse { .. }));
    let text = error.to_string();
    assert!(text.contains(&dir.path().display().to_string()) && text.contains("stop that one"), "{text}");
    drop(first);
    drop(DirDisk::open(dir.path()).unwrap());
}

#[test]
fn a_real_directory_holds_what_was_committed() {
    let dir = Dir::new("real");
    let (mut traffic, mut model) = (Traffic::new(4), MemoryStore::new());
    let mut number = 0;
    for round in 0..4 {
        let (mut running, found) = Running::open(Arc::new(DirDisk::open(dir.path()).unwrap()), &small());
        same_snapshot(&model.snapshot(), &found).unwrap_or_else(|text| panic!("round {round}: {text}"));
        let from = number;
        for _ in 0..30 {
            let batch = traffic.batch(20);
            model.apply(&batch).unwrap();
            number += 1;
            running.store.submit(BatchNo(number - from), batch);
        }
        running.committed(number - from);
    }
}

/// A disk on which the index cannot be synced until the gate opens.
#[derive(Debug)]
struct Gated(SimDisk, Arc<Gate>);

#[derive(Debug, Default)]
struct Gate {
    is_closed: Mutex<bool>,
    opened: Condvar,
}

#[derive(Debug)]
struct GatedFile(Arc<dyn DiskFile>, Arc<Gate>);

impl Disk for Gated {
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let file = self.0.open(name)?;
        Ok(if name.starts_with("index") { Arc::new(GatedFile(file, Arc::clone(&self.1))) } else { file })
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

impl DiskFile for GatedFile {
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
        let mut closed = self.1.is_closed.lock().unwrap();
        while *closed {
            closed = self.1.opened.wait(closed).unwrap();
        }
        drop(closed);
        self.0.sync_data()
    }
}

#[test]
fn a_fold_that_hangs_stops_commits_at_a_bound_and_never_loads() {
    let (disk, gate) = (SimDisk::new(), Arc::new(Gate::default()));
    let (mut running, _) = Running::open(Arc::new(Gated(disk.clone(), Arc::clone(&gate))), &small());
    *gate.is_closed.lock().unwrap() = true;
    let (mut traffic, mut model) = (Traffic::new(5), MemoryStore::new());
    let figures = running.store.figures();
    let mut number = 0;
    // Until a batch is left waiting because three full segments are.
    loop {
        let batch = traffic.batch(12);
        number += 1;
        running.store.submit(BatchNo(number), copy(&batch));
        let until = Instant::now() + Duration::from_secs(20);
        while figures.read().waiting_batches > 0 && figures.read().frozen_segments < 3 {
            assert!(Instant::now() < until, "{:?}", figures.read());
            std::thread::yield_now();
        }
        if figures.read().waiting_batches > 0 {
            break;
        }
        running.committed(number);
        model.apply(&batch).unwrap();
        assert!(number < 5000, "commits never stop: {:?}", figures.read());
    }
    let files = disk.list().unwrap();
    assert!(files.iter().filter(|name| name.starts_with("journal")).count() <= 5, "{files:?}");
    let all = loads(&model, &mut traffic.seed);
    assert!(!all.is_empty());
    for load in all {
        running.store.load(load);
        match running.next() {
            Some(StoreEvent::Page(page)) => same_page(&load, &model.page(&load), &page).unwrap(),
            other => panic!("{other:?}"),
        }
    }
    for query in queries(&mut traffic.seed) {
        running.store.query(query.clone());
        match running.next() {
            Some(StoreEvent::Answer(answer)) => same_answer(&query, &model, &answer).unwrap(),
            other => panic!("{other:?}"),
        }
    }
    *gate.is_closed.lock().unwrap() = false;
    gate.opened.notify_all();
    running.committed(number);
    running.store.close().unwrap();
}
