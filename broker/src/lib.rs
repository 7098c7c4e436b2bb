//! The broker: sockets, disk and operator's doors around the decisions of `parlor_core`.

pub mod admin;
pub mod auth;
pub mod cli;
pub mod config;
mod driver;
pub mod link;
pub mod log;
mod server;
pub mod store;

pub use server::{Broker, RunError};
