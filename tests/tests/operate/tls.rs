//! TLS and WebSocket listeners: certificates of clients as accounts, and certificates that change while clients are there.

use super::tools::*;
use super::transport::{Ca, Issued, Way, der};
use std::process::Command;

const TLS: &str = "mqtts://127.0.0.1:0";

/// Writes the server's files and gives the flags that use them.
fn server(dir: &Dir, ca: &Ca) -> Vec<String> {
    let issued = ca.issue("localhost");
    put_server(dir, &issued);
    vec![
        "--set".to_owned(),
        format!("tls.certificate={}", dir.name("server.pem")),
        "--set".to_owned(),
        format!("tls.key={}", dir.name("server.key")),
    ]
}

fn put_server(dir: &Dir, issued: &Issued) {
    dir.put("server.key", &issued.key);
    dir.put("server.pem", &issued.certificate);
}

fn start(flags: &[String], more: &[&str]) -> Broker {
    let flags: Vec<&str> = flags.iter().map(String::as_str).chain(more.iter().copied()).collect();
    Broker::start(&flags)
}

/// Connects over TLS without knowing whether that will work.
fn try_connect(broker: &Broker, way: &Way, connect: &Connect) -> Result<Packet, Lost> {
    connect.send_to(&way.to(broker.address("mqtts"))).try_recv(PATIENCE)
}

/// A client certificate is an account: its name, and no password. Without one, with a stranger's, or with one that names
/// no account, nobody comes in.
#[test]
fn a_client_certificate_is_an_account() {
    let (dir, ca, clients) = (Dir::new(), Ca::new("servers"), Ca::new("clients"));
    let mut flags = server(&dir, &ca);
    dir.put("clients.pem", &clients.certificate);
    flags.extend(["--set".to_owned(), format!("tls.client_ca={}", dir.name("clients.pem"))]);
    let broker = start(
        &flags,
        &["--listen", TLS, "--set", "tls.client_certificate=required", "--set", NO_ANONYMOUS, "--log-level", "debug"],
    );
    broker.add_account("lamp", "not-used-here");
    let at = broker.address("mqtts");
    let lamp = clients.issue("lamp");
    let way = Way::tls(&ca.client(Some(&lamp)));
    let mut client = Connect::v5("lamp-1").to(&way.to(at));
    client.subscribe("t", 1);
    assert_eq!(client.say(1, "t", "over TLS"), 0);
    assert_eq!(client.message().text(), "over TLS");
    let operator = Operator::of(&broker);
    let seen = operator.see("/sessions/lamp-1");
    assert_eq!(seen["account"], "lamp");
    assert!(seen["connection"]["listener"].as_str().is_some_and(|name| name.starts_with("mqtts://")), "{seen}");

    assert_eq!(Connect::v5("x").username("other").refused(&way.to(at)), 0x86, "a user name beside it must be the same");
    let mut named = Connect::v5("y").username("lamp").to(&way.to(at));
    named.quiet();
    let stranger = Way::tls(&ca.client(Some(&clients.issue("stranger"))));
    assert!([0x86, 0x87].contains(&Connect::v5("z").refused(&stranger.to(at))), "no such account");

    let before = operator.metrics();
    let without = Way::tls(&ca.client(None));
    assert_eq!(try_connect(&broker, &without, &Connect::v5("n")), Err(Lost::Closed), "a certificate is required");
    let forged = Way::tls(&ca.client(Some(&Ca::new("clients").issue("lamp"))));
    assert_eq!(try_connect(&broker, &forged, &Connect::v5("f")), Err(Lost::Closed), "of another authority");
    operator.until("both refusals are counted", |operator| {
        let metrics = operator.metrics();
        let moved = |label: &str| {
            let sample = format!("parlor_packets_refused_total{{reason=\"{label}\"}}");
            metrics.count(&sample) - before.count(&sample)
        };
        (moved("tls_no_certificate") == 1 && moved("tls_bad_certificate") == 1).then_some(())
    });
    broker.await_log("tls_no_certificate");
    client.quiet();
    broker.signal("TERM");
    client.thrown_out(&[0x8B]);
}

/// With an optional certificate, those without one log in with a password over the same listener.
#[test]
fn certificates_can_be_optional() {
    let (dir, ca, clients) = (Dir::new(), Ca::new("servers"), Ca::new("clients"));
    let mut flags = server(&dir, &ca);
    dir.put("clients.pem", &clients.certificate);
    flags.extend(["--set".to_owned(), format!("tls.client_ca={}", dir.name("clients.pem"))]);
    let broker = start(&flags, &["--listen", TLS, "--set", NO_ANONYMOUS]);
    broker.add_account("lamp", "a-good-password");
    let at = broker.address("mqtts");
    let way = Way::tls(&ca.client(None));
    Connect::v5("a").username("lamp").password("a-good-password").to(&way.to(at)).quiet();
    assert_eq!(Connect::v5("b").refused(&way.to(at)), 0x87);
    Connect::v5("c").to(&Way::tls(&ca.client(Some(&clients.issue("lamp")))).to(at)).quiet();
}

/// Changed certificate files are noticed without a signal: new connections see the new certificate, the old ones go on. A
/// file that cannot be used is reported, and the old one stays. SIGHUP reads them at once.
#[test]
fn certificates_change_without_dropping_anyone() {
    let (dir, ca, clients) = (Dir::new(), Ca::new("servers"), Ca::new("clients"));
    let mut flags = server(&dir, &ca);
    dir.put("clients.pem", &clients.certificate);
    flags.extend(["--set".to_owned(), format!("tls.client_ca={}", dir.name("clients.pem"))]);
    let broker = start(&flags, &["--listen", TLS]);
    let at = broker.address("mqtts");
    let lamp = clients.issue("lamp");
    broker.add_account("lamp", "not-used-here");
    let way = Way::tls(&ca.client(Some(&lamp)));
    let first = way.to(at);
    let mut old = Connect::v5("old").to(&first);

    let mark = broker.log().len();
    let renewed = ca.issue("localhost");
    put_server(&dir, &renewed);
    broker.await_log_after(mark, "was read again");
    let second = way.to(at);
    assert_ne!(first.server, second.server);
    assert_eq!(second.server, Some(der(&renewed.certificate)));
    Connect::v5("new").to(&second).quiet();
    old.quiet();

    let mark = broker.log().len();
    dir.put("server.pem", "-----BEGIN nonsense");
    broker.signal("HUP");
    let line = broker.await_log_after(mark, "the old one stays in use");
    assert!(line.contains(&dir.name("server.pem")), "{line}");
    let third = way.to(at);
    assert_eq!(third.server, second.server);
    Connect::v5("newer").to(&third).quiet();

    // Other authorities for clients: who was let in stays, who comes now is judged by the new ones.
    put_server(&dir, &renewed);
    dir.put("clients.pem", &Ca::new("others").certificate);
    let mark = broker.log().len();
    broker.signal("HUP");
    broker.await_log_after(mark, "was read again");
    assert_eq!(try_connect(&broker, &way, &Connect::v5("late")), Err(Lost::Closed));
    old.quiet();
}

/// MQTT over WebSocket, plain and secure, beside MQTT over TCP and TLS: one broker, one set of topics.
#[test]
fn every_transport_reaches_every_other() {
    let (dir, ca) = (Dir::new(), Ca::new("servers"));
    let flags = server(&dir, &ca);
    let broker =
        start(&flags, &["--listen", TLS, "--listen", "ws://127.0.0.1:0/mqtt", "--listen", "wss://127.0.0.1:0/mqtt"]);
    let tls = Way::tls(&ca.client(None));
    let mut clients = [
        Connect::v5("tcp").to(&broker),
        Connect::v5("tls").to(&tls.to(broker.address("mqtts"))),
        Connect::v5("ws").to(&Way::plain().websocket().to(broker.address("ws"))),
        Connect::v311("wss").to(&tls.websocket().to(broker.address("wss"))),
    ];
    for client in &mut clients {
        client.subscribe("all/#", 2);
    }
    let large = "x".repeat(100_000);
    for from in 0..clients.len() {
        for (qos, text) in [(0, "short"), (1, large.as_str()), (2, "last")] {
            assert_eq!(clients[from].say(qos, "all/t", text), 0);
        }
        for client in &mut clients {
            let lengths: Vec<usize> = client.texts(3).iter().map(String::len).collect();
            assert_eq!(lengths, [5, 100_000, 4], "{}", client.name);
        }
    }
    let status = on(&broker, &["status"]).ends(0).out;
    assert_eq!(status.matches(": 1 connections").count(), 4, "{status}");
    broker.signal("TERM");
    for mut client in clients {
        client.thrown_out(&[0x8B]);
    }
}

/// A stock client with a certificate of its own gets in, and one without does not.
#[test]
fn a_stock_client_uses_its_certificate() {
    let (dir, ca, clients) = (Dir::new(), Ca::new("servers"), Ca::new("clients"));
    let mut flags = server(&dir, &ca);
    dir.put("clients.pem", &clients.certificate);
    dir.put("ca.pem", &ca.certificate);
    flags.extend(["--set".to_owned(), format!("tls.client_ca={}", dir.name("clients.pem"))]);
    let broker = start(&flags, &["--listen", TLS, "--set", "tls.client_certificate=required"]);
    broker.add_account("lamp", "not-used-here");
    let lamp = clients.issue("lamp");
    dir.put("lamp.pem", &lamp.certificate);
    dir.put("lamp.key", &lamp.key);
    let mut sub = Connect::v5("sub").to(&broker);
    sub.subscribe("stock/#", 1);
    let port = broker.address("mqtts").port().to_string();
    let publish = |own: &[&str]| {
        let mut command = Command::new("mosquitto_pub");
        command.args(["-h", "localhost", "-p", &port, "--cafile", &dir.name("ca.pem"), "-V", "5", "-q", "1"]);
        command.args(["-i", "stock", "-t", "stock/t", "-m", "hello"]).args(own);
        run(command, "")
    };
    publish(&["--cert", &dir.name("lamp.pem"), "--key", &dir.name("lamp.key")]).ends(0);
    assert_eq!(sub.message().text(), "hello");
    assert_ne!(publish(&[]).code, 0);
    sub.quiet();
}
