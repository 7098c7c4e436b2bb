//! The hub owns every room's state and carries facts between them.
//!
//! It is called directly by whoever reads sockets: a packet goes in, bytes for other links and [`Effect`]s come out.
//! It never waits. What must be on disk first is put into a batch, and what may only be said afterwards waits as an
//! [`After`] until the store reports that batch.

mod act;
mod authenticate;
mod commit;
mod connect;
mod deliver;
mod inbound;
mod lifetime;
mod messaging;
mod native;
mod operator;
mod send;
mod streams;
mod subscribe;
mod sys;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_frames;
#[cfg(test)]
mod tests_native;
#[cfg(test)]
mod tests_roads;
#[cfg(test)]
mod tests_streams;

pub(crate) use messaging::Hello;
pub use operator::{LinkView, RetainedView, SessionBrief, SessionView, Totals};

use crate::access::Access;
use crate::auth::AuthRequest;
use crate::counters::{Counters, Notice, Notices};
use crate::hash::{Map, Secret, map};
use crate::im::{Im, ImSettings, PairRequest, Reply};
use crate::limits::Limits;
use crate::link::{Link, LinkId, Peer, Phase, pause};
use crate::message::Message;
use crate::router::{Retained, RetainedTree, Route, Router};
use crate::session::{Session, Who};
use crate::store::{Batch, BatchNo, Load, Page, Query, Snapshot, StoreEvent};
use commit::After;
use foldhash::fast::FixedState;
use hashbrown::HashTable;
use parlor_protocol::mqtt::{DecodeError, Packet, ReasonCode, Version};
use send::Frames;
use slab::Slab;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::net::IpAddr;
use std::rc::Rc;

/// The time, given by the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Now {
    /// Milliseconds on a clock that only moves forward.
    pub ms: u64,
    /// Milliseconds since 1970.
    pub wall_ms: u64,
}

/// What the hub is told when it is made, and again on reload.
pub struct Settings {
    /// Bounds.
    pub limits: Limits,
    /// Rules.
    pub access: Access,
    /// Seconds between `$SYS` messages; 0: none.
    pub sys_interval_secs: u32,
    /// Instant messaging.
    pub im: ImSettings,
}

/// Something the driver must do.
pub enum Effect {
    /// Write what is left for this link, which may be one stream of a connection, then close it. The link is forgotten by
    /// the hub once the driver calls [`Hub::closed`].
    Close(LinkId),
    /// Find out who a client is and call [`Hub::authenticated`].
    Authenticate(LinkId, Box<AuthRequest>),
    /// An exchange with the authenticator ended without an answer.
    Forget(u64),
    /// Ask the store for a page.
    Load(Load),
    /// Ask the store for rows.
    Query(Query),
    /// Read this link again: what made [`Hub::may_read`] false is over.
    Resume(LinkId),
    /// The operator's change with this number is on disk.
    Stored(u64),
    /// The answer to [`Hub::act`] with this token.
    Replied(u64, Reply),
    /// Make credentials for a device that is being paired, and call [`Hub::paired`].
    Pair(Box<PairRequest>),
    /// An account was made, and is on disk: its record belongs into the table of accounts.
    AccountMade {
        /// Its name.
        name: String,
        /// An encoding the account room owns.
        record: Vec<u8>,
    },
}

/// Which acknowledgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::enum_variant_names)] // The packets' own names.
enum AckKind {
    PubAck,
    PubRec,
    PubComp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Connect(LinkId),
    KeepAlive(LinkId),
    Token(LinkId),
    Rate(LinkId),
    SessionExpiry {
        session: u32,
        generation: u32,
    },
    Will {
        session: u32,
        generation: u32,
    },
    /// Retained messages are to be looked for further, now that others had their turn.
    Wishes {
        session: u32,
        generation: u32,
    },
    Sys,
}

/// Least and greatest number of output buffers kept for reuse, and the largest kept.
const POOL: usize = 64;
const POOLED_BYTES: usize = 128 * 1024;
/// Routes kept by topic for all publishers together, and the bytes they may take.
const ROUTES: usize = 8_192;
const ROUTES_BYTES: usize = 16 * 1024 * 1024;
/// How long a terminal's place may wait for a batch to go with. Until then a power cut sends its last messages again.
const PLACES_MS: u64 = 200;
/// As few deadlines as this are never looked through for those that mean nothing any more.
const TIMERS_LEAST: usize = 1_024;

/// Everything the broker knows.
pub struct Hub {
    limits: Limits,
    access: Access,
    secret: Secret,
    boot: u64,
    started: Now,
    links: Slab<Link>,
    /// How many of them are further streams.
    streams: usize,
    sessions: Slab<Session>,
    generation: u32,
    by_client_id: HashTable<u32>,
    hasher: FixedState,
    who: Map<Rc<str>, Rc<Who>>,
    terminals: Map<Rc<str>, u32>,
    router: Router,
    routes: Map<Box<str>, (u64, Rc<Route>)>,
    routes_bytes: usize,
    retained: RetainedTree,
    /// Those that have expired are not looked for before this.
    retained_cleared_ms: u64,
    timers: BinaryHeap<Reverse<(u64, Timer)>>,
    /// So many deadlines are worth a look for those that mean nothing any more.
    timers_look_at: usize,
    sys_armed: bool,
    effects: VecDeque<Effect>,
    dirty: Vec<u32>,
    pool: Vec<Vec<u8>>,
    frames: Frames,
    recipients: Vec<u8>,
    scratch: Vec<u8>,
    native: native::Memory,
    batch: Batch,
    after: Vec<After>,
    pending: VecDeque<(BatchNo, usize, Vec<After>)>,
    last_batch: u64,
    uncommitted_bytes: usize,
    disk_waiters: Vec<LinkId>,
    by_session_no: Map<u64, u32>,
    next_session: u64,
    next_exchange: u64,
    persistent: u64,
    authenticating: u64,
    online: u64,
    low_space: bool,
    stopping: bool,
    sys_interval_secs: u32,
    counters: Counters,
    notices: Notices,
    im: Im,
    /// The time of the last event that the messaging rooms heard of.
    im_now: Now,
    /// When places of terminals that nobody waits for are written at the latest.
    im_places_ms: Option<u64>,
    im_waiting: Map<u64, messaging::Waiting>,
    /// Wrong pairing codes by address: how many, and until when they count.
    guesses: Map<IpAddr, (u32, u64)>,
}

impl Hub {
    /// A hub that goes on from `snapshot`. `seed` keys hash tables and makes client identifiers.
    pub fn new(settings: Settings, snapshot: Snapshot, seed: u64, now: Now) -> Self {
        let im = Im::new(settings.im, settings.limits.clone(), &snapshot, seed, now);
        let mut hub = Self {
            limits: settings.limits,
            access: settings.access,
            secret: Secret::new(seed, 0x6875_6200),
            boot: snapshot.boot,
            started: now,
            links: Slab::new(),
            streams: 0,
            sessions: Slab::new(),
            generation: 0,
            by_client_id: HashTable::new(),
            hasher: FixedState::with_seed(seed),
            who: map(seed),
            terminals: map(seed),
            router: Router::new(seed),
            routes: map(seed),
            routes_bytes: 0,
            retained: RetainedTree::new(seed),
            retained_cleared_ms: 0,
            timers: BinaryHeap::new(),
            timers_look_at: TIMERS_LEAST,
            sys_armed: false,
            effects: VecDeque::new(),
            dirty: vec![],
            pool: vec![],
            frames: Frames::default(),
            recipients: vec![],
            scratch: vec![],
            native: native::Memory::default(),
            batch: Batch::default(),
            after: vec![],
            pending: VecDeque::new(),
            last_batch: 0,
            uncommitted_bytes: 0,
            disk_waiters: vec![],
            by_session_no: map(seed),
            next_session: snapshot.next_session,
            next_exchange: 0,
            persistent: 0,
            authenticating: 0,
            online: 0,
            low_space: false,
            stopping: false,
            sys_interval_secs: settings.sys_interval_secs,
            counters: Counters::default(),
            notices: Notices::default(),
            im,
            im_now: now,
            im_places_ms: None,
            im_waiting: map(seed),
            guesses: map(seed),
        };
        for r in snapshot.retained {
            let m = &r.message;
            let message = Rc::new(Message::new(&m.topic, &m.properties, &m.payload, m.expires_at_ms));
            hub.retained.set(Retained { message, qos: r.qos, publisher: r.publisher.into(), volatile: false });
        }
        for record in snapshot.sessions {
            hub.restore_session(now, record);
        }
        for record in snapshot.wills {
            hub.restore_will(now, &record);
        }
        hub.arm_sys(now.ms);
        hub.settle_im(now);
        hub
    }

    // ---- Events in -------------------------------------------------------------------------------------------

    /// A connection was accepted. `None`: there are far too many; close it.
    pub fn open(&mut self, now: Now, peer: &Peer) -> Option<LinkId> {
        // Some connections above the bound are let in to be told so; a flood of them is not.
        if self.connections() >= self.limits.connections_max.saturating_mul(2).max(64) {
            self.counters.limits.add("connections_max");
            return None;
        }
        self.generation = self.generation.wrapping_add(1);
        let slot = self.links.insert(Link::new(self.generation, peer, now.ms));
        self.counters.connections += 1;
        let link = LinkId { slot: narrow(slot), generation: self.generation };
        self.arm(now.ms + self.limits.connect_timeout_secs * 1000, Timer::Connect(link));
        Some(link)
    }

    /// The connection is gone, and its streams are over with it; or one stream is. (Or the driver has closed it.)
    pub fn closed(&mut self, now: Now, link: LinkId) {
        if self.is_current(link) {
            if self.links[link.slot as usize].stream.is_some() {
                return self.stream_closed(now, link.slot);
            }
            self.end(now, link.slot, lifetime::WithWill::Yes);
            self.set_phase(link.slot, Phase::Closing);
            let gone = self.links.remove(link.slot as usize);
            self.recycle(gone.out);
        }
    }

    /// A packet of `size` bytes arrived.
    pub fn packet(&mut self, now: Now, link: LinkId, packet: &Packet<'_>, size: usize) {
        if !self.is_current(link) {
            return;
        }
        let slot = link.slot;
        let l = &mut self.links[slot as usize];
        l.last_packet_ms = now.ms;
        let (phase, is_stream) = (l.phase, l.stream.is_some());
        self.counters.packets_received += 1;
        self.counters.bytes_received += size as u64;
        if is_stream && !self.heard_on_stream(now, slot, packet) {
            return;
        }
        match (phase, packet) {
            (Phase::Open, Packet::Publish(publish)) => self.on_publish(now, slot, publish),
            (Phase::Open, Packet::PubAck(ack)) => self.on_puback(now, slot, ack),
            (Phase::Open, Packet::PubRec(ack)) => self.on_pubrec(now, slot, ack),
            (Phase::Open, Packet::PubRel(ack)) => self.on_pubrel(now, slot, ack),
            (Phase::Open, Packet::PubComp(ack)) => self.on_pubcomp(now, slot, ack),
            (Phase::Open, Packet::Subscribe(subscribe)) => self.on_subscribe(now, slot, subscribe),
            (Phase::Open, Packet::Unsubscribe(unsubscribe)) => self.on_unsubscribe(now, slot, unsubscribe),
            // [MQTT5-3.12.4-1] [MQTT3-3.12.4-1]
            (Phase::Open, Packet::PingReq) => self.send(slot, &Packet::PingResp),
            (Phase::Open | Phase::Authenticating, Packet::Disconnect(d)) => self.on_disconnect(now, slot, d),
            (Phase::Open | Phase::Authenticating, Packet::Auth(auth)) => self.on_auth(now, slot, auth),
            (Phase::Connecting, Packet::Connect(connect)) => self.on_connect(now, slot, connect),
            // The first packet must be CONNECT [MQTT5-3.1.0-1] [MQTT3-3.1.0-1].
            (Phase::Connecting, _) => self.abort(now, slot, "first_packet_not_connect"),
            // Nothing behind a refused CONNECT, or a DISCONNECT [MQTT5-3.1.4-6] [MQTT5-3.14.4-1] [MQTT3-3.1.4-5].
            (Phase::Closing | Phase::Ending | Phase::Gone, _) => {}
            // A second CONNECT [MQTT5-3.1.0-2] [MQTT3-3.1.0-2], a packet only a server sends, or one that is too early
            // [MQTT5-3.1.2-30].
            (Phase::Open | Phase::Opening | Phase::Authenticating, _) => {
                self.refuse(
                    now,
                    slot,
                    ReasonCode::PROTOCOL_ERROR,
                    "unexpected_packet",
                    "this packet may not be sent now",
                );
            }
        }
        self.stop_unless_it_reads(slot);
    }

    /// A client that does not read what it is answered is not read either.
    fn stop_unless_it_reads(&mut self, slot: u32) {
        let output_max = self.output_max();
        if let Some(l) = self.links.get_mut(slot as usize)
            && l.unsent() > output_max
            && l.phase != Phase::Closing
        {
            l.paused |= pause::OUTPUT;
        }
    }

    /// Bytes arrived that are not a packet. `named` is the version they name, if they are a CONNECT that names one
    /// ([`parlor_protocol::mqtt::connect_version`]).
    pub fn malformed(&mut self, now: Now, link: LinkId, error: &DecodeError, named: Option<Version>) {
        if self.is_current(link) {
            self.on_malformed(now, link.slot, error, named);
        }
    }

    /// The socket took `bytes` of [`Hub::output`].
    pub fn wrote(&mut self, now: Now, link: LinkId, bytes: usize) {
        if !self.is_current(link) {
            return;
        }
        let l = &mut self.links[link.slot as usize];
        l.out_sent += bytes;
        self.counters.bytes_sent += bytes as u64;
        if l.out_sent == l.out.len() {
            l.out_sent = 0;
            let out = core::mem::take(&mut l.out);
            self.recycle(out);
        }
        let l = &self.links[link.slot as usize];
        let (session, unsent) = (l.session, l.unsent());
        if l.paused & pause::OUTPUT != 0 && unsent < self.output_low() {
            self.resume(now, link.slot, pause::OUTPUT);
        }
        if session != u32::MAX && unsent < self.output_low() {
            self.pump(now, session);
        }
        self.finish_answered(now);
    }

    /// The store reported something.
    pub fn stored(&mut self, now: Now, event: StoreEvent) {
        match event {
            StoreEvent::Committed(number) => self.committed(now, number),
            StoreEvent::Page(page) => self.loaded(now, page),
            StoreEvent::Answer(answer) => self.query_answered(now, &answer),
            StoreEvent::LowSpace(low) => {
                self.low_space = low;
                let text = if low {
                    "the disk is nearly full: messages that would have to be stored are refused with 0x97; free space or move the data directory"
                } else {
                    "the disk has room again: messages are stored as before"
                };
                self.notices.push(now.ms, "low_space", || text.to_owned());
            }
            StoreEvent::Failed(_) => {}
        }
        self.finish_answered(now);
    }

    /// Time has passed; call it when [`Hub::deadline`] is reached.
    pub fn tick(&mut self, now: Now) {
        // What is due again at once has its turn after the links had theirs.
        let mut due = vec![];
        while let Some(&Reverse((at, timer))) = self.timers.peek()
            && at <= now.ms
        {
            self.timers.pop();
            due.push((at, timer));
        }
        for (at, timer) in due {
            self.fire(now, at, timer);
        }
        if self.im_places_ms.is_some_and(|at| at <= now.ms) {
            self.im_places_ms = None;
            self.im.want_places();
        }
        if self.im.deadline().is_some_and(|at| at <= now.ms) {
            self.im.tick(now);
            self.settle_im(now);
        }
    }

    // ---- Effects out -----------------------------------------------------------------------------------------

    /// The next thing to do, if there is one.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// The next link that has got bytes since it was last named here.
    pub fn poll_dirty(&mut self) -> Option<LinkId> {
        while let Some(slot) = self.dirty.pop() {
            if let Some(l) = self.links.get_mut(slot as usize)
                && l.dirty
            {
                l.dirty = false;
                return Some(LinkId { slot, generation: l.generation });
            }
        }
        None
    }

    /// Bytes for the socket of this link.
    pub fn output(&self, link: LinkId) -> &[u8] {
        match self.links.get(link.slot as usize) {
            Some(l) if l.generation == link.generation => &l.out[l.out_sent..],
            _ => &[],
        }
    }

    /// Whether packets of this link may be handed in now; [`Effect::Resume`] follows a `false`.
    #[inline]
    pub fn may_read(&self, link: LinkId) -> bool {
        self.links.get(link.slot as usize).is_some_and(|l| l.generation == link.generation && l.paused == 0)
    }

    /// The batch to commit next, if anything is to be committed.
    pub fn take_batch(&mut self) -> Option<(BatchNo, Batch)> {
        if self.stopping {
            self.im.want_places();
        }
        if self.im.is_dirty() {
            let marks = self.im.flush(self.im_now);
            self.take_im_facts(self.im_now);
            if !marks.is_empty() {
                self.after.push(After::Mailboxes(marks));
            }
        }
        if self.batch.is_empty() {
            // What was touched needed no row after all.
            let now = self.im_now;
            for after in core::mem::take(&mut self.after) {
                self.after_commit(now, after);
            }
            return None;
        }
        self.last_batch += 1;
        let number = BatchNo(self.last_batch);
        let batch = core::mem::take(&mut self.batch);
        self.uncommitted_bytes += batch.bytes.len();
        self.pending.push_back((number, batch.bytes.len(), core::mem::take(&mut self.after)));
        Some((number, batch))
    }

    /// Whether anything waits to be committed or has been handed out and not been reported.
    pub fn is_committing(&self) -> bool {
        let places = self.stopping && self.im.has_places();
        !self.batch.is_empty() || !self.pending.is_empty() || self.im.is_dirty() || places
    }

    /// When [`Hub::tick`] has something to do, on the clock of [`Now::ms`].
    pub fn deadline(&self) -> Option<u64> {
        let own = self.timers.peek().map(|Reverse((at, _))| *at);
        own.into_iter().chain(self.im.deadline()).chain(self.im_places_ms).min()
    }

    /// Lines for the operator.
    pub fn poll_notice(&mut self) -> Option<Notice> {
        self.notices.waiting.pop_front()
    }

    // ---- Shared by the rooms ---------------------------------------------------------------------------------

    fn is_current(&self, link: LinkId) -> bool {
        self.links.get(link.slot as usize).is_some_and(|l| l.generation == link.generation)
    }

    fn id_of(&self, slot: u32) -> LinkId {
        LinkId { slot, generation: self.links[slot as usize].generation }
    }

    fn output_low(&self) -> usize {
        usize::try_from(self.limits.output_bytes_max / 2).unwrap_or(usize::MAX)
    }

    fn output_max(&self) -> usize {
        usize::try_from(self.limits.output_bytes_max).unwrap_or(usize::MAX)
    }

    /// A number nobody can guess.
    fn draw(&mut self) -> u64 {
        self.secret.draw()
    }

    fn recycle(&mut self, mut out: Vec<u8>) {
        if out.capacity() != 0 && out.capacity() <= POOLED_BYTES && self.pool.len() < POOL {
            out.clear();
            self.pool.push(out);
        }
    }

    fn pause(&mut self, slot: u32, why: u8) {
        self.links[slot as usize].paused |= why;
    }

    fn resume(&mut self, now: Now, slot: u32, why: u8) {
        let l = &mut self.links[slot as usize];
        let was = l.paused;
        l.paused &= !why;
        if was != 0 && l.paused == 0 {
            let link = LinkId { slot, generation: l.generation };
            // What it said meanwhile was not read: its keep alive counts from here.
            let main = self.main_of(slot);
            self.links[main as usize].last_packet_ms = now.ms;
            self.effects.push_back(Effect::Resume(link));
        }
    }

    /// Sets a deadline. Connections and sessions that come and go leave deadlines behind that are days away; those are
    /// dropped whenever the list has doubled.
    fn arm(&mut self, at_ms: u64, timer: Timer) {
        self.timers.push(Reverse((at_ms, timer)));
        if self.timers.len() >= self.timers_look_at {
            let mut timers = core::mem::take(&mut self.timers).into_vec();
            timers.retain(|Reverse((at, timer))| self.still_means(*at, *timer));
            self.timers = timers.into();
            self.timers_look_at = (self.timers.len() * 2).max(TIMERS_LEAST);
        }
    }

    /// Whether a deadline is still the one that counts for what it is about.
    fn still_means(&self, at_ms: u64, timer: Timer) -> bool {
        match timer {
            Timer::Connect(link) => {
                self.is_current(link)
                    && matches!(self.links[link.slot as usize].phase, Phase::Connecting | Phase::Authenticating)
            }
            Timer::KeepAlive(link) | Timer::Rate(link) => self.is_current(link),
            Timer::Token(link) => {
                self.is_current(link)
                    && self.links[link.slot as usize].extra.as_ref().is_some_and(|e| e.token_timer_ms == at_ms)
            }
            Timer::SessionExpiry { session, generation } => self.sessions.get(session as usize).is_some_and(|s| {
                s.generation == generation && s.durable.as_ref().is_some_and(|d| d.expiry_timer_ms == at_ms)
            }),
            Timer::Will { session, generation } => self
                .sessions
                .get(session as usize)
                .is_some_and(|s| s.generation == generation && s.will.as_ref().is_some_and(|w| w.timer_ms == at_ms)),
            Timer::Wishes { session, generation } => {
                self.sessions.get(session as usize).is_some_and(|s| s.generation == generation)
            }
            Timer::Sys => true,
        }
    }

    /// Sees to it that `$SYS` is published from now on, if it is to be.
    fn arm_sys(&mut self, at_ms: u64) {
        if self.sys_interval_secs != 0 && !self.sys_armed {
            self.sys_armed = true;
            self.arm(at_ms, Timer::Sys);
        }
    }

    fn fire(&mut self, now: Now, at_ms: u64, timer: Timer) {
        if !self.still_means(at_ms, timer) {
            return;
        }
        match timer {
            Timer::Connect(link) => self.connect_timeout(now, link),
            Timer::KeepAlive(link) => self.keep_alive_timeout(now, link),
            Timer::Token(link) => self.token_expired(now, link),
            Timer::Rate(link) => {
                if self.is_current(link) {
                    self.resume(now, link.slot, pause::RATE);
                }
            }
            Timer::SessionExpiry { session, .. } => self.session_expired(now, session),
            Timer::Will { session, .. } => self.will_due(now, session),
            Timer::Wishes { session, .. } => {
                if let Some(flow) = &mut self.sessions[session as usize].flow {
                    flow.wishes_armed = false;
                }
                self.pump(now, session);
            }
            Timer::Sys => {
                self.sys_armed = false;
                if self.sys_interval_secs != 0 {
                    self.publish_sys(now);
                    self.arm_sys(now.ms + u64::from(self.sys_interval_secs) * 1000);
                }
            }
        }
    }

    fn loaded(&mut self, now: Now, page: Page) {
        let Some(&key) = self.by_session_no.get(&page.session.0) else { return };
        self.take_page(now, key, page);
    }
}

/// Slab keys and list lengths fit 32 bits because limits keep them below 2^32.
fn narrow(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}
