//! The store: one contract over every implementation, power cuts at every call, damage, backups.

#[path = "store/contract.rs"]
mod contract;
#[path = "store/crash.rs"]
mod crash;
#[path = "store/traffic.rs"]
mod traffic;
