//! Announcement channels: entries that are written once, however many read them.
//!
//! A channel counts its changes. Each terminal has one place in each channel, the number of the last change it has got;
//! what it is still to see is worked out from that when it asks ([`entry`]). So to publish is one row, and an account
//! that is made later begins at place 0 and sees all that is valid.

mod edit;
mod entry;
mod read;
mod request;
#[cfg(test)]
mod tests;
#[cfg(test)]
pub(super) mod world;

use super::model::{AccountNo, ConvKind, ConvNo};
use super::row::reader;
use super::{Im, ImTimer, row};
use crate::hub::Now;
use crate::store::bytes::DecodeError;
use entry::{Entry, WhiteList};
use std::collections::BTreeMap;

/// Key of the row that holds a channel's white list; entries are numbered from 1.
const WHITE_LIST_ROW: u64 = 0;
/// A validity that begins is looked for this often at least, as the time of day may be set.
const LOOK_MS: u64 = 3_600_000;
/// Those who are told with the next slice wait so long for it.
const SLICE_MS: u64 = 50;
/// Terminals remembered that went away before they acknowledged what they were sent.
const REACHED_MAX: usize = 65_536;

/// Entries of all channels, and how far connected terminals are.
#[derive(Debug, Default)]
pub(crate) struct Announcements {
    logs: BTreeMap<ConvNo, Log>,
    /// Bytes of all texts.
    bytes: u64,
    /// By place in `Im::online`.
    sent: BTreeMap<u32, Sent>,
    /// Changes that were sent to a terminal which went away before it acknowledged them: it may have them.
    reached: BTreeMap<(ConvNo, AccountNo, u8), u64>,
}

/// One channel.
#[derive(Debug, Default)]
struct Log {
    entries: BTreeMap<u64, Entry>,
    /// The latest change of each entry, and whose it is.
    by_change: BTreeMap<u64, u64>,
    /// The last change of the channel.
    change: u64,
    /// Sees what is `pre`, unless an entry has a list of its own.
    white: WhiteList,
    /// Sessions that are still to be told of something; the next one is the last.
    telling: Vec<Telling>,
    /// When the timer is set to.
    armed_ms: Option<u64>,
}

/// A session that is to be told of something.
#[derive(Debug, Clone, Copy)]
struct Telling {
    at_ms: u64,
    online: u32,
    serial: u32,
}

/// What was sent on one connection and may not be acknowledged yet.
#[derive(Debug, Default)]
struct Sent {
    serial: u32,
    places: BTreeMap<ConvNo, u64>,
}

impl Im {
    /// Whether a channel is for this account.
    fn is_audience(&self, account: AccountNo, channel: ConvNo) -> bool {
        match &self.dir.convs[channel.at()].kind {
            ConvKind::Channel(c) => c.to_all || self.follows(account, channel),
            _ => false,
        }
    }

    /// Puts an entry in its place, in memory and as a row.
    fn store_entry(&mut self, channel: ConvNo, no: u64, entry: Entry) {
        let value = entry.encode();
        self.keep_entry(channel, no, entry);
        self.put(row::ANNOUNCEMENT, channel.0.into(), no, &value);
    }

    fn keep_entry(&mut self, channel: ConvNo, no: u64, entry: Entry) {
        let log = self.announcements.logs.entry(channel).or_default();
        self.announcements.bytes += entry.fragment.len() as u64;
        log.change = log.change.max(entry.changed);
        log.by_change.insert(entry.changed, no);
        let changed = entry.changed;
        if let Some(old) = log.entries.insert(no, entry) {
            self.announcements.bytes -= old.fragment.len() as u64;
            if old.changed != changed {
                log.by_change.remove(&old.changed);
            }
        }
    }

    fn forget_entry(&mut self, channel: ConvNo, no: u64) {
        if let Some(log) = self.announcements.logs.get_mut(&channel)
            && let Some(old) = log.entries.remove(&no)
        {
            log.by_change.remove(&old.changed);
            self.announcements.bytes -= old.fragment.len() as u64;
            self.del(row::ANNOUNCEMENT, channel.0.into(), no);
        }
    }

    /// A validity begins, or more readers are to be told.
    pub(super) fn announcement_due(&mut self, now: Now, channel: ConvNo) {
        let Some(log) = self.announcements.logs.get_mut(&channel) else { return };
        log.armed_ms = log.armed_ms.filter(|armed_ms| now.ms < *armed_ms);
        let mut told = vec![];
        while log.telling.last().is_some_and(|telling| telling.at_ms <= now.ms) {
            told.extend(log.telling.pop());
        }
        let begins = |(no, e): (&u64, &Entry)| (e.waits && e.from_ms <= now.wall_ms).then_some(*no);
        let begun: Vec<u64> = log.entries.iter().filter_map(begins).collect();
        for Telling { online, serial, .. } in told {
            if self.online.get(online as usize).is_some_and(|o| o.serial == serial) {
                self.tell_of_channel(online, channel);
            }
        }
        for no in begun {
            self.begin_validity(now, channel, no);
        }
        self.arm_channel(now, channel);
    }

    fn begin_validity(&mut self, now: Now, channel: ConvNo, no: u64) {
        let Some(log) = self.announcements.logs.get(&channel) else { return };
        let Some(mut entry) = log.entries.get(&no).cloned() else { return };
        entry.changed = log.change + 1;
        entry.show(entry.changed, now.wall_ms);
        let notify = entry.notify;
        self.store_entry(channel, no, entry);
        if notify {
            self.spread(now, channel, no);
        }
    }

    /// Sets the timer to the next thing that is to happen in the channel.
    fn arm_channel(&mut self, now: Now, channel: ConvNo) {
        let Some(log) = self.announcements.logs.get_mut(&channel) else { return };
        let telling = log.telling.last().map(|telling| telling.at_ms.max(now.ms + SLICE_MS));
        let waiting = log.entries.values().filter(|e| e.waits).map(|e| e.from_ms).min();
        let waiting = waiting.map(|from_ms| now.ms + from_ms.saturating_sub(now.wall_ms).min(LOOK_MS));
        let Some(at_ms) = [telling, waiting].into_iter().flatten().min() else { return };
        if log.armed_ms.is_none_or(|armed_ms| at_ms < armed_ms) {
            log.armed_ms = Some(at_ms);
            self.arm(at_ms, ImTimer::Announcement(channel));
        }
    }

    pub(super) fn restore_announcement(&mut self, channel: ConvNo, no: u64, value: &[u8]) -> Result<(), DecodeError> {
        if no == WHITE_LIST_ROW {
            let mut r = reader(value)?;
            let log = self.announcements.logs.entry(channel).or_default();
            log.change = log.change.max(r.int()?);
            log.white = WhiteList::read(&mut r)?;
            return Ok(());
        }
        self.keep_entry(channel, no, Entry::decode(value)?);
        Ok(())
    }

    /// Every row was read: deadlines are set.
    pub(super) fn announcements_restored(&mut self, now: Now) {
        let channels: Vec<ConvNo> = self.announcements.logs.keys().copied().collect();
        for channel in channels {
            self.arm_channel(now, channel);
        }
    }
}
