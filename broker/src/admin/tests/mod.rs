//! The operator's API over a loopback socket, with a driver that is made up.

mod blob;
mod document;
mod im;
mod schema;

use super::*;
use crate::config::{Config, Sources};
use crate::log;
use schema::conforms;
use serde_json::Value;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// A broker without clients: an operator's side on a free port, and a driver that answers from a few fixed rows.
pub(crate) struct House {
    address: SocketAddr,
    token: String,
    pub(crate) data: PathBuf,
    readiness: Arc<Readiness>,
    seen: Arc<Mutex<Vec<String>>>,
    commands: Option<mpsc::Sender<Command>>,
    threads: Vec<JoinHandle<()>>,
}

/// What a made-up driver does with a command; `None`: it has answered it.
type Special = Box<dyn FnMut(Command) -> Option<Command> + Send>;

impl House {
    pub(crate) fn new(name: &str) -> Self {
        Self::with(name, |_| (), Box::new(Some))
    }

    fn with(name: &str, configure: impl FnOnce(&mut Config), mut special: Special) -> Self {
        let data = std::env::temp_dir().join(format!("parlor-admin-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&data);
        let mut config = Config::default();
        config.data.clone_from(&data);
        config.http.listen.set_port(0);
        // Argon2 at its real cost takes a second without optimisation.
        config.auth.passwords.memory_kib = 8;
        config.auth.passwords.passes = 1;
        configure(&mut config);
        let readiness = Arc::new(Readiness::default());
        let (commands, mut waiting) = mpsc::channel(COMMANDS_MAX);
        let sources = Sources { file: Some(data.join("parlor.toml")), ..Sources::default() };
        let setup = AdminSetup { config, sources, commands: commands.clone(), readiness: readiness.clone() };
        let admin = Admin::open(setup).unwrap();
        let address = admin.address().unwrap();
        let token = std::fs::read_to_string(data.join(TOKEN_FILE)).unwrap().trim().to_owned();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let heard = seen.clone();
        let driver = std::thread::spawn(move || {
            let mut accounts = Vec::new();
            while let Some(command) = waiting.blocking_recv() {
                if matches!(command, Command::Shutdown(_)) {
                    return;
                }
                if let Some(command) = special(command) {
                    answer(command, &mut accounts, &heard);
                }
            }
        });
        let server = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(admin.serve()).unwrap();
        });
        Self { address, token, data, readiness, seen, commands: Some(commands), threads: vec![driver, server] }
    }

    /// Sends a request with the token and gives status and body.
    fn call(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
            self.address,
            self.token,
            body.len()
        );
        self.raw(&[head.as_bytes(), body.as_bytes()].concat())
    }

    fn json(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        let (status, text) = self.call(method, path, body);
        (status, serde_json::from_str(&text).unwrap_or(Value::Null))
    }

    /// Sends bytes and gives the status and the body as it came.
    fn raw(&self, request: &[u8]) -> (u16, String) {
        let answer = self.bytes(request);
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        (head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0), body.to_owned())
    }

    fn bytes(&self, request: &[u8]) -> String {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.write_all(request).unwrap();
        let mut answer = Vec::new();
        // A connection that is reset ends the answer as one that is closed does.
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    }

    pub(crate) fn seen(&self) -> Vec<String> {
        std::mem::take(&mut self.seen.lock().unwrap())
    }
}

impl Drop for House {
    fn drop(&mut self) {
        if let Some(commands) = self.commands.take() {
            let _ = commands.blocking_send(Command::Shutdown(Shutdown::Now));
        }
        for thread in self.threads.drain(..) {
            let ended = thread.join();
            if !std::thread::panicking() {
                ended.unwrap();
            }
        }
        let _ = std::fs::remove_dir_all(&self.data);
    }
}

fn session(client_id: &str) -> SessionSummary {
    SessionSummary {
        client_id: client_id.to_owned(),
        account: "alice".to_owned(),
        connection: None,
        disconnected_at_ms: Some(7),
        expiry_secs: 60,
        subscriptions: 1,
        queue_messages: 2,
        queue_bytes: 3,
    }
}

fn answer(command: Command, accounts: &mut Vec<(String, Vec<u8>)>, seen: &Mutex<Vec<String>>) {
    let note = |text: String| seen.lock().unwrap().push(text);
    match command {
        Command::Ping { reply } => drop(reply.send(())),
        Command::Status { reply } => drop(reply.send(Status {
            version: "0",
            started_at_ms: 1,
            uptime_secs: 2,
            state: State::Running,
            listeners: vec![],
            connections: 0,
            sessions: 3,
            subscriptions: 0,
            retained_messages: 0,
            retained_bytes: 0,
            queue_messages: 0,
            queue_bytes: 0,
            accounts: accounts.len() as u64,
            store: StoreStatus::Failed { text: "full".into() },
        })),
        Command::Metrics { reply } => drop(reply.send(vec![Metric::gauge("parlor_connections", "Clients.").with(4)])),
        Command::Sessions { query, reply } => {
            note(format!("{query:?}"));
            let rows = ["a", "b", "c"];
            let after = query.after.as_deref();
            drop(reply.send(Page::pick(rows.iter().map(|r| (*r, *r)), after, query.limit, str::to_owned, session)));
        }
        Command::Session { client_id, reply } => {
            let row = SubscriptionRow::new(&client_id, "home/#", 1, 9);
            let detail = SessionDetail {
                summary: session(&client_id),
                in_flight: 1,
                inbound_qos2: 0,
                has_will: false,
                subscription_list: vec![row],
            };
            drop(reply.send((client_id == "a/b").then_some(detail)));
        }
        Command::Kick { client_id, what, reply } => {
            note(format!("kick {client_id} {what:?}"));
            drop(reply.send(Ok(client_id == "a")));
        }
        Command::Subscriptions { query, reply } => {
            note(format!("{query:?}"));
            drop(reply.send(Page { items: vec![], next: None }));
        }
        Command::Retained { query, reply } => {
            note(format!("{query:?}"));
            let row = RetainedRow {
                topic: "home/x".into(),
                qos: 1,
                publisher: "lamp".into(),
                expires_at_ms: None,
                payload: Payload(vec![0xFF]),
            };
            drop(reply.send(Page { items: vec![row], next: None }));
        }
        Command::RetainedClear { topic, reply } => {
            note(format!("clear {topic}"));
            drop(reply.send(Err(CommandError::Store("disk full".into()))));
        }
        Command::Accounts { reply } => drop(reply.send(accounts.clone())),
        Command::AccountPut { name, record, described, connections, reply } => {
            if let Some(Described { kind, display_name }) = described {
                note(format!("described {name} {} {display_name:?}", kind.word()));
            }
            if connections == Connections::End {
                note(format!("connections of {name} end"));
            }
            accounts.retain(|(other, _)| *other != name);
            accounts.push((name, record));
            accounts.sort();
            drop(reply.send(Ok(())));
        }
        Command::AccountRemove { name, reply } => {
            let before = accounts.len();
            accounts.retain(|(other, _)| *other != name);
            drop(reply.send(Ok(accounts.len() < before)));
        }
        Command::Reload { config, reply } => {
            note(format!("reload {}", config.limits.receive_max));
            drop(reply.send(Ok(())));
        }
        Command::Act { account, rights, path, payload, reply } => {
            let said = im::act(&account, &path, payload.reveal());
            let own = if rights == Rights::Own { "own " } else { "" };
            note(format!("{own}{account} {path} {}", String::from_utf8_lossy(payload.reveal())));
            drop(reply.send(Ok(said)));
        }
        Command::Look { what, reply } => {
            if let parlor_core::Look::Command { id, .. } = &what {
                note(format!("look {id}"));
            }
            drop(reply.send(Ok(im::look(&what))));
        }
        Command::Blob { order, reply } => {
            let said = blob::order(&order);
            note(format!("{order:?}"));
            drop(reply.send(Ok(said)));
        }
        Command::Pair { peer, code, name, reply } => drop(reply.send(im::pair(peer, code.reveal(), &name))),
        Command::TokenIssue { wish, reply } => drop(reply.send(im::issue(&wish))),
        Command::TokenCheck { token, reply } => drop(reply.send(im::check(token.reveal()))),
        Command::Backup { chunks } => {
            let mut writer = ChunkWriter::new(chunks);
            let written = writer.write_all(&vec![b'x'; 200_000]);
            writer.finish(written.map_err(|error| CommandError::Store(error.to_string())));
        }
        Command::Restore { file, reply } => {
            let bytes = std::fs::read(&file).unwrap();
            std::fs::remove_file(&file).unwrap();
            drop(reply.send(Ok(Restored { bytes: bytes.len() as u64, text: "done".into() })));
        }
        Command::Shutdown(_) => {}
    }
}

#[test]
fn monitors_need_no_token() {
    let house = House::new("monitors");
    let get = |path: &str| {
        house.raw(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").as_bytes())
    };
    assert_eq!(get("/healthz"), (200, "ok\n".into()));
    assert_eq!(get("/readyz"), (503, "the listeners are not open yet\n".into()));
    house.readiness.set_listening();
    assert_eq!(get("/readyz"), (200, "ready\n".into()));
    house.readiness.set_store_refuses(true);
    assert_eq!(get("/readyz").0, 503);
    house.readiness.set_store_refuses(false);
    house.readiness.set_draining();
    assert_eq!(get("/readyz"), (503, "the broker is shutting down\n".into()));
    let (status, metrics) = get("/metrics");
    assert_eq!(status, 200);
    for line in ["parlor_connections 4\n", "parlor_build_info{version=\"", "\nprocess_cpu_seconds_total "] {
        assert!(metrics.contains(line), "{line} in\n{metrics}");
    }
    assert_eq!(get("/api/v1/openapi.json"), (200, OPENAPI.to_owned()));
    let (status, body) = get("/api/v1/status");
    assert_eq!(status, 401);
    conforms(&serde_json::from_str(&body).unwrap(), "Problem");
}

#[test]
fn the_token_is_asked_for_and_kept_private() {
    use std::os::unix::fs::PermissionsExt;
    let house = House::new("token");
    let mode = std::fs::metadata(house.data.join(TOKEN_FILE)).unwrap().permissions().mode();
    assert_eq!((mode & 0o777, house.token.len()), (0o600, 64));
    assert_eq!(std::fs::read_to_string(house.data.join(ADDRESS_FILE)).unwrap().trim(), house.address.to_string());
    for token in ["", "x", &house.token[1..], &house.token.to_uppercase().replace(char::is_numeric, "x")] {
        let request = format!(
            "GET /api/v1/status HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n"
        );
        let answer = house.bytes(request.as_bytes());
        assert!(answer.starts_with("HTTP/1.1 401 ") && answer.contains("www-authenticate: Bearer"), "{answer}");
    }
    assert_eq!(house.call("GET", "/api/v1/status", "").0, 200);
}

#[test]
fn a_token_outlives_a_restart() {
    let data = std::env::temp_dir().join(format!("parlor-admin-{}-again", std::process::id()));
    let open = || {
        let mut config = Config::default();
        config.data.clone_from(&data);
        config.http.listen.set_port(0);
        let (commands, _) = mpsc::channel(1);
        let admin =
            Admin::open(AdminSetup { config, sources: Sources::default(), commands, readiness: Arc::default() })
                .unwrap();
        assert!(data.join(ADDRESS_FILE).exists());
        drop(admin);
        assert!(!data.join(ADDRESS_FILE).exists());
        std::fs::read_to_string(data.join(TOKEN_FILE)).unwrap()
    };
    assert_eq!(open(), open());
    std::fs::remove_dir_all(&data).unwrap();
}

#[test]
fn a_taken_port_matters_only_to_who_asked_for_it() {
    let data = std::env::temp_dir().join(format!("parlor-admin-{}-taken", std::process::id()));
    let held = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let open = |any_port| {
        let mut config = Config::default();
        config.data.clone_from(&data);
        config.http.listen = held.local_addr().unwrap();
        config.http.any_port = any_port;
        let (commands, _) = mpsc::channel(1);
        Admin::open(AdminSetup { config, sources: Sources::default(), commands, readiness: Arc::default() })
    };
    let admin = open(true).unwrap();
    let written = std::fs::read_to_string(data.join(ADDRESS_FILE)).unwrap();
    assert_eq!(written.trim(), admin.address().unwrap().to_string());
    assert_ne!(admin.address(), held.local_addr().ok());
    drop(admin);
    assert!(matches!(open(false), Err(AdminError::Listen { .. })));
    std::fs::remove_dir_all(&data).unwrap();
}

#[test]
fn strangers_hosts_are_turned_away() {
    let house = House::with("hosts", |config| config.http.hosts = vec!["broker.lan".into()], Box::new(Some));
    let status =
        |host: &str| house.raw(format!("GET /metrics HTTP/1.1\r\n{host}Connection: close\r\n\r\n").as_bytes()).0;
    assert_eq!(status("Host: 127.0.0.1:9883\r\n"), 200);
    assert_eq!(status("Host: broker.lan\r\n"), 200);
    assert_eq!(status("Host: evil.example\r\n"), 421);
    assert_eq!(status(""), 421);
}

#[test]
fn status_and_sessions() {
    let house = House::new("sessions");
    let (status, body) = house.json("GET", "/api/v1/status", "");
    assert_eq!((status, &body["sessions"], &body["store"]["state"]), (200, &3.into(), &"failed".into()));
    conforms(&body, "Status");
    conforms(&body["store"], "Store");
    let (_, first) = house.json("GET", "/api/v1/sessions?limit=2&account=alice", "");
    assert_eq!(first["items"].as_array().unwrap().len(), 2);
    conforms(&first["items"][0], "Session");
    assert_eq!(first["next"], "b");
    let (_, last) = house.json("GET", "/api/v1/sessions?after=b", "");
    assert_eq!((&last["items"][0]["client_id"], last.get("next")), (&"c".into(), None));
    assert_eq!(
        house.seen(),
        [
            r#"SessionsQuery { after: None, limit: 2, account: Some("alice") }"#,
            r#"SessionsQuery { after: Some("b"), limit: 100, account: None }"#
        ]
    );
    let (status, detail) = house.json("GET", "/api/v1/sessions/a%2Fb", "");
    assert_eq!((status, &detail["subscription_list"][0]["filter"]), (200, &"home/#".into()));
    conforms(&detail, "SessionDetail");
    conforms(&detail["subscription_list"][0], "Subscription");
    let (status, problem) = house.json("GET", "/api/v1/sessions/none", "");
    assert_eq!((status, &problem["detail"]), (404, &"there is no session \"none\"".into()));
    conforms(&problem, "Problem");
}

#[test]
fn kicking() {
    let house = House::new("kick");
    assert_eq!(house.call("DELETE", "/api/v1/sessions/a", ""), (204, String::new()));
    assert_eq!(house.call("DELETE", "/api/v1/sessions/a?forget=true", "").0, 204);
    assert_eq!(house.call("DELETE", "/api/v1/sessions/b", "").0, 404);
    assert_eq!(house.call("DELETE", "/api/v1/sessions/a?forget=maybe", "").0, 400);
    assert_eq!(house.seen(), ["kick a Disconnect", "kick a Forget", "kick b Disconnect"]);
}

#[test]
fn retained_and_subscriptions() {
    let house = House::new("retained");
    let (status, body) = house.json("GET", "/api/v1/retained?filter=home/+/%23&prefix=home", "");
    assert_eq!((status, &body["items"][0]["payload_base64"]), (200, &"/w==".into()));
    conforms(&body["items"][0], "Retained");
    assert_eq!(house.call("GET", "/api/v1/subscriptions?client_id=a&filter=x/%23", "").0, 200);
    let (status, problem) = house.json("DELETE", "/api/v1/retained/home%2Fx", "");
    assert_eq!((status, &problem["detail"]), (503, &"the store refused: disk full".into()));
    assert_eq!(
        house.seen(),
        [
            r#"RetainedQuery { after: None, limit: 100, filter: Some("home/+/#"), prefix: Some("home") }"#,
            r#"SubscriptionsQuery { after: None, limit: 100, client_id: Some("a"), filter: Some("x/#") }"#,
            "clear home/x"
        ]
    );
}

#[test]
fn accounts_come_and_go() {
    let house = House::new("accounts");
    let lamp = r#"{"name":"lamp","password":"correct horse","groups":["devices"]}"#;
    let (status, made) = house.json("POST", "/api/v1/accounts", lamp);
    assert_eq!((status, &made["name"]), (201, &"lamp".into()));
    conforms(&made, "Account");
    assert_eq!(house.call("POST", "/api/v1/accounts", lamp).0, 409);
    let (status, body) = house.json("PUT", "/api/v1/accounts/lamp", r#"{"groups":["a","b"],"disabled":true}"#);
    assert_eq!((status, &body["groups"][1], &body["disabled"]), (200, &"b".into(), &true.into()));
    assert_eq!(house.call("PUT", "/api/v1/accounts/lamp", r#"{"password":"another horse"}"#).0, 200);
    assert_eq!(house.call("PUT", "/api/v1/accounts/none", "{}").0, 404);
    let (_, list) = house.json("GET", "/api/v1/accounts", "");
    assert_eq!((&list["items"][0]["name"], &list["items"][0]["groups"][0]), (&"lamp".into(), &"a".into()));
    assert!(!list.to_string().contains("horse") && !list.to_string().contains("argon2"));
    assert_eq!(house.call("DELETE", "/api/v1/accounts/lamp", "").0, 204);
    assert_eq!(house.call("DELETE", "/api/v1/accounts/lamp", "").0, 404);
    for (body, expect) in [
        (r#"{"name":"Lamp","password":"correct horse"}"#, 422),
        (r#"{"name":"anonymous","password":"correct horse"}"#, 422),
        (r#"{"name":"lamp","password":"short"}"#, 422),
        (r#"{"name":"lamp","password":"correct horse","groups":["a b"]}"#, 422),
        (r#"{"name":"lamp"}"#, 400),
        (r#"{"name":"lamp","password":"correct horse","admin":true}"#, 400),
        ("not json", 400),
    ] {
        let (status, problem) = house.json("POST", "/api/v1/accounts", body);
        assert_eq!(status, expect, "{body}: {problem}");
        assert!(!problem.to_string().contains("horse"), "{problem}");
    }
}

#[test]
fn requests_are_bounded() {
    let house = House::new("bounds");
    let (status, problem) = house.json("POST", "/api/v1/accounts", &"x".repeat(70_000));
    assert_eq!((status, &problem["title"]), (413, &"Too large".into()));
    let head = format!("GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n", "x".repeat(40_000));
    assert_eq!(house.raw(head.as_bytes()).0, 431);
    let many = "X: y\r\n".repeat(100);
    assert_eq!(house.raw(format!("GET /healthz HTTP/1.1\r\nHost: localhost\r\n{many}\r\n").as_bytes()).0, 431);
    assert_eq!(house.raw(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n").0, 400);
    for (path, expect) in [
        ("/api/v1/sessions?limit=0", 400),
        ("/api/v1/sessions?limit=1001", 400),
        ("/api/v1/sessions?limit=x", 400),
        ("/api/v1/sessions?page=1", 400),
        ("/api/v1/sessions?limit=1&limit=1", 400),
        ("/api/v1/sessions/%zz", 400),
        ("/api/v1/nothing", 404),
    ] {
        let (status, problem) = house.json("GET", path, "");
        assert_eq!(status, expect, "{path}");
        conforms(&problem, "Problem");
    }
    let answer = house.bytes(b"PATCH /api/v1/accounts/x HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 405 ") && answer.contains("allow: GET, PUT, DELETE"), "{answer}");
}

#[test]
fn connections_are_bounded() {
    let house = House::with("connections", |config| config.http.connections_max = 1, Box::new(Some));
    let mut first = TcpStream::connect(house.address).unwrap();
    // The answer shows that this one has its place.
    first.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    first.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    assert!(first.read(&mut [0; 1_024]).unwrap() > 0);
    assert_eq!(house.raw(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").0, 0);
    drop(first);
    let get = || house.raw(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").0;
    // The place is free again as soon as the server has seen the end of the first.
    assert!(comes_true(|| get() == 200));
}

#[test]
fn backups_are_whole_or_visibly_not() {
    let house = House::new("backup");
    let (status, body) = house.call("GET", "/api/v1/backup", "");
    assert_eq!(status, 200);
    assert!(body.ends_with("0\r\n\r\n") && body.matches('x').count() == 200_000, "{} bytes", body.len());
    let cut = |name: &str, last: fn(mpsc::Sender<BackupChunk>)| {
        let special = move |command| match command {
            Command::Backup { chunks } => {
                chunks.blocking_send(BackupChunk::Data(b"part".to_vec())).unwrap();
                last(chunks);
                None
            }
            other => Some(other),
        };
        let house = House::with(name, |_| (), Box::new(special));
        house.call("GET", "/api/v1/backup", "")
    };
    for (name, last) in [
        ("cut", drop as fn(mpsc::Sender<BackupChunk>)),
        ("failed", |chunks| chunks.blocking_send(BackupChunk::Failed(CommandError::Draining)).unwrap()),
    ] {
        // The piece before the break may or may not have left.
        let (_, body) = cut(name, last);
        assert!(!body.ends_with("0\r\n\r\n"), "{name}: {body}");
    }
    let refused = House::with(
        "refused",
        |_| (),
        Box::new(|command| match command {
            Command::Backup { chunks } => {
                chunks.blocking_send(BackupChunk::Failed(CommandError::Busy("another backup"))).unwrap();
                None
            }
            other => Some(other),
        }),
    );
    let (status, problem) = refused.json("GET", "/api/v1/backup", "");
    assert_eq!((status, &problem["title"]), (409, &"Under way".into()));
}

#[test]
fn a_restore_arrives_whole_or_not_at_all() {
    let house = House::new("restore");
    let (status, body) = house.json("POST", "/api/v1/restore", &"y".repeat(300_000));
    assert_eq!((status, &body["bytes"]), (200, &300_000.into()));
    conforms(&body, "Restored");
    let head = format!(
        "POST /api/v1/restore HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\nContent-Length: 10\r\n\r\nhalf",
        house.token
    );
    let mut stream = TcpStream::connect(house.address).unwrap();
    stream.write_all(head.as_bytes()).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest);
    assert!(!String::from_utf8_lossy(&rest).contains("200 OK"));
    assert!(comes_true(|| !house.data.join("restore.upload").exists()));
}

/// Looks until it is so, for twenty seconds at most.
fn comes_true(mut is_so: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        if is_so() {
            return true;
        }
        if Instant::now() > deadline {
            return false;
        }
        std::thread::yield_now();
    }
}

#[test]
fn a_reload_reads_the_file_again() {
    let house = House::new("reload");
    let file = house.data.join("parlor.toml");
    let data = house.data.display();
    std::fs::write(&file, format!("data = \"{data}\"\nhttp.listen = \"127.0.0.1:0\"\nlimits.receive_max = 7\n"))
        .unwrap();
    let (status, body) = house.json("POST", "/api/v1/reload", "");
    assert_eq!((status, body["needs_restart"].as_array().map(Vec::len)), (200, Some(0)), "{body}");
    conforms(&body, "Reloaded");
    assert_eq!(house.seen(), ["reload 7"]);
    std::fs::write(&file, format!("data = \"{data}\"\nhttp.enabled = false\n")).unwrap();
    let (_, body) = house.json("POST", "/api/v1/reload", "");
    assert_eq!(body["needs_restart"][0], "http");
    house.seen();
    std::fs::write(&file, "limits.receive_max = 0\n").unwrap();
    let (status, problem) = house.json("POST", "/api/v1/reload", "");
    assert_eq!(status, 422);
    assert!(problem["detail"].as_str().unwrap().contains("parlor.toml:1:22: `limits.receive_max` is 0"), "{problem}");
    assert!(house.seen().is_empty());
    log::set_level(crate::config::LogLevel::Info);
}

#[test]
fn a_driver_that_hangs_is_noticed_within_a_second() {
    let mut kept = Vec::new();
    let special = move |command| {
        kept.push(command);
        None
    };
    let house = House::with("hang", |_| (), Box::new(special));
    let (status, text) = house.call("GET", "/healthz", "");
    assert_eq!((status, text.as_str()), (503, "the broker did not answer within 1 s\n"));
}
