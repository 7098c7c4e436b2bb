//! Bytes to packets.

use super::reason::{AUTH, CONNACK, DISCONNECT, PUBACK, PUBREL, SUBACK, SUBACK_V311, UNSUBACK};
use super::subscribe::{SubscribeFilters, UnsubscribeFilters};
use super::{
    Ack, Auth, ConnAck, Connect, DecodeError, Disconnect, Packet, PacketId, Properties, PropertyPlace, Publish, QoS,
    ReasonCode, SubAck, Subscribe, UnsubAck, Unsubscribe, Version, Will,
};
use crate::cursor::Reader;
use crate::topic;

/// Reads the packet at the front of `input`, and says how many bytes it has; `None` while it is incomplete.
///
/// CONNECT brings its own version, every other packet is read as `version`. A packet that claims more than
/// `max_packet_size` bytes is refused as soon as its fixed header is there.
///
/// What comes back is legal in itself: every string, property, reason code and flag is what the specification allows in
/// this type of packet. It may still be sent by the wrong side ([`Packet::check_sender`]), at the wrong time, or name
/// filters that are no filters ([`crate::topic::check_filter`]).
///
/// # Errors
/// Why the bytes can be no packet, whatever follows them. The connection is of no more use: the receiver answers with
/// [`DecodeError::reason`] where it may, and closes.
#[inline]
pub fn decode(
    input: &[u8],
    version: Version,
    max_packet_size: u32,
) -> Result<Option<(Packet<'_>, usize)>, DecodeError> {
    let Some((header, size)) = fixed_header(input)? else { return Ok(None) };
    if size > max_packet_size as usize {
        return Err(DecodeError::TooLarge { size: u32::try_from(size).unwrap_or(u32::MAX), max: max_packet_size });
    }
    let Some(body) = input.get(header..size) else {
        // What can be seen to be wrong already is not waited for.
        check_flags(input[0], version)?;
        return Ok(None);
    };
    let first = input[0];
    // Each arm makes the result itself: a packet that is first held aside would be copied.
    match (first, body) {
        (0x30..=0x3F, _) => {
            let publish = read_publish(first, Reader::new(body), version)?;
            Ok(Some((Packet::Publish(publish), size)))
        }
        // The usual acknowledgement, of success and nothing else, in both versions.
        (0x40 | 0x50 | 0x62 | 0x70, &[high, low]) => {
            let packet_id = PacketId::new(u16::from_be_bytes([high, low])).ok_or(DecodeError::ZeroPacketId)?;
            let ack = Ack { packet_id, reason: ReasonCode::SUCCESS, properties: Properties::EMPTY };
            match first {
                0x40 => Ok(Some((Packet::PubAck(ack), size))),
                0x50 => Ok(Some((Packet::PubRec(ack), size))),
                0x62 => Ok(Some((Packet::PubRel(ack), size))),
                _ => Ok(Some((Packet::PubComp(ack), size))),
            }
        }
        _ => {
            check_flags(first, version)?;
            Ok(Some((read_other(first >> 4, Reader::new(body), version)?, size)))
        }
    }
}

/// The length in bytes, fixed header included, of the packet at the front of `input`; `None` until that is known.
///
/// # Errors
/// [`DecodeError::OverlongInteger`]: the Remaining Length is longer than it may be.
pub fn frame_len(input: &[u8]) -> Result<Option<usize>, DecodeError> {
    Ok(fixed_header(input)?.map(|(_, size)| size))
}

/// The version a CONNECT at the front of `input` names, whatever is wrong with the rest of it.
pub fn connect_version(input: &[u8]) -> Option<Version> {
    let (header, _) = fixed_header(input).ok()??;
    let name = input.get(header..header + 6)?;
    let level = *input.get(header + 6)?;
    (input[0] >> 4 == 1 && name == b"\x00\x04MQTT").then(|| Version::from_level(level))?
}

/// Length of the fixed header and of the whole packet (section 2.1).
#[inline]
fn fixed_header(input: &[u8]) -> Result<Option<(usize, usize)>, DecodeError> {
    match *input {
        [_, low @ 0..=0x7F, ..] => Ok(Some((2, 2 + usize::from(low)))),
        [_, low, high @ 1..=0x7F, ..] => Ok(Some((3, 3 + usize::from(low & 0x7F) + (usize::from(high) << 7)))),
        _ => long_fixed_header(input),
    }
}

fn long_fixed_header(input: &[u8]) -> Result<Option<(usize, usize)>, DecodeError> {
    let mut remaining = 0usize;
    for i in 0..4 {
        let Some(&byte) = input.get(1 + i) else { return Ok(None) };
        remaining |= usize::from(byte & 0x7F) << (7 * i);
        if byte & 0x80 == 0 {
            if i > 0 && byte == 0 {
                return Err(DecodeError::OverlongInteger);
            }
            return Ok(Some((2 + i, 2 + i + remaining)));
        }
    }
    Err(DecodeError::OverlongInteger)
}

/// 2 for PUBREL, SUBSCRIBE and UNSUBSCRIBE [MQTT5-3.6.1-1] [MQTT5-3.8.1-1] [MQTT5-3.10.1-1] [MQTT3-3.6.1-1]
/// [MQTT3-3.8.1-1] [MQTT3-3.10.1-1], 0 for the rest [MQTT5-3.14.1-1] [MQTT5-3.15.1-1] [MQTT3-3.14.1-1].
///
/// The reserved flags of the fixed header [MQTT5-2.1.3-1] [MQTT3-2.2.2-1] [MQTT3-2.2.2-2].
fn check_flags(first: u8, version: Version) -> Result<(), DecodeError> {
    let expect = match first >> 4 {
        0 => return Err(DecodeError::UnknownPacketType(0)),
        15 if version == Version::V311 => return Err(DecodeError::UnknownPacketType(15)),
        3 => return if first & 6 == 6 { Err(DecodeError::BadQoS) } else { Ok(()) },
        6 | 8 | 10 => 2,
        _ => 0,
    };
    if first & 0x0F == expect { Ok(()) } else { Err(DecodeError::ReservedFlags) }
}

#[inline]
fn read_publish(first: u8, mut r: Reader<'_>, version: Version) -> Result<Publish<'_>, DecodeError> {
    // Neither QoS 3 [MQTT5-3.3.1-4] [MQTT3-3.3.1-4] nor DUP with QoS 0 [MQTT5-3.3.1-2] [MQTT3-3.3.1-2].
    let qos = QoS::from_bits(first >> 1 & 3).ok_or(DecodeError::BadQoS)?;
    let dup = first & 8 != 0;
    if dup && qos == QoS::AtMostOnce {
        return Err(DecodeError::DupWithoutQoS);
    }
    // First of all a topic name [MQTT5-3.3.2-1] [MQTT5-4.7.0-1] [MQTT3-3.3.2-1] [MQTT3-4.7.1-1].
    let topic = r.topic_name()?;
    // [MQTT5-2.2.1-2] [MQTT3-2.3.1-5]
    let packet_id = if qos == QoS::AtMostOnce { None } else { Some(read_packet_id(&mut r)?) };
    let (properties, seen) = read_properties_seen(&mut r, version, PropertyPlace::Publish)?;
    if topic.is_empty() && seen & 1 << 0x23 == 0 {
        return Err(DecodeError::TopicMissing); // Section 3.3.2.1; [MQTT3-4.7.3-1]
    }
    Ok(Publish { dup, qos, retain: first & 1 != 0, topic, packet_id, properties, payload: r.rest() })
}

fn read_other(kind: u8, mut r: Reader<'_>, version: Version) -> Result<Packet<'_>, DecodeError> {
    let packet = match kind {
        1 => Packet::Connect(read_connect(&mut r)?),
        2 => Packet::ConnAck(read_connack(&mut r, version)?),
        4 => Packet::PubAck(read_ack(&mut r, version, PUBACK)?),
        5 => Packet::PubRec(read_ack(&mut r, version, PUBACK)?),
        6 => Packet::PubRel(read_ack(&mut r, version, PUBREL)?),
        7 => Packet::PubComp(read_ack(&mut r, version, PUBREL)?),
        8 => {
            let packet_id = read_packet_id(&mut r)?;
            let properties = read_properties(&mut r, version, PropertyPlace::Subscribe)?;
            let filters = SubscribeFilters::read(r.rest(), version)?;
            return Ok(Packet::Subscribe(Subscribe { packet_id, properties, filters }));
        }
        9 => {
            let packet_id = read_packet_id(&mut r)?;
            let properties = read_properties(&mut r, version, PropertyPlace::Ack)?;
            let codes = if version == Version::V311 { SUBACK_V311 } else { SUBACK };
            let reasons = read_reasons(r.rest(), codes)?;
            return Ok(Packet::SubAck(SubAck { packet_id, properties, reasons }));
        }
        10 => {
            let packet_id = read_packet_id(&mut r)?;
            let properties = read_properties(&mut r, version, PropertyPlace::Unsubscribe)?;
            let filters = UnsubscribeFilters::read(r.rest(), version)?;
            return Ok(Packet::Unsubscribe(Unsubscribe { packet_id, properties, filters }));
        }
        11 => {
            let packet_id = read_packet_id(&mut r)?;
            if version == Version::V311 {
                Packet::UnsubAck(UnsubAck { packet_id, properties: Properties::EMPTY, reasons: &[] })
            } else {
                let properties = read_properties(&mut r, version, PropertyPlace::Ack)?;
                let reasons = read_reasons(r.rest(), UNSUBACK)?;
                return Ok(Packet::UnsubAck(UnsubAck { packet_id, properties, reasons }));
            }
        }
        12 => Packet::PingReq,
        13 => Packet::PingResp,
        14 => {
            let (reason, properties) = read_reason(&mut r, version, PropertyPlace::Disconnect, DISCONNECT)?;
            Packet::Disconnect(Disconnect { reason, properties })
        }
        15 => Packet::Auth(read_auth(&mut r, version)?),
        kind => return Err(DecodeError::UnknownPacketType(kind)),
    };
    if r.is_empty() { Ok(packet) } else { Err(DecodeError::TrailingBytes) }
}

#[inline]
/// Never 0 [MQTT5-2.2.1-3] [MQTT3-2.3.1-1].
fn read_packet_id(r: &mut Reader<'_>) -> Result<PacketId, DecodeError> {
    PacketId::new(r.u16()?).ok_or(DecodeError::ZeroPacketId)
}

#[inline]
fn read_properties<'a>(
    r: &mut Reader<'a>,
    version: Version,
    place: PropertyPlace,
) -> Result<Properties<'a>, DecodeError> {
    read_properties_seen(r, version, place).map(|(properties, _)| properties)
}

/// Properties, and a bit for each identifier that is among them.
#[inline]
fn read_properties_seen<'a>(
    r: &mut Reader<'a>,
    version: Version,
    place: PropertyPlace,
) -> Result<(Properties<'a>, u64), DecodeError> {
    if version == Version::V311 {
        return Ok((Properties::EMPTY, 0));
    }
    let len = r.varint()?;
    let raw = r.take(len as usize)?;
    if raw.is_empty() { Ok((Properties::EMPTY, 0)) } else { Properties::parse_seen(raw, place) }
}

fn read_connect<'a>(r: &mut Reader<'a>) -> Result<Connect<'a>, DecodeError> {
    // [MQTT5-3.1.2-1] [MQTT3-3.1.2-1]; `MQIsdp` is level 3.
    let name = r.binary()?;
    let level = r.u8()?;
    if name != b"MQTT" && (name != b"MQIsdp" || level & 0x7F != 3) {
        return Err(DecodeError::BadProtocolName);
    }
    let version = Version::from_level(level).ok_or(DecodeError::UnsupportedVersion(level))?;
    let flags = r.u8()?;
    let keep_alive_secs = r.u16()?;
    let has_will = flags & 0x04 != 0;
    // [MQTT5-3.1.2-3] [MQTT3-3.1.2-3]; [MQTT5-3.1.2-11] [MQTT5-3.1.2-13] [MQTT3-3.1.2-11] [MQTT3-3.1.2-13]
    // [MQTT3-3.1.2-15]; a password
    // needs a user name in 3.1.1 [MQTT3-3.1.2-22].
    let orphan_password = version == Version::V311 && flags & 0xC0 == 0x40;
    if flags & 1 != 0 || (!has_will && flags & 0x38 != 0) || orphan_password {
        return Err(DecodeError::BadConnectFlags);
    }
    let will_qos = QoS::from_bits(flags >> 3 & 3).ok_or(DecodeError::BadQoS)?; // [MQTT5-3.1.2-12] [MQTT3-3.1.2-14]
    let properties = read_properties(r, version, PropertyPlace::Connect)?;
    // In this order, each exactly when its flag says so [MQTT5-3.1.3-1] [MQTT5-3.1.3-3] [MQTT5-3.1.3-4] [MQTT3-3.1.3-1]
    // [MQTT3-3.1.3-3] [MQTT3-3.1.3-4].
    let client_id = r.string()?;
    // [MQTT5-3.1.2-9] [MQTT5-3.1.3-11] [MQTT3-3.1.2-9] [MQTT3-3.1.3-10]
    let will = if has_will {
        let properties = read_properties(r, version, PropertyPlace::Will)?;
        let topic = r.string()?;
        topic::check_name(topic).map_err(DecodeError::BadTopic)?;
        Some(Will { qos: will_qos, retain: flags & 0x20 != 0, properties, topic, payload: r.binary()? })
    } else {
        None
    };
    // A field without its flag is left over, which is an error [MQTT5-3.1.2-16] [MQTT5-3.1.2-17] [MQTT5-3.1.2-18]
    // [MQTT5-3.1.2-19] [MQTT5-3.1.3-12] [MQTT3-3.1.2-18] [MQTT3-3.1.2-19] [MQTT3-3.1.2-20] [MQTT3-3.1.2-21]
    // [MQTT3-3.1.3-11].
    let username = if flags & 0x80 != 0 { Some(r.string()?) } else { None };
    let password = if flags & 0x40 != 0 { Some(r.binary()?) } else { None };
    let clean_start = flags & 2 != 0;
    Ok(Connect { version, clean_start, keep_alive_secs, properties, client_id, will, username, password })
}

fn read_connack<'a>(r: &mut Reader<'a>, version: Version) -> Result<ConnAck<'a>, DecodeError> {
    let flags = r.u8()?;
    if flags > 1 {
        return Err(DecodeError::ReservedFlags); // [MQTT5-3.2.2-1]
    }
    let code = r.u8()?;
    let reason = match version {
        Version::V311 => ReasonCode::from_connack_v311(code),
        Version::V5 => Some(ReasonCode(code)).filter(|_| CONNACK.contains(&code)),
    };
    let reason = reason.ok_or(DecodeError::BadReasonCode(code))?;
    let session_present = flags == 1;
    if session_present && reason != ReasonCode::SUCCESS {
        return Err(DecodeError::SessionPresentOnRefusal); // [MQTT5-3.2.2-6] [MQTT3-3.2.2-4]
    }
    let properties = read_properties(r, version, PropertyPlace::ConnAck)?;
    Ok(ConnAck { session_present, reason, properties })
}

/// One code of `codes` for each filter; nobody subscribes to no filter.
fn read_reasons<'a>(reasons: &'a [u8], codes: &[u8]) -> Result<&'a [u8], DecodeError> {
    if reasons.is_empty() {
        return Err(DecodeError::NoReasonCodes);
    }
    match reasons.iter().find(|code| !codes.contains(code)) {
        Some(code) => Err(DecodeError::BadReasonCode(*code)),
        None => Ok(reasons),
    }
}

/// An AUTH of no bytes means success (section 3.15.2.1); every other names its method (section 3.15.2.2.2).
fn read_auth<'a>(r: &mut Reader<'a>, version: Version) -> Result<Auth<'a>, DecodeError> {
    if r.is_empty() {
        return Ok(Auth { reason: ReasonCode::SUCCESS, properties: Properties::EMPTY });
    }
    let code = r.u8()?;
    if !AUTH.contains(&code) {
        return Err(DecodeError::BadReasonCode(code));
    }
    // Unlike in DISCONNECT the Property Length may not be left out on its own.
    let properties = read_properties(r, version, PropertyPlace::Auth)?;
    if code != 0 && properties.is_empty() {
        return Err(DecodeError::PropertyMissing(0x15));
    }
    Ok(Auth { reason: ReasonCode(code), properties })
}

#[inline]
fn read_ack<'a>(r: &mut Reader<'a>, version: Version, codes: &[u8]) -> Result<Ack<'a>, DecodeError> {
    let packet_id = read_packet_id(r)?;
    if r.is_empty() {
        return Ok(Ack { packet_id, reason: ReasonCode::SUCCESS, properties: Properties::EMPTY });
    }
    let (reason, properties) = read_reason(r, version, PropertyPlace::Ack, codes)?;
    Ok(Ack { packet_id, reason, properties })
}

/// A reason code and properties, either of which may be left out at the end (sections 3.4.2 to 3.7.2 and 3.14.2).
fn read_reason<'a>(
    r: &mut Reader<'a>,
    version: Version,
    place: PropertyPlace,
    codes: &[u8],
) -> Result<(ReasonCode, Properties<'a>), DecodeError> {
    if r.is_empty() {
        return Ok((ReasonCode::SUCCESS, Properties::EMPTY));
    }
    if version == Version::V311 {
        return Err(DecodeError::TrailingBytes);
    }
    let code = r.u8()?;
    if !codes.contains(&code) {
        return Err(DecodeError::BadReasonCode(code));
    }
    let properties = if r.is_empty() { Properties::EMPTY } else { read_properties(r, version, place)? };
    Ok((ReasonCode(code), properties))
}
