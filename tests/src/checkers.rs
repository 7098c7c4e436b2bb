//! What clients were promised, and whether it was kept.
//!
//! The [`Ledger`] hears of every message a client sends, every answer it gets and every delivery. It never asks the
//! broker. Where the moment of a change is not known (a SUBSCRIBE whose answer was lost), it takes neither side: such
//! a message may arrive and may be missing.

use parlor_protocol::topic;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// What kind of promise was broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// An acknowledged message did not arrive.
    Lost,
    /// A QoS 2 message arrived twice, or another one twice without a reason.
    Duplicated,
    /// Messages of one publisher, topic and QoS arrived in another order.
    Reordered,
    /// Somebody got what it had not subscribed to, or at a QoS it had not asked for.
    Uninvited,
    /// Topic, payload or properties differ from what was sent.
    Changed,
    /// A message arrived after its expiry.
    Stale,
    /// A session that was promised to go on was gone, or its subscriptions differ.
    Session,
    /// A retained message is not what was last acknowledged.
    Retained,
    /// A will is missing, or was published though it was taken back.
    Will,
    /// Something outgrew its limit.
    Bound,
    /// Something waits for an event that will not come.
    Stuck,
    /// The broker broke a rule of the protocol.
    Protocol,
    /// The store failed while the disk did not.
    Store,
}

/// One broken promise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// What kind.
    pub class: Class,
    /// What happened.
    pub text: String,
}

/// Names a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId(pub usize);

/// Names one session of one client, from its beginning to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub usize);

/// What may become of a will.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It may be published, or not.
    Open,
    /// It must be.
    Due,
    /// It must not be.
    Void,
}

/// A message as it was sent.
#[derive(Debug, Clone)]
#[allow(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub struct Message {
    /// Who sent it.
    pub publisher: usize,
    /// Topic name.
    pub topic: String,
    /// QoS it was published with.
    pub qos: u8,
    /// Retain flag it was published with.
    pub retain: bool,
    /// When it was first sent, virtual milliseconds.
    pub sent_ms: u64,
    /// Content type, where the publisher gave one.
    pub content_type: Option<String>,
    /// When it expires, virtual milliseconds.
    pub expires_ms: Option<u64>,
    payload: Vec<u8>,
    place: u64,
    sends: u32,
    settled: bool,
    accepted: bool,
    must: BTreeSet<SessionId>,
    /// One member of a shared subscription must get it.
    group: bool,
    fate: Option<Fate>,
}

impl Message {
    /// Its payload, which carries its number.
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }
}

#[derive(Debug)]
struct Subscription {
    filter: String,
    qos: u8,
    confirmed: bool,
    /// No request about this filter is under way or was lost.
    stable: bool,
    gone_ms: Option<u64>,
}

#[derive(Debug)]
struct Session {
    client: String,
    persistent: bool,
    ended: bool,
    /// The client has given it up, and the broker may not know yet.
    lingers: bool,
    subscriptions: Vec<Subscription>,
    got: BTreeMap<MessageId, u32>,
    at_qos_0: BTreeMap<MessageId, u32>,
    last: HashMap<(usize, String, u8), (u64, MessageId)>,
}

/// One delivery as a client saw it.
#[derive(Debug, Clone, Copy)]
pub struct Delivery<'a> {
    /// Topic name.
    pub topic: &'a str,
    /// Payload.
    pub payload: &'a [u8],
    /// QoS.
    pub qos: u8,
    /// DUP flag.
    pub dup: bool,
    /// RETAIN flag.
    pub retain: bool,
    /// Content Type, and whether this client's version can carry one.
    pub content_type: Option<Option<&'a str>>,
}

/// What a publication is made of.
#[derive(Debug, Clone, Default)]
pub struct Publication {
    /// Topic name.
    pub topic: String,
    /// 0, 1 or 2.
    pub qos: u8,
    /// RETAIN flag.
    pub retain: bool,
    /// With an empty payload: clears the retained message.
    pub clears: bool,
    /// Length of the payload, at least enough for the number.
    pub size: usize,
    /// With a Content Type.
    pub typed: bool,
    /// Expires after so many milliseconds.
    pub expires_in_ms: Option<u64>,
}

/// Remembers everything.
#[derive(Debug, Default)]
pub struct Ledger {
    messages: Vec<Message>,
    sessions: Vec<Session>,
    retained: BTreeMap<String, Vec<MessageId>>,
    violations: Vec<Violation>,
    places: u64,
    deliveries: u64,
    /// Queues are so short that messages are dropped: a retry may be the first that arrives.
    pub short_queues: bool,
    /// Messages that may be missing because a queue was full.
    pub forgiven: u64,
}

/// The client whose session never ends and that hears of every will.
pub const OBSERVER: &str = "observer";

/// A delivery may still be on its way for so long after its message has expired.
const STALE_SLACK_MS: u64 = 8_000;

impl Ledger {
    /// Records a broken promise.
    pub fn blame(&mut self, class: Class, text: String) {
        // Later ones of a kind usually follow from the first.
        if self.violations.iter().filter(|v| v.class == class).count() < 4 {
            self.violations.push(Violation { class, text });
        }
    }

    /// What was broken so far.
    pub fn violations(&self) -> &[Violation] {
        &self.violations
    }

    /// How many messages were sent, and how many deliveries arrived.
    pub fn totals(&self) -> (usize, u64) {
        (self.messages.len(), self.deliveries)
    }

    /// The message with this number.
    pub fn message(&self, id: MessageId) -> &Message {
        &self.messages[id.0]
    }

    // ---- Sessions ----------------------------------------------------------------------------------------------

    /// A session begins.
    pub fn begin(&mut self, client: &str, persistent: bool) -> SessionId {
        self.sessions.push(Session {
            client: client.to_owned(),
            persistent,
            ended: false,
            lingers: false,
            subscriptions: vec![],
            got: BTreeMap::new(),
            at_qos_0: BTreeMap::new(),
            last: HashMap::new(),
        });
        SessionId(self.sessions.len() - 1)
    }

    /// It ends; nothing more is promised to it.
    pub fn end(&mut self, id: SessionId) {
        self.sessions[id.0].ended = true;
        if self.sessions[id.0].subscriptions.iter().any(|s| is_shared(&s.filter)) {
            // What this member had taken for its group goes with it, and what it takes until the broker knows.
            self.sessions[id.0].lingers = true;
            self.messages.iter_mut().for_each(|m| m.group = false);
        }
    }

    /// The broker has answered a CONNECT of this client: it knows which sessions are over.
    pub fn settled(&mut self, client: &str) {
        self.sessions.iter_mut().filter(|s| s.client == client).for_each(|s| s.lingers = false);
    }

    /// A SUBSCRIBE leaves the client.
    pub fn subscribing(&mut self, id: SessionId, filter: &str, qos: u8) {
        self.unsettle(id, filter);
        let fresh = Subscription { filter: filter.to_owned(), qos, confirmed: false, stable: false, gone_ms: None };
        self.sessions[id.0].subscriptions.push(fresh);
    }

    /// Its SUBACK arrives.
    pub fn subscribed(&mut self, id: SessionId, filter: &str, now_ms: u64) {
        let list = &mut self.sessions[id.0].subscriptions;
        let Some(at) = list.iter().rposition(|s| s.filter == filter && s.gone_ms.is_none()) else { return };
        for (place, s) in list.iter_mut().enumerate().filter(|(_, s)| s.filter == filter) {
            if place == at {
                (s.confirmed, s.stable) = (true, true);
            } else {
                s.gone_ms.get_or_insert(now_ms);
            }
        }
    }

    /// An UNSUBSCRIBE leaves the client.
    pub fn unsubscribing(&mut self, id: SessionId, filter: &str) {
        self.unsettle(id, filter);
    }

    /// Its UNSUBACK arrives.
    pub fn unsubscribed(&mut self, id: SessionId, filter: &str, now_ms: u64) {
        for s in self.sessions[id.0].subscriptions.iter_mut().filter(|s| s.filter == filter) {
            s.gone_ms.get_or_insert(now_ms);
        }
    }

    /// Until the answer comes nobody knows which messages still count.
    fn unsettle(&mut self, id: SessionId, filter: &str) {
        for s in self.sessions[id.0].subscriptions.iter_mut().filter(|s| s.filter == filter) {
            s.stable = false;
        }
        for m in self.messages.iter_mut().filter(|m| !m.accepted && matches(filter, &m.topic)) {
            if is_shared(filter) {
                m.group = false;
            } else {
                m.must.remove(&id);
            }
        }
    }

    /// Filters and QoS that a session surely has, and whether there are any it may have besides.
    pub fn filters(&self, id: SessionId) -> (BTreeMap<&str, u8>, bool) {
        let live = || self.sessions[id.0].subscriptions.iter().filter(|s| s.gone_ms.is_none());
        (live().map(|s| (s.filter.as_str(), s.qos)).collect(), live().any(|s| !s.stable))
    }

    // ---- Messages ----------------------------------------------------------------------------------------------

    /// A PUBLISH leaves its client for the first time.
    pub fn publish(&mut self, publisher: usize, p: Publication, now_ms: u64) -> MessageId {
        let id = MessageId(self.messages.len());
        let mut payload = vec![];
        if !p.clears {
            payload = format!("#{};", id.0).into_bytes();
            payload.resize(payload.len().max(p.size), b'a' + u8::try_from(id.0 % 26).expect("less than 26"));
        }
        let must = if p.qos == 0 || p.clears { BTreeSet::new() } else { self.entitled(&p.topic) };
        let group = p.qos > 0 && !p.clears && self.has_group(&p.topic);
        self.places += 1;
        if p.retain {
            self.retained.entry(p.topic.clone()).or_default().push(id);
        }
        self.messages.push(Message {
            publisher,
            content_type: p.typed.then(|| format!("type/{}", id.0)),
            topic: p.topic,
            qos: p.qos,
            retain: p.retain,
            sent_ms: now_ms,
            expires_ms: p.expires_in_ms.map(|ms| now_ms + ms),
            payload,
            place: self.places,
            sends: 1,
            settled: false,
            accepted: false,
            must,
            group,
            fate: None,
        });
        id
    }

    /// The sessions that a message to `topic` surely reaches at QoS 1 or 2.
    fn entitled(&self, topic: &str) -> BTreeSet<SessionId> {
        let of =
            |s: &Session| !s.ended && s.subscriptions.iter().any(|x| !is_shared(&x.filter) && x.surely_gets(topic));
        (0..self.sessions.len()).filter(|&at| of(&self.sessions[at])).map(SessionId).collect()
    }

    /// Whether a group with a member that stays surely gets messages to `topic`.
    fn has_group(&self, topic: &str) -> bool {
        let member = |s: &Session| s.subscriptions.iter().any(|x| is_shared(&x.filter) && x.surely_gets(topic));
        self.sessions.iter().any(|s| !s.ended && s.persistent && member(s)) && !self.sessions.iter().any(|s| s.lingers)
    }

    /// It is sent again.
    pub fn again(&mut self, id: MessageId) {
        self.messages[id.0].sends += 1;
    }

    /// PUBACK or PUBREC without error: the broker answers for it from now on.
    pub fn accepted(&mut self, id: MessageId, code: u8) {
        let m = &mut self.messages[id.0];
        if m.accepted {
            return;
        }
        m.accepted = true;
        m.settled = true;
        // The end of a session that is not persistent may have been seen by the broker before the client sees it.
        let surely = |s: &SessionId| self.sessions[s.0].persistent && !self.sessions[s.0].ended;
        if code == 0x10 && (m.group || m.must.iter().any(surely)) {
            let text = format!("message {id:?} on {} was answered 'no matching subscribers': {:?}", m.topic, m.must);
            self.blame(Class::Lost, text);
        }
        let m = &self.messages[id.0];
        if m.retain
            && let Some(list) = self.retained.get_mut(&m.topic)
            && let Some(at) = list.iter().position(|x| *x == id)
        {
            list.drain(..at);
        }
    }

    /// PUBACK or PUBREC with an error.
    pub fn refused(&mut self, id: MessageId) {
        let m = &mut self.messages[id.0];
        m.settled = true;
        m.must.clear();
        m.group = false;
        if m.retain
            && let Some(list) = self.retained.get_mut(&m.topic)
        {
            list.retain(|x| *x != id);
        }
    }

    /// Its publisher will not ask again: it may have arrived, or not.
    pub fn abandoned(&mut self, id: MessageId) {
        let m = &mut self.messages[id.0];
        m.settled = true;
        if !m.accepted {
            m.must.clear();
            m.group = false;
        }
    }

    /// The message is a will, and this is what may become of it; a decision stands.
    pub fn decide(&mut self, id: MessageId, fate: Fate) {
        let known = self.messages[id.0].fate;
        if known.is_none_or(|f| f == Fate::Open) {
            self.messages[id.0].fate = Some(fate);
            if fate == Fate::Due {
                // Others may change their subscriptions before the will is published; the observer does not.
                let mut must = self.entitled(&self.messages[id.0].topic);
                must.retain(|s| self.sessions[s.0].client == OBSERVER);
                self.messages[id.0].must = must;
                self.messages[id.0].accepted = true;
            }
        }
    }

    /// What was decided of a will.
    pub fn fate(&self, id: MessageId) -> Option<Fate> {
        self.messages[id.0].fate
    }

    /// Reopens a decision that a crash put in doubt.
    pub fn doubt(&mut self, id: MessageId) {
        self.messages[id.0].fate = Some(Fate::Open);
        self.messages[id.0].must.clear();
    }

    // ---- Deliveries --------------------------------------------------------------------------------------------

    /// A client's application gets a message.
    pub fn delivered(&mut self, session: SessionId, d: &Delivery<'_>, now_ms: u64) {
        self.deliveries += 1;
        let client = self.sessions[session.0].client.clone();
        if d.payload.is_empty() {
            return;
        }
        let Some(id) = number(d.payload).filter(|id| id.0 < self.messages.len()) else {
            return self.blame(Class::Changed, format!("{client} got a payload nobody sent on {}", d.topic));
        };
        let m = &self.messages[id.0];
        if m.topic != d.topic || m.payload != d.payload {
            let text = format!("{client} got message {id:?} changed: topic {:?}, {} bytes", d.topic, d.payload.len());
            return self.blame(Class::Changed, text);
        }
        if let Some(content_type) = d.content_type
            && content_type != m.content_type.as_deref()
        {
            let text = format!(
                "{client} got message {id:?} with content type {content_type:?} instead of {:?}",
                m.content_type
            );
            return self.blame(Class::Changed, text);
        }
        self.check_invited(session, id, d);
        self.check_age(session, id, d, now_ms);
        if !d.retain {
            self.check_once(session, id, d);
            self.check_order(session, id, d);
        }
    }

    /// Only what was subscribed to [MQTT5-3.3.4-1], at a QoS that follows from it [MQTT5-3.8.4-8].
    fn check_invited(&mut self, session: SessionId, id: MessageId, d: &Delivery<'_>) {
        let (s, m) = (&self.sessions[session.0], &self.messages[id.0]);
        let mut fitting = s
            .subscriptions
            .iter()
            .filter(|x| {
                matches(&x.filter, &m.topic) && x.gone_ms.is_none_or(|gone| !m.settled || gone >= m.sent_ms || m.retain)
            })
            .peekable();
        if fitting.peek().is_none() {
            let text = format!("{} got message {id:?} on {} without a subscription", s.client, m.topic);
            return self.blame(Class::Uninvited, text);
        }
        if !fitting.any(|x| d.qos == m.qos.min(x.qos)) {
            let text =
                format!("{} got message {id:?} on {} at QoS {}, published at {}", s.client, m.topic, d.qos, m.qos);
            self.blame(Class::Uninvited, text);
        }
        let m = &self.messages[id.0];
        if m.fate == Some(Fate::Void) {
            let text =
                format!("{} got will {id:?} on {} though it was taken back", self.sessions[session.0].client, m.topic);
            self.blame(Class::Will, text);
        }
        if d.retain && !self.messages[id.0].retain {
            self.blame(Class::Changed, format!("message {id:?} came as retained and was not"));
        }
    }

    fn check_age(&mut self, session: SessionId, id: MessageId, d: &Delivery<'_>, now_ms: u64) {
        let m = &self.messages[id.0];
        let known = self.sessions[session.0].got.contains_key(&id);
        if let Some(expires_ms) = m.expires_ms
            && !known
            && !d.dup
            && now_ms > expires_ms + STALE_SLACK_MS
        {
            let text = format!("message {id:?} arrived {} ms after its expiry", now_ms - expires_ms);
            self.blame(Class::Stale, text);
        }
    }

    fn check_once(&mut self, session: SessionId, id: MessageId, d: &Delivery<'_>) {
        let s = &mut self.sessions[session.0];
        let m = &self.messages[id.0];
        let count = s.got.entry(id).or_insert(0);
        *count += 1;
        let only_qos_0_before = s.at_qos_0.get(&id).is_some_and(|n| n + 1 >= *count);
        if d.qos == 0 {
            *s.at_qos_0.entry(id).or_insert(0) += 1;
        }
        // Through a QoS 1 step a message may come again: from a publisher that asked again, or marked as a retry.
        let excused = match (m.qos, d.qos) {
            (2, 2) => false,
            (2, 1) => d.dup,
            (1, 1) => d.dup || m.sends > 1,
            _ => false,
        };
        // At QoS 0 it goes out before it is on disk; if the power fails in between, the publisher asks again.
        let excused = excused || (m.sends > 1 && (d.qos == 0 || only_qos_0_before));
        if *count > 1 && !excused {
            let text = format!(
                "{} got message {id:?} on {} {count} times (published at QoS {}, sent {} times; delivered at QoS {}, dup {})",
                s.client, m.topic, m.qos, m.sends, d.qos, d.dup
            );
            self.blame(Class::Duplicated, text);
        }
        self.check_one_member(session, id);
    }

    /// A QoS 2 message goes to one member of a shared subscription [MQTT5-4.8.2-4].
    fn check_one_member(&mut self, session: SessionId, id: MessageId) {
        let m = &self.messages[id.0];
        let shares = |s: &Session| {
            let mut fitting = s.subscriptions.iter().filter(|x| matches(&x.filter, &m.topic)).peekable();
            fitting.peek().is_some() && fitting.all(|x| is_shared(&x.filter) && x.qos > 0)
        };
        let here = &self.sessions[session.0];
        if m.qos < 2 || !shares(here) {
            return;
        }
        let other =
            self.sessions.iter().enumerate().find(|(at, s)| *at != session.0 && s.got.contains_key(&id) && shares(s));
        if let Some((_, other)) = other {
            let text = format!(
                "message {id:?} on {} went to two members of a group: {} and {}",
                m.topic, other.client, here.client
            );
            self.blame(Class::Duplicated, text);
        }
    }

    /// Messages of one publisher to one topic at one QoS come in order [MQTT5-4.6.0-5] [MQTT3-4.6.0-5].
    fn check_order(&mut self, session: SessionId, id: MessageId, d: &Delivery<'_>) {
        let m = &self.messages[id.0];
        let s = &mut self.sessions[session.0];
        if m.fate.is_some() || s.got.get(&id).is_some_and(|n| *n > 1) {
            return;
        }
        // A subscription may have changed its QoS in between, and only messages of one QoS are ordered.
        let key = (m.publisher, m.topic.clone(), m.qos * 4 + d.qos);
        let (place, before) = s.last.get(&key).copied().unwrap_or((0, id));
        // Sent again by its publisher, a message may reach a subscriber that the first one did not: it came later, its
        // queue was full, or the first copy expired on the way.
        let came_later = m.qos == 1 && !m.must.contains(&session);
        let late = m.sends > 1 && (came_later || self.short_queues || m.expires_ms.is_some());
        if m.place < place && !late {
            let text = format!("{} got message {id:?} on {} after {before:?} (QoS {})", s.client, m.topic, d.qos);
            return self.blame(Class::Reordered, text);
        }
        if m.place > place {
            s.last.insert(key, (m.place, id));
        }
    }

    // ---- The end -----------------------------------------------------------------------------------------------

    /// Values that the retained message of each topic may have now; `None`: there may be none.
    pub fn retained(&self) -> BTreeMap<&str, BTreeSet<Option<MessageId>>> {
        let mut all: BTreeMap<&str, BTreeSet<Option<MessageId>>> = BTreeMap::new();
        for (topic, list) in &self.retained {
            let possible = all.entry(topic).or_default();
            let value = |id: &MessageId| (!self.messages[id.0].payload.is_empty()).then_some(*id);
            possible.extend(list.iter().map(value));
            // Before the first that was acknowledged there was nothing.
            if !list.first().is_some_and(|id| self.messages[id.0].accepted) {
                possible.insert(None);
            }
        }
        all
    }

    /// Checks what the broker keeps against [`Ledger::retained`].
    pub fn check_retained(&mut self, found: &BTreeMap<String, Vec<u8>>, now_ms: u64) {
        let mut wrong = vec![];
        for (topic, possible) in self.retained() {
            let value = found.get(topic).and_then(|payload| number(payload));
            let expired = |id: &MessageId| self.messages[id.0].expires_ms.is_some_and(|at| at <= now_ms + 1_000);
            let gone = value.is_none() && possible.iter().flatten().any(expired);
            if !possible.contains(&value) && !gone {
                wrong.push(format!("{topic} keeps {value:?}, which should be one of {possible:?}"));
            }
        }
        for topic in found.keys().filter(|topic| !self.retained.contains_key(*topic)) {
            wrong.push(format!("{topic} keeps a message nobody sent"));
        }
        for text in wrong {
            self.blame(Class::Retained, text);
        }
    }

    /// Deliveries that were promised and have not arrived.
    fn owed(&self) -> impl Iterator<Item = (usize, &Message, &str)> {
        let promised = self.messages.iter().enumerate().filter(|(_, m)| m.accepted && m.expires_ms.is_none());
        promised.flat_map(|(at, m)| {
            let sessions = m.must.iter().map(|s| &self.sessions[s.0]);
            let late = sessions.filter(move |s| !s.ended && !s.got.contains_key(&MessageId(at)));
            let nobody = m.group && !self.sessions.iter().any(|s| s.got.contains_key(&MessageId(at)));
            let group = nobody.then_some("any member of its group");
            late.map(|s| s.client.as_str()).chain(group).map(move |who| (at, m, who))
        })
    }

    /// How many promised deliveries have not arrived yet.
    pub fn missing(&self) -> usize {
        self.owed().count()
    }

    /// Everything has come to rest: is anything missing?
    pub fn check_complete(&mut self) {
        let mut missing = vec![];
        for (at, m, who) in self.owed() {
            let class = if m.fate.is_some() { Class::Will } else { Class::Lost };
            let what = if m.fate.is_some() { "will" } else { "acknowledged message" };
            let (qos, topic, sent_ms) = (m.qos, &m.topic, m.sent_ms);
            missing
                .push((class, format!("{what} {at} (QoS {qos} on {topic}, sent at {sent_ms} ms) never reached {who}")));
        }
        if missing.len() as u64 > self.forgiven {
            for (class, text) in missing {
                self.blame(class, text);
            }
        }
    }
}

impl Subscription {
    /// Whether a message to `topic` surely reaches it at QoS 1 or 2.
    fn surely_gets(&self, topic: &str) -> bool {
        self.gone_ms.is_none() && self.stable && self.confirmed && self.qos > 0 && matches(&self.filter, topic)
    }
}

fn is_shared(filter: &str) -> bool {
    filter.starts_with("$share/")
}

/// Whether a filter, shared or not, matches a topic name.
fn matches(filter: &str, name: &str) -> bool {
    let plain = filter.strip_prefix("$share/").and_then(|rest| rest.split_once('/')).map_or(filter, |(_, plain)| plain);
    topic::matches(plain, name)
}

/// The number a payload carries.
pub fn number(payload: &[u8]) -> Option<MessageId> {
    let digits = payload.strip_prefix(b"#")?.split(|b| *b == b';').next()?;
    std::str::from_utf8(digits).ok()?.parse().ok().map(MessageId)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to(topic: &str, qos: u8) -> Publication {
        Publication { topic: topic.into(), qos, size: 16, ..Publication::default() }
    }

    fn arrives(ledger: &mut Ledger, session: SessionId, id: MessageId, qos: u8, dup: bool) {
        let m = ledger.message(id).clone();
        let d = Delivery { topic: &m.topic, payload: m.payload(), qos, dup, retain: false, content_type: None };
        ledger.delivered(session, &d, 0);
    }

    fn check(expect: &[Class], run: impl FnOnce(&mut Ledger, SessionId)) {
        let mut ledger = Ledger::default();
        let session = ledger.begin("observer", true);
        ledger.subscribing(session, "a/#", 2);
        ledger.subscribed(session, "a/#", 1);
        run(&mut ledger, session);
        ledger.check_complete();
        let found: Vec<Class> = ledger.violations().iter().map(|v| v.class).collect();
        assert_eq!(found, expect, "{:?}", ledger.violations());
    }

    #[test]
    fn each_kind_of_broken_promise_is_seen() {
        check(&[], |l, s| {
            let id = l.publish(0, to("a/b", 2), 5);
            l.accepted(id, 0);
            arrives(l, s, id, 2, false);
        });
        check(&[Class::Lost], |l, _| {
            let id = l.publish(0, to("a/b", 1), 5);
            l.accepted(id, 0);
        });
        check(&[Class::Duplicated], |l, s| {
            let id = l.publish(0, to("a/b", 2), 5);
            (0..2).for_each(|_| arrives(l, s, id, 2, false));
        });
        check(&[Class::Reordered], |l, s| {
            let (one, two) = (l.publish(0, to("a/b", 1), 5), l.publish(0, to("a/b", 1), 5));
            arrives(l, s, two, 1, false);
            arrives(l, s, one, 1, false);
        });
        check(&[Class::Uninvited], |l, s| {
            let id = l.publish(0, to("b", 1), 5);
            arrives(l, s, id, 1, false);
        });
        check(&[Class::Uninvited], |l, s| {
            let id = l.publish(0, to("a/b", 1), 5);
            arrives(l, s, id, 2, false);
        });
        check(&[Class::Will], |l, _| {
            let id = l.publish(0, to("a/w", 1), 5);
            l.decide(id, Fate::Due);
        });
    }

    #[test]
    fn what_nobody_can_know_is_not_blamed() {
        // Neither acknowledged nor refused.
        check(&[], |l, _| {
            l.publish(0, to("a/b", 1), 5);
        });
        // The subscription was being given up while the message was on its way.
        check(&[], |l, s| {
            let id = l.publish(0, to("a/b", 1), 5);
            l.unsubscribing(s, "a/#");
            l.accepted(id, 0);
        });
        // The publisher asked again, as QoS 1 allows.
        check(&[], |l, s| {
            let id = l.publish(0, to("a/b", 1), 5);
            l.again(id);
            l.accepted(id, 0);
            (0..2).for_each(|_| arrives(l, s, id, 1, false));
        });
    }

    #[test]
    fn a_retained_value_is_the_last_acknowledged_one_or_a_later_one() {
        let mut ledger = Ledger::default();
        let keep = |topic: &str| Publication { retain: true, ..to(topic, 1) };
        let one = ledger.publish(0, keep("r"), 0);
        assert_eq!(ledger.retained()["r"], BTreeSet::from([None, Some(one)]));
        ledger.accepted(one, 0);
        let two = ledger.publish(0, keep("r"), 0);
        assert_eq!(ledger.retained()["r"], BTreeSet::from([Some(one), Some(two)]));
        ledger.accepted(two, 0);
        assert_eq!(ledger.retained()["r"], BTreeSet::from([Some(two)]));
    }
}
