//! A line that loses and delays packets, between this machine and a network namespace of its own (`tests/bench/link.py`).
//!
//! TCP and QUIC are tried over the same line, with the kernel's TCP on both sides. It takes root, TUN devices and python3;
//! where one is missing the loads over the line are left out.

use std::io::{BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use super::QuicError;

/// This side of the line.
pub(super) const HERE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 213, 77, 1));
/// The other side.
const THERE: &str = "10.213.77.2/24";

/// A line; it goes with this value.
pub(super) struct Line {
    carrier: Child,
    namespace: String,
}

/// What the line does to packets, each way.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Weather {
    /// Of a hundred packets.
    pub(super) loss_percent: f64,
    /// On the way.
    pub(super) delay_ms: u32,
}

impl Line {
    /// Lays one.
    pub(super) fn open(weather: Weather) -> Result<Self, QuicError> {
        let id = std::process::id();
        let (near, far, namespace) = (format!("pb{id}a"), format!("pb{id}b"), format!("parlor-bench-{id}"));
        let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("link.py");
        let carrier = Command::new("python3")
            .arg(script)
            .args([&near, &far, &weather.loss_percent.to_string(), &weather.delay_ms.to_string(), "7"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = Self { carrier, namespace: namespace.clone() };
        let mut said = String::new();
        if let Some(stdout) = line.carrier.stdout.take() {
            BufReader::new(stdout).read_line(&mut said)?;
        }
        if said.trim() != "ready" {
            return Err(QuicError::Wrong("no TUN device could be made".to_owned()));
        }
        ip(&format!("netns add {namespace}"))?;
        ip(&format!("link set {far} netns {namespace}"))?;
        ip(&format!("addr add {HERE}/24 dev {near}"))?;
        ip(&format!("link set {near} up"))?;
        for inside in [format!("addr add {THERE} dev {far}"), format!("link set {far} up"), "link set lo up".to_owned()]
        {
            ip(&format!("netns exec {namespace} ip {inside}"))?;
        }
        Ok(line)
    }

    /// A run of this program at the other end.
    pub(super) fn there(&self, args: &[String]) -> Result<Command, QuicError> {
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", &self.namespace])
            .arg(std::env::current_exe()?)
            .args(["quic", "there"])
            .args(args);
        Ok(command)
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        drop(self.carrier.stdin.take());
        let _ = self.carrier.kill();
        let _ = self.carrier.wait();
        // One that was never made cannot be taken away.
        let _ = Command::new("ip").args(["netns", "del", &self.namespace]).stderr(Stdio::null()).status();
    }
}

fn ip(arguments: &str) -> Result<(), QuicError> {
    let output = Command::new("ip").args(arguments.split(' ')).stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(());
    }
    let why = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(QuicError::Wrong(format!("`ip {arguments}` failed: {why}")))
}
