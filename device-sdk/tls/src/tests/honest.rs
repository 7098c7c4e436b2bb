//! Against rustls.

use super::*;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{ServerConfig, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConnection};
use std::io::{Read as _, Write as _};
use std::sync::Arc;

/// Echoes. A line `rekey` changes its keys, `bye` ends the link.
struct Honest {
    tls: ServerConnection,
}

impl Server for Honest {
    fn hear(&mut self, mut bytes: &[u8], say: &mut dyn FnMut(&[u8])) {
        while !bytes.is_empty() {
            self.tls.read_tls(&mut bytes).unwrap();
            if self.tls.process_new_packets().is_err() {
                break;
            }
        }
        let mut heard = Vec::new();
        let _ = self.tls.reader().read_to_end(&mut heard);
        if heard == b"rekey" {
            self.tls.refresh_traffic_keys().unwrap();
        }
        if heard == b"bye" {
            self.tls.send_close_notify();
        } else {
            self.tls.writer().write_all(&heard).unwrap();
        }
        let mut out = Vec::new();
        while self.tls.wants_write() {
            self.tls.write_tls(&mut out).unwrap();
        }
        say(&out);
    }
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn config(server: &Party, clients: Option<CertificateDer<'static>>) -> ServerConfig {
    let builder =
        ServerConfig::builder_with_provider(provider()).with_protocol_versions(&[&rustls::version::TLS13]).unwrap();
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(authority) => {
            let mut roots = RootCertStore::empty();
            roots.add(authority).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider()).build().unwrap();
            builder.with_client_cert_verifier(verifier)
        }
    };
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(server.pkcs8.clone()));
    let chain = std::vec![CertificateDer::from(server.certificate.clone())];
    let mut config = builder.with_single_cert(chain, key).unwrap();
    config.alpn_protocols = std::vec![b"mqtt".to_vec()];
    config.max_fragment_size = Some(1_024);
    config
}

fn wire(config: ServerConfig) -> Wire {
    Wire::to(Honest { tls: ServerConnection::new(Arc::new(config)).unwrap() })
}

fn echo(link: &mut TlsLink<'_, Wire, Wire>, text: &[u8]) -> Result<(), TlsError> {
    block_on(async {
        let mut rest = text;
        while !rest.is_empty() {
            let length = link.write(rest).await?;
            rest = &rest[length..];
        }
        link.flush().await?;
        let mut back: Vec<u8> = Vec::new();
        while back.len() < text.len() {
            let mut out = [0; 100];
            let length = link.read(&mut out).await?;
            assert_ne!(length, 0, "the server left");
            back.extend(&out[..length]);
        }
        assert_eq!(back, text);
        Ok(())
    })
}

#[test]
fn text_goes_both_ways_and_keys_change() {
    let server = lonely();
    for sip in [1, 7, usize::MAX] {
        let wire = wire(config(&server, None)).sipping(sip);
        let mut buffers = Buffers::new();
        let mut link = open(&wire, &pinned(&server), &mut buffers).unwrap();
        echo(&mut link, b"hello").unwrap();
        echo(&mut link, &std::vec![7; 10_000]).unwrap();
        for _ in 0..5 {
            echo(&mut link, b"rekey").unwrap();
        }
        echo(&mut link, &std::vec![8; 3_000]).unwrap();
        block_on(async {
            link.write(b"bye").await.unwrap();
            link.flush().await.unwrap();
            let mut out = [0; 8];
            assert_eq!(link.read(&mut out).await, Ok(0));
            assert_eq!(link.read(&mut out).await, Ok(0));
            link.close().await.unwrap();
        });
    }
}

#[test]
fn handshakes_in_pieces_and_in_one() {
    let server = lonely();
    for fragment in [32, 100, 300, 1_024] {
        let mut config = config(&server, None);
        config.max_fragment_size = Some(fragment);
        let wire = wire(config);
        let mut buffers = Buffers::new();
        let mut link =
            open(&wire, &pinned(&server), &mut buffers).unwrap_or_else(|error| panic!("{fragment}: {error}"));
        echo(&mut link, b"hello").unwrap();
    }
}

#[test]
fn a_read_may_be_dropped_anywhere() {
    let server = lonely();
    let wire = wire(config(&server, None)).sipping(3);
    let mut buffers = Buffers::new();
    let mut link = open(&wire, &pinned(&server), &mut buffers).unwrap();
    wire.hiccup();
    block_on(async {
        let text: Vec<u8> = (0..200).collect();
        link.write(&text).await.unwrap();
        link.flush().await.unwrap();
        let mut back: Vec<u8> = Vec::new();
        let mut dropped = 0;
        while back.len() < text.len() {
            let mut out = [0; 50];
            let now = embassy_futures::select::select(link.read(&mut out), async {}).await;
            match now {
                embassy_futures::select::Either::First(length) => back.extend(&out[..length.unwrap()]),
                embassy_futures::select::Either::Second(()) => dropped += 1,
            }
        }
        assert_eq!(back, text);
        assert!(dropped > 10, "nothing was dropped");
    });
}

/// Half a record has gone out when a write or a flush is dropped; the rest follows, and nothing is said twice.
#[test]
fn a_write_may_be_dropped_anywhere() {
    use embassy_futures::select::{Either, select};
    let server = lonely();
    for sip in [1, 3, 50] {
        let wire = wire(config(&server, None)).sipping(sip);
        let mut buffers = Buffers::new();
        let mut link = open(&wire, &pinned(&server), &mut buffers).unwrap();
        // New keys are due in the middle of it.
        echo(&mut link, b"rekey").unwrap();
        wire.hiccup();
        block_on(async {
            let text: Vec<u8> = (0..3_000_u32).map(|at| (at % 251) as u8).collect();
            let mut dropped = 0;
            for part in text.chunks(400) {
                let mut rest = part;
                while !rest.is_empty() {
                    match select(link.write(rest), async {}).await {
                        Either::First(length) => rest = &rest[length.unwrap()..],
                        Either::Second(()) => dropped += 1,
                    }
                }
                while let Either::Second(()) = select(link.flush(), async {}).await {
                    dropped += 1;
                }
            }
            assert!(dropped > 20, "nothing was dropped");
            let mut back: Vec<u8> = Vec::new();
            while back.len() < text.len() {
                let mut out = [0; 500];
                let length = link.read(&mut out).await.unwrap();
                back.extend(&out[..length]);
            }
            assert_eq!(back, text);
        });
    }
}

#[test]
fn the_halves_work_at_the_same_time() {
    let server = lonely();
    let wire = wire(config(&server, None));
    let mut buffers = Buffers::new();
    let mut link = open(&wire, &pinned(&server), &mut buffers).unwrap();
    let (mut reader, mut writer) = link.split();
    block_on(async {
        writer.write_all(b"one").await.unwrap();
        writer.flush().await.unwrap();
        let mut out = [0; 8];
        let (read, written) = embassy_futures::join::join(reader.read(&mut out), writer.write_all(b"two")).await;
        assert_eq!(read, Ok(3));
        written.unwrap();
        writer.flush().await.unwrap();
        assert_eq!(reader.read(&mut out).await, Ok(3));
        assert_eq!(&out[..3], b"two");
    });
}

#[test]
fn the_next_key_is_pinned_too() {
    let (server, other) = (lonely(), lonely());
    let check = |current: &Party, next: Option<&Party>, expect| {
        let trust = Trust::Pins { current: Pin::of(&current.public), next: next.map(|next| Pin::of(&next.public)) };
        let wire = wire(config(&server, None));
        let mut buffers = Buffers::new();
        let opened = open(&wire, &Config { trust, ..pinned(&server) }, &mut buffers);
        assert_eq!(opened.map(drop), expect);
    };
    check(&server, None, Ok(()));
    check(&other, Some(&server), Ok(()));
    check(&server, Some(&other), Ok(()));
    check(&other, None, Err(TlsError::WrongPin));
}

#[test]
fn an_authority_vouches_for_a_name() {
    use rcgen::ExtendedKeyUsagePurpose::{ClientAuth, ServerAuth};
    let (authority, other) = (Authority::new(), Authority::new());
    let check = |server: &Party, name, expect| {
        let wire = wire(config(server, None));
        let mut buffers = Buffers::new();
        let config = Config { trust: Trust::Authority { key: &authority.key, name }, ..pinned(server) };
        assert_eq!(open(&wire, &config, &mut buffers).map(drop), expect, "{name}");
    };
    let server = authority.sign("broker.lan", &[ServerAuth]);
    check(&server, "broker.lan", Ok(()));
    check(&server, "Broker.LAN", Ok(()));
    check(&server, "roker.lan", Err(TlsError::WrongName));
    check(&server, "192.168.1.2", Err(TlsError::WrongName));
    check(&authority.sign("192.168.1.2", &[]), "192.168.1.2", Ok(()));
    // A device's certificate of the same authority, even with the server's name.
    check(&authority.sign("broker.lan", &[ClientAuth]), "broker.lan", Err(TlsError::WrongName));
    check(&other.sign("broker.lan", &[ServerAuth]), "broker.lan", Err(TlsError::UnknownAuthority));
    check(&lonely(), "broker.lan", Err(TlsError::UnknownAuthority));
}

#[test]
fn a_server_that_wants_a_certificate() {
    let authority = Authority::new();
    let root = authority_certificate(&authority);
    let server = lonely();
    let board = authority.sign("lamp", &[]);
    let stranger = lonely();
    let check = |identity, expect: Result<(), TlsError>| {
        let wire = wire(config(&server, Some(root.clone())));
        let mut buffers = Buffers::new();
        let mut link = open(&wire, &Config { identity, ..pinned(&server) }, &mut buffers).unwrap();
        assert_eq!(echo(&mut link, b"it is me"), expect);
    };
    check(Some(identity(&board)), Ok(()));
    check(None, Err(TlsError::RefusedClientCertificate(116)));
    // Its issuer has the authority's name and another key.
    check(Some(identity(&stranger)), Err(TlsError::RefusedClientCertificate(51)));
    check(
        Some(Identity { certificate: &board.certificate, key: &stranger.secret }),
        Err(TlsError::RefusedClientCertificate(51)),
    );
}

fn authority_certificate(authority: &Authority) -> CertificateDer<'static> {
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let key = authority.issuer.key();
    params.self_signed(key).unwrap().der().clone()
}

#[test]
fn another_protocol_is_refused_by_the_server() {
    let server = lonely();
    let wire = wire(config(&server, None));
    let mut buffers = Buffers::new();
    let refused = open(&wire, &Config { protocol: Some(b"parlor/1"), ..pinned(&server) }, &mut buffers);
    assert_eq!(refused.map(drop), Err(TlsError::Alert(120)));
}
