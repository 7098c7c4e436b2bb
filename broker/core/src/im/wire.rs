//! The packet that the messaging rooms are making.

use parlor_protocol::mqtt::{PacketId, Properties, Publish, QoS};

/// The packet that is being made.
#[derive(Debug, Default)]
pub(crate) struct Wire {
    pub(crate) topic: String,
    pub(crate) payload: Vec<u8>,
    /// MQTT 5 property bytes; empty for 3.1.1.
    pub(crate) properties: Vec<u8>,
}

impl Wire {
    /// What was made, as a packet.
    pub(crate) fn publish(&self, sending: Sending) -> Publish<'_> {
        Publish {
            dup: sending.dup,
            qos: if sending.qos == 0 { QoS::AtMostOnce } else { QoS::AtLeastOnce },
            retain: sending.retain,
            topic: &self.topic,
            packet_id: sending.packet_id.and_then(PacketId::new),
            properties: Properties::from_validated(&self.properties),
            payload: &self.payload,
        }
    }

    /// Begins another packet: of one that was not sent after all nothing stays.
    pub(super) fn clear(&mut self) {
        self.topic.clear();
        self.payload.clear();
        self.properties.clear();
    }
}

/// The form of the packet in [`Wire`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sending {
    pub(crate) qos: u8,
    pub(crate) packet_id: Option<u16>,
    pub(crate) retain: bool,
    pub(crate) dup: bool,
    /// So many bytes of its payload at least must go, and as many of the rest as the client takes.
    pub(crate) least: usize,
}
