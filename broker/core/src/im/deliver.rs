//! Deliveries: what goes to a session next, and what its acknowledgements mean.
//!
//! A session is sent, in this order: notes, the latest of what only the latest matters of, the messages a terminal is
//! given that was not there before, its mailbox, and the logs it follows. Places move when the client acknowledges.

use super::body::{Body, put_place};
use super::contact::{By, contact_event};
use super::json::{put_field, put_num, put_text};
use super::model::{AccountNo, ContactOp, ConvKind, ConvNo, MailEntry, MailKind};
use super::online::{Class, Flight, Note, Online, Tag, body_of};
use super::wire::{Sending, Wire};
use super::{Code, Im, Pending, row};
use crate::hub::Now;
use crate::store::{Answer, Direction, What};
use parlor_protocol::mqtt::Property;
use std::rc::Rc;

/// Packet identifiers of mailbox entries: `MAIL_IDS + pos % MAIL_ROUND`, so that a retry has the identifier it had.
/// Those below belong to the MQTT queue, those above to notes.
pub(crate) const MAIL_IDS: u16 = 32_768;
pub(super) const MAIL_ROUND: u64 = 16_384;
pub(super) const NOTE_IDS: u16 = 49_152;
const NOTE_ROUND: u16 = 16_383;
/// Entries that one session may have under way or behind one that is.
const FLIGHT: usize = 16_000;
/// Rows of one read.
pub(super) const PAGE_ROWS: u32 = 256;
pub(super) const PAGE_BYTES: u32 = 256 * 1024;
/// Entries of a mailbox kept in memory for sessions that are behind.
pub(super) const RECENT: usize = 256;
/// Places where an entry was skipped, kept for one session.
const SKIPPED: usize = 64;

/// What came of a look at the mailbox.
enum Step {
    Sent(Sending),
    Skipped,
    Blocked,
}

impl Im {
    /// The next packet for a session, made in the wire; `None`: nothing may go now. `credit`: QoS 1 packets that its
    /// Receive Maximum still allows.
    pub(crate) fn next(&mut self, now: Now, session: u32, credit: usize) -> Option<Sending> {
        let at = *self.by_session.get(&session)?;
        if credit == 0 || !self.online[at as usize].is_live {
            return None;
        }
        self.wire.clear();
        let sent = self.next_note(at).or_else(|| self.next_latest(at));
        let sent = sent.or_else(|| self.next_extra(now, at));
        sent.or_else(|| {
            loop {
                match self.next_mail(now, at) {
                    Step::Sent(sending) => return Some(sending),
                    Step::Skipped => {}
                    Step::Blocked => return self.next_log(now, at),
                }
            }
        })
    }

    /// A packet that is larger than the client takes counts as done.
    pub(crate) fn give_up(&mut self, now: Now, session: u32, packet_id: u16) {
        let Some(&at) = self.by_session.get(&session) else { return };
        let o = &mut self.online[at as usize];
        o.under_way = o.under_way.saturating_sub(1);
        if packet_id >= NOTE_IDS {
            let sent = o.notes_sent.iter().position(|(id, _)| *id == packet_id).map(|at| o.notes_sent.remove(at));
            if let Some((_, Tag::Command { device, no })) = sent {
                self.command_too_large(now, device, no);
            }
        } else if let Some(last) = o.flight.back_mut() {
            *last = Flight::Done;
            self.advance(at);
        }
        self.counters.dropped.add("packet_too_large");
    }

    /// The packet that [`Im::next`] made.
    pub(crate) fn wire(&self) -> &Wire {
        &self.wire
    }

    /// To take it out and put it back, so that it need not be copied.
    pub(crate) fn wire_mut(&mut self) -> &mut Wire {
        &mut self.wire
    }

    /// QoS 1 packets under way to a session.
    pub(crate) fn in_flight(&self, session: u32) -> usize {
        self.by_session.get(&session).map_or(0, |at| self.online[*at as usize].under_way)
    }

    /// Whether a session takes part.
    pub(crate) fn takes_part(&self, session: u32) -> bool {
        self.by_session.contains_key(&session)
    }

    fn next_note(&mut self, at: u32) -> Option<Sending> {
        loop {
            let o = &mut self.online[at as usize];
            let note = o.notes.pop_front()?;
            o.notes_bytes = o.notes_bytes.saturating_sub(note.payload.len() + note.topic.len() + 64);
            if let Some(sending) = self.send_note(at, &note) {
                return Some(sending);
            }
        }
    }

    pub(super) fn send_note(&mut self, at: u32, note: &Note) -> Option<Sending> {
        let o = &mut self.online[at as usize];
        let (qos, ids) = o.wants_topic(note.class, &note.topic)?;
        let qos = if matches!(note.class, Class::Typing | Class::Stream) || note.is_volatile { 0 } else { qos };
        self.wire.topic.push_str(&note.topic);
        self.wire.payload.extend_from_slice(&note.payload);
        if o.v5 {
            let out = &mut self.wire.properties;
            if let Some(topic) = &note.response_topic {
                Property::ResponseTopic(topic).encode(out);
            }
            if let Some(data) = &note.correlation {
                Property::CorrelationData(data).encode(out);
            }
            out.extend_from_slice(&ids);
        }
        let packet_id = (qos > 0).then(|| o.note_id(note.tag));
        self.counters.sent += 1;
        let least = if note.tag == Tag::Range { super::blob::LEAST_BYTES } else { usize::MAX };
        Some(Sending { qos, packet_id, retain: note.retain, dup: false, least })
    }

    // ---- The mailbox -----------------------------------------------------------------------------------------

    fn next_mail(&mut self, now: Now, at: u32) -> Step {
        let o = &mut self.online[at as usize];
        let (account, pos) = (o.account, o.next);
        let has_extra = o.is_loading_extra || !o.backfill.is_empty() || !o.extra.is_empty();
        if o.terminal.is_none() || !o.is_pushed() || o.flight.len() >= FLIGHT || has_extra {
            return Step::Blocked;
        }
        let mailbox = &self.dir.accounts[account.at()].mailbox;
        if pos < mailbox.floor {
            // It was away, or pulled.
            let floor = mailbox.floor;
            self.leap(at, floor, "retention");
            // It is told so first.
            self.wake(at);
            return Step::Blocked;
        }
        if pos >= mailbox.committed {
            return Step::Blocked;
        }
        while o.page.front().is_some_and(|(at, ..)| *at < pos) {
            o.page.pop_front();
        }
        let (entry, body) = if pos < o.page_until {
            match o.page.front() {
                Some((at, ..)) if *at == pos => match o.page.pop_front() {
                    Some((_, entry, body)) => (entry, body),
                    None => return Step::Blocked,
                },
                // Nothing was found there: it is done with, or kept no longer.
                _ => return self.skip(at, None),
            }
        } else {
            match mailbox.recent_at(pos) {
                Some(entry) => (entry, None),
                None => {
                    self.load_mail(at);
                    return Step::Blocked;
                }
            }
        };
        let conv = ConvNo(entry.conv);
        let needs_body = matches!(entry.kind, MailKind::Message | MailKind::Edit);
        // What is in memory is what the message is now.
        let body = if needs_body { self.bodies.get(&(conv, entry.seq)).cloned().or(body) } else { None };
        if needs_body && body.is_none() {
            if pos >= self.online[at as usize].page_until {
                self.load_mail(at);
                return Step::Blocked;
            }
            return self.skip(at, Some((conv, entry.seq)));
        }
        let step = self.send_mail(now, at, pos, &entry, body.as_deref());
        let o = &mut self.online[at as usize];
        if matches!(step, Step::Blocked) && pos < o.page_until {
            // It is looked at again.
            o.page.push_front((pos, entry, body));
        }
        step
    }

    /// Moves on behind a position without sending it. `message`: it was a message.
    fn skip(&mut self, at: u32, message: Option<(ConvNo, u64)>) -> Step {
        if let Some((conv, seq)) = message {
            let before = self.prev_of(at, conv, seq);
            let o = &mut self.online[at as usize];
            o.skipped.retain(|(c, ..)| *c != conv);
            o.skipped.push((conv, seq, before));
            if o.skipped.len() > SKIPPED {
                o.skipped.remove(0);
            }
        }
        let o = &mut self.online[at as usize];
        o.next += 1;
        o.flight.push_back(Flight::Done);
        self.advance(at);
        Step::Skipped
    }

    /// The seq before this one that the session's account got in the conversation.
    fn prev_of(&self, at: u32, conv: ConvNo, seq: u64) -> u64 {
        let o = &self.online[at as usize];
        let joined = self.dir.convs[conv.at()].member(o.account).map_or(0, |m| m.joined.max(m.cleared));
        let prev = if seq - 1 <= joined { 0 } else { seq - 1 };
        o.skipped.iter().find(|(c, skipped, _)| *c == conv && *skipped == prev).map_or(prev, |(.., before)| *before)
    }

    fn send_mail(&mut self, now: Now, at: u32, pos: u64, entry: &MailEntry, body: Option<&[u8]>) -> Step {
        let conv = ConvNo(entry.conv);
        let message = (entry.kind == MailKind::Message).then_some((conv, entry.seq));
        let Some((class, own)) = self.render_mail(now, at, pos, entry, body) else {
            self.wire.clear();
            return self.skip(at, message);
        };
        let o = &self.online[at as usize];
        let Some((qos, ids)) = o.wants_topic(class, &self.wire.topic) else {
            self.wire.clear();
            if self.may_still_subscribe(now, at, class) {
                return Step::Blocked;
            }
            return self.skip(at, message);
        };
        if o.v5 {
            self.wire.properties.extend_from_slice(&ids);
        }
        let o = &mut self.online[at as usize];
        o.next += 1;
        self.counters.sent += 1;
        if qos == 0 {
            o.flight.push_back(Flight::Done);
            self.advance(at);
            return Step::Sent(Sending { qos: 0, packet_id: None, retain: false, dup: false, least: usize::MAX });
        }
        o.flight.push_back(Flight::Sent(message.filter(|_| !own)));
        o.under_way += 1;
        let dup = pos < o.resent_below;
        Step::Sent(Sending { qos: 1, packet_id: Some(mail_id(pos)), retain: false, dup, least: usize::MAX })
    }

    /// Writes topic, payload and properties of an entry; `None`: there is nothing to say. True: it is the account's own
    /// message.
    fn render_mail(
        &mut self,
        now: Now,
        at: u32,
        pos: u64,
        entry: &MailEntry,
        body: Option<&[u8]>,
    ) -> Option<(Class, bool)> {
        let conv = ConvNo(entry.conv);
        let account = self.online[at as usize].account;
        if entry.kind == MailKind::Message {
            let body = body_of(body?)?;
            return self.render_message(now, at, pos, conv, entry.seq, &body);
        }
        let mut wire = core::mem::take(&mut self.wire);
        let class = self.render_entry(now, at, account, pos, entry, body, &mut wire);
        self.wire = wire;
        class.map(|class| (class, false))
    }

    fn render_message(
        &mut self,
        now: Now,
        at: u32,
        pos: u64,
        conv: ConvNo,
        seq: u64,
        body: &Body<'_>,
    ) -> Option<(Class, bool)> {
        let prev = self.prev_of(at, conv, seq);
        let account = self.online[at as usize].account;
        let member = self.dir.convs[conv.at()].member(account);
        // What is in the mailbox was said while it was a member, perhaps an earlier time.
        let visible_from = member.map_or(0, |m| if pos == 0 { m.visible_from() } else { m.cleared + 1 });
        if seq < visible_from || body.is_gone() || body.is_expired(now.wall_ms) {
            return None;
        }
        let (own, level, v5) = (body.from == account, self.level_of(at), self.online[at as usize].v5);
        let address = self.address_for(conv, account);
        let from = Rc::clone(self.name_of(body.from));
        let wire = &mut self.wire;
        let class = if own {
            wire.topic.push_str("im/v1/me/sent");
            wire.payload.extend_from_slice(b"{");
            put_place(&mut wire.payload, seq, pos, prev);
            put_text(&mut wire.payload, "to", &address);
            Class::Sent
        } else {
            wire.topic.push_str("im/v1/me/in/");
            wire.topic.push_str(&address);
            wire.topic.push_str("/msg");
            wire.payload.extend_from_slice(b"{");
            put_place(&mut wire.payload, seq, pos, prev);
            Class::Msg
        };
        body.write(&mut wire.payload, &from, level, now.wall_ms);
        wire.payload.push(b'}');
        if v5 {
            if body.expires_ms != 0 {
                let left = body.expires_ms.saturating_sub(now.wall_ms).div_ceil(1000);
                Property::MessageExpiryInterval(u32::try_from(left).unwrap_or(u32::MAX)).encode(&mut wire.properties);
            }
            put_user(&mut wire.properties, "im-seq", seq);
            put_user(&mut wire.properties, "im-pos", pos);
            put_user(&mut wire.properties, "im-prev", prev);
            Property::UserProperty("im-from", &from).encode(&mut wire.properties);
            if !body.id.is_empty() {
                Property::UserProperty("im-id", body.id).encode(&mut wire.properties);
            }
        }
        Some((class, own))
    }

    #[allow(clippy::too_many_arguments)]
    fn render_entry(
        &self,
        now: Now,
        at: u32,
        account: AccountNo,
        pos: u64,
        entry: &MailEntry,
        body: Option<&[u8]>,
        wire: &mut Wire,
    ) -> Option<Class> {
        let conv = ConvNo(entry.conv);
        let out = &mut wire.payload;
        out.extend_from_slice(b"{\"pos\":");
        put_num(out, pos);
        let (class, address, word) = match entry.kind {
            MailKind::Message => return None,
            MailKind::Receipt => {
                let c = &self.dir.convs[conv.at()];
                if c.kind == ConvKind::Direct {
                    let peer = c.member(AccountNo(entry.extra))?;
                    if peer.receipt_at > pos {
                        // A later entry says the same and more.
                        return None;
                    }
                    put_field(out, "seq", peer.kept.0);
                    put_field(out, "recv", peer.kept.0);
                    put_field(out, "read", peer.kept.1);
                    put_text(out, "by", self.name_of(peer.account));
                } else {
                    let (recv, read, of) = self.count_marks(conv, account, entry.seq);
                    put_field(out, "seq", entry.seq);
                    put_field(out, "recv", recv as u64);
                    put_field(out, "read", read as u64);
                    put_field(out, "of", of as u64);
                }
                (Class::Receipt, self.address_for(conv, account), "receipt")
            }
            MailKind::OwnMark => {
                let member = self.dir.convs[conv.at()].member(account)?;
                out.extend_from_slice(b",\"self\":true");
                put_field(out, "read", member.kept.1);
                put_field(out, "unread", member.unread.into());
                (Class::Receipt, self.address_for(conv, account), "receipt")
            }
            MailKind::Recall => {
                put_field(out, "seq", entry.seq);
                put_text(out, "by", self.name_of(AccountNo(entry.extra)));
                (Class::Recall, self.address_for(conv, account), "recall")
            }
            MailKind::Edit => {
                let body = body_of(body?)?;
                if body.is_gone() {
                    return None;
                }
                put_field(out, "seq", entry.seq);
                put_text(out, "by", self.name_of(AccountNo(entry.extra)));
                body.write(out, self.name_of(body.from), self.level_of(at), now.wall_ms);
                (Class::Edit, self.address_for(conv, account), "edit")
            }
            MailKind::Contact => {
                let other = AccountNo(entry.conv);
                let (ts, by) = contact_event(entry.seq);
                put_text(out, "op", ContactOp::text(entry.extra));
                let said = self.contact_text(account, other);
                if !said.is_empty() {
                    put_text(out, "text", said);
                }
                put_field(out, "ts", ts);
                if by == By::Itself {
                    out.extend_from_slice(b",\"self\":true");
                }
                (Class::Contact, Rc::clone(self.name_of(other)), "contact")
            }
            MailKind::Command => {
                let (topic, payload) =
                    self.render_command(account, AccountNo(entry.conv), entry.seq, entry.extra, pos)?;
                wire.topic.push_str(&topic);
                *out = payload;
                return Some(Class::Res);
            }
            MailKind::Bounce => {
                put_field(out, "seq", entry.seq);
                put_text(out, "code", Code::Expired.text());
                put_text(out, "text", "nobody got the message before its time was over");
                (Class::Bounce, self.address_for(conv, account), "bounce")
            }
        };
        out.push(b'}');
        wire.topic.push_str("im/v1/me/in/");
        wire.topic.push_str(&address);
        wire.topic.push('/');
        wire.topic.push_str(word);
        Some(class)
    }

    fn level_of(&self, at: u32) -> u32 {
        let o = &self.online[at as usize];
        let terminal = o.terminal.and_then(|no| self.dir.accounts[o.account.at()].terminal(no));
        terminal.map_or(o.level, |t| t.level)
    }

    /// Topic and JSON of an entry for a pull, with the level of the terminal that pulls.
    pub(super) fn render_for_pull(
        &mut self,
        now: Now,
        at: u32,
        pos: u64,
        entry: &MailEntry,
        body: Option<&[u8]>,
    ) -> Option<(String, Vec<u8>)> {
        self.wire = Wire::default();
        let body = self.bodies.get(&(ConvNo(entry.conv), entry.seq)).cloned().or_else(|| body.map(Into::into));
        self.render_mail(now, at, pos, entry, body.as_deref())?;
        let wire = core::mem::take(&mut self.wire);
        Some((wire.topic, wire.payload))
    }

    // ---- Conversations for a new terminal, and logs ----------------------------------------------------------

    /// Messages of conversations that were there before the terminal; nothing else of the mailbox goes before them.
    fn next_extra(&mut self, now: Now, at: u32) -> Option<Sending> {
        loop {
            let o = &mut self.online[at as usize];
            if let Some((conv, seq, value)) = o.extra.pop_front() {
                if let Some(sending) = self.send_extra(now, at, conv, seq, &value, true) {
                    return Some(sending);
                }
                continue;
            }
            let next = o.backfill.pop_front()?;
            self.load_extra(at, next.conv, next.from, next.until);
            return None;
        }
    }

    fn load_extra(&mut self, at: u32, conv: ConvNo, from: u64, until: u64) {
        let o = &mut self.online[at as usize];
        if o.is_loading_extra {
            o.backfill.push_front(super::online::Backfill { conv, from, until });
            return;
        }
        o.is_loading_extra = true;
        let serial = o.serial;
        let what = What::Range {
            a: conv.0.into(),
            from,
            until,
            direction: Direction::Up,
            max_rows: PAGE_ROWS,
            max_bytes: PAGE_BYTES,
        };
        self.ask(row::BODY, what, Pending::Extra { online: at, serial, conv });
    }

    pub(super) fn extra_loaded(&mut self, at: u32, serial: u32, conv: ConvNo, answer: &Answer) {
        let Some(o) = self.online.get_mut(at as usize).filter(|o| o.serial == serial) else { return };
        o.is_loading_extra = false;
        o.extra.extend(answer.iter().map(|found| (conv, found.b, found.value.into())));
        self.wake(at);
    }

    fn send_extra(
        &mut self,
        now: Now,
        at: u32,
        conv: ConvNo,
        seq: u64,
        value: &[u8],
        is_backfill: bool,
    ) -> Option<Sending> {
        let newer = self.bodies.get(&(conv, seq)).cloned();
        let body = body_of(newer.as_deref().unwrap_or(value))?;
        let Some((class, own)) = self.render_message(now, at, 0, conv, seq, &body) else {
            if !is_backfill {
                self.log_done(at, conv, seq);
            }
            return None;
        };
        if is_backfill {
            self.wire.payload.pop();
            self.wire.payload.extend_from_slice(b",\"backfill\":true}");
        }
        let o = &mut self.online[at as usize];
        let Some((qos, ids)) = o.wants_topic(class, &self.wire.topic) else {
            self.wire = Wire::default();
            if !is_backfill {
                self.log_done(at, conv, seq);
            }
            return None;
        };
        if o.v5 {
            self.wire.properties.extend_from_slice(&ids);
        }
        self.counters.sent += 1;
        // A message of its own, or one of long ago, is no news that its sender waits for.
        let tag = if own && is_backfill { Tag::None } else { Tag::Message { conv, seq } };
        let packet_id = (qos > 0).then(|| o.note_id(tag));
        if qos == 0 && !is_backfill {
            self.log_done(at, conv, seq);
        }
        Some(Sending { qos, packet_id, retain: false, dup: false, least: usize::MAX })
    }

    /// Logs that a session follows: large groups and channels.
    fn next_log(&mut self, now: Now, at: u32) -> Option<Sending> {
        loop {
            let o = &self.online[at as usize];
            let conv = *o.logs_dirty.first()?;
            if matches!(self.dir.convs[conv.at()].kind, ConvKind::Channel(_)) {
                if let Some(sending) = self.next_of_channel(now, at, conv) {
                    return Some(sending);
                }
                self.online[at as usize].logs_dirty.remove(&conv);
                continue;
            }
            match self.next_of_group(now, at, conv) {
                Step::Sent(sending) => return Some(sending),
                Step::Skipped => {}
                Step::Blocked => return None,
            }
        }
    }

    fn next_of_channel(&mut self, now: Now, at: u32, channel: ConvNo) -> Option<Sending> {
        let (topic, payload, change) = self.next_announcement(now, at, channel)?;
        let class = if topic.ends_with("/recall") {
            Class::Recall
        } else if topic.ends_with("/edit") {
            Class::Edit
        } else {
            Class::Msg
        };
        let mut note = Note::new(class, &topic, &payload);
        note.tag = Tag::Announcement { channel, change };
        let sending = self.send_note(at, &note)?;
        if sending.qos == 0 {
            self.announcement_done(now, at, channel, change);
        }
        Some(sending)
    }

    /// The next message of a large group, by the terminal's place in its log.
    fn next_of_group(&mut self, now: Now, at: u32, conv: ConvNo) -> Step {
        let o = &mut self.online[at as usize];
        while let Some((of, ..)) = o.log_page.front() {
            if *of == conv {
                break;
            }
            // What was read for another log is read again when that log has its turn.
            o.log_page.clear();
        }
        if let Some((_, seq, value)) = o.log_page.pop_front() {
            o.log_sent.insert(conv, seq);
            return self.send_extra(now, at, conv, seq, &value, false).map_or(Step::Skipped, Step::Sent);
        }
        let place = self.log_place(at, conv);
        let o = &mut self.online[at as usize];
        let from = o.log_sent.get(&conv).copied().unwrap_or(0).max(place) + 1;
        let head = self.dir.convs[conv.at()].head;
        if from > head || self.dir.convs[conv.at()].member(o.account).is_none() {
            o.logs_dirty.remove(&conv);
            return Step::Skipped;
        }
        if o.is_loading_log {
            return Step::Blocked;
        }
        o.is_loading_log = true;
        let serial = o.serial;
        let until = head + 1;
        let what = What::Range {
            a: conv.0.into(),
            from,
            until,
            direction: Direction::Up,
            max_rows: PAGE_ROWS,
            max_bytes: PAGE_BYTES,
        };
        self.ask(row::BODY, what, Pending::Log { online: at, serial, conv, until });
        Step::Blocked
    }

    pub(super) fn log_loaded(&mut self, at: u32, serial: u32, conv: ConvNo, until: u64, answer: &Answer) {
        let Some(o) = self.online.get_mut(at as usize).filter(|o| o.serial == serial) else { return };
        o.is_loading_log = false;
        o.log_page = answer.iter().map(|found| (conv, found.b, found.value.into())).collect();
        if o.log_page.is_empty() {
            // Nothing of it is kept any more.
            o.log_sent.insert(conv, until - 1);
        }
        self.wake(at);
    }

    fn log_place(&self, at: u32, conv: ConvNo) -> u64 {
        let o = &self.online[at as usize];
        let terminal = o.terminal.and_then(|no| self.dir.accounts[o.account.at()].terminal(no));
        terminal.and_then(|t| t.places.get(&conv)).copied().unwrap_or(0)
    }

    /// The terminal has everything of a large group up to this seq, or need not.
    pub(super) fn log_done(&mut self, at: u32, conv: ConvNo, seq: u64) {
        let o = &self.online[at as usize];
        let (account, Some(no)) = (o.account, o.terminal) else { return };
        let Some(t) = self.dir.accounts[account.at()].terminal_mut(no) else { return };
        let place = t.places.entry(conv).or_insert(0);
        if *place < seq {
            *place = seq;
            let mut w = row::RowWriter::new(1);
            w.int(seq);
            self.put(row::PLACE, super::terminal::place_key(account, no), conv.0.into(), &w.0);
        }
    }
}

impl Online {
    /// A packet identifier for a note, and what its acknowledgement will mean.
    fn note_id(&mut self, tag: Tag) -> u16 {
        loop {
            let id = NOTE_IDS + self.next_note_id;
            self.next_note_id = (self.next_note_id + 1) % NOTE_ROUND;
            if !self.notes_sent.iter().any(|(known, _)| *known == id) {
                self.notes_sent.push((id, tag));
                self.under_way += 1;
                return id;
            }
        }
    }
}

fn mail_id(pos: u64) -> u16 {
    MAIL_IDS + u16::try_from(pos % MAIL_ROUND).expect("below 16,384")
}

fn put_user(out: &mut Vec<u8>, name: &str, value: u64) {
    let mut digits = Vec::with_capacity(20);
    put_num(&mut digits, value);
    Property::UserProperty(name, core::str::from_utf8(&digits).expect("digits")).encode(out);
}
