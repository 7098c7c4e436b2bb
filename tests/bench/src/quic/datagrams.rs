//! Datagrams of the native link: telemetry of one device to one MQTT subscriber, as fast as it goes.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parlor_protocol::link::{Decoded, Down, LEVEL, SCHEMA, Secret, Up, decode_frame, encode, encode_datagram, wants};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::QuicError;
use super::road::{Dialer, Kind, Remember};
use super::site::Site;
use crate::wire;

const TOPIC: &str = "bench/telemetry";
/// Longest wait for `Welcome`.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// What was measured.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rate {
    /// Thousand datagrams a second that were sent.
    pub(super) sent: f64,
    /// Thousand a second that came to the subscriber.
    pub(super) received: f64,
    /// Processor seconds of the broker for a million that came.
    pub(super) cpu_secs_per_million: f64,
}

/// Sends for so long.
pub(super) async fn run(site: &Site, certificate: &Path, duration: Duration) -> Result<Rate, QuicError> {
    let mut subscriber = Dialer::new(Kind::Tcp, site.at(Kind::Tcp), certificate, Remember::Nothing)?.open().await?;
    subscriber.connect("telemetry-reader").await?;
    subscriber.subscribe(TOPIC, 0).await?;
    let received = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&received);
    tokio::spawn(async move {
        while let Ok(packet) = subscriber.input.packet().await {
            counter.fetch_add(u64::from(packet.first & 0xF0 == wire::PUBLISH), Ordering::Relaxed);
        }
    });
    let dialer = Dialer::native(site.at(Kind::Quic), certificate)?;
    let connection = dialer.connecting()?.await.map_err(std::io::Error::from)?;
    let (mut send, mut recv) = connection.open_bi().await.map_err(std::io::Error::from)?;
    let mut hello = vec![];
    let up = Up::Hello {
        level: LEVEL,
        schema: SCHEMA,
        account: "",
        secret: Secret(b""),
        terminal: "telemetry",
        keep_alive_s: 600,
        expiry_s: 0,
        receive_max: 100,
        frame_max: 0,
        clean: true,
        wants: wants::DATAGRAMS,
        core_level: 0,
        platform: "",
        app: "bench",
    };
    encode(&up, &mut hello).map_err(|error| QuicError::Wrong(error.to_string()))?;
    send.write_all(&hello).await.map_err(std::io::Error::from)?;
    let mut answer = vec![];
    let welcome = async {
        loop {
            if recv.read_buf(&mut answer).await? == 0 {
                return Err(QuicError::Wrong("the broker has ended the native link".to_owned()));
            }
            match decode_frame::<Down<'_>>(&answer, u16::MAX) {
                Ok(None) => {}
                Ok(Some((Decoded::Frame(Down::Welcome { .. }), _))) => return Ok(()),
                other => return Err(QuicError::Wrong(format!("no Welcome: {other:?}"))),
            }
        }
    };
    tokio::time::timeout(ANSWER_LIMIT, welcome)
        .await
        .map_err(|_| QuicError::Wrong("no Welcome in time".to_owned()))??;
    let mut datagram = vec![];
    encode_datagram(&Up::Telemetry { topic: TOPIC, payload: &[b'.'; 64] }, &mut datagram)
        .map_err(|error| QuicError::Wrong(error.to_string()))?;
    let (cpu, since, mut sent) = (site.process().cpu()?, Instant::now(), 0_u64);
    while since.elapsed() < duration {
        // A turn of the sender; the socket and the subscriber have theirs between.
        for _ in 0..32 {
            connection.send_datagram_wait(datagram.clone().into()).await.map_err(std::io::Error::other)?;
            sent += 1;
        }
        tokio::task::yield_now().await;
    }
    // What was sent before is handled when the answer comes: control and datagrams are read by the same connection.
    let seconds = since.elapsed().as_secs_f64();
    let mut before = u64::MAX;
    while before != received.load(Ordering::Relaxed) {
        before = received.load(Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let got = received.load(Ordering::Relaxed) as f64;
    let cpu = site.process().cpu()?.secs_since(&cpu);
    send.shutdown().await?;
    Ok(Rate { sent: sent as f64 / seconds / 1e3, received: got / seconds / 1e3, cpu_secs_per_million: cpu / got * 1e6 })
}
