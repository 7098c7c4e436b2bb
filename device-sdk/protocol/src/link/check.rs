//! Checks of fields when a frame is read: what becomes a level of a topic, a packet identifier, a property.

use super::LinkError;
use crate::mqtt::{Properties, Property, PropertyPlace, QoS, SubscriptionOptions, Version};
use crate::topic;

pub(super) fn packet_id(id: u16) -> Result<(), LinkError> {
    if id == 0 { Err(LinkError::ZeroPacketId) } else { Ok(()) }
}

/// One level of a topic name.
pub(super) fn name(text: &str, field: &'static str) -> Result<(), LinkError> {
    if text.is_empty() || text.bytes().any(|byte| matches!(byte, b'/' | b'+' | b'#' | 0)) {
        return Err(LinkError::BadName(field));
    }
    Ok(())
}

/// A string of MQTT.
pub(super) fn text(text: &str, field: &'static str) -> Result<(), LinkError> {
    if text.as_bytes().contains(&0) { Err(LinkError::NulInString(field)) } else { Ok(()) }
}

pub(super) fn topic(name: &str) -> Result<(), LinkError> {
    topic::check_name(name).map_err(LinkError::BadTopic)
}

/// Shared subscriptions are judged by the server, as those of MQTT are.
pub(super) fn filter(filter: &str) -> Result<(), LinkError> {
    if filter.is_empty() {
        return Err(LinkError::BadTopic(topic::TopicError::Empty));
    }
    text(filter, "filter")
}

pub(super) fn options(bits: u8) -> Result<(), LinkError> {
    match SubscriptionOptions::from_bits(bits, Version::V5) {
        Ok(options) if options.qos != QoS::ExactlyOnce => Ok(()),
        _ => Err(LinkError::BadOptions(bits)),
    }
}

pub(super) fn properties(bytes: &[u8]) -> Result<(), LinkError> {
    if bytes.is_empty() {
        return Ok(());
    }
    let list = Properties::parse(bytes, PropertyPlace::Publish).map_err(LinkError::BadProperties)?;
    if list.iter().any(|property| matches!(property, Property::TopicAlias(_))) {
        return Err(LinkError::TopicAlias);
    }
    Ok(())
}
