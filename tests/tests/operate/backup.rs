//! Backup and restore, with the broker running and without, while others publish.

use super::tools::*;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Names and groups of the accounts, as the command line lists them.
fn accounts(broker: &Broker) -> String {
    on(broker, &["account", "list"]).ends(0).out
}

/// Publishes numbered messages at QoS 1 to `topic` until told to stop; `acknowledged` counts.
struct Publisher {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
    thread: std::thread::JoinHandle<()>,
}

impl Publisher {
    fn start(broker: &Broker, topic: &'static str) -> Self {
        let (stop, acknowledged) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, counted) = (Arc::clone(&stop), Arc::clone(&acknowledged));
        let mut client = Connect::v5(topic).to(broker);
        let (first, started) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            for number in 0_u64.. {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                assert_eq!(client.say(1 + u8::from(number % 7 == 0), topic, number.to_string()), 0);
                counted.store(number + 1, Ordering::SeqCst);
                if number == 50 {
                    let _ = first.send(());
                }
            }
        });
        started.recv_timeout(PATIENCE).expect("it publishes");
        Self { stop, acknowledged, thread }
    }

    fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::SeqCst)
    }

    fn end(self) {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.join().expect("every message was acknowledged");
    }
}

/// Everything the backup must hold, made before it.
fn fill(broker: &Broker) {
    broker.add_account("alice", "alices-password");
    broker.add_account("lamp", "the-lamps-password");
    for (topic, name) in [("q/a", "queue-a"), ("q/b", "queue-b")] {
        let mut away = Connect::v5(name).persistent().to(broker);
        away.subscribe(topic, 2);
        away.subscribe("never/+/used", 1);
        away.disconnect();
    }
    let mut publisher = Connect::v5("retainer").to(broker);
    for number in 0..20 {
        let kept = Publish::new(&format!("kept/{number}"), number.to_string()).qos(1, 0).retain();
        assert!(publisher.deliver(&kept.with(prop::content_type("text/plain"))) < 0x80);
    }
    publisher.disconnect();
}

/// Looks at what came back: at least what was acknowledged before the backup began, in order and without a hole.
fn check(broker: &Broker, acknowledged: [u64; 2]) {
    for ((name, topic), least) in [("queue-a", "q/a"), ("queue-b", "q/b")].into_iter().zip(acknowledged) {
        let seen = Operator::of(broker).see(&format!("/sessions/{name}"));
        assert_eq!(seen["subscriptions"], 2);
        let queued = seen["queue_messages"].as_u64().expect("a number");
        assert!(queued >= least, "{name}: {queued} of {least}");
        let mut client = Connect::v5(name).persistent().to(broker);
        assert!(client.connack.present);
        for number in 0..queued {
            let message = client.message();
            assert_eq!((message.topic.as_str(), message.text()), (topic, number.to_string().as_str()));
        }
        client.quiet();
        client.disconnect();
    }
    let mut reader = Connect::v5("reader").to(broker);
    reader.subscribe("kept/#", 1);
    let mut kept: Vec<u64> = reader.texts(20).iter().map(|text| text.parse().expect("a number")).collect();
    kept.sort_unstable();
    assert_eq!(kept, (0..20).collect::<Vec<_>>());
    reader.disconnect();
    Connect::v5("login").username("alice").password("alices-password").to(broker).disconnect();
}

fn restore(broker: &Broker, file: &Path) -> Said {
    on(broker, &["restore", "--yes", &file.display().to_string()])
}

/// A backup taken while others publish holds all that was acknowledged before it began; it restores into the broker that
/// runs, over what happened since, and into one that does not.
#[test]
fn a_backup_under_load_comes_back_whole() {
    let broker = Broker::start(&[]);
    fill(&broker);
    let publishers = [Publisher::start(&broker, "q/a"), Publisher::start(&broker, "q/b")];
    let dir = Dir::new();
    let file = dir.path("parlor-backup");
    let acknowledged = [publishers[0].acknowledged(), publishers[1].acknowledged()];
    on(&broker, &["backup", &file.display().to_string()]).ends(0).complains("bytes backed up");
    publishers.into_iter().for_each(Publisher::end);
    let mode = std::fs::metadata(&file).expect("a file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "there are password hashes in it");
    on(&broker, &["backup", &file.display().to_string()]).ends(1).complains("exists already");

    // What happened since is gone after the restore.
    on(&broker, &["account", "remove", "alice"]).ends(0);
    Connect::v5("later").persistent().to(&broker).disconnect();
    let mut there = Connect::v5("there").to(&broker);
    assert!(there.deliver(&Publish::new("kept/1", "changed").qos(1, 0).retain()) < 0x80);
    restore(&broker, &file).ends(0).complains("bytes read").complains("restored").complains("store.replaced");
    there.closed();
    assert_eq!(accounts(&broker), "alice\nlamp\n");
    assert_eq!(Operator::of(&broker).ask("GET", "/sessions/later", "").status, 404);
    check(&broker, acknowledged);
    // The store before is kept until somebody has looked at it.
    restore(&broker, &file).ends(1).complains("store.replaced");
    Connect::v5("still-there").to(&broker).quiet();
    std::fs::remove_dir_all(broker.data().join("store.replaced")).expect("it was kept");

    let mut other = Broker::start(&[]);
    Connect::v5("forgotten").persistent().to(&other).disconnect();
    assert!(other.stop().success());
    restore(&other, &file).ends(0);
    other.start_again();
    assert_eq!(accounts(&other), "alice\nlamp\n");
    assert_eq!(Operator::of(&other).ask("GET", "/sessions/forgotten", "").status, 404);
    check(&other, acknowledged);

    // And a backup of the stopped one is as good.
    assert!(other.stop().success());
    let second = dir.path("second");
    on(&other, &["backup", &second.display().to_string()]).ends(0);
    restore(&broker, &second).ends(0);
    assert_eq!(accounts(&broker), "alice\nlamp\n");
}

/// A damaged backup, half a backup and something else are refused, and the store is untouched.
#[test]
fn a_damaged_backup_is_refused() {
    let mut broker = Broker::start(&[]);
    fill(&broker);
    let mut publisher = Connect::v5("publisher").to(&broker);
    for number in 0..10 {
        assert_eq!(publisher.say(1, "q/a", number.to_string()), 0);
        assert_eq!(publisher.say(1, "q/b", number.to_string()), 0);
    }
    let dir = Dir::new();
    on(&broker, &["backup", &dir.name("good")]).ends(0);
    let good = std::fs::read(dir.path("good")).expect("a file");
    let mut damaged = good.clone();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    let files = [
        dir.put("damaged", &damaged),
        dir.put("half", &good[..good.len() / 2]),
        dir.put("longer", [good.as_slice(), b"x"].concat()),
        dir.put("other", "this is no backup"),
        dir.put("empty", ""),
    ];
    for file in &files {
        let said = restore(&broker, file).ends(1);
        assert!(said.err.len() > 20, "it says why: {said:?}");
    }
    assert!(!broker.data().join("store.restoring").exists() && !broker.data().join("store.replaced").exists());
    assert!(!broker.data().join("restore.upload").exists());
    let said = parlor_in(&["restore", "--data", &broker.data().display().to_string(), &dir.name("good")], "no\n", &[]);
    said.ends(1).complains("nothing was changed");
    assert!(broker.stop().success());
    for file in &files {
        restore(&broker, file).ends(1);
    }
    broker.start_again();
    assert_eq!(accounts(&broker), "alice\nlamp\n");
    check(&broker, [10, 10]);
}
