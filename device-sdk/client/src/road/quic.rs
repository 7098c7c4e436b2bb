//! Both roads over QUIC: one connection with one stream, resumed early where the broker allows it, and movable from one local
//! address to another.

use super::driver::{Codec, Early, Engine, Over, Side, drive, socket_for};
use super::mqtt::MqttCodec;
use super::native::NativeCodec;
use super::{Down, End, Login, Up, tls};
use crate::error::ConnectError;
use crate::options::Filter;
use crate::target::Scheme;
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{
    ClientConfig, Connecting, ConnectionError, Endpoint, EndpointConfig, IdleTimeout, TransportConfig, VarInt,
};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::timeout;

/// The application protocols (ALPN).
const MQTT: &[u8] = b"mqtt";
const NATIVE: &[u8] = b"parlor/1";
/// Datagrams that wait to be read, bytes; the oldest are dropped.
const DATAGRAM_BYTES_MAX: usize = 256 * 1024;
/// Silence after which a packet keeps the way open through address translators.
const KEEP_OPEN: Duration = Duration::from_secs(15);
/// How long to wait for the last packets to leave.
const FAREWELL: Duration = Duration::from_millis(500);

/// What every connection uses. It remembers what resumption needs, so that the next one is shorter.
pub(super) fn config(login: &Login) -> Result<ClientConfig, ConnectError> {
    let alpn = if login.target.scheme == Scheme::MqttQuic { MQTT } else { NATIVE };
    let mut tls = tls::config(login, &[alpn])?;
    tls.enable_early_data = true;
    let failed = |why: String| ConnectError::Tls { target: login.target.clone(), why };
    let crypto = QuicClientConfig::try_from(tls).map_err(|error| failed(error.to_string()))?;
    let mut config = ClientConfig::new(Arc::new(crypto));
    let mut transport = TransportConfig::default();
    let idle = login.options.keep_alive * 2;
    transport
        .max_idle_timeout(IdleTimeout::try_from(idle).ok())
        .keep_alive_interval(Some(KEEP_OPEN.min(login.options.keep_alive / 2)))
        // The broker opens no streams; what it sends comes on those of the client.
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(Some(DATAGRAM_BYTES_MAX))
        .datagram_send_buffer_size(DATAGRAM_BYTES_MAX);
    config.transport_config(Arc::new(transport));
    Ok(config)
}

/// The broker's address that answered last, where the last connection came so far. Only there can one begin early.
pub(super) type Good = Arc<Mutex<Option<SocketAddr>>>;

/// Lives one connection.
pub(super) async fn run(
    login: Arc<Login>,
    way: (ClientConfig, Good),
    filters: Vec<Filter>,
    ups: mpsc::Receiver<Up>,
    down: mpsc::Sender<Down>,
) {
    let engine = Engine { ups, down: down.clone(), keep_alive: login.options.keep_alive };
    let codec: Box<dyn Codec> = match login.target.scheme {
        Scheme::MqttQuic => Box::new(MqttCodec::new(Arc::clone(&login), filters)),
        _ => Box::new(NativeCodec::new(Arc::clone(&login), filters, true)),
    };
    if let Err(end) = connect(&login, &way, codec, engine).await {
        let _ = down.send(Down::Ended(end)).await;
    }
}

async fn connect(
    login: &Login,
    (config, good): &(ClientConfig, Good),
    mut codec: Box<dyn Codec>,
    mut engine: Engine,
) -> Result<(), End> {
    // It has to show again that it is good.
    let last = lock(good).take();
    let (side, mut early) = begin(login, config, last).await?;
    if early.is_none() {
        *lock(good) = Some(side.connection.remote_address());
    }
    let mut again = Vec::new();
    let over = loop {
        let (send, recv) = side.connection.open_bi().await.map_err(|error| judge(login, &error))?;
        match drive(codec.as_mut(), recv, send, (Some(&side), &mut early), again, &mut engine).await {
            Over::Again(publishes) => again = publishes,
            over => break over,
        }
    };
    if early.is_none() {
        *lock(good) = Some(side.connection.remote_address());
    }
    let end = match over {
        Over::Ended(end) => Some(match side.connection.close_reason() {
            Some(reason) if matches!(end, End::Lost(_)) => judge(login, &reason),
            _ => end,
        }),
        Over::Left | Over::Again(_) => None,
    };
    side.connection.close(VarInt::from_u32(0), b"");
    let _ = timeout(FAREWELL, side.endpoint.wait_idle()).await;
    end.map_or(Ok(()), Err)
}

fn lock(good: &Good) -> MutexGuard<'_, Option<SocketAddr>> {
    // It is one value.
    good.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The first of the broker's addresses that answers; `good` before all others.
async fn begin(login: &Login, config: &ClientConfig, good: Option<SocketAddr>) -> Result<(Side, Early), End> {
    let target = &login.target;
    let lost = |why: &dyn std::fmt::Display| End::Lost(format!("{target}: {why}"));
    let found = tokio::net::lookup_host((target.bare_host(), target.port)).await.map_err(|error| lost(&error))?;
    let mut addresses: Vec<SocketAddr> = found.collect();
    addresses.sort_by_key(|address| good != Some(*address));
    let share = login.options.attempt / u32::try_from(addresses.len()).unwrap_or(1).max(1);
    let mut last = lost(&"this name has no address");
    for address in addresses {
        let (endpoint, connecting) = match dial(login, config, address) {
            Ok(dialled) => dialled,
            Err(why) => {
                last = lost(&why);
                continue;
            }
        };
        let connecting = if good == Some(address) {
            match connecting.into_0rtt() {
                Ok((connection, early)) => return Ok((Side { endpoint, connection }, Some(early))),
                Err(connecting) => connecting,
            }
        } else {
            connecting
        };
        last = match timeout(share, connecting).await {
            Ok(Ok(connection)) => return Ok((Side { endpoint, connection }, None)),
            Ok(Err(error)) => judge(login, &error),
            Err(_) => lost(&"no answer"),
        };
        if matches!(last, End::Fatal(_)) {
            break;
        }
    }
    Err(last)
}

fn dial(login: &Login, config: &ClientConfig, address: SocketAddr) -> Result<(Endpoint, Connecting), String> {
    let socket = socket_for(address).map_err(|error| error.to_string())?;
    let runtime = quinn::default_runtime().ok_or("there is no runtime")?;
    let endpoint =
        Endpoint::new(EndpointConfig::default(), None, socket, runtime).map_err(|error| error.to_string())?;
    let connecting = endpoint.connect_with(config.clone(), address, login.target.bare_host());
    Ok((endpoint, connecting.map_err(|error| error.to_string())?))
}

/// The TLS alert for a protocol nobody speaks there (RFC 7301 s3.2), as QUIC carries it (RFC 9001 s4.8).
const NO_APPLICATION_PROTOCOL: u64 = 0x178;
/// Where the alerts begin.
const ALERTS: std::ops::Range<u64> = 0x100..0x200;

fn judge(login: &Login, error: &ConnectionError) -> End {
    let target = login.target.clone();
    let code = match error {
        ConnectionError::TransportError(error) => u64::from(error.code),
        ConnectionError::ConnectionClosed(close) => u64::from(close.error_code),
        _ => 0,
    };
    if code == NO_APPLICATION_PROTOCOL {
        let why = format!("nobody speaks {} there", target.scheme.word());
        return End::Fatal(ConnectError::Tls { target, why });
    }
    if ALERTS.contains(&code) {
        return End::Fatal(ConnectError::Tls { target, why: error.to_string() });
    }
    match error {
        ConnectionError::TimedOut => End::Lost(format!("{target} does not answer")),
        error => End::Lost(format!("{target}: {error}")),
    }
}
