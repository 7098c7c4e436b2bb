//! What the derives build on: how a type is described, and texts that are put together when the firmware is compiled.

/// A type that an argument or a part of the state can have.
pub trait Field {
    /// Members of the JSON object that describes it (docs/protocol.md, section 7), like `"type":"bool"`.
    const TYPE: &'static str;
}

macro_rules! fields {
    ($($type:ty: $text:literal;)*) => {
        $(impl Field for $type {
            const TYPE: &'static str = $text;
        })*
    };
}

fields! {
    bool: "\"type\":\"bool\"";
    u8: "\"type\":\"int\"";
    u16: "\"type\":\"int\"";
    u32: "\"type\":\"int\"";
    u64: "\"type\":\"int\"";
    i8: "\"type\":\"int\"";
    i16: "\"type\":\"int\"";
    i32: "\"type\":\"int\"";
    i64: "\"type\":\"int\"";
    f32: "\"type\":\"float\"";
}

impl<const N: usize> Field for heapless::String<N> {
    const TYPE: &'static str = "\"type\":\"text\"";
}

impl<T: Field> Field for Option<T> {
    const TYPE: &'static str = T::TYPE;
}

/// Bytes of some texts together.
#[doc(hidden)]
pub const fn joined_len(parts: &[&str]) -> usize {
    let mut len = 0;
    let mut at = 0;
    while at < parts.len() {
        len += parts[at].len();
        at += 1;
    }
    len
}

/// Some texts as one.
#[doc(hidden)]
pub const fn joined<const N: usize>(parts: &[&str]) -> [u8; N] {
    let mut all = [0; N];
    let (mut len, mut at) = (0, 0);
    while at < parts.len() {
        let bytes = parts[at].as_bytes();
        let mut i = 0;
        while i < bytes.len() {
            all[len] = bytes[i];
            len += 1;
            i += 1;
        }
        at += 1;
    }
    all
}

/// What [`joined`] made.
#[doc(hidden)]
pub const fn joined_text(bytes: &'static [u8]) -> &'static str {
    match core::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(_) => panic!("texts together are a text"),
    }
}

/// Whether a value lies in a range of which an end may be open.
#[doc(hidden)]
pub fn within<T: PartialOrd>(value: &T, min: Option<T>, max: Option<T>) -> bool {
    min.is_none_or(|min| *value >= min) && max.is_none_or(|max| *value <= max)
}
