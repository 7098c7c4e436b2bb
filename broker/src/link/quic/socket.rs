//! One bidirectional stream of a QUIC connection, read and written like a socket that does not block.

use parlor_protocol::mqtt::ReasonCode;
use quinn::{Connection, RecvStream, SendStream, VarInt};
use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use tokio::io::{AsyncRead, ReadBuf};

/// ALPN of the native link.
pub const NATIVE_ALPN: &str = "parlor/1";

/// A stream, and the connection it belongs to.
#[derive(Debug)]
pub struct QuicStream {
    send: SendStream,
    recv: RecvStream,
    connection: Connection,
}

impl QuicStream {
    /// The two halves of a stream of `connection`.
    pub fn new(connection: Connection, send: SendStream, recv: RecvStream) -> Self {
        Self { send, recv, connection }
    }

    /// Its connection.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Reads what has come. Nothing read: the peer has ended its half.
    pub fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.recv).poll_read(cx, buffer)
    }

    /// Writes as much as flow control and the bounds of the connection allow; `waker` is called when there is room again.
    pub fn try_write(&mut self, waker: &Waker, bytes: &[u8]) -> io::Result<usize> {
        match Pin::new(&mut self.send).poll_write(&mut Context::from_waker(waker), bytes) {
            Poll::Ready(written) => written.map_err(Into::into),
            Poll::Pending => Err(ErrorKind::WouldBlock.into()),
        }
    }

    /// Says that nothing more will be written.
    pub fn finish(&mut self) {
        // It may have been stopped or ended by the peer: then there is nobody to tell.
        let _ = self.send.finish();
    }

    /// Ends when the peer has everything that was written, or never will.
    pub fn taken(&self) -> impl Future<Output = ()> + 'static {
        let stopped = self.send.stopped();
        async move {
            let _ = stopped.await;
        }
    }

    /// Ends the whole connection with an application error code and a reason (RFC 9000 s10.2).
    pub fn close(&self, reason: ReasonCode, text: &str) {
        self.connection.close(close_code(reason), text.as_bytes());
    }
}

/// The application error code of QUIC that stands for a reason code of MQTT: the same number.
pub fn close_code(reason: ReasonCode) -> VarInt {
    VarInt::from_u32(u32::from(reason.0))
}
