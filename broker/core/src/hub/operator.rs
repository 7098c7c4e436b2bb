//! What the operator sees and does.

use super::lifetime::WithWill;
use super::{After, Hub, Now, Settings, narrow};
use crate::counters::Counters;
use crate::link::LinkId;
use crate::session::{NO_LINK, Who};
use crate::store::Fact;
use parlor_protocol::mqtt::ReasonCode;
use std::net::IpAddr;
use std::rc::Rc;

/// Gauges.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Open connections, those without CONNECT included.
    pub connections: u64,
    /// Sessions with a connection.
    pub online: u64,
    /// Sessions, with or without a connection.
    pub sessions: u64,
    /// Sessions that outlive their connection.
    pub persistent_sessions: u64,
    /// Subscriptions of all sessions.
    pub subscriptions: u64,
    /// Retained messages.
    pub retained_messages: u64,
    /// Bytes of them.
    pub retained_bytes: u64,
    /// Messages in queues, on disk or in memory.
    pub queue_messages: u64,
    /// Bytes of them.
    pub queue_bytes: u64,
    /// Bytes accepted and not on disk yet.
    pub uncommitted_bytes: u64,
}

/// Names one session.
#[derive(Debug, Clone, Copy)]
pub struct SessionBrief<'a> {
    key: usize,
    /// MQTT client identifier.
    pub client_id: &'a str,
    /// Whose it is.
    pub account: &'a str,
}

/// One session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionView {
    /// MQTT client identifier.
    pub client_id: String,
    /// Whose it is.
    pub account: String,
    /// Protocol level.
    pub version: u8,
    /// Session Expiry Interval, seconds.
    pub expiry_secs: u32,
    /// Its connection, if it has one.
    pub link: Option<LinkView>,
    /// Milliseconds since 1970 when its connection ended; 0 while connected.
    pub disconnected_at_ms: u64,
    /// Filter, option bits, subscription identifier.
    pub subscriptions: Vec<(String, u8, u32)>,
    /// Messages queued.
    pub queue_messages: u64,
    /// Bytes of them.
    pub queue_bytes: u64,
    /// Deliveries sent and not finished.
    pub in_flight: u32,
    /// QoS 2 packet identifiers received and not released.
    pub inbound: u32,
    /// Whether a will is set or waits for its delay.
    pub has_will: bool,
}

/// One connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkView {
    /// Names it.
    pub link: LinkId,
    /// Address of the other side.
    pub address: IpAddr,
    /// Keep alive times one and a half, milliseconds; 0: none.
    pub keep_alive_ms: u32,
    /// Bytes it has not read.
    pub unsent_bytes: u64,
    /// Further streams it has, beside its first.
    pub streams: u32,
}

/// One retained message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetainedView<'a> {
    /// Topic name.
    pub topic: &'a str,
    /// QoS it was published with.
    pub qos: u8,
    /// The account that published it.
    pub publisher: &'a str,
    /// Payload.
    pub payload: &'a [u8],
    /// Milliseconds since 1970 when it expires; 0: never.
    pub expires_at_ms: u64,
}

impl Hub {
    /// Totals since start.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Gauges now; walks the sessions.
    pub fn totals(&self) -> Totals {
        let (mut messages, mut bytes) = (0, 0);
        for (_, s) in &self.sessions {
            if let Some(d) = &s.durable {
                messages += d.queued;
                bytes += d.queued_bytes;
            }
            if let Some(f) = &s.flow {
                messages += f.waiting_count() as u64;
                bytes += f.waiting_bytes as u64;
            }
        }
        Totals {
            connections: self.connections(),
            online: self.online,
            sessions: self.sessions.len() as u64,
            persistent_sessions: self.persistent,
            subscriptions: self.router.count(),
            retained_messages: self.retained.messages(),
            retained_bytes: self.retained.bytes(),
            queue_messages: messages,
            queue_bytes: bytes,
            uncommitted_bytes: self.backlog(),
        }
    }

    /// Every session, in no order.
    pub fn sessions(&self) -> impl Iterator<Item = SessionBrief<'_>> {
        self.sessions.iter().map(|(key, s)| SessionBrief { key, client_id: &s.client_id, account: &s.who.account })
    }

    /// Every subscription: client identifier, filter, option bits, Subscription Identifier or 0; in no order.
    pub fn subscriptions(&self) -> impl Iterator<Item = (&str, &str, u8, u32)> {
        self.sessions
            .iter()
            .flat_map(|(_, s)| s.subscriptions.iter().map(|x| (&*s.client_id, &*x.filter, x.options, x.id)))
    }

    /// The session of a brief.
    pub fn describe(&self, brief: &SessionBrief<'_>) -> SessionView {
        self.view(brief.key)
    }

    /// One session.
    pub fn session(&self, client_id: &str) -> Option<SessionView> {
        self.find_session(client_id).map(|key| self.view(key as usize))
    }

    fn view(&self, key: usize) -> SessionView {
        let s = &self.sessions[key];
        let link = self.links.get(s.link as usize).map(|l| LinkView {
            link: LinkId { slot: s.link, generation: l.generation },
            address: l.address,
            keep_alive_ms: l.keep_alive_ms,
            unsent_bytes: l.unsent() as u64,
            streams: narrow(self.streams_of(s.link).len()),
        });
        let waiting = s.flow.as_ref().map_or((0, 0), |f| (f.waiting_count() as u64, f.waiting_bytes as u64));
        let queued = s.durable.as_ref().map_or((0, 0), |d| (d.queued, d.queued_bytes));
        SessionView {
            client_id: s.client_id.to_string(),
            account: s.who.account.to_string(),
            version: s.version as u8,
            expiry_secs: s.expiry_secs,
            link,
            disconnected_at_ms: s.durable.as_ref().map_or(0, |d| d.disconnected_at_ms),
            subscriptions: s.subscriptions.iter().map(|x| (x.filter.to_string(), x.options, x.id)).collect(),
            queue_messages: waiting.0 + queued.0,
            queue_bytes: waiting.1 + queued.1,
            in_flight: s.flow.as_ref().map_or(0, |f| f.in_flight.into()),
            inbound: narrow(s.inbound.len()),
            has_will: s.will.is_some(),
        }
    }

    /// Calls `found` with every retained message whose topic matches `filter`.
    pub fn visit_retained(&self, filter: &str, mut found: impl FnMut(RetainedView<'_>)) {
        self.retained.visit(filter, |r| {
            let m = r.message.view();
            found(RetainedView {
                topic: m.topic,
                qos: r.qos,
                publisher: &r.publisher,
                payload: m.payload,
                expires_at_ms: m.expires_at_ms,
            });
        });
    }

    /// Clears a retained message; `Effect::Stored(token)` follows. False if there is none.
    pub fn clear_retained(&mut self, now: Now, topic: &str, token: u64) -> bool {
        if !self.retained.clear(topic) {
            return false;
        }
        self.batch.push(&Fact::RetainClear { topic });
        self.after_commit(now, After::Stored(token));
        true
    }

    /// Ends a client's connection with 0x98, and its session too if `forget`; `Effect::Stored(token)` follows. False if
    /// there is no such session.
    pub fn kick(&mut self, now: Now, client_id: &str, forget: bool, token: u64) -> bool {
        let found = self.kick_now(now, client_id, forget);
        if found {
            self.after_commit(now, After::Stored(token));
        }
        found
    }

    pub(super) fn kick_now(&mut self, now: Now, client_id: &str, forget: bool) -> bool {
        let Some(key) = self.find_session(client_id) else { return false };
        let link = self.sessions[key as usize].link;
        if link != NO_LINK {
            self.dismiss(link, ReasonCode::ADMINISTRATIVE_ACTION, "ended by the operator");
            self.end(now, link, WithWill::Yes);
        }
        if forget && let Some(key) = self.find_session(client_id) {
            self.end_session(now, key, WithWill::Yes);
        }
        true
    }

    /// Ends every connection of an account, and its sessions too if `forget`: its credentials changed or are gone.
    pub fn kick_account(&mut self, now: Now, account: &str, forget: bool) -> usize {
        let of_account = |(_, s): &(usize, &crate::session::Session)| *s.who.account == *account;
        let ids: Vec<Box<str>> = self.sessions.iter().filter(of_account).map(|(_, s)| s.client_id.clone()).collect();
        for id in &ids {
            self.kick_now(now, id, forget);
        }
        ids.len()
    }

    /// Stores an account (`Some`) or removes it (`None`); `Effect::Stored(token)` follows.
    pub fn put_account(&mut self, now: Now, name: &str, record: Option<&[u8]>, token: u64) {
        match record {
            Some(record) => self.batch.push(&Fact::Account { name, record }),
            None => {
                self.batch.push(&Fact::AccountRemove { name });
                self.end_account_im(now, name);
            }
        }
        if record.is_some() {
            self.im.account_or_new(now, name);
            self.settle_im(now);
        }
        self.after_commit(now, After::Stored(token));
    }

    /// Takes over changed limits and rules. Connections stay; messages that may no longer be read are no longer sent.
    pub fn reload(&mut self, now: Now, settings: Settings) {
        self.im.reload(now, settings.im, settings.limits.clone());
        self.settle_im(now);
        self.limits = settings.limits;
        self.access = settings.access;
        self.sys_interval_secs = settings.sys_interval_secs;
        self.arm_sys(now.ms);
        let old: Vec<Rc<Who>> = self.who.values().cloned().collect();
        for who in old {
            let profile = self.access.profile(&who.account, &who.groups);
            let account = Rc::clone(&who.account);
            let who = Who { account: Rc::clone(&account), groups: who.groups.clone(), profile, known: who.known };
            self.who.insert(account, Rc::new(who));
        }
        for (_, s) in &mut self.sessions {
            let profile = self.access.profile(&s.who.account, &s.who.groups);
            let same = self.who.get(&s.who.account).filter(|w| w.groups == s.who.groups && w.known == s.who.known);
            s.who = same.cloned().unwrap_or_else(|| {
                let (account, groups) = (Rc::clone(&s.who.account), s.who.groups.clone());
                Rc::new(Who { account, groups, profile, known: s.who.known })
            });
        }
        self.router.invalidate();
    }

    /// Whether the disk is nearly full, so that nothing durable is taken on.
    pub fn is_low_on_space(&self) -> bool {
        self.low_space
    }

    /// How often this store was opened.
    pub fn boot(&self) -> u64 {
        self.boot
    }
}
