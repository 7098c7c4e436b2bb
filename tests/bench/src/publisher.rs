//! The sending side of a load: which message comes next, and whether the window lets it go.

use std::ops::RangeInclusive;

use crate::wire::Template;

/// A sequence of messages with one topic.
#[derive(Debug)]
pub struct Stream {
    template: Template,
    next: u32,
}

impl Stream {
    /// A stream whose messages are made from `template`.
    pub fn new(template: Template) -> Self {
        Self { template, next: 0 }
    }
}

/// The messages of one sending connection.
#[derive(Debug)]
pub struct Publisher {
    qos: u8,
    in_flight: u64,
    receivers: u32,
    streams: Vec<Stream>,
    target: u64,
    sent: u64,
    /// Messages whose PUBREC is here.
    received: u64,
    /// Messages whose PUBACK or PUBCOMP is here.
    acknowledged: u64,
    /// All receivers have every message before this one.
    arrived: u64,
    /// How many receivers have each message from `arrived` on; its length is a power of two.
    ring: Vec<u32>,
    finished: bool,
}

impl Publisher {
    /// A publisher of `streams`, served in turn; each message goes to `receivers` receivers, 0 if they are away.
    ///
    /// At most `in_flight` messages are out: not yet acknowledged (above quality 0) or not yet at every receiver.
    pub fn new(qos: u8, in_flight: u64, receivers: u32, streams: Vec<Stream>) -> Self {
        let ring = vec![0; in_flight.next_power_of_two() as usize];
        Self {
            qos,
            in_flight,
            receivers,
            streams,
            target: 0,
            sent: 0,
            received: 0,
            acknowledged: 0,
            arrived: 0,
            ring,
            finished: true,
        }
    }

    /// Messages acknowledged so far.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    /// Asks for so many more messages.
    pub fn add(&mut self, messages: u64) {
        self.target += messages;
        self.finished = false;
    }

    /// Appends what the window allows; true if there was something.
    pub fn poll_messages(&mut self, out: &mut Vec<u8>) -> bool {
        let before = self.sent;
        while self.may_send() {
            let turn = self.sent as usize % self.streams.len();
            let stream = &mut self.streams[turn];
            stream.template.write(out, packet_id(self.sent), stream.next);
            stream.next += 1;
            self.sent += 1;
        }
        self.sent > before
    }

    /// True once, when the last message asked for is acknowledged and at every receiver.
    pub fn poll_finished(&mut self) -> bool {
        let done = self.sent == self.target
            && (self.qos == 0 || self.acknowledged == self.sent)
            && (self.receivers == 0 || self.arrived == self.sent);
        done && !std::mem::replace(&mut self.finished, true)
    }

    /// Takes a PUBREC; false if another message's turn was.
    #[must_use]
    pub fn handle_received(&mut self, id: u16) -> bool {
        self.received += 1;
        id == packet_id(self.received - 1)
    }

    /// Takes a PUBACK or PUBCOMP; false if another message's turn was.
    #[must_use]
    pub fn handle_acknowledged(&mut self, id: u16) -> bool {
        self.acknowledged += 1;
        id == packet_id(self.acknowledged - 1)
    }

    /// Notes that one more receiver has these messages, or will never have them; true if the window has moved.
    pub fn handle_arrival(&mut self, seqs: RangeInclusive<u32>) -> bool {
        let mask = self.ring.len() - 1;
        // A number nobody has sent must not make this walk endless.
        for seq in seqs.take_while(|&seq| u64::from(seq) < self.sent) {
            self.ring[seq as usize & mask] += 1;
        }
        let before = self.arrived;
        while self.arrived < self.sent && self.ring[self.arrived as usize & mask] == self.receivers {
            self.ring[self.arrived as usize & mask] = 0;
            self.arrived += 1;
        }
        self.arrived > before
    }

    /// Deliveries of sent messages that have not come.
    pub fn missing_arrivals(&self) -> u64 {
        if self.receivers == 0 {
            return 0;
        }
        let mask = self.ring.len() - 1;
        let come: u64 = (self.arrived..self.sent).map(|seq| u64::from(self.ring[seq as usize & mask])).sum();
        (self.sent - self.arrived) * u64::from(self.receivers) - come
    }

    /// Acknowledgements of sent messages that have not come.
    pub fn missing_acknowledgements(&self) -> u64 {
        if self.qos == 0 { 0 } else { self.sent - self.acknowledged }
    }

    fn may_send(&self) -> bool {
        self.sent < self.target
            && (self.qos == 0 || self.sent - self.acknowledged < self.in_flight)
            && (self.receivers == 0 || self.sent - self.arrived < self.in_flight)
    }
}

/// The packet id of a publisher's n-th message; the window is far smaller than the 65,535 there are.
fn packet_id(message: u64) -> u16 {
    (message % u64::from(u16::MAX)) as u16 + 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{self, Version};

    fn publisher(qos: u8, in_flight: u64, receivers: u32) -> Publisher {
        let template = Template::new(Version::V3, "t", qos, 0, 64);
        Publisher::new(qos, in_flight, receivers, vec![Stream::new(template)])
    }

    fn sent_now(publisher: &mut Publisher) -> usize {
        let mut out = vec![];
        publisher.poll_messages(&mut out);
        let mut count = 0;
        while let Some(packet) = wire::split(&out).unwrap() {
            out.drain(..packet.len);
            count += 1;
        }
        count
    }

    #[test]
    fn the_slowest_receiver_holds_the_window() {
        let mut publisher = publisher(0, 3, 2);
        publisher.add(5);
        assert_eq!(sent_now(&mut publisher), 3);
        assert!(!publisher.handle_arrival(0..=1));
        assert_eq!(sent_now(&mut publisher), 0);
        assert!(publisher.handle_arrival(0..=0));
        assert_eq!(sent_now(&mut publisher), 1);
        assert_eq!(publisher.missing_arrivals(), 5);
        assert!(publisher.handle_arrival(1..=3));
        assert!(publisher.handle_arrival(2..=3));
        assert_eq!(sent_now(&mut publisher), 1);
        assert!(!publisher.poll_finished());
        assert!(!publisher.handle_arrival(4..=u32::MAX));
        assert!(publisher.handle_arrival(4..=4));
        assert!(publisher.poll_finished());
        assert!(!publisher.poll_finished());
    }

    #[test]
    fn acknowledgements_hold_the_window_and_are_expected_in_order() {
        let mut publisher = publisher(1, 2, 0);
        publisher.add(4);
        assert_eq!(sent_now(&mut publisher), 2);
        assert!(publisher.handle_acknowledged(1));
        assert_eq!(sent_now(&mut publisher), 1);
        assert!(!publisher.handle_acknowledged(3));
        assert_eq!(publisher.missing_acknowledgements(), 1);
    }
}
