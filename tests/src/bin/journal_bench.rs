//! Measures the store on a real disk; `docs/storage.md` holds the results.
//!
//! `journal_bench journal DIR`: a padded file against a journal table in redb, at 1, 100 and 10,000 messages/s and
//! unpaced. `journal_bench store DIR [MESSAGES]`: the whole store, folds included. `journal_bench tail DIR`: memory of
//! 100,000 queued messages in 200 sessions, and the cost of reading them back.

// Measured numbers are printed with few digits.
#![allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parlor::store::disk::{DirDisk, Disk};
use parlor::store::{Engine, Options};
use parlor_core::store::{
    Batch, Fact, Load, MessageRef, QueueIndex, Recipient, Recipients, SessionNo, encode_recipient,
};

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

fn main() -> Outcome {
    let mut args = std::env::args().skip(1);
    let (what, dir) = (args.next().unwrap_or_default(), args.next().map(PathBuf::from));
    let Some(dir) = dir else { return Err("usage: journal_bench journal|store|tail DIR [MESSAGES]".into()) };
    let messages = args.next().map_or(Ok(2_100_000), |text| text.parse())?;
    match what.as_str() {
        "journal" => journals(&dir),
        "store" => whole_store(&dir, messages),
        "tail" => tail(&dir),
        other => Err(format!("there is no measurement {other:?}").into()),
    }
}

/// Processor time of this process's threads that still run, microseconds.
fn cpu_us() -> Outcome<u64> {
    let mut sum = 0;
    for task in std::fs::read_dir("/proc/self/task")? {
        let text = std::fs::read_to_string(task?.path().join("schedstat"))?;
        sum += text.split_whitespace().next().ok_or("no run time")?.parse::<u64>()?;
    }
    Ok(sum / 1000)
}

/// A number of `/proc/self/io` or `/proc/self/status`.
fn proc_number(file: &str, key: &str) -> Outcome<u64> {
    let text = std::fs::read_to_string(format!("/proc/self/{file}"))?;
    let line = text.lines().find(|line| line.starts_with(key)).ok_or("no such line")?;
    Ok(line.split_whitespace().nth(1).ok_or("no number")?.parse()?)
}

fn resident_bytes() -> Outcome<u64> {
    Ok(proc_number("status", "VmRSS")? * 1024)
}

/// One message of 64 to 150 bytes for `session`.
fn push(batch: &mut Batch, list: &mut Vec<u8>, number: u64, session: u64, index: u64) {
    let payload = [number as u8; 150];
    let payload = &payload[..64 + (number.wrapping_mul(2_654_435_761) >> 7) as usize % 87];
    list.clear();
    let to = Recipient {
        session: SessionNo(session),
        index: QueueIndex(index),
        qos: 1,
        retain: false,
        subscription_ids: &[],
    };
    encode_recipient(list, &to);
    let message = MessageRef { topic: "home/kitchen/lamp/set", properties: &[], payload, expires_at_ms: 0 };
    batch.push(&Fact::Enqueue { message, recipients: Recipients { count: 1, bytes: list } });
}

fn begin_sessions(engine: &mut Engine, count: u64) -> Outcome {
    let mut batch = Batch::default();
    for no in 0..count {
        batch.push(&Fact::Session {
            no: SessionNo(no),
            client_id: &format!("client-{no}"),
            account: "home",
            version: 5,
            expiry_secs: u32::MAX,
            disconnected_at_ms: 1,
            sent: QueueIndex(0),
        });
    }
    engine.commit(&[batch])?;
    Ok(())
}

fn fresh(dir: &Path, name: &str) -> Outcome<PathBuf> {
    let path = dir.join(name);
    if path.exists() {
        std::fs::remove_dir_all(&path)?;
    }
    Ok(path)
}

struct Lap {
    began: Instant,
    cpu: u64,
    written: u64,
    latencies: Vec<Duration>,
}

impl Lap {
    fn begin() -> Outcome<Self> {
        let written = proc_number("io", "write_bytes")?;
        Ok(Self { began: Instant::now(), cpu: cpu_us()?, written, latencies: vec![] })
    }

    fn print(mut self, name: &str, messages: u64) -> Outcome {
        let seconds = self.began.elapsed().as_secs_f64();
        let written = proc_number("io", "write_bytes")? - self.written;
        let cpu = cpu_us()? - self.cpu;
        self.latencies.sort_unstable();
        let at = |part: f64| {
            let last = self.latencies.len().saturating_sub(1);
            self.latencies.get((last as f64 * part) as usize).map_or(0.0, |d| d.as_secs_f64() * 1e3)
        };
        println!(
            "{name:32} {:>9.0} msg/s  {:>8.2} us CPU  {:>7} B written/msg  commit p50 {:.2} p99 {:.2} max {:.2} ms",
            messages as f64 / seconds,
            cpu as f64 / messages as f64,
            written / messages,
            at(0.5),
            at(0.99),
            at(1.0)
        );
        Ok(())
    }
}

/// Journal alone: both ways, at several rates. A group is what arrives while the last commit runs, at least one.
fn journals(dir: &Path) -> Outcome {
    for (rate, seconds) in [(1, 20), (100, 10), (10_000, 10), (u64::MAX, 4)] {
        let name = if rate == u64::MAX { "unpaced, 256 a commit".to_owned() } else { format!("{rate}/s") };
        let path = fresh(dir, "file")?;
        let options = Options { segment_bytes: 48 << 20, ..Options::default() };
        let (mut engine, _) = Engine::open(Arc::new(DirDisk::open(&path)?), &options)?;
        begin_sessions(&mut engine, 200)?;
        // Twice around, so that what is measured is a file that is used again, as all are after the first minutes.
        for _ in 0..2 {
            while engine.backlog() == 0 {
                engine.commit(&[many(2000)])?;
            }
            engine.fold_full()?;
        }
        let lap = Lap::begin()?;
        let (lap, messages) =
            paced_lap(lap, rate, seconds, &mut |batch| Ok(engine.commit(std::slice::from_ref(batch))?))?;
        lap.print(&format!("file, {name}"), messages)?;
        drop(engine);

        let path = fresh(dir, "table")?;
        std::fs::create_dir_all(&path)?;
        let table: redb::TableDefinition<'_, u64, &[u8]> = redb::TableDefinition::new("journal");
        let db = redb::Builder::new().set_cache_size(4 << 20).create(path.join("journal.redb"))?;
        let mut number = 0;
        let lap = Lap::begin()?;
        let (lap, messages) = paced_lap(lap, rate, seconds, &mut |batch| {
            number += 1;
            let txn = db.begin_write()?;
            txn.open_table(table)?.insert(number, batch.bytes.as_slice())?;
            txn.commit()?;
            Ok(())
        })?;
        lap.print(&format!("redb table, {name}"), messages)?;
    }
    Ok(())
}

type Commit<'a> = dyn FnMut(&Batch) -> Outcome + 'a;

/// A batch of `count` messages to session 0.
fn many(count: u64) -> Batch {
    let (mut batch, mut list) = (Batch::default(), vec![]);
    for number in 0..count {
        push(&mut batch, &mut list, number, 0, number);
    }
    batch
}

fn paced_lap(mut lap: Lap, rate: u64, seconds: u64, commit: &mut Commit<'_>) -> Outcome<(Lap, u64)> {
    let (mut number, mut list) = (0, vec![]);
    let mut next = [0u64; 200];
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(seconds) {
        let due =
            if rate == u64::MAX { number + 256 } else { (began.elapsed().as_secs_f64() * rate as f64) as u64 + 1 };
        if due <= number {
            let at = Duration::from_secs_f64(number as f64 / rate as f64);
            std::thread::sleep(at.saturating_sub(began.elapsed()));
            continue;
        }
        let mut batch = Batch::default();
        for number in number..due {
            let session = number % 200;
            push(&mut batch, &mut list, number, session, next[session as usize]);
            next[session as usize] += 1;
        }
        number = due;
        let start = Instant::now();
        commit(&batch)?;
        lap.latencies.push(start.elapsed());
    }
    Ok((lap, number))
}

/// The whole store: messages are queued in 1,000 sessions, and each acknowledged 50,000 messages later. Folds run on a
/// second thread, as in the broker.
fn whole_store(dir: &Path, messages: u64) -> Outcome {
    const SESSIONS: u64 = 1000;
    const LAG: u64 = 50_000;
    let path = fresh(dir, "store")?;
    let (mut engine, _) = Engine::open(Arc::new(DirDisk::open(&path)?), &Options::default())?;
    begin_sessions(&mut engine, SESSIONS)?;
    let (jobs, job_queue) = std::sync::mpsc::sync_channel::<parlor::store::Job>(1);
    let (done, results) = std::sync::mpsc::channel();
    let folder = std::thread::spawn(move || {
        while let Ok(job) = job_queue.recv() {
            if done.send(job.run()).is_err() {
                return;
            }
        }
    });
    let (mut list, mut number, mut folding) = (vec![], 0, false);
    let mut lap = Lap::begin()?;
    let mut making = Duration::ZERO;
    let mut lap_began_at = 0;
    while number < messages {
        let start = Instant::now();
        let mut batch = Batch::default();
        for number in number..number + 256 {
            push(&mut batch, &mut list, number, number % SESSIONS, number / SESSIONS);
            if let Some(old) = number.checked_sub(LAG) {
                batch.push(&Fact::Acked { no: SessionNo(old % SESSIONS), index: QueueIndex(old / SESSIONS) });
            }
        }
        number += 256;
        making += start.elapsed();
        if let Ok(result) = results.try_recv() {
            engine.finish_job(result)?;
            folding = false;
        }
        while engine.backlog() >= 3 {
            engine.finish_job(results.recv()?)?;
            folding = false;
            if let Some(job) = engine.start_fold() {
                jobs.send(job)?;
                folding = true;
            }
        }
        let start = Instant::now();
        engine.commit(&[batch])?;
        lap.latencies.push(start.elapsed());
        if let Some(job) = engine.start_fold() {
            jobs.send(job)?;
            folding = true;
        }
        let lap_messages = number - lap_began_at;
        if lap_messages >= 100_000 && (number < 200_000 || lap_messages >= 500_000 || number >= messages) {
            let made = making.as_secs_f64() * 1e6 / lap_messages as f64;
            lap.print(&format!("store, after {number}"), lap_messages)?;
            println!(
                "    of the CPU, {made:.2} us made the batches; {} tail entries, {} MiB resident, {} folds",
                engine.tail_entries(),
                resident_bytes()? >> 20,
                engine.totals().folds
            );
            (lap, making, lap_began_at) = (Lap::begin()?, Duration::ZERO, number);
        }
    }
    if folding {
        engine.finish_job(results.recv()?)?;
    }
    drop(jobs);
    folder.join().map_err(|_| "the fold thread panicked")?;
    println!("{} MiB resident after the last fold", resident_bytes()? >> 20);
    drop(engine);
    let start = Instant::now();
    let (engine, snapshot) = Engine::open(Arc::new(DirDisk::open(&path)?), &Options::default())?;
    println!(
        "opened in {:.0} ms with {} facts in the journal; {} sessions, {} MiB on disk",
        start.elapsed().as_secs_f64() * 1e3,
        engine.recovery().facts,
        snapshot.sessions.len(),
        disk_bytes(&path)? >> 20
    );
    engine.close()?;
    let start = Instant::now();
    drop(Engine::open(Arc::new(DirDisk::open(&path)?), &Options::default())?);
    println!("opened in {:.0} ms after an orderly end", start.elapsed().as_secs_f64() * 1e3);
    Ok(())
}

fn disk_bytes(dir: &Path) -> Outcome<u64> {
    let mut sum = 0;
    for entry in std::fs::read_dir(dir)? {
        sum += entry?.metadata()?.len();
    }
    Ok(sum)
}

/// Memory a queued message costs, and what reading it back costs, from the journal and from the index.
fn tail(dir: &Path) -> Outcome {
    const SESSIONS: u64 = 200;
    const MESSAGES: u64 = 100_000;
    let path = fresh(dir, "tail")?;
    let start = Instant::now();
    let disk: Arc<dyn Disk> = Arc::new(DirDisk::open(&path)?);
    let (mut engine, _) = Engine::open(Arc::clone(&disk), &Options::default())?;
    println!("fresh store opened in {:.1} ms", start.elapsed().as_secs_f64() * 1e3);
    begin_sessions(&mut engine, SESSIONS)?;
    let before = resident_bytes()?;
    println!("{} KiB resident with an empty store", before >> 10);
    let mut list = vec![];
    for group in 0..MESSAGES / 100 {
        let mut batch = Batch::default();
        for number in group * 100..(group + 1) * 100 {
            push(&mut batch, &mut list, number, number % SESSIONS, number / SESSIONS);
        }
        engine.commit(&[batch])?;
        engine.fold_full()?;
    }
    let now = resident_bytes()?;
    println!(
        "{MESSAGES} messages queued: {} bytes resident each ({} entries in the tail)",
        now.saturating_sub(before) / MESSAGES,
        engine.tail_entries()
    );
    drain(&mut engine, "in the tail or the index", SESSIONS, MESSAGES)?;
    engine.fold_all()?;
    println!("all folded: {} bytes resident each", resident_bytes()?.saturating_sub(before) / MESSAGES);
    drain(&mut engine, "in the index", SESSIONS, MESSAGES)?;
    println!("after reading: {} bytes resident each", resident_bytes()?.saturating_sub(before) / MESSAGES);
    Ok(())
}

fn drain(engine: &mut Engine, name: &str, sessions: u64, messages: u64) -> Outcome {
    let (cpu, start) = (cpu_us()?, Instant::now());
    let times = 10;
    let mut entries = 0;
    for _ in 0..times {
        for no in 0..sessions {
            let mut from = QueueIndex(0);
            let until = QueueIndex(messages / sessions);
            while from < until {
                let load = Load { session: SessionNo(no), from, until, max_entries: 256, max_bytes: 1 << 20 };
                let page = engine.load(&load)?;
                entries += u64::from(page.entries);
                from = page.next;
            }
        }
    }
    assert_eq!(entries, messages * times);
    println!(
        "    read back {name}: {:.2} us CPU, {:.2} us each",
        (cpu_us()? - cpu) as f64 / entries as f64,
        start.elapsed().as_secs_f64() * 1e6 / entries as f64
    );
    Ok(())
}
