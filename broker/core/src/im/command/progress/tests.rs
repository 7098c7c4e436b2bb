use super::super::house::House;
use crate::hub::Now;
use serde_json::{Value, json};

/// A running command with a lamp that reports and phones that watch: one is sent its mailbox, the other is not.
fn running() -> (House, u32, [u32; 2]) {
    let mut house = House::new();
    let lamp = house.lamp();
    let phones = [house.connect("alice", "phone", &["im/v1/me/#"]), house.connect("alice", "tab", &["im/v1/me/res/+"])];
    house.say("alice", "to/lamp/cmd/set", r#"{"args":1,"id":"c1"}"#).unwrap();
    house.drain(lamp);
    house.say("lamp", "me/cmdres/c1", r#"{"state":"running","text":"0 %"}"#).unwrap();
    for phone in phones {
        assert_eq!(house.results(phone).last().unwrap().payload["text"], "0 %");
    }
    (house, lamp, phones)
}

fn report(house: &mut House, progress: u32) {
    let payload = format!(r#"{{"state":"running","result":{{"progress":{progress}}}}}"#);
    house.say("lamp", "me/cmdres/c1", &payload).unwrap();
}

#[test]
fn of_what_a_running_device_says_the_latest_is_passed_on_once_a_second() {
    let (mut house, _, phones) = running();
    let entries = house.told("c1");
    for progress in 1..=9 {
        report(&mut house, progress);
        report(&mut house, progress);
    }
    assert!(phones.iter().all(|phone| house.results(*phone).is_empty()), "not within a second");
    house.pass(1_000);
    for phone in phones {
        let got = house.results(phone);
        assert_eq!(
            (got.len(), &got[0].payload["result"]),
            (1, &json!({"progress": 9})),
            "the latest, without another word"
        );
        assert_eq!((&got[0].payload["state"], got[0].payload.get("pos")), (&json!("running"), None));
    }
    house.pass(2_000);
    report(&mut house, 9);
    assert!(house.results(phones[0]).is_empty(), "that was told");
    report(&mut house, 10);
    assert_eq!(house.results(phones[0])[0].payload["result"]["progress"], 10);
    assert_eq!(house.told("c1"), entries, "no entry of a mailbox is made for it");
}

#[test]
fn of_progress_that_nobody_has_read_only_the_latest_is_sent_and_none_behind_the_outcome() {
    let (mut house, _, phones) = running();
    for progress in 1..=3 {
        house.pass(1_000);
        report(&mut house, progress);
    }
    let got = house.results(phones[1]);
    assert_eq!((got.len(), &got[0].payload["result"]["progress"]), (1, &json!(3)));
    house.pass(1_000);
    report(&mut house, 4);
    report(&mut house, 5);
    house.say("lamp", "me/cmdres/c1", r#"{"state":"done","result":{"ok":true}}"#).unwrap();
    house.pass(3_000);
    for phone in phones {
        let states: Vec<Value> = house.results(phone).into_iter().map(|got| got.payload["state"].clone()).collect();
        assert_eq!(states, ["done"]);
    }
}

#[test]
fn progress_waits_until_it_is_on_disk_that_the_command_runs() {
    let mut house = House::new();
    let (lamp, tab) = (house.lamp(), house.connect("alice", "tab", &["im/v1/me/res/+"]));
    house.say("alice", "to/lamp/cmd/set", r#"{"args":1,"id":"c1"}"#).unwrap();
    house.drain(lamp);
    house.results(tab);
    // The disk takes its time: nothing is committed between these.
    house.request(("lamp", None), "me/cmdres/c1", "running", None).unwrap();
    house.request(("lamp", None), "me/cmdres/c1", r#"{"state":"running","result":1}"#, None).unwrap();
    house.now = Now { ms: house.now.ms + 1_500, wall_ms: house.now.wall_ms + 1_500 };
    house.im.tick(house.now);
    assert!(house.results(tab).is_empty());
    house.commit();
    house.pass(1_000);
    let got = house.results(tab);
    assert_eq!(got.last().unwrap().payload["result"], 1);
}

#[test]
fn a_restart_forgets_how_far_a_command_was_and_hears_it_again() {
    let (mut house, _, _) = running();
    house.pass(1_000);
    report(&mut house, 40);
    house.restart(0);
    let tab = house.connect("alice", "tab", &["im/v1/me/res/+"]);
    house.lamp();
    house.pass(1_000);
    report(&mut house, 50);
    house.pass(1_000);
    assert_eq!(house.results(tab).last().unwrap().payload["result"]["progress"], 50);
}
