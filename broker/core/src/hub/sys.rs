//! `$SYS`: what the broker says of itself to subscribers; never stored.

use super::deliver::Incoming;
use super::{Hub, Now};
use crate::message::Message;
use crate::router::Retained;
use std::rc::Rc;

impl Hub {
    /// Publishes the `$SYS` topics, retained in memory only.
    pub(super) fn publish_sys(&mut self, now: Now) {
        let c = &self.counters;
        let totals = self.totals();
        let values = [
            ("version", format!("parlor {}", env!("CARGO_PKG_VERSION"))),
            ("uptime", format!("{} seconds", (now.ms - self.started.ms) / 1000)),
            ("boot", self.boot.to_string()),
            ("clients/connected", totals.online.to_string()),
            ("clients/disconnected", (totals.sessions - totals.online).to_string()),
            ("clients/total", totals.sessions.to_string()),
            ("connections/total", c.connections.to_string()),
            ("messages/received", c.received.iter().sum::<u64>().to_string()),
            ("messages/sent", c.sent.iter().sum::<u64>().to_string()),
            ("messages/dropped", c.dropped.iter().map(|(_, n)| n).sum::<u64>().to_string()),
            ("messages/queued", totals.queue_messages.to_string()),
            ("bytes/received", c.bytes_received.to_string()),
            ("bytes/sent", c.bytes_sent.to_string()),
            ("subscriptions/count", totals.subscriptions.to_string()),
            ("retained messages/count", totals.retained_messages.to_string()),
        ];
        let publisher: Rc<str> = "$SYS".into();
        for (name, value) in values {
            let topic = format!("$SYS/broker/{name}");
            let message = Rc::new(Message::new(&topic, &[], value.as_bytes(), 0));
            let incoming =
                Incoming { message: message.view(), qos: 0, retain: false, from: u32::MAX, publisher: &publisher };
            self.spread(now, None, &incoming);
            self.retained.set(Retained { message, qos: 0, publisher: Rc::clone(&publisher), volatile: true });
        }
    }
}
