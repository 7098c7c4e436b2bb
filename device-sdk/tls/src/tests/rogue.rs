//! A server that can do everything wrong: every message and every record is made by hand.

use super::*;
use crate::cursor::{Reader, Writer};
use crate::keys::{self, Traffic};
use crate::record::{APPLICATION, HANDSHAKE, HEADER, Keys, write_header};
use hmac::Mac;
use p256::ecdsa::signature::Signer;
use p256::ecdsa::{DerSignature, SigningKey};
use p256::elliptic_curve::sec1::ToEncodedPoint;
use p256::{PublicKey, SecretKey};
use sha2::{Digest, Sha256};
use std::sync::OnceLock;

/// What a rogue does once it has the `ClientHello`.
pub(super) type Script = Box<dyn FnOnce(&mut Play)>;

struct Rogue(Option<Script>);

impl Server for Rogue {
    fn hear(&mut self, bytes: &[u8], say: &mut dyn FnMut(&[u8])) {
        if let Some(script) = self.0.take() {
            let mut play = Play::new(bytes);
            script(&mut play);
            say(&play.out);
        }
    }
}

/// A connection with a rogue.
pub(super) fn rogue(script: impl FnOnce(&mut Play) + 'static) -> Wire {
    Wire::to(Rogue(Some(Box::new(script))))
}

/// The rogue's side of a handshake.
pub(super) struct Play {
    /// What it says.
    pub(super) out: Vec<u8>,
    transcript: Sha256,
    share: Vec<u8>,
    traffic: Option<Traffic>,
    master: [u8; 32],
    keys: Option<Keys>,
}

impl Play {
    fn new(hello: &[u8]) -> Self {
        let mut transcript = Sha256::new();
        transcript.update(&hello[HEADER..]);
        let mut body = Reader(&hello[HEADER + 4..]);
        body.take(34).unwrap();
        body.vector(1).unwrap();
        body.vector(2).unwrap();
        body.vector(1).unwrap();
        let mut extensions = body.vector(2).unwrap();
        let mut share = Vec::new();
        while !extensions.is_empty() {
            let kind = extensions.number(2).unwrap();
            let content = extensions.vector(2).unwrap();
            if kind == 51 {
                share = content.0[6..].to_vec();
            }
        }
        Self { out: Vec::new(), transcript, share, traffic: None, master: [0; 32], keys: None }
    }

    /// A message of this kind.
    pub(super) fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        let [high, low] = u16::try_from(body.len()).unwrap().to_be_bytes();
        let mut message = std::vec![kind, 0, high, low];
        message.extend(body);
        message
    }

    pub(super) fn hash(&self) -> [u8; 32] {
        self.transcript.clone().finalize().into()
    }

    /// Counts a message as said.
    pub(super) fn said(&mut self, message: &[u8]) {
        self.transcript.update(message);
    }

    /// Whether there are keys to seal with.
    pub(super) fn is_sealed(&self) -> bool {
        self.keys.is_some()
    }

    /// A record in the open.
    pub(super) fn plain(&mut self, kind: u8, content: &[u8]) {
        let mut header = [0; HEADER];
        write_header(&mut header, kind, content.len());
        self.out.extend(header);
        self.out.extend(content);
    }

    /// A sealed record.
    pub(super) fn sealed(&mut self, kind: u8, text: &[u8]) {
        let mut record = std::vec![0; text.len() + 64];
        record[HEADER..HEADER + text.len()].copy_from_slice(text);
        let length = self.keys.as_mut().unwrap().seal(kind, &mut record, text.len()).unwrap();
        self.out.extend(&record[..length]);
    }

    /// A sealed record of these bytes, kind and padding included; it may be empty.
    pub(super) fn sealed_whole(&mut self, inner: &[u8]) {
        match inner.split_last() {
            Some((kind, text)) => self.sealed(*kind, text),
            None => {
                // The tag of nothing.
                use aes_gcm::aead::{AeadInPlace, KeyInit};
                let secret = *self.keys.as_ref().unwrap().secret();
                let (mut key, mut iv) = ([0; 16], [0; 12]);
                keys::expand(&secret, b"key", b"", &mut key);
                keys::expand(&secret, b"iv", b"", &mut iv);
                let header = [APPLICATION, 3, 3, 0, 16];
                let cipher = aes_gcm::Aes128Gcm::new(&key.into());
                let tag = cipher.encrypt_in_place_detached(&iv.into(), &header, &mut []).unwrap();
                self.out.extend(header);
                self.out.extend(tag);
            }
        }
    }

    /// The body of a `ServerHello`.
    pub(super) fn hello_body(random: [u8; 32], suite: u16, extensions: &[(u16, Vec<u8>)]) -> Vec<u8> {
        let mut room = std::vec![0; 1_000];
        let mut writer = Writer::new(&mut room);
        writer.put_u16(0x0303);
        writer.put(&random);
        writer.put_u8(0);
        writer.put_u16(suite);
        writer.put_u8(0);
        let list = writer.open(2);
        for (kind, content) in extensions {
            writer.put_u16(*kind);
            let length = writer.open(2);
            writer.put(content);
            writer.close(&length);
        }
        writer.close(&list);
        let length = writer.finish().unwrap();
        room.truncate(length);
        room
    }

    /// Makes a key, and the extensions of an honest hello.
    pub(super) fn agree() -> (SecretKey, [(u16, Vec<u8>); 2]) {
        // Made once: it costs as much as a handshake of the board.
        static SHARE: OnceLock<Vec<u8>> = OnceLock::new();
        let secret = SecretKey::from_slice(&[0x42; 32]).unwrap();
        let share = SHARE.get_or_init(|| {
            let mut share = std::vec![0, 0x17, 0, 65];
            share.extend(secret.public_key().to_encoded_point(false).as_bytes());
            share
        });
        (secret, [(43, std::vec![3, 4]), (51, share.clone())])
    }

    /// Derives the keys after a hello was said.
    pub(super) fn derive(&mut self, secret: &SecretKey) {
        let theirs = PublicKey::from_sec1_bytes(&self.share).unwrap();
        let shared = p256::ecdh::diffie_hellman(secret.to_nonzero_scalar(), theirs.as_affine());
        let (traffic, master) = keys::handshake(shared.raw_secret_bytes(), &self.hash());
        self.keys = Some(Keys::new(traffic.server));
        self.master = master;
        self.traffic = Some(traffic);
    }

    /// An honest hello.
    pub(super) fn hello(&mut self) {
        let (_, extensions) = Self::agree();
        self.hello_with(&Self::hello_body([9; 32], 0x1301, &extensions));
    }

    /// A hello with this body, and the keys that follow from it.
    pub(super) fn hello_with(&mut self, body: &[u8]) {
        let (secret, _) = Self::agree();
        let message = Self::message(2, body);
        self.said(&message);
        self.plain(HANDSHAKE, &message);
        self.derive(&secret);
    }

    /// Seals a message and counts it as said.
    pub(super) fn say(&mut self, message: &[u8]) {
        self.said(message);
        self.sealed(HANDSHAKE, message);
    }

    pub(super) fn extensions() -> Vec<u8> {
        // It speaks MQTT.
        Self::message(8, &[0, 11, 0, 16, 0, 7, 0, 5, 4, b'm', b'q', b't', b't'])
    }

    pub(super) fn certificate(party: &Party) -> Vec<u8> {
        let length = party.certificate.len();
        let mut body = std::vec![0];
        for bytes in [length + 5, length] {
            let [high, low] = u16::try_from(bytes).unwrap().to_be_bytes();
            body.extend([0, high, low]);
        }
        body.extend(&party.certificate);
        body.extend([0, 0]);
        Self::message(11, &body)
    }

    /// A proof for the transcript as it is.
    pub(super) fn proof(&self, party: &Party) -> Vec<u8> {
        Self::proof_of(party, b"TLS 1.3, server CertificateVerify\0", self.hash())
    }

    pub(super) fn proof_of(party: &Party, context: &[u8], hash: [u8; 32]) -> Vec<u8> {
        let mut signed = std::vec![0x20; 64];
        signed.extend(context);
        signed.extend(hash);
        let signature: DerSignature = SigningKey::from_slice(&party.secret).unwrap().sign(&signed);
        let mut body = std::vec![4, 3, 0, u8::try_from(signature.as_bytes().len()).unwrap()];
        body.extend(signature.as_bytes());
        Self::message(15, &body)
    }

    pub(super) fn finished(&self) -> Vec<u8> {
        let secret = self.traffic.as_ref().map_or([0; 32], |traffic| traffic.server);
        Self::message(20, &keys::finished(&secret, &self.hash()).finalize().into_bytes())
    }

    /// Everything up to and with Finished, one message a record.
    pub(super) fn flight(&mut self, party: &Party) {
        self.hello();
        self.say(&Self::extensions());
        self.say(&Self::certificate(party));
        self.prove(party);
    }

    /// What comes behind the certificate.
    pub(super) fn prove(&mut self, party: &Party) {
        let proof = self.proof(party);
        self.say(&proof);
        let finished = self.finished();
        self.say(&finished);
        self.open();
    }

    /// Goes over to the application's keys.
    pub(super) fn open(&mut self) {
        self.keys = Some(Keys::new(keys::application(&self.master, &self.hash()).server));
    }

    /// What the board seals with in the handshake.
    pub(super) fn boards_handshake_keys(&self) -> Option<Keys> {
        self.traffic.as_ref().map(|traffic| Keys::new(traffic.client))
    }

    /// What the board seals with when the handshake is over.
    pub(super) fn boards_keys(&self) -> Keys {
        Keys::new(keys::application(&self.master, &self.hash()).client)
    }

    /// Goes over to the keys after these.
    pub(super) fn rekey(&mut self) {
        self.keys = self.keys.as_ref().map(Keys::next);
    }
}
