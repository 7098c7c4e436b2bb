//! The few MQTT packets a load needs, written and read by hand.
//!
//! Nothing here comes from the codec of the project: a mistake shared by both sides would measure nothing and
//! hide itself. Both versions are spoken, because the properties of 5.0 cost a broker something.

use std::ops::Range;

/// The version of MQTT the generator speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// MQTT 3.1.1.
    V3,
    /// MQTT 5.0.
    V5,
}

/// Whether the broker keeps the session when the connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// The session ends with the connection.
    Nothing,
    /// The session outlives the connection, for an hour where the version can say so.
    Session,
}

/// First byte of CONNECT.
pub const CONNECT: u8 = 0x10;
/// First byte of CONNACK.
pub const CONNACK: u8 = 0x20;
/// First byte of PUBLISH without its flags.
pub const PUBLISH: u8 = 0x30;
/// First byte of PUBACK.
pub const PUBACK: u8 = 0x40;
/// First byte of PUBREC.
pub const PUBREC: u8 = 0x50;
/// First byte of PUBREL, with the flags it must carry.
pub const PUBREL: u8 = 0x62;
/// First byte of PUBCOMP.
pub const PUBCOMP: u8 = 0x70;
/// First byte of SUBSCRIBE, with the flags it must carry.
pub const SUBSCRIBE: u8 = 0x82;
/// First byte of SUBACK.
pub const SUBACK: u8 = 0x90;
/// First byte of PINGREQ.
pub const PINGREQ: u8 = 0xc0;
/// First byte of PINGRESP.
pub const PINGRESP: u8 = 0xd0;
/// First byte of DISCONNECT.
pub const DISCONNECT: u8 = 0xe0;

/// Bytes at the start of every payload: the stream (u32), the sequence number in it (u32), both little endian.
pub const STAMP_LEN: usize = 8;

/// Bytes that cannot be a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the broker sent bytes that are not an MQTT packet; look at its log")]
pub struct Malformed;

/// One packet as it lies in the read buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet<'a> {
    /// Packet type and flags.
    pub first: u8,
    /// Everything behind the remaining length.
    pub body: &'a [u8],
    /// Length of the packet in bytes, header included.
    pub len: usize,
}

/// The parts of a PUBLISH a receiver looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Publish<'a> {
    /// Quality of service, 0 to 2.
    pub qos: u8,
    /// Packet id; 0 at quality 0.
    pub id: u16,
    /// The application message.
    pub payload: &'a [u8],
}

/// Takes the first whole packet off `bytes`; `None` while more bytes are needed.
pub fn split(bytes: &[u8]) -> Result<Option<Packet<'_>>, Malformed> {
    let Some((&first, rest)) = bytes.split_first() else { return Ok(None) };
    let Some((len, digits)) = varint(rest)? else { return Ok(None) };
    let start = 1 + digits;
    Ok(bytes.get(start..start + len).map(|body| Packet { first, body, len: start + len }))
}

/// Reads a variable byte integer: its value and the number of bytes it takes.
pub fn varint(bytes: &[u8]) -> Result<Option<(usize, usize)>, Malformed> {
    let mut value = 0;
    for (at, &byte) in bytes.iter().take(4).enumerate() {
        value |= usize::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Ok(Some((value, at + 1)));
        }
    }
    if bytes.len() >= 4 { Err(Malformed) } else { Ok(None) }
}

/// Reads a PUBLISH.
pub fn read_publish<'a>(version: Version, packet: &Packet<'a>) -> Result<Publish<'a>, Malformed> {
    let qos = (packet.first >> 1) & 3;
    let (topic_len, rest) = packet.body.split_first_chunk::<2>().ok_or(Malformed)?;
    let mut rest = rest.get(usize::from(u16::from_be_bytes(*topic_len))..).ok_or(Malformed)?;
    let mut id = 0;
    if qos > 0 {
        let (bytes, after) = rest.split_first_chunk::<2>().ok_or(Malformed)?;
        id = u16::from_be_bytes(*bytes);
        rest = after;
    }
    if version == Version::V5 {
        let (len, digits) = varint(rest)?.ok_or(Malformed)?;
        rest = rest.get(digits + len..).ok_or(Malformed)?;
    }
    Ok(Publish { qos, id, payload: rest })
}

/// Reads the packet id that starts the body of every acknowledgement.
pub fn read_id(packet: &Packet<'_>) -> Result<u16, Malformed> {
    packet.body.first_chunk::<2>().map(|bytes| u16::from_be_bytes(*bytes)).ok_or(Malformed)
}

/// Reads the stamp of a payload: stream and sequence number.
pub fn read_stamp(payload: &[u8]) -> Option<(u32, u32)> {
    let (stream, rest) = payload.split_first_chunk::<4>()?;
    let seq = rest.first_chunk::<4>()?;
    Some((u32::from_le_bytes(*stream), u32::from_le_bytes(*seq)))
}

/// Writes a CONNECT.
pub fn connect(out: &mut Vec<u8>, version: Version, client_id: &str, keep: Keep) {
    let mut body = Vec::with_capacity(64);
    string(&mut body, b"MQTT");
    body.push(if version == Version::V5 { 5 } else { 4 });
    body.push(if keep == Keep::Nothing { 2 } else { 0 });
    body.extend_from_slice(&600u16.to_be_bytes());
    match (version, keep) {
        (Version::V3, _) => {}
        (Version::V5, Keep::Nothing) => body.push(0),
        // Session expiry interval, 3,600 s.
        (Version::V5, Keep::Session) => body.extend_from_slice(&[5, 0x11, 0, 0, 0x0e, 0x10]),
    }
    string(&mut body, client_id.as_bytes());
    frame(out, CONNECT, &body);
}

/// Writes a SUBSCRIBE for one topic filter, with packet id 1.
pub fn subscribe(out: &mut Vec<u8>, version: Version, filter: &str, qos: u8) {
    let mut body = vec![0, 1];
    if version == Version::V5 {
        body.push(0);
    }
    string(&mut body, filter.as_bytes());
    body.push(qos);
    frame(out, SUBSCRIBE, &body);
}

/// Writes an acknowledgement (PUBACK, PUBREC, PUBREL or PUBCOMP) that says success.
pub fn acknowledge(out: &mut Vec<u8>, first: u8, id: u16) {
    let [high, low] = id.to_be_bytes();
    out.extend_from_slice(&[first, 2, high, low]);
}

/// Writes a DISCONNECT that ends the connection in order.
pub fn disconnect(out: &mut Vec<u8>) {
    out.extend_from_slice(&[DISCONNECT, 0]);
}

/// Writes a fixed header and a body.
pub fn frame(out: &mut Vec<u8>, first: u8, body: &[u8]) {
    out.push(first);
    let mut rest = body.len();
    loop {
        let digit = (rest & 0x7f) as u8;
        rest >>= 7;
        if rest == 0 {
            out.push(digit);
            break;
        }
        out.push(digit | 0x80);
    }
    out.extend_from_slice(body);
}

/// A PUBLISH encoded once; per message only its packet id and its stamp change.
#[derive(Debug)]
pub struct Template {
    bytes: Vec<u8>,
    id: Option<Range<usize>>,
    seq: Range<usize>,
}

impl Template {
    /// Encodes a PUBLISH of `payload_len` bytes (at least [`STAMP_LEN`]) of the numbered stream.
    pub fn new(version: Version, topic: &str, qos: u8, stream: u32, payload_len: usize) -> Self {
        let mut body = Vec::with_capacity(payload_len + topic.len() + 8);
        string(&mut body, topic.as_bytes());
        let id_at = body.len();
        if qos > 0 {
            body.extend_from_slice(&[0, 0]);
        }
        if version == Version::V5 {
            body.push(0);
        }
        let stamp_at = body.len();
        body.extend_from_slice(&stream.to_le_bytes());
        body.extend_from_slice(&[0; 4]);
        body.resize(stamp_at + payload_len.max(STAMP_LEN), b'.');
        let mut bytes = Vec::with_capacity(body.len() + 5);
        frame(&mut bytes, PUBLISH | (qos << 1), &body);
        let shift = bytes.len() - body.len();
        Self {
            bytes,
            id: (qos > 0).then_some(shift + id_at..shift + id_at + 2),
            seq: shift + stamp_at + 4..shift + stamp_at + 8,
        }
    }

    /// Appends the message with this packet id (unused at quality 0) and sequence number.
    pub fn write(&self, out: &mut Vec<u8>, id: u16, seq: u32) {
        let start = out.len();
        out.extend_from_slice(&self.bytes);
        let message = &mut out[start..];
        if let Some(range) = self.id.clone() {
            message[range].copy_from_slice(&id.to_be_bytes());
        }
        message[self.seq.clone()].copy_from_slice(&seq.to_le_bytes());
    }
}

fn string(out: &mut Vec<u8>, text: &[u8]) {
    out.extend_from_slice(&(text.len() as u16).to_be_bytes());
    out.extend_from_slice(text);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_round_trip(version: Version, qos: u8, payload_len: usize) {
        let template = Template::new(version, "a/b", qos, 7, payload_len);
        let mut out = vec![];
        template.write(&mut out, 513, 99);
        template.write(&mut out, 514, 100);
        let packet = split(&out).unwrap().unwrap();
        let publish = read_publish(version, &packet).unwrap();
        assert_eq!((publish.qos, publish.id), (qos, if qos > 0 { 513 } else { 0 }));
        assert_eq!(publish.payload.len(), payload_len);
        assert_eq!(read_stamp(publish.payload), Some((7, 99)));
        let second = split(&out[packet.len..]).unwrap().unwrap();
        assert_eq!(read_stamp(read_publish(version, &second).unwrap().payload), Some((7, 100)));
        assert_eq!(packet.len + second.len, out.len());
    }

    #[test]
    fn a_template_reads_back_as_it_was_written() {
        for version in [Version::V3, Version::V5] {
            for qos in 0..3 {
                check_round_trip(version, qos, 64);
                check_round_trip(version, qos, 4096);
            }
        }
    }

    #[test]
    fn an_unfinished_packet_waits_for_more_bytes() {
        let mut out = vec![];
        connect(&mut out, Version::V5, "x", Keep::Session);
        for cut in 0..out.len() {
            assert_eq!(split(&out[..cut]), Ok(None));
        }
        assert_eq!(split(&out).unwrap().unwrap().len, out.len());
    }

    #[test]
    fn a_length_of_five_digits_is_no_packet() {
        assert_eq!(split(&[0x30, 0xff, 0xff, 0xff, 0xff, 0x01]), Err(Malformed));
    }
}
