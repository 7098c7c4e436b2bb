//! Connect tokens: JSON Web Tokens that this installation signs itself, for an account to log in with for a while.
//!
//! HS256 with a key nobody else has, so that there is nothing to configure and no public key to confuse with a secret. The
//! header names the key (`kid`), and a token that names it is held against it and nothing else. A token carries the token
//! epoch of its account: when that changes, with the password or by order, the tokens issued before are worth nothing.

use super::jwt::{self, EPOCH_CLAIM, JwtConfig, JwtKey};
use super::{AccountRecord, GROUPS_MAX, Secret, UnknownAccounts, make_secret, read_secret};
use base64ct::{Base64UrlUnpadded, Encoding};
use parlor_core::access::is_group_name;
use ring::hmac;
use serde_json::{Value, json};
use std::io;
use std::path::PathBuf;
use std::sync::{PoisonError, RwLock};
use thiserror::Error;

/// Lifetime of a token when nothing is said, seconds.
pub const TOKEN_TTL_SECS: u64 = 3_600;
/// Longest lifetime, seconds.
pub const TOKEN_TTL_MAX_SECS: u64 = 30 * 24 * 3_600;

/// `kid` of every connect token.
const KEY_ID: &str = "parlor-connect";
/// `iss` of every connect token.
const ISSUER: &str = "parlor";

/// A token that was issued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuedToken {
    /// The token itself, to be given as the password.
    pub token: Secret<String>,
    /// When it expires, milliseconds since 1970.
    pub expires_at_ms: u64,
}

/// What a token is to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenWish {
    /// The account it lets in.
    pub account: String,
    /// Seconds from now until it expires.
    pub ttl_secs: u64,
    /// Groups instead of those of the account.
    pub groups: Option<Vec<String>>,
}

/// A token was not issued.
#[derive(Debug, Error)]
pub enum IssueError {
    /// There is no such account.
    #[error("there is no account \"{0}\"")]
    NoAccount(String),
    /// The account must not log in.
    #[error("the account is disabled: enable it first")]
    Disabled,
    /// It would live too long, or not at all.
    #[error("a token lives for 1 second to 30 days")]
    Ttl,
    /// The groups are none, or too many.
    #[error("the groups must be at most 64 names of 1 to 64 bytes without white space, control characters or commas")]
    Groups,
    /// The key cannot be read or made.
    #[error("{}: {error}; the data directory must be writable by the broker", .path.display())]
    Key {
        /// The file of the key.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
}

/// Signs and checks connect tokens.
#[derive(Default)]
pub(super) struct ConnectTokens {
    /// Where the key is kept.
    path: PathBuf,
    /// `None` until the first token is issued.
    key: RwLock<Option<Secret<[u8; 32]>>>,
}

impl ConnectTokens {
    /// Reads the key at `path`, if there is one already.
    pub(super) fn open(path: PathBuf) -> io::Result<Self> {
        let key = RwLock::new(read_secret(&path)?);
        Ok(Self { path, key })
    }

    /// Issues a token for an account with this record.
    pub(super) fn issue(
        &self,
        wish: &TokenWish,
        record: &AccountRecord,
        now_ms: u64,
    ) -> Result<IssuedToken, IssueError> {
        if record.disabled {
            return Err(IssueError::Disabled);
        }
        if !(1..=TOKEN_TTL_MAX_SECS).contains(&wish.ttl_secs) {
            return Err(IssueError::Ttl);
        }
        if let Some(groups) = &wish.groups
            && (groups.len() > GROUPS_MAX || !groups.iter().all(|group| is_group_name(group)))
        {
            return Err(IssueError::Groups);
        }
        let key = self.key().map_err(|error| IssueError::Key { path: self.path.clone(), error })?;
        let issued_at = now_ms / 1_000;
        let expires_at = issued_at.saturating_add(wish.ttl_secs);
        let mut claims = json!({
            "iss": ISSUER,
            "sub": wish.account,
            "iat": issued_at,
            "exp": expires_at,
            EPOCH_CLAIM: record.token_epoch,
        });
        if let Some(groups) = &wish.groups {
            claims["groups"] = groups.as_slice().into();
        }
        let token = Secret::new(sign(key.reveal(), &claims));
        Ok(IssuedToken { token, expires_at_ms: expires_at.saturating_mul(1_000) })
    }

    /// How a token of this installation is checked; `None`: none was ever issued.
    pub(super) fn config(&self) -> Option<JwtConfig> {
        let key = self.key.read().unwrap_or_else(PoisonError::into_inner);
        Some(JwtConfig {
            keys: vec![JwtKey::hs256(key.as_ref()?.reveal())],
            issuer: Some(ISSUER.to_owned()),
            audience: None,
            account_claim: "sub".to_owned(),
            groups_claim: "groups".to_owned(),
            leeway_secs: 0,
            accounts: UnknownAccounts::Refuse,
        })
    }

    /// The key, which is made when there is none.
    fn key(&self) -> io::Result<Secret<[u8; 32]>> {
        let mut key = self.key.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(key) = &*key {
            return Ok(key.clone());
        }
        let made = make_secret(&self.path)?;
        *key = Some(made.clone());
        Ok(made)
    }
}

/// Whether a token says that it is one of these.
pub(super) fn claims_to_be_one(token: &[u8]) -> bool {
    jwt::looks_like_token(token) && jwt::key_id(token).as_deref() == Some(KEY_ID)
}

fn sign(key: &[u8; 32], claims: &Value) -> String {
    let part = |value: &Value| Base64UrlUnpadded::encode_string(value.to_string().as_bytes());
    let signed = format!("{}.{}", part(&json!({ "alg": "HS256", "typ": "JWT", "kid": KEY_ID })), part(claims));
    let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), signed.as_bytes());
    format!("{signed}.{}", Base64UrlUnpadded::encode_string(signature.as_ref()))
}
