//! Links: how bytes of MQTT reach the broker and leave it, over TCP, TLS, WebSocket and QUIC.
//!
//! What a transport adds to the bytes is a [`Layer`]: a value that is fed what the socket gave and says what the socket
//! is owed, without ever touching the socket. Listening sockets come from [`bind`]; TLS handshakes run on a side thread
//! in [`serve_tls`], which hands every finished one over as a [`NewLink`].
//!
//! A link knows bytes. It knows no packets, no topics and no accounts.

mod accept;
#[cfg(test)]
mod fixture;
mod layer;
mod quic;
mod tls;
mod tls_config;
mod websocket;

pub use accept::{BindError, NewConnection, NewLink, TlsAcceptEvent, TlsAcceptOptions, accept_pause, bind, serve_tls};
pub use layer::{Layer, LayerError, Received};
pub use quic::{
    MQTT_ALPN, NATIVE_ALPN, NewQuic, QuicConnection, QuicEvent, QuicOptions, QuicStream, ResetKey, bind_udp,
    close_code, serve_quic,
};
pub use tls::{TlsError, TlsLayer};
pub use tls_config::{Carrier, ClientAuth, ReloadEvent, ReloadableTls, TlsConfigError, TlsFiles};
pub use websocket::{WsError, WsLayer, WsOptions};
