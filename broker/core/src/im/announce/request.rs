//! What a request to a channel says.

use super::entry::{Entry, State};
use crate::hub::Now;
use crate::im::body::Draft;
use crate::im::name::is_client_id;
use crate::im::{Refusal, shorten};
use serde_json::value::RawValue;
use std::collections::BTreeMap;

/// Platforms of one entry, and bytes of each.
const PLATFORMS_MAX: usize = 16;
const PLATFORM_BYTES_MAX: usize = 32;

/// What is done to an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Op {
    Draft,
    Pre,
    Publish,
    Modify,
    Stop,
    Recall,
}

impl Op {
    pub(super) fn parse(word: &str) -> Option<Self> {
        Some(match word {
            "draft" => Self::Draft,
            "pre" => Self::Pre,
            "publish" => Self::Publish,
            "modify" => Self::Modify,
            "stop" => Self::Stop,
            "recall" => Self::Recall,
            _ => return None,
        })
    }

    /// The state of an entry after it, if it may be done in `state`. `has_fields`: something is to change besides.
    pub(super) fn leads_to(self, state: State, has_fields: bool) -> Option<State> {
        Some(match (self, state) {
            (Self::Draft, State::Draft) => State::Draft,
            (Self::Pre, State::Draft) => State::Pre,
            (Self::Publish, State::Draft | State::Pre) => State::Live,
            (Self::Modify, State::Draft | State::Pre | State::Live) => state,
            (Self::Stop, State::Draft | State::Pre | State::Live | State::Stopped) => State::Stopped,
            (Self::Recall, _) => State::Recalled,
            // Said again.
            (Self::Pre, State::Pre) | (Self::Publish, State::Live) if !has_fields => state,
            _ => return None,
        })
    }
}

/// What a request says of an entry.
#[derive(Debug, Default)]
pub(super) struct Fields {
    pub(super) entry: Option<u64>,
    pub(super) id: Option<String>,
    pub(super) fragment: Option<Vec<u8>>,
    pub(super) from_ms: Option<u64>,
    pub(super) until_ms: Option<u64>,
    pub(super) level: Option<(u32, u32)>,
    pub(super) platforms: Option<Vec<Box<str>>>,
    pub(super) notify: Option<bool>,
}

impl Fields {
    pub(super) fn parse(now: Now, payload: &[u8], most_bytes: u64) -> Result<Self, Refusal> {
        let mut fields = Self::default();
        if payload.is_empty() {
            return Ok(fields);
        }
        if payload.first() != Some(&b'{') {
            let draft = Draft::parse(payload, false)?;
            draft.check_size(most_bytes)?;
            fields.fragment = Some(draft.fragment);
            return Ok(fields);
        }
        let object: BTreeMap<String, &RawValue> = serde_json::from_slice(payload)
            .map_err(|e| Refusal::bad(format!("the payload is not a JSON object: {e}")))?;
        let mut message: BTreeMap<String, &RawValue> = BTreeMap::new();
        for (key, value) in object {
            if !fields.field(&key, value.get())? {
                message.insert(key, value);
            }
        }
        if message.is_empty() {
            return Ok(fields);
        }
        if !message.contains_key("text") && !message.contains_key("body") {
            let names: Vec<String> = message.into_keys().collect();
            return Err(Refusal::bad(format!(
                "{} cannot be without \"text\" or \"body\" (docs/protocol.md, section 9)",
                shorten(&names.join(", "))
            )));
        }
        let message = serde_json::to_vec(&message).map_err(|e| Refusal::bad(e.to_string()))?;
        let draft = Draft::parse(&message, false)?;
        draft.check_size(most_bytes)?;
        if draft.ttl_ms != 0 && fields.until_ms.is_none() {
            fields.until_ms = Some(now.wall_ms.saturating_add(draft.ttl_ms));
        }
        fields.fragment = Some(draft.fragment);
        Ok(fields)
    }

    /// Takes a field that is not one of the message itself.
    fn field(&mut self, key: &str, raw: &str) -> Result<bool, Refusal> {
        let wrong = |what: &str| Refusal::bad(format!("\"{key}\" is not {what}"));
        let time = || {
            let time: Option<u64> =
                serde_json::from_str(raw).map_err(|_| wrong("a time in milliseconds since 1970, or null"))?;
            Ok(Some(time.unwrap_or(0)))
        };
        match key {
            "entry" => {
                let no = serde_json::from_str(raw).map_err(|_| wrong("the number of an entry"))?;
                self.entry = Some(no);
            }
            "id" => {
                let id: String = serde_json::from_str(raw).map_err(|_| wrong("a string"))?;
                if !is_client_id(&id) {
                    return Err(wrong("1 to 36 of A-Z a-z 0-9 _ -"));
                }
                self.id = Some(id);
            }
            "from" => self.from_ms = time()?,
            "until" => self.until_ms = time()?,
            "notify" => self.notify = Some(serde_json::from_str(raw).map_err(|_| wrong("true or false"))?),
            "level" => self.level = Some(parse_level(raw)?),
            "platforms" => self.platforms = Some(parse_platforms(raw)?),
            _ => return Ok(false),
        }
        Ok(true)
    }

    pub(super) fn has_any(&self) -> bool {
        self.fragment.is_some()
            || self.from_ms.is_some()
            || self.until_ms.is_some()
            || self.level.is_some()
            || self.platforms.is_some()
            || self.notify.is_some()
    }

    /// Puts what is said into an entry.
    pub(super) fn apply(self, entry: &mut Entry, change: u64, wall_ms: u64) {
        if let Some(fragment) = self.fragment {
            entry.set_text(fragment, change);
        }
        let mut gates = entry.gates().clone();
        if let Some((min, max)) = self.level {
            (gates.min, gates.max) = (min, max);
        }
        if let Some(platforms) = self.platforms {
            gates.platforms = platforms;
        }
        entry.set_gates(gates, change);
        if self.from_ms.is_some() || self.until_ms.is_some() {
            let (from_ms, until_ms) = (self.from_ms.unwrap_or(entry.from_ms), self.until_ms.unwrap_or(entry.until_ms));
            entry.set_validity(from_ms, until_ms, change, wall_ms);
        }
        entry.notify = self.notify.unwrap_or(entry.notify);
    }
}

fn parse_level(raw: &str) -> Result<(u32, u32), Refusal> {
    let wrong = || Refusal::bad("\"level\" is not {\"min\":yyMMdd,\"max\":yyMMdd}");
    let level: BTreeMap<String, Option<u32>> = serde_json::from_str(raw).map_err(|_| wrong())?;
    if level.keys().any(|key| !matches!(key.as_str(), "min" | "max")) {
        return Err(wrong());
    }
    let bound = |key| level.get(key).copied().flatten().unwrap_or(0);
    let (min, max) = (bound("min"), bound("max"));
    if max != 0 && max < min {
        return Err(Refusal::bad("\"level\": max is below min, so nobody would see it"));
    }
    Ok((min, max))
}

fn parse_platforms(raw: &str) -> Result<Vec<Box<str>>, Refusal> {
    let platforms: Option<Vec<Box<str>>> =
        serde_json::from_str(raw).map_err(|_| Refusal::bad("\"platforms\" is not a list of names"))?;
    let platforms = platforms.unwrap_or_default();
    if platforms.len() > PLATFORMS_MAX || platforms.iter().any(|p| p.is_empty() || p.len() > PLATFORM_BYTES_MAX) {
        return Err(Refusal::bad("\"platforms\": at most 16 names of 1 to 32 bytes"));
    }
    Ok(platforms)
}
