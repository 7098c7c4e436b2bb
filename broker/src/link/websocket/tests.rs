use super::super::fixture::{Noise, Socket};
use super::super::layer::{Layer, LayerError};
use super::*;
use std::io::{Read, Write};
use tungstenite::client::{ClientRequestBuilder, IntoClientRequest};
use tungstenite::protocol::frame::Utf8Bytes;
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tungstenite::{Message, WebSocket};

fn socket(options: WsOptions, chunk: usize) -> Socket {
    Socket::new(Layer::WebSocket(Box::new(WsLayer::new(Arc::new(options)))), chunk)
}

fn request() -> ClientRequestBuilder {
    ClientRequestBuilder::new("ws://localhost/mqtt".parse().unwrap()).with_sub_protocol("mqtt")
}

fn connect(socket: Socket) -> WebSocket<Socket> {
    tungstenite::client(request(), socket).unwrap().0
}

/// A masked frame.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        length @ 0..=125 => frame.push(0x80 | u8::try_from(length).unwrap()),
        length => {
            frame.push(0xFE);
            frame.extend(u16::try_from(length).unwrap().to_be_bytes());
        }
    }
    frame.extend([1, 2, 3, 4]);
    frame.extend(payload.iter().zip([1, 2, 3, 4].into_iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

const HEAD: &str = "GET /mqtt HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n";

/// A socket past its upgrade, whose answer has been read.
fn open(options: WsOptions, chunk: usize) -> Socket {
    let mut socket = socket(options, chunk);
    socket.write_all(HEAD.as_bytes()).unwrap();
    assert!(socket.layer.is_ready());
    let length = socket.unread().len();
    socket.read_exact(&mut vec![0; length]).unwrap();
    socket
}

#[test]
fn the_upgrade_is_answered_with_key_and_subprotocol() {
    // [MQTT5-6.0.0-3] [MQTT5-6.0.0-4] [MQTT3-6.0.0-3] [MQTT3-6.0.0-4]; the key is the example of RFC 6455 s1.3.
    let check = |offer: &str, chosen: &str| {
        let mut socket = socket(WsOptions::default(), usize::MAX);
        let head = HEAD.replace("Sec-WebSocket-Protocol: mqtt\r\n", offer);
        socket.write_all(head.as_bytes()).unwrap();
        let answer = std::str::from_utf8(socket.unread()).unwrap();
        assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
        assert!(answer.contains("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"), "{answer}");
        assert!(answer.contains(&format!("Sec-WebSocket-Protocol: {chosen}\r\n")), "{answer}");
        assert!(answer.ends_with("\r\n\r\n"));
    };
    check("Sec-WebSocket-Protocol: mqtt\r\n", "mqtt");
    check("sec-websocket-protocol: mqttv3.1\r\n", "mqttv3.1");
    check("Sec-WebSocket-Protocol: mqttv3.1, mqtt\r\n", "mqtt");
    check("Sec-WebSocket-Protocol: chat\r\nSec-WebSocket-Protocol: mqtt\r\n", "mqtt");
}

#[test]
fn a_wrong_request_is_told_what_is_wrong() {
    let check_with = |options: WsOptions, from: &str, to: &str, status: &str, error: WsError| {
        for chunk in [1, usize::MAX] {
            let mut socket = socket(options.clone(), chunk);
            let head = HEAD.replacen(from, to, 1);
            assert!(head != HEAD || from == to);
            socket.write_all(head.as_bytes()).unwrap();
            assert_eq!(socket.outcome, Err(LayerError::WebSocket(error)), "{head}");
            let answer = std::str::from_utf8(socket.unread()).unwrap();
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            assert!(head.contains("Connection: close"), "{answer}");
            assert!(head.contains(&format!("Content-Length: {}", body.len())), "{answer}");
            assert!(body.len() > 20, "the body says something: {answer}");
            assert!(socket.plain.is_empty() && !socket.layer.is_ready());
        }
    };
    let check = |from, to, status, error| check_with(WsOptions::default(), from, to, status, error);
    check("/mqtt", "/", "404", WsError::WrongPath);
    check("/mqtt", "/mqtt/", "404", WsError::WrongPath);
    check("/mqtt", "/chat", "404", WsError::WrongPath);
    check("Upgrade: websocket\r\n", "", "426", WsError::NotUpgrade);
    check("GET", "POST", "405", WsError::NotGet);
    check("HTTP/1.1", "HTTP/1.0", "505", WsError::NotHttp11);
    check("HTTP/1.1", "HTTP/3.7", "400", WsError::BadRequest);
    check("Version: 13", "Version: 8", "426", WsError::WrongVersion);
    check("Sec-WebSocket-Version: 13\r\n", "", "426", WsError::WrongVersion);
    check("dGhlIHNhbXBsZSBub25jZQ==", "short", "400", WsError::BadKey);
    check("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25j\u{e9}==", "400", WsError::BadKey);
    check("Sec-WebSocket-Key:", "X-Key:", "400", WsError::BadKey);
    check("Protocol: mqtt\r\n", "Protocol: chat\r\n", "400", WsError::NoSubprotocol);
    check("Sec-WebSocket-Protocol: mqtt\r\n", "", "400", WsError::NoSubprotocol);
    check("Host: h\r\n", "", "400", WsError::BadRequest);
    check("Host: h\r\n", "Host: h\r\nContent-Length: 5\r\n", "400", WsError::BadRequest);
    check("Host: h\r\n", "Host\r\n", "400", WsError::BadRequest);
    let many = format!("Host: h\r\n{}", "A: b\r\n".repeat(HEADERS_MAX));
    check("Host: h\r\n", &many, "431", WsError::HeadTooLarge);
    let long = format!("Host: h\r\nCookie: {}\r\n", "c".repeat(HEAD_BYTES_MAX));
    check("Host: h\r\n", &long, "431", WsError::HeadTooLarge);
    let home = WsOptions { origins: vec!["https://home.example".to_owned()], ..WsOptions::default() };
    check_with(home.clone(), "Host: h", "Origin: https://evil.example\r\nHost: h", "403", WsError::WrongOrigin);
    let mut socket = socket(home.clone(), 1);
    socket.write_all(HEAD.replacen("Host: h", "Origin: https://home.example\r\nHost: h", 1).as_bytes()).unwrap();
    assert!(socket.layer.is_ready());
    assert!(open(home, 1).layer.is_ready(), "no Origin, no browser");
}

#[test]
fn a_browser_that_looks_around_is_told_what_this_is() {
    for path in ["/", "/mqtt", "/mqtt?x=y"] {
        let mut socket = socket(WsOptions::default(), 1);
        socket.write_all(format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n").as_bytes()).unwrap();
        let answer = std::str::from_utf8(socket.unread()).unwrap();
        assert!(answer.starts_with("HTTP/1.1 426 ") && answer.contains("MQTT broker"), "{answer}");
        assert!(answer.contains("ws://HOST/mqtt"), "{answer}");
    }
}

#[test]
fn what_is_not_http_is_refused_at_its_first_byte() {
    for first in [b"\x10", b"\x16", b"\x00", b"\r"] {
        let mut socket = socket(WsOptions::default(), 1);
        socket.write_all(first).unwrap();
        assert_eq!(socket.outcome, Err(LayerError::WebSocket(WsError::NotHttp)));
    }
}

#[test]
fn a_head_that_never_ends_is_cut_off() {
    let mut socket = socket(WsOptions::default(), 100);
    socket.write_all(b"GET /mqtt HTTP/1.1\r\n").unwrap();
    while socket.outcome == Ok(Received::Open) {
        let Layer::WebSocket(ws) = &socket.layer else { panic!("not WebSocket") };
        let State::Upgrading { head, .. } = &ws.state else { panic!("no upgrade") };
        assert!(head.len() < HEAD_BYTES_MAX);
        socket.write_all(b"A: bcdefgh\r\n").unwrap();
    }
    assert_eq!(socket.outcome, Err(LayerError::WebSocket(WsError::HeadTooLarge)));
}

#[test]
fn packets_span_frames_and_frames_hold_packets() {
    // [MQTT5-6.0.0-1] [MQTT5-6.0.0-2] [MQTT3-6.0.0-1] [MQTT3-6.0.0-2]
    let text = Noise(3).bytes(200_000);
    for chunk in [1, 3, 1000, usize::MAX] {
        let mut client = connect(socket(WsOptions::default(), chunk));
        let mut noise = Noise(4);
        let mut at = 0;
        while at < text.len() {
            let piece = noise.below(40_000).min(text.len() - at);
            client.send(Message::binary(text[at..at + piece].to_vec())).unwrap();
            at += piece;
        }
        assert_eq!(client.get_ref().plain, text);
        client.get_mut().send(&text).unwrap();
        client.get_mut().send(b"").unwrap();
        client.get_mut().send(b"end").unwrap();
        assert_eq!(client.read().unwrap(), Message::binary(text.clone()));
        assert_eq!(client.read().unwrap(), Message::binary(&b"end"[..]));
    }
}

#[test]
fn bytes_right_behind_the_upgrade_are_read() {
    let mut socket = socket(WsOptions::default(), usize::MAX);
    let mut bytes = HEAD.as_bytes().to_vec();
    bytes.extend(frame(0x82, b"CONNECT"));
    socket.write_all(&bytes).unwrap();
    assert_eq!(socket.plain, b"CONNECT");
}

#[test]
fn fragments_are_joined_and_pings_between_them_answered() {
    for chunk in [1, usize::MAX] {
        let mut socket = open(WsOptions::default(), chunk);
        socket.write_all(&frame(0x02, b"one")).unwrap();
        socket.write_all(&frame(0x89, b"are you there")).unwrap();
        socket.write_all(&frame(0x00, b"")).unwrap();
        socket.write_all(&frame(0x8A, b"unasked")).unwrap();
        socket.write_all(&frame(0x80, b"two")).unwrap();
        socket.write_all(&frame(0x82, b"three")).unwrap();
        assert_eq!(socket.plain, b"onetwothree");
        assert_eq!(socket.unread(), [&[0x8A, 13][..], b"are you there"].concat());
    }
}

#[test]
fn a_bad_frame_is_closed_with_its_code() {
    let check = |bytes: &[u8], code: u16, label: &str| {
        for chunk in [1, usize::MAX] {
            let options = WsOptions { message_bytes_max: 1000, ..WsOptions::default() };
            let mut socket = open(options, chunk);
            socket.write_all(bytes).unwrap();
            assert_eq!(socket.outcome.as_ref().unwrap_err().label(), label);
            assert_eq!(socket.unread(), [&[0x88, 2][..], &code.to_be_bytes()].concat(), "{label}");
            let said = socket.unread().len();
            socket.close();
            assert_eq!(socket.unread().len(), said, "closed once");
            assert_eq!(socket.send(b"x"), Err(LayerError::WebSocket(WsError::NotReady)));
        }
    };
    check(&frame(0x81, b"text"), 1003, "ws_text_frame");
    check(b"\x82\x03abc", 1002, "ws_bad_frame");
    check(&frame(0x80, b"continues nothing"), 1002, "ws_bad_frame");
    check(&[frame(0x02, b"begun"), frame(0x82, b"again")].concat(), 1002, "ws_bad_frame");
    check(&frame(0xC2, b"compressed"), 1002, "ws_bad_frame");
    check(&frame(0x83, b"opcode"), 1002, "ws_bad_frame");
    check(&frame(0x8B, b"opcode"), 1002, "ws_bad_frame");
    check(&frame(0x09, b"ping in fragments"), 1002, "ws_bad_frame");
    check(&frame(0x89, &[0; 126]), 1002, "ws_bad_frame");
    check(&frame(0x88, &[3]), 1002, "ws_bad_frame");
    check(&frame(0x88, &1005_u16.to_be_bytes()), 1002, "ws_bad_frame");
    check(&frame(0x88, &[0x03, 0xE8, 0xFF]), 1002, "ws_bad_frame");
    check(&frame(0x82, &[0; 1001]), 1009, "ws_too_large");
    check(&[frame(0x02, &[0; 600]), frame(0x00, &[0; 401])].concat(), 1009, "ws_too_large");
    check(b"\x82\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x01\x02\x03\x04", 1009, "ws_too_large");
    check(b"\x82\xFF\x00\x00\x00\x00\x10\x00\x00\x00\x01\x02\x03\x04", 1009, "ws_too_large");
}

#[test]
fn goodbyes_are_answered_and_said_once() {
    let mut client = connect(socket(WsOptions::default(), 1));
    let reason = Utf8Bytes::from_static("bye");
    client.close(Some(CloseFrame { code: CloseCode::Away, reason })).unwrap();
    assert_eq!(client.get_ref().outcome, Ok(Received::PeerClosed));
    let Message::Close(Some(answer)) = client.read().unwrap() else { panic!("no Close") };
    assert_eq!(answer.code, CloseCode::Away);

    let mut client = connect(socket(WsOptions::default(), 1));
    client.get_mut().close();
    client.get_mut().close();
    assert_eq!(client.get_mut().send(b"late"), Err(LayerError::WebSocket(WsError::NotReady)));
    let Message::Close(Some(said)) = client.read().unwrap() else { panic!("no Close") };
    assert_eq!(said.code, CloseCode::Normal);
    let _ = client.flush();
    assert_eq!(client.get_ref().outcome, Ok(Received::PeerClosed));
    assert!(client.get_ref().unread().is_empty(), "one Close is enough");

    let mut early = socket(WsOptions::default(), 1);
    early.close();
    assert!(early.unread().is_empty(), "no frames before the upgrade");
}

#[test]
fn an_open_connection_holds_no_bytes() {
    let mut socket = open(WsOptions::default(), usize::MAX);
    socket.write_all(&frame(0x82, &[7; 5000])).unwrap();
    socket.write_all(&frame(0x89, b"ping")).unwrap();
    let Layer::WebSocket(ws) = &socket.layer else { panic!("not WebSocket") };
    let State::Open(frames) = &ws.state else { panic!("not open") };
    assert_eq!(frames.control.capacity(), 0);
    assert!(size_of::<WsLayer>() <= 112, "{}", size_of::<WsLayer>());
}

#[test]
fn noise_never_panics_and_gives_no_more_than_it_got() {
    for seed in 0..3000 {
        let mut noise = Noise(seed);
        let mut bytes = if seed % 4 == 0 { Vec::new() } else { HEAD.as_bytes().to_vec() };
        for _ in 0..noise.below(12) {
            let first = [0x02, 0x00, 0x80, 0x82, 0x89, 0x8A, 0x88, 0x81][noise.below(8)];
            let length = noise.below(300);
            bytes.extend(frame(first, &noise.bytes(length)));
        }
        for _ in 0..noise.below(4) {
            let at = noise.below(bytes.len().max(1));
            if let Some(byte) = bytes.get_mut(at) {
                *byte = noise.next().to_le_bytes()[0];
            }
        }
        let tail = noise.below(40);
        bytes.extend(noise.bytes(tail));
        let mut socket = socket(WsOptions::default(), 1 + noise.below(64));
        socket.write_all(&bytes).unwrap();
        assert!(socket.plain.len() <= bytes.len(), "seed {seed}");
        assert!(socket.unread().len() <= bytes.len() + 512, "seed {seed}");
    }
}

/// Gives the recorded bytes and forgets what is written.
struct Recording(Cursor<Vec<u8>>);

impl Read for Recording {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for Recording {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn odd_sequences_of_frames_are_judged_as_another_implementation_does() {
    // The same masked frames go to this layer and to tungstenite's server; what both deliver must be the same.
    for seed in 0..500 {
        let mut noise = Noise(seed);
        let mut bytes = Vec::new();
        for _ in 0..=noise.below(8) {
            let first = [0x02, 0x00, 0x80, 0x82, 0x82, 0x89, 0x8A][noise.below(7)];
            let length = noise.below(400);
            bytes.extend(frame(first, &noise.bytes(length)));
        }
        let mut ours = open(WsOptions::default(), 1 + noise.below(50));
        ours.write_all(&bytes).unwrap();
        let config = WebSocketConfig::default();
        let mut theirs = WebSocket::from_raw_socket(Recording(Cursor::new(bytes)), Role::Server, Some(config));
        let mut heard = Vec::new();
        let refused = loop {
            match theirs.read() {
                Ok(Message::Binary(bytes)) => heard.extend(bytes),
                Ok(_) => {}
                Err(tungstenite::Error::Protocol(tungstenite::error::ProtocolError::ResetWithoutClosingHandshake)) => {
                    break false;
                }
                Err(_) => break true,
            }
        };
        assert_eq!(ours.outcome.is_err(), refused, "seed {seed}: {:?}", ours.outcome);
        assert!(ours.plain.starts_with(&heard), "seed {seed}");
    }
}

#[test]
fn the_path_is_what_the_listener_says() {
    let mut socket = socket(WsOptions { path: "/".to_owned(), ..WsOptions::default() }, usize::MAX);
    socket.write_all(HEAD.replace("/mqtt", "/").as_bytes()).unwrap();
    assert!(socket.layer.is_ready());
    assert!(request().into_client_request().is_ok());
}
