//! The operator's HTTP listener, and the signals.

use super::api::{Api, Asked, Caller};
use super::body::AdminBody;
use super::command::{Command, Shutdown};
use super::error::ApiError;
use super::router::{self, Access, Found};
use super::{Readiness, systemd};
use crate::config::{Config, Sources};
use crate::log::RateLimited;
use hyper::body::Incoming;
use hyper::header::{
    ALLOW, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HOST, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE,
};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use subtle::ConstantTimeEq;
use tokio::net::TcpStream;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Semaphore, mpsc};

/// File in the data directory with the operator's token.
pub const TOKEN_FILE: &str = "admin.token";
/// File in the data directory with the address of the operator's listener, while the broker runs.
pub const ADDRESS_FILE: &str = "admin.address";

/// How long a request's head may take, and a connection be idle.
const HEAD_TIME: Duration = Duration::from_secs(10);
/// How long a connection may last in all; a backup may take long.
const CONNECTION_TIME: Duration = Duration::from_secs(3_600);
/// Longest request head, bytes.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Most headers of a request.
const HEADERS_MAX: usize = 64;
/// Random bytes of a token.
const TOKEN_BYTES: usize = 32;

/// What the operator's side is made with.
pub struct AdminSetup {
    /// The configuration the broker starts with.
    pub config: Config,
    /// Where it came from, for reloads.
    pub sources: Sources,
    /// To the driver; at most [`super::COMMANDS_MAX`] wait.
    pub commands: mpsc::Sender<Command>,
    /// What `/readyz` tells.
    pub readiness: Arc<Readiness>,
}

/// The operator's side could not be made.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// A file of the data directory cannot be used.
    #[error("cannot use {}: {error}; the broker's user must be able to read and write there", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The address cannot be had.
    #[error("cannot listen on http://{address}: {error}; choose another address with --http, or --http off")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        error: io::Error,
    },
    /// No random bytes for the token.
    #[error("the operating system gave no random bytes for {TOKEN_FILE}: {0}")]
    Random(io::Error),
}

/// The operator's side, with its listener open; [`Admin::serve`] runs it.
pub struct Admin {
    listener: Option<TcpListener>,
    address: Option<SocketAddr>,
    address_file: Option<PathBuf>,
    connections: Arc<Semaphore>,
    shared: Arc<Shared>,
    heard: Option<Heard>,
}

struct Shared {
    token: String,
    hosts: Vec<String>,
    api: Api,
}

impl Admin {
    /// Makes the token where there is none, opens the listener where one is wanted, and writes its address down.
    pub fn open(setup: AdminSetup) -> Result<Self, AdminError> {
        let AdminSetup { config, sources, commands, readiness } = setup;
        let file = |path: PathBuf| move |error| AdminError::File { path, error };
        std::fs::create_dir_all(&config.data).map_err(file(config.data.clone()))?;
        let token_path = config.data.join(TOKEN_FILE);
        let token = token(&token_path)?;
        let (mut listener, mut address, mut address_file) = (None, None, None);
        if config.http.enabled {
            let wanted = config.http.listen;
            let listen = |error| AdminError::Listen { address: wanted, error };
            let opened = match TcpListener::bind(wanted) {
                // Several brokers on one machine, started with flags alone, need no flag for this.
                Err(error) if config.http.any_port && error.kind() == io::ErrorKind::AddrInUse => {
                    tracing::warn!("http://{wanted} is taken, perhaps by another broker: the system chooses a port");
                    TcpListener::bind(SocketAddr::new(wanted.ip(), 0)).map_err(listen)?
                }
                opened => opened.map_err(listen)?,
            };
            opened.set_nonblocking(true).map_err(listen)?;
            let got = opened.local_addr().map_err(listen)?;
            let path = config.data.join(ADDRESS_FILE);
            std::fs::write(&path, format!("{got}\n")).map_err(file(path.clone()))?;
            (listener, address, address_file) = (Some(opened), Some(got), Some(path));
        }
        let shared = Shared {
            token,
            hosts: config.http.hosts.clone(),
            api: Api::new(config.clone(), sources, commands, readiness),
        };
        Ok(Self {
            listener,
            address,
            address_file,
            connections: Arc::new(Semaphore::new(config.http.connections_max as usize)),
            shared: Arc::new(shared),
            heard: None,
        })
    }

    /// Address of the HTTP listener, if there is one.
    pub fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// Hears signals from now on, so that none that comes before [`Admin::serve`] runs ends the process by itself. To be
    /// called in the context of the runtime that will serve.
    pub fn hear_signals(&mut self) {
        self.heard = Some(Heard::new());
    }

    /// Serves HTTP, turns signals into commands and feeds systemd's watchdog, until the driver is gone.
    ///
    /// Belongs on a runtime other than the driver's, so that a busy driver is noticed.
    pub async fn serve(mut self) -> Result<(), AdminError> {
        let heard = self.heard.take().unwrap_or_else(Heard::new);
        let mut tasks = vec![tokio::spawn(signals(Arc::clone(&self.shared), heard))];
        if let Some(interval) = systemd::watchdog_interval() {
            tasks.push(tokio::spawn(watchdog(Arc::clone(&self.shared), interval)));
        }
        if let (Some(listener), Some(address)) = (self.listener.take(), self.address) {
            let listener =
                tokio::net::TcpListener::from_std(listener).map_err(|error| AdminError::Listen { address, error })?;
            let (shared, connections) = (Arc::clone(&self.shared), Arc::clone(&self.connections));
            tasks.push(tokio::spawn(accept(listener, shared, connections)));
        }
        self.shared.api.commands().closed().await;
        for task in tasks {
            task.abort();
        }
        Ok(())
    }
}

impl Drop for Admin {
    fn drop(&mut self) {
        if let Some(path) = &self.address_file {
            // A file left behind costs `parlor account` one refused connection.
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Reads the token, or makes one that only the broker's user can read.
fn token(path: &Path) -> Result<String, AdminError> {
    use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
    let file = |error| AdminError::File { path: path.to_owned(), error };
    match std::fs::read_to_string(path) {
        Ok(text) if text.trim().len() >= TOKEN_BYTES => {
            let mode = std::fs::metadata(path).map_err(file)?.permissions().mode() & 0o777;
            if mode & 0o007 != 0 {
                tracing::warn!(
                    path = %path.display(),
                    "every user of this machine can read the operator's token: chmod 600 it, or remove it and start again"
                );
            }
            return Ok(text.trim().to_owned());
        }
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(file(error)),
    }
    let mut bytes = [0_u8; TOKEN_BYTES];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut random| io::Read::read_exact(&mut random, &mut bytes))
        .map_err(AdminError::Random)?;
    let mut token = String::with_capacity(2 * TOKEN_BYTES);
    for byte in bytes {
        // Writing to a text cannot fail.
        let _ = write!(token, "{byte:02x}");
    }
    let mut options = std::fs::File::options();
    options.write(true).create(true).truncate(true).mode(0o600);
    options.open(path).and_then(|mut opened| writeln!(opened, "{token}")).map_err(file)?;
    Ok(token)
}

/// The next signal of a kind, or never where it cannot be had.
async fn next(signal: &mut Option<Signal>) {
    let arrived = match signal {
        Some(signal) => signal.recv().await,
        None => None,
    };
    if arrived.is_none() {
        std::future::pending::<()>().await;
    }
}

/// The signals that are heard.
struct Heard {
    reload: Option<Signal>,
    terminate: Option<Signal>,
    interrupt: Option<Signal>,
}

impl Heard {
    /// From now on none of them ends the process by itself.
    fn new() -> Self {
        let hear = |kind| {
            signal(kind)
                .inspect_err(|error| tracing::error!(%error, "a signal cannot be heard; end the broker with SIGKILL"))
                .ok()
        };
        Self {
            reload: hear(SignalKind::hangup()),
            terminate: hear(SignalKind::terminate()),
            interrupt: hear(SignalKind::interrupt()),
        }
    }
}

async fn signals(shared: Arc<Shared>, heard: Heard) {
    let Heard { mut reload, mut terminate, mut interrupt } = heard;
    let reloads = {
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            loop {
                next(&mut reload).await;
                // Its outcome is in the log.
                let _ = shared.api.reload().await;
            }
        })
    };
    let mut how = Shutdown::Drain;
    loop {
        // Both futures live only while one is awaited, and a signal that arrives in between is kept by its stream.
        std::future::poll_fn(|cx| {
            let heard = [&mut terminate, &mut interrupt]
                .into_iter()
                .any(|signal| signal.as_mut().is_some_and(|signal| signal.poll_recv(cx).is_ready()));
            if heard { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
        })
        .await;
        systemd::notify(systemd::Notice::Stopping);
        if shared.api.commands().send(Command::Shutdown(how)).await.is_err() {
            reloads.abort();
            return;
        }
        // Whoever asks twice does not want to wait.
        how = Shutdown::Now;
    }
}

async fn watchdog(shared: Arc<Shared>, interval: Duration) {
    loop {
        tokio::time::sleep(interval).await;
        if shared.api.ping().await.is_ok() {
            systemd::notify(systemd::Notice::Alive);
        }
    }
}

async fn accept(listener: tokio::net::TcpListener, shared: Arc<Shared>, connections: Arc<Semaphore>) {
    let mut limited = RateLimited::new(Duration::from_secs(10));
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                if let Ok(permit) = Arc::clone(&connections).try_acquire_owned() {
                    let shared = Arc::clone(&shared);
                    tokio::spawn(async move {
                        connection(stream, peer.ip(), shared).await;
                        drop(permit);
                    });
                } else if let Some(suppressed) = limited.admit(Instant::now(), "connections") {
                    tracing::warn!(%peer, suppressed, "operator's listener is full: closed; raise http.connections_max");
                }
            }
            Err(error) => {
                if let Some(suppressed) = limited.admit(Instant::now(), "accept") {
                    tracing::warn!(%error, suppressed, "operator's listener cannot accept; file descriptors may have run out");
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, peer: IpAddr, shared: Arc<Shared>) {
    let service = service_fn(move |request| {
        let shared = Arc::clone(&shared);
        async move { Ok::<_, Infallible>(respond(&shared, peer, request).await) }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_headers(HEADERS_MAX)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    match tokio::time::timeout(CONNECTION_TIME, serving).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "operator's connection broke"),
        Err(_) => tracing::debug!("operator's connection lasted too long"),
    }
}

async fn respond(shared: &Shared, peer: IpAddr, request: Request<Incoming>) -> Response<AdminBody> {
    let mut response = match answer(shared, peer, request).await {
        Ok(response) => response,
        Err(error) => refuse(&error),
    };
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    response
}

fn refuse(error: &ApiError) -> Response<AdminBody> {
    let mut response = Response::new(AdminBody::whole(error.json()));
    *response.status_mut() = error.status();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    match error {
        ApiError::Unauthorized => {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        ApiError::Method(allowed) => {
            if let Ok(allowed) = HeaderValue::from_str(&allowed.join(", ")) {
                headers.insert(ALLOW, allowed);
            }
        }
        _ => {}
    }
    if let Some(secs) = error.retry_after_secs() {
        headers.insert(RETRY_AFTER, HeaderValue::from(secs));
    }
    response
}

async fn answer(shared: &Shared, peer: IpAddr, request: Request<Incoming>) -> Result<Response<AdminBody>, ApiError> {
    let host = request.headers().get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    if !router::is_own_host(host, &shared.hosts) {
        return Err(ApiError::Host);
    }
    let (route, parameters) = match router::find(request.method().as_str(), request.uri().path()) {
        Found::Route(route, parameters) => (route, parameters),
        Found::OtherMethods(methods) => return Err(ApiError::Method(methods)),
        Found::Nothing => return Err(ApiError::NoRoute),
    };
    let caller = match route.access() {
        Access::Open => Caller::Anybody,
        _ if has_token(&request, &shared.token) => Caller::Operator,
        Access::Service => shared.api.service(bearer(&request)).await?,
        Access::Operator => return Err(ApiError::Unauthorized),
    };
    let parameters: Option<Vec<String>> = parameters.iter().map(|text| router::decode(text)).collect();
    let parameters = parameters.ok_or(ApiError::Path)?;
    let query =
        router::query(request.uri().query().unwrap_or_default(), route.query_keys()).map_err(ApiError::query)?;
    shared.api.call(route, Asked { caller, peer, parameters, query, body: request.into_body() }).await
}

fn has_token(request: &Request<Incoming>, token: &str) -> bool {
    // The time this takes does not depend on how much of the token is right.
    bearer(request).as_bytes().ct_eq(token.as_bytes()).into()
}

/// What the request carries as a bearer token (RFC 6750 s2.1); empty where it has none.
fn bearer(request: &Request<Incoming>) -> &str {
    let given = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    match given.split_once(' ') {
        Some((scheme, given)) if scheme.eq_ignore_ascii_case("bearer") => given.trim(),
        _ => "",
    }
}
