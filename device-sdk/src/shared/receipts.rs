//! What became of what was queued, in this start or an earlier one.
//!
//! An outcome that somebody may still ask for stays in the outbox as a row without content. When its place in flash is
//! emptied meanwhile, the outcome is written there instead of nothing, so that it can be asked for after a reboot too; until
//! the place is used again.

use super::Shared;
#[cfg(any(feature = "messages", feature = "persist"))]
use super::outbox::ClientId;
use super::outbox::flag;
#[cfg(feature = "persist")]
use super::outbox::{NO_SLOT, kind, pack, state};
#[cfg(feature = "persist")]
use crate::bytes::{Put, Take};
#[cfg(feature = "persist")]
use crate::error::Why;
use crate::rows::{At, Head};

/// Names something that was queued: by the start of the device, and a number within it. Of a message it is, as text, the
/// client id that everybody in the conversation sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SentId {
    pub(super) boot: u32,
    pub(super) seq: u32,
}

impl SentId {
    /// For a place that survives a reboot.
    pub const fn to_bytes(self) -> [u8; 8] {
        (((self.boot as u64) << 32) | self.seq as u64).to_be_bytes()
    }

    /// From there.
    pub const fn from_bytes(bytes: [u8; 8]) -> Self {
        let both = u64::from_be_bytes(bytes);
        Self { boot: (both >> 32) as u32, seq: (both & 0xFFFF_FFFF) as u32 }
    }
}

#[cfg(any(feature = "messages", feature = "persist"))]
impl core::fmt::Display for SentId {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(ClientId::of(Head { a: self.seq, b: self.boot, ..Head::default() }).as_str())
    }
}

/// What a row is called in this start. A row with an outcome has that where the number of the start was, and says in place
/// of a packet identifier how many starts ago it was queued.
fn id_of(boot: u32, head: &Head) -> SentId {
    // Without flash nothing is of an earlier start.
    #[cfg(feature = "persist")]
    let boot = if head.state >= state::ACKED { boot.wrapping_sub(head.pid.into()) } else { head.b };
    SentId { boot, seq: head.a }
}

/// How many starts ago something was queued, as [`id_of`] wants it.
#[cfg(feature = "persist")]
pub(super) fn starts_ago(boot: u32, head: Head) -> u16 {
    u16::try_from(boot.wrapping_sub(head.b)).unwrap_or(u16::MAX)
}

/// Whether its outcome is kept for somebody who may ask.
pub(super) fn is_wanted(head: Head) -> bool {
    head.flags & flag::WANTED != 0
}

impl Shared {
    #[inline(never)]
    pub(super) fn row(&mut self, id: SentId) -> Option<(At, Head)> {
        let boot = self.boot;
        self.find_row(&|head, _| id_of(boot, head) == id)
    }
}

#[cfg(feature = "persist")]
impl Shared {
    /// Somebody of this start wants the outcome of something that was queued earlier; `false`: nothing is known of it, or
    /// somebody has a receipt already.
    pub fn claim(&mut self, id: SentId) -> bool {
        let Some((at, head)) = self.row(id).filter(|(_, head)| head.flags & flag::WATCHED == 0) else { return false };
        self.set_row(at, Head { flags: (head.flags & !flag::EARLIER) | flag::WATCHED, ..head });
        true
    }

    /// The oldest of what had no outcome when the device started, and for which nobody has a receipt.
    pub fn claim_earlier(&mut self) -> Option<SentId> {
        let (_, head) = self.find_row(&|head, _| head.flags & flag::EARLIER != 0)?;
        let id = id_of(self.boot, &head);
        self.claim(id).then_some(id)
    }

    /// Makes room of the oldest outcome for which nobody has asked; whether there was one.
    pub(super) fn drop_unclaimed(&mut self) -> bool {
        let row = self.find_row(&|head, _| head.state >= state::ACKED && head.flags & flag::WATCHED == 0);
        match row {
            Some((at, head)) => {
                let (buffer, _) = self.memory.rooms();
                self.outbox.remove(buffer, at, head);
                true
            }
            None => false,
        }
    }

    /// What is written to a place that is no longer needed: nothing, or an outcome that somebody may still ask for.
    pub(super) fn save_outcome(&mut self, slot: u8, out: &mut [u8]) -> Option<usize> {
        let boot = self.boot;
        let (buffer, _) = self.memory.rooms();
        let mut last = None;
        let mut row = self.outbox.first(buffer);
        while let Some((at, head)) = row {
            // The place of what was replaced is that of the newer.
            let is_replaced = head.state == state::LOST && head.b == pack(Why::Replaced);
            if head.slot == slot && head.state >= state::ACKED && !is_replaced {
                last = Some(head);
            }
            row = self.outbox.next(buffer, at, head);
        }
        let Some(head) = last else { return Some(0) };
        let mut put = Put::new(out);
        put.bytes(&[kind::OUTCOME, head.state]);
        put.u32(head.a);
        put.u32(id_of(boot, &head).boot);
        put.u32(head.b);
        put.done()
    }

    /// An outcome that was in flash, without its first byte. It is there as long as nothing else needs the room.
    pub(super) fn load_outcome(&mut self, mut take: Take<'_>) {
        let (state, a, boot, b) = (take.u8(), take.u32(), take.u32(), take.u32());
        // This start has not been counted yet.
        let of_boot = Head { b: boot, ..Head::default() };
        let pid = starts_ago(self.boot.wrapping_add(1).max(1), of_boot);
        let head =
            Head { kind: kind::OUTCOME, state: state.max(state::ACKED), slot: NO_SLOT, pid, a, b, ..Head::default() };
        let (buffer, _) = self.memory.rooms();
        self.outbox.push(buffer, head, &|_| 0);
    }
}
