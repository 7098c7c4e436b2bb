//! x
#![forbid(unsafe_code)]

mod backoff;
mod client;
mod engine;
pub mod error;
mod handle;
pub mod model;
mod options;
mod road;
mod shared;
mod store;
pub mod target;

pub use backoff::Backoff;
pub use client::Client;
pub use error::{AskError, ConnectError, OutboxError, SendError, TargetError};
pub use handle::{CommandOptions, Contact, ContactOp, Handle, History, Outcome, Range, Status, SyncEntry, SyncPage};
pub use model::event::{Event, Told};
pub use model::up::Draft;
pub use options::{Filter, Identity, Listen, Options, OutboxKind, Quality};
pub use target::{Scheme, Secret, Target};

#[cfg(test)]
mod tests;
