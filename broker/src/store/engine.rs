//! The engine: journal, tail and index behind calls that return when they are done.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;

use parlor_core::store::{
    Answer, Batch, Fact, Load, Page, Query, QueueIndex, RetainedRecord, SessionNo, SessionRecord, Snapshot, WillRecord,
};
use redb::{Database, ReadTransaction, ReadableDatabase, ReadableTable};

use super::disk::Disk;
use super::fold::FoldJob;
use super::job::{Job, JobDone, Work, WorkDone};
use super::journal::{self, Folded, Journal, Segment, Sizes};
use super::rows::{MergeHabits, MergeJob, Recent, View};
use super::schema::{
    self, ACCOUNTS, INDEX, INDEX_NEW, META, QUEUES, QueueRow, RETAINED, SESSIONS, SUBSCRIPTIONS, WILLS, meta,
};
use super::tail::Tail;
use super::{OpenError, Options, StoreError, page, rows};

/// A store on the caller's thread. All calls but [`Job::run`] belong to one thread.
#[derive(Debug)]
pub struct Engine {
    disk: Arc<dyn Disk>,
    /// The rows of the index, as the tail knows them.
    view: View,
    db: Arc<Database>,
    journal: Journal,
    tail: Tail,
    rows: RowHabits,
    salt: u64,
    /// A job is under way.
    is_busy: bool,
    stopped: Option<String>,
    recovery: Recovery,
    totals: Totals,
}

/// What folds and merges are told of rows.
#[derive(Debug)]
struct RowHabits {
    merge: MergeHabits,
    filter_bytes: usize,
    /// Bytes that merges should read before the next fold.
    debt: u64,
    /// With the fold while one is under way.
    recent: Recent,
}

/// What [`Engine::open`] found in the journal.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Facts that were in the journal and not in the index.
    pub facts: u64,
    /// Journal segments folded.
    pub segments: u32,
    /// Bytes given up after damage; only with [`Options::salvage`].
    pub given_up_bytes: u64,
}

/// Counted since the engine was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Group commits.
    pub commits: u64,
    /// Bytes written to the journal.
    pub journal_bytes: u64,
    /// Facts committed.
    pub facts: u64,
    /// Folds finished.
    pub folds: u64,
    /// Queue entries written by folds.
    pub folded_entries: u64,
    /// Rows written by folds.
    pub folded_rows: u64,
    /// Merges of runs of rows that came to their end.
    pub merges: u64,
    /// Bytes of rows that merges read.
    pub merged_bytes: u64,
}

impl Engine {
    /// Opens the store on `disk`, making it when there is none: reads the journal, folds all of it, counts the
    /// start, and reads what the broker must know.
    pub fn open(disk: Arc<dyn Disk>, options: &Options) -> Result<(Self, Snapshot), OpenError> {
        let names = disk.list().map_err(|source| StoreError::Io {
            action: "list",
            file: "the data directory".to_owned(),
            source,
        })?;
        let has_index = names.iter().any(|name| name == INDEX);
        if !has_index && names.iter().any(|name| journal::is_journal(name)) {
            // Journal files are made after the index has its name for good.
            return Err(OpenError::IndexMissing { file: INDEX });
        }
        if names.iter().any(|name| name == INDEX_NEW) {
            disk.remove(INDEX_NEW).map_err(|source| StoreError::Io {
                action: "remove",
                file: INDEX_NEW.to_owned(),
                source,
            })?;
        }
        let db = if has_index {
            schema::open_index(disk.as_ref(), options.cache_bytes)?
        } else {
            let salt = options.salt.unwrap_or_else(random);
            let db = schema::create_index(disk.as_ref(), options.cache_bytes, salt)?;
            schema::name_index(disk.as_ref())?;
            db
        };
        let db = Arc::new(db);
        let folded = Folded {
            salt: schema::number(&db, meta::SALT)?,
            generation: u32::try_from(schema::number(&db, meta::FOLDED_GENERATION)?).unwrap_or(u32::MAX),
            record: schema::number(&db, meta::FOLDED_RECORD)?,
        };
        let recovered = journal::recover(disk.as_ref(), folded, options.salvage)?;
        let mut recovery = Recovery { given_up_bytes: recovered.given_up, ..Recovery::default() };
        let mut tail = Tail::default();
        let mut last = folded.record;
        for segment in &recovered.segments {
            if segment.last > last {
                recovery.facts += read_into(&mut tail, folded.salt, segment)?;
                recovery.segments += 1;
                last = segment.last;
            }
        }
        let mut rows = RowHabits {
            merge: MergeHabits {
                // One run cannot be merged, and at its level would be for ever.
                runs: options.merge_runs.max(2),
                slice_bytes: options.row_slice_bytes.min(options.cache_bytes as u64 * 3 / 8).max(1),
                retention: options.retention.clone(),
            },
            filter_bytes: options.filter_bytes,
            debt: 0,
            recent: Recent::default(),
        };
        let mut view = View::open(&db, None, &rows.merge, rows.filter_bytes)?;
        let mut from = folded.record;
        for segment in &recovered.segments {
            if segment.last > from {
                let job = fold_job(&db, &mut tail, folded.salt, segment.clone(), &view, &mut rows);
                let done = job.run()?;
                tail.finish_fold(done.generation);
                rows.recent = done.recent;
                view = View::open(&db, Some(&view), &rows.merge, rows.filter_bytes)?;
                from = segment.last;
            }
        }
        count_start(&db, recovered.generation, last)?;
        let mut snapshot = read_snapshot(&db)?;
        view.read_into(&mut snapshot)?;
        let sizes = Sizes { segment: options.segment_bytes, step: options.segment_step_bytes };
        let journal = Journal::begin(Arc::clone(&disk), sizes, folded.salt, last, recovered)?;
        let engine = Self {
            disk,
            view,
            db,
            journal,
            tail,
            rows,
            salt: folded.salt,
            is_busy: false,
            stopped: None,
            recovery,
            totals: Totals::default(),
        };
        Ok((engine, snapshot))
    }

    /// What opening found in the journal.
    pub fn recovery(&self) -> Recovery {
        self.recovery
    }

    /// What was done since.
    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// Queue entries that are only in the journal.
    pub fn tail_entries(&self) -> usize {
        self.tail.entries()
    }

    /// Facts about rows that are only in the journal.
    pub fn tail_rows(&self) -> usize {
        self.tail.rows.slots()
    }

    /// Runs of rows in the index.
    pub fn row_runs(&self) -> usize {
        self.view.runs()
    }

    /// Room left on the disk, bytes.
    pub fn free_bytes(&self) -> Result<u64, StoreError> {
        self.disk.free_bytes().map_err(|source| StoreError::Io {
            action: "measure the room of",
            file: "the data directory".to_owned(),
            source,
        })
    }

    /// Makes the facts of `batches` durable, all of them or none. After an error the engine takes nothing more: what
    /// the disk holds of the failed commit is only known after it is opened again.
    pub fn commit(&mut self, batches: &[Batch]) -> Result<(), StoreError> {
        self.check()?;
        let result = self.try_commit(batches);
        self.stop_on_error(result)
    }

    fn try_commit(&mut self, batches: &[Batch]) -> Result<(), StoreError> {
        let place = self.journal.append(batches)?;
        self.totals.commits += 1;
        self.totals.journal_bytes += place.written;
        let mut offset = place.offset;
        for batch in batches {
            self.totals.facts += self.tail.apply(&batch.bytes, place.generation, offset)?;
            // The record was short enough for a segment, so each of its parts is.
            offset += u32::try_from(batch.bytes.len()).unwrap_or(u32::MAX);
        }
        Ok(())
    }

    /// The queued messages asked for.
    pub fn load(&mut self, load: &Load) -> Result<Page, StoreError> {
        self.check()?;
        let result = page::load(&self.db, &self.tail, &self.journal, load);
        self.stop_on_error(result)
    }

    /// The rows asked for.
    pub fn query(&mut self, query: &Query) -> Result<Answer, StoreError> {
        self.check()?;
        let result = rows::answer(&self.view, &self.tail.rows, &self.journal, query);
        self.stop_on_error(result)
    }

    /// Closes the journal segment in use, so that it can be folded.
    pub fn freeze(&mut self) -> Result<(), StoreError> {
        self.check()?;
        let result = self.journal.freeze();
        self.stop_on_error(result)
    }

    /// How many full segments wait for their fold, the one under way included.
    pub fn backlog(&self) -> usize {
        self.journal.frozen()
    }

    /// The next fold, if a segment is full and no job is under way. Its result goes to [`Engine::finish_job`].
    pub fn start_fold(&mut self) -> Option<Job> {
        if self.is_busy || self.stopped.is_some() {
            return None;
        }
        let segment = self.journal.oldest()?.clone();
        self.is_busy = true;
        let job = fold_job(&self.db, &mut self.tail, self.salt, segment, &self.view, &mut self.rows);
        Some(Job(Work::Fold(Box::new(job))))
    }

    /// The next piece of work in the background, if there is any and none is under way: a fold, or a slice of merging.
    /// Folds come first, as long as merging keeps up with them.
    pub fn start_job(&mut self) -> Option<Job> {
        let merges_first = self.view.is_due() && (self.rows.debt > 0 || self.view.is_behind());
        if !merges_first && let Some(job) = self.start_fold() {
            return Some(job);
        }
        if self.is_busy || self.stopped.is_some() || !self.view.is_due() {
            return None;
        }
        self.is_busy = true;
        Some(Job(Work::Merge(MergeJob { db: Arc::clone(&self.db), habits: self.rows.merge.clone() })))
    }

    /// Takes the result of [`Job::run`].
    pub fn finish_job(&mut self, done: Result<JobDone, StoreError>) -> Result<(), StoreError> {
        self.is_busy = false;
        let result = done.and_then(|done| self.try_finish(done));
        self.stop_on_error(result)
    }

    fn try_finish(&mut self, done: JobDone) -> Result<(), StoreError> {
        // The tail forgets what the view now shows.
        self.view = View::open(&self.db, Some(&self.view), &self.rows.merge, self.rows.filter_bytes)?;
        match done.0 {
            WorkDone::Fold(done) => {
                self.tail.finish_fold(done.generation);
                self.rows.recent = done.recent;
                self.totals.folds += 1;
                self.totals.folded_entries += done.entries;
                self.totals.folded_rows += done.rows;
                // Each level of runs is written again as often as it is full: two levels of merging keep up with this.
                self.rows.debt = if self.view.is_due() { self.rows.debt + 2 * done.row_bytes } else { 0 };
                self.journal.recycle()
            }
            WorkDone::Merge(done) => {
                self.totals.merges += done.merges;
                self.totals.merged_bytes += done.bytes;
                self.rows.debt = self.rows.debt.saturating_sub(done.bytes);
                Ok(())
            }
        }
    }

    /// Folds everything committed so far, on this thread. No job may be under way.
    pub fn fold_all(&mut self) -> Result<(), StoreError> {
        self.freeze()?;
        self.fold_full()
    }

    /// Folds every full segment, on this thread. No job may be under way.
    pub fn fold_full(&mut self) -> Result<(), StoreError> {
        while let Some(job) = self.start_fold() {
            let done = job.run();
            self.finish_job(done)?;
        }
        Ok(())
    }

    /// Folds everything and leaves the directory as small as it gets. No job may be under way.
    pub fn close(mut self) -> Result<(), StoreError> {
        self.fold_all()?;
        self.journal.shrink()
    }

    /// What is in the index now, unchanged by later folds.
    pub(super) fn index_view(&self) -> Result<ReadTransaction, StoreError> {
        Ok(self.db.begin_read()?)
    }

    fn check(&self) -> Result<(), StoreError> {
        self.stopped.as_ref().map_or(Ok(()), |text| Err(StoreError::Stopped(text.clone())))
    }

    fn stop_on_error<T>(&mut self, result: Result<T, StoreError>) -> Result<T, StoreError> {
        if let Err(error) = &result {
            self.stopped = Some(error.to_string());
        }
        result
    }
}

/// A number nobody can guess, from the seed of the standard library's hash tables.
fn random() -> u64 {
    std::hash::RandomState::new().build_hasher().finish()
}

fn fold_job(
    db: &Arc<Database>,
    tail: &mut Tail,
    salt: u64,
    segment: Segment,
    view: &View,
    rows: &mut RowHabits,
) -> FoldJob {
    let (slots, answers) = tail.begin_fold(segment.generation);
    FoldJob {
        db: Arc::clone(db),
        salt,
        segment,
        slots,
        answers,
        retention: rows.merge.retention.clone(),
        slice_bytes: rows.merge.slice_bytes,
        filters: view.filters(),
        recent: std::mem::take(&mut rows.recent),
    }
}

/// Notes the facts of `segment`; returns how many they are.
fn read_into(tail: &mut Tail, salt: u64, segment: &Segment) -> Result<u64, StoreError> {
    let mut facts = 0;
    let mut records = journal::Records::new(segment, salt, segment.used);
    while let Some(record) = records.next()? {
        facts += tail.apply(record.body, segment.generation, record.offset)?;
    }
    Ok(facts)
}

/// Writes down that the broker started, and that segments up to `generation` hold nothing more.
fn count_start(db: &Database, generation: u32, record: u64) -> Result<(), StoreError> {
    let mut txn = db.begin_write()?;
    txn.set_quick_repair(true);
    {
        let mut table = txn.open_table(META)?;
        let boot = table.get(meta::BOOT)?.map_or(0, |value| value.value());
        table.insert(meta::BOOT, boot + 1)?;
        table.insert(meta::FOLDED_GENERATION, u64::from(generation))?;
        table.insert(meta::FOLDED_RECORD, record)?;
    }
    txn.commit()?;
    Ok(())
}

/// Reads what the broker must know when it starts.
fn read_snapshot(db: &Database) -> Result<Snapshot, StoreError> {
    const WRONG: StoreError = StoreError::Inconsistent { what: "a row holds another fact than its table is for" };
    let txn = db.begin_read()?;
    let numbers = txn.open_table(META)?;
    let number = |key: &str| Ok::<u64, StoreError>(numbers.get(key)?.map_or(0, |value| value.value()));
    let mut snapshot =
        Snapshot { boot: number(meta::BOOT)?, next_session: number(meta::NEXT_SESSION)?, ..Snapshot::default() };

    let mut sessions = BTreeMap::new();
    for row in txn.open_table(SESSIONS)?.iter()? {
        let (_, value) = row?;
        let (fact, _) = Fact::decode(value.value())?;
        let Fact::Session { no, client_id, account, version, expiry_secs, disconnected_at_ms, sent } = fact else {
            return Err(WRONG);
        };
        let record = SessionRecord {
            no,
            client_id: client_id.to_owned(),
            account: account.to_owned(),
            version,
            expiry_secs,
            disconnected_at_ms,
            sent,
            subscriptions: vec![],
            inbound: vec![],
            head: QueueIndex(0),
            tail: QueueIndex(0),
            exceptions: vec![],
            queued: 0,
            queued_bytes: 0,
        };
        sessions.insert(no, record);
    }
    for row in txn.open_table(SUBSCRIPTIONS)?.iter()? {
        let (key, value) = row?;
        let ((no, filter), (options, id)) = (key.value(), value.value());
        if let Some(session) = sessions.get_mut(&SessionNo(no)) {
            session.subscriptions.push((filter.to_owned(), options, id));
        }
    }
    for row in txn.open_table(QUEUES)?.iter()? {
        let (key, value) = row?;
        let queue = QueueRow::decode(value.value())?;
        if let Some(session) = sessions.get_mut(&SessionNo(key.value())) {
            session.head = QueueIndex(queue.head);
            session.tail = QueueIndex(queue.tail);
            session.exceptions = queue.exceptions();
            session.queued = queue.queued;
            session.queued_bytes = queue.queued_bytes;
            session.inbound = queue.inbound;
        }
    }
    snapshot.sessions = sessions.into_values().collect();

    for row in txn.open_table(RETAINED)?.iter()? {
        let (_, value) = row?;
        let (Fact::Retain { qos, publisher, message }, _) = Fact::decode(value.value())? else { return Err(WRONG) };
        snapshot.retained.push(RetainedRecord { qos, publisher: publisher.to_owned(), message: message.into() });
    }
    for row in txn.open_table(WILLS)?.iter()? {
        let (_, value) = row?;
        let (fact, _) = Fact::decode(value.value())?;
        let Fact::Will { client_id, account, qos, retain, delay_secs, due_at_ms, session, message } = fact else {
            return Err(WRONG);
        };
        snapshot.wills.push(WillRecord {
            client_id: client_id.to_owned(),
            account: account.to_owned(),
            qos,
            retain,
            delay_secs,
            due_at_ms,
            session,
            message: message.into(),
        });
    }
    for row in txn.open_table(ACCOUNTS)?.iter()? {
        let (name, record) = row?;
        snapshot.accounts.push((name.value().to_owned(), record.value().to_vec()));
    }
    Ok(snapshot)
}
