//! The key schedule (RFC 8446 s7.1) for SHA-256.

use crate::cursor::Writer;
use hkdf::Hkdf;
use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};

pub(crate) type Hash = [u8; 32];

/// HKDF-Expand-Label.
pub(crate) fn expand(secret: &Hash, label: &[u8], context: &[u8], out: &mut [u8]) {
    let mut info = [0; 64];
    let mut writer = Writer::new(&mut info);
    writer.put(&[0, u8::try_from(out.len()).unwrap_or(u8::MAX)]);
    let hole = writer.open(1);
    writer.put(b"tls13 ");
    writer.put(label);
    writer.close(&hole);
    let hole = writer.open(1);
    writer.put(context);
    writer.close(&hole);
    let length = writer.finish().expect("labels have at most 12 bytes and contexts 32");
    Hkdf::<Sha256>::from_prk(secret)
        .and_then(|hkdf| hkdf.expand(&info[..length], out).map_err(|_| hkdf::InvalidPrkLength))
        .expect("a secret of 32 bytes is a key, and no output is longer than 32 bytes");
}

fn derive(secret: &Hash, label: &[u8], transcript: &Hash) -> Hash {
    let mut out = [0; 32];
    expand(secret, label, transcript, &mut out);
    out
}

fn extract(salt: &Hash, input: &[u8]) -> Hash {
    Hkdf::<Sha256>::extract(Some(salt), input).0.into()
}

/// HMAC of a transcript with the key that ends the handshake (RFC 8446 s4.4.4).
pub(crate) fn finished(traffic: &Hash, transcript: &Hash) -> Hmac<Sha256> {
    let mut key = [0; 32];
    expand(traffic, b"finished", b"", &mut key);
    let mut mac = <Hmac<Sha256> as Mac>::new_from_slice(&key).expect("HMAC takes keys of every length");
    mac.update(transcript);
    mac
}

/// The secrets of both directions, client's first.
pub(crate) struct Traffic {
    pub(crate) client: Hash,
    pub(crate) server: Hash,
}

/// The handshake's secrets, and what the application's are made of.
pub(crate) fn handshake(shared: &[u8], transcript: &Hash) -> (Traffic, Hash) {
    let empty: Hash = Sha256::digest(b"").into();
    let early = extract(&[0; 32], &[0; 32]);
    let secret = extract(&derive(&early, b"derived", &empty), shared);
    let traffic = Traffic {
        client: derive(&secret, b"c hs traffic", transcript),
        server: derive(&secret, b"s hs traffic", transcript),
    };
    (traffic, extract(&derive(&secret, b"derived", &empty), &[0; 32]))
}

/// The application's secrets.
pub(crate) fn application(master: &Hash, transcript: &Hash) -> Traffic {
    Traffic { client: derive(master, b"c ap traffic", transcript), server: derive(master, b"s ap traffic", transcript) }
}

/// The secret after this one (RFC 8446 s7.2).
pub(crate) fn next(traffic: &Hash) -> Hash {
    let mut out = [0; 32];
    expand(traffic, b"traffic upd", b"", &mut out);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> std::vec::Vec<u8> {
        let digits: std::vec::Vec<u8> =
            text.chars().filter_map(|c| c.to_digit(16)).map(|digit| u8::try_from(digit).unwrap()).collect();
        digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
    }

    /// RFC 8448 s3, "Simple 1-RTT Handshake".
    #[test]
    fn the_trace_of_rfc_8448() {
        let shared = hex("8bd4054fb55b9d63fdfbacf9f04b9f0d35e6d63f537563efd46272900f89492d");
        let transcript: Hash =
            hex("860c06edc07858ee8e78f0e7428c58edd6b43f2ca3e6e95f02ed063cf0e1cad8").try_into().unwrap();
        let (traffic, master) = handshake(&shared, &transcript);
        assert_eq!(master.to_vec(), hex("18df06843d13a08bf2a449844c5f8a478001bc4d4c627984d5a41da8d0402919"));
        assert_eq!(traffic.client.to_vec(), hex("b3eddb126e067f35a780b3abf45e2d8f3b1a950738f52e9600746a0e27a55a21"));
        assert_eq!(traffic.server.to_vec(), hex("b67b7d690cc16c4e75e54213cb2d37b4e9c912bcded9105d42befd59d391ad38"));
        let mut key = [0; 16];
        expand(&traffic.server, b"key", b"", &mut key);
        assert_eq!(key.to_vec(), hex("3fce516009c21727d0f2e4e86ee403bc"));
        // Up to CertificateVerify, and up to Finished.
        let proved: Hash = hex("edb7725fa7a3473b031ec8ef65a2485493900138a2b91291407d7951a06110ed").try_into().unwrap();
        assert_eq!(
            finished(&traffic.server, &proved).finalize().into_bytes().to_vec(),
            hex("9b9b141d906337fbd2cbdce71df4deda4ab42c309572cb7fffee5454b78f0718")
        );
        let whole: Hash = hex("9608102a0f1ccc6db6250b7b7e417b1a000eaada3daae4777a7686c9ff83df13").try_into().unwrap();
        let traffic = application(&master, &whole);
        assert_eq!(traffic.client.to_vec(), hex("9e40646ce79a7f9dc05af8889bce6552875afa0b06df0087f792ebb7c17504a5"));
        assert_eq!(traffic.server.to_vec(), hex("a11af9f05531f856ad47116b45a950328204b4f44bfb6b3a4b4f1f3fcb631643"));
    }
}
