//! Backups: the index as a checked stream of rows, and the way back.
//!
//! The stream is a header, blocks of rows each with its checksum, and a trailer with the count of rows of every table;
//! `docs/storage.md` has the bytes. A backup holds what was committed, and nothing of the journal's form.

use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use parlor_core::store::bytes::{DecodeError, Reader, put_bytes, put_int};
use redb::{Database, ReadTransaction, ReadableTable};

use super::StoreError;
use super::disk::{DirDisk, DirError, parent_of, sync_path};
use super::schema::{
    self, ACCOUNTS, BODIES, BODY_REFS, CHUNKS, META, QUEUES, RETAINED, ROW_CHUNKS, ROW_FILTERS, ROW_FLOORS, ROW_RUNS,
    SESSIONS, SUBSCRIPTIONS, WILLS, meta,
};

const MAGIC: [u8; 8] = *b"PARLORB\x01";
/// Blocks are closed when they reach this; one row larger than it makes a larger block.
const BLOCK_BYTES: usize = 64 * 1024;
/// No row this version writes comes near it, so a longer block is a damaged length.
const MAX_BLOCK_BYTES: u32 = 1 << 30;
/// Rows written to a new index in one transaction, bytes.
const RESTORE_SLICE_BYTES: usize = 16 << 20;
const TABLES: usize = 14;
/// How many there were in the format without rows.
const TABLES_WITHOUT_ROWS: usize = 10;
const END: u8 = 0xFF;

/// How far a backup is, or how large it was.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Rows so far.
    pub rows: u64,
    /// Bytes so far.
    pub bytes: u64,
}

/// Why a backup could not be made.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// Reading the store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Writing the stream failed.
    #[error("cannot write the backup: {0}; make room where it goes and start it again")]
    Write(#[from] io::Error),
    /// The store is closed.
    #[error("the store is shut down; start the broker and try again")]
    Closed,
}

/// Why a backup could not be restored. The data directory is as it was.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// Reading the stream failed.
    #[error("cannot read the backup: {0}; copy it again")]
    Read(io::Error),
    /// Not a backup at all.
    #[error("this is not a backup made by parlor")]
    NotABackup,
    /// Another format.
    #[error(
        "the backup has format {found}, this version reads format {known}; restore it with the version that made it"
    )]
    OtherFormat {
        /// In the stream.
        found: u64,
        /// Known here.
        known: u64,
    },
    /// Bytes were changed or cut off.
    #[error("the backup is damaged at byte {offset}: {what}; use another copy")]
    Damaged {
        /// Where.
        offset: u64,
        /// What is wrong there.
        what: &'static str,
    },
    /// Something is in the way.
    #[error("{path} is in the way: it is left from an earlier restore; look at it, then remove it")]
    InTheWay {
        /// The directory.
        path: PathBuf,
    },
    /// The data directory is in use or unusable.
    #[error(transparent)]
    Dir(#[from] DirError),
    /// Writing the new store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Putting the new store in place failed.
    #[error(
        "cannot put the restored store in place: {0}; the old one is untouched or beside it, with `.replaced` after its name"
    )]
    Swap(io::Error),
}

/// What a restore did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// Rows and bytes read.
    pub progress: Progress,
    /// Where the store that was there before is now, if there was one.
    pub replaced: Option<PathBuf>,
}

impl From<redb::StorageError> for BackupError {
    fn from(error: redb::StorageError) -> Self {
        Self::Store(error.into())
    }
}

impl From<redb::TableError> for BackupError {
    fn from(error: redb::TableError) -> Self {
        Self::Store(error.into())
    }
}

struct Stream<'a> {
    out: &'a mut dyn Write,
    progress: &'a mut dyn FnMut(Progress),
    block: Vec<u8>,
    counts: [u64; TABLES],
    done: Progress,
}

impl Stream<'_> {
    fn row(&mut self, table: u8, key: &[&[u8]], value: &[u8]) -> Result<(), BackupError> {
        self.block.push(table);
        put_int(&mut self.block, key.iter().map(|part| part.len() as u64).sum());
        for part in key {
            self.block.extend_from_slice(part);
        }
        put_bytes(&mut self.block, value);
        self.counts[usize::from(table)] += 1;
        self.done.rows += 1;
        if self.block.len() >= BLOCK_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), BackupError> {
        if self.block.is_empty() {
            return Ok(());
        }
        let len =
            u32::try_from(self.block.len()).map_err(|_| StoreError::TooLarge { bytes: self.block.len() as u64 })?;
        self.out.write_all(&len.to_le_bytes())?;
        self.out.write_all(&crc32fast::hash(&self.block).to_le_bytes())?;
        self.out.write_all(&self.block)?;
        self.done.bytes += 8 + u64::from(len);
        self.block.clear();
        (self.progress)(self.done);
        Ok(())
    }
}

/// Writes what `view` shows.
pub(super) fn write(
    view: &ReadTransaction,
    out: &mut dyn Write,
    progress: &mut dyn FnMut(Progress),
) -> Result<Progress, BackupError> {
    out.write_all(&MAGIC)?;
    out.write_all(&schema::FORMAT.to_le_bytes())?;
    let done = Progress { rows: 0, bytes: 16 };
    let mut out = Stream { out, progress, block: vec![], counts: [0; TABLES], done };
    for row in view.open_table(META)?.iter()? {
        let (key, value) = row?;
        // Which journal it was, and how far folded, belongs to the old directory.
        if !matches!(key.value(), meta::FORMAT | meta::SALT | meta::FOLDED_GENERATION | meta::FOLDED_RECORD) {
            out.row(0, &[key.value().as_bytes()], &value.value().to_le_bytes())?;
        }
    }
    for row in view.open_table(SESSIONS)?.iter()? {
        let (key, value) = row?;
        out.row(1, &[&key.value().to_le_bytes()], value.value())?;
    }
    for row in view.open_table(SUBSCRIPTIONS)?.iter()? {
        let (key, value) = row?;
        let ((no, filter), (options, id)) = (key.value(), value.value());
        let mut bytes = vec![options];
        bytes.extend_from_slice(&id.to_le_bytes());
        out.row(2, &[&no.to_le_bytes(), filter.as_bytes()], &bytes)?;
    }
    for row in view.open_table(QUEUES)?.iter()? {
        let (key, value) = row?;
        out.row(3, &[&key.value().to_le_bytes()], value.value())?;
    }
    for row in view.open_table(CHUNKS)?.iter()? {
        let (key, value) = row?;
        let (no, first) = key.value();
        out.row(4, &[&no.to_le_bytes(), &first.to_le_bytes()], value.value())?;
    }
    for row in view.open_table(BODIES)?.iter()? {
        let (key, value) = row?;
        out.row(5, &[&key.value().to_le_bytes()], value.value())?;
    }
    for row in view.open_table(BODY_REFS)?.iter()? {
        let (key, value) = row?;
        out.row(6, &[&key.value().to_le_bytes()], &value.value().to_le_bytes())?;
    }
    for (table, definition) in [(7, RETAINED), (8, WILLS), (9, ACCOUNTS)] {
        for row in view.open_table(definition)?.iter()? {
            let (key, value) = row?;
            out.row(table, &[key.value().as_bytes()], value.value())?;
        }
    }
    for row in view.open_table(ROW_RUNS)?.iter()? {
        let (key, value) = row?;
        let (table, run) = key.value();
        out.row(10, &[&[table], &run.to_le_bytes()], value.value())?;
    }
    for row in view.open_table(ROW_FLOORS)?.iter()? {
        let (key, value) = row?;
        let (table, run, a) = key.value();
        out.row(11, &[&[table], &run.to_le_bytes(), &a.to_le_bytes()], value.value())?;
    }
    for (number, definition) in [(12, ROW_CHUNKS), (13, ROW_FILTERS)] {
        for row in view.open_table(definition)?.iter()? {
            let (key, value) = row?;
            let (table, run, a, b) = key.value();
            out.row(number, &[&[table], &run.to_le_bytes(), &a.to_le_bytes(), &b.to_le_bytes()], value.value())?;
        }
    }
    out.flush()?;
    let mut trailer = vec![END];
    for count in out.counts {
        put_int(&mut trailer, count);
    }
    out.block = trailer;
    out.flush()?;
    out.out.flush()?;
    Ok(out.done)
}

/// One block of the stream.
struct Block {
    /// Where it begins.
    offset: u64,
    bytes: Vec<u8>,
}

/// Reads the blocks of a stream, checking each.
struct Blocks<'a> {
    input: &'a mut dyn Read,
    offset: u64,
    /// How many tables its format has.
    tables: usize,
}

fn read_or(input: &mut dyn Read, out: &mut [u8], offset: u64, what: &'static str) -> Result<(), RestoreError> {
    input.read_exact(out).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => RestoreError::Damaged { offset, what },
        _ => RestoreError::Read(error),
    })
}

impl<'a> Blocks<'a> {
    fn new(input: &'a mut dyn Read) -> Result<Self, RestoreError> {
        let mut header = [0; 16];
        read_or(input, &mut header, 0, "it is too short")?;
        let (magic, format) = header.split_at(8);
        if magic != MAGIC {
            return Err(RestoreError::NotABackup);
        }
        let mut eight = [0; 8];
        eight.copy_from_slice(format);
        let found = u64::from_le_bytes(eight);
        let tables = match found {
            schema::FORMAT => TABLES,
            schema::FORMAT_WITHOUT_ROWS => TABLES_WITHOUT_ROWS,
            _ => return Err(RestoreError::OtherFormat { found, known: schema::FORMAT }),
        };
        Ok(Self { input, offset: 16, tables })
    }

    fn next(&mut self) -> Result<Block, RestoreError> {
        let offset = self.offset;
        let mut head = [0; 8];
        read_or(self.input, &mut head, offset, "it ends before its trailer")?;
        let (len, crc) = (four(&head[..4]), four(&head[4..]));
        if len > MAX_BLOCK_BYTES {
            return Err(RestoreError::Damaged { offset, what: "a block has an impossible length" });
        }
        // Grows as bytes arrive: a damaged length takes no memory.
        let mut bytes = vec![];
        self.input.take(u64::from(len)).read_to_end(&mut bytes).map_err(RestoreError::Read)?;
        if bytes.len() != len as usize {
            return Err(RestoreError::Damaged { offset, what: "it ends in the middle of a block" });
        }
        if crc32fast::hash(&bytes) != crc {
            return Err(RestoreError::Damaged { offset, what: "a block does not match its checksum" });
        }
        self.offset += 8 + u64::from(len);
        Ok(Block { offset, bytes })
    }
}

/// One row of a block: table, key, value.
type Row<'a> = (u8, &'a [u8], &'a [u8]);

fn rows(block: &Block) -> impl Iterator<Item = Result<Row<'_>, RestoreError>> {
    let mut r = Reader::new(&block.bytes);
    std::iter::from_fn(move || {
        (r.used() < block.bytes.len()).then(|| {
            let mut row = || Ok::<_, DecodeError>((r.byte()?, r.bytes()?, r.bytes()?));
            row().map_err(|_| RestoreError::Damaged { offset: block.offset, what: "a row does not read back" })
        })
    })
}

/// Reads a whole stream, checks everything, and gives each row to `take`.
fn read(
    input: &mut dyn Read,
    take: &mut dyn FnMut(u64, Row<'_>) -> Result<(), RestoreError>,
) -> Result<Progress, RestoreError> {
    let mut blocks = Blocks::new(input)?;
    let mut counts = vec![0; blocks.tables];
    let mut done = Progress::default();
    loop {
        let block = blocks.next()?;
        let damaged = |what| RestoreError::Damaged { offset: block.offset, what };
        if block.bytes.first() == Some(&END) {
            let mut r = Reader::new(&block.bytes[1..]);
            for &count in &counts {
                if r.int().ok() != Some(count) {
                    return Err(damaged("rows are missing"));
                }
            }
            if blocks.input.read(&mut [0]).map_err(RestoreError::Read)? != 0 {
                return Err(RestoreError::Damaged { offset: blocks.offset, what: "something follows the trailer" });
            }
            done.bytes = blocks.offset;
            return Ok(done);
        }
        for row in rows(&block) {
            let row = row?;
            let count = counts.get_mut(usize::from(row.0)).ok_or_else(|| damaged("a row is of no known table"))?;
            *count += 1;
            done.rows += 1;
            take(block.offset, row)?;
        }
    }
}

/// Makes the data directory at `dir` what the backup says. First the whole stream is checked; then a new store is
/// built beside the directory, and takes its place. What was there is kept, with `.replaced` after its name. The
/// broker must not run.
pub fn restore(input: &mut (impl Read + Seek), dir: &Path) -> Result<Restored, RestoreError> {
    let progress = read(&mut io::BufReader::new(&mut *input), &mut |offset, row| check_row(offset, row))?;
    input.seek(SeekFrom::Start(0)).map_err(RestoreError::Read)?;

    let (building, replaced) = (beside(dir, ".restoring"), beside(dir, ".replaced"));
    for path in [&building, &replaced] {
        if path.exists() {
            return Err(RestoreError::InTheWay { path: path.clone() });
        }
    }
    let has_old = dir.exists();
    // Held until the end, so that no broker starts in the middle.
    let old = if has_old { Some(DirDisk::open(dir)?) } else { None };
    let built = build(&mut io::BufReader::new(input), &building);
    if let Err(error) = built {
        // What was built is worth nothing; if it cannot be removed, the next restore says that it is in the way.
        drop(std::fs::remove_dir_all(&building));
        return Err(error);
    }
    if has_old {
        std::fs::rename(dir, &replaced).map_err(RestoreError::Swap)?;
    }
    std::fs::rename(&building, dir).map_err(RestoreError::Swap)?;
    sync_path(parent_of(dir)).map_err(RestoreError::Swap)?;
    drop(old);
    Ok(Restored { progress, replaced: has_old.then_some(replaced) })
}

fn beside(dir: &Path, suffix: &str) -> PathBuf {
    let mut name = dir.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn build(input: &mut dyn Read, dir: &Path) -> Result<(), RestoreError> {
    use std::hash::{BuildHasher, Hasher};

    let disk = DirDisk::open(dir)?;
    let salt = std::hash::RandomState::new().build_hasher().finish();
    let db = schema::create_index(&disk, 16 << 20, salt)?;
    let mut slice = vec![];
    let mut slice_bytes = 0;
    read(input, &mut |offset, (table, key, value)| {
        slice.push((table, key.to_vec(), value.to_vec()));
        slice_bytes += key.len() + value.len();
        if slice_bytes >= RESTORE_SLICE_BYTES {
            slice_bytes = 0;
            insert(&db, offset, &std::mem::take(&mut slice))?;
        }
        Ok(())
    })?;
    insert(&db, 0, &slice)?;
    drop(db);
    schema::name_index(&disk)?;
    Ok(())
}

fn four(bytes: &[u8]) -> u32 {
    let mut four = [0; 4];
    four.copy_from_slice(bytes);
    u32::from_le_bytes(four)
}

fn number(bytes: &[u8]) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.try_into().ok()?))
}

fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}

/// Key and value of a row of [`SUBSCRIPTIONS`].
type Subscription<'a> = ((u64, &'a str), (u8, u32));

fn subscription<'a>(key: &'a [u8], value: &[u8]) -> Option<Subscription<'a>> {
    let (no, filter) = key.split_at_checked(8)?;
    let (options, id) = value.split_first()?;
    Some(((number(no)?, text(filter)?), (*options, u32::from_le_bytes(id.try_into().ok()?))))
}

fn pair(key: &[u8]) -> Option<(u64, u64)> {
    let (a, b) = key.split_at_checked(8)?;
    Some((number(a)?, number(b)?))
}

/// A table's number, and the other numbers of a key.
fn row_key<const N: usize>(key: &[u8]) -> Option<(u8, [u64; N])> {
    let (table, key) = key.split_first()?;
    let (parts, []) = key.as_chunks::<8>() else { return None };
    let parts: [[u8; 8]; N] = parts.try_into().ok()?;
    Some((*table, parts.map(u64::from_le_bytes)))
}

fn check_row(offset: u64, (table, key, value): Row<'_>) -> Result<(), RestoreError> {
    let is_good = match table {
        0 => text(key).is_some() && number(value).is_some(),
        1 | 3 | 5 => number(key).is_some(),
        2 => subscription(key, value).is_some(),
        4 => pair(key).is_some(),
        6 => number(key).is_some() && number(value).is_some(),
        10 => row_key::<1>(key).is_some(),
        11 => row_key::<2>(key).is_some(),
        12 | 13 => row_key::<3>(key).is_some(),
        _ => text(key).is_some(),
    };
    if is_good { Ok(()) } else { Err(RestoreError::Damaged { offset, what: "a row has the wrong form" }) }
}

fn insert(db: &Database, offset: u64, rows: &[(u8, Vec<u8>, Vec<u8>)]) -> Result<(), RestoreError> {
    let bad = || RestoreError::Damaged { offset, what: "a row has the wrong form" };
    let mut txn = db.begin_write().map_err(StoreError::from)?;
    txn.set_quick_repair(true);
    for (table, key, value) in rows {
        let (key, value) = (key.as_slice(), value.as_slice());
        let inserted: Result<(), StoreError> = match table {
            0 => {
                let (key, value) = (text(key).ok_or_else(bad)?, number(value).ok_or_else(bad)?);
                put(&txn, META, key, value)
            }
            1 => put(&txn, SESSIONS, number(key).ok_or_else(bad)?, value),
            2 => {
                let (key, value) = subscription(key, value).ok_or_else(bad)?;
                put(&txn, SUBSCRIPTIONS, key, value)
            }
            3 => put(&txn, QUEUES, number(key).ok_or_else(bad)?, value),
            4 => put(&txn, CHUNKS, pair(key).ok_or_else(bad)?, value),
            5 => put(&txn, BODIES, number(key).ok_or_else(bad)?, value),
            6 => put(&txn, BODY_REFS, number(key).ok_or_else(bad)?, number(value).ok_or_else(bad)?),
            7 => put(&txn, RETAINED, text(key).ok_or_else(bad)?, value),
            8 => put(&txn, WILLS, text(key).ok_or_else(bad)?, value),
            9 => put(&txn, ACCOUNTS, text(key).ok_or_else(bad)?, value),
            10 => {
                let (table, [run]) = row_key(key).ok_or_else(bad)?;
                put(&txn, ROW_RUNS, (table, run), value)
            }
            11 => {
                let (table, [run, a]) = row_key(key).ok_or_else(bad)?;
                put(&txn, ROW_FLOORS, (table, run, a), value)
            }
            _ => {
                let (name, [run, a, b]) = row_key(key).ok_or_else(bad)?;
                put(&txn, if *table == 12 { ROW_CHUNKS } else { ROW_FILTERS }, (name, run, a, b), value)
            }
        };
        inserted?;
    }
    txn.commit().map_err(StoreError::from)?;
    Ok(())
}

fn put<K: redb::Key + 'static, V: redb::Value + 'static>(
    txn: &redb::WriteTransaction,
    table: redb::TableDefinition<'_, K, V>,
    key: K::SelfType<'_>,
    value: V::SelfType<'_>,
) -> Result<(), StoreError> {
    txn.open_table(table)?.insert(key, value)?;
    Ok(())
}

impl super::Engine {
    /// Folds everything, on this thread, and writes a backup. No job may be under way.
    pub fn backup(&mut self, out: &mut dyn Write, progress: &mut dyn FnMut(Progress)) -> Result<Progress, BackupError> {
        self.fold_all()?;
        write(&self.index_view()?, out, progress)
    }
}
