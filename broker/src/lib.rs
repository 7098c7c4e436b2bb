//! The broker: sockets, disk and operator's doors around the decisions of `parlor_core`.

pub mod auth;
pub mod config;
mod driver;
pub mod link;
mod server;

pub use server::{RunError, run};
pub mod store;
