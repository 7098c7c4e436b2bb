//! What the engine, the client and its handles share: the messenger, and events on their way to whoever asks for them.

use crate::error::{AskError, ConnectError, OutboxError, SendError};
use crate::model::Messenger;
use crate::model::event::{Event, Told};
use crate::model::limits::EVENTS_MAX;
use crate::options::Filter;
use crate::road::Up;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

/// Events that wait for somebody to ask; at the edge nothing more is read from the broker.
pub(crate) const QUEUE_MAX: usize = 1_024;
/// Questions that wait for their answer; one more is refused.
pub(crate) const ASKERS_MAX: usize = 256;
/// Ordinary topic filters of one client; one more is refused.
pub(crate) const FILTERS_MAX: usize = 256;
/// Subscriptions, moves and farewells that wait for the engine.
const UPS_MAX: usize = 256;

/// Both sides of a client.
pub(crate) struct Shared {
    core: Mutex<Core>,
    /// For the engine: there is something to do.
    pub wake: Notify,
    /// For the client: there is something to tell.
    pub told: Notify,
}

/// What is behind the lock.
pub(crate) struct Core {
    pub messenger: Messenger,
    pub queue: VecDeque<Item>,
    /// Deliveries that were dealt with: the connection's number, and the delivery's on it.
    pub acks: VecDeque<(u64, u64)>,
    /// Rows whose end was told.
    pub told_rows: Vec<u64>,
    /// Who waits for a row to be on disk.
    pub writers: BTreeMap<u64, oneshot::Sender<Result<(), OutboxError>>>,
    /// Who waits for an answer, by the request's id.
    pub askers: BTreeMap<String, oneshot::Sender<Result<Value, AskError>>>,
    /// Subscriptions made later than at the beginning.
    pub filters: BTreeSet<Filter>,
    pub ups: VecDeque<Up>,
    /// How the first attempt went, once that is known.
    pub first: Option<Result<(), ConnectError>>,
    /// Leave by then.
    pub leave: Option<Instant>,
    /// Nothing comes any more.
    pub is_over: bool,
    missed: u64,
}

/// An event, and what is to be done when it has been dealt with.
#[derive(Debug)]
pub(crate) struct Item {
    pub told: Told,
    pub ack: Option<(u64, u64)>,
    pub row: Option<u64>,
}

impl Shared {
    pub fn new(messenger: Messenger) -> Self {
        Self {
            core: Mutex::new(Core {
                messenger,
                queue: VecDeque::new(),
                acks: VecDeque::new(),
                told_rows: Vec::new(),
                writers: BTreeMap::new(),
                askers: BTreeMap::new(),
                filters: BTreeSet::new(),
                ups: VecDeque::new(),
                first: None,
                leave: None,
                is_over: false,
                missed: 0,
            }),
            wake: Notify::new(),
            told: Notify::new(),
        }
    }

    pub fn lock(&self) -> MutexGuard<'_, Core> {
        // Nothing is left half done under this lock but by a panic, after which the worst is an event that is not told.
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Core {
    /// Takes the messenger's events over. The last of them stands for `ack` and `row`; `false`: there was none.
    pub fn collect(&mut self, is_retained: bool, ack: Option<(u64, u64)>, row: Option<u64>) -> bool {
        let mut all: Vec<Told> = std::iter::from_fn(|| self.messenger.poll_event()).collect();
        all.retain(|told| !self.answers(told));
        let Some(last) = all.pop() else { return false };
        let item = |told: Told, ack, row| Item { told: Told { is_retained, ..told }, ack, row };
        for told in all {
            self.queue.push_back(item(told, None, None));
        }
        self.queue.push_back(item(last, ack, row));
        self.drop_oldest();
        true
    }

    /// Whether somebody waits for just this, and is told instead.
    fn answers(&mut self, told: &Told) -> bool {
        let (id, answer) = match &told.event {
            Event::Answer { id: Some(id), .. } => (id, Ok(told.body.clone())),
            Event::Refused { refusal, .. } => match &refusal.id {
                Some(id) => (id, Err(AskError::Refused { code: refusal.code.clone(), text: refusal.text.clone() })),
                None => return false,
            },
            _ => return false,
        };
        match self.askers.remove(id) {
            // Whoever has stopped waiting does not want to know.
            Some(asker) => asker.send(answer).is_ok(),
            None => false,
        }
    }

    /// What promises nothing makes room.
    fn drop_oldest(&mut self) {
        while self.queue.len() > EVENTS_MAX {
            let Some(at) = self.queue.iter().position(|item| item.ack.is_none() && item.row.is_none()) else { return };
            self.queue.remove(at);
            self.missed += 1;
        }
    }

    /// The next event for whoever asks.
    pub fn next(&mut self) -> Option<Item> {
        if self.missed > 0 {
            let events = std::mem::take(&mut self.missed);
            return Some(Item { told: Event::Missed { events }.into(), ack: None, row: None });
        }
        self.queue.pop_front()
    }

    /// Leaves something for the engine; at the edge the next connection sees to it.
    pub fn push_up(&mut self, up: Up) {
        if self.ups.len() < UPS_MAX {
            self.ups.push_back(up);
        }
    }

    /// Nobody will be answered any more.
    pub fn end(&mut self) {
        self.is_over = true;
        self.writers.clear();
        for (_, asker) in std::mem::take(&mut self.askers) {
            let _ = asker.send(Err(SendError::Closed.into()));
        }
        self.first.get_or_insert(Err(ConnectError::NoRuntime));
    }
}

/// Milliseconds since 1970.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// A number nobody can guess.
pub(crate) fn random() -> u64 {
    use ring::rand::{SecureRandom, SystemRandom};
    let mut bytes = [0; 8];
    // Without randomness from the system, time and process still tell two runs apart.
    if SystemRandom::new().fill(&mut bytes).is_err() {
        return now_ms() ^ (u64::from(std::process::id()) << 40);
    }
    u64::from_le_bytes(bytes)
}
