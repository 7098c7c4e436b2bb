//! What a client can say, from any task.

use crate::error::{AskError, SendError};
use crate::model::Messenger;
use crate::model::up::{Draft, Effort, Instruction, is_address, is_client_id, is_level};
use crate::model::wire::{Message, Summary};
use crate::options::Filter;
use crate::road::Up;
use crate::shared::{ASKERS_MAX, FILTERS_MAX, Shared, now_ms};
use serde::Deserialize;
use serde_json::{Value, json};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::timeout;

/// A way to speak through a client, for any number of tasks. It outlives the client, but not its connection.
#[derive(Clone)]
pub struct Handle {
    pub(crate) shared: Arc<Shared>,
}

/// How long an answer is waited for.
const ANSWER: Duration = Duration::from_secs(10);

/// What can be said about a command besides its arguments.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CommandOptions {
    /// Client id; made up when absent. The same id again does not repeat the command, but says how it goes.
    pub id: Option<String>,
    /// After that it is too late. Default: 10 seconds, with `persist` 7 days.
    pub deadline: Option<Duration>,
    /// Waits for a device that is offline.
    pub persist: bool,
    /// Must never be begun twice, even if the device restarts in the midst of it.
    pub once: bool,
}

/// How a device says that a command goes.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// It is at it; a text for people may say how far.
    Running(Option<String>),
    /// It is done, with a result.
    Done(Value),
    /// It could not, and why.
    Failed(String),
    /// It will not, and why.
    Rejected(String),
}

/// What presence shows besides the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// There.
    Online,
    /// There, and busy with something else.
    Away,
    /// About to leave, and back within this time.
    Asleep(Duration),
}

/// A step towards being contacts, or away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContactOp {
    /// Asks; to somebody who has asked, it is an acceptance.
    Request,
    /// Agrees.
    Accept,
    /// Does not.
    Refuse,
    /// Ends it.
    Remove,
    /// Hears nothing of them any more.
    Block,
    /// Does again.
    Unblock,
    /// Hears them without a sound.
    Mute,
    /// With one again.
    Unmute,
    /// Follows a channel.
    Follow,
    /// No longer.
    Unfollow,
}

impl ContactOp {
    fn word(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Accept => "accept",
            Self::Refuse => "refuse",
            Self::Remove => "remove",
            Self::Block => "block",
            Self::Unblock => "unblock",
            Self::Mute => "mute",
            Self::Unmute => "unmute",
            Self::Follow => "follow",
            Self::Unfollow => "unfollow",
        }
    }
}

/// Which messages of a conversation are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Range {
    /// The newest ones, newest first.
    Newest,
    /// Below this seq, newest first.
    Before(u64),
    /// Above this seq, oldest first.
    After(u64),
}

/// A page of a conversation.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
pub struct History {
    /// The conversation.
    pub with: String,
    /// Its messages, in the order asked for.
    pub messages: Vec<Message>,
    /// There is more.
    pub more: bool,
    /// Where to go on, with the same range.
    pub next: Option<u64>,
}

/// A page of the mailbox.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
pub struct SyncPage {
    /// Everything up to here is in this page or was in one before.
    pub pos: u64,
    /// The last position there is.
    pub head: u64,
    /// The first one that is kept.
    pub floor: u64,
    /// There is more behind `pos`.
    pub more: bool,
    /// What happened, oldest first.
    pub entries: Vec<SyncEntry>,
}

/// An entry of the mailbox, as it would have been pushed.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
pub struct SyncEntry {
    /// Where it would have come. [`crate::model::wire::read`] reads both.
    pub topic: String,
    /// What it says.
    pub payload: Value,
}

/// A contact.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
pub struct Contact {
    /// Its account.
    pub addr: String,
    /// `friends`, `asked`, `asking`, `follows`, `none`.
    pub state: String,
}

impl Handle {
    /// Sends a message to an account, a group or a room; its client id. With an outbox in a file it is on disk by then.
    ///
    /// How it ended is told once by [`crate::Event::Received`] or [`crate::Event::Lost`] with that id.
    pub async fn send(&self, to: &str, draft: impl Into<Draft>) -> Result<String, SendError> {
        let draft = draft.into();
        check_address(to)?;
        check_id(draft.id.as_deref())?;
        self.say(|messenger| messenger.send(to, &draft, now_ms())).await
    }

    /// Gives a device a command; its client id. `args` is what the device's description asks for, mostly an object.
    ///
    /// That the broker has it is told by [`crate::Event::Received`], each state by [`crate::Event::CommandResult`].
    pub async fn command(
        &self,
        device: &str,
        name: &str,
        args: Value,
        options: CommandOptions,
    ) -> Result<String, SendError> {
        check_address(device)?;
        check_name(name)?;
        check_id(options.id.as_deref())?;
        let CommandOptions { id, deadline, persist, once } = options;
        let deadline_ms = deadline.map(|deadline| u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX));
        let order = Instruction { name: name.to_owned(), args, id, deadline_ms, persist, once };
        self.say(|messenger| messenger.command(device, &order, now_ms())).await
    }

    /// Takes a command back, if it has no outcome yet.
    pub async fn cancel(&self, device: &str, id: &str) -> Result<(), SendError> {
        check_address(device)?;
        check_id(Some(id))?;
        self.say(|messenger| messenger.cancel(device, id)).await
    }

    /// Says that everything up to `seq` was read. To what is no address nothing is said.
    pub fn read(&self, with: &str, seq: u64) {
        if is_address(with) {
            self.with(|messenger| messenger.read(with, seq));
        }
    }

    /// Says that somebody types. Told every few seconds at most, and only to those who are there. To what is no address nothing
    /// is said.
    pub fn typing(&self, with: &str) {
        if is_address(with) {
            self.with(|messenger| messenger.type_to(with, now_ms()));
        }
    }

    /// Sends the latest value of a stream to those who are there. Without a connection it is nothing.
    pub fn stream(&self, with: &str, name: &str, payload: &[u8]) -> Result<(), SendError> {
        check_address(with)?;
        check_name(name)?;
        self.with(|messenger| messenger.stream(with, name, payload));
        Ok(())
    }

    /// Replaces an own message of the last 24 hours.
    pub async fn edit(&self, with: &str, seq: u64, text: &str) -> Result<(), SendError> {
        check_address(with)?;
        self.request(&format!("to/{with}/edit"), json!({"seq": seq, "text": text})).await.map(drop)
    }

    /// Wipes an own message of the last 2 minutes.
    pub async fn recall(&self, with: &str, seq: u64) -> Result<(), SendError> {
        check_address(with)?;
        self.request(&format!("to/{with}/recall"), json!({ "seq": seq })).await.map(drop)
    }

    /// Publishes below `im/v1/` what has no function of its own here (docs/protocol.md section 2). The id of a request,
    /// whose answer comes as [`crate::Event::Answer`].
    pub async fn request(&self, below: &str, payload: Value) -> Result<Option<String>, SendError> {
        if below.is_empty() || below.contains(['+', '#', '\0']) {
            return Err(SendError::Topic(below.to_owned()));
        }
        self.say(|messenger| messenger.ask(below, payload)).await
    }

    /// Publishes a request below `im/v1/me/` or `im/v1/admin/` and waits for its answer, up to ten seconds. Events go on in
    /// the meantime; this one is not among them.
    pub async fn ask(&self, below: &str, payload: Value) -> Result<Value, AskError> {
        let (sender, answer) = oneshot::channel();
        {
            let mut core = self.shared.lock();
            if core.is_over || core.leave.is_some() {
                return Err(SendError::Closed.into());
            }
            core.askers.retain(|_, asker| !asker.is_closed());
            if core.askers.len() >= ASKERS_MAX {
                return Err(SendError::Full(crate::model::OutboxFull(ASKERS_MAX)).into());
            }
            let id = core.messenger.ask(below, payload).map_err(SendError::from)?;
            let Some(id) = id else { return Err(SendError::Topic(below.to_owned()).into()) };
            core.askers.insert(id, sender);
        }
        self.shared.wake.notify_one();
        match timeout(ANSWER, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(SendError::Closed.into()),
            Err(_) => Err(AskError::Silent(ANSWER)),
        }
    }

    /// Messages of a conversation, at most `max`.
    pub async fn history(&self, with: &str, range: Range, max: u16) -> Result<History, AskError> {
        let mut request = json!({"with": with, "max": max});
        match range {
            Range::Newest => {}
            Range::Before(seq) => request["before"] = json!(seq),
            Range::After(seq) => request["after"] = json!(seq),
        }
        read(&self.ask("me/history", request).await?)
    }

    /// Entries of the mailbox after a position, at most `max`: for terminals that pull instead of being sent everything.
    pub async fn sync(&self, after: u64, max: u16) -> Result<SyncPage, AskError> {
        read(&self.ask("me/sync", json!({"after": after, "max": max})).await?)
    }

    /// Conversations, the latest first.
    pub async fn conversations(&self) -> Result<Vec<Summary>, AskError> {
        read(&self.ask("me/convs", json!({})).await?["convs"])
    }

    /// Contacts and how they stand.
    pub async fn contacts(&self) -> Result<Vec<Contact>, AskError> {
        read(&self.ask("me/contacts", json!({})).await?["contacts"])
    }

    /// Takes a step towards being contacts, or away.
    pub async fn contact(&self, with: &str, op: ContactOp) -> Result<Value, AskError> {
        check_address(with)?;
        self.ask(&format!("me/contact/{with}"), json!({"op": op.word()})).await
    }

    /// Changes or shows a group or a room: `request` is what docs/protocol.md section 5 says, for example
    /// `{"op":"create","name":"Home","household":true,"members":["bob"]}` or `{"op":"info"}`.
    pub async fn group(&self, group: &str, request: Value) -> Result<Value, AskError> {
        check_address(group)?;
        self.ask(&format!("me/group/{group}"), request).await
    }

    /// Device: says what it can do (docs/protocol.md section 7).
    pub async fn describe(&self, description: Value) -> Result<(), SendError> {
        self.request("me/describe", description).await.map(drop)
    }

    /// Device: a merge patch of its reported state.
    pub async fn report(&self, patch: Value) -> Result<(), SendError> {
        self.request("me/reported", patch).await.map(drop)
    }

    /// Device: says how the command goes that came as [`crate::Event::Command`] with this id.
    pub async fn command_state(&self, id: &str, outcome: Outcome) -> Result<(), SendError> {
        let payload = match outcome {
            Outcome::Running(None) => json!({"state": "running"}),
            Outcome::Running(Some(text)) => json!({"state": "running", "text": text}),
            Outcome::Done(result) => json!({"state": "done", "result": result}),
            Outcome::Failed(text) => json!({"state": "failed", "text": text}),
            Outcome::Rejected(text) => json!({"state": "rejected", "text": text}),
        };
        check_name(id)?;
        self.request(&format!("me/cmdres/{id}"), payload).await.map(drop)
    }

    /// Wishes that a device's state were so: a merge patch.
    pub async fn desire(&self, device: &str, patch: Value) -> Result<(), SendError> {
        check_address(device)?;
        self.request(&format!("to/{device}/desired"), patch).await.map(drop)
    }

    /// Says what presence shows besides the connection.
    pub async fn status(&self, status: Status) -> Result<(), SendError> {
        let payload = match status {
            Status::Online => json!({"state": "online"}),
            Status::Away => json!({"state": "away"}),
            Status::Asleep(time) => json!({"state": "asleep", "for_s": time.as_secs().max(1)}),
        };
        self.request("me/status", payload).await.map(drop)
    }

    /// Publishes to an ordinary topic until the broker has it (`QoS` 1); the id under which its end is told. Other than a
    /// message it may arrive twice when a connection breaks.
    pub async fn publish(&self, topic: &str, payload: impl AsRef<[u8]>) -> Result<String, SendError> {
        self.publish_to(topic, payload.as_ref(), Retained::No).await
    }

    /// Like [`Handle::publish`]; the broker keeps it as the topic's value. An empty payload removes that.
    pub async fn publish_retained(&self, topic: &str, payload: impl AsRef<[u8]>) -> Result<String, SendError> {
        self.publish_to(topic, payload.as_ref(), Retained::Yes).await
    }

    async fn publish_to(&self, topic: &str, payload: &[u8], retained: Retained) -> Result<String, SendError> {
        check_topic(topic)?;
        let retain = retained == Retained::Yes;
        let id = self.say(|m| m.publish_topic(topic, payload, Effort::UntilAnswered, retain)).await?;
        Ok(id.unwrap_or_default())
    }

    /// Publishes to an ordinary topic once and without an answer (`QoS` 0); on the native link over QUIC as a datagram where
    /// it fits. Without a connection it is nothing.
    pub fn telemetry(&self, topic: &str, payload: impl AsRef<[u8]>) -> Result<(), SendError> {
        check_topic(topic)?;
        self.with(|messenger| messenger.publish_topic(topic, payload.as_ref(), Effort::Once, false))?;
        Ok(())
    }

    /// Subscribes to ordinary topics, also on later connections. What comes is told as [`crate::Event::Published`], and a
    /// refusal as [`crate::Event::Refused`] of the filter.
    pub fn subscribe(&self, filter: Filter) -> Result<(), SendError> {
        if filter.filter.starts_with("im/") || !filter.is_legal() {
            return Err(SendError::Topic(filter.filter));
        }
        let mut core = self.shared.lock();
        if core.filters.len() >= FILTERS_MAX {
            return Err(SendError::Full(crate::model::OutboxFull(FILTERS_MAX)));
        }
        core.filters.insert(filter.clone());
        core.push_up(Up::Subscribe(filter));
        drop(core);
        self.shared.wake.notify_one();
        Ok(())
    }

    /// Ends a subscription to ordinary topics.
    pub fn unsubscribe(&self, filter: &str) {
        let mut core = self.shared.lock();
        core.filters.retain(|known| known.filter != filter);
        core.push_up(Up::Unsubscribe(filter.to_owned()));
        drop(core);
        self.shared.wake.notify_one();
    }

    /// Goes on from another local address, on the roads over QUIC: the connection stays. It happens by itself when the
    /// broker falls silent; elsewhere this does nothing.
    pub fn rebind(&self) {
        self.shared.lock().push_up(Up::Rebind);
        self.shared.wake.notify_one();
    }

    /// Looks at what the client knows, or does something there that has no function here. It must not take long: nothing
    /// else happens meanwhile.
    pub fn with<R>(&self, then: impl FnOnce(&mut Messenger) -> R) -> R {
        let done = then(&mut self.shared.lock().messenger);
        self.shared.wake.notify_one();
        done
    }

    /// Puts something into the outbox, and waits for its row where it has one.
    async fn say<T>(
        &self,
        then: impl FnOnce(&mut Messenger) -> Result<T, crate::model::OutboxFull>,
    ) -> Result<T, SendError> {
        let (said, written) = {
            let mut core = self.shared.lock();
            if core.is_over || core.leave.is_some() {
                return Err(SendError::Closed);
            }
            let said = then(&mut core.messenger)?;
            let token = core.messenger.latest_token();
            let written = core.messenger.has_row(token).then(|| {
                let (sender, written) = oneshot::channel();
                core.writers.insert(token, sender);
                written
            });
            (said, written)
        };
        self.shared.wake.notify_one();
        if let Some(written) = written {
            written.await.map_err(|_| SendError::Closed)??;
        }
        Ok(said)
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").finish_non_exhaustive()
    }
}

/// Whether the broker keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Retained {
    No,
    Yes,
}

fn read<'a, T: Deserialize<'a>>(answer: &'a Value) -> Result<T, AskError> {
    T::deserialize(answer).map_err(|error| AskError::Unreadable(error.to_string()))
}

fn check_address(address: &str) -> Result<(), SendError> {
    if is_address(address) { Ok(()) } else { Err(SendError::Address(address.to_owned())) }
}

fn check_id(id: Option<&str>) -> Result<(), SendError> {
    match id.filter(|id| !is_client_id(id)) {
        Some(id) => Err(SendError::Id(id.to_owned())),
        None => Ok(()),
    }
}

fn check_name(name: &str) -> Result<(), SendError> {
    if is_level(name) { Ok(()) } else { Err(SendError::Name(name.to_owned())) }
}

fn check_topic(topic: &str) -> Result<(), SendError> {
    if topic.is_empty() || topic.starts_with("im/") || topic.contains(['+', '#', '\0']) {
        return Err(SendError::Topic(topic.to_owned()));
    }
    Ok(())
}
