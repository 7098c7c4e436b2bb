//! Requests about accounts and their connect tokens.

use super::accounts;
use super::api::Api;
use super::body::{AdminBody, nothing, parse, parse_or_default, shown};
use super::command::{Command, Connections, Described};
use super::error::ApiError;
use super::types::{AccountKind, AccountRow, TokenRow};
use crate::auth::{TOKEN_TTL_SECS, TokenWish};
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
    kind: Option<AccountKind>,
    display_name: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AccountChange {
    password: Option<String>,
    groups: Option<Vec<String>>,
    disabled: Option<bool>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct NewToken {
    ttl_s: Option<u64>,
    groups: Option<Vec<String>>,
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

    /// Record of an account that must exist.
    async fn known_record(&self, name: &str) -> Result<Vec<u8>, ApiError> {
        self.record(name).await?.ok_or_else(|| ApiError::NoSuch("account", name.to_owned()))
    }

    pub(super) async fn account(&self, name: String) -> Result<Response<AdminBody>, ApiError> {
        let mut shown_row = json!(accounts::row(&name, &self.known_record(&name).await?)?);
        if let Some(messaging) = self.described(&name).await? {
            shown_row["messaging"] = messaging;
        }
        Ok(shown(StatusCode::OK, &shown_row))
    }

    pub(super) async fn account_add(&self, body: Incoming) -> Result<Response<AdminBody>, ApiError> {
        let NewAccount { name, password, groups, kind, display_name } = parse(body).await?;
        accounts::check_name(&name)?;
        if let Some(display_name) = &display_name {
            accounts::check_display_name(display_name)?;
        }
        let described = (kind.is_some() || display_name.is_some())
            .then(|| Described { kind: kind.unwrap_or(AccountKind::Person), display_name });
        let _turn = self.accounts.lock().await;
        if self.record(&name).await?.is_some() {
            return Err(ApiError::Exists(name));
        }
        let params = self.password_params();
        let record = hashed(move || accounts::make(&password, &groups, &params)).await?;
        let row = accounts::row(&name, &record)?;
        self.store_account(name, record, described, Connections::Stay).await?;
        Ok(shown(StatusCode::CREATED, &row))
    }

    pub(super) async fn account_put(&self, name: String, body: Incoming) -> Result<Response<AdminBody>, ApiError> {
        let AccountChange { password, groups, disabled } = parse(body).await?;
        let _turn = self.accounts.lock().await;
        let before = self.known_record(&name).await?;
        let change = accounts::Change { password, groups, disabled };
        let params = self.password_params();
        let record = hashed(move || accounts::change(&before, &change, &params)).await?;
        let row = accounts::row(&name, &record)?;
        self.store_account(name, record, None, Connections::Stay).await?;
        Ok(shown(StatusCode::OK, &row))
    }

    async fn store_account(
        &self,
        name: String,
        record: Vec<u8>,
        described: Option<Described>,
        connections: Connections,
    ) -> Result<(), ApiError> {
        tracing::info!(account = name, "operator makes or changes an account");
        Ok(self.ask(|reply| Command::AccountPut { name, record, described, connections, reply }).await??)
    }

    pub(super) async fn account_remove(&self, name: String) -> Result<Response<AdminBody>, ApiError> {
        let _turn = self.accounts.lock().await;
        let shown_name = name.clone();
        tracing::info!(account = name, "operator removes an account");
        let done = self.ask(|reply| Command::AccountRemove { name, reply }).await??;
        if done { Ok(nothing()) } else { Err(ApiError::NoSuch("account", shown_name)) }
    }

    pub(super) async fn token_issue(&self, account: String, body: Incoming) -> Result<Response<AdminBody>, ApiError> {
        let NewToken { ttl_s, groups } = parse_or_default(body).await?;
        let wish = TokenWish { account: account.clone(), ttl_secs: ttl_s.unwrap_or(TOKEN_TTL_SECS), groups };
        tracing::info!(account, ttl_secs = wish.ttl_secs, "operator issues a connect token");
        let issued = self.ask(|reply| Command::TokenIssue { wish, reply }).await??;
        let row = TokenRow { account, token: issued.token.reveal().clone(), expires_at_ms: issued.expires_at_ms };
        Ok(shown(StatusCode::CREATED, &row))
    }

    pub(super) async fn tokens_revoke(&self, name: String) -> Result<Response<AdminBody>, ApiError> {
        let _turn = self.accounts.lock().await;
        let record = accounts::revoke_tokens(&self.known_record(&name).await?)?;
        tracing::info!(account = name, "operator revokes the connect tokens of an account");
        self.store_account(name, record, None, Connections::End).await?;
        Ok(nothing())
    }
}

/// Runs what takes as long as a password check where it may.
async fn hashed<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, accounts::AccountError> + Send + 'static,
) -> Result<T, ApiError> {
    Ok(tokio::task::spawn_blocking(work).await.map_err(|_| ApiError::Gone)??)
}
