//! One session that takes part: what it has subscribed to, what is under way to it, and what waits.

use super::body::Body;
use super::model::{AccountNo, ConvNo, MailEntry};
use parlor_protocol::mqtt::Property;
use parlor_protocol::topic;
use std::collections::{BTreeSet, VecDeque};
use std::rc::Rc;

/// Kinds of topics that go down to clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    Msg,
    Receipt,
    Recall,
    Edit,
    Contact,
    Typing,
    Stream,
    Bounce,
    Gap,
    Sent,
    Head,
    Conv,
    Err,
    Cmd,
    Delta,
    Res,
    Reply,
    Presence,
    Avail,
    State,
    Paired,
}

const CLASSES: [(Class, &str); 21] = [
    (Class::Msg, "im/v1/me/in/+/msg"),
    (Class::Receipt, "im/v1/me/in/+/receipt"),
    (Class::Recall, "im/v1/me/in/+/recall"),
    (Class::Edit, "im/v1/me/in/+/edit"),
    (Class::Contact, "im/v1/me/in/+/contact"),
    (Class::Typing, "im/v1/me/in/+/typing"),
    (Class::Stream, "im/v1/me/in/+/stream/+"),
    (Class::Bounce, "im/v1/me/in/+/bounce"),
    (Class::Gap, "im/v1/me/in/+/gap"),
    (Class::Sent, "im/v1/me/sent"),
    (Class::Head, "im/v1/me/head"),
    (Class::Conv, "im/v1/me/conv/+"),
    (Class::Err, "im/v1/me/err"),
    (Class::Cmd, "im/v1/me/cmd/+/+"),
    (Class::Delta, "im/v1/me/delta"),
    (Class::Res, "im/v1/me/res/+"),
    (Class::Reply, "im/v1/me/+/res"),
    (Class::Presence, "im/v1/presence/+"),
    (Class::Avail, "im/v1/presence/+/avail"),
    (Class::State, "im/v1/state/+"),
    (Class::Paired, "im/v1/me/paired"),
];

/// Classes that come out of the mailbox: a session with one of them has a place in it.
const MAILBOX_CLASSES: [Class; 10] = [
    Class::Msg,
    Class::Receipt,
    Class::Recall,
    Class::Edit,
    Class::Contact,
    Class::Bounce,
    Class::Sent,
    Class::Head,
    Class::Cmd,
    Class::Delta,
];

/// One subscription below `im/`.
#[derive(Debug)]
pub(crate) struct Filter {
    pub(crate) text: Box<str>,
    pub(crate) qos: u8,
    /// Subscription Identifier, or 0.
    pub(crate) id: u32,
}

/// How a class is subscribed to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) enum Interest {
    #[default]
    None,
    /// Every topic of it.
    All { qos: u8, ids: Box<[u8]> },
    /// Some of its topics: look at each filter.
    Some,
}

/// Something for one session that is neither in its mailbox nor kept.
#[derive(Debug, Clone)]
pub(crate) struct Note {
    pub(crate) class: Class,
    pub(crate) topic: Rc<str>,
    pub(crate) payload: Rc<[u8]>,
    pub(crate) retain: bool,
    /// Answers of a client go here (MQTT 5).
    pub(crate) response_topic: Option<Rc<str>>,
    pub(crate) correlation: Option<Rc<[u8]>>,
    pub(crate) tag: Tag,
    /// Sent at QoS 0 whatever was subscribed with.
    pub(crate) is_volatile: bool,
}

impl Note {
    pub(crate) fn new(class: Class, topic: &str, payload: &[u8]) -> Self {
        Self {
            class,
            topic: topic.into(),
            payload: payload.into(),
            retain: false,
            response_topic: None,
            correlation: None,
            tag: Tag::None,
            is_volatile: false,
        }
    }
}

/// What the acknowledgement of a note means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tag {
    None,
    Head,
    /// The device has this command.
    Command {
        device: AccountNo,
        no: u64,
    },
    /// A message that is not taken from the mailbox: of a conversation that was there before the terminal, or of a log.
    Message {
        conv: ConvNo,
        seq: u64,
    },
    /// Positions below are gone.
    Gap {
        until: u64,
    },
    /// An announcement's change.
    Announcement {
        channel: ConvNo,
        change: u64,
    },
    /// The device has its credentials.
    Paired,
    /// How far this command is; a later one takes its place.
    Progress {
        device: AccountNo,
        no: u64,
    },
    /// Bytes of a blob: fewer of them will do.
    Range,
}

/// State of a mailbox entry that was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flight {
    /// PUBACK is awaited; the entry is a message of this conversation, or something else.
    Sent(Option<(ConvNo, u64)>),
    Done,
}

/// A part of a conversation that is sent to a terminal that was not there before.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Backfill {
    pub(crate) conv: ConvNo,
    pub(crate) from: u64,
    pub(crate) until: u64,
}

/// A session that takes part.
#[derive(Debug)]
pub(crate) struct Online {
    /// The hub's key of the session.
    pub(crate) session: u32,
    pub(crate) generation: u32,
    pub(crate) account: AccountNo,
    pub(crate) client_id: Rc<str>,
    /// Number of the terminal, once it is one.
    pub(crate) terminal: Option<u8>,
    /// Tells it from an earlier one in the same place.
    pub(crate) serial: u32,
    /// Its connection lives.
    pub(crate) is_live: bool,
    /// The session was there before this connection.
    pub(crate) is_resumed: bool,
    pub(crate) v5: bool,
    pub(crate) filters: Vec<Filter>,
    interests: [Interest; CLASSES.len()],
    /// The next position to look at.
    pub(crate) next: u64,
    /// Positions below were sent on an earlier connection of the same session.
    pub(crate) resent_below: u64,
    /// When it has last subscribed to something, on the clock that only moves forward.
    pub(crate) subscribed_ms: u64,
    /// Until when an entry waits for the next subscription; a deadline is set for that time.
    pub(crate) waits_ms: u64,
    /// Positions from `next - flight.len()` on.
    pub(crate) flight: VecDeque<Flight>,
    /// Entries and bodies that were read for it, ascending by position.
    pub(crate) page: VecDeque<(u64, MailEntry, Option<Rc<[u8]>>)>,
    /// Every position below was looked at by the read that filled `page`.
    pub(crate) page_until: u64,
    pub(crate) is_loading: bool,
    pub(crate) backfill: VecDeque<Backfill>,
    /// Messages read for `backfill` or for a log, with their conversation.
    pub(crate) extra: VecDeque<(ConvNo, u64, Rc<[u8]>)>,
    pub(crate) is_loading_extra: bool,
    /// Messages of a large group, read ahead.
    pub(crate) log_page: VecDeque<(ConvNo, u64, Rc<[u8]>)>,
    pub(crate) is_loading_log: bool,
    /// The last seq of each large group that was sent.
    pub(crate) log_sent: std::collections::BTreeMap<ConvNo, u64>,
    /// Level said in CONNECT, for a session that is no terminal.
    pub(crate) level: u32,
    /// What it said in CONNECT, for the terminal that it may become.
    pub(crate) hello: Option<crate::hub::Hello>,
    /// QoS 1 packets that wait for their PUBACK.
    pub(crate) under_way: usize,
    pub(crate) notes: VecDeque<Note>,
    pub(crate) notes_bytes: usize,
    /// Notes under way: packet identifier and meaning.
    pub(crate) notes_sent: Vec<(u16, Tag)>,
    pub(crate) next_note_id: u16,
    /// Latest wins: what has changed and has not been sent.
    pub(crate) head_dirty: bool,
    pub(crate) convs_dirty: BTreeSet<ConvNo>,
    pub(crate) presence_dirty: BTreeSet<AccountNo>,
    pub(crate) avail_dirty: BTreeSet<AccountNo>,
    pub(crate) state_dirty: BTreeSet<AccountNo>,
    pub(crate) delta_dirty: bool,
    /// Logs that may have something new.
    pub(crate) logs_dirty: BTreeSet<ConvNo>,
    /// Positions that are gone, from and (not including) until: the client has not acknowledged that it was told.
    pub(crate) gap: Option<(u64, u64)>,
    /// Where an entry was skipped, the seq before it in that conversation.
    pub(crate) skipped: Vec<(ConvNo, u64, u64)>,
    /// Is on the list of those that may be sent something.
    pub(crate) ready: bool,
}

impl Online {
    pub(crate) fn new(session: u32, generation: u32, account: AccountNo, client_id: Rc<str>, v5: bool) -> Self {
        Self {
            session,
            generation,
            account,
            client_id,
            terminal: None,
            serial: 0,
            is_live: true,
            is_resumed: false,
            v5,
            filters: vec![],
            interests: Default::default(),
            next: 0,
            resent_below: 0,
            subscribed_ms: 0,
            waits_ms: 0,
            flight: VecDeque::new(),
            page: VecDeque::new(),
            page_until: 0,
            is_loading: false,
            backfill: VecDeque::new(),
            extra: VecDeque::new(),
            is_loading_extra: false,
            log_page: VecDeque::new(),
            is_loading_log: false,
            log_sent: std::collections::BTreeMap::new(),
            level: 0,
            hello: None,
            under_way: 0,
            avail_dirty: BTreeSet::new(),
            notes: VecDeque::new(),
            notes_bytes: 0,
            notes_sent: vec![],
            next_note_id: 0,
            head_dirty: false,
            convs_dirty: BTreeSet::new(),
            presence_dirty: BTreeSet::new(),
            state_dirty: BTreeSet::new(),
            delta_dirty: false,
            logs_dirty: BTreeSet::new(),
            gap: None,
            skipped: vec![],
            ready: false,
        }
    }

    /// Adds or replaces a subscription.
    pub(crate) fn subscribe(&mut self, filter: &str, qos: u8, id: u32) {
        self.filters.retain(|f| *f.text != *filter);
        self.filters.push(Filter { text: filter.into(), qos: qos.min(1), id });
        self.look_at_filters();
    }

    pub(crate) fn unsubscribe(&mut self, filter: &str) {
        self.filters.retain(|f| *f.text != *filter);
        self.look_at_filters();
    }

    fn look_at_filters(&mut self) {
        for (class, pattern) in CLASSES {
            let mut interest = Interest::None;
            if self.filters.iter().any(|f| overlaps(&f.text, pattern)) {
                interest =
                    if self.filters.iter().all(|f| topic::covers(&f.text, pattern) || !overlaps(&f.text, pattern)) {
                        let (qos, ids) = self.grants(|f| topic::covers(&f.text, pattern));
                        Interest::All { qos, ids }
                    } else {
                        Interest::Some
                    };
            }
            self.interests[class as usize] = interest;
        }
    }

    /// The highest QoS of the filters that fit, and the identifiers of all of them as property bytes.
    fn grants(&self, fits: impl Fn(&Filter) -> bool) -> (u8, Box<[u8]>) {
        let (mut qos, mut ids) = (0, vec![]);
        for filter in self.filters.iter().filter(|f| fits(f)) {
            qos = qos.max(filter.qos);
            if filter.id != 0 {
                Property::SubscriptionIdentifier(filter.id).encode(&mut ids);
            }
        }
        (qos, ids.into())
    }

    /// Whether any topic of this class is wanted.
    pub(crate) fn wants(&self, class: Class) -> bool {
        self.interests[class as usize] != Interest::None
    }

    /// Whether this very topic is wanted, and with which QoS and subscription identifiers.
    pub(crate) fn wants_topic(&self, class: Class, name: &str) -> Option<(u8, Box<[u8]>)> {
        match &self.interests[class as usize] {
            Interest::None => None,
            Interest::All { qos, ids } => Some((*qos, ids.clone())),
            Interest::Some => {
                let fits = |f: &Filter| topic::matches(&f.text, name);
                self.filters.iter().any(fits).then(|| self.grants(fits))
            }
        }
    }

    /// Whether it has, or is to get, a place in the mailbox.
    pub(crate) fn wants_mailbox(&self) -> bool {
        MAILBOX_CLASSES.into_iter().any(|class| self.wants(class))
    }

    /// It is sent its mailbox.
    pub(crate) fn is_pushed(&self) -> bool {
        [Class::Msg, Class::Receipt, Class::Recall, Class::Edit, Class::Contact, Class::Bounce, Class::Sent]
            .into_iter()
            .any(|class| self.wants(class))
    }

    /// The lowest position that is not done.
    pub(crate) fn first_open(&self) -> u64 {
        self.next - self.flight.len() as u64
    }

    /// Whether something that is not in the mailbox waits.
    pub(crate) fn has_latest(&self) -> bool {
        self.head_dirty
            || self.delta_dirty
            || !self.convs_dirty.is_empty()
            || !self.presence_dirty.is_empty()
            || !self.avail_dirty.is_empty()
            || !self.state_dirty.is_empty()
    }
}

/// Whether a filter lies where something is sent to clients.
pub(crate) fn may_be_subscribed(filter: &str) -> bool {
    ["im/v1/me/#", "im/v1/presence/#", "im/v1/state/#"].into_iter().any(|below| overlaps(filter, below))
}

/// Whether some topic matches both filters.
fn overlaps(a: &str, b: &str) -> bool {
    let (mut a, mut b) = (a.split('/'), b.split('/'));
    loop {
        match (a.next(), b.next()) {
            (Some("#"), _) | (_, Some("#")) | (None, None) => return true,
            (Some(x), Some(y)) if x == y || x == "+" || y == "+" => {}
            _ => return false,
        }
    }
}

/// Reads a body that this program wrote.
pub(crate) fn body_of(bytes: &[u8]) -> Option<Body<'_>> {
    Body::decode(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn online(filters: &[&str]) -> Online {
        let mut o = Online::new(0, 0, AccountNo(1), "phone".into(), true);
        for (id, filter) in (1..).zip(filters) {
            o.subscribe(filter, 1, id);
        }
        o
    }

    #[test]
    fn a_class_is_wanted_whole_in_part_or_not_at_all() {
        let o = online(&["im/v1/me/in/#"]);
        assert!(o.wants(Class::Msg) && o.wants(Class::Stream) && !o.wants(Class::Sent) && o.is_pushed());
        let o = online(&["im/v1/#"]);
        assert!(o.wants(Class::Presence) && o.wants(Class::Head) && o.wants(Class::Res));
        let o = online(&["im/v1/me/in/bob/msg", "im/v1/me/in/+/msg"]);
        let (qos, ids) = o.wants_topic(Class::Msg, "im/v1/me/in/bob/msg").unwrap();
        assert_eq!((qos, &*ids), (1, &[11, 1, 11, 2][..]));
        assert_eq!(&*o.wants_topic(Class::Msg, "im/v1/me/in/eve/msg").unwrap().1, [11, 2]);
        let o = online(&["im/v1/me/res/a", "im/v1/me/head"]);
        assert!(o.wants_topic(Class::Res, "im/v1/me/res/b").is_none() && o.wants(Class::Head) && !o.is_pushed());
        let mut o = online(&["im/v1/presence/+", "im/v1/presence/+/avail"]);
        o.unsubscribe("im/v1/presence/+");
        assert!(!o.wants(Class::Presence) && o.wants(Class::Avail) && !o.wants_mailbox());
    }

    #[test]
    fn filters_overlap_when_a_topic_could_match_both() {
        for (a, b, expect) in [
            ("im/v1/me/+/res", "im/v1/me/res/+", true),
            ("im/v1/me/in/#", "im/v1/me/in/+/msg", true),
            ("im/v1/me/in/bob/#", "im/v1/me/in/+/msg", true),
            ("im/v1/me/in", "im/v1/me/in/+/msg", false),
            ("im/v1/state/+", "im/v1/presence/+", false),
            ("im/v1/me/sent", "im/v1/me/sent", true),
        ] {
            assert_eq!(overlaps(a, b), expect, "{a} {b}");
            assert_eq!(overlaps(b, a), expect, "{b} {a}");
        }
    }
}
