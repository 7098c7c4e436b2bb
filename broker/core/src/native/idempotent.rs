//! What may be taken from a first flight that somebody may have recorded and sent again (TLS 1.3 early data, RFC 8446
//! section 8): only what makes no difference the second time.

use parlor_protocol::link::Up;
use parlor_protocol::mqtt::{Packet, Property, Publish, QoS};
use serde::Deserialize;
use serde::de::IgnoredAny;
use std::borrow::Cow;

/// Whether this packet may be handed in from early data. CONNECT without Clean Start, SUBSCRIBE, PUBACK and PINGREQ; a message with a client
/// id, which makes one message however often it is said; a receipt, which never moves a mark back. Never a command.
pub fn is_idempotent(packet: &Packet<'_>) -> bool {
    match packet {
        // A will would be one more message each time, and Clean Start would end what the session has gathered meanwhile.
        Packet::Connect(connect) => connect.will.is_none() && !connect.clean_start,
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
        Up::Hello { clean, .. } => !clean,
        Up::Ping {} | Up::Ack { .. } | Up::Receipt { .. } | Up::Subscribe { .. } => true,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::native::up::{self, Scratch};
    use parlor_protocol::link::Body;
    use parlor_protocol::mqtt::{
        Ack, Connect, Disconnect, PacketId, Properties, ReasonCode, Subscribe, SubscribeFilters, SubscriptionOptions,
        Unsubscribe, UnsubscribeFilters, Version, Will,
    };

    #[test]
    fn only_what_makes_no_difference_the_second_time_is_taken_early() {
        fn publish<'a>(topic: &'a str, payload: &'a [u8]) -> Publish<'a> {
            Publish {
                dup: false,
                qos: QoS::AtLeastOnce,
                retain: false,
                topic,
                packet_id: PacketId::new(1),
                properties: Properties::EMPTY,
                payload,
            }
        }
        #[track_caller]
        fn check(topic: &str, payload: &[u8], expect: bool) {
            assert_eq!(is_idempotent(&Packet::Publish(publish(topic, payload))), expect, "{topic} {payload:?}");
        }
        let said = br#"{"text":"x","id":"a1"}"#;
        check("im/v1/to/bob/msg", said, true);
        check("im/v1/to/bob/msg", br#"{"body":{"a":1},"id":"a1","kind":"k"}"#, true);
        check("im/v1/to/bob/receipt", br#"{"read":3}"#, true);
        // Without a client id, or where it is none.
        check("im/v1/to/bob/msg", b"plain text", false);
        check("im/v1/to/bob/msg", br#"{"text":"x"}"#, false);
        check("im/v1/to/bob/msg", br#"{"text":"x","id":""}"#, false);
        check("im/v1/to/bob/msg", br#"{"temp":1,"id":"a1"}"#, false);
        check("im/v1/to/r-kitchen/msg", said, false);
        check("im/v1/to/msg", said, false);
        check("home/x", said, false);
        for word in ["recall", "edit", "typing", "stream/x", "cmd/set", "cmd/msg", "cmdcancel/c1", "desired", "x/msg"] {
            check(&format!("im/v1/to/lamp/{word}"), said, false);
            check(&format!("im/v1/me/{word}"), said, false);
        }
        let mut id = vec![];
        Property::UserProperty("im-id", "a1").encode(&mut id);
        let properties = Properties::from_validated(&id);
        let by_property = |topic| Packet::Publish(Publish { properties, ..publish(topic, b"plain text") });
        assert!(is_idempotent(&by_property("im/v1/to/bob/msg")));
        assert!(!is_idempotent(&by_property("im/v1/to/lamp/cmd/set")));
        let qos2 = Publish { qos: QoS::ExactlyOnce, ..publish("im/v1/to/bob/msg", said) };
        assert!(!is_idempotent(&Packet::Publish(qos2)));
        let alias = Properties::from_validated(b"\x23\x00\x01");
        assert!(!is_idempotent(&Packet::Publish(Publish { properties: alias, ..publish("im/v1/to/bob/msg", said) })));

        let properties = Properties::EMPTY;
        let connect = Connect {
            version: Version::V5,
            clean_start: false,
            keep_alive_secs: 0,
            properties,
            client_id: "c",
            will: None,
            username: None,
            password: None,
        };
        let will = Will { qos: QoS::AtMostOnce, retain: false, properties, topic: "w", payload: b"" };
        let ack = Ack { packet_id: PacketId::new(1).unwrap(), reason: ReasonCode::SUCCESS, properties };
        let filters = [("a", SubscriptionOptions::at_most(QoS::AtLeastOnce))];
        let filters = SubscribeFilters::from_slice(&filters);
        let subscribe = Packet::Subscribe(Subscribe { packet_id: ack.packet_id, properties, filters });
        let filters = UnsubscribeFilters::from_slice(&["a"]);
        let unsubscribe = Packet::Unsubscribe(Unsubscribe { packet_id: ack.packet_id, properties, filters });
        let bye = Packet::Disconnect(Disconnect { reason: ReasonCode::SUCCESS, properties });
        for (packet, expect) in [
            (Packet::Connect(connect), true),
            (Packet::Connect(Connect { will: Some(will), ..connect }), false),
            (Packet::Connect(Connect { clean_start: true, ..connect }), false),
            (Packet::PubAck(ack), true),
            (subscribe, true),
            (Packet::PingReq, true),
            (Packet::PubRec(ack), false),
            (Packet::PubRel(ack), false),
            (Packet::PubComp(ack), false),
            (unsubscribe, false),
            (bye, false),
        ] {
            assert_eq!(is_idempotent(&packet), expect, "{packet:?}");
        }
    }

    #[test]
    fn early_frames_are_those_whose_packets_are() {
        let send = |to, id| Up::Send {
            packet_id: 1,
            to,
            id,
            kind: "",
            ttl_s: 0,
            re: None,
            quiet: false,
            level: 0,
            fallback: "",
            body: Body::Text("x"),
        };
        let command = Up::Command {
            packet_id: 1,
            to: "lamp",
            name: "set",
            id: "c1",
            args: "",
            deadline_ms: 0,
            persist: false,
            once: true,
        };
        let topic = "im/v1/to/lamp/cmd/set";
        let cases = [
            (send("bob", "a1"), true),
            (send("bob", ""), false),
            (send("r-kitchen", "a1"), false),
            (Up::Receipt { packet_id: 1, to: "bob", recv: 0, read: 1 }, true),
            (Up::Ping {}, true),
            (Up::Ack { packet_id: 1 }, true),
            (Up::Subscribe { packet_id: 1, filter: "a", options: 0 }, true),
            (Up::Unsubscribe { packet_id: 1, filter: "a" }, false),
            (Up::Bye { will: false }, false),
            (Up::Typing { to: "bob", on: true }, false),
            (Up::Stream { to: "bob", name: "s", payload: b"" }, false),
            (Up::Telemetry { topic: "a", payload: b"" }, false),
            (Up::Publish { packet_id: 1, retain: false, topic, properties: b"", payload: b"" }, false),
            (Up::Request { packet_id: 1, path: "to/lamp/cmd/set", payload: b"{}" }, false),
            (command, false),
            (Up::CancelCommand { packet_id: 1, to: "lamp", id: "c1" }, false),
            (Up::Desired { packet_id: 1, to: "lamp", patch: "{}" }, false),
            (Up::Recall { packet_id: 1, to: "bob", seq: 1 }, false),
            (Up::Synced { packet_id: 1, pos: 1 }, false),
        ];
        for (frame, expect) in cases {
            assert_eq!(is_idempotent_frame(&frame), expect, "{frame:?}");
            if let Ok(as_packet) = up::packet(&frame, None, &mut Scratch::default(), is_idempotent) {
                assert_eq!(as_packet, expect, "{frame:?}");
            }
        }
    }
}
