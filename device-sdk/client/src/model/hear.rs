//! What comes down changes what is known, and is told when it is new.

use super::conversation::Arrival;
use super::event::{Event, Told};
use super::limits::{NAMES_MAX, PAGE, REFUSALS_MAX, TYPING_MS};
use super::wire::{self, Message, Refusal};
use super::{Messenger, Refused, Teller};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;

impl Messenger {
    /// Something came down.
    pub fn handle_publish(&mut self, topic: &str, payload: &[u8], now: u64) {
        match wire::read(topic, payload) {
            Ok(heard) => self.hear(heard, now),
            Err(error) => self.event(Event::Unreadable { text: error.to_string() }),
        }
    }

    fn hear(&mut self, heard: Told, now: u64) {
        let me = self.me.clone();
        let is_news = match &heard.event {
            Event::Message { with, message } => self.take(with, message.clone()),
            Event::Sent { with, message, dup } => {
                let from = if message.from.is_empty() { me } else { message.from.clone() };
                // What was there already comes back without its content.
                *dup || self.take(with, Message { from, ..message.clone() })
            }
            Event::Receipt { with, receipt } => self.conversation_mut(with).receipt(receipt, &me),
            Event::Recall { with, seq, .. } => {
                self.conversation_mut(with).recall(*seq, &me);
                true
            }
            Event::Edit { with, message } => self.conversation_mut(with).edit(message),
            Event::Contact { with, op, own, .. } => {
                let state = match (op.as_str(), own) {
                    ("request", false) => "asking",
                    ("request", true) => "asked",
                    ("accept", _) => "friends",
                    _ => "none",
                };
                self.stand(with, state);
                true
            }
            Event::Typing { with, from, typing } => {
                let until = now + TYPING_MS;
                let typists = &mut self.conversation_mut(with).typing;
                if *typing {
                    typists.insert(from.clone(), until)
                } else {
                    typists.remove(from)
                };
                true
            }
            Event::Bounce { refusal, with, .. } => {
                self.conversation_mut(with).refuse(refusal);
                // A refusal is told once; only what came too late has no other way here.
                let re = format!("to/{with}/");
                let told = |known: &Refused| {
                    known.code == refusal.code
                        && known.re.starts_with(&re)
                        && (known.id.is_none() || refusal.id.is_none() || known.id == refusal.id)
                };
                !self.refusals.iter().any(told)
            }
            Event::Refused { re, refusal } => {
                self.refused(&re.clone(), refusal.clone(), Teller::Topic);
                return;
            }
            Event::Head { unread } => {
                self.unread = *unread;
                true
            }
            Event::Conversation { with, summary } => {
                self.conversation_mut(with).summarise(summary);
                true
            }
            Event::CommandResult { id, report } => self.commands.report(id, report),
            Event::Answer { re, id } => self.answer(re, id.as_deref(), &heard.body),
            Event::Presence { with, presence } => keep(&mut self.presence, with, presence.clone()),
            Event::State { device, state } => {
                // Retained state comes again with each connection; an older version changes nothing.
                let known = self.devices.get(device);
                let is_news = known.is_none_or(|known| known != state);
                is_news && keep(&mut self.devices, device, state.clone())
            }
            Event::Gone { topic } => self.gone(topic),
            _ => true,
        };
        if is_news {
            self.event(heard);
        }
    }

    /// A message, from others or from another terminal; whether it is new.
    fn take(&mut self, with: &str, message: Message) -> bool {
        let me = self.me.clone();
        match self.conversation_mut(with).add(message, &me, with.starts_with("r-")) {
            Arrival::Known => false,
            Arrival::Next => true,
            Arrival::Missing { after } => {
                self.pull(with, after);
                true
            }
        }
    }

    /// A retained value was taken back; whether that is new.
    fn gone(&mut self, topic: &str) -> bool {
        match topic.split('/').collect::<Vec<_>>()[..] {
            ["me", "conv", with] => self.conversations.remove(with).is_some(),
            ["presence", with] => self.presence.remove(with).is_some(),
            ["state", device] => self.devices.remove(device).is_some(),
            _ => false,
        }
    }

    /// An answer; whether it is to be told. What was pulled to fill a gap is told as the messages it holds.
    fn answer(&mut self, re: &str, id: Option<&str>, body: &Value) -> bool {
        match re {
            "history" => return self.answer_history(id.unwrap_or_default(), body),
            "convs" => {
                for summary in list(body, "convs") {
                    if let Ok(summary) = wire::Summary::deserialize(summary) {
                        self.conversation_mut(&summary.addr.clone()).summarise(&summary);
                    }
                }
            }
            "contacts" => {
                for contact in list(body, "contacts") {
                    if let (Some(name), Some(state)) = (contact["addr"].as_str(), contact["state"].as_str()) {
                        self.stand(name, state);
                    }
                }
            }
            _ => {}
        }
        if let (Some(with), Some(state)) = (re.strip_prefix("contact/"), body["state"].as_str()) {
            self.stand(with, state);
        }
        if let Some(with) = re.strip_prefix("conv/")
            && body["op"] == "clear"
        {
            self.conversation_mut(with).clear();
        }
        true
    }

    fn answer_history(&mut self, id: &str, body: &Value) -> bool {
        let Some(with) = body["with"].as_str() else { return true };
        let messages: Vec<Message> =
            list(body, "messages").iter().filter_map(|message| Message::read(message).ok()).collect();
        // Without a word about it, a full page means that there is more.
        let more = body["more"].as_bool().unwrap_or(messages.len() as u64 >= PAGE);
        let conversation = self.conversation_mut(with);
        if id.starts_with("pull-") {
            let new: Vec<Message> = messages.iter().filter(|m| conversation.lacks(m)).cloned().collect();
            if let Some(after) = conversation.add_pulled(messages, more) {
                self.pull(with, after);
            }
            for message in new {
                self.tell_pulled(with, message, body);
            }
            return false;
        }
        if id.starts_with("older-") {
            conversation.add_older(messages, more);
        }
        true
    }

    fn tell_pulled(&mut self, with: &str, message: Message, answer: &Value) {
        let is_it = |entry: &&Value| entry["seq"].as_u64() == Some(message.seq);
        let body = list(answer, "messages").iter().find(is_it).cloned().unwrap_or(Value::Null);
        let with = with.to_owned();
        let event = if message.from == self.me {
            Event::Sent { with, message, dup: false }
        } else {
            Event::Message { with, message }
        };
        self.event(Told { body, ..event.into() });
    }

    /// Tells of a refusal once, whichever way it comes first. Of what waits in the outbox the acknowledgement decides.
    pub(super) fn refused(&mut self, re: &str, refusal: Refusal, told_by: Teller) {
        if refusal.id.as_ref().is_some_and(|id| self.outbox.waits(re, id)) {
            return;
        }
        if self.remember_refusal(re, &refusal, told_by) {
            self.event(Event::Refused { re: re.to_owned(), refusal });
        }
    }

    /// Notes a refusal; whether it is news.
    pub(super) fn remember_refusal(&mut self, re: &str, refusal: &Refusal, told_by: Teller) -> bool {
        let again = self.refusals.iter_mut().find(|known| {
            !known.told_by.contains(&told_by)
                && known.re == re
                && known.code == refusal.code
                && (known.id.is_none() || refusal.id.is_none() || known.id == refusal.id)
        });
        if let Some(known) = again {
            known.told_by.push(told_by);
            return false;
        }
        self.refusals.push_back(Refused {
            re: re.to_owned(),
            id: refusal.id.clone(),
            code: refusal.code.clone(),
            told_by: vec![told_by],
        });
        while self.refusals.len() > REFUSALS_MAX {
            self.refusals.pop_front();
        }
        if let Some(id) = &refusal.id {
            self.commands.refuse(id, &format!("{}: {}", refusal.code, refusal.text));
        }
        if let Some(with) = re.strip_prefix("to/").and_then(|rest| rest.strip_suffix("/msg")) {
            self.conversation_mut(with).refuse(refusal);
        }
        true
    }

    fn stand(&mut self, name: &str, state: &str) {
        if state == "none" {
            self.contacts.remove(name);
        } else {
            keep(&mut self.contacts, name, state.to_owned());
        }
    }
}

fn keep<T: PartialEq>(map: &mut BTreeMap<String, T>, name: &str, value: T) -> bool {
    if !map.contains_key(name) && map.len() >= NAMES_MAX {
        return false;
    }
    let is_news = map.get(name) != Some(&value);
    map.insert(name.to_owned(), value);
    is_news
}

fn list<'a>(body: &'a Value, key: &str) -> &'a [Value] {
    body[key].as_array().map_or(&[], Vec::as_slice)
}
