//! Pulls: entries of the mailbox, messages of a conversation, and the list of conversations.

use super::body::{Body, put_place};
use super::json::{put_field, put_num, put_str};
use super::model::{AccountNo, ConvKind, ConvNo, GONE, MailEntry, MailKind};
use super::{Asker, Code, Done, Im, Origin, Out, Pending, Refusal, Verdict, number, object, row, text};
use crate::hub::Now;
use crate::store::{Answer, Direction, What};
use serde_json::json;
use std::rc::Rc;

/// Entries and messages of one answer, when nothing is said, and at most.
const SYNC_DEFAULT: u64 = 256;
const SYNC_MOST: u64 = 1_024;
const HISTORY_DEFAULT: u64 = 50;
const HISTORY_MOST: u64 = 500;
const CONVS_DEFAULT: u64 = 50;
const CONVS_MOST: u64 = 500;
/// Bytes of bodies in one answer.
const ANSWER_BYTES: u32 = 512 * 1024;
/// Reads one pull of history may cause when it looks for a time.
const LOOKS: u32 = 32;

/// What a pull waits for.
#[derive(Debug)]
pub(crate) struct Asked {
    asker: Asker,
    /// Place in `online`, and serial number, of the session that asks.
    online: Option<(u32, u32)>,
    what: Wanted,
}

impl Asked {
    /// Who asks.
    pub(super) fn account(&self) -> AccountNo {
        self.asker.account
    }
}

#[derive(Debug)]
enum Wanted {
    /// Mailbox entries behind `after`.
    Entries { after: u64, until: u64 },
    /// Their bodies.
    EntryBodies { after: u64, until: u64, is_partial: bool, entries: Vec<(u64, MailEntry)> },
    /// Messages.
    History(History),
    /// The last message of each.
    Convs { convs: Vec<ConvNo> },
}

/// A terminal says that it has every entry up to a position.
#[derive(Debug)]
pub(crate) struct Ack {
    token: u64,
    account: AccountNo,
    terminal: u8,
    session: Option<(u32, u32)>,
    pos: u64,
    /// Messages of which it is not known yet whether the account was shown them.
    unsure: Vec<(ConvNo, Vec<u64>)>,
}

/// Whether a message is one of others that is there still.
fn is_shown(value: &[u8], account: AccountNo) -> bool {
    Body::decode(value).is_ok_and(|body| body.from != account && !body.is_gone())
}

#[derive(Debug)]
struct History {
    conv: ConvNo,
    direction: Direction,
    from: u64,
    until: u64,
    since_ms: u64,
    before_ms: u64,
    max: u64,
    looks: u32,
    /// Messages, separated by commas.
    found: Vec<u8>,
    count: u64,
}

/// Lines of a pull: topic and payload of each entry.
#[derive(Debug, Default)]
struct Lines {
    bytes: Vec<u8>,
}

impl Lines {
    fn push(&mut self, topic: &str, payload: &[u8]) {
        if !self.bytes.is_empty() {
            self.bytes.push(b',');
        }
        self.bytes.extend_from_slice(b"{\"topic\":");
        put_str(&mut self.bytes, topic);
        self.bytes.extend_from_slice(b",\"payload\":");
        self.bytes.extend_from_slice(payload);
        self.bytes.push(b'}');
    }
}

impl Im {
    /// Whether an account may ask the store for one thing more.
    pub(super) fn may_pull(&self, origin: &Origin<'_>) -> Result<(), Refusal> {
        let most = self.limits.im_pulls_per_account_max;
        if origin.operator || self.pulls.get(&origin.account).is_none_or(|pulls| *pulls < most) {
            return Ok(());
        }
        let text = format!("{most} pulls of this account wait (limits.im_pulls_per_account_max): wait for an answer");
        Err(Refusal::new(Code::Quota, text))
    }

    /// The store has answered one.
    pub(super) fn pulled(&mut self, account: AccountNo) {
        if let Some(pulls) = self.pulls.get_mut(&account) {
            *pulls -= 1;
            if *pulls == 0 {
                self.pulls.remove(&account);
            }
        }
    }

    pub(super) fn on_sync(
        &mut self,
        now: Now,
        origin: &Origin<'_>,
        path: &str,
        payload: &[u8],
    ) -> Result<Verdict, Refusal> {
        self.may_pull(origin)?;
        let object = object(payload)?;
        let max = number(&object, "max")?.unwrap_or(SYNC_DEFAULT).clamp(1, SYNC_MOST);
        let terminal = self.terminal_of(origin);
        let a = &self.dir.accounts[origin.account.at()];
        let place = terminal.and_then(|no| a.terminal(no)).map_or(0, |t| t.acked);
        let after = number(&object, "after")?.unwrap_or(place);
        let until = a.mailbox.committed;
        let asker = Self::asker(origin, path, object.get("id").cloned());
        let online = self.online_of(origin).map(|at| (at, self.online[at as usize].serial));
        let from = after.saturating_add(1).max(self.dir.accounts[origin.account.at()].mailbox.floor);
        if from >= until {
            let asked = Asked { asker, online, what: Wanted::Entries { after, until } };
            self.synced(now, &asked, after, until, false, vec![], None);
            return Ok(Verdict::Later);
        }
        let what = What::Range {
            a: origin.account.0.into(),
            from,
            until,
            direction: Direction::Up,
            max_rows: u32::try_from(max).unwrap_or(u32::MAX),
            max_bytes: ANSWER_BYTES,
        };
        let asked = Asked { asker, online, what: Wanted::Entries { after, until } };
        self.ask(row::MAIL, what, Pending::Query(Box::new(asked)));
        Ok(Verdict::Later)
    }

    #[allow(clippy::too_many_arguments)]
    fn synced(
        &mut self,
        now: Now,
        asked: &Asked,
        after: u64,
        until: u64,
        is_partial: bool,
        entries: Vec<(u64, MailEntry)>,
        answer: Option<&Answer>,
    ) {
        let account = asked.asker.account;
        let floor = self.dir.accounts[account.at()].mailbox.floor;
        let mut lines = Lines::default();
        if after.saturating_add(1) < floor {
            let topic = format!("im/v1/me/in/{}/gap", self.name_of(account));
            let gap = json!({ "from": after + 1, "to": floor - 1, "why": "retention" });
            lines.push(&topic, gap.to_string().as_bytes());
        }
        let (at, is_stand_in) = self.reader(asked);
        let mut pos = if is_partial { after } else { until.max(1) - 1 };
        let found: crate::hash::Map<(u64, u64), Rc<[u8]>> =
            answer.into_iter().flat_map(Answer::iter).map(|r| ((r.a, r.b), r.value.into())).collect();
        for (at_pos, entry) in entries {
            pos = pos.max(at_pos);
            let body = found.get(&(u64::from(entry.conv), entry.seq)).cloned();
            if let Some((topic, payload)) = self.render_for_pull(now, at, at_pos, &entry, body.as_deref()) {
                lines.push(&topic, &payload);
            }
        }
        if !is_partial && !is_stand_in {
            self.pull_announcements(now, at, &mut lines);
        }
        if is_stand_in {
            self.dismiss_reader(at);
        }
        let mailbox = &self.dir.accounts[account.at()].mailbox;
        let mut reply = b"{\"pos\":".to_vec();
        put_num(&mut reply, pos.max(after));
        put_field(&mut reply, "head", mailbox.committed - 1);
        put_field(&mut reply, "floor", mailbox.floor);
        reply.extend_from_slice(if is_partial { b",\"more\":true" } else { b",\"more\":false" });
        reply.extend_from_slice(b",\"entries\":[");
        reply.append(&mut lines.bytes);
        reply.push(b']');
        self.answer_bytes(&asked.asker, reply);
    }

    /// What the channels have for a terminal, as part of its pull.
    fn pull_announcements(&mut self, now: Now, at: u32, lines: &mut Lines) {
        self.announcements_for(now, at);
        let channels: Vec<ConvNo> = self.online[at as usize]
            .logs_dirty
            .iter()
            .copied()
            .filter(|no| matches!(self.dir.convs[no.at()].kind, ConvKind::Channel(_)))
            .collect();
        for channel in channels {
            while let Some((topic, payload, change)) = self.next_announcement(now, at, channel) {
                lines.push(&topic, &payload);
                self.announcement_done(now, at, channel, change);
                if lines.bytes.len() > ANSWER_BYTES as usize {
                    return;
                }
            }
            self.online[at as usize].logs_dirty.remove(&channel);
        }
    }

    /// The session that pulls, or one that stands in for whoever acts without one (true).
    fn reader(&mut self, asked: &Asked) -> (u32, bool) {
        if let Some((at, serial)) = asked.online
            && self.online.get(at as usize).is_some_and(|o| o.serial == serial)
        {
            return (at, false);
        }
        let stand_in = super::Online::new(u32::MAX, 0, asked.asker.account, "".into(), false);
        (u32::try_from(self.online.insert(stand_in)).expect("fewer sessions than 2^32"), true)
    }

    fn dismiss_reader(&mut self, at: u32) {
        self.online.remove(at as usize);
    }

    pub(super) fn on_ack(&mut self, _now: Now, origin: &Origin<'_>, payload: &[u8]) -> Result<Verdict, Refusal> {
        let object = object(payload)?;
        let pos = number(&object, "pos")?.ok_or_else(|| Refusal::bad("\"pos\" is missing"))?;
        let account = origin.account;
        let Some(no) = self.terminal_of(origin) else {
            return Err(Refusal::not_found(
                "this client is no terminal yet: subscribe to im/v1/me/head or im/v1/me/in/#",
            ));
        };
        let head = self.dir.accounts[account.at()].mailbox.committed - 1;
        if pos > head {
            return Err(Refusal::bad(format!("pos {pos} is beyond the last entry, {head}")));
        }
        let acked = self.dir.accounts[account.at()].terminal(no).map_or(0, |t| t.acked);
        let token = self.next_token;
        self.next_token += 1;
        let ack = Ack { token, account, terminal: no, session: origin.session, pos, unsure: vec![] };
        let mailbox = &self.dir.accounts[account.at()].mailbox;
        // What is still in memory says which messages these were; others are read.
        let first = mailbox.recent_from().min(pos + 1);
        if acked + 1 < first {
            let what = What::Range {
                a: account.0.into(),
                from: acked + 1,
                until: pos + 1,
                direction: Direction::Up,
                max_rows: u32::MAX,
                max_bytes: u32::MAX,
            };
            self.ask(row::MAIL, what, Pending::Got(Box::new(ack)));
            return Ok(Verdict::Parked(token));
        }
        let entries: Vec<MailEntry> = (acked + 1..=pos).filter_map(|pos| mailbox.recent_at(pos)).collect();
        let ack = Ack { unsure: self.messages_of(account, entries), ..ack };
        Ok(match self.acknowledged(ack) {
            Some(done) => Verdict::Done(done),
            None => Verdict::Parked(token),
        })
    }

    /// The messages among these entries that the account is not known to have, by conversation, ascending.
    fn messages_of(&self, account: AccountNo, entries: Vec<MailEntry>) -> Vec<(ConvNo, Vec<u64>)> {
        let mut by_conv: std::collections::BTreeMap<ConvNo, Vec<u64>> = std::collections::BTreeMap::new();
        for entry in entries.into_iter().filter(|entry| entry.kind == MailKind::Message) {
            let conv = ConvNo(entry.conv);
            if self.dir.convs[conv.at()].member(account).is_some_and(|m| m.recv < entry.seq) {
                by_conv.entry(conv).or_default().push(entry.seq);
            }
        }
        by_conv.into_iter().collect()
    }

    /// Moves the marks of the account behind the last message of each conversation that it was shown, and the
    /// terminal's place. Its own messages, and those that were gone before it came, were not shown to it. `None`: the
    /// log must be read first.
    fn acknowledged(&mut self, mut ack: Ack) -> Option<Done> {
        let account = ack.account;
        let mut wanted = vec![];
        for (conv, seqs) in &mut ack.unsure {
            while let Some(seq) = seqs.last().copied() {
                let window = self.dir.convs[conv.at()].seen(seq);
                let in_window = window.map(|(sender, flags)| sender != account && flags & GONE == 0);
                let kept = || self.bodies.get(&(*conv, seq)).map(|value| is_shown(value, account));
                match in_window.or_else(kept) {
                    None => {
                        wanted.push((u64::from(conv.0), seq));
                        break;
                    }
                    Some(false) => {
                        seqs.pop();
                    }
                    Some(true) => {
                        seqs.clear();
                        self.mark_recv(account, *conv, seq);
                    }
                }
            }
        }
        if !wanted.is_empty() {
            self.ask(row::BODY, What::Rows(wanted), Pending::GotBodies(Box::new(ack)));
            return None;
        }
        if let Some(at) = ack.session.and_then(|session| self.live_session(session)) {
            let o = &mut self.online[at as usize];
            if o.next <= ack.pos && !o.is_pushed() {
                o.next = ack.pos + 1;
            }
        }
        self.move_place(account, ack.terminal, ack.pos);
        self.want_places();
        Some(Done { durable: true, ..Done::default() })
    }

    /// The entries that a terminal says it has were read.
    pub(super) fn got_entries(&mut self, mut ack: Ack, answer: &Answer) {
        let entries = answer.iter().filter_map(|found| MailEntry::decode(found.value).ok()).collect();
        ack.unsure = self.messages_of(ack.account, entries);
        self.go_on_with_ack(ack);
    }

    /// The last messages among them were read.
    pub(super) fn got_bodies(&mut self, mut ack: Ack, answer: &Answer) {
        for (conv, seqs) in &mut ack.unsure {
            let Some(seq) = seqs.pop() else { continue };
            let mut rows = answer.iter().filter(|found| found.a == u64::from(conv.0) && found.b == seq);
            if rows.next().is_some_and(|found| is_shown(found.value, ack.account)) {
                seqs.clear();
                self.mark_recv(ack.account, *conv, seq);
            }
        }
        self.go_on_with_ack(ack);
    }

    fn go_on_with_ack(&mut self, ack: Ack) {
        let token = ack.token;
        if let Some(done) = self.acknowledged(ack) {
            self.out.push_back(Out::Concluded { token, verdict: Ok(Verdict::Done(done)) });
        }
    }

    // ---- History ---------------------------------------------------------------------------------------------

    pub(super) fn on_history(
        &mut self,
        now: Now,
        origin: &Origin<'_>,
        path: &str,
        payload: &[u8],
    ) -> Result<Verdict, Refusal> {
        self.may_pull(origin)?;
        let object = object(payload)?;
        let with = text(&object, "with")?.ok_or_else(|| Refusal::bad("\"with\" is missing: whose conversation?"))?;
        let (before, after) = (number(&object, "before")?, number(&object, "after")?);
        let max = number(&object, "max")?.unwrap_or(HISTORY_DEFAULT).clamp(1, HISTORY_MOST);
        let (since_ms, before_ms) =
            (number(&object, "since")?.unwrap_or(0), number(&object, "until")?.unwrap_or(u64::MAX));
        if before.is_some() && after.is_some() {
            return Err(Refusal::bad("\"before\" and \"after\" exclude each other"));
        }
        let asker = Self::asker(origin, path, object.get("id").cloned());
        let conv = match self.conv_with(origin.account, with) {
            Ok(conv) => conv,
            // Two who may write to each other and have not yet have a conversation without messages.
            Err(refusal) => match self.account_no(with) {
                Some(_) => {
                    self.answer(&asker, json!({ "with": with, "messages": [], "more": false }));
                    return Ok(Verdict::Later);
                }
                None => return Err(refusal),
            },
        };
        let c = &self.dir.convs[conv.at()];
        let first = c.member(origin.account).map_or(1, super::model::Member::visible_from);
        let (direction, from, until) = match (before, after) {
            (_, Some(after)) => (Direction::Up, after.saturating_add(1).max(first), c.head + 1),
            (before, None) => (Direction::Down, first, before.unwrap_or(u64::MAX).min(c.head + 1)),
        };
        let online = self.online_of(origin).map(|at| (at, self.online[at as usize].serial));
        let history =
            History { conv, direction, from, until, since_ms, before_ms, max, looks: 0, found: vec![], count: 0 };
        let asked = Asked { asker, online, what: Wanted::History(history) };
        self.look_back(now, asked);
        Ok(Verdict::Later)
    }

    fn look_back(&mut self, now: Now, asked: Asked) {
        let Wanted::History(h) = &asked.what else { return };
        if h.from >= h.until || h.count >= h.max || h.looks >= LOOKS {
            return self.history_complete(now, asked);
        }
        let what = What::Range {
            a: h.conv.0.into(),
            from: h.from,
            until: h.until,
            direction: h.direction,
            max_rows: u32::try_from(h.max - h.count).unwrap_or(u32::MAX),
            max_bytes: ANSWER_BYTES,
        };
        self.ask(row::BODY, what, Pending::Query(Box::new(asked)));
    }

    fn history_found(&mut self, now: Now, mut asked: Asked, answer: &Answer) {
        let account = asked.asker.account;
        let level = asked.online.and_then(|(at, _)| self.online.get(at as usize)).map_or(0, |o| {
            let terminal = o.terminal.and_then(|no| self.dir.accounts[account.at()].terminal(no));
            terminal.map_or(o.level, |t| t.level)
        });
        let Wanted::History(h) = &mut asked.what else { return };
        h.looks += 1;
        let mut last = None;
        for found in answer {
            last = Some(found.b);
            let newer = self.bodies.get(&(h.conv, found.b));
            let Ok(body) = Body::decode(newer.map_or(found.value, |b| b)) else { continue };
            if body.ts < h.since_ms || body.ts >= h.before_ms {
                continue;
            }
            let out = &mut h.found;
            if !out.is_empty() {
                out.push(b',');
            }
            h.count += 1;
            out.push(b'{');
            put_place(out, found.b, 0, found.b - 1);
            let body = if body.is_expired(now.wall_ms) { body.wiped(0) } else { body };
            body.write(out, &self.dir.accounts[body.from.at()].name, level, now.wall_ms);
            out.push(b'}');
        }
        match (last, answer.is_partial) {
            (Some(last), true) if h.direction == Direction::Up => h.from = last + 1,
            (Some(last), true) => h.until = last,
            _ => h.from = h.until,
        }
        self.look_back(now, asked);
    }

    fn history_complete(&mut self, _now: Now, asked: Asked) {
        let Wanted::History(h) = asked.what else { return };
        let with = self.address_for(h.conv, asked.asker.account);
        let more = h.from < h.until;
        let mut reply = b"{\"with\":".to_vec();
        put_str(&mut reply, &with);
        reply.extend_from_slice(if more { b",\"more\":true" } else { b",\"more\":false" });
        if more {
            // Where to go on, also when many messages were looked at and none was of that time.
            put_field(&mut reply, "next", if h.direction == Direction::Up { h.from - 1 } else { h.until });
        }
        reply.extend_from_slice(b",\"messages\":[");
        reply.extend_from_slice(&h.found);
        reply.push(b']');
        self.answer_bytes(&asked.asker, reply);
    }

    // ---- Conversations ---------------------------------------------------------------------------------------

    pub(super) fn on_convs(
        &mut self,
        now: Now,
        origin: &Origin<'_>,
        path: &str,
        payload: &[u8],
    ) -> Result<Verdict, Refusal> {
        self.may_pull(origin)?;
        let object = object(payload)?;
        let max = number(&object, "max")?.unwrap_or(CONVS_DEFAULT).clamp(1, CONVS_MOST);
        let asker = Self::asker(origin, path, object.get("id").cloned());
        let mut convs: Vec<ConvNo> = self.dir.accounts[origin.account.at()]
            .convs
            .iter()
            .copied()
            .filter(|no| {
                let conv = &self.dir.convs[no.at()];
                conv.member(origin.account)
                    .is_some_and(|m| conv.kind != ConvKind::Direct || conv.head >= m.visible_from())
            })
            .collect();
        convs.sort_unstable_by_key(|no| core::cmp::Reverse(self.dir.convs[no.at()].last_ms));
        convs.truncate(usize::try_from(max).unwrap_or(usize::MAX));
        let wanted: Vec<(u64, u64)> = convs
            .iter()
            .map(|no| (u64::from(no.0), self.dir.convs[no.at()].head))
            .filter(|(_, head)| *head > 0)
            .collect();
        let asked = Asked { asker, online: None, what: Wanted::Convs { convs } };
        if wanted.is_empty() {
            self.convs_found(now, asked, None);
        } else {
            self.ask(row::BODY, What::Rows(wanted), Pending::Query(Box::new(asked)));
        }
        Ok(Verdict::Later)
    }

    fn convs_found(&mut self, _now: Now, asked: Asked, answer: Option<&Answer>) {
        let Wanted::Convs { convs } = asked.what else { return };
        let account = asked.asker.account;
        let mut lines = vec![];
        for no in convs {
            let head = self.dir.convs[no.at()].head;
            let kept = self.bodies.get(&(no, head)).cloned();
            let found = answer.and_then(|a| a.iter().find(|r| r.a == u64::from(no.0)));
            let last = kept.as_deref().or(found.map(|r| r.value));
            lines.extend(self.conv_line(account, no, last));
        }
        let unread = self.dir.accounts[account.at()].unread;
        self.answer(&asked.asker, json!({ "convs": lines, "unread": unread }));
    }

    /// The account's own view of a conversation.
    pub(super) fn on_conv(
        &mut self,
        now: Now,
        origin: &Origin<'_>,
        with: &str,
        payload: &[u8],
    ) -> Result<Verdict, Refusal> {
        let object = object(payload)?;
        let conv = self.conv_with(origin.account, with)?;
        let account = origin.account;
        match text(&object, "op")? {
            Some("clear") => {
                let head = self.dir.convs[conv.at()].head;
                if let Some(member) = self.dir.convs[conv.at()].member_mut(account) {
                    member.cleared = head;
                }
                self.set_read(now, conv, account, head, 0);
                self.touch_member(conv, account);
            }
            Some(op @ ("mute" | "unmute")) => {
                if let Some(member) = self.dir.convs[conv.at()].member_mut(account) {
                    member.muted = op == "mute";
                }
                self.touch_member(conv, account);
                self.badge(account, conv);
            }
            Some("info") => {}
            _ => return Err(Refusal::bad("\"op\" is one of clear, mute, unmute, info")),
        }
        let line = self.conv_line(account, conv, None).unwrap_or_default();
        Ok(Verdict::Done(Done::stored(line)))
    }

    /// The store has brought what a pull asked for.
    pub(super) fn query_answered(&mut self, now: Now, asked: Asked, answer: &Answer) {
        match &asked.what {
            Wanted::Entries { after, until } => {
                let (after, until) = (*after, *until);
                let entries: Vec<(u64, MailEntry)> =
                    answer.iter().filter_map(|found| Some((found.b, MailEntry::decode(found.value).ok()?))).collect();
                let wanted: Vec<(u64, u64)> = entries
                    .iter()
                    .filter(|(_, e)| matches!(e.kind, MailKind::Message | MailKind::Edit))
                    .map(|(_, e)| (u64::from(e.conv), e.seq))
                    .collect();
                let is_partial = answer.is_partial;
                // All of them or none: what is in memory now may not be when the store has answered.
                if wanted.iter().all(|(conv, seq)| self.has_body(*conv, *seq)) {
                    return self.synced(now, &asked, after, until, is_partial, entries, None);
                }
                let what = Wanted::EntryBodies { after, until, is_partial, entries };
                let asked = Asked { what, ..asked };
                self.ask(row::BODY, What::Rows(wanted), Pending::Query(Box::new(asked)));
            }
            Wanted::EntryBodies { .. } => {
                let Asked { asker, online, what } = asked;
                let Wanted::EntryBodies { after, until, is_partial, entries } = what else { return };
                let asked = Asked { asker, online, what: Wanted::Entries { after, until } };
                self.synced(now, &asked, after, until, is_partial, entries, Some(answer));
            }
            Wanted::History(_) => self.history_found(now, asked, answer),
            Wanted::Convs { .. } => self.convs_found(now, asked, Some(answer)),
        }
    }
}
