//! Random traffic as a hub could produce it, and the comparison of a store with the reference.

use std::collections::BTreeMap;

use parlor_core::store::memory::MemoryStore;
use parlor_core::store::{
    Batch, Fact, Load, MessageRef, Page, PageEntry, QueueIndex, Recipient, Recipients, SessionNo, Snapshot,
    encode_recipient,
};
use parlor_tests::disk::Seed;

use crate::rows::RowTraffic;

/// What the generator knows of a session.
#[derive(Debug, Default, Clone)]
struct Session {
    next: u64,
    /// Entries not acknowledged: (index, `QoS` 2 and not received).
    open: Vec<(u64, bool)>,
    inbound: Vec<u16>,
}

/// Makes batches.
#[derive(Debug, Clone)]
pub struct Traffic {
    pub seed: Seed,
    sessions: BTreeMap<u64, Session>,
    next_session: u64,
    sequence: u64,
    /// Messages are up to so many bytes.
    pub message_bytes: u64,
    /// Once in a while so many messages come at once, and a message is a hundred times as large; 0: never.
    pub burst: u64,
    /// Up to so many facts about rows come with a batch.
    pub rows: u64,
    /// No other facts come.
    pub only_rows: bool,
    about_rows: RowTraffic,
}

impl Traffic {
    pub fn new(seed: u64) -> Self {
        Self {
            seed: Seed(seed),
            sessions: BTreeMap::new(),
            next_session: 0,
            sequence: 0,
            message_bytes: 300,
            burst: 0,
            rows: 12,
            only_rows: false,
            about_rows: RowTraffic::new(200),
        }
    }

    /// A batch of up to `facts` facts.
    pub fn batch(&mut self, facts: u64) -> Batch {
        let mut batch = Batch::default();
        let facts = if self.only_rows { 0 } else { self.seed.below(facts) + 1 };
        for _ in 0..facts {
            self.fact(&mut batch);
        }
        for _ in 0..self.seed.below(self.rows + 1) {
            self.about_rows.fact(&mut self.seed, &mut batch);
        }
        if self.burst > 0 && self.seed.one_in(20) {
            for _ in 0..self.burst {
                self.enqueue(&mut batch);
            }
        }
        batch
    }

    fn pick(&mut self) -> Option<u64> {
        let count = self.sessions.len() as u64;
        if count == 0 {
            return None;
        }
        let at = self.seed.below(count) as usize;
        self.sessions.keys().nth(at).copied()
    }

    fn fact(&mut self, batch: &mut Batch) {
        let what = self.seed.below(100);
        let Some(no) = self.pick() else { return self.begin(batch) };
        let session = SessionNo(no);
        match what {
            0..=3 if self.sessions.len() < 12 => self.begin(batch),
            4 => {
                self.sessions.remove(&no);
                batch.push(&Fact::SessionEnd { no: session });
            }
            5..=8 => {
                let disconnected_at_ms = self.seed.below(2) * self.seed.below(1 << 40);
                batch.push(&Fact::Session {
                    no: session,
                    client_id: &format!("client-{no}"),
                    account: "home",
                    version: 5,
                    expiry_secs: self.seed.below(1 << 32) as u32,
                    disconnected_at_ms,
                    sent: QueueIndex(disconnected_at_ms >> 20),
                });
            }
            9..=11 => {
                let filter = format!("a/{}/#", self.seed.below(5));
                if self.seed.one_in(3) {
                    batch.push(&Fact::Unsubscribe { no: session, filter: &filter });
                } else {
                    let (options, id) = (self.seed.below(64) as u8, self.seed.below(1000) as u32);
                    batch.push(&Fact::Subscribe { no: session, filter: &filter, options, id });
                }
            }
            12..=15 => {
                let packet_id = self.seed.below(20) as u16 + 1;
                let inbound = &mut self.sessions.get_mut(&no).unwrap().inbound;
                if let Some(at) = inbound.iter().position(|&id| id == packet_id) {
                    inbound.swap_remove(at);
                    batch.push(&Fact::InboundRemove { no: session, packet_id });
                } else {
                    inbound.push(packet_id);
                    batch.push(&Fact::InboundAdd { no: session, packet_id });
                }
            }
            16..=19 => {
                let topic = format!("r/{}", self.seed.below(6));
                if self.seed.one_in(3) {
                    batch.push(&Fact::RetainClear { topic: &topic });
                } else {
                    let payload = self.payload();
                    let message = MessageRef { topic: &topic, properties: &[], payload: &payload, expires_at_ms: 0 };
                    batch.push(&Fact::Retain { qos: 1, publisher: "home", message });
                }
            }
            20..=22 => {
                let client_id = format!("client-{}", self.seed.below(6));
                if self.seed.one_in(3) {
                    batch.push(&Fact::WillClear { client_id: &client_id });
                } else {
                    let payload = self.payload();
                    batch.push(&Fact::Will {
                        client_id: &client_id,
                        account: "home",
                        qos: 2,
                        retain: true,
                        delay_secs: 5,
                        due_at_ms: self.seed.below(9),
                        session: self.seed.one_in(2).then_some(session),
                        message: MessageRef { topic: "gone", properties: &[1, 1], payload: &payload, expires_at_ms: 7 },
                    });
                }
            }
            23..=24 => {
                let name = format!("account-{}", self.seed.below(4));
                if self.seed.one_in(3) {
                    batch.push(&Fact::AccountRemove { name: &name });
                } else {
                    let record = self.payload();
                    batch.push(&Fact::Account { name: &name, record: &record });
                }
            }
            25..=64 => self.enqueue(batch),
            _ => {
                // Sometimes a session reads its queue to the end, mostly it answers a few.
                let times = if self.seed.one_in(20) { usize::MAX } else { 1 + self.seed.below(4) as usize };
                self.answer(no, times, batch);
            }
        }
    }

    fn begin(&mut self, batch: &mut Batch) {
        let no = self.next_session;
        self.next_session += 1 + self.seed.below(2);
        self.sessions.insert(no, Session::default());
        let client_id = format!("client-{no}");
        batch.push(&Fact::Session {
            no: SessionNo(no),
            client_id: &client_id,
            account: "home",
            version: 4,
            expiry_secs: u32::MAX,
            disconnected_at_ms: 0,
            sent: QueueIndex(0),
        });
    }

    fn payload(&mut self) -> Vec<u8> {
        let mut len = self.seed.below(self.message_bytes);
        if self.burst > 0 && self.seed.one_in(200) {
            len *= 100;
        }
        (0..len).map(|_| self.seed.draw() as u8).collect()
    }

    fn enqueue(&mut self, batch: &mut Batch) {
        let fan_out = if self.seed.one_in(4) { 1 + self.seed.below(6) } else { 1 };
        let mut to: Vec<u64> = (0..fan_out).filter_map(|_| self.pick()).collect();
        to.sort_unstable();
        to.dedup();
        if to.is_empty() {
            return;
        }
        let (mut list, mut count) = (vec![], 0);
        for no in to {
            let qos = 1 + self.seed.below(2) as u8;
            let retain = self.seed.one_in(5);
            let ids: &[u8] = if self.seed.one_in(3) { &[11, 5, 11, 6] } else { &[] };
            let session = self.sessions.get_mut(&no).unwrap();
            let index = QueueIndex(session.next);
            session.next += 1;
            session.open.push((index.0, qos == 2));
            count += 1;
            encode_recipient(
                &mut list,
                &Recipient { session: SessionNo(no), index, qos, retain, subscription_ids: ids },
            );
        }
        self.sequence += 1;
        let (payload, topic) = (self.payload(), format!("t/{}", self.sequence));
        let message = MessageRef { topic: &topic, properties: &[], payload: &payload, expires_at_ms: self.sequence };
        batch.push(&Fact::Enqueue { message, recipients: Recipients { count, bytes: &list } });
    }

    fn answer(&mut self, no: u64, times: usize, batch: &mut Batch) {
        for _ in 0..times {
            let in_order = !self.seed.one_in(4);
            let open = &mut self.sessions.get_mut(&no).unwrap().open;
            if open.is_empty() {
                return;
            }
            let at = if in_order { 0 } else { self.seed.below(open.len() as u64) as usize };
            let (index, owes_received) = open[at];
            let (no, index) = (SessionNo(no), QueueIndex(index));
            if owes_received && !self.seed.one_in(6) {
                open[at].1 = false;
                batch.push(&Fact::Received { no, index });
                if self.seed.one_in(2) {
                    continue;
                }
            }
            open.remove(at);
            batch.push(&Fact::Acked { no, index });
        }
    }
}

/// A page as values, for a failure one can read.
pub fn entries(page: &Page) -> Vec<(u64, u8, bool, bool, Vec<u8>, String, Vec<u8>, u64)> {
    let (mut all, mut bytes) = (vec![], page.bytes.as_slice());
    while !bytes.is_empty() {
        let (entry, used) = PageEntry::decode(bytes).unwrap();
        bytes = &bytes[used..];
        let m = entry.message;
        all.push((
            entry.index.0,
            entry.qos,
            entry.retain,
            entry.received,
            entry.subscription_ids.to_vec(),
            m.topic.to_owned(),
            m.payload.to_vec(),
            m.expires_at_ms,
        ));
    }
    assert_eq!(all.len() as u32, page.entries, "the count of entries");
    all
}

/// Loads that together read all of every queue, with limits drawn from `seed`.
pub fn loads(model: &MemoryStore, seed: &mut Seed) -> Vec<Load> {
    let mut all = vec![];
    for session in model.snapshot().sessions {
        let (head, tail) = (session.head.0, session.tail.0);
        let from = if seed.one_in(2) { head } else { head + seed.below(tail - head + 1) };
        all.push(Load {
            session: session.no,
            from: QueueIndex(from),
            until: QueueIndex(tail),
            max_entries: if seed.one_in(2) { 1000 } else { 1 + seed.below(8) as u32 },
            max_bytes: if seed.one_in(2) { u32::MAX } else { 1 + seed.below(900) as u32 },
        });
    }
    all
}

/// Compares pages; `Err` says what differs.
pub fn same_page(load: &Load, expected: &Page, found: &Page) -> Result<(), String> {
    let (a, b) = (entries(expected), entries(found));
    if a != b || expected.next != found.next || found.session != load.session || found.from != load.from {
        return Err(format!("{load:?}\nexpected next {:?} {a:?}\n   found next {:?} {b:?}", expected.next, found.next));
    }
    Ok(())
}

/// Compares snapshots but for the number of the start; `Err` says what differs.
pub fn same_snapshot(expected: &Snapshot, found: &Snapshot) -> Result<(), String> {
    let found = Snapshot { boot: expected.boot, ..found.clone() };
    if *expected != found {
        return Err(format!("expected {expected:#?}\nfound {found:#?}"));
    }
    Ok(())
}
