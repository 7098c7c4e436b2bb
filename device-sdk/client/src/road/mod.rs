//! Roads to a broker: all of them take the same things up and bring the same things down, over one connection. A road that
//! has ended is never used again; the engine opens another one.

mod driver;
pub(crate) mod mqtt;
mod native;
mod quic;
#[cfg(test)]
mod quic_tests;
mod rumqttc;
mod stream;
mod tls;

use crate::error::ConnectError;
use crate::model::event::Answer;
use crate::model::up::Publish;
use crate::options::{Filter, Options};
use crate::target::{Scheme, Target};
use parlor_protocol::mqtt::ReasonCode;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// What waits to go up; at the edge the engine waits.
pub(crate) const UP_MAX: usize = 256;
/// What waits for the engine; at the edge nothing more is read from the connection.
pub(crate) const DOWN_MAX: usize = 256;
/// Deliveries the broker may send before the first is acknowledged.
pub(crate) const RECEIVE_MAX: u16 = 64;
/// Largest packet or frame taken, bytes: a message of 64 KiB, as JSON, twice over.
pub(crate) const PACKET_BYTES_MAX: u32 = 512 * 1024;

/// Something for the broker.
#[derive(Debug)]
pub(crate) enum Up {
    Publish(Publish),
    /// A delivery has been dealt with.
    Acknowledge(u64),
    Subscribe(Filter),
    Unsubscribe(String),
    /// Go on from another local address, where the road can.
    Rebind,
    /// Leave in an orderly way.
    Close,
}

/// Something from the broker.
#[derive(Debug)]
pub(crate) enum Down {
    /// There is no answer yet, but what may arrive twice can go.
    Early,
    /// So many publishes without an answer the broker takes at a time.
    Window(u16),
    /// The connection stands, and so do the subscriptions.
    Connected,
    Message(Delivery),
    /// The broker has answered a publish.
    Answered {
        token: u64,
        answer: Answer,
    },
    /// A subscription that was made later is refused.
    NotSubscribed {
        filter: String,
        why: String,
    },
    /// The road has ended; nothing comes after it.
    Ended(End),
}

/// Something that was published to us.
#[derive(Debug)]
pub(crate) struct Delivery {
    pub topic: String,
    pub payload: Vec<u8>,
    /// It is the value that was kept, not news.
    pub is_retained: bool,
    /// Names it in [`Up::Acknowledge`], where it wants that.
    pub number: Option<u64>,
}

/// How a road ended.
#[derive(Debug, Clone)]
pub(crate) enum End {
    /// Another one may be better.
    Lost(String),
    /// No other one will be.
    Fatal(ConnectError),
}

/// One connection, or the attempt at one. It ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Road {
    pub up: mpsc::Sender<Up>,
    pub down: mpsc::Receiver<Down>,
    /// Publishes without an answer at a time.
    pub window: usize,
    pub task: JoinHandle<()>,
}

impl Drop for Road {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Makes roads.
pub(crate) trait Roads: Send + 'static {
    /// Begins an attempt; `filters` are those that stand at the moment.
    fn open(&mut self, filters: Vec<Filter>) -> Road;
}

/// Who connects, and as what.
#[derive(Debug, Clone)]
pub(crate) struct Login {
    pub target: Target,
    pub user: String,
    pub password: String,
    pub terminal: String,
    pub options: Options,
}

/// Roads of one scheme.
pub(crate) struct RealRoads {
    login: Arc<Login>,
    kind: Kind,
}

/// What is prepared once and used by every attempt.
enum Kind {
    Rumqttc(Box<::rumqttc::v5::MqttOptions>),
    Quic(quinn::ClientConfig, quic::Good),
    Plain,
    Tls(Arc<rustls::ClientConfig>),
}

impl RealRoads {
    /// Reads certificates and prepares the road of the login's scheme.
    pub fn new(login: Login) -> Result<Self, ConnectError> {
        let kind = match login.target.scheme {
            Scheme::Mqtt | Scheme::Mqtts | Scheme::Ws | Scheme::Wss => {
                Kind::Rumqttc(Box::new(rumqttc::mqtt_options(&login)?))
            }
            Scheme::MqttQuic | Scheme::Parlor => Kind::Quic(quic::config(&login)?, quic::Good::default()),
            Scheme::ParlorTcp => Kind::Plain,
            Scheme::ParlorTls => Kind::Tls(Arc::new(tls::config(&login, &[])?)),
        };
        Ok(Self { login: Arc::new(login), kind })
    }
}

impl Roads for RealRoads {
    fn open(&mut self, filters: Vec<Filter>) -> Road {
        let (up, ups) = mpsc::channel(UP_MAX);
        let (downs, down) = mpsc::channel(DOWN_MAX);
        let login = Arc::clone(&self.login);
        let (window, task) = match &self.kind {
            Kind::Rumqttc(mqtt) => {
                let run = rumqttc::run(login, (**mqtt).clone(), filters, ups, downs);
                (rumqttc::WINDOW, tokio::spawn(run))
            }
            Kind::Quic(config, good) => {
                let way = (config.clone(), Arc::clone(good));
                (driver::WINDOW, tokio::spawn(quic::run(login, way, filters, ups, downs)))
            }
            Kind::Plain => (driver::WINDOW, tokio::spawn(stream::run(login, None, filters, ups, downs))),
            Kind::Tls(config) => {
                let run = stream::run(login, Some(Arc::clone(config)), filters, ups, downs);
                (driver::WINDOW, tokio::spawn(run))
            }
        };
        Road { up, down, window, task }
    }
}

/// A connection that is refused with a reason code of CONNACK.
fn refused(login: &Login, reason: ReasonCode, text: Option<&str>) -> End {
    let target = login.target.clone();
    let why = text.map_or_else(|| reason.name().to_owned(), |text| format!("{}: {text}", reason.name()));
    match reason {
        ReasonCode::BAD_USER_NAME_OR_PASSWORD => End::Fatal(ConnectError::Credentials(target)),
        ReasonCode::NOT_AUTHORIZED
        | ReasonCode::CLIENT_IDENTIFIER_NOT_VALID
        | ReasonCode::BANNED
        | ReasonCode::BAD_AUTHENTICATION_METHOD
        | ReasonCode::UNSUPPORTED_PROTOCOL_VERSION => End::Fatal(ConnectError::Refused { target, why }),
        _ => End::Lost(format!("the broker refuses at the moment: {why}")),
    }
}

/// A connection that the broker ends with a reason code of DISCONNECT.
fn ended(login: &Login, reason: ReasonCode, text: Option<&str>) -> End {
    match reason {
        ReasonCode::SESSION_TAKEN_OVER => End::Fatal(ConnectError::TakenOver(login.terminal.clone())),
        ReasonCode::ADMINISTRATIVE_ACTION => End::Fatal(ConnectError::Kicked),
        reason => {
            let text = text.map(|text| format!(" ({text})")).unwrap_or_default();
            End::Lost(format!("the broker ended the connection: {}{text}", reason.name()))
        }
    }
}
