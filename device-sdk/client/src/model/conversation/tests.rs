//! Messages that come out of order, twice, or not at all.

use super::*;

fn message(seq: u64, prev: u64) -> Message {
    Message { seq, prev: Some(prev), from: "bob".into(), text: Some(seq.to_string()), ..Message::default() }
}

fn own(seq: u64) -> Message {
    Message { seq, from: "alice".into(), id: Some(format!("a{seq}")), ..Message::default() }
}

fn seqs(conversation: &Conversation) -> Vec<u64> {
    conversation.messages().map(|message| message.seq).collect()
}

#[track_caller]
fn check(conversation: &mut Conversation, message: Message, expect: Arrival) {
    assert_eq!(conversation.add(message, "alice", false), expect);
}

#[test]
fn what_is_known_is_dropped() {
    let mut c = Conversation::default();
    check(&mut c, message(5, 4), Arrival::Next);
    check(&mut c, message(5, 4), Arrival::Known);
    check(&mut c, message(4, 3), Arrival::Known);
    check(&mut c, message(6, 5), Arrival::Next);
    assert_eq!((seqs(&c), c.unread), (vec![5, 6], 2));
}

#[test]
fn a_gap_is_pulled_once_and_closed_by_what_comes() {
    let mut c = Conversation::default();
    check(&mut c, message(9, 8), Arrival::Next);
    check(&mut c, message(12, 11), Arrival::Missing { after: 9 });
    check(&mut c, message(13, 12), Arrival::Next);
    assert!(c.is_incomplete());
    assert_eq!(c.add_pulled(vec![message(10, 9), message(11, 10)], false), None);
    assert!(!c.is_incomplete());
    assert_eq!(seqs(&c), [9, 10, 11, 12, 13]);
    check(&mut c, message(13, 12), Arrival::Known);
    check(&mut c, message(14, 13), Arrival::Next);
}

#[test]
fn a_long_gap_takes_several_pages() {
    let mut c = Conversation::default();
    check(&mut c, message(1, 0), Arrival::Next);
    check(&mut c, message(9, 8), Arrival::Missing { after: 1 });
    assert_eq!(c.add_pulled(vec![message(2, 1), message(3, 2)], true), Some(3));
    assert_eq!(c.gap(), Some(3));
    assert_eq!(c.add_pulled(vec![message(4, 3), message(8, 4)], true), None, "it is full although there is more");
    check(&mut c, message(10, 9), Arrival::Next);
}

#[test]
fn what_was_never_for_us_leaves_no_gap() {
    let mut c = Conversation::default();
    check(&mut c, message(3, 2), Arrival::Next);
    // 4 to 7 were expired or shown to others only.
    check(&mut c, message(8, 3), Arrival::Next);
    // Here the broker says that 9 was got, and then has it no more.
    check(&mut c, message(10, 9), Arrival::Missing { after: 8 });
    assert_eq!(c.add_pulled(vec![], false), None);
    check(&mut c, message(11, 10), Arrival::Next);
    assert_eq!(seqs(&c), [3, 8, 10, 11]);
}

#[test]
fn an_interrupted_pull_stays_due() {
    let mut c = Conversation::default();
    check(&mut c, message(3, 2), Arrival::Next);
    check(&mut c, message(6, 5), Arrival::Missing { after: 3 });
    c.interrupt();
    assert_eq!(c.gap(), Some(3));
}

#[test]
fn an_own_message_that_overtakes_hides_nothing() {
    let mut c = Conversation::default();
    check(&mut c, message(8, 7), Arrival::Next);
    c.write(Unsent { id: "a10".into(), message: Message { seq: 0, ..own(10) }, refused: None });
    c.accept("a10", 10);
    assert_eq!((seqs(&c), c.unsent().count()), (vec![8, 10], 0));
    check(&mut c, message(9, 8), Arrival::Next);
    check(&mut c, own(10), Arrival::Known);
    check(&mut c, message(11, 10), Arrival::Next);
    assert_eq!(c.unread, 3);
}

#[test]
fn what_another_terminal_sent_counts_as_seen() {
    let mut c = Conversation::default();
    check(&mut c, message(1, 0), Arrival::Next);
    check(&mut c, own(2), Arrival::Next);
    check(&mut c, message(3, 2), Arrival::Next);
    check(&mut c, own(6), Arrival::Missing { after: 3 });
    assert_eq!(c.unread, 2);
}

#[test]
fn older_pages_go_before() {
    let mut c = Conversation::default();
    check(&mut c, message(9, 8), Arrival::Next);
    c.asked_older = true;
    c.add_older(vec![message(8, 7), message(7, 6)], true);
    assert_eq!((seqs(&c), c.is_at_start(), c.asked_older, c.oldest_seq()), (vec![7, 8, 9], false, false, Some(7)));
    c.add_older(vec![message(6, 5)], false);
    assert!(c.is_at_start());
    assert_eq!(c.unread, 1, "history is not news");
}

#[test]
fn receipts_go_forward_only() {
    let mut c = Conversation::default();
    let receipt = |recv, read| Receipt { recv, read, ..Receipt::default() };
    assert!(c.receipt(&receipt(3, 1), "alice"));
    assert!(!c.receipt(&receipt(2, 0), "alice"));
    assert_eq!(
        [c.tick(1), c.tick(2), c.tick(3), c.tick(4)],
        [Tick::Read, Tick::Delivered, Tick::Delivered, Tick::Accepted]
    );
    assert!(c.receipt(&receipt(0, 4), "alice"));
    assert_eq!([c.tick(4), c.tick(5)], [Tick::Read, Tick::Accepted]);
}

#[test]
fn a_groups_counts_hold_for_what_came_before() {
    let mut c = Conversation::default();
    let counts = |seq, recv, read| Receipt { seq, recv, read, of: Some(3), own: false };
    assert!(c.receipt(&counts(4, 3, 1), "alice"));
    assert!(c.receipt(&counts(6, 2, 0), "alice"));
    assert!(!c.receipt(&counts(6, 1, 0), "alice"));
    assert_eq!((c.counts(5), c.counts(3), c.counts(7)), (Some((2, 0, 3)), Some((3, 1, 3)), None));
    assert_eq!((c.tick(3), c.tick(5)), (Tick::Delivered, Tick::Accepted));
}

#[test]
fn own_marks_come_from_any_terminal() {
    let mut c = Conversation::default();
    for seq in 1..=4 {
        check(&mut c, message(seq, seq - 1), Arrival::Next);
    }
    let own = |read| Receipt { read, own: true, ..Receipt::default() };
    assert!(c.receipt(&own(3), "alice"));
    assert_eq!((c.read, c.unread), (3, 1));
    assert!(!c.receipt(&own(2), "alice"));
    assert_eq!((c.read, c.unread), (3, 1));
    // What the broker says with an older mark was said before it heard of ours.
    c.summarise(&Summary { seq: 4, unread: 4, ..Summary::default() });
    assert_eq!(c.unread, 1);
    c.summarise(&Summary { seq: 4, read: 4, ..Summary::default() });
    assert_eq!((c.read, c.unread), (4, 0));
    // Message and count may come in either order.
    c.summarise(&Summary { seq: 5, read: 4, unread: 1, ..Summary::default() });
    check(&mut c, message(5, 4), Arrival::Next);
    check(&mut c, message(6, 5), Arrival::Next);
    assert_eq!(c.unread, 2);
}

#[test]
fn recalls_and_edits_stay() {
    let mut c = Conversation::default();
    check(&mut c, message(1, 0), Arrival::Next);
    check(&mut c, message(2, 1), Arrival::Next);
    let edit = |ts, text: &str| Message { seq: 1, ts, text: Some(text.into()), ..Message::default() };
    assert!(c.edit(&edit(5, "new")));
    assert!(!c.edit(&edit(4, "old")));
    assert_eq!(c.message(1).unwrap().shown(), "new");
    c.recall(2, "alice");
    assert_eq!((c.message(2).unwrap().shown().as_str(), c.unread), ("(recalled or expired)", 1));
    assert!(!c.edit(&Message { seq: 2, ts: 9, text: Some("again".into()), ..Message::default() }));
    // A page that was on its way brings nothing back.
    c.add_older(vec![message(1, 0), message(2, 1)], false);
    assert_eq!(c.messages().map(Message::shown).collect::<Vec<_>>(), ["new", "(recalled or expired)"]);
}

#[test]
fn a_room_begins_anew() {
    let mut c = Conversation::default();
    let said = |seq, ts| Message { seq, ts, from: "bob".into(), ..Message::default() };
    assert_eq!(c.add(said(1, 10), "alice", true), Arrival::Next);
    assert_eq!(c.add(said(3, 11), "alice", true), Arrival::Next);
    assert_eq!(c.add(said(3, 11), "alice", true), Arrival::Known);
    assert_eq!(c.add(said(1, 20), "alice", true), Arrival::Next);
    assert_eq!(seqs(&c), [1]);
}

#[test]
fn memory_has_an_end() {
    let mut c = Conversation::default();
    for seq in 1..=MESSAGES_MAX as u64 + 5 {
        c.add(message(seq, seq - 1), "alice", false);
    }
    assert_eq!((c.messages().count(), c.oldest_seq(), c.is_at_start()), (MESSAGES_MAX, Some(6), false));
}
