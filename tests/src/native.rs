//! A raw client of the native link: frames over a blocking socket. That the bytes are what docs/protocol.md says is shown by
//! the golden vectors of the codec; here it is used to speak.

use crate::raw::PATIENCE;
use parlor_protocol::link::{Decoded, Down, LEVEL, SCHEMA, Secret, Up, decode_frame, encode, frame_len};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

/// One stream of frames.
pub struct Native {
    stream: TcpStream,
    input: Vec<u8>,
    /// Whole frames nobody has asked for.
    held: Vec<Vec<u8>>,
}

/// A Hello in the making, as `account` with the password of all accounts here.
pub fn hello<'a>(account: &'a str, terminal: &'a str, wants: u16) -> Up<'a> {
    Up::Hello {
        level: LEVEL,
        schema: SCHEMA,
        account,
        secret: Secret(crate::im::PASSWORD.as_bytes()),
        terminal,
        keep_alive_s: 60,
        expiry_s: 3_600,
        receive_max: 100,
        frame_max: 0,
        clean: false,
        wants,
        core_level: 0,
        platform: "",
        app: "",
    }
}

/// A frame with its length.
pub fn bytes(frame: &Up<'_>) -> Vec<u8> {
    let mut out = vec![];
    encode(frame, &mut out).expect("a frame of a test is short");
    out
}

impl Native {
    /// Opens a stream and says nothing: a TCP connection, or a stream of a QUIC connection ([`crate::quic::Stream`]).
    pub fn open(at: impl Into<SocketAddr>) -> Self {
        let stream = TcpStream::connect_timeout(&at.into(), PATIENCE).expect("the broker accepts connections");
        stream.set_nodelay(true).expect("TCP_NODELAY");
        stream.set_write_timeout(Some(PATIENCE)).expect("write timeout");
        Self { stream, input: vec![], held: vec![] }
    }

    /// Says Hello and is let in.
    pub fn enter(at: impl Into<SocketAddr>, hello: &Up<'_>) -> Self {
        let mut native = Self::open(at);
        native.say(hello);
        native.until("Welcome", |down| matches!(down, Down::Welcome { .. }).then_some(()));
        native
    }

    /// Sends bytes. A server that closes meanwhile is no error here; the next receive tells.
    pub fn send(&mut self, bytes: &[u8]) {
        match self.stream.write_all(bytes) {
            Ok(()) => {}
            Err(e) if matches!(e.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => {}
            Err(e) => panic!("could not send: {e}"),
        }
    }

    /// Sends a frame.
    pub fn say(&mut self, frame: &Up<'_>) {
        self.send(&bytes(frame));
    }

    /// Says that no more comes.
    pub fn finish(&mut self) {
        let _ = self.stream.shutdown(std::net::Shutdown::Write);
    }

    /// The next whole frame; nothing when the stream has ended.
    fn frame(&mut self) -> Option<Vec<u8>> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let length = frame_len(&self.input, u16::MAX).expect("the server sends good lengths");
            if let Some(length) = length.filter(|length| *length <= self.input.len()) {
                return Some(self.input.drain(..length).collect());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "no frame came in time");
            self.stream.set_read_timeout(Some(left)).expect("read timeout");
            let mut chunk = [0; 16_384];
            match self.stream.read(&mut chunk) {
                Ok(0) => {
                    assert!(self.input.is_empty(), "closed within a frame: {:02x?}", self.input);
                    return None;
                }
                Ok(count) => self.input.extend(&chunk[..count]),
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted) => {}
                Err(_) => return None,
            }
        }
    }

    /// The next frame that `pick` picks; others stay, in order, for later. What wants an acknowledgement gets it.
    #[track_caller]
    pub fn until<T>(&mut self, what: &str, mut pick: impl FnMut(&Down<'_>) -> Option<T>) -> T {
        for at in 0..self.held.len() {
            if let Some(found) = pick(&read(&self.held[at])) {
                self.held.remove(at);
                return found;
            }
        }
        loop {
            let Some(bytes) = self.frame() else {
                let held: Vec<Down<'_>> = self.held.iter().map(|bytes| read(bytes)).collect();
                panic!("{what} expected, and not the end after {held:?}");
            };
            let down = read(&bytes);
            let packet_id = acknowledge(&down);
            let found = pick(&down);
            if packet_id > 0 {
                self.say(&Up::Ack { packet_id });
            }
            match found {
                Some(found) => return found,
                None => self.held.push(bytes),
            }
        }
    }

    /// The broker has handled what was said before; frames that came meanwhile stay for later.
    #[track_caller]
    pub fn fence(&mut self) {
        self.say(&Up::Ping {});
        self.until("Pong", |down| matches!(down, Down::Pong {}).then_some(()));
    }

    /// Frames that came and nobody has asked for, as text.
    pub fn held(&self) -> Vec<String> {
        self.held.iter().map(|bytes| format!("{:?}", read(bytes))).collect()
    }

    /// The server ends the stream: the code and text of its Close, if it said one.
    #[track_caller]
    pub fn closed(&mut self) -> Option<(u8, String)> {
        let mut last = None;
        while let Some(bytes) = self.frame() {
            if let Down::Close { code, text } = read(&bytes) {
                last = Some((code, text.to_owned()));
            }
        }
        last
    }
}

/// A frame from the server, which a client of the same build knows.
pub fn read(bytes: &[u8]) -> Down<'_> {
    match decode_frame::<Down<'_>>(bytes, u16::MAX) {
        Ok(Some((Decoded::Frame(down), used))) if used == bytes.len() => down,
        other => panic!("the server sent a bad frame: {other:?}"),
    }
}

/// The packet identifier that has to be acknowledged; 0: none.
fn acknowledge(down: &Down<'_>) -> u16 {
    match *down {
        Down::Deliver { packet_id, .. }
        | Down::Sent { packet_id, .. }
        | Down::Receipt { packet_id, .. }
        | Down::Recall { packet_id, .. }
        | Down::Edit { packet_id, .. }
        | Down::Contact { packet_id, .. }
        | Down::Bounce { packet_id, .. }
        | Down::Gap { packet_id, .. }
        | Down::Head { packet_id, .. }
        | Down::Command { packet_id, .. }
        | Down::CommandResult { packet_id, .. }
        | Down::Presence { packet_id, .. }
        | Down::Publish { packet_id, .. } => packet_id,
        _ => 0,
    }
}
