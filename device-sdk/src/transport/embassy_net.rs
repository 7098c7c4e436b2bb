//! TCP by `embassy-net`.

use super::{Connector, Link};
use crate::error::LinkError;
use core::net::Ipv4Addr;
use embassy_net::dns::DnsQueryType;
use embassy_net::tcp::{ConnectError, TcpReader, TcpSocket, TcpWriter};
use embassy_net::{IpAddress, Stack};
use embassy_time::Duration;

/// Something that was sent has to be acknowledged by the broker's side of TCP in this time.
const SILENCE: Duration = Duration::from_secs(60);

/// Connects to the broker over TCP. `RX` and `TX` are the buffers of TCP: a board that is sent little does with 536 each.
pub struct TcpConnector<'a, const RX: usize, const TX: usize> {
    stack: Stack<'a>,
    host: &'a str,
    port: u16,
    rx: [u8; RX],
    tx: [u8; TX],
}

impl<const RX: usize, const TX: usize> core::fmt::Debug for TcpConnector<'_, RX, TX> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("TcpConnector").field("host", &self.host).field("port", &self.port).finish_non_exhaustive()
    }
}

impl<'a, const RX: usize, const TX: usize> TcpConnector<'a, RX, TX> {
    /// To a host, by name or as `192.168.1.10`, and a port: 1883 for MQTT, 1884 for the native link.
    pub const fn new(stack: Stack<'a>, host: &'a str, port: u16) -> Self {
        Self { stack, host, port, rx: [0; RX], tx: [0; TX] }
    }
}

impl<const RX: usize, const TX: usize> Connector for TcpConnector<'_, RX, TX> {
    type Link<'b>
        = TcpSocket<'b>
    where
        Self: 'b;

    async fn connect(&mut self) -> Result<TcpSocket<'_>, LinkError> {
        let addr = resolve(self.stack, self.host).await?;
        let mut socket = TcpSocket::new(self.stack, &mut self.rx, &mut self.tx);
        socket.set_timeout(Some(SILENCE));
        match socket.connect((addr, self.port)).await {
            Ok(()) => Ok(socket),
            Err(ConnectError::TimedOut) => Err(LinkError::Timeout),
            Err(ConnectError::NoRoute) => Err(LinkError::NoNetwork),
            Err(_) => Err(LinkError::Unreachable),
        }
    }
}

/// The address of a host, as soon as there is a network.
pub async fn resolve(stack: Stack<'_>, host: &str) -> Result<IpAddress, LinkError> {
    stack.wait_config_up().await;
    if let Ok(addr) = host.parse::<Ipv4Addr>() {
        return Ok(IpAddress::Ipv4(addr));
    }
    let found = stack.dns_query(host, DnsQueryType::A).await.map_err(|_| LinkError::NameUnknown)?;
    found.first().copied().ok_or(LinkError::NameUnknown)
}

impl Link for TcpSocket<'_> {
    type Read<'b>
        = TcpReader<'b>
    where
        Self: 'b;
    type Write<'b>
        = TcpWriter<'b>
    where
        Self: 'b;

    fn split(&mut self) -> (TcpReader<'_>, TcpWriter<'_>) {
        TcpSocket::split(self)
    }
}
