//! Reads the six kinds of packets that a broker sends to a device. `parlor_protocol::mqtt` reads all of them, and checks
//! what matters to a broker; it costs a board five times as much flash. Tests hold the two against each other.

#[cfg(feature = "im")]
use super::im;
use crate::error::Refusal;
use crate::wire::{Incoming, Welcome, What, closed};
use parlor_protocol::mqtt::ReasonCode;

/// How long the fixed header of a packet is, and the whole packet; `None`: that is not there yet, or is none.
#[inline(never)]
pub(super) fn length(bytes: &[u8]) -> Option<(usize, usize)> {
    let mut from = Reader(bytes);
    from.byte()?;
    let length = from.varint()?;
    let header = bytes.len() - from.0.len();
    Some((header, header + length))
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    fn short(&mut self) -> Option<u16> {
        let &[high, low] = self.take(2)? else { return None };
        Some(u16::from_be_bytes([high, low]))
    }

    /// A packet identifier.
    fn pid(&mut self) -> Option<u16> {
        self.short().filter(|pid| *pid != 0)
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let len = self.short()?;
        self.take(len.into())
    }

    fn varint(&mut self) -> Option<usize> {
        let mut value = 0;
        for at in 0..4 {
            let byte = self.byte()?;
            value |= usize::from(byte & 0x7F) << (7 * at);
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }
}

/// What a device wants to know of the properties of MQTT 5.
#[derive(Default)]
struct Properties<'a> {
    keep_alive_s: Option<u16>,
    receive_max: Option<u16>,
    frame_max: Option<u32>,
    reason: &'a [u8],
    seq: u64,
}

/// What stands behind the identifier of a property (MQTT 5, section 2.2.2.2): so many bytes, or one of these. 0: there is none.
const KINDS: [u8; 0x2B] = {
    let mut kinds = [0; 0x2B];
    let known: [(u8, &[u8]); 6] = [
        (1, &[0x01, 0x17, 0x19, 0x24, 0x25, 0x28, 0x29, 0x2A]),
        (2, &[0x13, 0x21, 0x22, 0x23]),
        (4, &[0x02, 0x11, 0x18, 0x27]),
        (VARINT, &[0x0B]),
        (BYTES, &[0x03, 0x08, 0x09, 0x12, 0x15, 0x16, 0x1A, 0x1C, 0x1F]),
        (PAIR, &[0x26]),
    ];
    let mut row = 0;
    while row < known.len() {
        let (kind, ids) = known[row];
        let mut at = 0;
        while at < ids.len() {
            kinds[ids[at] as usize] = kind;
            at += 1;
        }
        row += 1;
    }
    kinds
};
const VARINT: u8 = 5;
const BYTES: u8 = 6;
const PAIR: u8 = 7;

impl<'a> Properties<'a> {
    /// Those at the front, if the version has any and there are any.
    #[inline(never)]
    fn read(from: &mut Reader<'a>, is_v5: bool) -> Option<Self> {
        let mut all = Self::default();
        if !is_v5 || from.0.is_empty() {
            return Some(all);
        }
        let len = from.varint()?;
        let mut rest = Reader(from.take(len)?);
        while !rest.0.is_empty() {
            let id = rest.byte()?;
            let value = match *KINDS.get(usize::from(id))? {
                0 => return None,
                VARINT => {
                    rest.varint()?;
                    continue;
                }
                BYTES => rest.bytes()?,
                PAIR => {
                    let (name, value) = (rest.bytes()?, rest.bytes()?);
                    if cfg!(feature = "messages") && name == b"im-seq" {
                        all.seq = value.iter().fold(0, |seq, digit| {
                            seq.wrapping_mul(10).wrapping_add(u64::from(digit.wrapping_sub(b'0')))
                        });
                    }
                    value
                }
                len => rest.take(len.into())?,
            };
            let number = || value.iter().fold(0, |number, byte| number << 8 | u32::from(*byte));
            match id {
                0x13 => all.keep_alive_s = Some((number() & 0xFFFF) as u16),
                0x21 => all.receive_max = Some((number() & 0xFFFF) as u16),
                0x27 => all.frame_max = Some(number()),
                0x1F => all.reason = value,
                _ => {}
            }
        }
        Some(all)
    }
}

/// What a packet says; `None`: it is none that a broker sends to a device.
pub(super) fn incoming(first: u8, body: &[u8], is_v5: bool) -> Option<Incoming<'_>> {
    let mut from = Reader(body);
    Some(match first {
        // CONNACK
        0x20 => {
            let (flags, code) = (from.byte()?, from.byte()?);
            #[cfg(feature = "mqtt311")]
            let code = if is_v5 { code } else { ReasonCode::from_connack_v311(code)?.0 };
            let properties = Properties::read(&mut from, is_v5)?;
            if code != ReasonCode::SUCCESS.0 {
                return Some(Incoming::Closed(closed(code, properties.reason)));
            }
            Incoming::Welcome(Welcome {
                session_present: flags & 1 != 0,
                keep_alive_s: properties.keep_alive_s,
                receive_max: properties.receive_max.unwrap_or(u16::MAX),
                frame_max: properties.frame_max.map_or(usize::MAX, |size| usize::try_from(size).unwrap_or(usize::MAX)),
            })
        }
        // PUBLISH at QoS 0 and 1; nothing was subscribed to at QoS 2.
        0x30..=0x33 | 0x3A | 0x3B => {
            let topic = core::str::from_utf8(from.bytes()?).ok()?;
            let pid = if first & 0x06 == 0 { 0 } else { from.pid()? };
            Properties::read(&mut from, is_v5)?;
            let what = match topic.strip_prefix("im/v1/me/") {
                #[cfg(feature = "im")]
                Some(rest) => im(rest, from.0),
                #[cfg(feature = "topics")]
                _ => What::Topic { topic, payload: from.0, dup: first & 0x08 != 0 },
                #[cfg(not(feature = "topics"))]
                _ => What::Other,
            };
            Incoming::Delivery { pid, what }
        }
        // PUBACK
        0x40 => {
            let pid = from.pid()?;
            let code = if from.0.is_empty() { 0 } else { from.byte()? };
            let properties = Properties::read(&mut from, is_v5)?;
            let result = if code < 0x80 { Ok(properties.seq) } else { Err(refusal(code, properties.reason)) };
            Incoming::Done { pid, result }
        }
        // SUBACK
        0x90 => {
            let pid = from.pid()?;
            Properties::read(&mut from, is_v5)?;
            Incoming::Subscribed { pid, ok: from.0.iter().all(|code| *code < 0x80) }
        }
        // PINGRESP
        0xD0 => Incoming::Nothing,
        // DISCONNECT
        0xE0 if is_v5 => {
            let code = if from.0.is_empty() { 0 } else { from.byte()? };
            Incoming::Closed(closed(code, Properties::read(&mut from, is_v5)?.reason))
        }
        _ => return None,
    })
}

/// Why a PUBLISH was refused: the Reason String begins with the word of section 10.
fn refusal(code: u8, reason: &[u8]) -> Refusal {
    #[cfg(feature = "im")]
    if let Some(refusal) = reason.iter().position(|byte| *byte == b':').and_then(|at| Refusal::parse(reason.get(..at)?))
    {
        return refusal;
    }
    let _ = reason;
    match ReasonCode(code) {
        ReasonCode::TOPIC_NAME_INVALID => Refusal::BadTopic,
        ReasonCode::NOT_AUTHORIZED => Refusal::Forbidden,
        ReasonCode::QUOTA_EXCEEDED => Refusal::Quota,
        ReasonCode::PACKET_TOO_LARGE => Refusal::TooLarge,
        ReasonCode(code) => Refusal::Other(code),
    }
}

#[cfg(test)]
#[cfg(all(feature = "full", feature = "update"))]
mod tests {
    use super::*;
    use crate::error::LinkError;
    use crate::wire::Wire;
    use crate::wire::mqtt::Mqtt;
    use parlor_protocol::mqtt::{
        Ack, ConnAck, Disconnect, Packet, PacketId, Properties, Property, Publish, QoS, SubAck, Version,
        encode_to_slice,
    };

    const ID: Option<PacketId> = PacketId::new(300);

    /// What the broker's side writes, and what the device makes of it. Cut, it is waited for; in whatever way it is
    /// changed, nothing falls over.
    fn heard(packet: &Packet<'_>, version: Version, check: impl FnOnce(Incoming<'_>)) {
        let mut out = [0; 300];
        let len = encode_to_slice(packet, version, &mut out).unwrap();
        let wire = if version == Version::V5 { Mqtt::V5 } else { Mqtt::V311 };
        let (incoming, used) = wire.decode(&out[..len]).unwrap().unwrap();
        assert_eq!(used, len);
        check(incoming);
        for short in 0..len {
            assert!(wire.decode(&out[..short]).is_ok_and(|packet| packet.is_none()), "{short} of {len}");
        }
        for at in 0..len {
            for change in [1, 0x7F, 0x80, 0xFF] {
                let mut bytes = out;
                bytes[at] ^= change;
                let _ = wire.decode(&bytes[..len]);
            }
        }
    }

    fn properties(all: &[Property<'_>]) -> std::vec::Vec<u8> {
        let mut raw = [0; 200];
        let mut sink = crate::bytes::Put::new(&mut raw);
        for property in all {
            match *property {
                Property::ServerKeepAlive(value) => {
                    sink.u8(0x13);
                    sink.u16(value);
                }
                Property::ReceiveMaximum(value) => {
                    sink.u8(0x21);
                    sink.u16(value);
                }
                Property::MaximumPacketSize(value) => {
                    sink.u8(0x27);
                    sink.u32(value);
                }
                Property::ReasonString(text) => {
                    sink.u8(0x1F);
                    sink.long(text.as_bytes());
                }
                Property::UserProperty(name, value) => {
                    sink.u8(0x26);
                    sink.long(name.as_bytes());
                    sink.long(value.as_bytes());
                }
                Property::SubscriptionIdentifier(_) => {
                    sink.u8(0x0B);
                    sink.bytes(&[0x80, 0x01]);
                }
                _ => panic!("not in these tests"),
            }
        }
        let len = sink.done().unwrap();
        raw[..len].to_vec()
    }

    #[test]
    fn what_a_broker_sends_is_understood() {
        let said = properties(&[
            Property::ServerKeepAlive(20),
            Property::UserProperty("a", "b"),
            Property::ReceiveMaximum(9),
            Property::MaximumPacketSize(4096),
        ]);
        let connack = |reason, said| {
            Packet::ConnAck(ConnAck { session_present: true, reason, properties: Properties::from_validated(said) })
        };
        heard(&connack(ReasonCode::SUCCESS, &said), Version::V5, |incoming| {
            let Incoming::Welcome(welcome) = incoming else { panic!("{incoming:?}") };
            assert!(welcome.session_present);
            assert_eq!((welcome.keep_alive_s, welcome.receive_max, welcome.frame_max), (Some(20), 9, 4096));
        });
        heard(&connack(ReasonCode::SUCCESS, &[]), Version::V311, |incoming| {
            let Incoming::Welcome(welcome) = incoming else { panic!("{incoming:?}") };
            assert_eq!((welcome.keep_alive_s, welcome.receive_max, welcome.frame_max), (None, u16::MAX, usize::MAX));
        });
        let why = properties(&[Property::ReasonString("the token has expired: get a new one")]);
        heard(&connack(ReasonCode::NOT_AUTHORIZED, &why), Version::V5, |incoming| {
            assert!(matches!(incoming, Incoming::Closed(LinkError::CredentialsExpired)));
        });
        heard(&connack(ReasonCode::BAD_USER_NAME_OR_PASSWORD, &[]), Version::V311, |incoming| {
            assert!(matches!(incoming, Incoming::Closed(LinkError::CredentialsRefused)));
        });
        let gone = Disconnect { reason: ReasonCode::SESSION_TAKEN_OVER, properties: Properties::EMPTY };
        heard(&Packet::Disconnect(gone), Version::V5, |incoming| {
            assert!(matches!(incoming, Incoming::Closed(LinkError::TakenOver)));
        });
        heard(&Packet::PingResp, Version::V5, |incoming| assert!(matches!(incoming, Incoming::Nothing)));
        for version in [Version::V5, Version::V311] {
            let ack = |reason, properties| Packet::PubAck(Ack { packet_id: ID.unwrap(), reason, properties });
            heard(&ack(ReasonCode::SUCCESS, Properties::EMPTY), version, |incoming| {
                assert!(matches!(incoming, Incoming::Done { pid: 300, result: Ok(0) }));
            });
            let suback = |reasons| SubAck { packet_id: ID.unwrap(), properties: Properties::EMPTY, reasons };
            heard(&Packet::SubAck(suback(&[1, 0])), version, |incoming| {
                assert!(matches!(incoming, Incoming::Subscribed { pid: 300, ok: true }));
            });
            heard(&Packet::SubAck(suback(&[1, 0x80])), version, |incoming| {
                assert!(matches!(incoming, Incoming::Subscribed { pid: 300, ok: false }));
            });
            let mine = properties(&[Property::SubscriptionIdentifier(128), Property::UserProperty("im-seq", "1")]);
            let mine = if version == Version::V5 { Properties::from_validated(&mine) } else { Properties::EMPTY };
            let publish = |qos, topic, payload| Publish {
                dup: qos != QoS::AtMostOnce,
                qos,
                retain: true,
                topic,
                packet_id: ID.filter(|_| qos != QoS::AtMostOnce),
                properties: mine,
                payload,
            };
            heard(&Packet::Publish(publish(QoS::AtLeastOnce, "a/b", b"21")), version, |incoming| {
                let Incoming::Delivery { pid: 300, what } = incoming else { panic!("{incoming:?}") };
                assert!(matches!(what, What::Topic { topic: "a/b", payload: b"21", dup: true }));
            });
            heard(
                &Packet::Publish(publish(QoS::AtMostOnce, "im/v1/me/delta", b"{\"desired\":{}}")),
                version,
                |incoming| {
                    assert!(matches!(incoming, Incoming::Delivery { pid: 0, what: What::Delta { desired: "{}" } }));
                },
            );
        }
        let done = |reason, said| Ack { packet_id: ID.unwrap(), reason, properties: Properties::from_validated(said) };
        let seq = properties(&[Property::UserProperty("im-seq", "77")]);
        heard(&Packet::PubAck(done(ReasonCode::SUCCESS, &seq)), Version::V5, |incoming| {
            assert!(matches!(incoming, Incoming::Done { pid: 300, result: Ok(77) }));
        });
        let why = properties(&[Property::ReasonString("no_consent: bob is no contact")]);
        heard(&Packet::PubAck(done(ReasonCode::NOT_AUTHORIZED, &why)), Version::V5, |incoming| {
            assert!(matches!(incoming, Incoming::Done { pid: 300, result: Err(Refusal::NoConsent) }));
        });
        heard(&Packet::PubAck(done(ReasonCode::QUOTA_EXCEEDED, &[])), Version::V5, |incoming| {
            assert!(matches!(incoming, Incoming::Done { pid: 300, result: Err(Refusal::Quota) }));
        });
    }

    #[test]
    fn what_no_broker_sends_is_refused() {
        for bytes in [
            &[0x34, 5, 0, 1, b'a', 0, 1][..],
            &[0x32, 5, 0, 1, b'a', 0, 0],
            &[0x10, 0],
            &[0x50, 2, 0, 1],
            &[0x40, 2, 0, 0],
            &[0x40, 1, 0],
            &[0x30, 3, 0, 1, 0xFF],
            &[0x20, 0x80, 0x80, 0x80, 0x80, 0x01],
            &[0x40, 6, 0, 1, 0, 2, 0x7F, 0],
        ] {
            assert!(matches!(Mqtt::V5.decode(bytes), Err(LinkError::Protocol)), "{bytes:?}");
        }
        assert!(matches!(Mqtt::V311.decode(&[0xE0, 0]), Err(LinkError::Protocol)));
        assert!(matches!(Mqtt::V5.decode(&[0x20, 0x80, 0x80, 0x80]), Ok(None)));
    }
}
