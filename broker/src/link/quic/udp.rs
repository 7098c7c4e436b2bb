//! The UDP socket of an endpoint, and how the threads that send through it are heard by the one that receives.

use quinn_proto::Transmit;
use quinn_udp::{EcnCodepoint, RecvMeta, UdpSocketState};
use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSliceMut};
use std::net::UdpSocket;
#[cfg(test)]
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};

/// Datagrams made at once for one connection, which the system cuts apart (GSO) where it can.
const SEGMENTS_MAX: usize = 10;

/// What all connections of an endpoint share.
#[derive(Debug)]
pub(super) struct Road {
    /// Where packets go out.
    pub(super) udp: Udp,
    /// What the endpoint is told.
    pub(super) mail: Mailbox,
}

impl Road {
    pub(super) fn new(socket: UdpSocket) -> io::Result<Self> {
        Ok(Self { udp: Udp::new(socket)?, mail: Mailbox::default() })
    }
}

/// A socket that any thread may send through.
#[derive(Debug)]
pub(super) struct Udp {
    socket: UdpSocket,
    state: UdpSocketState,
    /// Packets that were made when the system took no more.
    kept: Mutex<VecDeque<(Transmit, Vec<u8>)>>,
    is_full: AtomicBool,
    /// Every so many sends the system has no room, as the tests want it; 0: never.
    #[cfg(test)]
    pub(super) fails_every: AtomicUsize,
    #[cfg(test)]
    sends: AtomicUsize,
}

impl Udp {
    fn new(socket: UdpSocket) -> io::Result<Self> {
        let state = UdpSocketState::new((&socket).into())?;
        Ok(Self {
            socket,
            state,
            kept: Mutex::default(),
            is_full: AtomicBool::new(false),
            #[cfg(test)]
            fails_every: AtomicUsize::new(0),
            #[cfg(test)]
            sends: AtomicUsize::new(0),
        })
    }

    /// Datagrams that may be made for one [`Self::send`].
    pub(super) fn segments_max(&self) -> usize {
        self.state.max_gso_segments().clamp(1, SEGMENTS_MAX)
    }

    /// Datagrams that one read may hold.
    pub(super) fn gro_segments(&self) -> usize {
        self.state.gro_segments().max(1)
    }

    /// Whether a router may cut datagrams, so that the size of the path cannot be found out.
    pub(super) fn may_fragment(&self) -> bool {
        self.state.may_fragment()
    }

    /// Whether the system takes no more for now. What is sent all the same is kept, so nobody should make more.
    pub(super) fn is_full(&self) -> bool {
        self.is_full.load(Ordering::SeqCst)
    }

    /// Sends `bytes` that a connection made, or keeps them until [`Self::flush`]. Errors of the path are losses, and QUIC's to mend.
    pub(super) fn send(&self, transmit: Transmit, bytes: &[u8]) {
        if self.has_no_room() || !self.try_send(&transmit, bytes) {
            let mut kept = self.kept();
            kept.push_back((transmit, bytes.to_vec()));
            // Under the lock, so that a flush sees both.
            self.is_full.store(true, Ordering::SeqCst);
        }
    }

    /// Sends what belongs to no connection; without room it is lost, and its reader asks again.
    pub(super) fn respond(&self, transmit: &Transmit, bytes: &[u8]) {
        let _ = self.try_send(transmit, bytes.get(..transmit.size).unwrap_or(bytes));
    }

    /// Sends what was kept; the error is `WouldBlock` while there is no room.
    pub(super) fn flush(&self) -> io::Result<()> {
        let mut kept = self.kept();
        while let Some((transmit, bytes)) = kept.front() {
            if !self.try_send(transmit, bytes) {
                return Err(ErrorKind::WouldBlock.into());
            }
            kept.pop_front();
        }
        self.is_full.store(false, Ordering::SeqCst);
        Ok(())
    }

    /// Receives into as many buffers as there are datagrams, or runs of datagrams (GRO).
    pub(super) fn receive(&self, buffers: &mut [IoSliceMut<'_>], metas: &mut [RecvMeta]) -> io::Result<usize> {
        self.state.recv((&self.socket).into(), buffers, metas)
    }

    fn try_send(&self, transmit: &Transmit, bytes: &[u8]) -> bool {
        let transmit = quinn_udp::Transmit {
            destination: transmit.destination,
            ecn: transmit.ecn.and_then(|ecn| EcnCodepoint::from_bits(ecn as u8)),
            contents: bytes,
            segment_size: transmit.segment_size,
            src_ip: transmit.src_ip,
        };
        let sent = self.state.send((&self.socket).into(), &transmit);
        sent.is_ok()
    }

    /// As the tests want it. A socket that had no room is told of by the system when it has, so only the first try can fail here.
    #[cfg(test)]
    fn has_no_room(&self) -> bool {
        let every = self.fails_every.load(Ordering::SeqCst);
        every > 0 && self.sends.fetch_add(1, Ordering::SeqCst).is_multiple_of(every)
    }

    #[cfg(not(test))]
    #[allow(clippy::unused_self, reason = "the tests use it")]
    fn has_no_room(&self) -> bool {
        false
    }

    fn kept(&self) -> MutexGuard<'_, VecDeque<(Transmit, Vec<u8>)>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Numbers of connections with which the endpoint has something to do.
#[derive(Debug, Default)]
pub(super) struct Mailbox(Mutex<Mail>);

#[derive(Debug, Default)]
struct Mail {
    numbers: Vec<usize>,
    /// The endpoint looks here before it rests.
    is_awake: bool,
    waker: Option<Waker>,
}

impl Mailbox {
    /// Says that there is something to do with a connection.
    pub(super) fn post(&self, number: usize) {
        let mut mail = self.lock();
        mail.numbers.push(number);
        if !std::mem::replace(&mut mail.is_awake, true)
            && let Some(waker) = mail.waker.clone()
        {
            drop(mail);
            waker.wake();
        }
    }

    /// The same, but only if that wakes nobody. False: the caller should do it by itself.
    pub(super) fn post_if_awake(&self, number: usize) -> bool {
        let mut mail = self.lock();
        if mail.is_awake {
            mail.numbers.push(number);
        }
        mail.is_awake
    }

    /// For the endpoint: takes what came into `numbers`, which is empty.
    pub(super) fn take(&self, numbers: &mut Vec<usize>) {
        let mut mail = self.lock();
        mail.is_awake = true;
        std::mem::swap(&mut mail.numbers, numbers);
    }

    /// For the endpoint: rests until it is woken. False: something has come.
    pub(super) fn rest(&self, cx: &Context<'_>) -> bool {
        let mut mail = self.lock();
        if !mail.numbers.is_empty() {
            return false;
        }
        mail.is_awake = false;
        if !mail.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            mail.waker = Some(cx.waker().clone());
        }
        true
    }

    fn lock(&self) -> MutexGuard<'_, Mail> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, SocketAddr};
    use std::sync::Arc;
    use std::task::Wake;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn who_rests_is_woken_once_and_who_is_awake_never() {
        let (mail, count) = (Mailbox::default(), Arc::new(Count::default()));
        let waker = Waker::from(Arc::clone(&count));
        let cx = Context::from_waker(&waker);
        let take = || {
            let mut numbers = vec![];
            mail.take(&mut numbers);
            numbers
        };
        assert!(take().is_empty());
        assert!(mail.post_if_awake(1), "it is awake");
        assert!(!mail.rest(&cx), "something came meanwhile");
        assert_eq!(take(), [1]);
        assert!(mail.rest(&cx));
        assert!(!mail.post_if_awake(2), "it rests");
        assert_eq!(count.0.load(Ordering::SeqCst), 0);
        mail.post(3);
        mail.post(4);
        assert!(mail.post_if_awake(5), "it was woken");
        assert_eq!(count.0.load(Ordering::SeqCst), 1);
        assert_eq!(take(), [3, 4, 5]);
    }

    #[test]
    fn what_the_system_does_not_take_is_kept_and_sent_in_order() {
        let theirs = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let ours = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        ours.set_nonblocking(true).unwrap();
        let udp = Udp::new(ours).unwrap();
        let to =
            |destination: SocketAddr, size| Transmit { destination, ecn: None, size, segment_size: None, src_ip: None };
        let destination = theirs.local_addr().unwrap();
        // As if the system had had no room for the first.
        udp.is_full.store(true, Ordering::SeqCst);
        udp.kept().push_back((to(destination, 1), b"1".to_vec()));
        udp.kept().push_back((to(destination, 1), b"2".to_vec()));
        assert!(udp.is_full());
        udp.flush().unwrap();
        assert!(!udp.is_full());
        udp.send(to(destination, 1), b"3");
        let mut heard = vec![];
        for _ in 0..3 {
            let mut buffer = [0; 8];
            let (length, _) = theirs.recv_from(&mut buffer).unwrap();
            heard.extend_from_slice(&buffer[..length]);
        }
        assert_eq!(heard, b"123");
    }
}
