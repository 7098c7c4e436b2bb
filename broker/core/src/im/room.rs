//! Volatile rooms: messages for whoever is there now, never stored.
//!
//! A room is there while a session is in it. Its messages are numbered from 1 as long as it is there, go out at QoS 0,
//! and are encoded once for everybody.

mod live;
#[cfg(test)]
mod tests;

use super::body::{Draft, put_place};
use super::flood::Bucket;
use super::json::{put_field, put_text};
use super::model::AccountNo;
use super::name::{NameKind, is_client_id, name_kind};
use super::online::{Class, Note, Tag};
use super::{Code, Done, Im, Origin, Refusal, Verdict, object, shorten, text};
use crate::hub::Now;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// Names in one answer.
const NAMES: usize = 1_000;

/// Rooms in which somebody is, and how fast accounts speak that are not stored.
#[derive(Debug, Default)]
pub(crate) struct Rooms {
    by_name: BTreeMap<Rc<str>, Room>,
    /// Rooms of each session that is in any, by its place in `Im::online`.
    of: BTreeMap<u32, BTreeSet<Rc<str>>>,
    /// Of accounts that have spoken so; forgotten with their last session.
    speeds: BTreeMap<AccountNo, Speeds>,
}

/// One room.
#[derive(Debug, Default)]
struct Room {
    /// Messages so far.
    seq: u64,
    /// Sessions, by place in `Im::online`.
    members: BTreeMap<u32, AccountNo>,
    /// Sessions of each account.
    accounts: BTreeMap<AccountNo, u32>,
}

impl Room {
    fn enter(&mut self, online: u32, account: AccountNo) {
        if self.members.insert(online, account).is_none() {
            *self.accounts.entry(account).or_default() += 1;
        }
    }

    fn leave(&mut self, online: u32) {
        let Some(account) = self.members.remove(&online) else { return };
        if let Some(sessions) = self.accounts.get_mut(&account) {
            *sessions -= 1;
            if *sessions == 0 {
                self.accounts.remove(&account);
            }
        }
    }
}

/// Anti-flood of what is not stored.
#[derive(Debug, Default)]
struct Speeds {
    room: Bucket,
    typing: Bucket,
    stream: Bucket,
}

impl Im {
    /// `join`, `leave` and `info` of a room.
    pub(super) fn on_room(
        &mut self,
        _now: Now,
        origin: &Origin<'_>,
        room: &str,
        payload: &[u8],
    ) -> Result<Verdict, Refusal> {
        if name_kind(room) != Some(NameKind::Room) {
            return Err(Refusal::bad(format!("{} is no name of a room: those begin with r-", shorten(room))));
        }
        let object = object(payload)?;
        match text(&object, "op")? {
            Some("join") => self.join_room(origin, room),
            Some("leave") => {
                let sessions = self.dir.accounts[origin.account.at()].online.clone();
                for online in sessions {
                    self.leave_room(online, room);
                }
                Ok(Verdict::Done(Done::told(json!({ "room": room }))))
            }
            Some("info") => {
                let known = self.rooms.by_name.get(room);
                let known = known.ok_or_else(|| Refusal::not_found(format!("nobody is in {}", shorten(room))))?;
                if !origin.operator && !known.accounts.contains_key(&origin.account) {
                    return Err(not_in(room));
                }
                let mut reply = room_line(room, known);
                let names = known.accounts.keys().take(NAMES).map(|no| self.name_of(*no).to_string());
                reply["names"] = names.collect::<Vec<String>>().into();
                Ok(Verdict::Done(Done::told(reply)))
            }
            _ => Err(Refusal::bad("\"op\" of a room is join, leave or info")),
        }
    }

    fn join_room(&mut self, origin: &Origin<'_>, room: &str) -> Result<Verdict, Refusal> {
        let sessions = self.joining(origin, room);
        if sessions.is_empty() {
            let text = format!("nobody would hear it: subscribe to im/v1/me/in/{room}/msg first, and stay connected");
            return Err(Refusal::bad(text));
        }
        let limits = &self.limits;
        let quota = |limit: &str| Refusal::new(Code::Quota, format!("there is no more room in rooms (limits.{limit})"));
        let known = self.rooms.by_name.get(room);
        if known.is_none() && self.rooms.by_name.len() as u64 >= limits.im_rooms_max {
            return Err(quota("im_rooms_max"));
        }
        let new: Vec<u32> =
            sessions.into_iter().filter(|online| known.is_none_or(|r| !r.members.contains_key(online))).collect();
        let members = known.map_or(0, |r| r.members.len()) + new.len();
        if members as u64 > limits.im_room_members_max {
            return Err(quota("im_room_members_max"));
        }
        let rooms_of = |online: &u32| self.rooms.of.get(online).map_or(0, BTreeSet::len) as u64;
        if new.iter().any(|online| rooms_of(online) >= limits.im_rooms_per_session_max) {
            return Err(quota("im_rooms_per_session_max"));
        }
        let name: Rc<str> = room.into();
        let known = self.rooms.by_name.entry(Rc::clone(&name)).or_default();
        for online in new {
            known.enter(online, origin.account);
            self.rooms.of.entry(online).or_default().insert(Rc::clone(&name));
        }
        Ok(Verdict::Done(Done::told(room_line(room, known))))
    }

    /// The sessions that come in: the one that asks, if it listens; else those of its account that do, so that a client
    /// which only publishes can join for one which only listens.
    fn joining(&self, origin: &Origin<'_>, room: &str) -> Vec<u32> {
        let topic = format!("im/v1/me/in/{room}/msg");
        let own = self.online_of(origin);
        let listens = |online: &u32| {
            self.online.get(*online as usize).is_some_and(|o| o.is_live && o.wants_topic(Class::Msg, &topic).is_some())
        };
        let mut sessions: Vec<u32> =
            self.dir.accounts[origin.account.at()].online.iter().copied().filter(listens).collect();
        if let Some(own) = own.filter(|own| sessions.is_empty() || sessions.contains(own)) {
            sessions = vec![own];
        }
        sessions
    }

    fn leave_room(&mut self, online: u32, room: &str) {
        if let Some(rooms) = self.rooms.of.get_mut(&online) {
            rooms.remove(room);
            if rooms.is_empty() {
                self.rooms.of.remove(&online);
            }
        }
        if let Some(known) = self.rooms.by_name.get_mut(room) {
            known.leave(online);
            if known.members.is_empty() {
                self.rooms.by_name.remove(room);
            }
        }
    }

    /// A session is gone: it is in no room any more, and what it was sent of channels is no longer under way.
    pub(super) fn leave_rooms(&mut self, _now: Now, online: u32) {
        self.announcements_unsent(online);
        for room in self.rooms.of.remove(&online).unwrap_or_default() {
            self.leave_room(online, &room);
        }
        let Some(account) = self.online.get(online as usize).map(|o| o.account) else { return };
        let others = self.dir.accounts.get(account.at()).map_or(&[][..], |a| &a.online);
        if others.iter().all(|other| *other == online) {
            self.rooms.speeds.remove(&account);
        }
    }

    /// A message to a room.
    pub(super) fn send_to_room(
        &mut self,
        now: Now,
        origin: &Origin<'_>,
        room: &str,
        payload: &[u8],
    ) -> Result<Verdict, Refusal> {
        let draft = Draft::parse(payload, false)?;
        draft.check_size(self.limits.im_message_bytes_max)?;
        let id = draft.id.as_deref().or(origin.id.filter(|id| is_client_id(id)));
        let Some(known) = self.rooms.by_name.get_mut(room) else {
            return Err(Refusal::not_found(format!("nobody is in {}: join it first", shorten(room))));
        };
        if !origin.operator && !known.accounts.contains_key(&origin.account) {
            return Err(not_in(room));
        }
        let (rate, burst) = (self.limits.im_room_rate_max, self.limits.im_room_burst_max);
        let speeds = self.rooms.speeds.entry(origin.account).or_default();
        if !origin.operator && !speeds.room.take(now.ms, rate, burst) {
            let text = "this account speaks in rooms faster than it may (limits.im_room_rate_max)";
            return Err(Refusal::new(Code::Quota, text));
        }
        known.seq += 1;
        let seq = known.seq;
        let members: Vec<u32> = known.members.keys().copied().collect();
        let from = Rc::clone(self.name_of(origin.account));
        let encode = |is_fallback: bool| -> Rc<[u8]> {
            let mut out = b"{".to_vec();
            put_place(&mut out, seq, 0, 0);
            put_text(&mut out, "from", &from);
            put_field(&mut out, "ts", now.wall_ms);
            if let Some(id) = id {
                put_text(&mut out, "id", id);
            }
            if is_fallback {
                put_text(&mut out, "text", &draft.fallback);
                out.extend_from_slice(b",\"fallback\":true");
                put_field(&mut out, "level", draft.level.into());
            } else {
                out.extend_from_slice(&draft.fragment);
            }
            out.push(b'}');
            out.into()
        };
        let mut note = volatile(Class::Msg, format!("im/v1/me/in/{room}/msg").into(), encode(false));
        let full = Rc::clone(&note.payload);
        let fallback = (draft.level > 0).then(|| encode(true));
        for online in members {
            let level = self.room_level(online);
            note.payload = Rc::clone(fallback.as_ref().filter(|_| level < draft.level).unwrap_or(&full));
            self.note(online, note.clone());
        }
        Ok(Verdict::Done(Done { seq, ..Done::default() }))
    }

    fn room_level(&self, online: u32) -> u32 {
        let Some(o) = self.online.get(online as usize) else { return 0 };
        let terminal = o.terminal.and_then(|no| self.dir.accounts.get(o.account.at())?.terminal(no));
        terminal.map_or(o.level, |t| t.level)
    }
}

/// A note that goes out at QoS 0 and means nothing more.
fn volatile(class: Class, topic: Rc<str>, payload: Rc<[u8]>) -> Note {
    Note {
        class,
        topic,
        payload,
        retain: false,
        response_topic: None,
        correlation: None,
        tag: Tag::None,
        is_volatile: true,
    }
}

fn not_in(room: &str) -> Refusal {
    Refusal::new(Code::Forbidden, format!("you are not in {}: join it first", shorten(room)))
}

fn room_line(room: &str, known: &Room) -> Value {
    json!({ "room": room, "seq": known.seq, "members": known.accounts.len() })
}
