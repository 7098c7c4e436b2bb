//! Accounts: their names, what is stored of each, and the table all logins look at.

use super::Secret;
use core::borrow::Borrow;
use core::fmt;
use parlor_core::access::{is_account_name, is_group_name};
use parlor_core::is_address_of_account;
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use thiserror::Error;

/// Name of an account: `[a-z0-9][a-z0-9._-]{0,31}`, and not one that means something else in messaging.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AccountName(Box<str>);

/// A text is no account name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum AccountNameError {
    /// It is spelled otherwise.
    #[error("an account name is 1 to 32 of a-z, 0-9, '.', '_' and '-', and begins with a letter or digit")]
    Spelling,
    /// It means something else.
    #[error(
        "'anonymous', 'me' and 'pair' are no account names, and names that begin with 'g-', 'ch-' or 'r-' are those of groups, \
         channels and rooms: choose another name"
    )]
    Reserved,
}

impl AccountName {
    /// Reads a name.
    pub fn parse(text: &str) -> Result<Self, AccountNameError> {
        let name = Self::parse_stored(text)?;
        if name.is_reserved() { Err(AccountNameError::Reserved) } else { Ok(name) }
    }

    /// Reads the name of an account that exists already: one with a reserved name may come from an earlier version. It can
    /// be seen and removed, and nobody can log in as it.
    pub fn parse_stored(text: &str) -> Result<Self, AccountNameError> {
        if is_account_name(text) { Ok(Self(text.into())) } else { Err(AccountNameError::Spelling) }
    }

    /// Whether it means something else in messaging, so that it cannot be an account's any more.
    pub fn is_reserved(&self) -> bool {
        !is_address_of_account(&self.0)
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for AccountName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Borrow<str> for AccountName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// What SCRAM-SHA-256 keeps of a password (RFC 5802 s3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScramKeys {
    /// Rounds of PBKDF2, at least 4,096.
    pub iterations: u32,
    /// Salt, 1 to 255 bytes.
    pub salt: Vec<u8>,
    /// `H(ClientKey)`.
    pub stored_key: Secret<[u8; 32]>,
    /// `HMAC(SaltedPassword, "Server Key")`.
    pub server_key: Secret<[u8; 32]>,
}

/// What is stored of an account.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AccountRecord {
    /// Argon2id hash of the password as a PHC string; without it no password fits.
    pub password_hash: Option<Secret<String>>,
    /// Keys for SCRAM-SHA-256; without them it is refused.
    pub scram: Option<ScramKeys>,
    /// Groups it is in, for the rules.
    pub groups: Vec<String>,
    /// True while it must not log in, whatever it presents.
    pub disabled: bool,
    /// When it was made, milliseconds since 1970.
    pub created_ms: u64,
    /// Connect tokens carry it: those issued when it was another number are not accepted any more.
    pub token_epoch: u64,
}

/// A stored account record cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum RecordError {
    /// It was written by a later version.
    #[error(
        "account record of version {0}, which this program does not know: run the version that wrote it, or a later one"
    )]
    Version(u8),
    /// Its bytes are damaged.
    #[error("damaged account record: restore a backup, or remove the account and add it again")]
    Damaged,
}

const VERSION: u8 = 2;
/// Of the records without a token epoch.
const VERSION_WITHOUT_EPOCH: u8 = 1;
const DISABLED: u8 = 1;
const HAS_PASSWORD: u8 = 2;
const HAS_SCRAM: u8 = 4;

impl AccountRecord {
    /// Bytes for the store: version 2, flags, `created_ms`, `token_epoch`, then PHC string (length 2 bytes), SCRAM keys (iterations 4
    /// bytes, salt with length 1 byte, two keys of 32 bytes) and groups (count 2 bytes, each with length 1 byte); big
    /// endian, absent parts left out. Groups beyond 65,535, or that are no group names, are left out too.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION, u8::from(self.disabled) * DISABLED];
        out.extend(self.created_ms.to_be_bytes());
        out.extend(self.token_epoch.to_be_bytes());
        if let Some(hash) = &self.password_hash
            && let Ok(len) = u16::try_from(hash.reveal().len())
        {
            out[1] |= HAS_PASSWORD;
            out.extend(len.to_be_bytes());
            out.extend(hash.reveal().as_bytes());
        }
        if let Some(scram) = &self.scram
            && let Ok(len) = u8::try_from(scram.salt.len())
        {
            out[1] |= HAS_SCRAM;
            out.extend(scram.iterations.to_be_bytes());
            out.push(len);
            out.extend(&scram.salt);
            out.extend(scram.stored_key.reveal());
            out.extend(scram.server_key.reveal());
        }
        let groups = || self.groups.iter().filter(|g| is_group_name(g)).take(usize::from(u16::MAX));
        out.extend(u16::try_from(groups().count()).unwrap_or(u16::MAX).to_be_bytes());
        for group in groups() {
            out.push(u8::try_from(group.len()).unwrap_or(u8::MAX));
            out.extend(group.as_bytes());
        }
        out
    }

    /// Reads what [`AccountRecord::encode`] wrote, or wrote in version 1, which had no `token_epoch`.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        match bytes.split_first() {
            Some((version @ &(VERSION | VERSION_WITHOUT_EPOCH), rest)) => {
                Self::decode_rest(*version, rest).ok_or(RecordError::Damaged)
            }
            Some((&version, _)) => Err(RecordError::Version(version)),
            None => Err(RecordError::Damaged),
        }
    }

    fn decode_rest(version: u8, mut rest: &[u8]) -> Option<Self> {
        let [flags] = take(&mut rest)?;
        if flags & !(DISABLED | HAS_PASSWORD | HAS_SCRAM) != 0 {
            return None;
        }
        let mut record = Self {
            disabled: flags & DISABLED != 0,
            created_ms: u64::from_be_bytes(take(&mut rest)?),
            ..Self::default()
        };
        // An account that is made again later must not take the tokens of this one: its moment differs.
        record.token_epoch = record.created_ms;
        if version != VERSION_WITHOUT_EPOCH {
            record.token_epoch = u64::from_be_bytes(take(&mut rest)?);
        }
        if flags & HAS_PASSWORD != 0 {
            let len = u16::from_be_bytes(take(&mut rest)?);
            record.password_hash = Some(Secret::new(text(&mut rest, len.into())?));
        }
        if flags & HAS_SCRAM != 0 {
            let iterations = u32::from_be_bytes(take(&mut rest)?);
            let [len] = take(&mut rest)?;
            let salt;
            (salt, rest) = rest.split_at_checked(len.into())?;
            record.scram = Some(ScramKeys {
                iterations,
                salt: salt.to_vec(),
                stored_key: Secret::new(take(&mut rest)?),
                server_key: Secret::new(take(&mut rest)?),
            });
        }
        let count = u16::from_be_bytes(take(&mut rest)?);
        for _ in 0..count {
            let [len] = take(&mut rest)?;
            record.groups.push(text(&mut rest, len.into())?);
        }
        rest.is_empty().then_some(record)
    }
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (front, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*front)
}

fn text(bytes: &mut &[u8], len: usize) -> Option<String> {
    let (front, rest) = bytes.split_at_checked(len)?;
    *bytes = rest;
    core::str::from_utf8(front).ok().map(str::to_owned)
}

/// The accounts, shared by every thread that looks at them. Its size is that of the table in the store.
///
/// It says what is committed: feed it from the snapshot at start, and after the commit of each change.
#[derive(Debug, Default)]
pub struct Accounts {
    table: RwLock<BTreeMap<AccountName, Arc<AccountRecord>>>,
}

/// The stored accounts cannot be loaded.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LoadError {
    /// A stored name is none.
    #[error("stored account {name:?}: {source}")]
    Name {
        /// As stored.
        name: String,
        /// What is wrong with it.
        source: AccountNameError,
    },
    /// A record cannot be read.
    #[error("stored account {name:?}: {source}")]
    Record {
        /// Whose.
        name: String,
        /// What is wrong with it.
        source: RecordError,
    },
}

impl Accounts {
    /// The accounts of a snapshot: name and record.
    pub fn load(stored: &[(String, Vec<u8>)]) -> Result<Self, LoadError> {
        let accounts = Self::default();
        for (name, record) in stored {
            let parsed =
                AccountName::parse_stored(name).map_err(|source| LoadError::Name { name: name.clone(), source })?;
            let record =
                AccountRecord::decode(record).map_err(|source| LoadError::Record { name: name.clone(), source })?;
            accounts.insert(parsed, record);
        }
        Ok(accounts)
    }

    /// Sets an account; returns what it replaces.
    pub fn insert(&self, name: AccountName, record: AccountRecord) -> Option<Arc<AccountRecord>> {
        self.table.write().unwrap_or_else(PoisonError::into_inner).insert(name, Arc::new(record))
    }

    /// Removes an account; returns what it was.
    pub fn remove(&self, name: &str) -> Option<Arc<AccountRecord>> {
        self.table.write().unwrap_or_else(PoisonError::into_inner).remove(name)
    }

    /// The account called `name`.
    pub fn get(&self, name: &str) -> Option<Arc<AccountRecord>> {
        self.table.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// All accounts, ascending by name.
    pub fn list(&self) -> Vec<(AccountName, Arc<AccountRecord>)> {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        table.iter().map(|(name, record)| (name.clone(), Arc::clone(record))).collect()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.table.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// True when there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full() -> AccountRecord {
        AccountRecord {
            password_hash: Some(Secret::new("$argon2id$x".into())),
            scram: Some(ScramKeys {
                iterations: 4096,
                salt: vec![1; 16],
                stored_key: Secret::new([2; 32]),
                server_key: Secret::new([3; 32]),
            }),
            groups: vec!["staff".into(), "Büro".into()],
            disabled: true,
            created_ms: 1 << 41,
            token_epoch: 7,
        }
    }

    #[test]
    fn names_are_spelled_one_way() {
        for good in ["a", "0", "a.b_c-d", "a234567890123456789012345678901z"] {
            assert_eq!(AccountName::parse(good).unwrap().as_str(), good);
        }
        for bad in ["", "A", ".a", "-", "_x", "a b", "a/b", "a+", "ä", "a\0", "a2345678901234567890123456789012z"] {
            assert_eq!(AccountName::parse(bad), Err(AccountNameError::Spelling), "{bad:?}");
        }
        for reserved in ["anonymous", "me", "pair", "g-home", "ch-news", "r-live", "g-"] {
            assert_eq!(AccountName::parse(reserved), Err(AccountNameError::Reserved), "{reserved}");
            assert_eq!(AccountName::parse_stored(reserved).unwrap().as_str(), reserved);
        }
        for good in ["g", "ch", "r", "mel", "pair2", "gg-", "radio"] {
            assert!(AccountName::parse(good).is_ok(), "{good}");
        }
    }

    #[test]
    fn records_read_back_and_every_damage_is_seen() {
        let some = AccountRecord { scram: None, disabled: false, ..full() };
        for record in [full(), some, AccountRecord::default()] {
            let bytes = record.encode();
            assert_eq!(AccountRecord::decode(&bytes), Ok(record));
            for cut in 0..bytes.len() {
                assert_eq!(AccountRecord::decode(&bytes[..cut]), Err(RecordError::Damaged), "cut at {cut}");
            }
            let more = [&bytes[..], &[0]].concat();
            assert_eq!(AccountRecord::decode(&more), Err(RecordError::Damaged));
        }
        let mut bytes = full().encode();
        bytes[1] |= 0x80;
        assert_eq!(AccountRecord::decode(&bytes), Err(RecordError::Damaged));
        bytes[0] = 3;
        assert_eq!(AccountRecord::decode(&bytes), Err(RecordError::Version(3)));
    }

    #[test]
    fn records_of_version_1_are_read() {
        let mut bytes = full().encode();
        bytes[0] = 1;
        bytes.drain(10..18);
        assert_eq!(AccountRecord::decode(&bytes), Ok(AccountRecord { token_epoch: 1 << 41, ..full() }));
        for cut in 0..bytes.len() {
            assert_eq!(AccountRecord::decode(&bytes[..cut]), Err(RecordError::Damaged), "cut at {cut}");
        }
    }

    #[test]
    fn debug_texts_keep_secrets() {
        let text = format!("{:?}", full());
        assert!(text.contains("[secret]") && !text.contains("argon2id") && !text.contains("2, 2"), "{text}");
    }

    #[test]
    fn the_table_follows_changes() {
        let stored = [("bob".to_owned(), full().encode()), ("alice".to_owned(), AccountRecord::default().encode())];
        let accounts = Accounts::load(&stored).unwrap();
        assert_eq!(accounts.list().iter().map(|(n, _)| n.as_str()).collect::<Vec<_>>(), ["alice", "bob"]);
        assert!(accounts.get("bob").unwrap().disabled);
        assert!(accounts.insert(AccountName::parse("bob").unwrap(), AccountRecord::default()).unwrap().disabled);
        assert!(!accounts.get("bob").unwrap().disabled);
        assert!(accounts.remove("bob").is_some() && accounts.remove("bob").is_none());
        assert_eq!((accounts.len(), accounts.is_empty()), (1, false));
        assert!(matches!(Accounts::load(&[("X".into(), vec![])]), Err(LoadError::Name { .. })));
        assert!(matches!(Accounts::load(&[("x".into(), vec![])]), Err(LoadError::Record { .. })));
    }
}
