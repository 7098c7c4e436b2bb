//! QUIC beside TCP and TLS: the same clients, the same broker, in one run, as ratios.

mod datagrams;
mod first;
mod idle;
mod lines;
mod link;
mod road;
mod site;
mod table;
mod traffic;

use std::io::{self, BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use first::Return;
use lines::Way;
use link::{HERE, Line, Weather};
use road::{Dialer, Kind, Remember};
use site::Site;
use table::Table;
use traffic::Traffic;

use crate::client::LoadError;
use crate::process::ProcessError;

/// The help text.
const HELP: &str = "\
parlor-bench quic: MQTT over QUIC beside TCP and TLS

    cargo run --release -p parlor-bench -- quic [OPTIONS]

  --only PART,..      traffic, idle, first, lines, datagrams [all]
  --rounds N          rounds, of which the table shows medians [3]
  --messages N        messages of each traffic load [200000]
  --connections N     idle connections [2000]
  --returns N         returns of a client, for the time to its first message [51]
  --seconds N         seconds of each line and of the datagrams [12]
  --parlor FILE       Parlor's program [beside this one]
  --parlor-arg ARG    add ARG to `parlor serve`; may be repeated
  --scratch DIR       where the data directory is made [beside this program]

`lines` and the second half of `first` need root, TUN devices and python3.
";

/// How to measure.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    only: Vec<String>,
    rounds: u32,
    messages: u32,
    connections: u32,
    returns: u32,
    seconds: u64,
    parlor: PathBuf,
    parlor_args: Vec<String>,
    scratch: PathBuf,
}

/// A load could not be run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum QuicError {
    /// A connection.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// A file, process or socket.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The broker's process.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// TLS.
    #[error(transparent)]
    Tls(#[from] rustls::Error),
    /// The command line.
    #[error("{0}; --help lists the options")]
    Usage(String),
    /// Something came out wrong.
    #[error("{0}")]
    Wrong(String),
}

fn parse(mut args: impl Iterator<Item = String>) -> Result<Option<Options>, QuicError> {
    let own = std::env::current_exe()?;
    let beside = own.parent().map(PathBuf::from).unwrap_or_default();
    let mut options = Options {
        only: vec![],
        rounds: 3,
        messages: 200_000,
        connections: 2_000,
        returns: 51,
        seconds: 12,
        parlor: beside.join("parlor"),
        parlor_args: vec![],
        scratch: beside.join("../bench"),
    };
    while let Some(arg) = args.next() {
        if arg == "--help" {
            return Ok(None);
        }
        let value = args.next().ok_or_else(|| QuicError::Usage(format!("{arg} needs a value")))?;
        let number = || value.parse::<u32>().map_err(|_| QuicError::Usage(format!("{value} is no number")));
        match arg.as_str() {
            "--only" => options.only = value.split(',').map(str::to_owned).collect(),
            "--rounds" => options.rounds = number()?.max(1),
            "--messages" => options.messages = number()?,
            "--connections" => options.connections = number()?.max(1),
            "--returns" => options.returns = number()?.max(1),
            "--seconds" => options.seconds = number()?.max(1).into(),
            "--parlor" => options.parlor = value.into(),
            "--parlor-arg" => options.parlor_args.push(value),
            "--scratch" => options.scratch = value.into(),
            _ => return Err(QuicError::Usage(format!("{arg} is no option"))),
        }
    }
    Ok(Some(options))
}

/// One thread for the whole generator, so that the other processor is the broker's.
fn wait<T>(future: impl Future<Output = Result<T, QuicError>>) -> Result<T, QuicError> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(future)
}

/// Runs the loads; false if something came out wrong.
pub(crate) fn run(args: impl Iterator<Item = String>) -> Result<bool, QuicError> {
    let args: Vec<String> = args.collect();
    if args.first().is_some_and(|first| first == "there") {
        return there(&args[1..]).map(|()| true);
    }
    let Some(options) = parse(args.into_iter())? else {
        print!("{HELP}");
        return Ok(true);
    };
    std::fs::create_dir_all(&options.scratch)?;
    let options = Options { scratch: options.scratch.canonicalize()?, ..options };
    let mut is_good = true;
    let parts: [(&str, fn(&Options, &mut Table) -> Result<(), QuicError>); 5] = [
        ("traffic", measure_traffic),
        ("idle", measure_idle),
        ("datagrams", measure_datagrams),
        ("first", measure_first),
        ("lines", measure_lines),
    ];
    for (name, part) in parts {
        if !options.only.is_empty() && !options.only.iter().any(|only| name.starts_with(only.as_str())) {
            continue;
        }
        let mut table = Table::default();
        if let Err(error) = part(&options, &mut table) {
            is_good = false;
            println!("{name} failed: {error}");
        }
        print!("{}", table.text());
    }
    Ok(is_good)
}

fn in_a_site<T>(
    options: &Options,
    kind: Kind,
    load: impl AsyncFnOnce(Dialer, &Site) -> Result<T, QuicError>,
) -> Result<T, QuicError> {
    let site = Site::start(options, None)?;
    let result = wait(async {
        let dialer = Dialer::new(kind, site.at(kind), &site.certificate(), Remember::Nothing)?;
        load(dialer, &site).await
    });
    result.map_err(|error| QuicError::Wrong(format!("over {}: {error}; {}", kind.name(), site.log())))
}

fn measure_traffic(options: &Options, table: &mut Table) -> Result<(), QuicError> {
    let of = |pairs, qos, in_flight, messages| Traffic { pairs, qos, in_flight, messages };
    let loads = [
        ("QoS 0, 64 in flight", of(8, 0, 64, options.messages)),
        ("QoS 1, 16 in flight", of(8, 1, 16, options.messages / 2)),
        ("QoS 0, 1 in flight", of(8, 0, 1, options.messages / 4)),
        ("QoS 1, 1 in flight", of(8, 1, 1, options.messages / 4)),
    ];
    for (name, traffic) in loads {
        let aim = if traffic.in_flight > 1 { Some(3.0) } else { None };
        for round in 0..options.rounds {
            for kind in in_turn(round) {
                let cost = in_a_site(options, kind, async |dialer, site| {
                    traffic::run(&dialer, site.process(), traffic).await
                })?;
                table.add(&format!("{name}: CPU, s per million"), kind, cost.cpu_secs_per_million, aim);
                table.add(&format!("{name}: thousand a second"), kind, cost.rate, None);
            }
        }
    }
    Ok(())
}

/// Each round begins with another road, so that none always follows the same one.
fn in_turn(round: u32) -> impl Iterator<Item = Kind> {
    let count = Kind::ALL.len();
    (0..count).map(move |turn| Kind::ALL[(turn + round as usize) % count])
}

fn measure_idle(options: &Options, table: &mut Table) -> Result<(), QuicError> {
    for round in 0..options.rounds {
        for kind in in_turn(round) {
            let idle = in_a_site(options, kind, async |dialer, site| {
                idle::run(dialer, site.process(), options.connections).await
            })?;
            table.add_most("idle connection: resident bytes", kind, idle.resident_bytes, 24.0 * 1024.0);
            table.add("connections a second, CONNACK included", kind, idle.rate, None);
            table.add("connections: CPU, ms per thousand", kind, idle.cpu_ms_per_thousand, None);
        }
    }
    Ok(())
}

fn measure_datagrams(options: &Options, table: &mut Table) -> Result<(), QuicError> {
    for _ in 0..options.rounds {
        let rate = in_a_site(options, Kind::Quic, async |_, site| {
            datagrams::run(site, &site.certificate(), Duration::from_secs(options.seconds.min(5))).await
        })?;
        table.add("datagrams: thousand sent a second", Kind::Quic, rate.sent, None);
        table.add("datagrams: thousand a second at the subscriber", Kind::Quic, rate.received, None);
        table.add("datagrams: CPU, s per million at the subscriber", Kind::Quic, rate.cpu_secs_per_million, None);
    }
    Ok(())
}

fn median(sorted: &[f64]) -> f64 {
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

fn measure_first(options: &Options, _: &mut Table) -> Result<(), QuicError> {
    let site = Site::start(options, None)?;
    wait(first::befriend(site.at(Kind::Tcp), &site.certificate(), site.key()))?;
    println!("\nFrom connecting to the first acknowledged message (durable), ms: median of {}", options.returns);
    println!("\n| line | how | median | p90 |\n| --- | --- | --- | --- |");
    for how in Return::ALL {
        let at = site.at(how.kind());
        let took = wait(first::run(how, at, &site.certificate(), site.key(), options.returns))?;
        row_of_first("loopback", how, &took);
    }
    drop(site);
    let line = match Line::open(Weather { loss_percent: 0.0, delay_ms: 20 }) {
        Ok(line) => line,
        Err(error) => {
            println!("\nNo line with a delay: {error}");
            return Ok(());
        }
    };
    let site = Site::start(options, Some(HERE))?;
    wait(first::befriend(site.at(Kind::Tcp), &site.certificate(), site.key()))?;
    for how in Return::ALL {
        let at = SocketAddr::from((HERE, site.port(how.kind())));
        let key: String = site.key().iter().map(|byte| format!("{byte:02x}")).collect();
        let name = Return::ALL.iter().position(|other| *other == how).unwrap_or_default().to_string();
        let args = ["first", &name, &at.to_string(), &path(&site.certificate()), &key, &options.returns.to_string()];
        let output = line.there(&args.map(str::to_owned))?.stdin(Stdio::null()).output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            let why = String::from_utf8_lossy(&output.stderr).into_owned();
            return Err(QuicError::Wrong(format!("{}: {text}{why}{}", how.name(), site.log())));
        }
        let took: Vec<f64> = text.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        row_of_first("20 ms each way", how, &took);
    }
    Ok(())
}

fn row_of_first(line: &str, how: Return, took: &[f64]) {
    let p90 = took.get(took.len() * 9 / 10).copied().unwrap_or(f64::NAN);
    println!("| {line} | {} | {:.2} | {p90:.2} |", how.name(), median(took));
}

fn path(path: &Path) -> String {
    path.display().to_string()
}

fn measure_lines(options: &Options, _: &mut Table) -> Result<(), QuicError> {
    println!(
        "\nDelay of small messages (40 a second) while bulk (100 KB a second) goes to the same client; 20 ms each way"
    );
    println!(
        "\n| loss | way | p50, ms | p99, ms | most, ms | small | bulk |\n| --- | --- | --- | --- | --- | --- | --- |"
    );
    for loss_percent in [0.0, 1.0, 5.0] {
        let line = match Line::open(Weather { loss_percent, delay_ms: 20 }) {
            Ok(line) => line,
            Err(error) => {
                println!("\nNo line that loses packets: {error}");
                return Ok(());
            }
        };
        let site = Site::start(options, Some(HERE))?;
        for way in Way::ALL {
            let at = SocketAddr::from((HERE, site.port(way.kind())));
            let args = ["lines", way.word(), &at.to_string(), &path(&site.certificate())];
            let mut command = line.there(&args.map(str::to_owned))?;
            let mut reader = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
            let stdout = reader.stdout.take().ok_or_else(|| QuicError::Wrong("no standard output".to_owned()))?;
            let mut said = BufReader::new(stdout).lines();
            if said.next().transpose()?.as_deref() != Some("ready") {
                let _ = reader.kill();
                let _ = reader.wait();
                return Err(QuicError::Wrong(format!("{}: no subscription; {}", way.name(), site.log())));
            }
            lines::publish(site.at(Kind::Tcp), options.seconds, &mut reader)?;
            let line = said.next().transpose()?.unwrap_or_default();
            let words: Vec<f64> = line.split(' ').filter_map(|word| word.parse().ok()).collect();
            let [small, bulk, p50, p99, most] = words[..] else {
                return Err(QuicError::Wrong(format!("{}: {line:?}; {}", way.name(), site.log())));
            };
            println!("| {loss_percent} % | {} | {p50:.1} | {p99:.1} | {most:.1} | {small} | {bulk} |", way.name());
        }
    }
    Ok(())
}

/// What runs at the other end of a line.
fn there(args: &[String]) -> Result<(), QuicError> {
    let wrong = || QuicError::Usage(format!("{args:?}"));
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words[..] {
        ["first", how, at, certificate, key, rounds] => {
            let how: usize = how.parse().map_err(|_| wrong())?;
            let how = *Return::ALL.get(how).ok_or_else(wrong)?;
            let key: Vec<u8> = key.as_bytes().chunks(2).filter_map(hex).collect();
            let (at, rounds) = (at.parse().map_err(|_| wrong())?, rounds.parse().map_err(|_| wrong())?);
            let took = wait(first::run(how, at, Path::new(certificate), &key, rounds))?;
            for ms in took {
                println!("{ms}");
            }
            Ok(())
        }
        ["lines", way, at, certificate] => {
            let way = Way::ALL.into_iter().find(|other| other.word() == way).ok_or_else(wrong)?;
            wait(lines::read(way, at.parse().map_err(|_| wrong())?, Path::new(certificate)))
        }
        _ => Err(wrong()),
    }
}

fn hex(pair: &[u8]) -> Option<u8> {
    u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()
}
