//! Keys that sign firmware: Ed25519 (RFC 8032), the private half in a PEM file that other programs read too.

use base64ct::{Base64, Encoding};
use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{Ed25519KeyPair, KeyPair};
use rustls_pki_types::PrivatePkcs8KeyDer;
use rustls_pki_types::pem::PemObject;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};

/// A private key in PKCS#8 (RFC 8410 s7) but for its 32 bytes, which come last.
const PKCS8_HEAD: [u8; 16] = [0x30, 0x2E, 2, 1, 0, 0x30, 5, 6, 3, 0x2B, 0x65, 0x70, 4, 0x22, 4, 0x20];
/// Bytes of a private key.
const SEED_BYTES: usize = 32;

/// A key cannot be made or used.
#[derive(Debug, thiserror::Error)]
pub(super) enum KeyError {
    #[error("{} exists already, and devices may trust it: choose another name or move it away", .0.display())]
    Exists(PathBuf),
    #[error("cannot use {}: {error}", .path.display())]
    File { path: PathBuf, error: io::Error },
    #[error("{} holds no private key for Ed25519 (PKCS#8, PEM); `parlor blob key FILE` makes one", .0.display())]
    Unusable(PathBuf),
    #[error("the operating system gave no random bytes")]
    Random,
}

/// A key that signs.
#[derive(Debug)]
pub(super) struct Key(Ed25519KeyPair);

impl Key {
    /// Makes a key and writes its private half to a new file that its owner alone can read.
    pub(super) fn make(path: &Path) -> Result<Self, KeyError> {
        let mut seed = [0; SEED_BYTES];
        SystemRandom::new().fill(&mut seed).map_err(|_| KeyError::Random)?;
        let key = Ed25519KeyPair::from_seed_unchecked(&seed).map_err(|_| KeyError::Random)?;
        let text = pem(&[&PKCS8_HEAD[..], &seed].concat());
        private_new(path).and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all())).map_err(
            |error| match error.kind() {
                ErrorKind::AlreadyExists => KeyError::Exists(path.to_owned()),
                _ => KeyError::File { path: path.to_owned(), error },
            },
        )?;
        Ok(Self(key))
    }

    /// Reads the private half.
    pub(super) fn read(path: &Path) -> Result<Self, KeyError> {
        let text = std::fs::read(path).map_err(|error| KeyError::File { path: path.to_owned(), error })?;
        let unusable = || KeyError::Unusable(path.to_owned());
        let der = PrivatePkcs8KeyDer::from_pem_slice(&text).map_err(|_| unusable())?;
        let key = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der.secret_pkcs8_der()).map_err(|_| unusable())?;
        Ok(Self(key))
    }

    /// Signs the digest of a blob: the 32 bytes themselves. Base64.
    pub(super) fn sign(&self, digest: &[u8]) -> String {
        Base64::encode_string(self.0.sign(digest).as_ref())
    }

    /// The public half: in hex, and as Rust writes it for the firmware.
    pub(super) fn public(&self) -> (String, String) {
        let bytes = self.0.public_key().as_ref();
        let mut hex = String::new();
        let mut rust = String::from("[u8; 32] = [");
        for (at, byte) in bytes.iter().enumerate() {
            let _ = write!(hex, "{byte:02x}");
            let _ = write!(rust, "{}0x{byte:02x},", if at % 8 == 0 { "\n    " } else { " " });
        }
        rust.push_str("\n];");
        (hex, rust)
    }
}

/// A file that was not there before, for its owner only.
fn private_new(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    File::options().write(true).create_new(true).mode(0o600).open(path)
}

fn pem(der: &[u8]) -> String {
    let mut text = String::from("-----BEGIN PRIVATE KEY-----\n");
    let body = Base64::encode_string(der);
    for (at, c) in body.chars().enumerate() {
        if at > 0 && at % 64 == 0 {
            text.push('\n');
        }
        text.push(c);
    }
    text.push_str("\n-----END PRIVATE KEY-----\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn path(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("parlor-key-{}-{name}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        path
    }

    #[test]
    fn what_was_made_is_read_again_and_signs_for_the_public_half() {
        let path = path("made.pem");
        let made = Key::make(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(matches!(Key::make(&path), Err(KeyError::Exists(_))));
        let read = Key::read(&path).unwrap();
        assert_eq!(read.public(), made.public());
        let (digest, signature) = ([7; 32], Base64::decode_vec(&read.sign(&[7; 32])).unwrap());
        let public = ring::signature::UnparsedPublicKey::new(&ring::signature::ED25519, made.0.public_key().as_ref());
        assert!(public.verify(&digest, &signature).is_ok() && public.verify(&[8; 32], &signature).is_err());
        let (hex, rust) = made.public();
        assert_eq!((hex.len(), rust.matches("0x").count()), (64, 32));
        std::fs::remove_file(&path).unwrap();
    }

    /// The key of RFC 8410 s10.3.
    #[test]
    fn keys_of_other_programs_are_read() {
        let path = path("rfc.pem");
        let text = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n\
                    -----END PRIVATE KEY-----\n";
        std::fs::write(&path, text).unwrap();
        let (hex, _) = Key::read(&path).unwrap().public();
        assert_eq!(hex, "19bf44096984cdfe8541bac167dc3b96c85086aa30b6b6cb0c5c38ad703166e1");
        assert_eq!(
            pem(&Base64::decode_vec("MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC").unwrap()),
            text
        );
        std::fs::write(&path, text.replace("MC4C", "MC4D")).unwrap();
        assert!(matches!(Key::read(&path), Err(KeyError::Unusable(_))));
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(Key::read(&path), Err(KeyError::File { .. })));
    }
}
