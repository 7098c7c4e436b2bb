//! The disk side of the simulated broker: a [`Store`] whose work is done one step at a time, when the world says so.

use super::Rng;
use crate::disk::{KEEPS, Keep, SimDisk};
use parlor::store::{Engine, Job, Options};
use parlor_core::store::memory::MemoryStore;
use parlor_core::store::{Answer, Batch, BatchNo, Load, Page, Query, Snapshot, Store, StoreEvent};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

/// The power is gone: nothing more is written until it is back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PowerCut;

/// What survives a broker.
pub trait Backend {
    /// Starts on what is there.
    fn open(&mut self) -> Result<Snapshot, PowerCut>;
    /// Makes a batch durable.
    fn commit(&mut self, batch: Batch) -> Result<(), PowerCut>;
    /// Reads a page.
    fn load(&mut self, load: &Load) -> Result<Page, PowerCut>;
    /// Reads rows.
    fn query(&mut self, query: &Query) -> Result<Answer, PowerCut>;
    /// One piece of work in the background, if there is any.
    fn tidy(&mut self) -> Result<(), PowerCut>;
    /// An orderly end.
    fn close(&mut self) -> Result<(), PowerCut>;
    /// Power goes (if it has not gone yet) and comes back.
    fn power_cut(&mut self);
    /// How many writes and syncs the disk has seen.
    fn disk_steps(&self) -> u64;
    /// The disk freezes after so many more writes and syncs.
    fn freeze_after(&mut self, steps: u64);
    /// Errors of the store while the power was on.
    fn complaints(&self) -> &[String] {
        &[]
    }
}

/// The reference store: what was committed is there, at once and whole.
#[derive(Debug, Default)]
pub struct InMemory {
    store: MemoryStore,
    last: u64,
    steps: u64,
    left: Option<u64>,
}

impl Backend for InMemory {
    fn open(&mut self) -> Result<Snapshot, PowerCut> {
        self.last = 0;
        Ok(self.store.open())
    }

    fn commit(&mut self, batch: Batch) -> Result<(), PowerCut> {
        if let Some(left) = &mut self.left {
            *left = left.checked_sub(1).ok_or(PowerCut)?;
        }
        self.steps += 1;
        self.last += 1;
        self.store.submit(BatchNo(self.last), batch);
        while self.store.poll().is_some() {}
        Ok(())
    }

    fn load(&mut self, load: &Load) -> Result<Page, PowerCut> {
        self.store.load(*load);
        match self.store.poll() {
            Some(StoreEvent::Page(page)) => Ok(page),
            other => panic!("a page was asked for, got {other:?}"),
        }
    }

    fn query(&mut self, query: &Query) -> Result<Answer, PowerCut> {
        Ok(self.store.answer(query))
    }

    fn tidy(&mut self) -> Result<(), PowerCut> {
        Ok(())
    }

    fn close(&mut self) -> Result<(), PowerCut> {
        Ok(())
    }

    fn power_cut(&mut self) {
        self.left = None;
    }

    fn disk_steps(&self) -> u64 {
        self.steps
    }

    fn freeze_after(&mut self, steps: u64) {
        self.left = Some(steps);
    }
}

/// The broker's own store on a simulated disk.
#[derive(Debug)]
pub struct OnDisk {
    disk: SimDisk,
    engine: Option<Engine>,
    job: Option<Job>,
    options: Options,
    rng: Rng,
    keep: Option<Keep>,
    steps_before: u64,
    complaints: Vec<String>,
}

impl OnDisk {
    /// An empty disk. After a power cut it keeps of the unsynced what `keep` says, or what chance says.
    pub fn new(seed: u64, keep: Option<Keep>) -> Self {
        let mut rng = Rng::new(seed ^ 0xD15C);
        let segment_bytes = 4096 * rng.between(4, 24);
        let options = Options {
            segment_bytes,
            segment_step_bytes: 8192,
            max_frozen_segments: 2,
            cache_bytes: 1 << 16,
            low_space_bytes: 0,
            merge_runs: 3,
            row_slice_bytes: 8192,
            salt: Some(seed),
            ..Options::default()
        };
        Self { disk: SimDisk::new(), engine: None, job: None, options, rng, keep, steps_before: 0, complaints: vec![] }
    }

    /// An error while the power is on is the store's own.
    fn judge<T, E: std::fmt::Display>(&mut self, what: &str, result: Result<T, E>) -> Result<T, PowerCut> {
        result.map_err(|error| {
            if !self.disk.is_off() {
                self.complaints.push(format!("{what}: {error}"));
            }
            PowerCut
        })
    }
}

impl Backend for OnDisk {
    fn open(&mut self) -> Result<Snapshot, PowerCut> {
        let opened = Engine::open(Arc::new(self.disk.clone()), &self.options);
        let (engine, snapshot) = self.judge("open", opened)?;
        self.engine = Some(engine);
        Ok(snapshot)
    }

    fn commit(&mut self, batch: Batch) -> Result<(), PowerCut> {
        if self.engine.as_ref().is_some_and(|e| e.backlog() >= self.options.max_frozen_segments) {
            self.tidy()?;
            self.tidy()?;
        }
        let Some(engine) = &mut self.engine else { return Err(PowerCut) };
        let done = engine.commit(&[batch]);
        self.judge("commit", done)
    }

    fn load(&mut self, load: &Load) -> Result<Page, PowerCut> {
        let Some(engine) = &mut self.engine else { return Err(PowerCut) };
        let page = engine.load(load);
        self.judge("load", page)
    }

    fn query(&mut self, query: &Query) -> Result<Answer, PowerCut> {
        let Some(engine) = &mut self.engine else { return Err(PowerCut) };
        let answer = engine.query(query);
        self.judge("query", answer)
    }

    /// A fold or a slice of merging begins at one call and is done at the next, with commits in between.
    fn tidy(&mut self) -> Result<(), PowerCut> {
        let Some(engine) = &mut self.engine else { return Err(PowerCut) };
        match self.job.take() {
            None => {
                self.job = engine.start_job();
                Ok(())
            }
            Some(job) => {
                let done = engine.finish_job(job.run());
                self.judge("fold", done)
            }
        }
    }

    fn close(&mut self) -> Result<(), PowerCut> {
        if self.job.is_some() {
            self.tidy()?;
        }
        let Some(engine) = self.engine.take() else { return Err(PowerCut) };
        if self.rng.chance(50) {
            let closed = engine.close();
            self.judge("close", closed)?;
        }
        Ok(())
    }

    fn power_cut(&mut self) {
        // What was under way dies with the process.
        self.job = None;
        let keep = self.keep.unwrap_or_else(|| KEEPS[self.rng.at(KEEPS.len())]);
        self.steps_before += self.disk.calls();
        let after = self.disk.after_power_cut(keep, self.rng.draw());
        // The old engine may still write when it is dropped: to the disk that is gone.
        self.engine = None;
        self.disk = after;
    }

    fn disk_steps(&self) -> u64 {
        self.steps_before + self.disk.calls()
    }

    fn freeze_after(&mut self, steps: u64) {
        self.disk.cut_at(self.disk.calls() + steps);
    }

    fn complaints(&self) -> &[String] {
        &self.complaints
    }
}

/// What the hub has asked of the disk and what it will be told.
#[derive(Debug, Default)]
pub struct Queue {
    asked: VecDeque<Asked>,
    events: VecDeque<StoreEvent>,
}

#[derive(Debug)]
enum Asked {
    Commit(BatchNo, Batch),
    Load(Load),
    Query(Query),
}

/// The [`Store`] the hub's driver sees.
#[derive(Debug, Default, Clone)]
pub struct Desk(Rc<RefCell<Queue>>);

impl Desk {
    /// Whether something was asked and not done.
    pub fn is_busy(&self) -> bool {
        !self.0.borrow().asked.is_empty()
    }

    /// Does the first thing that was asked.
    pub fn work(&self, backend: &mut dyn Backend) -> Result<(), PowerCut> {
        let Some(asked) = self.0.borrow_mut().asked.pop_front() else { return Ok(()) };
        let event = match asked {
            Asked::Commit(number, batch) => {
                backend.commit(batch)?;
                StoreEvent::Committed(number)
            }
            Asked::Load(load) => StoreEvent::Page(backend.load(&load)?),
            Asked::Query(query) => StoreEvent::Answer(backend.query(&query)?),
        };
        self.0.borrow_mut().events.push_back(event);
        Ok(())
    }
}

impl Store for Desk {
    fn submit(&mut self, number: BatchNo, batch: Batch) {
        self.0.borrow_mut().asked.push_back(Asked::Commit(number, batch));
    }

    fn load(&mut self, load: Load) {
        self.0.borrow_mut().asked.push_back(Asked::Load(load));
    }

    fn query(&mut self, query: Query) {
        self.0.borrow_mut().asked.push_back(Asked::Query(query));
    }

    fn poll(&mut self) -> Option<StoreEvent> {
        self.0.borrow_mut().events.pop_front()
    }
}
