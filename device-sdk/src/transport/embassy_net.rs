//! TCP by `embassy-net`.

use crate::error::LinkError;
use crate::transport::{Connector, Link};
use embassy_net::Stack;
use embassy_net::dns::DnsQueryType;
use embassy_net::tcp::{ConnectError, TcpReader, TcpSocket, TcpWriter};
use embassy_time::Duration;

/// The other side of TCP has to acknowledge what was sent in this time.
const SILENCE: Duration = Duration::from_secs(60);

/// Connects to a broker by its name or IPv4 address.
pub struct TcpConnector<'m> {
    stack: Stack<'m>,
    host: &'m str,
    port: u16,
    rx: &'m mut [u8],
    tx: &'m mut [u8],
}

impl core::fmt::Debug for TcpConnector<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("TcpConnector").field("host", &self.host).field("port", &self.port).finish_non_exhaustive()
    }
}

impl<'m> TcpConnector<'m> {
    /// With buffers for the TCP window in each direction; 1 to 2 KiB are enough for a device.
    pub fn new(stack: Stack<'m>, host: &'m str, port: u16, rx: &'m mut [u8], tx: &'m mut [u8]) -> Self {
        Self { stack, host, port, rx, tx }
    }
}

impl Connector for TcpConnector<'_> {
    type Link<'a>
        = TcpSocket<'a>
    where
        Self: 'a;

    async fn connect(&mut self) -> Result<TcpSocket<'_>, LinkError> {
        self.stack.wait_config_up().await;
        // It knows an address where it sees one.
        let found = self.stack.dns_query(self.host, DnsQueryType::A).await;
        let address = found.ok().and_then(|all| all.first().copied()).ok_or(LinkError::NameUnknown)?;
        let mut socket = TcpSocket::new(self.stack, self.rx, self.tx);
        socket.set_timeout(Some(SILENCE));
        // What is written is a whole packet: waiting for more would only make it late.
        socket.set_nagle_enabled(false);
        match socket.connect((address, self.port)).await {
            Ok(()) => Ok(socket),
            Err(ConnectError::NoRoute) => Err(LinkError::NoNetwork),
            Err(ConnectError::TimedOut) => Err(LinkError::Timeout),
            Err(ConnectError::ConnectionReset | ConnectError::InvalidState) => Err(LinkError::Unreachable),
        }
    }
}

impl Link for TcpSocket<'_> {
    type Read<'a>
        = TcpReader<'a>
    where
        Self: 'a;
    type Write<'a>
        = TcpWriter<'a>
    where
        Self: 'a;

    fn split(&mut self) -> (TcpReader<'_>, TcpWriter<'_>) {
        TcpSocket::split(self)
    }
}
