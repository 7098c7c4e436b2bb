//! The loads: what each does, how much of it, what it yields and what Parlor aims at.

use std::time::{Duration, Instant};

use crate::brokers::{Broker, Kind};
use crate::client::{self, LoadError};
use crate::generator::{Generator, Phase, Violations};
use crate::latency;
use crate::process::{Process, ProcessError};
use crate::publisher::Stream;
use crate::wire::{Template, Version};

/// Longest time for one load against one broker.
const LIMIT: Duration = Duration::from_secs(90);
/// Longest time for one phase of the long offline queue.
const LONG_LIMIT: Duration = Duration::from_secs(300);
/// Publishers that fill the offline queues.
const OFFLINE_PUBLISHERS: u32 = 8;
/// Messages each of them has in flight.
const OFFLINE_IN_FLIGHT: u64 = 16;

/// What a load does.
#[derive(Debug, Clone, Copy)]
pub enum Work {
    /// Messages to connected receivers.
    Traffic(Traffic),
    /// Connections that do nothing.
    Idle {
        /// How many.
        connections: u64,
    },
    /// Messages to sessions that are away, which then come back for them.
    Offline {
        /// How many sessions.
        sessions: u32,
        /// Messages to each.
        each: u64,
    },
    /// Messages to sessions that stay away.
    LongOffline {
        /// How many sessions.
        sessions: u32,
        /// Messages in all.
        messages: u64,
        /// Messages in the first and the last stretch, which are compared.
        stretch: u64,
    },
    /// 1,000 messages a second.
    Latency {
        /// Quality of service.
        qos: u8,
        /// How many messages.
        messages: u32,
    },
    /// Start of the process to the first CONNACK.
    Start,
}

/// Messages to connected receivers.
#[derive(Debug, Clone, Copy)]
pub struct Traffic {
    /// Who sends to whom.
    pub shape: Shape,
    /// Quality of service of publishing and subscribing.
    pub qos: u8,
    /// Bytes of the payload.
    pub payload_len: usize,
    /// Messages in flight per publisher.
    pub in_flight: u64,
    /// Deliveries in all.
    pub deliveries: u64,
}

/// Who sends to whom.
#[derive(Debug, Clone, Copy)]
pub enum Shape {
    /// So many publishers, one topic, one receiver.
    FanIn(u32),
    /// One publisher, one topic, so many receivers.
    FanOut(u32),
    /// So many publishers, each with its own topic and receiver.
    Pairs(u32),
}

/// How a figure is to be judged.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Aim {
    /// Parlor's figure divided by mosquitto's.
    OfMosquitto(f64),
    /// Parlor's figure itself.
    AtMost(f64),
    /// Measured for information.
    Open,
}

/// One figure a load yields; smaller is better unless the unit says "per second".
#[derive(Debug, Clone, Copy)]
pub struct Measure {
    /// Its name within the load.
    pub name: &'static str,
    /// Its unit.
    pub unit: &'static str,
    /// What Parlor aims at.
    pub aim: Aim,
}

/// One load of the bench.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// The name on the command line and in the table.
    pub name: &'static str,
    /// What it does, in a sentence.
    pub about: &'static str,
    /// What it does.
    pub work: Work,
    /// What it yields, in the order of the table.
    pub measures: &'static [Measure],
    /// Rounds beyond this add time and no knowledge.
    pub max_rounds: u32,
}

/// What one run of a load against one broker gave.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// One value per [`Measure`] of the load.
    pub values: Vec<f64>,
    /// What went wrong with messages.
    pub violations: Violations,
}

/// A load failed.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The connections failed.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The figures of the process could not be read.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// The size of the program could not be read.
    #[error("cannot read the size of the broker's program: {0}")]
    Program(#[from] std::io::Error),
}

const fn measure(name: &'static str, unit: &'static str, aim: Aim) -> Measure {
    Measure { name, unit, aim }
}

/// A load with connected receivers; a macro because its figures must be `'static`.
macro_rules! traffic {
    ($name:literal, $about:literal, $shape:expr, qos $qos:literal, $payload:literal B, $in_flight:literal in flight,
     $deliveries:literal, $aim:expr) => {
        Load {
            name: $name,
            about: $about,
            work: Work::Traffic(Traffic {
                shape: $shape,
                qos: $qos,
                payload_len: $payload,
                in_flight: $in_flight,
                deliveries: $deliveries,
            }),
            measures: &[measure("cpu", "s per million", $aim), measure("rate", "thousand per second", Aim::Open)],
            max_rounds: u32::MAX,
        }
    };
}

/// All loads, in the order of the table.
pub const LOADS: &[Load] = &[
    traffic!("fan-in-qos0", "8 publishers to 1 receiver, QoS 0, 64 in flight", Shape::FanIn(8),
        qos 0, 64 B, 64 in flight, 800_000, Aim::OfMosquitto(0.03)),
    traffic!("fan-in-qos1", "8 publishers to 1 receiver, QoS 1, 16 in flight", Shape::FanIn(8),
        qos 1, 64 B, 16 in flight, 240_000, Aim::OfMosquitto(0.045)),
    traffic!("fan-in-qos2", "8 publishers to 1 receiver, QoS 2, 16 in flight", Shape::FanIn(8),
        qos 2, 64 B, 16 in flight, 120_000, Aim::Open),
    traffic!("fan-out-qos0", "1 publisher to 100 receivers, QoS 0, 16 in flight", Shape::FanOut(100),
        qos 0, 64 B, 16 in flight, 600_000, Aim::OfMosquitto(0.085)),
    traffic!("fan-out-qos1", "1 publisher to 100 receivers, QoS 1, 16 in flight", Shape::FanOut(100),
        qos 1, 64 B, 16 in flight, 400_000, Aim::OfMosquitto(0.09)),
    traffic!("fan-out-qos2", "1 publisher to 100 receivers, QoS 2, 16 in flight", Shape::FanOut(100),
        qos 2, 64 B, 16 in flight, 200_000, Aim::Open),
    traffic!("pairs-qos0", "50 publishers to 50 receivers, QoS 0, 8 in flight", Shape::Pairs(50),
        qos 0, 64 B, 8 in flight, 400_000, Aim::OfMosquitto(0.12)),
    traffic!("pairs-qos1", "50 publishers to 50 receivers, QoS 1, 8 in flight", Shape::Pairs(50),
        qos 1, 64 B, 8 in flight, 200_000, Aim::OfMosquitto(0.12)),
    traffic!("pairs-qos2", "50 publishers to 50 receivers, QoS 2, 8 in flight", Shape::Pairs(50),
        qos 2, 64 B, 8 in flight, 100_000, Aim::Open),
    traffic!("pairs-200-qos1", "200 publishers to 200 receivers, QoS 1, 1 in flight", Shape::Pairs(200),
        qos 1, 64 B, 1 in flight, 100_000, Aim::OfMosquitto(0.8)),
    traffic!("fan-in-4k", "8 publishers to 1 receiver, QoS 0, 64 in flight, 4 KiB payloads", Shape::FanIn(8),
        qos 0, 4096 B, 64 in flight, 120_000, Aim::OfMosquitto(0.14)),
    traffic!("wide-fan-out-qos0", "1 publisher to 100 receivers, QoS 0, 64 in flight", Shape::FanOut(100),
        qos 0, 64 B, 64 in flight, 600_000, Aim::OfMosquitto(0.085)),
    traffic!("wide-pairs-qos0", "50 publishers to 50 receivers, QoS 0, 64 in flight", Shape::Pairs(50),
        qos 0, 64 B, 64 in flight, 400_000, Aim::OfMosquitto(0.12)),
    Load {
        name: "idle",
        about: "5,000 connections that do nothing",
        work: Work::Idle { connections: 5_000 },
        measures: &[
            measure("resident", "bytes per connection", Aim::AtMost(1_500.0)),
            measure("cpu", "ms per 1,000 connects", Aim::AtMost(40.0)),
            measure("rate", "thousand connects per second", Aim::Open),
        ],
        max_rounds: u32::MAX,
    },
    Load {
        name: "offline",
        about: "200 sessions that are away get 500 messages each (QoS 1, 8 publishers, 16 in flight) and come back",
        work: Work::Offline { sessions: 200, each: 500 },
        measures: &[
            measure("enqueue cpu", "us per message", Aim::OfMosquitto(1.0)),
            measure("enqueue time", "us per message", Aim::OfMosquitto(1.0)),
            measure("drain cpu", "us per message", Aim::OfMosquitto(0.15)),
            measure("drain time", "us per message", Aim::Open),
            measure("resident", "bytes per queued message", Aim::AtMost(100.0)),
        ],
        max_rounds: u32::MAX,
    },
    Load {
        name: "offline-long",
        about: "200 sessions that are away get 2 million messages; the last 100,000 against the first 100,000",
        work: Work::LongOffline { sessions: 200, messages: 2_000_000, stretch: 100_000 },
        measures: &[
            measure("enqueue cpu", "us per message", Aim::OfMosquitto(1.0)),
            measure("enqueue time", "us per message", Aim::OfMosquitto(1.0)),
            measure("cpu, last by first", "ratio", Aim::AtMost(1.3)),
            measure("time, last by first", "ratio", Aim::AtMost(1.3)),
            measure("resident", "bytes per queued message", Aim::AtMost(100.0)),
        ],
        max_rounds: 1,
    },
    Load {
        name: "latency-qos0",
        about: "1,000 messages a second from 1 publisher to 1 receiver, QoS 0",
        work: Work::Latency { qos: 0, messages: 3_000 },
        measures: LATENCY,
        max_rounds: u32::MAX,
    },
    Load {
        name: "latency-qos1",
        about: "1,000 messages a second from 1 publisher to 1 receiver, QoS 1",
        work: Work::Latency { qos: 1, messages: 3_000 },
        measures: LATENCY,
        max_rounds: u32::MAX,
    },
    Load {
        name: "start",
        about: "from the start of the process to the first CONNACK; what it then holds",
        work: Work::Start,
        measures: &[
            measure("time", "ms", Aim::Open),
            measure("resident", "kB", Aim::Open),
            measure("program", "kB", Aim::Open),
        ],
        max_rounds: u32::MAX,
    },
];

const LATENCY: &[Measure] =
    &[measure("p50", "us", Aim::Open), measure("p99", "us", Aim::Open), measure("cpu", "us per message", Aim::Open)];

impl Load {
    /// Whether the broker can do this load at all: the relay keeps no sessions, rumqttd's 3.1.1 listener is the only
    /// one configured.
    pub fn suits(&self, kind: Kind, version: Version) -> bool {
        let needs_sessions = matches!(self.work, Work::Offline { .. } | Work::LongOffline { .. });
        !(kind == Kind::Relay && needs_sessions || kind == Kind::Rumqttd && version == Version::V5)
    }

    /// The same load with a tenth of the messages, for a look.
    pub fn quick(mut self) -> Self {
        match &mut self.work {
            Work::Traffic(traffic) => traffic.deliveries /= 10,
            Work::Idle { connections } => *connections /= 10,
            Work::Offline { each, .. } => *each /= 10,
            Work::LongOffline { messages, stretch, .. } => {
                *messages /= 10;
                *stretch /= 10;
            }
            Work::Latency { messages, .. } => *messages /= 10,
            Work::Start => {}
        }
        self.max_rounds = 1;
        self
    }

    /// The same load with another number of messages in flight, if it is one with connected receivers.
    pub fn with_in_flight(mut self, in_flight: u64) -> Self {
        if let Work::Traffic(traffic) = &mut self.work {
            traffic.in_flight = in_flight;
        }
        self
    }

    /// Runs the load once against a fresh broker whose program has `program_bytes`.
    pub fn run(&self, broker: &Broker, version: Version, program_bytes: u64) -> Result<Outcome, RunError> {
        match self.work {
            Work::Traffic(traffic) => run_traffic(broker, version, traffic),
            Work::Idle { connections } => run_idle(broker, version, connections),
            Work::Offline { sessions, each } => run_offline(broker, version, sessions, each),
            Work::LongOffline { sessions, messages, stretch } => {
                run_long_offline(broker, version, sessions, messages, stretch)
            }
            Work::Latency { qos, messages } => run_latency(broker, version, qos, messages),
            Work::Start => Ok(Outcome {
                values: vec![
                    broker.start_secs * 1e3,
                    broker.process().resident_bytes()? as f64 / 1e3,
                    program_bytes as f64 / 1e3,
                ],
                violations: Violations::default(),
            }),
        }
    }
}

/// Runs `work` and says how many processor seconds the broker spent meanwhile.
fn timed(process: Process, work: impl FnOnce() -> Result<Phase, LoadError>) -> Result<(Phase, f64), RunError> {
    let before = process.cpu()?;
    let phase = work()?;
    Ok((phase, process.cpu()?.secs_since(&before)))
}

fn run_traffic(broker: &Broker, version: Version, traffic: Traffic) -> Result<Outcome, RunError> {
    let mut generator = connect_traffic(broker, version, traffic)?;
    let (publishers, receivers) = match traffic.shape {
        Shape::FanIn(publishers) | Shape::Pairs(publishers) => (publishers, 1),
        Shape::FanOut(receivers) => (1, receivers),
    };
    let each = (traffic.deliveries / u64::from(publishers) / u64::from(receivers)).max(1);
    // The first messages pay for buffers that the others find ready.
    generator.publish((each / 10).max(1), LIMIT)?;
    let (phase, cpu_secs) = timed(broker.process(), || generator.publish(each, LIMIT))?;
    Ok(Outcome {
        values: vec![cpu_secs / phase.delivered as f64 * 1e6, phase.delivered as f64 / phase.wall_secs / 1e3],
        violations: generator.violations(),
    })
}

/// Connects the receivers and publishers of a load with connected receivers.
pub fn connect_traffic(broker: &Broker, version: Version, traffic: Traffic) -> Result<Generator, LoadError> {
    let mut generator = Generator::new(broker.address, version)?;
    let (qos, in_flight) = (traffic.qos, traffic.in_flight);
    let stream =
        |topic: &str, number| vec![Stream::new(Template::new(version, topic, qos, number, traffic.payload_len))];
    match traffic.shape {
        Shape::FanIn(publishers) => {
            generator.add_receiver("receiver", qos, "bench/in", 0..publishers)?;
            for number in 0..publishers {
                let client_id = format!("publisher-{number}");
                generator.add_publisher(&client_id, qos, in_flight, 1, stream("bench/in", number))?;
            }
        }
        Shape::FanOut(receivers) => {
            for number in 0..receivers {
                generator.add_receiver(&format!("receiver-{number}"), qos, "bench/out", 0..1)?;
            }
            generator.add_publisher("publisher", qos, in_flight, receivers, stream("bench/out", 0))?;
        }
        Shape::Pairs(pairs) => {
            for number in 0..pairs {
                let topic = format!("bench/pair/{number}");
                generator.add_receiver(&format!("receiver-{number}"), qos, &topic, number..number + 1)?;
                let client_id = format!("publisher-{number}");
                generator.add_publisher(&client_id, qos, in_flight, 1, stream(&topic, number))?;
            }
        }
    }
    Ok(generator)
}

fn run_idle(broker: &Broker, version: Version, connections: u64) -> Result<Outcome, RunError> {
    let mut generator = Generator::new(broker.address, version)?;
    let before = broker.process().resident_bytes()?;
    let (phase, cpu_secs) = timed(broker.process(), || generator.open_idle(connections, LIMIT))?;
    let resident = broker.process().resident_bytes()?.saturating_sub(before);
    let count = phase.delivered as f64;
    Ok(Outcome {
        values: vec![resident as f64 / count, cpu_secs * 1e3 / count * 1e3, count / phase.wall_secs / 1e3],
        violations: generator.violations(),
    })
}

/// Leaves sessions behind and connects the publishers that will fill their queues.
fn connect_offline(broker: &Broker, version: Version, sessions: u32) -> Result<Generator, LoadError> {
    for number in 0..sessions {
        client::leave_session(broker.address, version, &session_name(number), &session_topic(number))?;
    }
    let mut generator = Generator::new(broker.address, version)?;
    for publisher in 0..OFFLINE_PUBLISHERS {
        let streams = (publisher..sessions)
            .step_by(OFFLINE_PUBLISHERS as usize)
            .map(|number| Stream::new(Template::new(version, &session_topic(number), 1, number, 64)))
            .collect();
        generator.add_publisher(&format!("publisher-{publisher}"), 1, OFFLINE_IN_FLIGHT, 0, streams)?;
    }
    Ok(generator)
}

fn session_name(number: u32) -> String {
    format!("away-{number}")
}

fn session_topic(number: u32) -> String {
    format!("bench/away/{number}")
}

fn run_offline(broker: &Broker, version: Version, sessions: u32, each: u64) -> Result<Outcome, RunError> {
    let process = broker.process();
    let mut publishing = connect_offline(broker, version, sessions)?;
    let empty = process.resident_bytes()?;
    let messages = u64::from(sessions) * each;
    let per_publisher = messages / u64::from(OFFLINE_PUBLISHERS);
    let (enqueue, enqueue_cpu) = timed(process, || publishing.publish(per_publisher, LIMIT))?;
    let full = process.resident_bytes()?;
    let mut receiving = Generator::new(broker.address, version)?;
    let (drain, drain_cpu) = timed(process, || {
        let start = Instant::now();
        receiving.resume(sessions, session_name, start, LIMIT)?;
        receiving.receive(messages, start, LIMIT)
    })?;
    let micros = |secs: f64, count: u64| secs * 1e6 / count as f64;
    let mut violations = receiving.violations();
    violations.acks += publishing.violations().acks;
    Ok(Outcome {
        values: vec![
            micros(enqueue_cpu, enqueue.delivered),
            micros(enqueue.wall_secs, enqueue.delivered),
            micros(drain_cpu, drain.delivered),
            micros(drain.wall_secs, drain.delivered),
            full.saturating_sub(empty) as f64 / messages as f64,
        ],
        violations,
    })
}

fn run_long_offline(
    broker: &Broker,
    version: Version,
    sessions: u32,
    messages: u64,
    stretch: u64,
) -> Result<Outcome, RunError> {
    let process = broker.process();
    let mut publishing = connect_offline(broker, version, sessions)?;
    let empty = process.resident_bytes()?;
    let publishers = u64::from(OFFLINE_PUBLISHERS);
    let middle = messages - 2 * stretch;
    let mut phases = vec![];
    for count in [stretch, middle, stretch] {
        phases.push(timed(process, || publishing.publish(count / publishers, LONG_LIMIT))?);
    }
    let full = process.resident_bytes()?;
    let count: u64 = phases.iter().map(|(phase, _)| phase.delivered).sum();
    let cpu: f64 = phases.iter().map(|(_, cpu)| cpu).sum();
    let wall: f64 = phases.iter().map(|(phase, _)| phase.wall_secs).sum();
    let ((first, first_cpu), (last, last_cpu)) = (phases[0], phases[2]);
    Ok(Outcome {
        values: vec![
            cpu * 1e6 / count as f64,
            wall * 1e6 / count as f64,
            last_cpu / first_cpu,
            last.wall_secs / first.wall_secs,
            full.saturating_sub(empty) as f64 / count as f64,
        ],
        violations: publishing.violations(),
    })
}

fn run_latency(broker: &Broker, version: Version, qos: u8, messages: u32) -> Result<Outcome, RunError> {
    let before = broker.process().cpu()?;
    let latencies = latency::measure(broker.address, version, qos, messages)?;
    let cpu_secs = broker.process().cpu()?.secs_since(&before);
    let sorted = &latencies.micros;
    let quantile = |part: usize| sorted.get(sorted.len() * part / 100).copied().unwrap_or(f64::NAN);
    Ok(Outcome {
        values: vec![quantile(50), quantile(99), cpu_secs * 1e6 / f64::from(messages)],
        violations: latencies.violations,
    })
}
