//! The broker: sockets, disk and operator's doors around the decisions of `parlor_core`.

pub mod admin;
pub mod auth;
pub mod cli;
pub mod config;
pub mod log;
