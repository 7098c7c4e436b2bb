//! Head-of-line blocking: small messages of one topic while another carries bulk to the same client over a line that loses
//! packets.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Child;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::QuicError;
use super::road::{Dialer, Kind, Link, Remember, stream};
use crate::client::{self, LoadError};
use crate::wire::{self, Keep, Template, Version};

/// The bulk: 100 KB a second.
const BULK: (&str, u32, usize, Duration) = ("line/bulk", 1, 1_000, Duration::from_millis(10));
/// The small messages.
const SMALL: (&str, u32, usize, Duration) = ("line/small", 2, 64, Duration::from_millis(25));
/// Place of the message that ends it.
const LAST: u32 = u32::MAX;

/// How the two topics reach the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// One TCP connection.
    Tcp,
    /// One TLS connection.
    Tls,
    /// One stream of a QUIC connection.
    OneStream,
    /// A stream each of one QUIC connection.
    TwoStreams,
}

impl Way {
    /// In the order of the table.
    pub(super) const ALL: [Self; 4] = [Self::Tcp, Self::Tls, Self::OneStream, Self::TwoStreams];

    /// Name in the table.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Tls => "TLS",
            Self::OneStream => "QUIC, one stream",
            Self::TwoStreams => "QUIC, two streams",
        }
    }

    /// Name on the command line.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::OneStream => "one",
            Self::TwoStreams => "two",
        }
    }

    /// The road below.
    pub(super) fn kind(self) -> Kind {
        match self {
            Self::Tcp => Kind::Tcp,
            Self::Tls => Kind::Tls,
            Self::OneStream | Self::TwoStreams => Kind::Quic,
        }
    }
}

/// Nanoseconds since 1970: the two ends are processes of one machine.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}

/// Publishes both topics over the loopback interface for so long, and then the last message until the reader has ended.
pub(super) fn publish(at: SocketAddr, seconds: u64, reader: &mut Child) -> Result<(), QuicError> {
    let mut publisher = client::open(at, Version::V3, "line-publisher", Keep::Nothing)?;
    let start = Instant::now();
    let mut sent = [0_u32; 2];
    let topics = [BULK, SMALL];
    let templates = topics.map(|(topic, number, len, _)| Template::new(Version::V3, topic, 0, number, len));
    let mut message = vec![];
    while start.elapsed().as_secs() < seconds {
        let next = (0..2).min_by_key(|&at| topics[at].3 * sent[at]).unwrap_or_default();
        thread::sleep((topics[next].3 * sent[next]).saturating_sub(start.elapsed()));
        write(&mut publisher, &templates[next], topics[next].2, sent[next], &mut message)?;
        sent[next] += 1;
    }
    let deadline = Instant::now() + Duration::from_secs(30);
    while reader.try_wait()?.is_none() {
        if Instant::now() > deadline {
            let _ = reader.kill();
            return Err(QuicError::Wrong("the last message did not come within 30 s".to_owned()));
        }
        write(&mut publisher, &templates[1], SMALL.2, LAST, &mut message)?;
        thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

fn write(
    to: &mut TcpStream,
    template: &Template,
    len: usize,
    seq: u32,
    message: &mut Vec<u8>,
) -> Result<(), LoadError> {
    message.clear();
    template.write(message, 1, seq);
    let at = message.len() - len + wire::STAMP_LEN;
    message[at..at + 8].copy_from_slice(&now().to_le_bytes());
    to.write_all(message)?;
    Ok(())
}

/// What the reader has seen.
#[derive(Debug, Default)]
struct Seen {
    millis: Vec<f64>,
    bulk: u64,
    is_over: bool,
}

impl Seen {
    fn take(&mut self, packet: &wire::Packet<'_>) -> Result<(), LoadError> {
        if packet.first & 0xF0 != wire::PUBLISH {
            return Ok(());
        }
        let publish = wire::read_publish(Version::V3, packet)?;
        let sent = publish.payload.get(wire::STAMP_LEN..).and_then(<[u8]>::first_chunk);
        match (wire::read_stamp(publish.payload), sent) {
            (Some((2, LAST)), _) => self.is_over = true,
            (Some((2, _)), Some(sent)) => {
                self.millis.push(now().saturating_sub(u64::from_le_bytes(*sent)) as f64 / 1e6);
            }
            _ => self.bulk += 1,
        }
        Ok(())
    }
}

/// The other end: subscribes, says `ready`, and prints what it has seen.
pub(super) async fn read(way: Way, at: SocketAddr, certificate: &Path) -> Result<(), QuicError> {
    let dialer = Dialer::new(way.kind(), at, certificate, Remember::Nothing)?;
    let mut control = dialer.open().await?;
    control.connect("line-reader").await?;
    let mut seen = Seen::default();
    match (&control.quic, way) {
        (Some(connection), Way::TwoStreams) => {
            let (mut bulk, mut small) = (stream(connection.clone()).await?, stream(connection.clone()).await?);
            bulk.subscribe(BULK.0, 0).await?;
            small.subscribe(SMALL.0, 0).await?;
            println!("ready");
            let counting = tokio::spawn(count(bulk));
            while !seen.is_over {
                seen.take(&small.input.packet().await?)?;
            }
            control.ping().await?;
            let mut bye = vec![];
            wire::disconnect(&mut bye);
            control.send(&bye).await?;
            seen.bulk = counting.await.unwrap_or_default();
        }
        _ => {
            control.subscribe(BULK.0, 0).await?;
            control.subscribe(SMALL.0, 0).await?;
            println!("ready");
            while !seen.is_over {
                seen.take(&control.input.packet().await?)?;
            }
        }
    }
    seen.millis.sort_by(f64::total_cmp);
    let at = |percent: usize| seen.millis.get(seen.millis.len() * percent / 100).copied().unwrap_or(f64::NAN);
    println!("seen {} {} {} {} {}", seen.millis.len(), seen.bulk, at(50), at(99), at(100).max(at(99)));
    Ok(())
}

/// Counts what comes until the stream ends.
async fn count(mut link: Link) -> u64 {
    let mut count = 0;
    while link.input.packet().await.is_ok() {
        count += 1;
    }
    count
}
