//! A lamp on a Nucleo-F767ZI with its Ethernet socket: the light is the blue LED.

#![no_std]
#![no_main]

use core::cell::RefCell;
use critical_section::Mutex;
use embassy_embedded_hal::adapter::BlockingAsync;
use embassy_embedded_hal::flash::partition::Partition;
use embassy_executor::Spawner;
use embassy_futures::join::join;
use embassy_net::{Config as NetConfig, Runner, StackResources};
use embassy_stm32::eth::{Ethernet, GenericPhy, PacketQueue, Sma};
use embassy_stm32::flash::Flash;
use embassy_stm32::gpio::{Level, Output, Speed};
use embassy_stm32::peripherals::{ETH, ETH_SMA, IWDG, RNG};
use embassy_stm32::rng::Rng;
use embassy_stm32::time::Hertz;
use embassy_stm32::wdg::IndependentWatchdog;
use embassy_stm32::{bind_interrupts, eth, rcc, rng};
use embassy_sync::blocking_mutex::raw::NoopRawMutex;
use embassy_sync::mutex::Mutex as Shared;
use embassy_time::Timer;
use panic_halt as _;
use parlor_apps::lamp::{self, Lamp, Light};
use parlor_boot::Slots;
use parlor_device::{Config, Describe};
use parlor_wiring::FlashMap;
use static_cell::StaticCell;

include!(concat!(env!("OUT_DIR"), "/areas.rs"));

bind_interrupts!(struct Interrupts {
    ETH => eth::InterruptHandler;
    RNG => rng::InterruptHandler<RNG>;
});

/// Where sectors of 32 KB begin, and those of 256 KB.
const SMALL: u32 = 0x0800_0000;
const LARGE: u32 = 0x0804_0000;

/// The generator of random numbers, for whoever needs some.
static ENTROPY: Mutex<RefCell<Option<Rng<'static, RNG>>>> = Mutex::new(RefCell::new(None));

struct Led(Output<'static>);

impl Light for Led {
    fn set(&mut self, lamp: Lamp) {
        self.0.set_level(lamp.on.into());
    }
}

type Nic = Ethernet<'static, ETH, GenericPhy<Sma<'static, ETH_SMA>>>;

/// Shows the watchdog that tasks run. The boot loader has started it.
#[embassy_executor::task]
async fn watch(mut watchdog: IndependentWatchdog<'static, IWDG>) -> ! {
    loop {
        watchdog.pet();
        Timer::after_secs(5).await;
    }
}

#[embassy_executor::task]
async fn network(mut runner: Runner<'static, Nic>) -> ! {
    runner.run().await
}

fn entropy(bytes: &mut [u8]) {
    critical_section::with(|cs| {
        // It is there before anything needs it.
        if let Some(rng) = ENTROPY.borrow_ref_mut(cs).as_mut() {
            rng.fill_bytes(bytes);
        }
    });
}

/// 216 MHz from the debugger's 8 MHz, and 48 MHz for the generator of random numbers.
fn clocks() -> embassy_stm32::Config {
    let mut config = embassy_stm32::Config::default();
    config.rcc.hse = Some(rcc::Hse { freq: Hertz(8_000_000), mode: rcc::HseMode::Bypass });
    config.rcc.pll_src = rcc::PllSource::HSE;
    config.rcc.pll = Some(rcc::Pll {
        prediv: rcc::PllPreDiv::DIV4,
        mul: rcc::PllMul::MUL216,
        divp: Some(rcc::PllPDiv::DIV2),
        divq: Some(rcc::PllQDiv::DIV9),
        divr: None,
    });
    config.rcc.ahb_pre = rcc::AHBPrescaler::DIV1;
    config.rcc.apb1_pre = rcc::APBPrescaler::DIV4;
    config.rcc.apb2_pre = rcc::APBPrescaler::DIV2;
    config.rcc.sys = rcc::Sysclk::PLL1_P;
    config
}

#[embassy_executor::main]
async fn main(spawner: Spawner) {
    let chip = embassy_stm32::init(clocks());
    spawner.spawn(watch(IndependentWatchdog::new(chip.IWDG, 30_000_000)).expect("it is spawned once"));
    let rng = Rng::new(chip.RNG, Interrupts);
    critical_section::with(|cs| ENTROPY.borrow_ref_mut(cs).replace(rng));
    let led = Led(Output::new(chip.PB7, Level::Low, Speed::Low));
    static PACKETS: StaticCell<PacketQueue<4, 4>> = StaticCell::new();
    // Locally administered (IEEE 802): one for each board of yours.
    let address = [0x02, 0x00, 0x00, 0x5A, 0x00, 0x01];
    let driver = Ethernet::new(
        PACKETS.init_with(PacketQueue::new),
        chip.ETH,
        Interrupts,
        chip.PA1,
        chip.PA7,
        chip.PC4,
        chip.PC5,
        chip.PG13,
        chip.PB13,
        chip.PG11,
        address,
        chip.ETH_SMA,
        chip.PA2,
        chip.PC1,
    );
    static SOCKETS: StaticCell<StackResources<4>> = StaticCell::new();
    let sockets = SOCKETS.init_with(StackResources::new);
    let mut seed = [0; 8];
    entropy(&mut seed);
    let seed = u64::from_le_bytes(seed);
    let (net, runner) = embassy_net::new(driver, NetConfig::dhcpv4(Default::default()), sockets, seed);
    spawner.spawn(network(runner).expect("it is spawned once"));
    let flash = Flash::new_blocking(chip.FLASH).into_blocking_regions();
    let small = Shared::<NoopRawMutex, _>::new(BlockingAsync::new(flash.bank1_region1));
    let large = Shared::<NoopRawMutex, _>::new(BlockingAsync::new(flash.bank1_region3));
    let kept = Partition::new(&small, KEPT.start - SMALL, KEPT.end - KEPT.start);
    let kept = FlashMap::<_, 768>::new(kept, 0..KEPT.end - KEPT.start).expect("whole sectors");
    let dfu = Partition::new(&large, DFU.start - LARGE, DFU.end - DFU.start);
    let slots = Slots::new(dfu, Partition::new(&small, STATE.start - SMALL, STATE.end - STATE.start));
    let (broker, login) = parlor_wiring::told!();
    let maker = parlor_wiring::maker!();
    let describe = Describe { update: maker.is_some(), ..Describe::NOTHING };
    let config =
        lamp::config(Config { login, platform: "nucleo-f767zi", describe, ..Config::new(env!("DEVICE_NAME")) });
    let act = |device| {
        let version = env!("CARGO_PKG_VERSION");
        let updates = parlor_wiring::update(device, slots, maker, version, || cortex_m::peripheral::SCB::sys_reset());
        join(lamp::run(device, led), updates)
    };
    parlor_wiring::run(net, broker, config, kept, entropy, act).await
}
