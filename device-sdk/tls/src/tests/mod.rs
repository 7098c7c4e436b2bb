//! Both sides in one thread: what the client sends is handed to the server when the client wants to read.

mod honest;
mod mutate;
mod rogue;
mod rogue_tests;
mod strict;
mod trust;

use crate::{Config, Identity, Pin, TlsBuffers, TlsError, TlsLink, Trust};
use core::convert::Infallible;
use embassy_futures::block_on;
use embedded_io_async::{ErrorType, Read, Write};
use std::boxed::Box;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::string::ToString;
use std::vec::Vec;

/// Room for records of 1 KiB and for a first flight in pieces.
pub(super) type Buffers = TlsBuffers<2_200, 700>;

/// A check of the client that a test can leave out, to see that others notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Check {
    /// That the key is a pinned one.
    Pin,
    /// That a signature is right.
    Signature,
    /// That both sides heard the same.
    Finished,
    /// That nothing was skipped.
    Order,
}

std::thread_local! {
    static LEFT_OUT: Cell<Option<Check>> = const { Cell::new(None) };
}

/// Whether the test of this thread leaves a check out.
pub(crate) fn is_left_out(check: Check) -> bool {
    LEFT_OUT.get() == Some(check)
}

/// A server: bytes in, bytes out.
pub(super) trait Server {
    fn hear(&mut self, bytes: &[u8], say: &mut dyn FnMut(&[u8]));
}

struct Inner {
    server: Box<dyn Server>,
    up: Vec<u8>,
    /// Everything the client has said.
    said: Vec<u8>,
    down: VecDeque<u8>,
    /// Bytes a single read returns at most.
    sip: usize,
    /// Reads and writes are interrupted before they do something.
    hiccup: bool,
    hiccups: u32,
}

/// The client's end of a connection with a server.
#[derive(Clone)]
pub(super) struct Wire(Rc<RefCell<Inner>>);

impl Wire {
    pub(super) fn to(server: impl Server + 'static) -> Self {
        Self(Rc::new(RefCell::new(Inner {
            server: Box::new(server),
            up: Vec::new(),
            said: Vec::new(),
            down: VecDeque::new(),
            sip: usize::MAX,
            hiccup: false,
            hiccups: 0,
        })))
    }

    pub(super) fn sipping(self, sip: usize) -> Self {
        self.0.borrow_mut().sip = sip;
        self
    }

    async fn interrupted(&self) {
        core::future::poll_fn(|cx| {
            let inner = &mut *self.0.borrow_mut();
            inner.hiccups += 1;
            if inner.hiccup && inner.hiccups % 2 == 1 {
                cx.waker().wake_by_ref();
                return core::task::Poll::Pending;
            }
            core::task::Poll::Ready(())
        })
        .await;
    }

    /// From now on each second poll of a read or write comes to nothing.
    pub(super) fn hiccup(&self) {
        self.0.borrow_mut().hiccup = true;
    }

    /// What the client has said until now.
    pub(super) fn said(&self) -> Vec<u8> {
        self.0.borrow().said.clone()
    }

    /// Lets the server hear what was said until now.
    pub(super) fn pass(&self) {
        let inner = &mut *self.0.borrow_mut();
        let up = core::mem::take(&mut inner.up);
        let down = &mut inner.down;
        inner.server.hear(&up, &mut |bytes| down.extend(bytes));
    }
}

impl ErrorType for Wire {
    type Error = Infallible;
}

impl Read for Wire {
    async fn read(&mut self, out: &mut [u8]) -> Result<usize, Infallible> {
        self.interrupted().await;
        if self.0.borrow().down.is_empty() {
            self.pass();
        }
        let inner = &mut *self.0.borrow_mut();
        let length = out.len().min(inner.sip).min(inner.down.len());
        for (to, from) in out.iter_mut().zip(inner.down.drain(..length)) {
            *to = from;
        }
        Ok(length)
    }
}

impl Write for Wire {
    async fn write(&mut self, bytes: &[u8]) -> Result<usize, Infallible> {
        self.interrupted().await;
        let inner = &mut *self.0.borrow_mut();
        let length = bytes.len().min(inner.sip);
        inner.up.extend(&bytes[..length]);
        inner.said.extend(&bytes[..length]);
        Ok(length)
    }

    async fn flush(&mut self) -> Result<(), Infallible> {
        Ok(())
    }
}

/// A key with its certificate.
pub(super) struct Party {
    pub(super) certificate: Vec<u8>,
    /// `SubjectPublicKeyInfo`.
    pub(super) public: Vec<u8>,
    pub(super) secret: [u8; 32],
    pub(super) pkcs8: Vec<u8>,
}

fn public(key: &rcgen::KeyPair) -> Vec<u8> {
    use rcgen::PublicKeyData;
    key.subject_public_key_info()
}

fn secret(key: &rcgen::KeyPair) -> [u8; 32] {
    let pkcs8 = key.serialize_der();
    // PKCS#8 of a P-256 key holds the number behind `04 20`.
    let at = pkcs8.windows(2).position(|pair| pair == [0x04, 0x20]).unwrap() + 2;
    pkcs8[at..at + 32].try_into().unwrap()
}

fn party(key: &rcgen::KeyPair, certificate: Vec<u8>) -> Party {
    Party { certificate, public: public(key), secret: secret(key), pkcs8: key.serialize_der() }
}

/// An authority and what it signs.
pub(super) struct Authority {
    pub(super) key: Vec<u8>,
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
}

impl Authority {
    pub(super) fn new() -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        Self { key: public(&key), issuer: rcgen::Issuer::new(params, key) }
    }

    pub(super) fn sign(&self, name: &str, usage: &[rcgen::ExtendedKeyUsagePurpose]) -> Party {
        self.sign_with(name, |params| params.extended_key_usages = usage.to_vec())
    }

    /// Signs anything, as if it were a certificate.
    pub(super) fn sign_bytes(&self, signed: &[u8]) -> Vec<u8> {
        use p256::ecdsa::signature::Signer;
        let key = p256::ecdsa::SigningKey::from_slice(&secret(self.issuer.key())).unwrap();
        let signature: p256::ecdsa::DerSignature = key.sign(signed);
        let signature = signature.as_bytes();
        let algorithm = [0x30, 10, 6, 8, 0x2A, 0x86, 0x48, 0xCE, 0x3D, 4, 3, 2];
        let bits = [&[3, u8::try_from(signature.len() + 1).unwrap(), 0], signature].concat();
        let inside = [signed, &algorithm, &bits].concat();
        let length = u16::try_from(inside.len()).unwrap().to_be_bytes();
        [&[0x30, 0x82], &length[..], &inside].concat()
    }

    /// Signs what `change` makes of a certificate for this name.
    pub(super) fn sign_with(&self, name: &str, change: impl FnOnce(&mut rcgen::CertificateParams)) -> Party {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(std::vec![name.to_string()]).unwrap();
        change(&mut params);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        party(&key, certificate.der().to_vec())
    }
}

/// A key with a certificate signed by itself.
pub(super) fn lonely() -> Party {
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(std::vec!["broker.lan".to_string()]).unwrap();
    party(&key, params.self_signed(&key).unwrap().der().to_vec())
}

pub(super) fn pinned(party: &Party) -> Config<'static> {
    Config {
        trust: Trust::Pins { current: Pin::of(&party.public), next: None },
        server_name: Some("broker.lan"),
        protocol: Some(b"mqtt"),
        identity: None,
    }
}

/// Randomness of a test: different each time and the same each run.
pub(super) fn entropy() -> impl FnMut(&mut [u8]) {
    let mut state = 0x1234_5678_9ABC_DEF0_u64;
    move |bytes| {
        for byte in bytes {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            *byte = (state >> 56) as u8;
        }
    }
}

pub(super) fn open<'b>(
    wire: &Wire,
    config: &Config<'_>,
    buffers: &'b mut Buffers,
) -> Result<TlsLink<'b, Wire, Wire>, TlsError> {
    block_on(TlsLink::open(wire.clone(), wire.clone(), config, buffers, entropy()))
}

/// What comes of a handshake and the first read after it.
pub(super) fn outcome(wire: &Wire, config: &Config<'_>) -> Result<Vec<u8>, TlsError> {
    let mut buffers = Buffers::new();
    let mut link = open(wire, config, &mut buffers)?;
    let mut out = [0; 64];
    let length = block_on(link.read(&mut out))?;
    Ok(out[..length].to_vec())
}

pub(super) fn identity(party: &Party) -> Identity<'_> {
    Identity { certificate: &party.certificate, key: &party.secret }
}
