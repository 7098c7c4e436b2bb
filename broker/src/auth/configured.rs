//! What the configuration file says about clients and rights, in the form it is used.

use super::connect_token::ConnectTokens;
use super::jwt::{JwtConfig, JwtKey, KeyFileError};
use super::{Accounts, AuthConfig, Authenticator, Secret, SetupError, UnknownAccounts, salt_secret};
use crate::config::Auth;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use thiserror::Error;

/// The key file for tokens cannot be used.
#[derive(Debug, Error)]
pub enum KeyReadError {
    /// It cannot be read.
    #[error("auth.jwt.key_file {}: {error}; it must exist and be readable by the broker", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
    /// It does not hold what it should.
    #[error("auth.jwt.key_file {}: {error}", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        error: KeyFileError,
    },
}

/// The authenticator could not be made from the configuration.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The file behind the salts of unknown accounts cannot be read or made.
    #[error("{}: {error}; the data directory must be writable by the broker", path.display())]
    Salts {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
    /// The key of connect tokens cannot be read.
    #[error("{}: {error}; it must be readable by the broker", path.display())]
    TokenKey {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
    /// The key file for tokens cannot be used.
    #[error(transparent)]
    Key(#[from] KeyReadError),
    /// The rest.
    #[error(transparent)]
    Setup(#[from] SetupError),
}

/// File in the data directory with the secret behind [`AuthConfig::salt_secret`].
const SALTS_FILE: &str = "salts.key";
/// File in the data directory with the key connect tokens are signed with; made with the first one.
const TOKEN_KEY_FILE: &str = "tokens.key";

impl AuthConfig {
    /// What the `[auth]` table says; reads the key file for tokens. Tokens may name accounts that are not in the store,
    /// certificates may not.
    pub fn read(config: &Auth, salt_secret: Secret<[u8; 32]>) -> Result<Self, KeyReadError> {
        let mut auth = Self::new(salt_secret);
        auth.slowdown = (&config.slow_down).into();
        auth.passwords = config.passwords;
        if let Some(jwt) = &config.jwt {
            let path = || jwt.key_file.clone();
            let contents = std::fs::read(&jwt.key_file).map_err(|error| KeyReadError::Io { path: path(), error })?;
            let keys = JwtKey::read_file(jwt.algorithm, &contents)
                .map_err(|error| KeyReadError::Key { path: path(), error })?;
            auth.jwt = Some(JwtConfig {
                keys,
                issuer: jwt.issuer.clone(),
                audience: jwt.audience.clone(),
                account_claim: jwt.account_claim.clone(),
                groups_claim: jwt.groups_claim.clone(),
                leeway_secs: jwt.leeway_secs.into(),
                accounts: UnknownAccounts::Accept,
            });
        }
        Ok(auth)
    }
}

impl Authenticator {
    /// The authenticator of a broker: `config` is the `[auth]` table, `data` the data directory.
    pub fn open(config: &Auth, data: &Path, accounts: Arc<Accounts>) -> Result<Self, OpenError> {
        let path = data.join(SALTS_FILE);
        let secret = salt_secret(&path).map_err(|error| OpenError::Salts { path, error })?;
        let path = data.join(TOKEN_KEY_FILE);
        let tokens = ConnectTokens::open(path.clone()).map_err(|error| OpenError::TokenKey { path, error })?;
        Ok(Self { tokens, ..Self::new(accounts, AuthConfig::read(config, secret)?)? })
    }

    /// Uses another `[auth]` table from now on, key file included; after an error everything stays as it was.
    pub fn reread(&self, config: &Auth) -> Result<(), KeyReadError> {
        let secret = self.settings().config.salt_secret.clone();
        self.reload(AuthConfig::read(config, secret)?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::PasswordParams;
    use crate::config::{CertificateAccount, Jwt, JwtAlgorithm, SlowDown};

    #[test]
    fn the_auth_table_is_taken_over_and_its_key_file_read() {
        let directory = std::env::temp_dir().join(format!("parlor-auth-configured-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let key_file = directory.join("jwt.key");
        let config = Auth {
            allow_anonymous: false,
            jwt: Some(Jwt {
                key_file: key_file.clone(),
                algorithm: JwtAlgorithm::Hs256,
                issuer: Some("i".into()),
                audience: None,
                account_claim: "account".into(),
                groups_claim: "roles".into(),
                leeway_secs: 7,
            }),
            slow_down: SlowDown { free_failures: 3, first_delay_ms: 250, max_delay_secs: 30, forget_secs: 10 },
            passwords: PasswordParams { passes: 3, ..PasswordParams::default() },
            certificate_account: CertificateAccount::CommonName,
        };
        let read = || AuthConfig::read(&config, Secret::new([1; 32]));
        assert!(matches!(read(), Err(KeyReadError::Io { .. })));
        std::fs::write(&key_file, "short").unwrap();
        assert!(matches!(read(), Err(KeyReadError::Key { error: KeyFileError::ShortSecret, .. })));
        std::fs::write(&key_file, "a secret of thirty-two bytes and more\n").unwrap();
        let auth = read().unwrap();
        let authenticator = Authenticator::open(&config, &directory, Arc::default()).unwrap();
        let secret = || *authenticator.settings().config.salt_secret.reveal();
        let before = secret();
        let tokenless = Auth { jwt: None, ..config.clone() };
        authenticator.reread(&tokenless).unwrap();
        assert!(authenticator.settings().config.jwt.is_none());
        authenticator.reread(&config).unwrap();
        std::fs::write(&key_file, "short").unwrap();
        assert!(authenticator.reread(&config).is_err());
        assert!(authenticator.settings().config.jwt.is_some());
        assert_eq!(secret(), before);
        let again = Authenticator::open(&tokenless, &directory, Arc::default()).unwrap();
        assert_eq!(*again.settings().config.salt_secret.reveal(), before, "the secret outlives the process");
        std::fs::remove_dir_all(&directory).unwrap();
        let jwt = auth.jwt.unwrap();
        assert_eq!((jwt.keys.len(), jwt.issuer.as_deref(), jwt.audience, jwt.leeway_secs), (1, Some("i"), None, 7));
        assert_eq!((jwt.account_claim.as_str(), jwt.groups_claim.as_str()), ("account", "roles"));
        assert_eq!(auth.passwords, config.passwords);
        assert_eq!((auth.slowdown.pair_free, auth.slowdown.first_wait_ms), (3, 250));
        assert_eq!((auth.slowdown.longest_wait_ms, auth.slowdown.forget_ms), (30_000, 30_000));
    }
}
