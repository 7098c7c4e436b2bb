//! A disk that loses power at the call you name, and keeps of what was not synced what you choose.

// A simulated file is small, so every offset fits a `usize`.
#![allow(clippy::cast_possible_truncation)]

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use parlor::store::disk::{Disk, DiskFile};

/// A small generator of reproducible numbers (`SplitMix64`).
#[derive(Debug, Clone)]
pub struct Seed(pub u64);

impl Seed {
    /// The next number.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `end`, which must not be 0.
    pub fn below(&mut self, end: u64) -> u64 {
        self.draw() % end
    }

    /// True once in `of` times.
    pub fn one_in(&mut self, of: u64) -> bool {
        self.below(of) == 0
    }
}

/// What survives of the writes that were not synced when the power went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// Nothing.
    Nothing,
    /// Everything.
    All,
    /// The first few, in the order they were made.
    Prefix,
    /// Any of them, whole.
    Subset,
    /// Sectors of so many bytes, any of them.
    Sectors(usize),
}

/// Every way to lose power.
pub const KEEPS: [Keep; 6] =
    [Keep::Nothing, Keep::All, Keep::Prefix, Keep::Subset, Keep::Sectors(4096), Keep::Sectors(512)];

#[derive(Debug, Clone)]
enum Change {
    Write { offset: u64, data: Vec<u8> },
    SetLen(u64),
}

#[derive(Debug, Clone, Default)]
struct Content {
    /// What reads see.
    now: Vec<u8>,
    /// What is safe.
    synced: Vec<u8>,
    /// What leads from `synced` to `now`.
    changes: Vec<Change>,
}

#[derive(Debug, Clone)]
enum Naming {
    Give(String, u64),
    Take(String),
}

#[derive(Debug, Default)]
struct State {
    files: HashMap<u64, Content>,
    names: BTreeMap<String, u64>,
    synced_names: BTreeMap<String, u64>,
    namings: Vec<Naming>,
    next_file: u64,
    /// Calls that change or sync something, so far.
    calls: u64,
    /// The call at which the power goes; that call and all later ones fail.
    cut_at: Option<u64>,
    free_bytes: u64,
    /// Bytes written, and syncs.
    written: u64,
    syncs: u64,
}

/// A directory in memory. Clones are the same directory.
#[derive(Debug, Clone)]
pub struct SimDisk(Arc<Mutex<State>>);

impl Default for SimDisk {
    fn default() -> Self {
        Self::new()
    }
}

fn power_is_off() -> io::Error {
    io::Error::other("the power is off")
}

fn apply(bytes: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Write { offset, data } => {
            let (start, end) = (*offset as usize, *offset as usize + data.len());
            if bytes.len() < end {
                bytes.resize(end, 0);
            }
            bytes[start..end].copy_from_slice(data);
        }
        Change::SetLen(len) => bytes.resize(*len as usize, 0),
    }
}

impl SimDisk {
    /// An empty directory.
    pub fn new() -> Self {
        Self(Arc::new(Mutex::new(State { free_bytes: 1 << 40, ..State::default() })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The power goes at the call numbered `call`, counted from 0 over everything that writes, syncs or renames.
    pub fn cut_at(&self, call: u64) {
        self.state().cut_at = Some(call);
    }

    /// How many such calls were made.
    pub fn calls(&self) -> u64 {
        self.state().calls
    }

    /// Bytes written and syncs made.
    pub fn traffic(&self) -> (u64, u64) {
        let state = self.state();
        (state.written, state.syncs)
    }

    /// True when the power is gone.
    pub fn is_off(&self) -> bool {
        let state = self.state();
        state.cut_at.is_some_and(|at| state.calls > at)
    }

    /// Sets the room that is left.
    pub fn leave_room(&self, bytes: u64) {
        self.state().free_bytes = bytes;
    }

    /// The directory as it is found when the power is back.
    #[must_use]
    pub fn after_power_cut(&self, keep: Keep, seed: u64) -> Self {
        let mut seed = Seed(seed);
        let state = self.state();
        let mut after = State { free_bytes: state.free_bytes, next_file: state.next_file, ..State::default() };
        // File systems journal their names, so what survives of them is always a prefix.
        let kept_namings = match keep {
            Keep::Nothing => 0,
            Keep::All => state.namings.len(),
            _ => seed.below(state.namings.len() as u64 + 1) as usize,
        };
        after.names = state.synced_names.clone();
        for naming in &state.namings[..kept_namings] {
            rename(&mut after.names, naming);
        }
        after.synced_names = after.names.clone();
        let mut ids: Vec<u64> = after.names.values().copied().collect();
        ids.sort_unstable();
        for id in ids {
            let content = &state.files[&id];
            let mut bytes = content.synced.clone();
            let prefix = seed.below(content.changes.len() as u64 + 1) as usize;
            for (i, change) in content.changes.iter().enumerate() {
                match keep {
                    Keep::Nothing => {}
                    Keep::All => apply(&mut bytes, change),
                    Keep::Prefix if i < prefix => apply(&mut bytes, change),
                    Keep::Prefix => {}
                    Keep::Subset if seed.one_in(2) => apply(&mut bytes, change),
                    Keep::Subset => {}
                    Keep::Sectors(size) => keep_sectors(&mut bytes, change, size, &mut seed),
                }
            }
            after.files.insert(id, Content { now: bytes.clone(), synced: bytes, changes: vec![] });
        }
        Self(Arc::new(Mutex::new(after)))
    }

    /// Changes bytes of a file behind the store's back.
    pub fn damage(&self, name: &str, offset: u64, change: impl FnOnce(&mut [u8])) {
        let mut state = self.state();
        let id = state.names[name];
        let content = state.files.get_mut(&id).expect("named files exist");
        change(&mut content.now[offset as usize..]);
        content.synced = content.now.clone();
        content.changes.clear();
    }

    /// What a file holds.
    pub fn read(&self, name: &str) -> Vec<u8> {
        let state = self.state();
        state.files[&state.names[name]].now.clone()
    }

    /// Counts a call that changes something; an error when the power is off.
    fn call(&self) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.state();
        let number = state.calls;
        state.calls += 1;
        if state.cut_at.is_some_and(|at| number >= at) { Err(power_is_off()) } else { Ok(state) }
    }

    /// The same, for a write: the one at which the power goes may still reach the disk in part.
    fn write(&self, id: u64, change: Change) -> io::Result<()> {
        let mut state = self.state();
        let number = state.calls;
        state.calls += 1;
        let cut = state.cut_at.map(|at| number.cmp(&at));
        if cut == Some(std::cmp::Ordering::Greater) {
            return Err(power_is_off());
        }
        if let Change::Write { data, .. } = &change {
            state.written += data.len() as u64;
        }
        let content = state.files.get_mut(&id).expect("open files exist");
        apply(&mut content.now, &change);
        content.changes.push(change);
        if cut.is_some_and(std::cmp::Ordering::is_eq) { Err(power_is_off()) } else { Ok(()) }
    }
}

fn rename(names: &mut BTreeMap<String, u64>, naming: &Naming) {
    match naming {
        Naming::Give(name, id) => {
            names.retain(|_, other| other != id);
            names.insert(name.clone(), *id);
        }
        Naming::Take(name) => {
            names.remove(name);
        }
    }
}

fn keep_sectors(bytes: &mut Vec<u8>, change: &Change, size: usize, seed: &mut Seed) {
    match change {
        Change::Write { offset, data } => {
            // Sectors lie at multiples of their size on the disk, not in the write.
            let mut at = 0;
            while at < data.len() {
                let here = *offset as usize + at;
                let len = (size - here % size).min(data.len() - at);
                if seed.one_in(2) {
                    apply(bytes, &Change::Write { offset: here as u64, data: data[at..at + len].to_vec() });
                }
                at += len;
            }
        }
        Change::SetLen(_) if seed.one_in(2) => apply(bytes, change),
        Change::SetLen(_) => {}
    }
}

impl Disk for SimDisk {
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        if let Some(&id) = self.state().names.get(name) {
            return Ok(Arc::new(SimFile { disk: self.clone(), id }));
        }
        let mut state = self.call()?;
        let id = state.next_file;
        state.next_file += 1;
        state.files.insert(id, Content::default());
        state.names.insert(name.to_owned(), id);
        state.namings.push(Naming::Give(name.to_owned(), id));
        Ok(Arc::new(SimFile { disk: self.clone(), id }))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.state().names.keys().cloned().collect())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.call()?;
        state.names.remove(name).ok_or(io::ErrorKind::NotFound)?;
        state.namings.push(Naming::Take(name.to_owned()));
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.call()?;
        let id = *state.names.get(from).ok_or(io::ErrorKind::NotFound)?;
        let naming = Naming::Give(to.to_owned(), id);
        rename(&mut state.names, &naming);
        state.namings.push(naming);
        Ok(())
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut state = self.call()?;
        state.syncs += 1;
        state.synced_names = state.names.clone();
        state.namings.clear();
        Ok(())
    }

    fn free_bytes(&self) -> io::Result<u64> {
        Ok(self.state().free_bytes)
    }
}

#[derive(Debug)]
struct SimFile {
    disk: SimDisk,
    id: u64,
}

impl DiskFile for SimFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.state().files[&self.id].now.len() as u64)
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.disk.state();
        let start = offset as usize;
        let bytes = state.files[&self.id].now.get(start..start + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(bytes);
        Ok(())
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.disk.write(self.id, Change::Write { offset, data: data.to_vec() })
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.disk.write(self.id, Change::SetLen(len))
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.disk.call()?;
        state.syncs += 1;
        let content = state.files.get_mut(&self.id).expect("open files exist");
        for change in std::mem::take(&mut content.changes) {
            apply(&mut content.synced, &change);
        }
        Ok(())
    }
}
