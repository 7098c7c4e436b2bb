//! A piece of a journal segment in memory, for reading facts back.

use parlor_core::store::bytes::{DecodeError, Reader};

use super::StoreError;
use super::journal::Segment;

/// Read at once when the next thing wanted is near, and when it is not.
pub(super) const NEAR_BYTES: usize = 32 * 1024;
pub(super) const FAR_BYTES: usize = 512;
/// Things that are closer than this are read together.
pub(super) const NEAR_GAP: u32 = 4096;

/// Bytes of one segment from some offset on.
#[derive(Debug, Default)]
pub(super) struct Window {
    generation: u32,
    start: u32,
    bytes: Vec<u8>,
}

impl Window {
    /// Makes sure that what `read` reads at `at` of the segment is here, whole; takes `ahead` bytes at first.
    pub(super) fn bring(
        &mut self,
        segment: &Segment,
        at: u32,
        ahead: usize,
        read: impl Fn(&mut Reader<'_>) -> Result<(), DecodeError>,
    ) -> Result<(), StoreError> {
        let mut len = ahead;
        loop {
            let found = self.reader(segment.generation, at).and_then(|mut reader| read(&mut reader));
            let is_all = self.generation == segment.generation
                && self.start == at
                && u64::from(at) + self.bytes.len() as u64 >= segment.used;
            match found {
                Err(DecodeError::Truncated) if !is_all => {}
                result => return Ok(result?),
            }
            self.fill(segment, at, len)?;
            len *= 8;
        }
    }

    fn fill(&mut self, segment: &Segment, at: u32, len: usize) -> Result<(), StoreError> {
        let left = usize::try_from(segment.used.saturating_sub(u64::from(at))).unwrap_or(usize::MAX);
        self.generation = segment.generation;
        self.start = at;
        self.bytes.resize(len.min(left), 0);
        let read = segment.file.read_at(u64::from(at), &mut self.bytes);
        read.map_err(|source| StoreError::Io { action: "read", file: segment.name.clone(), source })
    }

    /// Reads at `at` of segment `generation`, as far as that is here.
    pub(super) fn reader(&self, generation: u32, at: u32) -> Result<Reader<'_>, DecodeError> {
        let from = at.checked_sub(self.start).filter(|_| self.generation == generation);
        // An offset in a segment is 29 bits.
        let from = from.and_then(|from| usize::try_from(from).ok());
        let bytes = from.and_then(|from| self.bytes.get(from..)).ok_or(DecodeError::Truncated)?;
        Ok(Reader::new(bytes))
    }
}
