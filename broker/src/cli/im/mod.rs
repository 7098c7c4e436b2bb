//! Messaging from the command line, by means of `parlor-client`: `session` is a client under the name its terminal keeps, and
//! each command is a file that uses one.

pub(in crate::cli) mod chat;
mod clock;
pub(in crate::cli) mod command;
pub(in crate::cli) mod devices;
pub(in crate::cli) mod household;
pub(in crate::cli) mod options;
mod place;
pub(in crate::cli) mod send;
mod session;
pub(in crate::cli) mod watch;
mod words;

use super::{Exit, complain};
use options::{ConnectArgs, Options};
use session::SessionError;
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};

/// Milliseconds since 1970.
fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// A runtime for one connection.
fn runtime() -> Result<Runtime, SessionError> {
    Builder::new_current_thread().enable_all().build().map_err(SessionError::Runtime)
}

pub(in crate::cli) fn options_or_exit(args: &ConnectArgs, environment: &[(String, String)]) -> Result<Options, Exit> {
    args.options(environment).map_err(|error| {
        complain(&error);
        Exit::Usage
    })
}

/// Says that there is no broker.
fn no_broker(options: &Options, why: &str) -> Exit {
    complain(&format_args!(
        "no broker answers at {} ({why}); start one with `parlor demo`, or name the right one with --url",
        options.target
    ));
    Exit::NotRunning
}

/// Comes back when the program is told to end: SIGINT, SIGTERM or SIGHUP.
async fn until_told_to_end() {
    let told = |kind| async move {
        match signal(kind) {
            Ok(mut signal) => {
                signal.recv().await;
            }
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        () = told(SignalKind::interrupt()) => {}
        () = told(SignalKind::terminate()) => {}
        () = told(SignalKind::hangup()) => {}
    }
}
