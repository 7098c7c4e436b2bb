//! Lets the raw client speak over TLS and WebSocket, and from another address: a bridge for one connection.

pub use parlor_tests::ca::{Ca, Issued, der};

use super::tools::*;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// What lies between MQTT and the socket.
#[derive(Clone)]
pub struct Way {
    pub tls: Option<Arc<ClientConfig>>,
    /// Path of the WebSocket.
    pub websocket: Option<&'static str>,
    /// Address the connection comes from.
    pub from: Ipv4Addr,
}

impl Way {
    pub fn plain() -> Self {
        Self { tls: None, websocket: None, from: Ipv4Addr::LOCALHOST }
    }

    pub fn tls(config: &Arc<ClientConfig>) -> Self {
        Self { tls: Some(Arc::clone(config)), ..Self::plain() }
    }

    pub fn websocket(self) -> Self {
        Self { websocket: Some("/mqtt"), ..self }
    }

    pub fn from(self, from: Ipv4Addr) -> Self {
        Self { from, ..self }
    }

    /// Opens a connection to `target`; the first connection to the address that comes back goes through it.
    pub fn to(&self, target: SocketAddr) -> Bridge {
        let pipe = Arc::new(Pipe::open(self, target));
        let mut early = Vec::new();
        if let Some(path) = self.websocket {
            early = pipe.upgrade(path);
        }
        let server = pipe.tls.as_ref().and_then(|tls| {
            tls.lock().expect("no panic").peer_certificates()?.first().map(|found| found.clone().into_owned())
        });
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let at = listener.local_addr().expect("an address");
        let websocket = self.websocket.is_some();
        std::thread::spawn(move || {
            let Ok((local, _)) = listener.accept() else { return };
            let (back, other) = (local.try_clone().expect("a socket"), Arc::clone(&pipe));
            std::thread::spawn(move || other.outward(local, websocket));
            pipe.inward(back, websocket, early);
        });
        Bridge { at, server }
    }
}

/// One connection, ready for the raw client.
pub struct Bridge {
    at: SocketAddr,
    /// The certificate the server showed.
    pub server: Option<CertificateDer<'static>>,
}

impl From<&Bridge> for SocketAddr {
    fn from(bridge: &Bridge) -> Self {
        bridge.at
    }
}

struct Pipe {
    tcp: TcpStream,
    tls: Option<Mutex<ClientConnection>>,
}

impl Pipe {
    fn open(way: &Way, target: SocketAddr) -> Self {
        let socket = socket2::Socket::new(socket2::Domain::for_address(target), socket2::Type::STREAM, None);
        let socket = socket.expect("a socket");
        if target.is_ipv4() {
            socket.bind(&SocketAddr::from((way.from, 0)).into()).expect("an address of the loopback network");
        }
        socket.connect_timeout(&target.into(), PATIENCE).expect("the broker accepts connections");
        let mut tcp: TcpStream = socket.into();
        tcp.set_nodelay(true).expect("TCP_NODELAY");
        tcp.set_read_timeout(Some(PATIENCE)).expect("read timeout");
        let tls = way.tls.as_ref().map(|config| {
            let name = ServerName::try_from("localhost").expect("a name");
            let mut tls = ClientConnection::new(Arc::clone(config), name).expect("a client");
            while tls.is_handshaking() {
                tls.complete_io(&mut tcp).expect("the handshake is completed");
            }
            Mutex::new(tls)
        });
        tcp.set_read_timeout(None).expect("read timeout");
        Self { tcp, tls }
    }

    fn send(&self, bytes: &[u8]) -> std::io::Result<()> {
        let Some(tls) = &self.tls else { return (&self.tcp).write_all(bytes) };
        let mut tls = tls.lock().expect("no panic");
        tls.writer().write_all(bytes)?;
        while tls.wants_write() {
            tls.write_tls(&mut &self.tcp)?;
        }
        Ok(())
    }

    /// What comes next; `None` at the end, however it came.
    fn receive(&self) -> Option<Vec<u8>> {
        let mut input = vec![0; 16_384];
        loop {
            let count = (&self.tcp).read(&mut input).ok().filter(|count| *count > 0)?;
            let mut bytes = &input[..count];
            let Some(tls) = &self.tls else { return Some(bytes.to_vec()) };
            let mut plain = Vec::new();
            let mut tls = tls.lock().expect("no panic");
            while !bytes.is_empty() {
                tls.read_tls(&mut bytes).ok()?;
                let state = tls.process_new_packets().ok()?;
                let start = plain.len();
                plain.resize(start + state.plaintext_bytes_to_read(), 0);
                tls.reader().read_exact(&mut plain[start..]).ok()?;
                if state.peer_has_closed() && plain.is_empty() {
                    return None;
                }
            }
            if !plain.is_empty() {
                return Some(plain);
            }
        }
    }

    /// The WebSocket handshake (RFC 6455 s4.1) with the subprotocol [MQTT5-6.0.0-3]; what came behind it.
    fn upgrade(&self, path: &str) -> Vec<u8> {
        let head = format!(
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Protocol: mqtt\r\n\r\n"
        );
        self.send(head.as_bytes()).expect("sent");
        let mut answer = Vec::new();
        loop {
            if let Some(end) = answer.windows(4).position(|found| found == b"\r\n\r\n") {
                let rest = answer.split_off(end + 4);
                let head = String::from_utf8(answer).expect("HTTP is text").to_lowercase();
                assert!(head.starts_with("http/1.1 101 "), "{head}");
                assert!(head.contains("sec-websocket-protocol: mqtt\r\n"), "[MQTT5-6.0.0-4] {head}");
                return rest;
            }
            answer.extend(self.receive().expect("an answer"));
        }
    }

    /// From the raw client to the broker.
    fn outward(&self, mut local: TcpStream, websocket: bool) {
        let mut bytes = vec![0; 16_384];
        while let Ok(count) = local.read(&mut bytes)
            && count > 0
        {
            let sent = if websocket { self.send(&binary_frame(&bytes[..count])) } else { self.send(&bytes[..count]) };
            if sent.is_err() {
                break;
            }
        }
        let _ = self.tcp.shutdown(Shutdown::Write);
    }

    /// From the broker to the raw client.
    fn inward(&self, mut local: TcpStream, websocket: bool, mut held: Vec<u8>) {
        loop {
            let (ready, over) = if websocket { frames(&mut held) } else { (std::mem::take(&mut held), false) };
            if local.write_all(&ready).is_err() || over {
                break;
            }
            let Some(more) = self.receive() else { break };
            held.extend(more);
        }
        let _ = local.shutdown(Shutdown::Write);
    }
}

/// A masked binary frame (RFC 6455 s5.2).
fn binary_frame(payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).expect("a piece is short");
    let mut frame = vec![0x82, 0x80 | 0x7E];
    frame.extend(length.to_be_bytes());
    let mask = [0x12, 0x34, 0x56, 0x78];
    frame.extend(mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// Takes every whole frame out of `held`: what they carry, and whether one says that it is over.
fn frames(held: &mut Vec<u8>) -> (Vec<u8>, bool) {
    let mut out = Vec::new();
    loop {
        let (start, length) = match held.get(1) {
            Some(126) if held.len() >= 4 => (4, usize::from(u16::from_be_bytes([held[2], held[3]]))),
            Some(127) if held.len() >= 10 => {
                (10, usize::try_from(u64::from_be_bytes(held[2..10].try_into().expect("eight bytes"))).expect("short"))
            }
            Some(length @ 0..=125) => (2, usize::from(*length)),
            _ => return (out, false),
        };
        if held.len() < start + length {
            return (out, false);
        }
        match held[0] & 0x0F {
            2 | 0 => out.extend(&held[start..start + length]),
            8 => return (out, true),
            _ => {}
        }
        held.drain(..start + length);
    }
}
