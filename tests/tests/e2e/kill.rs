//! kill -9 in the middle of traffic, again and again; and brokers that break a promise, which the same loop must notice.

use parlor_tests::checkers::Class;
use parlor_tests::kill::Scope;
use parlor_tests::server::Broker;
use std::process::Command;

fn rounds() -> u32 {
    std::env::var("PARLOR_KILL_ROUNDS").map_or(25, |n| n.parse().expect("PARLOR_KILL_ROUNDS is a number"))
}

#[test]
fn what_was_acknowledged_survives_kill_9() {
    let rounds = rounds();
    let seed = std::env::var("SEED").map_or(1, |n| n.parse().expect("SEED is a number"));
    let outcome = parlor_tests::kill::run(rounds, seed, Scope::All, |line| eprintln!("{line}"));
    let broken: Vec<String> = outcome.violations.iter().map(|v| format!("{:?}: {}", v.class, v.text)).collect();
    assert!(broken.is_empty(), "after {} rounds (SEED={seed}):\n{}", outcome.rounds, broken.join("\n"));
    assert_eq!(outcome.rounds, rounds);
    // Three subscribers take every message; less would mean that the rounds had no traffic.
    assert!(outcome.messages as u64 >= 20 * u64::from(rounds), "{} messages", outcome.messages);
    assert!(outcome.said as u64 >= 5 * u64::from(rounds), "{} said", outcome.said);
    assert!(outcome.deliveries >= 3 * outcome.messages as u64, "{} deliveries", outcome.deliveries);
}

/// The same loop with a store that breaks one promise must end with a violation of that class.
fn caught(fault: &str, classes: &[Class]) {
    // A broker that never waits for the disk would drown the conversations beside it.
    // It ends with the first violation; how soon that comes is up to when the power goes.
    caught_in(&["60", "1", "queues"], fault, classes);
}

fn caught_in(args: &[&str], fault: &str, classes: &[Class]) {
    let loop_program = Broker::binary().with_file_name("kill_loop");
    let broken_broker = Broker::binary().with_file_name("parlor-faulty");
    for program in [&loop_program, &broken_broker] {
        assert!(program.exists(), "{} is missing: run `cargo build -p parlor-tests --bins`", program.display());
    }
    let output = Command::new(loop_program)
        .args(args)
        .env("PARLOR_BIN", broken_broker)
        .env("FAULT", fault)
        .output()
        .expect("the loop runs");
    let text = String::from_utf8_lossy(&output.stdout);
    let is_wanted = |line: &&str| classes.iter().any(|class| line.starts_with(&format!("BROKEN {class:?}")));
    let found = text.lines().find(is_wanted);
    assert!(
        !output.status.success() && found.is_some(),
        "{fault} was not noticed:\n{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    eprintln!("{fault}: {}", found.unwrap_or_default());
}

#[test]
fn a_broker_that_acknowledges_before_the_commit_is_caught() {
    // CONNACK acknowledges too: a kill soon after it takes the session itself, and with it what it would have been sent.
    caught("ack-early", &[Class::Lost, Class::Session]);
}

#[test]
fn a_broker_that_forgets_qos_2_identifiers_is_caught() {
    caught("forget-inbound", &[Class::Duplicated]);
}

#[test]
fn a_broker_that_forgets_acknowledgements_is_caught() {
    caught("forget-acked", &[Class::Duplicated]);
}

/// The talk of the loop alone: a message that was acknowledged is lost.
#[test]
fn a_broker_that_acknowledges_messages_before_the_commit_is_caught() {
    caught_in(&["12", "1", "talk"], "ack-early", &[Class::Lost]);
}

/// One client id becomes two messages.
#[test]
fn a_broker_that_forgets_client_ids_is_caught() {
    caught_in(&["12", "1", "talk"], "forget-ids", &[Class::Duplicated]);
}
