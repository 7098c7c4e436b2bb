//! Reading the mailbox ahead for a session: entries first, then the messages they are about.

use super::deliver::{PAGE_BYTES, PAGE_ROWS};
use super::model::{ConvNo, MailEntry, MailKind};
use super::{Im, Pending, row};
use crate::store::{Answer, Direction, What};
use std::rc::Rc;

impl Im {
    // ---- Reading the mailbox ---------------------------------------------------------------------------------

    pub(super) fn load_mail(&mut self, at: u32) {
        let o = &mut self.online[at as usize];
        if core::mem::replace(&mut o.is_loading, true) {
            return;
        }
        let (account, from, serial) = (o.account, o.next, o.serial);
        let until = self.dir.accounts[account.at()].mailbox.committed;
        let what = What::Range {
            a: account.0.into(),
            from,
            until,
            direction: Direction::Up,
            max_rows: PAGE_ROWS,
            max_bytes: PAGE_BYTES,
        };
        self.ask(row::MAIL, what, Pending::Page { online: at, serial, until });
    }

    pub(super) fn mail_loaded(&mut self, at: u32, serial: u32, until: u64, answer: &Answer) {
        if self.online.get(at as usize).is_none_or(|o| o.serial != serial) {
            return;
        }
        let entries: Vec<(u64, MailEntry)> =
            answer.iter().filter_map(|found| Some((found.b, MailEntry::decode(found.value).ok()?))).collect();
        let until = if answer.is_partial { entries.last().map_or(until, |(pos, _)| pos + 1) } else { until };
        // All of them or none: what is in memory now may not be when the store has answered.
        let wanted: Vec<(u64, u64)> = entries
            .iter()
            .filter(|(_, e)| matches!(e.kind, MailKind::Message | MailKind::Edit))
            .map(|(_, e)| (u64::from(e.conv), e.seq))
            .collect();
        if wanted.iter().all(|(conv, seq)| self.has_body(*conv, *seq)) {
            return self.page_complete(at, until, entries, None);
        }
        self.ask(row::BODY, What::Rows(wanted), Pending::PageBodies { online: at, serial, until, entries });
    }

    pub(super) fn has_body(&self, conv: u64, seq: u64) -> bool {
        u32::try_from(conv).is_ok_and(|conv| self.bodies.contains_key(&(ConvNo(conv), seq)))
    }

    pub(super) fn bodies_loaded(
        &mut self,
        at: u32,
        serial: u32,
        until: u64,
        entries: Vec<(u64, MailEntry)>,
        answer: &Answer,
    ) {
        if self.online.get(at as usize).is_some_and(|o| o.serial == serial) {
            self.page_complete(at, until, entries, Some(answer));
        }
    }

    pub(super) fn page_complete(
        &mut self,
        at: u32,
        until: u64,
        entries: Vec<(u64, MailEntry)>,
        answer: Option<&Answer>,
    ) {
        let found: crate::hash::Map<(u64, u64), Rc<[u8]>> =
            answer.into_iter().flat_map(Answer::iter).map(|r| ((r.a, r.b), r.value.into())).collect();
        let rows = entries.into_iter().map(|(pos, entry)| {
            let key = (u64::from(entry.conv), entry.seq);
            let kept = || self.bodies.get(&(ConvNo(entry.conv), entry.seq)).cloned();
            (pos, entry, found.get(&key).cloned().or_else(kept))
        });
        let rows = rows.collect();
        let o = &mut self.online[at as usize];
        o.page = rows;
        o.page_until = until;
        o.is_loading = false;
        self.wake(at);
    }
}
