use super::*;
use base64ct::{Base64, Encoding};

/// Self-signed certificates, one for each form of name.
mod fixtures {
    /// Subject `/O=x/CN=sensor-7`.
    pub const COMMON_NAME: &str = "MIIBLzCB4qADAgECAhR61H12XFhR5avzgE2h3B32zj0erTAFBgMrZXAwHzEKMAgGA1UECgwBeDERMA8GA1UEAwwIc2Vuc29yLTcw\
IBcNMjYxMTIxMDc1MjA0WhgPMjEyNjEwMjgwNzUyMDRaMB8xCjAIBgNVBAoMAXgxETAPBgNVBAMMCHNlbnNvci03MCowBQYDK2Vw\
AyEAuKw4kZ4SS6xNdWdJfv0jZSxzgjgsbf9iEeDnf+Wms/yjLjAsMAsGA1UdDwQEAwIHgDAdBgNVHQ4EFgQUc49bCyHei0qaKHM1\
oxv1cXMLNAQwBQYDK2VwA0EAhW+ITf+nBssaliYIP5lbO/1NXMz6+Qmp3znCiZKiw6iCvl4aYfocrQ4psUvEnTwIfIgNhaevwNnp\
qWxXiJ2qBQ==";
    /// Subject `/CN=other`, subject alternative names `URI:parlor:kitchen,DNS:a.example,DNS:b.example`.
    pub const URI_FIRST: &str = "MIIBNTCB6KADAgECAhQwZhL9doCUy1WgmvW/OGedAFpI+zAFBgMrZXAwEDEOMAwGA1UEAwwFb3RoZXIwIBcNMjYxMTIxMDc1MjA0\
WhgPMjEyNjEwMjgwNzUyMDRaMBAxDjAMBgNVBAMMBW90aGVyMCowBQYDK2VwAyEAuKw4kZ4SS6xNdWdJfv0jZSxzgjgsbf9iEeDn\
f+Wms/yjUjBQMC8GA1UdEQQoMCaGDnBhcmxvcjpraXRjaGVugglhLmV4YW1wbGWCCWIuZXhhbXBsZTAdBgNVHQ4EFgQUc49bCyHe\
i0qaKHM1oxv1cXMLNAQwBQYDK2VwA0EAqTlCrxhrwyzMh4QTGjBHg+cx2peCgCB429ovGYZPHxqMsrMq/2uhTeiU4awfGwHNA1M6\
KSIXP//cfZOdvAQyCw==";
    /// Subject `/CN=other`, subject alternative names `DNS:Gate.Example`.
    pub const DNS_NAME: &str = "MIIBHTCB0KADAgECAhQc1y4r9DJE9iZZzMkTQxPP2HEOYTAFBgMrZXAwEDEOMAwGA1UEAwwFb3RoZXIwIBcNMjYxMTIxMDc1MjA0\
WhgPMjEyNjEwMjgwNzUyMDRaMBAxDjAMBgNVBAMMBW90aGVyMCowBQYDK2VwAyEAuKw4kZ4SS6xNdWdJfv0jZSxzgjgsbf9iEeDn\
f+Wms/yjOjA4MBcGA1UdEQQQMA6CDEdhdGUuRXhhbXBsZTAdBgNVHQ4EFgQUc49bCyHei0qaKHM1oxv1cXMLNAQwBQYDK2VwA0EA\
3kac6Bes05PraQ0N6cYfF0J4WkmoR1yHlD1ZXep3IKvg+cRUq4amHeFbsDI49Qxd7qA5EXHlkw6yXPbNEkMIAQ==";
    /// Subject `/CN=fallback`, subject alternative names `email:a@b.example,URI:spiffe://x/y`.
    pub const OTHER_SANS: &str = "MIIBMDCB46ADAgECAhRiHTmbXmt2SFplffnjvFb7Nx7c6TAFBgMrZXAwEzERMA8GA1UEAwwIZmFsbGJhY2swIBcNMjYxMTIxMDc1\
MjA0WhgPMjEyNjEwMjgwNzUyMDRaMBMxETAPBgNVBAMMCGZhbGxiYWNrMCowBQYDK2VwAyEAuKw4kZ4SS6xNdWdJfv0jZSxzgjgs\
bf9iEeDnf+Wms/yjRzBFMCQGA1UdEQQdMBuBC2FAYi5leGFtcGxlhgxzcGlmZmU6Ly94L3kwHQYDVR0OBBYEFHOPWwsh3otKmihz\
NaMb9XFzCzQEMAUGAytlcANBAPbB6SQmZLpJ6HVLedqWlVnQtKEFhY+nEM0sGpASlg4z8oj9jVv6ryhJ3/VCqFMa78BWkfS0lRUX\
RXtB8iV+cw4=";
    /// Subject `/CN=other`, subject alternative names `DNS:a.example,DNS:b.example`.
    pub const TWO_DNS: &str = "MIIBJTCB2KADAgECAhQ1EtfF/PsN5vI7/V1/j3j6AxaF2TAFBgMrZXAwEDEOMAwGA1UEAwwFb3RoZXIwIBcNMjYxMTIxMDc1MjA0\
WhgPMjEyNjEwMjgwNzUyMDRaMBAxDjAMBgNVBAMMBW90aGVyMCowBQYDK2VwAyEAuKw4kZ4SS6xNdWdJfv0jZSxzgjgsbf9iEeDn\
f+Wms/yjQjBAMB8GA1UdEQQYMBaCCWEuZXhhbXBsZYIJYi5leGFtcGxlMB0GA1UdDgQWBBRzj1sLId6LSpooczWjG/Vxcws0BDAF\
BgMrZXADQQBG69FFxFzTzAaE0ZahbNxAnLKIEn5uZxV3cKXILLZlTTgP+cTSO3+hkQsa9iP4pVHMBIBQYmkDjIjjDdLQ4WQM";
    /// Subject `/CN=other`, subject alternative names `URI:parlor:a,URI:parlor:b`.
    pub const TWO_URIS: &str = "MIIBIzCB1qADAgECAhQr5D9iSHK+IsxIxl4MMGu2Zf7BnjAFBgMrZXAwEDEOMAwGA1UEAwwFb3RoZXIwIBcNMjYxMTIxMDc1MjA0\
WhgPMjEyNjEwMjgwNzUyMDRaMBAxDjAMBgNVBAMMBW90aGVyMCowBQYDK2VwAyEAuKw4kZ4SS6xNdWdJfv0jZSxzgjgsbf9iEeDn\
f+Wms/yjQDA+MB0GA1UdEQQWMBSGCHBhcmxvcjphhghwYXJsb3I6YjAdBgNVHQ4EFgQUc49bCyHei0qaKHM1oxv1cXMLNAQwBQYD\
K2VwA0EAfTOF/FraCr1PQWozkOiKkaRC2A3TB0U5vgMXxSXvCGE85BpnKjF+siwH9cKPTDi99AsCF9Fxo6sxEMyVHpMkAQ==";
    /// Subject `/CN=a/CN=b`.
    pub const TWO_COMMON_NAMES: &str = "MIIBITCB1KADAgECAhQ76FlM+7u/1ghypRGsknwI41m6UjAFBgMrZXAwGDEKMAgGA1UEAwwBYTEKMAgGA1UEAwwBYjAgFw0yNjEx\
MjEwNzUyMDRaGA8yMTI2MTAyODA3NTIwNFowGDEKMAgGA1UEAwwBYTEKMAgGA1UEAwwBYjAqMAUGAytlcAMhALisOJGeEkusTXVn\
SX79I2Usc4I4LG3/YhHg53/lprP8oy4wLDALBgNVHQ8EBAMCB4AwHQYDVR0OBBYEFHOPWwsh3otKmihzNaMb9XFzCzQEMAUGAytl\
cANBAJoEv45P/yfo5c4lO4qdKqRfv5D5uu+WDz4oGGn+MRMAbkv0FFAzLut1GMoJgMqkzI31W1trcvJoPH+Jh9HoOQM=";
    /// Subject `/O=nobody`.
    pub const NO_NAME: &str = "MIIBEzCBxqADAgECAhRjgzLOthwpTNlREAOpoZQ1UL1OpzAFBgMrZXAwETEPMA0GA1UECgwGbm9ib2R5MCAXDTI2MTEyMTA3NTIw\
NFoYDzIxMjYxMDI4MDc1MjA0WjARMQ8wDQYDVQQKDAZub2JvZHkwKjAFBgMrZXADIQC4rDiRnhJLrE11Z0l+/SNlLHOCOCxt/2IR\
4Od/5aaz/KMuMCwwCwYDVR0PBAQDAgeAMB0GA1UdDgQWBBRzj1sLId6LSpooczWjG/Vxcws0BDAFBgMrZXADQQAtmD3hIYBTaBLl\
b8t20oB3yU63z5sqqybextiPnc2kSAB0ScO1f8nhQNS7xIITwEJivbXMSSoe38eEhRanCHwI";
    /// Subject `/CN=Not A Name`.
    pub const NOT_A_NAME: &str = "MIIBGzCBzqADAgECAhQ4Z8SbVhf+4w13+oSicPPIa3AJRTAFBgMrZXAwFTETMBEGA1UEAwwKTm90IEEgTmFtZTAgFw0yNjExMjEw\
NzUyMDRaGA8yMTI2MTAyODA3NTIwNFowFTETMBEGA1UEAwwKTm90IEEgTmFtZTAqMAUGAytlcAMhALisOJGeEkusTXVnSX79I2Us\
c4I4LG3/YhHg53/lprP8oy4wLDALBgNVHQ8EBAMCB4AwHQYDVR0OBBYEFHOPWwsh3otKmihzNaMb9XFzCzQEMAUGAytlcANBAGjp\
G24oGIoP1rYWBEvflopMNmMe5/ddVQ0X9CQ2Ch6MzgNO10TOZmenrbA3yM/O4iiqoVsXksT0vqCbZpT9mA8=";
    /// Subject `/CN=other`, subject alternative names `DNS:*.a.example`.
    pub const WILDCARD: &str = "MIIBHDCBz6ADAgECAhQ8PrRRYbgjpmTDerjOXcoMOl3MmjAFBgMrZXAwEDEOMAwGA1UEAwwFb3RoZXIwIBcNMjYxMTIxMDc1NjU0\
WhgPMjEyNjEwMjgwNzU2NTRaMBAxDjAMBgNVBAMMBW90aGVyMCowBQYDK2VwAyEAuKw4kZ4SS6xNdWdJfv0jZSxzgjgsbf9iEeDn\
f+Wms/yjOTA3MBYGA1UdEQQPMA2CCyouYS5leGFtcGxlMB0GA1UdDgQWBBRzj1sLId6LSpooczWjG/Vxcws0BDAFBgMrZXADQQBr\
acP7U2gSTPuZYVd6NW13eva3JaOPopbh12YCH0pgb63GtpgH66C772ka9ooLTBuf+ry6i2WJi+kSo1v4nC0D";
    /// Subject `/CN=anonymous`.
    pub const RESERVED: &str = "MIIBGTCBzKADAgECAhQ8fUlyGrhCUe45FBrIb/KOb2fziDAFBgMrZXAwFDESMBAGA1UEAwwJYW5vbnltb3VzMCAXDTI2MTEyMTA3\
NTIwNFoYDzIxMjYxMDI4MDc1MjA0WjAUMRIwEAYDVQQDDAlhbm9ueW1vdXMwKjAFBgMrZXADIQC4rDiRnhJLrE11Z0l+/SNlLHOC\
OCxt/2IR4Od/5aaz/KMuMCwwCwYDVR0PBAQDAgeAMB0GA1UdDgQWBBRzj1sLId6LSpooczWjG/Vxcws0BDAFBgMrZXADQQA+84D4\
4zEaf1QahFzQRtiq8tbUJhTmQMNvsZrksp2xWbxW/QibOEjKGehA3NZ8b8jA0rlmZUdygzaOm+sGq4cO";
}

#[test]
fn a_certificate_names_one_account_or_none() {
    use CertificateAccount::{CommonName, SubjectAltName};
    let bad = |name: &str, source| CertificateError::Name { name: name.to_owned(), source };
    let check = |fixture: &str, part, expect: Result<&str, CertificateError>| {
        let found = certificate_account(&Base64::decode_vec(fixture).unwrap(), part);
        assert_eq!(found.as_ref().map(AccountName::as_str), expect.as_ref().copied());
    };
    check(fixtures::COMMON_NAME, CommonName, Ok("sensor-7"));
    check(fixtures::COMMON_NAME, SubjectAltName, Err(CertificateError::NoName));
    check(fixtures::URI_FIRST, SubjectAltName, Ok("kitchen"));
    check(fixtures::URI_FIRST, CommonName, Ok("other"));
    check(fixtures::DNS_NAME, SubjectAltName, Ok("gate.example"));
    check(fixtures::OTHER_SANS, CommonName, Ok("fallback"));
    check(fixtures::OTHER_SANS, SubjectAltName, Err(CertificateError::NoName));
    check(fixtures::TWO_DNS, SubjectAltName, Err(CertificateError::Ambiguous));
    check(fixtures::TWO_URIS, SubjectAltName, Err(CertificateError::Ambiguous));
    check(fixtures::TWO_COMMON_NAMES, CommonName, Err(CertificateError::Ambiguous));
    check(fixtures::NO_NAME, CommonName, Err(CertificateError::NoName));
    check(fixtures::NOT_A_NAME, CommonName, Err(bad("Not A Name", AccountNameError::Spelling)));
    check(fixtures::WILDCARD, SubjectAltName, Err(bad("*.a.example", AccountNameError::Spelling)));
    check(fixtures::RESERVED, CommonName, Err(bad("anonymous", AccountNameError::Reserved)));
}

#[test]
fn what_is_no_certificate_is_refused_at_every_length() {
    let der = Base64::decode_vec(fixtures::COMMON_NAME).unwrap();
    for cut in 0..der.len() {
        let found = certificate_account(&der[..cut], CertificateAccount::CommonName);
        assert_eq!(found, Err(CertificateError::Malformed), "cut at {cut}");
    }
}

#[test]
fn damaged_subjects_are_refused() {
    let check = |subject: &[u8], expect: Option<&[&str]>| {
        assert_eq!(common_names(subject).as_deref(), expect, "{subject:?}");
    };
    check(&[], Some(&[]));
    check(&[0x31, 10, 0x30, 8, 6, 3, 0x55, 4, 3, 0x0C, 1, b'a'], Some(&["a"]));
    check(&[0x31, 10, 0x30, 8, 6, 3, 0x55, 4, 3, 0x0C, 1, 0xFF], None);
    // A BMPString would have to be converted, and nobody issues them.
    check(&[0x31, 11, 0x30, 9, 6, 3, 0x55, 4, 3, 0x1E, 2, 0, b'a'], None);
    check(&[0x31, 9, 0x30, 8, 6, 3, 0x55, 4, 3, 0x0C, 1, b'a'], None);
    check(&[0x30, 0], None);
}
