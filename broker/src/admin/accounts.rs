//! Accounts as an operator makes and changes them.

use super::types::AccountRow;
use crate::auth::{AccountName, AccountNameError, AccountRecord, PasswordError, PasswordParams, RecordError};
use crate::auth::{make_record, set_password};
use parlor_core::access::is_group_name;
use std::time::{SystemTime, UNIX_EPOCH};

/// An account cannot be made or read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AccountError {
    /// The name is none.
    #[error(transparent)]
    Name(#[from] AccountNameError),
    /// Password or groups are not accepted.
    #[error(transparent)]
    Password(#[from] PasswordError),
    /// The record in the store cannot be read.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The name for people is not accepted.
    #[error("a display name is 1 to 64 characters without control characters")]
    DisplayName,
}

/// Longest name for people, characters (docs/protocol.md section 2).
const DISPLAY_NAME_CHARS_MAX: usize = 64;

/// What is to be changed; `None` stays as it is.
#[derive(Default)]
pub struct Change {
    /// The new password.
    pub password: Option<String>,
    /// The groups, all of them.
    pub groups: Option<Vec<String>>,
    /// Whether it must not log in.
    pub disabled: Option<bool>,
}

/// Whether `name` can be an account's.
pub fn check_name(name: &str) -> Result<(), AccountError> {
    AccountName::parse(name)?;
    Ok(())
}

/// Whether `password` can be an account's.
pub fn check_password(password: &str) -> Result<(), AccountError> {
    Ok(crate::auth::check_password(password)?)
}

/// Record of a new account. Takes as long as a password check.
pub fn make(password: &str, groups: &[String], params: &PasswordParams) -> Result<Vec<u8>, AccountError> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now_ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
    Ok(make_record(password, groups, params, now_ms)?.encode())
}

/// Record of a changed account. With a password it takes as long as a password check.
pub fn change(record: &[u8], change: &Change, params: &PasswordParams) -> Result<Vec<u8>, AccountError> {
    let mut record = AccountRecord::decode(record)?;
    if let Some(groups) = &change.groups {
        if !groups.iter().all(|group| is_group_name(group)) {
            return Err(PasswordError::GroupName.into());
        }
        if groups.len() > crate::auth::GROUPS_MAX {
            return Err(PasswordError::TooManyGroups.into());
        }
        record.groups.clone_from(groups);
    }
    if let Some(disabled) = change.disabled {
        record.disabled = disabled;
    }
    if let Some(password) = &change.password {
        set_password(&mut record, password, params)?;
    }
    Ok(record.encode())
}

/// Record of an account whose connect tokens are worth nothing any more.
pub fn revoke_tokens(record: &[u8]) -> Result<Vec<u8>, AccountError> {
    let mut record = AccountRecord::decode(record)?;
    crate::auth::revoke_tokens(&mut record)?;
    Ok(record.encode())
}

/// Whether `text` can be an account's name for people.
pub fn check_display_name(text: &str) -> Result<(), AccountError> {
    let text = text.trim();
    let is_fit = (1..=DISPLAY_NAME_CHARS_MAX).contains(&text.chars().count()) && !text.chars().any(char::is_control);
    if is_fit { Ok(()) } else { Err(AccountError::DisplayName) }
}

/// What an operator may know of a record.
pub fn row(name: &str, record: &[u8]) -> Result<AccountRow, AccountError> {
    let record = AccountRecord::decode(record)?;
    Ok(AccountRow {
        name: name.to_owned(),
        groups: record.groups,
        disabled: record.disabled,
        created_ms: record.created_ms,
    })
}
