//! A client under the name that its terminal keeps.

use super::options::Options;
use super::place::{Place, PlaceError, Purpose};
use parlor_client::{Backoff, Client, ConnectError, Event, Listen, Options as ClientOptions, Told};
use std::time::Duration;

/// A client and its place.
pub(super) struct Session {
    /// What it says and hears.
    pub client: Client,
    was_connected: bool,
    _place: Place,
}

/// What happened.
#[derive(Debug)]
pub(super) enum Step {
    /// Something worth telling.
    Told(Box<Told>),
    /// A connection could not be made at all, the first time.
    NoBroker { why: String, retry_in: Duration },
    /// There will be none any more.
    Ended(ConnectError),
}

/// A session could not begin.
#[derive(Debug, thiserror::Error)]
pub(in crate::cli) enum SessionError {
    #[error(transparent)]
    Place(#[from] PlaceError),
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("the system gives no timers or sockets: {0}")]
    Runtime(std::io::Error),
    #[error("cannot use the terminal: {0}; with --json no terminal is needed")]
    Terminal(std::io::Error),
}

/// How long to wait for answers when leaving: whoever waits for one has waited before.
const FAREWELL: Duration = Duration::from_secs(1);

impl Session {
    /// Takes a terminal's place and begins to connect. Must be called within a runtime.
    pub async fn start(options: &Options, purpose: Purpose, listen: Listen) -> Result<Self, SessionError> {
        let place = Place::take(options, purpose)?;
        let millis = Duration::from_millis;
        let wished = ClientOptions {
            user: Some(options.user.clone()),
            password: Some(options.password.clone()),
            terminal: Some(place.client_id.clone()),
            ca: options.ca.clone(),
            // People wait in front of it.
            backoff: Backoff { first: millis(250), base: millis(500), most: millis(15_000) },
            farewell: FAREWELL,
            platform: "terminal".to_owned(),
            app: concat!("parlor/", env!("CARGO_PKG_VERSION")).to_owned(),
            listen,
            ..ClientOptions::default()
        };
        let client = Client::start(&options.target.to_string(), wished).await?;
        Ok(Self { client, was_connected: false, _place: place })
    }

    /// What happens next. May be dropped while it waits.
    pub async fn step(&mut self) -> Step {
        let Some(told) = self.client.next_told().await else {
            return Step::Ended(ConnectError::NoRuntime);
        };
        match told.event {
            Event::Ended { error } => Step::Ended(error),
            Event::Disconnected { why, retry_in } if !self.was_connected => Step::NoBroker { why, retry_in },
            Event::Connected => {
                self.was_connected = true;
                Step::Told(Box::new(told))
            }
            _ => Step::Told(Box::new(told)),
        }
    }

    /// Leaves.
    pub async fn close(self) {
        // Without a connection there is nobody to take leave of.
        if self.client.with(|messenger| messenger.is_connected()) {
            self.client.close().await;
        }
    }
}
