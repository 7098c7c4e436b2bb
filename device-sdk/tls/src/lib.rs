//! TLS 1.3 between a board and a broker (RFC 8446), without an allocator and without a clock.
//!
//! One way through the standard, the one every peer has to have: `TLS_AES_128_GCM_SHA256`, key agreement and signatures on P-256. The
//! server is known by its key ([`Trust::Pins`]: the current one and the next, so that it can be changed) or by an authority
//! ([`Trust::Authority`]). A board may show a certificate of its own ([`Identity`]).
//!
//! ```no_run
//! use parlor_device_tls::{Config, Pin, TlsBuffers, TlsLink, Trust};
//! # async fn example<R: embedded_io_async::Read, W: embedded_io_async::Write>(reader: R, writer: W) -> Result<(), parlor_device_tls::TlsError> {
//! let pin = Pin::from_hex("6b2f…").ok_or(parlor_device_tls::TlsError::WrongPin)?;
//! let config = Config { trust: Trust::Pins { current: pin, next: None }, server_name: Some("broker.lan"), protocol: Some(b"mqtt"), identity: None };
//! // 1 KiB of text in a record and what a record adds: `tls.fragment_bytes = 1024` at the broker.
//! let mut buffers: TlsBuffers<1_046, 512> = TlsBuffers::new();
//! let entropy = |bytes: &mut [u8]| { /* the chip's generator of true random numbers */ };
//! let mut link = TlsLink::open(reader, writer, &config, &mut buffers, entropy).await?;
//! link.write(b"hello").await?;
//! link.flush().await?;
//! # Ok(()) }
//! ```
//!
//! # What it does not do
//!
//! - It knows no time, so it does not look at the validity of certificates. Pins have none; an authority's board trusts a
//!   certificate until the authority's key is replaced. Withdraw a server's certificate by replacing its key.
//! - An authority vouches for the server's certificate directly. Certificates between them are not followed.
//! - No resumption, no early data, no second hello (`HelloRetryRequest`, for other groups or a cookie), no RSA, no TLS 1.2.
//!
//! `docs/devices.md`, "TLS", says rule by rule what it insists on, what follows from what it does not do, and how that is tested.
//!
//! # Memory
//!
//! The read buffer holds a whole record, and a server's first flight if that comes in several: plaintext + 22 bytes, and 16 KiB for a
//! server that cannot be told otherwise. [`TlsLink::open`] asks for small records (RFC 6066 `max_fragment_length`), which OpenSSL grants;
//! Parlor has `tls.fragment_bytes`. The write buffer decides how much goes out in one record: 300 bytes suffice, or the client
//! certificate and 120.
//!
//! # Cancelling
//!
//! `read`, `write` and `flush` can be dropped at any await and called again: what was read stays in the buffer, what was sealed goes on
//! from where it stopped. `open` cannot: drop the link. [`TlsLink::split`] gives two halves that work at the same time.

#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

mod cursor;
mod der;
mod engine;
mod error;
mod hello;
mod keys;
mod link;
mod record;
mod trust;

#[cfg(test)]
mod tests;

pub use error::{Offence, TlsError};
pub use link::{Tls, TlsBuffers, TlsLink, TlsReader, TlsWriter};
pub use trust::{Identity, Pin, Trust};

/// How to make a link.
#[derive(Debug, Clone, Copy)]
pub struct Config<'a> {
    /// Which server is the right one.
    pub trust: Trust<'a>,
    /// The name to ask for (SNI, RFC 6066 s3). It proves nothing by itself.
    pub server_name: Option<&'a str>,
    /// The application protocol (ALPN, RFC 7301), at most 255 bytes. A server that names another one is refused; one that
    /// names none is accepted.
    pub protocol: Option<&'a [u8]>,
    /// What the board shows when it is asked who it is.
    pub identity: Option<Identity<'a>>,
}
