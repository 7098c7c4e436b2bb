//! Messages: from a client's payload to a place in a conversation, and what changes them later.

use super::body::{Body, Draft};
use super::dedup::{self, Found, Known};
use super::model::{AccountKind, AccountNo, Address, COUNTED, ConvKind, ConvNo, MailEntry, MailKind, Role, WINDOW};
use super::name::{NameKind, is_client_id, name_kind};
use super::{Asker, Class, Code, Done, Im, ImTimer, Origin, Out, Pending, Refusal, Verdict, row, shorten};
use crate::hub::Now;
use crate::store::bytes::DecodeError;
use crate::store::{Answer, What};
use serde_json::Value;
use std::rc::Rc;

/// How long after it was sent a message may be recalled and edited by its sender.
const RECALL_MS: u64 = 2 * 60_000;
const EDIT_MS: u64 = 24 * 3_600_000;

/// A message that waits until the store has said whether its client id was used.
#[derive(Debug)]
pub(crate) struct Parked {
    token: u64,
    key: dedup::Key,
    content: u64,
    from: AccountNo,
    conv: ConvNo,
    draft: Draft,
    session: Option<(u32, u32)>,
    operator: bool,
}

/// A recall or edit that waits until the store has brought the message.
#[derive(Debug)]
pub(crate) struct Change {
    token: u64,
    by: AccountNo,
    conv: ConvNo,
    seq: u64,
    /// `None`: recall.
    draft: Option<Draft>,
}

/// A message that expires.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Expiring {
    pub(crate) at_ms: u64,
    pub(crate) from: AccountNo,
    pub(crate) ts: u64,
    pub(crate) counts: bool,
}

impl Expiring {
    fn encode(self) -> Vec<u8> {
        let mut w = row::RowWriter::new(1);
        w.int(self.at_ms).int(self.from.0.into()).int(self.ts).flag(self.counts);
        w.0
    }

    pub(crate) fn decode(value: &[u8]) -> Result<Self, DecodeError> {
        let mut r = row::reader(value)?;
        Ok(Self {
            at_ms: r.int()?,
            from: AccountNo(row::read_u32(&mut r)?),
            ts: r.int()?,
            counts: row::read_flag(&mut r)?,
        })
    }
}

impl Im {
    pub(super) fn send_message(
        &mut self,
        now: Now,
        origin: &Origin<'_>,
        to: &str,
        payload: &[u8],
    ) -> Result<Verdict, Refusal> {
        if name_kind(to) == Some(NameKind::Room) {
            return self.send_to_room(now, origin, to, payload);
        }
        let conv = self.writable(origin, to)?;
        let mut draft = Draft::parse(payload, false)?;
        if draft.ttl_ms == 0 {
            draft.ttl_ms = origin.expiry_ms;
        }
        if draft.id.is_none()
            && let Some(id) = origin.id
        {
            if !is_client_id(id) {
                return Err(Refusal::bad("user property im-id is not 1 to 36 of A-Z a-z 0-9 _ -"));
            }
            draft.id = Some(id.to_owned());
        }
        draft.check_size(self.most_bytes(conv, origin.account))?;
        let Some(id) = draft.id.as_deref() else {
            self.within_flood(now, origin, conv)?;
            let seq = self.post(now, conv, origin.account, &draft);
            return Ok(Verdict::Done(Done { durable: true, seq, ..Done::default() }));
        };
        let key = dedup::key(origin.account, origin.client_id, 0, id);
        let content = draft.content_hash(to);
        match self.dedup.find(key) {
            Found::Used(known) => self.repeated(origin.session, known, content, draft.id.as_deref()),
            Found::New => {
                self.within_flood(now, origin, conv)?;
                Ok(Verdict::Done(self.post_once(now, key, content, origin.account, conv, &draft)))
            }
            Found::Perhaps => {
                let what = What::Rows(vec![(key.0.0.into(), key.1)]);
                let token = self.next_token;
                let (from, session) = (origin.account, origin.session);
                let operator = origin.operator;
                let parked = Parked { token, key, content, from, conv, draft, session, operator };
                self.ask(row::DEDUP, what, Pending::Send(Box::new(parked)));
                Ok(Verdict::Parked(token))
            }
        }
    }

    /// The conversation of an address that whoever asks may write to.
    fn writable(&mut self, origin: &Origin<'_>, to: &str) -> Result<ConvNo, Refusal> {
        let from = origin.account;
        match self.dir.by_name.get(to).copied() {
            None => Err(Refusal::not_found(format!("there is no {}", shorten(to)))),
            Some(Address::Account(peer)) if peer == from => {
                Err(Refusal::bad("an account has no conversation with itself"))
            }
            Some(Address::Account(peer)) => {
                let known = self.dir.direct.get(&(from.min(peer), from.max(peer))).copied();
                if known.is_some_and(|no| self.dir.convs[no.at()].allowed == self.rights) {
                    return known.ok_or_else(|| Refusal::not_found(to));
                }
                if !origin.operator {
                    self.may_write(from, peer)?;
                }
                let conv = self.direct(from, peer);
                if !origin.operator && self.may_write(peer, from).is_ok() {
                    self.dir.convs[conv.at()].allowed = self.rights;
                }
                Ok(conv)
            }
            Some(Address::Conv(no)) => {
                let conv = &self.dir.convs[no.at()];
                match &conv.kind {
                    ConvKind::Channel(_) => {
                        let text = "announcements are published to im/v1/admin/ch/…";
                        Err(Refusal::new(Code::Forbidden, text))
                    }
                    _ if conv.member(from).is_none() => {
                        Err(Refusal::new(Code::Forbidden, format!("you are not in {}", shorten(to))))
                    }
                    _ => Ok(no),
                }
            }
        }
    }

    /// What the receivers take at most.
    fn most_bytes(&self, conv: ConvNo, from: AccountNo) -> u64 {
        let c = &self.dir.convs[conv.at()];
        let to_device = c.peer_of(from).is_some_and(|peer| self.dir.accounts[peer.at()].kind == AccountKind::Device);
        if to_device { self.limits.im_device_message_bytes_max } else { self.limits.im_message_bytes_max }
    }

    /// Anti-flood, for the account and for the conversation.
    fn within_flood(&mut self, now: Now, origin: &Origin<'_>, conv: ConvNo) -> Result<(), Refusal> {
        if origin.operator {
            return Ok(());
        }
        let (rate, burst) = (self.limits.im_account_rate_max, self.limits.im_account_burst_max);
        if !self.dir.accounts[origin.account.at()].flood.take(now.ms, rate, burst) {
            return Err(Refusal::new(
                Code::Quota,
                "this account sends faster than it may (limits.im_account_rate_max)",
            ));
        }
        let (rate, burst) = (self.limits.im_conversation_rate_max, self.limits.im_conversation_burst_max);
        if !self.dir.convs[conv.at()].flood.take(now.ms, rate, burst) {
            let text = "this conversation gets more messages than it may (limits.im_conversation_rate_max)";
            return Err(Refusal::new(Code::Quota, text));
        }
        Ok(())
    }

    /// A client id that was used before.
    fn repeated(
        &mut self,
        session: Option<(u32, u32)>,
        known: Known,
        content: u64,
        id: Option<&str>,
    ) -> Result<Verdict, Refusal> {
        if known.content != content {
            let text = "this id was used for another content; a new message needs a new id";
            return Err(Refusal::new(Code::IdReused, text));
        }
        self.counters.duplicates += 1;
        if let Some(session) = session
            && let Some(&at) = self.by_session.get(&session.0)
        {
            let account = self.online[at as usize].account;
            let to = self.address_for(ConvNo(known.conv), account);
            let told = serde_json::json!({ "pos": 0, "to": &*to, "seq": known.seq, "id": id, "dup": true });
            let topic = "im/v1/me/sent".into();
            let asker = Asker {
                account,
                session: Some(session),
                token: 0,
                topic,
                correlation: None,
                re: String::new(),
                id: None,
            };
            // The first one may still be on its way to the disk.
            self.after_commit_tell(asker, told);
        }
        Ok(Verdict::Done(Done { durable: true, seq: known.seq, dup: true, reply: None }))
    }

    fn post_once(
        &mut self,
        now: Now,
        key: dedup::Key,
        content: u64,
        from: AccountNo,
        conv: ConvNo,
        draft: &Draft,
    ) -> Done {
        let seq = self.post(now, conv, from, draft);
        let known = Known { conv: conv.0, seq, content };
        self.dedup.add(key, known, now.wall_ms);
        self.put(row::DEDUP, key.0.0.into(), key.1, &known.encode());
        Done { durable: true, seq, ..Done::default() }
    }

    /// Whether an account that could write to a conversation a moment ago still can.
    fn may_still_write(&self, from: AccountNo, conv: ConvNo) -> Result<(), Refusal> {
        let c = &self.dir.convs[conv.at()];
        match c.peer_of(from) {
            Some(_) if c.allowed == self.rights => Ok(()),
            Some(peer) => self.may_write(from, peer),
            None => c.member(from).map(drop).ok_or_else(|| Refusal::not_found("not a member")),
        }
    }

    /// The store has said whether a client id was used.
    pub(super) fn unparked(&mut self, now: Now, parked: &Parked, answer: &Answer) {
        let row = answer.iter().next().and_then(|found| Known::decode(found.value).ok());
        // What was sent with the same id while this one waited is in memory.
        let used = match self.dedup.find(parked.key) {
            Found::Used(known) => Some(known),
            _ => row,
        };
        let verdict = match used {
            Some(known) => {
                self.dedup.remember(parked.key, known);
                self.repeated(parked.session, known, parked.content, parked.draft.id.as_deref())
            }
            None if !parked.operator && self.may_still_write(parked.from, parked.conv).is_err() => {
                Err(Refusal::new(Code::NoConsent, "the right to write there has ended meanwhile"))
            }
            None => {
                let (key, content) = (parked.key, parked.content);
                Ok(Verdict::Done(self.post_once(now, key, content, parked.from, parked.conv, &parked.draft)))
            }
        };
        self.out.push_back(Out::Concluded { token: parked.token, verdict });
    }

    /// Puts a message into a conversation: its place, its row, and an entry for each who gets it.
    pub(super) fn post(&mut self, now: Now, conv: ConvNo, from: AccountNo, draft: &Draft) -> u64 {
        let expires_ms = if draft.ttl_ms == 0 { 0 } else { now.wall_ms.saturating_add(draft.ttl_ms) };
        let flags = if draft.quiet { 0 } else { COUNTED };
        let body = Body {
            flags,
            from,
            ts: now.wall_ms,
            expires_ms,
            changed_ms: 0,
            level: draft.level,
            id: draft.id.as_deref().unwrap_or_default(),
            fragment: &draft.fragment,
            fallback: &draft.fallback,
        };
        let seq = self.append(now, conv, &body);
        if expires_ms != 0 {
            let expiring = Expiring { at_ms: expires_ms, from, ts: now.wall_ms, counts: flags == COUNTED };
            self.expiring.insert((conv, seq), expiring);
            self.put(row::EXPIRY, conv.0.into(), seq, &expiring.encode());
            self.arm_wall(now, expires_ms, ImTimer::Expiry(conv, seq));
        }
        self.counters.messages += 1;
        seq
    }

    /// A message of the broker's own: a membership change. It counts for nobody.
    pub(super) fn post_system(&mut self, now: Now, conv: ConvNo, by: AccountNo, body: &Value) -> u64 {
        let fragment = format!(",\"kind\":\"member\",\"body\":{body}");
        let body = Body {
            flags: 0,
            from: by,
            ts: now.wall_ms,
            expires_ms: 0,
            changed_ms: 0,
            level: 0,
            id: "",
            fragment: fragment.as_bytes(),
            fallback: "",
        };
        self.append(now, conv, &body)
    }

    fn append(&mut self, now: Now, conv: ConvNo, body: &Body<'_>) -> u64 {
        let value: Rc<[u8]> = body.encode().into();
        let c = &mut self.dir.convs[conv.at()];
        c.head += 1;
        let seq = c.head;
        c.last_ms = now.wall_ms;
        if c.window.len() >= WINDOW {
            c.window.pop_front();
        }
        c.window.push_back((body.from, body.flags));
        let is_large = c.is_large();
        self.put(row::BODY, conv.0.into(), seq, &value);
        self.remember_body(conv, seq, value);
        self.touch_conv(conv);
        for at in 0..self.dir.convs[conv.at()].members.len() {
            let member = &mut self.dir.convs[conv.at()].members[at];
            let account = member.account;
            if body.counts() && account != body.from {
                member.unread += 1;
                self.dir.accounts[account.at()].unread += 1;
                self.touch_member(conv, account);
            }
            if is_large {
                self.wake_log(account, conv);
            } else {
                self.mail(now, account, MailEntry { kind: MailKind::Message, conv: conv.0, seq, extra: 0 });
            }
            self.badge(account, conv);
        }
        seq
    }

    /// Sessions of this account may have something new in a log they follow.
    fn wake_log(&mut self, account: AccountNo, conv: ConvNo) {
        for at in 0..self.dir.accounts[account.at()].online.len() {
            let online = self.dir.accounts[account.at()].online[at];
            let o = &mut self.online[online as usize];
            if o.terminal.is_some() && o.wants(Class::Msg) {
                o.logs_dirty.insert(conv);
                self.wake(online);
            }
        }
    }

    fn remember_body(&mut self, conv: ConvNo, seq: u64, value: Rc<[u8]>) {
        let cost = value.len() + 64;
        self.bodies.insert((conv, seq), value, cost);
    }

    // ---- Recall and edit -------------------------------------------------------------------------------------

    pub(super) fn on_recall(
        &mut self,
        now: Now,
        origin: &Origin<'_>,
        to: &str,
        payload: &[u8],
    ) -> Result<Verdict, Refusal> {
        let object = super::object(payload)?;
        let seq = super::number(&object, "seq")?.ok_or_else(|| Refusal::bad("a recall needs \"seq\""))?;
        self.change(now, origin, to, seq, None)
    }

    pub(super) fn on_edit(
        &mut self,
        now: Now,
        origin: &Origin<'_>,
        to: &str,
        payload: &[u8],
    ) -> Result<Verdict, Refusal> {
        let draft = Draft::parse(payload, true)?;
        let seq = draft.seq.ok_or_else(|| Refusal::bad("an edit needs \"seq\""))?;
        self.change(now, origin, to, seq, Some(draft))
    }

    fn change(
        &mut self,
        now: Now,
        origin: &Origin<'_>,
        to: &str,
        seq: u64,
        draft: Option<Draft>,
    ) -> Result<Verdict, Refusal> {
        let conv = self.conv_with(origin.account, to)?;
        if let Some(draft) = &draft {
            draft.check_size(self.most_bytes(conv, origin.account))?;
        }
        let c = &self.dir.convs[conv.at()];
        let visible = c.member(origin.account).is_some_and(|m| m.visible_from() <= seq);
        if !visible || seq > c.head {
            return Err(Refusal::not_found(format!("there is no message {seq}")));
        }
        let token = self.next_token;
        let change = Change { token, by: origin.account, conv, seq, draft };
        if let Some(value) = self.bodies.get(&(conv, seq)).cloned() {
            return self.changed(now, &change, &value);
        }
        let what = What::Rows(vec![(conv.0.into(), seq)]);
        self.ask(row::BODY, what, Pending::Change(Box::new(change)));
        Ok(Verdict::Parked(token))
    }

    /// The store has brought the message that is to be changed.
    pub(super) fn change_found(&mut self, now: Now, change: &Change, answer: &Answer) {
        // A later change of the same message is in memory.
        let value = self.bodies.get(&(change.conv, change.seq)).cloned();
        let value = value.or_else(|| answer.iter().next().map(|found| found.value.into()));
        let verdict = match value {
            Some(value) => self.changed(now, change, &value),
            None => Err(Refusal::not_found(format!("message {} is kept no longer", change.seq))),
        };
        self.out.push_back(Out::Concluded { token: change.token, verdict });
    }

    fn changed(&mut self, now: Now, change: &Change, value: &[u8]) -> Result<Verdict, Refusal> {
        let Ok(body) = Body::decode(value) else {
            return Err(Refusal::not_found(format!("message {} cannot be read", change.seq)));
        };
        let done = Verdict::Done(Done { durable: true, seq: change.seq, ..Done::default() });
        if body.is_gone() {
            let text = "the message is gone already";
            return if change.draft.is_none() { Ok(done) } else { Err(Refusal::new(Code::TooLate, text)) };
        }
        let age = now.wall_ms.saturating_sub(body.ts);
        let role = self.dir.convs[change.conv.at()].member(change.by).map(|m| m.role);
        let is_group = self.dir.convs[change.conv.at()].kind != ConvKind::Direct;
        let is_system = body.id.is_empty() && body.fragment.starts_with(b",\"kind\":\"member\"");
        let is_own = body.from == change.by && !is_system;
        let (kind, new) = match &change.draft {
            None => {
                let as_owner = is_group && role == Some(Role::Owner) && !is_system;
                if !is_own && !as_owner {
                    return Err(Refusal::new(
                        Code::Forbidden,
                        "only the sender, or a group's owner, recalls a message",
                    ));
                }
                if age > RECALL_MS && !as_owner {
                    return Err(Refusal::new(Code::TooLate, "a message can be recalled for 2 minutes"));
                }
                (MailKind::Recall, body.wiped(now.wall_ms))
            }
            Some(draft) => {
                if !is_own {
                    return Err(Refusal::new(Code::Forbidden, "only the sender edits a message"));
                }
                if age > EDIT_MS {
                    return Err(Refusal::new(Code::TooLate, "a message can be edited for 24 hours"));
                }
                let new = Body {
                    changed_ms: now.wall_ms,
                    fragment: &draft.fragment,
                    fallback: &draft.fallback,
                    level: draft.level,
                    ..body
                };
                (MailKind::Edit, new)
            }
        };
        let row = new.encode();
        self.put(row::BODY, change.conv.0.into(), change.seq, &row);
        self.remember_body(change.conv, change.seq, row.into());
        if kind == MailKind::Recall {
            self.dir.convs[change.conv.at()].set_gone(change.seq);
            if body.counts() {
                self.uncount(change.conv, change.seq, body.from);
            }
            self.forget_expiry(change.conv, change.seq);
        }
        let entry = MailEntry { kind, conv: change.conv.0, seq: change.seq, extra: change.by.0 };
        // Whoever came later does not learn what was said before, in no form.
        let members = self.dir.convs[change.conv.at()].members.iter().filter(|m| m.visible_from() <= change.seq);
        let members: Vec<AccountNo> = members.map(|m| m.account).collect();
        for account in members {
            self.mail(now, account, entry);
            self.badge(account, change.conv);
        }
        Ok(done)
    }

    // ---- Expiry ----------------------------------------------------------------------------------------------

    fn forget_expiry(&mut self, conv: ConvNo, seq: u64) {
        if self.expiring.remove(&(conv, seq)).is_some() {
            self.del(row::EXPIRY, conv.0.into(), seq);
        }
    }

    /// A message's time is over: nobody gets it any more, and a sender whose peer has not got it learns so.
    pub(super) fn expire(&mut self, now: Now, conv: ConvNo, seq: u64) {
        let Some(expiring) = self.expiring.get(&(conv, seq)).copied() else { return };
        if expiring.at_ms > now.wall_ms {
            // The time of day was put back.
            return self.arm_wall(now, expiring.at_ms, ImTimer::Expiry(conv, seq));
        }
        self.forget_expiry(conv, seq);
        let wiped = Body {
            flags: super::model::GONE | if expiring.counts { COUNTED } else { 0 },
            from: expiring.from,
            ts: expiring.ts,
            expires_ms: expiring.at_ms,
            changed_ms: now.wall_ms,
            level: 0,
            id: "",
            fragment: b"",
            fallback: "",
        };
        let value = wiped.encode();
        self.put(row::BODY, conv.0.into(), seq, &value);
        self.remember_body(conv, seq, value.into());
        self.dir.convs[conv.at()].set_gone(seq);
        if expiring.counts {
            self.uncount(conv, seq, expiring.from);
        }
        let c = &self.dir.convs[conv.at()];
        let missed = c.peer_of(expiring.from).and_then(|peer| c.member(peer)).is_some_and(|m| m.recv < seq);
        if missed {
            self.counters.dropped.add("expired");
            let entry = MailEntry { kind: MailKind::Bounce, conv: conv.0, seq, extra: 0 };
            self.mail(now, expiring.from, entry);
        }
    }

    // ---- The mailbox's bounds --------------------------------------------------------------------------------

    /// Entries of an account beyond its limit are given up, oldest first; terminals that had not got them learn so.
    pub(super) fn bound_mailbox(&mut self, now: Now, account: AccountNo) {
        let a = &mut self.dir.accounts[account.at()];
        let most = match a.kind {
            AccountKind::Device => self.limits.im_device_mailbox_entries_max,
            _ => self.limits.im_mailbox_entries_max,
        };
        let day = u32::try_from(now.wall_ms / 86_400_000).unwrap_or(u32::MAX);
        if a.mailbox.days.back().is_none_or(|(last, _)| *last < day) {
            let pos = a.mailbox.next - 1;
            a.mailbox.days.push_back((day, pos));
            self.put(row::MAIL_DAY, account.0.into(), day.into(), &pos.to_le_bytes());
            self.age_mailbox(account, day);
        }
        let mailbox = &self.dir.accounts[account.at()].mailbox;
        // In steps, so that not every entry moves the floor.
        if mailbox.next - mailbox.floor > most + most / 8 {
            let floor = mailbox.next - most;
            self.raise_floor(account, floor, "overflow");
        }
    }

    /// Entries older than their retention are given up.
    pub(super) fn age_mailbox(&mut self, account: AccountNo, day: u32) {
        let a = &mut self.dir.accounts[account.at()];
        let keep = match a.kind {
            AccountKind::Device => self.limits.im_device_mailbox_days,
            _ => self.limits.im_mailbox_days,
        };
        let keep = u32::try_from(keep).unwrap_or(u32::MAX);
        let mut gone = vec![];
        // The position at which the day after the last one that is too old began.
        while a.mailbox.days.len() > 1 && a.mailbox.days[0].0.saturating_add(keep) < day {
            gone.extend(a.mailbox.days.pop_front().map(|(old, _)| old));
        }
        let floor = a.mailbox.days.front().map_or(1, |(_, pos)| *pos);
        if gone.is_empty() {
            return;
        }
        for old in gone {
            self.del(row::MAIL_DAY, account.0.into(), old.into());
        }
        self.raise_floor(account, floor, "retention");
    }

    fn raise_floor(&mut self, account: AccountNo, floor: u64, why: &'static str) {
        let mailbox = &mut self.dir.accounts[account.at()].mailbox;
        if floor <= mailbox.floor {
            return;
        }
        mailbox.floor = floor;
        if !core::mem::replace(&mut mailbox.dirty, true) {
            self.dirty_mailboxes.push(account);
        }
        self.facts.push(&crate::store::Fact::Trim { table: row::MAIL, a: account.0.into(), below: floor });
        for at in 0..self.dir.accounts[account.at()].online.len() {
            let online = self.dir.accounts[account.at()].online[at];
            let o = &self.online[online as usize];
            // Whoever pulls learns it when it does.
            if o.terminal.is_some() && o.is_pushed() {
                self.leap(online, floor, why);
            }
        }
    }
}
