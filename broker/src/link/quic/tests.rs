use super::super::fixture::{Ca, Dir, client_config, server_files};
use super::super::tls_config::{Carrier, TlsFiles};
use super::accept::Door;
use super::endpoint::Loop;
use super::*;
use crate::link::{NewConnection, ReloadableTls};
use quinn::crypto::rustls::QuicClientConfig;
use quinn_proto::{ConnectionError, ConnectionIdGenerator};
use rustls::version::TLS13;
use std::future::poll_fn;
use std::io::ErrorKind;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::task::Poll;
use tokio::io::ReadBuf;
use tokio::sync::{mpsc, oneshot, watch};

const PATIENCE: Duration = Duration::from_secs(20);
/// No packet goes out at the first try.
const ALL: usize = 1;
/// More than all windows together.
const MUCH: usize = 3 * 1024 * 1024;

#[test]
fn an_identifier_is_known_by_a_later_run_with_the_same_key_and_no_other() {
    let ids = |byte| HashedConnectionIdGenerator::from_key(ResetKey::new(&[byte; ResetKey::BYTES]).ids);
    let id = ids(1).generate_cid();
    assert!(ids(1).validate(&id).is_ok());
    assert!(ids(2).validate(&id).is_err());
}

/// An endpoint whose socket has no room every so many sends, a client of it, and what becomes of `work` with both.
async fn with_endpoint<F: Future<Output = ()>>(
    fails_every: usize,
    work: impl FnOnce(quinn::Connection, mpsc::Receiver<NewConnection>) -> F,
) {
    let (dir, ca) = (Dir::new(), Ca::new("ca"));
    let tls = ReloadableTls::load(TlsFiles { carrier: Carrier::Quic, ..server_files(&dir, &ca) }).unwrap();
    let (out, links) = mpsc::channel(4);
    let options = QuicOptions {
        listener: 0,
        connect_timeout: PATIENCE,
        handshakes_max: 8,
        retry_above: 8,
        streams_max: 4,
        asks_certificate: false,
        report: Arc::new(|event| panic!("{event:?}")),
    };
    let socket = bind_udp("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = socket.local_addr().unwrap();
    let (end, mut ended) = oneshot::channel::<()>();
    // Two threads, as in the broker.
    let server = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let door = Door::new(tls, watch::channel(options).1, out).unwrap();
            let mut endpoint = Loop::new(socket, endpoint_config(&ResetKey::new(&[1; 64])), door).unwrap();
            endpoint.road().udp.fails_every.store(fails_every, Ordering::SeqCst);
            poll_fn(|cx| {
                if Pin::new(&mut ended).poll(cx).is_ready() {
                    return Poll::Ready(());
                }
                let polled = endpoint.poll(cx).map(|never| match never.unwrap() {});
                // The system has room, so nothing is left unless another thread has sent.
                assert!(fails_every != ALL || !endpoint.road().udp.is_full(), "it would wait for nothing");
                polled
            })
            .await;
        });
    });
    let mut tls = (*client_config(&ca, None, &[&TLS13])).clone();
    tls.alpn_protocols = vec![b"mqtt".to_vec()];
    let config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
    let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    let connecting = endpoint.connect_with(config, address, "localhost").unwrap();
    let connection = tokio::time::timeout(PATIENCE, connecting).await.unwrap().unwrap();
    tokio::time::timeout(PATIENCE, work(connection, links)).await.unwrap();
    drop(end);
    server.join().unwrap();
}

/// The first stream of the next connection.
async fn control(links: &mut mpsc::Receiver<NewConnection>) -> QuicStream {
    match links.recv().await.unwrap() {
        NewConnection::Quic(new) => new.control,
        NewConnection::Socket(_) => panic!("not over QUIC"),
    }
}

async fn say(stream: &mut QuicStream, mut bytes: &[u8]) {
    let mut packets = vec![];
    while !bytes.is_empty() {
        let written = poll_fn(|cx| match stream.try_write(cx.waker(), bytes) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => Poll::Pending,
            done => Poll::Ready(done.unwrap()),
        })
        .await;
        stream.connection().transmit(&mut packets);
        bytes = &bytes[written..];
    }
}

async fn hear(stream: &mut QuicStream, count: usize) -> Vec<u8> {
    let (mut heard, mut buffer) = (vec![], vec![0; 65_536]);
    while heard.len() < count {
        let mut read = ReadBuf::new(&mut buffer);
        poll_fn(|cx| stream.poll_read(cx, &mut read)).await.unwrap();
        assert!(!read.filled().is_empty(), "the end, after {} bytes", heard.len());
        heard.extend_from_slice(read.filled());
    }
    heard
}

/// Packets that the system had no room for are sent later, whichever thread made them, and in time: none is missed so that it
/// would have to be sent again.
#[tokio::test]
async fn a_socket_without_room_is_waited_for() {
    for fails_every in [0, 1_000, 3, 2] {
        with_endpoint(fails_every, |connection, mut links| async move {
            let (mut send, mut recv) = connection.open_bi().await.unwrap();
            let much: Vec<u8> = (0..MUCH).map(|at| u8::try_from(at % 251).unwrap()).collect();
            let theirs = much.clone();
            let client = tokio::spawn(async move {
                send.write_all(&theirs).await.unwrap();
                let mut back = vec![0; MUCH];
                recv.read_exact(&mut back).await.unwrap();
                back == theirs
            });
            let mut stream = control(&mut links).await;
            assert!(hear(&mut stream, MUCH).await == much);
            say(&mut stream, &much).await;
            assert!(client.await.unwrap());
        })
        .await;
    }
}

/// The same when nobody but the endpoint's loop sends: it does not rest while packets are left.
#[tokio::test]
async fn the_loop_waits_for_room_by_itself() {
    with_endpoint(ALL, |connection, mut links| async move {
        let (mut send, _recv) = connection.open_bi().await.unwrap();
        send.write_all(b"1").await.unwrap();
        let stream = control(&mut links).await;
        assert!(stream.connection().close_reason().is_none());
        connection.close(0_u32.into(), b"");
        poll_fn(|cx| stream.poll_taken(cx)).await;
    })
    .await;
}

/// A task that waits for a stream hears of its end, its reset and its connection's end; one that writes, of all that too.
#[tokio::test]
async fn who_waits_hears_of_every_end() {
    with_endpoint(0, |connection, mut links| async move {
        let read = |mut stream: QuicStream| async move {
            let mut buffer = [0; 16];
            let mut read = ReadBuf::new(&mut buffer);
            let done = poll_fn(|cx| stream.poll_read(cx, &mut read)).await;
            (done.map_err(|error| error.kind()), read.filled().len())
        };
        let (mut send, _recv) = connection.open_bi().await.unwrap();
        send.write_all(b"1").await.unwrap();
        let mut first = control(&mut links).await;
        assert_eq!(hear(&mut first, 1).await, b"1");
        let ours = first.connection().clone();
        let next = || poll_fn(|cx| ours.poll_accept(cx));

        let (mut ended, _keep) = connection.open_bi().await.unwrap();
        ended.write_all(b"2").await.unwrap();
        let mut stream = next().await.unwrap();
        assert_eq!(hear(&mut stream, 1).await, b"2");
        let waits = tokio::spawn(read(stream));
        tokio::task::yield_now().await;
        ended.finish().unwrap();
        assert_eq!(waits.await.unwrap(), (Ok(()), 0), "its end is no error");

        let (mut reset, mut stopped) = connection.open_bi().await.unwrap();
        reset.write_all(b"3").await.unwrap();
        let mut stream = next().await.unwrap();
        assert_eq!(hear(&mut stream, 1).await, b"3");
        stopped.stop(7_u32.into()).unwrap();
        // Until the word is here, what is written waits or goes nowhere.
        let mut stream = tokio::spawn(async move {
            poll_fn(|cx| stream.poll_taken(cx)).await;
            assert_eq!(
                stream.try_write(std::task::Waker::noop(), b"x").unwrap_err().kind(),
                ErrorKind::ConnectionReset
            );
            stream
        })
        .await
        .unwrap();
        reset.reset(8_u32.into()).unwrap();
        let mut buffer = [0; 16];
        let mut room = ReadBuf::new(&mut buffer);
        let done = poll_fn(|cx| stream.poll_read(cx, &mut room)).await;
        assert_eq!(done.unwrap_err().kind(), ErrorKind::ConnectionReset);

        let waits = tokio::spawn(read(first));
        tokio::task::yield_now().await;
        connection.close(9_u32.into(), b"bye");
        assert_eq!(waits.await.unwrap(), (Err(ErrorKind::NotConnected), 0));
        assert!(matches!(next().await, Err(ConnectionError::ApplicationClosed(_))));
        poll_fn(|cx| ours.poll_complete(cx)).await;
        assert!(stream.try_write(std::task::Waker::noop(), b"x").is_err());
    })
    .await;
}

/// The last who holds a connection closes it by letting go.
#[tokio::test]
async fn a_connection_nobody_holds_is_closed() {
    with_endpoint(0, |connection, mut links| async move {
        let (mut send, _recv) = connection.open_bi().await.unwrap();
        send.write_all(b"1").await.unwrap();
        let stream = control(&mut links).await;
        let also = stream.connection().clone();
        drop(stream);
        assert!(connection.close_reason().is_none() && also.close_reason().is_none());
        drop(also);
        assert!(matches!(connection.closed().await, ConnectionError::ApplicationClosed(_)));
    })
    .await;
}
