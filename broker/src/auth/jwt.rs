//! JSON Web Tokens (RFC 7519) as passwords: `EdDSA` with Ed25519, RS256 and HS256.
//!
//! The key decides the algorithm, and the configuration says which one it is: a token that names another is refused
//! before anything is computed, so that a public key is never taken for a shared secret.

use super::account::{AccountName, AccountNameError};
use super::der::{BIT_STRING, Der, INTEGER, OBJECT_IDENTIFIER, SEQUENCE};
use crate::config::JwtAlgorithm;
use base64ct::{Base64UrlUnpadded, Encoding};
use core::fmt;
use parlor_core::access::is_group_name;
use ring::{hmac, signature};
use rustls_pki_types::pem::{SectionKind, SliceIter};
use serde_json::{Map, Value};
use thiserror::Error;

/// Longest token looked at, bytes.
const TOKEN_BYTES_MAX: usize = 16_384;
/// Shortest shared secret, bytes: that of the hash (RFC 7518 s3.2).
const SECRET_BYTES_MIN: usize = 32;
/// Most groups taken from one token.
const GROUPS_MAX: usize = 64;
/// Most keys in one file.
const KEYS_MAX: usize = 16;

/// Claim with the token epoch of an account.
pub(super) const EPOCH_CLAIM: &str = "epoch";

const ED25519: &[u8] = &[0x2B, 0x65, 0x70];
const RSA_ENCRYPTION: &[u8] = &[0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 0x01, 0x01, 0x01];

/// What tokens must look like.
#[derive(Debug, Clone)]
pub struct JwtConfig {
    /// Keys tokens may be signed with; several while keys change.
    pub keys: Vec<JwtKey>,
    /// What `iss` must be, if given.
    pub issuer: Option<String>,
    /// What `aud` must be or contain, if given.
    pub audience: Option<String>,
    /// Claim that names the account, usually `sub`.
    pub account_claim: String,
    /// Claim with the groups, a list of texts, usually `groups`.
    pub groups_claim: String,
    /// How early `nbf` may be, seconds, for clocks that differ. `exp` gets no leeway.
    pub leeway_secs: u64,
    /// Whether the account named must be one of the store.
    pub accounts: super::UnknownAccounts,
}

/// A key tokens may be signed with; it decides the algorithm.
#[derive(Clone)]
pub struct JwtKey(Kind);

#[derive(Clone)]
enum Kind {
    Ed25519(signature::UnparsedPublicKey<Vec<u8>>),
    Rs256(signature::UnparsedPublicKey<Vec<u8>>),
    Hs256(hmac::Key),
}

impl fmt::Debug for JwtKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JwtKey({})", self.alg())
    }
}

/// A key file cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum KeyFileError {
    /// It is not well-formed PEM, or has no PEM section.
    #[error(
        "the key file is damaged PEM: it must have BEGIN PUBLIC KEY and END PUBLIC KEY lines with base64 between them"
    )]
    Pem,
    /// It holds a private key.
    #[error(
        "the key file holds a private key, which the broker does not need: write the public key, `openssl pkey -pubout`"
    )]
    PrivateKey,
    /// It holds a PEM section of another kind.
    #[error(
        "the key file holds something other than public keys: write PUBLIC KEY sections only, `openssl pkey -pubout`"
    )]
    OtherSection,
    /// A public key of another algorithm.
    #[error("the public key is not one for the algorithm configured: EdDSA needs an Ed25519 key, RS256 an RSA key")]
    OtherAlgorithm,
    /// A public key, or nothing that could be one, where the other was to be.
    #[error(
        "HS256 needs a shared secret nobody else knows, and EdDSA and RS256 a PEM public key: the file holds the other kind"
    )]
    OtherKind,
    /// RSA of a size nobody should use.
    #[error("the RSA key is not of 2048 to 8192 bits: make one of 2048 bits or more")]
    RsaSize,
    /// It looks like a key in binary form.
    #[error(
        "the key file looks like a binary (DER) or JSON key: convert it to PEM, or for HS256 write the secret alone"
    )]
    NotASecret,
    /// The shared secret is too short.
    #[error("the HS256 secret is too short: write at least 32 random bytes, `openssl rand -base64 48`")]
    ShortSecret,
    /// More keys than are looked through.
    #[error("the key file holds more than 16 keys: remove those no longer in use")]
    TooManyKeys,
}

impl JwtKey {
    /// The key of `HS256` with this secret.
    pub(super) fn hs256(secret: &[u8; 32]) -> Self {
        Self(Kind::Hs256(hmac::Key::new(hmac::HMAC_SHA256, secret)))
    }

    /// Reads a key file: for `EdDSA` and `RS256` one or more PEM `PUBLIC KEY` sections, for `HS256` the secret as it is,
    /// without the line end that follows it.
    ///
    /// A public key in any form is refused as a secret: everybody knows it.
    pub fn read_file(algorithm: JwtAlgorithm, contents: &[u8]) -> Result<Vec<Self>, KeyFileError> {
        let is_pem = contains(contents, b"-----BEGIN");
        if is_pem == (algorithm == JwtAlgorithm::Hs256) {
            return Err(KeyFileError::OtherKind);
        }
        if is_pem {
            let keys = Self::read_pem(contents)?;
            let is_other = keys.iter().any(|key| key.algorithm() != algorithm);
            return if is_other { Err(KeyFileError::OtherAlgorithm) } else { Ok(keys) };
        }
        let secret = contents.strip_suffix(b"\n").unwrap_or(contents);
        let secret = secret.strip_suffix(b"\r").unwrap_or(secret);
        let mut der = Der::new(contents);
        let is_der = der.expect(SEQUENCE).is_some() && der.is_empty();
        if is_der || contains(contents, b"\"kty\"") || contents.starts_with(b"ssh-") {
            return Err(KeyFileError::NotASecret);
        }
        if secret.len() < SECRET_BYTES_MIN {
            return Err(KeyFileError::ShortSecret);
        }
        Ok(vec![Self(Kind::Hs256(hmac::Key::new(hmac::HMAC_SHA256, secret)))])
    }

    fn read_pem(contents: &[u8]) -> Result<Vec<Self>, KeyFileError> {
        let mut keys = Vec::new();
        // Sections of kinds the reader does not know are skipped by it; counting finds them.
        let sections = contents.windows(10).filter(|w| w == b"-----BEGIN").count();
        for section in SliceIter::<(SectionKind, Vec<u8>)>::new(contents) {
            match section.map_err(|_| KeyFileError::Pem)? {
                (SectionKind::PublicKey, der) => keys.push(Self::read_spki(&der)?),
                (SectionKind::PrivateKey | SectionKind::RsaPrivateKey | SectionKind::EcPrivateKey, _) => {
                    return Err(KeyFileError::PrivateKey);
                }
                _ => return Err(KeyFileError::OtherSection),
            }
        }
        if keys.len() != sections {
            return Err(KeyFileError::OtherSection);
        }
        if keys.len() > KEYS_MAX {
            return Err(KeyFileError::TooManyKeys);
        }
        Ok(keys)
    }

    /// Reads a `SubjectPublicKeyInfo` (RFC 5280 s4.1).
    fn read_spki(der: &[u8]) -> Result<Self, KeyFileError> {
        let parts = || {
            let mut outer = Der::new(der);
            let mut info = Der::new(outer.expect(SEQUENCE)?);
            let mut algorithm = Der::new(info.expect(SEQUENCE)?);
            let (&0, key) = info.expect(BIT_STRING)?.split_first()? else { return None };
            (outer.is_empty() && info.is_empty()).then_some((algorithm.expect(OBJECT_IDENTIFIER)?, key))
        };
        let (algorithm, key) = parts().ok_or(KeyFileError::Pem)?;
        let public = |algorithm| signature::UnparsedPublicKey::new(algorithm, key.to_vec());
        match algorithm {
            ED25519 if key.len() == 32 => Ok(Self(Kind::Ed25519(public(&signature::ED25519)))),
            RSA_ENCRYPTION => {
                let bits = rsa_bits(key).ok_or(KeyFileError::Pem)?;
                if !(2_048..=8_192).contains(&bits) {
                    return Err(KeyFileError::RsaSize);
                }
                Ok(Self(Kind::Rs256(public(&signature::RSA_PKCS1_2048_8192_SHA256))))
            }
            _ => Err(KeyFileError::OtherAlgorithm),
        }
    }

    /// The one algorithm this key is for.
    pub fn algorithm(&self) -> JwtAlgorithm {
        match self.0 {
            Kind::Ed25519(_) => JwtAlgorithm::EdDsa,
            Kind::Rs256(_) => JwtAlgorithm::Rs256,
            Kind::Hs256(_) => JwtAlgorithm::Hs256,
        }
    }

    /// The value of `alg` in tokens this key signs (RFC 7518 s3.1, RFC 8037 s3.1).
    fn alg(&self) -> &'static str {
        match self.0 {
            Kind::Ed25519(_) => "EdDSA",
            Kind::Rs256(_) => "RS256",
            Kind::Hs256(_) => "HS256",
        }
    }

    fn has_signed(&self, message: &[u8], signature: &[u8]) -> bool {
        match &self.0 {
            Kind::Ed25519(key) | Kind::Rs256(key) => key.verify(message, signature).is_ok(),
            Kind::Hs256(key) => hmac::verify(key, message, signature).is_ok(),
        }
    }
}

/// Bits of the modulus of an `RSAPublicKey` (RFC 8017 A.1.1).
fn rsa_bits(key: &[u8]) -> Option<usize> {
    let mut numbers = Der::new(Der::new(key).expect(SEQUENCE)?);
    let modulus = numbers.expect(INTEGER)?;
    let modulus = modulus.strip_prefix(&[0]).unwrap_or(modulus);
    let first = usize::try_from(modulus.first()?.leading_zeros()).ok()?;
    Some(modulus.len() * 8 - first)
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|w| w == part)
}

/// What a good token says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Claims {
    pub(super) account: AccountName,
    /// `None`: the token does not say.
    pub(super) groups: Option<Vec<String>>,
    pub(super) expires_at_ms: u64,
    /// The account's token epoch when it was issued; in connect tokens only.
    pub(super) epoch: Option<u64>,
}

/// A token was not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(super) enum TokenError {
    #[error("the token cannot be read")]
    Malformed,
    #[error("no key is for the algorithm the token names")]
    Algorithm,
    #[error("the token demands an extension that is not known")]
    Critical,
    #[error("no key has signed the token")]
    Signature,
    #[error("the token has no expiry")]
    NoExpiry,
    #[error("the token has expired")]
    Expired,
    #[error("the token is not valid yet")]
    NotYet,
    #[error("the token is of another issuer")]
    Issuer,
    #[error("the token is for another audience")]
    Audience,
    #[error("the subject of the token is no account name")]
    Subject(#[from] AccountNameError),
    #[error("the groups of the token are not a list of at most 64 group names")]
    Groups,
}

/// Whether a password is a token rather than a password: three parts, the first of which is the base64 of `{"`.
pub(super) fn looks_like_token(password: &[u8]) -> bool {
    password.starts_with(b"eyJ") && password.split(|&b| b == b'.').count() == 3
}

/// The `kid` of a token's header (RFC 7515 s4.1.4). Nothing vouches for it yet.
pub(super) fn key_id(token: &[u8]) -> Option<String> {
    if token.len() > TOKEN_BYTES_MAX {
        return None;
    }
    let header = token.split(|&byte| byte == b'.').next()?;
    object(core::str::from_utf8(header).ok()?).ok()?.get("kid")?.as_str().map(str::to_owned)
}

/// Checks a token and says what it says.
pub(super) fn check_token(config: &JwtConfig, token: &[u8], now_ms: u64) -> Result<Claims, TokenError> {
    if token.len() > TOKEN_BYTES_MAX {
        return Err(TokenError::Malformed);
    }
    let token = core::str::from_utf8(token).map_err(|_| TokenError::Malformed)?;
    let (signed, signature) = token.rsplit_once('.').ok_or(TokenError::Malformed)?;
    let (header, claims) = signed.split_once('.').ok_or(TokenError::Malformed)?;
    let header = object(header)?;
    // What must be understood and is not, must be refused (RFC 7515 s4.1.11).
    if header.contains_key("crit") {
        return Err(TokenError::Critical);
    }
    let algorithm = header.get("alg").and_then(Value::as_str).ok_or(TokenError::Algorithm)?;
    let mut keys = config.keys.iter().filter(|key| key.alg() == algorithm).peekable();
    if keys.peek().is_none() {
        return Err(TokenError::Algorithm);
    }
    let signature = decode(signature)?;
    if !keys.any(|key| key.has_signed(signed.as_bytes(), &signature)) {
        return Err(TokenError::Signature);
    }
    check_claims(config, &object(claims)?, now_ms)
}

fn check_claims(config: &JwtConfig, claims: &Map<String, Value>, now_ms: u64) -> Result<Claims, TokenError> {
    let expires_at_ms = date_ms(claims.get("exp").ok_or(TokenError::NoExpiry)?)?;
    if now_ms >= expires_at_ms {
        return Err(TokenError::Expired);
    }
    if let Some(not_before) = claims.get("nbf")
        && date_ms(not_before)? > now_ms.saturating_add(config.leeway_secs.saturating_mul(1_000))
    {
        return Err(TokenError::NotYet);
    }
    let text = |name: &str| claims.get(name).and_then(Value::as_str);
    if config.issuer.as_deref().is_some_and(|issuer| text("iss") != Some(issuer)) {
        return Err(TokenError::Issuer);
    }
    if let Some(audience) = config.audience.as_deref() {
        let is_for_us = match claims.get("aud") {
            Some(Value::String(one)) => one == audience,
            Some(Value::Array(list)) => list.iter().any(|one| one.as_str() == Some(audience)),
            _ => false,
        };
        if !is_for_us {
            return Err(TokenError::Audience);
        }
    }
    let account = AccountName::parse(text(&config.account_claim).unwrap_or_default())?;
    let groups = match claims.get(&config.groups_claim) {
        None => None,
        Some(Value::Array(list)) if list.len() <= GROUPS_MAX => {
            let name = |v: &Value| v.as_str().filter(|g| is_group_name(g)).map(str::to_owned).ok_or(TokenError::Groups);
            Some(list.iter().map(name).collect::<Result<_, _>>()?)
        }
        Some(_) => return Err(TokenError::Groups),
    };
    let epoch = claims.get(EPOCH_CLAIM).and_then(Value::as_u64);
    Ok(Claims { account, groups, expires_at_ms, epoch })
}

fn object(part: &str) -> Result<Map<String, Value>, TokenError> {
    match serde_json::from_slice(&decode(part)?) {
        Ok(Value::Object(map)) => Ok(map),
        _ => Err(TokenError::Malformed),
    }
}

fn decode(part: &str) -> Result<Vec<u8>, TokenError> {
    Base64UrlUnpadded::decode_vec(part).map_err(|_| TokenError::Malformed)
}

/// A `NumericDate` (RFC 7519 s2): seconds since 1970, perhaps with a fraction.
fn date_ms(value: &Value) -> Result<u64, TokenError> {
    if let Some(secs) = value.as_u64() {
        return Ok(secs.saturating_mul(1_000));
    }
    match value.as_f64() {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a cast from f64 saturates")]
        Some(secs) => Ok((secs * 1_000.0) as u64),
        None => Err(TokenError::Malformed),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::UnknownAccounts;
    use super::*;
    use ring::signature::{Ed25519KeyPair, KeyPair};

    const RSA_PEM: &str = "-----BEGIN PUBLIC KEY-----
MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAjxxb99eT/DTi6hXJOo4x
hgha6N6pc8+5oXDaicmQwlChGClbDfk+fDIs/CFHQ+lpK5jjRR6n4E5flCJLDLAN
jUIBL0TPtJtUgwENY0XLJiYhFLYkDtjjF3l+D01qtFahaspbnQIQ807arZvWWM3a
zm1kPUFzS064Xua060SQJgN5A04zDJ48JIc1TRRJBkPpTIOFf1WQ0t+6PqLCbKs7
4DtiwoLpthXyRRC88FD9DbIaihcUAMfV47wTKopfNH/RihdMW8GGFGsabFfckzYs
v6/a6gGSHWs8GyotEneZu16EZExuhqrEXL9YfOICcOuB6tL0DJXApCBLsYAKkeNL
qQIDAQAB
-----END PUBLIC KEY-----
";
    /// Signed with the private key of `RSA_PEM`: alice of staff, until 2100.
    const RS256_TOKEN: &str = "eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9.\
eyJzdWIiOiJhbGljZSIsImV4cCI6NDEwMjQ0NDgwMCwiZ3JvdXBzIjpbInN0YWZmIl19.\
RSSMDmu2PrRKDt3AygXPKVYassG68rl1O-xx1S1-ZNB9jDbVqGc1H5W0dq5k9mDzb-z-zgo6rnjTIB5n4nOcfIVIsBsGAy8PlwUsnipTc-gk\
maNk8vY0gZSTWZL4P-Dl0RPN-XjmBSFkwpWl0hIcO2G0E3WG2IP6n2dN1nSjAdIndDTC3VZYNra01CRE6-nZbXCKGk-Fg3lakRakHCS-tnAh\
KeQXVxo0of6w_OFRgPOL-Tvv2Wjilfr-yDyztBGBtsEg5FCqxxZ_I7QB2zqOctDpWmyhwc_IcZfVl9UIjLOIfa5uxQLYqT_Eqg9Baab_qZLY\
hXl7wzNDLjfBEQ17FA";
    const SECRET: &[u8] = b"an example of 32 bytes at least!";
    pub(in super::super) const NOW_MS: u64 = 1_700_000_000_000;

    fn b64(bytes: &[u8]) -> String {
        Base64UrlUnpadded::encode_string(bytes)
    }

    pub(in super::super) fn hs256(secret: &[u8], claims: &str) -> String {
        token(r#"{"alg":"HS256"}"#, claims, |m| {
            hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), m).as_ref().to_vec()
        })
    }

    pub(in super::super) fn token(header: &str, claims: &str, sign: impl Fn(&[u8]) -> Vec<u8>) -> String {
        let signed = format!("{}.{}", b64(header.as_bytes()), b64(claims.as_bytes()));
        let signature = sign(signed.as_bytes());
        format!("{signed}.{}", b64(&signature))
    }

    pub(in super::super) fn config(key_file: &[u8]) -> JwtConfig {
        let algorithms = [JwtAlgorithm::EdDsa, JwtAlgorithm::Rs256, JwtAlgorithm::Hs256];
        JwtConfig {
            keys: algorithms.iter().find_map(|&a| JwtKey::read_file(a, key_file).ok()).unwrap(),
            issuer: None,
            audience: None,
            account_claim: "sub".into(),
            groups_claim: "groups".into(),
            leeway_secs: 30,
            accounts: UnknownAccounts::Accept,
        }
    }

    fn ed25519() -> (Ed25519KeyPair, String) {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
        let mut der = vec![0x30, 0x2A, 0x30, 5, 6, 3, 0x2B, 0x65, 0x70, 3, 0x21, 0];
        der.extend(pair.public_key().as_ref());
        let body = base64ct::Base64::encode_string(&der);
        (pair, format!("-----BEGIN PUBLIC KEY-----\n{body}\n-----END PUBLIC KEY-----\n"))
    }

    fn check(config: &JwtConfig, token: &str) -> Result<Claims, TokenError> {
        assert!(looks_like_token(token.as_bytes()), "{token}");
        check_token(config, token.as_bytes(), NOW_MS)
    }

    #[test]
    fn tokens_of_each_algorithm_are_accepted() {
        let alice = Claims {
            account: AccountName::parse("alice").unwrap(),
            groups: Some(vec!["staff".into()]),
            expires_at_ms: 4_102_444_800_000,
            epoch: None,
        };
        assert_eq!(check(&config(RSA_PEM.as_bytes()), RS256_TOKEN).unwrap(), alice);
        let claims = r#"{"sub":"alice","exp":4102444800,"groups":["staff"]}"#;
        assert_eq!(check(&config(SECRET), &hs256(SECRET, claims)).unwrap(), alice);
        let (pair, pem) = ed25519();
        let signed = token(r#"{"typ":"JWT","alg":"EdDSA"}"#, claims, |m| pair.sign(m).as_ref().to_vec());
        assert_eq!(check(&config(pem.as_bytes()), &signed).unwrap(), alice);
        let keys = [config(pem.as_bytes()).keys, config(RSA_PEM.as_bytes()).keys].concat();
        let both = JwtConfig { keys, ..config(SECRET) };
        assert_eq!(check(&both, &signed).unwrap(), alice);
        assert_eq!(check(&both, RS256_TOKEN).unwrap(), alice);
        let plain = check(&config(SECRET), &hs256(SECRET, r#"{"sub":"bob","exp":1700000000.5}"#)).unwrap();
        assert_eq!((plain.groups, plain.expires_at_ms), (None, 1_700_000_000_500));
    }

    #[test]
    fn the_key_decides_the_algorithm() {
        let claims = r#"{"sub":"alice","exp":4102444800}"#;
        let rsa = config(RSA_PEM.as_bytes());
        // The classic confusion: the public key, which everybody has, as the secret of HS256.
        assert_eq!(check(&rsa, &hs256(RSA_PEM.as_bytes(), claims)), Err(TokenError::Algorithm));
        for algorithm in ["none", "None", "NONE", "", "RS384", "hs256", "ES256"] {
            let header = format!(r#"{{"alg":"{algorithm}"}}"#);
            for config in [&rsa, &config(SECRET)] {
                assert_eq!(check(config, &token(&header, claims, |_| vec![])), Err(TokenError::Algorithm), "{header}");
            }
        }
        let unsigned = token(r#"{"alg":"HS256"}"#, claims, |_| vec![]);
        assert_eq!(check(&config(SECRET), &unsigned), Err(TokenError::Signature));
        assert_eq!(check(&rsa, &token(r#"{"typ":"x"}"#, claims, |_| vec![])), Err(TokenError::Algorithm));
        let critical = token(r#"{"alg":"RS256","crit":["x"]}"#, claims, |_| vec![]);
        assert_eq!(check(&rsa, &critical), Err(TokenError::Critical));
        assert_eq!(check(&config(SECRET), RS256_TOKEN), Err(TokenError::Algorithm));
    }

    #[test]
    fn other_keys_and_changed_tokens_are_refused() {
        let claims = r#"{"sub":"alice","exp":4102444800}"#;
        let config = config(SECRET);
        assert_eq!(check(&config, &hs256(b"another secret", claims)), Err(TokenError::Signature));
        let good = hs256(SECRET, claims);
        let other = b64(r#"{"sub":"root","exp":4102444800}"#.as_bytes());
        let parts: Vec<&str> = good.split('.').collect();
        assert_eq!(check(&config, &format!("{}.{other}.{}", parts[0], parts[2])), Err(TokenError::Signature));
        let (pair, pem) = ed25519();
        let signed = token(r#"{"alg":"EdDSA"}"#, claims, |m| pair.sign(m).as_ref().to_vec());
        let changed = signed.replace(&b64(claims.as_bytes()), &other);
        assert_eq!(check(&tests::config(pem.as_bytes()), &changed), Err(TokenError::Signature));
        for bad in ["eyJ..", "eyJhbGciOiJIUzI1NiJ9.e30=.AA", "eyJhbGciOiJIUzI1NiJ9.e30.A+", "eyJ9.e30.AA"] {
            assert!(check(&config, bad).is_err(), "{bad}");
        }
        assert_eq!(check(&config, &hs256(SECRET, "[]")), Err(TokenError::Malformed));
        let long = format!("eyJ{}..", "a".repeat(TOKEN_BYTES_MAX));
        assert_eq!(check(&config, &long), Err(TokenError::Malformed));
    }

    #[test]
    fn claims_are_checked() {
        let config = JwtConfig { issuer: Some("i".into()), audience: Some("us".into()), ..config(SECRET) };
        let base = r#""iss":"i","aud":"us","sub":"alice","exp":1700000001"#;
        let check = |claims: &str, expect: Result<(), TokenError>| {
            assert_eq!(check(&config, &hs256(SECRET, &format!("{{{claims}}}"))).map(|_| ()), expect, "{claims}");
        };
        check(base, Ok(()));
        check(&base.replace(r#""us""#, r#"["them","us"]"#), Ok(()));
        check(&base.replace(r#""us""#, r#"["them"]"#), Err(TokenError::Audience));
        check(&base.replace(r#""aud":"us","#, ""), Err(TokenError::Audience));
        check(&base.replace(r#""iss":"i""#, r#""iss":"j""#), Err(TokenError::Issuer));
        check(&base.replace(r#""iss":"i","#, ""), Err(TokenError::Issuer));
        check(&base.replace("1700000001", "1700000000"), Err(TokenError::Expired));
        check(&base.replace("1700000001", "-1"), Err(TokenError::Expired));
        check(&base.replace("1700000001", "\"1700000001\""), Err(TokenError::Malformed));
        check(&base.replace(r#","exp":1700000001"#, ""), Err(TokenError::NoExpiry));
        check(&format!(r#"{base},"nbf":1700000030"#), Ok(()));
        check(&format!(r#"{base},"nbf":1700000031"#), Err(TokenError::NotYet));
        check(&base.replace("alice", "Alice"), Err(TokenError::Subject(AccountNameError::Spelling)));
        check(&base.replace("alice", "anonymous"), Err(TokenError::Subject(AccountNameError::Reserved)));
        check(&base.replace(r#""sub":"alice","#, ""), Err(TokenError::Subject(AccountNameError::Spelling)));
        check(&format!(r#"{base},"groups":"staff""#), Err(TokenError::Groups));
        check(&format!(r#"{base},"groups":["a b"]"#), Err(TokenError::Groups));
        check(&format!(r#"{base},"groups":[1]"#), Err(TokenError::Groups));
        check(&format!(r#"{base},"groups":[]"#), Ok(()));
    }

    #[test]
    fn other_claims_may_name_account_and_groups() {
        let config = JwtConfig { account_claim: "account".into(), groups_claim: "roles".into(), ..config(SECRET) };
        let claims = r#"{"sub":"x","account":"alice","groups":["x"],"roles":["staff"],"exp":1700000001}"#;
        let claims = check(&config, &hs256(SECRET, claims)).unwrap();
        assert_eq!((claims.account.as_str(), claims.groups), ("alice", Some(vec!["staff".into()])));
    }

    #[test]
    fn key_files_are_read_or_said_to_be_wrong() {
        use JwtAlgorithm::{EdDsa, Hs256, Rs256};
        let check = |contents: &[u8], expect| {
            let algorithm = if contains(contents, b"-----") { Rs256 } else { Hs256 };
            assert_eq!(JwtKey::read_file(algorithm, contents).unwrap_err(), expect);
        };
        check(b"", KeyFileError::ShortSecret);
        check(b"1234567890123456789012345678901\n", KeyFileError::ShortSecret);
        for (algorithm, contents, expect) in [
            (Hs256, RSA_PEM.as_bytes(), KeyFileError::OtherKind),
            (Rs256, SECRET, KeyFileError::OtherKind),
            (EdDsa, RSA_PEM.as_bytes(), KeyFileError::OtherAlgorithm),
            (Rs256, ed25519().1.as_bytes(), KeyFileError::OtherAlgorithm),
        ] {
            assert_eq!(JwtKey::read_file(algorithm, contents).unwrap_err(), expect);
        }
        check(b"-----BEGIN PUBLIC KEY-----\n", KeyFileError::Pem);
        check(RSA_PEM.replace("PUBLIC", "PRIVATE").as_bytes(), KeyFileError::PrivateKey);
        check(RSA_PEM.replace("PUBLIC KEY", "CERTIFICATE").as_bytes(), KeyFileError::OtherSection);
        check(RSA_PEM.replace("PUBLIC", "RSA PUBLIC").as_bytes(), KeyFileError::OtherSection);
        check(RSA_PEM.repeat(17).as_bytes(), KeyFileError::TooManyKeys);
        let body: String = RSA_PEM.lines().filter(|l| !l.starts_with('-')).collect();
        let der = base64ct::Base64::decode_vec(&body).unwrap();
        check(&der, KeyFileError::NotASecret);
        check(br#"{"kty":"OKP","crv":"Ed25519","x":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"}"#, KeyFileError::NotASecret);
        assert_eq!(JwtKey::read_spki(&der[..der.len() - 1]).unwrap_err(), KeyFileError::Pem);
        let with_line_end = config(&[SECRET, b"\r\n"].concat());
        assert!(tests::check(&with_line_end, &hs256(SECRET, r#"{"sub":"a","exp":1700000001}"#)).is_ok());
        assert_eq!(format!("{:?}", with_line_end.keys), "[JwtKey(HS256)]");
    }
}
