//! The store: one contract over every implementation, power cuts at every call, damage, backups.

// Tests fail by panicking, and draw their numbers small enough for every cast.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, clippy::type_complexity)]

#[path = "store/backup.rs"]
mod backup;
#[path = "store/contract.rs"]
mod contract;
#[path = "store/crash.rs"]
mod crash;
#[path = "store/rows.rs"]
mod rows;
#[path = "store/runs.rs"]
mod runs;
#[path = "store/threads.rs"]
mod threads;
#[path = "store/traffic.rs"]
mod traffic;
