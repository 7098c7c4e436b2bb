//! The log: what is in it, what is never in it, and its two forms.

use super::tools::*;
use serde_json::json;

/// No password, token, payload or key is in the log, whatever happens and however much is logged.
#[test]
fn no_secret_is_ever_logged() {
    let dir = Dir::new();
    let secret = "the-token-key-of-thirty-two-bytes-or-more";
    dir.put("jwt.key", secret);
    for format in ["text", "json"] {
        let mut broker = Broker::start(&[
            "--set",
            NO_ANONYMOUS,
            "--log-level",
            "trace",
            "--set",
            &format!("log.format={format}"),
            "--set",
            &format!("auth.jwt.key_file={}", dir.name("jwt.key")),
            "--set",
            "auth.jwt.algorithm=HS256",
        ]);
        broker.add_account("alice", "right-secret-1");
        let operator = Operator::of(&broker);
        let token = std::fs::read_to_string(broker.data().join("admin.token")).expect("a token");
        operator.ask("PUT", "/accounts/alice", &json!({ "password": "right-secret-2" }).to_string());
        operator.ask("POST", "/accounts", r#"{"name":"bad name","password":"never-secret-3"}"#);
        operator.ask("POST", "/accounts", r#"{"name":"bob","password":"never-secret-4","#);
        let alice = || Connect::v5("alice").persistent().username("alice");
        let will = Publish::new("w", "payload-secret-5").qos(1, 0);
        let mut client = alice().password("right-secret-2").will(will).to(&broker);
        client.subscribe("t", 1);
        assert_eq!(client.say(1, "t", "payload-secret-6"), 0);
        client.message();
        client.send(&frame(0x32, b"\xFF\xFFpayload-secret-7"));
        client.closed();
        for version in BOTH {
            let wrong = Connect::new(version, "x").username("alice").password("wrong-secret-8");
            assert_ne!(wrong.refused(&broker), 0);
            let unknown = Connect::new(version, "x").username("nobody").password("wrong-secret-9");
            assert_ne!(unknown.refused(&broker), 0);
        }
        // Credentials in the wrong place, and malformed ones.
        Connect::v5("x")
            .username("alice")
            .password("wrong-secret-10")
            .trailing(b"tail-secret-11")
            .send_to(&broker)
            .closed();
        let method = Connect::v5("x").with(prop::auth_method("SCRAM-SHA-256"));
        let mut scram = method.with(prop::auth_data("n,,n=alice,r=nonce-secret-12")).send_to(&broker);
        assert!(matches!(scram.recv(), Packet::Auth { .. }));
        scram.cut();
        let forged = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbGljZSIsImV4cCI6OTk5OTk5OTk5OX0.c2VjcmV0LTEz";
        assert_ne!(Connect::v5("x").password(forged).refused(&broker), 0);
        http(broker.http(), "GET", "/api/v1/status", &[("Authorization", "Bearer guessed-secret-14")], b"");
        on(&broker, &["reload"]).ends(0);
        broker.signal("TERM");
        let log = {
            broker.await_log("stopped");
            broker.log()
        };
        assert!(broker.ended().success());
        for word in ["secret", token.trim(), forged, "c2VjcmV0", "argon2", secret] {
            // `secret` alone would also find a key of the configuration, which has none of that name.
            assert!(!log.contains(word), "{word:?} in the log:\n{log}");
        }
        if format == "json" {
            for line in log.lines() {
                let line: Json = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
                assert!(line["time"].is_string() && line["level"].is_string() && line["message"].is_string());
            }
        }
    }
}

/// At debug the log tells of each connection: who it was, and why it was not let in.
#[test]
fn debug_tells_of_each_connection() {
    let broker = Broker::start(&["--log-level", "debug", "--set", NO_ANONYMOUS]);
    broker.add_account("alice", "alices-password");
    let mark = broker.log().len();
    let connect = |password: &str| Connect::v5("lamp-7").username("alice").password(password).ask(&broker);
    let client = connect("alices-password");
    let peer = client.stream().local_addr().expect("an address").to_string();
    for text in ["client_id=lamp-7", "account=alice"] {
        let line = broker.await_log_after(mark, text);
        assert!(line.contains("DEBUG") && line.contains(&peer), "{line}");
    }
    client.disconnect();
    assert!(broker.await_log_after(0, "connection ended").contains(&peer));
    let refused = connect("another-password");
    let peer = refused.stream().local_addr().expect("an address").to_string();
    let line = broker.await_log_after(0, "not let in");
    assert!(line.contains(&peer) && line.contains("label=bad_password"), "{line}");
}

/// A client cannot forge a line of the log.
#[test]
fn a_line_is_a_line() {
    let broker = Broker::start(&["--log-level", "trace"]);
    let name = "x\n2026-01-01T00:00:00.000Z ERROR all is lost";
    let mut client = Connect::v5(name).ask(&broker);
    client.send(&frame(0xF0, []));
    client.closed();
    Connect::v5("fence").to(&broker).quiet();
    on(&broker, &["session", "kick", "x\nERROR y"]);
    assert!(
        !broker.log().lines().any(|line| line.starts_with("2026-01-01") || line.starts_with("ERROR")),
        "{}",
        broker.log()
    );
}
