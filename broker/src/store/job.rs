//! Work in the background: a fold, or a slice of merging.

use super::StoreError;
use super::fold::{FoldDone, FoldJob};
use super::rows::{MergeDone, MergeJob};

/// A piece of work; may be done on another thread than the engine's. Its result goes to `Engine::finish_job`.
#[derive(Debug)]
pub struct Job(pub(super) Work);

#[derive(Debug)]
pub(super) enum Work {
    Fold(Box<FoldJob>),
    Merge(MergeJob),
}

/// A piece of work that is durable in the index; `Engine::finish_job` takes it.
#[derive(Debug)]
pub struct JobDone(pub(super) WorkDone);

#[derive(Debug)]
pub(super) enum WorkDone {
    Fold(FoldDone),
    Merge(MergeDone),
}

impl Job {
    /// Does it. After an error nothing of it is in the index, and the store must stop.
    pub fn run(self) -> Result<JobDone, StoreError> {
        Ok(JobDone(match self.0 {
            Work::Fold(job) => WorkDone::Fold(job.run()?),
            Work::Merge(job) => WorkDone::Merge(job.run()?),
        }))
    }

    /// True for a fold.
    pub fn is_fold(&self) -> bool {
        matches!(self.0, Work::Fold(_))
    }
}
