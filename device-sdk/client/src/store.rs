//! The outbox on disk: one thread, one redb file, one transaction for all jobs that wait.
//!
//! | table | key | value |
//! |---|---|---|
//! | `rows` | token | topic, payload, retained, client id or nothing, until when (ms since 1970) or 0 |
//! | `ends` | token | accepted, seq or 0, dup, code, text |
//! | `meta` | `format`, `account`, `terminal` | |
//!
//! A row is on disk before what it holds is published; its end is on disk before it is told; both go when whoever was told
//! comes back for the next event. So a process that dies at any moment repeats an end at most, and never contradicts one.

use crate::error::OutboxError;
use crate::model::event::Answer;
use crate::model::outbox::Row;
use redb::{Database, Durability, ReadableTable, ReadableTableMetadata, TableDefinition};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use tokio::sync::mpsc;

const ROWS: TableDefinition<u64, (&str, &[u8], bool, &str, u64)> = TableDefinition::new("rows");
const ENDS: TableDefinition<u64, (bool, u64, bool, &str, &str)> = TableDefinition::new("ends");
const META: TableDefinition<&str, &str> = TableDefinition::new("meta");
/// The format written here.
const FORMAT: u64 = 1;
/// Jobs that wait for the thread; whoever has more keeps them.
const JOBS_MAX: usize = 256;

/// Something to be put on disk.
#[derive(Debug)]
pub(crate) enum Job {
    /// A row, before it is published.
    Put(Row),
    /// How it ended, before that is told.
    End(u64, Answer),
    /// It has been told.
    Remove(u64),
}

/// Something is on disk, or cannot be.
#[derive(Debug)]
pub(crate) enum Done {
    /// The row is.
    Put(u64, Result<(), OutboxError>),
    /// The end is, or could not be put there: it is told all the same.
    End(u64, Answer),
}

/// What an earlier process left, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Left {
    /// Names this installation.
    pub terminal: String,
    /// Rows, and how those ended that have.
    pub rows: Vec<(Row, Option<Answer>)>,
}

/// The thread as the engine has it.
#[derive(Debug)]
pub(crate) struct Store {
    jobs: Option<mpsc::Sender<Job>>,
    done: mpsc::Receiver<Done>,
    thread: Option<JoinHandle<()>>,
}

impl Store {
    /// Opens the file of `account`, on which `terminal` is written where one is named. Blocks for the disk.
    pub fn open(path: &Path, account: &str, terminal: Option<&str>, new: &str) -> Result<(Self, Left), OutboxError> {
        let disk = Disk::open(path)?;
        let left = disk.claim(account, terminal, new)?;
        let (jobs, waiting) = mpsc::channel(JOBS_MAX);
        let (told, done) = mpsc::channel(JOBS_MAX);
        let thread = std::thread::Builder::new()
            .name("parlor-outbox".to_owned())
            .spawn(move || disk.work(waiting, &told))
            .map_err(|error| OutboxError::File { path: path.to_owned(), why: error.to_string() })?;
        Ok((Self { jobs: Some(jobs), done, thread: Some(thread) }, left))
    }

    /// Hands a job in; it comes back where there is no room at the moment, and there is after the next [`Done`].
    pub fn give(&self, job: Job) -> Result<(), Job> {
        match &self.jobs {
            Some(jobs) => jobs.try_send(job).map_err(|error| match error {
                mpsc::error::TrySendError::Full(job) | mpsc::error::TrySendError::Closed(job) => job,
            }),
            None => Err(job),
        }
    }

    /// The next thing that is on disk.
    pub async fn done(&mut self) -> Option<Done> {
        self.done.recv().await
    }

    /// Ends the thread when it has done what it was given. Blocks for the disk.
    pub fn close(&mut self) {
        self.jobs = None;
        self.done.close();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.close();
    }
}

/// The file.
struct Disk {
    path: PathBuf,
    database: Database,
}

impl Disk {
    fn open(path: &Path) -> Result<Self, OutboxError> {
        let failed = |why: String| OutboxError::File { path: path.to_owned(), why };
        if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
            std::fs::create_dir_all(directory).map_err(|error| failed(error.to_string()))?;
        }
        let file = private_file(path).map_err(|error| failed(error.to_string()))?;
        // It holds a few hundred short rows: a small cache is enough.
        let database = Database::builder().set_cache_size(1024 * 1024).create_file(file);
        let database = database.map_err(|error| match error {
            redb::DatabaseError::DatabaseAlreadyOpen => OutboxError::Busy { path: path.to_owned() },
            error => failed(error.to_string()),
        })?;
        Ok(Self { path: path.to_owned(), database })
    }

    fn failed(&self, error: impl std::fmt::Display) -> OutboxError {
        OutboxError::File { path: self.path.clone(), why: error.to_string() }
    }

    /// Checks whose it is, and reads everything.
    fn claim(&self, account: &str, terminal: Option<&str>, new: &str) -> Result<Left, OutboxError> {
        let write = self.database.begin_write().map_err(|error| self.failed(error))?;
        let mut left = Left::default();
        {
            let rows = write.open_table(ROWS).map_err(|error| self.failed(error))?;
            let ends = write.open_table(ENDS).map_err(|error| self.failed(error))?;
            let mut meta = write.open_table(META).map_err(|error| self.failed(error))?;
            let known = |key: &str| -> Result<Option<String>, OutboxError> {
                let value = meta.get(key).map_err(|error| self.failed(error))?;
                Ok(value.map(|value| value.value().to_owned()))
            };
            let found = known("format")?.map_or(FORMAT, |format| format.parse().unwrap_or(u64::MAX));
            if found != FORMAT {
                return Err(OutboxError::Format { path: self.path.clone(), found, known: FORMAT });
            }
            let is_empty = rows.is_empty().map_err(|error| self.failed(error))?;
            let (owner, old) = (known("account")?, known("terminal")?);
            let is_other =
                |old: &Option<String>, now: Option<&str>| old.as_deref().zip(now).is_some_and(|(old, now)| old != now);
            if (is_other(&owner, Some(account)) || is_other(&old, terminal)) && !is_empty {
                let owner = format!("{}, terminal {}", owner.unwrap_or_default(), old.unwrap_or_default());
                return Err(OutboxError::Owner { path: self.path.clone(), owner });
            }
            let old = old.filter(|_| owner.as_deref() == Some(account));
            left.terminal = terminal.map(str::to_owned).or(old).unwrap_or_else(|| new.to_owned());
            let format = FORMAT.to_string();
            for (key, value) in [("format", &*format), ("account", account), ("terminal", &left.terminal)] {
                meta.insert(key, value).map_err(|error| self.failed(error))?;
            }
            for row in rows.iter().map_err(|error| self.failed(error))? {
                let (token, value) = row.map_err(|error| self.failed(error))?;
                let (topic, payload, retain, id, until_ms) = value.value();
                let token = token.value();
                let end = ends.get(token).map_err(|error| self.failed(error))?.map(|end| read_end(end.value()));
                let id = (!id.is_empty()).then(|| id.to_owned());
                let (topic, payload) = (topic.to_owned(), payload.to_vec());
                left.rows.push((Row { token, topic, payload, retain, id, until_ms }, end));
            }
        }
        write.commit().map_err(|error| self.failed(error))?;
        Ok(left)
    }

    /// Does jobs until nobody gives any more.
    fn work(self, mut jobs: mpsc::Receiver<Job>, done: &mpsc::Sender<Done>) {
        let mut batch = Vec::new();
        while let Some(job) = jobs.blocking_recv() {
            batch.push(job);
            while batch.len() < JOBS_MAX
                && let Ok(job) = jobs.try_recv()
            {
                batch.push(job);
            }
            let outcome = self.commit(&batch);
            for job in batch.drain(..) {
                let done_job = match job {
                    Job::Put(row) => Done::Put(row.token, outcome.clone()),
                    Job::End(token, answer) => Done::End(token, answer),
                    Job::Remove(_) => continue,
                };
                // Whoever waited may be gone; what was given is done all the same.
                let _ = done.blocking_send(done_job);
            }
        }
        // What was only removed goes to disk with this.
        let last = self.database.begin_write().map(redb::WriteTransaction::commit);
        drop(last);
    }

    fn commit(&self, batch: &[Job]) -> Result<(), OutboxError> {
        self.write(batch).map_err(|error| self.failed(error))
    }

    fn write(&self, batch: &[Job]) -> Result<(), redb::Error> {
        let mut write = self.database.begin_write()?;
        // To have removed something promises nothing: it goes to disk with what does.
        if batch.iter().all(|job| matches!(job, Job::Remove(_))) {
            write.set_durability(Durability::None)?;
        }
        {
            let mut rows = write.open_table(ROWS)?;
            let mut ends = write.open_table(ENDS)?;
            for job in batch {
                match job {
                    Job::Put(Row { token, topic, payload, retain, id, until_ms }) => {
                        let id = id.as_deref().unwrap_or_default();
                        rows.insert(token, (topic.as_str(), payload.as_slice(), *retain, id, *until_ms))?;
                        ends.remove(token)?;
                    }
                    Job::End(token, Answer::Accepted { seq, dup }) => {
                        ends.insert(token, (true, seq.unwrap_or_default(), *dup, "", ""))?;
                    }
                    Job::End(token, Answer::Refused { code, text }) => {
                        ends.insert(token, (false, 0, false, code.as_str(), text.as_str()))?;
                    }
                    Job::Remove(token) => {
                        rows.remove(token)?;
                        ends.remove(token)?;
                    }
                }
            }
        }
        write.commit()?;
        Ok(())
    }
}

fn read_end((accepted, seq, dup, code, text): (bool, u64, bool, &str, &str)) -> Answer {
    if accepted {
        Answer::Accepted { seq: (seq != 0).then_some(seq), dup }
    } else {
        Answer::Refused { code: code.to_owned(), text: text.to_owned() }
    }
}

/// What is written to people is nobody else's business.
fn private_file(path: &Path) -> std::io::Result<File> {
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A directory that goes with the test.
    pub(crate) struct Directory(pub PathBuf);

    impl Directory {
        pub(crate) fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("parlor-client-{name}-{}", std::process::id()));
            let _ = std::fs::remove_dir_all(&path);
            std::fs::create_dir_all(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn row(token: u64) -> Row {
        let (topic, payload) = ("im/v1/to/bob/msg".to_owned(), b"hi".to_vec());
        Row { token, topic, payload, retain: false, id: Some(format!("a{token}")), until_ms: 7 }
    }

    #[tokio::test]
    async fn rows_and_ends_survive_and_go() {
        let directory = Directory::new("rows");
        let path = directory.0.join("deep/outbox");
        let (mut store, left) = Store::open(&path, "alice", None, "t-new").unwrap();
        assert_eq!((left.terminal.as_str(), left.rows.len()), ("t-new", 0));
        let refused = Answer::Refused { code: "quota".into(), text: "too fast".into() };
        for token in 1..=3 {
            store.give(Job::Put(row(token))).unwrap();
            assert!(matches!(store.done().await, Some(Done::Put(done, Ok(()))) if done == token));
        }
        store.give(Job::End(2, refused.clone())).unwrap();
        assert!(matches!(store.done().await, Some(Done::End(2, _))));
        store.give(Job::Remove(1)).unwrap();
        store.close();
        let (_store, left) = Store::open(&path, "alice", None, "t-other").unwrap();
        assert_eq!(left.terminal, "t-new", "the terminal keeps its name");
        assert_eq!(left.rows, [(row(2), Some(refused)), (row(3), None)]);
        let error = Store::open(&path, "alice", None, "x").map(|_| ()).unwrap_err();
        assert!(matches!(error, OutboxError::Busy { .. }), "{error}");
    }

    #[tokio::test]
    async fn a_file_with_rows_stays_with_its_owner() {
        let directory = Directory::new("owner");
        let path = directory.0.join("outbox");
        let open = |account: &str, terminal: Option<&str>| Store::open(&path, account, terminal, "new");
        let (mut store, _) = open("alice", Some("phone")).unwrap();
        store.give(Job::Put(row(1))).unwrap();
        store.done().await;
        store.close();
        for (account, terminal) in [("bob", None), ("alice", Some("tablet"))] {
            let error = open(account, terminal).map(|_| ()).unwrap_err();
            assert!(error.to_string().contains("alice, terminal phone"), "{error}");
        }
        let (mut store, left) = open("alice", None).unwrap();
        assert_eq!(left.terminal, "phone");
        store.give(Job::Remove(1)).unwrap();
        store.close();
        assert_eq!(open("bob", None).unwrap().1.terminal, "new", "an empty one may change hands");
    }

    #[cfg(unix)]
    #[test]
    fn nobody_else_may_read_it() {
        use std::os::unix::fs::PermissionsExt;
        let directory = Directory::new("mode");
        let path = directory.0.join("outbox");
        let _store = Store::open(&path, "alice", None, "t").unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o077, 0);
    }
}
