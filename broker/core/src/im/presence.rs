//! Presence: who is there, from the connections alone.
//!
//! What others are told follows from how many connections an account has, and from what it said last (`me/status`).
//! The end of the last connection is told when nobody has come back within the grace, so that a take-over and a short
//! loss are seen by nobody.

use super::model::AccountNo;
use super::online::Class;
use super::{Done, Im, ImTimer, Origin, Refusal, Verdict, number, object, text};
use crate::hub::Now;

/// A sleep is looked at this often at least, so that timers of sleeps that ended early do not pile up.
const LOOK_MS: u64 = 3_600_000;

/// What others see of an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Shown {
    Online,
    Away,
    Asleep,
    #[default]
    Offline,
}

impl Shown {
    fn text(self) -> &'static str {
        match self {
            Self::Online => "online",
            Self::Away => "away",
            Self::Asleep => "asleep",
            Self::Offline => "offline",
        }
    }
}

/// Until when an account said it sleeps.
#[derive(Debug, Clone, Copy)]
struct Sleep {
    /// By the clock that only moves forward.
    until_ms: u64,
    until_wall_ms: u64,
}

/// What is known of an account's presence.
#[derive(Debug, Default)]
pub(crate) struct PresenceState {
    /// Connections of the account, whatever they do.
    pub(crate) connected: u32,
    shown: Shown,
    /// Since when that is so, milliseconds since 1970; 0: since before the broker started.
    since_ms: u64,
    /// When a connection of it last came, went, or said something of itself; milliseconds since 1970.
    seen_ms: u64,
    /// The latest word of any of its terminals.
    away: bool,
    sleep: Option<Sleep>,
    /// When the last connection's end is told.
    grace_ms: u64,
    /// The next time that a timer is set to.
    armed_ms: Option<u64>,
}

impl PresenceState {
    /// What is to be shown now.
    fn look(&self, now_ms: u64) -> Shown {
        let is_asleep = self.sleep.is_some_and(|sleep| now_ms < sleep.until_ms);
        match self.connected {
            0 if is_asleep => Shown::Asleep,
            // Nothing changes while it may come back.
            0 if self.shown != Shown::Asleep && now_ms < self.grace_ms => self.shown,
            0 => Shown::Offline,
            _ if self.away => Shown::Away,
            _ => Shown::Online,
        }
    }

    fn show(&mut self, now: Now, shown: Shown) {
        self.since_ms = match (self.shown, shown) {
            // It has been gone for the time of the grace.
            (Shown::Online | Shown::Away, Shown::Offline) => self.seen_ms,
            _ => now.wall_ms,
        };
        self.shown = shown;
    }

    /// When it is to be looked at again.
    fn due_ms(&self, now_ms: u64) -> Option<u64> {
        match (self.connected, self.shown) {
            (0, Shown::Offline) | (1.., _) => None,
            (0, Shown::Asleep) => self.sleep.map(|sleep| sleep.until_ms.min(now_ms + LOOK_MS)),
            (0, _) => Some(self.grace_ms),
        }
    }
}

impl Im {
    /// A connection of the account was accepted (whatever it does).
    pub(crate) fn connected(&mut self, now: Now, account: AccountNo) {
        let Some(a) = self.dir.accounts.get_mut(account.at()) else { return };
        let presence = &mut a.presence;
        presence.connected = presence.connected.saturating_add(1);
        presence.seen_ms = now.wall_ms;
        if presence.connected == 1 {
            // It is awake, and away no more unless it was gone only for a moment.
            presence.sleep = None;
            presence.away &= presence.shown == Shown::Away;
        }
        self.look_at_presence(now, account);
    }

    /// A connection of the account is gone.
    pub(crate) fn disconnected(&mut self, now: Now, account: AccountNo) {
        let grace_ms = now.ms.saturating_add(self.limits.im_presence_grace_secs * 1_000);
        let Some(a) = self.dir.accounts.get_mut(account.at()) else { return };
        let presence = &mut a.presence;
        presence.connected = presence.connected.saturating_sub(1);
        presence.seen_ms = now.wall_ms;
        presence.grace_ms = grace_ms;
        self.look_at_presence(now, account);
    }

    /// `me/status`: what presence shows besides the connection.
    pub(super) fn on_status(&mut self, now: Now, origin: &Origin<'_>, payload: &[u8]) -> Result<Verdict, Refusal> {
        // A word alone will do, for a client that is typed by hand.
        let word = core::str::from_utf8(payload).unwrap_or_default().trim();
        let (state, for_s) = if word.starts_with('{') {
            let object = object(payload)?;
            let state = text(&object, "state")?.ok_or_else(|| Refusal::bad("\"state\" is missing"))?;
            (state.to_owned(), number(&object, "for_s")?)
        } else {
            (word.trim_matches('"').to_owned(), None)
        };
        let most_s = self.limits.im_asleep_max_secs;
        let Some(a) = self.dir.accounts.get_mut(origin.account.at()) else { return Ok(Verdict::Done(Done::quietly())) };
        let presence = &mut a.presence;
        match (state.as_str(), for_s) {
            ("online", None) => (presence.away, presence.sleep) = (false, None),
            ("away", None) => (presence.away, presence.sleep) = (true, None),
            ("asleep", Some(for_s)) if (1..=most_s).contains(&for_s) => {
                let until = |from_ms: u64| from_ms.saturating_add(for_s * 1_000);
                presence.sleep = Some(Sleep { until_ms: until(now.ms), until_wall_ms: until(now.wall_ms) });
            }
            ("asleep", _) => {
                return Err(Refusal::bad(format!(
                    "\"asleep\" goes with \"for_s\" of 1 to {most_s} (limits.im_asleep_max_secs)"
                )));
            }
            _ => return Err(Refusal::bad("\"state\" is neither online, away, nor asleep with for_s")),
        }
        presence.seen_ms = now.wall_ms;
        self.look_at_presence(now, origin.account);
        Ok(Verdict::Done(Done::quietly()))
    }

    /// A grace or a sleep may be over.
    pub(super) fn presence_due(&mut self, now: Now, account: AccountNo) {
        let presence = &mut self.dir.accounts[account.at()].presence;
        presence.armed_ms = presence.armed_ms.filter(|armed_ms| now.ms < *armed_ms);
        self.look_at_presence(now, account);
    }

    /// Shows what is to be shown, and tells everybody who may see it when that is something else.
    fn look_at_presence(&mut self, now: Now, account: AccountNo) {
        let presence = &mut self.dir.accounts[account.at()].presence;
        let (shown, before) = (presence.look(now.ms), presence.shown);
        if shown != before {
            presence.show(now, shown);
            self.tell_presence(account);
        }
        let presence = &mut self.dir.accounts[account.at()].presence;
        if let Some(due_ms) = presence.due_ms(now.ms)
            && presence.armed_ms.is_none_or(|armed_ms| due_ms < armed_ms)
        {
            presence.armed_ms = Some(due_ms);
            self.arm(due_ms, ImTimer::Presence(account));
        }
    }

    fn tell_presence(&mut self, account: AccountNo) {
        for viewer in self.visible_to(account) {
            for at in 0..self.dir.accounts[viewer.at()].online.len() {
                let online = self.dir.accounts[viewer.at()].online[at];
                let Some(o) = self.online.get_mut(online as usize) else { continue };
                if o.is_live && (o.wants(Class::Presence) || o.wants(Class::Avail)) {
                    o.presence_dirty.insert(account);
                    self.wake(online);
                }
            }
        }
    }

    /// Payload of `im/v1/presence/{addr}`.
    pub(super) fn render_presence(&self, of: AccountNo) -> Vec<u8> {
        let a = &self.dir.accounts[of.at()];
        let seen = a.terminals.iter().map(|t| t.seen_ms).fold(a.presence.seen_ms, u64::max);
        let since = if a.presence.since_ms == 0 { seen } else { a.presence.since_ms };
        let mut shown = serde_json::json!({
            "state": a.presence.shown.text(),
            "since": since,
            "seen": seen,
            "terminals": a.presence.connected,
            "epoch": self.boot,
        });
        if a.presence.shown == Shown::Asleep
            && let Some(sleep) = a.presence.sleep
        {
            shown["until"] = sleep.until_wall_ms.into();
        }
        shown.to_string().into_bytes()
    }

    /// Whether it is `online` for Home Assistant: online, away or asleep within its time.
    pub(super) fn is_available(&self, of: AccountNo) -> bool {
        self.dir.accounts[of.at()].presence.shown != Shown::Offline
    }
}

#[cfg(test)]
mod tests {
    use crate::im::Code;
    use crate::im::announce::world::{Client, EVERYTHING, World, befriend, told};
    use serde_json::Value;

    const KEEP_ALIVE_MS: u64 = 60_000;

    /// Bob, who watches alice and sees nothing new, and alice, who is not there yet.
    fn world() -> (World, Client) {
        let mut w = World::new();
        befriend(&mut w, "alice", "bob");
        let bob = w.connect("bob", "phone", &[EVERYTHING]);
        assert_eq!(states(&mut w, &bob), ["offline offline"]);
        (w, bob)
    }

    /// What a client is told of alice's presence: state and availability.
    fn states(w: &mut World, client: &Client) -> Vec<String> {
        let mut all = vec![];
        for (topic, payload, _) in w.take(client) {
            match topic.as_str() {
                "presence/alice" => all.push(payload["state"].as_str().unwrap().to_owned()),
                "presence/alice/avail" => {
                    let state = all.last_mut().unwrap();
                    *state = format!("{state} {}", payload.as_str().unwrap());
                }
                _ => {}
            }
        }
        all
    }

    fn shown(w: &mut World) -> Value {
        let alice = w.account("alice");
        serde_json::from_slice(&w.im.render_presence(alice)).unwrap()
    }

    #[test]
    fn coming_is_told_at_once_and_going_after_the_grace() {
        let (mut w, bob) = world();
        let alice = w.connect("alice", "phone", &[]);
        assert_eq!(states(&mut w, &bob), ["online online"]);
        w.pass(1_000);
        let left_ms = w.now.wall_ms;
        w.disconnect(&alice);
        w.pass(4_999);
        assert_eq!(states(&mut w, &bob), [""; 0]);
        w.pass(1);
        assert_eq!(states(&mut w, &bob), ["offline offline"]);
        let shown = shown(&mut w);
        assert_eq!((&shown["since"], &shown["seen"]), (&left_ms.into(), &left_ms.into()));
        assert_eq!((&shown["terminals"], &shown["epoch"]), (&0.into(), &1.into()));
    }

    #[test]
    fn a_take_over_or_a_short_absence_is_no_change() {
        let (mut w, bob) = world();
        let mut alice = w.connect("alice", "phone", &[]);
        states(&mut w, &bob);
        for (gap_ms, is_take_over) in [(0, true), (0, false), (1, false), (4_999, false)] {
            let old = alice.clone();
            if is_take_over {
                alice = w.connect("alice", "phone", &[]);
                w.disconnect(&old);
            } else {
                w.disconnect(&old);
                w.pass(gap_ms);
                alice = w.connect("alice", "phone", &[]);
            }
            w.pass(20_000);
            assert_eq!(states(&mut w, &bob), [""; 0], "{gap_ms} {is_take_over}");
        }
        // Nor is being away ended by it.
        told(w.ask(&alice, "me/status", "away"));
        w.disconnect(&alice);
        let alice = w.connect("alice", "phone", &[]);
        assert_eq!(states(&mut w, &bob), ["away online"]);
        told(w.ask(&alice, "me/status", "online"));
        assert_eq!(states(&mut w, &bob), ["online online"]);
        // A second terminal changes nothing either, until both are gone.
        let tablet = w.connect("alice", "tablet", &[]);
        w.disconnect(&alice);
        w.pass(20_000);
        assert_eq!(states(&mut w, &bob), [""; 0]);
        told(w.ask(&tablet, "me/status", "away"));
        assert_eq!(states(&mut w, &bob), ["away online"]);
        w.disconnect(&tablet);
        w.pass(5_000);
        assert_eq!(states(&mut w, &bob), ["offline offline"]);
        let _alice = w.connect("alice", "phone", &[]);
        assert_eq!(states(&mut w, &bob), ["online online"]);
    }

    #[test]
    fn a_hundred_flaps_are_one_message_to_a_slow_reader() {
        let (mut w, bob) = world();
        for _ in 0..100 {
            let alice = w.connect("alice", "phone", &[]);
            w.disconnect(&alice);
            w.pass(6_000);
        }
        let _alice = w.connect("alice", "phone", &[]);
        assert_eq!(states(&mut w, &bob), ["online online"]);
        w.pass(3_600_000);
        assert_eq!(w.im.deadline().filter(|at| *at < w.now.ms + 1_000), None);
    }

    #[test]
    fn away_is_a_word_and_asleep_is_told_when_the_connection_goes() {
        let (mut w, bob) = world();
        let alice = w.connect("alice", "phone", &[]);
        states(&mut w, &bob);
        told(w.ask(&alice, "me/status", r#"{"state":"away"}"#));
        assert_eq!(states(&mut w, &bob), ["away online"]);
        told(w.ask(&alice, "me/status", "away"));
        assert_eq!(states(&mut w, &bob), [""; 0]);
        told(w.ask(&alice, "me/status", r#"{"state":"asleep","for_s":60}"#));
        assert_eq!(states(&mut w, &bob), [""; 0]);
        w.pass(10_000);
        w.disconnect(&alice);
        assert_eq!(states(&mut w, &bob), ["asleep online"]);
        assert_eq!(shown(&mut w)["until"], w.now.wall_ms + 50_000);
        w.pass(49_999);
        assert_eq!(states(&mut w, &bob), [""; 0]);
        w.pass(1);
        assert_eq!(states(&mut w, &bob), ["offline offline"]);
        // It wakes: what it said before counts no more.
        let alice = w.connect("alice", "phone", &[]);
        assert_eq!(states(&mut w, &bob), ["online online"]);
        told(w.ask(&alice, "me/status", r#"{"state":"asleep","for_s":7200}"#));
        w.disconnect(&alice);
        w.pass(5_000_000);
        assert_eq!(states(&mut w, &bob), ["asleep online"]);
        let alice = w.connect("alice", "phone", &[]);
        w.disconnect(&alice);
        w.pass(5_000);
        assert_eq!(states(&mut w, &bob), ["offline offline"]);
    }

    #[test]
    fn a_sleep_shorter_than_the_grace_ends_in_its_time() {
        let (mut w, bob) = world();
        let alice = w.connect("alice", "phone", &[]);
        told(w.ask(&alice, "me/status", r#"{"state":"asleep","for_s":1}"#));
        w.disconnect(&alice);
        assert_eq!(states(&mut w, &bob), ["asleep online"]);
        w.pass(1_000);
        assert_eq!(states(&mut w, &bob), ["offline offline"]);
    }

    #[test]
    fn a_status_is_checked() {
        let (mut w, _) = world();
        let alice = w.connect("alice", "phone", &[]);
        for payload in [
            "",
            "gone",
            "{}",
            r#"{"state":"asleep"}"#,
            r#"{"state":"asleep","for_s":0}"#,
            r#"{"state":"asleep","for_s":99999999}"#,
            r#"{"state":"online","for_s":1}"#,
            r#"{"state":1}"#,
        ] {
            let refusal = w.ask(&alice, "me/status", payload).unwrap_err();
            assert_eq!(refusal.code, Code::BadRequest, "{payload}");
        }
    }

    #[test]
    fn only_those_who_may_see_it_and_ask_for_it_are_told() {
        let (mut w, bob) = world();
        let stranger = w.connect("eve", "phone", &[EVERYTHING]);
        let deaf = w.connect("bob", "board", &["im/v1/me/in/#"]);
        let simple = w.connect("bob", "home", &["im/v1/presence/+/avail"]);
        for client in [&stranger, &deaf, &simple] {
            w.take(client);
        }
        let _alice = w.connect("alice", "phone", &[]);
        assert_eq!(states(&mut w, &bob), ["online online"]);
        assert_eq!((w.take(&stranger), w.take(&deaf)), (vec![], vec![]));
        let heard: Vec<(String, Value, u8)> = w.take(&simple);
        assert_eq!(heard, [("presence/alice/avail".to_owned(), "online".into(), 1)]);
        assert!(w.account("eve") != w.account("bob"));
    }

    #[test]
    fn it_converges_after_any_death_the_brokers_own_included() {
        let (mut w, bob) = world();
        let alice = w.connect("alice", "phone", &[EVERYTHING]);
        states(&mut w, &bob);
        // The hub ends a silent connection after one and a half times its keep alive.
        w.pass(KEEP_ALIVE_MS * 3 / 2);
        w.disconnect(&alice);
        w.pass(5_000);
        assert_eq!(states(&mut w, &bob), ["offline offline"]);
        let _alice = w.connect("alice", "phone", &[EVERYTHING]);
        w.commit();
        let seen = shown(&mut w)["seen"].clone();
        w.now.wall_ms += 1_000;
        w.restart();
        befriend(&mut w, "alice", "bob");
        let bob = w.connect("bob", "phone", &[EVERYTHING]);
        assert_eq!(states(&mut w, &bob), ["offline offline"]);
        // What the terminals say of when they were last here is still known.
        let shown = shown(&mut w);
        assert_eq!((&shown["seen"], &shown["since"], &shown["epoch"]), (&seen, &seen, &2.into()));
    }
}
