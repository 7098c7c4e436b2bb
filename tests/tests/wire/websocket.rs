//! MQTT over WebSocket (chapter 6), with the client's side of RFC 6455 written out.

use super::common::*;
use std::io::{Read, Write};
use std::net::TcpStream;

/// A WebSocket connection past its handshake.
struct Socket {
    stream: TcpStream,
    input: Vec<u8>,
}

/// A frame from the server: opcode and payload.
type Frame = (u8, Vec<u8>);

/// Reads the head of the HTTP answer; what follows it stays in the second value.
fn head(stream: &mut TcpStream) -> (String, Vec<u8>) {
    let mut bytes = Vec::new();
    let mut chunk = [0; 4_096];
    loop {
        if let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            let rest = bytes.split_off(end + 4);
            return (String::from_utf8(bytes).expect("HTTP is text"), rest);
        }
        match stream.read(&mut chunk).expect("an answer in time") {
            0 => return (String::from_utf8_lossy(&bytes).into_owned(), Vec::new()),
            count => bytes.extend(&chunk[..count]),
        }
    }
}

fn request(own: &Broker, path: &str, protocol: Option<&str>) -> (TcpStream, String, Vec<u8>) {
    let mut stream = TcpStream::connect(own.address("ws")).expect("the broker accepts connections");
    stream.set_read_timeout(Some(PATIENCE)).expect("read timeout");
    let protocol = protocol.map(|p| format!("Sec-WebSocket-Protocol: {p}\r\n")).unwrap_or_default();
    // Key and answer are the example of RFC 6455 section 1.3.
    let text = format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{protocol}\r\n"
    );
    stream.write_all(text.as_bytes()).expect("sent");
    let (head, rest) = head(&mut stream);
    (stream, head, rest)
}

impl Socket {
    fn open(own: &Broker) -> Self {
        let (stream, head, input) = request(own, "/mqtt", Some("mqtt"));
        let lower = head.to_lowercase();
        assert!(head.starts_with("HTTP/1.1 101"), "{head}");
        assert!(head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{head}");
        assert!(lower.contains("sec-websocket-protocol: mqtt\r\n"), "[MQTT5-6.0.0-4] {head}");
        Self { stream, input }
    }

    fn send(&mut self, opcode: u8, last: bool, payload: &[u8]) {
        let mut frame = vec![u8::from(last) << 7 | opcode];
        match u16::try_from(payload.len()) {
            Ok(length @ 0..126) => frame.push(0x80 | u8::try_from(length).expect("below 126")),
            Ok(length) => {
                frame.push(0x80 | 0x7E);
                frame.extend(length.to_be_bytes());
            }
            Err(_) => {
                frame.push(0x80 | 0x7F);
                frame.extend((payload.len() as u64).to_be_bytes());
            }
        }
        let mask = [0x12, 0x34, 0x56, 0x78];
        frame.extend(mask);
        frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        let _ = self.stream.write_all(&frame);
    }

    fn need(&mut self, count: usize) -> Option<()> {
        let mut chunk = [0; 16_384];
        while self.input.len() < count {
            match self.stream.read(&mut chunk) {
                Ok(0) => return None,
                Ok(got) => self.input.extend(&chunk[..got]),
                Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => return None,
                Err(e) => panic!("a frame or the end expected: {e}"),
            }
        }
        Some(())
    }

    /// The next frame; `None` at the end.
    fn frame(&mut self) -> Option<Frame> {
        self.need(2)?;
        let (first, second) = (self.input[0], self.input[1]);
        assert_eq!(second & 0x80, 0, "a server does not mask (RFC 6455 s5.1)");
        assert_eq!(first & 0xF0, 0x80, "this broker sends whole messages");
        let (start, length) = match second {
            126 => {
                self.need(4)?;
                (4, usize::from(u16::from_be_bytes([self.input[2], self.input[3]])))
            }
            127 => {
                self.need(10)?;
                let bytes: [u8; 8] = self.input[2..10].try_into().expect("eight bytes");
                (10, usize::try_from(u64::from_be_bytes(bytes)).expect("small"))
            }
            length => (2, usize::from(length)),
        };
        self.need(start + length)?;
        let payload = self.input[start..start + length].to_vec();
        self.input.drain(..start + length);
        Some((first & 0x0F, payload))
    }

    /// The bytes of the next `count` bytes of MQTT, from as many binary frames as it takes [MQTT5-6.0.0-1].
    fn mqtt(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        while bytes.len() < count {
            let (opcode, payload) = self.frame().expect("a frame");
            assert_eq!(opcode, 2, "[MQTT5-6.0.0-1]");
            bytes.extend(payload);
        }
        assert_eq!(bytes.len(), count, "{bytes:02x?}");
        bytes
    }

    /// What comes until the end: opcodes.
    fn opcodes_to_the_end(&mut self) -> Vec<u8> {
        let mut opcodes = Vec::new();
        while let Some((opcode, _)) = self.frame() {
            opcodes.push(opcode);
        }
        opcodes
    }
}

fn with_websocket() -> Option<Broker> {
    Broker::own(&["--listen", "ws://127.0.0.1:0/mqtt"])
}

/// Packets in frames of their own, several in one frame, one over many frames, and a message in fragments
/// [MQTT5-6.0.0-1] [MQTT5-6.0.0-2] [MQTT5-6.0.0-4] [MQTT3-6.0.0-1] [MQTT3-6.0.0-2] [MQTT3-6.0.0-4].
#[test]
fn packets_and_frames_are_independent() {
    let Some(own) = with_websocket() else { return };
    let mut socket = Socket::open(&own);
    socket.send(2, true, &Connect::v311("ws").bytes());
    assert_eq!(socket.mqtt(4), [0x20, 2, 0, 0]);
    socket.send(2, true, &[0xC0, 0].repeat(3));
    assert_eq!(socket.mqtt(6), [0xD0, 0].repeat(3));
    for byte in [0xC0, 0, 0xC0, 0] {
        socket.send(2, true, &[byte]);
    }
    assert_eq!(socket.mqtt(4), [0xD0, 0].repeat(2));
    socket.send(2, false, &[0xC0]);
    socket.send(9, true, b"are you there");
    socket.send(0, false, &[0, 0xC0]);
    socket.send(0, true, &[0]);
    let mut pongs = 0;
    let mut bytes = Vec::new();
    while bytes.len() < 4 || pongs < 1 {
        match socket.frame().expect("a frame") {
            (10, payload) => {
                assert_eq!(payload, b"are you there");
                pongs += 1;
            }
            (2, payload) => bytes.extend(payload),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(bytes, [0xD0, 0].repeat(2));
    // Large payloads, in and out.
    let mut sub = Connect::v5("sub").to(&own);
    sub.subscribe("t", 0);
    let large = Publish::new("t", vec![7; 200_000]).bytes(V311);
    for part in large.chunks(70_000) {
        socket.send(2, true, part);
    }
    assert_eq!(sub.message().payload.len(), 200_000);
    let subscribe = frame(0x82, [&[0, 9], field("u").as_slice(), &[0]].concat());
    socket.send(2, true, &subscribe);
    assert_eq!(socket.mqtt(5), [0x90, 3, 0, 9, 0]);
    sub.say(0, "u", vec![7; 200_000]);
    let expected = Publish::new("u", vec![7; 200_000]).bytes(V311);
    assert!(socket.mqtt(expected.len()) == expected);
}

/// Any other data frame ends the connection [MQTT5-6.0.0-1] [MQTT3-6.0.0-1].
#[test]
fn text_frames_end_the_connection() {
    let Some(own) = with_websocket() else { return };
    let mut before = Socket::open(&own);
    before.send(1, true, &Connect::v311("ws").bytes()[..1]);
    assert!(!before.opcodes_to_the_end().contains(&2));
    let mut after = Socket::open(&own);
    after.send(2, true, &Connect::v311("ws").bytes());
    assert_eq!(after.mqtt(4), [0x20, 2, 0, 0]);
    after.send(1, true, b"\xC0");
    assert!(!after.opcodes_to_the_end().contains(&2));
}

/// Frames that are not masked, reserved bits and opcodes, oversized control frames end the connection (RFC 6455 s5).
#[test]
fn malformed_frames_end_the_connection() {
    let Some(own) = with_websocket() else { return };
    for frame in [
        vec![0x82, 2, 0xC0, 0],
        vec![0xC2, 0x82, 0, 0, 0, 0, 0xC0, 0],
        vec![0x83, 0x82, 0, 0, 0, 0, 0xC0, 0],
        vec![0x80, 0x82, 0, 0, 0, 0, 0xC0, 0],
        vec![0x89, 0xFE, 1, 0, 0, 0, 0, 0],
        vec![0x82, 0xFF, 0x7F, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0],
    ] {
        let mut socket = Socket::open(&own);
        socket.send(2, true, &Connect::v311("ws").bytes());
        assert_eq!(socket.mqtt(4), [0x20, 2, 0, 0]);
        socket.stream.write_all(&frame).expect("sent");
        let opcodes = socket.opcodes_to_the_end();
        assert!(!opcodes.contains(&2), "{frame:02x?}: {opcodes:?}");
    }
}

/// A close frame is answered with one and ends the connection as a broken one does: the will is published.
#[test]
fn close_frame_ends_the_connection() {
    let Some(own) = with_websocket() else { return };
    let mut sub = Connect::v5("sub").to(&own);
    sub.subscribe("will", 0);
    let mut socket = Socket::open(&own);
    socket.send(2, true, &Connect::v311("ws").will(Publish::new("will", "gone")).bytes());
    assert_eq!(socket.mqtt(4), [0x20, 2, 0, 0]);
    socket.send(8, true, &1_000_u16.to_be_bytes());
    assert_eq!(socket.opcodes_to_the_end(), [8]);
    assert_eq!(sub.message().text(), "gone");
}

/// Handshakes that are none: another path, another subprotocol, plain HTTP, plain MQTT, an endless header.
#[test]
fn bad_handshakes_are_refused() {
    let Some(own) = with_websocket() else { return };
    let (_, head, _) = request(&own, "/elsewhere", Some("mqtt"));
    assert!(head.starts_with("HTTP/1.1 4"), "{head}");
    let (_, head, _) = request(&own, "/mqtt", Some("chat"));
    assert!(!head.to_lowercase().contains("sec-websocket-protocol: chat"), "{head}");
    let (_, head, _) = request(&own, "/mqtt", Some("mqttv3.1, mqtt"));
    assert!(head.to_lowercase().contains("sec-websocket-protocol: mqtt\r\n"), "{head}");
    let endless = [b"GET /mqtt HTTP/1.1\r\nX: ".as_slice(), &vec![b'x'; 200_000]].concat();
    for bytes in [b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(), Connect::v311("c").bytes(), endless] {
        let mut c = Client::open(own.address("ws"), V311);
        c.name = format!("{:02x?}…", &bytes[..8]);
        c.send(&bytes);
        let answer = c.rest();
        assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 4"), "{}", String::from_utf8_lossy(&answer));
    }
    Socket::open(&own);
}
