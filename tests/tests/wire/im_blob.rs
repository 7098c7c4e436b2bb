//! Blobs: docs/protocol.md, section 13.

use super::common::*;
use parlor_tests::im::{House, json};
use parlor_tests::operator::Operator;

/// Content that differs everywhere.
fn image(len: usize) -> Vec<u8> {
    let mut state = 0x9E37_79B9_u32;
    let mut byte = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_le_bytes()[0]
    };
    (0..len).map(|_| byte()).collect()
}

fn house(extra: &[&str]) -> Option<House> {
    House::with(&["alice", "lamp", "eve"], extra)
}

/// Puts in a blob and gives its id.
fn put(house: &House, content: &[u8], readers: &str) -> String {
    let answer = Operator::of(&house.broker).post(&format!("/blobs?name=app.bin&version=1.2.0&for={readers}"), content);
    assert_eq!(answer.status, 201, "{}", answer.text());
    answer.json()["id"].as_str().expect("an id").to_owned()
}

const RES: &str = "im/v1/me/blob/res";

/// Asks for a range and takes the answer apart: offset, size of the whole, bytes.
fn range(c: &mut Client, id: &str, offset: usize, max: usize) -> (u64, u64, Vec<u8>) {
    assert_eq!(c.say(1, &format!("im/v1/me/blob/{id}"), format!(r#"{{"offset":{offset},"max":{max}}}"#)), 0);
    split(&c.on(RES).payload)
}

fn split(payload: &[u8]) -> (u64, u64, Vec<u8>) {
    let number = |at: usize| u64::from_be_bytes(payload[at..at + 8].try_into().expect("8 bytes"));
    (number(0), number(8), payload[16..].to_vec())
}

/// A whole image comes in ranges, in both versions; a connection that is cut and a broker that is killed in between cost
/// nothing but the range that was under way.
#[test]
fn a_download_goes_on_where_it_stopped() {
    let Some(mut house) = house(&[]) else { return };
    let content = image(100_003);
    let id = put(&house, &content, "lamp");
    for version in BOTH {
        let mut got: Vec<u8> = vec![];
        let mut board = house.client(version, "lamp", &unique("b"));
        board.subscribe(RES, 1);
        while got.len() < content.len() {
            let (offset, size, bytes) = range(&mut board, &id, got.len(), 8_192);
            assert_eq!((offset, size), (got.len() as u64, content.len() as u64));
            assert!((1..=8_192).contains(&bytes.len()));
            got.extend_from_slice(&bytes);
            if got.len() == 5 * 8_192 {
                board.say(1, &format!("im/v1/me/blob/{id}"), format!(r#"{{"offset":{}}}"#, got.len()));
                board.cut();
                house.broker.kill();
                house.broker.start_again();
                board = house.client(version, "lamp", &unique("b"));
                board.subscribe(RES, 1);
            }
        }
        assert!(got == content, "{version:?}");
    }
}

/// Never more than was asked for, than a range may have, or than the client takes [MQTT5-3.1.2-24]; and never nothing.
#[test]
fn an_answer_fits_the_client() {
    let Some(house) = house(&[]) else { return };
    let content = image(40_000);
    let id = put(&house, &content, "lamp");
    let mut board = house.client(V5, "lamp", "board");
    board.subscribe(RES, 1);
    assert_eq!(range(&mut board, &id, 0, 1).2, content[..1]);
    assert_eq!(range(&mut board, &id, 7, 1_000_000).2, content[7..7 + 16_384]);
    assert_eq!(range(&mut board, &id, 39_999, 16_384).2, content[39_999..]);
    for most in [64_u32, 200, 256, 1_024, 4_096] {
        let mut small = house.connect(V5, "lamp", &unique("s")).with(prop::max_packet_size(most)).to(&house.broker);
        small.subscribe(RES, 1);
        let (offset, size, bytes) = range(&mut small, &id, 100, 16_384);
        assert_eq!((offset, size), (100, 40_000));
        // The topic, the identifier and the head take the rest, and what there is room for is used.
        let least = most as usize - 50;
        assert!((least..most as usize).contains(&bytes.len()), "{most}: {}", bytes.len());
        assert_eq!(bytes, content[100..100 + bytes.len()]);
        let (_, _, next) = range(&mut small, &id, 100 + bytes.len(), 10);
        assert_eq!(next, content[100 + bytes.len()..110 + bytes.len()]);
    }
    // Where not one byte has room nothing comes, and the connection lives.
    let mut tiny = house.connect(V5, "lamp", "tiny").with(prop::max_packet_size(38_u32)).to(&house.broker);
    tiny.subscribe(RES, 1);
    assert_eq!(tiny.say(1, &format!("im/v1/me/blob/{id}"), r#"{"offset":0}"#), 0);
    tiny.quiet();
}

/// An answer goes where MQTT 5 says it is wanted.
#[test]
fn answers_have_a_response_topic_and_correlation_data() {
    let Some(house) = house(&[]) else { return };
    let content = image(1_000);
    let id = put(&house, &content, "lamp");
    let mut board = house.client(V5, "lamp", "board");
    board.subscribe_all(&[("im/v1/me/res/+", 1), (RES, 1)], &[]);
    for offset in [300_usize, 200, 100] {
        let ask = Publish::new(&format!("im/v1/me/blob/{id}"), format!(r#"{{"offset":{offset},"max":50}}"#))
            .qos(1, 0)
            .with(prop::response_topic("im/v1/me/res/ota"))
            .with(prop::correlation(offset.to_be_bytes()));
        assert_eq!(board.answer_to(&ask).code, 0);
    }
    for offset in [300_usize, 200, 100] {
        let answer = board.on("im/v1/me/res/ota");
        assert_eq!(answer.props.bytes(prop::CORRELATION), Some(&offset.to_be_bytes()[..]));
        assert_eq!(split(&answer.payload), (offset as u64, 1_000, content[offset..offset + 50].to_vec()));
    }
    board.quiet();
}

/// A blob is there for those it is for, and for nobody else in any way (G12).
#[test]
fn nobody_else_learns_that_it_is_there() {
    let Some(house) = house(&[]) else { return };
    let id = put(&house, &image(1_000), "lamp");
    let none = "ab".repeat(32);
    for version in BOTH {
        let mut eve = house.client(version, "eve", &unique("e"));
        eve.subscribe_all(&[("im/v1/me/+/res", 1), ("im/v1/me/res/+", 1), ("im/v1/me/err", 1), ("#", 1)], &[]);
        let mut heard = vec![];
        for id in [&id, &none] {
            for payload in [r#"{"offset":0}"#, r#"{"offset":999999}"#, "{}", r#"{"op":"info"}"#] {
                let answer = eve.publish_for(1, &format!("im/v1/me/blob/{id}"), payload);
                assert_eq!(answer.code, if version == V5 { 0x87 } else { 0 });
                let told = json(&eve.on("im/v1/me/err"));
                assert_eq!(told["code"], "not_found");
                heard.push(format!("{} {}", answer.reason(), told["text"]).replace(id.as_str(), "ID"));
            }
        }
        heard.dedup();
        assert_eq!(heard.len(), 1, "{heard:?}");
        // What others are sent of it, she is not.
        let mut board = house.client(version, "lamp", &unique("b"));
        board.subscribe(RES, 1);
        range(&mut board, &id, 0, 10);
        eve.quiet();
    }
}

/// Of a group every member may read, as long as it is one.
#[test]
fn members_of_a_group_may_read() {
    let Some(house) = house(&[]) else { return };
    house.befriend("alice", "lamp");
    let mut alice = house.client(V5, "alice", "phone");
    let create = r#"{"op":"create","name":"Home","household":true,"members":["lamp"]}"#;
    assert_eq!(alice.say(1, "im/v1/me/group/g-home", create), 0);
    let content = image(500);
    let id = put(&house, &content, "g-home");
    let mut board = house.client(V5, "lamp", "board");
    board.subscribe(RES, 1);
    assert_eq!(range(&mut board, &id, 0, 500).2, content);
    let mut eve = house.client(V5, "eve", "e");
    assert_eq!(eve.publish_for(1, &format!("im/v1/me/blob/{id}"), "{}").code, 0x87);
    assert_eq!(alice.say(1, "im/v1/me/group/g-home", r#"{"op":"remove","who":"lamp"}"#), 0);
    assert_eq!(board.publish_for(1, &format!("im/v1/me/blob/{id}"), "{}").code, 0x87);
}
