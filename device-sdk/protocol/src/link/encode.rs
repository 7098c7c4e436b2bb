//! Frames as bytes.

use super::{EncodeError, Frame, SIZE_MAX, VERSION};
use crate::Sink;
use crate::cursor::{Counter, SliceSink};
use postcard::ser_flavors::Flavor;

/// Bytes of a frame behind its length; more than [`SIZE_MAX`] cannot be written.
pub fn frame_size<'a>(frame: &impl Frame<'a>) -> usize {
    1 + fields_len(frame)
}

/// Bytes of a frame as a datagram.
pub fn datagram_len<'a>(frame: &impl Frame<'a>) -> usize {
    frame_size(frame)
}

/// Discriminant and fields.
pub(super) fn fields_len<'a>(frame: &impl Frame<'a>) -> usize {
    let mut counter = Counter::default();
    put_fields(frame, &mut counter);
    counter.0
}

fn put_fields<'a>(frame: &impl Frame<'a>, out: &mut impl Sink) {
    // The sink takes everything, and the types are all ones that the format has.
    let written = postcard::serialize_with_flavor(frame, Output(out));
    debug_assert!(written.is_ok(), "every frame can be written");
}

/// Writes a frame for a stream to the front of `out`; returns its bytes.
pub fn encode_to_slice<'a>(frame: &impl Frame<'a>, out: &mut [u8]) -> Result<usize, EncodeError> {
    let size = frame_size(frame);
    let length = u16::try_from(size).map_err(|_| EncodeError::TooLong { size })?;
    let mut sink = sink_of(out, size + 2)?;
    sink.put_u16(length);
    sink.put_u8(VERSION);
    put_fields(frame, &mut sink);
    Ok(size + 2)
}

/// Writes a frame for a datagram to the front of `out`; returns its bytes.
pub fn datagram_to_slice<'a>(frame: &impl Frame<'a>, out: &mut [u8]) -> Result<usize, EncodeError> {
    let size = frame_size(frame);
    if size > usize::from(SIZE_MAX) {
        return Err(EncodeError::TooLong { size });
    }
    let mut sink = sink_of(out, size)?;
    sink.put_u8(VERSION);
    put_fields(frame, &mut sink);
    Ok(size)
}

fn sink_of(bytes: &mut [u8], needed: usize) -> Result<SliceSink<'_>, EncodeError> {
    if bytes.len() < needed { Err(EncodeError::BufferTooSmall { needed }) } else { Ok(SliceSink { bytes, at: 0 }) }
}

/// Appends a frame for a stream; returns its bytes. Of a frame that is too long nothing is appended.
#[cfg(feature = "alloc")]
pub fn encode<'a>(frame: &impl Frame<'a>, out: &mut alloc::vec::Vec<u8>) -> Result<usize, EncodeError> {
    let start = out.len();
    out.put_u16(0);
    out.put_u8(VERSION);
    put_fields(frame, out);
    let size = out.len() - start - 2;
    let Ok(length) = u16::try_from(size) else {
        out.truncate(start);
        return Err(EncodeError::TooLong { size });
    };
    if let Some(place) = out.get_mut(start..start + 2) {
        place.copy_from_slice(&length.to_be_bytes());
    }
    Ok(size + 2)
}

/// Appends a frame for a datagram; returns its bytes. Of a frame that is too long nothing is appended.
#[cfg(feature = "alloc")]
pub fn encode_datagram<'a>(frame: &impl Frame<'a>, out: &mut alloc::vec::Vec<u8>) -> Result<usize, EncodeError> {
    let start = out.len();
    out.put_u8(VERSION);
    put_fields(frame, out);
    let size = out.len() - start;
    if size > usize::from(SIZE_MAX) {
        out.truncate(start);
        return Err(EncodeError::TooLong { size });
    }
    Ok(size)
}

/// Where the fields go.
struct Output<'s, S>(&'s mut S);

impl<S: Sink> Flavor for Output<'_, S> {
    type Output = ();

    fn try_extend(&mut self, data: &[u8]) -> postcard::Result<()> {
        self.0.put(data);
        Ok(())
    }

    fn try_push(&mut self, data: u8) -> postcard::Result<()> {
        self.0.put_u8(data);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}
