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
    /// The peer has said goodbye (TLS `close_notify`, WebSocket Close); nothing more will come. What it said before is
    /// in `plain`, and the answer to the goodbye in `wire`.
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

#[cfg(test)]
mod tests {
    use super::super::fixture::{Ca, Dir, Noise, Socket, client, client_config, server_files};
    use super::super::websocket::WsOptions;
    use super::*;
    use rustls::version::{TLS12, TLS13};
    use rustls::{ClientConnection, StreamOwned};
    use std::sync::Arc;
    use tungstenite::client::ClientRequestBuilder;
    use tungstenite::{Message, WebSocket};

    type Secure = WebSocket<StreamOwned<ClientConnection, Socket>>;

    fn connect(version: &'static rustls::SupportedProtocolVersion, chunk: usize) -> Secure {
        let (dir, ca) = (Dir::new(), Ca::new("ca"));
        let tls = TlsLayer::new(server_files(&dir, &ca).load().unwrap()).unwrap();
        let options = WsOptions { message_bytes_max: 300_000, ..WsOptions::default() };
        let ws = WsLayer::new(Arc::new(options));
        let socket = Socket::new(Layer::SecureWebSocket(Box::new(tls), Box::new(ws)), chunk);
        assert!(!socket.layer.is_ready());
        let stream = StreamOwned::new(client(client_config(&ca, None, &[version])), socket);
        let uri = "wss://localhost/mqtt".parse().unwrap();
        tungstenite::client(ClientRequestBuilder::new(uri).with_sub_protocol("mqtt"), stream).unwrap().0
    }

    #[test]
    fn secure_websocket_carries_text_both_ways() {
        let text = Noise(5).bytes(200_000);
        for version in [&TLS12, &TLS13] {
            for chunk in [1, 1000, usize::MAX] {
                let mut client = connect(version, chunk);
                client.send(Message::binary(text.clone())).unwrap();
                let socket = &mut client.get_mut().sock;
                assert!(socket.layer.is_ready());
                assert_eq!(socket.plain, text);
                socket.send(&text).unwrap();
                assert_eq!(client.read().unwrap(), Message::binary(text.clone()));
            }
        }
    }

    #[test]
    fn secure_websocket_says_goodbye_in_both_layers() {
        let mut client = connect(&TLS13, usize::MAX);
        client.get_mut().sock.close();
        let said = client.get_ref().sock.unread().len();
        client.get_mut().sock.close();
        assert_eq!(client.get_ref().sock.unread().len(), said);
        let Message::Close(Some(close)) = client.read().unwrap() else { panic!("no Close") };
        assert_eq!(u16::from(close.code), 1000);

        let mut client = connect(&TLS13, usize::MAX);
        client.close(None).unwrap();
        assert_eq!(client.get_ref().sock.outcome, Ok(Received::PeerClosed));
    }

    #[test]
    fn secure_websocket_explains_a_refusal_before_it_closes() {
        let mut client = connect(&TLS13, usize::MAX);
        let _ = client.send(Message::binary(vec![0; 300_001]));
        assert_eq!(client.get_ref().sock.outcome.as_ref().unwrap_err().label(), "ws_too_large");
        let Message::Close(Some(close)) = client.read().unwrap() else { panic!("no Close") };
        assert_eq!(u16::from(close.code), 1009);
    }

    #[test]
    fn plain_is_plain() {
        let mut socket = Socket::new(Layer::Plain, usize::MAX);
        assert!(socket.layer.is_plain() && socket.layer.is_ready() && socket.layer.tls().is_none());
        std::io::Write::write_all(&mut socket, b"in").unwrap();
        socket.send(b"out").unwrap();
        socket.close();
        assert_eq!((&socket.plain[..], socket.unread()), (&b"in"[..], &b"out"[..]));
        assert!(size_of::<Layer>() <= 24);
    }
}
