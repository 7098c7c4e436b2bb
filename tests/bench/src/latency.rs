//! Latency at a steady rate, measured from the write of the publisher to the read of the receiver.
//!
//! Two threads with blocking sockets, so that the clock is read right beside the system call and no event loop of the
//! generator is part of the figure.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use crate::client::{self, LoadError};
use crate::generator::Violations;
use crate::wire::{self, Keep, Template, Version};

/// Time between two messages: 1,000 a second.
const INTERVAL: Duration = Duration::from_millis(1);
/// A receiver that waits longer than this has lost messages.
const STALL: Duration = Duration::from_secs(5);
/// Bytes of the payload; the time of sending lies behind the stamp.
const PAYLOAD_LEN: usize = 64;

/// Latencies of one run.
#[derive(Debug)]
pub struct Latencies {
    /// Microseconds, sorted.
    pub micros: Vec<f64>,
    /// What went wrong with messages.
    pub violations: Violations,
}

/// One publisher sends `count` messages at 1,000 a second to one receiver.
pub fn measure(broker: SocketAddr, version: Version, qos: u8, count: u32) -> Result<Latencies, LoadError> {
    let topic = "bench/latency";
    let mut receiver = client::open(broker, version, "latency-receiver", Keep::Nothing)?;
    client::subscribe(&mut receiver, version, topic, qos)?;
    let publisher = client::open(broker, version, "latency-publisher", Keep::Nothing)?;
    let start = Instant::now();
    let sender = thread::spawn(move || send(publisher, version, topic, qos, count, start));
    let latencies = receive(receiver, version, count, start);
    // The sender ends by itself: it sends a fixed number at a fixed rate.
    match sender.join() {
        Ok(sent) => sent?,
        Err(panic) => std::panic::resume_unwind(panic),
    }
    latencies
}

fn send(
    mut stream: TcpStream,
    version: Version,
    topic: &str,
    qos: u8,
    count: u32,
    start: Instant,
) -> Result<(), LoadError> {
    stream.set_nonblocking(true)?;
    let template = Template::new(version, topic, qos, 0, PAYLOAD_LEN);
    let mut acknowledgements = [0; 4096];
    let mut message = vec![];
    for seq in 0..count {
        let due = INTERVAL * seq;
        thread::sleep(due.saturating_sub(start.elapsed()));
        // Acknowledgements are read and thrown away, so that the broker never has to wait for this side.
        while matches!(stream.read(&mut acknowledgements), Ok(read) if read > 0) {}
        message.clear();
        template.write(&mut message, (seq % 65_535) as u16 + 1, seq);
        let at = message.len() - PAYLOAD_LEN + wire::STAMP_LEN;
        message[at..at + 8].copy_from_slice(&nanos(start).to_le_bytes());
        stream.write_all(&message)?;
    }
    // The connection stays until the last acknowledgement is here, so that the broker sees no error.
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(Duration::from_millis(100)))?;
    while matches!(stream.read(&mut acknowledgements), Ok(read) if read > 0) {}
    Ok(())
}

fn receive(mut stream: TcpStream, version: Version, count: u32, start: Instant) -> Result<Latencies, LoadError> {
    stream.set_read_timeout(Some(STALL))?;
    let mut violations = Violations::default();
    let mut micros = Vec::with_capacity(count as usize);
    let mut expected = 0;
    let mut gaps = 0;
    let mut buffer = vec![0; 64 * 1024];
    let mut filled = 0;
    let mut replies = vec![];
    while expected < count {
        match stream.read(&mut buffer[filled..]) {
            Ok(0) => return Err(LoadError::Closed),
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => return Err(error.into()),
        }
        let now = nanos(start);
        let mut used = 0;
        replies.clear();
        while let Some(packet) = wire::split(&buffer[used..filled])? {
            used += packet.len;
            if packet.first & 0xf0 != wire::PUBLISH {
                continue;
            }
            let publish = wire::read_publish(version, &packet)?;
            if publish.qos == 1 {
                wire::acknowledge(&mut replies, wire::PUBACK, publish.id);
            }
            let sent = publish.payload.get(wire::STAMP_LEN..).and_then(<[u8]>::first_chunk);
            match (wire::read_stamp(publish.payload), sent) {
                (Some((_, seq)), Some(sent)) if seq >= expected => {
                    gaps += u64::from(seq - expected);
                    expected = seq + 1;
                    micros.push(now.saturating_sub(u64::from_le_bytes(*sent)) as f64 / 1e3);
                }
                (Some(_), Some(_)) => violations.late += 1,
                _ => violations.foreign += 1,
            }
        }
        buffer.copy_within(used..filled, 0);
        filled -= used;
        if !replies.is_empty() {
            stream.write_all(&replies)?;
        }
    }
    violations.lost = gaps.saturating_sub(violations.late) + u64::from(count - expected);
    micros.sort_by(f64::total_cmp);
    Ok(Latencies { micros, violations })
}

fn nanos(start: Instant) -> u64 {
    start.elapsed().as_nanos() as u64
}
