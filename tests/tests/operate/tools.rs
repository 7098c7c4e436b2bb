//! What the tests of the operator's side share.

pub use parlor_tests::operator::*;
pub use parlor_tests::raw::*;
pub use parlor_tests::server::{Broker, LISTENERS_OF_FILE, NO_ANONYMOUS};
pub use serde_json::Value as Json;

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

/// The longest a command of the program may take.
const COMMAND_PATIENCE: Duration = Duration::from_secs(30);

/// What a command of the program said, and how it ended.
#[derive(Debug)]
pub struct Said {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Said {
    /// It ended with this code.
    #[track_caller]
    pub fn ends(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self:?}");
        self
    }

    /// It said this on standard error.
    #[track_caller]
    pub fn complains(self, text: &str) -> Self {
        assert!(self.err.contains(text), "{text:?} expected in {self:?}");
        self
    }
}

/// Runs a command of the program, with nothing on its standard input.
pub fn parlor(args: &[&str]) -> Said {
    parlor_in(args, "", &[])
}

/// Runs a command of the program with this standard input and these environment variables.
pub fn parlor_in(args: &[&str], input: &str, environment: &[(&str, &str)]) -> Said {
    let mut command = Command::new(Broker::binary());
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("PARLOR_")) {
        command.env_remove(name);
    }
    command.args(args).envs(environment.iter().copied());
    run(command, input)
}

/// Runs a program to its end, within [`COMMAND_PATIENCE`].
pub fn run(mut command: Command, input: &str) -> Said {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
    let mut stdin = child.stdin.take().expect("stdin is piped");
    let id = child.id();
    let (done, output) = mpsc::channel();
    std::thread::spawn(move || done.send(child.wait_with_output()));
    // The program may end without reading; what it says then is the better message.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    let Ok(output) = output.recv_timeout(COMMAND_PATIENCE) else {
        let _ = Command::new("sh").args(["-c", "kill -9 \"$0\"", &id.to_string()]).status();
        panic!("{command:?} did not end");
    };
    let output = output.expect("a child can be waited for");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Said { code: output.status.code().unwrap_or(-1), out: text(&output.stdout), err: text(&output.stderr) }
}

/// Runs a command of the program on a broker's data directory.
pub fn on(broker: &Broker, args: &[&str]) -> Said {
    let data = broker.data().display().to_string();
    parlor(&[args, &["--data", &data]].concat())
}

/// The top of the repository.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests are below the top of the repository")
}
