//! The outbox on disk: a process may die at any step, and each message still has one end.

use super::fake::{Broker, Fate};
use super::{is_end, next, on_disk, until};
use crate::Event;
use crate::store::tests::Directory;
use serde_json::json;
use std::path::Path;
use std::sync::{Arc, Mutex};

/// The ends that are told until there are so many and the connection stands, and then some.
async fn ends(broker: &Broker, path: &Path, count: usize) -> Vec<Event> {
    let mut client = on_disk(broker, path, 0xBBB).await;
    let (mut ends, mut is_connected) = (Vec::new(), false);
    while ends.len() < count || !is_connected {
        let event = next(&mut client).await;
        is_connected |= event == Event::Connected;
        ends.extend(is_end(&event).then_some(event));
    }
    client.ask("me/convs", json!({})).await.unwrap();
    assert_eq!(client.close().await, 0);
    ends
}

fn received(id: &str, dup: bool) -> Event {
    Event::Received { id: id.into(), re: "to/bob/msg".into(), seq: Some(1), dup }
}

#[tokio::test]
async fn a_row_exists_before_the_first_byte_leaves() {
    let directory = Directory::new("before");
    let (path, copy) = (directory.0.join("outbox"), directory.0.join("copy"));
    let broker = Broker::default();
    let copied = Arc::new(Mutex::new(0));
    {
        let (path, copy, copied) = (path.clone(), copy.clone(), Arc::clone(&copied));
        broker.lock().on_publish = Some(Box::new(move || {
            let mut copied = copied.lock().unwrap();
            *copied += 1;
            if *copied == 1 {
                std::fs::copy(&path, &copy).unwrap();
            }
        }));
    }
    // The machine dies in the moment in which the first byte arrives; the broker has nothing.
    broker.lock().script.push_back(Fate::CutBefore);
    let mut client = on_disk(&broker, &path, 0xAAA).await;
    let id = client.send("bob", "hello").await.unwrap();
    until(&mut client, |event| matches!(event, Event::Disconnected { .. })).await;
    drop(client);
    assert!(*copied.lock().unwrap() >= 1);
    broker.lock().on_publish = None;
    let dead = Broker::default();
    assert_eq!(ends(&dead, &copy, 1).await, [received(&id, false)], "what is on disk is sent");
    assert_eq!(dead.lock().taken, [id]);
}

#[tokio::test]
async fn what_was_given_an_id_is_on_disk() {
    let directory = Directory::new("given");
    let path = directory.0.join("outbox");
    let broker = Broker::default();
    broker.lock().is_down = true;
    let client = on_disk(&broker, &path, 0xAAA).await;
    let id = client.send("bob", "hello").await.unwrap();
    drop(client);
    broker.lock().is_down = false;
    assert_eq!(ends(&broker, &path, 1).await, [received(&id, false)]);
    assert_eq!(broker.lock().taken, [id]);
}

#[tokio::test]
async fn an_answer_that_died_with_the_process_is_asked_for_again() {
    let directory = Directory::new("answer");
    let path = directory.0.join("outbox");
    let broker = Broker::default();
    broker.lock().script.extend([Fate::CutAfter]);
    let mut client = on_disk(&broker, &path, 0xAAA).await;
    let id = client.send("bob", "hello").await.unwrap();
    until(&mut client, |event| matches!(event, Event::Disconnected { .. })).await;
    // The first connection took it, and the process ends before the second one has said so.
    broker.lock().is_down = true;
    drop(client);
    broker.lock().is_down = false;
    let ends = ends(&broker, &path, 1).await;
    assert!(matches!(&ends[..], [Event::Received { id: told, seq: Some(1), .. }] if *told == id), "{ends:?}");
    assert_eq!(broker.lock().taken, [id], "it is one message");
}

#[tokio::test]
async fn an_end_that_may_not_have_been_dealt_with_is_told_again_and_is_the_same() {
    for fate in [Fate::Answered, Fate::Refused] {
        let directory = Directory::new(&format!("told-{fate:?}"));
        let path = directory.0.join("outbox");
        let broker = Broker::default();
        broker.lock().script.push_back(fate);
        let mut client = on_disk(&broker, &path, 0xAAA).await;
        client.send("bob", "hello").await.unwrap();
        let told = until(&mut client, is_end).await;
        assert_eq!(matches!(told, Event::Lost { .. }), fate == Fate::Refused);
        // Whoever was told did not come back.
        drop(client);
        let sent = broker.lock().published.len();
        assert_eq!(ends(&broker, &path, 1).await, [told], "although the broker would answer otherwise now");
        assert_eq!(broker.lock().published.len(), sent + 1, "nothing that has ended is sent again");
    }
}

#[tokio::test]
async fn an_end_that_was_dealt_with_is_not_told_again() {
    let directory = Directory::new("dealt");
    let path = directory.0.join("outbox");
    let broker = Broker::default();
    let mut client = on_disk(&broker, &path, 0xAAA).await;
    client.send("bob", "one").await.unwrap();
    until(&mut client, is_end).await;
    assert_eq!(client.close().await, 0);
    let mut client = on_disk(&broker, &path, 0xBBB).await;
    assert_eq!(next(&mut client).await, Event::Connected);
    let id = client.send("bob", "two").await.unwrap();
    let told = next(&mut client).await;
    assert!(matches!(&told, Event::Received { id: told, .. } if *told == id), "{told:?}");
    assert_eq!(broker.lock().published.len(), 2);
}

#[tokio::test]
async fn processes_that_die_at_random_lose_and_double_nothing() {
    for seed in 1..=6_u64 {
        let directory = Directory::new(&format!("random-{seed}"));
        let path = directory.0.join("outbox");
        let broker = Broker::seeded(seed, 30);
        let (mut sent, mut told) = (Vec::new(), Vec::new());
        for process in 0..6_u64 {
            let mut client = on_disk(&broker, &path, 0x1000 * seed + process).await;
            for _ in 0..3 {
                sent.push(client.send("bob", "hello").await.unwrap());
            }
            // Some are told before it dies, others are not.
            for _ in 0..(seed + process) % 4 {
                told.push(until(&mut client, is_end).await);
            }
        }
        let mut client = on_disk(&broker, &path, 1).await;
        let is_left = |told: &[Event]| {
            let has = |id: &String| told.iter().any(|t| matches!(t, Event::Received { id: told, .. } if told == id));
            sent.iter().any(|id| !has(id))
        };
        while is_left(&told) {
            told.push(until(&mut client, is_end).await);
        }
        client.close().await;
        let mut taken = broker.lock().taken.clone();
        assert_eq!(taken.iter().collect::<std::collections::BTreeSet<_>>().len(), taken.len(), "seed {seed}");
        taken.sort();
        let mut all = sent.clone();
        all.sort();
        assert_eq!(taken, all, "seed {seed}");
        for event in told {
            let Event::Received { id, seq, .. } = event else { panic!("seed {seed}: {event:?}") };
            assert_eq!(seq, broker.lock().ids.get(&id).copied(), "seed {seed}");
        }
    }
}
