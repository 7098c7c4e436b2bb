//! Talks to the HTTP API of the broker that runs on a data directory: HTTP/1.1, one request a connection, no waiting room.

use crate::admin::{ADDRESS_FILE, TOKEN_FILE};
use serde_json::Value;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The API of one running broker.
#[derive(Debug)]
pub(super) struct Client {
    address: SocketAddr,
    token: String,
}

/// What it answered.
#[derive(Debug)]
pub(super) struct Answer {
    /// HTTP status code.
    pub status: u16,
    /// Its JSON; null where it has none.
    pub body: Value,
}

/// It could not be asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClientError {
    /// The token cannot be read.
    #[error("cannot read {}: {error}; run this as the user of the broker, or as root", .path.display())]
    Token { path: PathBuf, error: io::Error },
    /// Sending or receiving failed.
    #[error("the broker at {address} does not answer as it should: {error}")]
    Io { address: SocketAddr, error: io::Error },
    /// What is read from or written to failed.
    #[error("{0}")]
    Local(io::Error),
    /// It said no.
    #[error("{0}")]
    Refused(String),
    /// It is not the broker of this data directory.
    #[error(
        "what listens on {0} does not take the token in the data directory; is it another broker? name the right one with --config or --data"
    )]
    Stranger(SocketAddr),
}

/// Longest head of an answer, bytes.
const HEAD_BYTES_MAX: u64 = 16 * 1024;
/// Longest JSON answer, bytes.
const JSON_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// How long the broker may be silent. A store may fold a full journal before a restore is answered.
const SILENCE: Duration = Duration::from_secs(120);
/// Bytes moved at a time.
const PIECE_BYTES: usize = 64 * 1024;

impl Client {
    /// The broker that runs on `data`; `None`: none does.
    pub(super) fn find(data: &Path) -> Result<Option<Self>, ClientError> {
        let read = |name: &str| {
            let path = data.join(name);
            match std::fs::read_to_string(&path) {
                Ok(text) => Ok(Some(text.trim().to_owned())),
                Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
                Err(error) => Err(ClientError::Token { path, error }),
            }
        };
        let Some(mut address) = read(ADDRESS_FILE)?.and_then(|text| text.parse::<SocketAddr>().ok()) else {
            return Ok(None);
        };
        match address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
            IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
            _ => {}
        }
        // A broker that was killed leaves its address behind.
        match TcpStream::connect_timeout(&address, Duration::from_secs(2)) {
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => return Ok(None),
            Err(error) => return Err(ClientError::Io { address, error }),
            Ok(_) => {}
        }
        Ok(read(TOKEN_FILE)?.map(|token| Self { address, token }))
    }

    /// Sends a request, with `body` as JSON, and reads a JSON answer.
    pub(super) fn call(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Answer, ClientError> {
        self.talk(|stream| {
            let text = body.map(Value::to_string).unwrap_or_default();
            let head = format!(
                "{}Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
                self.head(method, path),
                text.len()
            );
            stream.write_all(head.as_bytes())?;
            stream.write_all(text.as_bytes())?;
            let mut response = Response::read(stream)?;
            Ok(Answer { status: response.status, body: response.json()? })
        })?
        .known(self)
    }

    /// Fetches `path` into `to`; `progress` hears the bytes so far.
    pub(super) fn download(
        &self,
        path: &str,
        to: &mut dyn Write,
        mut progress: impl FnMut(u64),
    ) -> Result<u64, ClientError> {
        let done = self.talk(|stream| {
            stream.write_all(format!("{}\r\n", self.head("GET", path)).as_bytes())?;
            let mut response = Response::read(stream)?;
            if response.status != 200 {
                return Ok(Err(Answer { status: response.status, body: response.json()? }));
            }
            let mut piece = vec![0; PIECE_BYTES];
            let mut total = 0;
            loop {
                let length = response.body.read(&mut piece)?;
                if length == 0 {
                    return Ok(Ok(Ok(total)));
                }
                if let Err(error) = to.write_all(&piece[..length]) {
                    return Ok(Ok(Err(error)));
                }
                total += length as u64;
                progress(total);
            }
        })?;
        match done {
            Ok(written) => written.map_err(ClientError::Local),
            Err(answer) => answer.known(self)?.done().map(|_| 0),
        }
    }

    /// Sends everything from `from` to `path`; `progress` hears the bytes so far.
    pub(super) fn upload(
        &self,
        path: &str,
        from: &mut dyn Read,
        mut progress: impl FnMut(u64),
    ) -> Result<Answer, ClientError> {
        let mut local = None;
        let answer = self.talk(|stream| {
            let head = format!(
                "{}Content-Type: application/octet-stream\r\nTransfer-Encoding: chunked\r\n\r\n",
                self.head("POST", path)
            );
            stream.write_all(head.as_bytes())?;
            if let Err(error) = send_chunks(stream, from, &mut progress, &mut local) {
                // A broker that refuses says so and closes before it has read everything.
                if local.is_some() || !matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) {
                    return Err(error);
                }
            }
            let mut response = Response::read(stream)?;
            Ok(Answer { status: response.status, body: response.json()? })
        });
        match local {
            Some(error) => Err(ClientError::Local(error)),
            None => answer?.known(self),
        }
    }

    fn head(&self, method: &str, path: &str) -> String {
        format!(
            "{method} /api/v1{path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nAuthorization: Bearer {}\r\n",
            self.address, self.token
        )
    }

    fn talk<T>(&self, exchange: impl FnOnce(&mut TcpStream) -> io::Result<T>) -> Result<T, ClientError> {
        let failed = |error| ClientError::Io { address: self.address, error };
        let mut stream = TcpStream::connect_timeout(&self.address, Duration::from_secs(5)).map_err(failed)?;
        stream.set_read_timeout(Some(SILENCE)).map_err(failed)?;
        stream.set_write_timeout(Some(SILENCE)).map_err(failed)?;
        exchange(&mut stream).map_err(failed)
    }
}

impl Answer {
    /// Turns a refused token into the likely reason.
    fn known(self, client: &Client) -> Result<Self, ClientError> {
        if self.status == 401 { Err(ClientError::Stranger(client.address)) } else { Ok(self) }
    }

    /// The body of a success; the broker's words for anything else.
    pub(super) fn done(self) -> Result<Value, ClientError> {
        if (200..300).contains(&self.status) {
            return Ok(self.body);
        }
        let word = |key: &str| self.body[key].as_str().map(str::to_owned);
        let detail = word("detail").or_else(|| word("title")).unwrap_or_else(|| format!("HTTP status {}", self.status));
        Err(ClientError::Refused(match word("advice") {
            Some(advice) => format!("{detail}; {advice}"),
            None => detail,
        }))
    }
}

fn send_chunks(
    stream: &mut TcpStream,
    from: &mut dyn Read,
    progress: &mut dyn FnMut(u64),
    local: &mut Option<io::Error>,
) -> io::Result<()> {
    let mut piece = vec![0; PIECE_BYTES];
    let mut total = 0;
    loop {
        let length = match from.read(&mut piece) {
            Ok(length) => length,
            Err(error) => {
                *local = Some(error);
                return Err(ErrorKind::Interrupted.into());
            }
        };
        // A piece of length 0 is also how the whole ends.
        stream.write_all(format!("{length:x}\r\n").as_bytes())?;
        stream.write_all(&piece[..length])?;
        stream.write_all(b"\r\n")?;
        if length == 0 {
            return Ok(());
        }
        total += length as u64;
        progress(total);
    }
}

/// An answer whose head has been read.
struct Response<'a> {
    status: u16,
    body: Body<BufReader<&'a mut TcpStream>>,
}

impl<'a> Response<'a> {
    fn read(stream: &'a mut TcpStream) -> io::Result<Self> {
        let mut reader = BufReader::new(stream);
        let (status, framing) = read_head(&mut reader)?;
        Ok(Self { status, body: Body { reader, framing } })
    }

    fn json(&mut self) -> io::Result<Value> {
        let mut text = Vec::new();
        self.body.by_ref().take(JSON_BYTES_MAX).read_to_end(&mut text)?;
        // An empty body, or one of a program that is no Parlor, has no JSON.
        Ok(serde_json::from_slice(&text).unwrap_or(Value::Null))
    }
}

/// How the end of a body is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    /// So many bytes are left.
    Length(u64),
    /// So many bytes of the current chunk are left; `None`: a chunk's head is next.
    Chunked(Option<u64>),
    /// Nothing is left.
    Done,
}

fn read_head(reader: &mut impl BufRead) -> io::Result<(u16, Framing)> {
    let bad = || io::Error::new(ErrorKind::InvalidData, "this is not HTTP");
    let mut head = reader.by_ref().take(HEAD_BYTES_MAX);
    let mut line = String::new();
    head.read_line(&mut line)?;
    let status = line
        .strip_prefix("HTTP/1.")
        .and_then(|rest| rest.split(' ').nth(1))
        .and_then(|status| status.trim().parse().ok())
        .ok_or_else(bad)?;
    let mut framing = Framing::Length(0);
    loop {
        line.clear();
        if head.read_line(&mut line)? == 0 {
            return Err(bad());
        }
        let text = line.trim_end();
        if text.is_empty() {
            return Ok((status, framing));
        }
        let (name, value) = text.split_once(':').ok_or_else(bad)?;
        if name.eq_ignore_ascii_case("content-length") {
            framing = Framing::Length(value.trim().parse().map_err(|_| bad())?);
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            framing = Framing::Chunked(None);
        }
    }
}

/// A body that ends where HTTP says it ends; one that is cut off is an error.
struct Body<R> {
    reader: R,
    framing: Framing,
}

impl<R: BufRead> Body<R> {
    fn next_chunk(&mut self) -> io::Result<()> {
        let mut line = String::new();
        self.reader.by_ref().take(64).read_line(&mut line)?;
        let length = line.split(';').next().unwrap_or_default().trim();
        let length = u64::from_str_radix(length, 16)
            .map_err(|_| io::Error::new(ErrorKind::UnexpectedEof, "the answer was cut off"))?;
        if length > 0 {
            self.framing = Framing::Chunked(Some(length));
            return Ok(());
        }
        self.reader.by_ref().take(64).read_line(&mut line)?;
        self.framing = Framing::Done;
        Ok(())
    }
}

impl<R: BufRead> Read for Body<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.framing == Framing::Chunked(None) {
            self.next_chunk()?;
        }
        let left = match self.framing {
            Framing::Length(left) | Framing::Chunked(Some(left)) if left > 0 => left,
            _ => return Ok(0),
        };
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let length = self.reader.read(&mut buffer[..most])?;
        if length == 0 && most > 0 {
            return Err(io::Error::new(ErrorKind::UnexpectedEof, "the answer was cut off"));
        }
        let left = left - length as u64;
        self.framing = match self.framing {
            Framing::Chunked(_) if left == 0 => {
                let mut line = String::new();
                self.reader.by_ref().take(2).read_line(&mut line)?;
                Framing::Chunked(None)
            }
            Framing::Chunked(_) => Framing::Chunked(Some(left)),
            _ => Framing::Length(left),
        };
        Ok(length)
    }
}

/// Writes `text` so that it is one segment of a path (RFC 3986 s2.3).
pub(super) fn segment(text: &str) -> String {
    use std::fmt::Write as _;
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(answer: &str, expect: Result<(u16, &str), ErrorKind>) {
        let mut reader = BufReader::new(answer.as_bytes());
        let got = read_head(&mut reader).and_then(|(status, framing)| {
            let mut text = String::new();
            Body { reader, framing }.read_to_string(&mut text).map(|_| (status, text))
        });
        let got = got.as_ref().map(|(status, text)| (*status, text.as_str())).map_err(io::Error::kind);
        assert_eq!(got, expect, "{answer:?}");
    }

    #[test]
    fn bodies_end_where_http_says() {
        check("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nabc", Ok((200, "ab")));
        check("HTTP/1.1 204 No Content\r\n\r\n", Ok((204, "")));
        check("HTTP/1.0 404 x\r\ncontent-length:0\r\n\r\n", Ok((404, "")));
        check(
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n3;x=y\r\ncde\r\n0\r\n\r\n",
            Ok((200, "abcde")),
        );
        check("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab", Err(ErrorKind::UnexpectedEof));
        check("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n", Err(ErrorKind::UnexpectedEof));
        check("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab", Err(ErrorKind::UnexpectedEof));
        check("SSH-2.0-x\r\n", Err(ErrorKind::InvalidData));
        check("HTTP/1.1 200 OK\r\n", Err(ErrorKind::InvalidData));
    }

    #[test]
    fn any_text_fits_into_a_path() {
        assert_eq!(segment("home/lämp 1"), "home%2Fl%C3%A4mp%201");
        assert_eq!(segment("a-b.c_d~e"), "a-b.c_d~e");
    }
}
