//! The seam between decisions and disk: facts that must survive, and pages read back.
//!
//! The hub writes [`Fact`]s into a [`Batch`]; a [`Store`] makes the whole batch durable or none of it,
//! batches in the order given, and says so with [`StoreEvent::Committed`]. What a fact looks like as bytes is
//! decided here once ([`Fact::encode`]); a journal stores exactly these bytes.

pub mod bytes;
mod fact;
pub mod memory;
mod row;

pub use bytes::DecodeError;
pub use fact::{Fact, MessageRef, PageEntry, QueueState, Recipient, Recipients, RecipientsIter, encode_recipient};
pub use memory::MemoryStore;
pub use row::{Answer, Direction, Kind, Query, Retention, RowRecord, RowRef, RowsIter, Table, What};

/// Names one persistent session for as long as it exists; never used again for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionNo(pub u64);

/// Position in one session's queue: dense from 0, never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct QueueIndex(pub u64);

/// Number of a batch: 1, 2, 3, … since the hub was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BatchNo(pub u64);

/// Facts that become durable together.
#[derive(Debug, Default)]
pub struct Batch {
    /// The facts' bytes, one after the other ([`Fact::decode`] reads them back).
    pub bytes: Vec<u8>,
    /// How many facts `bytes` holds.
    pub facts: u32,
}

impl Batch {
    /// Appends one fact.
    pub fn push(&mut self, fact: &Fact<'_>) {
        fact.encode(&mut self.bytes);
        self.facts += 1;
    }

    /// True when there is nothing to commit.
    pub fn is_empty(&self) -> bool {
        self.facts == 0
    }

    /// The facts in the order they were pushed.
    pub fn iter(&self) -> FactIter<'_> {
        FactIter { bytes: &self.bytes }
    }
}

impl<'a> IntoIterator for &'a Batch {
    type Item = Result<Fact<'a>, DecodeError>;
    type IntoIter = FactIter<'a>;

    fn into_iter(self) -> FactIter<'a> {
        self.iter()
    }
}

/// Reads facts back out of a batch's bytes.
#[derive(Debug)]
pub struct FactIter<'a> {
    bytes: &'a [u8],
}

impl<'a> FactIter<'a> {
    /// Reads the facts in `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    /// The bytes of the facts not read yet.
    pub fn rest(&self) -> &'a [u8] {
        self.bytes
    }
}

impl<'a> Iterator for FactIter<'a> {
    type Item = Result<Fact<'a>, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.bytes.is_empty() {
            return None;
        }
        match Fact::decode(self.bytes) {
            Ok((fact, used)) => {
                self.bytes = &self.bytes[used..];
                Some(Ok(fact))
            }
            Err(error) => {
                self.bytes = &[];
                Some(Err(error))
            }
        }
    }
}

/// Asks for queued messages of one session, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// Whose queue.
    pub session: SessionNo,
    /// The first index wanted.
    pub from: QueueIndex,
    /// One past the last index wanted. Everything below was committed before this was asked.
    pub until: QueueIndex,
    /// At most so many entries.
    pub max_entries: u32,
    /// Stop after the entry that reaches this many bytes (topic, properties and payload).
    pub max_bytes: u32,
}

/// The answer to a [`Load`].
#[derive(Debug)]
pub struct Page {
    /// Whose queue.
    pub session: SessionNo,
    /// What was asked.
    pub from: QueueIndex,
    /// Every index in `from..next` was looked at: those without an entry here were acknowledged before.
    pub next: QueueIndex,
    /// [`PageEntry`] after [`PageEntry`], ascending by index ([`PageEntry::decode`]).
    pub bytes: Vec<u8>,
    /// How many entries `bytes` holds.
    pub entries: u32,
}

/// What a store reports.
#[derive(Debug)]
pub enum StoreEvent {
    /// This batch, and every one before it, survives a power cut.
    Committed(BatchNo),
    /// The answer to a load.
    Page(Page),
    /// The answer to a query.
    Answer(Answer),
    /// The disk is nearly full (`true`) or has room again (`false`); `true` means: take on no new durable work.
    LowSpace(bool),
    /// The disk refused. Nothing after the last `Committed` is durable and nothing more will be; the text says what to do.
    Failed(String),
}

/// A place where facts survive. One contract suite runs over every implementation.
pub trait Store {
    /// Takes a batch; `Committed` answers it later. `number` rises by one each call.
    fn submit(&mut self, number: BatchNo, batch: Batch);
    /// Asks for a page; `Page` answers it later.
    fn load(&mut self, load: Load);
    /// Asks for rows; `Answer` answers it later.
    fn query(&mut self, query: Query);
    /// The next thing to report, if there is one now.
    fn poll(&mut self) -> Option<StoreEvent>;
}

/// Everything the hub must know when it starts.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// How often this store was opened before, plus one.
    pub boot: u64,
    /// One past the highest session number ever used.
    pub next_session: u64,
    /// Persistent sessions, ascending by number.
    pub sessions: Vec<SessionRecord>,
    /// Retained messages, ascending by topic.
    pub retained: Vec<RetainedRecord>,
    /// Wills not yet published or cleared.
    pub wills: Vec<WillRecord>,
    /// Accounts: name and record (an encoding the account room owns), ascending by name.
    pub accounts: Vec<(String, Vec<u8>)>,
    /// Every row of every resident table, ascending by table and key.
    pub rows: Vec<RowRecord>,
    /// Table and key of every row of every keyed table, ascending.
    pub keys: Vec<(Table, u64, u64)>,
}

/// One persistent session as found at start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionRecord {
    /// Its number.
    pub no: SessionNo,
    /// MQTT client identifier.
    pub client_id: String,
    /// Whose it is.
    pub account: String,
    /// Protocol level, 4 or 5.
    pub version: u8,
    /// Session Expiry Interval, seconds; `u32::MAX` never expires.
    pub expiry_secs: u32,
    /// When its connection ended, milliseconds since 1970; 0 when the broker went down with the connection open.
    pub disconnected_at_ms: u64,
    /// One past the last index ever sent to the client, as of its last disconnection.
    pub sent: QueueIndex,
    /// Filter (with `$share/…` where shared), option bits as in SUBSCRIBE, subscription identifier or 0.
    pub subscriptions: Vec<(String, u8, u32)>,
    /// QoS 2 packet identifiers received and not yet released, ascending.
    pub inbound: Vec<u16>,
    /// The first index not yet acknowledged.
    pub head: QueueIndex,
    /// One past the last index ever given.
    pub tail: QueueIndex,
    /// Indexes at or above `head` whose state is not [`QueueState::Queued`], ascending.
    pub exceptions: Vec<(QueueIndex, QueueState)>,
    /// How many entries are neither acknowledged nor merely awaiting PUBCOMP.
    pub queued: u64,
    /// Bytes (topic, properties, payload) of those.
    pub queued_bytes: u64,
}

/// One retained message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetainedRecord {
    /// QoS it was published with.
    pub qos: u8,
    /// The account that published it.
    pub publisher: String,
    /// The message.
    pub message: OwnedMessage,
}

/// One will.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WillRecord {
    /// Client identifier it belongs to.
    pub client_id: String,
    /// The account that set it.
    pub account: String,
    /// QoS 0, 1 or 2.
    pub qos: u8,
    /// Retain flag.
    pub retain: bool,
    /// Will Delay Interval, seconds.
    pub delay_secs: u32,
    /// When it is due, milliseconds since 1970; 0 while its connection lives (or lived when the broker died).
    pub due_at_ms: u64,
    /// The session of the client, if it is persistent.
    pub session: Option<SessionNo>,
    /// The message; `expires_at_ms` holds the *interval* in milliseconds until it is published (0: none).
    pub message: OwnedMessage,
}

/// A message that owns its bytes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OwnedMessage {
    /// Topic name.
    pub topic: String,
    /// Properties that are forwarded untouched, as MQTT 5 bytes without the length prefix.
    pub properties: Vec<u8>,
    /// Application payload.
    pub payload: Vec<u8>,
    /// Milliseconds since 1970 after which nobody may get it; 0: never expires.
    pub expires_at_ms: u64,
}

impl OwnedMessage {
    /// Borrows it.
    pub fn as_ref(&self) -> MessageRef<'_> {
        MessageRef {
            topic: &self.topic,
            properties: &self.properties,
            payload: &self.payload,
            expires_at_ms: self.expires_at_ms,
        }
    }
}

impl From<MessageRef<'_>> for OwnedMessage {
    fn from(m: MessageRef<'_>) -> Self {
        Self {
            topic: m.topic.to_owned(),
            properties: m.properties.to_vec(),
            payload: m.payload.to_vec(),
            expires_at_ms: m.expires_at_ms,
        }
    }
}
