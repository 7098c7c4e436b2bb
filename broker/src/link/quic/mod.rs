//! QUIC: endpoints that listen on UDP, their bounds, and the streams of a connection as sockets (RFC 9000).

mod accept;
mod connection;
mod endpoint;
#[cfg(test)]
mod tests;
mod udp;

pub use accept::{NewQuic, QuicEvent, QuicOptions, serve_quic};
pub use connection::{Connection as QuicConnection, QuicStream};

use super::accept::BindError;
use parlor_protocol::mqtt::ReasonCode;
use quinn_proto::crypto::rustls::QuicServerConfig;
use quinn_proto::{EndpointConfig, HashedConnectionIdGenerator, IdleTimeout, ServerConfig, TransportConfig, VarInt};
use ring::hmac;
use socket2::{Domain, Protocol, Socket, Type};
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

/// ALPN of MQTT over QUIC, as other brokers and their clients use it.
pub const MQTT_ALPN: &str = "mqtt";
/// ALPN of the native link.
pub const NATIVE_ALPN: &str = "parlor/1";
/// What the system is asked to hold of datagrams that have come and were not read, and that wait to be sent, bytes.
const SOCKET_BYTES: usize = 4 * 1024 * 1024;
/// A peer of which nothing was heard for this long is gone, also when its keep alive is 0.
const IDLE: Duration = Duration::from_secs(10 * 60);
/// How often a connection on which nothing happens is tried, so that the two sides' middleboxes remember it.
const TRY_IDLE: Duration = Duration::from_secs(4 * 60);
/// Bytes of one stream that may have come and were not read. A connection may have as many for each of its streams at once:
/// else those that are not read would keep the control stream from being heard.
const STREAM_BYTES: u32 = 64 * 1024;
/// Bytes of all streams of one connection that were written and that the peer has not acknowledged.
const SEND_BYTES: u64 = 512 * 1024;
/// Bytes of datagrams of one connection that wait, each way. The oldest give way.
const DATAGRAM_BYTES: usize = 64 * 1024;
/// Connections whose first packet waits to be looked at, and bytes that came for one of them, and for all, meanwhile.
const INCOMING: usize = 1024;
const INCOMING_BYTES: u64 = 32 * 1024;
const INCOMING_BYTES_ALL: u64 = 4 * 1024 * 1024;
/// Runs of datagrams that are received at once.
const INCOMING_RUNS: usize = 8;
/// What peers are told when the broker ends.
const CLOSED_DOWN: &[u8] = b"the server is shutting down";

/// The application error code of QUIC that stands for a reason code of MQTT: the same number.
pub fn close_code(reason: ReasonCode) -> VarInt {
    VarInt::from_u32(u32::from(reason.0))
}

/// A UDP socket that does not block. Port 0 takes a free one; an IPv6 socket takes IPv6 only.
pub fn bind_udp(address: SocketAddr) -> Result<UdpSocket, BindError> {
    let open = || {
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.set_nonblocking(true)?;
        // The system may grant less; then bursts lose datagrams, which are sent again.
        let _ = socket.set_recv_buffer_size(SOCKET_BYTES);
        let _ = socket.set_send_buffer_size(SOCKET_BYTES);
        socket.bind(&address.into())?;
        Ok(socket.into())
    };
    open().map_err(|source| BindError::of(address, source))
}

/// What endpoints need to know each other's connections over a restart: peers of a broker that has died are told so at once,
/// by a stateless reset (RFC 9000 s10.3).
#[derive(Clone)]
pub struct ResetKey {
    key: hmac::Key,
    /// Marks our connection identifiers, so that not every stray datagram is answered.
    ids: u64,
}

impl ResetKey {
    /// Length of what is to be kept, bytes.
    pub const BYTES: usize = 64;

    /// From what was kept.
    pub fn new(bytes: &[u8; Self::BYTES]) -> Self {
        let key = hmac::Key::new(hmac::HMAC_SHA256, bytes);
        let ids = hmac::sign(&key, b"connection identifiers");
        let ids = ids.as_ref().first_chunk().map_or(0, |first| u64::from_le_bytes(*first));
        Self { key, ids }
    }
}

impl std::fmt::Debug for ResetKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ResetKey")
    }
}

fn endpoint_config(key: &ResetKey) -> EndpointConfig {
    let mut config = EndpointConfig::new(Arc::new(key.key.clone()));
    let ids = key.ids;
    config.cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(ids)));
    config
}

/// Bounds of every connection of an endpoint.
fn transport(streams_max: u64) -> TransportConfig {
    let mut transport = TransportConfig::default();
    let connection = streams_max.saturating_add(1).saturating_mul(STREAM_BYTES.into());
    let connection = VarInt::from_u64(connection).unwrap_or(VarInt::MAX);
    // The control stream, and the others.
    let streams = VarInt::from_u64(streams_max.saturating_add(1)).unwrap_or(VarInt::MAX);
    transport
        .max_concurrent_bidi_streams(streams)
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .max_idle_timeout(IdleTimeout::try_from(IDLE).ok())
        .keep_alive_interval(Some(TRY_IDLE))
        .stream_receive_window(VarInt::from_u32(STREAM_BYTES))
        .receive_window(connection)
        .send_window(SEND_BYTES)
        .datagram_receive_buffer_size(Some(DATAGRAM_BYTES))
        .datagram_send_buffer_size(DATAGRAM_BYTES);
    transport
}

/// What a handshake that begins now is held to.
fn server_config(tls: Arc<rustls::ServerConfig>, streams_max: u64) -> Result<ServerConfig, rustls::Error> {
    let crypto = QuicServerConfig::try_from(tls).map_err(|error| rustls::Error::General(error.to_string()))?;
    let mut config = ServerConfig::with_crypto(Arc::new(crypto));
    config
        .transport_config(Arc::new(transport(streams_max)))
        .max_incoming(INCOMING)
        .incoming_buffer_size(INCOMING_BYTES)
        .incoming_buffer_size_total(INCOMING_BYTES_ALL)
        .migration(true);
    Ok(config)
}
