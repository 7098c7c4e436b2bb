//! What may be taken from a first flight that somebody may have recorded and sent again (TLS 1.3 early data, RFC 8446
//! section 8): only what makes no difference the second time.

use parlor_protocol::link::Up;
use parlor_protocol::mqtt::{Packet, Property, Publish, QoS};
use serde::Deserialize;
use serde::de::IgnoredAny;
use std::borrow::Cow;

/// Whether this packet may be handed in from early data. CONNECT, SUBSCRIBE, PUBACK and PINGREQ; a message with a client
/// id, which makes one message however often it is said; a receipt, which never moves a mark back. Never a command.
pub fn is_idempotent(packet: &Packet<'_>) -> bool {
    match packet {
        // A will would be one more message each time.
        Packet::Connect(connect) => connect.will.is_none(),
        Packet::Subscribe(_) | Packet::PubAck(_) | Packet::PingReq => true,
        // A topic alias has a meaning only in the order of the connection.
        Packet::Publish(p) if p.properties.topic_alias().is_some() => false,
        Packet::Publish(p) => match place(p.topic) {
            Some((_, "receipt")) => p.qos != QoS::ExactlyOnce,
            Some((address, "msg")) => has_memory(address) && p.qos != QoS::ExactlyOnce && has_id(p),
            _ => false,
        },
        _ => false,
    }
}

/// As [`is_idempotent`], of a frame.
pub fn is_idempotent_frame(frame: &Up<'_>) -> bool {
    match frame {
        Up::Hello { .. } | Up::Ping {} | Up::Ack { .. } | Up::Receipt { .. } | Up::Subscribe { .. } => true,
        Up::Send { id, to, .. } => !id.is_empty() && has_memory(to),
        _ => false,
    }
}

/// Address and last level of `im/v1/to/{address}/{what}`.
fn place(topic: &str) -> Option<(&str, &str)> {
    let (address, what) = topic.strip_prefix("im/v1/to/")?.split_once('/')?;
    (!what.contains('/')).then_some((address, what))
}

/// A volatile room checks no ids: there the same message comes twice.
fn has_memory(address: &str) -> bool {
    !address.starts_with("r-")
}

fn has_id(p: &Publish<'_>) -> bool {
    /// An object is an envelope, in which `id` is a client id, if it has one of the others.
    #[derive(Deserialize)]
    struct Envelope<'a> {
        #[serde(borrow)]
        id: Option<Cow<'a, str>>,
        text: Option<IgnoredAny>,
        body: Option<IgnoredAny>,
    }
    let is_said = |property| matches!(property, Property::UserProperty("im-id", id) if !id.is_empty());
    if p.properties.iter().any(is_said) {
        return true;
    }
    let Ok(Envelope { id: Some(id), text, body }) = serde_json::from_slice(p.payload) else { return false };
    !id.is_empty() && (text.is_some() || body.is_some())
}
