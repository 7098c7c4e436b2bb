//! A client over roads that are cut, with a broker that is a few maps.

mod crash;
mod fake;
mod life;

use crate::client::Client;
use crate::model::Messenger;
use crate::options::{Options, OutboxKind};
use crate::shared::{Item, now_ms};
use crate::store::Store;
use crate::target::Target;
use crate::{Backoff, Event, OutboxError};
use fake::{Broker, FakeRoads};
use std::path::Path;
use std::time::Duration;
use tokio::time::timeout;

/// The longest a test waits for something to happen.
const PATIENCE: Duration = Duration::from_secs(20);

fn quick() -> Backoff {
    let (first, base, most) = (Duration::from_millis(1), Duration::from_millis(1), Duration::from_millis(4));
    Backoff { first, base, most }
}

fn options() -> Options {
    Options { backoff: quick(), farewell: Duration::from_secs(1), ..Options::default() }
}

fn in_memory(broker: &Broker, options: &Options) -> Client {
    let mut messenger = Messenger::new("alice", 0xABC);
    messenger.limit_outbox(options.outbox_max);
    let (target, _) = Target::parse("mqtt://nowhere").unwrap();
    Client::over(FakeRoads::new(broker), target, options, None, messenger, Vec::new()).unwrap()
}

/// A process of its own, as far as the outbox is concerned.
async fn on_disk(broker: &Broker, path: &Path, seed: u64) -> Client {
    let mut messenger = Messenger::new("alice", seed);
    messenger.keep_rows();
    let (store, left) = loop {
        // A client that was dropped lets go of it as soon as its task is.
        match Store::open(path, "alice", None, "t") {
            Err(OutboxError::Busy { .. }) => tokio::task::yield_now().await,
            opened => break opened.unwrap(),
        }
    };
    let mut ends = Vec::new();
    for (row, end) in left.rows {
        messenger.restore(&row, now_ms());
        if let Some(end) = end {
            messenger.handle_answer(row.token, end);
            ends.extend(messenger.poll_event().map(|told| Item { told, ack: None, row: Some(row.token) }));
        }
    }
    let (target, _) = Target::parse("mqtt://nowhere").unwrap();
    let options = Options { outbox: OutboxKind::File(path.to_owned()), ..options() };
    Client::over(FakeRoads::new(broker), target, &options, Some(store), messenger, ends).unwrap()
}

async fn next(client: &mut Client) -> Event {
    timeout(PATIENCE, client.next()).await.expect("something happens").expect("the client goes on")
}

/// The next event that `is` right; the others are passed over.
async fn until(client: &mut Client, is: impl Fn(&Event) -> bool) -> Event {
    loop {
        let event = next(client).await;
        if is(&event) {
            return event;
        }
    }
}

fn is_end(event: &Event) -> bool {
    matches!(event, Event::Received { .. } | Event::Lost { .. })
}
