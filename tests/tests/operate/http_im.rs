//! Messaging over HTTP: what a business back end sends, commands, announces and looks up, and what it is refused.

use super::schema::conforms;
use super::tools::*;
use serde_json::json;

const PASSWORD: &str = "a-good-password";

/// A broker with a service, two persons and a device.
struct House {
    broker: Broker,
    operator: Operator,
}

impl House {
    fn new(args: &[&str]) -> Self {
        let broker = Broker::start(&[&["--set", NO_ANONYMOUS], args].concat());
        let operator = Operator::of(&broker);
        let house = Self { broker, operator };
        for (name, kind) in [("service", "service"), ("alice", "person"), ("bob", "person"), ("lamp", "device")] {
            house.make(name, kind);
        }
        house
    }

    fn make(&self, name: &str, kind: &str) {
        let body = json!({ "name": name, "password": PASSWORD, "kind": kind, "display_name": format!("The {name}") });
        let answer = self.operator.ask("POST", "/accounts", &body.to_string());
        assert_eq!(answer.status, 201, "{}", answer.text());
    }

    /// A client of the account that gets its mailbox pushed.
    fn online(&self, account: &str) -> Client {
        let mut client = connect(account).to(&self.broker);
        client.subscribe("im/v1/me/in/#", 1);
        client
    }

    #[track_caller]
    fn post(&self, path: &str, body: &Json) -> Json {
        let answer = self.operator.ask("POST", path, &body.to_string());
        assert!((200..300).contains(&answer.status), "{path} {body}: {} {}", answer.status, answer.text());
        answer.json()
    }

    /// The request is refused with this status and code.
    #[track_caller]
    fn refuses(&self, method: &str, path: &str, body: &Json, status: u16, code: &str) {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let answer = self.operator.ask(method, path, &body);
        assert_eq!(answer.status, status, "{method} {path} {body}: {}", answer.text());
        let problem = answer.json();
        conforms(&problem, "Problem");
        assert_eq!((&problem["code"], &problem["status"]), (&code.into(), &status.into()), "{problem}");
        assert!(problem["detail"].as_str().is_some_and(|text| !text.is_empty()), "{problem}");
    }
}

fn connect(account: &str) -> Connect {
    Connect::v5(&format!("{account}-1")).persistent().username(account).password(PASSWORD)
}

/// The next message whose topic is this, as JSON; others before it are passed over.
#[track_caller]
fn next_at(client: &mut Client, topic: &str) -> Json {
    for _ in 0..64 {
        let message = client.message();
        if message.topic == topic {
            return serde_json::from_str(message.text()).unwrap_or_else(|e| panic!("{e}: {}", message.text()));
        }
    }
    panic!("nothing at {topic}");
}

/// A message of the service reaches its person, is on disk when it is answered, and is one message however often it is sent.
#[test]
fn messages_arrive_once() {
    let mut house = House::new(&[]);
    let mut alice = house.online("alice");
    let message = json!({ "to": "alice", "text": "Your parcel is here.", "id": "parcel-17" });
    let sent = house.post("/messages", &message);
    assert_eq!((&sent["to"], &sent["status"], &sent["seq"]), (&"alice".into(), &200.into(), &1.into()), "{sent}");
    conforms(&sent, "Sent");
    let got = next_at(&mut alice, "im/v1/me/in/service/msg");
    assert_eq!((&got["text"], &got["from"]), (&"Your parcel is here.".into(), &"service".into()), "{got}");
    let again = house.post("/messages", &message);
    assert_eq!((&again["seq"], &again["dup"]), (&1.into(), &true.into()), "{again}");
    let other = json!({ "to": "alice", "text": "Another text.", "id": "parcel-17" });
    house.refuses("POST", "/messages", &other, 409, "id_reused");
    alice.disconnect();
    house.post("/messages", &json!({ "to": "alice", "body": { "n": 2 }, "kind": "parcel", "notify": false }));
    house.broker.kill();
    house.broker.start_again();
    let mut alice = house.online("alice");
    let got = next_at(&mut alice, "im/v1/me/in/service/msg");
    assert_eq!((&got["seq"], &got["body"]["n"]), (&2.into(), &2.into()), "{got}");
}

/// A list is one message to each, each with an answer of its own.
#[test]
fn a_small_batch_is_answered_one_by_one() {
    let house = House::new(&[]);
    let (mut alice, mut bob) = (house.online("alice"), house.online("bob"));
    let message = json!({ "to": ["alice", "nobody", "bob"], "text": "The water is off.", "id": "water" });
    let sent = house.post("/messages", &message);
    let statuses: Vec<&Json> = sent["items"].as_array().expect("items").iter().map(|item| &item["status"]).collect();
    assert_eq!(statuses, [200, 404, 200], "{sent}");
    assert_eq!(sent["items"][1]["code"], "not_found");
    for item in sent["items"].as_array().expect("items") {
        conforms(item, "Sent");
    }
    for client in [&mut alice, &mut bob] {
        assert_eq!(next_at(client, "im/v1/me/in/service/msg")["text"], "The water is off.");
    }
    let again = house.post("/messages", &message);
    assert_eq!((&again["items"][0]["dup"], &again["items"][2]["dup"]), (&true.into(), &true.into()), "{again}");
    assert_eq!(again["items"][0]["seq"], sent["items"][0]["seq"]);
}

/// What a message is refused for.
#[test]
fn messages_are_refused_with_a_code() {
    let house = House::new(&[]);
    let to = |to: &str| json!({ "to": to, "text": "hi" });
    house.refuses("POST", "/messages", &to("nobody"), 404, "not_found");
    house.refuses("POST", "/messages", &to("g-nowhere"), 404, "not_found");
    house.refuses("POST", "/messages", &to("not/an/address"), 400, "bad_request");
    house.refuses("POST", "/messages", &json!({ "to": "alice" }), 400, "bad_request");
    house.refuses("POST", "/messages", &json!({ "to": "alice", "text": "hi", "colour": "red" }), 400, "bad_request");
    house.refuses("POST", "/messages", &json!({ "to": "alice", "text": "hi", "id": "no id" }), 400, "bad_request");
    house.refuses("POST", "/messages", &json!({ "to": vec!["alice"; 31], "text": "hi" }), 400, "bad_request");
    let long = json!({ "to": "alice", "text": "x".repeat(70_000) });
    house.refuses("POST", "/messages", &long, 413, "too_large");
    house.refuses("POST", "/messages", &json!({ "from": "nobody", "to": "alice", "text": "hi" }), 404, "not_found");
}

/// A command comes back with its outcome; without a device to carry it out it expires.
#[test]
fn commands_have_an_outcome() {
    let house = House::new(&[]);
    let mut lamp = house.online("lamp");
    lamp.subscribe("im/v1/me/cmd/#", 1);
    let answered = std::thread::spawn(move || {
        let command = loop {
            let message = lamp.message();
            if message.topic.starts_with("im/v1/me/cmd/") {
                break message;
            }
        };
        assert!(command.topic.ends_with("/set"), "{}", command.topic);
        let id = command.topic.split('/').nth(4).expect("an id").to_owned();
        let args: Json = serde_json::from_str(command.text()).expect("JSON");
        assert_eq!(lamp.say(1, &format!("im/v1/me/cmdres/{id}"), r#"{"state":"done","result":{"on":true}}"#), 0);
        (lamp, args)
    });
    let command = json!({ "device": "lamp", "name": "set", "args": { "on": true }, "id": "c1", "wait_ms": 20_000 });
    let state = house.post("/commands", &command);
    assert_eq!((&state["state"], &state["result"]["on"], &state["id"]), (&"done".into(), &true.into(), &"c1".into()));
    let (lamp, args) = answered.join().expect("the lamp is content");
    assert_eq!(args["args"]["on"], true);
    conforms(&state, "CommandState");
    let looked_up = house.operator.see("/commands/lamp/c1");
    conforms(&looked_up, "CommandState");
    assert_eq!((&looked_up["state"], &looked_up["device"]), (&"done".into(), &"lamp".into()), "{looked_up}");
    lamp.disconnect();
    let late = json!({ "device": "lamp", "name": "set", "deadline_ms": 300 });
    let answer = house.operator.ask("POST", "/commands", &late.to_string());
    assert_eq!(answer.status, 202, "{}", answer.text());
    let id = answer.json()["id"].as_str().expect("an id").to_owned();
    house.operator.until("it expires", |operator| {
        (operator.see(&format!("/commands/lamp/{id}"))["state"] == "expired").then_some(())
    });
    house.refuses("GET", "/commands/lamp/no-such", &Json::Null, 404, "not_found");
    house.refuses("POST", "/commands", &json!({ "device": "nobody", "name": "set" }), 404, "not_found");
    house.refuses("POST", "/commands", &json!({ "device": "lamp", "name": "a b" }), 400, "bad_request");
    let reused = json!({ "device": "lamp", "name": "reset", "id": "c1" });
    house.refuses("POST", "/commands", &reused, 409, "id_reused");
}

/// A channel from its making to a recall, and its white list while it runs.
#[test]
fn channels_announce() {
    let house = House::new(&["--set", "limits.im_announce_spread_ms=1"]);
    let (mut alice, mut bob) = (house.online("alice"), house.online("bob"));
    house.post("/channels/ch-news/create", &json!({ "name": "News", "audience": "all" }));
    house.refuses("POST", "/channels/ch-news/create", &json!({ "name": "News" }), 409, "exists");
    house.post("/channels/ch-news/whitelist", &json!({ "accounts": ["alice"] }));
    let entry = house.post("/channels/ch-news/pre", &json!({ "text": "Soon.", "notify": true }))["entry"].clone();
    assert_eq!(next_at(&mut alice, "im/v1/me/in/ch-news/msg")["text"], "Soon.");
    house.post("/channels/ch-news/publish", &json!({ "entry": entry, "text": "Now.", "notify": true }));
    assert_eq!(next_at(&mut bob, "im/v1/me/in/ch-news/msg")["text"], "Now.");
    house.post("/channels/ch-news/modify", &json!({ "entry": entry, "text": "Now, really.", "notify": true }));
    assert_eq!(next_at(&mut bob, "im/v1/me/in/ch-news/edit")["text"], "Now, really.");
    house.post("/channels/ch-news/recall", &json!({ "entry": entry }));
    next_at(&mut bob, "im/v1/me/in/ch-news/recall");
    let listed = house.operator.see("/channels/ch-news");
    conforms(&listed, "ChannelDetail");
    assert_eq!(listed["entries"][0]["state"], "recalled", "{listed}");
    let one = house.operator.see(&format!("/channels/ch-news?entry={entry}"));
    conforms(&one, "ChannelDetail");
    let channels = house.operator.see("/channels");
    conforms(&channels["channels"][0], "Channel");
    assert_eq!(channels["channels"][0]["channel"], "ch-news", "{channels}");
    house.refuses("POST", "/channels/ch-none/publish", &json!({ "text": "x" }), 404, "not_found");
    house.refuses("POST", "/channels/ch-news/stop", &json!({ "entry": 99 }), 404, "not_found");
    house.refuses("POST", "/channels/ch-news/shout", &json!({}), 400, "bad_topic");
    house.refuses("POST", "/channels/no-channel/create", &json!({ "name": "x" }), 400, "bad_request");
}

/// Conversations and history are those the account would see, and looking changes nothing.
#[test]
fn the_operator_looks_things_up() {
    let house = House::new(&[]);
    for n in 1..=5 {
        house.post("/messages", &json!({ "to": "alice", "text": format!("number {n}") }));
    }
    let found = house.operator.see("/conversations?account=alice");
    assert_eq!((&found["convs"][0]["addr"], &found["convs"][0]["unread"]), (&"service".into(), &5.into()), "{found}");
    conforms(&found, "Conversations");
    let seqs = |path: &str| -> Vec<u64> {
        let found = house.operator.see(path);
        conforms(&found, "History");
        found["messages"].as_array().expect("messages").iter().filter_map(|item| item["seq"].as_u64()).collect()
    };
    assert_eq!(seqs("/history?account=alice&with=service&before=4&max=2"), [3, 2]);
    assert_eq!(seqs("/history?account=alice&with=service&after=3"), [4, 5]);
    assert_eq!(house.operator.see("/conversations?account=alice")["convs"][0]["unread"], 5);
    let counted = house.post("/recount", &json!({}));
    let items = counted["items"].as_array().expect("items");
    assert_eq!(items.len(), 4, "{counted}");
    for item in items {
        conforms(item, "Counted");
    }
    assert!(!counted.to_string().contains("false"), "{counted}");
    house.refuses("GET", "/history?account=alice&with=nobody", &Json::Null, 404, "not_found");
    house.refuses("GET", "/conversations?account=nobody", &Json::Null, 404, "not_found");
}

/// An account shows what messaging knows of it.
#[test]
fn an_account_is_shown_whole() {
    let house = House::new(&[]);
    let row = house.operator.see("/accounts/lamp");
    assert_eq!((&row["messaging"]["kind"], &row["messaging"]["name"]), (&"device".into(), &"The lamp".into()), "{row}");
    conforms(&row, "AccountDetail");
    let _lamp = house.online("lamp");
    let row = house.operator.see("/accounts/lamp");
    conforms(&row, "AccountDetail");
    assert!(row["messaging"]["terminals"].to_string().contains("lamp-1"), "{row}");
    assert_eq!(house.operator.ask("GET", "/accounts/nobody", "").status, 404);
    assert_eq!(house.operator.ask("DELETE", "/accounts/lamp", "").status, 204);
    house.make("lamp", "person");
    assert_eq!(house.operator.see("/accounts/lamp")["messaging"]["kind"], "person");
}

/// A service with a token of its own acts as itself only; nobody else may.
#[test]
fn a_service_acts_as_itself() {
    let house = House::new(&[]);
    house.make("shop", "service");
    let token = |account: &str| {
        let answer = house.operator.ask("POST", &format!("/accounts/{account}/token"), "");
        format!("Bearer {}", answer.json()["token"].as_str().expect("a token"))
    };
    let (shop, alice) = (token("shop"), token("alice"));
    let ask = |bearer: &str, method: &str, path: &str, body: &Json| {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        http(house.broker.http(), method, &format!("/api/v1{path}"), &[("Authorization", bearer)], body.as_bytes())
            .status
    };
    let hi = json!({ "to": "alice", "text": "hi" });
    assert_eq!(ask(&shop, "POST", "/messages", &hi), 200);
    // The operator needs nobody's consent; a service keeps to its own rights.
    let mut bob = house.online("bob");
    assert_eq!(bob.say(1, "im/v1/me/contact/shop", r#"{"op":"block"}"#), 0);
    assert_eq!(ask(&shop, "POST", "/messages", &json!({ "to": "bob", "text": "hi" })), 403);
    house.post("/messages", &json!({ "from": "shop", "to": "bob", "text": "from the operator" }));
    assert_eq!(house.operator.see("/conversations?account=alice")["convs"][0]["addr"], "shop");
    assert_eq!(ask(&shop, "POST", "/messages", &json!({ "from": "service", "to": "alice", "text": "hi" })), 403);
    assert_eq!(ask(&shop, "GET", "/conversations", &Json::Null), 200);
    assert_eq!(ask(&shop, "GET", "/history?account=alice&with=shop", &Json::Null), 403);
    assert_eq!(ask(&alice, "POST", "/messages", &hi), 403);
    for (method, path) in
        [("GET", "/accounts"), ("GET", "/status"), ("POST", "/recount"), ("POST", "/accounts/shop/token")]
    {
        assert_eq!(ask(&shop, method, path, &Json::Null), 401, "{method} {path}");
    }
    assert_eq!(house.operator.ask("DELETE", "/accounts/shop/tokens", "").status, 204);
    assert_eq!(ask(&shop, "POST", "/messages", &hi), 401);
}

/// Where messaging is switched off, everything about it says so, and the rest goes on.
#[test]
fn messaging_can_be_switched_off() {
    let broker = Broker::start(&["--set", NO_ANONYMOUS, "--set", "im.enabled=false"]);
    let operator = Operator::of(&broker);
    let account = json!({ "name": "lamp", "password": PASSWORD, "kind": "device" }).to_string();
    assert_eq!(operator.ask("POST", "/accounts", &account).status, 201);
    let message = json!({ "to": "lamp", "text": "hi" }).to_string();
    assert_eq!(operator.ask("POST", "/messages", &message).status, 501);
    assert_eq!(operator.ask("POST", "/pair", r#"{"code":"x","name":"y"}"#).status, 501);
    assert!(operator.see("/accounts/lamp")["messaging"].is_null());
    let mut lamp = connect("lamp").to(&broker);
    lamp.subscribe("home/x", 1);
    assert_eq!(lamp.say(1, "home/x", "on"), 0);
}
