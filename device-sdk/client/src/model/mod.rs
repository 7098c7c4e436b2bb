//! What a messaging client knows and does, without sockets, clocks or randomness: conversations, commands, presence, and
//! what is still to be published. Whoever has a connection feeds it and carries its effects out:
//!
//! - events in: [`Messenger::handle_connected`], [`Messenger::handle_disconnected`], [`Messenger::handle_publish`],
//!   [`Messenger::handle_answer`], [`Messenger::handle_stored`];
//! - what a person does: [`Messenger::send`], [`Messenger::command`], [`Messenger::read`], [`Messenger::ask`] and so on;
//! - effects out, after each of them: [`Messenger::poll_row`], [`Messenger::poll_publish`], [`Messenger::poll_given_up`],
//!   [`Messenger::poll_event`];
//! - views: [`Messenger::conversations`], [`Messenger::presence`] and so on.
//!
//! Times are milliseconds since 1970 and arguments.

pub mod command;
pub mod conversation;
pub mod event;
mod hear;
pub mod limits;
pub mod outbox;
mod say;
pub mod up;
pub mod wire;

#[cfg(test)]
mod tests;

use command::Commands;
use conversation::Conversation;
use event::{Answer, Event, Told};
use limits::{CONVERSATIONS_MAX, EVENTS_MAX};
use outbox::{Outbox, Purpose, Row};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;
use up::Publish;
use wire::{DeviceState, Presence};

pub use outbox::OutboxFull;

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
    outbox: Outbox,
    events: VecDeque<Told>,
    events_missed: u64,
    refusals: VecDeque<Refused>,
    typing_told: BTreeMap<String, u64>,
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
            outbox: Outbox::default(),
            events: VecDeque::new(),
            events_missed: 0,
            refusals: VecDeque::new(),
            typing_told: BTreeMap::new(),
        }
    }

    /// At most so many publishes wait for the broker.
    pub fn limit_outbox(&mut self, max: usize) {
        self.outbox.max = max.max(1);
    }

    /// From now on nothing that matters is published before [`Self::handle_stored`] says that its row is on disk.
    pub fn keep_rows(&mut self) {
        self.outbox.keeps_rows = true;
    }

    /// There is a connection, and the subscriptions stand.
    pub fn handle_connected(&mut self) {
        self.connected = true;
        let gaps: Vec<(String, u64)> =
            self.conversations.iter().filter_map(|(with, c)| Some((with.clone(), c.gap()?))).collect();
        for (with, after) in gaps {
            self.pull(&with, after);
        }
        self.event(Event::Connected);
    }

    /// The connection is gone. What was not answered is published again on the next one; ids keep it single.
    pub fn handle_disconnected(&mut self, why: &str, retry_in: Duration) {
        self.connected = false;
        self.outbox.interrupt(why);
        for conversation in self.conversations.values_mut() {
            conversation.interrupt();
        }
        self.typing_told.clear();
        self.event(Event::Disconnected { why: why.to_owned(), retry_in });
    }

    /// There will be no connection any more.
    pub fn handle_ended(&mut self, error: crate::error::ConnectError) {
        self.connected = false;
        self.event(Event::Ended { error });
    }

    /// What has no row is given up: there will be no connection any more.
    pub fn give_up_all(&mut self, why: &str) {
        self.outbox.end(why);
    }

    /// Something came on an ordinary topic.
    pub fn handle_topic(&mut self, topic: &str, payload: Vec<u8>) {
        let body = serde_json::from_slice(&payload).unwrap_or_default();
        let event = Event::Published { topic: topic.to_owned(), payload };
        self.event(Told { body, ..event.into() });
    }

    /// A subscription to ordinary topics is refused.
    pub fn handle_not_subscribed(&mut self, filter: &str, why: &str) {
        let (code, text) = ("not_subscribed".to_owned(), why.to_owned());
        let refusal = wire::Refusal { code, text, id: None };
        self.event(Event::Refused { re: filter.to_owned(), refusal });
    }

    /// The broker has acknowledged a publish, or refused it. The first answer to a token counts, and is told once.
    pub fn handle_answer(&mut self, token: u64, answer: Answer) {
        let Some((publish, purpose)) = self.outbox.take(token) else { return };
        let re = publish.topic.strip_prefix("im/v1/").unwrap_or(&publish.topic).to_owned();
        match answer {
            Answer::Accepted { seq, dup } => match purpose {
                Purpose::Message { with, id } => {
                    if let Some(seq) = seq {
                        self.conversation_mut(&with).accept(&id, seq);
                    }
                    self.event(Event::Received { id, re, seq, dup });
                }
                Purpose::Command { id } | Purpose::Topic { id } => self.event(Event::Received { id, re, seq, dup }),
                Purpose::Other { id } => self.event(Event::Accepted { re, id }),
                Purpose::Mark { .. } | Purpose::Pull { .. } | Purpose::Older { .. } | Purpose::Passing => {}
            },
            Answer::Refused { code, text } => self.handle_refusal(purpose, re, code, text),
        }
    }

    fn handle_refusal(&mut self, purpose: Purpose, re: String, code: String, text: String) {
        let refusal = |id: Option<&String>| wire::Refusal { code, text, id: id.cloned() };
        match purpose {
            Purpose::Message { id, .. } | Purpose::Command { id } | Purpose::Topic { id } => {
                let why = refusal(Some(&id));
                self.remember_refusal(&re, &why, Teller::Puback);
                self.event(Event::Lost { id, re, why });
            }
            Purpose::Older { with } | Purpose::Pull { with } => {
                self.conversation_mut(&with).interrupt();
                self.refused(&re, refusal(None), Teller::Puback);
            }
            Purpose::Other { id } => self.refused(&re, refusal(id.as_ref()), Teller::Puback),
            Purpose::Mark { .. } | Purpose::Passing => self.refused(&re, refusal(None), Teller::Puback),
        }
    }

    /// The next row to be put on disk.
    pub fn poll_row(&mut self) -> Option<Row> {
        self.outbox.poll_row()
    }

    /// A row is on disk: what it holds may be published.
    pub fn handle_stored(&mut self, token: u64) {
        self.outbox.stored(token);
    }

    /// A row could not be put on disk: what it holds was never published, and whoever said it is told elsewhere.
    pub fn forget(&mut self, token: u64) {
        if let Some((_, Purpose::Message { with, id })) = self.outbox.take(token) {
            self.conversation_mut(&with).forget(&id);
        }
    }

    /// Takes up what an earlier process had in its outbox.
    pub fn restore(&mut self, row: &Row, now: u64) {
        if let Some((with, message)) = row.message(&self.me, now) {
            let id = row.id.clone().unwrap_or_default();
            self.conversation_mut(&with).write(conversation::Unsent { id, message, refused: None });
        }
        self.outbox.restore(row);
    }

    /// An end is on the way to the disk; `false`: so is another one, or it was told already, and this one does not count.
    pub fn begin_end(&mut self, token: u64) -> bool {
        self.outbox.begin_end(token)
    }

    /// Whether there is, or will be, a row for it.
    pub fn has_row(&self, token: u64) -> bool {
        self.outbox.has_row(token)
    }

    /// The next publish that is given up, and why: hand both to [`Self::handle_answer`] when that is on disk.
    pub fn poll_given_up(&mut self, now: u64) -> Option<(u64, Answer)> {
        self.outbox.poll_given_up(now)
    }

    /// The next thing to publish, while there is a connection.
    pub fn poll_publish(&mut self) -> Option<Publish> {
        if self.connected { self.outbox.poll_publish(false) } else { None }
    }

    /// The next thing to publish while the connection is only about to be there: what may arrive twice without harm.
    pub fn poll_early(&mut self) -> Option<Publish> {
        self.outbox.poll_publish(true)
    }

    /// The next thing worth telling.
    pub fn poll_event(&mut self) -> Option<Told> {
        if self.events_missed > 0 {
            let events = std::mem::take(&mut self.events_missed);
            return Some(Event::Missed { events }.into());
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

    fn event(&mut self, event: impl Into<Told>) {
        self.events.push_back(event.into());
        while self.events.len() > EVENTS_MAX {
            self.events.pop_front();
            self.events_missed += 1;
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
