//! The account a client certificate stands for.

use super::account::{AccountName, AccountNameError};
use super::der::{Der, OBJECT_IDENTIFIER, SEQUENCE, SET};
use crate::config::CertificateAccount;
use rustls_pki_types::CertificateDer;
use thiserror::Error;
use webpki::EndEntityCert;

/// A certificate names no account.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CertificateError {
    /// It cannot be read.
    #[error("the client certificate cannot be read: issue an X.509 version 3 certificate")]
    Malformed,
    /// It has no name of the kind that is taken.
    #[error(
        "the client certificate names no account: add the common name, or the subject alternative name URI:parlor:ACCOUNT, as auth.certificate_account says"
    )]
    NoName,
    /// It has several names of the kind that is taken.
    #[error("the client certificate has several names of the kind auth.certificate_account says: issue it with one")]
    Ambiguous,
    /// Its name is no account name.
    #[error("the client certificate is for {name:?}: {source}")]
    Name {
        /// The name found.
        name: String,
        /// What is wrong with it.
        source: AccountNameError,
    },
}

/// The account of a certificate (DER) the TLS layer has verified: the subject's common name, or of the subject
/// alternative names `URI:parlor:ACCOUNT` and without that the DNS name in lower case. Several of a kind are refused,
/// as it would be a guess which is meant.
pub fn certificate_account(der: &[u8], part: CertificateAccount) -> Result<AccountName, CertificateError> {
    let der = CertificateDer::from(der);
    let certificate = EndEntityCert::try_from(&der).map_err(|_| CertificateError::Malformed)?;
    match part {
        CertificateAccount::CommonName => {
            let names = common_names(certificate.subject()).ok_or(CertificateError::Malformed)?;
            account(only(names.into_iter())?.ok_or(CertificateError::NoName)?)
        }
        CertificateAccount::SubjectAltName => {
            let uris = certificate.valid_uri_names().filter_map(|uri| uri.strip_prefix("parlor:"));
            if let Some(name) = only(uris)? {
                return account(name);
            }
            let name = only(certificate.valid_dns_names())?.ok_or(CertificateError::NoName)?;
            account(&name.to_ascii_lowercase())
        }
    }
}

fn account(name: &str) -> Result<AccountName, CertificateError> {
    AccountName::parse(name).map_err(|source| CertificateError::Name { name: name.to_owned(), source })
}

fn only<'a>(mut names: impl Iterator<Item = &'a str>) -> Result<Option<&'a str>, CertificateError> {
    let first = names.next();
    if names.any(|other| Some(other) != first) { Err(CertificateError::Ambiguous) } else { Ok(first) }
}

/// The common names in the contents of a `Name` (RFC 5280 s4.1.2.4).
fn common_names(subject: &[u8]) -> Option<Vec<&str>> {
    const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
    const UTF8_STRING: u8 = 0x0C;
    const PRINTABLE_STRING: u8 = 0x13;
    const IA5_STRING: u8 = 0x16;
    let mut names = Vec::new();
    let mut subject = Der::new(subject);
    while !subject.is_empty() {
        let mut relative = Der::new(subject.expect(SET)?);
        while !relative.is_empty() {
            let mut attribute = Der::new(relative.expect(SEQUENCE)?);
            if attribute.expect(OBJECT_IDENTIFIER)? != COMMON_NAME {
                continue;
            }
            let (UTF8_STRING | PRINTABLE_STRING | IA5_STRING, value) = attribute.element()? else { return None };
            names.push(core::str::from_utf8(value).ok()?);
        }
    }
    Some(names)
}

#[cfg(test)]
mod tests;
