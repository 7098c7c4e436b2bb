//! Channels that an account follows: nobody is on the other side who would have to agree.

use super::CHANNEL;
use crate::hub::Now;
use crate::im::model::{AccountNo, Address, Contact, ConvKind, ConvNo, Relation};
use crate::im::{Code, Done, Im, Refusal, Verdict, row, shorten};
use serde_json::{Value, json};

impl Im {
    pub(super) fn on_follow(&mut self, now: Now, me: AccountNo, with: &str, op: &str) -> Result<Verdict, Refusal> {
        let conv = match self.dir.by_name.get(with) {
            Some(Address::Conv(no)) => *no,
            _ => return Err(Refusal::not_found(format!("there is no channel {}", shorten(with)))),
        };
        let most = self.limits.im_contacts_per_account_max;
        if op == "follow" && !self.follows(me, conv) && self.followed(me).count() as u64 >= most {
            let text = format!("you follow {most} channels (limits.im_contacts_per_account_max)");
            return Err(Refusal::new(Code::Quota, text));
        }
        let follows = &mut self.pairings.contacts.follows;
        let since_ms = match op {
            "follow" => Some(*follows.entry((me, conv)).or_insert(now.wall_ms)),
            "unfollow" => {
                follows.remove(&(me, conv));
                None
            }
            _ => return Err(Refusal::bad("a channel takes \"follow\" and \"unfollow\"")),
        };
        let key = CHANNEL | u64::from(conv.0);
        match since_ms {
            Some(since_ms) => {
                let contact = Contact { relation: Relation::Follows, since_ms, ..Contact::default() };
                self.put(row::CONTACT, me.0.into(), key, &contact.encode());
            }
            None => self.del(row::CONTACT, me.0.into(), key),
        }
        for online in self.dir.accounts[me.at()].online.clone() {
            if since_ms.is_some() {
                self.announcements_for(now, online);
                self.wake(online);
            } else if !self.is_for_all(conv) {
                self.online[online as usize].logs_dirty.remove(&conv);
            }
        }
        Ok(Verdict::Done(Done::stored(self.render_follow(conv, since_ms))))
    }

    fn is_for_all(&self, conv: ConvNo) -> bool {
        matches!(&self.dir.convs[conv.at()].kind, ConvKind::Channel(channel) if channel.to_all)
    }

    /// Whether the account has said that it follows this channel.
    pub(in crate::im) fn follows(&self, account: AccountNo, conv: ConvNo) -> bool {
        self.pairings.contacts.follows.contains_key(&(account, conv))
    }

    /// Channels that an account follows, and since when.
    pub(super) fn followed(&self, account: AccountNo) -> impl Iterator<Item = (ConvNo, u64)> + '_ {
        let range = (account, ConvNo(0))..=(account, ConvNo(u32::MAX));
        self.pairings.contacts.follows.range(range).map(|((_, conv), since_ms)| (*conv, *since_ms))
    }

    pub(super) fn forget_follows(&mut self, gone: AccountNo) {
        let followed: Vec<ConvNo> = self.followed(gone).map(|(conv, _)| conv).collect();
        for conv in followed {
            self.pairings.contacts.follows.remove(&(gone, conv));
            self.del(row::CONTACT, gone.0.into(), CHANNEL | u64::from(conv.0));
        }
    }

    pub(super) fn render_follow(&self, conv: ConvNo, since_ms: Option<u64>) -> Value {
        let ConvKind::Channel(channel) = &self.dir.convs[conv.at()].kind else { return Value::Null };
        let state = if since_ms.is_some() { Relation::Follows } else { Relation::None };
        json!({
            "addr": &*channel.address,
            "kind": "channel",
            "name": channel.name,
            "state": state.text(),
            "blocked": false,
            "muted": false,
            "since": since_ms.unwrap_or_default(),
        })
    }
}
