//! One message: what a client sends, what is kept, and what the receivers get.

use super::json::{put_field, put_num, put_str, put_text};
use super::model::{AccountNo, COUNTED, GONE};
use super::name::is_client_id;
use super::refusal::{Code, Refusal};
use super::row::{RowWriter, read_u32, reader};
use crate::store::bytes::DecodeError;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;

/// A message as a client sent it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Draft {
    pub(crate) id: Option<String>,
    /// `,"text":"…"` and the other fields that are passed on as they are.
    pub(crate) fragment: Vec<u8>,
    pub(crate) ttl_ms: u64,
    pub(crate) level: u32,
    pub(crate) fallback: String,
    pub(crate) quiet: bool,
    /// For an edit: which message.
    pub(crate) seq: Option<u64>,
}

impl Draft {
    /// Reads the payload of a message, or of an edit (which has `seq` too).
    pub(crate) fn parse(payload: &[u8], is_edit: bool) -> Result<Self, Refusal> {
        let mut draft = Self { fragment: Vec::with_capacity(payload.len() + 16), ..Self::default() };
        let Ok(text) = core::str::from_utf8(payload) else {
            draft.fragment.extend_from_slice(b",\"data\":");
            put_str(&mut draft.fragment, &<base64ct::Base64 as base64ct::Encoding>::encode_string(payload));
            return Ok(draft);
        };
        if !text.starts_with('{') {
            put_text(&mut draft.fragment, "text", text);
            return Ok(draft);
        }
        let Fields(fields) = serde_json::from_str(text)
            .map_err(|e| Refusal::bad(format!("the payload begins with {{ and is no JSON object: {e}")))?;
        if !is_edit && !fields.iter().any(|(key, _)| *key == "text" || *key == "body") {
            draft.fragment.extend_from_slice(b",\"body\":");
            draft.fragment.extend_from_slice(text.trim_end().as_bytes());
            return Ok(draft);
        }
        let has_data = fields.iter().any(|(key, _)| *key == "data");
        for (key, value) in &fields {
            match &**key {
                // Bytes are the whole content; `null` makes the object an envelope and says nothing.
                "body" if has_data && value.get() == "null" => {}
                "text" | "body" if has_data => {
                    return Err(Refusal::bad("\"data\" stands in place of \"text\", and \"body\" is null beside it"));
                }
                _ => draft.field(key, value, is_edit)?,
            }
        }
        if draft.fragment.is_empty() {
            return Err(Refusal::bad("a message needs \"text\" or \"body\""));
        }
        if draft.level == 0 && !draft.fallback.is_empty() {
            return Err(Refusal::bad("\"fallback\" goes with \"level\""));
        }
        Ok(draft)
    }

    fn field(&mut self, key: &str, value: &RawValue, is_edit: bool) -> Result<(), Refusal> {
        let raw = value.get();
        let wrong = |what: &str| Refusal::bad(format!("\"{key}\" is not {what}"));
        let string = || serde_json::from_str::<String>(raw).map_err(|_| wrong("a string"));
        let number = || serde_json::from_str::<u64>(raw).map_err(|_| wrong("a whole number of 0 or more"));
        match key {
            // A string as it came is one as it goes.
            "text" if raw.starts_with('"') && !raw.contains("\\u") => {
                self.fragment.extend_from_slice(b",\"text\":");
                self.fragment.extend_from_slice(raw.as_bytes());
            }
            "text" => put_text(&mut self.fragment, "text", &string()?),
            "body" => {
                self.fragment.extend_from_slice(b",\"body\":");
                self.fragment.extend_from_slice(raw.as_bytes());
            }
            "data" => {
                let data = string()?;
                if <base64ct::Base64 as base64ct::Encoding>::decode_vec(&data).is_err() {
                    return Err(wrong("bytes as base64, with padding"));
                }
                put_text(&mut self.fragment, "data", &data);
            }
            "kind" => {
                let kind = string()?;
                if !is_client_id(&kind) || kind == "member" {
                    return Err(wrong("1 to 36 of A-Z a-z 0-9 _ - (and \"member\" is the broker's own)"));
                }
                put_text(&mut self.fragment, "kind", &kind);
            }
            "re" => put_field(&mut self.fragment, "re", number()?),
            "notify" => {
                self.quiet = !serde_json::from_str::<bool>(raw).map_err(|_| wrong("true or false"))?;
                if self.quiet {
                    self.fragment.extend_from_slice(b",\"notify\":false");
                }
            }
            "id" => {
                let id = string()?;
                if !is_client_id(&id) {
                    return Err(wrong("1 to 36 of A-Z a-z 0-9 _ -"));
                }
                self.id = Some(id);
            }
            "ttl_s" => {
                self.ttl_ms = number()?.saturating_mul(1000);
                if self.ttl_ms == 0 {
                    return Err(wrong("1 second or more"));
                }
            }
            "level" => {
                self.level = u32::try_from(number()?).map_err(|_| wrong("a level: yyMMdd"))?;
            }
            "fallback" => self.fallback = string()?,
            "seq" if is_edit => self.seq = Some(number()?),
            _ => {
                return Err(Refusal::bad(format!(
                    "\"{key}\" is no field of a message: put what is your own into \"body\" (docs/protocol.md, section 4)"
                )));
            }
        }
        Ok(())
    }

    /// Refuses what is longer than `max` bytes.
    pub(crate) fn check_size(&self, max: u64) -> Result<(), Refusal> {
        let len = (self.fragment.len() + self.fallback.len()) as u64;
        if len > max {
            let text = format!("the message has {len} bytes, the receiver takes {max}");
            return Err(Refusal::new(Code::TooLarge, text));
        }
        Ok(())
    }

    /// What tells two messages with the same client id apart.
    pub(crate) fn content_hash(&self, to: &str) -> u64 {
        let mut hash = super::dedup::Hash::new(1);
        hash.write(to.as_bytes());
        hash.write(&self.fragment);
        hash.write(self.fallback.as_bytes());
        hash.int(self.ttl_ms);
        hash.int(self.level.into());
        hash.finish()
    }
}

/// The fields of a JSON object, in their order and unread.
struct Fields<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de> Deserialize<'de> for Fields<'de> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<'de>, A::Error> {
                let mut fields: Vec<(Cow<'de, str>, &'de RawValue)> = Vec::with_capacity(4);
                while let Some(Key(key)) = map.next_key()? {
                    if fields.iter().any(|(known, _)| *known == key) {
                        return Err(serde::de::Error::custom(format!("\"{key}\" is there twice")));
                    }
                    fields.push((key, map.next_value()?));
                }
                Ok(Fields(fields))
            }
        }
        from.deserialize_map(Reader)
    }
}

/// A key, borrowed where it has no escapes.
struct Key<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Key<'de>;

            fn expecting(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                f.write_str("a key")
            }

            fn visit_borrowed_str<E>(self, key: &'de str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Borrowed(key)))
            }

            fn visit_str<E>(self, key: &str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Owned(key.to_owned())))
            }
        }
        from.deserialize_str(Reader)
    }
}

/// A message as it is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Body<'a> {
    /// [`COUNTED`] and [`GONE`].
    pub(crate) flags: u8,
    pub(crate) from: AccountNo,
    pub(crate) ts: u64,
    /// Milliseconds since 1970; 0: never.
    pub(crate) expires_ms: u64,
    /// When it was edited or recalled; 0: never.
    pub(crate) changed_ms: u64,
    pub(crate) level: u32,
    /// Client id; empty: none.
    pub(crate) id: &'a str,
    pub(crate) fragment: &'a [u8],
    pub(crate) fallback: &'a str,
}

impl<'a> Body<'a> {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut w = RowWriter(Vec::with_capacity(self.fragment.len() + self.id.len() + self.fallback.len() + 32));
        w.byte(1).byte(self.flags).int(self.from.0.into()).int(self.ts);
        w.int(self.expires_ms).int(self.changed_ms).int(self.level.into());
        w.str(self.id).bytes(self.fragment).str(self.fallback);
        w.0
    }

    pub(crate) fn decode(value: &'a [u8]) -> Result<Self, DecodeError> {
        let mut r = reader(value)?;
        Ok(Self {
            flags: r.byte()?,
            from: AccountNo(read_u32(&mut r)?),
            ts: r.int()?,
            expires_ms: r.int()?,
            changed_ms: r.int()?,
            level: read_u32(&mut r)?,
            id: r.str()?,
            fragment: r.bytes()?,
            fallback: r.str()?,
        })
    }

    pub(crate) fn counts(&self) -> bool {
        self.flags & (COUNTED | GONE) == COUNTED
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.flags & GONE != 0
    }

    pub(crate) fn is_expired(&self, wall_ms: u64) -> bool {
        self.expires_ms != 0 && self.expires_ms <= wall_ms
    }

    /// What is left of a message that was recalled or has expired: its place.
    pub(crate) fn wiped(&self, changed_ms: u64) -> Self {
        Self { flags: self.flags | GONE, changed_ms, id: "", fragment: b"", fallback: "", level: 0, ..*self }
    }

    /// Appends the fields a receiver of this level sees, without the braces: `,"from":…`.
    pub(crate) fn write(&self, out: &mut Vec<u8>, from: &str, level: u32, wall_ms: u64) {
        put_text(out, "from", from);
        put_field(out, "ts", self.ts);
        if !self.id.is_empty() {
            put_text(out, "id", self.id);
        }
        if self.is_gone() {
            out.extend_from_slice(b",\"gone\":true");
            return;
        }
        if level < self.level {
            put_text(out, "text", self.fallback);
            out.extend_from_slice(b",\"fallback\":true");
            put_field(out, "level", self.level.into());
        } else {
            out.extend_from_slice(self.fragment);
        }
        if self.changed_ms != 0 {
            put_field(out, "edited", self.changed_ms);
        }
        if self.expires_ms != 0 {
            put_field(out, "left_ms", self.expires_ms.saturating_sub(wall_ms));
        }
    }

    /// The first 80 characters of its text, for a list.
    pub(crate) fn preview(&self) -> String {
        let object = [b"{", self.fragment.get(1..).unwrap_or_default(), b"}"].concat();
        let value: serde_json::Value = serde_json::from_slice(&object).unwrap_or_default();
        let text = match (value.get("text"), value.get("body")) {
            (Some(serde_json::Value::String(text)), _) => text.clone(),
            (_, Some(body)) => body.to_string(),
            _ => String::new(),
        };
        text.chars().take(80).collect()
    }
}

/// Appends `"seq":…,"pos":…,"prev":…`.
pub(crate) fn put_place(out: &mut Vec<u8>, seq: u64, pos: u64, prev: u64) {
    out.extend_from_slice(b"\"seq\":");
    put_num(out, seq);
    put_field(out, "pos", pos);
    put_field(out, "prev", prev);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(payload: &[u8], expect: Result<&str, Code>) {
        let got = Draft::parse(payload, false);
        match expect {
            Ok(fragment) => assert_eq!(String::from_utf8(got.unwrap().fragment).unwrap(), fragment),
            Err(code) => assert_eq!(got.unwrap_err().code, code),
        }
    }

    #[test]
    fn a_payload_is_text_an_envelope_a_body_or_bytes() {
        check(b"hi \"you\"", Ok(r#","text":"hi \"you\"""#));
        check(br#"{"text":"x","id":"a1"}"#, Ok(r#","text":"x""#));
        check(br#"{"temp":21}"#, Ok(r#","body":{"temp":21}"#));
        check(br#"{"body":[1, 2],"kind":"poll","re":4}"#, Ok(r#","body":[1, 2],"kind":"poll","re":4"#));
        check(&[0xFF, 0xFE], Ok(r#","data":"//4=""#));
        check(b"", Ok(r#","text":"""#));
        check(br#"{"body":null,"data":"//4=","kind":"photo","id":"a1"}"#, Ok(r#","data":"//4=","kind":"photo""#));
        check(br#"{"data":"//4="}"#, Ok(r#","body":{"data":"//4="}"#));
        check(br#"{"body":1,"data":"//4="}"#, Err(Code::BadRequest));
        check(br#"{"text":"x","data":"//4="}"#, Err(Code::BadRequest));
        check(br#"{"body":null,"data":"no base64"}"#, Err(Code::BadRequest));
        check(br#"{"body":null}"#, Ok(r#","body":null"#));
        check(b"{nonsense", Err(Code::BadRequest));
        check(br#"{"text":"x","colour":"red"}"#, Err(Code::BadRequest));
        check(br#"{"text":"x","id":"a b"}"#, Err(Code::BadRequest));
        check(br#"{"text":"x","ttl_s":0}"#, Err(Code::BadRequest));
        check(br#"{"text":1}"#, Err(Code::BadRequest));
        check(br#"{"text":"a","text":"b"}"#, Err(Code::BadRequest));
        check(br#"{"text":"\u0041\n"}"#, Ok(r#","text":"A\n""#));
        check(br#"{"text":"\ud800"}"#, Err(Code::BadRequest));
    }

    #[test]
    fn a_message_reads_back_and_an_old_client_gets_the_fallback() {
        let draft = Draft::parse(br#"{"text":"new","level":261001,"fallback":"old"}"#, false).unwrap();
        let body = Body {
            flags: COUNTED,
            from: AccountNo(3),
            ts: 1_000,
            expires_ms: 9_000,
            changed_ms: 0,
            level: draft.level,
            id: "a1",
            fragment: &draft.fragment,
            fallback: &draft.fallback,
        };
        let bytes = body.encode();
        let back = Body::decode(&bytes).unwrap();
        assert_eq!(back, body);
        let shown = |level| {
            let mut out = vec![];
            back.write(&mut out, "alice", level, 4_000);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(shown(261_001), r#","from":"alice","ts":1000,"id":"a1","text":"new","left_ms":5000"#);
        assert!(shown(0).contains(r#""text":"old","fallback":true"#));
        assert_eq!(back.preview(), "new");
        assert!(!back.is_expired(8_999) && back.is_expired(9_000));
    }
}
