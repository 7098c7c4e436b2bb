//! Connections that do nothing: what they hold, and what it takes to make them.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::QuicError;
use super::road::{Dialer, Link};
use crate::process::Process;

/// Connections that are being made at the same time.
const AT_ONCE: usize = 32;
/// Connections that pay for what the first ones of a broker cost.
const FIRST: u32 = 64;

/// What idle connections take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Idle {
    /// Resident bytes of the broker for each.
    pub(super) resident_bytes: f64,
    /// Connections a second, from nothing to CONNACK.
    pub(super) rate: f64,
    /// Processor milliseconds of the broker for a thousand of them.
    pub(super) cpu_ms_per_thousand: f64,
}

/// Opens so many connections of this dialer and keeps them.
pub(super) async fn run(dialer: Dialer, process: Process, connections: u32) -> Result<Idle, QuicError> {
    let dialer = Arc::new(dialer);
    let mut kept = open(&dialer, 0, FIRST).await?;
    let (resident, cpu, since) = (process.resident_bytes()?, process.cpu()?, Instant::now());
    kept.extend(open(&dialer, FIRST, connections).await?);
    let wall = since.elapsed().as_secs_f64();
    let cpu_secs = process.cpu()?.secs_since(&cpu);
    let grown = process.resident_bytes()?.saturating_sub(resident) as f64;
    let count = f64::from(connections);
    drop(kept);
    Ok(Idle { resident_bytes: grown / count, rate: count / wall, cpu_ms_per_thousand: cpu_secs / count * 1e6 })
}

async fn open(dialer: &Arc<Dialer>, first: u32, count: u32) -> Result<Vec<Link>, QuicError> {
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let mut opening = JoinSet::new();
    for number in first..first + count {
        let (dialer, places) = (Arc::clone(dialer), Arc::clone(&places));
        opening.spawn(async move {
            let _place = places.acquire_owned().await;
            let mut link = dialer.open().await?;
            link.connect(&format!("idle-{number}")).await?;
            Ok::<Link, QuicError>(link)
        });
    }
    let mut open = vec![];
    while let Some(ended) = opening.join_next().await {
        open.push(ended.map_err(|error| QuicError::Wrong(format!("a connection has ended: {error}")))??);
    }
    Ok(open)
}
