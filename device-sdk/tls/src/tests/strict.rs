//! What the standard forbids although an honest client would get by: the server has the right key and breaks a rule.

use super::rogue::{Play, rogue};
use super::*;
use crate::Offence;
use crate::engine::Handshake;
use crate::record::{ALERT, APPLICATION, HANDSHAKE, HEADER, OVERHEAD};
use p256::elliptic_curve::sec1::ToEncodedPoint;

fn bad(offence: Offence) -> Result<Vec<u8>, TlsError> {
    Err(TlsError::BadServer(offence))
}

#[allow(clippy::unnecessary_wraps)]
fn hi() -> Result<Vec<u8>, TlsError> {
    Ok(b"hi".to_vec())
}

fn check(expect: Result<Vec<u8>, TlsError>, script: impl FnOnce(&mut Play, &Party) + 'static) {
    let party = lonely();
    check_with(&pinned(&party), party, expect, script);
}

#[allow(clippy::needless_pass_by_value)]
fn check_with(
    config: &Config<'_>,
    party: Party,
    expect: Result<Vec<u8>, TlsError>,
    script: impl FnOnce(&mut Play, &Party) + 'static,
) {
    let wire = rogue(move |play| {
        script(play, &party);
        play.sealed(APPLICATION, b"hi");
    });
    assert_eq!(outcome(&wire, config), expect);
}

/// A whole flight behind this hello.
fn check_hello(expect: Result<Vec<u8>, TlsError>, body: Vec<u8>) {
    check(expect, move |play, party| {
        play.hello_with(&body);
        play.say(&Play::extensions());
        play.say(&Play::certificate(party));
        play.prove(party);
    });
}

/// RFC 8446 s4.2: nothing that was not asked for, wherever it stands, and nothing twice.
#[test]
fn extensions_of_a_hello() {
    let check = |expect, change: &dyn Fn(&mut Vec<(u16, Vec<u8>)>)| {
        let mut extensions = Play::agree().1.to_vec();
        change(&mut extensions);
        check_hello(expect, Play::hello_body([9; 32], 0x1301, &extensions));
    };
    check(hi(), &|_| {});
    check(hi(), &|extensions| extensions.reverse());
    // A key agreed on before, early data, a cookie, a protocol (that is for `EncryptedExtensions`), anything.
    for kind in [0, 10, 16, 41, 42, 44, 0x1234, 0xFF01] {
        for place in 0..=2 {
            check(bad(Offence::Unasked), &|extensions| extensions.insert(place, (kind, std::vec![0, 0])));
        }
    }
    check(bad(Offence::Illegal), &|extensions| extensions.push(extensions[0].clone()));
    check(bad(Offence::Illegal), &|extensions| extensions.push(extensions[1].clone()));
}

/// RFC 8446 s4.1.3.
#[test]
fn fields_of_a_hello() {
    let (_, extensions) = Play::agree();
    let honest = Play::hello_body([9; 32], 0x1301, &extensions);
    let check = |expect, change: &dyn Fn(&mut Vec<u8>)| {
        let mut body = honest.clone();
        change(&mut body);
        check_hello(expect, body);
    };
    check(hi(), &|_| {});
    // The version of before, which is always 1.2 now.
    for version in [[3, 1], [3, 2], [3, 4], [2, 0], [0, 0]] {
        check(bad(Offence::Illegal), &|body| body[..2].copy_from_slice(&version));
    }
    // A session that was not named, and a compression.
    check(bad(Offence::Illegal), &|body| drop(body.splice(34..35, [1, 7])));
    check(bad(Offence::Illegal), &|body| drop(body.splice(34..35, [[32].as_slice(), &[7; 32]].concat())));
    check(bad(Offence::Illegal), &|body| body[37] = 1);
    // Something behind the end.
    check(bad(Offence::Malformed), &|body| body.push(0));
    // The mark of a downgrade in the random means nothing when there was none (RFC 8446 s4.1.3).
    check(hi(), &|body| body[26..34].copy_from_slice(b"DOWNGRD\x01"));
}

/// RFC 8446 s4.2.8.2: the point is there whole.
#[test]
fn shares_in_other_forms() {
    let (secret, extensions) = Play::agree();
    let point = secret.public_key().to_encoded_point(true);
    for lead in [2, 3, 5] {
        let mut share = std::vec![0, 0x17, 0, 33, lead];
        share.extend(&point.as_bytes()[1..]);
        let extensions = [extensions[0].clone(), (51, share)];
        check_hello(bad(Offence::Illegal), Play::hello_body([9; 32], 0x1301, &extensions));
    }
}

/// RFC 8446 s4.3.1.
#[test]
fn encrypted_extensions() {
    let check = |expect, config: fn(&mut Config<'_>), body: &[u8]| {
        let party = lonely();
        let mut asked = pinned(&party);
        config(&mut asked);
        let body = body.to_vec();
        check_with(&asked, party, expect, move |play, party| {
            play.hello();
            play.say(&Play::message(8, &body));
            play.say(&Play::certificate(party));
            play.prove(party);
        });
    };
    let same: fn(&mut Config<'_>) = |_| {};
    check(hi(), same, &[0, 0]);
    // It has read the name; these are its groups; it grants records of 2 KiB, as the buffer has room for.
    check(hi(), same, &[0, 4, 0, 0, 0, 0]);
    check(hi(), same, &[0, 8, 0, 10, 0, 4, 0, 2, 0, 23]);
    check(hi(), same, &[0, 5, 0, 1, 0, 1, 3]);
    for code in [0, 1, 2, 4, 5, 255] {
        check(bad(Offence::Illegal), same, &[0, 5, 0, 1, 0, 1, code]);
    }
    // Each twice.
    check(bad(Offence::Illegal), same, &[0, 8, 0, 0, 0, 0, 0, 0, 0, 0]);
    check(bad(Offence::Illegal), same, &[0, 10, 0, 1, 0, 1, 3, 0, 1, 0, 1, 3]);
    let mqtt = [0, 16, 0, 7, 0, 5, 4, b'm', b'q', b't', b't'];
    check(hi(), same, &[&[0, 11][..], &mqtt].concat());
    check(bad(Offence::Illegal), same, &[&[0, 22][..], &mqtt, &mqtt].concat());
}

#[test]
fn encrypted_extensions_nobody_asked_for() {
    // Of kinds that were not sent, among them a raw key (RFC 7250) and a size of records (RFC 8449).
    for kind in [5, 13, 14, 18, 19, 20, 21, 28, 41, 42, 43, 44, 45, 49, 50, 51, 57, 255] {
        check(bad(Offence::Unasked), move |play, _| {
            play.hello();
            play.say(&Play::message(8, &[0, 4, 0, kind, 0, 0]));
        });
    }
    let party = lonely();
    let unnamed = Config { server_name: None, ..pinned(&party) };
    check_with(&unnamed, party, bad(Offence::Unasked), |play, _| {
        play.hello();
        play.say(&Play::message(8, &[0, 4, 0, 0, 0, 0]));
    });
    // An address is no name, so none was asked for.
    for address in ["192.168.1.2", "fe80::1"] {
        let party = lonely();
        let config = Config { server_name: Some(address), ..pinned(&party) };
        check_with(&config, party, bad(Offence::Unasked), |play, _| {
            play.hello();
            play.say(&Play::message(8, &[0, 4, 0, 0, 0, 0]));
        });
    }
    let party = lonely();
    let silent = Config { protocol: None, ..pinned(&party) };
    check_with(&silent, party, Err(TlsError::WrongProtocol), |play, _| {
        play.hello();
        play.say(&Play::extensions());
    });
}

/// RFC 8446 s4.3.2.
#[test]
fn requests_for_a_certificate() {
    let check_request = |expect, body: &[u8]| {
        let body = body.to_vec();
        check(expect, move |play, party| {
            play.hello();
            play.say(&Play::extensions());
            play.say(&Play::message(13, &body));
            play.say(&Play::certificate(party));
            play.prove(party);
        });
    };
    check_request(hi(), &[0, 0, 8, 0, 13, 0, 4, 0, 2, 4, 3]);
    // With what a client need not know.
    check_request(hi(), &[0, 0, 13, 0x12, 0x34, 0, 1, 7, 0, 13, 0, 4, 0, 2, 4, 3]);
    // Only a board with a certificate cares what it is to sign with.
    check_request(hi(), &[0, 0, 8, 0, 13, 0, 4, 0, 2, 8, 4]);
    check_request(bad(Offence::Malformed), &[0, 0, 0]);
    check_request(bad(Offence::Malformed), &[0, 0, 5, 0x12, 0x34, 0, 1, 7]);
    check_request(bad(Offence::Malformed), &[0, 0, 9, 0, 13, 0, 4, 0, 2, 4, 3]);
    check_request(bad(Offence::Malformed), &[0, 0, 8, 0, 13, 0, 4, 0, 3, 4, 3]);
    check_request(bad(Offence::Malformed), &[0, 0, 9, 0, 13, 0, 5, 0, 3, 4, 3, 4]);
    check_request(bad(Offence::Malformed), &[0, 0, 6, 0, 13, 0, 2, 0, 0]);
    check_request(bad(Offence::Malformed), &[1, 7, 0, 8, 0, 13, 0, 4, 0, 2, 4, 3]);
    check_request(bad(Offence::Illegal), &[0, 0, 16, 0, 13, 0, 4, 0, 2, 4, 3, 0, 13, 0, 4, 0, 2, 4, 3]);
}

/// RFC 8446 s4.4.2: the whole list is read, and nothing hangs on a certificate that was not asked for.
#[test]
fn lists_of_certificates() {
    let entry = |certificate: &[u8], extensions: &[u8]| {
        let mut entry = std::vec![0];
        entry.extend(u16::try_from(certificate.len()).unwrap().to_be_bytes());
        entry.extend(certificate);
        entry.extend(u16::try_from(extensions.len()).unwrap().to_be_bytes());
        entry.extend(extensions);
        entry
    };
    let check_list = |expect, list: &dyn Fn(&[u8]) -> Vec<u8>| {
        let party = lonely();
        let list = list(&party.certificate);
        let mut body = std::vec![0, 0];
        body.extend(u16::try_from(list.len()).unwrap().to_be_bytes());
        body.extend(list);
        check_with(&pinned(&party), party, expect, move |play, party| {
            play.hello();
            play.say(&Play::extensions());
            play.say(&Play::message(11, &body));
            play.prove(party);
        });
    };
    check_list(hi(), &|own| entry(own, &[]));
    check_list(hi(), &|own| [entry(own, &[]), entry(&[1, 2, 3], &[])].concat());
    // A stapled status, a timestamp: neither was asked for.
    check_list(bad(Offence::Unasked), &|own| entry(own, &[0, 5, 0, 0]));
    check_list(bad(Offence::Unasked), &|own| [entry(own, &[]), entry(&[1, 2, 3], &[0, 18, 0, 0])].concat());
    check_list(bad(Offence::Malformed), &|own| [entry(own, &[]), std::vec![7]].concat());
    check_list(bad(Offence::Malformed), &|own| [entry(own, &[]), std::vec![0, 0, 0, 0, 0]].concat());
}

/// RFC 8446 s5.1, s5.2: 2^14 bytes of text, and one for its kind, whatever the buffer holds.
#[test]
fn records_longer_than_any_may_be() {
    let outcome = |script: fn(&mut Play, &Party)| {
        let party = lonely();
        let config = pinned(&party);
        let wire = rogue(move |play| script(play, &party));
        let mut buffers: TlsBuffers<20_000, 700> = TlsBuffers::new();
        block_on(async {
            let mut link = TlsLink::open(wire.clone(), wire.clone(), &config, &mut buffers, entropy()).await?;
            let mut out = std::vec![0; 20_000];
            link.read(&mut out).await
        })
    };
    let fits = |play: &mut Play, party: &Party| {
        play.flight(party);
        play.sealed(APPLICATION, &[1; 16_384]);
    };
    assert_eq!(outcome(fits), Ok(16_384));
    let padded = |play: &mut Play, party: &Party| {
        play.flight(party);
        let mut inner = std::vec![0; 16_385];
        inner[0] = 1;
        inner[1] = APPLICATION;
        play.sealed_whole(&inner);
    };
    assert_eq!(outcome(padded), Ok(1));
    let too_long: [fn(&mut Play, &Party); 5] = [
        |play, party| {
            play.flight(party);
            play.sealed(APPLICATION, &std::vec![1; 16_385]);
        },
        |play, party| {
            play.flight(party);
            let mut inner = std::vec![0; 16_386];
            inner[0] = APPLICATION;
            play.sealed_whole(&inner);
        },
        |play, _| play.plain(HANDSHAKE, &std::vec![2; 16_385]),
        |play, _| play.out.extend([HANDSHAKE, 3, 3, 0x41, 1]),
        |play, party| {
            play.flight(party);
            play.out.extend([APPLICATION, 3, 3, 0x41, 1]);
        },
    ];
    for (which, script) in too_long.into_iter().enumerate() {
        assert_eq!(outcome(script), Err(TlsError::TooLarge), "script {which}");
    }
}

/// RFC 6066 s4: what the server grants binds the board.
#[test]
fn the_boards_records_are_as_short_as_was_granted() {
    let lengths = |granted: &'static [u8]| {
        let party = lonely();
        let config = pinned(&party);
        let wire = rogue(move |play| {
            play.hello();
            play.say(&Play::message(8, granted));
            play.say(&Play::certificate(&party));
            play.prove(&party);
        });
        let mut buffers: TlsBuffers<1_500, 5_000> = TlsBuffers::new();
        block_on(async {
            let mut link = TlsLink::open(wire.clone(), wire.clone(), &config, &mut buffers, entropy()).await.unwrap();
            link.write_all(&[7; 6_000]).await.unwrap();
            link.flush().await.unwrap();
        });
        records(&wire.said())
    };
    // The handshake's two, then the text.
    assert_eq!(lengths(&[0, 0])[2..], [4_995, 1_039]);
    assert_eq!(lengths(&[0, 5, 0, 1, 0, 1, 2])[2..], [1_041, 1_041, 1_041, 1_041, 1_041, 897]);
}

/// Lengths of the records in `bytes`.
fn records(mut bytes: &[u8]) -> Vec<usize> {
    let mut lengths = Vec::new();
    while let [_, _, _, high, low, rest @ ..] = bytes {
        lengths.push(usize::from(*high) << 8 | usize::from(*low));
        bytes = &rest[lengths.last().copied().unwrap()..];
    }
    lengths
}

/// A ticket is thrown away as it comes, so that it may be longer than the buffer; text in the middle of it is still none.
#[test]
fn tickets_longer_than_the_buffer() {
    check(hi(), |play, party| {
        play.flight(party);
        for _ in 0..3 {
            let ticket = Play::message(4, &[7; 9_000]);
            ticket.chunks(1_000).for_each(|piece| play.sealed(HANDSHAKE, piece));
        }
    });
    // New keys behind it in its last record.
    check(hi(), |play, party| {
        play.flight(party);
        play.sealed(HANDSHAKE, &Play::message(4, &[7; 3_000])[..1_000]);
        let mut rest = std::vec![7; 2_004];
        rest.extend(Play::message(24, &[0]));
        play.sealed(HANDSHAKE, &rest);
        play.rekey();
    });
    check(bad(Offence::UnexpectedRecord), |play, party| {
        play.flight(party);
        play.sealed(HANDSHAKE, &Play::message(4, &[7; 9_000])[..1_000]);
    });
    check(bad(Offence::Flood), |play, party| {
        play.flight(party);
        play.sealed(HANDSHAKE, &[4, 255, 255, 255]);
        for _ in 0..100 {
            play.sealed(HANDSHAKE, &[7; 1_000]);
        }
    });
    // Another message of that length is not thrown away.
    check(Err(TlsError::TooLarge), |play, party| {
        play.flight(party);
        play.sealed(HANDSHAKE, &[24, 0, 255, 255]);
    });
}

/// RFC 8446 s6: when the link has failed, nothing more goes out; after a goodbye it may.
#[test]
fn nothing_is_said_when_the_link_has_failed() {
    let after = |script: fn(&mut Play), read: Result<usize, TlsError>, written: Result<(), TlsError>| {
        let party = lonely();
        let config = pinned(&party);
        let wire = rogue(move |play| {
            play.flight(&party);
            script(play);
        });
        let mut buffers = Buffers::new();
        let mut link = open(&wire, &config, &mut buffers).unwrap();
        let (mut reader, mut writer) = link.split();
        block_on(async {
            writer.write_all(b"begun").await.unwrap();
            assert_eq!(reader.read(&mut [0; 8]).await, read);
            let before = wire.said().len();
            assert_eq!(writer.write_all(b"secret").await, written);
            assert_eq!(writer.flush().await, written);
            assert_eq!(wire.said().len() > before, written.is_ok());
        });
    };
    after(|play| play.sealed(ALERT, &[1, 0]), Ok(0), Ok(()));
    after(|play| play.sealed(ALERT, &[2, 80]), Err(TlsError::Alert(80)), Err(TlsError::Closed));
    after(|play| play.plain(APPLICATION, &[7; 40]), Err(TlsError::Forged), Err(TlsError::Closed));
}

/// RFC 8446 s5.5: no key seals more than it may; new keys are announced with the old ones and used at once, whether the board flushes or not.
#[test]
fn keys_that_are_worn_out_are_changed() {
    let party = lonely();
    let config = pinned(&party);
    let keys = Rc::new(RefCell::new(None));
    let kept = Rc::clone(&keys);
    let wire = rogue(move |play| {
        play.flight(&party);
        *kept.borrow_mut() = Some(play.boards_keys());
    });
    let mut buffers = Buffers::new();
    let mut link = open(&wire, &config, &mut buffers).unwrap();
    let before = wire.said().len();
    link.wear_out();
    block_on(async {
        for text in ["one", "two", "three"] {
            link.write_all(text.as_bytes()).await.unwrap();
            link.flush().await.unwrap();
        }
    });
    let mut keys = keys.borrow_mut().take().unwrap();
    keys.wear_out();
    let mut stream = wire.said().split_off(before);
    let mut heard = Vec::new();
    while !stream.is_empty() {
        let header: [u8; HEADER] = stream[..HEADER].try_into().unwrap();
        let end = HEADER + (usize::from(header[3]) << 8 | usize::from(header[4]));
        let (kind, length) = keys.open(header, &mut stream[HEADER..end]).unwrap();
        heard.push((kind, stream[HEADER..HEADER + length].to_vec()));
        if kind == HANDSHAKE {
            keys = keys.next();
        }
        stream.drain(..end);
    }
    let expect =
        [(APPLICATION, &b"one"[..]), (HANDSHAKE, &[24, 0, 0, 1, 0]), (APPLICATION, b"two"), (APPLICATION, b"three")];
    assert_eq!(heard, expect.map(|(kind, text)| (kind, text.to_vec())));
}

/// What comes behind a goodbye is not heard.
#[test]
fn nothing_is_heard_behind_a_goodbye() {
    check(Ok(Vec::new()), |play, party| {
        play.flight(party);
        play.sealed(ALERT, &[1, 0]);
    });
}

/// Every order in which an honest server's messages could come, until the first that is refused: two are right.
#[test]
fn orders_of_messages() {
    const KINDS: [u8; 6] = [8, 13, 11, 15, 20, 2];
    let mut right = Vec::new();
    let mut tried = 0;
    let mut open: Vec<Vec<u8>> = std::vec![Vec::new()];
    while let Some(order) = open.pop() {
        for kind in KINDS {
            let mut order = order.clone();
            order.push(kind);
            let party = lonely();
            let config = pinned(&party);
            let said = order.clone();
            let wire = rogue(move |play| {
                play.hello();
                for kind in said {
                    let message = match kind {
                        8 => Play::extensions(),
                        13 => Play::message(13, &[0, 0, 8, 0, 13, 0, 4, 0, 2, 4, 3]),
                        11 => Play::certificate(&party),
                        15 => play.proof(&party),
                        20 => play.finished(),
                        _ => Play::message(2, &Play::hello_body([9; 32], 0x1301, &Play::agree().1)),
                    };
                    play.say(&message);
                    if kind == 20 {
                        play.open();
                        play.sealed(APPLICATION, b"hi");
                    }
                }
            });
            tried += 1;
            match outcome(&wire, &config) {
                Ok(_) => right.push(order),
                // It waits for more.
                Err(TlsError::Cut) => open.push(order),
                Err(_) => {}
            }
        }
    }
    right.sort();
    assert_eq!(right, [&[8, 11, 15, 20][..], &[8, 13, 11, 15, 20]]);
    assert!(tried >= 42, "{tried} orders");
}

/// RFC 8446 s6.2: the server is told what the board thinks of it, in the open before there are keys and sealed behind.
#[test]
fn the_server_is_told_why() {
    let check = |expect: u8, script: fn(&mut Play, &Party)| {
        let party = lonely();
        let config = pinned(&party);
        let keys = Rc::new(RefCell::new(None));
        let kept = Rc::clone(&keys);
        let wire = rogue(move |play| {
            script(play, &party);
            *kept.borrow_mut() = play.boards_handshake_keys();
        });
        assert!(outcome(&wire, &config).is_err());
        let said = wire.said();
        let hello = HEADER + records(&said)[0];
        let (header, content) = said[hello..].split_at(HEADER);
        let (header, mut content): ([u8; HEADER], Vec<u8>) = (header.try_into().unwrap(), content.to_vec());
        let (kind, length) = match keys.borrow_mut().as_mut() {
            Some(keys) => keys.open(header, &mut content).unwrap(),
            None => (header[0], content.len()),
        };
        assert_eq!((kind, &content[..length]), (ALERT, &[2, expect][..]));
    };
    // Not decoded, not allowed, not now, too long: in the open.
    check(50, |play, _| play.plain(HANDSHAKE, &Play::message(2, &[3, 3])));
    check(47, |play, _| {
        let mut body = Play::hello_body([9; 32], 0x1301, &Play::agree().1);
        body[37] = 1;
        play.plain(HANDSHAKE, &Play::message(2, &body));
    });
    check(40, |play, _| {
        play.plain(HANDSHAKE, &Play::message(2, &Play::hello_body([9; 32], 0x1302, &Play::agree().1)));
    });
    check(10, |play, _| play.plain(HANDSHAKE, &Play::extensions()));
    check(22, |play, _| play.out.extend([HANDSHAKE, 3, 3, 0xFF, 0xFF]));
    // Sealed.
    check(110, |play, _| {
        play.hello();
        play.say(&Play::message(8, &[0, 4, 0, 41, 0, 0]));
    });
    check(120, |play, _| {
        play.hello();
        play.say(&Play::message(8, &[0, 9, 0, 16, 0, 5, 0, 3, 2, b'h', b'2']));
    });
    // s4.4.2.4: an empty list is one that cannot be decoded.
    check(50, |play, _| {
        play.hello();
        play.say(&Play::extensions());
        play.say(&Play::message(11, &[0, 0, 0, 0]));
    });
    check(42, |play, _| {
        play.hello();
        play.say(&Play::extensions());
        play.say(&Play::certificate(&lonely()));
    });
    check(51, |play, party| {
        play.hello();
        play.say(&Play::extensions());
        play.say(&Play::certificate(party));
        play.say(&Play::proof_of(party, b"TLS 1.3, server CertificateVerify\0", [7; 32]));
    });
    check(51, |play, party| {
        play.hello();
        play.say(&Play::extensions());
        play.say(&Play::certificate(party));
        let proof = play.proof(party);
        play.say(&proof);
        play.say(&Play::message(20, &[0; 32]));
    });
    check(20, |play, _| {
        play.hello();
        play.plain(APPLICATION, &[7; 40]);
    });
}

/// A handshake that has failed never looks like one that is over.
#[test]
fn a_failed_handshake_stays_failed() {
    let party = lonely();
    let config = pinned(&party);
    let mut handshake = Handshake::new(&config, 2_000, entropy()).unwrap();
    let mut out = [0; 700];
    handshake.hello(&mut out).unwrap();
    assert!(handshake.message(&Play::message(20, &[0; 32])).is_err());
    assert!(!handshake.is_heard());
    assert_eq!(handshake.transmit(&mut out), Err(TlsError::Closed));
    assert_eq!(handshake.message(&Play::extensions()).err(), Some(TlsError::BadServer(Offence::UnexpectedMessage)));
}

/// A generator that is broken or was never started is noticed, and what is sent in the open does not show what it gave.
#[test]
fn generators_of_random_numbers() {
    let party = lonely();
    let config = pinned(&party);
    let hello = |entropy: &mut dyn FnMut(&mut [u8])| {
        let mut out = [0; 700];
        let length = Handshake::new(&config, 2_000, entropy)?.hello(&mut out)?;
        Ok::<_, TlsError>(out[..length].to_vec())
    };
    for stuck in [0, 1, 0x7F, 0xFF] {
        assert_eq!(hello(&mut |bytes: &mut [u8]| bytes.fill(stuck)), Err(TlsError::BadIdentity), "{stuck}");
    }
    assert_eq!(hello(&mut |_: &mut [u8]| {}), Err(TlsError::BadIdentity));
    let mut given = Vec::new();
    let mut random = entropy();
    let first = hello(&mut |bytes: &mut [u8]| {
        random(bytes);
        given.extend_from_slice(bytes);
    })
    .unwrap();
    assert!(given.len() >= 64, "a key and a random number are 64 bytes");
    assert!(given.windows(4).all(|part| !first.windows(4).any(|sent| sent == part)), "it is sent as it was drawn");
    assert_ne!(hello(&mut random).unwrap(), first);
    // The same draw, the same hello: nothing else goes in.
    assert_eq!(hello(&mut entropy()).unwrap(), first);
}

/// A certificate that the write buffer does not hold is an error and no damaged message.
#[test]
fn a_certificate_too_long_for_the_buffer() {
    let party = lonely();
    let certificate = std::vec![7; 1_000];
    let identity = Some(Identity { certificate: &certificate, key: &party.secret });
    let config = Config { identity, ..pinned(&party) };
    let party =
        Party { certificate: party.certificate.clone(), public: Vec::new(), secret: party.secret, pkcs8: Vec::new() };
    let wire = rogue(move |play| {
        play.hello();
        play.say(&Play::extensions());
        play.say(&Play::message(13, &[0, 0, 8, 0, 13, 0, 4, 0, 2, 4, 3]));
        play.say(&Play::certificate(&party));
        play.prove(&party);
    });
    assert_eq!(outcome(&wire, &config), Err(TlsError::BuffersTooSmall));
    assert!(wire.said().len() > OVERHEAD);
}
