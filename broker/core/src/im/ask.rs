//! Requests and their answers: who asks, what becomes of it, and where the answer goes.

use super::model::AccountNo;
use super::online::Class;
use super::{Im, Out, PAIRING_ACCOUNT, Refusal, Reply, json, object};
use serde_json::Value;
use std::rc::Rc;

/// Who asks, and how the answer goes back.
#[derive(Debug, Clone)]
pub(crate) struct Origin<'a> {
    pub(crate) account: AccountNo,
    /// The hub's key and generation of the session, unless it is `act` that asks.
    pub(crate) session: Option<(u32, u32)>,
    /// MQTT client identifier, or a name for what acts.
    pub(crate) client_id: &'a str,
    /// Of `act`.
    pub(crate) token: u64,
    pub(crate) response_topic: Option<&'a str>,
    pub(crate) correlation: Option<&'a [u8]>,
    /// User property `im-id`.
    pub(crate) id: Option<&'a str>,
    /// Message Expiry Interval, milliseconds; 0: none.
    pub(crate) expiry_ms: u64,
    /// Acts for the operator, who needs nobody's consent.
    pub(crate) operator: bool,
}

/// Where a later answer goes.
#[derive(Debug, Clone)]
pub(crate) struct Asker {
    pub(crate) account: AccountNo,
    /// Session and generation; `None`: `act` with this token.
    pub(crate) session: Option<(u32, u32)>,
    pub(crate) token: u64,
    /// Topic of the answer.
    pub(crate) topic: Rc<str>,
    pub(crate) correlation: Option<Rc<[u8]>>,
    /// What was asked, below `im/v1/`; empty: the answer does not say.
    pub(crate) re: String,
    /// `id` of the request.
    pub(crate) id: Option<Value>,
}

impl Asker {
    /// With the `id` that a request's payload has.
    pub(crate) fn with_id(mut self, payload: &[u8]) -> Self {
        self.id = object(payload).ok().and_then(|mut o| o.remove("id"));
        self
    }

    pub(super) fn class(&self) -> Class {
        match &*self.topic {
            "im/v1/me/sent" => Class::Sent,
            topic if topic.starts_with("im/v1/me/res/") => Class::Res,
            _ => Class::Reply,
        }
    }
}

/// How a request ended.
#[derive(Debug, Default)]
pub(crate) struct Done {
    /// Something of it must be on disk first.
    pub(crate) durable: bool,
    /// Seq of the message; 0: none.
    pub(crate) seq: u64,
    /// It was done before.
    pub(crate) dup: bool,
    /// JSON object for whoever asked.
    pub(crate) reply: Option<Value>,
}

impl Done {
    /// Nothing to say, nothing on disk.
    pub(crate) fn quietly() -> Self {
        Self::default()
    }

    /// Something was stored and this is the answer.
    pub(crate) fn stored(reply: Value) -> Self {
        Self { durable: true, reply: Some(reply), ..Self::default() }
    }

    /// This is the answer, and nothing was stored.
    pub(crate) fn told(reply: Value) -> Self {
        Self { reply: Some(reply), ..Self::default() }
    }
}

/// What became of a request.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// It is dealt with.
    Done(Done),
    /// It is accepted, and the answer comes when the store has answered.
    Later,
    /// It waits for the store; `Out::Concluded` with this token follows.
    Parked(u64),
}

impl Im {
    /// Where the answer to a request goes.
    pub(crate) fn asker(origin: &Origin<'_>, re: &str, id: Option<Value>) -> Asker {
        let request = re.strip_prefix("me/").unwrap_or(re).split('/').next().unwrap_or_default();
        let topic = match origin.response_topic {
            Some(topic) => topic.into(),
            None => format!("im/v1/me/{request}/res").into(),
        };
        Asker {
            account: origin.account,
            session: origin.session,
            token: origin.token,
            topic,
            correlation: origin.correlation.map(Into::into),
            re: re.to_owned(),
            id,
        }
    }

    /// Sends the answer to a request that was accepted before.
    pub(crate) fn answer(&mut self, asker: &Asker, reply: Value) {
        match asker.session {
            None => self.out.push_back(Out::Replied { token: asker.token, reply: Reply::Done(reply.to_string()) }),
            Some(session) if asker.account == PAIRING_ACCOUNT => self.tell_paired(session, asker, reply),
            Some(session) => self.tell_session(session, asker, reply),
        }
    }

    /// As [`Im::answer`], with an object that was written by hand and lacks its last brace.
    pub(crate) fn answer_bytes(&mut self, asker: &Asker, mut reply: Vec<u8>) {
        if asker.session.is_some() {
            json::put_text(&mut reply, "re", &asker.re);
            if let Some(id) = &asker.id {
                reply.extend_from_slice(b",\"id\":");
                reply.extend_from_slice(id.to_string().as_bytes());
            }
        }
        reply.push(b'}');
        match asker.session {
            None => {
                let text = String::from_utf8(reply).unwrap_or_default();
                self.out.push_back(Out::Replied { token: asker.token, reply: Reply::Done(text) });
            }
            Some(session) => {
                let class = asker.class();
                self.note_session(session, class, &asker.topic, &reply, asker.correlation.clone());
            }
        }
    }

    /// Sends JSON to a session under the topic of its request, with `re` and `id`.
    pub(crate) fn tell_session(&mut self, session: (u32, u32), asker: &Asker, mut reply: Value) {
        if let Value::Object(object) = &mut reply {
            if !asker.re.is_empty() {
                object.insert("re".to_owned(), asker.re.clone().into());
            }
            if let Some(id) = &asker.id {
                object.insert("id".to_owned(), id.clone());
            }
        }
        let payload = reply.to_string().into_bytes();
        self.note_session(session, asker.class(), &asker.topic, &payload, asker.correlation.clone());
    }

    /// Tells a session that what it asked was refused.
    pub(crate) fn tell_refusal(&mut self, origin: &Origin<'_>, path: &str, id: Option<Value>, refusal: &Refusal) {
        self.counters.refused.add(refusal.code.text());
        let Some(session) = origin.session else { return };
        let mut object = serde_json::json!({ "re": path, "code": refusal.code.text(), "text": refusal.text });
        if let Some(id) = id {
            object["id"] = id;
        }
        self.note_session(session, Class::Err, "im/v1/me/err", &object.to_string().into_bytes(), None);
        if let Some(rest) = path.strip_prefix("to/")
            && let Some((to, _)) = rest.split_once('/')
        {
            let topic = format!("im/v1/me/in/{to}/bounce");
            self.note_session(session, Class::Bounce, &topic, &object.to_string().into_bytes(), None);
        }
    }
}
