//! The task behind a client: connects, carries everything up and down, puts rows on disk, and connects again.
//!
//! Order of things, for what has a row: row on disk, published, answered, answer on disk, told, row removed.

use crate::backoff::{Backoff, GOOD};
use crate::error::ConnectError;
use crate::model::event::Answer;
use crate::model::up::{Effort, Publish};
use crate::options::Filter;
use crate::road::{Down, End, Road, Roads, Up};
use crate::shared::{Core, QUEUE_MAX, Shared, now_ms, random};
use crate::store::{Done, Job, Store};
use crate::target::Target;
use std::collections::VecDeque;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep, sleep_until, timeout};

/// How often it is looked whether something is too late.
const LOOK: Duration = Duration::from_secs(1);
/// How long a road may take to end when it was asked to.
const FAREWELL: Duration = Duration::from_secs(2);

/// What the engine needs to begin.
pub(crate) struct Engine<R> {
    pub shared: Arc<Shared>,
    pub roads: R,
    pub store: Option<Store>,
    pub target: Target,
    pub filters: Vec<Filter>,
    pub backoff: Backoff,
    /// How long one attempt may take.
    pub attempt: Duration,
    /// Jobs that the store had no room for.
    pub jobs: VecDeque<Job>,
    /// Numbers connections.
    pub epoch: u64,
}

/// How far a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Connecting,
    /// Only what may arrive twice can go.
    Early,
    Connected,
}

/// One connection.
struct Life {
    stage: Stage,
    since: Instant,
    /// Publishes without an answer.
    unanswered: usize,
    /// At most so many.
    window: usize,
    /// The road had no room; wait for some.
    is_blocked: bool,
    /// What the road subscribes to by itself.
    filters: Vec<Filter>,
}

/// Why a connection is over.
enum Over {
    Left,
    Ended(End),
}

impl<R: Roads> Engine<R> {
    /// Runs until there is no way, or the client leaves.
    pub async fn run(mut self) {
        let mut failures = 0_u32;
        let ended = loop {
            let mut filters = self.filters.clone();
            {
                let core = self.shared.lock();
                filters.extend(core.filters.iter().filter(|filter| !self.filters.contains(filter)).cloned());
            }
            self.epoch += 1;
            let mut road = self.roads.open(filters.clone());
            let (stage, since) = (Stage::Connecting, Instant::now());
            let window = road.window;
            let mut life = Life { stage, since, unanswered: 0, window, is_blocked: false, filters };
            let over = self.live(&mut road, &mut life).await;
            drop(road);
            let why = match over {
                Over::Left => break None,
                Over::Ended(End::Fatal(error)) => break Some(error),
                Over::Ended(End::Lost(why)) => why,
            };
            let was_good = life.stage == Stage::Connected && life.since.elapsed() >= GOOD;
            let retry_in = self.backoff.pause(if was_good { 0 } else { failures }, random());
            failures = if was_good { 1 } else { failures.saturating_add(1) };
            self.lost(&why, retry_in);
            if self.wait(Instant::now() + retry_in).await.is_err() {
                break None;
            }
        };
        if let Some(error) = &ended {
            self.end(error);
        }
        self.finish(ended).await;
    }

    /// One connection, from the attempt to its end.
    async fn live(&mut self, road: &mut Road, life: &mut Life) -> Over {
        let attempt_ends = life.since + self.attempt;
        loop {
            self.give_up();
            self.pump(road, life);
            let (leave, is_full, is_waiting) = {
                let core = self.shared.lock();
                (core.leave, core.queue.len() >= QUEUE_MAX && core.leave.is_none(), core.messenger.waiting() > 0)
            };
            if leave.is_some_and(|leave| !is_waiting || Instant::now() >= leave) {
                self.say_goodbye(road).await;
                return Over::Left;
            }
            let shared = Arc::clone(&self.shared);
            tokio::select! {
                down = road.down.recv(), if !is_full => match down {
                    Some(Down::Ended(end)) => return Over::Ended(end),
                    Some(down) => self.handle(down, life),
                    None => return Over::Ended(End::Lost("the connection is gone".to_owned())),
                },
                done = next_done(self.store.as_mut()) => self.stored(done),
                () = shared.wake.notified() => {}
                permit = road.up.reserve(), if life.is_blocked => {
                    drop(permit);
                    life.is_blocked = false;
                }
                () = sleep(LOOK), if is_waiting => {}
                () = sleep_until(attempt_ends), if life.stage != Stage::Connected => {
                    return Over::Ended(End::Lost(format!("{} does not answer", self.target)));
                }
                () = until(leave) => {}
            }
        }
    }

    /// Between two connections: rows still go to disk. `Err`: the client leaves.
    async fn wait(&mut self, until_then: Instant) -> Result<(), ()> {
        loop {
            self.give_up();
            self.give_rows();
            let (leave, is_waiting) = {
                let core = self.shared.lock();
                (core.leave, core.messenger.waiting() > 0)
            };
            if leave.is_some_and(|leave| !is_waiting || Instant::now() >= leave) {
                return Err(());
            }
            let shared = Arc::clone(&self.shared);
            tokio::select! {
                () = sleep_until(until_then) => return Ok(()),
                done = next_done(self.store.as_mut()) => self.stored(done),
                () = shared.wake.notified() => {}
                () = sleep(LOOK), if is_waiting => {}
                () = until(leave) => {}
            }
        }
    }

    /// Carries up what waits, as far as the road takes it: acknowledgements first.
    fn pump(&mut self, road: &Road, life: &mut Life) {
        self.give_rows();
        let mut core = self.shared.lock();
        if life.stage == Stage::Connecting {
            return;
        }
        while !life.is_blocked {
            let Ok(permit) = road.up.try_reserve() else {
                life.is_blocked = !road.up.is_closed();
                return;
            };
            match next_up(&mut core, self.epoch, life) {
                Some(up) => permit.send(up),
                None => return,
            }
        }
    }

    /// Something came down.
    fn handle(&mut self, down: Down, life: &mut Life) {
        let shared = Arc::clone(&self.shared);
        let mut core = shared.lock();
        match down {
            Down::Early => life.stage = Stage::Early,
            Down::Window(window) => life.window = life.window.min(usize::from(window)),
            Down::Connected => {
                life.stage = Stage::Connected;
                core.first.get_or_insert(Ok(()));
                core.ups.retain(|up| !matches!(up, Up::Subscribe(filter) if life.filters.contains(filter)));
                core.messenger.handle_connected();
                core.collect(false, None, None);
            }
            Down::Message(delivery) => {
                let ack = delivery.number.map(|number| (self.epoch, number));
                if delivery.topic.starts_with("im/") {
                    core.messenger.handle_publish(&delivery.topic, &delivery.payload, now_ms());
                } else {
                    core.messenger.handle_topic(&delivery.topic, delivery.payload);
                }
                if !core.collect(delivery.is_retained, ack, None) {
                    core.acks.extend(ack);
                }
            }
            Down::Answered { token, answer } => {
                life.unanswered = life.unanswered.saturating_sub(1);
                drop(core);
                self.answered(token, answer);
            }
            Down::NotSubscribed { filter, why } => {
                core.filters.retain(|known| known.filter != filter);
                core.messenger.handle_not_subscribed(&filter, &why);
                core.collect(false, None, None);
            }
            Down::Ended(_) => {}
        }
        shared.told.notify_one();
    }

    /// A publish has its end: first on disk, where it has a row, then told.
    fn answered(&mut self, token: u64, answer: Answer) {
        let mut core = self.shared.lock();
        if core.messenger.has_row(token) && self.store.is_some() {
            let is_first = core.messenger.begin_end(token);
            drop(core);
            if is_first {
                self.give(Job::End(token, answer));
            }
        } else {
            drop(core);
            self.tell_end(token, answer, None);
        }
    }

    fn tell_end(&self, token: u64, answer: Answer, row: Option<u64>) {
        let mut core = self.shared.lock();
        core.messenger.handle_answer(token, answer);
        if !core.collect(false, None, row) {
            // It is of a kind of which nobody is told; the row has done its work.
            core.told_rows.extend(row);
        }
        drop(core);
        self.shared.told.notify_one();
    }

    /// What is too late, or hopeless, has its end as well.
    fn give_up(&mut self) {
        loop {
            let given_up = self.shared.lock().messenger.poll_given_up(now_ms());
            let Some((token, answer)) = given_up else { return };
            self.answered(token, answer);
        }
    }

    /// Hands rows and removals to the store.
    fn give_rows(&mut self) {
        loop {
            let job = {
                let mut core = self.shared.lock();
                if self.store.is_none() {
                    core.told_rows.clear();
                    return;
                }
                match core.messenger.poll_row() {
                    Some(row) => Some(Job::Put(row)),
                    None => core.told_rows.pop().map(Job::Remove),
                }
            };
            match job {
                Some(job) => self.give(job),
                None => return,
            }
        }
    }

    /// Hands a job to the store, behind those that wait.
    fn give(&mut self, job: Job) {
        self.jobs.push_back(job);
        self.give_jobs();
    }

    fn give_jobs(&mut self) {
        let Some(store) = &self.store else { return };
        while let Some(job) = self.jobs.pop_front() {
            if let Err(job) = store.give(job) {
                self.jobs.push_front(job);
                return;
            }
        }
    }

    /// Something is on disk.
    fn stored(&mut self, done: Done) {
        match done {
            Done::Put(token, outcome) => {
                let mut core = self.shared.lock();
                match &outcome {
                    Ok(()) => core.messenger.handle_stored(token),
                    Err(_) => core.messenger.forget(token),
                }
                if let Some(writer) = core.writers.remove(&token) {
                    // Whoever has stopped waiting finds the end among the events.
                    let _ = writer.send(outcome);
                }
            }
            Done::End(token, answer) => self.tell_end(token, answer, Some(token)),
        }
        self.give_jobs();
    }

    fn lost(&self, why: &str, retry_in: Duration) {
        let mut core = self.shared.lock();
        core.first.get_or_insert(Err(ConnectError::Unreachable { target: self.target.clone(), why: why.to_owned() }));
        core.messenger.handle_disconnected(why, retry_in);
        core.collect(false, None, None);
        drop(core);
        self.shared.told.notify_one();
    }

    /// There is no way any more. What has a row waits for the next process; everything else is lost.
    fn end(&mut self, error: &ConnectError) {
        let mut core = self.shared.lock();
        core.messenger.give_up_all(&error.to_string());
        core.first.get_or_insert(Err(error.clone()));
        drop(core);
        self.give_up();
    }

    /// Leaves the road in an orderly way.
    async fn say_goodbye(&mut self, road: &mut Road) {
        let farewell = async {
            let _ = road.up.send(Up::Close).await;
            // The road must not wait for somebody who reads no more.
            while road.down.recv().await.is_some() {}
        };
        let _ = timeout(FAREWELL, farewell).await;
    }

    /// The last things: what was given to the disk gets there.
    async fn finish(mut self, ended: Option<ConnectError>) {
        // Also of what was told while the client already left.
        self.give_rows();
        while !self.jobs.is_empty() {
            self.give_jobs();
            let done = next_done(self.store.as_mut()).await;
            self.stored(done);
        }
        if let Some(mut store) = self.store.take() {
            // It blocks for the disk, which other tasks must not feel.
            let _ = tokio::task::spawn_blocking(move || store.close()).await;
        }
        if let Some(error) = ended {
            let mut core = self.shared.lock();
            core.messenger.handle_ended(error);
            core.collect(false, None, None);
        }
    }
}

/// The next thing for the road.
fn next_up(core: &mut Core, epoch: u64, life: &mut Life) -> Option<Up> {
    while let Some((of, number)) = core.acks.pop_front() {
        // On a connection that is gone there is nothing to acknowledge: it comes again.
        if of == epoch {
            return Some(Up::Acknowledge(number));
        }
    }
    if life.stage == Stage::Connected
        && let Some(up) = core.ups.pop_front()
    {
        return Some(up);
    }
    if life.unanswered >= life.window {
        return None;
    }
    let publish: Publish = match life.stage {
        Stage::Connected => core.messenger.poll_publish()?,
        _ => core.messenger.poll_early()?,
    };
    life.unanswered += usize::from(publish.effort == Effort::UntilAnswered);
    Some(Up::Publish(publish))
}

async fn next_done(store: Option<&mut Store>) -> Done {
    match store {
        Some(store) => match store.done().await {
            Some(done) => done,
            None => pending().await,
        },
        None => pending().await,
    }
}

async fn until(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => pending().await,
    }
}

/// So that nobody waits for a task that is gone.
impl<R> Drop for Engine<R> {
    fn drop(&mut self) {
        self.shared.lock().end();
        self.shared.told.notify_one();
    }
}
