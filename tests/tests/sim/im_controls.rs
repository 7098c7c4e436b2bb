//! Stores that break one promise of messaging each: the checkers must see it, and see nothing where nothing is broken.

use parlor_tests::faulty::Fault;
use parlor_tests::im_world::{ImClass, ImPlan, run};
use parlor_tests::world::InMemory;

/// Worlds in which the power fails often.
fn harsh(seed: u64, fault: Option<Fault>) -> ImPlan {
    let mut plan = ImPlan { fault, rounds: 1, freeze_at: None, people: 2, ..ImPlan::random(seed) };
    plan.limits.im_mailbox_entries_max = 10_000;
    plan.crashes_ms = vec![plan.chaos_ms / 3, plan.chaos_ms * 2 / 3, plan.chaos_ms - 100];
    plan
}

/// Runs worlds with a broken promise until a violation of one of the `expected` classes is seen.
fn caught(fault: Fault, expected: &[ImClass], within: u64) {
    let mut others = vec![];
    for seed in 0..within {
        let report = run(&harsh(seed, Some(fault)), &mut InMemory::default());
        if let Some(found) = report.violations.iter().find(|v| expected.contains(&v.class)) {
            eprintln!("{} is caught with seed {seed}: {}: {}", fault.name(), found.class.name(), found.text);
            return;
        }
        others.extend(report.violations);
    }
    panic!("{} was not caught within {within} seeds: the checkers are blind to it; {others:?}", fault.name());
}

#[test]
fn a_broker_that_acknowledges_messages_before_the_commit_is_caught() {
    caught(Fault::AckEarly, &[ImClass::LostWrite], 12);
}

#[test]
fn a_broker_that_forgets_client_ids_is_caught() {
    caught(Fault::ForgetIds, &[ImClass::Duplicate], 12);
}

#[test]
fn a_broker_that_forgets_the_ends_of_conversations_is_caught() {
    caught(Fault::ForgetHeads, &[ImClass::InconsistentOffset], 12);
}

#[test]
fn a_broker_that_forgets_marks_of_members_is_caught() {
    caught(Fault::ForgetMembers, &[ImClass::UnreadMismatch, ImClass::LostWrite], 12);
}

#[test]
fn a_broker_that_counts_unread_messages_outside_the_transaction_is_caught() {
    caught(Fault::ForgetUnread, &[ImClass::UnreadMismatch], 12);
}

#[test]
fn a_broker_that_forgets_places_is_caught() {
    caught(Fault::ForgetTerminals, &[ImClass::NonMonotonicPoll, ImClass::PollSkip, ImClass::Unseen], 12);
}

#[test]
fn a_broker_that_forgets_mailboxes_is_caught() {
    caught(Fault::ForgetMail, &[ImClass::PollSkip, ImClass::Unseen], 12);
}

#[test]
fn a_broker_that_forgets_messages_is_caught() {
    caught(Fault::ForgetBodies, &[ImClass::LostWrite], 12);
}

#[test]
fn a_broker_that_forgets_deadlines_is_caught() {
    caught(Fault::ForgetExpiry, &[ImClass::NotTold, ImClass::UnreadMismatch], 12);
}

#[test]
fn a_broker_that_forgets_commands_is_caught() {
    caught(Fault::ForgetCommands, &[ImClass::Command], 12);
}

#[test]
fn the_same_worlds_with_an_honest_store_are_clean() {
    for seed in 0..12 {
        let report = run(&harsh(seed, None), &mut InMemory::default());
        report.expect_clean("the worlds of the controls, with an honest store", seed);
    }
}
