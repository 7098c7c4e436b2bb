//! The session: what to say next, what an answer means, and when to stop waiting. It is a state machine without input or
//! output: the runner gives it bytes and the time, and so does the simulator.
//!
//! Order of calls: [`Session::handle_connected`] when the transport is there; then [`Session::handle_bytes`] with what
//! has arrived, [`Session::handle_timeout`] when [`Session::poll_timeout`] is over, and after each of them
//! [`Session::poll_transmit`] until it gives 0; at the end [`Session::handle_disconnected`].

#[cfg(test)]
mod tests;

use crate::backoff::Backoff;
use crate::error::{LinkError, Outcome, Refusal, Why};
use crate::shared::{Paired, RECEIVE_MAX, Room, Shared, Sleep, Status};
use crate::wire::{Hello, Incoming, Subscribe, Welcome, What, Wire};
use heapless::String;

/// How long the broker may take to let the device in, and to pair it.
const OPEN_MS: u64 = 20_000;

/// How long the broker may take to answer a ping: half of the keep alive, within these bounds.
const PONG_MS: core::ops::RangeInclusive<u64> = 3_000..=20_000;

/// How long what is left may take to be sent before the device sleeps.
const DRAIN_MS: u64 = 10_000;

/// Things that are sent without waiting for the answer to the first of them, where the broker takes more.
const WINDOW: u16 = 16;

/// Pause after the broker said that the device is too fast.
const HOLD_MS: u64 = 2_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// There is no connection.
    Down,
    /// The first packet is to be sent.
    Hello,
    /// The answer to it is waited for.
    Opening,
    Open,
    /// The last packet is to be sent.
    Bye(LinkError),
    /// It was sent.
    Over(LinkError),
}

/// How far the description is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Describe {
    Wanted,
    /// The next byte to send: of which piece, and where in it.
    Sending {
        piece: usize,
        at: usize,
    },
    Done,
}

/// See the module.
#[derive(Debug)]
pub struct Session<W> {
    wire: W,
    /// Longest packet that can be received.
    rx: usize,
    phase: Phase,
    backoff: Backoff,
    /// When this phase began: the connection, or its opening.
    since: u64,
    last_in: u64,
    last_out: u64,
    pinged: Option<u64>,
    ping_wanted: bool,
    /// Reading waits for the application.
    stalled: bool,
    keep_alive_ms: u64,
    welcome: Welcome,
    next_pid: u16,
    /// Something of the session's own that waits for an answer: a subscription, the description, how it sleeps.
    own: Option<u16>,
    /// The next subscription; 0: what is Parlor's.
    step: usize,
    subscribed: bool,
    describe: Describe,
    pairing: bool,
    /// The packet with the credentials: acknowledged when they are kept.
    paired_pid: Option<u16>,
    pair_asked: bool,
    sleep_since: Option<u64>,
    sleep_told: bool,
    /// Nothing is sent before.
    hold_until: u64,
}

impl<W: Wire> Session<W> {
    /// `rx`: longest packet that can be received; `seed`: a random number.
    pub const fn new(wire: W, rx: usize, seed: u64) -> Self {
        Self {
            wire,
            rx,
            phase: Phase::Down,
            backoff: Backoff::new(seed),
            since: 0,
            last_in: 0,
            last_out: 0,
            pinged: None,
            ping_wanted: false,
            stalled: false,
            keep_alive_ms: 0,
            welcome: Welcome { session_present: false, keep_alive_s: None, receive_max: 1, frame_max: 0 },
            next_pid: 1,
            own: None,
            step: 0,
            subscribed: false,
            describe: Describe::Wanted,
            pairing: false,
            paired_pid: None,
            pair_asked: false,
            sleep_since: None,
            sleep_told: false,
            hold_until: 0,
        }
    }

    /// The transport is there.
    pub fn handle_connected(&mut self, shared: &mut Shared, now: u64) {
        self.phase = Phase::Hello;
        self.since = now;
        self.last_in = now;
        self.last_out = now;
        self.pinged = None;
        self.ping_wanted = false;
        self.stalled = false;
        self.own = None;
        self.step = 0;
        self.paired_pid = None;
        self.pair_asked = false;
        self.sleep_told = false;
        // A description that was half sent is sent once more.
        if self.describe != Describe::Done {
            self.describe = Describe::Wanted;
        }
        shared.set_status(Status::Connecting);
    }

    /// The transport is gone, or could not be made; returns how long to wait before the next attempt, milliseconds.
    pub fn handle_disconnected(&mut self, shared: &mut Shared, now: u64, why: LinkError) -> u32 {
        let was = self.phase;
        self.phase = Phase::Down;
        let lasted = if matches!(was, Phase::Open | Phase::Bye(_) | Phase::Over(_)) {
            now.saturating_sub(self.since)
        } else {
            0
        };
        shared.disconnected(why);
        let config = *shared.config();
        if self.pairing && why == LinkError::Closed && shared.paired.is_some() {
            // It goes on at once with what pairing has given.
            return 0;
        }
        self.backoff.pause_ms(config.pause_min_ms, config.pause_max_ms, lasted, why.is_final())
    }

    /// What the device says has to end the connection now, because everything was said.
    pub fn is_over(&self) -> Option<LinkError> {
        match self.phase {
            Phase::Over(why) => Some(why),
            _ => None,
        }
    }

    /// Whether there is a connection.
    pub fn is_down(&self) -> bool {
        self.phase == Phase::Down
    }

    // ---- In ----------------------------------------------------------------------------------------------------

    /// Bytes have arrived: as many of them as are returned were used, and need not be given again. 0: more have to
    /// come, or the application has to take something first ([`Self::is_stalled`]). An error ends the connection.
    pub fn handle_bytes(&mut self, shared: &mut Shared, now: u64, bytes: &[u8]) -> Result<usize, LinkError> {
        if !self.stalled {
            self.last_in = now;
            self.pinged = None;
        }
        self.stalled = false;
        let mut used = 0;
        while let Some(rest) = bytes.get(used..) {
            let Some((incoming, len)) = self.wire.decode(rest)? else { break };
            if !self.handle(shared, now, incoming)? {
                self.stalled = true;
                break;
            }
            used += len;
        }
        if used == 0 && !self.stalled && bytes.len() >= self.rx {
            return Err(LinkError::TooLarge);
        }
        shared.wake_runner();
        Ok(used)
    }

    /// Whether bytes wait for the application to take something.
    pub fn is_stalled(&self) -> bool {
        self.stalled
    }

    /// Whether it could be used; `false`: there is no room for it yet.
    fn handle(&mut self, shared: &mut Shared, now: u64, incoming: Incoming<'_>) -> Result<bool, LinkError> {
        match (self.phase, incoming) {
            (Phase::Opening, Incoming::Welcome(welcome)) => self.welcome(shared, now, welcome),
            (_, Incoming::Closed(LinkError::CredentialsRefused)) if self.pairing => return Err(LinkError::PairingCode),
            (_, Incoming::Closed(why)) => return Err(why),
            (Phase::Opening, _) | (_, Incoming::Welcome(_)) => return Err(LinkError::Protocol),
            (_, Incoming::Nothing) => {}
            (_, Incoming::Subscribed { pid, ok: _ }) if self.own == Some(pid) => {
                self.own = None;
                self.step += 1;
            }
            (_, Incoming::Done { pid, result }) if self.own == Some(pid) => self.own_done(shared, result)?,
            (_, Incoming::Done { pid, result }) => {
                if result.is_err_and(Refusal::is_passing) {
                    self.hold_until = now + HOLD_MS;
                }
                shared.answered(pid, result, self.wire.news_follow());
            }
            (_, Incoming::Delivery { pid, what: What::Paired { account, password, owner, household } })
                if self.pairing =>
            {
                let paired = Paired {
                    account: string(account)?,
                    password: string(password)?,
                    owner: string(owner)?,
                    household: string(household)?,
                };
                self.paired_pid = Some(pid);
                shared.set_paired(paired);
            }
            (_, Incoming::Delivery { pid, what }) => return Ok(shared.deliver(now, pid, &what) == Room::Kept),
            (_, Incoming::Subscribed { .. }) => {}
        }
        Ok(true)
    }

    fn welcome(&mut self, shared: &mut Shared, now: u64, welcome: Welcome) {
        self.phase = Phase::Open;
        self.since = now;
        self.welcome = welcome;
        self.keep_alive_ms = u64::from(welcome.keep_alive_s.unwrap_or(shared.config().keep_alive_s)) * 1_000;
        // What was subscribed in this start of the device is remembered with the session.
        if welcome.session_present && self.subscribed && !self.pairing {
            self.step = usize::MAX;
        }
        self.subscribed = !self.pairing && welcome.session_present && self.subscribed;
        if self.pairing {
            return;
        }
        shared.connected(welcome.session_present);
    }

    /// An answer to something of the session's own.
    fn own_done(&mut self, shared: &mut Shared, result: Result<u64, Refusal>) -> Result<(), LinkError> {
        self.own = None;
        if self.pairing {
            return result.map(drop).map_err(|_| LinkError::PairingCode);
        }
        match self.describe {
            Describe::Sending { .. } => self.describe = Describe::Done,
            _ if self.sleep_told => {
                self.phase = Phase::Bye(LinkError::Closed);
                shared.fell_asleep(true);
            }
            _ => {}
        }
        Ok(())
    }

    // ---- Time --------------------------------------------------------------------------------------------------

    /// When [`Self::handle_timeout`] is to be called at the latest.
    pub fn poll_timeout(&self, shared: &Shared) -> Option<u64> {
        let phase = match self.phase {
            Phase::Hello | Phase::Opening => Some(self.since + OPEN_MS),
            Phase::Open if self.pairing => Some(self.since + OPEN_MS),
            Phase::Open if self.keep_alive_ms > 0 => Some(match self.pinged {
                Some(pinged) => pinged + self.pong_ms(),
                None => self.ping_at(),
            }),
            _ => None,
        };
        let sleep = match (shared.sleep, self.sleep_since) {
            (Sleep::Wanted { .. }, Some(since)) => Some(since + DRAIN_MS),
            (Sleep::Wanted { .. }, None) => Some(0),
            _ => None,
        };
        let hold = (self.hold_until > 0).then_some(self.hold_until);
        [phase, sleep, hold].into_iter().flatten().min()
    }

    fn ping_at(&self) -> u64 {
        // Something is said in three quarters of the keep alive, and something is heard in all of it.
        (self.last_out + self.keep_alive_ms / 4 * 3).min(self.last_in + self.keep_alive_ms)
    }

    fn pong_ms(&self) -> u64 {
        (self.keep_alive_ms / 2).clamp(*PONG_MS.start(), *PONG_MS.end())
    }

    /// Time has passed. An error ends the connection.
    pub fn handle_timeout(&mut self, shared: &mut Shared, now: u64) -> Result<(), LinkError> {
        if self.hold_until <= now {
            self.hold_until = 0;
        }
        if let Sleep::Wanted { .. } = shared.sleep {
            let since = *self.sleep_since.get_or_insert(now);
            if now >= since + DRAIN_MS {
                shared.fell_asleep(false);
                if self.phase == Phase::Open {
                    self.phase = Phase::Bye(LinkError::Closed);
                }
            }
        } else {
            self.sleep_since = None;
        }
        match self.phase {
            Phase::Hello | Phase::Opening if now >= self.since + OPEN_MS => return Err(LinkError::Timeout),
            Phase::Open if self.pairing && now >= self.since + OPEN_MS => return Err(LinkError::Timeout),
            Phase::Open if self.keep_alive_ms > 0 => match self.pinged {
                // The answer may lie behind what the application does not take.
                Some(pinged) if now >= pinged + self.pong_ms() && !self.stalled => return Err(LinkError::Timeout),
                Some(_) => {}
                None => self.ping_wanted |= now >= self.ping_at(),
            },
            _ => {}
        }
        Ok(())
    }

    // ---- Out ---------------------------------------------------------------------------------------------------

    /// Writes what is to be sent now to the front of `out`; 0: nothing.
    pub fn poll_transmit(&mut self, shared: &mut Shared, now: u64, out: &mut [u8]) -> usize {
        let mut used = 0;
        while let Some(room) = out.get_mut(used..) {
            match self.next(shared, now, room, used == 0) {
                Some(len) if len > 0 => used += len,
                _ => break,
            }
        }
        if used > 0 {
            self.last_out = now;
        }
        used
    }

    /// The next packet, or part of one. `None`: nothing is to be sent, or it has no room behind what is there.
    fn next(&mut self, shared: &mut Shared, now: u64, out: &mut [u8], alone: bool) -> Option<usize> {
        match self.phase {
            Phase::Hello => return self.hello(shared, out),
            Phase::Bye(why) => {
                let len = self.wire.bye(out)?;
                self.phase = Phase::Over(why);
                return Some(len);
            }
            Phase::Open => {}
            _ => return None,
        }
        if let Describe::Sending { piece, at } = self.describe
            && piece < shared.config().describe.pieces().len()
        {
            return Some(self.describe_more(shared, piece, at, out));
        }
        if self.pairing {
            return self.pair(shared, out);
        }
        if let Some(pid) = shared.acks.front().copied() {
            let len = self.wire.ack(pid, out)?;
            shared.acks.pop_front();
            shared.acknowledge();
            return Some(len);
        }
        if self.ping_wanted {
            let len = self.wire.ping(out)?;
            self.ping_wanted = false;
            self.pinged = Some(now);
            // Who waits in the application for something that may be lost looks at the clock.
            shared.wake_app();
            return Some(len);
        }
        if self.own.is_none()
            && let Some(len) = self.own_next(shared, out)
        {
            return (len > 0).then_some(len);
        }
        self.row(shared, out, alone)
    }

    fn hello(&mut self, shared: &mut Shared, out: &mut [u8]) -> Option<usize> {
        let config = *shared.config();
        let frame_max = self.rx;
        let Some((account, secret, pairing)) = shared.login() else {
            self.phase = Phase::Over(LinkError::NoCredentials);
            return None;
        };
        let hello = Hello {
            terminal: config.terminal,
            account,
            secret,
            keep_alive_s: config.keep_alive_s,
            expiry_s: config.session_expiry_s,
            frame_max,
            receive_max: RECEIVE_MAX,
            clean: pairing,
            listen: if pairing { crate::config::Listen::OTHER_BROKER } else { config.listen },
            level: config.level,
            platform: config.platform,
            app: config.app,
        };
        let len = self.wire.hello(&hello, out);
        self.pairing = pairing;
        self.phase = if len.is_some() { Phase::Opening } else { Phase::Over(LinkError::TooLarge) };
        len
    }

    fn pid(&mut self, shared: &mut Shared) -> u16 {
        loop {
            let pid = self.next_pid.max(1);
            self.next_pid = pid.wrapping_add(1);
            if self.own != Some(pid) && !shared.pid_in_use(pid) {
                return pid;
            }
        }
    }

    fn pair(&mut self, shared: &mut Shared, out: &mut [u8]) -> Option<usize> {
        if let Some(pid) = self.paired_pid {
            if !shared.paired_is_kept() {
                return None;
            }
            let len = if pid == 0 { self.wire.ping(out)? } else { self.wire.ack(pid, out)? };
            self.paired_pid = None;
            self.phase = Phase::Bye(LinkError::Closed);
            return Some(len);
        }
        if self.own.is_some() || self.pair_asked {
            return None;
        }
        let pid = self.pid(shared);
        if self.step == 0 {
            match self.wire.subscribe(pid, Subscribe::Paired, out)? {
                0 => self.step = 1,
                len => {
                    self.own = Some(pid);
                    return Some(len);
                }
            }
        }
        let len = self.wire.pair(pid, shared.wanted_name(), out)?;
        self.own = Some(pid);
        self.pair_asked = true;
        Some(len)
    }

    /// The next thing of the session's own: subscriptions, then the description, then that it sleeps. `None`: nothing;
    /// 0: it has no room now.
    fn own_next(&mut self, shared: &mut Shared, out: &mut [u8]) -> Option<usize> {
        let config = *shared.config();
        while self.step <= config.subscribe.len() {
            let what = match self.step.checked_sub(1).and_then(|at| config.subscribe.get(at)) {
                Some(topic) => Subscribe::Topic(topic.filter, topic.qos),
                None if config.listen.im() => Subscribe::Listen(config.listen),
                None => {
                    self.step += 1;
                    continue;
                }
            };
            let pid = self.pid(shared);
            match self.wire.subscribe(pid, what, out) {
                Some(0) => self.step += 1,
                Some(len) => {
                    self.own = Some(pid);
                    return Some(len);
                }
                None => return Some(0),
            }
        }
        self.subscribed = true;
        if self.describe == Describe::Wanted && config.listen.im() && !config.describe.is_empty() {
            let pid = self.pid(shared);
            let len = config.describe.pieces().iter().map(|piece| piece.len()).sum();
            let Some(head) = self.wire.describe(pid, len, out) else { return Some(0) };
            if head + len > self.welcome.frame_max {
                self.describe = Describe::Done;
                return None;
            }
            self.own = Some(pid);
            self.describe = Describe::Sending { piece: 0, at: 0 };
            return Some(head);
        }
        self.sleep(shared, out)
    }

    fn sleep(&mut self, shared: &mut Shared, out: &mut [u8]) -> Option<usize> {
        let Sleep::Wanted { for_s } = shared.sleep else { return None };
        if self.sleep_told || shared.unsent() > 0 || !shared.flash_is_idle() {
            return None;
        }
        if !shared.config().listen.im() {
            self.phase = Phase::Bye(LinkError::Closed);
            shared.fell_asleep(true);
            return self.wire.bye(out).inspect(|_| self.phase = Phase::Over(LinkError::Closed));
        }
        let pid = self.pid(shared);
        let Some(len) = self.wire.asleep(pid, for_s, out) else { return Some(0) };
        self.own = Some(pid);
        self.sleep_told = true;
        Some(len)
    }

    fn describe_more(&mut self, shared: &Shared, piece: usize, at: usize, out: &mut [u8]) -> usize {
        let pieces = shared.config().describe.pieces();
        let (mut piece, mut at) = (piece, at);
        let mut used = 0;
        while let Some(text) = pieces.get(piece) {
            let rest = text.as_bytes().get(at..).unwrap_or(&[]);
            let room = out.get_mut(used..).unwrap_or(&mut []);
            let len = rest.len().min(room.len());
            if let (Some(to), Some(from)) = (room.get_mut(..len), rest.get(..len)) {
                to.copy_from_slice(from);
            }
            used += len;
            at += len;
            if len < rest.len() {
                break;
            }
            piece += 1;
            at = 0;
        }
        self.describe = Describe::Sending { piece, at };
        used
    }

    fn row(&mut self, shared: &mut Shared, out: &mut [u8], alone: bool) -> Option<usize> {
        if self.hold_until > 0 {
            return None;
        }
        shared.say_outcomes();
        loop {
            let window = self.welcome.receive_max.min(WINDOW).saturating_sub(u16::from(self.own.is_some()));
            let (at, head) = shared.next_ready()?;
            if shared.in_flight() >= window.max(1) {
                return None;
            }
            let pid = if head.pid == 0 { self.pid(shared) } else { head.pid };
            let wire = &self.wire;
            let len = shared.with_item(at, head, |item| wire.item(item, pid, head.pid != 0, out));
            match len {
                Some(len) if len <= self.welcome.frame_max => {
                    shared.sent(at, head, pid);
                    return Some(len);
                }
                None if !alone => return None,
                // It fits nowhere.
                _ => shared.finish(at, head, Outcome::Lost(Why::TooLarge)),
            }
        }
    }
}

fn string<const N: usize>(text: crate::json::Text<'_>) -> Result<String<N>, LinkError> {
    let mut bytes = [0; 64];
    let len = text.copy_to(&mut bytes).ok_or(LinkError::TooLarge)?;
    let text = crate::bytes::text(bytes.get(..len).unwrap_or(&[]));
    String::try_from(text).map_err(|_| LinkError::TooLarge)
}
