//! How deep the stack of the small program of firmware-examples/sizes is: `stack BOARD NAME=PROGRAM...`, where the name is the variant
//! that the program was built for. Each runs on the emulated board, `an385` or `virt`, until everything that it can do was done against a
//! real broker. One line each, `NAME BYTES`. Started by firmware-examples/sizes.sh.

use parlor_device_tls::Pin;
use parlor_tests::raw::Version;
use parlor_tests::site::Site;
use rcgen::{KeyPair, PublicKeyData};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::{Command, ExitCode, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// The longest that all of it may take.
const PATIENCE: Duration = Duration::from_secs(90);

/// How often Alice says everything.
const TURN: Duration = Duration::from_millis(500);

fn main() -> ExitCode {
    let echo = echo();
    let mut failed = false;
    let mut arguments = std::env::args().skip(1);
    let board = arguments.next().expect("BOARD");
    for argument in arguments {
        let (name, program) = argument.split_once('=').expect("NAME=PROGRAM");
        let has = |word: &str| name.split(',').any(|part| part == word);
        let road = match (has("native"), has("tls")) {
            (true, true) => "parlor+tls",
            (true, false) => "parlor+tcp",
            (false, true) => "mqtts",
            (false, false) => "mqtt",
        };
        // Each has a broker of its own, in which nothing waits for it.
        let site = site();
        let to = if has("none") { echo } else { site.at(road) };
        match deepest(&site, &board, program, to) {
            Ok(bytes) => println!("{name} {bytes}"),
            Err(why) => {
                eprintln!("{name}: {why}");
                failed = true;
            }
        }
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// A broker with Alice and her lamp.
fn site() -> Site {
    let site = Site::with(
        &["mqtts://127.0.0.1:0", "parlor+tcp://127.0.0.1:0", "parlor+tls://127.0.0.1:0"],
        &["alice"],
        &["--set", "tls.fragment_bytes=1024"],
    )
    .expect("it has a broker of its own");
    site.house.add("lamp", "device");
    site.house.befriend("alice", "lamp");
    site
}

/// The pin of a broker.
fn pin(site: &Site) -> String {
    let key = std::fs::read_to_string(site.dir.path("server.key")).expect("the broker's key");
    let key = KeyPair::from_pem(&key).expect("a key");
    Pin::of(&key.subject_public_key_info()).0.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Runs a program while Alice says everything that it may want to hear: the bytes of stack that it has used.
fn deepest(site: &Site, board: &str, program: &str, to: SocketAddr) -> Result<u32, String> {
    let mut alice = site.house.client(Version::V5, "alice", "alice-phone");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../firmware-examples/qemu.sh");
    let mut child = Command::new(script)
        .args([board, program, &format!("port={}", to.port()), &format!("pin={}", pin(site))])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| format!("qemu.sh does not start: {error}"))?;
    let (said, lines) = channel();
    let console = child.stdout.take().ok_or("stdout is piped")?;
    std::thread::spawn(move || {
        BufReader::new(console).lines().map_while(Result::ok).try_for_each(|line| said.send(line))
    });
    let deadline = Instant::now() + PATIENCE;
    let mut turn = 0;
    let outcome = loop {
        match lines.recv_timeout(TURN) {
            Ok(line) => match line.strip_prefix("stack ").and_then(|bytes| bytes.parse().ok()) {
                Some(bytes) => break Ok(bytes),
                None => break Err(format!("the board said {line:?}")),
            },
            Err(RecvTimeoutError::Disconnected) => break Err("the board ended".into()),
            Err(RecvTimeoutError::Timeout) if Instant::now() > deadline => break Err("it takes too long".into()),
            Err(RecvTimeoutError::Timeout) => {
                turn += 1;
                alice.publish_for(1, "lamp/set", "on");
                alice.publish_for(1, "im/v1/to/lamp/msg", format!(r#"{{"text":"on","id":"a{turn}"}}"#));
                alice.publish_for(1, "im/v1/to/lamp/desired", format!(r#"{{"on":{}}}"#, turn % 2 == 1));
                let command = format!(r#"{{"args":{{"on":true}},"id":"c{turn}","deadline_ms":5000}}"#);
                alice.publish_for(1, "im/v1/to/lamp/cmd/set", command);
            }
        }
    };
    let _ = child.kill();
    let _ = child.wait();
    outcome
}

/// A server that sends back what it is sent.
fn echo() -> SocketAddr {
    let server = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let at = server.local_addr().expect("it is bound");
    std::thread::spawn(move || {
        for mut stream in server.incoming().map_while(Result::ok) {
            std::thread::spawn(move || {
                let mut bytes = [0; 64];
                while let Ok(len @ 1..) = stream.read(&mut bytes) {
                    if stream.write_all(bytes.get(..len).unwrap_or_default()).is_err() {
                        return;
                    }
                }
            });
        }
    });
    at
}
