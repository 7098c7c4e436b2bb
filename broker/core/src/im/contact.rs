//! Contacts: both sides agree, either side may end it.
//!
//! What two accounts are to each other is a row on each side, and both are written in the same batch. A channel that
//! is followed is kept in the same table: there is nobody on the other side who would have to agree.

mod follow;
mod right;
#[cfg(test)]
pub(super) mod testing;
#[cfg(test)]
mod tests;

use super::model::{AccountNo, Contact, ContactOp, ConvNo, MailEntry, MailKind, Relation};
use super::name::{NameKind, name_kind};
use super::online::Class;
use super::{Asker, Code, Done, Im, Origin, Refusal, Verdict, object, row, shorten, text};
use crate::hub::Now;
use crate::store::bytes::DecodeError;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Longest text of a request, characters.
const TEXT_CHARS: usize = 200;
/// In the second half of a contact row's key: what follows is the number of a channel, not of an account.
const CHANNEL: u64 = 1 << 32;
const HOUR_MS: u64 = 3_600_000;
const DAY_MS: u64 = 24 * HOUR_MS;

/// What is kept of contacts beside each account's own list.
#[derive(Debug, Default)]
pub(crate) struct Contacts {
    /// Text of a request that waits: who has asked, who is asked.
    texts: BTreeMap<(AccountNo, AccountNo), Box<str>>,
    /// Who follows which channel, and since when (milliseconds since 1970).
    follows: BTreeMap<(AccountNo, ConvNo), u64>,
    /// Requests of each account in this hour, and the hour since 1970. Whoever asks and takes it back, again and again,
    /// would fill the mailbox of somebody who has agreed to nothing.
    asked: BTreeMap<AccountNo, u64>,
    hour: u64,
}

impl Relation {
    fn text(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Asked => "asked",
            Self::Asking => "asking",
            Self::Friends => "friends",
            Self::Follows => "follows",
        }
    }
}

impl Im {
    // ---- Requests --------------------------------------------------------------------------------------------

    pub(super) fn on_contacts(&mut self, _now: Now, origin: &Origin<'_>, _payload: &[u8]) -> Result<Verdict, Refusal> {
        let me = self.acting(origin)?;
        let others = self.dir.accounts[me.at()].contacts.keys();
        let mut list: Vec<Value> = others.map(|other| self.render_contact(me, *other)).collect();
        list.extend(self.followed(me).map(|(conv, since_ms)| self.render_follow(conv, Some(since_ms))));
        Ok(Verdict::Done(Done::told(json!({ "contacts": list }))))
    }

    pub(super) fn on_contact(
        &mut self,
        now: Now,
        origin: &Origin<'_>,
        with: &str,
        payload: &[u8],
    ) -> Result<Verdict, Refusal> {
        let me = self.acting(origin)?;
        let fields = object(payload)?;
        let op = text(&fields, "op")?.ok_or_else(|| Refusal::bad("a contact needs \"op\": request, accept, …"))?;
        self.not_too_fast(now, origin)?;
        if name_kind(with) == Some(NameKind::Channel) {
            return self.on_follow(now, me, with, op);
        }
        let other = self
            .account_no(with)
            .ok_or_else(|| Refusal::not_found(format!("there is no account {}", shorten(with))))?;
        if other == me {
            return Err(Refusal::bad("an account is no contact of its own"));
        }
        match op {
            "request" => {
                let words = text(&fields, "text")?.unwrap_or_default();
                self.contact_request(now, me, other, words)?;
            }
            "accept" => self.contact_accept(now, me, other)?,
            "refuse" => self.contact_refuse(now, me, other)?,
            "remove" => self.contact_remove(now, me, other)?,
            "block" => self.contact_block(now, me, other)?,
            "unblock" => self.set_blocked(now, me, other, Block::Off),
            "mute" => self.contact_mute(now, me, other, Sound::Muted)?,
            "unmute" => self.contact_mute(now, me, other, Sound::Heard)?,
            "follow" | "unfollow" => return Err(Refusal::bad("only channels (ch-…) are followed")),
            _ => return Err(Refusal::bad(format!("\"op\" of a contact is not {}", shorten(op)))),
        }
        let reply = self.render_contact(me, other);
        if matches!(op, "block" | "unblock" | "mute" | "unmute") {
            self.tell_other_sessions(origin, with, &reply);
        }
        // Also when nothing had to be changed: what makes it so may still be on its way to the disk.
        Ok(Verdict::Done(Done::stored(reply)))
    }

    fn contact_request(&mut self, now: Now, me: AccountNo, other: AccountNo, words: &str) -> Result<(), Refusal> {
        if words.chars().count() > TEXT_CHARS {
            let text = format!("the text of a request has at most {TEXT_CHARS} characters");
            return Err(Refusal::new(Code::TooLarge, text));
        }
        self.neither_blocks(me, other)?;
        match self.contact(me, other).relation {
            Relation::Friends | Relation::Asked | Relation::Follows => Ok(()),
            Relation::Asking => {
                self.befriend(now, me, other);
                self.tell_contact(now, me, other, ContactOp::Accept);
                Ok(())
            }
            Relation::None => {
                self.may_ask(now, me, other)?;
                if !words.is_empty() {
                    self.pairings.contacts.texts.insert((me, other), words.into());
                }
                self.relate(now, me, other, Relation::Asked);
                self.relate(now, other, me, Relation::Asking);
                self.tell_contact(now, me, other, ContactOp::Request);
                Ok(())
            }
        }
    }

    /// Whether there is room for one more request between the two; if so, it is counted.
    fn may_ask(&mut self, now: Now, me: AccountNo, other: AccountNo) -> Result<(), Refusal> {
        let most = self.limits.im_requests_waiting_max;
        for (account, waits_as, whose) in [(me, Relation::Asked, "you have"), (other, Relation::Asking, "it has")] {
            let contacts = self.dir.accounts[account.at()].contacts.values();
            if contacts.filter(|c| c.relation == waits_as).count() as u64 >= most {
                let text = format!("{whose} {most} requests waiting (limits.im_requests_waiting_max)");
                return Err(Refusal::new(Code::Quota, text));
            }
        }
        self.has_room_for_contact(me, other)?;
        self.has_room_for_contact(other, me)?;
        let (contacts, most) = (&mut self.pairings.contacts, self.limits.im_requests_per_hour_max);
        let hour = now.wall_ms / HOUR_MS;
        if contacts.hour != hour {
            contacts.hour = hour;
            contacts.asked.clear();
        }
        let asked = contacts.asked.entry(me).or_default();
        if *asked >= most {
            let text = format!("you made {most} requests in this hour (limits.im_requests_per_hour_max)");
            return Err(Refusal::new(Code::Quota, text));
        }
        *asked += 1;
        Ok(())
    }

    /// Whether `account` may have one contact more, or has it already.
    pub(super) fn has_room_for_contact(&self, account: AccountNo, other: AccountNo) -> Result<(), Refusal> {
        let (contacts, most) = (&self.dir.accounts[account.at()].contacts, self.limits.im_contacts_per_account_max);
        if contacts.contains_key(&other) || (contacts.len() as u64) < most {
            return Ok(());
        }
        let text = format!("{} has {most} contacts (limits.im_contacts_per_account_max)", self.name_of(account));
        Err(Refusal::new(Code::Quota, text))
    }

    fn contact_accept(&mut self, now: Now, me: AccountNo, other: AccountNo) -> Result<(), Refusal> {
        match self.contact(me, other).relation {
            Relation::Friends => Ok(()),
            Relation::Asking => {
                self.befriend(now, me, other);
                self.tell_contact(now, me, other, ContactOp::Accept);
                Ok(())
            }
            _ => Err(self.has_not_asked(other)),
        }
    }

    fn contact_refuse(&mut self, now: Now, me: AccountNo, other: AccountNo) -> Result<(), Refusal> {
        if self.contact(me, other).relation != Relation::Asking {
            return Err(self.has_not_asked(other));
        }
        self.part(now, me, other);
        self.tell_contact(now, me, other, ContactOp::Refuse);
        Ok(())
    }

    fn has_not_asked(&self, other: AccountNo) -> Refusal {
        Refusal::not_found(format!("no request of {} waits", self.name_of(other)))
    }

    /// Ends a contact, withdraws a request, or refuses one.
    fn contact_remove(&mut self, now: Now, me: AccountNo, other: AccountNo) -> Result<(), Refusal> {
        let op = match self.contact(me, other).relation {
            Relation::None => return Err(Refusal::not_found(format!("{} is no contact", self.name_of(other)))),
            Relation::Asking => ContactOp::Refuse,
            _ => ContactOp::Remove,
        };
        self.part(now, me, other);
        self.tell_contact(now, me, other, op);
        Ok(())
    }

    /// Whoever is blocked reaches the blocker no more. A contact stays one, for the day the block is lifted; a
    /// request that waits ends.
    fn contact_block(&mut self, now: Now, me: AccountNo, other: AccountNo) -> Result<(), Refusal> {
        self.has_room_for_contact(me, other)?;
        match self.contact(me, other).relation {
            Relation::Asked => {
                self.part(now, me, other);
                self.tell_contact(now, me, other, ContactOp::Remove);
            }
            Relation::Asking => {
                self.part(now, me, other);
                self.tell_contact(now, me, other, ContactOp::Refuse);
            }
            _ => {}
        }
        self.set_blocked(now, me, other, Block::On);
        Ok(())
    }

    fn set_blocked(&mut self, now: Now, me: AccountNo, other: AccountNo, block: Block) {
        let (contact, blocked) = (self.contact_since(now, me, other), block == Block::On);
        if contact.blocked != blocked {
            self.set_contact(me, other, Contact { blocked, ..contact });
            self.rights += 1;
            self.sight_changed(me, other);
        }
    }

    /// `account`'s side, for a change that is none of the relation: only what begins with it begins now.
    fn contact_since(&self, now: Now, account: AccountNo, other: AccountNo) -> Contact {
        let contact = self.contact(account, other);
        let since_ms = if contact.relation == Relation::None { now.wall_ms } else { contact.since_ms };
        Contact { since_ms, ..contact }
    }

    fn contact_mute(&mut self, now: Now, me: AccountNo, other: AccountNo, sound: Sound) -> Result<(), Refusal> {
        self.has_room_for_contact(me, other)?;
        let (contact, muted) = (self.contact_since(now, me, other), sound == Sound::Muted);
        if contact.muted != muted {
            self.set_contact(me, other, Contact { muted, ..contact });
        }
        // The conversation's own switch says the same from now on.
        if let Some(&conv) = self.dir.direct.get(&(me.min(other), me.max(other)))
            && let Some(member) = self.dir.convs[conv.at()].member_mut(me)
            && core::mem::replace(&mut member.muted, muted) != muted
        {
            self.touch_member(conv, me);
            self.badge(me, conv);
        }
        Ok(())
    }

    // ---- What the other rooms ask ----------------------------------------------------------------------------

    /// Whoever asks, if it is an account that is there.
    pub(super) fn acting(&self, origin: &Origin<'_>) -> Result<AccountNo, Refusal> {
        match self.dir.accounts.get(origin.account.at()) {
            Some(account) if !account.removed => Ok(origin.account),
            _ => Err(Refusal::new(Code::NoAccount, "this needs an account: connect as one")),
        }
    }

    /// Changes come no faster than messages may.
    pub(super) fn not_too_fast(&mut self, now: Now, origin: &Origin<'_>) -> Result<(), Refusal> {
        let (rate, burst) = (self.limits.im_account_rate_max, self.limits.im_account_burst_max);
        if origin.operator || self.dir.accounts[origin.account.at()].flood.take(now.ms, rate, burst) {
            return Ok(());
        }
        Err(Refusal::new(Code::Quota, "this account does more than it may in a second (limits.im_account_rate_max)"))
    }

    /// `account`'s side of what it is to `other`.
    pub(super) fn contact(&self, account: AccountNo, other: AccountNo) -> Contact {
        let contacts = self.dir.accounts.get(account.at()).map(|a| &a.contacts);
        contacts.and_then(|c| c.get(&other)).copied().unwrap_or_default()
    }

    /// Text of the request that waits between the two, whoever has asked; empty: none.
    pub(super) fn contact_text(&self, account: AccountNo, other: AccountNo) -> &str {
        let texts = &self.pairings.contacts.texts;
        texts.get(&(other, account)).or_else(|| texts.get(&(account, other))).map_or("", |text| text)
    }

    /// Requests that nobody has answered in their time end, and both sides learn so.
    pub(super) fn contacts_daily(&mut self, now: Now) {
        let keep_ms = self.limits.im_request_wait_days.saturating_mul(DAY_MS);
        let is_over = |c: &Contact| c.relation == Relation::Asked && c.since_ms.saturating_add(keep_ms) <= now.wall_ms;
        let mut over = vec![];
        for (no, account) in (0..).map(AccountNo).zip(&self.dir.accounts) {
            over.extend(account.contacts.iter().filter(|(_, c)| is_over(c)).map(|(other, _)| (no, *other)));
        }
        for (asker, asked) in over {
            self.part(now, asker, asked);
            self.mail_contact(now, asked, asker, ContactOp::Remove, By::Other);
            self.mail_contact(now, asker, asked, ContactOp::Remove, By::Other);
        }
    }

    /// Both are contacts from now on.
    pub(super) fn befriend(&mut self, now: Now, a: AccountNo, b: AccountNo) {
        self.forget_text(a, b);
        self.relate(now, a, b, Relation::Friends);
        self.relate(now, b, a, Relation::Friends);
        self.rights += 1;
        self.sight_changed(a, b);
    }

    /// Neither is anything to the other any more; a block and a mute stay.
    pub(super) fn part(&mut self, now: Now, a: AccountNo, b: AccountNo) {
        self.forget_text(a, b);
        self.relate(now, a, b, Relation::None);
        self.relate(now, b, a, Relation::None);
        self.rights += 1;
        self.sight_changed(a, b);
    }

    /// An account is gone: nothing is left of its contacts on either side, and those who had it as one learn so.
    pub(super) fn forget_contacts(&mut self, now: Now, gone: AccountNo) {
        let others: Vec<AccountNo> = (0..)
            .map(AccountNo)
            .zip(&self.dir.accounts)
            .filter(|(no, account)| {
                account.contacts.contains_key(&gone) || self.contact(gone, *no) != Contact::default()
            })
            .map(|(no, _)| no)
            .collect();
        for other in others {
            let knew = self.contact(other, gone).relation != Relation::None;
            self.forget_text(gone, other);
            self.set_contact(gone, other, Contact::default());
            self.set_contact(other, gone, Contact::default());
            self.sight_changed(gone, other);
            if knew {
                self.mail_contact(now, other, gone, ContactOp::Remove, By::Other);
            }
        }
        self.forget_follows(gone);
    }

    /// Who sees whom has changed between two accounts: the sessions of both are told anew what they may see.
    pub(super) fn sight_changed(&mut self, a: AccountNo, b: AccountNo) {
        self.look_again(a, &[b]);
        self.look_again(b, &[a]);
    }

    /// What the sessions of `viewer` may see of these accounts has changed.
    pub(super) fn look_again(&mut self, viewer: AccountNo, of: &[AccountNo]) {
        for at in 0..self.dir.accounts[viewer.at()].online.len() {
            let online = self.dir.accounts[viewer.at()].online[at];
            let o = &mut self.online[online as usize];
            let presence = o.wants(Class::Presence) || o.wants(Class::Avail);
            let state = o.wants(Class::State);
            if presence {
                o.presence_dirty.extend(of);
            }
            if state {
                o.state_dirty.extend(of);
            }
            if presence || state {
                self.wake(online);
            }
        }
    }

    // ---- Rows ------------------------------------------------------------------------------------------------

    /// Reads a row of [`row::CONTACT`].
    pub(super) fn restore_contact(&mut self, account: AccountNo, b: u64, value: &[u8]) -> Result<(), DecodeError> {
        let contact = Contact::decode(value)?;
        let Ok(other) = u32::try_from(b) else {
            let conv = u32::try_from(b - CHANNEL).map_err(|_| DecodeError::IntegerTooLong)?;
            self.pairings.contacts.follows.insert((account, ConvNo(conv)), contact.since_ms);
            return Ok(());
        };
        // The text follows what `Contact` reads.
        let mut r = crate::store::bytes::Reader::new(value);
        for _ in 0..contact.encode().len() {
            r.byte()?;
        }
        if r.used() < value.len() {
            let text = r.str()?;
            self.pairings.contacts.texts.insert((AccountNo(other), account), text.into());
        }
        if let Some(account) = self.dir.accounts.get_mut(account.at()) {
            account.contacts.insert(AccountNo(other), contact);
        }
        Ok(())
    }

    fn relate(&mut self, now: Now, account: AccountNo, other: AccountNo, relation: Relation) {
        let contact = self.contact(account, other);
        self.set_contact(account, other, Contact { relation, since_ms: now.wall_ms, ..contact });
    }

    /// Keeps one side, or forgets it when it says nothing.
    fn set_contact(&mut self, account: AccountNo, other: AccountNo, contact: Contact) {
        let contacts = &mut self.dir.accounts[account.at()].contacts;
        if contact.relation == Relation::None && !contact.blocked && !contact.muted {
            if contacts.remove(&other).is_some() {
                self.del(row::CONTACT, account.0.into(), other.0.into());
            }
            return;
        }
        contacts.insert(other, contact);
        let mut value = contact.encode();
        if contact.relation == Relation::Asking
            && let Some(text) = self.pairings.contacts.texts.get(&(other, account))
        {
            crate::store::bytes::put_bytes(&mut value, text.as_bytes());
        }
        self.put(row::CONTACT, account.0.into(), other.0.into(), &value);
    }

    fn forget_text(&mut self, a: AccountNo, b: AccountNo) {
        let texts = &mut self.pairings.contacts.texts;
        texts.remove(&(a, b));
        texts.remove(&(b, a));
    }

    // ---- Telling ---------------------------------------------------------------------------------------------

    /// The other side learns what `me` has done, unless it wants to hear nothing of it, and so do the other terminals
    /// of `me`.
    pub(super) fn tell_contact(&mut self, now: Now, me: AccountNo, other: AccountNo, op: ContactOp) {
        if !self.contact(other, me).blocked {
            self.mail_contact(now, other, me, op, By::Other);
        }
        if self.dir.accounts[me.at()].terminals.len() > 1 {
            self.mail_contact(now, me, other, op, By::Itself);
        }
    }

    fn mail_contact(&mut self, now: Now, to: AccountNo, about: AccountNo, op: ContactOp, by: By) {
        let seq = now.wall_ms << 1 | u64::from(by == By::Itself);
        self.mail(now, to, MailEntry { kind: MailKind::Contact, conv: about.0, seq, extra: op as u32 });
    }

    /// What is this account's own business, and in no mailbox, is told to the sessions that did not ask for it.
    fn tell_other_sessions(&mut self, origin: &Origin<'_>, with: &str, reply: &Value) {
        let asking = self.online_of(origin);
        for online in self.dir.accounts[origin.account.at()].online.clone() {
            if Some(online) == asking {
                continue;
            }
            let o = &self.online[online as usize];
            let asker = Asker {
                account: o.account,
                session: Some((o.session, o.generation)),
                token: 0,
                topic: "im/v1/me/contact/res".into(),
                correlation: None,
                re: format!("me/contact/{with}"),
                id: None,
            };
            self.after_commit_tell(asker, reply.clone());
        }
    }

    pub(super) fn render_contact(&self, me: AccountNo, other: AccountNo) -> Value {
        let (contact, account) = (self.contact(me, other), &self.dir.accounts[other.at()]);
        let mut value = json!({
            "addr": &*account.name,
            "kind": account.kind.text(),
            "state": contact.relation.text(),
            "blocked": contact.blocked,
            "muted": contact.muted,
            "since": contact.since_ms,
        });
        if !account.display.is_empty() {
            value["name"] = account.display.as_str().into();
        }
        let words = self.contact_text(me, other);
        if !words.is_empty() {
            value["text"] = words.into();
        }
        value
    }
}

/// Who has done what an entry says of a contact.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum By {
    Other,
    /// Another terminal of the account whose mailbox it is.
    Itself,
}

/// Reads `seq` of a [`MailKind::Contact`] entry: when it was (milliseconds since 1970), and who did it. The contact
/// itself may be gone by the time the entry is read.
pub(super) fn contact_event(seq: u64) -> (u64, By) {
    (seq >> 1, if seq & 1 == 1 { By::Itself } else { By::Other })
}

/// Whether somebody is heard of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Block {
    On,
    Off,
}

/// Whether messages of somebody count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sound {
    Muted,
    Heard,
}
