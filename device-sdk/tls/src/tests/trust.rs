//! Certificates that an authority signed and that are none of a server, and keys that are none.

use super::mutate::Dice;
use super::*;
use rcgen::{CustomExtension, ExtendedKeyUsagePurpose, KeyUsagePurpose};

fn check(expect: Result<(), TlsError>, change: impl FnOnce(&mut rcgen::CertificateParams)) {
    let authority = Authority::new();
    let party = authority.sign_with("broker.lan", change);
    let trust = Trust::Authority { key: &authority.key, name: "broker.lan" };
    assert_eq!(trust.check(&party.certificate).map(drop), expect);
    // A pin is about the key and nothing else.
    let pinned = Trust::Pins { current: Pin::of(&party.public), next: None };
    assert_eq!(pinned.check(&party.certificate).map(drop), Ok(()));
}

fn extension(oid: &[u64], content: &[u8], critical: bool) -> CustomExtension {
    let mut extension = CustomExtension::from_oid_content(oid, content.to_vec());
    extension.set_criticality(critical);
    extension
}

/// RFC 5280 s4.2: what is critical and not understood is not accepted.
#[test]
fn critical_extensions() {
    // A certificate of no use but to be logged (RFC 6962 s3.1).
    let poison = [1, 3, 6, 1, 4, 1, 11129, 2, 4, 3];
    check(Err(TlsError::BadCertificate), |params| {
        params.custom_extensions = std::vec![extension(&poison, &[5, 0], true)];
    });
    check(Ok(()), |params| params.custom_extensions = std::vec![extension(&poison, &[5, 0], false)]);
    // Limits of basic constraints are critical as a rule, and say nothing about a server.
    check(Ok(()), |params| params.is_ca = rcgen::IsCa::ExplicitNoCa);
}

/// RFC 8446 s4.4.2.2: if it says what the key may do, that is to sign. RFC 5280 s4.2.1.12: if it says what for, for servers.
#[test]
fn usages_of_the_key() {
    check(Ok(()), |params| params.key_usages = std::vec![KeyUsagePurpose::DigitalSignature]);
    check(Ok(()), |params| {
        params.key_usages = std::vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyAgreement];
    });
    for usage in [
        KeyUsagePurpose::KeyAgreement,
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::ContentCommitment,
        KeyUsagePurpose::DecipherOnly,
    ] {
        check(Err(TlsError::WrongName), |params| params.key_usages = std::vec![usage]);
    }
    check(Ok(()), |params| {
        params.extended_key_usages =
            std::vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
    });
    for usage in [ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::CodeSigning] {
        check(Err(TlsError::WrongName), |params| params.extended_key_usages = std::vec![usage]);
    }
}

/// RFC 5280 s4.2: each extension once, so that nobody chooses between two names.
#[test]
fn extensions_that_come_twice() {
    // `broker.lan` and `other.lan`, as alternative names.
    let names = [&[0x30, 12, 0x82, 10][..], b"broker.lan"].concat();
    check(Err(TlsError::BadCertificate), |params| {
        params.custom_extensions = std::vec![extension(&[2, 5, 29, 17], &names, false)];
    });
    check(Ok(()), |params| {
        params.subject_alt_names.clear();
        params.custom_extensions = std::vec![extension(&[2, 5, 29, 17], &names, true)];
    });
}

#[test]
fn names_that_are_nearly_right() {
    let check_name = |expect, names: &[&str]| {
        check(expect, |params| {
            params.subject_alt_names =
                names.iter().map(|name| rcgen::SanType::DnsName((*name).try_into().unwrap())).collect();
        });
    };
    check_name(Ok(()), &["other.lan", "BROKER.lan"]);
    for name in
        ["*.lan", "*", "broker.lan.", ".broker.lan", "broker.lan.evil", "xbroker.lan", "broker.la", "192.168.1.2"]
    {
        check_name(Err(TlsError::WrongName), &[name]);
    }
    // No other kind of name counts, nor the subject's.
    check(Err(TlsError::WrongName), |params| {
        params.subject_alt_names = std::vec![
            rcgen::SanType::Rfc822Name("broker.lan".try_into().unwrap()),
            rcgen::SanType::URI("broker.lan".try_into().unwrap()),
        ];
        params.distinguished_name.push(rcgen::DnType::CommonName, "broker.lan");
    });
    check(Err(TlsError::WrongName), |params| params.subject_alt_names.clear());
}

/// X.690 s10.1: a length has one form, and behind the end is nothing.
#[test]
fn encodings_that_are_not_distinguished() {
    let authority = Authority::new();
    let party = authority.sign("broker.lan", &[]);
    let trust = Trust::Authority { key: &authority.key, name: "broker.lan" };
    let pins = Trust::Pins { current: Pin::of(&party.public), next: None };
    let check = |expect: Result<(), TlsError>, certificate: &[u8]| {
        assert_eq!(trust.check(certificate).map(drop), expect);
        assert_eq!(pins.check(certificate).map(drop), expect);
    };
    let own = &party.certificate[..];
    let [0x30, 0x82, high, low, rest @ ..] = own else { panic!("a certificate is longer than 255 bytes") };
    check(Ok(()), own);
    check(Err(TlsError::BadCertificate), &[own, &[0]].concat());
    check(Err(TlsError::BadCertificate), &[&[0x30, 0x83, 0, *high, *low], rest].concat());
    check(Err(TlsError::BadCertificate), &[&[0x30, 0x80], rest, &[0, 0]].concat());
    check(Err(TlsError::BadCertificate), &[&[0x3F, 0x10, 0x82, *high, *low], rest].concat());
    // The signature's length in more bytes than it takes. It is the last element, behind what is signed and twelve bytes of algorithm.
    let cut = 8 + (usize::from(own[6]) << 8 | usize::from(own[7])) + 12;
    assert_eq!([own[cut], own[cut + 1]], [3, u8::try_from(own.len() - cut - 2).unwrap()]);
    let mut long = [&own[..cut], &[0x03, 0x81], &own[cut + 1..]].concat();
    let length = u16::try_from(long.len() - 4).unwrap().to_be_bytes();
    long[2..4].copy_from_slice(&length);
    check(Err(TlsError::BadCertificate), &long);
}

/// RFC 5280 s4.1.1.2: inside and outside the signature stands the same algorithm.
#[test]
fn two_algorithms() {
    let authority = Authority::new();
    let party = authority.sign("broker.lan", &[]);
    let trust = Trust::Authority { key: &authority.key, name: "broker.lan" };
    let sha256 = [0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x04, 0x03, 0x02];
    let places: Vec<usize> =
        (0..party.certificate.len() - 8).filter(|at| party.certificate[*at..at + 8] == sha256).collect();
    assert_eq!(places.len(), 2, "inside and outside");
    for place in places {
        let mut certificate = party.certificate.clone();
        certificate[place + 7] = 3;
        assert_eq!(trust.check(&certificate).map(drop), Err(TlsError::UnknownAuthority));
    }
}

/// Keys of the authority that are none are the board's mistake, and not the server's.
#[test]
fn a_damaged_key_of_the_authority() {
    let authority = Authority::new();
    let party = authority.sign("broker.lan", &[]);
    for key in [&[][..], &authority.key[..90], &[authority.key.as_slice(), &[0]].concat(), &[0; 91]] {
        let trust = Trust::Authority { key, name: "broker.lan" };
        assert_eq!(trust.check(&party.certificate).map(drop), Err(TlsError::UnknownAuthority));
    }
}

/// An authority that signs damaged certificates does harm, but not more than it could anyway: who passes has the name.
#[test]
fn damaged_certificates_that_are_signed() {
    let authority = Authority::new();
    let party = authority.sign_with("broker.lan", |params| {
        params.extended_key_usages = std::vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.key_usages = std::vec![KeyUsagePurpose::DigitalSignature];
    });
    let trust = Trust::Authority { key: &authority.key, name: "broker.lan" };
    let own = &party.certificate[..];
    let signed = &own[4..8 + (usize::from(own[6]) << 8 | usize::from(own[7]))];
    assert_eq!(trust.check(&authority.sign_bytes(signed)).map(drop), Ok(()));
    let mut outcomes = [0; 3];
    for seed in 0..2_000 {
        let dice = &mut Dice(seed);
        let mut damaged = signed.to_vec();
        for _ in 0..=dice.below(2) {
            dice.edit(damaged.len().max(1)).apply(&mut damaged);
        }
        match trust.check(&authority.sign_bytes(&damaged)) {
            Ok(_) => {
                outcomes[0] += 1;
                assert!(
                    damaged.windows(12).any(|part| part.eq_ignore_ascii_case(b"\x82\x0Abroker.lan")),
                    "SEED={seed}"
                );
            }
            Err(TlsError::BadCertificate) => outcomes[1] += 1,
            Err(TlsError::WrongName | TlsError::UnknownAuthority) => outcomes[2] += 1,
            Err(error) => panic!("SEED={seed}: {error:?}"),
        }
    }
    assert!(outcomes.iter().all(|count| *count > 20), "passed, damaged, not a server's: {outcomes:?}");
}

/// FIPS 186-5 s6.4.2: both numbers lie between 1 and the order of the curve, and DER writes each in one way.
#[test]
fn signatures_at_the_edges() {
    use crate::trust::verify;
    use p256::ecdsa::signature::Signer;
    use p256::ecdsa::{DerSignature, SigningKey};
    let key = SigningKey::from_slice(&lonely().secret).unwrap();
    let honest: DerSignature = key.sign(b"this");
    let check = |signature: &[u8]| verify(key.verifying_key(), b"this", signature);
    assert_eq!(check(honest.as_bytes()), Ok(()));
    assert_eq!(verify(key.verifying_key(), b"that", honest.as_bytes()), Err(()));
    let order = [
        &[
            0, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xBC, 0xE6, 0xFA,
            0xAD,
        ][..],
        &[0xA7, 0x17, 0x9E, 0x84, 0xF3, 0xB9, 0xCA, 0xC2, 0xFC, 0x63, 0x25, 0x51],
    ]
    .concat();
    let numbers = [&[0][..], &[1], &[0xFF], &[0, 1], &[0, 0x80], &[], &order, &order[1..], &[0x7F; 33], &[1; 40]];
    for first in numbers {
        for second in numbers {
            let mut inside = Vec::new();
            for number in [first, second] {
                inside.extend([2, u8::try_from(number.len()).unwrap()]);
                inside.extend(number);
            }
            let mut signature = std::vec![0x30, u8::try_from(inside.len()).unwrap()];
            signature.extend(inside);
            assert_eq!(check(&signature), Err(()), "{signature:?}");
        }
    }
    // A length in more bytes than it takes, and something behind the end.
    assert_eq!(check(&[&[0x30, 0x81], &honest.as_bytes()[1..]].concat()), Err(()));
    assert_eq!(check(&[honest.as_bytes(), &[0]].concat()), Err(()));
    for length in 0..honest.as_bytes().len() {
        assert_eq!(check(&honest.as_bytes()[..length]), Err(()));
    }
}

/// Any changed byte of what the authority signed is noticed.
#[test]
fn any_changed_byte_of_a_signed_certificate() {
    let authority = Authority::new();
    let party = authority.sign("broker.lan", &[ExtendedKeyUsagePurpose::ServerAuth]);
    let trust = Trust::Authority { key: &authority.key, name: "broker.lan" };
    assert!(trust.check(&party.certificate).is_ok());
    for place in 0..party.certificate.len() {
        let mut certificate = party.certificate.clone();
        certificate[place] ^= 1 << (place % 8);
        assert!(trust.check(&certificate).is_err(), "byte {place}");
    }
}

#[test]
fn pins_are_64_hexadecimal_digits() {
    let digits = "0123456789abcdefABCDEF00112233445566778899aabbccddeeff0011223344";
    assert_eq!(digits.len(), 64);
    assert!(Pin::from_hex(digits).is_some());
    for sign in ["+", "-", " ", "g", ":", "\0"] {
        for place in [0, 1, 62, 63] {
            let mut wrong = digits.to_string();
            wrong.replace_range(place..=place, sign);
            assert_eq!(Pin::from_hex(&wrong), None, "{wrong}");
        }
    }
    assert_eq!(Pin::from_hex(&digits[1..]), None);
}
