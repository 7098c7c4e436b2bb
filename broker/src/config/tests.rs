use super::*;

/// A directory of its own for one test, taken away at its end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("parlor-config-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn load(text: &str) -> Result<Loaded, Report> {
    read::load(&Sources { file: Some(PathBuf::from("parlor.toml")), ..Sources::default() }, text.to_owned())
}

/// What the operator reads about a file with this text: problems, or `OK` and the warnings.
#[track_caller]
fn check(text: &str, expect: &str) {
    let said = match load(text) {
        Ok(loaded) => format!("OK\n{}", loaded.warnings),
        Err(report) => report.to_string(),
    };
    assert_eq!(said.trim_end(), expect.trim_start_matches('\n').trim_end(), "\n--- said:\n{said}");
}

#[test]
fn an_empty_file_is_the_default() {
    let loaded = load("").unwrap();
    assert_eq!(loaded.config, Config::default());
    assert_eq!(loaded.warnings.problems, vec![]);
    let config = loaded.config;
    assert_eq!(config.listeners.len(), 1);
    assert_eq!(config.listeners[0].name, "mqtt://127.0.0.1:1883");
    assert!(!config.listeners[0].allow_anonymous);
    assert_eq!(config.http.listen.to_string(), "127.0.0.1:9883");
    assert_eq!(config.sys_interval_secs, 10);
}

#[test]
fn a_whole_file() {
    let scratch = Scratch::new("whole");
    for name in ["cert.pem", "key.pem", "ca.pem", "other.pem"] {
        scratch.file(name, "");
    }
    let secret = scratch.file("jwt.key", "a secret of at least thirty-two bytes\n");
    set_mode(&secret, 0o600);
    set_mode(&scratch.0.join("key.pem"), 0o600);
    let file = scratch.file(
        "parlor.toml",
        r#"
        data = "store"
        drain_secs = 3
        [[listener]]
        url = "mqtt://[::1]:1883"
        allow_anonymous = true
        [[listener]]
        name = "phones"
        url = "wss://0.0.0.0:8084"
        tls.certificate = "other.pem"
        origins = ["https://app.example"]
        [[listener]]
        name = "boards"
        url = "mqtts://0.0.0.0:8883"
        tls.fragment_bytes = 1024
        [tls]
        certificate = "cert.pem"
        key = "key.pem"
        client_ca = "/dev/null"
        fragment_bytes = 4096
        [auth]
        certificate_account = "subject_alt_name"
        [auth.jwt]
        key_file = "jwt.key"
        algorithm = "hs256"
        issuer = "home"
        [auth.slow_down]
        free_failures = 2
        [auth.passwords]
        memory_kib = 4096
        [[rule]]
        group = "sensors"
        allow = "publish"
        topic = "sensors/%a/#"
        [[rule]]
        everybody = true
        deny = ["subscribe", "publish"]
        topic = "private/+"
        [limits]
        topic_alias_max = 0x0A
        [log]
        level = "debug"
        format = "json"
        [http]
        listen = "[::1]:0"
        hosts = ["broker.lan"]
        [sys]
        interval_secs = 0
        [store]
        segment_bytes = 1_048_576
        [websocket]
        path = "/ws"
        "#,
    );
    let loaded = Sources { file: Some(file), ..Sources::default() }.load().unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(loaded.warnings.to_string(), "");
    let config = loaded.config;
    assert_eq!(config.data, scratch.0.join("store"));
    assert_eq!(config.drain_secs, 3);
    let [plain, phones, boards] = config.listeners.as_slice() else { panic!("three listeners") };
    assert!(plain.allow_anonymous && !phones.allow_anonymous);
    assert_eq!(phones.name, "phones");
    assert_eq!(phones.url.path.as_deref(), Some("/ws"));
    assert_eq!(phones.origins, vec!["https://app.example"]);
    let tls = phones.tls.as_ref().unwrap();
    assert_eq!(tls.certificate, scratch.0.join("other.pem"));
    assert_eq!(tls.key, scratch.0.join("key.pem"));
    assert_eq!(tls.client_ca.as_deref(), Some(Path::new("/dev/null")));
    assert_eq!(tls.client_certificate, ClientCertificate::Optional);
    assert_eq!(tls.fragment_bytes, 4_096);
    assert_eq!(boards.tls.as_ref().unwrap().fragment_bytes, 1_024);
    assert_eq!(config.auth.certificate_account, CertificateAccount::SubjectAltName);
    let jwt = config.auth.jwt.as_ref().unwrap();
    assert_eq!((jwt.algorithm, jwt.issuer.as_deref()), (JwtAlgorithm::Hs256, Some("home")));
    assert_eq!(config.auth.slow_down.free_failures, 2);
    assert_eq!(config.auth.slow_down.max_delay_secs, 60);
    assert_eq!((config.auth.passwords.memory_kib, config.auth.passwords.passes), (4_096, 2));
    assert_eq!(
        config.rules,
        vec![
            Rule::parse("group:sensors", "publish", "allow", "sensors/%a/#").unwrap(),
            Rule::parse("everybody", "all", "deny", "private/+").unwrap(),
        ]
    );
    assert_eq!(config.limits.topic_alias_max, 10);
    assert_eq!(config.log, Log { level: LogLevel::Debug, format: LogFormat::Json });
    assert_eq!(config.http.listen.to_string(), "[::1]:0");
    assert_eq!(config.sys_interval_secs, 0);
    assert_eq!(config.store.segment_bytes, 1 << 20);
    let summary = config.summary();
    for line in ["listener   wss://0.0.0.0:8084/ws phones", "rules      2", "limits     topic_alias_max = 10"] {
        assert!(summary.contains(line), "{line} in\n{summary}");
    }
}

fn set_mode(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn every_problem_is_shown_with_its_line() {
    check(
        "data = \"d\"\n\n[limits]\n  topic_alias_mx = 10\n[log]\ncolour = 1\n",
        "
error: parlor.toml:4:3: there is no key `topic_alias_mx` in [limits]
   |
 4 |   topic_alias_mx = 10
   |   ^^^^^^^^^^^^^^
   = did you mean `topic_alias_max`?
error: parlor.toml:6:1: there is no key `colour` in [log]
   |
 6 | colour = 1
   | ^^^^^^
   = write one of: level, format
",
    );
}

#[test]
fn wrong_types_and_ranges() {
    check(
        "drain_secs = \"10\"\n[limits]\nreceive_max = 70_000\n[log]\nlevel = \"loud\"\n[auth]\nallow_anonymous = \"yes\"\n[sys]\ninterval_secs = 1.5\n",
        "
error: parlor.toml:1:14: `drain_secs` must be a whole number, and this is a text
   |
 1 | drain_secs = \"10\"
   |              ^^^^
   = write a whole number without quotes or unit, for example 10
error: parlor.toml:3:15: `limits.receive_max` is 70000, which is outside 1 to 65535
   |
 3 | receive_max = 70_000
   |               ^^^^^^
   = write a number from 1 to 65535; without the key it is 1024
error: parlor.toml:5:9: `log.level` cannot be \"loud\"
   |
 5 | level = \"loud\"
   |         ^^^^^^
   = write one of: off, error, warn, info, debug, trace
error: parlor.toml:7:19: `auth.allow_anonymous` must be true or false, and this is a text
   |
 7 | allow_anonymous = \"yes\"
   |                   ^^^^^
   = write true or false, without quotes
error: parlor.toml:9:17: `sys.interval_secs` must be a whole number, and this is a number with a fraction
   |
 9 | interval_secs = 1.5
   |                 ^^^
   = write a whole number without quotes or unit, for example 10
",
    );
}

#[test]
fn negative_numbers_are_out_of_range() {
    check(
        "[limits]\nretained_messages_max = -1\n",
        "
error: parlor.toml:2:25: `limits.retained_messages_max` is -1, which is outside 0 to 100000000
   |
 2 | retained_messages_max = -1
   |                         ^^
   = write a number from 0 to 100000000; without the key it is 100000
",
    );
}

#[test]
fn syntax_errors_hide_what_follows_from_them() {
    let report = load("[limits]\nreceive_max = \n[log\nlevel = \"info\"\n").unwrap_err();
    assert!(report.errors() >= 2, "{report}");
    assert!(report.problems.iter().all(|p| matches!(p.offence, Offence::Syntax(_))), "{report}");
    let text = report.to_string();
    assert!(text.contains("error: parlor.toml:2:15: this is not TOML"), "{text}");
    assert!(text.contains(" 2 | receive_max = "), "{text}");
}

#[test]
fn columns_count_characters_and_tabs_stay_tabs() {
    check(
        "[[rule]]\n\ttopic = \"häuser/#/x\"\neverybody = true\nallow = \"all\"\n",
        "
error: parlor.toml:2:10: `häuser/#/x` in a rule: '+' must be a whole level and '#' the whole last level: write \"a/+/b\" or \"a/#\"
   |
 2 | \ttopic = \"häuser/#/x\"
   | \t        ^^^^^^^^^^^^
   = + stands for one whole level, # for the rest; %a is the account, %t the client identifier
",
    );
}

#[test]
fn listeners_are_checked() {
    check(
        "[[listener]]\nurl = \"127.0.0.1:1883\"\n[[listener]]\nurl = \"mqtts://127.0.0.1\"\n[[listener]]\nname = \"x\"\n",
        "
error: parlor.toml:2:7: `127.0.0.1:1883` is not the address of a listener: it does not say which protocol
   |
 2 | url = \"127.0.0.1:1883\"
   |       ^^^^^^^^^^^^^^^^
   = write mqtt://, mqtts://, ws://, wss://, mqtt+quic://, parlor://, parlor+tcp:// or parlor+tls://, for example mqtt://127.0.0.1:1883
error: parlor.toml:4:7: the listener mqtts://127.0.0.1:8883 speaks TLS and has no `tls.certificate`
   |
 4 | url = \"mqtts://127.0.0.1\"
   |       ^^^^^^^^^^^^^^^^^^^
   = write tls.certificate = \"/path/to/file.pem\" in the file, or --set tls.certificate=/path/to/file.pem
error: parlor.toml:4:7: the listener mqtts://127.0.0.1:8883 speaks TLS and has no `tls.key`
   |
 4 | url = \"mqtts://127.0.0.1\"
   |       ^^^^^^^^^^^^^^^^^^^
   = write tls.key = \"/path/to/file.pem\" in the file, or --set tls.key=/path/to/file.pem
error: parlor.toml:5:1: [[listener]] has no `url`
   |
 5 | [[listener]]
   | ^^^^^^^^^^^^
   = write for example url = \"mqtt://0.0.0.0:1883\"
",
    );
}

#[test]
fn two_listeners_cannot_share_an_address() {
    check(
        "[[listener]]\nurl = \"mqtt://127.0.0.1\"\nname = \"a\"\n[[listener]]\nurl = \"ws://127.0.0.1:1883\"\nname = \"a\"\n",
        "
error: parlor.toml:5:7: 127.0.0.1:1883 is used twice: by mqtt://127.0.0.1:1883 and by ws://127.0.0.1:1883/mqtt
   |
 5 | url = \"ws://127.0.0.1:1883\"
   |       ^^^^^^^^^^^^^^^^^^^^^
   = give one of them another port
error: parlor.toml:5:7: two listeners are called \"a\"
   |
 5 | url = \"ws://127.0.0.1:1883\"
   |       ^^^^^^^^^^^^^^^^^^^^^
   = give one of them another name, or none
",
    );
    check("[[listener]]\nurl = \"mqtt://127.0.0.1:0\"\n[[listener]]\nurl = \"mqtt://127.0.0.1:0\"\n", "OK");
    let keys = "certificate = \"c\"\nkey = \"k\"\n";
    let quic = format!(
        "[[listener]]\nurl = \"mqtt+quic://127.0.0.1\"\n[[listener]]\nurl = \"parlor://127.0.0.1\"\n[tls]\n{keys}"
    );
    let report = load(&quic).unwrap_err().to_string();
    assert!(report.contains("used twice") && report.contains("MQTT and native links alike"), "{report}");
    let both = format!(
        "[[listener]]\nurl = \"mqtt://127.0.0.1:14567\"\n[[listener]]\nurl = \"parlor://127.0.0.1\"\n[tls]\n{keys}"
    );
    let report = load(&both).unwrap_err().to_string();
    assert!(!report.contains("used twice"), "{report}");
    check(
        "[[listener]]\nurl = \"mqtt://127.0.0.1:9883\"\n",
        "
error: 127.0.0.1:9883 is used twice: by mqtt://127.0.0.1:9883 and by [http]
   = give one of them another port
",
    );
}

#[test]
fn what_is_legal_and_worth_a_look() {
    check(
        "[auth]\nallow_anonymous = true\n[[listener]]\nurl = \"mqtt://0.0.0.0\"\n",
        "
OK
warning: parlor.toml:4:7: the listener mqtt://0.0.0.0:1883 lets anybody on the network in without a password
   |
 4 | url = \"mqtt://0.0.0.0\"
   |       ^^^^^^^^^^^^^^^^
   = set allow_anonymous = false and make accounts with `parlor account add`, or keep it if that is meant
",
    );
}

#[test]
fn the_operators_door_stays_on_loopback() {
    check(
        "[http]\nlisten = \"0.0.0.0:9883\"\n",
        "
error: parlor.toml:2:10: the operator's HTTP listener 0.0.0.0:9883 can be reached from the network
   |
 2 | listen = \"0.0.0.0:9883\"
   |          ^^^^^^^^^^^^^^
   = write 127.0.0.1 and reach it through a tunnel or a proxy; or, if it is meant, allow_remote = true in [http]
",
    );
    check("[http]\nlisten = \"0.0.0.0:9883\"\nallow_remote = true\n", "OK");
    check(
        "[http]\nlisten = \"9883\"\n",
        "
error: parlor.toml:2:10: `http.listen` = \"9883\" is not an address
   |
 2 | listen = \"9883\"
   |          ^^^^^^
   = write an IP address and a port, for example \"127.0.0.1:9883\" or \"[::1]:9883\"
",
    );
}

#[test]
fn messaging_is_on_and_home_assistant_is_not() {
    let im = |text: &str| load(text).unwrap().config.im;
    assert_eq!(im(""), Im { enabled: true, home_assistant: None });
    assert_eq!(im("im.enabled = false"), Im { enabled: false, home_assistant: None });
    assert_eq!(im("im.home_assistant = true").home_assistant.as_deref(), Some("homeassistant"));
    let other = "[im]\nhome_assistant = true\nhome_assistant_prefix = \"ha/house\"\n";
    assert_eq!(im(other).home_assistant.as_deref(), Some("ha/house"));
    assert_eq!(im("im.home_assistant_prefix = \"ha\"").home_assistant, None);
    check(
        "[im]\nhome_assistant_prefix = \"im/x\"\nenable = true\n",
        "
error: parlor.toml:2:25: \"im/x\" cannot be what topics begin with
   |
 2 | home_assistant_prefix = \"im/x\"
   |                         ^^^^^^
   = write levels with slashes between, without + and #, not below im and not beginning with $: \"homeassistant\"
error: parlor.toml:3:1: there is no key `enable` in [im]
   |
 3 | enable = true
   | ^^^^^^
   = did you mean `enabled`?
",
    );
    for bad in ["+", "a/#", "a//b", "/a", "a/", "$SYS", "im"] {
        assert!(load(&format!("im.home_assistant_prefix = \"{bad}\"")).is_err(), "{bad}");
    }
    let running = load("").unwrap().config;
    assert_eq!(load("im.enabled = false").unwrap().config.needs_restart(&running), ["im"]);
}

#[test]
fn rules_name_one_subject_and_one_effect() {
    check(
        "[[rule]]\naccount = \"Alice\"\nallow = \"publish\"\ntopic = \"%x\"\n",
        "
error: parlor.toml:2:11: `Alice` in a rule: not an account name: write 1 to 32 of a-z, 0-9, '.', '_' and '-', beginning with a letter or digit
   |
 2 | account = \"Alice\"
   |           ^^^^^^^
   = `parlor account list` shows the accounts and their groups
error: parlor.toml:4:9: `%x` in a rule: '%' must be followed by 'a' (account) or 't' (client identifier): write \"%%\" for a percent sign
   |
 4 | topic = \"%x\"
   |         ^^^^
   = + stands for one whole level, # for the rest; %a is the account, %t the client identifier
",
    );
    check(
        "[[rule]]\naccount = \"a\"\ngroup = \"g\"\nallow = \"publish\"\ndeny = \"publish\"\n",
        "
error: parlor.toml:1:1: [[rule]] needs exactly one of `account`, `group`, `everybody = true`, `anonymous = true`
   |
 1 | [[rule]]
   | ^^^^^^^^
   = write for example group = \"sensors\"
error: parlor.toml:1:1: [[rule]] needs exactly one of `allow`, `deny`
   |
 1 | [[rule]]
   | ^^^^^^^^
   = write for example allow = [\"publish\", \"subscribe\"]
error: parlor.toml:1:1: [[rule]] has no `topic`
   |
 1 | [[rule]]
   | ^^^^^^^^
   = write for example topic = \"home/%a/#\"
",
    );
    check(
        "[[rule]]\neverybody = true\nallow = [\"read\"]\ntopic = \"a\"\n",
        "
error: parlor.toml:3:10: `rule.allow` cannot be \"read\"
   |
 3 | allow = [\"read\"]
   |          ^^^^^^
   = write one of: publish, subscribe, all
",
    );
}

#[test]
fn files_are_looked_at() {
    let scratch = Scratch::new("files");
    let key = scratch.file("key.pem", "");
    set_mode(&key, 0o644);
    let certificate = scratch.file("cert.pem", "");
    set_mode(&certificate, 0o644);
    let file = scratch.file(
        "parlor.toml",
        "[tls]\ncertificate = \"cert.pem\"\nkey = \"key.pem\"\nclient_ca = \"none.pem\"\nclient_certificate = \"required\"\n",
    );
    let report = Sources { file: Some(file.clone()), ..Sources::default() }.load().unwrap_err();
    let shown = file.display();
    let expect = format!(
        "warning: {shown}:3:7: `tls.key`: every user of this machine can read {} (mode 0644)
   |
 3 | key = \"key.pem\"
   |       ^^^^^^^^^
   = run: chmod o-rwx {}
error: {shown}:4:13: `tls.client_ca`: cannot open {}: No such file or directory (os error 2)
   |
 4 | client_ca = \"none.pem\"
   |             ^^^^^^^^^^
   = check the path (a relative one in a file counts from that file) and that the broker's user may read it
",
        key.display(),
        key.display(),
        scratch.0.join("none.pem").display()
    );
    assert_eq!(report.to_string(), expect);
    assert_eq!(report.errors(), 1);
}

#[test]
fn client_certificates_need_an_authority() {
    check(
        "[tls]\ncertificate = \"/dev/null\"\nkey = \"/dev/null\"\nclient_certificate = \"required\"\n[[listener]]\nurl = \"mqtts://127.0.0.1\"\n[store]\ncache_bytes=0\n",
        "
warning: parlor.toml:3:7: `tls.key`: every user of this machine can read /dev/null (mode 0666)
   |
 3 | key = \"/dev/null\"
   |       ^^^^^^^^^^^
   = run: chmod o-rwx /dev/null
error: parlor.toml:4:22: client certificates cannot be checked without `tls.client_ca`
   |
 4 | client_certificate = \"required\"
   |                      ^^^^^^^^^^
   = write tls.client_ca = \"/path/to/ca.pem\", or client_certificate = \"none\"
error: parlor.toml:8:13: `store.cache_bytes` is 0, which is outside 1048576 to 1099511627776
   |
 8 | cache_bytes=0
   |             ^
   = write a number from 1048576 to 1099511627776; without the key it is 4194304
",
    );
}

#[test]
fn tokens_need_an_algorithm_and_a_key() {
    check(
        "[auth.jwt]\nisuer = \"x\"\n",
        "
error: parlor.toml:1:1: [auth.jwt] has no `algorithm`
   |
 1 | [auth.jwt]
   | ^^^^^^^^^^
   = write for example algorithm = \"EdDSA\"
error: parlor.toml:1:1: [auth.jwt] has no `key_file`
   |
 1 | [auth.jwt]
   | ^^^^^^^^^^
   = write for example key_file = \"/etc/parlor/jwt.pem\"
error: parlor.toml:2:1: there is no key `isuer` in [auth.jwt]
   |
 2 | isuer = \"x\"
   | ^^^^^
   = did you mean `issuer`?
",
    );
}

#[test]
fn key_files_are_read() {
    let scratch = Scratch::new("keys");
    let key = scratch.file("jwt.key", "short");
    set_mode(&key, 0o640);
    let file = scratch.file("parlor.toml", "[auth.jwt]\nkey_file = \"jwt.key\"\nalgorithm = \"HS256\"\n");
    let report = Sources { file: Some(file), ..Sources::default() }.load().unwrap_err().to_string();
    assert!(report.contains("parlor.toml:2:12: ") && report.contains("the HS256 secret is too short"), "{report}");
}

#[test]
fn a_missing_file_is_said_plainly() {
    let sources = Sources { file: Some("/no/such/parlor.toml".into()), ..Sources::default() };
    assert_eq!(
        sources.load().unwrap_err().to_string(),
        "error: cannot read the configuration file /no/such/parlor.toml: No such file or directory (os error 2)\n   = check the path, or start from docs/parlor.example.toml\n"
    );
}

/// What file, environment and flags give together.
fn layered(text: &str, environment: &[(&str, &str)], flags: impl FnOnce(&mut Sources)) -> Result<Loaded, Report> {
    let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let mut sources = Sources { file: Some(PathBuf::from("parlor.toml")), environment, ..Sources::default() };
    flags(&mut sources);
    read::load(&sources, text.to_owned())
}

#[test]
fn flags_beat_environment_beats_file_beats_default() {
    let text = "data = \"file\"\n[limits]\nreceive_max = 1\nin_flight_max = 1\ntopic_alias_max = 1\n";
    let environment = [
        ("PARLOR_LIMITS__IN_FLIGHT_MAX", "2"),
        ("PARLOR_LIMITS__TOPIC_ALIAS_MAX", "2"),
        ("PARLOR_LOG__FORMAT", "json"),
        ("PARLOR_AUTH__ALLOW_ANONYMOUS", "true"),
        ("PARLOR_WEBSOCKET__ORIGINS", "https://a.example, https://b.example"),
    ];
    let loaded = layered(text, &environment, |sources| {
        sources.set_pair("limits.topic_alias_max=3");
        sources.set_pair("rule=[{everybody=true, allow=\"all\", topic=\"#\"}]");
        sources.set("--data", "data", "flag");
        sources.set("--allow-anonymous", "auth.allow_anonymous", "true");
    });
    let config = loaded.unwrap_or_else(|e| panic!("{e}")).config;
    let limits = &config.limits;
    assert_eq!((limits.receive_max, limits.in_flight_max, limits.topic_alias_max), (1, 2, 3));
    assert_eq!(limits.sessions_max, Limits::default().sessions_max);
    assert_eq!(config.data, PathBuf::from("flag"));
    assert_eq!(config.log.format, LogFormat::Json);
    assert!(config.auth.allow_anonymous);
    assert_eq!(config.websocket.origins, vec!["https://a.example", "https://b.example"]);
    assert_eq!(config.rules.len(), 1);
}

#[test]
fn listen_replaces_what_the_file_says() {
    let text = "[[listener]]\nurl = \"mqtt://127.0.0.1:1\"\n";
    let urls = |loaded: Result<Loaded, Report>| {
        let config = loaded.unwrap_or_else(|e| panic!("{e}")).config;
        config.listeners.iter().map(|l| l.url.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(urls(layered(text, &[], |_| ())), ["mqtt://127.0.0.1:1"]);
    let environment = [("PARLOR_LISTEN", "mqtt://127.0.0.1:2 ws://127.0.0.1:3")];
    assert_eq!(urls(layered(text, &environment, |_| ())), ["mqtt://127.0.0.1:2", "ws://127.0.0.1:3/mqtt"]);
    let listen =
        |sources: &mut Sources| sources.listen = vec!["mqtt://[::1]:0".to_owned(), "ws://[::1]:0/x".to_owned()];
    assert_eq!(urls(layered(text, &environment, listen)), ["mqtt://[::1]:0", "ws://[::1]:0/x"]);
}

#[test]
fn problems_of_environment_and_flags_say_where_they_are() {
    let environment = [
        ("PARLOR_LIMITS__RECEIVE_MAX", "many"),
        ("PARLOR_LIMITS__RECIEVE_MAX", "1"),
        ("PARLOR_SERVICE_HOST", "10.0.0.1"),
    ];
    let report = layered("", &environment, |sources| {
        sources.set_pair("log.level=loud");
        sources.set_pair("nonsense");
        sources.listen = vec!["mqtt://*".to_owned()];
    });
    assert_eq!(
        report.unwrap_err().to_string(),
        "warning: environment variable PARLOR_SERVICE_HOST: the environment variable PARLOR_SERVICE_HOST sets nothing
   = write PARLOR_SECTION__KEY=value, for example PARLOR_LIMITS__CONNECTIONS_MAX=1000, or ignore this
error: environment variable PARLOR_LIMITS__RECEIVE_MAX: `limits.receive_max` must be a whole number, and this is a text
   = write a whole number without quotes or unit, for example 10
error: environment variable PARLOR_LIMITS__RECIEVE_MAX: there is no key `recieve_max` in [limits]
   = did you mean `receive_max`?
error: --set: `--set nonsense` is not of the form key=value
   = write for example --set limits.topic_alias_max=10
error: --listen: `mqtt://*` is not the address of a listener: `*` is not a host
   = write 127.0.0.1 for this machine only, 0.0.0.0 for every IPv4 address, [::] for every address
error: --set log.level=loud: `log.level` cannot be \"loud\"
   = write one of: off, error, warn, info, debug, trace
"
    );
}

#[test]
fn what_a_reload_cannot_change_is_named() {
    let running = Config::default();
    let mut new = running.clone();
    new.limits.receive_max = 7;
    new.log.level = LogLevel::Debug;
    assert!(new.needs_restart(&running).is_empty());
    new.data = "elsewhere".into();
    new.listeners.clear();
    assert_eq!(new.needs_restart(&running), ["data", "listener"]);
}

const EXAMPLE: &str = include_str!("../../../docs/parlor.example.toml");

#[test]
fn the_example_is_the_default_and_shows_every_limit() {
    assert_eq!(load(EXAMPLE).unwrap().config, Config::default());
    let (_, limits) = EXAMPLE.split_once("#[limits]").unwrap();
    for info in LIMITS {
        let shown = limits.lines().find_map(|line| line.strip_prefix(&format!("#{} = ", info.name)));
        let shown = shown.unwrap_or_else(|| panic!("{} is not in docs/parlor.example.toml", info.name));
        assert_eq!(shown.replace('_', "").parse(), Ok(info.default), "{}", info.name);
    }
}

#[test]
fn the_stores_defaults_are_the_stores_own() {
    let (ours, theirs) = (Config::default().store, crate::store::Options::default());
    assert_eq!(
        (ours.segment_bytes, ours.cache_bytes, ours.low_space_bytes, ours.salvage),
        (theirs.segment_bytes, theirs.cache_bytes as u64, theirs.low_space_bytes, theirs.salvage)
    );
}

#[test]
fn every_line_of_the_example_is_legal() {
    let is_shown = |line: &str| line.starts_with("#[") || line.starts_with('#') && !line.starts_with("# ");
    let all: String =
        EXAMPLE.lines().filter(|line| is_shown(line) && *line != "#").flat_map(|line| [&line[1..], "\n"]).collect();
    // The files it names exist on nobody's machine but the operator's.
    let report = load(&all).unwrap_err();
    let all_files = report.problems.iter().all(|problem| matches!(problem.offence, Offence::FileUnreadable { .. }));
    assert!(all_files, "{report}");
    // Listeners, certificates, tokens and rules are examples; everything else is shown with its default.
    let example = |section: &str| ["[", "tls]", "auth.jwt]"].iter().any(|name| section.starts_with(name));
    let rest: Vec<&str> = all.split("\n[").filter(|section| !example(section)).collect();
    let mut rest = load(&rest.join("\n[")).unwrap_or_else(|report| panic!("{report}"));
    // Who writes the address down means this one.
    assert!(!std::mem::replace(&mut rest.config.http.any_port, true));
    assert_eq!(rest.config, Config::default());
}
