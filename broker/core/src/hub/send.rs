//! Bytes for links: packets are encoded straight into a link's output, a fan-out once for all who get the same bytes.

use super::{AckKind, Hub, Now};
use crate::link::{Link, Phase};
use crate::store::MessageRef;
use parlor_protocol::mqtt::{Ack, Packet, PacketId, Properties, Property, Publish, QoS, ReasonCode, Version};

/// One delivery's form.
#[derive(Clone, Copy, Debug)]
pub(super) struct Form<'a> {
    pub(super) qos: u8,
    pub(super) retain: bool,
    pub(super) dup: bool,
    pub(super) packet_id: Option<PacketId>,
    pub(super) subscription_ids: &'a [u8],
}

/// Encoded forms of the message that is being fanned out.
#[derive(Debug, Default)]
pub(super) struct Frames {
    bytes: Vec<u8>,
    /// Start, length and place of the packet identifier, by version, QoS and retain flag.
    known: [Option<(usize, usize, usize)>; 12],
    properties: Vec<u8>,
}

impl Frames {
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.known = [None; 12];
        // A large message must not keep its memory for ever.
        if self.bytes.capacity() > 1 << 20 {
            self.bytes = Vec::new();
        }
    }
}

/// What became of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    Yes,
    /// Larger than the client's Maximum Packet Size: it must not be sent [MQTT5-3.1.2-24].
    TooLarge,
}

impl Hub {
    /// Encodes a packet for a link.
    pub(super) fn send(&mut self, slot: u32, packet: &Packet<'_>) {
        if self.links[slot as usize].native {
            if self.send_native(slot, packet) == Sent::TooLarge {
                self.counters.dropped.add("packet_too_large");
            }
            return;
        }
        let version = self.links[slot as usize].version;
        let len = packet.encoded_len(version);
        if self.fits(slot, len) {
            packet.encode(version, self.output_of(slot, len));
        }
    }

    /// Whether the client takes packets of this size; one that is too large is left out [MQTT5-3.1.2-24].
    fn fits(&mut self, slot: u32, len: usize) -> bool {
        let fits = len as u64 <= u64::from(self.links[slot as usize].packet_max);
        if !fits {
            self.counters.dropped.add("packet_too_large");
        }
        fits
    }

    /// SUBACK or UNSUBACK. A client that cannot be answered would wait for ever, so it is told that and closed.
    pub(super) fn send_answer(&mut self, now: Now, slot: u32, bytes: &[u8]) -> bool {
        if self.links[slot as usize].native {
            return self.send_native_bytes(slot, bytes) == Sent::Yes;
        }
        let fits = self.fits(slot, bytes.len());
        if fits {
            self.output_of(slot, bytes.len()).extend_from_slice(bytes);
        } else {
            let reason = ReasonCode::PACKET_TOO_LARGE;
            self.refuse(now, slot, reason, "answer_too_large", "the answer exceeds your Maximum Packet Size");
        }
        fits
    }

    /// One packet that was encoded before.
    pub(super) fn send_bytes(&mut self, slot: u32, bytes: &[u8]) {
        if self.links[slot as usize].native {
            self.send_native_bytes(slot, bytes);
            return;
        }
        if self.fits(slot, bytes.len()) {
            self.output_of(slot, bytes.len()).extend_from_slice(bytes);
        }
    }

    /// PUBACK, PUBREC or PUBCOMP; the PUBLISH is answered finally unless this is a PUBREC without error.
    pub(super) fn answer(&mut self, slot: u32, kind: AckKind, packet_id: PacketId, reason: ReasonCode) {
        let ack = Ack { packet_id, reason, properties: Properties::EMPTY };
        let packet = match kind {
            AckKind::PubAck => Packet::PubAck(ack),
            AckKind::PubRec => Packet::PubRec(ack),
            AckKind::PubComp => Packet::PubComp(ack),
        };
        self.send(slot, &packet);
        if kind != AckKind::PubRec || reason.is_error() {
            self.answered_finally(slot);
        }
    }

    /// A QoS 1 or 2 PUBLISH counts against Receive Maximum no more.
    pub(super) fn answered_finally(&mut self, slot: u32) {
        let main = self.main_of(slot);
        let l = &mut self.links[main as usize];
        l.unanswered = l.unanswered.saturating_sub(1);
    }

    /// Readies the output of a link for `len` more bytes and marks it for the driver.
    pub(super) fn output_of(&mut self, slot: u32, len: usize) -> &mut Vec<u8> {
        let l = &mut self.links[slot as usize];
        if l.out.capacity() == 0
            && let Some(buffer) = self.pool.pop()
        {
            l.out = buffer;
        }
        // Bytes the socket has taken leave when they are most of a large buffer, so that a slow reader's does not grow.
        if l.out_sent > 64 * 1024 && l.out_sent * 2 > l.out.len() {
            l.out.drain(..l.out_sent);
            l.out_sent = 0;
        }
        l.out.reserve(len);
        if !l.dirty {
            l.dirty = true;
            self.dirty.push(slot);
        }
        &mut l.out
    }

    /// Encodes a delivery for a link; `shared` lets later deliveries of the same message copy these bytes.
    pub(super) fn send_message(
        &mut self,
        slot: u32,
        message: &MessageRef<'_>,
        form: Form<'_>,
        wall_ms: u64,
        shared: bool,
    ) -> Sent {
        let l = &self.links[slot as usize];
        let plain = form.subscription_ids.is_empty() && !form.dup && l.alias_out_max == 0;
        let mut frames = core::mem::take(&mut self.frames);
        let sent = if l.native {
            frames.properties.clear();
            forwarded(&mut frames.properties, Version::V5, message, form.subscription_ids, wall_ms);
            let publish = publish(message.topic, message.payload, &frames.properties, form);
            self.send_native(slot, &Packet::Publish(publish))
        } else if shared && plain {
            self.send_shared(&mut frames, slot, message, form, wall_ms)
        } else {
            self.send_alone(&mut frames.properties, slot, message, form, wall_ms)
        };
        self.frames = frames;
        if sent == Sent::Yes {
            self.counters.sent[usize::from(form.qos)] += 1;
        }
        sent
    }

    fn send_shared(
        &mut self,
        frames: &mut Frames,
        slot: u32,
        message: &MessageRef<'_>,
        form: Form<'_>,
        wall_ms: u64,
    ) -> Sent {
        let l = &self.links[slot as usize];
        let key = usize::from(l.version == Version::V5) * 6 + usize::from(form.qos) * 2 + usize::from(form.retain);
        let (start, len, id_at) = if let Some(known) = frames.known[key] {
            known
        } else {
            frames.properties.clear();
            forwarded(&mut frames.properties, l.version, message, &[], wall_ms);
            let publish = publish(message.topic, message.payload, &frames.properties, form);
            let start = frames.bytes.len();
            publish.encode(l.version, &mut frames.bytes);
            let len = frames.bytes.len() - start;
            let id_at = id_offset(len, message.topic.len());
            frames.known[key] = Some((start, len, id_at));
            (start, len, id_at)
        };
        if len as u64 > u64::from(l.packet_max) {
            return Sent::TooLarge;
        }
        let out = self.output_of(slot, len);
        let at = out.len();
        out.extend_from_slice(&frames.bytes[start..start + len]);
        if let Some(id) = form.packet_id {
            out[at + id_at..at + id_at + 2].copy_from_slice(&id.value().to_be_bytes());
        }
        Sent::Yes
    }

    fn send_alone(
        &mut self,
        properties: &mut Vec<u8>,
        slot: u32,
        message: &MessageRef<'_>,
        form: Form<'_>,
        wall_ms: u64,
    ) -> Sent {
        let l = &mut self.links[slot as usize];
        let version = l.version;
        properties.clear();
        forwarded(properties, version, message, form.subscription_ids, wall_ms);
        let packet_max = u64::from(l.packet_max);
        let without_alias = publish(message.topic, message.payload, properties, form).encoded_len(version);
        let mut topic = message.topic;
        // The alias property takes three bytes, and may make the two lengths before it a byte longer each; a packet that
        // just fits without it is sent without it, for an alias that is given must reach the client. [MQTT5-3.1.2-27]
        if l.alias_out_max != 0 && (without_alias + 5) as u64 <= packet_max {
            let (alias, known) = alias_for(l, topic);
            if let Some(alias) = alias {
                Property::TopicAlias(alias).encode(properties);
            }
            if known {
                topic = "";
            }
        }
        let publish = publish(topic, message.payload, properties, form);
        let len = publish.encoded_len(version);
        if len as u64 > packet_max {
            return Sent::TooLarge;
        }
        publish.encode(version, self.output_of(slot, len));
        Sent::Yes
    }

    /// A reason string, unless the client asked for none [MQTT5-3.1.2-29] or it would not fit [MQTT5-3.2.2-19]
    /// [MQTT5-3.4.2-2] [MQTT5-3.5.2-2] [MQTT5-3.14.2-3].
    pub(super) fn reason_property(&self, slot: u32, text: &str) -> Vec<u8> {
        let l = &self.links[slot as usize];
        let mut bytes = vec![];
        let fits = text.len() + 64 <= l.packet_max as usize;
        if l.version == Version::V5 && !l.no_problem_information && !text.is_empty() && fits {
            Property::ReasonString(text).encode(&mut bytes);
        }
        bytes
    }

    /// Whether the link's client may be sent deliveries now.
    pub(super) fn is_open(&self, slot: u32) -> bool {
        self.links.get(slot as usize).is_some_and(|l| l.phase == Phase::Open)
    }
}

/// The alias to write for `topic`, and whether the client knows it already [MQTT5-3.3.2-7].
fn alias_for(l: &mut Link, topic: &str) -> (Option<u16>, bool) {
    let max = usize::from(l.alias_out_max);
    let aliases = &mut l.extra().aliases_out;
    let number = |at: usize| u16::try_from(at + 1).ok();
    if let Some(at) = aliases.iter().position(|known| **known == *topic) {
        return (number(at), true);
    }
    // From 1 up to the client's maximum [MQTT5-3.1.2-26] [MQTT5-3.3.2-8] [MQTT5-3.3.2-11].
    if aliases.len() < max {
        aliases.push(topic.into());
        return (number(aliases.len() - 1), false);
    }
    (None, false)
}

/// The properties of a delivery: those forwarded untouched and in order [MQTT5-3.3.2-17], the time left
/// [MQTT5-3.3.2-6], and the subscription identifiers [MQTT5-3.3.4-3].
fn forwarded(out: &mut Vec<u8>, version: Version, message: &MessageRef<'_>, ids: &[u8], wall_ms: u64) {
    if version == Version::V311 {
        return;
    }
    if message.expires_at_ms != 0 {
        let left_secs = message.expires_at_ms.saturating_sub(wall_ms).div_ceil(1000);
        Property::MessageExpiryInterval(u32::try_from(left_secs).unwrap_or(u32::MAX)).encode(out);
    }
    out.extend_from_slice(message.properties);
    out.extend_from_slice(ids);
}

fn publish<'a>(topic: &'a str, payload: &'a [u8], properties: &'a [u8], form: Form<'_>) -> Publish<'a> {
    Publish {
        dup: form.dup,
        qos: QoS::from_bits(form.qos).unwrap_or(QoS::AtMostOnce),
        retain: form.retain,
        topic,
        packet_id: form.packet_id,
        properties: Properties::from_validated(properties),
        payload,
    }
}

/// Where the packet identifier stands in a PUBLISH of `len` bytes.
fn id_offset(len: usize, topic: usize) -> usize {
    let varint = match len {
        0..=129 => 1,
        130..=16_386 => 2,
        16_387..=2_097_155 => 3,
        _ => 4,
    };
    1 + varint + 2 + topic
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_packet_identifier_is_found_at_every_length_of_the_remaining_length() {
        for payload in [
            0, 118, 119, 120, 121, 122, 123, 16_370, 16_376, 16_377, 16_378, 16_379, 16_380, 2_097_140, 2_097_146,
            2_097_150,
        ] {
            let payload = vec![0; payload];
            let id = PacketId::new(0xABCD);
            let form = Form { qos: 1, retain: false, dup: false, packet_id: id, subscription_ids: &[] };
            let mut bytes = vec![];
            publish("abc", &payload, &[], form).encode(Version::V311, &mut bytes);
            let at = id_offset(bytes.len(), 3);
            assert_eq!(bytes[at..at + 2], [0xAB, 0xCD], "{} bytes", payload.len());
        }
    }
}
