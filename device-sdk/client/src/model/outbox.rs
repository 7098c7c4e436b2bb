//! What is still to be published, in order, and what of it survives the process.

use super::event::Answer;
use super::limits::{ATTEMPTS_MAX, OUTBOX_MAX};
use super::up::{Effort, Publish};
use super::wire::Message;
use serde_json::Value;
use std::collections::VecDeque;

/// Too much waits for the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} things wait for the broker already; this one was not taken, try again when it answers")]
pub struct OutboxFull(pub usize);

/// What is kept on disk of a publish until it is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Names it, over restarts too; rows are published in this order.
    pub token: u64,
    /// The whole topic.
    pub topic: String,
    /// What it says.
    pub payload: Vec<u8>,
    /// The broker keeps it as the topic's value.
    pub retain: bool,
    /// Its client id.
    pub id: Option<String>,
    /// After that, milliseconds since 1970, it is not published any more; 0: never too late.
    pub until_ms: u64,
}

impl Row {
    fn purpose(&self) -> Purpose {
        let id = self.id.clone();
        let levels: Vec<&str> = self.topic.split('/').collect();
        match (&levels[..], id) {
            (["im", "v1", "to", with, "msg"], Some(id)) => Purpose::Message { with: (*with).to_owned(), id },
            (["im", "v1", "to", _, "cmd", _], Some(id)) => Purpose::Command { id },
            (["im", ..], id) => Purpose::Other { id },
            (_, id) => Purpose::Topic { id: id.unwrap_or_default() },
        }
    }

    /// The conversation and the message in it, where it is one.
    pub(super) fn message(&self, me: &str, now: u64) -> Option<(String, Message)> {
        let Purpose::Message { with, id } = self.purpose() else { return None };
        let body: Value = serde_json::from_slice(&self.payload).unwrap_or(Value::Null);
        let text = |key: &str| body[key].as_str().map(str::to_owned);
        let message = Message {
            from: me.to_owned(),
            ts: now,
            id: Some(id),
            text: text("text"),
            kind: text("kind"),
            body: body.get("body").cloned(),
            re: body["re"].as_u64(),
            ..Message::default()
        };
        Some((with, message))
    }
}

/// What a publish is for: who wants to know how it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Purpose {
    Message {
        with: String,
        id: String,
    },
    Command {
        id: String,
    },
    /// On an ordinary topic.
    Topic {
        id: String,
    },
    Mark {
        with: String,
    },
    Pull {
        with: String,
    },
    Older {
        with: String,
    },
    Passing,
    Other {
        id: Option<String>,
    },
}

impl Purpose {
    fn id(&self) -> Option<&String> {
        match self {
            Self::Message { id, .. } | Self::Command { id } | Self::Topic { id } => Some(id),
            Self::Other { id } => id.as_ref(),
            Self::Mark { .. } | Self::Pull { .. } | Self::Older { .. } | Self::Passing => None,
        }
    }
}

/// How far a publish is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// It has no row yet, and needs one.
    New,
    /// Its row is on the way to the disk.
    Storing,
    /// It may be published.
    Ready,
    /// It has been handed out on this connection.
    Sent,
    /// It is given up; whoever asked writes that down.
    GivenUp,
    /// It has its end, which is on the way to the disk: nothing is published and no other end counts any more.
    Ending,
}

/// Something in the outbox.
#[derive(Debug)]
struct Outgoing {
    publish: Publish,
    purpose: Purpose,
    stage: Stage,
    /// It has been handed out on any connection.
    was_sent: bool,
    /// How many connections have ended with it.
    attempts: u32,
    until_ms: u64,
    has_row: bool,
    /// Its topic is none, and would end every connection.
    is_illegal: bool,
    /// Nothing is tried any more.
    is_hopeless: bool,
}

/// All of it, oldest first.
#[derive(Debug)]
pub(super) struct Outbox {
    all: VecDeque<Outgoing>,
    next_token: u64,
    pub max: usize,
    pub keeps_rows: bool,
    /// What ended the last connection.
    why: String,
}

impl Default for Outbox {
    fn default() -> Self {
        Self { all: VecDeque::new(), next_token: 1, max: OUTBOX_MAX, keeps_rows: false, why: String::new() }
    }
}

impl Outbox {
    pub fn len(&self) -> usize {
        self.all.len()
    }

    pub fn room(&self) -> Result<(), OutboxFull> {
        if self.all.len() < self.max { Ok(()) } else { Err(OutboxFull(self.max)) }
    }

    /// The token the next one gets.
    pub fn next_token(&self) -> u64 {
        self.next_token
    }

    /// Puts something at the end. The caller has asked for [`Self::room`].
    pub fn push(&mut self, mut publish: Publish, purpose: Purpose, until_ms: u64) -> u64 {
        let token = self.next_token;
        self.next_token += 1;
        publish.token = token;
        publish.is_idempotent = matches!(purpose, Purpose::Message { .. });
        let is_illegal = parlor_protocol::topic::check_name(&publish.topic).is_err();
        let has_row = self.keeps_rows && is_kept(&publish) && !is_illegal;
        let stage = if has_row { Stage::New } else { Stage::Ready };
        self.all.push_back(Outgoing {
            publish,
            purpose,
            stage,
            was_sent: false,
            attempts: 0,
            until_ms,
            has_row,
            is_illegal,
            is_hopeless: false,
        });
        token
    }

    /// What was not handed out yet and `is` so is not worth it any more.
    pub fn drop_unsent(&mut self, is: impl Fn(&Purpose) -> bool) {
        self.all.retain(|outgoing| outgoing.stage != Stage::Ready || outgoing.has_row || !is(&outgoing.purpose));
    }

    pub fn take(&mut self, token: u64) -> Option<(Publish, Purpose)> {
        let at = self.all.iter().position(|outgoing| outgoing.publish.token == token)?;
        self.all.remove(at).map(|outgoing| (outgoing.publish, outgoing.purpose))
    }

    /// Whether something for `re` with this id waits for its answer.
    pub fn waits(&self, re: &str, id: &str) -> bool {
        self.all.iter().any(|outgoing| {
            let below = outgoing.publish.topic.strip_prefix("im/v1/");
            below == Some(re) && outgoing.purpose.id().is_some_and(|known| known == id)
        })
    }

    /// The connection is gone.
    pub fn interrupt(&mut self, why: &str) {
        why.clone_into(&mut self.why);
        // Answers to these came on the connection or will not come; what only passes has passed.
        let passed =
            |o: &Outgoing| matches!(o.purpose, Purpose::Pull { .. } | Purpose::Older { .. } | Purpose::Passing);
        self.all.retain(|outgoing| !passed(outgoing));
        for (number, outgoing) in self.all.iter_mut().filter(|outgoing| outgoing.stage == Stage::Sent).enumerate() {
            outgoing.stage = Stage::Ready;
            // The broker answers in order: if one of them ends every connection, it is the first.
            outgoing.attempts += u32::from(number == 0);
        }
    }

    pub fn poll_row(&mut self) -> Option<Row> {
        let outgoing = self.all.iter_mut().find(|outgoing| outgoing.stage == Stage::New)?;
        outgoing.stage = Stage::Storing;
        let Publish { token, topic, payload, retain, .. } = outgoing.publish.clone();
        Some(Row { token, topic, payload, retain, id: outgoing.purpose.id().cloned(), until_ms: outgoing.until_ms })
    }

    pub fn stored(&mut self, token: u64) {
        let storing = |o: &&mut Outgoing| o.publish.token == token && o.stage == Stage::Storing;
        if let Some(outgoing) = self.all.iter_mut().find(storing) {
            outgoing.stage = Stage::Ready;
        }
    }

    pub fn restore(&mut self, row: &Row) {
        self.next_token = self.next_token.max(row.token + 1);
        let purpose = row.purpose();
        let publish = Publish {
            token: row.token,
            topic: row.topic.clone(),
            payload: row.payload.clone(),
            effort: Effort::UntilAnswered,
            retain: row.retain,
            is_idempotent: matches!(purpose, Purpose::Message { .. }),
        };
        let (stage, until_ms) = (Stage::Ready, row.until_ms);
        self.all.push_back(Outgoing {
            publish,
            purpose,
            stage,
            was_sent: false,
            attempts: 0,
            until_ms,
            has_row: true,
            is_illegal: false,
            is_hopeless: false,
        });
    }

    pub fn begin_end(&mut self, token: u64) -> bool {
        let open = |o: &&mut Outgoing| o.publish.token == token && o.stage != Stage::Ending;
        match self.all.iter_mut().find(open) {
            Some(outgoing) => {
                outgoing.stage = Stage::Ending;
                true
            }
            None => false,
        }
    }

    pub fn has_row(&self, token: u64) -> bool {
        self.all.iter().any(|outgoing| outgoing.publish.token == token && outgoing.has_row)
    }

    /// There will be no connection any more: what has no row is hopeless.
    pub fn end(&mut self, why: &str) {
        why.clone_into(&mut self.why);
        for outgoing in self.all.iter_mut().filter(|outgoing| !outgoing.has_row) {
            outgoing.stage = Stage::Ready;
            outgoing.is_hopeless = true;
        }
    }

    pub fn poll_given_up(&mut self, now: u64) -> Option<(u64, Answer)> {
        let is_late = |o: &Outgoing| o.until_ms != 0 && now > o.until_ms;
        let hopeless = |o: &Outgoing| o.is_illegal || o.is_hopeless || o.attempts >= ATTEMPTS_MAX || is_late(o);
        let outgoing = self.all.iter_mut().find(|o| o.stage == Stage::Ready && hopeless(o))?;
        outgoing.stage = Stage::GivenUp;
        let why = &self.why;
        let (code, text) = if outgoing.is_illegal {
            ("bad_topic", "this is no topic: it is empty, or has a wildcard or a NUL in it".to_owned())
        } else if outgoing.is_hopeless {
            ("no_answer", format!("the broker had not answered it at the end: {why}"))
        } else if outgoing.attempts >= ATTEMPTS_MAX {
            ("no_answer", format!("{ATTEMPTS_MAX} connections ended before the broker answered it: {why}"))
        } else if outgoing.was_sent {
            ("no_answer", format!("its time was over before the broker answered, which may have it: {why}"))
        } else {
            ("expired", "its time was over before it could be sent".to_owned())
        };
        Some((outgoing.publish.token, Answer::Refused { code: code.to_owned(), text }))
    }

    /// The next one in order; nothing overtakes what waits for its row. `early`: only what may arrive twice.
    pub fn poll_publish(&mut self, early: bool) -> Option<Publish> {
        let waits = |o: &Outgoing| matches!(o.stage, Stage::New | Stage::Storing | Stage::Ready);
        let at = self.all.iter().position(waits)?;
        let outgoing = self.all.get_mut(at)?;
        if outgoing.stage != Stage::Ready || outgoing.is_illegal || outgoing.attempts >= ATTEMPTS_MAX {
            return None;
        }
        if early && !outgoing.publish.is_idempotent {
            return None;
        }
        if outgoing.publish.effort == Effort::Once {
            return self.all.remove(at).map(|outgoing| outgoing.publish);
        }
        outgoing.stage = Stage::Sent;
        outgoing.was_sent = true;
        Some(outgoing.publish.clone())
    }
}

/// What somebody wants to know the end of, also after a restart. The answer to a request has nobody left who asked.
fn is_kept(publish: &Publish) -> bool {
    if publish.effort == Effort::Once {
        return false;
    }
    match publish.topic.strip_prefix("im/v1/") {
        Some(below) => (below.starts_with("to/") && !below.ends_with("/receipt")) || below.starts_with("me/cmdres/"),
        None => true,
    }
}
