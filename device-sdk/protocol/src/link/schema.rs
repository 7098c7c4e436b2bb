//! What both sides know of the frames: the level, the hash of their shapes, and the macros that declare them so that the
//! hash follows from the declarations.

use super::{Body, Down, Message, Up};

/// yyMMdd of the newest variant in this build. A peer is sent no variant that is newer than the level it has said.
pub const LEVEL: u32 = 261_126;

/// Hash of every variant and field of both enums, in order, with the types. Two builds of the same [`LEVEL`] have the
/// same hash; where they have not, one of them changed a frame without raising the level, and the link is refused.
pub const SCHEMA: u64 = {
    let mut hash = fnv(0xCBF2_9CE4_8422_2325, "parlor/1");
    hash = fnv(hash, Body::SHAPE);
    hash = fnv(hash, Message::SHAPE);
    hash = fnv(hash, super::Announcement::SHAPE);
    hash = fnv(hash, Up::SHAPE);
    fnv(hash, Down::SHAPE)
};

/// FNV-1a, 64 bits, of `text` without its white space, which is the compiler's and not ours.
const fn fnv(mut hash: u64, text: &str) -> u64 {
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        if !bytes[at].is_ascii_whitespace() {
            hash ^= bytes[at] as u64;
            hash = hash.wrapping_mul(0x0000_0100_0000_01B3);
        }
        at += 1;
    }
    hash
}

/// How many variants there are.
pub(super) const fn count(names: &[&str]) -> u32 {
    let mut number = 0;
    let mut at = 0;
    while at < names.len() {
        number += 1;
        at += 1;
    }
    number
}

/// Declares an enum of frames: each variant with the level that it came with, and its fields.
macro_rules! frames {
    (
        $(#[$doc:meta])*
        pub enum $name:ident {
            $( $(#[$variant_doc:meta])* $variant:ident = $level:literal {
                $( $(#[$field_doc:meta])* $field:ident: $kind:ty, )*
            } )*
        }
    ) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
        pub enum $name<'a> {
            $( $(#[$variant_doc])* $variant { $( $(#[$field_doc])* $field: $kind, )* }, )*
        }

        impl $name<'_> {
            /// The name of each variant; the place is the discriminant.
            pub const NAMES: &'static [&'static str] = &[$(stringify!($variant)),*];
            /// The level that each variant came with, by discriminant.
            pub const LEVELS: &'static [u32] = &[$($level),*];
            /// All variants and their fields as text; the hash of it is part of [`SCHEMA`](super::SCHEMA).
            pub const SHAPE: &'static str = concat!(
                stringify!($name), "{",
                $( stringify!($variant), "{", $( stringify!($field), ":", stringify!($kind), ",", )* "}", )*
                "}"
            );

            /// The name of the variant, for logs and counters.
            pub const fn name(&self) -> &'static str {
                match self { $( Self::$variant { .. } => stringify!($variant), )* }
            }

            /// The level that the variant came with.
            pub const fn level(&self) -> u32 {
                match self { $( Self::$variant { .. } => $level, )* }
            }
        }
    };
}

/// Declares a struct that is part of frames.
macro_rules! part {
    (
        $(#[$doc:meta])*
        pub struct $name:ident $(<$life:lifetime>)? {
            $( $(#[$field_doc:meta])* pub $field:ident: $kind:ty, )*
        }
    ) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
        pub struct $name $(<$life>)? {
            $( $(#[$field_doc])* pub $field: $kind, )*
        }

        impl $(<$life>)? $name $(<$life>)? {
            /// Its fields as text, for [`SCHEMA`](super::SCHEMA).
            pub const SHAPE: &'static str = concat!(
                stringify!($name), "{", $( stringify!($field), ":", stringify!($kind), ",", )* "}"
            );
        }
    };
}

pub(super) use {frames, part};
