//! At rest: what the auditors pulled, what every terminal has, and what follows from what everybody was told.

use super::EPOCH_MS;
use super::audit::Audit;
use super::model::{Entry, ImClass, Line, Model, SLACK_MS, address_of, number_in};
use super::terminal::{Mode, Terminal};
use serde_json::Value;
use std::collections::BTreeMap;

/// The log of one conversation as its best witness has it: by seq, `None` what is gone.
type Log = BTreeMap<u64, Option<String>>;

/// Compares everything with everything.
pub(super) fn judge(model: &mut Model, terminals: &[Terminal], audit: &Audit, wall_ms: u64) {
    let convs: Vec<String> = model.convs.keys().cloned().collect();
    for conv in &convs {
        let members: Vec<String> = model.convs[conv].members.iter().cloned().collect();
        let logs: Vec<(String, Log)> =
            members.iter().map(|account| (account.clone(), log_of(audit, conv, account))).collect();
        // Whoever has been in it from the beginning, and never leaves, has all of it.
        let Some((witness, whole)) = logs.iter().find(|(account, _)| is_witness(conv, account)).cloned() else {
            continue;
        };
        check_log(model, conv, &witness, &whole, wall_ms);
        for (at, of, seqs, text) in model.suspicions.clone() {
            let was_there = |seq: &u64| model.line(conv, *seq).is_some_and(|l| was_there(model, at, l));
            if of == *conv && seqs.iter().any(|seq| whole.get(seq).is_some_and(Option::is_some) && was_there(seq)) {
                model.blame(ImClass::PollSkip, text);
            }
        }
        for (account, log) in &logs {
            check_same(model, conv, account, log, &whole);
            check_unread(model, audit, conv, account, &whole);
        }
        check_expired(model, terminals, audit, conv, wall_ms);
        for (at, terminal) in terminals.iter().enumerate() {
            check_view(model, at, terminal, audit, conv, &whole, wall_ms);
        }
    }
    check_told(model);
    check_commands(model, terminals, wall_ms);
    check_totals(model, terminals, audit);
}

/// Whether a text is that of the message at a place.
fn is_it(line: &Line, text: &str) -> bool {
    match &line.entry {
        Entry::Message(no) => number_in(text) == Some(*no),
        Entry::Change(change) => text == change,
    }
}

fn is_witness(conv: &str, account: &str) -> bool {
    conv.contains('~') || account == super::cast::OWNER
}

fn log_of(audit: &Audit, conv: &str, account: &str) -> Log {
    let lines = audit.logs.get(account).and_then(|by| by.get(&address_of(conv, account)));
    let line = |value: &Value| {
        let gone = value["gone"] == true;
        let text = value["text"].as_str().map_or_else(|| value["body"].to_string(), str::to_owned);
        Some((value["seq"].as_u64()?, (!gone).then_some(text)))
    };
    lines.into_iter().flatten().filter_map(line).collect()
}

/// The log has everything that was ever seen or promised, and nothing that is over (G1, G2, G3, G7).
fn check_log(model: &mut Model, conv: &str, witness: &str, whole: &Log, wall_ms: u64) {
    for (expected, seq) in (1..).zip(whole.keys()) {
        if expected != *seq {
            return model.blame(ImClass::LostWrite, format!("{conv} has no {expected}, as {witness} sees it"));
        }
    }
    for (seq, line) in model.convs[conv].log.clone() {
        let Some(found) = whole.get(&seq) else {
            model.blame(ImClass::LostWrite, format!("{conv} {seq} {line:?} was seen, and is not in the log any more"));
            continue;
        };
        let is_over = model.deadline(conv, seq).is_some_and(|at| at + SLACK_MS < wall_ms);
        match found {
            Some(text) if !is_it(&line, text) => {
                model.blame(ImClass::LostWrite, format!("{conv} {seq} was {line:?}, and is {text:?} now"));
            }
            None if !model.may_be_gone(conv, seq, wall_ms) => {
                model.blame(ImClass::LostWrite, format!("{conv} {seq} {line:?} is gone for no reason"));
            }
            Some(text) if line.recalled_ms.is_some() || is_over => {
                model.blame(ImClass::LateDelivery, format!("{conv} {seq} {line:?} is still there: {text:?}"));
            }
            _ => {}
        }
    }
    for (seq, line) in model.convs[conv].log.clone() {
        if let Entry::Message(no) = line.entry
            && !model.may_see(conv, &model.messages[no].from, seq)
        {
            let text = format!("{} wrote {conv} {seq}, and was not in it", model.messages[no].from);
            model.blame(ImClass::Leak, text);
        }
    }
}

/// What was acknowledged has a place (G1).
fn check_told(model: &mut Model) {
    for no in 0..model.messages.len() {
        let sent = &model.messages[no];
        if sent.told && sent.seqs.is_empty() && sent.ttl_ms == 0 {
            let text = format!(
                "message {no} (id {:?}) of {} to {} was acknowledged, and is nowhere",
                sent.id, sent.from, sent.to
            );
            model.blame(ImClass::LostWrite, text);
        }
    }
}

/// Every command that was acknowledged has an outcome, and all who asked know it.
fn check_commands(model: &mut Model, terminals: &[Terminal], wall_ms: u64) {
    let mut wrong = vec![];
    for command in &model.commands {
        let Some(told_ms) = command.told_ms else { continue };
        if EPOCH_MS + told_ms + command.deadline_ms + SLACK_MS > wall_ms {
            continue;
        }
        for (terminal, view) in terminals.iter().zip(&model.views) {
            let is_owed = terminal.who.account == command.from
                && matches!(terminal.who.mode, Mode::Push(1) | Mode::Pull)
                && !view.gap
                && view.since_ms.is_some_and(|since| since <= command.asked_ms);
            if is_owed && !view.outcomes.contains_key(&command.id) {
                wrong.push(format!("{} heard of no outcome of {command:?}", terminal.who.name));
            }
        }
    }
    for text in wrong {
        model.blame(ImClass::Command, text);
    }
}

/// Everybody has the same log, as far as it is everybody's (G3).
fn check_same(model: &mut Model, conv: &str, account: &str, log: &Log, whole: &Log) {
    // Whoever is not in a group now gets nothing of it; whoever is gets what was said since it came.
    let from = match model.spans(conv, account).last() {
        Some((from, u64::MAX)) => *from,
        _ => u64::MAX,
    };
    let expected: Log = whole.iter().filter(|(seq, _)| **seq >= from).map(|(s, t)| (*s, t.clone())).collect();
    if *log != expected {
        let differs = |seq: &&u64| log.get(seq) != expected.get(seq);
        let at = log.keys().chain(expected.keys()).filter(differs).min().copied().unwrap_or_default();
        let text = format!("{conv} {at} is {:?} for {account}, and should be {:?}", log.get(&at), expected.get(&at));
        model.blame(ImClass::InconsistentOffset, text);
    }
}

fn conv_line<'a>(audit: &'a Audit, conv: &str, account: &str) -> Option<&'a Value> {
    audit.convs.get(account)?.get(&address_of(conv, account))
}

/// The marks are where they were said to be, and the unread messages are those behind them (G8).
fn check_unread(model: &mut Model, audit: &Audit, conv: &str, account: &str, whole: &Log) {
    let spans = model.spans(conv, account);
    let Some(&(from, u64::MAX)) = spans.last() else { return };
    let Some(line) = conv_line(audit, conv, account) else {
        if !whole.is_empty() {
            model.blame(ImClass::UnreadMismatch, format!("{account} has no line for {conv}"));
        }
        return;
    };
    let number = |key: &str| line[key].as_u64().unwrap_or_default();
    let (read, recv, unread) = (number("read"), number("recv"), number("unread"));
    let marks = model.marks(conv, account).clone();
    // A mark of an earlier stay in a group ended with it.
    let is_first_stay = spans.len() == 1;
    if is_first_stay && read < marks.read_told {
        let text = format!("{account} has read {conv} to {}, was told so, and the mark is {read}", marks.read_told);
        model.blame(ImClass::LostWrite, text);
    }
    let is_early = recv >= from && !model.may_have(conv, account, recv);
    if read > marks.read_asked.max(from.saturating_sub(1)) || is_early {
        let text = format!("{account}'s marks in {conv} are {recv}, {read}; it said {marks:?}");
        model.blame(ImClass::ReceiptEarly, text);
    }
    if read > recv {
        model.blame(ImClass::ReceiptBack, format!("{account} has read more of {conv} than it has: {line}"));
    }
    let is_unread = |seq: &u64, text: &Option<String>| {
        *seq > read
            && *seq >= from
            && text.is_some()
            && model.message_at(conv, *seq).is_some_and(|sent| sent.counts && sent.from != account)
    };
    let counted = whole.iter().filter(|(seq, text)| is_unread(seq, text)).count() as u64;
    if counted != unread {
        let text = format!("{account} has {unread} unread in {conv}, the log has {counted} behind {read}");
        model.blame(ImClass::UnreadMismatch, text);
    }
}

/// Totals equal sums, and all terminals agree (G8).
fn check_totals(model: &mut Model, terminals: &[Terminal], audit: &Audit) {
    for (account, unread) in &audit.unread {
        let lines = audit.convs.get(account).into_iter().flat_map(BTreeMap::values);
        let sum: u64 = lines.filter_map(|line| line["unread"].as_u64()).sum();
        if sum != *unread {
            model.blame(ImClass::UnreadMismatch, format!("{account} has {unread} unread, the sum is {sum}"));
        }
        let mut heads = vec![];
        for (terminal, view) in terminals.iter().zip(&model.views) {
            if terminal.who.account == *account && matches!(terminal.who.mode, Mode::Push(_) | Mode::Pull) {
                heads.push((terminal.who.name.clone(), view.head));
            }
        }
        let pos = heads.iter().filter_map(|(_, head)| head.map(|(pos, _)| pos)).max();
        for (name, head) in heads {
            if head.is_none_or(|(at, told)| Some(at) != pos || told != *unread) {
                let text = format!("{name} was told {head:?}, the end is {pos:?} and {unread} are unread");
                model.blame(ImClass::UnreadMismatch, text);
            }
        }
    }
}

/// Whether a terminal was there when something was said, and misses nothing.
fn must_have(model: &Model, at: usize, terminal: &Terminal, line: &Line) -> bool {
    let misses_nothing = matches!(terminal.who.mode, Mode::Push(1) | Mode::Pull | Mode::Device);
    misses_nothing && !model.views[at].gap && was_there(model, at, line)
}

/// Whether a terminal was there when something was said.
fn was_there(model: &Model, at: usize, line: &Line) -> bool {
    model.views[at].since_ms.is_some_and(|since| line.ts >= EPOCH_MS + since)
}

/// A sender whose message nobody got in time was told so (G7).
fn check_expired(model: &mut Model, terminals: &[Terminal], audit: &Audit, conv: &str, wall_ms: u64) {
    if !conv.contains('~') {
        return;
    }
    let mut wrong = vec![];
    for (seq, line) in &model.convs[conv].log {
        let (Some(sent), Some(deadline)) = (model.message_at(conv, *seq), model.deadline(conv, *seq)) else { continue };
        if line.recall_asked || deadline + SLACK_MS > wall_ms {
            continue;
        }
        let peer = address_of(conv, &sent.from);
        let marks = model.convs[conv].marks.get(&peer);
        let got_in_time = marks.is_some_and(|m| {
            m.got_when.iter().any(|(when, got)| *got >= *seq && EPOCH_MS + when <= deadline + SLACK_MS)
        });
        let recv = conv_line(audit, conv, &peer).and_then(|line| line["recv"].as_u64()).unwrap_or_default();
        if got_in_time && recv >= *seq {
            continue;
        }
        for (at, terminal) in terminals.iter().enumerate().filter(|(_, t)| t.who.account == sent.from) {
            if must_have(model, at, terminal, line) && !model.views[at].expired.contains(&(conv.to_owned(), *seq)) {
                wrong.push(format!("{} was not told that nobody got {conv} {seq} in time", terminal.who.name));
            }
        }
    }
    for text in wrong {
        model.blame(ImClass::NotTold, text);
    }
}

/// One terminal has everything that was said since it came, as it is now, and nothing that is not its own (G4).
fn check_view(model: &mut Model, at: usize, terminal: &Terminal, audit: &Audit, conv: &str, whole: &Log, wall_ms: u64) {
    let who = &terminal.who;
    if !model.convs[conv].members.contains(&who.account) {
        return;
    }
    let (mut missing, mut differs, mut not_recalled, mut strange) = (vec![], vec![], vec![], vec![]);
    let spans = model.spans(conv, &who.account);
    let is_in = |seq: u64| spans.last().is_some_and(|(from, until)| *until == u64::MAX && seq >= *from);
    let is_within = |seq: u64| spans.iter().any(|(from, until)| (*from..=*until).contains(&seq));
    for (seq, line) in &model.convs[conv].log {
        let view = &model.views[at];
        let key = (conv.to_owned(), *seq);
        let (seen, now) = (view.texts.get(&key), whole.get(seq).cloned().flatten());
        if (seen.is_some() || view.edits.contains(&key)) && !is_within(*seq) {
            strange.push(*seq);
        }
        if !must_have(model, at, terminal, line) || !is_within(*seq) {
            continue;
        }
        match (seen, now) {
            (None, Some(_)) if !model.may_be_gone(conv, *seq, wall_ms) => missing.push(*seq),
            // Whoever has left hears of no later change.
            (Some(_), _) if !is_in(*seq) => {}
            (Some(seen), Some(now)) if *seen != now => differs.push(format!("{seq}: {seen:?}, {now:?}")),
            // A recall of what is over already says nothing new.
            (Some(_), None) if model.deadline(conv, *seq).is_some() => {}
            (Some(_), None) if line.recalled_ms.is_some() && !view.recalls.contains(&key) => not_recalled.push(*seq),
            _ => {}
        }
    }
    let name = &who.name;
    if !strange.is_empty() {
        model.blame(ImClass::Leak, format!("{name} has {strange:?} of {conv}, {} was in it {spans:?}", who.account));
    }
    if !missing.is_empty() {
        model.blame(ImClass::Unseen, format!("{name} has not got {missing:?} of {conv}"));
    }
    if !not_recalled.is_empty() {
        model.blame(ImClass::Unseen, format!("{name} was not told that {not_recalled:?} of {conv} are recalled"));
    }
    if !differs.is_empty() {
        model.blame(ImClass::InconsistentView, format!("{name} shows in {conv} {differs:?}"));
    }
    check_receipts(model, at, terminal, audit, conv);
}

/// A sender has heard of the other side's marks (G8).
fn check_receipts(model: &mut Model, at: usize, terminal: &Terminal, audit: &Audit, conv: &str) {
    let who = &terminal.who;
    if !conv.contains('~') {
        return;
    }
    let Some(line) = conv_line(audit, conv, &address_of(conv, &who.account)) else { return };
    let peer = (line["recv"].as_u64().unwrap_or_default(), line["read"].as_u64().unwrap_or_default());
    let is_owed = |(seq, line): (&u64, &Line)| {
        *seq <= peer.0
            && must_have(model, at, terminal, line)
            && model.message_at(conv, *seq).is_some_and(|sent| sent.from == who.account)
    };
    let is_owed = model.convs[conv].log.iter().any(is_owed);
    let told = model.views[at].marks.get(conv).copied();
    if is_owed && told != Some(peer) {
        let text = format!("{} was told {told:?} of the other side of {conv}, it is {peer:?}", who.name);
        model.blame(ImClass::ReceiptStale, text);
    }
}
