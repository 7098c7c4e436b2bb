//! Arbitrary bytes against decoder and hub: several links in all states, arbitrary chunks, an arbitrary disk.
//!
//! The input is read as a list of steps, so that a fuzzer can find its way: raw bytes for a link, packets of every kind
//! with a byte changed here and there, time, commits, reads, ends. Whatever comes, nothing may panic, everything the hub
//! says must be well-formed, and nothing may outgrow its limit.

use parlor_core::access::Access;
use parlor_core::auth::AuthAnswer;
use parlor_core::limits::Limits;
use parlor_core::store::memory::MemoryStore;
use parlor_core::store::{Store, StoreEvent};
use parlor_core::{Effect, Hub, LinkId, Now, Peer, Settings, StreamKind};
use parlor_protocol::mqtt::{Packet, ReasonCode, Version, connect_version, decode, frame_len};
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

/// Links at the same time.
const LINKS: usize = 5;
/// Milliseconds since 1970 at the beginning.
const EPOCH_MS: u64 = 1_800_000_000_000;

/// Reads the input; zeros behind its end.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn byte(&mut self) -> u8 {
        match self.0.split_first() {
            Some((first, rest)) => {
                self.0 = rest;
                *first
            }
            None => 0,
        }
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count.min(self.0.len())).map(|_| self.byte()).collect()
    }
}

/// One connection, or a further stream of one.
struct Line {
    link: LinkId,
    version: Version,
    inbox: Vec<u8>,
    closing: bool,
    /// A CONNECT was read.
    greeted: bool,
    /// What it was sent, from the first byte of a packet on.
    heard: Vec<u8>,
}

struct Storm {
    hub: Hub,
    limits: Limits,
    store: MemoryStore,
    lines: Vec<Option<Line>>,
    /// Exchanges with the authenticator, and whether they have a method.
    waiting: Vec<(LinkId, u64, bool)>,
    now: Now,
    outstanding: bool,
    /// Handed out and not reported yet: the disk is slow as long as the input wants.
    late: Vec<StoreEvent>,
    labels: BTreeSet<&'static str>,
}

/// Small bounds, so that they are reached.
fn limits() -> Limits {
    Limits {
        connections_max: 4,
        quic_streams_max: 1,
        packet_bytes_max: 2_048,
        receive_max: 2,
        in_flight_max: 3,
        topic_alias_max: 2,
        topic_alias_out_max: 2,
        sessions_max: 3,
        queue_messages_max: 12,
        queue_bytes_max: 4_096,
        memory_queue_messages_max: 2,
        memory_queue_bytes_max: 4_096,
        output_bytes_max: 2_048,
        retained_messages_max: 2,
        retained_bytes_max: 2_048,
        subscriptions_per_session_max: 4,
        subscriptions_max: 12,
        topic_levels_max: 6,
        will_delay_max_secs: 20,
        auth_waiting_max: 2,
        commit_bytes_max: 65_536,
        ..Limits::default()
    }
}

/// Plays `data`; panics when a promise is broken. Says which refusals, drops and limits it came to.
pub fn play(data: &[u8]) -> BTreeSet<&'static str> {
    let mut input = Input(data);
    let limits = limits();
    let mut store = MemoryStore::new();
    let snapshot = store.open();
    let now = Now { ms: 0, wall_ms: EPOCH_MS };
    let settings = Settings {
        limits: limits.clone(),
        access: Access::default(),
        sys_interval_secs: 5,
        im: parlor_core::ImSettings::default(),
    };
    let hub = Hub::new(settings, snapshot, 1, now);
    let lines = (0..LINKS).map(|_| None).collect();
    let mut storm = Storm {
        hub,
        limits,
        store,
        lines,
        waiting: vec![],
        now,
        outstanding: false,
        late: vec![],
        labels: BTreeSet::new(),
    };
    while !input.0.is_empty() {
        storm.step(&mut input);
        storm.settle();
        storm.check();
    }
    // However it went, a newcomer is served.
    storm.calm();
    storm.note_labels();
    storm.labels
}

impl Storm {
    fn note_labels(&mut self) {
        let c = self.hub.counters();
        for tally in [&c.refused, &c.limits, &c.dropped, &c.auth] {
            self.labels.extend(tally.iter().map(|(label, _)| label));
        }
    }

    fn step(&mut self, input: &mut Input<'_>) {
        let what = input.byte();
        let at = usize::from(input.byte()) % LINKS;
        match what % 64 {
            0 => self.open(at, input.byte() & 1 == 0),
            1 => self.end(at),
            2 if what < 128 => {
                let count = usize::from(input.byte());
                let bytes = input.bytes(count);
                self.feed(at, &bytes);
            }
            3 => self.pass(u64::from(input.byte())),
            4 => self.pass(u64::from(input.byte()) * 500),
            5..=12 => self.report(),
            13..=16 => self.answer(input.byte()),
            17 if what < 128 => self.reopen(),
            18 | 20 if what < 128 => self.open_stream(at, usize::from(input.byte()), input.byte()),
            19 if what < 128 => {
                if let Some(line) = &self.lines[at] {
                    self.hub.finish(self.now, line.link);
                }
            }
            _ => {
                if self.lines[at].is_none() {
                    self.open(at, true);
                }
                let known = self.lines[at].as_ref().map(|l| (l.version, l.greeted));
                let (version, greeted) = known.unwrap_or((Version::V311, false));
                let bytes = some_packet(input, version, greeted);
                self.feed(at, &bytes);
            }
        }
    }

    fn open(&mut self, at: usize, anonymous: bool) {
        self.end(at);
        let peer = Peer {
            address: IpAddr::V4(Ipv4Addr::LOCALHOST),
            allow_anonymous: anonymous,
            certificate: None,
            native: false,
        };
        self.lines[at] = self.hub.open(self.now, &peer).map(|link| Line {
            link,
            version: Version::V311,
            inbox: vec![],
            closing: false,
            greeted: false,
            heard: vec![],
        });
    }

    /// A further stream of a connection takes the place `at`.
    fn open_stream(&mut self, at: usize, parent: usize, how: u8) {
        let others = (0..LINKS).map(|n| (parent + n) % LINKS).filter(|n| *n != at);
        let mut lines = others.filter_map(|n| self.lines[n].as_ref()).map(|line| (line.link, line.version));
        // Mostly one that may have streams.
        let found = lines.find(|(link, _)| self.hub.is_connected(*link) || how >= 240);
        self.end(at);
        let Some((link, version)) = found else { return };
        let kinds = [StreamKind::Data, StreamKind::Data, StreamKind::Bulk, StreamKind::Datagrams];
        let kind = kinds[usize::from(how) % kinds.len()];
        let stream = self.hub.open_stream(self.now, link, kind);
        if let Some(link) = stream.filter(|_| kind != StreamKind::Data) {
            self.hub.set_road(link, "a/#");
        }
        self.lines[at] =
            stream.map(|link| Line { link, version, inbox: vec![], closing: false, greeted: true, heard: vec![] });
    }

    fn end(&mut self, at: usize) {
        if let Some(line) = self.lines[at].take() {
            self.hub.closed(self.now, line.link);
        }
    }

    fn feed(&mut self, at: usize, bytes: &[u8]) {
        let max = u32::try_from(self.limits.packet_bytes_max).expect("small");
        let Some(line) = &mut self.lines[at] else { return };
        line.inbox.extend_from_slice(bytes);
        let mut used = 0;
        while !line.closing && self.hub.may_read(line.link) {
            match decode(&line.inbox[used..], line.version, max) {
                Ok(Some((packet, size))) => {
                    if let Packet::Connect(connect) = &packet {
                        line.version = connect.version;
                        line.greeted = true;
                    }
                    self.hub.packet(self.now, line.link, &packet, size);
                    used += size;
                }
                Ok(None) => break,
                Err(error) => {
                    assert!(error.reason().is_error(), "{error} has a reason code that is no error");
                    self.hub.malformed(self.now, line.link, &error, connect_version(&line.inbox[used..]));
                    line.closing = true;
                }
            }
        }
        line.inbox.drain(..used);
        if line.closing || line.inbox.len() > 4 * 65_536 {
            line.inbox.clear();
        }
        if self.hub.may_read(line.link) {
            // What a decoder keeps of an unfinished packet is bounded by the largest packet.
            assert!(line.inbox.len() <= max as usize, "{} bytes of an unfinished packet", line.inbox.len());
        }
    }

    fn pass(&mut self, ms: u64) {
        self.now.ms += ms;
        self.now.wall_ms += ms;
        self.hub.tick(self.now);
        assert!(self.hub.deadline().is_none_or(|at| at > self.now.ms), "a timer stays due");
    }

    /// The disk is done with what it was given.
    fn report(&mut self) {
        for event in std::mem::take(&mut self.late) {
            if matches!(event, StoreEvent::Committed(_)) {
                self.outstanding = false;
            }
            self.hub.stored(self.now, event);
        }
    }

    fn answer(&mut self, how: u8) {
        let Some((link, exchange, method)) = self.waiting.pop() else { return };
        let answer = match how % 4 {
            0 => {
                AuthAnswer::Refuse { reason: ReasonCode::BAD_USER_NAME_OR_PASSWORD, text: "no", label: "bad_password" }
            }
            1 if method => AuthAnswer::Continue { data: vec![how] },
            _ => AuthAnswer::Accept {
                account: format!("account-{}", how % 3),
                groups: vec![],
                expires_at_ms: (how & 64 != 0).then_some(self.now.wall_ms + 5_000),
                data: (method && how & 128 != 0).then(|| vec![how]),
            },
        };
        self.hub.authenticated(self.now, link, exchange, answer);
    }

    /// The power fails: everything reported is on disk, the rest may be.
    fn reopen(&mut self) {
        self.note_labels();
        self.lines.iter_mut().for_each(|line| *line = None);
        self.waiting.clear();
        self.late.clear();
        self.outstanding = false;
        let snapshot = self.store.open();
        self.now.ms = 0;
        let settings = Settings {
            limits: self.limits.clone(),
            access: Access::default(),
            sys_interval_secs: 5,
            im: parlor_core::ImSettings::default(),
        };
        self.hub = Hub::new(settings, snapshot, 2, self.now);
    }

    /// What the broker's driver does after every event.
    fn settle(&mut self) {
        loop {
            while let Some(effect) = self.hub.poll_effect() {
                self.perform(effect);
            }
            if !self.outstanding
                && let Some((number, batch)) = self.hub.take_batch()
            {
                self.outstanding = true;
                self.store.submit(number, batch);
            }
            while let Some(event) = self.store.poll() {
                self.late.push(event);
            }
            let Some(link) = self.hub.poll_dirty() else { break };
            self.hear(link);
        }
        while self.hub.poll_notice().is_some() {}
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Close(link) => {
                self.hear(link);
                if let Some(line) = self.lines.iter_mut().flatten().find(|l| l.link == link) {
                    line.closing = true;
                }
                for at in 0..LINKS {
                    if self.lines[at].as_ref().is_some_and(|l| l.link == link) {
                        self.end(at);
                    }
                }
            }
            Effect::Authenticate(link, request) => {
                self.waiting.push((link, request.exchange, request.method.is_some()));
            }
            Effect::Load(load) => self.store.load(load),
            Effect::Query(query) => self.store.query(query),
            Effect::Resume(link) => {
                let found = self.lines.iter().position(|l| l.as_ref().is_some_and(|l| l.link == link));
                if let Some(at) = found {
                    self.feed(at, &[]);
                }
            }
            Effect::Forget(exchange) => self.waiting.retain(|(_, e, _)| *e != exchange),
            Effect::Stored(_) | Effect::Replied(..) | Effect::Pair(_) | Effect::AccountMade { .. } => {}
        }
    }

    /// A client reads what it was sent, unless it is the last one: that one never reads.
    fn hear(&mut self, link: LinkId) {
        let Some(at) = self.lines.iter().position(|l| l.as_ref().is_some_and(|l| l.link == link)) else { return };
        if at == LINKS - 1 {
            return;
        }
        let out = self.hub.output(link).to_vec();
        self.hub.wrote(self.now, link, out.len());
        let Some(line) = &mut self.lines[at] else { return };
        line.heard.extend_from_slice(&out);
        let mut used = 0;
        while let Some(len) = frame_len(&line.heard[used..]).expect("the hub writes whole packets") {
            if used + len > line.heard.len() {
                break;
            }
            // A refusal of an unknown version is written in the version the client may understand.
            let read = [line.version, Version::V5, Version::V311]
                .into_iter()
                .find_map(|version| decode(&line.heard[used..used + len], version, u32::MAX).ok().flatten());
            assert!(read.is_some(), "the hub sent a malformed packet: {:02x?}", &line.heard[used..used + len]);
            used += len;
        }
        line.heard.drain(..used);
        assert!(line.heard.is_empty(), "the hub sent a part of a packet: {:02x?}", line.heard);
    }

    fn check(&self) {
        let (totals, l) = (self.hub.totals(), &self.limits);
        let packet = l.packet_bytes_max;
        assert!(totals.sessions <= 2 * l.connections_max.max(64) + l.sessions_max, "{totals:?}");
        assert!(totals.persistent_sessions <= l.sessions_max, "{totals:?}");
        assert!(totals.subscriptions <= l.subscriptions_max, "{totals:?}");
        // Three topics of `$SYS` and more are the broker's own and not counted against the clients' limit.
        assert!(totals.retained_bytes <= l.retained_bytes_max + 4_096, "{totals:?}");
        // Retained messages for new subscriptions wait in memory besides the limit.
        let each = l.queue_messages_max.max(l.memory_queue_messages_max) + 64;
        assert!(totals.queue_messages <= each * totals.sessions, "{totals:?}");
        assert!(totals.uncommitted_bytes <= l.commit_bytes_max + (LINKS as u64 + 1) * 8 * packet, "{totals:?}");
        for line in self.lines.iter().flatten() {
            let unsent = self.hub.output(line.link).len() as u64;
            assert!(unsent <= l.output_bytes_max + 4 * packet, "{unsent} bytes wait for one client");
        }
    }

    /// A well-behaved client comes in, subscribes, and hears itself.
    fn calm(&mut self) {
        for at in 0..LINKS {
            self.end(at);
        }
        for _ in 0..50 {
            self.settle();
            self.report();
        }
        self.open(0, true);
        assert!(self.lines[0].is_some(), "a newcomer is not let in although every connection has ended");
        self.feed(0, b"\x10\x0f\x00\x04MQTT\x04\x02\x00\x00\x00\x03new");
        let mut said = self.said();
        self.feed(0, b"\x82\x08\x00\x01\x00\x03new\x00");
        said.extend(self.said());
        self.feed(0, b"\x30\x05\x00\x03new");
        said.extend(self.said());
        assert!(said.starts_with(b"\x20\x02\x00\x00"), "a newcomer was answered {said:02x?}");
    }

    /// What the first link was sent, the disk being quick.
    fn said(&mut self) -> Vec<u8> {
        let mut said = vec![];
        for _ in 0..10 {
            if let Some(line) = &self.lines[0] {
                let link = line.link;
                let out = self.hub.output(link).to_vec();
                self.hub.wrote(self.now, link, out.len());
                said.extend(out);
            }
            while let Some(effect) = self.hub.poll_effect() {
                self.perform(effect);
            }
            if !self.outstanding
                && let Some((number, batch)) = self.hub.take_batch()
            {
                self.outstanding = true;
                self.store.submit(number, batch);
            }
            while let Some(event) = self.store.poll() {
                self.late.push(event);
            }
            self.report();
        }
        said
    }
}

/// A packet a client might send, with a byte changed now and then.
fn some_packet(input: &mut Input<'_>, version: Version, greeted: bool) -> Vec<u8> {
    // Mostly what may come now: a client that is thrown out at once shows little.
    let kind = match input.byte() {
        kind @ 250.. => kind % 12,
        kind if greeted => 1 + kind % 11,
        _ => 0,
    };
    let v5 = version == Version::V5;
    let id = match input.byte() {
        255 => [0, 0],
        id => [0, 1 + id % 6],
    };
    let topics: [&[u8]; 8] = [b"a", b"a/b", b"a/b/c/d/e/f/g", b"b", b"$SYS/x", b"+/b", b"#", b"$share/g/a"];
    let mut body = vec![];
    let field = |body: &mut Vec<u8>, bytes: &[u8]| {
        body.extend(u16::try_from(bytes.len()).unwrap_or(u16::MAX).to_be_bytes());
        body.extend(bytes);
    };
    let first = match kind {
        0 => {
            let legal = [0x00, 0x02, 0x00, 0x02, 0x06, 0x0C, 0x26, 0x34, 0xC0, 0xC2];
            let flags = input.byte();
            let flags = if flags >= 250 { flags } else { legal[usize::from(flags) % legal.len()] };
            let level = 4 + input.byte() % 2;
            field(&mut body, b"MQTT");
            body.extend([level, flags & 0xFE, 0, input.byte() % 30]);
            if level == 5 {
                properties(input, &mut body, &[0x11, 0x21, 0x22, 0x27, 0x17, 0x19, 0x15]);
            }
            field(&mut body, &[b'c', b'0' + input.byte() % 4]);
            if flags & 4 != 0 {
                if level == 5 {
                    properties(input, &mut body, &[0x18, 0x02, 0x01]);
                }
                field(&mut body, topics[usize::from(input.byte() % 4)]);
                field(&mut body, b"will");
            }
            if flags & 0x80 != 0 {
                field(&mut body, b"user");
            }
            if flags & 0x40 != 0 {
                field(&mut body, b"password");
            }
            0x10
        }
        1..=4 => {
            let flags = input.byte();
            let flags = if flags >= 250 { flags & 0x0F } else { [0, 2, 4, 1, 3, 5][usize::from(flags % 6)] };
            field(&mut body, topics[usize::from(input.byte()) * 5 / 256]);
            if flags & 6 != 0 {
                body.extend(id);
            }
            if v5 {
                properties(input, &mut body, &[0x01, 0x02, 0x03, 0x08, 0x09, 0x23, 0x26]);
            }
            let size = usize::from(input.byte());
            let size = if size >= 240 { size * 8 } else { size / 4 };
            body.resize(body.len() + size, b'p');
            0x30 | flags
        }
        5 | 6 => {
            body.extend(id);
            if v5 {
                properties(input, &mut body, &[0x0B]);
            }
            for _ in 0..=input.byte() % 3 {
                field(&mut body, topics[usize::from(input.byte() % 8)]);
                let options = input.byte();
                body.push(if options >= 250 {
                    options
                } else if v5 {
                    (options & 0x2C) | (options % 3)
                } else {
                    options % 3
                });
            }
            0x82
        }
        7 => {
            body.extend(id);
            if v5 {
                body.push(0);
            }
            field(&mut body, topics[usize::from(input.byte() % 8)]);
            0xA2
        }
        8..=10 => {
            body.extend(id);
            [0x40, 0x50, 0x62, 0x70][usize::from(input.byte() % 4)]
        }
        _ => {
            let which = [0xC0, 0xC0, 0xE0, 0xF0][usize::from(input.byte() % 4)];
            if v5 && which != 0xC0 {
                body.push(input.byte());
            }
            which
        }
    };
    let mut packet = vec![first];
    let mut len = body.len();
    loop {
        let low = u8::try_from(len & 0x7F).expect("seven bits");
        len >>= 7;
        packet.push(if len > 0 { low | 0x80 } else { low });
        if len == 0 {
            break;
        }
    }
    packet.extend(body);
    let change = input.byte();
    if change >= 0xFC {
        let at = usize::from(input.byte()) % packet.len();
        packet[at] ^= input.byte();
    }
    packet
}

/// Some of these properties, with values from the input.
fn properties(input: &mut Input<'_>, body: &mut Vec<u8>, ids: &[u8]) {
    let mut list = vec![];
    let wanted = input.byte();
    for (at, id) in ids.iter().enumerate() {
        if wanted & 1 << at == 0 {
            continue;
        }
        list.push(*id);
        match id {
            0x01 | 0x17 | 0x19 => list.push(input.byte() & 1),
            0x21..=0x23 => list.extend([0, 1 + input.byte() % 5]),
            0x0B => list.push(1 + input.byte() % 100),
            0x27 => list.extend([0, 0, input.byte() % 4, 200]),
            0x02 | 0x11 | 0x18 => list.extend([0, 0, 0, input.byte()]),
            0x26 => list.extend(b"\x00\x01k\x00\x01v"),
            _ => list.extend([0, 1, b'x']),
        }
    }
    body.push(u8::try_from(list.len()).expect("short"));
    body.extend(list);
}
