//! What whole worlds found, each in its smallest form: a hub whose disk stands still until it is told to go on.

use parlor_core::access::Access;
use parlor_core::auth::AuthAnswer;
use parlor_core::limits::Limits;
use parlor_core::store::memory::MemoryStore;
use parlor_core::store::{Batch, BatchNo, Query, StoreEvent};
use parlor_core::{Effect, Hub, ImSettings, LinkId, Now, Peer, Settings};
use parlor_protocol::mqtt::{
    Ack, Connect, Packet, PacketId, Properties, Publish, QoS, ReasonCode, RetainHandling, Subscribe, SubscribeFilters,
    SubscriptionOptions, Version, decode,
};
use serde_json::Value;
use std::net::{IpAddr, Ipv4Addr};

const EVERYTHING: &[&str] = &["im/v1/me/in/#", "im/v1/me/sent", "im/v1/me/+/res"];

/// A hub, and what it has given to the disk.
struct Bench {
    hub: Hub,
    store: MemoryStore,
    waiting: Option<(BatchNo, Batch)>,
    limits: Limits,
    now: Now,
    next_id: u16,
    /// Questions are answered at once; otherwise they wait.
    is_disk_read: bool,
    questions: Vec<Query>,
}

/// Something a client heard.
#[derive(Debug)]
enum Heard {
    Publish(String, Value, Option<PacketId>),
    /// True: yes.
    PubAck(bool),
    SubAck,
    Other,
}

impl Bench {
    fn new(limits: Limits) -> Self {
        let mut store = MemoryStore::new();
        let now = Now { ms: 0, wall_ms: 1_800_000_000_000 };
        let hub = Self::hub(&mut store, &limits, now);
        let mut bench =
            Self { hub, store, waiting: None, limits, now, next_id: 0, is_disk_read: true, questions: vec![] };
        for (one, other) in [("alice", "bob"), ("alice", "carol")] {
            for name in [one, other] {
                bench.hub.describe_account(now, name, "person", None, 0);
            }
            bench.hub.act(now, one, &format!("me/contact/{other}"), br#"{"op":"request"}"#, 0);
            bench.hub.act(now, other, &format!("me/contact/{one}"), br#"{"op":"accept"}"#, 0);
        }
        bench.commit();
        bench
    }

    fn hub(store: &mut MemoryStore, limits: &Limits, now: Now) -> Hub {
        let settings = Settings {
            limits: limits.clone(),
            access: Access::default(),
            sys_interval_secs: 0,
            im: ImSettings::default(),
        };
        Hub::new(settings, store.open(), 1, now)
    }

    /// The power fails: what the disk had not got is gone.
    fn crash(&mut self) {
        self.waiting = None;
        self.hub = Self::hub(&mut self.store, &self.limits, self.now);
    }

    /// Questions are answered with what is on disk.
    fn settle(&mut self) {
        loop {
            while let Some(effect) = self.hub.poll_effect() {
                match effect {
                    Effect::Authenticate(link, request) => {
                        let account = request.username.expect("everybody here has a name");
                        let answer = AuthAnswer::Accept { account, groups: vec![], expires_at_ms: None, data: None };
                        self.hub.authenticated(self.now, link, request.exchange, answer);
                    }
                    Effect::Query(query) => self.questions.push(query),
                    _ => {}
                }
            }
            for query in self.questions.extract_if(.., |_| self.is_disk_read) {
                let answer = self.store.answer(&query);
                self.hub.stored(self.now, StoreEvent::Answer(answer));
            }
            if self.waiting.is_none() {
                self.waiting = self.hub.take_batch();
            }
            if self.hub.poll_dirty().is_none() {
                return;
            }
        }
    }

    /// The disk does what it was asked, until nothing is left.
    fn commit(&mut self) {
        self.settle();
        while let Some((number, batch)) = self.waiting.take() {
            self.store.apply(&batch).expect("the hub's own bytes");
            self.hub.stored(self.now, StoreEvent::Committed(number));
            self.settle();
        }
    }

    /// Time passes, and the disk keeps up with it.
    fn pass(&mut self, ms: u64) {
        self.now = Now { ms: self.now.ms + ms, wall_ms: self.now.wall_ms + ms };
        self.hub.tick(self.now);
        self.commit();
    }

    fn send(&mut self, link: LinkId, packet: &Packet<'_>) {
        let mut bytes = vec![];
        packet.encode(Version::V5, &mut bytes);
        let (packet, size) = decode(&bytes, Version::V5, u32::MAX).expect("a good packet").expect("a whole one");
        self.hub.packet(self.now, link, &packet, size);
        self.settle();
    }

    /// What waits for a client.
    fn heard(&mut self, link: LinkId) -> Vec<Heard> {
        let out = self.hub.output(link).to_vec();
        self.hub.wrote(self.now, link, out.len());
        self.settle();
        let mut heard = vec![];
        let mut at = 0;
        while let Some((packet, size)) = decode(&out[at..], Version::V5, u32::MAX).expect("good packets") {
            at += size;
            heard.push(match packet {
                Packet::Publish(p) => {
                    let value = serde_json::from_slice(p.payload).expect("JSON");
                    Heard::Publish(p.topic.strip_prefix("im/v1/me/").expect("its own").to_owned(), value, p.packet_id)
                }
                Packet::PubAck(a) => Heard::PubAck(!a.reason.is_error()),
                Packet::SubAck(_) => Heard::SubAck,
                _ => Heard::Other,
            });
        }
        heard
    }

    /// What a client heard on this topic; everything is acknowledged.
    fn on(&mut self, link: LinkId, topic: &str) -> Vec<Value> {
        let mut values = vec![];
        loop {
            let heard = self.heard(link);
            if heard.is_empty() {
                return values;
            }
            for heard in heard {
                let Heard::Publish(on, value, packet_id) = heard else { continue };
                if on == topic {
                    values.push(value);
                }
                if let Some(packet_id) = packet_id {
                    self.acknowledge(link, packet_id);
                }
            }
        }
    }

    fn acknowledge(&mut self, link: LinkId, packet_id: PacketId) {
        let ack = Ack { packet_id, reason: ReasonCode::SUCCESS, properties: Properties::EMPTY };
        self.send(link, &Packet::PubAck(ack));
    }

    fn id(&mut self) -> PacketId {
        self.next_id += 1;
        PacketId::new(self.next_id).expect("not 0")
    }

    /// A connection with a new session.
    fn connect(&mut self, account: &str, device: &str) -> LinkId {
        let client_id = &format!("{account}-{device}");
        let peer =
            Peer { address: IpAddr::V4(Ipv4Addr::LOCALHOST), allow_anonymous: true, certificate: None, native: false };
        let link = self.hub.open(self.now, &peer).expect("there is room");
        self.send(
            link,
            &Packet::Connect(Connect {
                version: Version::V5,
                clean_start: true,
                keep_alive_secs: 0,
                properties: Properties::EMPTY,
                client_id,
                will: None,
                username: Some(account),
                password: Some(b"secret"),
            }),
        );
        self.heard(link);
        link
    }

    fn subscribe(&mut self, link: LinkId, filters: &[&str]) {
        let packet_id = self.id();
        let options = SubscriptionOptions {
            qos: QoS::AtLeastOnce,
            no_local: false,
            retain_as_published: false,
            retain_handling: RetainHandling::SendAtSubscribe,
        };
        let list: Vec<_> = filters.iter().map(|filter| (*filter, options)).collect();
        let filters = SubscribeFilters::from_slice(&list);
        self.send(link, &Packet::Subscribe(Subscribe { packet_id, properties: Properties::EMPTY, filters }));
    }

    /// A terminal that is there and has got everything.
    fn terminal(&mut self, account: &str, client_id: &str) -> LinkId {
        let link = self.connect(account, client_id);
        self.subscribe(link, EVERYTHING);
        self.commit();
        self.on(link, "");
        self.commit();
        link
    }

    fn publish(&mut self, link: LinkId, path: &str, payload: &str) {
        let packet_id = Some(self.id());
        self.send(
            link,
            &Packet::Publish(Publish {
                dup: false,
                qos: QoS::AtLeastOnce,
                retain: false,
                topic: &format!("im/v1/{path}"),
                packet_id,
                properties: Properties::EMPTY,
                payload: payload.as_bytes(),
            }),
        );
    }

    /// The same, and the disk keeps up.
    fn say(&mut self, link: LinkId, path: &str, payload: &str) {
        self.publish(link, path, payload);
        self.commit();
    }

    fn is_acknowledged(&mut self, link: LinkId) -> bool {
        self.heard(link).iter().any(|heard| matches!(heard, Heard::PubAck(true)))
    }
}

fn bench() -> Bench {
    Bench::new(Limits::default())
}

fn seqs(values: &[Value]) -> Vec<u64> {
    values.iter().filter_map(|value| value["seq"].as_u64()).collect()
}

#[test]
fn a_repetition_is_not_told_the_seq_before_the_first_is_on_disk() {
    let mut b = bench();
    let alice = b.terminal("alice", "phone");
    b.publish(alice, "to/bob/msg", r#"{"text":"hi","id":"a1"}"#);
    b.publish(alice, "to/bob/msg", r#"{"text":"hi","id":"a1"}"#);
    assert!(b.on(alice, "sent").is_empty(), "nothing is on disk");
    b.commit();
    let told = b.on(alice, "sent");
    assert_eq!(seqs(&told), [1, 1]);
    assert!(told.iter().any(|value| value["dup"] == true && value.get("re").is_none()), "{told:?}");
}

#[test]
fn marks_that_are_not_on_disk_are_told_to_nobody() {
    let mut b = bench();
    let (alice, bob) = (b.terminal("alice", "phone"), b.terminal("bob", "phone"));
    b.say(alice, "to/bob/msg", "1");
    b.say(alice, "to/bob/msg", "2");
    b.on(alice, "");
    b.commit();
    // The first receipt is on disk and waits for Alice, who is away.
    b.hub.closed(b.now, alice);
    b.say(bob, "to/alice/receipt", r#"{"read":1}"#);
    // The next one is in no batch yet, since the disk is busy.
    b.publish(bob, "to/alice/msg", "3");
    b.publish(bob, "to/alice/receipt", r#"{"read":2}"#);
    let alice = b.connect("alice", "phone");
    b.subscribe(alice, EVERYTHING);
    let told = b.on(alice, "in/bob/receipt");
    assert!(told.iter().all(|value| value["read"] == 1), "{told:?}");
    b.commit();
    assert_eq!(b.on(alice, "in/bob/receipt").last().map(|value| value["read"].clone()), Some(2.into()));
}

#[test]
fn a_read_mark_is_acknowledged_only_when_it_is_on_disk_whoever_set_it() {
    let mut b = bench();
    let (alice, bob, tablet) = (b.terminal("alice", "phone"), b.terminal("bob", "phone"), b.terminal("bob", "tablet"));
    b.say(alice, "to/bob/msg", "1");
    b.on(bob, "");
    b.on(tablet, "");
    b.commit();
    b.publish(bob, "to/alice/receipt", r#"{"read":1}"#);
    b.publish(tablet, "to/alice/receipt", r#"{"read":1}"#);
    assert!(!b.is_acknowledged(bob) && !b.is_acknowledged(tablet));
    b.commit();
    assert!(b.is_acknowledged(bob) && b.is_acknowledged(tablet));
}

#[test]
fn a_place_that_was_confirmed_is_on_disk() {
    let mut b = bench();
    let alice = b.terminal("alice", "phone");
    let bob = b.connect("bob", "board");
    b.subscribe(bob, &["im/v1/me/head", "im/v1/me/+/res"]);
    b.commit();
    b.say(alice, "to/bob/msg", "1");
    b.heard(bob);
    b.publish(bob, "me/ack", r#"{"pos":2}"#);
    assert!(!b.is_acknowledged(bob), "nothing is on disk");
    b.commit();
    assert!(b.is_acknowledged(bob));
}

#[test]
fn what_was_gone_before_it_was_pulled_is_not_called_delivered() {
    for message in [r#"{"text":"1","ttl_s":1}"#, r#"{"text":"1","ttl_s":1,"notify":false}"#] {
        for is_restarted in [false, true] {
            let mut b = bench();
            let bob = b.connect("bob", "board");
            b.subscribe(bob, &["im/v1/me/head", "im/v1/me/+/res"]);
            b.commit();
            let alice = b.terminal("alice", "phone");
            b.say(alice, "to/bob/msg", message);
            b.pass(2_000);
            assert_eq!(b.on(alice, "in/bob/bounce").len(), 1, "nobody got it");
            b.pass(1_000);
            let (mut alice, mut bob) = (alice, bob);
            if is_restarted {
                b.crash();
                alice = b.terminal("alice", "phone");
                bob = b.connect("bob", "board");
            }
            b.say(bob, "me/ack", r#"{"pos":2}"#);
            assert!(b.is_acknowledged(bob), "{message} {is_restarted}");
            assert!(b.on(alice, "in/bob/receipt").is_empty(), "{message} {is_restarted}");
        }
    }
}

#[test]
fn a_gap_is_told_until_it_is_acknowledged() {
    let mut b = Bench::new(Limits { im_mailbox_entries_max: 16, ..Limits::default() });
    let (alice, bob) = (b.terminal("alice", "phone"), b.terminal("bob", "phone"));
    b.hub.closed(b.now, bob);
    for n in 0..60 {
        b.say(alice, "to/bob/msg", &n.to_string());
    }
    let gap = |heard: &[Heard]| heard.iter().any(|h| matches!(h, Heard::Publish(topic, ..) if topic == "in/bob/gap"));
    // It is told, and the connection ends before it can be acknowledged: so it is told again. The head comes first,
    // which makes a terminal of the session that is not sent its mailbox yet.
    for _ in 0..2 {
        let bob = b.connect("bob", "phone");
        b.subscribe(bob, &["im/v1/me/head", "im/v1/me/in/#"]);
        b.commit();
        assert!(gap(&b.heard(bob)));
        b.hub.closed(b.now, bob);
        b.pass(1_000);
    }
    let bob = b.terminal("bob", "phone");
    b.hub.closed(b.now, bob);
    b.pass(1_000);
    let bob = b.connect("bob", "phone");
    b.subscribe(bob, EVERYTHING);
    b.commit();
    assert!(!gap(&b.heard(bob)), "it was acknowledged");
}

#[test]
fn whoever_comes_later_hears_of_no_edit_or_recall_of_what_was_said_before() {
    let mut b = bench();
    let (alice, bob, carol) = (b.terminal("alice", "phone"), b.terminal("bob", "phone"), b.terminal("carol", "phone"));
    b.say(alice, "me/group/g-club", r#"{"op":"create","members":["bob"]}"#);
    b.say(alice, "to/g-club/msg", "before");
    let seq = seqs(&b.on(bob, "in/g-club/msg")).last().copied().expect("it came");
    b.say(alice, "me/group/g-club", r#"{"op":"add","who":"carol"}"#);
    b.say(alice, "to/g-club/edit", &format!(r#"{{"seq":{seq},"text":"still before"}}"#));
    b.say(alice, "to/g-club/recall", &format!(r#"{{"seq":{seq}}}"#));
    assert_eq!(b.on(bob, "in/g-club/recall").len(), 1);
    let heard = b.heard(carol);
    let strange = heard.iter().any(|h| matches!(h, Heard::Publish(topic, ..) if !topic.ends_with("/msg")));
    assert!(!strange, "{heard:?}");
}

#[test]
fn suback_waits_until_the_terminal_is_on_disk() {
    let mut b = bench();
    let is_answered = |heard: &[Heard]| heard.iter().any(|h| matches!(h, Heard::SubAck));
    // The second connection finds a terminal that is on its way to the disk.
    for _ in 0..2 {
        let bob = b.connect("bob", "phone");
        b.subscribe(bob, EVERYTHING);
        assert!(!is_answered(&b.heard(bob)));
    }
    let bob = b.connect("bob", "phone");
    b.subscribe(bob, EVERYTHING);
    b.commit();
    assert!(is_answered(&b.heard(bob)));
}

#[test]
fn a_new_terminal_gets_what_was_on_its_way_to_the_disk_when_it_came() {
    let mut b = bench();
    let alice = b.terminal("alice", "phone");
    b.say(alice, "to/bob/msg", "1");
    b.publish(alice, "to/bob/msg", "2");
    let bob = b.connect("bob", "phone");
    b.subscribe(bob, EVERYTHING);
    let mut got = seqs(&b.on(bob, "in/alice/msg"));
    b.commit();
    got.extend(seqs(&b.on(bob, "in/alice/msg")));
    assert_eq!(got, [1, 2]);
}

#[test]
fn pulls_that_wait_for_the_disk_are_bounded_for_each_account() {
    let mut b = Bench::new(Limits { im_pulls_per_account_max: 3, ..Limits::default() });
    let (alice, bob) = (b.terminal("alice", "phone"), b.terminal("bob", "phone"));
    b.say(alice, "to/bob/msg", "1");
    b.is_disk_read = false;
    let refused = |b: &mut Bench, link| {
        for path in ["me/sync", "me/history", "me/convs", "me/recount"] {
            b.publish(link, path, r#"{"with":"bob","after":0}"#);
        }
        let heard = b.heard(link);
        heard.iter().filter(|h| matches!(h, Heard::PubAck(false))).count()
    };
    assert_eq!((refused(&mut b, alice), refused(&mut b, alice)), (1, 4));
    b.is_disk_read = true;
    b.commit();
    assert_eq!(refused(&mut b, alice), 0, "they were answered");
    assert!(b.on(bob, "in/alice/msg").len() == 1);
}
