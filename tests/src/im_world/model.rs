//! The reference model: who said what, what everybody was told, and what follows from that. Plain maps, to be read.

use super::terminal::{Mode, Terminal};
use std::collections::{BTreeMap, BTreeSet};

/// What kind of promise was broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ImClass {
    /// What was acknowledged is not there any more (G1).
    LostWrite,
    /// One client id made two messages, or a once-only thing happened twice (G2, G6).
    Duplicate,
    /// One place in a log or a mailbox held two different things (G3).
    InconsistentOffset,
    /// A terminal was moved past something it had not got (G4).
    PollSkip,
    /// A terminal was moved back, or got again what it had acknowledged for good (G4).
    NonMonotonicPoll,
    /// After everything has come to rest a terminal has not got what it should have (G4).
    Unseen,
    /// Two terminals that have everything show different things.
    InconsistentView,
    /// A receipt came before the other side's acknowledgement (G5).
    ReceiptEarly,
    /// A mark moved back (G8).
    ReceiptBack,
    /// At rest, a sender has not heard of the other side's marks.
    ReceiptStale,
    /// A count of unread messages is not what a recount gives (G8).
    UnreadMismatch,
    /// Somebody got what is not its own, or reached somebody it may not (G12).
    Leak,
    /// Something arrived after its deadline, or after it was taken back (G7).
    LateDelivery,
    /// A sender was not told that nobody got its message in time (G7).
    NotTold,
    /// A used client id was accepted with another content.
    IdReused,
    /// A command has no outcome, two, or one that nobody gave.
    Command,
    /// Presence does not show who is there (G9).
    PresenceStale,
    /// A terminal that pulls was told again before it had answered.
    NotifyTwice,
    /// Something outgrew its limit (G11).
    Bound,
    /// Something waits for an event that will not come.
    Stuck,
    /// A rule of the protocol was broken.
    Protocol,
    /// The store failed while the disk did not.
    Store,
}

impl ImClass {
    /// Its name in a report.
    pub fn name(self) -> &'static str {
        match self {
            Self::LostWrite => "lost_write",
            Self::Duplicate => "duplicate",
            Self::InconsistentOffset => "inconsistent_offset",
            Self::PollSkip => "poll_skip",
            Self::NonMonotonicPoll => "non_monotonic_poll",
            Self::Unseen => "unseen",
            Self::InconsistentView => "inconsistent_view",
            Self::ReceiptEarly => "receipt_early",
            Self::ReceiptBack => "receipt_back",
            Self::ReceiptStale => "receipt_stale",
            Self::UnreadMismatch => "unread_mismatch",
            Self::Leak => "leak",
            Self::LateDelivery => "late_delivery",
            Self::NotTold => "not_told",
            Self::IdReused => "id_reused",
            Self::Command => "command",
            Self::PresenceStale => "presence_stale",
            Self::NotifyTwice => "notify_twice",
            Self::Bound => "bound",
            Self::Stuck => "stuck",
            Self::Protocol => "protocol",
            Self::Store => "store",
        }
    }
}

/// One broken promise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImViolation {
    /// What kind.
    pub class: ImClass,
    /// What happened.
    pub text: String,
}

/// A message as its sender knows it.
#[derive(Debug, Clone)]
pub struct Sent {
    /// Account that sent it.
    pub from: String,
    /// Terminal that sent it.
    pub(crate) terminal: usize,
    /// Conversation.
    pub conv: String,
    /// Address it was sent to.
    pub(crate) to: String,
    /// Client id.
    pub id: Option<String>,
    pub(crate) payload: Vec<u8>,
    /// Client id that goes as a user property.
    pub(crate) property: Option<String>,
    /// Nobody gets it later than so long after it was accepted; 0: no end.
    pub ttl_ms: u64,
    /// It counts as unread.
    pub counts: bool,
    /// Nothing tells a repetition from a second message.
    pub may_repeat: bool,
    /// A positive answer came: it is promised to be there.
    pub told: bool,
    /// A refusal came to the only time it was sent.
    pub refused: bool,
    /// Its sender may not write there: nobody may ever see it.
    pub is_forbidden: bool,
    /// Where in the log it was seen.
    pub seqs: BTreeSet<u64>,
}

/// One place in a log.
#[derive(Debug, Clone)]
pub struct Line {
    /// What was said there.
    pub entry: Entry,
    /// When the broker accepted it, milliseconds since 1970; 0: not known yet.
    pub ts: u64,
    /// Its recall was asked for: it may be gone.
    pub recall_asked: bool,
    /// When a recall was acknowledged, virtual milliseconds: it is gone.
    pub recalled_ms: Option<u64>,
    /// Texts it was edited to, in the order they were asked for.
    pub edits: Vec<String>,
}

/// What was said at a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// The message of this number.
    Message(usize),
    /// A change of the group, as JSON.
    Change(String),
}

/// What an account has said of a conversation.
#[derive(Debug, Clone, Default)]
pub struct Marks {
    /// The highest read mark that was sent, and that was acknowledged.
    pub read_asked: u64,
    /// See `read_asked`.
    pub read_told: u64,
    /// The highest message that any terminal of it has acknowledged.
    pub got: u64,
    /// When it rose, virtual milliseconds, and to what.
    pub got_when: Vec<(u64, u64)>,
}

/// One conversation.
#[derive(Debug, Clone, Default)]
pub struct Conv {
    /// Everybody who ever was in it.
    pub members: BTreeSet<String>,
    /// What is known of its log, from whoever has seen it.
    pub log: BTreeMap<u64, Line>,
    /// By account.
    pub marks: BTreeMap<String, Marks>,
}

/// What one account has asked for about hearing another.
#[derive(Debug, Clone, Default)]
pub struct Block {
    /// The latest wish.
    pub is_wanted: bool,
    /// Wishes that were not answered.
    pub open: u32,
    /// No other was under way when that was wished, so that the broker cannot have heard them the other way round.
    pub is_sure: bool,
}

/// What one terminal has seen.
#[derive(Debug, Clone, Default)]
pub struct View {
    /// When its subscriptions were first confirmed, virtual milliseconds.
    pub since_ms: Option<u64>,
    /// Text of each message it has, by conversation and seq.
    pub texts: BTreeMap<(String, u64), String>,
    /// The last seq of each conversation.
    pub last: BTreeMap<String, u64>,
    /// The last position of this connection.
    pub last_pos: u64,
    /// The highest position ever.
    pub pos: u64,
    /// Everything up to here was acknowledged, and is on disk.
    pub settled_pos: u64,
    /// It was told that something is gone.
    pub gap: bool,
    /// Conversations of which something came since then.
    pub since_gap: BTreeSet<String>,
    /// Marks of the others: conversation, seq received, seq read.
    pub marks: BTreeMap<String, (u64, u64)>,
    /// Recalls it was told.
    pub recalls: BTreeSet<(String, u64)>,
    /// Edits it was shown.
    pub edits: BTreeSet<(String, u64)>,
    /// Messages of its account that it was told nobody has got.
    pub expired: BTreeSet<(String, u64)>,
    /// The latest head: position, unread.
    pub head: Option<(u64, u64)>,
    /// A head that it has not acknowledged.
    pub head_open: bool,
    /// Of one that pulls: the position up to which it has everything.
    pub pulled: u64,
    /// Number of its latest pull.
    pub pull: u64,
    /// And up to which it has said so.
    pub confirmed: u64,
    /// Latest presence of others: state and epoch.
    pub presence: BTreeMap<String, (String, u64)>,
    /// Positions of the outcomes of commands it was told.
    pub outcomes: BTreeMap<String, u64>,
}

/// Everything that is known from outside.
#[derive(Debug, Default)]
pub struct Model {
    /// People and devices that are contacts of each other.
    pub people: Vec<String>,
    /// Devices among them.
    pub devices: Vec<String>,
    /// Every message, by its number.
    pub messages: Vec<Sent>,
    /// Every command, by its number.
    pub commands: Vec<super::Command>,
    /// By name: `a~b`, or the address of a group.
    pub convs: BTreeMap<String, Conv>,
    /// Who blocks whom.
    pub blocks: BTreeMap<(String, String), Block>,
    /// What is at each position of each account's mailbox.
    pub mail: BTreeMap<(String, u64), String>,
    /// By terminal.
    pub views: Vec<View>,
    /// Messages that a terminal was moved past and of which nothing is known yet: conversation, seqs, what happened.
    pub suspicions: Vec<(usize, String, Vec<u64>, String)>,
    /// Deliveries so far.
    pub deliveries: u64,
    /// What happened how often.
    pub tally: BTreeMap<&'static str, u64>,
    pub(crate) violations: Vec<ImViolation>,
}

/// How late something may arrive, as the network and slow readers have it: not the broker's fault.
pub(crate) const SLACK_MS: u64 = 4_000;

/// Name of the conversation that `account` calls `address`.
pub(crate) fn conv_of(account: &str, address: &str) -> String {
    if address.starts_with("g-") {
        return address.to_owned();
    }
    let (low, high) = if account < address { (account, address) } else { (address, account) };
    format!("{low}~{high}")
}

/// The address that `account` uses for a conversation.
pub(crate) fn address_of(conv: &str, account: &str) -> String {
    match conv.split_once('~') {
        None => conv.to_owned(),
        Some((low, high)) => if low == account { high } else { low }.to_owned(),
    }
}

/// Number of the message that a text belongs to: `m#17`, or edited `m#17e2`.
pub(crate) fn number_in(text: &str) -> Option<usize> {
    let rest = &text[text.find("m#")? + 2..];
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    rest[..end].parse().ok()
}

impl Model {
    /// Records a broken promise.
    pub fn blame(&mut self, class: ImClass, text: String) {
        // Later ones of a kind usually follow from the first.
        if self.violations.iter().filter(|v| v.class == class).count() < 4 {
            self.violations.push(ImViolation { class, text });
        }
    }

    /// What was broken so far.
    pub fn violations(&self) -> &[ImViolation] {
        &self.violations
    }

    /// Counts something that happened.
    pub(crate) fn count(&mut self, what: &'static str) {
        *self.tally.entry(what).or_insert(0) += 1;
    }

    /// Founds a conversation.
    pub(crate) fn found(&mut self, conv: &str, members: &[&str]) {
        let members = members.iter().map(|name| (*name).to_owned());
        self.convs.entry(conv.to_owned()).or_default().members.extend(members);
    }

    pub(crate) fn marks(&mut self, conv: &str, account: &str) -> &mut Marks {
        self.convs.entry(conv.to_owned()).or_default().marks.entry(account.to_owned()).or_default()
    }

    pub(crate) fn line(&self, conv: &str, seq: u64) -> Option<&Line> {
        self.convs.get(conv)?.log.get(&seq)
    }

    pub(crate) fn line_mut(&mut self, conv: &str, seq: u64) -> Option<&mut Line> {
        self.convs.get_mut(conv)?.log.get_mut(&seq)
    }

    /// The message at a place, if it is one.
    pub(crate) fn message_at(&self, conv: &str, seq: u64) -> Option<&Sent> {
        match self.line(conv, seq)?.entry {
            Entry::Message(no) => self.messages.get(no),
            Entry::Change(_) => None,
        }
    }

    /// When a message is over, milliseconds since 1970, where that is known.
    pub(crate) fn deadline(&self, conv: &str, seq: u64) -> Option<u64> {
        let (line, sent) = (self.line(conv, seq)?, self.message_at(conv, seq)?);
        (sent.ttl_ms > 0 && line.ts > 0).then_some(line.ts + sent.ttl_ms)
    }

    /// Whether nobody need be shown what is there: it was taken back, or is over.
    pub(crate) fn may_be_gone(&self, conv: &str, seq: u64, wall_ms: u64) -> bool {
        self.line(conv, seq).is_some_and(|line| line.recall_asked)
            || self.message_at(conv, seq).is_some_and(|sent| sent.ttl_ms > 0)
                && self.deadline(conv, seq).is_none_or(|at| at <= wall_ms)
    }

    /// Somebody has seen what is at a place of a log, and from now on everybody must.
    pub(crate) fn observe(&mut self, conv: &str, seq: u64, entry: &Entry, ts: u64, by: &str) {
        if let &Entry::Message(no) = entry {
            let Some(sent) = self.messages.get_mut(no) else {
                return self.blame(ImClass::InconsistentOffset, format!("{by} saw message {no}, which nobody sent"));
            };
            let is_new = sent.seqs.insert(seq);
            let (is_twice, may_repeat) = (sent.seqs.len() > 1, sent.may_repeat);
            let (is_forbidden, refused) = (sent.is_forbidden, sent.refused);
            let text = format!("message {no} (id {:?}) of {} to {}", sent.id, sent.from, sent.to);
            if sent.conv != conv {
                return self.blame(ImClass::Leak, format!("{text} is seen in {conv} by {by}"));
            }
            if is_new && is_twice && !may_repeat {
                let seqs = self.messages[no].seqs.clone();
                self.blame(ImClass::Duplicate, format!("{text} is in the log at {seqs:?}, as {by} sees"));
            }
            if is_new && is_forbidden {
                self.blame(ImClass::Leak, format!("{text} may not be written, and {by} sees it at {seq}"));
            }
            if is_new && refused {
                self.blame(ImClass::Leak, format!("{text} was refused, and {by} sees it at {seq}"));
            }
        }
        let log = &mut self.convs.entry(conv.to_owned()).or_default().log;
        let fresh = Line { entry: entry.clone(), ts, recall_asked: false, recalled_ms: None, edits: vec![] };
        let line = log.entry(seq).or_insert(fresh);
        if line.ts == 0 {
            line.ts = ts;
        }
        let (old, old_ts) = (line.entry.clone(), line.ts);
        if old != *entry {
            self.blame(ImClass::InconsistentOffset, format!("{conv} {seq} is {old:?}, and {entry:?} for {by}"));
        } else if ts != 0 && old_ts != ts {
            let text = format!("{conv} {seq} {old:?} was said at {old_ts}, and at {ts} for {by}");
            self.blame(ImClass::InconsistentOffset, text);
        }
    }

    /// An account has acknowledged what is at a place, or is about to.
    pub(crate) fn got(&mut self, conv: &str, account: &str, seq: u64, now_ms: u64) {
        let marks = self.marks(conv, account);
        if seq > marks.got {
            marks.got = seq;
            marks.got_when.push((now_ms, seq));
        }
    }

    /// Whether one of two certainly blocks the other now.
    pub(crate) fn is_blocked(&self, one: &str, other: &str) -> bool {
        let is_on = |a: &str, b: &str| {
            self.blocks.get(&(a.to_owned(), b.to_owned())).is_some_and(|b| b.is_wanted && b.is_sure && b.open == 0)
        };
        is_on(one, other) || is_on(other, one)
    }

    /// Whether one of two may ever have blocked the other.
    pub(crate) fn was_blocked(&self, one: &str, other: &str) -> bool {
        let is_there = |a: &str, b: &str| self.blocks.contains_key(&(a.to_owned(), b.to_owned()));
        is_there(one, other) || is_there(other, one)
    }

    /// One wishes to hear nothing of another, or to hear of it again.
    pub(crate) fn wish(&mut self, one: &str, other: &str, is_wanted: bool) {
        let block = self.blocks.entry((one.to_owned(), other.to_owned())).or_default();
        block.is_wanted = is_wanted;
        block.is_sure = block.open == 0;
        block.open += 1;
        if !is_wanted {
            // What waits to be sent may pass now.
            let conv = conv_of(one, other);
            for sent in self.messages.iter_mut().filter(|sent| sent.conv == conv && !sent.refused) {
                sent.is_forbidden = false;
            }
        }
    }

    /// Whether an account can have everything up to `recv`: what it has not acknowledged is its own, as far as is known.
    pub(crate) fn may_have(&self, conv: &str, account: &str, recv: u64) -> bool {
        let got = self.convs.get(conv).and_then(|c| c.marks.get(account)).map_or(0, |m| m.got);
        recv <= got || (got + 1..=recv).all(|seq| self.message_at(conv, seq).is_none_or(|sent| sent.from == account))
    }

    /// A terminal begins a connection.
    pub(crate) fn connecting(&mut self, terminal: usize) {
        let view = &mut self.views[terminal];
        view.last_pos = 0;
        view.head_open = false;
    }

    /// Everything is on disk, what was acknowledged too.
    pub(crate) fn settle(&mut self) {
        for view in &mut self.views {
            view.settled_pos = view.pos;
        }
    }

    /// Whether every terminal that pulls has all that it was told of.
    pub(crate) fn pulls_are_done(&self, terminals: &[Terminal]) -> bool {
        self.pulls_open(terminals).is_empty()
    }

    pub(crate) fn pulls_open(&self, terminals: &[Terminal]) -> String {
        let open = terminals
            .iter()
            .zip(&self.views)
            .filter(|(t, view)| t.who.mode == Mode::Pull && view.head.is_none_or(|(pos, _)| pos > view.confirmed));
        let lines: Vec<String> =
            open.map(|(t, v)| format!("{} has confirmed {} of {:?}", t.who.name, v.confirmed, v.head)).collect();
        lines.join("; ")
    }

    /// Whether an account is in a conversation as far as its log tells, at this place of it: what it may be shown.
    pub(crate) fn may_see(&self, conv: &str, account: &str, seq: u64) -> bool {
        if conv.contains('~') {
            return self.convs.get(conv).is_some_and(|c| c.members.contains(account));
        }
        self.spans(conv, account).iter().any(|(from, until)| (*from..=*until).contains(&seq))
    }

    /// The parts of a group's log that were said while an account was in it, the words of coming and going included.
    pub(crate) fn spans(&self, conv: &str, account: &str) -> Vec<(u64, u64)> {
        let Some(c) = self.convs.get(conv) else { return vec![] };
        if conv.contains('~') {
            return vec![(1, u64::MAX)];
        }
        let mut spans: Vec<(u64, u64)> = vec![];
        for (&seq, line) in &c.log {
            let (Entry::Change(text), is_in) = (&line.entry, spans.last().is_some_and(|(_, end)| *end == u64::MAX))
            else {
                continue;
            };
            let change: serde_json::Value = serde_json::from_str(text).unwrap_or_default();
            let (op, who) = (change["op"].as_str().unwrap_or_default(), change["who"].as_str().unwrap_or_default());
            match op {
                "create" if super::cast::OWNER == account => spans.push((seq, u64::MAX)),
                "add" if who == account && !is_in => spans.push((seq, u64::MAX)),
                "remove" | "leave" if who == account && is_in => {
                    if let Some(last) = spans.last_mut() {
                        last.1 = seq;
                    }
                }
                _ => {}
            }
        }
        spans
    }
}
