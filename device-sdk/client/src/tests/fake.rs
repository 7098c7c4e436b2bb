//! A broker that keeps its promises over a network that does not.

use crate::model::event::Answer;
use crate::model::up::Publish;
use crate::options::Filter;
use crate::road::{DOWN_MAX, Delivery, Down, End, Road, Roads, UP_MAX, Up};
use serde_json::{Value, json};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::sync::mpsc;

/// The broker; clones are the same one.
#[derive(Clone, Default)]
pub(super) struct Broker(Arc<Mutex<State>>);

#[derive(Default)]
pub(super) struct State {
    /// Ids and the seq they got.
    pub ids: BTreeMap<String, u64>,
    /// What it took, in order.
    pub taken: Vec<String>,
    /// Everything that was published to it, also what it did not live to see.
    pub published: Vec<Publish>,
    pub acks: Vec<u64>,
    pub subscribed: Vec<String>,
    /// What comes of the next publishes; without one, chance.
    pub script: VecDeque<Fate>,
    /// How many of a hundred steps break the connection.
    pub cuts: u64,
    /// No connection can be made.
    pub is_down: bool,
    /// The next connection ends with this.
    pub end: Option<End>,
    /// Connections begin with what may arrive twice, and get no further.
    pub stays_early: bool,
    /// Sent on the next connection, in order.
    pub deliveries: VecDeque<(u64, String, Value)>,
    /// Called when a publish has arrived, before anything comes of it.
    pub on_publish: Option<Box<dyn FnMut() + Send>>,
    /// The answers to history.
    pub history: Vec<Value>,
    random: u64,
}

/// What comes of a publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// The connection breaks before the broker has it.
    CutBefore,
    /// The broker has it, and the connection breaks before it says so.
    CutAfter,
    Answered,
    Refused,
}

impl Broker {
    pub fn seeded(seed: u64, cuts: u64) -> Self {
        let broker = Self::default();
        (broker.lock().random, broker.lock().cuts) = (seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1, cuts);
        broker
    }

    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }
}

impl State {
    /// xorshift64
    fn random(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }

    fn is_cut(&mut self) -> bool {
        self.cuts > 0 && self.random() % 100 < self.cuts
    }

    fn fate(&mut self) -> Fate {
        if let Some(fate) = self.script.pop_front() {
            return fate;
        }
        match (self.is_cut(), self.random() % 2) {
            (true, 0) => Fate::CutBefore,
            (true, _) => Fate::CutAfter,
            _ => Fate::Answered,
        }
    }

    /// Takes a publish, once for each id.
    fn take(&mut self, publish: &Publish) -> Answer {
        let body: Value = serde_json::from_slice(&publish.payload).unwrap_or(Value::Null);
        if body["text"] == "refuse this" {
            return Answer::Refused { code: "no_consent".into(), text: "ask first".into() };
        }
        let Some(id) = body["id"].as_str().filter(|_| publish.topic.contains("/to/")) else {
            return Answer::Accepted { seq: None, dup: false };
        };
        if let Some(seq) = self.ids.get(id) {
            return Answer::Accepted { seq: Some(*seq), dup: true };
        }
        let seq = self.ids.len() as u64 + 1;
        self.ids.insert(id.to_owned(), seq);
        self.taken.push(id.to_owned());
        Answer::Accepted { seq: Some(seq), dup: false }
    }
}

/// Roads to it.
pub(super) struct FakeRoads(Broker);

impl FakeRoads {
    pub fn new(broker: &Broker) -> Self {
        Self(broker.clone())
    }
}

impl Roads for FakeRoads {
    fn open(&mut self, filters: Vec<Filter>) -> Road {
        let (up, ups) = mpsc::channel(UP_MAX);
        let (downs, down) = mpsc::channel(DOWN_MAX);
        self.0.lock().subscribed = filters.into_iter().map(|filter| filter.filter).collect();
        let task = tokio::spawn(live(self.0.clone(), ups, downs));
        Road { up, down, window: 8, task }
    }
}

async fn live(broker: Broker, mut ups: mpsc::Receiver<Up>, down: mpsc::Sender<Down>) {
    let lost = || Down::Ended(End::Lost("cut".into()));
    let (end, is_refused) = {
        let mut state = broker.lock();
        (state.end.take(), state.is_down || state.is_cut())
    };
    if let Some(end) = end {
        let _ = down.send(Down::Ended(end)).await;
        return;
    }
    if is_refused {
        let _ = down.send(lost()).await;
        return;
    }
    let is_early = broker.lock().stays_early;
    let _ = down.send(if is_early { Down::Early } else { Down::Connected }).await;
    let deliveries: Vec<_> = broker.lock().deliveries.drain(..).collect();
    for (number, topic, body) in deliveries {
        let _ = down.send(message(Some(number), &topic, &body)).await;
    }
    while let Some(up) = ups.recv().await {
        let publish = match up {
            Up::Publish(publish) => publish,
            Up::Acknowledge(number) => {
                broker.lock().acks.push(number);
                continue;
            }
            Up::Subscribe(filter) => {
                broker.lock().subscribed.push(filter.filter);
                continue;
            }
            Up::Close => return,
            Up::Unsubscribe(_) | Up::Rebind => continue,
        };
        let (fate, answer, answers) = {
            let mut state = broker.lock();
            state.published.push(publish.clone());
            if let Some(on_publish) = &mut state.on_publish {
                on_publish();
            }
            let fate = state.fate();
            let answer = match fate {
                Fate::CutBefore => None,
                Fate::Refused => Some(Answer::Refused { code: "quota".into(), text: "too fast".into() }),
                Fate::CutAfter | Fate::Answered => Some(state.take(&publish)),
            };
            (fate, answer, answers(&state, &publish))
        };
        if matches!(fate, Fate::CutBefore | Fate::CutAfter) {
            let _ = down.send(lost()).await;
            return;
        }
        if let Some(answer) = answer {
            let _ = down.send(Down::Answered { token: publish.token, answer }).await;
        }
        if let Some((topic, body)) = answers {
            let _ = down.send(message(Some(9_000), &topic, &body)).await;
        }
    }
}

/// The answer to a request.
fn answers(state: &State, publish: &Publish) -> Option<(String, Value)> {
    let below = publish.topic.strip_prefix("im/v1/me/")?;
    let request: Value = serde_json::from_slice(&publish.payload).ok()?;
    let (re, id) = (format!("me/{below}"), &request["id"]);
    Some(match below {
        "history" => {
            let after = request["after"].as_u64().unwrap_or_default();
            let wanted = |m: &&Value| m["seq"].as_u64().is_some_and(|seq| seq > after);
            let messages: Vec<&Value> = state.history.iter().filter(wanted).collect();
            let body = json!({"re": re, "id": id, "with": request["with"], "more": false, "messages": messages});
            ("im/v1/me/history/res".to_owned(), body)
        }
        "convs" => {
            let convs = json!([{"addr": "bob", "kind": "person", "seq": 3, "unread": 1}]);
            ("im/v1/me/convs/res".to_owned(), json!({"re": re, "id": id, "convs": convs}))
        }
        _ => return None,
    })
}

fn message(number: Option<u64>, topic: &str, body: &Value) -> Down {
    let payload = body.to_string().into_bytes();
    Down::Message(Delivery { topic: topic.to_owned(), payload, is_retained: false, number })
}
