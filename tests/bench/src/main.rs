//! Runs the same load against Parlor and its peers, in alternation, and prints a table of ratios.
//!
//! docs/measurements.md says what each figure means and how to read it.

// Figures are divided and printed with three digits; what a conversion to floating point loses is far below that.
#![allow(clippy::cast_precision_loss)]
// Sequence numbers and lengths are made here and bounded by the loads, so the narrow types hold them.
#![allow(clippy::cast_possible_truncation)]

mod brokers;
mod cli;
mod client;
mod generator;
mod im;
mod latency;
mod loads;
mod process;
mod publisher;
mod quic;
mod relay;
mod report;
mod wire;

use std::io::Write;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::ExitCode;
use std::{env, fs, io};

use brokers::{Kind, Programs, StartError};
use cli::{Command, Options};
use loads::{Load, Outcome};
use report::Report;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Files the bench and each broker may have open.
const OPEN_FILES: u64 = 24_576;

fn main() -> ExitCode {
    if env::args().nth(1).as_deref() == Some("im") {
        allow_open_files();
        return match im::run(env::args().skip(2)) {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => ExitCode::FAILURE,
            Err(error) => {
                eprintln!("parlor-bench: {error}");
                ExitCode::from(2)
            }
        };
    }
    if env::args().nth(1).as_deref() == Some("quic") {
        allow_open_files();
        return match quic::run(env::args().skip(2)) {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => ExitCode::FAILURE,
            Err(error) => {
                eprintln!("parlor-bench: {error}");
                ExitCode::from(2)
            }
        };
    }
    let command = match cli::parse(env::args().skip(1), |name| env::var(name).ok()) {
        Ok(command) => command,
        Err(error) => {
            eprintln!("parlor-bench: {error}");
            return ExitCode::from(2);
        }
    };
    let done = match command {
        Command::Help => io::stdout().write_all(cli::HELP.as_bytes()).map(|()| true),
        Command::List => list(),
        Command::Relay(address) => TcpListener::bind(address).and_then(relay::run).map(|()| true),
        Command::Measure(options) => measure(&options),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("parlor-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn list() -> io::Result<bool> {
    let mut out = io::stdout().lock();
    for load in loads::LOADS {
        writeln!(out, "{:16} {}", load.name, load.about)?;
    }
    Ok(true)
}

/// Runs everything and prints the table; false if Parlor misbehaved.
fn measure(options: &Options) -> io::Result<bool> {
    allow_open_files();
    let programs = programs(options)?;
    let mut kinds = vec![];
    for &kind in &options.brokers {
        if programs.path(kind)?.is_file() {
            kinds.push(kind);
        } else {
            println!("{} is absent: no {}", kind.name(), programs.path(kind)?.display());
        }
    }
    let mut report = Report::default();
    let rounds = options.loads.iter().map(|load| load.max_rounds.min(options.rounds)).max().unwrap_or(0);
    for round in 0..rounds {
        for (number, load) in options.loads.iter().enumerate().filter(|(_, load)| round < load.max_rounds) {
            // Each round starts with another broker, so that none always follows the same one.
            for turn in 0..kinds.len() {
                let kind = kinds[(turn + round as usize) % kinds.len()];
                if !load.suits(kind, options.version) {
                    continue;
                }
                let result = run_once(&programs, kind, load, options);
                progress(round, kind, load, &result);
                report.add(number, kind, result);
            }
        }
    }
    println!("\n{}", report.table(&options.loads, &kinds));
    let complaints = report.complaints(&options.loads);
    if complaints.is_empty() {
        println!("No broker lost, doubled or reordered a message.");
    }
    for (_, complaint) in &complaints {
        println!("- {complaint}");
    }
    if let Some(file) = &options.json {
        fs::write(file, report.json(&options.loads))?;
    }
    Ok(complaints.iter().all(|(kind, _)| *kind != Kind::Parlor))
}

fn programs(options: &Options) -> io::Result<Programs> {
    let own = env::current_exe()?;
    let beside = own.parent().map(PathBuf::from).unwrap_or_default();
    let target = beside.parent().map(PathBuf::from).unwrap_or_default();
    Ok(Programs {
        parlor: options.parlor.clone().unwrap_or_else(|| beside.join("parlor")),
        mosquitto: options.mosquitto.clone(),
        rumqttd: options.rumqttd.clone().unwrap_or_else(|| target.join("peers/bin/rumqttd")),
        parlor_args: options.parlor_args.clone(),
        scratch: options.scratch.clone().unwrap_or_else(|| target.join("bench")),
    })
}

fn run_once(programs: &Programs, kind: Kind, load: &Load, options: &Options) -> Result<Outcome, String> {
    let size = || fs::metadata(programs.path(kind)?).map(|meta| meta.len());
    // A free port can be taken by another program before the broker has it, so one more try is fair.
    let broker = match programs.start(kind) {
        Err(StartError::Silent { .. }) => programs.start(kind),
        started => started,
    };
    let broker = broker.map_err(|error| error.to_string())?;
    let program_bytes = size().map_err(|error| error.to_string())?;
    load.run(&broker, options.version, program_bytes).map_err(|error| {
        let log = broker.log_tail();
        if log.is_empty() { error.to_string() } else { format!("{error}; its log ends with:\n{log}") }
    })
}

fn progress(round: u32, kind: Kind, load: &Load, result: &Result<Outcome, String>) {
    match result {
        Ok(outcome) => {
            let figures: Vec<String> = load
                .measures
                .iter()
                .zip(&outcome.values)
                .map(|(measure, value)| format!("{} {value:.3} {}", measure.name, measure.unit))
                .collect();
            println!("round {} {:16} {:10} {}", round + 1, load.name, kind.name(), figures.join(", "));
        }
        Err(failure) => println!("round {} {:16} {:10} failed: {failure}", round + 1, load.name, kind.name()),
    }
}

/// Raises the limit of open files, which the brokers inherit, as far as it may be.
fn allow_open_files() {
    let limit = getrlimit(Resource::Nofile);
    let most = limit.maximum.unwrap_or(OPEN_FILES);
    let wanted = OPEN_FILES.min(most);
    if limit.current.is_some_and(|current| current < wanted) {
        let raised = Rlimit { current: Some(wanted), maximum: limit.maximum };
        if let Err(error) = setrlimit(Resource::Nofile, raised) {
            println!("The limit of open files stays at {:?} ({error}); the idle load needs {wanted}.", limit.current);
        }
    }
}
