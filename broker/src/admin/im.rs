//! Requests about messaging: what a business back end sends, commands and announces, and what an operator looks up.
//!
//! Each is done as the account that acts would do it over MQTT (docs/protocol.md).

use super::api::{Api, Caller, Query, value};
use super::body::{AdminBody, parse, parse_message, parse_or_default, shown};
use super::command::{Command, Rights};
use super::error::ApiError;
use crate::auth::Secret;
use hyper::body::Incoming;
use hyper::{Response, StatusCode};
use parlor_core::{Look, Reply};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Who acts when nothing is said.
const SERVICE: &str = "service";
/// Most addresses of one message.
const ADDRESSES_MAX: usize = 30;
/// Longest wait for the outcome of a command, milliseconds.
const WAIT_MS_MAX: u64 = 60_000;
/// How long after a command its state is looked at for the first time; each further pause is twice as long, up to the
/// longest.
const FIRST_LOOK: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
/// Longest text that stands for one level of a topic, bytes.
const LEVEL_BYTES_MAX: usize = 128;
/// States of a command after which nothing more happens to it (docs/protocol.md section 6).
const FINAL: &[&str] = &["done", "failed", "rejected", "expired", "timeout", "canceled", "unknown_outcome"];

/// The account that acts, and whose rights count.
#[derive(Clone)]
struct Actor {
    account: String,
    rights: Rights,
}

impl Actor {
    fn of_operator(account: &str) -> Self {
        Self { account: account.to_owned(), rights: Rights::Operator }
    }

    fn own(account: &str) -> Self {
        Self { account: account.to_owned(), rights: Rights::Own }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewCommand {
    from: Option<String>,
    device: String,
    name: String,
    args: Option<Value>,
    id: Option<String>,
    deadline_ms: Option<u64>,
    persist: Option<bool>,
    once: Option<bool>,
    #[serde(default)]
    wait_ms: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Pairing {
    code: String,
    name: String,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct Recount {
    account: Option<String>,
}

impl Api {
    /// Whom a connect token makes the caller: a service, or nobody.
    pub(super) async fn service(&self, token: &str) -> Result<Caller, ApiError> {
        let token = Secret::new(token.to_owned());
        let account = self.ask(|reply| Command::TokenCheck { token, reply }).await?;
        let account = account.ok_or(ApiError::Unauthorized)?;
        let profile = self.look(Look::Account { name: account.clone() }).await?;
        if profile["kind"] != SERVICE {
            return Err(ApiError::refused("forbidden", "only accounts of kind service may act over HTTP"));
        }
        Ok(Caller::Service(account))
    }

    /// Has messaging do something, and gives what it answers.
    async fn act(&self, actor: &Actor, path: &str, payload: &Value) -> Result<Value, ApiError> {
        if !self.has_messaging() {
            return Err(ApiError::NoMessaging);
        }
        let Actor { account, rights } = actor.clone();
        let path = path.to_owned();
        let payload = Secret::new(payload.to_string().into_bytes());
        outcome(self.ask(|reply| Command::Act { account, rights, path, payload, reply }).await??)
    }

    pub(super) async fn look(&self, what: Look) -> Result<Value, ApiError> {
        if !self.has_messaging() {
            return Err(ApiError::NoMessaging);
        }
        outcome(self.ask(|reply| Command::Look { what, reply }).await??)
    }

    /// What messaging knows of an account; `None` where there is no messaging, or it can have no such account.
    pub(super) async fn described(&self, name: &str) -> Result<Option<Value>, ApiError> {
        match self.look(Look::Account { name: name.to_owned() }).await {
            Err(ApiError::NoMessaging | ApiError::Refused { code: "not_found", .. }) => Ok(None),
            found => found.map(Some),
        }
    }

    pub(super) async fn messages(&self, caller: &Caller, body: Incoming) -> Result<Response<AdminBody>, ApiError> {
        // What is not for this side is the message, as docs/protocol.md section 4 has it.
        let mut message: Map<String, Value> = parse_message(body).await?;
        let from = match message.remove("from") {
            None => None,
            Some(Value::String(from)) => Some(from),
            Some(_) => return Err(ApiError::refused("bad_request", "\"from\" is the name of an account")),
        };
        let from = actor(caller, from)?;
        let to = message.remove("to");
        // Without either, the whole would be taken for a body itself.
        if !message.contains_key("text") && !message.contains_key("body") {
            return Err(ApiError::refused("bad_request", "a message has \"text\" or \"body\""));
        }
        match to {
            Some(Value::String(to)) => Ok(shown(StatusCode::OK, &self.send(&from, &to, &message.into()).await?)),
            Some(Value::Array(many)) if (1..=ADDRESSES_MAX).contains(&many.len()) => {
                self.send_to_many(&from, &many, &message.into()).await
            }
            _ => Err(ApiError::refused(
                "bad_request",
                "\"to\" is one address, or a list of 1 to 30; a channel reaches more",
            )),
        }
    }

    /// One message to each of several addresses, each with an answer of its own.
    async fn send_to_many(
        &self,
        from: &Actor,
        many: &[Value],
        message: &Value,
    ) -> Result<Response<AdminBody>, ApiError> {
        let mut items = Vec::with_capacity(many.len());
        for to in many {
            let to = to.as_str().unwrap_or_default();
            let mut message = message.clone();
            if let Some(id) = message["id"].as_str().and_then(|id| id_for(id, to)) {
                message["id"] = id.into();
            }
            items.push(match self.send(from, to, &message).await {
                Ok(sent) => sent,
                Err(error @ ApiError::Refused { .. }) => {
                    let mut problem = error.problem();
                    problem["to"] = to.into();
                    problem
                }
                // What is no fault of this address would be none of the next one either.
                Err(error) => return Err(error),
            });
        }
        Ok(shown(StatusCode::OK, &json!({ "items": items })))
    }

    async fn send(&self, from: &Actor, to: &str, envelope: &Value) -> Result<Value, ApiError> {
        let mut sent = self.act(from, &format!("to/{}/msg", level("to", to)?), envelope).await?;
        sent["status"] = 200.into();
        sent["to"] = to.into();
        if let Some(id) = envelope.get("id") {
            sent["id"] = id.clone();
        }
        Ok(sent)
    }

    pub(super) async fn commands_add(&self, caller: &Caller, body: Incoming) -> Result<Response<AdminBody>, ApiError> {
        let command: NewCommand = parse_message(body).await?;
        let from = actor(caller, command.from)?;
        if command.wait_ms > WAIT_MS_MAX {
            return Err(ApiError::refused("bad_request", "\"wait_ms\" is 60000 at most"));
        }
        let path = format!("to/{}/cmd/{}", level("device", &command.device)?, level("name", &command.name)?);
        let mut envelope = json!({ "args": command.args.unwrap_or_else(|| json!({})) });
        for (key, given) in [
            ("id", command.id.map(Value::from)),
            ("deadline_ms", command.deadline_ms.map(Value::from)),
            ("persist", command.persist.map(Value::from)),
            ("once", command.once.map(Value::from)),
        ] {
            if let Some(given) = given {
                envelope[key] = given;
            }
        }
        let mut state = self.act(&from, &path, &envelope).await?;
        if let Some(id) = envelope.get("id") {
            // Of a command that is long forgotten, nothing but this is known.
            state["id"] = id.clone();
        }
        let until = Instant::now() + Duration::from_millis(command.wait_ms);
        let mut pause = FIRST_LOOK;
        let id = state["id"].as_str().unwrap_or_default().to_owned();
        while !is_over(&state) {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(shown(StatusCode::ACCEPTED, &state));
            }
            tokio::time::sleep(pause.min(left)).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
            let (account, device, id) = (from.account.clone(), command.device.clone(), id.clone());
            state = self.look(Look::Command { account, device, id }).await?;
        }
        Ok(shown(StatusCode::OK, &state))
    }

    pub(super) async fn command(
        &self,
        caller: &Caller,
        (device, id): (String, String),
        mut query: Query,
    ) -> Result<Response<AdminBody>, ApiError> {
        let Actor { account, .. } = actor(caller, value(&mut query, "from"))?;
        Ok(shown(StatusCode::OK, &self.look(Look::Command { account, device, id }).await?))
    }

    pub(super) async fn channels(&self) -> Result<Response<AdminBody>, ApiError> {
        Ok(shown(StatusCode::OK, &self.look(Look::Channels).await?))
    }

    pub(super) async fn channel(
        &self,
        caller: &Caller,
        channel: String,
        mut query: Query,
    ) -> Result<Response<AdminBody>, ApiError> {
        let actor = actor(caller, value(&mut query, "as"))?;
        let payload = numbers(&mut query, &["entry", "before", "max"])?;
        let path = format!("admin/ch/{}/list", level("channel", &channel)?);
        Ok(shown(StatusCode::OK, &self.act(&actor, &path, &payload).await?))
    }

    pub(super) async fn channel_act(
        &self,
        caller: &Caller,
        (channel, op): (String, String),
        mut query: Query,
        body: Incoming,
    ) -> Result<Response<AdminBody>, ApiError> {
        let actor = actor(caller, value(&mut query, "as"))?;
        let payload: Map<String, Value> = parse_message(body).await?;
        let path = format!("admin/ch/{}/{}", level("channel", &channel)?, level("op", &op)?);
        tracing::info!(channel, op, account = actor.account, "a channel is changed over HTTP");
        Ok(shown(StatusCode::OK, &self.act(&actor, &path, &payload.into()).await?))
    }

    pub(super) async fn conversations(
        &self,
        caller: &Caller,
        mut query: Query,
    ) -> Result<Response<AdminBody>, ApiError> {
        let account = owner(caller, value(&mut query, "account"))?;
        let payload = numbers(&mut query, &["max"])?;
        Ok(shown(StatusCode::OK, &self.act(&account, "me/convs", &payload).await?))
    }

    pub(super) async fn history(&self, caller: &Caller, mut query: Query) -> Result<Response<AdminBody>, ApiError> {
        let account = owner(caller, value(&mut query, "account"))?;
        let with = value(&mut query, "with")
            .ok_or_else(|| ApiError::Query("write with=ADDRESS", "the query has no \"with\"".to_owned()))?;
        let mut payload = numbers(&mut query, &["before", "after", "since", "until", "max"])?;
        payload["with"] = with.into();
        Ok(shown(StatusCode::OK, &self.act(&account, "me/history", &payload).await?))
    }

    pub(super) async fn recount(&self, body: Incoming) -> Result<Response<AdminBody>, ApiError> {
        let Recount { account } = parse_or_default(body).await?;
        let (names, is_named) = match account {
            Some(account) => (vec![account], true),
            None => {
                let stored = self.ask(|reply| Command::Accounts { reply }).await?;
                (stored.into_iter().map(|(name, _)| name).collect(), false)
            }
        };
        let mut items = Vec::new();
        for name in names {
            match self.act(&Actor::of_operator(&name), "me/recount", &json!({})).await {
                // It was removed meanwhile, or has a name from before there was messaging.
                Err(ApiError::Refused { code: "not_found", .. }) if !is_named => {}
                counted => {
                    let mut counted = counted?;
                    counted["account"] = name.into();
                    items.push(counted);
                }
            }
        }
        Ok(shown(StatusCode::OK, &json!({ "items": items })))
    }

    pub(super) async fn pair(&self, peer: IpAddr, body: Incoming) -> Result<Response<AdminBody>, ApiError> {
        let Pairing { code, name } = parse(body).await?;
        if !self.has_messaging() {
            return Err(ApiError::NoMessaging);
        }
        let code = Secret::new(code);
        let _turn = self.pairings.lock().await;
        let reply = self.ask(|reply| Command::Pair { peer, code, name, reply }).await??;
        Ok(shown(StatusCode::CREATED, &outcome(reply)?))
    }
}

/// What messaging answered, as a JSON object.
pub(super) fn outcome(reply: Reply) -> Result<Value, ApiError> {
    match reply {
        Reply::Refused { code, text } => Err(ApiError::Refused { code, text }),
        // What needs no answer has none.
        Reply::Done(text) => {
            let object = serde_json::from_str::<Map<String, Value>>(&text);
            Ok(object.unwrap_or_default().into())
        }
    }
}

/// Who acts: the operator for whoever is named, a service for itself.
fn actor(caller: &Caller, named: Option<String>) -> Result<Actor, ApiError> {
    match (caller, named) {
        (Caller::Operator, named) => Ok(Actor::of_operator(named.as_deref().unwrap_or(SERVICE))),
        (Caller::Service(own), named) if named.as_ref().is_none_or(|named| named == own) => Ok(Actor::own(own)),
        (Caller::Service(_), _) => Err(ApiError::refused("forbidden", "this token acts for its own account only")),
        (Caller::Anybody, _) => Err(ApiError::Unauthorized),
    }
}

/// Whose conversations are looked at.
fn owner(caller: &Caller, named: Option<String>) -> Result<Actor, ApiError> {
    if *caller == Caller::Operator && named.is_none() {
        return Err(ApiError::Query("write account=NAME", "the query has no \"account\"".to_owned()));
    }
    actor(caller, named)
}

/// A text that becomes one level of a topic.
fn level<'a>(what: &str, text: &'a str) -> Result<&'a str, ApiError> {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    if (1..=LEVEL_BYTES_MAX).contains(&text.len()) && text.bytes().all(is_plain) {
        return Ok(text);
    }
    Err(ApiError::refused("bad_request", format!("\"{what}\" is 1 to 128 of A-Z, a-z, 0-9, '.', '_' and '-'")))
}

/// Those of these keys that the query has, as numbers.
fn numbers(query: &mut Query, keys: &[&'static str]) -> Result<Value, ApiError> {
    let mut found = Map::new();
    for key in keys {
        let Some(text) = value(query, key) else { continue };
        let number: u64 = text
            .parse()
            .map_err(|_| ApiError::Query("write a whole number", format!("\"{key}\" cannot be \"{text}\"")))?;
        found.insert((*key).to_owned(), number.into());
    }
    Ok(found.into())
}

/// One message to several addresses is one message to each, so each needs an id of its own, and the same one when the
/// request is sent again. `None`: this is no id, and messaging will say so.
fn id_for(id: &str, to: &str) -> Option<String> {
    use base64ct::Encoding;
    let is_id = (1..=36).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b));
    let digest = ring::digest::digest(&ring::digest::SHA256, format!("{id}\0{to}").as_bytes());
    is_id.then(|| base64ct::Base64UrlUnpadded::encode_string(&digest.as_ref()[..24]))
}

/// Whether nothing more happens to a command.
fn is_over(state: &Value) -> bool {
    state["state"].as_str().is_none_or(|state| FINAL.contains(&state))
}
