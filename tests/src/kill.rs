//! The kill -9 loop: a real broker process, real sockets, clients in threads, and a ledger of what was promised.
//!
//! Publishers (QoS 1 and 2, both versions, persistent sessions) keep a window of messages on their way while subscribers
//! (persistent, QoS 1 and 2) take them. Each round the process is killed in the middle of that and started again on the
//! same data directory; the clients come back by themselves and go on. At the end everything must have arrived: nothing
//! acknowledged lost, no QoS 2 message twice, every publisher's messages in order. Beside them accounts talk to each other
//! (`kill_talk.rs`).

use crate::checkers::{Class, Ledger, Publication, Violation};
use crate::kill_talk::{SETTINGS, Talk};
use crate::server::Broker;
use crate::world::{Character, Client, Phase, Rng};
use parlor_protocol::mqtt::{Version, decode};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What a loop showed.
#[derive(Debug)]
pub struct Outcome {
    /// Broken promises.
    pub violations: Vec<Violation>,
    /// Messages published.
    pub messages: usize,
    /// Messages of conversations that were acknowledged.
    pub said: usize,
    /// Deliveries, repeated ones included.
    pub deliveries: u64,
    /// Rounds that were run.
    pub rounds: u32,
}

impl Outcome {
    /// Whether a promise of this class was broken.
    pub fn shows(&self, class: Class) -> bool {
        self.violations.iter().any(|v| v.class == class)
    }
}

/// How long clients may take to come to rest after the last round.
const REST: Duration = Duration::from_secs(60);
/// How long a round may take to get going.
const ROUND: Duration = Duration::from_secs(30);
/// Messages one publisher keeps on their way.
const WINDOW: usize = 10;

/// What the threads share.
struct Stage {
    ledger: Mutex<Ledger>,
    addr: Mutex<SocketAddr>,
    /// Counts starts of the broker; a client that cannot connect waits for the next one.
    boots: Mutex<u32>,
    booted: Condvar,
    began: Instant,
    /// Publishers start nothing new.
    calm: AtomicBool,
    /// The same while the conversations are read, which takes its time beside a store that keeps nobody back.
    judging: AtomicBool,
    over: AtomicBool,
    deliveries: AtomicU64,
    answers: AtomicU64,
    /// Subscribers that have their subscriptions.
    seated: AtomicUsize,
    /// Clients with nothing unfinished.
    done: Vec<AtomicBool>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Stage {
    fn now_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Waits until `done` says so; false when that takes longer than `patience`.
    fn wait(&self, patience: Duration, mut done: impl FnMut() -> bool) -> bool {
        let deadline = Instant::now() + patience;
        let mut boots = lock(&self.boots);
        while !done() {
            if Instant::now() >= deadline {
                return false;
            }
            // Whoever counts something says so; the timeout is for what nobody counts any more.
            let tick = Duration::from_millis(20);
            boots = self.booted.wait_timeout(boots, tick).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }
}

/// Who plays in the loop.
fn cast() -> Vec<Part> {
    let part = |name: &str, version, publishes, subscribes| Part {
        character: Character {
            name: name.into(),
            version,
            persistent: true,
            receive_max: 200,
            alias_max: 0,
            keep_alive_secs: 30,
            will_delay_secs: None,
            username: None,
        },
        publishes,
        subscribes,
    };
    vec![
        part("publisher-1-v4", Version::V311, Some(1), None),
        part("publisher-1-v5", Version::V5, Some(1), None),
        part("publisher-2-v4", Version::V311, Some(2), None),
        part("publisher-2-v5", Version::V5, Some(2), None),
        part("subscriber-1-v4", Version::V311, None, Some(1)),
        part("subscriber-2-v4", Version::V311, None, Some(2)),
        part("subscriber-2-v5", Version::V5, None, Some(2)),
    ]
}

struct Part {
    character: Character,
    publishes: Option<u8>,
    subscribes: Option<u8>,
}

/// Who takes part in a loop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Everybody.
    All,
    /// Those who talk to each other: conversations only.
    Talk,
    /// Publishers and subscribers only.
    Queues,
}

/// Runs so many rounds; `say` hears one line a round.
pub fn run(rounds: u32, seed: u64, scope_of: Scope, mut say: impl FnMut(&str)) -> Outcome {
    let mut rng = Rng::new(seed);
    let (talk, mut broker) = Talk::begin(Broker::start(&SETTINGS));
    let talks = scope_of != Scope::Queues;
    let parts = if scope_of == Scope::Talk { vec![] } else { cast() };
    let subscribers = parts.iter().filter(|p| p.subscribes.is_some()).count();
    let stage = Stage {
        ledger: Mutex::new(Ledger::default()),
        addr: Mutex::new(broker.addr()),
        boots: Mutex::new(1),
        booted: Condvar::new(),
        began: Instant::now(),
        calm: AtomicBool::new(false),
        judging: AtomicBool::new(false),
        over: AtomicBool::new(false),
        deliveries: AtomicU64::new(0),
        answers: AtomicU64::new(0),
        seated: AtomicUsize::new(0),
        done: parts.iter().map(|_| AtomicBool::new(false)).collect(),
    };
    let mut played = 0;
    std::thread::scope(|scope| {
        for (number, part) in parts.into_iter().enumerate() {
            let stage = &stage;
            scope.spawn(move || play(stage, number, &part));
        }
        scope.spawn(|| tick(&stage));
        if talks {
            talk.spawn(scope);
        }
        let seated =
            stage.wait(ROUND, || stage.seated.load(Ordering::Relaxed) == subscribers && (!talks || talk.is_seated()));
        if !seated {
            lock(&stage.ledger).blame(Class::Stuck, "the subscribers did not get their subscriptions".into());
        }
        for round in 1..=rounds {
            if !lock(&stage.ledger).violations().is_empty() {
                break;
            }
            let (answers, deliveries) =
                (stage.answers.load(Ordering::Relaxed), stage.deliveries.load(Ordering::Relaxed));
            // The traffic must run before it is cut, and not always for the same time.
            let (enough, said) = (answers + rng.between(20, 4_000), talk.acknowledged() as u64 + rng.between(5, 200));
            let going = stage.wait(ROUND, || {
                let flows = stage.answers.load(Ordering::Relaxed) > enough
                    && stage.deliveries.load(Ordering::Relaxed) > deliveries;
                (flows || scope_of == Scope::Talk) && (!talks || talk.acknowledged() as u64 > said)
            });
            if !going {
                lock(&stage.ledger)
                    .blame(Class::Stuck, format!("round {round}: the traffic does not go on\n{}", broker.log()));
                break;
            }
            broker.kill();
            let began = Instant::now();
            stage.judging.store(true, Ordering::Relaxed);
            broker.start_again();
            *lock(&stage.addr) = broker.addr();
            talk.moved(broker.addr());
            *lock(&stage.boots) += 1;
            stage.booted.notify_all();
            let back = began.elapsed();
            if talks {
                judge(&stage, &talk);
            }
            stage.judging.store(false, Ordering::Relaxed);
            played = round;
            let (messages, got) = lock(&stage.ledger).totals();
            say(&format!(
                "round {round} of {rounds}: {messages} messages, {got} deliveries, {} said{}, broker back after {} ms",
                talk.acknowledged(),
                talk.places(),
                back.as_millis()
            ));
        }
        stage.calm.store(true, Ordering::Relaxed);
        talk.calm_down();
        let finished =
            stage.wait(REST, || stage.done.iter().all(|d| d.load(Ordering::Relaxed)) && (!talks || talk.is_silent()));
        if !finished {
            lock(&stage.ledger).blame(Class::Stuck, "publishers wait for answers that do not come".into());
        }
        drain(&stage);
        if talks && lock(&stage.ledger).violations().is_empty() {
            judge(&stage, &talk);
            stage.wait(REST, || talk.missing() == 0);
            talk.compare();
            judge(&stage, &talk);
        }
        if talks {
            talk.end();
        }
        stage.over.store(true, Ordering::Relaxed);
        stage.booted.notify_all();
    });
    let mut ledger = stage.ledger.into_inner().unwrap_or_else(PoisonError::into_inner);
    ledger.check_complete();
    let (messages, deliveries) = ledger.totals();
    let said = talk.acknowledged();
    Outcome { violations: ledger.violations().to_vec(), messages, said, deliveries, rounds: played }
}

/// Compares the conversations with what was promised.
fn judge(stage: &Stage, talk: &Talk) {
    if !talk.judge() {
        lock(&stage.ledger).blame(Class::Stuck, "the broker does not say what was said".into());
    }
    let mut ledger = lock(&stage.ledger);
    for (class, text) in talk.blames() {
        ledger.blame(class, text);
    }
}

/// Waits until every subscriber has everything, or nothing has come for a while.
fn drain(stage: &Stage) {
    let mut last = (stage.deliveries.load(Ordering::Relaxed), Instant::now());
    stage.wait(REST, || {
        let now = stage.deliveries.load(Ordering::Relaxed);
        if now != last.0 {
            last = (now, Instant::now());
        }
        let missing = lock(&stage.ledger).missing();
        missing == 0 || last.1.elapsed() > Duration::from_secs(3)
    });
}

/// Keeps the broker's loop turning, so that a store that wakes nobody is asked again.
fn tick(stage: &Stage) {
    let mut link: Option<TcpStream> = None;
    while !stage.over.load(Ordering::Relaxed) {
        let alive =
            link.as_mut().is_some_and(|l| l.write_all(&[0xC0, 0]).is_ok() && l.read(&mut [0; 64]).is_ok_and(|n| n > 0));
        if !alive {
            link = TcpStream::connect(*lock(&stage.addr)).ok();
            if let Some(l) = &mut link {
                let _ = l.set_read_timeout(Some(Duration::from_millis(500)));
                // CONNECT of a clean 3.1.1 session called "tick".
                let _ = l.write_all(b"\x10\x10\x00\x04MQTT\x04\x02\x00\x00\x00\x04tick");
            }
        }
        std::thread::park_timeout(Duration::from_millis(2));
    }
}

/// One client, through all its connections.
fn play(stage: &Stage, number: usize, part: &Part) {
    let mut client = Client::new(number, part.character.clone());
    let mut chance = Rng::new(number as u64);
    while !stage.over.load(Ordering::Relaxed) {
        let addr = *lock(&stage.addr);
        let open = TcpStream::connect_timeout(&addr, Duration::from_secs(2));
        match open {
            Ok(stream) => {
                converse(stage, &mut client, part, stream, &mut chance);
                client.lost_connection(&mut lock(&stage.ledger));
            }
            Err(_) => {
                // Refused: the broker is not there yet. Its next start, or a while, ends the wait.
                let boots = lock(&stage.boots);
                drop(stage.booted.wait_timeout(boots, Duration::from_millis(50)));
            }
        }
    }
}

/// One connection, to its end.
fn converse(stage: &Stage, client: &mut Client, part: &Part, mut stream: TcpStream, chance: &mut Rng) {
    let _ = stream.set_nodelay(true);
    let _ = stream.set_read_timeout(Some(Duration::from_millis(50)));
    let _ = stream.set_write_timeout(Some(Duration::from_secs(5)));
    client.connect(&mut lock(&stage.ledger), false, stage.now_ms());
    let began = Instant::now();
    let mut input = vec![];
    let mut chunk = [0; 16 * 1024];
    loop {
        if client.phase == Phase::Open {
            act(stage, client, part, chance);
        } else if began.elapsed() > Duration::from_secs(5) {
            return;
        }
        let out = std::mem::take(&mut client.out);
        if stream.write_all(&out).is_err() {
            return;
        }
        if stage.over.load(Ordering::Relaxed) {
            return;
        }
        match stream.read(&mut chunk) {
            Ok(0) => return,
            Ok(count) => input.extend_from_slice(&chunk[..count]),
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted) => {
                continue;
            }
            Err(_) => return,
        }
        let mut ledger = lock(&stage.ledger);
        let (_, before) = ledger.totals();
        let mut at = 0;
        loop {
            match decode(&input[at..], client.character.version, u32::MAX) {
                Ok(Some((packet, size))) => {
                    at += size;
                    if !client.hear(&mut ledger, &packet, stage.now_ms()) {
                        return;
                    }
                    stage.answers.fetch_add(1, Ordering::Relaxed);
                }
                Ok(None) => break,
                Err(error) => {
                    let name = &client.character.name;
                    ledger.blame(Class::Protocol, format!("{name} got bytes that are no packet: {error}"));
                    return;
                }
            }
        }
        input.drain(..at);
        stage.deliveries.fetch_add(ledger.totals().1 - before, Ordering::Relaxed);
        drop(ledger);
        stage.booted.notify_all();
    }
}

fn act(stage: &Stage, client: &mut Client, part: &Part, chance: &mut Rng) {
    if let (Some(qos), Some(session)) = (part.subscribes, client.session) {
        let mut ledger = lock(&stage.ledger);
        let (filters, unsure) = ledger.filters(session);
        let missing = filters.is_empty();
        if (missing || unsure) && client.is_done() {
            client.subscribe(&mut ledger, "kill/#", qos);
        } else if !missing && !unsure && !stage.done[client.number].swap(true, Ordering::Relaxed) {
            stage.seated.fetch_add(1, Ordering::Relaxed);
        }
    }
    if let Some(qos) = part.publishes {
        let calm = stage.calm.load(Ordering::Relaxed);
        stage.done[client.number].store(calm && client.is_done(), Ordering::Relaxed);
        let all = stage.seated.load(Ordering::Relaxed) == cast().iter().filter(|p| p.subscribes.is_some()).count();
        let judging = stage.judging.load(Ordering::Relaxed);
        while !calm && !judging && all && client.may_publish() && client.in_flight() < WINDOW {
            let topic = format!("kill/{}/{}", client.number, chance.below(3));
            let size = if chance.chance(2) { 4_000 } else { 40 };
            let p = Publication { topic, qos, size, ..Publication::default() };
            client.publish(&mut lock(&stage.ledger), p, stage.now_ms());
        }
    }
}
