//! What a messaging client knows and does, without sockets, clocks or randomness: conversations, commands, presence, and
//! what is still to be published. Whoever has a connection feeds it and carries its effects out:
//!
//! - events in: [`Messenger::handle_connected`], [`Messenger::handle_disconnected`], [`Messenger::handle_publish`],
//!   [`Messenger::handle_answer`];
//! - what a person does: [`Messenger::send`], [`Messenger::command`], [`Messenger::read`], [`Messenger::ask`] and so on;
//! - effects out, after each of them: [`Messenger::poll_publish`], [`Messenger::poll_event`];
//! - views: [`Messenger::conversations`], [`Messenger::presence`] and so on.
//!
//! Times are milliseconds since 1970 and arguments.

pub mod command;
pub mod conversation;
pub mod event;
mod hear;
pub mod limits;
pub mod up;
pub mod wire;

#[cfg(test)]
mod tests;

use command::Commands;
use conversation::{Conversation, Unsent};
use event::{Answer, Event};
use limits::{ATTEMPTS_MAX, CONVERSATIONS_MAX, EVENTS_MAX, OUTBOX_MAX, PAGE, TYPING_TOLD_MS};
use serde_json::{Value, json};
use std::collections::{BTreeMap, VecDeque};
use up::{Draft, Effort, Instruction, Publish};
use wire::{DeviceState, Message, Presence};

/// What one terminal of one account knows.
#[derive(Debug)]
pub struct Messenger {
    me: String,
    seed: u64,
    next_id: u64,
    conversations: BTreeMap<String, Conversation>,
    contacts: BTreeMap<String, String>,
    presence: BTreeMap<String, Presence>,
    devices: BTreeMap<String, DeviceState>,
    commands: Commands,
    unread: u64,
    connected: bool,
    outbox: VecDeque<Outgoing>,
    next_token: u64,
    events: VecDeque<Event>,
    events_lost: u64,
    refusals: VecDeque<Refused>,
    typing_told: BTreeMap<String, u64>,
}

/// Something in the outbox.
#[derive(Debug)]
struct Outgoing {
    publish: Publish,
    purpose: Purpose,
    /// It has been handed out on this connection.
    is_sent: bool,
    /// On how many connections it has been.
    attempts: u32,
}

/// What a publish is for: who wants to know how it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Purpose {
    Message { with: String, id: String },
    Command { id: String },
    Mark { with: String },
    Pull { with: String },
    Older { with: String },
    Passing,
    Other { id: Option<String> },
}

/// A refusal that will come, or came, a second time: as PUBACK and on `im/v1/me/err`.
#[derive(Debug, PartialEq, Eq)]
struct Refused {
    re: String,
    id: Option<String>,
    code: String,
    /// The ways it has come so far.
    told_by: Vec<Teller>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Teller {
    Puback,
    Topic,
}

/// Too much waits for the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{OUTBOX_MAX} things wait for the broker already; this one was not taken, try again when it answers")]
pub struct OutboxFull;

impl Messenger {
    /// Somebody who knows nothing yet. `seed` must differ from run to run: client ids are made from it.
    pub fn new(me: &str, seed: u64) -> Self {
        Self {
            me: me.to_owned(),
            seed,
            next_id: 0,
            conversations: BTreeMap::new(),
            contacts: BTreeMap::new(),
            presence: BTreeMap::new(),
            devices: BTreeMap::new(),
            commands: Commands::default(),
            unread: 0,
            connected: false,
            outbox: VecDeque::new(),
            next_token: 1,
            events: VecDeque::new(),
            events_lost: 0,
            refusals: VecDeque::new(),
            typing_told: BTreeMap::new(),
        }
    }

    /// There is a connection, and the subscriptions stand.
    pub fn handle_connected(&mut self) {
        self.connected = true;
        for outgoing in &mut self.outbox {
            outgoing.is_sent = false;
        }
        let gaps: Vec<(String, u64)> =
            self.conversations.iter().filter_map(|(with, c)| Some((with.clone(), c.gap()?))).collect();
        for (with, after) in gaps {
            self.pull(&with, after);
        }
        self.event(Event::Connected);
    }

    /// The connection is gone. What was not answered is published again on the next one; ids keep it single.
    pub fn handle_disconnected(&mut self, why: &str) {
        self.connected = false;
        // Answers to these came on the connection or will not come; what only passes has passed.
        self.outbox.retain(|outgoing| {
            !matches!(outgoing.purpose, Purpose::Pull { .. } | Purpose::Older { .. } | Purpose::Passing)
        });
        for conversation in self.conversations.values_mut() {
            conversation.interrupt();
        }
        self.typing_told.clear();
        self.event(Event::Disconnected { why: why.to_owned() });
        let hopeless = |outgoing: &&Outgoing| outgoing.is_sent && outgoing.attempts >= ATTEMPTS_MAX;
        let hopeless: Vec<u64> = self.outbox.iter().filter(hopeless).map(|outgoing| outgoing.publish.token).collect();
        for token in hopeless {
            let text = format!("{ATTEMPTS_MAX} connections ended before the broker answered it: {why}");
            self.handle_answer(token, Answer::Refused { code: "no_answer".to_owned(), text });
        }
    }

    /// The broker has acknowledged a publish, or refused it.
    pub fn handle_answer(&mut self, token: u64, answer: Answer) {
        let Some(at) = self.outbox.iter().position(|outgoing| outgoing.publish.token == token) else { return };
        let Some(Outgoing { publish, purpose, .. }) = self.outbox.remove(at) else { return };
        let re = publish.topic.strip_prefix("im/v1/").unwrap_or(&publish.topic).to_owned();
        let id = match &purpose {
            Purpose::Message { id, .. } | Purpose::Command { id } => Some(id.clone()),
            Purpose::Other { id } => id.clone(),
            _ => None,
        };
        match answer {
            Answer::Accepted { seq, dup } => {
                if let (Purpose::Message { with, id }, Some(seq)) = (&purpose, seq) {
                    self.conversation_mut(with).accept(id, seq);
                }
                if matches!(purpose, Purpose::Message { .. } | Purpose::Command { .. } | Purpose::Other { .. }) {
                    self.event(Event::Accepted { re, id, seq, dup });
                }
            }
            Answer::Refused { code, text } => {
                match &purpose {
                    Purpose::Older { with } | Purpose::Pull { with } => self.conversation_mut(with).interrupt(),
                    _ => {}
                }
                self.refused(&re, wire::Refusal { code, text, id }, Teller::Puback);
            }
        }
    }

    /// Sends a message; its client id.
    pub fn send(&mut self, with: &str, draft: &Draft, now: u64) -> Result<String, OutboxFull> {
        self.room()?;
        let id = draft.id.clone().unwrap_or_else(|| self.make_id());
        let message = Message {
            from: self.me.clone(),
            ts: now,
            id: Some(id.clone()),
            text: draft.text.clone(),
            kind: draft.kind.clone(),
            body: draft.body.clone(),
            re: draft.re,
            ..Message::default()
        };
        self.conversation_mut(with).write(Unsent { id: id.clone(), message, refused: None });
        let purpose = Purpose::Message { with: with.to_owned(), id: id.clone() };
        self.publish(&format!("to/{with}/msg"), &draft.payload(&id), Effort::UntilAnswered, purpose);
        self.typing_told.remove(with);
        Ok(id)
    }

    /// Gives a command; its client id.
    pub fn command(&mut self, device: &str, order: &Instruction, now: u64) -> Result<String, OutboxFull> {
        self.room()?;
        let id = order.id.clone().unwrap_or_else(|| self.make_id());
        self.commands.give(&id, device, &order.name, order.args.clone(), now);
        let topic = format!("to/{device}/cmd/{}", order.name);
        self.publish(&topic, &order.payload(&id), Effort::UntilAnswered, Purpose::Command { id: id.clone() });
        Ok(id)
    }

    /// Cancels a command.
    pub fn cancel(&mut self, device: &str, id: &str) -> Result<(), OutboxFull> {
        self.room()?;
        let purpose = Purpose::Other { id: None };
        self.publish(&format!("to/{device}/cmdcancel/{id}"), &Value::Null, Effort::UntilAnswered, purpose);
        Ok(())
    }

    /// Publishes to a topic below `im/v1/`: what has no function of its own. Requests below `me/` get an id, which is returned.
    pub fn ask(&mut self, below: &str, payload: Value) -> Result<Option<String>, OutboxFull> {
        self.room()?;
        let mut payload = payload;
        let mut id = payload["id"].as_str().map(str::to_owned);
        let is_request = below.starts_with("me/") || below.starts_with("admin/");
        // State and description of a device are objects of their own; nothing is put into them.
        let takes_id =
            is_request && !["me/reported", "me/describe"].contains(&below) && !below.starts_with("me/cmdres/");
        if let (true, Some(object), None) = (takes_id, payload.as_object_mut(), &id) {
            let made = format!("{:x}-{}", self.seed, self.next_id);
            self.next_id += 1;
            object.insert("id".to_owned(), json!(made));
            id = Some(made);
        }
        self.publish(below, &payload, Effort::UntilAnswered, Purpose::Other { id: id.clone() });
        Ok(id)
    }

    /// Everything up to `seq` has been shown to the person.
    pub fn read(&mut self, with: &str, seq: u64) {
        let me = self.me.clone();
        if !self.conversation_mut(with).mark_read(seq, &me) {
            return;
        }
        // A mark that is still waiting is further back and need not go.
        let stale = |o: &Outgoing| !o.is_sent && o.purpose == Purpose::Mark { with: with.to_owned() };
        self.outbox.retain(|outgoing| !stale(outgoing));
        if self.room().is_ok() {
            let purpose = Purpose::Mark { with: with.to_owned() };
            self.publish(&format!("to/{with}/receipt"), &json!({ "read": seq }), Effort::UntilAnswered, purpose);
        }
    }

    /// The person types a message; told at most every few seconds.
    pub fn type_to(&mut self, with: &str, now: u64) {
        let told = self.typing_told.get(with).copied().unwrap_or_default();
        if self.connected && now.saturating_sub(told) >= TYPING_TOLD_MS && self.room().is_ok() {
            self.typing_told.insert(with.to_owned(), now);
            self.publish(&format!("to/{with}/typing"), &json!({"typing": true}), Effort::Once, Purpose::Passing);
        }
    }

    /// The person scrolls to where nothing is known yet.
    pub fn pull_older(&mut self, with: &str) {
        if !self.connected || self.room().is_err() || with.starts_with("r-") {
            return;
        }
        let conversation = self.conversation_mut(with);
        if conversation.asked_older || conversation.is_at_start() {
            return;
        }
        conversation.asked_older = true;
        let mut request = json!({"with": with, "max": PAGE});
        if let Some(before) = conversation.oldest_seq() {
            request["before"] = json!(before);
        }
        request["id"] = json!(format!("older-{}", self.next_token));
        let purpose = Purpose::Older { with: with.to_owned() };
        self.publish("me/history", &request, Effort::UntilAnswered, purpose);
    }

    /// The next thing to publish, while there is a connection.
    pub fn poll_publish(&mut self) -> Option<Publish> {
        if !self.connected {
            return None;
        }
        let at = self.outbox.iter().position(|outgoing| !outgoing.is_sent)?;
        if self.outbox.get(at)?.publish.effort == Effort::Once {
            return self.outbox.remove(at).map(|outgoing| outgoing.publish);
        }
        let outgoing = self.outbox.get_mut(at)?;
        outgoing.is_sent = true;
        outgoing.attempts += 1;
        Some(outgoing.publish.clone())
    }

    /// Takes back what [`Self::poll_publish`] gave, because the connection takes no more at the moment.
    pub fn unpoll(&mut self, publish: Publish) {
        match self.outbox.iter_mut().find(|outgoing| outgoing.publish.token == publish.token) {
            Some(outgoing) => {
                outgoing.is_sent = false;
                outgoing.attempts = outgoing.attempts.saturating_sub(1);
            }
            None => {
                let purpose = Purpose::Passing;
                self.outbox.push_front(Outgoing { publish, purpose, is_sent: false, attempts: 0 });
            }
        }
    }

    /// The next thing worth telling.
    pub fn poll_event(&mut self) -> Option<Event> {
        if self.events_lost > 0 {
            let lost = std::mem::take(&mut self.events_lost);
            return Some(Event::Lost { events: lost });
        }
        self.events.pop_front()
    }

    /// The account.
    pub fn me(&self) -> &str {
        &self.me
    }

    /// Whether there is a connection.
    pub fn is_connected(&self) -> bool {
        self.connected
    }

    /// How many publishes wait for an answer.
    pub fn waiting(&self) -> usize {
        self.outbox.len()
    }

    /// Conversations, the latest first.
    pub fn conversations(&self) -> Vec<(&str, &Conversation)> {
        let mut all: Vec<_> = self.conversations.iter().map(|(with, c)| (with.as_str(), c)).collect();
        all.sort_by_key(|(_, conversation)| std::cmp::Reverse(conversation.last_ts()));
        all
    }

    /// One conversation.
    pub fn conversation(&self, with: &str) -> Option<&Conversation> {
        self.conversations.get(with)
    }

    /// A conversation that is about to begin.
    pub fn open(&mut self, with: &str) {
        self.conversation_mut(with);
    }

    /// Contacts and how they stand: `friends`, `asked` by this account, `asking` it, `follows`.
    pub fn contacts(&self) -> impl Iterator<Item = (&str, &str)> {
        self.contacts.iter().map(|(name, state)| (name.as_str(), state.as_str()))
    }

    /// Whether somebody can be reached.
    pub fn presence(&self, with: &str) -> Option<&Presence> {
        self.presence.get(with)
    }

    /// Everybody whose presence or state is known.
    pub fn known(&self) -> impl Iterator<Item = &str> {
        self.presence.keys().chain(self.devices.keys()).map(String::as_str)
    }

    /// What a device says it is like.
    pub fn device(&self, name: &str) -> Option<&DeviceState> {
        self.devices.get(name)
    }

    /// Commands this account gave.
    pub fn commands(&self) -> &Commands {
        &self.commands
    }

    /// Unread messages everywhere, as the broker counts them.
    pub fn unread(&self) -> u64 {
        self.unread
    }

    fn pull(&mut self, with: &str, after: u64) {
        // At the edge of the outbox the gap stays open and is pulled on the next connection.
        if self.connected && self.room().is_ok() {
            let id = format!("pull-{}", self.next_token);
            let request = json!({"with": with, "after": after, "max": PAGE, "id": id});
            self.publish("me/history", &request, Effort::UntilAnswered, Purpose::Pull { with: with.to_owned() });
        }
    }

    fn room(&self) -> Result<(), OutboxFull> {
        if self.outbox.len() < OUTBOX_MAX { Ok(()) } else { Err(OutboxFull) }
    }

    fn publish(&mut self, below: &str, payload: &Value, effort: Effort, purpose: Purpose) {
        let payload = match payload {
            Value::Null => Vec::new(),
            Value::String(text) => text.clone().into_bytes(),
            value => value.to_string().into_bytes(),
        };
        let token = self.next_token;
        self.next_token += 1;
        let publish = Publish { token, topic: format!("im/v1/{below}"), payload, effort };
        self.outbox.push_back(Outgoing { publish, purpose, is_sent: false, attempts: 0 });
    }

    fn make_id(&mut self) -> String {
        let id = format!("{:x}-{}", self.seed, self.next_id);
        self.next_id += 1;
        id
    }

    fn event(&mut self, event: Event) {
        self.events.push_back(event);
        while self.events.len() > EVENTS_MAX {
            self.events.pop_front();
            self.events_lost += 1;
        }
    }

    fn conversation_mut(&mut self, with: &str) -> &mut Conversation {
        if !self.conversations.contains_key(with) && self.conversations.len() >= CONVERSATIONS_MAX {
            let quiet = self.conversations.iter().min_by_key(|(_, c)| c.last_ts()).map(|(with, _)| with.clone());
            if let Some(quiet) = quiet {
                self.conversations.remove(&quiet);
            }
        }
        self.conversations.entry(with.to_owned()).or_default()
    }
}
