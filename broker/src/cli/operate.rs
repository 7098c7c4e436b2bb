//! The commands that work on a broker: over its HTTP API while it runs, on its store when it does not.

use super::client::{Client, ClientError, segment};
use super::key::KeyError;
use super::progress::{Counted, Progress};
use super::prompt::{PromptError, confirm, new_password, password_from};
use super::serve::misconfigured;
use super::{
    AccountAdd, AccountCommand, AccountToken, BackupArgs, Engine, Exit, Offline, Place, RestoreArgs, SessionCommand,
    StatusArgs, complain,
};
use crate::admin::AccountRow;
use crate::admin::accounts::{self, AccountError};
use crate::config::Config;
use crate::store::disk::DirError;
use serde_json::{Value, json};
use std::error::Error;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

/// A command could not be carried out.
#[derive(Debug, thiserror::Error)]
pub(super) enum OperateError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(transparent)]
    Prompt(#[from] PromptError),
    #[error(transparent)]
    Account(#[from] AccountError),
    #[error("{0}")]
    Store(Box<dyn Error>),
    #[error(
        "a broker runs on {}, and cannot be reached because its HTTP listener is off: start it without --http off, or stop \
         it while you run this", .0.display()
    )]
    Unreachable(PathBuf),
    #[error("there is no store in {}; name the right directory with --config or --data", .0.display())]
    NoStore(PathBuf),
    #[error(
        "{} belongs to user {owner}, and you are user {me}: a broker of that user could not read what you write; \
         run this as `sudo -u '#{owner}' parlor …`, or while the broker runs", .path.display()
    )]
    OtherOwner { path: PathBuf, owner: u32, me: u32 },
    #[error("no broker runs on {}: start it with `parlor serve`, or name the right one with --config or --data", .0.display())]
    NotRunning(PathBuf),
    #[error("there is no account `{0}`; `parlor account list` shows them all")]
    NoAccount(String),
    #[error("there is an account `{0}` already; `parlor account passwd {0}` changes its password")]
    AccountExists(String),
    #[error("there is no session `{0}`; `parlor session list` shows them all")]
    NoSession(String),
    #[error("cannot use {}: {error}", .path.display())]
    File { path: PathBuf, error: io::Error },
    #[error("{} exists already; choose another name or move it away", .0.display())]
    FileExists(PathBuf),
    #[error("there is no blob `{0}`; `parlor blob list` shows them all")]
    NoBlob(String),
    #[error("several blobs begin with `{0}`; write more of the one that is meant")]
    SeveralBlobs(String),
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error("nothing was changed")]
    Declined,
}

impl OperateError {
    pub(super) fn exit(&self) -> Exit {
        match self {
            Self::NotRunning(_) => Exit::NotRunning,
            Self::NoAccount(_) | Self::AccountExists(_) | Self::NoSession(_) | Self::NoBlob(_) => Exit::NoSuch,
            Self::Account(AccountError::Name(_) | AccountError::Password(_) | AccountError::DisplayName) => Exit::Usage,
            _ => Exit::Failed,
        }
    }
}

/// The broker meant, as it was found.
enum Found {
    Running(Client),
    Stopped(PathBuf),
}

pub(super) fn finish(result: Result<(), OperateError>) -> Exit {
    match result {
        Ok(()) => Exit::Done,
        // Whoever reads our output may stop when it has seen enough.
        Err(OperateError::File { error, .. }) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Done,
        Err(error) => {
            complain(&error);
            error.exit()
        }
    }
}

fn find(data: &Path) -> Result<Found, OperateError> {
    Ok(Client::find(data)?.map_or_else(|| Found::Stopped(data.to_owned()), Found::Running))
}

pub(super) fn running(data: &Path) -> Result<Client, OperateError> {
    match find(data)? {
        Found::Running(client) => Ok(client),
        Found::Stopped(data) => Err(OperateError::NotRunning(data)),
    }
}

/// Opens the store of a broker that does not run, and that exists already.
fn open(engine: &dyn Engine, data: &Path) -> Result<Box<dyn Offline>, OperateError> {
    if data.exists() { open_or_make(engine, data) } else { Err(OperateError::NoStore(data.to_owned())) }
}

fn open_or_make(engine: &dyn Engine, data: &Path) -> Result<Box<dyn Offline>, OperateError> {
    use std::os::unix::fs::MetadataExt;
    if let Ok(found) = std::fs::metadata(data) {
        let (owner, me) = (found.uid(), rustix::process::geteuid().as_raw());
        if owner != me {
            return Err(OperateError::OtherOwner { path: data.to_owned(), owner, me });
        }
    }
    engine.open(data).map_err(|error| match error.downcast_ref() {
        Some(DirError::InUse { .. }) => OperateError::Unreachable(data.to_owned()),
        _ => OperateError::Store(error),
    })
}

/// The configuration of the broker meant. Its warnings are for who starts it.
pub(super) fn config_of(place: Place, environment: Vec<(String, String)>) -> Result<Config, Exit> {
    match place.sources(environment).load() {
        Ok(loaded) => Ok(loaded.config),
        Err(report) => Err(misconfigured(&report)),
    }
}

pub(super) fn print_lines(text: &str) -> Result<(), OperateError> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|error| OperateError::File { path: "standard output".into(), error })
}

/// `parlor account …`
pub(super) fn account(engine: &dyn Engine, command: AccountCommand, environment: Vec<(String, String)>) -> Exit {
    let place = match &command {
        AccountCommand::Add(args) => &args.place,
        AccountCommand::Passwd(args) => &args.place,
        AccountCommand::List(args) => &args.place,
        AccountCommand::Remove(args) => &args.place,
        AccountCommand::Token(args) => &args.place,
    };
    let config = match config_of(place.clone(), environment) {
        Ok(config) => config,
        Err(exit) => return exit,
    };
    finish(match command {
        AccountCommand::Add(args) => add(engine, &config, &args),
        AccountCommand::Passwd(args) => passwd(engine, &config, &args.name, args.password_stdin),
        AccountCommand::List(args) => list(engine, &config.data, args.json),
        AccountCommand::Remove(args) => remove(engine, &config.data, &args.name),
        AccountCommand::Token(args) => token(&config.data, &args),
    })
}

fn password(name: &str, from_stdin: bool) -> Result<String, OperateError> {
    let password = if from_stdin { password_from(io::stdin().lock())? } else { new_password(name)? };
    accounts::check_password(&password)?;
    Ok(password)
}

fn add(engine: &dyn Engine, config: &Config, args: &AccountAdd) -> Result<(), OperateError> {
    let AccountAdd { name, group: groups, kind, display_name, password_stdin: stdin, .. } = args;
    accounts::check_name(name)?;
    if let Some(display_name) = display_name {
        accounts::check_display_name(display_name)?;
    }
    match find(&config.data)? {
        Found::Running(client) => {
            let mut body = json!({ "name": name, "password": password(name, *stdin)?, "groups": groups });
            if let Some(kind) = kind {
                body["kind"] = kind.word().into();
            }
            if let Some(display_name) = display_name {
                body["display_name"] = display_name.as_str().into();
            }
            let answer = client.call("POST", "/accounts", Some(&body))?;
            if answer.status == 409 {
                return Err(OperateError::AccountExists(name.to_owned()));
            }
            answer.done()?;
        }
        // Both are part of what messaging keeps, which only the broker writes.
        Found::Stopped(data) if kind.is_some() || display_name.is_some() => return Err(OperateError::NotRunning(data)),
        Found::Stopped(data) => {
            let mut store = open_or_make(engine, &data)?;
            if record(store.as_mut(), name)?.is_some() {
                return Err(OperateError::AccountExists(name.to_owned()));
            }
            let record = accounts::make(&password(name, *stdin)?, groups, &config.auth.passwords)?;
            store.put_account(name, &record).map_err(OperateError::Store)?;
        }
    }
    eprintln!("account {name} made");
    Ok(())
}

/// Prints a token and nothing else, so that it can be used in another command.
fn token(data: &Path, args: &AccountToken) -> Result<(), OperateError> {
    let mut body = json!({ "ttl_s": args.ttl });
    if !args.group.is_empty() {
        body["groups"] = args.group.as_slice().into();
    }
    let answer = running(data)?.call("POST", &format!("/accounts/{}/token", segment(&args.name)), Some(&body))?;
    if answer.status == 404 {
        return Err(OperateError::NoAccount(args.name.clone()));
    }
    let issued = answer.done()?;
    print_lines(&format!("{}\n", issued["token"].as_str().unwrap_or_default()))
}

fn passwd(engine: &dyn Engine, config: &Config, name: &str, stdin: bool) -> Result<(), OperateError> {
    match find(&config.data)? {
        Found::Running(client) => {
            let body = json!({ "password": password(name, stdin)? });
            let answer = client.call("PUT", &format!("/accounts/{}", segment(name)), Some(&body))?;
            if answer.status == 404 {
                return Err(OperateError::NoAccount(name.to_owned()));
            }
            answer.done()?;
        }
        Found::Stopped(data) => {
            let mut store = open(engine, &data)?;
            let before = record(store.as_mut(), name)?.ok_or_else(|| OperateError::NoAccount(name.to_owned()))?;
            let change = accounts::Change { password: Some(password(name, stdin)?), ..accounts::Change::default() };
            let record = accounts::change(&before, &change, &config.auth.passwords)?;
            store.put_account(name, &record).map_err(OperateError::Store)?;
        }
    }
    eprintln!("password of {name} changed");
    Ok(())
}

fn remove(engine: &dyn Engine, data: &Path, name: &str) -> Result<(), OperateError> {
    let removed = match find(data)? {
        Found::Running(client) => {
            let answer = client.call("DELETE", &format!("/accounts/{}", segment(name)), None)?;
            if answer.status == 404 { false } else { answer.done().map(|_| true)? }
        }
        Found::Stopped(data) => open(engine, &data)?.remove_account(name).map_err(OperateError::Store)?,
    };
    if !removed {
        return Err(OperateError::NoAccount(name.to_owned()));
    }
    eprintln!("account {name} removed");
    Ok(())
}

fn record(store: &mut dyn Offline, name: &str) -> Result<Option<Vec<u8>>, OperateError> {
    let accounts = store.accounts().map_err(OperateError::Store)?;
    Ok(accounts.into_iter().find(|(found, _)| found == name).map(|(_, record)| record))
}

fn list(engine: &dyn Engine, data: &Path, as_json: bool) -> Result<(), OperateError> {
    let rows: Vec<AccountRow> = match find(data)? {
        Found::Running(client) => {
            let body = client.call("GET", "/accounts", None)?.done()?;
            serde_json::from_value(body["items"].clone()).map_err(|error| OperateError::Store(error.into()))?
        }
        Found::Stopped(data) => {
            let stored = open(engine, &data)?.accounts().map_err(OperateError::Store)?;
            stored.iter().map(|(name, record)| accounts::row(name, record)).collect::<Result<_, _>>()?
        }
    };
    if as_json {
        return print_lines(&format!("{}\n", json!(rows)));
    }
    let width = rows.iter().map(|row| row.name.len()).max().unwrap_or_default();
    let mut text = String::new();
    for row in rows {
        let disabled = if row.disabled { "  (disabled)" } else { "" };
        let line = format!("{:width$}  {}{disabled}", row.name, row.groups.join(", "));
        text.push_str(line.trim_end());
        text.push('\n');
    }
    print_lines(&text)
}

/// `parlor session …`
pub(super) fn session(command: SessionCommand, environment: Vec<(String, String)>) -> Exit {
    let place = match &command {
        SessionCommand::List(args) => &args.place,
        SessionCommand::Show(args) => &args.place,
        SessionCommand::Kick(args) => &args.place,
    };
    let config = match config_of(place.clone(), environment) {
        Ok(config) => config,
        Err(exit) => return exit,
    };
    finish(match command {
        SessionCommand::List(args) => sessions(&config.data, args.account.as_deref(), args.json),
        SessionCommand::Show(args) => show(&config.data, &args.client_id),
        SessionCommand::Kick(args) => kick(&config.data, &args.client_id, args.forget),
    })
}

fn sessions(data: &Path, account: Option<&str>, as_json: bool) -> Result<(), OperateError> {
    let client = running(data)?;
    let mut after: Option<String> = None;
    if !as_json {
        print_lines("client id                         account             state         queued  subscriptions\n")?;
    }
    loop {
        let mut path = "/sessions?limit=500".to_owned();
        for (key, value) in [("after", after.as_deref()), ("account", account)] {
            if let Some(value) = value {
                let _ = write!(path, "&{key}={}", segment(value));
            }
        }
        let page = client.call("GET", &path, None)?.done()?;
        let mut text = String::new();
        for row in page["items"].as_array().into_iter().flatten() {
            if as_json {
                let _ = writeln!(text, "{row}");
                continue;
            }
            let state = if row["connection"].is_object() { "connected" } else { "away" };
            let _ = writeln!(
                text,
                "{:33} {:19} {state:10} {:>9} {:>14}",
                printable(&row["client_id"]),
                printable(&row["account"]),
                row["queue_messages"].to_string(),
                row["subscriptions"].to_string()
            );
        }
        print_lines(&text)?;
        after = page["next"].as_str().map(str::to_owned);
        if after.is_none() {
            return Ok(());
        }
    }
}

/// Text a client chose, fit for a terminal.
pub(super) fn printable(value: &Value) -> String {
    value.as_str().unwrap_or_default().chars().map(|c| if c.is_control() { '\u{FFFD}' } else { c }).collect()
}

fn show(data: &Path, client_id: &str) -> Result<(), OperateError> {
    let answer = running(data)?.call("GET", &format!("/sessions/{}", segment(client_id)), None)?;
    if answer.status == 404 {
        return Err(OperateError::NoSession(client_id.to_owned()));
    }
    let body = answer.done()?;
    print_lines(&format!("{body:#}\n"))
}

fn kick(data: &Path, client_id: &str, forget: bool) -> Result<(), OperateError> {
    let query = if forget { "?forget=true" } else { "" };
    let answer = running(data)?.call("DELETE", &format!("/sessions/{}{query}", segment(client_id)), None)?;
    if answer.status == 404 {
        return Err(OperateError::NoSession(client_id.to_owned()));
    }
    answer.done()?;
    eprintln!("{}", if forget { "connection and session ended" } else { "connection ended" });
    Ok(())
}

/// `parlor status`
pub(super) fn status(args: &StatusArgs, environment: Vec<(String, String)>) -> Exit {
    let config = match config_of(args.place.clone(), environment) {
        Ok(config) => config,
        Err(exit) => return exit,
    };
    finish((|| {
        let data = &config.data;
        let body = running(data)?.call("GET", "/status", None)?.done()?;
        if args.json { print_lines(&format!("{body}\n")) } else { print_lines(&status_text(&body)) }
    })())
}

fn status_text(body: &Value) -> String {
    let text = |key: &str| body[key].as_str().unwrap_or("?").to_owned();
    let mut lines = vec![
        format!("version        {}", text("version")),
        format!("state          {}, for {} s", text("state"), body["uptime_secs"]),
    ];
    for listener in body["listeners"].as_array().into_iter().flatten() {
        let word = |key: &str| listener[key].as_str().unwrap_or("?").to_owned();
        lines.push(format!(
            "listener       {}  on {}: {} connections",
            word("url"),
            word("address"),
            listener["connections"]
        ));
    }
    for (title, key) in [("connections", "connections"), ("sessions", "sessions"), ("subscriptions", "subscriptions")] {
        lines.push(format!("{title:14} {}", body[key]));
    }
    lines.push(format!("retained       {} messages, {} bytes", body["retained_messages"], body["retained_bytes"]));
    lines.push(format!("queued         {} messages, {} bytes", body["queue_messages"], body["queue_bytes"]));
    lines.push(format!("accounts       {}", body["accounts"]));
    let store = &body["store"];
    lines.push(format!(
        "store          {} {}",
        store["state"].as_str().unwrap_or("?"),
        store["text"].as_str().unwrap_or_default()
    ));
    let mut text = String::new();
    for line in &lines {
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

/// `parlor reload`
pub(super) fn reload(place: Place, environment: Vec<(String, String)>) -> Exit {
    let config = match config_of(place, environment) {
        Ok(config) => config,
        Err(exit) => return exit,
    };
    finish((|| {
        let data = &config.data;
        let body = running(data)?.call("POST", "/reload", None)?.done()?;
        eprint!("{}", body["warnings"].as_str().unwrap_or_default());
        let later: Vec<&str> =
            body["needs_restart"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        if later.is_empty() {
            eprintln!("configuration taken over");
        } else {
            eprintln!("configuration taken over; what changed in {} counts from the next start", later.join(", "));
        }
        Ok(())
    })())
}

/// `parlor backup`
pub(super) fn backup(engine: &dyn Engine, args: &BackupArgs, environment: Vec<(String, String)>) -> Exit {
    let config = match config_of(args.place.clone(), environment) {
        Ok(config) => config,
        Err(exit) => return exit,
    };
    finish(if args.file.as_os_str() == "-" {
        backup_to(engine, &config.data, io::stdout().lock()).map(drop)
    } else {
        backup_to_file(engine, &config.data, &args.file)
    })
}

/// Under its own name the file appears only when it is complete and on disk.
fn backup_to_file(engine: &dyn Engine, data: &Path, path: &Path) -> Result<(), OperateError> {
    if path.exists() {
        return Err(OperateError::FileExists(path.to_owned()));
    }
    let mut part = path.as_os_str().to_owned();
    part.push(".part");
    let part = PathBuf::from(part);
    let failed = |error| OperateError::File { path: part.clone(), error };
    let file = private(&part).map_err(failed)?;
    let written = backup_to(engine, data, BufWriter::new(file))
        .and_then(|writer| writer.into_inner().map_err(|error| failed(error.into_error())))
        .and_then(|file| file.sync_all().map_err(failed))
        .and_then(|()| std::fs::rename(&part, path).map_err(failed));
    if written.is_err() {
        let _ = std::fs::remove_file(&part);
    }
    written
}

/// A new file only its owner can read: a backup has password hashes in it.
fn private(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    File::options().write(true).create(true).truncate(true).mode(0o600).open(path)
}

fn backup_to<W: Write>(engine: &dyn Engine, data: &Path, writer: W) -> Result<W, OperateError> {
    let mut to = Counted::new(writer, Progress::new("backed up"));
    match find(data)? {
        Found::Running(client) => {
            client.download("/backup", &mut to, |_| ())?;
        }
        Found::Stopped(data) => open(engine, &data)?.backup(&mut to).map_err(OperateError::Store)?,
    }
    to.flush().map_err(|error| OperateError::File { path: "the backup".into(), error })?;
    to.progress.end(to.bytes);
    Ok(to.inner)
}

/// `parlor restore`
pub(super) fn restore(engine: &dyn Engine, args: &RestoreArgs, environment: Vec<(String, String)>) -> Exit {
    let config = match config_of(args.place.clone(), environment) {
        Ok(config) => config,
        Err(exit) => return exit,
    };
    finish((|| {
        let data = &config.data;
        let from_stdin = args.file.as_os_str() == "-";
        let failed = |error| OperateError::File { path: args.file.clone(), error };
        let input: Box<dyn Read> =
            if from_stdin { Box::new(io::stdin().lock()) } else { Box::new(File::open(&args.file).map_err(failed)?) };
        let question = format!("Everything in {} will be replaced by {}.", data.display(), args.file.display());
        // Standard input cannot hold the backup and the answer.
        if !args.yes && (from_stdin || !confirm(&question)) {
            return Err(OperateError::Declined);
        }
        let mut from = Counted::new(BufReader::new(input), Progress::new("read"));
        let text = match find(data)? {
            Found::Running(client) => {
                let body = client.upload("/restore", &mut from, |_| ())?.done()?;
                body["text"].as_str().unwrap_or_default().to_owned()
            }
            Found::Stopped(data) => {
                open_or_make(engine, &data)?.restore(&mut from).map_err(OperateError::Store)?;
                "restored".to_owned()
            }
        };
        from.progress.end(from.bytes);
        eprintln!("{text}");
        Ok(())
    })())
}
