//! `parlor chat`: conversations in a terminal, or as lines of JSON for programs.

mod act;
mod editor;
mod lines;
mod screen;
mod script;
mod slash;
mod terminal;
mod tui;
mod view;

use super::options::{ConnectArgs, connection_help};
use super::session::SessionError;
use super::{options_or_exit, runtime};
use crate::cli::{Exit, complain};
use clap::Args;
use parlor_client::model::up::is_address;
use std::io::{self, IsTerminal};

/// What can be said on the command line.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(in crate::cli) struct ChatArgs {
    /// Account, group, room or device to begin with.
    pub addr: Option<String>,
    /// Talk JSON with a program, also at a terminal.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub connect: ConnectArgs,
}

const AFTER_HELP: &str = connection_help!(
    r#"Examples:
  parlor chat --demo alice
  parlor chat --demo alice g-home
  printf 'lamp on\n' | parlor chat --demo alice --json
  echo '{"cmd":{"device":"lamp","name":"set","args":{"on":true}}}' | parlor chat --demo alice --json

In the terminal: Enter sends, Tab goes to the next unread conversation, Ctrl-N and Ctrl-P to the next and the one before,
PgUp and PgDn scroll and fetch what is older, Up and Down bring back what was typed, Ctrl-C leaves. /help shows what else
can be typed. What is shown counts as read. v: with the broker, vv: delivered, vv read: read. NO_COLOR is respected.

With --json, or when standard output is no terminal: one JSON object an event on standard output, and lines on standard input:
  bob dinner is ready                  a message (with ADDR on the command line: the whole line is for ADDR)
  /request bob                         what can be typed in the terminal
  {"send":{"to":"lamp","text":"hi"}}   also body, kind, id, ttl_s, re, quiet
  {"cmd":{"device":"lamp","name":"set","args":{"on":true}}}    also id, deadline_ms, persist, once
  {"cancel":{"device":"lamp","id":"c1"}}    {"read":{"with":"bob","seq":7}}    {"typing":{"with":"bob"}}
  {"edit":{"with":"bob","seq":7,"text":"…"}}    {"recall":{"with":"bob","seq":7}}    {"older":{"with":"bob"}}
  {"publish":{"topic":"me/whois/bob","payload":{}}}    anything below im/v1/ (docs/protocol.md)
Nothing is marked as read by itself then. At the end of standard input it ends when everything has been answered.

Exit codes: 0 left, 1 refused or taken over, 2 wrong command line, 4 no broker answers (with --json)."#
);

/// Talks until told to end.
pub(in crate::cli) fn chat(args: &ChatArgs, environment: &[(String, String)]) -> Exit {
    if let Some(bad) = args.addr.as_ref().filter(|addr| !is_address(addr)) {
        complain(&format_args!("`{bad}` is no address: 1 to 32 of a-z, 0-9, '.', '_' and '-'"));
        return Exit::Usage;
    }
    let options = match options_or_exit(&args.connect, environment) {
        Ok(options) => options,
        Err(exit) => return exit,
    };
    let is_person = !args.json && io::stdout().is_terminal() && io::stdin().is_terminal();
    let talk = |runtime: tokio::runtime::Runtime| -> Result<Exit, SessionError> {
        let exit = if is_person {
            runtime.block_on(tui::run(args.addr.as_deref(), &options))
        } else {
            runtime.block_on(script::run(args.addr.as_deref(), &options))
        };
        // A thread that waits for keys or lines must not be waited for.
        runtime.shutdown_background();
        exit
    };
    runtime().and_then(talk).unwrap_or_else(|error| {
        complain(&error);
        Exit::Failed
    })
}
