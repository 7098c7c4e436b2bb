//! `parlor cmd`: one command to a device, and how it goes.

use super::options::{ConnectArgs, Options, connection_help};
use super::place::{Purpose, random};
use super::session::{Session, SessionError, Step};
use super::words::{ArgumentsError, arguments, clean, progress};
use super::{no_broker, options_or_exit, runtime};
use crate::cli::{Exit, complain};
use clap::Args;
use parlor_client::model::command::CommandState;
use parlor_client::model::up::{is_address, is_client_id, is_level};
use parlor_client::model::wire::Report;
use parlor_client::{CommandOptions, Event, Filter, Listen, Told};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// What can be said on the command line.
#[derive(Debug, Args, Default)]
#[command(after_help = AFTER_HELP)]
pub(in crate::cli) struct CommandArgs {
    /// Account of the device.
    pub device: String,
    /// Name of the command.
    #[arg(required_unless_present = "cancel")]
    pub name: Option<String>,
    /// Its arguments: one JSON value, or KEY=VALUE words.
    pub args: Vec<String>,
    /// Seconds until it is too late; default 10, with --persist 7 days.
    #[arg(long, value_name = "SECS")]
    pub deadline: Option<u64>,
    /// Let it wait for a device that is offline.
    #[arg(long)]
    pub persist: bool,
    /// The device must never begin it twice, even if it restarts in the midst of it.
    #[arg(long)]
    pub once: bool,
    /// Client id of the command. The same id again does not repeat it, but says how it goes.
    #[arg(long)]
    pub id: Option<String>,
    /// Cancel the command with this id instead.
    #[arg(long, value_name = "ID", conflicts_with_all = ["name", "args", "deadline", "persist", "once", "id"])]
    pub cancel: Option<String>,
    /// End when the broker has it, and do not follow it.
    #[arg(long)]
    pub no_wait: bool,
    /// Print JSON, one object a change.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub connect: ConnectArgs,
}

const AFTER_HELP: &str = connection_help!(
    "\
Examples:
  parlor cmd --demo alice lamp set on=true level=40
  parlor cmd --demo alice thermo1 set '{\"target\":21}'
  parlor cmd --demo alice thermo1 set target=18 --persist --no-wait --id night      waits for a device that sleeps
  parlor cmd --demo alice thermo1 set target=18 --id night                          how does it go?
  parlor cmd --demo alice thermo1 --cancel night

It prints each state: queued, sent, delivered, running, and the outcome with the device's result.

Exit codes:
  0   done; with --no-wait or --cancel: the broker has taken it
  1   failed: the device tried and could not, or the broker refused; the text says why
  2   the command line is wrong
  4   no broker answers
  5   nothing was heard in time, not even from the broker
  6   rejected: the device will not
  7   expired: the deadline came before the device had it
  8   timeout: the deadline came before there was an outcome
  9   canceled
  10  unknown outcome: the device restarted in the midst of it"
);

/// How long past the deadline the broker may take to say so.
const SLACK: Duration = Duration::from_secs(10);
/// The broker's deadline where none is given, seconds: without and with `--persist`.
const DEADLINE_S: u64 = 10;
const PERSIST_DEADLINE_S: u64 = 7 * 86_400;

/// The command line cannot be carried out.
#[derive(Debug, thiserror::Error)]
enum CommandError {
    #[error("`{0}` is no account: 1 to 32 of a-z, 0-9, '.', '_' and '-'")]
    Device(String),
    #[error("`{0}` is no name of a command")]
    Name(String),
    #[error("`{0}` is no client id: 1 to 36 of A-Z, a-z, 0-9, '_' and '-'")]
    Id(String),
    #[error(transparent)]
    Arguments(#[from] ArgumentsError),
}

/// What is to be done.
enum Task {
    Give { id: String, name: String, args: Value },
    Cancel(String),
}

/// Gives a command, or cancels one.
pub(in crate::cli) fn command(args: &CommandArgs, environment: &[(String, String)]) -> Exit {
    let task = match task(args) {
        Ok(task) => task,
        Err(error) => {
            complain(&error);
            return Exit::Usage;
        }
    };
    match options_or_exit(&args.connect, environment) {
        Ok(options) => carry_out(args, &task, &options),
        Err(exit) => exit,
    }
}

/// Gives the command `update` to a device, which may sleep, and follows it.
pub(in crate::cli) fn update(args: &CommandArgs, given: Value, options: &Options) -> Exit {
    let id = args.id.clone().unwrap_or_else(|| format!("u{:016x}", random()));
    if !args.json {
        eprintln!(
            "update {id} of {device}; ending this does not end it: `parlor cmd {device} --cancel {id}` does",
            device = args.device
        );
    }
    carry_out(args, &Task::Give { id, name: "update".to_owned(), args: given }, options)
}

fn carry_out(args: &CommandArgs, task: &Task, options: &Options) -> Exit {
    let done = runtime().and_then(|runtime| runtime.block_on(follow(args, task, options)));
    done.unwrap_or_else(|error| {
        complain(&error);
        Exit::Failed
    })
}

fn task(args: &CommandArgs) -> Result<Task, CommandError> {
    if !is_address(&args.device) {
        return Err(CommandError::Device(args.device.clone()));
    }
    for id in args.id.iter().chain(&args.cancel) {
        if !is_client_id(id) {
            return Err(CommandError::Id(id.clone()));
        }
    }
    if let Some(id) = &args.cancel {
        return Ok(Task::Cancel(id.clone()));
    }
    let name = args.name.clone().unwrap_or_default();
    if !is_level(&name) {
        return Err(CommandError::Name(name));
    }
    let words: Vec<&str> = args.args.iter().map(String::as_str).collect();
    let id = args.id.clone().unwrap_or_else(|| format!("c{:016x}", random()));
    Ok(Task::Give { id, name, args: arguments(&words)? })
}

async fn follow(args: &CommandArgs, task: &Task, options: &Options) -> Result<Exit, SessionError> {
    let (filters, limit) = match task {
        Task::Give { id, .. } => {
            let standard = if args.persist { PERSIST_DEADLINE_S } else { DEADLINE_S };
            let limit = Duration::from_secs(args.deadline.unwrap_or(standard)) + SLACK;
            (vec![Filter::at_least_once(format!("im/v1/me/res/{id}"))], limit)
        }
        Task::Cancel(_) => (Vec::new(), SLACK),
    };
    let mut session = Session::start(options, Purpose::Once, Listen::Only(filters)).await?;
    let taken = match task {
        Task::Give { id, name, args: given } => {
            let deadline = args.deadline.map(Duration::from_secs);
            let wish = CommandOptions { id: Some(id.clone()), deadline, persist: args.persist, once: args.once };
            session.client.command(&args.device, name, given.clone(), wish).await.map(drop)
        }
        Task::Cancel(id) => session.client.cancel(&args.device, id).await,
    };
    if let Err(error) = taken {
        complain(&error);
        return Ok(Exit::Failed);
    }
    let deadline = Instant::now() + limit;
    let exit = loop {
        match timeout_at(deadline, session.step()).await {
            Err(_) => {
                complain(&"nothing more was heard in time; ask again with the same --id");
                break Exit::TimedOut;
            }
            Ok(Step::NoBroker { why, .. }) => break no_broker(options, &why),
            Ok(Step::Ended(error)) => return Err(error.into()),
            Ok(Step::Told(told)) => {
                if let Some(exit) = judge(args, task, &told) {
                    break exit;
                }
            }
        }
    };
    session.close().await;
    Ok(exit)
}

fn judge(args: &CommandArgs, task: &Task, told: &Told) -> Option<Exit> {
    match (&told.event, task) {
        (Event::Lost { why: refusal, .. } | Event::Refused { refusal, .. }, _) => {
            if args.json {
                println!("{}", json!({"error": {"code": refusal.code, "text": refusal.text}}));
            }
            complain(&format_args!("{}: {}", refusal.code, refusal.text));
            Some(match refusal.code.as_str() {
                "expired" => Exit::Expired,
                "no_answer" => Exit::TimedOut,
                _ => Exit::Failed,
            })
        }
        (Event::Accepted { .. }, Task::Cancel(id)) => {
            say(args, &json!({"id": id, "state": "canceled"}), "canceled");
            Some(Exit::Done)
        }
        (Event::Received { .. }, Task::Give { id, .. }) if args.no_wait => {
            say(args, &json!({"id": id, "state": "queued"}), id);
            Some(Exit::Done)
        }
        (Event::CommandResult { id, report }, Task::Give { id: given, .. }) if id == given => {
            if !args.no_wait {
                say(args, &told.to_json(), &clean(&progress(report)));
            }
            outcome(report)
        }
        (Event::Disconnected { why, .. }, _) => {
            complain(&format_args!("{why}; trying again"));
            None
        }
        _ => None,
    }
}

fn say(args: &CommandArgs, object: &Value, text: &str) {
    if args.json {
        println!("{object}");
    } else {
        println!("{text}");
    }
}

fn outcome(report: &Report) -> Option<Exit> {
    Some(match CommandState::read(&report.state)? {
        CommandState::Done => Exit::Done,
        CommandState::Failed | CommandState::Refused => Exit::Failed,
        CommandState::Rejected => Exit::Rejected,
        CommandState::Expired => Exit::Expired,
        CommandState::Timeout => Exit::Late,
        CommandState::Canceled => Exit::Canceled,
        CommandState::UnknownOutcome => Exit::UnknownOutcome,
        CommandState::Waiting
        | CommandState::Queued
        | CommandState::Sent
        | CommandState::Delivered
        | CommandState::Running => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_outcome_has_its_exit_code() {
        let check = |state: &str, expect: Option<u8>| {
            let report = Report { state: state.into(), ..Report::default() };
            assert_eq!(outcome(&report).map(|exit| exit as u8), expect, "{state}");
        };
        check("running", None);
        check("nonsense", None);
        for (state, code) in [
            ("done", 0),
            ("failed", 1),
            ("rejected", 6),
            ("expired", 7),
            ("timeout", 8),
            ("canceled", 9),
            ("unknown_outcome", 10),
        ] {
            check(state, Some(code));
        }
    }
}
