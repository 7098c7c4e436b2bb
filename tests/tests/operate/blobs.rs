//! Blobs from the operator's side: over HTTP and on the command line, what is refused, and what a backup keeps.

use super::schema::conforms;
use super::tools::*;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;

const PASSWORD: &str = "the-lamps-password";

fn broker(extra: &[&str]) -> (Broker, Operator) {
    let broker = Broker::start(&[&["--set", NO_ANONYMOUS], extra].concat());
    let operator = Operator::of(&broker);
    for name in ["alice", "lamp"] {
        broker.add_account(name, PASSWORD);
    }
    (broker, operator)
}

fn image(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 7 + at / 251).to_le_bytes()[0]).collect()
}

/// What the lamp can fetch of a blob.
fn fetch(broker: &Broker, id: &str) -> Vec<u8> {
    let mut lamp = Connect::v5("lamp-1").username("lamp").password(PASSWORD).to(broker);
    lamp.subscribe("im/v1/me/blob/res", 1);
    let mut got = vec![];
    loop {
        let ask = format!(r#"{{"offset":{}}}"#, got.len());
        assert_eq!(lamp.say(1, &format!("im/v1/me/blob/{id}"), ask), 0);
        let answer = lamp.on("im/v1/me/blob/res").payload;
        let size = u64::from_be_bytes(answer[8..16].try_into().expect("8 bytes"));
        got.extend_from_slice(&answer[16..]);
        if got.len() as u64 == size {
            lamp.disconnect();
            return got;
        }
    }
}

/// Why the lamp gets nothing.
fn refusal(broker: &Broker, id: &str) -> u8 {
    let mut lamp = Connect::v5("lamp-1").username("lamp").password(PASSWORD).to(broker);
    lamp.publish_for(1, &format!("im/v1/me/blob/{id}"), "{}").code
}

/// Put in, put in again, listed, granted, read, removed.
#[test]
fn blobs_come_and_go_over_http() {
    let (mut broker, operator) = broker(&[]);
    let content = image(700_001);
    let answer = operator.post("/blobs?name=app.bin&version=1.2.0", &content);
    let put = answer.json();
    assert_eq!((answer.status, &put["dup"], &put["size"]), (201, &false.into(), &content.len().into()), "{put}");
    conforms(&put, "Blob");
    let id = put["id"].as_str().expect("an id").to_owned();
    assert_eq!(refusal(&broker, &id), 0x87, "it is for nobody");
    let again = operator.post("/blobs?name=other.bin&version=9&for=lamp", &content);
    let put = again.json();
    assert_eq!(
        (again.status, &put["dup"], &put["name"], &put["version"]),
        (200, &true.into(), &"app.bin".into(), &"1.2.0".into())
    );
    assert!(fetch(&broker, &id) == content);
    let granted =
        operator.ask("POST", &format!("/blobs/{id}/readers"), r#"{"add":["alice"],"remove":["lamp"]}"#).json();
    assert_eq!(granted["for"], serde_json::json!(["alice"]), "{granted}");
    assert_eq!(refusal(&broker, &id), 0x87);
    operator.ask("POST", &format!("/blobs/{id}/readers"), r#"{"add":["lamp"]}"#);
    // What was answered is on the disk.
    broker.kill();
    broker.start_again();
    let operator = Operator::of(&broker);
    let listed = operator.see("/blobs");
    assert_eq!(listed["items"].as_array().map(Vec::len), Some(1));
    conforms(&listed["items"][0], "Blob");
    assert!(fetch(&broker, &id) == content);
    assert_eq!(operator.ask("DELETE", &format!("/blobs/{id}"), "").status, 204);
    assert_eq!(operator.ask("DELETE", &format!("/blobs/{id}"), "").status, 404);
    assert_eq!((operator.see("/blobs")["items"].as_array().map(Vec::len), refusal(&broker, &id)), (Some(0), 0x87));
}

/// What is refused leaves nothing behind.
#[test]
fn what_is_too_much_or_not_allowed_is_refused() {
    let (broker, operator) = broker(&["--set", "limits.im_blob_bytes_max=300000", "--set", "limits.im_blobs_max=2"]);
    let refused = |path: &str, content: &[u8], status: u16, code: &str| {
        let answer = operator.post(path, content);
        assert_eq!((answer.status, &answer.json()["code"]), (status, &code.into()), "{}", answer.text());
    };
    refused("/blobs", &image(300_001), 413, "too_large");
    refused("/blobs", b"", 400, "bad_request");
    refused("/blobs?for=nobody", b"x", 404, "not_found");
    refused("/blobs?for=ch-news", b"x", 404, "not_found");
    refused("/blobs?signature=abc", b"x", 400, "bad_request");
    refused(&format!("/blobs?version={}", "x".repeat(200)), b"x", 400, "bad_request");
    // One that does not say how long it is gets as far as the limit.
    let mut stream = std::net::TcpStream::connect(broker.http()).expect("it listens");
    let token = std::fs::read_to_string(broker.data().join("admin.token")).expect("a token");
    let head = "POST /api/v1/blobs HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n";
    write!(stream, "{head}Authorization: Bearer {}\r\n\r\n", token.trim()).expect("sent");
    for _ in 0..40 {
        let sent = stream.write_all(b"4000\r\n").and_then(|()| stream.write_all(&image(0x4000)));
        if sent.and_then(|()| stream.write_all(b"\r\n")).is_err() {
            break;
        }
    }
    let mut answer = String::new();
    let _ = std::io::Read::read_to_string(&mut stream, &mut answer);
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    assert_eq!(operator.see("/blobs"), serde_json::json!({ "items": [] }));
    for bearer in ["", "Bearer wrong"] {
        let answer = http(broker.http(), "POST", "/api/v1/blobs", &[("Authorization", bearer)], b"x");
        assert_eq!(answer.status, 401);
    }
    for content in ["one", "two"] {
        assert_eq!(operator.post("/blobs", content.as_bytes()).status, 201);
    }
    refused("/blobs", b"three", 429, "quota");
}

/// A backup holds blobs, and a restore brings them back, into a broker that runs and into one that does not.
#[test]
fn backup_and_restore_keep_blobs() {
    let (mut broker, operator) = broker(&[]);
    let content = image(100_000);
    let put = operator.post("/blobs?name=app.bin&for=lamp", &content).json();
    let id = put["id"].as_str().expect("an id").to_owned();
    let dir = Dir::new();
    let file = dir.name("parlor-backup");
    on(&broker, &["backup", &file]).ends(0);
    assert_eq!(operator.ask("DELETE", &format!("/blobs/{id}"), "").status, 204);
    on(&broker, &["restore", "--yes", &file]).ends(0);
    operator.until("the blob is back", |operator| {
        let answer = operator.ask("GET", "/blobs", "");
        (answer.status == 200 && answer.json()["items"][0]["id"] == id.as_str()).then_some(())
    });
    assert!(fetch(&broker, &id) == content);
    assert_eq!(Operator::of(&broker).ask("DELETE", &format!("/blobs/{id}"), "").status, 204);
    broker.stop();
    std::fs::remove_dir_all(broker.data().join("store.replaced")).expect("what the first restore replaced");
    on(&broker, &["restore", "--yes", &file]).ends(0);
    broker.start_again();
    assert!(fetch(&broker, &id) == content);
}

/// The same from the command line, with a key.
#[test]
fn the_command_line_puts_in_lists_and_removes() {
    let (broker, _) = broker(&[]);
    let dir = Dir::new();
    let content = image(2_500_000);
    let (file, key) = (dir.put("app.bin", &content).display().to_string(), dir.name("ota.pem"));
    let made = parlor(&["blob", "key", &key]).ends(0);
    let hex = made.out.lines().find_map(|line| line.strip_prefix("public key  ")).expect("its public half").to_owned();
    assert_eq!(hex.len(), 64, "{}", made.out);
    assert!(made.out.contains("[u8; 32] = [") && made.out.matches("0x").count() == 32, "{}", made.out);
    assert_eq!(std::fs::metadata(&key).expect("a file").permissions().mode() & 0o777, 0o600);
    parlor(&["blob", "key", &key]).ends(1).complains("exists already");
    let put = on(&broker, &["blob", "put", &file, "--version", "1.2.0", "--for", "lamp", "--key", &key]).ends(0);
    let id = put.out.trim().to_owned();
    assert_eq!(id.len(), 64, "the id and nothing else: {put:?}");
    assert!(put.err.contains("2500000 bytes"), "{put:?}");
    assert!(fetch(&broker, &id) == content);
    let listed = on(&broker, &["blob", "list"]).ends(0).out;
    for word in [&id[..12], "app.bin", "1.2.0", "2500000", "signed", "lamp"] {
        assert!(listed.contains(word), "{word}: {listed}");
    }
    let json: Json = serde_json::from_str(&on(&broker, &["blob", "list", "--json"]).ends(0).out).expect("JSON");
    let signature = json[0]["signature"].as_str().expect("a signature").to_owned();
    // Anybody can check it with the public key.
    let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex");
    let public: Vec<u8> = (0..64).step_by(2).map(byte).collect();
    let digest: Vec<u8> = (0..64).step_by(2).map(|at| u8::from_str_radix(&id[at..at + 2], 16).expect("hex")).collect();
    let raw = base64(&signature);
    let public = ring::signature::UnparsedPublicKey::new(&ring::signature::ED25519, public);
    public.verify(&digest, &raw).expect("the signature is of the 32 bytes of the digest");
    on(&broker, &["blob", "put", &file, "--version", "1.2.0", "--for", "alice"]).ends(0).complains("was there");
    on(&broker, &["blob", "put", &file, "--version", "1", "--for", "nobody"]).ends(1).complains("nobody");
    on(&broker, &["blob", "put", &dir.name("none"), "--version", "1"]).ends(1).complains("none");
    on(&broker, &["blob", "remove", &id[..12]]).ends(0);
    on(&broker, &["blob", "remove", &id]).ends(3).complains("blob list");
    assert_eq!(on(&broker, &["blob", "list"]).ends(0).out.lines().count(), 1, "the head of the table");
}

/// A device that fetches what it is told to, checks it, and says how far it is.
fn device(broker: &Broker, public: Vec<u8>) -> std::thread::JoinHandle<Vec<u8>> {
    let mut lamp = Connect::v5("board").username("lamp").password(PASSWORD).to(broker);
    lamp.subscribe_all(&[("im/v1/me/cmd/#", 1), ("im/v1/me/blob/res", 1)], &[]);
    std::thread::spawn(move || {
        let order = loop {
            let message = lamp.message();
            if message.topic.ends_with("/update") {
                break message;
            }
        };
        let id = order.topic.split('/').nth(4).expect("an id").to_owned();
        let args = serde_json::from_str::<Json>(order.text()).expect("JSON")["args"].clone();
        let say = |lamp: &mut Client, payload: String| {
            assert_eq!(lamp.say(1, &format!("im/v1/me/cmdres/{id}"), payload), 0);
        };
        let size = args["size"].as_u64().expect("a size");
        let mut got: Vec<u8> = vec![];
        while (got.len() as u64) < size {
            let percent = got.len() as u64 * 100 / size;
            say(&mut lamp, format!(r#"{{"state":"running","result":{{"progress":{percent}}}}}"#));
            let ask = format!(r#"{{"offset":{}}}"#, got.len());
            assert_eq!(lamp.say(1, &format!("im/v1/me/blob/{}", args["blob"].as_str().expect("an id")), ask), 0);
            got.extend_from_slice(&lamp.on("im/v1/me/blob/res").payload[16..]);
            // As long as flash takes: the requester is told once a second.
            std::thread::sleep(std::time::Duration::from_millis(300));
        }
        let digest = ring::digest::digest(&ring::digest::SHA256, &got);
        let signature = base64(args["signature"].as_str().expect("a signature"));
        let public = ring::signature::UnparsedPublicKey::new(&ring::signature::ED25519, public);
        public.verify(digest.as_ref(), &signature).expect("it is signed");
        say(&mut lamp, format!(r#"{{"state":"done","result":{{"version":{}}}}}"#, args["version"]));
        lamp.disconnect();
        got
    })
}

/// One command from the file to the device that runs it.
#[test]
fn a_device_is_updated() {
    let (broker, _) = broker(&[]);
    let dir = Dir::new();
    let content = image(110_000);
    let (file, key) = (dir.put("app.bin", &content).display().to_string(), dir.name("ota.pem"));
    let made = parlor(&["blob", "key", &key]).ends(0).out;
    let hex = made.lines().find_map(|line| line.strip_prefix("public key  ")).expect("its public half");
    let public = (0..64).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex")).collect();
    let mut alice = Connect::v5("alice-1").username("alice").password(PASSWORD).to(&broker);
    assert_eq!(alice.say(1, "im/v1/me/contact/lamp", r#"{"op":"request"}"#), 0);
    let mut lamp = Connect::v5("lamp-1").username("lamp").password(PASSWORD).to(&broker);
    assert_eq!(lamp.say(1, "im/v1/me/contact/alice", r#"{"op":"accept"}"#), 0);
    assert_eq!(lamp.say(1, "im/v1/me/describe", r#"{"name":"Lamp"}"#), 0);
    lamp.disconnect();
    let board = device(&broker, public);
    let url = format!("mqtt://{}", broker.addr());
    let (data, home) = (broker.data().display().to_string(), dir.name("home"));
    let environment = [("PARLOR_PASSWORD", PASSWORD), ("HOME", &*home), ("XDG_STATE_HOME", &*home)];
    let update = |args: &[&str]| {
        let base = ["update", "lamp", &file, "--version", "2.0.0", "--user", "alice", "--url", &url, "--data", &data];
        parlor_in(&[&base, args].concat(), "", &environment)
    };
    let said = update(&["--key", &key, "--id", "u1"]).ends(0).complains("110000 bytes put in");
    let lines: Vec<&str> = said.out.lines().collect();
    let percents: Vec<u64> =
        lines.iter().filter_map(|line| line.strip_prefix("running ")?.strip_suffix(" %")?.parse().ok()).collect();
    assert!(percents.len() >= 2 && percents.is_sorted() && percents.last() > Some(&0), "{said:?}");
    assert_eq!(lines.last(), Some(&r#"done {"version":"2.0.0"}"#), "{said:?}");
    assert!(board.join().expect("the device is content") == content);
    // The next one sleeps: it waits for it, and need not be waited for.
    let night = update(&["--id", "u2", "--no-wait"]).ends(0).complains("it was there");
    assert_eq!(night.out, "u2\n");
    update(&["--deadline", "1"]).ends(7);
    parlor_in(&["update", "La mp", &file, "--version", "1", "--user", "alice"], "", &environment).ends(2);
    parlor_in(&["update", "lamp", &file, "--user", "alice"], "", &environment).ends(2);
}

/// Reads Base64 with padding.
fn base64(text: &str) -> Vec<u8> {
    use base64ct::{Base64, Encoding};
    Base64::decode_vec(text).expect("Base64")
}
