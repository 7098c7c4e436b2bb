//! A board with the real session code of the SDK, the broker's real core, and a person, on one clock and one seed: the
//! network cuts and goes silent, the board reboots (its RAM is lost, its flash stays), flash fails, the broker loses power.
//!
//! What the board's application did and heard, and what the person did and heard, goes into the [`Model`], which knows
//! nothing of how either works.

mod board;
mod model;
mod net;
mod person;
mod speech;

pub use model::{Model, Violation};

use crate::world::{Backend, Desk, InMemory, PowerCut, Rng};
use board::Board;
use net::Conn;
use parlor_core::access::Access;
use parlor_core::auth::AuthAnswer;
use parlor_core::limits::Limits;
use parlor_core::store::{Store, StoreEvent};
use parlor_core::{Effect, Hub, LinkId, Now, Settings};
use person::Person;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

/// A promise that the board breaks, mostly its flash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It says that it has a command, and has not.
    ForgetsCommands,
    /// It says that it has a row of the outbox, and has not.
    ForgetsRows,
    /// It has always the same number of the start.
    ForgetsStarts,
    /// It says that it has what became of a row, and has nothing.
    ForgetsOutcomes,
    /// It acknowledges what comes from ordinary topics, and some of that never gets to its application.
    LosesMessages,
}

/// What the board speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wire {
    /// MQTT 5.
    V5,
    /// MQTT 3.1.1.
    V311,
    /// The frames of the native link, over one stream.
    Native,
}

/// What happens in a run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// All chance comes from it.
    pub seed: u64,
    /// How long it is disorderly, virtual milliseconds.
    pub chaos_ms: u64,
    /// Reboots of the board, out of a thousand acts.
    pub reboots: u64,
    /// Cuts of its connection, out of a thousand acts.
    pub cuts: u64,
    /// How often a write to flash fails, out of a hundred.
    pub flash_fails: u64,
    /// This write to flash fails.
    pub fails_at: Option<u64>,
    /// The power goes during this write to flash.
    pub dies_at: Option<u64>,
    /// When the broker loses power.
    pub crashes_ms: Vec<u64>,
    /// What the board speaks.
    pub wire: Wire,
    /// Messages of the board are kept in flash.
    pub in_flash: bool,
    /// Which promise the board breaks.
    pub fault: Option<Fault>,
}

impl Plan {
    /// A plan drawn from a seed, for a board that speaks MQTT.
    pub fn random(seed: u64) -> Self {
        let mut rng = Rng::new(seed ^ 0xB0A2_0000);
        let chaos_ms = rng.between(8_000, 30_000);
        Self {
            seed,
            chaos_ms,
            reboots: if rng.chance(60) { rng.between(2, 40) } else { 0 },
            cuts: if rng.chance(70) { rng.between(5, 60) } else { 0 },
            flash_fails: if rng.chance(30) { rng.between(1, 15) } else { 0 },
            fails_at: None,
            dies_at: None,
            crashes_ms: (0..rng.below(3)).map(|_| rng.between(500, chaos_ms)).collect(),
            wire: if rng.chance(65) { Wire::V5 } else { Wire::V311 },
            in_flash: rng.chance(70),
            fault: None,
        }
    }

    /// The same plan for a board that speaks the native link.
    pub fn native(seed: u64) -> Self {
        Self { wire: Wire::Native, ..Self::random(seed) }
    }
}

/// What a run showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Broken promises.
    pub violations: Vec<Violation>,
    /// A hash over every event: equal seeds give equal traces.
    pub trace: u64,
    /// Writes to flash.
    pub writes: u64,
    /// What happened how often.
    pub tally: BTreeMap<&'static str, u64>,
}

impl Report {
    /// Fails with everything needed to repeat the run.
    pub fn expect_clean(&self, what: &str, seed: u64) {
        let lines: Vec<String> = self.violations.iter().map(|v| format!("  {}: {}", v.promise, v.text)).collect();
        assert!(lines.is_empty(), "{what}: repeat with SEED={seed}\n{}", lines.join("\n"));
    }
}

#[derive(Debug)]
enum Event {
    Up(usize, Vec<u8>),
    UpEnd(usize),
    Down(usize, Vec<u8>),
    DownEnd(usize),
    Auth(LinkId, u64, String),
    /// The board's turn: of this start.
    Board(u32),
    /// The board's application does something.
    App,
    /// A write to flash ends.
    Flash(u32),
    /// The power of the board goes, in this start.
    Off(u32),
    /// Power is back at the board.
    Boot,
    Alice,
    Disk,
    Crash,
    Start,
}

const EPOCH_MS: u64 = 1_800_000_000_000;

struct Broker {
    hub: Hub,
    store: Box<dyn Store>,
    desk: Desk,
    outstanding: u64,
    born_ms: u64,
}

impl Broker {
    /// Its time, in which it was born at 0.
    fn now(&self, now_ms: u64) -> Now {
        Now { ms: now_ms - self.born_ms, wall_ms: EPOCH_MS + now_ms }
    }
}

struct World {
    plan: Plan,
    backend: InMemory,
    broker: Option<Broker>,
    conns: Vec<Conn>,
    board: Board,
    alice: Person,
    model: Model,
    events: BinaryHeap<Reverse<(u64, u64)>>,
    waiting: BTreeMap<u64, Event>,
    next_event: u64,
    now_ms: u64,
    rng: Rng,
    trace: u64,
    disk_busy: bool,
    calm: bool,
    boots: u64,
    verbose: bool,
}

/// Runs a plan to its end.
pub fn run(plan: &Plan) -> Report {
    let mut world = World::new(plan.clone());
    world.live();
    Report {
        violations: world.model.violations.clone(),
        trace: world.trace,
        writes: world.board.writes,
        tally: world.model.tally.clone(),
    }
}

impl World {
    fn new(plan: Plan) -> Self {
        let mut rng = Rng::new(plan.seed);
        Self {
            backend: InMemory::default(),
            broker: None,
            conns: vec![],
            board: Board::new(&plan, &mut rng),
            alice: Person::default(),
            model: Model::default(),
            events: BinaryHeap::new(),
            waiting: BTreeMap::new(),
            next_event: 0,
            now_ms: 1,
            rng,
            trace: 0xCBF2_9CE4_8422_2325,
            disk_busy: false,
            calm: false,
            boots: 0,
            verbose: std::env::var_os("PARLOR_SIM_TRACE").is_some(),
            plan,
        }
    }

    fn say(&self, text: impl FnOnce() -> String) {
        if self.verbose {
            eprintln!("{:6} {}", self.now_ms, text());
        }
    }

    fn after(&mut self, wait_ms: u64, event: Event) {
        self.next_event += 1;
        self.events.push(Reverse((self.now_ms + wait_ms, self.next_event)));
        self.waiting.insert(self.next_event, event);
    }

    fn note(&mut self, kind: u8, bytes: &[u8]) {
        for byte in self.now_ms.to_le_bytes().into_iter().chain([kind]).chain(bytes.iter().copied()) {
            self.trace = (self.trace ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3);
        }
    }

    fn with_broker<T>(&mut self, run: impl FnOnce(&mut Broker, Now) -> T) -> Option<T> {
        let mut broker = self.broker.take()?;
        let now = broker.now(self.now_ms);
        let value = run(&mut broker, now);
        self.broker = Some(broker);
        Some(value)
    }

    /// Lets time pass until `until_ms`, or until `done` says so.
    fn pass(&mut self, until_ms: u64, done: &mut dyn FnMut(&mut Self) -> bool) {
        loop {
            let event = self.events.peek().map(|Reverse((at, _))| *at);
            let hub = self.broker.as_ref().and_then(|b| b.hub.deadline().map(|at| at + b.born_ms));
            let board = self.board.deadline();
            let next = [event, hub, board].into_iter().flatten().min().unwrap_or(u64::MAX);
            if next > until_ms {
                self.now_ms = until_ms;
                return;
            }
            self.now_ms = self.now_ms.max(next);
            if hub.is_some_and(|at| at <= self.now_ms) {
                self.with_broker(|b, now| b.hub.tick(now));
            } else if event.is_some_and(|at| at <= self.now_ms)
                && let Some(Reverse((_, number))) = self.events.pop()
                && let Some(event) = self.waiting.remove(&number)
            {
                self.happen(event);
            }
            self.settle();
            self.run_board();
            self.settle();
            if done(self) {
                return;
            }
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Up(conn, bytes) => self.up(conn, &bytes),
            Event::UpEnd(conn) => self.up_end(conn),
            Event::Down(conn, bytes) => self.down(conn, &bytes),
            Event::DownEnd(conn) => self.down_end(conn),
            Event::Auth(link, exchange, account) => {
                let answer = AuthAnswer::Accept { account, groups: vec![], expires_at_ms: None, data: None };
                self.with_broker(|b, now| b.hub.authenticated(now, link, exchange, answer));
            }
            Event::Board(boot) if boot == self.board.boot => self.connect_board(),
            Event::Board(_) => {}
            Event::App => self.app(),
            Event::Flash(boot) if boot == self.board.boot => self.flash_ends(),
            Event::Flash(_) => {}
            Event::Off(boot) if boot == self.board.boot && !self.calm => self.reboot(),
            Event::Off(_) => {}
            Event::Boot => self.boot_board(),
            Event::Alice => self.alice_acts(),
            Event::Disk => self.disk_step(),
            Event::Crash => self.crash(),
            Event::Start => self.start(),
        }
    }

    // ---- The broker --------------------------------------------------------------------------------------------

    fn start(&mut self) {
        self.boots += 1;
        let Ok(snapshot) = self.backend.open() else { return };
        let settings = Settings {
            limits: Limits::default(),
            access: Access::default(),
            sys_interval_secs: 0,
            im: parlor_core::ImSettings::default(),
        };
        let now = Now { ms: 0, wall_ms: EPOCH_MS + self.now_ms };
        let hub = Hub::new(settings, snapshot, self.plan.seed ^ self.boots, now);
        let desk = Desk::default();
        let store = Box::new(desk.clone());
        self.broker = Some(Broker { hub, store, desk, outstanding: 0, born_ms: self.now_ms });
        self.disk_busy = false;
        self.alice_connects();
    }

    fn crash(&mut self) {
        if self.broker.take().is_none() {
            return;
        }
        self.model.count("crashes of the broker");
        self.say(|| "the broker loses power".into());
        self.backend.power_cut();
        self.broker_is_gone();
        let wait = self.rng.between(10, 1_500);
        self.after(wait, Event::Start);
    }

    fn settle(&mut self) {
        loop {
            let Some(mut b) = self.broker.take() else { return };
            let now = b.now(self.now_ms);
            while let Some(event) = b.store.poll() {
                if let StoreEvent::Committed(number) = &event
                    && number.0 >= b.outstanding
                {
                    b.outstanding = 0;
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
            if !self.disk_busy && self.broker.as_ref().is_some_and(|b| b.desk.is_busy()) {
                self.disk_busy = true;
                let wait = if self.rng.chance(5) { self.rng.between(10, 300) } else { self.rng.below(4) };
                self.after(wait, Event::Disk);
            }
            if idle {
                return;
            }
        }
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
            _ => {}
        }
    }

    fn disk_step(&mut self) {
        self.disk_busy = false;
        let Some(desk) = self.broker.as_ref().map(|b| b.desk.clone()) else { return };
        if let Err(PowerCut) = desk.work(&mut self.backend) {
            self.crash();
        }
    }

    // ---- The whole run -----------------------------------------------------------------------------------------

    fn live(&mut self) {
        self.after(0, Event::Start);
        self.pass(2, &mut |_| false);
        for (token, (name, kind)) in [(1, ("alice", "person")), (2, ("lamp", "device"))] {
            self.with_broker(|b, now| b.hub.describe_account(now, name, kind, None, token));
        }
        for (token, (who, path, op)) in
            [(3, ("alice", "me/contact/lamp", "request")), (4, ("lamp", "me/contact/alice", "accept"))]
        {
            let payload = format!("{{\"op\":\"{op}\"}}");
            self.with_broker(|b, now| b.hub.act(now, who, path, payload.as_bytes(), token));
            self.settle();
        }
        self.pass(2_000, &mut |_| false);
        self.after(0, Event::Boot);
        // What is written before the broker knows the board's terminal is not for it.
        self.pass(self.now_ms + 2_000, &mut |_| false);
        for event in [Event::Alice, Event::App] {
            self.after(50, event);
        }
        for at in self.plan.crashes_ms.clone() {
            self.after(at, Event::Crash);
        }
        self.pass(self.now_ms + self.plan.chaos_ms, &mut |_| false);
        self.calm = true;
        self.say(|| "calm".into());
        self.alice_asks_once_more();
        let until = self.now_ms + 240_000;
        self.pass(until, &mut |world| world.is_at_rest());
        if !self.is_at_rest() {
            let text = format!("not at rest: {}, {}", self.board.state(), self.alice.state());
            self.model.blame("it comes to rest", text);
        }
        // What would come late has come.
        self.pass(self.now_ms + 3_000, &mut |_| false);
        self.judge();
    }
}
