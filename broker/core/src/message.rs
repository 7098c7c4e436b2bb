//! A message that several queues share.

use crate::store::MessageRef;

/// Topic, forwarded properties and payload in one allocation, with the deadline.
#[derive(Debug, PartialEq, Eq)]
pub struct Message {
    bytes: Box<[u8]>,
    topic_len: u32,
    properties_len: u32,
    /// Milliseconds since 1970 after which nobody may get it; 0: never expires.
    pub expires_at_ms: u64,
}

impl Message {
    /// Copies the parts.
    pub fn new(topic: &str, properties: &[u8], payload: &[u8], expires_at_ms: u64) -> Self {
        let bytes = [topic.as_bytes(), properties, payload].concat().into_boxed_slice();
        let len = |n: usize| u32::try_from(n).expect("a packet is shorter than 2^28 bytes");
        Self { bytes, topic_len: len(topic.len()), properties_len: len(properties.len()), expires_at_ms }
    }

    /// Topic name.
    pub fn topic(&self) -> &str {
        core::str::from_utf8(&self.bytes[..self.topic_len as usize]).expect("made from a str")
    }

    /// Borrows it.
    pub fn view(&self) -> MessageRef<'_> {
        let (topic, rest) = self.bytes.split_at(self.topic_len as usize);
        let (properties, payload) = rest.split_at(self.properties_len as usize);
        let topic = core::str::from_utf8(topic).expect("made from a str");
        MessageRef { topic, properties, payload, expires_at_ms: self.expires_at_ms }
    }

    /// What it counts towards byte limits.
    pub fn cost(&self) -> usize {
        self.bytes.len()
    }
}
