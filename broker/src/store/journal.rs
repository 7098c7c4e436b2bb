//! The journal: one record a group commit, in plain files that are filled with zeros beforehand and used again.
//!
//! A record is padded to whole blocks, so a block that was acknowledged is never written again, and a commit changes
//! no file length: one write, one sync. `docs/storage.md` has the layout byte by byte.

// Offsets and lengths within a segment are at most `MAX_OFFSET`, 29 bits, so no cast of one cuts anything off.
#![allow(clippy::cast_possible_truncation)]

use std::io;
use std::sync::Arc;

use parlor_core::store::Batch;

use super::disk::{Disk, DiskFile};
use super::tail::MAX_OFFSET;
use super::{OpenError, StoreError};

/// What records are padded to.
pub(super) const BLOCK: usize = 4096;
/// Bytes before a record's body.
pub(super) const RECORD_HEADER: usize = 40;

const PREFIX: &str = "journal-";
const SEGMENT_MAGIC: [u8; 8] = *b"PARLORJ\x01";
const RECORD_MAGIC: [u8; 4] = *b"PJR\x01";
/// How much of a segment is read at a time.
const READ_BYTES: u64 = 64 * 1024;

/// One journal file in use.
#[derive(Debug, Clone)]
pub(super) struct Segment {
    pub(super) name: String,
    pub(super) file: Arc<dyn DiskFile>,
    pub(super) generation: u32,
    /// Bytes of the file; those after `used` are zeros or records of an older generation.
    pub(super) allocated: u64,
    /// Where the next record goes.
    pub(super) used: u64,
    /// Sequence number of the last record in it, or of the last before it.
    pub(super) last: u64,
}

/// A journal file whose records are all folded.
#[derive(Debug)]
struct Spare {
    name: String,
    file: Arc<dyn DiskFile>,
    allocated: u64,
}

/// Sizes of the journal, in bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sizes {
    pub(super) segment: u64,
    pub(super) step: u64,
}

/// The files of the journal, and the place of the next record.
#[derive(Debug)]
pub(super) struct Journal {
    disk: Arc<dyn Disk>,
    sizes: Sizes,
    salt: u64,
    active: Segment,
    /// Full segments, oldest first.
    frozen: Vec<Segment>,
    spares: Vec<Spare>,
    next_name: u64,
    /// The record being written.
    buffer: Vec<u8>,
}

/// Where the facts of a commit begin.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) generation: u32,
    pub(super) offset: u32,
    /// Bytes written to the file.
    pub(super) written: u64,
}

/// What [`recover`] found.
#[derive(Debug)]
pub(super) struct Recovered {
    /// Segments that hold records not yet folded, oldest first.
    pub(super) segments: Vec<Segment>,
    /// The highest generation in any header.
    pub(super) generation: u32,
    /// Bytes of valid records given up because an earlier one was damaged; only with `salvage`.
    pub(super) given_up: u64,
    spares: Vec<Spare>,
    next_name: u64,
}

/// What the index knows of the journal.
#[derive(Debug, Clone, Copy)]
pub(super) struct Folded {
    pub(super) salt: u64,
    /// Segments up to this one are folded.
    pub(super) generation: u32,
    /// Records up to this one are folded.
    pub(super) record: u64,
}

fn io_error(action: &'static str, file: &str) -> impl FnOnce(io::Error) -> StoreError {
    let file = file.to_owned();
    move |source| StoreError::Io { action, file, source }
}

fn align(bytes: u64, to: u64) -> u64 {
    bytes.div_ceil(to) * to
}

/// True for a name this module gives.
pub(super) fn is_journal(name: &str) -> bool {
    number_of(name).is_some()
}

fn number_of(name: &str) -> Option<u64> {
    name.strip_prefix(PREFIX)?.parse().ok()
}

fn segment_header(salt: u64, generation: u32) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    block[..8].copy_from_slice(&SEGMENT_MAGIC);
    block[8..16].copy_from_slice(&salt.to_le_bytes());
    block[16..20].copy_from_slice(&generation.to_le_bytes());
    let crc = crc32fast::hash(&block[..20]);
    block[20..24].copy_from_slice(&crc.to_le_bytes());
    block
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut four = [0; 4];
    four.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(four)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut eight = [0; 8];
    eight.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(eight)
}

/// Salt and generation of a valid segment header.
fn read_segment_header(block: &[u8]) -> Option<(u64, u32)> {
    (block[..8] == SEGMENT_MAGIC && u32_at(block, 20) == crc32fast::hash(&block[..20]))
        .then(|| (u64_at(block, 8), u32_at(block, 16)))
}

/// A valid record header.
#[derive(Debug, Clone, Copy)]
struct RecordHeader {
    generation: u32,
    salt: u64,
    sequence: u64,
    body: u32,
    body_crc: u32,
}

impl RecordHeader {
    fn write(self, out: &mut [u8]) {
        out[..4].copy_from_slice(&RECORD_MAGIC);
        out[4..8].copy_from_slice(&self.generation.to_le_bytes());
        out[8..16].copy_from_slice(&self.salt.to_le_bytes());
        out[16..24].copy_from_slice(&self.sequence.to_le_bytes());
        out[24..28].copy_from_slice(&self.body.to_le_bytes());
        out[28..32].copy_from_slice(&self.body_crc.to_le_bytes());
        out[32..36].fill(0);
        let crc = crc32fast::hash(&out[..36]);
        out[36..40].copy_from_slice(&crc.to_le_bytes());
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let valid = bytes[..4] == RECORD_MAGIC && u32_at(bytes, 36) == crc32fast::hash(&bytes[..36]);
        valid.then(|| Self {
            generation: u32_at(bytes, 4),
            salt: u64_at(bytes, 8),
            sequence: u64_at(bytes, 16),
            body: u32_at(bytes, 24),
            body_crc: u32_at(bytes, 28),
        })
    }

    /// Bytes the record takes in the file.
    fn padded(self) -> u64 {
        align(RECORD_HEADER as u64 + u64::from(self.body), BLOCK as u64)
    }
}

/// Reads one segment's records in order, a piece of the file at a time: a whole segment in memory at every fold would be
/// most of the broker's memory.
pub(super) struct Records<'a> {
    segment: &'a Segment,
    salt: u64,
    /// Where the next record begins.
    at: u64,
    /// Where the file, or what is of interest of it, ends.
    end: u64,
    buffer: Vec<u8>,
    /// Where in the file the buffer begins.
    start: u64,
}

/// One record's body.
pub(super) struct Record<'a> {
    pub(super) body: &'a [u8],
    /// Where the body begins in the segment.
    pub(super) offset: u32,
    pub(super) sequence: u64,
}

impl<'a> Records<'a> {
    /// Reads up to `end`.
    pub(super) fn new(segment: &'a Segment, salt: u64, end: u64) -> Self {
        Self { segment, salt, at: BLOCK as u64, end, buffer: vec![], start: 0 }
    }

    /// The next record; `None` when what follows is not one.
    pub(super) fn next(&mut self) -> Result<Option<Record<'_>>, StoreError> {
        if !self.have(BLOCK as u64)? {
            return Ok(None);
        }
        let Some(header) = RecordHeader::read(self.here(RECORD_HEADER)) else { return Ok(None) };
        let is_ours = header.salt == self.salt && header.generation == self.segment.generation;
        if !is_ours || !self.have(header.padded())? {
            return Ok(None);
        }
        let whole = RECORD_HEADER + header.body as usize;
        if crc32fast::hash(&self.here(whole)[RECORD_HEADER..]) != header.body_crc {
            return Ok(None);
        }
        let at = self.at;
        self.at += header.padded();
        // A segment never grows beyond what its slots can name, see `MAX_OFFSET`.
        let offset = u32::try_from(at).map_err(|_| StoreError::TooLarge { bytes: at })? + RECORD_HEADER as u32;
        let from = (at - self.start) as usize;
        Ok(Some(Record { body: &self.buffer[from + RECORD_HEADER..from + whole], offset, sequence: header.sequence }))
    }

    /// The next `len` bytes, after [`Self::have`].
    fn here(&self, len: usize) -> &[u8] {
        let from = (self.at - self.start) as usize;
        &self.buffer[from..from + len]
    }

    /// Brings the next `len` bytes into the buffer; false when the file ends before.
    fn have(&mut self, len: u64) -> Result<bool, StoreError> {
        if self.at + len > self.end {
            return Ok(false);
        }
        if self.at < self.start || self.at + len > self.start + self.buffer.len() as u64 {
            let len = len.max(READ_BYTES).min(self.end - self.at);
            self.buffer.resize(len as usize, 0);
            self.start = self.at;
            let read = self.segment.file.read_at(self.at, &mut self.buffer);
            read.map_err(io_error("read", &self.segment.name))?;
        }
        Ok(true)
    }
}

/// Finds the segments that hold records the index does not have.
///
/// Records are written one at a time and synced before the next, so only the very last may be incomplete. A valid
/// record after an invalid one therefore means that acknowledged bytes changed, and is refused unless `salvage`.
pub(super) fn recover(disk: &dyn Disk, folded: Folded, salvage: bool) -> Result<Recovered, OpenError> {
    let mut names = disk.list().map_err(io_error("list", "the data directory"))?;
    names.retain(|name| is_journal(name));
    names.sort_unstable();
    let mut recovered = Recovered {
        segments: vec![],
        generation: folded.generation,
        given_up: 0,
        spares: vec![],
        next_name: names.iter().filter_map(|name| number_of(name)).max().map_or(0, |n| n + 1),
    };
    let mut found = vec![];
    for name in names {
        let file = disk.open(&name).map_err(io_error("open", &name))?;
        let allocated = file.len().map_err(io_error("measure", &name))?;
        let header = if allocated < BLOCK as u64 {
            None
        } else {
            let mut block = [0; BLOCK];
            file.read_at(0, &mut block).map_err(io_error("read", &name))?;
            read_segment_header(&block)
        };
        let mut segment = Segment { name, file, generation: 0, allocated, used: BLOCK as u64, last: 0 };
        match header {
            Some((salt, _)) if salt != folded.salt => return Err(OpenError::ForeignJournal { file: segment.name }),
            Some((_, generation)) if generation > folded.generation => {
                recovered.generation = recovered.generation.max(generation);
                segment.generation = generation;
                found.push(segment);
            }
            Some(_) => recovered.spares.push(segment.into()),
            None => {
                // Headers are synced before the first record, so one that is not whole has no records, unless it
                // was damaged later.
                if let Some(offset) = find_record(&segment, BLOCK as u64, folded, |h| h.generation > folded.generation)?
                {
                    if !salvage {
                        return Err(OpenError::JournalDamaged { file: segment.name, offset: 0, valid_at: offset });
                    }
                    recovered.given_up += segment.allocated - offset;
                }
                recovered.spares.push(segment.into());
            }
        }
    }
    found.sort_unstable_by_key(|segment| segment.generation);
    let mut last = folded.record;
    let mut damaged = None;
    for mut segment in found {
        segment.last = last;
        if damaged.is_none() {
            let mut used = segment.used;
            let mut records = Records::new(&segment, folded.salt, segment.allocated);
            while let Some(record) = records.next()?.filter(|record| record.sequence == last + 1) {
                last = record.sequence;
                used = align(u64::from(record.offset) + record.body.len() as u64, BLOCK as u64);
            }
            (segment.last, segment.used) = (last, used);
        }
        let generation = segment.generation;
        // Record `last + 1` may be there in part: it is the one that was being written.
        let later =
            find_record(&segment, segment.used, folded, |h| h.generation == generation && h.sequence > last + 1)?;
        if damaged.is_none() {
            // Where an invalid record would stand, if a valid one turns up after it.
            damaged = later.map(|at| (segment.name.clone(), segment.used, at));
        }
        if let (Some((file, offset, valid_at)), false) = (&damaged, salvage) {
            return Err(OpenError::JournalDamaged { file: file.clone(), offset: *offset, valid_at: *valid_at });
        }
        if let Some(at) = later {
            recovered.given_up += segment.allocated - at;
        }
        recovered.segments.push(segment);
    }
    Ok(recovered)
}

/// The offset of the first valid record header at or after `from` that `wanted` accepts.
fn find_record(
    segment: &Segment,
    from: u64,
    folded: Folded,
    wanted: impl Fn(&RecordHeader) -> bool,
) -> Result<Option<u64>, StoreError> {
    let mut buffer = vec![];
    let mut at = from;
    while at + BLOCK as u64 <= segment.allocated {
        let len = (segment.allocated - at).min(READ_BYTES) as usize / BLOCK * BLOCK;
        buffer.resize(len, 0);
        segment.file.read_at(at, &mut buffer).map_err(io_error("read", &segment.name))?;
        for (i, block) in buffer.chunks_exact(BLOCK).enumerate() {
            if RecordHeader::read(block)
                .is_some_and(|h| h.salt == folded.salt && h.sequence > folded.record && wanted(&h))
            {
                return Ok(Some(at + (i * BLOCK) as u64));
            }
        }
        at += len as u64;
    }
    Ok(None)
}

impl From<Segment> for Spare {
    fn from(segment: Segment) -> Self {
        Self { name: segment.name, file: segment.file, allocated: segment.allocated }
    }
}

impl Journal {
    /// Begins a new segment after everything in `recovered` was folded and the index says so durably.
    pub(super) fn begin(
        disk: Arc<dyn Disk>,
        sizes: Sizes,
        salt: u64,
        last: u64,
        recovered: Recovered,
    ) -> Result<Self, StoreError> {
        let mut spares = recovered.spares;
        spares.extend(recovered.segments.into_iter().map(Spare::from));
        let mut next_name = recovered.next_name;
        let active =
            new_segment(disk.as_ref(), sizes, salt, recovered.generation + 1, last, &mut spares, &mut next_name)?;
        let mut journal = Self { disk, sizes, salt, active, frozen: vec![], spares, next_name, buffer: vec![] };
        journal.trim_spares()?;
        Ok(journal)
    }

    /// Writes `batches` as one record and syncs it.
    pub(super) fn append(&mut self, batches: &[Batch]) -> Result<Place, StoreError> {
        let body: usize = batches.iter().map(|batch| batch.bytes.len()).sum();
        let padded = align((RECORD_HEADER + body) as u64, BLOCK as u64);
        if BLOCK as u64 + padded > u64::from(MAX_OFFSET) {
            return Err(StoreError::TooLarge { bytes: body as u64 });
        }
        // A record never spans segments; one that is larger than a segment gets a segment that is larger.
        let has_records = self.active.used > BLOCK as u64;
        if has_records && self.active.used + padded > self.sizes.segment {
            self.freeze()?;
        }
        self.extend(self.active.used + padded)?;

        self.buffer.clear();
        self.buffer.resize(RECORD_HEADER, 0);
        for batch in batches {
            self.buffer.extend_from_slice(&batch.bytes);
        }
        let header = RecordHeader {
            generation: self.active.generation,
            salt: self.salt,
            sequence: self.active.last + 1,
            body: body as u32,
            body_crc: crc32fast::hash(&self.buffer[RECORD_HEADER..]),
        };
        header.write(&mut self.buffer);
        self.buffer.resize(padded as usize, 0);

        let segment = &mut self.active;
        segment.file.write_at(segment.used, &self.buffer).map_err(io_error("write", &segment.name))?;
        segment.file.sync_data().map_err(io_error("sync", &segment.name))?;
        let place = Place {
            generation: segment.generation,
            offset: segment.used as u32 + RECORD_HEADER as u32,
            written: padded,
        };
        segment.used += padded;
        segment.last += 1;
        self.buffer.shrink_to(1 << 20);
        Ok(place)
    }

    /// Grows the active segment with zeros until it has room for `end`.
    fn extend(&mut self, end: u64) -> Result<(), StoreError> {
        let segment = &mut self.active;
        if end > segment.allocated {
            let target = align(end, self.sizes.step);
            fill(segment.file.as_ref(), segment.allocated, target).map_err(io_error("extend", &segment.name))?;
            segment.file.sync_data().map_err(io_error("sync", &segment.name))?;
            segment.allocated = target;
        }
        Ok(())
    }

    /// Closes the active segment, if it has records, and begins another.
    pub(super) fn freeze(&mut self) -> Result<(), StoreError> {
        if self.active.used == BLOCK as u64 {
            return Ok(());
        }
        let next = new_segment(
            self.disk.as_ref(),
            self.sizes,
            self.salt,
            self.active.generation + 1,
            self.active.last,
            &mut self.spares,
            &mut self.next_name,
        )?;
        self.frozen.push(std::mem::replace(&mut self.active, next));
        Ok(())
    }

    /// How many full segments wait to be folded.
    pub(super) fn frozen(&self) -> usize {
        self.frozen.len()
    }

    /// The oldest of them.
    pub(super) fn oldest(&self) -> Option<&Segment> {
        self.frozen.first()
    }

    /// The segment of `generation`, if it is not folded.
    pub(super) fn segment(&self, generation: u32) -> Option<&Segment> {
        self.frozen.iter().chain([&self.active]).find(|segment| segment.generation == generation)
    }

    /// Takes the oldest full segment back into use after it was folded durably.
    pub(super) fn recycle(&mut self) -> Result<(), StoreError> {
        if !self.frozen.is_empty() {
            self.spares.push(self.frozen.remove(0).into());
        }
        self.trim_spares()
    }

    /// Keeps one spare file; a burst must not hold its disk space forever.
    fn trim_spares(&mut self) -> Result<(), StoreError> {
        while self.spares.len() > 1 {
            let spare = self.spares.swap_remove(0);
            self.disk.remove(&spare.name).map_err(io_error("remove", &spare.name))?;
        }
        Ok(())
    }

    /// Gives back all room but one step, so that the next start has little to look at. Everything must be folded.
    pub(super) fn shrink(&mut self) -> Result<(), StoreError> {
        let segment = &mut self.active;
        if segment.allocated > self.sizes.step && segment.used == BLOCK as u64 {
            segment.file.set_len(self.sizes.step).map_err(io_error("shorten", &segment.name))?;
            segment.file.sync_data().map_err(io_error("sync", &segment.name))?;
            segment.allocated = self.sizes.step;
        }
        for spare in std::mem::take(&mut self.spares) {
            self.disk.remove(&spare.name).map_err(io_error("remove", &spare.name))?;
        }
        Ok(())
    }
}

/// Writes zeros over `from..to`. Real zeros, because a hole would still cost the file system a change of its own records
/// at the first write into it; a block at a time, because a page cache that takes in larger pieces counts, and on some
/// systems writes, a whole piece for each block that changes in it later.
fn fill(file: &dyn DiskFile, from: u64, to: u64) -> io::Result<()> {
    let zeros = [0; BLOCK];
    let mut at = from;
    while at < to {
        let len = (to - at).min(BLOCK as u64) as usize;
        file.write_at(at, &zeros[..len])?;
        at += len as u64;
    }
    Ok(())
}

/// Makes a segment ready for its first record: its header is synced before it is used.
fn new_segment(
    disk: &dyn Disk,
    sizes: Sizes,
    salt: u64,
    generation: u32,
    last: u64,
    spares: &mut Vec<Spare>,
    next_name: &mut u64,
) -> Result<Segment, StoreError> {
    let (spare, is_new) = if let Some(spare) = spares.pop() {
        (spare, false)
    } else {
        let name = format!("{PREFIX}{next_name}");
        *next_name += 1;
        let file = disk.open(&name).map_err(io_error("make", &name))?;
        (Spare { name, file, allocated: 0 }, true)
    };
    let Spare { name, file, mut allocated } = spare;
    if allocated < sizes.step {
        // Also covers a file that a power cut left short.
        fill(file.as_ref(), allocated / BLOCK as u64 * BLOCK as u64, sizes.step).map_err(io_error("extend", &name))?;
        allocated = sizes.step;
    }
    file.write_at(0, &segment_header(salt, generation)).map_err(io_error("write", &name))?;
    file.sync_data().map_err(io_error("sync", &name))?;
    if is_new {
        disk.sync_dir().map_err(io_error("sync", "the data directory"))?;
    }
    Ok(Segment { name, file, generation, allocated, used: BLOCK as u64, last })
}
