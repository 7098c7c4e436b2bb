//! Which answers wait for the disk, and which must not: one by one, with the disk held still.

use parlor_core::access::Access;
use parlor_core::limits::Limits;
use parlor_core::store::memory::MemoryStore;
use parlor_core::store::{Store, StoreEvent};
use parlor_core::{Hub, LinkId, Now, Peer, Settings};
use parlor_protocol::mqtt::{Version, decode, frame_len};
use parlor_tests::raw::{self, AckKind, Connect, Publish, V5, V311, prop};
use std::net::{IpAddr, Ipv4Addr};

const NOW: Now = Now { ms: 0, wall_ms: 1_800_000_000_000 };

/// A hub with a disk that does nothing until it is told to.
struct Bench {
    hub: Hub,
    store: MemoryStore,
    held: Vec<StoreEvent>,
}

impl Bench {
    fn new() -> Self {
        let mut store = MemoryStore::new();
        let snapshot = store.open();
        let settings = Settings {
            limits: Limits::default(),
            access: Access::default(),
            sys_interval_secs: 0,
            im: parlor_core::ImSettings::default(),
        };
        Self { hub: Hub::new(settings, snapshot, 1, NOW), store, held: vec![] }
    }

    fn open(&mut self) -> LinkId {
        let peer =
            Peer { address: IpAddr::V4(Ipv4Addr::LOCALHOST), allow_anonymous: true, certificate: None, native: false };
        self.hub.open(NOW, &peer).expect("there is room for a connection")
    }

    /// Hands packets in: how many bytes the hub has written to the disk for them.
    fn send(&mut self, link: LinkId, version: raw::Version, bytes: &[u8]) -> usize {
        let version = if version == V5 { Version::V5 } else { Version::V311 };
        let mut at = 0;
        while let Some((packet, size)) = decode(&bytes[at..], version, u32::MAX).expect("a good packet") {
            self.hub.packet(NOW, link, &packet, size);
            at += size;
        }
        assert_eq!(at, bytes.len());
        let Some((number, batch)) = self.hub.take_batch() else { return 0 };
        let written = batch.bytes.len();
        self.store.submit(number, batch);
        while let Some(event) = self.store.poll() {
            self.held.push(event);
        }
        written
    }

    /// The disk is done.
    fn commit(&mut self) {
        loop {
            for event in std::mem::take(&mut self.held) {
                self.hub.stored(NOW, event);
            }
            let Some((number, batch)) = self.hub.take_batch() else { return };
            self.store.submit(number, batch);
            while let Some(event) = self.store.poll() {
                self.held.push(event);
            }
        }
    }

    /// Types of the packets that wait for the client.
    fn heard(&mut self, link: LinkId) -> Vec<u8> {
        let out = self.hub.output(link).to_vec();
        self.hub.wrote(NOW, link, out.len());
        let mut kinds = vec![];
        let mut at = 0;
        while let Some(len) = frame_len(&out[at..]).expect("whole packets").filter(|_| at < out.len()) {
            kinds.push(out[at] >> 4);
            at += len;
        }
        kinds
    }

    /// A client that is in, the disk being quick.
    fn client(&mut self, connect: &Connect) -> LinkId {
        let link = self.open();
        self.send(link, V311, &connect.bytes());
        self.commit();
        assert_eq!(self.heard(link), [CONNACK]);
        link
    }

    fn subscribe(&mut self, link: LinkId, filter: &str, qos: u8) {
        self.send(link, V311, &subscribe(filter, qos));
        self.commit();
        assert_eq!(self.heard(link), [SUBACK]);
    }

    /// These bytes are answered by this packet, and only when the disk is done.
    fn waits(&mut self, what: &str, link: LinkId, version: raw::Version, bytes: &[u8], answer: u8) {
        assert!(self.send(link, version, bytes) > 0, "{what}: nothing was written");
        assert!(self.heard(link).is_empty(), "{what} was answered before it was on disk");
        self.commit();
        assert_eq!(self.heard(link), [answer], "{what}");
    }

    /// These bytes are answered by this packet at once, and nothing is written.
    fn goes(&mut self, what: &str, link: LinkId, version: raw::Version, bytes: &[u8], answer: u8) {
        assert_eq!(self.send(link, version, bytes), 0, "{what} needs no disk");
        assert_eq!(self.heard(link), [answer], "{what}");
    }
}

const CONNACK: u8 = 2;
const PUBACK: u8 = 4;
const PUBREC: u8 = 5;
const PUBCOMP: u8 = 7;
const SUBACK: u8 = 9;
const UNSUBACK: u8 = 11;

fn subscribe(filter: &str, qos: u8) -> Vec<u8> {
    raw::frame(0x82, [&[0, 1], raw::field(filter).as_slice(), &[qos]].concat())
}

fn unsubscribe(filter: &str) -> Vec<u8> {
    raw::frame(0xA2, [&[0, 2], raw::field(filter).as_slice()].concat())
}

fn keeper(name: &str) -> Connect {
    Connect::v311(name).resume()
}

#[test]
fn what_is_promised_beyond_the_connection_waits_for_the_disk() {
    let mut b = Bench::new();
    let link = b.open();
    b.waits("CONNECT with a session that stays", link, V311, &keeper("a").bytes(), CONNACK);
    b.waits("its SUBSCRIBE", link, V311, &subscribe("t/#", 2), SUBACK);

    let publisher = b.client(&Connect::v311("p"));
    let qos1 = Publish::new("t/1", "x").qos(1, 5).bytes(V311);
    b.waits("QoS 1 for such a session", publisher, V311, &qos1, PUBACK);
    assert_eq!(b.heard(link), [3], "the delivery");
    let qos2 = Publish::new("t/1", "x").qos(2, 6).bytes(V311);
    b.waits("QoS 2 for such a session", publisher, V311, &qos2, PUBREC);
    let kept = Publish::new("kept", "x").qos(1, 7).retain().bytes(V311);
    b.waits("a retained message", publisher, V311, &kept, PUBACK);

    let twice = b.client(&keeper("q"));
    let unheard = Publish::new("nobody", "x").qos(2, 8).bytes(V311);
    b.waits("the identifier of a QoS 2 message", twice, V311, &unheard, PUBREC);
    let release = raw::frame(AckKind::PubRel as u8, [0, 8]);
    b.waits("its release", twice, V311, &release, PUBCOMP);

    assert_eq!(b.heard(link), [3], "the second delivery");
    b.waits("UNSUBSCRIBE of a session that stays", link, V311, &unsubscribe("t/#"), UNSUBACK);

    let link = b.open();
    let will = Connect::v311("w").will(Publish::new("t/will", "gone").qos(1, 0));
    b.waits("CONNECT with a will", link, V311, &will.bytes(), CONNACK);

    // A discarded session must not come back after a power cut [MQTT5-3.1.2-4] [MQTT3-3.1.2-6].
    let link = b.open();
    b.waits("CONNECT that discards a session", link, V311, &Connect::v311("a").bytes(), CONNACK);
    let v5 = b.open();
    let lasting = Connect::v5("five").with(prop::session_expiry(60_u32));
    b.waits("CONNECT with a session that stays for a while", v5, V5, &lasting.bytes(), CONNACK);
}

#[test]
fn what_ends_with_the_connection_never_touches_the_disk() {
    let mut b = Bench::new();
    let link = b.open();
    b.goes("CONNECT with a clean session", link, V311, &Connect::v311("a").bytes(), CONNACK);
    b.goes("its SUBSCRIBE", link, V311, &subscribe("t/#", 2), SUBACK);
    let publisher = b.client(&Connect::v311("p"));
    b.goes("QoS 1", publisher, V311, &Publish::new("t/1", "x").qos(1, 5).bytes(V311), PUBACK);
    b.goes("QoS 2", publisher, V311, &Publish::new("t/1", "x").qos(2, 6).bytes(V311), PUBREC);
    b.goes("PUBREL", publisher, V311, &raw::frame(AckKind::PubRel as u8, [0, 6]), PUBCOMP);
    assert_eq!(b.heard(link), [3, 3], "the deliveries");
    b.goes("UNSUBSCRIBE", link, V311, &unsubscribe("t/#"), UNSUBACK);
    // QoS 0 for a session that stays.
    let keeper = b.client(&keeper("k"));
    b.subscribe(keeper, "zero", 1);
    assert_eq!(b.send(publisher, V311, &Publish::new("zero", "x").bytes(V311)), 0, "QoS 0 needs no disk");
    assert_eq!(b.heard(keeper), [3]);
}
