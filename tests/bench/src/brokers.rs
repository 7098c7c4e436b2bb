//! Starting and ending the brokers, each alone, on a free loopback port, with an empty directory of its own.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs, io, thread};

use crate::client;
use crate::process::Process;
use crate::wire::{Keep, Version};

/// How long a broker may take to answer its first CONNECT.
const START_LIMIT: Duration = Duration::from_secs(20);
/// How long a broker may take to end when asked to.
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// The brokers the bench knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The peer every ratio is against.
    Mosquitto,
    /// The limit: see [`crate::relay`].
    Relay,
    /// The fast peer in the same language.
    Rumqttd,
    /// The broker of this repository.
    Parlor,
}

impl Kind {
    /// All brokers, in the order of the table.
    pub const ALL: [Self; 4] = [Self::Mosquitto, Self::Relay, Self::Rumqttd, Self::Parlor];

    /// The name on the command line and in the table.
    pub fn name(self) -> &'static str {
        match self {
            Self::Mosquitto => "mosquitto",
            Self::Relay => "relay",
            Self::Rumqttd => "rumqttd",
            Self::Parlor => "parlor",
        }
    }
}

/// Where the programs are and what Parlor is told besides.
#[derive(Debug, Clone)]
pub struct Programs {
    /// The broker of this repository.
    pub parlor: PathBuf,
    /// Debian puts it in /usr/sbin.
    pub mosquitto: PathBuf,
    /// Installed by hand, see docs/measurements.md.
    pub rumqttd: PathBuf,
    /// Arguments added to Parlor's command line.
    pub parlor_args: Vec<String>,
    /// Where the brokers' directories are made.
    pub scratch: PathBuf,
}

/// A broker could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Its program is not there.
    #[error("{} is absent", .0.display())]
    Absent(PathBuf),
    /// A file or process could not be made.
    #[error("cannot prepare or start the broker: {0}")]
    Prepare(#[from] io::Error),
    /// It runs but does not answer, or has ended.
    #[error("{}; its log ends with: {log}", if *ended { "it ended without a CONNACK" } else { "it runs but sends no CONNACK" })]
    Silent {
        /// Whether the process has ended by itself.
        ended: bool,
        /// The last lines the broker wrote.
        log: String,
    },
}

/// A running broker; it ends, and its directory goes, when this is dropped.
#[derive(Debug)]
pub struct Broker {
    child: Child,
    dir: PathBuf,
    /// Where it listens.
    pub address: SocketAddr,
    /// Seconds from the start of the process to its first CONNACK.
    pub start_secs: f64,
}

impl Programs {
    /// The program of a broker; the relay is this very program.
    pub fn path(&self, kind: Kind) -> io::Result<PathBuf> {
        match kind {
            Kind::Parlor => Ok(self.parlor.clone()),
            Kind::Mosquitto => Ok(self.mosquitto.clone()),
            Kind::Rumqttd => Ok(self.rumqttd.clone()),
            Kind::Relay => env::current_exe(),
        }
    }

    /// Starts a broker and waits until it answers a CONNECT.
    pub fn start(&self, kind: Kind) -> Result<Broker, StartError> {
        let path = self.path(kind)?;
        if !path.is_file() {
            return Err(StartError::Absent(path));
        }
        let dir = self.scratch.join(format!("{}-{}", kind.name(), std::process::id()));
        // Left over from a run that was killed.
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir)?;
        let address = free_address()?;
        let mut command = Command::new(path);
        match kind {
            Kind::Parlor => {
                command
                    .arg("serve")
                    .arg("--listen")
                    .arg(format!("mqtt://{address}"))
                    .arg("--data")
                    .arg(dir.join("data"));
                command.args(["--allow-anonymous", "--log-level", "warn"]).args(&self.parlor_args);
            }
            Kind::Mosquitto => {
                let config = dir.join("mosquitto.conf");
                fs::write(&config, mosquitto_config(address))?;
                command.arg("-c").arg(config);
            }
            Kind::Rumqttd => {
                let config = dir.join("rumqttd.toml");
                fs::write(&config, rumqttd_config(address))?;
                command.arg("-c").arg(config).arg("-q");
            }
            Kind::Relay => {
                command.arg("relay").arg(address.to_string());
            }
        }
        let log = dir.join("log");
        let output = fs::File::create(&log)?;
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let start = Instant::now();
        let child = command.spawn()?;
        let mut broker = Broker { child, dir, address, start_secs: 0.0 };
        let mut ended = false;
        while start.elapsed() < START_LIMIT && !ended {
            if client::open(address, Version::V3, "first", Keep::Nothing).is_ok() {
                broker.start_secs = start.elapsed().as_secs_f64();
                return Ok(broker);
            }
            // The step is the resolution of the start-up time.
            thread::sleep(Duration::from_micros(200));
            ended = broker.child.try_wait()?.is_some();
        }
        Err(StartError::Silent { ended, log: tail(&log) })
    }
}

impl Broker {
    /// The process, for its figures.
    pub fn process(&self) -> Process {
        Process(self.child.id())
    }

    /// The last lines of the broker's log, empty if it wrote none.
    pub fn log_tail(&self) -> String {
        tail(&self.dir.join("log"))
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        // A broker that has ended already is what we want; anything else ends by the kill below.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let start = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) {
            if start.elapsed() > STOP_LIMIT {
                let _ = self.child.kill();
                let _ = self.child.wait();
            }
            thread::sleep(Duration::from_millis(5));
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}

fn tail(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(10)..].join("\n")
}

/// Limits are lifted and Nagle's algorithm is off, so that every broker does the same work.
fn mosquitto_config(address: SocketAddr) -> String {
    let mut text = format!("listener {} {}\n", address.port(), address.ip());
    for line in [
        "allow_anonymous true",
        "set_tcp_nodelay true",
        "max_queued_messages 0",
        "max_inflight_messages 0",
        "persistence false",
        "log_dest stderr",
        "log_type error",
        "log_type warning",
        // Keeps the identity it was started with, so that it can read this file.
        "user root",
    ] {
        let _ = writeln!(text, "{line}");
    }
    text
}

fn rumqttd_config(address: SocketAddr) -> String {
    format!(
        r#"id = 0
[router]
id = 0
max_connections = 10010
max_outgoing_packet_count = 200
max_segment_size = 104857600
max_segment_count = 10
[v4.1]
name = "bench"
listen = "{address}"
next_connection_delay_ms = 0
[v4.1.connections]
connection_timeout_ms = 60000
max_payload_size = 1048576
max_inflight_count = 100
dynamic_filters = true
"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_absent_program_is_named() {
        let programs = Programs {
            parlor: "/nowhere/parlor".into(),
            mosquitto: "/nowhere/mosquitto".into(),
            rumqttd: "/nowhere/rumqttd".into(),
            parlor_args: vec![],
            scratch: env::temp_dir(),
        };
        let error = programs.start(Kind::Parlor).unwrap_err();
        assert_eq!(error.to_string(), "/nowhere/parlor is absent");
    }
}
