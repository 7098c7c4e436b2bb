//! Bytes by chance, and a corpus of those that once were interesting; `tests/fuzz` finds more.

use parlor_tests::storm::play;
use parlor_tests::world::Rng;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};

/// The longest this takes, however slow the machine is.
const TIME: Duration = Duration::from_secs(20);

/// What must be among the refusals, drops and limits.
const EDGES: &[&str] = &[
    "accepted",
    "anonymous",
    "bad_password",
    "auth_waiting_max",
    "client_id_of_another",
    "connect_timeout",
    "connections_max",
    "sessions_max",
    "first_packet_not_connect",
    "unexpected_packet",
    "keep_alive_timeout",
    "taken_over",
    "token_expired",
    "packet_bytes_max",
    "packet_too_large",
    "receive_max",
    "wrong_ack",
    "unknown_packet_id",
    "topic_alias_invalid",
    "topic_levels_max",
    "subscriptions_per_session_max",
    "retained_messages_max",
    "retained_bytes_max",
    "queue_messages_max",
    "memory_queue_messages_max",
    "slow_reader",
    "expired",
    "will_delay_max_secs",
    "no_local_shared",
    "quic_streams_max",
    "control_packet_on_stream",
];

fn storm(seed: u64) -> BTreeSet<&'static str> {
    let mut rng = Rng::new(seed);
    let length = rng.between(200, 12_000);
    let data: Vec<u8> = (0..length).map(|_| rng.draw().to_le_bytes()[0]).collect();
    play(&data)
}

#[test]
fn no_bytes_break_the_hub() {
    if let Ok(seed) = std::env::var("SEED") {
        eprintln!("{:?}", storm(seed.parse().expect("SEED is a number")));
        return;
    }
    let count: u64 = std::env::var("PARLOR_STORM_SEEDS").map_or(600, |n| n.parse().expect("a number"));
    let began = Instant::now();
    let mut reached: BTreeMap<&str, u64> = BTreeMap::new();
    let mut played = 0;
    while played < count && began.elapsed() < TIME {
        let Ok(labels) = std::panic::catch_unwind(|| storm(played)) else { panic!("repeat with SEED={played}") };
        for label in labels {
            *reached.entry(label).or_insert(0) += 1;
        }
        played += 1;
    }
    eprintln!("{played} of {count} seeds: {reached:?}");
    // A storm that is refused at the door shows nothing. A machine so slow that time was up may not come to all of it.
    for edge in EDGES.iter().filter(|_| played >= 300) {
        assert!(reached.contains_key(edge), "no seed came to {edge}");
    }
}

#[test]
fn the_corpus_does_not_break_the_hub() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/session/corpus/session");
    let mut count = 0;
    for entry in std::fs::read_dir(&corpus).expect("the corpus is part of the repository") {
        let path = entry.expect("the corpus can be read").path();
        let data = std::fs::read(&path).expect("it can be read");
        assert!(std::panic::catch_unwind(|| play(&data)).is_ok(), "{} breaks the hub", path.display());
        count += 1;
    }
    assert!(count > 0, "the corpus is empty");
}
