//! QUIC connections on the hub's thread: the control stream is a link, and so is each further stream.

use super::link::{Arrival, Conn, Early};
use super::socket::Socket;
use super::{Driver, Wire};
use crate::link::{Layer, NewQuic, QuicStream, close_code};
use parlor_core::{Peer, StreamKind};
use parlor_protocol::mqtt::{Packet, Property, QoS, ReasonCode};
use quinn::{Connection, RecvStream, SendStream};
use std::rc::Rc;

impl Driver {
    /// Takes a QUIC connection in: the tasks of its streams run until it is closed.
    pub(crate) fn admit_quic(self: &Rc<Self>, new: NewQuic, certificate: Option<String>, allow_anonymous: bool) {
        let now = self.now();
        let listener = u32::try_from(new.listener).unwrap_or(u32::MAX);
        let arrival = Arrival { peer: new.peer, listener, since_ms: now.wall_ms };
        let peer = Peer { address: new.peer.ip().to_canonical(), allow_anonymous, certificate, native: new.native };
        let Some(link) = self.hub.borrow_mut().open(now, &peer) else {
            return new.connection.close(close_code(ReasonCode::SERVER_BUSY), b"too many connections");
        };
        let stream = QuicStream::new(new.connection, new.send, new.recv);
        let socket = Socket::Control(Box::new(stream), None);
        let mut conn = Conn::new(link, socket, Layer::Plain, vec![], Wire::of(new.native), arrival);
        if let Some(handshake) = new.early {
            let early = Rc::new(Early::default());
            conn.early = Some(Rc::clone(&early));
            tokio::task::spawn_local(async move {
                handshake.complete().await;
                early.complete();
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

    fn admit_further(
        self: &Rc<Self>,
        control: &Conn,
        connection: Connection,
        mut send: SendStream,
        mut recv: RecvStream,
    ) {
        let kind = match control.wire {
            Wire::Mqtt => StreamKind::Data,
            Wire::Native => StreamKind::Bulk,
        };
        let Some(link) = self.hub.borrow_mut().open_stream(self.now(), control.link, kind) else {
            let code = close_code(ReasonCode::QUOTA_EXCEEDED);
            // It may have ended by itself meanwhile.
            let _ = send.reset(code);
            let _ = recv.stop(code);
            return self.wake();
        };
        let socket = Socket::Stream(Box::new(QuicStream::new(connection, send, recv)));
        let mut conn = Conn::new(link, socket, Layer::Plain, vec![], control.wire, control.arrival);
        conn.follow(control);
        conn.early.clone_from(&control.early);
        self.run(Rc::new(conn));
    }
}

/// Takes further streams until the connection ends.
async fn streams(driver: Rc<Driver>, control: Rc<Conn>, connection: Connection) {
    while let Ok((send, recv)) = connection.accept_bi().await {
        driver.admit_further(&control, connection.clone(), send, recv);
    }
}

/// Whether a packet may be handed in from a first flight (0-RTT) before the handshake is complete: whoever sent it again
/// would change nothing. Messages with an id are known again; commands never come this way.
pub(super) fn is_repeatable(packet: &Packet<'_>) -> bool {
    match packet {
        Packet::Connect(_) | Packet::PingReq | Packet::Subscribe(_) | Packet::PubAck(_) => true,
        Packet::Publish(p) if p.qos != QoS::AtMostOnce => {
            let Some((_, what)) = p.topic.strip_prefix("im/v1/to/").and_then(|rest| rest.split_once('/')) else {
                return false;
            };
            let has_id =
                || p.properties.iter().any(|p| matches!(p, Property::UserProperty("im-id", id) if !id.is_empty()));
            what == "receipt" || (what == "msg" && has_id())
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use parlor_protocol::mqtt::{Ack, PacketId, Properties, Publish};

    #[test]
    fn of_a_first_flight_only_what_can_be_repeated_is_taken() {
        let mut with_id = vec![];
        Property::UserProperty("im-id", "a1").encode(&mut with_id);
        let publish = |topic, qos, properties| {
            is_repeatable(&Packet::Publish(Publish {
                dup: false,
                qos,
                retain: false,
                topic,
                packet_id: PacketId::new(1),
                properties: Properties::from_validated(properties),
                payload: b"x",
            }))
        };
        let one = QoS::AtLeastOnce;
        assert!(publish("im/v1/to/bob/msg", one, &with_id));
        assert!(publish("im/v1/to/bob/receipt", one, &[]));
        assert!(!publish("im/v1/to/bob/msg", one, &[]));
        assert!(!publish("im/v1/to/bob/msg", QoS::AtMostOnce, &with_id));
        assert!(!publish("im/v1/to/lamp/cmd/set", one, &with_id));
        assert!(!publish("im/v1/to/lamp/cmd/msg", one, &with_id));
        assert!(!publish("im/v1/me/contact/bob", one, &with_id));
        assert!(!publish("home/lamp", one, &with_id));
        let ack =
            Ack { packet_id: PacketId::new(1).unwrap(), reason: ReasonCode::SUCCESS, properties: Properties::EMPTY };
        assert!(is_repeatable(&Packet::PubAck(ack)) && !is_repeatable(&Packet::PubRel(ack)));
    }
}
