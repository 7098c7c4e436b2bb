//! WebSocket (RFC 6455) as bytes in, bytes out: the HTTP upgrade, then frames.
//!
//! The payload of a binary frame goes to the reader as it comes, so a frame of any length costs no memory, and MQTT
//! packets may span frames or share one `[MQTT5-6.0.0-2]` `[MQTT3-6.0.0-2]`.

use super::layer::Received;
use std::io::Cursor;
use std::sync::Arc;
use tungstenite::handshake::derive_accept_key;
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

/// Longest head (request line and headers) of the upgrade request, bytes. A longer one is answered 431.
const HEAD_BYTES_MAX: usize = 8 * 1024;
/// Most headers of the upgrade request. More are answered 431.
const HEADERS_MAX: usize = 64;
/// Longest payload of a control frame, bytes (RFC 6455 s5.5).
const CONTROL_BYTES_MAX: usize = 125;
/// Longest header of a client's frame, bytes.
const FRAME_HEADER_BYTES_MAX: usize = 14;

/// How WebSocket connections of one listener are let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WsOptions {
    /// Path of the endpoint, e.g. `/mqtt`. Another one is answered 404.
    pub path: String,
    /// Values of the Origin header that are let in, e.g. `https://home.example`; another one is answered 403. Empty:
    /// all. A client that sends no Origin is not a browser, and is let in.
    pub origins: Vec<String>,
    /// Longest message, bytes. A longer one is closed with 1009. It costs no memory: allow at least the largest packet,
    /// and several times that, because a message may hold many packets.
    pub message_bytes_max: u64,
}

impl Default for WsOptions {
    fn default() -> Self {
        Self { path: "/mqtt".to_owned(), origins: Vec::new(), message_bytes_max: 16 * 1024 * 1024 }
    }
}

/// The peer broke the rules of WebSocket; the HTTP refusal or Close frame for it is in `wire`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WsError {
    /// The first bytes are no HTTP request.
    #[error("no HTTP request at the WebSocket port; point the client at a WebSocket URL, or at the MQTT port")]
    NotHttp,
    /// The request line or a header is malformed.
    #[error("malformed HTTP request at the WebSocket port; use a WebSocket client")]
    BadRequest,
    /// More than 8 KiB, or more than 64 headers.
    #[error("the head of the WebSocket request is too large; send fewer or shorter headers and cookies")]
    HeadTooLarge,
    /// Not GET.
    #[error("the WebSocket request is not a GET")]
    NotGet,
    /// Not HTTP/1.1.
    #[error("the WebSocket request is not HTTP/1.1")]
    NotHttp11,
    /// Not the configured path.
    #[error("no MQTT at the path the WebSocket client asked for; correct the path in its URL")]
    WrongPath,
    /// A plain GET.
    #[error("an HTTP request without a WebSocket upgrade; use a WebSocket client")]
    NotUpgrade,
    /// Sec-WebSocket-Version is not 13.
    #[error("the client's WebSocket version is not 13; use a client that follows RFC 6455")]
    WrongVersion,
    /// Sec-WebSocket-Key is missing or is not 16 bytes of base64.
    #[error("the WebSocket request has no usable Sec-WebSocket-Key")]
    BadKey,
    /// The Origin is not in the list.
    #[error("the WebSocket request comes from a web page that is not allowed; add its origin to the listener")]
    WrongOrigin,
    /// No `mqtt` among the subprotocols.
    #[error("the WebSocket client does not offer the subprotocol mqtt; set it in the client")]
    NoSubprotocol,
    /// A frame breaks RFC 6455; closed with 1002.
    #[error("WebSocket frame against RFC 6455: {0}")]
    BadFrame(&'static str),
    /// A text frame; closed with 1003.
    #[error("WebSocket text frame; MQTT needs binary frames")]
    TextFrame,
    /// A message longer than the limit; closed with 1009.
    #[error("WebSocket message larger than the limit; send smaller messages, or raise limits.packet_bytes_max")]
    TooLarge,
    /// There was something to send before the upgrade, or after the Close frame.
    #[error("cannot send on this WebSocket: its upgrade is not done, or it is closed; close the socket")]
    NotReady,
}

impl WsError {
    /// The label of the counter for this refusal.
    pub fn label(&self) -> &'static str {
        match self {
            Self::NotHttp => "ws_not_http",
            Self::BadRequest => "ws_bad_request",
            Self::HeadTooLarge => "ws_head_too_large",
            Self::NotGet => "ws_not_get",
            Self::NotHttp11 => "ws_not_http11",
            Self::WrongPath => "ws_wrong_path",
            Self::NotUpgrade => "ws_not_upgrade",
            Self::WrongVersion => "ws_wrong_version",
            Self::BadKey => "ws_bad_key",
            Self::WrongOrigin => "ws_wrong_origin",
            Self::NoSubprotocol => "ws_no_subprotocol",
            Self::BadFrame(_) => "ws_bad_frame",
            Self::TextFrame => "ws_text_frame",
            Self::TooLarge => "ws_too_large",
            Self::NotReady => "ws_not_ready",
        }
    }

    /// The HTTP status line, an extra header, and the text that answer this offence against the upgrade.
    fn http_answer(self, path: &str) -> (&'static str, &'static str, String) {
        let url = format!("ws://HOST{path} (wss:// on a TLS listener) and subprotocol mqtt");
        match self {
            Self::HeadTooLarge => ("431 Request Header Fields Too Large", "", format!("{self}.\n")),
            Self::NotGet => ("405 Method Not Allowed", "Allow: GET\r\n", format!("{self}. Use a client with {url}.\n")),
            Self::NotHttp11 => ("505 HTTP Version Not Supported", "", format!("{self}.\n")),
            Self::WrongPath => {
                ("404 Not Found", "", format!("There is no MQTT at this path. Point your client at {url}.\n"))
            }
            Self::NotUpgrade => (
                "426 Upgrade Required",
                "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n",
                format!("This is an MQTT broker. It speaks WebSocket here: point an MQTT client at {url}.\n"),
            ),
            Self::WrongVersion => {
                ("426 Upgrade Required", "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n", format!("{self}.\n"))
            }
            Self::WrongOrigin => ("403 Forbidden", "", format!("{self}.\n")),
            _ => ("400 Bad Request", "", format!("{self}.\n")),
        }
    }

    /// The code of the Close frame that answers this offence against framing.
    fn close_code(self) -> u16 {
        match self {
            Self::TextFrame => 1003,
            Self::TooLarge => 1009,
            _ => 1002,
        }
    }
}

/// One server side of a WebSocket connection.
#[derive(Debug)]
pub struct WsLayer {
    state: State,
}

#[derive(Debug)]
enum State {
    /// The upgrade request is coming in.
    Upgrading { head: Vec<u8>, options: Arc<WsOptions> },
    /// Frames go both ways.
    Open(Frames),
    /// We have sent Close and wait for the peer's.
    Closing(Frames),
    /// Nothing more comes or goes.
    Closed,
}

/// The place in the stream of frames.
#[derive(Debug)]
struct Frames {
    /// Bytes of a frame header that is not complete.
    header: [u8; FRAME_HEADER_BYTES_MAX],
    header_len: u8,
    /// The frame whose payload is being read.
    frame: Option<Frame>,
    /// Payload bytes so far of a control frame.
    control: Vec<u8>,
    /// A message has begun and waits for its continuation.
    fragmented: bool,
    /// Bytes of that message so far.
    message_bytes: u64,
    message_bytes_max: u64,
}

#[derive(Debug, Clone, Copy)]
struct Frame {
    opcode: OpCode,
    is_final: bool,
    left: u64,
    /// Rotated so that its first byte belongs to the next payload byte.
    mask: [u8; 4],
}

/// What a call of [`Frames::receive`] ended with.
enum Step {
    /// All bytes are used.
    Starved,
    /// The peer sent Close with this code.
    Closed(Option<u16>),
}

impl WsLayer {
    /// Most bytes a frame header adds to what is sent.
    pub const HEADER_BYTES_MAX: usize = 10;

    /// A connection that waits for the upgrade request.
    pub fn new(options: Arc<WsOptions>) -> Self {
        Self { state: State::Upgrading { head: Vec::new(), options } }
    }

    /// Whether the upgrade is done and nobody has closed.
    pub fn is_ready(&self) -> bool {
        matches!(self.state, State::Open(_))
    }

    /// Feeds bytes of the socket, however they are cut `[MQTT5-6.0.0-2]` `[MQTT3-6.0.0-2]`; see [`super::Layer::receive`].
    pub fn receive(&mut self, input: &[u8], plain: &mut Vec<u8>, wire: &mut Vec<u8>) -> Result<Received, WsError> {
        let mut input = input;
        if let State::Upgrading { head, options } = &mut self.state {
            let Some(rest) = take_head(head, input).transpose() else { return Ok(Received::Open) };
            let answer = rest.and_then(|rest| accept(head, options).map(|answer| (rest, answer)));
            match answer {
                Ok((rest, answer)) => {
                    wire.extend_from_slice(answer.as_bytes());
                    self.state = State::Open(Frames::new(options.message_bytes_max));
                    input = rest;
                }
                Err(error) => {
                    refuse(error, &options.path, wire);
                    self.state = State::Closed;
                    return Err(error);
                }
            }
        }
        let (frames, closing) = match &mut self.state {
            State::Open(frames) => (frames, false),
            State::Closing(frames) => (frames, true),
            State::Upgrading { .. } | State::Closed => return Ok(Received::PeerClosed),
        };
        // What comes after our own Close is read only to find the peer's Close; nobody wants its contents.
        let (mut no_plain, mut no_wire) = (Vec::new(), Vec::new());
        let outcome = if closing {
            frames.receive(input, &mut no_plain, &mut no_wire)
        } else {
            frames.receive(input, plain, wire)
        };
        match outcome {
            Ok(Step::Starved) => Ok(Received::Open),
            Ok(Step::Closed(code)) => {
                if !closing {
                    put_close(code, wire);
                }
                self.state = State::Closed;
                Ok(Received::PeerClosed)
            }
            Err(error) => {
                if !closing {
                    put_close(Some(error.close_code()), wire);
                }
                self.state = State::Closed;
                Err(error)
            }
        }
    }

    /// Appends one binary frame with `plain` to `wire` `[MQTT5-6.0.0-1]`.
    pub fn send(&mut self, plain: &[u8], wire: &mut Vec<u8>) -> Result<(), WsError> {
        if plain.is_empty() {
            return Ok(());
        }
        if !self.is_ready() {
            return Err(WsError::NotReady);
        }
        put_header(OpCode::Data(Data::Binary), plain.len(), wire);
        wire.extend_from_slice(plain);
        Ok(())
    }

    /// Appends a Close frame with code 1000, once, if the upgrade is done.
    pub fn close(&mut self, wire: &mut Vec<u8>) {
        self.state = match std::mem::replace(&mut self.state, State::Closed) {
            State::Open(frames) => {
                put_close(Some(1000), wire);
                State::Closing(frames)
            }
            State::Closing(frames) => State::Closing(frames),
            State::Upgrading { .. } | State::Closed => State::Closed,
        };
    }
}

/// Moves bytes of `input` to `head` until the head of the request is complete. Returns what follows it.
fn take_head<'a>(head: &mut Vec<u8>, input: &'a [u8]) -> Result<Option<&'a [u8]>, WsError> {
    let seen = head.len();
    let room = HEAD_BYTES_MAX - seen;
    head.extend_from_slice(&input[..input.len().min(room)]);
    // A method begins with a letter; MQTT and TLS begin with something else, and would never end a head.
    if head.first().is_some_and(|byte| !byte.is_ascii_alphabetic()) {
        return Err(WsError::NotHttp);
    }
    let from = seen.saturating_sub(3);
    match head[from..].windows(4).position(|window| window == b"\r\n\r\n") {
        Some(at) => {
            let end = from + at + 4;
            head.truncate(end);
            Ok(Some(&input[end - seen..]))
        }
        None if head.len() >= HEAD_BYTES_MAX => Err(WsError::HeadTooLarge),
        None => Ok(None),
    }
}

/// Judges a complete request head and makes the answer that opens the WebSocket.
fn accept(head: &[u8], options: &WsOptions) -> Result<String, WsError> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(head) {
        Ok(httparse::Status::Complete(_)) => {}
        Err(httparse::Error::TooManyHeaders) => return Err(WsError::HeadTooLarge),
        Ok(httparse::Status::Partial) | Err(_) => return Err(WsError::BadRequest),
    }
    let headers = Headers(request.headers);
    if request.method != Some("GET") {
        return Err(WsError::NotGet);
    }
    if request.version != Some(1) {
        return Err(WsError::NotHttp11);
    }
    let path = request.path.unwrap_or_default();
    let path = path.split_once('?').map_or(path, |(path, _)| path);
    let upgrade = headers.has_token("upgrade", "websocket") && headers.has_token("connection", "upgrade");
    if path != options.path && (upgrade || path != "/") {
        return Err(WsError::WrongPath);
    }
    if !upgrade {
        return Err(WsError::NotUpgrade);
    }
    if headers.one("host").is_none() || headers.has_body() {
        return Err(WsError::BadRequest);
    }
    if headers.one("sec-websocket-version") != Some("13") {
        return Err(WsError::WrongVersion);
    }
    let key = headers.one("sec-websocket-key").filter(|key| is_key(key)).ok_or(WsError::BadKey)?;
    if !options.origins.is_empty() && !headers.all("origin").all(|origin| options.origins.iter().any(|o| o == origin)) {
        return Err(WsError::WrongOrigin);
    }
    // [MQTT5-6.0.0-3] and [MQTT3-6.0.0-3]: the client must offer `mqtt`. The name of MQTT 3.1 is what old clients offer.
    let protocol = ["mqtt", "mqttv3.1"]
        .into_iter()
        .find(|name| headers.has_token("sec-websocket-protocol", name))
        .ok_or(WsError::NoSubprotocol)?;
    // [MQTT5-6.0.0-4] and [MQTT3-6.0.0-4]: the answer names the subprotocol.
    Ok(format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {}\r\nSec-WebSocket-Protocol: {protocol}\r\n\r\n",
        derive_accept_key(key.as_bytes()),
    ))
}

/// Whether this is 16 bytes of base64 (RFC 6455 s4.1).
fn is_key(key: &str) -> bool {
    key.len() == 24
        && key.ends_with("==")
        && key[..22].bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/')
}

fn refuse(error: WsError, path: &str, wire: &mut Vec<u8>) {
    let (status, header, text) = error.http_answer(path);
    let answer = format!(
        "HTTP/1.1 {status}\r\n{header}Content-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{text}",
        text.len()
    );
    wire.extend_from_slice(answer.as_bytes());
}

/// Headers of a request, looked up by lower-case name.
struct Headers<'a>(&'a [httparse::Header<'a>]);

impl<'a> Headers<'a> {
    fn all(&self, name: &str) -> impl Iterator<Item = &'a str> {
        self.0
            .iter()
            .filter(move |header| header.name.eq_ignore_ascii_case(name))
            .filter_map(|header| std::str::from_utf8(header.value).ok())
            .map(str::trim)
    }

    /// The value of a header that is there exactly once.
    fn one(&self, name: &str) -> Option<&'a str> {
        let mut values = self.all(name);
        values.next().filter(|_| values.next().is_none())
    }

    fn has_token(&self, name: &str, token: &str) -> bool {
        self.all(name).flat_map(|value| value.split(',')).any(|word| word.trim().eq_ignore_ascii_case(token))
    }

    fn has_body(&self) -> bool {
        self.all("transfer-encoding").next().is_some() || self.all("content-length").any(|length| length != "0")
    }
}

impl Frames {
    fn new(message_bytes_max: u64) -> Self {
        Self {
            header: [0; FRAME_HEADER_BYTES_MAX],
            header_len: 0,
            frame: None,
            control: Vec::new(),
            fragmented: false,
            message_bytes: 0,
            message_bytes_max,
        }
    }

    fn receive(&mut self, mut input: &[u8], plain: &mut Vec<u8>, wire: &mut Vec<u8>) -> Result<Step, WsError> {
        loop {
            let mut frame = match self.frame.take() {
                Some(frame) => frame,
                None => match self.read_header(&mut input)? {
                    Some(frame) => frame,
                    None => return Ok(Step::Starved),
                },
            };
            let here = usize::try_from(frame.left).unwrap_or(usize::MAX).min(input.len());
            let (payload, rest) = input.split_at(here);
            input = rest;
            let into = if matches!(frame.opcode, OpCode::Control(_)) { &mut self.control } else { &mut *plain };
            unmask(payload, frame.mask, into);
            frame.mask.rotate_left(here % 4);
            frame.left -= here as u64;
            if frame.left > 0 {
                self.frame = Some(frame);
                return Ok(Step::Starved);
            }
            if let OpCode::Control(control) = frame.opcode {
                let body = std::mem::take(&mut self.control);
                match control {
                    Control::Close => return close_code(&body).map(Step::Closed),
                    Control::Ping => {
                        put_header(OpCode::Control(Control::Pong), body.len(), wire);
                        wire.extend_from_slice(&body);
                    }
                    Control::Pong | Control::Reserved(_) => {}
                }
            } else if frame.is_final {
                self.fragmented = false;
                self.message_bytes = 0;
            } else {
                self.fragmented = true;
            }
        }
    }

    /// Takes a frame header from `input`, if the rest of one is there, and judges it.
    fn read_header(&mut self, input: &mut &[u8]) -> Result<Option<Frame>, WsError> {
        while let Some((&byte, rest)) = input.split_first() {
            *input = rest;
            self.header[usize::from(self.header_len)] = byte;
            self.header_len += 1;
            if self.header_len < 2 {
                continue;
            }
            let length_byte = self.header[1];
            if length_byte & 0x80 == 0 {
                // RFC 6455 s5.1: a server must close when a frame is not masked.
                return Err(WsError::BadFrame("a client's frame must be masked"));
            }
            let whole = match length_byte & 0x7F {
                126 => 2 + 2 + 4,
                127 => 2 + 8 + 4,
                _ => 2 + 4,
            };
            if self.header_len == whole {
                self.header_len = 0;
                return self.judge_header(usize::from(whole)).map(Some);
            }
        }
        Ok(None)
    }

    fn judge_header(&mut self, whole: usize) -> Result<Frame, WsError> {
        let (header, length) = FrameHeader::parse(&mut Cursor::new(&self.header[..whole]))
            .ok()
            .flatten()
            .ok_or(WsError::BadFrame("unknown opcode"))?;
        let mask = header.mask.ok_or(WsError::BadFrame("a client's frame must be masked"))?;
        if header.rsv1 || header.rsv2 || header.rsv3 {
            return Err(WsError::BadFrame("a reserved bit is set, but no extension was agreed"));
        }
        match header.opcode {
            OpCode::Control(_) if !header.is_final => return Err(WsError::BadFrame("a control frame in fragments")),
            OpCode::Control(_) if length > CONTROL_BYTES_MAX as u64 => {
                return Err(WsError::BadFrame("a control frame of more than 125 bytes"));
            }
            OpCode::Control(_) => {}
            // [MQTT5-6.0.0-1] and [MQTT3-6.0.0-1]: any other type of data frame closes the connection.
            OpCode::Data(Data::Text) => return Err(WsError::TextFrame),
            OpCode::Data(Data::Continue) if !self.fragmented => {
                return Err(WsError::BadFrame("a continuation of nothing"));
            }
            OpCode::Data(Data::Binary) if self.fragmented => {
                return Err(WsError::BadFrame("a new message inside a fragmented one"));
            }
            OpCode::Data(_) => {
                self.message_bytes = self.message_bytes.saturating_add(length);
                if self.message_bytes > self.message_bytes_max {
                    return Err(WsError::TooLarge);
                }
            }
        }
        Ok(Frame { opcode: header.opcode, is_final: header.is_final, left: length, mask })
    }
}

/// Appends `payload` without its mask. Goes by eight bytes, which the compiler turns into wide instructions.
fn unmask(payload: &[u8], mask: [u8; 4], into: &mut Vec<u8>) {
    let start = into.len();
    into.extend_from_slice(payload);
    let [a, b, c, d] = mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let mut chunks = into[start..].chunks_exact_mut(8);
    for chunk in &mut chunks {
        if let Ok(word) = <&mut [u8; 8]>::try_from(chunk) {
            *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
        }
    }
    for (byte, mask) in chunks.into_remainder().iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
}

/// The code in the body of a Close frame, if it is one a client may send (RFC 6455 s7.4).
fn close_code(body: &[u8]) -> Result<Option<u16>, WsError> {
    match body {
        [] => Ok(None),
        [_] => Err(WsError::BadFrame("half a close code")),
        [high, low, reason @ ..] => {
            let code = u16::from_be_bytes([*high, *low]);
            if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
                return Err(WsError::BadFrame("a close code that must not be sent"));
            }
            if std::str::from_utf8(reason).is_err() {
                return Err(WsError::BadFrame("a close reason that is not UTF-8"));
            }
            Ok(Some(code))
        }
    }
}

fn put_close(code: Option<u16>, wire: &mut Vec<u8>) {
    let code = code.map(u16::to_be_bytes);
    let body = code.as_ref().map_or(&[][..], |code| &code[..]);
    put_header(OpCode::Control(Control::Close), body.len(), wire);
    wire.extend_from_slice(body);
}

fn put_header(opcode: OpCode, length: usize, wire: &mut Vec<u8>) {
    let header = FrameHeader { opcode, ..FrameHeader::default() };
    // Writing to memory does not fail, and nothing else in it can.
    let _ = header.format(length as u64, wire);
}

#[cfg(test)]
mod tests;
