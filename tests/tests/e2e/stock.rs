//! Stock clients exchange messages through the demo broker: all directions, all QoS, and over restarts.

use crate::demo::{Demo, PASSWORD};
use crate::peer::{Door, Got, Kind, PEERS, Peer, Running, all_here};

fn door(demo: &Demo, user: &'static str) -> Door {
    Door { mqtt: demo.mqtt.clone(), ws: demo.ws.clone(), user, password: PASSWORD }
}

/// Publishes the message that says: this was all.
fn fence(door: &Door, topic: &str) {
    Peer { kind: Kind::Mosquitto, version: 5 }.publish(door, "fence", topic, 2, "fence", 1);
}

const FENCE: &str = "fence 2 0";

fn sorted(mut list: Vec<Got>) -> Vec<Got> {
    list.sort();
    list
}

fn expected(topic: &str, senders: &[Peer], qos: &[u8], count: u32) -> Vec<Got> {
    let mut list = vec![];
    for sender in senders {
        for &qos in qos {
            for number in 0..count {
                let payload = format!("{} {qos} {number}", sender.name());
                list.push(Got { topic: topic.into(), qos, retain: false, payload });
            }
        }
    }
    sorted(list)
}

/// Each sender's messages of one QoS come in their order.
fn check_order(who: &str, list: &[Got]) {
    for sender in PEERS {
        for qos in 0..3 {
            let start = format!("{} {qos} ", sender.name());
            let numbers: Vec<u32> = list
                .iter()
                .filter_map(|g| g.payload.strip_prefix(&start))
                .map(|n| n.parse().expect("a number"))
                .collect();
            assert!(numbers.is_sorted(), "{who} got the messages of {start}in the order {numbers:?} [MQTT5-4.6.0-5]");
        }
    }
}

#[test]
fn the_demo_says_what_to_type_next() {
    let demo = Demo::start();
    for word in
        ["listener", "mqtt://127.0.0.1:", "ws://127.0.0.1:", "alice", PASSWORD, "mosquitto_sub", "mosquitto_pub"]
    {
        assert!(demo.greeting.contains(word), "{word} is missing in:\n{}", demo.greeting);
    }
}

#[test]
fn every_stock_client_reaches_every_other_at_every_qos() {
    if !all_here() {
        return;
    }
    let demo = Demo::start();
    let (reader, writer) = (door(&demo, "alice"), door(&demo, "lamp"));
    let topic = "home/exchange";
    let mut readers: Vec<(Peer, Running)> =
        PEERS.iter().map(|p| (*p, p.subscribe(&reader, &format!("reader-{}", p.name()), false, topic, 2))).collect();
    let count = 3;
    std::thread::scope(|scope| {
        for sender in PEERS {
            let writer = &writer;
            scope.spawn(move || {
                for qos in 0..3 {
                    sender.publish(writer, &format!("writer-{}", sender.name()), topic, qos, &sender.name(), count);
                }
            });
        }
    });
    fence(&writer, topic);
    for (peer, running) in &mut readers {
        let got = running.until(FENCE);
        check_order(&peer.name(), &got);
        assert_eq!(sorted(got), expected(topic, &PEERS, &[0, 1, 2], count), "{}", peer.name());
    }
}

#[test]
fn messages_wait_for_every_stock_client_over_kill_9_and_sigterm() {
    if !all_here() {
        return;
    }
    let mut demo = Demo::start();
    let (reader, writer) = (door(&demo, "bob"), door(&demo, "thermo1"));
    let topic = "home/restart";
    let name = |p: &Peer| format!("sleeper-{}", p.name());
    for peer in PEERS {
        peer.subscribe(&reader, &name(&peer), true, topic, 2).kill();
    }
    let senders: Vec<Peer> = PEERS.iter().copied().filter(|p| p.version == 5).collect();
    for restart in [Demo::kill_and_restart, |demo: &mut Demo| {
        demo.stop();
        demo.start_again();
    }] {
        let count = 4;
        for sender in &senders {
            for qos in [1, 2] {
                sender.publish(&writer, &format!("writer-{}", sender.name()), topic, qos, &sender.name(), count);
            }
        }
        restart(&mut demo);
        fence(&writer, topic);
        for peer in PEERS {
            // The session goes on, so its messages come at once; subscribing again changes nothing.
            let mut running = peer.subscribe(&reader, &name(&peer), true, topic, 2);
            let got = running.until(FENCE);
            check_order(&peer.name(), &got);
            assert_eq!(sorted(got), expected(topic, &senders, &[1, 2], count), "{}", peer.name());
            running.kill();
        }
    }
}

#[test]
fn retained_messages_are_there_after_kill_9_and_sigterm() {
    if !all_here() {
        return;
    }
    let mut demo = Demo::start();
    let (reader, writer) = (door(&demo, "alice"), door(&demo, "lamp"));
    let (host, port) = writer.mqtt.rsplit_once(':').expect("HOST:PORT");
    for (qos, topic) in ["home/kept/0", "home/kept/1", "home/kept/2"].iter().enumerate() {
        let mut command = std::process::Command::new("mosquitto_pub");
        command.args(["-h", host, "-p", port, "-u", writer.user, "-P", PASSWORD, "-r", "-t", topic]);
        command.args(["-q", &qos.to_string(), "-m", "kept"]);
        crate::peer::finish(&mut command, "mosquitto_pub");
    }
    // A QoS 0 message has no acknowledgement: that of a later one on disk says that it is there too.
    let expected: Vec<Got> = (0..3)
        .map(|qos| Got { topic: format!("home/kept/{qos}"), qos, retain: true, payload: "kept".into() })
        .collect();
    for kill in [true, false] {
        if kill {
            demo.kill_and_restart();
        } else {
            demo.stop();
            demo.start_again();
        }
        for peer in PEERS {
            let mut running = peer.subscribe(&reader, &format!("late-{}", peer.name()), false, "home/kept/#", 2);
            fence(&writer, "home/kept/fence");
            assert_eq!(
                sorted(running.until(FENCE)),
                expected,
                "{} after {}",
                peer.name(),
                if kill { "kill -9" } else { "SIGTERM" }
            );
        }
    }
}

#[test]
fn a_will_is_published_after_kill_9_and_not_after_sigterm() {
    if !all_here() {
        return;
    }
    let mut demo = Demo::start();
    let (reader, writer) = (door(&demo, "alice"), door(&demo, "lamp"));
    let topic = "home/will";
    let observer = Peer { kind: Kind::Mosquitto, version: 5 };
    let watch = |demo: &Demo| observer.subscribe(&door(demo, "alice"), "observer", true, topic, 2);
    let will = |text: &str| Got { topic: topic.into(), qos: 2, retain: false, payload: text.into() };
    watch(&demo).kill();

    // The client dies.
    Peer::with_will(&writer, 4, "mortal-1", topic, "the client died").kill();
    let mut running = watch(&demo);
    running.until_seen(&will("the client died"));
    running.kill();

    // The broker dies, and the client with it.
    let mortal = Peer::with_will(&writer, 5, "mortal-2", topic, "both died");
    demo.kill();
    mortal.kill();
    demo.start_again();
    let mut running = watch(&demo);
    running.until_seen(&will("both died"));
    running.kill();

    // The broker is stopped in an orderly way, and the client never comes back.
    let mortal = Peer::with_will(&writer, 5, "mortal-3", topic, "nobody died");
    demo.stop();
    mortal.kill();
    demo.start_again();
    fence(&writer, topic);
    let mut running = watch(&demo);
    assert_eq!(running.until(FENCE), [], "an orderly stop publishes no will");
    let _ = reader;
}

impl Running {
    /// Waits until the client has got this message and nothing else before.
    fn until_seen(&mut self, wanted: &Got) {
        let before = self.until(&wanted.payload);
        assert_eq!(before, [], "before {wanted:?}");
    }
}
