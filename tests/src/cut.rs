//! Proxies that cut TCP connections: one after so many bytes, or some of many by chance.

use crate::world::Rng;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// Which bytes are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// From the client to the broker.
    Up,
    /// From the broker to the client.
    Down,
}

/// One connection through the proxy.
pub struct Cut {
    addr: SocketAddr,
    passed: Arc<[AtomicU64; 2]>,
    thread: Option<JoinHandle<()>>,
}

impl Cut {
    /// Takes one connection and joins it to `to`, until `after` bytes went that way (the rest of what was read with them
    /// is lost), or one of the two ends it.
    pub fn open(to: SocketAddr, way: Way, after: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("the loopback interface has a free port");
        let addr = listener.local_addr().expect("it is bound");
        let passed: Arc<[AtomicU64; 2]> = Arc::default();
        let counters = Arc::clone(&passed);
        let thread = std::thread::spawn(move || {
            let Ok((client, _)) = listener.accept() else { return };
            let Ok(broker) = TcpStream::connect(to) else { return };
            let copy = |from: &TcpStream, to: &TcpStream| (from.try_clone().ok(), to.try_clone().ok());
            let limit = |of: Way| if of == way { after } else { u64::MAX };
            let (up, down) = (copy(&client, &broker), copy(&broker, &client));
            std::thread::scope(|scope| {
                scope.spawn(|| pump(up, limit(Way::Up), &counters[0]));
                scope.spawn(|| pump(down, limit(Way::Down), &counters[1]));
            });
        });
        Self { addr, passed, thread: Some(thread) }
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Waits until both ends are closed: bytes that went up, and down.
    pub fn ended(mut self) -> (u64, u64) {
        if let Some(thread) = self.thread.take() {
            // A thread that died took its connections with it.
            let _ = thread.join();
        }
        (self.passed[0].load(Ordering::Relaxed), self.passed[1].load(Ordering::Relaxed))
    }
}

/// Copies until `limit` bytes went, then ends both directions of both connections.
fn pump((from, to): (Option<TcpStream>, Option<TcpStream>), limit: u64, passed: &AtomicU64) {
    let (Some(mut from), Some(mut to)) = (from, to) else { return };
    let mut buffer = [0; 4096];
    let mut left = limit;
    while left > 0 {
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let Ok(count @ 1..) = from.read(&mut buffer[..most]) else { break };
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
        passed.fetch_add(count as u64, Ordering::Relaxed);
        left -= count as u64;
    }
    for stream in [&from, &to] {
        let _ = stream.shutdown(Shutdown::Both);
    }
}

/// How many connections go through a [`Cutter`], and what became of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cuts {
    /// Connections that were opened.
    pub opened: u64,
    /// Of those, the ones that were cut.
    pub cut: u64,
}

/// A proxy for any number of connections that cuts some of them by chance: both directions at once, in the middle.
pub struct Cutter {
    addr: SocketAddr,
    shared: Arc<(Mutex<(Rng, Cuts)>, AtomicBool)>,
    thread: Option<JoinHandle<()>>,
}

impl Cutter {
    /// Joins connections to `to`; `percent` of a hundred end once between `after.0` and `after.1` bytes went in one of the
    /// directions, whichever the seed says.
    pub fn open(to: SocketAddr, seed: u64, percent: u64, after: (u64, u64)) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("the loopback interface has a free port");
        let addr = listener.local_addr().expect("it is bound");
        let shared = Arc::new((Mutex::new((Rng::new(seed), Cuts::default())), AtomicBool::new(false)));
        let own = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if own.1.load(Ordering::Relaxed) {
                    return;
                }
                let mut limits = [u64::MAX; 2];
                {
                    let mut guard = own.0.lock().expect("no thread panics with it");
                    guard.1.opened += 1;
                    if guard.0.chance(percent) {
                        let direction = guard.0.at(2);
                        limits[direction] = guard.0.between(after.0, after.1.max(after.0));
                    }
                }
                let Ok(broker) = TcpStream::connect(to) else { continue };
                // What is written goes at once, as it did to the proxy.
                let _ = (client.set_nodelay(true), broker.set_nodelay(true));
                let copy = |from: &TcpStream, to: &TcpStream| (from.try_clone().ok(), to.try_clone().ok());
                for (ends, limit) in [(copy(&client, &broker), limits[0]), (copy(&broker, &client), limits[1])] {
                    let own = Arc::clone(&own);
                    std::thread::spawn(move || {
                        let passed = AtomicU64::new(0);
                        pump(ends, limit, &passed);
                        if passed.load(Ordering::Relaxed) >= limit {
                            own.0.lock().expect("no thread panics with it").1.cut += 1;
                        }
                    });
                }
            }
        });
        Self { addr, shared, thread: Some(thread) }
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// What has happened so far.
    pub fn cuts(&self) -> Cuts {
        self.shared.0.lock().expect("no thread panics with it").1
    }
}

impl Drop for Cutter {
    fn drop(&mut self) {
        self.shared.1.store(true, Ordering::Relaxed);
        // Wakes the accept loop.
        let _ = TcpStream::connect(self.addr);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Connections through a proxy before an echo, each with this many bytes: how many came back whole.
    fn whole(percent: u64, after: (u64, u64)) -> (u64, Cuts) {
        let echo = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = echo.local_addr().unwrap();
        std::thread::spawn(move || {
            for stream in echo.incoming().map_while(Result::ok) {
                std::thread::spawn(move || std::io::copy(&mut &stream, &mut &stream));
            }
        });
        let cutter = Cutter::open(to, 3, percent, after);
        let mut whole = 0;
        for _ in 0..40 {
            let mut stream = TcpStream::connect(cutter.addr()).unwrap();
            let _ = stream.write_all(&[7; 1_000]);
            whole += u64::from(stream.read_exact(&mut [0; 1_000]).is_ok());
        }
        (whole, cutter.cuts())
    }

    #[test]
    fn about_as_many_are_cut_as_was_asked_for() {
        assert_eq!(whole(0, (1, 1)), (40, Cuts { opened: 40, cut: 0 }));
        assert_eq!(whole(100, (1, 900)).0, 0);
        let (some, cuts) = whole(30, (1, 900));
        assert!((20..36).contains(&some), "{some}");
        assert_eq!(cuts.opened, 40);
    }
}
