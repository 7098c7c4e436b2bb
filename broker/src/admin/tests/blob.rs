//! Blobs over HTTP, with a driver that is made up.

use super::*;
use parlor_core::{BlobOrder, Reply};
use serde_json::json;

/// SHA-256 of `firmware`.
const FIRMWARE: &str = "63f3d4a81e0df3eedbb07dbb5a3da4ab3b3a5be26e82ed3dcf3a94ae39fe0ea9";

fn line(id: &str, readers: &[String], dup: Option<bool>) -> Reply {
    let mut line = json!({
        "id": id, "name": "", "version": "", "size": 8, "sha256": id, "signature": null, "created": 1, "for": readers
    });
    if let Some(dup) = dup {
        line["dup"] = dup.into();
    }
    Reply::Done(line.to_string())
}

/// What the made-up messaging answers.
pub(super) fn order(order: &BlobOrder) -> Reply {
    let refused = |code, text: &str| Reply::Refused { code, text: text.to_owned() };
    match order {
        BlobOrder::Begin { readers, .. } if readers.iter().any(|name| name == "nobody") => {
            refused("not_found", "there is no account and no group nobody")
        }
        BlobOrder::Begin { size: Some(1_000_000..), .. } => refused("too_large", "a blob has 999999 bytes at most"),
        BlobOrder::Begin { .. } => Reply::Done(r#"{"upload":7}"#.to_owned()),
        BlobOrder::Append { bytes, .. } if bytes.starts_with(b"too much") => refused("quota", "no room"),
        BlobOrder::Append { .. } | BlobOrder::Abort { .. } | BlobOrder::Remove { .. } => Reply::Done("{}".to_owned()),
        BlobOrder::Finish { blob, .. } => {
            let id: String = blob.sha256.iter().map(|byte| format!("{byte:02x}")).collect();
            line(&id, &blob.readers, Some(blob.name == "again"))
        }
        BlobOrder::Grant { id, .. } if id == "none" => refused("not_found", "there is no blob none"),
        BlobOrder::Grant { id, add, .. } => line(id, add, None),
    }
}

#[test]
fn a_blob_is_hashed_while_it_comes_and_is_named_by_that() {
    let house = House::new("blob-put");
    let query = "name=app.bin&version=1.2%20beta&for=lamp,,g-home&signature=a%2Bb%3D";
    let (status, put) = house.json("POST", &format!("/api/v1/blobs?{query}"), "firmware");
    assert_eq!((status, &put["dup"]), (201, &json!(false)), "{put}");
    let digest = ring::digest::digest(&ring::digest::SHA256, b"firmware");
    let id: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(put["id"], id.as_str());
    conforms(&put, "Blob");
    let seen = house.seen();
    assert_eq!(seen.len(), 3, "{seen:?}");
    assert!(seen[0].contains(r#"Begin { readers: ["lamp", "g-home"], size: Some(8) }"#), "{seen:?}");
    assert!(seen[1].contains("Append { upload: 7"), "{seen:?}");
    for part in [r#"name: "app.bin""#, r#"version: "1.2 beta""#, r#"signature: "a+b=""#, r#"["lamp", "g-home"]"#] {
        assert!(seen[2].starts_with("Finish { upload: 7") && seen[2].contains(part), "{part}: {seen:?}");
    }
    assert_eq!(house.json("POST", "/api/v1/blobs?name=again", "firmware").0, 200);
}

#[test]
fn what_does_not_come_whole_is_given_up() {
    let house = House::new("blob-broken");
    house.refuses("POST", "/api/v1/blobs?for=nobody", "firmware", 404, "not_found");
    let head = format!("POST /api/v1/blobs HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\n", house.token);
    let (status, _) = house.raw(format!("{head}Content-Length: 1000000\r\n\r\n").as_bytes());
    assert_eq!(status, 413, "said before a byte of it is read");
    house.seen();
    house.refuses("POST", "/api/v1/blobs", "too much of it", 429, "quota");
    assert_eq!(house.seen().last().unwrap(), "Abort { upload: 7 }");
    let (status, _) =
        house.raw(format!("{head}Transfer-Encoding: chunked\r\n\r\n5\r\nfirmw\r\nthat is no chunk").as_bytes());
    assert_eq!(status, 400);
    let seen = house.seen();
    assert_eq!(seen.last().unwrap(), "Abort { upload: 7 }");
    assert!(!seen.iter().any(|order| order.starts_with("Finish")), "{seen:?}");
    assert_eq!(house.json("POST", "/api/v1/blobs?colour=red", "x").0, 400);
}

#[test]
fn blobs_are_listed_granted_and_removed_by_the_operator_only() {
    let house = House::new("blob-list");
    assert_eq!(house.json("GET", "/api/v1/blobs", ""), (200, json!({ "items": [] })));
    let path = format!("/api/v1/blobs/{FIRMWARE}");
    let (status, granted) = house.json("POST", &format!("{path}/readers"), r#"{"add":["lamp"]}"#);
    assert_eq!((status, &granted["for"]), (200, &json!(["lamp"])));
    conforms(&granted, "Blob");
    house.refuses("POST", "/api/v1/blobs/none/readers", "{}", 404, "not_found");
    assert_eq!(house.json("POST", &format!("{path}/readers"), r#"{"colour":"red"}"#).0, 400);
    house.seen();
    assert_eq!(house.call("DELETE", &path, "").0, 204);
    assert_eq!(house.seen(), [format!("Remove {{ id: {FIRMWARE:?} }}")]);
    for (method, path) in [("GET", "/api/v1/blobs"), ("POST", "/api/v1/blobs"), ("DELETE", &*path)] {
        let head = "Host: localhost\r\nConnection: close\r\nContent-Length: 0\r\n";
        for token in ["", "Authorization: Bearer token-service\r\n"] {
            assert_eq!(
                house.raw(format!("{method} {path} HTTP/1.1\r\n{head}{token}\r\n").as_bytes()).0,
                401,
                "{method}"
            );
        }
    }
    assert!(house.seen().is_empty());
}
