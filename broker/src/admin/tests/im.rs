//! Messaging over HTTP, with a driver that is made up: what is asked of it, and what becomes of its answers.

use super::*;
use crate::auth::{IssueError, IssuedToken, Secret, TokenWish};
use parlor_core::{Look, Reply};
use serde_json::json;
use std::net::IpAddr;

/// What the made-up messaging answers.
pub(super) fn act(account: &str, path: &str, payload: &[u8]) -> Reply {
    let refused = |code, text: &str| Reply::Refused { code, text: text.to_owned() };
    let payload: Value = serde_json::from_slice(payload).unwrap();
    match path.split('/').collect::<Vec<_>>().as_slice() {
        ["to", "nobody", ..] => refused("not_found", "there is no account nobody"),
        ["to", "foe", "msg"] => refused("blocked", "foe has blocked you"),
        ["to", "full", "msg"] => refused("low_space", "the disk is nearly full"),
        ["to", "busy", "msg"] => refused("quota", "60 messages a minute"),
        ["to", _, "msg"] => Reply::Done(r#"{"seq":12}"#.to_owned()),
        ["to", "late", "cmd", _] => Reply::Done(r#"{"id":"c1","state":"queued"}"#.to_owned()),
        ["to", "slow", "cmd", _] => Reply::Done(r#"{"id":"made-up","state":"queued"}"#.to_owned()),
        ["to", _, "cmd", name] => {
            let id = payload.get("id").cloned().unwrap_or("made-up".into());
            Reply::Done(json!({ "id": id, "state": "done", "name": name, "result": payload["args"] }).to_string())
        }
        ["admin", "ch", "ch-none", ..] => refused("not_found", "there is no channel ch-none"),
        ["admin", "ch", _, "shout"] => refused("bad_topic", "shout is nothing one can do"),
        ["admin", "ch", "ch-new", "create"] if account != "service" => refused("forbidden", "only services"),
        ["admin", "ch", ..] => Reply::Done(r#"{"entry":1,"state":"live"}"#.to_owned()),
        ["me", "convs"] => {
            Reply::Done(r#"{"convs":[{"addr":"bob","kind":"person","seq":1,"unread":0}],"unread":0}"#.to_owned())
        }
        ["me", "history"] => Reply::Done(r#"{"with":"bob","more":false,"messages":[]}"#.to_owned()),
        ["me", "recount"] => Reply::Done(r#"{"agree":true}"#.to_owned()),
        _ => refused("bad_topic", "no such topic"),
    }
}

pub(super) fn look(what: &Look) -> Reply {
    match what {
        Look::Account { name } => {
            let kind = if name == "service" || name == "shop" { "service" } else { "person" };
            let (presence, terminals) =
                (json!({ "state": "online" }), json!([{ "terminal": "phone", "online": true }]));
            let view = json!({ "addr": name, "kind": kind, "presence": presence, "terminals": terminals });
            Reply::Done(view.to_string())
        }
        Look::Channels => Reply::Done(r#"{"channels":[]}"#.to_owned()),
        Look::Blobs => Reply::Done(r#"{"items":[]}"#.to_owned()),
        Look::Command { account, device, id } if id == "c1" => {
            Reply::Done(json!({ "id": id, "device": device, "state": "done", "text": account }).to_string())
        }
        Look::Command { id, .. } if id == "made-up" => {
            Reply::Done(r#"{"id":"made-up","state":"delivered"}"#.to_owned())
        }
        Look::Command { .. } => Reply::Refused { code: "not_found", text: "there is no such command".into() },
    }
}

pub(super) fn pair(peer: IpAddr, code: &str, name: &str) -> Result<Reply, PairError> {
    assert!(peer.is_loopback());
    match (code, name) {
        ("SLOW-DOWN", _) => Err(PairError::SlowedDown(1_500)),
        ("GOOD-CODE", "taken") => Ok(Reply::Refused { code: "exists", text: "the name is taken".into() }),
        ("GOOD-CODE", name) => {
            Ok(Reply::Done(json!({ "account": name, "password": "p", "owner": "alice" }).to_string()))
        }
        _ => Ok(Reply::Refused { code: "not_found", text: "there is no such code".into() }),
    }
}

pub(super) fn issue(wish: &TokenWish) -> Result<IssuedToken, IssueError> {
    match (wish.account.as_str(), wish.ttl_secs) {
        ("nobody", _) => Err(IssueError::NoAccount("nobody".into())),
        ("off", _) => Err(IssueError::Disabled),
        (_, 0) => Err(IssueError::Ttl),
        (account, ttl_secs) => Ok(IssuedToken {
            token: Secret::new(format!("token of {account} {:?}", wish.groups)),
            expires_at_ms: ttl_secs * 1_000,
        }),
    }
}

/// A token that is a name with `token-` before it lets that account in.
pub(super) fn check(token: &str) -> Option<String> {
    token.strip_prefix("token-").map(str::to_owned)
}

impl House {
    /// Asks with a connect token instead of the operator's.
    fn as_account(&self, account: &str, method: &str, path: &str, body: &str) -> (u16, Value) {
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer token-{account}\r\nConnection: close\r\n\
             Content-Length: {}\r\n\r\n",
            body.len()
        );
        let (status, text) = self.raw(&[head.as_bytes(), body.as_bytes()].concat());
        (status, serde_json::from_str(&text).unwrap_or(Value::Null))
    }

    /// The request is refused with this status and code.
    #[track_caller]
    pub(super) fn refuses(&self, method: &str, path: &str, body: &str, status: u16, code: &str) {
        let (got, problem) = self.json(method, path, body);
        assert_eq!((got, &problem["code"]), (status, &code.into()), "{method} {path} {body}: {problem}");
        conforms(&problem, "Problem");
    }
}

#[test]
fn a_message_goes_out_as_the_account_that_sends() {
    let house = House::new("messages");
    let (status, sent) = house.json("POST", "/api/v1/messages", r#"{"to":"alice","text":"hi","id":"a1","ttl_s":60}"#);
    assert_eq!((status, &sent), (200, &json!({ "to": "alice", "status": 200, "seq": 12, "id": "a1" })));
    conforms(&sent, "Sent");
    assert_eq!(house.seen(), [r#"service to/alice/msg {"id":"a1","text":"hi","ttl_s":60}"#]);
    house.json("POST", "/api/v1/messages", r#"{"from":"shop","to":"g-home","body":[1]}"#);
    assert_eq!(house.seen(), [r#"shop to/g-home/msg {"body":[1]}"#]);
    let path = "/api/v1/messages";
    house.refuses("POST", path, r#"{"to":"nobody","text":"hi"}"#, 404, "not_found");
    house.refuses("POST", path, r#"{"to":"foe","text":"hi"}"#, 403, "blocked");
    house.refuses("POST", path, r#"{"to":"full","text":"hi"}"#, 507, "low_space");
    house.refuses("POST", path, r#"{"to":"busy","text":"hi"}"#, 429, "quota");
    house.seen();
    for body in [
        r#"{"to":"alice"}"#,
        r#"{"to":"alice","id":"a1"}"#,
        r#"{"text":"hi"}"#,
        r#"{"to":7,"text":"hi"}"#,
        r#"{"to":[],"text":"hi"}"#,
        r#"{"to":"alice/msg","text":"hi"}"#,
        r#"{"to":"+","text":"hi"}"#,
        r#"{"to":"","text":"hi"}"#,
        r#"{"from":7,"to":"alice","text":"hi"}"#,
    ] {
        house.refuses("POST", path, body, 400, "bad_request");
    }
    let many = json!({ "to": vec!["a"; 31], "text": "hi" }).to_string();
    house.refuses("POST", path, &many, 400, "bad_request");
    assert_eq!(house.call("POST", path, "[]").0, 400);
    let long = json!({ "to": "alice", "text": "x".repeat(300_000) }).to_string();
    assert_eq!(house.call("POST", path, &long).0, 200, "how long a message may be, messaging decides");
    assert_eq!(house.call("POST", path, &format!("{long}{}", " ".repeat(200_000))).0, 413);
}

#[test]
fn a_message_to_several_is_one_to_each() {
    let house = House::new("many");
    let send = |id: &str| {
        let body = json!({ "to": ["alice", "nobody", "bob"], "text": "hi", "id": id }).to_string();
        house.json("POST", "/api/v1/messages", &body)
    };
    let (status, sent) = send("a1");
    assert_eq!(status, 200);
    let items = sent["items"].as_array().unwrap();
    let got: Vec<_> =
        items.iter().map(|item| (item["to"].as_str().unwrap(), item["status"].as_u64().unwrap())).collect();
    assert_eq!(got, [("alice", 200), ("nobody", 404), ("bob", 200)]);
    assert_eq!(items[1]["code"], "not_found");
    for item in items {
        conforms(item, "Sent");
    }
    let ids: Vec<&str> = [0, 2].iter().map(|at| items[*at]["id"].as_str().unwrap()).collect();
    assert!(ids[0] != ids[1] && ids.iter().all(|id| (1..=36).contains(&id.len())), "{ids:?}");
    assert_eq!(send("a1").1, sent, "the same ids each time");
    assert_ne!(send("a2").1["items"][0]["id"], items[0]["id"]);
    assert_eq!(send("no id").1["items"][0]["id"], "no id", "what is no id is not made one");
}

#[test]
fn a_command_is_answered_with_its_outcome_where_that_is_waited_for() {
    let house = House::new("commands");
    let path = "/api/v1/commands";
    let (status, state) =
        house.json("POST", path, r#"{"device":"lamp","name":"set","args":{"on":true},"id":"c1","once":true}"#);
    assert_eq!((status, &state["state"], &state["result"]), (200, &"done".into(), &json!({ "on": true })));
    conforms(&state, "CommandState");
    assert_eq!(house.seen(), [r#"service to/lamp/cmd/set {"args":{"on":true},"id":"c1","once":true}"#]);
    let (status, state) = house.json("POST", path, r#"{"device":"slow","name":"set","wait_ms":70,"deadline_ms":5}"#);
    assert_eq!((status, &state["state"]), (202, &"delivered".into()));
    conforms(&state, "CommandState");
    let seen = house.seen();
    assert_eq!(seen[0], r#"service to/slow/cmd/set {"args":{},"deadline_ms":5}"#);
    assert!((2..=4).contains(&seen.len()) && seen[1..].iter().all(|look| look == "look made-up"), "{seen:?}");
    let (status, state) = house.json("POST", path, r#"{"device":"late","name":"set","wait_ms":20000}"#);
    assert_eq!((status, &state["state"]), (200, &"done".into()), "it is answered when the outcome is there");
    house.seen();
    house.refuses("POST", path, r#"{"device":"nobody","name":"set"}"#, 404, "not_found");
    house.refuses("POST", path, r#"{"device":"lamp/x","name":"set"}"#, 400, "bad_request");
    house.refuses("POST", path, r#"{"device":"lamp","name":"a/b"}"#, 400, "bad_request");
    house.refuses("POST", path, r#"{"device":"lamp","name":"set","wait_ms":60001}"#, 400, "bad_request");
    assert_eq!(house.call("POST", path, r#"{"device":"lamp","name":"set","deadline":5}"#).0, 400);
    house.seen();
    let (status, state) = house.json("GET", "/api/v1/commands/lamp/c1?from=shop", "");
    assert_eq!((status, &state["state"], &state["text"]), (200, &"done".into(), &"shop".into()));
    conforms(&state, "CommandState");
    assert_eq!(house.json("GET", "/api/v1/commands/lamp/c1", "").1["text"], "service");
    house.refuses("GET", "/api/v1/commands/lamp/c2", "", 404, "not_found");
}

#[test]
fn channels_are_made_and_written_to() {
    let house = House::new("channels");
    let path = "/api/v1/channels/ch-new";
    let (status, _) = house.json("POST", &format!("{path}/create"), r#"{"name":"News","audience":"all"}"#);
    assert_eq!(
        (status, house.seen()),
        (200, vec![r#"service admin/ch/ch-new/create {"audience":"all","name":"News"}"#.to_owned()])
    );
    for op in ["draft", "pre", "publish", "modify", "stop", "recall", "whitelist", "list"] {
        assert_eq!(house.call("POST", &format!("{path}/{op}?as=shop"), r#"{"entry":1}"#).0, 200, "{op}");
        assert_eq!(house.seen(), [format!(r#"shop admin/ch/ch-new/{op} {{"entry":1}}"#)]);
    }
    house.refuses("POST", &format!("{path}/create?as=shop"), "{}", 403, "forbidden");
    house.refuses("POST", &format!("{path}/shout"), "{}", 400, "bad_topic");
    house.refuses("POST", &format!("{path}/a%2Fb"), "{}", 400, "bad_request");
    house.refuses("POST", "/api/v1/channels/ch-none/publish", "{}", 404, "not_found");
    assert_eq!(house.call("POST", &format!("{path}/publish"), "[]").0, 400);
    house.seen();
    assert_eq!(house.call("GET", path, "").0, 200);
    assert_eq!(house.call("GET", &format!("{path}?as=shop&max=3&entry=1"), "").0, 200);
    assert_eq!(house.seen(), ["service admin/ch/ch-new/list {}", r#"shop admin/ch/ch-new/list {"entry":1,"max":3}"#]);
    assert_eq!(house.json("GET", "/api/v1/channels", ""), (200, json!({ "channels": [] })));
}

#[test]
fn conversations_are_looked_up_as_their_owner() {
    let house = House::new("conversations");
    let (status, found) = house.json("GET", "/api/v1/conversations?account=alice&max=5", "");
    assert_eq!((status, &found["convs"][0]["addr"]), (200, &"bob".into()));
    conforms(&found, "Conversations");
    let (status, found) = house.json("GET", "/api/v1/history?account=alice&with=bob&before=9&max=3", "");
    assert_eq!(status, 200);
    conforms(&found, "History");
    assert_eq!(house.seen(), [r#"alice me/convs {"max":5}"#, r#"alice me/history {"before":9,"max":3,"with":"bob"}"#]);
    for path in ["conversations", "history?with=bob", "history?account=alice", "history?account=a&with=b&max=x"] {
        assert_eq!(house.call("GET", &format!("/api/v1/{path}"), "").0, 400, "{path}");
    }
    house.call("POST", "/api/v1/accounts", r#"{"name":"lamp","password":"correct horse"}"#);
    let (status, counted) = house.json("POST", "/api/v1/recount", "");
    assert_eq!((status, counted), (200, json!({ "items": [{ "account": "lamp", "agree": true }] })));
    let (_, counted) = house.json("POST", "/api/v1/recount", r#"{"account":"alice"}"#);
    assert_eq!(counted["items"][0]["account"], "alice");
}

#[test]
fn a_service_with_its_own_token_acts_as_itself_only() {
    let house = House::new("service");
    let send = r#"{"to":"alice","text":"hi"}"#;
    assert_eq!(house.as_account("shop", "POST", "/api/v1/messages", send).0, 200);
    assert_eq!(house.seen(), [r#"own shop to/alice/msg {"text":"hi"}"#]);
    let (status, problem) =
        house.as_account("shop", "POST", "/api/v1/messages", r#"{"from":"service","to":"alice","text":"hi"}"#);
    assert_eq!((status, &problem["code"]), (403, &"forbidden".into()));
    let command = r#"{"device":"lamp","name":"set","from":"shop"}"#;
    assert_eq!(house.as_account("shop", "POST", "/api/v1/commands", command).0, 200);
    assert_eq!(house.as_account("shop", "GET", "/api/v1/commands/lamp/c1", "").1["text"], "shop");
    assert_eq!(house.as_account("shop", "GET", "/api/v1/commands/lamp/c1?from=service", "").0, 403);
    assert_eq!(house.as_account("shop", "POST", "/api/v1/channels/ch-x/publish", "{}").0, 200);
    assert_eq!(house.as_account("shop", "POST", "/api/v1/channels/ch-x/publish?as=service", "{}").0, 403);
    assert_eq!(house.as_account("shop", "GET", "/api/v1/conversations", "").0, 200);
    assert_eq!(house.as_account("shop", "GET", "/api/v1/history?with=alice", "").0, 200);
    assert_eq!(house.as_account("shop", "GET", "/api/v1/history?with=alice&account=alice", "").0, 403);
    // A person's token is for MQTT, and what is the operator's is nobody else's.
    assert_eq!(house.as_account("alice", "POST", "/api/v1/messages", send).0, 403);
    for (method, path) in [
        ("GET", "/api/v1/status"),
        ("GET", "/api/v1/accounts"),
        ("POST", "/api/v1/accounts/shop/token"),
        ("DELETE", "/api/v1/accounts/shop/tokens"),
        ("POST", "/api/v1/recount"),
        ("POST", "/api/v1/reload"),
        ("GET", "/api/v1/backup"),
    ] {
        assert_eq!(house.as_account("shop", method, path, "{}").0, 401, "{method} {path}");
    }
}

#[test]
fn accounts_have_a_kind_and_tokens() {
    let house = House::new("kinds");
    let new = r#"{"name":"lamp","password":"correct horse","kind":"device","display_name":"Lämp"}"#;
    let (status, row) = house.json("POST", "/api/v1/accounts", new);
    assert_eq!(status, 201);
    conforms(&row, "Account");
    assert_eq!(house.seen(), [r#"described lamp device Some("Lämp")"#]);
    let (status, row) = house.json("GET", "/api/v1/accounts/lamp", "");
    assert_eq!((status, &row["messaging"]["terminals"][0]["terminal"]), (200, &"phone".into()));
    conforms(&row, "AccountDetail");
    assert_eq!(house.call("GET", "/api/v1/accounts/nobody", "").0, 404);
    for (body, expect) in [
        (r#"{"name":"a","password":"correct horse","kind":"robot"}"#, 400),
        (r#"{"name":"a","password":"correct horse","display_name":" "}"#, 422),
        (r#"{"name":"a","password":"correct horse","display_name":"a\nb"}"#, 422),
        (r#"{"name":"g-home","password":"correct horse"}"#, 422),
        (r#"{"name":"ch-news","password":"correct horse"}"#, 422),
        (r#"{"name":"r-live","password":"correct horse"}"#, 422),
        (r#"{"name":"me","password":"correct horse"}"#, 422),
        (r#"{"name":"pair","password":"correct horse"}"#, 422),
    ] {
        let (status, problem) = house.json("POST", "/api/v1/accounts", body);
        assert_eq!(status, expect, "{body}: {problem}");
    }
    house.seen();
    let (status, token) = house.json("POST", "/api/v1/accounts/lamp/token", "");
    assert_eq!(
        (status, &token["token"], &token["expires_at_ms"]),
        (201, &"token of lamp None".into(), &3_600_000.into())
    );
    conforms(&token, "Token");
    let (_, token) = house.json("POST", "/api/v1/accounts/lamp/token", r#"{"ttl_s":5,"groups":["g"]}"#);
    assert_eq!((&token["token"], &token["expires_at_ms"]), (&r#"token of lamp Some(["g"])"#.into(), &5_000.into()));
    for (name, body, expect) in
        [("nobody", "", 404), ("off", "", 409), ("lamp", r#"{"ttl_s":0}"#, 422), ("lamp", r#"{"ttl":1}"#, 400)]
    {
        assert_eq!(house.call("POST", &format!("/api/v1/accounts/{name}/token"), body).0, expect, "{name} {body}");
    }
    assert_eq!(house.call("DELETE", "/api/v1/accounts/lamp/tokens", "").0, 204);
    assert_eq!(house.seen(), ["connections of lamp end"]);
    assert_eq!(house.call("DELETE", "/api/v1/accounts/nobody/tokens", "").0, 404);
}

#[test]
fn devices_pair_without_a_token() {
    let house = House::new("pair");
    let ask = |body: &str| {
        let head = "POST /api/v1/pair HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n";
        house.bytes(format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).as_bytes())
    };
    let answer = ask(r#"{"code":"GOOD-CODE","name":"lamp2"}"#);
    assert!(answer.starts_with("HTTP/1.1 201 "), "{answer}");
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    conforms(&serde_json::from_str(body).unwrap(), "Paired");
    assert!(ask(r#"{"code":"BAD","name":"lamp2"}"#).starts_with("HTTP/1.1 404 "));
    assert!(ask(r#"{"code":"GOOD-CODE","name":"taken"}"#).starts_with("HTTP/1.1 409 "));
    assert!(ask(r#"{"code":"GOOD-CODE"}"#).starts_with("HTTP/1.1 400 "));
    let answer = ask(r#"{"code":"SLOW-DOWN","name":"lamp2"}"#);
    assert!(answer.starts_with("HTTP/1.1 429 ") && answer.contains("retry-after: 2\r\n"), "{answer}");
}

#[test]
fn without_messaging_there_is_none() {
    let house = House::with("off", |config| config.im.enabled = false, Box::new(Some));
    for (method, path, body) in [
        ("POST", "/api/v1/messages", r#"{"to":"alice","text":"hi"}"#),
        ("POST", "/api/v1/commands", r#"{"device":"lamp","name":"set"}"#),
        ("GET", "/api/v1/commands/a/b", ""),
        ("GET", "/api/v1/channels", ""),
        ("GET", "/api/v1/channels/ch-x", ""),
        ("POST", "/api/v1/channels/ch-x/list", "{}"),
        ("GET", "/api/v1/conversations?account=a", ""),
        ("GET", "/api/v1/history?account=a&with=b", ""),
        ("POST", "/api/v1/recount", r#"{"account":"a"}"#),
        ("POST", "/api/v1/pair", r#"{"code":"GOOD-CODE","name":"lamp"}"#),
    ] {
        let (status, problem) = house.json(method, path, body);
        assert_eq!(status, 501, "{method} {path}: {problem}");
    }
    house.call("POST", "/api/v1/accounts", r#"{"name":"lamp","password":"correct horse"}"#);
    let (status, row) = house.json("GET", "/api/v1/accounts/lamp", "");
    assert!(status == 200 && row.get("messaging").is_none(), "{row}");
}
