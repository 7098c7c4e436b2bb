//! A broker with accounts, certificates and a listener for every road.

use crate::ca::{Ca, Issued};
use crate::im::House;
use crate::operator::{Dir, Operator};
use std::net::{SocketAddr, TcpListener, UdpSocket};

/// What is listened on besides `mqtt://`.
pub const LISTENERS: [&str; 7] = [
    "mqtts://127.0.0.1:0",
    "ws://127.0.0.1:0/mqtt",
    "wss://127.0.0.1:0/mqtt",
    "mqtt+quic://127.0.0.1:0",
    "parlor://127.0.0.1:0",
    "parlor+tcp://127.0.0.1:0",
    "parlor+tls://127.0.0.1:0",
];

/// What the broker's certificate is good for.
const SELF: [&str; 2] = ["localhost", "127.0.0.1"];

/// A broker that is reached over more than one road.
pub struct Site {
    /// The broker and its accounts.
    pub house: House,
    /// The authority of the broker's certificate.
    pub ca: Ca,
    /// The authority of client certificates.
    pub clients: Ca,
    /// Its files: `ca.pem`, `server.pem`, `server.key`, `clients.pem`.
    pub dir: Dir,
}

impl Site {
    /// A broker of the test's own with an MQTT over QUIC listener and these accounts, whose password is
    /// [`PASSWORD`](crate::im::PASSWORD); `None` when the tests speak to an external one. It asks for no certificates, for
    /// then it would take nothing from a first flight.
    pub fn quic(accounts: &[&str], extra: &[&str]) -> Option<Self> {
        Self::with(&["mqtt+quic://127.0.0.1:0"], accounts, extra)
    }

    /// The same on a port that stays the same when the broker starts again.
    pub fn quic_on_its_port(accounts: &[&str], extra: &[&str]) -> Option<Self> {
        Self::on_ports(&["mqtt+quic://127.0.0.1:0"], accounts, extra)
    }

    /// As [`Site::with`], on ports that stay the same when the broker starts again.
    pub fn on_ports(listeners: &[&str], accounts: &[&str], extra: &[&str]) -> Option<Self> {
        let fixed: Vec<String> =
            listeners.iter().map(|url| url.replacen(":0", &format!(":{}", free_port()), 1)).collect();
        Self::with(&fixed.iter().map(String::as_str).collect::<Vec<_>>(), accounts, extra)
    }

    /// The same, and who shows a certificate of `clients` is the account of its name.
    pub fn by_certificate(accounts: &[&str], extra: &[&str]) -> Option<Self> {
        Self::make(&["mqtt+quic://127.0.0.1:0"], accounts, extra, &[("client_ca", "clients.pem")])
    }

    /// The same on every road.
    pub fn all_by_certificate(accounts: &[&str]) -> Option<Self> {
        Self::make(&LISTENERS, accounts, &[], &[("client_ca", "clients.pem")])
    }

    /// A broker with these listeners besides `mqtt://`.
    pub fn with(listeners: &[&str], accounts: &[&str], extra: &[&str]) -> Option<Self> {
        Self::make(listeners, accounts, extra, &[])
    }

    fn make(listeners: &[&str], accounts: &[&str], extra: &[&str], more: &[(&str, &str)]) -> Option<Self> {
        let (dir, ca, clients) = (Dir::new(), Ca::new("servers"), Ca::new("clients"));
        dir.put("ca.pem", &ca.certificate);
        dir.put("clients.pem", &clients.certificate);
        put_server(&dir, &ca.issue_for(&SELF));
        let files = [("certificate", "server.pem"), ("key", "server.key")];
        let files: Vec<String> = files.iter().chain(more).map(|(k, f)| format!("tls.{k}={}", dir.name(f))).collect();
        let mut flags: Vec<&str> = files.iter().flat_map(|file| ["--set", file.as_str()]).collect();
        flags.extend(listeners.iter().flat_map(|url| ["--listen", *url]));
        flags.extend_from_slice(extra);
        let house = House::with(accounts, &flags)?;
        Some(Self { house, ca, clients, dir })
    }

    /// Where it listens for this scheme.
    pub fn at(&self, scheme: &str) -> SocketAddr {
        match scheme {
            "mqtt" => self.house.broker.addr(),
            scheme => self.house.broker.address(scheme),
        }
    }

    /// The URL for this scheme.
    pub fn url(&self, scheme: &str) -> String {
        url(scheme, self.at(scheme))
    }

    /// Where it listens for QUIC.
    pub fn quic_addr(&self) -> SocketAddr {
        self.at("mqtt+quic")
    }

    /// Its operator.
    pub fn operator(&self) -> Operator {
        Operator::of(&self.house.broker)
    }

    /// Another certificate of the broker's, which it has to read before it is used: it.
    pub fn renew(&self) -> Issued {
        let issued = self.ca.issue_for(&SELF);
        put_server(&self.dir, &issued);
        issued
    }
}

/// The URL of a listener, or of a proxy before one.
pub fn url(scheme: &str, at: SocketAddr) -> String {
    let path = if scheme.starts_with("ws") { "/mqtt" } else { "" };
    format!("{scheme}://{at}{path}")
}

/// A port that is free for TCP and for UDP.
fn free_port() -> u16 {
    loop {
        let udp = UdpSocket::bind("127.0.0.1:0").expect("a free port");
        let at = udp.local_addr().expect("it is bound");
        if TcpListener::bind(at).is_ok() {
            return at.port();
        }
    }
}

fn put_server(dir: &Dir, issued: &Issued) {
    dir.put("server.key", &issued.key);
    dir.put("server.pem", &issued.certificate);
}
