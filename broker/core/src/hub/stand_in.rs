//! A stand-in for the messaging rooms: answers a few fixed things, so that the HTTP side can be written against it.

use super::{After, Effect, Hub, Now};
use crate::store::Fact;

/// How messaging is set up.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ImSettings {
    /// Whether there is messaging at all.
    pub enabled: bool,
    /// Topic prefix of Home Assistant's discovery, where it is wanted.
    pub home_assistant: Option<String>,
}

/// The answer to [`Hub::act`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// It was done; JSON text.
    Done(String),
    /// It was refused.
    Refused {
        /// One of the codes of docs/protocol.md section 10.
        code: &'static str,
        /// What is wrong.
        text: String,
    },
}

/// A device has presented a pairing code and needs credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PairRequest {
    /// Names the exchange.
    pub exchange: u64,
    /// The code it presented.
    pub code: String,
    /// The account it is to become.
    pub name: String,
}

impl Hub {
    /// Does what a PUBLISH by `account` to `im/v1/{path}` would do; [`Effect::Replied`] follows once it is durable.
    pub fn act(&mut self, _now: Now, _account: &str, path: &str, payload: &[u8], token: u64) {
        let text = String::from_utf8_lossy(payload);
        let refused = |code, text: &str| Reply::Refused { code, text: text.to_owned() };
        let reply = match path {
            "me/paired" if text.contains("GOOD-CODE") => {
                let name = text.split("\"name\":\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap_or_default();
                let request = PairRequest { exchange: token, code: "GOOD-CODE".to_owned(), name: name.to_owned() };
                self.stand_in_pairing = Some((token, name.to_owned()));
                self.effects.push_back(Effect::Pair(Box::new(request)));
                return;
            }
            "me/paired" => refused("not_found", "there is no such code"),
            path if path.contains("nobody") => refused("not_found", "there is no such account"),
            _ => Reply::Done("{\"seq\":1}".to_owned()),
        };
        self.effects.push_back(Effect::Replied(token, reply));
    }

    /// Says what kind of account this is, and its profile name; [`Effect::Stored`] follows.
    pub fn describe_account(&mut self, now: Now, _name: &str, _kind: &str, _display_name: Option<&str>, token: u64) {
        self.after_commit(now, After::Stored(token));
    }

    /// The credentials of a device that pairs were made.
    pub fn paired(&mut self, _now: Now, exchange: u64, record: &[u8], password: &str) {
        let Some((token, name)) = self.stand_in_pairing.take().filter(|(token, _)| *token == exchange) else { return };
        self.batch.push(&Fact::Account { name: &name, record });
        let text = format!("{{\"account\":\"{name}\",\"password\":\"{password}\"}}");
        self.effects.push_back(Effect::AccountMade { name, record: record.to_vec() });
        self.effects.push_back(Effect::Replied(token, Reply::Done(text)));
    }
}
