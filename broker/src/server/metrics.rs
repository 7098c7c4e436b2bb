//! The figures of a running broker, as metrics (docs/operations.md explains each).

use super::Server;
use super::life::Life;
use super::quic;
use crate::admin::Metric;
use crate::store::LATENCY_BOUNDS_US;
use parlor_core::{ImCounters, ImTotals, Tally};

const QOS: [&str; 3] = ["0", "1", "2"];
/// Outcomes of commands (docs/protocol.md section 6).
const OUTCOMES: &[&str] = &["done", "failed", "rejected", "expired", "timeout", "canceled", "unknown_outcome"];
/// Codes of refusals (docs/protocol.md section 10).
const CODES: &[&str] = &[
    "bad_request",
    "bad_topic",
    "no_account",
    "not_found",
    "no_consent",
    "blocked",
    "forbidden",
    "id_reused",
    "too_late",
    "response_topic",
    "exists",
    "too_large",
    "quota",
    "expired",
    "low_space",
];
/// Why a terminal did not get something.
const DROPPED: &[&str] =
    &["slow_reader", "packet_too_large", "expired", "terminal_replaced", "announcement_reached", "unreadable_row"];

#[allow(clippy::cast_precision_loss)] // Sums of microseconds: a rounding in the sixteenth digit is none.
fn seconds(us: u64) -> f64 {
    us as f64 / 1e6
}

/// Everything but the figures of the process, which the operator's side adds.
pub(super) fn collect(server: &Server, life: &Life) -> Vec<Metric> {
    let hub = life.driver.hub.borrow();
    let (c, totals, figures) = (hub.counters(), hub.totals(), life.figures.read());
    let by_qos = |counts: [u64; 3]| QOS.into_iter().zip(counts);
    let mut below = 0;
    let buckets = LATENCY_BOUNDS_US
        .iter()
        .zip(&figures.commit_latency)
        .map(|(bound, count)| {
            below += count;
            (seconds(*bound), below)
        })
        .collect();
    let commits = figures.commit_latency.iter().sum();
    let refused = c
        .refused
        .iter()
        .chain(life.driver.layers().iter().collect::<Vec<_>>())
        .chain(server.side.refused().iter().collect::<Vec<_>>())
        .chain(server.quic.as_ref().map(quic::Quic::refused).unwrap_or_default().iter().collect::<Vec<_>>())
        .collect::<Vec<_>>();
    let mut merged = Tally::default();
    for (label, count) in refused {
        merged.add_many(label, count);
    }
    let mut auth = c.auth.clone();
    match life.orders.borrow().pairings_slowed_down {
        0 => {}
        count => auth.add_many("pairing_slowed_down", count),
    }
    let mut metrics = vec![
        Metric::gauge("parlor_connections", "Open connections, those without CONNECT included.")
            .with(totals.connections),
        Metric::counter("parlor_connections_total", "Connections accepted.").with(c.connections),
        Metric::gauge("parlor_sessions_online", "Sessions with a connection.").with(totals.online),
        Metric::gauge("parlor_sessions", "Sessions, with or without a connection.").with(totals.sessions),
        Metric::gauge("parlor_sessions_persistent", "Sessions that outlive their connection.")
            .with(totals.persistent_sessions),
        Metric::gauge("parlor_subscriptions", "Subscriptions of all sessions.").with(totals.subscriptions),
        Metric::counter("parlor_packets_received_total", "MQTT packets received.").with(c.packets_received),
        Metric::counter("parlor_messages_received_total", "PUBLISH packets received.")
            .labelled_all("qos", by_qos(c.received)),
        Metric::counter("parlor_messages_sent_total", "PUBLISH packets sent.").labelled_all("qos", by_qos(c.sent)),
        Metric::counter("parlor_messages_dropped_total", "Messages a session did not get.")
            .labelled_all("reason", c.dropped.iter()),
        Metric::counter("parlor_packets_refused_total", "Packets and connections refused.")
            .labelled_all("reason", merged.iter()),
        Metric::counter("parlor_limit_reached_total", "Limits reached, by key of [limits].")
            .labelled_all("limit", c.limits.iter()),
        Metric::counter("parlor_auth_total", "Authentications, by result.").labelled_all("result", auth.iter()),
        Metric::counter("parlor_wills_total", "Wills published.").with(c.wills),
        Metric::counter("parlor_bytes_received_total", "Bytes of MQTT packets received.").with(c.bytes_received),
        Metric::counter("parlor_bytes_sent_total", "Bytes of MQTT packets sent.").with(c.bytes_sent),
        Metric::gauge("parlor_retained_messages", "Retained messages.").with(totals.retained_messages),
        Metric::gauge("parlor_retained_bytes", "Bytes of retained messages.").with(totals.retained_bytes),
        Metric::gauge("parlor_queue_messages", "Messages in the queues of sessions.").with(totals.queue_messages),
        Metric::gauge("parlor_queue_bytes", "Bytes of those.").with(totals.queue_bytes),
        Metric::gauge("parlor_uncommitted_bytes", "Bytes accepted and not on disk yet.").with(totals.uncommitted_bytes),
        Metric::histogram(
            "parlor_commit_seconds",
            "Time from the first fact of a group commit to its fdatasync.",
            buckets,
            seconds(figures.commit_latency_us),
            commits,
        ),
        Metric::counter("parlor_commits_total", "Group commits.").with(figures.commits),
        Metric::counter("parlor_store_facts_total", "Facts committed.").with(figures.facts),
        Metric::counter("parlor_store_bytes_written_total", "Bytes written to the journal.")
            .with(figures.journal_bytes),
        Metric::counter("parlor_folds_total", "Journal segments folded into the index.").with(figures.folds),
        Metric::counter("parlor_fold_seconds_total", "Time that took.").with_float(seconds(figures.fold_us)),
        Metric::gauge("parlor_store_frozen_segments", "Full journal segments waiting for their fold.")
            .with(figures.frozen_segments),
        Metric::gauge("parlor_store_tail_entries", "Queue entries that are in the journal only.")
            .with(figures.tail_entries),
        Metric::gauge("parlor_store_waiting_batches", "Batches waiting to be committed.").with(figures.waiting_batches),
        Metric::gauge("parlor_accounts", "Accounts in the store.").with(life.accounts.len() as u64),
        Metric::gauge("parlor_uptime_seconds", "Seconds since the store was opened.")
            .with(life.driver.now().wall_ms.saturating_sub(life.started_ms) / 1000),
        Metric::gauge("parlor_boot", "How often this store was opened.").with(hub.boot()),
    ];
    if server.config.im.enabled {
        metrics.extend(messaging(hub.im_counters(), hub.im_totals()));
    }
    metrics
}

/// What messaging counts (docs/protocol.md).
fn messaging(c: &ImCounters, totals: ImTotals) -> Vec<Metric> {
    vec![
        Metric::counter("parlor_im_messages_total", "Messages accepted.").with(c.messages),
        Metric::counter("parlor_im_duplicates_total", "Messages and commands that had been accepted before.")
            .with(c.duplicates),
        Metric::counter("parlor_im_entries_total", "Mailbox entries made.").with(c.entries),
        Metric::counter("parlor_im_sent_total", "Mailbox entries and messages sent to terminals.").with(c.sent),
        Metric::counter("parlor_im_commands_total", "Commands accepted.").with(c.commands),
        Metric::counter("parlor_im_outcomes_total", "Outcomes of commands.")
            .labelled_all("state", from_zero(OUTCOMES, &c.outcomes)),
        Metric::counter("parlor_im_refused_total", "Requests refused, by code.")
            .labelled_all("code", from_zero(CODES, &c.refused)),
        Metric::counter("parlor_im_dropped_total", "What a terminal did not get.")
            .labelled_all("reason", from_zero(DROPPED, &c.dropped)),
        Metric::gauge("parlor_im_accounts", "Accounts that take part or may.").with(totals.accounts),
        Metric::gauge("parlor_im_conversations", "Conversations, groups and channels.").with(totals.conversations),
        Metric::gauge("parlor_im_terminals", "Terminals with a place in a mailbox.").with(totals.terminals),
        Metric::gauge("parlor_im_sessions", "Sessions that take part now.").with(totals.online),
        Metric::gauge("parlor_im_unread", "Unread messages of all accounts.").with(totals.unread),
        Metric::gauge("parlor_im_cached_bytes", "Bytes of messages kept in memory.").with(totals.cached_bytes),
        Metric::gauge("parlor_im_store_questions", "Questions to the store that are not answered.").with(totals.asked),
    ]
}

/// A tally in which these labels are there from the start: a rate of what was never there cannot be told from none.
fn from_zero(labels: &[&'static str], tally: &Tally) -> Vec<(&'static str, u64)> {
    let mut whole = Tally::default();
    for label in labels {
        whole.add_many(label, 0);
    }
    for (label, count) in tally.iter() {
        whole.add_many(label, count);
    }
    whole.iter().collect()
}
