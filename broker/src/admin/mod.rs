//! The operator's side: HTTP, signals, metrics. It lives on a thread of its own and asks the driver by [`Command`]s.

mod account_api;
pub mod accounts;
mod api;
mod blob;
mod body;
mod command;
mod error;
mod im;
mod metrics;
mod process;
mod router;
mod server;
pub mod systemd;
#[cfg(test)]
pub(crate) mod tests;
mod types;

pub use api::OPENAPI;
pub use command::{
    BackupChunk, COMMANDS_MAX, ChunkWriter, Command, CommandError, Connections, Described, Kick, PairError, Rights,
    Shutdown,
};
pub use metrics::{Metric, MetricKind, Sample, SampleValue, render};
pub use server::{ADDRESS_FILE, Admin, AdminError, AdminSetup, TOKEN_FILE};
pub use types::{
    AccountKind, AccountRow, ConnectionStatus, ListenerStatus, Page, Payload, Reloaded, Restored, RetainedQuery,
    RetainedRow, SessionDetail, SessionSummary, SessionsQuery, State, Status, StoreStatus, SubscriptionRow,
    SubscriptionsQuery,
};

use std::sync::atomic::{AtomicBool, Ordering};

/// What `/readyz` tells; the driver sets it, anybody reads it.
#[derive(Debug, Default)]
pub struct Readiness {
    listening: AtomicBool,
    store_refuses: AtomicBool,
    draining: AtomicBool,
}

/// Why clients should go elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotReady {
    /// Not every listener is open yet.
    #[error("the listeners are not open yet")]
    NotListening,
    /// The store takes nothing durable on.
    #[error("the store takes nothing on: the disk is full or failing; see the log")]
    StoreRefuses,
    /// The broker is ending.
    #[error("the broker is shutting down")]
    Draining,
}

impl Readiness {
    /// Every listener is open.
    pub fn set_listening(&self) {
        self.listening.store(true, Ordering::Relaxed);
    }

    /// The store takes nothing durable on (low space, or it failed), or does again.
    pub fn set_store_refuses(&self, refuses: bool) {
        self.store_refuses.store(refuses, Ordering::Relaxed);
    }

    /// The broker is ending.
    pub fn set_draining(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Whether clients may come.
    pub fn check(&self) -> Result<(), NotReady> {
        if self.draining.load(Ordering::Relaxed) {
            Err(NotReady::Draining)
        } else if !self.listening.load(Ordering::Relaxed) {
            Err(NotReady::NotListening)
        } else if self.store_refuses.load(Ordering::Relaxed) {
            Err(NotReady::StoreRefuses)
        } else {
            Ok(())
        }
    }
}
