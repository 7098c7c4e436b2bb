//! Passwords: what is accepted as one, how it is hashed, and how a verified one is remembered.

use super::account::{AccountRecord, ScramKeys};
use super::{Secret, scram};
use argon2::password_hash::PasswordVerifier;
use argon2::password_hash::phc::PasswordHash;
use argon2::{Algorithm, Argon2, Params, Version};
use base64ct::{Base64Unpadded, Base64UrlUnpadded, Encoding};
use core::num::NonZeroU32;
use parlor_core::access::is_group_name;
use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use thiserror::Error;

/// Shortest password, characters.
pub const PASSWORD_CHARS_MIN: usize = 8;
/// Longest password, bytes.
pub const PASSWORD_BYTES_MAX: usize = 1_024;
/// Most groups one account may be in.
pub const GROUPS_MAX: usize = 64;
/// Fewest rounds of PBKDF2 for SCRAM (RFC 7677 s4).
pub const SCRAM_ITERATIONS_MIN: u32 = 4_096;

const SALT_BYTES: usize = 16;
const HASH_BYTES: usize = 32;

/// What hashing a new password costs, the server and whoever guesses.
///
/// The defaults follow the OWASP recommendation for argon2id: some tens of milliseconds and 19 MiB for the moment of a
/// check. `scram_iterations` is paid by clients at each login, small devices included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PasswordParams {
    /// Memory of argon2id, KiB, at least 8 for each lane.
    pub memory_kib: u32,
    /// Passes of argon2id over that memory, at least 1.
    pub passes: u32,
    /// Lanes of argon2id, at least 1.
    pub lanes: u32,
    /// Rounds of PBKDF2 for SCRAM-SHA-256, at least 4,096.
    pub scram_iterations: u32,
}

impl Default for PasswordParams {
    fn default() -> Self {
        Self { memory_kib: 19_456, passes: 2, lanes: 1, scram_iterations: 8_192 }
    }
}

/// An account could not be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum PasswordError {
    /// Too few characters.
    #[error("the password is too short: choose at least 8 characters")]
    TooShort,
    /// Too many bytes.
    #[error("the password is too long: choose at most 1024 bytes")]
    TooLong,
    /// It contains a control character.
    #[error("the password contains a control character, such as a line end: remove it")]
    ControlCharacter,
    /// A group name is none.
    #[error("a group name is 1 to 64 bytes without white space, control characters or commas")]
    GroupName,
    /// Too many groups.
    #[error("an account can be in at most 64 groups: use fewer, larger groups")]
    TooManyGroups,
    /// The costs are outside what the algorithms take.
    #[error("password costs out of range: use at least 8 KiB a lane, 1 pass, 1 lane and 4096 SCRAM iterations")]
    Params,
    /// The system gave no random bytes.
    #[error("the operating system gave no random bytes: try again")]
    Random,
}

/// Whether `password` is accepted for an account.
pub fn check_password(password: &str) -> Result<(), PasswordError> {
    if password.len() > PASSWORD_BYTES_MAX {
        return Err(PasswordError::TooLong);
    }
    if password.chars().count() < PASSWORD_CHARS_MIN {
        return Err(PasswordError::TooShort);
    }
    if password.chars().any(char::is_control) {
        return Err(PasswordError::ControlCharacter);
    }
    Ok(())
}

/// The record of a new account. Takes as long as a password check: not for the thread that serves clients.
///
/// SCRAM hashes the password's UTF-8 as it is. For ASCII this is what RFC 5802 asks; of other letters, those that
/// Unicode normalisation (NFKC) would change make SCRAM logins fail at clients that normalise.
pub fn make_record(
    password: &str,
    groups: &[String],
    params: &PasswordParams,
    now_ms: u64,
) -> Result<AccountRecord, PasswordError> {
    if groups.len() > GROUPS_MAX {
        return Err(PasswordError::TooManyGroups);
    }
    if !groups.iter().all(|g| is_group_name(g)) {
        return Err(PasswordError::GroupName);
    }
    let mut record = AccountRecord { groups: groups.to_vec(), created_ms: now_ms, ..AccountRecord::default() };
    set_password(&mut record, password, params)?;
    Ok(record)
}

/// Replaces the password of an account, and with it the tokens issued before. Takes as long as [`make_record`].
pub fn set_password(record: &mut AccountRecord, password: &str, params: &PasswordParams) -> Result<(), PasswordError> {
    check_password(password)?;
    let random = SystemRandom::new();
    let mut salts = [[0; SALT_BYTES]; 2];
    for salt in &mut salts {
        random.fill(salt).map_err(|_| PasswordError::Random)?;
    }
    let [salt, scram_salt] = salts;
    let (phc, scram) = (hash(password.as_bytes(), &salt, params)?, scram_keys(password, &scram_salt, params)?);
    record.password_hash = Some(Secret::new(phc));
    record.scram = Some(scram);
    revoke_tokens(record)
}

/// No connect token that was issued before is accepted any more.
pub fn revoke_tokens(record: &mut AccountRecord) -> Result<(), PasswordError> {
    let mut epoch = [0; 8];
    SystemRandom::new().fill(&mut epoch).map_err(|_| PasswordError::Random)?;
    record.token_epoch = u64::from_be_bytes(epoch);
    Ok(())
}

/// A password for a device, which nobody has to remember: 192 random bits.
pub fn random_password() -> Result<Secret<String>, PasswordError> {
    let mut bytes = [0; 24];
    SystemRandom::new().fill(&mut bytes).map_err(|_| PasswordError::Random)?;
    Ok(Secret::new(Base64UrlUnpadded::encode_string(&bytes)))
}

fn hash(password: &[u8], salt: &[u8], params: &PasswordParams) -> Result<String, PasswordError> {
    let costs = Params::new(params.memory_kib, params.passes, params.lanes, Some(HASH_BYTES))
        .map_err(|_| PasswordError::Params)?;
    let mut out = [0; HASH_BYTES];
    Argon2::new(Algorithm::Argon2id, Version::V0x13, costs)
        .hash_password_into(password, salt, &mut out)
        .map_err(|_| PasswordError::Params)?;
    Ok(phc_string(salt, &out, params))
}

fn phc_string(salt: &[u8], hash: &[u8], params: &PasswordParams) -> String {
    let PasswordParams { memory_kib, passes, lanes, .. } = params;
    let (salt, hash) = (Base64Unpadded::encode_string(salt), Base64Unpadded::encode_string(hash));
    format!("$argon2id$v=19$m={memory_kib},t={passes},p={lanes}${salt}${hash}")
}

fn scram_keys(password: &str, salt: &[u8], params: &PasswordParams) -> Result<ScramKeys, PasswordError> {
    if params.scram_iterations < SCRAM_ITERATIONS_MIN {
        return Err(PasswordError::Params);
    }
    let iterations = NonZeroU32::new(params.scram_iterations).ok_or(PasswordError::Params)?;
    Ok(scram::derive_keys(password.as_bytes(), salt, iterations))
}

/// A hash no password fits, which costs as much to check as one made with `params`.
pub(super) fn unfitting_hash(random: &[u8; SALT_BYTES + HASH_BYTES], params: &PasswordParams) -> String {
    let (salt, hash) = random.split_at(SALT_BYTES);
    phc_string(salt, hash, params)
}

/// Whether `password` fits the PHC string; the hashes are compared in constant time. A string that cannot be read
/// fits nothing.
pub(super) fn fits(password: &[u8], phc: &str) -> bool {
    PasswordHash::new(phc).is_ok_and(|hash| Argon2::default().verify_password(password, &hash).is_ok())
}

/// Remembers which password was verified for an account, so that a wave of reconnections costs no argon2.
///
/// What is kept is an HMAC under a key that lives as long as the process, over name, stored hash and password: another
/// password, or a changed record, no longer fits. Who can read the memory of the process can try passwords at the speed
/// of HMAC, and could listen to the next login anyway. At most
/// twice `CACHE_MAX` accounts are kept, in two generations; the older one is dropped as a whole.
pub(super) struct VerifiedCache {
    key: hmac::Key,
    tags: Mutex<Generations>,
}

#[derive(Default)]
struct Generations {
    young: HashMap<Box<str>, hmac::Tag>,
    old: HashMap<Box<str>, hmac::Tag>,
}

/// Accounts in one generation, about 120 bytes each.
const CACHE_MAX: usize = 50_000;

impl VerifiedCache {
    pub(super) fn new(key: &[u8; 32]) -> Self {
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, key), tags: Mutex::default() }
    }

    fn tag(&self, name: &str, phc: &str, password: &[u8]) -> hmac::Tag {
        let mut context = hmac::Context::with_key(&self.key);
        // The separators occur in neither a name nor a hash, so no two triples make the same bytes.
        for part in [name.as_bytes(), &[0], phc.as_bytes(), &[0], password] {
            context.update(part);
        }
        context.sign()
    }

    pub(super) fn knows(&self, name: &str, phc: &str, password: &[u8]) -> bool {
        let tag = self.tag(name, phc, password);
        let mut tags = self.tags.lock().unwrap_or_else(PoisonError::into_inner);
        if tags.young.get(name).is_some_and(|known| known.as_ref() == tag.as_ref()) {
            return true;
        }
        // Tags are not secrets of the client and depend on a key nobody outside knows: comparing them needs no care.
        let is_known = tags.old.get(name).is_some_and(|known| known.as_ref() == tag.as_ref());
        if is_known {
            tags.add(name, tag);
        }
        is_known
    }

    pub(super) fn remember(&self, name: &str, phc: &str, password: &[u8]) {
        let tag = self.tag(name, phc, password);
        self.tags.lock().unwrap_or_else(PoisonError::into_inner).add(name, tag);
    }
}

impl Generations {
    fn add(&mut self, name: &str, tag: hmac::Tag) {
        if self.young.len() >= CACHE_MAX && !self.young.contains_key(name) {
            self.old = core::mem::take(&mut self.young);
        }
        self.young.insert(name.into(), tag);
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// The least the algorithms take, so that tests are fast.
    pub(in super::super) const CHEAP: PasswordParams =
        PasswordParams { memory_kib: 8, passes: 1, lanes: 1, scram_iterations: SCRAM_ITERATIONS_MIN };

    #[test]
    fn only_the_password_fits_its_hash() {
        let record = make_record("correct horse", &["staff".into()], &CHEAP, 7).unwrap();
        let phc = record.password_hash.as_ref().unwrap().reveal();
        assert!(phc.starts_with("$argon2id$v=19$m=8,t=1,p=1$"), "{phc}");
        assert!(fits(b"correct horse", phc));
        for wrong in [&b"correct hors"[..], b"", b"correct horse\0", b"Correct horse"] {
            assert!(!fits(wrong, phc));
        }
        assert_eq!((record.created_ms, record.disabled), (7, false));
        assert_eq!(record.groups, ["staff"]);
        assert!(!fits(b"x", "no hash") && !fits(b"x", ""));
        let again = make_record("correct horse", &[], &CHEAP, 7).unwrap();
        assert_ne!(again.password_hash, record.password_hash, "salts differ");
        assert_ne!(again.scram, record.scram);
    }

    #[test]
    fn a_new_password_ends_the_tokens_issued_before() {
        let mut record = make_record("correct horse", &[], &CHEAP, 7).unwrap();
        let before = record.token_epoch;
        set_password(&mut record, "battery staple", &CHEAP).unwrap();
        assert_ne!(record.token_epoch, before);
        let (before, hash) = (record.token_epoch, record.password_hash.clone());
        revoke_tokens(&mut record).unwrap();
        assert!(record.token_epoch != before && record.password_hash == hash);
    }

    #[test]
    fn random_passwords_are_passwords_and_differ() {
        let (one, other) = (random_password().unwrap(), random_password().unwrap());
        assert_eq!((one.reveal().len(), check_password(one.reveal())), (32, Ok(())));
        assert!(one != other);
    }

    #[test]
    fn hashes_of_other_programs_are_read() {
        // A test vector of the reference implementation: "password", "somesalt", 2 passes over 256 KiB.
        let phc = "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4";
        assert!(fits(b"password", phc));
        assert!(!fits(b"passwore", phc));
    }

    #[test]
    fn an_unfitting_hash_fits_nothing_and_is_a_hash() {
        let phc = unfitting_hash(&[9; 48], &CHEAP);
        assert!(PasswordHash::new(&phc).is_ok());
        assert!(!fits(b"anything", &phc) && !fits(b"", &phc));
    }

    #[test]
    fn the_policy_says_what_is_wrong() {
        let check = |password: &str, expect| assert_eq!(check_password(password), expect, "{password:?}");
        check("12345678", Ok(()));
        check("1234567", Err(PasswordError::TooShort));
        check("äöüäöüä", Err(PasswordError::TooShort));
        check("12345678\n", Err(PasswordError::ControlCharacter));
        check(&"x".repeat(1024), Ok(()));
        check(&"x".repeat(1025), Err(PasswordError::TooLong));
        let make = |groups: &[String], params: &PasswordParams| make_record("12345678", groups, params, 0).unwrap_err();
        assert_eq!(make(&["a b".into()], &CHEAP), PasswordError::GroupName);
        assert_eq!(make(&vec!["g".into(); 65], &CHEAP), PasswordError::TooManyGroups);
        assert_eq!(make(&[], &PasswordParams { memory_kib: 1, ..CHEAP }), PasswordError::Params);
        assert_eq!(make(&[], &PasswordParams { scram_iterations: 4095, ..CHEAP }), PasswordError::Params);
    }

    #[test]
    fn a_verified_password_is_known_until_the_record_changes() {
        let cache = VerifiedCache::new(&[1; 32]);
        cache.remember("alice", "hash 1", b"password");
        assert!(cache.knows("alice", "hash 1", b"password"));
        assert!(!cache.knows("alice", "hash 1", b"passwore"));
        assert!(!cache.knows("alice", "hash 2", b"password"));
        assert!(!cache.knows("alic", "ehash 1", b"password"));
        assert!(!cache.knows("bob", "hash 1", b"password"));
        cache.remember("alice", "hash 2", b"password");
        assert!(!cache.knows("alice", "hash 1", b"password"));
    }

    #[test]
    fn the_cache_is_bounded_and_keeps_what_is_used() {
        let cache = VerifiedCache::new(&[1; 32]);
        cache.remember("alice", "h", b"p");
        cache.remember("bob", "h", b"p");
        for round in 0..3 {
            assert!(cache.knows("alice", "h", b"p"), "round {round}");
            let mut tags = cache.tags.lock().unwrap();
            let tag = cache.tag("x", "h", b"p");
            for n in 0..CACHE_MAX {
                tags.add(&format!("{round}-{n}"), tag);
            }
            assert!(tags.young.len() <= CACHE_MAX && tags.old.len() <= CACHE_MAX);
        }
        assert!(!cache.knows("bob", "h", b"p"));
    }
}
