//! What is in flash, and what has to get there. The shared state says what is to be written, the runner writes it.

use super::outbox::{flag, kind, state};
use super::{Paired, Shared, Status};
use crate::bytes::{Put, Take};
use crate::error::{Outcome, SendError, Why};
use crate::rows::{Head, Rows};
use heapless::String;

/// Rows of the outbox that can be in flash.
pub(crate) const ROW_SLOTS: u8 = 16;

/// Tries to write something, before that is given up.
const TRIES: u8 = 3;

/// A key in flash.
pub(crate) mod key {
    pub(crate) const BOOT: u8 = 0;
    pub(crate) const PAIRED: u8 = 1;
    pub(crate) const UPDATE: u8 = 2;
    pub(crate) const RING: u8 = 8;
    pub(crate) const ROWS: u8 = 32;
}

/// Something to write. What is written is said by [`Shared::flash_fill`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Job {
    /// The account.
    Paired,
    /// A command.
    Command(u8),
    /// A row of the outbox.
    Row(u8),
    /// A row that is no longer needed: nothing, or what became of it.
    Clear(u8),
    /// How far an update is.
    Update,
}

impl Job {
    /// Where it is written.
    pub const fn key(self) -> u8 {
        match self {
            Self::Paired => key::PAIRED,
            Self::Update => key::UPDATE,
            Self::Command(at) => key::RING + at,
            Self::Row(at) | Self::Clear(at) => key::ROWS + at,
        }
    }
}

/// What flash has and is to get.
#[derive(Debug)]
pub(crate) struct Flashed {
    keeps: bool,
    /// Places of rows that are taken.
    used: u16,
    /// Places of rows that are to be emptied.
    clear: u16,
    /// The place that was taken last: the next one is another, so that outcomes that are there stay for a while.
    last: u8,
    /// The key that is being written.
    busy: Option<u8>,
    tries: u8,
    /// The last thing that was to be written could not be.
    fails: bool,
    paired: bool,
    /// How far an update is.
    #[cfg(feature = "update")]
    pub(crate) update: Option<heapless::Vec<u8, { crate::update::RECORD_BYTES }>>,
    /// The application has it.
    #[cfg(feature = "update")]
    update_taken: bool,
    /// An offer was taken and is not in flash yet: it is not acknowledged.
    #[cfg(feature = "update")]
    pub(super) update_offered: bool,
    update_dirty: bool,
}

impl Flashed {
    pub(super) const fn new() -> Self {
        Self {
            keeps: false,
            used: 0,
            clear: 0,
            last: 0,
            busy: None,
            tries: 0,
            fails: false,
            paired: false,
            #[cfg(feature = "update")]
            update: None,
            #[cfg(feature = "update")]
            update_taken: false,
            #[cfg(feature = "update")]
            update_offered: false,
            update_dirty: false,
        }
    }

    /// Whether there is flash to keep anything in.
    pub(crate) fn keeps(&self) -> bool {
        self.keeps
    }

    pub(super) fn busy_slot(&self) -> Option<u8> {
        self.busy?.checked_sub(key::ROWS)
    }

    pub(super) fn free_slot(&mut self) -> Result<u8, SendError> {
        if !self.keeps {
            return Err(SendError::Flash);
        }
        let mut places = (1..=ROW_SLOTS).map(|n| (self.last + n) % ROW_SLOTS);
        let free = places.find(|slot| (self.used | self.clear) >> slot & 1 == 0);
        // Places that cannot be emptied are worth no waiting.
        let free = free.ok_or(if self.fails { SendError::Flash } else { SendError::Full })?;
        self.used |= 1 << free;
        self.last = free;
        Ok(free)
    }

    pub(super) fn give_back(&mut self, slot: u8) {
        self.used &= !(1 << slot);
        self.clear |= 1 << slot;
    }

    /// Whether the place still has what is to go.
    pub(super) fn is_clearing(&self, slot: u8) -> bool {
        slot < ROW_SLOTS && (self.clear >> slot & 1 == 1 || self.busy_slot() == Some(slot))
    }
}

impl Shared {
    /// What was in flash under a key, at start; everything is loaded before [`Self::start`].
    pub fn load(&mut self, key: u8, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        match key {
            key::BOOT => self.boot = Take(bytes).u32(),
            key::PAIRED => {
                let mut take = Take(bytes);
                let paired = Paired {
                    account: String::try_from(take.short()).unwrap_or_default(),
                    password: String::try_from(take.short()).unwrap_or_default(),
                    owner: String::try_from(take.short()).unwrap_or_default(),
                    household: String::try_from(take.short()).unwrap_or_default(),
                };
                self.paired = Some(paired);
            }
            #[cfg(feature = "update")]
            key::UPDATE => self.flash.update = heapless::Vec::from_slice(bytes).ok(),
            key::RING..key::ROWS => self.ring.load(key - key::RING, bytes),
            key::ROWS.. => self.load_row(key - key::ROWS, bytes),
            _ => {}
        }
    }

    /// Keys to load at start.
    pub fn keys() -> impl Iterator<Item = u8> {
        let ring = u8::try_from(super::commands::RING).unwrap_or(0);
        [key::BOOT, key::PAIRED, key::UPDATE]
            .into_iter()
            .chain((0..ring).map(|at| key::RING + at))
            .chain((0..ROW_SLOTS).map(|at| key::ROWS + at))
    }

    fn load_row(&mut self, slot: u8, bytes: &[u8]) {
        if slot >= ROW_SLOTS {
            return;
        }
        let mut take = Take(bytes);
        let kind = take.u8();
        if kind == kind::OUTCOME {
            return self.load_outcome(take);
        }
        self.flash.used |= 1 << slot;
        let (flags, a, b) = (take.u8(), take.u32(), take.u32());
        let is_sent = matches!(kind, kind::MESSAGE | kind::TOPIC);
        let flags = (flags & !flag::WATCHED) | if is_sent { flag::EARLIER } else { 0 };
        let head = Head { kind, flags, state: state::READY, slot, a, b, ..Head::default() };
        let data = take.rest();
        let pushed = loop {
            let (buffer, _) = self.memory.rooms();
            let pushed = self.outbox.push(buffer, head, &mut |room| {
                room.get_mut(..data.len())?.copy_from_slice(data);
                Some(data.len())
            });
            if pushed || !self.drop_unclaimed() {
                break pushed;
            }
        };
        // Those of older starts come first, and of each the earlier. What has no room now comes after the next start.
        let (buffer, _) = self.memory.rooms();
        let is_later = |other: &Head| other.state < state::ACKED && (other.b, other.a) > (b, a);
        let place = self.outbox.find(buffer, &|other, _| is_later(other));
        if let (true, Some((at, _)), Ok(len)) = (pushed, place, u16::try_from(data.len())) {
            self.outbox.move_last(buffer, at, Head { len, ..head });
        }
    }

    /// Everything is loaded. `fresh`: a random number, for a device that starts for the first time; `keeps`: there is
    /// flash. Returns what is to be written under the key 0 before the device says anything.
    pub fn start(&mut self, fresh: u64, keeps: bool) -> [u8; 4] {
        self.flash.keeps = keeps;
        self.boot = if keeps && self.boot != 0 {
            self.boot.wrapping_add(1).max(1)
        } else {
            // Far from the end, so that counting on does not come round.
            ((fresh >> 32) as u32 >> 1).max(1)
        };
        self.next_seq = 1;
        if !keeps {
            // There is nothing to count on: the number within the start is random, too.
            self.next_seq = ((fresh & 0xFFFF_FFFF) as u32 >> 1).max(1);
        }
        self.boot.to_be_bytes()
    }

    /// The number of this start is in flash, or need not be.
    pub fn started(&mut self) {
        self.set_status(Status::Connecting);
        self.wake_app();
        self.wake_runner();
    }

    pub(crate) fn is_started(&self) -> bool {
        self.status != Status::Starting
    }

    /// The next thing to write; none while one is being written.
    pub fn poll_flash(&mut self) -> Option<Job> {
        if self.flash.busy.is_some() || !self.flash.keeps {
            return None;
        }
        let (buffer, _) = self.memory.rooms();
        let job = if self.flash.paired {
            Job::Paired
        } else if let Some(at) = self.ring.dirty() {
            Job::Command(at)
        } else if let Some((_, head)) = self.outbox.find(buffer, &|head, _| head.state == state::NEW) {
            Job::Row(head.slot)
        } else if self.flash.update_dirty {
            Job::Update
        } else if self.flash.clear != 0 {
            Job::Clear((self.flash.clear.trailing_zeros() & 0xFF) as u8)
        } else {
            return None;
        };
        match job {
            Job::Paired => self.flash.paired = false,
            Job::Update => self.flash.update_dirty = false,
            Job::Command(at) => self.ring.clean(at),
            Job::Clear(slot) | Job::Row(slot) => self.flash.clear &= !(1 << slot),
        }
        self.flash.busy = Some(job.key());
        Some(job)
    }

    /// Writes what is to be kept to the front of `out`; `None`: it does not fit. Empty: nothing is to be there.
    pub fn flash_fill(&mut self, job: Job, out: &mut [u8]) -> Option<usize> {
        match job {
            Job::Clear(slot) => self.save_outcome(slot, out),
            Job::Command(at) => self.ring.save(at, out),
            #[cfg(not(feature = "update"))]
            Job::Update => Some(0),
            #[cfg(feature = "update")]
            Job::Update => {
                let bytes = self.flash.update.as_deref().unwrap_or(&[]);
                out.get_mut(..bytes.len())?.copy_from_slice(bytes);
                Some(bytes.len())
            }
            Job::Paired => {
                let Some(paired) = &self.paired else { return Some(0) };
                let mut put = Put::new(out);
                for text in [paired.account.as_str(), &paired.password, &paired.owner, &paired.household] {
                    put.short(text.as_bytes());
                }
                put.done()
            }
            Job::Row(slot) => {
                let (buffer, _) = self.memory.rooms();
                // It may be gone already: then there is nothing to keep.
                let row = self.outbox.find(buffer, &|head, _| head.slot == slot && head.state == state::NEW);
                let Some((at, head)) = row else { return Some(0) };
                let mut put = Put::new(out);
                put.bytes(&[head.kind, head.flags & !(flag::WATCHED | flag::EARLIER)]);
                put.u32(head.a);
                put.u32(head.b);
                put.bytes(Rows::data(buffer, at, head));
                put.done()
            }
        }
    }

    /// What [`Self::poll_flash`] gave was written, or could not be.
    pub fn flash_done(&mut self, job: Job, ok: bool) {
        self.flash.busy = None;
        self.flash.tries = if ok { 0 } else { self.flash.tries.saturating_add(1) };
        let retry = !ok && self.flash.tries < TRIES;
        if !retry {
            self.flash.tries = 0;
            self.flash.fails = !ok;
        }
        match job {
            // It may have changed meanwhile.
            Job::Paired => self.flash.paired |= retry,
            Job::Update => {
                self.flash.update_dirty |= retry;
                #[cfg(feature = "update")]
                self.settle_offer(!self.flash.update_dirty);
            }
            Job::Command(at) if retry => self.ring.redo(at),
            Job::Command(at) => self.ring.saved(at, ok),
            Job::Clear(slot) => self.flash.clear |= u16::from(!ok) << slot,
            Job::Row(slot) => {
                let (buffer, _) = self.memory.rooms();
                let row = self.outbox.find(buffer, &|head, _| head.slot == slot && head.state == state::NEW);
                match row {
                    Some((at, head)) if ok => Rows::set(buffer, at, Head { state: state::READY, ..head }),
                    Some((at, head)) if !retry => self.finish(at, head, Outcome::Lost(Why::Flash)),
                    _ => {}
                }
            }
        }
        self.wake_app();
        self.wake_runner();
    }

    /// Pairing has given the device an account.
    pub(crate) fn set_paired(&mut self, paired: Paired) {
        self.paired = Some(paired);
        self.code.clear();
        self.flash.paired = self.flash.keeps;
        self.wake_app();
        self.wake_runner();
    }

    /// Forgets the account that pairing gave.
    pub(crate) fn unpair(&mut self) {
        self.paired = None;
        self.flash.paired = self.flash.keeps;
        self.wake_runner();
    }

    /// Whether the account is where it has to be.
    pub(crate) fn paired_is_kept(&self) -> bool {
        !self.flash.paired && self.flash.busy != Some(key::PAIRED)
    }

    /// Whether nothing waits for flash, or only for flash that takes nothing any more.
    pub(crate) fn flash_is_idle(&mut self) -> bool {
        if !self.flash.keeps || (self.flash.fails && self.flash.busy.is_none()) {
            return true;
        }
        let (buffer, _) = self.memory.rooms();
        self.flash.busy.is_none()
            && self.flash.clear == 0
            && !self.flash.paired
            && !self.flash.update_dirty
            && self.ring.dirty().is_none()
            && self.outbox.find(buffer, &|head, _| head.state == state::NEW).is_none()
    }

    /// Keeps how far an update is.
    #[cfg(feature = "update")]
    pub(crate) fn keep_update(&mut self, bytes: Option<&[u8]>) {
        self.flash.update = bytes.and_then(|bytes| heapless::Vec::from_slice(bytes).ok());
        self.flash.update_dirty = self.flash.keeps;
        self.wake_runner();
    }

    /// Whether flash has how far an update is.
    #[cfg(feature = "update")]
    pub(crate) fn update_is_kept(&self) -> bool {
        !self.flash.update_dirty && self.flash.busy != Some(key::UPDATE)
    }

    #[cfg(feature = "update")]
    pub(crate) fn update_is_taken(&self) -> bool {
        self.flash.update_taken
    }

    #[cfg(feature = "update")]
    pub(crate) fn take_update(&mut self) {
        self.flash.update_taken = true;
    }

    #[cfg(feature = "update")]
    pub(crate) fn release_update(&mut self) {
        self.flash.update_taken = false;
        self.settle_offer(true);
        self.wake_app();
    }

    /// An offer is taken. Were it acknowledged before flash has it, a reset in between would lose it.
    #[cfg(feature = "update")]
    pub(super) fn hold_offer(&mut self) {
        self.flash.update_offered = self.flash.keeps;
    }

    /// Flash has the offer, or nobody is going to write it.
    #[cfg(feature = "update")]
    fn settle_offer(&mut self, settled: bool) {
        if settled && self.flash.update_offered {
            self.flash.update_offered = false;
            self.acknowledge();
        }
    }
}
