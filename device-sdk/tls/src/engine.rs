//! The handshake (RFC 8446 s4): messages in, records out; no socket and no clock.

use crate::Config;
use crate::cursor::{Reader, Writer};
use crate::error::{Offence, TlsError};
use crate::hello::{self, ECDSA_P256};
use crate::keys::{self, Hash, Traffic};
use crate::record::{HANDSHAKE, HEADER, Keys, TEXT_MAX};
use crate::trust::{self, Identity};
use hmac::Mac;
use p256::ecdsa::signature::Signer;
use p256::ecdsa::{DerSignature, SigningKey, VerifyingKey};
use p256::elliptic_curve::sec1::ToEncodedPoint;
use p256::{PublicKey, SecretKey};
use sha2::{Digest, Sha256};

const SERVER_HELLO: u8 = 2;
const ENCRYPTED_EXTENSIONS: u8 = 8;
const CERTIFICATE: u8 = 11;
const CERTIFICATE_REQUEST: u8 = 13;
const CERTIFICATE_VERIFY: u8 = 15;
const FINISHED: u8 = 20;

/// Bytes before a message's body: kind and length.
pub(crate) const MESSAGE_HEADER: usize = 4;

/// What stands before the transcript's hash in what the server signs, and in what the client does (RFC 8446 s4.4.3).
const SERVER_CONTEXT: &[u8; 34] = b"TLS 1.3, server CertificateVerify\0";
const CLIENT_CONTEXT: &[u8; 34] = b"TLS 1.3, client CertificateVerify\0";
/// Length of what is signed.
const SIGNED: usize = 64 + 34 + 32;

/// What must come next. There is no way to `Finished`, and so to an open link, but through `Certificate` and `Proof`.
enum Step {
    ServerHello(SecretKey),
    Extensions,
    /// The server's certificate, or before that its request for the board's.
    RequestOrCertificate,
    Certificate,
    /// Proof that the server has this key.
    Proof(VerifyingKey),
    Finished,
    /// Everything has come; the board's own messages go out.
    SendCertificate,
    SendProof,
    SendFinished,
    Done,
    /// A message was refused: there is no way on.
    Failed,
}

/// A handshake that is under way.
pub(crate) struct Handshake<'c> {
    config: &'c Config<'c>,
    read_buffer: usize,
    step: Step,
    transcript: Sha256,
    random: [u8; 32],
    master: Hash,
    application: Option<Traffic>,
    /// What opens records, once they are sealed.
    pub(crate) read: Option<Keys>,
    /// What seals records.
    pub(crate) write: Option<Keys>,
    /// The server wanted to see the board's certificate.
    pub(crate) certificate_wanted: bool,
    /// It takes the signatures of this library.
    may_sign: bool,
    /// How long the text of a record may be, as was agreed on.
    pub(crate) text_max: usize,
    /// How much of the message that goes out has gone.
    sent: usize,
}

impl<'c> Handshake<'c> {
    /// Begins with a secret of its own.
    pub(crate) fn new(
        config: &'c Config<'c>,
        read_buffer: usize,
        mut entropy: impl FnMut(&mut [u8]),
    ) -> Result<Self, TlsError> {
        let (mut first, mut second) = ([0; 32], [0; 32]);
        entropy(&mut first);
        entropy(&mut second);
        if first == second {
            return Err(TlsError::BadIdentity);
        }
        // What is sent in the open must not show what the generator gave, for a weak one may give the key away with it (RFC 8446 sC.1).
        let seed: Hash = Sha256::new().chain_update(first).chain_update(second).finalize().into();
        let (mut random, mut bytes) = ([0; 32], [0; 32]);
        keys::expand(&seed, b"random", b"", &mut random);
        // All but one of 2^32 numbers are keys.
        let secret = (0..8).find_map(|turn| {
            keys::expand(&seed, b"secret", &[turn], &mut bytes);
            SecretKey::from_slice(&bytes).ok()
        });
        let step = Step::ServerHello(secret.ok_or(TlsError::BadIdentity)?);
        Ok(Self {
            config,
            read_buffer,
            step,
            transcript: Sha256::new(),
            random,
            master: [0; 32],
            application: None,
            read: None,
            write: None,
            certificate_wanted: false,
            may_sign: false,
            text_max: TEXT_MAX,
            sent: 0,
        })
    }

    /// Writes the first record. Returns its length.
    pub(crate) fn hello(&mut self, out: &mut [u8]) -> Result<usize, TlsError> {
        let Step::ServerHello(secret) = &self.step else { return Err(TlsError::Closed) };
        let share = secret.public_key().to_encoded_point(false);
        let length = hello::write_client_hello(out, self.config, &self.random, share.as_bytes(), self.read_buffer)?;
        self.transcript.update(out.get(HEADER..length).unwrap_or_default());
        Ok(length)
    }

    /// Takes the server's next message, kind and length included. Whether the keys have changed with it.
    pub(crate) fn message(&mut self, message: &[u8]) -> Result<KeyChange, TlsError> {
        let (header, body) = message.split_at_checked(MESSAGE_HEADER).ok_or(TlsError::BadServer(Offence::Malformed))?;
        let kind = header.first().copied().unwrap_or_default();
        let before = self.hash();
        #[cfg(test)]
        if kind == FINISHED && crate::tests::is_left_out(crate::tests::Check::Order) {
            self.step = Step::Finished;
        }
        let mut change = KeyChange::None;
        let next = match (core::mem::replace(&mut self.step, Step::Failed), kind) {
            (Step::ServerHello(secret), SERVER_HELLO) => {
                let share = hello::read_server_hello(body)?;
                let theirs = PublicKey::from_sec1_bytes(share).map_err(|_| TlsError::BadServer(Offence::Illegal))?;
                let shared = p256::ecdh::diffie_hellman(secret.to_nonzero_scalar(), theirs.as_affine());
                self.transcript.update(message);
                let (traffic, master) = keys::handshake(shared.raw_secret_bytes(), &self.hash());
                self.master = master;
                self.read = Some(Keys::new(traffic.server));
                self.write = Some(Keys::new(traffic.client));
                self.step = Step::Extensions;
                return Ok(KeyChange::Changed);
            }
            (Step::Extensions, ENCRYPTED_EXTENSIONS) => {
                self.text_max = hello::read_extensions(body, self.config, self.read_buffer)?;
                Step::RequestOrCertificate
            }
            (Step::RequestOrCertificate, CERTIFICATE_REQUEST) => {
                self.may_sign = hello::read_request(body)?;
                self.certificate_wanted = true;
                Step::Certificate
            }
            (Step::RequestOrCertificate | Step::Certificate, CERTIFICATE) => {
                Step::Proof(self.config.trust.check(hello::leaf(body)?)?)
            }
            (Step::Proof(key), CERTIFICATE_VERIFY) => {
                let mut reader = Reader(body);
                let scheme = reader.number(2)?;
                let signature = reader.vector(2)?;
                reader.end()?;
                if scheme != usize::from(ECDSA_P256) {
                    return Err(TlsError::WrongProof);
                }
                trust::verify(&key, &signed(SERVER_CONTEXT, &before), signature.0)
                    .map_err(|()| TlsError::WrongProof)?;
                Step::Finished
            }
            (Step::Finished, FINISHED) => {
                let secret = self.read.as_ref().ok_or(TlsError::Closed)?.secret();
                let right = keys::finished(secret, &before).verify_slice(body).is_ok();
                #[cfg(test)]
                let right = right || crate::tests::is_left_out(crate::tests::Check::Finished);
                if !right {
                    return Err(TlsError::BadServer(Offence::WrongFinished));
                }
                change = KeyChange::Changed;
                if self.certificate_wanted { Step::SendCertificate } else { Step::SendFinished }
            }
            (Step::RequestOrCertificate | Step::Certificate, CERTIFICATE_VERIFY | FINISHED) => {
                return Err(TlsError::NoCertificate);
            }
            (Step::Proof(_), FINISHED) => return Err(TlsError::NoProof),
            _ => return Err(TlsError::BadServer(Offence::UnexpectedMessage)),
        };
        self.transcript.update(message);
        if matches!(change, KeyChange::Changed) {
            let application = keys::application(&self.master, &self.hash());
            self.read = Some(Keys::new(application.server));
            self.application = Some(application);
        }
        self.step = next;
        Ok(change)
    }

    /// The server has said all it has to.
    pub(crate) fn is_heard(&self) -> bool {
        matches!(self.step, Step::SendCertificate | Step::SendProof | Step::SendFinished | Step::Done)
    }

    /// Writes the next record of the board. Returns its length, or `None` when the handshake is over.
    pub(crate) fn transmit(&mut self, out: &mut [u8]) -> Result<Option<usize>, TlsError> {
        let identity = self.config.identity.filter(|_| self.may_sign);
        let before = self.hash();
        let text = out.get_mut(HEADER..).ok_or(TlsError::BuffersTooSmall)?;
        let mut writer = Writer::new(text);
        let next = match (&self.step, identity) {
            (Step::SendCertificate, identity) => {
                write_certificate(&mut writer, identity);
                if identity.is_some() { Step::SendProof } else { Step::SendFinished }
            }
            (Step::SendProof, Some(identity)) => {
                let key = SigningKey::from_slice(identity.key).map_err(|_| TlsError::BadIdentity)?;
                let signature: DerSignature = key.sign(&signed(CLIENT_CONTEXT, &before));
                writer.put_u8(CERTIFICATE_VERIFY);
                let message = writer.open(3);
                writer.put_u16(ECDSA_P256);
                let length = writer.open(2);
                writer.put(signature.as_bytes());
                writer.close(&length);
                writer.close(&message);
                Step::SendFinished
            }
            (Step::SendFinished, _) => {
                let secret = self.write.as_ref().ok_or(TlsError::Closed)?.secret();
                writer.put_u8(FINISHED);
                let message = writer.open(3);
                writer.put(&keys::finished(secret, &before).finalize().into_bytes());
                writer.close(&message);
                Step::Done
            }
            (Step::Done, _) => return Ok(None),
            _ => return Err(TlsError::Closed),
        };
        let length = writer.finish()?;
        if self.sent == 0 {
            self.transcript.update(text.get(..length).unwrap_or_default());
        }
        // What is longer than a record may be goes out in several. Only a certificate is, and it is written anew for each.
        let end = length.min(self.sent + self.text_max);
        text.copy_within(self.sent..end, 0);
        let write = self.write.as_mut().ok_or(TlsError::Closed)?;
        let sealed = write.seal(HANDSHAKE, out, end - self.sent)?;
        if end < length {
            self.sent = end;
            return Ok(Some(sealed));
        }
        self.sent = 0;
        if let (Step::Done, Some(application)) = (&next, &self.application) {
            self.write = Some(Keys::new(application.client));
        }
        self.step = next;
        Ok(Some(sealed))
    }

    fn hash(&self) -> Hash {
        self.transcript.clone().finalize().into()
    }
}

/// Whether a message changed the keys: no other may share its record (RFC 8446 s5.1).
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeyChange {
    None,
    Changed,
}

fn signed(context: &[u8; 34], transcript: &Hash) -> [u8; SIGNED] {
    let mut bytes = [0x20; SIGNED];
    let (_, rest) = bytes.split_at_mut(64);
    let (context_room, hash_room) = rest.split_at_mut(context.len());
    context_room.copy_from_slice(context);
    hash_room.copy_from_slice(transcript);
    bytes
}

fn write_certificate(writer: &mut Writer<'_>, identity: Option<Identity<'_>>) {
    writer.put_u8(CERTIFICATE);
    let message = writer.open(3);
    writer.put_u8(0);
    let list = writer.open(3);
    if let Some(identity) = identity {
        let certificate = writer.open(3);
        writer.put(identity.certificate);
        writer.close(&certificate);
        writer.put_u16(0);
    }
    writer.close(&list);
    writer.close(&message);
}
