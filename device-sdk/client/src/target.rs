//! Where a broker is, and which road leads there.

use crate::error::TargetError;
use std::fmt;

/// A road to a broker: the scheme of its URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// MQTT over TCP.
    Mqtt,
    /// MQTT over TLS.
    Mqtts,
    /// MQTT over WebSocket.
    Ws,
    /// MQTT over WebSocket over TLS.
    Wss,
    /// MQTT over QUIC.
    MqttQuic,
    /// The native link over QUIC.
    Parlor,
    /// The native link over TCP.
    ParlorTcp,
    /// The native link over TLS.
    ParlorTls,
}

impl Scheme {
    /// All of them.
    pub const ALL: [Self; 8] =
        [Self::Mqtt, Self::Mqtts, Self::Ws, Self::Wss, Self::MqttQuic, Self::Parlor, Self::ParlorTcp, Self::ParlorTls];

    /// How it is written.
    pub fn word(self) -> &'static str {
        match self {
            Self::Mqtt => "mqtt",
            Self::Mqtts => "mqtts",
            Self::Ws => "ws",
            Self::Wss => "wss",
            Self::MqttQuic => "mqtt+quic",
            Self::Parlor => "parlor",
            Self::ParlorTcp => "parlor+tcp",
            Self::ParlorTls => "parlor+tls",
        }
    }

    /// The port where none is named; UDP for the roads over QUIC.
    pub fn port(self) -> u16 {
        match self {
            Self::Mqtt => 1883,
            Self::Mqtts => 8883,
            Self::Ws => 8083,
            Self::Wss => 8084,
            Self::MqttQuic | Self::Parlor => 14567,
            Self::ParlorTcp => 1884,
            Self::ParlorTls => 8884,
        }
    }

    /// Whether what passes is encrypted, and the broker shows a certificate.
    pub fn is_encrypted(self) -> bool {
        !matches!(self, Self::Mqtt | Self::Ws | Self::ParlorTcp)
    }

    /// Whether it goes over QUIC.
    pub fn is_quic(self) -> bool {
        matches!(self, Self::MqttQuic | Self::Parlor)
    }

    fn read(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scheme| scheme.word() == word)
    }
}

/// A broker's address. Written, it shows no password.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Target {
    /// The road.
    pub scheme: Scheme,
    /// Name or address of the machine; an IPv6 address in brackets.
    pub host: String,
    /// TCP or UDP port.
    pub port: u16,
    /// WebSocket: the path, which begins with `/`; otherwise empty.
    pub path: String,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}:{}{}", self.scheme.word(), self.host, self.port, self.path)
    }
}

/// A text nobody should see.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

/// Whoever is named in a URL.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Credentials {
    /// The account.
    pub user: Option<String>,
    /// Its password.
    pub password: Option<Secret>,
}

impl Target {
    /// Reads a URL: `SCHEME://[USER[:PASSWORD]@]HOST[:PORT][/PATH]`, a path for WebSocket only.
    pub fn parse(url: &str) -> Result<(Self, Credentials), TargetError> {
        // What stands before an `@` may be a password and is never shown.
        let shown = match (url.split_once("://"), url.rsplit_once('@')) {
            (Some((scheme, _)), Some((_, rest))) => format!("{scheme}://…@{rest}"),
            (None, Some((_, rest))) => format!("…@{rest}"),
            _ => url.to_owned(),
        };
        let bad = |why| TargetError { url: shown.clone(), why };
        let (scheme, rest) = url.split_once("://").ok_or_else(|| bad("it has no scheme"))?;
        let scheme = Scheme::read(scheme).ok_or_else(|| bad("its scheme is unknown"))?;
        let (authority, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        };
        let path = match (scheme, path) {
            (Scheme::Ws | Scheme::Wss, "" | "/") => "/mqtt",
            (Scheme::Ws | Scheme::Wss, path) => path,
            (_, "" | "/") => "",
            _ => return Err(bad("it has a path, which only ws and wss have")),
        };
        let (credentials, host_port) = match authority.rsplit_once('@') {
            Some((who, host_port)) => (credentials(who).ok_or_else(|| bad("a % in it is no %XX"))?, host_port),
            None => (Credentials::default(), authority),
        };
        if host_port.contains(['?', '#']) || path.contains(['#']) || path.contains(char::is_whitespace) {
            return Err(bad("it has a query or a fragment"));
        }
        let (host, port) = match host_port.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => {
                (host, port.parse().map_err(|_| bad("its port is no number from 1 to 65535"))?)
            }
            _ => (host_port, scheme.port()),
        };
        let is_bracketed = host.starts_with('[') && host.ends_with(']');
        if host.is_empty() || host.contains(char::is_whitespace) || (host.contains(':') && !is_bracketed) || port == 0 {
            return Err(bad("its host or port is missing or wrong"));
        }
        if is_bracketed && matches!(scheme, Scheme::Mqtts | Scheme::Wss) {
            return Err(bad("a certificate needs a host name to be checked against"));
        }
        Ok((Self { scheme, host: host.to_owned(), port, path: path.to_owned() }, credentials))
    }

    /// The host as it stands in a certificate, and is looked up: without brackets.
    pub fn bare_host(&self) -> &str {
        self.host.trim_matches(['[', ']'])
    }
}

fn credentials(who: &str) -> Option<Credentials> {
    let (user, password) = match who.split_once(':') {
        Some((user, password)) => (user, Some(Secret(percent_decoded(password)?))),
        None => (who, None),
    };
    let user = percent_decoded(user)?;
    Some(Credentials { user: (!user.is_empty()).then_some(user), password })
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        if first != b'%' {
            bytes.push(first);
            continue;
        }
        let (digits, after) = rest.split_at_checked(2)?;
        let digits = std::str::from_utf8(digits).ok().filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit()))?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = after;
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read() {
        let check = |url: &str, expect: &str| {
            let (target, _) = Target::parse(url).unwrap();
            assert_eq!(target.to_string(), expect);
            assert_eq!(Target::parse(&target.to_string()).unwrap().0, target, "what is written can be read");
        };
        check("mqtt://127.0.0.1", "mqtt://127.0.0.1:1883");
        check("mqtt://home.lan:1884/", "mqtt://home.lan:1884");
        check("mqtts://home.lan", "mqtts://home.lan:8883");
        check("ws://home.lan", "ws://home.lan:8083/mqtt");
        check("wss://home.lan/chat/mqtt?x=1", "wss://home.lan:8084/chat/mqtt?x=1");
        check("mqtt+quic://home.lan", "mqtt+quic://home.lan:14567");
        check("parlor://[::1]", "parlor://[::1]:14567");
        check("parlor+tcp://home.lan", "parlor+tcp://home.lan:1884");
        check("parlor+tls://home.lan", "parlor+tls://home.lan:8884");
        check("mqtt://[::1]", "mqtt://[::1]:1883");
        check("mqtt://[::1]:1884", "mqtt://[::1]:1884");
        check("mqtt://alice:secret@a", "mqtt://a:1883");
    }

    #[test]
    fn whoever_connects_may_be_named() {
        let check = |url: &str, user: Option<&str>, password: Option<&str>| {
            let (_, found) = Target::parse(url).unwrap();
            assert_eq!(found, Credentials { user: user.map(Into::into), password: password.map(Into::into) }, "{url}");
        };
        check("parlor://a", None, None);
        check("parlor://alice@a", Some("alice"), None);
        check("parlor://alice:@a", Some("alice"), Some(""));
        check("parlor://alice:p%40ss:w%2Frd@a", Some("alice"), Some("p@ss:w/rd"));
        check("parlor://alice:p@ss@a", Some("alice"), Some("p@ss"));
    }

    #[test]
    fn wrong_addresses_are_explained() {
        let check = |url: &str, word: &str| {
            let text = Target::parse(url).unwrap_err().to_string();
            assert!(text.contains(word), "{text}");
            for scheme in Scheme::ALL {
                assert!(text.contains(scheme.word()), "{text}");
            }
        };
        check("127.0.0.1", "no scheme");
        check("http://a", "scheme is unknown");
        check("mqtt://a:70000", "port");
        check("mqtt://a:0", "port");
        check("mqtt://:1883", "host");
        check("mqtt://::1", "host");
        check("mqtt://a/b", "path");
        check("mqtt://a?b", "query");
        check("mqtts://[::1]", "host name");
        check("mqtt://a%zz@b", "%XX");
        for url in ["mqtt://alice:geheim@a:x", "alice:geheim@a", "mqtt://alice:ge@heim@a/b"] {
            let text = format!("{:?}", Target::parse(url).unwrap_err());
            assert!(!text.contains("heim@"), "{text}");
        }
    }
}
