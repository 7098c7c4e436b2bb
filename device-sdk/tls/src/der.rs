//! As much of X.509 (RFC 5280) as it takes to find a certificate's key, and to see whether an authority signed it for a name.

use crate::error::TlsError;

const BAD: TlsError = TlsError::BadCertificate;

const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OCTET_STRING: u8 = 0x04;
const OID: u8 = 0x06;
const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xA0;
const EXTENSIONS: u8 = 0xA3;
const DNS_NAME: u8 = 0x82;
const IP_ADDRESS: u8 = 0x87;

const ECDSA_WITH_SHA256: &[u8] = &[0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x04, 0x03, 0x02];
const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1D, 0x11];
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
        let (length, rest) = match (first, rest) {
            (0..=0x7F, rest) => (usize::from(*first), rest),
            (0x81, [length, rest @ ..]) => (usize::from(*length), rest),
            (0x82, [high, low, rest @ ..]) => (usize::from(*high) << 8 | usize::from(*low), rest),
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
        let mut outer = Der(Der(bytes).expect(SEQUENCE)?.content);
        let signed = outer.expect(SEQUENCE)?;
        let algorithm = Der(outer.expect(SEQUENCE)?.content).expect(OID)?.content;
        // Of the bits all are used.
        let signature = outer.expect(BIT_STRING)?.content.strip_prefix(&[0]).ok_or(BAD)?;
        let mut inner = Der(signed.content);
        inner.optional(VERSION)?;
        inner.expect(INTEGER)?;
        for _algorithm_issuer_validity_subject in 0..4 {
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
        let signature = (algorithm == ECDSA_WITH_SHA256).then_some(signature);
        Ok(Self { signed: signed.whole, key, extensions, signature })
    }

    fn extension(&self, oid: &[u8]) -> Result<Option<&'a [u8]>, TlsError> {
        let mut list = Der(self.extensions.unwrap_or_default());
        while !list.0.is_empty() {
            let mut extension = Der(list.expect(SEQUENCE)?.content);
            if extension.expect(OID)?.content == oid {
                // Between them may stand whether it is critical.
                let mut value = extension.next()?;
                if value.tag != OCTET_STRING {
                    value = extension.expect(OCTET_STRING)?;
                }
                return Der(value.content).expect(SEQUENCE).map(|list| Some(list.content));
            }
        }
        Ok(None)
    }

    /// Whether the certificate is for this DNS name or IPv4 address (RFC 9525 s6; no wildcards).
    pub(crate) fn is_for(&self, name: &str) -> Result<bool, TlsError> {
        let address = name.parse::<core::net::Ipv4Addr>().ok().map(|address| address.octets());
        let mut names = Der(self.extension(SUBJECT_ALT_NAME)?.unwrap_or_default());
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

    /// Whether the certificate may be a server's: it is said (RFC 5280 s4.2.1.12), or nothing is said.
    pub(crate) fn may_serve(&self) -> Result<bool, TlsError> {
        let Some(usages) = self.extension(EXTENDED_KEY_USAGE)? else { return Ok(true) };
        let mut usages = Der(usages);
        while !usages.0.is_empty() {
            if usages.expect(OID)?.content == SERVER_AUTH {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
