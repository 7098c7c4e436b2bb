//! Instant messaging: contacts, conversations, presence, mailboxes, receipts, commands, announcements.
//!
//! [`Im`] is one type in several files, as the hub is; each file owns one room. It knows sessions by the hub's number,
//! and nothing of links and packets. What must survive it writes as rows into [`Im::facts`]; what is to be sent lies in
//! queues that [`Im::next`] takes from when the hub has room for a packet. What it says only after a commit waits
//! for [`Im::committed`], or is told by the hub when the batch is on disk.

mod ack;
mod announce;
mod ask;
mod batch;
mod blob;
mod body;
mod cache;
mod command;
mod contact;
mod dedup;
mod deliver;
mod field;
mod flood;
mod group;
pub(crate) mod json;
mod latest;
mod look;
mod model;
mod name;
mod online;
mod pairing;
mod presence;
mod profile;
mod query;
mod read;
mod receipt;
mod recount;
mod refusal;
mod restore;
mod retry;
mod room;
mod row;
mod send;
mod state;
mod terminal;
#[cfg(test)]
mod tests;
mod wire;

pub use blob::{BlobOrder, NewBlob};
pub use look::Look;
pub use name::is_address_of_account;
pub use pairing::PairRequest;

pub(crate) use ask::{Asker, Done, Origin, Verdict};
pub(crate) use batch::Marks;
pub(crate) use deliver::MAIL_IDS;
pub(crate) use field::{flag, number, object, shorten, text};
pub(crate) use model::AccountNo;
pub(crate) use online::may_be_subscribed;
pub(crate) use pairing::PAIRING_ACCOUNT;
pub(crate) use refusal::{Code, Refusal};
pub(crate) use terminal::Greeting;
pub(crate) use wire::Sending;

use crate::hash::{Map, Secret, map};
use crate::hub::Now;
use crate::limits::Limits;
use crate::store::{Batch, Query};
use model::{Account, AccountKind, Address, Conv, ConvNo, Directory, MailEntry};
use online::{Class, Note, Online};
use serde_json::Value;
use slab::Slab;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::rc::Rc;

/// Settings of the messaging rooms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImSettings {
    /// False: everything below `im/` is refused.
    pub enabled: bool,
    /// Topic prefix of Home Assistant's MQTT discovery, where it is wanted.
    pub home_assistant: Option<String>,
}

impl Default for ImSettings {
    fn default() -> Self {
        Self { enabled: true, home_assistant: None }
    }
}

/// The answer to `Hub::act`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// Done and durable; JSON text.
    Done(String),
    /// Not done.
    Refused {
        /// One of the codes of docs/protocol.md, section 10.
        code: &'static str,
        /// What happened and what to do.
        text: String,
    },
}

/// What the hub must do for the messaging rooms.
#[derive(Debug)]
pub(crate) enum Out {
    /// Ask the store.
    Query(Query),
    /// A message that waited for the store has been dealt with.
    Concluded { token: u64, verdict: Result<Verdict, Refusal> },
    /// An answer to `act` that was not ready at once.
    Replied { token: u64, reply: Reply },
    /// End this session's connection, and the session.
    Kick { session: u32 },
    /// Publish, retained, outside `im/`.
    Plain { topic: String, payload: Vec<u8> },
    /// Credentials are to be made.
    Pair(Box<PairRequest>),
    /// An account was made; its record goes into the table of accounts.
    AccountMade { name: String, record: Vec<u8> },
    /// An answer that waits until everything so far is on disk.
    Tell { asker: Box<Asker>, reply: Value },
    /// A line for the operator.
    Notice { label: &'static str, text: String },
}

/// What is done when its time has come; each looks whether it still has anything to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum ImTimer {
    /// A message expires: conversation, seq.
    Expiry(ConvNo, u64),
    /// The device's current or oldest command may be at its deadline.
    Command(AccountNo),
    /// Presence of an account may have to be told as offline, or its sleep is over.
    Presence(AccountNo),
    /// An announcement's validity begins or ends, or a part of its readers is to be told.
    Announcement(ConvNo),
    /// A session, by place in `online`, has subscribed to what it will.
    Subscribed(u32),
    /// Pairing codes end.
    Pairing,
    /// What this device said last of the commands that it runs is to be passed on.
    Progress(AccountNo),
    /// Days of mailboxes and old commands end.
    Daily,
}

/// What an answer of the store is for.
#[derive(Debug)]
pub(crate) enum Pending {
    Send(Box<send::Parked>),
    /// A request that is made again once the store has said whether its client id was used.
    Retry(Box<retry::Retry>),
    /// Mailbox entries up to a position, for a session with this serial number.
    Page {
        online: u32,
        serial: u32,
        until: u64,
    },
    /// The bodies of those.
    PageBodies {
        online: u32,
        serial: u32,
        until: u64,
        entries: Vec<(u64, MailEntry)>,
    },
    /// Messages of a conversation that was there before a terminal.
    Extra {
        online: u32,
        serial: u32,
        conv: ConvNo,
    },
    /// Messages of a large group.
    Log {
        online: u32,
        serial: u32,
        conv: ConvNo,
        until: u64,
    },
    Query(Box<query::Asked>),
    Recount(Box<recount::Recount>),
    Blob(Box<blob::Wanted>),
    /// Entries that a client says it has, and messages among them.
    Got(Box<query::Ack>),
    GotBodies(Box<query::Ack>),
    Read(Box<receipt::Asked>),
    Change(Box<send::Change>),
}

/// Gauges of the messaging rooms.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ImTotals {
    /// Accounts that take part or may.
    pub accounts: u64,
    /// Conversations, groups and channels.
    pub conversations: u64,
    /// Terminals that have a place in a mailbox.
    pub terminals: u64,
    /// Sessions that take part now.
    pub online: u64,
    /// Unread messages of all accounts.
    pub unread: u64,
    /// Bytes of messages kept in memory.
    pub cached_bytes: u64,
    /// Questions to the store that are not answered.
    pub asked: u64,
}

/// Bytes of messages that are kept in memory because they were just sent; twice as many at most.
const BODIES_BYTES: usize = 8 << 20;

/// The messaging rooms.
#[derive(Debug)]
pub(crate) struct Im {
    pub(crate) settings: ImSettings,
    pub(crate) limits: Limits,
    boot: u64,
    secret: Secret,
    dir: Directory,
    /// Sessions that take part.
    online: Slab<Online>,
    by_session: Map<u32, u32>,
    /// Rows to be written; the hub appends them to its batch after each call.
    pub(crate) facts: Batch,
    pub(crate) out: VecDeque<Out>,
    /// Sessions that may be sent something, as places in `online`.
    ready: Vec<u32>,
    dirty_convs: Vec<ConvNo>,
    dirty_members: Vec<(ConvNo, AccountNo)>,
    dirty_terminals: Vec<(AccountNo, u8)>,
    places_are_due: bool,
    /// A session became a terminal, and its SUBSCRIBE has not been answered.
    has_claimed: bool,
    dirty_mailboxes: Vec<AccountNo>,
    /// Mailboxes with entries that are in no batch that was handed out.
    touched: Vec<AccountNo>,
    /// A client id of which the store has just said that it was never used.
    certainly_new: Option<dedup::Key>,
    /// Devices whose state, or whose desired state, is told when the next batch is on disk.
    told_states: Vec<AccountNo>,
    told_deltas: Vec<AccountNo>,
    /// Devices that have a command which waits for the disk.
    waiting_devices: Vec<AccountNo>,
    /// Badges and lines of conversations that change when the next batch is on disk.
    badged: Vec<(AccountNo, ConvNo)>,
    /// Members whose marks moved and are to be told to the others.
    moved: Vec<(ConvNo, AccountNo)>,
    /// What those marks are in the batch that is being made.
    marked: Vec<(ConvNo, AccountNo, (u64, u64))>,
    /// Just sent or changed, by conversation and seq.
    bodies: cache::Cache<(ConvNo, u64), Rc<[u8]>>,
    dedup: dedup::Dedup,
    pending: Map<u64, Pending>,
    /// How many of these are pulls, by account.
    pulls: Map<AccountNo, u64>,
    next_token: u64,
    serial: u32,
    /// Messages that expire and have not: when, who said them, whether they count.
    expiring: std::collections::BTreeMap<(ConvNo, u64), send::Expiring>,
    wire: wire::Wire,
    timers: BinaryHeap<Reverse<(u64, ImTimer)>>,
    /// Rises whenever a right to write may have changed.
    rights: u64,
    commands: command::Commands,
    states: state::States,
    announcements: announce::Announcements,
    rooms: room::Rooms,
    pairings: pairing::Pairings,
    blobs: blob::Blobs,
    clock_ms: u64,
    /// Counted, for the operator.
    pub(crate) counters: ImCounters,
}

/// What the messaging rooms count since start.
#[derive(Debug, Default, Clone)]
pub struct ImCounters {
    /// Messages accepted.
    pub messages: u64,
    /// Messages that had been accepted before, by their client id.
    pub duplicates: u64,
    /// Mailbox entries made.
    pub entries: u64,
    /// Mailbox entries and messages sent to terminals.
    pub sent: u64,
    /// Commands accepted.
    pub commands: u64,
    /// Outcomes of commands, by state.
    pub outcomes: crate::Tally,
    /// Requests refused, by code.
    pub refused: crate::Tally,
    /// Entries given up, by reason.
    pub dropped: crate::Tally,
}

impl Im {
    /// Rooms in which nobody is.
    fn empty(settings: ImSettings, limits: Limits, boot: u64, seed: u64) -> Self {
        Self {
            settings,
            limits,
            boot,
            secret: Secret::new(seed, 0x696D),
            dir: Directory { accounts: vec![], convs: vec![], by_name: map(seed), direct: map(seed) },
            online: Slab::new(),
            by_session: map(seed),
            facts: Batch::default(),
            out: VecDeque::new(),
            ready: vec![],
            dirty_convs: vec![],
            dirty_members: vec![],
            dirty_terminals: vec![],
            places_are_due: false,
            has_claimed: false,
            dirty_mailboxes: vec![],
            touched: vec![],
            certainly_new: None,
            told_states: vec![],
            told_deltas: vec![],
            waiting_devices: vec![],
            badged: vec![],
            moved: vec![],
            marked: vec![],
            bodies: cache::Cache::new(BODIES_BYTES, seed),
            dedup: dedup::Dedup::new(seed),
            pending: map(seed),
            pulls: map(seed),
            next_token: 1,
            serial: 0,
            expiring: std::collections::BTreeMap::new(),
            wire: wire::Wire::default(),
            timers: BinaryHeap::new(),
            rights: 1,
            commands: command::Commands::default(),
            states: state::States::default(),
            announcements: announce::Announcements::default(),
            rooms: room::Rooms::default(),
            pairings: pairing::Pairings::default(),
            blobs: blob::Blobs::default(),
            clock_ms: 0,
            counters: ImCounters::default(),
        }
    }

    /// Takes over changed settings and limits.
    pub(crate) fn reload(&mut self, now: Now, settings: ImSettings, limits: Limits) {
        self.settings = settings;
        self.limits = limits;
        self.states_restored(now);
    }

    /// Gauges now.
    pub(crate) fn totals(&self) -> ImTotals {
        ImTotals {
            accounts: self.dir.accounts.iter().filter(|a| !a.removed).count() as u64,
            conversations: self.dir.convs.len() as u64,
            terminals: self.dir.accounts.iter().map(|a| a.terminals.len() as u64).sum(),
            online: self.online.len() as u64,
            unread: self.dir.accounts.iter().map(|a| a.unread).sum(),
            cached_bytes: self.bodies.cost() as u64,
            asked: self.pending.len() as u64,
        }
    }

    /// Answers once everything that was written so far is on disk.
    pub(crate) fn after_commit_tell(&mut self, asker: Asker, reply: Value) {
        self.out.push_back(Out::Tell { asker: Box::new(asker), reply });
    }

    // ---- Requests --------------------------------------------------------------------------------------------

    /// Does what was published to `im/v1/{path}`.
    pub(crate) fn request(
        &mut self,
        now: Now,
        origin: &Origin<'_>,
        path: &str,
        payload: &[u8],
    ) -> Result<Verdict, Refusal> {
        let mut levels = path.split('/');
        let first = (levels.next().unwrap_or_default(), levels.next().unwrap_or_default());
        let rest: Vec<&str> = levels.collect();
        if !self.settings.enabled {
            return Err(Refusal::new(Code::NoAccount, "instant messaging is switched off (im.enabled)"));
        }
        match (first, rest.as_slice()) {
            (("to", to), ["msg"]) => self.send_message(now, origin, to, payload),
            (("to", to), ["receipt"]) => self.on_receipt(now, origin, to, payload),
            (("to", to), ["recall"]) => self.on_recall(now, origin, to, payload),
            (("to", to), ["edit"]) => self.on_edit(now, origin, to, payload),
            (("to", to), ["typing"]) => self.on_typing(now, origin, to, payload),
            (("to", to), ["stream", name]) => self.on_stream(now, origin, to, name, payload),
            (("to", to), ["cmd", name]) => self.on_command(now, origin, to, name, payload),
            (("to", to), ["cmdcancel", id]) => self.on_command_cancel(now, origin, to, id),
            (("to", to), ["desired"]) => self.on_desired(now, origin, to, payload),
            (("me", "sync"), []) => self.on_sync(now, origin, path, payload),
            (("me", "history"), []) => self.on_history(now, origin, path, payload),
            (("me", "ack"), []) => self.on_ack(now, origin, payload),
            (("me", "convs"), []) => self.on_convs(now, origin, path, payload),
            (("me", "conv"), [with]) => self.on_conv(now, origin, with, payload),
            (("me", "recount"), []) => self.on_recount(now, origin, path, payload),
            (("me", "hello"), []) => self.on_hello(now, origin, payload),
            (("me", "status"), []) => self.on_status(now, origin, payload),
            (("me", "reported"), []) => self.on_reported(now, origin, payload),
            (("me", "describe"), []) => self.on_describe(now, origin, payload),
            (("me", "cmdres"), [id]) => self.on_command_result(now, origin, id, payload),
            (("me", "res"), [id]) => self.on_command_query(origin, id),
            (("me", "contacts"), []) => self.on_contacts(now, origin, payload),
            (("me", "contact"), [with]) => self.on_contact(now, origin, with, payload),
            (("me", "group"), [group]) => self.on_group(now, origin, group, payload),
            (("me", "household"), []) => self.on_household(now, origin, payload),
            (("me", "whois"), [name]) => self.on_whois(now, origin, name, payload),
            (("me", "profile"), []) => self.on_profile(now, origin, payload),
            (("me", "terminals"), []) => self.on_terminals(now, origin, payload),
            (("me", "pair"), []) => self.on_pair(now, origin, payload),
            (("me", "blob"), [id]) => self.on_blob(origin, path, id, payload),
            (("me", "paired"), []) => self.on_paired(now, origin, payload),
            (("admin", "ch"), [channel, op]) => self.on_channel(now, origin, channel, op, payload),
            _ => {
                let text = format!("there is no im/v1/{} (docs/protocol.md, section 2)", shorten(path));
                Err(Refusal::new(Code::BadTopic, text))
            }
        }
    }

    // ---- Shared by the rooms ---------------------------------------------------------------------------------

    /// The account of this name.
    pub(crate) fn account_no(&self, name: &str) -> Option<AccountNo> {
        match self.dir.by_name.get(name) {
            Some(Address::Account(no)) => Some(*no),
            _ => None,
        }
    }

    /// The account of this name, made if it is not known.
    pub(crate) fn account_or_new(&mut self, now: Now, name: &str) -> Option<AccountNo> {
        if let Some(no) = self.account_no(name) {
            return Some(no);
        }
        is_address_of_account(name).then(|| self.make_account(now, name, AccountKind::Person))
    }

    pub(crate) fn make_account(&mut self, now: Now, name: &str, kind: AccountKind) -> AccountNo {
        let no = AccountNo(u32::try_from(self.dir.accounts.len()).expect("fewer than 2^32 accounts were ever made"));
        let name: Rc<str> = name.into();
        self.dir.accounts.push(Account::new(Rc::clone(&name), kind, now.wall_ms));
        self.dir.by_name.insert(name, Address::Account(no));
        self.store_account(no);
        no
    }

    pub(crate) fn name_of(&self, no: AccountNo) -> &Rc<str> {
        &self.dir.accounts[no.at()].name
    }

    /// The address under which `account` knows a conversation.
    pub(crate) fn address_for(&self, conv: ConvNo, account: AccountNo) -> Rc<str> {
        let c = &self.dir.convs[conv.at()];
        match &c.kind {
            model::ConvKind::Direct => Rc::clone(self.name_of(c.peer_of(account).unwrap_or(account))),
            model::ConvKind::Group(g) => Rc::clone(&g.address),
            model::ConvKind::Channel(c) => Rc::clone(&c.address),
        }
    }

    pub(crate) fn make_conv(&mut self, conv: Conv) -> ConvNo {
        let no = ConvNo(u32::try_from(self.dir.convs.len()).expect("fewer than 2^32 conversations were ever made"));
        self.dir.convs.push(conv);
        self.store_conv(no);
        // It was made dirty, and is put on the list of those.
        self.dirty_convs.push(no);
        no
    }

    /// The direct conversation of two accounts.
    pub(crate) fn direct(&mut self, a: AccountNo, b: AccountNo) -> ConvNo {
        let key = (a.min(b), a.max(b));
        if let Some(no) = self.dir.direct.get(&key) {
            return *no;
        }
        let members = [key.0, key.1].map(|account| model::Member::new(account, model::Role::Member, 0));
        let no = self.make_conv(Conv::new(model::ConvKind::Direct, members.to_vec()));
        self.dir.direct.insert(key, no);
        for account in [a, b] {
            self.dir.accounts[account.at()].convs.push(no);
        }
        no
    }

    /// A direct or group conversation that `account` is in, by its address.
    pub(crate) fn conv_with(&self, account: AccountNo, address: &str) -> Result<ConvNo, Refusal> {
        let unknown = || Refusal::not_found(format!("there is no conversation with {}", shorten(address)));
        match self.dir.by_name.get(address).ok_or_else(unknown)? {
            Address::Account(peer) => {
                let key = (account.min(*peer), account.max(*peer));
                self.dir.direct.get(&key).copied().ok_or_else(unknown)
            }
            Address::Conv(no) => {
                let is_in = self.dir.convs[no.at()].member(account).is_some();
                is_in.then_some(*no).ok_or_else(unknown)
            }
        }
    }

    /// Appends an entry to an account's mailbox; its terminals are woken when it is on disk. Returns its position.
    pub(crate) fn mail(&mut self, now: Now, account: AccountNo, entry: MailEntry) -> u64 {
        let a = &mut self.dir.accounts[account.at()];
        let pos = a.mailbox.next;
        a.mailbox.next += 1;
        a.mailbox.recent.push_back(entry);
        if !core::mem::replace(&mut a.mailbox.dirty, true) {
            self.dirty_mailboxes.push(account);
        }
        if !core::mem::replace(&mut a.mailbox.touched, true) {
            self.touched.push(account);
        }
        let mut value = Vec::with_capacity(12);
        entry.encode(&mut value);
        self.put(row::MAIL, account.0.into(), pos, &value);
        self.counters.entries += 1;
        self.bound_mailbox(now, account);
        pos
    }

    /// The session may be sent something.
    pub(crate) fn wake(&mut self, online: u32) {
        if let Some(o) = self.online.get_mut(online as usize)
            && !core::mem::replace(&mut o.ready, true)
        {
            self.ready.push(online);
        }
    }

    /// The next session that may be sent something: the hub's key.
    pub(crate) fn poll_ready(&mut self) -> Option<u32> {
        while let Some(at) = self.ready.pop() {
            if let Some(o) = self.online.get_mut(at as usize)
                && core::mem::replace(&mut o.ready, false)
                && o.is_live
            {
                return Some(o.session);
            }
        }
        None
    }

    /// Queues a note for one session, if it wants the topic.
    pub(crate) fn note(&mut self, online: u32, note: Note) -> bool {
        let most = usize::try_from(self.limits.memory_queue_bytes_max).unwrap_or(usize::MAX);
        let Some(o) = self.online.get_mut(online as usize) else { return false };
        if !o.is_live || o.wants_topic(note.class, &note.topic).is_none() {
            return false;
        }
        let cost = note.payload.len() + note.topic.len() + 64;
        if o.notes_bytes + cost > most || o.notes.len() >= 10_000 {
            self.counters.dropped.add("slow_reader");
            return false;
        }
        o.notes_bytes += cost;
        o.notes.push_back(note);
        self.wake(online);
        true
    }

    fn note_session(
        &mut self,
        session: (u32, u32),
        class: Class,
        topic: &str,
        payload: &[u8],
        correlation: Option<Rc<[u8]>>,
    ) {
        let Some(&online) = self.by_session.get(&session.0) else { return };
        if self.online[online as usize].generation != session.1 {
            return;
        }
        let mut note = Note::new(class, topic, payload);
        note.correlation = correlation;
        self.note(online, note);
    }

    /// Sets a deadline, by the clock that only moves forward.
    pub(crate) fn arm(&mut self, at_ms: u64, timer: ImTimer) {
        self.timers.push(Reverse((at_ms, timer)));
    }

    /// Sets a deadline given as a time of day.
    pub(crate) fn arm_wall(&mut self, now: Now, wall_ms: u64, timer: ImTimer) {
        self.arm(now.ms.saturating_add(wall_ms.saturating_sub(now.wall_ms)), timer);
    }

    /// When [`Im::tick`] has something to do.
    pub(crate) fn deadline(&self) -> Option<u64> {
        self.timers.peek().map(|Reverse((at, _))| *at)
    }

    pub(crate) fn tick(&mut self, now: Now) {
        let mut due = vec![];
        while let Some(&Reverse((at, timer))) = self.timers.peek()
            && at <= now.ms
        {
            self.timers.pop();
            due.push(timer);
        }
        due.dedup();
        for timer in due {
            match timer {
                ImTimer::Expiry(conv, seq) => self.expire(now, conv, seq),
                ImTimer::Command(device) => self.command_due(now, device),
                ImTimer::Presence(account) => self.presence_due(now, account),
                ImTimer::Announcement(channel) => self.announcement_due(now, channel),
                ImTimer::Subscribed(at) => self.wake(at),
                ImTimer::Pairing => self.pairing_due(now),
                ImTimer::Progress(device) => self.progress_due(now, device),
                ImTimer::Daily => self.daily(now),
            }
        }
    }

    /// The store has answered.
    pub(crate) fn answered(&mut self, now: Now, answer: &crate::store::Answer) {
        let pending = self.pending.remove(&answer.token);
        if let Some(account) = pending.as_ref().and_then(Pending::is_pull_of) {
            self.pulled(account);
        }
        match pending {
            None => {}
            Some(Pending::Send(parked)) => self.unparked(now, &parked, answer),
            Some(Pending::Retry(retry)) => self.asked_first(now, &retry, answer),
            Some(Pending::Change(change)) => self.change_found(now, &change, answer),
            Some(Pending::Read(asked)) => self.counted(now, *asked, answer),
            Some(Pending::Query(asked)) => self.query_answered(now, *asked, answer),
            Some(Pending::Recount(recount)) => self.recount_found(now, *recount, answer),
            Some(Pending::Blob(wanted)) => self.blob_found(&wanted, answer),
            Some(Pending::Got(ack)) => self.got_entries(*ack, answer),
            Some(Pending::GotBodies(ack)) => self.got_bodies(*ack, answer),
            Some(Pending::Page { online, serial, until }) => self.mail_loaded(online, serial, until, answer),
            Some(Pending::PageBodies { online, serial, until, entries }) => {
                self.bodies_loaded(online, serial, until, entries, answer);
            }
            Some(Pending::Extra { online, serial, conv }) => self.extra_loaded(online, serial, conv, answer),
            Some(Pending::Log { online, serial, conv, until }) => self.log_loaded(online, serial, conv, until, answer),
        }
    }

    /// What is done once a day.
    fn daily(&mut self, now: Now) {
        let day = u32::try_from(now.wall_ms / 86_400_000).unwrap_or(u32::MAX);
        for at in 0..self.dir.accounts.len() {
            let no = AccountNo(u32::try_from(at).unwrap_or(u32::MAX));
            self.age_mailbox(no, day);
        }
        self.contacts_daily(now);
        self.arm(now.ms + 3_600_000, ImTimer::Daily);
    }

    /// A number nobody can guess.
    pub(crate) fn draw(&mut self) -> u64 {
        self.secret.draw()
    }
}
