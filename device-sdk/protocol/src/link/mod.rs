//! The native link: frames instead of MQTT packets, for the same sessions.
//!
//! On a stream a frame is a big-endian `u16`, the number of bytes behind it, then one byte [`VERSION`], then the frame's
//! discriminant and its fields in the format of postcard 1. In a datagram the length is left out. [`Up`] goes from client
//! to server, [`Down`] the other way; what the frames mean is said there and in docs/protocol.md ("The native link").
//!
//! Frames borrow from the bytes they were read from; nothing here needs an allocator. Variants are only ever appended and
//! never change, so a receiver that does not know one skips it ([`Decoded::Unknown`]). Every frame has exactly one form:
//! what could be written shorter is refused.

mod check;
mod code;
mod down;
mod encode;
mod error;
mod message;
mod schema;
mod up;

pub use code::{Code, CommandState, PresenceState};
pub use down::Down;
pub use encode::{datagram_len, datagram_to_slice, encode_to_slice, frame_size};
#[cfg(feature = "alloc")]
pub use encode::{encode, encode_datagram};
pub use error::{EncodeError, LinkError};
pub use message::{Announcement, Body, Message, flags};
pub use schema::{LEVEL, SCHEMA};
pub use up::{Secret, Up, wants};

/// The version byte of every frame; the protocol's name in TLS is `parlor/1`.
pub const VERSION: u8 = 1;

/// Most bytes behind the length.
pub const SIZE_MAX: u16 = u16::MAX;

/// A direction's frames.
pub trait Frame<'a>: serde::Serialize + serde::Deserialize<'a> {
    /// Variants that this build knows: the discriminants below it.
    const COUNT: u32;

    /// Whether the fields are what they have to be, beyond their types.
    fn check(&self) -> Result<(), LinkError>;
}

/// What was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decoded<F> {
    /// A frame.
    Frame(F),
    /// A variant of a newer build; it is skipped.
    Unknown {
        /// Its discriminant.
        tag: u32,
        /// Bytes behind the length, or of the datagram.
        size: usize,
    },
}

/// Bytes of the first frame with its length, once that is there. `max`: longest frame the receiver takes, bytes behind the
/// length.
pub fn frame_len(bytes: &[u8], max: u16) -> Result<Option<usize>, LinkError> {
    let Some(&length) = bytes.first_chunk::<2>() else { return Ok(None) };
    match u16::from_be_bytes(length) {
        0 => Err(LinkError::Empty),
        size if size > max => Err(LinkError::TooLong { size, max }),
        size => Ok(Some(usize::from(size) + 2)),
    }
}

/// Reads the first frame of `bytes`, and says how many of them it has; `None`: it is not all there yet. `max`: longest
/// frame the receiver takes, bytes behind the length.
pub fn decode_frame<'a, F: Frame<'a>>(bytes: &'a [u8], max: u16) -> Result<Option<(Decoded<F>, usize)>, LinkError> {
    let Some(len) = frame_len(bytes, max)? else { return Ok(None) };
    match bytes.get(2..len) {
        Some(rest) => Ok(Some((decode_datagram(rest)?, len))),
        None => Ok(None),
    }
}

/// Reads the frame that a datagram is.
pub fn decode_datagram<'a, F: Frame<'a>>(bytes: &'a [u8]) -> Result<Decoded<F>, LinkError> {
    let Some((&version, rest)) = bytes.split_first() else { return Err(LinkError::Empty) };
    if version != VERSION {
        return Err(LinkError::BadVersion(version));
    }
    let (tag, _) = postcard::take_from_bytes::<u32>(rest)?;
    if tag >= F::COUNT {
        return Ok(Decoded::Unknown { tag, size: bytes.len() });
    }
    let (frame, behind) = postcard::take_from_bytes::<F>(rest)?;
    if !behind.is_empty() {
        return Err(LinkError::TrailingBytes);
    }
    if encode::fields_len(&frame) != rest.len() {
        return Err(LinkError::OverlongInteger);
    }
    frame.check()?;
    Ok(Decoded::Frame(frame))
}

/// Bytes as one piece; serde would take them one by one.
struct AsBytes<'a>(&'a [u8]);

impl serde::Serialize for AsBytes<'_> {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_bytes(self.0)
    }
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's form")]
fn bytes<S: serde::Serializer>(bytes: &&[u8], to: S) -> Result<S::Ok, S::Error> {
    to.serialize_bytes(bytes)
}
