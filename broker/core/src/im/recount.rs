//! Unread messages, counted again from the log, and whether that is what is kept.

use super::body::Body;
use super::model::{AccountNo, ConvNo};
use super::{Asker, Im, Origin, Pending, Refusal, Verdict, object, row, text};
use crate::hub::Now;
use crate::store::{Answer, Direction, What};
use serde_json::json;

/// A recount that waits for the store.
#[derive(Debug)]
pub(crate) struct Recount {
    asker: Asker,
    convs: Vec<ConvNo>,
    /// Behind the read mark.
    start: u64,
    from: u64,
    until: u64,
    unread: u32,
    /// Of the conversation, when counting began.
    changes: u32,
    counted: Vec<Counted>,
}

/// Unread messages of one conversation: in the log, and as they are kept.
#[derive(Debug, Clone, Copy)]
struct Counted {
    conv: ConvNo,
    unread: u32,
    kept: u32,
}

impl Recount {
    /// Who asks.
    pub(super) fn account(&self) -> AccountNo {
        self.asker.account
    }
}

impl Im {
    pub(super) fn on_recount(
        &mut self,
        now: Now,
        origin: &Origin<'_>,
        path: &str,
        payload: &[u8],
    ) -> Result<Verdict, Refusal> {
        self.may_pull(origin)?;
        let object = object(payload)?;
        let convs = match text(&object, "with")? {
            Some(with) => vec![self.conv_with(origin.account, with)?],
            None => {
                let all = self.dir.accounts[origin.account.at()].convs.iter().copied();
                all.filter(|no| {
                    self.dir.convs[no.at()]
                        .member(origin.account)
                        .is_some_and(|m| m.read < self.dir.convs[no.at()].head || m.unread > 0)
                })
                .collect()
            }
        };
        let asker = Self::asker(origin, path, object.get("id").cloned());
        self.recount(now, asker, convs, vec![]);
        Ok(Verdict::Later)
    }

    fn recount(&mut self, now: Now, asker: Asker, convs: Vec<ConvNo>, counted: Vec<Counted>) {
        let Some(first) = convs.first() else { return self.recounted(now, &asker, &counted) };
        let start = self.unread_from(*first, asker.account);
        let c = &self.dir.convs[first.at()];
        let (until, changes) = (c.head + 1, c.changes);
        self.recount_look(Recount { asker, convs, start, from: start, until, unread: 0, changes, counted });
    }

    /// The first seq that may be unread.
    fn unread_from(&self, conv: ConvNo, account: AccountNo) -> u64 {
        let c = &self.dir.convs[conv.at()];
        c.member(account).map_or(c.head, |m| m.read.max(m.joined)) + 1
    }

    fn recount_look(&mut self, r: Recount) {
        let what = What::Range {
            a: r.convs.first().map_or(0, |no| no.0.into()),
            from: r.from,
            until: r.until,
            direction: Direction::Up,
            max_rows: 1_024,
            max_bytes: u32::MAX,
        };
        self.ask(row::BODY, what, Pending::Recount(Box::new(r)));
    }

    pub(super) fn recount_found(&mut self, now: Now, mut r: Recount, answer: &Answer) {
        let account = r.asker.account;
        let conv = r.convs[0];
        for found in answer {
            r.unread += u32::from(self.is_unread_row(conv, found.b, Some(found.value), account));
            r.from = found.b + 1;
        }
        if answer.is_partial {
            return self.recount_look(r);
        }
        let c = &self.dir.convs[conv.at()];
        if c.changes != r.changes || self.unread_from(conv, account) != r.start {
            // What was counted is compared with nothing that is true now.
            return self.recount(now, r.asker, r.convs, r.counted);
        }
        // What is not on disk yet, and what has come meanwhile, is in memory.
        for seq in r.from..=c.head {
            if seq >= r.until && !self.bodies.contains_key(&(conv, seq)) {
                (r.from, r.until) = (seq, c.head + 1);
                return self.recount_look(r);
            }
            r.unread += u32::from(self.is_unread_row(conv, seq, None, account));
        }
        let kept = c.member(account).map_or(0, |m| m.unread);
        r.counted.push(Counted { conv, unread: r.unread, kept });
        r.convs.remove(0);
        self.recount(now, r.asker, r.convs, r.counted);
    }

    /// Whether a message counts for whoever has not read it; `row`: as the store has it.
    pub(super) fn is_unread_row(&self, conv: ConvNo, seq: u64, row: Option<&[u8]>, account: AccountNo) -> bool {
        // What is in memory is what the message is now.
        let value = self.bodies.get(&(conv, seq)).map(|body| &**body).or(row);
        let body = value.and_then(|value| Body::decode(value).ok());
        body.is_some_and(|body| body.counts() && body.from != account)
    }

    fn recounted(&mut self, _now: Now, asker: &Asker, counted: &[Counted]) {
        let account = asker.account;
        let mut agree = true;
        let mut lines = serde_json::Map::new();
        for Counted { conv, unread, kept } in counted {
            agree &= kept == unread;
            let line = json!({ "kept": kept, "counted": unread });
            lines.insert(self.address_for(*conv, account).to_string(), line);
        }
        let a = &self.dir.accounts[account.at()];
        let sum: u64 =
            a.convs.iter().filter_map(|no| self.dir.convs[no.at()].member(account)).map(|m| u64::from(m.unread)).sum();
        agree &= sum == a.unread;
        self.answer(asker, json!({ "agree": agree, "unread": a.unread, "sum": sum, "by": lines }));
    }
}
