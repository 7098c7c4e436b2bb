//! What is in flash, and what has to get there. The shared state says what is to be written, the runner writes it.

use super::outbox::{flag, kind, state};
use super::{Shared, Status};
use crate::bytes::{Put, Take};
use crate::error::{Outcome, SendError, Why};
use crate::rows::{At, Head, Rows};

/// Rows of the outbox that can be in flash.
pub(crate) const ROW_SLOTS: u8 = 16;

/// Tries to write something, before that is given up.
const TRIES: u8 = 3;

/// A key in flash.
pub(crate) mod key {
    pub(crate) const BOOT: u8 = 0;
    #[cfg(feature = "pairing")]
    pub(crate) const PAIRED: u8 = 1;
    #[cfg(feature = "update")]
    pub(crate) const UPDATE: u8 = 2;
    pub(crate) const RING: u8 = 8;
    pub(crate) const ROWS: u8 = 32;
}

/// Something to write. What is written is said by [`Shared::flash_fill`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Job {
    /// The account.
    #[cfg(feature = "pairing")]
    Paired,
    /// A command.
    #[cfg(feature = "commands")]
    Command(u8),
    /// A row of the outbox.
    Row(u8),
    /// A row that is no longer needed: nothing, or what became of it.
    Clear(u8),
    /// How far an update is.
    #[cfg(feature = "update")]
    Update,
}

impl Job {
    /// Where it is written.
    pub const fn key(self) -> u8 {
        match self {
            #[cfg(feature = "pairing")]
            Self::Paired => key::PAIRED,
            #[cfg(feature = "update")]
            Self::Update => key::UPDATE,
            #[cfg(feature = "commands")]
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
    /// How far an update is.
    #[cfg(feature = "update")]
    pub(crate) update: Option<heapless::Vec<u8, { crate::update::RECORD_BYTES }>>,
    /// The application has it.
    #[cfg(feature = "update")]
    update_taken: bool,
    /// An offer was taken and is not in flash yet: it is not acknowledged.
    #[cfg(feature = "update")]
    pub(super) update_offered: bool,
    #[cfg(feature = "update")]
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
            #[cfg(feature = "update")]
            update: None,
            #[cfg(feature = "update")]
            update_taken: false,
            #[cfg(feature = "update")]
            update_offered: false,
            #[cfg(feature = "update")]
            update_dirty: false,
        }
    }

    /// Whether there is flash to keep anything in.
    #[cfg(any(feature = "commands", feature = "pairing"))]
    pub(crate) fn keeps(&self) -> bool {
        self.keeps
    }

    /// Whether a key is being written.
    #[cfg(any(feature = "pairing", feature = "update"))]
    pub(super) fn writes(&self, key: u8) -> bool {
        self.busy == Some(key)
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
            #[cfg(feature = "pairing")]
            key::PAIRED => self.pairing.paired = Some(super::Paired::load(bytes)),
            #[cfg(feature = "update")]
            key::UPDATE => self.flash.update = heapless::Vec::from_slice(bytes).ok(),
            #[cfg(feature = "commands")]
            key::RING..key::ROWS => self.ring.load(key - key::RING, bytes),
            key::ROWS.. => self.load_row(key - key::ROWS, bytes),
            _ => {}
        }
    }

    /// Keys to load at start.
    pub fn keys() -> impl Iterator<Item = u8> {
        (key::BOOT..3).chain(key::RING..key::RING + 4).chain(key::ROWS..key::ROWS + ROW_SLOTS)
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
        let earlier = if is_sent(kind) { flag::EARLIER } else { 0 };
        let head = Head {
            kind,
            flags: (flags & !flag::WATCHED) | earlier,
            state: state::READY,
            slot,
            a,
            b,
            ..Head::default()
        };
        let data = take.rest();
        let pushed = loop {
            let (buffer, _) = self.memory.rooms();
            let pushed = self.outbox.push(buffer, head, &|room| {
                let mut put = Put::new(room);
                put.bytes(data);
                put.at()
            });
            if pushed || !self.drop_unclaimed() {
                break pushed;
            }
        };
        // Those of older starts come first, and of each the earlier. What has no room now comes after the next start.
        let place = self.find_row(&|other, _| other.state < state::ACKED && (other.b, other.a) > (b, a));
        let (buffer, _) = self.memory.rooms();
        if let (true, Some((at, _)), Ok(len)) = (pushed, place, u16::try_from(data.len())) {
            self.outbox.move_last(buffer, at, Head { len, ..head });
        }
    }

    /// Everything is loaded. `fresh`: a random number, for a device that starts for the first time; `keeps`: there is
    /// flash. Returns what is to be written under the key 0 before the device says anything.
    pub fn start(&mut self, fresh: u64, keeps: bool) -> [u8; 4] {
        self.flash.keeps = keeps;
        if keeps && self.boot != 0 {
            self.boot = self.boot.wrapping_add(1).max(1);
            self.next_seq = 1;
        } else {
            self.number(fresh);
            if keeps {
                self.next_seq = 1;
            }
        }
        self.boot.to_be_bytes()
    }

    /// The number of this start is in flash, or need not be.
    pub fn started(&mut self) {
        self.set_status(Status::Connecting);
        self.wake_both();
    }

    /// The row that a place in flash is to get.
    fn new_row(&mut self, slot: u8) -> Option<(At, Head)> {
        self.find_row(&|head, _| head.slot == slot && head.state == state::NEW)
    }

    /// What is to be written next.
    fn wanted(&mut self) -> Option<Job> {
        #[cfg(feature = "pairing")]
        if self.pairing.dirty {
            return Some(Job::Paired);
        }
        #[cfg(feature = "commands")]
        if let Some(at) = self.ring.dirty() {
            return Some(Job::Command(at));
        }
        if let Some((_, head)) = self.find_row(&|head, _| head.state == state::NEW) {
            return Some(Job::Row(head.slot));
        }
        #[cfg(feature = "update")]
        if self.flash.update_dirty {
            return Some(Job::Update);
        }
        if self.flash.clear != 0 {
            return Some(Job::Clear((self.flash.clear.trailing_zeros() & 0xFF) as u8));
        }
        None
    }

    /// The next thing to write; none while one is being written.
    pub fn poll_flash(&mut self) -> Option<Job> {
        if self.flash.busy.is_some() || !self.flash.keeps {
            return None;
        }
        let job = self.wanted()?;
        match job {
            #[cfg(feature = "pairing")]
            Job::Paired => self.pairing.dirty = false,
            #[cfg(feature = "update")]
            Job::Update => self.flash.update_dirty = false,
            #[cfg(feature = "commands")]
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
            #[cfg(feature = "commands")]
            Job::Command(at) => self.ring.save(at, out),
            #[cfg(feature = "update")]
            Job::Update => {
                let bytes = self.flash.update.as_deref().unwrap_or(&[]);
                out.get_mut(..bytes.len())?.copy_from_slice(bytes);
                Some(bytes.len())
            }
            #[cfg(feature = "pairing")]
            Job::Paired => self.pairing.paired.as_ref().map_or(Some(0), |paired| paired.save(out)),
            Job::Row(slot) => {
                // It may be gone already: then there is nothing to keep.
                let Some((at, head)) = self.new_row(slot) else { return Some(0) };
                let (buffer, _) = self.memory.rooms();
                let mut put = Put::new(out);
                put.bytes(&[head.kind, head.flags & !flag::WANTED]);
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
            #[cfg(feature = "pairing")]
            Job::Paired => self.pairing.dirty |= retry,
            #[cfg(feature = "update")]
            Job::Update => {
                self.flash.update_dirty |= retry;
                self.settle_offer(!self.flash.update_dirty);
            }
            #[cfg(feature = "commands")]
            Job::Command(at) if retry => self.ring.redo(at),
            #[cfg(feature = "commands")]
            Job::Command(at) => self.ring.saved(at, ok),
            Job::Clear(slot) => self.flash.clear |= u16::from(!ok) << slot,
            Job::Row(slot) => match self.new_row(slot) {
                Some((at, head)) if ok => self.set_row(at, Head { state: state::READY, ..head }),
                Some((at, head)) if !retry => self.finish(at, head, Outcome::Lost(Why::Flash)),
                _ => {}
            },
        }
        self.wake_both();
    }

    /// Whether nothing waits for flash, or only for flash that takes nothing any more.
    #[cfg(feature = "sleep")]
    pub(crate) fn flash_is_idle(&mut self) -> bool {
        !self.flash.keeps || (self.flash.busy.is_none() && (self.flash.fails || self.wanted().is_none()))
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
        !self.flash.update_dirty && !self.flash.writes(key::UPDATE)
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
            self.wake_runner();
        }
    }
}

/// Whether rows of this kind have receipts.
fn is_sent(kind: u8) -> bool {
    #[cfg(feature = "messages")]
    if kind == kind::MESSAGE {
        return true;
    }
    #[cfg(feature = "topics")]
    if kind == kind::TOPIC {
        return true;
    }
    let _ = kind;
    false
}
