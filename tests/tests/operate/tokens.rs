//! Connect tokens: issued over HTTP and on the command line, taken as passwords, and worth nothing when they should be.

use super::tools::*;
use base64ct::{Base64UrlUnpadded, Encoding};
use serde_json::json;
use std::os::unix::fs::PermissionsExt;

const PASSWORD: &str = "a-good-password";

/// A broker with the account `lamp`, and whoever operates it.
fn house(args: &[&str]) -> (Broker, Operator) {
    let broker = Broker::start(&[&["--set", NO_ANONYMOUS], args].concat());
    broker.add_account("lamp", PASSWORD);
    let operator = Operator::of(&broker);
    (broker, operator)
}

fn issue(operator: &Operator, account: &str, body: &Json) -> String {
    let answer = operator.ask("POST", &format!("/accounts/{account}/token"), &body.to_string());
    assert_eq!(answer.status, 201, "{}", answer.text());
    answer.json()["token"].as_str().expect("a token").to_owned()
}

fn login(client_id: &str, password: &str) -> Connect {
    Connect::v5(client_id).persistent().username("lamp").password(password)
}

/// A token with this header and the claims of `like`, signed with `key`.
fn forged(header: &Json, like: &str, key: &[u8]) -> String {
    let claims = like.split('.').nth(1).expect("three parts");
    let head = format!("{}.{claims}", Base64UrlUnpadded::encode_string(header.to_string().as_bytes()));
    let signature = ring::hmac::sign(&ring::hmac::Key::new(ring::hmac::HMAC_SHA256, key), head.as_bytes());
    format!("{head}.{}", Base64UrlUnpadded::encode_string(signature.as_ref()))
}

/// A token is a password without anything configured, for every version, until it expires; its groups are those it names.
#[test]
fn a_token_is_a_password() {
    let (mut broker, operator) = house(&[]);
    let key = broker.data().join("tokens.key");
    assert!(!key.exists());
    let token = issue(&operator, "lamp", &json!({}));
    assert_eq!(std::fs::metadata(&key).expect("the key").permissions().mode() & 0o777, 0o600);
    let mut v5 = login("v5", &token).to(&broker);
    let mut v311 = Connect::v311("v311").username("lamp").password(&token).to(&broker);
    let mut nameless = Connect::v5("nameless").password(&token).to(&broker);
    for client in [&mut v5, &mut v311, &mut nameless] {
        client.quiet();
    }
    assert_eq!(operator.see("/sessions/nameless")["account"], "lamp");
    assert_ne!(Connect::v5("other").username("boss").password(&token).refused(&broker), 0);
    // The key outlives the process.
    assert!(broker.stop().success());
    broker.start_again();
    login("v5", &token).to(&broker).quiet();
    // Without it the tokens are worth nothing, and new ones are issued all the same.
    assert!(broker.stop().success());
    std::fs::remove_file(&key).expect("removed");
    broker.start_again();
    assert_ne!(login("v5", &token).refused(&broker), 0);
    let operator = Operator::of(&broker);
    let token = issue(&operator, "lamp", &json!({ "ttl_s": 2_592_000 }));
    login("v5", &token).to(&broker).quiet();
}

/// When its token expires, a connection ends with 0xA0, and the token does not let in again.
#[test]
fn expiry_ends_the_connection() {
    let (broker, operator) = house(&[]);
    let token = issue(&operator, "lamp", &json!({ "ttl_s": 2 }));
    let mut client = login("short", &token).to(&broker);
    client.thrown_out(&[0xA0]);
    assert_eq!(login("short", &token).refused(&broker), 0x87);
    login("short", PASSWORD).to(&broker).quiet();
    let metrics = operator.metrics();
    assert_eq!(metrics.count("parlor_auth_total{result=\"expired_token\"}"), 1, "{}", metrics.0);
}

/// Another password, an order, disabling and removing the account: each makes its tokens worth nothing.
#[test]
fn tokens_are_revoked() {
    let (mut broker, operator) = house(&[]);
    let token = issue(&operator, "lamp", &json!({}));
    let mut client = login("lamp-1", &token).to(&broker);
    assert_eq!(operator.ask("DELETE", "/accounts/lamp/tokens", "").status, 204);
    client.thrown_out(&[0x98]);
    assert_eq!(login("lamp-1", &token).refused(&broker), 0x87);
    login("lamp-1", PASSWORD).to(&broker).quiet();
    let token = issue(&operator, "lamp", &json!({}));
    assert_eq!(operator.ask("PUT", "/accounts/lamp", r#"{"groups":["g"]}"#).status, 200);
    login("lamp-1", &token).to(&broker).quiet();
    assert_eq!(operator.ask("PUT", "/accounts/lamp", r#"{"password":"another-password"}"#).status, 200);
    assert_eq!(login("lamp-1", &token).refused(&broker), 0x87);
    // It stays so when the broker was killed.
    broker.kill();
    broker.start_again();
    let operator = Operator::of(&broker);
    assert_eq!(login("lamp-1", &token).refused(&broker), 0x87);
    let token = issue(&operator, "lamp", &json!({}));
    assert_eq!(operator.ask("PUT", "/accounts/lamp", r#"{"disabled":true}"#).status, 200);
    assert_eq!(login("lamp-1", &token).refused(&broker), 0x87);
    assert_eq!(operator.ask("POST", "/accounts/lamp/token", "").status, 409);
    assert_eq!(operator.ask("PUT", "/accounts/lamp", r#"{"disabled":false}"#).status, 200);
    login("lamp-1", &token).to(&broker).quiet();
    assert_eq!(operator.ask("DELETE", "/accounts/lamp", "").status, 204);
    assert_ne!(login("lamp-1", &token).refused(&broker), 0);
    broker.add_account("lamp", PASSWORD);
    assert_eq!(login("lamp-1", &token).refused(&broker), 0x87, "a new account inherits nothing");
    assert_eq!(operator.ask("DELETE", "/accounts/nobody/tokens", "").status, 404);
    assert_eq!(operator.ask("POST", "/accounts/nobody/token", "").status, 404);
}

/// A token of another key, of another algorithm, without a signature or with other claims is none.
#[test]
fn forgeries_are_refused() {
    let (broker, operator) = house(&[]);
    let token = issue(&operator, "lamp", &json!({}));
    let key = std::fs::read(broker.data().join("tokens.key")).expect("the key");
    let header = |algorithm: &str| json!({ "alg": algorithm, "typ": "JWT", "kid": "parlor-connect" });
    login("genuine", &forged(&header("HS256"), &token, &key)).to(&broker).quiet();
    let refused = |token: &str| {
        let code = login("forger", token).refused(&broker);
        assert!([0x86, 0x87].contains(&code), "{code:#04x}: {token}");
    };
    refused(&forged(&header("HS256"), &token, b"a key of thirty-two bytes or more"));
    for algorithm in ["none", "EdDSA", "RS256", "HS384"] {
        refused(&forged(&header(algorithm), &token, &key));
    }
    refused(&forged(&json!({ "alg": "HS256" }), &token, &key));
    let parts: Vec<&str> = token.split('.').collect();
    refused(&format!("{}.{}.", parts[0], parts[1]));
    let claims = Base64UrlUnpadded::decode_vec(parts[1]).expect("base64");
    let mut claims: Json = serde_json::from_slice(&claims).expect("JSON");
    claims["exp"] = 4_102_444_800_u64.into();
    let longer = Base64UrlUnpadded::encode_string(claims.to_string().as_bytes());
    refused(&format!("{}.{longer}.{}", parts[0], parts[2]));
}

/// Beside configured tokens, each kind is held against its own key.
#[test]
fn configured_tokens_go_on_beside() {
    let dir = Dir::new();
    let secret = "thirty-two bytes nobody else can know";
    dir.put("jwt.key", secret);
    dir.put("parlor.toml", "[auth.jwt]\nkey_file = \"jwt.key\"\nalgorithm = \"HS256\"\n");
    let (broker, operator) = house(&["--config", &dir.name("parlor.toml")]);
    let token = issue(&operator, "lamp", &json!({}));
    login("connect", &token).to(&broker).quiet();
    login("configured", &forged(&json!({ "alg": "HS256" }), &token, secret.as_bytes())).to(&broker).quiet();
    let disguised = json!({ "alg": "HS256", "kid": "parlor-connect" });
    assert_ne!(login("disguised", &forged(&disguised, &token, secret.as_bytes())).refused(&broker), 0);
}

/// The command line prints a token and nothing else.
#[test]
fn the_command_line_issues_tokens() {
    let (broker, _) = house(&[]);
    let said = on(&broker, &["account", "token", "lamp", "--ttl", "10m"]).ends(0);
    assert_eq!((said.out.lines().count(), said.err.as_str()), (1, ""));
    login("cli", said.out.trim()).to(&broker).quiet();
    on(&broker, &["account", "token", "nobody"]).ends(3).complains("no account `nobody`");
    on(&broker, &["account", "token", "lamp", "--ttl", "31d"]).ends(2).complains("30 days");
    on(&broker, &["account", "token", "lamp", "--ttl", "soon"]).ends(2).complains("1h");
    on(&broker, &["account", "token", "lamp", "-g", "no group"]).ends(1).complains("64");
}

/// The groups of a token are those its rules go by.
#[test]
fn a_token_may_give_less() {
    let dir = Dir::new();
    dir.put("parlor.toml", "[[rule]]\ngroup = \"devices\"\nallow = \"all\"\ntopic = \"home/#\"\n");
    let (broker, operator) = house(&["--config", &dir.name("parlor.toml")]);
    assert_eq!(operator.ask("PUT", "/accounts/lamp", r#"{"groups":["devices"]}"#).status, 200);
    let mut whole = login("whole", &issue(&operator, "lamp", &json!({}))).to(&broker);
    assert_eq!(whole.say(1, "home/x", "on"), 0x10, "nobody reads it");
    let mut less = login("less", &issue(&operator, "lamp", &json!({ "groups": ["guests"] }))).to(&broker);
    assert_eq!(less.say(1, "home/x", "on"), 0x87);
}

/// No name that means something else in messaging can become an account, wherever accounts are made.
#[test]
fn reserved_names_are_refused() {
    let (mut broker, operator) = house(&[]);
    for name in ["me", "pair", "anonymous", "g-home", "ch-news", "r-live"] {
        let body = json!({ "name": name, "password": PASSWORD }).to_string();
        let answer = operator.ask("POST", "/accounts", &body);
        assert_eq!(answer.status, 422, "{name}: {}", answer.text());
        assert!(answer.json()["detail"].as_str().is_some_and(|text| text.contains("choose another name")));
    }
    let data = broker.data().display().to_string();
    let add = ["account", "add", "g-home", "--password-stdin", "--data", &data];
    parlor_in(&add, &format!("{PASSWORD}\n"), &[]).ends(2).complains("choose another name");
    assert!(broker.stop().success());
    parlor_in(&add, &format!("{PASSWORD}\n"), &[]).ends(2).complains("choose another name");
    broker.start_again();
}

/// Neither tokens nor passwords nor the operator's token appear in the log, however much it says.
#[test]
fn the_log_keeps_secrets() {
    let (broker, operator) = house(&["--log-level", "trace"]);
    let token = issue(&operator, "lamp", &json!({ "ttl_s": 60 }));
    let mut client = login("lamp-1", &token).to(&broker);
    client.say(1, "im/v1/to/nobody/msg", "a secret text");
    login("lamp-1", "a-wrong-password").refused(&broker);
    let pairing = json!({ "code": "SECR-ETCO", "name": "lamp2" }).to_string();
    http(broker.http(), "POST", "/api/v1/pair", &[], pairing.as_bytes());
    let bearer = format!("Bearer {token}");
    let message = json!({ "to": "lamp", "text": "another secret text" }).to_string();
    http(broker.http(), "POST", "/api/v1/messages", &[("Authorization", &bearer)], message.as_bytes());
    operator.ask("POST", "/messages", &message);
    operator.ask("DELETE", "/accounts/lamp/tokens", "");
    let admin = std::fs::read_to_string(broker.data().join("admin.token")).expect("a token");
    broker.signal("TERM");
    broker.await_log("stopped");
    let log = broker.log();
    assert!(log.contains("issues a connect token") && log.contains("CONNECT"), "{log}");
    let signature = token.rsplit('.').next().expect("three parts");
    for secret in [
        &token,
        signature,
        PASSWORD,
        "a-wrong-password",
        admin.trim(),
        "SECR-ETCO",
        "a secret text",
        "another secret text",
    ] {
        assert!(!log.contains(secret), "{secret} in\n{log}");
    }
}
