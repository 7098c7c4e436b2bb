//! The broker: sockets, disk and operator's doors around the decisions of `parlor_core`.

pub mod admin;
pub mod auth;
pub mod cli;
pub mod config;
pub mod log;

/// The broker.
#[derive(Debug, Clone, Copy)]
pub struct Broker;

impl cli::Engine for Broker {
    fn run(&self, _: cli::Start) -> Result<(), Box<dyn std::error::Error>> {
        Err("this branch has no broker behind the command line".into())
    }

    fn open(&self, _: &std::path::Path) -> Result<Box<dyn cli::Offline>, Box<dyn std::error::Error>> {
        Err("this branch has no store behind the command line".into())
    }
}
