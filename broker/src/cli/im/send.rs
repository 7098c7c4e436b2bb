//! `parlor send`: one message, and what became of it.

use super::options::{ConnectArgs, Options, connection_help};
use super::place::Purpose;
use super::session::{Session, SessionError, Step};
use super::{no_broker, options_or_exit, runtime};
use crate::cli::{Exit, complain};
use clap::{Args, ValueEnum};
use parlor_client::model::conversation::Tick;
use parlor_client::model::up::{is_address, is_client_id};
use parlor_client::model::wire::Refusal;
use parlor_client::{Draft, Event, Filter, Listen};
use serde_json::{Value, json};
use std::io::{self, Read};
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// What can be said on the command line.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(in crate::cli) struct SendArgs {
    /// Account, group, room or channel to write to.
    pub addr: String,
    /// The text; `-` for standard input.
    #[arg(required_unless_present = "body")]
    pub text: Vec<String>,
    /// Client id of the message. The same id sent again makes no second message.
    #[arg(long)]
    pub id: Option<String>,
    /// Seconds after which nobody gets it any more.
    #[arg(long, value_name = "SECS")]
    pub ttl: Option<u64>,
    /// What kind of message it is.
    #[arg(long)]
    pub kind: Option<String>,
    /// JSON to send beside or instead of the text.
    #[arg(long, value_name = "JSON")]
    pub body: Option<String>,
    /// The number of the message it answers.
    #[arg(long, value_name = "SEQ")]
    pub re: Option<u64>,
    /// Do not count it as unread.
    #[arg(long)]
    pub quiet: bool,
    /// Wait until the receiver has it, or has read it; in a group, everybody.
    #[arg(long, value_name = "STATE")]
    pub wait: Option<Wait>,
    /// How long to wait altogether.
    #[arg(long, value_name = "SECS", default_value_t = 30)]
    pub timeout: u64,
    /// Print JSON: one object at the end.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub connect: ConnectArgs,
}

const AFTER_HELP: &str = connection_help!(
    "\
Examples:
  parlor send --demo alice bob 'dinner is ready'        prints the number the message got
  parlor send --demo alice lamp on
  parlor send --demo alice g-home 'who is there?' --wait read --timeout 600
  df -h / | parlor send --demo bob alice - --kind report --quiet
  parlor send --demo alice bob hi --id greeting-7       again with the same id: no second message

Exit codes:
  0  the broker has it on disk; with --wait: the state waited for is reached
  1  it was refused, or nobody got it before its time was over; the code and the text say why
  2  the command line is wrong
  4  no broker answers
  5  the time was over; it may be accepted all the same: ask again with the same --id

A connection that breaks is made again until the time is over; the client id keeps the message single."
);

/// What to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum Wait {
    /// It is on a terminal of the receiver.
    Delivered,
    /// The receiver has read it.
    Read,
}

/// Longest text taken from standard input, bytes: what the broker takes.
const TEXT_BYTES_MAX: u64 = 64 * 1024;

/// The command line cannot be carried out.
#[derive(Debug, thiserror::Error)]
enum SendError {
    #[error("`{0}` is no address: 1 to 32 of a-z, 0-9, '.', '_' and '-'")]
    Address(String),
    #[error("`{0}` is no client id: 1 to 36 of A-Z, a-z, 0-9, '_' and '-'")]
    Id(String),
    #[error("--body is no JSON: {0}")]
    Body(serde_json::Error),
    #[error("cannot read the text from standard input: {0}")]
    Input(io::Error),
    #[error("there is nothing to send")]
    Empty,
}

/// Sends a message.
pub(in crate::cli) fn send(args: &SendArgs, environment: &[(String, String)]) -> Exit {
    let options = match options_or_exit(&args.connect, environment) {
        Ok(options) => options,
        Err(exit) => return exit,
    };
    let draft = match draft(args) {
        Ok(draft) => draft,
        Err(error) => {
            complain(&error);
            return Exit::Usage;
        }
    };
    let done = runtime().and_then(|runtime| runtime.block_on(deliver(args, &draft, &options)));
    done.unwrap_or_else(|error| {
        complain(&error);
        Exit::Failed
    })
}

fn draft(args: &SendArgs) -> Result<Draft, SendError> {
    if !is_address(&args.addr) {
        return Err(SendError::Address(args.addr.clone()));
    }
    if let Some(id) = args.id.as_ref().filter(|id| !is_client_id(id)) {
        return Err(SendError::Id(id.clone()));
    }
    let text = if args.text == ["-"] {
        let mut text = String::new();
        io::stdin().lock().take(TEXT_BYTES_MAX + 1).read_to_string(&mut text).map_err(SendError::Input)?;
        let text = text.trim_end_matches(['\n', '\r']);
        text.to_owned()
    } else {
        args.text.join(" ")
    };
    let body = args.body.as_deref().map(serde_json::from_str).transpose().map_err(SendError::Body)?;
    if text.is_empty() && body.is_none() {
        return Err(SendError::Empty);
    }
    Ok(Draft {
        text: (!text.is_empty()).then_some(text),
        body,
        kind: args.kind.clone(),
        id: args.id.clone(),
        ttl_s: args.ttl,
        re: args.re,
        quiet: args.quiet,
    })
}

/// How far it has come.
struct Sent {
    id: String,
    seq: Option<u64>,
    dup: bool,
}

async fn deliver(args: &SendArgs, draft: &Draft, options: &Options) -> Result<Exit, SessionError> {
    let filters = match args.wait {
        // At QoS 0 this program is nobody who has received anything: it reads no messages, so it must not be said that it did.
        Some(_) => {
            ["receipt", "bounce"].map(|what| Filter::at_most_once(format!("im/v1/me/in/{}/{what}", args.addr))).into()
        }
        None => Vec::new(),
    };
    let mut session = Session::start(options, Purpose::Once, Listen::Only(filters)).await?;
    let id = match session.client.send(&args.addr, draft.clone()).await {
        Ok(id) => id,
        Err(error) => {
            complain(&error);
            return Ok(Exit::Failed);
        }
    };
    let mut sent = Sent { id, seq: None, dup: false };
    let deadline = Instant::now() + Duration::from_secs(args.timeout);
    let exit = loop {
        match timeout_at(deadline, session.step()).await {
            Err(_) => {
                let far =
                    if sent.seq.is_some() { "it is sent, but not yet there" } else { "the broker has not taken it" };
                complain(&format_args!("{far} after {} seconds; ask again with --id {}", args.timeout, sent.id));
                break Exit::TimedOut;
            }
            Ok(Step::NoBroker { why, .. }) => break no_broker(options, &why),
            Ok(Step::Ended(error)) => return Err(error.into()),
            Ok(Step::Told(told)) => {
                if let Some(exit) = judge(args, &session, &mut sent, told.event) {
                    break exit;
                }
            }
        }
    };
    if args.json && (sent.seq.is_some() || exit == Exit::Done) {
        println!("{}", object(args, &sent, exit));
    }
    session.close().await;
    Ok(exit)
}

fn judge(args: &SendArgs, session: &Session, sent: &mut Sent, event: Event) -> Option<Exit> {
    match event {
        Event::Received { id, seq, dup, .. } if id == sent.id => {
            (sent.seq, sent.dup) = (seq, dup);
            if let (Some(seq), false) = (seq, args.json) {
                println!("{seq}");
            }
            if dup && args.id.is_some() {
                eprintln!("parlor: the broker had it already");
            }
            if args.wait.is_none() || seq.is_none() {
                return Some(Exit::Done);
            }
        }
        Event::Lost { why: refusal, .. } | Event::Refused { refusal, .. } => return Some(refused(args, &refusal)),
        Event::Bounce { refusal, .. } if refusal.id.as_deref() == Some(&sent.id) => {
            return Some(refused(args, &refusal));
        }
        Event::Disconnected { why, .. } => complain(&format_args!("{why}; trying again")),
        _ => {}
    }
    let (wait, seq) = (args.wait?, sent.seq?);
    let wanted = match wait {
        Wait::Delivered => Tick::Delivered,
        Wait::Read => Tick::Read,
    };
    let tick = session.client.with(|messenger| messenger.conversation(&args.addr).map(|c| c.tick(seq)));
    let reached = tick.is_some_and(|tick| tick >= wanted);
    if reached && !args.json {
        println!("{}", wait.word());
    }
    reached.then_some(Exit::Done)
}

fn refused(args: &SendArgs, refusal: &Refusal) -> Exit {
    if args.json {
        println!("{}", json!({"to": args.addr, "error": {"code": refusal.code, "text": refusal.text}}));
    }
    complain(&format_args!("{}: {}", refusal.code, refusal.text));
    Exit::Failed
}

fn object(args: &SendArgs, sent: &Sent, exit: Exit) -> Value {
    let state = match args.wait {
        Some(wait) if exit == Exit::Done => wait.word(),
        _ => "accepted",
    };
    json!({"to": args.addr, "id": sent.id, "seq": sent.seq, "dup": sent.dup, "state": state})
}

impl Wait {
    fn word(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Read => "read",
        }
    }
}
