//! Who may come in: passwords, and enhanced authentication with SCRAM-SHA-256 (3.1.3.5, 3.1.3.6, 3.15, 4.12).

use super::common::*;
use super::scram::Scram;
use parlor_tests::server::NO_ANONYMOUS;

const METHOD: &str = "SCRAM-SHA-256";

/// A broker that knows `alice`, and lets nobody else in.
fn guarded() -> Option<Broker> {
    let own = Broker::own(&["--set", NO_ANONYMOUS])?;
    own.add_account("alice", "wonderland");
    Some(own)
}

/// The same with `bob`.
fn guarded_for_two() -> Option<Broker> {
    let own = guarded()?;
    own.add_account("bob", "can-he-fix-it");
    Some(own)
}

fn auth(code: u8, method: &str, data: &str) -> Vec<u8> {
    let mut body = vec![code];
    body.extend(props(&[prop::auth_method(method), prop::auth_data(data)]));
    frame(0xF0, body)
}

/// The next packet is AUTH with that code and the method of CONNECT; its data [MQTT5-4.12.0-2] [MQTT5-4.12.0-5].
fn auth_data(c: &mut Client, want: u8) -> Vec<u8> {
    match c.recv() {
        Packet::Auth { code, props } => {
            assert_eq!(code, want);
            assert_eq!(props.text(prop::AUTH_METHOD), Some(METHOD), "[MQTT5-4.12.0-5]");
            props.bytes(prop::AUTH_DATA).unwrap_or_default().to_vec()
        }
        other => panic!("AUTH {want:#04x} expected, got {other:?}"),
    }
}

/// Sends CONNECT and goes through the exchange up to, not including, its answer.
fn offer(own: &Broker, connect: &Connect, user: &str, password: &str) -> (Client, Scram) {
    let (mut scram, first) = Scram::begin(user, password, &unique("nonce"));
    let connect = connect.clone().with(prop::auth_method(METHOD)).with(prop::auth_data(first));
    let mut c = connect.send_to(own);
    let server_first = auth_data(&mut c, 0x18);
    let answer = scram.answer(&server_first);
    c.send(&auth(0x18, METHOD, &answer));
    (c, scram)
}

/// Connects with SCRAM-SHA-256 and is let in.
fn enter(own: &Broker, connect: &Connect, user: &str, password: &str) -> Client {
    let (mut c, scram) = offer(own, connect, user, password);
    match c.recv() {
        Packet::ConnAck(connack) => {
            assert_eq!(connack.code, 0);
            assert_eq!(connack.props.text(prop::AUTH_METHOD), Some(METHOD), "[MQTT5-4.12.0-5]");
            let server_final = connack.props.bytes(prop::AUTH_DATA).expect("the server proves itself");
            assert!(scram.server_is_genuine(server_final));
            c.connack = connack;
        }
        other => panic!("CONNACK expected, got {other:?}"),
    }
    c
}

/// The right password lets in; a wrong one and an unknown name are refused alike (3.2.2.2) [MQTT3-3.2.2-5].
#[test]
fn passwords() {
    let Some(own) = guarded_for_two() else { return };
    for version in BOTH {
        let connect =
            |user: &str, password: &str| Connect::new(version, &unique("c")).username(user).password(password);
        let mut c = connect("alice", "wonderland").to(&own);
        c.say(1, "t", "x");
        let refused: &[u8] = if version == V5 { &[0x86, 0x87] } else { &[4, 5] };
        let wrong = connect("alice", "can-he-fix-it").refused(&own);
        let unknown = connect("mallory", "wonderland").refused(&own);
        assert!(refused.contains(&wrong) && wrong == unknown, "{wrong:#04x} {unknown:#04x}");
        assert!(refused.contains(&Connect::new(version, "nobody").refused(&own)));
        assert!(refused.contains(&Connect::new(version, "no password").username("alice").refused(&own)));
        connect("bob", "can-he-fix-it").to(&own).disconnect();
    }
}

/// A client identifier belongs to one account: another one is told 0x85, 0x02 in 3.1.1, and takes nothing over.
#[test]
fn client_identifier_belongs_to_one_account() {
    let Some(own) = guarded_for_two() else { return };
    let mut alice = Connect::v5("hers").persistent().username("alice").password("wonderland").to(&own);
    let bob = |version| Connect::new(version, "hers").username("bob").password("can-he-fix-it");
    assert_eq!(bob(V5).refused(&own), 0x85);
    assert_eq!(bob(V311).refused(&own), 0x02);
    alice.quiet();
    alice.disconnect();
    assert_eq!(bob(V5).refused(&own), 0x85);
    let alice = Connect::v5("hers").persistent().username("alice").password("wonderland").to(&own);
    assert!(alice.connack.present);
}

/// SCRAM-SHA-256: AUTH 0x18 there and back, CONNACK with method and the server's proof [MQTT5-4.12.0-2]
/// [MQTT5-4.12.0-3] [MQTT5-4.12.0-5].
#[test]
fn scram_lets_in() {
    let Some(own) = guarded() else { return };
    let mut c = enter(&own, &Connect::v5("c"), "alice", "wonderland");
    c.subscribe("t", 1);
    c.say(1, "t", "hello");
    assert_eq!(c.message().text(), "hello");
    // The name in CONNECT may be given too.
    enter(&own, &Connect::v5("d").username("alice"), "alice", "wonderland").quiet();
}

/// A wrong password is found out by its proof, an unknown name without saying that it is unknown [MQTT5-4.12.0-4].
#[test]
fn scram_keeps_out() {
    let Some(own) = guarded() else { return };
    for (user, password) in [("alice", "can-he-fix-it"), ("mallory", "wonderland")] {
        let (mut c, _) = offer(&own, &Connect::v5("c"), user, password);
        let got = c.closed();
        assert!(matches!(got.as_slice(), [Packet::ConnAck(ConnAck { code: 0x86 | 0x87, .. })]), "{user}: {got:?}");
    }
    for first in ["n,,", "nonsense", "n,,n=alice,r=", "p=tls-unique,,n=alice,r=abc", "n,,m=x,n=alice,r=abc"] {
        let connect = Connect::v5("c").with(prop::auth_method(METHOD)).with(prop::auth_data(first));
        let code = connect.refused(&own);
        assert!([0x82, 0x86, 0x87].contains(&code), "{first:?}: {code:#04x}");
    }
    enter(&own, &Connect::v5("c"), "alice", "wonderland").quiet();
}

/// Before CONNACK only AUTH 0x18 with the same method, and DISCONNECT, are in order [MQTT5-3.1.2-30] [MQTT5-4.12.0-3]
/// [MQTT5-4.12.0-5] [MQTT5-3.14.0-1].
#[test]
fn exchange_is_not_disturbed() {
    let Some(own) = guarded() else { return };
    let begin = || {
        let (scram, first) = Scram::begin("alice", "wonderland", &unique("nonce"));
        let mut c = Connect::v5("c").with(prop::auth_method(METHOD)).with(prop::auth_data(first)).send_to(&own);
        let server_first = auth_data(&mut c, 0x18);
        (c, scram, server_first)
    };
    for bytes in [
        Publish::new("t", "early").bytes(V5),
        vec![0xC0, 0],
        frame(0x82, [&[0, 1, 0], field("t").as_slice(), &[0]].concat()),
        auth(0x19, METHOD, "n,,n=alice,r=abc"),
        auth(0x18, "ANOTHER", "c=biws"),
        auth(0x00, METHOD, "c=biws"),
        Connect::v5("c").bytes(),
    ] {
        let (mut c, ..) = begin();
        c.name = format!("{bytes:02x?}");
        c.send(&bytes);
        match c.closed().as_slice() {
            [] | [Packet::ConnAck(ConnAck { code: 0x80.., .. })] => {}
            other => panic!("{}: refusal and the end expected, got {other:?}", c.name),
        }
    }
    let (mut c, ..) = begin();
    c.send(&[0xE0, 0]);
    assert_eq!(c.closed(), []);
    // The server's first message of one exchange is of no use in another.
    let (_first, mut scram, server_first) = begin();
    let replay = scram.answer(&server_first);
    let (mut c, ..) = begin();
    c.send(&auth(0x18, METHOD, &replay));
    assert!(matches!(c.closed().as_slice(), [Packet::ConnAck(ConnAck { code: 0x80.., .. })]));
}

/// Re-authentication: AUTH 0x19, 0x18, and 0x00 at the end, while messages flow [MQTT5-4.12.1-1].
#[test]
fn re_authentication() {
    let Some(own) = guarded() else { return };
    let mut c = enter(&own, &Connect::v5("c"), "alice", "wonderland");
    c.subscribe("t", 1);
    for round in 0..3 {
        let (mut scram, first) = Scram::begin("alice", "wonderland", &unique("nonce"));
        c.send(&auth(0x19, METHOD, &first));
        let server_first = auth_data(&mut c, 0x18);
        // "The Client and Server can continue to use the previous authentication" meanwhile.
        c.say(1, "t", round.to_string());
        assert_eq!(c.message().text(), round.to_string());
        let answer = scram.answer(&server_first);
        c.send(&auth(0x18, METHOD, &answer));
        let server_final = auth_data(&mut c, 0x00);
        assert!(scram.server_is_genuine(&server_final));
    }
    c.quiet();
}

/// Re-authentication that fails ends the connection with a DISCONNECT that says why [MQTT5-4.12.1-2]; it cannot
/// change the method or the account.
#[test]
fn re_authentication_that_fails() {
    let Some(own) = guarded_for_two() else { return };
    let entered = || enter(&own, &Connect::v5("c"), "alice", "wonderland");
    for (user, password) in [("alice", "can-he-fix-it"), ("bob", "can-he-fix-it")] {
        let mut c = entered();
        let (mut scram, first) = Scram::begin(user, password, &unique("nonce"));
        c.send(&auth(0x19, METHOD, &first));
        match c.recv() {
            Packet::Auth { code: 0x18, props } => {
                let answer = scram.answer(props.bytes(prop::AUTH_DATA).expect("data"));
                c.send(&auth(0x18, METHOD, &answer));
                c.thrown_out(&[0x82, 0x87]);
            }
            Packet::Disconnect { code: 0x82 | 0x87, .. } => assert_eq!(c.closed(), []),
            other => panic!("{other:?}"),
        }
    }
    for bytes in [auth(0x19, "ANOTHER", "x"), auth(0x18, METHOD, "c=biws"), auth(0x00, METHOD, "")] {
        let mut c = entered();
        c.name = format!("{bytes:02x?}");
        c.send(&bytes);
        c.thrown_out(&[0x82, 0x87, 0x8C]);
    }
    // Without a method in CONNECT there is none to do it again with [MQTT5-4.12.0-7].
    let mut c = Connect::v5("c").username("alice").password("wonderland").to(&own);
    c.send(&auth(0x19, METHOD, "n,,n=alice,r=abc"));
    c.thrown_out(&[0x82]);
}

/// `auth_waiting_max`: password checks take their time; when too many wait, more are told 0x89.
#[test]
fn waiting_password_checks_are_bounded() {
    let Some(own) = Broker::own(&["--set", NO_ANONYMOUS, "--set", "limits.auth_waiting_max=1"]) else { return };
    own.add_account("alice", "wonderland");
    let ask = |n: u32| Connect::v5(&format!("c{n}")).username("alice").password("wonderland").send_to(&own);
    let clients: Vec<Client> = (0..30).map(ask).collect();
    let codes: Vec<u8> = clients
        .into_iter()
        .map(|mut c| match c.recv() {
            Packet::ConnAck(connack) => connack.code,
            other => panic!("{other:?}"),
        })
        .collect();
    assert!(codes.iter().all(|code| [0, 0x89].contains(code)), "{codes:02x?}");
    assert!(codes.contains(&0) && codes.contains(&0x89), "{codes:02x?}");
    ask(99).recv();
}

/// An account that is removed or gets another password does not come in with what it had.
#[test]
fn accounts_change_while_the_broker_runs() {
    let Some(own) = guarded_for_two() else { return };
    let data = own.data().display().to_string();
    let alice = |password: &str| Connect::v5("c").username("alice").password(password);
    alice("wonderland").to(&own).disconnect();
    Broker::command(&["account", "passwd", "alice", "--password-stdin", "--data", &data], "looking-glass");
    assert!([0x86, 0x87].contains(&alice("wonderland").refused(&own)));
    alice("looking-glass").to(&own).disconnect();
    enter(&own, &Connect::v5("c"), "alice", "looking-glass").disconnect();
    Broker::command(&["account", "remove", "alice", "--data", &data], "");
    assert!([0x86, 0x87].contains(&alice("looking-glass").refused(&own)));
    let list = Broker::command(&["account", "list", "--data", &data], "");
    assert!(list.contains("bob") && !list.contains("alice"), "{list}");
}
