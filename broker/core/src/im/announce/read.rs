//! What a terminal is sent of a channel, and how it comes to be told.

use super::entry::{Reader, Sight};
use super::{Log, REACHED_MAX, Sent, Telling};
use crate::hub::Now;
use crate::im::Im;
use crate::im::dedup::Hash;
use crate::im::model::{AccountNo, ConvNo};
use crate::im::online::{Class, Online};
use crate::im::row::{self, RowWriter};
use crate::im::terminal::place_key;
use std::collections::BTreeSet;

fn class_of(sight: Sight) -> Class {
    match sight {
        Sight::Msg => Class::Msg,
        Sight::Edit => Class::Edit,
        Sight::Recall => Class::Recall,
    }
}

/// The session is sent announcements; one that is not may pull them.
fn is_sent(o: &Online) -> bool {
    [Class::Msg, Class::Edit, Class::Recall].into_iter().any(|class| o.wants(class))
}

impl Im {
    /// A session's terminal as the reader of a channel; `None`: it is no terminal.
    fn reader_of(&self, online: u32, channel: ConvNo) -> Option<Reader<'_>> {
        let o = self.online.get(online as usize)?;
        let no = o.terminal?;
        let t = self.dir.accounts.get(o.account.at())?.terminal(no)?;
        let acked = t.places.get(&channel).copied().unwrap_or(0);
        let sent = self.announcements.sent.get(&online).filter(|sent| sent.serial == o.serial);
        let place = sent.and_then(|sent| sent.places.get(&channel)).copied().unwrap_or(0).max(acked);
        let reached = self.announcements.reached.get(&(channel, o.account, no)).copied().unwrap_or(0);
        Some(Reader {
            account: o.account,
            level: t.level,
            platform: &t.platform,
            is_audience: self.is_audience(o.account, channel),
            place,
            reached: place.max(reached),
        })
    }

    /// Channels that have something for this session beyond its terminal's places: put into `logs_dirty`.
    pub(in crate::im) fn announcements_for(&mut self, _now: Now, online: u32) {
        let Some(o) = self.online.get(online as usize) else { return };
        let terminal = o.terminal.and_then(|no| self.dir.accounts.get(o.account.at())?.terminal(no));
        let Some(terminal) = terminal else { return };
        let sent = self.announcements.sent.get(&online).filter(|sent| sent.serial == o.serial);
        let is_new = |(&channel, log): (&ConvNo, &Log)| {
            let acked = terminal.places.get(&channel).copied();
            let sent = sent.and_then(|sent| sent.places.get(&channel)).copied();
            // Most often there is nothing new, which two numbers tell.
            let is_behind = log.change > acked.max(sent).unwrap_or(0);
            // Who was in the audience once may still have something to remove.
            (is_behind && (acked.is_some() || self.is_audience(o.account, channel))).then_some(channel)
        };
        let found: Vec<ConvNo> = self.announcements.logs.iter().filter_map(is_new).collect();
        if found.is_empty() {
            return;
        }
        if let Some(o) = self.online.get_mut(online as usize) {
            o.logs_dirty.extend(found);
        }
        self.wake(online);
    }

    /// The next change of a channel for a session: topic, payload and number of the change. `None`: nothing.
    pub(in crate::im) fn next_announcement(
        &mut self,
        now: Now,
        online: u32,
        channel: ConvNo,
    ) -> Option<(String, Vec<u8>, u64)> {
        let reader = self.reader_of(online, channel)?;
        let o = &self.online[online as usize];
        let (serial, is_sent) = (o.serial, is_sent(o));
        let address = self.address_for(channel, reader.account);
        let log = self.announcements.logs.get(&channel)?;
        let topic = |sight: Sight| format!("im/v1/me/in/{address}/{}", sight.word());
        let wants = |sight: Sight| !is_sent || o.wants_topic(class_of(sight), &topic(sight)).is_some();
        let (&change, &no, sight) = log.by_change.range(reader.place + 1..).find_map(|(change, no)| {
            let sight = log.entries.get(no)?.sight(&log.white, &reader, now.wall_ms)?;
            wants(sight).then_some((change, no, sight))
        })?;
        let topic = topic(sight);
        let payload = log.entries.get(&no)?.render(no, &address, sight, now.wall_ms);
        if is_sent {
            self.count_reader(channel, no, sight);
            let sent = self.announcements.sent.entry(online).or_default();
            if sent.serial != serial {
                *sent = Sent { serial, ..Sent::default() };
            }
            sent.places.insert(channel, change);
        }
        Some((topic, payload, change))
    }

    fn count_reader(&mut self, channel: ConvNo, no: u64, sight: Sight) {
        if sight == Sight::Msg
            && let Some(entry) = self.announcements.logs.get_mut(&channel).and_then(|log| log.entries.get_mut(&no))
        {
            entry.sent += 1;
        }
    }

    /// The session's client has acknowledged everything of the channel up to this change.
    pub(in crate::im) fn announcement_done(&mut self, now: Now, online: u32, channel: ConvNo, change: u64) {
        let Some(reader) = self.reader_of(online, channel) else { return };
        let (under_way, account) = (reader.place, reader.account);
        let o = &self.online[online as usize];
        let Some(no) = o.terminal else { return };
        if !is_sent(o) {
            let pulled = self.announcements.logs.get(&channel).and_then(|log| {
                let entry = log.by_change.get(&change)?;
                let sight = log.entries.get(entry)?.sight(&log.white, &reader, now.wall_ms)?;
                Some((*entry, sight))
            });
            if let Some((entry, sight)) = pulled {
                self.count_reader(channel, entry, sight);
            }
        }
        let reached = &mut self.announcements.reached;
        if reached.get(&(channel, account, no)).is_some_and(|reached| *reached <= change) {
            reached.remove(&(channel, account, no));
        }
        let Some(t) = self.dir.accounts[account.at()].terminal_mut(no) else { return };
        let place = t.places.entry(channel).or_insert(0);
        if change <= *place {
            return;
        }
        *place = change;
        // With more under way the row is written when that is acknowledged, or when the connection ends.
        if change >= under_way {
            self.store_place(account, no, channel, change);
        }
    }

    fn store_place(&mut self, account: AccountNo, no: u8, channel: ConvNo, place: u64) {
        let mut w = RowWriter::new(1);
        w.int(place);
        self.put(row::PLACE, place_key(account, no), channel.0.into(), &w.0);
    }

    /// A session's connection is gone: what it was sent and has not acknowledged is sent again another time.
    pub(in crate::im) fn announcements_unsent(&mut self, online: u32) {
        let Some(sent) = self.announcements.sent.remove(&online) else { return };
        let Some(o) = self.online.get(online as usize).filter(|o| o.serial == sent.serial) else { return };
        let (account, Some(no)) = (o.account, o.terminal) else { return };
        for (channel, until) in sent.places {
            let terminal = self.dir.accounts[account.at()].terminal(no);
            let place = terminal.and_then(|t| t.places.get(&channel)).copied().unwrap_or(0);
            if place >= until {
                continue;
            }
            if place > 0 {
                self.store_place(account, no, channel, place);
            }
            let reached = &mut self.announcements.reached;
            if reached.len() >= REACHED_MAX && reached.pop_first().is_some() {
                self.counters.dropped.add("announcement_reached");
            }
            reached.insert((channel, account, no), until);
        }
    }

    /// Tells the sessions that are to see an entry, spread over the time that is set for it.
    pub(super) fn spread(&mut self, now: Now, channel: ConvNo, no: u64) {
        let Some(log) = self.announcements.logs.get(&channel) else { return };
        let Some(entry) = log.entries.get(&no) else { return };
        // Who is still to be told of something earlier hears of this one with it.
        let waiting: BTreeSet<(u32, u32)> = log.telling.iter().map(|t| (t.online, t.serial)).collect();
        let over_ms = self.limits.im_announce_spread_ms.max(1);
        let mut telling = vec![];
        for (at, o) in &self.online {
            let Ok(online) = u32::try_from(at) else { continue };
            let Some(reader) = self.reader_of(online, channel) else { continue };
            let is_new = !waiting.contains(&(online, o.serial));
            if o.is_live && is_new && entry.sight(&log.white, &reader, now.wall_ms).is_some() {
                let at_ms = now.ms + slot(o.account, channel, entry.changed) % over_ms;
                telling.push(Telling { at_ms, online, serial: o.serial });
            }
        }
        if let Some(log) = self.announcements.logs.get_mut(&channel) {
            add_tellings(log, telling);
        }
        self.arm_channel(now, channel);
    }

    /// A session is to look at a channel again.
    pub(super) fn tell_of_channel(&mut self, online: u32, channel: ConvNo) {
        let Some(o) = self.online.get_mut(online as usize) else { return };
        if is_sent(o) {
            o.logs_dirty.insert(channel);
        } else if o.wants(Class::Head) {
            o.head_dirty = true;
        }
        self.wake(online);
    }

    /// Tells all sessions of these accounts at once.
    pub(super) fn tell_accounts(&mut self, accounts: &[AccountNo], channel: ConvNo) {
        for account in accounts {
            let online: Vec<u32> = self.dir.accounts[account.at()].online.clone();
            for online in online {
                self.tell_of_channel(online, channel);
            }
        }
    }
}

fn add_tellings(log: &mut Log, telling: Vec<Telling>) {
    log.telling.extend(telling);
    log.telling.sort_unstable_by_key(|t| (core::cmp::Reverse(t.at_ms), t.online));
}

/// Where in the time of spreading an account has its turn.
fn slot(account: AccountNo, channel: ConvNo, change: u64) -> u64 {
    let mut hash = Hash::new(3);
    hash.int(account.0.into());
    hash.int(channel.0.into());
    hash.int(change);
    hash.finish()
}
