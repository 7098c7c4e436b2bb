use super::super::fixture::{Ca, Dir, client, client_config, server_files};
use super::super::tls_config::{ClientAuth, TlsFiles};
use super::*;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConnection, StreamOwned};
use std::io::{Read, Write};
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;

const PATIENCE: Duration = Duration::from_secs(20);

/// A TLS listener on a thread of its own, as in the broker.
struct Server {
    address: SocketAddr,
    tls: ReloadableTls,
    links: Option<mpsc::Receiver<NewConnection>>,
    events: Receiver<TlsAcceptEvent>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Server {
    fn start(files: TlsFiles, change: impl FnOnce(&mut TlsAcceptOptions)) -> Self {
        let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let (tell, events) = channel();
        let tell = std::sync::Mutex::new(tell);
        let mut options = TlsAcceptOptions {
            listener: 3,
            websocket: None,
            connect_timeout: PATIENCE,
            handshakes_max: 1000,
            report: Arc::new(move |event| {
                // A test that has seen enough does not listen any more.
                let _ = tell.lock().unwrap().send(event);
            }),
        };
        change(&mut options);
        let tls = ReloadableTls::load(files).unwrap();
        let (out, links) = mpsc::channel(16);
        let theirs = tls.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(serve_tls(listener, theirs, watch::channel(options).1, out))
        });
        Self { address, tls, links: Some(links), events, thread: Some(thread) }
    }

    fn next(&mut self) -> NewLink {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let links = self.links.as_mut().unwrap();
        match runtime.block_on(async { timeout(PATIENCE, links.recv()).await }).unwrap().unwrap() {
            NewConnection::Socket(link) => link,
            NewConnection::Quic(_) => panic!("not over TCP"),
        }
    }

    fn event(&self) -> TlsAcceptEvent {
        self.events.recv_timeout(PATIENCE).unwrap()
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // With nobody to hand links to, the listener ends.
        self.links = None;
        let ended = self.thread.take().unwrap().join();
        if !std::thread::panicking() {
            ended.unwrap().unwrap();
        }
    }
}

fn shake(
    server: &Server,
    ca: &Ca,
    version: &'static rustls::SupportedProtocolVersion,
) -> StreamOwned<ClientConnection, TcpStream> {
    let mut stream = StreamOwned::new(client(client_config(ca, None, &[version])), server.connect());
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock).unwrap();
    }
    stream
}

/// Has the link echo what it was sent first, and the client hear it.
fn echo(link: &mut NewLink, client: &mut StreamOwned<ClientConnection, TcpStream>) {
    link.stream.set_nonblocking(false).unwrap();
    client.write_all(b"hello").unwrap();
    client.flush().unwrap();
    let mut heard = std::mem::take(&mut link.early);
    let mut wire = Vec::new();
    while heard.len() < 5 {
        let mut buffer = [0; 1000];
        let read = link.stream.read(&mut buffer).unwrap();
        assert!(read > 0);
        link.layer.receive(&buffer[..read], &mut heard, &mut wire).unwrap();
    }
    assert_eq!(heard, b"hello");
    link.layer.send(&heard, &mut wire).unwrap();
    link.stream.write_all(&wire).unwrap();
    let mut back = [0; 5];
    client.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"hello");
}

#[test]
fn a_finished_handshake_is_handed_over() {
    let (dir, ca) = (Dir::new(), Ca::new("ca"));
    let mut server = Server::start(server_files(&dir, &ca), |_| {});
    for version in [&TLS12, &TLS13] {
        let mut client = shake(&server, &ca, version);
        let mut link = server.next();
        assert_eq!(link.peer, client.sock.local_addr().unwrap());
        assert_eq!((link.listener, &link.certificate), (3, &None));
        assert!(link.layer.is_ready() && !link.layer.is_plain());
        assert!(link.deadline > std::time::Instant::now());
        // The socket does not block.
        assert_eq!(link.stream.read(&mut [0; 1]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        echo(&mut link, &mut client);
    }
}

#[test]
fn the_certificate_and_early_bytes_come_with_the_link() {
    let (dir, ca) = (Dir::new(), Ca::new("ca"));
    let files = TlsFiles {
        client_auth: ClientAuth::Optional,
        client_ca: Some(dir.put("ca.pem", &ca.certificate)),
        ..server_files(&dir, &ca)
    };
    let mut server = Server::start(files, |_| {});
    let own = ca.issue("lamp");
    let mut connection = client(client_config(&ca, Some(&own), &[&TLS13]));
    connection.writer().write_all(b"CONNECT").unwrap();
    let mut socket = server.connect();
    while connection.is_handshaking() || connection.wants_write() {
        connection.complete_io(&mut socket).unwrap();
    }
    let mut link = server.next();
    assert!(link.certificate.is_some_and(|der| der.starts_with(&[0x30, 0x82])));
    let mut heard = link.early;
    link.stream.set_nonblocking(false).unwrap();
    while heard.len() < 7 {
        let mut buffer = [0; 1000];
        let read = link.stream.read(&mut buffer).unwrap();
        assert!(read > 0);
        link.layer.receive(&buffer[..read], &mut heard, &mut Vec::new()).unwrap();
    }
    assert_eq!(heard, b"CONNECT");
}

#[test]
fn secure_websocket_is_handed_over_with_its_upgrade_to_come() {
    let (dir, ca) = (Dir::new(), Ca::new("ca"));
    let mut server =
        Server::start(TlsFiles { alpn: vec!["http/1.1".to_owned()], ..server_files(&dir, &ca) }, |options| {
            options.websocket = Some(Arc::default());
        });
    let client = shake(&server, &ca, &TLS13);
    let link = server.next();
    assert!(matches!(link.layer, Layer::SecureWebSocket(..)));
    assert!(link.layer.tls().unwrap().is_ready() && !link.layer.is_ready());
    drop(client);
}

#[test]
fn silent_peers_do_not_stop_others() {
    let (dir, ca) = (Dir::new(), Ca::new("ca"));
    let mut server = Server::start(server_files(&dir, &ca), |_| {});
    let silent: Vec<_> = (0..100)
        .map(|number| {
            let mut stream = server.connect();
            if number % 2 == 0 {
                stream.write_all(&[22, 3, 1, 2, 0, 1]).unwrap();
            }
            stream
        })
        .collect();
    let mut client = shake(&server, &ca, &TLS13);
    let mut link = server.next();
    echo(&mut link, &mut client);
    assert!(server.events.try_recv().is_err(), "nobody was refused");
    drop(silent);
}

#[test]
fn when_places_are_taken_the_silent_lose_theirs() {
    let (dir, ca) = (Dir::new(), Ca::new("ca"));
    let mut server = Server::start(server_files(&dir, &ca), |options| options.handshakes_max = 4);
    let silent: Vec<_> = (0..4).map(|_| server.connect()).collect();
    let mut client = shake(&server, &ca, &TLS13);
    let mut link = server.next();
    echo(&mut link, &mut client);
    let TlsAcceptEvent::Displaced { peer } = server.event() else { panic!("nobody displaced") };
    assert_eq!(peer, silent[0].local_addr().unwrap(), "the oldest");
    assert_eq!((&silent[0]).read(&mut [0; 1]).unwrap(), 0, "it is closed");
}

#[test]
fn a_handshake_has_a_deadline() {
    let (dir, ca) = (Dir::new(), Ca::new("ca"));
    let server = Server::start(server_files(&dir, &ca), |options| options.connect_timeout = Duration::from_millis(50));
    let mut silent = server.connect();
    assert!(matches!(server.event(), TlsAcceptEvent::Late { peer } if peer == silent.local_addr().unwrap()));
    assert_eq!(silent.read(&mut [0; 1]).unwrap(), 0);
}

#[test]
fn a_full_queue_holds_links_no_longer_than_their_deadline() {
    let (dir, ca) = (Dir::new(), Ca::new("ca"));
    let server = Server::start(server_files(&dir, &ca), |options| options.connect_timeout = Duration::from_secs(3));
    // The queue has 16 places, and nobody takes from it.
    let clients: Vec<_> = (0..17).map(|_| shake(&server, &ca, &TLS13)).collect();
    assert!(matches!(server.event(), TlsAcceptEvent::Late { .. }));
    drop(clients);
}

#[test]
fn offenders_and_those_who_leave_are_reported() {
    let (dir, ca) = (Dir::new(), Ca::new("ca"));
    let mut server = Server::start(server_files(&dir, &ca), |_| {});
    let mut http = server.connect();
    http.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    assert!(matches!(server.event(), TlsAcceptEvent::Refused { .. }));
    let mut answer = Vec::new();
    http.read_to_end(&mut answer).unwrap();
    assert_eq!(answer.first(), Some(&21), "an alert record");
    drop(server.connect());
    assert_eq!(server.event().label(), "tls_gone");
    let mut client = shake(&server, &ca, &TLS13);
    let mut link = server.next();
    echo(&mut link, &mut client);
}

#[test]
fn a_reload_leaves_links_alone_and_serves_new_ones() {
    let (dir, old_ca, new_ca) = (Dir::new(), Ca::new("old"), Ca::new("new"));
    let mut server = Server::start(server_files(&dir, &old_ca), |_| {});
    let mut old_client = shake(&server, &old_ca, &TLS13);
    let mut old_link = server.next();
    server_files(&dir, &new_ca);
    server.tls.reload().unwrap();
    let mut new_client = shake(&server, &new_ca, &TLS13);
    let mut new_link = server.next();
    echo(&mut new_link, &mut new_client);
    echo(&mut old_link, &mut old_client);
}

#[test]
fn a_taken_port_is_said_to_be_taken() {
    let first = bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = first.local_addr().unwrap();
    let error = bind(address).unwrap_err();
    assert!(matches!(error, BindError::Taken { .. }));
    assert!(error.to_string().contains(&address.to_string()), "{error}");
    // 192.0.2.0/24 belongs to documents, and to no machine.
    assert!(matches!(bind("192.0.2.1:0".parse().unwrap()), Err(BindError::NotHere { .. })));
}

#[test]
fn both_families_listen_on_one_port() {
    // Somebody else may hold the port in the other family; among several that is not so.
    let pair = (0..20).find_map(|_| {
        let six = bind("[::1]:0".parse().unwrap()).ok()?;
        let port = six.local_addr().unwrap().port();
        Some((six, bind(SocketAddr::from(([127, 0, 0, 1], port))).ok()?))
    });
    // A machine without IPv6 has nothing to show here.
    let Some((six, four)) = pair else { return };
    assert!(socket2::SockRef::from(&six).only_v6().unwrap());
    assert_eq!(four.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
}

#[test]
fn accept_rests_only_when_the_machine_is_out_of_something() {
    let check = |kind: io::ErrorKind, rests: bool| {
        assert_eq!(accept_pause(&io::Error::from(kind)).is_some(), rests, "{kind:?}");
    };
    check(io::ErrorKind::ConnectionAborted, false);
    check(io::ErrorKind::Interrupted, false);
    check(io::ErrorKind::OutOfMemory, true);
    // EMFILE: no file descriptors left.
    assert!(accept_pause(&io::Error::from_raw_os_error(24)).is_some());
}
