//! What must become of wills, as far as it can be known from outside.

use super::client::WillOf;
use crate::checkers::{Fate, Ledger, MessageId};

/// How a connection ended at the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The client was lost, or thrown out.
    Lost,
    /// The broker has surely read a DISCONNECT that takes the will back.
    Goodbye,
    /// The client said goodbye, and nobody knows whether the broker heard it.
    Unknown,
    /// The broker stopped in an orderly way: wills are not published, as if every client had said goodbye.
    Stopped,
    /// The power failed.
    PowerCut,
}

/// A delayed will whose time is running.
#[derive(Debug)]
struct Watch {
    client: usize,
    id: MessageId,
    delay_ms: u64,
    /// It is not published before.
    earliest_ms: u64,
    /// It is published by then, if nobody comes back. `None`: the broker is down, and counts anew when it is back.
    latest_ms: Option<u64>,
    /// The connection that may take it back; only its CONNACK tells.
    attempt: Option<(usize, u64)>,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Wills {
    watches: Vec<Watch>,
    /// Taken back recently: a power cut may undo that.
    taken_back: Vec<(MessageId, u64)>,
}

/// What the broker decided so long before a power cut is on disk.
const SURE_MS: u64 = 1_500;
/// How exactly times are known.
const SLACK_MS: u64 = 1_000;

impl Wills {
    /// A connection with a will is over.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn over(
        &mut self,
        ledger: &mut Ledger,
        client: usize,
        will: WillOf,
        end: End,
        persistent: bool,
        attempt: Option<usize>,
        now_ms: u64,
    ) {
        match end {
            End::Unknown => {}
            End::Goodbye | End::Stopped => self.take_back(ledger, will.id, now_ms),
            // The session ends with the connection, and so does the delay.
            End::Lost | End::PowerCut if will.delay_ms == 0 || !persistent => ledger.decide(will.id, Fate::Due),
            End::Lost | End::PowerCut => {
                let at = now_ms + will.delay_ms;
                self.watches.push(Watch {
                    client,
                    id: will.id,
                    delay_ms: will.delay_ms,
                    earliest_ms: at,
                    latest_ms: (end == End::Lost).then_some(at),
                    attempt: attempt.map(|conn| (conn, now_ms)),
                });
            }
        }
    }

    fn take_back(&mut self, ledger: &mut Ledger, id: MessageId, now_ms: u64) {
        if ledger.fate(id) == Some(Fate::Open) {
            ledger.decide(id, Fate::Void);
            self.taken_back.push((id, now_ms));
        }
    }

    /// The client sends a CONNECT on this connection.
    pub(super) fn attempt(&mut self, ledger: &mut Ledger, client: usize, conn: usize, now_ms: u64) {
        self.watches.retain_mut(|w| {
            if w.client != client {
                return true;
            }
            if w.attempt.is_some() {
                // An earlier CONNECT may have taken it back, and its answer will not be heard.
                return false;
            }
            if w.latest_ms.is_some_and(|at| now_ms > at + SLACK_MS) {
                ledger.decide(w.id, Fate::Due);
                return false;
            }
            w.attempt = Some((conn, now_ms));
            true
        });
    }

    /// CONNACK arrived on this connection.
    pub(super) fn opened(&mut self, ledger: &mut Ledger, client: usize, conn: usize, present: bool, now_ms: u64) {
        let mut taken = vec![];
        self.watches.retain(|w| {
            if w.client != client || w.attempt.is_none_or(|(at, _)| at != conn) {
                return true;
            }
            if !present {
                // The old session has ended, and its will was published with it.
                ledger.decide(w.id, Fate::Due);
            } else if now_ms + SLACK_MS < w.earliest_ms {
                taken.push(w.id);
            }
            false
        });
        for id in taken {
            self.take_back(ledger, id, now_ms);
        }
    }

    /// The power failed: what was decided just before may be undone.
    pub(super) fn crashed(&mut self, ledger: &mut Ledger, now_ms: u64) {
        for (id, at) in std::mem::take(&mut self.taken_back) {
            if at + SURE_MS > now_ms {
                ledger.doubt(id);
            }
        }
        for w in &mut self.watches {
            w.latest_ms = None;
            // Whether an attempt had got through is not known any more.
            w.attempt = w.attempt.map(|(_, at)| (usize::MAX, at));
        }
    }

    /// The broker is there again.
    pub(super) fn started(&mut self, _ledger: &mut Ledger, now_ms: u64) {
        for w in &mut self.watches {
            let again = now_ms + w.delay_ms;
            if w.latest_ms.is_none() {
                w.latest_ms = Some(again.max(w.earliest_ms));
            }
            if let Some(at) = &mut w.latest_ms {
                // It could not be published while the broker was away.
                *at = (*at).max(now_ms);
            }
        }
    }
}
