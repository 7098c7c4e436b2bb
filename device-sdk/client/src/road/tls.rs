//! Whom to trust, and whom to be.

use super::Login;
use crate::error::ConnectError;
use crate::options::{Identity, Options};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use std::path::Path;
use std::sync::Arc;

/// The client's side of TLS, with these application protocols.
pub(super) fn config(login: &Login, alpn: &[&[u8]]) -> Result<ClientConfig, ConnectError> {
    let Login { target, options, .. } = login;
    let failed = |error: rustls::Error| ConnectError::Tls { target: target.clone(), why: error.to_string() };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider));
    // RFC 9001 s4.2
    let versions = if target.scheme.is_quic() { &[&rustls::version::TLS13][..] } else { rustls::DEFAULT_VERSIONS };
    let builder = builder.with_protocol_versions(versions).map_err(failed)?;
    let builder = match &options.pin {
        Some(pin) => {
            let digest = read_pin(pin).ok_or_else(|| ConnectError::Pin(pin.clone()))?;
            builder.dangerous().with_custom_certificate_verifier(Arc::new(Pinned { digest, provider }))
        }
        None => builder.with_root_certificates(roots(options)?),
    };
    let mut config = match &options.identity {
        Some(identity) => {
            let (chain, key) = own(identity)?;
            let path = identity.certificates.clone();
            let wrong = |error: rustls::Error| ConnectError::Certificates { path, why: error.to_string() };
            builder.with_client_auth_cert(chain, key).map_err(wrong)?
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    Ok(config)
}

fn roots(options: &Options) -> Result<RootCertStore, ConnectError> {
    let mut roots = RootCertStore::empty();
    let Some(path) = &options.ca else {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        return if roots.is_empty() { Err(ConnectError::NoAuthorities) } else { Ok(roots) };
    };
    let failed = |why: String| ConnectError::Certificates { path: path.clone(), why };
    for certificate in certificates(path)? {
        roots.add(certificate).map_err(|error| failed(error.to_string()))?;
    }
    Ok(roots)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, ConnectError> {
    let failed = |why: String| ConnectError::Certificates { path: path.to_owned(), why };
    let all = CertificateDer::pem_file_iter(path).map_err(|error| failed(error.to_string()))?;
    let all: Vec<_> = all.collect::<Result<_, _>>().map_err(|error| failed(error.to_string()))?;
    if all.is_empty() { Err(failed("there is no certificate in it".to_owned())) } else { Ok(all) }
}

fn own(identity: &Identity) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), ConnectError> {
    let chain = certificates(&identity.certificates)?;
    let failed = |why: String| ConnectError::Certificates { path: identity.key.clone(), why };
    let key = PrivateKeyDer::from_pem_file(&identity.key).map_err(|error| failed(error.to_string()))?;
    Ok((chain, key))
}

/// 64 hexadecimal digits, with or without colons.
fn read_pin(pin: &str) -> Option<[u8; 32]> {
    let digits: String = pin.chars().filter(|c| *c != ':').collect();
    if digits.len() != 64 || !digits.is_ascii() {
        return None;
    }
    let mut digest = [0; 32];
    for (place, pair) in digest.iter_mut().zip(digits.as_bytes().chunks(2)) {
        let pair = std::str::from_utf8(pair).ok().filter(|pair| pair.bytes().all(|b| b.is_ascii_hexdigit()))?;
        *place = u8::from_str_radix(pair, 16).ok()?;
    }
    Some(digest)
}

/// Trusts one certificate, whatever it says.
#[derive(Debug)]
struct Pinned {
    digest: [u8; 32],
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let digest = ring::digest::digest(&ring::digest::SHA256, end_entity);
        if digest.as_ref() == self.digest {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(rustls::Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_is_a_digest() {
        let plain = "00ff".repeat(16);
        let colons: Vec<&str> = plain.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap()).collect();
        let digest = read_pin(&plain).unwrap();
        assert_eq!(digest[..4], [0, 255, 0, 255]);
        assert_eq!(read_pin(&colons.join(":").to_uppercase()), Some(digest));
        for bad in ["", "00", &"0".repeat(63), &"0g".repeat(32), &"+1".repeat(32), &"é".repeat(32)] {
            assert_eq!(read_pin(bad), None, "{bad}");
        }
    }
}
