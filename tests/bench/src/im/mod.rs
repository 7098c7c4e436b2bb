//! The messaging loads: accounts with contacts that write to each other over MQTT, everything durable.
//!
//! There is no peer to compare with, so each figure stands beside what the disk takes for one sync of 4 KiB.

mod clients;
mod loads;

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub(crate) use clients::token;

use crate::client::LoadError;
use crate::process::{Process, ProcessError};

/// The help text.
pub const HELP: &str = "\
parlor-bench im: messaging over MQTT with everything on disk before it is acknowledged

    cargo run --release -p parlor-bench -- im [OPTIONS]

  --only LOAD,..      direct, offline, group, announce, sync, command, rates [all]
  --messages N        messages of the direct load [2000000]
  --accounts N        accounts of it [10000]
  --parlor FILE       Parlor's program [beside this one]
  --parlor-arg ARG    add ARG to `parlor serve`; may be repeated
  --scratch DIR       where the data directory is made [beside this program]
";

/// How to measure.
#[derive(Debug, Clone)]
pub struct Options {
    only: Vec<String>,
    messages: u64,
    accounts: u32,
    parlor: PathBuf,
    parlor_args: Vec<String>,
    scratch: PathBuf,
}

/// A load could not be run.
#[derive(Debug, thiserror::Error)]
pub enum ImError {
    /// A connection.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// A file or process.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The broker's process.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// The command line.
    #[error("{0}; --help lists the options")]
    Usage(String),
    /// Something came out wrong.
    #[error("{0}")]
    Wrong(String),
}

/// A broker that runs for one load.
pub(super) struct Broker {
    child: Child,
    dir: PathBuf,
    pub(super) address: SocketAddr,
    pub(super) key: Vec<u8>,
}

impl Broker {
    fn start(options: &Options) -> Result<Self, ImError> {
        let dir = options.scratch.join(format!("im-{}", std::process::id()));
        // Left over from a run that was killed.
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir)?;
        let key: Vec<u8> = (1..=48).collect();
        let mut secret = OpenOptions::new().write(true).create_new(true).mode(0o600).open(dir.join("jwt.key"))?;
        secret.write_all(&key)?;
        let address = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let mut command = Command::new(&options.parlor);
        command
            .args(["serve", "--log-level", "warn", "--http", "off", "--listen"])
            .arg(format!("mqtt://{address}"))
            .arg("--data")
            .arg(dir.join("data"));
        let key_file = format!("auth.jwt.key_file={}", dir.join("jwt.key").display());
        command.args(["--set", &key_file, "--set", "auth.jwt.algorithm=HS256"]);
        // The loads measure what the broker can do, not what it lets one account do.
        command.args(["--set", "limits.im_account_rate_max=0", "--set", "limits.im_conversation_rate_max=0"]);
        command.args(&options.parlor_args);
        let log = std::fs::File::create(dir.join("log"))?;
        let child = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?;
        let broker = Self { child, dir, address, key };
        broker.await_start()?;
        Ok(broker)
    }

    fn await_start(&self) -> Result<(), ImError> {
        let since = Instant::now();
        while std::net::TcpStream::connect(self.address).is_err() {
            if since.elapsed() > Duration::from_secs(20) {
                return Err(ImError::Wrong(format!("the broker did not start: {}", self.log())));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    pub(super) fn process(&self) -> Process {
        Process(self.child.id())
    }

    pub(super) fn log(&self) -> String {
        let text = std::fs::read_to_string(self.dir.join("log")).unwrap_or_default();
        text.lines().rev().take(5).collect::<Vec<_>>().join("\n")
    }

    /// Bytes of the data directory.
    pub(super) fn kept_bytes(&self) -> Result<u64, ImError> {
        let mut bytes = 0;
        let mut dirs = vec![self.dir.join("data")];
        while let Some(dir) = dirs.pop() {
            for entry in std::fs::read_dir(dir)? {
                let entry = entry?;
                if entry.file_type()?.is_dir() {
                    dirs.push(entry.path());
                } else {
                    bytes += entry.metadata()?.len();
                }
            }
        }
        Ok(bytes)
    }

    /// Bytes its process has had written to the disk.
    pub(super) fn written_bytes(&self) -> Result<u64, ImError> {
        let text = std::fs::read_to_string(format!("/proc/{}/io", self.child.id()))?;
        let value = text.lines().find_map(|line| line.strip_prefix("write_bytes: "));
        value.and_then(|v| v.parse().ok()).ok_or_else(|| ImError::Wrong("the kernel does not count writes".to_owned()))
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// Microseconds of one write of 4 KiB and its sync: median of 200.
fn sync_us(dir: &Path) -> io::Result<u128> {
    let path = dir.join("sync-probe");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(&path)?;
    file.write_all(&vec![1; 4096 * 256])?;
    file.sync_all()?;
    let mut took = vec![];
    for round in 0..200 {
        let since = Instant::now();
        file.write_all_at(&[2; 4096], round * 4096)?;
        file.sync_data()?;
        took.push(since.elapsed().as_micros());
    }
    std::fs::remove_file(path)?;
    took.sort_unstable();
    Ok(took[took.len() / 2])
}

fn parse(mut args: impl Iterator<Item = String>) -> Result<Option<Options>, ImError> {
    let own = std::env::current_exe()?;
    let beside = own.parent().map(PathBuf::from).unwrap_or_default();
    let mut options = Options {
        only: vec![],
        messages: 2_000_000,
        accounts: 10_000,
        parlor: beside.join("parlor"),
        parlor_args: vec![],
        scratch: beside.join("../bench"),
    };
    while let Some(arg) = args.next() {
        if arg == "--help" {
            return Ok(None);
        }
        let value = args.next().ok_or_else(|| ImError::Usage(format!("{arg} needs a value")))?;
        let number = || value.parse().map_err(|_| ImError::Usage(format!("{value} is no number")));
        match arg.as_str() {
            "--only" => options.only = value.split(',').map(str::to_owned).collect(),
            "--messages" => options.messages = number()?,
            "--accounts" => options.accounts = number()? as u32,
            "--parlor" => options.parlor = value.into(),
            "--parlor-arg" => options.parlor_args.push(value),
            "--scratch" => options.scratch = value.into(),
            _ => return Err(ImError::Usage(format!("{arg} is no option"))),
        }
    }
    Ok(Some(options))
}

/// Runs the messaging loads; false if something came out wrong.
pub fn run(args: impl Iterator<Item = String>) -> Result<bool, ImError> {
    let Some(options) = parse(args)? else {
        print!("{HELP}");
        return Ok(true);
    };
    std::fs::create_dir_all(&options.scratch)?;
    let options = Options { scratch: options.scratch.canonicalize()?, ..options };
    println!("sync of 4 KiB: {} us (median of 200)", sync_us(&options.scratch)?);
    let mut is_good = true;
    for (name, load) in loads::LOADS {
        if !options.only.is_empty() && !options.only.iter().any(|only| name.starts_with(only.as_str())) {
            continue;
        }
        let broker = Broker::start(&options)?;
        match load(&broker, &options) {
            Ok(lines) => lines.iter().for_each(|line| println!("{name:9} {line}")),
            Err(error) => {
                is_good = false;
                println!("{name:9} failed: {error}; {}", broker.log());
            }
        }
    }
    Ok(is_good)
}
