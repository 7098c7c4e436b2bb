//! JSON without an allocator and without `core::fmt`: a reader that borrows, and a writer into a slice.
//!
//! ```
//! use parlor_device::json::{FromJson, Value, Writer};
//!
//! let value = Value::parse(r#"{"on":true,"level":40}"#).expect("an object");
//! assert_eq!(value.get("level").and_then(u8::from_json), Some(40));
//!
//! let mut room = [0; 32];
//! let mut json = Writer::new(&mut room);
//! json.begin_object();
//! json.field("text", "a \"quote\"");
//! json.end_object();
//! assert_eq!(json.finish(), Some(r#"{"text":"a \"quote\""}"#));
//! ```

mod number;

use crate::bytes::{Digits, Put, nibble};

/// Arrays and objects inside each other.
const DEPTH_MAX: u8 = 16;

/// A JSON value as it stands in a text: its brackets and quotation marks match, numbers and words are looked at when they
/// are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Value<'a>(&'a str);

impl<'a> Value<'a> {
    /// `null`.
    pub const NULL: Value<'static> = Value("null");

    /// The value that a whole text is.
    pub fn parse(text: &'a str) -> Option<Self> {
        let (value, rest) = Self::split(text)?;
        if rest.trim_ascii_start().is_empty() { Some(value) } else { None }
    }

    /// The value that a whole text is, which the broker has looked at; `None`: it is empty.
    #[cfg(feature = "messages")]
    pub(crate) const fn checked(text: &'a str) -> Option<Self> {
        if text.is_empty() { None } else { Some(Self(text)) }
    }

    /// The value at the front of a text, and what is behind it.
    fn split(text: &'a str) -> Option<(Self, &'a str)> {
        let text = text.trim_ascii_start();
        let bytes = text.as_bytes();
        let mut at = 0;
        let mut depth = 0u8;
        // Which bracket each level ends with, one bit a level.
        let mut square = 0u32;
        loop {
            match *bytes.get(at)? {
                b'"' => at = string_end(bytes, at)?,
                open @ (b'{' | b'[') => {
                    if depth == DEPTH_MAX {
                        return None;
                    }
                    square = square << 1 | u32::from(open == b'[');
                    depth += 1;
                    at += 1;
                }
                close @ (b'}' | b']') => {
                    if depth == 0 || (square & 1 == 1) != (close == b']') {
                        return None;
                    }
                    square >>= 1;
                    depth -= 1;
                    at += 1;
                }
                b',' | b':' | b' ' | b'\t' | b'\n' | b'\r' if depth > 0 => {
                    at += 1;
                    continue;
                }
                _ => {
                    let len = bytes.get(at..)?.iter().take_while(|b| is_word(**b)).count();
                    if len == 0 {
                        return None;
                    }
                    at += len;
                }
            }
            if depth == 0 {
                let (value, rest) = text.split_at_checked(at)?;
                return Some((Self(value), rest));
            }
        }
    }

    /// The text it is.
    pub const fn as_str(self) -> &'a str {
        self.0
    }

    /// Whether it is `null`.
    pub fn is_null(self) -> bool {
        self.0 == "null"
    }

    /// The fields of an object, in order; of another value none.
    pub fn fields(self) -> Fields<'a> {
        Fields { rest: self.0.strip_prefix('{').unwrap_or("") }
    }

    /// The field of an object with this name, which must have no escapes in it.
    pub fn get(self, name: &str) -> Option<Value<'a>> {
        self.fields().find(|(key, _)| *key == name).map(|(_, value)| value)
    }

    /// A string; its escapes are not yet resolved.
    pub fn text(self) -> Option<Text<'a>> {
        let raw = self.0.strip_prefix('"')?.strip_suffix('"')?;
        Some(Text { raw, escaped: raw.as_bytes().contains(&b'\\') })
    }
}

/// Where the string that begins at `at` ends.
fn string_end(bytes: &[u8], at: usize) -> Option<usize> {
    let mut at = at + 1;
    loop {
        match *bytes.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'+' | b'.')
}

/// See [`Value::fields`].
#[derive(Clone, Debug)]
pub struct Fields<'a> {
    rest: &'a str,
}

impl<'a> Iterator for Fields<'a> {
    type Item = (&'a str, Value<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.rest.trim_ascii_start();
        let rest = rest.strip_prefix(',').unwrap_or(rest);
        let (name, rest) = Value::split(rest)?;
        let rest = rest.trim_ascii_start().strip_prefix(':')?;
        let (value, rest) = Value::split(rest)?;
        self.rest = rest;
        Some((name.text()?.raw, value))
    }
}

/// A text that may have the escapes of JSON in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Text<'a> {
    raw: &'a str,
    escaped: bool,
}

impl<'a> Text<'a> {
    /// A text as it is.
    pub const fn plain(text: &'a str) -> Self {
        Self { raw: text, escaped: false }
    }

    /// The text, if it has no escapes.
    pub const fn as_plain(self) -> Option<&'a str> {
        if self.escaped { None } else { Some(self.raw) }
    }

    /// Writes the text to the front of a slice, which must have room for it; its length.
    pub fn copy_to(self, out: &mut [u8]) -> Option<usize> {
        if !self.escaped {
            out.get_mut(..self.raw.len())?.copy_from_slice(self.raw.as_bytes());
            return Some(self.raw.len());
        }
        let mut len = 0;
        let mut chars = self.raw.chars();
        while let Some(c) = chars.next() {
            let c = if c == '\\' { unescape(&mut chars)? } else { c };
            let mut utf8 = [0; 4];
            let bytes = c.encode_utf8(&mut utf8).as_bytes();
            out.get_mut(len..len + bytes.len())?.copy_from_slice(bytes);
            len += bytes.len();
        }
        Some(len)
    }
}

fn unescape(chars: &mut core::str::Chars<'_>) -> Option<char> {
    Some(match chars.next()? {
        'n' => '\n',
        't' => '\t',
        'r' => '\r',
        'b' => '\u{8}',
        'f' => '\u{c}',
        'u' => {
            let first = hex4(chars)?;
            if !(0xD800..0xDC00).contains(&first) {
                return Some(char::from_u32(first).unwrap_or(char::REPLACEMENT_CHARACTER));
            }
            // A character beyond the first plane, in two halves.
            if chars.next() != Some('\\') || chars.next() != Some('u') {
                return None;
            }
            let second = hex4(chars)?;
            let code = 0x1_0000 + ((first & 0x3FF) << 10) + (second & 0x3FF);
            char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER)
        }
        c @ ('"' | '\\' | '/') => c,
        _ => return None,
    })
}

fn hex4(chars: &mut core::str::Chars<'_>) -> Option<u32> {
    let mut value = 0;
    for _ in 0..4 {
        value = value << 4 | chars.next()?.to_digit(16)?;
    }
    Some(value)
}

/// What can be read from JSON.
pub trait FromJson: Sized {
    /// The value, if the JSON is one of this type.
    fn from_json(value: Value<'_>) -> Option<Self>;

    /// What a field that is not there means; `None`: it must be there.
    fn absent() -> Option<Self> {
        None
    }
}

impl FromJson for bool {
    fn from_json(value: Value<'_>) -> Option<Self> {
        match value.0 {
            "true" => Some(true),
            "false" => Some(false),
            _ => None,
        }
    }
}

impl<const N: usize> FromJson for heapless::String<N> {
    fn from_json(value: Value<'_>) -> Option<Self> {
        let text = value.text()?;
        let mut bytes = heapless::Vec::<u8, N>::new();
        bytes.resize(N, 0).ok()?;
        let len = text.copy_to(&mut bytes)?;
        bytes.truncate(len);
        Self::from_utf8(bytes).ok()
    }
}

impl<const N: usize> ToJson for heapless::String<N> {
    fn to_json(&self, json: &mut Writer<'_>) {
        json.string(self);
    }
}

impl<T: FromJson> FromJson for Option<T> {
    fn from_json(value: Value<'_>) -> Option<Self> {
        if value.is_null() { Some(None) } else { T::from_json(value).map(Some) }
    }

    fn absent() -> Option<Self> {
        Some(None)
    }
}

impl<T: ToJson> ToJson for Option<T> {
    fn to_json(&self, json: &mut Writer<'_>) {
        match self {
            Some(value) => value.to_json(json),
            None => json.null(),
        }
    }
}

/// An argument of a command.
#[cfg(feature = "commands")]
pub fn argument<T: FromJson>(args: Value<'_>, name: &'static str) -> Result<T, crate::Reject> {
    match args.get(name) {
        Some(value) => T::from_json(value),
        None => T::absent(),
    }
    .ok_or(crate::Reject::Argument(name))
}

/// What can be written as JSON.
pub trait ToJson {
    /// Writes one value.
    fn to_json(&self, json: &mut Writer<'_>);
}

impl ToJson for bool {
    fn to_json(&self, json: &mut Writer<'_>) {
        json.raw(if *self { "true" } else { "false" });
    }
}

impl ToJson for str {
    fn to_json(&self, json: &mut Writer<'_>) {
        json.string(self);
    }
}

/// An empty object, for a result that says nothing more.
impl ToJson for () {
    fn to_json(&self, json: &mut Writer<'_>) {
        json.raw("{}");
    }
}

impl ToJson for Value<'_> {
    fn to_json(&self, json: &mut Writer<'_>) {
        json.raw(self.0);
    }
}

impl<T: ToJson + ?Sized> ToJson for &T {
    fn to_json(&self, json: &mut Writer<'_>) {
        (**self).to_json(json);
    }
}

/// Writes JSON to the front of a slice. Commas come by themselves; that brackets match is up to the caller.
#[derive(Debug)]
pub struct Writer<'a> {
    out: Put<'a>,
    comma: bool,
}

impl<'a> Writer<'a> {
    /// Into this slice.
    pub const fn new(out: &'a mut [u8]) -> Self {
        Self { out: Put::new(out), comma: false }
    }

    fn put(&mut self, bytes: &[u8]) {
        self.out.bytes(bytes);
    }

    /// Bytes written so far, or for which there was no room.
    pub(crate) const fn wanted(&self) -> usize {
        self.out.at()
    }

    /// A comma, if a value was in front; the next value will want one.
    fn comma(&mut self) {
        if core::mem::replace(&mut self.comma, true) {
            self.put(b",");
        }
    }

    /// `{`
    pub fn begin_object(&mut self) {
        self.comma();
        self.put(b"{");
        self.comma = false;
    }

    /// `}`
    pub fn end_object(&mut self) {
        self.put(b"}");
        self.comma = true;
    }

    /// `[`
    pub fn begin_array(&mut self) {
        self.comma();
        self.put(b"[");
        self.comma = false;
    }

    /// `]`
    pub fn end_array(&mut self) {
        self.put(b"]");
        self.comma = true;
    }

    /// The name of a field; its value is what is written next.
    pub fn key(&mut self, name: &str) {
        self.string(name);
        self.put(b":");
        self.comma = false;
    }

    /// A field of an object.
    pub fn field(&mut self, name: &str, value: impl ToJson) {
        self.key(name);
        value.to_json(self);
    }

    /// A string.
    pub fn string(&mut self, text: &str) {
        self.comma();
        self.put(b"\"");
        let mut rest = text.as_bytes();
        while let Some(at) = rest.iter().position(|b| matches!(b, b'"' | b'\\' | 0..=0x1F)) {
            let (plain, special) = rest.split_at_checked(at).unwrap_or((rest, &[]));
            self.put(plain);
            let Some((&byte, behind)) = special.split_first() else { break };
            match byte {
                b'"' => self.put(b"\\\""),
                b'\\' => self.put(b"\\\\"),
                b'\n' => self.put(b"\\n"),
                _ => {
                    self.put(b"\\u00");
                    self.put(&[nibble(u32::from(byte >> 4)), nibble(byte.into())]);
                }
            }
            rest = behind;
        }
        self.put(rest);
        self.put(b"\"");
    }

    /// A value that is JSON already.
    pub fn raw(&mut self, json: &str) {
        self.comma();
        self.put(json.as_bytes());
    }

    /// `null`
    pub fn null(&mut self) {
        self.raw("null");
    }

    /// A number.
    pub fn unsigned(&mut self, value: u64) {
        self.comma();
        self.put(Digits::decimal(value).as_bytes());
    }

    /// A number.
    pub fn signed(&mut self, value: i64) {
        self.comma();
        if value < 0 {
            self.put(b"-");
        }
        self.put(Digits::decimal(value.unsigned_abs()).as_bytes());
    }

    /// Bytes written so far, if all of them fitted.
    pub fn len(&self) -> Option<usize> {
        self.out.done()
    }

    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.wanted() == 0
    }

    /// What was written, if all of it fitted.
    pub fn finish(self) -> Option<&'a str> {
        core::str::from_utf8(self.out.into_written()?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::String;

    fn written(value: impl ToJson) -> String {
        let mut room = [0; 100];
        let mut json = Writer::new(&mut room);
        value.to_json(&mut json);
        json.finish().unwrap().into()
    }

    #[test]
    fn values_are_split() {
        let check = |text, expect| assert_eq!(Value::parse(text).map(Value::as_str), expect, "{text}");
        check(" 12 ", Some("12"));
        check("\"a\\\"b\"", Some("\"a\\\"b\""));
        check("{\"a\":[1,{\"b\":\"}\"}]}", Some("{\"a\":[1,{\"b\":\"}\"}]}"));
        check("{\"a\":1]", None);
        check("{\"a\":1", None);
        check("\"a", None);
        check("\"a\\", None);
        check("1 2", None);
        check("", None);
        check("}", None);
        check("[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]", None);
    }

    #[test]
    fn fields_are_found() {
        let value = Value::parse(r#"{ "a" : 1 , "b":{"a":2},"c":"x,y" }"#).unwrap();
        assert_eq!(value.get("a").and_then(u8::from_json), Some(1));
        assert_eq!(value.get("b").and_then(|b| b.get("a")).and_then(u8::from_json), Some(2));
        assert_eq!(value.get("c").and_then(heapless::String::<8>::from_json).unwrap(), "x,y");
        assert_eq!(value.get("d"), None);
        assert_eq!(value.fields().count(), 3);
        assert_eq!(Value::parse("[1]").unwrap().fields().count(), 0);
    }

    #[test]
    fn integers_are_read_within_their_range() {
        let check = |text, expect| assert_eq!(i8::from_json(Value(text)), expect, "{text}");
        check("0", Some(0));
        check("-128", Some(-128));
        check("127.0", Some(127));
        check("128", None);
        check("1.5", None);
        check("1e1", None);
        check("-", None);
        check("99999999999999999999", None);
        assert_eq!(u8::from_json(Value("-1")), None);
        assert_eq!(u8::from_json(Value("-0")), Some(0));
        assert_eq!(i64::from_json(Value("-9223372036854775808")), Some(i64::MIN));
    }

    #[test]
    fn floats_are_read_and_written() {
        let check = |text: &str, expect: f32| {
            let got = f32::from_json(Value(text)).unwrap();
            assert!((got - expect).abs() <= expect.abs() * 2e-7, "{text}: {got}");
        };
        check("21.5", 21.5);
        check("-0.25", -0.25);
        check("1e3", 1000.0);
        check("12.5E-3", 0.0125);
        check("3.4028234e38", f32::MAX);
        check("0.000000000000000000000000000000000000011754944", f32::MIN_POSITIVE);
        assert_eq!(f32::from_json(Value(".5")), None);
        assert_eq!(f32::from_json(Value("1.2.3")), None);
        assert_eq!(f32::from_json(Value("true")), None);
        let check = |value: f32, expect: &str| assert_eq!(written(value), expect);
        check(21.5, "21.5");
        check(-0.0004, "0");
        check(0.9996, "1");
        check(-3.0625, "-3.063");
        check(f32::NAN, "null");
        let large = written(-1e20f32);
        let back = f32::from_json(Value(&large)).unwrap();
        assert!((back + 1e20).abs() < 1e14, "{large}");
    }

    #[test]
    fn texts_lose_their_escapes() {
        let check = |text, expect: Option<&str>| {
            let got = heapless::String::<12>::from_json(Value(text));
            assert_eq!(got.as_deref(), expect, "{text}");
        };
        check(r#""a\"b\\c\/d\n""#, Some("a\"b\\c/d\n"));
        check(r#""\u00b0C \ud83d\ude00""#, Some("°C 😀"));
        check(r#""\x""#, None);
        check(r#""\ud83d x""#, None);
        check(r#""thirteen char""#, None);
    }

    #[test]
    fn what_is_written_can_be_read() {
        assert_eq!(written("a\"\\\n\u{1}\u{1f}°"), "\"a\\\"\\\\\\n\\u0001\\u001f°\"");
        let mut room = [0; 40];
        let mut json = Writer::new(&mut room);
        json.begin_object();
        json.field("a", 1u8);
        json.key("b");
        json.begin_array();
        json.signed(-2);
        json.null();
        json.end_array();
        json.field("c", Some(true));
        json.end_object();
        assert_eq!(json.finish(), Some(r#"{"a":1,"b":[-2,null],"c":true}"#));
        let mut room = [0; 4];
        let mut json = Writer::new(&mut room);
        json.string("abc");
        assert_eq!(json.finish(), None);
    }
}
