//! From the tree of values to a [`Config`], collecting every problem on the way.

use super::problem::{Offence, Origin, Problem, Report};
use super::section::{Content, Range, Room, Section};
use super::tree::{Node, Table, Value, bare};
use super::url::ListenerUrl;
use super::{
    Auth, CertificateAccount, ClientCertificate, Config, DATA, HTTP_LISTEN, Http, Jwt, JwtAlgorithm, Listener, Loaded,
    Log, LogFormat, LogLevel, SlowDown, Sources, Store, Tls, WebSocket,
};
use crate::auth::{PasswordParams, SCRAM_ITERATIONS_MIN};
use parlor_core::access::{Action, Effect, Pattern, Rule, RuleError, Who, is_account_name, is_group_name};
use parlor_core::limits::{LIMITS, LimitError, Limits};
use std::net::SocketAddr;
use std::path::PathBuf;

/// Environment variables that are ours and not part of the configuration itself.
const OTHER_VARIABLES: &[&str] = &["PARLOR_CONFIG", "PARLOR_PASSWORD"];

/// Reads everything and reports all that is wrong.
pub(super) fn load(sources: &Sources, text: String) -> Result<Loaded, Report> {
    let mut problems = Vec::new();
    let mut written = Table::parse(&text, &mut problems);
    // After a syntax error the tree has holes: what is missing then would be reported wrongly.
    let broken = !problems.is_empty();
    overlay(sources, &mut written, &mut problems);
    let mut room = Room { problems, files: Vec::new(), base: sources.base().to_owned() };
    let config = config(&mut room, written);
    if !broken {
        room.check_files();
        check_whole(&mut room, &config);
    }
    let mut problems = room.problems;
    if broken {
        problems.retain(|p| matches!(p.offence, Offence::Syntax(_)));
    }
    let file = sources.file.as_ref().map(|path| path.display().to_string()).unwrap_or_default();
    let mut report = Report { file, text, problems };
    report.sort();
    if report.errors() > 0 { Err(report) } else { Ok(Loaded { config: config.0, warnings: report }) }
}

/// What nothing configured gives.
pub(super) fn defaults() -> Config {
    let mut room = Room { problems: Vec::new(), files: Vec::new(), base: PathBuf::new() };
    config(&mut room, Table::default()).0
}

/// Lays environment and flags over what the file says.
fn overlay(sources: &Sources, root: &mut Table, problems: &mut Vec<Problem>) {
    let mut listen: Option<(Origin, Vec<String>)> = None;
    for (name, value) in &sources.environment {
        if OTHER_VARIABLES.contains(&name.as_str()) {
            continue;
        }
        let origin = Origin::Environment(name.clone());
        let Some(key) = name.strip_prefix("PARLOR_") else { continue };
        let key = key.to_ascii_lowercase();
        let path: Vec<&str> = key.split("__").collect();
        match path.as_slice() {
            ["listen"] => {
                let urls = value.split([' ', ',']).filter(|url| !url.is_empty()).map(str::to_owned).collect();
                listen = Some((origin, urls));
            }
            // Programs that start others leave variables such as PARLOR_PORT or PARLOR_SERVICE_HOST: those cost a warning.
            [one] if !["data", "drain_secs"].contains(one) => {
                problems.push(Problem { origin, offence: Offence::UnknownVariable(name.clone()) });
            }
            path => root.put(path, bare(value, &origin)),
        }
    }
    for setting in &sources.settings {
        let path: Vec<&str> = setting.path.split('.').collect();
        root.put(&path, bare(&setting.value, &Origin::Flag(setting.flag.clone())));
    }
    for pair in &sources.malformed {
        let origin = Origin::Flag("--set".to_owned());
        problems.push(Problem { origin, offence: Offence::BadSetting(pair.clone()) });
    }
    if !sources.listen.is_empty() {
        listen = Some((Origin::Flag("--listen".to_owned()), sources.listen.clone()));
    }
    if let Some((origin, urls)) = listen {
        let tables = urls
            .into_iter()
            .map(|url| {
                let mut table = Table::default();
                table.put(&["url"], Node { origin: origin.clone(), value: Value::Text(url) });
                Node { origin: origin.clone(), value: Value::Table(table) }
            })
            .collect();
        root.put(&["listener"], Node { origin, value: Value::List(tables) });
    }
}

/// Top-level keys that have been read before the listeners are checked as a whole.
struct Whole(Config, Vec<Origin>);

fn config(room: &mut Room, written: Table) -> Whole {
    let mut top = Section::top(written);
    let data = top.path(room, "data").map_or_else(|| PathBuf::from(DATA), |(_, path)| path);
    let drain_secs = top.small(room, "drain_secs", 0, 3_600, 10);
    let auth = auth(room, &mut top);
    let websocket = websocket(room, &mut top);
    let tls = tls_section(room, &mut top);
    let (listeners, origins) = listeners(room, &mut top, &auth, &websocket, &tls);
    let rules = rules(room, &mut top);
    let limits = limits(room, &mut top);
    let log = log(room, &mut top);
    let http = http(room, &mut top);
    let sys_interval_secs = sys(room, &mut top);
    let store = store(room, &mut top);
    let im = super::im::read(room, &mut top);
    top.finish(room);
    let config =
        Config { data, listeners, auth, rules, limits, log, http, sys_interval_secs, store, drain_secs, websocket, im };
    Whole(config, origins)
}

fn auth(room: &mut Room, top: &mut Section) -> Auth {
    let mut auth = Auth {
        allow_anonymous: false,
        jwt: None,
        slow_down: SlowDown { free_failures: 5, first_delay_ms: 500, max_delay_secs: 60, forget_secs: 900 },
        passwords: PasswordParams::default(),
        certificate_account: CertificateAccount::CommonName,
    };
    let Some(mut section) = top.section(room, "auth") else { return auth };
    auth.allow_anonymous = section.boolean(room, "allow_anonymous").unwrap_or(false);
    let choices =
        [("common_name", CertificateAccount::CommonName), ("subject_alt_name", CertificateAccount::SubjectAltName)];
    if let Some(choice) = section.choice(room, "certificate_account", &choices) {
        auth.certificate_account = choice;
    }
    if let Some(jwt) = section.section(room, "jwt") {
        auth.jwt = self::jwt(room, jwt);
    }
    if let Some(mut slow) = section.section(room, "slow_down") {
        let default = &auth.slow_down;
        auth.slow_down = SlowDown {
            free_failures: slow.small(room, "free_failures", 0, 1_000, default.free_failures),
            first_delay_ms: slow.small(room, "first_delay_ms", 0, 60_000, default.first_delay_ms),
            max_delay_secs: slow.small(room, "max_delay_secs", 0, 86_400, default.max_delay_secs),
            forget_secs: slow.small(room, "forget_secs", 1, 604_800, default.forget_secs),
        };
        slow.finish(room);
    }
    if let Some(section) = section.section(room, "passwords") {
        auth.passwords = passwords(room, section);
    }
    section.finish(room);
    auth
}

fn passwords(room: &mut Room, mut section: Section) -> PasswordParams {
    let default = PasswordParams::default();
    let lanes = section.small(room, "lanes", 1, 16, default.lanes);
    // Argon2 wants 8 KiB a lane (RFC 9106 s3.1).
    let params = PasswordParams {
        memory_kib: section.small(room, "memory_kib", 8 * lanes, 4 << 20, default.memory_kib),
        passes: section.small(room, "passes", 1, 100, default.passes),
        lanes,
        scram_iterations: section.small(
            room,
            "scram_iterations",
            SCRAM_ITERATIONS_MIN,
            1_000_000,
            default.scram_iterations,
        ),
    };
    section.finish(room);
    params
}

fn jwt(room: &mut Room, mut section: Section) -> Option<Jwt> {
    let choices = [("EdDSA", JwtAlgorithm::EdDsa), ("RS256", JwtAlgorithm::Rs256), ("HS256", JwtAlgorithm::Hs256)];
    let algorithm_given = section.table.take("algorithm");
    section.known.push("algorithm");
    let algorithm = match algorithm_given {
        None => {
            let offence =
                Offence::Missing { table: section.title.clone(), key: "algorithm", example: "algorithm = \"EdDSA\"" };
            room.problem(&section.origin, offence);
            None
        }
        Some(node) => section
            .as_text(room, "algorithm", node)
            .and_then(|(origin, value)| section.pick(room, "algorithm", &origin, value, &choices)),
    };
    let content = algorithm.map_or(Content::Public, Content::TokenKey);
    let key_file = section.file(room, "key_file", content);
    if key_file.is_none() {
        let offence = Offence::Missing {
            table: section.title.clone(),
            key: "key_file",
            example: "key_file = \"/etc/parlor/jwt.pem\"",
        };
        room.problem(&section.origin, offence);
    }
    let issuer = section.text(room, "issuer").map(|(_, text)| text);
    let audience = section.text(room, "audience").map(|(_, text)| text);
    let account_claim = section.text(room, "account_claim").map_or_else(|| "sub".to_owned(), |(_, text)| text);
    let groups_claim = section.text(room, "groups_claim").map_or_else(|| "groups".to_owned(), |(_, text)| text);
    let leeway_secs = section.small(room, "leeway_secs", 0, 3_600, 30);
    section.finish(room);
    Some(Jwt { key_file: key_file?, algorithm: algorithm?, issuer, audience, account_claim, groups_claim, leeway_secs })
}

fn websocket(room: &mut Room, top: &mut Section) -> WebSocket {
    let mut websocket = WebSocket { path: "/mqtt".to_owned(), origins: Vec::new() };
    let Some(mut section) = top.section(room, "websocket") else { return websocket };
    if let Some((origin, path)) = section.text(room, "path") {
        if path.starts_with('/') {
            websocket.path = path;
        } else {
            room.problem(&origin, Offence::BadPath(path));
        }
    }
    websocket.origins = section.texts(room, "origins").unwrap_or_default();
    section.finish(room);
    websocket
}

/// Bytes of text in a TLS record: what fits the smallest boards, and what TLS allows (RFC 8446 s5.1).
const FRAGMENT_BYTES_MIN: u32 = 512;
const FRAGMENT_BYTES_MAX: u32 = 16_384;

/// The keys of a `tls` table, each of which a listener may set for itself.
#[derive(Clone, Default)]
struct TlsKeys {
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    client_ca: Option<PathBuf>,
    client_certificate: Option<(Origin, ClientCertificate)>,
    fragment_bytes: Option<u32>,
}

fn tls_section(room: &mut Room, parent: &mut Section) -> TlsKeys {
    let Some(mut section) = parent.section(room, "tls") else { return TlsKeys::default() };
    let choices = [
        ("none", ClientCertificate::None),
        ("optional", ClientCertificate::Optional),
        ("required", ClientCertificate::Required),
    ];
    let mut keys = TlsKeys {
        certificate: section.file(room, "certificate", Content::Public),
        key: section.file(room, "key", Content::Secret),
        client_ca: section.file(room, "client_ca", Content::Public),
        client_certificate: None,
        fragment_bytes: None,
    };
    if section.has("fragment_bytes") {
        keys.fragment_bytes =
            Some(section.small(room, "fragment_bytes", FRAGMENT_BYTES_MIN, FRAGMENT_BYTES_MAX, FRAGMENT_BYTES_MAX));
    } else {
        section.known.push("fragment_bytes");
    }
    if let Some((origin, value)) = section.text(room, "client_certificate") {
        keys.client_certificate =
            section.pick(room, "client_certificate", &origin, value, &choices).map(|choice| (origin, choice));
    }
    section.finish(room);
    keys
}

impl TlsKeys {
    fn or(self, fallback: &Self) -> Self {
        Self {
            certificate: self.certificate.or_else(|| fallback.certificate.clone()),
            key: self.key.or_else(|| fallback.key.clone()),
            client_ca: self.client_ca.or_else(|| fallback.client_ca.clone()),
            client_certificate: self.client_certificate.or_else(|| fallback.client_certificate.clone()),
            fragment_bytes: self.fragment_bytes.or(fallback.fragment_bytes),
        }
    }

    fn resolve(self, room: &mut Room, origin: &Origin, url: &ListenerUrl) -> Option<Tls> {
        for (present, key) in [(self.certificate.is_some(), "tls.certificate"), (self.key.is_some(), "tls.key")] {
            if !present {
                room.problem(origin, Offence::NeedsTls { url: url.to_string(), key });
            }
        }
        let client_certificate = match self.client_certificate {
            Some((origin, ClientCertificate::Optional | ClientCertificate::Required)) if self.client_ca.is_none() => {
                room.problem(&origin, Offence::NeedsClientCa);
                ClientCertificate::None
            }
            Some((_, choice)) => choice,
            // An authority without a word about its use means: certificates count, and are not demanded.
            None if self.client_ca.is_some() => ClientCertificate::Optional,
            None => ClientCertificate::None,
        };
        Some(Tls {
            certificate: self.certificate?,
            key: self.key?,
            client_ca: self.client_ca,
            client_certificate,
            fragment_bytes: self.fragment_bytes.unwrap_or(FRAGMENT_BYTES_MAX),
        })
    }
}

fn listeners(
    room: &mut Room,
    top: &mut Section,
    auth: &Auth,
    websocket: &WebSocket,
    tls: &TlsKeys,
) -> (Vec<Listener>, Vec<Origin>) {
    let mut found = Vec::new();
    let mut origins = Vec::new();
    let Some(sections) = top.sections(room, "listener") else {
        let url = ListenerUrl {
            transport: super::Transport::Mqtt,
            host: super::Host::Ip([127, 0, 0, 1].into()),
            port: 1883,
            path: None,
        };
        let listener = Listener {
            name: url.to_string(),
            url,
            allow_anonymous: auth.allow_anonymous,
            tls: None,
            origins: Vec::new(),
        };
        return (vec![listener], vec![Origin::Default]);
    };
    for mut section in sections {
        let url = section.text(room, "url");
        if url.is_none() && !section.table_has_problem(room) {
            let offence =
                Offence::Missing { table: section.title.clone(), key: "url", example: "url = \"mqtt://0.0.0.0:1883\"" };
            room.problem(&section.origin, offence);
        }
        let name = section.text(room, "name").map(|(_, name)| name);
        let allow_anonymous = section.boolean(room, "allow_anonymous").unwrap_or(auth.allow_anonymous);
        let own_origins = section.texts(room, "origins");
        let keys = tls_section(room, &mut section);
        section.finish(room);
        let Some((origin, url)) = url else { continue };
        let mut url = match ListenerUrl::parse(&url) {
            Ok(url) => url,
            Err(error) => {
                room.problem(&origin, Offence::BadListener { url, error });
                continue;
            }
        };
        let tls = if url.transport.is_tls() {
            let Some(tls) = keys.or(tls).resolve(room, &origin, &url) else { continue };
            Some(tls)
        } else {
            None
        };
        let mut origins_allowed = Vec::new();
        if url.transport.is_websocket() {
            url.path.get_or_insert_with(|| websocket.path.clone());
            origins_allowed = own_origins.unwrap_or_else(|| websocket.origins.clone());
        }
        let name = name.unwrap_or_else(|| url.to_string());
        found.push(Listener { name, url, allow_anonymous, tls, origins: origins_allowed });
        origins.push(origin);
    }
    (found, origins)
}

fn rules(room: &mut Room, top: &mut Section) -> Vec<Rule> {
    let sections = top.sections(room, "rule").unwrap_or_default();
    sections.into_iter().filter_map(|section| rule(room, section)).collect()
}

fn rule(room: &mut Room, mut section: Section) -> Option<Rule> {
    let before = room.problems.len();
    let mut whos = Vec::new();
    if let Some((origin, name)) = section.text(room, "account") {
        // `anonymous` is the account of clients without credentials.
        match name.as_str() {
            parlor_core::access::ANONYMOUS => whos.push(Who::Anonymous),
            name if is_account_name(name) => whos.push(Who::Account(name.to_owned())),
            _ => room.problem(&origin, Offence::BadRule { value: name, error: RuleError::AccountName }),
        }
    }
    if let Some((origin, name)) = section.text(room, "group") {
        if is_group_name(&name) {
            whos.push(Who::Group(name));
        } else {
            room.problem(&origin, Offence::BadRule { value: name, error: RuleError::GroupName });
        }
    }
    whos.extend(section.boolean(room, "everybody").filter(|yes| *yes).map(|_| Who::Everybody));
    whos.extend(section.boolean(room, "anonymous").filter(|yes| *yes).map(|_| Who::Anonymous));
    let mut effects = Vec::new();
    effects.extend(action(room, &mut section, "allow").map(|action| (Effect::Allow, action)));
    effects.extend(action(room, &mut section, "deny").map(|action| (Effect::Deny, action)));
    let pattern = section.text(room, "topic").and_then(|(origin, topic)| match Pattern::parse(&topic) {
        Ok(pattern) => Some(pattern),
        Err(error) => {
            room.problem(&origin, Offence::BadRule { value: topic, error });
            None
        }
    });
    let (origin, title) = (section.origin.clone(), section.title.clone());
    section.finish(room);
    // A key that was wrong is not also missing.
    if room.problems.len() == before {
        if whos.len() != 1 {
            let keys = "`account`, `group`, `everybody = true`, `anonymous = true`";
            room.problem(&origin, Offence::OneOf { table: title.clone(), keys, example: "group = \"sensors\"" });
        }
        if effects.len() != 1 {
            let example = "allow = [\"publish\", \"subscribe\"]";
            room.problem(&origin, Offence::OneOf { table: title.clone(), keys: "`allow`, `deny`", example });
        }
        if pattern.is_none() {
            room.problem(&origin, Offence::Missing { table: title, key: "topic", example: "topic = \"home/%a/#\"" });
        }
    }
    let (effect, action) = effects.pop()?;
    Some(Rule { who: whos.pop()?, action, effect, pattern: pattern? })
}

fn action(room: &mut Room, section: &mut Section, key: &'static str) -> Option<Action> {
    const CHOICES: &[(&str, Action)] =
        &[("publish", Action::Publish), ("subscribe", Action::Subscribe), ("all", Action::All)];
    let node = section.take(key)?;
    let nodes = match node.value {
        Value::List(list) if list.is_empty() => {
            room.problem(&node.origin, Offence::Empty(section.name(key)));
            return None;
        }
        Value::List(list) => list,
        _ => vec![node],
    };
    let mut all = None;
    for node in nodes {
        let (origin, word) = section.as_text(room, key, node)?;
        let action = section.pick(room, key, &origin, word, CHOICES)?;
        all = match all {
            None => Some(action),
            Some(before) if before == action => Some(action),
            Some(_) => Some(Action::All),
        };
    }
    all
}

fn limits(room: &mut Room, top: &mut Section) -> Limits {
    let mut limits = Limits::default();
    let Some(mut section) = top.section(room, "limits") else { return limits };
    for info in LIMITS {
        let range = Range { least: info.least, most: info.most, default: info.default };
        let value = section.number(room, info.name, range);
        let set: Result<(), LimitError> = limits.set(info.name, value);
        debug_assert_eq!(set, Ok(()), "{} was checked against its own range", info.name);
    }
    section.finish(room);
    limits
}

fn log(room: &mut Room, top: &mut Section) -> Log {
    let mut log = Log { level: LogLevel::Info, format: LogFormat::Text };
    let Some(mut section) = top.section(room, "log") else { return log };
    let levels = [
        ("off", LogLevel::Off),
        ("error", LogLevel::Error),
        ("warn", LogLevel::Warn),
        ("info", LogLevel::Info),
        ("debug", LogLevel::Debug),
        ("trace", LogLevel::Trace),
    ];
    log.level = section.choice(room, "level", &levels).unwrap_or(log.level);
    log.format =
        section.choice(room, "format", &[("text", LogFormat::Text), ("json", LogFormat::Json)]).unwrap_or(log.format);
    section.finish(room);
    log
}

fn http(room: &mut Room, top: &mut Section) -> Http {
    let mut http = Http { enabled: true, listen: HTTP_LISTEN, any_port: true, hosts: Vec::new(), connections_max: 64 };
    let Some(mut section) = top.section(room, "http") else { return http };
    http.enabled = section.boolean(room, "enabled").unwrap_or(true);
    let remote = section.boolean(room, "allow_remote").unwrap_or(false);
    if let Some((origin, value)) = section.text(room, "listen") {
        http.any_port = false;
        let value = value.strip_prefix("http://").unwrap_or(&value).trim_end_matches('/').to_owned();
        match value.replace("localhost:", "127.0.0.1:").parse::<SocketAddr>() {
            Ok(address) if !address.ip().is_loopback() && !remote => {
                room.problem(&origin, Offence::HttpNotLoopback(address.to_string()));
            }
            Ok(address) => http.listen = address,
            Err(_) => room.problem(&origin, Offence::BadAddress { key: "http.listen".to_owned(), value }),
        }
    }
    http.hosts = section.texts(room, "hosts").unwrap_or_default();
    http.connections_max = section.small(room, "connections_max", 1, 10_000, http.connections_max);
    section.finish(room);
    http
}

fn sys(room: &mut Room, top: &mut Section) -> u32 {
    let Some(mut section) = top.section(room, "sys") else { return 10 };
    let interval = section.small(room, "interval_secs", 0, 86_400, 10);
    section.finish(room);
    interval
}

fn store(room: &mut Room, top: &mut Section) -> Store {
    const SEGMENT: Range = Range { least: 1 << 20, most: 1 << 32, default: 8 << 20 };
    const CACHE: Range = Range { least: 1 << 20, most: 1 << 40, default: 4 << 20 };
    const LOW_SPACE: Range = Range { least: 1 << 20, most: 1 << 40, default: 64 << 20 };
    let mut store = Store {
        segment_bytes: SEGMENT.default,
        cache_bytes: CACHE.default,
        low_space_bytes: LOW_SPACE.default,
        salvage: false,
    };
    let Some(mut section) = top.section(room, "store") else { return store };
    store.segment_bytes = section.number(room, "segment_bytes", SEGMENT);
    store.cache_bytes = section.number(room, "cache_bytes", CACHE);
    store.low_space_bytes = section.number(room, "low_space_bytes", LOW_SPACE);
    store.salvage = section.boolean(room, "salvage").unwrap_or(false);
    section.finish(room);
    store
}

/// What only shows when everything has been read.
fn check_whole(room: &mut Room, whole: &Whole) {
    let Whole(config, origins) = whole;
    let mut seen: Vec<(String, bool, String)> = Vec::new();
    for (listener, origin) in config.listeners.iter().zip(origins) {
        let url = &listener.url;
        let address = format!("{}:{}", url.host, url.port);
        // TCP and UDP do not share their ports.
        let is_udp = url.transport.is_quic();
        match seen.iter().find(|(other, udp, _)| *other == address && *udp == is_udp) {
            Some((_, _, first)) if url.port != 0 => {
                let offence =
                    Offence::SameAddress { address: address.clone(), first: first.clone(), second: url.to_string() };
                room.problem(origin, offence);
            }
            _ => {}
        }
        seen.push((address, is_udp, url.to_string()));
        if listener.allow_anonymous && !url.is_loopback() {
            room.problem(origin, Offence::OpenToAll(url.to_string()));
        }
    }
    let http = config.http.listen.to_string();
    let is_taken = |(other, udp, _): &&(String, bool, String)| {
        *other == http && !udp && config.http.enabled && config.http.listen.port() != 0
    };
    if let Some((_, _, first)) = seen.iter().find(is_taken) {
        let offence = Offence::SameAddress { address: http.clone(), first: first.clone(), second: "[http]".to_owned() };
        room.problem(&Origin::Default, offence);
    }
    for (at, (listener, origin)) in config.listeners.iter().zip(origins).enumerate() {
        let named = listener.name != listener.url.to_string();
        if named && config.listeners[..at].iter().any(|other| other.name == listener.name) {
            room.problem(origin, Offence::SameName(listener.name.clone()));
        }
    }
}
