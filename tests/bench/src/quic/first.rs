//! From the decision to connect to the first acknowledged message: a message to another account, durable, as a phone sends
//! it when it has come back.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Instant;

use super::QuicError;
use super::road::{Dialer, Kind, Link, Remember};
use crate::client::LoadError;
use crate::im::token;
use crate::wire;

/// How a client comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Return {
    /// TCP, and MQTT at once.
    Tcp,
    /// TLS 1.3 with a ticket.
    Tls,
    /// QUIC without a ticket.
    Quic,
    /// QUIC with a ticket: the message is in the first flight.
    Early,
}

impl Return {
    /// In the order of the table.
    pub(super) const ALL: [Self; 4] = [Self::Tcp, Self::Tls, Self::Quic, Self::Early];

    /// Name in the table.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Tls => "TCP + TLS",
            Self::Quic => "QUIC 1-RTT",
            Self::Early => "QUIC 0-RTT",
        }
    }

    /// The road below.
    pub(super) fn kind(self) -> Kind {
        match self {
            Self::Tcp => Kind::Tcp,
            Self::Tls => Kind::Tls,
            Self::Quic | Self::Early => Kind::Quic,
        }
    }
}

/// CONNECT (MQTT 5) of this account, without Clean Start, which may not be asked for in a first flight.
fn connect(key: &[u8], account: &str) -> Vec<u8> {
    let mut body = vec![0, 4, b'M', b'Q', b'T', b'T', 5, 0b1100_0000, 2, 88, 0];
    for part in [format!("{account}-phone"), account.to_owned(), token(key, account)] {
        body.extend_from_slice(&(part.len() as u16).to_be_bytes());
        body.extend_from_slice(part.as_bytes());
    }
    let mut packet = vec![];
    wire::frame(&mut packet, wire::CONNECT, &body);
    packet
}

/// PUBLISH (MQTT 5) at QoS 1; with a client id when `id` is not empty.
fn publish(topic: &str, id: &str, payload: &str) -> Vec<u8> {
    let mut properties = vec![];
    if !id.is_empty() {
        properties.push(0x26);
        for part in ["im-id", id] {
            properties.extend_from_slice(&(part.len() as u16).to_be_bytes());
            properties.extend_from_slice(part.as_bytes());
        }
    }
    let mut body = (topic.len() as u16).to_be_bytes().to_vec();
    body.extend_from_slice(topic.as_bytes());
    body.extend_from_slice(&[0, 1, properties.len() as u8]);
    body.extend_from_slice(&properties);
    body.extend_from_slice(payload.as_bytes());
    let mut packet = vec![];
    wire::frame(&mut packet, wire::PUBLISH | 2, &body);
    packet
}

/// Waits for CONNACK and PUBACK, both without a refusal.
async fn acknowledged(link: &mut Link) -> Result<(), LoadError> {
    for first in [wire::CONNACK, wire::PUBACK] {
        let body = link.expect(first).await?;
        let code = if first == wire::CONNACK { body.get(1) } else { body.get(2) }.copied().unwrap_or_default();
        if code >= 0x80 {
            return Err(LoadError::Refused { first, code });
        }
    }
    Ok(())
}

/// Two accounts that may write to each other.
pub(super) async fn befriend(at: SocketAddr, certificate: &Path, key: &[u8]) -> Result<(), QuicError> {
    let dialer = Dialer::new(Kind::Tcp, at, certificate, Remember::Nothing)?;
    for (own, other, op) in [("alice", "bob", "request"), ("bob", "alice", "accept")] {
        // The one who is asked has to be there first.
        for (account, request) in [(other, None), (own, Some((other, op)))] {
            let mut link = dialer.open().await?;
            let (topic, payload) = match request {
                Some((other, op)) => (format!("im/v1/me/contact/{other}"), format!(r#"{{"op":"{op}"}}"#)),
                None => ("im/v1/me/convs".to_owned(), "{}".to_owned()),
            };
            link.send(&[connect(key, account), publish(&topic, "", &payload)].concat()).await?;
            acknowledged(&mut link).await?;
        }
    }
    Ok(())
}

/// Milliseconds of so many returns, sorted.
pub(super) async fn run(
    how: Return,
    at: SocketAddr,
    certificate: &Path,
    key: &[u8],
    rounds: u32,
) -> Result<Vec<f64>, QuicError> {
    let remember = if how == Return::Quic { Remember::Nothing } else { Remember::Tickets };
    let dialer = Dialer::new(how.kind(), at, certificate, remember)?;
    let hello = connect(key, "alice");
    let run = format!("{}-{}", std::process::id(), how.name().replace([' ', '+'], ""));
    let mut took = vec![];
    for round in 0..=rounds {
        let message = publish("im/v1/to/bob/msg", &format!("{run}-{round}"), "I am back");
        let flight = [hello.as_slice(), &message].concat();
        let since = Instant::now();
        let mut early = None;
        // The first connection of all has no ticket yet, and does not count.
        let mut link = if how == Return::Early && round > 0 {
            let (link, accepted) = dialer.open_early().await?;
            early = Some(accepted);
            link
        } else {
            dialer.open().await?
        };
        link.send(&flight).await?;
        acknowledged(&mut link).await?;
        let ms = since.elapsed().as_secs_f64() * 1e3;
        if let Some(accepted) = early
            && !accepted.await
        {
            return Err(QuicError::Wrong("the broker did not take the first flight".to_owned()));
        }
        // Behind what the broker says after the handshake: its tickets.
        link.ping().await?;
        if round > 0 {
            took.push(ms);
        }
        let mut bye = vec![];
        wire::disconnect(&mut bye);
        link.send(&bye).await?;
    }
    took.sort_by(f64::total_cmp);
    Ok(took)
}
