//! What is in flash and what is believed to be there, one write at a time.

use super::*;
use crate::config::{Keep, Place, Policy};
use crate::error::{Outcome, Refusal, Why};
use crate::wire::{State, What};
use std::boxed::Box;
use std::collections::BTreeMap;
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
            shared.answered(1, Err(Refusal::TooLate), false);
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
        shared.set_paired(Paired { account: heapless::String::try_from("lamp").expect("short"), ..Paired::default() });
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

// ---- Receipts --------------------------------------------------------------------------------------------------------

const KEPT: &[Policy] = &[Policy { topic: "kept/#", keep: Keep::All, place: Place::Flash }];

type Flash = BTreeMap<u8, Vec<u8>>;

/// Power comes back.
fn boot(flash: &mut Flash) -> Box<Shared> {
    let mut shared: Box<Shared> = Box::new(Shared::new(Arrays::<600, 600>::new()));
    shared.start_with(Config { policies: KEPT, ..Config::new("lamp-1") }, || 0);
    for key in Shared::keys() {
        if let Some(bytes) = flash.get(&key) {
            shared.load(key, bytes);
        }
    }
    flash.insert(0, shared.start(7 << 33, true).to_vec());
    shared.started();
    shared
}

/// Writes all that is to be written.
fn flush(shared: &mut Shared, flash: &mut Flash) {
    while let Some((job, bytes)) = begin(shared) {
        flash.insert(job.key(), bytes);
        shared.flash_done(job, true);
    }
}

/// The broker answers everything, the first with this.
fn answer(shared: &mut Shared, mut seq: u64) {
    while let Some((at, head)) = shared.next_ready() {
        shared.sent(at, head, 1);
        shared.answered(1, Ok(seq), false);
        seq += 1;
    }
}

/// Whenever the power goes between two steps of the life of something that is kept, the next start knows what became of it or
/// learns it; and when nothing was kept, that.
#[test]
fn a_receipt_outlives_a_reboot() {
    for dies_after in 0..4 {
        let mut flash = Flash::new();
        let mut shared = boot(&mut flash);
        let id = shared.push_publish("kept/a", b"1").expect("there is room");
        shared.watch(id);
        if dies_after > 0 {
            flush(&mut shared, &mut flash);
        }
        if dies_after > 1 {
            answer(&mut shared, 7);
            assert_eq!(shared.outcome(id), Some(Outcome::Acked { seq: 7 }));
        }
        if dies_after > 2 {
            flush(&mut shared, &mut flash);
        }
        let id = SentId::from_bytes(id.to_bytes());
        // And once more, before anything was said.
        drop(boot(&mut flash));
        let mut shared = boot(&mut flash);
        if dies_after == 0 {
            assert!(!shared.claim(id) && shared.claim_earlier().is_none());
            continue;
        }
        assert!(shared.claim(id), "after {dies_after} steps");
        assert!(!shared.claim(id), "one has the receipt");
        assert_eq!(shared.claim_earlier(), None);
        let known = (dies_after > 2).then_some(Outcome::Acked { seq: 7 });
        assert_eq!(shared.outcome(id), known, "after {dies_after} steps");
        answer(&mut shared, 7);
        assert_eq!(shared.outcome(id), Some(Outcome::Acked { seq: 7 }));
        // What this start queues has names of its own, and outcomes of its own.
        let other = shared.push_publish("kept/a", b"2").expect("there is room");
        shared.watch(other);
        flush(&mut shared, &mut flash);
        shared.forget_packet_ids();
        assert_eq!((id.seq, shared.outcome(other)), (other.seq, None));
        assert_eq!(shared.outcome(id), Some(Outcome::Acked { seq: 7 }));
        shared.unwatch(id);
        answer(&mut shared, 8);
        assert_eq!(shared.outcome(other), Some(Outcome::Acked { seq: 8 }));
    }
}

#[test]
fn a_refusal_outlives_a_reboot() {
    let mut flash = Flash::new();
    let mut shared = boot(&mut flash);
    let id = shared.push_publish("kept/a", b"1").expect("there is room");
    shared.watch(id);
    flush(&mut shared, &mut flash);
    let (at, head) = shared.next_ready().expect("it is to be sent");
    shared.sent(at, head, 1);
    shared.answered(1, Err(Refusal::Blocked), false);
    assert_eq!(shared.outcome(id), None, "while a reboot would send it again");
    flush(&mut shared, &mut flash);
    let mut shared = boot(&mut flash);
    assert!(shared.claim(id));
    assert_eq!(shared.outcome(id), Some(Outcome::Lost(Why::Refused(Refusal::Blocked))));
}

/// An outcome that was taken, or that nobody can take, costs flash nothing.
#[test]
fn outcomes_that_nobody_waits_for_are_not_written() {
    for watched in [true, false] {
        let mut flash = Flash::new();
        let mut shared = boot(&mut flash);
        let id = shared.push_publish("kept/a", b"1").expect("there is room");
        shared.watch(id);
        flush(&mut shared, &mut flash);
        if !watched {
            shared.unwatch(id);
        }
        answer(&mut shared, 7);
        if watched {
            assert_eq!(shared.outcome(id), Some(Outcome::Acked { seq: 7 }));
            shared.unwatch(id);
        }
        flush(&mut shared, &mut flash);
        assert_eq!(flash.values().skip(1).map(Vec::len).collect::<Vec<_>>(), [0]);
        assert!(!boot(&mut flash).claim(id));
    }
}

/// What earlier starts have left is found without a name, the oldest first; and outcomes that nobody asks for take no room
/// from anybody.
#[test]
fn what_is_left_is_found_and_makes_room() {
    let mut flash = Flash::new();
    let mut ids = Vec::new();
    for _ in 0..2 {
        let mut shared = boot(&mut flash);
        for _ in 0..4 {
            let id = shared.push_publish("kept/a", b"12345").expect("there is room");
            shared.watch(id);
            ids.push(id);
        }
        flush(&mut shared, &mut flash);
    }
    let mut shared = boot(&mut flash);
    let first = shared.claim_earlier().expect("it is left");
    assert_eq!(first, ids[0]);
    answer(&mut shared, 1);
    assert_eq!(shared.claim_earlier(), Some(ids[1]));
    flush(&mut shared, &mut flash);
    // Six outcomes that nobody has asked for, and two that somebody has.
    assert_eq!(shared.outbox.used(), 8 * crate::rows::HEAD_BYTES);
    let most = 600 - 2 * crate::rows::HEAD_BYTES;
    let full = std::vec![b'x'; most - crate::rows::HEAD_BYTES - 2];
    assert!(shared.push_publish("a", &full).is_ok());
    assert_eq!(shared.claim_earlier(), None);
    assert_eq!(shared.outcome(first), Some(Outcome::Acked { seq: 1 }));
    assert_eq!(shared.outcome(ids[1]), Some(Outcome::Acked { seq: 2 }));
    // All of them are in flash still; there they are until their places are used.
    let mut shared = boot(&mut flash);
    assert_eq!(shared.claim_earlier(), None);
    for (at, id) in (1..).zip(&ids) {
        assert!(shared.claim(*id), "{id}");
        assert_eq!(shared.outcome(*id), Some(Outcome::Acked { seq: at }));
    }
    // Rows need the room more than outcomes do, and the places.
    for id in &ids {
        shared.unwatch(*id);
    }
    let rows = (0..16).take_while(|_| shared.push_publish("kept/a", &[b'y'; 19]).is_ok()).count();
    assert_eq!(rows, 600 / (crate::rows::HEAD_BYTES + 7 + 19));
    flush(&mut shared, &mut flash);
    let mut shared = boot(&mut flash);
    assert_eq!(shared.unsent(), rows);
    assert!(!shared.claim(ids[0]), "its place was used");
}
