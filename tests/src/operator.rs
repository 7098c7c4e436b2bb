//! The operator's side of a broker under test: files, HTTP, metrics.

use crate::raw::PATIENCE;
use crate::server::Broker;
use serde_json::Value as Json;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// The longest an answer may take.
const ANSWER_PATIENCE: Duration = Duration::from_secs(30);

/// A directory that goes with the test.
pub struct Dir(PathBuf);

impl Dir {
    /// An empty one.
    #[allow(clippy::new_without_default, reason = "a directory is made, not assumed")]
    pub fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("parlor-operate-{}-{number}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).expect("the temporary directory can be written");
        Self(path)
    }

    /// Path of a file in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// The same as text.
    pub fn name(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// Writes a file, readable by its owner only.
    pub fn put(&self, name: &str, contents: impl AsRef<[u8]>) -> PathBuf {
        use std::os::unix::fs::OpenOptionsExt;
        // Under another name first, so that nobody reads half of it.
        let (path, part) = (self.path(name), self.path(&format!("{name}.part")));
        let mut options = std::fs::File::options();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&part).expect("made");
        file.write_all(contents.as_ref()).expect("written");
        std::fs::rename(&part, &path).expect("renamed");
        path
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// An answer over HTTP.
#[derive(Debug)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// Headers, names in small letters.
    pub headers: Vec<(String, String)>,
    /// Body.
    pub body: Vec<u8>,
}

impl Answer {
    /// The body as text.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("text")
    }

    /// The body as JSON.
    pub fn json(&self) -> Json {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in {}", self.text()))
    }

    /// The header of this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }
}

/// One HTTP request on a connection of its own.
pub fn http(at: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    let mut stream = TcpStream::connect_timeout(&at, PATIENCE).expect("the HTTP listener accepts");
    stream.set_read_timeout(Some(ANSWER_PATIENCE)).expect("read timeout");
    let mut head = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\nContent-Length: {}\r\n", body.len());
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        head.push_str("Host: localhost\r\n");
    }
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    stream.write_all(head.as_bytes()).expect("sent");
    // A server that refuses may close before it has read everything; its answer tells.
    let _ = stream.write_all(body);
    read_answer(BufReader::new(stream))
}

fn read_answer(mut reader: impl BufRead) -> Answer {
    let mut line = String::new();
    reader.read_line(&mut line).expect("an answer in time");
    let status = line.split(' ').nth(1).and_then(|code| code.parse().ok());
    let status = status.unwrap_or_else(|| panic!("no status in {line:?}"));
    let mut headers = Vec::new();
    loop {
        line.clear();
        reader.read_line(&mut line).expect("a header in time");
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let mut body = Vec::new();
    if headers.iter().any(|(name, value)| name == "transfer-encoding" && value == "chunked") {
        loop {
            line.clear();
            reader.read_line(&mut line).expect("a chunk in time");
            let length = usize::from_str_radix(line.trim(), 16).unwrap_or_else(|_| panic!("chunk {line:?}"));
            let start = body.len();
            body.resize(start + length, 0);
            reader.read_exact(&mut body[start..]).expect("a whole chunk");
            reader.read_exact(&mut [0; 2]).expect("its end");
            if length == 0 {
                break;
            }
        }
    } else {
        let length = headers.iter().find(|(name, _)| name == "content-length").and_then(|(_, v)| v.parse().ok());
        body.resize(length.unwrap_or(0), 0);
        reader.read_exact(&mut body).expect("a whole body");
    }
    Answer { status, headers, body }
}

/// Whoever has the token of a broker.
pub struct Operator {
    at: SocketAddr,
    bearer: String,
}

impl Operator {
    /// Of this broker.
    pub fn of(broker: &Broker) -> Self {
        let token = std::fs::read_to_string(broker.data().join("admin.token")).expect("a token");
        Self { at: broker.http(), bearer: format!("Bearer {}", token.trim()) }
    }

    /// Asks with the token; the path is below `/api/v1`.
    pub fn ask(&self, method: &str, path: &str, body: &str) -> Answer {
        let headers = [("Authorization", self.bearer.as_str()), ("Content-Type", "application/json")];
        http(self.at, method, &format!("/api/v1{path}"), &headers, body.as_bytes())
    }

    /// Posts bytes with the token; the path is below `/api/v1`.
    pub fn post(&self, path: &str, body: &[u8]) -> Answer {
        http(self.at, "POST", &format!("/api/v1{path}"), &[("Authorization", self.bearer.as_str())], body)
    }

    /// The JSON at a path, which is there.
    #[track_caller]
    pub fn see(&self, path: &str) -> Json {
        let answer = self.ask("GET", path, "");
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        answer.json()
    }

    /// Every metric now.
    pub fn metrics(&self) -> Metrics {
        let answer = http(self.at, "GET", "/metrics", &[], b"");
        assert_eq!(answer.status, 200, "{}", answer.text());
        Metrics(answer.text().to_owned())
    }

    /// Asks until `enough` says so: for what happens a moment after the event a test can see.
    #[track_caller]
    pub fn until<T>(&self, what: &str, mut enough: impl FnMut(&Self) -> Option<T>) -> T {
        let deadline = std::time::Instant::now() + PATIENCE;
        loop {
            if let Some(found) = enough(self) {
                return found;
            }
            assert!(std::time::Instant::now() < deadline, "{what} expected; {}", self.see("/status"));
        }
    }
}

/// What `/metrics` said.
pub struct Metrics(pub String);

impl Metrics {
    /// The value of a sample, written with its labels: `x_total{qos="1"}`; 0 where there is none yet.
    #[track_caller]
    pub fn value(&self, sample: &str) -> f64 {
        let line = self.0.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
        line.map_or(0.0, |value| value.parse().unwrap_or_else(|_| panic!("{sample} is {value:?}")))
    }

    /// The value of a sample that counts.
    #[track_caller]
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // Counts of a test are small.
    pub fn count(&self, sample: &str) -> u64 {
        self.value(sample) as u64
    }

    /// Names of all metrics, from their TYPE lines.
    pub fn names(&self) -> Vec<&str> {
        self.0.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect()
    }
}
