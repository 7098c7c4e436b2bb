//! One client library and one suite over every road, by changing only the URL; and many roads into one session.

use crate::app::{App, options, outbox};
use crate::peer::{Door, Got, Kind, Peer, Running, all_here};
use parlor_client::{CommandOptions, Event, Identity, Outcome};
use parlor_tests::cut::Cutter;
use parlor_tests::fates::{End, Entry, judge, log, same};
use parlor_tests::im::PASSWORD;
use parlor_tests::raw::V5;
use parlor_tests::site::{LISTENERS, Site, url};
use parlor_tests::udp_proxy::{Faults, UdpProxy};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The suite over each road.
macro_rules! over {
    ($($road:ident $scheme:literal;)+) => {
        $(mod $road {
            #[test]
            fn a_household_talks() {
                super::a_household_talks($scheme);
            }

            #[test]
            fn every_send_has_one_end_though_lines_are_cut() {
                super::every_send_has_one_end($scheme);
            }
        })+
        /// Every road, for tests that go along all of them.
        const ROADS: &[&str] = &[$($scheme),+];
    };
}

over! {
    mqtt "mqtt";
    mqtts "mqtts";
    ws "ws";
    wss "wss";
    mqtt_quic "mqtt+quic";
    parlor "parlor";
    parlor_tcp "parlor+tcp";
    parlor_tls "parlor+tls";
}

fn listener(scheme: &str) -> Vec<&'static str> {
    LISTENERS.into_iter().filter(|url| url.split_once("://").is_some_and(|(found, _)| found == scheme)).collect()
}

/// Messages, marks, presence, typing, edits, commands, history: two people and a lamp.
fn a_household_talks(scheme: &str) {
    let Some(site) = Site::with(&listener(scheme), &["alice", "bob"], &[]) else { return };
    site.house.add("lamp", "device");
    site.house.befriend("alice", "bob");
    site.house.befriend("alice", "lamp");
    let url = site.url(scheme);
    let mut bob = App::open(&site, &url, "bob", "bob-phone");
    let mut alice = App::open(&site, &url, "alice", "alice-phone");
    let mut lamp = App::open(&site, &url, "lamp", "lamp-1");
    bob.until("alice online", |event| match event {
        Event::Presence { with, presence } if with == "alice" && presence.state == "online" => Some(()),
        _ => None,
    });

    // A message, both of its marks, and an answer.
    let seq = alice.say("bob", "is the heating on?");
    assert_eq!(bob.message("alice"), (seq, "is the heating on?".to_owned()));
    bob.read("alice", seq);
    alice.until("the mark", |event| match event {
        Event::Receipt { with, receipt } if with == "bob" && receipt.read >= seq && receipt.recv >= seq => Some(()),
        _ => None,
    });
    let answer = bob.say("alice", "since six");
    assert_eq!(alice.message("bob"), (answer, "since six".to_owned()));
    // Long ones and many.
    let long = "x".repeat(30_000);
    let seq = alice.say("bob", &long);
    assert_eq!(bob.message("alice"), (seq, long));
    let ids: Vec<String> = (0..100).map(|number| alice.send("bob", &format!("number {number}"))).collect();
    for (number, id) in ids.iter().enumerate() {
        let got = alice.until("its end", |event| match event {
            Event::Received { id: found, seq, .. } if found == id => *seq,
            _ => None,
        });
        assert_eq!(bob.message("alice"), (got, format!("number {number}")));
    }
    // What is not kept.
    alice.typing("bob");
    bob.until("typing", |event| match event {
        Event::Typing { with, typing: true, .. } if with == "alice" => Some(()),
        _ => None,
    });
    alice.stream("bob", "position", b"52.52,13.40").expect("a good name");
    bob.until("the stream", |event| match event {
        Event::Stream { with, name, payload } if with == "alice" && name == "position" => {
            assert_eq!(payload, b"52.52,13.40");
            Some(())
        }
        _ => None,
    });
    // What is taken back, and what is refused.
    let seq = alice.say("bob", "a typo");
    assert_eq!(bob.message("alice"), (seq, "a typo".to_owned()));
    alice.wait(alice.edit("bob", seq, "no typo")).expect("it is her own");
    bob.until("the edit", |event| match event {
        Event::Edit { with, message } if with == "alice" && message.seq == seq => {
            assert_eq!(message.text.as_deref(), Some("no typo"));
            Some(())
        }
        _ => None,
    });
    alice.wait(alice.recall("bob", seq)).expect("it is her own");
    bob.until("the recall", |event| match event {
        Event::Recall { with, seq: found, by } if with == "alice" && *found == seq && by == "alice" => Some(()),
        _ => None,
    });
    let id = alice.send("nobody", "hello?");
    alice.until("its end", |event| match event {
        Event::Lost { id: found, why, .. } if *found == id => {
            assert_eq!(why.code, "not_found");
            Some(())
        }
        _ => None,
    });
    // A command and its outcome.
    let order = alice.command("lamp", "set", json!({ "on": true }), CommandOptions::default());
    let id = alice.wait(order).expect("a good command");
    let named = lamp.until("the command", |event| match event {
        Event::Command { id, name, order } => {
            assert_eq!((name.as_str(), &order.args), ("set", &json!({ "on": true })));
            Some(id.clone())
        }
        _ => None,
    });
    lamp.wait(lamp.command_state(&named, Outcome::Done(json!({ "watt": 5 })))).expect("it is its own");
    alice.until("the outcome", |event| match event {
        Event::CommandResult { id: found, report } if *found == id && report.state == "done" => {
            assert_eq!(report.result, Some(json!({ "watt": 5 })));
            Some(())
        }
        _ => None,
    });
    lamp.wait(lamp.report(json!({ "on": true }))).expect("it is its own");
    alice.until("the state", |event| match event {
        Event::State { device, state } if device == "lamp" && state.reported["on"] == true => Some(()),
        _ => None,
    });
    // What there was.
    let page = bob.wait(bob.history("alice", parlor_client::Range::After(0), 500)).expect("a page");
    assert_eq!(page.messages.len(), 104);
    assert!(page.messages.windows(2).all(|pair| pair[0].seq + 1 == pair[1].seq));
    // Another address, where the road can do that.
    if scheme.contains("quic") || scheme == "parlor" {
        for number in 0..4 {
            alice.rebind();
            let seq = alice.say("bob", &format!("from elsewhere {number}"));
            assert_eq!(bob.message("alice"), (seq, format!("from elsewhere {number}")));
            let seq = bob.say("alice", &format!("and back {number}"));
            assert_eq!(alice.message("bob"), (seq, format!("and back {number}")));
        }
        assert!(!alice.held().any(|event| matches!(event, Event::Disconnected { .. })), "the same connection");
    }
    for app in [&mut alice, &mut bob] {
        app.fence();
        let doubled = app.held().find(|event| matches!(event, Event::Message { .. } | Event::Gap { .. }));
        assert!(doubled.is_none(), "{doubled:?}");
    }
    alice.close();
    bob.until("alice offline", |event| match event {
        Event::Presence { with, presence } if with == "alice" && presence.state == "offline" => Some(()),
        _ => None,
    });
}

/// What stands between a client and the broker.
enum Line {
    Udp(UdpProxy),
    Tcp(Cutter),
}

impl Line {
    /// Cuts 30 of 100 connections in the middle: QUIC ones after some datagrams, others after some bytes.
    fn cutting(site: &Site, scheme: &str, seed: u64) -> Self {
        let to = site.at(scheme);
        if scheme.contains("quic") || scheme == "parlor" {
            Self::Udp(UdpProxy::open(to, Faults::cuts(seed, 30, (3, 50))))
        } else {
            // A run is short, and in frames of the native link shorter still; some cuts fall into the handshake of TLS.
            let most = if scheme == "parlor+tcp" { 500 } else { 1_500 };
            Self::Tcp(Cutter::open(to, seed, 30, (60, most)))
        }
    }

    fn url(&self, scheme: &str) -> String {
        match self {
            Self::Udp(proxy) => url(scheme, proxy.addr()),
            Self::Tcp(cutter) => url(scheme, cutter.addr()),
        }
    }

    /// Connections, and those that were cut.
    fn cuts(&self) -> (u64, u64) {
        match self {
            Self::Udp(proxy) => (proxy.passed().lives, proxy.passed().cut),
            Self::Tcp(cutter) => (cutter.cuts().opened, cutter.cuts().cut),
        }
    }
}

/// A1: each send ends once, as received or as lost; what was received is in the log exactly once, and the other side,
/// whose line is cut as well, hears every message of the log once and in order.
fn every_send_has_one_end(scheme: &str) {
    let Some(site) = Site::with(&listener(scheme), &["alice", "bob"], &[]) else { return };
    site.house.befriend("alice", "bob");
    let (line, other) = (Line::cutting(&site, scheme, 17), Line::cutting(&site, scheme, 23));
    let mut bob = App::with(&other.url(scheme), options(&site, "bob", "bob-phone"));
    let (mut sent, mut ends) = (vec![], vec![]);
    let (runs, each) = (20, 6);
    for run in 0..runs {
        // Every run is the same terminal, in a new process so to speak: what it finds in its outbox goes on.
        let mut with = options(&site, "alice", "alice-phone");
        with.outbox = outbox(&site, "alice.outbox");
        let mut alice = App::start(&line.url(scheme), with);
        let ids: Vec<String> = (0..each).map(|number| alice.send("bob", &format!("{run} {number}"))).collect();
        for _ in &ids {
            ends.push(alice.until("an end", |event| match event {
                Event::Received { id, .. } => Some((id.clone(), End::Received)),
                Event::Lost { id, .. } => Some((id.clone(), End::Lost)),
                _ => None,
            }));
        }
        sent.extend(ids);
        alice.close();
    }
    let mut witness = site.house.client(V5, "alice", "witness");
    let entries = log(&mut witness, "bob");
    let problems = judge(&sent, &ends, &entries);
    assert!(problems.is_empty(), "{scheme}: {problems:#?}");
    let received = ends.iter().filter(|(_, end)| *end == End::Received).count();
    assert_eq!(received, runs * each, "{scheme}: nothing had to be given up");
    let heard: Vec<(u64, String)> = entries.iter().map(|_| bob.message("alice")).collect();
    if let Err(why) = same(&heard, &entries) {
        panic!("{scheme}: {why}");
    }
    bob.fence();
    assert!(!bob.held().any(|event| matches!(event, Event::Message { .. })), "{scheme}: heard twice");
    let ((opened, cut), (opened_too, cut_too)) = (line.cuts(), other.cuts());
    assert!(cut > 0, "{scheme}: {opened} connections were opened and none was cut");
    assert!(opened > runs as u64 && opened_too > cut_too, "{scheme}: {opened} {cut}, {opened_too} {cut_too}");
}

/// Numbers and texts of a conversation, as one terminal has them.
type Heard = BTreeMap<u64, (String, String)>;

/// Takes down a message; the same number is the same message.
fn take(heard: &mut Heard, seq: u64, from: &str, text: &str) {
    let before = heard.insert(seq, (from.to_owned(), text.to_owned()));
    assert!(before.is_none(), "{seq} was heard twice: {before:?}");
}

/// Takes down messages of a conversation, own and others', until one has this text.
fn listen(app: &mut App, with: &str, heard: &mut Heard, last: &str) {
    loop {
        let (seq, from, text) = app.until(last, |event| match event {
            Event::Message { with: found, message } | Event::Sent { with: found, message, dup: false }
                if found == with =>
            {
                Some((message.seq, message.from.clone(), message.text.clone().unwrap_or_default()))
            }
            _ => None,
        });
        take(heard, seq, &from, &text);
        if text == last {
            return;
        }
    }
}

/// An account with four terminals on four roads has one conversation: each hears what each says and what comes, in one
/// order; what is read on one is read on all.
#[test]
fn four_terminals_on_four_roads_see_one_conversation() {
    let roads = ["mqtt", "ws", "mqtt+quic", "parlor"];
    let listeners: Vec<&str> = roads.iter().flat_map(|road| listener(road)).collect();
    let Some(site) = Site::with(&listeners, &["alice", "bob"], &[]) else { return };
    site.house.befriend("alice", "bob");
    let mut bob = App::open(&site, &site.url("mqtt"), "bob", "bob-phone");
    let mut terminals: Vec<App> =
        roads.iter().map(|road| App::open(&site, &site.url(road), "alice", &format!("alice-{road}"))).collect();
    // Of what a terminal says itself it is told the number, and no more.
    let mut all: Vec<Heard> = vec![Heard::new(); terminals.len()];
    for round in 0..5 {
        for ((terminal, road), heard) in terminals.iter_mut().zip(roads).zip(&mut all) {
            let text = format!("{round} over {road}");
            take(heard, terminal.say("bob", &text), "alice", &text);
        }
        bob.say("alice", &format!("{round} from bob"));
    }
    let last = bob.say("alice", "good night");
    for (terminal, heard) in terminals.iter_mut().zip(&mut all) {
        listen(terminal, "bob", heard, "good night");
    }
    assert_eq!(all[0].len(), 26);
    assert_eq!(all[0].keys().copied().collect::<Vec<_>>(), (1..=26).collect::<Vec<u64>>());
    for (heard, road) in all.iter().zip(roads) {
        assert_eq!(heard, &all[0], "{road}");
    }
    terminals[2].read("bob", last);
    for (terminal, road) in terminals.iter_mut().zip(roads) {
        terminal.until(&format!("the own mark on {road}"), |event| match event {
            Event::Conversation { with, summary } if with == "bob" && summary.read == last => Some(summary.unread),
            _ => None,
        });
        terminal.until(&format!("the badge on {road}"), |event| match event {
            Event::Head { unread: 0 } => Some(()),
            _ => None,
        });
    }
}

/// One terminal goes along every road, with its session: what was said while it was away comes once, what it had does not
/// come again, and what it says has its place.
#[test]
fn a_terminal_takes_its_session_along_every_road() {
    let Some(site) = Site::with(&LISTENERS, &["alice", "bob"], &[]) else { return };
    site.house.befriend("alice", "bob");
    let mut bob = App::open(&site, &site.url("mqtt"), "bob", "bob-phone");
    let mut heard = Heard::new();
    App::open(&site, &site.url("mqtt"), "alice", "alice-phone").close();
    for (turn, road) in ROADS.iter().chain(ROADS.iter().rev()).enumerate() {
        bob.say("alice", &format!("while you were away {turn}"));
        let mut alice = App::open(&site, &site.url(road), "alice", "alice-phone");
        listen(&mut alice, "bob", &mut heard, &format!("while you were away {turn}"));
        let text = format!("{turn} over {road}");
        take(&mut heard, alice.say("bob", &text), "alice", &text);
        assert_eq!(bob.message("alice").1, text);
        bob.say("alice", &format!("while you are here {turn}"));
        listen(&mut alice, "bob", &mut heard, &format!("while you are here {turn}"));
        alice.fence();
        assert!(!alice.held().any(|event| matches!(event, Event::Message { .. })), "{road}: {turn}");
        // Every other time it is taken over, and not closed.
        if turn % 2 == 0 {
            alice.close();
        }
    }
    let turns = 2 * ROADS.len() as u64;
    assert_eq!(heard.keys().copied().collect::<Vec<_>>(), (1..=3 * turns).collect::<Vec<_>>(), "no holes");
}

/// On every road with TLS a certificate is the account, without a password; a stranger's is nobody.
#[test]
fn a_certificate_is_the_account_on_every_secure_road() {
    let Some(site) = Site::all_by_certificate(&["alice", "bob"]) else { return };
    site.house.befriend("alice", "bob");
    let mut bob = App::open(&site, &site.url("mqtt"), "bob", "bob-phone");
    for name in ["alice", "stranger"] {
        let issued = site.clients.issue(name);
        site.dir.put(&format!("{name}.pem"), &issued.certificate);
        site.dir.put(&format!("{name}.key"), &issued.key);
    }
    let identified = |name: &str, road: &str| {
        let mut options = options(&site, name, &format!("{name}-{}", road.replace('+', "-")));
        let path = |file: String| PathBuf::from(site.dir.name(&file));
        options.password = None;
        options.identity =
            Some(Identity { certificates: path(format!("{name}.pem")), key: path(format!("{name}.key")) });
        options
    };
    for road in ROADS.iter().filter(|road| !["mqtt", "ws", "parlor+tcp"].contains(road)) {
        let mut alice = App::with(&site.url(road), identified("alice", road));
        alice.say("bob", &format!("it is me over {road}"));
        assert_eq!(bob.message("alice").1, format!("it is me over {road}"));
        alice.close();
        let mut stranger = App::start(&site.url(road), identified("stranger", road));
        stranger.until("the end", |event| matches!(event, Event::Ended { .. }).then_some(()));
    }
}

/// The group as a stock client has it.
fn take_stock(heard: &mut Heard, got: &[Got]) {
    for got in got {
        let Ok(message) = serde_json::from_str::<Value>(&got.payload) else { continue };
        let is_here =
            got.topic == "im/v1/me/in/g-all/msg" || (got.topic == "im/v1/me/sent" && message["to"] == "g-all");
        let (Some(seq), Some(text)) = (message["seq"].as_u64(), message["text"].as_str()) else { continue };
        if is_here && message.get("dup").is_none() {
            // A stock client does not drop what comes with DUP; its user does, by the number.
            let from = message["from"].as_str().unwrap_or_default();
            let before = heard.insert(seq, (from.to_owned(), text.to_owned()));
            assert!(before.is_none_or(|before| before.1 == text), "two messages have the number {seq}");
        }
    }
}

/// A2: MQTT.js over WebSocket, mosquitto over TCP, the library over QUIC and over the native link are members of one group
/// and end with the identical list of seq, sender and text, over a kill -9 of the broker.
#[test]
fn every_kind_of_client_has_the_same_group() {
    if !all_here() {
        return;
    }
    let members = ["js", "mosquitto", "quic", "native"];
    let roads = ["ws", "mqtt+quic", "parlor"];
    let listeners: Vec<&str> = roads.iter().flat_map(|road| listener(road)).collect();
    let accounts = [&["alice"], &members[..]].concat();
    let Some(mut site) = Site::on_ports(&listeners, &accounts, &[]) else { return };
    for member in members {
        site.house.befriend("alice", member);
    }
    let mut alice = site.house.client(V5, "alice", "alice");
    let create = json!({ "op": "create", "members": members });
    assert_eq!(alice.say(1, "im/v1/me/group/g-all", create.to_string()), 0);
    let door = Door { mqtt: site.at("mqtt").to_string(), ws: site.url("ws"), user: "", password: PASSWORD };
    let of = |user: &'static str| Door { user, ..door.clone() };
    let stock = [Peer { kind: Kind::MqttJs, version: 5 }, Peer { kind: Kind::Mosquitto, version: 5 }];
    let ears = || -> Vec<Running> {
        let ear = |(peer, user): (Peer, &'static str)| {
            peer.subscribe(&of(user), &format!("ear-{user}"), false, "im/v1/me/#", 1)
        };
        stock.into_iter().zip(["js", "mosquitto"]).map(ear).collect()
    };
    let mut apps: Vec<App> = ["quic", "native"]
        .into_iter()
        .zip(["mqtt+quic", "parlor"])
        .map(|(member, road)| App::open(&site, &site.url(road), member, &format!("{member}-app")))
        .collect();
    let mut stock_heard = [Heard::new(), Heard::new()];
    let mut app_heard = vec![Heard::new(), Heard::new()];
    let everybody_speaks = |apps: &mut Vec<App>, all: &mut Vec<Heard>, word: &str| {
        std::thread::scope(|scope| {
            for (peer, user) in stock.into_iter().zip(["js", "mosquitto"]) {
                let door = of(user);
                scope.spawn(move || {
                    peer.publish(
                        &door,
                        &format!("mouth-{user}"),
                        "im/v1/to/g-all/msg",
                        1,
                        &format!("{word} of {user}"),
                        4,
                    );
                });
            }
            for ((app, user), heard) in apps.iter_mut().zip(["quic", "native"]).zip(all) {
                scope.spawn(move || {
                    for number in 0..4 {
                        let text = format!("{word} of {user} {number}");
                        take(heard, app.say("g-all", &text), user, &text);
                    }
                });
            }
        });
    };
    let mut running = ears();
    everybody_speaks(&mut apps, &mut app_heard, "morning");
    site.house.broker.kill();
    for (heard, ear) in stock_heard.iter_mut().zip(running.drain(..)) {
        take_stock(heard, &ear.end());
    }
    site.house.broker.start_again();
    let mut running = ears();
    everybody_speaks(&mut apps, &mut app_heard, "evening");
    let mut alice = site.house.client(V5, "alice", "alice");
    assert_eq!(alice.say(1, "im/v1/to/g-all/msg", "good night"), 0);
    for (heard, ear) in stock_heard.iter_mut().zip(&mut running) {
        let is_last = |got: &Got| got.topic == "im/v1/me/in/g-all/msg" && got.payload.contains("good night");
        take_stock(heard, &ear.until_one("the last message", is_last));
    }
    for (heard, app) in app_heard.iter_mut().zip(&mut apps) {
        listen(app, "g-all", heard, "good night");
        heard.pop_last();
    }
    let mut entries: Vec<Entry> = log(&mut alice, "g-all");
    assert_eq!(entries.pop().map(|entry| entry.text).as_deref(), Some("good night"));
    // Those who have no text are changes of the membership.
    let wanted: BTreeMap<u64, String> =
        entries.into_iter().filter(|entry| !entry.text.is_empty()).map(|entry| (entry.seq, entry.text)).collect();
    assert_eq!(wanted.len(), 2 * 4 * 4);
    for (heard, who) in stock_heard.iter().chain(&app_heard).zip(members) {
        let got: BTreeMap<u64, String> = heard
            .iter()
            .filter(|(_, (_, text))| !text.is_empty())
            .map(|(seq, (_, text))| (*seq, text.clone()))
            .collect();
        assert_eq!(got, wanted, "{who}");
    }
}

/// The checks above see what they are for: a number that is heard twice.
#[test]
#[should_panic(expected = "heard twice")]
fn a_number_that_is_heard_twice_is_seen() {
    let mut heard = Heard::new();
    take(&mut heard, 1, "bob", "x");
    take(&mut heard, 1, "bob", "x");
}
