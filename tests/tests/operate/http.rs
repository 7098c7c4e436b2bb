//! The operator's HTTP: health, metrics, the JSON API, and who may ask.

use super::tools::*;
use std::os::unix::fs::PermissionsExt;

/// Every metric in the table of docs/operations.md, with its kind.
fn documented() -> Vec<(String, String)> {
    let text = std::fs::read_to_string(repository().join("docs/operations.md")).expect("the document");
    let table = text.split("\n## Metrics\n").nth(1).and_then(|rest| rest.split("\n## ").next()).expect("its part");
    let mut found = Vec::new();
    for row in table.lines().filter(|row| row.starts_with("| `")) {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        for name in cells[1].split('`').filter(|part| part.starts_with("parlor_") || part.starts_with("process_")) {
            let name = name.split('{').next().unwrap_or_default();
            found.push((name.to_owned(), cells[2].to_owned()));
        }
    }
    found
}

/// Monitors need no token: they learn that it lives, that it is ready, and the figures.
#[test]
fn health_and_readiness() {
    let broker = Broker::start(&[]);
    for (path, body) in [("/healthz", "ok\n"), ("/readyz", "ready\n")] {
        let answer = http(broker.http(), "GET", path, &[], b"");
        assert_eq!((answer.status, answer.text()), (200, body), "{path}");
    }
    let document = http(broker.http(), "GET", "/api/v1/openapi.json", &[], b"");
    assert_eq!(document.status, 200);
    let document = document.json();
    assert!(document["openapi"].as_str().is_some_and(|version| version.starts_with("3.")));
    let stored = std::fs::read(repository().join("docs/openapi.json")).expect("the document");
    assert_eq!(document, serde_json::from_slice::<Json>(&stored).expect("JSON"));
    for path in ["/metrics", "/healthz", "/api/v1/sessions", "/api/v1/sessions/{client_id}", "/api/v1/restore"] {
        assert!(document["paths"][path].is_object(), "{path} is described");
    }
}

/// The figures move with the traffic: connections, messages by QoS, drops by reason, limits by key, commits.
#[test]
fn metrics_follow_the_traffic() {
    let broker = Broker::start(&["--set", "limits.queue_messages_max=2"]);
    let operator = Operator::of(&broker);
    let mut away = Connect::v5("away").persistent().to(&broker);
    away.subscribe("m/away", 1);
    away.disconnect();
    let mut sub = Connect::v5("sub").to(&broker);
    sub.subscribe("m/#", 2);
    let mut publisher = Connect::v5("pub").will(Publish::new("will", "x")).to(&broker);
    let before = operator.metrics();
    for qos in 0..3 {
        for _ in 0..=qos {
            assert_eq!(publisher.say(qos, "m/x", "12345678"), 0);
            assert_eq!(sub.message().qos, qos);
        }
    }
    // Two fit into the queue, three do not; `sub` gets them all.
    for _ in 0..5 {
        assert_eq!(publisher.say(1, "m/away", "x"), 0);
        sub.message();
    }
    publisher.deliver(&Publish::new("r", "12345678").qos(1, 0).retain());
    publisher.send(&frame(0xF0, []));
    publisher.closed();
    sub.quiet();
    let after = operator.metrics();
    let moved = |sample: &str| after.count(sample) - before.count(sample);
    assert_eq!(moved("parlor_messages_received_total{qos=\"0\"}"), 1);
    assert_eq!(moved("parlor_messages_received_total{qos=\"1\"}"), 2 + 5 + 1);
    assert_eq!(moved("parlor_messages_received_total{qos=\"2\"}"), 3);
    assert_eq!(moved("parlor_messages_sent_total{qos=\"0\"}"), 1);
    assert_eq!(moved("parlor_messages_sent_total{qos=\"1\"}"), 2 + 5);
    assert_eq!(moved("parlor_messages_sent_total{qos=\"2\"}"), 3);
    assert_eq!(moved("parlor_messages_dropped_total{reason=\"queue_full\"}"), 3);
    assert_eq!(moved("parlor_limit_reached_total{limit=\"queue_messages_max\"}"), 3);
    assert_eq!(moved("parlor_wills_total"), 1);
    assert_eq!(moved("parlor_connections_total"), 0);
    assert!(moved("parlor_packets_received_total") >= 20);
    assert!(moved("parlor_bytes_received_total") > 100 && moved("parlor_bytes_sent_total") > 100);
    assert!(moved("parlor_commits_total") > 0 && moved("parlor_store_facts_total") > 0);
    assert_eq!(after.count("parlor_connections"), 1);
    assert_eq!(after.count("parlor_sessions"), 2);
    assert_eq!(after.count("parlor_sessions_online"), 1);
    assert_eq!(after.count("parlor_sessions_persistent"), 1);
    assert_eq!(after.count("parlor_subscriptions"), 2);
    assert_eq!(after.count("parlor_queue_messages"), 2);
    assert!(after.count("parlor_queue_bytes") >= 14);
    assert_eq!(after.count("parlor_retained_messages"), 1);
    assert!(after.count("parlor_retained_bytes") >= 9);
    assert!(after.value("parlor_packets_refused_total{reason=\"protocol_error\"}") >= 0.0);
    let refused = |m: &Metrics| {
        m.0.lines()
            .filter(|l| l.starts_with("parlor_packets_refused_total{"))
            .filter_map(|l| l.rsplit(' ').next()?.parse::<u64>().ok())
            .sum::<u64>()
    };
    assert_eq!(refused(&after) - refused(&before), 1, "the bad AUTH");

    // The histogram of commits: buckets rise to the count, which is the number of commits.
    let buckets: Vec<u64> = after
        .0
        .lines()
        .filter_map(|line| line.strip_prefix("parlor_commit_seconds_bucket{le=")?.rsplit(' ').next()?.parse().ok())
        .collect();
    assert!(buckets.len() > 5 && buckets.is_sorted(), "{buckets:?}");
    assert!(after.0.contains("parlor_commit_seconds_bucket{le=\"+Inf\"}"));
    assert_eq!(buckets.last().copied(), Some(after.count("parlor_commit_seconds_count")));
    assert!(after.value("parlor_commit_seconds_sum") > 0.0);

    // What is documented is there, and what is there is documented, once.
    let mut names: Vec<String> = after.names().into_iter().map(str::to_owned).collect();
    for (name, kind) in documented() {
        assert!(after.0.contains(&format!("# TYPE {name} {kind}\n")), "{name}, a {kind}, is missing:\n{}", after.0);
        names.retain(|found| *found != name);
    }
    assert!(names.is_empty(), "not documented, or twice: {names:?}");
}

/// Whatever the OpenAPI document describes is there.
#[test]
fn the_document_describes_what_is_there() {
    let broker = Broker::start(&[]);
    Connect::v5("c").persistent().to(&broker).disconnect();
    let operator = Operator::of(&broker);
    let document = operator.see("/openapi.json");
    let mut count = 0;
    for (path, methods) in document["paths"].as_object().expect("paths") {
        for (method, operation) in
            methods.as_object().expect("methods").iter().filter(|(method, _)| *method != "parameters")
        {
            // Asked of nothing that exists: what matters is that the route is known and the answer is one of its own.
            let real: Vec<&str> =
                path.split('/').map(|segment| if segment.starts_with('{') { "no-such" } else { segment }).collect();
            let real = real.join("/");
            let Some(real) = real.strip_prefix("/api/v1").map(str::to_owned) else { continue };
            let answer = operator.ask(&method.to_uppercase(), &real, "");
            let status = answer.status.to_string();
            assert!(operation["responses"][&status].is_object(), "{method} {path}: {status}, {}", answer.text());
            assert_ne!(answer.status, 405, "{method} {path}");
            count += 1;
        }
    }
    assert!(count >= 14, "{count}");
    // A restore of nothing was refused, and the broker is as it was.
    assert_eq!(operator.see("/sessions/c")["account"], "anonymous");
}

/// Nothing of the API answers without the token, and nothing at all to a page of another site.
#[test]
fn strangers_are_refused() {
    let broker = Broker::start(&[]);
    let at = broker.http();
    for (method, path) in [
        ("GET", "/api/v1/status"),
        ("GET", "/api/v1/sessions"),
        ("DELETE", "/api/v1/sessions/x"),
        ("GET", "/api/v1/retained"),
        ("GET", "/api/v1/accounts"),
        ("POST", "/api/v1/accounts"),
        ("GET", "/api/v1/accounts/x"),
        ("POST", "/api/v1/accounts/x/token"),
        ("DELETE", "/api/v1/accounts/x/tokens"),
        ("POST", "/api/v1/messages"),
        ("POST", "/api/v1/commands"),
        ("GET", "/api/v1/commands/x/y"),
        ("GET", "/api/v1/channels"),
        ("GET", "/api/v1/channels/ch-x"),
        ("POST", "/api/v1/channels/ch-x/create"),
        ("GET", "/api/v1/conversations"),
        ("GET", "/api/v1/history"),
        ("POST", "/api/v1/recount"),
        ("POST", "/api/v1/reload"),
        ("GET", "/api/v1/backup"),
        ("POST", "/api/v1/restore"),
    ] {
        for token in [None, Some("Bearer wrong"), Some("Basic eA==")] {
            let headers: Vec<(&str, &str)> = token.map(|t| ("Authorization", t)).into_iter().collect();
            let answer = http(at, method, path, &headers, b"");
            assert_eq!(answer.status, 401, "{method} {path} {token:?}");
            assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
            assert!(answer.json()["title"].is_string(), "{}", answer.text());
        }
    }
    for host in ["evil.example", "127.0.0.1.evil.example:80", ""] {
        for path in ["/healthz", "/metrics", "/api/v1/status"] {
            let answer = http(at, "GET", path, &[("Host", host)], b"");
            assert!((400..500).contains(&answer.status) && answer.status != 401, "{host:?} {path}: {}", answer.status);
        }
    }
    let token = std::fs::metadata(broker.data().join("admin.token")).expect("a token");
    assert_eq!(token.permissions().mode() & 0o777, 0o600, "the token is for its owner only");
    let operator = Operator::of(&broker);
    assert_eq!(operator.ask("GET", "/no-such", "").status, 404);
    assert_eq!(operator.ask("POST", "/status", "").status, 405);
    assert_eq!(operator.ask("GET", "/sessions?limt=1", "").status, 400);
    assert_eq!(operator.ask("POST", "/accounts", "{").status, 400);
}

/// Sessions come page by page and in order, whatever their names.
#[test]
fn sessions_are_paged() {
    let broker = Broker::start(&[]);
    let operator = Operator::of(&broker);
    let mut names: Vec<String> = (0..25).map(|n| format!("s{n:02}")).collect();
    names.extend(["a/b&c=d".to_owned(), "lämp 1".to_owned()]);
    let clients: Vec<Client> = names.iter().map(|name| Connect::v5(name).to(&broker)).collect();
    names.sort();
    let (mut got, mut after, mut pages) = (Vec::new(), String::new(), 0);
    loop {
        let page = operator.see(&format!("/sessions?limit=10{after}"));
        let items = page["items"].as_array().expect("items").clone();
        assert!(items.len() <= 10);
        got.extend(items.iter().map(|item| item["client_id"].as_str().expect("a name").to_owned()));
        pages += 1;
        let Some(next) = page["next"].as_str() else { break };
        after = format!("&after={}", escaped(next));
    }
    assert_eq!((got, pages), (names, 3));
    let one = operator.see(&format!("/sessions/{}", escaped("a/b&c=d")));
    assert_eq!(one["client_id"], "a/b&c=d");
    assert_eq!(operator.see("/sessions?account=nobody")["items"], Json::Array(vec![]));
    drop(clients);
}

fn escaped(text: &str) -> String {
    text.bytes()
        .map(|b| if b.is_ascii_alphanumeric() { char::from(b).to_string() } else { format!("%{b:02X}") })
        .collect()
}

/// What the API says of a session, its subscriptions and its queue is what the client did.
#[test]
fn a_session_is_shown_as_it_is() {
    let broker = Broker::start(&[]);
    let operator = Operator::of(&broker);
    let connect = Connect::v5("shown").persistent().keep_alive(33).will(Publish::new("w", "x"));
    let mut client = connect.to(&broker);
    client.subscribe("home/+/x", 1);
    assert_eq!(client.subscribe_all(&[("$share/g/y", 2)], &[prop::subscription_id(7_u32)]), [2]);
    let seen = operator.see("/sessions/shown");
    assert_eq!(seen["account"], "anonymous");
    assert_eq!(seen["connection"]["version"], 5);
    assert_eq!(seen["connection"]["keep_alive_secs"], 33);
    assert_eq!(seen["connection"]["peer"], client.stream().local_addr().expect("an address").to_string());
    assert_eq!((&seen["expiry_secs"], &seen["subscriptions"]), (&Json::from(3_600), &Json::from(2)));
    assert_eq!(seen["has_will"], true);
    let list = operator.see("/subscriptions?client_id=shown");
    let filters: Vec<&str> =
        list["items"].as_array().expect("items").iter().filter_map(|s| s["filter"].as_str()).collect();
    assert_eq!(filters, ["$share/g/y", "home/+/x"]);
    assert_eq!(list["items"][0]["qos"], 2);
    assert_eq!(list["items"][0]["id"], 7);
    assert_eq!(operator.see("/subscriptions?filter=home%2F%2B%2Fx")["items"].as_array().map(Vec::len), Some(1));
    client.disconnect();
    let mut publisher = Connect::v5("publisher").to(&broker);
    publisher.say(1, "home/a/x", "12345");
    let seen = operator.see("/sessions/shown");
    assert!(seen["connection"].is_null() && seen["disconnected_at_ms"].as_u64() > Some(1_600_000_000_000));
    assert_eq!(seen["queue_messages"], 1);
    assert_eq!(seen["has_will"], false);
    assert_eq!(operator.ask("GET", "/sessions/nobody", "").status, 404);
}

/// Retained messages are listed, filtered, paged and cleared; cleared ones do not come back.
#[test]
fn retained_messages_are_listed_and_cleared() {
    let mut broker = Broker::start(&[]);
    let operator = Operator::of(&broker);
    let mut publisher = Connect::v5("publisher").to(&broker);
    for topic in ["r/a", "r/b", "r/c", "q/d"] {
        assert!(publisher.deliver(&Publish::new(topic, topic).qos(1, 0).retain()) < 0x80);
    }
    let topics = |operator: &Operator, query: &str| -> Vec<String> {
        let page = operator.see(&format!("/retained{query}"));
        let items = page["items"].as_array().expect("items").iter();
        items.filter_map(|row| row["topic"].as_str().map(str::to_owned)).filter(|t| !t.starts_with('$')).collect()
    };
    assert_eq!(topics(&operator, "?prefix=r%2F"), ["r/a", "r/b", "r/c"]);
    assert_eq!(topics(&operator, "?filter=%2B%2Fd"), ["q/d"]);
    assert_eq!(topics(&operator, "?prefix=r%2F&limit=2"), ["r/a", "r/b"]);
    assert_eq!(topics(&operator, "?prefix=r%2F&limit=2&after=r%2Fb"), ["r/c"]);
    assert_eq!(operator.ask("DELETE", "/retained/r%2Fb", "").status, 204);
    assert_eq!(operator.ask("DELETE", "/retained/r%2Fb", "").status, 404);
    assert_eq!(topics(&operator, "?prefix=r%2F"), ["r/a", "r/c"]);
    drop(publisher);
    broker.kill();
    broker.start_again();
    assert_eq!(topics(&Operator::of(&broker), "?prefix=r%2F"), ["r/a", "r/c"], "answered means on disk");
}

/// A kick ends the connection with 0x98 and leaves the session; `forget` ends the session too.
#[test]
fn kicks() {
    let broker = Broker::start(&[]);
    let operator = Operator::of(&broker);
    let connect = Connect::v5("kicked").persistent();
    let mut client = connect.to(&broker);
    client.subscribe("k", 1);
    assert_eq!(operator.ask("DELETE", "/sessions/kicked", "").status, 204);
    client.thrown_out(&[0x98]);
    let mut client = connect.to(&broker);
    assert!(client.connack.present);
    on(&broker, &["session", "kick", "kicked"]).ends(0).complains("connection ended");
    client.thrown_out(&[0x98]);
    let mut client = connect.to(&broker);
    assert!(client.connack.present);
    on(&broker, &["session", "kick", "kicked", "--forget"]).ends(0);
    client.thrown_out(&[0x98]);
    assert!(!connect.to(&broker).connack.present);
    assert_eq!(operator.ask("DELETE", "/sessions/nobody", "").status, 404);
    on(&broker, &["session", "kick", "nobody"]).ends(3).complains("no session `nobody`");
}

/// The command line shows the same as the API.
#[test]
fn the_command_line_looks_inside() {
    let mut broker = Broker::start(&[]);
    let mut client = Connect::v5("lamp-7").persistent().to(&broker);
    client.subscribe("a/#", 1);
    Connect::v311("heater").persistent().to(&broker).disconnect();
    let status = on(&broker, &["status"]).ends(0).out;
    for line in [
        format!("version        {}", env!("CARGO_PKG_VERSION")),
        "connections    1".to_owned(),
        "sessions       2".to_owned(),
        "subscriptions  1".to_owned(),
        "store          ok".to_owned(),
        format!("on {}: 1 connections", broker.addr()),
    ] {
        assert!(status.contains(&line), "{line:?} in\n{status}");
    }
    let json: Json = serde_json::from_str(&on(&broker, &["status", "--json"]).ends(0).out).expect("JSON");
    assert_eq!((&json["connections"], &json["sessions"]), (&Json::from(1), &Json::from(2)));
    let list = on(&broker, &["session", "list"]).ends(0).out;
    let lines: Vec<Vec<&str>> = list.lines().skip(1).map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines, [["heater", "anonymous", "away", "0", "0"], ["lamp-7", "anonymous", "connected", "0", "1"]]);
    let rows = on(&broker, &["session", "list", "--json", "--account", "anonymous"]).ends(0).out;
    assert_eq!(rows.lines().filter(|row| serde_json::from_str::<Json>(row).is_ok()).count(), 2, "{rows}");
    let shown: Json = serde_json::from_str(&on(&broker, &["session", "show", "lamp-7"]).ends(0).out).expect("JSON");
    assert_eq!(shown["subscription_list"][0]["filter"], "a/#");
    on(&broker, &["session", "show", "nobody"]).ends(3).complains("session list");
    drop(client);
    assert!(broker.stop().success());
    on(&broker, &["status"]).ends(4).complains("no broker runs on");
    on(&broker, &["session", "list"]).ends(4);
}
