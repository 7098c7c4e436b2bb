//! The broker with a store that breaks a promise, named by `FAULT`: what the proofs must notice.

use parlor_core::store::Store;
use parlor_tests::faulty::{AckEarly, Fault};
use std::process::ExitCode;
use std::time::Duration;

/// How long a disk may well take: so long a batch waits that was reported as committed.
const SLOW_DISK: Duration = Duration::from_millis(30);

fn wrap(store: Box<dyn Store>) -> Box<dyn Store> {
    let name = std::env::var("FAULT").unwrap_or_default();
    match Fault::parse(&name) {
        Some(Fault::AckEarly) => Box::new(AckEarly::new(store, SLOW_DISK)),
        Some(fault) => fault.wrap(store),
        None => panic!("FAULT={name:?} is not a fault"),
    }
}

fn main() -> ExitCode {
    parlor::cli::main(&parlor::Broker::with_store(wrap))
}
