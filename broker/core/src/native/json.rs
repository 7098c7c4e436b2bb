//! The JSON of docs/protocol.md, read for frames: strings are borrowed where they have no escapes, values stay as they
//! are. A field that a frame has no place for is an error, so that nothing is lost on the way.

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use std::borrow::Cow;

/// Text, borrowed where it has no escapes.
#[derive(Debug, Default, Deserialize)]
#[serde(transparent)]
pub(super) struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl core::ops::Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

/// A value as it is; also `null` is one.
fn raw<'de: 'a, 'a, D: Deserializer<'de>>(from: D) -> Result<Option<&'a RawValue>, D::Error> {
    <&RawValue>::deserialize(from).map(Some)
}

/// `msg`, `edit`, `me/sent`, and the lines of a history.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Message<'a> {
    pub(super) seq: u64,
    #[serde(default)]
    pub(super) pos: u64,
    #[serde(default)]
    pub(super) prev: u64,
    #[serde(borrow, default)]
    pub(super) to: Text<'a>,
    #[serde(borrow, default)]
    pub(super) from: Text<'a>,
    #[serde(borrow, default)]
    pub(super) by: Text<'a>,
    #[serde(default)]
    pub(super) ts: u64,
    #[serde(borrow, default)]
    pub(super) id: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) text: Option<Text<'a>>,
    #[serde(borrow, default, deserialize_with = "raw")]
    pub(super) body: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) data: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) kind: Text<'a>,
    pub(super) re: Option<u64>,
    pub(super) notify: Option<bool>,
    #[serde(default)]
    pub(super) level: u32,
    #[serde(default)]
    pub(super) fallback: bool,
    #[serde(default)]
    pub(super) edited: u64,
    pub(super) left_ms: Option<u64>,
    #[serde(default)]
    pub(super) gone: bool,
    #[serde(default)]
    pub(super) backfill: bool,
    #[serde(default)]
    pub(super) dup: bool,
    pub(super) entry: Option<u64>,
    #[serde(default)]
    pub(super) change: u64,
    #[serde(default)]
    pub(super) version: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Receipt<'a> {
    pub(super) pos: u64,
    #[serde(default)]
    pub(super) seq: u64,
    #[serde(default)]
    pub(super) recv: u64,
    pub(super) read: u64,
    #[serde(borrow, default)]
    pub(super) by: Text<'a>,
    pub(super) of: Option<u32>,
    #[serde(rename = "self", default)]
    pub(super) own: bool,
    pub(super) unread: Option<u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Recall<'a> {
    #[serde(default)]
    pub(super) pos: u64,
    pub(super) seq: u64,
    #[serde(default)]
    pub(super) prev: u64,
    #[serde(borrow)]
    pub(super) by: Text<'a>,
    #[serde(default)]
    pub(super) ts: u64,
    pub(super) entry: Option<u64>,
    #[serde(default)]
    pub(super) change: u64,
    #[serde(default)]
    pub(super) version: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Contact<'a> {
    #[serde(default)]
    pub(super) pos: u64,
    #[serde(borrow)]
    pub(super) op: Text<'a>,
    #[serde(borrow, default)]
    pub(super) text: Text<'a>,
    pub(super) ts: u64,
    #[serde(rename = "self", default)]
    pub(super) own: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Typing<'a> {
    #[serde(borrow)]
    pub(super) from: Text<'a>,
    pub(super) typing: bool,
}

/// `bounce` and `me/err`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Refusal<'a> {
    #[serde(default)]
    pub(super) pos: u64,
    #[serde(default)]
    pub(super) seq: u64,
    #[serde(borrow, default)]
    pub(super) re: Text<'a>,
    #[serde(borrow, default)]
    pub(super) id: Text<'a>,
    #[serde(borrow)]
    pub(super) code: Text<'a>,
    #[serde(borrow)]
    pub(super) text: Text<'a>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Gap<'a> {
    pub(super) from: u64,
    pub(super) to: u64,
    #[serde(borrow)]
    pub(super) why: Text<'a>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Head<'a> {
    pub(super) pos: u64,
    pub(super) floor: u64,
    pub(super) unread: u64,
    #[serde(borrow)]
    pub(super) by: &'a RawValue,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Command<'a> {
    #[serde(borrow)]
    pub(super) args: &'a RawValue,
    #[serde(borrow)]
    pub(super) from: Text<'a>,
    pub(super) left_ms: u64,
    #[serde(default)]
    pub(super) once: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CommandResult<'a> {
    /// `to/{device}/cmd/{name}`, or absent.
    #[serde(borrow, default)]
    pub(super) re: Text<'a>,
    #[serde(borrow)]
    pub(super) id: Text<'a>,
    #[serde(default)]
    pub(super) pos: u64,
    #[serde(borrow)]
    pub(super) device: Text<'a>,
    #[serde(borrow)]
    pub(super) name: Text<'a>,
    #[serde(borrow)]
    pub(super) state: Text<'a>,
    #[serde(borrow, default, deserialize_with = "raw")]
    pub(super) result: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) text: Text<'a>,
    pub(super) ts: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Presence<'a> {
    #[serde(borrow)]
    pub(super) state: Text<'a>,
    pub(super) since: u64,
    pub(super) seen: u64,
    pub(super) terminals: u32,
    #[serde(default)]
    pub(super) until: u64,
    pub(super) epoch: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct State<'a> {
    pub(super) version: u64,
    #[serde(borrow)]
    pub(super) reported: &'a RawValue,
    #[serde(borrow)]
    pub(super) desired: &'a RawValue,
    #[serde(borrow)]
    pub(super) by: Option<Text<'a>>,
    pub(super) ts: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Delta<'a> {
    pub(super) version: u64,
    #[serde(borrow)]
    pub(super) desired: &'a RawValue,
}

/// What every answer says.
#[derive(Deserialize)]
pub(super) struct Answer<'a> {
    #[serde(borrow, default)]
    pub(super) re: Text<'a>,
    #[serde(borrow)]
    pub(super) id: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SyncPage<'a> {
    #[serde(borrow, rename = "re", default)]
    pub(super) _re: Text<'a>,
    #[serde(borrow, default)]
    pub(super) id: Text<'a>,
    pub(super) pos: u64,
    pub(super) head: u64,
    pub(super) floor: u64,
    pub(super) more: bool,
    #[serde(borrow)]
    pub(super) entries: Vec<Entry<'a>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Entry<'a> {
    #[serde(borrow)]
    pub(super) topic: Text<'a>,
    #[serde(borrow)]
    pub(super) payload: &'a RawValue,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HistoryPage<'a> {
    #[serde(borrow, rename = "re", default)]
    pub(super) _re: Text<'a>,
    #[serde(borrow, default)]
    pub(super) id: Text<'a>,
    #[serde(borrow)]
    pub(super) with: Text<'a>,
    pub(super) more: bool,
    #[serde(default)]
    pub(super) next: u64,
    #[serde(borrow)]
    pub(super) messages: Vec<&'a RawValue>,
}

/// Whether this is one JSON value.
pub(super) fn is_value(text: &str) -> bool {
    serde_json::from_str::<&RawValue>(text).is_ok()
}
