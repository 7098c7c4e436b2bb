//! Stores that break a promise on purpose, so that the checkers can show that they see it.
//!
//! Each wraps a [`Store`] and is otherwise honest. The product has no switch for any of this.

use parlor_core::store::bytes::{Reader, put_int};
use parlor_core::store::{Batch, BatchNo, Fact, Load, Query, Store, StoreEvent, Table};
use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

/// Which promise is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Reports a batch as committed before it is: acknowledgements leave too early.
    AckEarly,
    /// Forgets the packet identifiers of QoS 2 messages it has accepted.
    ForgetInbound,
    /// Forgets what subscribers have acknowledged.
    ForgetAcked,
    /// Forgets subscriptions.
    ForgetSubscriptions,
    /// Forgets retained messages.
    ForgetRetained,
    /// Forgets wills.
    ForgetWills,
    /// Forgets which client ids were used.
    ForgetIds,
    /// Forgets where conversations end, and the marks of direct ones.
    ForgetHeads,
    /// Forgets that marks of group members moved after they came.
    ForgetMembers,
    /// Keeps no count of unread messages beside the messages.
    ForgetUnread,
    /// Forgets terminals and their places.
    ForgetTerminals,
    /// Forgets mailbox entries.
    ForgetMail,
    /// Forgets messages.
    ForgetBodies,
    /// Forgets that messages expire.
    ForgetExpiry,
    /// Forgets commands.
    ForgetCommands,
}

/// Every fault there is.
pub const FAULTS: [Fault; 15] = [
    Fault::AckEarly,
    Fault::ForgetInbound,
    Fault::ForgetAcked,
    Fault::ForgetSubscriptions,
    Fault::ForgetRetained,
    Fault::ForgetWills,
    Fault::ForgetIds,
    Fault::ForgetHeads,
    Fault::ForgetMembers,
    Fault::ForgetUnread,
    Fault::ForgetTerminals,
    Fault::ForgetMail,
    Fault::ForgetBodies,
    Fault::ForgetExpiry,
    Fault::ForgetCommands,
];

/// Tables of the messaging rooms, by the numbers they have on disk.
mod table {
    use parlor_core::store::Table;

    pub(super) const HEAD: Table = Table(4);
    pub(super) const MEMBER: Table = Table(5);
    pub(super) const TERMINAL: Table = Table(6);
    pub(super) const COMMAND: Table = Table(8);
    pub(super) const EXPIRY: Table = Table(11);
    pub(super) const BODY: Table = Table(128);
    pub(super) const MAIL: Table = Table(129);
    pub(super) const DEDUP: Table = Table(192);
}

impl Fault {
    /// By its name on a command line.
    pub fn parse(name: &str) -> Option<Self> {
        FAULTS.into_iter().find(|fault| fault.name() == name)
    }

    /// Its name on a command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::AckEarly => "ack-early",
            Self::ForgetInbound => "forget-inbound",
            Self::ForgetAcked => "forget-acked",
            Self::ForgetSubscriptions => "forget-subscriptions",
            Self::ForgetRetained => "forget-retained",
            Self::ForgetWills => "forget-wills",
            Self::ForgetIds => "forget-ids",
            Self::ForgetHeads => "forget-heads",
            Self::ForgetMembers => "forget-members",
            Self::ForgetUnread => "forget-unread",
            Self::ForgetTerminals => "forget-terminals",
            Self::ForgetMail => "forget-mail",
            Self::ForgetBodies => "forget-bodies",
            Self::ForgetExpiry => "forget-expiry",
            Self::ForgetCommands => "forget-commands",
        }
    }

    /// Wraps a store with this fault.
    pub fn wrap(self, store: Box<dyn Store>) -> Box<dyn Store> {
        match self {
            Self::AckEarly => Box::new(AckEarly::new(store, Duration::ZERO)),
            _ => Box::new(Forgetful { store, fault: self, known: BTreeSet::new() }),
        }
    }

    fn forgets(self, fact: &Fact<'_>) -> bool {
        let is_row = |of: Table| matches!(fact, Fact::Put { table, .. } if *table == of);
        match self {
            Self::AckEarly | Self::ForgetMembers | Self::ForgetUnread => false,
            Self::ForgetIds => is_row(table::DEDUP),
            Self::ForgetHeads => is_row(table::HEAD),
            Self::ForgetTerminals => is_row(table::TERMINAL),
            Self::ForgetMail => is_row(table::MAIL),
            Self::ForgetBodies => is_row(table::BODY),
            Self::ForgetExpiry => is_row(table::EXPIRY),
            Self::ForgetCommands => is_row(table::COMMAND),
            Self::ForgetInbound => matches!(fact, Fact::InboundAdd { .. }),
            Self::ForgetAcked => matches!(fact, Fact::Acked { .. } | Fact::Received { .. }),
            Self::ForgetSubscriptions => matches!(fact, Fact::Subscribe { .. }),
            Self::ForgetRetained => matches!(fact, Fact::Retain { .. }),
            Self::ForgetWills => matches!(fact, Fact::Will { .. }),
        }
    }
}

/// Drops facts of some kinds from every batch, or a part of them.
struct Forgetful {
    store: Box<dyn Store>,
    fault: Fault,
    /// Rows that were written once.
    known: BTreeSet<(u64, u64)>,
}

impl Forgetful {
    /// What becomes of a fact.
    fn keep(&mut self, kept: &mut Batch, fact: &Fact<'_>) {
        let Fact::Put { table, a, b, value } = *fact else { return kept.push(fact) };
        match self.fault {
            Fault::ForgetMembers if table == table::MEMBER && !self.known.insert((a, b)) => {}
            Fault::ForgetUnread if table == table::HEAD || table == table::MEMBER => {
                let value = without_unread(value, table == table::HEAD);
                kept.push(&Fact::Put { table, a, b, value: &value });
            }
            _ => kept.push(fact),
        }
    }
}

/// A row of marks in which nothing is unread: version, head and time (`is_head`), and for each member flags and five
/// numbers, of which the last is that of unread messages.
fn without_unread(value: &[u8], is_head: bool) -> Vec<u8> {
    let mut out = value[..1].to_vec();
    let mut r = Reader::new(&value[1..]);
    if is_head {
        copy_ints(&mut r, 2, &mut out);
    }
    while r.used() < value.len() - 1 {
        out.push(r.byte().expect("flags"));
        copy_ints(&mut r, 4, &mut out);
        r.int().expect("the number of unread messages");
        put_int(&mut out, 0);
    }
    out
}

fn copy_ints(r: &mut Reader<'_>, count: usize, out: &mut Vec<u8>) {
    for _ in 0..count {
        put_int(out, r.int().expect("a row of the broker's own"));
    }
}

impl Store for Forgetful {
    fn submit(&mut self, number: BatchNo, batch: Batch) {
        let mut kept = Batch::default();
        for fact in batch.iter().map_while(Result::ok) {
            if !self.fault.forgets(&fact) {
                self.keep(&mut kept, &fact);
            }
        }
        self.store.submit(number, kept);
    }

    fn load(&mut self, load: Load) {
        self.store.load(load);
    }

    fn query(&mut self, query: Query) {
        self.store.query(query);
    }

    fn poll(&mut self) -> Option<StoreEvent> {
        self.store.poll()
    }
}

/// Says "committed" at once, and hands the batch on only after a while, as a slow disk would.
pub struct AckEarly {
    store: Box<dyn Store>,
    delay: Duration,
    waiting: VecDeque<(Instant, Waiting)>,
    early: VecDeque<BatchNo>,
}

enum Waiting {
    Batch(BatchNo, Batch),
    Load(Load),
    Query(Query),
}

impl AckEarly {
    /// Wraps `store`; with no delay, batches are handed on at once.
    pub fn new(store: Box<dyn Store>, delay: Duration) -> Self {
        Self { store, delay, waiting: VecDeque::new(), early: VecDeque::new() }
    }

    fn hand_on(&mut self) {
        while self.waiting.front().is_some_and(|(at, _)| self.delay.is_zero() || *at <= Instant::now()) {
            match self.waiting.pop_front() {
                Some((_, Waiting::Batch(number, batch))) => self.store.submit(number, batch),
                Some((_, Waiting::Load(load))) => self.store.load(load),
                Some((_, Waiting::Query(query))) => self.store.query(query),
                None => break,
            }
        }
    }
}

impl Store for AckEarly {
    fn submit(&mut self, number: BatchNo, batch: Batch) {
        self.early.push_back(number);
        self.waiting.push_back((Instant::now() + self.delay, Waiting::Batch(number, batch)));
        self.hand_on();
    }

    fn load(&mut self, load: Load) {
        // It asks for what was "committed", so it must wait behind that.
        self.waiting.push_back((Instant::now() + self.delay, Waiting::Load(load)));
        self.hand_on();
    }

    fn query(&mut self, query: Query) {
        self.waiting.push_back((Instant::now() + self.delay, Waiting::Query(query)));
        self.hand_on();
    }

    fn poll(&mut self) -> Option<StoreEvent> {
        self.hand_on();
        if let Some(number) = self.early.pop_front() {
            return Some(StoreEvent::Committed(number));
        }
        loop {
            match self.store.poll()? {
                // This news is old.
                StoreEvent::Committed(_) => {}
                event => return Some(event),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use parlor_core::store::SessionNo;
    use parlor_core::store::memory::MemoryStore;

    #[test]
    fn a_fault_drops_its_own_facts_and_no_others() {
        for fault in FAULTS {
            let name = fault.name();
            assert_eq!(Fault::parse(name), Some(fault));
            let mut store = fault.wrap(Box::new(MemoryStore::new()));
            let mut batch = Batch::default();
            batch.push(&Fact::InboundAdd { no: SessionNo(1), packet_id: 1 });
            batch.push(&Fact::RetainClear { topic: "t" });
            let inbound = batch.iter().map_while(Result::ok).filter(|fact| fault.forgets(fact)).count();
            assert_eq!(inbound, usize::from(fault == Fault::ForgetInbound), "{name}");
            store.submit(BatchNo(1), batch);
            assert!(matches!(store.poll(), Some(StoreEvent::Committed(BatchNo(1)))), "{name}");
            assert!(store.poll().is_none(), "{name} says so once");
        }
    }
}
