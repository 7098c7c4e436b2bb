//! This SDK: the application uses what the features give it.

use crate::world::{HOST, heard, port, register, tcp};
use embassy_futures::select::{Either, select};
use embassy_net::Stack;
use embassy_time::Timer;
#[cfg(feature = "commands")]
use parlor_device::Commands;
#[cfg(any(feature = "commands", feature = "state"))]
use parlor_device::Describe;
#[cfg(any(feature = "messages", feature = "topics"))]
use parlor_device::Device;
#[cfg(feature = "messages")]
use parlor_device::Listen;
#[cfg(feature = "state")]
use parlor_device::State;
use parlor_device::transport::EmbassyClock;
use parlor_device::transport::embassy_net::TcpConnector;
use parlor_device::{Config, Login, Parts, Resources};
use static_cell::ConstStaticCell;

/// Buffers: to receive, to send, what waits to be sent, what waits to be taken. As they come for an application that does everything;
/// this one has short things to say.
#[cfg(not(feature = "full"))]
type Memory = Resources<512, 256, 384, 256>;
#[cfg(feature = "full")]
type Memory = Resources;

#[cfg(feature = "commands")]
#[derive(Commands)]
enum Order {
    Set { on: bool },
}

#[cfg(feature = "state")]
#[derive(State)]
struct Lamp {
    on: bool,
}

#[cfg(feature = "flash")]
mod chip {
    use crate::world::{flash_erase, flash_read, flash_write};
    use embedded_storage_async::nor_flash::{ErrorType, NorFlash, NorFlashError, NorFlashErrorKind, ReadNorFlash};

    pub struct Chip;

    #[derive(Debug)]
    pub struct Broken;

    impl NorFlashError for Broken {
        fn kind(&self) -> NorFlashErrorKind {
            NorFlashErrorKind::Other
        }
    }

    impl ErrorType for Chip {
        type Error = Broken;
    }

    impl ReadNorFlash for Chip {
        const READ_SIZE: usize = 1;

        async fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), Broken> {
            flash_read(offset, bytes);
            Ok(())
        }

        fn capacity(&self) -> usize {
            8_192
        }
    }

    impl NorFlash for Chip {
        const WRITE_SIZE: usize = 4;
        const ERASE_SIZE: usize = 4_096;

        async fn erase(&mut self, from: u32, to: u32) -> Result<(), Broken> {
            flash_erase(from, to);
            Ok(())
        }

        async fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), Broken> {
            flash_write(offset, bytes);
            Ok(())
        }
    }
}

pub async fn run(net: Stack<'static>) {
    static RESOURCES: ConstStaticCell<Memory> = ConstStaticCell::new(Memory::new());
    let (rx, tx) = tcp();
    #[cfg(any(feature = "messages", feature = "topics"))]
    let mut room = [0; 64];
    let connector = TcpConnector::new(net, HOST, port(), rx, tx);
    #[cfg(feature = "tls")]
    let connector = {
        use parlor_device::transport::tls::{Config, Pin, TlsBuffers, TlsConnector, Trust};
        static TLS: ConstStaticCell<TlsBuffers<1_046, 512>> = ConstStaticCell::new(TlsBuffers::new());
        let trust = Trust::Pins { current: Pin(crate::world::pin()), next: None };
        let protocol: Option<&[u8]> = Some(if cfg!(feature = "native") { b"parlor/1" } else { b"mqtt" });
        let config = Config { trust, server_name: None, protocol, identity: None };
        let entropy = |bytes: &mut [u8]| bytes.iter_mut().for_each(|byte| *byte = register(15) as u8);
        TlsConnector::new(connector, config, TLS.take(), entropy)
    };
    #[cfg(feature = "flash")]
    let flash = parlor_device::flash::FlashMap::<_, 768>::new(chip::Chip, 0..8_192).expect("whole pages");
    #[cfg(not(feature = "flash"))]
    let flash = parlor_device::flash::NoFlash;
    #[cfg(feature = "mqtt")]
    let wire = parlor_device::Mqtt::V5;
    #[cfg(feature = "native")]
    let wire = parlor_device::Native;
    let config = Config {
        login: Login::Account { name: "lamp", secret: b"sesame-sesame" },
        #[cfg(any(feature = "commands", feature = "state"))]
        describe: Describe {
            #[cfg(feature = "commands")]
            commands: Order::DESCRIPTION,
            #[cfg(feature = "state")]
            state: Lamp::DESCRIPTION,
            ..Describe::NOTHING
        },
        #[cfg(feature = "messages")]
        listen: Listen::MESSAGES,
        #[cfg(not(any(feature = "commands", feature = "state", feature = "messages")))]
        listen: parlor_device::Listen::OTHER_BROKER,
        #[cfg(feature = "topics")]
        subscribe: &[parlor_device::Subscription { filter: "lamp/set", qos: parlor_device::QoS::AtLeastOnce }],
        ..Config::new("lamp-terminal")
    };
    let parts = Parts { connector, flash, clock: EmbassyClock, seed: u64::from(register(16)) };
    let (device, mut runner) = parlor_device::new(RESOURCES.take(), config, wire, parts);
    let act = async {
        #[cfg(feature = "state")]
        let mut lamp = Lamp { on: false };
        loop {
            #[cfg(feature = "topics")]
            topics(device, &mut room).await;
            #[cfg(feature = "messages")]
            messages(device, &mut room).await;
            #[cfg(feature = "state")]
            {
                let _ = device.report(&lamp).await;
                if let Either::First(true) = select(device.next_desired(&mut lamp), Timer::after_secs(1)).await {
                    heard(2, u32::from(lamp.on));
                }
            }
            #[cfg(feature = "commands")]
            if let Either::First(command) = select(device.next_command::<Order>(), Timer::after_secs(1)).await {
                let Order::Set { on } = command.what;
                heard(3, u32::from(on));
                command.done(()).await;
            }
        }
    };
    select(runner.run(), async { act.await }).await;
}

/// Says what the lamp is, and hears what it is to be.
#[cfg(feature = "topics")]
async fn topics(device: Device<'_>, room: &mut [u8]) {
    if let Ok(receipt) = device.publish("lamp/state", b"{\"on\":true}").await {
        receipt.acked().await;
    }
    if let Either::First((_, payload)) = select(device.next_publish(room), Timer::after_secs(1)).await {
        heard(0, u32::from(payload == b"on"));
    }
}

/// The same in a conversation.
#[cfg(feature = "messages")]
async fn messages(device: Device<'_>, room: &mut [u8]) {
    if let Ok(receipt) = device.send("alice", "it is on").await {
        receipt.acked().await;
    }
    if let Either::First(message) = select(device.next_message(room), Timer::after_secs(1)).await {
        heard(1, u32::from(message.text == "on"));
    }
}
