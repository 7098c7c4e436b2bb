//! `parlor demo` as a process: started on free ports, and found by what it prints.

use parlor_tests::server::Broker;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// Its accounts' password, as it prints it.
pub const PASSWORD: &str = "parlor-demo";

/// A running demo.
pub struct Demo {
    child: Option<Child>,
    /// Kills it should this process die first.
    reaper: Option<Child>,
    data: PathBuf,
    /// `127.0.0.1:PORT` of MQTT over TCP.
    pub mqtt: String,
    /// `ws://127.0.0.1:PORT/mqtt`.
    pub ws: String,
    /// `127.0.0.1:PORT` of QUIC, if it listens for that.
    pub quic: Option<String>,
    /// What it printed when it started.
    pub greeting: String,
}

impl Demo {
    /// Starts one on an empty directory.
    pub fn start() -> Self {
        Self::make(None)
    }

    /// The same, and it listens for QUIC.
    pub fn with_quic() -> Self {
        Self::make(Some("127.0.0.1:0".into()))
    }

    /// A file in its directory.
    pub fn file(&self, name: &str) -> String {
        self.data.join(name).display().to_string()
    }

    fn make(quic: Option<String>) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let data = std::env::temp_dir().join(format!("parlor-demo-{}-{number}", std::process::id()));
        let _ = std::fs::remove_dir_all(&data);
        let mut demo = Self {
            child: None,
            reaper: None,
            data,
            mqtt: "127.0.0.1:0".into(),
            ws: "ws://127.0.0.1:0/mqtt".into(),
            quic,
            greeting: String::new(),
        };
        demo.launch();
        demo
    }

    fn launch(&mut self) {
        let mut command = Command::new(Broker::binary());
        command.args(["demo", "--listen", &format!("mqtt://{}", self.mqtt), "--listen", &self.ws]);
        if let Some(quic) = &self.quic {
            command.args(["--listen", &format!("mqtt+quic://{quic}")]);
        }
        let mut child = command
            .args(["--http", "127.0.0.1:0", "--data"])
            .arg(&self.data)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the demo starts; run `cargo build -p parlor` first");
        let reaper = Command::new("sh")
            .args(["-c", "read _; kill -9 \"$0\"", &child.id().to_string()])
            .stdin(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("sh starts");
        let mut lines = BufReader::new(child.stdout.take().expect("stdout is piped")).lines();
        self.child = Some(child);
        self.reaper = Some(reaper);
        self.greeting.clear();
        // The last line of the greeting names the commands that look inside.
        for line in lines.by_ref().map_while(Result::ok) {
            self.greeting.push_str(&line);
            self.greeting.push('\n');
            let mut words = line.split_whitespace();
            match (words.next(), words.next()) {
                (Some("listener"), Some(url)) if url.starts_with("ws://") => self.ws = url.into(),
                (Some("listener"), Some(url)) if url.starts_with("mqtt+quic://") => {
                    self.quic = Some(url.trim_start_matches("mqtt+quic://").into());
                }
                (Some("listener"), Some(url)) => self.mqtt = url.trim_start_matches("mqtt://").into(),
                (Some("parlor"), Some("session")) => return,
                _ => {}
            }
        }
        panic!("the demo ended before it was up:\n{}", self.greeting);
    }

    fn reap(&mut self) {
        if let Some(mut reaper) = self.reaper.take() {
            let _ = reaper.kill();
            let _ = reaper.wait();
        }
    }

    /// kill -9, and a start on the same directory and ports.
    pub fn kill_and_restart(&mut self) {
        self.kill();
        self.launch();
    }

    /// kill -9.
    pub fn kill(&mut self) {
        self.reap();
        let mut child = self.child.take().expect("the demo runs");
        child.kill().expect("the process is ours");
        child.wait().expect("a killed process ends");
    }

    /// SIGTERM; it must end by itself and without an error.
    pub fn stop(&mut self) {
        self.reap();
        let mut child = self.child.take().expect("the demo runs");
        let sent = Command::new("sh").args(["-c", "kill -TERM \"$0\"", &child.id().to_string()]).status();
        assert!(sent.is_ok_and(|s| s.success()), "SIGTERM could be sent");
        let status = child.wait().expect("the demo ends on SIGTERM");
        assert!(status.success(), "the demo ended with {status}");
    }

    /// Starts it again after [`Self::kill`] or [`Self::stop`].
    pub fn start_again(&mut self) {
        self.launch();
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        self.reap();
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = std::fs::remove_dir_all(&self.data);
    }
}
