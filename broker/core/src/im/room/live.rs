//! Typing and streams: only the latest matters, to peers that are online, and nothing is kept.

use super::volatile;
use crate::hub::Now;
use crate::im::model::{AccountNo, Address, ConvKind};
use crate::im::name::{NameKind, is_client_id, name_kind};
use crate::im::online::Class;
use crate::im::{Code, Done, Im, Origin, Refusal, Verdict, flag, object, shorten};
use serde_json::json;
use std::rc::Rc;

/// A session with so many notes waiting gets no new ones of this kind: it is too slow for them, and to look through
/// more of them for one of the same topic would cost others their time.
const WAITING: usize = 256;

/// Who hears it, and below which address.
struct Hearers {
    accounts: Vec<AccountNo>,
    address: Rc<str>,
}

impl Im {
    pub(in crate::im) fn on_typing(
        &mut self,
        now: Now,
        origin: &Origin<'_>,
        to: &str,
        payload: &[u8],
    ) -> Result<Verdict, Refusal> {
        let is_typing = flag(&object(payload)?, "typing")?.unwrap_or(true);
        let hearers = self.hearers(origin, to)?;
        let rate = self.limits.im_typing_rate_max;
        let speeds = self.rooms.speeds.entry(origin.account).or_default();
        if !speeds.typing.take(now.ms, rate, rate.saturating_mul(2)) {
            let text = "this account types in more places than it may (limits.im_typing_rate_max)";
            return Err(Refusal::new(Code::Quota, text));
        }
        let payload = json!({ "from": &**self.name_of(origin.account), "typing": is_typing }).to_string();
        self.tell_latest(&hearers, Class::Typing, "typing", payload.as_bytes());
        Ok(Verdict::Done(Done::quietly()))
    }

    pub(in crate::im) fn on_stream(
        &mut self,
        now: Now,
        origin: &Origin<'_>,
        to: &str,
        name: &str,
        payload: &[u8],
    ) -> Result<Verdict, Refusal> {
        if !is_client_id(name) {
            return Err(Refusal::new(Code::BadTopic, "the name of a stream is 1 to 36 of A-Z a-z 0-9 _ -"));
        }
        let (len, most) = (payload.len() as u64, self.limits.im_stream_bytes_max);
        if len > most {
            let text = format!("the payload has {len} bytes, a stream takes {most} (limits.im_stream_bytes_max)");
            return Err(Refusal::new(Code::TooLarge, text));
        }
        let hearers = self.hearers(origin, to)?;
        let rate = self.limits.im_stream_rate_max;
        let speeds = self.rooms.speeds.entry(origin.account).or_default();
        if !speeds.stream.take(now.ms, rate, rate.saturating_mul(2)) {
            let text = "this account sends streams faster than it may (limits.im_stream_rate_max)";
            return Err(Refusal::new(Code::Quota, text));
        }
        self.tell_latest(&hearers, Class::Stream, &format!("stream/{name}"), payload);
        Ok(Verdict::Done(Done::quietly()))
    }

    /// Those who are meant by `to`, if whoever asks may write to them.
    fn hearers(&self, origin: &Origin<'_>, to: &str) -> Result<Hearers, Refusal> {
        let from = origin.account;
        match self.dir.by_name.get(to).copied() {
            Some(Address::Account(peer)) => {
                if !origin.operator {
                    self.may_write(from, peer)?;
                }
                Ok(Hearers { accounts: vec![peer], address: Rc::clone(self.name_of(from)) })
            }
            Some(Address::Conv(no)) => {
                let conv = &self.dir.convs[no.at()];
                let forbidden = |text: String| Err(Refusal::new(Code::Forbidden, text));
                let ConvKind::Group(group) = &conv.kind else {
                    return forbidden("a channel takes neither typing nor streams".to_owned());
                };
                if !origin.operator && conv.member(from).is_none() {
                    return forbidden(format!("you are not in {}", shorten(to)));
                }
                let most = self.limits.im_group_copied_max;
                if group.large || conv.members.len() as u64 > most {
                    return forbidden(format!("{} has, or had, more than {most} members", shorten(to)));
                }
                let accounts = conv.members.iter().map(|m| m.account).filter(|account| *account != from).collect();
                Ok(Hearers { accounts, address: Rc::clone(&group.address) })
            }
            None if name_kind(to) == Some(NameKind::Room) => {
                Err(Refusal::new(Code::Forbidden, "a volatile room takes messages only"))
            }
            None => Err(Refusal::not_found(format!("there is no {}", shorten(to)))),
        }
    }

    fn tell_latest(&mut self, hearers: &Hearers, class: Class, what: &str, payload: &[u8]) {
        let topic: Rc<str> = format!("im/v1/me/in/{}/{what}", hearers.address).into();
        let payload: Rc<[u8]> = payload.into();
        for account in &hearers.accounts {
            for at in 0..self.dir.accounts[account.at()].online.len() {
                let online = self.dir.accounts[account.at()].online[at];
                self.note_latest(online, class, &topic, &payload);
            }
        }
    }

    /// Queues a note, or puts it in the place of the one of the same topic that waits.
    fn note_latest(&mut self, online: u32, class: Class, topic: &Rc<str>, payload: &Rc<[u8]>) {
        let Some(o) = self.online.get_mut(online as usize) else { return };
        if !o.wants(class) {
            return;
        }
        if let Some(waiting) = o.notes.iter_mut().take(WAITING).find(|n| n.class == class && n.topic == *topic) {
            o.notes_bytes = o.notes_bytes.saturating_sub(waiting.payload.len()) + payload.len();
            waiting.payload = Rc::clone(payload);
        } else if o.notes.len() >= WAITING {
            self.counters.dropped.add("slow_reader");
        } else {
            self.note(online, volatile(class, Rc::clone(topic), Rc::clone(payload)));
        }
    }
}
