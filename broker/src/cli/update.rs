//! `parlor update`: one device gets another firmware.

use super::blob::{Image, put};
use super::im::command::{CommandArgs, update as give};
use super::im::options::{ConnectArgs, connection_help};
use super::im::options_or_exit;
use super::operate::config_of;
use super::{Exit, Place, complain};
use clap::Args;
use parlor_client::model::up::{is_address, is_client_id};
use serde_json::json;
use std::path::PathBuf;

/// What can be said on the command line.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct UpdateArgs {
    /// Account of the device.
    device: String,
    /// The image.
    file: PathBuf,
    #[command(flatten)]
    image: Image,
    /// Seconds until it is too late for the device to begin or to end; default 7 days.
    #[arg(long, value_name = "SECS")]
    deadline: Option<u64>,
    /// Client id of the command. The same id again does not repeat it, but says how it goes.
    #[arg(long)]
    id: Option<String>,
    /// End when the broker has it, and do not follow it.
    #[arg(long)]
    no_wait: bool,
    /// Print JSON, one object a change.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    connect: ConnectArgs,
}

const AFTER_HELP: &str = connection_help!(
    "\
Examples:
  parlor update thermo1 thermo.bin --version 1.2.0 --key ota.pem --data /var/lib/parlor --user alice
  parlor update thermo1 thermo.bin --version 1.2.0 --no-wait --id night      a device that sleeps gets it when it wakes
  parlor cmd thermo1 --cancel night

Run it on the machine of the broker: the image goes in over its HTTP API (--data or --config says where it runs), and the
command to the device as an account of messaging that may command it. Without --key the device is told of no signature, and
will most likely refuse. `parlor blob key FILE` makes a key.

It prints each state: queued, sent, delivered, running with how far it is, and the outcome.

Exit codes:
  0   done: the device runs it; with --no-wait: the broker has taken it
  1   failed: the device came back as it was, or something refused; the text says why
  2   the command line is wrong
  4   no broker answers
  5   nothing was heard in time, not even from the broker
  6   rejected: the device will not
  7   expired: the deadline came before the device had it
  8   timeout: the deadline came before there was an outcome
  9   canceled
  10  unknown outcome: the device restarted in the midst of it"
);

/// Puts in the image and commands the device.
pub(super) fn update(args: &UpdateArgs, environment: Vec<(String, String)>) -> Exit {
    if !is_address(&args.device) {
        complain(&format_args!("`{}` is no account: 1 to 32 of a-z, 0-9, '.', '_' and '-'", args.device));
        return Exit::Usage;
    }
    if let Some(id) = args.id.as_ref().filter(|id| !is_client_id(id)) {
        complain(&format_args!("`{id}` is no client id: 1 to 36 of A-Z, a-z, 0-9, '_' and '-'"));
        return Exit::Usage;
    }
    let options = match options_or_exit(&args.connect, &environment) {
        Ok(options) => options,
        Err(exit) => return exit,
    };
    let config = match config_of(args.place.clone(), environment) {
        Ok(config) => config,
        Err(exit) => return exit,
    };
    let blob = match put(&config.data, &args.file, &args.image, std::slice::from_ref(&args.device)) {
        Ok(blob) => blob,
        Err(error) => {
            complain(&error);
            return error.exit();
        }
    };
    let given = json!({
        "blob": blob["id"],
        "version": args.image.version,
        "size": blob["size"],
        "sha256": blob["sha256"],
        "signature": blob["signature"],
    });
    let command = CommandArgs {
        device: args.device.clone(),
        deadline: args.deadline,
        persist: true,
        id: args.id.clone(),
        no_wait: args.no_wait,
        json: args.json,
        ..CommandArgs::default()
    };
    give(&command, given, &options)
}
