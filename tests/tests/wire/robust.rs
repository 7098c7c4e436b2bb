//! Hostile and unlucky input: the offender is answered and closed, nobody else notices, memory stays bounded.

use super::common::*;
use std::io::Write;
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

/// Two clients that exchange a message each time `check` is called, and quickly.
struct Bystanders {
    sub: Client,
    publisher: Client,
    topic: String,
}

impl Bystanders {
    fn new(broker: &Broker) -> Self {
        let topic = unique("t/");
        let mut sub = Connect::v5(&unique("by")).to(broker);
        sub.subscribe(&topic, 1);
        Self { sub, publisher: Connect::v311(&unique("by")).to(broker), topic }
    }

    fn check(&mut self) {
        let start = Instant::now();
        self.publisher.say(1, &self.topic, "still here");
        assert_eq!(self.sub.message().text(), "still here");
        let took = start.elapsed();
        assert!(took < Duration::from_secs(2), "a bystander waited {took:?}");
    }
}

/// Resident memory of a process of ours, KiB.
fn resident_kib(broker: &Broker) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", broker.pid())).expect("Linux tells");
    let line = status.lines().find(|l| l.starts_with("VmRSS:")).expect("VmRSS");
    line.split_whitespace().nth(1).expect("a number").parse().expect("a number")
}

/// Packets may come a byte at a time: what TCP carries is one ordered stream [MQTT5-4.2.0-1] [MQTT3-4.2.0-1].
#[test]
fn one_byte_at_a_time() {
    for version in BOTH {
        let topic = unique("t/");
        let mut c = Client::open(broker(), version);
        let mut bytes = Connect::new(version, &unique("c")).bytes();
        bytes.extend(c.subscribe_bytes(1, &[(&topic, 2)], &[]));
        bytes.extend(Publish::new(&topic, "slow but sure").qos(2, 2).bytes(version));
        bytes.extend(frame(0x62, [0, 2]));
        bytes.extend([0xC0, 0]);
        for byte in bytes {
            c.send(&[byte]);
        }
        assert!(matches!(c.recv(), Packet::ConnAck(ConnAck { code: 0, .. })));
        assert_eq!(c.await_suback(1), [2]);
        assert_eq!(c.await_ack(PubRec, 2), 0);
        assert_eq!(c.await_ack(PubComp, 2), 0);
        let got = c.find("PUBLISH", |p| if let Packet::Publish(p) = p { Some(p.clone()) } else { None });
        assert_eq!(got.text(), "slow but sure");
    }
}

/// Many packets may come in one segment, and one packet in many.
#[test]
fn many_packets_in_one_segment() {
    for version in BOTH {
        let topic = unique("t/");
        let mut sub = client(version);
        sub.subscribe(&topic, 1);
        let mut c = client(version);
        let mut bytes = Vec::new();
        for n in 1..=500_u16 {
            bytes.extend(Publish::new(&topic, n.to_string()).qos(1, n).bytes(version));
            bytes.extend([0xC0, 0]);
        }
        c.send(&bytes);
        let mut pings = 0;
        let mut acks = 0;
        for _ in 0..1_000 {
            match c.recv() {
                Packet::PingResp => pings += 1,
                Packet::Ack { kind: PubAck, id, .. } => {
                    acks += 1;
                    assert_eq!(id, acks);
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!((pings, acks), (500, 500));
        for n in 1..=500 {
            assert_eq!(sub.message().text(), n.to_string());
        }
        let large = Publish::new(&topic, vec![b'x'; 100_000]).bytes(version);
        for part in large.chunks(7_777) {
            c.send(part);
        }
        assert_eq!(sub.message().payload.len(), 100_000);
    }
}

/// A remaining length of five bytes is malformed, at once [MQTT5-1.5.5-1] (1.5.5) [MQTT3-4.8.0-1].
#[test]
fn remaining_length_has_four_bytes() {
    for version in BOTH {
        for first in [0x30, 0x82, 0xC0, 0x40] {
            let mut c = client(version);
            c.name = format!("{version:?} {first:#04x}");
            c.send(&[first, 0x80, 0x80, 0x80, 0x80]);
            c.thrown_out(&[0x81, 0x82]);
        }
        let mut c = Client::open(broker(), version);
        c.send(&[0x10, 0xFF, 0xFF, 0xFF, 0xFF, 0x7F]);
        assert!(c.rest().len() <= 5, "nothing but a refusal");
    }
}

/// Variable byte integers use no more bytes than they need: the remaining length, the property length, a
/// Subscription Identifier [MQTT5-1.5.5-1].
#[test]
fn variable_byte_integers_are_minimal() {
    let topic = field("t/minimal");
    let cases = [
        vec![0xC0, 0x80, 0x00],
        frame(0x30, [topic.as_slice(), &[0x80, 0x00], b"x"].concat()),
        frame(0x82, [&[0, 1, 3, prop::SUBSCRIPTION_ID, 0x81, 0x00], topic.as_slice(), &[0]].concat()),
    ];
    for bytes in cases {
        let mut c = client(V5);
        c.name = format!("{bytes:02x?}");
        c.send(&bytes);
        if lenient() {
            c.send(&[0xE0, 0]);
            c.closed();
        } else {
            c.thrown_out(&[0x81]);
        }
    }
}

/// A packet larger than the broker takes ends the connection as soon as its length is known: 0x95 (3.2.2.3.6, 4.13).
#[test]
fn claimed_size_ends_the_connection_at_once() {
    if lenient() && client(V5).connack.props.number(prop::MAX_PACKET_SIZE).is_none() {
        return;
    }
    for version in BOTH {
        for first in [0x30, 0x32, 0x82, 0xA2] {
            let mut c = client(version);
            c.name = format!("{version:?} {first:#04x}");
            c.send(&[first, 0xFF, 0xFF, 0xFF, 0x7F]);
            c.thrown_out(&[0x95, 0x81]);
        }
    }
    if !lenient() {
        let mut c = Client::open(broker(), V5);
        c.send(&[0x10, 0xFF, 0xFF, 0xFF, 0x7F]);
        assert!(c.rest().len() <= 5, "nothing but a refusal");
    }
}

/// The limit of MQTT 5 is announced, and a packet of exactly that size passes [MQTT5-3.2.2-15].
#[test]
fn packet_of_the_greatest_size_passes() {
    let mut c = client(V5);
    let Some(most) = c.connack.props.number(prop::MAX_PACKET_SIZE) else { return };
    let most = usize::try_from(most).expect("fits");
    let topic = unique("t/");
    c.subscribe(&topic, 0);
    let overhead = Publish::new(&topic, vec![0; most - 100]).bytes(V5).len() - (most - 100);
    let publish = Publish::new(&topic, vec![7; most - overhead]);
    assert_eq!(publish.bytes(V5).len(), most);
    c.publish(&publish);
    assert!(c.message().payload == publish.payload);
    c.publish(&Publish::new(&topic, vec![7; most - overhead + 1]));
    c.thrown_out(&[0x95]);
}

/// Packets of which only the beginning ever comes cost their beginning: 300 connections that claim a megabyte each.
#[test]
fn claimed_sizes_take_no_memory() {
    let Some(own) = Broker::own(&[]) else { return };
    let mut bystanders = Bystanders::new(&own);
    bystanders.check();
    let before = resident_kib(&own);
    let mut held = Vec::new();
    for n in 0..300 {
        let mut c = if n % 2 == 0 { Client::open(&own, V5) } else { Connect::v5(&unique("c")).to(&own) };
        let first = if n % 2 == 0 { 0x10 } else { 0x30 };
        // 1,000,000 bytes are claimed and ten sent.
        c.send(&[first, 0xC0, 0x84, 0x3D, 0, 4, b'M', b'Q', b'T', b'T', 5, 2]);
        held.push(c);
    }
    bystanders.check();
    let grown = resident_kib(&own).saturating_sub(before);
    assert!(grown < 16 * 1_024, "{grown} KiB for 300 claims");
}

/// PUBLISH packets that end too early, in any part [MQTT5-4.13.1-1] [MQTT3-4.8.0-1].
#[test]
fn publish_cut_anywhere_is_malformed() {
    for version in BOTH {
        let publish = Publish::new("abc", "").qos(1, 5).with(prop::message_expiry(9_u32)).with(prop::user("a", "b"));
        let bytes = publish.bytes(version);
        for end in 2..bytes.len() {
            let mut c = client(version);
            c.name = format!("{version:?}: the first {end} of {} bytes", bytes.len());
            c.send(&frame(bytes[0], &bytes[2..end]));
            c.thrown_out(&[0x81, 0x82]);
        }
    }
}

/// Connections that end in the middle of a packet leave nothing behind.
#[test]
fn connection_that_ends_within_a_packet() {
    let mut bystanders = Bystanders::new(broker());
    for version in BOTH {
        let whole = Connect::new(version, &unique("c")).bytes();
        for end in 0..whole.len() {
            let mut c = Client::open(broker(), version);
            c.send(&whole[..end]);
            c.stream().shutdown(Shutdown::Write).expect("half close");
            let got = c.closed();
            assert!(!matches!(got.as_slice(), [Packet::ConnAck(ConnAck { code: 0, .. }), ..]));
        }
        let mut c = client(version);
        c.send(&Publish::new("t/never", "half").bytes(version)[..6]);
        c.cut();
    }
    bystanders.check();
}

/// A reproducible source of nonsense (splitmix64).
struct Nonsense(u64);

impl Nonsense {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(end).expect("small")).expect("small")
    }

    fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[0]
    }
}

/// Valid conversations with bytes changed, inserted, removed: the server closes or goes on, and serves the others.
#[test]
fn mutated_conversations_hurt_nobody_else() {
    let mut bystanders = Bystanders::new(broker());
    for seed in 0..400 {
        let mut nonsense = Nonsense(seed);
        let version = BOTH[nonsense.below(2)];
        let mut c = Client::open(broker(), version);
        let topic = format!("nonsense/{seed}");
        let mut bytes = Connect::new(version, &format!("nonsense{}", seed % 7)).will(Publish::new(&topic, "w")).bytes();
        if nonsense.below(2) == 0 {
            // A clean CONNECT, so that the damage is behind it.
            c.send(&bytes);
            bytes.clear();
        }
        bytes.extend(c.subscribe_bytes(1, &[(&topic, 2), ("nonsense/#", 1)], &[prop::subscription_id(7_u32)]));
        for qos in 0..=2 {
            let message =
                Publish::new(&topic, "payload").qos(qos, 3).with(prop::user("a", "b")).with(prop::topic_alias(1_u16));
            bytes.extend(message.bytes(version));
        }
        bytes.extend(frame(0x62, [0, 3]));
        bytes.extend(frame(0x40, [0, 1]));
        bytes.extend([0xC0, 0]);
        for _ in 0..=nonsense.below(4) {
            let at = nonsense.below(bytes.len());
            match nonsense.below(4) {
                0 => bytes[at] = nonsense.byte(),
                1 => bytes[at] ^= 1 << nonsense.below(8),
                2 => bytes.insert(at, nonsense.byte()),
                _ => {
                    bytes.remove(at);
                }
            }
        }
        c.send(&bytes);
        let _ = c.stream().shutdown(Shutdown::Write);
        // The server ends it, whatever it made of that.
        c.rest();
    }
    bystanders.check();
}

/// Pure noise, before and after CONNECT.
#[test]
fn noise_hurts_nobody_else() {
    let mut bystanders = Bystanders::new(broker());
    for seed in 1_000..1_200 {
        let mut nonsense = Nonsense(seed);
        let noise: Vec<u8> = (0..nonsense.below(2_000)).map(|_| nonsense.byte()).collect();
        let mut c = if seed % 2 == 0 { Client::open(broker(), V5) } else { client(V5) };
        c.send(&noise);
        let _ = c.stream().shutdown(Shutdown::Write);
        c.closed();
    }
    bystanders.check();
}

/// A subscriber that stops reading slows nobody down, and its backlog is bounded.
#[test]
fn slow_reader_stalls_nobody() {
    let Some(own) = Broker::own(&[]) else { return };
    let topic = unique("t/");
    let mut slow: Vec<Client> = (0..3_u8)
        .map(|qos| {
            let mut c = Connect::v5(&unique("slow")).to(&own);
            c.subscribe(&topic, qos);
            c
        })
        .collect();
    let mut quick = Connect::v5(&unique("quick")).to(&own);
    quick.subscribe(&topic, 0);
    let mut bystanders = Bystanders::new(&own);
    bystanders.check();
    let before = resident_kib(&own);
    let mut publisher = Connect::v5(&unique("p")).to(&own);
    let payload = vec![b'x'; 16_384];
    // 64 MiB to each of four: far beyond what sockets hold.
    for round in 0..64 {
        for n in 0..64_u16 {
            let qos = u8::from(n % 8 == 0);
            publisher.publish(&Publish::new(&topic, &payload).qos(qos, if qos > 0 { n + 1 } else { 0 }));
        }
        for n in (0..64_u16).step_by(8) {
            let _ = publisher.await_ack(PubAck, n + 1);
        }
        for _ in 0..64 {
            assert_eq!(quick.message().payload.len(), payload.len(), "round {round}");
        }
        if round % 8 == 0 {
            bystanders.check();
        }
    }
    bystanders.check();
    let grown = resident_kib(&own).saturating_sub(before);
    assert!(grown < 64 * 1_024, "{grown} KiB for three clients that do not read");
    // What comes to a slow reader afterwards is whole packets in order.
    for c in &mut slow {
        for packet in c.fence() {
            assert!(matches!(packet, Packet::Publish(_)), "{packet:?}");
        }
    }
}

/// A thousand connections that never say CONNECT keep nobody out.
#[test]
fn half_open_connections_keep_nobody_out() {
    let Some(own) = Broker::own(&[]) else { return };
    let mut bystanders = Bystanders::new(&own);
    let mut held = Vec::new();
    for n in 0..1_000 {
        // Where a process may have few open files, so many must do.
        let Ok(mut stream) = TcpStream::connect(own.addr()) else { break };
        if n % 3 == 0 {
            let _ = stream.write_all(&Connect::v5("half").bytes()[..7]);
        }
        held.push(stream);
    }
    assert!(held.len() >= 200, "only {} connections could be opened", held.len());
    let start = Instant::now();
    let mut c = Connect::v5(&unique("c")).to(&own);
    c.quiet();
    let took = start.elapsed();
    assert!(took < Duration::from_secs(2), "a new client waited {took:?}");
    bystanders.check();
}

/// A connection that completes no CONNECT in time is closed (3.1.4).
#[test]
fn connection_without_connect_is_closed_in_time() {
    let Some(own) = Broker::own(&["--set", "limits.connect_timeout_secs=1"]) else { return };
    let start = Instant::now();
    let mut silent = Client::open(&own, V5);
    let mut partial = Client::open(&own, V5);
    partial.send(&Connect::v5("partial").bytes()[..9]);
    let mut let_in = Connect::v5("let-in").to(&own);
    assert_eq!(silent.closed(), []);
    assert_eq!(partial.closed(), []);
    let took = start.elapsed();
    assert!(took > Duration::from_millis(900) && took < Duration::from_secs(4), "closed after {took:?}");
    let_in.quiet();
}

/// A publisher that ends its side after sending gets everything processed.
#[test]
fn half_closed_publisher_is_heard() {
    for version in BOTH {
        let topic = unique("t/");
        let mut sub = client(version);
        sub.subscribe(&topic, 0);
        let mut c = client(version);
        let bytes: Vec<u8> = (0..100).flat_map(|n: u8| Publish::new(&topic, n.to_string()).bytes(version)).collect();
        c.send(&bytes);
        c.cut();
        for n in 0..100 {
            assert_eq!(sub.message().text(), n.to_string());
        }
    }
}
