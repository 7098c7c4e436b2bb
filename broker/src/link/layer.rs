//! What stands between the bytes of a socket and the bytes of MQTT.

use super::tls::{TlsError, TlsLayer};
use super::websocket::{WsError, WsLayer};

/// The transport of one link, as bytes in and bytes out.
///
/// Memory: one call makes `plain` and `wire` grow by no more than the input and what was held back before (at most one
/// TLS record or one WebSocket head), plus answers no longer than the input. The caller bounds what a peer leaves unread.
#[derive(Debug)]
pub enum Layer {
    /// The socket carries MQTT itself.
    Plain,
    /// MQTT in TLS.
    Tls(Box<TlsLayer>),
    /// MQTT in WebSocket frames.
    WebSocket(Box<WsLayer>),
    /// MQTT in WebSocket frames in TLS.
    SecureWebSocket(Box<TlsLayer>, Box<WsLayer>),
}

/// What the peer's side of the link looks like after its bytes were read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Received {
    /// More may come.
    Open,
    /// The peer has said goodbye (TLS `close_notify`, WebSocket Close); nothing more will come.
    PeerClosed,
}

/// The peer broke the rules of the transport. The answer owed to it (alert, Close frame, HTTP refusal) is already in
/// `wire`: write it, then close the socket.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum LayerError {
    /// TLS failed.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// WebSocket failed.
    #[error(transparent)]
    WebSocket(#[from] WsError),
}

impl LayerError {
    /// The label of the counter for this refusal.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Tls(error) => error.label(),
            Self::WebSocket(error) => error.label(),
        }
    }
}

impl Layer {
    /// Feeds bytes read from the socket. Appends MQTT bytes to `plain`, and bytes owed to the peer (handshake, pongs,
    /// alerts, HTTP answers) to `wire`.
    ///
    /// Bytes that arrived before an offence are in `plain` even when this returns an error.
    pub fn receive(&mut self, input: &[u8], plain: &mut Vec<u8>, wire: &mut Vec<u8>) -> Result<Received, LayerError> {
        match self {
            Self::Plain => {
                plain.extend_from_slice(input);
                Ok(Received::Open)
            }
            Self::Tls(tls) => Ok(tls.receive(input, plain, wire)?),
            Self::WebSocket(ws) => Ok(ws.receive(input, plain, wire)?),
            Self::SecureWebSocket(tls, ws) => {
                let mut frames = Vec::new();
                let from_tls = tls.receive(input, &mut frames, wire);
                let mut answers = Vec::new();
                let from_ws = ws.receive(&frames, plain, &mut answers);
                let closed = from_tls? == Received::PeerClosed;
                tls.send(&answers, wire)?;
                if from_ws.is_err() {
                    tls.close(wire);
                }
                Ok(if closed { Received::PeerClosed } else { from_ws? })
            }
        }
    }

    /// Wraps MQTT bytes for the socket and appends them to `wire`. A WebSocket link makes one frame of them, however
    /// many packets they are `[MQTT5-6.0.0-2]`.
    pub fn send(&mut self, plain: &[u8], wire: &mut Vec<u8>) -> Result<(), LayerError> {
        match self {
            Self::Plain => {
                wire.extend_from_slice(plain);
                Ok(())
            }
            Self::Tls(tls) => Ok(tls.send(plain, wire)?),
            Self::WebSocket(ws) => Ok(ws.send(plain, wire)?),
            Self::SecureWebSocket(tls, ws) => {
                let mut frame = Vec::with_capacity(plain.len() + WsLayer::HEADER_BYTES_MAX);
                ws.send(plain, &mut frame)?;
                Ok(tls.send(&frame, wire)?)
            }
        }
    }

    /// Says goodbye: a WebSocket Close frame with code 1000, a TLS `close_notify`. Says it once, and nothing while the
    /// handshake is not done.
    pub fn close(&mut self, wire: &mut Vec<u8>) {
        match self {
            Self::Plain => {}
            Self::Tls(tls) => tls.close(wire),
            Self::WebSocket(ws) => ws.close(wire),
            Self::SecureWebSocket(tls, ws) => {
                let mut frame = Vec::new();
                ws.close(&mut frame);
                // A frame that cannot be sent is no loss: the socket is closed next.
                if frame.is_empty() || tls.send(&frame, wire).is_ok() {
                    tls.close(wire);
                }
            }
        }
    }

    /// Whether the socket carries MQTT itself, so that its bytes need no [`Self::receive`] and no [`Self::send`].
    pub fn is_plain(&self) -> bool {
        matches!(self, Self::Plain)
    }

    /// Whether the transport's handshakes are done, so that MQTT bytes can be sent.
    pub fn is_ready(&self) -> bool {
        match self {
            Self::Plain => true,
            Self::Tls(tls) => tls.is_ready(),
            Self::WebSocket(ws) => ws.is_ready(),
            Self::SecureWebSocket(tls, ws) => tls.is_ready() && ws.is_ready(),
        }
    }

    /// The TLS layer, if there is one.
    pub fn tls(&self) -> Option<&TlsLayer> {
        match self {
            Self::Tls(tls) | Self::SecureWebSocket(tls, _) => Some(tls),
            Self::Plain | Self::WebSocket(_) => None,
        }
    }
}
