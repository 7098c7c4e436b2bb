//! Marks: what an account has got and read of each conversation, and how many it has not. They only move forward.

use super::model::{AccountNo, COUNTED, ConvKind, ConvNo, GONE, MailEntry, MailKind};
use super::{Done, Im, Origin, Out, Pending, Refusal, Verdict, number, object, row};
use crate::hub::Now;
use crate::store::{Answer, Direction, What};

/// Rows that one look at the log brings.
const LOOK_ROWS: u32 = 1_024;

/// Which messages are counted for a new read mark: the fewer ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    /// Those between the old mark and the new one; they are unread no longer.
    Read,
    /// Those behind the new mark, up to those whose sender is in memory.
    Unread,
}

/// A read mark that waits for the log to be counted.
#[derive(Debug)]
pub(crate) struct Asked {
    conv: ConvNo,
    account: AccountNo,
    read: u64,
    /// The mark when counting began.
    old: u64,
    side: Side,
    /// Counted so far, up to (not including) `from`.
    count: u32,
    from: u64,
    /// One past the last seq that was asked for.
    until: u64,
    /// Of the conversation, when counting began.
    changes: u32,
    token: u64,
}

impl Asked {
    /// Counts anew, as the conversation is now.
    fn begin(&mut self, old: u64, window_from: u64, changes: u32) {
        let is_short = self.read - old <= window_from - (self.read + 1);
        (self.side, self.from) = if is_short { (Side::Read, old + 1) } else { (Side::Unread, self.read + 1) };
        (self.old, self.count, self.changes) = (old, 0, changes);
    }

    /// One past the last seq to be counted.
    fn end(&self, window_from: u64) -> u64 {
        if self.side == Side::Read { self.read + 1 } else { window_from }
    }
}

impl Im {
    pub(super) fn on_receipt(
        &mut self,
        now: Now,
        origin: &Origin<'_>,
        to: &str,
        payload: &[u8],
    ) -> Result<Verdict, Refusal> {
        let object = object(payload)?;
        let (read, recv) = (number(&object, "read")?, number(&object, "recv")?);
        let conv = self.conv_with(origin.account, to)?;
        let head = self.dir.convs[conv.at()].head;
        let Some(highest) = read.max(recv) else {
            return Err(Refusal::bad("a receipt needs \"read\" or \"recv\": the seq of a message"));
        };
        if highest > head {
            return Err(Refusal::bad(format!("seq {highest} is beyond the last message, {head}")));
        }
        if let Some(recv) = recv {
            self.mark_recv(origin.account, conv, recv);
        }
        match read {
            Some(read) => self.mark_read(now, conv, origin.account, read),
            None => Ok(Verdict::Done(Done { durable: true, ..Done::default() })),
        }
    }

    /// The account has everything up to `seq`.
    pub(super) fn mark_recv(&mut self, account: AccountNo, conv: ConvNo, seq: u64) {
        let c = &mut self.dir.convs[conv.at()];
        let Some(member) = c.member_mut(account) else { return };
        if seq <= member.recv {
            return;
        }
        let before = (member.recv, member.read);
        member.recv = seq;
        if member.told.is_none() {
            member.told = Some(before);
            self.moved.push((conv, account));
        }
        self.touch_member(conv, account);
    }

    /// The account has read everything up to `read`.
    fn mark_read(&mut self, now: Now, conv: ConvNo, account: AccountNo, read: u64) -> Result<Verdict, Refusal> {
        let c = &self.dir.convs[conv.at()];
        let Some(member) = c.member(account) else { return Err(Refusal::not_found("not a member")) };
        if read <= member.read {
            // What moved it so far may still be on its way to the disk.
            return Ok(Verdict::Done(Done { durable: true, ..Done::default() }));
        }
        let from = c.window_from();
        if read >= c.head || read + 1 >= from {
            let unread = self.count_window(conv, account, read);
            self.set_read(now, conv, account, read, unread);
            return Ok(Verdict::Done(Done { durable: true, ..Done::default() }));
        }
        let (old, changes, token) = (member.read, c.changes, self.next_token);
        let (side, until) = (Side::Unread, 0);
        let mut asked = Asked { conv, account, read, old, side, count: 0, from: read + 1, until, changes, token };
        asked.begin(old, from, changes);
        Ok(Verdict::Parked(self.count_log(asked)))
    }

    /// Unread messages behind `read` of those whose sender is in memory.
    fn count_window(&self, conv: ConvNo, account: AccountNo, read: u64) -> u32 {
        let c = &self.dir.convs[conv.at()];
        let from = c.window_from();
        let skip = usize::try_from((read + 1).saturating_sub(from)).unwrap_or(usize::MAX);
        let counts = |&&(sender, flags): &&(AccountNo, u8)| sender != account && flags & (COUNTED | GONE) == COUNTED;
        u32::try_from(c.window.iter().skip(skip).filter(counts).count()).unwrap_or(u32::MAX)
    }

    /// Counts the part of the log that is not in memory; returns the token under which the whole is concluded.
    fn count_log(&mut self, mut asked: Asked) -> u64 {
        asked.until = asked.end(self.dir.convs[asked.conv.at()].window_from());
        let what = What::Range {
            a: asked.conv.0.into(),
            from: asked.from,
            until: asked.until,
            direction: Direction::Up,
            max_rows: LOOK_ROWS,
            max_bytes: u32::MAX,
        };
        let token = asked.token;
        self.ask(row::BODY, what, Pending::Read(Box::new(asked)));
        token
    }

    /// A part of the log has come.
    pub(super) fn counted(&mut self, now: Now, mut asked: Asked, answer: &Answer) {
        let mut last = asked.from;
        for found in answer {
            asked.count += u32::from(self.is_unread_row(asked.conv, found.b, Some(found.value), asked.account));
            last = found.b + 1;
        }
        if !answer.is_partial {
            // What is not on disk yet is in memory.
            let unread = |seq: &u64| self.is_unread_row(asked.conv, *seq, None, asked.account);
            asked.count += u32::try_from((last..asked.until).filter(unread).count()).unwrap_or(u32::MAX);
        }
        asked.from = if answer.is_partial { last } else { asked.until };
        let c = &self.dir.convs[asked.conv.at()];
        let mark = c.member(asked.account).map(|m| (m.read, m.unread)).filter(|(read, _)| *read < asked.read);
        if let Some((read, unread)) = mark {
            if c.changes != asked.changes || read != asked.old {
                // A message stopped counting meanwhile, perhaps one that was counted already, or another mark moved.
                asked.begin(read, c.window_from().max(asked.read + 1), c.changes);
            }
            if asked.from < asked.end(c.window_from()) {
                self.count_log(asked);
                return;
            }
            let unread = match asked.side {
                Side::Read => unread.saturating_sub(asked.count),
                Side::Unread => asked.count + self.count_window(asked.conv, asked.account, asked.from - 1),
            };
            self.set_read(now, asked.conv, asked.account, asked.read, unread);
        }
        let verdict = Ok(Verdict::Done(Done { durable: true, ..Done::default() }));
        self.out.push_back(Out::Concluded { token: asked.token, verdict });
    }

    pub(super) fn set_read(&mut self, now: Now, conv: ConvNo, account: AccountNo, read: u64, unread: u32) {
        let c = &mut self.dir.convs[conv.at()];
        let Some(member) = c.member_mut(account) else { return };
        if member.told.is_none() {
            member.told = Some((member.recv, member.read));
            self.moved.push((conv, account));
        }
        let before = member.unread;
        member.read = read;
        member.recv = member.recv.max(read);
        member.unread = unread;
        let a = &mut self.dir.accounts[account.at()];
        a.unread = a.unread + u64::from(unread) - u64::from(before);
        let several = a.terminals.len() > 1;
        self.touch_member(conv, account);
        self.badge(account, conv);
        if several {
            self.mail(now, account, MailEntry { kind: MailKind::OwnMark, conv: conv.0, seq: read, extra: 0 });
        }
    }

    /// The badge and the conversation's line change for this account when what was written is on disk.
    pub(super) fn badge(&mut self, account: AccountNo, conv: ConvNo) {
        let shows = |at: &u32| {
            let o = &self.online[*at as usize];
            o.wants(super::Class::Head) || o.wants(super::Class::Conv)
        };
        if self.dir.accounts[account.at()].online.iter().any(shows) {
            self.badged.push((account, conv));
        }
    }

    /// A message that is gone, recalled or expired, no longer counts.
    pub(super) fn uncount(&mut self, conv: ConvNo, seq: u64, from: AccountNo) {
        let c = &mut self.dir.convs[conv.at()];
        c.changes = c.changes.wrapping_add(1);
        let mut changed = vec![];
        for member in &mut c.members {
            if member.account != from && member.read < seq && member.joined < seq && member.unread > 0 {
                member.unread -= 1;
                changed.push(member.account);
            }
        }
        for account in changed {
            self.dir.accounts[account.at()].unread -= 1;
            self.touch_member(conv, account);
            self.badge(account, conv);
        }
    }

    /// Tells the others of marks that moved since the last batch: one entry for each who must know.
    pub(super) fn tell_marks(&mut self, now: Now) {
        for (conv, account) in core::mem::take(&mut self.moved) {
            let c = &mut self.dir.convs[conv.at()];
            let is_direct = c.kind == ConvKind::Direct;
            let Some(member) = c.member_mut(account) else { continue };
            let Some(before) = member.told.take() else { continue };
            let after = (member.recv, member.read);
            if before == after {
                continue;
            }
            self.marked.push((conv, account, after));
            if is_direct {
                let Some(peer) = c.peer_of(account) else { continue };
                let entry = MailEntry { kind: MailKind::Receipt, conv: conv.0, seq: after.0, extra: account.0 };
                let pos = self.mail(now, peer, entry);
                if let Some(member) = self.dir.convs[conv.at()].member_mut(account) {
                    member.receipt_at = pos;
                }
            } else if !c.is_large() {
                self.tell_senders(now, conv, account, before, after);
            }
        }
    }

    /// Marks that moved are on disk.
    pub(super) fn keep_marks(&mut self, marked: &[(ConvNo, AccountNo, (u64, u64))]) {
        for &(conv, account, marks) in marked {
            if let Some(member) = self.dir.convs[conv.at()].member_mut(account) {
                member.kept = marks;
            }
        }
    }

    /// Whoever said something between the marks learns how many have it now: one entry for its latest message there.
    fn tell_senders(&mut self, now: Now, conv: ConvNo, account: AccountNo, before: (u64, u64), after: (u64, u64)) {
        let c = &self.dir.convs[conv.at()];
        let mut told: Vec<(AccountNo, u64)> = vec![];
        for (low, high) in [(before.0, after.0), (before.1, after.1)] {
            for seq in (low + 1..=high).rev().take(super::model::WINDOW) {
                let Some((sender, _)) = c.seen(seq) else { break };
                if sender != account && !told.iter().any(|(who, at)| *who == sender && *at >= seq) {
                    told.retain(|(who, _)| *who != sender);
                    told.push((sender, seq));
                }
            }
        }
        for (sender, seq) in told {
            if self.dir.convs[conv.at()].member(sender).is_some() {
                self.mail(now, sender, MailEntry { kind: MailKind::Receipt, conv: conv.0, seq, extra: u32::MAX });
            }
        }
    }

    /// How many of a group (its sender not counted) have a message, have read it, and could.
    pub(super) fn count_marks(&self, conv: ConvNo, sender: AccountNo, seq: u64) -> (usize, usize, usize) {
        let others = || self.dir.convs[conv.at()].members.iter().filter(|m| m.account != sender && m.joined < seq);
        let recv = others().filter(|m| m.kept.0 >= seq).count();
        let read = others().filter(|m| m.kept.1 >= seq).count();
        (recv, read, others().count())
    }
}
