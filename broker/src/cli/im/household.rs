//! The household of the demo, set up as anybody would set one up: by the protocol. What is there already stays as it is.

use super::devices::run::{Kind, Runner};
use super::options::Options;
use super::place::Purpose;
use super::session::{Session, SessionError, Step};
use crate::cli::serve::DEMO_PASSWORD;
use parlor_client::model::wire::Refusal;
use parlor_client::{AskError, Event, Filter, Listen, Scheme, Secret, Target};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::runtime::Builder;
use tokio::time::timeout;

/// The group that is the household.
pub(in crate::cli) const HOUSEHOLD: &str = "g-home";
/// Its owner.
const OWNER: &str = "alice";
/// The others.
const MEMBERS: [&str; 3] = ["bob", "lamp", "thermo1"];
/// How long the whole set-up may take.
const SET_UP: Duration = Duration::from_secs(20);

/// The household could not be set up.
#[derive(Debug, thiserror::Error)]
pub(in crate::cli) enum SetUpError {
    #[error(transparent)]
    Session(#[from] SessionError),
    #[error("as {user}: {re} was refused ({}): {}", .refusal.code, .refusal.text)]
    Refused { user: &'static str, re: String, refusal: Refusal },
    #[error("as {user}: no answer to {re}")]
    Silent { user: &'static str, re: String },
    #[error("as {user}: {why}")]
    Connection { user: &'static str, why: String },
    #[error("it took too long")]
    TooLong,
}

/// Sets the household up, calls `ready`, and then lets the devices live, for as long as this process does.
pub(in crate::cli) fn live(mqtt: Option<SocketAddr>, ready: impl FnOnce(Option<SetUpError>)) {
    let Some(address) = mqtt else {
        ready(None);
        return;
    };
    let runtime = match Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            ready(Some(SessionError::Runtime(error).into()));
            return;
        }
    };
    runtime.block_on(async {
        let done = timeout(SET_UP, set_up(address)).await.unwrap_or(Err(SetUpError::TooLong));
        ready(done.err());
        let mut lamp = Runner::new(Kind::Lamp.make(), options(address, "lamp", "demo-lamp"), Some(OWNER.to_owned()));
        let thermostat = options(address, "thermo1", "demo-thermo1");
        let mut thermostat = Runner::new(Kind::Thermostat.make(), thermostat, Some(OWNER.to_owned()));
        let (mut lamp_says, mut thermostat_says) = (|_: &str| (), |_: &str| ());
        // They end with the broker; until then there is nobody to tell.
        let _ = tokio::join!(lamp.run(&mut lamp_says), thermostat.run(&mut thermostat_says));
    });
}

fn options(address: SocketAddr, user: &str, terminal: &str) -> Options {
    let host = match address {
        SocketAddr::V4(address) => address.ip().to_string(),
        SocketAddr::V6(address) => format!("[{}]", address.ip()),
    };
    Options {
        target: Target { scheme: Scheme::Mqtt, host, port: address.port(), path: String::new() },
        user: user.to_owned(),
        password: Secret(DEMO_PASSWORD.to_owned()),
        ca: None,
        terminal: Some(terminal.to_owned()),
    }
}

async fn set_up(address: SocketAddr) -> Result<(), SetUpError> {
    let mut owner = Visitor::enter(address, OWNER).await?;
    // Asking for a group that is not there would be an error in the log.
    let convs = owner.ask("me/convs", json!({})).await?;
    let is_there = convs["convs"].as_array().is_some_and(|convs| convs.iter().any(|conv| conv["addr"] == HOUSEHOLD));
    let missing = if is_there {
        missing(&owner.ask(&format!("me/group/{HOUSEHOLD}"), json!({"op": "info"})).await?)
    } else {
        MEMBERS.to_vec()
    };
    if !missing.is_empty() {
        for name in &missing {
            befriend(&mut owner, address, name).await?;
        }
        let create = json!({"op": "create", "name": "Home", "household": true, "members": missing});
        match owner.ask(&format!("me/group/{HOUSEHOLD}"), create).await {
            Err(SetUpError::Refused { refusal, .. }) if refusal.code == "exists" => {
                for name in &missing {
                    owner.ask(&format!("me/group/{HOUSEHOLD}"), json!({"op": "add", "who": name})).await?;
                }
            }
            done => {
                done?;
            }
        }
    }
    owner.leave().await;
    Ok(())
}

/// Who is not in the group yet. A list of names or of objects with `who`, `addr` or `account`.
fn missing(info: &Value) -> Vec<&'static str> {
    let empty = Vec::new();
    let members = info["members"].as_array().unwrap_or(&empty);
    let is_there = |name: &str| {
        members.iter().any(|member| member == name || ["who", "addr", "account"].iter().any(|key| member[*key] == name))
    };
    MEMBERS.into_iter().filter(|name| !is_there(name)).collect()
}

/// Both ask, and so both have agreed.
async fn befriend(owner: &mut Visitor, address: SocketAddr, name: &'static str) -> Result<(), SetUpError> {
    let mut other = Visitor::enter(address, name).await?;
    let is_known =
        |error: &SetUpError| matches!(error, SetUpError::Refused { refusal, .. } if refusal.code == "exists");
    for (visitor, peer) in [(owner, name), (&mut other, OWNER)] {
        match visitor.ask(&format!("me/contact/{peer}"), json!({"op": "request"})).await {
            Err(error) if !is_known(&error) => return Err(error),
            _ => {}
        }
    }
    other.leave().await;
    Ok(())
}

/// A short visit to the broker as one of the accounts.
struct Visitor {
    user: &'static str,
    session: Session,
}

impl Visitor {
    async fn enter(address: SocketAddr, user: &'static str) -> Result<Self, SetUpError> {
        let filters = ["group/res", "contact/res", "convs/res", "err"]
            .map(|below| Filter::at_least_once(format!("im/v1/me/{below}")))
            .into();
        let options = options(address, user, &format!("demo-set-up-{user}"));
        let mut session = Session::start(&options, Purpose::Once, Listen::Only(filters)).await?;
        loop {
            match session.step().await {
                Step::Told(told) if told.event == Event::Connected => return Ok(Self { user, session }),
                Step::Told(_) => {}
                Step::NoBroker { why, .. } => return Err(SetUpError::Connection { user, why }),
                Step::Ended(error) => return Err(SetUpError::Connection { user, why: error.to_string() }),
            }
        }
    }

    /// Asks, and waits for the answer.
    async fn ask(&mut self, below: &str, payload: Value) -> Result<Value, SetUpError> {
        let (user, re) = (self.user, below.to_owned());
        self.session.client.ask(below, payload).await.map_err(|error| match error {
            AskError::Refused { code, text } => {
                SetUpError::Refused { user, re, refusal: Refusal { code, text, id: None } }
            }
            AskError::Silent(_) => SetUpError::Silent { user, re },
            error => SetUpError::Connection { user, why: error.to_string() },
        })
    }

    async fn leave(self) {
        self.session.close().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_recognised_however_they_are_listed() {
        let check = |members: Value, expect: &[&str]| assert_eq!(missing(&json!({ "members": members })), expect);
        check(json!(["alice", "bob", "lamp", "thermo1"]), &[]);
        check(json!([{"who": "bob", "role": "member"}, {"who": "lamp"}]), &["thermo1"]);
        check(Value::Null, &MEMBERS);
    }
}
