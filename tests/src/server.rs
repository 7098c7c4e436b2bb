//! Starts a broker process for tests, and ends it whatever happens.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::time::{Duration, Instant};

/// The longest a broker may take to start or to end.
const START_PATIENCE: Duration = Duration::from_secs(20);

/// With this among the arguments, clients without credentials are not let in.
pub const NO_ANONYMOUS: &str = "auth.allow_anonymous=false";

/// With this among the arguments, listeners and who may come in are what the configuration file says. (It is a setting
/// that changes nothing.)
pub const LISTENERS_OF_FILE: &str = "websocket.path=/mqtt";

/// What a broker has written to its standard error so far.
#[derive(Default)]
struct Log {
    text: Mutex<(String, bool)>,
    grown: Condvar,
}

impl Log {
    /// The first value `find` finds in the log; `None` when the broker has ended or time is up before.
    fn wait_for<T>(&self, patience: Duration, mut find: impl FnMut(&str) -> Option<T>) -> Option<T> {
        let deadline = Instant::now() + patience;
        let mut guard = self.text.lock().expect("no thread panics with the log");
        loop {
            if let Some(found) = find(&guard.0) {
                return Some(found);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if guard.1 || left.is_zero() {
                return None;
            }
            guard = self.grown.wait_timeout(guard, left).expect("no thread panics with the log").0;
        }
    }
}

/// The program, without the settings that the environment of the tests may have for it.
fn program(binary: &Path) -> Command {
    let mut command = Command::new(binary);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("PARLOR_")) {
        command.env_remove(name);
    }
    command
}

/// A running process, with a helper that kills it should the test process die first.
struct Process {
    child: Child,
    reaper: Child,
    log: Arc<Log>,
}

impl Process {
    fn spawn(binary: &Path, args: &[String], data: &Path) -> Self {
        let mut child = program(binary)
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("could not start {}: {e}; run `cargo build -p parlor` first", binary.display()));
        // The helper holds a pipe from this process: when that closes, for whatever reason, the broker is killed and its
        // data is removed.
        let reaper = Command::new("sh")
            .args(["-c", "read _; kill -9 \"$0\"; rm -rf -- \"$1\"", &child.id().to_string()])
            .arg(data)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("sh starts");
        let log = Arc::new(Log::default());
        let stderr = child.stderr.take().expect("stderr is piped");
        let writer = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let mut guard = writer.text.lock().expect("no thread panics with the log");
                guard.0.push_str(&line);
                guard.0.push('\n');
                writer.grown.notify_all();
            }
            writer.text.lock().expect("no thread panics with the log").1 = true;
            writer.grown.notify_all();
        });
        Self { child, reaper, log }
    }

    /// Where it says that it listens for a scheme.
    fn address(&self, scheme: &str) -> Option<SocketAddr> {
        let prefix = format!("listening on {scheme}://");
        self.log.wait_for(START_PATIENCE, |log| {
            let rest = log.split_once(&prefix)?.1;
            rest.split_once(|c: char| !(c.is_ascii_digit() || c == '.' || c == ':'))?.0.parse().ok()
        })
    }

    fn wait(&mut self, patience: Duration) -> Option<ExitStatus> {
        // The log ends when the process does, so this waits for the event and not for a time.
        self.log.wait_for(patience, |_| None::<()>);
        let ended = self.log.text.lock().expect("no thread panics with the log").1;
        ended.then(|| self.child.wait().expect("the process is ours"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The helper first: afterwards the process id may belong to somebody else.
        let _ = self.reaper.kill();
        let _ = self.reaper.wait();
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A broker: a process of ours, or one that is already there (`MQTT_TEST_ADDR`).
pub struct Broker {
    process: Option<Process>,
    mqtt: SocketAddr,
    http: Option<SocketAddr>,
    data: PathBuf,
    extra: Vec<String>,
}

impl Broker {
    /// Starts a broker on free ports of the loopback interface with an empty data directory, and with more arguments.
    pub fn start(extra: &[&str]) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let data = std::env::temp_dir().join(format!("parlor-test-{}-{number}", std::process::id()));
        let _ = std::fs::remove_dir_all(&data);
        std::fs::create_dir_all(&data).expect("the temporary directory can be written");
        let extra = extra.iter().map(|&arg| arg.to_owned()).collect();
        let mut broker = Self { process: None, mqtt: SocketAddr::from(([127, 0, 0, 1], 0)), http: None, data, extra };
        broker.launch();
        broker
    }

    /// The broker at `MQTT_TEST_ADDR`, if that is set: then the tests speak to it and start none.
    pub fn external() -> Option<Self> {
        let addr = std::env::var("MQTT_TEST_ADDR").ok()?;
        let mqtt: SocketAddr = addr.parse().expect("MQTT_TEST_ADDR is an address and a port");
        assert!(mqtt.ip().is_loopback(), "tests speak to the loopback interface only");
        Some(Self { process: None, mqtt, http: None, data: PathBuf::new(), extra: Vec::new() })
    }

    /// One broker for all tests that can share it: it starts with the first, and ends with the test process.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Broker> = OnceLock::new();
        SHARED.get_or_init(|| Self::external().unwrap_or_else(|| Self::start(&["--set", "sys.interval_secs=1"])))
    }

    /// A broker of the test's own; `None` when the tests speak to an external one.
    pub fn own(extra: &[&str]) -> Option<Self> {
        if std::env::var_os("MQTT_TEST_ADDR").is_some() {
            return None;
        }
        Some(Self::start(extra))
    }

    /// The `parlor` program: `PARLOR_BIN`, or the one cargo has built beside this test.
    pub fn binary() -> PathBuf {
        if let Some(path) = std::env::var_os("PARLOR_BIN") {
            return path.into();
        }
        let exe = std::env::current_exe().expect("a program knows its path");
        exe.parent().and_then(Path::parent).expect("tests are in target/*/deps").join("parlor")
    }

    fn launch(&mut self) {
        let mut args: Vec<String> = vec!["serve".into(), "--data".into(), self.data.display().to_string()];
        if !self.extra.iter().any(|arg| arg == "--http") {
            args.extend(["--http".into(), "127.0.0.1:0".into()]);
        }
        if !self.extra.iter().any(|arg| arg == LISTENERS_OF_FILE) {
            args.extend(["--listen".into(), format!("mqtt://{}", self.mqtt)]);
        }
        if !self.extra.iter().any(|arg| arg == NO_ANONYMOUS || arg == LISTENERS_OF_FILE) {
            args.push("--allow-anonymous".into());
        }
        args.extend(self.extra.iter().cloned());
        let process = Process::spawn(&Self::binary(), &args, &self.data);
        let mqtt = process.address("mqtt");
        let http = if self.extra.iter().any(|arg| arg == "off") { None } else { process.address("http") };
        let Some(mqtt) = mqtt else {
            panic!("the broker did not say where it listens:\n{}", Self::text(&process));
        };
        self.mqtt = mqtt;
        self.http = http;
        self.process = Some(process);
    }

    fn text(process: &Process) -> String {
        process.log.text.lock().expect("no thread panics with the log").0.clone()
    }

    /// Where it listens for MQTT over TCP.
    pub fn addr(&self) -> SocketAddr {
        self.mqtt
    }

    /// Where it listens for HTTP.
    pub fn http(&self) -> SocketAddr {
        self.http.expect("the broker has an HTTP listener")
    }

    /// Where it listens for this scheme (`ws`, `mqtts`, …); the listener has to be among the arguments.
    pub fn address(&self, scheme: &str) -> SocketAddr {
        let process = self.process.as_ref().expect("the broker runs");
        process.address(scheme).unwrap_or_else(|| panic!("no {scheme} listener:\n{}", Self::text(process)))
    }

    /// Its data directory.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.as_ref().expect("the broker runs").child.id()
    }

    /// CPU time that the process has used, user and system, in seconds.
    pub fn cpu_seconds(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).expect("/proc shows the broker");
        let fields = stat.rsplit(')').next().expect("the name is in brackets").split_whitespace();
        // In hundredths, as the system counts for programs (proc(5), fields 14 and 15).
        fields.skip(11).take(2).map(|ticks| ticks.parse::<f64>().expect("a number")).sum::<f64>() / 100.0
    }

    /// What it has written to standard error so far.
    pub fn log(&self) -> String {
        self.process.as_ref().map(Self::text).unwrap_or_default()
    }

    /// Waits until its log contains `text`.
    pub fn await_log(&self, text: &str) {
        let process = self.process.as_ref().expect("the broker runs");
        let found = process.log.wait_for(START_PATIENCE, |log| log.contains(text).then_some(()));
        assert!(found.is_some(), "{text:?} expected in the log:\n{}", Self::text(process));
    }

    /// Waits until its log contains `text` behind the first `mark` bytes, as [`Self::log`] had them; the line with it.
    pub fn await_log_after(&self, mark: usize, text: &str) -> String {
        let process = self.process.as_ref().expect("the broker runs");
        let line = |log: &str| log[mark..].lines().find(|line| line.contains(text)).map(str::to_owned);
        let found = process.log.wait_for(START_PATIENCE, line);
        found.unwrap_or_else(|| panic!("{text:?} expected in the log:\n{}", &Self::text(process)[mark..]))
    }

    /// Sends it a signal by name (`TERM`, `HUP`).
    pub fn signal(&self, name: &str) {
        let status = Command::new("sh").args(["-c", "kill -s \"$0\" \"$1\"", name, &self.pid().to_string()]).status();
        assert!(status.is_ok_and(|s| s.success()), "the broker could be signalled");
    }

    /// kill -9: nothing is saved that is not saved already.
    pub fn kill(&mut self) {
        let mut process = self.process.take().expect("the broker runs");
        process.child.kill().expect("the process is ours");
        process.wait(START_PATIENCE).expect("a killed process ends");
    }

    /// SIGTERM, and waits for the end: the exit status.
    pub fn stop(&mut self) -> ExitStatus {
        self.signal("TERM");
        self.ended()
    }

    /// Waits for its end, which was asked for already: the exit status.
    pub fn ended(&mut self) -> ExitStatus {
        let mut process = self.process.take().expect("the broker runs");
        let status = process.wait(START_PATIENCE);
        status.unwrap_or_else(|| panic!("the broker did not end when it was told to:\n{}", Self::text(&process)))
    }

    /// Starts it again on the same data directory and port, after [`Self::kill`] or [`Self::stop`].
    pub fn start_again(&mut self) {
        assert!(self.process.is_none(), "the broker has ended before it starts again");
        self.launch();
    }

    /// Runs another command of the program with this standard input: its standard output.
    pub fn command(args: &[&str], input: &str) -> String {
        let mut child = program(&Self::binary())
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let mut stdin = child.stdin.take().expect("stdin is piped");
        // The program may end without reading; what it says then is the better message.
        let _ = stdin.write_all(input.as_bytes());
        drop(stdin);
        let output = child.wait_with_output().expect("the program ends");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "parlor {args:?} failed: {stderr}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

impl Broker {
    /// Makes an account while the broker runs.
    pub fn add_account(&self, name: &str, password: &str) {
        let data = self.data.display().to_string();
        Self::command(&["account", "add", name, "--password-stdin", "--data", &data], password);
    }
}

impl From<&Broker> for SocketAddr {
    fn from(broker: &Broker) -> Self {
        broker.mqtt
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the broker's log ---\n{}--- end of the broker's log ---", self.log());
        }
        self.process = None;
        if !self.data.as_os_str().is_empty() {
            let _ = std::fs::remove_dir_all(&self.data);
        }
    }
}
