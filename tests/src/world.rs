//! The world in one thread: a real hub, a disk that fails, clients and a network, all on one clock and one seed.
//!
//! Every event happens at a virtual time and in an order that follows from the seed alone, so that a run can be
//! repeated. The world drives the hub as the broker's own driver does: packets in, effects out, one batch on its way to
//! the disk at a time.

mod backend;
mod client;
mod net;
mod rng;
mod wills;

pub use backend::{Backend, Desk, InMemory, OnDisk, PowerCut};
pub use client::{Character, Client, Phase, cast};
pub use rng::Rng;

use crate::checkers::{Class, Ledger, Publication, Violation};
use crate::faulty::Fault;
use net::Conn;
use parlor_core::access::Access;
use parlor_core::auth::AuthAnswer;
use parlor_core::limits::Limits;
use parlor_core::store::{Store, StoreEvent};
use parlor_core::{Effect, Hub, LinkId, Now, Settings};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use wills::Wills;

/// What happens in a run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// All chance comes from it.
    pub seed: u64,
    /// Clients besides the observer.
    pub clients: usize,
    /// How long they do as they please, virtual milliseconds.
    pub chaos_ms: u64,
    /// When the power fails.
    pub crashes_ms: Vec<u64>,
    /// When the broker is stopped in an orderly way and started again.
    pub restarts_ms: Vec<u64>,
    /// The disk freezes at this write or sync, counted from the first one.
    pub freeze_at: Option<u64>,
    /// The bounds of the hub.
    pub limits: Limits,
    /// Which promise the store breaks.
    pub fault: Option<Fault>,
}

impl Plan {
    /// A plan drawn from a seed.
    pub fn random(seed: u64) -> Self {
        let mut rng = Rng::new(seed ^ 0x00C0_FFEE);
        let chaos_ms = rng.between(1_500, 6_000);
        let times = |rng: &mut Rng, most: u64| (0..rng.below(most + 1)).map(|_| rng.between(300, chaos_ms)).collect();
        let mut limits = Limits { receive_max: rng.between(2, 40), ..Limits::default() };
        if rng.chance(30) {
            limits.in_flight_max = rng.between(1, 6);
        }
        if rng.chance(20) {
            limits.commit_bytes_max = 65_536;
        }
        if rng.chance(20) {
            limits.queue_messages_max = rng.between(5, 40);
        }
        Self {
            seed,
            clients: usize::try_from(rng.between(3, 6)).expect("small"),
            chaos_ms,
            crashes_ms: times(&mut rng, 2),
            restarts_ms: times(&mut rng, 1),
            freeze_at: rng.chance(50).then(|| rng.between(1, 400)),
            limits,
            fault: None,
        }
    }
}

/// What a run showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Broken promises.
    pub violations: Vec<Violation>,
    /// A hash over every event: equal seeds give equal traces.
    pub trace: u64,
    /// Messages sent.
    pub messages: usize,
    /// Deliveries that arrived.
    pub deliveries: u64,
    /// How often the power failed.
    pub crashes: u32,
    /// Writes and syncs the disk has seen.
    pub disk_steps: u64,
    /// Virtual milliseconds that passed.
    pub took_ms: u64,
}

impl Report {
    /// Whether a promise of this class was broken.
    pub fn shows(&self, class: Class) -> bool {
        self.violations.iter().any(|v| v.class == class)
    }

    /// Fails with everything needed to repeat the run.
    pub fn expect_clean(&self, what: &str, seed: u64) {
        let lines: Vec<String> = self.violations.iter().map(|v| format!("  {:?}: {}", v.class, v.text)).collect();
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
const EPOCH_MS: u64 = 1_800_000_000_000;
/// When the world gives up waiting for everything to come to rest.
const REST_MS: u64 = 120_000;

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
pub struct World<'a> {
    plan: Plan,
    backend: &'a mut dyn Backend,
    broker: Option<Broker>,
    clients: Vec<Client>,
    /// The connection each client uses.
    uses: Vec<Option<usize>>,
    conns: Vec<Conn>,
    events: BinaryHeap<Reverse<(u64, u64)>>,
    waiting: BTreeMap<u64, Event>,
    next_event: u64,
    now_ms: u64,
    rng: Rng,
    ledger: Ledger,
    wills: Wills,
    trace: u64,
    disk_busy: bool,
    calm: bool,
    boots: u32,
    crashes: u32,
    /// Every packet goes to standard error.
    verbose: bool,
    /// What the probe got as retained messages.
    probe: Option<(usize, BTreeMap<String, Vec<u8>>)>,
}

/// Runs a plan to its end.
pub fn run(plan: &Plan, backend: &mut dyn Backend) -> Report {
    let mut world = World::new(plan.clone(), backend);
    world.live();
    world.report()
}

impl<'a> World<'a> {
    fn new(plan: Plan, backend: &'a mut dyn Backend) -> Self {
        let mut rng = Rng::new(plan.seed);
        let clients = cast(&mut rng, plan.clients);
        let mut ledger = Ledger::default();
        ledger.short_queues = plan.limits.queue_messages_max < Limits::default().queue_messages_max;
        Self {
            backend,
            broker: None,
            uses: vec![None; clients.len()],
            clients,
            conns: vec![],
            events: BinaryHeap::new(),
            waiting: BTreeMap::new(),
            next_event: 0,
            now_ms: 0,
            rng,
            ledger,
            wills: Wills::default(),
            trace: 0xCBF2_9CE4_8422_2325,
            disk_busy: false,
            calm: false,
            boots: 0,
            crashes: 0,
            verbose: std::env::var_os("PARLOR_SIM_TRACE").is_some(),
            probe: None,
            plan,
        }
    }

    fn report(mut self) -> Report {
        for complaint in self.backend.complaints().to_vec() {
            self.ledger.blame(Class::Store, complaint);
        }
        let (messages, deliveries) = self.ledger.totals();
        Report {
            violations: self.ledger.violations().to_vec(),
            trace: self.trace,
            messages,
            deliveries,
            crashes: self.crashes,
            disk_steps: self.backend.disk_steps(),
            took_ms: self.now_ms,
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
            Event::Act(client) => self.act(client),
            Event::Disk => self.disk_step(),
            Event::Crash => self.crash(),
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
        self.wills.started(&mut self.ledger, self.now_ms);
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
            Effect::Forget(_)
            | Effect::Stored(_)
            | Effect::Replied(..)
            | Effect::Pair(_)
            | Effect::AccountMade { .. } => {}
        }
    }

    fn wake_disk(&mut self) {
        if !self.disk_busy && self.broker.as_ref().is_some_and(|b| b.desk.is_busy()) {
            self.disk_busy = true;
            // Now and then the disk takes its time.
            let wait = if self.rng.chance(4) { self.rng.between(10, 60) } else { self.rng.below(4) };
            self.after(wait, Event::Disk);
        }
    }

    fn disk_step(&mut self) {
        self.disk_busy = false;
        let Some(desk) = self.broker.as_ref().map(|b| b.desk.clone()) else { return };
        let done =
            desk.work(self.backend).and_then(|()| if self.rng.chance(20) { self.backend.tidy() } else { Ok(()) });
        if done.is_err() {
            self.lose_power();
        }
    }

    fn crash(&mut self) {
        if self.broker.is_some() {
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
        let b = self.broker.take();
        self.ledger.forgiven += b.as_ref().map_or(0, dropped);
        drop(b);
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
        let b = self.broker.take();
        self.ledger.forgiven += b.as_ref().map_or(0, dropped);
        drop(b);
        if self.backend.close().is_err() {
            return self.lose_power();
        }
        self.cut_everybody(false);
        let wait = self.rng.between(10, 1_500);
        self.after(wait, Event::Start);
    }

    // ---- What clients do ---------------------------------------------------------------------------------------

    fn act(&mut self, number: usize) {
        let next = if self.calm { 500 } else { self.rng.between(10, 80) };
        self.after(next, Event::Act(number));
        let observer = number == 0;
        match self.clients[number].phase {
            Phase::Away => {
                let clean = !self.calm && !observer && self.rng.chance(8);
                if self.calm || observer || self.rng.chance(40) {
                    self.connect(number, clean);
                }
            }
            Phase::Connecting => {
                let began = self.uses[number].map_or(0, |conn| self.conns[conn].began_ms);
                if self.now_ms > began + 5_000 {
                    self.cut_by_client(number);
                }
            }
            Phase::Open if observer => self.observe(),
            Phase::Open if self.calm => self.rest(number),
            Phase::Open => self.improvise(number),
        }
        self.send_out(number);
    }

    fn observe(&mut self) {
        let session = self.clients[0].session;
        let known = session.map(|s| self.ledger.filters(s).0.into_keys().any(|f| f == "w/#"));
        if known == Some(false) || session.is_some_and(|s| self.ledger.filters(s).1 && self.clients[0].is_done()) {
            self.clients[0].subscribe(&mut self.ledger, "w/#", 2);
            self.clients[0].subscribe(&mut self.ledger, "t/#", 1);
        }
    }

    /// Finishes what was begun and starts nothing new.
    fn rest(&mut self, number: usize) {
        self.clients[number].lazy = false;
        self.clients[number].release_answers();
        let quiet_ms = self.uses[number].map_or(0, |conn| self.now_ms - self.conns[conn].spoke_ms);
        if quiet_ms > 1_500 {
            self.clients[number].ping();
        }
    }

    fn improvise(&mut self, number: usize) {
        if !self.clients[number].lazy || self.rng.chance(50) {
            self.clients[number].release_answers();
        }
        match self.rng.below(100) {
            0..50 => self.publish_some(number),
            50..64 => {
                let filter = self.some_filter(number);
                let qos = if filter.starts_with('$') { 2 } else { self.rng.qos() };
                self.clients[number].subscribe(&mut self.ledger, &filter, qos);
            }
            64..67 => {
                let filter = self.some_filter(number);
                self.clients[number].unsubscribe(&mut self.ledger, &filter);
            }
            67..70 => self.clients[number].lazy = !self.clients[number].lazy,
            70..73 => {
                let v5 = self.clients[number].character.version == parlor_protocol::mqtt::Version::V5;
                let with_will = v5 && self.rng.chance(30);
                self.goodbye(number, with_will);
            }
            73..76 => self.cut_by_client(number),
            76..79 => self.cut_by_network(number),
            79..81 => self.half_open(number),
            // A second connection of the same client takes over.
            81..83 => {
                let clean = self.rng.chance(20);
                self.connect(number, clean);
            }
            83..85 => self.stop_reading(number),
            85..90 => self.clients[number].ping(),
            _ => {}
        }
    }

    fn publish_some(&mut self, number: usize) {
        for _ in 0..self.rng.between(1, 5) {
            let qos = self.rng.qos();
            if qos > 0 && !self.clients[number].may_publish() {
                return;
            }
            let retained = self.rng.chance(15);
            // One writer and one QoS a retained topic: a QoS 1 retry may come after a QoS 2 message that was sent later,
            // and then nobody could say what the last value is.
            let topic = match self.rng.below(5) {
                _ if retained => format!("r/{number}/{qos}"),
                4 if self.shares() => format!("s/{}", self.rng.below(2)),
                _ => format!("t/{}", self.rng.below(4)),
            };
            let size = if self.rng.chance(5) { self.rng.between(200, 6_000) } else { 8 };
            let p = Publication {
                topic,
                qos,
                retain: retained,
                clears: retained && self.rng.chance(15),
                size: usize::try_from(size).expect("small"),
                typed: self.rng.chance(30),
                expires_in_ms: (!retained && self.rng.chance(6)).then(|| 1_000 * self.rng.between(1, 4)),
            };
            self.clients[number].publish(&mut self.ledger, p, self.now_ms);
        }
    }

    /// Half of the worlds have a shared subscription, the others one to everything: with both, nobody could tell which
    /// of them a message came through.
    fn shares(&self) -> bool {
        self.plan.seed % 2 == 1
    }

    fn some_filter(&mut self, number: usize) -> String {
        match self.rng.below(8) {
            0 => "t/#".into(),
            1 if self.shares() && self.clients[number].character.persistent => "$share/g/s/+".into(),
            1 if !self.shares() => "#".into(),
            1 => "t/+".into(),
            2 => "r/+/1".into(),
            3 => format!("r/{number}/#"),
            n => format!("t/{}", n - 4),
        }
    }

    // ---- The whole run -----------------------------------------------------------------------------------------

    fn live(&mut self) {
        if let Some(steps) = self.plan.freeze_at {
            self.backend.freeze_after(steps);
        }
        self.after(0, Event::Start);
        self.after(1, Event::Act(0));
        for number in 1..self.clients.len() {
            let wait = self.rng.between(150, 400);
            self.after(wait, Event::Act(number));
        }
        for at in self.plan.crashes_ms.clone() {
            self.after(at, Event::Crash);
        }
        for at in self.plan.restarts_ms.clone() {
            self.after(at, Event::Stop);
        }
        self.pass(self.plan.chaos_ms, |_| false);
        self.calm = true;
        // Delayed wills and silent connections need their time.
        self.pass(self.now_ms + 30_000, |_| false);
        self.come_to_rest();
        self.check_state();
        self.ledger.forgiven += self.broker.as_ref().map_or(0, dropped);
        self.ledger.check_complete();
        self.restart_and_look();
    }

    fn come_to_rest(&mut self) {
        let deadline = self.now_ms + REST_MS;
        self.pass(deadline, Self::is_at_rest);
        if !self.is_at_rest() {
            let text = self.what_moves();
            self.ledger.blame(Class::Stuck, text);
        }
    }

    fn is_at_rest(&self) -> bool {
        let Some(b) = &self.broker else { return false };
        !b.hub.is_committing()
            && !b.stopping
            && !b.desk.is_busy()
            && self.clients.iter().all(|c| c.phase == Phase::Open && c.is_done())
            && b.hub.totals().queue_messages == 0
            && self.conns.iter().filter(|c| c.hub.is_some()).all(|c| c.is_quiet() && b.hub.output(c.link()).is_empty())
    }

    fn what_moves(&self) -> String {
        let mut lines = vec![format!("after {REST_MS} ms of rest at {} ms:", self.now_ms)];
        lines.extend(self.clients.iter().filter(|c| !c.is_done() || c.phase != Phase::Open).map(Client::unfinished));
        if let Some(b) = &self.broker {
            lines.push(format!(
                "committing {}, desk busy {}, {:?}",
                b.hub.is_committing(),
                b.desk.is_busy(),
                b.hub.totals()
            ));
            let views = b.hub.sessions().map(|brief| b.hub.describe(&brief));
            for s in views.filter(|s| s.queue_messages > 0) {
                lines.push(format!(
                    "session {} holds {} messages, {} in flight",
                    s.client_id, s.queue_messages, s.in_flight
                ));
            }
            for (at, c) in self.conns.iter().enumerate().filter(|(_, c)| c.hub.is_some() && !c.is_quiet()) {
                lines.push(format!(
                    "connection {at} of {}: {}, may_read {}",
                    self.clients[c.client].character.name,
                    c.state(),
                    b.hub.may_read(c.link())
                ));
            }
        } else {
            lines.push("the broker is not running".into());
        }
        lines.join("\n    ")
    }

    /// Sessions and retained messages against what was promised.
    fn check_state(&mut self) {
        let Some(b) = &self.broker else { return };
        let mut wrong = vec![];
        for client in self.clients.iter().filter(|c| c.phase == Phase::Open) {
            let (Some(session), Some(view)) = (client.session, b.hub.session(&client.character.name)) else {
                wrong.push(format!("{} has no session", client.character.name));
                continue;
            };
            let (expected, unsure) = self.ledger.filters(session);
            let found: BTreeMap<&str, u8> = view.subscriptions.iter().map(|(f, o, _)| (f.as_str(), o & 3)).collect();
            if !unsure && found != expected {
                wrong.push(format!(
                    "{} has the subscriptions {found:?}, should have {expected:?}",
                    client.character.name
                ));
            }
        }
        let mut found = BTreeMap::new();
        b.hub.visit_retained("#", |r| {
            found.insert(r.topic.to_owned(), r.payload.to_vec());
        });
        for text in wrong {
            self.ledger.blame(Class::Session, text);
        }
        self.ledger.check_retained(&found, self.now_ms);
    }

    /// After one more orderly restart everything is as before, and nothing that was acknowledged comes again.
    fn restart_and_look(&mut self) {
        if !self.ledger.violations().is_empty() {
            return;
        }
        let (before, crashes) = (self.ledger.totals(), self.crashes);
        self.stop();
        self.settle();
        self.pass(self.now_ms + 10_000, |_| false);
        self.come_to_rest();
        self.check_state();
        let after = self.ledger.totals();
        // If the power failed meanwhile, wills were published.
        if after.1 != before.1 && self.crashes == crashes {
            let text =
                format!("after everything was acknowledged and a restart, {} messages came again", after.1 - before.1);
            self.ledger.blame(Class::Duplicated, text);
        }
        self.probe_retained();
    }

    /// A newcomer gets the retained messages.
    fn probe_retained(&mut self) {
        let number = self.clients.len();
        let character = Character {
            name: "probe".into(),
            persistent: false,
            receive_max: 5,
            will_delay_secs: None,
            username: None,
            ..self.clients[0].character.clone()
        };
        self.clients.push(Client::new(number, character));
        self.uses.push(None);
        self.probe = Some((number, BTreeMap::new()));
        self.connect(number, true);
        self.send_out(number);
        self.pass(self.now_ms + 5_000, |w| w.clients[number].phase == Phase::Open);
        self.clients[number].subscribe(&mut self.ledger, "r/#", 1);
        self.send_out(number);
        self.settle();
        self.pass(self.now_ms + 5_000, |_| false);
        if let Some((_, found)) = self.probe.take() {
            self.ledger.check_retained(&found, self.now_ms);
        }
    }

    // ---- Bounds ------------------------------------------------------------------------------------------------

    /// Nothing grows beyond its limit, at any time.
    fn check_bounds(&mut self) {
        let Some(b) = &self.broker else { return };
        let limits = &self.plan.limits;
        let packet = limits.packet_bytes_max;
        let mut wrong = vec![];
        for c in self.conns.iter().filter(|c| c.hub.is_some()) {
            let unsent = b.hub.output(c.link()).len() as u64;
            if unsent > limits.output_bytes_max + packet {
                wrong.push(format!("{unsent} bytes of output wait for {}", self.clients[c.client].character.name));
            }
        }
        let totals = b.hub.totals();
        if totals.queue_messages
            > limits.queue_messages_max.max(limits.memory_queue_messages_max) * totals.sessions.max(1)
        {
            wrong.push(format!("{totals:?}"));
        }
        if totals.uncommitted_bytes > limits.commit_bytes_max + packet * (self.conns.len() as u64 + 1) {
            wrong.push(format!("{} bytes wait for the disk", totals.uncommitted_bytes));
        }
        for text in wrong {
            self.ledger.blame(Class::Bound, text);
        }
    }
}

/// Messages this broker dropped because a queue was full, which it may.
fn dropped(b: &Broker) -> u64 {
    b.hub.counters().dropped.count("queue_full")
}
