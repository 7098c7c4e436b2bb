//! Runs the kill -9 loop for as long as one likes: `kill_loop [ROUNDS [SEED [talk]]]`; with `talk` only conversations,
//! with `queues` only publishers and subscribers.
//!
//! `PARLOR_BIN` names another program than the `parlor` beside this one. Ends with 1 when a promise was broken.

use parlor_tests::kill::Scope;
use std::process::{Command, ExitCode};

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let mut number = |default: u64| args.next().map_or(default, |a| a.parse().expect("ROUNDS and SEED are numbers"));
    let (rounds, seed) = (number(25), number(1));
    let scope = match args.next().as_deref() {
        None => Scope::All,
        Some("talk") => Scope::Talk,
        Some("queues") => Scope::Queues,
        Some(other) => panic!("{other} is neither talk nor queues"),
    };
    if std::env::var_os("PARLOR_BIN").is_none() {
        // The launcher of the tests looks beside the test programs; this program lies one directory higher.
        let me = std::env::current_exe().expect("a program knows its path");
        let parlor = me.with_file_name("parlor");
        let mut command = Command::new(me);
        command.args([rounds.to_string(), seed.to_string()]).env("PARLOR_BIN", parlor);
        match scope {
            Scope::All => {}
            Scope::Talk => drop(command.arg("talk")),
            Scope::Queues => drop(command.arg("queues")),
        }
        let again = command.status();
        return if again.is_ok_and(|status| status.success()) { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    let rounds = u32::try_from(rounds).expect("fewer than 2^32 rounds");
    let outcome = parlor_tests::kill::run(rounds, seed, scope, |line| println!("{line}"));
    for v in &outcome.violations {
        println!("BROKEN {:?}: {}", v.class, v.text);
    }
    let (rounds, messages, deliveries) = (outcome.rounds, outcome.messages, outcome.deliveries);
    println!("{rounds} rounds, {messages} messages, {deliveries} deliveries, {} said", outcome.said);
    if outcome.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
