//! Stock clients as processes.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// The longest a test waits for a line of a client.
const PATIENCE: Duration = Duration::from_secs(20);

/// What the tests talk to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `mosquitto_pub` and `mosquitto_sub`.
    Mosquitto,
    /// paho-mqtt, Python.
    Paho,
    /// MQTT.js over WebSocket.
    MqttJs,
}

/// A client program in one version of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// The program.
    pub kind: Kind,
    /// 4 or 5.
    pub version: u8,
}

/// Every stock client in both versions.
pub const PEERS: [Peer; 6] = [
    Peer { kind: Kind::Mosquitto, version: 4 },
    Peer { kind: Kind::Mosquitto, version: 5 },
    Peer { kind: Kind::Paho, version: 4 },
    Peer { kind: Kind::Paho, version: 5 },
    Peer { kind: Kind::MqttJs, version: 4 },
    Peer { kind: Kind::MqttJs, version: 5 },
];

/// Where the broker is, and who the client is there.
#[derive(Debug, Clone)]
pub struct Door {
    /// `HOST:PORT`.
    pub mqtt: String,
    /// `ws://…`.
    pub ws: String,
    /// User name.
    pub user: &'static str,
    /// Password.
    pub password: &'static str,
}

fn peers_dir() -> Option<PathBuf> {
    std::env::var_os("PARLOR_PEERS").map(PathBuf::from)
}

fn exists(program: &str) -> bool {
    Command::new(program).arg("--help").stdin(Stdio::null()).output().is_ok()
}

/// Whether every client is installed. If one is missing the test fails and says what to install, unless
/// `PARLOR_QUICK=1` asks for the quick tests only: then this is false and the test ends.
pub fn all_here() -> bool {
    let mut missing = vec![];
    if !exists("mosquitto_pub") || !exists("mosquitto_sub") {
        missing.push("mosquitto_pub and mosquitto_sub (Debian package mosquitto-clients)".to_owned());
    }
    let python = peers_dir().map(|dir| dir.join("python/bin/python"));
    if !python.is_some_and(|p| p.exists()) {
        missing.push("paho-mqtt (PyPI) in a virtual environment at $PARLOR_PEERS/python".to_owned());
    }
    let node = peers_dir().map(|dir| dir.join("node_modules/mqtt"));
    if !exists("node") || !node.is_some_and(|p| p.exists()) {
        missing.push("node (Debian package nodejs) and mqtt (npm) in $PARLOR_PEERS/node_modules".to_owned());
    }
    nothing_missing(&missing)
}

/// Whether aioquic is installed; the same as [`all_here`] else.
pub fn aioquic_here() -> bool {
    let python = peers_dir().map(|dir| dir.join("python/bin/python"));
    let is_there = python.is_some_and(|python| {
        let import = Command::new(python).args(["-c", "import aioquic"]).stdin(Stdio::null()).output();
        import.is_ok_and(|output| output.status.success())
    });
    if is_there {
        return true;
    }
    nothing_missing(&["aioquic (PyPI) in a virtual environment at $PARLOR_PEERS/python".to_owned()])
}

/// The MQTT over QUIC client written with aioquic.
pub fn aioquic() -> Command {
    let dir = peers_dir().expect("PARLOR_PEERS is set: aioquic_here() was asked");
    let mut command = Command::new(dir.join("python/bin/python"));
    command.arg(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("peers/mqtt_quic.py"));
    command
}

fn nothing_missing(missing: &[String]) -> bool {
    if missing.is_empty() {
        return true;
    }
    let text = format!("install {}; tests/run.sh does that and sets PARLOR_PEERS", missing.join(", and "));
    if std::env::var_os("PARLOR_QUICK").is_some_and(|v| v == "1") {
        eprintln!("left out: {text}");
        return false;
    }
    panic!("{text}");
}

/// A message as a client reported it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Got {
    /// Topic name.
    pub topic: String,
    /// QoS of the delivery.
    pub qos: u8,
    /// RETAIN flag.
    pub retain: bool,
    /// Payload.
    pub payload: String,
}

/// A client process that runs.
pub struct Running {
    name: String,
    child: Child,
    lines: Receiver<String>,
    seen: Vec<String>,
}

impl Peer {
    /// A name for messages and client identifiers.
    pub fn name(self) -> String {
        let kind = match self.kind {
            Kind::Mosquitto => "mosquitto",
            Kind::Paho => "paho",
            Kind::MqttJs => "mqttjs",
        };
        format!("{kind}-v{}", self.version)
    }

    fn script(self, door: &Door, client_id: &str, persistent: bool) -> Command {
        let scripts = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("peers");
        let dir = peers_dir().expect("PARLOR_PEERS is set: all_here() was asked");
        let (mut command, address) = match self.kind {
            Kind::Paho => {
                let mut command = Command::new(dir.join("python/bin/python"));
                command.arg(scripts.join("paho_peer.py"));
                (command, &door.mqtt)
            }
            _ => {
                let mut command = Command::new("node");
                command.arg(scripts.join("mqttjs_peer.js")).env("NODE_PATH", dir.join("node_modules"));
                (command, &door.ws)
            }
        };
        let version = self.version.to_string();
        command.args([
            address.as_str(),
            door.user,
            door.password,
            &version,
            client_id,
            if persistent { "1" } else { "0" },
        ]);
        command
    }

    fn mosquitto(self, program: &str, door: &Door, client_id: &str, persistent: bool) -> Command {
        // Line by line, although it writes to a pipe.
        let mut command = Command::new("stdbuf");
        let (host, port) = door.mqtt.rsplit_once(':').expect("HOST:PORT");
        command.args(["-oL", program, "-h", host, "-p", port, "-u", door.user, "-P", door.password, "-i", client_id]);
        command.args(["-V", if self.version == 5 { "mqttv5" } else { "mqttv311" }]);
        if persistent {
            command.arg("-c");
            if self.version == 5 {
                command.args(["-x", "3600"]);
            }
        }
        command
    }

    /// Starts a subscriber and waits until it has its subscription.
    pub fn subscribe(self, door: &Door, client_id: &str, persistent: bool, topic: &str, qos: u8) -> Running {
        let qos = qos.to_string();
        let (mut command, ready) = if self.kind == Kind::Mosquitto {
            let mut command = self.mosquitto("mosquitto_sub", door, client_id, persistent);
            command.args(["-d", "-t", topic, "-q", &qos, "-F", "got %t %q %r %p"]);
            (command, "Subscribed")
        } else {
            let mut command = self.script(door, client_id, persistent);
            command.args(["sub", topic, &qos]);
            (command, "ready")
        };
        let mut running = Running::start(&format!("{} as {client_id}", self.name()), &mut command);
        running.await_line(ready);
        running
    }

    /// Publishes `count` messages `PREFIX QOS NUMBER` and waits for their acknowledgements.
    pub fn publish(self, door: &Door, client_id: &str, topic: &str, qos: u8, prefix: &str, count: u32) {
        let qos_text = qos.to_string();
        if self.kind == Kind::Mosquitto {
            // One process a message is what its users do.
            for number in 0..count {
                let mut command = self.mosquitto("mosquitto_pub", door, client_id, false);
                command.args(["-t", topic, "-q", &qos_text, "-m", &format!("{prefix} {qos} {number}")]);
                finish(&mut command, "mosquitto_pub");
            }
        } else {
            let mut command = self.script(door, client_id, false);
            command.args(["pub", topic, &qos_text, prefix, &count.to_string()]);
            let text = finish(&mut command, &self.name());
            assert!(text.lines().any(|line| line == "sent"), "{}: {text}", self.name());
        }
    }

    /// Starts a client that has a will and does nothing else (paho only).
    pub fn with_will(door: &Door, version: u8, client_id: &str, topic: &str, payload: &str) -> Running {
        let peer = Self { kind: Kind::Paho, version };
        let mut command = peer.script(door, client_id, false);
        command.args(["will", topic, "2", payload]);
        let mut running = Running::start(&format!("{} with a will", peer.name()), &mut command);
        running.await_line("ready");
        running
    }
}

/// Runs a command to its end: its standard output.
pub fn finish(command: &mut Command, name: &str) -> String {
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let output = child.and_then(Child::wait_with_output).unwrap_or_else(|e| panic!("{name} runs: {e}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{name} ended with {}: {text}{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    text
}

impl Running {
    /// Starts a client.
    pub fn start(name: &str, command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("{name} starts: {e}"));
        let stdout = child.stdout.take().expect("stdout is piped");
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Self { name: name.to_owned(), child, lines, seen: vec![] }
    }

    fn line(&mut self, deadline: Instant) -> Result<String, RecvTimeoutError> {
        let line = self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now()))?;
        self.seen.push(line.clone());
        Ok(line)
    }

    /// Waits for a line that begins with `start`. Messages before it are lost to the test.
    pub fn await_line(&mut self, start: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.line(deadline) {
                Ok(line) if line.starts_with(start) => return,
                Ok(_) => {}
                Err(why) => panic!("{}: no line {start:?} ({why}), only {:#?}", self.name, self.seen),
            }
        }
    }

    /// Messages until one has the payload `last`, that one left out. Those that came before the subscription was
    /// confirmed count too.
    pub fn until(&mut self, last: &str) -> Vec<Got> {
        self.until_one(&format!("{last:?}"), |got| got.payload == last)
    }

    /// Messages until one is the last, that one left out.
    pub fn until_one(&mut self, last: &str, mut is_last: impl FnMut(&Got) -> bool) -> Vec<Got> {
        let mut found: Vec<Got> = vec![];
        let earlier: Vec<String> = std::mem::take(&mut self.seen);
        let deadline = Instant::now() + PATIENCE;
        for line in earlier {
            if let Some(got) = parse(&line) {
                if is_last(&got) {
                    return found;
                }
                found.push(got);
            }
        }
        loop {
            match self.line(deadline) {
                Ok(line) => {
                    if let Some(got) = parse(&line) {
                        if is_last(&got) {
                            self.seen.clear();
                            return found;
                        }
                        found.push(got);
                    }
                }
                Err(why) => {
                    panic!("{}: {last} did not come ({why}); {} messages: {found:#?}", self.name, found.len())
                }
            }
        }
    }

    /// Ends it as a power cut would: the messages that it had reported.
    pub fn end(mut self) -> Vec<Got> {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let mut lines = std::mem::take(&mut self.seen);
        lines.extend(self.lines.iter());
        lines.iter().filter_map(|line| parse(line)).collect()
    }

    /// Ends it as a power cut would.
    pub fn kill(mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn parse(line: &str) -> Option<Got> {
    let mut words = line.strip_prefix("got ")?.splitn(4, ' ');
    let (topic, qos, retain, payload) = (words.next()?, words.next()?, words.next()?, words.next().unwrap_or_default());
    Some(Got { topic: topic.into(), qos: qos.parse().ok()?, retain: retain == "1", payload: payload.into() })
}
