//! The two hellos, and what the server says about extensions.

use crate::Config;
use crate::cursor::{Reader, Writer};
use crate::error::{Offence, TlsError};
use crate::record::{HANDSHAKE, HEADER, OVERHEAD, TEXT_MAX, write_header};

const MALFORMED: TlsError = TlsError::BadServer(Offence::Malformed);
const ILLEGAL: TlsError = TlsError::BadServer(Offence::Illegal);
const UNASKED: TlsError = TlsError::BadServer(Offence::Unasked);

pub(crate) const CLIENT_HELLO: u8 = 1;
const SERVER_NAME: u16 = 0;
const MAX_FRAGMENT_LENGTH: u16 = 1;
const SUPPORTED_GROUPS: u16 = 10;
const SIGNATURE_ALGORITHMS: u16 = 13;
const PROTOCOLS: u16 = 16;
const SUPPORTED_VERSIONS: u16 = 43;
const KEY_SHARE: u16 = 51;

/// `TLS_AES_128_GCM_SHA256`.
const SUITE: u16 = 0x1301;
const TLS_1_3: u16 = 0x0304;
const SECP256R1: u16 = 0x0017;
/// `ecdsa_secp256r1_sha256`.
pub(crate) const ECDSA_P256: u16 = 0x0403;

/// SHA-256 of "HelloRetryRequest": with this random a `ServerHello` asks for another `ClientHello` (RFC 8446 s4.1.3).
const RETRY: [u8; 32] = [
    0xCF, 0x21, 0xAD, 0x74, 0xE5, 0x9A, 0x61, 0x11, 0xBE, 0x1D, 0x8C, 0x02, 0x1E, 0x65, 0xB8, 0x91, 0xC2, 0xA2, 0x11,
    0x16, 0x7A, 0xBB, 0x8C, 0x5E, 0x07, 0x9E, 0x09, 0xE2, 0xC8, 0xA8, 0x33, 0x9C,
];

/// The code of RFC 6066 s4 for the largest records that a read buffer of this size takes. None for one that takes all.
fn fragment_code(buffer: usize) -> Option<u8> {
    match buffer.saturating_sub(OVERHEAD) {
        16_384.. => None,
        4_096.. => Some(4),
        2_048.. => Some(3),
        1_024.. => Some(2),
        _ => Some(1),
    }
}

/// The name to ask for. An address is none (RFC 6066 s3).
fn host_name<'a>(config: &Config<'a>) -> Option<&'a str> {
    config.server_name.filter(|name| !name.contains(':') && name.parse::<core::net::Ipv4Addr>().is_err())
}

/// Writes the record with the `ClientHello`; `read_buffer` is how long records may be. Returns its length.
pub(crate) fn write_client_hello(
    out: &mut [u8],
    config: &Config<'_>,
    random: &[u8; 32],
    share: &[u8],
    read_buffer: usize,
) -> Result<usize, TlsError> {
    let mut writer = Writer::new(out);
    let record = {
        writer.put(&[HANDSHAKE, 3, 1]);
        writer.open(2)
    };
    writer.put_u8(CLIENT_HELLO);
    let message = writer.open(3);
    writer.put_u16(0x0303);
    writer.put(random);
    // No session to resume.
    writer.put_u8(0);
    writer.put_u16(2);
    writer.put_u16(SUITE);
    // No compression.
    writer.put(&[1, 0]);
    let extensions = writer.open(2);
    extension(&mut writer, SUPPORTED_VERSIONS, |writer| {
        writer.put_u8(2);
        writer.put_u16(TLS_1_3);
    });
    extension(&mut writer, SUPPORTED_GROUPS, |writer| {
        writer.put_u16(2);
        writer.put_u16(SECP256R1);
    });
    extension(&mut writer, SIGNATURE_ALGORITHMS, |writer| {
        writer.put_u16(2);
        writer.put_u16(ECDSA_P256);
    });
    extension(&mut writer, KEY_SHARE, |writer| {
        let shares = writer.open(2);
        writer.put_u16(SECP256R1);
        let length = writer.open(2);
        writer.put(share);
        writer.close(&length);
        writer.close(&shares);
    });
    if let Some(code) = fragment_code(read_buffer) {
        extension(&mut writer, MAX_FRAGMENT_LENGTH, |writer| writer.put_u8(code));
    }
    if let Some(name) = host_name(config) {
        extension(&mut writer, SERVER_NAME, |writer| {
            let list = writer.open(2);
            writer.put_u8(0);
            let length = writer.open(2);
            writer.put(name.as_bytes());
            writer.close(&length);
            writer.close(&list);
        });
    }
    if let Some(protocol) = config.protocol {
        extension(&mut writer, PROTOCOLS, |writer| {
            let list = writer.open(2);
            let length = writer.open(1);
            writer.put(protocol);
            writer.close(&length);
            writer.close(&list);
        });
    }
    writer.close(&extensions);
    writer.close(&message);
    writer.close(&record);
    writer.finish()
}

fn extension(writer: &mut Writer<'_>, kind: u16, content: impl FnOnce(&mut Writer<'_>)) {
    writer.put_u16(kind);
    let length = writer.open(2);
    content(writer);
    writer.close(&length);
}

/// The server's share of the key agreement in its hello.
pub(crate) fn read_server_hello(body: &[u8]) -> Result<&[u8], TlsError> {
    let mut reader = Reader(body);
    let version = reader.number(2)?;
    let random = reader.take(32)?;
    let session = reader.vector(1)?;
    let suite = reader.number(2)?;
    let compression = reader.number(1)?;
    if reader.is_empty() {
        // TLS 1.2 and before need no extension; 1.3 does.
        return Err(TlsError::Unsupported);
    }
    let mut extensions = reader.vector(2)?;
    reader.end()?;
    if random == RETRY || suite != usize::from(SUITE) {
        return Err(TlsError::Unsupported);
    }
    let (mut chosen, mut share, mut unasked) = (None, None, false);
    while !extensions.is_empty() {
        let kind = extensions.number(2)?;
        let mut content = extensions.vector(2)?;
        let twice = if kind == usize::from(SUPPORTED_VERSIONS) {
            chosen.replace(content.number(2)?).is_some()
        } else if kind == usize::from(KEY_SHARE) {
            if content.number(2)? != usize::from(SECP256R1) {
                return Err(TlsError::Unsupported);
            }
            share.replace(content.vector(2)?.0).is_some()
        } else {
            // A hello of TLS 1.2 may hold others, and the version may stand behind them.
            unasked = true;
            continue;
        };
        content.end()?;
        if twice {
            return Err(ILLEGAL);
        }
    }
    if chosen != Some(usize::from(TLS_1_3)) {
        return Err(TlsError::Unsupported);
    }
    if unasked {
        return Err(UNASKED);
    }
    let share = share.ok_or(MALFORMED)?;
    // The point is there whole (RFC 8446 s4.2.8.2), and no session was named.
    if version != 0x0303 || compression != 0 || !session.is_empty() || share.len() != 65 {
        return Err(ILLEGAL);
    }
    Ok(share)
}

/// Checks `EncryptedExtensions`: nothing that was not asked for, nothing twice (RFC 8446 s4.2). Returns how long the text of a record
/// may be, in both directions.
pub(crate) fn read_extensions(body: &[u8], config: &Config<'_>, read_buffer: usize) -> Result<usize, TlsError> {
    let mut reader = Reader(body);
    let mut extensions = reader.vector(2)?;
    reader.end()?;
    let (mut text, mut seen) = (TEXT_MAX, 0_u32);
    while !extensions.is_empty() {
        let kind = extensions.number(2)?;
        let mut content = extensions.vector(2)?;
        // Those that can be asked for have numbers below 32.
        let bit = u32::try_from(kind).ok().and_then(|kind| 1_u32.checked_shl(kind)).unwrap_or_default();
        if seen & bit != 0 {
            return Err(ILLEGAL);
        }
        seen |= bit;
        match u16::try_from(kind).unwrap_or(u16::MAX) {
            PROTOCOLS => {
                let mut list = content.vector(2)?;
                let name = list.vector(1)?;
                list.end()?;
                content.end()?;
                if config.protocol != Some(name.0) {
                    return Err(TlsError::WrongProtocol);
                }
            }
            MAX_FRAGMENT_LENGTH => {
                let code = content.number(1)?;
                content.end()?;
                if fragment_code(read_buffer).map(usize::from) != Some(code) {
                    return Err(ILLEGAL);
                }
                text = 256 << code;
            }
            SERVER_NAME if host_name(config).is_some() => content.end()?,
            // Groups it would rather have (RFC 8446 s4.2.7).
            SUPPORTED_GROUPS => {}
            _ => return Err(UNASKED),
        }
    }
    Ok(text)
}

/// Whether a server that wants a certificate takes the signatures of this library (RFC 8446 s4.3.2).
pub(crate) fn read_request(body: &[u8]) -> Result<bool, TlsError> {
    let mut reader = Reader(body);
    // What it calls the request is for those behind the handshake.
    reader.vector(1)?.end()?;
    let mut extensions = reader.vector(2)?;
    reader.end()?;
    let mut usable = None;
    while !extensions.is_empty() {
        let kind = extensions.number(2)?;
        let mut content = extensions.vector(2)?;
        if kind == usize::from(SIGNATURE_ALGORITHMS) {
            let mut schemes = content.vector(2)?;
            content.end()?;
            let mut found = schemes.number(2)? == usize::from(ECDSA_P256);
            while !schemes.is_empty() {
                found |= schemes.number(2)? == usize::from(ECDSA_P256);
            }
            if usable.replace(found).is_some() {
                return Err(ILLEGAL);
            }
        }
    }
    usable.ok_or(MALFORMED)
}

/// The first certificate of a Certificate message (RFC 8446 s4.4.2).
pub(crate) fn leaf(body: &[u8]) -> Result<&[u8], TlsError> {
    let mut reader = Reader(body);
    reader.vector(1)?.end()?;
    let mut list = reader.vector(3)?;
    reader.end()?;
    let mut leaf = None;
    while !list.is_empty() {
        let certificate = list.vector(3)?;
        if certificate.is_empty() {
            return Err(MALFORMED);
        }
        if !list.vector(2)?.is_empty() {
            return Err(UNASKED);
        }
        leaf.get_or_insert(certificate.0);
    }
    leaf.ok_or(TlsError::NoCertificate)
}

/// Makes a plaintext alert of `code`. Returns its length.
pub(crate) fn write_alert(out: &mut [u8], code: u8) -> Result<usize, TlsError> {
    let (header, rest) = out.split_at_mut_checked(HEADER).ok_or(TlsError::BuffersTooSmall)?;
    write_header(header, crate::record::ALERT, 2);
    let mut writer = Writer::new(rest);
    writer.put(&[2, code]);
    writer.finish().map(|length| HEADER + length)
}
