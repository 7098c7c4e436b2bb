//! Connections come and go; what is said has one end, and what is heard is heard once.

use super::fake::{Broker, Fate};
use super::{PATIENCE, in_memory, is_end, next, options, until};
use crate::error::{AskError, ConnectError, SendError};
use crate::road::End;
use crate::{CommandOptions, Event, Filter, Options, Range};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::timeout;

fn from_bob(seq: u64, prev: u64) -> Value {
    json!({"seq": seq, "pos": seq, "prev": prev, "from": "bob", "ts": seq, "text": format!("t{seq}")})
}

#[tokio::test]
async fn three_calls_to_the_first_message() {
    let broker = Broker::default();
    let mut client = in_memory(&broker, &options());
    let id = client.send("bob", "hello").await.unwrap();
    assert_eq!(next(&mut client).await, Event::Connected);
    let expect = Event::Received { id, re: "to/bob/msg".into(), seq: Some(1), dup: false };
    assert_eq!(next(&mut client).await, expect);
    assert_eq!(broker.lock().subscribed, ["im/v1/me/#", "im/v1/presence/+", "im/v1/state/+"]);
    assert_eq!(client.close().await, 0);
}

#[tokio::test]
async fn each_message_has_exactly_one_end_however_often_the_connection_breaks() {
    for seed in 1..=40_u64 {
        let broker = Broker::seeded(seed, 30);
        let mut client = in_memory(&broker, &options());
        let mut expect = BTreeMap::new();
        for number in 0..20 {
            // Several tasks speak at once.
            let handle = client.handle();
            let text = if number % 5 == 4 { "refuse this" } else { "hello" };
            let id = tokio::spawn(async move { handle.send("bob", text).await.unwrap() }).await.unwrap();
            expect.insert(id, number % 5 != 4);
        }
        let mut ends: BTreeMap<String, Vec<bool>> = BTreeMap::new();
        while ends.len() < expect.len() {
            match until(&mut client, is_end).await {
                Event::Received { id, seq, .. } => {
                    assert_eq!(seq, broker.lock().ids.get(&id).copied(), "seed {seed}");
                    ends.entry(id).or_default().push(true);
                }
                Event::Lost { id, why, .. } => {
                    assert_eq!(why.code, "no_consent", "seed {seed}: {why:?}");
                    ends.entry(id).or_default().push(false);
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(client.close().await, 0);
        let ends: BTreeMap<String, bool> = ends
            .into_iter()
            .map(|(id, ends)| {
                assert_eq!(ends.len(), 1, "seed {seed}: {id} ended more than once");
                (id, ends[0])
            })
            .collect();
        assert_eq!(ends, expect, "seed {seed}");
        let taken = broker.lock().taken.len();
        assert_eq!(taken, expect.values().filter(|is_taken| **is_taken).count(), "seed {seed}");
    }
}

#[tokio::test]
async fn leaving_waits_for_answers_but_not_for_ever() {
    let broker = Broker::default();
    let client = in_memory(&broker, &options());
    client.send("bob", "hello").await.unwrap();
    assert_eq!(client.close().await, 0, "it is connected and sent first");
    assert_eq!(broker.lock().taken.len(), 1);
    broker.lock().is_down = true;
    let client = in_memory(&broker, &Options { farewell: Duration::from_millis(50), ..options() });
    let handle = client.handle();
    client.send("bob", "nobody is there").await.unwrap();
    assert_eq!(timeout(PATIENCE, client.close()).await, Ok(1));
    assert_eq!(handle.send("bob", "too late").await, Err(SendError::Closed));
}

#[tokio::test]
async fn a_full_outbox_says_so_and_has_room_again() {
    let broker = Broker::default();
    broker.lock().is_down = true;
    let mut client = in_memory(&broker, &Options { outbox_max: 3, ..options() });
    for _ in 0..3 {
        client.send("bob", "hello").await.unwrap();
    }
    let error = client.send("bob", "one too many").await.unwrap_err();
    assert!(matches!(error, SendError::Full(_)) && error.to_string().starts_with("3 things wait"), "{error}");
    broker.lock().is_down = false;
    until(&mut client, is_end).await;
    client.send("bob", "there is room").await.unwrap();
    for _ in 0..3 {
        until(&mut client, is_end).await;
    }
    assert_eq!(broker.lock().taken.len(), 4);
}

#[tokio::test]
async fn what_is_heard_is_told_once_and_gaps_are_pulled() {
    let broker = Broker::default();
    broker.lock().history = vec![from_bob(1, 0), from_bob(2, 1), from_bob(3, 2)];
    for (number, message) in [(1, from_bob(1, 0)), (2, from_bob(1, 0)), (3, from_bob(3, 2))] {
        broker.lock().deliveries.push_back((number, "im/v1/me/in/bob/msg".into(), message));
    }
    let mut client = in_memory(&broker, &options());
    let mut seqs = Vec::new();
    while seqs.len() < 3 {
        if let Event::Message { with, message } = next(&mut client).await {
            assert_eq!(with, "bob");
            seqs.push(message.seq);
        }
    }
    assert_eq!(seqs, [1, 3, 2], "each once, and the one that was missing");
    assert_eq!(broker.lock().published.len(), 1, "one pull");
    assert!(timeout(Duration::from_millis(50), client.next()).await.is_err(), "nothing else is told");
    let mut acks = broker.lock().acks.clone();
    acks.sort_unstable();
    assert_eq!(acks, [1, 2, 3, 9_000], "also what was known is acknowledged");
}

#[tokio::test]
async fn a_message_is_acknowledged_when_it_was_dealt_with() {
    let broker = Broker::default();
    broker.lock().deliveries.push_back((7, "im/v1/me/in/bob/msg".into(), from_bob(1, 0)));
    let mut client = in_memory(&broker, &options());
    until(&mut client, |event| matches!(event, Event::Message { .. })).await;
    // The answer shows that everything before it has gone up.
    client.ask("me/convs", json!({})).await.unwrap();
    assert!(!broker.lock().acks.contains(&7));
    client.settle();
    client.ask("me/convs", json!({})).await.unwrap();
    assert!(broker.lock().acks.contains(&7));
}

#[tokio::test]
async fn a_question_is_answered_where_it_was_asked() {
    let broker = Broker::default();
    broker.lock().history = vec![from_bob(1, 0)];
    let mut client = in_memory(&broker, &options());
    let convs = client.conversations().await.unwrap();
    assert_eq!((convs[0].addr.as_str(), convs[0].unread), ("bob", 1));
    let history = client.history("bob", Range::After(0), 10).await.unwrap();
    assert_eq!((history.messages[0].seq, history.more), (1, false));
    broker.lock().script.push_back(Fate::Refused);
    let error = client.contacts().await.unwrap_err();
    assert!(matches!(&error, AskError::Refused { code, .. } if code == "quota"), "{error}");
    let mut told = Vec::new();
    while let Ok(Some(event)) = timeout(Duration::from_millis(50), client.next()).await {
        told.push(event);
    }
    assert!(told.iter().all(|event| !matches!(event, Event::Answer { .. } | Event::Refused { .. })), "{told:?}");
}

#[tokio::test]
async fn there_is_an_end_after_which_nothing_comes() {
    let broker = Broker::default();
    broker.lock().is_down = true;
    let mut client = in_memory(&broker, &options());
    let id = client.send("bob", "hello").await.unwrap();
    until(&mut client, |event| matches!(event, Event::Disconnected { .. })).await;
    broker.lock().end = Some(End::Fatal(ConnectError::Kicked));
    broker.lock().is_down = false;
    let end = until(&mut client, is_end).await;
    assert!(matches!(&end, Event::Lost { id: lost, why, .. } if *lost == id && why.code == "no_answer"), "{end:?}");
    assert_eq!(next(&mut client).await, Event::Ended { error: ConnectError::Kicked });
    assert_eq!(timeout(PATIENCE, client.next()).await, Ok(None));
    assert_eq!(client.send("bob", "anybody?").await, Err(SendError::Closed));
}

#[tokio::test]
async fn a_command_does_not_go_out_after_its_deadline() {
    let broker = Broker::default();
    broker.lock().is_down = true;
    let mut client = in_memory(&broker, &options());
    let deadline = CommandOptions { deadline: Some(Duration::from_millis(1)), ..CommandOptions::default() };
    let id = client.command("door", "open", json!({}), deadline).await.unwrap();
    let end = until(&mut client, is_end).await;
    assert!(matches!(&end, Event::Lost { id: lost, why, .. } if *lost == id && why.code == "expired"), "{end:?}");
    broker.lock().is_down = false;
    until(&mut client, |event| *event == Event::Connected).await;
    client.ask("me/convs", json!({})).await.unwrap();
    assert!(broker.lock().published.iter().all(|publish| !publish.topic.contains("/cmd/")));
}

#[tokio::test]
async fn before_the_handshake_only_what_may_arrive_twice_goes() {
    let broker = Broker::default();
    broker.lock().stays_early = true;
    let client = in_memory(&broker, &options());
    client.send("bob", "hello").await.unwrap();
    client.command("door", "open", json!({}), CommandOptions::default()).await.unwrap();
    client.send("bob", "after the command").await.unwrap();
    let published = timeout(PATIENCE, async {
        loop {
            let topics: Vec<String> = broker.lock().published.iter().map(|p| p.topic.clone()).collect();
            if !topics.is_empty() {
                return topics;
            }
            tokio::task::yield_now().await;
        }
    });
    assert_eq!(published.await.unwrap(), ["im/v1/to/bob/msg"], "nothing overtakes the command");
}

#[tokio::test]
async fn subscriptions_stand_on_every_connection() {
    let broker = Broker::default();
    let mut client = in_memory(&broker, &options());
    client.subscribe(Filter::at_least_once("home/#")).unwrap();
    assert!(matches!(client.subscribe(Filter::at_least_once("im/v1/#")), Err(SendError::Topic(_))));
    broker.lock().deliveries.push_back((1, "home/temp".into(), json!(21.5)));
    broker.lock().script.push_back(Fate::CutBefore);
    client.publish("home/lamp", "on").await.unwrap();
    let event = until(&mut client, |event| matches!(event, Event::Published { .. })).await;
    assert_eq!(event, Event::Published { topic: "home/temp".into(), payload: b"21.5".to_vec() });
    let end = until(&mut client, is_end).await;
    assert!(matches!(&end, Event::Received { re, .. } if re == "home/lamp"), "{end:?}");
    assert_eq!(broker.lock().subscribed.last().map(String::as_str), Some("home/#"));
    assert_eq!(broker.lock().published.len(), 2, "once on each connection");
}

#[tokio::test]
async fn what_is_no_topic_is_refused_and_holds_nothing_up() {
    let broker = Broker::default();
    let mut client = in_memory(&broker, &options());
    client.with(|messenger| messenger.ask("to/+/msg", json!({"text": "everybody"}))).unwrap();
    let id = client.send("bob", "hello").await.unwrap();
    let refused = until(&mut client, |event| matches!(event, Event::Refused { .. })).await;
    assert!(matches!(refused, Event::Refused { refusal, .. } if refusal.code == "bad_topic"));
    assert!(matches!(until(&mut client, is_end).await, Event::Received { id: told, .. } if told == id));
    assert_eq!(broker.lock().published.len(), 1, "it never went out");
    assert!(matches!(client.subscribe(Filter::at_least_once("a/#/b")), Err(SendError::Topic(_))));
}

#[tokio::test]
async fn wrong_words_are_refused_at_once() {
    let client = in_memory(&Broker::default(), &options());
    assert!(matches!(client.send("Bob", "hi").await, Err(SendError::Address(_))));
    let id = crate::Draft::text("hi").id("no id");
    assert!(matches!(client.send("bob", id).await, Err(SendError::Id(_))));
    assert!(matches!(client.publish("a/+", "x").await, Err(SendError::Topic(_))));
    let none = CommandOptions::default();
    assert!(matches!(client.command("lamp", "a/b", json!({}), none).await, Err(SendError::Name(_))));
}
