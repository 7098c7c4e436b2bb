//! A connection to the broker that comes back by itself: MQTT 5 by rumqttc, one client of it for each connection, so that
//! nothing of a dead one lives on. What must survive is the caller's: the outbox and the ids in it.

use super::model::event::Answer;
use super::model::limits::LEVEL;
use super::model::up::{Effort, Publish};
use super::options::{Options, Security, Target};
use super::place::random;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{
    ConnectProperties, ConnectReturnCode, DisconnectReasonCode, Filter, Packet, PubAck, PubAckReason,
    Publish as MqttPublish, SubscribeReasonCode,
};
use rumqttc::v5::{AsyncClient, ConnectionError, Event, EventLoop, MqttOptions, StateError};
use rumqttc::{Outgoing, TlsConfiguration, Transport};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// What comes from the connection.
#[derive(Debug)]
pub(super) enum Down {
    /// It stands, and so do the subscriptions.
    Connected,
    /// There is none; the next attempt comes after `retry_in`.
    Lost { why: String, retry_in: Duration },
    /// There will be none any more.
    Ended(ConnectError),
    /// Something was published to us. Hand it to [`Link::acknowledge`] when it has been dealt with.
    Message(Delivery),
    /// The broker has answered a publish.
    Answered { token: u64, answer: Answer },
}

/// Something that was published to us.
#[derive(Debug)]
pub(super) struct Delivery {
    pub topic: String,
    pub payload: Vec<u8>,
    /// It is the value that was kept, not news.
    pub is_retained: bool,
    packet: Box<MqttPublish>,
}

/// Why there is no connection, and why trying again would not help.
#[derive(Debug, Clone, thiserror::Error)]
pub(in crate::cli) enum ConnectError {
    #[error("the broker at {0} refuses the user name or password")]
    Credentials(Target),
    #[error("the broker at {target} refuses this client: {code:?}")]
    Refused { target: Target, code: ConnectReturnCode },
    #[error("another program took over the terminal `{0}`; give each its own with --terminal")]
    TakenOver(String),
    #[error("the operator, or another terminal of this account, ended this connection")]
    Kicked,
    #[error(
        "the broker refuses the subscription to `{filter}`: {code:?}; does the account exist, and is this broker new enough?"
    )]
    Subscription { filter: String, code: SubscribeReasonCode },
    #[error("cannot use the certificates in {}: {why}", .path.display())]
    Certificates { path: PathBuf, why: String },
    #[error("the system names no certificate authorities to trust; name some with --ca")]
    NoAuthorities,
    #[error("no encrypted connection to {target}: {why}")]
    Tls { target: Target, why: String },
}

/// Publishes without an answer at a time: fewer than rumqttc has packet identifiers for.
const UNANSWERED_MAX: usize = 16;
/// Requests that wait for rumqttc: every acknowledgement and every publish there can be.
const REQUESTS_MAX: usize = 256;
/// Deliveries the broker may send before the first is acknowledged.
const RECEIVE_MAX: u16 = 64;
/// What waits for the caller; at the edge nothing more is read from the socket.
const DOWN_MAX: usize = 256;
/// Largest packet taken, bytes: a message of 64 KiB, as JSON, twice over.
const PACKET_BYTES_MAX: u32 = 512 * 1024;
/// How long one attempt may take.
const ATTEMPT: Duration = Duration::from_secs(5);
/// Silence after which the broker is asked whether it is there.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// Pauses between attempts; the last one repeats.
const PAUSES_MS: [u64; 7] = [250, 500, 1_000, 2_000, 4_000, 8_000, 15_000];
/// A connection that held this long was a good one, and the next attempt comes soon.
const GOOD: Duration = Duration::from_secs(5);
/// How long to wait for the broker when leaving.
const FAREWELL: Duration = Duration::from_secs(1);

/// The connection as its user has it.
pub(super) struct Link {
    shared: Arc<Mutex<Shared>>,
    down: mpsc::Receiver<Down>,
    task: JoinHandle<()>,
}

/// What the user and the task both need.
#[derive(Default)]
struct Shared {
    client: Option<AsyncClient>,
    /// Tokens of publishes that rumqttc has not given a packet identifier yet, in its order.
    unnumbered: VecDeque<u64>,
    /// Tokens by packet identifier.
    unanswered: BTreeMap<u16, u64>,
}

/// A filter and the `QoS` asked for.
pub(super) type Subscription = (String, QoS);

impl Link {
    /// Begins to connect. Must be called within a runtime.
    pub fn start(options: &Options, client_id: &str, filters: Vec<Subscription>) -> Result<Self, ConnectError> {
        let shared = Arc::new(Mutex::new(Shared::default()));
        let (sender, down) = mpsc::channel(DOWN_MAX);
        let runner = Runner {
            options: mqtt_options(options, client_id)?,
            target: options.target.clone(),
            client_id: client_id.to_owned(),
            filters,
            shared: Arc::clone(&shared),
            down: sender,
        };
        Ok(Self { shared, down, task: tokio::spawn(runner.run()) })
    }

    /// What comes next. After [`Down::Ended`] there is nothing more.
    pub async fn next(&mut self) -> Option<Down> {
        self.down.recv().await
    }

    /// Hands a publish to the connection; `false`: it takes none at the moment.
    pub fn try_publish(&self, publish: &Publish) -> bool {
        let mut shared = lock(&self.shared);
        let qos = match publish.effort {
            Effort::UntilAnswered => QoS::AtLeastOnce,
            Effort::Once => QoS::AtMostOnce,
        };
        let Some(client) = &shared.client else { return false };
        if shared.unnumbered.len() + shared.unanswered.len() >= UNANSWERED_MAX {
            return false;
        }
        if client.try_publish(publish.topic.as_str(), qos, false, publish.payload.clone()).is_err() {
            return false;
        }
        if qos == QoS::AtLeastOnce {
            shared.unnumbered.push_back(publish.token);
        }
        true
    }

    /// Tells the broker that a delivery has been dealt with. On a connection that is gone this does nothing: it comes again.
    pub fn acknowledge(&self, delivery: &Delivery) {
        if let Some(client) = &lock(&self.shared).client {
            let _ = client.try_ack(&delivery.packet);
        }
    }

    /// Leaves: what was published goes out, then the connection ends.
    pub async fn close(mut self) {
        // The task must not wait for somebody who reads no more.
        self.down.close();
        let client = lock(&self.shared).client.clone();
        if client.is_some_and(|client| client.try_disconnect().is_ok()) {
            let _ = tokio::time::timeout(FAREWELL, &mut self.task).await;
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    // Nothing is left half done under this lock.
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The task that connects, reads, and connects again.
struct Runner {
    options: MqttOptions,
    target: Target,
    client_id: String,
    filters: Vec<Subscription>,
    shared: Arc<Mutex<Shared>>,
    down: mpsc::Sender<Down>,
}

/// How one connection ended.
enum End {
    Fatal(ConnectError),
    Lost(String),
    /// Nobody wants to know any more.
    Unwanted,
}

impl Runner {
    async fn run(self) {
        let mut failures = 0_usize;
        loop {
            let (client, mut events) = AsyncClient::new(self.options.clone(), REQUESTS_MAX);
            let mut since = None;
            let end = self.live(&client, &mut events, &mut since).await;
            *lock(&self.shared) = Shared::default();
            let was_good = since.is_some_and(|since: Instant| since.elapsed() >= GOOD);
            failures = if was_good { 0 } else { failures + 1 };
            let why = match end {
                End::Unwanted => return,
                End::Fatal(error) => {
                    let _ = self.down.send(Down::Ended(error)).await;
                    return;
                }
                End::Lost(why) => why,
            };
            let retry_in = pause(failures, random());
            if self.down.send(Down::Lost { why, retry_in }).await.is_err() {
                return;
            }
            tokio::time::sleep(retry_in).await;
        }
    }

    /// One connection, from CONNECT to its end.
    async fn live(&self, client: &AsyncClient, events: &mut EventLoop, since: &mut Option<Instant>) -> End {
        loop {
            let event = match events.poll().await {
                Ok(event) => event,
                Err(error) => return self.judge(&error),
            };
            let down = match event {
                Event::Incoming(Packet::ConnAck(_)) => {
                    let filters = self.filters.iter().map(|(filter, qos)| Filter::new(filter, *qos));
                    if self.filters.is_empty() {
                        *since = Some(Instant::now());
                        lock(&self.shared).client = Some(client.clone());
                        Down::Connected
                    } else if client.try_subscribe_many(filters).is_err() {
                        return End::Lost("the subscriptions could not be sent".to_owned());
                    } else {
                        // Acknowledgements of what comes before the SUBACK must find the client.
                        lock(&self.shared).client = Some(client.clone());
                        continue;
                    }
                }
                Event::Incoming(Packet::SubAck(ack)) => {
                    let refused = ack.return_codes.iter().zip(&self.filters);
                    let mut refused = refused.filter(|(code, _)| !matches!(code, SubscribeReasonCode::Success(_)));
                    if let Some((code, (filter, _))) = refused.next() {
                        let (filter, code) = (filter.clone(), *code);
                        return End::Fatal(ConnectError::Subscription { filter, code });
                    }
                    *since = Some(Instant::now());
                    Down::Connected
                }
                Event::Incoming(Packet::Publish(packet)) => match String::from_utf8(packet.topic.to_vec()) {
                    Ok(topic) => Down::Message(Delivery {
                        topic,
                        payload: packet.payload.to_vec(),
                        is_retained: packet.retain,
                        packet: Box::new(packet),
                    }),
                    Err(_) => continue,
                },
                Event::Outgoing(Outgoing::Publish(number)) if number != 0 => {
                    let mut shared = lock(&self.shared);
                    if let Some(token) = shared.unnumbered.pop_front() {
                        shared.unanswered.insert(number, token);
                    }
                    continue;
                }
                Event::Incoming(Packet::PubAck(ack)) => match lock(&self.shared).unanswered.remove(&ack.pkid) {
                    Some(token) => Down::Answered { token, answer: answer(&ack) },
                    None => continue,
                },
                Event::Outgoing(Outgoing::Disconnect) => return End::Unwanted,
                _ => continue,
            };
            // Whoever listened may be leaving: go on until the farewell is sent.
            let _ = self.down.send(down).await;
        }
    }

    fn judge(&self, error: &ConnectionError) -> End {
        let target = self.target.clone();
        match error {
            ConnectionError::ConnectionRefused(code) => match code {
                ConnectReturnCode::BadUserNamePassword => End::Fatal(ConnectError::Credentials(target)),
                ConnectReturnCode::NotAuthorized
                | ConnectReturnCode::ClientIdentifierNotValid
                | ConnectReturnCode::Banned
                | ConnectReturnCode::BadAuthenticationMethod
                | ConnectReturnCode::UnsupportedProtocolVersion => {
                    End::Fatal(ConnectError::Refused { target, code: *code })
                }
                code => End::Lost(format!("the broker refuses at the moment: {code:?}")),
            },
            ConnectionError::MqttState(StateError::ServerDisconnect { reason_code, reason_string }) => {
                match reason_code {
                    DisconnectReasonCode::SessionTakenOver => {
                        End::Fatal(ConnectError::TakenOver(self.client_id.clone()))
                    }
                    DisconnectReasonCode::AdministrativeAction => End::Fatal(ConnectError::Kicked),
                    code => {
                        let text = reason_string.as_ref().map(|text| format!(" ({text})")).unwrap_or_default();
                        End::Lost(format!("the broker ended the connection: {code:?}{text}"))
                    }
                }
            }
            ConnectionError::Tls(error) => End::Fatal(ConnectError::Tls { target, why: error.to_string() }),
            ConnectionError::Timeout(_) => End::Lost(format!("{target} does not answer")),
            ConnectionError::Io(error) => End::Lost(format!("{target}: {error}")),
            ConnectionError::MqttState(StateError::ConnectionAborted) => End::Lost("the connection broke".to_owned()),
            error => End::Lost(error.to_string()),
        }
    }
}

/// The pause after so many failed attempts: longer each time, and never the same for everybody.
fn pause(failures: usize, random: u64) -> Duration {
    let at = failures.saturating_sub(1).min(PAUSES_MS.len() - 1);
    let base = PAUSES_MS[at];
    Duration::from_millis(base * 3 / 4 + random % (base / 2))
}

fn answer(ack: &PubAck) -> Answer {
    let properties = ack.properties.as_ref();
    let property = |name: &str| {
        let mut all = properties.map(|p| p.user_properties.iter()).into_iter().flatten();
        all.find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    };
    match ack.reason {
        PubAckReason::Success | PubAckReason::NoMatchingSubscribers => Answer::Accepted {
            seq: property("im-seq").and_then(|seq| seq.parse().ok()),
            dup: property("im-dup").is_some_and(|dup| dup != "0" && dup != "false"),
        },
        code => Answer::refused(properties.and_then(|p| p.reason_string.as_deref()), &format!("{code:?}")),
    }
}

fn mqtt_options(options: &Options, client_id: &str) -> Result<MqttOptions, ConnectError> {
    let mut mqtt = MqttOptions::new(client_id, options.target.host.clone(), options.target.port);
    let own = |name: &str, value: String| (name.to_owned(), value);
    mqtt.set_connect_properties(ConnectProperties {
        receive_maximum: Some(RECEIVE_MAX),
        max_packet_size: Some(PACKET_BYTES_MAX),
        user_properties: vec![
            own("im-level", LEVEL.to_string()),
            own("im-platform", "terminal".to_owned()),
            own("im-app", concat!("parlor/", env!("CARGO_PKG_VERSION")).to_owned()),
        ],
        ..ConnectProperties::new()
    });
    mqtt.set_credentials(options.user.clone(), options.password.0.clone());
    mqtt.set_keep_alive(KEEP_ALIVE).set_clean_start(true).set_manual_acks(true);
    mqtt.set_connection_timeout(ATTEMPT.as_secs());
    if options.target.security == Security::Tls {
        mqtt.set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(tls(options)?)));
    }
    Ok(mqtt)
}

fn tls(options: &Options) -> Result<Arc<rustls::ClientConfig>, ConnectError> {
    let mut roots = rustls::RootCertStore::empty();
    match &options.ca {
        Some(path) => {
            let failed = |why: String| ConnectError::Certificates { path: path.clone(), why };
            for certificate in CertificateDer::pem_file_iter(path).map_err(|error| failed(error.to_string()))? {
                let certificate = certificate.map_err(|error| failed(error.to_string()))?;
                roots.add(certificate).map_err(|error| failed(error.to_string()))?;
            }
            if roots.is_empty() {
                return Err(failed("there is none in it".to_owned()));
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if roots.is_empty() {
                return Err(ConnectError::NoAuthorities);
            }
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| ConnectError::Tls { target: options.target.clone(), why: error.to_string() })?;
    Ok(Arc::new(config.with_root_certificates(roots).with_no_client_auth()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rumqttc::v5::mqttbytes::v5::PubAckProperties;

    #[test]
    fn pauses_grow_and_differ() {
        for (failures, least, most) in
            [(0, 187, 312), (1, 187, 312), (2, 375, 625), (7, 11_250, 18_750), (99, 11_250, 18_750)]
        {
            for random in [0, 1, 77_777, u64::MAX] {
                let pause = pause(failures, random).as_millis();
                assert!((least..=most).contains(&pause), "{failures}: {pause}");
            }
        }
    }

    #[test]
    fn acknowledgements_are_read() {
        let ack = |reason, reason_string: Option<&str>, own: &[(&str, &str)]| {
            answer(&PubAck {
                pkid: 1,
                reason,
                properties: Some(PubAckProperties {
                    reason_string: reason_string.map(str::to_owned),
                    user_properties: own.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
                }),
            })
        };
        assert_eq!(
            ack(PubAckReason::Success, None, &[("im-seq", "7"), ("im-dup", "1")]),
            Answer::Accepted { seq: Some(7), dup: true }
        );
        assert_eq!(ack(PubAckReason::NoMatchingSubscribers, None, &[]), Answer::Accepted { seq: None, dup: false });
        assert_eq!(
            ack(PubAckReason::NotAuthorized, Some("blocked: bob has blocked you"), &[]),
            Answer::Refused { code: "blocked".into(), text: "bob has blocked you".into() }
        );
        let expect = Answer::Refused { code: "QuotaExceeded".into(), text: "the broker gave no reason".into() };
        assert_eq!(ack(PubAckReason::QuotaExceeded, None, &[]), expect);
    }
}
