//! What is in flash and what is believed to be there, one write at a time.

use super::*;
use crate::shared::Answer;
use crate::wire::{State, What};
use std::boxed::Box;
use std::vec::Vec;

fn shared() -> Box<Shared> {
    let mut shared: Box<Shared> = Box::new(Shared::new(Arrays::<600, 600>::new()));
    shared.start_with(Config::new("lamp-1"), || 0);
    shared.start(7 << 33, true);
    shared.started();
    shared
}

/// Begins the next write: what is written, and where.
fn begin(shared: &mut Shared) -> Option<(Job, Vec<u8>)> {
    let job = shared.poll_flash()?;
    let mut room = [0; 400];
    let len = shared.flash_fill(job, &mut room).expect("there is room");
    Some((job, room[..len].to_vec()))
}

/// Writes all that is to be written.
fn write_all(shared: &mut Shared) {
    while let Some((job, _)) = begin(shared) {
        shared.flash_done(job, true);
    }
}

fn command(shared: &mut Shared, id: &str) {
    let what = What::Command { id, name: "act", from: "alice", args: "{}", left_ms: None, once: true };
    assert!(shared.deliver(1, 1, &what) == Room::Kept);
}

fn take(shared: &mut Shared) -> Option<Taken> {
    shared.take_command(1, false, &mut |_, _| Ok(()))
}

/// A command that must never begin twice takes the place of an older one while flash still writes about that: it begins when
/// it is in flash itself, and not when the older one is.
#[test]
fn a_command_begins_when_flash_has_it_and_not_the_one_before() {
    let mut shared = shared();
    for id in ["a", "b", "c", "d"] {
        command(&mut shared, id);
        assert!(take(&mut shared).is_none(), "it is not in flash yet");
        write_all(&mut shared);
        let taken = take(&mut shared).expect("it is in flash");
        assert_eq!(shared.answer(&taken.id, Answer { state: State::Done, text: "", result: None }), Ok(()));
        write_all(&mut shared);
    }
    for id in ["d", "c", "b", "a"] {
        // The last of them is the oldest, whose place is taken next.
        write_all(&mut shared);
        let Shared { ring, flash, .. } = &mut *shared;
        ring.told(id, flash);
    }
    let (older, bytes) = begin(&mut shared).expect("that the broker has the outcome");
    assert!(bytes.contains(&b'a'), "{bytes:?}");
    command(&mut shared, "e");
    assert!(take(&mut shared).is_none());
    shared.flash_done(older, true);
    assert!(take(&mut shared).is_none(), "flash has the older one and not this");
    let (job, bytes) = begin(&mut shared).expect("the command");
    assert!(job == older && bytes.contains(&b'e'), "{job:?} {bytes:?}");
    assert!(take(&mut shared).is_none());
    shared.flash_done(job, true);
    assert_eq!(take(&mut shared).expect("it is in flash").id, "e");
}

/// Places of commands that cannot begin any more, because their time is over, they were canceled, or the connection was lost and
/// they did not come again, are there for others.
#[test]
fn commands_that_never_begin_leave_their_places() {
    let mut shared = shared();
    for (round, id) in ["a", "b", "c", "d", "e", "f", "g", "h"].into_iter().enumerate() {
        let what = What::Command { id, name: "act", from: "alice", args: "{}", left_ms: Some(10), once: true };
        assert!(shared.deliver(1, 1, &what) == Room::Kept);
        assert!(take(&mut shared).is_none());
        write_all(&mut shared);
        match round % 3 {
            0 => shared.cancel(id),
            1 => shared.disconnected(LinkError::Closed),
            _ => {}
        }
        assert!(shared.take_command(100, false, &mut |_, _| Ok(())).is_none(), "it may not begin");
    }
    command(&mut shared, "z");
    for _ in 0..3 {
        if let Some(taken) = take(&mut shared) {
            assert_eq!(taken.id, "z");
            return;
        }
        write_all(&mut shared);
        // The broker hears of it; what it says to that does not matter.
        shared.say_outcomes();
        while let Some((at, head)) = shared.next_ready() {
            shared.sent(at, head, 1);
            shared.answered(1, Err(crate::error::Refusal::TooLate), false);
        }
        write_all(&mut shared);
    }
    panic!("there is no place for one more command");
}

/// What changes while it is written is written again.
#[test]
fn an_account_that_changes_while_it_is_written_is_written_again() {
    for ok in [true, false] {
        let mut shared = shared();
        shared.set_paired(Paired { account: String::try_from("lamp").expect("short"), ..Paired::default() });
        let (job, bytes) = begin(&mut shared).expect("the account");
        assert!(bytes.starts_with(b"\x04lamp"));
        shared.unpair();
        shared.flash_done(job, ok);
        assert!(!shared.paired_is_kept());
        assert_eq!(begin(&mut shared), Some((job, Vec::new())));
        shared.flash_done(job, true);
        assert!(shared.paired_is_kept());
        assert_eq!(begin(&mut shared), None);
    }
}

#[cfg(feature = "update")]
#[test]
fn an_update_that_goes_on_while_it_is_written_is_written_again() {
    let mut shared = shared();
    shared.keep_update(Some(b"half"));
    let (job, bytes) = begin(&mut shared).expect("how far it is");
    assert_eq!(bytes, b"half");
    shared.keep_update(Some(b"all"));
    shared.flash_done(job, true);
    assert!(!shared.update_is_kept());
    assert_eq!(begin(&mut shared), Some((job, b"all".to_vec())));
    shared.flash_done(job, true);
    assert!(shared.update_is_kept());
}
