//! The messaging loads.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::clients::{Clients, Event, field};
use super::{Broker, ImError, Options};

type Run = fn(&Broker, &Options) -> Result<Vec<String>, ImError>;

/// Name and code of each load.
pub(super) const LOADS: [(&str, Run); 7] = [
    ("direct", direct),
    ("offline", offline),
    ("group", group),
    ("announce", announce),
    ("sync", sync),
    ("command", command),
    ("rates", rates),
];

/// Contacts of each account.
const PEERS: u32 = 8;
/// Accounts that write at the same time, messages in a row to one peer, and how many of those are unanswered.
const WRITERS: usize = 256;
const BURST: u32 = 32;
const WINDOW: u32 = 16;

fn text(len: usize) -> String {
    "the quick brown fox jumps over the lazy dog and ".chars().cycle().take(len).collect()
}

/// A small generator of numbers, the same in every run.
struct Dice(u64);

impl Dice {
    fn next(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below
    }
}

/// Makes contacts of `a` and `b` for every pair, and waits until all are.
fn befriend(clients: &mut Clients, pairs: &[(usize, usize)], name: impl Fn(usize) -> String) -> Result<(), ImError> {
    for (topic, from_first) in [("request", true), ("accept", false)] {
        let mut waiting = 0_usize;
        let mut next = pairs.iter();
        loop {
            while waiting < 4_096
                && let Some(&(a, b)) = next.next()
            {
                let (from, to) = if from_first { (a, b) } else { (b, a) };
                let path = format!("im/v1/me/contact/{}", name(to));
                clients.publish(from, &path, format!(r#"{{"op":"{topic}"}}"#).as_bytes());
                waiting += 1;
            }
            if waiting == 0 {
                break;
            }
            let alive = clients.turn(&mut |_, event| waiting -= usize::from(matches!(event, Event::Acked)))?;
            if !alive {
                return Err(ImError::Wrong(format!("{waiting} contacts were never made")));
            }
        }
    }
    Ok(())
}

struct Writer {
    from: usize,
    to: usize,
    left: u32,
    unanswered: u32,
}

/// Costs between two marks.
struct Costs {
    wall: f64,
    cpu: f64,
    written: u64,
}

struct Meter<'a> {
    broker: &'a Broker,
    since: Instant,
    cpu: crate::process::CpuMark,
    written: u64,
}

impl<'a> Meter<'a> {
    fn new(broker: &'a Broker) -> Result<Self, ImError> {
        let (cpu, written) = (broker.process().cpu()?, broker.written_bytes()?);
        Ok(Self { broker, since: Instant::now(), cpu, written })
    }

    fn read(&self) -> Result<Costs, ImError> {
        Ok(Costs {
            wall: self.since.elapsed().as_secs_f64(),
            cpu: self.broker.process().cpu()?.secs_since(&self.cpu),
            written: self.broker.written_bytes()? - self.written,
        })
    }
}

fn costs(what: &str, messages: u64, costs: &Costs) -> String {
    format!(
        "{what}: {:.0} messages/s, {:.2} us CPU and {:.0} bytes written each",
        messages as f64 / costs.wall,
        costs.cpu * 1e6 / messages as f64,
        costs.written as f64 / messages as f64,
    )
}

/// Direct messages: both sides online, each message acknowledged to its sender, delivered, acknowledged, and reported
/// to its sender as delivered.
fn direct(broker: &Broker, options: &Options) -> Result<Vec<String>, ImError> {
    let accounts = options.accounts as usize;
    let mut clients = Clients::new()?;
    let name = |n: usize| format!("u{n}");
    let since = Instant::now();
    clients.connect(broker.address, &broker.key, (0..accounts).map(name), &["im/v1/me/in/#"])?;
    let connected = since.elapsed().as_secs_f64();
    let pairs: Vec<(usize, usize)> =
        (0..accounts).flat_map(|a| (1..=PEERS as usize / 2).map(move |d| (a, (a + d) % accounts))).collect();
    let since = Instant::now();
    befriend(&mut clients, &pairs, name)?;
    let mut lines = vec![format!(
        "{accounts} accounts connected in {connected:.1} s; {} contacts made in {:.1} s",
        pairs.len(),
        since.elapsed().as_secs_f64()
    )];
    let text = text(150);
    let mut dice = Dice(7);
    let peer = |dice: &mut Dice, from: usize| {
        let d = 1 + dice.next(u64::from(PEERS / 2)) as usize;
        if dice.next(2) == 0 { (from + d) % accounts } else { (from + accounts - d) % accounts }
    };
    let new_writer = |dice: &mut Dice| {
        let from = dice.next(accounts as u64) as usize;
        Writer { from, to: peer(dice, from), left: BURST, unanswered: 0 }
    };
    let mut writers: Vec<Writer> = (0..WRITERS.min(accounts)).map(|_| new_writer(&mut dice)).collect();
    let mut of_client: HashMap<usize, Vec<usize>> = HashMap::new();
    let (mut sent, mut acked, mut got) = (0_u64, 0_u64, 0_u64);
    let mut last: HashMap<(u32, u32), u64> = HashMap::new();
    let mut wrong = 0_u64;
    let meter = Meter::new(broker)?;
    let first = options.messages / 20;
    let mut at_first: Option<Costs> = None;
    let mut before_last: Option<Costs> = None;
    let mut queue: Vec<usize> = (0..writers.len()).collect();
    let mut finished: Vec<(usize, u64)> = vec![];
    while acked < options.messages || got < options.messages {
        for number in std::mem::take(&mut queue) {
            let writer = &mut writers[number];
            if writer.left == 0 && writer.unanswered == 0 {
                if let Some(list) = of_client.get_mut(&writer.from) {
                    list.retain(|n| *n != number);
                }
                // An account has one writer at a time, so that an acknowledgement says whose message it was.
                loop {
                    *writer = new_writer(&mut dice);
                    if of_client.get(&writer.from).is_none_or(Vec::is_empty) {
                        break;
                    }
                }
            }
            if writer.left == BURST && writer.unanswered == 0 {
                of_client.entry(writer.from).or_default().push(number);
            }
            let topic = format!("im/v1/to/{}/msg", name(writer.to));
            while writer.left > 0 && writer.unanswered < WINDOW && sent < options.messages {
                let payload = format!(r#"{{"id":"m{sent}","text":"{text}"}}"#);
                clients.publish(writer.from, &topic, payload.as_bytes());
                writer.left -= 1;
                writer.unanswered += 1;
                sent += 1;
            }
        }
        let alive = clients.turn(&mut |number, event| match event {
            Event::Acked => {
                acked += 1;
                if let Some(&writer) = of_client.get(&number).and_then(|list| list.first()) {
                    writers[writer].unanswered -= 1;
                    if writers[writer].unanswered <= WINDOW / 2 {
                        queue.push(writer);
                    }
                }
            }
            Event::Got { topic, payload } => {
                if topic.ends_with(b"/msg") {
                    got += 1;
                    let from = field(topic, b"/in/u").unwrap_or(u64::MAX) as u32;
                    let seq = field(payload, b"\"seq\":").unwrap_or(0);
                    let prev = field(payload, b"\"prev\":").unwrap_or(u64::MAX);
                    let known = last.entry((number as u32, from)).or_insert(0);
                    if seq <= *known || prev < *known {
                        wrong += 1;
                    }
                    *known = seq;
                }
            }
        })?;
        queue.sort_unstable();
        queue.dedup();
        if at_first.is_none() && got >= first {
            at_first = Some(meter.read()?);
        }
        if before_last.is_none() && got >= options.messages - first {
            before_last = Some(meter.read()?);
        }
        finished.clear();
        if !alive {
            return Err(ImError::Wrong(format!(
                "sent {sent}, acknowledged {acked}, delivered {got}: the rest is lost"
            )));
        }
    }
    let whole = meter.read()?;
    lines.push(costs(&format!("{} messages of 150 bytes, end to end", options.messages), options.messages, &whole));
    if let (Some(a), Some(b)) = (at_first, before_last) {
        let last = Costs { wall: whole.wall - b.wall, cpu: whole.cpu - b.cpu, written: whole.written - b.written };
        lines.push(costs(&format!("the first {first}"), first, &a));
        lines.push(format!(
            "{}; CPU {:.2} times that of the first",
            costs(&format!("the last {first}"), first, &last),
            last.cpu / a.cpu
        ));
    }
    let kept = broker.kept_bytes()?;
    lines.push(format!(
        "{:.0} bytes kept each; resident {} MB; out of order or double: {wrong}",
        kept as f64 / options.messages as f64,
        broker.process().resident_bytes()? >> 20
    ));
    if wrong > 0 {
        return Err(ImError::Wrong(lines.join("\n")));
    }
    Ok(lines)
}

/// Direct messages to accounts that are away.
fn offline(broker: &Broker, options: &Options) -> Result<Vec<String>, ImError> {
    let (senders, messages) = (200_usize, options.messages.min(400_000));
    let name = |n: usize| format!("u{n}");
    {
        // Every receiver is there once, so that it has a terminal and its contact.
        let mut all = Clients::new()?;
        all.connect(broker.address, &broker.key, (0..senders * 2).map(name), &["im/v1/me/in/#"])?;
        let pairs: Vec<(usize, usize)> = (0..senders).map(|n| (n, n + senders)).collect();
        befriend(&mut all, &pairs, name)?;
    }
    let mut clients = Clients::new()?;
    clients.connect(broker.address, &broker.key, (0..senders).map(name), &["im/v1/me/err"])?;
    let text = text(150);
    let each = messages / senders as u64;
    let mut left = vec![each; senders];
    let mut acked = 0;
    let meter = Meter::new(broker)?;
    let mut queue: Vec<usize> = (0..senders).flat_map(|n| std::iter::repeat_n(n, WINDOW as usize)).collect();
    while acked < each * senders as u64 {
        for number in std::mem::take(&mut queue) {
            if left[number] > 0 {
                left[number] -= 1;
                let payload = format!(r#"{{"id":"o{}","text":"{text}"}}"#, left[number]);
                let topic = format!("im/v1/to/u{}/msg", number + senders);
                clients.publish(number, &topic, payload.as_bytes());
            }
        }
        let alive = clients.turn(&mut |number, event| {
            if matches!(event, Event::Acked) {
                acked += 1;
                queue.push(number);
            }
        })?;
        if !alive {
            return Err(ImError::Wrong(format!("{acked} acknowledged of {}", each * senders as u64)));
        }
    }
    let stored = meter.read()?;
    let total = each * senders as u64;
    let mut lines = vec![costs(&format!("{total} messages to {senders} accounts that are away"), total, &stored)];
    drop(clients);
    let meter = Meter::new(broker)?;
    let mut receivers = Clients::new()?;
    receivers.connect(broker.address, &broker.key, (senders..senders * 2).map(name), &["im/v1/me/in/#"])?;
    let mut got = 0;
    while got < total {
        let alive = receivers.turn(&mut |_, event| {
            if let Event::Got { topic, .. } = event {
                got += u64::from(topic.ends_with(b"/msg"));
            }
        })?;
        if !alive {
            return Err(ImError::Wrong(format!("{got} of {total} came when the receivers were back")));
        }
    }
    lines.push(costs("and sent when they are back", total, &meter.read()?));
    Ok(lines)
}

/// A group of 50.
fn group(broker: &Broker, options: &Options) -> Result<Vec<String>, ImError> {
    let members = 50_usize;
    let messages = (options.messages / 100).max(100);
    let name = |n: usize| format!("u{n}");
    let mut clients = Clients::new()?;
    clients.connect(broker.address, &broker.key, (0..members).map(name), &["im/v1/me/in/#"])?;
    let pairs: Vec<(usize, usize)> = (1..members).map(|n| (0, n)).collect();
    befriend(&mut clients, &pairs, name)?;
    let all: Vec<String> = (1..members).map(|n| format!("\"u{n}\"")).collect();
    let create = format!(r#"{{"op":"create","name":"bench","members":[{}]}}"#, all.join(","));
    clients.publish(0, "im/v1/me/group/g-bench", create.as_bytes());
    let mut acked = 0;
    while acked < 1 {
        clients.turn(&mut |_, event| acked += u64::from(matches!(event, Event::Acked)))?;
    }
    let text = text(150);
    let (mut sent, mut got) = (0_u64, 0_u64);
    acked = 0;
    let meter = Meter::new(broker)?;
    let want = messages * (members as u64 - 1);
    while got < want || acked < messages {
        while sent < messages && sent - acked < 64 {
            let payload = format!(r#"{{"id":"g{sent}","text":"{text}"}}"#);
            clients.publish((sent % members as u64) as usize, "im/v1/to/g-bench/msg", payload.as_bytes());
            sent += 1;
        }
        let alive = clients.turn(&mut |_, event| match event {
            Event::Acked => acked += 1,
            Event::Got { topic, payload } => {
                let counts = topic == b"im/v1/me/in/g-bench/msg" && !payload.windows(6).any(|w| w == b"member");
                got += u64::from(counts);
            }
        })?;
        if !alive {
            return Err(ImError::Wrong(format!("{got} of {want} deliveries, {acked} of {messages} acknowledged")));
        }
    }
    let done = meter.read()?;
    Ok(vec![
        costs(&format!("{messages} messages to a group of {members}"), messages, &done),
        format!("{:.2} us CPU for each of {want} deliveries", done.cpu * 1e6 / want as f64),
    ])
}

/// An announcement to everybody.
fn announce(broker: &Broker, options: &Options) -> Result<Vec<String>, ImError> {
    let accounts = options.accounts as usize;
    let mut clients = Clients::new()?;
    let name = |n: usize| if n == accounts { "boss".to_owned() } else { format!("u{n}") };
    clients.connect(broker.address, &broker.key, (0..=accounts).map(name), &["im/v1/me/in/#"])?;
    clients.publish(accounts, "im/v1/admin/ch/ch-all/create", br#"{"name":"All","audience":"all"}"#);
    let mut acked = 0;
    while acked < 1 {
        clients.turn(&mut |_, event| acked += u64::from(matches!(event, Event::Acked)))?;
    }
    let meter = Meter::new(broker)?;
    let payload = format!(r#"{{"text":"{}","notify":true}}"#, text(150));
    clients.publish(accounts, "im/v1/admin/ch/ch-all/publish", payload.as_bytes());
    let mut got = 0;
    let mut published = None;
    while got < accounts {
        let mut is_published = false;
        let alive = clients.turn(&mut |number, event| match event {
            Event::Got { topic, .. } if number < accounts => got += usize::from(topic == b"im/v1/me/in/ch-all/msg"),
            Event::Acked => is_published = true,
            Event::Got { .. } => {}
        })?;
        if is_published && published.is_none() {
            published = Some(meter.read()?);
        }
        if !alive {
            return Err(ImError::Wrong(format!("{got} of {accounts} were told")));
        }
    }
    let done = meter.read()?;
    let first = published.map_or(0.0, |p| p.wall * 1e3);
    Ok(vec![format!(
        "acknowledged after {first:.1} ms; {accounts} terminals told in {:.1} s (spread over 5 s), {:.2} us CPU and {:.0} bytes \
         written for each",
        done.wall,
        done.cpu * 1e6 / accounts as f64,
        done.written as f64 / accounts as f64
    )])
}

/// A pull of 10,000 entries.
fn sync(broker: &Broker, _options: &Options) -> Result<Vec<String>, ImError> {
    let entries = 10_000_u64;
    let name = |n: usize| format!("u{n}");
    let mut clients = Clients::new()?;
    clients.connect(broker.address, &broker.key, (0..11).map(name), &["im/v1/me/err"])?;
    befriend(&mut clients, &(1..11).map(|n| (0, n)).collect::<Vec<_>>(), name)?;
    let (mut sent, mut acked) = (0, 0);
    let text = text(150);
    while acked < entries {
        while sent < entries && sent - acked < 512 {
            clients.publish(1 + (sent % 10) as usize, "im/v1/to/u0/msg", text.as_bytes());
            sent += 1;
        }
        clients.turn(&mut |_, event| acked += u64::from(matches!(event, Event::Acked)))?;
    }
    let mut lines = vec![];
    for state in ["just written", "again"] {
        let mut puller = Clients::new()?;
        puller.connect(broker.address, &broker.key, std::iter::once(name(0)), &["im/v1/me/sync/res"])?;
        let (mut pos, mut found, mut pages) = (0, 0, 0);
        let since = Instant::now();
        let cpu = broker.process().cpu()?;
        let mut more = true;
        while more {
            puller.publish(0, "im/v1/me/sync", format!(r#"{{"after":{pos},"max":1024}}"#).as_bytes());
            let mut answered = false;
            while !answered {
                puller.turn(&mut |_, event| {
                    if let Event::Got { payload, .. } = event {
                        answered = true;
                        pages += 1;
                        pos = field(payload, b"\"pos\":").unwrap_or(0);
                        more = payload.windows(11).take(120).any(|w| w == b"\"more\":true");
                        found += payload.windows(6).filter(|w| *w == b"/msg\",").count();
                    }
                })?;
            }
        }
        let took = since.elapsed();
        lines.push(format!(
            "{found} entries with bodies, {state}: {:.1} ms in {pages} pages, {:.1} ms CPU",
            took.as_secs_f64() * 1e3,
            broker.process().cpu()?.secs_since(&cpu) * 1e3
        ));
    }
    Ok(lines)
}

/// Commands: one at a time, from the requester's PUBLISH to the outcome it is told.
fn command(broker: &Broker, _options: &Options) -> Result<Vec<String>, ImError> {
    let rounds = 2_000;
    let name = |n: usize| ["alice", "lamp"][n].to_owned();
    let mut clients = Clients::new()?;
    clients.connect(broker.address, &broker.key, (0..1).map(name), &["im/v1/me/res/#"])?;
    clients.connect(broker.address, &broker.key, (1..2).map(name), &["im/v1/me/cmd/#"])?;
    befriend(&mut clients, &[(0, 1)], name)?;
    let mut took = vec![];
    for round in 0..rounds {
        let since = Instant::now();
        let payload = format!(r#"{{"id":"c{round}","args":{{"on":true}}}}"#);
        clients.publish(0, "im/v1/to/lamp/cmd/set", payload.as_bytes());
        let mut done = false;
        while !done {
            let mut answer = None;
            let alive = clients.turn(&mut |number, event| {
                let Event::Got { topic, payload } = event else { return };
                if number == 1 && topic.starts_with(b"im/v1/me/cmd/") {
                    answer = topic.split(|b| *b == b'/').nth(4).map(|id| String::from_utf8_lossy(id).into_owned());
                }
                done |= number == 0 && payload.windows(14).any(|w| w == b"\"state\":\"done\"");
            })?;
            if let Some(id) = answer {
                clients.publish(1, &format!("im/v1/me/cmdres/{id}"), br#"{"state":"done","result":{"on":true}}"#);
            }
            if !alive {
                return Err(ImError::Wrong(format!("command {round} had no outcome")));
            }
        }
        took.push(since.elapsed());
    }
    took.sort_unstable();
    let at = |percent: usize| took[took.len() * percent / 100].as_secs_f64() * 1e3;
    Ok(vec![format!("{rounds} round trips: p50 {:.2} ms, p99 {:.2} ms", at(50), at(99))])
}

/// Bytes written for each message at low rates, where every message is a commit of its own.
fn rates(broker: &Broker, _options: &Options) -> Result<Vec<String>, ImError> {
    let name = |n: usize| format!("u{n}");
    let mut clients = Clients::new()?;
    clients.connect(broker.address, &broker.key, (0..2).map(name), &["im/v1/me/in/#"])?;
    befriend(&mut clients, &[(0, 1)], name)?;
    let text = text(150);
    let mut lines = vec![];
    for (rate, messages) in [(1_u64, 20_u64), (100, 1_000), (10_000, 100_000)] {
        let meter = Meter::new(broker)?;
        let since = Instant::now();
        let (mut sent, mut got) = (0, 0);
        while got < messages {
            let due = since.elapsed().as_micros() as u64 * rate / 1_000_000 + 1;
            while sent < due.min(messages) {
                clients.publish(0, "im/v1/to/u1/msg", text.as_bytes());
                sent += 1;
            }
            clients.turn(&mut |_, event| {
                if let Event::Got { topic, .. } = event {
                    got += u64::from(topic.ends_with(b"/msg"));
                }
            })?;
            if since.elapsed() > Duration::from_secs(90) {
                return Err(ImError::Wrong(format!("{got} of {messages} at {rate}/s")));
            }
        }
        let done = meter.read()?;
        lines.push(format!(
            "{rate} messages/s: {:.0} bytes written and {:.0} us CPU each",
            done.written as f64 / messages as f64,
            done.cpu * 1e6 / messages as f64
        ));
    }
    let _ = clients.len();
    Ok(lines)
}
