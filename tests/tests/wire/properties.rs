//! What travels with a message: properties, topic aliases, packet sizes (3.1.2.11, 3.3.2.3).

use super::common::*;
use std::collections::HashMap;

fn decorated(topic: &str, payload: &str) -> Publish {
    Publish::new(topic, payload)
        .with(prop::payload_format(1))
        .with(prop::user("z", "1"))
        .with(prop::content_type("text/plain; charset=utf-8"))
        .with(prop::user("a", ""))
        .with(prop::response_topic("answers/to/me"))
        .with(prop::user("", "a"))
        .with(prop::correlation([0, 255, 1, 128]))
        .with(prop::user("z", "1"))
        .with(prop::user("\u{FEFF}z", "日本"))
}

fn check_decoration(got: &Publish) {
    assert_eq!(got.props.number(prop::PAYLOAD_FORMAT), Some(1), "[MQTT5-3.3.2-4]");
    assert_eq!(got.props.text(prop::CONTENT_TYPE), Some("text/plain; charset=utf-8"), "[MQTT5-3.3.2-20]");
    assert_eq!(got.props.text(prop::RESPONSE_TOPIC), Some("answers/to/me"), "[MQTT5-3.3.2-15]");
    assert_eq!(got.props.bytes(prop::CORRELATION), Some([0, 255, 1, 128].as_slice()), "[MQTT5-3.3.2-16]");
    let users = [("z", "1"), ("a", ""), ("", "a"), ("z", "1"), ("\u{FEFF}z", "日本")];
    assert_eq!(got.props.users(), users, "[MQTT5-3.3.2-17] [MQTT5-3.3.2-18]");
    assert!(!got.props.has(prop::MESSAGE_EXPIRY) && !got.props.has(prop::SUBSCRIPTION_ID));
}

/// Properties of a message are forwarded untouched, user properties in their order: live, retained, and queued
/// [MQTT5-3.3.2-4] [MQTT5-3.3.2-15] [MQTT5-3.3.2-16] [MQTT5-3.3.2-17] [MQTT5-3.3.2-18] [MQTT5-3.3.2-20].
#[test]
fn properties_are_forwarded_untouched() {
    let (id, topic) = (unique("s"), unique("t/"));
    absent_subscriber(V5, &id, &topic, 2);
    let mut live = client(V5);
    live.subscribe(&topic, 2);
    let mut publisher = client(V5);
    for qos in 0..=2 {
        let mut message = decorated(&topic, "decorated").qos(qos, 0);
        message.retain = true;
        publisher.deliver(&message);
        check_decoration(&live.message());
        let mut late = client(V5);
        late.subscribe(&topic, 2);
        check_decoration(&late.message());
    }
    let mut back = Connect::v5(&id).persistent().to(broker());
    for _ in 1..=2 {
        let got = back.message();
        if got.qos > 0 {
            check_decoration(&got);
        }
    }
    publisher.deliver(&Publish::new(&topic, "").retain());
    drop(back);
    forget(&id);
}

/// An indicator of 0 is forwarded too [MQTT5-3.3.2-4].
#[test]
fn payload_format_0_is_forwarded_or_left_out() {
    let topic = unique("t/");
    let mut sub = client(V5);
    sub.subscribe(&topic, 0);
    client(V5).publish(&Publish::new(&topic, "x").with(prop::payload_format(0)));
    assert_eq!(sub.message().props.number(prop::PAYLOAD_FORMAT), Some(0));
}

/// From MQTT 5 to 3.1.1 the properties are left out, the other way there are none.
#[test]
fn versions_exchange_messages() {
    let topic = unique("t/");
    let (mut old, mut new) = (client(V311), client(V5));
    old.subscribe(&topic, 1);
    new.subscribe(&topic, 1);
    new.deliver(&decorated(&topic, "from 5").qos(1, 0).with(prop::topic_alias(1_u16)));
    assert_eq!(old.message().text(), "from 5");
    assert_eq!(new.message().text(), "from 5");
    old.say(1, &topic, "from 3.1.1");
    assert_eq!(old.message().text(), "from 3.1.1");
    let got = new.message();
    assert_eq!((got.text(), &got.props), ("from 3.1.1", &Props::default()));
}

/// How many aliases this broker lets a client use.
fn aliases_in(c: &Client) -> u16 {
    u16::try_from(c.connack.props.number(prop::TOPIC_ALIAS_MAX).unwrap_or(0)).expect("two bytes")
}

/// Aliases from 1 to the announced maximum can be set, used and set anew, and are not forwarded as such
/// [MQTT5-3.3.2-12].
#[test]
fn topic_aliases_of_the_client() {
    let stem = unique("t/");
    let mut sub = client(V5);
    sub.subscribe(&format!("{stem}/#"), 2);
    let mut c = client(V5);
    let most = aliases_in(&c);
    assert!(most >= 1, "this broker offers aliases");
    for alias in 1..=most {
        let topic = format!("{stem}/{alias}");
        c.deliver(
            &Publish::new(&topic, "set").with(prop::topic_alias(alias)).qos(u8::try_from(alias % 3).expect("small"), 0),
        );
        let got = sub.message();
        assert_eq!((got.topic.as_str(), got.text()), (topic.as_str(), "set"));
        assert!(!got.props.has(prop::TOPIC_ALIAS), "the subscriber has not asked for aliases [MQTT5-3.1.2-27]");
    }
    for alias in (1..=most).rev() {
        c.deliver(
            &Publish::new("", "used").with(prop::topic_alias(alias)).qos(u8::try_from(alias % 3).expect("small"), 0),
        );
        assert_eq!(sub.message().topic, format!("{stem}/{alias}"));
    }
    c.publish(&Publish::new(&format!("{stem}/new"), "set anew").with(prop::topic_alias(1_u16)));
    c.publish(&Publish::new("", "used").with(prop::topic_alias(1_u16)));
    assert_eq!(sub.message().topic, format!("{stem}/new"));
    assert_eq!(sub.message().topic, format!("{stem}/new"));
}

/// Aliases end with the connection, also where the session goes on [MQTT5-3.3.2-7].
#[test]
fn topic_aliases_end_with_the_connection() {
    let (id, topic) = (unique("s"), unique("t/"));
    let connect = Connect::v5(&id).persistent();
    let mut c = connect.to(broker());
    c.deliver(&Publish::new(&topic, "set").qos(1, 0).with(prop::topic_alias(1_u16)));
    c.disconnect();
    let mut c = connect.to(broker());
    c.publish(&Publish::new("", "unknown").with(prop::topic_alias(1_u16)));
    c.thrown_out(&[0x82, 0x94]);
    forget(&id);
}

/// Alias 0 and an alias beyond the announced maximum: 0x94; an alias that was never set: protocol error
/// [MQTT5-3.3.2-8] [MQTT5-3.3.2-9] (3.3.2.3.4).
#[test]
fn bad_topic_aliases() {
    let most = aliases_in(&client(V5));
    let topic = unique("t/");
    for (alias, topic, codes) in [
        (0, topic.as_str(), [0x94, 0x82]),
        (0, "", [0x94, 0x82]),
        (most + 1, &topic, [0x94, 0x94]),
        (65_535, &topic, [0x94, 0x94]),
        (1, "", [0x82, 0x94]),
    ] {
        for qos in 0..=2 {
            let mut c = client(V5);
            c.name = format!("alias {alias} topic {topic:?} QoS {qos}");
            c.publish(&Publish::new(topic, "x").qos(qos, qos.into()).with(prop::topic_alias(alias)));
            c.thrown_out(&codes);
        }
    }
}

/// Aliases towards a client: none unless asked for, none above its maximum, none on a new connection without the
/// topic [MQTT5-3.1.2-26] [MQTT5-3.1.2-27] [MQTT5-3.3.2-10] [MQTT5-3.3.2-11] [MQTT5-3.3.2-7].
#[test]
fn topic_aliases_of_the_server() {
    let (id, stem) = (unique("s"), unique("t/"));
    let mut publisher = client(V5);
    for most in [3_u16, 0, 1] {
        let mut sub = Connect::v5(&id).persistent().with(prop::topic_alias_max(most)).to(broker());
        sub.subscribe(&format!("{stem}/#"), 2);
        let mut known: HashMap<u32, String> = HashMap::new();
        for n in 0..60_u8 {
            let topic = format!("{stem}/{}", n % 5);
            publisher.say(n % 3, &topic, n.to_string());
            let got = sub.message();
            let topic_got = match got.props.number(prop::TOPIC_ALIAS) {
                None => got.topic.clone(),
                Some(alias) => {
                    assert!(alias > 0 && alias <= most.into(), "alias {alias} of {most} [MQTT5-3.3.2-11]");
                    if !got.topic.is_empty() {
                        known.insert(alias, got.topic.clone());
                    }
                    known.get(&alias).expect("an alias is set before it is used").clone()
                }
            };
            assert_eq!((topic_got.as_str(), got.text()), (topic.as_str(), n.to_string().as_str()));
        }
        sub.disconnect();
    }
    forget(&id);
}

/// What comes again on another connection does not rely on aliases of the last one [MQTT5-3.3.2-7] [MQTT5-4.4.0-1].
#[test]
fn messages_that_come_again_have_their_topic() {
    let (id, topic) = (unique("s"), unique("t/"));
    let connect = |most: u16| Connect::v5(&id).persistent().with(prop::topic_alias_max(most)).to(broker());
    let mut sub = connect(5);
    sub.subscribe(&topic, 2);
    let mut publisher = client(V5);
    for n in 0..6_u8 {
        publisher.say(1 + n % 2, &topic, n.to_string());
    }
    for _ in 0..6 {
        sub.publish_packet();
    }
    sub.cut();
    for most in [0, 5] {
        let mut sub = connect(most);
        let mut known = HashMap::new();
        for n in 0..6 {
            let got = sub.publish_packet();
            assert_eq!((got.text(), got.dup), (n.to_string().as_str(), true));
            match got.props.number(prop::TOPIC_ALIAS) {
                None => assert_eq!(got.topic, topic),
                Some(alias) => {
                    assert!(alias <= most.into());
                    let seen = known.entry(alias).or_insert_with(|| got.topic.clone());
                    assert_eq!(*seen, topic);
                }
            }
        }
        sub.cut();
    }
    forget(&id);
}

/// CONNACK is a packet too: where it cannot be small enough, the connection ends without it [MQTT5-3.1.2-24].
#[test]
fn connack_keeps_the_maximum_packet_size() {
    for most in [1_u32, 4, 5, 8, 12, 20] {
        let mut c = Connect::v5(&unique("c")).with(prop::max_packet_size(most)).send_to(broker());
        c.send(&[0xE0, 0]);
        let got = c.rest();
        assert!(got.is_empty() || (got[0] == 0x20 && usize::from(got[1]) + 2 == got.len()), "{got:02x?}");
        assert!(got.len() <= usize::try_from(most).expect("small"), "{most}: {got:02x?}");
    }
}

/// SUBACK has a code for each filter; where that does not fit, the connection ends without it [MQTT5-3.1.2-24].
#[test]
fn suback_keeps_the_maximum_packet_size() {
    let mut c = Connect::v5(&unique("c")).with(prop::max_packet_size(60_u32)).to(broker());
    let names: Vec<String> = (0..100).map(|n| format!("t/{n}")).collect();
    let filters: Vec<(&str, u8)> = names.iter().map(|name| (name.as_str(), 0)).collect();
    c.send(&c.subscribe_bytes(1, &filters, &[]));
    c.send(&[0xE0, 0]);
    for packet in c.closed() {
        assert!(matches!(packet, Packet::Disconnect { .. }), "{packet:?}");
    }
}

/// No packet to a client exceeds its Maximum Packet Size; a message that would is discarded as if it were sent, and
/// the flow goes on [MQTT5-3.1.2-24] [MQTT5-3.1.2-25].
#[test]
fn maximum_packet_size_of_the_client_is_kept() {
    let topic = unique("t/");
    let mut sub =
        Connect::v5(&unique("s")).with(prop::max_packet_size(200_u32)).with(prop::receive_max(1_u16)).to(broker());
    sub.subscribe(&topic, 2);
    let mut publisher = client(V5);
    for qos in 0..=2 {
        for size in [10, 500, 20, 5_000, 30] {
            publisher.say(qos, &topic, "x".repeat(size));
        }
        for size in [10, 20, 30] {
            let got = sub.message();
            assert_eq!((got.payload.len(), got.qos), (size, qos));
        }
    }
    sub.quiet();
    // At the very edge: a packet of exactly 200 bytes is sent, one of 201 is not.
    let overhead = Publish::new(&topic, "").bytes(V5).len() + 1;
    publisher.say(0, &topic, "x".repeat(201 - overhead));
    publisher.say(0, &topic, "x".repeat(200 - overhead));
    let _ = publisher.fence();
    assert_eq!(sub.message().bytes(V5).len(), 200);
    sub.quiet();
}

/// The same for retained and queued messages, and for a session that is resumed with a smaller size.
#[test]
fn maximum_packet_size_holds_for_stored_messages() {
    let (id, topic) = (unique("s"), unique("t/"));
    absent_subscriber(V5, &id, &topic, 2);
    let mut publisher = client(V5);
    for size in [500, 10, 600, 20] {
        publisher.deliver(&Publish::new(&topic, "x".repeat(size)).qos(1, 0));
    }
    publisher.deliver(&Publish::new(&topic, "x".repeat(700)).qos(1, 0).retain());
    let mut sub = Connect::v5(&id).persistent().with(prop::max_packet_size(200_u32)).to(broker());
    assert_eq!(sub.message().payload.len(), 10);
    assert_eq!(sub.message().payload.len(), 20);
    sub.quiet();
    sub.subscribe(&topic, 0);
    sub.quiet();
    sub.disconnect();
    let mut sub = Connect::v5(&id).persistent().to(broker());
    sub.quiet();
    sub.subscribe(&topic, 0);
    assert_eq!(sub.message().payload.len(), 700);
    publisher.deliver(&Publish::new(&topic, "").qos(1, 0).retain());
    drop(sub);
    forget(&id);
}

/// Reason strings and user properties never push an acknowledgement over the Maximum Packet Size [MQTT5-3.4.2-2]
/// [MQTT5-3.9.2-1] [MQTT5-3.2.2-19] [MQTT5-3.14.2-3].
#[test]
fn reason_strings_fit_into_the_maximum_packet_size() {
    let most = 40;
    let connect = Connect::v5(&unique("s")).with(prop::max_packet_size(40_u32));
    let mut c = connect.ask(broker());
    if c.connack.code != 0 {
        // A broker whose CONNACK does not fit may refuse.
        return;
    }
    let size = |c: &mut Client, packet: &[u8], count: usize| {
        c.send(packet);
        for _ in 0..count {
            let mut head = [0; 2];
            std::io::Read::read_exact(&mut c.stream(), &mut head).expect("an answer");
            assert!(usize::from(head[1]) + 2 <= most, "{head:02x?}");
            let mut body = vec![0; head[1].into()];
            std::io::Read::read_exact(&mut c.stream(), &mut body).expect("an answer");
        }
    };
    let filter = c.subscribe_bytes(1, &[("a/#/b", 0), ("$share//x", 0)], &[]);
    size(&mut c, &filter, 1);
    size(&mut c, &Publish::new(&unique("nobody/"), "x").qos(1, 2).bytes(V5), 1);
    size(&mut c, &Publish::new("$SYS/broker/x", "x").qos(1, 3).bytes(V5), 1);
    size(&mut c, &Publish::new("#", "x").bytes(V5), 1);
}

/// Request Problem Information 0: reason strings and user properties only in PUBLISH, CONNACK and DISCONNECT
/// [MQTT5-3.1.2-29].
#[test]
fn problem_information_is_left_out_on_request() {
    let mut c = Connect::v5(&unique("c")).with(prop::request_problem_info(0)).to(broker());
    c.send(&Publish::new("$SYS/refused", "x").qos(1, 11).bytes(V5));
    c.send(&Publish::new("$SYS/refused", "x").qos(2, 12).bytes(V5));
    c.send(&Publish::new(&unique("nobody/"), "x").qos(1, 13).bytes(V5));
    c.ack(PubRel, 999);
    c.ack(PubRec, 998);
    let bad = c.subscribe_bytes(14, &[("a/#/b", 0)], &[]);
    c.send(&bad);
    let mut body = vec![0, 15, 0];
    body.extend(field("never/subscribed"));
    c.send(&frame(0xA2, body));
    let answers = c.fence();
    assert!(answers.len() >= 7, "{answers:?}");
    for packet in answers {
        let (Packet::Ack { props, .. } | Packet::SubAck { props, .. } | Packet::UnsubAck { props, .. }) = &packet
        else {
            panic!("{packet:?}");
        };
        assert!(!props.has(prop::REASON_STRING) && !props.has(prop::USER), "{packet:?}");
    }
}
