//! `parlor watch`: everything that happens, a line each.

use super::clock::Zone;
use super::options::{ConnectArgs, Options, connection_help};
use super::place::Purpose;
use super::session::{Session, SessionError, Step};
use super::{no_broker, now_ms, options_or_exit, runtime, until_told_to_end, words};
use crate::cli::{Exit, complain};
use clap::Args;
use parlor_client::model::up::is_address;
use parlor_client::{Event, Listen, Told};
use std::io::{self, Write};
use std::time::Duration;
use tokio::time::Instant;

/// What can be said on the command line.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(in crate::cli) struct WatchArgs {
    /// Only what concerns these accounts, groups, channels or rooms.
    pub addr: Vec<String>,
    /// End after so many events; the values that are there at the beginning do not count.
    #[arg(long, value_name = "N")]
    pub count: Option<u64>,
    /// End after so many seconds.
    #[arg(long = "for", value_name = "SECS")]
    pub secs: Option<u64>,
    /// Show also what was said before this terminal was first seen.
    #[arg(long)]
    pub backfill: bool,
    /// Print JSON, one object an event.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub connect: ConnectArgs,
}

const AFTER_HELP: &str = connection_help!(
    "\
Examples:
  parlor watch --demo alice
  parlor watch --demo alice lamp thermo1 --json | jq -c 'select(.event == \"state\") | .reported'
  parlor watch --demo bob alice --count 1 --for 60          wait a minute for a message

Events: message, sent, receipt, edit, recall, typing, contact, presence, state, command, stream, bounce, gap, refused,
connected, disconnected; with --json also head, conversation and answer. What it prints counts as delivered.

Exit codes:
  0  interrupted, or --count or --for is reached
  1  the connection was refused or taken over; the text says why
  4  no broker answers
  5  --for is over before --count is reached"
);

/// Prints what happens until told to end.
pub(in crate::cli) fn watch(args: &WatchArgs, environment: &[(String, String)]) -> Exit {
    if let Some(bad) = args.addr.iter().find(|addr| !is_address(addr)) {
        complain(&format_args!("`{bad}` is no address: 1 to 32 of a-z, 0-9, '.', '_' and '-'"));
        return Exit::Usage;
    }
    let options = match options_or_exit(&args.connect, environment) {
        Ok(options) => options,
        Err(exit) => return exit,
    };
    let done = runtime().and_then(|runtime| runtime.block_on(follow(args, &options)));
    done.unwrap_or_else(|error| {
        complain(&error);
        Exit::Failed
    })
}

async fn follow(args: &WatchArgs, options: &Options) -> Result<Exit, SessionError> {
    let mut session = Session::start(options, Purpose::Watch, Listen::All).await?;
    let zone = Zone::local();
    let mut left = args.count.unwrap_or(u64::MAX);
    let end = args.secs.map(|secs| Instant::now() + Duration::from_secs(secs));
    let over = async {
        match end {
            Some(end) => tokio::time::sleep_until(end).await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(over);
    let told = until_told_to_end();
    tokio::pin!(told);
    let exit = loop {
        let step = tokio::select! {
            step = session.step() => step,
            () = &mut over => break if args.count.is_some() { Exit::TimedOut } else { Exit::Done },
            () = &mut told => break Exit::Done,
        };
        let told = match step {
            Step::NoBroker { why, .. } => break no_broker(options, &why),
            Step::Ended(error) => return Err(error.into()),
            Step::Told(told) => told,
        };
        if !concerns(args, &told) {
            continue;
        }
        let line = if args.json { Some(told.to_json().to_string()) } else { words::line(&told, &zone, now_ms()) };
        let Some(line) = line else { continue };
        let is_own = matches!(
            told.event,
            Event::Connected | Event::Disconnected { .. } | Event::Missed { .. } | Event::Unreadable { .. }
        );
        left = left.saturating_sub(u64::from(!told.is_retained && !is_own));
        // Whoever read this may have had enough.
        if writeln!(io::stdout(), "{line}").is_err() || left == 0 {
            break Exit::Done;
        }
    };
    session.close().await;
    Ok(exit)
}

fn concerns(args: &WatchArgs, told: &Told) -> bool {
    if let Event::Message { message, .. } | Event::Sent { message, .. } = &told.event
        && message.backfill
        && !args.backfill
    {
        return false;
    }
    if args.addr.is_empty() {
        return true;
    }
    let with = match &told.event {
        Event::Message { with, .. }
        | Event::Receipt { with, .. }
        | Event::Recall { with, .. }
        | Event::Edit { with, .. }
        | Event::Contact { with, .. }
        | Event::Typing { with, .. }
        | Event::Stream { with, .. }
        | Event::Bounce { with, .. }
        | Event::Sent { with, .. }
        | Event::Conversation { with, .. }
        | Event::Presence { with, .. } => with,
        Event::CommandResult { report, .. } => &report.device,
        Event::State { device, .. } => device,
        Event::Command { order, .. } => &order.from,
        Event::Gap { .. }
        | Event::Head { .. }
        | Event::Answer { .. }
        | Event::Delta { .. }
        | Event::Gone { .. }
        | Event::Other { .. } => return false,
        // What concerns this client itself.
        _ => return true,
    };
    args.addr.iter().any(|addr| addr == with)
}
