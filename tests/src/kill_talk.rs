//! Conversations in the kill -9 loop: who says something with a client id, who is sent it, and a judge who reads the log.
//!
//! Two accounts write to a third and to a group, at QoS 1 and 2, in both versions, several messages on their way at a
//! time; what was not acknowledged when the broker died is said again with the same id. Two accounts are pushed what is
//! said, acknowledge it and say what they have read. After each start the judge compares the log of every conversation
//! with what was promised.

use crate::checkers::Class;
use crate::im::{House, PASSWORD};
use crate::link::{Ended, Link};
use crate::raw::{Connect, Packet, PubAck, PubComp, PubRec, PubRel, Publish, V5, V311, Version, frame, prop};
use crate::server::Broker;
use crate::world::Rng;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Settings of the broker: what is measured here is not how fast somebody may speak.
pub(crate) const SETTINGS: [&str; 4] =
    ["--set", "limits.im_account_rate_max=0", "--set", "limits.im_conversation_rate_max=0"];

const GROUP: &str = "g-kill";
/// Those who speak: account, version, QoS.
const SPEAKERS: [(&str, Version, u8); 2] = [("ann", V5, 1), ("ben", V311, 2)];
/// Those who hear: account, version, and the conversations it has, by the address it knows them by.
const HEARERS: [(&str, Version, &[&str]); 2] = [("cleo", V5, &["ann", "ben", GROUP]), ("dora", V311, &[GROUP])];
/// Messages one speaker keeps on their way.
const WINDOW: usize = 8;
/// Messages that are said between two judgements at most: the judge reads them all.
const ROUND_MESSAGES: u64 = 2_000;
const PATIENCE: Duration = Duration::from_secs(20);

/// A conversation as its judge knows it: a hearer, and the address.
type Room = (&'static str, &'static str);

/// What was said: conversation and client id, and the seq that the answer named, if one did.
type Said = BTreeMap<(Room, String), Option<u64>>;

/// What a hearer was sent, by address and seq: client ids (empty: the broker's own message).
type Heard = BTreeMap<&'static str, BTreeMap<u64, String>>;

/// What the threads share.
pub(crate) struct Talk {
    addr: Mutex<SocketAddr>,
    /// Speakers start nothing new.
    calm: AtomicBool,
    over: AtomicBool,
    said: AtomicU64,
    /// Nothing new is said beyond so many messages, until the judge has read.
    most: AtomicU64,
    acknowledged: Mutex<Said>,
    heard: [Mutex<Heard>; HEARERS.len()],
    /// Read marks that were acknowledged, by room.
    read: Mutex<BTreeMap<Room, u64>>,
    /// Hearers that have their subscription.
    seated: AtomicUsize,
    /// Speakers with nothing unanswered, when it is calm.
    silent: AtomicUsize,
    /// What the judge has read of each log.
    logs: Mutex<BTreeMap<Room, BTreeMap<u64, String>>>,
    /// Marks that the judge saw: received, read.
    marks: Mutex<BTreeMap<Room, (u64, u64)>>,
    blames: Mutex<Vec<(Class, String)>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn connect(version: Version, account: &str, client_id: &str) -> Connect {
    Connect::new(version, client_id).username(account).password(PASSWORD)
}

impl Talk {
    /// Makes the accounts, and lets them write to each other.
    pub(crate) fn begin(broker: Broker) -> (Self, Broker) {
        let house = House { broker };
        for name in ["ann", "ben", "cleo", "dora"] {
            house.broker.add_account(name, PASSWORD);
        }
        for (one, other) in [("ann", "ben"), ("ann", "cleo"), ("ann", "dora"), ("ben", "cleo")] {
            house.befriend(one, other);
        }
        let mut ann = house.client(V5, "ann", "ann-founds");
        let members = r#"{"op":"create","members":["ben","cleo","dora"]}"#;
        assert_eq!(ann.say(1, "im/v1/me/group/g-kill", members), 0);
        ann.disconnect();
        let talk = Self {
            addr: Mutex::new(house.broker.addr()),
            calm: AtomicBool::new(false),
            over: AtomicBool::new(false),
            said: AtomicU64::new(0),
            most: AtomicU64::new(ROUND_MESSAGES),
            acknowledged: Mutex::default(),
            heard: Default::default(),
            read: Mutex::default(),
            seated: AtomicUsize::new(0),
            silent: AtomicUsize::new(0),
            logs: Mutex::default(),
            marks: Mutex::default(),
            blames: Mutex::default(),
        };
        (talk, house.broker)
    }

    /// Everybody who speaks and hears; each ends when it is over.
    pub(crate) fn spawn<'a>(&'a self, scope: &'a std::thread::Scope<'a, '_>) {
        for number in 0..SPEAKERS.len() {
            scope.spawn(move || self.speak(number));
        }
        for number in 0..HEARERS.len() {
            scope.spawn(move || self.hear(number));
        }
    }

    pub(crate) fn moved(&self, addr: SocketAddr) {
        *lock(&self.addr) = addr;
    }

    /// The last seq that each hearer has of each conversation.
    pub(crate) fn places(&self) -> String {
        let logs = lock(&self.logs);
        let mut text = String::new();
        for (number, (account, _, addresses)) in HEARERS.into_iter().enumerate() {
            let heard = lock(&self.heard[number]);
            for a in addresses {
                let h = heard.get(a).and_then(|l| l.last_key_value()).map_or(0, |(s, _)| *s);
                let l = logs.get(&(account, *a)).and_then(|l| l.last_key_value()).map_or(0, |(s, _)| *s);
                text.push_str(&format!(" {account}/{a} {h} of {l};"));
            }
        }
        text
    }

    /// Messages that were acknowledged.
    pub(crate) fn acknowledged(&self) -> usize {
        lock(&self.acknowledged).len()
    }

    pub(crate) fn is_seated(&self) -> bool {
        self.seated.load(Ordering::Relaxed) == HEARERS.len()
    }

    pub(crate) fn calm_down(&self) {
        self.calm.store(true, Ordering::Relaxed);
    }

    /// Whether everything that was said was acknowledged.
    pub(crate) fn is_silent(&self) -> bool {
        self.silent.load(Ordering::Relaxed) == SPEAKERS.len()
    }

    pub(crate) fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    /// Promises that were found broken since it was last asked.
    pub(crate) fn blames(&self) -> Vec<(Class, String)> {
        std::mem::take(&mut lock(&self.blames))
    }

    fn blame(&self, class: Class, text: String) {
        lock(&self.blames).push((class, text));
    }

    // ---- Speaking --------------------------------------------------------------------------------------------

    fn speak(&self, number: usize) {
        let (account, version, qos) = SPEAKERS[number];
        // What is not acknowledged: client id and room.
        let mut open: BTreeMap<u64, Room> = BTreeMap::new();
        let (mut next, mut chance, mut marks) = (1, Rng::new(number as u64 + 77), BTreeMap::new());
        let mut is_silent = false;
        while !self.over.load(Ordering::Relaxed) {
            let addr = *lock(&self.addr);
            let opened = Link::open(addr, &connect(version, account, &format!("{account}-mouth")), PATIENCE);
            let Ok((mut link, _)) = opened else {
                std::thread::park_timeout(Duration::from_millis(20));
                continue;
            };
            let mut flights: BTreeMap<u16, u64> = BTreeMap::new();
            let mut last_id = 1;
            let subscribed = link.send(&subscribe(version, "im/v1/me/in/+/receipt"));
            let mut outcome = subscribed;
            for number in open.keys().copied().collect::<Vec<_>>() {
                last_id += 1;
                flights.insert(last_id, number);
                outcome = outcome.and_then(|()| self.say(&mut link, account, qos, last_id, number, open[&number]));
            }
            while outcome.is_ok() && !self.over.load(Ordering::Relaxed) {
                let calm = self.calm.load(Ordering::Relaxed);
                if calm && open.is_empty() && !is_silent {
                    is_silent = true;
                    self.silent.fetch_add(1, Ordering::Relaxed);
                }
                let may_speak = || self.said.load(Ordering::Relaxed) < self.most.load(Ordering::Relaxed);
                while outcome.is_ok() && !calm && open.len() < WINDOW && self.is_seated() && may_speak() {
                    let room = if chance.chance(2) { ("cleo", account) } else { ("dora", GROUP) };
                    open.insert(next, room);
                    last_id = last_id % 60_000 + 1;
                    flights.insert(last_id, next);
                    outcome = self.say(&mut link, account, qos, last_id, next, room);
                    next += 1;
                }
                outcome = outcome.and_then(|()| match link.packet(Duration::from_millis(50))? {
                    Some(packet) => self.answered(&mut link, account, packet, &mut flights, &mut open, &mut marks),
                    None => Ok(()),
                });
            }
        }
    }

    fn say(&self, link: &mut Link, account: &str, qos: u8, id: u16, number: u64, room: Room) -> Result<(), Ended> {
        let to = if room.1 == GROUP { GROUP } else { room.0 };
        let payload = format!(r#"{{"text":"{account} says {number}","id":"{account}-{number}"}}"#);
        self.said.fetch_add(1, Ordering::Relaxed);
        link.send(&Publish::new(&format!("im/v1/to/{to}/msg"), payload).qos(qos, id).bytes(link.version()))
    }

    fn answered(
        &self,
        link: &mut Link,
        account: &str,
        packet: Packet,
        flights: &mut BTreeMap<u16, u64>,
        open: &mut BTreeMap<u64, Room>,
        marks: &mut BTreeMap<String, (u64, u64)>,
    ) -> Result<(), Ended> {
        match packet {
            Packet::Ack { kind: kind @ (PubAck | PubRec), id, code, props } => {
                if code >= 0x80 {
                    self.blame(Class::Protocol, format!("{account} was refused: {code:#04x} {props:?}"));
                }
                if let Some(number) = flights.remove(&id)
                    && let Some(room) = open.remove(&number)
                {
                    let seq = props.users().iter().find(|(key, _)| *key == "im-seq").map(|(_, seq)| seq.parse().ok());
                    let mut acknowledged = lock(&self.acknowledged);
                    acknowledged.insert((room, format!("{account}-{number}")), seq.flatten());
                }
                if kind == PubRec {
                    link.send(&frame(PubRel as u8, id.to_be_bytes()))?;
                }
            }
            Packet::Publish(receipt) => {
                let mark: Value = serde_json::from_slice(&receipt.payload).unwrap_or_default();
                let now = (mark["recv"].as_u64().unwrap_or(0), mark["read"].as_u64().unwrap_or(0));
                // Those of groups count, and what they count may be another message.
                if !receipt.topic.contains(GROUP) {
                    let before = marks.entry(receipt.topic.clone()).or_insert(now);
                    if now.0 < before.0 || now.1 < before.1 {
                        let text = format!("{account}: marks went back from {before:?} to {now:?}: {}", receipt.topic);
                        self.blame(Class::Reordered, text);
                    }
                    *before = now;
                }
                link.send(&frame(PubAck as u8, receipt.id.to_be_bytes()))?;
            }
            Packet::Ack { kind: PubComp, .. } | Packet::SubAck { .. } => {}
            other => self.blame(Class::Protocol, format!("{account} got {other:?}")),
        }
        Ok(())
    }

    // ---- Hearing ---------------------------------------------------------------------------------------------

    fn hear(&self, number: usize) {
        let (account, version, addresses) = HEARERS[number];
        let mut is_seated = false;
        while !self.over.load(Ordering::Relaxed) {
            let addr = *lock(&self.addr);
            let opened = Link::open(addr, &connect(version, account, &format!("{account}-ear")), PATIENCE);
            let Ok((mut link, _)) = opened else {
                std::thread::park_timeout(Duration::from_millis(20));
                continue;
            };
            // Read marks on their way, by packet identifier.
            let mut marks: BTreeMap<u16, (&'static str, u64)> = BTreeMap::new();
            let mut next_mark = 2;
            let mut outcome = link.send(&subscribe(version, "im/v1/me/in/#"));
            while outcome.is_ok() && !self.over.load(Ordering::Relaxed) {
                outcome = link.packet(Duration::from_millis(50)).and_then(|packet| {
                    match packet {
                        None => {}
                        Some(Packet::SubAck { .. }) if is_seated => {}
                        Some(Packet::SubAck { .. }) => {
                            is_seated = true;
                            self.seated.fetch_add(1, Ordering::Relaxed);
                        }
                        Some(Packet::Ack { kind: PubAck, id, .. }) => {
                            if let Some((address, seq)) = marks.remove(&id) {
                                let mut read = lock(&self.read);
                                let mark = read.entry((account, address)).or_default();
                                *mark = (*mark).max(seq);
                            }
                        }
                        Some(Packet::Publish(p)) => {
                            let heard = self.take(number, addresses, &p);
                            link.send(&frame(PubAck as u8, p.id.to_be_bytes()))?;
                            if let Some((address, seq)) = heard.filter(|(_, seq)| seq % 7 == 0) {
                                next_mark = next_mark % 60_000 + 1;
                                marks.insert(next_mark, (address, seq));
                                let topic = format!("im/v1/to/{address}/receipt");
                                let mark = Publish::new(&topic, format!(r#"{{"read":{seq}}}"#)).qos(1, next_mark);
                                link.send(&mark.bytes(version))?;
                            }
                        }
                        Some(other) => self.blame(Class::Protocol, format!("{account} got {other:?}")),
                    }
                    Ok(())
                });
            }
        }
    }

    /// Takes down what a hearer was sent. It knows every message of its conversations from the first on.
    fn take(&self, number: usize, addresses: &[&'static str], p: &Publish) -> Option<(&'static str, u64)> {
        let account = HEARERS[number].0;
        let mut levels = p.topic.strip_prefix("im/v1/me/in/")?.split('/');
        let (address, word) = (levels.next()?, levels.next()?);
        if word == "gap" {
            self.blame(Class::Lost, format!("{account} has a gap: {}", p.text()));
        }
        let address = *addresses.iter().find(|known| **known == address)?;
        if word != "msg" {
            return None;
        }
        let message: Value = serde_json::from_slice(&p.payload).unwrap_or_default();
        let (seq, id) = (message["seq"].as_u64()?, message["id"].as_str().unwrap_or_default().to_owned());
        let mut heard = lock(&self.heard[number]);
        let log = heard.entry(address).or_default();
        match log.get(&seq) {
            Some(before) if *before != id => {
                let text = format!("{account}: {address} {seq} was {before:?} and is {id:?}");
                self.blame(Class::Changed, text);
            }
            Some(_) => {}
            None => {
                if let Some((last, _)) = log.last_key_value()
                    && last + 1 != seq
                {
                    self.blame(Class::Lost, format!("{account}: after {last} of {address} came {seq}"));
                }
                log.insert(seq, id);
            }
        }
        Some((address, seq))
    }

    // ---- Judging ---------------------------------------------------------------------------------------------

    /// Compares the logs with what was promised; false when the broker could not be asked.
    pub(crate) fn judge(&self) -> bool {
        let rooms =
            HEARERS.into_iter().flat_map(|(account, _, all)| all.iter().map(move |address| (account, *address)));
        let is_told = rooms.into_iter().all(|room| self.judge_room(room).is_ok());
        self.most.store(self.said.load(Ordering::Relaxed) + ROUND_MESSAGES, Ordering::Relaxed);
        is_told
    }

    fn judge_room(&self, room: Room) -> Result<(), Ended> {
        let (account, address) = room;
        // Before the log is read: all of this was promised.
        let promised: Vec<(String, Option<u64>)> = lock(&self.acknowledged)
            .iter()
            .filter(|((of, _), _)| of.1 == address && (address == GROUP || of.0 == account))
            .map(|((_, id), seq)| (id.clone(), *seq))
            .collect();
        let read = lock(&self.read).get(&room).copied().unwrap_or(0);
        let addr = *lock(&self.addr);
        let (mut link, _) = Link::open(addr, &connect(V5, account, &format!("{account}-judge")), PATIENCE)?;
        for topic in ["im/v1/me/history/res", "im/v1/me/recount/res", "im/v1/me/conv/res"] {
            link.send(&subscribe(V5, topic))?;
        }
        // It goes on while it is read.
        let head = self.ask(&mut link, &format!("conv/{address}"), r#"{"op":"info"}"#)?["seq"].as_u64().unwrap_or(0);
        let mut logs = lock(&self.logs);
        let log = logs.entry(room).or_default();
        loop {
            let after = log.last_key_value().map_or(0, |(seq, _)| *seq);
            let page =
                self.ask(&mut link, "history", &format!(r#"{{"with":"{address}","after":{after},"max":500}}"#))?;
            for message in page["messages"].as_array().into_iter().flatten() {
                let seq = message["seq"].as_u64().unwrap_or(0);
                // A member sees the log from where it came.
                if seq != log.last_key_value().map_or(seq, |(last, _)| last + 1) {
                    self.blame(Class::Lost, format!("{account}: the log of {address} has a hole before {seq}"));
                }
                log.insert(seq, message["id"].as_str().unwrap_or_default().to_owned());
            }
            if page["more"] != true || log.last_key_value().is_some_and(|(seq, _)| *seq >= head) {
                break;
            }
        }
        let mut by_id: BTreeMap<&str, u64> = BTreeMap::new();
        for (seq, id) in log.iter().filter(|(_, id)| !id.is_empty()) {
            if let Some(first) = by_id.insert(id, *seq) {
                self.blame(Class::Duplicated, format!("{id} is message {first} and {seq} of {address}"));
            }
        }
        for (id, seq) in promised {
            match by_id.get(&*id) {
                None => self.blame(Class::Lost, format!("{id} was acknowledged and is not in the log of {address}")),
                Some(found) if seq.is_some_and(|seq| seq != *found) => {
                    self.blame(Class::Changed, format!("{id} was acknowledged as {seq:?} and is {found}"));
                }
                Some(_) => {}
            }
        }
        self.judge_marks(&mut link, room, read)
    }

    /// Marks have not gone back, and unread is what a recount says.
    fn judge_marks(&self, link: &mut Link, room: Room, read: u64) -> Result<(), Ended> {
        let (account, address) = room;
        let conv = self.ask(link, &format!("conv/{address}"), r#"{"op":"info"}"#)?;
        let now = (conv["recv"].as_u64().unwrap_or(0), conv["read"].as_u64().unwrap_or(0));
        let mut marks = lock(&self.marks);
        let before = marks.entry(room).or_default();
        if now.0 < before.0 || now.1 < before.1.max(read) {
            let text = format!("{account}: marks of {address} were {before:?} and read {read}, and are {now:?}");
            self.blame(Class::Lost, text);
        }
        *before = now;
        let count = self.ask(link, "recount", &format!(r#"{{"with":"{address}"}}"#))?;
        if count["agree"] != true {
            self.blame(Class::Changed, format!("{account}: unread is not what a recount says: {count}"));
        }
        Ok(())
    }

    /// Asks, and waits for the answer.
    fn ask(&self, link: &mut Link, request: &str, payload: &str) -> Result<Value, Ended> {
        let ask = Publish::new(&format!("im/v1/me/{request}"), payload).qos(1, 9).with(prop::user("from", "judge"));
        link.send(&ask.bytes(V5))?;
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            match link.packet(PATIENCE)? {
                Some(Packet::Publish(p)) => {
                    link.send(&frame(PubAck as u8, p.id.to_be_bytes()))?;
                    return Ok(serde_json::from_slice(&p.payload).unwrap_or_default());
                }
                Some(Packet::Ack { code, ref props, .. }) if code >= 0x80 => {
                    self.blame(
                        Class::Lost,
                        format!("{request} {payload} is refused: {:?}", props.text(prop::REASON_STRING)),
                    );
                    return Err(Ended);
                }
                _ => {}
            }
        }
        Err(Ended)
    }

    /// What hearers have not been sent of what the judge has read.
    pub(crate) fn missing(&self) -> usize {
        let logs = lock(&self.logs);
        let rooms =
            HEARERS.iter().enumerate().flat_map(|(n, (account, _, all))| all.iter().map(move |a| (n, (*account, *a))));
        let missing = rooms.map(|(number, room)| {
            let heard = lock(&self.heard[number]);
            let seqs: BTreeSet<u64> = heard.get(room.1).into_iter().flatten().map(|(seq, _)| *seq).collect();
            let first = seqs.first().copied().unwrap_or(1);
            let log = logs.get(&room).into_iter().flatten();
            log.filter(|(seq, _)| **seq >= first && !seqs.contains(seq)).count()
        });
        missing.sum()
    }

    /// At the end every hearer has the log itself.
    pub(crate) fn compare(&self) {
        let logs = lock(&self.logs);
        for (number, (account, _, addresses)) in HEARERS.into_iter().enumerate() {
            let heard = lock(&self.heard[number]);
            for address in addresses {
                let (Some(log), Some(heard)) = (logs.get(&(account, *address)), heard.get(address)) else {
                    self.blame(Class::Lost, format!("{account} heard nothing of {address}"));
                    continue;
                };
                let first = heard.first_key_value().map_or(1, |(seq, _)| *seq);
                if let Some((seq, id)) = log.range(first..).find(|(seq, id)| heard.get(seq) != Some(id)) {
                    let text = format!("{account} has {:?} as {seq} of {address}, the log has {id:?}", heard.get(seq));
                    self.blame(Class::Lost, text);
                }
            }
        }
    }
}

fn subscribe(version: Version, filter: &str) -> Vec<u8> {
    let mut body = 1_u16.to_be_bytes().to_vec();
    body.extend(crate::raw::props_for(version, &[]));
    body.extend(crate::raw::field(filter));
    body.push(1);
    frame(0x82, body)
}
