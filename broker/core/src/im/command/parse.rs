//! What clients send: a command, and what a device says of one.

use super::super::dedup::Hash;
use super::super::json::put_str;
use super::super::name::is_client_id;
use super::super::refusal::{Code, Refusal};
use super::super::{Origin, shorten};
use super::record::State;
use crate::limits::Limits;
use serde_json::value::RawValue;
use std::collections::BTreeMap;

/// Bytes of what a device says in words.
const TEXT_BYTES: usize = 1_024;

/// A command as a client sent it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Draft {
    pub(super) id: Option<String>,
    /// JSON text.
    pub(super) args: String,
    pub(super) deadline_ms: u64,
    pub(super) once: bool,
}

impl Draft {
    /// Reads the payload of a command: arguments, or an envelope that has `args`.
    pub(super) fn parse(origin: &Origin<'_>, payload: &[u8], limits: &Limits) -> Result<Self, Refusal> {
        let text = core::str::from_utf8(payload).map_err(|_| Refusal::bad("the arguments are not UTF-8"))?;
        let mut draft = Self { id: origin.id.map(str::to_owned), args: String::new(), deadline_ms: 0, once: false };
        let mut persist = false;
        if text.is_empty() {
            "{}".clone_into(&mut draft.args);
        } else if text.starts_with('{') {
            let fields: BTreeMap<String, &RawValue> = serde_json::from_str(text)
                .map_err(|e| Refusal::bad(format!("the payload begins with {{ and is no JSON object: {e}")))?;
            if fields.contains_key("args") {
                for (key, value) in &fields {
                    draft.field(key, value.get(), &mut persist)?;
                }
            } else {
                text.trim_end().clone_into(&mut draft.args);
            }
        } else {
            let mut args = vec![];
            put_str(&mut args, text);
            draft.args = String::from_utf8(args).map_err(|_| Refusal::bad("the arguments are not UTF-8"))?;
        }
        if let Some(id) = &draft.id
            && !is_client_id(id)
        {
            return Err(Refusal::bad("\"id\" is not 1 to 36 of A-Z a-z 0-9 _ -"));
        }
        let (len, most) = (draft.args.len() as u64, limits.im_command_args_bytes_max);
        if len > most {
            return Err(Refusal::new(Code::TooLarge, format!("the arguments have {len} bytes, a device takes {most}")));
        }
        draft.set_deadline(origin.expiry_ms, persist, limits)?;
        Ok(draft)
    }

    fn field(&mut self, key: &str, raw: &str, persist: &mut bool) -> Result<(), Refusal> {
        let wrong = |what: &str| Refusal::bad(format!("\"{key}\" is not {what}"));
        let flag = || serde_json::from_str::<bool>(raw).map_err(|_| wrong("true or false"));
        match key {
            "args" => raw.clone_into(&mut self.args),
            "id" => self.id = Some(serde_json::from_str(raw).map_err(|_| wrong("a string"))?),
            "deadline_ms" => {
                self.deadline_ms = serde_json::from_str(raw).map_err(|_| wrong("a whole number of 1 or more"))?;
                if self.deadline_ms == 0 {
                    return Err(wrong("a whole number of 1 or more"));
                }
            }
            "persist" => *persist = flag()?,
            "once" => self.once = flag()?,
            _ => {
                return Err(Refusal::bad(format!(
                    "\"{}\" is no field of a command: put what is the device's into \"args\" (docs/protocol.md, section 6)",
                    shorten(key)
                )));
            }
        }
        Ok(())
    }

    /// The deadline of the envelope, or else the Message Expiry Interval, or else the default.
    fn set_deadline(&mut self, expiry_ms: u64, persist: bool, limits: &Limits) -> Result<(), Refusal> {
        let persist_ms = limits.im_command_persist_max_secs.saturating_mul(1000);
        let (usual, most) = if persist {
            (persist_ms, persist_ms)
        } else {
            (limits.im_command_deadline_ms, limits.im_command_deadline_max_ms)
        };
        if self.deadline_ms == 0 {
            self.deadline_ms = if expiry_ms == 0 { usual } else { expiry_ms };
        }
        if self.deadline_ms > most {
            let hint = if persist { "" } else { "; with \"persist\":true it may wait longer" };
            let text = format!("the deadline is {} ms from now, the most is {most}{hint}", self.deadline_ms);
            return Err(Refusal::bad(text));
        }
        Ok(())
    }

    /// What tells two commands with the same client id apart.
    pub(super) fn content_hash(&self, to: &str, name: &str) -> u64 {
        let mut hash = Hash::new(2);
        for text in [to, name, &self.args] {
            hash.write(text.as_bytes());
        }
        hash.int(self.deadline_ms);
        hash.int(self.once.into());
        hash.finish()
    }
}

/// What a device says of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Report {
    pub(super) state: State,
    /// JSON text; empty: none.
    pub(super) result: String,
    pub(super) text: String,
}

impl Report {
    /// Reads the payload of `me/cmdres/{id}`: one of the words, or an object with `state`.
    pub(super) fn parse(payload: &[u8], limits: &Limits) -> Result<Self, Refusal> {
        let body = core::str::from_utf8(payload).map_err(|_| Refusal::bad("the payload is not UTF-8"))?;
        let mut report = Self { state: State::Queued, result: String::new(), text: String::new() };
        if body.starts_with('{') {
            let fields: BTreeMap<String, &RawValue> =
                serde_json::from_str(body).map_err(|e| Refusal::bad(format!("the payload is no JSON object: {e}")))?;
            for (key, value) in &fields {
                report.field(key, value.get())?;
            }
        } else {
            report.state = said(body.trim())?;
        }
        if report.state == State::Queued {
            return Err(Refusal::bad("\"state\" is missing: running, done, failed, rejected or unknown_outcome"));
        }
        let (len, most) = (report.result.len() as u64, limits.im_command_result_bytes_max);
        if len > most {
            return Err(Refusal::new(Code::TooLarge, format!("the result has {len} bytes, the most is {most}")));
        }
        if report.text.len() > TEXT_BYTES {
            return Err(Refusal::new(Code::TooLarge, format!("\"text\" is longer than {TEXT_BYTES} bytes")));
        }
        Ok(report)
    }

    fn field(&mut self, key: &str, raw: &str) -> Result<(), Refusal> {
        let string =
            || serde_json::from_str::<String>(raw).map_err(|_| Refusal::bad(format!("\"{key}\" is not a string")));
        match key {
            "state" => self.state = said(&string()?)?,
            "result" => raw.clone_into(&mut self.result),
            "text" => self.text = string()?,
            // Of the request, and repeated in its answer.
            "id" => {}
            _ => {
                return Err(Refusal::bad(format!(
                    "\"{}\" is no field of an answer to a command: put what is your own into \"result\"",
                    shorten(key)
                )));
            }
        }
        Ok(())
    }
}

/// A state that a device may say.
fn said(text: &str) -> Result<State, Refusal> {
    let is_said = |state: &State| {
        matches!(state, State::Running | State::Done | State::Failed | State::Rejected | State::UnknownOutcome)
    };
    State::parse(text).filter(is_said).ok_or_else(|| {
        let text = shorten(text);
        Refusal::bad(format!("\"{text}\" is not running, done, failed, rejected or unknown_outcome"))
    })
}

/// The topic at which the requester wants the outcome (MQTT 5) must be one of its own answers, or else it could have
/// the broker write where it may not write itself. It has one level more than the prefix, as what is subscribed to has.
pub(super) fn check_response_topic(origin: &Origin<'_>) -> Result<(), Refusal> {
    let Some(topic) = origin.response_topic else { return Ok(()) };
    let is_level = |level: &str| !level.is_empty() && !level.contains(['/', '+', '#', '\0']);
    if topic.strip_prefix("im/v1/me/res/").is_some_and(is_level) {
        return Ok(());
    }
    let text = format!("the Response Topic {} is not im/v1/me/res/ and one level more", shorten(topic));
    Err(Refusal::new(Code::ResponseTopic, text))
}
