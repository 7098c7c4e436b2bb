//! The roads over QUIC against a server of quinn's: early beginnings, moves, and whom to trust.

use super::{Down, End, Login, RealRoads, Road, Roads, Up};
use crate::error::ConnectError;
use crate::model::up::{Effort, Publish};
use crate::options::{Filter, Listen, Options};
use crate::store::tests::Directory;
use crate::target::Target;
use parlor_protocol::mqtt::{Ack, ConnAck, Packet, Properties, PropertyPlace, ReasonCode, SubAck, Version, decode};
use quinn::crypto::rustls::QuicServerConfig;
use quinn::{Endpoint, RecvStream, SendStream, ServerConfig};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(10);

/// What the server saw: payloads, and whether they came before the handshake was complete.
type Seen = Arc<Mutex<Vec<(String, bool, SocketAddr)>>>;

struct Server {
    endpoint: Endpoint,
    certificate: rcgen::CertifiedKey<rcgen::KeyPair>,
    seen: Seen,
}

impl Server {
    fn start() -> Self {
        let certificate = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let config = server_config(&certificate);
        let endpoint = Endpoint::server(config, (Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let seen = Seen::default();
        tokio::spawn(accept(endpoint.clone(), Arc::clone(&seen)));
        Self { endpoint, certificate, seen }
    }

    /// As after a restart: what connections were is forgotten.
    fn forget(&self) {
        self.endpoint.set_server_config(Some(server_config(&self.certificate)));
    }

    fn login(&self, directory: &Directory, options: Options) -> Login {
        let ca = directory.0.join("ca.pem");
        std::fs::write(&ca, self.certificate.cert.pem()).unwrap();
        let url = format!("mqtt+quic://localhost:{}", self.endpoint.local_addr().unwrap().port());
        let listen = Listen::Only(vec![Filter::at_least_once("home/#")]);
        let options = Options { ca: options.pin.is_none().then_some(ca), listen, ..options };
        let (user, password, terminal) = ("alice".to_owned(), "secret".to_owned(), "t1".to_owned());
        Login { target: Target::parse(&url).unwrap().0, user, password, terminal, options }
    }
}

fn server_config(certificate: &rcgen::CertifiedKey<rcgen::KeyPair>) -> ServerConfig {
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(certificate.signing_key.serialize_der()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.cert.der().clone()], key)
        .unwrap();
    tls.alpn_protocols = vec![b"mqtt".to_vec()];
    tls.max_early_data_size = u32::MAX;
    ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls).unwrap()))
}

async fn accept(endpoint: Endpoint, seen: Seen) {
    while let Some(incoming) = endpoint.accept().await {
        let seen = Arc::clone(&seen);
        tokio::spawn(async move {
            let Ok((connection, _)) = incoming.accept().unwrap().into_0rtt() else { return };
            let Ok((send, recv)) = connection.accept_bi().await else { return };
            serve(&connection, send, recv, &seen).await;
        });
    }
}

async fn serve(connection: &quinn::Connection, mut send: SendStream, mut recv: RecvStream, seen: &Seen) {
    let is_early = recv.is_0rtt();
    let mut bytes = Vec::new();
    while let Ok(Some(chunk)) = recv.read_chunk(4_096, true).await {
        bytes.extend_from_slice(&chunk.bytes);
        let (mut at, mut out) = (0, Vec::new());
        while let Ok(Some((packet, len))) = decode(&bytes[at..], Version::V5, 65_536) {
            let properties = Properties::EMPTY;
            let mut put = |packet: Packet<'_>| packet.encode(Version::V5, &mut out);
            match packet {
                Packet::Connect(_) => {
                    put(Packet::ConnAck(ConnAck { session_present: false, reason: ReasonCode::SUCCESS, properties }));
                }
                Packet::Subscribe(subscribe) => {
                    let reasons = vec![1; subscribe.filters.iter().count()];
                    put(Packet::SubAck(SubAck { packet_id: subscribe.packet_id, properties, reasons: &reasons }));
                }
                Packet::Publish(publish) => {
                    let text = String::from_utf8_lossy(publish.payload).into_owned();
                    seen.lock().unwrap().push((text, is_early, connection.remote_address()));
                    let mut own = Vec::new();
                    parlor_protocol::mqtt::Property::UserProperty("im-seq", "7").encode(&mut own);
                    let properties = Properties::parse(&own, PropertyPlace::Ack).unwrap();
                    let packet_id = publish.packet_id.unwrap();
                    put(Packet::PubAck(Ack { packet_id, reason: ReasonCode::SUCCESS, properties }));
                }
                Packet::Disconnect(_) => connection.close(0_u32.into(), b"bye"),
                _ => {}
            }
            at += len;
        }
        bytes.drain(..at);
        if send.write_all(&out).await.is_err() {
            return;
        }
    }
}

fn message(token: u64) -> Up {
    let (topic, payload) = ("im/v1/to/bob/msg".to_owned(), format!("m{token}").into_bytes());
    Up::Publish(Publish { token, topic, payload, effort: Effort::UntilAnswered, retain: false, is_idempotent: true })
}

async fn next(road: &mut Road) -> Down {
    timeout(PATIENCE, road.down.recv()).await.expect("something comes").expect("the road goes on")
}

/// What comes until the answer to `token`, as words.
async fn until_answered(road: &mut Road, token: u64) -> Vec<&'static str> {
    let mut words = Vec::new();
    loop {
        match next(road).await {
            Down::Early => words.push("early"),
            Down::Connected => words.push("connected"),
            Down::Answered { token: found, .. } if found == token => return words,
            other => panic!("{other:?} after {words:?}"),
        }
    }
}

fn open(roads: &mut RealRoads) -> Road {
    roads.open(vec![Filter::at_least_once("home/#")])
}

async fn leave(mut road: Road) {
    road.up.send(Up::Close).await.unwrap();
    while timeout(PATIENCE, road.down.recv()).await.expect("it ends").is_some() {}
}

#[tokio::test]
async fn the_second_connection_begins_early_and_one_that_is_not_accepted_begins_again() {
    let (server, directory) = (Server::start(), Directory::new("early"));
    let mut roads = RealRoads::new(server.login(&directory, Options::default())).unwrap();
    let mut road = open(&mut roads);
    assert!(matches!(next(&mut road).await, Down::Connected), "the first one knows nothing yet");
    road.up.send(message(1)).await.unwrap();
    assert!(until_answered(&mut road, 1).await.is_empty());
    leave(road).await;
    let mut road = open(&mut roads);
    assert!(matches!(next(&mut road).await, Down::Early));
    road.up.send(message(2)).await.unwrap();
    assert_eq!(until_answered(&mut road, 2).await, ["connected"]);
    leave(road).await;
    server.forget();
    let mut road = open(&mut roads);
    assert!(matches!(next(&mut road).await, Down::Early));
    road.up.send(message(3)).await.unwrap();
    assert_eq!(until_answered(&mut road, 3).await, ["connected"]);
    leave(road).await;
    let seen: Vec<(String, bool)> = server.seen.lock().unwrap().iter().map(|(m, e, _)| (m.clone(), *e)).collect();
    let expect = [("m1".to_owned(), false), ("m2".to_owned(), true), ("m3".to_owned(), false)];
    assert_eq!(seen, expect, "what was not accepted early arrives once");
}

#[tokio::test]
async fn a_connection_goes_on_from_another_address() {
    let (server, directory) = (Server::start(), Directory::new("move"));
    let mut roads = RealRoads::new(server.login(&directory, Options::default())).unwrap();
    let mut road = open(&mut roads);
    road.up.send(message(1)).await.unwrap();
    until_answered(&mut road, 1).await;
    road.up.send(Up::Rebind).await.unwrap();
    road.up.send(message(2)).await.unwrap();
    assert!(until_answered(&mut road, 2).await.is_empty(), "it is the same connection");
    // The server follows as soon as a packet from there was read.
    road.up.send(message(3)).await.unwrap();
    until_answered(&mut road, 3).await;
    let ports: Vec<u16> = server.seen.lock().unwrap().iter().map(|(_, _, from)| from.port()).collect();
    assert_ne!(ports[0], ports[2], "{ports:?}");
    leave(road).await;
}

#[tokio::test]
async fn only_who_is_known_is_trusted() {
    let (server, directory) = (Server::start(), Directory::new("trust"));
    let digest = ring::digest::digest(&ring::digest::SHA256, server.certificate.cert.der());
    let pin: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    let mut roads = RealRoads::new(server.login(&directory, Options { pin: Some(pin), ..Options::default() })).unwrap();
    assert!(matches!(next(&mut open(&mut roads)).await, Down::Connected));
    let wrong = Options { pin: Some("00".repeat(32)), ..Options::default() };
    let mut roads = RealRoads::new(server.login(&directory, wrong)).unwrap();
    let end = next(&mut open(&mut roads)).await;
    assert!(matches!(end, Down::Ended(End::Fatal(ConnectError::Tls { .. }))), "{end:?}");
    let other = Server::start();
    let mut login = server.login(&directory, Options::default());
    std::fs::write(directory.0.join("ca.pem"), other.certificate.cert.pem()).unwrap();
    let mut roads = RealRoads::new(login.clone()).unwrap();
    let end = next(&mut open(&mut roads)).await;
    assert!(matches!(end, Down::Ended(End::Fatal(ConnectError::Tls { .. }))), "{end:?}");
    // Nobody speaks the native link there.
    login.target.scheme = crate::target::Scheme::Parlor;
    login = Login { target: login.target, ..server.login(&directory, Options::default()) };
    let mut roads = RealRoads::new(login).unwrap();
    let end = next(&mut open(&mut roads)).await;
    assert!(matches!(&end, Down::Ended(End::Fatal(error)) if error.to_string().contains("nobody speaks")), "{end:?}");
}

#[tokio::test]
async fn nobody_there_is_no_reason_to_give_up() {
    let directory = Directory::new("nobody");
    let mut login =
        Server::start().login(&directory, Options { attempt: Duration::from_millis(50), ..Options::default() });
    // Nothing answers on the port that discards everything.
    login.target.port = 9;
    let mut roads = RealRoads::new(login).unwrap();
    let end = next(&mut open(&mut roads)).await;
    assert!(matches!(end, Down::Ended(End::Lost(_))), "{end:?}");
}
