//! Tells systemd how the service is (`sd_notify(3)`): one datagram to the socket it names.

use std::io;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

/// What systemd is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notice {
    /// Clients can connect; also after a reload.
    Ready,
    /// The configuration is being read again.
    Reloading,
    /// The broker is ending.
    Stopping,
    /// The driver answered just now.
    Alive,
}

impl Notice {
    fn text(self) -> &'static str {
        match self {
            Self::Ready => "READY=1",
            Self::Reloading => "RELOADING=1",
            Self::Stopping => "STOPPING=1",
            Self::Alive => "WATCHDOG=1",
        }
    }
}

/// Tells systemd, if it started us; otherwise nothing happens. A failure is not worth ending for.
pub fn notify(notice: Notice) {
    if let Some(socket) = std::env::var_os("NOTIFY_SOCKET") {
        let _ = notify_at(socket.as_encoded_bytes(), notice);
    }
}

fn notify_at(socket: &[u8], notice: Notice) -> io::Result<()> {
    let sender = UnixDatagram::unbound()?;
    sender.set_nonblocking(true)?;
    let text = notice.text().as_bytes();
    #[cfg(target_os = "linux")]
    if let Some(name) = socket.strip_prefix(b"@") {
        use std::os::linux::net::SocketAddrExt;
        let address = std::os::unix::net::SocketAddr::from_abstract_name(name)?;
        return sender.send_to_addr(text, &address).map(drop);
    }
    let path = std::str::from_utf8(socket).map_err(|_| io::ErrorKind::InvalidInput)?;
    sender.send_to(text, path).map(drop)
}

/// How often [`Notice::Alive`] should be sent: half of what the unit's `WatchdogSec` allows. `None`: not at all.
pub fn watchdog_interval() -> Option<Duration> {
    interval(&std::env::var("WATCHDOG_USEC").ok()?)
}

fn interval(usec: &str) -> Option<Duration> {
    usec.parse().ok().filter(|usec| *usec > 0).map(|usec| Duration::from_micros(usec) / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notice_is_one_datagram() {
        let path = std::env::temp_dir().join(format!("parlor-notify-{}", std::process::id()));
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        notify_at(path.as_os_str().as_encoded_bytes(), Notice::Ready).unwrap();
        let mut buffer = [0; 64];
        let length = socket.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"READY=1");
        std::fs::remove_file(&path).unwrap();
        assert!(notify_at(path.as_os_str().as_encoded_bytes(), Notice::Ready).is_err());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn abstract_sockets_begin_with_an_at_sign() {
        use std::os::linux::net::SocketAddrExt;
        let name = format!("parlor-notify-{}", std::process::id());
        let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap();
        let socket = UnixDatagram::bind_addr(&address).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        notify_at(format!("@{name}").as_bytes(), Notice::Stopping).unwrap();
        let mut buffer = [0; 64];
        let length = socket.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"STOPPING=1");
    }

    #[test]
    fn the_watchdog_is_fed_twice_as_often_as_it_asks() {
        assert_eq!(interval("3000000"), Some(Duration::from_millis(1_500)));
        assert_eq!(interval("0"), None);
        assert_eq!(interval("x"), None);
    }
}
