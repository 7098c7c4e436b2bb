//! Sessions that come and go, and the terminals they are.

use super::model::{AccountNo, ConvKind, ConvNo, Terminal};
use super::online::{Backfill, Class, Flight, Note, Online, Tag};
use super::{Im, ImTimer, Origin, row};
use crate::hub::Now;
use std::collections::BTreeMap;
use std::rc::Rc;

/// Terminals of one account.
pub(super) const TERMINALS: u8 = 16;
/// So long after a subscription an entry that no subscription matches is not passed over: the next one may match it.
const SUBSCRIBING_MS: u64 = 1_000;
/// A terminal that was not there before is sent so many messages of so many conversations.
const BACKFILL_MESSAGES: u64 = 20;
const BACKFILL_CONVS: usize = 50;

/// What a subscription brings with it at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Greeting {
    /// What is retained.
    Retained,
    /// Nothing: the client asked for nothing retained.
    Nothing,
}

impl Im {
    /// A session takes part from now on, or is connected again. `is_resumed`: its earlier deliveries keep their packet
    /// identifiers.
    pub(crate) fn attach(
        &mut self,
        session: (u32, u32),
        account: AccountNo,
        client_id: &str,
        v5: bool,
        is_resumed: bool,
        hello: Option<&crate::hub::Hello>,
    ) -> u32 {
        if let Some(&at) = self.by_session.get(&session.0) {
            return at;
        }
        let client_id: Rc<str> = client_id.into();
        let mut online = Online::new(session.0, session.1, account, client_id, v5);
        online.is_resumed = is_resumed;
        self.serial = self.serial.wrapping_add(1);
        online.serial = self.serial;
        online.level = hello.map_or(0, |h| h.level);
        online.hello = hello.cloned();
        let at = u32::try_from(self.online.insert(online)).expect("fewer sessions than 2^32");
        self.by_session.insert(session.0, at);
        if let Some(a) = self.dir.accounts.get_mut(account.at()) {
            a.online.push(at);
        }
        at
    }

    /// The session's connection is gone.
    pub(crate) fn detach(&mut self, now: Now, session: u32) {
        let Some(at) = self.by_session.remove(&session) else { return };
        self.leave_rooms(now, at);
        let o = self.online.remove(at as usize);
        let Some(a) = self.dir.accounts.get_mut(o.account.at()) else { return };
        a.online.retain(|other| *other != at);
        if let Some(no) = o.terminal
            && let Some(t) = a.terminal_mut(no)
        {
            t.online = u32::MAX;
            t.seen_ms = now.wall_ms;
            t.sent = o.next;
            self.touch_terminal(o.account, no);
        }
        for (_, tag) in o.notes_sent {
            if let Tag::Command { device, no } = tag {
                self.command_unsent(now, device, no);
            }
        }
        for note in o.notes {
            if let Tag::Command { device, no } = note.tag {
                self.command_unsent(now, device, no);
            }
        }
        self.trim_recent(o.account);
    }

    /// A subscription below `im/` of a session that takes part. False: the account has no room for another terminal.
    pub(crate) fn subscribe(&mut self, now: Now, at: u32, filter: &str, qos: u8, id: u32, greeting: Greeting) -> bool {
        let Some(o) = self.online.get_mut(at as usize) else { return false };
        let account = o.account;
        o.subscribe(filter, qos, id);
        o.subscribed_ms = now.ms;
        if account.at() >= self.dir.accounts.len() {
            // A device that is being paired has no account yet.
            return true;
        }
        if o.wants_mailbox() && o.terminal.is_none() && !self.claim_terminal(now, at) {
            self.unsubscribe(at, filter);
            return false;
        }
        if greeting == Greeting::Retained {
            self.greet(at, filter);
        }
        let o = &self.online[at as usize];
        let (wants_cmd, wants_delta) = (o.wants(Class::Cmd), o.wants(Class::Delta));
        let logs: Vec<ConvNo> = if o.wants(Class::Msg) { self.large_groups(account) } else { vec![] };
        let o = &mut self.online[at as usize];
        o.delta_dirty |= wants_delta;
        o.logs_dirty.extend(logs);
        if wants_cmd {
            self.command_device_ready(now, account);
        }
        self.announcements_for(now, at);
        self.wake(at);
        true
    }

    /// Whether an entry that matches no subscription waits for another one, as clients may subscribe in several steps.
    pub(super) fn may_still_subscribe(&mut self, now: Now, at: u32, class: Class) -> bool {
        let is_news = matches!(class, Class::Msg | Class::Recall | Class::Edit | Class::Contact | Class::Bounce);
        let o = &mut self.online[at as usize];
        let until = o.subscribed_ms + SUBSCRIBING_MS;
        if !is_news || now.ms >= until {
            return false;
        }
        if core::mem::replace(&mut o.waits_ms, until) != until {
            self.arm(until, ImTimer::Subscribed(at));
        }
        true
    }

    pub(crate) fn unsubscribe(&mut self, at: u32, filter: &str) {
        if let Some(o) = self.online.get_mut(at as usize) {
            o.unsubscribe(filter);
        }
    }

    fn large_groups(&self, account: AccountNo) -> Vec<ConvNo> {
        let convs = &self.dir.accounts[account.at()].convs;
        convs.iter().copied().filter(|no| self.dir.convs[no.at()].is_large()).collect()
    }

    /// What is retained and matches a new filter.
    fn greet(&mut self, at: u32, filter: &str) {
        let account = self.online[at as usize].account;
        let mut alone = Online::new(0, 0, account, "".into(), false);
        alone.subscribe(filter, 0, 0);
        let presence = alone.wants(Class::Presence) || alone.wants(Class::Avail);
        let state = alone.wants(Class::State);
        let visible = if presence || state { self.visible_to(account) } else { vec![] };
        let o = &mut self.online[at as usize];
        o.head_dirty |= alone.wants(Class::Head);
        for of in visible {
            if presence {
                o.presence_dirty.insert(of);
            }
            if state {
                o.state_dirty.insert(of);
            }
        }
    }

    /// Gives a session its terminal: the one of its client identifier, or a new one.
    fn claim_terminal(&mut self, now: Now, at: u32) -> bool {
        let (account, client_id) = (self.online[at as usize].account, Rc::clone(&self.online[at as usize].client_id));
        let known = self.dir.accounts[account.at()].terminals.iter().find(|t| *t.client_id == *client_id).map(|t| t.no);
        let no = match known {
            Some(no) => no,
            None => match self.make_terminal(account, &client_id) {
                Some(no) => no,
                None => return false,
            },
        };
        let a = &mut self.dir.accounts[account.at()];
        // What is on its way to the disk comes when it is there, and is in no page that is read now.
        let end = a.mailbox.committed - 1;
        let Some(t) = a.terminal_mut(no) else { return false };
        t.online = at;
        t.seen_ms = now.wall_ms;
        if known.is_none() {
            t.acked = end;
        }
        let (acked, sent) = (t.acked, t.sent);
        let o = &mut self.online[at as usize];
        if let Some(hello) = o.hello.take() {
            (t.level, t.platform, t.app) = (hello.level, hello.platform, hello.app);
        }
        o.terminal = Some(no);
        o.next = acked + 1;
        o.resent_below = if o.is_resumed { sent } else { 0 };
        if known.is_none() {
            self.start_backfill(at, account);
            self.want_places();
        }
        self.has_claimed = true;
        self.touch_terminal(account, no);
        true
    }

    /// Whether a session became a terminal since this was last asked: the row that makes it one may still be on its way
    /// to the disk, also when an earlier connection made it.
    pub(crate) fn has_claimed_terminal(&mut self) -> bool {
        core::mem::take(&mut self.has_claimed)
    }

    fn make_terminal(&mut self, account: AccountNo, client_id: &str) -> Option<u8> {
        let a = &self.dir.accounts[account.at()];
        let free = (0..TERMINALS).find(|no| a.terminal(*no).is_none());
        let no = match free {
            Some(no) => no,
            None => {
                let oldest = a.terminals.iter().filter(|t| t.online == u32::MAX).min_by_key(|t| t.seen_ms)?.no;
                self.forget_terminal(account, oldest);
                self.counters.dropped.add("terminal_replaced");
                oldest
            }
        };
        let a = &mut self.dir.accounts[account.at()];
        let places: BTreeMap<ConvNo, u64> = a
            .convs
            .iter()
            .map(|no| (*no, self.dir.convs[no.at()].head))
            .filter(|(no, _)| self.dir.convs[no.at()].is_large())
            .collect();
        a.terminals.push(Terminal { no, client_id: client_id.into(), online: u32::MAX, places, ..Terminal::default() });
        Some(no)
    }

    /// Removes a terminal and its places. It must not be online.
    pub(super) fn forget_terminal(&mut self, account: AccountNo, no: u8) {
        let a = &mut self.dir.accounts[account.at()];
        let Some(place) = a.terminals.iter().position(|t| t.no == no) else { return };
        let gone = a.terminals.swap_remove(place);
        self.del(row::TERMINAL, account.0.into(), no.into());
        for conv in gone.places.keys() {
            self.del(row::PLACE, place_key(account, no), conv.0.into());
        }
    }

    fn start_backfill(&mut self, at: u32, account: AccountNo) {
        let mut convs: Vec<(u64, ConvNo)> = self.dir.accounts[account.at()]
            .convs
            .iter()
            .map(|no| (self.dir.convs[no.at()].last_ms, *no))
            .filter(|(_, no)| !matches!(self.dir.convs[no.at()].kind, ConvKind::Channel(_)))
            .collect();
        convs.sort_unstable_by_key(|(last, _)| core::cmp::Reverse(*last));
        convs.truncate(BACKFILL_CONVS);
        for (_, no) in convs {
            let conv = &self.dir.convs[no.at()];
            let Some(member) = conv.member(account) else { continue };
            let from = member.visible_from().max((conv.head + 1).saturating_sub(BACKFILL_MESSAGES));
            if from <= conv.head {
                self.online[at as usize].backfill.push_back(Backfill { conv: no, from, until: conv.head + 1 });
            }
        }
    }

    /// Tells a session that positions of its mailbox are gone. Its place stays before them until it has acknowledged
    /// that: a connection that ends meanwhile must not make the gap a silent one.
    fn tell_gap(&mut self, at: u32, from: u64, until: u64, why: &'static str) {
        let o = &mut self.online[at as usize];
        let from = o.gap.map_or(from, |(first, _)| first.min(from));
        let topic = format!("im/v1/me/in/{}/gap", self.dir.accounts[o.account.at()].name);
        match o.wants_topic(Class::Gap, &topic) {
            Some((1.., _)) => o.gap = Some((from, until)),
            // It pulls and will see it, or asked for no certainty.
            _ => self.advance(at),
        }
        let payload = serde_json::json!({ "from": from, "to": until - 1, "why": why }).to_string().into_bytes();
        let mut note = Note::new(Class::Gap, &topic, &payload);
        note.tag = Tag::Gap { until };
        self.note(at, note);
    }

    /// What a session was not sent of the positions below `floor` is gone; what is under way may still be acknowledged.
    pub(super) fn leap(&mut self, at: u32, floor: u64, why: &'static str) {
        let o = &mut self.online[at as usize];
        let from = o.next;
        if from >= floor {
            return;
        }
        o.flight.extend((from..floor).map(|_| Flight::Done));
        o.next = floor;
        self.counters.dropped.add_many("gap", floor - from);
        self.tell_gap(at, from, floor, why);
    }

    /// A client has acknowledged that positions below `until` are gone.
    pub(super) fn gap_heard(&mut self, at: u32, until: u64) {
        let o = &mut self.online[at as usize];
        if o.gap.is_some_and(|(_, last)| last == until) {
            o.gap = None;
            self.advance(at);
        }
    }

    /// The terminal of whoever asks: that of its session, or the one with its client identifier.
    pub(super) fn terminal_of(&self, origin: &Origin<'_>) -> Option<u8> {
        let a = self.dir.accounts.get(origin.account.at())?;
        a.terminals.iter().find(|t| *t.client_id == *origin.client_id).map(|t| t.no)
    }

    /// The client identifier of a session that takes part.
    pub(crate) fn client_id_of(&self, session: u32) -> Option<Rc<str>> {
        self.by_session.get(&session).map(|at| Rc::clone(&self.online[*at as usize].client_id))
    }

    /// The place in `online` of a session.
    pub(crate) fn place_of(&self, session: u32) -> Option<u32> {
        self.by_session.get(&session).copied()
    }

    /// The place in `online` of whoever asks.
    pub(super) fn online_of(&self, origin: &Origin<'_>) -> Option<u32> {
        let (session, generation) = origin.session?;
        let at = *self.by_session.get(&session)?;
        (self.online[at as usize].generation == generation).then_some(at)
    }
}

/// First half of the key of a terminal's places.
pub(super) fn place_key(account: AccountNo, no: u8) -> u64 {
    u64::from(account.0) * u64::from(TERMINALS) + u64::from(no)
}
