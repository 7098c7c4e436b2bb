//! What the kernel says about a broker's process: processor time and resident memory.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::{fs, io};

/// A process the bench started, by its id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Process(pub u32);

/// Processor time at one moment, to be subtracted from a later one.
#[derive(Debug, Clone)]
pub struct CpuMark {
    /// Nanoseconds on a processor, per thread, from the scheduler.
    threads: BTreeMap<u64, u64>,
    /// User and system time in ticks of 10 ms, the whole process, ended threads included.
    ticks: u64,
}

/// The kernel did not tell about the process.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// A file under /proc could not be read.
    #[error("cannot read {path}: {source}; the broker has probably ended, look at its log")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the kernel answered.
        source: io::Error,
    },
    /// A file under /proc has another shape than expected.
    #[error("cannot understand {path}; this bench needs Linux's /proc")]
    Shape {
        /// The file.
        path: PathBuf,
    },
}

/// Seconds per tick in /proc/PID/stat; the kernel reports in hundredths whatever its own clock is.
const TICK_SECS: f64 = 0.01;

impl Process {
    /// Notes the processor time used until now.
    pub fn cpu(self) -> Result<CpuMark, ProcessError> {
        Ok(CpuMark { threads: self.thread_nanos()?, ticks: self.ticks()? })
    }

    /// Resident memory in bytes.
    pub fn resident_bytes(self) -> Result<u64, ProcessError> {
        let (path, text) = self.read("smaps_rollup")?;
        text.lines()
            .find_map(|line| line.strip_prefix("Rss:"))
            .and_then(|rest| rest.split_whitespace().next())
            .and_then(|kib| kib.parse::<u64>().ok())
            .map(|kib| kib * 1024)
            .ok_or(ProcessError::Shape { path })
    }

    fn thread_nanos(self) -> Result<BTreeMap<u64, u64>, ProcessError> {
        let dir = PathBuf::from(format!("/proc/{}/task", self.0));
        let entries = fs::read_dir(&dir).map_err(|source| ProcessError::Read { path: dir, source })?;
        let mut threads = BTreeMap::new();
        for entry in entries.flatten() {
            let id = entry.file_name().to_str().and_then(|name| name.parse().ok());
            // A thread may end between the listing and the reading; `secs_since` notices that it is gone.
            let nanos = fs::read_to_string(entry.path().join("schedstat"))
                .ok()
                .and_then(|text| text.split_whitespace().next().and_then(|word| word.parse().ok()));
            if let (Some(id), Some(nanos)) = (id, nanos) {
                threads.insert(id, nanos);
            }
        }
        Ok(threads)
    }

    fn ticks(self) -> Result<u64, ProcessError> {
        let (path, text) = self.read("stat")?;
        parse_ticks(&text).ok_or(ProcessError::Shape { path })
    }

    fn read(self, file: &str) -> Result<(PathBuf, String), ProcessError> {
        let path = PathBuf::from(format!("/proc/{}/{file}", self.0));
        match fs::read_to_string(&path) {
            Ok(text) => Ok((path, text)),
            Err(source) => Err(ProcessError::Read { path, source }),
        }
    }
}

impl CpuMark {
    /// Processor seconds between an earlier mark and this one.
    ///
    /// The scheduler's nanoseconds are exact but forget threads that have ended; if one has, the coarser count of
    /// the whole process is used.
    pub fn secs_since(&self, earlier: &Self) -> f64 {
        let by_ticks = self.ticks.saturating_sub(earlier.ticks) as f64 * TICK_SECS;
        if self.threads.is_empty() || earlier.threads.keys().any(|id| !self.threads.contains_key(id)) {
            return by_ticks;
        }
        let nanos: u64 = self
            .threads
            .iter()
            .map(|(id, now)| now.saturating_sub(earlier.threads.get(id).copied().unwrap_or_default()))
            .sum();
        let exact = nanos as f64 / 1e9;
        // A thread that came and went between the marks is in the ticks only; two ticks are rounding.
        if by_ticks > exact * 1.1 + 2.0 * TICK_SECS { by_ticks } else { exact }
    }
}

/// User plus system time in ticks out of the text of /proc/PID/stat.
fn parse_ticks(stat: &str) -> Option<u64> {
    // The name of the program may hold spaces and parentheses; the numbers start behind the last one.
    let (_, numbers) = stat.rsplit_once(')')?;
    let mut fields = numbers.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_found_behind_a_name_with_parentheses() {
        let stat = "17 (a (b) c) S 1 17 17 0 -1 4194560 1 2 3 4 120 35 0 0 20 0 1 0 5";
        assert_eq!(parse_ticks(stat), Some(155));
        assert_eq!(parse_ticks("17 no parentheses"), None);
    }

    #[test]
    fn an_ended_thread_makes_the_ticks_count() {
        let mark = |threads: &[(u64, u64)], ticks| CpuMark { threads: threads.iter().copied().collect(), ticks };
        let before = mark(&[(1, 1_000_000_000), (2, 500_000_000)], 150);
        let both = mark(&[(1, 2_000_000_000), (2, 500_000_000)], 250);
        assert!((both.secs_since(&before) - 1.0).abs() < 1e-9);
        let one = mark(&[(1, 2_000_000_000)], 270);
        assert!((one.secs_since(&before) - 1.2).abs() < 1e-9);
    }

    #[test]
    fn this_process_can_be_read() {
        let own = Process(std::process::id());
        assert!(own.resident_bytes().unwrap() > 4096);
        own.cpu().unwrap();
    }
}
