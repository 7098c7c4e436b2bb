//! Certificates for the demo: a small authority of its own, made at the first start and kept in the data directory.

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Names under which the demo is reached.
const NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// Where they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DemoTls {
    /// The authority, for clients to trust.
    pub(super) ca: PathBuf,
    /// The server's certificate.
    pub(super) certificate: PathBuf,
    /// Its key.
    pub(super) key: PathBuf,
}

/// They could not be made.
#[derive(Debug, thiserror::Error)]
pub(super) enum DemoTlsError {
    /// A file could not be written.
    #[error("{}: {error}; choose another directory with --data", path.display())]
    File {
        /// The file, or the directory.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The library refused.
    #[error(
        "the demo's certificates could not be made: {0}; start it with --listen mqtt://127.0.0.1:1883, which needs none"
    )]
    Made(#[from] rcgen::Error),
}

impl DemoTls {
    /// Those of this data directory, made if one is missing.
    pub(super) fn in_directory(data: &Path) -> Result<Self, DemoTlsError> {
        let files = Self {
            ca: data.join("demo-ca.pem"),
            certificate: data.join("demo-cert.pem"),
            key: data.join("demo-key.pem"),
        };
        if [&files.ca, &files.certificate, &files.key].into_iter().all(|path| path.exists()) {
            return Ok(files);
        }
        fs::create_dir_all(data).map_err(|error| DemoTlsError::File { path: data.to_owned(), error })?;
        let ca_key = KeyPair::generate()?;
        let mut ca = CertificateParams::new(Vec::new())?;
        ca.distinguished_name.push(DnType::CommonName, "Parlor demo authority");
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let ca_text = ca.self_signed(&ca_key)?.pem();
        let key = KeyPair::generate()?;
        let mut server = CertificateParams::new(NAMES.map(str::to_owned))?;
        server.distinguished_name.push(DnType::CommonName, "Parlor demo");
        server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        server.use_authority_key_identifier_extension = true;
        // The authority's own key is not kept: nobody can make another certificate of it.
        let certificate = server.signed_by(&key, &Issuer::new(ca, ca_key))?.pem();
        write(&files.key, &key.serialize_pem(), 0o600)?;
        write(&files.certificate, &certificate, 0o644)?;
        write(&files.ca, &ca_text, 0o644)?;
        Ok(files)
    }
}

fn write(path: &Path, text: &str, mode: u32) -> Result<(), DemoTlsError> {
    let mut options = File::options();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, mode);
    #[cfg(not(unix))]
    let _ = mode;
    let written = options.open(path).and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|error| DemoTlsError::File { path: path.to_owned(), error })
}
