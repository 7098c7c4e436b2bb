//! Listener addresses: `mqtt://host:port`, `mqtts://`, `ws://host:port/path`, `wss://`, `mqtt+quic://`, `parlor://`,
//! `parlor+tcp://`, `parlor+tls://`.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, ToSocketAddrs};

/// What is spoken on a listener, and over what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// Plain TCP.
    Mqtt,
    /// TLS over TCP.
    Mqtts,
    /// WebSocket over TCP.
    Ws,
    /// WebSocket over TLS.
    Wss,
    /// MQTT over QUIC. Its socket takes native links as well: what the client asks for by ALPN decides.
    MqttQuic,
    /// The native link over QUIC; as `MqttQuic` in all else.
    Native,
    /// The native link over TCP.
    NativeTcp,
    /// The native link over TLS.
    NativeTls,
}

impl Transport {
    /// Scheme in an address.
    pub fn scheme(self) -> &'static str {
        match self {
            Self::Mqtt => "mqtt",
            Self::Mqtts => "mqtts",
            Self::Ws => "ws",
            Self::Wss => "wss",
            Self::MqttQuic => "mqtt+quic",
            Self::Native => "parlor",
            Self::NativeTcp => "parlor+tcp",
            Self::NativeTls => "parlor+tls",
        }
    }

    /// Port when an address names none.
    pub fn default_port(self) -> u16 {
        match self {
            Self::Mqtt => 1883,
            Self::Mqtts => 8883,
            Self::Ws => 8083,
            Self::Wss => 8084,
            Self::MqttQuic | Self::Native => 14567,
            Self::NativeTcp => 1884,
            Self::NativeTls => 8884,
        }
    }

    /// Whether it needs a certificate.
    pub fn is_tls(self) -> bool {
        matches!(self, Self::Mqtts | Self::Wss | Self::NativeTls) || self.is_quic()
    }

    /// Whether it is QUIC, and so UDP.
    pub fn is_quic(self) -> bool {
        matches!(self, Self::MqttQuic | Self::Native)
    }

    /// Whether frames of the native link are spoken on every connection.
    pub fn is_native(self) -> bool {
        matches!(self, Self::NativeTcp | Self::NativeTls)
    }

    /// Whether WebSocket is spoken.
    pub fn is_websocket(self) -> bool {
        matches!(self, Self::Ws | Self::Wss)
    }
}

/// Host of a listener address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// An address, IPv4 or IPv6.
    Ip(IpAddr),
    /// A name that is looked up when the listener is opened.
    Name(String),
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(IpAddr::V6(ip)) => write!(f, "[{ip}]"),
            Self::Ip(ip) => ip.fmt(f),
            Self::Name(name) => f.write_str(name),
        }
    }
}

/// Address of a listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerUrl {
    /// What is spoken.
    pub transport: Transport,
    /// Where.
    pub host: Host,
    /// TCP or UDP port; 0 lets the system choose one.
    pub port: u16,
    /// Path of the WebSocket endpoint; `None`: the one of `[websocket]`. Always `None` for the others.
    pub path: Option<String>,
}

/// What is wrong with a listener address.
#[derive(Debug, Clone, Copy, thiserror::Error, PartialEq, Eq)]
pub enum UrlError {
    /// No `://`.
    #[error("it does not say which protocol")]
    NoScheme,
    /// A scheme nobody knows here.
    #[error("this protocol is not known here")]
    UnknownScheme,
    /// Nothing between `://` and the port.
    #[error("it does not say which host")]
    NoHost,
    /// `*` as the host.
    #[error("`*` is not a host")]
    StarHost,
    /// More than one colon without brackets, or brackets around something else.
    #[error("an IPv6 address stands in brackets")]
    BadIpv6,
    /// A port that is not a number up to 65535.
    #[error("the port is not a number from 0 to 65535")]
    BadPort,
    /// A path where there is none.
    #[error("only ws:// and wss:// have a path")]
    PathWithoutWebSocket,
    /// `user@host`, a query or a fragment.
    #[error("a listener has no user, query or fragment")]
    Surplus,
    /// Characters no host has.
    #[error("this is not a host name")]
    BadHost,
}

impl UrlError {
    /// What to write instead.
    pub fn advice(self) -> &'static str {
        match self {
            Self::NoScheme | Self::UnknownScheme => {
                "write mqtt://, mqtts://, ws://, wss://, mqtt+quic://, parlor://, parlor+tcp:// or parlor+tls://, for example mqtt://127.0.0.1:1883"
            }
            Self::NoHost | Self::StarHost => {
                "write 127.0.0.1 for this machine only, 0.0.0.0 for every IPv4 address, [::] for every address"
            }
            Self::BadIpv6 => "write for example mqtt://[::1]:1883",
            Self::BadPort => "write for example :1883; 0 lets the system choose",
            Self::PathWithoutWebSocket => "take the path away, or write ws:// or wss://",
            Self::Surplus => "write only protocol, host, port and, for ws and wss, a path",
            Self::BadHost => "write an IP address, or a name made of letters, digits, dots and hyphens",
        }
    }
}

impl ListenerUrl {
    /// Reads an address.
    pub fn parse(text: &str) -> Result<Self, UrlError> {
        let (scheme, rest) = text.split_once("://").ok_or(UrlError::NoScheme)?;
        let transport = match scheme.to_ascii_lowercase().as_str() {
            "mqtt" | "tcp" => Transport::Mqtt,
            "mqtts" | "ssl" | "tls" => Transport::Mqtts,
            "ws" => Transport::Ws,
            "wss" => Transport::Wss,
            "mqtt+quic" => Transport::MqttQuic,
            "parlor" => Transport::Native,
            "parlor+tcp" => Transport::NativeTcp,
            "parlor+tls" => Transport::NativeTls,
            _ => return Err(UrlError::UnknownScheme),
        };
        if rest.contains(['@', '?', '#']) {
            return Err(UrlError::Surplus);
        }
        let (authority, path) = match rest.find('/') {
            Some(at) => (&rest[..at], &rest[at..]),
            None => (rest, ""),
        };
        let path = match path {
            "" => None,
            "/" if !transport.is_websocket() => None,
            _ if !transport.is_websocket() => return Err(UrlError::PathWithoutWebSocket),
            path => Some(path.to_owned()),
        };
        let (host, port) = split_host(authority)?;
        let port = match port {
            None => transport.default_port(),
            Some(port) if port.bytes().all(|b| b.is_ascii_digit()) => port.parse().map_err(|_| UrlError::BadPort)?,
            Some(_) => return Err(UrlError::BadPort),
        };
        Ok(Self { transport, host, port, path })
    }

    /// Whether only this machine can reach it.
    pub fn is_loopback(&self) -> bool {
        match &self.host {
            Host::Ip(ip) => ip.is_loopback(),
            Host::Name(name) => name.eq_ignore_ascii_case("localhost"),
        }
    }

    /// The socket addresses to listen on: one for an IP address, those a name stands for otherwise.
    pub fn addresses(&self) -> io::Result<Vec<SocketAddr>> {
        match &self.host {
            Host::Ip(ip) => Ok(vec![SocketAddr::new(*ip, self.port)]),
            Host::Name(name) => {
                let mut found: Vec<SocketAddr> = (name.as_str(), self.port).to_socket_addrs()?.collect();
                found.sort();
                found.dedup();
                Ok(found)
            }
        }
    }
}

fn split_host(authority: &str) -> Result<(Host, Option<&str>), UrlError> {
    if let Some(rest) = authority.strip_prefix('[') {
        let (ip, port) = rest.split_once(']').ok_or(UrlError::BadIpv6)?;
        let ip: Ipv6Addr = ip.parse().map_err(|_| UrlError::BadIpv6)?;
        let port = match port {
            "" => None,
            port => Some(port.strip_prefix(':').ok_or(UrlError::BadIpv6)?),
        };
        return Ok((Host::Ip(ip.into()), port));
    }
    let (host, port) = match authority.split_once(':') {
        Some((_, port)) if port.contains(':') => return Err(UrlError::BadIpv6),
        Some((host, port)) => (host, Some(port)),
        None => (authority, None),
    };
    match host {
        "" => Err(UrlError::NoHost),
        "*" => Err(UrlError::StarHost),
        host => match host.parse::<IpAddr>() {
            Ok(ip) => Ok((Host::Ip(ip), port)),
            Err(_) if host.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.' || b == b'_') => {
                Ok((Host::Name(host.to_owned()), port))
            }
            Err(_) => Err(UrlError::BadHost),
        },
    }
}

impl fmt::Display for ListenerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}:{}", self.transport.scheme(), self.host, self.port)?;
        f.write_str(self.path.as_deref().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(input: &str, expect: Result<&str, UrlError>) {
        assert_eq!(ListenerUrl::parse(input).map(|url| url.to_string()), expect.map(str::to_owned), "{input}");
    }

    #[test]
    fn addresses_of_listeners() {
        check("mqtt://127.0.0.1:1883", Ok("mqtt://127.0.0.1:1883"));
        check("MQTT://0.0.0.0", Ok("mqtt://0.0.0.0:1883"));
        check("mqtts://[::]", Ok("mqtts://[::]:8883"));
        check("mqtt://[::1]:0/", Ok("mqtt://[::1]:0"));
        check("ws://localhost", Ok("ws://localhost:8083"));
        check("ws://127.0.0.1:8083/mqtt", Ok("ws://127.0.0.1:8083/mqtt"));
        check("wss://broker.home.example/a/b", Ok("wss://broker.home.example:8084/a/b"));
        check("mqtt+quic://0.0.0.0", Ok("mqtt+quic://0.0.0.0:14567"));
        check("parlor://[::1]", Ok("parlor://[::1]:14567"));
        check("parlor+tcp://localhost", Ok("parlor+tcp://localhost:1884"));
        check("Parlor+TLS://127.0.0.1:1", Ok("parlor+tls://127.0.0.1:1"));
        check("parlor://127.0.0.1/im", Err(UrlError::PathWithoutWebSocket));
        check("127.0.0.1:1883", Err(UrlError::NoScheme));
        check("http://127.0.0.1", Err(UrlError::UnknownScheme));
        check("quic://127.0.0.1", Err(UrlError::UnknownScheme));
        check("mqtt://", Err(UrlError::NoHost));
        check("mqtt://:1883", Err(UrlError::NoHost));
        check("mqtt://*:1883", Err(UrlError::StarHost));
        check("mqtt://::1:1883", Err(UrlError::BadIpv6));
        check("mqtt://[::1", Err(UrlError::BadIpv6));
        check("mqtt://[::1]1883", Err(UrlError::BadIpv6));
        check("mqtt://[127.0.0.1]:1883", Err(UrlError::BadIpv6));
        check("mqtt://127.0.0.1:65536", Err(UrlError::BadPort));
        check("mqtt://127.0.0.1:+1", Err(UrlError::BadPort));
        check("mqtt://127.0.0.1:", Err(UrlError::BadPort));
        check("mqtt://127.0.0.1/mqtt", Err(UrlError::PathWithoutWebSocket));
        check("mqtt://bob@127.0.0.1", Err(UrlError::Surplus));
        check("mqtt://a b", Err(UrlError::BadHost));
    }

    #[test]
    fn loopback_is_known_without_looking_it_up() {
        for (url, expect) in [
            ("mqtt://127.0.0.1", true),
            ("mqtt://127.3.2.1", true),
            ("mqtt://[::1]", true),
            ("ws://localhost/x", true),
            ("mqtt://0.0.0.0", false),
            ("mqtt://[::]", false),
            ("mqtt://192.168.1.2", false),
            ("mqtt://localhost.example", false),
        ] {
            assert_eq!(ListenerUrl::parse(url).unwrap().is_loopback(), expect, "{url}");
        }
    }

    #[test]
    fn an_address_gives_one_socket_address() {
        let url = ListenerUrl::parse("mqtt://[::1]:1883").unwrap();
        assert_eq!(url.addresses().unwrap(), vec!["[::1]:1883".parse().unwrap()]);
    }
}
