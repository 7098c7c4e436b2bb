//! `$SYS`: readable, not writable, not in the way (4.7.2).

use super::common::*;

/// What the broker says of itself comes to who subscribes to it, retained at once and then live.
#[test]
fn sys_topics_are_readable() {
    for version in BOTH {
        let mut c = client(version);
        c.subscribe("$SYS/#", 0);
        let first = c.message();
        assert!(first.topic.starts_with("$SYS/"), "{}", first.topic);
        let mut live = 0;
        let mut total = 0;
        while live < 1 && total < 1_000 {
            let got = c.message();
            assert!(got.topic.starts_with("$SYS/") && !got.payload.is_empty());
            live += u32::from(!got.retain);
            total += 1;
        }
        assert!(live > 0, "values are published again while a subscription lasts");
    }
}

/// `#` and `+/…` do not bring them [MQTT5-4.7.2-1] [MQTT3-4.7.2-1].
#[test]
fn sys_topics_are_not_matched_by_leading_wildcards() {
    for version in BOTH {
        let mut c = client(version);
        c.subscribe("+/broker/#", 0);
        c.subscribe("#", 0);
        c.unsubscribe(&["#"]);
        let mut witness = client(version);
        witness.subscribe("$SYS/broker/uptime", 0);
        witness.message();
        while witness.message().retain {}
        for packet in c.fence() {
            assert!(!matches!(&packet, Packet::Publish(p) if p.topic.starts_with('$')), "{packet:?}");
        }
    }
}

/// Clients cannot publish there: in MQTT 5 they are told so, in 3.1.1 the message is dropped or the connection ends
/// [MQTT3-3.3.5-2] (4.7.2).
#[test]
fn sys_topics_are_not_writable() {
    let topic = format!("$SYS/{}", unique("x"));
    let mut sub = client(V5);
    sub.subscribe(&topic, 0);
    for retain in [false, true] {
        for version in BOTH {
            for qos in 0..=2 {
                let mut c = client(version);
                let mut publish = Publish::new(&topic, "forged").qos(qos, qos.into());
                publish.retain = retain;
                if version == V5 && qos > 0 {
                    let code = c.deliver(&publish);
                    assert!(code == 0x87 || code == 0x90 || lenient(), "{code:#04x}");
                } else {
                    c.publish(&publish);
                    c.send(&[0xC0, 0]);
                    while !matches!(c.try_recv(PATIENCE), Ok(Packet::PingResp) | Err(Lost::Closed)) {}
                }
                sub.quiet();
            }
        }
    }
    let mut late = client(V5);
    late.subscribe(&topic, 0);
    late.quiet();
}
