//! Where the broker is and who one is there: flags over the environment over the client's configuration file.

use crate::cli::prompt::{PromptError, hidden};
use clap::Args;
use parlor_client::{Secret, Target, TargetError};
use std::io::{self, BufRead, IsTerminal, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use toml::de::DeTable;

/// Which broker, and who one is there.
#[derive(Debug, Args, Default, Clone)]
pub(in crate::cli) struct ConnectArgs {
    /// The broker: `SCHEME://HOST[:PORT]`; scheme mqtt, mqtts, ws, wss, mqtt+quic, parlor, parlor+tcp or parlor+tls.
    /// Default: `mqtt://127.0.0.1`.
    #[arg(long, value_name = "URL", help_heading = "Connection")]
    pub url: Option<String>,
    /// The account to log in as.
    #[arg(short, long, value_name = "ACCOUNT", help_heading = "Connection")]
    pub user: Option<String>,
    /// Read the password from the first line of standard input. Otherwise `PARLOR_PASSWORD`, the configuration file, or asked for.
    #[arg(long, help_heading = "Connection")]
    pub password_stdin: bool,
    /// Where the broker shows a certificate: those of the authorities (PEM) to trust instead of the system's.
    #[arg(long, value_name = "FILE", help_heading = "Connection")]
    pub ca: Option<PathBuf>,
    /// MQTT client identifier, which names this terminal of the account. Default: one kept for this user and machine.
    #[arg(long, value_name = "CLIENT_ID", help_heading = "Connection")]
    pub terminal: Option<String>,
    /// Log in to the demo on this machine as one of its accounts: alice, bob, lamp, thermo1.
    #[arg(long, value_name = "ACCOUNT", conflicts_with_all = ["user", "password_stdin"], help_heading = "Connection")]
    pub demo: Option<String>,
    /// Configuration file of the client. Default: `~/.config/parlor/client.toml`.
    #[arg(long, value_name = "FILE", help_heading = "Connection")]
    pub client_config: Option<PathBuf>,
}

/// What the help of every command says about connections, to be put together with what is its own.
macro_rules! connection_help {
    ($own:literal) => {
        concat!(
            $own,
            "

~/.config/parlor/client.toml may hold url, user, password, ca and terminal, each a text; with a password only its owner may
read it (chmod 600). PARLOR_PASSWORD holds the password for one command. Passwords are never given as arguments."
        )
    };
}
pub(in crate::cli) use connection_help;

/// Everything needed for a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cli) struct Options {
    pub target: Target,
    pub user: String,
    pub password: Secret,
    pub ca: Option<PathBuf>,
    pub terminal: Option<String>,
}

/// The connection is not described well enough.
#[derive(Debug, thiserror::Error)]
pub(in crate::cli) enum OptionsError {
    #[error(transparent)]
    Url(#[from] TargetError),
    #[error("{scheme}://…: user name and password do not belong into --url, where others see them: use --user")]
    Credentials { scheme: &'static str },
    #[error("who are you? name the account with --user, or as `user = \"…\"` in {}", .0.display())]
    NoUser(PathBuf),
    #[error(
        "--demo is for the demo on this machine, whose passwords everybody knows; {0} is elsewhere: use --user and a password"
    )]
    DemoElsewhere(Target),
    #[error("the demo has no account `{0}`; it has alice, bob, lamp and thermo1")]
    NoDemoAccount(String),
    #[error("others may read the password in {}: chmod 600 {}", .0.display(), .0.display())]
    Readable(PathBuf),
    #[error("cannot read {}: {error}", .path.display())]
    File { path: PathBuf, error: io::Error },
    #[error("{}: {why}", .path.display())]
    Content { path: PathBuf, why: String },
    #[error("`{0}` is no client identifier: 1 to 64 visible characters")]
    Terminal(String),
    #[error("{error}; set PARLOR_PASSWORD, or write `password = \"…\"` into {}", .path.display())]
    Password { error: PromptError, path: PathBuf },
}

/// Longest client configuration file read, bytes.
const FILE_BYTES_MAX: u64 = 64 * 1024;
/// Longest password read, bytes.
const PASSWORD_BYTES_MAX: u64 = 4_096;

impl ConnectArgs {
    /// Puts flags, environment and file together; asks for the password if nobody has said it.
    pub fn options(&self, environment: &[(String, String)]) -> Result<Options, OptionsError> {
        let (path, is_named) = match &self.client_config {
            Some(path) => (path.clone(), true),
            None => (config_dir().join("parlor/client.toml"), false),
        };
        let file = match &self.demo {
            // The demo's accounts are not the person's own.
            Some(_) if !is_named => File::default(),
            _ => File::load(&path, is_named)?,
        };
        let url = self.url.clone().or(file.url).unwrap_or_else(|| "mqtt://127.0.0.1".to_owned());
        let target = target(&url)?;
        let terminal = self.terminal.clone().or(file.terminal);
        if let Some(name) = &terminal
            && (name.is_empty() || name.chars().count() > 64 || name.chars().any(char::is_control))
        {
            return Err(OptionsError::Terminal(name.clone()));
        }
        let ca = self.ca.clone().or(file.ca.map(PathBuf::from));
        let (user, password) = if let Some(account) = &self.demo {
            (account.clone(), demo_password(account, &target)?)
        } else {
            let user = self.user.clone().or(file.user).ok_or_else(|| OptionsError::NoUser(path.clone()))?;
            let password = match file.password {
                _ if self.password_stdin => {
                    password_from_stdin().map_err(|error| OptionsError::Password { error, path })?
                }
                password => password_from_environment(environment).or(password).map_or_else(|| ask(&user, path), Ok)?,
            };
            (user, password)
        };
        Ok(Options { target, user, password: Secret(password), ca, terminal })
    }
}

fn demo_password(account: &str, target: &Target) -> Result<String, OptionsError> {
    let host = target.bare_host();
    let is_here = host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
    if !is_here {
        return Err(OptionsError::DemoElsewhere(target.clone()));
    }
    let seed = crate::cli::serve::DEMO_ACCOUNTS.iter().find(|seed| seed.name == account);
    seed.map(|seed| seed.password.to_owned()).ok_or_else(|| OptionsError::NoDemoAccount(account.to_owned()))
}

fn password_from_environment(environment: &[(String, String)]) -> Option<String> {
    let variable = environment.iter().find(|(name, value)| name == "PARLOR_PASSWORD" && !value.is_empty());
    variable.map(|(_, value)| value.clone())
}

/// Takes the first line; what follows on standard input is left to the command.
fn password_from_stdin() -> Result<String, PromptError> {
    let mut line = String::new();
    io::stdin().lock().take(PASSWORD_BYTES_MAX).read_line(&mut line).map_err(PromptError::Input)?;
    let line = line.trim_end_matches(['\n', '\r']);
    if line.is_empty() { Err(PromptError::Cancelled) } else { Ok(line.to_owned()) }
}

fn ask(user: &str, path: PathBuf) -> Result<String, OptionsError> {
    if !io::stdin().is_terminal() {
        let why = io::Error::new(io::ErrorKind::NotConnected, "standard input is no terminal");
        return Err(OptionsError::Password { error: PromptError::NoTerminal(why), path });
    }
    hidden(&format!("Password of {user}: ")).map_err(|error| OptionsError::Password { error, path })
}

/// Reads a URL, which names nobody.
fn target(url: &str) -> Result<Target, OptionsError> {
    let (target, named) = Target::parse(url)?;
    if named.user.is_some() || named.password.is_some() {
        return Err(OptionsError::Credentials { scheme: target.scheme.word() });
    }
    Ok(target)
}

/// What the client's configuration file says.
#[derive(Debug, Default, PartialEq, Eq)]
struct File {
    url: Option<String>,
    user: Option<String>,
    password: Option<String>,
    ca: Option<String>,
    terminal: Option<String>,
}

impl File {
    /// Reads it; one that was not asked for may be missing.
    fn load(path: &Path, is_named: bool) -> Result<Self, OptionsError> {
        let failed = |error| OptionsError::File { path: path.to_owned(), error };
        let file = match std::fs::File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound && !is_named => return Ok(Self::default()),
            Err(error) => return Err(failed(error)),
        };
        let mode = file.metadata().map_err(failed)?.permissions().mode();
        let mut text = String::new();
        file.take(FILE_BYTES_MAX).read_to_string(&mut text).map_err(failed)?;
        let read = Self::parse(&text).map_err(|why| OptionsError::Content { path: path.to_owned(), why })?;
        if read.password.is_some() && mode & 0o077 != 0 {
            return Err(OptionsError::Readable(path.to_owned()));
        }
        Ok(read)
    }

    fn parse(text: &str) -> Result<Self, String> {
        let table = DeTable::parse(text).map_err(|error| error.message().to_owned())?;
        let mut read = Self::default();
        for (key, value) in table.into_inner() {
            let key = key.into_inner();
            let place = match key.as_ref() {
                "url" => &mut read.url,
                "user" => &mut read.user,
                "password" => &mut read.password,
                "ca" => &mut read.ca,
                "terminal" => &mut read.terminal,
                other => {
                    return Err(format!("there is no key `{other}`; there are url, user, password, ca and terminal"));
                }
            };
            let text = value.get_ref().as_str().ok_or_else(|| format!("`{key}` must be a text in quotes"))?;
            *place = Some(text.to_owned());
        }
        Ok(read)
    }
}

fn config_dir() -> PathBuf {
    directory("XDG_CONFIG_HOME", ".config")
}

/// Where a user's files of one kind lie.
pub(super) fn directory(variable: &str, below_home: &str) -> PathBuf {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set(variable).unwrap_or_else(|| set("HOME").unwrap_or_default().join(below_home))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_road_has_its_scheme_and_nobody_is_named_in_it() {
        for scheme in parlor_client::Scheme::ALL {
            let read = target(&format!("{}://home.lan", scheme.word())).unwrap();
            assert_eq!((read.scheme, read.port), (scheme, scheme.port()));
        }
        let text = target("http://a").unwrap_err().to_string();
        assert!(text.contains("parlor+tls") && text.contains("mqtt://127.0.0.1"), "{text}");
        let text = target("mqtt://alice:geheim@a").unwrap_err().to_string();
        assert!(text.contains("--user") && !text.contains("geheim"), "{text}");
    }

    #[test]
    fn the_file_holds_five_texts() {
        let file = File::parse("url = \"mqtt://a\"\nuser = \"alice\"\npassword = \"p\"\nca = \"c\"\nterminal = \"t\"")
            .unwrap();
        let some = |text: &str| Some(text.to_owned());
        let expect = File {
            url: some("mqtt://a"),
            user: some("alice"),
            password: some("p"),
            ca: some("c"),
            terminal: some("t"),
        };
        assert_eq!(file, expect);
        assert!(File::parse("usr = \"a\"").unwrap_err().contains("no key `usr`"));
        assert!(File::parse("user = 1").unwrap_err().contains("in quotes"));
        assert!(File::parse("user = ").is_err());
    }

    #[test]
    fn a_password_others_may_read_is_not_used() {
        let path = std::env::temp_dir().join(format!("parlor-client-{}.toml", std::process::id()));
        std::fs::write(&path, "user = \"alice\"\npassword = \"p\"").unwrap();
        let mode = |mode| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        let args = ConnectArgs { client_config: Some(path.clone()), ..ConnectArgs::default() };
        mode(0o644);
        assert!(matches!(args.options(&[]), Err(OptionsError::Readable(_))));
        mode(0o600);
        let options = args.options(&[]).unwrap();
        assert_eq!((options.user.as_str(), options.password.0.as_str()), ("alice", "p"));
        assert!(!format!("{options:?}").contains("\"p\""));
        let environment = [("PARLOR_PASSWORD".to_owned(), "q".to_owned())];
        assert_eq!(args.options(&environment).unwrap().password.0, "q");
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(args.options(&[]), Err(OptionsError::File { .. })));
    }

    #[test]
    fn the_demos_passwords_are_for_the_demo() {
        let args = |url: &str, demo: &str| ConnectArgs {
            url: Some(url.to_owned()),
            demo: Some(demo.to_owned()),
            ..ConnectArgs::default()
        };
        let options = args("mqtt://[::1]:1", "alice").options(&[]).unwrap();
        assert_eq!((options.user.as_str(), options.password.0.as_str()), ("alice", "parlor-demo"));
        assert!(args("mqtt://localhost", "bob").options(&[]).is_ok());
        assert!(matches!(args("mqtt://home.lan", "bob").options(&[]), Err(OptionsError::DemoElsewhere(_))));
        assert!(matches!(args("mqtt://127.0.0.1", "carol").options(&[]), Err(OptionsError::NoDemoAccount(_))));
    }
}
