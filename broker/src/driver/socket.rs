//! What a connection's bytes come from and go to: a TCP socket, or a stream of a QUIC connection.

use crate::link::{QuicConnection, QuicStream, close_code};
use parlor_protocol::mqtt::ReasonCode;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::TcpStream;

/// Why a connection ends, for transports that say it beside MQTT.
pub(super) type Farewell = Option<(ReasonCode, Box<str>)>;

/// Bytes both ways, without blocking.
#[derive(Debug)]
pub(super) enum Socket {
    /// TCP.
    Tcp(TcpStream),
    /// The stream that a QUIC connection lives and ends with.
    Control(Box<QuicStream>, Farewell),
    /// Another stream of it.
    Stream(Box<QuicStream>),
    /// Its datagrams, written only: what comes is handed in as it comes. A frame with its length becomes one.
    Datagrams(QuicConnection),
}

impl Socket {
    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Control(stream, _) | Self::Stream(stream) => stream.poll_read(cx, buffer),
            Self::Datagrams(_) => Poll::Pending,
        }
    }

    /// Writes what there is room for; without room the error is `WouldBlock`, and `waker` is called later, or
    /// [`Self::poll_write_ready`] is ready.
    pub(super) fn try_write(&mut self, waker: &Waker, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.try_write(bytes),
            Self::Control(stream, _) | Self::Stream(stream) => stream.try_write(waker, bytes),
            Self::Datagrams(connection) => {
                send_datagrams(connection, bytes);
                Ok(bytes.len())
            }
        }
    }

    /// Whether the task has to wait for room by [`Self::poll_write_ready`]. A QUIC stream that had none wakes it by itself, as
    /// [`Self::try_write`] was told.
    pub(super) fn is_waited_for(&self) -> bool {
        matches!(self, Self::Tcp(_))
    }

    /// Whether it is worth trying to write again. A QUIC stream is tried whenever its task is woken.
    pub(super) fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => stream.poll_write_ready(cx),
            Self::Control(..) | Self::Stream(_) | Self::Datagrams(_) => Poll::Ready(Ok(())),
        }
    }

    /// Nothing more will be written; the farewell is said when the peer has taken what was.
    pub(super) fn finish(&mut self, farewell: Farewell) {
        if let Self::Control(_, kept) = self {
            *kept = farewell;
        }
        match self {
            Self::Tcp(stream) => {
                let _ = socket2::SockRef::from(&*stream).shutdown(std::net::Shutdown::Write);
            }
            Self::Control(stream, _) | Self::Stream(stream) => stream.finish(),
            Self::Datagrams(_) => {}
        }
    }

    /// For QUIC: ready when the peer has taken everything that was written.
    pub(super) fn poll_taken(&self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::Tcp(_) => Poll::Pending,
            Self::Control(stream, _) | Self::Stream(stream) => stream.poll_taken(cx),
            Self::Datagrams(_) => Poll::Ready(()),
        }
    }

    /// Ends the connection behind a control stream, with this farewell or the one of before; the others end with their
    /// last half.
    pub(super) fn close(&self, farewell: Option<&(ReasonCode, Box<str>)>) {
        if let Self::Control(stream, kept) = self {
            let (reason, text) = farewell.or(kept.as_ref()).map_or((ReasonCode::SUCCESS, ""), |(r, text)| (*r, text));
            stream.connection().close(close_code(reason), text.as_bytes());
        }
    }

    /// Whether it is a stream beside the control stream.
    pub(super) fn is_further_stream(&self) -> bool {
        matches!(self, Self::Stream(_))
    }

    /// The QUIC connection of a control stream.
    pub(super) fn connection(&self) -> Option<&QuicConnection> {
        match self {
            Self::Control(stream, _) => Some(stream.connection()),
            _ => None,
        }
    }

    /// The QUIC connection that must be asked to send what was written.
    pub(super) fn carrier(&self) -> Option<&QuicConnection> {
        match self {
            Self::Tcp(_) => None,
            Self::Control(stream, _) | Self::Stream(stream) => Some(stream.connection()),
            Self::Datagrams(connection) => Some(connection),
        }
    }
}

/// Sends each frame in `bytes`, without its length, as a datagram. Those that no longer fit the path, or for which there is no
/// room, are lost, as datagrams may be.
fn send_datagrams(connection: &QuicConnection, mut bytes: &[u8]) {
    while let Some((length, rest)) = bytes.split_first_chunk::<2>() {
        let Some((frame, rest)) = rest.split_at_checked(u16::from_be_bytes(*length).into()) else { break };
        connection.send_datagram(frame);
        bytes = rest;
    }
}
