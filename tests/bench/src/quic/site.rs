//! A broker that is reached over TCP, TLS and QUIC, alone, with an empty directory.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rcgen::{CertifiedKey, generate_simple_self_signed};

use super::road::Kind;
use super::{Options, QuicError};
use crate::process::Process;

/// How long the broker may take to listen.
const START_LIMIT: Duration = Duration::from_secs(20);

/// A running broker; it ends, and its directory goes, with this value.
pub(super) struct Site {
    child: Child,
    dir: PathBuf,
    ports: [u16; 3],
    key: Vec<u8>,
}

impl Site {
    /// Starts one that also listens on `more`, an address of another line.
    pub(super) fn start(options: &Options, more: Option<IpAddr>) -> Result<Self, QuicError> {
        let dir = options.scratch.join(format!("quic-{}", std::process::id()));
        // Left over from a run that was killed.
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir)?;
        let CertifiedKey { cert, signing_key } = generate_simple_self_signed(vec!["localhost".to_owned()])
            .map_err(|error| QuicError::Wrong(format!("no certificate: {error}")))?;
        fs::write(dir.join("cert.pem"), cert.pem())?;
        let secret = |name: &str, bytes: &[u8]| {
            let mut options = OpenOptions::new();
            options.write(true).create_new(true).mode(0o600).open(dir.join(name))?.write_all(bytes)
        };
        secret("key.pem", signing_key.serialize_pem().as_bytes())?;
        let key: Vec<u8> = (1..=48).collect();
        secret("jwt.key", &key)?;
        let free_tcp = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr();
        let free_udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let ports = [free_tcp()?.port(), free_tcp()?.port(), free_udp.port()];
        let mut command = Command::new(&options.parlor);
        command.args(["serve", "--log-level", "warn", "--http", "off", "--allow-anonymous", "--data"]);
        command.arg(dir.join("data"));
        for host in [Some(IpAddr::V4(Ipv4Addr::LOCALHOST)), more].into_iter().flatten() {
            for (kind, port) in Kind::ALL.into_iter().zip(ports) {
                command.arg("--listen").arg(format!("{}://{host}:{port}", kind.scheme()));
            }
        }
        for (name, file) in [("tls.certificate", "cert.pem"), ("tls.key", "key.pem"), ("auth.jwt.key_file", "jwt.key")]
        {
            command.arg("--set").arg(format!("{name}={}", dir.join(file).display()));
        }
        command.args(["--set", "auth.jwt.algorithm=HS256", "--set", "limits.im_account_rate_max=0"]);
        command.args(["--set", "limits.im_conversation_rate_max=0", "--set", "limits.quic_retry_above=100000"]);
        command.args(&options.parlor_args);
        let log = fs::File::create(dir.join("log"))?;
        let child = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?;
        let site = Self { child, dir, ports, key };
        let since = Instant::now();
        while std::net::TcpStream::connect(site.at(Kind::Tls)).is_err() {
            if since.elapsed() > START_LIMIT {
                return Err(QuicError::Wrong(format!("the broker did not start: {}", site.log())));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(site)
    }

    /// Where it listens, on the loopback interface.
    pub(super) fn at(&self, kind: Kind) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port(kind)))
    }

    /// The port for that road, the same on every address.
    pub(super) fn port(&self, kind: Kind) -> u16 {
        match kind {
            Kind::Tcp => self.ports[0],
            Kind::Tls => self.ports[1],
            Kind::Quic => self.ports[2],
        }
    }

    /// Its certificate, which is its own authority.
    pub(super) fn certificate(&self) -> PathBuf {
        self.dir.join("cert.pem")
    }

    /// The key that tokens are signed with.
    pub(super) fn key(&self) -> &[u8] {
        &self.key
    }

    pub(super) fn process(&self) -> Process {
        Process(self.child.id())
    }

    /// The last lines of its log.
    pub(super) fn log(&self) -> String {
        let text = fs::read_to_string(self.dir.join("log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(5)..].join("\n")
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.dir);
    }
}
