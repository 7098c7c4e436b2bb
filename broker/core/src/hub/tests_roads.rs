//! Further streams of one connection: which of them deliveries take, and what a slow one holds up.

use super::tests::*;
use super::tests_streams::*;
use crate::auth::AuthAnswer;
use crate::link::{LinkId, StreamKind};
use parlor_protocol::mqtt::{Connect, Packet, Properties, Property, Publish};

#[test]
fn deliveries_take_the_stream_that_subscribed() {
    for expiry_secs in [0, 100] {
        let mut house = House::new(|_| ());
        let (main, one) = house.pair("c", expiry_secs);
        let two = house.stream(main);
        subscribe(&mut house, main, "m/#", 1);
        subscribe(&mut house, one, "a/+", 2);
        subscribe(&mut house, two, "a/b/#", 1);
        subscribe(&mut house, two, "$share/g/s/#", 1);
        for link in [main, one, two] {
            house.read(link);
        }
        let other = house.join("p", 0);
        for (n, topic) in (1..).zip(["m/x", "a/c", "a/b", "a/b/c", "s/1"]) {
            house.say(other, &Packet::Publish(publish(topic, 1, n, b"x")));
        }
        house.say(other, &Packet::Publish(publish("a/d", 0, 0, b"x")));
        assert_eq!(house.read(main), ["m/x 1"]);
        // `a/+` is before `a/b/#`, so it leads where both match.
        assert_eq!(house.read(one).len(), 3);
        let two_heard = house.read(two);
        assert_eq!(two_heard, ["a/b/c 4", "s/1 5"], "{expiry_secs}");
        // Acknowledgements may come anywhere.
        for (n, link) in (1..).zip([two, main, one, one, main]) {
            house.say(link, &Packet::PubAck(ack(n)));
        }
        assert_eq!(house.hub.session("c").unwrap().in_flight, 0, "{expiry_secs}");
        assert_eq!(house.hub.counters().refused.count("unknown_packet_id"), 0);
    }
}

#[test]
fn retained_messages_take_the_stream_that_subscribed() {
    for (expiry_secs, qos) in [(0, 0), (0, 1), (100, 0), (100, 1)] {
        let mut house = House::new(|_| ());
        let (main, one) = house.pair("c", expiry_secs);
        let other = house.join("p", 0);
        retain(&mut house, other, "r/1");
        retain(&mut house, other, "q/1");
        subscribe(&mut house, one, "r/#", qos);
        subscribe(&mut house, main, "q/#", qos);
        assert_eq!(house.read(one), ["SubAck", "r/1 0"]);
        assert_eq!(house.read(main), ["SubAck", "q/1 0"]);
    }
}

#[test]
fn a_subscription_moves_with_its_last_subscribe_and_ends_with_its_stream() {
    let mut house = House::new(|_| ());
    let (main, one) = house.pair("c", 100);
    let two = house.stream(main);
    let other = house.join("p", 0);
    let expect = |house: &mut House, on: LinkId| {
        for link in [main, one, two] {
            house.read(link);
        }
        house.say(other, &Packet::Publish(publish("t", 0, 0, b"x")));
        for link in [main, one, two] {
            let heard: &[&str] = if link == on { &["t 0"] } else { &[] };
            assert_eq!(house.read(link), heard);
        }
    };
    subscribe(&mut house, one, "t", 1);
    expect(&mut house, one);
    subscribe(&mut house, two, "t", 1);
    expect(&mut house, two);
    subscribe(&mut house, main, "t", 1);
    expect(&mut house, main);
    subscribe(&mut house, two, "t", 1);
    house.closes(|hub, now| hub.finish(now, two));
    house.read(two);
    expect(&mut house, main);
    subscribe(&mut house, one, "t", 1);
    expect(&mut house, one);
    house.gone(one);
    expect(&mut house, main);
    let three = house.stream(main);
    subscribe(&mut house, three, "t", 1);
    unsubscribe(&mut house, main, "t");
    subscribe(&mut house, main, "+", 1);
    expect(&mut house, main);
    let key = house.hub.find_session("c").unwrap();
    assert!(house.hub.sessions[key as usize].flow.as_ref().unwrap().roads.is_none());
}

#[test]
fn aliases_towards_the_client_are_for_the_first_stream() {
    let mut house = House::new(|_| ());
    let mut properties = vec![];
    Property::TopicAliasMaximum(5).encode(&mut properties);
    let main = house.open();
    house.say(main, &Packet::Connect(connect("c", &properties)));
    let one = house.stream(main);
    subscribe(&mut house, main, "m", 0);
    subscribe(&mut house, one, "s", 0);
    house.read(main);
    house.read(one);
    let other = house.join("p", 0);
    for topic in ["m", "s", "m", "s"] {
        house.say(other, &Packet::Publish(publish(topic, 0, 0, b"x")));
    }
    assert_eq!(house.read(main), ["m 0", " 0"]);
    assert_eq!(house.read(one), ["s 0", "s 0"]);
}

#[test]
fn a_session_goes_on_with_the_next_connection_on_its_first_stream() {
    let mut house = House::new(|_| ());
    let (main, one) = house.pair("c", 100);
    subscribe(&mut house, one, "t", 2);
    let other = house.join("p", 0);
    for n in 1..=2 {
        house.say(other, &Packet::Publish(publish("t", 2, n, b"x")));
    }
    assert_eq!(house.read(one), ["SubAck", "t 1", "t 2"]);
    house.say(one, &Packet::PubRec(ack(1)));
    assert_eq!(house.read(one), ["PubRel 1"]);
    house.gone(main);
    let key = house.hub.find_session("c").unwrap();
    assert!(house.hub.sessions[key as usize].flow.as_ref().is_none_or(|f| f.roads.is_none()));
    house.gone(one);
    house.say(other, &Packet::Publish(publish("t", 1, 3, b"x")));
    let (main, one) = {
        let main = house.join("c", 100);
        (main, house.stream(main))
    };
    let heard = house.read(main);
    assert_eq!(heard[1..], ["PubRel 1", "t 2", "t 3"]);
    assert_eq!(house.read(one), NOTHING);
    house.say(one, &Packet::PubComp(ack(1)));
    house.say(one, &Packet::PubRec(ack(2)));
    house.say(one, &Packet::PubAck(ack(3)));
    assert_eq!(house.read(one), ["PubRel 2"]);
}

/// A stream that takes nothing any more, and its topic is `slow`.
fn stuck(house: &mut House, expiry_secs: u32, qos: u8) -> (LinkId, LinkId, LinkId, LinkId) {
    let (main, slow) = house.pair("c", expiry_secs);
    let quick = house.stream(main);
    subscribe(house, slow, "slow", qos);
    subscribe(house, quick, "quick", qos);
    subscribe(house, main, "main", qos);
    for link in [main, slow, quick] {
        house.read(link);
    }
    let other = house.join("p", 0);
    house.read(other);
    for n in 1..=50 {
        let packet_id = if qos == 0 { 0 } else { n };
        house.say(other, &Packet::Publish(publish("slow", qos, packet_id, &[0; 1_000])));
        house.read(other);
    }
    let unsent = house.hub.output(slow).len();
    assert!((8_000..18_000).contains(&unsent), "{unsent}");
    (main, slow, quick, other)
}

#[test]
fn a_stream_that_is_not_read_holds_up_no_other() {
    for qos in [0, 1] {
        let mut house = House::new(|l| l.output_bytes_max = 16_384);
        let (main, slow, quick, other) = stuck(&mut house, 0, qos);
        for n in 101..=103 {
            for (more, topic) in [(0, "quick"), (10, "main")] {
                let packet_id = if qos == 0 { 0 } else { n + more };
                house.say(other, &Packet::Publish(publish(topic, qos, packet_id, b"x")));
            }
        }
        assert_eq!((house.read(quick).len(), house.read(main).len()), (3, 3), "QoS {qos}");
        // Retained ones as well.
        retain(&mut house, other, "quick/r");
        subscribe(&mut house, quick, "quick/#", qos);
        assert!(house.read(quick).contains(&"quick/r 0".to_owned()));
        let dropped = house.hub.counters().dropped.count("slow_reader");
        let heard = {
            let mut all = vec![];
            loop {
                let more = house.read(slow);
                if more.is_empty() {
                    break all;
                }
                all.extend(more);
            }
        };
        assert_eq!(heard.len() as u64 + dropped, 50, "QoS {qos}");
        assert_eq!(dropped > 0, qos == 0);
        assert_eq!(house.hub.totals().queue_messages, 0);
    }
}

#[test]
fn what_waited_for_a_stream_that_ends_goes_to_the_first() {
    for expiry_secs in [0, 100] {
        let mut house = House::new(|l| l.output_bytes_max = 16_384);
        let (main, slow, _, _) = stuck(&mut house, expiry_secs, 1);
        let there = house.read(slow).len();
        // It has taken what it had and stopped again.
        house.gone(slow);
        let mut rest = vec![];
        loop {
            let more = house.read(main);
            if more.is_empty() {
                break;
            }
            rest.extend(more);
        }
        assert!(there > 0 && rest.len() + there >= 40, "{there} {}", rest.len());
        assert!(house.hub.session("c").unwrap().in_flight == 50, "each was sent once");
    }
}

#[test]
fn a_queue_on_disk_waits_for_the_stream_of_its_first_message() {
    let mut house = House::new(|l| l.output_bytes_max = 16_384);
    let (main, slow, quick, other) = stuck(&mut house, 100, 1);
    house.say(other, &Packet::Publish(publish("quick", 1, 101, b"x")));
    house.say(other, &Packet::Publish(publish("quick", 0, 0, b"x")));
    house.say(other, &Packet::Publish(publish("main", 0, 0, b"x")));
    // QoS 0 is in no queue.
    assert_eq!((house.read(quick), house.read(main)), (vec!["quick 0".to_owned()], vec!["main 0".to_owned()]));
    let mut heard = 0;
    while heard < 50 {
        let more = house.read(slow).len();
        assert!(more > 0, "{heard}");
        heard += more;
    }
    assert_eq!(house.read(quick), ["quick 51"]);
}

/// A client with a Receive Maximum of one, that has two streams.
fn patient(house: &mut House) -> (LinkId, LinkId, LinkId) {
    let mut properties = vec![];
    Property::ReceiveMaximum(1).encode(&mut properties);
    let main = house.open();
    house.say(main, &Packet::Connect(connect("c", &properties)));
    let (one, two) = (house.stream(main), house.stream(main));
    for (link, filter) in [(main, "m"), (one, "a"), (two, "b")] {
        subscribe(house, link, filter, 1);
        house.read(link);
    }
    (main, one, two)
}

#[test]
fn each_stream_has_its_turn_when_credit_is_short() {
    let mut house = House::new(|_| ());
    let (main, one, two) = patient(&mut house);
    let other = house.join("p", 0);
    for (n, topic) in (1..).zip(["a", "a", "b", "m", "a", "b", "m"]) {
        house.say(other, &Packet::Publish(publish(topic, 1, n, b"x")));
    }
    // Behind one that waits for the same stream, and before no other of it.
    house.say(other, &Packet::Publish(publish("a", 0, 0, b"x")));
    let mut order = String::new();
    for n in 1..=7 {
        for (link, name) in [(main, "m"), (one, "a"), (two, "b")] {
            for packet in house.read(link).iter().filter(|p| !p.starts_with("SubAck")) {
                assert!(packet.starts_with(name));
                order.push_str(if packet.ends_with(" 0") { "0" } else { name });
            }
        }
        house.say(one, &Packet::PubAck(ack(n)));
    }
    order.extend(house.read(one).iter().map(|p| if p.ends_with(" 0") { '0' } else { 'a' }));
    let turns: String = order.chars().filter(|c| *c != '0').collect();
    assert_eq!(turns, "aabmabm", "{order}");
    assert_eq!(order.find('0').map(|at| order[..at].matches('a').count()), Some(3), "{order}");
}

#[test]
fn what_waits_for_a_stream_goes_on_with_the_next_acknowledgement() {
    let mut house = House::new(|_| ());
    let (main, one, _) = patient(&mut house);
    let other = house.join("p", 0);
    for n in 1..=3 {
        house.say(other, &Packet::Publish(publish("a", 1, n, b"x")));
    }
    // Whatever its QoS, what waits for one stream comes in its order.
    house.say(other, &Packet::Publish(publish("a", 0, 0, b"x")));
    for expect in [vec!["a 1"], vec!["a 2"], vec!["a 3", "a 0"]] {
        assert_eq!(house.read(one), expect);
        let under_way: u16 = expect[0].strip_prefix("a ").unwrap().parse().unwrap();
        house.say(main, &Packet::PubAck(ack(under_way)));
    }
    assert_eq!(house.hub.totals().queue_messages, 0);
}

#[test]
fn a_page_of_the_queue_waits_for_the_stream_of_its_first_message() {
    let mut house = House::new(|l| l.output_bytes_max = 16_384);
    let main = house.join("c", 100);
    subscribe(&mut house, main, "t", 1);
    house.gone(main);
    let other = house.join("p", 0);
    for n in 1..=50 {
        house.say(other, &Packet::Publish(publish("t", 1, n, &[0; 1_000])));
    }
    let main = house.join("c", 100);
    let one = house.stream(main);
    subscribe(&mut house, one, "t", 1);
    // What went out with CONNACK went there; the rest is the stream's, as far as that takes it.
    let mut heard = house.read(main).len() - 1;
    let unsent = house.hub.output(one).len();
    assert!(heard > 0 && (8_000..10_000).contains(&unsent), "{heard} {unsent}");
    loop {
        let more = house.read(one).iter().filter(|p| p.starts_with('t')).count();
        heard += more;
        if more == 0 {
            break;
        }
    }
    assert_eq!((heard, house.read(main).len()), (50, 0));
}

// ---- Messaging -------------------------------------------------------------------------------------------------

/// Somebody with an account, and a stream.
pub(super) fn alice(house: &mut House) -> (LinkId, LinkId) {
    let main = join_as(house, "alice-phone", "alice", &[]);
    house.read(main);
    let stream = house.stream(main);
    (main, stream)
}

pub(super) fn ask<'a>(topic: &'a str, packet_id: u16, properties: &'a [u8]) -> Publish<'a> {
    Publish { properties: Properties::from_validated(properties), ..publish(topic, 1, packet_id, b"{}") }
}

#[test]
fn messaging_takes_the_stream_that_subscribed() {
    let mut house = House::new(|_| ());
    let (main, one) = alice(&mut house);
    subscribe(&mut house, one, "im/v1/me/err", 1);
    subscribe(&mut house, main, "im/v1/me/head", 0);
    house.read(main);
    assert_eq!(house.read(one)[0], "SubAck");
    house.say(main, &Packet::Publish(ask("im/v1/to/nobody/msg", 5, &[])));
    assert_eq!(house.read(main), ["PubAck 5"]);
    let heard = house.read(one);
    assert_eq!(heard.len(), 1, "{heard:?}");
    let number: u16 = heard[0].strip_prefix("im/v1/me/err ").unwrap().parse().unwrap();
    // Its acknowledgement may come anywhere.
    assert_eq!(house.hub.links[main.slot as usize].im_in_flight, 1);
    house.say(one, &Packet::PubAck(ack(number)));
    assert_eq!(house.hub.links[main.slot as usize].im_in_flight, 0);
    // A refusal of what came on the stream is answered there, and its text goes the same way as before.
    house.say(one, &Packet::Publish(ask("im/v1/to/nobody/msg", 6, &[])));
    let heard = house.read(one);
    assert_eq!((heard.len(), house.read(main).len()), (2, 0), "{heard:?}");
    house.gone(one);
    house.say(main, &Packet::Publish(ask("im/v1/to/nobody/msg", 7, &[])));
    let heard = house.read(main);
    assert!(heard.iter().any(|p| p.starts_with("im/v1/me/err")), "{heard:?}");
}

#[test]
fn an_answer_takes_the_road_that_was_laid_for_it() {
    let mut house = House::new(|_| ());
    let (main, _) = alice(&mut house);
    subscribe(&mut house, main, "im/v1/me/res/#", 1);
    house.read(main);
    let bulk = house.hub.open_stream(house.now, main, StreamKind::Bulk).unwrap();
    assert!(house.hub.set_road(bulk, "im/v1/me/res/mine"));
    let response = |topic: &str| {
        let mut properties = vec![];
        Property::ResponseTopic(topic).encode(&mut properties);
        properties
    };
    house.say(bulk, &Packet::Publish(ask("im/v1/me/convs", 5, &response("im/v1/me/res/mine"))));
    let heard = house.read(bulk);
    assert!(heard[0] == "PubAck 5" && heard[1].starts_with("im/v1/me/res/mine"), "{heard:?}");
    house.say(bulk, &Packet::Publish(ask("im/v1/me/convs", 6, &response("im/v1/me/res/other"))));
    assert_eq!(house.read(bulk), ["PubAck 6"]);
    assert!(house.read(main)[0].starts_with("im/v1/me/res/other"));
    assert_eq!(house.closes(|hub, now| hub.finish(now, bulk)), [bulk]);
    house.say(main, &Packet::Publish(ask("im/v1/me/convs", 7, &response("im/v1/me/res/mine"))));
    assert_eq!(house.read(main).len(), 2);
    assert!(!house.hub.set_road(bulk, "im/v1/me/res/mine"), "it has ended");
}

#[test]
fn datagrams_take_qos_0_only() {
    let mut house = House::new(|_| ());
    let (main, one) = alice(&mut house);
    let datagrams = house.hub.open_stream(house.now, main, StreamKind::Datagrams).unwrap();
    assert!(house.hub.set_road(datagrams, "im/v1/me/err") && house.hub.set_road(datagrams, "telemetry/#"));
    assert!(!house.hub.set_road(datagrams, "a/#/b") && !house.hub.set_road(main, "a"));
    for (n, qos) in (5..).zip([0, 1]) {
        subscribe(&mut house, main, "im/v1/me/err", qos);
        // Subscribing on another stream ends a road; the driver lays it again.
        house.hub.set_road(datagrams, "im/v1/me/err");
        house.read(main);
        house.say(one, &Packet::Publish(ask("im/v1/to/nobody/msg", n, &[])));
        let (there, here) = (house.read(datagrams).len(), house.read(main).len());
        assert_eq!((there, here), if qos == 0 { (1, 0) } else { (0, 1) });
    }
    subscribe(&mut house, main, "telemetry/+", 1);
    house.read(main);
    let other = house.join("p", 0);
    house.say(other, &Packet::Publish(publish("telemetry/x", 0, 0, b"x")));
    house.say(other, &Packet::Publish(publish("telemetry/y", 1, 1, b"x")));
    assert_eq!(house.read(datagrams), ["telemetry/x 0"]);
    assert_eq!(house.read(main), ["telemetry/y 1"]);
}

#[test]
fn datagrams_that_nobody_takes_are_dropped_and_hold_up_nothing() {
    let mut house = House::new(|l| l.output_bytes_max = 16_384);
    let (main, _) = alice(&mut house);
    let datagrams = house.hub.open_stream(house.now, main, StreamKind::Datagrams).unwrap();
    subscribe(&mut house, main, "im/v1/me/err", 0);
    house.hub.set_road(datagrams, "im/v1/me/err");
    house.read(main);
    for n in 1..=500 {
        house.say(main, &Packet::Publish(ask("im/v1/to/nobody/msg", n, &[])));
        assert_eq!(house.read(main).len(), 1);
    }
    assert!(house.hub.output(datagrams).len() <= 16_384);
    assert!(house.hub.counters().dropped.count("slow_reader") > 0);
}

#[test]
fn messaging_waits_for_a_stream_that_is_full_and_loses_nothing() {
    let mut house = House::new(|l| l.output_bytes_max = 16_384);
    let (main, one) = alice(&mut house);
    subscribe(&mut house, one, "im/v1/me/err", 1);
    house.read(one);
    let topic = format!("im/v1/to/{}/msg", "x".repeat(60));
    for n in 1..=200 {
        house.say(main, &Packet::Publish(ask(&topic, n, &[])));
        house.read(main);
    }
    let unsent = house.hub.output(one).len();
    assert!((16_384..17_000).contains(&unsent), "{unsent}");
    let mut heard = 0;
    loop {
        let more = house.read(one).len();
        heard += more;
        if more == 0 {
            break;
        }
    }
    assert_eq!(heard, 200);
}

/// A device says in CONNECT what it is, and nothing of it is lost when it first subscribes on a stream.
#[test]
fn what_was_said_in_connect_holds_on_every_stream() {
    let mut house = House::new(|_| ());
    let link = house.open();
    let mut properties = vec![];
    Property::UserProperty("im-level", "260101").encode(&mut properties);
    house.say(link, &Packet::Connect(Connect { username: Some("alice"), ..connect("phone", &properties) }));
    let (main, request) = house.asked.pop().unwrap();
    let answer = AuthAnswer::Accept { account: "alice".to_owned(), groups: vec![], expires_at_ms: None, data: None };
    house.hub.authenticated(house.now, main, request.exchange, answer);
    house.settle();
    let one = house.stream(main);
    subscribe(&mut house, one, "im/v1/me/+/res", 1);
    house.say(one, &Packet::Publish(ask("im/v1/me/hello", 5, &[])));
    let said = String::from_utf8_lossy(house.hub.output(one)).into_owned();
    assert!(said.contains("260101"), "{said}");
}

/// The store is asked for a client id that may have been used before; its stream is gone when it answers.
#[test]
fn a_message_that_waits_for_the_store_is_answered_though_its_stream_ended() {
    let befriend = |house: &mut House| {
        let (main, _) = alice(house);
        let bob = join_as(house, "bob-phone", "bob", &[]);
        subscribe(house, bob, "im/v1/me/in/#", 1);
        for (who, path, op) in [("alice", "me/contact/bob", "request"), ("bob", "me/contact/alice", "accept")] {
            house.hub.act(house.now, who, path, format!(r#"{{"op":"{op}"}}"#).as_bytes(), 1);
            house.settle();
        }
        main
    };
    let text = br#"{"id":"a1","kind":"text","body":"hi"}"#;
    let message = |n| Publish { payload: text, ..publish("im/v1/to/bob/msg", 1, n, b"") };
    let mut house = House::new(|_| ());
    let main = befriend(&mut house);
    house.say(main, &Packet::Publish(message(5)));
    assert_eq!(house.read(main), ["PubAck 5"]);
    assert_eq!(house.hub.counters().refused.iter().count(), 0);
    for finishes in [true, false] {
        let mut house = House::with_rules(vec![], house.store.clone(), |_| ());
        let (main, one) = alice(&mut house);
        house.hub.packet(house.now, one, &Packet::Publish(message(6)), 10);
        assert!(!house.hub.may_read(one), "it waits");
        if finishes {
            house.hub.finish(house.now, one);
        } else {
            house.hub.closed(house.now, one);
        }
        assert_eq!((house.unanswered(main), house.hub.streams), (1, 1));
        house.settle();
        let (there, here) = (house.read(one), house.read(main));
        let answer = vec!["PubAck 6".to_owned()];
        assert_eq!((there, here), if finishes { (answer, vec![]) } else { (vec![], answer) });
        if finishes {
            house.gone(one);
        }
        assert_eq!((house.unanswered(main), house.hub.streams), (0, 0));
    }
}
