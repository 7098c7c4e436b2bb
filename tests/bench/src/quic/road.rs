//! A connection over TCP, TLS or QUIC, as two halves of bytes.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::QuicClientConfig;
use rustls::RootCertStore;
use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::QuicError;
use crate::client::LoadError;
use crate::wire::{self, Packet};

/// Longest wait for an answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);

/// A road to the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// MQTT over TCP.
    Tcp,
    /// MQTT over TLS.
    Tls,
    /// MQTT over QUIC.
    Quic,
}

impl Kind {
    /// In the order of the table.
    pub(super) const ALL: [Self; 3] = [Self::Tcp, Self::Tls, Self::Quic];

    /// Name in the table and on the command line.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::Quic => "quic",
        }
    }

    /// Scheme of its listener.
    pub(super) fn scheme(self) -> &'static str {
        match self {
            Self::Tcp => "mqtt",
            Self::Tls => "mqtts",
            Self::Quic => "mqtt+quic",
        }
    }
}

/// Whether a later connection may go on from what an earlier one left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Remember {
    /// Every handshake is a whole one.
    Nothing,
    /// Tickets are kept; QUIC's first flight carries data.
    Tickets,
}

/// Makes connections over one road.
pub(super) struct Dialer {
    kind: Kind,
    at: SocketAddr,
    tls: TlsConnector,
    quic: quinn::ClientConfig,
    endpoint: Option<quinn::Endpoint>,
}

/// Reading half of a connection.
pub(super) type Reader = Box<dyn AsyncRead + Send + Unpin>;
/// Writing half of a connection.
pub(super) type Writer = Box<dyn AsyncWrite + Send + Unpin>;

/// A connection.
pub(super) struct Link {
    /// What comes.
    pub(super) input: Input,
    /// What goes.
    pub(super) writer: Writer,
    /// The connection below, for its other streams and datagrams.
    pub(super) quic: Option<quinn::Connection>,
}

/// Packets out of bytes.
pub(super) struct Input {
    reader: Reader,
    held: Vec<u8>,
    used: usize,
}

impl Input {
    pub(super) fn new(reader: Reader) -> Self {
        Self { reader, held: vec![], used: 0 }
    }

    /// The next packet: its first byte and its body. Waits for bytes only when none is whole.
    pub(super) async fn packet(&mut self) -> Result<Packet<'_>, LoadError> {
        loop {
            if let Some(packet) = wire::split(&self.held[self.used..])? {
                let at = self.used;
                self.used += packet.len;
                // Split once more: the borrow of the loop's first look would outlive it.
                return wire::split(&self.held[at..])?.ok_or(LoadError::Closed);
            }
            self.fill().await?;
        }
    }

    /// Whether a whole packet is here already.
    pub(super) fn has_packet(&self) -> bool {
        matches!(wire::split(&self.held[self.used..]), Ok(Some(_)))
    }

    async fn fill(&mut self) -> Result<(), LoadError> {
        self.held.drain(..self.used);
        self.used = 0;
        self.held.reserve(16 * 1024);
        let read = tokio::time::timeout(ANSWER_LIMIT, self.reader.read_buf(&mut self.held));
        match read.await.map_err(|_| LoadError::Unanswered)?? {
            0 => Err(LoadError::Closed),
            _ => Ok(()),
        }
    }
}

impl Dialer {
    /// Trusts the certificate in this file. To be made within a runtime.
    pub(super) fn new(kind: Kind, at: SocketAddr, certificate: &Path, remember: Remember) -> Result<Self, QuicError> {
        Self::speaking(kind, at, certificate, remember, b"mqtt")
    }

    /// For native links over QUIC.
    pub(super) fn native(at: SocketAddr, certificate: &Path) -> Result<Self, QuicError> {
        Self::speaking(Kind::Quic, at, certificate, Remember::Nothing, b"parlor/1")
    }

    fn speaking(
        kind: Kind,
        at: SocketAddr,
        certificate: &Path,
        remember: Remember,
        alpn: &[u8],
    ) -> Result<Self, QuicError> {
        let certificate = CertificateDer::from_pem_file(certificate)
            .map_err(|error| QuicError::Wrong(format!("the broker's certificate cannot be read: {error}")))?;
        let mut roots = RootCertStore::empty();
        roots.add(certificate)?;
        let mut tls = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots)
            .with_no_client_auth();
        if remember == Remember::Nothing {
            tls.resumption = Resumption::disabled();
        }
        let mut for_quic = tls.clone();
        for_quic.alpn_protocols = vec![alpn.to_vec()];
        for_quic.enable_early_data = remember == Remember::Tickets;
        let quic = QuicClientConfig::try_from(for_quic).map_err(|e| QuicError::Wrong(e.to_string()))?;
        let mut quic = quinn::ClientConfig::new(Arc::new(quic));
        let mut transport = quinn::TransportConfig::default();
        transport.max_idle_timeout(None).datagram_send_buffer_size(16 << 20);
        quic.transport_config(Arc::new(transport));
        let endpoint = match kind {
            Kind::Quic => {
                let any = if at.ip().is_loopback() { Ipv4Addr::LOCALHOST } else { Ipv4Addr::UNSPECIFIED };
                Some(quinn::Endpoint::client((any, 0).into())?)
            }
            _ => None,
        };
        Ok(Self { kind, at, tls: TlsConnector::from(Arc::new(tls)), quic, endpoint })
    }

    /// Begins a QUIC connection.
    pub(super) fn connecting(&self) -> Result<quinn::Connecting, QuicError> {
        let endpoint = self.endpoint.as_ref().ok_or_else(|| QuicError::Wrong("this is no QUIC road".to_owned()))?;
        endpoint.connect_with(self.quic.clone(), self.at, "localhost").map_err(|e| QuicError::Wrong(e.to_string()))
    }

    /// Connects; nothing is said yet.
    pub(super) async fn open(&self) -> Result<Link, QuicError> {
        let (reader, writer, quic): (Reader, Writer, _) = match self.kind {
            Kind::Tcp => {
                let (reader, writer) = self.tcp().await?.into_split();
                (Box::new(reader), Box::new(writer), None)
            }
            Kind::Tls => {
                let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
                let (reader, writer) = tokio::io::split(self.tls.connect(name, self.tcp().await?).await?);
                (Box::new(reader), Box::new(writer), None)
            }
            Kind::Quic => {
                let connection = self.connecting()?.await.map_err(io::Error::from)?;
                return stream(connection).await;
            }
        };
        Ok(Link { input: Input::new(reader), writer, quic })
    }

    /// Connects with a ticket: what is written goes with the first flight.
    pub(super) async fn open_early(&self) -> Result<(Link, quinn::ZeroRttAccepted), QuicError> {
        let Ok((connection, accepted)) = self.connecting()?.into_0rtt() else {
            return Err(QuicError::Wrong("the broker left no ticket".to_owned()));
        };
        Ok((stream(connection).await?, accepted))
    }

    async fn tcp(&self) -> io::Result<TcpStream> {
        let stream = TcpStream::connect(self.at).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

/// The next stream of a QUIC connection.
pub(super) async fn stream(connection: quinn::Connection) -> Result<Link, QuicError> {
    let (send, recv) = connection.open_bi().await.map_err(io::Error::from)?;
    Ok(Link { input: Input::new(Box::new(recv)), writer: Box::new(send), quic: Some(connection) })
}

impl Link {
    /// Writes bytes, and sees to it that they go.
    pub(super) async fn send(&mut self, bytes: &[u8]) -> Result<(), LoadError> {
        self.writer.write_all(bytes).await?;
        self.writer.flush().await?;
        Ok(())
    }

    /// Waits for a packet of this type and gives its body; others are passed over.
    pub(super) async fn expect(&mut self, first: u8) -> Result<Vec<u8>, LoadError> {
        loop {
            let packet = self.input.packet().await?;
            if packet.first == first {
                return Ok(packet.body.to_vec());
            }
            if packet.first == wire::DISCONNECT {
                let code = packet.body.first().copied().unwrap_or_default();
                return Err(LoadError::Refused { first: packet.first, code });
            }
        }
    }

    /// Says CONNECT (3.1.1, a session that ends with the connection) and is let in.
    pub(super) async fn connect(&mut self, client_id: &str) -> Result<(), LoadError> {
        let mut hello = vec![];
        wire::connect(&mut hello, wire::Version::V3, client_id, wire::Keep::Nothing);
        self.send(&hello).await?;
        let body = self.expect(wire::CONNACK).await?;
        match body.get(1) {
            Some(0) => Ok(()),
            code => Err(LoadError::Refused { first: wire::CONNACK, code: code.copied().unwrap_or_default() }),
        }
    }

    /// Subscribes to one filter.
    pub(super) async fn subscribe(&mut self, filter: &str, qos: u8) -> Result<(), LoadError> {
        let mut request = vec![];
        wire::subscribe(&mut request, wire::Version::V3, filter, qos);
        self.send(&request).await?;
        let body = self.expect(wire::SUBACK).await?;
        match body.last() {
            Some(&granted) if granted == qos => Ok(()),
            code => Err(LoadError::Refused { first: wire::SUBACK, code: code.copied().unwrap_or_default() }),
        }
    }

    /// Waits until the broker has handled everything that was sent to it.
    pub(super) async fn ping(&mut self) -> Result<(), LoadError> {
        self.send(&[wire::PINGREQ, 0]).await?;
        self.expect(wire::PINGRESP).await.map(drop)
    }
}
