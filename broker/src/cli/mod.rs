//! The command line of `parlor`: what can be typed, and what it does.

mod blob;
mod client;
mod demo_tls;
mod im;
mod key;
mod operate;
mod progress;
mod prompt;
mod serve;
mod token;
mod update;

#[cfg(test)]
mod tests;

pub use serve::{Ready, SeedAccount, Start};

use crate::admin::AccountKind;
use crate::config::Sources;
use clap::{Args, Parser, Subcommand};
use std::error::Error;
use std::ffi::OsString;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// The broker behind the command line.
pub trait Engine {
    /// Runs the broker until it is told to end. An error means it could not start, or had to end; it says what to do.
    fn run(&self, start: Start) -> Result<(), Box<dyn Error>>;

    /// Opens the store of a broker that does not run. Fails where one runs: a store has one owner.
    fn open(&self, data: &Path) -> Result<Box<dyn Offline>, Box<dyn Error>>;
}

/// The store of a broker that does not run. Every change is durable when the call returns.
pub trait Offline {
    /// Every account: name and record, ascending by name.
    #[allow(clippy::type_complexity)] // A name for a list of pairs would hide what it is.
    fn accounts(&mut self) -> Result<Vec<(String, Vec<u8>)>, Box<dyn Error>>;

    /// Makes or changes an account.
    fn put_account(&mut self, name: &str, record: &[u8]) -> Result<(), Box<dyn Error>>;

    /// Removes an account; `false`: there was none.
    fn remove_account(&mut self, name: &str) -> Result<bool, Box<dyn Error>>;

    /// Writes a backup.
    fn backup(&mut self, to: &mut dyn Write) -> Result<(), Box<dyn Error>>;

    /// Replaces everything in the store with a backup.
    fn restore(&mut self, from: &mut dyn Read) -> Result<(), Box<dyn Error>>;
}

/// How the program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Done.
    Done = 0,
    /// It failed; the text on standard error says why.
    Failed = 1,
    /// The command line or the configuration is wrong.
    Usage = 2,
    /// What was named does not exist, or exists already.
    NoSuch = 3,
    /// No broker answers.
    NotRunning = 4,
    /// The time given was over.
    TimedOut = 5,
    /// A command: the device will not.
    Rejected = 6,
    /// A command: the deadline came before the device had it.
    Expired = 7,
    /// A command: the deadline came before there was an outcome.
    Late = 8,
    /// A command: somebody cancelled it.
    Canceled = 9,
    /// A command: the device restarted in the midst of it.
    UnknownOutcome = 10,
}

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  it failed; the text on standard error says why and what to do
  2  the command line or the configuration is wrong
  3  the account, session or blob named does not exist, or exists already
  4  no broker answers
  5  the time given was over; `parlor cmd --help` lists more, for the outcomes of commands

Documentation: docs/operations.md";

#[derive(Debug, Parser)]
#[command(name = "parlor", version, about = "An edge IoT messaging broker: MQTT in, on disk before it says yes.")]
#[command(after_help = EXIT_CODES, arg_required_else_help = true, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the broker in the foreground, logging to standard error, until SIGTERM.
    #[command(after_help = "\
Examples:
  parlor serve --config /etc/parlor/parlor.toml
  parlor serve --listen mqtt://127.0.0.1:1883 --listen ws://127.0.0.1:8083/mqtt --data DIR --allow-anonymous
  parlor serve --config parlor.toml --set limits.topic_alias_max=10 --log-level debug
  PARLOR_LIMITS__CONNECTIONS_MAX=1000 parlor serve --config parlor.toml

What counts: flags over PARLOR_ environment variables over the file over the defaults.
SIGHUP reads the configuration and the certificates again. SIGTERM tells clients to leave and ends.")]
    Serve(ServeArgs),
    /// Try it out: a broker on this machine only, with a household ready to use: two people, a lamp and a thermostat.
    #[command(after_help = "\
Examples:
  parlor demo
  parlor demo --listen mqtt://127.0.0.1:1884      another port, when 1883 is taken")]
    Demo(ServeArgs),
    /// Check a configuration file: prints every problem with its line, or OK and a summary.
    #[command(after_help = "\
Examples:
  parlor check-config parlor.toml
  parlor check-config parlor.toml --set log.level=debug

Exit code 2 when the broker could not start with it.")]
    CheckConfig(CheckArgs),
    /// Make, change, remove and list accounts, also while the broker runs.
    #[command(subcommand)]
    Account(AccountCommand),
    /// Look at sessions of a running broker, and end them.
    #[command(subcommand)]
    Session(SessionCommand),
    /// Put in firmware images for devices, list and remove them, and make the key that signs them.
    #[command(subcommand)]
    Blob(blob::BlobCommand),
    /// Write everything the store holds to a file, also while the broker runs.
    #[command(after_help = "\
Examples:
  parlor backup --data /var/lib/parlor parlor-backup
  parlor backup --config /etc/parlor/parlor.toml - | ssh nas 'cat > parlor-backup'")]
    Backup(BackupArgs),
    /// Replace everything the store holds with a backup.
    #[command(after_help = "\
Examples:
  parlor restore --data /var/lib/parlor parlor-backup
  parlor restore --data /var/lib/parlor --yes parlor-backup")]
    Restore(RestoreArgs),
    /// What the running broker does: listeners, connections, queues, store.
    Status(StatusArgs),
    /// Let the running broker read its configuration again, as SIGHUP does.
    Reload(Place),
    /// Talk: conversations in a terminal, or as lines of JSON for programs.
    Chat(im::chat::ChatArgs),
    /// Send a message.
    Send(im::send::SendArgs),
    /// Command a device, and see how it goes.
    #[command(name = "cmd")]
    Cmd(im::command::CommandArgs),
    /// Update a device over the air: put in the image, let the device fetch it, command it, and see how it goes.
    Update(update::UpdateArgs),
    /// Print everything that happens: messages, receipts, presence, states, commands.
    Watch(im::watch::WatchArgs),
    /// Be a device that does not exist: a lamp or a thermostat, as an ordinary MQTT client.
    Simulate(im::devices::run::SimulateArgs),
    /// Print the version.
    Version,
}

#[derive(Debug, Args, Default, Clone)]
struct ServeArgs {
    /// Configuration file (TOML). Also: `PARLOR_CONFIG`.
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Address to listen on; repeat for more. Replaces the listeners of the file. mqtt://, mqtts://, ws:// or wss://.
    #[arg(short, long, value_name = "URL")]
    listen: Vec<String>,
    /// Directory of the store.
    #[arg(short, long, value_name = "DIR")]
    data: Option<String>,
    /// Let clients without user name and password in, as the account `anonymous`.
    #[arg(long)]
    allow_anonymous: bool,
    /// What is worth a log line: off, error, warn, info, debug or trace.
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
    /// Address of the operator's HTTP listener, or `off`.
    #[arg(long, value_name = "ADDRESS")]
    http: Option<String>,
    /// Set any key of the configuration file; repeat for more.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
}

#[derive(Debug, Args)]
struct CheckArgs {
    /// The configuration file.
    file: PathBuf,
    /// Set any key of the configuration file; repeat for more.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
}

/// Which broker is meant.
#[derive(Debug, Args, Default, Clone)]
struct Place {
    /// Configuration file of the broker. Also: `PARLOR_CONFIG`.
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Directory of its store, where that is not in the configuration.
    #[arg(short, long, value_name = "DIR")]
    data: Option<String>,
}

#[derive(Debug, Subcommand)]
enum AccountCommand {
    /// Make an account; asks for its password.
    #[command(after_help = "\
Examples:
  parlor account add lamp --group devices
  parlor account add thermo1 --kind device --name \"Living room\"
  printf %s \"$PASSWORD\" | parlor account add lamp --password-stdin")]
    Add(AccountAdd),
    /// Give an account another password.
    #[command(after_help = "Example:\n  parlor account passwd lamp")]
    Passwd(AccountPasswd),
    /// List accounts and their groups.
    List(ListArgs),
    /// Remove an account and end its connections.
    #[command(visible_alias = "rm")]
    Remove(AccountRemove),
    /// Print a token that an account can log in with instead of its password, for a while.
    #[command(after_help = "\
Examples:
  parlor account token lamp --ttl 1h
  mosquitto_sub -u lamp -P \"$(parlor account token lamp --ttl 10m)\" -t 'home/#'

Another password for the account makes its tokens worth nothing.")]
    Token(AccountToken),
}

#[derive(Debug, Args)]
struct AccountAdd {
    /// Its name: 1 to 32 of a-z, 0-9, '.', '_' and '-'.
    name: String,
    /// A group it is in, for the rules; repeat for more.
    #[arg(short, long, value_name = "GROUP")]
    group: Vec<String>,
    /// What it is for messaging. The broker must run.
    #[arg(short, long, value_enum, value_name = "KIND")]
    kind: Option<AccountKind>,
    /// Its name for people. The broker must run.
    #[arg(long = "name", value_name = "DISPLAY")]
    display_name: Option<String>,
    /// Read the password from standard input instead of asking for it.
    #[arg(long)]
    password_stdin: bool,
    #[command(flatten)]
    place: Place,
}

#[derive(Debug, Args)]
struct AccountToken {
    /// Name of the account.
    name: String,
    /// How long it lives: 90s, 15m, 1h, 30d.
    #[arg(short, long, value_name = "TIME", default_value = "1h", value_parser = token::parse_ttl)]
    ttl: u64,
    /// A group it gives instead of those of the account; repeat for more.
    #[arg(short, long, value_name = "GROUP")]
    group: Vec<String>,
    #[command(flatten)]
    place: Place,
}

#[derive(Debug, Args)]
struct AccountPasswd {
    /// Its name.
    name: String,
    /// Read the password from standard input instead of asking for it.
    #[arg(long)]
    password_stdin: bool,
    #[command(flatten)]
    place: Place,
}

#[derive(Debug, Args)]
struct AccountRemove {
    /// Its name.
    name: String,
    #[command(flatten)]
    place: Place,
}

#[derive(Debug, Args)]
struct ListArgs {
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: Place,
}

#[derive(Debug, Subcommand)]
enum SessionCommand {
    /// List sessions, connected or not.
    List(SessionList),
    /// Everything about one session.
    Show(SessionName),
    /// End a client's connection.
    #[command(after_help = "\
Examples:
  parlor session kick lamp-7             it may come back, and its session waits for it
  parlor session kick lamp-7 --forget    its subscriptions and queued messages are gone too")]
    Kick(SessionKick),
}

#[derive(Debug, Args)]
struct SessionList {
    /// Only sessions of this account.
    #[arg(short, long)]
    account: Option<String>,
    /// Print JSON, one session a line.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: Place,
}

#[derive(Debug, Args)]
struct SessionName {
    /// MQTT client identifier.
    client_id: String,
    #[command(flatten)]
    place: Place,
}

#[derive(Debug, Args)]
struct SessionKick {
    /// MQTT client identifier.
    client_id: String,
    /// End the session too: subscriptions and queued messages are gone.
    #[arg(long)]
    forget: bool,
    #[command(flatten)]
    place: Place,
}

#[derive(Debug, Args)]
struct BackupArgs {
    /// File to write, which must not exist yet; `-` for standard output.
    file: PathBuf,
    #[command(flatten)]
    place: Place,
}

#[derive(Debug, Args)]
struct RestoreArgs {
    /// Backup to read; `-` for standard input.
    file: PathBuf,
    /// Do not ask.
    #[arg(short, long)]
    yes: bool,
    #[command(flatten)]
    place: Place,
}

#[derive(Debug, Args)]
struct StatusArgs {
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: Place,
}

/// Reads the command line of this process, does what it says, and gives its exit code.
pub fn main(engine: &dyn Engine) -> ExitCode {
    let environment = Sources::environment(std::env::vars_os());
    ExitCode::from(run(engine, std::env::args_os(), environment) as u8)
}

fn run(engine: &dyn Engine, line: impl Iterator<Item = OsString>, environment: Vec<(String, String)>) -> Exit {
    let cli = match Cli::try_parse_from(line) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are errors to the parser and go to standard output.
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage } else { Exit::Done };
        }
    };
    match cli.command {
        Command::Serve(args) => serve::serve(engine, args.sources(environment)),
        Command::Demo(args) => serve::demo(engine, &args, environment),
        Command::CheckConfig(args) => serve::check_config(args, environment),
        Command::Account(command) => operate::account(engine, command, environment),
        Command::Session(command) => operate::session(command, environment),
        Command::Blob(command) => blob::blob(command, environment),
        Command::Backup(args) => operate::backup(engine, &args, environment),
        Command::Restore(args) => operate::restore(engine, &args, environment),
        Command::Status(args) => operate::status(&args, environment),
        Command::Reload(place) => operate::reload(place, environment),
        Command::Chat(args) => im::chat::chat(&args, &environment),
        Command::Send(args) => im::send::send(&args, &environment),
        Command::Cmd(args) => im::command::command(&args, &environment),
        Command::Update(args) => update::update(&args, environment),
        Command::Watch(args) => im::watch::watch(&args, &environment),
        Command::Simulate(args) => im::devices::run::simulate(&args, &environment),
        Command::Version => {
            println!("parlor {}", env!("CARGO_PKG_VERSION"));
            Exit::Done
        }
    }
}

impl ServeArgs {
    fn sources(self, environment: Vec<(String, String)>) -> Sources {
        let mut sources = Sources { file: config_file(self.config, &environment), environment, ..Sources::default() };
        for pair in &self.set {
            sources.set_pair(pair);
        }
        sources.listen = self.listen;
        if let Some(data) = &self.data {
            sources.set("--data", "data", data);
        }
        if self.allow_anonymous {
            sources.set("--allow-anonymous", "auth.allow_anonymous", "true");
        }
        if let Some(level) = &self.log_level {
            sources.set("--log-level", "log.level", level);
        }
        match self.http.as_deref() {
            Some("off") => sources.set("--http", "http.enabled", "false"),
            Some(address) => sources.set("--http", "http.listen", address),
            None => {}
        }
        sources
    }
}

impl Place {
    fn sources(self, environment: Vec<(String, String)>) -> Sources {
        let mut sources = Sources { file: config_file(self.config, &environment), environment, ..Sources::default() };
        if let Some(data) = &self.data {
            sources.set("--data", "data", data);
        }
        sources
    }
}

/// The file of `--config`, or of `PARLOR_CONFIG`.
fn config_file(flag: Option<PathBuf>, environment: &[(String, String)]) -> Option<PathBuf> {
    let variable = || environment.iter().find(|(name, value)| name == "PARLOR_CONFIG" && !value.is_empty());
    flag.or_else(|| variable().map(|(_, value)| PathBuf::from(value)))
}

/// Says on standard error what went wrong.
fn complain(error: &dyn std::fmt::Display) {
    eprintln!("parlor: {error}");
}
