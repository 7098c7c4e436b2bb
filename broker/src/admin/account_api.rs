//! Requests about accounts.

use super::accounts;
use super::api::Api;
use super::body::{AdminBody, nothing, parse, shown};
use super::command::Command;
use super::error::ApiError;
use super::types::AccountRow;
use hyper::body::Incoming;
use hyper::{Response, StatusCode};
use serde::Deserialize;
use serde_json::json;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewAccount {
    name: String,
    password: String,
    #[serde(default)]
    groups: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AccountChange {
    password: Option<String>,
    groups: Option<Vec<String>>,
    disabled: Option<bool>,
}

impl Api {
    pub(super) async fn list_accounts(&self) -> Result<Response<AdminBody>, ApiError> {
        let stored = self.ask(|reply| Command::Accounts { reply }).await?;
        let rows: Vec<AccountRow> =
            stored.iter().map(|(name, record)| accounts::row(name, record)).collect::<Result<_, _>>()?;
        Ok(shown(StatusCode::OK, &json!({ "items": rows })))
    }

    /// Record of an account.
    async fn record(&self, name: &str) -> Result<Option<Vec<u8>>, ApiError> {
        let stored = self.ask(|reply| Command::Accounts { reply }).await?;
        Ok(stored.into_iter().find(|(found, _)| found == name).map(|(_, record)| record))
    }

    pub(super) async fn account_add(&self, body: Incoming) -> Result<Response<AdminBody>, ApiError> {
        let NewAccount { name, password, groups } = parse(body).await?;
        accounts::check_name(&name)?;
        let _turn = self.accounts.lock().await;
        if self.record(&name).await?.is_some() {
            return Err(ApiError::Exists(name));
        }
        let params = self.password_params();
        let record = hashed(move || accounts::make(&password, &groups, &params)).await?;
        let row = accounts::row(&name, &record)?;
        self.store_account(name, record).await?;
        Ok(shown(StatusCode::CREATED, &row))
    }

    pub(super) async fn account_put(&self, name: String, body: Incoming) -> Result<Response<AdminBody>, ApiError> {
        let AccountChange { password, groups, disabled } = parse(body).await?;
        let _turn = self.accounts.lock().await;
        let Some(before) = self.record(&name).await? else { return Err(ApiError::NoSuch("account", name)) };
        let change = accounts::Change { password, groups, disabled };
        let params = self.password_params();
        let record = hashed(move || accounts::change(&before, &change, &params)).await?;
        let row = accounts::row(&name, &record)?;
        self.store_account(name, record).await?;
        Ok(shown(StatusCode::OK, &row))
    }

    async fn store_account(&self, name: String, record: Vec<u8>) -> Result<(), ApiError> {
        tracing::info!(account = name, "operator makes or changes an account");
        Ok(self.ask(|reply| Command::AccountPut { name, record, reply }).await??)
    }

    pub(super) async fn account_remove(&self, name: String) -> Result<Response<AdminBody>, ApiError> {
        let _turn = self.accounts.lock().await;
        let shown_name = name.clone();
        tracing::info!(account = name, "operator removes an account");
        let done = self.ask(|reply| Command::AccountRemove { name, reply }).await??;
        if done { Ok(nothing()) } else { Err(ApiError::NoSuch("account", shown_name)) }
    }
}

/// Runs what takes as long as a password check where it may.
async fn hashed<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, accounts::AccountError> + Send + 'static,
) -> Result<T, ApiError> {
    Ok(tokio::task::spawn_blocking(work).await.map_err(|_| ApiError::Gone)??)
}
