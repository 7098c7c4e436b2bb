//! One connection with a blocking socket: what happens once, before or beside a load.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use crate::wire::{self, Keep, Malformed, Version};

/// How long the broker may take to answer a CONNECT or SUBSCRIBE.
const ANSWER_SECS: u64 = 10;

/// A load could not be run to its end.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A socket failed.
    #[error("a connection failed: {0}")]
    Socket(#[from] io::Error),
    /// The broker sent something that is not MQTT.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// The broker ended a connection.
    #[error("the broker closed a connection; its log says why")]
    Closed,
    /// The broker said no.
    #[error("the broker answered packet type {first:#04x} with reason code {code:#04x}")]
    Refused {
        /// First byte of the answer.
        first: u8,
        /// The code in it.
        code: u8,
    },
    /// The broker has gone silent.
    #[error("the broker left a CONNECT or PINGREQ unanswered for too long")]
    Unanswered,
    /// The time allowed for the load is over.
    #[error("the load was not done after {0} s; it counts as failed")]
    TooSlow(u64),
}

/// Connects and waits for the answer.
pub fn open(broker: SocketAddr, version: Version, client_id: &str, keep: Keep) -> Result<TcpStream, LoadError> {
    let mut stream = TcpStream::connect(broker)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(ANSWER_SECS)))?;
    let mut hello = vec![];
    wire::connect(&mut hello, version, client_id, keep);
    stream.write_all(&hello)?;
    let (first, body) = read_packet(&mut stream)?;
    match body.get(1) {
        Some(0) if first == wire::CONNACK => Ok(stream),
        code => Err(LoadError::Refused { first, code: code.copied().unwrap_or_default() }),
    }
}

/// Subscribes to one filter and waits for the answer.
pub fn subscribe(stream: &mut TcpStream, version: Version, filter: &str, qos: u8) -> Result<(), LoadError> {
    let mut request = vec![];
    wire::subscribe(&mut request, version, filter, qos);
    stream.write_all(&request)?;
    let (first, body) = read_packet(stream)?;
    match body.last() {
        Some(&granted) if first == wire::SUBACK && granted == qos => Ok(()),
        code => Err(LoadError::Refused { first, code: code.copied().unwrap_or_default() }),
    }
}

/// Leaves a kept session behind that is subscribed to `filter`.
pub fn leave_session(broker: SocketAddr, version: Version, client_id: &str, filter: &str) -> Result<(), LoadError> {
    let mut stream = open(broker, version, client_id, Keep::Session)?;
    subscribe(&mut stream, version, filter, 1)?;
    let mut bye = vec![];
    wire::disconnect(&mut bye);
    stream.write_all(&bye)?;
    // The broker closes; until it has, it may take the session for connected.
    stream.shutdown(Shutdown::Write)?;
    match stream.read(&mut [0; 16]) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Reads exactly one packet from a blocking socket: its first byte and its body.
fn read_packet(stream: &mut TcpStream) -> Result<(u8, Vec<u8>), LoadError> {
    let mut head = vec![0; 2];
    stream.read_exact(&mut head)?;
    let (len, _) = loop {
        if let Some(read) = wire::varint(&head[1..])? {
            break read;
        }
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        head.extend_from_slice(&byte);
    };
    let mut body = vec![0; len];
    stream.read_exact(&mut body)?;
    Ok((head[0], body))
}
