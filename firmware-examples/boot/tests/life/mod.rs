//! The life of a board that is offered an update: boot loader, application, boot loader, with the power cut once.
//!
//! The application does what `parlor_device::update` does, in its order: how far it is is kept now and then, all of it is
//! read back and compared, *installed* is kept, and only then is the boot loader told.

#![allow(dead_code, reason = "each test uses its part")]

pub mod flash;

use embassy_futures::block_on;
use flash::{Chip, Dead, Tear};
use parlor_boot::{BootError, Slot};
use std::rc::Rc;

/// Bytes of a range.
const RANGE: usize = 100;

/// A board with its boot loader.
pub trait Board {
    /// What the application writes through.
    type Slots: Slot;

    /// The chip.
    fn chip(&self) -> &Rc<Chip>;
    /// The boot loader: what it starts.
    fn load(&mut self) -> Result<Vec<u8>, Dead>;
    /// What the application has.
    fn slots(&self) -> Self::Slots;
    /// First thing in the application. `false`: reset.
    fn start(&self, slots: &mut Self::Slots) -> Result<bool, BootError>;
}

/// What goes on and must survive: the SDK's own record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Record {
    Offered,
    Fetching(usize),
    Installed,
    Done,
    Failed,
}

/// How the new image is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum New {
    /// It comes online.
    Works,
    /// It never comes online: a watchdog resets.
    Fails,
}

/// What a life showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// What runs in the end is the new image.
    pub updated: bool,
    /// What the requester is told in the end.
    pub done: bool,
    /// Bytes that were fetched, after the power came back.
    pub fetched_again: usize,
    /// Words and pages, and what the record took.
    pub steps: u64,
    /// Words that were written a second time before they were erased.
    pub twice: u64,
    /// How far the record was when the power went.
    pub kept: usize,
}

/// A promise that was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Broken {
    /// What the boot loader starts is neither the old image nor the new one.
    Mixed,
    /// What was written is not what was fetched.
    Lost,
    /// It did not come to an end.
    Endless,
    /// What was confirmed does not run any more, or what was not does.
    Forgot,
}

/// An image that is no other's.
pub fn image(len: usize, salt: u64) -> Vec<u8> {
    let mut x = salt | 1;
    (0..len)
        .map(|_| {
            x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            x.to_be_bytes()[1]
        })
        .collect()
}

/// How often an application that writes keeps how far it is, bytes.
pub struct Plan<'a> {
    /// What ran before.
    pub old: &'a [u8],
    /// What is offered.
    pub new: &'a [u8],
    /// How the new image is.
    pub is: New,
    /// So many bytes are between two records.
    pub keep: usize,
    /// The power goes at this step.
    pub cut: Option<(u64, Tear)>,
}

/// Lives until the update has had its outcome and a boot after that.
pub fn live<B: Board>(board: &mut B, plan: &Plan) -> Result<Seen, Broken> {
    let chip = Rc::clone(board.chip());
    chip.cut.set(plan.cut);
    let mut life =
        Life { record: Record::Offered, plan, chip: &chip, was_cut: false, fetched_again: 0, kept: 0, ended: false };
    // Twice more than any of these needs.
    for _ in 0..12 {
        if chip.dead.replace(false) {
            life.was_cut = true;
            if let Record::Fetching(kept) = life.record {
                life.kept = kept;
            }
        }
        let Ok(runs) = board.load() else { continue };
        let runs = if runs.starts_with(plan.new) {
            true
        } else if runs.starts_with(plan.old) {
            false
        } else {
            return Err(Broken::Mixed);
        };
        let ended = life.ended;
        if ended && runs != (life.record == Record::Done) {
            return Err(Broken::Forgot);
        }
        let mut slots = board.slots();
        match board.start(&mut slots) {
            Ok(true) => match block_on(life.application(&mut slots, runs)) {
                Ok(()) if ended => {
                    return Ok(Seen {
                        updated: runs,
                        done: life.record == Record::Done,
                        fetched_again: life.fetched_again,
                        steps: chip.done.get(),
                        twice: chip.twice.get(),
                        kept: life.kept,
                    });
                }
                Ok(()) => {}
                Err(_) if chip.dead.get() => {}
                Err(_) => return Err(Broken::Lost),
            },
            Ok(false) => {}
            Err(_) if chip.dead.get() => {}
            Err(_) => return Err(Broken::Lost),
        }
    }
    Err(Broken::Endless)
}

struct Life<'a> {
    record: Record,
    plan: &'a Plan<'a>,
    chip: &'a Chip,
    was_cut: bool,
    fetched_again: usize,
    kept: usize,
    ended: bool,
}

impl Life<'_> {
    /// The SDK's map keeps the value before, or this one.
    fn keep(&mut self, record: Record) -> Result<(), BootError> {
        match self.chip.step() {
            Ok(None) => self.record = record,
            Ok(Some(tear)) => {
                if tear == Tear::Within {
                    self.record = record;
                }
                return Err(BootError::Flash);
            }
            Err(Dead) => return Err(BootError::Flash),
        }
        Ok(())
    }

    /// Until the next reset.
    async fn application<S: Slot>(&mut self, slots: &mut S, new: bool) -> Result<(), BootError> {
        if new && self.plan.is == New::Fails {
            // It hangs; its watchdog bites.
            return Ok(());
        }
        match (self.record, new) {
            (Record::Installed, true) => {
                slots.confirm().await?;
                self.keep(Record::Done)?;
            }
            (Record::Installed, false) => self.keep(Record::Failed)?,
            (Record::Offered, false) => {
                self.keep(Record::Fetching(0))?;
                return self.install(slots, 0).await;
            }
            (Record::Fetching(offset), false) => {
                let offset = slots.resume(u32::try_from(offset).expect("images are small"));
                return self.install(slots, offset as usize).await;
            }
            (Record::Offered | Record::Fetching(_), true) => return Err(BootError::OnTrial),
            (Record::Done | Record::Failed, _) => {}
        }
        // Nothing that is not confirmed stays.
        self.ended = !slots.is_on_trial().await?;
        Ok(())
    }

    async fn install<S: Slot>(&mut self, slots: &mut S, from: usize) -> Result<(), BootError> {
        let (mut offset, mut kept) = (from, from);
        let at = |offset: usize| u32::try_from(offset).expect("images are small");
        while offset < self.plan.new.len() {
            let range = &self.plan.new[offset..self.plan.new.len().min(offset + RANGE)];
            if self.was_cut {
                self.fetched_again += range.len();
            }
            slots.write(at(offset), range).await?;
            offset += range.len();
            if offset - kept >= self.plan.keep {
                kept = offset;
                self.keep(Record::Fetching(offset))?;
            }
        }
        let mut back = vec![0; self.plan.new.len()];
        for (n, part) in back.chunks_mut(RANGE).enumerate() {
            slots.read(at(n * RANGE), part).await?;
        }
        if back != self.plan.new {
            return Err(BootError::Offset);
        }
        self.keep(Record::Installed)?;
        slots.finish(at(back.len())).await
    }
}

/// Cuts the power at every step of a life, or at every `stride`th, once before and once within it. What each showed.
pub fn cut_everywhere<B: Board>(make: impl Fn() -> B, plan: &Plan, stride: usize) -> Result<Vec<Seen>, (u64, Broken)> {
    let whole = live(&mut make(), plan).map_err(|broken| (u64::MAX, broken))?;
    let cuts = (0..whole.steps).step_by(stride).flat_map(|at| [(at, Tear::Before), (at, Tear::Within)]);
    cuts.map(|cut| live(&mut make(), &Plan { cut: Some(cut), ..*plan }).map_err(|broken| (cut.0, broken))).collect()
}
