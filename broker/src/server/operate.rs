//! What the operator asks and orders.

use super::Server;
use super::life::{Life, decode_record};
use crate::admin::{
    ChunkWriter, Command, CommandError, ConnectionStatus, Connections, Described, Kick, ListenerStatus, Page,
    PairError, Payload, RetainedQuery, RetainedRow, Rights, SessionDetail, SessionSummary, SessionsQuery, State,
    Status, StoreStatus, SubscriptionRow, SubscriptionsQuery,
};
use crate::auth::AccountName;
use parlor_core::{LinkView, Reply, SessionView};
use serde_json::json;
use std::net::IpAddr;
use std::rc::Rc;
use tokio::sync::oneshot;

/// Carries out everything but the orders that end or replace the life itself.
pub(super) fn perform(server: &Server, life: &Life, command: Command) {
    match command {
        Command::Ping { reply } => drop(reply.send(())),
        Command::Status { reply } => drop(reply.send(status(server, life))),
        Command::Metrics { reply } => drop(reply.send(super::metrics::collect(server, life))),
        Command::Sessions { query, reply } => drop(reply.send(sessions(server, life, &query))),
        Command::Session { client_id, reply } => drop(reply.send(session(server, life, &client_id))),
        Command::Subscriptions { query, reply } => drop(reply.send(subscriptions(life, &query))),
        Command::Retained { query, reply } => drop(reply.send(retained(life, &query))),
        Command::Accounts { reply } => {
            let rows = life.accounts.list();
            drop(reply.send(rows.iter().map(|(name, record)| (name.as_str().to_owned(), record.encode())).collect()));
        }
        Command::Kick { client_id, what, reply } => {
            order(life, reply, |hub, now, token| hub.kick(now, &client_id, what == Kick::Forget, token));
        }
        Command::RetainedClear { topic, reply } => {
            order(life, reply, |hub, now, token| hub.clear_retained(now, &topic, token));
        }
        Command::AccountPut { name, record, described, connections, reply } => match decode_record(&record) {
            Ok(_) => {
                put_account(life, &name, &record, described.as_ref(), connections, move || drop(reply.send(Ok(()))));
            }
            Err(error) => drop(reply.send(Err(error))),
        },
        Command::AccountRemove { name, reply } => remove_account(life, &name, reply),
        Command::Act { account, rights, path, payload, reply } => {
            if let Some(error) = refusal(life) {
                return drop(reply.send(Err(error)));
            }
            let token = life.orders.borrow_mut().ask(move |said| drop(reply.send(Ok(said))));
            let (now, mut hub) = (life.driver.now(), life.driver.hub.borrow_mut());
            match rights {
                Rights::Operator => hub.act(now, &account, &path, payload.reveal(), token),
                Rights::Own => hub.act_within_rights(now, &account, &path, payload.reveal(), token),
            }
        }
        Command::Look { what, reply } => {
            if let Some(error) = refusal(life) {
                return drop(reply.send(Err(error)));
            }
            let token = life.orders.borrow_mut().ask(move |said| drop(reply.send(Ok(said))));
            life.driver.hub.borrow_mut().look(life.driver.now(), &what, token);
        }
        Command::Blob { order, reply } => {
            if let Some(error) = refusal(life) {
                return drop(reply.send(Err(error)));
            }
            let token = life.orders.borrow_mut().ask(move |said| drop(reply.send(Ok(said))));
            life.driver.hub.borrow_mut().blob(life.driver.now(), order, token);
        }
        Command::Pair { peer, code, name, reply } => pair(life, peer, code.reveal(), &name, reply),
        Command::TokenIssue { wish, reply } => {
            let (authenticator, now_ms) =
                (std::sync::Arc::clone(&life.driver.authenticator), life.driver.now().wall_ms);
            // The first token makes the key, which waits for the disk.
            tokio::task::spawn_blocking(move || drop(reply.send(authenticator.issue_token(&wish, now_ms))));
        }
        Command::TokenCheck { token, reply } => {
            let now_ms = life.driver.now().wall_ms;
            drop(reply.send(life.driver.authenticator.token_account(token.reveal(), now_ms)));
        }
        Command::Backup { chunks } => {
            let backups = life.backups.clone();
            tokio::task::spawn_blocking(move || {
                let mut writer = ChunkWriter::new(chunks);
                let result = backups.backup(&mut writer, &mut |_| ());
                writer.finish(result.map(drop).map_err(|error| CommandError::Store(error.to_string())));
            });
        }
        Command::Reload { .. } | Command::Restore { .. } | Command::Shutdown(_) => {}
    }
}

/// Lets the hub do something that is answered when it is on disk; `false`: there was nothing to do.
fn order(
    life: &Life,
    reply: oneshot::Sender<Result<bool, CommandError>>,
    act: impl FnOnce(&mut parlor_core::Hub, parlor_core::Now, u64) -> bool,
) {
    if let Some(error) = refusal(life) {
        return drop(reply.send(Err(error)));
    }
    let reply = Rc::new(std::cell::Cell::new(Some(reply)));
    let later = Rc::clone(&reply);
    let token = life.orders.borrow_mut().wait(move || {
        if let Some(reply) = later.take() {
            drop(reply.send(Ok(true)));
        }
    });
    let found = act(&mut life.driver.hub.borrow_mut(), life.driver.now(), token);
    if !found {
        life.orders.borrow_mut().cancel(token);
        if let Some(reply) = reply.take() {
            drop(reply.send(Ok(false)));
        }
    }
}

/// Why nothing can be promised, if that is so.
fn refusal(life: &Life) -> Option<CommandError> {
    let orders = life.orders.borrow();
    let failed = orders.failed.clone().map(CommandError::Store);
    failed.or_else(|| orders.is_full().then_some(CommandError::Busy("the most that messaging may be asked at once")))
}

/// Pairs a device, unless too many wrong codes came from where it is; wrong ones are counted.
fn pair(life: &Life, peer: IpAddr, code: &str, name: &str, reply: oneshot::Sender<Result<Reply, PairError>>) {
    if let Some(error) = refusal(life) {
        return drop(reply.send(Err(error.into())));
    }
    let wait_ms = life.driver.authenticator.pairing_wait_ms(peer, life.driver.now().wall_ms);
    if wait_ms > 0 {
        life.orders.borrow_mut().pairings_slowed_down += 1;
        return drop(reply.send(Err(PairError::SlowedDown(wait_ms))));
    }
    let driver = Rc::clone(&life.driver);
    let token = life.orders.borrow_mut().ask(move |said| {
        if matches!(said, Reply::Refused { code: "not_found", .. }) {
            driver.authenticator.pairing_failed(peer, driver.now().wall_ms);
        }
        drop(reply.send(Ok(said)));
    });
    let payload = json!({ "code": code, "name": name }).to_string();
    life.driver.hub.borrow_mut().act(life.driver.now(), "", "me/paired", payload.as_bytes(), token);
}

/// Stores an account, and what messaging is to know of it, together; the table in memory follows when it is on disk.
pub(super) fn put_account(
    life: &Life,
    name: &str,
    record: &[u8],
    described: Option<&Described>,
    connections: Connections,
    then: impl FnOnce() + 'static,
) {
    let accounts = std::sync::Arc::clone(&life.accounts);
    let driver = Rc::clone(&life.driver);
    let known = AccountName::parse_stored(name).ok().zip(decode_record(record).ok());
    let token = life.orders.borrow_mut().wait(move || {
        if let Some((name, record)) = known {
            let ends = record.disabled || connections == Connections::End;
            accounts.insert(name.clone(), record);
            if ends {
                driver.hub.borrow_mut().kick_account(driver.now(), name.as_str(), false);
                driver.wake();
            }
        }
        then();
    });
    let (now, mut hub) = (life.driver.now(), life.driver.hub.borrow_mut());
    let Some(Described { kind, display_name }) = described else {
        return hub.put_account(now, name, Some(record), token);
    };
    // Both are in one batch, so the account is what it is from its first moment on, and the last answer is enough.
    let unheard = life.orders.borrow_mut().wait(|| ());
    hub.put_account(now, name, Some(record), unheard);
    hub.describe_account(now, name, kind.word(), display_name.as_deref(), token);
}

fn remove_account(life: &Life, name: &str, reply: oneshot::Sender<Result<bool, CommandError>>) {
    if life.accounts.get(name).is_none() {
        return drop(reply.send(Ok(false)));
    }
    let accounts = std::sync::Arc::clone(&life.accounts);
    let driver = Rc::clone(&life.driver);
    let gone = name.to_owned();
    let token = life.orders.borrow_mut().wait(move || {
        accounts.remove(&gone);
        driver.hub.borrow_mut().kick_account(driver.now(), &gone, true);
        driver.wake();
        drop(reply.send(Ok(true)));
    });
    life.driver.hub.borrow_mut().put_account(life.driver.now(), name, None, token);
}

fn status(server: &Server, life: &Life) -> Status {
    let now = life.driver.now();
    let hub = life.driver.hub.borrow();
    let totals = hub.totals();
    let listeners = server.doors.iter().map(|door| {
        let listener = &server.config.listeners[door.number];
        ListenerStatus {
            name: listener.name.clone(),
            url: listener.url.to_string(),
            address: door.address,
            connections: life.driver.connections_of(door.number) as u64,
        }
    });
    let failed = life.orders.borrow().failed.clone();
    let store = match failed {
        Some(text) => StoreStatus::Failed { text },
        None if hub.is_low_on_space() => StoreStatus::LowSpace,
        None => StoreStatus::Ok,
    };
    Status {
        version: env!("CARGO_PKG_VERSION"),
        started_at_ms: life.started_ms,
        uptime_secs: now.wall_ms.saturating_sub(life.started_ms) / 1000,
        state: State::Running,
        listeners: listeners.collect(),
        connections: totals.connections,
        sessions: totals.sessions,
        subscriptions: totals.subscriptions,
        retained_messages: totals.retained_messages,
        retained_bytes: totals.retained_bytes,
        queue_messages: totals.queue_messages,
        queue_bytes: totals.queue_bytes,
        accounts: life.accounts.len() as u64,
        store,
    }
}

fn sessions(server: &Server, life: &Life, query: &SessionsQuery) -> Page<SessionSummary> {
    let hub = life.driver.hub.borrow();
    let wanted = query.account.as_deref();
    let rows = hub.sessions().filter(|s| wanted.is_none_or(|a| a == s.account)).map(|s| (s.client_id, s));
    let make = |brief| summary(server, life, &hub.describe(&brief));
    Page::pick(rows, query.after.as_deref(), query.limit, str::to_owned, make)
}

fn summary(server: &Server, life: &Life, view: &SessionView) -> SessionSummary {
    SessionSummary {
        client_id: view.client_id.clone(),
        account: view.account.clone(),
        connection: view.link.and_then(|link| connection(server, life, view, &link)),
        disconnected_at_ms: view.link.is_none().then_some(view.disconnected_at_ms),
        expiry_secs: view.expiry_secs,
        subscriptions: view.subscriptions.len() as u64,
        queue_messages: view.queue_messages,
        queue_bytes: view.queue_bytes,
    }
}

fn connection(server: &Server, life: &Life, view: &SessionView, link: &LinkView) -> Option<ConnectionStatus> {
    let arrival = life.driver.arrival(link.link)?;
    let listener = server.config.listeners.get(arrival.listener as usize);
    Some(ConnectionStatus {
        peer: arrival.peer,
        listener: listener.map_or_else(String::new, |l| l.name.clone()),
        version: view.version,
        since_ms: arrival.since_ms,
        keep_alive_secs: u16::try_from(link.keep_alive_ms / 1500).unwrap_or(u16::MAX),
        native: life.driver.hub.borrow().is_native(link.link),
        streams: link.streams,
    })
}

fn session(server: &Server, life: &Life, client_id: &str) -> Option<SessionDetail> {
    let view = life.driver.hub.borrow().session(client_id)?;
    let rows = view.subscriptions.iter();
    Some(SessionDetail {
        summary: summary(server, life, &view),
        in_flight: view.in_flight.into(),
        inbound_qos2: view.inbound.into(),
        has_will: view.has_will,
        subscription_list: rows
            .map(|(filter, options, id)| SubscriptionRow::new(client_id, filter, *options, *id))
            .collect(),
    })
}

fn subscriptions(life: &Life, query: &SubscriptionsQuery) -> Page<SubscriptionRow> {
    let hub = life.driver.hub.borrow();
    let rows = hub
        .subscriptions()
        .filter(|(client, filter, ..)| {
            query.client_id.as_deref().is_none_or(|c| c == *client)
                && query.filter.as_deref().is_none_or(|f| f == *filter)
        })
        .map(|row| ((row.0, row.1), row));
    let after = query.after.as_deref().map(SubscriptionRow::read_key);
    Page::pick(rows, after, query.limit, SubscriptionRow::write_key, |(client, filter, options, id)| {
        SubscriptionRow::new(client, filter, options, id)
    })
}

fn retained(life: &Life, query: &RetainedQuery) -> Page<RetainedRow> {
    let hub = life.driver.hub.borrow();
    let mut found: Vec<(String, RetainedRow)> = vec![];
    let mut take = |r: parlor_core::RetainedView<'_>| {
        let is_wanted = query.after.as_deref().is_none_or(|after| r.topic > after)
            && query.prefix.as_deref().is_none_or(|prefix| r.topic.starts_with(prefix));
        if is_wanted {
            found.push((
                r.topic.to_owned(),
                RetainedRow {
                    topic: r.topic.to_owned(),
                    qos: r.qos,
                    publisher: r.publisher.to_owned(),
                    expires_at_ms: (r.expires_at_ms != 0).then_some(r.expires_at_ms),
                    payload: Payload(r.payload.to_vec()),
                },
            ));
        }
    };
    match query.filter.as_deref() {
        Some(filter) => hub.visit_retained(filter, take),
        // A wildcard at the front leaves out `$` topics, so they are asked for by name.
        None => ["#", "$SYS/#"].iter().for_each(|filter| hub.visit_retained(filter, &mut take)),
    }
    found.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    let limit = query.limit.max(1) as usize;
    let next = if found.len() > limit { found.get(limit - 1).map(|(topic, _)| topic.clone()) } else { None };
    found.truncate(limit);
    Page { items: found.into_iter().map(|(_, row)| row).collect(), next }
}
