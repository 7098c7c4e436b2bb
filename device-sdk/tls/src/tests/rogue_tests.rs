//! Every trick a server could try: none is believed, none is a panic.

use super::rogue::{Play, rogue};
use super::*;
use crate::Offence;
use crate::record::{ALERT, APPLICATION, CHANGE_CIPHER_SPEC, HANDSHAKE};

fn bad(offence: Offence) -> Result<Vec<u8>, TlsError> {
    Err(TlsError::BadServer(offence))
}

/// The server of the test is `party`; the board has pinned its key.
#[allow(clippy::needless_pass_by_value)]
fn check(expect: Result<Vec<u8>, TlsError>, script: impl FnOnce(&mut Play, &Party) + 'static) {
    let party = lonely();
    let config = pinned(&party);
    let wire = rogue(move |play| script(play, &party));
    assert_eq!(outcome(&wire, &config), expect);
}

#[test]
fn the_rogue_can_be_honest() {
    check(Ok(b"hi".to_vec()), |play, party| {
        play.flight(party);
        play.sealed(APPLICATION, b"hi");
    });
}

#[test]
fn no_certificate_and_no_proof() {
    check(Err(TlsError::NoCertificate), |play, _| {
        play.hello();
        play.say(&Play::extensions());
        let finished = play.finished();
        play.say(&finished);
        play.open();
        play.sealed(APPLICATION, b"hi");
    });
}

#[test]
fn a_list_of_no_certificates() {
    check(Err(TlsError::NoCertificate), |play, _| {
        play.hello();
        play.say(&Play::extensions());
        play.say(&Play::message(11, &[0, 0, 0, 0]));
    });
}

#[test]
fn no_certificate_but_a_proof() {
    check(Err(TlsError::NoCertificate), |play, party| {
        play.hello();
        play.say(&Play::extensions());
        let proof = play.proof(party);
        play.say(&proof);
    });
}

#[test]
fn the_right_certificate_without_proof() {
    check(Err(TlsError::NoProof), |play, party| {
        play.hello();
        play.say(&Play::extensions());
        play.say(&Play::certificate(party));
        let finished = play.finished();
        play.say(&finished);
        play.open();
        play.sealed(APPLICATION, b"hi");
    });
}

#[test]
fn a_proof_with_another_key() {
    check(Err(TlsError::WrongProof), |play, party| {
        let other = lonely();
        play.hello();
        play.say(&Play::extensions());
        play.say(&Play::certificate(party));
        let proof = play.proof(&other);
        play.say(&proof);
    });
}

#[test]
fn a_proof_of_another_handshake_or_of_a_client() {
    let check_with = |context: &'static [u8; 34], hash: Option<[u8; 32]>| {
        check(Err(TlsError::WrongProof), move |play, party| {
            play.hello();
            play.say(&Play::extensions());
            play.say(&Play::certificate(party));
            let proof = Play::proof_of(party, context, hash.unwrap_or_else(|| play.hash()));
            play.say(&proof);
        });
    };
    check_with(b"TLS 1.3, server CertificateVerify\0", Some([7; 32]));
    check_with(b"TLS 1.3, client CertificateVerify\0", None);
}

#[test]
fn another_key_than_the_pinned_one() {
    check(Err(TlsError::WrongPin), |play, _| {
        let other = lonely();
        play.flight(&other);
        play.sealed(APPLICATION, b"hi");
    });
}

#[test]
fn proofs_that_are_no_signatures() {
    for body in [&[4, 3, 0, 0][..], &[4, 3, 0, 3, 1, 2, 3], &[4, 3], &[8, 4, 0, 1, 0], &[4, 3, 0, 200, 1]] {
        let body = body.to_vec();
        let party = lonely();
        let config = pinned(&party);
        let wire = rogue(move |play| {
            play.hello();
            play.say(&Play::extensions());
            play.say(&Play::certificate(&party));
            play.say(&Play::message(15, &body));
        });
        assert!(outcome(&wire, &config).is_err());
    }
}

#[test]
fn a_finished_that_does_not_match() {
    check(bad(Offence::WrongFinished), |play, party| {
        play.hello();
        play.say(&Play::extensions());
        play.say(&Play::certificate(party));
        let proof = play.proof(party);
        play.say(&proof);
        play.say(&Play::message(20, &[0; 32]));
    });
    check(bad(Offence::WrongFinished), |play, party| {
        play.hello();
        play.say(&Play::extensions());
        play.say(&Play::certificate(party));
        let proof = play.proof(party);
        play.say(&proof);
        play.say(&Play::message(20, &[]));
    });
}

#[test]
fn empty_records_before_the_handshake_is_over() {
    // Sealed nothing, the tag alone.
    check(bad(Offence::EmptyRecord), |play, _| {
        play.hello();
        play.sealed_whole(&[]);
    });
    // Nothing but padding.
    check(bad(Offence::EmptyRecord), |play, _| {
        play.hello();
        play.sealed_whole(&[0; 40]);
    });
    // A handshake record without a message (RFC 8446 s5.1).
    check(bad(Offence::EmptyRecord), |play, _| {
        play.hello();
        play.sealed(HANDSHAKE, b"");
    });
    check(bad(Offence::EmptyRecord), |play, _| play.plain(HANDSHAKE, b""));
    // Too short for a tag.
    for length in 0..16 {
        check(bad(Offence::EmptyRecord), move |play, _| {
            play.hello();
            play.plain(APPLICATION, &[0; 15][..length.min(15)]);
        });
    }
}

#[test]
fn empty_records_after_the_handshake() {
    check(bad(Offence::EmptyRecord), |play, party| {
        play.flight(party);
        play.sealed_whole(&[]);
    });
    check(bad(Offence::EmptyRecord), |play, party| {
        play.flight(party);
        play.sealed_whole(&[0; 3]);
    });
    check(bad(Offence::EmptyRecord), |play, party| {
        play.flight(party);
        play.sealed(HANDSHAKE, b"");
    });
    // Text of no bytes is allowed, but not for ever.
    check(Ok(b"hi".to_vec()), |play, party| {
        play.flight(party);
        for _ in 0..30 {
            play.sealed(APPLICATION, b"");
        }
        play.sealed(APPLICATION, b"hi");
    });
    check(bad(Offence::Flood), |play, party| {
        play.flight(party);
        for _ in 0..33 {
            play.sealed(APPLICATION, b"");
        }
        play.sealed(APPLICATION, b"hi");
    });
}

#[test]
fn a_flight_in_pieces_of_one_byte() {
    check(Ok(b"hi".to_vec()), |play, party| {
        play.hello();
        let say = |play: &mut Play, message: Vec<u8>| {
            play.said(&message);
            for byte in message {
                play.sealed(HANDSHAKE, &[byte]);
            }
        };
        say(play, Play::extensions());
        say(play, Play::certificate(party));
        say(play, play.proof(party));
        say(play, play.finished());
        play.open();
        play.sealed(APPLICATION, b"hi");
    });
}

#[test]
fn a_hello_in_pieces_of_one_byte() {
    check(Ok(b"hi".to_vec()), |play, party| {
        let (secret, extensions) = Play::agree();
        let message = Play::message(2, &Play::hello_body([9; 32], 0x1301, &extensions));
        for byte in &message {
            play.plain(HANDSHAKE, &[*byte]);
        }
        play.said(&message);
        play.derive(&secret);
        let rest = |play: &mut Play, message: Vec<u8>| play.say(&message);
        rest(play, Play::extensions());
        rest(play, Play::certificate(party));
        rest(play, play.proof(party));
        rest(play, play.finished());
        play.open();
        play.sealed(APPLICATION, b"hi");
    });
}

#[test]
fn records_and_messages_that_do_not_fit() {
    check(Err(TlsError::TooLarge), |play, party| {
        play.flight(party);
        play.sealed(APPLICATION, &[1; 2_500]);
    });
    check(Err(TlsError::TooLarge), |play, _| {
        play.hello();
        play.sealed(HANDSHAKE, &[1; 2_500]);
    });
    check(Err(TlsError::TooLarge), |play, _| play.out.extend([22, 3, 3, 0xFF, 0xFF]));
    // A message that says it is long, and comes in small records.
    check(Err(TlsError::TooLarge), |play, _| {
        play.hello();
        play.sealed(HANDSHAKE, &[8, 0xFF, 0xFF, 0xFF]);
    });
    check(Err(TlsError::TooLarge), |play, _| {
        play.hello();
        play.sealed(HANDSHAKE, &[8, 0, 8, 0x8E]);
        for _ in 0..40 {
            play.sealed(HANDSHAKE, &[0; 100]);
        }
    });
    check(Ok(std::vec![1; 64]), |play, party| {
        play.flight(party);
        play.sealed(APPLICATION, &[1; 2_178]);
    });
}

#[test]
fn alerts() {
    for code in 0..=255 {
        check(Err(TlsError::Alert(code)), move |play, _| play.plain(ALERT, &[2, code]));
        check(Err(TlsError::Alert(code)), move |play, _| {
            play.hello();
            play.sealed(ALERT, &[1, code]);
        });
        let expect = match code {
            0 => Ok(Vec::new()),
            90 => Err(TlsError::Cut),
            _ => Err(TlsError::Alert(code)),
        };
        check(expect, move |play, party| {
            play.flight(party);
            play.sealed(ALERT, &[1, code]);
        });
    }
    for content in [&[][..], &[1], &[1, 0, 0]] {
        let content = content.to_vec();
        check(bad(Offence::Malformed), move |play, _| play.plain(ALERT, &content));
    }
    check(bad(Offence::Flood), |play, party| {
        play.flight(party);
        for _ in 0..1_000 {
            play.sealed(ALERT, &[1, 90]);
        }
    });
    // In the open, where anybody could have said it.
    check(bad(Offence::UnexpectedRecord), |play, party| {
        play.flight(party);
        play.plain(ALERT, &[1, 0]);
    });
    check(bad(Offence::UnexpectedRecord), |play, _| {
        play.hello();
        play.plain(ALERT, &[2, 40]);
    });
}

#[test]
fn it_leaves_early() {
    check(Err(TlsError::Cut), |_, _| {});
    check(Err(TlsError::Cut), |play, _| play.hello());
    check(Err(TlsError::Cut), Play::flight);
}

#[test]
fn it_asks_for_another_hello_again_and_again() {
    check(Err(TlsError::Unsupported), |play, _| {
        let (_, extensions) = Play::agree();
        let random = [
            0xCF, 0x21, 0xAD, 0x74, 0xE5, 0x9A, 0x61, 0x11, 0xBE, 0x1D, 0x8C, 0x02, 0x1E, 0x65, 0xB8, 0x91, 0xC2, 0xA2,
            0x11, 0x16, 0x7A, 0xBB, 0x8C, 0x5E, 0x07, 0x9E, 0x09, 0xE2, 0xC8, 0xA8, 0x33, 0x9C,
        ];
        let retry =
            Play::message(2, &Play::hello_body(random, 0x1301, &[extensions[0].clone(), (51, std::vec![0, 0x18])]));
        for _ in 0..10 {
            play.plain(HANDSHAKE, &retry);
        }
    });
}

#[test]
fn hellos_of_other_worlds() {
    let check_hello = |expect, suite, change: fn(&mut Vec<(u16, Vec<u8>)>)| {
        check(Err(expect), move |play, _| {
            let (_, extensions) = Play::agree();
            let mut extensions = extensions.to_vec();
            change(&mut extensions);
            play.plain(HANDSHAKE, &Play::message(2, &Play::hello_body([9; 32], suite, &extensions)));
        });
    };
    let malformed = TlsError::BadServer(Offence::Malformed);
    check_hello(TlsError::Unsupported, 0x1302, |_| {});
    check_hello(TlsError::Unsupported, 0xC02B, |_| {});
    // TLS 1.2, and 1.2 in disguise.
    check_hello(TlsError::Unsupported, 0x1301, |extensions| drop(extensions.remove(0)));
    check_hello(TlsError::Unsupported, 0x1301, |extensions| extensions[0].1 = std::vec![3, 3]);
    // Another curve.
    check_hello(TlsError::Unsupported, 0x1301, |extensions| extensions[1].1[1] = 0x1D);
    check_hello(malformed, 0x1301, |extensions| drop(extensions.pop()));
    // A share that is no point of the curve, or the point at infinity.
    let illegal = TlsError::BadServer(Offence::Illegal);
    check_hello(illegal, 0x1301, |extensions| extensions[1].1[20] ^= 1);
    check_hello(illegal, 0x1301, |extensions| extensions[1].1 = std::vec![0, 0x17, 0, 1, 0]);
}

#[test]
fn messages_out_of_turn() {
    for kind in [0, 1, 2, 4, 5, 13, 24, 254, 255] {
        check(bad(Offence::UnexpectedMessage), move |play, _| {
            play.hello();
            play.say(&Play::message(kind, &[0; 8]));
        });
        check(bad(Offence::UnexpectedMessage), move |play, party| {
            play.hello();
            play.say(&Play::extensions());
            play.say(&Play::certificate(party));
            play.say(&Play::message(kind, &[0; 8]));
        });
    }
    // After the handshake nothing but tickets and new keys.
    for kind in [0, 1, 2, 5, 8, 11, 13, 15, 20, 254] {
        check(bad(Offence::UnexpectedMessage), move |play, party| {
            play.flight(party);
            play.sealed(HANDSHAKE, &Play::message(kind, &[0; 8]));
        });
    }
    check(Ok(b"hi".to_vec()), |play, party| {
        play.flight(party);
        play.sealed(HANDSHAKE, &Play::message(4, &[0; 200]));
        play.sealed(APPLICATION, b"hi");
    });
    // Text in the middle of the handshake, and in the middle of a message.
    check(bad(Offence::UnexpectedRecord), |play, _| {
        play.hello();
        play.sealed(APPLICATION, b"hi");
    });
    check(bad(Offence::UnexpectedRecord), |play, party| {
        play.flight(party);
        play.sealed(HANDSHAKE, &[4, 0]);
        play.sealed(APPLICATION, b"hi");
    });
}

#[test]
fn messages_in_the_open_after_the_hello() {
    check(bad(Offence::UnexpectedRecord), |play, _| {
        play.hello();
        play.plain(HANDSHAKE, &Play::extensions());
    });
    check(bad(Offence::UnexpectedRecord), |play, party| {
        play.flight(party);
        play.plain(HANDSHAKE, &Play::message(4, &[0; 200]));
    });
    // Behind the hello in its record.
    check(bad(Offence::AcrossKeys), |play, _| {
        let (_, extensions) = Play::agree();
        let mut both = Play::message(2, &Play::hello_body([9; 32], 0x1301, &extensions));
        both.extend(Play::extensions());
        play.plain(HANDSHAKE, &both);
    });
}

#[test]
fn records_sealed_with_other_keys() {
    check(Err(TlsError::Forged), |play, party| {
        play.flight(party);
        play.rekey();
        play.sealed(APPLICATION, b"hi");
    });
    check(Err(TlsError::Forged), |play, _| {
        play.hello();
        play.plain(APPLICATION, &[7; 60]);
    });
    // The same record twice.
    check(Err(TlsError::Forged), |play, party| {
        play.flight(party);
        let before = play.out.len();
        play.sealed(APPLICATION, b"");
        let record = play.out[before..].to_vec();
        play.out.extend(record);
    });
    check(bad(Offence::UnexpectedRecord), |play, _| play.plain(APPLICATION, &[7; 60]));
}

#[test]
fn new_keys() {
    check(Ok(b"hi".to_vec()), |play, party| {
        play.flight(party);
        for wanted in [0, 1, 1] {
            play.sealed(HANDSHAKE, &Play::message(24, &[wanted]));
            play.rekey();
        }
        play.sealed(APPLICATION, b"hi");
    });
    check(bad(Offence::Flood), |play, party| {
        play.flight(party);
        for _ in 0..100 {
            play.sealed(HANDSHAKE, &Play::message(24, &[1]));
            play.rekey();
        }
    });
    check(bad(Offence::AcrossKeys), |play, party| {
        play.flight(party);
        let mut both = Play::message(24, &[0]);
        both.extend(Play::message(24, &[0]));
        play.sealed(HANDSHAKE, &both);
    });
    for body in [&[2][..], &[255]] {
        let body = body.to_vec();
        check(bad(Offence::Malformed), move |play, party| {
            play.flight(party);
            play.sealed(HANDSHAKE, &Play::message(24, &body));
        });
    }
}

#[test]
fn changes_of_cipher_that_mean_nothing() {
    check(Ok(b"hi".to_vec()), |play, party| {
        play.plain(CHANGE_CIPHER_SPEC, &[1]);
        play.flight(party);
        play.sealed(APPLICATION, b"hi");
    });
    check(bad(Offence::Flood), |play, _| (0..3).for_each(|_| play.plain(CHANGE_CIPHER_SPEC, &[1])));
    check(bad(Offence::UnexpectedRecord), |play, _| play.plain(CHANGE_CIPHER_SPEC, &[2]));
    check(bad(Offence::UnexpectedRecord), |play, party| {
        play.flight(party);
        play.plain(CHANGE_CIPHER_SPEC, &[1]);
    });
}

#[test]
fn another_protocol_and_what_nobody_asked_for() {
    let check_extensions = |expect, body: &[u8]| {
        let body = body.to_vec();
        check(Err(expect), move |play, _| {
            play.hello();
            play.say(&Play::message(8, &body));
        });
    };
    let malformed = TlsError::BadServer(Offence::Malformed);
    check_extensions(TlsError::WrongProtocol, &[0, 9, 0, 16, 0, 5, 0, 3, 2, b'h', b'2']);
    check_extensions(malformed, &[0, 10, 0, 16, 0, 6, 0, 4, 2, b'h', b'2', 0]);
    check_extensions(malformed, &[0, 5, 0, 16, 0]);
    check_extensions(malformed, &[0]);
}

#[test]
fn certificates_that_are_none() {
    let party = lonely();
    for cut in (0..party.certificate.len()).step_by(7) {
        let damaged = Party { certificate: party.certificate[..cut].to_vec(), ..lonely() };
        let wire = rogue(move |play| {
            play.hello();
            play.say(&Play::extensions());
            play.say(&Play::certificate(&damaged));
        });
        assert!(outcome(&wire, &pinned(&party)).is_err(), "cut at {cut}");
    }
    // Lengths of the list that lie.
    for body in [&[0, 0, 0, 9, 0, 0, 4, 1, 2, 3, 4][..], &[1, 0, 0, 0, 0], &[0, 255, 255, 255], &[]] {
        let body = body.to_vec();
        check(bad(Offence::Malformed), move |play, _| {
            play.hello();
            play.say(&Play::extensions());
            play.say(&Play::message(11, &body));
        });
    }
}

#[test]
fn any_changed_byte_of_the_flight_is_refused() {
    // Sealed by the rogue itself, so that every change reaches the parsers.
    let party = lonely();
    let config = pinned(&party);
    let lengths = [Play::extensions().len(), Play::certificate(&party).len(), 79, 36];
    for (which, length) in lengths.into_iter().enumerate() {
        for place in 0..length {
            let party = Party {
                certificate: party.certificate.clone(),
                public: Vec::new(),
                secret: party.secret,
                pkcs8: Vec::new(),
            };
            let wire = rogue(move |play| {
                play.hello();
                for turn in 0..4 {
                    let mut message = match turn {
                        0 => Play::extensions(),
                        1 => Play::certificate(&party),
                        2 => play.proof(&party),
                        _ => play.finished(),
                    };
                    if turn == which
                        && let Some(byte) = message.get_mut(place)
                    {
                        *byte ^= 1 << (place % 8);
                    }
                    play.say(&message);
                }
                play.open();
                play.sealed(APPLICATION, b"hi");
            });
            let outcome = outcome(&wire, &config);
            // A byte behind the key in a pinned certificate changes nothing: the key is what is pinned.
            let harmless = which == 1 || (which == 2 && place >= 70);
            assert!(harmless || outcome.is_err(), "message {which}, byte {place}: {outcome:?}");
        }
    }
}

#[test]
fn any_changed_byte_on_the_wire_is_refused() {
    let party = lonely();
    let config = pinned(&party);
    let mut length = 0;
    let mut place = 0;
    while place <= length {
        let (sent, all) = std::sync::mpsc::channel();
        let party = Party {
            certificate: party.certificate.clone(),
            public: Vec::new(),
            secret: party.secret,
            pkcs8: Vec::new(),
        };
        let wire = rogue(move |play| {
            play.flight(&party);
            play.sealed(APPLICATION, b"hi");
            sent.send(play.out.len()).unwrap();
            if let Some(byte) = play.out.get_mut(place) {
                *byte ^= 1 << (place % 8);
            }
        });
        let outcome = outcome(&wire, &config);
        length = all.recv().unwrap();
        // The version in a plaintext record's header is to be ignored (RFC 8446 s5.1), and the hello's random is the server's.
        let ignored = [1, 2].contains(&place) || place >= length;
        assert!(ignored || outcome.is_err(), "byte {place} of {length}: {outcome:?}");
        place += 1;
    }
}

#[test]
fn cut_anywhere_it_is_an_error() {
    let party = lonely();
    let config = pinned(&party);
    for place in 0..1_000 {
        let party = Party {
            certificate: party.certificate.clone(),
            public: Vec::new(),
            secret: party.secret,
            pkcs8: Vec::new(),
        };
        let wire = rogue(move |play| {
            play.flight(&party);
            play.out.truncate(place.min(play.out.len()));
        });
        assert_eq!(outcome(&wire, &config), Err(TlsError::Cut), "cut at {place}");
    }
}

#[test]
fn noise() {
    let party = lonely();
    let config = pinned(&party);
    let mut random = entropy();
    for round in 0..3_000 {
        let mut noise = std::vec![0; round % 400];
        random(&mut noise);
        let party = Party {
            certificate: party.certificate.clone(),
            public: Vec::new(),
            secret: party.secret,
            pkcs8: Vec::new(),
        };
        let wire = rogue(move |play| match round % 3 {
            0 => play.out.extend(noise),
            1 => {
                play.hello();
                play.sealed(HANDSHAKE, &noise);
            }
            _ => {
                play.flight(&party);
                play.sealed(HANDSHAKE, &noise);
            }
        });
        assert!(outcome(&wire, &config).is_err());
    }
}
