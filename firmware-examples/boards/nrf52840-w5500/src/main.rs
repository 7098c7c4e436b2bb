//! A lamp on an nRF52840 DK with a W5500 Ethernet shield on the Arduino header: the light is LED 1.

#![no_std]
#![no_main]

use core::cell::RefCell;
use core::ops::Range;
use critical_section::Mutex;
use defmt_rtt as _;
use embassy_embedded_hal::adapter::BlockingAsync;
use embassy_embedded_hal::flash::partition::Partition;
use embassy_executor::Spawner;
use embassy_futures::join::join;
use embassy_net::{Config as NetConfig, Runner, StackResources};
use embassy_net_wiznet::chip::W5500;
use embassy_net_wiznet::{Device as Nic, State};
use embassy_nrf::bind_interrupts;
use embassy_nrf::gpio::{Input, Level, Output, OutputDrive, Pull};
use embassy_nrf::mode::Blocking;
use embassy_nrf::nvmc::Nvmc;
use embassy_nrf::peripherals::SPI3;
use embassy_nrf::rng::Rng;
use embassy_nrf::spim::{self, Frequency, Spim};
use embassy_nrf::wdt::{self, Watchdog, WatchdogHandle};
use embassy_sync::blocking_mutex::raw::NoopRawMutex;
use embassy_sync::mutex::Mutex as Shared;
use embassy_time::{Delay, Timer};
use embedded_hal_bus::spi::ExclusiveDevice;
use panic_halt as _;
use parlor_apps::lamp::{self, Lamp, Light};
use parlor_boot::Slots;
use parlor_device::{Config, Describe};
use parlor_wiring::FlashMap;
use static_cell::StaticCell;

include!(concat!(env!("OUT_DIR"), "/areas.rs"));

bind_interrupts!(struct Interrupts {
    SPIM3 => spim::InterruptHandler<SPI3>;
});

/// What ends a program that hangs. The boot loader has started it with the same settings.
fn watchdog() -> wdt::Config {
    let mut config = wdt::Config::default();
    config.timeout_ticks = 30 * 32_768;
    config.action_during_debug_halt = wdt::HaltConfig::PAUSE;
    config
}

/// The generator of random numbers, for whoever needs some.
static ENTROPY: Mutex<RefCell<Option<Rng<'static, Blocking>>>> = Mutex::new(RefCell::new(None));

struct Led(Output<'static>);

impl Light for Led {
    fn set(&mut self, lamp: Lamp) {
        // It shines when the pin is low.
        self.0.set_level((!lamp.on).into());
    }
}

type Spi = ExclusiveDevice<Spim<'static>, Output<'static>, Delay>;

/// Shows the watchdog that tasks run.
#[embassy_executor::task]
async fn watch(mut watchdog: WatchdogHandle) -> ! {
    loop {
        watchdog.pet();
        Timer::after_secs(5).await;
    }
}

#[embassy_executor::task]
async fn nic(runner: embassy_net_wiznet::Runner<'static, W5500, Spi, Input<'static>, Output<'static>>) -> ! {
    runner.run().await
}

#[embassy_executor::task]
async fn network(mut runner: Runner<'static, Nic<'static>>) -> ! {
    runner.run().await
}

fn entropy(bytes: &mut [u8]) {
    critical_section::with(|cs| {
        // It is there before anything needs it.
        if let Some(rng) = ENTROPY.borrow_ref_mut(cs).as_mut() {
            rng.blocking_fill_bytes(bytes);
        }
    });
}

#[embassy_executor::main]
async fn main(spawner: Spawner) {
    let chip = embassy_nrf::init(Default::default());
    let Ok((_, [handle])) = Watchdog::try_new(chip.WDT, watchdog()) else { panic!("it runs with other settings") };
    spawner.spawn(watch(handle).expect("it is spawned once"));
    let rng = Rng::new_blocking(chip.RNG);
    critical_section::with(|cs| ENTROPY.borrow_ref_mut(cs).replace(rng));
    let led = Led(Output::new(chip.P0_13, Level::High, OutputDrive::Standard));
    let mut config = spim::Config::default();
    config.frequency = Frequency::M8;
    let spi = Spim::new(chip.SPI3, Interrupts, chip.P1_15, chip.P1_14, chip.P1_13, config);
    let select = Output::new(chip.P1_12, Level::High, OutputDrive::Standard);
    let spi = ExclusiveDevice::new(spi, select, Delay).expect("an output pin does not fail");
    let interrupt = Input::new(chip.P1_10, Pull::Up);
    let reset = Output::new(chip.P1_11, Level::High, OutputDrive::Standard);
    static CARD: StaticCell<State<4, 4>> = StaticCell::new();
    // Locally administered (IEEE 802): one for each board of yours.
    let address = [0x02, 0x00, 0x00, 0x5A, 0x00, 0x02];
    let made = embassy_net_wiznet::new(address, CARD.init_with(State::new), spi, interrupt, reset).await;
    let Ok((driver, runner)) = made else { panic!("no W5500 answers: check the shield and its pins") };
    spawner.spawn(nic(runner).expect("it is spawned once"));
    static SOCKETS: StaticCell<StackResources<4>> = StaticCell::new();
    let sockets = SOCKETS.init_with(StackResources::new);
    let mut seed = [0; 8];
    entropy(&mut seed);
    let seed = u64::from_le_bytes(seed);
    let (net, runner) = embassy_net::new(driver, NetConfig::dhcpv4(Default::default()), sockets, seed);
    spawner.spawn(network(runner).expect("it is spawned once"));
    let flash = Shared::<NoopRawMutex, _>::new(BlockingAsync::new(Nvmc::new(chip.NVMC)));
    let part = |area: Range<u32>| Partition::new(&flash, area.start, area.end - area.start);
    let kept = FlashMap::<_, 768>::new(part(KEPT), 0..KEPT.end - KEPT.start).expect("whole pages");
    let slots = Slots::new(part(DFU), part(STATE));
    let (broker, login) = parlor_wiring::told!();
    let maker = parlor_wiring::maker!();
    let describe = Describe { update: maker.is_some(), ..Describe::NOTHING };
    let config =
        lamp::config(Config { login, platform: "nrf52840-w5500", describe, ..Config::new(env!("DEVICE_NAME")) });
    let act = |device| {
        let version = env!("CARGO_PKG_VERSION");
        let updates = parlor_wiring::update(device, slots, maker, version, || cortex_m::peripheral::SCB::sys_reset());
        join(lamp::run(device, led), updates)
    };
    parlor_wiring::run(net, broker, config, kept, entropy, act).await
}
