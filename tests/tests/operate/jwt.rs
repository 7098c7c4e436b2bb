//! Tokens as passwords, and the rules that decide what an account may publish, subscribe to and still receive.

use super::tools::*;
use base64ct::{Base64, Base64UrlUnpadded, Encoding};
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use serde_json::json;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

const SECRET: &str = "thirty-two bytes nobody else can know";

fn now_secs() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}

fn pem(der: &[u8]) -> String {
    format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", Base64::encode_string(der))
}

/// A token with these claims, signed by `sign`.
fn token(algorithm: &str, claims: &Json, sign: impl FnOnce(&[u8]) -> Vec<u8>) -> String {
    let part = |value: &Json| Base64UrlUnpadded::encode_string(value.to_string().as_bytes());
    let head = format!("{}.{}", part(&json!({ "alg": algorithm, "typ": "JWT" })), part(claims));
    let signature = Base64UrlUnpadded::encode_string(&sign(head.as_bytes()));
    format!("{head}.{signature}")
}

fn hs256(secret: &str, claims: &Json) -> String {
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret.as_bytes());
    token("HS256", claims, |head| ring::hmac::sign(&key, head).as_ref().to_vec())
}

/// A token for an hour.
fn pass(account: &str, groups: &[&str]) -> String {
    hs256(SECRET, &json!({ "sub": account, "groups": groups, "exp": now_secs() + 3_600 }))
}

/// A broker that takes tokens of this algorithm, signed with the key of this file's contents.
fn guarded(dir: &Dir, algorithm: &str, key: &str, rules: &str) -> Broker {
    dir.put("jwt.key", key);
    write_config(dir, algorithm, rules);
    Broker::start(&["--config", &dir.name("parlor.toml"), "--set", NO_ANONYMOUS])
}

fn write_config(dir: &Dir, algorithm: &str, rules: &str) {
    dir.put("parlor.toml", format!("{rules}\n[auth.jwt]\nkey_file = \"jwt.key\"\nalgorithm = \"{algorithm}\"\n"));
}

fn login(token: &str, client_id: &str) -> Connect {
    Connect::v5(client_id).persistent().password(token)
}

/// A good token lets in as the account it names; one that is forged, changed, expired or of another algorithm does not.
fn check_algorithm(algorithm: &str, key: &str, sign: &dyn Fn(&[u8]) -> Vec<u8>) {
    let dir = Dir::new();
    let broker = guarded(&dir, algorithm, key, "");
    let claims = json!({ "sub": "lamp", "exp": now_secs() + 3_600 });
    let good = token(algorithm, &claims, sign);
    let client = login(&good, "t1").to(&broker);
    assert_eq!(Operator::of(&broker).see("/sessions/t1")["account"], "lamp");
    let _named = Connect::v311("t2").username("lamp").password(&good).to(&broker);
    let refused = |token: &str| {
        let code = login(token, "t3").refused(&broker);
        assert!([0x86, 0x87].contains(&code), "{algorithm}: {code:#04x}");
    };
    assert_eq!(Connect::v5("t4").username("other").password(&good).refused(&broker), 0x86);
    let mut changed = good.clone().into_bytes();
    let end = changed.len() - 3;
    changed[end] = if changed[end] == b'A' { b'B' } else { b'A' };
    refused(std::str::from_utf8(&changed).expect("text"));
    let (_, signature) = good.rsplit_once('.').expect("three parts");
    let other = token(algorithm, &json!({ "sub": "boss", "exp": now_secs() + 3_600 }), |_| Vec::new());
    refused(&format!("{other}{signature}"));
    refused(&token(algorithm, &json!({ "sub": "lamp", "exp": now_secs() - 1 }), sign));
    refused(&token("none", &claims, |_| Vec::new()));
    if algorithm != "HS256" {
        // The public key is known to everybody: it must not do as a secret.
        refused(&hs256(key, &claims));
        refused(&hs256(key.trim_end(), &claims));
    }
    drop(client);
}

/// Ed25519.
#[test]
fn eddsa() {
    let random = ring::rand::SystemRandom::new();
    let pkcs8 = Ed25519KeyPair::generate_pkcs8(&random).expect("a key");
    let pair = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).expect("a key");
    // SubjectPublicKeyInfo of an Ed25519 key (RFC 8410 s4).
    let mut der = vec![0x30, 0x2A, 0x30, 0x05, 0x06, 0x03, 0x2B, 0x65, 0x70, 0x03, 0x21, 0x00];
    der.extend(pair.public_key().as_ref());
    check_algorithm("EdDSA", &pem(&der), &|head| pair.sign(head).as_ref().to_vec());
}

/// RSA, made and signed by openssl.
#[test]
fn rs256() {
    let dir = Dir::new();
    let openssl = |args: &[&str]| {
        let mut command = Command::new("openssl");
        command.args(args);
        run(command, "").ends(0).out
    };
    let key = dir.name("rsa.pem");
    openssl(&["genpkey", "-quiet", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", &key]);
    let public = openssl(&["pkey", "-in", &key, "-pubout"]);
    check_algorithm("RS256", &public, &|head| {
        dir.put("head", head);
        openssl(&["dgst", "-sha256", "-sign", &key, "-out", &dir.name("signature"), &dir.name("head")]);
        std::fs::read(dir.path("signature")).expect("a signature")
    });
}

/// A shared secret.
#[test]
fn hs256_tokens() {
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, SECRET.as_bytes());
    check_algorithm("HS256", SECRET, &|head| ring::hmac::sign(&key, head).as_ref().to_vec());
}

/// When its token expires, a connection ends with 0xA0, and the session waits for a new token.
#[test]
fn expiry_ends_the_connection() {
    let dir = Dir::new();
    let broker = guarded(&dir, "HS256", SECRET, "");
    let short = hs256(SECRET, &json!({ "sub": "lamp", "exp": now_secs() + 2 }));
    let mut v5 = login(&short, "v5").to(&broker);
    let mut v311 = Connect::v311("v311").password(&short).username("lamp").to(&broker);
    let mut long = login(&pass("lamp", &[]), "long").to(&broker);
    v5.thrown_out(&[0xA0]);
    v311.thrown_out(&[]);
    long.quiet();
    assert_ne!(login(&short, "v5").refused(&broker), 0);
    assert!(login(&pass("lamp", &[]), "v5").to(&broker).connack.present);
}

/// Another key after a reload: its tokens are taken, those of the old one are not, and who is there stays. A key file that
/// cannot be used changes nothing.
#[test]
fn the_key_can_change() {
    let dir = Dir::new();
    let broker = guarded(&dir, "HS256", SECRET, "");
    let mut old = login(&pass("lamp", &[]), "old").to(&broker);
    let next = "another secret of thirty-two bytes or more";
    let claims = json!({ "sub": "lamp", "exp": now_secs() + 3_600 });
    assert_ne!(login(&hs256(next, &claims), "new").refused(&broker), 0);
    dir.put("jwt.key", next);
    on(&broker, &["reload"]).ends(0).complains("configuration taken over");
    login(&hs256(next, &claims), "new").to(&broker).quiet();
    assert_ne!(login(&pass("lamp", &[]), "other").refused(&broker), 0);
    old.quiet();
    dir.put("jwt.key", "short");
    on(&broker, &["reload"]).ends(1).complains("32");
    login(&hs256(next, &claims), "new").to(&broker).quiet();
}

const RULES: &str = r##"
[[rule]]
account = "boss"
allow = "all"
topic = "#"
[[rule]]
group = "sensors"
allow = "publish"
topic = "in/%a/%t/#"
[[rule]]
group = "readers"
deny = "subscribe"
topic = "in/secret/#"
[[rule]]
group = "readers"
allow = "subscribe"
topic = "in/#"
[[rule]]
everybody = true
allow = "subscribe"
topic = "out/%a/%t/+"
"##;

/// Rules of accounts and groups, with %a and %t, on publish and on subscribe.
#[test]
fn rules_decide_about_publish_and_subscribe() {
    let dir = Dir::new();
    let broker = guarded(&dir, "HS256", SECRET, RULES);
    let mut boss = login(&pass("boss", &[]), "boss").to(&broker);
    boss.subscribe("#", 1);
    let mut sensor = login(&pass("lamp", &["sensors"]), "t1").to(&broker);
    assert_eq!(sensor.say(1, "in/lamp/t1/x", "mine"), 0);
    assert_eq!(boss.message().text(), "mine");
    for topic in ["in/lamp/t2/x", "in/other/t1/x", "out/lamp/t1/x", "in", "elsewhere"] {
        assert_eq!(sensor.say(1, topic, "not mine"), 0x87, "{topic}");
        assert_eq!(sensor.say(2, topic, "not mine"), 0x87, "{topic}");
        sensor.say(0, topic, "not mine");
    }
    sensor.quiet();
    boss.quiet();
    for (filter, code) in
        [("out/lamp/t1/x", 0), ("out/lamp/t1/+", 0), ("out/lamp/t2/x", 0x87), ("out/+/t1/x", 0x87), ("in/#", 0x87)]
    {
        assert_eq!(sensor.subscribe_code(filter, 0), code, "{filter}");
    }
    assert_eq!(boss.say(1, "out/lamp/t1/x", "for you"), 0);
    assert!(sensor.message().text() == "for you");
    let mut reader = login(&pass("eve", &["readers"]), "t9").to(&broker);
    assert_eq!(reader.subscribe_code("in/+/t1/x", 1), 1);
    assert_eq!(reader.subscribe_code("in/secret/x", 1), 0x87);
    assert_eq!(reader.say(1, "in/eve/t9/x", "no"), 0x87, "reading is not writing");
    let metrics = Operator::of(&broker).metrics();
    assert!(metrics.count("parlor_packets_refused_total{reason=\"not_authorized\"}") >= 15, "{}", metrics.0);
}

/// What an account may no longer read is not delivered: not live, not from the queue, not sent again, not as a retained
/// message, although it was subscribed to and stored when it was allowed.
#[test]
fn rules_decide_about_delivery() {
    let dir = Dir::new();
    let before = "[[rule]]\naccount = \"boss\"\nallow = \"all\"\ntopic = \"#\"\n[[rule]]\ngroup = \"readers\"\n\
                  allow = \"subscribe\"\ntopic = \"in/#\"\n";
    let after = format!("[[rule]]\ngroup = \"readers\"\ndeny = \"subscribe\"\ntopic = \"in/secret/#\"\n{before}");
    let broker = guarded(&dir, "HS256", SECRET, before);
    let reader = |id: &str| login(&pass("eve", &["readers"]), id);
    let mut boss = login(&pass("boss", &[]), "boss").to(&broker);
    let subscribed = |id: &str| {
        let mut client = reader(id).to(&broker);
        client.subscribe("in/#", 2);
        client
    };
    let mut live = subscribed("live");
    subscribed("queued").disconnect();
    let mut resent = subscribed("resent");
    for (qos, text) in [(1, "1"), (2, "2")] {
        assert_eq!(boss.say(qos, "in/secret/x", format!("secret {text}")), 0);
        assert_eq!(boss.say(qos, "in/open/x", format!("open {text}")), 0);
    }
    boss.deliver(&Publish::new("in/secret/kept", "secret kept").qos(1, 0).retain());
    boss.deliver(&Publish::new("in/open/kept", "open kept").qos(1, 0).retain());
    assert_eq!(live.texts(6).len(), 6);

    // Received and never answered: all of it would come again.
    for _ in 0..6 {
        resent.publish_packet();
    }
    resent.cut();
    let mark = broker.log().len();
    write_config(&dir, "HS256", &after);
    broker.signal("HUP");
    broker.await_log_after(mark, "taken over");
    assert_eq!(boss.say(1, "in/secret/x", "secret live"), 0x10, "nobody may have it");
    assert_eq!(boss.say(1, "in/open/x", "open live"), 0);
    assert_eq!(live.message().text(), "open live");
    live.quiet();
    for id in ["queued", "resent"] {
        let mut client = reader(id).to(&broker);
        assert!(client.connack.present);
        assert_eq!(client.texts(4), ["open 1", "open 2", "open kept", "open live"], "{id}");
        client.quiet();
    }
    let mut new = reader("new").to(&broker);
    new.subscribe("in/#", 1);
    assert_eq!(new.message().text(), "open kept");
    new.quiet();
    let dropped = Operator::of(&broker).metrics().count("parlor_messages_dropped_total{reason=\"not_authorized\"}");
    assert!(dropped >= 6, "{dropped}");
}
