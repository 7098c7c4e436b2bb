//! Messages between connected clients over one road: what they cost the broker.

use std::sync::Arc;
use std::time::Instant;

use tokio::io::AsyncWriteExt;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::QuicError;
use super::road::{Dialer, Input, Link, Writer};
use crate::client::LoadError;
use crate::process::Process;
use crate::wire::{self, Template, Version};

/// Bytes of a payload.
const PAYLOAD_LEN: usize = 64;

/// How the messages go.
#[derive(Debug, Clone, Copy)]
pub(super) struct Traffic {
    /// Publishers, each with a topic and a receiver of its own.
    pub(super) pairs: u32,
    /// Quality of service of both.
    pub(super) qos: u8,
    /// Messages of a publisher that have not come to its receiver.
    pub(super) in_flight: usize,
    /// Messages in all.
    pub(super) messages: u32,
}

/// What it took.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cost {
    /// Processor seconds of the broker for a million messages.
    pub(super) cpu_secs_per_million: f64,
    /// Thousand messages a second.
    pub(super) rate: f64,
}

struct Pair {
    number: u32,
    publisher: Link,
    receiver: Link,
    /// The place of the next message.
    next: u32,
}

/// Runs the traffic over connections of this dialer.
pub(super) async fn run(dialer: &Dialer, process: Process, traffic: Traffic) -> Result<Cost, QuicError> {
    let mut pairs = vec![];
    for number in 0..traffic.pairs {
        let mut receiver = dialer.open().await?;
        receiver.connect(&format!("receiver-{number}")).await?;
        receiver.subscribe(&topic(number), traffic.qos).await?;
        let mut publisher = dialer.open().await?;
        publisher.connect(&format!("publisher-{number}")).await?;
        pairs.push(Pair { number, publisher, receiver, next: 0 });
    }
    let each = (traffic.messages / traffic.pairs).max(1);
    // The first messages pay for buffers that the others find ready.
    let pairs = all(pairs, traffic, (each / 10).max(1)).await?;
    let (before, since) = (process.cpu()?, Instant::now());
    all(pairs, traffic, each).await?;
    let (wall, cpu) = (since.elapsed().as_secs_f64(), process.cpu()?.secs_since(&before));
    let messages = f64::from(each) * f64::from(traffic.pairs);
    Ok(Cost { cpu_secs_per_million: cpu / messages * 1e6, rate: messages / wall / 1e3 })
}

fn topic(number: u32) -> String {
    format!("bench/quic/{number}")
}

async fn all(pairs: Vec<Pair>, traffic: Traffic, each: u32) -> Result<Vec<Pair>, QuicError> {
    let mut running = JoinSet::new();
    for pair in pairs {
        running.spawn(one(pair, traffic, each));
    }
    let mut done = vec![];
    while let Some(ended) = running.join_next().await {
        done.push(ended.map_err(|error| QuicError::Wrong(format!("a pair has ended: {error}")))??);
    }
    Ok(done)
}

async fn one(pair: Pair, traffic: Traffic, each: u32) -> Result<Pair, LoadError> {
    let Pair { number, publisher, receiver, next } = pair;
    let credit = Arc::new(Semaphore::new(traffic.in_flight));
    let end = next + each;
    let template = Template::new(Version::V3, &topic(number), traffic.qos, number, PAYLOAD_LEN);
    let Link { input: acks, writer, quic } = publisher;
    let writing = tokio::spawn(write(writer, template, Arc::clone(&credit), next, end));
    let acknowledged = tokio::spawn(read_acks(acks, if traffic.qos == 0 { 0 } else { each }));
    let mut receiver = receive(receiver, number, next, end, traffic.qos, &credit).await?;
    receiver.ping().await?;
    let ended = |_| LoadError::Closed;
    let writer = writing.await.map_err(ended)??;
    let input = acknowledged.await.map_err(ended)??;
    let mut publisher = Link { input, writer, quic };
    publisher.ping().await?;
    Ok(Pair { number, publisher, receiver, next: end })
}

/// Writes as many messages at once as there is credit for.
async fn write(
    mut writer: Writer,
    template: Template,
    credit: Arc<Semaphore>,
    first: u32,
    end: u32,
) -> Result<Writer, LoadError> {
    let (mut seq, mut batch) = (first, vec![]);
    while seq < end {
        credit.acquire().await.map_err(|_| LoadError::Closed)?.forget();
        let more = credit.available_permits().min((end - seq) as usize - 1);
        credit.forget_permits(more);
        batch.clear();
        for _ in 0..=more {
            template.write(&mut batch, (seq % 65_535) as u16 + 1, seq);
            seq += 1;
        }
        writer.write_all(&batch).await?;
        writer.flush().await?;
    }
    Ok(writer)
}

async fn read_acks(mut input: Input, count: u32) -> Result<Input, LoadError> {
    let mut seen = 0;
    while seen < count {
        let packet = input.packet().await?;
        match packet.first {
            wire::PUBACK => seen += 1,
            first => return Err(LoadError::Refused { first, code: packet.body.first().copied().unwrap_or_default() }),
        }
    }
    Ok(input)
}

/// Takes the messages of one publisher: each once, in order.
async fn receive(
    mut link: Link,
    stream: u32,
    first: u32,
    end: u32,
    qos: u8,
    credit: &Semaphore,
) -> Result<Link, LoadError> {
    let (mut next, mut answers) = (first, vec![]);
    while next < end {
        let mut taken = 0;
        loop {
            let packet = link.input.packet().await?;
            let publish = wire::read_publish(Version::V3, &packet)?;
            if wire::read_stamp(publish.payload) != Some((stream, next)) {
                return Err(LoadError::Refused { first: packet.first, code: 0 });
            }
            if qos == 1 {
                wire::acknowledge(&mut answers, wire::PUBACK, publish.id);
            }
            next += 1;
            taken += 1;
            if next == end || !link.input.has_packet() {
                break;
            }
        }
        if !answers.is_empty() {
            link.send(&answers).await?;
            answers.clear();
        }
        credit.add_permits(taken);
    }
    Ok(link)
}
