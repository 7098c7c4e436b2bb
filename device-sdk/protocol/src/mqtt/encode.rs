//! Packets to bytes.

use super::{Ack, Auth, ConnAck, Connect, Packet, Properties, Publish, QoS, ReasonCode, Version};
use crate::cursor::{Counter, Sink, SliceSink, varint_len};

/// The slice is shorter than the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BufferTooSmall {
    /// Bytes the packet needs.
    pub needed: usize,
}

impl core::fmt::Display for BufferTooSmall {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "the packet needs a buffer of {} bytes", self.needed)
    }
}

impl core::error::Error for BufferTooSmall {}

/// Writes a packet into a slice and says how many bytes it took.
pub fn encode_to_slice(packet: &Packet<'_>, version: Version, out: &mut [u8]) -> Result<usize, BufferTooSmall> {
    let needed = packet.encoded_len(version);
    if needed > out.len() {
        return Err(BufferTooSmall { needed });
    }
    let mut sink = SliceSink { bytes: out, at: 0 };
    packet.encode(version, &mut sink);
    Ok(sink.at)
}

#[inline]
fn frame(first: u8, remaining: usize, out: &mut impl Sink) {
    out.put_u8(first);
    out.put_varint(u32::try_from(remaining).unwrap_or(u32::MAX));
}

#[inline]
fn properties_len(properties: Properties<'_>, version: Version) -> usize {
    match version {
        Version::V311 => 0,
        Version::V5 => {
            let len = properties.as_bytes().len();
            varint_len(len) + len
        }
    }
}

/// None are said with a length of 0 [MQTT5-2.2.2-1].
#[inline]
fn put_properties(properties: Properties<'_>, version: Version, out: &mut impl Sink) {
    if version == Version::V5 {
        let bytes = properties.as_bytes();
        out.put_varint(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
        out.put(bytes);
    }
}

impl Publish<'_> {
    #[inline]
    fn remaining(&self, version: Version) -> usize {
        let id = if self.packet_id.is_some() { 2 } else { 0 };
        2 + self.topic.len() + id + properties_len(self.properties, version) + self.payload.len()
    }

    /// Bytes that [`Publish::encode`] writes.
    #[inline]
    pub fn encoded_len(&self, version: Version) -> usize {
        let remaining = self.remaining(version);
        1 + varint_len(remaining) + remaining
    }

    /// Appends the packet; `packet_id` is there exactly when `qos` is not 0, the topic has at most 65,535 bytes.
    #[inline]
    pub fn encode(&self, version: Version, out: &mut impl Sink) {
        debug_assert_eq!(self.packet_id.is_some(), self.qos != QoS::AtMostOnce, "[MQTT5-2.2.1-2] [MQTT3-2.3.1-5]");
        let first = 0x30 | u8::from(self.dup) << 3 | (self.qos as u8) << 1 | u8::from(self.retain);
        let remaining = u32::try_from(self.remaining(version)).unwrap_or(u32::MAX);
        // Everything before the topic in one go, where it is short.
        let topic = self.topic.as_bytes();
        let [high, low] = u16::try_from(topic.len()).unwrap_or(u16::MAX).to_be_bytes();
        match remaining {
            0..=0x7F => out.put(&[first, (remaining & 0x7F) as u8, high, low]),
            0x80..=0x3FFF => {
                let lengths = [(remaining & 0x7F) as u8 | 0x80, (remaining >> 7 & 0x7F) as u8];
                out.put(&[first, lengths[0], lengths[1], high, low]);
            }
            _ => {
                out.put_u8(first);
                out.put_varint(remaining);
                out.put(&[high, low]);
            }
        }
        out.put(topic);
        if let Some(id) = self.packet_id {
            out.put_u16(id.value());
        }
        put_properties(self.properties, version, out);
        out.put(self.payload);
    }
}

impl Packet<'_> {
    /// Bytes that [`Packet::encode`] writes.
    pub fn encoded_len(&self, version: Version) -> usize {
        match self {
            Self::Publish(publish) => publish.encoded_len(version),
            Self::PubAck(p) | Self::PubRec(p) | Self::PubRel(p) | Self::PubComp(p) if p.is_bare(version) => 4,
            _ => {
                let mut counter = Counter::default();
                self.encode(version, &mut counter);
                counter.0
            }
        }
    }

    /// Appends the packet in the form of `version`, as short as it may be.
    ///
    /// 3.1.1 has no properties, no reasons but those of CONNACK and SUBACK, and no AUTH: whoever speaks it sends none.
    /// CONNECT is written in its own version.
    pub fn encode(&self, version: Version, out: &mut impl Sink) {
        match self {
            Self::Connect(p) => encode_connect(p, out),
            Self::ConnAck(p) => encode_connack(p, version, out),
            Self::Publish(p) => p.encode(version, out),
            Self::PubAck(p) => encode_ack(0x40, p, version, out),
            Self::PubRec(p) => encode_ack(0x50, p, version, out),
            Self::PubRel(p) => encode_ack(0x62, p, version, out),
            Self::PubComp(p) => encode_ack(0x70, p, version, out),
            Self::Subscribe(p) => {
                let mut len = Counter::default();
                p.filters.encode(version, &mut len);
                frame(0x82, 2 + properties_len(p.properties, version) + len.0, out);
                out.put_u16(p.packet_id.value());
                put_properties(p.properties, version, out);
                p.filters.encode(version, out);
            }
            Self::SubAck(p) => {
                frame(0x90, 2 + properties_len(p.properties, version) + p.reasons.len(), out);
                out.put_u16(p.packet_id.value());
                put_properties(p.properties, version, out);
                match version {
                    // Every failure is 0x80 there [MQTT3-3.9.3-2].
                    Version::V311 => p.reasons.iter().for_each(|code| out.put_u8(if *code > 2 { 0x80 } else { *code })),
                    Version::V5 => out.put(p.reasons),
                }
            }
            Self::Unsubscribe(p) => {
                let len: usize = p.filters.iter().map(|f| 2 + f.len()).sum();
                frame(0xA2, 2 + properties_len(p.properties, version) + len, out);
                out.put_u16(p.packet_id.value());
                put_properties(p.properties, version, out);
                p.filters.iter().for_each(|f| out.put_prefixed(f.as_bytes()));
            }
            Self::UnsubAck(p) => {
                let reasons = if version == Version::V5 { p.reasons } else { &[] };
                frame(0xB0, 2 + properties_len(p.properties, version) + reasons.len(), out);
                out.put_u16(p.packet_id.value());
                put_properties(p.properties, version, out);
                out.put(reasons);
            }
            Self::PingReq => frame(0xC0, 0, out),
            Self::PingResp => frame(0xD0, 0, out),
            Self::Disconnect(p) => encode_reason(0xE0, p.reason, p.properties, version, out),
            Self::Auth(p) => encode_auth(p, out),
        }
    }
}

fn encode_connect(p: &Connect<'_>, out: &mut impl Sink) {
    let version = p.version;
    let mut flags = u8::from(p.clean_start) << 1;
    let mut len = 10 + properties_len(p.properties, version) + 2 + p.client_id.len();
    if let Some(will) = &p.will {
        flags |= 0x04 | (will.qos as u8) << 3 | u8::from(will.retain) << 5;
        len += properties_len(will.properties, version) + 4 + will.topic.len() + will.payload.len();
    }
    if let Some(password) = p.password {
        flags |= 0x40;
        len += 2 + password.len();
    }
    if let Some(username) = p.username {
        flags |= 0x80;
        len += 2 + username.len();
    }
    frame(0x10, len, out);
    out.put_prefixed(b"MQTT");
    out.put_u8(version as u8);
    out.put_u8(flags);
    out.put_u16(p.keep_alive_secs);
    put_properties(p.properties, version, out);
    out.put_prefixed(p.client_id.as_bytes());
    if let Some(will) = &p.will {
        put_properties(will.properties, version, out);
        out.put_prefixed(will.topic.as_bytes());
        out.put_prefixed(will.payload);
    }
    if let Some(username) = p.username {
        out.put_prefixed(username.as_bytes());
    }
    if let Some(password) = p.password {
        out.put_prefixed(password);
    }
}

fn encode_connack(p: &ConnAck<'_>, version: Version, out: &mut impl Sink) {
    frame(0x20, 2 + properties_len(p.properties, version), out);
    // Session Present is the only flag [MQTT5-3.2.2-1]; no refusal has it [MQTT5-3.2.2-6] [MQTT3-3.2.2-4].
    out.put_u8(u8::from(p.session_present && p.reason == ReasonCode::SUCCESS));
    out.put_u8(match version {
        Version::V311 => p.reason.connack_v311(),
        Version::V5 => p.reason.0,
    });
    put_properties(p.properties, version, out);
}

impl Ack<'_> {
    /// Whether the packet identifier says it all (section 3.4.2.1).
    #[inline]
    fn is_bare(&self, version: Version) -> bool {
        version == Version::V311 || (self.reason == ReasonCode::SUCCESS && self.properties.is_empty())
    }
}

/// Always the shortest form.
#[inline]
fn encode_ack(first: u8, p: &Ack<'_>, version: Version, out: &mut impl Sink) {
    let [high, low] = p.packet_id.value().to_be_bytes();
    if p.is_bare(version) {
        return out.put(&[first, 2, high, low]);
    }
    let properties = if p.properties.is_empty() { 0 } else { properties_len(p.properties, version) };
    frame(first, 3 + properties, out);
    out.put(&[high, low, p.reason.0]);
    if !p.properties.is_empty() {
        put_properties(p.properties, version, out);
    }
}

/// Success without properties has no bytes (section 3.15.2.1); there is no AUTH in 3.1.1.
fn encode_auth(p: &Auth<'_>, out: &mut impl Sink) {
    if p.reason == ReasonCode::SUCCESS && p.properties.is_empty() {
        return frame(0xF0, 0, out);
    }
    frame(0xF0, 1 + properties_len(p.properties, Version::V5), out);
    out.put_u8(p.reason.0);
    put_properties(p.properties, Version::V5, out); // [MQTT5-2.2.2-1]
}

fn encode_reason(first: u8, reason: ReasonCode, properties: Properties<'_>, version: Version, out: &mut impl Sink) {
    let bare = version == Version::V311 || (reason == ReasonCode::SUCCESS && properties.is_empty());
    if bare {
        return frame(first, 0, out);
    }
    let len = if properties.is_empty() { 0 } else { properties_len(properties, version) };
    frame(first, 1 + len, out);
    out.put_u8(reason.0);
    if !properties.is_empty() {
        put_properties(properties, version, out);
    }
}
