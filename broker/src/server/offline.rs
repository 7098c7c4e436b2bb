//! The store of a broker that does not run, for the command line.

use crate::cli::Offline;
use crate::store::disk::DirDisk;
use crate::store::{Engine, Options};
use parlor_core::store::{Batch, Fact};
use std::error::Error;
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub(super) struct OfflineStore {
    directory: PathBuf,
    /// `None` while the directory is being replaced.
    engine: Option<Engine>,
    accounts: Vec<(String, Vec<u8>)>,
}

/// A restore was asked for twice, or failed before.
#[derive(Debug, thiserror::Error)]
#[error("the store is closed; run the command again")]
struct Closed;

impl OfflineStore {
    pub(super) fn open(directory: &Path) -> Result<Self, Box<dyn Error>> {
        let disk = DirDisk::open(directory)?;
        let (engine, snapshot) = Engine::open(Arc::new(disk), &Options::default())?;
        Ok(Self { directory: directory.to_owned(), engine: Some(engine), accounts: snapshot.accounts })
    }

    fn commit(&mut self, fact: &Fact<'_>) -> Result<(), Box<dyn Error>> {
        let mut batch = Batch::default();
        batch.push(fact);
        Ok(self.engine.as_mut().ok_or(Closed)?.commit(&[batch])?)
    }
}

impl Offline for OfflineStore {
    fn accounts(&mut self) -> Result<Vec<(String, Vec<u8>)>, Box<dyn Error>> {
        Ok(self.accounts.clone())
    }

    fn put_account(&mut self, name: &str, record: &[u8]) -> Result<(), Box<dyn Error>> {
        self.commit(&Fact::Account { name, record })?;
        self.accounts.retain(|(known, _)| known != name);
        self.accounts.push((name.to_owned(), record.to_vec()));
        self.accounts.sort();
        Ok(())
    }

    fn remove_account(&mut self, name: &str) -> Result<bool, Box<dyn Error>> {
        if !self.accounts.iter().any(|(known, _)| known == name) {
            return Ok(false);
        }
        self.commit(&Fact::AccountRemove { name })?;
        self.accounts.retain(|(known, _)| known != name);
        Ok(true)
    }

    fn backup(&mut self, to: &mut dyn Write) -> Result<(), Box<dyn Error>> {
        self.engine.as_mut().ok_or(Closed)?.backup(to, &mut |_| ())?;
        Ok(())
    }

    fn restore(&mut self, from: &mut dyn Read) -> Result<(), Box<dyn Error>> {
        // The backup is read twice, once to check it, so it is put in a file first.
        let staged = self.directory.with_extension("backup");
        let mut file = std::fs::File::options().read(true).write(true).create(true).truncate(true).open(&staged)?;
        std::io::copy(from, &mut file)?;
        file.rewind()?;
        if let Some(engine) = self.engine.take() {
            engine.close()?;
        }
        let restored = crate::store::restore(&mut file, &self.directory);
        let _ = std::fs::remove_file(&staged);
        restored?;
        Ok(())
    }
}
