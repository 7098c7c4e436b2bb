//! Which property stands where, and how its value is written (table 2-4).

use crate::Bytes;
use parlor_protocol::mqtt::{DecodeError, Properties, Property, PropertyPlace};

pub const PLACES: [PropertyPlace; 9] = [
    PropertyPlace::Connect,
    PropertyPlace::ConnAck,
    PropertyPlace::Publish,
    PropertyPlace::Will,
    PropertyPlace::Ack,
    PropertyPlace::Subscribe,
    PropertyPlace::Unsubscribe,
    PropertyPlace::Disconnect,
    PropertyPlace::Auth,
];

/// Table 2-4, with an example of each property and how it is written.
pub const TABLE: &[(Property<'static>, &[u8], &[PropertyPlace])] = {
    use PropertyPlace::{Ack, Auth, ConnAck, Connect, Disconnect, Publish, Subscribe, Will};
    &[
        (Property::PayloadFormatIndicator(true), b"\x01\x01", &[Publish, Will]),
        (Property::MessageExpiryInterval(0x0102_0304), b"\x02\x01\x02\x03\x04", &[Publish, Will]),
        (Property::ContentType("x"), b"\x03\x00\x01x", &[Publish, Will]),
        (Property::ResponseTopic("r/t"), b"\x08\x00\x03r/t", &[Publish, Will]),
        (Property::CorrelationData(b"\x00\xFF"), b"\x09\x00\x02\x00\xFF", &[Publish, Will]),
        (Property::SubscriptionIdentifier(300), b"\x0B\xAC\x02", &[Publish, Subscribe]),
        (Property::SessionExpiryInterval(u32::MAX), b"\x11\xFF\xFF\xFF\xFF", &[Connect, ConnAck, Disconnect]),
        (Property::AssignedClientIdentifier("c"), b"\x12\x00\x01c", &[ConnAck]),
        (Property::ServerKeepAlive(60), b"\x13\x00\x3C", &[ConnAck]),
        (Property::AuthenticationMethod("m"), b"\x15\x00\x01m", &[Connect, ConnAck, Auth]),
        (Property::AuthenticationData(b"\x00"), b"\x16\x00\x01\x00", &[Connect, ConnAck, Auth]),
        (Property::RequestProblemInformation(false), b"\x17\x00", &[Connect]),
        (Property::WillDelayInterval(5), b"\x18\x00\x00\x00\x05", &[Will]),
        (Property::RequestResponseInformation(true), b"\x19\x01", &[Connect]),
        (Property::ResponseInformation("i"), b"\x1A\x00\x01i", &[ConnAck]),
        (Property::ServerReference("s"), b"\x1C\x00\x01s", &[ConnAck, Disconnect]),
        (Property::ReasonString("why"), b"\x1F\x00\x03why", &[ConnAck, Ack, Disconnect, Auth]),
        (Property::ReceiveMaximum(1), b"\x21\x00\x01", &[Connect, ConnAck]),
        (Property::TopicAliasMaximum(0), b"\x22\x00\x00", &[Connect, ConnAck]),
        (Property::TopicAlias(0xFFFF), b"\x23\xFF\xFF", &[Publish]),
        (Property::MaximumQoS(true), b"\x24\x01", &[ConnAck]),
        (Property::RetainAvailable(false), b"\x25\x00", &[ConnAck]),
        (Property::UserProperty("n", "v"), b"\x26\x00\x01n\x00\x01v", &PLACES),
        (Property::MaximumPacketSize(1), b"\x27\x00\x00\x00\x01", &[Connect, ConnAck]),
        (Property::WildcardSubscriptionAvailable(true), b"\x28\x01", &[ConnAck]),
        (Property::SubscriptionIdentifierAvailable(false), b"\x29\x00", &[ConnAck]),
        (Property::SharedSubscriptionAvailable(true), b"\x2A\x01", &[ConnAck]),
    ]
};

/// What has to stand beside a property: data need a method, AUTH always has one.
fn companion(property: &Property<'_>, place: PropertyPlace) -> &'static [u8] {
    let needs = property.id() == 0x16 || (place == PropertyPlace::Auth && property.id() != 0x15);
    if needs { b"\x15\x00\x01m" } else { b"" }
}

#[test]
fn every_identifier_in_every_place() {
    for id in 0..=0xFF {
        let known = TABLE.iter().find(|(property, ..)| property.id() == id);
        for place in PLACES {
            let Some((property, written, places)) = known else {
                assert_eq!(Properties::parse(&[id, 0, 0, 0, 0], place), Err(DecodeError::UnknownProperty(id)));
                continue;
            };
            let list = [*written, companion(property, place)].concat();
            let parsed = Properties::parse(&list, place);
            if !places.contains(&place) {
                assert_eq!(parsed, Err(DecodeError::PropertyNotAllowed(id)), "{place:?}");
                continue;
            }
            let parsed = parsed.unwrap();
            assert_eq!(parsed.iter().next(), Some(*property), "{place:?}");
            assert_eq!(parsed.as_bytes(), list);
            let mut bytes = Bytes::default();
            property.encode(&mut bytes);
            assert_eq!(bytes.0, *written);
            assert_eq!(property.encoded_len(), written.len());
            // A second one is a Protocol Error, but for User Properties and the Subscription Identifiers of PUBLISH.
            let twice = [&list[..], written].concat();
            let repeats = id == 0x26 || (id == 0x0B && place == PropertyPlace::Publish);
            let expect = if repeats { Ok(()) } else { Err(DecodeError::DuplicateProperty(id)) };
            assert_eq!(Properties::parse(&twice, place).map(drop), expect, "{property:?} in {place:?}");
            // It may not be cut anywhere.
            for cut in 1..written.len() {
                assert_eq!(
                    Properties::parse(&written[..cut], place),
                    Err(DecodeError::Truncated),
                    "{property:?} {cut}"
                );
            }
        }
    }
}

#[test]
fn values_have_their_ranges() {
    for (property, written, places) in TABLE {
        let flag = written.len() == 2 && property.id() != 0x0B;
        for value in 0..=0xFF_u8 {
            if flag {
                let list = [property.id(), value];
                assert_eq!(Properties::parse(&list, places[0]).is_ok(), value < 2, "{property:?} {value}");
            }
        }
        // Zero is a value of all numbers but these four.
        let zero: Vec<u8> = std::iter::once(property.id()).chain(written[1..].iter().map(|_| 0)).collect();
        let zero = if property.id() == 0x0B { vec![0x0B, 0] } else { zero };
        let refuses = matches!(property.id(), 0x0B | 0x21 | 0x23 | 0x27);
        let text = matches!(property.id(), 0x03 | 0x08 | 0x09 | 0x12 | 0x15 | 0x16 | 0x1A | 0x1C | 0x1F | 0x26);
        if !text {
            let expect = if refuses { Err(DecodeError::PropertyOutOfRange) } else { Ok(()) };
            assert_eq!(Properties::parse(&zero, places[0]).map(drop), expect, "{property:?}");
        }
    }
}

#[test]
fn accessors_find_their_property_behind_all_others() {
    macro_rules! find {
        ($list:ident: $($name:ident $variant:ident),*) => {
            $(assert_eq!(
                $list.$name(),
                $list.iter().find_map(|p| if let Property::$variant(value) = p { Some(value) } else { None }),
            );)*
        };
    }
    // All properties forwards, backwards, and without one of them.
    let forwards: Vec<u8> = TABLE.iter().flat_map(|(_, written, _)| written.iter().copied()).collect();
    let backwards: Vec<u8> = TABLE.iter().rev().flat_map(|(_, written, _)| written.iter().copied()).collect();
    let without = TABLE.iter().map(|(gone, ..)| {
        TABLE.iter().filter(|(p, ..)| p != gone).flat_map(|(_, written, _)| written.iter().copied()).collect()
    });
    for list in [forwards, backwards, vec![]].into_iter().chain(without) {
        let list = Properties::from_validated(&list);
        find!(list: payload_format_indicator PayloadFormatIndicator, message_expiry_secs MessageExpiryInterval,
            content_type ContentType, response_topic ResponseTopic, correlation_data CorrelationData,
            subscription_identifier SubscriptionIdentifier, session_expiry_interval_secs SessionExpiryInterval,
            assigned_client_identifier AssignedClientIdentifier, server_keep_alive_secs ServerKeepAlive,
            authentication_method AuthenticationMethod, authentication_data AuthenticationData,
            request_problem_information RequestProblemInformation, will_delay_interval_secs WillDelayInterval,
            request_response_information RequestResponseInformation, response_information ResponseInformation,
            server_reference ServerReference, reason_string ReasonString, receive_maximum ReceiveMaximum,
            topic_alias_maximum TopicAliasMaximum, topic_alias TopicAlias, maximum_qos MaximumQoS,
            retain_available RetainAvailable, maximum_packet_size MaximumPacketSize,
            wildcard_subscription_available WildcardSubscriptionAvailable,
            subscription_identifier_available SubscriptionIdentifierAvailable,
            shared_subscription_available SharedSubscriptionAvailable);
    }
}
