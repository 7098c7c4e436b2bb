//! The disk side of the simulated broker: a [`Store`] whose work is done one step at a time, when the world says so.

use parlor_core::store::memory::MemoryStore;
use parlor_core::store::{Batch, BatchNo, Load, Page, Snapshot, Store, StoreEvent};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

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

    fn poll(&mut self) -> Option<StoreEvent> {
        self.0.borrow_mut().events.pop_front()
    }
}
