use super::super::command::house::{House, refused};
use super::*;
use crate::limits::Limits;

/// Content that differs from piece to piece.
fn image(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at / 7 + at % 251 + at / PIECE_BYTES).to_le_bytes()[0]).collect()
}

/// A digest that the driver would have made.
fn sha(of: u8) -> [u8; 32] {
    [of; 32]
}

fn id(of: u8) -> String {
    format!("{of:02x}").repeat(32)
}

fn words(list: &[&str]) -> Vec<String> {
    list.iter().map(|word| (*word).to_owned()).collect()
}

impl House {
    fn order(&mut self, order: BlobOrder) -> Result<Value, Refusal> {
        let done = self.im.order_blob(self.now, order);
        self.settle();
        done
    }

    fn begin(&mut self, readers: &[&str]) -> Result<u64, Refusal> {
        let begun = self.order(BlobOrder::Begin { readers: words(readers), size: None })?;
        Ok(begun["upload"].as_u64().unwrap())
    }

    fn append(&mut self, upload: u64, bytes: &[u8]) -> Result<Value, Refusal> {
        self.order(BlobOrder::Append { upload, bytes: bytes.to_vec() })
    }

    fn finish(&mut self, upload: u64, of: u8, readers: &[&str]) -> Result<Value, Refusal> {
        let blob = NewBlob {
            sha256: sha(of),
            name: "app.bin".into(),
            version: "1.2.0".into(),
            signature: String::new(),
            readers: words(readers),
        };
        self.order(BlobOrder::Finish { upload, blob })
    }

    /// Puts one in, in parts that are no pieces.
    fn upload(&mut self, of: u8, content: &[u8], readers: &[&str]) -> Value {
        let upload = self.begin(readers).unwrap();
        for part in content.chunks(10_000) {
            self.append(upload, part).unwrap();
        }
        self.finish(upload, of, readers).unwrap()
    }

    /// What a session asks, as its client would.
    fn ask(&mut self, account: &str, session: u32, id: &str, payload: &str) -> Result<(), Refusal> {
        let done = self.request((account, Some(session)), &format!("me/blob/{id}"), payload, None);
        self.settle();
        done.map(drop)
    }

    /// Topics and payloads of what there is for a session.
    fn raw(&mut self, session: u32) -> Vec<(String, Vec<u8>)> {
        let mut all = vec![];
        while self.im.next(self.now, session, 100).is_some() {
            all.push((self.im.wire().topic.clone(), self.im.wire().payload.clone()));
        }
        all
    }

    /// The one range that has come: offset, size of the whole, bytes.
    #[track_caller]
    fn range(&mut self, session: u32) -> (u64, u64, Vec<u8>) {
        let all = self.raw(session);
        assert_eq!(all.len(), 1, "{all:?}");
        assert_eq!(all[0].0, "im/v1/me/blob/res");
        let number = |at: usize| u64::from_be_bytes(all[0].1[at..at + 8].try_into().unwrap());
        (number(0), number(8), all[0].1[16..].to_vec())
    }

    fn board(&mut self) -> u32 {
        self.connect("lamp", "board", &["im/v1/me/blob/res", "im/v1/me/err"])
    }

    fn pieces(&mut self, no: u64) -> u32 {
        let (direction, max_rows, max_bytes) = (Direction::Up, u32::MAX, u32::MAX);
        let what = What::Range { a: no, from: 0, until: u64::MAX, direction, max_rows, max_bytes };
        self.store.answer(&crate::store::Query { token: 0, table: row::BLOB_PIECE, what }).rows
    }
}

#[test]
fn a_download_in_ranges_is_the_content_and_goes_on_from_any_offset() {
    let mut house = House::new();
    let content = image(3 * PIECE_BYTES + 777);
    house.upload(1, &content, &["lamp"]);
    for (first, max) in [(0, 1_000), (PIECE_BYTES - 1, 16_384), (2 * PIECE_BYTES, 16_384), (content.len() - 1, 5)] {
        let board = house.board();
        let mut offset = first;
        let mut got = vec![];
        while offset < content.len() {
            house.ask("lamp", board, &id(1), &format!(r#"{{"offset":{offset},"max":{max}}}"#)).unwrap();
            let (at, size, bytes) = house.range(board);
            assert_eq!((at, size), (offset as u64, content.len() as u64));
            assert!(!bytes.is_empty() && bytes.len() <= max);
            got.extend_from_slice(&bytes);
            offset += bytes.len();
        }
        assert!(got == content[first..], "from {first} by {max}");
        // In the midst of it the broker restarts, and the next round begins where this one did.
        house.restart(1_000);
    }
}

#[test]
fn nobody_learns_of_a_blob_that_is_not_for_them() {
    let mut house = House::new();
    house.upload(0xab, &image(100), &["lamp"]);
    let bob = house.connect("bob", "phone", &["im/v1/me/blob/res"]);
    let mut texts = vec![];
    for of in [0xab, 9] {
        for payload in ["{}", r#"{"offset":0}"#, r#"{"offset":500}"#, r#"{"op":"info"}"#] {
            let refusal = house.ask("bob", bob, &id(of), payload).unwrap_err();
            assert_eq!(refusal.code, Code::NotFound);
            texts.push(refusal.text.replace(&id(of), "ID"));
        }
    }
    texts.dedup();
    assert_eq!(texts.len(), 1, "what is there and what is not sound the same: {texts:?}");
    assert!(house.raw(bob).is_empty());
    // Nor is there another spelling of an id.
    let board = house.board();
    house.ask("lamp", board, &id(0xab), "{}").unwrap();
    for wrong in
        [id(0xab).to_uppercase(), id(0xab)[..62].to_owned(), format!("{}00", id(0xab)), "zz".repeat(32), String::new()]
    {
        let asked = house.ask("lamp", board, &wrong, "{}");
        assert_eq!(asked.unwrap_err().code, Code::NotFound, "{wrong}");
    }
}

#[test]
fn a_group_reads_as_long_as_one_is_in_it() {
    let mut house = House::new();
    house
        .say("alice", "me/group/g-home", r#"{"op":"create","name":"Home","household":true,"members":["lamp"]}"#)
        .unwrap();
    house.upload(1, &image(100), &["g-home"]);
    let (board, bob) = (house.board(), house.connect("bob", "phone", &["im/v1/me/blob/res"]));
    house.ask("lamp", board, &id(1), "{}").unwrap();
    assert_eq!(house.ask("bob", bob, &id(1), "{}").unwrap_err().code, Code::NotFound);
    house.say("alice", "me/group/g-home", r#"{"op":"remove","who":"lamp"}"#).unwrap();
    house.restart(0);
    let board = house.board();
    assert_eq!(house.ask("lamp", board, &id(1), "{}").unwrap_err().code, Code::NotFound);
}

#[test]
fn grants_come_and_go() {
    let mut house = House::new();
    house.upload(1, &image(100), &[]);
    let board = house.board();
    assert_eq!(house.ask("lamp", board, &id(1), "{}").unwrap_err().code, Code::NotFound);
    let grant = |add: &[&str], remove: &[&str]| BlobOrder::Grant { id: id(1), add: words(add), remove: words(remove) };
    assert_eq!(house.order(grant(&["lamp", "bob"], &[])).unwrap()["for"], json!(["bob", "lamp"]));
    house.ask("lamp", board, &id(1), "{}").unwrap();
    house.restart(0);
    let board = house.board();
    house.ask("lamp", board, &id(1), "{}").unwrap();
    assert_eq!(house.order(grant(&[], &["lamp"])).unwrap()["for"], json!(["bob"]));
    assert_eq!(house.ask("lamp", board, &id(1), "{}").unwrap_err().code, Code::NotFound);
    assert_eq!(house.order(grant(&["nobody"], &[])).unwrap_err().code, Code::NotFound);
    house.im.remove_account(house.now, "bob");
    assert_eq!(house.order(grant(&[], &[])).unwrap()["for"], json!([]));
    // Whoever has the name next is somebody else.
    house.im.make_account(house.now, "bob", super::super::AccountKind::Person);
    let bob = house.connect("bob", "phone", &["im/v1/me/blob/res"]);
    assert_eq!(house.ask("bob", bob, &id(1), "{}").unwrap_err().code, Code::NotFound);
}

#[test]
fn what_is_asked_is_checked_and_what_is_given_is_bounded() {
    let mut house =
        House::with(super::super::ImSettings::default(), Limits { im_blob_range_bytes_max: 64, ..Limits::default() });
    let content = image(1_000);
    house.upload(1, &content, &["lamp"]);
    let board = house.board();
    for wrong in [
        r#"{"offset":1000}"#,
        r#"{"offset":18446744073709551615,"max":1}"#,
        r#"{"offset":0,"max":0}"#,
        r#"{"offset":-1}"#,
        r#"{"offset":"0"}"#,
        r#"{"op":"delete"}"#,
        "bytes please",
        "[]",
    ] {
        let asked = house.ask("lamp", board, &id(1), wrong);
        assert_eq!(asked.unwrap_err().code, Code::BadRequest, "{wrong}");
    }
    for (payload, from, len) in [
        (r#"{"offset":0}"#, 0, 64),
        (r#"{"max":18446744073709551615}"#, 0, 64),
        (r#"{"offset":990,"max":64}"#, 990, 10),
        (r#"{"offset":5,"max":1}"#, 5, 1),
    ] {
        house.ask("lamp", board, &id(1), payload).unwrap();
        assert_eq!(house.range(board), (from as u64, 1_000, content[from..from + len].to_vec()), "{payload}");
    }
    // The operator's side has no connection for bytes to go to.
    refused(house.request(("lamp", None), &format!("me/blob/{}", id(1)), r#"{"offset":0}"#, None), Code::BadRequest);
}

#[test]
fn what_a_blob_is_can_be_asked() {
    let mut house = House::new();
    house.upload(1, &image(1_000), &["lamp"]);
    let board = house.board();
    for payload in ["", "{}", r#"{"op":"info"}"#, r#"{"op":"info","offset":7}"#] {
        house.ask("lamp", board, &id(1), payload).unwrap();
        let all = house.raw(board);
        let info: Value = serde_json::from_slice(&all[0].1).unwrap();
        let expect = json!({
            "re": format!("me/blob/{}", id(1)), "id": id(1), "sha256": id(1), "name": "app.bin", "version": "1.2.0",
            "size": 1_000, "signature": null,
        });
        assert_eq!((all.len(), info), (1, expect), "{payload}");
    }
}

#[test]
fn requests_on_their_way_are_counted_with_the_pulls() {
    let limits = Limits { im_pulls_per_account_max: 2, ..Limits::default() };
    let mut house = House::with(super::super::ImSettings::default(), limits);
    house.upload(1, &image(100), &["lamp"]);
    let board = house.board();
    let ask = |house: &mut House| {
        let path = format!("me/blob/{}", id(1));
        house.request(("lamp", Some(board)), &path, r#"{"offset":0}"#, None).map(drop)
    };
    ask(&mut house).unwrap();
    ask(&mut house).unwrap();
    assert_eq!(ask(&mut house).unwrap_err().code, Code::Quota);
    house.settle();
    ask(&mut house).unwrap();
}

#[test]
fn the_same_content_again_is_the_same_blob() {
    let mut house = House::new();
    let content = image(2 * PIECE_BYTES);
    let first = house.upload(1, &content, &["lamp"]);
    let again = house.upload(1, &content, &["bob"]);
    assert_eq!((&first["dup"], &again["dup"]), (&json!(false), &json!(true)));
    assert_eq!((&again["for"], &again["created"]), (&json!(["bob", "lamp"]), &first["created"]));
    assert_eq!(house.im.look_blobs()["items"].as_array().unwrap().len(), 1);
    assert_eq!((house.pieces(1), house.pieces(2)), (2, 0), "its bytes are there once");
    assert_eq!(house.im.blobs.bytes, content.len() as u64);
}

#[test]
fn limits_hold_while_it_comes_in() {
    let limits = Limits { im_blob_bytes_max: 100, im_blobs_max: 3, im_blobs_bytes_max: 150, ..Limits::default() };
    let mut house = House::with(super::super::ImSettings::default(), limits);
    let early = house.order(BlobOrder::Begin { readers: vec![], size: Some(101) });
    assert_eq!(early.unwrap_err().code, Code::TooLarge);
    let upload = house.begin(&[]).unwrap();
    house.append(upload, &image(60)).unwrap();
    assert_eq!(house.append(upload, &image(41)).unwrap_err().code, Code::TooLarge);
    assert_eq!(house.append(upload, &image(1)).unwrap_err().code, Code::NotFound, "it is over then");
    house.upload(1, &image(100), &[]);
    let upload = house.begin(&[]).unwrap();
    assert_eq!(house.append(upload, &image(51)).unwrap_err().code, Code::Quota);
    house.upload(2, &image(25), &[]);
    house.upload(3, &image(25), &[]);
    assert_eq!(house.begin(&[]).unwrap_err().code, Code::Quota);
    house.order(BlobOrder::Remove { id: id(1) }).unwrap();
    house.upload(4, &image(100), &[]);
    house.restart(0);
    house.order(BlobOrder::Remove { id: id(2) }).unwrap();
    let upload = house.begin(&[]).unwrap();
    assert_eq!(house.append(upload, &image(26)).unwrap_err().code, Code::Quota, "what was there counts after a start");
}

#[test]
fn what_is_not_whole_is_gone_with_the_next_one_and_with_a_start() {
    let mut house = House::new();
    let upload = house.begin(&["lamp"]).unwrap();
    house.append(upload, &image(3 * PIECE_BYTES)).unwrap();
    assert_eq!((upload, house.pieces(1)), (1, 3));
    let other = house.begin(&[]).unwrap();
    assert_eq!((other, house.pieces(1)), (2, 0));
    assert_eq!(house.append(upload, b"x").unwrap_err().code, Code::NotFound);
    house.append(other, &image(PIECE_BYTES)).unwrap();
    house.restart(0);
    assert_eq!(house.pieces(2), 0);
    assert_eq!(house.finish(other, 1, &[]).unwrap_err().code, Code::NotFound);
    let third = house.begin(&[]).unwrap();
    assert_eq!(third, 3, "no number is given twice");
    house.append(third, b"x").unwrap();
    house.order(BlobOrder::Abort { upload: third }).unwrap();
    assert_eq!(house.finish(third, 1, &[]).unwrap_err().code, Code::NotFound);
    assert_eq!(house.im.look_blobs(), json!({ "items": [] }));
}

#[test]
fn what_is_removed_is_gone_also_for_who_is_at_it() {
    let mut house = House::new();
    house.upload(1, &image(PIECE_BYTES), &["lamp"]);
    let board = house.board();
    let path = format!("me/blob/{}", id(1));
    house.request(("lamp", Some(board)), &path, r#"{"offset":0,"id":"r7"}"#, None).unwrap();
    house.order(BlobOrder::Remove { id: id(1) }).unwrap();
    let all = house.raw(board);
    let told: Value = serde_json::from_slice(&all[0].1).unwrap();
    assert_eq!((all.len(), &*all[0].0), (1, "im/v1/me/err"));
    assert_eq!((&told["re"], &told["code"], &told["id"]), (&json!(path), &json!("not_found"), &json!("r7")));
    assert_eq!(house.pieces(1), 0);
    assert_eq!(house.order(BlobOrder::Remove { id: id(1) }).unwrap_err().code, Code::NotFound);
    house.restart(0);
    house.upload(1, &image(10), &["lamp"]);
    let board = house.board();
    house.ask("lamp", board, &id(1), r#"{"offset":0}"#).unwrap();
    assert_eq!(house.range(board), (0, 10, image(10)));
}

#[test]
fn what_describes_a_blob_is_checked() {
    let mut house = House::new();
    let mut check = |change: fn(&mut NewBlob), code: Code| {
        let upload = house.begin(&[]).unwrap();
        house.append(upload, b"content").unwrap();
        let mut blob = NewBlob { sha256: sha(1), ..NewBlob::default() };
        change(&mut blob);
        assert_eq!(house.order(BlobOrder::Finish { upload, blob }).unwrap_err().code, code);
    };
    check(|blob| blob.name = "x".repeat(129), Code::BadRequest);
    check(|blob| blob.version = "1\n2".into(), Code::BadRequest);
    check(|blob| blob.signature = "short".into(), Code::BadRequest);
    check(|blob| blob.signature = "ä".repeat(44), Code::BadRequest);
    check(|blob| blob.readers = words(&["nobody"]), Code::NotFound);
    assert_eq!(house.begin(&["nobody"]).unwrap_err().code, Code::NotFound);
    let upload = house.begin(&[]).unwrap();
    assert_eq!(house.finish(upload, 1, &[]).unwrap_err().code, Code::BadRequest, "it is empty");
}

#[test]
fn a_row_reads_back() {
    let readers = [Reader::Account(AccountNo(3)), Reader::Members(ConvNo(300))].into();
    let (name, version) = ("app.bin".into(), "1.2.0".into());
    let blob = Blob {
        is_whole: true,
        sha256: sha(7),
        size: 1 << 40,
        name,
        version,
        signature: "s".into(),
        created_ms: 5,
        readers,
    };
    assert_eq!(Blob::decode(&blob.encode()), Ok(blob.clone()));
    for len in 0..blob.encode().len() {
        assert!(Blob::decode(&blob.encode()[..len]).is_err(), "{len}");
    }
    assert_eq!((blob.id().len(), digest(&blob.id())), (64, Some(sha(7))));
}
