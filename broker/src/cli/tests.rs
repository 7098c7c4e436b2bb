//! Command lines and how they end, with an engine that is made up.

use super::*;
use crate::admin::tests::House;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

type Stored = Rc<RefCell<BTreeMap<String, Vec<u8>>>>;

/// Remembers what it was started with, and keeps accounts in memory.
#[derive(Default)]
struct Fake {
    started: RefCell<Vec<Start>>,
    fails: bool,
    stored: Stored,
}

impl Engine for Fake {
    fn run(&self, start: Start) -> Result<(), Box<dyn Error>> {
        self.started.borrow_mut().push(start);
        if self.fails { Err("no".into()) } else { Ok(()) }
    }

    fn open(&self, _: &Path) -> Result<Box<dyn Offline>, Box<dyn Error>> {
        if self.fails {
            return Err("no".into());
        }
        Ok(Box::new(FakeStore(Rc::clone(&self.stored))))
    }
}

struct FakeStore(Stored);

impl Offline for FakeStore {
    fn accounts(&mut self) -> Result<Vec<(String, Vec<u8>)>, Box<dyn Error>> {
        Ok(self.0.borrow().iter().map(|(name, record)| (name.clone(), record.clone())).collect())
    }

    fn put_account(&mut self, name: &str, record: &[u8]) -> Result<(), Box<dyn Error>> {
        self.0.borrow_mut().insert(name.to_owned(), record.to_vec());
        Ok(())
    }

    fn remove_account(&mut self, name: &str) -> Result<bool, Box<dyn Error>> {
        Ok(self.0.borrow_mut().remove(name).is_some())
    }

    fn backup(&mut self, to: &mut dyn Write) -> Result<(), Box<dyn Error>> {
        Ok(to.write_all(b"all there is")?)
    }

    fn restore(&mut self, from: &mut dyn Read) -> Result<(), Box<dyn Error>> {
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes)?;
        self.0.borrow_mut().insert("restored".to_owned(), bytes);
        Ok(())
    }
}

fn ends(engine: &Fake, line: &str, environment: &[(&str, &str)]) -> Exit {
    let words = std::iter::once("parlor").chain(line.split_whitespace()).map(OsString::from);
    let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    run(engine, words, environment)
}

#[track_caller]
fn check(line: &str, expect: Exit) {
    assert_eq!(ends(&Fake::default(), line, &[]), expect, "parlor {line}");
}

#[test]
fn the_command_line_is_well_formed() {
    use clap::CommandFactory;
    Cli::command().debug_assert();
}

#[test]
fn exit_codes_say_how_it_ended() {
    check("version", Exit::Done);
    check("--version", Exit::Done);
    check("--help", Exit::Done);
    check("serve --help", Exit::Done);
    check("", Exit::Usage);
    check("srve", Exit::Usage);
    check("serve --listen", Exit::Usage);
    check("serve --no-such-flag", Exit::Usage);
    check("serve --config /no/such/file", Exit::Usage);
    check("serve --listen 127.0.0.1", Exit::Usage);
    check("serve --set limits.receive_max=0", Exit::Usage);
    check("serve --set nonsense", Exit::Usage);
    check("check-config /no/such/file", Exit::Usage);
    check("status --data /no/such/directory", Exit::NotRunning);
    check("reload --data /no/such/directory", Exit::NotRunning);
    check("session list --data /no/such/directory", Exit::NotRunning);
    check("account remove nobody --data /no/such/directory", Exit::Failed);
    check("account add Nobody --data /no/such/directory", Exit::Usage);
    check("account add g-home --data /no/such/directory", Exit::Usage);
    check("account add lamp --kind device --data /no/such/directory", Exit::NotRunning);
    check("account add lamp --name Lamp --data /no/such/directory", Exit::NotRunning);
    check("account token lamp --data /no/such/directory", Exit::NotRunning);
    check("blob list --data /no/such/directory", Exit::NotRunning);
    check("blob remove 63f3 --data /no/such/directory", Exit::NotRunning);
    check("blob put /no/such/file --version 1 --data /no/such/directory", Exit::Failed);
    check("blob put /dev/null --version 1 --data /no/such/directory", Exit::NotRunning);
    check("blob put /dev/null --data /no/such/directory", Exit::Usage);
    check("blob key /no/such/directory/key.pem", Exit::Failed);
    check("restore /no/such/file --yes --data /no/such/directory", Exit::Failed);
    let fails = Fake { fails: true, ..Fake::default() };
    assert_eq!(ends(&fails, "serve", &[]), Exit::Failed);
    assert_eq!(ends(&fails, "account list --data /no/such/directory", &[]), Exit::Failed);
}

#[test]
fn serve_runs_from_flags_alone() {
    let engine = Fake::default();
    let line = "serve --listen mqtt://127.0.0.1:1883 --listen ws://127.0.0.1:8083/mqtt --data DIR --allow-anonymous \
                --set limits.topic_alias_max=10 --log-level debug --http off";
    assert_eq!(ends(&engine, line, &[("PARLOR_LIMITS__RECEIVE_MAX", "9")]), Exit::Done);
    let started = engine.started.borrow();
    let config = &started[0].config;
    let urls: Vec<String> = config.listeners.iter().map(|listener| listener.url.to_string()).collect();
    assert_eq!(urls, ["mqtt://127.0.0.1:1883", "ws://127.0.0.1:8083/mqtt"]);
    assert!(config.listeners.iter().all(|listener| listener.allow_anonymous));
    assert_eq!(config.data, PathBuf::from("DIR"));
    assert_eq!((config.limits.topic_alias_max, config.limits.receive_max), (10, 9));
    assert!(!config.http.enabled);
    assert!(started[0].accounts.is_empty());
    assert_eq!(started[0].sources.load().unwrap().config, *config);
}

#[test]
fn the_configuration_file_may_be_named_by_the_environment() {
    let engine = Fake::default();
    assert_eq!(ends(&engine, "serve", &[("PARLOR_CONFIG", "/no/such/file")]), Exit::Usage);
    assert_eq!(ends(&engine, "serve --http 127.0.0.1:0", &[("PARLOR_CONFIG", "")]), Exit::Done);
    assert_eq!(engine.started.borrow()[0].config.http.listen.port(), 0);
}

#[test]
fn a_demo_stays_on_this_machine_and_has_accounts() {
    let engine = Fake::default();
    assert_eq!(ends(&engine, "demo --listen mqtt://127.0.0.1:0 --http 127.0.0.1:0 --data DIR", &[]), Exit::Done);
    assert_eq!(ends(&engine, "demo --listen mqtt://0.0.0.0:0 --http 127.0.0.1:0", &[]), Exit::Usage);
    let started = engine.started.borrow();
    let names: Vec<&str> = started[0].accounts.iter().map(|account| account.name).collect();
    assert_eq!((started.len(), names), (1, vec!["alice", "bob", "lamp", "thermo1"]));
    let passwords_are_accepted =
        started[0].accounts.iter().all(|a| crate::admin::accounts::check_password(a.password).is_ok());
    assert!(passwords_are_accepted);
}

#[test]
fn the_stopped_brokers_store_is_used_directly() {
    let engine = Fake::default();
    let directory = std::env::temp_dir().join(format!("parlor-cli-{}", std::process::id()));
    std::fs::create_dir_all(directory.join("data")).unwrap();
    let data = directory.join("data").display().to_string();
    let record = crate::auth::AccountRecord { groups: vec!["devices".into()], ..Default::default() }.encode();
    engine.stored.borrow_mut().insert("lamp".into(), record);
    assert_eq!(ends(&engine, &format!("account list --data {data}"), &[]), Exit::Done);
    assert_eq!(ends(&engine, &format!("account add lamp --data {data}"), &[]), Exit::NoSuch);
    assert_eq!(ends(&engine, &format!("account rm lamp --data {data}"), &[]), Exit::Done);
    assert_eq!(ends(&engine, &format!("account rm lamp --data {data}"), &[]), Exit::NoSuch);
    let file = directory.join("backup");
    let line = format!("backup {} --data {data}", file.display());
    assert_eq!(ends(&engine, &line, &[]), Exit::Done);
    assert_eq!(std::fs::read(&file).unwrap(), b"all there is");
    assert_eq!(ends(&engine, &line, &[]), Exit::Failed, "an existing file is never replaced");
    assert_eq!(ends(&engine, &format!("restore --yes {} --data {data}", file.display()), &[]), Exit::Done);
    assert_eq!(engine.stored.borrow()["restored"], b"all there is");
    std::fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn the_running_broker_is_asked() {
    let house = House::new("cli");
    let engine = Fake { fails: true, ..Fake::default() };
    let data = house.data.display().to_string();
    let check =
        |line: &str, expect: Exit| assert_eq!(ends(&engine, &format!("{line} --data {data}"), &[]), expect, "{line}");
    check("status", Exit::Done);
    check("status --json", Exit::Done);
    check("account list", Exit::Done);
    check("account remove nobody", Exit::NoSuch);
    check("account token lamp --ttl 15m -g guests", Exit::Done);
    check("account token nobody", Exit::NoSuch);
    check("account token off", Exit::Failed);
    check("account token lamp --ttl 31d", Exit::Usage);
    check("account add lamp --kind robot", Exit::Usage);
    check("session list --json --account alice", Exit::Done);
    check("session show a/b", Exit::Done);
    check("session show none", Exit::NoSuch);
    house.seen();
    check("session kick a --forget", Exit::Done);
    check("session kick none", Exit::NoSuch);
    assert_eq!(house.seen(), ["kick a Forget", "kick none Disconnect"]);
    let file = house.data.join("backup");
    check(&format!("backup {}", file.display()), Exit::Done);
    assert_eq!(std::fs::metadata(&file).unwrap().len(), 200_000);
    check(&format!("restore --yes {}", file.display()), Exit::Done);
    // Its configuration file is missing, so it cannot be read again.
    check("reload", Exit::Failed);
    std::fs::write(house.data.join("admin.token"), "0".repeat(64)).unwrap();
    check("status", Exit::Failed);
}
