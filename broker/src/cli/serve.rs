//! `parlor serve`, `parlor demo` and `parlor check-config`.

use super::demo_tls::{DemoTls, DemoTlsError};
use super::im::household;
use super::{CheckArgs, Engine, Exit, ServeArgs, complain};
use crate::admin::AccountKind;
use crate::config::{Config, DATA, ListenerUrl, Loaded, Report, Sources, Transport};
use crate::log;
use std::fmt::Write as _;
use std::io::{self, ErrorKind, Write as _};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::Path;
use std::thread;

/// Everything a broker needs to start.
pub struct Start {
    /// The configuration, checked.
    pub config: Config,
    /// Where it came from, to read it again on reload.
    pub sources: Sources,
    /// Accounts to make before the first listener opens, where they do not exist yet.
    pub accounts: Vec<SeedAccount>,
    /// To be called once when every listener is open.
    pub on_ready: Box<dyn FnOnce(&Ready) + Send>,
}

/// An account that is made at the start of a demo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeedAccount {
    /// Its name.
    pub name: &'static str,
    /// Its password; not a secret, everybody can read it here.
    pub password: &'static str,
    /// Groups it is in.
    pub groups: &'static [&'static str],
    /// What kind of account it is.
    pub kind: AccountKind,
}

/// What is open when a broker has started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ready {
    /// For each listener, in the order of the configuration: the addresses it got.
    pub listeners: Vec<Vec<SocketAddr>>,
    /// Address of the operator's HTTP listener.
    pub http: Option<SocketAddr>,
}

/// Where the demo listens when nothing else is said.
const DEMO_LISTEN: [&str; 4] =
    ["mqtt://127.0.0.1:1883", "ws://127.0.0.1:8083/mqtt", "mqtt+quic://127.0.0.1:14567", "parlor+tcp://127.0.0.1:1884"];

/// Password of the demo's accounts. They can be used from this machine only.
pub(super) const DEMO_PASSWORD: &str = "parlor-demo";

/// The accounts of the demo.
pub(super) const DEMO_ACCOUNTS: &[SeedAccount] = &[
    SeedAccount { name: "alice", password: DEMO_PASSWORD, groups: &["people"], kind: AccountKind::Person },
    SeedAccount { name: "bob", password: DEMO_PASSWORD, groups: &["people"], kind: AccountKind::Person },
    SeedAccount { name: "lamp", password: DEMO_PASSWORD, groups: &["devices"], kind: AccountKind::Device },
    SeedAccount { name: "thermo1", password: DEMO_PASSWORD, groups: &["devices"], kind: AccountKind::Device },
];

/// Runs the broker.
pub(super) fn serve(engine: &dyn Engine, sources: Sources) -> Exit {
    let config = match load(&sources) {
        Ok(config) => config,
        Err(exit) => return exit,
    };
    log::start(&config.log);
    run(engine, Start { config, sources, accounts: Vec::new(), on_ready: Box::new(|_| ()) })
}

/// Runs a broker to try things with.
pub(super) fn demo(engine: &dyn Engine, args: &ServeArgs, environment: Vec<(String, String)>) -> Exit {
    let mut sources = args.clone().sources(environment);
    if sources.file.is_none() && sources.listen.is_empty() {
        sources.listen = DEMO_LISTEN.map(str::to_owned).to_vec();
    }
    if args.log_level.is_none() {
        // A demo's reader wants to see what to type next, not each start and stop.
        sources.set("demo", "log.level", "warn");
    }
    let tls = match own_certificates(&mut sources) {
        Ok(tls) => tls,
        Err(error) => {
            complain(&error);
            return Exit::Failed;
        }
    };
    let config = match load(&sources) {
        Ok(config) => config,
        Err(exit) => return exit,
    };
    if let Some(open) = config.listeners.iter().find(|listener| !listener.url.is_loopback()) {
        complain(&format_args!(
            "the demo's passwords are known to everybody, so it listens on this machine only, not on {}; \
             use `parlor serve` and `parlor account add`",
            open.url
        ));
        return Exit::Usage;
    }
    if let Some(taken) = taken(&config) {
        complain(&taken);
        return Exit::Failed;
    }
    log::start(&config.log);
    let shown = config.clone();
    let on_ready = Box::new(move |ready: &Ready| furnish(&shown, tls, ready.clone()));
    run(engine, Start { config, sources, accounts: DEMO_ACCOUNTS.to_vec(), on_ready })
}

/// Gives listeners that need a certificate one of the demo's own, unless the operator has given one.
fn own_certificates(sources: &mut Sources) -> Result<Option<DemoTls>, DemoTlsError> {
    let needs = |url: &String| ListenerUrl::parse(url).is_ok_and(|url| url.transport.is_tls());
    let has_own = |name: &str| sources.settings.iter().any(|setting| setting.path == name);
    if sources.file.is_some() || has_own("tls.certificate") || !sources.listen.iter().any(needs) {
        return Ok(None);
    }
    let flag = sources.settings.iter().rev().find(|setting| setting.path == "data").map(|setting| &setting.value);
    let variable = sources.environment.iter().find(|(name, _)| name == "PARLOR_DATA").map(|(_, value)| value);
    let data = flag.or(variable).map_or(DATA, String::as_str);
    let files = DemoTls::in_directory(Path::new(data))?;
    sources.set("demo", "tls.certificate", &files.certificate.display().to_string());
    sources.set("demo", "tls.key", &files.key.display().to_string());
    Ok(Some(files))
}

/// Sets the household up and lets its devices live, on a thread of their own: the broker must go on meanwhile.
fn furnish(config: &Config, tls: Option<DemoTls>, ready: Ready) {
    let config = config.clone();
    let furnish = move || {
        household::live(mqtt_address(&config, &ready), |error| {
            if let Some(error) = error {
                complain(&format_args!("the demo's household is not complete: {error}"));
            }
            print!("{}", next_steps(&config, tls.as_ref(), &ready));
            let _ = io::stdout().flush();
        });
    };
    if let Err(error) = thread::Builder::new().name("household".to_owned()).spawn(furnish) {
        complain(&format_args!("the demo has no devices, because the system gives no thread: {error}"));
    }
}

/// Where MQTT over TCP is listened for.
fn mqtt_address(config: &Config, ready: &Ready) -> Option<SocketAddr> {
    let mut all = config.listeners.iter().zip(&ready.listeners);
    let (_, addresses) = all.find(|(listener, _)| listener.url.transport == Transport::Mqtt)?;
    addresses.first().copied()
}

fn run(engine: &dyn Engine, start: Start) -> Exit {
    match engine.run(start) {
        Ok(()) => Exit::Done,
        Err(error) => {
            complain(&error);
            Exit::Failed
        }
    }
}

/// Reads the configuration; prints warnings, or everything that is wrong.
fn load(sources: &Sources) -> Result<Config, Exit> {
    match sources.load() {
        Ok(Loaded { config, warnings }) => {
            eprint!("{warnings}");
            Ok(config)
        }
        Err(report) => Err(misconfigured(&report)),
    }
}

/// Prints everything that is wrong.
pub(super) fn misconfigured(report: &Report) -> Exit {
    eprint!("{report}");
    match report.errors() {
        1 => complain(&"1 error in the configuration"),
        n => complain(&format_args!("{n} errors in the configuration")),
    }
    Exit::Usage
}

/// Checks a configuration file.
pub(super) fn check_config(args: CheckArgs, environment: Vec<(String, String)>) -> Exit {
    let mut sources = Sources { file: Some(args.file), environment, ..Sources::default() };
    for pair in &args.set {
        sources.set_pair(pair);
    }
    match load(&sources) {
        Ok(config) => {
            print!("OK\n{}", config.summary());
            Exit::Done
        }
        Err(exit) => exit,
    }
}

/// Says which port of the configuration is taken, and what to do.
fn taken(config: &Config) -> Option<String> {
    let http = (config.http.enabled && !config.http.any_port).then_some(config.http.listen);
    let listeners = config.listeners.iter().map(|listener| (listener.url.to_string(), listener.url.addresses().ok()));
    for (what, addresses) in listeners.chain([(String::from("http"), http.map(|address| vec![address]))]) {
        for address in addresses.into_iter().flatten().filter(|address| address.port() != 0) {
            let is_udp = ListenerUrl::parse(&what).is_ok_and(|url| url.transport.is_quic());
            let bound = if is_udp { UdpSocket::bind(address).map(drop) } else { TcpListener::bind(address).map(drop) };
            if bound.is_err_and(|error| error.kind() == ErrorKind::AddrInUse) {
                let way_out = match what.as_str() {
                    "http" => "--http 127.0.0.1:0".to_owned(),
                    _ => "--listen mqtt://127.0.0.1:1884 --listen ws://127.0.0.1:8084/mqtt".to_owned(),
                };
                return Some(format!(
                    "port {} is taken by another program, perhaps another broker (`ss -lntup` shows which)\n\
                     stop that one, or choose another port: parlor demo {way_out}",
                    address.port()
                ));
            }
        }
    }
    None
}

/// What a visitor reads when the demo is up.
fn next_steps(config: &Config, tls: Option<&DemoTls>, ready: &Ready) -> String {
    let mut out = String::new();
    let _ = writeln!(out, "Parlor {} is up, on this machine only. Ctrl-C ends it.\n", env!("CARGO_PKG_VERSION"));
    for (listener, addresses) in config.listeners.iter().zip(&ready.listeners) {
        for address in addresses {
            let path = listener.url.path.as_deref().unwrap_or_default();
            let _ = writeln!(out, "  {:9} {}://{address}{path}", "listener", listener.url.transport.scheme());
        }
    }
    if let Some(http) = ready.http {
        let _ = writeln!(out, "  {:9} http://{http}/metrics", "metrics");
    }
    let _ = writeln!(out, "  {:9} {}", "data", config.data.display());
    let names: Vec<&str> = DEMO_ACCOUNTS.iter().map(|account| account.name).collect();
    let _ = writeln!(out, "  {:9} {}; the password of each is {DEMO_PASSWORD}", "accounts", names.join(", "));
    if let Some(tls) = tls {
        let _ = writeln!(out, "  {:9} {} (what clients trust: --ca)", "authority", tls.ca.display());
    }
    let Some(address) = mqtt_address(config, ready) else { return out };
    let host = match address.ip() {
        ip if ip.is_unspecified() => "127.0.0.1".to_owned(),
        ip => ip.to_string(),
    };
    let (port, url) = match address.port() {
        1883 => (String::new(), String::new()),
        port => (format!(" -p {port}"), format!(" --url mqtt://{address}")),
    };
    let _ = write!(
        out,
        "
In it: the household g-home with alice (its owner), bob, a lamp and a thermostat (thermo1). Type next, in other terminals:

  parlor chat --demo alice{url}
  parlor cmd --demo alice{url} lamp set on=true level=40
  parlor send --demo bob{url} thermo1 21
  parlor watch --demo bob{url}

The same with any MQTT client:

  mosquitto_sub -h {host}{port} -V 5 -i phone -u bob -P {DEMO_PASSWORD} -q 1 -v -t 'im/v1/me/in/#'
  mosquitto_pub -h {host}{port} -u alice -P {DEMO_PASSWORD} -q 1 -t im/v1/to/g-home/msg -m 'dinner is ready'
  mosquitto_pub -h {host}{port} -u alice -P {DEMO_PASSWORD} -q 1 -t im/v1/to/lamp/msg -m on
  mosquitto_rr -h {host}{port} -V 5 -u alice -P {DEMO_PASSWORD} -t im/v1/to/thermo1/cmd/set -e im/v1/me/res/a -m '{{\"target\":21}}'
  mosquitto_sub -h {host}{port} -u alice -P {DEMO_PASSWORD} -v -t 'im/v1/presence/+' -t 'im/v1/state/+'

{over_quic}Topics outside im/ are ordinary publish and subscribe. Pull the plug: what was acknowledged waits for who was away.

  mosquitto_sub -h {host}{port} -u bob -P {DEMO_PASSWORD} -i bob-phone -c -q 1 -t 'home/#' -E
  mosquitto_pub -h {host}{port} -u lamp -P {DEMO_PASSWORD} -t home/lamp/state -m on -q 1
  (end the demo, start it again)
  mosquitto_sub -h {host}{port} -u bob -P {DEMO_PASSWORD} -i bob-phone -c -q 1 -t 'home/#' -v

Look inside:

  parlor status --data {data}
  parlor session list --data {data}
",
        over_quic = over_quic(config, tls, ready),
        data = config.data.display()
    );
    out
}

/// What to type to do the same over QUIC.
fn over_quic(config: &Config, tls: Option<&DemoTls>, ready: &Ready) -> String {
    let mut all = config.listeners.iter().zip(&ready.listeners);
    let quic = all.find(|(listener, _)| listener.url.transport.is_quic()).and_then(|(_, addresses)| addresses.first());
    let (Some(tls), Some(quic)) = (tls, quic) else { return String::new() };
    let ca = tls.ca.display();
    format!(
        "Over QUIC, as MQTT and as the native link; both move with you to another network:

  parlor chat --demo alice --ca {ca} --url mqtt+quic://{quic}
  parlor chat --demo bob --ca {ca} --url parlor://{quic}

"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_demo_says_what_to_type_with_the_ports_it_got() {
        let sources =
            Sources { listen: vec!["ws://127.0.0.1:0/mqtt".into(), "mqtt://127.0.0.1:0".into()], ..Sources::default() };
        let config = sources.load().unwrap().config;
        let ready = Ready {
            listeners: vec![vec!["127.0.0.1:40001".parse().unwrap()], vec!["127.0.0.1:40002".parse().unwrap()]],
            http: Some("127.0.0.1:40003".parse().unwrap()),
        };
        let text = next_steps(&config, None, &ready);
        for line in [
            "listener  ws://127.0.0.1:40001/mqtt\n",
            "listener  mqtt://127.0.0.1:40002\n",
            "metrics   http://127.0.0.1:40003/metrics\n",
            "accounts  alice, bob, lamp, thermo1; the password of each is parlor-demo\n",
            "mosquitto_sub -h 127.0.0.1 -p 40002 -u bob -P parlor-demo -i bob-phone -c -q 1 -t 'home/#' -v\n",
            "parlor chat --demo alice --url mqtt://127.0.0.1:40002\n",
            "mosquitto_rr -h 127.0.0.1 -p 40002 -V 5 -u alice -P parlor-demo -t im/v1/to/thermo1/cmd/set -e im/v1/me/res/a -m '{\"target\":21}'\n",
        ] {
            assert!(text.contains(line), "{line} in\n{text}");
        }
    }

    #[test]
    fn a_taken_port_is_named_with_a_way_out() {
        let holder = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = holder.local_addr().unwrap().port();
        let listen = |url: String| {
            let mut sources = Sources { listen: vec![url], ..Sources::default() };
            sources.set("--http", "http.enabled", "false");
            sources.load().unwrap().config
        };
        let text = taken(&listen(format!("mqtt://127.0.0.1:{port}"))).unwrap();
        assert!(text.contains(&format!("port {port} is taken")) && text.contains("parlor demo --listen"), "{text}");
        assert_eq!(taken(&listen("mqtt://127.0.0.1:0".into())), None);
    }
}
