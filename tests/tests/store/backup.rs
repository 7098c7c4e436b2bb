//! Backups of a running store, and the way back.

use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parlor::store::disk::DirDisk;
use parlor::store::{BackupError, Engine, OpenError, Options, Progress, RestoreError, restore};
use parlor_core::store::memory::MemoryStore;
use parlor_core::store::{BatchNo, Store};
use parlor_tests::disk::{Seed, SimDisk};
use redb::TableHandle;

use crate::contract::small;
use crate::rows::{queries, same_answer};
use crate::threads::Running;
use crate::traffic::{Traffic, loads, same_page, same_snapshot};

/// A directory of a test's own, removed at the end.
pub struct Dir(PathBuf);

impl Dir {
    pub fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("parlor-store-{name}-{}", std::process::id()));
        let dir = Self(path);
        dir.remove();
        dir
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    fn beside(&self, suffix: &str) -> PathBuf {
        PathBuf::from(format!("{}{suffix}", self.0.display()))
    }

    fn remove(&self) {
        for path in [self.0.clone(), self.beside(".restoring"), self.beside(".replaced")] {
            // It may well not be there.
            let _ = std::fs::remove_dir_all(path);
        }
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        self.remove();
    }
}

/// A store in memory with some history; its backup, and what must be in it.
fn sample(seed: u64) -> (Vec<u8>, MemoryStore) {
    let (mut traffic, mut model) = (Traffic::new(seed), MemoryStore::new());
    // Slices so small that a merge is under way at most times.
    let options = Options { row_slice_bytes: 2000, ..small() };
    let (mut engine, _) = Engine::open(Arc::new(SimDisk::new()), &options).unwrap();
    for _ in 0..60 {
        let batch = traffic.batch(20);
        model.apply(&batch).unwrap();
        engine.commit(&[batch]).unwrap();
        engine.fold_full().unwrap();
        if let Some(job) = engine.start_job() {
            engine.finish_job(job.run()).unwrap();
        }
    }
    assert!(engine.totals().merged_bytes > 0);
    let mut bytes = vec![];
    let mut seen = Progress::default();
    let done = engine.backup(&mut bytes, &mut |progress| seen = progress).unwrap();
    assert_eq!(done, seen);
    assert_eq!(done.bytes, bytes.len() as u64);
    (bytes, model)
}

fn verify(dir: &Path, model: &MemoryStore) {
    let (mut engine, found) = Engine::open(Arc::new(DirDisk::open(dir).unwrap()), &small()).unwrap();
    same_snapshot(&model.snapshot(), &found).unwrap();
    for load in loads(model, &mut Seed(1)) {
        same_page(&load, &model.page(&load), &engine.load(&load).unwrap()).unwrap();
    }
    for query in queries(&mut Seed(1)) {
        same_answer(&query, model, &engine.query(&query).unwrap()).unwrap();
    }
}

#[test]
fn a_restored_backup_answers_like_the_store_it_was_made_of() {
    for seed in 1..6 {
        let dir = Dir::new(&format!("restored-{seed}"));
        let (bytes, model) = sample(seed);
        let restored = restore(&mut Cursor::new(&bytes), dir.path()).unwrap();
        assert_eq!(restored.progress.bytes, bytes.len() as u64);
        assert_eq!(restored.replaced, None);
        verify(dir.path(), &model);
        verify(dir.path(), &model);
    }
}

#[test]
fn a_running_store_backs_up_exactly_what_was_committed_before() {
    let dir = Dir::new("running");
    let (mut running, _) = Running::open(Arc::new(SimDisk::new()), &small());
    let (mut traffic, mut before) = (Traffic::new(9), MemoryStore::new());
    for number in 1..=100 {
        let batch = traffic.batch(20);
        before.apply(&batch).unwrap();
        running.store.submit(BatchNo(number), batch);
    }
    running.committed(100);
    // The backup is asked for, then traffic goes on while it is made.
    let backups = running.store.backups();
    let maker = std::thread::spawn(move || {
        let mut bytes = vec![];
        backups.backup(&mut bytes, &mut |_| {}).map(|_| bytes)
    });
    let mut models = vec![before.clone()];
    for number in 101..=400 {
        let batch = traffic.batch(10);
        before.apply(&batch).unwrap();
        models.push(before.clone());
        running.store.submit(BatchNo(number), batch);
        running.committed(number);
    }
    let bytes = maker.join().unwrap().unwrap();
    restore(&mut Cursor::new(&bytes), dir.path()).unwrap();
    let (_, found) = Engine::open(Arc::new(DirDisk::open(dir.path()).unwrap()), &small()).unwrap();
    let hits = models.iter().filter(|model| same_snapshot(&model.snapshot(), &found).is_ok()).count();
    assert!(hits > 0, "the backup is the state between two batches");
    running.store.close().unwrap();
    let late = running.store.backups().backup(&mut vec![], &mut |_| {});
    assert!(matches!(late, Err(BackupError::Closed)), "{late:?}");
}

#[test]
fn a_damaged_backup_is_refused_and_nothing_is_touched() {
    let dir = Dir::new("damaged");
    let (bytes, _) = sample(1);
    for at in (0..bytes.len()).step_by(bytes.len() / 60) {
        let mut flipped = bytes.clone();
        flipped[at] ^= 0x10;
        let error = restore(&mut Cursor::new(&flipped), dir.path()).unwrap_err();
        let expected = match at {
            0..8 => matches!(error, RestoreError::NotABackup),
            8..16 => matches!(error, RestoreError::OtherFormat { .. }),
            _ => matches!(error, RestoreError::Damaged { .. }),
        };
        assert!(expected, "byte {at}: {error:?}");
        let error = restore(&mut Cursor::new(&bytes[..at]), dir.path()).unwrap_err();
        assert!(matches!(error, RestoreError::Damaged { .. }), "cut at {at}: {error:?}");
        assert!(!dir.path().exists() && !dir.beside(".restoring").exists());
    }
    let mut longer = bytes.clone();
    longer.push(0);
    assert!(matches!(restore(&mut Cursor::new(&longer), dir.path()), Err(RestoreError::Damaged { .. })));
}

#[test]
fn a_restore_keeps_what_was_there_and_never_touches_a_store_in_use() {
    let dir = Dir::new("kept");
    let ((old, old_model), (new, new_model)) = (sample(1), sample(2));
    restore(&mut Cursor::new(&old), dir.path()).unwrap();
    let in_use = DirDisk::open(dir.path()).unwrap();
    let error = restore(&mut Cursor::new(&new), dir.path()).unwrap_err();
    assert!(error.to_string().contains("in use by another broker"), "{error}");
    drop(in_use);
    let restored = restore(&mut Cursor::new(&new), dir.path()).unwrap();
    assert_eq!(restored.replaced, Some(dir.beside(".replaced")));
    verify(dir.path(), &new_model);
    verify(&dir.beside(".replaced"), &old_model);
    let error = restore(&mut Cursor::new(&old), dir.path()).unwrap_err();
    assert!(matches!(error, RestoreError::InTheWay { .. }), "{error}");
    verify(dir.path(), &new_model);
}

const META: redb::TableDefinition<'_, &str, u64> = redb::TableDefinition::new("meta");

/// Sets the format that the index at `dir` says it has; for the first one, takes away what that had not.
fn set_format(dir: &Path, format: u64) {
    let db = redb::Database::open(dir.join("index.redb")).unwrap();
    let txn = db.begin_write().unwrap();
    txn.open_table(META).unwrap().insert("format", format).unwrap();
    if format == 1 {
        let tables: Vec<_> = txn.list_tables().unwrap().filter(|table| table.name().starts_with("row")).collect();
        assert!(!tables.is_empty());
        for table in tables {
            txn.delete_table(table).unwrap();
        }
    }
    txn.commit().unwrap();
}

#[test]
fn a_store_of_a_newer_format_is_refused() {
    let dir = Dir::new("newer");
    drop(Engine::open(Arc::new(DirDisk::open(dir.path()).unwrap()), &small()).unwrap());
    set_format(dir.path(), 3);
    let error = Engine::open(Arc::new(DirDisk::open(dir.path()).unwrap()), &Options::default()).unwrap_err();
    assert!(matches!(error, OpenError::OtherFormat { found: 3, known: 2 }), "{error}");
    assert!(error.to_string().contains("start the version that wrote it"), "{error}");
}

#[test]
fn a_store_of_the_format_without_rows_gets_them() {
    let dir = Dir::new("first-format");
    let (mut traffic, mut model) = (Traffic::new(1), MemoryStore::new());
    traffic.rows = 0;
    let open = || Engine::open(Arc::new(DirDisk::open(dir.path()).unwrap()), &small()).unwrap();
    let (mut engine, _) = open();
    for _ in 0..40 {
        let batch = traffic.batch(20);
        model.apply(&batch).unwrap();
        engine.commit(&[batch]).unwrap();
    }
    // What the older version left: some of it folded, some in the journal.
    engine.fold_full().unwrap();
    let batch = traffic.batch(20);
    model.apply(&batch).unwrap();
    engine.commit(&[batch]).unwrap();
    drop(engine);
    set_format(dir.path(), 1);
    verify(dir.path(), &model);
    let (mut engine, _) = open();
    traffic.rows = 40;
    for _ in 0..10 {
        let batch = traffic.batch(20);
        model.apply(&batch).unwrap();
        engine.commit(&[batch]).unwrap();
    }
    drop(engine);
    verify(dir.path(), &model);
}

#[test]
fn a_backup_of_the_format_without_rows_is_restored() {
    let (dir, mut traffic, mut model) = (Dir::new("first-backup"), Traffic::new(1), MemoryStore::new());
    traffic.rows = 0;
    let (mut engine, _) = Engine::open(Arc::new(SimDisk::new()), &small()).unwrap();
    for _ in 0..40 {
        let batch = traffic.batch(20);
        model.apply(&batch).unwrap();
        engine.commit(&[batch]).unwrap();
    }
    let mut bytes = vec![];
    engine.backup(&mut bytes, &mut |_| {}).unwrap();
    // The older format has ten counts in its trailer.
    bytes[8] = 1;
    let mut at = 16;
    loop {
        let len = u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
        if at + 8 + len == bytes.len() {
            break;
        }
        at += 8 + len;
    }
    let mut trailer = bytes.split_off(at + 8);
    while trailer.iter().filter(|&&byte| byte < 0x80).count() > 10 {
        assert_eq!(trailer.pop(), Some(0), "a store without rows");
    }
    bytes[at..at + 4].copy_from_slice(&(trailer.len() as u32).to_le_bytes());
    bytes[at + 4..].copy_from_slice(&crc(&trailer).to_le_bytes());
    bytes.extend_from_slice(&trailer);
    restore(&mut Cursor::new(&bytes), dir.path()).unwrap();
    verify(dir.path(), &model);
}

/// CRC-32 as `docs/storage.md` means it, so that the test does not trust the store's own.
fn crc(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for &byte in bytes {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = crc >> 1 ^ if crc & 1 == 1 { 0xEDB8_8320 } else { 0 };
        }
    }
    !crc
}
