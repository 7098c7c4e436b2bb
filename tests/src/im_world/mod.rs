//! The world of instant messaging in one thread: the real hub and the real store, people with several terminals each,
//! devices, a stranger who listens, on one clock and one seed.
//!
//! Clients know only what the protocol tells them. What they send and hear goes into the [`Model`], which is made of
//! plain maps and never asks the broker. Between rounds of disorder everything comes to rest, and auditors pull every
//! conversation, every list and every count through the protocol.

mod audit;
mod board;
mod cast;
mod hear;
mod model;
mod net;
mod rest;
mod script;
mod terminal;
mod verdict;

pub use board::Command;
pub use model::{ImClass, ImViolation, Model};

use crate::faulty::Fault;
use crate::world::{Backend, Desk, PowerCut, Rng};
use audit::Audit;
use net::Conn;
use parlor_core::access::Access;
use parlor_core::auth::AuthAnswer;
use parlor_core::limits::Limits;
use parlor_core::store::{Store, StoreEvent};
use parlor_core::{Effect, Hub, LinkId, Now, Settings};
use script::Aim;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use terminal::Terminal;

/// What happens in a run.
#[derive(Debug, Clone)]
pub struct ImPlan {
    /// All chance comes from it.
    pub seed: u64,
    /// People; each has one to three terminals.
    pub people: usize,
    /// Rounds of disorder, each followed by rest and an audit.
    pub rounds: usize,
    /// How long one round lasts, virtual milliseconds.
    pub chaos_ms: u64,
    /// When the power fails, from the beginning of a round.
    pub crashes_ms: Vec<u64>,
    /// When the broker is stopped in an orderly way and started again.
    pub restarts_ms: Vec<u64>,
    /// The disk freezes at this write or sync of the first round.
    pub freeze_at: Option<u64>,
    /// The bounds of the hub.
    pub limits: Limits,
    /// Which promise the store breaks.
    pub fault: Option<Fault>,
}

impl ImPlan {
    /// A plan drawn from a seed.
    pub fn random(seed: u64) -> Self {
        let mut rng = Rng::new(seed ^ 0x1A57_0000);
        let chaos_ms = rng.between(1_500, 4_000);
        let times = |rng: &mut Rng, most: u64| (0..rng.below(most + 1)).map(|_| rng.between(200, chaos_ms)).collect();
        let mut limits = Limits { receive_max: rng.between(4, 40), ..Limits::default() };
        if rng.chance(20) {
            limits.commit_bytes_max = 65_536;
        }
        if rng.chance(15) {
            limits.im_mailbox_entries_max = rng.between(16, 60);
        }
        limits.im_pulls_per_account_max = rng.between(20, 64);
        Self {
            seed,
            people: usize::try_from(rng.between(2, 4)).expect("small"),
            rounds: usize::try_from(rng.between(1, 2)).expect("small"),
            chaos_ms,
            crashes_ms: times(&mut rng, 2),
            restarts_ms: times(&mut rng, 1),
            freeze_at: rng.chance(40).then(|| rng.between(1, 300)),
            limits,
            fault: None,
        }
    }
}

/// What a run showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImReport {
    /// Broken promises.
    pub violations: Vec<ImViolation>,
    /// A hash over every event: equal seeds give equal traces.
    pub trace: u64,
    /// Messages sent.
    pub messages: usize,
    /// Messages and changes that arrived.
    pub deliveries: u64,
    /// How often the power failed.
    pub crashes: u32,
    /// Writes and syncs the disk has seen.
    pub disk_steps: u64,
    /// Virtual milliseconds that passed.
    pub took_ms: u64,
    /// What happened how often; for a look at what the seeds reach.
    pub tally: BTreeMap<&'static str, u64>,
}

impl ImReport {
    /// Fails with everything needed to repeat the run.
    pub fn expect_clean(&self, what: &str, seed: u64) {
        let lines: Vec<String> = self.violations.iter().map(|v| format!("  {}: {}", v.class.name(), v.text)).collect();
        assert!(lines.is_empty(), "{what}: repeat with SEED={seed}\n{}", lines.join("\n"));
    }
}

/// Something that happens at a time.
#[derive(Debug)]
enum Event {
    /// Bytes of a client reach the broker.
    Up(usize, Vec<u8>),
    /// The broker sees the end of a connection.
    UpEnd(usize),
    /// Bytes of the broker reach a client.
    Down(usize, Vec<u8>),
    /// The client sees the end of a connection.
    DownEnd(usize),
    /// The client notices that nobody is there any more.
    Notice(usize),
    /// The client reads again.
    ReadOn(usize),
    /// The broker waits no longer for a client to read its last bytes.
    Linger(usize),
    /// A password was checked.
    Auth(LinkId, u64, String),
    /// A client does something.
    Act(usize),
    /// The disk has done something.
    Disk,
    /// The power fails.
    Crash,
    /// The broker is asked to stop.
    Stop,
    /// It has had enough time to.
    Stopped(u32),
    /// The broker starts.
    Start,
}

/// Milliseconds since 1970 at the beginning of the world.
pub(crate) const EPOCH_MS: u64 = 1_800_000_000_000;

/// The broker of the moment.
struct Broker {
    hub: Hub,
    store: Box<dyn Store>,
    desk: Desk,
    outstanding: u64,
    born_ms: u64,
    stopping: bool,
}

/// Everything.
struct World<'a> {
    plan: ImPlan,
    backend: &'a mut dyn Backend,
    broker: Option<Broker>,
    terminals: Vec<Terminal>,
    /// The connection each terminal uses.
    uses: Vec<Option<usize>>,
    conns: Vec<Conn>,
    events: BinaryHeap<Reverse<(u64, u64)>>,
    waiting: BTreeMap<u64, Event>,
    next_event: u64,
    now_ms: u64,
    rng: Rng,
    model: Model,
    audit: Audit,
    aim: Aim,
    board: board::Board,
    /// Everything of this account is away and stays so.
    gone: Option<String>,
    trace: u64,
    disk_busy: bool,
    calm: bool,
    boots: u32,
    crashes: u32,
    /// Every packet goes to standard error.
    verbose: bool,
}

/// Runs a plan to its end.
pub fn run(plan: &ImPlan, backend: &mut dyn Backend) -> ImReport {
    let mut world = World::new(plan.clone(), backend);
    world.live();
    world.report()
}

impl<'a> World<'a> {
    fn new(plan: ImPlan, backend: &'a mut dyn Backend) -> Self {
        let mut rng = Rng::new(plan.seed);
        let (model, terminals) = cast::cast(&mut rng, plan.people);
        Self {
            backend,
            broker: None,
            uses: vec![None; terminals.len()],
            terminals,
            conns: vec![],
            events: BinaryHeap::new(),
            waiting: BTreeMap::new(),
            next_event: 0,
            now_ms: 0,
            rng,
            model,
            audit: Audit::default(),
            aim: Aim::default(),
            board: board::Board::default(),
            gone: None,
            trace: 0xCBF2_9CE4_8422_2325,
            disk_busy: false,
            calm: false,
            boots: 0,
            crashes: 0,
            verbose: std::env::var_os("PARLOR_SIM_TRACE").is_some(),
            plan,
        }
    }

    fn report(mut self) -> ImReport {
        for complaint in self.backend.complaints().to_vec() {
            self.model.blame(ImClass::Store, complaint);
        }
        ImReport {
            violations: self.model.violations().to_vec(),
            trace: self.trace,
            messages: self.model.messages.len(),
            deliveries: self.model.deliveries,
            crashes: self.crashes,
            disk_steps: self.backend.disk_steps(),
            took_ms: self.now_ms,
            tally: self.model.tally.clone(),
        }
    }

    // ---- Time --------------------------------------------------------------------------------------------------

    fn after(&mut self, wait_ms: u64, event: Event) {
        self.next_event += 1;
        self.events.push(Reverse((self.now_ms + wait_ms, self.next_event)));
        self.waiting.insert(self.next_event, event);
    }

    fn note(&mut self, kind: u8, number: usize, bytes: &[u8]) {
        let head = self.now_ms.to_le_bytes().into_iter().chain([kind]).chain((number as u64).to_le_bytes());
        for byte in head.chain(bytes.iter().copied()) {
            self.trace = (self.trace ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3);
        }
    }

    fn now(&self, broker: &Broker) -> Now {
        Now { ms: self.now_ms - broker.born_ms, wall_ms: EPOCH_MS + self.now_ms }
    }

    /// Lets time pass until `until_ms`, or until `done` says so.
    fn pass(&mut self, until_ms: u64, mut done: impl FnMut(&Self) -> bool) {
        loop {
            let event = self.events.peek().map(|Reverse((at, _))| *at);
            let timer = self.broker.as_ref().and_then(|b| b.hub.deadline().map(|at| at + b.born_ms));
            let next = event.into_iter().chain(timer).min().unwrap_or(u64::MAX);
            if next > until_ms {
                self.now_ms = until_ms;
                return;
            }
            self.now_ms = self.now_ms.max(next);
            if timer.is_some_and(|at| at <= self.now_ms) {
                self.with_broker(|b, now| b.hub.tick(now));
            } else if let Some(Reverse((_, number))) = self.events.pop()
                && let Some(event) = self.waiting.remove(&number)
            {
                self.happen(event);
            }
            self.settle();
            if done(self) {
                return;
            }
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Up(conn, bytes) => self.up(conn, bytes),
            Event::UpEnd(conn) => self.up_end(conn),
            Event::Down(conn, bytes) => self.down(conn, bytes),
            Event::DownEnd(conn) => self.down_end(conn),
            Event::Notice(conn) => self.notice(conn),
            Event::ReadOn(conn) => self.read_on(conn),
            Event::Linger(conn) => self.linger_over(conn),
            Event::Auth(link, exchange, account) => {
                let answer = AuthAnswer::Accept { account, groups: vec![], expires_at_ms: None, data: None };
                self.with_broker(|b, now| b.hub.authenticated(now, link, exchange, answer));
            }
            Event::Act(terminal) => self.act(terminal),
            Event::Disk => self.disk_step(),
            Event::Crash => {
                if self.broker.is_some() {
                    self.lose_power();
                }
            }
            Event::Stop => self.stop(),
            Event::Stopped(boot) => {
                if self.boots == boot && self.broker.as_ref().is_some_and(|b| b.stopping) {
                    self.stopped();
                }
            }
            Event::Start => self.start(),
        }
    }

    fn with_broker<T>(&mut self, run: impl FnOnce(&mut Broker, Now) -> T) -> Option<T> {
        let mut broker = self.broker.take()?;
        let now = self.now(&broker);
        let value = run(&mut broker, now);
        self.broker = Some(broker);
        Some(value)
    }

    // ---- The broker --------------------------------------------------------------------------------------------

    fn start(&mut self) {
        self.boots += 1;
        let snapshot = match self.backend.open() {
            Ok(snapshot) => snapshot,
            Err(PowerCut) => return self.lose_power(),
        };
        self.note(1, self.boots as usize, &[]);
        let settings = Settings {
            limits: self.plan.limits.clone(),
            access: Access::default(),
            sys_interval_secs: 0,
            im: parlor_core::ImSettings::default(),
        };
        let now = Now { ms: 0, wall_ms: EPOCH_MS + self.now_ms };
        let hub = Hub::new(settings, snapshot, self.plan.seed ^ u64::from(self.boots), now);
        let desk = Desk::default();
        let honest: Box<dyn Store> = Box::new(desk.clone());
        let store = match self.plan.fault {
            Some(fault) => fault.wrap(honest),
            None => honest,
        };
        self.broker = Some(Broker { hub, store, desk, outstanding: 0, born_ms: self.now_ms, stopping: false });
        self.disk_busy = false;
    }

    /// What the driver does after every event: store events, effects, the next batch, the sockets.
    fn settle(&mut self) {
        loop {
            let Some(mut b) = self.broker.take() else { return };
            let now = self.now(&b);
            while let Some(event) = b.store.poll() {
                if let StoreEvent::Committed(number) = &event {
                    self.note(2, usize::try_from(number.0).expect("small"), &[]);
                    if number.0 >= b.outstanding {
                        b.outstanding = 0;
                    }
                }
                b.hub.stored(now, event);
            }
            let mut effects = vec![];
            while let Some(effect) = b.hub.poll_effect() {
                effects.push(effect);
            }
            if b.outstanding == 0
                && let Some((number, batch)) = b.hub.take_batch()
            {
                b.outstanding = number.0;
                b.store.submit(number, batch);
            }
            let dirty = b.hub.poll_dirty();
            let idle = effects.is_empty() && dirty.is_none();
            self.broker = Some(b);
            for effect in effects {
                self.perform(effect);
            }
            if let Some(link) = dirty {
                self.flush_link(link);
            }
            self.wake_disk();
            if idle {
                break;
            }
        }
        self.check_bounds();
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Close(link) => self.closing(link),
            Effect::Authenticate(link, request) => {
                let wait = self.rng.between(1, 60);
                let account = request.username.unwrap_or_else(|| "anonymous".into());
                self.after(wait, Event::Auth(link, request.exchange, account));
            }
            Effect::Load(load) => {
                self.with_broker(|b, _| b.store.load(load));
            }
            Effect::Query(query) => {
                self.with_broker(|b, _| b.store.query(query));
            }
            Effect::Resume(link) => self.resume(link),
            Effect::Replied(_, reply) => {
                if let parlor_core::Reply::Refused { code, text } = reply {
                    self.model.blame(ImClass::Protocol, format!("the operator was refused: {code}: {text}"));
                }
            }
            Effect::Forget(_) | Effect::Stored(_) | Effect::Pair(_) | Effect::AccountMade { .. } => {}
        }
    }

    fn wake_disk(&mut self) {
        if !self.disk_busy && self.broker.as_ref().is_some_and(|b| b.desk.is_busy()) {
            self.disk_busy = true;
            // Now and then the disk takes its time.
            let wait = match self.rng.below(100) {
                0 => self.rng.between(200, 800),
                1..5 => self.rng.between(10, 60),
                _ => self.rng.below(4),
            };
            self.after(wait, Event::Disk);
        }
    }

    fn disk_step(&mut self) {
        self.disk_busy = false;
        let Some(desk) = self.broker.as_ref().map(|b| b.desk.clone()) else { return };
        let done =
            desk.work(self.backend).and_then(|()| if self.rng.chance(10) { self.backend.tidy() } else { Ok(()) });
        if done.is_err() {
            self.lose_power();
        }
    }

    /// The broker and everything it had not made durable are gone.
    fn lose_power(&mut self) {
        self.crashes += 1;
        self.note(3, self.crashes as usize, &[]);
        if self.verbose {
            eprintln!("{:6} power cut {}", self.now_ms, self.crashes);
        }
        self.broker = None;
        self.backend.power_cut();
        self.cut_everybody(true);
        let wait = self.rng.between(10, 1_500);
        self.after(wait, Event::Start);
    }

    fn stop(&mut self) {
        if self.broker.as_ref().is_none_or(|b| b.stopping) {
            return;
        }
        self.note(4, 0, &[]);
        self.with_broker(|b, now| {
            b.stopping = true;
            b.hub.stop(now);
        });
        let boot = self.boots;
        self.after(1_000, Event::Stopped(boot));
    }

    /// The broker has had its time to say goodbye; what is committed stays.
    fn stopped(&mut self) {
        if self.broker.as_ref().is_some_and(|b| b.hub.is_committing()) {
            let boot = self.boots;
            return self.after(20, Event::Stopped(boot));
        }
        self.broker = None;
        if self.backend.close().is_err() {
            return self.lose_power();
        }
        self.cut_everybody(false);
        let wait = self.rng.between(10, 1_500);
        self.after(wait, Event::Start);
    }

    // ---- The whole run -----------------------------------------------------------------------------------------

    fn live(&mut self) {
        self.after(0, Event::Start);
        self.pass(1, |_| false);
        self.furnish();
        for number in 0..self.terminals.len() {
            let wait = self.rng.between(5, 300);
            self.after(wait, Event::Act(number));
        }
        for round in 0..self.plan.rounds {
            if let Some(steps) = self.plan.freeze_at.filter(|_| round == 0) {
                self.backend.freeze_after(steps);
            }
            for at in self.plan.crashes_ms.clone() {
                self.after(at, Event::Crash);
            }
            for at in self.plan.restarts_ms.clone() {
                self.after(at, Event::Stop);
            }
            self.calm = false;
            self.pass(self.now_ms + self.plan.chaos_ms, |_| false);
            self.rest_and_look();
            if !self.model.violations().is_empty() {
                return;
            }
        }
        self.leave_and_return();
        // After one more start, orderly or not, everything is as it was, and nothing comes again.
        self.model.settle();
        if self.rng.chance(50) {
            self.stop();
        } else {
            self.lose_power();
        }
        self.settle();
        self.rest_and_look();
    }
}
