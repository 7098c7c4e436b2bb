//! What a person, a device or a program does: each thing becomes one publish in the outbox.

use super::Messenger;
use super::conversation::Unsent;
use super::limits::{DEADLINE_MS, PAGE, PERSIST_DEADLINE_MS, TYPING_TOLD_MS};
use super::outbox::{OutboxFull, Purpose};
use super::up::{Draft, Effort, Instruction, Publish};
use super::wire::Message;
use serde_json::{Value, json};

impl Messenger {
    /// Sends a message; its client id.
    pub fn send(&mut self, with: &str, draft: &Draft, now: u64) -> Result<String, OutboxFull> {
        self.outbox.room()?;
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
        let until = draft.ttl_s.map_or(0, |ttl| now.saturating_add(ttl.saturating_mul(1_000)));
        self.publish_until(&format!("to/{with}/msg"), &draft.payload(&id), purpose, until);
        self.typing_told.remove(with);
        Ok(id)
    }

    /// Gives a command; its client id.
    pub fn command(&mut self, device: &str, order: &Instruction, now: u64) -> Result<String, OutboxFull> {
        self.outbox.room()?;
        let id = order.id.clone().unwrap_or_else(|| self.make_id());
        self.commands.give(&id, device, &order.name, order.args.clone(), now);
        let topic = format!("to/{device}/cmd/{}", order.name);
        // Whoever gave it has long turned away when it begins after its deadline.
        let standard = if order.persist { PERSIST_DEADLINE_MS } else { DEADLINE_MS };
        let until = now.saturating_add(order.deadline_ms.unwrap_or(standard));
        self.publish_until(&topic, &order.payload(&id), Purpose::Command { id: id.clone() }, until);
        Ok(id)
    }

    /// Cancels a command.
    pub fn cancel(&mut self, device: &str, id: &str) -> Result<(), OutboxFull> {
        self.outbox.room()?;
        let purpose = Purpose::Other { id: None };
        self.publish(&format!("to/{device}/cmdcancel/{id}"), &Value::Null, Effort::UntilAnswered, purpose);
        Ok(())
    }

    /// Publishes to a topic below `im/v1/`: what has no function of its own. Requests below `me/` get an id, which is returned.
    pub fn ask(&mut self, below: &str, payload: Value) -> Result<Option<String>, OutboxFull> {
        self.outbox.room()?;
        let mut payload = payload;
        let mut id = payload["id"].as_str().map(str::to_owned);
        let is_request = below.starts_with("me/") || below.starts_with("admin/");
        // State and description of a device are objects of their own; nothing is put into them.
        let takes_id =
            is_request && !["me/reported", "me/describe"].contains(&below) && !below.starts_with("me/cmdres/");
        if let (true, Some(object), None) = (takes_id, payload.as_object_mut(), &id) {
            let made = self.make_id();
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
        self.outbox.drop_unsent(|purpose| *purpose == Purpose::Mark { with: with.to_owned() });
        if self.outbox.room().is_ok() {
            let purpose = Purpose::Mark { with: with.to_owned() };
            self.publish(&format!("to/{with}/receipt"), &json!({ "read": seq }), Effort::UntilAnswered, purpose);
        }
    }

    /// The person types a message; told at most every few seconds.
    pub fn type_to(&mut self, with: &str, now: u64) {
        let told = self.typing_told.get(with).copied().unwrap_or_default();
        if self.connected && now.saturating_sub(told) >= TYPING_TOLD_MS && self.outbox.room().is_ok() {
            self.typing_told.insert(with.to_owned(), now);
            self.publish(&format!("to/{with}/typing"), &json!({"typing": true}), Effort::Once, Purpose::Passing);
        }
    }

    /// The latest value of a stream, for those who are there now; one that is not sent yet gives way to it.
    pub fn stream(&mut self, with: &str, name: &str, payload: &[u8]) {
        let topic = format!("im/v1/to/{with}/stream/{name}");
        if self.connected && self.outbox.room().is_ok() {
            let publish = Publish::new(topic, payload.to_vec(), Effort::Once);
            self.outbox.push(publish, Purpose::Passing, 0);
        }
    }

    /// Publishes to an ordinary topic; the id under which its end is told, where it has one.
    pub fn publish_topic(
        &mut self,
        topic: &str,
        payload: &[u8],
        effort: Effort,
        retain: bool,
    ) -> Result<Option<String>, OutboxFull> {
        if effort == Effort::Once && !self.connected {
            return Ok(None);
        }
        self.outbox.room()?;
        let publish = Publish { retain, ..Publish::new(topic.to_owned(), payload.to_vec(), effort) };
        if effort == Effort::Once {
            self.outbox.push(publish, Purpose::Passing, 0);
            return Ok(None);
        }
        let id = self.make_id();
        self.outbox.push(publish, Purpose::Topic { id: id.clone() }, 0);
        Ok(Some(id))
    }

    /// The person scrolls to where nothing is known yet.
    pub fn pull_older(&mut self, with: &str) {
        if !self.connected || self.outbox.room().is_err() || with.starts_with("r-") {
            return;
        }
        let id = format!("older-{}", self.outbox.next_token());
        let conversation = self.conversation_mut(with);
        if conversation.asked_older || conversation.is_at_start() {
            return;
        }
        conversation.asked_older = true;
        let mut request = json!({"with": with, "max": PAGE});
        if let Some(before) = conversation.oldest_seq() {
            request["before"] = json!(before);
        }
        request["id"] = json!(id);
        let purpose = Purpose::Older { with: with.to_owned() };
        self.publish("me/history", &request, Effort::UntilAnswered, purpose);
    }

    /// Asks for what is missing after `after`.
    pub(super) fn pull(&mut self, with: &str, after: u64) {
        // At the edge of the outbox the gap stays open and is pulled on the next connection.
        if self.connected && self.outbox.room().is_ok() {
            let id = format!("pull-{}", self.outbox.next_token());
            let request = json!({"with": with, "after": after, "max": PAGE, "id": id});
            self.publish("me/history", &request, Effort::UntilAnswered, Purpose::Pull { with: with.to_owned() });
        }
    }

    fn publish(&mut self, below: &str, payload: &Value, effort: Effort, purpose: Purpose) {
        self.outbox.push(Publish::new(format!("im/v1/{below}"), bytes(payload), effort), purpose, 0);
    }

    fn publish_until(&mut self, below: &str, payload: &Value, purpose: Purpose, until_ms: u64) {
        let publish = Publish::new(format!("im/v1/{below}"), bytes(payload), Effort::UntilAnswered);
        self.outbox.push(publish, purpose, until_ms);
    }

    /// The token of what was said last: names it to [`Self::has_row`] and [`Self::forget`].
    pub fn latest_token(&self) -> u64 {
        self.outbox.next_token().saturating_sub(1)
    }

    fn make_id(&mut self) -> String {
        let id = format!("{:x}-{}", self.seed, self.next_id);
        self.next_id += 1;
        id
    }
}

fn bytes(payload: &Value) -> Vec<u8> {
    match payload {
        Value::Null => Vec::new(),
        Value::String(text) => text.clone().into_bytes(),
        value => value.to_string().into_bytes(),
    }
}
