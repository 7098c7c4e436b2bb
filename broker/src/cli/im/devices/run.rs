//! Gives a simulated device its connection, and `parlor simulate`.

use super::{Device, Lamp, Outcome, Reply, Thermostat, addressed, carry_out, reply};
use crate::cli::im::options::{ConnectArgs, Options, connection_help};
use crate::cli::im::place::Purpose;
use crate::cli::im::session::{Session, SessionError, Step};
use crate::cli::im::{no_broker, now_ms, options_or_exit, runtime, until_told_to_end, words};
use crate::cli::{Exit, complain};
use clap::{Args, ValueEnum};
use parlor_client::Event;
use parlor_client::model::up::Draft;
use parlor_client::model::wire::{Message, Order};
use parlor_client::{Listen, Told};
use serde_json::{Map, Value, json};
use std::collections::VecDeque;
use std::io::{self, Write};
use std::time::Duration;

/// What can be said on the command line.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(in crate::cli) struct SimulateArgs {
    /// What device to be.
    pub device: Kind,
    /// Accept contact requests of this account.
    #[arg(long, value_name = "ACCOUNT")]
    pub owner: Option<String>,
    #[command(flatten)]
    pub connect: ConnectArgs,
}

const AFTER_HELP: &str = connection_help!(
    "\
Examples:
  parlor simulate lamp --user lamp --owner alice
  PARLOR_PASSWORD=… parlor simulate thermostat --user thermo2 --url mqtts://home.lan

It is an ordinary MQTT client: it describes itself, answers the commands set, status and sleep, follows what is desired of
it, reports its state, and answers people: `on`, `off`, `21`, `status`, `sleep 30`; in a group, when called by its name."
);

/// What there is to simulate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum Kind {
    /// A lamp that can be dimmed.
    Lamp,
    /// A thermostat in a room that follows it slowly.
    Thermostat,
}

/// How often time passes for a device.
const TICK: Duration = Duration::from_secs(2);
/// Commands whose end is remembered: one that comes again is not carried out again.
const REMEMBERED_MAX: usize = 64;
/// How long a device that goes to sleep waits for the broker to have taken its last words.
const GOODNIGHT: Duration = Duration::from_secs(3);

impl Kind {
    pub(in crate::cli::im) fn make(self) -> Box<dyn Device> {
        match self {
            Self::Lamp => Box::new(Lamp::default()),
            Self::Thermostat => Box::new(Thermostat::default()),
        }
    }
}

/// Simulates a device until told to end.
pub(in crate::cli) fn simulate(args: &SimulateArgs, environment: &[(String, String)]) -> Exit {
    let options = match options_or_exit(&args.connect, environment) {
        Ok(options) => options,
        Err(exit) => return exit,
    };
    let mut runner = Runner::new(args.device.make(), options, args.owner.clone());
    let mut say = |line: &str| drop(writeln!(io::stdout(), "{line}"));
    let done = runtime().and_then(|runtime| {
        runtime.block_on(async {
            tokio::select! {
                end = runner.run(&mut say) => end,
                () = until_told_to_end() => Ok(Exit::Done),
            }
        })
    });
    done.unwrap_or_else(|error| {
        complain(&error);
        Exit::Failed
    })
}

/// A device and what it remembers from connection to connection.
pub(in crate::cli::im) struct Runner {
    device: Box<dyn Device>,
    options: Options,
    owner: Option<String>,
    /// What the broker was told of its state.
    told: Map<String, Value>,
    /// How the latest commands ended.
    ended: VecDeque<(String, Value)>,
}

/// Why a connection is left.
enum Leave {
    Sleep(u64),
    Exit(Exit),
}

impl Runner {
    pub(in crate::cli::im) fn new(device: Box<dyn Device>, options: Options, owner: Option<String>) -> Self {
        Self { device, options, owner, told: Map::new(), ended: VecDeque::new() }
    }

    /// Lives until the connection is refused. `say` hears what happens, a line each.
    pub(in crate::cli::im) async fn run(&mut self, say: &mut (dyn FnMut(&str) + Send)) -> Result<Exit, SessionError> {
        loop {
            let mut session = Session::start(&self.options, Purpose::Device, Listen::Device).await?;
            let leave = self.live(&mut session, say).await?;
            session.close().await;
            match leave {
                Leave::Exit(exit) => return Ok(exit),
                Leave::Sleep(for_s) => {
                    say(&format!("asleep for {for_s} seconds"));
                    tokio::time::sleep(Duration::from_secs(for_s)).await;
                    say("awake");
                }
            }
        }
    }

    async fn live(&mut self, session: &mut Session, say: &mut (dyn FnMut(&str) + Send)) -> Result<Leave, SessionError> {
        let mut tick = tokio::time::interval(TICK);
        loop {
            let step = tokio::select! {
                step = session.step() => step,
                _ = tick.tick() => {
                    if session.client.with(|messenger| messenger.is_connected()) && self.device.tick() {
                        self.report(session);
                    }
                    continue;
                }
            };
            let told = match step {
                Step::NoBroker { why, .. } => return Ok(Leave::Exit(no_broker(&self.options, &why))),
                Step::Ended(error) => return Err(error.into()),
                Step::Told(told) => told,
            };
            let sleep = match &told.event {
                Event::Connected => {
                    say(&format!("{} is connected to {}", self.options.user, self.options.target));
                    self.told.clear();
                    self.publish(session, "me/status", json!({"state": "online"}));
                    self.publish(session, "me/describe", self.device.describe());
                    self.report(session);
                    None
                }
                Event::Disconnected { why, .. } => {
                    say(&format!("{why}; trying again"));
                    None
                }
                Event::Lost { re, why: refusal, .. } | Event::Refused { re, refusal } => {
                    say(&words::refused(re, refusal));
                    None
                }
                _ => self.hear(session, &told, say),
            };
            if let Some(for_s) = sleep {
                self.publish(session, "me/status", json!({"state": "asleep", "for_s": for_s}));
                let _ = tokio::time::timeout(GOODNIGHT, flush(session)).await;
                return Ok(Leave::Sleep(for_s));
            }
        }
    }

    /// Something came; how long to sleep, where that was asked for.
    fn hear(&mut self, session: &mut Session, told: &Told, say: &mut (dyn FnMut(&str) + Send)) -> Option<u64> {
        match &told.event {
            Event::Command { id, name, order } => self.obey(session, id, name, order, say),
            Event::Delta { desired, .. } => {
                say(&format!("desired: {}", Value::Object(desired.clone())));
                if let Err(unwilling) = self.device.set(desired) {
                    say(&format!("not done: {unwilling}"));
                }
                self.report(session);
                None
            }
            Event::Message { with, message } => self.answer(session, with, message, say),
            Event::Contact { with, op, own: false, .. } if op == "request" && self.owner.as_ref() == Some(with) => {
                self.publish(session, &format!("me/contact/{with}"), json!({"op": "accept"}));
                None
            }
            _ => None,
        }
    }

    fn obey(
        &mut self,
        session: &mut Session,
        id: &str,
        name: &str,
        order: &Order,
        say: &mut (dyn FnMut(&str) + Send),
    ) -> Option<u64> {
        let topic = format!("me/cmdres/{id}");
        if let Some((_, ended)) = self.ended.iter().find(|(known, _)| known == id) {
            self.publish(session, &topic, ended.clone());
            return None;
        }
        say(&words::clean(&format!("{}: {name} {}", order.from, order.args)));
        // It has the command; how it goes comes after that.
        session.client.settle();
        self.publish(session, &topic, json!({"state": "running"}));
        let (ended, sleep) = match carry_out(self.device.as_mut(), name, &order.args) {
            Outcome::Done(result) => (json!({"state": "done", "result": result}), None),
            Outcome::Asleep { for_s } => (json!({"state": "done", "result": {"for_s": for_s}}), Some(for_s)),
            Outcome::Rejected(unwilling) => (json!({"state": "rejected", "text": unwilling.to_string()}), None),
        };
        // First the state, so that it is known whose command changed it.
        self.report(session);
        self.ended.push_back((id.to_owned(), ended.clone()));
        if self.ended.len() > REMEMBERED_MAX {
            self.ended.pop_front();
        }
        self.publish(session, &topic, ended);
        sleep
    }

    fn answer(
        &mut self,
        session: &mut Session,
        with: &str,
        message: &Message,
        say: &mut (dyn FnMut(&str) + Send),
    ) -> Option<u64> {
        if message.from == self.options.user || message.backfill {
            return None;
        }
        session.client.read(with, message.seq);
        let text = message.text.as_deref().filter(|_| message.kind.as_deref() != Some("member"))?;
        let text = if with == message.from { text } else { addressed(text, &self.options.user)? };
        say(&words::clean(&format!("{}: {text}", message.from)));
        let (words, sleep) = match reply(self.device.as_mut(), text) {
            Reply::Words(words) => (words, None),
            Reply::Asleep { words, for_s } => (words, Some(for_s)),
        };
        self.report(session);
        let draft = Draft { re: Some(message.seq), ..Draft::text(words) };
        if let Err(full) = session.client.with(|messenger| messenger.send(with, &draft, now_ms())) {
            say(&full.to_string());
        }
        sleep
    }

    /// Tells what has changed since it was told last.
    fn report(&mut self, session: &mut Session) {
        let now = self.device.reported();
        let changed: Map<String, Value> = now
            .iter()
            .filter(|(key, value)| self.told.get(*key) != Some(value))
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect();
        if !changed.is_empty() {
            self.publish(session, "me/reported", Value::Object(changed));
            self.told = now;
        }
    }

    #[allow(clippy::unused_self)] // All that goes out goes out here.
    fn publish(&self, session: &mut Session, below: &str, payload: Value) {
        // At the edge of the outbox there is no connection; what matters is told again on the next one.
        let _ = session.client.with(|messenger| messenger.ask(below, payload));
    }
}

/// Until the broker has answered everything.
async fn flush(session: &mut Session) {
    while session.client.with(|messenger| messenger.waiting()) > 0 {
        session.step().await;
    }
}
