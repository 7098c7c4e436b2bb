//! What a device is, how it logs in, what it wants to hear, and what it keeps.

#[cfg(feature = "topics")]
use parlor_protocol::mqtt::QoS;

/// Settings of a device. `..Config::new("lamp-7f3a")` fills in the rest.
///
/// ```
/// use parlor_device::{Config, Login};
/// let config = Config {
///     login: Login::Account { name: "lamp", secret: b"correct horse" },
///     ..Config::new("lamp-7f3a")
/// };
/// assert_eq!(config.keep_alive_s, 30);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Name of this board: the MQTT client identifier. Two boards must never have the same.
    pub terminal: &'static str,
    /// How it logs in.
    pub login: Login,
    /// What it can do, for people's apps.
    #[cfg(feature = "describe")]
    pub describe: Describe,
    /// Name and version of the firmware.
    pub app: &'static str,
    /// Kind of board.
    pub platform: &'static str,
    /// `im-level` (yyMMdd): which messages it understands; 0: says none.
    pub level: u32,
    /// Seconds; a board that is unplugged is shown offline after one and a half times as long.
    pub keep_alive_s: u16,
    /// Seconds that the broker keeps what waits for ordinary subscriptions; messages and commands wait in any case.
    pub session_expiry_s: u32,
    /// What it listens to, and whether this is a Parlor broker at all.
    pub listen: Listen,
    /// Ordinary topics it listens to, read with `Device::next_publish`.
    #[cfg(feature = "topics")]
    pub subscribe: &'static [Subscription],
    /// What is kept of what is sent; the first that matches is used, and [`Policy::DEFAULT`] if none does.
    pub policies: &'static [Policy],
    /// The first pause after a connection failed, milliseconds; it doubles with each failure.
    pub pause_min_ms: u32,
    /// The longest pause, milliseconds.
    pub pause_max_ms: u32,
}

impl Config {
    /// A device that listens to commands, with usual settings. It logs in with what pairing has given; without the feature
    /// `pairing`, anonymously, until [`Self::login`] says something else.
    pub const fn new(terminal: &'static str) -> Self {
        Self {
            terminal,
            login: Login::UNSET,
            #[cfg(feature = "describe")]
            describe: Describe::NOTHING,
            app: "",
            platform: "",
            level: 0,
            keep_alive_s: 30,
            session_expiry_s: 86_400,
            listen: Listen::COMMANDS,
            #[cfg(feature = "topics")]
            subscribe: &[],
            policies: &[],
            pause_min_ms: 1_000,
            pause_max_ms: 60_000,
        }
    }

    /// Ordinary topics it listens to.
    #[cfg(feature = "topics")]
    pub(crate) const fn topics(&self) -> &'static [Subscription] {
        self.subscribe
    }

    /// Ordinary topics it listens to: none.
    #[cfg(all(feature = "im", not(feature = "topics")))]
    #[allow(clippy::unused_self, reason = "the other of the two has something to look at")]
    pub(crate) const fn topics(&self) -> &'static [core::convert::Infallible] {
        &[]
    }

    /// The policy for a topic.
    #[cfg(any(feature = "topics", feature = "messages", feature = "state"))]
    pub(crate) fn policy(&self, topic: &str) -> Policy {
        let found = self.policies.iter().find(|policy| match policy.topic.strip_suffix('#') {
            Some(start) => topic.starts_with(start),
            None => topic == policy.topic,
        });
        found.copied().unwrap_or(Policy::DEFAULT)
    }
}

/// How a device logs in. What pairing has put into flash is used before any of these.
#[derive(Clone, Copy)]
pub enum Login {
    /// With what pairing has put into flash; until then it waits for `Device::pair`.
    #[cfg(feature = "pairing")]
    Stored,
    /// As an account.
    Account {
        /// Its name.
        name: &'static str,
        /// Password or token.
        secret: &'static [u8],
    },
    /// With a one-time code (docs/protocol.md, section 8), once: what the broker answers is put into flash.
    #[cfg(feature = "pairing")]
    Pair {
        /// The code.
        code: &'static str,
        /// The name that the device would like to have.
        name: &'static str,
    },
    /// Without credentials: for other brokers, or with a client certificate.
    Anonymous,
}

impl Login {
    /// Until the application says something else.
    #[cfg(feature = "pairing")]
    const UNSET: Self = Self::Stored;
    #[cfg(not(feature = "pairing"))]
    const UNSET: Self = Self::Anonymous;
}

impl core::fmt::Debug for Login {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            #[cfg(feature = "pairing")]
            Self::Stored => "Stored",
            Self::Account { name, .. } => name,
            #[cfg(feature = "pairing")]
            Self::Pair { .. } => "Pair",
            Self::Anonymous => "Anonymous",
        })
    }
}

/// The command that offers an update.
#[cfg(feature = "update")]
const UPDATE: &str = concat!(
    "\"update\":{\"args\":{\"blob\":{\"type\":\"text\"},\"version\":{\"type\":\"text\"},\"size\":{\"type\":\"int\"},",
    "\"sha256\":{\"type\":\"text\"},\"signature\":{\"type\":\"text\"}}}"
);

/// What a device can do: docs/protocol.md, section 7. `commands` and `state` come from the derives.
#[cfg(feature = "describe")]
#[derive(Clone, Copy, Debug)]
pub struct Describe {
    /// For people.
    pub name: &'static str,
    /// Of the product; may be empty.
    pub model: &'static str,
    /// JSON object.
    pub commands: &'static str,
    /// JSON object.
    pub state: &'static str,
    /// It takes updates: the command `update` is added.
    pub update: bool,
}

#[cfg(feature = "describe")]
impl Describe {
    /// Nothing is said.
    pub const NOTHING: Self = Self { name: "", model: "", commands: "", state: "", update: false };

    /// Whether there is anything to say.
    pub(crate) const fn is_empty(&self) -> bool {
        self.name.is_empty() && self.commands.is_empty() && self.state.is_empty() && !self.update
    }

    /// Gives the JSON to `put`, a piece at a time.
    pub(crate) fn write(&self, put: &mut dyn FnMut(&str)) {
        // What stands in front of the next member.
        let mut comma = "";
        put("{");
        for (key, text) in [("\"name\":\"", self.name), ("\"model\":\"", self.model)] {
            if !text.is_empty() {
                put(comma);
                put(key);
                put(text);
                put("\"");
                comma = ",";
            }
        }
        let commands = self.commands.trim_ascii();
        let commands = commands.strip_prefix('{').and_then(|inner| inner.strip_suffix('}')).unwrap_or("");
        if !commands.is_empty() || self.update {
            put(comma);
            put("\"commands\":{");
            put(commands);
            #[cfg(feature = "update")]
            if self.update {
                put(if commands.is_empty() { "" } else { "," });
                put(UPDATE);
            }
            put("}");
            comma = ",";
        }
        if !self.state.is_empty() {
            put(comma);
            put("\"state\":");
            put(self.state);
        }
        put("}");
    }
}

/// What a device listens to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listen(u8);

impl Listen {
    /// Nothing of Parlor's: for other brokers. Only ordinary topics can be sent and subscribed to.
    pub const OTHER_BROKER: Self = Self(0);
    /// Nothing, but it may send.
    pub const NOTHING: Self = Self(1);
    /// Commands, and what is desired of its state.
    pub const COMMANDS: Self = Self(1 | 2);
    /// Commands, and messages that people write to it.
    pub const MESSAGES: Self = Self(1 | 2 | 4);
    /// As before, and a new board is also told the last messages that were written before it was there.
    pub const BACKFILL: Self = Self(1 | 2 | 4 | 8);

    #[cfg(any(feature = "im", feature = "sleep"))]
    pub(crate) const fn im(self) -> bool {
        self.0 & 1 != 0
    }

    #[cfg(feature = "im")]
    pub(crate) const fn commands(self) -> bool {
        self.0 & 2 != 0
    }

    #[cfg(feature = "im")]
    pub(crate) const fn messages(self) -> bool {
        self.0 & 4 != 0
    }

    #[cfg(feature = "messages")]
    pub(crate) const fn backfill(self) -> bool {
        self.0 & 8 != 0
    }
}

/// An ordinary topic that a device listens to.
#[cfg(feature = "topics")]
#[derive(Clone, Copy, Debug)]
pub struct Subscription {
    /// Topic filter.
    pub filter: &'static str,
    /// 0 or 1.
    pub qos: QoS,
}

/// What is kept of what is sent to a topic.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// Topic name, or the beginning of one with `#` behind it. Messages are `im/v1/to/#`, reported state is
    /// `im/v1/me/reported`.
    pub topic: &'static str,
    /// What to do while the device is offline or slower than the application.
    pub keep: Keep,
    /// Where.
    pub place: Place,
}

impl Policy {
    /// Everything, in RAM.
    pub const DEFAULT: Self = Self { topic: "#", keep: Keep::All, place: Place::Ram };
}

/// What is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Everything; when the outbox is full, the caller waits.
    All,
    /// When the outbox is full, the oldest row with this policy makes room, and is lost.
    DropOldest,
    /// The latest value of each topic.
    Latest,
}

/// Where it is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A reboot loses it.
    Ram,
    /// It survives a reboot; each row costs two writes of flash (docs/devices.md).
    Flash,
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(feature = "describe")]
    use crate::json::Value;
    #[cfg(feature = "describe")]
    use std::string::String;

    #[cfg(feature = "describe")]
    fn joined(describe: Describe) -> String {
        let mut all = String::new();
        describe.write(&mut |piece| all.push_str(piece));
        all
    }

    #[test]
    #[cfg(feature = "describe")]
    fn descriptions_are_json() {
        let check = |describe: Describe, expect: &str| {
            assert_eq!(joined(describe), expect);
            assert!(Value::parse(expect).is_some());
        };
        check(Describe { name: "Lamp", ..Describe::NOTHING }, r#"{"name":"Lamp"}"#);
        check(
            Describe {
                name: "Lamp",
                model: "L1",
                commands: r#"{"on":{}}"#,
                state: r#"{"on":{"type":"bool"}}"#,
                update: false,
            },
            r#"{"name":"Lamp","model":"L1","commands":{"on":{}},"state":{"on":{"type":"bool"}}}"#,
        );
        check(Describe { state: "{}", ..Describe::NOTHING }, r#"{"state":{}}"#);
        check(Describe { commands: r#"{"on":{}}"#, ..Describe::NOTHING }, r#"{"commands":{"on":{}}}"#);
        #[cfg(feature = "update")]
        with_updates();
    }

    #[cfg(feature = "update")]
    fn with_updates() {
        let text = joined(Describe { model: "L1", update: true, ..Describe::NOTHING });
        let value = Value::parse(&text).unwrap();
        assert!(value.get("commands").and_then(|c| c.get("update")).and_then(|u| u.get("args")).is_some(), "{text}");
        let text = joined(Describe { commands: r#"{"on":{}}"#, state: "{}", update: true, ..Describe::NOTHING });
        assert_eq!(Value::parse(&text).unwrap().get("commands").unwrap().fields().count(), 2, "{text}");
    }

    #[test]
    fn the_first_policy_that_matches_is_used() {
        const POLICIES: &[Policy] = &[
            Policy { topic: "t/latest", keep: Keep::Latest, place: Place::Ram },
            Policy { topic: "t/#", keep: Keep::DropOldest, place: Place::Flash },
        ];
        let config = Config { policies: POLICIES, ..Config::new("x") };
        assert_eq!(config.policy("t/latest").keep, Keep::Latest);
        assert_eq!(config.policy("t/latest/2").keep, Keep::DropOldest);
        assert_eq!(config.policy("u").keep, Keep::All);
    }
}
