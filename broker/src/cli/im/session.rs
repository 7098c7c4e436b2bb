//! A messenger and its connection, joined.

use super::connect::{ConnectError, Delivery, Down, Link, Subscription};
use super::model::Messenger;
use super::now_ms;
use super::options::Options;
use super::place::{Place, PlaceError, Purpose, random};
use rumqttc::v5::mqttbytes::QoS;
use std::time::Duration;

/// A messenger with a connection.
pub(super) struct Session {
    /// What it knows.
    pub messenger: Messenger,
    link: Link,
    /// Dealt with when the caller comes back for the next step: only then is it acknowledged.
    last: Option<Delivery>,
    was_connected: bool,
    _place: Place,
}

/// What happened to the connection.
#[derive(Debug)]
pub(super) enum Step {
    /// The messenger may have something to tell.
    Heard { is_retained: bool },
    /// The connection stands.
    Connected,
    /// There is none; the next attempt comes later.
    Lost { why: String, retry_in: Duration },
    /// It could not be made at all, the first time.
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

/// What a terminal of a person subscribes to.
pub(super) fn everything() -> Vec<Subscription> {
    ["im/v1/me/#", "im/v1/presence/+", "im/v1/state/+"].map(|filter| (filter.to_owned(), QoS::AtLeastOnce)).into()
}

impl Session {
    /// Takes a terminal's place and begins to connect. Must be called within a runtime.
    pub fn start(options: &Options, purpose: Purpose, filters: Vec<Subscription>) -> Result<Self, SessionError> {
        let place = Place::take(options, purpose)?;
        Ok(Self {
            messenger: Messenger::new(&options.user, random()),
            link: Link::start(options, &place.client_id, filters)?,
            last: None,
            was_connected: false,
            _place: place,
        })
    }

    /// Publishes what waits, and waits for what comes. May be dropped while it waits.
    pub async fn step(&mut self) -> Step {
        self.settle();
        self.pump();
        let Some(down) = self.link.next().await else {
            // The task ends only after it has said why.
            return Step::Lost { why: "the connection is closed".to_owned(), retry_in: Duration::ZERO };
        };
        match down {
            Down::Connected => {
                self.was_connected = true;
                self.messenger.handle_connected();
                self.pump();
                Step::Connected
            }
            Down::Lost { why, retry_in } if !self.was_connected => Step::NoBroker { why, retry_in },
            Down::Lost { why, retry_in } => {
                if self.messenger.is_connected() {
                    self.messenger.handle_disconnected(&why);
                }
                Step::Lost { why, retry_in }
            }
            Down::Ended(error) => Step::Ended(error),
            Down::Message(delivery) => {
                self.messenger.handle_publish(&delivery.topic, &delivery.payload, now_ms());
                let is_retained = delivery.is_retained;
                self.last = Some(delivery);
                Step::Heard { is_retained }
            }
            Down::Answered { token, answer } => {
                self.messenger.handle_answer(token, answer);
                Step::Heard { is_retained: false }
            }
        }
    }

    /// Publishes what waits, as far as the connection takes it.
    pub fn pump(&mut self) {
        while let Some(publish) = self.messenger.poll_publish() {
            if !self.link.try_publish(&publish) {
                self.messenger.unpoll(publish);
                break;
            }
        }
    }

    /// Leaves.
    pub async fn close(mut self) {
        self.settle();
        self.link.close().await;
    }

    /// Acknowledges what came last, before it is dealt with: a device has a command when it has read it.
    pub fn settle(&mut self) {
        if let Some(delivery) = self.last.take() {
            self.link.acknowledge(&delivery);
        }
    }
}
