//! Emulated boards with real firmware, and the broker they talk to.

use crate::im::{House, PASSWORD, json};
use crate::operator::Dir;
use crate::raw::{Client, Publish, Version};
use crate::server::Broker;
use crate::site::Site;
use parlor_device_tls::Pin;
use rcgen::{KeyPair, PublicKeyData};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// The longest anything may take on a board, which shares its processor with everything else.
const PATIENCE: Duration = Duration::from_secs(60);
/// Where a board's flash has the slot for updates.
const SLOT: usize = 64 * 1_024;
/// Bytes of a board's flash.
const FLASH: usize = 256 * 1_024;

/// A board under QEMU.
pub struct Board {
    child: Child,
    lines: Receiver<String>,
    seen: Vec<String>,
    monitor: PathBuf,
}

impl Board {
    /// Says what it is for, with these arguments.
    fn start(kind: &str, program: &Path, monitor: PathBuf, arguments: &[String], options: &str) -> Self {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../firmware-examples/qemu.sh");
        let mut child = Command::new(script)
            .arg(kind)
            .arg(program)
            .args(arguments)
            .env("QEMU_MONITOR", &monitor)
            .env("QEMU_EXTRA", options)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("qemu.sh starts");
        let (said, lines) = channel();
        let console = child.stdout.take().expect("stdout is piped");
        std::thread::spawn(move || {
            for line in BufReader::new(console).lines().map_while(Result::ok) {
                if said.send(line).is_err() {
                    break;
                }
            }
        });
        Self { child, lines, seen: Vec::new(), monitor }
    }

    /// Waits until it says something that begins like this: the whole line.
    pub fn says(&mut self, begin: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    self.seen.push(line.clone());
                    assert!(!line.starts_with("PANIC"), "the board panicked:\n{}", self.seen.join("\n"));
                    if line.starts_with(begin) {
                        return line;
                    }
                }
                Err(RecvTimeoutError::Timeout) => panic!("{begin:?} expected of the board:\n{}", self.seen.join("\n")),
                Err(RecvTimeoutError::Disconnected) => panic!("the board ended:\n{}", self.seen.join("\n")),
            }
        }
    }

    /// Pulls the cable or puts it in.
    pub fn cable(&self, state: Cable) {
        let word = if state == Cable::In { "on" } else { "off" };
        let mut monitor = UnixStream::connect(&self.monitor).expect("the monitor listens");
        monitor.write_all(format!("set_link n0 {word}\n").as_bytes()).expect("the monitor reads");
        // It answers with its prompt, twice: once to be there, once when it has done it.
        let mut answers = BufReader::new(monitor);
        for _ in 0..2 {
            answers.read_until(b')', &mut Vec::new()).expect("the monitor answers");
        }
    }

    /// Waits until it resets itself.
    pub fn resets(mut self) {
        let code = self.child.wait().expect("the process is ours").code();
        assert_eq!(code, Some(42), "it resets:\n{}", self.seen.join("\n"));
    }

    /// Switches it off.
    pub fn unplug(mut self) {
        self.end();
    }

    fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Board {
    fn drop(&mut self) {
        self.end();
    }
}

/// Whether a cable is in its socket.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Cable {
    /// It is.
    In,
    /// It is not.
    Out,
}

/// What a kind of board with a program for the native link ends with.
const NATIVE: &str = "-native";

/// A broker with a household, and boards of one kind.
pub struct Home {
    /// The broker.
    pub site: Site,
    /// Its owner.
    pub alice: Client,
    /// Which board, and what it speaks.
    kind: String,
    /// Which board: `an385` or `virt`.
    machine: String,
    program: PathBuf,
    files: Dir,
    boards: u32,
    pin: String,
    port: u16,
    other_port: u16,
    options: String,
}

impl Home {
    /// A broker with TLS for small boards, and Alice's household `g-home`. Boards are sent to the listener that speaks what they
    /// speak and nothing else: the native link with `an385-native` and `virt-native`, MQTT with `an385` and `virt`.
    pub fn new(kind: &str, program: &Path) -> Self {
        // Both are taken before either is given back, so that they differ.
        let free = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").expect("a free port"));
        let [own, other] = free.map(|socket| socket.local_addr().expect("it is bound"));
        let (machine, schemes) = match kind.strip_suffix(NATIVE) {
            Some(machine) => (machine, ["parlor+tls", "mqtts"]),
            None => (kind, ["mqtts", "parlor+tls"]),
        };
        let listeners = [format!("{}://{own}", schemes[0]), format!("{}://{other}", schemes[1])];
        let set = ["--set", "tls.fragment_bytes=1024"];
        let site = Site::with(&listeners.each_ref().map(String::as_str), &["alice"], &set)
            .expect("firmware is tested with a broker of its own");
        let key = std::fs::read_to_string(site.dir.path("server.key")).expect("the broker's key");
        let key = KeyPair::from_pem(&key).expect("a key");
        let pin = Pin::of(&key.subject_public_key_info()).0.iter().map(|byte| format!("{byte:02x}")).collect();
        let mut alice = site.house.client(Version::V5, "alice", "alice-phone");
        alice.subscribe("im/v1/#", 1);
        let made = alice.publish_for(1, "im/v1/me/group/g-home", r#"{"op":"create","name":"Home","household":true}"#);
        assert_eq!(made.code, 0, "a household: {made:?}");
        let files = Dir::new();
        Self {
            site,
            alice,
            kind: kind.into(),
            machine: machine.into(),
            program: program.into(),
            files,
            boards: 0,
            pin,
            port: own.port(),
            other_port: other.port(),
            options: String::new(),
        }
    }

    /// A code to pair a device with.
    pub fn code(&mut self) -> String {
        assert_eq!(self.alice.publish_for(1, "im/v1/me/pair", r#"{"household":"g-home"}"#).code, 0);
        let answer = json(&self.alice.on("im/v1/me/pair/res"));
        answer["code"].as_str().expect("a code").to_owned()
    }

    /// Which board it is, and what it speaks.
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// The port where the same broker speaks what the board does not.
    pub fn other_port(&self) -> u16 {
        self.other_port
    }

    /// Whether the board says how busy it was.
    pub fn counts_instructions(&self) -> bool {
        self.machine == "an385"
    }

    /// How QEMU is started from now on, besides.
    pub fn emulate(&mut self, options: &str) {
        options.clone_into(&mut self.options);
    }

    /// Switches a board on whose flash is the one of this name, with these arguments besides the usual ones.
    pub fn board(&mut self, name: &str, arguments: &[&str]) -> Board {
        self.boards += 1;
        let flash = self.files.path(&format!("{name}.flash"));
        if !flash.exists() {
            std::fs::write(&flash, vec![0xFF; FLASH]).expect("the temporary directory can be written");
        }
        let monitor = self.files.path(&format!("monitor-{}", self.boards));
        let mut all =
            vec!["host=10.0.2.2".to_owned(), format!("terminal={name}"), format!("flash={}", flash.display())];
        for usual in [format!("port={}", self.port), format!("pin={}", self.pin)] {
            let name = &usual[..=usual.find('=').expect("it is written above")];
            if !arguments.iter().any(|argument| argument.starts_with(name)) {
                all.push(usual);
            }
        }
        all.extend(arguments.iter().map(|&argument| argument.to_owned()));
        Board::start(&self.machine, &self.program, monitor, &all, &self.options)
    }

    /// What `parlor cmd` prints as Alice, if it ends well.
    pub fn command(&self, arguments: &[&str]) -> String {
        let url = format!("mqtt://{}", self.site.at("mqtt"));
        let usual =
            ["cmd", "--url", &url, "-u", "alice", "--password-stdin", "--terminal", "alice-cmd", "--deadline", "50"];
        Broker::command(&[&usual, arguments].concat(), PASSWORD)
    }

    /// Makes the key of a maker of firmware: its file, and the public half in hexadecimal digits.
    pub fn maker(&self) -> (String, String) {
        let file = self.files.name("maker.pem");
        let said = Broker::command(&["blob", "key", &file], "");
        let public = said.split_whitespace().find(|word| word.len() == 64).expect("the public half").to_owned();
        (file, public)
    }

    /// Puts an image of this many bytes into a file: it, and its path.
    pub fn image(&self, bytes: usize) -> (Vec<u8>, String) {
        let image: Vec<u8> = (0..bytes).map(|at| at.wrapping_mul(2_654_435_761).to_be_bytes()[4]).collect();
        let path = self.files.put("image.bin", &image);
        (image, path.display().to_string())
    }

    /// What a board's flash is, before the board is switched on.
    pub fn flash(&self, name: &str, content: &[u8]) {
        self.files.put(&format!("{name}.flash"), content);
    }

    /// A file for `parlor update`, with this in it: its path.
    pub fn file(&self, name: &str, content: &[u8]) -> String {
        self.files.put(name, content).display().to_string()
    }

    /// What is in a board's flash.
    pub fn content(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.files.path(&format!("{name}.flash"))).expect("the board's flash")
    }

    /// What the slot of a board's flash begins with.
    pub fn slot(&self, name: &str, bytes: usize) -> Vec<u8> {
        self.content(name)[SLOT..SLOT + bytes].to_vec()
    }

    /// Begins an update of a device, as Alice does; what it prints, and with which code it ends, comes later.
    pub fn update(
        &self,
        device: &str,
        image: &str,
        key: &str,
        version: &str,
    ) -> std::thread::JoinHandle<(String, i32)> {
        let url = format!("mqtt://{}", self.site.at("mqtt"));
        let data = self.site.house.broker.data().display().to_string();
        let mut update = Command::new(Broker::binary());
        update.args(["update", device, image, "--version", version, "--key", key, "--data", &data, "--url", &url]);
        update.args(["-u", "alice", "--terminal", "alice-update"]).env("PARLOR_PASSWORD", PASSWORD);
        std::thread::spawn(move || {
            let ended = update.output().expect("the program starts");
            let said = [ended.stdout, ended.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
            (said, ended.status.code().unwrap_or(-1))
        })
    }

    /// Waits until Alice is told something at `topic` that `is_right`, passing over what was before.
    pub fn hears(&mut self, topic: &str, is_right: impl Fn(&serde_json::Value) -> bool) -> serde_json::Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            assert!(Instant::now() < deadline, "nothing right was said at {topic}");
            let said = json(&self.alice.on(topic));
            if is_right(&said) {
                return said;
            }
        }
    }

    /// Waits until a device's presence is this.
    pub fn presence(&mut self, device: &str, state: &str) {
        self.hears(&format!("im/v1/presence/{device}"), |said| said["state"] == state);
    }

    /// Alice says what she desires of a device.
    pub fn desire(&mut self, device: &str, desired: &str) {
        let topic = format!("im/v1/to/{device}/desired");
        assert_eq!(self.alice.answer_to(&Publish::new(&topic, desired).qos(1, 0)).code, 0);
    }

    /// The broker loses its power and gets it again; Alice comes back.
    pub fn power_cut_of_the_broker(&mut self) {
        self.site.house.broker.kill();
        self.site.house.broker.start_again();
        self.alice = self.site.house.client(Version::V5, "alice", "alice-phone");
        self.alice.subscribe("im/v1/#", 1);
    }

    /// Its house.
    pub fn house(&self) -> &House {
        &self.site.house
    }
}
