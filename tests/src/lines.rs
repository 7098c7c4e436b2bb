//! A program that is talked to by lines.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// The longest a test waits for a line.
const PATIENCE: Duration = Duration::from_secs(20);

/// A running program; it is killed with this value.
pub struct Lines {
    name: String,
    child: Child,
    stdin: Option<ChildStdin>,
    said: Receiver<String>,
    seen: Vec<String>,
}

impl Lines {
    /// Starts it; `name` is what the tests call it.
    #[track_caller]
    pub fn start(mut command: Command, name: &str) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap_or_else(|error| {
            panic!("{name} does not start ({error}); build the workspace with its examples first");
        });
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take().expect("stdout is piped"));
        let (sender, said) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Self { name: name.to_owned(), child, stdin, said, seen: vec![] }
    }

    /// A line for it.
    pub fn say(&mut self, line: &str) {
        let stdin = self.stdin.as_mut().expect("it still listens");
        writeln!(stdin, "{line}").and_then(|()| stdin.flush()).expect("it reads");
    }

    /// It is told that no more comes.
    pub fn no_more(&mut self) {
        drop(self.stdin.take());
    }

    /// The next line of it that `is` right, and what that gives.
    #[track_caller]
    pub fn until<T>(&mut self, what: &str, mut is: impl FnMut(&str) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let line = self.said.recv_timeout(deadline.saturating_duration_since(Instant::now()));
            let line =
                line.unwrap_or_else(|e| panic!("{}: no {what} ({e}), only\n{}", self.name, self.seen.join("\n")));
            let found = is(&line);
            self.seen.push(line);
            if let Some(found) = found {
                return found;
            }
        }
    }

    /// The lines that have come and nobody has asked for.
    pub fn come(&self) -> Vec<String> {
        self.said.try_iter().collect()
    }

    /// Waits for its end: the lines nobody has asked for, and how it ended.
    pub fn end(mut self) -> (Vec<String>, ExitStatus) {
        self.no_more();
        let status = self.child.wait().expect("it ends");
        (self.said.iter().collect(), status)
    }

    /// The same, and it must have ended well.
    #[track_caller]
    pub fn finish(self) -> Vec<String> {
        let (name, seen) = (self.name.clone(), self.seen.join("\n"));
        let (rest, status) = self.end();
        assert!(status.success(), "{name}: {status}\n{seen}");
        rest
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
