//! The native link is another form of the same sessions: a frame from a client becomes the packet that an MQTT 5 client
//! would have sent (`up`), and a packet for it becomes frames (`down`). Pure; the hub calls both at its edge.

pub(crate) mod down;
mod idempotent;
mod json;
#[cfg(test)]
mod tests;
pub(crate) mod up;

pub use idempotent::{is_idempotent, is_idempotent_frame};

use parlor_protocol::mqtt::{QoS, RetainHandling, SubscriptionOptions};

/// The level of the first frames there were: every native client knows these, whatever it says.
pub(crate) const FIRST_LEVEL: u32 = 261_126;

/// Longest frame for a client that names no bound, bytes behind the length.
pub(crate) const FRAME_MAX: u16 = parlor_protocol::link::SIZE_MAX;

/// A subscription that a Hello makes by itself: the bit of its `wants` that asks for it (0: always made), filter, QoS.
///
/// What arrives at QoS 0 is either kept and told again (presence, state, lines of conversations) or answers a question.
pub(crate) const SUBSCRIPTIONS: [(u16, &str, QoS); 12] = {
    use parlor_protocol::link::wants;
    [
        (wants::PUSH, "im/v1/me/in/#", QoS::AtLeastOnce),
        (wants::SENT, "im/v1/me/sent", QoS::AtLeastOnce),
        // Who pulls gets the next head when it has acknowledged the one before.
        (wants::HEAD, "im/v1/me/head", QoS::AtLeastOnce),
        (wants::HEAD, "im/v1/me/conv/#", QoS::AtMostOnce),
        // Not `#`: `…/avail` says nothing more.
        (wants::PRESENCE, "im/v1/presence/+", QoS::AtMostOnce),
        (wants::STATE, "im/v1/state/#", QoS::AtMostOnce),
        (wants::COMMANDS, "im/v1/me/cmd/#", QoS::AtLeastOnce),
        (wants::COMMANDS, "im/v1/me/delta", QoS::AtLeastOnce),
        (wants::RESULTS, "im/v1/me/res/#", QoS::AtLeastOnce),
        (0, "im/v1/me/err", QoS::AtMostOnce),
        (0, ANSWERS, QoS::AtMostOnce),
        // A device that is being paired; others are not let in there.
        (0, PAIRED, QoS::AtLeastOnce),
    ]
};

/// Where answers come.
const ANSWERS: &str = "im/v1/me/+/res";
/// The one topic of a device that is being paired.
pub(crate) const PAIRED: &str = "im/v1/me/paired";

/// What is sent of a subscription that was there before does not come again.
pub(crate) fn options(qos: QoS) -> SubscriptionOptions {
    SubscriptionOptions { qos, no_local: false, retain_as_published: false, retain_handling: RetainHandling::SendIfNew }
}

/// The topic at which the answer to a request on a stream of its own comes: one that no other link has.
pub(crate) fn bulk_topic(slot: u32, generation: u32) -> String {
    format!("{BULK}{slot}-{generation}/res")
}

/// How such topics begin.
const BULK: &str = "im/v1/me/bulk-";
