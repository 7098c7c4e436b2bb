//! Further streams of one connection: what goes where, and what ends with what.

use super::tests::*;
use super::tests_roads::ask;
use super::{Effect, Hub};
use crate::limits::Limits;
use crate::link::{LinkId, StreamKind};
use parlor_protocol::mqtt::{
    Auth, Connect, Disconnect, Packet, PacketId, Properties, Property, Publish, ReasonCode, Unsubscribe, Version,
    decode,
};

impl House {
    pub(super) fn stream(&mut self, parent: LinkId) -> LinkId {
        self.hub.open_stream(self.now, parent, StreamKind::Data).unwrap()
    }

    /// A connection that has heard its CONNACK, and a stream of it.
    pub(super) fn pair(&mut self, id: &str, expiry_secs: u32) -> (LinkId, LinkId) {
        let main = self.join(id, expiry_secs);
        assert_eq!(self.hear(main), ["ConnAck 0"]);
        let stream = self.stream(main);
        (main, stream)
    }

    /// What the broker has to say to a link, with packet identifiers.
    pub(super) fn read(&mut self, link: LinkId) -> Vec<String> {
        let bytes = self.hub.output(link).to_vec();
        self.hub.wrote(self.now, link, bytes.len());
        let (mut at, mut heard) = (0, vec![]);
        while let Some((packet, size)) = decode(&bytes[at..], Version::V5, u32::MAX).unwrap() {
            heard.push(match packet {
                Packet::Publish(p) => format!("{} {}", p.topic, p.packet_id.map_or(0, PacketId::value)),
                Packet::PubAck(a) => format!("PubAck {}", a.packet_id.value()),
                Packet::PubRec(a) => format!("PubRec {}", a.packet_id.value()),
                Packet::PubRel(a) => format!("PubRel {}", a.packet_id.value()),
                Packet::PubComp(a) => format!("PubComp {}", a.packet_id.value()),
                Packet::Disconnect(d) => format!("Disconnect {}", d.reason.0),
                other => format!("{other:?}").split('(').next().unwrap().to_owned(),
            });
            at += size;
        }
        self.settle();
        heard
    }

    /// Packets go in, and the links the hub closes by them come out.
    pub(super) fn closes(&mut self, act: impl FnOnce(&mut Hub, super::Now)) -> Vec<LinkId> {
        act(&mut self.hub, self.now);
        let mut closed = vec![];
        while let Some(effect) = self.hub.poll_effect() {
            if let Effect::Close(link) = effect {
                closed.push(link);
            }
        }
        closed.sort();
        closed
    }

    pub(super) fn unanswered(&self, link: LinkId) -> u16 {
        self.hub.links[link.slot as usize].unanswered
    }
}

pub(super) const NOTHING: [&str; 0] = [];

pub(super) fn unsubscribe(house: &mut House, link: LinkId, filter: &str) {
    let list = [filter];
    let filters = parlor_protocol::mqtt::UnsubscribeFilters::from_slice(&list);
    house.say(link, &Packet::Unsubscribe(Unsubscribe { packet_id: id(9), properties: Properties::EMPTY, filters }));
}

#[test]
fn what_comes_on_a_stream_is_answered_there() {
    let mut house = House::new(|_| ());
    let (main, stream) = house.pair("c", 0);
    house.say(stream, &Packet::PingReq);
    house.say(stream, &Packet::Publish(publish("t", 1, 5, b"x")));
    house.say(stream, &Packet::Publish(publish("t", 2, 6, b"x")));
    subscribe(&mut house, stream, "s", 1);
    unsubscribe(&mut house, stream, "s");
    assert_eq!(house.read(stream), ["PingResp", "PubAck 5", "PubRec 6", "SubAck", "UnsubAck"]);
    house.say(main, &Packet::Publish(publish("t", 1, 7, b"x")));
    assert_eq!((house.read(main), house.read(stream)), (vec!["PubAck 7".to_owned()], vec![]));
    house.say(stream, &Packet::PubRel(ack(6)));
    assert_eq!((house.read(main), house.read(stream)), (vec![], vec!["PubComp 6".to_owned()]));
}

#[test]
fn answers_that_wait_for_the_disk_go_to_their_own_streams() {
    let mut house = House::new(|_| ());
    let (main, one) = house.pair("c", 100);
    let two = house.stream(main);
    subscribe(&mut house, main, "t", 1);
    house.read(main);
    house.quick = false;
    for (n, link) in (5..).zip([one, main, two]) {
        house.say(link, &Packet::Publish(publish("t", 1, n, b"x")));
        assert_eq!(house.read(link), NOTHING);
    }
    subscribe(&mut house, one, "u", 1);
    unsubscribe(&mut house, two, "t");
    house.say(two, &Packet::Publish(publish("v", 2, 8, b"x")));
    house.quick = true;
    house.settle();
    assert_eq!(house.read(one), ["PubAck 5", "SubAck"]);
    assert_eq!(house.read(two)[..], ["PubAck 7", "UnsubAck", "PubRec 8"]);
    assert!(house.read(main).contains(&"PubAck 6".to_owned()));
}

#[test]
fn a_stream_that_ends_before_the_disk_is_done_is_answered_all_the_same() {
    let mut house = House::new(|_| ());
    let (main, finished) = house.pair("c", 100);
    let gone = house.stream(main);
    let idle = house.stream(main);
    house.quick = false;
    house.say(finished, &Packet::Publish(publish("t", 2, 5, b"x")));
    house.say(gone, &Packet::Publish(publish("t", 2, 6, b"x")));
    subscribe(&mut house, gone, "u", 1);
    // Nothing waits for this one.
    assert_eq!(house.closes(|hub, now| hub.finish(now, idle)), [idle]);
    assert_eq!(house.closes(|hub, now| hub.finish(now, finished)), []);
    house.say(finished, &Packet::PingReq);
    house.gone(gone);
    assert_eq!(house.unanswered(main), 2);
    house.quick = true;
    let (number, batch) = house.hub.take_batch().unwrap();
    crate::store::Store::submit(&mut house.store, number, batch);
    let event = crate::store::Store::poll(&mut house.store).unwrap();
    assert_eq!(house.closes(|hub, now| hub.stored(now, event)), [finished]);
    assert_eq!(house.read(finished), ["PubRec 5"]);
    assert_eq!(house.read(main), ["PubRec 6", "SubAck"]);
    house.gone(finished);
    house.gone(idle);
    assert_eq!((house.hub.links.len(), house.hub.streams), (1, 0));
    // Both can be ended on the first stream.
    house.say(main, &Packet::PubRel(ack(5)));
    house.say(main, &Packet::PubRel(ack(6)));
    assert_eq!((house.read(main).len(), house.unanswered(main)), (2, 0));
}

#[test]
fn a_packet_that_only_the_first_stream_may_carry_ends_the_connection() {
    let disconnect = Packet::Disconnect(Disconnect { reason: ReasonCode::SUCCESS, properties: Properties::EMPTY });
    let auth = Packet::Auth(Auth { reason: ReasonCode::RE_AUTHENTICATE, properties: Properties::EMPTY });
    for packet in [Packet::Connect(connect("c", &[])), disconnect, auth, Packet::PingResp] {
        let mut house = House::new(|_| ());
        let (main, one) = house.pair("c", 100);
        let two = house.stream(main);
        let closed = house.closes(|hub, now| hub.packet(now, one, &packet, 10));
        assert_eq!(closed, [main, one, two]);
        assert_eq!((house.read(main), house.read(one)), (vec!["Disconnect 130".to_owned()], vec![]));
        let labels = ["control_packet_on_stream", "unexpected_packet"];
        assert_eq!(labels.map(|l| house.hub.counters().refused.count(l)).iter().sum::<u64>(), 1);
        assert!(house.hub.session("c").unwrap().link.is_none());
    }
}

#[test]
fn bytes_that_are_no_packet_end_the_connection() {
    let mut house = House::new(|_| ());
    let (main, one) = house.pair("c", 100);
    let error = decode(&[0xF0, 0x80, 0x80, 0x80, 0x80], Version::V5, u32::MAX).unwrap_err();
    let closed = house.closes(|hub, now| hub.malformed(now, one, &error, None));
    assert_eq!(closed, [main, one]);
    assert_eq!(house.read(main), [format!("Disconnect {}", error.reason().0)]);
    assert_eq!(house.read(one), NOTHING);
    // Of a stream that has finished nothing counts.
    let mut house = House::new(|_| ());
    let (main, one) = house.pair("c", 100);
    house.hub.finish(house.now, one);
    house.hub.malformed(house.now, one, &error, None);
    assert!(house.hub.is_connected(main));
}

#[test]
fn streams_end_with_their_connection_however_that_ends() {
    type End = fn(&mut House, LinkId);
    let ends: [(&str, End); 6] = [
        ("closed", |h, main| h.hub.closed(h.now, main)),
        ("disconnect", |h, main| {
            let bye = Disconnect { reason: ReasonCode::SUCCESS, properties: Properties::EMPTY };
            h.hub.packet(h.now, main, &Packet::Disconnect(bye), 2);
        }),
        ("taken over", |h, _| {
            let link = h.open();
            h.hub.packet(h.now, link, &Packet::Connect(connect("c", &[])), 10);
        }),
        ("silent", |h, _| {
            h.now.ms += 200_000_000;
            h.hub.tick(h.now);
        }),
        ("kicked", |h, _| {
            h.hub.kick(h.now, "c", true, 1);
        }),
        ("stopped", |h, _| h.hub.stop(h.now)),
    ];
    for (how, end) in ends {
        for expiry_secs in [0, 100] {
            let mut house = House::new(|_| ());
            let (main, one) = house.pair("c", expiry_secs);
            let two = house.stream(main);
            subscribe(&mut house, one, "t", 1);
            house.read(one);
            house.quick = false;
            // One has an answer coming, and another is gone with one.
            house.say(one, &Packet::Publish(publish("t", 2, 5, b"x")));
            let gone = house.stream(main);
            house.say(gone, &Packet::Publish(publish("t", 2, 6, b"x")));
            house.gone(gone);
            end(&mut house, main);
            let mut closed = vec![];
            while let Some(effect) = house.hub.poll_effect() {
                if let Effect::Close(link) = effect {
                    closed.push(link);
                }
            }
            for stream in [one, two] {
                assert_eq!(house.hub.links[stream.slot as usize].session, u32::MAX, "{how}");
                assert!(closed.contains(&stream), "{how}");
                assert!(house.hub.open_stream(house.now, main, StreamKind::Data).is_none(), "{how}");
                // It acts for nobody any more.
                house.say(stream, &Packet::Publish(publish("t", 1, 7, b"x")));
                house.hub.finish(house.now, stream);
                assert!(!house.hub.set_road(stream, "t"), "{how}");
            }
            house.quick = true;
            house.settle();
            let heard = house.read(one);
            assert!(!heard.contains(&"PubAck 7".to_owned()), "{how} {heard:?}");
            for link in [one, two, main] {
                house.gone(link);
            }
            assert_eq!(house.hub.streams, 0, "{how}");
            assert_eq!(house.hub.totals().connections, u64::from(how == "taken over"), "{how}");
        }
    }
}

#[test]
fn a_connection_has_as_many_streams_as_it_may() {
    let mut house = House::new(|l: &mut Limits| {
        l.quic_streams_max = 2;
        l.connections_max = 2;
    });
    let early = house.open();
    assert!(house.hub.open_stream(house.now, early, StreamKind::Data).is_none(), "before CONNECT");
    house.gone(early);
    let (main, one) = house.pair("c", 0);
    let two = house.stream(main);
    assert!(house.hub.open_stream(house.now, main, StreamKind::Bulk).is_none());
    assert_eq!(house.hub.counters().limits.count("quic_streams_max"), 1);
    assert!(house.hub.open_stream(house.now, one, StreamKind::Data).is_none(), "a stream has no streams");
    assert_eq!(house.hub.totals().connections, 1);
    assert_eq!(house.hub.session("c").unwrap().link.unwrap().streams, 2);
    // Streams are no connections: one more of those is let in, and a third is not.
    house.gone(two);
    assert!(house.hub.open_stream(house.now, main, StreamKind::Bulk).is_some());
    for (id, code) in [("d", 0), ("e", 137)] {
        let link = house.join(id, 0);
        assert_eq!(house.hear(link), [format!("ConnAck {code}")]);
    }
}

#[test]
fn receive_maximum_rate_and_aliases_are_the_connections() {
    let mut house = House::new(|l| l.receive_max = 2);
    let (main, one) = house.pair("c", 100);
    house.quick = false;
    house.say(main, &Packet::Publish(publish("t", 2, 5, b"x")));
    house.say(one, &Packet::Publish(publish("t", 2, 6, b"x")));
    assert_eq!(house.unanswered(main), 2);
    house.say(one, &Packet::Publish(publish("t", 2, 7, b"x")));
    assert_eq!(house.read(main), ["Disconnect 147"]);

    let mut house = House::new(|l| l.receive_max = 2);
    let (main, one) = house.pair("c", 0);
    house.say(main, &Packet::Publish(publish("t", 2, 1, b"x")));
    for n in 2..20 {
        house.say(one, &Packet::Publish(publish("t", 1, n, b"x")));
        // It answers nothing that is counted.
        house.say(one, &Packet::PubRel(ack(n)));
        house.say(one, &Packet::Publish(ask("im/v1/me/x", 20, &[])));
        assert_eq!((house.read(one).len(), house.unanswered(main)), (3, 1));
    }

    let mut house = House::new(|_| ());
    let (main, one) = house.pair("c", 0);
    let mut alias = vec![];
    Property::TopicAlias(3).encode(&mut alias);
    let properties = Properties::from_validated(&alias);
    house.say(main, &Packet::Publish(Publish { properties, ..publish("t", 1, 5, b"x") }));
    house.say(one, &Packet::Publish(Publish { properties, ..publish("", 1, 6, b"x") }));
    assert_eq!(house.read(one), ["PubAck 6"]);
    assert!(house.hub.is_connected(main));

    let mut house = House::new(|l| {
        l.publish_rate_max = 1;
        l.publish_burst_max = 1;
    });
    let (main, one) = house.pair("c", 0);
    house.say(main, &Packet::Publish(publish("t", 0, 0, b"x")));
    assert!(house.hub.may_read(main));
    house.say(one, &Packet::Publish(publish("t", 0, 0, b"x")));
    assert!(!house.hub.may_read(one) && house.hub.may_read(main));
    // The credit is the connection's.
    house.pass(1_500);
    house.say(main, &Packet::Publish(publish("t", 0, 0, b"x")));
    assert!(!house.hub.may_read(main));
    house.pass(500);
    assert!(house.hub.may_read(one));
    // It was we who did not read.
    assert_eq!(house.hub.links[main.slot as usize].last_packet_ms, house.now.ms);
}

#[test]
fn keep_alive_hears_every_stream() {
    let mut house = House::new(|_| ());
    let main = house.open();
    house.say(main, &Packet::Connect(Connect { keep_alive_secs: 10, ..connect("c", &[]) }));
    let one = house.stream(main);
    for _ in 0..5 {
        house.pass(10_000);
        house.say(one, &Packet::PingReq);
    }
    assert!(house.hub.is_connected(main));
    house.pass(16_000);
    assert!(!house.hub.is_connected(main));

    // Nor is a client silent that we do not read.
    let mut house = House::new(|l| l.receive_max = 1);
    let main = house.open();
    let properties = expiry(100);
    house.say(main, &Packet::Connect(Connect { keep_alive_secs: 10, ..connect("c", &properties) }));
    let one = house.stream(main);
    house.quick = false;
    subscribe(&mut house, one, "t", 1);
    assert!(!house.hub.may_read(one) && house.hub.may_read(main));
    house.pass(20_000);
    house.pass(20_000);
    assert!(house.hub.is_connected(main));
    house.quick = true;
    house.settle();
    assert!(house.hub.may_read(one));
    house.pass(40_000);
    assert!(!house.hub.is_connected(main));
}

#[test]
fn qos_2_to_a_client_goes_on_where_the_client_answers() {
    for expiry_secs in [0, 100] {
        let mut house = House::new(|_| ());
        let (main, one) = house.pair("c", expiry_secs);
        let two = house.stream(main);
        subscribe(&mut house, one, "t", 2);
        house.read(one);
        let other = house.join("p", 0);
        for n in 1..=3 {
            house.say(other, &Packet::Publish(publish("t", 2, n, b"x")));
        }
        assert_eq!(house.read(one), ["t 1", "t 2", "t 3"]);
        house.say(one, &Packet::PubRec(ack(1)));
        house.say(two, &Packet::PubRec(ack(2)));
        assert_eq!((house.read(one), house.read(two)), (vec!["PubRel 1".to_owned()], vec!["PubRel 2".to_owned()]));
        // Again, elsewhere.
        house.say(main, &Packet::PubRec(ack(2)));
        assert_eq!(house.read(main), ["PubRel 2"]);
        // The stream of the PUBREC is gone when its answer is due: only a session on disk has to wait for it.
        house.quick = false;
        house.say(two, &Packet::PubRec(ack(3)));
        house.gone(two);
        house.quick = true;
        house.settle();
        let expect: &[&str] = if expiry_secs == 0 { &[] } else { &["PubRel 3"] };
        assert_eq!(house.read(main), expect);
        for (n, link) in [(1, main), (2, one), (3, main)] {
            house.say(link, &Packet::PubComp(ack(n)));
        }
        assert_eq!(house.hub.session("c").unwrap().in_flight, 0);
    }
}

#[test]
fn a_stream_whose_client_reads_no_answers_is_not_read() {
    let mut house = House::new(|l| l.output_bytes_max = 16_384);
    let (main, one) = house.pair("c", 0);
    let mut said = 0;
    while house.hub.may_read(one) {
        house.hub.packet(house.now, one, &Packet::PingReq, 2);
        said += 1;
        assert!(said < 20_000, "two bytes each, for ever");
    }
    assert!(house.hub.may_read(main));
    while !house.read(one).is_empty() {}
    assert!(house.hub.may_read(one));
}

#[test]
fn a_link_is_native_if_its_driver_says_so() {
    let mut house = House::new(|_| ());
    let (main, one) = house.pair("c", 0);
    assert!(!house.hub.is_native(main) && !house.hub.is_native(one));
    let peer = crate::Peer { address: [127, 0, 0, 1].into(), allow_anonymous: true, certificate: None, native: true };
    let link = house.hub.open(house.now, &peer).unwrap();
    assert!(house.hub.is_native(link));
    house.say(link, &Packet::Connect(connect("n", &[])));
    let stream = house.stream(link);
    assert!(house.hub.is_native(stream));
    house.gone(link);
    assert!(!house.hub.is_native(link) && house.hub.is_native(stream));
}

/// A client that does anything, with what it has been promised.
struct Wild {
    house: House,
    seed: u64,
    main: LinkId,
    streams: Vec<LinkId>,
    next_id: u16,
    /// Its messages that are not answered finally.
    open: std::collections::BTreeSet<u16>,
    /// Those of QoS 2 it may release.
    received: Vec<u16>,
    /// Deliveries to it that it has not acknowledged.
    deliveries: Vec<Packet<'static>>,
}

impl Wild {
    fn draw(&mut self, n: usize) -> usize {
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        usize::try_from(self.seed % n as u64).unwrap()
    }

    fn any(&mut self) -> LinkId {
        let at = self.draw(self.streams.len() + 1);
        self.streams.get(at).copied().unwrap_or(self.main)
    }

    fn read(&mut self, link: LinkId) {
        while !self.house.hub.output(link).is_empty() {
            self.read_once(link);
        }
    }

    fn read_once(&mut self, link: LinkId) {
        let bytes = self.house.hub.output(link).to_vec();
        self.house.hub.wrote(self.house.now, link, bytes.len());
        let mut at = 0;
        while let Some((packet, size)) = decode(&bytes[at..], Version::V5, u32::MAX).unwrap() {
            at += size;
            match packet {
                Packet::PubAck(a) | Packet::PubComp(a) => assert!(self.open.remove(&a.packet_id.value())),
                Packet::PubRec(a) => self.received.push(a.packet_id.value()),
                Packet::PubRel(a) => self.deliveries.push(Packet::PubComp(ack(a.packet_id.value()))),
                Packet::Publish(p) => {
                    let Some(number) = p.packet_id.map(PacketId::value) else { continue };
                    let is_last = p.qos == parlor_protocol::mqtt::QoS::AtLeastOnce;
                    let answer = if is_last { Packet::PubAck(ack(number)) } else { Packet::PubRec(ack(number)) };
                    self.deliveries.push(answer);
                }
                Packet::ConnAck(_) | Packet::SubAck(_) | Packet::UnsubAck(_) => {}
                other => panic!("{other:?}"),
            }
        }
        self.house.settle();
    }

    fn step(&mut self) {
        let link = self.any();
        let topic = ["a", "b", "a/b", "c"][self.draw(4)];
        let filter = ["a", "+", "a/#", "c"][self.draw(4)];
        let qos = [0, 1, 2][self.draw(3)];
        match self.draw(12) {
            0 => {
                if let Some(stream) = self.house.hub.open_stream(self.house.now, self.main, StreamKind::Data) {
                    self.streams.push(stream);
                }
            }
            // What a client does not read before it lets go of a stream is its own loss.
            1 | 2 if link != self.main => {
                self.read(link);
                if self.draw(2) == 0 {
                    self.house.hub.finish(self.house.now, link);
                    self.house.settle();
                    self.read(link);
                }
                self.streams.retain(|s| *s != link);
                self.house.gone(link);
            }
            3 => subscribe(&mut self.house, link, filter, qos),
            4 => unsubscribe(&mut self.house, link, filter),
            5 => self.house.quick = !self.house.quick,
            6 if !self.received.is_empty() => {
                let at = self.draw(self.received.len());
                let number = self.received.swap_remove(at);
                self.house.say(link, &Packet::PubRel(ack(number)));
            }
            7 | 8 if !self.deliveries.is_empty() => {
                let at = self.draw(self.deliveries.len());
                let answer = self.deliveries.swap_remove(at);
                self.house.say(link, &answer);
            }
            9 => self.read(link),
            10 if self.house.hub.may_read(link) && self.open.len() < 30 => {
                self.next_id = self.next_id % 60_000 + 1;
                let number = if qos == 0 { 0 } else { self.next_id };
                if qos > 0 {
                    self.open.insert(number);
                }
                self.house.say(link, &Packet::Publish(publish(topic, qos, number, &[0; 1_000])));
            }
            _ => {}
        }
    }

    fn check(&self) {
        let hub = &self.house.hub;
        assert_eq!(hub.streams, hub.links.iter().filter(|(_, l)| l.stream.is_some()).count());
        assert_eq!(hub.connections(), 1);
        let of_main = hub.streams_of(self.main.slot);
        for (slot, l) in hub.links.iter().filter(|(_, l)| l.stream.is_some()) {
            assert!(of_main.contains(&super::narrow(slot)), "{:?}", l.phase);
        }
        let key = hub.find_session("c").unwrap();
        if let Some(roads) = hub.sessions[key as usize].flow.as_ref().and_then(|f| f.roads.as_ref()) {
            assert!(!roads.is_empty());
            for topic in ["a", "b", "a/b", "c"] {
                assert!(roads.find(topic, 1).is_none_or(|stream| hub.is_open(stream)));
            }
        }
    }
}

#[test]
fn a_client_that_does_anything_is_answered_once_for_everything() {
    for round in 1..=40 {
        let mut house = House::new(|l| {
            l.quic_streams_max = 4;
            l.output_bytes_max = 16_384;
        });
        let expiry_secs = if round % 2 == 0 { 100 } else { 0 };
        let main = house.join("c", expiry_secs);
        let mut wild = Wild {
            house,
            seed: 0x9E37_79B9_7F4A_7C15 ^ round,
            main,
            streams: vec![],
            next_id: 0,
            open: std::collections::BTreeSet::new(),
            received: vec![],
            deliveries: vec![],
        };
        for _ in 0..2_000 {
            wild.step();
            wild.check();
        }
        // Then it does its duty until nothing is left.
        wild.house.quick = true;
        wild.house.settle();
        for _ in 0..2_000 {
            for link in wild.streams.clone().into_iter().chain([main]) {
                wild.read(link);
            }
            while let Some(number) = wild.received.pop() {
                wild.house.say(main, &Packet::PubRel(ack(number)));
            }
            while let Some(answer) = wild.deliveries.pop() {
                let link = wild.any();
                wild.house.say(link, &answer);
            }
        }
        assert_eq!((wild.open.len(), wild.house.unanswered(main)), (0, 0), "round {round}");
        let view = wild.house.hub.session("c").unwrap();
        assert_eq!((view.in_flight, view.queue_messages), (0, 0), "round {round}");
        assert_eq!(wild.house.hub.counters().refused.count("unknown_packet_id"), 0);
    }
}
