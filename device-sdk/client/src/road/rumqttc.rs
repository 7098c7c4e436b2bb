//! MQTT 5 over TCP, TLS and WebSocket by rumqttc, one client of it for each connection, so that nothing of a dead one lives on.

use super::{Delivery, Down, End, Login, PACKET_BYTES_MAX, RECEIVE_MAX, Up, tls};
use crate::error::ConnectError;
use crate::model::event::Answer;
use crate::model::up::{Effort, Publish};
use crate::options::{Filter, Quality};
use crate::target::Scheme;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{
    ConnectProperties, ConnectReturnCode, DisconnectReasonCode, Filter as MqttFilter, Packet, PubAck, PubAckReason,
    Publish as MqttPublish, SubAck, SubscribeReasonCode,
};
use rumqttc::v5::{AsyncClient, ConnectionError, Event, EventLoop, MqttOptions, StateError};
use rumqttc::{Outgoing, TlsConfiguration, Transport};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;

/// Publishes without an answer at a time: fewer than rumqttc has packet identifiers for.
pub(super) const WINDOW: usize = 16;
/// Requests that wait for rumqttc: every acknowledgement and every publish there can be.
const REQUESTS_MAX: usize = 256;

/// What both directions need.
#[derive(Default)]
struct Shared {
    /// Tokens of publishes that rumqttc has not given a packet identifier yet, in its order.
    unnumbered: VecDeque<u64>,
    /// Tokens by packet identifier.
    unanswered: BTreeMap<u16, u64>,
    /// Deliveries that were not acknowledged yet.
    deliveries: BTreeMap<u64, MqttPublish>,
    delivered: u64,
    /// Subscriptions that wait for their SUBACK, in order, and whether they are those of the beginning.
    subscribing: VecDeque<(Vec<Filter>, Begins)>,
}

/// Whether a connection stands with a SUBACK.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Begins {
    Connection,
    Nothing,
}

/// Lives one connection.
pub(super) async fn run(
    login: Arc<Login>,
    options: MqttOptions,
    filters: Vec<Filter>,
    ups: mpsc::Receiver<Up>,
    down: mpsc::Sender<Down>,
) {
    let (client, events) = AsyncClient::new(options, REQUESTS_MAX);
    let shared = Mutex::new(Shared::default());
    let reader = Reader { login, client: client.clone(), filters, shared: &shared, down: down.clone() };
    let end = tokio::select! {
        end = reader.run(events) => end,
        () = write(client, ups, &shared) => return,
    };
    if let Some(end) = end {
        let _ = down.send(Down::Ended(end)).await;
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    // Nothing is left half done under this lock.
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Carries up what the engine hands in; ends never by itself.
async fn write(client: AsyncClient, mut ups: mpsc::Receiver<Up>, shared: &Mutex<Shared>) {
    while let Some(up) = ups.recv().await {
        // What cannot be handed over belongs to a connection that is gone; the reader says so.
        let _ = match up {
            Up::Publish(Publish { token, topic, payload, effort, retain, .. }) => {
                let qos = match effort {
                    Effort::UntilAnswered => QoS::AtLeastOnce,
                    Effort::Once => QoS::AtMostOnce,
                };
                if qos == QoS::AtLeastOnce {
                    lock(shared).unnumbered.push_back(token);
                }
                client.publish(topic, qos, retain, payload).await
            }
            Up::Acknowledge(number) => {
                let delivery = lock(shared).deliveries.remove(&number);
                match delivery {
                    Some(delivery) => client.ack(&delivery).await,
                    None => Ok(()),
                }
            }
            Up::Subscribe(filter) => {
                let wanted = mqtt_filter(&filter);
                lock(shared).subscribing.push_back((vec![filter], Begins::Nothing));
                client.subscribe_many([wanted]).await
            }
            Up::Unsubscribe(filter) => client.unsubscribe(filter).await,
            Up::Rebind => Ok(()),
            Up::Close => client.disconnect().await,
        };
    }
    // The engine has left; the reader ends with the connection.
    std::future::pending::<()>().await;
}

struct Reader<'a> {
    login: Arc<Login>,
    client: AsyncClient,
    filters: Vec<Filter>,
    shared: &'a Mutex<Shared>,
    down: mpsc::Sender<Down>,
}

impl Reader<'_> {
    /// Until the connection ends; `None`: as it was asked to.
    async fn run(self, mut events: EventLoop) -> Option<End> {
        loop {
            let event = match events.poll().await {
                Ok(event) => event,
                Err(error) => return Some(self.judge(&error)),
            };
            let downs = match event {
                Event::Incoming(Packet::ConnAck(_)) if self.filters.is_empty() => vec![Down::Connected],
                Event::Incoming(Packet::ConnAck(_)) => {
                    lock(self.shared).subscribing.push_back((self.filters.clone(), Begins::Connection));
                    let filters = self.filters.iter().map(mqtt_filter);
                    if self.client.try_subscribe_many(filters).is_err() {
                        return Some(End::Lost("the subscriptions could not be sent".to_owned()));
                    }
                    continue;
                }
                Event::Incoming(Packet::SubAck(ack)) => match self.subscribed(&ack) {
                    Ok(downs) => downs,
                    Err(error) => return Some(End::Fatal(error)),
                },
                Event::Incoming(Packet::Publish(packet)) => self.delivered(packet).into_iter().collect(),
                Event::Outgoing(Outgoing::Publish(number)) if number != 0 => {
                    let mut shared = lock(self.shared);
                    if let Some(token) = shared.unnumbered.pop_front() {
                        shared.unanswered.insert(number, token);
                    }
                    continue;
                }
                Event::Incoming(Packet::PubAck(ack)) => {
                    let token = lock(self.shared).unanswered.remove(&ack.pkid);
                    token.map(|token| Down::Answered { token, answer: answer(&ack) }).into_iter().collect()
                }
                Event::Outgoing(Outgoing::Disconnect) => return None,
                _ => continue,
            };
            for down in downs {
                // Whoever listened may be leaving: go on until the farewell is sent.
                let _ = self.down.send(down).await;
            }
        }
    }

    fn delivered(&self, packet: MqttPublish) -> Option<Down> {
        let topic = String::from_utf8(packet.topic.to_vec()).ok()?;
        let (payload, is_retained) = (packet.payload.to_vec(), packet.retain);
        let number = (packet.qos != QoS::AtMostOnce).then(|| {
            let mut shared = lock(self.shared);
            shared.delivered += 1;
            let number = shared.delivered;
            shared.deliveries.insert(number, packet);
            number
        });
        Some(Down::Message(Delivery { topic, payload, is_retained, number }))
    }

    /// The first SUBACK is that of the beginning, with which the connection stands.
    fn subscribed(&self, ack: &SubAck) -> Result<Vec<Down>, ConnectError> {
        let Some((filters, begins)) = lock(self.shared).subscribing.pop_front() else { return Ok(Vec::new()) };
        let own = self.login.options.listen.filters();
        let mut downs = Vec::new();
        for (code, filter) in ack.return_codes.iter().zip(&filters) {
            if matches!(code, SubscribeReasonCode::Success(_)) {
                continue;
            }
            let (why, name) = (format!("{code:?}"), filter.filter.clone());
            if own.contains(filter) {
                return Err(ConnectError::Subscription { filter: name, why });
            }
            downs.push(Down::NotSubscribed { filter: name, why });
        }
        if begins == Begins::Connection {
            downs.push(Down::Connected);
        }
        Ok(downs)
    }

    fn judge(&self, error: &ConnectionError) -> End {
        let target = self.login.target.clone();
        match error {
            ConnectionError::ConnectionRefused(code) => match code {
                ConnectReturnCode::BadUserNamePassword => End::Fatal(ConnectError::Credentials(target)),
                ConnectReturnCode::NotAuthorized
                | ConnectReturnCode::ClientIdentifierNotValid
                | ConnectReturnCode::Banned
                | ConnectReturnCode::BadAuthenticationMethod
                | ConnectReturnCode::UnsupportedProtocolVersion => {
                    End::Fatal(ConnectError::Refused { target, why: format!("{code:?}") })
                }
                code => End::Lost(format!("the broker refuses at the moment: {code:?}")),
            },
            ConnectionError::MqttState(StateError::ServerDisconnect { reason_code, reason_string }) => {
                match reason_code {
                    DisconnectReasonCode::SessionTakenOver => {
                        End::Fatal(ConnectError::TakenOver(self.login.terminal.clone()))
                    }
                    DisconnectReasonCode::AdministrativeAction => End::Fatal(ConnectError::Kicked),
                    code => {
                        let text = reason_string.as_ref().map(|text| format!(" ({text})")).unwrap_or_default();
                        End::Lost(format!("the broker ended the connection: {code:?}{text}"))
                    }
                }
            }
            // Only what rustls says is about certificates and versions; a line can break in the midst of a handshake.
            ConnectionError::Tls(rumqttc::TlsError::Io(error))
                if !error.get_ref().is_some_and(<dyn std::error::Error + Send + Sync>::is::<rustls::Error>) =>
            {
                End::Lost(format!("{target}: {error}"))
            }
            ConnectionError::Tls(error) => End::Fatal(ConnectError::Tls { target, why: error.to_string() }),
            ConnectionError::Timeout(_) => End::Lost(format!("{target} does not answer")),
            ConnectionError::Io(error) => End::Lost(format!("{target}: {error}")),
            ConnectionError::MqttState(StateError::ConnectionAborted) => End::Lost("the connection broke".to_owned()),
            error => End::Lost(error.to_string()),
        }
    }
}

fn mqtt_filter(filter: &Filter) -> MqttFilter {
    let qos = match filter.quality {
        Quality::AtMostOnce => QoS::AtMostOnce,
        Quality::AtLeastOnce => QoS::AtLeastOnce,
    };
    MqttFilter::new(filter.filter.clone(), qos)
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

/// What rumqttc needs to know for every connection.
pub(super) fn mqtt_options(login: &Login) -> Result<MqttOptions, ConnectError> {
    let Login { target, options, .. } = login;
    let host = match target.scheme {
        Scheme::Ws | Scheme::Wss => target.to_string(),
        _ => target.host.clone(),
    };
    let mut mqtt = MqttOptions::new(login.terminal.as_str(), host, target.port);
    let own = |name: &str, value: String| (name.to_owned(), value);
    mqtt.set_connect_properties(ConnectProperties {
        receive_maximum: Some(RECEIVE_MAX),
        max_packet_size: Some(PACKET_BYTES_MAX),
        user_properties: vec![
            own("im-level", options.level.to_string()),
            own("im-platform", options.platform.clone()),
            own("im-app", options.app.clone()),
        ],
        ..ConnectProperties::new()
    });
    mqtt.set_credentials(login.user.clone(), login.password.clone());
    // rumqttc takes no less.
    mqtt.set_keep_alive(options.keep_alive.max(Duration::from_secs(5))).set_clean_start(true).set_manual_acks(true);
    mqtt.set_connection_timeout(options.attempt.as_secs().max(1));
    let tls = || Ok::<_, ConnectError>(TlsConfiguration::Rustls(Arc::new(tls::config(login, &[])?)));
    match target.scheme {
        Scheme::Mqtts => mqtt.set_transport(Transport::tls_with_config(tls()?)),
        Scheme::Ws => mqtt.set_transport(Transport::ws()),
        Scheme::Wss => mqtt.set_transport(Transport::wss_with_config(tls()?)),
        _ => mqtt.set_transport(Transport::tcp()),
    };
    Ok(mqtt)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rumqttc::v5::mqttbytes::v5::PubAckProperties;

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
