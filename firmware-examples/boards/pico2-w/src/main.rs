//! A lamp on a Raspberry Pi Pico 2 W (RP2350): the light is the LED of the board, which the radio holds.

#![no_std]
#![no_main]

use core::cell::RefCell;
use core::ops::Range;
use critical_section::Mutex;
use cyw43::{Control, JoinOptions, NetDriver, SpiBus, aligned_bytes};
use cyw43_pio::{DEFAULT_CLOCK_DIVIDER, PioSpi};
use embassy_embedded_hal::adapter::BlockingAsync;
use embassy_embedded_hal::flash::partition::Partition;
use embassy_executor::Spawner;
use embassy_futures::join::join;
use embassy_futures::select::{Either, select};
use embassy_net::{Config as NetConfig, Runner, StackResources};
use embassy_rp::flash::{Blocking, Flash};
use embassy_rp::gpio::{Level, Output};
use embassy_rp::peripherals::{DMA_CH0, PIO0, TRNG};
use embassy_rp::trng::Trng;
use embassy_rp::watchdog::Watchdog;
use embassy_rp::{bind_interrupts, dma, pio, trng};
use embassy_sync::blocking_mutex::raw::{CriticalSectionRawMutex, NoopRawMutex};
use embassy_sync::mutex::Mutex as Shared;
use embassy_sync::signal::Signal;
use embassy_time::{Duration, Timer};
use panic_halt as _;
use parlor_apps::lamp::{self, Lamp, Light};
use parlor_boot::Slots;
use parlor_device::{Config, Describe};
use parlor_wiring::FlashMap;
use static_cell::StaticCell;

include!(concat!(env!("OUT_DIR"), "/areas.rs"));

bind_interrupts!(struct Interrupts {
    TRNG_IRQ => trng::InterruptHandler<TRNG>;
    PIO0_IRQ_0 => pio::InterruptHandler<PIO0>;
    DMA_IRQ_0 => dma::InterruptHandler<DMA_CH0>;
});

const FLASH_BYTES: usize = 4 * 1_024 * 1_024;
/// Where flash begins.
const FLASH_START: u32 = 0x1000_0000;
/// What ends a program that hangs. The boot loader has started it with this time.
const WATCHDOG: Duration = Duration::from_secs(8);

type Bus = SpiBus<Output<'static>, PioSpi<'static, PIO0, 0>>;

/// The generator of random numbers, for whoever needs some.
static ENTROPY: Mutex<RefCell<Option<Trng<'static, TRNG>>>> = Mutex::new(RefCell::new(None));

/// The board is to be reset.
static RESET: Signal<CriticalSectionRawMutex, ()> = Signal::new();

/// What the LED is to be: the radio is told by the task that holds it.
static LED: Signal<CriticalSectionRawMutex, bool> = Signal::new();

struct Led;

impl Light for Led {
    fn set(&mut self, lamp: Lamp) {
        LED.signal(lamp.on);
    }
}

#[embassy_executor::task]
async fn radio(runner: cyw43::Runner<'static, Bus>) -> ! {
    runner.run().await
}

/// Shows the watchdog that tasks run, and resets the board.
#[embassy_executor::task]
async fn watch(mut watchdog: Watchdog) -> ! {
    watchdog.start(WATCHDOG);
    loop {
        watchdog.feed(WATCHDOG);
        if let Either::First(()) = select(RESET.wait(), Timer::after(WATCHDOG / 4)).await {
            watchdog.trigger_reset();
        }
    }
}

#[embassy_executor::task]
async fn network(mut runner: Runner<'static, NetDriver<'static>>) -> ! {
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

/// Joins the network, and switches the LED.
#[embassy_executor::task]
async fn wifi(mut radio: Control<'static>) -> ! {
    while radio.join(env!("WIFI_NAME"), JoinOptions::new(env!("WIFI_PASSWORD").as_bytes())).await.is_err() {
        Timer::after_secs(5).await;
    }
    loop {
        radio.gpio_set(0, LED.wait().await).await;
    }
}

#[embassy_executor::main]
async fn main(spawner: Spawner) {
    let chip = embassy_rp::init(Default::default());
    spawner.spawn(watch(Watchdog::new(chip.WATCHDOG)).expect("it is spawned once"));
    let rng = Trng::new(chip.TRNG, Interrupts, Default::default());
    critical_section::with(|cs| ENTROPY.borrow_ref_mut(cs).replace(rng));
    let mut seed = [0; 8];
    entropy(&mut seed);
    let firmware = aligned_bytes!(concat!(env!("OUT_DIR"), "/43439A0.bin"));
    let clm = aligned_bytes!(concat!(env!("OUT_DIR"), "/43439A0_clm.bin"));
    let nvram = aligned_bytes!(concat!(env!("OUT_DIR"), "/nvram_rp2040.bin"));
    let mut pio = pio::Pio::new(chip.PIO0, Interrupts);
    let select = Output::new(chip.PIN_25, Level::High);
    let channel = dma::Channel::new(chip.DMA_CH0, Interrupts);
    let spi = PioSpi::new(
        &mut pio.common,
        pio.sm0,
        DEFAULT_CLOCK_DIVIDER,
        pio.irq0,
        select,
        chip.PIN_24,
        chip.PIN_29,
        channel,
    );
    static RADIO: StaticCell<cyw43::State> = StaticCell::new();
    let power = Output::new(chip.PIN_23, Level::Low);
    let (driver, mut control, runner) =
        cyw43::new(RADIO.init_with(cyw43::State::new), power, spi, firmware, nvram).await;
    spawner.spawn(radio(runner).expect("it is spawned once"));
    control.init(clm).await;
    spawner.spawn(wifi(control).expect("it is spawned once"));
    static SOCKETS: StaticCell<StackResources<4>> = StaticCell::new();
    let sockets = SOCKETS.init_with(StackResources::new);
    let (net, runner) =
        embassy_net::new(driver, NetConfig::dhcpv4(Default::default()), sockets, u64::from_le_bytes(seed));
    spawner.spawn(network(runner).expect("it is spawned once"));
    let flash = BlockingAsync::new(Flash::<_, Blocking, FLASH_BYTES>::new_blocking(chip.FLASH));
    let flash = Shared::<NoopRawMutex, _>::new(flash);
    let part = |area: Range<u32>| Partition::new(&flash, area.start - FLASH_START, area.end - area.start);
    let kept = FlashMap::<_, 768>::new(part(KEPT), 0..KEPT.end - KEPT.start).expect("whole pages");
    let slots = Slots::new(part(DFU), part(STATE));
    let (broker, login) = parlor_wiring::told!();
    let maker = parlor_wiring::maker!();
    let describe = Describe { update: maker.is_some(), ..Describe::NOTHING };
    let config = lamp::config(Config { login, platform: "pico2-w", describe, ..Config::new(env!("DEVICE_NAME")) });
    let act = |device| {
        let updates = parlor_wiring::update(device, slots, maker, env!("CARGO_PKG_VERSION"), || RESET.signal(()));
        join(lamp::run(device, Led), updates)
    };
    parlor_wiring::run(net, broker, config, kept, entropy, act).await
}
