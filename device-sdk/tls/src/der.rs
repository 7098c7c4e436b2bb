//! As much of X.509 (RFC 5280) as it takes to find a certificate's key, and to see whether an authority signed it for a name.

use crate::error::TlsError;

const BAD: TlsError = TlsError::BadCertificate;

const BOOLEAN: u8 = 0x01;
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OCTET_STRING: u8 = 0x04;
const OID: u8 = 0x06;
const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xA0;
const EXTENSIONS: u8 = 0xA3;
const DNS_NAME: u8 = 0x82;
const IP_ADDRESS: u8 = 0x87;

/// `ecdsa-with-SHA256`, the inside of an `AlgorithmIdentifier` (RFC 5758 s3.2).
const ECDSA_WITH_SHA256: &[u8] = &[OID, 8, 0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x04, 0x03, 0x02];
const KEY_USAGE: &[u8] = &[0x55, 0x1D, 0x0F];
const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1D, 0x11];
const BASIC_CONSTRAINTS: &[u8] = &[0x55, 0x1D, 0x13];
const EXTENDED_KEY_USAGE: &[u8] = &[0x55, 0x1D, 0x25];
const SERVER_AUTH: &[u8] = &[0x2B, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x01];

/// What stands before the point in the key (`SubjectPublicKeyInfo`) of every P-256 key.
const P256_PREFIX: &[u8] = &[
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x02, 0x01, 0x06, 0x08, 0x2A, 0x86, 0x48, 0xCE,
    0x3D, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// The point of a P-256 key, uncompressed. None if it is another kind of key.
pub(crate) fn p256_point(key: &[u8]) -> Option<&[u8]> {
    key.strip_prefix(P256_PREFIX).filter(|point| point.len() == 65)
}

struct Der<'a>(&'a [u8]);

/// An element.
struct Element<'a> {
    tag: u8,
    content: &'a [u8],
    /// With tag and length.
    whole: &'a [u8],
}

impl<'a> Der<'a> {
    fn next(&mut self) -> Result<Element<'a>, TlsError> {
        let start = self.0;
        let [tag, first, rest @ ..] = start else { return Err(BAD) };
        // A length has one form, the shortest (X.690 s10.1). No tag of a certificate is longer than a byte.
        let (length, rest) = match (first, rest) {
            (0..=0x7F, rest) if tag & 0x1F != 0x1F => (usize::from(*first), rest),
            (0x81, [length @ 0x80..=0xFF, rest @ ..]) => (usize::from(*length), rest),
            (0x82, [high @ 1..=0xFF, low, rest @ ..]) => (usize::from(*high) << 8 | usize::from(*low), rest),
            _ => return Err(BAD),
        };
        let (content, rest) = rest.split_at_checked(length).ok_or(BAD)?;
        self.0 = rest;
        let whole = start.get(..start.len() - rest.len()).ok_or(BAD)?;
        Ok(Element { tag: *tag, content, whole })
    }

    fn expect(&mut self, tag: u8) -> Result<Element<'a>, TlsError> {
        self.next().and_then(|element| if element.tag == tag { Ok(element) } else { Err(BAD) })
    }

    fn optional(&mut self, tag: u8) -> Result<Option<Element<'a>>, TlsError> {
        if self.0.first() == Some(&tag) { self.next().map(Some) } else { Ok(None) }
    }

    /// Nothing may be left.
    fn end(&self) -> Result<(), TlsError> {
        if self.0.is_empty() { Ok(()) } else { Err(BAD) }
    }
}

/// The parts of a certificate that matter.
pub(crate) struct Certificate<'a> {
    /// What the authority signed.
    pub(crate) signed: &'a [u8],
    /// The key, as `SubjectPublicKeyInfo`.
    pub(crate) key: &'a [u8],
    extensions: Option<&'a [u8]>,
    /// The authority's signature, ECDSA with SHA-256. None if it is of another kind.
    pub(crate) signature: Option<&'a [u8]>,
}

impl<'a> Certificate<'a> {
    pub(crate) fn read(bytes: &'a [u8]) -> Result<Self, TlsError> {
        let mut all = Der(bytes);
        let mut outer = Der(all.expect(SEQUENCE)?.content);
        all.end()?;
        let signed = outer.expect(SEQUENCE)?;
        let algorithm = outer.expect(SEQUENCE)?.content;
        // Of the bits all are used.
        let signature = outer.expect(BIT_STRING)?.content.strip_prefix(&[0]).ok_or(BAD)?;
        outer.end()?;
        let mut inner = Der(signed.content);
        inner.optional(VERSION)?;
        inner.expect(INTEGER)?;
        // The same stands inside and outside (RFC 5280 s4.1.1.2).
        let same = inner.expect(SEQUENCE)?.content == algorithm;
        for _issuer_validity_subject in 0..3 {
            inner.expect(SEQUENCE)?;
        }
        let key = inner.expect(SEQUENCE)?.whole;
        let mut extensions = None;
        while !inner.0.is_empty() {
            let element = inner.next()?;
            if element.tag == EXTENSIONS {
                extensions = Some(Der(element.content).expect(SEQUENCE)?.content);
            }
        }
        let signature = (same && algorithm == ECDSA_WITH_SHA256).then_some(signature);
        Ok(Self { signed: signed.whole, key, extensions, signature })
    }

    /// Whether the certificate is a server's of this DNS name or IPv4 address. Nothing critical may be left that is not understood, and
    /// nothing may be said twice (RFC 5280 s4.2).
    pub(crate) fn may_serve(&self, name: &str) -> Result<bool, TlsError> {
        let (mut names, mut usage, mut purposes) = (None, None, None);
        let mut list = Der(self.extensions.unwrap_or_default());
        while !list.0.is_empty() {
            let mut extension = Der(list.expect(SEQUENCE)?.content);
            let oid = extension.expect(OID)?.content;
            let critical = extension.optional(BOOLEAN)?.is_some();
            let value = extension.expect(OCTET_STRING)?.content;
            extension.end()?;
            let place = match oid {
                SUBJECT_ALT_NAME => &mut names,
                KEY_USAGE => &mut usage,
                EXTENDED_KEY_USAGE => &mut purposes,
                // They limit what the key signs as an authority, and here nothing hangs on that.
                BASIC_CONSTRAINTS => continue,
                _ if critical => return Err(BAD),
                _ => continue,
            };
            if place.replace(value).is_some() {
                return Err(BAD);
            }
        }
        Ok(usage.map_or(Ok(true), may_sign)? && purposes.map_or(Ok(true), is_for_servers)? && holds(names, name)?)
    }
}

/// Whether a key usage allows to sign a handshake (RFC 8446 s4.4.2.2).
fn may_sign(usage: &[u8]) -> Result<bool, TlsError> {
    let bits = Der(usage).expect(BIT_STRING)?.content;
    Ok(bits.get(1).is_some_and(|bits| bits & 0x80 != 0))
}

/// Whether servers are among the purposes (RFC 5280 s4.2.1.12).
fn is_for_servers(purposes: &[u8]) -> Result<bool, TlsError> {
    let mut purposes = Der(Der(purposes).expect(SEQUENCE)?.content);
    while !purposes.0.is_empty() {
        if purposes.expect(OID)?.content == SERVER_AUTH {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether a name is among the alternative names (RFC 9525 s6; no wildcards).
fn holds(names: Option<&[u8]>, name: &str) -> Result<bool, TlsError> {
    let Some(names) = names else { return Ok(false) };
    let address = name.parse::<core::net::Ipv4Addr>().ok().map(|address| address.octets());
    let mut names = Der(Der(names).expect(SEQUENCE)?.content);
    while !names.0.is_empty() {
        let found = names.next()?;
        let same = match (found.tag, address) {
            (DNS_NAME, None) => found.content.eq_ignore_ascii_case(name.as_bytes()),
            (IP_ADDRESS, Some(address)) => found.content == address,
            _ => false,
        };
        if same {
            return Ok(true);
        }
    }
    Ok(false)
}
