//! The account a client certificate stands for.

use super::account::{AccountName, AccountNameError};
use super::der::{Der, OBJECT_IDENTIFIER, SEQUENCE, SET};
use rustls_pki_types::CertificateDer;
use thiserror::Error;
use webpki::EndEntityCert;

/// A certificate names no account.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CertificateError {
    /// It cannot be read.
    #[error("the client certificate cannot be read: issue an X.509 version 3 certificate")]
    Malformed,
    /// It has no name to take.
    #[error("the client certificate names no account: add a subject alternative name parlor:ACCOUNT or a common name")]
    NoName,
    /// It has several names of the kind that would be taken.
    #[error("the client certificate has several names: add one subject alternative name parlor:ACCOUNT")]
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

/// The account of a certificate the TLS layer has verified: the subject alternative name `URI:parlor:ACCOUNT`; without
/// one, the DNS name (in lower case); without one, the common name of the subject. Several of a kind are refused, as it
/// would be a guess which is meant.
pub fn certificate_account(der: &[u8]) -> Result<AccountName, CertificateError> {
    let der = CertificateDer::from(der);
    let certificate = EndEntityCert::try_from(&der).map_err(|_| CertificateError::Malformed)?;
    let named = only(certificate.valid_uri_names().filter_map(|uri| uri.strip_prefix("parlor:")))?;
    if let Some(name) = named {
        return account(name);
    }
    if let Some(name) = only(certificate.valid_dns_names())? {
        return account(&name.to_ascii_lowercase());
    }
    let names = common_names(certificate.subject()).ok_or(CertificateError::Malformed)?;
    account(only(names.into_iter())?.ok_or(CertificateError::NoName)?)
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
