//! Accounts while the broker runs, and what guessing at them costs.

use super::tools::*;
use super::transport::Way;
use std::net::Ipv4Addr;

fn with_password(args: &[&str], broker: &Broker, password: &str) -> Said {
    let data = broker.data().display().to_string();
    parlor_in(&[args, &["--password-stdin", "--data", &data]].concat(), &format!("{password}\n"), &[])
}

fn user(name: &str, password: &str) -> Connect {
    Connect::v5(&format!("of-{name}")).persistent().username(name).password(password)
}

/// Accounts are made, changed, listed and removed while the broker runs, and are there after a kill.
#[test]
fn accounts_change_while_it_runs() {
    let mut broker = Broker::start(&["--set", NO_ANONYMOUS]);
    let list = |broker: &Broker| on(broker, &["account", "list"]).ends(0).out;
    assert_eq!(list(&broker), "");
    with_password(&["account", "add", "lamp", "--group", "devices", "-g", "home"], &broker, "first-password")
        .ends(0)
        .complains("account lamp made");
    with_password(&["account", "add", "alice"], &broker, "alices-password").ends(0);
    with_password(&["account", "add", "lamp"], &broker, "other-password").ends(3).complains("account passwd lamp");
    with_password(&["account", "add", "Lamp!"], &broker, "other-password").ends(2);
    with_password(&["account", "add", "bob"], &broker, "short").ends(2).complains("8");
    with_password(&["account", "passwd", "nobody"], &broker, "other-password").ends(3);
    assert_eq!(list(&broker), "alice\nlamp   devices, home\n");
    let rows: Json = serde_json::from_str(&on(&broker, &["account", "list", "--json"]).ends(0).out).expect("JSON");
    assert_eq!(rows[1]["name"], "lamp");

    let mut lamp = user("lamp", "first-password").to(&broker);
    let mut alice = user("alice", "alices-password").to(&broker);
    alice.subscribe("t", 1);
    with_password(&["account", "passwd", "lamp"], &broker, "second-password").ends(0);
    lamp.quiet();
    assert_ne!(user("lamp", "first-password").refused(&broker), 0);
    broker.kill();
    broker.start_again();
    let mut lamp = user("lamp", "second-password").to(&broker);
    assert!(lamp.connack.present);
    let mut alice = user("alice", "alices-password").to(&broker);
    lamp.subscribe("t", 1);

    on(&broker, &["account", "remove", "lamp"]).ends(0).complains("account lamp removed");
    lamp.thrown_out(&[0x98, 0x87]);
    assert_ne!(user("lamp", "second-password").refused(&broker), 0);
    on(&broker, &["account", "remove", "lamp"]).ends(3);
    alice.quiet();
    assert_eq!(list(&broker), "alice\n");
    with_password(&["account", "add", "lamp"], &broker, "third-password").ends(0);
    assert!(!user("lamp", "third-password").to(&broker).connack.present, "a new account inherits nothing");

    // The same commands work on the store of a broker that does not run.
    assert!(broker.stop().success());
    with_password(&["account", "add", "offline", "-g", "g"], &broker, "offline-password").ends(0);
    with_password(&["account", "passwd", "alice"], &broker, "changed-password").ends(0);
    on(&broker, &["account", "rm", "lamp"]).ends(0);
    assert_eq!(list(&broker), "alice\noffline  g\n");
    broker.start_again();
    user("offline", "offline-password").to(&broker).quiet();
    user("alice", "changed-password").to(&broker).quiet();
    assert_ne!(user("lamp", "third-password").refused(&broker), 0);
}

/// The API does the same, and can disable an account, which ends its connections.
#[test]
fn accounts_over_the_api() {
    let broker = Broker::start(&["--set", NO_ANONYMOUS]);
    let operator = Operator::of(&broker);
    let made = operator.ask("POST", "/accounts", r#"{"name":"lamp","password":"a-good-password","groups":["g"]}"#);
    assert_eq!((made.status, &made.json()["name"]), (201, &Json::from("lamp")));
    assert!(!made.text().contains("argon2"), "no hash leaves the broker: {}", made.text());
    assert_eq!(operator.ask("POST", "/accounts", r#"{"name":"lamp","password":"a-good-password"}"#).status, 409);
    let mut lamp = user("lamp", "a-good-password").to(&broker);
    assert_eq!(operator.ask("PUT", "/accounts/lamp", r#"{"disabled":true}"#).status, 200);
    lamp.thrown_out(&[0x98, 0x87]);
    assert_ne!(user("lamp", "a-good-password").refused(&broker), 0);
    assert_eq!(operator.ask("PUT", "/accounts/lamp", r#"{"disabled":false}"#).status, 200);
    assert!(user("lamp", "a-good-password").to(&broker).connack.present);
    assert_eq!(operator.ask("PUT", "/accounts/nobody", "{}").status, 404);
    assert_eq!(operator.ask("DELETE", "/accounts/lamp", "").status, 204);
    let rows = operator.see("/accounts");
    assert_eq!(rows["items"], Json::Array(vec![]));
}

/// Wrong passwords are slowed down for the address and account they come from; the right user from elsewhere, other
/// accounts, and devices that have logged in before are not kept out.
#[test]
fn guessing_is_slowed_down() {
    let broker = Broker::start(&[
        "--set",
        NO_ANONYMOUS,
        "--set",
        "auth.slow_down.free_failures=3",
        "--set",
        "auth.slow_down.first_delay_ms=60000",
    ]);
    broker.add_account("alice", "alices-password");
    broker.add_account("bob", "bobs-password");
    let guesser = Ipv4Addr::new(127, 0, 0, 9);
    let guess = |password: &str, version| {
        let connect = Connect::new(version, "guesser").username("alice").password(password);
        let bridge = Way::plain().from(guesser).to(broker.addr());
        connect.refused(&bridge)
    };
    let codes: Vec<u8> = (0..8).map(|n| guess(&format!("guess-number-{n}"), V5)).collect();
    let free = codes.iter().take_while(|code| **code == 0x86 || **code == 0x87).count();
    assert!((3..=4).contains(&free), "{codes:02x?}");
    assert!(codes[free..].iter().all(|code| *code == 0x9F), "{codes:02x?}");
    assert_eq!(guess("alices-password", V5), 0x9F, "the right guess is not looked at either");
    assert!([3, 5].contains(&guess("alices-password", V311)));

    let elsewhere = || Way::plain().from(Ipv4Addr::new(127, 0, 0, 8)).to(broker.addr());
    user("alice", "alices-password").to(&elsewhere()).quiet();
    let beside = || Way::plain().from(guesser).to(broker.addr());
    user("bob", "bobs-password").to(&beside()).quiet();
    let metrics = Operator::of(&broker).metrics();
    let counted: Vec<&str> = metrics.0.lines().filter(|l| l.starts_with("parlor_auth_total{")).collect();
    let total: u64 = counted.iter().filter_map(|l| l.rsplit(' ').next()?.parse::<u64>().ok()).sum();
    assert_eq!(total, 8 + 2 + 2, "each attempt once: {counted:?}");
    let lines = broker.log().lines().filter(|line| line.contains("guesser") || line.contains("CONNECT from")).count();
    assert!(lines <= 3, "a flood makes few lines:\n{}", broker.log());
}

/// After the wait the right password is taken again.
#[test]
fn the_wait_ends() {
    let broker = Broker::start(&[
        "--set",
        NO_ANONYMOUS,
        "--set",
        "auth.slow_down.free_failures=1",
        "--set",
        "auth.slow_down.first_delay_ms=300",
    ]);
    broker.add_account("alice", "alices-password");
    while user("alice", "a-wrong-password").refused(&broker) != 0x9F {}
    let operator = Operator::of(&broker);
    operator.until("the right password is taken again", |_| {
        let client = user("alice", "alices-password").ask(&broker);
        assert!([0, 0x9F].contains(&client.connack.code), "{:?}", client.connack);
        (client.connack.code == 0).then_some(())
    });
}
