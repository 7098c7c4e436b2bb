//! Random legal frames from a seed. Strings live as long as the test.

use parlor_protocol::link::{Announcement, Body, Code, CommandState, Down, Frame, Message, PresenceState, Secret, Up};

/// splitmix64.
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).unwrap()
    }

    pub fn byte(&mut self) -> u8 {
        self.next().to_be_bytes()[0]
    }

    pub fn coin(&mut self) -> bool {
        self.next() & 1 == 1
    }

    /// Of any length of the wire's integers.
    fn int(&mut self) -> u64 {
        self.next() >> self.below(64)
    }

    fn u32(&mut self) -> u32 {
        u32::try_from(self.next() >> 32).unwrap() >> self.below(32)
    }

    fn u16(&mut self) -> u16 {
        u16::from_be_bytes([self.byte(), self.byte()]) >> self.below(16)
    }

    /// Never 0.
    fn id(&mut self) -> u16 {
        self.u16().max(1)
    }

    fn some(&mut self) -> Option<u64> {
        self.coin().then(|| self.int())
    }

    fn len(&mut self) -> usize {
        match self.below(8) {
            0 => 0,
            1 => 100 + self.below(60),
            2 => self.below(600),
            _ => self.below(24),
        }
    }

    pub fn bytes(&mut self) -> &'static [u8] {
        let len = self.len();
        (0..len).map(|_| self.byte()).collect::<Vec<_>>().leak()
    }

    /// Any characters but U+0000.
    fn text(&mut self) -> &'static str {
        let rare = ['é', '\u{FEFF}', '\u{800}', '\u{FFFF}', '\u{2A6D4}', '\u{10FFFF}', '\u{1}', '+', '#', '/', '"'];
        let len = self.len();
        let text: String = (0..len)
            .map(
                |_| if self.below(8) == 0 { rare[self.below(rare.len())] } else { char::from(b'a' + self.byte() % 26) },
            )
            .collect();
        text.leak()
    }

    /// One level of a topic.
    fn name(&mut self) -> &'static str {
        let name = self.text().replace(['+', '#', '/'], "-");
        if name.is_empty() { "x" } else { name.leak() }
    }

    fn topic(&mut self) -> &'static str {
        let topic = self.text().replace(['+', '#'], "/");
        if topic.is_empty() { "/" } else { topic.leak() }
    }

    fn body(&mut self) -> Body<'static> {
        match self.below(4) {
            0 => Body::Text(self.text()),
            1 => Body::Json(self.text()),
            2 => Body::Bytes(self.bytes()),
            _ => Body::Both { text: self.text(), json: self.text() },
        }
    }

    fn announcement(&mut self) -> Option<Announcement> {
        self.coin().then(|| Announcement { entry: self.int(), change: self.int(), version: self.int() })
    }

    fn message(&mut self) -> Message<'static> {
        Message {
            seq: self.int(),
            pos: self.int(),
            prev: self.int(),
            from: self.text(),
            ts: self.int(),
            id: self.text(),
            kind: self.text(),
            re: self.some(),
            level: self.u32(),
            edited: self.int(),
            left_ms: self.some(),
            flags: self.byte(),
            body: self.body(),
            announcement: self.announcement(),
        }
    }
}

/// A legal frame of this variant.
pub fn up(r: &mut Rng, tag: u32) -> Up<'static> {
    match tag {
        0 => Up::Hello {
            level: r.u32(),
            schema: r.next(),
            account: r.text(),
            secret: Secret(r.bytes()),
            terminal: r.text(),
            keep_alive_s: r.u16(),
            expiry_s: r.u32(),
            receive_max: r.id(),
            frame_max: r.u16(),
            clean: r.coin(),
            wants: r.u16(),
            core_level: r.u32(),
            platform: r.text(),
            app: r.text(),
        },
        1 => Up::Ping {},
        2 => Up::Bye { will: r.coin() },
        3 => Up::Send {
            packet_id: r.id(),
            to: r.name(),
            id: r.text(),
            kind: r.text(),
            ttl_s: r.u32(),
            re: r.some(),
            quiet: r.coin(),
            level: r.u32(),
            fallback: r.text(),
            body: r.body(),
        },
        4 => Up::Ack { packet_id: r.id() },
        5 => Up::Receipt { packet_id: r.u16(), to: r.name(), recv: r.int(), read: r.int() },
        6 => Up::Recall { packet_id: r.id(), to: r.name(), seq: r.int() },
        7 => Up::Edit {
            packet_id: r.id(),
            to: r.name(),
            seq: r.int(),
            kind: r.text(),
            re: r.some(),
            level: r.u32(),
            fallback: r.text(),
            body: r.body(),
        },
        8 => Up::Typing { to: r.name(), on: r.coin() },
        9 => Up::Stream { to: r.name(), name: r.name(), payload: r.bytes() },
        10 => Up::Telemetry { topic: r.topic(), payload: r.bytes() },
        11 => Up::Command {
            packet_id: r.id(),
            to: r.name(),
            name: r.name(),
            id: r.text(),
            args: r.text(),
            deadline_ms: r.u32(),
            persist: r.coin(),
            once: r.coin(),
        },
        12 => Up::CancelCommand { packet_id: r.id(), to: r.name(), id: r.name() },
        13 => Up::CommandState {
            packet_id: r.id(),
            id: r.name(),
            state: CommandState::of(r.byte()),
            result: r.text(),
            text: r.text(),
        },
        14 => Up::Reported { packet_id: r.u16(), patch: r.text() },
        15 => Up::Desired { packet_id: r.u16(), to: r.name(), patch: r.text() },
        16 => Up::Describe { packet_id: r.u16(), json: r.text() },
        17 => Up::Status { packet_id: r.u16(), state: PresenceState::of(r.byte()), for_s: r.u32() },
        18 => Up::Sync { packet_id: r.u16(), id: r.text(), after: r.some(), max: r.u16() },
        19 => Up::Synced { packet_id: r.u16(), pos: r.int() },
        20 => Up::History {
            packet_id: r.u16(),
            id: r.text(),
            with: r.text(),
            before: r.some(),
            after: r.some(),
            since: r.some(),
            until: r.some(),
            max: r.u16(),
        },
        21 => Up::Request { packet_id: r.u16(), path: r.topic(), payload: r.bytes() },
        22 => Up::Subscribe { packet_id: r.id(), filter: r.name(), options: [0, 1, 5, 0x2D][r.below(4)] },
        23 => Up::Unsubscribe { packet_id: r.id(), filter: r.name() },
        24 => Up::Publish {
            packet_id: r.u16(),
            retain: r.coin(),
            topic: r.topic(),
            properties: [&b""[..], b"\x01\x01", b"\x26\x00\x01a\x00\x01b"][r.below(3)],
            payload: r.bytes(),
        },
        _ => panic!("there is no {tag}"),
    }
}

/// A legal frame of this variant.
pub fn down(r: &mut Rng, tag: u32) -> Down<'static> {
    let (packet_id, dup) = (r.u16(), r.coin());
    match tag {
        0 => Down::Welcome {
            level: r.u32(),
            schema: r.next(),
            account: r.text(),
            terminal: r.text(),
            session_present: r.coin(),
            keep_alive_s: r.u16(),
            expiry_s: r.u32(),
            frame_max: r.u16(),
            receive_max: r.u16(),
            server_ms: r.int(),
        },
        1 => Down::Pong {},
        2 => Down::Close { code: r.byte(), text: r.text() },
        3 => Down::Accepted { packet_id: r.id(), seq: r.int(), dup },
        4 => Down::Refused { packet_id: r.id(), code: Code::of(r.byte()), text: r.text() },
        5 => Down::Deliver { packet_id, dup, address: r.text(), message: r.message() },
        6 => Down::Sent { packet_id, dup, to: r.text(), message: r.message() },
        7 => Down::Receipt {
            packet_id,
            dup,
            address: r.text(),
            pos: r.int(),
            seq: r.int(),
            recv: r.int(),
            read: r.int(),
            by: r.text(),
            of: r.coin().then(|| r.u32()),
            own_unread: r.coin().then(|| r.u32()),
        },
        8 => Down::Recall {
            packet_id,
            dup,
            address: r.text(),
            pos: r.int(),
            seq: r.int(),
            by: r.text(),
            ts: r.int(),
            announcement: r.announcement(),
        },
        9 => Down::Edit { packet_id, dup, address: r.text(), by: r.text(), message: r.message() },
        10 => Down::Contact {
            packet_id,
            dup,
            address: r.text(),
            pos: r.int(),
            op: r.text(),
            text: r.text(),
            ts: r.int(),
            own: r.coin(),
        },
        11 => Down::Typing { address: r.text(), from: r.text(), on: r.coin() },
        12 => Down::Stream { address: r.text(), name: r.text(), payload: r.bytes() },
        13 => Down::Bounce {
            packet_id,
            dup,
            address: r.text(),
            pos: r.int(),
            seq: r.int(),
            re: r.text(),
            id: r.text(),
            code: Code::of(r.byte()),
            text: r.text(),
        },
        14 => Down::Gap { packet_id, dup, from: r.int(), to: r.int(), why: r.text() },
        15 => Down::Head { packet_id, dup, pos: r.int(), floor: r.int(), unread: r.int(), by: r.text() },
        16 => Down::Conversation { packet_id, dup, address: r.text(), json: r.text() },
        17 => Down::Command {
            packet_id,
            dup,
            id: r.text(),
            name: r.text(),
            from: r.text(),
            args: r.text(),
            left_ms: r.int(),
            once: r.coin(),
        },
        18 => Down::CommandResult {
            packet_id,
            dup,
            id: r.text(),
            pos: r.int(),
            device: r.text(),
            name: r.text(),
            state: CommandState::of(r.byte()),
            result: r.text(),
            text: r.text(),
            ts: r.int(),
        },
        19 => Down::Presence {
            packet_id,
            dup,
            address: r.text(),
            state: PresenceState::of(r.byte()),
            since: r.int(),
            seen: r.int(),
            terminals: r.u32(),
            until: r.int(),
            epoch: r.int(),
        },
        20 => Down::State {
            packet_id,
            dup,
            device: r.text(),
            version: r.int(),
            reported: r.text(),
            desired: r.text(),
            by: r.text(),
            ts: r.int(),
        },
        21 => Down::Delta { packet_id, dup, version: r.int(), desired: r.text() },
        22 => Down::Error { packet_id, dup, re: r.text(), id: r.text(), code: Code::of(r.byte()), text: r.text() },
        23 => Down::SyncPage {
            packet_id,
            id: r.text(),
            pos: r.int(),
            head: r.int(),
            floor: r.int(),
            more: r.coin(),
            count: r.u16(),
        },
        24 => {
            Down::HistoryPage { packet_id, id: r.text(), with: r.text(), more: r.coin(), next: r.int(), count: r.u16() }
        }
        25 => Down::Answer { packet_id, dup, topic: r.text(), re: r.text(), id: r.text(), json: r.text() },
        26 => Down::Publish {
            packet_id,
            dup,
            retain: r.coin(),
            topic: r.topic(),
            properties: [&b""[..], b"\x01\x01", b"\x26\x00\x01a\x00\x01b"][r.below(3)],
            payload: r.bytes(),
        },
        27 => Down::Subscribed { packet_id: r.id(), code: r.byte() },
        28 => Down::Unknown { tag: r.u32() },
        29 => Down::Unsubscribed { packet_id: r.id(), code: r.byte() },
        30 => Down::CommandCanceled { packet_id, dup, id: r.text() },
        31 => Down::Omitted { address: r.text(), seq: r.int(), pos: r.int(), bytes: r.int() },
        _ => panic!("there is no {tag}"),
    }
}

pub fn any_up(rng: &mut Rng) -> Up<'static> {
    let tag = rng.below(Up::COUNT as usize);
    up(rng, u32::try_from(tag).unwrap())
}

pub fn any_down(rng: &mut Rng) -> Down<'static> {
    let tag = rng.below(Down::COUNT as usize);
    down(rng, u32::try_from(tag).unwrap())
}
