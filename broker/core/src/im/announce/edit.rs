//! What those who write to a channel may do.

use super::WHITE_LIST_ROW;
use super::entry::{Entry, State, content_of};
use super::request::{Fields, Op};
use crate::hub::Now;
use crate::im::model::{AccountKind, AccountNo, Address, Channel, Conv, ConvKind, ConvNo};
use crate::im::name::{NameKind, is_client_id, name_kind};
use crate::im::row::{self, RowWriter};
use crate::im::{Code, Done, Im, Origin, Refusal, Verdict, number, object, shorten, text};
use serde_json::{Value, json};

/// Editors of one channel, and characters of its name.
const EDITORS_MAX: usize = 64;
const NAME_CHARS_MAX: usize = 64;
/// Entries of one list, when nothing is said, and at most.
const LIST_DEFAULT: u64 = 50;
const LIST_MOST: u64 = 200;

impl Im {
    /// `admin/ch/{channel}/{op}`.
    pub(in crate::im) fn on_channel(
        &mut self,
        now: Now,
        origin: &Origin<'_>,
        channel: &str,
        op: &str,
        payload: &[u8],
    ) -> Result<Verdict, Refusal> {
        if name_kind(channel) != Some(NameKind::Channel) {
            let text = format!("{} is no name of a channel: those begin with ch-", shorten(channel));
            return Err(Refusal::bad(text));
        }
        if op == "create" {
            return self.create_channel(origin, channel, payload);
        }
        let no = match self.dir.by_name.get(channel) {
            Some(Address::Conv(no)) => *no,
            _ => return Err(Refusal::not_found(format!("there is no channel {channel}"))),
        };
        if !self.may_announce(origin, no) {
            let text = "only its editors, services and the group admins may do that to a channel";
            return Err(Refusal::new(Code::Forbidden, text));
        }
        match op {
            "list" => self.list_channel(no, payload),
            "whitelist" => self.set_white_list(now, no, payload),
            _ => {
                let known = Op::parse(op);
                let unknown = || Refusal::new(Code::BadTopic, format!("{} is nothing one can do", shorten(op)));
                self.change_entry(now, origin, no, known.ok_or_else(unknown)?, op, payload)
            }
        }
    }

    fn may_announce(&self, origin: &Origin<'_>, channel: ConvNo) -> bool {
        let is_editor = match &self.dir.convs[channel.at()].kind {
            ConvKind::Channel(c) => c.editors.contains(&origin.account),
            _ => return false,
        };
        is_editor || self.is_operator(origin)
    }

    /// Is a service, or in the group `admins`.
    fn is_operator(&self, origin: &Origin<'_>) -> bool {
        let account = self.dir.accounts.get(origin.account.at());
        origin.operator || account.is_some_and(|a| a.kind == AccountKind::Service)
    }

    fn create_channel(&mut self, origin: &Origin<'_>, address: &str, payload: &[u8]) -> Result<Verdict, Refusal> {
        if !self.is_operator(origin) {
            let text = "only services and accounts in the group admins may make a channel";
            return Err(Refusal::new(Code::Forbidden, text));
        }
        let object = object(payload)?;
        let name = text(&object, "name")?.unwrap_or_default().to_owned();
        if name.chars().count() > NAME_CHARS_MAX {
            return Err(Refusal::bad("\"name\" has more than 64 characters"));
        }
        let to_all = match text(&object, "audience")? {
            None | Some("followers") => false,
            Some("all") => true,
            Some(_) => return Err(Refusal::bad("\"audience\" is neither \"all\" nor \"followers\"")),
        };
        let mut editors = self.accounts_in(&object, "editors", EDITORS_MAX as u64)?.unwrap_or_default();
        if origin.session.is_some() && !editors.contains(&origin.account) {
            editors.push(origin.account);
            editors.sort_unstable();
        }
        let channel = Channel { address: address.into(), name, to_all, editors };
        let reply = self.channel_line(&channel);
        if let Some(known) = self.dir.by_name.get(address) {
            // The same again is a retry.
            if let Address::Conv(no) = known
                && self.dir.convs[no.at()].kind == ConvKind::Channel(channel)
            {
                return Ok(Verdict::Done(Done { dup: true, ..Done::stored(reply) }));
            }
            return Err(Refusal::new(Code::Exists, format!("there is a channel {address} already")));
        }
        let channels = self.dir.convs.iter().filter(|c| matches!(c.kind, ConvKind::Channel(_))).count() as u64;
        if channels >= self.limits.im_channels_max {
            return Err(Refusal::new(
                Code::Quota,
                "there are as many channels as there may be (limits.im_channels_max)",
            ));
        }
        let name = std::rc::Rc::clone(&channel.address);
        let no = self.make_conv(Conv::new(ConvKind::Channel(channel), vec![]));
        self.dir.by_name.insert(name, Address::Conv(no));
        Ok(Verdict::Done(Done::stored(reply)))
    }

    fn channel_line(&self, channel: &Channel) -> Value {
        let editors: Vec<&str> = channel.editors.iter().map(|no| &**self.name_of(*no)).collect();
        let audience = if channel.to_all { "all" } else { "followers" };
        json!({ "channel": &*channel.address, "name": channel.name, "audience": audience, "editors": editors })
    }

    /// The accounts a field names, ascending.
    fn accounts_in(
        &self,
        object: &serde_json::Map<String, Value>,
        key: &str,
        most: u64,
    ) -> Result<Option<Vec<AccountNo>>, Refusal> {
        let wrong = || Refusal::bad(format!("\"{key}\" is not a list of at most {most} names of accounts"));
        let names = match object.get(key) {
            None | Some(Value::Null) => return Ok(None),
            Some(value) => value.as_array().ok_or_else(wrong)?,
        };
        if names.len() as u64 > most {
            return Err(wrong());
        }
        let mut accounts = vec![];
        for name in names {
            let name = name.as_str().ok_or_else(wrong)?;
            let unknown = || Refusal::not_found(format!("there is no account {}", shorten(name)));
            accounts.push(self.account_no(name).ok_or_else(unknown)?);
        }
        accounts.sort_unstable();
        accounts.dedup();
        Ok(Some(accounts))
    }

    // ---- Entries ---------------------------------------------------------------------------------------------

    fn change_entry(
        &mut self,
        now: Now,
        origin: &Origin<'_>,
        channel: ConvNo,
        op: Op,
        word: &str,
        payload: &[u8],
    ) -> Result<Verdict, Refusal> {
        let mut fields = Fields::parse(now, payload, self.limits.im_announcement_bytes_max)?;
        if fields.id.is_none() {
            fields.id = origin.id.filter(|id| is_client_id(id)).map(str::to_owned);
        }
        let id = fields.id.clone().unwrap_or_default();
        let content = content_of(word, payload);
        let (no, old) = match fields.entry {
            Some(no) => {
                let log = self.announcements.logs.get(&channel);
                let found = log.and_then(|log| log.entries.get(&no)).cloned();
                (no, found.ok_or_else(|| Refusal::not_found(format!("there is no entry {no}")))?)
            }
            None if matches!(op, Op::Modify | Op::Stop | Op::Recall) => {
                return Err(Refusal::bad("\"entry\" is missing: the number of which entry?"));
            }
            None => {
                if let Some((no, known)) = self.made_with(channel, origin.account, &id) {
                    let text = "this id was used for another content; a new entry needs a new id";
                    let refusal = Refusal::new(Code::IdReused, text);
                    let reply = entry_line(no, known);
                    return if known.content == content { Ok(done(no, reply, true)) } else { Err(refusal) };
                }
                if fields.fragment.is_none() {
                    return Err(Refusal::bad("a new entry needs \"text\" or \"body\", or else say which \"entry\""));
                }
                (self.next_entry(now, channel)?, Entry::new(origin.account, &id, content))
            }
        };
        let state = op.leads_to(old.state, fields.has_any()).ok_or_else(|| {
            Refusal::new(
                Code::TooLate,
                format!("entry {no} is {}: it cannot be changed by {word} now", old.state.text()),
            )
        })?;
        if matches!(op, Op::Stop | Op::Recall) && fields.has_any() {
            return Err(Refusal::bad(format!("{word} takes nothing but \"entry\"")));
        }
        let entry = self.entry_after(now, channel, &old, state, fields)?;
        let reply = entry_line(no, &entry);
        if entry.changed != old.changed {
            self.commit_entry(now, channel, no, &old, entry);
        }
        Ok(done(no, reply, false))
    }

    /// The entry that this account made with this client id.
    fn made_with(&self, channel: ConvNo, by: AccountNo, id: &str) -> Option<(u64, &Entry)> {
        let log = self.announcements.logs.get(&channel).filter(|_| !id.is_empty())?;
        log.entries.iter().rev().find(|(_, e)| e.by == by && *e.id == *id).map(|(no, e)| (*no, e))
    }

    /// The number of the next entry, once there is room for it.
    fn next_entry(&self, now: Now, channel: ConvNo) -> Result<u64, Refusal> {
        let Some(log) = self.announcements.logs.get(&channel) else { return Ok(1) };
        let is_full = log.entries.len() as u64 >= self.limits.im_channel_entries_max;
        if is_full && !log.entries.values().any(|e| e.is_over(now.wall_ms)) {
            let text = "the channel has as many entries as it may (limits.im_channel_entries_max), and none is over";
            return Err(Refusal::new(Code::Quota, text));
        }
        Ok(log.entries.last_key_value().map_or(1, |(no, _)| no + 1))
    }

    /// The entry as it is after this change; with the old number of its change when nothing is different.
    fn entry_after(
        &self,
        now: Now,
        channel: ConvNo,
        old: &Entry,
        state: State,
        fields: Fields,
    ) -> Result<Entry, Refusal> {
        let log = self.announcements.logs.get(&channel);
        let change = log.map_or(0, |log| log.change) + 1;
        let mut entry = old.clone();
        let begins = state != old.state && matches!(state, State::Pre | State::Live);
        let is_looked_at = begins || fields.from_ms.or(fields.until_ms).is_some();
        fields.apply(&mut entry, change, now.wall_ms);
        if is_looked_at && entry.until_ms != 0 && entry.until_ms <= entry.from_ms.max(now.wall_ms) {
            return Err(Refusal::bad("\"until\" is over, or before \"from\""));
        }
        let bytes = self.announcements.bytes - old.fragment.len() as u64 + entry.fragment.len() as u64;
        if entry.fragment.len() > old.fragment.len() && bytes > self.limits.im_channel_bytes_max {
            let text = "the texts of all channels have as many bytes as they may (limits.im_channel_bytes_max)";
            return Err(Refusal::new(Code::Quota, text));
        }
        entry.state = state;
        if state == State::Recalled {
            entry.wipe();
        }
        if state == State::Live && entry.white.is_none() && entry.pre_change != 0 {
            // Who has seen it stays known, whatever becomes of the channel's list.
            entry.white = log.map(|log| log.white.clone());
        }
        entry.show(change, now.wall_ms);
        if entry != *old || old.changed == 0 {
            entry.changed = change;
            entry.changed_ms = now.wall_ms;
        }
        Ok(entry)
    }

    fn commit_entry(&mut self, now: Now, channel: ConvNo, no: u64, old: &Entry, entry: Entry) {
        let tells = match entry.state {
            State::Recalled => old.was_shown(),
            State::Pre | State::Live => entry.notify && !entry.waits,
            State::Draft | State::Stopped => false,
        };
        let entries = self.announcements.logs.get(&channel).map_or(0, |log| log.entries.len() as u64);
        if old.changed == 0
            && entries >= self.limits.im_channel_entries_max
            && let Some(oldest) = self.oldest_over(now, channel)
        {
            self.forget_entry(channel, oldest);
        }
        self.store_entry(channel, no, entry);
        if tells {
            self.spread(now, channel, no);
        }
        self.arm_channel(now, channel);
    }

    /// The entry that a new one may take the room of: rather one that is over than one whose recall is on its way.
    fn oldest_over(&self, now: Now, channel: ConvNo) -> Option<u64> {
        let entries = &self.announcements.logs.get(&channel)?.entries;
        let over = |recalled: bool| {
            let fits = |e: &Entry| e.is_over(now.wall_ms) && (e.state == State::Recalled) == recalled;
            entries.iter().find(|(_, e)| fits(e)).map(|(no, _)| *no)
        };
        over(false).or_else(|| over(true))
    }

    // ---- White lists and lists -------------------------------------------------------------------------------

    fn set_white_list(&mut self, now: Now, channel: ConvNo, payload: &[u8]) -> Result<Verdict, Refusal> {
        let object = object(payload)?;
        let accounts = self.accounts_in(&object, "accounts", self.limits.im_white_list_max)?;
        let accounts = accounts.ok_or_else(|| Refusal::bad("\"accounts\" is missing: who is on the list?"))?;
        let names: Vec<&str> = accounts.iter().map(|no| &**self.name_of(*no)).collect();
        let mut reply = json!({ "accounts": names });
        let log = self.announcements.logs.entry(channel).or_default();
        let change = log.change + 1;
        let added = if let Some(no) = number(&object, "entry")? {
            let unknown = || Refusal::not_found(format!("there is no entry {no}"));
            let mut entry = log.entries.get(&no).cloned().ok_or_else(unknown)?;
            if !matches!(entry.state, State::Draft | State::Pre) {
                let text = format!("entry {no} is {}: its white list is of no use any more", entry.state.text());
                return Err(Refusal::new(Code::TooLate, text));
            }
            let (white, added) = entry.white.as_ref().unwrap_or(&log.white).changed_to(&accounts, change);
            (entry.white, entry.changed) = (Some(white), change);
            self.store_entry(channel, no, entry);
            reply["entry"] = no.into();
            added
        } else {
            let (white, added) = log.white.changed_to(&accounts, change);
            log.white = white;
            log.change = change;
            let shown = |(no, e): (&u64, &Entry)| (e.state == State::Pre && e.white.is_none()).then_some(*no);
            let shown: Vec<u64> = log.entries.iter().filter_map(shown).collect();
            let mut w = RowWriter::new(1);
            w.int(change);
            log.white.write(&mut w);
            self.put(row::ANNOUNCEMENT, channel.0.into(), WHITE_LIST_ROW, &w.0);
            for no in if added.is_empty() { vec![] } else { shown } {
                self.touch_entry(channel, no);
            }
            added
        };
        self.tell_accounts(&added, channel);
        self.arm_channel(now, channel);
        Ok(Verdict::Done(Done::stored(reply)))
    }

    /// Terminals that went past an entry look at it again.
    fn touch_entry(&mut self, channel: ConvNo, no: u64) {
        let Some(log) = self.announcements.logs.get(&channel) else { return };
        let Some(mut entry) = log.entries.get(&no).cloned() else { return };
        entry.changed = log.change + 1;
        self.store_entry(channel, no, entry);
    }

    fn list_channel(&self, channel: ConvNo, payload: &[u8]) -> Result<Verdict, Refusal> {
        let object = object(payload)?;
        let max = number(&object, "max")?.unwrap_or(LIST_DEFAULT).clamp(1, LIST_MOST);
        let before = number(&object, "before")?.unwrap_or(u64::MAX);
        let log = self.announcements.logs.get(&channel);
        let mut lines = vec![];
        if let Some(no) = number(&object, "entry")? {
            let unknown = || Refusal::not_found(format!("there is no entry {no}"));
            let entry = log.and_then(|log| log.entries.get(&no)).ok_or_else(unknown)?;
            let mut line = entry_line(no, entry);
            line["message"] = message_of(entry);
            line["white"] = entry.white.as_ref().map(|white| self.names_of(white.0.keys())).into();
            lines.push(line);
        } else {
            let entries = log.into_iter().flat_map(|log| log.entries.range(..before).rev());
            for (no, entry) in entries.take(usize::try_from(max).unwrap_or(usize::MAX)) {
                let mut line = entry_line(*no, entry);
                line["preview"] = preview_of(entry).into();
                lines.push(line);
            }
        }
        let ConvKind::Channel(settings) = &self.dir.convs[channel.at()].kind else {
            return Err(Refusal::not_found("there is no such channel"));
        };
        let mut reply = self.channel_line(settings);
        reply["change"] = log.map_or(0, |log| log.change).into();
        reply["white"] = log.map(|log| self.names_of(log.white.0.keys())).into();
        reply["entries"] = lines.into();
        Ok(Verdict::Done(Done::told(reply)))
    }

    fn names_of<'a>(&self, accounts: impl Iterator<Item = &'a AccountNo>) -> Vec<String> {
        accounts.map(|no| self.name_of(*no).to_string()).collect()
    }
}

fn done(no: u64, reply: Value, dup: bool) -> Verdict {
    Verdict::Done(Done { dup, seq: no, ..Done::stored(reply) })
}

/// An entry in an answer.
fn entry_line(no: u64, entry: &Entry) -> Value {
    let gates = entry.gates();
    let mut line = json!({
        "entry": no,
        "state": entry.state.text(),
        "version": entry.version,
        "change": entry.changed,
        "notify": entry.notify,
        "sent": entry.sent,
        "ts": entry.shown_ms,
        "changed": entry.changed_ms,
    });
    if entry.waits {
        line["waits"] = true.into();
    }
    for (key, value) in [("from", entry.from_ms), ("until", entry.until_ms)] {
        if value != 0 {
            line[key] = value.into();
        }
    }
    if gates.min != 0 || gates.max != 0 {
        line["level"] = json!({ "min": gates.min, "max": gates.max });
    }
    if !gates.platforms.is_empty() {
        line["platforms"] = gates.platforms.iter().map(|p| &**p).collect::<Vec<&str>>().into();
    }
    if !entry.id.is_empty() {
        line["id"] = (*entry.id).into();
    }
    line
}

fn message_of(entry: &Entry) -> Value {
    let object = [b"{", entry.fragment.get(1..).unwrap_or_default(), b"}"].concat();
    serde_json::from_slice(&object).unwrap_or_default()
}

/// The first 80 characters of its text.
fn preview_of(entry: &Entry) -> String {
    let message = message_of(entry);
    let text = match (message.get("text"), message.get("body")) {
        (Some(Value::String(text)), _) => text.clone(),
        (_, Some(body)) => body.to_string(),
        _ => String::new(),
    };
    text.chars().take(80).collect()
}
