//! The bare relay: what the least possible broker costs on the same runtime.
//!
//! One thread, no sessions, no rights, no disk, exact topics only, and a subscriber gets the quality of the
//! publisher. Each link reads into one shared buffer, its packets are handled at once, what goes out is gathered per
//! link, and one flusher writes each link with output once per turn of the runtime. Acknowledgements are answered
//! without being remembered.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;

use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::TcpListener;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::Notify;
use tokio::task::{LocalSet, spawn_local};

use crate::wire::{self, Malformed, Packet, Version};

/// Bytes of the one buffer all links read into.
const READ_BUFFER: usize = 256 * 1024;
/// Output buffers larger than this are given back once they are written.
const KEPT_OUTPUT: usize = 64 * 1024;

struct Link {
    write: OwnedWriteHalf,
    out: RefCell<Vec<u8>>,
    version: Cell<Version>,
    next_id: Cell<u16>,
    queued: Cell<bool>,
}

struct Relay {
    topics: RefCell<HashMap<Vec<u8>, Vec<Rc<Link>>>>,
    dirty: RefCell<Vec<Rc<Link>>>,
    wake: Notify,
    buffer: RefCell<Box<[u8]>>,
}

/// Relays for every client of `listener` until the process ends.
pub fn run(listener: std::net::TcpListener) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    LocalSet::new().block_on(&runtime, async move {
        let listener = TcpListener::from_std(listener)?;
        let relay = Rc::new(Relay {
            topics: RefCell::default(),
            dirty: RefCell::default(),
            wake: Notify::new(),
            buffer: RefCell::new(vec![0; READ_BUFFER].into_boxed_slice()),
        });
        spawn_local(flush_forever(Rc::clone(&relay)));
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let (read, write) = stream.into_split();
            let link = Rc::new(Link {
                write,
                out: RefCell::default(),
                version: Cell::new(Version::V3),
                next_id: Cell::new(0),
                queued: Cell::new(false),
            });
            spawn_local(serve(Rc::clone(&relay), link, read));
        }
    })
}

async fn serve(relay: Rc<Relay>, link: Rc<Link>, mut read: OwnedReadHalf) {
    let mut held = Vec::new();
    // Reading through `poll_read` into the shared buffer spares the read that would only say "nothing more": the
    // runtime knows that a short read has emptied the socket.
    poll_fn(|context| {
        loop {
            let mut buffer = relay.buffer.borrow_mut();
            buffer[..held.len()].copy_from_slice(&held);
            let mut window = ReadBuf::new(&mut buffer[held.len()..]);
            match Pin::new(&mut read).poll_read(context, &mut window) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Ready(Ok(())) if window.filled().is_empty() => return Poll::Ready(()),
                Poll::Ready(Ok(())) => {}
            }
            let filled = held.len() + window.filled().len();
            let Ok(used) = relay.handle(&link, &buffer[..filled]) else { return Poll::Ready(()) };
            held.clear();
            held.extend_from_slice(&buffer[used..filled]);
        }
    })
    .await;
    relay.topics.borrow_mut().retain(|_, links| {
        links.retain(|other| !Rc::ptr_eq(other, &link));
        !links.is_empty()
    });
}

async fn flush_forever(relay: Rc<Relay>) {
    loop {
        relay.wake.notified().await;
        let mut dirty = relay.dirty.take();
        for link in dirty.drain(..) {
            link.queued.set(false);
            if !link.flush() {
                link.queued.set(true);
                spawn_local(flush_blocked(Rc::clone(&relay), link));
            }
        }
        let mut place = relay.dirty.borrow_mut();
        if place.is_empty() {
            *place = dirty;
        }
    }
}

async fn flush_blocked(relay: Rc<Relay>, link: Rc<Link>) {
    if link.write.writable().await.is_ok() {
        link.queued.set(false);
        relay.queue(&link);
    }
}

impl Link {
    /// Writes what has gathered; false when the socket takes no more for now.
    fn flush(&self) -> bool {
        let mut out = self.out.borrow_mut();
        match self.write.try_write(&out) {
            Ok(written) if written < out.len() => {
                out.drain(..written);
                false
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
            // The reader learns of a broken connection by itself.
            Ok(_) | Err(_) => {
                if out.capacity() > KEPT_OUTPUT {
                    *out = Vec::new();
                }
                out.clear();
                true
            }
        }
    }
}

impl Relay {
    fn queue(&self, link: &Rc<Link>) {
        if !link.queued.replace(true) {
            let mut dirty = self.dirty.borrow_mut();
            if dirty.is_empty() {
                self.wake.notify_one();
            }
            dirty.push(Rc::clone(link));
        }
    }

    /// Handles all whole packets of `bytes` and returns how many bytes they took.
    fn handle(&self, link: &Rc<Link>, bytes: &[u8]) -> Result<usize, Malformed> {
        let mut used = 0;
        while let Some(packet) = wire::split(&bytes[used..])? {
            let whole = &bytes[used..used + packet.len];
            used += packet.len;
            self.handle_packet(link, &packet, whole)?;
        }
        Ok(used)
    }

    fn handle_packet(&self, link: &Rc<Link>, packet: &Packet<'_>, whole: &[u8]) -> Result<(), Malformed> {
        let reply = |first| {
            wire::acknowledge(&mut link.out.borrow_mut(), first, wire::read_id(packet)?);
            self.queue(link);
            Ok(())
        };
        match packet.first & 0xf0 {
            wire::PUBLISH => {
                self.relay(packet, whole)?;
                match packet.first & 0x06 {
                    0 => {}
                    qos => {
                        let at = topic_end(packet.body)?;
                        let id = packet.body.get(at..).and_then(<[u8]>::first_chunk).ok_or(Malformed)?;
                        let kind = if qos == 2 { wire::PUBACK } else { wire::PUBREC };
                        wire::acknowledge(&mut link.out.borrow_mut(), kind, u16::from_be_bytes(*id));
                        self.queue(link);
                    }
                }
                Ok(())
            }
            wire::PUBREC => reply(wire::PUBREL),
            0x60 => reply(wire::PUBCOMP),
            wire::CONNECT => {
                let five = packet.body.get(6) == Some(&5);
                link.version.set(if five { Version::V5 } else { Version::V3 });
                wire::frame(&mut link.out.borrow_mut(), wire::CONNACK, if five { &[0, 0, 0] } else { &[0, 0] });
                self.queue(link);
                Ok(())
            }
            0x80 => {
                let skip = if link.version.get() == Version::V5 { 3 } else { 2 };
                let id = wire::read_id(packet)?.to_be_bytes();
                let filter = packet.body.get(skip..).ok_or(Malformed)?;
                let end = topic_end(filter)?;
                let qos = *filter.get(end).ok_or(Malformed)? & 3;
                self.topics.borrow_mut().entry(filter[2..end].to_vec()).or_default().push(Rc::clone(link));
                let body = if skip == 3 { vec![id[0], id[1], 0, qos] } else { vec![id[0], id[1], qos] };
                wire::frame(&mut link.out.borrow_mut(), wire::SUBACK, &body);
                self.queue(link);
                Ok(())
            }
            wire::PINGREQ => {
                wire::frame(&mut link.out.borrow_mut(), wire::PINGRESP, &[]);
                self.queue(link);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn relay(&self, packet: &Packet<'_>, whole: &[u8]) -> Result<(), Malformed> {
        let end = topic_end(packet.body)?;
        let topics = self.topics.borrow();
        let Some(links) = topics.get(&packet.body[2..end]) else { return Ok(()) };
        let id_at = (packet.first & 0x06 != 0).then(|| whole.len() - packet.body.len() + end);
        for link in links {
            let mut out = link.out.borrow_mut();
            let start = out.len();
            out.extend_from_slice(whole);
            if let Some(at) = id_at {
                let id = link.next_id.get() % u16::MAX + 1;
                link.next_id.set(id);
                out.get_mut(start + at..start + at + 2).ok_or(Malformed)?.copy_from_slice(&id.to_be_bytes());
            }
            drop(out);
            self.queue(link);
        }
        Ok(())
    }
}

/// Where the string at the start of `body` ends.
fn topic_end(body: &[u8]) -> Result<usize, Malformed> {
    let len = body.first_chunk::<2>().ok_or(Malformed)?;
    let end = 2 + usize::from(u16::from_be_bytes(*len));
    if end <= body.len() { Ok(end) } else { Err(Malformed) }
}
