//! Instant messaging: contacts, conversations, presence, mailboxes, receipts, commands, announcements.
//!
//! [`Im`] is one type in several files, as the hub is; each file owns one room. It knows sessions by the hub's number,
//! and nothing of links and packets. What must survive it writes as rows into [`Im::facts`]; what is to be sent lies in
//! queues that [`Im::next`] takes from when the hub has room for a packet. What it says only after a commit waits
//! for [`Im::committed`], or is told by the hub when the batch is on disk.

mod announce;
mod body;
mod cache;
mod command;
mod contact;
mod dedup;
mod deliver;
mod flood;
mod group;
mod json;
mod look;
mod model;
mod name;
mod online;
mod pairing;
mod presence;
mod profile;
mod query;
mod receipt;
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

pub use look::Look;
pub use name::is_address_of_account;
pub use pairing::PairRequest;

pub(crate) use deliver::{MAIL_IDS, Sending};
pub(crate) use model::AccountNo;
pub(crate) use online::may_be_subscribed;
pub(crate) use pairing::PAIRING_ACCOUNT;
pub(crate) use refusal::{Code, Refusal};
pub(crate) use terminal::Greeting;

use crate::hash::{Map, Secret, map};
use crate::hub::Now;
use crate::limits::Limits;
use crate::store::{Batch, Fact, Query, Table, What};
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

/// Who asks, and how the answer goes back.
#[derive(Debug, Clone)]
pub(crate) struct Origin<'a> {
    pub(crate) account: AccountNo,
    /// The hub's key and generation of the session, unless it is `act` that asks.
    pub(crate) session: Option<(u32, u32)>,
    /// MQTT client identifier, or a name for what acts.
    pub(crate) client_id: &'a str,
    /// Of `act`.
    pub(crate) token: u64,
    pub(crate) response_topic: Option<&'a str>,
    pub(crate) correlation: Option<&'a [u8]>,
    /// User property `im-id`.
    pub(crate) id: Option<&'a str>,
    /// Message Expiry Interval, milliseconds; 0: none.
    pub(crate) expiry_ms: u64,
    /// Acts for the operator, who needs nobody's consent.
    pub(crate) operator: bool,
}

/// Where a later answer goes.
#[derive(Debug, Clone)]
pub(crate) struct Asker {
    pub(crate) account: AccountNo,
    /// Session and generation; `None`: `act` with this token.
    pub(crate) session: Option<(u32, u32)>,
    pub(crate) token: u64,
    /// Topic of the answer.
    pub(crate) topic: Rc<str>,
    pub(crate) correlation: Option<Rc<[u8]>>,
    /// What was asked, below `im/v1/`; empty: the answer does not say.
    pub(crate) re: String,
    /// `id` of the request.
    pub(crate) id: Option<Value>,
}

impl Asker {
    /// With the `id` that a request's payload has.
    pub(crate) fn with_id(mut self, payload: &[u8]) -> Self {
        self.id = object(payload).ok().and_then(|mut o| o.remove("id"));
        self
    }

    fn class(&self) -> Class {
        match &*self.topic {
            "im/v1/me/sent" => Class::Sent,
            topic if topic.starts_with("im/v1/me/res/") => Class::Res,
            _ => Class::Reply,
        }
    }
}

/// How a request ended.
#[derive(Debug, Default)]
pub(crate) struct Done {
    /// Something of it must be on disk first.
    pub(crate) durable: bool,
    /// Seq of the message; 0: none.
    pub(crate) seq: u64,
    /// It was done before.
    pub(crate) dup: bool,
    /// JSON object for whoever asked.
    pub(crate) reply: Option<Value>,
}

impl Done {
    /// Nothing to say, nothing on disk.
    pub(crate) fn quietly() -> Self {
        Self::default()
    }

    /// Something was stored and this is the answer.
    pub(crate) fn stored(reply: Value) -> Self {
        Self { durable: true, reply: Some(reply), ..Self::default() }
    }

    /// This is the answer, and nothing was stored.
    pub(crate) fn told(reply: Value) -> Self {
        Self { reply: Some(reply), ..Self::default() }
    }
}

/// What became of a request.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// It is dealt with.
    Done(Done),
    /// It is accepted, and the answer comes when the store has answered.
    Later,
    /// It waits for the store; `Out::Concluded` with this token follows.
    Parked(u64),
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
    /// Pairing codes end.
    Pairing,
    /// Days of mailboxes and old commands end.
    Daily,
}

/// What a batch makes true once it is on disk.
#[derive(Debug, Default)]
pub(crate) struct Marks {
    /// Ends of mailboxes.
    mailboxes: Vec<(AccountNo, u64)>,
    badges: Vec<(AccountNo, ConvNo)>,
    marked: Vec<(ConvNo, AccountNo, (u64, u64))>,
    states: Vec<AccountNo>,
    deltas: Vec<AccountNo>,
}

impl Marks {
    pub(crate) fn is_empty(&self) -> bool {
        self.mailboxes.is_empty()
            && self.badges.is_empty()
            && self.marked.is_empty()
            && self.states.is_empty()
            && self.deltas.is_empty()
    }
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
    next_token: u64,
    serial: u32,
    /// Messages that expire and have not: when, who said them, whether they count.
    expiring: std::collections::BTreeMap<(ConvNo, u64), send::Expiring>,
    wire: deliver::Wire,
    timers: BinaryHeap<Reverse<(u64, ImTimer)>>,
    /// Rises whenever a right to write may have changed.
    rights: u64,
    commands: command::Commands,
    states: state::States,
    announcements: announce::Announcements,
    rooms: room::Rooms,
    pairings: pairing::Pairings,
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
            next_token: 1,
            serial: 0,
            expiring: std::collections::BTreeMap::new(),
            wire: deliver::Wire::default(),
            timers: BinaryHeap::new(),
            rights: 1,
            commands: command::Commands::default(),
            states: state::States::default(),
            announcements: announce::Announcements::default(),
            rooms: room::Rooms::default(),
            pairings: pairing::Pairings::default(),
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
            (("me", "paired"), []) => self.on_paired(now, origin, payload),
            (("admin", "ch"), [channel, op]) => self.on_channel(now, origin, channel, op, payload),
            _ => {
                let text = format!("there is no im/v1/{} (docs/protocol.md, section 2)", shorten(path));
                Err(Refusal::new(Code::BadTopic, text))
            }
        }
    }

    /// Where the answer to a request goes.
    pub(crate) fn asker(&self, origin: &Origin<'_>, re: &str, id: Option<Value>) -> Asker {
        let request = re.strip_prefix("me/").unwrap_or(re).split('/').next().unwrap_or_default();
        let topic = match origin.response_topic {
            Some(topic) => topic.into(),
            None => format!("im/v1/me/{request}/res").into(),
        };
        Asker {
            account: origin.account,
            session: origin.session,
            token: origin.token,
            topic,
            correlation: origin.correlation.map(Into::into),
            re: re.to_owned(),
            id,
        }
    }

    /// Sends the answer to a request that was accepted before.
    pub(crate) fn answer(&mut self, asker: &Asker, reply: Value) {
        match asker.session {
            None => self.out.push_back(Out::Replied { token: asker.token, reply: Reply::Done(reply.to_string()) }),
            Some(session) if asker.account == PAIRING_ACCOUNT => self.tell_paired(session, asker, reply),
            Some(session) => self.tell_session(session, asker, reply),
        }
    }

    /// As [`Im::answer`], with an object that was written by hand and lacks its last brace.
    pub(crate) fn answer_bytes(&mut self, asker: &Asker, mut reply: Vec<u8>) {
        if asker.session.is_some() {
            json::put_text(&mut reply, "re", &asker.re);
            if let Some(id) = &asker.id {
                reply.extend_from_slice(b",\"id\":");
                reply.extend_from_slice(id.to_string().as_bytes());
            }
        }
        reply.push(b'}');
        match asker.session {
            None => {
                let text = String::from_utf8(reply).unwrap_or_default();
                self.out.push_back(Out::Replied { token: asker.token, reply: Reply::Done(text) });
            }
            Some(session) => {
                let class = asker.class();
                self.note_session(session, class, &asker.topic, reply, asker.correlation.clone());
            }
        }
    }

    /// Sends JSON to a session under the topic of its request, with `re` and `id`.
    pub(crate) fn tell_session(&mut self, session: (u32, u32), asker: &Asker, mut reply: Value) {
        if let Value::Object(object) = &mut reply {
            if !asker.re.is_empty() {
                object.insert("re".to_owned(), asker.re.clone().into());
            }
            if let Some(id) = &asker.id {
                object.insert("id".to_owned(), id.clone());
            }
        }
        let payload = reply.to_string().into_bytes();
        self.note_session(session, asker.class(), &asker.topic, payload, asker.correlation.clone());
    }

    /// Tells a session that what it asked was refused.
    pub(crate) fn tell_refusal(&mut self, origin: &Origin<'_>, path: &str, id: Option<Value>, refusal: &Refusal) {
        self.counters.refused.add(refusal.code.text());
        let Some(session) = origin.session else { return };
        let mut object = serde_json::json!({ "re": path, "code": refusal.code.text(), "text": refusal.text });
        if let Some(id) = id {
            object["id"] = id;
        }
        self.note_session(session, Class::Err, "im/v1/me/err", object.to_string().into_bytes(), None);
        if let Some(rest) = path.strip_prefix("to/")
            && let Some((to, _)) = rest.split_once('/')
        {
            let topic = format!("im/v1/me/in/{to}/bounce");
            self.note_session(session, Class::Bounce, &topic, object.to_string().into_bytes(), None);
        }
    }

    // ---- Writing rows ----------------------------------------------------------------------------------------

    /// Writes a row.
    pub(crate) fn put(&mut self, table: Table, a: u64, b: u64, value: &[u8]) {
        self.facts.push(&Fact::Put { table, a, b, value });
    }

    /// Removes a row.
    pub(crate) fn del(&mut self, table: Table, a: u64, b: u64) {
        self.facts.push(&Fact::Del { table, a, b });
    }

    /// Asks the store.
    pub(crate) fn ask(&mut self, table: Table, what: What, pending: Pending) -> u64 {
        let token = self.next_token;
        self.next_token += 1;
        self.pending.insert(token, pending);
        self.out.push_back(Out::Query(Query { token, table, what }));
        token
    }

    pub(crate) fn store_account(&mut self, no: AccountNo) {
        let value = self.dir.accounts[no.at()].encode();
        self.put(row::ACCOUNT, no.0.into(), 0, &value);
    }

    pub(crate) fn store_conv(&mut self, no: ConvNo) {
        let value = self.dir.convs[no.at()].encode();
        self.put(row::CONV, no.0.into(), 0, &value);
    }

    /// The head row (and with it the marks of a direct conversation) is written with the next batch.
    pub(crate) fn touch_conv(&mut self, no: ConvNo) {
        let conv = &mut self.dir.convs[no.at()];
        if !conv.dirty {
            conv.dirty = true;
            self.dirty_convs.push(no);
        }
    }

    /// A member's marks are written with the next batch.
    pub(crate) fn touch_member(&mut self, no: ConvNo, account: AccountNo) {
        if self.dir.convs[no.at()].kind == model::ConvKind::Direct {
            return self.touch_conv(no);
        }
        if let Some(member) = self.dir.convs[no.at()].member_mut(account)
            && !core::mem::replace(&mut member.dirty, true)
        {
            self.dirty_members.push((no, account));
        }
    }

    /// A terminal's row is written with the next batch.
    pub(crate) fn touch_terminal(&mut self, account: AccountNo, no: u8) {
        if let Some(terminal) = self.dir.accounts[account.at()].terminal_mut(no)
            && !core::mem::replace(&mut terminal.dirty, true)
        {
            self.dirty_terminals.push((account, no));
        }
    }

    /// Whether places of terminals wait that nobody waits for: they go with the next batch, or after a while.
    pub(crate) fn has_places(&self) -> bool {
        !self.dirty_terminals.is_empty()
    }

    /// Places of terminals wait no longer.
    pub(crate) fn want_places(&mut self) {
        self.places_are_due = true;
    }

    /// Whether rows wait for a batch.
    pub(crate) fn is_dirty(&self) -> bool {
        !(self.dirty_convs.is_empty()
            && self.dirty_members.is_empty()
            && (self.dirty_terminals.is_empty() || !self.places_are_due)
            && self.dirty_mailboxes.is_empty()
            && self.moved.is_empty()
            && self.badged.is_empty()
            && self.told_states.is_empty()
            && self.told_deltas.is_empty()
            && self.facts.is_empty())
    }

    /// Writes all that changed; the hub calls this when it makes a batch. What is given back goes to
    /// [`Im::committed`] once that batch is on disk.
    pub(crate) fn flush(&mut self, now: Now) -> Marks {
        if self.is_dirty() && now.wall_ms >= self.clock_ms + 60_000 {
            self.clock_ms = now.wall_ms;
            self.facts.push(&Fact::Clock { wall_ms: now.wall_ms });
        }
        self.tell_marks(now);
        for no in core::mem::take(&mut self.dirty_convs) {
            let conv = &mut self.dir.convs[no.at()];
            conv.dirty = false;
            let value = conv.encode_head();
            self.put(row::HEAD, no.0.into(), 0, &value);
        }
        for (no, account) in core::mem::take(&mut self.dirty_members) {
            let Some(member) = self.dir.convs[no.at()].member_mut(account) else { continue };
            member.dirty = false;
            let mut w = row::RowWriter::new(1);
            member.write(&mut w);
            self.put(row::MEMBER, no.0.into(), account.0.into(), &w.0);
        }
        self.places_are_due = false;
        for (account, no) in core::mem::take(&mut self.dirty_terminals) {
            let Some(terminal) = self.dir.accounts[account.at()].terminal_mut(no) else { continue };
            terminal.dirty = false;
            let value = terminal.encode();
            self.put(row::TERMINAL, account.0.into(), no.into(), &value);
        }
        for account in core::mem::take(&mut self.dirty_mailboxes) {
            let mailbox = &mut self.dir.accounts[account.at()].mailbox;
            mailbox.dirty = false;
            let mut w = row::RowWriter::new(1);
            w.int(mailbox.next).int(mailbox.next - mailbox.floor);
            self.put(row::MAILBOX, account.0.into(), 0, &w.0);
        }
        let touched = core::mem::take(&mut self.touched);
        let mailboxes = touched.into_iter().map(|account| {
            let mailbox = &mut self.dir.accounts[account.at()].mailbox;
            mailbox.touched = false;
            (account, mailbox.next)
        });
        let mailboxes = mailboxes.collect();
        Marks {
            mailboxes,
            badges: core::mem::take(&mut self.badged),
            marked: core::mem::take(&mut self.marked),
            states: core::mem::take(&mut self.told_states),
            deltas: core::mem::take(&mut self.told_deltas),
        }
    }

    /// What [`Im::flush`] wrote is on disk.
    pub(crate) fn committed(&mut self, now: Now, marks: &Marks) {
        self.keep_marks(&marks.marked);
        for &(account, until) in &marks.mailboxes {
            let a = &mut self.dir.accounts[account.at()];
            a.mailbox.committed = a.mailbox.committed.max(until);
            for at in 0..self.dir.accounts[account.at()].online.len() {
                let online = self.dir.accounts[account.at()].online[at];
                let o = &mut self.online[online as usize];
                o.head_dirty |= o.wants(Class::Head);
                self.wake(online);
            }
            self.trim_recent(account);
        }
        for &(account, conv) in &marks.badges {
            for at in 0..self.dir.accounts[account.at()].online.len() {
                let online = self.dir.accounts[account.at()].online[at];
                let o = &mut self.online[online as usize];
                o.head_dirty |= o.wants(Class::Head);
                if o.wants(Class::Conv) {
                    o.convs_dirty.insert(conv);
                }
                self.wake(online);
            }
        }
        for &device in &marks.states {
            self.state_changed(device);
        }
        for &device in &marks.deltas {
            self.delta_changed(device);
        }
        for device in core::mem::take(&mut self.waiting_devices) {
            self.command_due(now, device);
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
        payload: Vec<u8>,
        correlation: Option<Rc<[u8]>>,
    ) {
        let Some(&online) = self.by_session.get(&session.0) else { return };
        if self.online[online as usize].generation != session.1 {
            return;
        }
        let mut note = Note::new(class, topic, &payload);
        note.correlation = correlation;
        self.note(online, note);
    }

    /// Queues a note for every session of an account that wants it.
    pub(crate) fn note_account(&mut self, account: AccountNo, class: Class, topic: &str, payload: &[u8]) {
        let note = Note::new(class, topic, payload);
        for at in 0..self.dir.accounts[account.at()].online.len() {
            let online = self.dir.accounts[account.at()].online[at];
            self.note(online, note.clone());
        }
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
                ImTimer::Pairing => self.pairing_due(now),
                ImTimer::Daily => self.daily(now),
            }
        }
    }

    /// The store has answered.
    pub(crate) fn answered(&mut self, now: Now, answer: &crate::store::Answer) {
        match self.pending.remove(&answer.token) {
            None => {}
            Some(Pending::Send(parked)) => self.unparked(now, *parked, answer),
            Some(Pending::Retry(retry)) => self.asked_first(now, &retry, answer),
            Some(Pending::Change(change)) => self.change_found(now, *change, answer),
            Some(Pending::Read(asked)) => self.counted(now, *asked, answer),
            Some(Pending::Query(asked)) => self.query_answered(now, *asked, answer),
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

/// At most 64 characters of something a client sent, for a text.
pub(crate) fn shorten(text: &str) -> &str {
    match text.char_indices().nth(64) {
        Some((at, _)) => &text[..at],
        None => text,
    }
}

/// Reads a payload as a JSON object; an empty payload is an empty one.
pub(crate) fn object(payload: &[u8]) -> Result<serde_json::Map<String, Value>, Refusal> {
    if payload.is_empty() {
        return Ok(serde_json::Map::new());
    }
    match serde_json::from_slice(payload) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(Refusal::bad("the payload is not a JSON object")),
        Err(error) => Err(Refusal::bad(format!("the payload is not JSON: {error}"))),
    }
}

/// A field that must be a whole number.
pub(crate) fn number(object: &serde_json::Map<String, Value>, key: &str) -> Result<Option<u64>, Refusal> {
    match object.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => {
            let wrong = || Refusal::bad(format!("\"{key}\" is not a whole number of 0 or more"));
            value.as_u64().map(Some).ok_or_else(wrong)
        }
    }
}

/// A field that must be text.
pub(crate) fn text<'a>(object: &'a serde_json::Map<String, Value>, key: &str) -> Result<Option<&'a str>, Refusal> {
    match object.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => value.as_str().map(Some).ok_or_else(|| Refusal::bad(format!("\"{key}\" is not text"))),
    }
}

/// A field that must be true or false.
pub(crate) fn flag(object: &serde_json::Map<String, Value>, key: &str) -> Result<Option<bool>, Refusal> {
    match object.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => value.as_bool().map(Some).ok_or_else(|| Refusal::bad(format!("\"{key}\" is not true or false"))),
    }
}
