//! What firmware has to show on an emulated board: `firmware KIND PROGRAM...`, pairs of `an385` or `virt` and a program for it, or of
//! `an385-native` or `virt-native` and one that speaks the native link. One line a scenario, and a closing line. Started by
//! firmware-examples/run.sh.

use parlor_tests::firmware::{Board, Cable, Home};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

type Scenario = (&'static str, fn(&mut Home));

/// What each board does while the others do the same.
const SCENARIOS: &[Scenario] = &[
    ("a lamp is paired, obeys, and says so", lamp),
    ("what is desired is done, also what was desired while it was off", desired),
    ("the broker loses its power", broker_restarts),
    ("the cable is pulled", cable),
    ("the board loses its power", board_restarts),
    ("a thermostat keeps its room", thermostat),
    ("a doorbell chats", button),
    ("a sensor sleeps and wakes", sensor),
    ("an update is installed", update),
    ("an update goes on after a reset, and one that does not work is taken back", update_resumed),
    ("an update of another maker is refused", update_refused),
    ("a server with another key is refused", wrong_pin),
    ("a listener for the other wire is told apart", wrong_wire),
    ("a wrong pairing code is told apart", wrong_code),
];

/// What is measured, while nobody else does anything.
const MEASURED: &[Scenario] = &[("commands go round", speed)];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (boards, rest) = arguments.as_chunks::<2>();
    if !rest.is_empty() {
        eprintln!("what is {rest:?}? Kinds of boards and programs come in pairs");
        return ExitCode::FAILURE;
    }
    // Most of a scenario is waiting: for a time to be over in which nothing may be heard, or for a board to be missed.
    let outcomes = std::thread::scope(|scope| {
        let boards = boards.iter().map(|[kind, program]| {
            let all = move || run(SCENARIOS, kind, Path::new(program));
            // A panic names its thread.
            std::thread::Builder::new().name(kind.clone()).spawn_scoped(scope, all).expect("a thread starts")
        });
        let boards: Vec<_> = boards.collect();
        boards.into_iter().flat_map(|board| board.join().expect("scenarios are caught")).collect::<Vec<bool>>()
    });
    let measured = boards.iter().flat_map(|[kind, program]| run(MEASURED, kind, Path::new(program)));
    let outcomes = [outcomes, measured.collect()].concat();
    let passed = outcomes.iter().filter(|passed| **passed).count();
    let failed = outcomes.len() - passed;
    println!("{passed} passed, {failed} failed");
    if failed == 0 && passed > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Lets a board go through scenarios, one after the other; of each, whether it passed.
fn run(scenarios: &[Scenario], kind: &str, program: &Path) -> Vec<bool> {
    let only = std::env::var("PARLOR_FIRMWARE_ONLY").unwrap_or_default();
    let wanted = scenarios.iter().filter(|(name, _)| name.contains(&only));
    let each = wanted.map(|(name, scenario)| {
        let began = Instant::now();
        let outcome = catch_unwind(AssertUnwindSafe(|| scenario(&mut Home::new(kind, program))));
        let word = if outcome.is_ok() { "PASS" } else { "FAIL" };
        println!("{word} {kind}: {name} ({:.1} s)", began.elapsed().as_secs_f32());
        outcome.is_ok()
    });
    each.collect()
}

/// A new board of this kind, paired and online.
fn paired(home: &mut Home, app: &str, arguments: &[&str]) -> Board {
    let (app_is, code, name) = (format!("app={app}"), format!("code={}", home.code()), format!("name={app}"));
    let mut board = home.board(app, &[&[app_is.as_str(), &code, &name], arguments].concat());
    let online = board.says("online");
    println!("     {}: {app}: {online}", home.kind());
    home.presence(app, "online");
    board
}

/// The same board again, which knows who it is.
fn again(home: &mut Home, app: &str) -> Board {
    home.board(app, &[&format!("app={app}")])
}

fn lamp(home: &mut Home) {
    let mut board = paired(home, "lamp", &[]);
    let said = home.command(&["lamp", "set", "on=true", "level=40"]);
    assert!(said.contains("done") && said.contains("40"), "{said}");
    board.says("light on 40");
    home.hears("im/v1/state/lamp", |said| said["reported"]["on"] == true && said["reported"]["level"] == 40);
    let said = home.command(&["lamp", "blink", "times=2"]);
    assert!(said.contains("running") && said.contains("done"), "{said}");
}

/// How long a command takes, and how many instructions a board needs where QEMU counts them.
fn speed(home: &mut Home) {
    const ROUNDS: u32 = 50;
    let mut board = paired(home, "lamp", &[]);
    let mut times: Vec<u128> = (0..ROUNDS).map(|round| command(home, round)).collect();
    times.sort_unstable();
    let ms = |micros: u128| format!("{}.{}", micros / 1_000, micros % 1_000 / 100);
    let (median, longest) = (ms(times[times.len() / 2]), ms(times[times.len() - 1]));
    println!("     {}: command and result: median {median} ms, longest {longest} ms", home.kind());
    board.says("light on 99");
    board.unplug();
    if !home.counts_instructions() {
        return;
    }
    home.emulate("-icount shift=0");
    let mut board = again(home, "lamp");
    board.says("online");
    command(home, 1_000);
    let first = board.says("light on 99");
    let before = busy(&first);
    let longest: u64 = first.split(' ').rev().nth(2).and_then(|number| number.parse().ok()).expect("it says how long");
    for round in 0..=ROUNDS {
        command(home, 1_001 + round);
    }
    let after = (0..=ROUNDS).map(|_| board.says("light on 99")).last().expect("it shines");
    // 40 instructions are a cycle of the board's clock.
    let each = (busy(&after) - before) * 40 / u64::from(ROUNDS + 1);
    println!(
        "     {}: instructions: {} to be online ({} in one turn), {each} for a command and its result",
        home.kind(),
        before * 40,
        longest * 40
    );
}

/// Alice commands and waits for the outcome: microseconds.
fn command(home: &mut Home, number: u32) -> u128 {
    let began = Instant::now();
    let order = format!(r#"{{"args":{{"on":true,"level":99}},"id":"speed{number}","deadline_ms":50000}}"#);
    assert_eq!(home.alice.publish_for(1, "im/v1/to/lamp/cmd/set", order).code, 0);
    home.hears(&format!("im/v1/me/res/speed{number}"), |said| said["state"] == "done");
    began.elapsed().as_micros()
}

fn busy(line: &str) -> u64 {
    line.rsplit(' ').next().and_then(|number| number.parse().ok()).expect("it says how busy it was")
}

fn desired(home: &mut Home) {
    let mut board = paired(home, "lamp", &[]);
    home.desire("lamp", r#"{"on":true,"level":7}"#);
    board.says("light on 7");
    home.hears("im/v1/state/lamp", |said| said["reported"]["level"] == 7);
    board.unplug();
    home.presence("lamp", "offline");
    home.desire("lamp", r#"{"level":8}"#);
    let mut board = again(home, "lamp");
    board.says("light on 8");
    home.hears("im/v1/state/lamp", |said| said["reported"]["level"] == 8);
}

fn broker_restarts(home: &mut Home) {
    let mut board = paired(home, "lamp", &[]);
    home.power_cut_of_the_broker();
    board.says("online");
    let said = home.command(&["lamp", "set", "on=true"]);
    assert!(said.contains("done"), "{said}");
    board.says("light on 100");
}

fn cable(home: &mut Home) {
    let mut board = paired(home, "lamp", &["keep_alive=2"]);
    board.cable(Cable::Out);
    let pulled = Instant::now();
    home.presence("lamp", "offline");
    // One and a half keep alives, and the 5 seconds in which a connection may come back unnoticed (docs/protocol.md, section 7).
    let noticed = pulled.elapsed().as_secs_f32();
    assert!(noticed < 3.0 + 5.0 + 4.0, "noticed after {noticed} s");
    board.says("offline");
    board.cable(Cable::In);
    board.says("online");
    home.presence("lamp", "online");
    let said = home.command(&["lamp", "set", "on=true"]);
    assert!(said.contains("done"), "{said}");
}

fn board_restarts(home: &mut Home) {
    paired(home, "lamp", &[]).unplug();
    home.presence("lamp", "offline");
    let mut board = again(home, "lamp");
    board.says("online");
    home.presence("lamp", "online");
    let said = home.command(&["lamp", "set", "on=true", "--once"]);
    assert!(said.contains("done"), "{said}");
}

fn thermostat(home: &mut Home) {
    let mut board = paired(home, "thermostat", &["period=1"]);
    let said = home.command(&["thermostat", "target", "celsius=25"]);
    assert!(said.contains("done") && said.contains("25"), "{said}");
    board.says("heat on");
    home.hears("im/v1/state/thermostat", |said| {
        said["reported"]["heating"] == true && said["reported"]["target"] == 25
    });
    home.desire("thermostat", r#"{"target":5}"#);
    board.says("heat off");
    home.hears("im/v1/state/thermostat", |said| {
        said["reported"]["heating"] == false && said["reported"]["target"] == 5
    });
}

fn button(home: &mut Home) {
    let mut board = paired(home, "button", &[]);
    board.says("pressed");
    home.hears("im/v1/me/in/g-home/msg", |said| said["body"]["event"] == "rang");
    board.says("door Sent");
    assert_eq!(home.alice.publish_for(1, "im/v1/to/button/msg", "I am coming").code, 0);
    home.hears("im/v1/me/in/button/msg", |said| said["text"] == "I have shown it at the door");
}

fn sensor(home: &mut Home) {
    let code = format!("code={}", home.code());
    let mut board = home.board("sensor", &["app=sensor", &code, "name=sensor", "period=2"]);
    board.says("online");
    home.hears("im/v1/state/sensor", |said| said["reported"]["moisture"] == 42);
    board.says("asleep");
    home.presence("sensor", "asleep");
    board.says("awake");
    home.presence("sensor", "online");
    home.presence("sensor", "asleep");
}

fn update(home: &mut Home) {
    let (key, public) = home.maker();
    let maker = format!("maker={public}");
    let mut board = paired(home, "lamp", &[&maker, "version=1"]);
    let (image, path) = home.image(20_000);
    let told = home.update("lamp", &path, &key, "2");
    board.says("update to 2");
    board.says("installed");
    board.resets();
    assert!(home.slot("lamp", image.len()) == image, "another image is in the slot");
    // The boot loader starts the image.
    let mut board = home.board("lamp", &["app=lamp", &maker, "version=2"]);
    board.says("online");
    let (said, code) = told.join().expect("the update ends");
    assert!(code == 0 && said.contains("done"), "{code}: {said}");
}

fn update_resumed(home: &mut Home) {
    let (key, public) = home.maker();
    let maker = format!("maker={public}");
    let mut board = paired(home, "lamp", &[&maker, "version=1"]);
    let (image, path) = home.image(150_000);
    let told = home.update("lamp", &path, &key, "2");
    board.says("slot page 20");
    board.unplug();
    let mut board = home.board("lamp", &["app=lamp", &maker, "version=1"]);
    board.says("update to 2");
    let page = board.says("slot page");
    assert!(page != "slot page 1", "it began anew");
    board.says("installed");
    board.resets();
    assert!(home.slot("lamp", image.len()) == image, "another image is in the slot");
    // The image does not work: the boot loader starts the one before.
    let mut board = home.board("lamp", &["app=lamp", &maker, "version=1"]);
    board.says("online");
    let (said, code) = told.join().expect("the update ends");
    assert!(code == 1 && said.contains("failed"), "{code}: {said}");
}

fn update_refused(home: &mut Home) {
    let (key, _) = home.maker();
    let maker = format!("maker={}", "11".repeat(32));
    let mut board = paired(home, "lamp", &[&maker, "version=1"]);
    let (_, path) = home.image(1_000);
    let told = home.update("lamp", &path, &key, "2");
    board.says("not updated: the signature is not that of the maker");
    let (said, code) = told.join().expect("the update ends");
    assert!(code == 1 || code == 6, "{code}: {said}");
}

fn wrong_pin(home: &mut Home) {
    let code = format!("code={}", home.code());
    let pin = format!("pin={}", "5a".repeat(32));
    let mut board = home.board("lamp", &["app=lamp", &code, "name=lamp", &pin]);
    board.says("offline: the server's key is none of the pinned ones");
}

/// What shows that a board speaks what its program was built for: the other listener has nothing to say to it.
fn wrong_wire(home: &mut Home) {
    let (code, port) = (format!("code={}", home.code()), format!("port={}", home.other_port()));
    let mut board = home.board("lamp", &["app=lamp", &code, "name=lamp", &port]);
    board.says("offline: TLS found no common ground");
}

fn wrong_code(home: &mut Home) {
    let mut board = home.board("lamp", &["app=lamp", "code=AAAA-AAAA", "name=lamp"]);
    board.says("offline: the pairing code is wrong or too old");
}
