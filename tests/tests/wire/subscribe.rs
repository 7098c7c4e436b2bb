//! SUBSCRIBE and UNSUBSCRIBE, filters, identifiers, shared subscriptions (3.8 to 3.11, 4.7, 4.8).

use super::common::*;

const NO_LOCAL: u8 = 0x04;

/// SUBACK has the identifier of its SUBSCRIBE and one code a filter, in order: the QoS granted [MQTT5-3.8.4-1]
/// [MQTT5-3.8.4-2] [MQTT5-3.8.4-6] [MQTT5-3.8.4-7] [MQTT5-3.9.3-1] [MQTT5-3.9.3-2] [MQTT5-2.2.1-6] [MQTT3-3.8.4-1]
/// [MQTT3-3.8.4-2] [MQTT3-3.8.4-4] [MQTT3-3.8.4-5] [MQTT3-2.3.1-7] [MQTT3-3.9.3-1].
#[test]
fn suback_answers_each_filter() {
    for version in BOTH {
        let stem = unique("t/");
        let mut c = client(version);
        let names: Vec<String> = (0..60).map(|n| format!("{stem}/{n}")).collect();
        let filters: Vec<(&str, u8)> =
            names.iter().zip((0..3).cycle()).map(|(name, qos)| (name.as_str(), qos)).collect();
        let want: Vec<u8> = filters.iter().map(|(_, qos)| *qos).collect();
        for id in [1, 255, 256, 65_535] {
            let bytes = c.subscribe_bytes(id, &filters, &[]);
            c.send(&bytes);
            assert_eq!(c.await_suback(id), want);
        }
        c.say(2, &names[7], "seven");
        assert_eq!(c.message().qos, 1);
    }
}

/// UNSUBACK: one code a filter in MQTT 5, 0x11 for what was not subscribed to; an answer in any case [MQTT5-3.10.4-4]
/// [MQTT5-3.10.4-5] [MQTT5-3.10.4-6] [MQTT5-3.11.3-1] [MQTT5-3.11.3-2] [MQTT3-3.10.4-4] [MQTT3-3.10.4-5]
/// [MQTT3-3.10.4-6].
#[test]
fn unsuback_answers_each_filter() {
    for version in BOTH {
        let stem = unique("t/");
        let (a, b, all) = (format!("{stem}/a"), format!("{stem}/b"), format!("{stem}/#"));
        let mut c = client(version);
        c.subscribe_all(&[(&a, 1), (&b, 1), (&all, 1)], &[]);
        // Filters are compared character by character, not by what they match [MQTT5-3.10.4-1] [MQTT3-3.10.4-1].
        let codes = c.unsubscribe(&[&b, &format!("{stem}/+"), &b, &all]);
        assert_eq!(codes, if version == V5 { vec![0, 0x11, 0x11, 0] } else { vec![] });
        let mut publisher = client(version);
        publisher.say(1, &a, "still");
        publisher.say(1, &b, "no more");
        assert_eq!(c.message().text(), "still");
        nothing_reaches(&mut publisher, &mut c);
        c.unsubscribe(&[&a]);
        publisher.say(1, &a, "no more");
        nothing_reaches(&mut publisher, &mut c);
    }
}

/// UNSUBSCRIBE lets a delivery that has started end [MQTT5-3.10.4-3] [MQTT3-3.10.4-3].
#[test]
fn unsubscribe_lets_deliveries_end() {
    for version in BOTH {
        let topic = unique("t/");
        let mut c = client(version);
        c.subscribe(&topic, 2);
        let mut publisher = client(version);
        publisher.say(1, &topic, "one");
        publisher.say(2, &topic, "two");
        let (one, two) = (c.publish_packet(), c.publish_packet());
        c.unsubscribe(&[&topic]);
        c.finish(&one);
        c.finish(&two);
        c.quiet();
    }
}

/// The same filter again replaces the subscription: one delivery, with the new options [MQTT5-3.8.4-3]
/// [MQTT3-3.8.4-3].
#[test]
fn same_filter_replaces_the_subscription() {
    for version in BOTH {
        let topic = unique("t/");
        let mut c = client(version);
        for qos in [0, 2, 1] {
            c.subscribe(&topic, qos);
            client(version).say(2, &topic, "x");
            assert_eq!(c.message().qos, qos);
            c.quiet();
        }
    }
}

/// Messages are not lost while a subscription is replaced [MQTT5-3.8.4-4].
#[test]
fn replacing_a_subscription_loses_nothing() {
    let topic = unique("t/");
    let mut c = client(V5);
    c.subscribe(&topic, 1);
    let mut publisher = client(V5);
    for n in 0..50 {
        publisher.publish(&Publish::new(&topic, n.to_string()).qos(1, n + 1));
        let bytes = c.subscribe_bytes(n + 1, &[(&topic, 1)], &[]);
        c.send(&bytes);
    }
    let mut got = Vec::new();
    while got.len() < 50 {
        if let Packet::Publish(publish) = c.recv() {
            c.finish(&publish);
            got.push(publish.text().to_owned());
        }
    }
    let want: Vec<String> = (0..50).map(|n| n.to_string()).collect();
    assert_eq!(got, want);
}

/// Filters that are none: 0x8F in MQTT 5, 0x80 in 3.1.1; the filters beside them are granted [MQTT5-4.7.1-1]
/// [MQTT5-4.7.1-2] [MQTT5-4.8.2-1] [MQTT5-4.8.2-2] [MQTT3-4.7.1-2] [MQTT3-4.7.1-3].
#[test]
fn invalid_filters_are_refused() {
    for version in BOTH {
        let good = unique("t/");
        let bad = ["a#", "#a", "a/#/b", "#/", "a/b#", "a+", "+a", "a/+b", "a/b+/c", "a/++", "##", "a/##"];
        let mut c = client(version);
        for filter in bad {
            c.send(&c.subscribe_bytes(1, &[(&good, 1), (filter, 1)], &[]));
            if version == V311 {
                // 3.1.1 leaves it open whether a filter that is none is refused or a protocol violation.
                match c.try_recv(PATIENCE) {
                    Ok(Packet::SubAck { codes, .. }) => assert_eq!(codes, [1, 0x80], "{filter}"),
                    Err(Lost::Closed) => c = client(version),
                    other => panic!("{filter}: {other:?}"),
                }
            } else {
                match c.recv() {
                    Packet::SubAck { codes, .. } => assert_eq!(codes, [1, 0x8F], "{filter}"),
                    Packet::Disconnect { code: 0x81 | 0x8F, .. } if lenient() => c = client(version),
                    other => panic!("{filter}: {other:?}"),
                }
            }
        }
        drop(c);
        if version == V5 {
            for filter in [
                "$share",
                "$share/",
                "$share/g",
                "$share//a",
                "$share/g/",
                "$share/+/a",
                "$share/#/a",
                "$share/g+/a",
                "$share/g/a#",
            ] {
                let mut c = client(version);
                c.send(&c.subscribe_bytes(1, &[(filter, 1)], &[]));
                match c.recv() {
                    Packet::SubAck { codes, .. } if codes == [0x8F] => {}
                    // `$share` alone does not start with `$share/`.
                    Packet::SubAck { codes, .. } if filter == "$share" && codes == [1] => {}
                    Packet::Disconnect { code: 0x81 | 0x82 | 0x8F, .. } if lenient() => {}
                    other => panic!("{filter}: {other:?}"),
                }
            }
        }
    }
}

/// A filter that is no string, or empty, ends the connection [MQTT5-3.8.3-1] [MQTT5-3.10.3-1] [MQTT5-4.7.3-1]
/// [MQTT5-4.7.3-2] [MQTT3-3.8.3-1] [MQTT3-3.10.3-1] [MQTT3-4.7.3-1] [MQTT3-4.7.3-2].
#[test]
fn filters_have_to_be_strings() {
    for version in BOTH {
        let filters: [&[u8]; 5] = [&[0xFF], &[b'a', 0], &[0xED, 0xA0, 0x80], &[0], b""];
        for filter in filters {
            for (first, options) in [(0x82, &[0][..]), (0xA2, &[])] {
                let mut body = vec![0, 1];
                body.extend(props_for(version, &[]));
                body.extend(field(filter));
                body.extend(options);
                let mut c = client(version);
                c.name = format!("{version:?} {first:#04x} {filter:02x?}");
                c.send(&frame(first, body));
                if filter.is_empty() && version == V5 && first == 0x82 {
                    if let Some(codes) = c.closed_or_suback() {
                        assert_eq!(codes, [0x8F], "{}", c.name);
                    }
                } else {
                    c.thrown_out(&[0x81, 0x82, 0x8F]);
                }
            }
        }
    }
}

trait ClosedOrSuback {
    fn closed_or_suback(&mut self) -> Option<Vec<u8>>;
}

impl ClosedOrSuback for Client {
    /// The codes of a SUBACK, or `None` when the client was thrown out with 0x81, 0x82 or 0x8F.
    fn closed_or_suback(&mut self) -> Option<Vec<u8>> {
        match self.try_recv(PATIENCE) {
            Ok(Packet::SubAck { codes, .. }) => Some(codes),
            Ok(Packet::Disconnect { code: 0x81 | 0x82 | 0x8F, .. }) => None,
            Err(Lost::Closed) if lenient() => None,
            other => panic!("{}: {other:?}", self.name),
        }
    }
}

/// No filter at all, a missing options byte, reserved bits, QoS 3, Retain Handling 3, a packet identifier of 0, other
/// fixed header flags [MQTT5-3.8.1-1] [MQTT5-3.8.3-2] [MQTT5-3.8.3-5] [MQTT5-3.10.1-1] [MQTT5-3.10.3-2] [MQTT5-2.2.1-3]
/// [MQTT3-3.8.1-1] [MQTT3-3.8.3-3] [MQTT3-3.8.3-4] [MQTT3-3.10.1-1] [MQTT3-3.10.3-2] [MQTT3-2.3.1-1].
#[test]
fn malformed_subscribe_and_unsubscribe() {
    for version in BOTH {
        let p = props_for(version, &[]);
        let filter = field("a/b");
        let mut cases = vec![
            frame(0x82, [&[0, 1], p.as_slice()].concat()),
            frame(0xA2, [&[0, 1], p.as_slice()].concat()),
            frame(0x82, [0, 1]),
            frame(0x82, [0]),
            frame(0x82, []),
            frame(0x82, [&[0, 1], p.as_slice(), &filter].concat()),
            frame(0x82, [&[0, 1], p.as_slice(), &filter, &[0], &filter].concat()),
            frame(0x82, [&[0, 1], p.as_slice(), &[0, 9, b'a'], &[0]].concat()),
            frame(0x82, [&[0, 0], p.as_slice(), &filter, &[0]].concat()),
            frame(0xA2, [&[0, 0], p.as_slice(), &filter].concat()),
            frame(0xA2, [&[0, 1], p.as_slice(), &[0, 9, b'a']].concat()),
            frame(0xA2, [&[0, 1], p.as_slice(), &filter, &[0]].concat()),
        ];
        let bad_options: &[u8] =
            if version == V5 { &[3, 0x30, 0x31, 0x40, 0x80, 0xC0] } else { &[3, 4, 8, 0x10, 0x20, 0x40, 0x80] };
        for options in bad_options {
            cases.push(frame(0x82, [&[0, 1], p.as_slice(), &filter, &[*options]].concat()));
        }
        for flags in [0, 1, 3, 4, 6, 8, 0xA, 0xF] {
            cases.push(frame(0x80 | flags, [&[0, 1], p.as_slice(), &filter, &[0]].concat()));
            cases.push(frame(0xA0 | flags, [&[0, 1], p.as_slice(), &filter].concat()));
        }
        for bytes in cases {
            let mut c = client(version);
            c.name = format!("{version:?} {bytes:02x?}");
            c.send(&bytes);
            c.thrown_out(&[0x81, 0x82]);
        }
    }
}

/// Properties of SUBSCRIBE and UNSUBSCRIBE (3.8.2.1, 3.10.2.1).
#[test]
fn properties_of_subscribe_are_checked() {
    let identifier_zero = Prop { id: prop::SUBSCRIPTION_ID, value: Value::Byte(0) };
    let twice = [prop::subscription_id(1_u32), prop::subscription_id(2_u32)];
    let mut lists: Vec<(u8, Vec<Prop>)> = vec![(0x82, vec![identifier_zero]), (0x82, twice.to_vec())];
    for p in [prop::payload_format(1), prop::session_expiry(1_u32), prop::topic_alias(1_u16), prop::reason_string("r")]
    {
        lists.push((0x82, vec![p.clone()]));
        lists.push((0xA2, vec![p]));
    }
    lists.push((0xA2, vec![prop::subscription_id(1_u32)]));
    for (first, list) in lists {
        let mut body = vec![0, 1];
        body.extend(props(&list));
        body.extend(field("a/b"));
        if first == 0x82 {
            body.push(0);
        }
        let mut c = client(V5);
        c.name = format!("{first:#04x} {list:?}");
        c.send(&frame(first, body));
        c.thrown_out(&[0x81, 0x82]);
    }
    let mut c = client(V5);
    assert_eq!(c.subscribe_all(&[(&unique("t/"), 0)], &[prop::user("a", "1"), prop::user("a", "1")]), [0]);
}

/// Which names a filter matches [MQTT5-4.7.1-1] [MQTT5-4.7.1-2] [MQTT5-4.7.2-1] [MQTT3-4.7.1-2] [MQTT3-4.7.1-3]
/// [MQTT3-4.7.2-1] (4.7.1).
#[test]
fn filters_match_names() {
    for version in BOTH {
        let stem = unique("t");
        let names = ["", "/", "/a", "a", "a/", "a/b", "a/b/c", "b", "a//b", "$a", "$a/b", "A"];
        for (filter, want) in [
            ("#", vec!["", "/", "/a", "a", "a/", "a/b", "a/b/c", "b", "a//b", "$a", "$a/b", "A"]),
            ("+", vec!["", "a", "b", "$a", "A"]),
            ("a/#", vec!["a", "a/", "a/b", "a/b/c", "a//b"]),
            ("a/+", vec!["a/", "a/b"]),
            ("+/+", vec!["/", "/a", "a/", "a/b", "$a/b"]),
            ("+/b", vec!["a/b", "$a/b"]),
            ("a/+/b", vec!["a//b"]),
            ("a/+/#", vec!["a/", "a/b", "a/b/c", "a//b"]),
            ("/+", vec!["/", "/a"]),
            ("/#", vec!["", "/", "/a"]),
            ("a", vec!["a"]),
            ("a/", vec!["a/"]),
        ] {
            let mut c = client(version);
            c.subscribe(&format!("{stem}/{filter}"), 0);
            for name in names {
                c.say(0, &format!("{stem}/{name}"), name);
            }
            let got: Vec<String> = c
                .fence()
                .into_iter()
                .map(|p| if let Packet::Publish(p) = p { p.text().to_owned() } else { panic!("{p:?}") })
                .collect();
            assert_eq!(got, want, "{filter}");
        }
        let mut c = client(version);
        c.subscribe(&format!("{stem}/a/#"), 0);
        c.say(0, &format!("{stem}/a"), "the parent level");
        c.say(0, &stem, "not the grandparent");
        assert_eq!(c.message().text(), "the parent level");
        c.quiet();
    }
}

/// Filters that begin with a wildcard do not match names that begin with `$` [MQTT5-4.7.2-1] [MQTT3-4.7.2-1].
#[test]
fn leading_wildcards_do_not_match_dollar_names() {
    for version in BOTH {
        let name = unique("");
        let mut c = client(version);
        c.subscribe(&format!("+/{name}"), 0);
        c.subscribe(&format!("+/{name}/#"), 0);
        let mut exact = client(version);
        exact.subscribe_code(&format!("$dollar/{name}"), 0);
        let mut inside = client(version);
        inside.subscribe_code("$dollar/#", 0);
        let mut publisher = client(version);
        publisher.say(0, &format!("$dollar/{name}"), "x");
        let _ = publisher.fence();
        c.quiet();
        // Whether clients may use such names is the server's choice; if so, exact filters match them.
        let got = exact.fence().len();
        assert!(got <= 1);
        let seen = |p: &Packet| matches!(p, Packet::Publish(p) if p.topic == format!("$dollar/{name}"));
        assert_eq!(inside.fence().iter().filter(|p| seen(p)).count(), got);
    }
}

/// Overlapping subscriptions: each message at the greatest QoS of those that match, and in MQTT 5 the identifiers of
/// all of them, in one copy or several [MQTT5-3.3.4-2] [MQTT5-3.3.4-3] [MQTT5-3.3.4-4] [MQTT5-3.3.4-5] [MQTT3-3.3.5-1].
#[test]
fn overlapping_subscriptions() {
    for version in BOTH {
        let stem = unique("t/");
        let topic = format!("{stem}/a/b");
        let mut c = client(version);
        let filters = [format!("{stem}/#"), format!("{stem}/+/b"), topic.clone(), format!("{stem}/a/+")];
        for (n, filter) in filters.iter().enumerate() {
            let id = prop::subscription_id(u32::try_from(n).expect("small") + 10);
            let list = if version == V5 && n < 3 { vec![id] } else { vec![] };
            let qos = [0, 2, 1, 0][n];
            assert_eq!(c.subscribe_all(&[(filter, qos)], &list), [qos]);
        }
        client(version).say(2, &topic, "x");
        let mut got = vec![c.message()];
        for packet in c.fence() {
            let Packet::Publish(publish) = packet else { panic!("{packet:?}") };
            c.finish(&publish);
            got.push(publish);
        }
        assert!(got.iter().all(|p| p.text() == "x"));
        assert_eq!(got.iter().map(|p| p.qos).max(), Some(2));
        let mut ids: Vec<u32> = got.iter().flat_map(|p| p.props.numbers(prop::SUBSCRIPTION_ID)).collect();
        ids.sort_unstable();
        assert_eq!(ids, if version == V5 { vec![10, 11, 12] } else { vec![] });
        if got.len() == 1 {
            c.quiet();
        } else {
            assert!(got.len() <= 4);
        }
    }
}

/// Identifiers of queued messages, and of subscriptions that were replaced: the last one counts (3.8.2.1.2)
/// [MQTT5-3.3.4-3].
#[test]
fn subscription_identifier_of_the_last_subscribe_counts() {
    let (id, topic) = (unique("s"), unique("t/"));
    let mut c = Connect::v5(&id).persistent().to(broker());
    c.subscribe_all(&[(&topic, 1)], &[prop::subscription_id(1_u32)]);
    c.subscribe_all(&[(&topic, 1)], &[prop::subscription_id(300_u32)]);
    client(V5).say(1, &topic, "live");
    assert_eq!(c.message().props.numbers(prop::SUBSCRIPTION_ID), [300]);
    c.disconnect();
    client(V5).say(1, &topic, "queued");
    let mut c = Connect::v5(&id).persistent().to(broker());
    let got = c.message();
    assert_eq!((got.text(), got.props.numbers(prop::SUBSCRIPTION_ID)), ("queued", vec![300]));
    c.subscribe(&topic, 1);
    client(V5).say(1, &topic, "without");
    assert!(c.message().props.numbers(prop::SUBSCRIPTION_ID).is_empty());
    drop(c);
    forget(&id);
}

/// No Local: nothing comes back to the publisher, others get it [MQTT5-3.8.3-3].
#[test]
fn no_local_keeps_own_messages_away() {
    let stem = unique("t/");
    let topic = format!("{stem}/a");
    let (mut own, mut other) = (client(V5), client(V5));
    own.subscribe(&topic, 1 | NO_LOCAL);
    other.subscribe(&topic, 1 | NO_LOCAL);
    for qos in 0..=2 {
        own.say(qos, &topic, "mine");
        assert_eq!(other.message().text(), "mine");
        own.quiet();
    }
    other.say(1, &topic, "theirs");
    assert_eq!(own.message().text(), "theirs");
    // Another subscription without the option brings it.
    own.subscribe(&format!("{stem}/+"), 1);
    own.say(1, &topic, "mine");
    assert_eq!(own.message().text(), "mine");
    own.quiet();
}

/// No Local on a shared subscription is a protocol error [MQTT5-3.8.3-4].
#[test]
fn no_local_on_a_shared_subscription() {
    let mut c = client(V5);
    c.send(&c.subscribe_bytes(1, &[(&format!("$share/g/{}", unique("t/")), 1 | NO_LOCAL)], &[]));
    c.thrown_out(&[0x82]);
}

/// A shared subscription: each message to one member of each group, and to every ordinary subscriber (4.8.2).
#[test]
fn each_message_goes_to_one_member() {
    let topic = unique("t/");
    let mut members: Vec<Client> = (0..4).map(|_| client(V5)).collect();
    for (n, member) in members.iter_mut().enumerate() {
        member.subscribe(&format!("$share/{}/{topic}", ["g", "h"][n / 2]), 1);
    }
    let mut plain = client(V5);
    plain.subscribe(&topic, 1);
    let mut publisher = client(V5);
    for n in 0..40 {
        publisher.say(1, &topic, n.to_string());
    }
    let want: Vec<String> = (0..40).map(|n| n.to_string()).collect();
    assert_eq!(plain.texts(40), want);
    for group in members.chunks_mut(2) {
        let mut got: Vec<u32> = Vec::new();
        for member in group {
            let mut last = None;
            for packet in member.fence() {
                let Packet::Publish(publish) = packet else { panic!("{packet:?}") };
                member.finish(&publish);
                let n = publish.text().parse().expect("a number");
                assert!(last < Some(n), "in order for each member");
                last = Some(n);
                got.push(n);
            }
        }
        got.sort_unstable();
        assert_eq!(got, (0..40).collect::<Vec<u32>>());
    }
}

/// Messages to a member come at its granted QoS [MQTT5-4.8.2-3]; its shared and its ordinary subscription both count.
#[test]
fn shared_subscription_keeps_the_granted_qos() {
    let topic = unique("t/");
    let mut c = client(V5);
    assert_eq!(c.subscribe_all(&[(&format!("$share/g/{topic}"), 0)], &[prop::subscription_id(5_u32)]), [0]);
    let mut publisher = client(V5);
    publisher.say(2, &topic, "x");
    let got = c.message();
    assert_eq!((got.qos, got.props.numbers(prop::SUBSCRIPTION_ID)), (0, vec![5]));
    c.quiet();
    c.subscribe(&topic, 1);
    publisher.say(2, &topic, "y");
    let mut qos: Vec<u8> = (0..2).map(|_| c.message().qos).collect();
    qos.sort_unstable();
    assert_eq!(qos, [0, 1], "one for each subscription");
    c.quiet();
}

/// A member that refuses a message with an error ends it: nobody else gets it [MQTT5-4.8.2-6].
#[test]
fn message_refused_by_a_member_goes_to_nobody_else() {
    let topic = unique("t/");
    let filter = format!("$share/g/{topic}");
    let (mut a, mut b) = (client(V5), client(V5));
    a.subscribe(&filter, 2);
    b.subscribe(&filter, 2);
    let mut publisher = client(V5);
    for (qos, kind) in [(1, PubAck), (2, PubRec)] {
        for _ in 0..4 {
            publisher.say(qos, &topic, "unwanted");
            let mut count = 0;
            for member in [&mut a, &mut b] {
                for packet in member.fence() {
                    let Packet::Publish(publish) = packet else { panic!("{packet:?}") };
                    member.ack_code(kind, publish.id, 0x80);
                    count += 1;
                }
            }
            assert_eq!(count, 1);
            a.quiet();
            b.quiet();
        }
    }
}

/// A member that leaves with unanswered QoS 2 messages gets them when it is back; QoS 1 may go to others; nothing is
/// lost and no QoS 2 message comes to two [MQTT5-4.8.2-4] [MQTT5-4.8.2-5].
#[test]
fn member_that_leaves_in_mid_flight() {
    let topic = unique("t/");
    let filter = format!("$share/g/{topic}");
    let (id_a, id_b) = (unique("s"), unique("s"));
    let connect = |id: &str| Connect::v5(id).persistent().to(broker());
    let (mut a, mut b) = (connect(&id_a), connect(&id_b));
    a.subscribe(&filter, 2);
    b.subscribe(&filter, 2);
    let mut publisher = client(V5);
    for n in 0..10 {
        publisher.say(2, &topic, n.to_string());
    }
    let mut got: Vec<u32> = Vec::new();
    let number = |p: &Publish| p.text().parse::<u32>().expect("a number");
    let before: Vec<Packet> = a.fence();
    let at_a: Vec<u32> =
        before.iter().map(|p| if let Packet::Publish(p) = p { number(p) } else { panic!("{p:?}") }).collect();
    a.cut();
    for packet in b.fence() {
        let Packet::Publish(publish) = packet else { panic!("{packet:?}") };
        b.finish(&publish);
        got.push(number(&publish));
    }
    let mut a = connect(&id_a);
    let mut again: Vec<u32> = at_a.iter().map(|_| number(&a.message())).collect();
    got.extend(&again);
    again.sort_unstable();
    assert_eq!(again, at_a, "what a had received comes to a again [MQTT5-4.8.2-4]");
    got.sort_unstable();
    assert_eq!(got, (0..10).collect::<Vec<u32>>(), "each once");
    drop((a, b));
    forget(&id_a);
    forget(&id_b);
}

/// When the session of a member ends with a QoS 2 message unanswered, nobody else gets that message [MQTT5-4.8.2-5].
#[test]
fn message_of_a_member_whose_session_ends() {
    let topic = unique("t/");
    let filter = format!("$share/g/{topic}");
    let id = unique("s");
    let mut gone = Connect::v5(&id).persistent().to(broker());
    gone.subscribe(&filter, 2);
    client(V5).say(2, &topic, "started");
    assert_eq!(gone.publish_packet().text(), "started");
    let mut other = client(V5);
    other.subscribe(&filter, 2);
    gone.cut();
    forget(&id);
    client(V5).say(2, &topic, "next");
    assert_eq!(other.message().text(), "next");
    other.quiet();
}

/// While members are away, those that are there get the messages; when all are away the messages wait (4.8.2).
#[test]
fn messages_of_a_group_wait_for_a_member() {
    let topic = unique("t/");
    let filter = format!("$share/g/{topic}");
    let (here, away) = (unique("s"), unique("s"));
    absent_subscriber(V5, &away, &filter, 1);
    let mut c = Connect::v5(&here).persistent().to(broker());
    c.subscribe(&filter, 1);
    let mut publisher = client(V5);
    for n in 0..10 {
        publisher.say(1, &topic, n.to_string());
    }
    let want: Vec<String> = (0..10).map(|n| n.to_string()).collect();
    assert_eq!(c.texts(10), want, "the one who is there gets all");
    c.disconnect();
    publisher.say(1, &topic, "nobody there");
    // Whose queue it is in is up to the server; it comes to one of them, and a live message shows that all is said.
    let mut members = [&here, &away].map(|id| Connect::v5(id).persistent().to(broker()));
    let deadline = std::time::Instant::now() + PATIENCE;
    let mut got = Vec::new();
    while got.is_empty() && std::time::Instant::now() < deadline {
        for member in &mut members {
            if let Ok(packet) = member.try_recv(std::time::Duration::from_millis(50)) {
                let Packet::Publish(publish) = packet else { panic!("{packet:?}") };
                member.finish(&publish);
                got.push(publish.text().to_owned());
            }
        }
    }
    for member in &mut members {
        member.quiet();
    }
    assert_eq!(got, ["nobody there"]);
    forget(&here);
    forget(&away);
}

/// Leaving a group by UNSUBSCRIBE, and by ending the session.
#[test]
fn members_leave_a_group() {
    let topic = unique("t/");
    let filter = format!("$share/g/{topic}");
    let (mut a, mut b, mut c) = (client(V5), client(V5), client(V5));
    for member in [&mut a, &mut b, &mut c] {
        member.subscribe(&filter, 1);
    }
    assert_eq!(a.unsubscribe(&[&filter, &topic]), [0, 0x11]);
    b.disconnect();
    let mut publisher = client(V5);
    for n in 0..6 {
        publisher.say(1, &topic, n.to_string());
    }
    assert_eq!(c.texts(6), ["0", "1", "2", "3", "4", "5"]);
    a.quiet();
}

/// 3.1.1 clients may use shared subscriptions of this broker too, or have plain topics of that name; either way a
/// message is not delivered twice.
#[test]
fn shared_subscription_of_3_1_1() {
    let topic = unique("t/");
    let (mut old, mut new) = (client(V311), client(V5));
    let filter = format!("$share/g/{topic}");
    let code = old.subscribe_code(&filter, 1);
    assert!(code == 1 || code == 0x80);
    new.subscribe(&filter, 1);
    let mut publisher = client(V311);
    for n in 0..10 {
        publisher.say(1, &topic, n.to_string());
    }
    assert_eq!(old.fence().len() + new.fence().len(), 10);
}
