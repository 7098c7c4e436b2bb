//! The session: what to say next, what an answer means, and when to stop waiting. It is a state machine without input or
//! output: the runner gives it bytes and the time, and so does the simulator.
//!
//! Order of calls: [`Session::handle_connected`] when the transport is there; then [`Session::handle_bytes`] with what
//! has arrived, [`Session::handle_timeout`] when [`Session::poll_timeout`] is over, and after each of them
//! [`Session::poll_transmit`] until it gives 0; at the end [`Session::handle_disconnected`].

#[cfg(feature = "describe")]
mod describe;
#[cfg(feature = "pairing")]
mod pairing;
#[cfg(feature = "sleep")]
mod sleep;
#[cfg(test)]
#[cfg(all(feature = "mqtt", feature = "full"))]
mod tests;

use crate::backoff::Backoff;
use crate::error::{LinkError, Outcome, Refusal, Why};
#[cfg(feature = "sleep")]
use crate::shared::Sleep;
use crate::shared::{RECEIVE_MAX, Room, Shared, Status};
use crate::wire::Subscribe;
use crate::wire::{Hello, Incoming, Welcome, Wire};

/// How long the broker may take to let the device in, and to pair it.
const OPEN_MS: u64 = 20_000;

/// How long the broker may take to answer a ping: half of the keep alive, within these bounds.
const PONG_MS: (u32, u32) = (3_000, 20_000);

/// How long what is left may take to be sent before the device sleeps.
#[cfg(feature = "sleep")]
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
    #[cfg(any(feature = "sleep", feature = "pairing"))]
    Bye,
    /// It was sent.
    Over(LinkError),
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
    /// When something has to be heard at the latest,
    hear_by: u64,
    /// and something be said.
    say_by: u64,
    /// Something was said, and when there is no answer in time the connection is over.
    pinged: bool,
    ping_wanted: bool,
    /// Reading waits for the application.
    stalled: bool,
    keep_alive_ms: u32,
    welcome: Welcome,
    next_pid: u16,
    /// Something of the session's own that waits for an answer: a subscription, the description, how it sleeps. 0: there is none.
    own: u16,
    /// The next subscription; 0: what is Parlor's.
    step: u16,
    subscribed: bool,
    #[cfg(feature = "describe")]
    describe: describe::Stage,
    #[cfg(feature = "pairing")]
    pairing: pairing::Pairing,
    #[cfg(feature = "sleep")]
    sleep_since: Option<u64>,
    #[cfg(feature = "sleep")]
    sleep_told: bool,
    /// Nothing is sent before.
    hold_until: u64,
}

impl<W: Wire> Session<W> {
    /// `rx`: longest packet that can be received; `seed`: a random number.
    #[inline(never)]
    pub const fn new(wire: W, rx: usize, seed: u64) -> Self {
        Self {
            wire,
            rx,
            phase: Phase::Down,
            backoff: Backoff::new(seed),
            since: 0,
            hear_by: 0,
            say_by: 0,
            pinged: false,
            ping_wanted: false,
            stalled: false,
            keep_alive_ms: 0,
            welcome: Welcome { session_present: false, keep_alive_s: None, receive_max: 1, frame_max: 0 },
            next_pid: 1,
            own: 0,
            step: 0,
            subscribed: false,
            #[cfg(feature = "describe")]
            describe: describe::Stage::Wanted,
            #[cfg(feature = "pairing")]
            pairing: pairing::Pairing::NONE,
            #[cfg(feature = "sleep")]
            sleep_since: None,
            #[cfg(feature = "sleep")]
            sleep_told: false,
            hold_until: 0,
        }
    }

    /// The transport is there.
    pub fn handle_connected(&mut self, shared: &mut Shared, now: u64) {
        self.phase = Phase::Hello;
        self.hear_by = now + OPEN_MS;
        self.pinged = true;
        self.keep_alive_ms = 0;
        self.ping_wanted = false;
        self.stalled = false;
        self.own = 0;
        {
            self.step = 0;
        }
        #[cfg(feature = "pairing")]
        self.pairing.begin();
        #[cfg(feature = "sleep")]
        {
            self.sleep_told = false;
        }
        // A description that was half sent is sent once more.
        #[cfg(feature = "describe")]
        self.describe.begin();
        shared.set_status(Status::Connecting);
    }

    /// The transport is gone, or could not be made; returns how long to wait before the next attempt, milliseconds.
    pub fn handle_disconnected(&mut self, shared: &mut Shared, now: u64, why: LinkError) -> u32 {
        let lasted = match self.phase {
            Phase::Down | Phase::Hello | Phase::Opening => 0,
            _ => now.saturating_sub(self.since),
        };
        self.phase = Phase::Down;
        shared.disconnected(why);
        #[cfg(feature = "pairing")]
        if self.pairs() && why == LinkError::Closed && shared.pairing.paired.is_some() {
            // It goes on at once with what pairing has given.
            return 0;
        }
        let (min, max) = (shared.config().pause_min_ms, shared.config().pause_max_ms);
        self.backoff.pause_ms(min, max, lasted, why.is_final())
    }

    /// What the device says has to end the connection now, because everything was said.
    pub fn is_over(&self) -> Option<LinkError> {
        match self.phase {
            Phase::Over(why) => Some(why),
            _ => None,
        }
    }

    /// Whether this connection is only for pairing.
    #[cfg_attr(not(feature = "pairing"), allow(clippy::unused_self, reason = "it never is"))]
    const fn pairs(&self) -> bool {
        #[cfg(feature = "pairing")]
        return self.pairing.active;
        #[cfg(not(feature = "pairing"))]
        false
    }

    /// Whether an answer is one to something of the session's own.
    fn is_own(&self, pid: u16) -> bool {
        pid != 0 && pid == self.own
    }

    // ---- In ----------------------------------------------------------------------------------------------------

    /// Bytes have arrived: as many of them as are returned were used, and need not be given again. 0: more have to
    /// come, or the application has to take something first ([`Self::is_stalled`]). An error ends the connection.
    #[inline(never)]
    pub fn handle_bytes(&mut self, shared: &mut Shared, now: u64, bytes: &[u8]) -> Result<usize, LinkError> {
        let was_stalled = core::mem::take(&mut self.stalled);
        let mut used = 0;
        while let Some(rest) = bytes.get(used..) {
            let len = self.wire.whole(rest)?;
            let Some(packet) = rest.get(..len).filter(|packet| !packet.is_empty()) else { break };
            let Some(incoming) = self.wire.read(packet) else { return Err(LinkError::Protocol) };
            if !self.handle(shared, now, &incoming)? {
                self.stalled = true;
                break;
            }
            used += len;
        }
        // What waited for the application says nothing of the broker, until all of it is taken.
        if self.keep_alive_ms > 0 && !(was_stalled && self.stalled) {
            self.hear_by = now + u64::from(self.keep_alive_ms);
            self.pinged = false;
        }
        if used > 0 {
            shared.wake_runner();
        } else if !self.stalled && bytes.len() >= self.rx {
            return Err(LinkError::TooLarge);
        }
        Ok(used)
    }

    /// Whether bytes wait for the application to take something.
    pub fn is_stalled(&self) -> bool {
        self.stalled
    }

    /// Whether it could be used; `false`: there is no room for it yet.
    fn handle(&mut self, shared: &mut Shared, now: u64, incoming: &Incoming<'_>) -> Result<bool, LinkError> {
        match *incoming {
            #[cfg(feature = "pairing")]
            Incoming::Closed(LinkError::CredentialsRefused) if self.pairs() => return Err(LinkError::PairingCode),
            Incoming::Closed(why) => return Err(why),
            Incoming::Welcome(ref welcome) if self.phase == Phase::Opening => self.welcome(shared, now, welcome),
            Incoming::Welcome(_) => return Err(LinkError::Protocol),
            _ if self.phase == Phase::Opening => return Err(LinkError::Protocol),
            Incoming::Nothing => {}
            Incoming::Subscribed { pid, ok: _ } => {
                if self.is_own(pid) {
                    self.own = 0;
                    self.step = self.step.saturating_add(1);
                }
            }
            #[cfg(any(feature = "pairing", feature = "describe", feature = "sleep"))]
            Incoming::Done { pid, result } if self.is_own(pid) => self.own_done(shared, result)?,
            Incoming::Done { pid, result } => {
                if result.is_err_and(Refusal::is_passing) {
                    self.hold_until = now + HOLD_MS;
                }
                shared.answered(pid, result, self.wire.news_follow());
            }
            #[cfg(feature = "pairing")]
            Incoming::Delivery { pid, what: crate::wire::What::Paired(ref paired) } if self.pairs() => {
                self.pairing.paired(shared, pid, paired)?;
            }
            Incoming::Delivery { pid, ref what } => return Ok(shared.deliver(now, pid, what) == Room::Kept),
        }
        Ok(true)
    }

    fn welcome(&mut self, shared: &mut Shared, now: u64, welcome: &Welcome) {
        self.phase = Phase::Open;
        self.since = now;
        self.welcome = *welcome;
        if self.pairs() {
            self.hear_by = now + OPEN_MS;
            return;
        }
        let keep_alive_ms = u32::from(welcome.keep_alive_s.unwrap_or(shared.config().keep_alive_s)) * 1_000;
        self.keep_alive_ms = keep_alive_ms;
        self.pinged = false;
        self.hear_by = if keep_alive_ms > 0 { now + u64::from(keep_alive_ms) } else { u64::MAX };
        self.said(now);
        // What was subscribed in this start of the device is remembered with the session.
        {
            self.subscribed &= welcome.session_present;
            if self.subscribed {
                self.step = u16::MAX;
            }
        }
        shared.connected(welcome.session_present);
    }

    /// An answer to something of the session's own.
    #[cfg(any(feature = "pairing", feature = "describe", feature = "sleep"))]
    #[cfg_attr(not(feature = "pairing"), allow(clippy::unnecessary_wraps, reason = "only pairing ends with a refusal"))]
    fn own_done(&mut self, shared: &mut Shared, result: Result<u64, Refusal>) -> Result<(), LinkError> {
        self.own = 0;
        #[cfg(feature = "pairing")]
        if self.pairs() {
            return result.map(drop).map_err(|_| LinkError::PairingCode);
        }
        let (_, _) = (&shared, result);
        #[cfg(feature = "describe")]
        if self.describe.is_said() {
            return Ok(());
        }
        #[cfg(feature = "sleep")]
        if self.sleep_told {
            self.phase = Phase::Bye;
            shared.fell_asleep(true);
        }
        Ok(())
    }

    // ---- Time --------------------------------------------------------------------------------------------------

    /// When [`Self::handle_timeout`] is to be called at the latest.
    pub fn poll_timeout(&self, shared: &Shared) -> Option<u64> {
        let deadline = self.deadline(shared);
        if deadline == u64::MAX { None } else { Some(deadline) }
    }

    /// The same; the largest number: never.
    pub(crate) fn deadline(&self, shared: &Shared) -> u64 {
        let mut first = self.silence_at();
        if self.hold_until > 0 {
            first = first.min(self.hold_until);
        }
        #[cfg(feature = "sleep")]
        if let Sleep::Wanted { .. } = shared.sleep {
            first = first.min(self.sleep_since.map_or(0, |since| since + DRAIN_MS));
        }
        #[cfg(not(feature = "sleep"))]
        let _ = shared;
        first
    }

    /// When something has to be done because nothing was said or heard.
    fn silence_at(&self) -> u64 {
        match self.phase {
            // The answer to a ping may lie behind what the application does not take.
            Phase::Open if self.pinged && self.stalled => u64::MAX,
            Phase::Hello | Phase::Opening | Phase::Open if self.pinged => self.hear_by,
            Phase::Open => self.hear_by.min(self.say_by),
            _ => u64::MAX,
        }
    }

    /// Something is said in three quarters of the keep alive, and something is heard in all of it.
    fn said(&mut self, now: u64) {
        let wait = self.keep_alive_ms / 4 * 3;
        self.say_by = if wait > 0 { now + u64::from(wait) } else { u64::MAX };
    }

    /// Time has passed. An error ends the connection.
    pub fn handle_timeout(&mut self, shared: &mut Shared, now: u64) -> Result<(), LinkError> {
        if self.hold_until <= now {
            self.hold_until = 0;
        }
        #[cfg(feature = "sleep")]
        self.drain(shared, now);
        #[cfg(not(feature = "sleep"))]
        let _ = shared;
        if now >= self.silence_at() {
            if self.pinged {
                return Err(LinkError::Timeout);
            }
            self.ping_wanted = true;
        }
        Ok(())
    }

    // ---- Out ---------------------------------------------------------------------------------------------------

    /// Writes what is to be sent now to the front of `out`; 0: nothing.
    #[inline(never)]
    pub fn poll_transmit(&mut self, shared: &mut Shared, now: u64, out: &mut [u8]) -> usize {
        let mut used = 0;
        while let Some(room) = out.get_mut(used..) {
            match self.next(shared, now, room, used == 0) {
                Some(len) if len > 0 => used += len,
                _ => break,
            }
        }
        if used > 0 {
            self.said(now);
        }
        used
    }

    /// The next packet, or part of one. `None` or 0: nothing is to be sent, or it has no room behind what is there.
    fn next(&mut self, shared: &mut Shared, now: u64, out: &mut [u8], alone: bool) -> Option<usize> {
        match self.phase {
            Phase::Hello => return self.hello(shared, out),
            #[cfg(any(feature = "sleep", feature = "pairing"))]
            Phase::Bye => {
                let len = self.wire.bye(out)?;
                self.phase = Phase::Over(LinkError::Closed);
                return Some(len);
            }
            Phase::Open => {}
            _ => return None,
        }
        #[cfg(feature = "describe")]
        if let Some(len) = self.describe.more(shared.config(), out) {
            return Some(len);
        }
        #[cfg(feature = "pairing")]
        if self.pairs() {
            return self.pair(shared, out);
        }
        if let Some(pid) = shared.next_ack() {
            let len = self.wire.ack(pid, out)?;
            shared.acked();
            return Some(len);
        }
        if self.ping_wanted {
            let len = self.wire.ping(out)?;
            self.ping_wanted = false;
            self.pinged = true;
            self.hear_by = now + u64::from((self.keep_alive_ms / 2).clamp(PONG_MS.0, PONG_MS.1));
            // Who waits in the application for something that may be lost looks at the clock.
            shared.wake_app();
            return Some(len);
        }
        if self.own == 0
            && let Some(len) = self.own_next(shared, out)
        {
            return Some(len);
        }
        self.row(shared, out, alone)
    }

    fn hello(&mut self, shared: &mut Shared, out: &mut [u8]) -> Option<usize> {
        let config = shared.config();
        let Some((account, secret, pairs)) = shared.login() else {
            self.phase = Phase::Over(LinkError::NoCredentials);
            return None;
        };
        let hello = Hello {
            terminal: config.terminal,
            account,
            secret,
            keep_alive_s: config.keep_alive_s,
            expiry_s: config.session_expiry_s,
            frame_max: self.rx,
            receive_max: RECEIVE_MAX,
            clean: pairs,
            listen: if pairs { crate::config::Listen::OTHER_BROKER } else { config.listen },
            level: config.level,
            platform: config.platform,
            app: config.app,
        };
        let len = self.wire.hello(&hello, out);
        #[cfg(feature = "pairing")]
        {
            self.pairing.active = pairs;
        }
        self.phase = if len.is_some() { Phase::Opening } else { Phase::Over(LinkError::TooLarge) };
        len
    }

    fn pid(&mut self, shared: &mut Shared) -> u16 {
        loop {
            let pid = self.next_pid.max(1);
            self.next_pid = pid.wrapping_add(1);
            if self.own != pid && !shared.pid_in_use(pid) {
                return pid;
            }
        }
    }

    /// The next thing of the session's own: subscriptions, then the description, then that it sleeps. `None`: nothing;
    /// 0: it has no room now.
    fn own_next(&mut self, shared: &mut Shared, out: &mut [u8]) -> Option<usize> {
        {
            let topics = shared.config().topics();
            #[cfg(feature = "im")]
            let listen = shared.config().listen;
            while usize::from(self.step) <= topics.len() {
                let what = match usize::from(self.step).checked_sub(1).and_then(|at| topics.get(at)) {
                    #[cfg(feature = "topics")]
                    Some(topic) => Some(Subscribe::Topic(topic.filter, topic.qos)),
                    #[cfg(feature = "im")]
                    None if listen.im() => Some(Subscribe::Listen(listen)),
                    _ => None,
                };
                let len = match what {
                    Some(what) => {
                        let pid = self.pid(shared);
                        self.own = pid;
                        self.wire.subscribe(pid, what, out)
                    }
                    None => Some(0),
                };
                if len != Some(0) {
                    if len.is_none() {
                        self.own = 0;
                    }
                    return Some(len.unwrap_or(0));
                }
                self.own = 0;
                self.step += 1;
            }
            self.subscribed = true;
        }
        #[cfg(feature = "describe")]
        if let Some(len) = self.describe(shared, out) {
            return Some(len);
        }
        #[cfg(feature = "sleep")]
        return self.sleep(shared, out);
        #[cfg(not(feature = "sleep"))]
        None
    }

    fn row(&mut self, shared: &mut Shared, out: &mut [u8], alone: bool) -> Option<usize> {
        if self.hold_until > 0 {
            return None;
        }
        #[cfg(feature = "commands")]
        shared.say_outcomes();
        loop {
            let window = self.welcome.receive_max.min(WINDOW).saturating_sub(u16::from(self.own != 0)).max(1);
            let (at, head) = shared.next_ready()?;
            if shared.in_flight() >= window.into() {
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
