//! What the broker remembers of one client between packets, and, if it is persistent, between connections.

use crate::access::ProfileId;
use crate::limits::Limits;
use crate::message::Message;
use crate::roads::Roads;
use crate::router::Options;
use crate::store::SessionNo;
use parlor_protocol::mqtt::{PacketId, Version};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

/// No link: the client is away.
pub(crate) const NO_LINK: u32 = u32::MAX;

/// Packet identifiers in a row before they repeat; those above belong to the messaging rooms.
const IDS: u64 = 32_767;

/// Who a session belongs to; shared by all sessions of the account.
#[derive(Debug)]
pub(crate) struct Who {
    pub(crate) account: Rc<str>,
    pub(crate) groups: Box<[String]>,
    pub(crate) profile: ProfileId,
    /// False for sessions found at start: the groups of an account are known again when one of its clients connects.
    pub(crate) known: bool,
}

/// One subscription as the session lists it; the router holds the other copy.
#[derive(Debug)]
pub(crate) struct Subscription {
    pub(crate) filter: Box<str>,
    pub(crate) options: u8,
    pub(crate) id: u32,
}

/// A will that is set or waiting for its delay.
#[derive(Debug)]
pub(crate) struct WillState {
    pub(crate) message: Rc<Message>,
    pub(crate) qos: u8,
    pub(crate) retain: bool,
    pub(crate) delay_secs: u32,
    /// Message Expiry Interval in milliseconds; it starts to count when the will is published.
    pub(crate) expiry_ms: u64,
    /// The deadline that counts, on the clock of [`crate::Now::ms`]; 0: its connection lives.
    pub(crate) timer_ms: u64,
}

/// One session.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) client_id: Box<str>,
    pub(crate) who: Rc<Who>,
    pub(crate) generation: u32,
    pub(crate) link: u32,
    pub(crate) expiry_secs: u32,
    pub(crate) version: Version,
    /// Ascending by filter.
    pub(crate) subscriptions: Vec<Subscription>,
    /// QoS 2 packet identifiers received and not released, ascending [MQTT5-4.3.3-10].
    pub(crate) inbound: Vec<u16>,
    pub(crate) flow: Option<Box<Flow>>,
    pub(crate) durable: Option<Box<Durable>>,
    pub(crate) will: Option<Box<WillState>>,
}

impl Session {
    /// True if `packet_id` was not yet waiting for its release.
    pub(crate) fn inbound_add(&mut self, packet_id: PacketId) -> bool {
        match self.inbound.binary_search(&packet_id.value()) {
            Ok(_) => false,
            Err(at) => {
                self.inbound.insert(at, packet_id.value());
                true
            }
        }
    }

    /// True if `packet_id` was waiting.
    pub(crate) fn inbound_remove(&mut self, packet_id: PacketId) -> bool {
        match self.inbound.binary_search(&packet_id.value()) {
            Ok(at) => {
                self.inbound.remove(at);
                if self.inbound.is_empty() {
                    self.inbound = Vec::new();
                }
                true
            }
            Err(_) => false,
        }
    }

    /// Where the subscription to `filter` is, or where it would be.
    pub(crate) fn place_of(&self, filter: &str) -> Result<usize, usize> {
        self.subscriptions.binary_search_by(|known| (*known.filter).cmp(filter))
    }

    pub(crate) fn is_online(&self) -> bool {
        self.link != NO_LINK
    }
}

/// The persistent part of a session.
#[derive(Debug)]
pub(crate) struct Durable {
    pub(crate) no: SessionNo,
    /// One past the last index given.
    pub(crate) tail: u64,
    /// Everything below is on disk and may be sent.
    pub(crate) committed: u64,
    /// Everything below was sent at least once (perhaps on an earlier connection).
    pub(crate) sent: u64,
    /// Whether those below were sent is a guess: the broker died with the client connected.
    pub(crate) uncertain_until: u64,
    pub(crate) queued: u64,
    pub(crate) queued_bytes: u64,
    /// Messages kept in memory because the session is online and has sent, or holds here, everything before them.
    pub(crate) ready: VecDeque<Ready>,
    pub(crate) ready_bytes: usize,
    /// What a load brought.
    pub(crate) page: Option<PageCursor>,
    pub(crate) loading: bool,
    /// Milliseconds since 1970; 0 while connected.
    pub(crate) disconnected_at_ms: u64,
    /// The deadline of expiry that counts, on the clock of [`crate::Now::ms`]; 0: none, it is connected or stays.
    pub(crate) expiry_timer_ms: u64,
    /// States that an earlier connection, or the store, left for the indexes from `prior_base` on.
    pub(crate) prior: VecDeque<Slot>,
    pub(crate) prior_base: u64,
}

impl Durable {
    /// What is known of a delivery from before this connection.
    pub(crate) fn prior_state(&self, index: u64) -> Option<Slot> {
        let at = usize::try_from(index.checked_sub(self.prior_base)?).ok()?;
        self.prior.get(at).copied()
    }

    /// Changes what is known of it.
    pub(crate) fn set_prior(&mut self, index: u64, slot: Slot) {
        let at = index.checked_sub(self.prior_base).and_then(|at| usize::try_from(at).ok());
        if let Some(place) = at.and_then(|at| self.prior.get_mut(at)) {
            *place = slot;
        }
    }

    /// Whether a message of `cost` bytes is one too many.
    pub(crate) fn is_full(&self, limits: &Limits, cost: usize) -> bool {
        self.queued >= limits.queue_messages_max || self.queued_bytes + cost as u64 > limits.queue_bytes_max
    }

    /// Takes a finished delivery off the books.
    pub(crate) fn forget(&mut self, cost: u32) {
        self.queued = self.queued.saturating_sub(1);
        self.queued_bytes = self.queued_bytes.saturating_sub(u64::from(cost));
    }
}

/// A message of a queue, in memory.
#[derive(Debug)]
pub(crate) struct Ready {
    pub(crate) index: u64,
    pub(crate) message: Rc<Message>,
    pub(crate) qos: u8,
    pub(crate) retain: bool,
    pub(crate) subscription_ids: Box<[u8]>,
}

/// Where a page is being read.
#[derive(Debug)]
pub(crate) struct PageCursor {
    pub(crate) bytes: Vec<u8>,
    pub(crate) at: usize,
    /// One past the last index the page speaks of.
    pub(crate) next: u64,
}

/// State of one delivery that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Slot {
    /// QoS 1: PUBACK is awaited [MQTT5-4.3.2-3] [MQTT3-4.3.2-1].
    PubAck(u32),
    /// QoS 2: PUBREC is awaited [MQTT5-4.3.3-3] [MQTT3-4.3.3-1].
    PubRec(u32),
    /// QoS 2: PUBREC came and waits for the disk, then PUBREL is sent.
    Storing,
    /// QoS 2: PUBREL was sent, PUBCOMP is awaited [MQTT5-4.3.3-5].
    PubComp,
    /// Done; it leaves when everything before it is done.
    Done,
}

/// Deliveries at QoS 1 and 2 to one client.
///
/// A delivery has an index, dense from 0; its packet identifier follows from the index, so that a restart needs no
/// table of identifiers. The window never spans more than the identifiers there are.
#[derive(Debug, Default)]
pub(crate) struct Flow {
    /// Index of the first slot: everything below is done.
    pub(crate) head: u64,
    pub(crate) slots: VecDeque<Slot>,
    /// Sent and not yet answered so that it counts against Receive Maximum [MQTT5-4.9.0-1].
    pub(crate) in_flight: u16,
    /// Waiting in memory: sessions that are not persistent only.
    pub(crate) waiting: VecDeque<Ready>,
    pub(crate) waiting_bytes: usize,
    /// Subscriptions whose retained messages have not all been sent, by filter: one look at the tree at a time fills
    /// `waiting` or the queue, so that a client that asks again and again costs no more than its subscriptions.
    pub(crate) wishes: BTreeMap<Box<str>, RetainedWish>,
    /// A deadline is set to go on with them.
    pub(crate) wishes_armed: bool,
    /// Which stream a delivery takes, if the client uses more than one.
    pub(crate) roads: Option<Box<Roads>>,
}

/// A subscription whose retained messages are to be sent.
#[derive(Debug)]
pub(crate) struct RetainedWish {
    pub(crate) options: Options,
    pub(crate) id: u32,
    /// The last topic that was sent.
    pub(crate) after: Option<Box<str>>,
}

impl Flow {
    /// Its identifier is in use by no other, since the window is shorter than there are identifiers [MQTT5-2.2.1-4]
    /// [MQTT5-4.3.2-1] [MQTT5-4.3.3-1] [MQTT3-2.3.1-4] [MQTT3-4.3.2-1].
    ///
    /// The index of the next delivery.
    pub(crate) fn next(&self) -> u64 {
        self.head + self.slots.len() as u64
    }

    /// Whether another delivery may be sent [MQTT5-3.3.4-9] [MQTT5-4.9.0-2]; all else may in any case [MQTT5-3.3.4-10]
    /// [MQTT5-4.9.0-3].
    pub(crate) fn has_credit(&self, receive_max: u16) -> bool {
        self.in_flight < receive_max && self.has_room()
    }

    /// The stream of a delivery; `None`: the connection's first.
    pub(crate) fn road(&self, topic: &str, qos: u8) -> Option<u32> {
        self.roads.as_ref().and_then(|roads| roads.find(topic, qos))
    }

    /// Whether something waits in memory for a stream.
    pub(crate) fn has_waiting(&self, road: Option<u32>) -> bool {
        match (road, &self.roads) {
            (Some(stream), Some(roads)) => roads.has_waiting(stream),
            _ => !self.waiting.is_empty(),
        }
    }

    /// How many messages wait in memory.
    pub(crate) fn waiting_count(&self) -> usize {
        self.waiting.len() + self.roads.as_ref().map_or(0, |roads| roads.waiting())
    }

    /// Makes a message wait for a stream.
    pub(crate) fn wait(&mut self, road: Option<u32>, ready: Ready) {
        self.waiting_bytes += ready.message.cost();
        match (road, &mut self.roads) {
            (Some(stream), Some(roads)) => roads.wait(stream, ready),
            _ => self.waiting.push_back(ready),
        }
    }

    /// Whether there is an identifier for another delivery.
    pub(crate) fn has_room(&self) -> bool {
        (self.slots.len() as u64) < IDS - 1
    }

    /// Records the delivery of the next index.
    pub(crate) fn push(&mut self, slot: Slot) {
        // As `set` takes every one that is not done off again.
        self.in_flight += u16::from(slot != Slot::Done);
        self.slots.push_back(slot);
        if slot == Slot::Done {
            self.advance();
        }
    }

    /// The index that `packet_id` stands for, if it is in the window.
    pub(crate) fn index_of(&self, packet_id: PacketId) -> Option<u64> {
        let offset = (u64::from(packet_id.value()) - 1 + IDS - self.head % IDS) % IDS;
        (offset < self.slots.len() as u64).then_some(self.head + offset)
    }

    pub(crate) fn slot(&self, index: u64) -> Slot {
        let at = index.checked_sub(self.head).and_then(|at| usize::try_from(at).ok());
        at.and_then(|at| self.slots.get(at)).copied().unwrap_or(Slot::Done)
    }

    pub(crate) fn set(&mut self, index: u64, slot: Slot) {
        if let Some(at) = index.checked_sub(self.head).and_then(|at| usize::try_from(at).ok())
            && let Some(place) = self.slots.get_mut(at)
        {
            if slot == Slot::Done && *place != Slot::Done {
                self.in_flight -= 1;
            }
            *place = slot;
            self.advance();
        }
    }

    fn advance(&mut self) {
        while self.slots.front() == Some(&Slot::Done) {
            self.slots.pop_front();
            self.head += 1;
        }
        if self.slots.is_empty() && self.slots.capacity() > 64 {
            self.slots = VecDeque::new();
        }
    }
}

/// The packet identifier of a delivery.
pub(crate) fn packet_id_of(index: u64) -> PacketId {
    let value = u16::try_from(index % IDS + 1).expect("32,767 at most");
    PacketId::new(value).expect("1 at least")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_identifier_names_one_index_of_the_window_for_ever() {
        let mut flow = Flow::default();
        for round in 0..3 * IDS {
            let index = flow.next();
            assert_eq!(index, round);
            flow.push(Slot::PubAck(0));
            assert_eq!(flow.index_of(packet_id_of(index)), Some(index));
            if round >= 10 {
                flow.set(round - 10, Slot::Done);
                assert_eq!(flow.index_of(packet_id_of(round - 10)), None);
            }
        }
        assert_eq!(flow.in_flight, 10);
    }

    #[test]
    fn answers_out_of_order_free_credit_at_once_and_the_head_later() {
        let mut flow = Flow::default();
        (0..3).for_each(|_| flow.push(Slot::PubAck(0)));
        assert!(!flow.has_credit(3));
        flow.set(1, Slot::Done);
        assert!(flow.has_credit(3));
        assert_eq!(flow.head, 0);
        flow.set(0, Slot::Done);
        assert_eq!((flow.head, flow.in_flight), (2, 1));
    }
}
