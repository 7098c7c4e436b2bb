//! TLS 1.3 over any other transport.
//!
//! It is a client of this project's own, `parlor-device-tls`, and not embedded-tls, whose 0.19 was tried first. An authenticated peer makes
//! that one panic with a sealed handshake message behind the handshake, which no filter below can see; it reads again from the
//! middle of a record when a read is given up; it neither puts a handshake together that comes in pieces, nor says which protocol was
//! agreed on, nor changes keys.

use crate::error::LinkError;
use crate::transport::{Connector, Link};
use parlor_device_tls::{Tls, TlsError, TlsReader, TlsWriter};

pub use parlor_device_tls::{Config, Identity, Pin, TlsBuffers, Trust};

/// Makes links over the connections of another connector.
pub struct TlsConnector<'m, C> {
    inner: C,
    config: Config<'m>,
    rx: &'m mut [u8],
    tx: &'m mut [u8],
    entropy: fn(&mut [u8]),
}

impl<C: core::fmt::Debug> core::fmt::Debug for TlsConnector<'_, C> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("TlsConnector").field("inner", &self.inner).field("config", &self.config).finish_non_exhaustive()
    }
}

impl<'m, C> TlsConnector<'m, C> {
    /// Over `inner`. `RX` is the longest record that the broker sends (`tls.fragment_bytes` and 22 bytes), `TX` the longest that goes
    /// out, at least 300 bytes. `entropy` is the chip's generator of true random numbers.
    pub fn new<const RX: usize, const TX: usize>(
        inner: C,
        config: Config<'m>,
        buffers: &'m mut TlsBuffers<RX, TX>,
        entropy: fn(&mut [u8]),
    ) -> Self {
        let (rx, tx) = buffers.halves();
        Self { inner, config, rx, tx, entropy }
    }
}

impl<C: Connector> Connector for TlsConnector<'_, C> {
    type Link<'a>
        = TlsOver<'a, C::Link<'a>>
    where
        Self: 'a;

    async fn connect(&mut self) -> Result<Self::Link<'_>, LinkError> {
        let mut link = self.inner.connect().await?;
        let (mut reader, mut writer) = link.split();
        let opened = Tls::open(&mut reader, &mut writer, &self.config, self.rx, self.tx, self.entropy).await;
        drop((reader, writer));
        Ok(TlsOver { link, tls: opened.map_err(link_error)? })
    }
}

/// A link over another one.
pub struct TlsOver<'b, L> {
    link: L,
    tls: Tls<'b>,
}

impl<L> core::fmt::Debug for TlsOver<'_, L> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("TlsOver")
    }
}

impl<'b, L: Link> Link for TlsOver<'b, L> {
    type Read<'a>
        = TlsReader<'a, 'b, L::Read<'a>>
    where
        Self: 'a;
    type Write<'a>
        = TlsWriter<'a, 'b, L::Write<'a>>
    where
        Self: 'a;

    fn split(&mut self) -> (Self::Read<'_>, Self::Write<'_>) {
        let (reader, writer) = self.link.split();
        self.tls.split(reader, writer)
    }

    fn why<'a>(error: &TlsError) -> LinkError
    where
        Self: 'a,
    {
        link_error(*error)
    }
}

fn link_error(error: TlsError) -> LinkError {
    match error {
        TlsError::Socket(_) | TlsError::Cut | TlsError::Closed => LinkError::Closed,
        TlsError::WrongPin => LinkError::WrongPin,
        TlsError::UnknownAuthority | TlsError::WrongName => LinkError::CertificateUnknown,
        TlsError::NoCertificate | TlsError::NoProof | TlsError::WrongProof => LinkError::NotAuthenticated,
        TlsError::TooLarge => LinkError::TooLarge,
        // Alerts of RFC 8446 s6.2: certificate_revoked, certificate_expired.
        TlsError::RefusedClientCertificate(44) => LinkError::CredentialsRevoked,
        TlsError::RefusedClientCertificate(45) => LinkError::CredentialsExpired,
        TlsError::RefusedClientCertificate(_) => LinkError::CredentialsRefused,
        _ => LinkError::Tls,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Behind the handshake as in it, a refused certificate is not mistaken for a lost connection.
    #[test]
    fn refusals_have_their_reasons() {
        for (code, expect) in [
            (44, LinkError::CredentialsRevoked),
            (45, LinkError::CredentialsExpired),
            (48, LinkError::CredentialsRefused),
            (116, LinkError::CredentialsRefused),
        ] {
            assert_eq!(link_error(TlsError::RefusedClientCertificate(code)), expect);
        }
        for error in [TlsError::Cut, TlsError::Closed] {
            assert_eq!(link_error(error), LinkError::Closed);
        }
        assert_eq!(link_error(TlsError::Alert(40)), LinkError::Tls);
        assert_eq!(link_error(TlsError::Forged), LinkError::Tls);
    }
}
