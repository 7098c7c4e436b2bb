//! MQTT 5.0 and 3.1.1. Against Parlor everything of docs/protocol.md; against any other broker ordinary topics.

mod read;

#[cfg(feature = "messages")]
use super::Message;
use super::Subscribe;
#[cfg(feature = "im")]
use super::What;
use super::{Hello, Incoming, Item, Wire};
#[cfg(feature = "im")]
use crate::bytes::Digits;
use crate::bytes::Put;
use crate::error::LinkError;
#[cfg(all(feature = "messages", feature = "mqtt311"))]
use crate::error::Refusal;
#[cfg(any(feature = "messages", feature = "commands"))]
use crate::json::FromJson;
#[cfg(any(feature = "messages", feature = "commands"))]
use crate::json::Text;
#[cfg(feature = "im")]
use crate::json::Value;
#[cfg(any(feature = "im", feature = "sleep"))]
use crate::json::Writer;
#[cfg(feature = "topics")]
use parlor_protocol::mqtt::QoS;
use parlor_protocol::mqtt::Version;

/// Everything of Parlor's lies below it.
#[cfg(any(feature = "im", feature = "sleep"))]
const IM: &str = "im/v1/";

/// MQTT as a wire.
#[derive(Clone, Copy, Debug)]
pub struct Mqtt {
    #[cfg(any(feature = "mqtt311", test))]
    version: Version,
}

impl Mqtt {
    /// Version 5.0.
    pub const V5: Self = Self {
        #[cfg(any(feature = "mqtt311", test))]
        version: Version::V5,
    };
    /// Version 3.1.1: for brokers that do not know 5. Refusals are learnt a little later.
    #[cfg(any(feature = "mqtt311", test))]
    pub const V311: Self = Self { version: Version::V311 };

    #[cfg_attr(not(any(feature = "mqtt311", test)), allow(clippy::unused_self, reason = "there is one version"))]
    const fn version(self) -> Version {
        #[cfg(any(feature = "mqtt311", test))]
        return self.version;
        #[cfg(not(any(feature = "mqtt311", test)))]
        Version::V5
    }

    const fn is_v5(self) -> bool {
        matches!(self.version(), Version::V5)
    }

    /// The properties of a packet that has none.
    fn no_properties(self, put: &mut Put<'_>) {
        if self.is_v5() {
            put.u8(0);
        }
    }

    /// A PUBLISH; `payload` writes it.
    fn publish(
        self,
        topic: &[&str],
        first: u8,
        pid: u16,
        out: &mut [u8],
        payload: &dyn Fn(&mut Put<'_>),
    ) -> Option<usize> {
        framed(first, 0, out, &|put| {
            put_topic(topic, put);
            if first & 0x06 != 0 {
                put.u16(pid);
            }
            self.no_properties(put);
            payload(put);
        })
    }

    #[cfg(any(feature = "im", feature = "sleep"))]
    fn publish_json(
        self,
        topic: &[&str],
        pid: u16,
        dup: bool,
        out: &mut [u8],
        json: &dyn Fn(&mut Writer<'_>),
    ) -> Option<usize> {
        let first = if dup { 0x3A } else { 0x32 };
        self.publish(topic, first, pid, out, &|put| {
            put.fill(|room| {
                let mut writer = Writer::new(room);
                json(&mut writer);
                Some(writer.wanted())
            });
        })
    }
}

fn put_topic(pieces: &[&str], put: &mut Put<'_>) {
    let len: usize = pieces.iter().map(|piece| piece.len()).sum();
    put.u16(u16::try_from(len).unwrap_or(u16::MAX));
    for piece in pieces {
        put.bytes(piece.as_bytes());
    }
}

/// A packet: its first byte, the length of what `body` writes and `behind` bytes more, and that. The length comes first, so what it is
/// of is written twice: once to be counted.
#[inline(never)]
fn framed(first: u8, behind: usize, out: &mut [u8], body: &dyn Fn(&mut Put<'_>)) -> Option<usize> {
    let mut counted = Put::new(&mut []);
    body(&mut counted);
    let mut put = Put::new(out);
    put.u8(first);
    put.varint((counted.at() + behind) as u64);
    body(&mut put);
    put.done()
}

/// The properties of CONNECT.
fn properties(hello: &Hello<'_>, put: &mut Put<'_>) {
    if hello.expiry_s > 0 && !hello.clean {
        put.u8(0x11);
        put.u32(hello.expiry_s);
    }
    put.u8(0x21);
    put.u16(hello.receive_max);
    put.u8(0x27);
    put.u32(u32::try_from(hello.frame_max).unwrap_or(u32::MAX));
    #[cfg(feature = "im")]
    if hello.listen.im() {
        user_property("im-platform", hello.platform, put);
        user_property("im-app", hello.app, put);
        if hello.level > 0 {
            user_property("im-level", Digits::decimal(hello.level.into()).as_str(), put);
        }
    }
}

fn copied(bytes: &[u8], out: &mut [u8]) -> Option<usize> {
    out.get_mut(..bytes.len())?.copy_from_slice(bytes);
    Some(bytes.len())
}

impl Wire for Mqtt {
    fn hello(&self, hello: &Hello<'_>, out: &mut [u8]) -> Option<usize> {
        let named = !hello.account.is_empty();
        let flags = u8::from(hello.clean) << 1 | u8::from(named) << 7 | u8::from(!hello.secret.is_empty()) << 6;
        framed(0x10, 0, out, &|put| {
            put.bytes(b"\0\x04MQTT");
            put.u8(self.version() as u8);
            put.u8(flags);
            put.u16(hello.keep_alive_s);
            if self.is_v5() {
                let mut counted = Put::new(&mut []);
                properties(hello, &mut counted);
                put.varint(counted.at() as u64);
                properties(hello, put);
            }
            put.long(hello.terminal.as_bytes());
            if named {
                put.long(hello.account.as_bytes());
            }
            if !hello.secret.is_empty() {
                put.long(hello.secret);
            }
        })
    }

    fn whole(&self, bytes: &[u8]) -> Result<usize, LinkError> {
        match read::length(bytes) {
            Some((_, whole)) => Ok(if whole <= bytes.len() { whole } else { 0 }),
            None if bytes.len() < 5 => Ok(0),
            None => Err(LinkError::Protocol),
        }
    }

    fn read<'a>(&self, packet: &'a [u8]) -> Option<Incoming<'a>> {
        let (header, _) = read::length(packet)?;
        read::incoming(*packet.first()?, packet.get(header..)?, self.is_v5())
    }

    fn ack(&self, pid: u16, out: &mut [u8]) -> Option<usize> {
        let [high, low] = pid.to_be_bytes();
        copied(&[0x40, 2, high, low], out)
    }

    fn ping(&self, out: &mut [u8]) -> Option<usize> {
        copied(&[0xC0, 0], out)
    }

    fn bye(&self, out: &mut [u8]) -> Option<usize> {
        copied(&[0xE0, 0], out)
    }

    fn subscribe(&self, pid: u16, what: Subscribe<'_>, out: &mut [u8]) -> Option<usize> {
        #[cfg(feature = "im")]
        if let Subscribe::Listen(listen) = what
            && !listen.commands()
            && !listen.messages()
            && self.is_v5()
        {
            return Some(0);
        }
        framed(0x82, 0, out, &|put| {
            put.u16(pid);
            self.no_properties(put);
            let mut filter = |pieces: &[&str], options: u8| {
                put_topic(pieces, put);
                put.u8(options);
            };
            match what {
                #[cfg(feature = "im")]
                Subscribe::Listen(listen) => {
                    if listen.commands() {
                        filter(&[IM, "me/cmd/#"], 1);
                        filter(&[IM, "me/delta"], 1);
                    }
                    if listen.messages() {
                        filter(&[IM, "me/in/+/msg"], 1);
                    }
                    if !self.is_v5() {
                        filter(&[IM, "me/sent"], 1);
                        filter(&[IM, "me/err"], 1);
                    }
                    #[cfg(feature = "update")]
                    filter(&[IM, "me/blob/res"], 1);
                }
                #[cfg(feature = "pairing")]
                Subscribe::Paired => filter(&[IM, "me/paired"], 1),
                #[cfg(feature = "topics")]
                Subscribe::Topic(topic, qos) => filter(&[topic], u8::from(qos != QoS::AtMostOnce)),
                #[cfg(not(feature = "topics"))]
                Subscribe::Topic(..) => {}
            }
        })
    }

    fn item(&self, item: &Item<'_>, pid: u16, dup: bool, out: &mut [u8]) -> Option<usize> {
        match *item {
            #[cfg(feature = "messages")]
            Item::Message { to, id, kind, text, body, re, ttl_s, quiet } => {
                self.publish_json(&[IM, "to/", to, "/msg"], pid, dup, out, &|json| {
                    json.begin_object();
                    if !text.is_empty() || body.is_empty() {
                        json.field("text", text);
                    }
                    if !body.is_empty() {
                        json.key("body");
                        json.raw(body);
                    }
                    json.field("id", id);
                    if !kind.is_empty() {
                        json.field("kind", kind);
                    }
                    if re > 0 {
                        json.field("re", re);
                    }
                    if ttl_s > 0 {
                        json.field("ttl_s", ttl_s);
                    }
                    if quiet {
                        json.field("notify", false);
                    }
                    json.end_object();
                })
            }
            #[cfg(feature = "topics")]
            Item::Topic { topic, payload, acked, retain } => {
                let dup = u8::from(dup && acked) << 3;
                let first = 0x30 | dup | u8::from(acked) << 1 | u8::from(retain);
                self.publish(&[topic], first, pid, out, &|put| put.bytes(payload))
            }
            #[cfg(feature = "state")]
            Item::Reported { patch } => self.publish_json(&[IM, "me/reported"], pid, dup, out, &|json| json.raw(patch)),
            #[cfg(feature = "commands")]
            Item::Result { id, state, text, result } => {
                self.publish_json(&[IM, "me/cmdres/", id], pid, dup, out, &|json| {
                    json.begin_object();
                    json.field("state", state.text());
                    if !text.is_empty() {
                        json.field("text", text);
                    }
                    if !result.is_empty() {
                        json.key("result");
                        json.raw(result);
                    }
                    json.end_object();
                })
            }
            Item::Nothing => None,
        }
    }

    #[cfg(feature = "describe")]
    fn describe(&self, pid: u16, len: usize, out: &mut [u8]) -> Option<usize> {
        framed(0x32, len, out, &|put| {
            put_topic(&[IM, "me/describe"], put);
            put.u16(pid);
            self.no_properties(put);
        })
    }

    #[cfg(feature = "sleep")]
    fn asleep(&self, pid: u16, for_s: u32, out: &mut [u8]) -> Option<usize> {
        self.publish_json(&[IM, "me/status"], pid, false, out, &|json| {
            json.begin_object();
            json.field("state", "asleep");
            json.field("for_s", for_s);
            json.end_object();
        })
    }

    #[cfg(feature = "pairing")]
    fn pair(&self, pid: u16, name: &str, out: &mut [u8]) -> Option<usize> {
        self.publish_json(&[IM, "me/paired"], pid, false, out, &|json| {
            json.begin_object();
            json.field("name", name);
            json.end_object();
        })
    }

    fn news_follow(&self) -> bool {
        !self.is_v5()
    }
}

#[cfg(feature = "im")]
fn user_property(name: &str, value: &str, put: &mut Put<'_>) {
    if !value.is_empty() {
        put.u8(0x26);
        put.long(name.as_bytes());
        put.long(value.as_bytes());
    }
}

/// What was published below `im/v1/me/`. What cannot be read is nothing that the device uses.
#[cfg(feature = "im")]
fn im<'a>(topic: &'a str, payload: &'a [u8]) -> What<'a> {
    #[cfg(feature = "update")]
    if topic == "blob/res" {
        return What::Blob(payload);
    }
    let value = core::str::from_utf8(payload).ok().and_then(Value::parse);
    value.and_then(|value| im_json(topic, value)).unwrap_or(What::Other)
}

#[cfg(feature = "im")]
fn im_json<'a>(topic: &'a str, value: Value<'a>) -> Option<What<'a>> {
    let (room, rest) = topic.split_once('/').unwrap_or((topic, ""));
    let _ = (rest, value);
    match room {
        #[cfg(feature = "commands")]
        "cmd" => {
            let (id, name) = rest.split_once('/')?;
            if name == "$cancel" {
                return Some(What::Cancel { id });
            }
            let mut what = (Value::NULL, "", None, false);
            for (key, value) in value.fields() {
                match key {
                    "args" => what.0 = value,
                    "from" => what.1 = plain(value),
                    "left_ms" => what.2 = u64::from_json(value),
                    "once" => what.3 = bool::from_json(value)?,
                    _ => {}
                }
            }
            let (args, from, left_ms, once) = what;
            Some(What::Command { id, name, from, args: args.as_str(), left_ms, once })
        }
        #[cfg(feature = "state")]
        "delta" => Some(What::Delta { desired: value.get("desired")?.as_str() }),
        #[cfg(feature = "messages")]
        "in" => message(rest.strip_suffix("/msg")?, value).map(What::Message),
        #[cfg(all(feature = "messages", feature = "mqtt311"))]
        "sent" => Some(What::Sent { id: plain(value.get("id")?), seq: u64::from_json(value.get("seq")?)? }),
        #[cfg(all(feature = "messages", feature = "mqtt311"))]
        "err" => {
            let why = Refusal::parse(plain(value.get("code")?).as_bytes()).unwrap_or(Refusal::Other(0));
            Some(What::Refused { id: plain(value.get("id")?), why })
        }
        #[cfg(feature = "pairing")]
        "paired" => super::paired(value),
        _ => None,
    }
}

/// A string without escapes, as names and ids are.
#[cfg(any(feature = "messages", feature = "commands"))]
fn plain(value: Value<'_>) -> &str {
    value.text().and_then(Text::as_plain).unwrap_or("")
}

#[cfg(feature = "messages")]
fn message<'a>(address: &'a str, value: Value<'a>) -> Option<Message<'a>> {
    let mut message = Message {
        address,
        from: "",
        seq: 0,
        pos: 0,
        kind: "",
        text: Text::plain(""),
        body: "",
        re: 0,
        backfill: false,
    };
    for (key, value) in value.fields() {
        match key {
            "from" => message.from = plain(value),
            "seq" => message.seq = u64::from_json(value)?,
            "pos" => message.pos = u64::from_json(value)?,
            "kind" => message.kind = plain(value),
            "text" => message.text = value.text()?,
            "body" => message.body = value.as_str(),
            "re" => message.re = u64::from_json(value).unwrap_or(0),
            "backfill" => message.backfill = bool::from_json(value)?,
            _ => {}
        }
    }
    Some(message)
}

#[cfg(test)]
#[cfg(all(feature = "full", feature = "update"))]
mod tests {
    use super::*;
    use crate::config::Listen;
    use crate::wire::State;
    use parlor_protocol::mqtt::{self as packet, Connect, Packet, Property, Publish};

    const HELLO: Hello<'static> = Hello {
        terminal: "lamp-1",
        account: "lamp",
        secret: b"secret",
        keep_alive_s: 30,
        expiry_s: 60,
        frame_max: 512,
        receive_max: 4,
        clean: false,
        listen: Listen::COMMANDS,
        level: 261_001,
        platform: "qemu",
        app: "lamp 1",
    };

    fn connect(wire: Mqtt, bytes: &[u8]) -> Connect<'_> {
        match packet::decode(bytes, wire.version(), u32::MAX) {
            Ok(Some((Packet::Connect(connect), len))) if len == bytes.len() => connect,
            other => panic!("{other:?}"),
        }
    }

    fn publish(wire: Mqtt, bytes: &[u8]) -> Publish<'_> {
        match packet::decode(bytes, wire.version(), u32::MAX) {
            Ok(Some((Packet::Publish(publish), len))) if len == bytes.len() => publish,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn connect_says_who_and_how() {
        let mut out = [0; 256];
        for wire in [Mqtt::V5, Mqtt::V311] {
            let len = wire.hello(&HELLO, &mut out).unwrap();
            let connect = connect(wire, &out[..len]);
            assert_eq!(
                (connect.client_id, connect.username, connect.password),
                ("lamp-1", Some("lamp"), Some(&b"secret"[..]))
            );
            assert_eq!((connect.clean_start, connect.keep_alive_secs), (false, 30));
            if wire.is_v5() {
                assert_eq!(connect.properties.session_expiry_interval_secs(), Some(60));
                assert_eq!(connect.properties.receive_maximum(), Some(4));
                assert_eq!(connect.properties.maximum_packet_size(), Some(512));
                assert!(connect.properties.iter().any(|p| p == Property::UserProperty("im-level", "261001")));
            }
            for short in 0..len {
                assert_eq!(wire.hello(&HELLO, &mut out[..short]), None);
            }
        }
        // Properties of more than 127 bytes.
        let long = "p".repeat(120);
        let len = Mqtt::V5.hello(&Hello { platform: &long, ..HELLO }, &mut out).unwrap();
        assert!(
            connect(Mqtt::V5, &out[..len]).properties.iter().any(|p| p == Property::UserProperty("im-platform", &long))
        );
        let len = Mqtt::V5.hello(&Hello { account: "", secret: b"", clean: true, ..HELLO }, &mut out).unwrap();
        let connect = connect(Mqtt::V5, &out[..len]);
        assert_eq!((connect.username, connect.password, connect.clean_start), (None, None, true));
    }

    #[test]
    fn items_become_publishes() {
        let mut out = [0; 400];
        let message = Item::Message {
            to: "g-home",
            id: "1-2",
            kind: "event",
            text: "say \"hi\"",
            body: "{\"n\":1}",
            re: 3,
            ttl_s: 60,
            quiet: true,
        };
        for wire in [Mqtt::V5, Mqtt::V311] {
            let len = wire.item(&message, 7, true, &mut out).unwrap();
            let publish = publish(wire, &out[..len]);
            assert_eq!((publish.topic, publish.packet_id.unwrap().value()), ("im/v1/to/g-home/msg", 7));
            assert!(publish.dup && publish.qos == QoS::AtLeastOnce && !publish.retain);
            let expect =
                r#"{"text":"say \"hi\"","body":{"n":1},"id":"1-2","kind":"event","re":3,"ttl_s":60,"notify":false}"#;
            assert_eq!(core::str::from_utf8(publish.payload).unwrap(), expect);
            let topic = Item::Topic { topic: "a/b", payload: &[7; 200], acked: false, retain: true };
            let len = wire.item(&topic, 7, true, &mut out).unwrap();
            let publish = self::publish(wire, &out[..len]);
            assert_eq!((publish.topic, publish.payload.len(), publish.qos), ("a/b", 200, QoS::AtMostOnce));
            assert!(publish.retain && !publish.dup);
        }
        let result = Item::Result { id: "c1", state: State::Done, text: "", result: "{\"on\":true}" };
        let len = Mqtt::V5.item(&result, 1, false, &mut out).unwrap();
        let publish = publish(Mqtt::V5, &out[..len]);
        assert_eq!(publish.topic, "im/v1/me/cmdres/c1");
        assert_eq!(publish.payload, br#"{"state":"done","result":{"on":true}}"#);
        for short in 0..len {
            assert_eq!(Mqtt::V5.item(&result, 1, false, &mut out[..short]), None);
        }
    }

    #[test]
    fn a_description_is_announced_with_its_length() {
        let mut out = [0; 400];
        let len = Mqtt::V5.describe(3, 300, &mut out).unwrap();
        out[len..len + 300].fill(b'x');
        let publish = publish(Mqtt::V5, &out[..len + 300]);
        assert_eq!((publish.topic, publish.payload.len()), ("im/v1/me/describe", 300));
    }

    #[test]
    fn deliveries_are_understood() {
        let what = im("cmd/c1/set", br#"{"args":{"on":true},"from":"alice","left_ms":9800,"once":true}"#);
        let What::Command {
            id: "c1",
            name: "set",
            from: "alice",
            args: r#"{"on":true}"#,
            left_ms: Some(9800),
            once: true,
        } = what
        else {
            panic!("{what:?}")
        };
        let What::Cancel { id: "c1" } = im("cmd/c1/$cancel", b"{}") else { panic!() };
        let What::Delta { desired: r#"{"on":1}"# } = im("delta", br#"{"version":3,"desired":{"on":1}}"#) else {
            panic!()
        };
        let what =
            im("in/g-home/msg", br#"{"seq":12,"pos":40,"prev":11,"from":"alice","ts":1,"id":"a","text":"a\nb"}"#);
        let What::Message(Message { address: "g-home", from: "alice", seq: 12, pos: 40, backfill: false, .. }) = what
        else {
            panic!("{what:?}")
        };
        let What::Sent { id: "a", seq: 3 } = im("sent", br#"{"pos":0,"to":"bob","seq":3,"id":"a","dup":true}"#) else {
            panic!()
        };
        let What::Refused { id: "a", why: Refusal::NotFound } =
            im("err", br#"{"re":"to/x/msg","id":"a","code":"not_found"}"#)
        else {
            panic!()
        };
        let What::Blob(&[0, 1]) = im("blob/res", &[0, 1]) else { panic!() };
        for (topic, payload) in
            [("in/bob/receipt", "{}"), ("cmd/x", "{}"), ("delta", "{}"), ("cmd/c/n", "{\"once\":1}"), ("x", "\u{1}")]
        {
            let What::Other = im(topic, payload.as_bytes()) else { panic!("{topic}") };
        }
    }
}
