//! What boards with `embassy-net` have in common: memory, TCP, TLS, the runner, and updates. A board brings its network, its flash, its
//! generator of random numbers, and what it does.

#![no_std]

mod update;

use embassy_futures::join::join;
use embassy_net::Stack;
use parlor_device::flash::Flash;
use parlor_device::transport::EmbassyClock;
use parlor_device::transport::embassy_net::TcpConnector;
use parlor_device::transport::tls::{self, TlsBuffers, TlsConnector, Trust};
use parlor_device::{Config, Device, Login, Parts, Resources};
use static_cell::ConstStaticCell;

pub use parlor_device::flash::FlashMap;
pub use parlor_device::transport::tls::Pin;
pub use update::{Maker, TRIAL, update, update_within};

#[cfg(not(feature = "native"))]
use parlor_device::Mqtt;
#[cfg(feature = "native")]
use parlor_device::Native;

/// What the board speaks, and how TLS calls it.
#[cfg(not(feature = "native"))]
const WIRE: (Mqtt, &[u8]) = (Mqtt::V5, b"mqtt");
#[cfg(feature = "native")]
const WIRE: (Native, &[u8]) = (Native, b"parlor/1");

/// Bytes of text in a TLS record of the broker: its `tls.fragment_bytes`.
const FRAGMENT: usize = 1_024;
/// What a record adds.
const RECORD: usize = 22;

/// Where the broker is, and how to know it.
#[derive(Debug, Clone, Copy)]
pub struct Broker {
    /// Its name or IPv4 address.
    pub host: &'static str,
    /// The port of its `mqtts://` listener; with the feature `native`, of that with `parlor+tls://`.
    pub port: u16,
    /// Its key.
    pub pin: Pin,
    /// The key it will have one day.
    pub next_pin: Option<Pin>,
}

/// The broker and the pairing code that the build script was told (`parlor-secrets`).
#[macro_export]
macro_rules! told {
    () => {
        $crate::told(
            (env!("BROKER_HOST"), env!("BROKER_PORT")),
            (env!("BROKER_PIN"), option_env!("BROKER_NEXT_PIN")),
            (env!("PAIRING_CODE"), env!("DEVICE_NAME")),
        )
    };
}

#[doc(hidden)]
pub fn told(
    (host, port): (&'static str, &'static str),
    (pin, next_pin): (&'static str, Option<&'static str>),
    (code, name): (&'static str, &'static str),
) -> (Broker, Login) {
    let port = port.parse().expect("BROKER_PORT is a number");
    let pin = Pin::from_hex(pin).expect("BROKER_PIN is 64 hexadecimal digits");
    let next_pin = next_pin.map(|pin| Pin::from_hex(pin).expect("BROKER_NEXT_PIN is 64 hexadecimal digits"));
    (Broker { host, port, pin, next_pin }, Login::Pair { code, name })
}

/// Runs a device for ever: connects, and does what `act` does. To be called once.
pub async fn run<F: Flash, A: Future>(
    net: Stack<'static>,
    broker: Broker,
    config: Config,
    flash: F,
    entropy: fn(&mut [u8]),
    act: impl FnOnce(Device<'static>) -> A,
) -> ! {
    static RESOURCES: ConstStaticCell<Resources> = ConstStaticCell::new(Resources::new());
    static TLS: ConstStaticCell<TlsBuffers<{ FRAGMENT + RECORD }, 512>> = ConstStaticCell::new(TlsBuffers::new());
    static TCP_RX: ConstStaticCell<[u8; 2_048]> = ConstStaticCell::new([0; 2_048]);
    static TCP_TX: ConstStaticCell<[u8; 1_024]> = ConstStaticCell::new([0; 1_024]);
    let tcp = TcpConnector::new(net, broker.host, broker.port, TCP_RX.take(), TCP_TX.take());
    let trust = Trust::Pins { current: broker.pin, next: broker.next_pin };
    let (wire, protocol) = WIRE;
    let tls = tls::Config { trust, server_name: Some(broker.host), protocol: Some(protocol), identity: None };
    let connector = TlsConnector::new(tcp, tls, TLS.take(), entropy);
    let mut seed = [0; 8];
    entropy(&mut seed);
    let parts = Parts { connector, flash, clock: EmbassyClock, seed: u64::from_le_bytes(seed) };
    let (device, mut runner) = parlor_device::new(RESOURCES.take(), config, wire, parts);
    join(runner.run(), act(device)).await.0
}
