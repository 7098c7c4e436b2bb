//! A bare connection: packets one after the other, and no complaint when it ends.

use crate::raw::{Connect, Packet, Version, frame_length, parse_packet};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// The connection is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended;

/// One connection.
pub struct Link {
    stream: TcpStream,
    version: Version,
    input: Vec<u8>,
}

impl Link {
    /// Connects, and is let in; the answer with it.
    ///
    /// # Errors
    ///
    /// When the connection ends before.
    pub fn open(to: SocketAddr, connect: &Connect, patience: Duration) -> Result<(Self, Packet), Ended> {
        let stream = TcpStream::connect_timeout(&to, patience).map_err(|_| Ended)?;
        stream.set_nodelay(true).map_err(|_| Ended)?;
        stream.set_write_timeout(Some(patience)).map_err(|_| Ended)?;
        let mut link = Self { stream, version: connect.version(), input: vec![] };
        link.send(&connect.bytes())?;
        let connack = link.packet(patience)?.ok_or(Ended)?;
        Ok((link, connack))
    }

    /// Version that packets are in.
    pub fn version(&self) -> Version {
        self.version
    }

    /// Sends bytes.
    ///
    /// # Errors
    ///
    /// When the connection is over.
    pub fn send(&mut self, bytes: &[u8]) -> Result<(), Ended> {
        self.stream.write_all(bytes).map_err(|_| Ended)
    }

    /// The next packet; nothing when none is complete within `patience`.
    ///
    /// # Errors
    ///
    /// When the connection is over.
    ///
    /// # Panics
    ///
    /// When what came is no packet that a server sends.
    pub fn packet(&mut self, patience: Duration) -> Result<Option<Packet>, Ended> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(length) = frame_length(&self.input)
                && self.input.len() >= length
            {
                let packet = parse_packet(self.version, &self.input[..length]);
                self.input.drain(..length);
                return Ok(Some(packet.unwrap_or_else(|why| panic!("the server sent a bad packet: {why}"))));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            self.stream.set_read_timeout(Some(left)).map_err(|_| Ended)?;
            let mut chunk = [0; 16 * 1024];
            match self.stream.read(&mut chunk) {
                Ok(count) if count > 0 => self.input.extend_from_slice(&chunk[..count]),
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted) => {}
                _ => return Err(Ended),
            }
        }
    }
}
