//! Measures rows on a real disk under the load of instant messaging; `docs/storage.md` holds the results.
//!
//! `rows_bench DIR [messages=2000000] [rate=0] [segment=MiB]` loads a store in a second process, one batch of 256
//! messages at a time as the broker's driver does, kills that process, opens the store again, checks it, and reads.
//! `rate` is messages a second; 0: as fast as batches are acknowledged. Each message is a body of 200 bytes, two or
//! three mailbox entries, a dedup row and five small rows of state. One account of 10,000 takes part in every 150th
//! message with 20 others, another one with anybody; all other pairs are drawn.

// Measured numbers are printed with few digits, and drawn small enough for every cast.
#![allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]

use std::collections::HashMap;
use std::error::Error;
use std::io::{self, BufRead, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use parlor::store::disk::{DirDisk, Disk, DiskFile};
use parlor::store::{Engine, Options, StoreThreads};
use parlor_core::store::{Answer, Batch, BatchNo, Direction, Fact, Query, Snapshot, Store, StoreEvent, Table, What};
use parlor_tests::disk::Seed;

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

const BODIES: Table = Table(128);
const BOXES: Table = Table(129);
const DUPLICATES: Table = Table(192);
const ACCOUNTS: u64 = 10_000;
const BATCH: u64 = 256;

#[derive(Debug, Clone)]
struct Plan {
    dir: PathBuf,
    messages: u64,
    rate: u64,
    segment_bytes: u64,
    is_child: bool,
}

impl Plan {
    fn options(&self) -> Options {
        Options { segment_bytes: self.segment_bytes, ..Options::default() }
    }
}

fn main() -> Outcome {
    let mut args = std::env::args().skip(1);
    let Some(dir) = args.next() else {
        return Err("usage: rows_bench DIR [messages=2000000] [rate=0] [segment=MiB]".into());
    };
    let segment_bytes = Options::default().segment_bytes;
    let mut plan = Plan { dir: dir.into(), messages: 2_000_000, rate: 0, segment_bytes, is_child: false };
    for arg in args {
        let (key, value) = arg.split_once('=').unwrap_or((&arg, ""));
        match key {
            "messages" => plan.messages = value.parse()?,
            "rate" => plan.rate = value.parse()?,
            "segment" => plan.segment_bytes = value.parse::<u64>()? << 20,
            "child" => plan.is_child = true,
            other => return Err(format!("there is no setting {other:?}").into()),
        }
    }
    if plan.is_child {
        return load(&plan);
    }
    if plan.dir.exists() {
        std::fs::remove_dir_all(&plan.dir)?;
    }
    let acknowledged = load_and_kill(&plan)?;
    read_back(&plan, acknowledged)
}

/// Runs the load in a process of its own; returns how many messages were acknowledged when it was killed.
fn load_and_kill(plan: &Plan) -> Outcome<u64> {
    let mut child = Command::new(std::env::current_exe()?)
        .arg(&plan.dir)
        .arg(format!("messages={}", plan.messages))
        .arg(format!("rate={}", plan.rate))
        .arg(format!("segment={}", plan.segment_bytes >> 20))
        .arg("child")
        .stdout(Stdio::piped())
        .spawn()?;
    let output = child.stdout.take().ok_or("no output")?;
    let mut acknowledged = None;
    for line in io::BufReader::new(output).lines() {
        let line = line?;
        if let Some(count) = line.strip_prefix("acknowledged ") {
            acknowledged = Some(count.parse()?);
            child.kill()?;
            break;
        }
        println!("{line}");
    }
    child.wait()?;
    acknowledged.ok_or_else(|| "the load ended early".into())
}

// ---- Counting -------------------------------------------------------------------------------------------------------

/// Bytes written to the journal and to the index.
#[derive(Debug, Default)]
struct Written {
    journal: AtomicU64,
    index: AtomicU64,
}

#[derive(Debug)]
struct Counting(DirDisk, Arc<Written>);

#[derive(Debug)]
struct CountingFile {
    file: Arc<dyn DiskFile>,
    written: Arc<Written>,
    is_journal: bool,
}

impl Disk for Counting {
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let file = self.0.open(name)?;
        Ok(Arc::new(CountingFile { file, written: Arc::clone(&self.1), is_journal: name.starts_with("journal") }))
    }
    fn list(&self) -> io::Result<Vec<String>> {
        self.0.list()
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.0.remove(name)
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.0.rename(from, to)
    }
    fn sync_dir(&self) -> io::Result<()> {
        self.0.sync_dir()
    }
    fn free_bytes(&self) -> io::Result<u64> {
        self.0.free_bytes()
    }
}

impl DiskFile for CountingFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read_at(offset, out)
    }
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let sum = if self.is_journal { &self.written.journal } else { &self.written.index };
        sum.fetch_add(data.len() as u64, Ordering::Relaxed);
        self.file.write_at(offset, data)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

/// Processor time of the store's threads, microseconds: of the one that commits, and of the one that folds.
fn store_cpu_us() -> Outcome<(u64, u64)> {
    let (mut journal, mut fold) = (0, 0);
    for task in std::fs::read_dir("/proc/self/task")? {
        let path = task?.path();
        let name = std::fs::read_to_string(path.join("comm"))?;
        let text = std::fs::read_to_string(path.join("schedstat"))?;
        let time = text.split_whitespace().next().ok_or("no run time")?.parse::<u64>()? / 1000;
        match name.trim() {
            "store-journal" => journal += time,
            "store-fold" => fold += time,
            _ => {}
        }
    }
    Ok((journal, fold))
}

fn resident_bytes() -> Outcome<u64> {
    let text = std::fs::read_to_string("/proc/self/status")?;
    let line = text.lines().find(|line| line.starts_with("VmRSS")).ok_or("no such line")?;
    Ok(line.split_whitespace().nth(1).ok_or("no number")?.parse::<u64>()? * 1024)
}

fn disk_bytes(dir: &Path) -> Outcome<u64> {
    let mut sum = 0;
    for entry in std::fs::read_dir(dir)? {
        // A file may have holes.
        sum += entry?.metadata()?.blocks() * 512;
    }
    Ok(sum)
}

// ---- The load -------------------------------------------------------------------------------------------------------

/// Makes messages, the same every time.
struct Source {
    seed: Seed,
    /// The next sequence number of each conversation, and the next position of each mailbox.
    seqs: HashMap<u64, u64>,
    positions: Vec<u64>,
    number: u64,
    body: [u8; 200],
}

impl Source {
    fn new() -> Self {
        let mut seed = Seed(42);
        let body = std::array::from_fn(|_| seed.draw() as u8);
        Self { seed, seqs: HashMap::new(), positions: vec![0; ACCOUNTS as usize], number: 0, body }
    }

    fn pair(&mut self) -> (u64, u64) {
        let draw = self.seed.draw();
        let other = (draw >> 32) % ACCOUNTS;
        let first = match draw % 150 {
            0 => return (0, 2 + other % 20),
            1 => 1,
            _ => self.seed.below(ACCOUNTS),
        };
        (first, if other == first { (first + 1) % ACCOUNTS } else { other })
    }

    /// The hash under which a message is known as sent before.
    fn hash(number: u64) -> u64 {
        Seed(number).draw()
    }

    /// Adds one message; returns its sender.
    fn push(&mut self, batch: &mut Batch) -> u64 {
        let (from, to) = self.pair();
        let conversation = from.min(to) * ACCOUNTS + from.max(to);
        let next = self.seqs.entry(conversation).or_insert(1);
        let seq = *next;
        *next += 1;
        self.number += 1;
        self.body[..8].copy_from_slice(&self.number.to_le_bytes());
        batch.push(&Fact::Put { table: BODIES, a: conversation, b: seq, value: &self.body });
        let entry = (conversation << 24 | seq).to_le_bytes();
        // Half of the senders get a receipt as well.
        let boxes = [Some(to), Some(from), self.number.is_multiple_of(2).then_some(from)];
        for account in boxes.into_iter().flatten() {
            let position = &mut self.positions[account as usize];
            batch.push(&Fact::Put { table: BOXES, a: account, b: *position, value: &entry });
            *position += 1;
        }
        let mut value = [0; 16];
        value[..8].copy_from_slice(&conversation.to_le_bytes());
        value[8..].copy_from_slice(&seq.to_le_bytes());
        batch.push(&Fact::Put { table: DUPLICATES, a: from, b: Self::hash(self.number), value: &value });
        for account in [from, to] {
            let position = self.positions[account as usize] as u32;
            batch.push(&Fact::Put { table: Table(1), a: account, b: 0, value: &position.to_le_bytes() });
            batch.push(&Fact::Put { table: Table(2), a: account, b: 1, value: &position.to_le_bytes()[..3] });
        }
        batch.push(&Fact::Put { table: Table(3), a: conversation % 20_000, b: 0, value: &entry[..3] });
        from
    }
}

struct Lap {
    name: String,
    began: Instant,
    cpu: (u64, u64),
    written: (u64, u64),
    latencies: Vec<Duration>,
}

impl Lap {
    fn begin(name: String, written: &Written) -> Outcome<Self> {
        let written = (written.journal.load(Ordering::Relaxed), written.index.load(Ordering::Relaxed));
        Ok(Self { name, began: Instant::now(), cpu: store_cpu_us()?, written, latencies: vec![] })
    }

    fn print(&mut self, messages: u64, written: &Written) -> Outcome {
        let seconds = self.began.elapsed().as_secs_f64();
        let each = |now: u64, before: u64| (now - before) as f64 / messages as f64;
        let cpu = store_cpu_us()?;
        let (journal, fold) = (each(cpu.0, self.cpu.0), each(cpu.1, self.cpu.1));
        let journal_bytes = each(written.journal.load(Ordering::Relaxed), self.written.0);
        let index_bytes = each(written.index.load(Ordering::Relaxed), self.written.1);
        self.latencies.sort_unstable();
        let at = |part: f64| {
            let last = self.latencies.len().saturating_sub(1);
            self.latencies.get((last as f64 * part) as usize).map_or(0.0, |d| d.as_secs_f64() * 1e3)
        };
        println!(
            "{:18} {:>8.0} msg/s  CPU {:.2} us ({journal:.2} + {fold:.2})  written {:.0} B ({journal_bytes:.0} + \
             {index_bytes:.0})  ack p50 {:.2} p99 {:.2} max {:.2} ms  {} MiB resident",
            self.name,
            messages as f64 / seconds,
            journal + fold,
            journal_bytes + index_bytes,
            at(0.5),
            at(0.99),
            at(1.0),
            resident_bytes()? >> 20
        );
        Ok(())
    }
}

struct Running {
    store: StoreThreads,
    bell: Receiver<()>,
}

impl Running {
    fn open(disk: Arc<dyn Disk>, options: &Options) -> Outcome<(Self, Snapshot)> {
        let (ring, bell) = channel();
        let wake = Box::new(move || {
            // The last event may come after everything was measured.
            let _ = ring.send(());
        });
        let (store, snapshot) = StoreThreads::open(disk, options, wake)?;
        Ok((Self { store, bell }, snapshot))
    }

    fn next(&mut self) -> Outcome<StoreEvent> {
        loop {
            match self.store.poll() {
                Some(StoreEvent::Failed(text)) => return Err(text.into()),
                Some(event) => return Ok(event),
                None => self.bell.recv()?,
            }
        }
    }

    fn ask(&mut self, table: Table, what: What) -> Outcome<Answer> {
        self.store.query(Query { token: 0, table, what });
        loop {
            if let StoreEvent::Answer(answer) = self.next()? {
                return Ok(answer);
            }
        }
    }
}

fn load(plan: &Plan) -> Outcome {
    let written = Arc::new(Written::default());
    let disk = Arc::new(Counting(DirDisk::open(&plan.dir)?, Arc::clone(&written)));
    let (mut running, _) = Running::open(disk, &plan.options())?;
    let figures = running.store.figures();
    let mut source = Source::new();
    let (mut number, mut messages, mut lap_from) = (0, 0, 0);
    let began = Instant::now();
    let mut whole = Lap::begin("all".to_owned(), &written)?;
    let mut lap = Lap::begin("first 100,000".to_owned(), &written)?;
    while messages < plan.messages {
        if plan.rate > 0 {
            let due = Duration::from_secs_f64((messages + BATCH) as f64 / plan.rate as f64);
            std::thread::sleep(due.saturating_sub(began.elapsed()));
        }
        let mut batch = Batch::default();
        for _ in 0..BATCH {
            source.push(&mut batch);
        }
        batch.push(&Fact::Clock { wall_ms: 1_800_000_000_000 + messages / 100 });
        number += 1;
        let start = Instant::now();
        running.store.submit(BatchNo(number), batch);
        while !matches!(running.next()?, StoreEvent::Committed(BatchNo(done)) if done == number) {}
        lap.latencies.push(start.elapsed());
        messages += BATCH;
        let count = messages - lap_from;
        if count >= 500_000 || (messages < 200_000 && count >= 100_000) {
            lap.print(count, &written)?;
            let now = figures.read();
            println!(
                "    {} folds in {} ms, {} merges of {} MiB in {} ms, {} runs, {} rows in the tail, {} MiB on disk",
                now.folds,
                now.fold_us / 1000,
                now.merges,
                now.merged_bytes >> 20,
                now.merge_us / 1000,
                now.row_runs,
                now.tail_rows,
                disk_bytes(&plan.dir)? >> 20
            );
            whole.latencies.append(&mut lap.latencies);
            lap_from = messages;
            lap = Lap::begin(format!("to {}", messages + 500_000), &written)?;
        }
    }
    // What is left to merge belongs to the cost of what was written.
    let mut before = u64::MAX;
    while figures.read().merged_bytes != before {
        before = figures.read().merged_bytes;
        std::thread::sleep(Duration::from_millis(300));
    }
    whole.latencies.append(&mut lap.latencies);
    whole.print(messages, &written)?;
    println!("    {} bytes kept a message", disk_bytes(&plan.dir)? / messages);
    println!("acknowledged {messages}");
    io::stdout().flush()?;
    // Killed here, with what is not folded in the journal.
    std::thread::sleep(Duration::from_secs(60));
    Ok(())
}

// ---- Reading back ---------------------------------------------------------------------------------------------------

/// Empties the system's cache of files, where that is allowed.
fn drop_caches() -> bool {
    let synced = Command::new("sync").status().is_ok_and(|status| status.success());
    synced && std::fs::write("/proc/sys/vm/drop_caches", "3").is_ok()
}

/// Ten thousand mailbox entries with their bodies, in pages of 512; how many there were, and the time it took.
fn read_mailbox(running: &mut Running, account: u64) -> Outcome<(u64, Duration, Duration)> {
    let (mut from, mut entries) = (0, 0);
    let mut for_bodies = Duration::ZERO;
    let start = Instant::now();
    while entries < 10_000 {
        let (direction, until) = (Direction::Up, u64::MAX);
        let page = running
            .ask(BOXES, What::Range { a: account, from, until, direction, max_rows: 512, max_bytes: 1 << 20 })?;
        let mut keys = vec![];
        for row in &page {
            if row.b != from {
                return Err(format!("mailbox {account} has {} instead of {from}", row.b).into());
            }
            from += 1;
            let entry = u64::from_le_bytes(row.value.try_into()?);
            keys.push((entry >> 24, entry & 0xFF_FFFF));
        }
        entries += u64::from(page.rows);
        let asked = Instant::now();
        let mut distinct = keys.clone();
        let bodies = running.ask(BODIES, What::Rows(keys))?;
        for_bodies += asked.elapsed();
        distinct.sort_unstable();
        distinct.dedup();
        if bodies.rows as usize != distinct.len() {
            return Err(format!("{} bodies of {}", bodies.rows, distinct.len()).into());
        }
        if !page.is_partial {
            break;
        }
    }
    Ok((entries, start.elapsed(), for_bodies))
}

fn read_back(plan: &Plan, acknowledged: u64) -> Outcome {
    let start = Instant::now();
    let (engine, snapshot) = Engine::open(Arc::new(DirDisk::open(&plan.dir)?), &plan.options())?;
    println!(
        "opened after the kill in {:.0} ms: {} facts in the journal, {} rows of state, {} keys, {} MiB resident",
        start.elapsed().as_secs_f64() * 1e3,
        engine.recovery().facts,
        snapshot.rows.len(),
        snapshot.keys.len(),
        resident_bytes()? >> 20
    );
    if (snapshot.keys.len() as u64) < acknowledged {
        return Err(format!("{} dedup rows of {acknowledged}", snapshot.keys.len()).into());
    }
    drop((engine, snapshot));
    let start = Instant::now();
    drop(Engine::open(Arc::new(DirDisk::open(&plan.dir)?), &plan.options())?);
    println!("opened again in {:.0} ms", start.elapsed().as_secs_f64() * 1e3);

    let mut source = Source::new();
    let mut senders = vec![];
    for number in 1..=acknowledged {
        let from = source.push(&mut Batch::default());
        if number % 20_011 == 7 {
            senders.push((from, Source::hash(number)));
        }
    }
    let is_cold = drop_caches();
    let (mut running, snapshot) = Running::open(Arc::new(DirDisk::open(&plan.dir)?), &plan.options())?;
    drop(snapshot);
    let is_cold = is_cold && drop_caches();
    for temperature in [if is_cold { "cold" } else { "first" }, "warm"] {
        for (account, name) in [(0, "20 conversations"), (1, "conversations with anybody"), (77, "an ordinary account")]
        {
            let (entries, took, bodies) = read_mailbox(&mut running, account)?;
            println!(
                "{temperature}: {entries} mailbox entries with bodies, {name}: {:.1} ms, of which bodies {:.1}",
                took.as_secs_f64() * 1e3,
                bodies.as_secs_f64() * 1e3
            );
        }
        let mut times = vec![];
        for &key in &senders {
            let start = Instant::now();
            let answer = running.ask(DUPLICATES, What::Rows(vec![key]))?;
            times.push(start.elapsed());
            if answer.rows != 1 {
                return Err("a dedup row is missing".into());
            }
        }
        times.sort_unstable();
        let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize].as_secs_f64() * 1e6;
        println!("{temperature}: dedup hit p50 {:.0} p99 {:.0} us", at(0.5), at(0.99));
    }
    Ok(())
}
