//! What every chapter uses.

pub use parlor_tests::raw::*;
pub use parlor_tests::server::Broker;
use std::sync::atomic::{AtomicU32, Ordering};

/// The broker that tests share.
pub fn broker() -> &'static Broker {
    Broker::shared()
}

/// A name nobody else uses, for topics and client identifiers.
pub fn unique(stem: &str) -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    format!("{stem}{}x{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed))
}

/// A clean client with a name of its own.
pub fn client(version: Version) -> Client {
    Connect::new(version, &unique("c")).to(broker())
}

/// The connection ends before it was let in: without a word, or in MQTT 5 with a CONNACK that has one of `codes`.
/// A refusal by CONNACK is what a client can show its user, so silence is accepted only where the specification wants
/// it [MQTT3-3.1.4-1].
pub fn not_let_in(mut client: Client, codes: &[u8]) {
    let before = client.closed();
    match (client.version, before.as_slice()) {
        (V311, []) => {}
        (V5, [Packet::ConnAck(ConnAck { present: false, code, .. })]) if codes.contains(code) => {}
        (V5, []) if lenient() => {}
        _ => panic!("{}: refusal {codes:02x?} and the end expected, got {before:?} and the end", client.name),
    }
}

/// Lets time pass that is itself what the test is about: an interval of the protocol, never a guess at a reaction.
pub fn let_pass(millis: u64) {
    std::thread::sleep(std::time::Duration::from_millis(millis));
}

/// All that `from` has sent is processed, and `to` was given nothing because of it.
pub fn nothing_reaches(from: &mut Client, to: &mut Client) {
    let _ = from.fence();
    to.quiet();
}

/// A persistent session with one subscription, its client gone again.
pub fn absent_subscriber(version: Version, id: &str, filter: &str, options: u8) {
    let mut c = Connect::new(version, id).persistent().to(broker());
    c.subscribe(filter, options);
    c.disconnect();
}

/// Ends a session for good.
pub fn forget(id: &str) {
    Connect::v5(id).to(broker()).disconnect();
}

/// Whether a resuming CONNECT finds a session; the session stays.
pub fn session_is_there(id: &str) -> bool {
    let c = Connect::v5(id).persistent().to(broker());
    let present = c.connack.present;
    c.disconnect();
    present
}
