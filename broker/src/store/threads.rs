//! The engine on threads of its own: one commits and answers questions, one folds and merges.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parlor_core::store::{Batch, BatchNo, Load, Query, Snapshot, Store, StoreEvent};
use redb::ReadTransaction;

use super::backup::{self, BackupError, Progress};
use super::disk::Disk;
use super::engine::{Engine, Recovery};
use super::job::{Job, JobDone};
use super::{OpenError, Options, StoreError};

/// Loads and queries answered between two commits, so that a long queue being read does not hold up
/// acknowledgements.
const QUESTIONS_A_TURN: usize = 4;
/// How often the room on the disk is looked at, at most.
const SPACE_EVERY: Duration = Duration::from_secs(1);

/// Upper bounds of the buckets of [`Figures::commit_latency`], microseconds; one more bucket holds the rest.
pub const LATENCY_BOUNDS_US: [u64; 12] =
    [100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000];

/// Counted since the store was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Figures {
    /// Group commits: one write and one sync each.
    pub commits: u64,
    /// Batches committed.
    pub batches: u64,
    /// Facts committed.
    pub facts: u64,
    /// Bytes written to the journal, padding included.
    pub journal_bytes: u64,
    /// Folds finished.
    pub folds: u64,
    /// Time they took, microseconds.
    pub fold_us: u64,
    /// Queue entries they wrote to the index.
    pub folded_entries: u64,
    /// Rows they wrote to the index.
    pub folded_rows: u64,
    /// Merges of runs of rows that came to their end.
    pub merges: u64,
    /// Bytes of rows that merges read.
    pub merged_bytes: u64,
    /// Time merging took, microseconds.
    pub merge_us: u64,
    /// Runs of rows in the index.
    pub row_runs: u64,
    /// Facts about rows that are only in the journal.
    pub tail_rows: u64,
    /// Full journal segments waiting for their fold.
    pub frozen_segments: u64,
    /// Queue entries that are only in the journal.
    pub tail_entries: u64,
    /// Batches waiting to be committed.
    pub waiting_batches: u64,
    /// Loads and queries waiting to be answered.
    pub waiting_loads: u64,
    /// Commits by the time from `submit` of their oldest batch to `Committed`; bounds in [`LATENCY_BOUNDS_US`].
    pub commit_latency: [u64; LATENCY_BOUNDS_US.len() + 1],
    /// Sum of those times, microseconds.
    pub commit_latency_us: u64,
}

/// Reads the figures from any thread.
#[derive(Debug, Clone)]
pub struct FiguresHandle(Arc<Shared>);

impl FiguresHandle {
    /// The figures now.
    pub fn read(&self) -> Figures {
        let mut figures = *lock(&self.0.figures);
        let inbox = lock(&self.0.inbox);
        figures.waiting_batches = inbox.batches.len() as u64;
        figures.waiting_loads = inbox.questions.len() as u64;
        figures
    }
}

/// What the threads have in common.
#[derive(Debug)]
struct Shared {
    inbox: Mutex<Inbox>,
    bell: Condvar,
    events: Mutex<VecDeque<StoreEvent>>,
    /// True when `events` may hold something; saves the lock in `poll`.
    has_events: AtomicBool,
    figures: Mutex<Figures>,
    fold_us: AtomicU64,
    merge_us: AtomicU64,
}

/// What waits for the journal thread. The hub bounds batches and questions by what it lets in before their answers.
#[derive(Debug, Default)]
struct Inbox {
    batches: Vec<Batch>,
    last: Option<BatchNo>,
    /// When the oldest batch came.
    since: Option<Instant>,
    questions: VecDeque<Question>,
    done: Option<Result<JobDone, StoreError>>,
    views: Vec<SyncSender<Result<ReadTransaction, StoreError>>>,
    closing: bool,
    ended: bool,
}

/// What is answered in the order it was asked.
#[derive(Debug)]
enum Question {
    Load(Load),
    Query(Query),
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is behind these locks is whole between any two statements, so a panic elsewhere spoils nothing.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The store of the running broker.
#[derive(Debug)]
pub struct StoreThreads {
    shared: Arc<Shared>,
    journal: Option<JoinHandle<Result<(), StoreError>>>,
    recovery: Recovery,
}

impl StoreThreads {
    /// Opens the store on `disk` and starts its threads. `wake` is called, from one of them, when [`Store::poll`]
    /// has something new.
    pub fn open(
        disk: Arc<dyn Disk>,
        options: &Options,
        wake: Box<dyn Fn() + Send>,
    ) -> Result<(Self, Snapshot), OpenError> {
        let (engine, snapshot) = Engine::open(disk, options)?;
        let recovery = engine.recovery();
        let shared = Arc::new(Shared {
            inbox: Mutex::default(),
            bell: Condvar::new(),
            events: Mutex::default(),
            has_events: AtomicBool::new(false),
            figures: Mutex::default(),
            fold_us: AtomicU64::new(0),
            merge_us: AtomicU64::new(0),
        });
        let failed = |source| StoreError::Io { action: "start a thread for", file: "the store".to_owned(), source };
        let (jobs, job_queue) = sync_channel(1);
        let for_fold = Arc::clone(&shared);
        let folder = std::thread::Builder::new()
            .name("store-fold".to_owned())
            .spawn(move || run_jobs(&job_queue, &for_fold))
            .map_err(failed)?;
        let worker = Worker {
            shared: Arc::clone(&shared),
            engine,
            wake,
            jobs,
            is_busy: false,
            holding: false,
            views: vec![],
            max_frozen: options.max_frozen_segments.max(1),
            low_space_bytes: options.low_space_bytes,
            is_low: false,
            space_seen: None,
        };
        let journal = std::thread::Builder::new()
            .name("store-journal".to_owned())
            .spawn(move || {
                let result = worker.run();
                // The fold thread ends when the worker, which holds its queue, is gone.
                let joined = folder.join();
                debug_assert!(joined.is_ok(), "the fold thread panicked");
                result
            })
            .map_err(failed)?;
        Ok((Self { shared, journal: Some(journal), recovery }, snapshot))
    }

    /// What opening found in the journal.
    pub fn recovery(&self) -> Recovery {
        self.recovery
    }

    /// A handle on the figures.
    pub fn figures(&self) -> FiguresHandle {
        FiguresHandle(Arc::clone(&self.shared))
    }

    /// A handle with which another thread makes backups.
    pub fn backups(&self) -> BackupHandle {
        BackupHandle(Arc::clone(&self.shared))
    }

    fn ask(&self, question: Question) {
        let mut inbox = lock(&self.shared.inbox);
        if inbox.ended {
            return;
        }
        inbox.questions.push_back(question);
        drop(inbox);
        self.shared.bell.notify_one();
    }

    /// Commits everything submitted, folds it, and ends the threads. Events not polled yet stay to be polled.
    pub fn close(&mut self) -> Result<(), StoreError> {
        lock(&self.shared.inbox).closing = true;
        self.shared.bell.notify_one();
        let ended = self.journal.take().map(JoinHandle::join);
        match ended {
            Some(Ok(result)) => result,
            Some(Err(_)) => Err(StoreError::Stopped("the journal thread panicked".to_owned())),
            None => Ok(()),
        }
    }
}

impl Drop for StoreThreads {
    fn drop(&mut self) {
        // Whoever wants to know the result calls `close`.
        drop(self.close());
    }
}

impl Store for StoreThreads {
    fn submit(&mut self, number: BatchNo, batch: Batch) {
        let mut inbox = lock(&self.shared.inbox);
        if inbox.ended {
            // `Failed` was reported; nothing more becomes durable, and nothing more is kept.
            return;
        }
        inbox.batches.push(batch);
        inbox.last = Some(number);
        if inbox.since.is_none() {
            inbox.since = Some(Instant::now());
        }
        drop(inbox);
        self.shared.bell.notify_one();
    }

    fn load(&mut self, load: Load) {
        self.ask(Question::Load(load));
    }

    fn query(&mut self, query: Query) {
        self.ask(Question::Query(query));
    }

    fn poll(&mut self) -> Option<StoreEvent> {
        if !self.shared.has_events.load(Ordering::Acquire) {
            return None;
        }
        let mut events = lock(&self.shared.events);
        let event = events.pop_front();
        if events.is_empty() {
            self.shared.has_events.store(false, Ordering::Release);
        }
        event
    }
}

/// Makes backups of a running store from any thread.
#[derive(Debug, Clone)]
pub struct BackupHandle(Arc<Shared>);

impl BackupHandle {
    /// Writes a backup of everything committed before this call. Blocks this thread; the store goes on, except for a
    /// short stop of commits while the last of the journal is folded.
    pub fn backup(&self, out: &mut dyn io::Write, progress: &mut dyn FnMut(Progress)) -> Result<Progress, BackupError> {
        let (sender, receiver) = sync_channel(1);
        {
            let mut inbox = lock(&self.0.inbox);
            if inbox.closing || inbox.ended {
                return Err(BackupError::Closed);
            }
            inbox.views.push(sender);
        }
        self.0.bell.notify_one();
        let view = receiver.recv().map_err(|_| BackupError::Closed)??;
        backup::write(&view, out, progress)
    }
}

fn run_jobs(jobs: &Receiver<Job>, shared: &Shared) {
    while let Ok(job) = jobs.recv() {
        let began = Instant::now();
        let time = if job.is_fold() { &shared.fold_us } else { &shared.merge_us };
        let result = job.run();
        let took = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
        time.fetch_add(took, Ordering::Relaxed);
        lock(&shared.inbox).done = Some(result);
        shared.bell.notify_one();
    }
}

/// The journal thread.
struct Worker {
    shared: Arc<Shared>,
    engine: Engine,
    wake: Box<dyn Fn() + Send>,
    jobs: SyncSender<Job>,
    /// A job is with the other thread.
    is_busy: bool,
    /// No commits until the fold under way is done: its result is to be a backup.
    holding: bool,
    views: Vec<SyncSender<Result<ReadTransaction, StoreError>>>,
    max_frozen: usize,
    low_space_bytes: u64,
    is_low: bool,
    space_seen: Option<Instant>,
}

/// What the journal thread takes from its inbox in one turn.
struct Turn {
    batches: Vec<Batch>,
    last: Option<BatchNo>,
    since: Option<Instant>,
    questions: Vec<Question>,
    done: Option<Result<JobDone, StoreError>>,
    closing: bool,
}

impl Worker {
    fn run(mut self) -> Result<(), StoreError> {
        let result = self.work();
        if let Err(error) = &result {
            self.report(StoreEvent::Failed(error.to_string()));
            for view in self.views.drain(..) {
                // Whoever asked may have gone away.
                drop(view.send(Err(StoreError::Stopped(error.to_string()))));
            }
        }
        let mut inbox = lock(&self.shared.inbox);
        inbox.ended = true;
        inbox.views.clear();
        drop(inbox);
        result.and_then(|()| self.engine.close())
    }

    fn work(&mut self) -> Result<(), StoreError> {
        self.look_at_space()?;
        // A merge that the last end interrupted.
        self.start_job(false);
        loop {
            let turn = self.next_turn();
            if let Some(done) = turn.done {
                self.is_busy = false;
                self.engine.finish_job(done)?;
            }
            // Before views are looked at: what this turn holds was taken when commits were allowed.
            if !turn.batches.is_empty() {
                self.commit(&turn.batches, turn.last, turn.since)?;
            }
            self.answer_views()?;
            for question in &turn.questions {
                let event = match question {
                    Question::Load(load) => StoreEvent::Page(self.engine.load(load)?),
                    Question::Query(query) => StoreEvent::Answer(self.engine.query(query)?),
                };
                self.report(event);
            }
            self.start_job(turn.closing);
            self.note_figures();
            if turn.closing && !self.is_busy && self.engine.backlog() == 0 && self.is_idle() {
                return Ok(());
            }
            self.look_at_space()?;
        }
    }

    fn is_idle(&self) -> bool {
        let inbox = lock(&self.shared.inbox);
        inbox.batches.is_empty() && inbox.questions.is_empty() && inbox.views.is_empty() && self.views.is_empty()
    }

    /// Waits until there is something to do.
    fn next_turn(&mut self) -> Turn {
        let shared = Arc::clone(&self.shared);
        let mut inbox = lock(&shared.inbox);
        loop {
            self.views.append(&mut inbox.views);
            let may_commit = !self.holding && self.engine.backlog() < self.max_frozen;
            let has_batches = may_commit && !inbox.batches.is_empty();
            let may_end = inbox.closing && !self.is_busy && inbox.batches.is_empty();
            let view_is_due = !self.views.is_empty() && !self.is_busy;
            if has_batches || !inbox.questions.is_empty() || inbox.done.is_some() || may_end || view_is_due {
                let questions = inbox.questions.len().min(QUESTIONS_A_TURN);
                return Turn {
                    batches: if has_batches { std::mem::take(&mut inbox.batches) } else { vec![] },
                    last: inbox.last,
                    since: if has_batches { inbox.since.take() } else { None },
                    questions: inbox.questions.drain(..questions).collect(),
                    done: inbox.done.take(),
                    closing: inbox.closing,
                };
            }
            if self.is_low {
                // Nothing but time tells that there is room again.
                let (guard, timeout) =
                    shared.bell.wait_timeout(inbox, SPACE_EVERY).unwrap_or_else(PoisonError::into_inner);
                inbox = guard;
                if timeout.timed_out() {
                    let turn = Turn {
                        batches: vec![],
                        last: None,
                        since: None,
                        questions: vec![],
                        done: None,
                        closing: inbox.closing,
                    };
                    return turn;
                }
            } else {
                inbox = shared.bell.wait(inbox).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }

    fn commit(&mut self, batches: &[Batch], last: Option<BatchNo>, since: Option<Instant>) -> Result<(), StoreError> {
        self.engine.commit(batches)?;
        if let Some(number) = last {
            self.report(StoreEvent::Committed(number));
        }
        let took = since.map_or(0, |since| u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX));
        let mut figures = lock(&self.shared.figures);
        figures.batches += batches.len() as u64;
        figures.commit_latency[LATENCY_BOUNDS_US.partition_point(|&bound| bound < took)] += 1;
        figures.commit_latency_us += took;
        Ok(())
    }

    /// Gives out a view of the index once it holds everything: when no fold is left to do, commits stop for the
    /// length of one last, small fold. Without the stop a view could hold the acknowledgement of a message and lack
    /// what was committed together with it.
    fn answer_views(&mut self) -> Result<(), StoreError> {
        if self.views.is_empty() || self.is_busy || self.engine.backlog() > 0 {
            return Ok(());
        }
        if !self.holding {
            self.engine.freeze()?;
            self.holding = true;
            if self.engine.backlog() > 0 {
                return Ok(());
            }
        }
        self.holding = false;
        for view in self.views.drain(..) {
            // Whoever asked may have gone away.
            drop(view.send(self.engine.index_view()));
        }
        Ok(())
    }

    fn start_job(&mut self, closing: bool) {
        // An orderly end and a backup wait for folds; merging can wait.
        let job = if closing || self.holding { self.engine.start_fold() } else { self.engine.start_job() };
        if let Some(job) = job {
            self.is_busy = true;
            // The queue holds one and the last job is done, so this does not wait; the other thread ends after us.
            let sent = self.jobs.send(job);
            debug_assert!(sent.is_ok(), "the thread of jobs is gone");
        }
    }

    fn note_figures(&self) {
        let totals = self.engine.totals();
        let mut figures = lock(&self.shared.figures);
        figures.commits = totals.commits;
        figures.facts = totals.facts;
        figures.journal_bytes = totals.journal_bytes;
        figures.folds = totals.folds;
        figures.folded_entries = totals.folded_entries;
        figures.folded_rows = totals.folded_rows;
        figures.merges = totals.merges;
        figures.merged_bytes = totals.merged_bytes;
        figures.merge_us = self.shared.merge_us.load(Ordering::Relaxed);
        figures.row_runs = self.engine.row_runs() as u64;
        figures.tail_rows = self.engine.tail_rows() as u64;
        figures.fold_us = self.shared.fold_us.load(Ordering::Relaxed);
        figures.frozen_segments = self.engine.backlog() as u64;
        figures.tail_entries = self.engine.tail_entries() as u64;
    }

    fn look_at_space(&mut self) -> Result<(), StoreError> {
        let now = Instant::now();
        if self.space_seen.is_some_and(|seen| now.duration_since(seen) < SPACE_EVERY) {
            return Ok(());
        }
        self.space_seen = Some(now);
        let free = self.engine.free_bytes()?;
        let limit = self.low_space_bytes;
        let is_low = free < if self.is_low { limit + limit / 4 } else { limit };
        if is_low != self.is_low {
            self.is_low = is_low;
            self.report(StoreEvent::LowSpace(is_low));
        }
        Ok(())
    }

    fn report(&self, event: StoreEvent) {
        lock(&self.shared.events).push_back(event);
        self.shared.has_events.store(true, Ordering::Release);
        (self.wake)();
    }
}
