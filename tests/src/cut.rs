//! A proxy that cuts a connection after so many bytes.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
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
