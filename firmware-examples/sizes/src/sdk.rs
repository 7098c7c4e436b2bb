//! This SDK.

use crate::world::{register, set};
use embassy_futures::select::{Either, select};
use embassy_net::Stack;
use embassy_time::Timer;
use parlor_device::transport::EmbassyClock;
use parlor_device::transport::embassy_net::TcpConnector;
use parlor_device::{Commands, Config, Describe, Login, Parts, Resources, State};
use static_cell::ConstStaticCell;

#[derive(Commands)]
enum Order {
    Set { on: bool },
}

#[derive(State)]
struct Lamp {
    on: bool,
}

#[cfg(feature = "flash")]
mod chip {
    use crate::world::{register, set};
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
            set(11, offset);
            bytes.iter_mut().for_each(|byte| *byte = register(12) as u8);
            Ok(())
        }

        fn capacity(&self) -> usize {
            65_536
        }
    }

    impl NorFlash for Chip {
        const WRITE_SIZE: usize = 4;
        const ERASE_SIZE: usize = 4_096;

        async fn erase(&mut self, from: u32, to: u32) -> Result<(), Broken> {
            set(13, from);
            set(14, to);
            Ok(())
        }

        async fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), Broken> {
            set(11, offset);
            bytes.iter().for_each(|byte| set(12, u32::from(*byte)));
            Ok(())
        }
    }
}

pub async fn run(net: Stack<'static>) {
    static RESOURCES: ConstStaticCell<Resources> = ConstStaticCell::new(Resources::new());
    let (mut rx, mut tx) = ([0; 2_048], [0; 1_024]);
    let connector = TcpConnector::new(net, "broker.lan", 1_883, &mut rx, &mut tx);
    #[cfg(feature = "tls")]
    let connector = {
        use parlor_device::transport::tls::{Config, Pin, TlsBuffers, TlsConnector, Trust};
        static TLS: ConstStaticCell<TlsBuffers<1_046, 512>> = ConstStaticCell::new(TlsBuffers::new());
        let trust = Trust::Pins { current: Pin([7; 32]), next: None };
        let config = Config { trust, server_name: None, protocol: Some(b"mqtt"), identity: None };
        let entropy = |bytes: &mut [u8]| bytes.iter_mut().for_each(|byte| *byte = register(15) as u8);
        TlsConnector::new(connector, config, TLS.take(), entropy)
    };
    #[cfg(feature = "flash")]
    let flash = parlor_device::flash::FlashMap::<_, 768>::new(chip::Chip, 0..65_536).expect("whole pages");
    #[cfg(not(feature = "flash"))]
    let flash = parlor_device::flash::NoFlash;
    #[cfg(feature = "mqtt")]
    let wire = parlor_device::Mqtt::V5;
    #[cfg(feature = "native")]
    let wire = parlor_device::Native::default();
    let describe = Describe { commands: Order::DESCRIPTION, state: Lamp::DESCRIPTION, ..Describe::NOTHING };
    let config =
        Config { login: Login::Account { name: "lamp", secret: b"secret" }, describe, ..Config::new("lamp-terminal") };
    let parts = Parts { connector, flash, clock: EmbassyClock, seed: u64::from(register(16)) };
    let (device, mut runner) = parlor_device::new(RESOURCES.take(), config, wire, parts);
    let act = async {
        let mut lamp = Lamp { on: false };
        loop {
            let _ = device.report(&lamp).await;
            if let Either::First(command) = select(device.next_command::<Order>(), Timer::after_secs(1)).await {
                let Order::Set { on } = command.what;
                lamp.on = on;
                set(10, u32::from(on));
                command.done(()).await;
            }
        }
    };
    select(runner.run(), async { act.await }).await;
}
