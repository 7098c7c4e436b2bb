//! The board: the SDK's session and shared state, its flash, and an application that sends, acts, reboots and sleeps.

use super::net::Who;
use super::speech::Speech;
use super::{Event, Fault, Plan, World};
use crate::world::Rng;
use parlor_device::json::{FromJson, ToJson, Value, Writer};
use parlor_device::session::Session;
use parlor_device::shared::{Answer, Arrays, Job, Shared, Taken, read_topic};
use parlor_device::wire::State;
use parlor_device::{
    Config, Content, Keep, LinkError, Listen, Login, Outcome, Place, Policy, QoS, Received, Reject, SendError, SentId,
    Status, Subscription,
};
use std::collections::BTreeMap;

/// Longest packet the board can receive, and send.
const RX: usize = 1024;

const IN_RAM: &[Policy] = &[
    Policy { topic: "t/latest", keep: Keep::Latest, place: Place::Ram },
    Policy { topic: "t/ring", keep: Keep::DropOldest, place: Place::Ram },
];

const IN_FLASH: &[Policy] = &[
    Policy { topic: "im/v1/to/#", keep: Keep::All, place: Place::Flash },
    Policy { topic: "t/latest", keep: Keep::Latest, place: Place::Flash },
    Policy { topic: "t/ring", keep: Keep::DropOldest, place: Place::Flash },
];

/// Ordinary topics that the board listens to.
const TOPICS: &[Subscription] = &[Subscription { filter: "in/+", qos: QoS::AtLeastOnce }];

/// Something that was queued, and for which the application has a receipt.
#[derive(Debug)]
struct Queued {
    id: SentId,
    /// `m12`, or a topic and what was published there.
    name: String,
    outcome: Option<Outcome>,
}

pub(super) struct Board {
    shared: Box<Shared>,
    session: Session<Speech>,
    pub(super) boot: u32,
    alive: bool,
    conn: Option<usize>,
    rx: Vec<u8>,
    /// Something of it has arrived since the session was given it.
    is_new: bool,
    /// It waits for the time to connect.
    waits: bool,
    flash: BTreeMap<u8, Vec<u8>>,
    job: Option<(Job, Vec<u8>)>,
    pub(super) writes: u64,
    queued: Vec<Queued>,
    /// What it had receipts for when the power went; the application has that from a place of its own.
    remembered: Vec<Queued>,
    running: Vec<(Taken, u64, u64)>,
    /// Answers for which there was no room yet.
    sent: u64,
    level: u64,
    pub(super) reported: Option<u64>,
}

/// `{"n":…}`
struct Number(u64);

impl ToJson for Number {
    fn to_json(&self, json: &mut Writer<'_>) {
        json.begin_object();
        json.field("n", self.0);
        json.end_object();
    }
}

impl Board {
    pub(super) fn new(plan: &Plan, rng: &mut Rng) -> Self {
        let (shared, session) = power_on(plan, rng.draw());
        Self {
            shared,
            session,
            boot: 0,
            alive: false,
            conn: None,
            rx: vec![],
            is_new: false,
            waits: false,
            flash: BTreeMap::new(),
            job: None,
            writes: 0,
            queued: vec![],
            remembered: vec![],
            running: vec![],
            sent: 0,
            level: 0,
            reported: None,
        }
    }

    pub(super) fn deadline(&self) -> Option<u64> {
        if self.alive { self.session.poll_timeout(&self.shared) } else { None }
    }

    pub(super) fn state(&self) -> String {
        format!("board {:?}, {} commands run, {:?}, {:?}", self.shared, self.running.len(), self.session, self.job)
    }
}

fn power_on(plan: &Plan, seed: u64) -> (Box<Shared>, Session<Speech>) {
    let mut shared = Box::new(Shared::new(Arrays::<900, 2048>::new()));
    let config = Config {
        login: Login::Account { name: "lamp", secret: b"x" },
        listen: Listen::MESSAGES,
        keep_alive_s: 8,
        session_expiry_s: 100_000,
        pause_min_ms: 50,
        pause_max_ms: 1_000,
        subscribe: TOPICS,
        policies: if plan.in_flash { IN_FLASH } else { IN_RAM },
        ..Config::new("lamp-board")
    };
    shared.start_with(config, || 0);
    (shared, Session::new(Speech(plan.wire), RX, seed))
}

impl World {
    // ---- Power -------------------------------------------------------------------------------------------------

    pub(super) fn boot_board(&mut self) {
        let seed = self.rng.draw();
        let (shared, session) = power_on(&self.plan, seed);
        let board = &mut self.board;
        board.shared = shared;
        board.session = session;
        board.boot += 1;
        board.alive = true;
        board.job = None;
        for key in Shared::keys() {
            if let Some(bytes) = board.flash.get(&key) {
                board.shared.load(key, bytes);
            }
        }
        let number = board.shared.start(seed, true);
        if self.plan.fault != Some(Fault::ForgetsStarts) || board.boot == 1 {
            board.flash.insert(0, number.to_vec());
        }
        board.shared.started();
        self.say(|| "the board starts".into());
        self.ask_again();
        let (wait, boot) = (self.rng.below(50), self.board.boot);
        self.board.waits = true;
        self.after(wait, Event::Board(boot));
    }

    /// The power goes: what is in RAM is gone. A write to flash that was going on has happened, or not.
    pub(super) fn reboot(&mut self) {
        if !self.board.alive {
            return;
        }
        self.model.count("reboots");
        self.say(|| "the board loses power".into());
        if let Some((job, bytes)) = self.board.job.take()
            && self.rng.chance(50)
        {
            self.board.flash.insert(job.key(), bytes);
        }
        if let Some(conn) = self.board.conn.take() {
            self.leave(conn);
        }
        let board = &mut self.board;
        board.alive = false;
        board.rx.clear();
        board.running.clear();
        for queued in &board.queued {
            self.model.forgotten(&queued.name, queued.outcome);
        }
        board.remembered.append(&mut board.queued);
        let wait = self.rng.between(5, 800);
        self.after(wait, Event::Boot);
    }

    /// The application asks for receipts of what it had queued when the power went. Some of it was never in flash, and a newer
    /// value may have taken the place of an older one.
    fn ask_again(&mut self) {
        let board = &mut self.board;
        for queued in std::mem::take(&mut board.remembered) {
            if board.shared.claim(queued.id) {
                self.model.count("receipts over a reboot");
                board.queued.push(queued);
            } else if self.model.is_kept(&queued.name) && !queued.name.starts_with("t/latest ") {
                self.model.blame("a receipt outlives a reboot", queued.name);
            }
        }
        if let Some(id) = board.shared.claim_earlier() {
            // Its outcome was told and could not be taken out of flash, or the power went before it was.
            self.model.count("what nobody had asked for");
            board.shared.unwatch(id);
        }
    }

    // ---- The connection ----------------------------------------------------------------------------------------

    pub(super) fn connect_board(&mut self) {
        self.board.waits = false;
        if !self.board.alive || self.board.conn.is_some() {
            return;
        }
        if self.board.shared.status() == Status::Asleep {
            return;
        }
        match self.open(Who::Board) {
            Some(conn) => {
                self.board.conn = Some(conn);
                self.board.session.handle_connected(&mut self.board.shared, self.now_ms);
            }
            None => self.board_lost(LinkError::Unreachable),
        }
    }

    pub(super) fn board_lost(&mut self, why: LinkError) {
        self.say(|| format!("the board has lost its connection: {why:?}"));
        let known = [LinkError::Closed, LinkError::Timeout, LinkError::Unreachable, LinkError::ShuttingDown];
        if !known.contains(&why) {
            self.model.blame("the connection ends for a reason that is there", format!("{why:?}"));
        }
        self.board.conn = None;
        self.board.rx.clear();
        let pause = self.board.session.handle_disconnected(&mut self.board.shared, self.now_ms, why);
        if self.board.alive && !self.board.waits {
            self.board.waits = true;
            let boot = self.board.boot;
            self.after(u64::from(pause) + 1, Event::Board(boot));
        }
    }

    pub(super) fn board_hears(&mut self, bytes: &[u8]) {
        self.say(|| format!("Board <- {}", String::from_utf8_lossy(bytes)));
        self.board.rx.extend_from_slice(bytes);
        self.board.is_new = true;
    }

    /// What the runner does after everything that happens.
    pub(super) fn run_board(&mut self) {
        if !self.board.alive {
            return;
        }
        let now = self.now_ms;
        let board = &mut self.board;
        let timeout = board.session.handle_timeout(&mut board.shared, now);
        let Some(conn) = board.conn else { return self.run_flash() };
        let heard = timeout.and_then(|()| {
            if !std::mem::take(&mut board.is_new) && !board.session.is_stalled() {
                return Ok(());
            }
            // As much as the device's buffer takes, again and again: what is left is the beginning of a packet, or waits
            // for the application.
            loop {
                let whole = board.rx.len().min(RX);
                let used = board.session.handle_bytes(&mut board.shared, now, &board.rx[..whole])?;
                board.rx.drain(..used);
                if used == 0 || board.rx.is_empty() {
                    break;
                }
            }
            Ok(())
        });
        if let Err(why) = heard {
            self.leave(conn);
            self.board_lost(why);
            return self.run_flash();
        }
        loop {
            let mut out = [0; RX];
            let board = &mut self.board;
            let len = board.session.poll_transmit(&mut board.shared, now, &mut out);
            if len == 0 {
                break;
            }
            self.send(conn, &out[..len]);
        }
        if let Some(why) = self.board.session.is_over() {
            self.leave(conn);
            self.board_lost(why);
        }
        self.run_flash();
    }

    // ---- Flash -------------------------------------------------------------------------------------------------

    fn run_flash(&mut self) {
        let board = &mut self.board;
        if board.job.is_some() {
            return;
        }
        let Some(job) = board.shared.poll_flash() else { return };
        let mut room = [0; 2048];
        let len = board.shared.flash_fill(job, &mut room).expect("there is room");
        board.job = Some((job, room[..len].to_vec()));
        board.writes += 1;
        let (writes, boot) = (board.writes, board.boot);
        self.say(|| format!("writes {job:?} {len} bytes"));
        if self.plan.dies_at == Some(writes) {
            return self.reboot();
        }
        let wait = if self.rng.chance(10) { self.rng.between(20, 100) } else { self.rng.below(10) };
        self.after(wait, Event::Flash(boot));
    }

    pub(super) fn flash_ends(&mut self) {
        let Some((job, mut bytes)) = self.board.job.take() else { return };
        let fails =
            self.plan.fails_at == Some(self.board.writes) || (!self.calm && self.rng.chance(self.plan.flash_fails));
        let forgets = match self.plan.fault {
            Some(Fault::ForgetsCommands) => matches!(job, Job::Command(_)),
            Some(Fault::ForgetsRows) => matches!(job, Job::Row(_)),
            _ => false,
        };
        if self.plan.fault == Some(Fault::ForgetsOutcomes) && matches!(job, Job::Clear(_)) {
            bytes.clear();
        }
        if fails {
            self.model.count("failed writes");
            self.say(|| format!("{job:?} fails"));
        }
        // What has failed may still be there.
        if !forgets && (!fails || self.rng.chance(30)) {
            self.board.flash.insert(job.key(), bytes);
        }
        self.board.shared.flash_done(job, !fails);
    }

    // ---- The application ---------------------------------------------------------------------------------------

    pub(super) fn app(&mut self) {
        let wait = self.rng.between(5, 150);
        self.after(wait, Event::App);
        if !self.board.alive {
            return;
        }
        self.outcomes();
        self.take();
        self.finish_commands();
        let asleep = self.board.shared.status() == Status::Asleep;
        if self.calm {
            if asleep {
                self.wake_board();
            }
            return;
        }
        if asleep {
            if self.rng.chance(20) {
                self.wake_board();
            }
            return;
        }
        match self.rng.below(100) {
            0..25 => self.app_sends(),
            25..45 => self.app_measures(),
            45..52 => self.app_reports(),
            _ => {}
        }
        let chance = self.rng.below(1_000);
        if chance < self.plan.reboots {
            // At any moment until the application looks again, or a little later.
            let (wait, boot) = (self.rng.below(150), self.board.boot);
            self.after(wait, Event::Off(boot));
        } else if chance < self.plan.reboots + self.plan.cuts
            && let Some(conn) = self.board.conn
        {
            if self.rng.chance(70) { self.cut(conn) } else { self.half_open(conn) }
        } else if chance > 995 {
            self.model.count("sleeps");
            self.say(|| "the board wants to sleep".into());
            self.board.shared.go_to_sleep(5);
        }
    }

    fn wake_board(&mut self) {
        self.say(|| "the board wakes".into());
        self.board.shared.wake_up();
        if !self.board.waits {
            self.board.waits = true;
            let boot = self.board.boot;
            self.after(1, Event::Board(boot));
        }
    }

    /// What has become of what was queued.
    fn outcomes(&mut self) {
        let board = &mut self.board;
        let mut known = vec![];
        for queued in &mut board.queued {
            if let Some(outcome) = board.shared.outcome(queued.id) {
                board.shared.unwatch(queued.id);
                queued.outcome = Some(outcome);
                known.push((queued.name.clone(), outcome));
            } else if board.shared.kept(queued.id) == Some(Ok(())) {
                self.model.kept(&queued.name);
            }
        }
        board.queued.retain(|queued| queued.outcome.is_none());
        for (name, outcome) in known {
            self.say(|| format!("{name} is {outcome:?}"));
            self.model.became(&name, outcome);
        }
    }

    fn queue(&mut self, name: String, id: Result<SentId, SendError>) {
        match id {
            Ok(id) => {
                self.say(|| format!("queues {name}"));
                self.board.shared.watch(id);
                self.model.queued(&name, self.plan.in_flash && !name.starts_with("t/all"));
                self.board.queued.push(Queued { id, name, outcome: None });
            }
            Err(SendError::Full) => self.model.count("full outboxes"),
            Err(SendError::Flash) if self.plan.flash_fails > 0 => self.model.count("refused, for flash fails"),
            Err(error) => self.model.blame("what can be queued is", format!("{name}: {error:?}")),
        }
    }

    fn app_sends(&mut self) {
        self.board.sent += 1;
        let name = format!("m{}", self.board.sent);
        let content = Content::text(&name);
        let seq = self.board.shared.push_message("alice", &content);
        self.queue(name.clone(), seq);
    }

    fn app_measures(&mut self) {
        self.board.sent += 1;
        let topic = ["t/all", "t/latest", "t/ring"][self.rng.at(3)];
        let value = format!("{}", self.board.sent);
        let seq = self.board.shared.push_publish(topic, value.as_bytes());
        self.queue(format!("{topic} {value}"), seq);
    }

    fn app_reports(&mut self) {
        self.board.sent += 1;
        let n = self.board.sent;
        if self.board.shared.push_reported(&Number(n)).is_ok() {
            self.board.reported = Some(n);
        }
    }

    fn take(&mut self) {
        let mut room = [0; 300];
        while let Some(len) = self.board.shared.copy_message(&mut room) {
            let message = Received::read(&room, len);
            self.model.taken(self.board.boot, message.seq, message.text);
        }
        while let Some(len) = self.board.shared.copy_topic(&mut room) {
            if self.plan.fault == Some(Fault::LosesMessages) && self.rng.chance(20) {
                continue;
            }
            let (topic, payload) = read_topic(&room, len);
            self.model.topic_taken(topic, payload);
        }
        while let Some(level) =
            self.board.shared.take_desired(|desired| desired.get("level").and_then(u64::from_json).unwrap_or(0))
        {
            self.board.level = level;
        }
        let now = self.now_ms;
        let mut n = 0;
        let mut accept = |name: &str, args: Value<'_>| {
            if name != "act" {
                return Err(Reject::Unknown);
            }
            n = args.get("n").and_then(u64::from_json).ok_or(Reject::Argument("n"))?;
            Ok(())
        };
        if let Some(taken) = self.board.shared.take_command(now, false, &mut accept) {
            self.say(|| format!("acts on {n}"));
            self.model.acts(n, self.board.boot, now, taken.once);
            let until = now + self.rng.below(300);
            self.board.running.push((taken, n, until));
        }
    }

    fn finish_commands(&mut self) {
        let now = self.now_ms;
        let Some(at) = self.board.running.iter().position(|(_, _, until)| *until <= now) else { return };
        let (taken, n, _) = self.board.running[at].clone();
        let result = Number(n);
        let answer = Answer { state: State::Done, text: "", result: Some(&result) };
        if self.board.shared.answer(&taken.id, answer).is_ok() {
            self.board.running.remove(at);
            self.model.answered(n);
        }
    }

    // ---- The end -----------------------------------------------------------------------------------------------

    pub(super) fn is_at_rest(&mut self) -> bool {
        let board = &mut self.board;
        self.calm
            && board.alive
            && board.conn.is_some()
            && board.shared.status() == Status::Online
            && board.shared.unsent() == 0
            && board.job.is_none()
            && board.running.is_empty()
            && board.queued.is_empty()
            && self.alice.is_content()
            && self.model.commands_are_over(self.now_ms)
            && self.model.topics_are_taken()
    }

    pub(super) fn judge(&mut self) {
        // What the last start has queued has an outcome by now.
        self.outcomes();
        for queued in self.board.queued.drain(..) {
            self.model.blame("what was queued has an outcome", queued.name);
        }
        let reported = self.board.reported;
        let never_rebooted = self.plan.reboots == 0 && self.plan.dies_at.is_none();
        let is_planned = self.plan.fails_at.or(self.plan.dies_at).is_some();
        self.model.judge(reported, never_rebooted, is_planned);
    }
}
