//! SIGHUP and `parlor reload`: what changes at once, what needs a restart, and what a broken configuration does: nothing.

use super::tools::*;
use super::transport::{Ca, Way};
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};

/// What the log says of a reload.
const TAKEN: &str = "configuration was taken over";

/// A broker with a configuration file, and two ways to have it read again.
struct Reloaded {
    dir: Dir,
    broker: Broker,
}

impl Reloaded {
    fn start(text: &str, flags: &[&str]) -> Self {
        let dir = Dir::new();
        let file = dir.put("parlor.toml", text).display().to_string();
        let broker = Broker::start(&[&["--config", &file], flags].concat());
        Self { dir, broker }
    }

    /// By signal; the line that tells how it went.
    fn hangup(&self, text: &str, line: &str) -> String {
        let mark = self.broker.log().len();
        self.dir.put("parlor.toml", text);
        self.broker.signal("HUP");
        self.broker.await_log_after(mark, line)
    }

    /// By command.
    fn command(&self, text: &str) -> Said {
        self.dir.put("parlor.toml", text);
        on(&self.broker, &["reload"])
    }
}

/// What a new client is told.
fn aliases(broker: &Broker) -> Option<u32> {
    Connect::v5("probe").to(broker).connack.props.number(prop::TOPIC_ALIAS_MAX)
}

/// Limits change for who comes, and for who is there, without a connection lost.
#[test]
fn limits_change_while_clients_are_there() {
    let text = |aliases: u32, levels: u32| {
        format!("[limits]\ntopic_alias_max = {aliases}\ntopic_levels_max = {levels}\npacket_bytes_max = 4096\n")
    };
    let at = Reloaded::start(&text(1, 9), &[]);
    let mut client = Connect::v5("there").to(&at.broker);
    client.subscribe("#", 1);
    assert_eq!(aliases(&at.broker), Some(1));
    at.hangup(&text(2, 9), TAKEN);
    assert_eq!(aliases(&at.broker), Some(2));
    assert_eq!(client.say(1, "a/b/c", "x"), 0);
    assert_eq!(client.message().text(), "x");
    at.command(&text(3, 2)).ends(0).complains("configuration taken over");
    assert_eq!(aliases(&at.broker), Some(3));
    assert_eq!(client.say(1, "a/b/c", "x"), 0x90, "three levels are too many now");
    at.command("[limits]\npacket_bytes_max = 1024\n").ends(0);
    let probe = Connect::v5("probe").to(&at.broker);
    assert_eq!(probe.connack.props.number(prop::MAX_PACKET_SIZE), Some(1024));
    assert_eq!(client.say(1, "a/b/c", "x".repeat(500)), 0);
    assert_eq!(client.message().payload.len(), 500);
    assert_eq!(at.broker.log().matches(TAKEN).count(), 3, "each reload once: {}", at.broker.log());
}

/// Flags still win over a file that was read again.
#[test]
fn flags_stay_in_force() {
    let at = Reloaded::start("", &["--set", "limits.topic_alias_max=7"]);
    at.command("[limits]\ntopic_alias_max = 1\nreceive_max = 5\n").ends(0);
    let probe = Connect::v5("probe").to(&at.broker);
    assert_eq!(probe.connack.props.number(prop::TOPIC_ALIAS_MAX), Some(7));
    assert_eq!(probe.connack.props.number(prop::RECEIVE_MAX), Some(5));
}

/// Rules hold from the reload on, for sessions that are connected as well.
#[test]
fn rules_change_while_clients_are_there() {
    let rule = |effect: &str| {
        format!(
            "[[rule]]\nanonymous = true\n{effect} = \"all\"\ntopic = \"a/#\"\n[[rule]]\neverybody = true\nallow = \"all\"\ntopic = \"#\"\n"
        )
    };
    let at = Reloaded::start(&rule("allow"), &[]);
    let mut client = Connect::v5("there").to(&at.broker);
    client.subscribe("a/x", 1);
    assert_eq!(client.say(1, "a/x", "1"), 0);
    assert_eq!(client.message().text(), "1");
    at.hangup(&rule("deny"), TAKEN);
    assert_eq!(client.say(1, "a/x", "2"), 0x87);
    assert_eq!(client.subscribe_code("a/y", 1), 0x87);
    at.hangup(&rule("allow"), TAKEN);
    assert_eq!(client.say(1, "a/x", "3"), 0);
    assert_eq!(client.message().text(), "3");
}

/// Anonymous clients can be shut out and let in again, and pages of other sites as well; on every kind of listener.
#[test]
fn doors_are_closed_and_opened() {
    let ca = Ca::new("servers");
    let issued = ca.issue("localhost");
    let dir = Dir::new();
    dir.put("server.pem", &issued.certificate);
    dir.put("server.key", &issued.key);
    let text = |anonymous: bool, origins: &str| {
        let listener = |url: &str| format!("[[listener]]\nurl = \"{url}\"\nallow_anonymous = {anonymous}\n");
        let tls =
            format!("[tls]\ncertificate = \"{}\"\nkey = \"{}\"\n", dir.name("server.pem"), dir.name("server.key"));
        let urls = ["mqtt://127.0.0.1:0", "mqtts://127.0.0.1:0", "ws://127.0.0.1:0/mqtt", "wss://127.0.0.1:0/mqtt"];
        let listeners: String = urls.into_iter().map(listener).collect();
        format!("{listeners}{tls}[websocket]\norigins = [{origins}]\n")
    };
    let at = Reloaded::start(&text(true, ""), &["--set", LISTENERS_OF_FILE]);
    let broker = &at.broker;
    let tls = Way::tls(&ca.client(None));
    let ways =
        [("mqtt", Way::plain()), ("mqtts", tls.clone()), ("ws", Way::plain().websocket()), ("wss", tls.websocket())];
    let probe = |code: u8| {
        for (scheme, way) in &ways {
            let client = Connect::v5("probe").ask(&way.to(broker.address(scheme)));
            assert_eq!(client.connack.code, code, "{scheme}");
        }
    };
    probe(0);
    at.command(&text(false, "")).ends(0).complains("configuration taken over\n");
    probe(0x87);
    at.command(&text(true, "")).ends(0);
    probe(0);
    let page = |scheme: &str| {
        let request = "GET /mqtt HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
                       Sec-WebSocket-Protocol: mqtt\r\nOrigin: https://evil.example\r\n\r\n";
        let way = Way { websocket: None, ..ways.iter().find(|(s, _)| *s == scheme).expect("a way").1.clone() };
        let mut stream = TcpStream::connect(SocketAddr::from(&way.to(broker.address(scheme)))).expect("a bridge");
        stream.set_read_timeout(Some(PATIENCE)).expect("read timeout");
        stream.write_all(request.as_bytes()).expect("sent");
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).expect("an answer");
        line.split(' ').nth(1).map(str::to_owned)
    };
    assert_eq!([page("ws"), page("wss")].map(Option::unwrap), ["101", "101"]);
    at.command(&text(true, "\"https://good.example\"")).ends(0);
    assert_eq!([page("ws"), page("wss")].map(Option::unwrap), ["403", "403"]);
}

/// A listener follows other certificate files, and the rules for those of clients, without being opened again.
#[test]
fn other_certificate_files_are_followed() {
    let (first, second, clients) = (Ca::new("first"), Ca::new("second"), Ca::new("clients"));
    let dir = Dir::new();
    for (name, ca) in [("first", &first), ("second", &second)] {
        let issued = ca.issue("localhost");
        dir.put(&format!("{name}.pem"), &issued.certificate);
        dir.put(&format!("{name}.key"), &issued.key);
    }
    dir.put("clients.pem", &clients.certificate);
    let text = |name: &str, more: &str| {
        let path = |end: &str| dir.name(&format!("{name}.{end}"));
        format!("[tls]\ncertificate = \"{}\"\nkey = \"{}\"\n{more}", path("pem"), path("key"))
    };
    let at = Reloaded::start(&text("first", ""), &["--listen", "mqtts://127.0.0.1:0"]);
    let address = at.broker.address("mqtts");
    let mut old = Connect::v5("old").to(&Way::tls(&first.client(None)).to(address));
    let follow = |text: &str| {
        let mark = at.broker.log().len();
        at.command(text).ends(0);
        at.broker.await_log_after(mark, "was read again");
    };
    follow(&text("second", ""));
    Connect::v5("new").to(&Way::tls(&second.client(None)).to(address)).quiet();
    let more = format!("client_ca = \"{}\"\nclient_certificate = \"required\"\n", dir.name("clients.pem"));
    follow(&text("second", &more));
    let late = Connect::v5("late").send_to(&Way::tls(&second.client(None)).to(address)).try_recv(PATIENCE);
    assert_eq!(late, Err(Lost::Closed), "a certificate is required now");
    at.broker.add_account("lamp", "not-used-here");
    Connect::v5("lamp").to(&Way::tls(&second.client(Some(&clients.issue("lamp")))).to(address)).quiet();
    old.quiet();
}

/// The level of the log changes.
#[test]
fn the_log_level_changes() {
    let at = Reloaded::start("[log]\nlevel = \"info\"\n", &[]);
    assert_eq!(aliases(&at.broker), Some(64));
    at.hangup("[log]\nlevel = \"debug\"\n", TAKEN);
    let mark = at.broker.log().len();
    let client = Connect::v5("seen-in-the-log").to(&at.broker);
    let line = at.broker.await_log_after(mark, "seen-in-the-log");
    assert!(line.contains("DEBUG"), "{line}");
    assert!(!at.broker.log()[..mark].contains("probe"), "{}", at.broker.log());
    drop(client);
    at.command("[log]\nlevel = \"error\"\n").ends(0);
    let mark = at.broker.log().len();
    Connect::v5("unseen").to(&at.broker).disconnect();
    at.command("[limits]\ntopic_alias_max = 1\n").ends(0);
    assert!(!at.broker.log()[mark..].contains("unseen"), "{}", &at.broker.log()[mark..]);
}

/// A broken file changes nothing, and both ways of asking say where it is broken.
#[test]
fn a_broken_file_changes_nothing() {
    let good = "[limits]\ntopic_alias_max = 5\n";
    let at = Reloaded::start(good, &[]);
    let mut client = Connect::v5("there").to(&at.broker);
    let file = at.dir.name("parlor.toml");
    let line = at.hangup("[limits]\ntopic_alias_max = 6\nreceive_max = 0\n", "running one stays in use");
    assert!(line.contains(&format!("{file}:3:")), "{line}");
    assert!(line.contains("ERROR") && line.contains("receive_max"), "{line}");
    assert_eq!(aliases(&at.broker), Some(5));
    at.command("[limits\n").ends(1).complains(&format!("{file}:1:"));
    assert_eq!(aliases(&at.broker), Some(5));
    std::fs::remove_file(at.dir.path("parlor.toml")).expect("it was there");
    let mark = at.broker.log().len();
    at.broker.signal("HUP");
    let line = at.broker.await_log_after(mark, "running one stays in use");
    assert!(line.contains(&file), "{line}");
    client.quiet();
    at.command("[limits]\ntopic_alias_max = 6\n").ends(0);
    assert_eq!(aliases(&at.broker), Some(6));
}

/// What counts only from the next start is named, and the rest is taken over nevertheless.
#[test]
fn what_needs_a_restart_is_said() {
    let at = Reloaded::start("", &[]);
    let text = "[http]\nconnections_max = 5\n[store]\nsegment_bytes = 2097152\n[limits]\ntopic_alias_max = 4\n";
    let mark = at.broker.log().len();
    at.hangup(text, TAKEN);
    for section in ["http", "store"] {
        let line = at.broker.await_log_after(mark, &format!("{section} has changed"));
        assert!(line.contains("at the next start") && line.contains("WARN"), "{line}");
    }
    assert_eq!(aliases(&at.broker), Some(4));
    at.command(text).ends(0).complains("http, store counts from the next start");
    at.command("").ends(0).complains("configuration taken over\n");
}

/// Many reloads at once are done one after the other, and traffic goes on.
#[test]
fn reloads_do_not_disturb_traffic() {
    let at = Reloaded::start("", &[]);
    let mut client = Connect::v5("there").to(&at.broker);
    client.subscribe("t", 2);
    for round in 0..20 {
        at.dir.put("parlor.toml", format!("[limits]\ntopic_alias_max = {round}\n"));
        at.broker.signal("HUP");
        let text = round.to_string();
        assert_eq!(client.say(2, "t", &text), 0);
        assert_eq!(client.message().text(), text);
    }
    at.command("[limits]\ntopic_alias_max = 33\n").ends(0);
    assert_eq!(aliases(&at.broker), Some(33));
}
