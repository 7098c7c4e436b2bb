//! What each request does: it asks the driver and writes down the answer.

use super::body::{AdminBody, BACKUP_CHUNKS_MAX, nothing, plain, shown, typed, upload};
use super::command::{BackupChunk, Command, CommandError, Kick};
use super::error::ApiError;
use super::metrics::render;
use super::router::Route;
use super::types::{Reloaded, RetainedQuery, SessionsQuery, SubscriptionsQuery};
use super::{Readiness, process, systemd};
use crate::auth::PasswordParams;
use crate::config::{Config, Sources};
use hyper::body::Incoming;
use hyper::header::{CONTENT_DISPOSITION, CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// The document that describes this API.
pub const OPENAPI: &str = include_str!("../../../docs/openapi.json");

/// How long the driver may take for an answer; a change waits for the disk.
const ANSWER_TIME: Duration = Duration::from_secs(30);
/// How long it may take to answer when all that is asked is whether it lives.
const PING_TIME: Duration = Duration::from_secs(1);
/// How long it may take to replace the store.
const RESTORE_TIME: Duration = Duration::from_secs(3_600);
/// Rows of a page when nothing is said, and at most.
const PAGE_ROWS: u32 = 100;
const PAGE_ROWS_MAX: u32 = 1_000;
/// Where an uploaded backup waits in the data directory.
const RESTORE_FILE: &str = "restore.upload";

/// Everything the requests share.
pub(super) struct Api {
    data: PathBuf,
    sources: Sources,
    commands: mpsc::Sender<Command>,
    readiness: Arc<Readiness>,
    /// What the sections that count only from a start are compared with.
    started_with: Config,
    running: Mutex<Config>,
    /// Held while an account is made or changed, so that of two makers of one name the second hears so.
    pub(super) accounts: tokio::sync::Mutex<()>,
    /// Held while a device pairs, so that whoever guesses cannot try several codes before one of them counts.
    pub(super) pairings: tokio::sync::Mutex<()>,
    /// Held while a backup is uploaded.
    restores: tokio::sync::Mutex<()>,
    /// Held while a blob is uploaded.
    pub(super) uploads: tokio::sync::Mutex<()>,
    /// Held while the configuration is read again.
    reloads: tokio::sync::Mutex<()>,
}

/// Keys and values of a query string.
pub(super) type Query = Vec<(String, String)>;

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Caller {
    /// Nobody knows, and it does not matter.
    Anybody,
    /// Whoever has the operator's token.
    Operator,
    /// A service with a connect token of its own.
    Service(String),
}

/// A request whose route is known.
pub(super) struct Asked {
    pub(super) caller: Caller,
    pub(super) peer: IpAddr,
    /// Those of the path.
    pub(super) parameters: Vec<String>,
    pub(super) query: Query,
    pub(super) body: Incoming,
}

impl Api {
    pub(super) fn new(
        config: Config,
        sources: Sources,
        commands: mpsc::Sender<Command>,
        readiness: Arc<Readiness>,
    ) -> Self {
        Self {
            data: config.data.clone(),
            sources,
            commands,
            readiness,
            started_with: config.clone(),
            running: Mutex::new(config),
            accounts: tokio::sync::Mutex::default(),
            pairings: tokio::sync::Mutex::default(),
            restores: tokio::sync::Mutex::default(),
            uploads: tokio::sync::Mutex::default(),
            reloads: tokio::sync::Mutex::default(),
        }
    }

    pub(super) fn commands(&self) -> &mpsc::Sender<Command> {
        &self.commands
    }

    /// Asks the driver for a sign of life.
    pub(super) async fn ping(&self) -> Result<(), ApiError> {
        self.ask_within(PING_TIME, |reply| Command::Ping { reply }).await
    }

    pub(super) async fn call(&self, route: Route, asked: Asked) -> Result<Response<AdminBody>, ApiError> {
        let Asked { caller, peer, parameters, query, body } = asked;
        // As many as the route's pattern has, in their order.
        let mut parameters = parameters.into_iter();
        let mut parameter = || parameters.next().unwrap_or_default();
        match route {
            Route::Healthz => Ok(self.healthz().await),
            Route::Readyz => Ok(match self.readiness.check() {
                Ok(()) => plain(StatusCode::OK, "ready"),
                Err(why) => plain(StatusCode::SERVICE_UNAVAILABLE, &why.to_string()),
            }),
            Route::Metrics => self.metrics().await,
            Route::OpenApi => Ok(typed(StatusCode::OK, "application/json", OPENAPI)),
            Route::Status => Ok(shown(StatusCode::OK, &self.ask(|reply| Command::Status { reply }).await?)),
            Route::Sessions => self.sessions(query).await,
            Route::Session => self.session(parameter()).await,
            Route::Kick => self.kick(parameter(), query).await,
            Route::Subscriptions => self.subscriptions(query).await,
            Route::Retained => self.retained(query).await,
            Route::RetainedClear => self.retained_clear(parameter()).await,
            Route::Accounts => self.list_accounts().await,
            Route::AccountAdd => self.account_add(body).await,
            Route::Account => self.account(parameter()).await,
            Route::AccountPut => self.account_put(parameter(), body).await,
            Route::AccountRemove => self.account_remove(parameter()).await,
            Route::TokenIssue => self.token_issue(parameter(), body).await,
            Route::TokensRevoke => self.tokens_revoke(parameter()).await,
            Route::Pair => self.pair(peer, body).await,
            Route::Messages => self.messages(&caller, body).await,
            Route::Commands => self.commands_add(&caller, body).await,
            Route::Command => self.command(&caller, (parameter(), parameter()), query).await,
            Route::Channels => self.channels().await,
            Route::Channel => self.channel(&caller, parameter(), query).await,
            Route::ChannelAct => self.channel_act(&caller, (parameter(), parameter()), query, body).await,
            Route::Conversations => self.conversations(&caller, query).await,
            Route::History => self.history(&caller, query).await,
            Route::Recount => self.recount(body).await,
            Route::Blobs => self.blobs().await,
            Route::BlobPut => self.blob_put(query, body).await,
            Route::BlobGrant => self.blob_grant(parameter(), body).await,
            Route::BlobRemove => self.blob_remove(parameter()).await,
            Route::Reload => Ok(shown(StatusCode::OK, &self.reload().await?)),
            Route::Backup => self.backup().await,
            Route::Restore => self.restore(body).await,
        }
    }

    pub(super) async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, ApiError> {
        self.ask_within(ANSWER_TIME, command).await
    }

    async fn ask_within<T>(
        &self,
        time: Duration,
        command: impl FnOnce(oneshot::Sender<T>) -> Command,
    ) -> Result<T, ApiError> {
        let (reply, answer) = oneshot::channel();
        let exchange = async {
            self.commands.send(command(reply)).await.map_err(|_| ApiError::Gone)?;
            answer.await.map_err(|_| ApiError::Gone)
        };
        tokio::time::timeout(time, exchange).await.unwrap_or(Err(ApiError::Silent(time.as_secs())))
    }

    async fn healthz(&self) -> Response<AdminBody> {
        match self.ping().await {
            Ok(()) => plain(StatusCode::OK, "ok"),
            Err(error) => plain(StatusCode::SERVICE_UNAVAILABLE, &error.to_string()),
        }
    }

    async fn metrics(&self) -> Result<Response<AdminBody>, ApiError> {
        let mut metrics = self.ask(|reply| Command::Metrics { reply }).await?;
        metrics.extend(process::metrics());
        Ok(typed(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", &render(&metrics)))
    }

    async fn sessions(&self, mut query: Query) -> Result<Response<AdminBody>, ApiError> {
        let query = SessionsQuery {
            after: value(&mut query, "after"),
            limit: limit(&mut query)?,
            account: value(&mut query, "account"),
        };
        Ok(shown(StatusCode::OK, &self.ask(|reply| Command::Sessions { query, reply }).await?))
    }

    async fn session(&self, client_id: String) -> Result<Response<AdminBody>, ApiError> {
        let name = client_id.clone();
        let found = self.ask(|reply| Command::Session { client_id, reply }).await?;
        found.map(|session| shown(StatusCode::OK, &session)).ok_or(ApiError::NoSuch("session", name))
    }

    async fn kick(&self, client_id: String, mut query: Query) -> Result<Response<AdminBody>, ApiError> {
        let what = match value(&mut query, "forget").as_deref() {
            None | Some("false") => Kick::Disconnect,
            Some("true") => Kick::Forget,
            Some(other) => {
                return Err(ApiError::Query("write true or false", format!("\"forget\" cannot be \"{other}\"")));
            }
        };
        let name = client_id.clone();
        tracing::info!(client_id, ?what, "operator ends a session's connection");
        let done = self.ask(|reply| Command::Kick { client_id, what, reply }).await??;
        if done { Ok(nothing()) } else { Err(ApiError::NoSuch("session", name)) }
    }

    async fn subscriptions(&self, mut query: Query) -> Result<Response<AdminBody>, ApiError> {
        let query = SubscriptionsQuery {
            after: value(&mut query, "after"),
            limit: limit(&mut query)?,
            client_id: value(&mut query, "client_id"),
            filter: value(&mut query, "filter"),
        };
        Ok(shown(StatusCode::OK, &self.ask(|reply| Command::Subscriptions { query, reply }).await?))
    }

    async fn retained(&self, mut query: Query) -> Result<Response<AdminBody>, ApiError> {
        let query = RetainedQuery {
            after: value(&mut query, "after"),
            limit: limit(&mut query)?,
            filter: value(&mut query, "filter"),
            prefix: value(&mut query, "prefix"),
        };
        Ok(shown(StatusCode::OK, &self.ask(|reply| Command::Retained { query, reply }).await?))
    }

    async fn retained_clear(&self, topic: String) -> Result<Response<AdminBody>, ApiError> {
        let name = topic.clone();
        tracing::info!(topic, "operator clears a retained message");
        let done = self.ask(|reply| Command::RetainedClear { topic, reply }).await??;
        if done { Ok(nothing()) } else { Err(ApiError::NoSuch("retained message", name)) }
    }

    fn running(&self) -> MutexGuard<'_, Config> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there is messaging; that counts from the start.
    pub(super) fn has_messaging(&self) -> bool {
        self.started_with.im.enabled
    }

    pub(super) fn password_params(&self) -> PasswordParams {
        self.running().auth.passwords
    }

    /// Reads the configuration again and has the driver take over what it can.
    pub(super) async fn reload(&self) -> Result<Reloaded, ApiError> {
        let _turn = self.reloads.lock().await;
        systemd::notify(systemd::Notice::Reloading);
        let done = self.reload_now().await;
        systemd::notify(systemd::Notice::Ready);
        // What was taken over is said by the driver, which takes it over.
        if let Err(error) = &done {
            tracing::error!("the configuration was not taken over, the running one stays in use: {error}");
        }
        done
    }

    async fn reload_now(&self) -> Result<Reloaded, ApiError> {
        let sources = self.sources.clone();
        // Reading files may take as long as a disk does.
        let loaded = tokio::task::spawn_blocking(move || sources.load()).await.map_err(|_| ApiError::Gone)?;
        let loaded = loaded.map_err(|report| ApiError::Config(report.to_string().trim_end().to_owned()))?;
        let config = Box::new(loaded.config.clone());
        self.ask(|reply| Command::Reload { config, reply }).await??;
        crate::log::set_level(loaded.config.log.level);
        let needs_restart = loaded.config.needs_restart(&self.started_with);
        *self.running() = loaded.config;
        Ok(Reloaded { needs_restart, warnings: loaded.warnings.to_string() })
    }

    async fn backup(&self) -> Result<Response<AdminBody>, ApiError> {
        let (chunks, mut pieces) = mpsc::channel(BACKUP_CHUNKS_MAX);
        self.commands.send(Command::Backup { chunks }).await.map_err(|_| ApiError::Gone)?;
        // The first piece decides about the status; what fails later can only break the answer off.
        let first = tokio::time::timeout(ANSWER_TIME, pieces.recv()).await;
        let first = match first {
            Err(_) => return Err(ApiError::Silent(ANSWER_TIME.as_secs())),
            Ok(None) => return Err(ApiError::Gone),
            Ok(Some(BackupChunk::Failed(error))) => return Err(error.into()),
            Ok(Some(first)) => first,
        };
        let mut response = Response::new(AdminBody::Backup { first: Some(first), pieces });
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        headers.insert(CONTENT_DISPOSITION, HeaderValue::from_static("attachment; filename=\"parlor-backup\""));
        tracing::info!("operator takes a backup");
        Ok(response)
    }

    async fn restore(&self, body: Incoming) -> Result<Response<AdminBody>, ApiError> {
        let Ok(_turn) = self.restores.try_lock() else { return Err(CommandError::Busy("another restore").into()) };
        let file = self.data.join(RESTORE_FILE);
        let bytes = upload(body, file.clone()).await?;
        tracing::warn!(bytes, "operator replaces the store by a backup");
        let upload = file.clone();
        let restored = self.ask_within(RESTORE_TIME, |reply| Command::Restore { file, reply }).await?;
        if restored.is_err() {
            let _ = std::fs::remove_file(upload);
        }
        Ok(shown(StatusCode::OK, &restored?))
    }
}

pub(super) fn value(query: &mut Query, key: &str) -> Option<String> {
    let at = query.iter().position(|(found, _)| found == key)?;
    Some(query.swap_remove(at).1)
}

pub(super) fn limit(query: &mut Query) -> Result<u32, ApiError> {
    let Some(text) = value(query, "limit") else { return Ok(PAGE_ROWS) };
    let number = text.parse().ok().filter(|limit| (1..=PAGE_ROWS_MAX).contains(limit));
    number.ok_or_else(|| ApiError::Query("write a number from 1 to 1000", format!("\"limit\" cannot be \"{text}\"")))
}
