//! The server's side of SCRAM-SHA-256 (RFC 5802 with the hash of RFC 7677), without channel binding.

use super::Secret;
use super::account::ScramKeys;
use base64ct::{Base64, Encoding};
use core::num::NonZeroU32;
use ring::{digest, hmac, pbkdf2};
use subtle::ConstantTimeEq;
use thiserror::Error;

/// Name of the method, as in the Authentication Method property.
pub const METHOD: &str = "SCRAM-SHA-256";

/// Longest message taken from a client, bytes.
const MESSAGE_BYTES_MAX: usize = 2_048;

/// A client's SCRAM message was not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(super) enum ScramError {
    #[error("the SCRAM message cannot be read")]
    Malformed,
    #[error("the client insists on channel binding, which is not offered")]
    ChannelBinding,
    #[error("the client demands an extension nobody has defined")]
    Extension,
    #[error("the authorization identity is not the user name")]
    OtherIdentity,
    #[error("channel binding data or nonce are not those of this exchange")]
    OtherExchange,
    #[error("the proof is wrong")]
    Proof,
}

/// Derives what the server keeps of a password (RFC 5802 s3).
pub(super) fn derive_keys(password: &[u8], salt: &[u8], iterations: NonZeroU32) -> ScramKeys {
    let mut salted = [0; 32];
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, iterations, salt, password, &mut salted);
    let client_key = hmac_sha256(&salted, b"Client Key");
    ScramKeys {
        iterations: iterations.get(),
        salt: salt.to_vec(),
        stored_key: Secret::new(sha256(&client_key)),
        server_key: Secret::new(hmac_sha256(&salted, b"Server Key")),
    }
}

/// The first message of a client, taken apart.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ClientFirst<'a> {
    /// Everything before `bare`: `n,,` or `y,,` or with an authorization identity.
    header: &'a str,
    /// The part that enters the proof.
    bare: &'a str,
    pub(super) username: String,
    nonce: &'a str,
}

impl<'a> ClientFirst<'a> {
    pub(super) fn parse(data: &'a [u8]) -> Result<Self, ScramError> {
        let text = message(data)?;
        let (flag, rest) = text.split_once(',').ok_or(ScramError::Malformed)?;
        // `y` says: I could bind, but you offered no -PLUS method, which is so (RFC 5802 s6).
        match flag {
            "n" | "y" => {}
            _ if flag.starts_with("p=") => return Err(ScramError::ChannelBinding),
            _ => return Err(ScramError::Malformed),
        }
        let (identity, bare) = rest.split_once(',').ok_or(ScramError::Malformed)?;
        if bare.starts_with("m=") {
            return Err(ScramError::Extension);
        }
        let header = text.strip_suffix(bare).ok_or(ScramError::Malformed)?;
        let mut attributes = bare.split(',');
        let username = attributes.next().and_then(|a| a.strip_prefix("n=")).ok_or(ScramError::Malformed)?;
        let nonce = attributes.next().and_then(|a| a.strip_prefix("r=")).ok_or(ScramError::Malformed)?;
        if nonce.is_empty() || !nonce.bytes().all(|b| matches!(b, 0x21..=0x7E)) {
            return Err(ScramError::Malformed);
        }
        let username = sasl_name(username)?;
        if !identity.is_empty() {
            let identity = sasl_name(identity.strip_prefix("a=").ok_or(ScramError::Malformed)?)?;
            if identity != username {
                return Err(ScramError::OtherIdentity);
            }
        }
        Ok(Self { header, bare, username, nonce })
    }
}

/// An exchange between the server's first message and the client's final one.
#[derive(Debug)]
pub(super) struct Exchange {
    /// What `c=` must say.
    binding: String,
    nonce: String,
    /// Both first messages, as they enter the proof.
    transcript: String,
    keys: ScramKeys,
}

impl Exchange {
    /// Begins an exchange; also gives the server's first message.
    pub(super) fn begin(first: &ClientFirst<'_>, server_nonce: &str, keys: ScramKeys) -> (Self, Vec<u8>) {
        let nonce = format!("{}{server_nonce}", first.nonce);
        let salt = Base64::encode_string(&keys.salt);
        let server_first = format!("r={nonce},s={salt},i={}", keys.iterations);
        let transcript = format!("{},{server_first}", first.bare);
        let binding = Base64::encode_string(first.header.as_bytes());
        (Self { binding, nonce, transcript, keys }, server_first.into_bytes())
    }

    pub(super) fn keys(&self) -> &ScramKeys {
        &self.keys
    }

    /// Checks the client's final message; gives the server's.
    pub(super) fn finish(self, data: &[u8]) -> Result<Vec<u8>, ScramError> {
        let text = message(data)?;
        let (without_proof, proof) = text.rsplit_once(",p=").ok_or(ScramError::Malformed)?;
        let mut attributes = without_proof.split(',');
        let binding = attributes.next().and_then(|a| a.strip_prefix("c=")).ok_or(ScramError::Malformed)?;
        let nonce = attributes.next().and_then(|a| a.strip_prefix("r=")).ok_or(ScramError::Malformed)?;
        if binding != self.binding || nonce != self.nonce {
            return Err(ScramError::OtherExchange);
        }
        let mut client_key = [0; 32];
        let decoded = Base64::decode(proof, &mut client_key).map_err(|_| ScramError::Malformed)?;
        if decoded.len() != 32 {
            return Err(ScramError::Malformed);
        }
        let signed = format!("{},{without_proof}", self.transcript);
        let signature = hmac_sha256(self.keys.stored_key.reveal(), signed.as_bytes());
        for (key, signature) in client_key.iter_mut().zip(signature) {
            *key ^= signature;
        }
        if !bool::from(sha256(&client_key).ct_eq(self.keys.stored_key.reveal())) {
            return Err(ScramError::Proof);
        }
        let verifier = hmac_sha256(self.keys.server_key.reveal(), signed.as_bytes());
        Ok(format!("v={}", Base64::encode_string(&verifier)).into_bytes())
    }
}

fn message(data: &[u8]) -> Result<&str, ScramError> {
    if data.len() > MESSAGE_BYTES_MAX {
        return Err(ScramError::Malformed);
    }
    core::str::from_utf8(data).map_err(|_| ScramError::Malformed)
}

/// Undoes `=2C` and `=3D`; every other `=` is an error (RFC 5802 s5.1).
fn sasl_name(text: &str) -> Result<String, ScramError> {
    let mut parts = text.split('=');
    let mut name = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (c, rest) = match (part.strip_prefix("2C"), part.strip_prefix("3D")) {
            (Some(rest), _) => (',', rest),
            (_, Some(rest)) => ('=', rest),
            _ => return Err(ScramError::Malformed),
        };
        name.push(c);
        name.push_str(rest);
    }
    if name.is_empty() || name.contains('\0') { Err(ScramError::Malformed) } else { Ok(name) }
}

fn sha256(data: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest::digest(&digest::SHA256, data).as_ref());
    out
}

pub(super) fn hmac_sha256(key: &[u8], data: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), data).as_ref());
    out
}

/// The client's side, for tests.
#[cfg(test)]
pub(super) mod client {
    use super::*;

    /// The client's final message for a server's first one, and the server's final message it will want to see.
    pub(in super::super) fn answer(header: &str, bare: &str, server_first: &[u8], password: &str) -> (String, String) {
        let server_first = core::str::from_utf8(server_first).unwrap();
        let mut attributes = server_first.split(',').map(|a| &a[2..]);
        let nonce = attributes.next().unwrap();
        let salt = Base64::decode_vec(attributes.next().unwrap()).unwrap();
        let iterations: NonZeroU32 = attributes.next().unwrap().parse().unwrap();
        let mut salted = [0; 32];
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, iterations, &salt, password.as_bytes(), &mut salted);
        let client_key = hmac_sha256(&salted, b"Client Key");
        let without_proof = format!("c={},r={nonce}", Base64::encode_string(header.as_bytes()));
        let signed = format!("{bare},{server_first},{without_proof}");
        let signature = hmac_sha256(&sha256(&client_key), signed.as_bytes());
        let proof: Vec<u8> = client_key.iter().zip(signature).map(|(k, s)| k ^ s).collect();
        let verifier = hmac_sha256(&hmac_sha256(&salted, b"Server Key"), signed.as_bytes());
        (
            format!("{without_proof},p={}", Base64::encode_string(&proof)),
            format!("v={}", Base64::encode_string(&verifier)),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: &str = "n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
    const SERVER_NONCE: &str = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
    const FINAL: &str = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                         p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";

    fn pencil() -> ScramKeys {
        let salt = Base64::decode_vec("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        derive_keys(b"pencil", &salt, NonZeroU32::new(4096).unwrap())
    }

    fn begin(first: &str) -> (Exchange, Vec<u8>) {
        Exchange::begin(&ClientFirst::parse(first.as_bytes()).unwrap(), SERVER_NONCE, pencil())
    }

    #[test]
    fn the_exchange_of_rfc_7677_s3() {
        let (exchange, server_first) = begin(FIRST);
        assert_eq!(
            server_first,
            b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
        );
        assert_eq!(exchange.finish(FINAL.as_bytes()).unwrap(), b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
        let bare = "n=user,r=rOprNGfwEbeRWgbNEkqO";
        assert_eq!(client::answer("n,,", bare, &server_first, "pencil").0, FINAL, "the test's own client agrees");
    }

    #[test]
    fn the_other_header_without_binding_is_accepted_and_must_be_repeated() {
        for header in ["y,,", "n,a=user,", "y,a=user,"] {
            let bare = "n=user,r=abc";
            let (exchange, server_first) = begin(&format!("{header}{bare}"));
            let (last, verifier) = client::answer(header, bare, &server_first, "pencil");
            assert_eq!(exchange.finish(last.as_bytes()).unwrap(), verifier.as_bytes());
            // Who changed the flag on the way is found out by the repetition (RFC 5802 s6).
            let (exchange, server_first) = begin(&format!("{header}{bare}"));
            let (last, _) = client::answer("n,,", bare, &server_first, "pencil");
            assert_eq!(exchange.finish(last.as_bytes()), Err(ScramError::OtherExchange), "{header}");
        }
    }

    #[test]
    fn wrong_finals_are_refused() {
        let check = |last: &str, expect| assert_eq!(begin(FIRST).0.finish(last.as_bytes()), Err(expect), "{last}");
        let (_, server_first) = begin(FIRST);
        let (wrong, _) = client::answer("n,,", "n=user,r=rOprNGfwEbeRWgbNEkqO", &server_first, "pencils");
        check(&wrong, ScramError::Proof);
        check(&FINAL.replace("p=d", "p=e"), ScramError::Proof);
        check(&FINAL.replace("k0,", "k1,"), ScramError::OtherExchange);
        check(&FINAL.replace("r=rO", "r=sO"), ScramError::OtherExchange);
        check(&FINAL.replace("hNlF$k0", "hNlF$k0x"), ScramError::OtherExchange);
        check(&FINAL.replace("biws", "eSws"), ScramError::OtherExchange);
        check(&FINAL.replace(",p=", ",x=1,p="), ScramError::Proof);
        check("c=biws,r=x", ScramError::Malformed);
        check("c=biws,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=", ScramError::Malformed);
        check("", ScramError::Malformed);
        let short = FINAL.rsplit_once(",p=").unwrap().0;
        check(&format!("{short},p="), ScramError::Malformed);
        check(&format!("{short},p=AAAA"), ScramError::Malformed);
        check(&format!("{short},p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=AAAA"), ScramError::Malformed);
    }

    #[test]
    fn wrong_firsts_are_refused() {
        let check = |first: &str, expect| assert_eq!(ClientFirst::parse(first.as_bytes()), Err(expect), "{first}");
        check("", ScramError::Malformed);
        check("n,", ScramError::Malformed);
        check("p=tls-exporter,,n=user,r=abc", ScramError::ChannelBinding);
        check("x,,n=user,r=abc", ScramError::Malformed);
        check("n,,m=1,n=user,r=abc", ScramError::Extension);
        check("n,a=root,n=user,r=abc", ScramError::OtherIdentity);
        check("n,root,n=user,r=abc", ScramError::Malformed);
        check("n,,n=,r=abc", ScramError::Malformed);
        check("n,,n=user,r=", ScramError::Malformed);
        check("n,,n=user,r=a\u{7f}", ScramError::Malformed);
        check("n,,r=abc,n=user", ScramError::Malformed);
        check("n,,n=us=er,r=abc", ScramError::Malformed);
        check("n,,n=us=2cer,r=abc", ScramError::Malformed);
        check(&format!("n,,n=user,r={}", "a".repeat(2048)), ScramError::Malformed);
        assert_eq!(ClientFirst::parse(b"n,,n=\xFF,r=abc"), Err(ScramError::Malformed));
        assert_eq!(ClientFirst::parse(b"n,,n=a=2Cb=3D=3Dc,r=abc,x=1").unwrap().username, "a,b==c");
    }
}
