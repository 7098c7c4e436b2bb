//! Rules: who may publish, subscribe and read what; asked again at every delivery.

use super::common::*;
use std::path::PathBuf;
use std::time::Instant;

const RULES: &str = r##"
[[rule]]
account = "alice"
allow = "all"
topic = "#"

[[rule]]
everybody = true
deny = "all"
topic = "open/but/private/#"

[[rule]]
everybody = true
allow = "all"
topic = "open/#"

[[rule]]
everybody = true
allow = "all"
topic = "own/%t/#"

[[rule]]
everybody = true
allow = "all"
topic = "home/%a/#"

[[rule]]
everybody = true
allow = "subscribe"
topic = "news/#"

[[rule]]
everybody = true
allow = "publish"
topic = "mail/#"
"##;

/// A broker with rules in a file that can be changed.
struct Ruled {
    broker: Broker,
    file: PathBuf,
}

impl Ruled {
    /// With `RULES` and the account `alice`, who may do everything.
    fn start() -> Option<Self> {
        let file = std::env::temp_dir().join(format!("{}.toml", unique("parlor-rules-")));
        std::fs::write(&file, RULES).expect("the temporary directory can be written");
        let broker = Broker::own(&["--config", &file.display().to_string()])?;
        broker.add_account("alice", "wonderland");
        Some(Self { broker, file })
    }

    fn alice(&self) -> Client {
        Connect::v5("alice").username("alice").password("wonderland").to(&self.broker)
    }

    /// Puts other rules into force.
    fn change(&self, rules: &str) {
        std::fs::write(&self.file, rules).expect("the temporary directory can be written");
        self.broker.signal("HUP");
    }
}

impl Drop for Ruled {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.file);
    }
}

/// Publishing where one may not: 0x87 in PUBACK and PUBREC; in 3.1.1 acknowledged and dropped, or closed
/// [MQTT3-3.3.5-2] (3.4.2.1, 3.5.2.1).
#[test]
fn publishing_needs_the_right() {
    let Some(ruled) = Ruled::start() else { return };
    let own = &ruled.broker;
    let mut alice = ruled.alice();
    alice.subscribe("#", 2);
    for version in BOTH {
        for topic in ["news/x", "nowhere", "own/other/x", "home/alice/x", "open/but/private/x"] {
            for qos in 0..=2 {
                let mut c = Connect::new(version, "me").to(own);
                let publish = Publish::new(topic, "forbidden").qos(qos, qos.into());
                if version == V5 && qos > 0 {
                    assert_eq!(c.deliver(&publish), 0x87, "{topic}");
                    c.quiet();
                } else {
                    c.publish(&publish);
                    c.send(&[0xC0, 0]);
                    while !matches!(c.try_recv(PATIENCE), Ok(Packet::PingResp) | Err(Lost::Closed)) {}
                }
            }
        }
        let mut c = Connect::new(version, "me").to(own);
        for topic in ["open/x", "own/me/x", "home/anonymous/x", "mail/x"] {
            assert!(c.say(1, topic, "allowed") < 0x80);
            let got = alice.message();
            assert_eq!((got.topic.as_str(), got.text()), (topic, "allowed"));
        }
    }
    alice.quiet();
}

/// Subscribing where one may not: 0x87, or 0x80 in 3.1.1 (3.9.3) [MQTT5-3.9.3-2] [MQTT3-3.9.3-2].
#[test]
fn subscribing_needs_the_right() {
    let Some(ruled) = Ruled::start() else { return };
    for version in BOTH {
        let refused = if version == V5 { 0x87 } else { 0x80 };
        let mut c = Connect::new(version, "me").to(&ruled.broker);
        for filter in ["nowhere", "mail/x", "own/other/#", "home/alice/+", "open/but/private/x", "$share/g/nowhere"] {
            assert_eq!(c.subscribe_code(filter, 0), refused, "{filter}");
        }
        for filter in ["open/#", "news/+", "own/me/#", "home/anonymous/x", "$share/g/open/x"] {
            assert_eq!(c.subscribe_code(filter, 0), 0, "{filter}");
        }
    }
}

/// A filter that reaches further than the right brings only what may be read: live, retained, queued, shared.
#[test]
fn wide_filters_bring_only_what_may_be_read() {
    let Some(ruled) = Ruled::start() else { return };
    let mut alice = ruled.alice();
    for topic in ["secret", "open/but/private/x", "own/other/x", "news/x", "open/x"] {
        alice.deliver(&Publish::new(topic, "retained").qos(1, 0).retain());
    }
    for version in BOTH {
        let id = format!("me{version:?}");
        let connect = Connect::new(version, &id).persistent();
        let mut c = connect.to(&ruled.broker);
        let mut granted = false;
        for filter in ["#", "+/x", "+/+/+/x"] {
            granted |= c.subscribe_code(filter, 1) < 0x80;
        }
        let mut topics: Vec<String> = Vec::new();
        let take = |c: &mut Client, topics: &mut Vec<String>| {
            for packet in c.fence() {
                let Packet::Publish(publish) = packet else { panic!("{packet:?}") };
                c.finish(&publish);
                topics.push(publish.topic);
            }
        };
        take(&mut c, &mut topics);
        for topic in ["secret", "open/but/private/x", "own/other/x", "news/x", "open/x"] {
            alice.say(1, topic, "live");
        }
        take(&mut c, &mut topics);
        c.disconnect();
        for topic in ["secret", "open/but/private/x", "own/other/x", "news/x"] {
            alice.say(1, topic, "queued");
        }
        let mut c = connect.to(&ruled.broker);
        c.subscribe("open/end", 1);
        alice.say(1, "open/end", "end");
        if granted {
            loop {
                let message = c.message();
                if message.text() == "end" {
                    break;
                }
                topics.push(message.topic);
            }
        }
        for topic in &topics {
            assert!(["news/x", "open/x"].contains(&topic.as_str()), "{version:?}: {topic} may not be read");
        }
    }
}

/// A client identifier is no pattern: `%t` stands for exactly its text.
#[test]
fn client_identifiers_are_no_patterns() {
    let Some(ruled) = Ruled::start() else { return };
    let mut alice = ruled.alice();
    for id in ["+", "#", "a/b", "%a", ""] {
        let mut c = Connect::v5(id).to(&ruled.broker);
        for filter in ["own/#", "own/+/#", "own/victim/#", "own/victim/x", "+/victim/x", "own/#/#"] {
            c.subscribe_code(filter, 0);
        }
        alice.say(1, "own/victim/x", "private");
        alice.say(1, "own/a/x", "private");
        nothing_reaches(&mut alice, &mut c);
        assert_eq!(c.say(1, "own/victim/x", "forged"), 0x87, "{id:?}");
    }
}

/// A will to where one may not publish is refused with the CONNECT: 0x87, 0x05 in 3.1.1 (3.1.4).
#[test]
fn will_needs_the_right() {
    let Some(ruled) = Ruled::start() else { return };
    let will = |version, topic: &str| Connect::new(version, "me").will(Publish::new(topic, "gone").qos(1, 0));
    assert_eq!(will(V5, "news/x").refused(&ruled.broker), 0x87);
    assert_eq!(will(V311, "news/x").refused(&ruled.broker), 0x05);
    for version in BOTH {
        will(version, "mail/x").to(&ruled.broker).disconnect();
    }
}

/// A member of a group that may not read a topic is not picked for it.
#[test]
fn group_members_without_the_right_are_passed_over() {
    let Some(ruled) = Ruled::start() else { return };
    let mut alice = ruled.alice();
    let mut c = Connect::v5("me").to(&ruled.broker);
    if c.subscribe_code("$share/g/#", 1) >= 0x80 {
        return;
    }
    alice.subscribe("$share/g/#", 1);
    for n in 0..6 {
        alice.say(1, "secret", n.to_string());
    }
    assert_eq!(alice.texts(6), ["0", "1", "2", "3", "4", "5"]);
    c.quiet();
}

/// Rules read again by SIGHUP hold at once: for publishing, for subscriptions that are there, and for what is queued.
#[test]
fn rules_that_change_hold_at_once() {
    let Some(ruled) = Ruled::start() else { return };
    let own = &ruled.broker;
    let mut c = Connect::v5("away").persistent().to(own);
    c.subscribe("news/#", 1);
    c.disconnect();
    let mut live = Connect::v5("live").to(own);
    live.subscribe("news/#", 1);
    let mut alice = ruled.alice();
    alice.say(1, "news/x", "before");
    assert_eq!(live.message().text(), "before");
    ruled.change(&RULES.replace("news/#", "weather/#"));
    let start = Instant::now();
    let mut probe = Connect::v5("probe").to(own);
    while probe.subscribe_code("news/x", 0) == 0 {
        assert!(start.elapsed() < PATIENCE, "the new rules are not in force");
    }
    alice.say(1, "news/x", "after");
    nothing_reaches(&mut alice, &mut live);
    let mut c = Connect::v5("away").persistent().to(own);
    c.subscribe("weather/#", 1);
    alice.say(1, "weather/x", "sunny");
    assert_eq!(c.message().text(), "sunny", "nothing of what was queued comes before it");
    c.quiet();
}
