//! What the SDK needs of the world: connections and time.

#[cfg(feature = "embassy-net")]
pub mod embassy_net;
#[cfg(feature = "tls")]
pub mod tls;

use crate::error::LinkError;
use core::future::Future;
use embedded_io_async::{ErrorType, Read, Write};

/// A connection: a stream of bytes in each direction.
pub trait Link {
    /// What arrives.
    type Read<'a>: Read
    where
        Self: 'a;
    /// What is sent.
    type Write<'a>: Write
    where
        Self: 'a;

    /// Both directions, to be used at the same time. A read is never given up before the connection is.
    fn split(&mut self) -> (Self::Read<'_>, Self::Write<'_>);

    /// What a read that failed says about the end of the connection. A server of TLS 1.3 looks at a certificate when the device
    /// believes the link open, so it refuses it here.
    fn why<'a>(error: &<Self::Read<'a> as ErrorType>::Error) -> LinkError
    where
        Self: 'a,
    {
        let _ = error;
        LinkError::Closed
    }
}

/// Makes connections to the broker.
pub trait Connector {
    /// What it makes.
    type Link<'a>: Link
    where
        Self: 'a;

    /// Connects. It is given up after [`crate::Runner`]'s patience, or when the device goes to sleep; the link is dropped
    /// at the end of the connection.
    fn connect(&mut self) -> impl Future<Output = Result<Self::Link<'_>, LinkError>>;
}

/// A clock that never goes back. What time of the day it is, is not needed.
pub trait Clock {
    /// Milliseconds since some moment.
    fn now_ms() -> u64;

    /// Waits until that time.
    fn sleep_until(ms: u64) -> impl Future<Output = ()>;
}

/// The clock of `embassy-time`.
#[cfg(feature = "embassy-time")]
#[derive(Clone, Copy, Debug, Default)]
pub struct EmbassyClock;

#[cfg(feature = "embassy-time")]
impl Clock for EmbassyClock {
    fn now_ms() -> u64 {
        embassy_time::Instant::now().as_millis()
    }

    fn sleep_until(ms: u64) -> impl Future<Output = ()> {
        embassy_time::Timer::at(embassy_time::Instant::from_millis(ms))
    }
}
