//! What waits for the disk, and what is done when it is there.

use super::{AckKind, Effect, Hub, Now, subscribe};
use crate::im::{Asker, Marks, Reply};
use crate::link::{LinkId, Phase, pause};
use crate::store::BatchNo;
use parlor_protocol::mqtt::{PacketId, ReasonCode};

/// What waits for a commit.
pub(super) enum After {
    Ack {
        link: LinkId,
        kind: AckKind,
        packet_id: PacketId,
        reason: ReasonCode,
    },
    /// Whole packets for a link.
    Bytes {
        link: LinkId,
        bytes: Box<[u8]>,
    },
    SubAck {
        link: LinkId,
        bytes: Box<[u8]>,
        retained: subscribe::Wishes,
    },
    ConnAck {
        link: LinkId,
        bytes: Box<[u8]>,
    },
    /// The queue of a session is on disk up to here.
    Release {
        session: u32,
        generation: u32,
        until: u64,
    },
    /// PUBREC is on disk: PUBREL may go.
    PubRel {
        session: u32,
        generation: u32,
        index: u64,
        /// Where PUBREC came.
        link: LinkId,
    },
    Stored(u64),
    /// As `Ack`, with the seq of a message.
    ImAck {
        link: LinkId,
        kind: AckKind,
        packet_id: PacketId,
        seq: u64,
        dup: bool,
    },
    /// A refusal that must not overtake what was said before.
    ImRefused {
        link: LinkId,
        kind: AckKind,
        packet_id: PacketId,
        reason: ReasonCode,
        text: Box<str>,
    },
    /// The answer to a request of the messaging rooms.
    ImTold {
        asker: Box<Asker>,
        reply: serde_json::Value,
    },
    /// What the messaging rooms wrote is on disk.
    Mailboxes(Marks),
    Replied {
        token: u64,
        reply: Reply,
    },
    AccountMade {
        name: String,
        record: Vec<u8>,
    },
}

impl Hub {
    /// Runs `after` once everything in the current batch, and every batch before it, is on disk.
    pub(super) fn after_commit(&mut self, now: Now, after: After) {
        if !self.batch.is_empty() || self.im.is_dirty() {
            self.after.push(after);
        } else if let Some((_, _, last)) = self.pending.back_mut() {
            last.push(after);
        } else {
            self.run_after(now, after);
        }
    }

    pub(super) fn committed(&mut self, now: Now, number: BatchNo) {
        while self.pending.front().is_some_and(|(n, ..)| *n <= number) {
            let Some((_, bytes, after)) = self.pending.pop_front() else { break };
            self.uncommitted_bytes -= bytes;
            for action in after {
                self.run_after(now, action);
            }
        }
        if !self.disk_waiters.is_empty() && self.backlog() <= self.limits.commit_bytes_max / 2 {
            for link in core::mem::take(&mut self.disk_waiters) {
                if self.is_current(link) {
                    self.resume(now, link.slot, pause::DISK);
                }
            }
        }
    }

    /// Bytes accepted and not on disk.
    pub(super) fn backlog(&self) -> u64 {
        (self.uncommitted_bytes + self.batch.bytes.len()) as u64
    }

    /// An answer of this link waits for the disk, and what it says next waits behind it. As many as it may have
    /// unanswered stop it from being read.
    pub(super) fn defer(&mut self, slot: u32) {
        let l = &mut self.links[slot as usize];
        l.deferred = l.deferred.saturating_add(1);
        if l.deferred >= l.announced_receive_max {
            l.paused |= pause::IN_FLIGHT;
        }
    }

    /// An answer of this link need not wait any more: where it goes. `None`: nobody is there to hear it, or has been told
    /// to go, after which nothing may be said [MQTT5-3.14.4-1].
    pub(super) fn undefer(&mut self, now: Now, link: LinkId) -> Option<u32> {
        if !self.is_current(link) {
            return None;
        }
        let l = &mut self.links[link.slot as usize];
        l.deferred = l.deferred.saturating_sub(1);
        if l.paused & pause::IN_FLIGHT != 0 && l.deferred <= l.announced_receive_max / 2 {
            self.resume(now, link.slot, pause::IN_FLIGHT);
        }
        if self.links[link.slot as usize].stream.is_none() {
            return self.is_open(link.slot).then_some(link.slot);
        }
        let outlet = self.outlet_of(link.slot);
        self.retire(link.slot);
        outlet
    }

    pub(super) fn run_after(&mut self, now: Now, after: After) {
        match after {
            After::Ack { link, kind, packet_id, reason } => {
                if let Some(slot) = self.undefer(now, link) {
                    self.answer(slot, kind, packet_id, reason);
                }
            }
            After::Bytes { link, bytes } => {
                if let Some(slot) = self.undefer(now, link) {
                    self.send_answer(now, slot, &bytes);
                }
            }
            After::SubAck { link, bytes, retained } => {
                if let Some(slot) = self.undefer(now, link)
                    && self.send_answer(now, slot, &bytes)
                {
                    self.send_retained(now, slot, retained);
                }
            }
            After::ConnAck { link, bytes } => {
                // It may have been taken over, or told to go, while the disk was at work.
                if self.is_current(link) && self.links[link.slot as usize].phase == Phase::Opening {
                    self.open_session(now, link.slot, &bytes);
                }
            }
            After::Release { session, generation, until } => {
                if let Some(s) = self.sessions.get_mut(session as usize)
                    && s.generation == generation
                    && let Some(d) = &mut s.durable
                {
                    d.committed = d.committed.max(until);
                    self.pump(now, session);
                }
            }
            After::PubRel { session, generation, index, link } => {
                if self.sessions.get(session as usize).is_some_and(|s| s.generation == generation) {
                    self.release_pubrel(now, session, index, link);
                }
            }
            After::Stored(token) => self.effects.push_back(Effect::Stored(token)),
            After::ImAck { link, kind, packet_id, seq, dup } => {
                if let Some(slot) = self.undefer(now, link) {
                    self.answer_im(slot, kind, packet_id, seq, dup);
                }
            }
            After::ImRefused { link, kind, packet_id, reason, text } => {
                if let Some(slot) = self.undefer(now, link) {
                    self.answer_refusal(slot, kind, packet_id, reason, &text);
                }
            }
            After::ImTold { asker, reply } => self.told_im(now, &asker, reply),
            After::Mailboxes(marks) => {
                self.im.committed(now, &marks);
                self.settle_im(now);
            }
            After::Replied { token, reply } => self.effects.push_back(Effect::Replied(token, reply)),
            After::AccountMade { name, record } => self.effects.push_back(Effect::AccountMade { name, record }),
        }
    }
}
