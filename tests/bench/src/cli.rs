//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::brokers::Kind;
use crate::loads::{LOADS, Load};
use crate::wire::Version;

/// What the command line asks for.
#[derive(Debug, Clone)]
pub enum Command {
    /// Measure.
    Measure(Options),
    /// Be the bare relay.
    Relay(SocketAddr),
    /// Print the help.
    Help,
    /// Print the loads.
    List,
}

/// How to measure.
#[derive(Debug, Clone)]
pub struct Options {
    /// The loads, in the order of the table.
    pub loads: Vec<Load>,
    /// How often each load is run against each broker.
    pub rounds: u32,
    /// The brokers, in the order of the table.
    pub brokers: Vec<Kind>,
    /// The version the generator speaks.
    pub version: Version,
    /// Where all figures go besides the table.
    pub json: Option<PathBuf>,
    /// Parlor's program, if not beside this one.
    pub parlor: Option<PathBuf>,
    /// Mosquitto's program.
    pub mosquitto: PathBuf,
    /// rumqttd's program, if not where docs/measurements.md puts it.
    pub rumqttd: Option<PathBuf>,
    /// Arguments added to Parlor's command line.
    pub parlor_args: Vec<String>,
    /// Where the brokers' directories are made.
    pub scratch: Option<PathBuf>,
}

/// The command line cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UsageError {
    /// An argument the bench does not know.
    #[error("{0} is not an argument of parlor-bench; --help lists them")]
    Unknown(String),
    /// An argument without its value.
    #[error("{0} needs a value behind it; --help shows which")]
    Missing(String),
    /// A value that does not fit its argument.
    #[error("{argument} cannot be `{value}`; it takes {takes}")]
    Value {
        /// The argument.
        argument: String,
        /// What was given.
        value: String,
        /// What would be right.
        takes: String,
    },
}

/// The help text.
pub const HELP: &str = "\
parlor-bench: the same load against Parlor and its peers, in alternation, as a table of ratios

    cargo run --release -p parlor-bench -- [OPTIONS]

  --only LOAD,..        only loads whose names start so (--list names them)
  --rounds N            rounds, of which the table shows medians [5]
  --brokers NAME,..     parlor, mosquitto, rumqttd, relay [all]; an absent one is left out
  --quick               one round of a tenth of the messages
  --in-flight N         messages in flight per publisher in the traffic loads, instead of each load's own
  --mqtt 3|5            version the generator speaks [3]
  --json FILE           write every figure of every round
  --parlor FILE         Parlor's program [beside this one; PARLOR_BENCH_PARLOR]
  --parlor-arg ARG      add ARG to `parlor serve`; may be repeated
  --mosquitto FILE      mosquitto's program [/usr/sbin/mosquitto; PARLOR_BENCH_MOSQUITTO]
  --rumqttd FILE        rumqttd's program [target/peers/bin/rumqttd; PARLOR_BENCH_RUMQTTD]
  --scratch DIR         where the brokers' data directories are made [beside this program]
  --list                print the loads
  --help                print this
  im                    messaging; `im --help`
  quic                  QUIC beside TCP and TLS; `quic --help`
  relay ADDRESS         be the bare relay on that address (the bench starts it so)

Exit code: 0; 1 if Parlor lost, doubled or reordered messages or failed; 2 if the command line is wrong.
";

/// Reads the arguments behind the name of the program; `variable` reads an environment variable.
pub fn parse(
    arguments: impl IntoIterator<Item = String>,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Command, UsageError> {
    let path = |name| variable(name).map(PathBuf::from);
    let mut options = Options {
        loads: LOADS.to_vec(),
        rounds: 5,
        brokers: Kind::ALL.to_vec(),
        version: Version::V3,
        json: None,
        parlor: path("PARLOR_BENCH_PARLOR"),
        mosquitto: path("PARLOR_BENCH_MOSQUITTO").unwrap_or_else(|| "/usr/sbin/mosquitto".into()),
        rumqttd: path("PARLOR_BENCH_RUMQTTD"),
        parlor_args: vec![],
        scratch: None,
    };
    let mut quick = false;
    let mut window = None;
    let mut arguments = arguments.into_iter();
    while let Some(argument) = arguments.next() {
        // `--name value` and `--name=value` both work.
        let (name, mut given) = match argument.split_once('=') {
            Some((name, value)) if name.starts_with("--") => (name.to_owned(), Some(value.to_owned())),
            _ => (argument, None),
        };
        let mut value = || given.take().or_else(|| arguments.next()).ok_or_else(|| UsageError::Missing(name.clone()));
        match name.as_str() {
            "--help" | "-h" => return Ok(Command::Help),
            "--list" => return Ok(Command::List),
            "relay" => return address(&name, &value()?).map(Command::Relay),
            "--only" => options.loads = loads(&name, &value()?)?,
            "--rounds" => options.rounds = rounds(&name, &value()?)?,
            "--brokers" => options.brokers = brokers(&name, &value()?)?,
            "--quick" => quick = true,
            "--in-flight" => window = Some(in_flight(&name, &value()?)?),
            "--mqtt" => options.version = version(&name, &value()?)?,
            "--json" => options.json = Some(value()?.into()),
            "--parlor" => options.parlor = Some(value()?.into()),
            "--parlor-arg" => options.parlor_args.push(value()?),
            "--mosquitto" => options.mosquitto = value()?.into(),
            "--rumqttd" => options.rumqttd = Some(value()?.into()),
            "--scratch" => options.scratch = Some(value()?.into()),
            _ => return Err(UsageError::Unknown(name)),
        }
        if given.is_some() {
            return Err(UsageError::Unknown(format!("{name} with a value")));
        }
    }
    if let Some(window) = window {
        options.loads = options.loads.into_iter().map(|load| load.with_in_flight(window)).collect();
    }
    if quick {
        options.loads = options.loads.into_iter().map(Load::quick).collect();
    }
    Ok(Command::Measure(options))
}

fn wrong(argument: &str, value: &str, takes: impl Into<String>) -> UsageError {
    UsageError::Value { argument: argument.to_owned(), value: value.to_owned(), takes: takes.into() }
}

fn address(argument: &str, value: &str) -> Result<SocketAddr, UsageError> {
    value.parse().map_err(|_| wrong(argument, value, "an address such as 127.0.0.1:1883"))
}

fn rounds(argument: &str, value: &str) -> Result<u32, UsageError> {
    value.parse().ok().filter(|rounds| (1..=100).contains(rounds)).ok_or_else(|| wrong(argument, value, "1 to 100"))
}

fn in_flight(argument: &str, value: &str) -> Result<u64, UsageError> {
    value.parse().ok().filter(|window| (1..=4_096).contains(window)).ok_or_else(|| wrong(argument, value, "1 to 4096"))
}

fn version(argument: &str, value: &str) -> Result<Version, UsageError> {
    match value {
        "3" | "3.1.1" => Ok(Version::V3),
        "5" | "5.0" => Ok(Version::V5),
        _ => Err(wrong(argument, value, "3 or 5")),
    }
}

fn loads(argument: &str, value: &str) -> Result<Vec<Load>, UsageError> {
    let starts: Vec<&str> = value.split(',').collect();
    if let Some(start) = starts.iter().find(|start| !LOADS.iter().any(|load| load.name.starts_with(**start))) {
        let names: Vec<&str> = LOADS.iter().map(|load| load.name).collect();
        return Err(wrong(argument, start, format!("the start of one of {}", names.join(", "))));
    }
    Ok(LOADS.iter().filter(|load| starts.iter().any(|start| load.name.starts_with(start))).copied().collect())
}

fn brokers(argument: &str, value: &str) -> Result<Vec<Kind>, UsageError> {
    let names: Vec<&str> = value.split(',').collect();
    if let Some(name) = names.iter().find(|name| !Kind::ALL.iter().any(|kind| kind.name() == **name)) {
        let known: Vec<&str> = Kind::ALL.iter().map(|kind| kind.name()).collect();
        return Err(wrong(argument, name, known.join(", ")));
    }
    Ok(Kind::ALL.into_iter().filter(|kind| names.contains(&kind.name())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Command, UsageError> {
        parse(line.split_whitespace().map(str::to_owned), |_| None)
    }

    #[test]
    fn loads_are_chosen_by_the_start_of_their_names() {
        let Ok(Command::Measure(options)) = read("--only fan-in,idle --brokers=parlor,relay --rounds 3 --quick") else {
            panic!("the line is right");
        };
        let names: Vec<&str> = options.loads.iter().map(|load| load.name).collect();
        assert_eq!(names, ["fan-in-qos0", "fan-in-qos1", "fan-in-qos2", "fan-in-4k", "idle"]);
        assert_eq!(options.brokers, [Kind::Relay, Kind::Parlor]);
        assert_eq!(options.rounds, 3);
        assert!(options.loads.iter().all(|load| load.max_rounds == 1));
    }

    #[test]
    fn a_wrong_line_is_answered_with_what_would_be_right() {
        let check = |line: &str, expect: &str| {
            let text = read(line).unwrap_err().to_string();
            assert!(text.contains(expect), "{line}: {text}");
        };
        check("--only fan-up", "the start of one of fan-in-qos0");
        check("--rounds 0", "1 to 100");
        check("--rounds", "needs a value");
        check("--brokers emqx", "mosquitto, relay, rumqttd, parlor");
        check("--mqtt 4", "3 or 5");
        check("--in-flight 0", "1 to 4096");
        check("--quick=yes", "--quick with a value");
        check("relay here", "127.0.0.1:1883");
        check("--fast", "--fast is not an argument");
    }
}
