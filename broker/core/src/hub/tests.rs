//! The hub by itself: packets in, packets out, and a disk that is done when the test says so.

use super::{Effect, Hub, Now, Settings, TIMERS_LEAST};
use crate::access::{Access, Rule};
use crate::auth::{AuthAnswer, AuthRequest};
use crate::limits::Limits;
use crate::link::{LinkId, Peer};
use crate::store::{MemoryStore, Store};
use parlor_protocol::mqtt::{
    Ack, Connect, Disconnect, Packet, PacketId, Properties, Property, Publish, QoS, ReasonCode, RetainHandling,
    Subscribe, SubscribeFilters, SubscriptionOptions, Version, Will, decode,
};

pub(super) struct House {
    pub(super) hub: Hub,
    pub(super) store: MemoryStore,
    pub(super) now: Now,
    /// The disk answers at once.
    pub(super) quick: bool,
    pub(super) asked: Vec<(LinkId, Box<AuthRequest>)>,
}

impl House {
    pub(super) fn new(change: impl FnOnce(&mut Limits)) -> Self {
        Self::with_rules(vec![], MemoryStore::new(), change)
    }

    pub(super) fn with_rules(rules: Vec<Rule>, mut store: MemoryStore, change: impl FnOnce(&mut Limits)) -> Self {
        let mut limits = Limits::default();
        change(&mut limits);
        let now = Now { ms: 1_000, wall_ms: 1_700_000_000_000 };
        let settings =
            Settings { limits, access: Access::new(rules), sys_interval_secs: 0, im: crate::im::ImSettings::default() };
        let hub = Hub::new(settings, store.open(), 7, now);
        Self { hub, store, now, quick: true, asked: vec![] }
    }

    /// Does what the hub wants done.
    pub(super) fn settle(&mut self) {
        loop {
            if let Some(effect) = self.hub.poll_effect() {
                match effect {
                    Effect::Load(load) => self.store.load(load),
                    Effect::Query(query) => self.store.query(query),
                    Effect::Authenticate(link, request) => self.asked.push((link, request)),
                    _ => {}
                }
                continue;
            }
            if self.quick
                && let Some((number, batch)) = self.hub.take_batch()
            {
                self.store.submit(number, batch);
            }
            if let Some(event) = self.store.poll() {
                self.hub.stored(self.now, event);
            } else if self.hub.deadline().is_some_and(|at| at <= self.now.ms) {
                self.hub.tick(self.now);
            } else {
                return;
            }
        }
    }

    pub(super) fn pass(&mut self, ms: u64) {
        self.now.ms += ms;
        self.now.wall_ms += ms;
        self.hub.tick(self.now);
        self.settle();
    }

    pub(super) fn open(&mut self) -> LinkId {
        let peer = Peer { address: [127, 0, 0, 1].into(), allow_anonymous: true, certificate: None, native: false };
        self.hub.open(self.now, &peer).unwrap()
    }

    pub(super) fn say(&mut self, link: LinkId, packet: &Packet<'_>) {
        self.hub.packet(self.now, link, packet, 10);
        self.settle();
    }

    /// What the broker has to say to a link, as debug texts.
    pub(super) fn hear(&mut self, link: LinkId) -> Vec<String> {
        let bytes = self.hub.output(link).to_vec();
        self.hub.wrote(self.now, link, bytes.len());
        let (mut at, mut heard) = (0, vec![]);
        while let Some((packet, size)) = decode(&bytes[at..], Version::V5, u32::MAX).unwrap() {
            heard.push(match packet {
                Packet::Publish(p) => format!("Publish {} {:?}", p.topic, p.qos),
                Packet::ConnAck(c) => format!("ConnAck {}", c.reason.0),
                Packet::Disconnect(d) => format!("Disconnect {}", d.reason.0),
                other => format!("{other:?}").split('(').next().unwrap().to_owned(),
            });
            at += size;
        }
        self.settle();
        heard
    }

    /// Everything, as often as there is more.
    pub(super) fn hear_all(&mut self, link: LinkId) -> Vec<String> {
        let mut all = vec![];
        loop {
            let more = self.hear(link);
            if more.is_empty() {
                return all;
            }
            all.extend(more);
        }
    }

    pub(super) fn join(&mut self, id: &str, expiry_secs: u32) -> LinkId {
        let link = self.open();
        self.say(link, &Packet::Connect(connect(id, &expiry(expiry_secs))));
        link
    }

    pub(super) fn gone(&mut self, link: LinkId) {
        self.hub.closed(self.now, link);
        self.settle();
    }
}

pub(super) fn expiry(secs: u32) -> Vec<u8> {
    let mut bytes = vec![];
    Property::SessionExpiryInterval(secs).encode(&mut bytes);
    bytes
}

pub(super) fn connect<'a>(client_id: &'a str, properties: &'a [u8]) -> Connect<'a> {
    Connect {
        version: Version::V5,
        clean_start: false,
        keep_alive_secs: 60_000,
        properties: Properties::from_validated(properties),
        client_id,
        will: None,
        username: None,
        password: None,
    }
}

pub(super) fn id(value: u16) -> PacketId {
    PacketId::new(value).unwrap()
}

pub(super) fn publish<'a>(topic: &'a str, qos: u8, packet_id: u16, payload: &'a [u8]) -> Publish<'a> {
    let qos = QoS::from_bits(qos).unwrap();
    let packet_id = PacketId::new(packet_id);
    Publish { dup: false, qos, retain: false, topic, packet_id, properties: Properties::EMPTY, payload }
}

pub(super) fn subscribe(house: &mut House, link: LinkId, filter: &str, qos: u8) {
    let options = SubscriptionOptions {
        qos: QoS::from_bits(qos).unwrap(),
        no_local: false,
        retain_as_published: false,
        retain_handling: RetainHandling::SendAtSubscribe,
    };
    let list = [(filter, options)];
    let filters = SubscribeFilters::from_slice(&list);
    house.say(link, &Packet::Subscribe(Subscribe { packet_id: id(1), properties: Properties::EMPTY, filters }));
}

pub(super) fn ack(packet_id: u16) -> Ack<'static> {
    Ack { packet_id: id(packet_id), reason: ReasonCode::SUCCESS, properties: Properties::EMPTY }
}

#[test]
fn who_is_taken_over_while_its_connack_waits_for_the_disk_hears_nothing_more() {
    let mut house = House::new(|_| ());
    house.quick = false;
    let first = house.join("c", 100);
    let second = house.join("c", 100);
    house.quick = true;
    house.settle();
    assert_eq!(house.hear(first), [""; 0]);
    assert_eq!(house.hear(second), ["ConnAck 0"]);
    // A second CONNECT on the first must find no session: it has none.
    house.say(first, &Packet::PingReq);
    assert_eq!(house.hear(first), [""; 0]);
}

/// DISCONNECT has no reason code for versions.
#[test]
fn a_second_connect_of_an_unknown_version_is_a_protocol_error() {
    let mut house = House::new(|_| ());
    let link = house.join("c", 100);
    let error = decode(b"\x10\x0d\x00\x04MQTT\x09\x02\x00\x00\x00\x01c", Version::V5, u32::MAX).unwrap_err();
    assert_eq!(error.kind(), "unsupported_version");
    house.hub.malformed(house.now, link, &error, None);
    assert_eq!(house.hear(link), ["ConnAck 0", "Disconnect 130"]);
}

/// [MQTT5-3.14.4-1]
#[test]
fn nothing_follows_a_disconnect() {
    let mut house = House::new(|_| ());
    let link = house.join("c", 100);
    assert_eq!(house.hear(link), ["ConnAck 0"]);
    house.quick = false;
    subscribe(&mut house, link, "t", 1);
    house.say(link, &Packet::Publish(publish("t", 1, 5, b"x")));
    house.hub.stop(house.now);
    house.quick = true;
    house.settle();
    assert_eq!(house.hear(link), ["Disconnect 139"]);
}

#[test]
fn a_client_that_reads_none_of_its_answers_is_not_read() {
    let mut house = House::new(|l| l.output_bytes_max = 16_384);
    let link = house.join("c", 0);
    let mut said = 0;
    while house.hub.may_read(link) {
        house.say(link, &Packet::PingReq);
        said += 1;
        assert!(said < 20_000, "two bytes each, for ever");
    }
    house.hear_all(link);
    assert!(house.hub.may_read(link));
}

#[test]
fn subscriptions_that_wait_for_the_disk_stop_their_client() {
    let mut house = House::new(|l| l.receive_max = 10);
    let link = house.join("c", 100);
    house.quick = false;
    let mut said = 0;
    while house.hub.may_read(link) {
        subscribe(&mut house, link, "t", 0);
        said += 1;
        assert!(said <= 10);
    }
    house.quick = true;
    house.settle();
    assert!(house.hub.may_read(link));
    assert_eq!(house.hear(link).iter().filter(|p| *p == "SubAck").count(), said);
}

#[test]
fn a_storm_of_reconnections_leaves_no_heap_of_deadlines() {
    let mut house = House::new(|_| ());
    for _ in 0..TIMERS_LEAST * 5 {
        let link = house.open();
        let properties = expiry(2_000_000);
        let mut delay = vec![];
        Property::WillDelayInterval(600_000).encode(&mut delay);
        let will = Will {
            qos: QoS::AtMostOnce,
            retain: false,
            properties: Properties::from_validated(&delay),
            topic: "w",
            payload: b"",
        };
        house.say(link, &Packet::Connect(Connect { will: Some(will), ..connect("c", &properties) }));
        house.gone(link);
    }
    assert!(house.hub.timers.len() <= TIMERS_LEAST, "{}", house.hub.timers.len());
    // Those that count are still there.
    house.pass(600_000_000);
    assert_eq!(house.hub.counters().wills, 1);
    house.pass(2_000_000_000);
    assert_eq!(house.hub.totals().sessions, 0);
}

#[test]
fn a_clock_put_back_keeps_neither_session_nor_will() {
    let mut house = House::new(|_| ());
    let link = house.join("c", 10);
    house.gone(link);
    house.now.wall_ms -= 5_000;
    house.pass(10_000);
    assert_eq!(house.hub.totals().sessions, 0);
}

pub(super) fn retain(house: &mut House, link: LinkId, topic: &str) {
    house.say(link, &Packet::Publish(Publish { retain: true, ..publish(topic, 0, 0, b"x") }));
}

#[test]
fn asking_for_everything_again_and_again_queues_it_once() {
    let mut house = House::new(|_| ());
    let link = house.join("p", 0);
    for n in 0..3_000 {
        retain(&mut house, link, &format!("t/{n:04}"));
    }
    for (name, expiry, qos) in [("a", 0, 0), ("b", 0, 1), ("c", 100, 1), ("d", 100, 0)] {
        let reader = house.join(name, expiry);
        let waiting = |house: &House| {
            let key = house.hub.find_session(name).unwrap();
            house.hub.sessions[key as usize].flow.as_ref().map_or(0, |f| f.waiting.len())
        };
        // It does not read.
        for _ in 0..50 {
            subscribe(&mut house, reader, "#", qos);
            subscribe(&mut house, reader, "t/#", qos);
        }
        assert!(waiting(&house) <= 512, "{name}: {}", waiting(&house));
        assert!(house.hub.totals().queue_messages <= 2_000, "{name}");
        let heard = house.hear_all(reader);
        let got: std::collections::BTreeSet<&String> = heard.iter().filter(|p| p.starts_with("Publish")).collect();
        assert_eq!(got.len(), 3_000, "{name}");
        house.gone(reader);
    }
}

#[test]
fn every_retained_message_comes_once_and_in_order_when_read() {
    let mut house = House::new(|_| ());
    let link = house.join("p", 0);
    for n in 0..1_000 {
        retain(&mut house, link, &format!("t/{n:04}"));
    }
    let reader = house.join("r", 100);
    house.hear_all(reader);
    subscribe(&mut house, reader, "t/+", 0);
    let heard = house.hear_all(reader);
    assert_eq!(heard[0], "SubAck");
    let expect: Vec<String> = (0..1_000).map(|n| format!("Publish t/{n:04} AtMostOnce")).collect();
    assert_eq!(heard[1..], expect);
}

#[test]
fn a_look_through_all_retained_topics_leaves_room_for_others() {
    let mut house = House::new(|_| ());
    let link = house.join("p", 0);
    for n in 0..10_000 {
        retain(&mut house, link, &format!("t/{n}"));
    }
    retain(&mut house, link, "t/9/last");
    let reader = house.join("r", 0);
    house.hear_all(reader);
    let options = SubscriptionOptions {
        qos: QoS::AtMostOnce,
        no_local: false,
        retain_as_published: false,
        retain_handling: RetainHandling::SendAtSubscribe,
    };
    let list = [("+/+/last", options), ("+/+/none", options)];
    let filters = SubscribeFilters::from_slice(&list);
    let subscribe = Packet::Subscribe(Subscribe { packet_id: id(1), properties: Properties::EMPTY, filters });
    house.hub.packet(house.now, reader, &subscribe, 10);
    let mut turns = 0;
    while house.hub.deadline().is_some_and(|at| at <= house.now.ms) {
        house.hub.tick(house.now);
        turns += 1;
    }
    assert!((3..8).contains(&turns), "{turns}");
    assert_eq!(house.hear_all(reader), ["SubAck", "Publish t/9/last AtMostOnce"]);
}

#[test]
fn a_will_is_retained_only_where_there_is_room() {
    let mut house = House::new(|l| l.retained_messages_max = 1);
    let link = house.join("p", 0);
    retain(&mut house, link, "first");
    let link = house.open();
    let will =
        Will { qos: QoS::AtMostOnce, retain: true, properties: Properties::EMPTY, topic: "second", payload: b"x" };
    house.say(link, &Packet::Connect(Connect { will: Some(will), ..connect("w", &[]) }));
    house.gone(link);
    assert_eq!(house.hub.totals().retained_messages, 1);
    assert_eq!(house.hub.counters().wills, 1);
    assert_eq!(house.hub.counters().limits.count("retained_messages_max"), 1);
}

fn staff_only() -> Vec<Rule> {
    vec![Rule::parse("group:staff", "all", "allow", "#").unwrap()]
}

pub(super) fn join_as(house: &mut House, client_id: &str, account: &str, groups: &[&str]) -> LinkId {
    let link = house.open();
    let properties = expiry(1_000);
    house.say(link, &Packet::Connect(Connect { username: Some(account), ..connect(client_id, &properties) }));
    let (link, request) = house.asked.pop().unwrap();
    let groups = groups.iter().map(ToString::to_string).collect();
    let answer = AuthAnswer::Accept { account: account.to_owned(), groups, expires_at_ms: None, data: None };
    house.hub.authenticated(house.now, link, request.exchange, answer);
    house.settle();
    link
}

/// The groups of an account are known when it connects; until then nothing that its rights may cover is lost.
#[test]
fn rights_that_come_from_a_group_outlast_a_restart() {
    let mut house = House::with_rules(staff_only(), MemoryStore::new(), |_| ());
    let alice = join_as(&mut house, "alice", "alice", &["staff"]);
    subscribe(&mut house, alice, "t", 1);
    assert_eq!(house.hear(alice), ["ConnAck 0", "SubAck"]);
    house.gone(alice);
    let mut house = House::with_rules(staff_only(), house.store, |_| ());
    let bob = join_as(&mut house, "bob", "bob", &["staff"]);
    house.say(bob, &Packet::Publish(publish("t", 1, 1, b"x")));
    let mut again = House::with_rules(staff_only(), house.store.clone(), |_| ());
    let alice = join_as(&mut house, "alice", "alice", &["staff"]);
    assert_eq!(house.hear(alice), ["ConnAck 0", "Publish t AtLeastOnce"]);
    // Who is not in the group any more gets nothing, queued or new.
    let alice = join_as(&mut again, "alice", "alice", &[]);
    let bob = join_as(&mut again, "bob", "bob", &["staff"]);
    again.say(bob, &Packet::Publish(publish("t", 1, 2, b"y")));
    assert_eq!(again.hear(alice), ["ConnAck 0"]);
}

#[test]
fn a_will_whose_right_was_lost_is_not_sent_even_after_a_clean_start() {
    let mut house = House::with_rules(staff_only(), MemoryStore::new(), |_| ());
    let first = join_as(&mut house, "w", "alice", &["staff"]);
    house.gone(first);
    let link = house.open();
    let will = Will { qos: QoS::AtMostOnce, retain: false, properties: Properties::EMPTY, topic: "w", payload: b"x" };
    let clean = Connect { clean_start: true, will: Some(will), username: Some("alice"), ..connect("w", &[]) };
    house.say(link, &Packet::Connect(clean));
    let (link, request) = house.asked.pop().unwrap();
    let groups = vec!["staff".to_owned()];
    let answer = AuthAnswer::Accept { account: "alice".to_owned(), groups, expires_at_ms: None, data: None };
    house.hub.authenticated(house.now, link, request.exchange, answer);
    house.settle();
    let nobody = vec![Rule::parse("group:other", "all", "allow", "#").unwrap()];
    let settings = Settings {
        limits: Limits::default(),
        access: Access::new(nobody),
        sys_interval_secs: 0,
        im: crate::im::ImSettings::default(),
    };
    house.hub.reload(house.now, settings);
    house.gone(link);
    assert_eq!(house.hub.counters().wills, 0);
    assert_eq!((house.hub.who.len(), house.hub.terminals.len()), (0, 0), "nothing is left of the account");
}

#[test]
fn many_topics_with_many_readers_do_not_fill_the_memory() {
    let mut house = House::new(|_| ());
    for n in 0..1_000 {
        let link = house.join(&format!("s{n}"), 0);
        subscribe(&mut house, link, "#", 0);
    }
    let link = house.join("p", 0);
    for n in 0..800 {
        house.hub.find_route(Some(link.slot), &format!("t/{n}"));
    }
    assert!(house.hub.routes_bytes <= super::ROUTES_BYTES);
    let kept: usize = house.hub.routes.values().map(|(_, r)| r.recipients.len()).sum();
    assert!(kept < 600_000, "{kept} recipients are remembered");
    assert!(house.hub.links[link.slot as usize].extra.as_ref().is_none_or(|e| e.routes.is_empty()));
}

#[test]
fn a_lower_limit_binds_only_those_who_were_told() {
    let mut house = House::new(|_| ());
    let link = house.join("p", 0);
    house.quick = false;
    let reader = house.join("r", 0);
    subscribe(&mut house, reader, "t", 1);
    let limits = Limits { receive_max: 1, topic_alias_max: 1, ..Limits::default() };
    house.hub.reload(
        house.now,
        Settings { limits, access: Access::new(vec![]), sys_interval_secs: 0, im: crate::im::ImSettings::default() },
    );
    for n in 1..=5 {
        house.say(link, &Packet::Publish(publish("t", 2, n, b"x")));
    }
    let mut alias = vec![];
    Property::TopicAlias(60).encode(&mut alias);
    let properties = Properties::from_validated(&alias);
    house.say(link, &Packet::Publish(Publish { properties, ..publish("t", 0, 0, b"x") }));
    let heard = house.hear(link);
    assert_eq!(heard.iter().filter(|p| *p == "PubRec").count(), 5, "{heard:?}");
    assert!(!heard.iter().any(|p| p.starts_with("Disconnect")), "{heard:?}");
}

#[test]
fn a_client_is_asked_for_one_step_of_authentication_at_a_time() {
    use parlor_protocol::mqtt::Auth;
    let mut house = House::new(|l| l.auth_waiting_max = 2);
    let mut method = vec![];
    Property::AuthenticationMethod("M").encode(&mut method);
    let properties = Properties::from_validated(&method);
    let mut links = vec![];
    // Those that owe us their next step do not count as waiting for us.
    for n in 0..5 {
        let link = house.open();
        house.say(link, &Packet::Connect(Connect { properties, ..connect(&format!("c{n}"), &[]) }));
        let (link, request) = house.asked.pop().unwrap();
        let answer = AuthAnswer::Continue { data: vec![1] };
        house.hub.authenticated(house.now, link, request.exchange, answer);
        house.settle();
        links.push(link);
    }
    let auth = Packet::Auth(Auth { reason: ReasonCode::CONTINUE_AUTHENTICATION, properties });
    house.say(links[0], &auth);
    assert_eq!(house.asked.len(), 1);
    house.say(links[0], &auth);
    assert_eq!(house.asked.len(), 1);
    assert!(house.hear(links[0]).contains(&"ConnAck 130".to_owned()));
    for link in links {
        house.gone(link);
    }
    assert_eq!(house.hub.authenticating, 0);
}

#[test]
fn what_is_sent_again_after_a_right_was_lost_is_not_sent() {
    let mut house = House::new(|_| ());
    let reader = house.join("r", 100);
    subscribe(&mut house, reader, "t", 1);
    let link = house.join("p", 0);
    house.say(link, &Packet::Publish(publish("t", 1, 1, b"x")));
    assert_eq!(house.hear(reader), ["ConnAck 0", "SubAck", "Publish t AtLeastOnce"]);
    house.gone(reader);
    let rules = vec![Rule::parse("everybody", "publish", "allow", "#").unwrap()];
    let settings = Settings {
        limits: Limits::default(),
        access: Access::new(rules),
        sys_interval_secs: 0,
        im: crate::im::ImSettings::default(),
    };
    house.hub.reload(house.now, settings);
    let reader = house.join("r", 100);
    assert_eq!(house.hear(reader), ["ConnAck 0"]);
    assert_eq!(house.hub.totals().queue_messages, 0);
}

#[test]
fn a_client_that_was_not_read_is_not_held_to_its_keep_alive_meanwhile() {
    let mut house = House::new(|l| l.receive_max = 1);
    let link = house.open();
    let properties = expiry(100);
    house.say(link, &Packet::Connect(Connect { keep_alive_secs: 10, ..connect("c", &properties) }));
    house.quick = false;
    house.say(link, &Packet::Publish(Publish { retain: true, ..publish("t", 1, 1, b"x") }));
    assert!(!house.hub.may_read(link));
    house.pass(14_990);
    house.quick = true;
    house.settle();
    assert!(house.hub.may_read(link));
    house.pass(20);
    assert_eq!(house.hear(link), ["ConnAck 0", "PubAck"]);
}

#[test]
fn sys_topics_begin_with_a_reload_that_asks_for_them() {
    let mut house = House::new(|_| ());
    for secs in [10, 0, 10] {
        let settings = Settings {
            limits: Limits::default(),
            access: Access::new(vec![]),
            sys_interval_secs: secs,
            im: crate::im::ImSettings::default(),
        };
        house.hub.reload(house.now, settings);
    }
    assert_eq!(house.hub.timers.len(), 1);
    house.pass(1);
    let reader = house.join("r", 0);
    subscribe(&mut house, reader, "$SYS/broker/version", 0);
    assert_eq!(house.hear_all(reader), ["ConnAck 0", "SubAck", "Publish $SYS/broker/version AtMostOnce"]);
}

/// QoS 2 towards a client, cut off at each step: never twice once PUBREC was said.
#[test]
fn a_delivery_goes_on_where_it_was_cut_off() {
    for committed in [false, true] {
        let mut house = House::new(|_| ());
        let reader = house.join("r", 100);
        subscribe(&mut house, reader, "t", 2);
        let link = house.join("p", 0);
        for n in 1..=3 {
            house.say(link, &Packet::Publish(publish("t", 1, n, b"x")));
            house.say(link, &Packet::Publish(publish("t", 2, n + 10, b"x")));
        }
        let heard = house.hear(reader);
        assert_eq!(heard.iter().filter(|p| *p == "Publish t ExactlyOnce").count(), 3);
        house.quick = committed;
        house.say(reader, &Packet::PubRec(ack(2)));
        house.say(reader, &Packet::PubAck(ack(3)));
        let reader = house.join("r", 100);
        house.quick = true;
        house.settle();
        let heard = house.hear(reader);
        let expect = ["ConnAck 0", "Publish t AtLeastOnce", "PubRel"];
        assert_eq!(heard[..3], expect, "{heard:?}");
        assert_eq!(heard.len(), 6, "{heard:?}");
        for n in [4, 6] {
            house.say(reader, &Packet::PubRec(ack(n)));
            house.say(reader, &Packet::PubComp(ack(n)));
        }
        for n in [1, 5] {
            house.say(reader, &Packet::PubAck(ack(n)));
        }
        house.say(reader, &Packet::PubComp(ack(2)));
        let key = house.hub.find_session("r").unwrap();
        let s = &house.hub.sessions[key as usize];
        let (flow, durable) = (s.flow.as_ref().unwrap(), s.durable.as_ref().unwrap());
        assert_eq!((flow.in_flight, flow.slots.len(), flow.head), (0, 0, 6));
        assert_eq!((durable.queued, durable.queued_bytes), (0, 0));
        let goodbye = Disconnect { reason: ReasonCode::SUCCESS, properties: Properties::EMPTY };
        house.say(reader, &Packet::Disconnect(goodbye));
        assert_eq!(house.store.snapshot().sessions[0].queued, 0);
    }
}

#[test]
fn what_has_expired_makes_room_for_what_is_to_be_retained() {
    let mut house = House::new(|l| l.retained_messages_max = 2);
    let link = house.join("p", 0);
    let mut soon = vec![];
    Property::MessageExpiryInterval(5).encode(&mut soon);
    let properties = Properties::from_validated(&soon);
    for topic in ["a", "b"] {
        house.say(link, &Packet::Publish(Publish { retain: true, properties, ..publish(topic, 0, 0, b"x") }));
    }
    house.pass(6_000);
    retain(&mut house, link, "c");
    let mut kept = vec![];
    house.hub.visit_retained("#", |r| kept.push(r.topic.to_owned()));
    assert_eq!(kept, ["c"]);
    assert_eq!(house.store.snapshot().retained.len(), 1);
}

#[test]
fn a_group_passes_over_a_member_whose_queue_is_full() {
    let mut house = House::new(|l| l.queue_messages_max = 2);
    let full = house.join("full", 100);
    subscribe(&mut house, full, "$share/g/t", 1);
    let link = house.join("p", 0);
    for n in 1..=2 {
        house.say(link, &Packet::Publish(publish("t", 1, n, b"x")));
    }
    let other = house.join("other", 100);
    subscribe(&mut house, other, "$share/g/t", 1);
    for n in 3..=4 {
        house.say(link, &Packet::Publish(publish("t", 1, n, b"x")));
    }
    let heard = house.hear_all(other);
    assert_eq!(heard.iter().filter(|p| p.starts_with("Publish")).count(), 2, "{heard:?}");
    assert_eq!(house.hub.counters().dropped.count("queue_full"), 0);
}

#[test]
fn an_alias_is_given_only_in_a_packet_that_reaches_the_client() {
    let mut house = House::new(|_| ());
    let link = house.join("p", 0);
    for packet_max in 125..140 {
        for payload in packet_max - 20..packet_max {
            let mut properties = vec![];
            Property::TopicAliasMaximum(5).encode(&mut properties);
            Property::MaximumPacketSize(packet_max).encode(&mut properties);
            let reader = house.open();
            house.say(reader, &Packet::Connect(connect("r", &properties)));
            subscribe(&mut house, reader, "t", 0);
            house.hear(reader);
            house.say(link, &Packet::Publish(publish("t", 0, 0, &vec![0; payload as usize])));
            let first = house.hear(reader);
            house.say(link, &Packet::Publish(publish("t", 0, 0, b"x")));
            // Either the client got the alias with the first, or it gets it now.
            if first.is_empty() {
                assert_eq!(house.hear(reader), ["Publish t AtMostOnce"], "{packet_max} {payload}");
            }
            house.gone(reader);
        }
    }
}
