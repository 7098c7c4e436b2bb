//! Frames of a native client as the packets an MQTT 5 client would have sent.

use super::json::is_value;
use super::{FRAME_MAX, options};
use crate::im::json::{put_field, put_num, put_str};
use base64ct::{Base64, Encoding};
use parlor_protocol::link::{Body, Up};
use parlor_protocol::mqtt::{
    Ack, Connect, Disconnect, Packet, PacketId, Properties, Property, Publish, QoS, ReasonCode, Subscribe,
    SubscribeFilters, SubscriptionOptions, Unsubscribe, UnsubscribeFilters, Version,
};

/// Memory for one translation, used again for the next.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    topic: String,
    payload: Vec<u8>,
    properties: Vec<u8>,
}

/// Why a frame is no packet; the client is told so and may go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wrong {
    /// A field that is to be JSON is not.
    NotJson(&'static str),
    /// A word that a client cannot say, or one of a newer build.
    NoSuchState,
    /// An ordinary message to a topic of the messaging rooms.
    Messaging,
}

impl Wrong {
    /// For a person.
    pub(crate) fn text(self) -> String {
        match self {
            Self::NotJson(field) => format!("\"{field}\" is not one JSON value"),
            Self::NoSuchState => "this state is not known here".to_owned(),
            Self::Messaging => "topics below im/ have frames of their own, or Request".to_owned(),
        }
    }
}

/// Where a request that came on a stream of its own is to be answered.
pub(crate) type AnswerTo<'a> = Option<&'a str>;

/// Hands the packet that says what `frame` says to `then`.
pub(crate) fn packet<R>(
    frame: &Up<'_>,
    answer_to: AnswerTo<'_>,
    scratch: &mut Scratch,
    then: impl FnOnce(&Packet<'_>) -> R,
) -> Result<R, Wrong> {
    let Scratch { topic, payload, properties } = scratch;
    topic.clear();
    payload.clear();
    properties.clear();
    // A large message must not keep its memory for ever.
    payload.shrink_to(64 * 1024);
    let packet_id = match *frame {
        Up::Hello { .. } => return Ok(then(&Packet::Connect(connect(frame, properties)))),
        Up::Ping {} => return Ok(then(&Packet::PingReq)),
        Up::Bye { will } => {
            let reason = if will { ReasonCode::DISCONNECT_WITH_WILL } else { ReasonCode::SUCCESS };
            return Ok(then(&Packet::Disconnect(Disconnect { reason, properties: Properties::EMPTY })));
        }
        Up::Ack { packet_id } => {
            let ack = Ack { packet_id: number(packet_id), reason: ReasonCode::SUCCESS, properties: Properties::EMPTY };
            return Ok(then(&Packet::PubAck(ack)));
        }
        Up::Subscribe { packet_id, filter, options: bits } => {
            let options = SubscriptionOptions::from_bits(bits, Version::V5).unwrap_or(options(QoS::AtLeastOnce));
            let filters = [(filter, options)];
            let filters = SubscribeFilters::from_slice(&filters);
            let packet_id = number(packet_id);
            let packet = Subscribe { packet_id, properties: Properties::EMPTY, filters };
            return Ok(then(&Packet::Subscribe(packet)));
        }
        Up::Unsubscribe { packet_id, filter } => {
            let filters = [filter];
            let filters = UnsubscribeFilters::from_slice(&filters);
            let packet_id = number(packet_id);
            let packet = Unsubscribe { packet_id, properties: Properties::EMPTY, filters };
            return Ok(then(&Packet::Unsubscribe(packet)));
        }
        Up::Telemetry { topic, payload } => {
            return ordinary(topic, payload, b"", false, 0).map(|publish| then(&Packet::Publish(publish)));
        }
        Up::Publish { packet_id, retain, topic, properties, payload } => {
            return ordinary(topic, payload, properties, retain, packet_id)
                .map(|publish| then(&Packet::Publish(publish)));
        }
        Up::Stream { to, name, payload } => {
            put_topic(topic, &["to/", to, "/stream/", name]);
            return Ok(then(&Packet::Publish(publish(topic, payload, &[], 0))));
        }
        Up::Request { packet_id, path, payload: said } => {
            put_topic(topic, &[path]);
            payload.extend_from_slice(said);
            packet_id
        }
        _ => request(frame, topic, payload)?,
    };
    let packet_id = match answer_to {
        Some(answer_to) => {
            Property::ResponseTopic(answer_to).encode(properties);
            // On a stream of its own a request is always answered.
            packet_id.max(1)
        }
        None => packet_id,
    };
    Ok(then(&Packet::Publish(publish(topic, payload, properties, packet_id))))
}

/// The packet identifier under which a frame is to be answered; 0: none.
pub(crate) fn packet_id(frame: &Up<'_>) -> u16 {
    match *frame {
        Up::Send { packet_id, .. }
        | Up::Receipt { packet_id, .. }
        | Up::Recall { packet_id, .. }
        | Up::Edit { packet_id, .. }
        | Up::Command { packet_id, .. }
        | Up::CancelCommand { packet_id, .. }
        | Up::CommandState { packet_id, .. }
        | Up::Reported { packet_id, .. }
        | Up::Desired { packet_id, .. }
        | Up::Describe { packet_id, .. }
        | Up::Status { packet_id, .. }
        | Up::Sync { packet_id, .. }
        | Up::Synced { packet_id, .. }
        | Up::History { packet_id, .. }
        | Up::Request { packet_id, .. }
        | Up::Publish { packet_id, .. } => packet_id,
        _ => 0,
    }
}

fn connect<'a>(frame: &Up<'a>, properties: &'a mut Vec<u8>) -> Connect<'a> {
    let Up::Hello {
        account,
        secret,
        terminal,
        keep_alive_s,
        expiry_s,
        receive_max,
        frame_max,
        clean,
        core_level,
        platform,
        app,
        ..
    } = *frame
    else {
        unreachable!("only called for Hello")
    };
    let mut put = |property: Property<'_>| property.encode(properties);
    put(Property::SessionExpiryInterval(expiry_s));
    put(Property::ReceiveMaximum(receive_max));
    put(Property::MaximumPacketSize(u32::from(if frame_max == 0 { FRAME_MAX } else { frame_max })));
    let level = core_level.to_string();
    for (name, value) in [("im-level", &*level), ("im-platform", platform), ("im-app", app)] {
        if !value.is_empty() && value != "0" {
            put(Property::UserProperty(name, value));
        }
    }
    Connect {
        version: Version::V5,
        clean_start: clean,
        keep_alive_secs: keep_alive_s,
        properties: Properties::from_validated(properties),
        client_id: terminal,
        will: None,
        username: Some(account).filter(|account| !account.is_empty()),
        password: Some(secret.0).filter(|secret| !secret.is_empty()),
    }
}

/// A frame that says where a packet identifier is needed has one.
fn number(packet_id: u16) -> PacketId {
    PacketId::new(packet_id.max(1)).expect("1 at least")
}

fn put_topic(topic: &mut String, parts: &[&str]) {
    topic.push_str("im/v1/");
    for part in parts {
        topic.push_str(part);
    }
}

/// QoS 0 if `packet_id` is 0, else QoS 1.
fn publish<'a>(topic: &'a str, payload: &'a [u8], properties: &'a [u8], packet_id: u16) -> Publish<'a> {
    let packet_id = PacketId::new(packet_id);
    Publish {
        dup: false,
        qos: if packet_id.is_some() { QoS::AtLeastOnce } else { QoS::AtMostOnce },
        retain: false,
        topic,
        packet_id,
        properties: Properties::from_validated(properties),
        payload,
    }
}

fn ordinary<'a>(
    topic: &'a str,
    payload: &'a [u8],
    properties: &'a [u8],
    retain: bool,
    packet_id: u16,
) -> Result<Publish<'a>, Wrong> {
    // A frame for telemetry, or for a retained message, must never become a command.
    if topic.starts_with("im/") {
        return Err(Wrong::Messaging);
    }
    Ok(Publish { retain, ..publish(topic, payload, properties, packet_id) })
}

/// Topic and payload of what has its JSON from the fields; also the packet identifier.
fn request(frame: &Up<'_>, topic: &mut String, out: &mut Vec<u8>) -> Result<u16, Wrong> {
    let mut object = Object { out };
    let packet_id = match *frame {
        Up::Send { packet_id, to, id, kind, ttl_s, re, quiet, level, fallback, ref body } => {
            put_topic(topic, &["to/", to, "/msg"]);
            object.body(body)?;
            object.said("kind", kind);
            object.number("re", re);
            if quiet {
                object.raw("notify", "false");
            }
            object.said("id", id);
            object.number("ttl_s", some(ttl_s.into()));
            object.number("level", some(level.into()));
            object.said("fallback", fallback);
            packet_id
        }
        Up::Edit { packet_id, to, seq, kind, re, level, fallback, ref body } => {
            put_topic(topic, &["to/", to, "/edit"]);
            object.body(body)?;
            object.said("kind", kind);
            object.number("re", re);
            object.number("seq", Some(seq));
            object.number("level", some(level.into()));
            object.said("fallback", fallback);
            packet_id
        }
        Up::Receipt { packet_id, to, recv, read } => {
            put_topic(topic, &["to/", to, "/receipt"]);
            object.number("recv", some(recv));
            object.number("read", some(read));
            packet_id
        }
        Up::Recall { packet_id, to, seq } => {
            put_topic(topic, &["to/", to, "/recall"]);
            object.number("seq", Some(seq));
            packet_id
        }
        Up::Typing { to, on } => {
            put_topic(topic, &["to/", to, "/typing"]);
            object.raw("typing", if on { "true" } else { "false" });
            0
        }
        Up::Command { packet_id, to, name, id, args, deadline_ms, persist, once } => {
            put_topic(topic, &["to/", to, "/cmd/", name]);
            object.json("args", if args.is_empty() { "{}" } else { args })?;
            object.said("id", id);
            object.number("deadline_ms", some(deadline_ms.into()));
            for (key, is_set) in [("persist", persist), ("once", once)] {
                if is_set {
                    object.raw(key, "true");
                }
            }
            packet_id
        }
        Up::CancelCommand { packet_id, to, id } => {
            put_topic(topic, &["to/", to, "/cmdcancel/", id]);
            return Ok(packet_id);
        }
        Up::CommandState { packet_id, id, state, result, text } => {
            put_topic(topic, &["me/cmdres/", id]);
            object.word(state.text())?;
            if !result.is_empty() {
                object.json("result", result)?;
            }
            object.said("text", text);
            packet_id
        }
        Up::Reported { packet_id, patch } => {
            put_topic(topic, &["me/reported"]);
            return object.alone("patch", patch).map(|()| packet_id);
        }
        Up::Desired { packet_id, to, patch } => {
            put_topic(topic, &["to/", to, "/desired"]);
            return object.alone("patch", patch).map(|()| packet_id);
        }
        Up::Describe { packet_id, json } => {
            put_topic(topic, &["me/describe"]);
            return object.alone("json", json).map(|()| packet_id);
        }
        Up::Status { packet_id, state, for_s } => {
            put_topic(topic, &["me/status"]);
            object.word(state.text())?;
            object.number("for_s", some(for_s.into()));
            packet_id
        }
        Up::Sync { packet_id, id, after, max } => {
            put_topic(topic, &["me/sync"]);
            object.said("id", id);
            object.number("after", after);
            object.number("max", some(max.into()));
            packet_id
        }
        Up::Synced { packet_id, pos } => {
            put_topic(topic, &["me/ack"]);
            object.number("pos", Some(pos));
            packet_id
        }
        Up::History { packet_id, id, with, before, after, since, until, max } => {
            put_topic(topic, &["me/history"]);
            object.said("id", id);
            object.said("with", with);
            for (key, value) in [("before", before), ("after", after), ("since", since), ("until", until)] {
                object.number(key, value);
            }
            object.number("max", some(max.into()));
            packet_id
        }
        // The others are no requests, and were dealt with.
        _ => 0,
    };
    object.end();
    Ok(packet_id)
}

/// 0 says nothing.
fn some(value: u64) -> Option<u64> {
    (value != 0).then_some(value)
}

/// A JSON object that is being written.
struct Object<'a> {
    out: &'a mut Vec<u8>,
}

impl Object<'_> {
    fn key(&mut self, key: &str) {
        self.out.extend_from_slice(if self.out.is_empty() { b"{\"" } else { b",\"" });
        self.out.extend_from_slice(key.as_bytes());
        self.out.extend_from_slice(b"\":");
    }

    fn raw(&mut self, key: &str, value: &str) {
        self.key(key);
        self.out.extend_from_slice(value.as_bytes());
    }

    fn number(&mut self, key: &str, value: Option<u64>) {
        let Some(value) = value else { return };
        if self.out.is_empty() {
            self.key(key);
            put_num(self.out, value);
        } else {
            put_field(self.out, key, value);
        }
    }

    fn text(&mut self, key: &str, value: &str) {
        self.key(key);
        put_str(self.out, value);
    }

    /// Empty: it is left out.
    fn said(&mut self, key: &str, value: &str) {
        if !value.is_empty() {
            self.text(key, value);
        }
    }

    fn json(&mut self, key: &'static str, value: &str) -> Result<(), Wrong> {
        if !is_value(value) {
            return Err(Wrong::NotJson(key));
        }
        self.raw(key, value);
        Ok(())
    }

    fn word(&mut self, state: &str) -> Result<(), Wrong> {
        if state.is_empty() {
            return Err(Wrong::NoSuchState);
        }
        self.text("state", state);
        Ok(())
    }

    /// The fields in the order in which every client should write them: the same message is the same bytes.
    fn body(&mut self, body: &Body<'_>) -> Result<(), Wrong> {
        match *body {
            Body::Text(text) => self.text("text", text),
            Body::Json(json) => self.json("body", json)?,
            Body::Both { text, json } => {
                self.text("text", text);
                self.json("body", json)?;
            }
            Body::Bytes(bytes) => {
                self.raw("body", "null");
                self.text("data", &Base64::encode_string(bytes));
            }
        }
        Ok(())
    }

    /// The payload is this value; empty: it is empty.
    fn alone(&mut self, field: &'static str, value: &str) -> Result<(), Wrong> {
        if !value.is_empty() && !is_value(value) {
            return Err(Wrong::NotJson(field));
        }
        self.out.extend_from_slice(value.as_bytes());
        Ok(())
    }

    fn end(&mut self) {
        self.out.extend_from_slice(if self.out.is_empty() { b"{}" } else { b"}" });
    }
}
