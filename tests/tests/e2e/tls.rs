//! TLS with stock clients: a certificate authority of the test's own, with and without client certificates.

use crate::peer::finish;
use parlor_tests::server::Broker;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Certificates in a directory that goes with this value.
struct Authority(PathBuf);

fn openssl(dir: &Path, args: &str) {
    finish(Command::new("openssl").current_dir(dir).args(args.split(' ')), "openssl (Debian package openssl)");
}

impl Authority {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("parlor-tls-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir).expect("the temporary directory can be written");
        openssl(
            &dir,
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=test-ca -keyout ca.key -out ca.pem",
        );
        Self(dir)
    }

    fn issue(&self, name: &str, extension: &str) {
        openssl(
            &self.0,
            &format!(
                "req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN={name} -keyout {name}.key -out {name}.csr"
            ),
        );
        std::fs::write(self.0.join("extension"), extension).expect("the directory can be written");
        openssl(
            &self.0,
            &format!(
                "x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile extension -out {name}.pem"
            ),
        );
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn have_clients() -> bool {
    for program in ["mosquitto_pub", "openssl"] {
        if Command::new(program).arg("--help").output().is_err() {
            let text =
                format!("install {program} (Debian packages mosquitto-clients and openssl); tests/run.sh does that");
            assert!(std::env::var_os("PARLOR_QUICK").is_some_and(|v| v == "1"), "{text}");
            return false;
        }
    }
    true
}

/// Where the broker listens for MQTT over TLS.
fn tls_port(broker: &Broker) -> String {
    broker.await_log("listening on mqtts://");
    let log = broker.log();
    let rest = log.split_once("listening on mqtts://127.0.0.1:").expect("it was awaited").1;
    rest.chars().take_while(char::is_ascii_digit).collect()
}

/// Makes an account on the running broker.
fn add_account(broker: &Broker, name: &str) {
    let data = broker.data().display().to_string();
    let mut child = Command::new(Broker::binary())
        .args(["account", "add", name, "--password-stdin", "--data", &data])
        .stdin(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut stdin = child.stdin.take().expect("stdin is piped");
    stdin.write_all(b"not needed here").expect("the program reads the password");
    drop(stdin);
    let status = child.wait().expect("the program ends");
    assert!(status.success(), "parlor account add ended with {status}");
}

fn mosquitto(program: &str, port: &str, authority: &Authority) -> Command {
    let mut command = Command::new(program);
    // By name, because that is what the certificate is for; the name stands for the loopback interface.
    command.args(["-h", "localhost", "-p", port, "--cafile", &authority.path("ca.pem")]);
    command
}

#[test]
fn mosquitto_trusts_the_broker_and_the_broker_knows_mosquitto_by_its_certificate() {
    if !have_clients() {
        return;
    }
    let ours = Authority::new("ours");
    let theirs = Authority::new("theirs");
    ours.issue("localhost", "subjectAltName=DNS:localhost,IP:127.0.0.1");
    ours.issue("lamp", "extendedKeyUsage=clientAuth");
    theirs.issue("lamp", "extendedKeyUsage=clientAuth");
    let set = |key: &str, file: &str| format!("tls.{key}={}", ours.path(file));
    let broker = Broker::start(&[
        "--listen",
        "mqtts://127.0.0.1:0",
        "--set",
        &set("certificate", "localhost.pem"),
        "--set",
        &set("key", "localhost.key"),
        "--set",
        &set("client_ca", "ca.pem"),
    ]);
    let port = tls_port(&broker);
    add_account(&broker, "lamp");

    // Without a client certificate, as anonymous.
    finish(
        mosquitto("mosquitto_pub", &port, &ours).args(["-q", "1", "-r", "-t", "tls/plain", "-m", "hello"]),
        "mosquitto_pub",
    );
    // With one: its name is the account.
    let with_certificate = |authority: &Authority| {
        let mut command = mosquitto("mosquitto_pub", &port, &ours);
        command.args(["--cert", &authority.path("lamp.pem"), "--key", &authority.path("lamp.key")]);
        command.args(["-q", "2", "-r", "-t", "tls/lamp", "-m", "it is me"]);
        command
    };
    finish(&mut with_certificate(&ours), "mosquitto_pub");
    let text = finish(
        mosquitto("mosquitto_sub", &port, &ours).args(["-q", "1", "-t", "tls/#", "-C", "2", "-W", "10", "-F", "%t %p"]),
        "mosquitto_sub",
    );
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["tls/lamp it is me", "tls/plain hello"]);

    // The right name from another authority, and a server certificate the client does not trust.
    let stranger = with_certificate(&theirs).output().expect("mosquitto_pub runs");
    assert!(!stranger.status.success(), "a certificate of another authority was let in");
    let fooled = mosquitto("mosquitto_pub", &port, &theirs).args(["-t", "t", "-m", "m"]).output().expect("it runs");
    assert!(!fooled.status.success(), "mosquitto_pub trusted a certificate of another authority");
}

#[test]
fn parlors_own_client_trusts_the_authority_it_is_told() {
    if !have_clients() {
        return;
    }
    let ours = Authority::new("own-client");
    let theirs = Authority::new("own-stranger");
    ours.issue("localhost", "subjectAltName=DNS:localhost,IP:127.0.0.1");
    let set = |key: &str, file: &str| format!("tls.{key}={}", ours.path(file));
    let (certificate, key) = (set("certificate", "localhost.pem"), set("key", "localhost.key"));
    let broker = Broker::start(&["--listen", "mqtts://127.0.0.1:0", "--set", &certificate, "--set", &key]);
    let url = format!("mqtts://localhost:{}", tls_port(&broker));
    add_account(&broker, "lamp");
    let watch = |authority: &Authority| {
        let output = Command::new(Broker::binary())
            .args(["watch", "--user", "lamp", "--for", "1", "--json", "--url", &url, "--ca", &authority.path("ca.pem")])
            .env("HOME", &ours.0)
            .env("PARLOR_PASSWORD", "not needed here")
            .stdin(Stdio::null())
            .output()
            .expect("the program starts");
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (code, out) = watch(&ours);
    assert!(code == Some(0) && out.contains("\"connected\""), "{code:?} {out}");
    assert_eq!(watch(&theirs), (Some(1), String::new()));
}
