//! Who a client is: passwords, tokens, client certificates and SCRAM, with guessing slowed down.
//!
//! The sources are asked in this order, and the first that is presented decides; credentials that turn out wrong are
//! refused, never ignored in favour of lesser ones:
//! 1. an Authentication Method: SCRAM-SHA-256, for the account of the client certificate if there is one;
//! 2. a client certificate the TLS layer has verified (a user name beside it must be the same account);
//! 3. a password that is a JSON Web Token: a connect token of this installation, or any other where keys for tokens are
//!    configured;
//! 4. user name and password;
//! 5. nothing at all: the account `anonymous`, where the listener allows it.
//!
//! What the client is told does not depend on which part was wrong, nor on whether the account exists; a check of an
//! unknown account takes as long as one of a known account, and its SCRAM salt is the same each time.

mod account;
mod certificate;
mod configured;
mod connect_token;
mod der;
mod jwt;
mod password;
mod refusal;
mod scram;
mod secret;
mod slowdown;

pub use account::{AccountName, AccountNameError, AccountRecord, Accounts, LoadError, RecordError, ScramKeys};
pub use certificate::{CertificateError, certificate_account};
pub use configured::{KeyReadError, OpenError};
pub use connect_token::{IssueError, IssuedToken, TOKEN_TTL_MAX_SECS, TOKEN_TTL_SECS, TokenWish};
pub use jwt::{JwtConfig, JwtKey, KeyFileError};
pub use password::{
    GROUPS_MAX, PASSWORD_BYTES_MAX, PASSWORD_CHARS_MIN, PasswordError, PasswordParams, SCRAM_ITERATIONS_MIN,
    check_password, make_record, random_password, revoke_tokens, set_password,
};
pub use scram::METHOD as SCRAM_METHOD;
pub use secret::Secret;
pub use slowdown::SlowdownRules;

use connect_token::ConnectTokens;
use jwt::TokenError;
use parlor_core::access::ANONYMOUS;
use parlor_core::auth::{AuthAnswer, AuthRequest, AuthStep};
use password::VerifiedCache;
use refusal::Refusal;
use ring::rand::{SecureRandom, SystemRandom};
use slowdown::Slowdown;
use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use thiserror::Error;

/// SCRAM exchanges between their first and last message at the same time, about 600 bytes each. One more is refused
/// with 0x89 Server busy.
const EXCHANGES_MAX: usize = 16_384;

/// Pairing codes are counted as passwords of this name would be, which no account can have.
const PAIRING: &str = "pair";

/// What to do with a verified name that is no account of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnknownAccounts {
    /// Let it in: who issued the token or certificate has decided.
    Accept,
    /// Refuse it.
    Refuse,
}

/// Who has signed a token.
#[derive(Clone, Copy, PartialEq, Eq)]
enum TokenKind {
    /// This installation: the token epoch of the account counts.
    Connect,
    /// Whoever has the keys that are configured.
    Configured,
}

/// How clients are authenticated.
#[derive(Debug, Clone)]
pub struct AuthConfig {
    /// Tokens as passwords; `None`: a token is a password like any other.
    pub jwt: Option<JwtConfig>,
    /// Whether the name in a client certificate must be an account of the store.
    pub certificates: UnknownAccounts,
    /// What new passwords cost, and what checking an unknown account costs.
    pub passwords: PasswordParams,
    /// How guessing is slowed down.
    pub slowdown: SlowdownRules,
    /// Makes the SCRAM salts of unknown accounts; must outlive restarts ([`salt_secret`]), as true salts do.
    pub salt_secret: Secret<[u8; 32]>,
}

impl AuthConfig {
    /// Passwords and SCRAM, certificates of accounts in the store, no tokens.
    pub fn new(salt_secret: Secret<[u8; 32]>) -> Self {
        Self {
            jwt: None,
            certificates: UnknownAccounts::Refuse,
            passwords: PasswordParams::default(),
            slowdown: SlowdownRules::default(),
            salt_secret,
        }
    }
}

/// The authenticator could not be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SetupError {
    /// No random bytes.
    #[error("the operating system gave no random bytes: start again, and look at its log if this lasts")]
    Random,
}

/// The secret of this installation behind [`AuthConfig::salt_secret`]: 32 bytes in the file at `path`, which is made,
/// readable by its owner only, when it is absent or not of that length.
pub fn salt_secret(path: &Path) -> std::io::Result<Secret<[u8; 32]>> {
    read_secret(path)?.map_or_else(|| make_secret(path), Ok)
}

/// The 32 bytes in the file at `path`; `None` when it is absent or not of that length.
fn read_secret(path: &Path) -> std::io::Result<Option<Secret<[u8; 32]>>> {
    let mut bytes = Vec::new();
    match std::fs::File::open(path) {
        Ok(file) => {
            file.take(33).read_to_end(&mut bytes)?;
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    Ok(<[u8; 32]>::try_from(bytes).ok().map(Secret::new))
}

/// Writes 32 random bytes to the file at `path`, readable by its owner only.
fn make_secret(path: &Path) -> std::io::Result<Secret<[u8; 32]>> {
    let mut secret = [0; 32];
    SystemRandom::new().fill(&mut secret).map_err(|_| std::io::Error::other(SetupError::Random))?;
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(&secret)?;
    file.sync_all()?;
    Ok(Secret::new(secret))
}

/// Answers who clients are. Shared by the threads of a small pool.
///
/// Each answer checks, verifies and counts in one call, so at most as many guesses as the pool has threads can pass a
/// wait that begins at the same moment.
pub struct Authenticator {
    accounts: Arc<Accounts>,
    settings: RwLock<Arc<Settings>>,
    verified: VerifiedCache,
    slowdown: Mutex<Slowdown>,
    exchanges: Mutex<HashMap<u64, Pending>>,
    tokens: ConnectTokens,
    random: SystemRandom,
    /// Part of the hash no password fits.
    filler: [u8; 48],
}

struct Settings {
    config: AuthConfig,
    /// Checked instead of the hash an account lacks.
    unfitting_hash: String,
}

/// A SCRAM exchange that waits for the client's final message (or, with `begun` unset, for its first).
struct Pending {
    step: AuthStep,
    /// The account it must be, if that is settled.
    expected: Option<String>,
    begun: Option<Begun>,
}

struct Begun {
    name: String,
    exchange: scram::Exchange,
    /// False when the keys are made up.
    is_known: bool,
}

impl Authenticator {
    /// An authenticator over `accounts`, that has nowhere to keep a key for connect tokens.
    pub fn new(accounts: Arc<Accounts>, config: AuthConfig) -> Result<Self, SetupError> {
        let random = SystemRandom::new();
        let (mut key, mut filler) = ([0; 32], [0; 48]);
        random.fill(&mut key).map_err(|_| SetupError::Random)?;
        random.fill(&mut filler).map_err(|_| SetupError::Random)?;
        Ok(Self {
            accounts,
            settings: RwLock::new(Arc::new(Settings::new(config, &filler))),
            verified: VerifiedCache::new(&key),
            slowdown: Mutex::new(Slowdown::new()),
            exchanges: Mutex::default(),
            tokens: ConnectTokens::default(),
            random,
            filler,
        })
    }

    /// Uses another configuration from now on; exchanges under way go on.
    pub fn reload(&self, config: AuthConfig) {
        let settings = Arc::new(Settings::new(config, &self.filler));
        *self.settings.write().unwrap_or_else(PoisonError::into_inner) = settings;
    }

    /// The accounts it looks at.
    pub fn accounts(&self) -> &Arc<Accounts> {
        &self.accounts
    }

    /// Makes credentials for a device that pairs: a random password and the record of an account with it. Takes as long as a
    /// password check.
    pub fn make_credentials(&self, now_ms: u64) -> Result<(Secret<String>, AccountRecord), PasswordError> {
        let password = random_password()?;
        let record = make_record(password.reveal(), &[], &self.settings().config.passwords, now_ms)?;
        Ok((password, record))
    }

    /// Issues a connect token. The first one makes the key, which waits for the disk.
    pub fn issue_token(&self, wish: &TokenWish, now_ms: u64) -> Result<IssuedToken, IssueError> {
        let record = self.accounts.get(&wish.account).filter(|_| AccountName::parse(&wish.account).is_ok());
        let record = record.ok_or_else(|| IssueError::NoAccount(wish.account.clone()))?;
        self.tokens.issue(wish, &record, now_ms)
    }

    /// The account a connect token lets in; `None`: it is none, or is worth nothing any more.
    pub fn token_account(&self, token: &str, now_ms: u64) -> Option<String> {
        if !connect_token::claims_to_be_one(token.as_bytes()) {
            return None;
        }
        match self.answer_connect_token(None, token.as_bytes(), now_ms) {
            AuthAnswer::Accept { account, .. } => Some(account),
            AuthAnswer::Continue { .. } | AuthAnswer::Refuse { .. } => None,
        }
    }

    /// Milliseconds until a pairing code may be tried from `peer` again; 0: now.
    pub fn pairing_wait_ms(&self, peer: IpAddr, now_ms: u64) -> u64 {
        self.slowdown().wait_ms(&self.settings().config.slowdown, peer, PAIRING, now_ms)
    }

    /// Notes that a wrong pairing code came from `peer`. A right one takes nothing back: else a code of one's own would buy
    /// free guesses.
    pub fn pairing_failed(&self, peer: IpAddr, now_ms: u64) {
        self.slowdown().failed(&self.settings().config.slowdown, peer, PAIRING, now_ms);
    }

    /// Answers a request; `now_ms` is milliseconds since 1970. Takes as long as argon2 does when
    /// [`Authenticator::answer_quickly`] has no answer, and microseconds otherwise.
    pub fn answer(&self, request: &AuthRequest, now_ms: u64) -> AuthAnswer {
        self.answer_quickly(request, now_ms).unwrap_or_else(|| self.answer_password(request, now_ms))
    }

    /// Answers a request unless argon2 is needed for it: then `None`, nothing is changed, and
    /// [`Authenticator::answer`] is to be called where it may take long.
    pub fn answer_quickly(&self, request: &AuthRequest, now_ms: u64) -> Option<AuthAnswer> {
        let settings = self.settings();
        // Where anybody may come in and nobody has an account, there is nothing a name or password could be held against.
        let open_house = request.allow_anonymous
            && request.step == AuthStep::Connect
            && request.method.is_none()
            && request.certificate.is_none()
            && settings.config.jwt.is_none()
            && self.accounts.is_empty();
        if open_house {
            let account = ANONYMOUS.to_owned();
            return Some(AuthAnswer::Accept { account, groups: vec![], expires_at_ms: None, data: None });
        }
        match (request.step, &request.method) {
            (AuthStep::Continue, _) => Some(self.continue_scram(&settings, request, now_ms)),
            (AuthStep::Connect | AuthStep::ReAuthenticate, Some(method)) => {
                if method != scram::METHOD {
                    return Some(Refusal::Method.into());
                }
                Some(self.begin_scram(&settings, request, now_ms))
            }
            // Who connected without a method cannot re-authenticate `[MQTT5-4.12.0-7]`.
            (AuthStep::ReAuthenticate, None) => Some(Refusal::Method.into()),
            (AuthStep::Connect, None) => self.answer_connect(&settings, request, now_ms),
        }
    }

    /// Drops what is kept of an exchange whose connection has ended.
    pub fn forget(&self, exchange: u64) {
        self.exchanges().remove(&exchange);
    }

    fn answer_connect(&self, settings: &Settings, request: &AuthRequest, now_ms: u64) -> Option<AuthAnswer> {
        let (user, password) = credentials(request);
        if let Some(name) = &request.certificate {
            return Some(self.answer_certificate(settings, name, user));
        }
        match (user, password) {
            (None, None) if request.allow_anonymous => Some(accept(ANONYMOUS, &[], None, None)),
            (None, None) => Some(Refusal::NoCredentials.into()),
            (user, Some(password)) if connect_token::claims_to_be_one(password) => {
                Some(self.answer_connect_token(user, password, now_ms))
            }
            (user, Some(password)) if settings.config.jwt.is_some() && jwt::looks_like_token(password) => {
                let config = settings.config.jwt.as_ref()?;
                Some(self.answer_token(config, TokenKind::Configured, user, password, now_ms))
            }
            (Some(user), Some(password)) => self.answer_known_password(settings, request, user, password, now_ms),
            (Some(_), None) => Some(Refusal::NoPassword.into()),
            (None, Some(_)) => Some(Refusal::NoUserName.into()),
        }
    }

    fn answer_certificate(&self, settings: &Settings, name: &str, user: Option<&str>) -> AuthAnswer {
        if user.is_some_and(|user| user != name) {
            return Refusal::OtherName.into();
        }
        let Ok(name) = AccountName::parse(name) else { return Refusal::UnknownCertificate.into() };
        match (self.accounts.get(name.as_str()), settings.config.certificates) {
            (Some(record), _) if record.disabled => Refusal::Disabled.into(),
            (Some(record), _) => accept(name.as_str(), &record.groups, None, None),
            (None, UnknownAccounts::Accept) => accept(name.as_str(), &[], None, None),
            (None, UnknownAccounts::Refuse) => Refusal::UnknownCertificate.into(),
        }
    }

    /// Tokens cannot be guessed, so their failures make nobody wait.
    fn answer_token(
        &self,
        config: &JwtConfig,
        kind: TokenKind,
        user: Option<&str>,
        token: &[u8],
        now_ms: u64,
    ) -> AuthAnswer {
        let claims = match jwt::check_token(config, token, now_ms) {
            Ok(claims) => claims,
            Err(TokenError::Expired) => return Refusal::ExpiredToken.into(),
            Err(_) => return Refusal::Token.into(),
        };
        let name = claims.account.as_str();
        if user.is_some_and(|user| user != name) {
            return Refusal::OtherName.into();
        }
        let record = self.accounts.get(name);
        if record.as_ref().is_some_and(|r| r.disabled) {
            return Refusal::Disabled.into();
        }
        if record.is_none() && config.accounts == UnknownAccounts::Refuse {
            return Refusal::Token.into();
        }
        if kind == TokenKind::Connect && record.as_ref().map(|r| r.token_epoch) != claims.epoch {
            return Refusal::RevokedToken.into();
        }
        let stored = record.as_ref().map_or(&[][..], |r| &r.groups);
        accept(name, claims.groups.as_deref().unwrap_or(stored), Some(claims.expires_at_ms), None)
    }

    fn answer_connect_token(&self, user: Option<&str>, token: &[u8], now_ms: u64) -> AuthAnswer {
        match self.tokens.config() {
            Some(config) => self.answer_token(&config, TokenKind::Connect, user, token, now_ms),
            None => Refusal::Token.into(),
        }
    }

    /// A password verified before, or a name that must wait; `None` when the hash must be computed.
    fn answer_known_password(
        &self,
        settings: &Settings,
        request: &AuthRequest,
        user: &str,
        password: &[u8],
        now_ms: u64,
    ) -> Option<AuthAnswer> {
        let rules = &settings.config.slowdown;
        if self.slowdown().wait_ms(rules, request.peer, user, now_ms) > 0 {
            return Some(Refusal::SlowedDown.into());
        }
        let record = self.accounts.get(user)?;
        let hash = record.password_hash.as_ref()?.reveal();
        if !self.verified.knows(user, hash, password) {
            return None;
        }
        self.slowdown().succeeded(rules, request.peer, user, now_ms);
        Some(admit(user, &record, None))
    }

    fn answer_password(&self, request: &AuthRequest, now_ms: u64) -> AuthAnswer {
        let (Some(user), Some(password)) = credentials(request) else { return Refusal::NoCredentials.into() };
        let settings = self.settings();
        let rules = &settings.config.slowdown;
        // Looked at again: others may have failed since this request was handed to the pool.
        if self.slowdown().wait_ms(rules, request.peer, user, now_ms) > 0 {
            return Refusal::SlowedDown.into();
        }
        let record = self.accounts.get(user);
        let hash = record.as_ref().and_then(|r| r.password_hash.as_ref()).map(Secret::reveal);
        let is_fitting = password::fits(password, hash.unwrap_or(&settings.unfitting_hash));
        if let (true, Some(record), Some(hash)) = (is_fitting, &record, hash) {
            self.verified.remember(user, hash, password);
            self.slowdown().succeeded(rules, request.peer, user, now_ms);
            return admit(user, record, None);
        }
        self.slowdown().failed(rules, request.peer, user, now_ms);
        if record.is_some() { Refusal::Password.into() } else { Refusal::UnknownAccount.into() }
    }

    fn begin_scram(&self, settings: &Settings, request: &AuthRequest, now_ms: u64) -> AuthAnswer {
        let (user, _) = credentials(request);
        if let (Some(user), Some(certificate)) = (user, &request.certificate)
            && user != certificate
        {
            return Refusal::OtherName.into();
        }
        // That a re-authentication is for the account of the connection, the hub sees to.
        let expected = request.certificate.as_deref().or(user).map(str::to_owned);
        let pending = Pending { step: request.step, expected, begun: None };
        if request.data.is_empty() {
            // A client may leave its first message out of CONNECT; an empty challenge asks for it (RFC 4422 s3).
            return self.wait(request.exchange, pending, Vec::new());
        }
        self.first_message(settings, request, pending, now_ms)
    }

    fn continue_scram(&self, settings: &Settings, request: &AuthRequest, now_ms: u64) -> AuthAnswer {
        // Taken out: whatever comes of it, no message can be tried twice.
        let Some(mut pending) = self.exchanges().remove(&request.exchange) else { return Refusal::Scram.into() };
        if request.method.as_deref().is_some_and(|method| method != scram::METHOD) {
            return Refusal::Method.into();
        }
        match pending.begun.take() {
            None => self.first_message(settings, request, pending, now_ms),
            Some(begun) => self.final_message(settings, request, pending.step, begun, now_ms),
        }
    }

    fn first_message(
        &self,
        settings: &Settings,
        request: &AuthRequest,
        mut pending: Pending,
        now_ms: u64,
    ) -> AuthAnswer {
        let Ok(first) = scram::ClientFirst::parse(&request.data) else { return Refusal::Scram.for_step(pending.step) };
        let name = first.username.as_str();
        if pending.expected.as_deref().is_some_and(|expected| expected != name) {
            return Refusal::OtherName.for_step(pending.step);
        }
        if self.slowdown().wait_ms(&settings.config.slowdown, request.peer, name, now_ms) > 0 {
            return Refusal::SlowedDown.into();
        }
        let mut server_nonce = [0; 18];
        if self.random.fill(&mut server_nonce).is_err() {
            return Refusal::NoRandom.into();
        }
        let server_nonce = <base64ct::Base64 as base64ct::Encoding>::encode_string(&server_nonce);
        let known = self.accounts.get(name).and_then(|record| record.scram.clone());
        let is_known = known.is_some();
        let keys = known.unwrap_or_else(|| settings.made_up_keys(name));
        let (exchange, data) = scram::Exchange::begin(&first, &server_nonce, keys);
        pending.begun = Some(Begun { name: name.to_owned(), exchange, is_known });
        self.wait(request.exchange, pending, data)
    }

    fn wait(&self, exchange: u64, pending: Pending, data: Vec<u8>) -> AuthAnswer {
        let mut exchanges = self.exchanges();
        if exchanges.len() >= EXCHANGES_MAX && !exchanges.contains_key(&exchange) {
            return Refusal::Busy.into();
        }
        exchanges.insert(exchange, pending);
        AuthAnswer::Continue { data }
    }

    fn final_message(
        &self,
        settings: &Settings,
        request: &AuthRequest,
        step: AuthStep,
        begun: Begun,
        now_ms: u64,
    ) -> AuthAnswer {
        let Begun { name, exchange, is_known } = begun;
        let rules = &settings.config.slowdown;
        if self.slowdown().wait_ms(rules, request.peer, &name, now_ms) > 0 {
            return Refusal::SlowedDown.into();
        }
        // The account may have been removed, or got another password, since the exchange began.
        let record = self.accounts.get(&name).filter(|r| is_known && r.scram.as_ref() == Some(exchange.keys()));
        match (exchange.finish(&request.data), record) {
            (Ok(data), Some(record)) => {
                self.slowdown().succeeded(rules, request.peer, &name, now_ms);
                if record.disabled { Refusal::Disabled.for_step(step) } else { admit(&name, &record, Some(data)) }
            }
            (_, record) => {
                self.slowdown().failed(rules, request.peer, &name, now_ms);
                let refusal = if record.is_some() { Refusal::Scram } else { Refusal::UnknownAccount };
                refusal.for_step(step)
            }
        }
    }

    fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.settings.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn slowdown(&self) -> MutexGuard<'_, Slowdown> {
        self.slowdown.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn exchanges(&self) -> MutexGuard<'_, HashMap<u64, Pending>> {
        self.exchanges.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Settings {
    fn new(config: AuthConfig, filler: &[u8; 48]) -> Self {
        let unfitting_hash = password::unfitting_hash(filler, &config.passwords);
        Self { config, unfitting_hash }
    }

    /// Keys no password fits, the same each time for a name, so that an unknown account looks like a known one
    /// (RFC 5802 s9).
    fn made_up_keys(&self, name: &str) -> ScramKeys {
        let bytes = |use_of: &str| {
            let text = format!("{use_of}\0{name}");
            scram::hmac_sha256(self.config.salt_secret.reveal(), text.as_bytes())
        };
        ScramKeys {
            iterations: self.config.passwords.scram_iterations,
            salt: bytes("salt")[..16].to_vec(),
            stored_key: Secret::new(bytes("stored key")),
            server_key: Secret::new(bytes("server key")),
        }
    }
}

/// User name and password; an empty one says nothing and counts as absent (MQTT 3.1.1 has no password without a user
/// name `[MQTT3-3.1.2-22]`, so its clients send an empty name before a token).
fn credentials(request: &AuthRequest) -> (Option<&str>, Option<&[u8]>) {
    (
        request.username.as_deref().filter(|name| !name.is_empty()),
        request.password.as_deref().filter(|password| !password.is_empty()),
    )
}

/// Lets in an account that has proved its password, unless it is disabled or has a name that accounts of an earlier
/// version could have.
fn admit(name: &str, record: &AccountRecord, data: Option<Vec<u8>>) -> AuthAnswer {
    if record.disabled {
        Refusal::Disabled.into()
    } else if AccountName::parse(name).is_err() {
        Refusal::ReservedName.into()
    } else {
        accept(name, &record.groups, None, data)
    }
}

fn accept(account: &str, groups: &[String], expires_at_ms: Option<u64>, data: Option<Vec<u8>>) -> AuthAnswer {
    AuthAnswer::Accept { account: account.to_owned(), groups: groups.to_vec(), expires_at_ms, data }
}

#[cfg(test)]
mod tests;
