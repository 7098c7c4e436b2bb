//! Every refusal by the bytes that earn it.

use crate::{BOTH, MAX, framed, whole};
use parlor_protocol::mqtt::{DecodeError as E, ReasonCode, Version, Version::V5, Version::V311, decode};
use parlor_protocol::topic::TopicError;
use std::collections::BTreeSet;

/// What refuses, in which version, for which bytes.
type Case<'a> = (E, Version, &'a [u8]);

const CASES: &[Case<'static>] = &[
    // Fields that end too soon, in every packet type.
    (E::Truncated, V311, b"\x10\x00"),
    (E::Truncated, V311, b"\x10\x0B\x00\x04MQTT\x04\x02\x00\x00\x00"),
    (E::Truncated, V5, b"\x10\x0C\x00\x04MQTT\x05\x02\x00\x00\x00\x00"),
    // [MQTT5-3.1.2-9] [MQTT3-3.1.2-9], [MQTT5-3.1.2-17] [MQTT3-3.1.2-19], [MQTT5-3.1.2-19] [MQTT3-3.1.2-21]: a flag is
    // set and the field is missing.
    (E::Truncated, V311, b"\x10\x0C\x00\x04MQTT\x04\x06\x00\x00\x00\x00"),
    (E::Truncated, V311, b"\x10\x0F\x00\x04MQTT\x04\x06\x00\x00\x00\x00\x00\x01w"),
    (E::Truncated, V311, b"\x10\x0C\x00\x04MQTT\x04\x82\x00\x00\x00\x00"),
    (E::Truncated, V311, b"\x10\x0F\x00\x04MQTT\x04\xC2\x00\x00\x00\x00\x00\x01u"),
    (E::Truncated, V5, b"\x10\x0D\x00\x04MQTT\x05\x42\x00\x00\x00\x00\x00"),
    (E::Truncated, V311, b"\x20\x01\x00"),
    // [MQTT5-2.2.2-1]: no properties are said with a length of zero.
    (E::Truncated, V5, b"\x20\x02\x00\x00"),
    (E::Truncated, V5, b"\x30\x03\x00\x01t"),
    (E::Truncated, V5, b"\x82\x02\x00\x01"),
    (E::Truncated, V5, b"\xF0\x01\x00"),
    (E::Truncated, V5, b"\xF0\x01\x18"),
    // The Property Length goes beyond the packet.
    (E::Truncated, V5, b"\x30\x05\x00\x01t\x02\x01"),
    (E::Truncated, V5, b"\x40\x05\x00\x01\x00\x02\x1F"),
    // A property's value goes beyond the Property Length.
    (E::Truncated, V5, b"\x30\x07\x00\x01t\x03\x03\x00\x02x"),
    (E::Truncated, V5, b"\x30\x07\x00\x01t\x02\x23\x00\x01"),
    (E::Truncated, V311, b"\x30\x02\x00\x01"),
    (E::Truncated, V311, b"\x30\x01\x00"),
    (E::Truncated, V311, b"\x32\x04\x00\x01t\x00"),
    (E::Truncated, V311, b"\x40\x01\x00"),
    (E::Truncated, V311, b"\x62\x00"),
    (E::Truncated, V311, b"\x82\x05\x00\x01\x00\x01t"),
    (E::Truncated, V311, b"\x82\x04\x00\x01\x00\x01"),
    (E::Truncated, V311, b"\x90\x01\x00"),
    (E::Truncated, V311, b"\xA2\x03\x00\x01\x00"),
    (E::Truncated, V5, b"\xB0\x02\x00\x01"),
    // [MQTT5-3.1.2-16] [MQTT5-3.1.2-18] [MQTT3-3.1.2-11] [MQTT3-3.1.2-18] [MQTT3-3.1.2-20]: a field
    // whose flag is not set.
    (E::TrailingBytes, V311, b"\x10\x0F\x00\x04MQTT\x04\x02\x00\x00\x00\x00\x00\x01u"),
    (E::TrailingBytes, V311, b"\x20\x03\x00\x00\x00"),
    (E::TrailingBytes, V5, b"\x20\x04\x00\x00\x00\x00"),
    (E::TrailingBytes, V311, b"\x40\x03\x00\x01\x00"),
    (E::TrailingBytes, V311, b"\x62\x03\x00\x01\x00"),
    (E::TrailingBytes, V5, b"\x40\x05\x00\x01\x00\x00\x00"),
    (E::TrailingBytes, V311, b"\xB0\x03\x00\x01\x00"),
    (E::TrailingBytes, V311, b"\xC0\x01\x00"),
    (E::TrailingBytes, V5, b"\xC0\x01\x00"),
    (E::TrailingBytes, V5, b"\xD0\x01\x00"),
    (E::TrailingBytes, V311, b"\xE0\x01\x00"),
    (E::TrailingBytes, V5, b"\xE0\x03\x00\x00\x00"),
    (E::TrailingBytes, V5, b"\xF0\x07\x18\x04\x15\x00\x01m\x00"),
    // [MQTT5-1.5.5-1]: in the fixed header, as Property Length, as Subscription Identifier.
    (E::OverlongInteger, V5, b"\x30\x85\x00\x00\x01t\x00\x00"),
    (E::OverlongInteger, V5, b"\x30\x05\x00\x01t\x80\x00"),
    (E::OverlongInteger, V5, b"\x30\x08\x00\x01t\x80\x80\x80\x80\x01"),
    (E::OverlongInteger, V5, b"\x82\x0A\x00\x01\x03\x0B\x81\x00\x00\x01t\x00"),
    // Type 0 is forbidden, 15 was reserved in 3.1.1 (section 2.1.2; 3.1.1: 2.2.1).
    (E::UnknownPacketType(0), V311, b"\x00\x00"),
    (E::UnknownPacketType(0), V5, b"\x0F\x00"),
    (E::UnknownPacketType(15), V311, b"\xF0\x00"),
    // [MQTT5-3.3.1-4] [MQTT3-3.3.1-4]
    (E::BadQoS, V311, b"\x36\x05\x00\x01t\x00\x01"),
    (E::BadQoS, V5, b"\x3F\x06\x00\x01t\x00\x01\x00"),
    // [MQTT5-3.1.2-12] [MQTT3-3.1.2-14]
    (E::BadQoS, V311, b"\x10\x11\x00\x04MQTT\x04\x1E\x00\x00\x00\x00\x00\x01w\x00\x00"),
    // [MQTT5-3.3.1-2] [MQTT3-3.3.1-2]
    (E::DupWithoutQoS, V311, b"\x38\x03\x00\x01t"),
    (E::DupWithoutQoS, V5, b"\x39\x04\x00\x01t\x00"),
    // [MQTT5-2.2.1-3] [MQTT5-2.2.1-4] [MQTT3-2.3.1-1]
    (E::ZeroPacketId, V311, b"\x32\x05\x00\x01t\x00\x00"),
    (E::ZeroPacketId, V311, b"\x40\x02\x00\x00"),
    (E::ZeroPacketId, V5, b"\x50\x02\x00\x00"),
    (E::ZeroPacketId, V5, b"\x62\x03\x00\x00\x00"),
    (E::ZeroPacketId, V311, b"\x70\x02\x00\x00"),
    (E::ZeroPacketId, V311, b"\x82\x06\x00\x00\x00\x01t\x00"),
    (E::ZeroPacketId, V311, b"\x90\x03\x00\x00\x00"),
    (E::ZeroPacketId, V311, b"\xA2\x05\x00\x00\x00\x01t"),
    (E::ZeroPacketId, V311, b"\xB0\x02\x00\x00"),
    // [MQTT5-1.5.4-1] [MQTT3-1.5.3-1]: no UTF-8, an overlong form, a surrogate (U+D800), beyond U+10FFFF, cut off.
    (E::NotUtf8, V311, b"\x30\x03\x00\x01\xFF"),
    (E::NotUtf8, V311, b"\x30\x04\x00\x02\xC0\x80"),
    (E::NotUtf8, V311, b"\x30\x05\x00\x03\xED\xA0\x80"),
    (E::NotUtf8, V5, b"\x30\x07\x00\x04\xF4\x90\x80\x80\x00"),
    (E::NotUtf8, V5, b"\x30\x04\x00\x01\xC3\x00"),
    // Client identifier, will topic, user name [MQTT5-3.1.3-4] [MQTT5-3.1.3-11] [MQTT5-3.1.3-12] [MQTT3-3.1.3-4]
    // [MQTT3-3.1.3-10] [MQTT3-3.1.3-11].
    (E::NotUtf8, V311, b"\x10\x0D\x00\x04MQTT\x04\x02\x00\x00\x00\x01\xFF"),
    (E::NotUtf8, V311, b"\x10\x11\x00\x04MQTT\x04\x06\x00\x00\x00\x00\x00\x01\xFF\x00\x00"),
    (E::NotUtf8, V311, b"\x10\x0F\x00\x04MQTT\x04\x82\x00\x00\x00\x00\x00\x01\xFF"),
    // Filters [MQTT5-3.8.3-1] [MQTT5-3.10.3-1] [MQTT3-3.8.3-1] [MQTT3-3.10.3-1], also behind a good one.
    (E::NotUtf8, V311, b"\x82\x0A\x00\x01\x00\x01t\x00\x00\x01\xFF\x00"),
    (E::NotUtf8, V311, b"\xA2\x08\x00\x01\x00\x01t\x00\x01\xFF"),
    // Properties: Content Type, Response Topic, both strings of a User Property [MQTT5-3.3.2-19] [MQTT5-3.3.2-13]
    // [MQTT5-1.5.7-1].
    (E::NotUtf8, V5, b"\x30\x08\x00\x01t\x04\x03\x00\x01\xFF"),
    (E::NotUtf8, V5, b"\x30\x08\x00\x01t\x04\x08\x00\x01\xFF"),
    (E::NotUtf8, V5, b"\x30\x0A\x00\x01t\x06\x26\x00\x01\xFF\x00\x00"),
    (E::NotUtf8, V5, b"\x30\x0A\x00\x01t\x06\x26\x00\x00\x00\x01\xFF"),
    // [MQTT5-1.5.4-2] [MQTT3-1.5.3-2]
    (E::NulInString, V311, b"\x30\x03\x00\x01\x00"),
    (E::NulInString, V311, b"\x30\x05\x00\x03#\x00+"),
    (E::NulInString, V311, b"\x10\x0D\x00\x04MQTT\x04\x02\x00\x00\x00\x01\x00"),
    (E::NulInString, V311, b"\x10\x11\x00\x04MQTT\x04\x06\x00\x00\x00\x00\x00\x01\x00\x00\x00"),
    (E::NulInString, V311, b"\x82\x06\x00\x01\x00\x01\x00\x00"),
    (E::NulInString, V311, b"\xA2\x05\x00\x01\x00\x01\x00"),
    (E::NulInString, V5, b"\x30\x08\x00\x01t\x04\x08\x00\x01\x00"),
    (E::NulInString, V5, b"\x30\x0A\x00\x01t\x06\x26\x00\x01\x00\x00\x00"),
    // [MQTT5-3.1.2-1] [MQTT3-3.1.2-1]
    (E::BadProtocolName, V311, b"\x10\x0C\x00\x04mqtt\x04\x02\x00\x00\x00\x00"),
    (E::BadProtocolName, V5, b"\x10\x0D\x00\x05MQTT5\x05\x02\x00\x00\x00\x00"),
    (E::BadProtocolName, V311, b"\x10\x0E\x00\x06MQIsdp\x04\x02\x00\x00\x00\x00"),
    (E::BadProtocolName, V311, b"\x10\x08\x00\x00\x04\x02\x00\x00\x00\x00"),
    // [MQTT5-3.1.2-2] [MQTT3-3.1.2-2]; the rest of the packet is not looked at.
    (E::UnsupportedVersion(3), V311, b"\x10\x0E\x00\x06MQIsdp\x03\x02\x00\x00\x00\x00"),
    (E::UnsupportedVersion(3), V311, b"\x10\x0C\x00\x04MQTT\x03\x02\x00\x00\x00\x00"),
    (E::UnsupportedVersion(6), V311, b"\x10\x0C\x00\x04MQTT\x06\xFF\x00\x00\x00\x00"),
    (E::UnsupportedVersion(0), V311, b"\x10\x07\x00\x04MQTT\x00"),
    // [MQTT5-3.1.2-3] [MQTT3-3.1.2-3]
    (E::BadConnectFlags, V311, b"\x10\x0C\x00\x04MQTT\x04\x03\x00\x00\x00\x00"),
    (E::BadConnectFlags, V5, b"\x10\x0D\x00\x04MQTT\x05\x01\x00\x00\x00\x00\x00"),
    // [MQTT5-3.1.2-11] [MQTT5-3.1.2-13] [MQTT3-3.1.2-11] [MQTT3-3.1.2-13] [MQTT3-3.1.2-15]
    (E::BadConnectFlags, V311, b"\x10\x0C\x00\x04MQTT\x04\x0A\x00\x00\x00\x00"),
    (E::BadConnectFlags, V5, b"\x10\x0D\x00\x04MQTT\x05\x12\x00\x00\x00\x00\x00"),
    (E::BadConnectFlags, V5, b"\x10\x0D\x00\x04MQTT\x05\x22\x00\x00\x00\x00\x00"),
    // [MQTT3-3.1.2-22]
    (E::BadConnectFlags, V311, b"\x10\x0F\x00\x04MQTT\x04\x42\x00\x00\x00\x00\x00\x01p"),
    // [MQTT5-3.3.2-2] [MQTT3-3.3.2-2]
    (E::BadTopic(TopicError::WildcardInName), V311, b"\x30\x05\x00\x03a/+"),
    (E::BadTopic(TopicError::WildcardInName), V311, b"\x30\x0C\x00\x0Aabcdefgh/#"),
    (E::BadTopic(TopicError::WildcardInName), V5, b"\x30\x04\x00\x01#\x00"),
    // [MQTT5-4.7.0-1] [MQTT3-4.7.1-1], and [MQTT5-4.7.3-1] [MQTT3-4.7.3-1], for a will.
    (E::BadTopic(TopicError::WildcardInName), V311, b"\x10\x11\x00\x04MQTT\x04\x06\x00\x00\x00\x00\x00\x01#\x00\x00"),
    (E::BadTopic(TopicError::Empty), V311, b"\x10\x10\x00\x04MQTT\x04\x06\x00\x00\x00\x00\x00\x00\x00\x00"),
    // [MQTT5-3.3.2-14], and an empty Response Topic, in PUBLISH and in a will.
    (E::BadTopic(TopicError::WildcardInName), V5, b"\x30\x08\x00\x01t\x04\x08\x00\x01+"),
    (E::BadTopic(TopicError::Empty), V5, b"\x30\x07\x00\x01t\x03\x08\x00\x00"),
    (
        E::BadTopic(TopicError::WildcardInName),
        V5,
        b"\x10\x17\x00\x04MQTT\x05\x06\x00\x00\x00\x00\x00\x04\x08\x00\x01+\x00\x01w\x00\x00",
    ),
    // [MQTT3-4.7.3-1], section 3.3.2.1 of 5.0.
    (E::TopicMissing, V311, b"\x30\x02\x00\x00"),
    (E::TopicMissing, V5, b"\x30\x03\x00\x00\x00"),
    (E::TopicMissing, V5, b"\x30\x05\x00\x00\x02\x01\x01"),
    // [MQTT5-4.7.3-1] [MQTT3-4.7.3-1]
    (E::BadFilter, V311, b"\x82\x05\x00\x01\x00\x00\x00"),
    (E::BadFilter, V311, b"\xA2\x04\x00\x01\x00\x00"),
    // [MQTT5-3.8.3-2] [MQTT5-3.10.3-2] [MQTT3-3.8.3-3] [MQTT3-3.10.3-2]
    (E::NoFilters, V311, b"\x82\x02\x00\x01"),
    (E::NoFilters, V5, b"\x82\x03\x00\x01\x00"),
    (E::NoFilters, V311, b"\xA2\x02\x00\x01"),
    (E::NoFilters, V5, b"\xA2\x03\x00\x01\x00"),
    // [MQTT5-3.8.3-5] [MQTT3-3.8.3-4]
    (E::BadSubscriptionOptions, V311, b"\x82\x06\x00\x01\x00\x01t\x04"),
    (E::BadSubscriptionOptions, V311, b"\x82\x06\x00\x01\x00\x01t\x13"),
    (E::BadSubscriptionOptions, V5, b"\x82\x07\x00\x01\x00\x00\x01t\x40"),
    (E::BadSubscriptionOptions, V5, b"\x82\x07\x00\x01\x00\x00\x01t\x80"),
    // [MQTT3-3.8.3-4] and section 3.8.3.1 of 5.0.
    (E::SubscriptionOptionOutOfRange, V311, b"\x82\x06\x00\x01\x00\x01t\x03"),
    (E::SubscriptionOptionOutOfRange, V5, b"\x82\x07\x00\x01\x00\x00\x01t\x03"),
    (E::SubscriptionOptionOutOfRange, V5, b"\x82\x07\x00\x01\x00\x00\x01t\x30"),
    // Section 2.2.2.2.
    (E::UnknownProperty(0x00), V5, b"\x30\x06\x00\x01t\x02\x00\x00"),
    (E::UnknownProperty(0x2B), V5, b"\x30\x06\x00\x01t\x02\x2B\x00"),
    (E::UnknownProperty(0xA6), V5, b"\x30\x06\x00\x01t\x02\xA6\x00"),
    (E::PropertyNotAllowed(0x11), V5, b"\x30\x09\x00\x01t\x05\x11\x00\x00\x00\x00"),
    (E::DuplicateProperty(0x01), V5, b"\x30\x08\x00\x01t\x04\x01\x00\x01\x00"),
    // A flag that is neither 0 nor 1, and zero where it is not allowed: Topic Alias [MQTT5-3.3.2-8], Receive Maximum,
    // Maximum Packet Size, Subscription Identifier.
    (E::PropertyOutOfRange, V5, b"\x30\x06\x00\x01t\x02\x01\x02"),
    (E::PropertyOutOfRange, V5, b"\x30\x07\x00\x01t\x03\x23\x00\x00"),
    (E::PropertyOutOfRange, V5, b"\x20\x06\x00\x00\x03\x21\x00\x00"),
    (E::PropertyOutOfRange, V5, b"\x20\x08\x00\x00\x05\x27\x00\x00\x00\x00"),
    (E::PropertyOutOfRange, V5, b"\x30\x06\x00\x01t\x02\x0B\x00"),
    // Sections 3.1.2.11.10, 3.2.2.3.18 and 3.15.2.2.2: data without a method, AUTH without a method.
    (E::PropertyMissing(0x15), V5, b"\x10\x11\x00\x04MQTT\x05\x02\x00\x00\x04\x16\x00\x01d\x00\x00"),
    (E::PropertyMissing(0x15), V5, b"\x20\x07\x00\x00\x04\x16\x00\x01d"),
    (E::PropertyMissing(0x15), V5, b"\xF0\x06\x18\x04\x16\x00\x01d"),
    (E::PropertyMissing(0x15), V5, b"\xF0\x02\x18\x00"),
    (E::PropertyMissing(0x15), V5, b"\xF0\x07\x00\x05\x1F\x00\x02no"),
    // Return codes above 5 (section 3.2.2.3 of 3.1.1), [MQTT5-3.2.2-8], [MQTT3-3.9.3-2].
    (E::BadReasonCode(6), V311, b"\x20\x02\x00\x06"),
    (E::BadReasonCode(0x92), V5, b"\x20\x03\x00\x92\x00"),
    (E::BadReasonCode(0x87), V311, b"\x90\x04\x00\x01\x00\x87"),
    // Sections 3.9.3 and 3.11.3 have one code for each filter, and there is at least one filter.
    (E::NoReasonCodes, V311, b"\x90\x02\x00\x01"),
    (E::NoReasonCodes, V5, b"\x90\x03\x00\x01\x00"),
    (E::NoReasonCodes, V5, b"\xB0\x03\x00\x01\x00"),
    // [MQTT5-3.2.2-6] [MQTT3-3.2.2-4]
    (E::SessionPresentOnRefusal, V311, b"\x20\x02\x01\x05"),
    (E::SessionPresentOnRefusal, V5, b"\x20\x03\x01\x87\x00"),
    // [MQTT5-3.2.2-1]
    (E::ReservedFlags, V311, b"\x20\x02\x02\x00"),
    (E::ReservedFlags, V5, b"\x20\x03\x80\x00\x00"),
];

/// A number for each variant; the compiler insists that a new one gets its number, and the test that it gets a case.
fn number(error: E) -> usize {
    match error {
        E::Truncated => 0,
        E::TrailingBytes => 1,
        E::OverlongInteger => 2,
        E::TooLarge { .. } => 3,
        E::UnknownPacketType(_) => 4,
        E::ReservedFlags => 5,
        E::BadQoS => 6,
        E::DupWithoutQoS => 7,
        E::ZeroPacketId => 8,
        E::NotUtf8 => 9,
        E::NulInString => 10,
        E::BadProtocolName => 11,
        E::UnsupportedVersion(_) => 12,
        E::BadConnectFlags => 13,
        E::BadTopic(_) => 14,
        E::TopicMissing => 15,
        E::BadFilter => 16,
        E::NoFilters => 17,
        E::BadSubscriptionOptions => 18,
        E::SubscriptionOptionOutOfRange => 19,
        E::UnknownProperty(_) => 20,
        E::PropertyNotAllowed(_) => 21,
        E::DuplicateProperty(_) => 22,
        E::PropertyOutOfRange => 23,
        E::PropertyMissing(_) => 24,
        E::BadReasonCode(_) => 25,
        E::NoReasonCodes => 26,
        E::SessionPresentOnRefusal => 27,
        // What `decode` does not find: see the tests of directions.
        E::PacketOfOtherSide(_) => 28,
        E::PropertyOfOtherSide(_) => 29,
        E::ReasonCodeOfOtherSide(_) => 30,
    }
}

#[test]
fn every_refusal_is_earned_by_its_bytes() {
    let mut seen = BTreeSet::new();
    for (error, version, bytes) in CASES {
        assert_eq!(whole(bytes, *version), Err(*error), "{version:?} {bytes:02X?}");
        seen.insert(number(*error));
        // Nothing before the end is refused for another reason.
        for cut in 0..bytes.len() {
            match decode(&bytes[..cut], *version, MAX) {
                Ok(None) => {}
                other => assert_eq!(other, Err(*error), "{version:?} {:02X?}", &bytes[..cut]),
            }
        }
    }
    let larger = E::TooLarge { size: 5, max: 4 };
    assert_eq!(decode(b"\x30\x03\x00\x01t", V311, 4), Err(larger));
    seen.insert(number(larger));
    assert_eq!(seen, (0..28).collect());
}

#[test]
fn reserved_flags_of_every_type() {
    // [MQTT5-2.1.3-1] [MQTT3-2.2.2-1] [MQTT3-2.2.2-2] [MQTT5-3.6.1-1] [MQTT5-3.8.1-1] [MQTT5-3.10.1-1] [MQTT5-3.14.1-1]
    // [MQTT5-3.15.1-1] [MQTT3-3.6.1-1] [MQTT3-3.8.1-1] [MQTT3-3.10.1-1] [MQTT3-3.14.1-1]
    for version in BOTH {
        for kind in 1..=15 {
            if kind == 3 || (kind == 15 && version == V311) {
                continue;
            }
            let legal = if matches!(kind, 6 | 8 | 10) { 2 } else { 0 };
            for flags in (0..16).filter(|flags| *flags != legal) {
                let first = kind << 4 | flags;
                assert_eq!(whole(&[first, 0], version).unwrap_err(), E::ReservedFlags, "{first:02X}");
                // It is refused before the body is there.
                assert_eq!(decode(&[first, 9], version, MAX), Err(E::ReservedFlags), "{first:02X}");
            }
        }
    }
}

#[test]
fn reason_codes_of_every_packet() {
    // [MQTT5-3.2.2-8] [MQTT5-3.4.2-1] [MQTT5-3.5.2-1] [MQTT5-3.6.2-1] [MQTT5-3.7.2-1] [MQTT5-3.9.3-2] [MQTT5-3.11.3-2]
    // [MQTT5-3.14.2-1] [MQTT5-3.15.2-1]; section 2.4 says which packets carry a code.
    const ACKS: &[u8] = &[0x40, 0x50];
    const RELS: &[u8] = &[0x62, 0x70];
    let table: &[(u8, &[&[u8]])] = &[
        (0x00, &[&[0x20, 0x90, 0xB0, 0xE0, 0xF0], ACKS, RELS]),
        (0x01, &[&[0x90]]),
        (0x02, &[&[0x90]]),
        (0x04, &[&[0xE0]]),
        (0x10, &[ACKS]),
        (0x11, &[&[0xB0]]),
        (0x18, &[&[0xF0]]),
        (0x19, &[&[0xF0]]),
        (0x80, &[&[0x20, 0x90, 0xB0, 0xE0], ACKS]),
        (0x81, &[&[0x20, 0xE0]]),
        (0x82, &[&[0x20, 0xE0]]),
        (0x83, &[&[0x20, 0x90, 0xB0, 0xE0], ACKS]),
        (0x84, &[&[0x20]]),
        (0x85, &[&[0x20]]),
        (0x86, &[&[0x20]]),
        (0x87, &[&[0x20, 0x90, 0xB0, 0xE0], ACKS]),
        (0x88, &[&[0x20]]),
        (0x89, &[&[0x20, 0xE0]]),
        (0x8A, &[&[0x20]]),
        (0x8B, &[&[0xE0]]),
        (0x8C, &[&[0x20, 0xE0]]),
        (0x8D, &[&[0xE0]]),
        (0x8E, &[&[0xE0]]),
        (0x8F, &[&[0x90, 0xB0, 0xE0]]),
        (0x90, &[&[0x20, 0xE0], ACKS]),
        (0x91, &[&[0x90, 0xB0], ACKS]),
        (0x92, &[RELS]),
        (0x93, &[&[0xE0]]),
        (0x94, &[&[0xE0]]),
        (0x95, &[&[0x20, 0xE0]]),
        (0x96, &[&[0xE0]]),
        (0x97, &[&[0x20, 0x90, 0xE0], ACKS]),
        (0x98, &[&[0xE0]]),
        (0x99, &[&[0x20, 0xE0], ACKS]),
        (0x9A, &[&[0x20, 0xE0]]),
        (0x9B, &[&[0x20, 0xE0]]),
        (0x9C, &[&[0x20, 0xE0]]),
        (0x9D, &[&[0x20, 0xE0]]),
        (0x9E, &[&[0x90, 0xE0]]),
        (0x9F, &[&[0x20, 0xE0]]),
        (0xA0, &[&[0xE0]]),
        (0xA1, &[&[0x90, 0xE0]]),
        (0xA2, &[&[0x90, 0xE0]]),
    ];
    for code in 0..=0xFF {
        let packets = table.iter().find(|(known, _)| *known == code).map_or(&[][..], |(_, packets)| packets);
        assert_eq!(packets.is_empty(), ReasonCode(code).name() == "unknown reason code", "0x{code:02X}");
        for first in [0x20, 0x40, 0x50, 0x62, 0x70, 0x90, 0xB0, 0xE0, 0xF0] {
            let bytes = match first {
                0x20 => framed(first, &[0, code, 0]),
                0x40 | 0x50 | 0x62 | 0x70 => framed(first, &[0, 1, code, 0]),
                0x90 | 0xB0 => framed(first, &[0, 1, 0, 0, code]),
                0xE0 => framed(first, &[code, 0]),
                _ => framed(first, &[code, 4, 0x15, 0, 1, b'm']),
            };
            let legal = packets.iter().any(|list| list.contains(&first));
            match whole(&bytes, V5) {
                Ok(_) => assert!(legal, "0x{code:02X} in 0x{first:02X}"),
                Err(error) => {
                    assert!(!legal, "0x{code:02X} in 0x{first:02X}");
                    assert_eq!(error, E::BadReasonCode(code));
                }
            }
        }
    }
}

#[test]
fn what_the_peer_is_told() {
    // Malformed Packet and Protocol Error are told apart where the specification does (sections 2.2.2.2, 3.3.1.2, 3.8.3,
    // 3.8.3.1, 4.13).
    for (error, reason) in [
        (E::Truncated, ReasonCode::MALFORMED_PACKET),
        (E::ReservedFlags, ReasonCode::MALFORMED_PACKET),
        (E::BadQoS, ReasonCode::MALFORMED_PACKET),
        (E::NotUtf8, ReasonCode::MALFORMED_PACKET),
        (E::BadConnectFlags, ReasonCode::MALFORMED_PACKET),
        (E::BadSubscriptionOptions, ReasonCode::MALFORMED_PACKET),
        (E::UnknownProperty(0x7F), ReasonCode::MALFORMED_PACKET),
        (E::PropertyNotAllowed(0x11), ReasonCode::MALFORMED_PACKET),
        (E::SubscriptionOptionOutOfRange, ReasonCode::PROTOCOL_ERROR),
        (E::DuplicateProperty(0x01), ReasonCode::PROTOCOL_ERROR),
        (E::PropertyOutOfRange, ReasonCode::PROTOCOL_ERROR),
        (E::PropertyMissing(0x15), ReasonCode::PROTOCOL_ERROR),
        (E::NoFilters, ReasonCode::PROTOCOL_ERROR),
        (E::TopicMissing, ReasonCode::PROTOCOL_ERROR),
        (E::PropertyOfOtherSide(0x0B), ReasonCode::PROTOCOL_ERROR),
        (E::TooLarge { size: 2, max: 1 }, ReasonCode::PACKET_TOO_LARGE),
        (E::UnsupportedVersion(3), ReasonCode::UNSUPPORTED_PROTOCOL_VERSION),
        (E::BadTopic(TopicError::WildcardInName), ReasonCode::TOPIC_NAME_INVALID),
    ] {
        assert_eq!(error.reason(), reason, "{error:?}");
    }
    // [MQTT5-3.1.2-2] [MQTT3-3.1.2-2]: in words that the client can read; 0x80 marks a bridge.
    for (level, version) in [(0, V311), (3, V311), (0x83, V311), (0x84, V311), (0x85, V5), (6, V5), (0xFF, V5)] {
        assert_eq!(E::UnsupportedVersion(level).connack_version(), Some(version), "{level}");
    }
    assert_eq!(E::BadConnectFlags.connack_version(), None);
    // Labels tell variants apart, texts are there for all.
    let mut labels = BTreeSet::new();
    let mut numbers = BTreeSet::new();
    let others = [E::PacketOfOtherSide(2), E::PropertyOfOtherSide(0x0B), E::ReasonCodeOfOtherSide(0x8B)];
    for error in CASES.iter().map(|case| case.0).chain(others) {
        labels.insert(error.kind());
        numbers.insert(number(error));
        assert!(error.to_string().len() > 10);
    }
    assert_eq!(labels.len(), numbers.len());
}
