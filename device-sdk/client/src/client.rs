//! The client as its user has it.

use crate::engine::Engine;
use crate::error::{ConnectError, OutboxError};
use crate::handle::Handle;
use crate::model::Messenger;
use crate::model::event::{Event, Told};
use crate::options::{Options, OutboxKind};
use crate::road::{Login, RealRoads, Roads};
use crate::shared::{Item, Shared, now_ms, random};
use crate::store::Store;
use crate::target::Target;
use std::collections::VecDeque;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

/// A client that connects, and connects again, until it is closed or dropped. What it can say is on [`Handle`], to which it
/// derefs; what it hears comes from [`Client::next`].
#[derive(Debug)]
pub struct Client {
    handle: Handle,
    /// Dealt with when the caller comes back for the next one: only then is it acknowledged.
    last: Option<Item>,
    task: JoinHandle<()>,
    farewell: Duration,
}

impl Client {
    /// Connects, and says how the first attempt went. From then on connections that break are made again by themselves.
    ///
    /// The URL is `SCHEME://[USER[:PASSWORD]@]HOST[:PORT]`, the scheme one of [`crate::target::Scheme`].
    ///
    /// # Errors
    /// Whatever was wrong with the first attempt. [`Client::start`] begins without waiting for one.
    pub async fn connect(url: &str, options: Options) -> Result<Self, ConnectError> {
        let client = Self::start(url, options).await?;
        loop {
            let first = client.handle.shared.lock().first.clone();
            match first {
                Some(Ok(())) => return Ok(client),
                Some(Err(error)) => return Err(error),
                None => client.handle.shared.told.notified().await,
            }
        }
    }

    /// Begins to connect, and goes on until there is a way. What is sent meanwhile waits.
    ///
    /// # Errors
    /// What no attempt could mend: a wrong URL, no account, unreadable certificates, an outbox that cannot be used.
    pub async fn start(url: &str, options: Options) -> Result<Self, ConnectError> {
        let (target, named) = Target::parse(url)?;
        if let Some(bad) = options.listen.filters().into_iter().find(|filter| !filter.is_legal()) {
            return Err(ConnectError::Subscription { filter: bad.filter, why: "it is no topic filter".to_owned() });
        }
        let user = named.user.or_else(|| options.user.clone()).ok_or(ConnectError::NoUser)?;
        let password = named.password.or_else(|| options.password.clone()).unwrap_or_default().0;
        let (store, messenger, ends, terminal) = prepare(&options, &user).await?;
        let login = Login { target: target.clone(), user, password, terminal, options: options.clone() };
        let roads = RealRoads::new(login)?;
        Self::over(roads, target, &options, store, messenger, ends)
    }

    /// A client over other roads.
    pub(crate) fn over(
        roads: impl Roads,
        target: Target,
        options: &Options,
        store: Option<Store>,
        messenger: Messenger,
        ends: Vec<Item>,
    ) -> Result<Self, ConnectError> {
        let runtime = tokio::runtime::Handle::try_current().map_err(|_| ConnectError::NoRuntime)?;
        let shared = Arc::new(Shared::new(messenger));
        shared.lock().queue.extend(ends);
        let engine = Engine {
            shared: Arc::clone(&shared),
            roads,
            store,
            target,
            filters: options.listen.filters(),
            backoff: options.backoff,
            attempt: options.attempt,
            jobs: VecDeque::new(),
            epoch: 0,
        };
        let task = runtime.spawn(engine.run());
        Ok(Self { handle: Handle { shared }, last: None, task, farewell: options.farewell })
    }

    /// The next event; `None`: there is nothing more, after [`Event::Ended`]. May be dropped while it waits.
    ///
    /// Whoever comes back for the next event has dealt with the one before: a message is acknowledged to the broker, which
    /// calls it delivered, and the row of what was sent is removed.
    pub async fn next(&mut self) -> Option<Event> {
        self.next_told().await.map(|told| told.event)
    }

    /// Like [`Client::next`], with the payload as it came.
    pub async fn next_told(&mut self) -> Option<Told> {
        self.settle();
        loop {
            {
                let mut core = self.handle.shared.lock();
                if let Some(item) = core.next() {
                    drop(core);
                    self.handle.shared.wake.notify_one();
                    let told = item.told.clone();
                    self.last = Some(item);
                    return Some(told);
                }
                if core.is_over {
                    return None;
                }
            }
            self.handle.shared.told.notified().await;
        }
    }

    /// Says that the event before has been dealt with, before the next one is asked for: a device has a command when it has
    /// read it, whatever becomes of it.
    pub fn settle(&mut self) {
        let Some(item) = self.last.take() else { return };
        if item.ack.is_none() && item.row.is_none() {
            return;
        }
        let mut core = self.handle.shared.lock();
        core.acks.extend(item.ack);
        core.told_rows.extend(item.row);
        drop(core);
        self.handle.shared.wake.notify_one();
    }

    /// Another way to the same client, for other tasks.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Leaves: waits for answers, at most as long as [`Options::farewell`] says, and ends the connection in an orderly way.
    /// Returns how many things had no answer. With [`OutboxKind::File`] the next client on that file sends them again; with
    /// [`OutboxKind::Memory`] they are gone.
    pub async fn close(mut self) -> usize {
        self.settle();
        self.handle.shared.lock().leave = Some(Instant::now() + self.farewell);
        self.handle.shared.wake.notify_one();
        // The engine keeps to its own limits; this one is for an engine that does not.
        let _ = timeout(self.farewell + Duration::from_secs(5), &mut self.task).await;
        self.handle.shared.lock().messenger.waiting()
    }
}

impl Deref for Client {
    type Target = Handle;

    fn deref(&self) -> &Handle {
        &self.handle
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// How long a client that was dropped may take to let go of its outbox.
const LET_GO: Duration = Duration::from_secs(2);

/// Opens the outbox, and takes up what is in it.
async fn prepare(options: &Options, user: &str) -> Result<(Option<Store>, Messenger, Vec<Item>, String), ConnectError> {
    let mut messenger = Messenger::new(user, random());
    messenger.limit_outbox(options.outbox_max);
    let new = format!("parlor-{:012x}", random() & 0xFFFF_FFFF_FFFF);
    let OutboxKind::File(path) = &options.outbox else {
        return Ok((None, messenger, Vec::new(), options.terminal.clone().unwrap_or(new)));
    };
    messenger.keep_rows();
    let runtime = tokio::runtime::Handle::try_current().map_err(|_| ConnectError::NoRuntime)?;
    let deadline = Instant::now() + LET_GO;
    let (store, left) = loop {
        let (path, account, terminal, new) = (path.clone(), user.to_owned(), options.terminal.clone(), new.clone());
        let open = move || Store::open(&path, &account, terminal.as_deref(), &new);
        match runtime.spawn_blocking(open).await.map_err(|_| ConnectError::NoRuntime)? {
            Err(OutboxError::Busy { .. }) if Instant::now() < deadline => sleep(LET_GO / 50).await,
            opened => break opened?,
        }
    };
    let mut ends = Vec::new();
    for (row, end) in left.rows {
        messenger.restore(&row, now_ms());
        let Some(end) = end else { continue };
        // It has ended already, but nobody may have been told.
        messenger.handle_answer(row.token, end);
        while let Some(told) = messenger.poll_event() {
            ends.push(Item { told, ack: None, row: Some(row.token) });
        }
    }
    Ok((Some(store), messenger, ends, left.terminal))
}
