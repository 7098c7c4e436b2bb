//! QUIC connections on the hub's thread: the control stream is a link, and so is each further stream.

use super::link::{Arrival, Conn, Early};
use super::socket::Socket;
use super::{Driver, Wire};
use crate::link::{Layer, NewQuic, QuicConnection, QuicStream, close_code};
use parlor_core::{Peer, StreamKind};
use parlor_protocol::link::{self, Decoded, Up};
use parlor_protocol::mqtt::ReasonCode;
use std::future::poll_fn;
use std::rc::Rc;

impl Driver {
    /// Takes a QUIC connection in: the tasks of its streams run until it is closed.
    pub(crate) fn admit_quic(self: &Rc<Self>, new: NewQuic, certificate: Option<String>, allow_anonymous: bool) {
        let now = self.now();
        let listener = u32::try_from(new.listener).unwrap_or(u32::MAX);
        let arrival = Arrival { peer: new.peer, listener, since_ms: now.wall_ms };
        let peer = Peer { address: new.peer.ip().to_canonical(), allow_anonymous, certificate, native: new.native };
        let Some(link) = self.hub.borrow_mut().open(now, &peer) else {
            let connection = new.control.connection();
            return connection.close(close_code(ReasonCode::SERVER_BUSY), b"too many connections");
        };
        let connection = new.early.is_some().then(|| new.control.connection().clone());
        let socket = Socket::Control(Box::new(new.control), None);
        let mut conn = Conn::new(link, socket, Layer::Plain, vec![], Wire::of(new.native), arrival);
        if let (Some(handshake), Some(connection)) = (new.early, connection) {
            let early = Rc::new(Early::default());
            conn.early = Some(Rc::clone(&early));
            tokio::task::spawn_local(async move {
                if handshake.complete().await {
                    early.complete();
                } else {
                    connection.close(
                        close_code(ReasonCode::MAXIMUM_CONNECT_TIME),
                        b"the handshake was not completed in time",
                    );
                }
            });
        }
        self.run(Rc::new(conn));
    }

    /// Begins to take further streams of a connection, once its client is in. Until then what it sends there waits with
    /// QUIC, within the windows it was granted.
    pub(super) fn look_for_streams(self: &Rc<Self>, control: &Rc<Conn>) {
        if control.has_streams.get() || !self.hub.borrow().is_connected(control.link) {
            return;
        }
        control.has_streams.set(true);
        if let Some(connection) = control.socket.borrow().connection().cloned() {
            tokio::task::spawn_local(streams(Rc::clone(self), Rc::clone(control), connection));
        }
    }

    /// Opens the datagrams of a native connection whose client asked for them.
    fn admit_datagrams(self: &Rc<Self>, control: &Conn, connection: &QuicConnection) -> Option<Rc<Conn>> {
        if !self.hub.borrow().wants_datagrams(control.link) {
            return None;
        }
        let bytes_max = u16::try_from(connection.datagram_bytes_max()?).unwrap_or(u16::MAX);
        let link = self.hub.borrow_mut().open_datagrams(self.now(), control.link, bytes_max)?;
        let socket = Socket::Datagrams(connection.clone());
        let conn = Rc::new(Conn::new(link, socket, Layer::Plain, vec![], control.wire, control.arrival));
        self.run(Rc::clone(&conn));
        Some(conn)
    }

    fn take_datagram(&self, datagrams: Option<&Conn>, bytes: &[u8]) {
        let Some(conn) = datagrams else {
            // MQTT has none, and who speaks frames says in Hello that it has.
            return self.layer_refused("quic_datagram_unasked");
        };
        let (now, mut hub) = (self.now(), self.hub.borrow_mut());
        if !hub.may_read(conn.link) {
            return self.layer_refused("quic_datagram_too_fast");
        }
        match link::decode_datagram::<Up<'_>>(bytes) {
            Ok(Decoded::Frame(frame)) => hub.frame(now, conn.link, &frame, bytes.len()),
            Ok(Decoded::Unknown { tag, size }) => hub.unknown_frame(now, conn.link, tag, size),
            Err(error) => hub.malformed_frame(now, conn.link, &error),
        }
        drop(hub);
        self.wake();
    }

    fn admit_further(self: &Rc<Self>, control: &Conn, stream: QuicStream) {
        let kind = match control.wire {
            Wire::Mqtt => StreamKind::Data,
            Wire::Native => StreamKind::Bulk,
        };
        let Some(link) = self.hub.borrow_mut().open_stream(self.now(), control.link, kind) else {
            stream.refuse(close_code(ReasonCode::QUOTA_EXCEEDED));
            return self.wake();
        };
        let socket = Socket::Stream(Box::new(stream));
        let mut conn = Conn::new(link, socket, Layer::Plain, vec![], control.wire, control.arrival);
        conn.follow(control);
        conn.early.clone_from(&control.early);
        self.run(Rc::new(conn));
    }
}

/// Takes further streams, and datagrams of a native client, until the connection ends.
async fn streams(driver: Rc<Driver>, control: Rc<Conn>, connection: QuicConnection) {
    let datagrams = driver.admit_datagrams(&control, &connection);
    let early = control.early.clone();
    loop {
        let is_complete = early.as_ref().is_none_or(|early| early.is_complete());
        tokio::select! {
            stream = poll_fn(|cx| connection.poll_accept(cx)) => match stream {
                Ok(stream) => driver.admit_further(&control, stream),
                Err(_) => break,
            },
            // Nothing that a datagram can say may be repeated.
            datagram = poll_fn(|cx| connection.poll_datagram(cx)), if is_complete => match datagram {
                Ok(bytes) => driver.take_datagram(datagrams.as_deref(), &bytes),
                Err(_) => break,
            },
            () = wait(early.as_deref()), if !is_complete => {}
        }
    }
}

async fn wait(early: Option<&Early>) {
    if let Some(early) = early {
        early.wait().await;
    }
}
