//! The terminal's name, kept from run to run. The broker remembers for each terminal what it has been sent; one that comes
//! back under its old name goes on where it left off.

use super::options::{Options, directory};
use ring::rand::{SecureRandom, SystemRandom};
use std::fs::{File, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// What a terminal is used for: programs that run at the same time need places of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// `parlor chat`.
    Chat,
    /// `parlor watch`.
    Watch,
    /// `parlor send` and `parlor cmd`.
    Once,
    /// `parlor simulate`.
    Device,
}

/// A terminal's name, held by this program alone.
#[derive(Debug)]
pub(super) struct Place {
    /// MQTT client identifier.
    pub client_id: String,
    /// Holds the lock.
    _file: Option<File>,
}

/// No name could be had.
#[derive(Debug, thiserror::Error)]
pub(in crate::cli) enum PlaceError {
    #[error(
        "{PLACES_MAX} other programs of yours use this account at the moment; end one, or name a terminal with --terminal"
    )]
    AllTaken,
    #[error("cannot keep the terminal's name in {}: {error}; name it with --terminal", .path.display())]
    File { path: PathBuf, error: io::Error },
}

/// Programs for the same purpose at the same time. An account has 16 terminals, and people have telephones.
const PLACES_MAX: u32 = 4;
/// How long to wait for another program to end.
const PATIENCE: Duration = Duration::from_secs(10);

impl Place {
    /// The name given with `--terminal`, or one that is kept in the state directory.
    pub fn take(options: &Options, purpose: Purpose) -> Result<Self, PlaceError> {
        match &options.terminal {
            Some(name) => Ok(Self { client_id: name.clone(), _file: None }),
            None => Self::take_in(&directory("XDG_STATE_HOME", ".local/state"), options, purpose),
        }
    }

    fn take_in(state: &Path, options: &Options, purpose: Purpose) -> Result<Self, PlaceError> {
        // Whichever road one takes, it is the same terminal.
        let broker = options.target.bare_host().replace(':', ".");
        let user: String = options.user.chars().map(|c| if c == '/' { '_' } else { c }).collect();
        let directory = state.join("parlor/terminals").join(broker).join(user);
        std::fs::create_dir_all(&directory).map_err(|error| PlaceError::File { path: directory.clone(), error })?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            for number in 1..=PLACES_MAX {
                let path = directory.join(format!("{}-{number}", purpose.word()));
                match hold(&path, purpose) {
                    Ok(Some(place)) => return Ok(place),
                    Ok(None) => {}
                    Err(error) => return Err(PlaceError::File { path, error }),
                }
            }
            if Instant::now() >= deadline {
                return Err(PlaceError::AllTaken);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Purpose {
    fn word(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Watch => "watch",
            Self::Once => "once",
            Self::Device => "device",
        }
    }
}

/// Locks the file and reads the name in it, or makes one up; `None`: another program has it.
fn hold(path: &Path, purpose: Purpose) -> io::Result<Option<Place>> {
    let mut file = File::options().read(true).write(true).create(true).truncate(false).open(path)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(None),
        Err(TryLockError::Error(error)) => return Err(error),
    }
    let mut name = String::new();
    Read::by_ref(&mut file).take(128).read_to_string(&mut name)?;
    let name = name.trim();
    if !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') {
        return Ok(Some(Place { client_id: name.to_owned(), _file: Some(file) }));
    }
    let name = format!("parlor-{}-{:08x}", purpose.word(), random() & 0xFFFF_FFFF);
    file.rewind()?;
    file.set_len(0)?;
    file.write_all(format!("{name}\n").as_bytes())?;
    Ok(Some(Place { client_id: name, _file: Some(file) }))
}

/// A number nobody can guess.
pub(super) fn random() -> u64 {
    let mut bytes = [0; 8];
    // Without randomness from the system, time and process still tell two runs apart.
    if SystemRandom::new().fill(&mut bytes).is_err() {
        return super::now_ms() ^ (u64::from(std::process::id()) << 40);
    }
    u64::from_le_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use parlor_client::{Secret, Target};

    #[test]
    fn a_name_stays_and_is_held_by_one() {
        let state = std::env::temp_dir().join(format!("parlor-place-{}", std::process::id()));
        let options = |user: &str| Options {
            target: Target::parse("mqtt://[::1]").unwrap().0,
            user: user.into(),
            password: Secret(String::new()),
            ca: None,
            terminal: None,
        };
        let take = |user: &str, purpose| Place::take_in(&state, &options(user), purpose).unwrap();
        let first = take("alice", Purpose::Chat);
        let second = take("alice", Purpose::Chat);
        let other = take("bob", Purpose::Chat);
        let watch = take("alice", Purpose::Watch);
        let names = [&first, &second, &other, &watch].map(|place| place.client_id.clone());
        assert!(names.iter().collect::<std::collections::BTreeSet<_>>().len() == 4, "{names:?}");
        drop(first);
        assert_eq!(take("alice", Purpose::Chat).client_id, names[0]);
        let named = Options { terminal: Some("kitchen".into()), ..options("alice") };
        assert_eq!(Place::take(&named, Purpose::Chat).unwrap().client_id, "kitchen");
        std::fs::remove_dir_all(&state).unwrap();
    }
}
